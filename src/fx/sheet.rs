//! All rates of one source at one time. A cross rate comes from one sheet, never from two.
//!
//! A sheet that exists is sound: its rates are positive, exact, and contain its base at 1. Whether
//! it may replace an older one is not decided here.

use std::collections::BTreeMap;
use std::fmt;

use rust_decimal::Decimal;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Currency, Ratio, ecb, quoted};
use crate::error::Error;
use crate::fault;

/// How many units of each currency one unit of the base buys.
#[derive(Clone, Debug, PartialEq)]
pub struct Sheet {
    base: Currency,
    as_of: Option<i64>,
    source: String,
    rates: BTreeMap<Currency, Decimal>,
}

/// The stored form. Rates are text, so that no reader in any language makes floats of them.
#[derive(Serialize, Deserialize)]
pub(super) struct Stored {
    v: u32,
    base: String,
    as_of: Option<i64>,
    source: String,
    rates: BTreeMap<String, String>,
}

/// All that is read of a stored sheet before it is known who can read the rest.
#[derive(Deserialize)]
pub(super) struct Version {
    pub v: u32,
}

pub(super) const VERSION: u32 = 1;

/// An as-of beyond this (the year 5138) is in milliseconds.
const LAST_SECOND: i64 = 100_000_000_000;

/// A JSON object of which no name is lost: one that stands twice is for whoever reads it to refuse.
struct Pairs(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Pairs, M::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// The provider's own words, where its answer is an error.
fn refused(fields: &BTreeMap<String, Box<RawValue>>) -> Result<(), String> {
    let values = fields
        .iter()
        .filter_map(|(name, raw)| Some((name.clone(), serde_json::from_str(raw.get()).ok()?)));
    match fault::of(&values.collect()) {
        Some(words) => Err(format!("the provider's answer is an error, {words}")),
        None if fields.get("success").is_some_and(|raw| raw.get() == "false") => {
            Err("the provider's answer says \"success\": false".into())
        }
        None => Ok(()),
    }
}

impl Sheet {
    /// The document of a source whose kind is not known: XML is the ECB's, see
    /// [`Self::from_ecb_xml`], and anything else JSON, see [`Self::from_json`].
    pub fn from_text(document: &[u8], source: &str) -> Result<Self, String> {
        if without_mark(document).trim_ascii_start().starts_with(b"<") {
            Self::from_ecb_xml(document, source)
        } else {
            Self::from_json(document, source)
        }
    }

    /// A response in the Open Exchange Rates shape: `{base, rates: {code: number or string},
    /// timestamp?}` with `timestamp` in seconds, or else `date` as a day. Numbers are taken from their text.
    /// The error is an `InvalidValue` sentence.
    pub fn from_json(response: &[u8], source: &str) -> Result<Self, String> {
        let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(without_mark(
            response,
        ))
        .map_err(|_| "the sheet is not a JSON object, expected {base, rates, timestamp?}")?;
        let given = |name| fields.get(name).map(|raw| text_of(raw)).filter(|text| text != "null");
        if given("success").is_some_and(|said| said == "false") || !fields.contains_key("rates") {
            refused(&fields)?;
        }
        if let Some(amount) =
            given("amount").filter(|amount| positive(amount) != Some(Decimal::ONE))
        {
            return Err(format!(
                "the sheet's rates are for an \"amount\" of {}, expected for 1: ask without an amount",
                quoted(&amount)
            ));
        }
        let base = fields.get("base").ok_or_else(|| {
            let names: Vec<_> = fields.keys().take(4).map(|name| quoted(name)).collect();
            let names = if names.is_empty() { "nothing".into() } else { names.join(", ") };
            format!("the sheet has no \"base\", expected its currency; it has {names}")
        })?;
        let rates = fields.get("rates").ok_or("the sheet has no \"rates\"")?;
        let Pairs(rates) = serde_json::from_str(rates.get())
            .map_err(|_| "the sheet's \"rates\" are no map, expected a number for each currency")?;
        let as_of = match given("timestamp") {
            // As the ECB's own mirrors say it: a day, which means its time of day, too.
            None => match given("date") {
                None => None,
                Some(day) => Some(ecb::as_of(&day).ok_or_else(|| {
                    format!("the sheet's \"date\" is {}, expected as in 2026-11-24", quoted(&day))
                })?),
            },
            Some(text) => Some(text.parse().map_err(|_| {
                format!("the sheet's \"timestamp\" is {}, expected whole seconds", quoted(&text))
            })?),
        };
        // Null is how some say that they have none.
        let rates = rates.into_iter().map(|(code, raw)| (code, text_of(&raw)));
        let rates = rates.filter(|(_, text)| text != "null");
        Self::build(&text_of(base), as_of, source.into(), rates)
    }

    /// Whether a field of a response counts.
    pub fn reads(name: &str) -> bool {
        ["base", "rates", "timestamp", "date", "success", "amount", "error"].contains(&name)
    }

    /// [`Self::from_json`] for a PHP array. A float counts as the shortest decimal that means it,
    /// which is what its author wrote.
    pub fn from_value(response: &Value, source: &str) -> Result<Self, String> {
        Self::from_json(response.to_string().as_bytes(), source)
    }

    pub(super) fn restore(stored: Stored) -> Result<Self, String> {
        Self::build(&stored.base, stored.as_of, stored.source, stored.rates)
    }

    pub(super) fn store(&self) -> Stored {
        let text = |(code, rate): (&Currency, &Decimal)| (code.to_string(), rate.to_string());
        Stored {
            v: VERSION,
            base: self.base.to_string(),
            as_of: self.as_of,
            source: self.source.clone(),
            rates: self.rates.iter().map(text).collect(),
        }
    }

    /// Of rates as a source spells them. A currency may be given once.
    pub(super) fn build(
        base: &str,
        as_of: Option<i64>,
        source: String,
        given: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, String> {
        let base = Currency::parse(base).map_err(|why| format!("the sheet's \"base\": {why}"))?;
        if as_of.is_some_and(|at| !(1..LAST_SECOND).contains(&at)) {
            return Err("the sheet's \"timestamp\" is not in seconds since 1970".into());
        }
        let mut rates = BTreeMap::new();
        for (code, text) in given {
            let code = Currency::parse(&code).map_err(|why| format!("the sheet's rates: {why}"))?;
            let rate = positive(&text).ok_or_else(|| {
                format!(
                    "the sheet's rate of {code} is {}, expected a decimal number above zero with \
                     at most 28 digits",
                    quoted(&text)
                )
            })?;
            if rates.insert(code, rate).is_some() {
                return Err(format!("the sheet has more than one rate of {code}"));
            }
        }
        match rates.insert(base, Decimal::ONE) {
            Some(rate) if rate != Decimal::ONE => {
                Err(format!("the sheet's rate of its own base {base} is {rate}, expected 1"))
            }
            _ if rates.len() < 2 => {
                Err(format!("the sheet has no rate besides its base {base}, expected one or more"))
            }
            _ => Ok(Self { base, as_of, source, rates }),
        }
    }

    pub fn base(&self) -> Currency {
        self.base
    }

    /// Seconds since 1970; `None` when the source did not say.
    pub fn as_of(&self) -> Option<i64> {
        self.as_of
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// By currency, the base at 1 among them.
    pub fn rates(&self) -> &BTreeMap<Currency, Decimal> {
        &self.rates
    }

    /// How many `to` one `from` buys, to 28 decimal places. Exact when `from` is the base.
    /// Fails with [`Error::RateUnavailable`] for a currency that is not in the sheet.
    pub fn cross(&self, from: Currency, to: Currency) -> Result<Decimal, Error> {
        if from == to {
            return Ok(Decimal::ONE);
        }
        let ratio = self.ratio(from, to)?;
        // A rate of the sheet has its source's digits; an inexact quotient may come with a zero at its end.
        let tidy = |rate: Decimal| if from == self.base { rate } else { rate.normalize() };
        let rate = ratio.to.checked_div(ratio.from).map(tidy);
        rate.filter(|rate| !rate.is_zero()).ok_or_else(|| {
            Error::RateUnavailable(format!(
                "the rate from {from} to {to} does not fit 28 digits: convert by way of {}",
                self.base
            ))
        })
    }

    /// How many `to` one `from` buys, exactly: for amounts. Fails with [`Error::RateUnavailable`] for a
    /// currency that is not in the sheet.
    pub fn ratio(&self, from: Currency, to: Currency) -> Result<Ratio, Error> {
        if from == to {
            return Ok(Ratio::ONE);
        }
        Ok(Ratio { to: self.rate(to)?, from: self.rate(from)? })
    }

    /// How many of each currency one `base` buys: [`Self::cross`] for all of them.
    pub fn rebased(&self, base: Currency) -> Result<BTreeMap<Currency, Decimal>, Error> {
        self.rate(base)?;
        self.rates.keys().map(|code| Ok((*code, self.cross(base, *code)?))).collect()
    }

    fn rate(&self, code: Currency) -> Result<Decimal, Error> {
        self.rates.get(&code).copied().ok_or_else(|| {
            Error::RateUnavailable(format!(
                "there is no rate for {code} in the sheet of {} (base {}, {} currencies): use a \
                 source that has it",
                self.source,
                self.base,
                self.rates.len()
            ))
        })
    }
}

/// The byte order mark that some editors put before UTF-8 means nothing.
fn without_mark(document: &[u8]) -> &[u8] {
    document.strip_prefix(b"\xef\xbb\xbf").unwrap_or(document)
}

/// What a JSON value says: the content of a string, or the text as it stands.
fn text_of(raw: &RawValue) -> String {
    serde_json::from_str(raw.get()).unwrap_or_else(|_| raw.get().into())
}

/// A number in JSON's own form, kept exactly or not at all: no sign, no thousands separator, no
/// NaN, and no rounding.
fn positive(text: &str) -> Option<Decimal> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let power = exponent.map(|power| power.strip_prefix(['+', '-']).unwrap_or(power));
    if !digits(whole) || !digits(fraction) || !power.is_none_or(digits) {
        return None;
    }
    let exact = Decimal::from_str_exact(mantissa).ok()?;
    let rate = match exponent {
        // `from_scientific` alone would round a long mantissa.
        Some(_) => Decimal::from_scientific(text).ok()?,
        None => exact,
    };
    Some(rate).filter(|rate| rate.is_sign_positive() && !rate.is_zero())
}

#[cfg(test)]
mod tests;
