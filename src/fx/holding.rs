//! What the fleet holds under a sheet's name: the sheet that is served, and what is needed to judge
//! the next one. One document, so that all of it changes at once.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Validators;
use super::sheet::{Sheet, Stored, VERSION, Version};
use super::typical::Typical;

#[derive(Clone, Debug, PartialEq)]
pub struct Holding {
    pub sheet: Sheet,
    /// Nobody has taken a second look at it: the first sheet of one source.
    pub unconfirmed: bool,
    /// The as-of since which the rates have been these; `None` is the sheet's own.
    pub moved_at: Option<i64>,
    pub typical: Typical,
    /// A newer one that looks wrong, until it is confirmed or shown to be.
    pub quarantine: Option<Sheet>,
    /// Those of the held sheet, for its own source.
    pub validators: Validators,
    /// Sources that asked to be left alone, and until when, in Unix seconds.
    pub not_before: BTreeMap<String, i64>,
}

/// The stored form. An older release finds its sheet in it, for the names at the top are the same.
#[derive(Serialize, Deserialize)]
struct Document {
    #[serde(flatten)]
    sheet: Stored,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    unconfirmed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    moved_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Typical::is_empty")]
    typical: Typical,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quarantine: Option<Stored>,
    #[serde(default)]
    validators: Validators,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    not_before: BTreeMap<String, i64>,
}

impl Holding {
    /// The first one, from whoever brought it.
    pub fn first(sheet: Sheet) -> Self {
        Self {
            sheet,
            unconfirmed: true,
            moved_at: None,
            typical: Typical::default(),
            quarantine: None,
            validators: Validators::default(),
            not_before: BTreeMap::new(),
        }
    }

    /// For how long the source still wants to be left alone, if it does; `wall` is now, in Unix milliseconds.
    pub fn left_alone(&self, source: &str, wall: i64) -> Option<Duration> {
        let left = self.not_before.get(source)?.saturating_sub(wall.div_euclid(1000));
        u64::try_from(left).ok().filter(|left| *left > 0).map(Duration::from_secs)
    }

    /// What [`Self::to_bytes`] made, here or in another release. `Err` on one too new to be read:
    /// to the caller that is a miss.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let damaged = |_| "the stored sheet is damaged".to_owned();
        let Version { v } = serde_json::from_slice(bytes).map_err(damaged)?;
        if v > VERSION {
            return Err(format!("the stored sheet has format {v}, this release reads {VERSION}"));
        }
        let document: Document = serde_json::from_slice(bytes).map_err(damaged)?;
        Ok(Self {
            sheet: Sheet::restore(document.sheet)?,
            unconfirmed: document.unconfirmed,
            moved_at: document.moved_at,
            typical: document.typical,
            quarantine: document.quarantine.map(Sheet::restore).transpose()?,
            validators: document.validators,
            not_before: document.not_before,
        })
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let document = Document {
            sheet: self.sheet.store(),
            unconfirmed: self.unconfirmed,
            moved_at: self.moved_at,
            typical: self.typical.clone(),
            quarantine: self.quarantine.as_ref().map(Sheet::store),
            validators: self.validators.clone(),
            not_before: self.not_before.clone(),
        };
        // Maps with text keys always serialize; an empty value would be refused when read.
        serde_json::to_vec(&document).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: &str =
        r#"{"base":"EUR","timestamp":1700000000,"rates":{"USD":"1.10","JPY":160.123}}"#;

    fn sheet() -> Sheet {
        Sheet::from_json(RATES.as_bytes(), "ecb").unwrap()
    }

    #[test]
    fn what_is_held_comes_back_whole() {
        let holding = Holding {
            quarantine: Some(sheet()),
            moved_at: Some(1_699_990_000),
            typical: Typical::default().after(&sheet(), &sheet(), 1.0),
            validators: Validators { etag: Some("\"1\"".into()), last_modified: None },
            not_before: [("ecb".to_owned(), 1_700_000_100)].into(),
            ..Holding::first(sheet())
        };
        assert_eq!(Holding::from_bytes(&holding.to_bytes()), Ok(holding));
    }

    #[test]
    fn a_sheet_of_the_first_release_is_read_and_ours_has_its_names_at_the_top() {
        let first = br#"{"v":1,"base":"EUR","as_of":1700000000,"source":"ecb","rates":{"EUR":"1","USD":"1.10","JPY":"160.123"}}"#;
        let holding = Holding::from_bytes(first).unwrap();
        assert_eq!(holding.sheet, sheet());
        let ours: serde_json::Value = serde_json::from_slice(&holding.to_bytes()).unwrap();
        let theirs: serde_json::Value = serde_json::from_slice(first).unwrap();
        for (name, value) in theirs.as_object().unwrap() {
            assert_eq!(&ours[name], value, "{name}");
        }
    }

    #[test]
    fn unknown_fields_do_no_harm_and_a_newer_format_is_a_miss() {
        let text =
            r#"{"v":1,"base":"EUR","as_of":null,"source":"x","rates":{"USD":"1"},"new":[1]}"#;
        assert!(Holding::from_bytes(text.as_bytes()).is_ok());
        let newer = text.replace("\"v\":1", "\"v\":2");
        assert!(Holding::from_bytes(newer.as_bytes()).unwrap_err().contains("format 2"));
        for damaged in ["", "{", "[]", r#"{"v":1}"#, "\u{0}"] {
            assert!(Holding::from_bytes(damaged.as_bytes()).unwrap_err().contains("damaged"));
        }
    }

    #[test]
    fn a_hundred_and_seventy_currencies_with_a_quarantine_fit_twice_into_a_slot() {
        let codes = (b'A'..=b'Z').flat_map(|a| (b'A'..=b'G').map(move |b| [a, b, b'X']));
        let rates = codes
            .take(170)
            .enumerate()
            .map(|(n, code)| format!("{:?}:\"{}.123456\"", String::from_utf8_lossy(&code), n + 1));
        let rates: Vec<_> = rates.collect();
        let text =
            format!(r#"{{"base":"EUR","timestamp":1700000000,"rates":{{{}}}}}"#, rates.join(","));
        let sheet = Sheet::from_json(text.as_bytes(), "openexchangerates").unwrap();
        let holding = Holding {
            typical: Typical::default().after(&sheet, &sheet, 1.0),
            quarantine: Some(sheet.clone()),
            ..Holding::first(sheet)
        };
        assert!(holding.to_bytes().len() < 12 << 10, "{}", holding.to_bytes().len());
    }
}
