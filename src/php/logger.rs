//! Where log lines go: to PHP's error log. Other threads than PHP's must not touch the engine;
//! their lines wait here until a request ends.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::collections::VecDeque;
use std::ffi::{c_char, c_int};

use log::{LevelFilter, Log, Metadata, Record};
use parking_lot::Mutex;

use super::zend;

unsafe extern "C" {
    fn php_log_err_with_severity(message: *const c_char, severity: c_int);
}

/// Lines kept for later; the oldest go first.
const KEPT: usize = 64;

struct Logger;

static LATER: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

thread_local! {
    static PHP_THREAD: Cell<bool> = const { Cell::new(false) };
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level() && metadata.target().starts_with("sharedstate")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = format!("sharedstate: {}: {}", record.level(), record.args());
        if PHP_THREAD.get() {
            write(&line);
            return;
        }
        let mut later = LATER.lock();
        if later.len() >= KEPT {
            later.pop_front();
        }
        later.push_back(line);
    }

    fn flush(&self) {}
}

fn write(line: &str) {
    /// `LOG_NOTICE` of syslog(3): what PHP uses for its own log.
    const NOTICE: c_int = 5;
    let line = zend::c_string(line);
    // SAFETY: on a PHP thread, with a string that lives until the call returns.
    unsafe { php_log_err_with_severity(line.as_ptr(), NOTICE) };
}

/// MINIT. A second start of the module finds the logger in place.
pub fn install() {
    static LOGGER: Logger = Logger;
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(LevelFilter::Warn);
}

/// The configured level, and that this thread is one of PHP's.
pub fn set_up(level: LevelFilter) {
    PHP_THREAD.set(true);
    log::set_max_level(level);
}

/// RSHUTDOWN: what other threads had to say.
pub fn flush() {
    if !PHP_THREAD.get() {
        return;
    }
    let later = std::mem::take(&mut *LATER.lock());
    for line in later {
        write(&line);
    }
}
