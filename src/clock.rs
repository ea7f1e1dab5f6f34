//! The only file that reads time. Everything else is told what time it is.
//!
//! Deadlines live on the *host timeline*: `CLOCK_MONOTONIC_COARSE` plus a skew that all processes
//! of the host share. The monotonic clock does not count the hours a machine slept or a virtual
//! machine was paused, and a token ages in them all the same. So when the wall clock runs ahead of
//! the monotonic one, the skew grows by as much and every deadline comes nearer at once. When the
//! wall clock steps back, nothing moves: an entry is then dropped too early, never too late.

use std::time::Duration;

/// A point on the host timeline, in milliseconds. Comparable between processes of one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(i64);

impl Moment {
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms)
    }

    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// How long from here to `later`; zero when `later` has passed.
    pub fn until(self, later: Self) -> Duration {
        Duration::from_millis(u64::try_from(later.0.saturating_sub(self.0)).unwrap_or(0))
    }

    /// `later − self` in milliseconds, negative when `later` has passed.
    pub fn millis_until(self, later: Self) -> i64 {
        later.0.saturating_sub(self.0)
    }

    pub fn plus(self, span: Duration) -> Self {
        self.plus_millis(i64::try_from(span.as_millis()).unwrap_or(i64::MAX))
    }

    pub fn plus_millis(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

/// Wall-clock time since the Unix epoch. For people, for `exp` claims and for fresh version
/// numbers; never for a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallTime(Duration);

impl WallTime {
    pub const fn from_unix_millis(ms: u64) -> Self {
        Self(Duration::from_millis(ms))
    }

    pub fn unix_millis(self) -> i64 {
        i64::try_from(self.0.as_millis()).unwrap_or(i64::MAX)
    }

    pub const fn since_epoch(self) -> Duration {
        self.0
    }

    pub fn unix_micros(self) -> u64 {
        u64::try_from(self.0.as_micros()).unwrap_or(u64::MAX)
    }
}

/// Who tells the time.
pub trait Clock: Send + Sync {
    fn now(&self) -> Moment;
    fn wall(&self) -> WallTime;
}

/// What one process reads of the kernel's clocks; two vDSO reads, no system call.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    pub monotonic: Moment,
    pub wall: WallTime,
}

/// The shared correction between the monotonic clock and the host timeline, packed into one word
/// so that a process killed at any instruction leaves it either unchanged or complete:
/// the wall − monotonic offset last seen (high 32 bits, seconds) and the skew (low 32 bits, seconds).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeline(u64);

impl Timeline {
    /// Offsets closer than this are the rounding to whole seconds, not a jump.
    const TOLERANCE_S: i64 = 1;

    pub fn first(reading: Reading) -> Self {
        Self(u64::from(Self::offset_of(reading)) << 32)
    }

    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    pub const fn word(self) -> u64 {
        self.0
    }

    #[inline]
    pub fn moment(self, monotonic: Moment) -> Moment {
        monotonic.plus_millis((self.0 & 0xffff_ffff) as i64 * 1000)
    }

    /// The timeline after `reading`, when a clock has jumped since the offset was noted.
    pub fn after(self, reading: Reading) -> Option<Self> {
        let (seen, skew) = ((self.0 >> 32) as i64, (self.0 & 0xffff_ffff) as i64);
        let offset = i64::from(Self::offset_of(reading));
        let jump = offset - seen;
        if jump.abs() <= Self::TOLERANCE_S {
            return None;
        }
        let skew = (skew + jump.max(0)).min(i64::from(u32::MAX));
        Some(Self((offset as u64) << 32 | skew as u64))
    }

    fn offset_of(reading: Reading) -> u32 {
        let seconds = (reading.wall.unix_millis() - reading.monotonic.as_millis()).max(0) / 1000;
        u32::try_from(seconds).unwrap_or(u32::MAX)
    }
}

/// The kernel's clocks.
#[cfg(any(feature = "host", feature = "redis", feature = "http"))]
pub mod system {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::{Clock, Duration, Moment, Reading, Timeline, WallTime};

    #[allow(unsafe_code, clippy::disallowed_methods)]
    fn read(clock: libc::clockid_t) -> libc::timespec {
        let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `at` is a valid timespec for the whole call, and the coarse clocks exist on
        // every Linux since 2.6.32; on failure `at` stays zero.
        unsafe { libc::clock_gettime(clock, &mut at) };
        at
    }

    /// 8 ns: the coarse clock's tick is 4 ms, and nothing here is timed more finely.
    #[inline]
    pub fn monotonic() -> Moment {
        let at = read(libc::CLOCK_MONOTONIC_COARSE);
        Moment::from_millis(at.tv_sec * 1000 + at.tv_nsec / 1_000_000)
    }

    pub fn wall() -> WallTime {
        let at = read(libc::CLOCK_REALTIME);
        WallTime(Duration::new(at.tv_sec.max(0) as u64, at.tv_nsec as u32))
    }

    pub fn reading() -> Reading {
        // A process stopped between the two reads would see a jump that was none.
        let mut before = monotonic();
        for _ in 0..10 {
            let (wall, after) = (wall(), monotonic());
            if before.until(after) <= Duration::from_millis(100) {
                return Reading { monotonic: after, wall };
            }
            before = after;
        }
        Reading { monotonic: before, wall: wall() }
    }

    /// The timeline of a process that shares no table: its skew is its own.
    #[derive(Debug)]
    pub struct ProcessClock(AtomicU64);

    impl ProcessClock {
        pub fn start() -> Self {
            Self(AtomicU64::new(Timeline::first(reading()).word()))
        }
    }

    impl Clock for ProcessClock {
        fn now(&self) -> Moment {
            let word = self.0.load(Ordering::Relaxed);
            let (reading, seen) = (reading(), Timeline::from_word(word));
            let Some(after) = seen.after(reading) else { return seen.moment(reading.monotonic) };
            // A thread that lost this race saw the same jump; its next reading uses the winner's.
            let _ =
                self.0.compare_exchange(word, after.word(), Ordering::Relaxed, Ordering::Relaxed);
            after.moment(reading.monotonic)
        }

        fn wall(&self) -> WallTime {
            wall()
        }
    }
}

#[cfg(test)]
pub mod fake {
    use super::{Clock, Moment, WallTime};
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::time::Duration;

    /// A clock that moves only when told to.
    #[derive(Debug)]
    pub struct FakeClock(AtomicI64);

    impl FakeClock {
        pub fn at(ms: i64) -> Self {
            Self(AtomicI64::new(ms))
        }

        pub fn advance(&self, span: Duration) {
            self.0.fetch_add(span.as_millis() as i64, Ordering::SeqCst);
        }
    }

    impl Clock for FakeClock {
        fn now(&self) -> Moment {
            Moment::from_millis(self.0.load(Ordering::SeqCst))
        }

        fn wall(&self) -> WallTime {
            WallTime::from_unix_millis(1_700_000_000_000 + self.0.load(Ordering::SeqCst) as u64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(monotonic_s: i64, wall_s: u64) -> Reading {
        Reading {
            monotonic: Moment::from_millis(monotonic_s * 1000),
            wall: WallTime::from_unix_millis(wall_s * 1000),
        }
    }

    #[test]
    fn a_sleeping_machine_brings_every_deadline_nearer_by_the_time_it_slept() {
        let line = Timeline::first(reading(100, 1_000_100));
        let deadline = line.moment(Moment::from_millis(100_000)).plus(Duration::from_secs(60));
        let woken = line.after(reading(101, 1_003_701)).unwrap();
        assert!(woken.moment(Moment::from_millis(101_000)) > deadline);
    }

    #[test]
    fn a_wall_clock_stepped_back_moves_no_deadline() {
        let line = Timeline::first(reading(100, 1_000_100));
        let stepped = line.after(reading(101, 999_000)).unwrap();
        assert_eq!(stepped.moment(Moment::from_millis(5)), line.moment(Moment::from_millis(5)));
    }

    #[test]
    fn an_hour_of_ordinary_time_is_no_jump() {
        let line = Timeline::first(reading(100, 1_000_100));
        assert_eq!(line.after(reading(3_700, 1_003_700)), None);
    }
}
