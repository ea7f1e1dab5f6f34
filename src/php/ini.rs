//! The INI settings: registered at MINIT, read once per process at its first call (FPM sets pool
//! values only in the child). PHP tells of every change, also that a new thread got its own copy;
//! the next call after one compares.
//!
//! A secret never stays in PHP's table, where `ini_get()` and phpinfo would find it: its modify
//! handler keeps the value in [`Secrets`] and refuses the change there. (`get_cfg_var()` still shows what
//! is written in php.ini itself; a password file is the way around that.)
#![allow(unsafe_code)]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use ext_php_rs::ffi::{zend_ini_entry, zend_string};
use ext_php_rs::flags::IniEntryPermission;
use ext_php_rs::zend::IniEntryDef;

use super::string::Str;
use super::zend;
use crate::config::secrets::{Owner, Secrets};
use crate::config::{self, Config, SETTINGS};
use crate::http::VARIABLES;
use crate::lock::Mutex;
use crate::process;

/// Workers do not see the environment under FPM's `clear_env`; the master's MINIT does. A pool's own (`env[…]`)
/// nobody has but its workers.
const ENVIRONMENT: [&str; 2] = ["SHAREDSTATE_REDIS_DSN", "SHAREDSTATE_REDIS_PASSWORD"];

/// The environment as it was when the module started, and as a pool added to it before any code of an application
/// ran, of what anybody here reads of it.
pub fn environment(name: &str) -> Option<String> {
    ENV.lock().get(name).cloned()
}

static ENV: Mutex<BTreeMap<&'static str, String>> = Mutex::new(BTreeMap::new());
/// The process in which the environment was noted, by its generation.
static NOTED_IN: AtomicU64 = AtomicU64::new(0);
static SECRETS: Mutex<Secrets> = Mutex::new(Secrets::new());

/// Moves on with every change that PHP tells of, in whichever thread.
static CHANGES: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// [`CHANGES`] when this thread's settings were last found to be the process's.
    static COMPARED: Cell<u64> = const { Cell::new(u64::MAX) };
}

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
                entry.on_modify = Some(note_change);
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
    ENV.lock().clear();
    note_environment();
    SECRETS.lock().clear();
    IniEntryDef::register(definitions(), module_number);
}

fn note_environment() {
    let mut env = ENV.lock();
    for name in ENVIRONMENT.into_iter().chain(VARIABLES) {
        if let Ok(value) = std::env::var(name) {
            env.insert(name, value);
        }
    }
    NOTED_IN.store(process::generation(), Ordering::Relaxed);
}

/// RINIT. A worker of php-fpm has the environment of its pool from its start; later on it is whatever `putenv()`
/// of an application left there.
pub fn request_begins() {
    if NOTED_IN.load(Ordering::Relaxed) != process::generation() && zend::sapi_name() == "fpm-fcgi"
    {
        note_environment();
    }
}

/// The bytes of a string that PHP handed to a handler, which lives until the handler returns.
fn bytes_of<'a>(string: *mut zend_string) -> &'a [u8] {
    Str::at(string).map_or(&[], Str::bytes)
}

fn setting_of(entry: &zend_ini_entry) -> Option<&'static str> {
    let name = bytes_of(entry.name);
    SETTINGS.iter().map(|setting| setting.name).find(|known| known.as_bytes() == name)
}

/// Called for php.ini and pool values, for what a web server sets for one request and PHP puts back
/// after it, and for every setting of a new thread.
unsafe extern "C" fn note_change(
    _: *mut zend_ini_entry,
    _: *mut zend_string,
    _: *mut c_void,
    _: *mut c_void,
    _: *mut c_void,
    _: c_int,
) -> c_int {
    CHANGES.fetch_add(1, Ordering::Release);
    ACCEPTED
}

unsafe extern "C" fn keep_secret(
    entry: *mut zend_ini_entry,
    value: *mut zend_string,
    _: *mut c_void,
    _: *mut c_void,
    _: *mut c_void,
    stage: c_int,
) -> c_int {
    /// `ZEND_INI_STAGE_STARTUP`: PHP follows a refused php.ini value with the empty default, and gives
    /// a new thread our empty stand-in.
    const STARTUP: c_int = 1;
    /// `ZEND_INI_STAGE_DEACTIVATE`, and `ZEND_INI_STAGE_SHUTDOWN` where Apache includes a page in
    /// another: PHP puts back what it has, which is the stand-in.
    const PUT_BACK: [c_int; 2] = [1 << 1, 1 << 3];
    let (value, here) = (bytes_of(value), thread::current().id());
    // SAFETY: PHP calls a handler with the live entry it belongs to.
    let Some(entry) = (unsafe { entry.as_ref() }) else { return REFUSED };
    let Some(name) = setting_of(entry) else { return REFUSED };
    if PUT_BACK.contains(&stage) {
        SECRETS.lock().restore(name, here);
    } else if stage != STARTUP || !value.is_empty() {
        // PHP marks an entry that it will put back before it asks us. It marks neither a pool's value
        // nor what FPM takes from PHP_ADMIN_VALUE, which stays.
        let owner = if is_no(entry.modified) { Owner::Process } else { Owner::Request(here) };
        SECRETS.lock().set(name, owner, value);
    }
    CHANGES.fetch_add(1, Ordering::Release);
    if value.is_empty() { ACCEPTED } else { REFUSED }
}

/// Of a flag, which is a number, and from PHP 8.6 on a bool.
fn is_no<T: Default + PartialEq>(flag: T) -> bool {
    flag == T::default()
}

unsafe extern "C" fn show_secret(entry: *mut zend_ini_entry, column: c_int) {
    /// `ZEND_INI_DISPLAY_ORIG`: what holds apart from this request.
    const MASTER: c_int = 1;
    // SAFETY: PHP calls a displayer with the live entry it belongs to.
    let Some(name) = unsafe { entry.as_ref() }.and_then(setting_of) else { return };
    let secrets = SECRETS.lock();
    let value = match column {
        MASTER => secrets.of_process(name),
        _ => secrets.get(name, thread::current().id()),
    };
    let value = String::from_utf8_lossy(value).into_owned();
    drop(secrets);
    if value.is_empty() {
        zend::print_info("no value");
    } else {
        zend::print_info(&config::shown(name, &value));
    }
}

/// `visit` sees every setting's present value, without a copy, until it answers `false`. The entries
/// are this thread's, found by name: a thread may give PHP's memory back between two requests and
/// get other memory for the next, so the address of an entry is not kept.
fn each(mut visit: impl FnMut(usize, &[u8]) -> bool) {
    for (index, setting) in SETTINGS.iter().enumerate() {
        let go_on = if setting.secret {
            visit(index, SECRETS.lock().get(setting.name, thread::current().id()))
        } else {
            visit(index, zend::ini_value(setting.name).map_or(&[], Str::bytes))
        };
        if !go_on {
            return;
        }
    }
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
        Config::parse(&ini, &environment)
    }

    /// The first setting whose value is no longer the one this process runs with. Contents are
    /// compared: a freed value's address can be used again, so a pointer proves nothing.
    pub fn first_change(&self) -> Option<&'static str> {
        // Before the comparison: a change in the middle of it is looked at next time.
        let changes = CHANGES.load(Ordering::Acquire);
        if COMPARED.get() == changes {
            return None;
        }
        let mut changed = None;
        each(|index, value| {
            if self.0.get(index).is_some_and(|then| then == value) {
                return true;
            }
            changed = SETTINGS.get(index).map(|setting| setting.name);
            false
        });
        if changed.is_none() {
            COMPARED.set(changes);
        }
        changed
    }
}
