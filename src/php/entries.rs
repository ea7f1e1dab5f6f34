//! `sharedstate_entries`: what this host has, name by name, and never a value.

use ext_php_rs::boxed::ZBox;
use ext_php_rs::types::{ZendHashTable, Zval};
use ext_php_rs::zend::ExecuteData;

use super::exceptions::{Stop, held_up, unbuilt};
use super::rates::array;
use super::runtime::Runtime;
use super::string::Str;
use super::{args, runtime};
use crate::clock::Moment;
use crate::entry::{Detail, Entry, Freshness, Kind};
use crate::fx::holding::Holding;
use crate::metrics::tally::family;
use crate::store::{Backoff, Flying, Resident};

type Built<T> = ext_php_rs::error::Result<T>;
type Table = ZBox<ZendHashTable>;

/// `sharedstate_entries(int $limit = 1000): array`
pub fn entries(ex: &ExecuteData) -> Result<Zval, Stop> {
    let limit = args::limit(ex)?;
    let limit = usize::try_from(limit).ok().filter(|limit| *limit > 0).ok_or_else(|| {
        let why = format!("must be a number of entries, 1 or more; {limit} given");
        Stop::Value(1, why)
    })?;
    let runtime = runtime::current()?;
    let rows: Vec<Row> = runtime.residents(limit).into_iter().map(Row::of).collect();
    held_up(|| {
        let mut list = ZendHashTable::new();
        for row in &rows {
            let entry = describe(row, &runtime).and_then(|table| list.push(table));
            entry.map_err(|error| unbuilt(&error))?;
        }
        Ok(array(list))
    })?
}

/// All that takes memory of ours, made before PHP's may end: what the jump then passes over is given back by its owner.
struct Row {
    resident: Resident,
    /// Enough to tell two entries of one name apart.
    fingerprint: Option<String>,
    detail: Detail,
    /// `None` for what a newer release has stored, and for what is no sheet.
    holding: Option<Holding>,
}

impl Row {
    fn of(resident: Resident) -> Self {
        let entry = resident.entry.as_ref();
        let sheet = entry.filter(|_| resident.key.kind() == Kind::Sheet);
        Self {
            fingerprint: resident.key.fingerprint().map(|it| hex(&it[..4])),
            detail: entry.map(Entry::parsed_detail).unwrap_or_default(),
            holding: sheet.and_then(|entry| Holding::from_bytes(&entry.value).ok()),
            resident,
        }
    }
}

fn describe(row: &Row, runtime: &Runtime) -> Built<Table> {
    let Row { resident, fingerprint, detail, holding } = row;
    let Resident { key, entry, backoff, flight, .. } = resident;
    let (now, unix, kind) = (runtime.now(), runtime.unix(), key.kind());
    let mut table = ZendHashTable::with_capacity(20);
    table.insert("name", bytes(key.name()))?;
    table.insert("kind", word(kind))?;
    table.insert("fingerprint", fingerprint.as_deref())?;
    table.insert("family", bytes(family(key.name())))?;
    let of = entry.as_ref();
    let version = of.map_or(0, |entry| entry.version.0);
    table.insert("version", i64::try_from(version).unwrap_or(i64::MAX))?;
    let freshness = of.map_or(Freshness::Gone, |entry| entry.freshness(kind, now));
    table.insert("freshness", freshness.word())?;
    let at = |moment: fn(&Entry) -> Moment| of.map(|entry| unix(moment(entry)));
    table.insert("minted_at", at(|entry| entry.timing.minted_at))?;
    table.insert("refresh_at", at(|entry| entry.timing.refresh_at))?;
    table.insert("usable_until", at(|entry| entry.timing.usable_until))?;
    table.insert("expires_at", at(|entry| entry.timing.expires_at))?;
    table.insert("age", of.map(|entry| entry.timing.minted_at.until(now).as_secs()))?;
    table.insert("source", detail.source.as_str())?;
    let mut by = ZendHashTable::with_capacity(3);
    by.insert("host", detail.minted_by.host.as_str())?;
    by.insert("sapi", detail.minted_by.sapi.as_str())?;
    by.insert("script", detail.minted_by.script.as_str())?;
    table.insert("minted_by", by)?;
    table.insert("unsynced", of.is_some_and(|entry| entry.unsynced))?;
    table.insert("confirmed", of.is_some() && runtime.is_confirmed(resident))?;
    let flight = flight.as_ref().map(|flight| flown(flight, &unix)).transpose()?;
    table.insert("flight", flight)?;
    let backoff = backoff.as_ref().map(|backoff| paused(backoff, &unix)).transpose()?;
    table.insert("backoff", backoff)?;
    let sheet = of.zip(holding.as_ref()).map(|(entry, holding)| rates(entry, holding, &unix));
    table.insert("rates", sheet.transpose()?)?;
    Ok(table)
}

fn flown(flight: &Flying, unix: &impl Fn(Moment) -> i64) -> Built<Table> {
    let mut table = ZendHashTable::with_capacity(3);
    table.insert("since", unix(flight.since))?;
    table.insert("until", unix(flight.until))?;
    table.insert("pid", flight.process)?;
    Ok(table)
}

fn paused(backoff: &Backoff, unix: &impl Fn(Moment) -> i64) -> Built<Table> {
    let mut table = ZendHashTable::with_capacity(3);
    table.insert("until", unix(backoff.until))?;
    table.insert("failures", i64::try_from(backoff.failures).unwrap_or(i64::MAX))?;
    table.insert("reason", backoff.reason.as_str())?;
    Ok(table)
}

fn rates(entry: &Entry, holding: &Holding, unix: &impl Fn(Moment) -> i64) -> Built<Table> {
    let Holding { sheet, quarantine, unconfirmed, .. } = holding;
    let mut table = ZendHashTable::with_capacity(7);
    table.insert("base", sheet.base().code())?;
    table.insert("as_of", sheet.as_of())?;
    table.insert("confirmed_at", unix(entry.timing.minted_at))?;
    table.insert("source", sheet.source())?;
    table.insert("currencies", i64::try_from(sheet.rates().len()).unwrap_or(i64::MAX))?;
    table.insert("unconfirmed", *unconfirmed)?;
    table.insert("held_back", quarantine.is_some())?;
    Ok(table)
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Token => "token",
        Kind::Sheet => "rates",
        Kind::Quota => "quota",
    }
}

/// A name is bytes, whatever they say.
fn bytes(name: &[u8]) -> Zval {
    let mut value = Zval::new();
    match Str::new(name) {
        Some(name) => name.give_to(&mut value),
        None => value.set_null(),
    }
    value
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
