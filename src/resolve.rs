//! The addresses of a host's name, by a deadline.
//!
//! `getaddrinfo` knows no timeout, so it runs in a thread that is left behind when it is late; a few
//! of those at most, or a dead resolver would pile them up.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;

use crate::clock::{Moment, system};

/// Clones count their late threads together.
#[derive(Clone, Debug, Default)]
pub struct Resolver(Arc<AtomicU32>);

impl Resolver {
    /// At least one address, in the order of the system's preference. Blocks until `deadline` at
    /// the latest.
    pub fn resolve(&self, host: &str, port: u16, deadline: Moment) -> io::Result<Vec<SocketAddr>> {
        const MAX_LATE: u32 = 4;
        const STACK: usize = 256 * 1024;

        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        if self.0.fetch_add(1, Ordering::Relaxed) >= MAX_LATE {
            self.0.fetch_sub(1, Ordering::Relaxed);
            return Err(io::Error::new(io::ErrorKind::TimedOut, "name resolution hangs"));
        }
        let (answer, answered) = mpsc::sync_channel(1);
        let (name, resolving) = (host.to_owned(), Arc::clone(&self.0));
        let started = thread::Builder::new().stack_size(STACK).spawn(move || {
            let found = (name.as_str(), port).to_socket_addrs();
            resolving.fetch_sub(1, Ordering::Relaxed);
            // Nobody may be listening any more.
            let _ = answer.send(found.map(Iterator::collect::<Vec<_>>));
        });
        if let Err(error) = started {
            self.0.fetch_sub(1, Ordering::Relaxed);
            return Err(error);
        }
        let late =
            |_| Err(io::Error::new(io::ErrorKind::TimedOut, "name resolution took too long"));
        let found = answered.recv_timeout(system::monotonic().until(deadline)).unwrap_or_else(late);
        match found {
            Ok(none) if none.is_empty() => {
                Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
            }
            found => found,
        }
    }
}
