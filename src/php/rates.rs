//! `fx_rate`, past the pure hit. A sheet is one entry: every rate comes from one sheet.

use std::str::FromStr;

use ext_php_rs::types::{ZendHashTable, ZendStr, Zval};
use ext_php_rs::zend::ExecuteData;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;
use serde_json::Value;

use super::exceptions::Stop;
use super::flights::{Flight, Minted};
use super::runtime::Runtime;
use super::{args, counters, memo, options, runtime};
use crate::clock::Moment;
use crate::entry::{Detail, Fingerprint, Key, Kind, Timing};
use crate::error::Error;
use crate::token::Answer;

/// `fx_rate(string $from, string $to, ?callable $fetch = null, array $options = []): float`
pub fn rate(ex: &ExecuteData) -> Result<Zval, Stop> {
    let call = args::pair(ex)?;
    let plain = call.options.is_none_or(ZendHashTable::is_empty);
    if plain && let Some(rate) = memo::rate(call.from, call.to) {
        counters::rate_hit();
        return Ok(double(rate));
    }
    let (from, to) = (code(call.from, 1)?, code(call.to, 2)?);
    let sheet = options::sheet(call.options, 4)?;
    if from == to {
        return Ok(double(1.0));
    }
    let runtime = runtime::current()?;
    let key = Key::new(Kind::Sheet, &sheet, Fingerprint::default())
        .map_err(|why| Stop::Value(4, format!("cannot be used: option 'sheet' {why}")))?;
    let read = |answer: Answer, from: Moment| read_sheet(answer, from, &runtime);
    let flight = Flight { runtime: &runtime, key: &key, callable: call.callable, read: &read };
    let served = flight.run(options::plan(&runtime.config, runtime.now()))?;
    let rate = cross(&served.entry.value, from, to).map_err(Error::RateUnavailable)?;
    if plain && let Some(watch) = runtime.watch(&key, served.entry.version) {
        memo::remember_rate([call.from, call.to], rate, watch, served.trusted_until);
    }
    Ok(double(rate))
}

/// A currency code, ISO 4217's form: three capital letters.
fn code(code: &ZendStr, position: u32) -> Result<&str, Stop> {
    let bytes = code.as_bytes();
    let well_formed = bytes.len() == 3 && bytes.iter().all(u8::is_ascii_uppercase);
    match std::str::from_utf8(bytes) {
        Ok(code) if well_formed => Ok(code),
        _ => Err(Stop::Value(position, "must be a currency code of three capital letters".into())),
    }
}

/// MERGE: `fx::sheet`, which also reads ECB XML and keeps the sheet's own date.
fn read_sheet(answer: Answer, from: Moment, runtime: &Runtime) -> Result<Minted, String> {
    let json = match answer {
        Answer::Json(json) => json,
        Answer::Text(text) => serde_json::from_slice(&text)
            .map_err(|_| "the sheet is neither an array nor JSON".to_owned())?,
        Answer::Object { .. } => return Err("the callable returned an object".into()),
    };
    if !json.get("rates").is_some_and(Value::is_object) {
        return Err("the sheet has no \"rates\"".into());
    }
    let config = &runtime.config;
    let timing = Timing::sheet(from, config.fx_refresh_interval, config.fx_max_stale);
    let detail =
        Detail { source: "callable".into(), minted_by: runtime.minted_by(), ..Detail::default() };
    let detail = serde_json::to_vec(&detail).unwrap_or_default();
    Ok(Minted { value: json.to_string().into_bytes(), timing, detail })
}

/// MERGE: `fx::sheet`: a cross rate from the exact decimals of one sheet.
fn cross(sheet: &[u8], from: &str, to: &str) -> Result<f64, String> {
    let json: Value = serde_json::from_slice(sheet).map_err(|_| "the sheet is damaged")?;
    let base = json.get("base").and_then(Value::as_str).unwrap_or_default();
    let of = |code: &str| {
        if code == base {
            return Ok(Decimal::ONE);
        }
        let rate = json.get("rates").and_then(|rates| rates.get(code));
        let text = rate.map(|rate| rate.as_str().map_or_else(|| rate.to_string(), str::to_owned));
        text.and_then(|text| Decimal::from_str(&text).ok())
            .ok_or_else(|| format!("the sheet has no rate for {code}"))
    };
    let (from, to) = (of(from)?, of(to)?);
    to.checked_div(from).and_then(|rate| rate.to_f64()).ok_or_else(|| "the rate is zero".into())
}

fn double(rate: f64) -> Zval {
    let mut result = Zval::new();
    result.set_double(rate);
    result
}
