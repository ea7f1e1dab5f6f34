//! The addresses of a host's name, by a deadline.
//!
//! `getaddrinfo` knows no timeout, so it runs in a thread that is left behind when it is late; a few
//! of those at most, or a dead resolver would pile them up.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;

use crate::clock::{Moment, system};

/// Of one lookup.
const UNDER_WAY: u8 = 0;
const LATE: u8 = 1;
const DONE: u8 = 2;

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
        // Said at once, so nobody has waited: not a time-out.
        if self.0.load(Ordering::Relaxed) >= MAX_LATE {
            return Err(io::Error::other("name resolution hangs"));
        }
        let (answer, answered) = mpsc::sync_channel(1);
        let (name, late) = (host.to_owned(), Arc::clone(&self.0));
        let state = Arc::new(AtomicU8::new(UNDER_WAY));
        let mine = Arc::clone(&state);
        thread::Builder::new().stack_size(STACK).spawn(move || {
            let found = (name.as_str(), port).to_socket_addrs();
            // Only those that are late are counted: many at once are no sign of a dead resolver.
            if state.swap(DONE, Ordering::Relaxed) == LATE {
                late.fetch_sub(1, Ordering::Relaxed);
            }
            // Nobody may be listening any more.
            let _ = answer.send(found.map(Iterator::collect::<Vec<_>>));
        })?;
        let found =
            answered.recv_timeout(system::monotonic().until(deadline)).unwrap_or_else(|_| {
                self.0.fetch_add(1, Ordering::Relaxed);
                let (was, is) = (UNDER_WAY, LATE);
                if mine.compare_exchange(was, is, Ordering::Relaxed, Ordering::Relaxed).is_err() {
                    self.0.fetch_sub(1, Ordering::Relaxed);
                }
                Err(io::Error::new(io::ErrorKind::TimedOut, "name resolution took too long"))
            });
        match found {
            Ok(none) if none.is_empty() => {
                Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
            }
            found => found,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn many_lookups_at_once_of_a_resolver_that_answers_are_all_answered() {
        let resolver = Resolver::default();
        let by = system::monotonic().plus(Duration::from_secs(5));
        thread::scope(|scope| {
            let lookups: Vec<_> =
                (0..64).map(|_| scope.spawn(|| resolver.resolve("localhost", 80, by))).collect();
            for lookup in lookups {
                assert!(lookup.join().unwrap().is_ok());
            }
        });
        assert_eq!(resolver.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn late_lookups_are_counted_until_they_end_and_then_forgotten() {
        let resolver = Resolver::default();
        let long_ago = system::monotonic();
        for _ in 0..8 {
            // Whoever was quicker than we are is not late.
            drop(resolver.resolve("localhost", 80, long_ago));
        }
        let give_up = system::monotonic().plus(Duration::from_secs(5));
        while resolver.0.load(Ordering::Relaxed) > 0 {
            assert!(system::monotonic() < give_up, "they have ended");
            thread::sleep(Duration::from_millis(5));
        }
        assert!(resolver.resolve("localhost", 80, give_up).is_ok());
    }
}
