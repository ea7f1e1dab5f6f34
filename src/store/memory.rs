//! The reference: both roles in the memory of one process, one lock around everything.
//!
//! The rules are [`Record`]'s, shared with the host table; what that does with shared memory and
//! kernel locks, this file does with plain fields. In production it stands in for the host table when no table
//! is possible but Redis is there: its flights exclude the threads of this process only, and the
//! lease in Redis excludes everybody else. It never forgets a key and lives as long as its process.
//! In the simulation it is a whole host's.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::breaker::Breaker;
use super::log::Anchor;
use super::record::{Context, Record};
use super::{
    Asked, Boarding, Claim, Claimed, Committed, Failure, Flying, Health, Heard, Host, Known, Lease,
    Leave, Reply, Reservation, Resident, Restored, Right, Secret, Stock, Store, StoreError,
};
use crate::clock::server::{ServerLead, ServerTime, Watched};
use crate::clock::{Clock, Moment, WallTime};
use crate::entry::{Digest, Entry, Key, Kind, Version};
use crate::lock::{Condvar, Mutex};
use crate::metrics::Counter;
use crate::metrics::tally::{Tally, family};

#[cfg(test)]
pub mod without;
#[cfg(test)]
use without::HostRule;

/// As a host table has it by default.
const MOST: usize = 16 << 10;

pub struct MemoryHost {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Rung for all keys at once: a sleeper that was not meant looks at its own bell and returns.
    rung: Condvar,
    counters: [AtomicU64; Counter::ALL.len()],
    tally: Arc<Tally>,
}

struct State {
    /// The highest version seen of anything.
    issued: Version,
    breaker: Breaker,
    /// Since when nothing was heard of the authority.
    silent_since: Option<Moment>,
    answered_at: Moment,
    server_lead: ServerLead,
    watched: Option<Watched>,
    heartbeat: Moment,
    /// What was not confirmed since is in doubt; see [`Host::doubt`].
    doubt: Moment,
    in_doubt: bool,
    doubted_beat: Moment,
    anchor: Option<Anchor>,
    /// The term of the leader and when it may be given up on.
    term: Right,
    led_until: Moment,
    /// When each turn to ask is over that was taken.
    turns: [Moment; Self::TURNS],
    slots: HashMap<Box<[u8]>, Slot>,
    /// Slots made so far.
    made: u64,
}

#[derive(Default)]
struct Slot {
    /// No two slots have the same, also not of one key.
    number: u64,
    used: Moment,
    record: Record,
    floor: Version,
    newest: Version,
    confirmed_at: Moment,
    revalidate_at: Moment,
    busy_until: Moment,
    paused_until: Moment,
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

impl Default for State {
    fn default() -> Self {
        Self {
            issued: Version::NONE,
            breaker: Breaker::unpack(0),
            silent_since: None,
            answered_at: Moment::default(),
            server_lead: ServerLead::default(),
            watched: None,
            heartbeat: Moment::default(),
            doubt: Moment::default(),
            in_doubt: false,
            doubted_beat: Moment::default(),
            anchor: None,
            term: Right { place: 0, generation: 0 },
            led_until: Moment::default(),
            turns: [Moment::default(); Self::TURNS],
            slots: HashMap::new(),
            made: 0,
        }
    }
}

impl State {
    /// As many processes ask at once.
    const TURNS: usize = 4;

    fn slot(&mut self, key: &Key) -> &mut Slot {
        let made = &mut self.made;
        self.slots.entry(key.bytes().into()).or_insert_with(|| {
            *made += 1;
            Slot { number: *made, ..Slot::default() }
        })
    }

    /// Up to when the leader vouches for what was last confirmed at `asked`.
    fn vouched(&self, asked: Moment) -> Moment {
        if self.doubt > Moment::default() && asked <= self.doubt {
            self.heartbeat.min(self.doubted_beat)
        } else {
            self.heartbeat
        }
    }

    fn confirmed_at(&self, slot: &Slot) -> Moment {
        let heard = slot.entry().is_some_and(|it| it.version >= slot.newest && !it.unsynced);
        let asked = slot.confirmed_at;
        if heard { asked.max(self.vouched(asked)) } else { asked }
    }
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
        Self { clock, state: Mutex::default(), rung: Condvar::default(), counters, tally }
    }

    /// The key makes room, as in a table that is full.
    #[cfg(test)]
    pub fn evict(&self, key: &Key) {
        let mut state = self.state.lock();
        let in_flight =
            |slot: &Slot| slot.flight.as_ref().is_some_and(|it| self.clock.now() < it.until);
        if state.slots.get(key.bytes()).is_some_and(|slot| !in_flight(slot)) {
            state.slots.remove(key.bytes());
        }
    }

    /// The key's bell, without a look at anything else.
    #[cfg(test)]
    pub fn bell(&self, key: &Key) -> u32 {
        self.state.lock().slots.get(key.bytes()).map_or(0, |slot| slot.bell)
    }

    /// The term of whoever leads, or led last.
    #[cfg(test)]
    pub fn term(&self) -> Right {
        self.state.lock().term
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
        state.slot(key);
        let State { issued, slots, .. } = &mut *state;
        let Some(slot) = slots.get_mut(key.bytes()) else {
            return Err(StoreError::Refused("it was there a moment ago".into()));
        };
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
    ) -> Result<Duration, StoreError> {
        self.edit(key, now, |record, at, _| record.abandon(at.now, lease, failure))
            .map(|it| it.what)
    }

    fn invalidate(
        &self,
        key: &Key,
        rejected: Option<Digest>,
        seen: Version,
        now: Moment,
    ) -> Result<Reply<bool>, StoreError> {
        self.edit(key, now, |record, at, issue| record.invalidate(at, rejected, seen, issue))
    }

    fn restore(
        &self,
        key: &Key,
        entry: &Entry,
        now: Moment,
    ) -> Result<Reply<Restored>, StoreError> {
        self.edit(key, now, |record, at, _| Restored {
            outcome: record.restore(at, entry),
            since: now,
        })
    }
}

impl Host for MemoryHost {
    fn look(&self, key: &Key) -> Option<Known> {
        let now = self.clock.now();
        let mut state = self.state.lock();
        state.slots.get_mut(key.bytes())?.used = now;
        let slot = state.slots.get(key.bytes())?;
        Some(Known {
            entry: slot.entry().cloned(),
            confirmed_at: state.confirmed_at(slot),
            heartbeat: state.heartbeat,
            bell: slot.bell,
            busy_until: slot.busy_until,
            paused_until: slot.paused_until,
            backoff: slot.record.backoff(),
            newest: slot.newest.max(slot.floor),
            highest: state.issued,
            floor: slot.floor,
            pending_rejection: slot.record.pending_rejection,
            ask_at: slot.revalidate_at,
            authority_failing: state.breaker.failures > 0,
            evicted: false,
        })
    }

    fn board(&self, key: &Key, until: Moment, now: Moment) -> Result<Boarding, StoreError> {
        let mut state = self.state.lock();
        let slot = state.slot(key);
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
        if let Some(flight) = self.state.lock().slot(key).flight_of(right) {
            flight.secret = Some(secret);
        }
    }

    fn extend(&self, key: &Key, right: &Right, until: Moment) -> bool {
        let mut state = self.state.lock();
        state.slot(key).flight_of(right).map(|flight| flight.until = until).is_some()
    }

    fn leave(&self, key: &Key, right: &Right) {
        let mut state = self.state.lock();
        let slot = state.slot(key);
        if slot.flight_of(right).is_some() {
            slot.flight = None;
            slot.bell = slot.bell.wrapping_add(1);
            self.rung.notify_all();
        }
    }

    fn wait(&self, key: &Key, bell: u32, at_most: Duration) {
        let state = self.state.lock();
        if state.slots.get(key.bytes()).map_or(0, |slot| slot.bell) == bell {
            drop(self.rung.wait_for(state, at_most));
        }
    }

    fn most(&self) -> usize {
        MOST
    }

    fn reserve(&self, key: &Key) -> Reservation {
        Reservation(self.state.lock().slots.get(key.bytes()).map_or(0, |slot| slot.number))
    }

    fn adopt(&self, key: &Key, entry: &Entry, asked: Asked) -> Result<(), StoreError> {
        let latest = self.latest();
        self.saw(entry.version);
        let mut state = self.state.lock();
        let slot = state.slots.get_mut(key.bytes());
        let Some(slot) = slot.filter(|slot| Reservation(slot.number) == asked.reservation) else {
            return Ok(());
        };
        let least = slot.floor.max(slot.newest);
        #[cfg(test)]
        let least = if without::is(HostRule::NewerOnly) { Version::NONE } else { least };
        if !(least..=latest).contains(&entry.version) {
            return Ok(());
        }
        let known = slot.entry().is_some_and(|held| held.version == entry.version);
        slot.confirmed_at = if known { slot.confirmed_at.max(asked.at) } else { asked.at };
        slot.newest = entry.version;
        slot.record.adopt(entry);
        Ok(())
    }

    fn raise_floor(&self, key: &Key, floor: Version) {
        let floor = self.saw(floor);
        if let Some(slot) = self.state.lock().slots.get_mut(key.bytes()) {
            slot.floor = slot.floor.max(floor);
        }
    }

    fn confirm(&self, key: &Key, version: Version, asked_at: Moment) {
        if let Some(slot) = self.state.lock().slots.get_mut(key.bytes())
            && slot.entry().is_some_and(|entry| entry.version == version)
        {
            slot.confirmed_at = slot.confirmed_at.max(asked_at);
        }
    }

    fn may_revalidate(&self, key: &Key, now: Moment, until: Moment) -> bool {
        let mut state = self.state.lock();
        let slot = state.slots.get_mut(key.bytes()).filter(|slot| now >= slot.revalidate_at);
        slot.map(|slot| slot.revalidate_at = until).is_some()
    }

    fn set_pending_rejection(&self, key: &Key, rejected: Option<Digest>) {
        if let Some(slot) = self.state.lock().slots.get_mut(key.bytes()) {
            slot.record.pending_rejection = rejected;
        }
    }

    fn resident(&self) -> Vec<Key> {
        let state = self.state.lock();
        let mut slots: Vec<_> = state.slots.iter().collect();
        // By name where they were used at once, so that a test repeats.
        slots.sort_by(|(one, first), (other, second)| {
            second.used.cmp(&first.used).then_with(|| one.cmp(other))
        });
        slots.into_iter().filter_map(|(bytes, _)| Key::from_bytes(bytes)).collect()
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

    fn set_busy(&self, key: &Key, until: Moment) {
        if let Some(slot) = self.state.lock().slots.get_mut(key.bytes()) {
            (slot.busy_until, slot.paused_until) = (until, Moment::default());
        }
    }

    fn hear_backoff(&self, key: &Key, until: Moment, reason: &str, paused_until: Moment) {
        if let Some(slot) = self.state.lock().slots.get_mut(key.bytes()) {
            slot.record.hear_backoff(until, reason);
            slot.paused_until = paused_until;
        }
    }

    fn wake(&self, key: &Key) {
        if let Some(slot) = self.state.lock().slots.get_mut(key.bytes()) {
            (slot.busy_until, slot.paused_until) = Default::default();
            slot.bell = slot.bell.wrapping_add(1);
        }
        self.rung.notify_all();
    }

    fn beat(&self, at: Moment, anchor: &Anchor) {
        #[cfg(test)]
        let at = if without::is(HostRule::BeatAsSent) { self.clock.now() } else { at };
        let mut state = self.state.lock();
        state.heartbeat = state.heartbeat.max(at);
        state.anchor = Some(*anchor);
    }

    fn anchor(&self) -> Option<Anchor> {
        self.state.lock().anchor
    }

    fn doubt(&self) -> u64 {
        let now = self.clock.now();
        let mut state = self.state.lock();
        if !state.in_doubt {
            state.doubted_beat = state.heartbeat;
        }
        state.in_doubt = true;
        #[cfg(test)]
        let now = if without::is(HostRule::Doubt) { Moment::default() } else { now };
        state.doubt = state.doubt.max(now);
        for slot in state.slots.values_mut() {
            (slot.busy_until, slot.paused_until) = Default::default();
            slot.bell = slot.bell.wrapping_add(1);
        }
        self.rung.notify_all();
        state.doubt.as_millis() as u64
    }

    fn settle(&self, doubt: u64) {
        let mut state = self.state.lock();
        if state.doubt.as_millis() as u64 == doubt {
            state.in_doubt = false;
        }
    }

    fn in_doubt(&self) -> Option<u64> {
        let state = self.state.lock();
        state.in_doubt.then_some(state.doubt.as_millis() as u64)
    }

    fn hear_clock(&self, told: &ServerTime, noted: i64, set_back: bool) {
        let now = self.clock.now();
        let heard = {
            let mut state = self.state.lock();
            let watched = Watched::look(state.watched, told, noted);
            let heard = state.server_lead.heard(told.clock, now, set_back || watched.for_long());
            state.server_lead = heard.lead;
            state.watched = Some(watched);
            heard
        };
        self.stood_still_for(heard.gained);
    }

    fn lead(&self, now: Moment, until: Moment) -> Option<Right> {
        let mut state = self.state.lock();
        if now < state.led_until {
            return None;
        }
        state.term.generation += 1;
        state.led_until = until;
        Some(state.term)
    }

    fn keep_leading(&self, term: &Right, until: Moment) -> bool {
        let mut state = self.state.lock();
        let ours = state.term == *term;
        if ours {
            state.led_until = until;
        }
        ours
    }

    fn stop_leading(&self, term: &Right) {
        self.keep_leading(term, Moment::default());
    }

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
                confirmed_at: state.confirmed_at(slot),
                backoff: slot.record.backoff().filter(|it| self.clock.now() < it.until),
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
            failing: state.breaker.failures > 0,
            asked_again: state.breaker.is_open().then_some(state.breaker.until),
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

    fn may_ask(&self, now: Moment) -> Leave {
        let mut state = self.state.lock();
        if !state.breaker.is_open() {
            return Leave::Given;
        }
        match state.breaker.probed(now) {
            Some(probing) => {
                state.breaker = probing;
                Leave::Given
            }
            None => Leave::Withheld { certain: state.breaker.certain },
        }
    }

    fn take_turn(&self, until: Moment) -> Option<Right> {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let place = state.turns.iter().position(|over| *over <= now)?;
        state.turns[place] = until;
        Some(Right { place: place as u64, generation: 0 })
    }

    fn end_turn(&self, turn: &Right) {
        let mut state = self.state.lock();
        if let Some(over) = state.turns.get_mut(turn.place as usize) {
            *over = Moment::default();
        }
    }

    fn authority_heard(&self, heard: Heard, asked_at: Moment, now: Moment) -> bool {
        let mut state = self.state.lock();
        if heard == Heard::Answer {
            state.answered_at = state.answered_at.max(now);
            state.silent_since = None;
            let before = std::mem::replace(&mut state.breaker, Breaker::unpack(0));
            return before.failures > 0;
        }
        self.count(Counter::StoreErrors, 1);
        let since = match heard {
            Heard::Refusal => now,
            _ if state.answered_at > asked_at => return false,
            _ => *state.silent_since.get_or_insert(now),
        };
        let before = state.breaker;
        state.breaker = before.failed(heard, since, now);
        let opened = state.breaker.is_open() && !before.is_open();
        self.count(Counter::BreakerOpened, u64::from(opened));
        before.failures == 0
    }
}

impl Clock for MemoryHost {
    fn now(&self) -> Moment {
        self.clock.now()
    }

    fn wall(&self) -> WallTime {
        self.clock.wall()
    }

    fn bring_nearer(&self, span: Duration) {
        self.clock.bring_nearer(span);
    }

    fn watched(&self) -> Option<Watched> {
        self.state.lock().watched
    }
}

#[cfg(test)]
mod tests;
