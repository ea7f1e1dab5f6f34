//! `fx_convert` and `fx_quote`: amounts, exact and rounded once.

use ext_php_rs::boxed::ZBox;
use ext_php_rs::types::{ZendHashTable, Zval};
use ext_php_rs::zend::ExecuteData;

use super::exceptions::{Stop, unbuilt};
use super::options::Fx;
use super::rates::{NO_SOURCE, array, currency, sheet};
use super::sheets::Held;
use super::string::Str;
use super::{args, runtime};
use crate::clock::Moment;
use crate::fx::{Amount, Currency, Ratio, Scale};

/// `fx_convert(string $amount, string $from, string $to, ?int $scale = null, array $options = []): string`
pub fn convert(ex: &ExecuteData) -> Result<Zval, Stop> {
    let call = args::money(ex)?;
    let amount = amount(call.amount)?;
    let (from, to) = (currency(call.from, 2)?, currency(call.to, 3)?);
    let scale = match call.scale {
        Some(decimals) => Scale::new(decimals).map_err(|why| refused(4, &why))?,
        None => Scale::of(to).ok_or_else(|| {
            Stop::Value(4, format!("must not be null: {}; pass $scale", without_decimals(to)))
        })?,
    };
    let asked = Fx::parse(call.options, 5)?;
    let ratio = if from == to {
        Ratio::ONE
    } else {
        sheet(&runtime::current()?, &asked)?.0.sheet().ratio(from, to)?
    };
    let converted = amount.convert(ratio, scale, asked.rounding);
    let mut result = Zval::new();
    Str::new(converted.as_bytes()).ok_or(Stop::Pending)?.give_to(&mut result);
    Ok(result)
}

/// `fx_quote(string $amount, string $from, string $to, array $options = []): array`
pub fn quote(ex: &ExecuteData) -> Result<Zval, Stop> {
    let call = args::money_without_scale(ex)?;
    let amount = amount(call.amount)?;
    let (from, to) = (currency(call.from, 2)?, currency(call.to, 3)?);
    let scale = Scale::of(to).ok_or_else(|| {
        let why = without_decimals(to);
        refused(3, &format!("{why}; use fx_convert() and pass $scale"))
    })?;
    let asked = Fx::parse(call.options, 4)?;
    if from == to {
        let converted = amount.convert(Ratio::ONE, scale, asked.rounding);
        return quoted(converted, "1", None).map(array).map_err(|error| unbuilt(&error));
    }
    let runtime = runtime::current()?;
    let (held, _) = sheet(&runtime, &asked)?;
    let converted = amount.convert(held.sheet().ratio(from, to)?, scale, asked.rounding);
    let rate = held.sheet().cross(from, to)?.to_string();
    let served = Some((&*held, runtime.now()));
    quoted(converted, &rate, served).map(array).map_err(|error| unbuilt(&error))
}

fn quoted(
    amount: String,
    rate: &str,
    served: Option<(&Held, Moment)>,
) -> ext_php_rs::error::Result<ZBox<ZendHashTable>> {
    let mut table = ZendHashTable::with_capacity(6);
    table.insert("amount", amount)?;
    table.insert("rate", rate)?;
    table.insert("as_of", served.and_then(|(held, _)| held.sheet().as_of()))?;
    table.insert("version", served.map_or(0, |(held, _)| held.version.0))?;
    table.insert("source", served.map_or(NO_SOURCE, |(held, _)| held.sheet().source()))?;
    table.insert("stale", served.is_some_and(|(held, now)| held.is_stale(now)))?;
    Ok(table)
}

fn amount(text: Str) -> Result<Amount, Stop> {
    Amount::parse(text.bytes()).map_err(|why| refused(1, &why))
}

fn refused(position: u32, why: &str) -> Stop {
    Stop::Value(position, format!("cannot be used: {why}"))
}

fn without_decimals(code: Currency) -> String {
    format!("ISO 4217 has no number of decimals for {code} among the currencies in force")
}
