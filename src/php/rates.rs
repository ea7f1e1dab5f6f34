//! `fx_rate` past the pure hit, `fx_rates` and `fx_rate_info`. A sheet is one entry: every rate comes
//! from one sheet.

use std::rc::Rc;
use std::sync::Arc;

use ext_php_rs::boxed::ZBox;
use ext_php_rs::types::{ZendHashTable, Zval};
use ext_php_rs::zend::ExecuteData;

use super::array::Array;
use super::exceptions::{Stop, unbuilt};
use super::flights::{Flight, Minted};
use super::options::Fx;
use super::runtime::Runtime;
use super::sheets::{self, Held};
use super::string::Str;
use super::{args, counters, memo, options, runtime, zend};
use crate::clock::Moment;
use crate::entry::{Detail, Fingerprint, Key, Kind, Timing};
use crate::fx::{self, Currency, Sheet};
use crate::token::Answer;

/// The name of the source that is a callable.
const SOURCE: &str = "callable";

/// The source of a rate of 1, for which no sheet is asked.
pub const NO_SOURCE: &str = "none";

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
    let asked = Fx::parse(call.options, 4)?;
    // With a callable in the options the next call may be wrong: it may bring another one.
    let keepable = asked.fetch.is_none() && question.options.is_none_or(Array::is_frozen);
    let asked = asked.or_fetch(call.callable)?;
    if from == to {
        return Ok(double(1.0));
    }
    let (held, until) = sheet(&runtime::current()?, &asked)?;
    let rate = fx::to_f64(held.sheet.cross(from, to)?);
    if keepable && let Some(watch) = &held.watch {
        memo::remember_rate(question, rate, watch.clone(), until);
    }
    Ok(double(rate))
}

/// `fx_rates(?string $base = null, array $options = []): array`
pub fn all(ex: &ExecuteData) -> Result<Zval, Stop> {
    let call = args::base(ex)?;
    let base = call.base.map(|base| currency(base, 1)).transpose()?;
    let asked = Fx::parse(call.options, 2)?;
    let (held, _) = sheet(&runtime::current()?, &asked)?;
    let rates = held.sheet.rebased(base.unwrap_or(held.sheet.base()))?;
    let mut table = ZendHashTable::with_capacity(u32::try_from(rates.len()).unwrap_or(0));
    for (code, rate) in rates {
        table.insert(code.code(), rate.to_string()).map_err(|error| unbuilt(&error))?;
    }
    Ok(array(table))
}

/// `fx_rate_info(string $from, string $to, array $options = []): array`
pub fn info(ex: &ExecuteData) -> Result<Zval, Stop> {
    let call = args::bare_pair(ex)?;
    let (from, to) = (currency(call.from, 1)?, currency(call.to, 2)?);
    let asked = Fx::parse(call.options, 3)?;
    if from == to {
        return described("1", None).map(array).map_err(|error| unbuilt(&error));
    }
    let runtime = runtime::current()?;
    let (held, _) = sheet(&runtime, &asked)?;
    let rate = held.sheet.cross(from, to)?.to_string();
    described(&rate, Some((&held, &runtime))).map(array).map_err(|error| unbuilt(&error))
}

fn described(
    rate: &str,
    served: Option<(&Held, &Runtime)>,
) -> ext_php_rs::error::Result<ZBox<ZendHashTable>> {
    let times = served.map(|(held, runtime)| (held, runtime.now(), runtime.unix()));
    let times = times.as_ref();
    let mut table = ZendHashTable::with_capacity(8);
    table.insert("rate", rate)?;
    table.insert("as_of", times.and_then(|(held, ..)| held.sheet.as_of()))?;
    table.insert("age", times.map_or(0, |(held, now, _)| held.age.seconds(*now)))?;
    table.insert("confirmed_at", times.map(|(held, _, unix)| unix(held.timing.minted_at)))?;
    table.insert("stale", times.is_some_and(|(held, now, _)| held.is_stale(*now)))?;
    table.insert("source", times.map_or(NO_SOURCE, |(held, ..)| held.sheet.source()))?;
    table.insert("version", times.map_or(0, |(held, ..)| held.version.0))?;
    table.insert("next_refresh", times.map(|(held, _, unix)| unix(held.timing.refresh_at)))?;
    Ok(table)
}

/// The sheet that the options name, no older than they allow, and until when it may answer again.
pub fn sheet(runtime: &Arc<Runtime>, asked: &Fx) -> Result<(Rc<Held>, Moment), Stop> {
    let held = hold(runtime, asked)?;
    let until = held.within(asked.max_age, runtime.now())?;
    Ok((held, until))
}

/// The one place where a sheet comes from: what this thread holds, what the stores have, or a fetch.
fn hold(runtime: &Arc<Runtime>, asked: &Fx) -> Result<Rc<Held>, Stop> {
    let key = Key::new(Kind::Sheet, asked.sheet, Fingerprint::default()).map_err(|why| {
        Stop::Value(asked.position, format!("cannot be used: option 'sheet' {why}"))
    })?;
    if let Some(held) = sheets::known(&key) {
        counters::rate_hit();
        return Ok(held);
    }
    let read = |answer: Answer, from: Moment| read_sheet(answer, from, runtime);
    let flight = Flight { runtime, key: &key, callable: asked.fetch, read: &read };
    let served = flight.run(options::plan(&runtime.config, runtime.now()))?;
    Ok(sheets::hold(key, &served, runtime)?)
}

pub fn currency(code: Str, position: u32) -> Result<Currency, Stop> {
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

pub fn array(table: ZBox<ZendHashTable>) -> Zval {
    let mut result = Zval::new();
    result.set_hashtable(table);
    result
}
