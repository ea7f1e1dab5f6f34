//! The host table: one file in shared memory, mapped by every process of this uid. It is the
//! embedded store, and the cache in front of Redis.
//!
//! [`layout`] says what the file looks like, [`mod@file`] who may have made it, [`publish`] how a record
//! is read without a lock, [`rights`] who may write or mint, [`table`] puts them together, [`tally`] is
//! where it is counted, and [`HostTable`] is the store and the host that a flight sees.

mod codec;
mod file;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod layout;
mod map;
mod publish;
mod rights;
mod sys;
mod table;
mod tally;

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::time::Duration;

pub use self::file::Place;
pub use self::layout::Sizes;
use self::layout::{Doubt, RightWord, Slot, State};
use self::publish::Word as _;
use self::rights::{Rights, Space};
use self::table::{Table, latest};
use self::tally::TallyFile;
use crate::clock::server::{ServerLead, ServerTime, Watched};
use crate::clock::{Clock, Moment, WallTime, system};
use crate::entry::{Digest, Entry, Key, Kind, Timing, Version, servable_until};
use crate::lock::RwLock;
use crate::metrics::Counter;
use crate::metrics::tally::{Tally, family};
use crate::seal::Seal;
use crate::store::breaker::Breaker;
use crate::store::log::Anchor;
use crate::store::record::{Context, Record};
use crate::store::{
    Asked, Boarding, Claim, Claimed, Committed, Failure, Health, Heard, Host, Known, Lease, Leave,
    Reply, Reservation, Resident, Restored, Right, Secret, Stock, Store, StoreError,
};

/// How often a process looks whether its table still has a name.
const LOOK_AROUND_MS: i64 = 1000;

/// This process's view of its host's table. Remaps when the file is replaced under it.
pub struct HostTable {
    place: Place,
    sizes: Sizes,
    seal: Option<Arc<Seal>>,
    table: RwLock<Opened>,
    looked_around: AtomicI64,
}

struct Opened {
    table: Arc<Table>,
    tally: TallyFile,
    /// Part of every [`Right`], so that one from a former table means nothing to the next.
    serial: u32,
}

/// Says whether what was read of a key is still the newest that this host has. Two loads.
#[derive(Clone)]
pub struct Watch {
    table: Arc<Table>,
    slot: usize,
    seen: State,
    version: Version,
}

impl Watch {
    #[inline]
    pub fn holds(&self) -> bool {
        let words = self.table.map.slot(self.slot);
        // The floor first: an eviction moves the state before it clears the floor.
        words.floor.value() <= self.version.0 && words.state.load(Acquire) == self.seen.0
    }
}

impl HostTable {
    /// Who has other keys must have another `place`: neither could read what the other keeps. The error
    /// is a finished sentence.
    pub fn open(place: Place, sizes: Sizes, seal: Option<Arc<Seal>>) -> Result<Self, String> {
        let table = Arc::new(Table::open(&place, sizes, seal.clone())?);
        let looked_around = AtomicI64::new(system::monotonic().as_millis());
        let tally = TallyFile::open(&place);
        let opened = RwLock::new(Opened { table, tally, serial: 0 });
        Ok(Self { place, sizes, seal, table: opened, looked_around })
    }

    /// The pure hit: one search, one copy, no record taken apart. `trusted` says for how long an entry
    /// with these deadlines, confirmed at the first moment, may be served from the second on; `take`
    /// gets its value.
    pub fn hit<R>(
        &self,
        key: &Key,
        trusted: impl FnOnce(&Timing, Moment, Moment) -> Option<Duration>,
        take: impl FnOnce(&[u8]) -> R,
    ) -> Option<(R, Watch, Duration)> {
        let table = self.table();
        let slot = table.find(key)?;
        let words = table.map.slot(slot);
        let seen = State(words.state.load(Acquire));
        // Taken, not borrowed: `take` may be PHP's allocator, which may jump away over this frame.
        let mut copied = SCRATCH.take();
        let found = table.copy_record(slot, seen.buffer()?, seen, &mut copied).then(|| {
            let value = codec::value(key, &copied, self.seal.as_deref())?;
            let version = codec::version(&copied);
            let synced = (!codec::unsynced(&copied)).then_some(version);
            let confirmed_at = table.confirmed_at(slot, seen, synced);
            // The clocks are read here, when nothing but handing over is left to do.
            let span = trusted(&codec::timing(&copied)?, confirmed_at, table.now())?;
            let watch = Watch { slot, seen, version, table: table.clone() };
            touch(words);
            watch.holds().then(|| (take(&value), watch, span))
        });
        SCRATCH.set(copied);
        found.flatten()
    }

    /// How many processes had come to this table before.
    pub fn attach(&self) -> u64 {
        self.table.read().table.count(Counter::Attached, 1)
    }

    /// A watch on the entry of this version, if it is still the one in force.
    pub fn watch(&self, key: &Key, version: Version) -> Option<Watch> {
        let table = self.table();
        let slot = table.find(key)?;
        let (seen, record) = table.read(slot, key);
        let in_force = record.entry.is_some_and(|entry| entry.version == version);
        in_force.then_some(Watch { table, slot, seen, version })
    }

    pub fn path(&self) -> PathBuf {
        self.place.table()
    }

    pub fn usage(&self) -> Usage {
        let table = self.table();
        let sizes = table.map.sizes();
        let used = (0..sizes.slots).filter(|slot| !table.holds(*slot, 0)).count();
        Usage { slots: sizes.slots, used, occupied: table.occupied(), memory: sizes.memory }
    }

    /// The open table; once a second also checks that it is still the right one.
    fn table(&self) -> Arc<Table> {
        let now = system::monotonic().as_millis();
        let last = self.looked_around.load(Relaxed);
        if now - last >= LOOK_AROUND_MS
            && self.looked_around.compare_exchange(last, now, Relaxed, Relaxed).is_ok()
        {
            self.remap_if_unlinked();
            self.tally_anew_if_unlinked();
        }
        self.table.read().table.clone()
    }

    fn tally_anew_if_unlinked(&self) {
        if !self.table.read().tally.still_named() {
            let tally = TallyFile::open(&self.place);
            self.table.write().tally = tally;
        }
    }

    fn remap_if_unlinked(&self) {
        let (table, serial) = self.current();
        if table.still_named() {
            return;
        }
        let mut opened = self.table.write();
        if opened.serial != serial {
            return;
        }
        match Table::open(&self.place, self.sizes, self.seal.clone()) {
            Ok(table) => {
                table.count(Counter::Remaps, 1);
                log::warn!(
                    "{} was unlinked or replaced while it was in use: from now on another one is",
                    self.path().display()
                );
                table.continue_timeline_of(&opened.table);
                opened.table = Arc::new(table);
                opened.serial = serial.wrapping_add(1);
            }
            // The old table goes on working for the processes that have it.
            Err(error) => log::warn!("{error}"),
        }
    }

    fn current(&self) -> (Arc<Table>, u32) {
        let opened = self.table.read();
        (opened.table.clone(), opened.serial)
    }

    /// The table and slot of a right, unless the table has been replaced since.
    fn held(&self, right: &Right) -> Option<(Arc<Table>, usize)> {
        let (table, serial) = self.current();
        (right.place >> 32 == u64::from(serial))
            .then_some((table, (right.place & 0xffff_ffff) as usize))
    }

    fn edit<R>(
        &self,
        key: &Key,
        now: Moment,
        mut change: impl FnMut(&mut Record, &mut Context<'_>) -> R,
    ) -> Result<Reply<R>, StoreError> {
        let table = self.table();
        let latest = latest();
        let edited = table.edit(key, true, |record, floor| {
            let mut at = Context { kind: key.kind(), floor, now, latest };
            let what = change(record, &mut at);
            Reply { floor: *at.floor, what }
        })?;
        edited.ok_or_else(|| StoreError::Refused("the host table lost a key".into()))
    }
}

/// Who waits for another host's mint, or is just about to, looks again.
fn wake(slot: &Slot) {
    for until in [&slot.busy_until, &slot.paused_until] {
        let seen = until.seen();
        if seen.value() != 0 {
            until.set(seen, 0);
        }
    }
    if slot.flight_since.load(Acquire) != 0 {
        ring(slot);
    }
}

/// Whoever sleeps at the slot's bell looks again.
fn ring(slot: &Slot) {
    slot.bell.fetch_add(1, AcqRel);
    sys::futex_wake_all(&slot.bell);
}

/// A moment as a mark has it.
fn mark(moment: Moment) -> u64 {
    moment.as_millis().max(0) as u64
}

thread_local! {
    /// Where a hit copies its record; kept, so that it allocates once per thread.
    static SCRATCH: Cell<Vec<u64>> = const { Cell::new(Vec::new()) };
}

/// Note the use, for eviction; once a second, so that readers do not fight over the line.
fn touch(slot: &Slot) {
    let seconds = (system::monotonic().as_millis() / 1000) as u64;
    if slot.used.load(Relaxed) != seconds {
        slot.used.store(seconds, Relaxed);
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub slots: usize,
    pub used: usize,
    pub occupied: u64,
    pub memory: u64,
}

impl Clock for HostTable {
    fn now(&self) -> Moment {
        self.table.read().table.now()
    }

    fn wall(&self) -> WallTime {
        system::wall()
    }

    fn bring_nearer(&self, span: Duration) {
        self.table().header().timeline.bring_nearer(span);
    }

    fn watched(&self) -> Option<Watched> {
        self.table().header().watched()
    }
}

impl Store for HostTable {
    fn claim(&self, key: &Key, claim: &Claim, now: Moment) -> Result<Reply<Claimed>, StoreError> {
        self.edit(key, now, |record, at| record.claim(at, claim, |above| self.table().issue(above)))
    }

    fn renew(
        &self,
        key: &Key,
        lease: &Lease,
        length: Duration,
        now: Moment,
    ) -> Result<bool, StoreError> {
        self.edit(key, now, |record, at| record.renew(at.now, lease, length)).map(|it| it.what)
    }

    fn commit(
        &self,
        key: &Key,
        lease: &Lease,
        entry: &Entry,
        now: Moment,
    ) -> Result<Reply<Committed>, StoreError> {
        self.edit(key, now, |record, at| record.commit(at, lease, entry))
    }

    fn abandon(
        &self,
        key: &Key,
        lease: &Lease,
        failure: Option<&Failure>,
        now: Moment,
    ) -> Result<Duration, StoreError> {
        self.edit(key, now, |record, at| record.abandon(at.now, lease, failure)).map(|it| it.what)
    }

    fn invalidate(
        &self,
        key: &Key,
        rejected: Option<Digest>,
        seen: Version,
        now: Moment,
    ) -> Result<Reply<bool>, StoreError> {
        self.edit(key, now, |record, at| {
            record.invalidate(at, rejected, seen, |above| self.table().issue(above))
        })
    }

    fn restore(
        &self,
        key: &Key,
        entry: &Entry,
        now: Moment,
    ) -> Result<Reply<Restored>, StoreError> {
        let restore = |record: &mut Record, at: &mut Context<'_>| record.restore(at, entry);
        let Reply { floor, what: outcome } = self.edit(key, now, restore)?;
        Ok(Reply { floor, what: Restored { outcome, since: now } })
    }
}

impl Host for HostTable {
    fn look(&self, key: &Key) -> Option<Known> {
        let (table, latest) = (self.table(), latest());
        // The marks stand beside the record, and an eviction in between would give us the next
        // key's. It moves the state before it clears them, so an unmoved state means they are ours.
        for _ in 0..8 {
            let slot = table.find(key)?;
            let words = table.map.slot(slot);
            // Before everything else: what comes after it rings it again.
            let bell = words.bell.load(Acquire);
            let (state, record) = table.read(slot, key);
            let (floor, newest) =
                (words.floor.seen().version(latest), words.newest.seen().version(latest));
            let in_force = |entry: &Entry| (floor..=latest).contains(&entry.version);
            let backoff = record.backoff();
            let entry = record.entry.filter(in_force);
            let synced = entry.as_ref().filter(|entry| !entry.unsynced);
            let known = Known {
                confirmed_at: table.confirmed_at(slot, state, synced.map(|entry| entry.version)),
                entry,
                newest: newest.max(floor),
                highest: table.highest(latest),
                floor,
                heartbeat: Moment::from_millis(table.header().heartbeat.load(Acquire) as i64),
                bell,
                busy_until: Moment::from_millis(words.busy_until.value() as i64),
                paused_until: Moment::from_millis(words.paused_until.value() as i64),
                backoff,
                pending_rejection: record.pending_rejection,
                ask_at: Moment::from_millis(words.next_check.value() as i64),
                authority_failing: table.header().breaker.load(Relaxed) != 0,
                evicted: newest == Version::NONE && table.was_evicted(key),
            };
            if words.state.load(Acquire) == state.0 {
                touch(words);
                return Some(known);
            }
        }
        None
    }

    fn board(&self, key: &Key, until: Moment, now: Moment) -> Result<Boarding, StoreError> {
        self.remap_if_unlinked();
        let (table, serial) = self.current();
        // A slot may be evicted between finding and boarding it; not twice in a row.
        for _ in 0..4 {
            let slot = match table.find(key) {
                Some(slot) => slot,
                None => {
                    table.edit(key, true, |_, _| ())?;
                    continue;
                }
            };
            let words = table.map.slot(slot);
            let bell = words.bell.load(Acquire);
            let alive = system::monotonic();
            let taken = table
                .rights
                .take(Space::Flight, slot, &words.flight, alive, alive.plus(now.until(until)))
                .map_err(|error| StoreError::Refused(error.to_string()))?;
            let Some(generation) = taken else {
                let since = match words.flight_since.load(Acquire) {
                    0 => now, // only just boarded
                    since => Moment::from_millis(since as i64),
                };
                return Ok(Boarding::Taken { bell, since });
            };
            let right = Right { place: u64::from(serial) << 32 | slot as u64, generation };
            if !table.holds(slot, table.tag_of(key)) {
                self.leave(key, &right);
                continue;
            }
            words.flight_since.store(now.as_millis().max(0) as u64, Relaxed);
            let by = u64::from(generation) << 32 | u64::from(std::process::id());
            words.flight_by.store(by, Relaxed);
            let orphan = Secret::from_bits(words.flight_secret.load(Acquire));
            return Ok(Boarding::Mine { right, orphan });
        }
        Err(StoreError::Refused("the host table is too small for the keys in flight".into()))
    }

    fn note_secret(&self, _key: &Key, right: &Right, secret: Secret) {
        if let Some((table, slot)) = self.held(right) {
            let words = table.map.slot(slot);
            // Seen before: of a flight that was given away meanwhile it is not ours to change.
            let seen = words.flight_secret.load(Acquire);
            if Rights::is_ours(&words.flight, right.generation) {
                words.flight_secret.swing(seen, secret.bits());
            }
        }
    }

    fn extend(&self, _key: &Key, right: &Right, until: Moment) -> bool {
        self.held(right).is_some_and(|(table, slot)| {
            let until = system::monotonic().plus(table.now().until(until));
            Rights::extend(&table.map.slot(slot).flight, right.generation, until)
        })
    }

    fn leave(&self, key: &Key, right: &Right) {
        let Some((table, slot)) = self.held(right) else { return };
        let words = table.map.slot(slot);
        let (secret, since) = (words.flight_secret.load(Acquire), words.flight_since.load(Acquire));
        if Rights::is_ours(&words.flight, right.generation) {
            words.flight_secret.swing(secret, 0);
            words.flight_since.swing(since, 0);
        } else {
            table.count(Counter::FlightsGivenUp, 1);
            log::warn!(
                "this process was given up on while it looked after {}: it was stopped, or took longer \
                 than sharedstate.token.max_mint_ms",
                key.shown()
            );
        }
        table.rights.give_back(Space::Flight, slot, &words.flight, right.generation);
        // Unlock first, then ring: whoever wakes finds the right free.
        ring(words);
    }

    fn wait(&self, key: &Key, bell: u32, at_most: Duration) {
        let table = self.table();
        match table.find(key) {
            Some(slot) => sys::futex_wait(&table.map.slot(slot).bell, bell, at_most),
            None => std::thread::sleep(at_most.min(Duration::from_millis(1))),
        }
    }

    fn most(&self) -> usize {
        self.table().map.sizes().value_size
    }

    fn reserve(&self, key: &Key) -> Reservation {
        let table = self.table();
        Reservation(table.find(key).map_or(0, |slot| table.tagged(slot)))
    }

    fn adopt(&self, key: &Key, entry: &Entry, asked: Asked) -> Result<(), StoreError> {
        let (table, latest) = (self.table(), latest());
        let stored = table.edit(key, false, |record, floor| {
            let slot = table.find(key).filter(|slot| table.tagged(*slot) == asked.reservation.0);
            let newest = slot.map(|slot| table.map.slot(slot).newest.seen().version(latest));
            // A writer that was killed may have left an entry without its mark.
            let held = record.entry.as_ref().map_or(Version::NONE, |held| held.version);
            let least = held.believed(latest).max(*floor);
            let current = newest.is_some_and(|newest| entry.version >= newest)
                && (least..=latest).contains(&entry.version);
            if current {
                record.adopt(entry);
            }
            current
        })?;
        if stored == Some(true) {
            self.confirm(key, entry.version, asked.at);
        }
        Ok(())
    }

    fn raise_floor(&self, key: &Key, floor: Version) {
        self.table().raise(key, |slot| &slot.floor, floor);
    }

    fn confirm(&self, key: &Key, version: Version, asked_at: Moment) {
        let table = self.table();
        let Some(slot) = table.find(key) else { return };
        let (state, record) = table.read(slot, key);
        if record.entry.is_some_and(|entry| entry.version == version) {
            table.confirm(slot, state, asked_at);
        }
    }

    fn may_revalidate(&self, key: &Key, now: Moment, until: Moment) -> bool {
        let (now, until) = (mark(now), mark(until));
        self.table().mark(key, |slot| &slot.next_check, |at| (at.value() <= now).then_some(until))
            == Some(true)
    }

    fn set_pending_rejection(&self, key: &Key, rejected: Option<Digest>) {
        // Nobody waits for it: where the record cannot be written now, the next 401 says it again.
        let _ = self.table().edit(key, false, |record, _| record.pending_rejection = rejected);
    }

    fn resident(&self) -> Vec<Key> {
        let table = self.table();
        let used = |slot: usize| table.map.slot(slot).used.load(Relaxed);
        let slots = 0..table.map.sizes().slots;
        let mut keys: Vec<_> =
            slots.filter_map(|slot| Some((used(slot), table.key_in(slot)?))).collect();
        keys.sort_by_key(|(used, _)| std::cmp::Reverse(*used));
        keys.into_iter().map(|(_, key)| key).collect()
    }

    fn survey(&self, at_most: usize) -> Vec<Resident> {
        let table = self.table();
        let slots = 0..table.map.sizes().slots;
        slots.filter_map(|slot| table.resident(slot)).take(at_most).collect()
    }

    fn stock(&self) -> Stock {
        let table = self.table();
        let now = table.now();
        let mut stock = Stock::default();
        for slot in (0..table.map.sizes().slots).filter(|slot| !table.holds(*slot, 0)) {
            let head = table.beginning(slot);
            let kind = head.and_then(|head| codec::kind(&head));
            let floor = table.map.slot(slot).floor.value();
            let usable = head.zip(kind).is_some_and(|(head, kind)| {
                let in_force = codec::version(&head).0 >= floor;
                let timing = codec::timing(&head).filter(|_| in_force);
                timing.is_some_and(|timing| now < servable_until(&timing, kind))
            });
            stock.resident += 1;
            match kind {
                Some(Kind::Sheet) => stock.sheets.extend(table.resident(slot)),
                Some(Kind::Token) if usable => {
                    let name = head.map(|head| codec::name(&head)).unwrap_or_default();
                    *stock.usable.entry(family(&name).to_vec()).or_default() += 1;
                }
                _ => {}
            }
        }
        stock
    }

    fn health(&self) -> Health {
        let table = self.table();
        let header = table.header();
        let breaker = Breaker::unpack(header.breaker.load(Relaxed));
        let led = RightWord::unpack(header.leader.load(Relaxed)).until;
        Health {
            failing: breaker.failures > 0,
            asked_again: (breaker.is_open() && table.now() < breaker.until)
                .then_some(breaker.until),
            heartbeat: Moment::from_millis(header.heartbeat.load(Relaxed) as i64),
            led: system::monotonic().as_millis() < led,
        }
    }

    fn hear(&self, key: &Key, version: Version, floor: Version) -> bool {
        let table = self.table();
        table.raise(key, |slot| &slot.newest, version)
            && table.raise(key, |slot| &slot.floor, floor)
    }

    fn set_busy(&self, key: &Key, until: Moment) {
        let table = self.table();
        table.mark(key, |slot| &slot.paused_until, |_| Some(0));
        table.mark(key, |slot| &slot.busy_until, |_| Some(mark(until)));
    }

    fn hear_backoff(&self, key: &Key, until: Moment, reason: &str, paused_until: Moment) {
        // Where the record cannot be written now, the next lookup asks and hears it again.
        let table = self.table();
        if table.edit(key, false, |record, _| record.hear_backoff(until, reason)).is_ok() {
            table.mark(key, |slot| &slot.paused_until, |_| Some(mark(paused_until)));
        }
    }

    fn wake(&self, key: &Key) {
        let table = self.table();
        if let Some(slot) = table.find(key) {
            wake(table.map.slot(slot));
        }
    }

    fn beat(&self, at: Moment, anchor: &Anchor) {
        let table = self.table();
        table.header().heartbeat.fetch_max(mark(at), AcqRel);
        let words = [anchor.line.0, anchor.line.1, anchor.digest];
        for (word, value) in table.header().anchor.iter().zip(words) {
            if word.load(Relaxed) != value {
                word.store(value, Relaxed);
            }
        }
    }

    fn anchor(&self) -> Option<Anchor> {
        let table = self.table();
        let [ms, number, digest] = table.header().anchor.each_ref().map(|word| word.load(Relaxed));
        let led = table.header().heartbeat.load(Relaxed) != 0;
        led.then_some(Anchor { line: (ms, number), digest })
    }

    fn doubt(&self) -> u64 {
        let table = self.table();
        let header = table.header();
        let (doubt, settled, beat) = loop {
            let seen = Doubt(header.doubt.load(Acquire));
            let beat = header.heartbeat.load(Acquire);
            let doubt = Doubt::from(table.now().as_millis().max(seen.since()));
            if header.doubt.swing(seen.0, doubt.0) {
                break (doubt, seen.is_settled(), beat);
            }
        };
        // What is still in doubt since an earlier time goes on being vouched for no longer than then. Who is stopped
        // before this line leaves an earlier beat, which vouches for less, and writes one when it wakes.
        if settled {
            header.doubted_beat.store(beat, Release);
        }
        (0..table.map.sizes().slots).for_each(|slot| wake(table.map.slot(slot)));
        doubt.0
    }

    fn settle(&self, doubt: u64) {
        self.table().header().doubt.swing(doubt, Doubt(doubt).settled().0);
    }

    fn in_doubt(&self) -> Option<u64> {
        let doubt = Doubt(self.table().header().doubt.load(Acquire));
        (!doubt.is_settled()).then_some(doubt.0)
    }

    fn hear_clock(&self, told: &ServerTime, noted: i64, set_back: bool) {
        let table = self.table();
        let header = table.header();
        let watched = Watched::look(header.watched(), told, noted);
        // A reader in between has the former lead, and so takes a server that is behind for no witness.
        header.watched_since.fetch_max(watched.since, AcqRel);
        header.watched_from.store(watched.from.as_millis(), Release);
        header.watched_lead.store(watched.lead, Release);
        header.watched_at.store(watched.at.as_millis(), Release);
        let (word, now) = (&header.server_lead, table.now());
        let heard = ServerLead::from_word(word.load(Relaxed)).heard(
            told.clock,
            now,
            set_back || watched.for_long(),
        );
        word.store(heard.lead.word(), Relaxed);
        self.stood_still_for(heard.gained);
    }

    fn lead(&self, now: Moment, until: Moment) -> Option<Right> {
        let (table, serial) = self.current();
        let alive = system::monotonic();
        let until = alive.plus(now.until(until));
        let taken = table.rights.take(Space::Lead, 0, &table.header().leader, alive, until);
        let generation = taken.ok().flatten()?;
        Some(Right { place: u64::from(serial) << 32, generation })
    }

    fn keep_leading(&self, term: &Right, until: Moment) -> bool {
        // What was heard of was marked in the former table; a new one must be caught up with.
        self.held(term).is_some_and(|(table, _)| {
            let until = system::monotonic().plus(table.now().until(until));
            Rights::extend(&table.header().leader, term.generation, until)
        })
    }

    fn stop_leading(&self, term: &Right) {
        if let Some((table, _)) = self.held(term) {
            table.rights.give_back(Space::Lead, 0, &table.header().leader, term.generation);
        }
    }

    fn count(&self, counter: Counter, times: u64) {
        self.table.read().table.count(counter, times);
    }

    fn tally(&self) -> Arc<Tally> {
        self.table.read().tally.tally.clone()
    }

    fn counted(&self, counter: Counter) -> u64 {
        self.table.read().table.header().counters[counter as usize].load(Relaxed)
    }

    fn may_ask(&self, now: Moment) -> Leave {
        let table = self.table();
        let word = &table.header().breaker;
        let seen = word.load(Acquire);
        let breaker = Breaker::unpack(seen);
        // Whoever moves the deadline on is the one that probes; if it dies, the next may.
        let probes = || breaker.probed(now).is_some_and(|next| word.swing(seen, next.pack()));
        if !breaker.is_open() || probes() {
            return Leave::Given;
        }
        Leave::Withheld { certain: breaker.certain }
    }

    fn take_turn(&self, until: Moment) -> Option<Right> {
        let (table, serial) = self.current();
        let (alive, now) = (system::monotonic(), table.now());
        let until = alive.plus(now.until(until));
        table.header().askers.iter().enumerate().find_map(|(place, word)| {
            let taken = table.rights.take(Space::Ask, place, word, alive, until);
            let generation = taken.ok().flatten()?;
            Some(Right { place: u64::from(serial) << 32 | place as u64, generation })
        })
    }

    fn end_turn(&self, turn: &Right) {
        if let Some((table, place)) = self.held(turn) {
            let word = &table.header().askers[place];
            table.rights.give_back(Space::Ask, place, word, turn.generation);
        }
    }

    fn authority_heard(&self, heard: Heard, asked_at: Moment, now: Moment) -> bool {
        let table = self.table();
        let header = table.header();
        let (word, silent_since) = (&header.breaker, &header.silent_since);
        let seen = word.load(Acquire);
        if heard == Heard::Answer {
            header.answered_at.fetch_max(mark(now), Relaxed);
            silent_since.store(0, Relaxed);
            return seen != 0 && word.swing(seen, 0);
        }
        table.count(Counter::StoreErrors, 1);
        if heard != Heard::Refusal && header.answered_at.load(Relaxed) > mark(asked_at) {
            return false;
        }
        if heard != Heard::Refusal {
            silent_since.swing(0, mark(now));
        }
        let since = match silent_since.load(Relaxed) {
            0 => now,
            since => Moment::from_millis(since as i64),
        };
        let before = Breaker::unpack(seen);
        let next = before.failed(heard, since, now);
        table.count(Counter::BreakerOpened, u64::from(next.is_open() && !before.is_open()));
        word.swing(seen, next.pack()) && seen == 0
    }
}
