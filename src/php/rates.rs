//! `fx_rate`, past the pure hit. A sheet is one entry: every rate comes from one sheet.

use ext_php_rs::types::Zval;
use ext_php_rs::zend::ExecuteData;

use super::array::Array;
use super::exceptions::Stop;
use super::flights::{Flight, Minted};
use super::runtime::Runtime;
use super::string::Str;
use super::{args, counters, memo, options, runtime, zend};
use crate::clock::Moment;
use crate::entry::{Detail, Fingerprint, Key, Kind, Timing};
use crate::error::Error;
use crate::fx::{self, Currency, Sheet};
use crate::token::Answer;

/// The name of the source that is a callable.
const SOURCE: &str = "callable";

/// `fx_rate(string $from, string $to, ?callable $fetch = null, array $options = []): float`
pub fn rate(ex: &ExecuteData) -> Result<Zval, Stop> {
    let call = args::pair(ex)?;
    let options = zend::arg(ex, 3).and_then(Array::in_slot);
    let question = memo::Question { names: [call.from, call.to], options };
    if let Some(rate) = memo::rate(&question) {
        counters::rate_hit();
        return Ok(double(rate));
    }
    let (from, to) = (currency(call.from, 1)?, currency(call.to, 2)?);
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
    let sheet = Sheet::from_bytes(&served.entry.value).map_err(Error::RateUnavailable)?;
    let rate = fx::to_f64(sheet.cross(from, to)?);
    if question.options.is_none_or(Array::is_frozen)
        && let Some(watch) = runtime.watch(&key, served.entry.version)
    {
        memo::remember_rate(question, rate, watch, served.trusted_until);
    }
    Ok(double(rate))
}

fn currency(code: Str, position: u32) -> Result<Currency, Stop> {
    let parsed = Currency::parse(&String::from_utf8_lossy(code.bytes()));
    parsed.map_err(|why| Stop::Value(position, format!("cannot be used: {why}")))
}

fn read_sheet(answer: Answer, from: Moment, runtime: &Runtime) -> Result<Minted, String> {
    let sheet = match answer {
        Answer::Json(json) => Sheet::from_value(&json, SOURCE)?,
        Answer::Text(text) => Sheet::from_json(&text, SOURCE)?,
        // Refused by `convert` already.
        Answer::Object { .. } => return Err("the callable returned an object".into()),
    };
    let config = &runtime.config;
    let timing = Timing::sheet(from, config.fx_refresh_interval, config.fx_max_stale);
    let detail =
        Detail { source: SOURCE.into(), minted_by: runtime.minted_by(), ..Detail::default() };
    let detail = serde_json::to_vec(&detail).unwrap_or_default();
    Ok(Minted { value: sheet.to_bytes(), timing, detail })
}

fn double(rate: f64) -> Zval {
    let mut result = Zval::new();
    result.set_double(rate);
    result
}
