//! What is counted by family of names and by source of rates, and how long mints and waits took, in a
//! fixed number of words of any memory: a host's, which all its processes share, or one process's.
//!
//! Relaxed adds only: a process killed at any instruction leaves every number as it was or one higher.
//! A family's place is claimed by one compare-and-set of its hash; the name follows, and whoever finds
//! the hash without it writes it too. So a claim that was cut short keeps nobody out.
//! The number of places is fixed: a name per tenant must make no time series per tenant, and what
//! comes when all are taken is counted together, as [`OTHER`].

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

/// Where the words are.
pub trait Memory: Send + Sync {
    /// At least [`Tally::WORDS`]; zero when nobody has counted yet.
    fn words(&self) -> &[AtomicU64];
}

impl Memory for Box<[AtomicU64]> {
    fn words(&self) -> &[AtomicU64] {
        self
    }
}

/// Who was counted when there was no place left.
pub const OTHER: &str = "other";

/// What a family is called, in bytes at most; longer ones that begin alike are counted together.
const NAME_BYTES: usize = 64;

/// The part of a token's name that labels its metrics: up to the first `:`, so that a name per tenant
/// (`crm:4711`) does not make a time series per tenant.
pub fn family(name: &[u8]) -> &[u8] {
    let end = name.iter().position(|byte| *byte == b':').unwrap_or(name.len());
    &name[..end.min(NAME_BYTES)]
}

/// What a host had, and where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Hit {
    /// In the memory of the request.
    Memo,
    /// In the host's table.
    Table,
}

impl Hit {
    pub const LABELS: [&str; 2] = ["memo", "table"];
}

/// What a host did not have, and who brought it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Miss {
    Redis,
    Mint,
}

impl Miss {
    pub const LABELS: [&str; 2] = ["redis", "mint"];
}

/// Why a mint was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum MintReason {
    /// Nobody here has ever heard of it.
    Cold,
    /// What there was had run out before anybody asked.
    Expired,
    /// What there is is due, and served meanwhile.
    Refresh,
    /// What there was had been rejected, or invalidated.
    Rejected,
    /// What there was was good, and had to make room.
    Evicted,
    /// The store of the fleet cannot be asked.
    Degraded,
}

impl MintReason {
    pub const LABELS: [&str; 6] = ["cold", "expired", "refresh", "rejected", "evicted", "degraded"];
}

/// What came of asking a source of rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Refresh {
    /// A sheet that is in force, new or confirmed.
    Taken,
    /// One that looks wrong, and is held back.
    Quarantined,
    Failed,
}

impl Refresh {
    pub const LABELS: [&str; 3] = ["taken", "quarantined", "failed"];
}

/// Upper bounds in milliseconds; above the last is one bucket more. A clock of 4 ms has nothing to
/// say below the first.
pub const BOUNDS: [u64; 11] = [10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000];
const BUCKETS: usize = BOUNDS.len() + 1;

/// How often something took how long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans {
    /// Milliseconds.
    pub sum: u64,
    pub buckets: [u64; BUCKETS],
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Family {
    pub name: Vec<u8>,
    /// In the order of [`Hit::LABELS`]; so are the others.
    pub hits: [u64; 2],
    pub misses: [u64; 2],
    pub mints: [u64; 6],
    pub failures: u64,
    /// Milliseconds between mint and refresh, of all mints.
    pub lifetime: u64,
    pub took: Spans,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    pub name: Vec<u8>,
    /// Calls that were made.
    pub calls: u64,
    pub refreshes: [u64; 3],
}

/// All of it at one moment, or nearly.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    pub waited: Spans,
    pub families: Vec<Family>,
    pub sources: Vec<Source>,
}

/// Named places: the hashes together, so that a search reads one page; then the places, one more than
/// there are names, for the others.
#[derive(Clone, Copy)]
struct Region {
    start: usize,
    places: usize,
    stride: usize,
}

impl Region {
    const fn end(self) -> usize {
        self.start + self.places + (self.places + 1) * self.stride
    }

    const fn place(self, index: usize) -> usize {
        self.start + self.places + index * self.stride
    }
}

// Words of a place. The length is the name's plus one, and written when the name is whole.
const LENGTH: usize = 0;
const NAME: usize = 1;
const FIRST: usize = NAME + NAME_BYTES / 8;
const HITS: usize = FIRST;
const MISSES: usize = HITS + Hit::LABELS.len();
const MINTS: usize = MISSES + Miss::LABELS.len();
const FAILURES: usize = MINTS + MintReason::LABELS.len();
const LIFETIME: usize = FAILURES + 1;
const TOOK: usize = LIFETIME + 1;
const CALLS: usize = FIRST;
const REFRESHES: usize = CALLS + 1;

/// What the memory's owner may write for itself, such as a file's header.
pub const RESERVED: usize = 16;
const WAITED: usize = RESERVED;
const FAMILIES: Region = Region { start: 64, places: 64, stride: 64 };
const SOURCES: Region = Region { start: FAMILIES.end(), places: 15, stride: 16 };
const _: () = assert!(WAITED + 1 + BUCKETS <= FAMILIES.start);
const _: () = assert!(TOOK + 1 + BUCKETS <= FAMILIES.stride);
const _: () = assert!(REFRESHES + Refresh::LABELS.len() <= SOURCES.stride);

pub struct Tally {
    memory: Box<dyn Memory>,
    of_host: bool,
}

impl Tally {
    pub const WORDS: usize = SOURCES.end();

    /// Of all who share the memory; `None` where it is too short.
    pub fn over(memory: impl Memory + 'static) -> Option<Self> {
        let enough = memory.words().len() >= Self::WORDS;
        enough.then(|| Self { memory: Box::new(memory), of_host: true })
    }

    /// Of this process alone.
    pub fn of_process() -> Self {
        let words: Box<[AtomicU64]> = (0..Self::WORDS).map(|_| AtomicU64::new(0)).collect();
        Self { memory: Box::new(words), of_host: false }
    }

    pub fn is_of_host(&self) -> bool {
        self.of_host
    }

    pub fn hit(&self, name: &[u8], hit: Hit, times: u64) {
        if times > 0 {
            self.add(self.family(name) + HITS + hit as usize, times);
        }
    }

    pub fn miss(&self, name: &[u8], miss: Miss) {
        self.add(self.family(name) + MISSES + miss as usize, 1);
    }

    /// A mint that took so long, of something to be minted again in `lifetime`.
    pub fn minted(&self, name: &[u8], reason: MintReason, lifetime: Duration, took: Duration) {
        let place = self.family(name);
        self.add(place + MINTS + reason as usize, 1);
        self.add(place + LIFETIME, millis(lifetime));
        self.span(place + TOOK, took);
    }

    pub fn mint_failed(&self, name: &[u8], took: Duration) {
        let place = self.family(name);
        self.add(place + FAILURES, 1);
        self.span(place + TOOK, took);
    }

    pub fn waited(&self, span: Duration) {
        self.span(WAITED, span);
    }

    /// A source of rates is called.
    pub fn called(&self, source: &str) {
        self.add(self.source(source) + CALLS, 1);
    }

    pub fn refreshed(&self, source: &str, what: Refresh) {
        self.add(self.source(source) + REFRESHES + what as usize, 1);
    }

    pub fn counts(&self) -> Counts {
        let families = self.named(FAMILIES).map(|(name, place)| Family {
            name,
            hits: self.row(place + HITS),
            misses: self.row(place + MISSES),
            mints: self.row(place + MINTS),
            failures: self.at(place + FAILURES),
            lifetime: self.at(place + LIFETIME),
            took: self.spans(place + TOOK),
        });
        let sources = self.named(SOURCES).map(|(name, place)| Source {
            name,
            calls: self.at(place + CALLS),
            refreshes: self.row(place + REFRESHES),
        });
        Counts {
            waited: self.spans(WAITED),
            families: families.collect(),
            sources: sources.collect(),
        }
    }

    fn family(&self, name: &[u8]) -> usize {
        self.find(FAMILIES, family(name))
    }

    fn source(&self, name: &str) -> usize {
        self.find(SOURCES, &name.as_bytes()[..name.len().min(NAME_BYTES)])
    }

    /// The first word of the name's place.
    fn find(&self, region: Region, name: &[u8]) -> usize {
        let hash = xxh3_64(name).max(1);
        let start = (hash % region.places as u64) as usize;
        let probes = (0..region.places).map(|step| (start + step) % region.places);
        // The one name that would be confused with the rest is counted with it.
        for index in probes.filter(|_| name != OTHER.as_bytes()) {
            let claim = self.word(region.start + index);
            let mut seen = claim.load(Acquire);
            if seen == 0 {
                seen = claim.compare_exchange(0, hash, AcqRel, Acquire).err().unwrap_or(hash);
            }
            if seen == hash {
                let place = region.place(index);
                self.name(place, name);
                return place;
            }
        }
        region.place(region.places)
    }

    fn name(&self, place: usize, name: &[u8]) {
        if self.word(place + LENGTH).load(Acquire) != 0 {
            return;
        }
        for (at, bytes) in name.chunks(8).enumerate() {
            let mut eight = [0; 8];
            eight[..bytes.len()].copy_from_slice(bytes);
            self.word(place + NAME + at).store(u64::from_ne_bytes(eight), Relaxed);
        }
        self.word(place + LENGTH).store(name.len() as u64 + 1, Release);
    }

    /// Places that have a name, and the one of the others when something was counted there.
    fn named(&self, region: Region) -> impl Iterator<Item = (Vec<u8>, usize)> {
        let named = (0..region.places).filter_map(move |index| {
            let place = region.place(index);
            let length = self.word(place + LENGTH).load(Acquire).checked_sub(1)?;
            let words = (0..NAME_BYTES / 8).map(|at| self.at(place + NAME + at).to_ne_bytes());
            let bytes = words.collect::<Vec<_>>().concat();
            Some((bytes.get(..usize::try_from(length).ok()?)?.to_vec(), place))
        });
        let others = region.place(region.places);
        let any = (FIRST..region.stride).any(|at| self.at(others + at) != 0);
        named.chain(any.then(|| (OTHER.as_bytes().to_vec(), others)))
    }

    fn span(&self, first: usize, span: Duration) {
        let span = millis(span);
        let bucket = BOUNDS.iter().position(|bound| span <= *bound).unwrap_or(BOUNDS.len());
        self.add(first, span);
        self.add(first + 1 + bucket, 1);
    }

    fn spans(&self, first: usize) -> Spans {
        Spans { sum: self.at(first), buckets: self.row(first + 1) }
    }

    fn row<const N: usize>(&self, first: usize) -> [u64; N] {
        std::array::from_fn(|at| self.at(first + at))
    }

    fn add(&self, word: usize, times: u64) {
        self.word(word).fetch_add(times, Relaxed);
    }

    fn at(&self, word: usize) -> u64 {
        self.word(word).load(Relaxed)
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        &self.memory.words()[index]
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Words that more than one tally counts in, as two processes do.
    #[derive(Clone)]
    struct Shared(Arc<Box<[AtomicU64]>>);

    impl Memory for Shared {
        fn words(&self) -> &[AtomicU64] {
            &self.0
        }
    }

    fn shared() -> Shared {
        Shared(Arc::new((0..Tally::WORDS).map(|_| AtomicU64::new(0)).collect()))
    }

    fn of<'a>(counts: &'a Counts, name: &str) -> &'a Family {
        counts.families.iter().find(|family| family.name == name.as_bytes()).unwrap()
    }

    #[test]
    fn a_family_is_the_name_up_to_its_first_colon() {
        for (name, wanted) in [("crm", "crm"), ("crm:4711", "crm"), ("a:b:c", "a"), (":a", "")] {
            assert_eq!(family(name.as_bytes()), wanted.as_bytes());
        }
        assert_eq!(family(&[b'x'; 200]).len(), NAME_BYTES);
    }

    #[test]
    fn what_is_counted_comes_back_under_its_family_and_label() {
        let tally = Tally::of_process();
        tally.hit(b"crm:1", Hit::Memo, 3);
        tally.hit(b"crm:2", Hit::Table, 4);
        tally.miss(b"crm:2", Miss::Mint);
        let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3600));
        tally.minted(b"crm:1", MintReason::Evicted, hour, second);
        tally.mint_failed(b"shop", Duration::from_secs(60));
        tally.waited(Duration::from_millis(11));
        tally.called("ecb");
        tally.refreshed("ecb", Refresh::Failed);
        let counts = tally.counts();
        let crm = of(&counts, "crm");
        assert_eq!((crm.hits, crm.misses), ([3, 4], [0, 1]));
        assert_eq!((crm.mints, crm.lifetime), ([0, 0, 0, 0, 1, 0], 3_600_000));
        assert_eq!((crm.took.sum, crm.took.buckets[6]), (1_000, 1), "a bound is inclusive");
        let shop = of(&counts, "shop");
        assert_eq!((shop.failures, shop.took.buckets[11]), (1, 1));
        assert_eq!((counts.waited.sum, counts.waited.buckets[1]), (11, 1));
        assert_eq!((counts.sources[0].calls, counts.sources[0].refreshes), (1, [0, 0, 1]));
    }

    #[test]
    fn families_beyond_the_last_place_are_counted_together_and_none_is_lost() {
        let tally = Tally::of_process();
        for n in 0..100 {
            tally.hit(format!("family{n}:x").as_bytes(), Hit::Memo, 1);
        }
        tally.hit(OTHER.as_bytes(), Hit::Memo, 1);
        let counts = tally.counts();
        assert_eq!(counts.families.len(), FAMILIES.places + 1);
        let hits: u64 = counts.families.iter().map(|family| family.hits[0]).sum();
        assert_eq!(hits, 101);
        assert_eq!(of(&counts, OTHER).hits[0], 100 - FAMILIES.places as u64 + 1);
    }

    #[test]
    fn a_claim_that_was_cut_short_before_its_name_is_finished_by_the_next() {
        let memory = shared();
        let tally = Tally::over(memory.clone()).unwrap();
        let hash = xxh3_64(b"crm");
        let index = (hash % FAMILIES.places as u64) as usize;
        memory.words()[FAMILIES.start + index].store(hash, Relaxed);
        assert!(tally.counts().families.is_empty(), "without a name there is nothing to show");
        tally.hit(b"shop", Hit::Memo, 0);
        assert!(tally.counts().families.is_empty(), "no hits, no family");
        tally.hit(b"crm", Hit::Memo, 1);
        assert_eq!(of(&tally.counts(), "crm").hits[0], 1);
    }

    #[test]
    fn threads_that_claim_at_once_agree_on_one_place_each_and_lose_no_count() {
        const THREADS: u64 = 4;
        // Each round is forty races for places.
        for _ in 0..200 {
            let memory = shared();
            let ready = std::sync::Barrier::new(THREADS as usize);
            std::thread::scope(|scope| {
                for _ in 0..THREADS {
                    let (tally, ready) = (Tally::over(memory.clone()).unwrap(), &ready);
                    scope.spawn(move || {
                        ready.wait();
                        for n in 0..80 {
                            tally.hit(format!("family{}", n % 40).as_bytes(), Hit::Table, 1);
                        }
                    });
                }
            });
            let counts = Tally::over(memory).unwrap().counts();
            assert_eq!(counts.families.len(), 40);
            assert!(counts.families.iter().all(|family| family.hits[1] == 2 * THREADS));
        }
    }

    #[test]
    fn memory_that_is_too_short_is_refused() {
        let short: Box<[AtomicU64]> = (1..Tally::WORDS).map(|_| AtomicU64::new(0)).collect();
        assert!(Tally::over(short).is_none());
    }
}
