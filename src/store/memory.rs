//! The reference: both roles in the memory of one process, one lock around everything.
//!
//! The rules are [`Record`]'s, shared with the host table; what that does with shared memory and
//! kernel locks, this file does with plain fields. In production it stands in for the host table when no table
//! is possible but Redis is there: its flights exclude the threads of this process only, and the
//! lease in Redis excludes everybody else. It never forgets a key and lives as long as its process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, MappedMutexGuard, Mutex, MutexGuard};

use super::record::{Context, Record};
use super::{
    Boarding, Claim, Claimed, Committed, Failure, Host, Known, Lease, Reply, Right, Secret, Store,
    StoreError,
};
use crate::clock::{Clock, Moment, WallTime};
use crate::entry::{Digest, Entry, Key, Version};

pub struct MemoryHost {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Rung for all keys at once: a sleeper that was not meant looks at its own bell and returns.
    rung: Condvar,
}

#[derive(Default)]
struct State {
    /// The highest version given to anything, over all keys.
    issued: Version,
    slots: HashMap<Box<[u8]>, Slot>,
}

#[derive(Default)]
struct Slot {
    record: Record,
    floor: Version,
    newest: Version,
    confirmed_at: Moment,
    revalidate_at: Moment,
    pending_rejection: Option<Digest>,
    flight: Option<Flight>,
    /// Of the last flight; kept when it has ended, so that no two flights share one.
    generation: u32,
    bell: u32,
}

struct Flight {
    since: Moment,
    until: Moment,
    secret: Option<Secret>,
}

impl Slot {
    fn entry(&self) -> Option<&Entry> {
        self.record.entry.as_ref().filter(|entry| entry.version >= self.floor)
    }

    /// `None` when the flight was taken over, or has ended.
    fn flight_of(&mut self, right: &Right) -> Option<&mut Flight> {
        self.flight.as_mut().filter(|_| self.generation == right.generation)
    }
}

impl MemoryHost {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Mutex::default(), rung: Condvar::new() }
    }

    fn slot(&self, key: &Key) -> MappedMutexGuard<'_, Slot> {
        MutexGuard::map(self.state.lock(), |state| {
            state.slots.entry(key.bytes().into()).or_default()
        })
    }

    /// Change a record by its own rules; see [`Record`].
    fn edit<R>(
        &self,
        key: &Key,
        now: Moment,
        change: impl FnOnce(&mut Record, &mut Context<'_>, &mut dyn FnMut(Version) -> Version) -> R,
    ) -> Result<Reply<R>, StoreError> {
        let wall = self.clock.wall().unix_micros();
        let mut state = self.state.lock();
        let State { issued, slots } = &mut *state;
        let slot = slots.entry(key.bytes().into()).or_default();
        // The time makes versions grow even when the store has lost its memory.
        let mut issue = |above: Version| {
            *issued = (*issued).max(above).next().max(Version(wall));
            *issued
        };
        let mut at = Context { kind: key.kind(), floor: &mut slot.floor, now };
        let what = change(&mut slot.record, &mut at, &mut issue);
        let stored = slot.record.entry.as_ref().map_or(Version::NONE, |entry| entry.version);
        slot.newest = slot.newest.max(stored);
        *issued = (*issued).max(stored);
        Ok(Reply { floor: slot.floor, what })
    }
}

impl Store for MemoryHost {
    fn claim(&self, key: &Key, claim: &Claim, now: Moment) -> Result<Reply<Claimed>, StoreError> {
        self.edit(key, now, |record, at, issue| record.claim(at, claim, issue))
    }

    fn renew(
        &self,
        key: &Key,
        lease: &Lease,
        length: Duration,
        now: Moment,
    ) -> Result<bool, StoreError> {
        self.edit(key, now, |record, at, _| record.renew(at.now, lease, length)).map(|it| it.what)
    }

    fn commit(
        &self,
        key: &Key,
        lease: &Lease,
        entry: &Entry,
        now: Moment,
    ) -> Result<Reply<Committed>, StoreError> {
        self.edit(key, now, |record, at, _| record.commit(at, lease, entry))
    }

    fn abandon(
        &self,
        key: &Key,
        lease: &Lease,
        failure: Option<&Failure>,
        now: Moment,
    ) -> Result<(), StoreError> {
        self.edit(key, now, |record, at, _| record.abandon(at.now, lease, failure))
            .map(|it| it.what)
    }

    fn invalidate(
        &self,
        key: &Key,
        rejected: Option<Digest>,
        now: Moment,
    ) -> Result<Reply<bool>, StoreError> {
        self.edit(key, now, |record, at, issue| record.invalidate(at, rejected, issue))
    }

    fn restore(
        &self,
        key: &Key,
        entry: &Entry,
        now: Moment,
    ) -> Result<Reply<Committed>, StoreError> {
        self.edit(key, now, |record, at, _| record.restore(at, entry))
    }
}

impl Host for MemoryHost {
    fn look(&self, key: &Key) -> Option<Known> {
        let state = self.state.lock();
        let slot = state.slots.get(key.bytes())?;
        Some(Known {
            entry: slot.entry().cloned(),
            confirmed_at: slot.confirmed_at,
            newest: slot.newest,
            pending_rejection: slot.pending_rejection,
        })
    }

    fn board(&self, key: &Key, until: Moment, now: Moment) -> Result<Boarding, StoreError> {
        let mut slot = self.slot(key);
        if let Some(flight) = slot.flight.as_ref().filter(|flight| now < flight.until) {
            return Ok(Boarding::Taken { bell: slot.bell, since: flight.since });
        }
        let orphan = slot.flight.take().and_then(|given_up| given_up.secret);
        slot.generation = slot.generation.wrapping_add(1);
        slot.flight = Some(Flight { since: now, until, secret: None });
        let right = Right { place: key.hash(), generation: slot.generation };
        Ok(Boarding::Mine { right, orphan })
    }

    fn note_secret(&self, key: &Key, right: &Right, secret: Secret) {
        if let Some(flight) = self.slot(key).flight_of(right) {
            flight.secret = Some(secret);
        }
    }

    fn extend(&self, key: &Key, right: &Right, until: Moment) -> bool {
        self.slot(key).flight_of(right).map(|flight| flight.until = until).is_some()
    }

    fn leave(&self, key: &Key, right: &Right) {
        let mut slot = self.slot(key);
        if slot.flight_of(right).is_some() {
            slot.flight = None;
            slot.bell = slot.bell.wrapping_add(1);
            self.rung.notify_all();
        }
    }

    fn wait(&self, key: &Key, bell: u32, at_most: Duration) {
        let mut state = self.state.lock();
        if state.slots.get(key.bytes()).map_or(0, |slot| slot.bell) == bell {
            self.rung.wait_for(&mut state, at_most);
        }
    }

    fn adopt(&self, key: &Key, entry: &Entry, asked_at: Moment) -> Result<(), StoreError> {
        let mut slot = self.slot(key);
        if entry.version < slot.floor || entry.version < slot.newest {
            return Ok(());
        }
        let known = slot.entry().is_some_and(|held| held.version == entry.version);
        slot.confirmed_at = if known { slot.confirmed_at.max(asked_at) } else { asked_at };
        slot.newest = entry.version;
        slot.record.entry = Some(entry.clone());
        Ok(())
    }

    fn raise_floor(&self, key: &Key, floor: Version) {
        let mut slot = self.slot(key);
        slot.floor = slot.floor.max(floor);
    }

    fn confirm(&self, key: &Key, version: Version, asked_at: Moment) {
        let mut slot = self.slot(key);
        if slot.entry().is_some_and(|entry| entry.version == version) {
            slot.confirmed_at = slot.confirmed_at.max(asked_at);
        }
    }

    fn may_revalidate(&self, key: &Key, now: Moment, until: Moment) -> bool {
        let mut slot = self.slot(key);
        let may = now >= slot.revalidate_at;
        if may {
            slot.revalidate_at = until;
        }
        may
    }

    fn set_pending_rejection(&self, key: &Key, rejected: Option<Digest>) {
        self.slot(key).pending_rejection = rejected;
    }

    // One process has no host to speak for: it asks, and bears its own time-outs.
    fn authority_allowed(&self, _now: Moment) -> bool {
        true
    }

    fn authority_answered(&self, _answered: bool, _now: Moment) {}
}

impl Clock for MemoryHost {
    fn now(&self) -> Moment {
        self.clock.now()
    }

    fn wall(&self) -> WallTime {
        self.clock.wall()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::fake::FakeClock;
    use crate::entry::{Fingerprint, Kind, Timing};
    use crate::store::conformance::{check, secret};

    fn at(ms: i64) -> Moment {
        Moment::from_millis(ms)
    }

    fn host() -> MemoryHost {
        MemoryHost::new(Arc::new(FakeClock::at(0)))
    }

    fn key() -> Key {
        Key::new(Kind::Token, b"crm", Fingerprint::default()).unwrap()
    }

    fn entry(version: u64) -> Entry {
        let timing = Timing {
            minted_at: at(0),
            refresh_at: at(80),
            usable_until: at(100),
            expires_at: at(120),
        };
        let version = Version(version);
        Entry { version, timing, unsynced: false, value: b"one".to_vec(), detail: vec![] }
    }

    fn board(host: &MemoryHost, until: i64, now: i64) -> Result<(Right, Option<Secret>), u32> {
        match host.board(&key(), at(until), at(now)).unwrap() {
            Boarding::Mine { right, orphan } => Ok((right, orphan)),
            Boarding::Taken { bell, .. } => Err(bell),
        }
    }

    #[test]
    fn the_reference_keeps_the_contract_of_a_store() {
        let clock = Arc::new(FakeClock::at(0));
        check("MemoryHost", &|| Box::new(MemoryHost::new(clock.clone())), &*clock);
    }

    #[test]
    fn a_flight_past_its_deadline_is_taken_over_with_its_secret_and_its_owner_can_do_nothing() {
        let host = host();
        let (first, orphan) = board(&host, 50, 0).unwrap();
        assert_eq!(orphan, None);
        host.note_secret(&key(), &first, secret(7));
        assert!(board(&host, 60, 49).is_err());
        assert!(host.extend(&key(), &first, at(60)));
        assert!(board(&host, 70, 59).is_err());

        let (second, orphan) = board(&host, 200, 60).unwrap();
        assert_eq!(orphan, Some(secret(7)));
        assert!(!host.extend(&key(), &first, at(300)));
        host.leave(&key(), &first);
        assert!(board(&host, 300, 61).is_err(), "the late owner's leave changed nothing");
        host.leave(&key(), &second);
        assert_eq!(board(&host, 300, 62).unwrap().1, None);
    }

    #[test]
    fn leaving_wakes_who_waits_and_a_late_waiter_does_not_sleep() {
        let host = host();
        let (right, _) = board(&host, 1_000, 0).unwrap();
        let bell = board(&host, 1_000, 0).unwrap_err();
        std::thread::scope(|scope| {
            scope.spawn(|| host.wait(&key(), bell, Duration::from_secs(600)));
            host.leave(&key(), &right);
        });
        host.wait(&key(), bell, Duration::from_secs(600));
    }

    #[test]
    fn a_host_never_takes_over_what_is_older_than_it_knows_or_below_the_floor() {
        let host = host();
        let version = || host.look(&key()).unwrap().entry.map(|entry| entry.version.0);
        host.adopt(&key(), &entry(5), at(1)).unwrap();
        host.adopt(&key(), &entry(4), at(2)).unwrap();
        assert_eq!(version(), Some(5));
        host.raise_floor(&key(), Version(7));
        assert_eq!(version(), None);
        host.adopt(&key(), &entry(6), at(3)).unwrap();
        assert_eq!(version(), None);
        host.adopt(&key(), &entry(7), at(4)).unwrap();
        assert_eq!(version(), Some(7));
    }

    #[test]
    fn an_older_answer_about_the_same_version_does_not_unconfirm_it() {
        let host = host();
        host.adopt(&key(), &entry(5), at(10)).unwrap();
        host.adopt(&key(), &entry(5), at(8)).unwrap();
        host.confirm(&key(), Version(5), at(9));
        host.confirm(&key(), Version(4), at(50));
        assert_eq!(host.look(&key()).unwrap().confirmed_at, at(10));
    }

    #[test]
    fn one_process_revalidates_until_its_time_is_up() {
        let host = host();
        assert!(host.may_revalidate(&key(), at(0), at(50)));
        assert!(!host.may_revalidate(&key(), at(49), at(99)));
        assert!(host.may_revalidate(&key(), at(50), at(100)));
    }

    #[test]
    fn a_rejection_is_kept_until_it_was_sent() {
        let host = host();
        let rejected = Some(Digest::of(b"one"));
        host.set_pending_rejection(&key(), rejected);
        assert_eq!(host.look(&key()).unwrap().pending_rejection, rejected);
        host.set_pending_rejection(&key(), None);
        assert_eq!(host.look(&key()).unwrap().pending_rejection, None);
    }
}
