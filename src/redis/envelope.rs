//! An entry's value and detail as one JSON text: `{"v":1,"value":"…","detail":{…}}`, or, where values
//! are sealed, `{"v":1,"sealed":"…"}`.
//!
//! Timing and version are fields of the row, for scripts to read; scripts never look in here.
//! Unknown fields are ignored, a newer major version is no value, and so is anything unreadable:
//! during a rolling upgrade the old release mints again rather than hand out what it misreads.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::entry::{Entry, Key, Version};
use crate::seal::{self, KeyId, Parts, Seal};

const MAJOR: u64 = 1;

#[derive(Deserialize)]
struct Major {
    v: u64,
}

#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    v: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    /// The value when it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    detail: Option<&'a RawValue>,
    /// Value and detail, as [`Seal`] makes them of both, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealed: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Another release's, damaged, or not sealed where everything is: as good as not there.
    NoValue,
    /// A value for those who have this key. We are not of them, and would only be in their way.
    Sealed(KeyId),
}

/// `detail` is kept byte for byte when it is JSON, and left out when it is not.
pub fn encode(key: &Key, entry: &Entry, seal: Option<&Seal>) -> Vec<u8> {
    let mut envelope = Envelope { v: MAJOR, value: None, base64: None, detail: None, sealed: None };
    if let Some(seal) = seal {
        let sealed = seal.seal(key, entry.version, &entry.value, &entry.detail);
        envelope.sealed = Some(STANDARD.encode(sealed));
    } else {
        match std::str::from_utf8(&entry.value) {
            Ok(text) => envelope.value = Some(text.to_owned()),
            Err(_) => envelope.base64 = Some(STANDARD.encode(&*entry.value)),
        }
        envelope.detail = serde_json::from_slice(&entry.detail).ok();
    }
    // Strings and a checked raw value always serialise; an empty body would read as no value.
    serde_json::to_vec(&envelope).unwrap_or_default()
}

pub fn decode(
    key: &Key,
    version: Version,
    body: &[u8],
    seal: Option<&Seal>,
) -> Result<Parts, Unreadable> {
    let Some(envelope) = read(body) else { return Err(Unreadable::NoValue) };
    let sealed = envelope.sealed.as_ref().and_then(|text| STANDARD.decode(text).ok());
    match (sealed, seal) {
        (Some(sealed), Some(seal)) => {
            let opened = seal.open(key, version, &sealed).map_err(|error| match error {
                seal::Unreadable::Key(id) => Unreadable::Sealed(id),
                seal::Unreadable::Damaged => Unreadable::NoValue,
            });
            opened.map(|plain| plain.parts())
        }
        (Some(sealed), None) => {
            Err(seal::sealed_with(&sealed).map_or(Unreadable::NoValue, Unreadable::Sealed))
        }
        // Anybody who can write to Redis can write this.
        (None, Some(seal)) => {
            seal.count_unreadable();
            Err(Unreadable::NoValue)
        }
        (None, None) => in_the_clear(envelope).ok_or(Unreadable::NoValue),
    }
}

fn read(body: &[u8]) -> Option<Envelope<'_>> {
    // The major version first: a newer one may have changed the type of any field.
    if serde_json::from_slice::<Major>(body).ok()?.v != MAJOR {
        return None;
    }
    serde_json::from_slice(body).ok()
}

fn in_the_clear(envelope: Envelope<'_>) -> Option<Parts> {
    let value = match (envelope.value, envelope.base64) {
        (Some(text), _) => text.into_bytes(),
        (None, Some(base64)) => STANDARD.decode(base64).ok()?,
        (None, None) => return None,
    };
    let detail: Vec<u8> = envelope.detail.map(|raw| raw.get().into()).unwrap_or_default();
    Some((value.into(), detail.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Moment;
    use crate::entry::{Fingerprint, Kind, Timing, TokenPolicy};
    use std::time::Duration;

    const V: Version = Version(7);

    fn key() -> Key {
        Key::new(Kind::Token, b"crm", Fingerprint::default()).unwrap()
    }

    fn entry(value: &[u8], detail: &[u8]) -> Entry {
        let policy = TokenPolicy { margin: Duration::ZERO, refresh_ratio: 0.8 };
        let (timing, _) = Timing::token(Moment::default(), Duration::from_secs(60), policy);
        let (value, detail) = (value.to_vec().into(), detail.to_vec().into());
        Entry { version: V, timing, unsynced: false, value, detail }
    }

    fn plain(value: &[u8], detail: &[u8]) -> Parts {
        (value.to_vec().into(), detail.to_vec().into())
    }

    fn seal(digit: u8) -> Seal {
        Seal::parse(&[digit; 64]).unwrap()
    }

    #[test]
    fn any_bytes_and_any_detail_come_back_unchanged() {
        let detail = br#"{"z":1.50,"a":{"deep":[9007199254740993]}}"#;
        let ours = seal(b'a');
        for value in [&b"plain"[..], b"", "\"\u{1f511}\n".as_bytes(), &[0xff, 0, 0x80]] {
            for seal in [None, Some(&ours)] {
                let body = encode(&key(), &entry(value, detail), seal);
                assert_eq!(decode(&key(), V, &body, seal), Ok(plain(value, detail)));
            }
        }
        let body = encode(&key(), &entry(b"x", b""), None);
        assert_eq!(decode(&key(), V, &body, None), Ok(plain(b"x", b"")));
    }

    #[test]
    fn a_newer_major_version_is_no_value() {
        for body in [&br#"{"v":2,"value":{"sealed":true}}"#[..], br#"{"v":2,"value":"x"}"#] {
            assert_eq!(decode(&key(), V, body, None), Err(Unreadable::NoValue));
        }
    }

    #[test]
    fn an_unknown_field_of_this_major_version_does_no_harm() {
        let body = br#"{"new":[1],"v":1,"value":"x"}"#;
        assert_eq!(decode(&key(), V, body, None), Ok(plain(b"x", b"")));
    }

    #[test]
    fn garbage_is_no_value() {
        let bodies = [&b""[..], b"{", b"null", b"[]", b"\xff", br#"{"v":"1"}"#, br#"{"v":1}"#];
        for body in bodies.into_iter().chain([&br#"{"v":1,"base64":"*"}"#[..]]) {
            for seal in [None, Some(&seal(b'a'))] {
                assert_eq!(decode(&key(), V, body, seal), Err(Unreadable::NoValue), "{body:?}");
            }
        }
    }

    #[test]
    fn a_sealed_value_is_for_those_who_have_its_key() {
        let [ours, other] = [b'a', b'b'].map(seal);
        let body = encode(&key(), &entry(b"token", b"{}"), Some(&ours));
        assert!(!String::from_utf8_lossy(&body).contains("token"));
        let sealed = Err(Unreadable::Sealed(ours.id()));
        assert_eq!(decode(&key(), V, &body, None), sealed);
        assert_eq!(decode(&key(), V, &body, Some(&other)), sealed);
        assert_eq!(other.take_unreadable(), 1);
    }

    #[test]
    fn who_seals_takes_nothing_that_is_moved_or_in_the_clear() {
        let ours = seal(b'a');
        let sealed = encode(&key(), &entry(b"token", b"{}"), Some(&ours));
        assert_eq!(decode(&key(), V.next(), &sealed, Some(&ours)), Err(Unreadable::NoValue));
        let clear = encode(&key(), &entry(b"token", b"{}"), None);
        assert_eq!(decode(&key(), V, &clear, Some(&ours)), Err(Unreadable::NoValue));
        assert_eq!(ours.take_unreadable(), 2);
    }
}
