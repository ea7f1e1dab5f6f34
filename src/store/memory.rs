//! The reference: both roles in the memory of one process, one lock around everything.
//!
//! The rules are [`Record`]'s, shared with the host table; what that does with shared memory and
//! kernel locks, this file does with plain fields. In production it stands in for the host table when no table
//! is possible but Redis is there: its flights exclude the threads of this process only, and the
//! lease in Redis excludes everybody else. It never forgets a key and lives as long as its process.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::{Condvar, MappedMutexGuard, Mutex, MutexGuard};

use super::record::{Context, Record};
use super::{
    Asked, Boarding, Claim, Claimed, Committed, Failure, Flying, Health, Heard, Host, Known, Lease,
    Reply, Reservation, Resident, Right, Secret, Stock, Store, StoreError,
};
use crate::clock::{Clock, Moment, WallTime};
use crate::entry::{Digest, Entry, Key, Kind, Version};
use crate::metrics::Counter;
use crate::metrics::tally::{Tally, family};

pub struct MemoryHost {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Rung for all keys at once: a sleeper that was not meant looks at its own bell and returns.
    rung: Condvar,
    counters: [AtomicU64; Counter::ALL.len()],
    tally: Arc<Tally>,
}

#[derive(Default)]
struct State {
    /// The highest version given to anything, over all keys.
    issued: Version,
    failing: bool,
    heartbeat: Moment,
    slots: HashMap<Box<[u8]>, Slot>,
}

#[derive(Default)]
struct Slot {
    record: Record,
    floor: Version,
    newest: Version,
    confirmed_at: Moment,
    revalidate_at: Moment,
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
        let counters = [const { AtomicU64::new(0) }; _];
        let tally = Arc::new(Tally::of_process());
        Self { clock, state: Mutex::default(), rung: Condvar::new(), counters, tally }
    }

    fn slot(&self, key: &Key) -> MappedMutexGuard<'_, Slot> {
        MutexGuard::map(self.state.lock(), |state| {
            state.slots.entry(key.bytes().into()).or_default()
        })
    }

    fn latest(&self) -> Version {
        Version::latest(self.clock.wall())
    }

    /// The version, if it can be believed; then none is issued up to it.
    fn saw(&self, version: Version) -> Version {
        let version = version.believed(self.latest());
        let mut state = self.state.lock();
        state.issued = state.issued.max(version);
        version
    }

    /// Change a record by its own rules; see [`Record`].
    fn edit<R>(
        &self,
        key: &Key,
        now: Moment,
        change: impl FnOnce(&mut Record, &mut Context<'_>, &mut dyn FnMut(Version) -> Version) -> R,
    ) -> Result<Reply<R>, StoreError> {
        let wall = self.clock.wall();
        let latest = Version::latest(wall);
        let mut state = self.state.lock();
        let State { issued, slots, .. } = &mut *state;
        let slot = slots.entry(key.bytes().into()).or_default();
        // The time makes versions grow even when the store has lost its memory.
        let mut issue = |above: Version| {
            *issued = (*issued).max(above).next().max(Version(wall.unix_micros()));
            *issued
        };
        let mut at = Context { kind: key.kind(), floor: &mut slot.floor, now, latest };
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
        let entry = slot.entry().cloned();
        let heard = entry.as_ref().is_some_and(|it| it.version >= slot.newest && !it.unsynced);
        let heartbeat = if heard { state.heartbeat } else { Moment::default() };
        Some(Known {
            ask_at: slot.revalidate_at,
            entry,
            confirmed_at: slot.confirmed_at.max(heartbeat),
            newest: slot.newest,
            highest: state.issued,
            floor: slot.floor,
            pending_rejection: slot.record.pending_rejection,
            authority_failing: state.failing,
            evicted: false,
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

    /// Nothing is ever evicted here.
    fn reserve(&self, _key: &Key) -> Reservation {
        Reservation(0)
    }

    fn adopt(&self, key: &Key, entry: &Entry, asked: Asked) -> Result<(), StoreError> {
        let (asked_at, latest) = (asked.at, self.latest());
        self.saw(entry.version);
        let mut slot = self.slot(key);
        if !(slot.floor.max(slot.newest)..=latest).contains(&entry.version) {
            return Ok(());
        }
        let known = slot.entry().is_some_and(|held| held.version == entry.version);
        slot.confirmed_at = if known { slot.confirmed_at.max(asked_at) } else { asked_at };
        slot.newest = entry.version;
        slot.record.adopt(entry);
        Ok(())
    }

    fn raise_floor(&self, key: &Key, floor: Version) {
        let floor = self.saw(floor);
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
        self.slot(key).record.pending_rejection = rejected;
    }

    fn resident(&self) -> Vec<Key> {
        self.state.lock().slots.keys().filter_map(|bytes| Key::from_bytes(bytes)).collect()
    }

    fn hear(&self, key: &Key, version: Version, floor: Version) -> bool {
        let (version, floor) = (self.saw(version), self.saw(floor));
        let mut state = self.state.lock();
        let slot = state.slots.get_mut(key.bytes());
        slot.map(|slot| {
            slot.newest = slot.newest.max(version);
            slot.floor = slot.floor.max(floor);
        })
        .is_some()
    }

    fn beat(&self, at: Moment) {
        let mut state = self.state.lock();
        state.heartbeat = state.heartbeat.max(at);
    }

    /// One process: it leads itself.
    fn lead(&self, _now: Moment, _until: Moment) -> Option<Right> {
        Some(Right { place: 0, generation: 0 })
    }

    fn keep_leading(&self, _term: &Right, _until: Moment) -> bool {
        true
    }

    fn stop_leading(&self, _term: &Right) {}

    fn survey(&self, at_most: usize) -> Vec<Resident> {
        let state = self.state.lock();
        let flying = |flight: &Flight| Flying {
            since: flight.since,
            until: flight.until,
            process: Some(std::process::id()),
        };
        let residents = state.slots.iter().filter_map(|(bytes, slot)| {
            Some(Resident {
                key: Key::from_bytes(bytes)?,
                entry: slot.entry().cloned(),
                confirmed_at: slot.confirmed_at.max(state.heartbeat),
                backoff: slot.record.backoff(self.clock.now()),
                flight: slot.flight.as_ref().map(flying),
            })
        });
        residents.take(at_most).collect()
    }

    fn stock(&self) -> Stock {
        let now = self.clock.now();
        let mut stock = Stock::default();
        for resident in self.survey(usize::MAX) {
            stock.resident += 1;
            let kind = resident.key.kind();
            let usable = resident.entry.as_ref().is_some_and(|entry| entry.servable(kind, now));
            match kind {
                Kind::Sheet => stock.sheets.push(resident),
                Kind::Token if usable => {
                    let family = family(resident.key.name()).to_vec();
                    *stock.usable.entry(family).or_default() += 1;
                }
                _ => {}
            }
        }
        stock
    }

    fn health(&self) -> Health {
        let state = self.state.lock();
        Health {
            failing: state.failing,
            asked_again: None,
            heartbeat: state.heartbeat,
            led: state.heartbeat > Moment::default(),
        }
    }

    fn count(&self, counter: Counter, times: u64) {
        self.counters[counter as usize].fetch_add(times, Relaxed);
    }

    fn tally(&self) -> Arc<Tally> {
        self.tally.clone()
    }

    fn counted(&self, counter: Counter) -> u64 {
        self.counters[counter as usize].load(Relaxed)
    }

    // One process has no host to speak for: it asks, and bears its own time-outs.
    fn authority_allowed(&self, _now: Moment) -> bool {
        true
    }

    fn authority_heard(&self, heard: Heard, _now: Moment) -> bool {
        let answered = heard == Heard::Answer;
        std::mem::replace(&mut self.state.lock().failing, !answered) == answered
    }
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
mod tests;
