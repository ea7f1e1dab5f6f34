//! `fx_refresh`: what a cron job calls, from as many places as it likes.

use std::sync::Arc;

use ext_php_rs::boxed::ZBox;
use ext_php_rs::types::{ZendHashTable, Zval};
use ext_php_rs::zend::ExecuteData;

use super::exceptions::{Stop, unbuilt};
use super::flights::{Flight, Maker};
use super::options::{self, Fx};
use super::rates::{self, array};
use super::runtime::Runtime;
use super::{args, runtime};
use crate::clock::Moment;
use crate::entry::{Entry, Key};
use crate::error::Error;
use crate::flight::{Plan, Renew, Tier};
use crate::fx::holding::Holding;
use crate::fx::refresher::Ended;
use crate::token::Answer;

/// `fx_refresh(?callable $fetch = null, array $options = []): array`
pub fn refresh(ex: &ExecuteData) -> Result<Zval, Stop> {
    let call = args::fetch(ex)?;
    let asked = Fx::parse(call.options, 2)?.or_fetch(call.callable)?;
    let runtime = runtime::current()?;
    let reason = attempt(&runtime, &asked)?;
    let entry = runtime.look(&asked.sheet).and_then(|known| known.entry);
    described(reason, entry, &runtime).map(array).map_err(|error| unbuilt(&error))
}

/// Due from half the interval on: a job that runs once an interval, a little early or late, then
/// renews every time. With "due after an interval" it does every second time.
fn attempt(runtime: &Arc<Runtime>, asked: &Fx) -> Result<&'static str, Stop> {
    let key = &asked.sheet;
    let read = |answer: Answer, from: Moment| rates::read_sheet(answer, from, key, runtime);
    let flight = Flight::new(runtime, key, rates::maker(runtime, asked, &read));
    if matches!(flight.maker(), Maker::Nothing) {
        return Err(Error::NoSource(
            "there is nothing to refresh rates from: set sharedstate.fx.sources, or pass a callable \
             as $fetch"
                .into(),
        )
        .into());
    }
    let now = runtime.now();
    let half = runtime.config.fx_policy.interval / 2;
    // Somebody else's refresh is as good as ours, and nobody waits for what is there.
    let plan = Plan { renew: Renew::AtAge(half), ..options::sheet_plan(&runtime.config, now) };
    let outcome = flight.run(plan);
    Ok(match (flight.ended(), outcome) {
        (Some(Ended::Refreshed), Ok(_)) if is_quarantined(runtime, key) => "quarantined",
        (Some(Ended::Refreshed), Ok(_)) => "due",
        (Some(Ended::Quarantined), _) => "quarantined",
        (_, Err(stop @ (Stop::Pending | Stop::Bailout | Stop::Throw(Error::InvalidValue(_))))) => {
            return Err(stop);
        }
        // With a sheet in force a failure is one of those that happen; without, it is the caller's.
        (Some(Ended::Failed(_)), Err(stop @ Stop::Throw(Error::MintFailed { .. }))) => {
            return Err(stop);
        }
        (Some(Ended::Failed(_)), _) => "failed",
        (_, Ok(served)) if served.backing_off.is_some() => "backoff",
        (_, Ok(served)) => {
            let age = served.entry.timing.minted_at.until(runtime.now());
            match served.tier {
                Tier::Store => "fresh",
                _ if age < half => "fresh",
                // The store does not answer, so nobody can say whose turn it is.
                _ if served.degraded => "failed",
                // Asked about a moment ago, and still held back.
                _ if is_quarantined(runtime, key) => "quarantined",
                _ => "busy",
            }
        }
        (_, Err(Stop::Throw(Error::RateUnavailable(_) | Error::MintFailed { .. }))) => "backoff",
        (_, Err(Stop::Throw(Error::WaitTimeout(_)))) => "busy",
        (_, Err(stop)) => return Err(stop),
    })
}

/// The callable's sheet may have been held back.
fn is_quarantined(runtime: &Runtime, key: &Key) -> bool {
    let entry = runtime.look(key).and_then(|known| known.entry);
    let holding = entry.and_then(|entry| Holding::from_bytes(&entry.value).ok());
    holding.is_some_and(|holding| holding.quarantine.is_some())
}

fn described(
    reason: &str,
    entry: Option<Entry>,
    runtime: &Runtime,
) -> ext_php_rs::error::Result<ZBox<ZendHashTable>> {
    let unix = runtime.unix();
    let sheet = entry.as_ref().and_then(|entry| Holding::from_bytes(&entry.value).ok());
    let sheet = sheet.map(|holding| holding.sheet);
    let version = entry.as_ref().map(|entry| i64::try_from(entry.version.0).unwrap_or(i64::MAX));
    let mut table = ZendHashTable::with_capacity(6);
    table.insert("refreshed", reason == "due")?;
    table.insert("reason", reason)?;
    table.insert("source", sheet.as_ref().map(|sheet| sheet.source()))?;
    table.insert("version", version)?;
    table.insert("as_of", sheet.as_ref().and_then(|sheet| sheet.as_of()))?;
    table.insert("next_refresh", entry.as_ref().map(|entry| unix(entry.timing.refresh_at)))?;
    Ok(table)
}
