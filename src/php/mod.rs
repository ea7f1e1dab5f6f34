//! The PHP binding: the only part that knows PHP, and the only one that names concrete stores
//! (`runtime`). Everything here is thin; what can be decided without PHP is decided in the core.
//!
//! ```text
//! fast ──hit──> memo                 functions: names, parameters, the frame around a call
//!   │                                args, options: what was asked
//!   └─else─> tokens, rates ──> flights ──> tickets, callable ──> convert
//!            money ──┘  │         └──> runtime ──> engine, host, config (ini)
//!                       └──> sheets: what was parsed already
//! ```
//!
//! Between a callable and the boundary there is plain data only: a fatal error jumps over frames.
//! `exceptions` is the one crossing from a failure to a PHP exception.
#![allow(unsafe_code)]

mod args;
mod array;
mod callable;
mod convert;
mod counters;
mod defer;
mod entries;
mod exceptions;
mod fast;
mod fibers;
mod flights;
mod fork;
mod functions;
mod ini;
mod keys;
mod logger;
mod memo;
mod money;
mod options;
mod rates;
mod refresh;
mod runtime;
mod sheets;
mod status;
mod string;
mod tickets;
mod tokens;
mod zend;

use std::ptr::null_mut;

use ext_php_rs::builders::{ModuleBuilder, ModuleStartup};
use ext_php_rs::zend::{ModuleEntry, StaticModuleEntry};

const SUCCESS: i32 = 0;
const FAILURE: i32 = -1;

/// What PHP looks for when it loads the library. Null: not loadable, which PHP reports.
#[unsafe(no_mangle)]
pub extern "C" fn get_module() -> *mut ModuleEntry {
    static MODULE: StaticModuleEntry = StaticModuleEntry::new();
    let module = ModuleBuilder::new("sharedstate", env!("CARGO_PKG_VERSION"))
        .startup_function(startup)
        .shutdown_function(shutdown)
        .request_startup_function(request_startup)
        .request_shutdown_function(request_shutdown)
        .post_deactivate_function(post_deactivate)
        .info_function(status::info);
    let built: Result<(ModuleEntry, ModuleStartup, _), _> = functions::add(module).try_into();
    match built {
        Ok((entry, _, owned)) => MODULE.get_or_init(|| (entry, owned)),
        Err(_) => null_mut(),
    }
}

/// MINIT: registers, and opens nothing. No socket, no thread, no table: an FPM master may be root,
/// and what it opened all its children would share.
unsafe extern "C" fn startup(_: i32, module_number: i32) -> i32 {
    ini::register(module_number);
    keys::read_at_start();
    fork::watch();
    logger::install();
    if exceptions::register().is_err() {
        return FAILURE;
    }
    functions::mark_sensitive();
    SUCCESS
}

unsafe extern "C" fn shutdown(_: i32, module_number: i32) -> i32 {
    runtime::stop();
    logger::end();
    zend::unregister_ini(module_number);
    SUCCESS
}

unsafe extern "C" fn request_startup(_: i32, _: i32) -> i32 {
    ini::request_begins();
    logger::request_begins();
    runtime::request_begins();
    SUCCESS
}

/// RSHUTDOWN. The order matters: tickets first, for others wait for them; then what the request
/// counted and remembered. The application is not done yet: the session module, which comes later, calls its
/// handlers, and after that streams are closed.
unsafe extern "C" fn request_shutdown(_: i32, _: i32) -> i32 {
    defer::forget();
    give_back();
    memo::clear();
    logger::request_ends();
    runtime::request_is_ending();
    SUCCESS
}

/// The last that PHP calls in a request, when no code of the application runs any more.
unsafe extern "C" fn post_deactivate() -> i32 {
    if runtime::was_used_late() {
        give_back();
    }
    runtime::request_ends();
    SUCCESS
}

/// What must not outlive a request.
fn give_back() {
    tickets::abandon_all();
    counters::flush();
    sheets::request_ends();
}
