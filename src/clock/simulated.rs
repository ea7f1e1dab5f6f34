//! Clocks of the thread's own, for a simulation: what runs on it sees the time that it is told, and sleeps as it is told.

use std::cell::Cell;
use std::time::Duration;

/// What the kernel's clocks show: since the host was started, and since 1970. Coarse, and to the microsecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    pub monotonic: Duration,
    pub wall_coarse: Duration,
    pub wall: Duration,
}

thread_local! {
    static SHOWN: Cell<Option<Shown>> = const { Cell::new(None) };
    static SLEEP: Cell<Option<fn(Duration)>> = const { Cell::new(None) };
}

/// From here on this thread's clocks show `shown` and stand still; `None`: they are the kernel's again.
pub fn show(shown: Option<Shown>) {
    SHOWN.set(shown);
}

/// From here on `sleep` sleeps on this thread.
pub fn sleep_by(sleep: Option<fn(Duration)>) {
    SLEEP.set(sleep);
}

/// Whether this thread slept so.
pub(super) fn slept(span: Duration) -> bool {
    SLEEP.get().map(|sleep| sleep(span)).is_some()
}

#[cfg(any(feature = "host", feature = "redis", feature = "http"))]
pub(super) fn read(clock: libc::clockid_t) -> Option<libc::timespec> {
    let shown = SHOWN.get()?;
    let at = match clock {
        libc::CLOCK_MONOTONIC_COARSE => shown.monotonic,
        libc::CLOCK_REALTIME_COARSE => shown.wall_coarse,
        _ => shown.wall,
    };
    Some(libc::timespec { tv_sec: at.as_secs() as i64, tv_nsec: at.subsec_nanos().into() })
}
