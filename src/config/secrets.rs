//! The values of secret settings, which PHP's own table must not hold: those of the process, and those that
//! a request has for itself, such as a virtual host's. Nobody else's request may run with the latter.

use std::thread::ThreadId;

/// Whose value it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Process,
    /// The request that this thread serves.
    Request(ThreadId),
}

struct Slot {
    name: &'static str,
    owner: Owner,
    value: Vec<u8>,
}

/// A handful of slots. PHP calls for each value of a request that it puts back, so none is left over.
#[derive(Default)]
pub struct Secrets(Vec<Slot>);

impl Secrets {
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn set(&mut self, name: &'static str, owner: Owner, value: &[u8]) {
        self.remove(name, owner);
        self.0.push(Slot { name, owner, value: value.to_vec() });
    }

    /// The request has ended: what the process had counts again.
    pub fn restore(&mut self, name: &'static str, thread: ThreadId) {
        self.remove(name, Owner::Request(thread));
    }

    /// What holds for the request that this thread serves; empty when nothing was set.
    pub fn get(&self, name: &str, thread: ThreadId) -> &[u8] {
        let own = self.find(name, Owner::Request(thread));
        own.unwrap_or_else(|| self.of_process(name))
    }

    pub fn of_process(&self, name: &str) -> &[u8] {
        self.find(name, Owner::Process).unwrap_or_default()
    }

    fn find(&self, name: &str, owner: Owner) -> Option<&[u8]> {
        let slot = self.0.iter().find(|slot| slot.name == name && slot.owner == owner)?;
        Some(&slot.value)
    }

    fn remove(&mut self, name: &str, owner: Owner) {
        self.0.retain(|slot| slot.name != name || slot.owner != owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const DSN: &str = "sharedstate.redis.dsn";
    const PASSWORD: &str = "sharedstate.redis.password";

    fn two_threads() -> (ThreadId, ThreadId) {
        let other = thread::spawn(|| thread::current().id()).join().unwrap();
        (thread::current().id(), other)
    }

    #[test]
    fn what_a_request_set_ends_with_it() {
        let (mine, _) = two_threads();
        let mut secrets = Secrets::new();
        secrets.set(DSN, Owner::Process, b"redis://a");
        secrets.set(DSN, Owner::Request(mine), b"redis://b");
        // Set again, as a folder's value is after a virtual host's.
        secrets.set(DSN, Owner::Request(mine), b"redis://c");
        assert_eq!(secrets.get(DSN, mine), b"redis://c");
        secrets.restore(DSN, mine);
        assert_eq!(secrets.get(DSN, mine), b"redis://a");
        secrets.restore(DSN, mine);
        assert_eq!(secrets.get(DSN, mine), b"redis://a");
    }

    #[test]
    fn what_a_request_set_is_seen_by_no_other_thread() {
        let (mine, other) = two_threads();
        let mut secrets = Secrets::new();
        secrets.set(PASSWORD, Owner::Request(mine), b"mine");
        secrets.set(PASSWORD, Owner::Request(other), b"other");
        secrets.restore(PASSWORD, mine);
        assert_eq!(secrets.get(PASSWORD, mine), b"");
        assert_eq!(secrets.get(PASSWORD, other), b"other");
        assert_eq!(secrets.of_process(PASSWORD), b"");
    }

    #[test]
    fn a_request_can_take_a_secret_away() {
        let (mine, other) = two_threads();
        let mut secrets = Secrets::new();
        secrets.set(PASSWORD, Owner::Process, b"all");
        secrets.set(PASSWORD, Owner::Request(mine), b"");
        assert_eq!(secrets.get(PASSWORD, mine), b"");
        assert_eq!(secrets.get(PASSWORD, other), b"all");
    }

    #[test]
    fn one_secret_is_not_another() {
        let (mine, _) = two_threads();
        let mut secrets = Secrets::new();
        secrets.set(DSN, Owner::Request(mine), b"redis://a");
        secrets.set(PASSWORD, Owner::Request(mine), b"word");
        secrets.restore(DSN, mine);
        assert_eq!(secrets.get(DSN, mine), b"");
        assert_eq!(secrets.get(PASSWORD, mine), b"word");
    }
}
