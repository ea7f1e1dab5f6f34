//! `sharedstate_status` and the phpinfo section: what runs with what, for people; and
//! `sharedstate_metrics`, for Prometheus. No secrets, and no token.

use std::panic::AssertUnwindSafe;

use ext_php_rs::boxed::ZBox;
use ext_php_rs::types::{ZendHashTable, Zval};
use ext_php_rs::zend::{ExecuteData, ModuleEntry, run_handler};
use ext_php_rs::{info_table_end, info_table_header, info_table_row, info_table_start};

use super::exceptions::{Stop, held_up, unbuilt};
use super::runtime::Runtime;
use super::string::Str;
use super::{args, counters, runtime, zend};
use crate::metrics::text::text;

/// `sharedstate_status(bool $limited = false): array`. Limited: what may be shown to anyone, that
/// is no paths and no addresses.
pub fn status(ex: &ExecuteData) -> Result<Zval, Stop> {
    let limited = args::flag(ex)?;
    let runtime = runtime::current()?;
    counters::flush();
    let mut result = Zval::new();
    let table = table(&runtime, limited).map_err(|error| unbuilt(&error))?;
    result.set_hashtable(table);
    Ok(result)
}

/// `sharedstate_metrics(): string`
pub fn metrics(ex: &ExecuteData) -> Result<Zval, Stop> {
    args::nothing(ex)?;
    let runtime = runtime::current()?;
    counters::flush();
    let mut result = Zval::new();
    let text = text(runtime.scrape());
    held_up(|| Str::new(text.as_bytes()))?.ok_or(Stop::Pending)?.give_to(&mut result);
    Ok(result)
}

fn table(runtime: &Runtime, limited: bool) -> ext_php_rs::error::Result<ZBox<ZendHashTable>> {
    let mut table = ZendHashTable::new();
    for (name, value) in runtime.numbers() {
        table.insert(name, i64::try_from(value).unwrap_or(i64::MAX))?;
    }
    table.insert("version", env!("CARGO_PKG_VERSION"))?;
    if !limited {
        for (name, value) in runtime.places() {
            table.insert(name, value)?;
        }
    }
    Ok(table)
}

/// MINFO. Shows what there is, and makes nothing: `php --ri sharedstate` is where people look first, perhaps as
/// another user.
pub unsafe extern "C" fn info(module: *mut ModuleEntry) {
    run_handler(AssertUnwindSafe(|| {
        section();
        zend::show_ini(module);
    }));
}

fn section() {
    info_table_start!();
    info_table_header!("sharedstate", "enabled");
    info_table_row!("version", env!("CARGO_PKG_VERSION"));
    match runtime::reported() {
        Ok(None) => {
            info_table_row!("state", "not used yet by this user on this host, with these settings");
        }
        Ok(Some(runtime)) => {
            counters::flush();
            for (name, value) in runtime.places() {
                info_table_row!(name, value);
            }
            for (name, value) in runtime.numbers() {
                info_table_row!(name, value.to_string());
            }
        }
        Err(error) => {
            info_table_row!("state", format!("not attached: {error}"));
        }
    }
    info_table_end!();
}
