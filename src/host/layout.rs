//! What the table's file looks like, byte by byte.
//!
//! ```text
//! header      one page: identity, timeline, issued version, breaker, counters
//! slots       128 bytes each; 64 slots make a bucket, and a key lives only in its bucket
//! buckets     the write right, the buffer its holder writes to, and 64 tags to search
//! small       3 areas of 1.5 KiB per slot   ┐ sparse: a page is allocated at its first use
//! large       3 areas of value_size per slot ┘
//! ```
//!
//! A slot has three buffers of each size. One is current, one is idle and gets the next record;
//! the third is touched only while a *stopped* writer may still scribble in another.
//! The large areas make the file look big (`ls -l`); what it occupies is `du`.

use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64};

use crate::clock::server::Watched;
use crate::clock::{Moment, Timeline};
use crate::entry::Version;

/// Changes whenever the meaning of a byte changes: part of the folder's hash, so two releases side
/// by side never share a table.
pub const LAYOUT: u64 = 4;
pub const MAGIC: u64 = u64::from_be_bytes(*b"SHSTATE\n");

pub const PAGE: usize = 4096;
pub const WAYS: usize = 64;
pub const SLOT_BYTES: usize = size_of::<Slot>();
pub const BUCKET_BYTES: usize = size_of::<Bucket>();
/// Holds a 1,200-byte token with its name and detail; 16,384 of them in two buffers are 48 MiB.
pub const SMALL: usize = 1536;
/// What a record needs beside its value: header, key, lease, failure reason, detail.
pub const OVERHEAD: usize = 2048;
pub const BUFFERS: usize = 6;
pub const COUNTERS: usize = 64;
/// How many processes of a host ask the authority at once. A thousand hosts that are cold at once want
/// answers to as many questions as they have workers, and a server takes 10,000 connections.
pub const ASKERS: usize = 4;
/// How many evicted keys are remembered; one more takes the place of another.
pub const EVICTED: usize = 256;

/// First page of the file. Written once before the file gets its name, except where noted.
#[repr(C)]
pub struct Header {
    pub magic: AtomicU64,
    pub layout: AtomicU64,
    pub slots: AtomicU64,
    pub value_size: AtomicU64,
    /// Bytes the file may occupy.
    pub memory: AtomicU64,
    pub boot: [AtomicU64; 2],
    /// Of the hash that finds a key's place: without it nobody can choose names that crowd one bucket.
    pub seed: AtomicU64,
    /// Where the host timeline is; any process.
    pub timeline: Timeline,
    /// Highest version issued here; any process, by fetch-max.
    pub issued: AtomicU64,
    /// [`crate::store::breaker::Breaker`]; any process, by compare-and-set.
    pub breaker: AtomicU64,
    /// Since when nothing was heard of the authority, zero while it answers. Any process, by compare-and-set.
    pub silent_since: AtomicU64,
    /// When it last answered a process of this host. Any process, fetch-max.
    pub answered_at: AtomicU64,
    /// [`crate::clock::server::ServerLead`]; zero before it was heard. Leaders.
    pub server_lead: AtomicI64,
    /// [`crate::clock::server::Watched`]: since when (written first, fetch-max), the first look at the clock, the lead
    /// and the last look; zero before the first. Leaders; of two that write at once nothing is left that is believed too much.
    pub watched_since: AtomicI64,
    pub watched_from: AtomicI64,
    pub watched_lead: AtomicI64,
    pub watched_at: AtomicI64,
    /// The right to follow the change log: [`RightWord`], its generation is the term.
    pub leader: AtomicU64,
    /// Everything in the table that is vouched for was the newest at this moment; by fetch-max, see
    /// `crate::leader`.
    pub heartbeat: AtomicU64,
    /// What was not confirmed since this moment is in doubt (high 63 bits), and whether that is still to be
    /// compared. Leaders, by compare-and-set.
    pub doubt: AtomicU64,
    /// What is in doubt was the newest at this moment.
    pub doubted_beat: AtomicU64,
    /// [`crate::store::log::Anchor`]: milliseconds, number and digest. Leaders; of two that write at once
    /// nothing is left that stands.
    pub anchor: [AtomicU64; 3],
    /// The right to ask the authority, for a few processes at a time: [`RightWord`].
    pub askers: [AtomicU64; ASKERS],
    _reserved: [AtomicU64; 25 - ASKERS],
    /// Any process, relaxed adds.
    pub counters: [AtomicU64; COUNTERS],
    /// [`Tag::of`] the keys whose usable entries had to make room, each in a place that it decides; zero
    /// when it has an entry again. Any process, relaxed: only a metric's label rests on it. An earlier
    /// release leaves it alone.
    pub evicted: [AtomicU64; EVICTED],
}

impl Header {
    pub fn watched(&self) -> Option<Watched> {
        // In the other order than they are written.
        let at = Moment::from_millis(self.watched_at.load(Acquire));
        let lead = self.watched_lead.load(Acquire);
        let from = Moment::from_millis(self.watched_from.load(Acquire));
        let since = self.watched_since.load(Acquire);
        (lead != 0).then_some(Watched { lead, since, from, at })
    }
}

/// One key's place. All words are zero in a new file.
#[repr(C, align(128))]
pub struct Slot {
    /// Publication sequence (high 61 bits) and the current buffer (low 3 bits, 0 is none). Grows at
    /// every publication, eviction and takeover; never reset while the file lives. Release stores
    /// by the bucket's writer, compare-and-set only; pairs with the acquire load of every reader.
    pub state: AtomicU64,
    /// Nothing below is served or stored. Anybody raises it, without a lock.
    pub floor: Mark,
    /// Highest version heard of. Anybody raises it, without a lock.
    pub newest: Mark,
    /// When the current record was last known to be the newest: sequence (low 21 bits of it, in the
    /// high bits) and moment (43 bits), so that it never vouches for another record.
    pub confirmed: AtomicU64,
    /// Nobody re-validates before this moment. Anybody moves it.
    pub next_check: Mark,
    /// Last use in seconds, for eviction. Anybody, relaxed.
    pub used: AtomicU64,
    /// Flight right: generation (24 bits) and deadline (40 bits). Compare-and-set.
    pub flight: AtomicU64,
    /// When the flight began, zero when it ended properly. Its owner.
    pub flight_since: AtomicU64,
    /// Lease secret of the flight's owner, zero when it left properly. Its owner.
    pub flight_secret: AtomicU64,
    /// Futex word, bumped when a flight ends.
    pub bell: AtomicU32,
    _pad: AtomicU32,
    /// Up to two buffers in which a writer that was given up on may still scribble; see [`Lost`].
    /// Bucket's writer, compare-and-set.
    pub lost: AtomicU64,
    /// Bit per buffer whose pages are allocated. Bucket's writer, after `posix_fallocate`.
    pub allocated: AtomicU64,
    /// Generation of a flight (high 32 bits) and the process that has it. Its owner.
    pub flight_by: AtomicU64,
    /// Another host mints the key until this moment; zero where that is not known. Anybody moves it.
    pub busy_until: Mark,
    /// The record's back-off is the authority's, and is believed until this moment; zero where it is not. Anybody
    /// moves it.
    pub paused_until: Mark,
    _reserved: [AtomicU64; 1],
}

/// Where a key is looked up, and the right to write the slots found there.
#[repr(C, align(64))]
pub struct Bucket {
    /// [`RightWord`]. Compare-and-set.
    pub right: AtomicU64,
    /// [`Target`]: what the holder of the right is writing to. Compare-and-set by the holder,
    /// before it touches the slot; whoever takes over moves the generation on, and from then on
    /// the former holder can announce nothing more.
    pub target: AtomicU64,
    _reserved: [AtomicU64; 6],
    /// [`Tag`] per slot. Bucket's writer, compare-and-set.
    pub tags: [AtomicU64; WAYS],
}

/// Sizes fixed when the file is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// A multiple of [`WAYS`].
    pub slots: usize,
    pub value_size: usize,
    pub memory: u64,
}

impl Sizes {
    /// Rounded to what the layout can hold.
    pub fn new(slots: usize, value_size: usize, memory: u64) -> Self {
        let slots = slots.max(1).div_ceil(WAYS) * WAYS;
        let sizes = Self { slots, value_size: value_size.max(SMALL), memory };
        Self { memory: memory.max(sizes.index_end() as u64 + PAGE as u64 * 16), ..sizes }
    }

    pub fn buckets(self) -> usize {
        self.slots / WAYS
    }

    pub fn buckets_start(self) -> usize {
        PAGE + self.slots * SLOT_BYTES
    }

    /// Everything before here is allocated when the file is made.
    pub fn index_end(self) -> usize {
        (self.buckets_start() + self.buckets() * BUCKET_BYTES).div_ceil(PAGE) * PAGE
    }

    pub fn large(self) -> usize {
        (self.value_size + OVERHEAD).div_ceil(PAGE) * PAGE
    }

    pub fn file_bytes(self) -> usize {
        let small = self.slots * SMALL * 3;
        (self.index_end() + small).div_ceil(PAGE) * PAGE + self.slots * self.large() * 3
    }

    /// Offset and capacity of buffer `buffer` (0..3 small, 3..6 large) of `slot`.
    pub fn buffer(self, slot: usize, buffer: usize) -> (usize, usize) {
        if buffer < 3 {
            (self.index_end() + (buffer * self.slots + slot) * SMALL, SMALL)
        } else {
            (self.large_start() + ((buffer - 3) * self.slots + slot) * self.large(), self.large())
        }
    }

    fn large_start(self) -> usize {
        (self.index_end() + self.slots * SMALL * 3).div_ceil(PAGE) * PAGE
    }

    /// The slots and buffers that have some of the bytes from `start` to `end`, which lie behind the index.
    pub fn buffers_in(self, start: usize, end: usize) -> impl Iterator<Item = (usize, usize)> {
        let area = move |begins: usize, stride: usize, first: usize| {
            let from = start.saturating_sub(begins) / stride;
            let to = end.saturating_sub(begins).div_ceil(stride).min(self.slots * 3);
            (from..to).map(move |at| (at % self.slots, first + at / self.slots))
        };
        area(self.index_end(), SMALL, 0).chain(area(self.large_start(), self.large(), 3))
    }
}

/// What is noted beside a slot's record without a lock: a version or a moment (53 bits), and how many keys
/// the slot had before (11 bits). Whoever changes a mark has seen it while the slot was the key's, and
/// changes it by compare-and-set; an eviction counts it on. So a process that is stopped in between
/// cannot leave a mark on the slot's next key.
#[repr(transparent)]
pub struct Mark(AtomicU64);

/// A mark as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marked(u64);

impl Mark {
    const VALUE: u64 = (1 << 53) - 1;

    pub fn seen(&self) -> Marked {
        Marked(self.0.load(Acquire))
    }

    #[inline]
    pub fn value(&self) -> u64 {
        self.seen().value()
    }

    /// `false`: it is not what was seen any more.
    pub fn set(&self, seen: Marked, value: u64) -> bool {
        self.swing(seen, seen.0 & !Self::VALUE | value.min(Self::VALUE))
    }

    /// To this version at the least, unless it has become another key's. What is beyond `latest` is replaced.
    pub fn raise(&self, mut seen: Marked, version: Version, latest: Version) {
        while seen.version(latest) < version && !self.set(seen, version.0) {
            let now = self.seen();
            if now.keys() != seen.keys() {
                return;
            }
            seen = now;
        }
    }

    /// Nothing is noted, of the slot's next key. `false`: it is not what was seen any more.
    pub fn clear(&self, seen: Marked) -> bool {
        self.swing(seen, (seen.0 & !Self::VALUE).wrapping_add(Self::VALUE + 1))
    }

    fn swing(&self, seen: Marked, next: u64) -> bool {
        self.0.compare_exchange(seen.0, next, AcqRel, Acquire).is_ok()
    }
}

impl Marked {
    #[inline]
    pub const fn value(self) -> u64 {
        self.0 & Mark::VALUE
    }

    pub fn version(self, latest: Version) -> Version {
        Version(self.value()).believed(latest)
    }

    const fn keys(self) -> u64 {
        self.0 & !Mark::VALUE
    }
}

/// Since when entries are in doubt, and whether they are still to be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt(pub u64);

impl Doubt {
    pub fn from(since: i64) -> Self {
        Self((since.max(0) as u64) << 1 | 1)
    }

    pub fn since(self) -> i64 {
        (self.0 >> 1) as i64
    }

    pub fn is_settled(self) -> bool {
        self.0 & 1 == 0
    }

    pub fn settled(self) -> Self {
        Self(self.0 & !1)
    }
}

/// Generation and deadline in one word, so that a takeover and a renewal exclude each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RightWord {
    pub generation: u32,
    /// Milliseconds of the host timeline; 0 when given back.
    pub until: i64,
    /// Somebody found the lock taken and the deadline past, and set a last, short deadline. A holder
    /// that had only just locked and not yet written its deadline notices and writes it.
    pub warned: bool,
}

impl RightWord {
    const DEADLINE: u64 = (1 << 39) - 1;

    pub fn unpack(word: u64) -> Self {
        Self {
            generation: (word >> 40) as u32,
            until: (word & Self::DEADLINE) as i64,
            warned: word >> 39 & 1 == 1,
        }
    }

    pub fn pack(self) -> u64 {
        let until = (self.until.max(0) as u64).min(Self::DEADLINE);
        u64::from(self.generation) << 40 | u64::from(self.warned) << 39 | until
    }

    pub fn next_generation(self) -> u32 {
        (self.generation + 1) % (1 << 24)
    }

    /// What becomes of a right whose holder may no longer use it.
    pub fn given_up(self) -> Self {
        Self { generation: self.next_generation(), until: 0, warned: false }
    }
}

/// Which key a slot belongs to: 48 bits of its hash, 0 when free, and a sequence that grows with
/// every change, so that a stale compare-and-set fails even when the key comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(pub u64);

impl Tag {
    const SEQUENCE: u64 = 0xffff;

    /// Of the key with this hash.
    pub fn of(hash: u64) -> u64 {
        (hash & !Self::SEQUENCE).max(Self::SEQUENCE + 1)
    }

    pub fn hash(self) -> u64 {
        self.0 & !Self::SEQUENCE
    }

    pub fn then(self, hash: u64) -> Self {
        Self(hash | (self.0.wrapping_add(1) & Self::SEQUENCE))
    }
}

/// A buffer of a slot, announced under a generation of its bucket's write right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    pub generation: u32,
    pub aim: Option<(usize, usize)>,
}

impl Target {
    pub fn unpack(word: u64) -> Self {
        let aim = (word & ((1 << 40) - 1)) as usize;
        let aim = aim.checked_sub(1).map(|aim| (aim / 8, aim % 8));
        Self { generation: (word >> 40) as u32, aim }
    }

    pub fn pack(self) -> u64 {
        let aim = self.aim.map_or(0, |(slot, buffer)| slot as u64 * 8 + buffer as u64 + 1);
        u64::from(self.generation) << 40 | aim
    }
}

/// Two places for a lost buffer: write generation (24 bits) and buffer + 1 (8 bits) each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost(pub [Option<(u32, usize)>; 2]);

impl Lost {
    pub fn unpack(word: u64) -> Self {
        Self(
            [word as u32, (word >> 32) as u32].map(|half| {
                ((half & 0xff) as usize).checked_sub(1).map(|buffer| (half >> 8, buffer))
            }),
        )
    }

    pub fn pack(self) -> u64 {
        let half = |place: Option<(u32, usize)>| {
            place.map_or(0, |(generation, buffer)| u64::from(generation) << 8 | (buffer as u64 + 1))
        };
        half(self.0[0]) | half(self.0[1]) << 32
    }
}

/// The state word: publication sequence and current buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State(pub u64);

impl State {
    /// None, too, in a damaged word that names a buffer which does not exist.
    pub fn buffer(self) -> Option<usize> {
        ((self.0 & 7) as usize).checked_sub(1).filter(|buffer| *buffer < BUFFERS)
    }

    /// The next state, with `buffer` current.
    pub fn then(self, buffer: Option<usize>) -> Self {
        let sequence = (self.0 >> 3).wrapping_add(1);
        Self(sequence << 3 | buffer.map_or(0, |buffer| buffer as u64 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_buffers_overlap_and_the_last_ends_with_the_file() {
        let sizes = Sizes::new(128, 16 * 1024, 1 << 20);
        let mut ranges: Vec<_> = (0..sizes.slots)
            .flat_map(|slot| (0..BUFFERS).map(move |buffer| sizes.buffer(slot, buffer)))
            .collect();
        ranges.sort_unstable();
        assert!(ranges.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0));
        assert!(ranges[0].0 >= sizes.index_end());
        let last = ranges[ranges.len() - 1];
        assert_eq!(last.0 + last.1, sizes.file_bytes());
    }

    #[test]
    fn whoever_has_some_of_a_range_is_found_by_it() {
        let sizes = Sizes::new(128, 16 * 1024, 1 << 20);
        for start in (sizes.index_end()..sizes.file_bytes()).step_by(16 * PAGE) {
            let end = (start + 16 * PAGE).min(sizes.file_bytes());
            let mut found: Vec<_> = sizes.buffers_in(start, end).collect();
            found.sort_unstable();
            let all = (0..sizes.slots).flat_map(|slot| (0..BUFFERS).map(move |at| (slot, at)));
            let overlapping = all.filter(|(slot, at)| {
                let (from, bytes) = sizes.buffer(*slot, *at);
                from < end && start < from + bytes
            });
            assert_eq!(found, overlapping.collect::<Vec<_>>(), "{start}..{end}");
        }
    }

    #[test]
    fn header_fits_its_page_and_records_are_word_aligned() {
        assert!(size_of::<Header>() <= PAGE);
        assert_eq!(SLOT_BYTES, 128);
        assert_eq!(BUCKET_BYTES % 64, 0);
        assert_eq!(SMALL % 8, 0);
    }

    #[test]
    fn packed_words_keep_what_they_are_given() {
        let right = RightWord { generation: 0xff_ffff, until: 34_000_000_000, warned: true };
        assert_eq!(RightWord::unpack(right.pack()), right);
        assert_eq!(right.next_generation(), 0);
        let target = Target { generation: 3, aim: Some((16_383, 5)) };
        assert_eq!(Target::unpack(target.pack()), target);
        assert_eq!(Target::unpack(Target { generation: 3, aim: None }.pack()).aim, None);
        let lost = Lost([Some((0xff_ffff, 5)), Some((1, 0))]);
        assert_eq!(Lost::unpack(lost.pack()), lost);
        assert_eq!(Lost::unpack(0), Lost([None, None]));
        let state = State(0).then(Some(5));
        assert_eq!(state.buffer(), Some(5));
        assert_eq!(state.then(None).buffer(), None);
        assert!(state.then(None).0 > state.0);
        assert_eq!(State(7).buffer(), None, "there are six");
    }
}
