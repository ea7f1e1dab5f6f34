//! Where log lines go: to the file that is configured, else to PHP's error log. Other threads than
//! PHP's must not touch the engine; their lines for PHP's log wait here until a request ends.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::collections::VecDeque;
use std::ffi::{c_char, c_int};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::{LevelFilter, Log, Metadata, Record};
use parking_lot::{Mutex, RwLock};
use time::OffsetDateTime;

use super::zend;
use crate::clock::system;
use crate::config::Config;

unsafe extern "C" {
    fn php_log_err_with_severity(message: *const c_char, severity: c_int);
}

/// Other threads hold these locks for microseconds; but in a child that was forked just then, they
/// are held for ever.
const PATIENCE: Duration = Duration::from_millis(1);

/// Lines kept for later; the oldest go first.
const KEPT: usize = 64;

struct Logger;

static FILE: RwLock<Option<PathBuf>> = RwLock::new(None);
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
        let level = record.level().as_str().to_ascii_lowercase();
        let line = format!("sharedstate: {level}: {}", record.args());
        let file = FILE.try_read_for(PATIENCE).and_then(|file| file.clone());
        match file {
            Some(file) if append(&file, &line).is_ok() => {}
            _ if PHP_THREAD.get() => write(&line),
            _ => later(line),
        }
    }

    fn flush(&self) {}
}

/// Opened for every line: lines are rare, and a rotated file is followed at once.
fn append(file: &Path, line: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    file.write_all(format!("{} {line}\n", timestamp()).as_bytes())
}

fn timestamp() -> String {
    let seconds = system::wall().unix_millis() / 1000;
    let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second) = at.to_hms();
    format!("{year}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z", u8::from(month))
}

fn write(line: &str) {
    /// `LOG_NOTICE` of syslog(3): what PHP uses for its own log.
    const NOTICE: c_int = 5;
    let line = zend::c_string(line);
    // SAFETY: on a PHP thread, with a string that lives until the call returns.
    unsafe { php_log_err_with_severity(line.as_ptr(), NOTICE) };
}

fn later(line: String) {
    let Some(mut lines) = LATER.try_lock_for(PATIENCE) else { return };
    if lines.len() >= KEPT {
        lines.pop_front();
    }
    lines.push_back(line);
}

/// MINIT. A second start of the module finds the logger in place.
pub fn install() {
    static LOGGER: Logger = Logger;
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(LevelFilter::Warn);
    // A panic becomes a PHP error. Its place is worth a line; its words could hold a value.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        log::error!("internal error at {place}");
    }));
}

/// RINIT: this thread is one of PHP's.
pub fn request_begins() {
    PHP_THREAD.set(true);
}

pub fn configure(config: &Config) {
    log::set_max_level(config.log_level);
    if let Some(mut file) = FILE.try_write_for(PATIENCE) {
        file.clone_from(&config.log);
    }
}

/// RSHUTDOWN: what other threads had to say.
pub fn flush() {
    let lines = LATER.try_lock().map(|mut lines| std::mem::take(&mut *lines));
    for line in lines.unwrap_or_default() {
        write(&line);
    }
}
