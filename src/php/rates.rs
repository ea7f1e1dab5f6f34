//! `fx_rate` past the pure hit, `fx_rates` and `fx_rate_info`. A sheet is one entry: every rate comes
//! from one sheet.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use ext_php_rs::boxed::ZBox;
use ext_php_rs::types::{ZendHashTable, Zval};
use ext_php_rs::zend::ExecuteData;
use log::warn;

use super::array::Array;
use super::exceptions::{Stop, unbuilt};
use super::flights::{Flight, Maker, Minted};
use super::options::Fx;
use super::runtime::{Event, Runtime};
use super::sheets::{self, Held};
use super::string::Str;
use super::{args, counters, memo, options, runtime, zend};
use crate::clock::Moment;
use crate::entry::{Detail, Key, Kind};
use crate::flight::{Plan, Renew, Served, Tier};
use crate::fx::guard::{OLDER, Verdict};
use crate::fx::refresher;
use crate::fx::rules::Read;
use crate::fx::{self, Currency, Sheet, Validators};
use crate::metrics::tally::Refresh;
use crate::token::Answer;

/// The name of the source that is a callable.
pub const SOURCE: &str = "callable";

/// The source of a rate of 1, for which no sheet is asked.
pub const NO_SOURCE: &str = "none";

/// `fx_rate(string $from, string $to, ?callable $fetch = null, array $options = []): float`
pub fn rate(ex: &ExecuteData) -> Result<Zval, Stop> {
    let call = args::pair(ex)?;
    let options = zend::arg(ex, 3).and_then(Array::in_slot);
    let question = memo::Question { names: [call.from, call.to], options };
    if let Some(rate) = memo::rate(&question) {
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
    let runtime = runtime::current()?;
    let (held, until) = sheet(&runtime, &asked)?;
    let rate = fx::to_f64(held.sheet().cross(from, to)?);
    if keepable && let Some(watch) = &held.watch {
        memo::remember_rate(question, rate, watch.clone(), runtime.now().until(until));
    }
    Ok(double(rate))
}

/// `fx_rates(?string $base = null, array $options = []): array`
pub fn all(ex: &ExecuteData) -> Result<Zval, Stop> {
    let call = args::base(ex)?;
    let base = call.base.map(|base| currency(base, 1)).transpose()?;
    let asked = Fx::parse(call.options, 2)?;
    let (held, _) = sheet(&runtime::current()?, &asked)?;
    let rates = held.sheet().rebased(base.unwrap_or(held.sheet().base()))?;
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
    let rate = held.sheet().cross(from, to)?.to_string();
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
    table.insert("as_of", times.and_then(|(held, ..)| held.sheet().as_of()))?;
    table.insert("age", times.map_or(0, |(held, now, _)| held.age.seconds(*now)))?;
    table.insert("confirmed_at", times.map(|(held, _, unix)| unix(held.timing.minted_at)))?;
    table.insert("stale", times.is_some_and(|(held, now, _)| held.is_stale(*now)))?;
    table.insert("source", times.map_or(NO_SOURCE, |(held, ..)| held.sheet().source()))?;
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
    let key = &asked.sheet;
    if let Some(held) = sheets::known(key) {
        counters::rate_hits(1);
        return Ok(held);
    }
    let read = |answer: Answer, from: Moment| read_sheet(answer, from, key, runtime);
    let maker = maker(runtime, asked, &read);
    let plan = options::sheet_plan(&runtime.config, runtime.now());
    let plan = match maker {
        // What is due is renewed in the background; only who has nothing waits for a source.
        Maker::Sources(_) => Plan { renew: Renew::Never, ..plan },
        _ => plan,
    };
    let served = match Flight::new(runtime, key, maker).run(plan) {
        Err(stop @ Stop::Throw(_)) => match from_shelf(runtime, key) {
            Some(served) => {
                // What the callable threw is in the log.
                zend::clear_exception();
                Ok(served)
            }
            None => Err(stop),
        },
        served => served,
    }?;
    Ok(sheets::hold(key.clone(), &served, runtime)?)
}

/// Configured sources come before a callable: the sheet is theirs to keep.
pub fn maker<'a>(
    runtime: &'a Runtime,
    asked: &'a Fx,
    read: &'a dyn Fn(Answer, Moment) -> Result<Minted, String>,
) -> Maker<'a> {
    match &asked.fetch {
        _ if runtime.rates.has_sources() && asked.sheet == runtime.rates.key => {
            Maker::Sources(&runtime.rates)
        }
        Some(callable) => Maker::Callable(callable, read),
        None => Maker::Nothing,
    }
}

/// With nothing else to be had: the last sheet this host wrote down.
fn from_shelf(runtime: &Runtime, key: &Key) -> Option<Served> {
    let entry = Some(&runtime.rates).filter(|rates| rates.key == *key)?.from_shelf()?;
    let trusted_until = runtime.now();
    Some(Served { entry, tier: Tier::Host, degraded: true, trusted_until, backing_off: None })
}

pub fn currency(code: Str, position: u32) -> Result<Currency, Stop> {
    let parsed = Currency::parse(&String::from_utf8_lossy(code.bytes()));
    parsed.map_err(|why| Stop::Value(position, format!("cannot be used: {why}")))
}

/// What a callable brought, beside what is held.
pub fn read_sheet(
    answer: Answer,
    from: Moment,
    key: &Key,
    runtime: &Runtime,
) -> Result<Minted, String> {
    let sheet = match answer {
        Answer::Array(fields, unread) => {
            if let Some((name, what)) = unread.iter().find(|(name, _)| Sheet::reads(name)) {
                return Err(format!("\"{name}\" is {what}"));
            }
            Sheet::from_value(&fields.into(), SOURCE)?
        }
        Answer::Json(json) => Sheet::from_value(&json, SOURCE)?,
        Answer::Text(text) => Sheet::from_text(&text, SOURCE)?,
        // Refused by `convert` already.
        Answer::Object { .. } => return Err("the callable returned an object".into()),
    };
    let now = runtime.now();
    let entry = runtime.look(key).and_then(|known| known.entry);
    let held = entry.and_then(|entry| refresher::binding(entry, now));
    let wall = runtime.wall().unix_millis() - from.millis_until(now);
    let (validators, none) = (Validators::default(), BTreeMap::new());
    let (value, timing) =
        match runtime.rates.rules.read(held.as_ref(), sheet, validators, &none, from, wall) {
            Read::Older => return Err(format!("the callable's sheet is refused: {OLDER}")),
            Read::Refused(why) => return Err(format!("the callable's sheet is refused: {why}")),
            Read::Kept { value, timing, verdict } => {
                let quarantined = matches!(verdict, Verdict::Quarantined(_));
                let what = if quarantined { Refresh::Quarantined } else { Refresh::Taken };
                runtime.tally().refreshed(SOURCE, what);
                if let Verdict::Quarantined(why) = verdict {
                    warn!("the callable's sheet: {why}");
                    runtime.count(Event::Quarantined, Kind::Sheet, 1);
                }
                (value, timing)
            }
        };
    let detail =
        Detail { source: SOURCE.into(), minted_by: runtime.minted_by(), ..Detail::default() };
    let detail = serde_json::to_vec(&detail).unwrap_or_default();
    Ok(Minted { value, timing, detail })
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
