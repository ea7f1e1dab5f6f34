//! One open table: looking keys up, reading records, and changing them.
//!
//! Reading takes no lock. Changing takes the bucket's write right for microseconds, never across
//! I/O. Whatever a writer changes it has announced first ([`Target`]), and it changes state, tag
//! and floor only by compare-and-set from what it saw. So a writer that was stopped, given up on
//! and resumed can still do exactly one thing: scribble in the one buffer it had announced. That
//! buffer is *lost*: nobody uses it until the writer has let go or died.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::time::Duration;

use super::codec;
use super::file::{self, Place};
use super::layout::{
    Bucket, Doubt, EVICTED, Header, Lost, Mark, Marked, RightWord, Sizes, Slot, State, Tag, Target,
    WAYS,
};
use super::map::Map;
use super::publish::{Word as _, copy, publish};
use super::rights::{Rights, Space};
use super::sys;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::clock::{Moment, system};
use crate::entry::{Key, Version};
use crate::metrics::Counter;
use crate::seal::Seal;
use crate::store::record::Record;
use crate::store::{Flying, Resident, StoreError};

/// A writer holds its right for microseconds; one that has it this long is stopped.
const WRITE_HOLD: Duration = Duration::from_millis(50);
/// What a stopped writer costs the next one, once, is its deadline and the grace: 70 ms. The rest is
/// for a next one that hardly gets to run itself. A fuzzer makes such a writer up with every other input.
const WRITE_WAIT: Duration = Duration::from_millis(if cfg!(fuzzing) { 1 } else { 250 });

pub struct Table {
    pub place: Place,
    pub map: Map,
    pub rights: Rights,
    /// What all values in it are sealed with.
    pub seal: Option<Arc<Seal>>,
    seed: u64,
    /// What the kernel allocates at once.
    pub(super) page: usize,
}

impl Table {
    pub fn open(place: &Place, wanted: Sizes, seal: Option<Arc<Seal>>) -> Result<Self, String> {
        let (file, map) = file::open(place, wanted)?;
        let seed = map.header().seed.load(Relaxed);
        let rights = Rights::new(file).map_err(|error| error.to_string())?;
        let page = sys::page_size();
        let table = Self { place: place.clone(), map, rights, seal, seed, page };
        table.now();
        Ok(table)
    }

    pub fn header(&self) -> &Header {
        self.map.header()
    }

    pub fn still_named(&self) -> bool {
        self.rights.file().is_ok_and(|file| file::still_named(&self.place, file))
    }

    /// Bytes the file occupies.
    pub fn occupied(&self) -> u64 {
        self.rights.file().and_then(File::metadata).map_or(0, |meta| meta.blocks() * 512)
    }

    /// By a look at both clocks: whoever asks has taken in whatever they jumped.
    #[inline]
    pub fn now(&self) -> Moment {
        let (now, jump) = system::now_on(&self.header().timeline);
        if jump.is_some() {
            self.count(Counter::ClockJumps, 1);
        }
        now
    }

    /// Time does not run backwards when the table is replaced.
    pub fn continue_timeline_of(&self, former: &Self) {
        self.header().timeline.go_on_from(&former.header().timeline);
    }

    pub(super) fn hash(&self, key: &Key) -> u64 {
        xxh3_64_with_seed(key.bytes(), self.seed)
    }

    /// What [`Tag::hash`] says of the key's slot.
    pub fn tag_of(&self, key: &Key) -> u64 {
        Tag::of(self.hash(key))
    }

    /// Where an eviction of the key with this [`Tag::of`] is noted.
    fn eviction(&self, tag: u64) -> &AtomicU64 {
        &self.header().evicted[(tag >> 32) as usize % EVICTED]
    }

    /// Whether a usable entry of the key had to make room, and it has had none since.
    pub fn was_evicted(&self, key: &Key) -> bool {
        let tag = self.tag_of(key);
        self.eviction(tag).load(Relaxed) == tag
    }

    /// Returns the count before.
    pub fn count(&self, counter: Counter, times: u64) -> u64 {
        self.header().counters[counter as usize].fetch_add(times, Relaxed)
    }

    pub fn find(&self, key: &Key) -> Option<usize> {
        let hash = self.hash(key);
        let bucket = self.bucket(hash);
        let tags = &self.map.bucket(bucket).tags;
        let wanted = Tag::of(hash);
        let way = tags.iter().position(|tag| Tag(tag.load(Acquire)).hash() == wanted)?;
        Some(bucket * WAYS + way)
    }

    /// The key's record and the state word it was read under. An empty record when the slot holds
    /// none, or another key's by now.
    pub fn read(&self, slot: usize, key: &Key) -> (State, Record) {
        let word = &self.map.slot(slot).state;
        let mut copied = Vec::new();
        // A torn copy means that somebody published meanwhile. A handful in a row does not happen
        // to a running reader; should it, the empty record sends the caller to ask.
        let mut state = State(word.load(Acquire));
        for _ in 0..8 {
            let Some(buffer) = state.buffer() else { break };
            if self.copy_record(slot, buffer, state, &mut copied) {
                let record = codec::decode(key, &copied, self.seal.as_deref()).unwrap_or_default();
                return (state, record);
            }
            state = State(word.load(Acquire));
        }
        (state, Record::default())
    }

    pub fn copy_record(
        &self,
        slot: usize,
        buffer: usize,
        seen: State,
        into: &mut Vec<u64>,
    ) -> bool {
        let (state, words) = (&self.map.slot(slot).state, self.map.buffer(slot, buffer));
        into.clear();
        into.resize(codec::HEAD, 0);
        if !copy(state, seen.0, words, into) {
            return false;
        }
        let Some(length) = codec::words(into, words.len()) else { return false };
        into.resize(length, 0);
        copy(state, seen.0, words, into)
    }

    /// The key whose record is in the slot, also while it is being written. `None` for a free slot, for
    /// one that was taken without a record yet, and for a kind of key that only a later release knows.
    pub fn key_in(&self, slot: usize) -> Option<Key> {
        let word = &self.map.slot(slot).state;
        let mut copied = Vec::new();
        // A torn copy means that somebody has published meanwhile. Even against a process that does
        // nothing else a handful of times suffices; the limit is for a table that somebody has damaged.
        for _ in 0..1000 {
            let state = State(word.load(Acquire));
            if self.holds(slot, 0) {
                return None;
            }
            if self.copy_record(slot, state.buffer()?, state, &mut copied) {
                return codec::key(&copied).and_then(|bytes| Key::from_bytes(&bytes));
            }
        }
        None
    }

    /// Change one of the key's marks from what it is to what `next` says, if it says anything. `None`: the
    /// key has no slot.
    pub fn mark(
        &self,
        key: &Key,
        which: impl Fn(&Slot) -> &Mark,
        next: impl Fn(Marked) -> Option<u64>,
    ) -> Option<bool> {
        let tag = self.tag_of(key);
        loop {
            let slot = self.find(key)?;
            let mark = which(self.map.slot(slot));
            let seen = mark.seen();
            // The mark before the tag: an eviction gives the tag away before it counts the mark on.
            if !self.holds(slot, tag) {
                continue;
            }
            let Some(value) = next(seen) else { return Some(false) };
            if mark.set(seen, value) {
                return Some(true);
            }
        }
    }

    /// Whether the key has a slot; the mark is at least this version from then on, if it can be believed.
    pub fn raise(&self, key: &Key, which: impl Fn(&Slot) -> &Mark, version: Version) -> bool {
        let latest = latest();
        let version = version.believed(latest);
        self.saw(version, latest);
        let next = |seen: Marked| (seen.version(latest) < version).then_some(version.0);
        self.mark(key, which, next).is_some()
    }

    /// The highest version that this host has seen of any key is at least this one.
    pub fn saw(&self, version: Version, latest: Version) {
        let issued = &self.header().issued;
        loop {
            let seen = issued.load(Acquire);
            if Version(seen).believed(latest) >= version || issued.swing(seen, version.0) {
                return;
            }
        }
    }

    pub fn highest(&self, latest: Version) -> Version {
        Version(self.header().issued.load(Acquire)).believed(latest)
    }

    /// One above `above` and all that this host has seen.
    pub fn issue(&self, above: Version) -> Version {
        let wall = system::wall();
        let latest = Version::latest(wall);
        let issued = &self.header().issued;
        loop {
            let seen = issued.load(Acquire);
            let highest = Version(seen).believed(latest).max(above.believed(latest));
            let next = highest.next().max(Version(wall.unix_micros()));
            if issued.swing(seen, next.0) {
                return next;
            }
        }
    }

    /// How the record in the slot begins; `None` for a slot without one.
    pub fn beginning(&self, slot: usize) -> Option<codec::Beginning> {
        let word = &self.map.slot(slot).state;
        let mut head = [0; size_of::<codec::Beginning>() / 8];
        for _ in 0..8 {
            let state = State(word.load(Acquire));
            let buffer = self.map.buffer(slot, state.buffer()?);
            if copy(word, state.0, buffer, &mut head) {
                return Some(head);
            }
        }
        None
    }

    /// What is in the slot, for people; see [`crate::store::Host::survey`].
    pub fn resident(&self, slot: usize) -> Option<Resident> {
        let words = self.map.slot(slot);
        // The marks stand beside the record: an unmoved state means that they belong to it.
        for _ in 0..8 {
            let key = self.key_in(slot)?;
            let (state, record) = self.read(slot, &key);
            let floor = Version(words.floor.value());
            let synced = record.entry.as_ref().filter(|entry| !entry.unsynced);
            let resident = Resident {
                confirmed_at: self.confirmed_at(slot, state, synced.map(|entry| entry.version)),
                backoff: record.backoff().filter(|it| self.now() < it.until),
                entry: record.entry.filter(|entry| entry.version >= floor),
                flight: self.flying(words),
                key,
            };
            if words.state.load(Acquire) == state.0 {
                return Some(resident);
            }
        }
        None
    }

    fn flying(&self, words: &Slot) -> Option<Flying> {
        let right = RightWord::unpack(words.flight.load(Acquire));
        let (alive, now) = (system::monotonic().as_millis(), self.now());
        let since = words.flight_since.load(Acquire);
        let by = words.flight_by.load(Relaxed);
        (alive < right.until).then(|| Flying {
            since: if since == 0 { now } else { Moment::from_millis(since as i64) },
            until: now.plus_millis(right.until - alive),
            process: (by >> 32 == u64::from(right.generation)).then_some(by as u32),
        })
    }

    /// Change the key's record and floor in one step. `change` may run more than once; its last run
    /// is the one that counts. `None`: the key has no slot and `insert` is false.
    /// Waits at most [`WRITE_WAIT`], and only for a writer that was stopped.
    pub fn edit<R>(
        &self,
        key: &Key,
        insert: bool,
        mut change: impl FnMut(&mut Record, &mut Version) -> R,
    ) -> Result<Option<R>, StoreError> {
        let bucket = self.bucket(self.hash(key));
        let give_up = system::monotonic().plus(WRITE_WAIT);
        loop {
            let edited = match Tenure::begin(self, bucket).map_err(refused)? {
                Some(tenure) => {
                    let edited = tenure.edit(key, insert, &mut change);
                    tenure.end();
                    edited?
                }
                None => Edited::Lost,
            };
            match edited {
                Edited::Done(result) => return Ok(Some(result)),
                Edited::Absent => return Ok(None),
                Edited::Lost if system::monotonic() > give_up => {
                    return Err(StoreError::Unreachable(
                        "a stopped process holds the write right of the host table".into(),
                    ));
                }
                Edited::Lost => std::thread::sleep(Duration::from_micros(200)),
            }
        }
    }

    /// Note that the record read under `state` was the newest at `asked_at`.
    pub fn confirm(&self, slot: usize, state: State, asked_at: Moment) {
        let until = asked_at.as_millis().clamp(0, CONFIRMED_MS) as u64;
        self.map.slot(slot).confirmed.store(sequence_tag(state) | until, Relaxed);
    }

    /// When the record read under `state` was last known to be the newest: somebody asked about it,
    /// or the leader has heard of nothing newer than `synced`, its version (`None` where the store
    /// has not got it, for then it cannot have heard).
    pub fn confirmed_at(&self, slot: usize, state: State, synced: Option<Version>) -> Moment {
        let words = self.map.slot(slot);
        let word = words.confirmed.load(Relaxed);
        let ours = word & !(CONFIRMED_MS as u64) == sequence_tag(state);
        let asked = if ours { (word & CONFIRMED_MS as u64) as i64 } else { 0 };
        // Vouched for before the mark: what was heard before the heart beat is marked by then.
        let vouched = self.vouched(asked);
        let newest = words.newest.value();
        let heard = synced.is_some_and(|version| version.0 >= newest);
        Moment::from_millis(if heard { asked.max(vouched) } else { asked })
    }

    /// Up to when the leader vouches for what was last confirmed at `asked`.
    fn vouched(&self, asked: i64) -> i64 {
        let header = self.header();
        // The heartbeat first: one that came after a doubt is not to be taken for one before it.
        let heartbeat = header.heartbeat.load(Acquire) as i64;
        // Of two things in one tick of the clock nobody can say which was first.
        let since = Doubt(header.doubt.load(Acquire)).since();
        let in_doubt = since > 0 && asked <= since;
        if in_doubt { heartbeat.min(header.doubted_beat.load(Acquire) as i64) } else { heartbeat }
    }

    pub(super) fn bucket(&self, hash: u64) -> usize {
        ((hash >> 32) as usize) % self.map.sizes().buckets()
    }

    /// Whether the slot belongs to the key with this [`Tag::hash`]; 0 asks whether it is free.
    pub fn holds(&self, slot: usize, hash: u64) -> bool {
        Tag(self.tag(slot).load(Acquire)).hash() == hash
    }

    /// The slot's tag with its sequence: equal means not evicted in between.
    pub fn tagged(&self, slot: usize) -> u64 {
        self.tag(slot).load(Acquire)
    }

    pub(super) fn tag(&self, slot: usize) -> &AtomicU64 {
        &self.map.bucket(slot / WAYS).tags[slot % WAYS]
    }

    /// Allocate what is under a buffer, within the memory the table may occupy.
    fn allocate(&self, slot: usize, buffer: usize) -> io::Result<()> {
        let bits = &self.map.slot(slot).allocated;
        if bits.load(Acquire) & 1 << buffer != 0 {
            return Ok(());
        }
        let missing = self.missing(slot, buffer);
        if missing > 0 {
            if self.occupied() + missing as u64 > self.header().memory.load(Relaxed) {
                return Err(ErrorKind::StorageFull.into());
            }
            let (start, end) = self.pages(slot, buffer);
            let end = end.min(self.map.sizes().file_bytes());
            sys::allocate(self.rights.file()?, start, end - start)?;
        }
        bits.fetch_or(1 << buffer, AcqRel);
        Ok(())
    }

    /// How many bytes it takes to allocate a buffer: its pages, but for those that a neighbour has already.
    /// Of large pages one is the place of many buffers.
    fn missing(&self, slot: usize, buffer: usize) -> usize {
        let sizes = self.map.sizes();
        let (start, end) = self.pages(slot, buffer);
        let taken = |page: &usize| {
            let allocated = |(slot, buffer): (usize, usize)| {
                self.map.slot(slot).allocated.load(Acquire) & 1 << buffer != 0
            };
            *page < sizes.index_end() || sizes.buffers_in(*page, page + self.page).any(allocated)
        };
        (start..end).step_by(self.page).filter(|page| !taken(page)).count() * self.page
    }

    /// The pages under a buffer.
    fn pages(&self, slot: usize, buffer: usize) -> (usize, usize) {
        let (offset, bytes) = self.map.sizes().buffer(slot, buffer);
        (offset / self.page * self.page, (offset + bytes).next_multiple_of(self.page))
    }
}

/// See [`Version::latest`].
pub(super) fn latest() -> Version {
    Version::latest(system::wall())
}

/// Until the year 2248.
const CONFIRMED_MS: i64 = (1 << 43) - 1;

fn sequence_tag(state: State) -> u64 {
    (state.0 >> 3) << 43
}

fn refused(error: io::Error) -> StoreError {
    StoreError::Refused(format!("the host table cannot be written: {error}"))
}

pub(super) enum Edited<R> {
    Done(R),
    Absent,
    /// The right went to somebody else; whatever was begun has no effect.
    Lost,
}

/// The write right of one bucket, held.
pub(super) struct Tenure<'a> {
    table: &'a Table,
    index: usize,
    bucket: &'a Bucket,
    generation: u32,
}

impl<'a> Tenure<'a> {
    pub(super) fn begin(table: &'a Table, index: usize) -> io::Result<Option<Self>> {
        let bucket = table.map.bucket(index);
        let now = system::monotonic();
        let until = now.plus(WRITE_HOLD);
        let taken = table.rights.take(Space::Write, index, &bucket.right, now, until)?;
        let Some(generation) = taken else { return Ok(None) };
        let tenure = Self { table, index, bucket, generation };
        if tenure.settle() {
            return Ok(Some(tenure));
        }
        tenure.end();
        Ok(None)
    }

    /// Make sure that no former holder can announce anything from here on, and set aside the buffer
    /// that one may still be writing to. Every step may be repeated by the next holder, should we
    /// die in the middle. `false`: we were given up on ourselves.
    pub(super) fn settle(&self) -> bool {
        for _ in 0..4 {
            let word = self.bucket.target.load(Acquire);
            let target = Target::unpack(word);
            let ahead = target.generation.wrapping_sub(self.generation) & 0xff_ffff;
            if ahead != 0 && ahead < 1 << 23 {
                return false;
            }
            // A damaged word may name a slot of another bucket, or none.
            let aim = target.aim.filter(|(slot, _)| slot / WAYS == self.index);
            if ahead != 0
                && let Some((slot, buffer)) = aim
            {
                if !self.set_aside(slot, target.generation, buffer) {
                    return false;
                }
                // From here on its compare-and-sets of state and tag fail.
                self.table.map.slot(slot).state.fetch_add(8, AcqRel);
                let tag = self.table.tag(slot);
                let seen = Tag(tag.load(Acquire));
                if !tag.swing(seen.0, seen.then(seen.hash()).0) {
                    continue;
                }
            }
            // A dead holder of our own generation had announced something: it is dead, and the
            // buffer as good as any idle one.
            if self.bucket.target.swing(word, self.target(None)) {
                self.table.count(Counter::WritersGivenUp, u64::from(ahead != 0));
                return true;
            }
        }
        false
    }

    fn target(&self, aim: Option<(usize, usize)>) -> u64 {
        Target { generation: self.generation, aim }.pack()
    }

    fn set_aside(&self, slot: usize, generation: u32, buffer: usize) -> bool {
        let word = &self.table.map.slot(slot).lost;
        let seen = word.load(Acquire);
        let mut lost = self.without_freed(Lost::unpack(seen));
        if lost.0.contains(&Some((generation, buffer))) {
            return true;
        }
        let Some(place) = lost.0.iter_mut().find(|place| place.is_none()) else { return false };
        *place = Some((generation, buffer));
        word.swing(seen, lost.pack())
    }

    fn without_freed(&self, lost: Lost) -> Lost {
        let rights = &self.table.rights;
        Lost(lost.0.map(|place| {
            place.filter(|(generation, _)| {
                *generation == self.generation
                    || !rights.is_free(Space::Write, self.index, *generation)
            })
        }))
    }

    pub(super) fn end(self) {
        let announced = self.bucket.target.load(Acquire);
        if Target::unpack(announced).generation == self.generation {
            self.bucket.target.swing(announced, self.target(None));
        }
        let right = &self.bucket.right;
        self.table.rights.give_back(Space::Write, self.index, right, self.generation);
    }

    pub(super) fn edit<R>(
        &self,
        key: &Key,
        insert: bool,
        change: &mut impl FnMut(&mut Record, &mut Version) -> R,
    ) -> Result<Edited<R>, StoreError> {
        let found = self.table.find(key);
        let slot = match found {
            Some(slot) => slot,
            None if !insert => return Ok(Edited::Absent),
            None => match self.make_room(key)? {
                Some(slot) => slot,
                None => return Ok(Edited::Lost),
            },
        };
        let words = self.table.map.slot(slot);
        // Before the state: who has lost the slot when it comes to marking cannot mark the next key.
        let (newest, marked) = (words.newest.seen(), words.floor.seen());
        let (state, mut record) = self.table.read(slot, key);
        let before = record.clone();
        let latest = latest();
        let mut floor = marked.version(latest);
        let result = change(&mut record, &mut floor);
        // A new slot gets a record even when it is empty: it says whose place this is.
        if (record != before || found.is_none()) && !self.write(slot, state, key, &record)? {
            return Ok(Edited::Lost);
        }
        if let Some(entry) = &record.entry {
            let tag = self.table.tag_of(key);
            let evicted = self.table.eviction(tag);
            if evicted.load(Relaxed) == tag {
                evicted.swing(tag, 0);
            }
            words.newest.raise(newest, entry.version, latest);
            self.table.saw(entry.version, latest);
        }
        words.floor.raise(marked, floor, latest);
        Ok(Edited::Done(result))
    }

    /// `false`: the slot's state moved, nothing was published.
    fn write(&self, slot: usize, seen: State, key: &Key, rec: &Record) -> Result<bool, StoreError> {
        let sizes = self.table.map.sizes();
        let words = codec::encode(key, rec, self.table.seal.as_deref());
        let (value, all) = rec.entry.as_ref().map_or((0, 0), |it| (it.value.len(), it.size()));
        if value > sizes.value_size || words.len() * 8 > sizes.large() {
            return Err(StoreError::TooLarge { bytes: all, limit: sizes.value_size });
        }
        let small = words.len() * 8 <= sizes.buffer(slot, 0).1;
        let Some(buffer) = self.idle_buffer(slot, seen, if small { 0 } else { 3 }) else {
            return Err(StoreError::Refused(
                "stopped processes hold every buffer of an entry of the host table".into(),
            ));
        };
        self.table.allocate(slot, buffer).map_err(|error| self.full(&error))?;
        if !self.announce(slot, buffer) {
            return Ok(false);
        }
        let into = self.table.map.buffer(slot, buffer);
        let next = seen.then(Some(buffer));
        let published = publish(&self.table.map.slot(slot).state, seen.0, next.0, into, &words);
        self.retract(slot, buffer);
        Ok(published)
    }

    /// A buffer of the size class that starts at `first`, neither current nor lost.
    pub(super) fn idle_buffer(&self, slot: usize, seen: State, first: usize) -> Option<usize> {
        let word = &self.table.map.slot(slot).lost;
        let marked = word.load(Acquire);
        let lost =
            if marked == 0 { Lost([None; 2]) } else { self.without_freed(Lost::unpack(marked)) };
        if lost.pack() != marked && !word.swing(marked, lost.pack()) {
            return None;
        }
        (first..first + 3).find(|buffer| {
            seen.buffer() != Some(*buffer)
                && !lost.0.iter().flatten().any(|(_, taken)| taken == buffer)
        })
    }

    pub(super) fn announce(&self, slot: usize, buffer: usize) -> bool {
        self.bucket.target.swing(self.target(None), self.target(Some((slot, buffer))))
    }

    pub(super) fn retract(&self, slot: usize, buffer: usize) {
        self.bucket.target.swing(self.target(Some((slot, buffer))), self.target(None));
    }

    /// A slot of this bucket for a key that has none: a free one, else the least recently used.
    /// Both small buffers are allocated here, so that a later write to it cannot fail for space.
    fn make_room(&self, key: &Key) -> Result<Option<usize>, StoreError> {
        let first = self.index * WAYS;
        let free = || (first..first + WAYS).filter(|slot| self.table.holds(*slot, 0));
        // One that takes no more memory, if there is one.
        let backed = |slot: &usize| [0, 1].iter().all(|at| self.table.missing(*slot, *at) == 0);
        if let Some(slot) = free().find(backed).or_else(|| free().next()) {
            let made = self.table.allocate(slot, 0).and_then(|()| self.table.allocate(slot, 1));
            match made {
                Ok(()) => {
                    let flight = self.table.map.slot(slot).flight.load(Acquire);
                    return Ok(self.claim_slot(slot, flight, key).then_some(slot));
                }
                Err(error) => log::debug!("the host table does not grow: {error}"),
            }
        }
        // No place, or no memory: a slot that has its buffers already.
        let now = system::monotonic();
        let victim = (first..first + WAYS)
            .filter_map(|slot| {
                let words = self.table.map.slot(slot);
                let flight = words.flight.load(Acquire);
                let in_flight = RightWord::unpack(flight).until;
                (words.allocated.load(Acquire) & 3 == 3 && in_flight <= now.as_millis())
                    .then_some((slot, flight))
            })
            .min_by_key(|(slot, _)| self.table.map.slot(*slot).used.load(Relaxed));
        match victim {
            Some((slot, flight)) => Ok(self.claim_slot(slot, flight, key).then_some(slot)),
            None => Err(self.full(&ErrorKind::StorageFull.into())),
        }
    }

    fn full(&self, error: &io::Error) -> StoreError {
        let why = format!(
            "the host table in {} is full ({error}): raise sharedstate.host.memory, or the size of \
             its file system",
            self.table.place.folder.display()
        );
        let before = self.table.count(Counter::TableFull, 1);
        let times = before.wrapping_add(1);
        if times.is_power_of_two() {
            log::warn!("{why}; this has happened {times} times");
        }
        StoreError::Refused(why)
    }

    /// Empty the slot and give it to `key`. What is there is looked at first, then the slot is
    /// announced (which fails if we were given up on), then each word changes by compare-and-set
    /// from what was seen. The flight goes first, then state and tag, which a takeover moves on.
    fn claim_slot(&self, slot: usize, flight: u64, key: &Key) -> bool {
        let words = self.table.map.slot(slot);
        let tag = self.table.tag(slot);
        let (state, tagged) = (State(words.state.load(Acquire)), tag.load(Acquire));
        let marks = [
            &words.floor,
            &words.newest,
            &words.next_check,
            &words.busy_until,
            &words.paused_until,
        ];
        let marked = marks.map(Mark::seen);
        let notes = [&words.confirmed, &words.flight_secret];
        let noted = notes.map(|note| note.load(Acquire));
        let evicts_usable = self.holds_usable(slot, state);
        if !self.announce(slot, 0) {
            return false;
        }
        let free = Tag(tagged).then(0);
        // The flight first: who boards from here on finds it moved, who boarded before stops us.
        let emptied = words.flight.swing(flight, RightWord::unpack(flight).given_up().pack())
            && words.state.swing(state.0, state.then(None).0)
            && tag.swing(tagged, free.0)
            && marks.iter().zip(marked).all(|(mark, seen)| mark.clear(seen))
            && notes.iter().zip(noted).all(|(note, seen)| note.swing(seen, 0))
            && tag.swing(free.0, free.then(self.table.tag_of(key)).0);
        if emptied {
            words.used.store((system::monotonic().as_millis() / 1000) as u64, Relaxed);
        }
        self.retract(slot, 0);
        if emptied && evicts_usable {
            let tag = Tag(tagged).hash();
            self.table.eviction(tag).store(tag, Relaxed);
            let before = self.table.count(Counter::EvictedUsable, 1);
            // At 1, 2, 4, 8…: a table that is too small must be heard of, and not flood the log.
            let times = before.wrapping_add(1);
            if times.is_power_of_two() {
                log::warn!(
                    "the host table evicted a usable entry, for the {times}. time: raise \
                     sharedstate.host.slots or sharedstate.host.memory"
                );
            }
        }
        emptied
    }

    fn holds_usable(&self, slot: usize, state: State) -> bool {
        let mut head = Vec::new();
        let buffer = state.buffer();
        buffer.is_some_and(|buffer| self.table.copy_record(slot, buffer, state, &mut head))
            && codec::timing(&head).is_some_and(|timing| self.table.now() < timing.usable_until)
    }
}
