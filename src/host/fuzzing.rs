#![allow(clippy::panic, clippy::unwrap_used)] // A property fails by a panic, as a test does.
//! What another process, a crash or a disk may have left in the table's file.
//!
//! Who can write the file runs as the same user, so a forged record with the right checksum is served. But no
//! content of the file makes a reader or a writer crash, hang, read outside of the mapping, or serve the value
//! of another key.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

use super::layout::{BUCKET_BYTES, LAYOUT, MAGIC, PAGE, SLOT_BYTES, SMALL};
use super::*;
use crate::clock::server::ServerTime;
use crate::fuzzing::{key_named, seals};
use crate::metrics::text::{Scrape, text};

/// The folder of one input. It is removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name =
            format!("sharedstate-fuzz-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let folder = Self(std::env::temp_dir().join(name));
        let made = fs::DirBuilder::new().mode(0o700).recursive(true).create(&folder.0);
        made.unwrap();
        folder
    }

    fn place(&self) -> Place {
        Place::new(&self.0, &["fuzz"])
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// One bucket, with small values: a file of a megabyte, most of which is a hole.
fn sizes() -> Sizes {
    Sizes::new(64, 1024, 8 << 20)
}

fn open(place: Place) -> HostTable {
    HostTable::open(place, sizes(), None).unwrap()
}

const NAMES: [&[u8]; 4] = [b"crm", b"shop:1", b"erp", b"nobody"];
const KNOWN: usize = 3;

fn version(of: usize) -> Version {
    Version(1_795_428_000_000_000 + of as u64)
}

fn mark_of(key: &Key) -> Vec<u8> {
    key.text().into_bytes().into_iter().cycle().take(300).collect()
}

/// An hour's entry whose value says whose it is.
fn entry(key: &Key, of: usize, now: Moment) -> Entry {
    let at = |seconds| now.plus(Duration::from_secs(seconds));
    let timing = Timing {
        minted_at: now,
        refresh_at: at(2800),
        usable_until: at(3540),
        expires_at: at(3600),
    };
    let (value, detail) = (mark_of(key).into(), b"{}".to_vec().into());
    Entry { version: version(of), timing, unsynced: false, value, detail }
}

fn fill(table: &HostTable) {
    for (at, name) in NAMES[..KNOWN].iter().enumerate() {
        let (key, now) = (key_named(name), table.now());
        let stored = table.restore(&key, &entry(&key, at, now), now);
        assert!(stored.is_ok_and(|reply| reply.what.outcome == Committed::Accepted));
    }
}

/// The pages of a table with three entries that are not all zero.
fn pristine() -> &'static [(u64, Vec<u8>)] {
    static PAGES: OnceLock<Vec<(u64, Vec<u8>)>> = OnceLock::new();
    PAGES.get_or_init(|| {
        let folder = Folder::new();
        fill(&open(folder.place()));
        let file = fs::read(folder.place().table()).unwrap_or_default();
        let pages = file.chunks(PAGE).enumerate();
        pages
            .filter(|(_, page)| page.iter().any(|byte| *byte != 0))
            .map(|(at, page)| ((at * PAGE) as u64, page.to_vec()))
            .collect()
    })
}

/// Calls every operation of a table. Returns whether an entry was served.
fn use_it(table: &HostTable, forged: bool) -> bool {
    let mut served = false;
    for name in NAMES {
        let key = key_named(name);
        // A forged record may have any value.
        let check = |value: &[u8]| assert!(forged || value == mark_of(&key), "another key's value");
        if let Some(known) = table.look(&key) {
            let latest = latest();
            assert!(known.floor <= latest && known.newest <= latest && known.highest <= latest);
            if let Some(entry) = known.entry {
                check(&entry.value);
                assert!((known.floor..=latest).contains(&entry.version));
                served = true;
                if let Some(watch) = table.watch(&key, entry.version) {
                    // A floor that nobody believes makes the way of a hit slow, not wrong.
                    let floor = Version(watch.table.map.slot(watch.slot).floor.value());
                    assert!(watch.holds() || floor > latest);
                }
            }
        }
        table.hit(&key, |_, _, _| Some(Duration::ZERO), check);
    }
    for resident in table.survey(64) {
        let value = resident.entry.map(|entry| entry.value);
        assert!(forged || value.is_none_or(|value| *value == mark_of(&resident.key)));
    }
    assert!(table.resident().len() <= 64 && table.stock().resident <= 64);
    assert!(table.usage().used <= 64);
    table.health();
    let counts = table.tally().counts();
    text(Scrape { counts, ..Scrape::default() });
    change_it(table);
    served
}

fn change_it(table: &HostTable) {
    let now = table.now();
    let until = now.plus(Duration::from_secs(1));
    for name in NAMES {
        let key = key_named(name);
        table.may_revalidate(&key, now, until);
        table.set_busy(&key, until);
        table.hear_backoff(&key, until, "x", until);
        table.wake(&key);
        table.raise_floor(&key, version(0));
        table.hear(&key, version(1), version(0));
        table.set_pending_rejection(&key, Some(Digest::of(b"x")));
        let Ok(Boarding::Mine { right, .. }) = table.board(&key, until, now) else { continue };
        let Some(secret) = Secret::from_bits(7) else { continue };
        table.note_secret(&key, &right, secret);
        table.extend(&key, &right, until);
        let claim = Claim {
            secret,
            takeover: None,
            newer_than: version(9),
            highest_known: version(9),
            rejected: None,
            lease: Duration::from_secs(1),
        };
        if let Ok(Reply { what: Claimed::Lease(lease), .. }) = table.claim(&key, &claim, now) {
            assert!(lease.version <= latest());
            let second = Duration::from_secs(1);
            let failure = Failure { base: second, least: second, reason: "x".into() };
            let _ = table.renew(&key, &lease, second, now);
            let _ = table.abandon(&key, &lease, Some(&failure), now);
            let minted = Entry { version: lease.version, ..entry(&key, 0, now) };
            let _ = table.commit(&key, &lease, &minted, now);
            let _ = table.invalidate(&key, Some(minted.digest()), Version::NONE, now);
        }
        table.confirm(&key, version(0), now);
        table.leave(&key, &right);
    }
    let doubt = table.doubt();
    table.in_doubt();
    table.settle(doubt);
    if let Some(anchor) = table.anchor() {
        table.beat(now, &anchor);
    }
    table.may_ask(now);
    table.authority_heard(Heard::Silence, now, now);
    let (sent, heard) = (system::monotonic(), system::monotonic());
    table.hear_clock(&ServerTime { clock: i64::MAX, sent, heard }, i64::MAX, true);
    table.watched();
    if let Some(term) = table.lead(now, until) {
        table.keep_leading(&term, until);
        table.stop_leading(&term);
    }
    if let Some(turn) = table.take_turn(until) {
        table.end_turn(&turn);
    }
}

/// A file in the place of the table, and in the place of the counters. Bits of the first byte put the right
/// value there: 1 the magic, 2 the layout, 4 the boot, 8 the length, 16 the sizes. The file follows it.
///
/// - The file is used as a table, or replaced by one that works.
/// - Every operation on it ends, and none panics.
pub fn table_file(bytes: &[u8]) -> bool {
    let (flags, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let mut content = rest.to_vec();
    content.resize(content.len().max(56), 0);
    let [high, low] = file::boot_id();
    let (sizes, right) = (sizes(), |bit: u8| flags & bit != 0);
    for (at, value, is_right) in [
        (0, MAGIC, right(1)),
        (1, LAYOUT, right(2)),
        (2, sizes.slots as u64, right(16)),
        (3, sizes.value_size as u64, right(16)),
        (4, sizes.memory, right(16)),
        (5, high, right(4)),
        (6, low, right(4)),
    ] {
        if is_right {
            content[at * 8..at * 8 + 8].copy_from_slice(&value.to_ne_bytes());
        }
    }
    if right(8) {
        // All of it, so that a hole is not what makes it unfit.
        content.resize(sizes.file_bytes(), 0);
    }
    let folder = Folder::new();
    let place = folder.place();
    let made = fs::DirBuilder::new().mode(0o700).create(&place.folder);
    made.and_then(|()| fs::write(place.table(), &content))
        .and_then(|()| fs::write(place.folder.join("tally-1"), &content))
        .unwrap();
    let file = fs::File::open(place.table()).unwrap();
    let table = open(place.clone());
    let replaced = !file::still_named(&place, &file);
    use_it(&table, true);
    if replaced {
        fill_anew(&table);
    }
    !replaced
}

/// A new table takes an entry and serves it.
fn fill_anew(table: &HostTable) {
    let (key, now) = (key_named(b"after"), table.now());
    let stored = table.restore(&key, &entry(&key, 0, now), now);
    assert!(stored.is_ok_and(|reply| reply.what.outcome == Committed::Accepted));
    assert!(table.look(&key).is_some_and(|known| known.entry.is_some()));
}

/// Changes to a table with three entries, eleven bytes each: the kind of word (of the header, a slot, the
/// bucket, a record, or a record whose checksum is then corrected), its place, and its new content; or a
/// record that is copied over another.
///
/// - An entry that is served is the key's own, whole, and of a believable version.
/// - Every operation ends, and none panics.
pub fn table_words(bytes: &[u8]) -> bool {
    let folder = Folder::new();
    let place = folder.place();
    let sizes = sizes();
    let mut forged = false;
    let made = fs::DirBuilder::new().mode(0o700).create(&place.folder);
    let file = made.and_then(|()| {
        let mut options = fs::File::options();
        options.read(true).write(true).create_new(true).open(place.table())
    });
    let file = file.unwrap();
    let written = file
        .set_len(sizes.file_bytes() as u64)
        .and_then(|()| sys::allocate(&file, 0, sizes.index_end()))
        .and_then(|()| pristine().iter().try_for_each(|(at, page)| file.write_all_at(page, *at)));
    written.unwrap();
    for change in bytes.chunks_exact(11) {
        let place = usize::from(u16::from_be_bytes([change[1], change[2]]));
        let value: [u8; 8] = change[3..].first_chunk().copied().unwrap_or_default();
        let (slot, word) = (place % KNOWN, place / KNOWN);
        let (record, words) = (sizes.buffer(slot, 0).0, SMALL / 8);
        let at = match change[0] % 6 {
            0 => place * 8 % PAGE,
            1 => PAGE + slot * SLOT_BYTES + word * 8 % SLOT_BYTES,
            2 => sizes.buckets_start() + place * 8 % BUCKET_BYTES,
            3 => record + word % words * 8,
            4 => {
                forged = true;
                let at = record + word % words * 8;
                write(&file, at, &value);
                fit_checksum(&file, record);
                continue;
            }
            _ => {
                let mut other = [0; SMALL];
                let from = sizes.buffer(usize::from(value[0]) % KNOWN, 0).0;
                if file.read_exact_at(&mut other, from as u64).is_ok() {
                    write(&file, record, &other);
                }
                continue;
            }
        };
        // The words before say whether the file is a table at all: see `table_file`.
        if at >= 56 {
            write(&file, at, &value);
        }
    }
    drop(file);
    let table = open(place);
    use_it(&table, forged)
}

fn write(file: &fs::File, at: usize, bytes: &[u8]) {
    file.write_all_at(bytes, at as u64).unwrap();
}

fn fit_checksum(file: &fs::File, record: usize) {
    let mut bytes = [0; SMALL];
    if file.read_exact_at(&mut bytes, record as u64).is_err() {
        return;
    }
    let words = words_of(&bytes);
    if let Some(length) = codec::words(&words, words.len()) {
        write(file, record, &codec::checksum(&words[..length]).to_ne_bytes());
    }
}

fn words_of(bytes: &[u8]) -> Vec<u64> {
    let words = bytes.chunks_exact(8).map(|eight| eight.first_chunk().copied().unwrap_or_default());
    words.map(u64::from_ne_bytes).collect()
}

/// The words of a record. Bits of the first byte: 1 corrects the checksum, 2 reads with a seal.
///
/// - Words without their checksum are no record.
/// - A record belongs to one key, and is written as it was read.
/// - Every rule of a record can be applied to it.
pub fn table_record(bytes: &[u8]) -> bool {
    let (flags, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let mut words = words_of(rest);
    words.resize(words.len().max(size_of::<codec::Beginning>() / 8), 0);
    if let Some(begins) = words.first_chunk() {
        codec::kind(begins);
        assert!(codec::name(begins).len() <= size_of::<codec::Beginning>());
    }
    let Some(length) = codec::words(&words, words.len()) else { return false };
    words.truncate(length);
    if flags & 1 != 0 {
        words[0] = codec::checksum(&words);
    }
    let [ours, _] = seals();
    let seal = (flags & 2 != 0).then_some(&ours);
    let other = key_named(b"somebody else's");
    let Some(key) = codec::key(&words).and_then(|bytes| Key::from_bytes(&bytes)) else {
        assert_eq!(codec::decode(&other, &words, seal), None);
        return false;
    };
    if key != other {
        assert_eq!(codec::decode(&other, &words, seal), None);
        assert!(codec::value(&other, &words, seal).is_none());
    }
    let record = codec::decode(&key, &words, seal).unwrap();
    let again = codec::encode(&key, &record, seal);
    assert_eq!(codec::decode(&key, &again, seal).as_ref(), Some(&record));
    apply_rules(record, key.kind());
    true
}

fn apply_rules(mut record: Record, kind: Kind) {
    let (mut floor, now) = (version(0), Moment::from_millis(5_000));
    let second = Duration::from_secs(1);
    let mut at = Context { kind, floor: &mut floor, now, latest: version(1_000) };
    let Some(secret) = Secret::from_bits(7) else { return };
    let rejected = record.entry.as_ref().map(Entry::digest);
    let claim = Claim {
        secret,
        takeover: None,
        newer_than: Version::NONE,
        highest_known: Version(u64::MAX),
        rejected,
        lease: second,
    };
    record.backoff();
    if let Claimed::Lease(lease) = record.claim(&mut at, &claim, Version::next) {
        record.renew(now, &lease, second);
        let failure = Failure { base: second, least: second, reason: "x".into() };
        record.abandon(now, &lease, Some(&failure));
        let key = key_named(b"crm");
        let minted = entry(&key, 1, now);
        record.commit(&at, &lease, &minted);
        record.restore(&at, &minted);
        record.adopt(&minted);
    }
    record.invalidate(&mut at, rejected, Version::NONE, Version::next);
    record.invalidate(&mut at, None, Version::NONE, Version::next);
}
