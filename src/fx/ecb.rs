//! The ECB's daily document, `gesmes:Envelope/Cube/Cube[time]/Cube[currency][rate]`, as a sheet.
//!
//! - A hostile document costs no more than its length: no entity is ever expanded, and one that
//!   declares a document type is refused.
//! - A truncated document is refused, also where it ends between two rates.
//! - The file of the last 90 days has the same form: its newest day is taken, wherever it stands.
//!
//! Prefixes do not matter, for the ECB's own mirrors differ in them. Elements that are not `Cube`
//! are passed over.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use time::{Date, Month};

use super::{MAX_DOCUMENT, Sheet};

/// The ECB's root has two. Looking for one that is there twice takes time by their square.
const MAX_ATTRIBUTES: usize = 16;

impl Sheet {
    /// The newest day of a document of euro reference rates, as of 14:15 UTC of that day: the ECB
    /// names the day only, and publishes at about 16:00 in Frankfurt.
    /// The error is an `InvalidValue` sentence.
    pub fn from_ecb_xml(document: &[u8], source: &str) -> Result<Self, String> {
        if document.len() > MAX_DOCUMENT {
            return Err(format!(
                "the ECB's document has {} bytes, expected {MAX_DOCUMENT} at most: use the daily one",
                document.len()
            ));
        }
        // The reader strips a byte order mark.
        let text = std::str::from_utf8(document)
            .map_err(|_| "the ECB's document is not in UTF-8, as the ECB sends it")?;
        let Day { as_of, rates, .. } = newest_day(text)?;
        Self::build("EUR", Some(as_of), source.into(), rates)
    }
}

struct Day {
    as_of: i64,
    /// Of its element; what is deeper belongs to it.
    depth: usize,
    rates: Vec<(String, String)>,
}

fn newest_day(text: &str) -> Result<Day, String> {
    let mut reader = Reader::from_str(text);
    let mut walk = Walk::default();
    loop {
        let event = reader.read_event().map_err(|_| {
            format!("the ECB's document is not well-formed XML at byte {}", reader.error_position())
        })?;
        match event {
            Event::Start(tag) => walk.enter(&tag)?,
            Event::End(_) => walk.leave()?,
            Event::Empty(tag) => {
                walk.enter(&tag)?;
                walk.leave()?;
            }
            Event::DocType(_) => {
                return Err("the ECB's document declares a document type (DTD), which the ECB's \
                            never does: it is not read"
                    .into());
            }
            Event::Text(text) if walk.depth == 0 && text.trim_ascii().is_empty() => {}
            Event::Text(_) | Event::CData(_) | Event::GeneralRef(_) if walk.depth == 0 => {
                return Err("the ECB's document has text outside of its root".into());
            }
            Event::Eof => return walk.end(),
            // Text and references to entities mean nothing here, and are not looked into.
            _ => {}
        }
    }
}

#[derive(Default)]
struct Walk {
    depth: usize,
    rooted: bool,
    day: Option<Day>,
    newest: Option<Day>,
}

impl Walk {
    fn enter(&mut self, tag: &BytesStart<'_>) -> Result<(), String> {
        let name = tag.local_name();
        if self.depth == 0 && (self.rooted || name.as_ref() != "Envelope") {
            let name: String = name.as_ref().chars().take(20).collect();
            return Err(format!(
                "the document has {name:?} at its root, expected one gesmes:Envelope as the ECB \
                 sends it"
            ));
        }
        self.rooted = true;
        self.depth += 1;
        if name.as_ref() == "Cube" { self.cube(tag) } else { Ok(()) }
    }

    fn cube(&mut self, tag: &BytesStart<'_>) -> Result<(), String> {
        let [mut time, mut currency, mut rate] = [const { None::<String> }; 3];
        for (index, attribute) in tag.attributes().enumerate() {
            let attribute = attribute.ok().filter(|_| index < MAX_ATTRIBUTES).ok_or(
                "the ECB's document has a Cube with malformed attributes, or too many of them",
            )?;
            let known = match attribute.key.as_ref() {
                "time" => &mut time,
                "currency" => &mut currency,
                "rate" => &mut rate,
                _ => continue,
            };
            // As it stands: neither a date, nor a code, nor a number has an entity in it.
            *known = Some(attribute.value.into_owned());
        }
        match (time, currency, rate) {
            (None, None, None) => Ok(()),
            (Some(date), None, None) => self.open(&date),
            (None, Some(currency), Some(rate)) => {
                let day = self.day.as_mut().ok_or(
                    "the ECB's document has a rate outside of a day, expected \
                     Cube time='2026-11-24' around it",
                )?;
                day.rates.push((currency, rate));
                Ok(())
            }
            _ => Err("the ECB's document has a Cube of another form, expected one with a time, \
                      or with a currency and a rate"
                .into()),
        }
    }

    fn open(&mut self, date: &str) -> Result<(), String> {
        if self.day.is_some() {
            return Err("the ECB's document has a day within a day".into());
        }
        let as_of = as_of(date).ok_or_else(|| {
            let date: String = date.chars().take(20).collect();
            format!("the ECB's document has the time {date:?}, expected a day such as 2026-11-24")
        })?;
        self.day = Some(Day { as_of, depth: self.depth, rates: Vec::new() });
        Ok(())
    }

    fn leave(&mut self) -> Result<(), String> {
        self.depth = self.depth.saturating_sub(1);
        let Some(day) = self.day.take_if(|day| day.depth > self.depth) else { return Ok(()) };
        match &self.newest {
            Some(known) if known.as_of == day.as_of => {
                return Err("the ECB's document has the same day twice".into());
            }
            Some(known) if known.as_of > day.as_of => {}
            _ => self.newest = Some(day),
        }
        Ok(())
    }

    fn end(self) -> Result<Day, String> {
        if !self.rooted || self.depth > 0 {
            return Err("the ECB's document is incomplete: it ends before its root does".into());
        }
        self.newest.ok_or_else(|| {
            "the ECB's document has no rates, expected Cube time='2026-11-24' with one for each \
             currency"
                .into()
        })
    }
}

pub(super) fn as_of(date: &str) -> Option<i64> {
    let mut parts = date.split('-');
    let mut number = |length: usize| {
        let part = parts.next()?;
        let digits = part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse::<u16>().ok().filter(|_| digits)
    };
    let (year, month, day) = (number(4)?, number(2)?, number(2)?);
    if parts.next().is_some() {
        return None;
    }
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let day = u8::try_from(day).ok()?;
    let date = Date::from_calendar_date(year.into(), month, day).ok()?;
    Some(date.with_hms(14, 15, 0).ok()?.assume_utc().unix_timestamp())
}

#[cfg(test)]
mod tests;
