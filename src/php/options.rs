//! The `$options` arrays. An option that is unknown or of the wrong type is refused with its name
//! and what it may be, before anything is asked of a store.

use std::time::Duration;

use ext_php_rs::types::{ZendHashTable, Zval};

use super::callable::Callable;
use super::exceptions::Stop;
use super::runtime::DEFAULT_SHEET;
use super::string::Str;
use super::{array, convert, zend};
use crate::clock::Moment;
use crate::config::Config;
use crate::entry::{Digest, Fingerprint, Key, Kind};
use crate::flight::{Plan, Renew, StoreDown};
use crate::fx::{Rounding, Source};
use crate::token::TokenOptions;

const TOKEN: [&str; 10] = [
    "ttl",
    "margin",
    "refresh_ratio",
    "wait_ms",
    "fingerprint",
    "rejected",
    "keep",
    "store_down",
    "defer",
    "opaque",
];
const FX: [&str; 4] = ["fetch", "sheet", "max_age_s", "rounding"];

/// An hour, as for the setting; nobody waits longer for a web page.
const MAX_WAIT_MS: f64 = 3_600_000.0;

/// The options of the token functions. All three take the same array, so that an application can
/// keep one per token; `shared_token_invalidate` and `shared_token_info` use the fingerprint only.
#[derive(Debug)]
pub struct Token {
    pub fingerprint: Fingerprint,
    pub rejected: Option<Digest>,
    pub read: TokenOptions,
    wait: Option<Duration>,
    store_down: Option<StoreDown>,
    /// Renew after the response; not what was just rejected.
    pub defer: bool,
}

impl Token {
    /// `position` is the number of the `$options` argument.
    pub fn parse(
        table: Option<&ZendHashTable>,
        position: u32,
        config: &Config,
    ) -> Result<Self, Stop> {
        let options = Options::new(table, position, &TOKEN)?;
        let mut read = TokenOptions::new(config.token_policy);
        if let Some(seconds) = options.number("ttl")? {
            read = read.ttl(seconds as i64).map_err(|why| options.value(why))?;
        }
        if let Some(seconds) = options.number("margin")? {
            read = read.margin(seconds as i64).map_err(|why| options.value(why))?;
        }
        if let Some(ratio) = options.number("refresh_ratio")? {
            read = read.refresh_ratio(ratio).map_err(|why| options.value(why))?;
        }
        let read = read.keep(options.names("keep")?).map_err(|why| options.value(why))?;
        let read = read.opaque(options.flag("opaque")?);
        Ok(Self {
            fingerprint: options.fingerprint()?,
            rejected: options.bytes("rejected")?.map(Digest::of),
            read,
            wait: options.wait()?,
            store_down: options.store_down()?,
            defer: options.flag("defer")?,
        })
    }

    pub fn plan(&self, config: &Config, now: Moment) -> Plan {
        Plan {
            wait_until: now.plus(self.wait.unwrap_or(config.wait_timeout)),
            store_down: self.store_down.unwrap_or(config.store_down),
            rejected: self.rejected,
            ..plan(config, now)
        }
    }
}

/// The plan of a lookup without options of its own.
pub fn plan(config: &Config, now: Moment) -> Plan {
    Plan {
        wait_until: now.plus(config.wait_timeout),
        lease: config.lease,
        max_mint: config.max_mint,
        max_staleness: config.max_staleness,
        store_down: config.store_down,
        failure_backoff: config.failure_backoff,
        rejected: None,
        may_mint: false,
        renew: Renew::WhenDue,
    }
}

/// The same for a sheet. With a quota nobody fetches while the calls cannot be counted.
pub fn sheet_plan(config: &Config, now: Moment) -> Plan {
    let counted =
        config.fx_monthly_quota.is_some() && config.fx_sources.iter().any(Source::has_quota);
    let store_down = if counted { StoreDown::Fail } else { config.store_down };
    Plan { store_down, ..plan(config, now) }
}

/// The options of the fx functions. All take the same array; those that answer no amount round none.
/// Nothing here is borrowed from the array: user code may change what a reference in it holds.
pub struct Fx {
    pub sheet: Key,
    pub fetch: Option<Callable>,
    pub max_age: Option<Duration>,
    pub rounding: Rounding,
    /// The number of the `$options` argument.
    position: u32,
}

impl Fx {
    pub fn parse(table: Option<&ZendHashTable>, position: u32) -> Result<Self, Stop> {
        let options = Options::new(table, position, &FX)?;
        // First, for it may run user code.
        let fetch = options.callable("fetch")?;
        let sheet = options.bytes("sheet")?.unwrap_or(DEFAULT_SHEET);
        Ok(Self {
            sheet: Key::new(Kind::Sheet, sheet, Fingerprint::default())
                .map_err(|why| options.value(format!("option 'sheet' {why}")))?,
            fetch,
            max_age: options.max_age()?,
            rounding: options.rounding()?,
            position,
        })
    }

    /// With the callable of a parameter; `Err` when the option is another one.
    pub fn or_fetch(self, parameter: Option<&Zval>) -> Result<Self, Stop> {
        let parameter = parameter.map(Callable::own);
        match self.fetch.as_ref().zip(parameter.as_ref()) {
            Some((option, parameter)) if !option.is(parameter) => Err(Stop::Value(
                self.position,
                "cannot be used: option 'fetch' is another callable than $fetch; pass one of them"
                    .into(),
            )),
            _ => Ok(Self { fetch: self.fetch.or(parameter), ..self }),
        }
    }
}

struct Options<'a> {
    table: Option<&'a ZendHashTable>,
    position: u32,
}

impl<'a> Options<'a> {
    fn new(table: Option<&'a ZendHashTable>, position: u32, known: &[&str]) -> Result<Self, Stop> {
        let options = Self { table, position };
        for (key, _) in table.into_iter().flat_map(array::entries) {
            let name = match Str::in_slot(&key) {
                Some(name) => String::from_utf8_lossy(name.bytes()).into_owned(),
                None => key.long().unwrap_or_default().to_string(),
            };
            if !known.contains(&name.as_str()) {
                return Err(options.value(format!(
                    "option '{name}' is unknown; the known ones are {}",
                    known.join(", ")
                )));
            }
        }
        Ok(options)
    }

    fn value(&self, sentence: String) -> Stop {
        Stop::Value(self.position, format!("cannot be used: {sentence}"))
    }

    fn wrong(&self, name: &str, wanted: &str, given: &Zval) -> Stop {
        let given = zend::type_name(given);
        let sentence = format!("cannot be used: option '{name}' must be {wanted}, {given} given");
        Stop::Type(self.position, sentence)
    }

    fn flag(&self, name: &str) -> Result<bool, Stop> {
        match self.get(name) {
            None => Ok(false),
            Some(value) => value.bool().ok_or_else(|| self.wrong(name, "a bool", value)),
        }
    }

    /// The option's value; `null` counts as not given.
    fn get(&self, name: &str) -> Option<&'a Zval> {
        Some(self.table?.get(name)?.dereference()).filter(|value| !value.is_null())
    }

    fn bytes(&self, name: &str) -> Result<Option<&'a [u8]>, Stop> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match Str::in_slot(value) {
            Some(text) => Ok(Some(text.bytes())),
            None => Err(self.wrong(name, "a string", value)),
        }
    }

    /// A number, or text that is one, as settings from an environment are.
    fn number(&self, name: &str) -> Result<Option<f64>, Stop> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let text = || {
            Str::in_slot(value)
                .and_then(|text| str::from_utf8(text.bytes()).ok()?.trim().parse().ok())
        };
        let number = value.long().map(|n| n as f64).or_else(|| value.double()).or_else(text);
        number
            .filter(|n: &f64| n.is_finite())
            .map(Some)
            .ok_or_else(|| self.wrong(name, "a number", value))
    }

    fn wait(&self) -> Result<Option<Duration>, Stop> {
        match self.number("wait_ms")? {
            None => Ok(None),
            Some(ms) if (0.0..=MAX_WAIT_MS).contains(&ms) => {
                Ok(Some(Duration::from_millis(ms as u64)))
            }
            Some(ms) => Err(self.value(format!(
                "option 'wait_ms' is {ms}, but must be 0 to {MAX_WAIT_MS} milliseconds"
            ))),
        }
    }

    fn fingerprint(&self) -> Result<Fingerprint, Stop> {
        let Some(value) = self.get("fingerprint") else { return Ok(Fingerprint::default()) };
        if Str::in_slot(value).is_none() && !value.is_array() {
            return Err(self.wrong("fingerprint", "a string or an array", value));
        }
        let mut canonical = Vec::new();
        convert::canonical(value, &mut canonical)
            .map_err(|why| self.value(format!("option 'fingerprint' {why}")))?;
        Ok(Fingerprint::of(&canonical))
    }

    fn names(&self, name: &str) -> Result<Vec<String>, Stop> {
        let Some(value) = self.get(name) else { return Ok(Vec::new()) };
        let Some(table) = value.array() else {
            return Err(self.wrong(name, "a list of field names", value));
        };
        let mut names = Vec::with_capacity(table.len());
        for value in array::values(table) {
            let value = value.dereference();
            match Str::in_slot(value).and_then(|text| str::from_utf8(text.bytes()).ok()) {
                Some(field) => names.push(field.to_owned()),
                None => return Err(self.wrong(name, "a list of field names", value)),
            }
        }
        Ok(names)
    }

    /// May run user code: an autoloader. The array is an argument, which the frame of the call holds, and the
    /// callable is ours before it is looked at.
    fn callable(&self, name: &str) -> Result<Option<Callable>, Stop> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let callable = Callable::own(value);
        match callable.is_callable() {
            _ if zend::pending().is_some() => Err(Stop::Pending),
            true => Ok(Some(callable)),
            false => Err(self.wrong(name, "a valid callback", callable.as_zval())),
        }
    }

    fn max_age(&self) -> Result<Option<Duration>, Stop> {
        match self.number("max_age_s")? {
            None => Ok(None),
            Some(seconds) if seconds >= 1.0 => Ok(Some(Duration::from_secs(seconds as u64))),
            Some(seconds) => Err(self
                .value(format!("option 'max_age_s' is {seconds}, but must be 1 or more seconds"))),
        }
    }

    fn rounding(&self) -> Result<Rounding, Stop> {
        match self.bytes("rounding")? {
            None => Ok(Rounding::default()),
            Some(b"half_even") => Ok(Rounding::HalfEven),
            Some(b"half_up") => Ok(Rounding::HalfUp),
            Some(_) => {
                Err(self.value("option 'rounding' must be either 'half_even' or 'half_up'".into()))
            }
        }
    }

    fn store_down(&self) -> Result<Option<StoreDown>, Stop> {
        match self.bytes("store_down")? {
            None => Ok(None),
            Some(b"host") => Ok(Some(StoreDown::Host)),
            Some(b"fail") => Ok(Some(StoreDown::Fail)),
            Some(_) => {
                Err(self.value("option 'store_down' must be either 'host' or 'fail'".into()))
            }
        }
    }
}
