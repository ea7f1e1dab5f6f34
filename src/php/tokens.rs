//! `shared_token_get`, `shared_token_invalidate` and `shared_token_info`, past the pure hit.

use std::sync::Arc;

use ext_php_rs::types::{ZendHashTable, Zval};
use ext_php_rs::zend::ExecuteData;

use log::warn;

use super::array::Array;
use super::callable::Callable;
use super::exceptions::{Stop, unbuilt};
use super::flights::{Flight, Maker, Minted};
use super::options::Token;
use super::runtime::{Event, Runtime};
use super::string::Str;
use super::{args, counters, defer, memo, runtime, zend};
use crate::clock::Moment;
use crate::entry::{Detail, Entry, Fingerprint, Freshness, Key, Kind, freshness};
use crate::error::Error;
use crate::flight::{Plan, Served};
use crate::metrics::tally::Hit;
use crate::token::{self, Answer};

/// `shared_token_get(string $name, ?callable $mint = null, array $options = []): string`
pub fn get(ex: &ExecuteData) -> Result<Zval, Stop> {
    let call = args::lookup(ex)?;
    let question =
        memo::Question { names: [call.name], options: zend::arg(ex, 2).and_then(Array::in_slot) };
    if let Some(value) = memo::token(&question) {
        return Ok(string(value.add_ref()));
    }
    let runtime = runtime::current()?;
    let options = Token::parse(call.options, 3, &runtime.config)?;
    let key = key(call.name, options.fingerprint)?;
    // The same question again may have the same answer, unless it says what the answer must not be.
    let keepable = options.rejected.is_none() && question.options.is_none_or(Array::is_frozen);
    if options.rejected.is_none()
        && let Some((Some(value), watch, span)) = runtime.hit(&key, Str::new)
    {
        counters::token_hits(key.name(), Hit::Table, 1);
        if keepable {
            memo::remember_token(question, value, watch, span);
        }
        return Ok(string(value));
    }
    let later =
        options.defer && options.rejected.is_none() && defer::has_response() && due(&runtime, &key);
    let callable = match call.callable.map(Callable::own) {
        Some(it) if later && defer::renew_later(&key, call.name, &it, question.options)? => None,
        callable => callable,
    };
    let plan = options.plan(&runtime.config, runtime.now());
    let served = fly(&runtime, &key, &options, callable.as_ref(), plan)?;
    let value = Str::new(&served.entry.value).ok_or(Stop::Pending)?;
    if keepable && let Some(watch) = runtime.watch(&key, served.entry.version) {
        let span = runtime.now().until(served.trusted_until);
        memo::remember_token(question, value, watch, span);
    }
    Ok(string(value))
}

/// Usable, and to be renewed.
fn due(runtime: &Runtime, key: &Key) -> bool {
    let now = runtime.now();
    let entry = runtime.look(key).and_then(|known| known.entry);
    entry.is_some_and(|entry| entry.freshness(Kind::Token, now) == Freshness::RefreshDue)
}

/// What `shared_token_get` put off, by the arguments it was called with. Waits for nobody: who renews
/// it already does it for all.
pub fn renew(name: Str, callable: &Callable, options: Option<Array>) -> Result<(), Stop> {
    let runtime = runtime::current()?;
    let options = Token::parse(options.map(Array::table), 3, &runtime.config)?;
    let key = key(name, options.fingerprint)?;
    if !due(&runtime, &key) {
        return Ok(());
    }
    let now = runtime.now();
    let plan = Plan { wait_until: now, ..options.plan(&runtime.config, now) };
    fly(&runtime, &key, &options, Some(callable), plan).map(drop)
}

fn fly(
    runtime: &Arc<Runtime>,
    key: &Key,
    options: &Token,
    callable: Option<&Callable>,
    plan: Plan,
) -> Result<Served, Stop> {
    let read = |answer: Answer, from: Moment| {
        let token = token::read(answer, &options.read, from, runtime.wall())?;
        runtime.count(Event::MarginCut, Kind::Token, u64::from(token.margin_cut));
        runtime.count(Event::ClockDependent, Kind::Token, u64::from(token.clock_dependent));
        if let Some(what) = token.contradiction {
            warn!("of {} the lifetimes disagree: {what}", key.shown());
            runtime.count(Event::Contradicted, Kind::Token, 1);
        }
        let detail = Detail {
            source: "callable".into(),
            minted_by: runtime.minted_by(),
            kept: token.kept,
            ..Detail::default()
        };
        let detail = serde_json::to_vec(&detail).unwrap_or_default();
        Ok(Minted { value: token.value.into_bytes(), timing: token.timing, detail })
    };
    let maker = callable.map_or(Maker::Nothing, |callable| Maker::Callable(callable, &read));
    Flight::new(runtime, key, maker).run(plan)
}

/// `shared_token_invalidate(string $name, ?string $rejected = null, array $options = []): bool`
pub fn invalidate(ex: &ExecuteData) -> Result<Zval, Stop> {
    let call = args::rejection(ex)?;
    let runtime = runtime::current()?;
    let options = Token::parse(call.options, 3, &runtime.config)?;
    let key = key(call.name, options.fingerprint)?;
    let rejected = call.rejected.map(|token| crate::entry::Digest::of(token.bytes()));
    let dropped = runtime
        .engine
        .invalidate(&key, rejected.or(options.rejected))
        .map_err(|error| Error::invalidating(&error, &key))?;
    let mut result = Zval::new();
    result.set_bool(dropped);
    Ok(result)
}

/// `shared_token_invalidate_all(?string $name = null): array`
pub fn invalidate_all(ex: &ExecuteData) -> Result<Zval, Stop> {
    let name = args::name(ex)?;
    let runtime = runtime::current()?;
    if let Some(name) = name {
        key(name, Fingerprint::default())?;
    }
    let (dropped, since) = runtime.invalidate_all(name.map(Str::bytes))?;
    let mut table = ZendHashTable::with_capacity(2);
    let built = table.insert("dropped", dropped as u64).and_then(|()| table.insert("since", since));
    built.map_err(|error| unbuilt(&error))?;
    let mut result = Zval::new();
    result.set_hashtable(table);
    Ok(result)
}

/// `shared_token_info(string $name, array $options = []): ?array`. Never the token.
pub fn info(ex: &ExecuteData) -> Result<Zval, Stop> {
    let call = args::question(ex)?;
    let runtime = runtime::current()?;
    let options = Token::parse(call.options, 2, &runtime.config)?;
    let key = key(call.name, options.fingerprint)?;
    let Some(entry) = runtime.look(&key).and_then(|known| known.entry) else {
        return Ok(Zval::null());
    };
    let mut result = Zval::new();
    let table = describe(&entry, &runtime).map_err(|error| unbuilt(&error))?;
    result.set_hashtable(table);
    Ok(result)
}

fn describe(
    entry: &Entry,
    runtime: &Runtime,
) -> ext_php_rs::error::Result<ext_php_rs::boxed::ZBox<ZendHashTable>> {
    let (now, unix) = (runtime.now(), runtime.unix());
    let detail = entry.parsed_detail();
    let timing = &entry.timing;
    let mut by = ZendHashTable::with_capacity(3);
    by.insert("host", detail.minted_by.host)?;
    by.insert("sapi", detail.minted_by.sapi)?;
    by.insert("script", detail.minted_by.script)?;
    let mut table = ZendHashTable::with_capacity(10);
    table.insert("version", i64::try_from(entry.version.0).unwrap_or(i64::MAX))?;
    table.insert("freshness", freshness(timing, Kind::Token, now).word())?;
    table.insert("minted_at", unix(timing.minted_at))?;
    table.insert("refresh_at", unix(timing.refresh_at))?;
    table.insert("usable_until", unix(timing.usable_until))?;
    table.insert("expires_at", unix(timing.expires_at))?;
    table.insert("source", detail.source)?;
    table.insert("minted_by", by)?;
    table.insert("unsynced", entry.unsynced)?;
    table.insert("kept", super::convert::to_php(&serde_json::Value::Object(detail.kept))?)?;
    Ok(table)
}

fn key(name: Str, fingerprint: Fingerprint) -> Result<Key, Stop> {
    Key::new(Kind::Token, name.bytes(), fingerprint).map_err(|why| Stop::Value(1, why))
}

/// Moves the caller's reference into the result.
fn string(value: Str) -> Zval {
    let mut result = Zval::new();
    value.give_to(&mut result);
    result
}
