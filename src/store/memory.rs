//! The reference: both roles in the memory of one process, one lock around everything.
//!
//! What the other stores do with shared memory and scripts, this one does with plain fields; where
//! they disagree, this file is right. In production it stands in for the host table when no table
//! is possible but Redis is there: its flights exclude the threads of this process only, and the
//! lease in Redis excludes everybody else. It never forgets a key and lives as long as its process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, MappedMutexGuard, Mutex, MutexGuard};

use super::{
    Boarding, Claim, Claimed, Committed, Failure, Host, Known, Lease, MAX_REASON, Reply, Right,
    Secret, Store, StoreError, backoff, jittered, rejection_pause,
};
use crate::clock::{Clock, Moment, WallTime};
use crate::entry::{Digest, Entry, Key, Timing, Version};

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
    records: HashMap<Box<[u8]>, Record>,
}

#[derive(Default)]
struct Record {
    floor: Version,
    /// Never below `floor`: whoever raises the floor drops the entry.
    entry: Option<Entry>,
    newest: Version,
    lease: Option<Held>,
    failures: u64,
    retry_at: Moment,
    reason: String,
    rejections: u64,
    dropped_at: Moment,
    confirmed_at: Moment,
    revalidate_at: Moment,
    pending_rejection: Option<Digest>,
    flight: Option<Flight>,
    /// Of the last flight; kept when it has ended, so that no two flights share one.
    generation: u32,
    bell: u32,
}

#[derive(Clone, Copy)]
struct Held {
    lease: Lease,
    until: Moment,
}

struct Flight {
    since: Moment,
    until: Moment,
    secret: Option<Secret>,
}

enum Rejected {
    NotCurrent,
    Dropped,
    /// Another one was dropped a moment ago; this one stays in force for so long.
    TooSoon(Duration),
}

impl Record {
    fn live_lease(&self, now: Moment) -> Option<Held> {
        self.lease.filter(|held| now < held.until)
    }

    fn raise_floor(&mut self, floor: Version) {
        self.floor = self.floor.max(floor);
        if self.entry.as_ref().is_some_and(|entry| entry.version < self.floor) {
            self.entry = None;
        }
    }

    fn reject(&mut self, rejected: Digest, now: Moment) -> Rejected {
        let Some(entry) = self.entry.as_ref().filter(|entry| entry.digest() == rejected) else {
            return Rejected::NotCurrent;
        };
        if lived_half(&entry.timing, now) {
            self.rejections = 0;
        }
        // The first waits for nothing, not even for a clock that began at zero.
        let allowed_at = self.dropped_at.plus(rejection_pause(self.rejections));
        if self.rejections > 0 && now < allowed_at {
            return Rejected::TooSoon(now.until(allowed_at));
        }
        // Not above a mint in flight: that one is already the answer to this rejection.
        self.raise_floor(entry.version.next());
        self.rejections += 1;
        self.dropped_at = now;
        Rejected::Dropped
    }

    fn store(&mut self, entry: &Entry, confirmed_at: Moment) {
        self.newest = self.newest.max(entry.version);
        self.confirmed_at = confirmed_at;
        self.entry = Some(entry.clone());
    }

    /// The stored entry decides, where it is not older than `entry`.
    fn against_stored(&self, entry: &Entry) -> Option<Committed> {
        let stored = self.entry.as_ref().filter(|stored| stored.version >= entry.version)?;
        let same = stored.version == entry.version && stored.value == entry.value;
        Some(if same { Committed::Accepted } else { Committed::Superseded(stored.clone()) })
    }
}

/// A token that worked this long shows that the issuer and the endpoint are at one again.
fn lived_half(timing: &Timing, now: Moment) -> bool {
    let usable = timing.minted_at.millis_until(timing.usable_until);
    timing.minted_at.millis_until(now) >= usable / 2
}

impl MemoryHost {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Mutex::default(), rung: Condvar::new() }
    }

    fn record(&self, key: &Key) -> MappedMutexGuard<'_, Record> {
        MutexGuard::map(self.state.lock(), |state| state.record(key))
    }
}

impl State {
    fn record(&mut self, key: &Key) -> &mut Record {
        self.records.entry(key.bytes().into()).or_default()
    }

    /// A version above everything issued, this key's floor, whatever was seen of it, and the time:
    /// the last makes versions grow even when the store has lost its memory.
    fn next_version(&mut self, key: &Key, highest_known: Version, wall: WallTime) -> Version {
        let record = self.record(key);
        let seen = record.floor.max(record.newest).max(highest_known);
        self.issued = self.issued.max(seen).next().max(Version(wall.unix_micros()));
        self.issued
    }
}

impl Store for MemoryHost {
    fn claim(&self, key: &Key, claim: &Claim, now: Moment) -> Result<Reply<Claimed>, StoreError> {
        let wall = self.clock.wall();
        let mut state = self.state.lock();
        let record = state.record(key);
        let rejection = claim.rejected.map(|rejected| record.reject(rejected, now));
        let floor = record.floor;
        let reply = |what| Ok(Reply { floor, what });

        if let Some(entry) = &record.entry
            && entry.version > claim.newer_than
            && entry.servable(key.kind(), now)
        {
            return reply(Claimed::Value(entry.clone()));
        }
        if let Some(held) = record.live_lease(now) {
            if held.lease.secret == claim.secret {
                record.lease = Some(Held { until: now.plus(claim.lease), ..held });
                return reply(Claimed::Lease(held.lease));
            }
            if claim.takeover != Some(held.lease.secret) {
                return reply(Claimed::Busy(now.until(held.until)));
            }
        }
        if let Some(Rejected::TooSoon(wait)) = rejection {
            let reason = "the token was rejected again too soon".into();
            return reply(Claimed::BackOff { wait, reason });
        }
        if now < record.retry_at {
            let wait = now.until(record.retry_at);
            return reply(Claimed::BackOff { wait, reason: record.reason.clone() });
        }
        let version = state.next_version(key, claim.highest_known, wall);
        let lease = Lease { secret: claim.secret, version };
        state.record(key).lease = Some(Held { lease, until: now.plus(claim.lease) });
        reply(Claimed::Lease(lease))
    }

    fn renew(
        &self,
        key: &Key,
        lease: &Lease,
        length: Duration,
        now: Moment,
    ) -> Result<bool, StoreError> {
        let mut record = self.record(key);
        let ours = record.live_lease(now).filter(|held| held.lease == *lease);
        if ours.is_some() {
            record.lease = Some(Held { lease: *lease, until: now.plus(length) });
        }
        Ok(ours.is_some())
    }

    fn commit(
        &self,
        key: &Key,
        lease: &Lease,
        entry: &Entry,
        now: Moment,
    ) -> Result<Reply<Committed>, StoreError> {
        let mut state = self.state.lock();
        let record = state.record(key);
        let floor = record.floor;
        let reply = |what| Ok(Reply { floor, what });

        if entry.version < floor {
            return reply(Committed::Fenced);
        }
        if let Some(decided) = record.against_stored(entry) {
            return reply(decided);
        }
        let live = record.live_lease(now).map(|held| held.lease);
        if live.is_some_and(|l| l.secret != lease.secret && l.version > entry.version) {
            return reply(Committed::Fenced);
        }
        record.store(entry, now);
        record.lease = record.lease.filter(|held| held.lease.secret != lease.secret);
        record.failures = 0;
        record.retry_at = Moment::default();
        state.issued = state.issued.max(entry.version);
        reply(Committed::Accepted)
    }

    fn abandon(
        &self,
        key: &Key,
        lease: &Lease,
        failure: Option<&Failure>,
        now: Moment,
    ) -> Result<(), StoreError> {
        let mut record = self.record(key);
        if record.live_lease(now).is_none_or(|held| held.lease != *lease) {
            return Ok(());
        }
        record.lease = None;
        if let Some(Failure { base, reason }) = failure {
            record.failures += 1;
            record.retry_at = now.plus(jittered(backoff(*base, record.failures)));
            record.reason = reason[..reason.floor_char_boundary(MAX_REASON)].into();
        }
        Ok(())
    }

    fn invalidate(
        &self,
        key: &Key,
        rejected: Option<Digest>,
        now: Moment,
    ) -> Result<Reply<bool>, StoreError> {
        let wall = self.clock.wall();
        let mut state = self.state.lock();
        let dropped = match rejected {
            Some(rejected) => matches!(state.record(key).reject(rejected, now), Rejected::Dropped),
            None => {
                // The floor is a version of its own that no mint ever gets: above the stored one,
                // above the live lease's, and above that of a lease that has run out.
                let floor = state.next_version(key, Version::NONE, wall);
                let record = state.record(key);
                let dropped = record.entry.is_some() || record.live_lease(now).is_some();
                record.raise_floor(floor);
                dropped
            }
        };
        Ok(Reply { floor: state.record(key).floor, what: dropped })
    }

    fn restore(
        &self,
        key: &Key,
        entry: &Entry,
        now: Moment,
    ) -> Result<Reply<Committed>, StoreError> {
        let mut state = self.state.lock();
        let record = state.record(key);
        let floor = record.floor;
        let what = if entry.version < floor {
            Committed::Fenced
        } else if let Some(decided) = record.against_stored(entry) {
            decided
        } else {
            record.store(entry, now);
            state.issued = state.issued.max(entry.version);
            Committed::Accepted
        };
        Ok(Reply { floor, what })
    }
}

impl Host for MemoryHost {
    fn look(&self, key: &Key) -> Option<Known> {
        let state = self.state.lock();
        let record = state.records.get(key.bytes())?;
        Some(Known {
            entry: record.entry.clone(),
            confirmed_at: record.confirmed_at,
            newest: record.newest,
            pending_rejection: record.pending_rejection,
        })
    }

    fn board(&self, key: &Key, until: Moment, now: Moment) -> Result<Boarding, StoreError> {
        let mut record = self.record(key);
        if let Some(flight) = record.flight.as_ref().filter(|flight| now < flight.until) {
            return Ok(Boarding::Taken { bell: record.bell, since: flight.since });
        }
        let orphan = record.flight.take().and_then(|given_up| given_up.secret);
        record.generation = record.generation.wrapping_add(1);
        record.flight = Some(Flight { since: now, until, secret: None });
        let right = Right { place: key.hash(), generation: record.generation };
        Ok(Boarding::Mine { right, orphan })
    }

    fn note_secret(&self, key: &Key, right: &Right, secret: Secret) {
        if let Some(flight) = self.record(key).flight_of(right) {
            flight.secret = Some(secret);
        }
    }

    fn extend(&self, key: &Key, right: &Right, until: Moment) -> bool {
        self.record(key).flight_of(right).map(|flight| flight.until = until).is_some()
    }

    fn leave(&self, key: &Key, right: &Right) {
        let mut record = self.record(key);
        if record.flight_of(right).is_some() {
            record.flight = None;
            record.bell = record.bell.wrapping_add(1);
            self.rung.notify_all();
        }
    }

    fn wait(&self, key: &Key, bell: u32, at_most: Duration) {
        let mut state = self.state.lock();
        if state.record(key).bell == bell {
            self.rung.wait_for(&mut state, at_most);
        }
    }

    fn adopt(&self, key: &Key, entry: &Entry, asked_at: Moment) -> Result<(), StoreError> {
        let mut record = self.record(key);
        if entry.version < record.floor || entry.version < record.newest {
            return Ok(());
        }
        let known = record.entry.as_ref().is_some_and(|held| held.version == entry.version);
        let confirmed_at = if known { record.confirmed_at.max(asked_at) } else { asked_at };
        record.store(entry, confirmed_at);
        Ok(())
    }

    fn raise_floor(&self, key: &Key, floor: Version) {
        self.record(key).raise_floor(floor);
    }

    fn confirm(&self, key: &Key, version: Version, asked_at: Moment) {
        let mut record = self.record(key);
        if record.entry.as_ref().is_some_and(|entry| entry.version == version) {
            record.confirmed_at = record.confirmed_at.max(asked_at);
        }
    }

    fn may_revalidate(&self, key: &Key, now: Moment, until: Moment) -> bool {
        let mut record = self.record(key);
        let may = now >= record.revalidate_at;
        if may {
            record.revalidate_at = until;
        }
        may
    }

    fn set_pending_rejection(&self, key: &Key, rejected: Option<Digest>) {
        self.record(key).pending_rejection = rejected;
    }
}

impl Record {
    /// `None` when the flight was taken over, or has ended.
    fn flight_of(&mut self, right: &Right) -> Option<&mut Flight> {
        self.flight.as_mut().filter(|_| self.generation == right.generation)
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
