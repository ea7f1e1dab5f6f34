//! The addresses of a host's name, by a deadline.
//!
//! `getaddrinfo` knows no timeout, so it runs in a thread that is left behind when it is late. While a
//! few of those are, nobody starts another, or a dead resolver would pile them up.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;

use crate::clock::{Uptime, system};

type Lookup = fn(&str, u16) -> io::Result<Vec<SocketAddr>>;

/// Clones count their late threads together.
#[derive(Clone, Debug)]
pub struct Resolver {
    lookup: Lookup,
    /// Lookups that nobody waits for any more. One that is waited for is not counted: a crowd that
    /// connects at once says nothing about the resolver.
    late: Arc<AtomicU32>,
}

impl Default for Resolver {
    fn default() -> Self {
        Self::asking(|host, port| (host, port).to_socket_addrs().map(Iterator::collect))
    }
}

impl Resolver {
    pub(crate) fn asking(lookup: Lookup) -> Self {
        Self { lookup, late: Arc::default() }
    }

    /// At least one address, in the order of the system's preference. Blocks until `deadline` at
    /// the latest. `TimedOut` only for what was waited for until then.
    pub fn resolve(&self, host: &str, port: u16, deadline: Uptime) -> io::Result<Vec<SocketAddr>> {
        const MAX_LATE: u32 = 4;
        const STACK: usize = 256 * 1024;

        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        if self.late.load(Ordering::Relaxed) >= MAX_LATE {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "name resolution hangs"));
        }
        let (answer, answered) = mpsc::sync_channel(1);
        // Set by whichever ends first, the lookup or the wait for it.
        let over = Arc::new(AtomicBool::new(false));
        let (name, lookup) = (host.to_owned(), self.lookup);
        let (late, ended) = (Arc::clone(&self.late), Arc::clone(&over));
        thread::Builder::new().stack_size(STACK).spawn(move || {
            let found = lookup(&name, port);
            if ended.swap(true, Ordering::AcqRel) {
                late.fetch_sub(1, Ordering::Relaxed);
            }
            // Nobody may be listening any more.
            let _ = answer.send(found);
        })?;
        let Ok(found) = answered.recv_timeout(system::monotonic().until(deadline)) else {
            // Counted before it is said, so that the lookup never takes off what is not there yet.
            self.late.fetch_add(1, Ordering::Relaxed);
            if over.swap(true, Ordering::AcqRel) {
                self.late.fetch_sub(1, Ordering::Relaxed);
            }
            return Err(io::Error::new(io::ErrorKind::TimedOut, "name resolution took too long"));
        };
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
    use std::sync::Barrier;
    use std::sync::LazyLock;
    use std::time::Duration;

    use super::*;

    const CROWD: usize = 16;

    fn soon(ms: u64) -> Uptime {
        system::monotonic().plus(Duration::from_millis(ms))
    }

    #[test]
    fn a_crowd_that_resolves_at_once_is_answered_by_a_healthy_resolver() {
        static ALL_HERE: LazyLock<Barrier> = LazyLock::new(|| Barrier::new(CROWD));
        // No lookup ends before all have begun.
        let resolver = Resolver::asking(|_, port| {
            ALL_HERE.wait();
            Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))])
        });
        thread::scope(|scope| {
            let ask = || resolver.resolve("redis.internal", 6379, soon(10_000));
            let crowd: Vec<_> = (0..CROWD).map(|_| scope.spawn(ask)).collect();
            for asked in crowd {
                let found = asked.join().unwrap();
                assert!(found.as_ref().is_ok_and(|found| found.len() == 1), "{found:?}");
            }
        });
    }

    #[test]
    fn while_lookups_hang_a_further_one_is_refused_at_once_and_not_as_a_silence() {
        static HANGS: AtomicBool = AtomicBool::new(true);
        let resolver = Resolver::asking(|_, port| {
            while HANGS.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(1));
            }
            Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))])
        });
        let ask = |ms| resolver.clone().resolve("redis.internal", 6379, soon(ms));
        for _ in 0..4 {
            assert_eq!(ask(20).unwrap_err().kind(), io::ErrorKind::TimedOut, "was waited for");
        }
        let refused = ask(600_000).unwrap_err();
        assert_ne!(refused.kind(), io::ErrorKind::TimedOut, "nothing was waited for: {refused}");
        HANGS.store(false, Ordering::SeqCst);
        let answers = (0..1_000).any(|_| {
            thread::sleep(Duration::from_millis(5));
            ask(600_000).is_ok()
        });
        assert!(answers, "those that were late have ended");
        assert!(resolver.late.load(Ordering::SeqCst) < 4);
    }
}
