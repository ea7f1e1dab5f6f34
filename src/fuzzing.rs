#![allow(clippy::panic, clippy::unwrap_used)] // A property fails by a panic, as a test does.
//! One property for each parser of foreign bytes. The fuzz targets in `fuzz/` feed a property with the inputs
//! that a fuzzer makes up; the tests below feed it with the inputs in `fuzz/seeds` and `fuzz/regressions`. Only
//! tests and fuzz targets compile this module; see `docs/FUZZING.md`.
//!
//! A property takes bytes, panics when a promise is broken, and returns whether the parser accepted the bytes.

use crate::entry::{Fingerprint, Key, Kind, MAX_NAME, Version};
use crate::error::redact;
use crate::journal;
use crate::seal::{Seal, Unreadable};
use crate::store::MAX_REASON;

pub use crate::config::fuzzing::{dsn, settings};
pub use crate::fx::fuzzing::{amount, ecb_xml, json_sheet, sheet_state, snapshot_file};
#[cfg(feature = "host")]
pub use crate::host::fuzzing::{table_file, table_record, table_words};
#[cfg(feature = "http")]
pub use crate::http::fuzzing::http_answer;
pub use crate::metrics::fuzzing::counters;
#[cfg(feature = "redis")]
pub use crate::redis::fuzzing::{envelope, redis_reply, redis_wire};
pub use crate::token::fuzzing::{jwt, token_response};

/// The secret in seeds and properties. No message contains it unless it leaks.
pub(crate) const SECRET: &str = "hunter2";

/// An error message is one line of bounded length, and does not contain the secret.
pub(crate) fn check_sentence(sentence: &str) {
    assert!(!sentence.contains(SECRET), "shows a secret: {sentence:?}");
    assert!(!sentence.is_empty() && sentence.len() <= 600, "{} bytes", sentence.len());
    assert!(!sentence.contains(char::is_control), "more than a line: {sentence:?}");
}

/// The first lines of an input, the last one with all the rest; a missing one is empty.
pub(crate) fn lines<const N: usize>(bytes: &[u8]) -> [&[u8]; N] {
    let mut lines = bytes.splitn(N, |byte| *byte == b'\n');
    std::array::from_fn(|_| lines.next().unwrap_or_default())
}

pub(crate) fn key_named(name: &[u8]) -> Key {
    Key::new(Kind::Token, name, Fingerprint::default()).unwrap()
}

/// Two seals with different keys.
pub(crate) fn seals() -> [Seal; 2] {
    [b'a', b'b'].map(|digit| Seal::parse(&[digit; 64]).unwrap())
}

/// A key as the change log, Redis and the host table write it.
///
/// - A key that was parsed is written as the same bytes: no two texts mean one key.
/// - Its name keeps the limits of a name, and its text has only characters of a Redis key.
pub fn key(bytes: &[u8]) -> bool {
    let text = std::str::from_utf8(bytes).ok();
    let (by_bytes, by_text) = (Key::from_bytes(bytes), text.and_then(Key::from_text));
    if let Some(key) = &by_bytes {
        assert_eq!(key.bytes(), bytes);
    }
    if let Some(key) = &by_text {
        assert_eq!(key.text().as_bytes(), bytes);
    }
    for key in by_bytes.iter().chain(&by_text) {
        assert_eq!(Key::from_text(&key.text()).as_ref(), Some(key));
        assert_eq!(Key::from_bytes(key.bytes()).as_ref(), Some(key));
        assert!((1..=MAX_NAME).contains(&key.name().len()));
        assert!(!key.name().iter().any(u8::is_ascii_control));
        assert!(key.text().bytes().all(|byte| byte.is_ascii_graphic() && !b"{}".contains(&byte)));
        assert!(!key.shown().is_empty());
    }
    by_bytes.is_some() || by_text.is_some()
}

/// The file of sealing keys, and a sealed value.
///
/// - An error message shows nothing of the file.
/// - A sealed value opens for its own key and version, and for no other.
/// - Bytes that nobody has sealed do not open, nor does a sealed value with one byte changed.
pub fn sealed(bytes: &[u8]) -> bool {
    let file = Seal::parse(bytes);
    match &file {
        Ok(seal) => check_seal(seal, bytes),
        Err(why) => check_sentence(why),
    }
    let [ours, other] = seals();
    let (key, version) = (key_named(b"crm"), Version(7));
    assert!(ours.open(&key, version, bytes).is_err(), "opened what nobody has sealed");
    check_seal(&ours, bytes);
    let sealed = ours.seal(&key, version, bytes, b"{}");
    assert_eq!(other.open(&key, version, &sealed), Err(Unreadable::Key(ours.id())));
    file.is_ok()
}

fn check_seal(seal: &Seal, bytes: &[u8]) {
    let (key, version) = (key_named(b"crm"), Version(7));
    let (value, detail) = bytes.split_at(bytes.len() / 2);
    let sealed = seal.seal(&key, version, value, detail);
    let opened = seal.open(&key, version, &sealed);
    assert!(opened.is_ok_and(|plain| plain.value() == value && plain.detail() == detail));
    assert_eq!(seal.open(&key, version.next(), &sealed), Err(Unreadable::Damaged));
    assert_eq!(seal.open(&key_named(b"crn"), version, &sealed), Err(Unreadable::Damaged));
    // Which byte is changed, and how, is the input's choice.
    let at = bytes.iter().fold(0, |sum: usize, byte| sum * 31 % 65_521 + usize::from(*byte));
    let mut tampered = sealed;
    let at = at % tampered.len();
    tampered[at] ^= bytes.first().copied().unwrap_or_default().max(1);
    assert!(seal.open(&key, version, &tampered).is_err(), "byte {at} was changed");
}

/// The message of a foreign exception, as callers, the fleet and the log get it.
///
/// - It is one line of at most [`MAX_REASON`] bytes.
/// - The password in an address and the word after `password=` are removed, whatever is around them.
/// - A line of the log is one line of bounded length.
pub fn reason(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let reason = redact(&text);
    assert!(reason.len() <= MAX_REASON && !reason.contains(char::is_control), "{reason:?}");
    if !text.contains(SECRET) {
        let [before, after] = lines::<2>(bytes).map(String::from_utf8_lossy);
        for with in [
            format!("{before}password={SECRET} {after}"),
            format!("{before} https://user:{SECRET}@host.example/{after}"),
        ] {
            assert!(!redact(&with).contains(SECRET), "{with:?} is told as {:?}", redact(&with));
        }
    }
    let line = journal::line(log::Level::Warn, &text);
    assert!(line.len() <= 2_100 && !line.contains(char::is_control), "{line:?}");
    reason == text
}

#[cfg(all(test, feature = "host", feature = "redis", feature = "http"))]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    fn folder(of: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(of)
    }

    /// The names in a folder, without their extension. Empty where there is no folder.
    fn names(folder: &Path) -> BTreeSet<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned())).collect()
    }

    /// Each file of the folder, with whether its bytes were taken.
    fn replayed(folder: &Path, property: fn(&[u8]) -> bool) -> Vec<(PathBuf, bool)> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .map(|entry| {
                // Shown only when the property fails.
                println!("{}", entry.path().display());
                (entry.path(), property(&fs::read(entry.path()).unwrap()))
            })
            .collect()
    }

    macro_rules! replayed {
        ($($target:ident),* $(,)?) => {
            const TARGETS: &[&str] = &[$(stringify!($target)),*];

            mod every_kept_input_keeps_the_promises_of {
                $(
                    #[test]
                    fn $target() {
                        let name = stringify!($target);
                        let seeds = super::folder("seeds").join(name);
                        let seeds = super::replayed(&seeds, crate::fuzzing::$target);
                        // A property that never meets both is not put to the test.
                        assert!(seeds.iter().any(|(_, taken)| *taken), "no seed of {name} is taken");
                        assert!(seeds.iter().any(|(_, taken)| !taken), "no seed of {name} is refused");
                        super::replayed(&super::folder("regressions").join(name), crate::fuzzing::$target);
                    }
                )*
            }
        };
    }

    replayed!(
        amount,
        counters,
        dsn,
        ecb_xml,
        envelope,
        http_answer,
        json_sheet,
        jwt,
        key,
        reason,
        redis_reply,
        redis_wire,
        sealed,
        settings,
        sheet_state,
        snapshot_file,
        table_file,
        table_record,
        table_words,
        token_response,
    );

    #[test]
    fn every_fuzz_target_has_seeds_and_is_replayed() {
        let replayed: BTreeSet<String> = TARGETS.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(names(&folder("fuzz_targets")), replayed);
        assert_eq!(names(&folder("seeds")), replayed);
        assert!(names(&folder("regressions")).is_subset(&replayed));
        let manifest = fs::read_to_string(folder("Cargo.toml")).unwrap();
        for name in replayed {
            let target =
                fs::read_to_string(folder("fuzz_targets").join(format!("{name}.rs"))).unwrap();
            assert!(target.contains(&format!("fuzzing::{name}(")), "{name} feeds its own property");
            assert!(manifest.contains(&format!("\"fuzz_targets/{name}.rs\"")), "{name} is built");
        }
    }
}
