//! Log lines, and PHP's own log among the sinks. That one may be written to by a thread of PHP's alone, and
//! within a request: php-fpm sends it to the web server along with the answer, and loses what comes
//! later. What is said after the answer goes to the system's logger, or where there is none to the
//! standard error; what another thread says waits for the next request, and goes there when none comes.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::collections::VecDeque;
use std::ffi::{c_char, c_int};
use std::time::Duration;

use log::{Level, LevelFilter, Log, Metadata, Record};

use super::zend;
use crate::clock::{Uptime, system};
use crate::config::Config;
use crate::journal::{Limiter, Sink, line, severity};
use crate::lock::Mutex;

unsafe extern "C" {
    fn php_log_err_with_severity(message: *const c_char, severity: c_int);
}

/// Other threads hold these locks for microseconds; but in a child that was forked just then, they
/// are held for ever.
const PATIENCE: Duration = Duration::from_millis(1);

/// Lines kept for later; the oldest go first.
const KEPT: usize = 64;
/// How long a line waits for a request.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

struct Logger;

struct Waiting {
    since: Uptime,
    level: Level,
    message: String,
}

static SINK: Mutex<Sink> = Mutex::new(Sink::Php);
static LATER: Mutex<VecDeque<Waiting>> = Mutex::new(VecDeque::new());
static LIMIT: Mutex<Option<Limiter>> = Mutex::new(None);

/// What PHP's log is to a thread.
#[derive(Clone, Copy, PartialEq)]
enum PhpLog {
    /// Not to be touched: the thread is none of PHP's, or has no request.
    Forbidden,
    Open,
    /// The request goes on, but it has been answered.
    Deaf,
}

thread_local! {
    static PHP_LOG: Cell<PhpLog> = const { Cell::new(PhpLog::Forbidden) };
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level() && metadata.target().starts_with("sharedstate")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let (level, message) = (record.level(), record.args().to_string());
        let kind = (record.file_static().unwrap_or_default(), record.line().unwrap_or_default());
        let lines = match LIMIT.try_lock_for(PATIENCE) {
            Some(mut limit) => {
                limit.get_or_insert_default().lines(kind, level, message, system::monotonic())
            }
            None => vec![(level, message)],
        };
        lines.into_iter().for_each(|(level, message)| tell(level, message));
    }

    /// Called now and then by the background thread, in case that no request comes.
    fn flush(&self) {
        tell_overdue();
        let late = system::monotonic().plus_millis(-(LONGEST_WAIT.as_millis() as i64));
        tell_without_php(|waiting| waiting.since <= late);
    }
}

fn tell(level: Level, message: String) {
    let sink = SINK.try_lock_for(PATIENCE).map(|sink| sink.clone());
    if sink.is_some_and(|sink| sink.write(level, &message, system::wall()).is_ok()) {
        return;
    }
    match PHP_LOG.get() {
        PhpLog::Open => write(level, &message),
        PhpLog::Deaf => write_elsewhere(level, &message),
        PhpLog::Forbidden => later(level, message),
    }
}

fn write_elsewhere(level: Level, message: &str) {
    let wall = system::wall();
    if Sink::Syslog.write(level, message, wall).is_err() {
        // Nobody is left to tell that this failed, too.
        let _ = Sink::Stderr.write(level, message, wall);
    }
}

fn write(level: Level, message: &str) {
    let line = zend::c_string(&line(level, message));
    let severity = c_int::try_from(severity(level)).unwrap_or(c_int::MAX);
    // SAFETY: on a PHP thread, within a request, with a string that lives until the call returns.
    unsafe { php_log_err_with_severity(line.as_ptr(), severity) };
}

fn later(level: Level, message: String) {
    let Some(mut lines) = LATER.try_lock_for(PATIENCE) else { return };
    if lines.len() >= KEPT {
        lines.pop_front();
    }
    lines.push_back(Waiting { since: system::monotonic(), level, message });
}

fn tell_overdue() {
    let lines = LIMIT
        .try_lock_for(PATIENCE)
        .and_then(|mut limit| limit.as_mut().map(|limit| limit.overdue(system::monotonic())));
    lines.into_iter().flatten().for_each(|(level, message)| tell(level, message));
}

/// Lines that waited for a request, to whoever hears them otherwise.
fn tell_without_php(is_late: impl Fn(&Waiting) -> bool) {
    let Some(mut lines) = LATER.try_lock_for(PATIENCE) else { return };
    let late: Vec<Waiting> = {
        let count = lines.iter().take_while(|waiting| is_late(waiting)).count();
        lines.drain(..count).collect()
    };
    drop(lines);
    late.iter().for_each(|waiting| write_elsewhere(waiting.level, &waiting.message));
}

/// What other threads had to say.
fn tell_waiting() {
    let lines = LATER.try_lock().map(|mut lines| std::mem::take(&mut *lines));
    for Waiting { level, message, .. } in lines.into_iter().flatten() {
        write(level, &message);
    }
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
    PHP_LOG.set(PhpLog::Open);
    tell_waiting();
}

/// The answer is complete before the request is: what is said from here on, PHP's log may lose.
pub fn answer_ends() {
    PHP_LOG.set(PhpLog::Deaf);
}

pub fn configure(config: &Config) {
    log::set_max_level(config.log_level);
    if let Some(mut sink) = SINK.try_lock_for(PATIENCE) {
        sink.clone_from(&config.log);
    }
}

/// RSHUTDOWN.
pub fn request_ends() {
    tell_overdue();
    if PHP_LOG.replace(PhpLog::Forbidden) == PhpLog::Open {
        tell_waiting();
    }
}

/// MSHUTDOWN: no request comes any more.
pub fn end() {
    tell_without_php(|_| true);
}
