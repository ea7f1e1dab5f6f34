//! The INI settings: registered at MINIT, read once per process at its first call (FPM sets pool
//! values only in the child), compared at the first call of every later request.
//!
//! A secret never stays in PHP's table, where `ini_get()` and phpinfo would find it: its modify
//! handler keeps the value here and refuses the change there. (`get_cfg_var()` still shows what is
//! written in php.ini itself; a password file is the way around that.)
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use ext_php_rs::ffi::{zend_ini_entry, zend_string};
use ext_php_rs::flags::IniEntryPermission;
use ext_php_rs::zend::IniEntryDef;
use parking_lot::Mutex;

use super::zend;
use crate::config::{self, Config, SETTINGS};

/// Workers do not see the environment under FPM's `clear_env`; the master's MINIT does.
const ENVIRONMENT: [&str; 2] = ["SHAREDSTATE_REDIS_DSN", "SHAREDSTATE_REDIS_PASSWORD"];

static ENV: Mutex<BTreeMap<&'static str, String>> = Mutex::new(BTreeMap::new());
static SECRETS: Mutex<BTreeMap<&'static str, Vec<u8>>> = Mutex::new(BTreeMap::new());

/// Counts MINITs. Entries found in an earlier run of the module are gone.
static RUN: AtomicU32 = AtomicU32::new(0);

/// `zend_result`: what a modify handler answers.
const ACCEPTED: c_int = 0;
const REFUSED: c_int = -1;

/// The value of every setting, in the order of [`SETTINGS`].
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot(Vec<Vec<u8>>);

struct Definitions(Vec<IniEntryDef>);

// SAFETY: the pointers inside lead to leaked C strings and functions; nothing writes them after
// `definitions` has built the table.
unsafe impl Sync for Definitions {}
// SAFETY: as above.
unsafe impl Send for Definitions {}

/// Built once and never freed: from PHP 8.5 on the engine keeps pointers into it.
fn definitions() -> &'static [IniEntryDef] {
    static TABLE: OnceLock<Definitions> = OnceLock::new();
    let build = || {
        let leak = |text: &str| &*Box::leak(zend::c_string(text).into_boxed_c_str());
        let mut table: Vec<IniEntryDef> = SETTINGS
            .iter()
            .map(|setting| {
                let (name, default) = (leak(setting.name), leak(setting.default));
                let mut entry = IniEntryDef::new(name, default, IniEntryPermission::System);
                if setting.secret {
                    entry.on_modify = Some(keep_secret);
                    entry.displayer = Some(show_secret);
                }
                entry
            })
            .collect();
        table.push(IniEntryDef::end());
        Definitions(table)
    };
    &TABLE.get_or_init(build).0
}

/// MINIT: note the environment, register the settings.
pub fn register(module_number: i32) {
    RUN.fetch_add(1, Ordering::SeqCst);
    let mut env = ENV.lock();
    env.clear();
    for name in ENVIRONMENT {
        if let Ok(value) = std::env::var(name) {
            env.insert(name, value);
        }
    }
    drop(env);
    SECRETS.lock().clear();
    IniEntryDef::register(definitions(), module_number);
}

fn bytes_of<'a>(string: *const zend_string) -> &'a [u8] {
    // SAFETY: null, or a string of the INI table, which lives until the setting changes; both
    // callers copy or compare at once.
    unsafe { string.as_ref() }.map_or(&[], |string| string.as_bytes())
}

fn setting_of(entry: *mut zend_ini_entry) -> Option<&'static str> {
    // SAFETY: PHP calls a handler with the live entry it belongs to.
    let name = bytes_of(unsafe { entry.as_ref() }?.name);
    SETTINGS.iter().map(|setting| setting.name).find(|known| known.as_bytes() == name)
}

unsafe extern "C" fn keep_secret(
    entry: *mut zend_ini_entry,
    value: *mut zend_string,
    _: *mut c_void,
    _: *mut c_void,
    _: *mut c_void,
    stage: c_int,
) -> c_int {
    /// `ZEND_INI_STAGE_DEACTIVATE`: PHP puts back what it has, which is our empty stand-in.
    const DEACTIVATE: c_int = 1 << 3;
    /// `ZEND_INI_STAGE_STARTUP`: PHP follows a refused php.ini value with the empty default.
    const STARTUP: c_int = 1;
    let value = bytes_of(value);
    if stage == DEACTIVATE || (stage == STARTUP && value.is_empty()) {
        return ACCEPTED;
    }
    if let Some(name) = setting_of(entry) {
        SECRETS.lock().insert(name, value.to_vec());
    }
    if value.is_empty() { ACCEPTED } else { REFUSED }
}

unsafe extern "C" fn show_secret(entry: *mut zend_ini_entry, _: c_int) {
    let Some(name) = setting_of(entry) else { return };
    let value = SECRETS.lock().get(name).map(|value| String::from_utf8_lossy(value).into_owned());
    match value.filter(|value| !value.is_empty()) {
        Some(value) => zend::print_info(&config::shown(name, &value)),
        None => zend::print_info("no value"),
    }
}

type Entries = Vec<Option<*const zend_ini_entry>>;

thread_local! {
    /// Where this thread's entries are, and the run of the module they belong to: finding them by
    /// name costs more than comparing what they hold.
    static ENTRIES: RefCell<(u32, Entries)> = const { RefCell::new((0, Vec::new())) };
}

/// `visit` sees every setting's present value, without a copy, until it answers `false`.
fn each(mut visit: impl FnMut(usize, &[u8]) -> bool) {
    ENTRIES.with_borrow_mut(|(run, entries)| {
        let now = RUN.load(Ordering::SeqCst);
        if *run != now {
            *run = now;
            *entries = SETTINGS.iter().map(|setting| zend::ini_entry(setting.name)).collect();
        }
        for (index, setting) in SETTINGS.iter().enumerate() {
            let go_on = if setting.secret {
                let secrets = SECRETS.lock();
                visit(index, secrets.get(setting.name).map_or(&[], Vec::as_slice))
            } else {
                let entry = entries.get(index).copied().flatten();
                // SAFETY: found in this run of the module, and on this thread, whose table keeps
                // its entries until the module shuts down.
                let entry = entry.and_then(|entry| unsafe { entry.as_ref() });
                visit(index, bytes_of(entry.map_or(std::ptr::null(), |entry| entry.value)))
            };
            if !go_on {
                return;
            }
        }
    });
}

pub fn snapshot() -> Snapshot {
    let mut values = Vec::with_capacity(SETTINGS.len());
    each(|_, value| {
        values.push(value.to_vec());
        true
    });
    Snapshot(values)
}

impl Snapshot {
    /// Turn the values into settings; the sentence says what is wrong.
    pub fn parse(&self) -> Result<Config, String> {
        let ini = |name: &str| {
            let index = SETTINGS.iter().position(|setting| setting.name == name)?;
            Some(String::from_utf8_lossy(self.0.get(index)?).into_owned())
        };
        Config::parse(&ini, &|name| ENV.lock().get(name).cloned())
    }

    /// The first setting whose value is no longer the one this process runs with. Contents are
    /// compared, about forty short strings once per request: a freed value's address can be used
    /// again, so a pointer proves nothing.
    pub fn first_change(&self) -> Option<&'static str> {
        let mut changed = None;
        each(|index, value| {
            if self.0.get(index).is_some_and(|then| then == value) {
                return true;
            }
            changed = SETTINGS.get(index).map(|setting| setting.name);
            false
        });
        changed
    }
}
