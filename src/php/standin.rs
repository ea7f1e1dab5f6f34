//! STAND-IN for the host table until it is merged: process memory, one owner per key. Delete at
//! merge; only `runtime` names it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::{Clock, Moment, WallTime, system};
use crate::entry::{Digest, Entry, Key, Version};
use crate::store::{
    Boarding, Claim, Claimed, Committed, Failure, Host as HostRole, Known, Lease, Reply, Right,
    Secret, Store, StoreError, backoff,
};

#[derive(Default)]
struct Slot {
    entry: Option<Entry>,
    taken: bool,
    lease: Option<Lease>,
    failures: u64,
    back_off: Option<(Moment, String)>,
    state: Arc<AtomicU64>,
}

#[derive(Default)]
pub struct Host {
    slots: Mutex<HashMap<Vec<u8>, Slot>>,
    counts: [AtomicU64; 2],
}

#[derive(Clone, Copy)]
pub enum Counter {
    TokenHits,
    FxHits,
}

#[derive(Clone)]
pub struct Watch {
    state: Arc<AtomicU64>,
    seen: u64,
}

impl Watch {
    #[inline]
    pub fn holds(&self) -> bool {
        self.state.load(Ordering::Acquire) == self.seen
    }

    #[inline]
    pub fn now(&self) -> Moment {
        system::monotonic()
    }
}

impl Host {
    pub fn open() -> Result<Self, String> {
        Ok(Self::default())
    }

    pub fn watch(&self, key: &Key, version: Version) -> Option<Watch> {
        self.with(key, |slot| {
            let holds = slot.entry.as_ref().is_some_and(|entry| entry.version == version);
            let (state, seen) = (slot.state.clone(), slot.state.load(Ordering::Acquire));
            holds.then_some(Watch { state, seen })
        })
    }

    pub fn count(&self, counter: Counter, times: u64) {
        self.counts[counter as usize].fetch_add(times, Ordering::Relaxed);
    }

    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let of = |counter: Counter| self.counts[counter as usize].load(Ordering::Relaxed);
        vec![("token_cache_hits", of(Counter::TokenHits)), ("fx_cache_hits", of(Counter::FxHits))]
    }

    fn with<R>(&self, key: &Key, act: impl FnOnce(&mut Slot) -> R) -> R {
        act(self.slots.lock().entry(key.bytes().to_vec()).or_default())
    }
}

fn reply<T>(what: T) -> Reply<T> {
    Reply { floor: Version::NONE, what }
}

impl Clock for Host {
    fn now(&self) -> Moment {
        system::monotonic()
    }

    fn wall(&self) -> WallTime {
        system::wall()
    }
}

impl Store for Host {
    fn claim(&self, key: &Key, claim: &Claim, now: Moment) -> Result<Reply<Claimed>, StoreError> {
        let version = Version(self.wall().unix_micros().max(claim.highest_known.0 + 1));
        Ok(reply(self.with(key, |slot| {
            if let Some((until, reason)) = slot.back_off.clone().filter(|(until, _)| now < *until) {
                return Claimed::BackOff { wait: now.until(until), reason };
            }
            let lease = Lease { secret: claim.secret, version };
            slot.lease = Some(lease);
            Claimed::Lease(lease)
        })))
    }

    fn renew(&self, _: &Key, _: &Lease, _: Duration, _: Moment) -> Result<bool, StoreError> {
        Ok(true)
    }

    fn commit(
        &self,
        key: &Key,
        _: &Lease,
        entry: &Entry,
        _: Moment,
    ) -> Result<Reply<Committed>, StoreError> {
        self.with(key, |slot| {
            slot.entry = Some(entry.clone());
            (slot.failures, slot.back_off) = (0, None);
            slot.state.fetch_add(1, Ordering::Release);
        });
        Ok(reply(Committed::Accepted))
    }

    fn abandon(
        &self,
        key: &Key,
        _: &Lease,
        failure: Option<&Failure>,
        now: Moment,
    ) -> Result<(), StoreError> {
        self.with(key, |slot| {
            slot.lease = None;
            if let Some(failure) = failure {
                slot.failures += 1;
                let until = now.plus(backoff(failure.base, slot.failures));
                slot.back_off = Some((until, failure.reason.clone()));
            }
        });
        Ok(())
    }

    fn invalidate(
        &self,
        key: &Key,
        rejected: Option<Digest>,
        _: Moment,
    ) -> Result<Reply<bool>, StoreError> {
        Ok(reply(self.with(key, |slot| {
            let hit = slot.entry.as_ref().is_some_and(|e| rejected.is_none_or(|r| r == e.digest()));
            if hit {
                slot.entry = None;
                slot.state.fetch_add(1, Ordering::Release);
            }
            hit
        })))
    }

    fn restore(&self, _: &Key, _: &Entry, _: Moment) -> Result<Reply<Committed>, StoreError> {
        Ok(reply(Committed::Accepted))
    }
}

impl HostRole for Host {
    fn look(&self, key: &Key) -> Option<Known> {
        self.with(key, |slot| {
            Some(Known {
                entry: slot.entry.clone(),
                confirmed_at: Moment::default(),
                newest: Version::NONE,
                pending_rejection: None,
            })
        })
    }

    fn board(&self, key: &Key, _: Moment, now: Moment) -> Result<Boarding, StoreError> {
        Ok(self.with(key, |slot| {
            if std::mem::replace(&mut slot.taken, true) {
                return Boarding::Taken { bell: 0, since: now };
            }
            Boarding::Mine { right: Right { place: 0, generation: 0 }, orphan: None }
        }))
    }

    fn note_secret(&self, _: &Key, _: &Right, _: Secret) {}

    fn extend(&self, _: &Key, _: &Right, _: Moment) -> bool {
        true
    }

    fn leave(&self, key: &Key, _: &Right) {
        self.with(key, |slot| slot.taken = false);
    }

    fn wait(&self, _: &Key, _: u32, at_most: Duration) {
        std::thread::sleep(at_most.min(Duration::from_millis(5)));
    }

    fn adopt(&self, _: &Key, _: &Entry, _: Moment) -> Result<(), StoreError> {
        Ok(())
    }

    fn raise_floor(&self, _: &Key, _: Version) {}

    fn confirm(&self, _: &Key, _: Version, _: Moment) {}

    fn may_revalidate(&self, _: &Key, _: Moment, _: Moment) -> bool {
        false
    }

    fn set_pending_rejection(&self, _: &Key, _: Option<Digest>) {}
}
