//! An entry's value and detail as one JSON text: `{"v":1,"value":"…","detail":{…}}`.
//!
//! Timing and version are fields of the row, for scripts to read; scripts never look in here.
//! Unknown fields are ignored, a newer major version is no value, and so is anything unreadable:
//! during a rolling upgrade the old release mints again rather than hand out what it misreads.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

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
}

/// `detail` is kept byte for byte when it is JSON, and left out when it is not.
pub fn encode(value: &[u8], detail: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(value).ok().map(str::to_owned);
    let base64 = text.is_none().then(|| STANDARD.encode(value));
    let detail = serde_json::from_slice(detail).ok();
    // Strings and a checked raw value always serialise; an empty body would read as no value.
    serde_json::to_vec(&Envelope { v: MAJOR, value: text, base64, detail }).unwrap_or_default()
}

/// Value and detail; `None` when there is nothing this release can read.
pub fn decode(body: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    // The major version first: a newer one may have changed the type of any field.
    if serde_json::from_slice::<Major>(body).ok()?.v != MAJOR {
        return None;
    }
    let envelope: Envelope = serde_json::from_slice(body).ok()?;
    let value = match (envelope.value, envelope.base64) {
        (Some(text), _) => text.into_bytes(),
        (None, Some(base64)) => STANDARD.decode(base64).ok()?,
        (None, None) => return None,
    };
    Some((value, envelope.detail.map(|raw| raw.get().into()).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_and_any_detail_come_back_unchanged() {
        let detail = br#"{"z":1.50,"a":{"deep":[9007199254740993]}}"#;
        for value in [&b"plain"[..], b"", "\"\u{1f511}\n".as_bytes(), &[0xff, 0, 0x80]] {
            assert_eq!(decode(&encode(value, detail)), Some((value.into(), detail.into())));
        }
        assert_eq!(decode(&encode(b"x", b"")), Some((b"x".into(), vec![])));
    }

    #[test]
    fn a_newer_major_version_is_no_value() {
        assert_eq!(decode(br#"{"v":2,"value":{"sealed":true}}"#), None);
        assert_eq!(decode(br#"{"v":2,"value":"x"}"#), None);
    }

    #[test]
    fn an_unknown_field_of_this_major_version_does_no_harm() {
        assert_eq!(decode(br#"{"new":[1],"v":1,"value":"x"}"#), Some((b"x".into(), vec![])));
    }

    #[test]
    fn garbage_is_no_value() {
        for body in [&b""[..], b"{", b"null", b"[]", b"\xff", br#"{"v":"1"}"#, br#"{"v":1}"#] {
            assert_eq!(decode(body), None, "{body:?}");
        }
        assert_eq!(decode(br#"{"v":1,"base64":"*"}"#), None);
    }
}
