//! A store whose network is bad in a chosen place: for tests of whoever talks to a [`Store`].
//!
//! Operations are counted from zero, over all keys. A fault belongs to one of them; [`FaultyStore::set_down`]
//! fails all until it is lifted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::{Claim, Claimed, Committed, Failure, Lease, Reply, Restored, Store, StoreError};
use crate::clock::Moment;
use crate::entry::{Digest, Entry, Key, Version};
use crate::lock::Mutex;

pub enum Fault {
    /// The request is lost: nothing happens in the store.
    Before,
    /// The store does it and the caller never hears of it.
    LostReply,
    /// Something else happens first: time passes, or another client gets in between.
    Meanwhile(Box<dyn FnOnce() + Send>),
}

pub struct FaultyStore {
    inner: Arc<dyn Store>,
    operations: AtomicU64,
    down: AtomicBool,
    faults: Mutex<BTreeMap<u64, Fault>>,
}

impl FaultyStore {
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            operations: AtomicU64::new(0),
            down: AtomicBool::new(false),
            faults: Mutex::default(),
        }
    }

    /// Let `fault` strike the `operation`-th operation from now; 0 is the next one.
    pub fn strike(&self, operation: u64, fault: Fault) {
        self.faults.lock().insert(self.operations() + operation, fault);
    }

    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// How many operations were asked for, the failed ones too.
    pub fn operations(&self) -> u64 {
        self.operations.load(Ordering::SeqCst)
    }

    fn through<T>(
        &self,
        operation: impl FnOnce(&dyn Store) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let lost = || StoreError::Unreachable("injected fault".into());
        let number = self.operations.fetch_add(1, Ordering::SeqCst);
        let fault = self.faults.lock().remove(&number);
        if self.down.load(Ordering::SeqCst) {
            return Err(lost());
        }
        match fault {
            None => operation(&*self.inner),
            Some(Fault::Before) => Err(lost()),
            Some(Fault::LostReply) => operation(&*self.inner).and(Err(lost())),
            Some(Fault::Meanwhile(happens)) => {
                happens();
                operation(&*self.inner)
            }
        }
    }
}

impl Store for FaultyStore {
    fn claim(&self, key: &Key, claim: &Claim, now: Moment) -> Result<Reply<Claimed>, StoreError> {
        self.through(|store| store.claim(key, claim, now))
    }

    fn renew(
        &self,
        key: &Key,
        lease: &Lease,
        length: Duration,
        now: Moment,
    ) -> Result<bool, StoreError> {
        self.through(|store| store.renew(key, lease, length, now))
    }

    fn commit(
        &self,
        key: &Key,
        lease: &Lease,
        entry: &Entry,
        now: Moment,
    ) -> Result<Reply<Committed>, StoreError> {
        self.through(|store| store.commit(key, lease, entry, now))
    }

    fn abandon(
        &self,
        key: &Key,
        lease: &Lease,
        failure: Option<&Failure>,
        now: Moment,
    ) -> Result<Duration, StoreError> {
        self.through(|store| store.abandon(key, lease, failure, now))
    }

    fn invalidate(
        &self,
        key: &Key,
        rejected: Option<Digest>,
        seen: Version,
        now: Moment,
    ) -> Result<Reply<bool>, StoreError> {
        self.through(|store| store.invalidate(key, rejected, seen, now))
    }

    fn restore(
        &self,
        key: &Key,
        entry: &Entry,
        now: Moment,
    ) -> Result<Reply<Restored>, StoreError> {
        self.through(|store| store.restore(key, entry, now))
    }
}

mod tests {
    use super::*;
    use crate::clock::fake::FakeClock;
    use crate::entry::{Fingerprint, Kind};
    use crate::store::conformance::{claim_of, secret};
    use crate::store::memory::MemoryHost;

    #[test]
    fn a_lost_reply_happened_and_a_lost_request_did_not() {
        let store = FaultyStore::new(Arc::new(MemoryHost::new(Arc::new(FakeClock::at(0)))));
        let key = Key::new(Kind::Token, b"crm", Fingerprint::default()).unwrap();
        let claim = |n| store.claim(&key, &claim_of(secret(n)), Moment::from_millis(0));

        store.strike(0, Fault::Before);
        store.strike(1, Fault::LostReply);
        assert!(claim(1).is_err());
        assert!(claim(2).is_err());
        assert!(matches!(claim(3).unwrap().what, Claimed::Busy(_)), "the second one has it");
        assert!(matches!(claim(2).unwrap().what, Claimed::Lease(_)), "and gets it when it repeats");
        assert_eq!(store.operations(), 4);
    }
}
