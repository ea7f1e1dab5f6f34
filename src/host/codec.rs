//! A [`Record`] as the words of one buffer: checksum, lengths, fixed fields, then the bytes of key,
//! failure reason, value and detail. A sealed value has its detail in it. The key is inside the buffer and
//! compared on the copied bytes; a slot's index alone never says whose record it is.
//!
//! A record says how many fixed fields it has. A later release adds some at the end, and flags, and
//! kinds of keys; this one reads past what it does not know.

use std::ops::Deref;

use xxhash_rust::xxh3::xxh3_64;

use crate::clock::Moment;
use crate::entry::{Digest, Entry, Key, Kind, Timing, Version};
use crate::seal::{Plain, Seal};
use crate::store::record::{Held, Record};
use crate::store::{Lease, Secret};

/// Checksum, two words of lengths, flags with the number of these words, fourteen fields.
pub const HEAD: usize = 18;

const HAS_ENTRY: u64 = 1;
const UNSYNCED: u64 = 2;
/// Where the number of fixed words stands beside the flags.
const HEAD_AT: u32 = 56;

/// How many words the record takes whose first `HEAD` words these are; `None` for torn nonsense.
pub fn words(head: &[u64], capacity: usize) -> Option<usize> {
    let (key, reason, value, detail) = lengths(head);
    let bytes = key.checked_add(reason)?.checked_add(value)?.checked_add(detail)?;
    let words = bytes.div_ceil(8).checked_add(head_words(head))?;
    (head_words(head) >= HEAD && words <= capacity).then_some(words)
}

fn head_words(head: &[u64]) -> usize {
    (head[3] >> HEAD_AT) as usize
}

fn lengths(head: &[u64]) -> (usize, usize, usize, usize) {
    let half = |word: u64| ((word >> 32) as usize, (word & 0xffff_ffff) as usize);
    let (key, reason) = half(head[1]);
    let (value, detail) = half(head[2]);
    (key, reason, value, detail)
}

/// Whose record these words are; `None` when they are damaged.
pub fn key(words: &[u64]) -> Option<Vec<u8>> {
    let bytes = (words[0] == checksum(words)).then(|| bytes_of(&words[head_words(words)..]))?;
    bytes.get(..lengths(words).0).map(<[u8]>::to_vec)
}

/// Written when the store could not be asked.
pub fn unsynced(head: &[u64]) -> bool {
    head[3] & UNSYNCED != 0
}

/// A record's fixed fields, and the key up to what tells its name's family.
pub type Beginning = [u64; HEAD + 11];

/// The kind of the record's key.
pub fn kind(begins: &Beginning) -> Option<Kind> {
    after_head(begins).first().and_then(|letter| Kind::of(*letter))
}

/// The name in the record's key, or how it begins.
pub fn name(begins: &Beginning) -> Vec<u8> {
    let (key, ..) = lengths(begins);
    let bytes = after_head(begins);
    bytes[..key.min(bytes.len())].get(Key::PREFIX..).unwrap_or_default().to_vec()
}

fn after_head(begins: &Beginning) -> &[u8] {
    begins.get(head_words(begins)..).map(bytes_of).unwrap_or_default()
}

/// Reason, value and detail, when these words are whole and `key`'s.
fn parts<'a>(key: &[u8], words: &'a [u64]) -> Option<[&'a [u8]; 3]> {
    let (length, reason, value, detail) = lengths(words);
    let bytes = (words[0] == checksum(words)).then(|| bytes_of(&words[head_words(words)..]))?;
    let (found, rest) = bytes.split_at_checked(length)?;
    let (reason, rest) = rest.split_at_checked(reason)?;
    let (value, rest) = rest.split_at_checked(value)?;
    (found == key).then_some([reason, value, rest.get(..detail)?])
}

/// A value as it is kept, or opened.
pub enum Value<'a> {
    Kept(&'a [u8]),
    Opened(Plain),
}

impl Deref for Value<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Kept(bytes) => bytes,
            Self::Opened(plain) => plain.value(),
        }
    }
}

/// The value under `key`, when these words are whole and can be read.
pub fn value<'a>(key: &Key, words: &'a [u64], seal: Option<&Seal>) -> Option<Value<'a>> {
    let [_, value, _] = parts(key.bytes(), words)?;
    Some(match seal {
        None => Value::Kept(value),
        Some(seal) => Value::Opened(seal.open(key, version(words), value).ok()?),
    })
}

pub fn version(head: &[u64]) -> Version {
    Version(head[4])
}

/// The deadlines of the entry with this head; `None` without one.
pub fn timing(head: &[u64]) -> Option<Timing> {
    let moment = |at: usize| Moment::from_millis(head[at] as i64);
    (head[3] & HAS_ENTRY != 0).then(|| Timing {
        minted_at: moment(5),
        refresh_at: moment(6),
        usable_until: moment(7),
        expires_at: moment(8),
    })
}

pub fn encode(key: &Key, record: &Record, seal: Option<&Seal>) -> Vec<u64> {
    let sealed;
    let (value, detail): (&[u8], &[u8]) = match (&record.entry, seal) {
        (None, _) => (&[], &[]),
        (Some(entry), None) => (&entry.value, &entry.detail),
        (Some(entry), Some(seal)) => {
            sealed = seal.seal(key, entry.version, &entry.value, &entry.detail);
            (&sealed, &[])
        }
    };
    let key = key.bytes();
    let parts = [key, record.reason.as_bytes(), value, detail];
    let bytes: usize = parts.iter().map(|part| part.len()).sum();

    let mut words = vec![0; HEAD + bytes.div_ceil(8)];
    words[1] = (key.len() as u64) << 32 | record.reason.len() as u64;
    words[2] = (value.len() as u64) << 32 | detail.len() as u64;
    words[3] = (HEAD as u64) << HEAD_AT;
    if let Some(entry) = &record.entry {
        words[3] |= HAS_ENTRY | if entry.unsynced { UNSYNCED } else { 0 };
        words[4] = entry.version.0;
        words[5] = entry.timing.minted_at.as_millis() as u64;
        words[6] = entry.timing.refresh_at.as_millis() as u64;
        words[7] = entry.timing.usable_until.as_millis() as u64;
        words[8] = entry.timing.expires_at.as_millis() as u64;
    }
    if let Some(held) = &record.lease {
        words[9] = held.lease.secret.bits();
        words[10] = held.lease.version.0;
        words[11] = held.until.as_millis() as u64;
    }
    words[12] = record.failures;
    words[13] = record.retry_at.as_millis() as u64;
    words[14] = record.rejections;
    words[15] = record.reject_at.as_millis() as u64;
    words[16] = record.rejected_early.0;
    words[17] = record.pending_rejection.map_or(0, Digest::bits);

    for (word, bytes) in words[HEAD..].iter_mut().zip(parts.concat().chunks(8)) {
        let mut eight = [0; 8];
        eight[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_ne_bytes(eight);
    }
    words[0] = checksum(&words);
    words
}

/// The record under `key`; `None` when the words are damaged or another key's. An entry that cannot be
/// opened is none; the rest of the record stands.
pub fn decode(key: &Key, words: &[u64], seal: Option<&Seal>) -> Option<Record> {
    let [reason, value, detail] = parts(key.bytes(), words)?;
    let moment = |at: usize| Moment::from_millis(words[at] as i64);
    let open = || match seal {
        None => Some((value.to_vec().into(), detail.to_vec().into())),
        Some(seal) => seal.open(key, version(words), value).ok().map(|plain| plain.parts()),
    };
    let entry = timing(words).and_then(|timing| {
        let (value, detail) = open()?;
        let (version, unsynced) = (version(words), unsynced(words));
        Some(Entry { version, timing, unsynced, value, detail })
    });
    let lease = Secret::from_bits(words[9]).map(|secret| Held {
        lease: Lease { secret, version: Version(words[10]), given_at: 0 },
        until: moment(11),
    });
    Some(Record {
        entry,
        lease,
        failures: words[12],
        retry_at: moment(13),
        reason: String::from_utf8_lossy(reason).into_owned(),
        rejections: words[14],
        reject_at: moment(15),
        rejected_early: Version(words[16]),
        pending_rejection: Digest::from_bits(words[17]),
    })
}

pub fn checksum(words: &[u64]) -> u64 {
    xxh3_64(bytes_of(&words[1..]))
}

#[allow(unsafe_code)]
fn bytes_of(words: &[u64]) -> &[u8] {
    // SAFETY: any initialised words are readable as bytes, and the borrow keeps them alive.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), words.len() * 8) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Fingerprint, Kind};

    fn key(name: &[u8]) -> Key {
        Key::new(Kind::Token, name, Fingerprint::default()).unwrap()
    }

    fn record() -> Record {
        let at = Moment::from_millis;
        Record {
            entry: Some(Entry {
                version: Version(1_795_315_181_013_843),
                timing: Timing {
                    minted_at: at(-5),
                    refresh_at: at(10),
                    usable_until: at(20),
                    expires_at: at(30),
                },
                unsynced: true,
                value: b"token".to_vec().into(),
                detail: b"{}".to_vec().into(),
            }),
            lease: Some(Held {
                lease: Lease {
                    secret: Secret::from_bits(7).unwrap(),
                    version: Version(9),
                    given_at: 0,
                },
                until: at(40),
            }),
            failures: 2,
            retry_at: at(50),
            reason: "429 Too Many Requests".into(),
            rejections: 1,
            reject_at: at(60),
            rejected_early: Version(8),
            pending_rejection: Some(Digest::of(b"rejected")),
        }
    }

    #[test]
    fn a_record_comes_back_as_it_went() {
        let seal = Seal::parse(&[b'a'; 64]).unwrap();
        for record in [record(), Record::default()] {
            for seal in [None, Some(&seal)] {
                let words = encode(&key(b"key"), &record, seal);
                assert_eq!(super::words(&words, words.len()), Some(words.len()));
                assert_eq!(decode(&key(b"key"), &words, seal).as_ref(), Some(&record));
            }
        }
    }

    #[test]
    fn what_another_key_has_sealed_is_no_entry_and_the_back_off_stands() {
        let [ours, other] = [b'a', b'b'].map(|digit| Seal::parse(&[digit; 64]).unwrap());
        let words = encode(&key(b"key"), &record(), Some(&other));
        assert!(value(&key(b"key"), &words, Some(&ours)).is_none());
        let found = decode(&key(b"key"), &words, Some(&ours));
        assert_eq!(found, Some(Record { entry: None, ..record() }));
    }

    #[test]
    fn what_a_later_release_adds_to_a_record_is_read_past() {
        let mut words = encode(&key(b"key"), &record(), None);
        words[3] = (HEAD as u64 + 2) << HEAD_AT | words[3] & 0xff | 1 << 40;
        words.splice(HEAD..HEAD, [7, 8]);
        words[0] = checksum(&words);
        assert_eq!(super::words(&words, words.len()), Some(words.len()));
        assert_eq!(decode(&key(b"key"), &words, None), Some(record()));
        assert_eq!(super::key(&words).as_deref(), Some(key(b"key").bytes()));
    }

    #[test]
    fn another_keys_record_and_any_flipped_bit_are_refused() {
        let words = encode(&key(b"key"), &record(), None);
        assert_eq!(decode(&key(b"kez"), &words, None), None);
        for at in 0..words.len() {
            let mut damaged = words.clone();
            damaged[at] ^= 1 << (at % 64);
            if super::words(&damaged, damaged.len()) == Some(damaged.len()) {
                assert_eq!(decode(&key(b"key"), &damaged, None), None, "word {at}");
            }
        }
    }
}
