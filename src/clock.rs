//! The only file that reads time. Everything else is told what time it is.
//!
//! Deadlines of entries live on the *host timeline*: the wall clock plus a shift that all processes
//! of the host share. The wall clock counts the hours a machine slept, a virtual machine was paused
//! and its clock set right, and every token ages in them; so a jump ahead is in the very reading
//! that comes after it. When the wall clock steps back, the monotonic clock tells by how much, and
//! the shift grows by that: no deadline moves away. So an entry can be dropped too early by a clock
//! that is wrong, never served too late.
//!
//! Waits, sockets and rights end by the [`Uptime`] instead, which nobody can step.

pub mod server;

use std::marker::PhantomData;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::time::Duration;

#[cfg(test)]
pub mod simulated;

/// A point on a timeline, in milliseconds. Two timelines never mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment<Line = HostTimeline>(i64, PhantomData<Line>);

/// Comparable between processes of one boot; see [`Timeline`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct HostTimeline;

/// The kernel's monotonic clock: comparable between processes of one boot and one time namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Monotonic;

/// The kernel's wall clock, which anybody may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Wall;

/// A point on the monotonic clock.
pub type Uptime = Moment<Monotonic>;

impl<Line: Copy + Ord> Moment<Line> {
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms, PhantomData)
    }

    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// How long from here to `later`; zero when `later` has passed.
    pub fn until(self, later: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.millis_until(later)).unwrap_or(0))
    }

    /// `later − self` in milliseconds, negative when `later` has passed.
    pub fn millis_until(self, later: Self) -> i64 {
        later.0.saturating_sub(self.0)
    }

    pub fn plus(self, span: Duration) -> Self {
        self.plus_millis(i64::try_from(span.as_millis()).unwrap_or(i64::MAX))
    }

    pub fn plus_millis(self, ms: i64) -> Self {
        Self::from_millis(self.0.saturating_add(ms))
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

    /// Everything on the timeline comes nearer by `span`; see [`Timeline::bring_nearer`].
    fn bring_nearer(&self, span: Duration);

    /// What this host has watched of its authority's clock; `None` where it has not looked.
    fn watched(&self) -> Option<server::Watched> {
        None
    }
}

/// Lets time pass.
pub fn sleep(span: Duration) {
    #[cfg(test)]
    if simulated::slept(span) {
        return;
    }
    std::thread::sleep(span);
}

/// Both clocks of the kernel, read in one go.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    pub monotonic: Uptime,
    pub wall: Moment<Wall>,
}

/// How a host's wall clock and its timeline belong together. Two words that only grow, each by a
/// rule that may be applied twice or cut short: so processes that see the same jump agree without
/// a lock, and one that is killed in between leaves nothing half done. All zero is a new one.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Timeline {
    /// Milliseconds that the timeline is ahead of the wall clock. Any process, fetch-max; acquire
    /// loads, for it is read before the clocks are.
    shift: AtomicU64,
    /// Milliseconds that the timeline has at the most been ahead of the monotonic clock. Any process,
    /// fetch-max.
    lead: AtomicU64,
}

/// A jump of the wall clock by a second or more, told to whoever noticed it first. Milliseconds; negative:
/// it stepped back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jump(pub i64);

impl Timeline {
    /// Clocks that are read one after the other differ by a tick or two, and steps below it would
    /// not be told from that. Far below every margin.
    const TOLERANCE_MS: i64 = 40;

    /// Now, by a glance at both clocks, and by a careful look when one of them seems to have jumped. Stores
    /// nothing unless one has.
    #[inline]
    pub fn now(
        &self,
        glance: impl Fn() -> Reading,
        look: impl Fn() -> Reading,
    ) -> (Moment, Option<Jump>) {
        let (shift, lead) = self.words();
        // The shift before the clocks: one that has taken in a step goes with no older reading.
        let reading = glance();
        let ahead = ahead(reading, shift);
        if (ahead - lead).abs() <= Self::TOLERANCE_MS {
            return (on_timeline(reading.wall, shift), None);
        }
        self.jumped(look)
    }

    #[cold]
    fn jumped(&self, look: impl Fn() -> Reading) -> (Moment, Option<Jump>) {
        let (shift, lead) = self.words();
        let reading = look();
        let by = ahead(reading, shift) - lead;
        let jump = |news: bool| (news && lead > 0 && by.abs() >= 1000).then_some(Jump(by));
        if by > Self::TOLERANCE_MS {
            let after = lead.saturating_add(by) as u64;
            let before = self.lead.fetch_max(after, AcqRel);
            return (on_timeline(reading.wall, shift), jump(before < after));
        }
        if by < -Self::TOLERANCE_MS {
            let after = shift.saturating_sub(by);
            let before = self.shift.fetch_max(after as u64, AcqRel);
            return (on_timeline(reading.wall, after), jump(before < after as u64));
        }
        (on_timeline(reading.wall, shift), None)
    }

    /// Everything on the timeline comes nearer by `span`: this host stood still for so long and neither
    /// of its clocks knows.
    pub fn bring_nearer(&self, span: Duration) {
        let (shift, lead) = self.words();
        let span = i64::try_from(span.as_millis()).unwrap_or(0);
        self.shift.fetch_max(shift.saturating_add(span) as u64, AcqRel);
        self.lead.fetch_max(lead.saturating_add(span) as u64, AcqRel);
    }

    /// Time does not run backwards when `self` takes the place of `former`.
    pub fn go_on_from(&self, former: &Self) {
        let (shift, lead) = former.words();
        self.shift.fetch_max(shift as u64, AcqRel);
        self.lead.fetch_max(lead as u64, AcqRel);
    }

    fn words(&self) -> (i64, i64) {
        let word = |word: &AtomicU64| i64::try_from(word.load(Acquire)).unwrap_or(i64::MAX);
        (word(&self.shift), word(&self.lead))
    }
}

/// By how much the timeline is ahead of the monotonic clock; never behind it.
fn ahead(reading: Reading, shift: i64) -> i64 {
    let now = reading.wall.as_millis().saturating_add(shift);
    now.saturating_sub(reading.monotonic.as_millis()).max(0)
}

fn on_timeline(wall: Moment<Wall>, shift: i64) -> Moment {
    Moment::from_millis(wall.as_millis().saturating_add(shift))
}

/// The kernel's clocks.
#[cfg(any(feature = "host", feature = "redis", feature = "http"))]
pub mod system {
    use super::{Clock, Duration, Jump, Moment, Reading, Timeline, Uptime, Wall, WallTime};

    #[allow(unsafe_code, clippy::disallowed_methods)]
    #[inline]
    fn read(clock: libc::clockid_t) -> libc::timespec {
        #[cfg(test)]
        if let Some(at) = super::simulated::read(clock) {
            return at;
        }
        let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `at` is a valid timespec for the whole call, and the coarse clocks exist on
        // every Linux since 2.6.32; on failure `at` stays zero.
        unsafe { libc::clock_gettime(clock, &mut at) };
        at
    }

    fn coarse<Line: Copy + Ord>(clock: libc::clockid_t) -> Moment<Line> {
        let at = read(clock);
        Moment::from_millis(at.tv_sec * 1000 + at.tv_nsec / 1_000_000)
    }

    /// 10 ns: the coarse clock's tick is 4 ms, and nothing here is timed more finely.
    #[inline]
    pub fn monotonic() -> Uptime {
        coarse(libc::CLOCK_MONOTONIC_COARSE)
    }

    #[inline]
    fn wall_coarse() -> Moment<Wall> {
        coarse(libc::CLOCK_REALTIME_COARSE)
    }

    pub fn wall() -> WallTime {
        let at = read(libc::CLOCK_REALTIME);
        WallTime(Duration::new(at.tv_sec.max(0) as u64, at.tv_nsec as u32))
    }

    fn glance() -> Reading {
        Reading { monotonic: monotonic(), wall: wall_coarse() }
    }

    /// Both clocks tick together, so it is exact when the monotonic one stands still around it. A
    /// process that was stopped in the middle of a glance would see a jump that was none.
    fn look() -> Reading {
        let mut before = monotonic();
        for _ in 0..10 {
            let (wall, after) = (wall_coarse(), monotonic());
            if before == after {
                return Reading { monotonic: after, wall };
            }
            before = after;
        }
        glance()
    }

    /// A span of the wall clock, in which something is believed without a look at the host's other
    /// clock. Whichever way the wall clock jumps, it jumps out of it.
    #[derive(Clone, Copy, Debug)]
    pub struct Window {
        from: Moment<Wall>,
        millis: u64,
    }

    impl Window {
        /// From now on.
        pub fn open(span: Duration) -> Self {
            Self { from: wall_coarse(), millis: u64::try_from(span.as_millis()).unwrap_or(0) }
        }

        #[inline]
        pub fn is_open(self) -> bool {
            // What is before `from` becomes a very large number.
            (self.from.millis_until(wall_coarse()) as u64) < self.millis
        }
    }

    /// Where the timeline is, by this process's look at the clocks. A jump is said to the log once.
    #[inline]
    pub fn now_on(timeline: &Timeline) -> (Moment, Option<Jump>) {
        let (now, jump) = timeline.now(glance, look);
        if let Some(jump) = jump {
            tell(jump);
        }
        (now, jump)
    }

    #[cold]
    fn tell(Jump(ms): Jump) {
        let span = Duration::from_millis(ms.unsigned_abs());
        if ms > 0 {
            log::info!(
                "the machine slept, or its clock was set ahead, by {span:?}: deadlines have come nearer"
            );
        } else {
            log::info!("the machine's clock was set back by {span:?}: no deadline has moved");
        }
    }

    /// The timeline of a process that shares no table.
    #[derive(Debug, Default)]
    pub struct ProcessClock(Timeline);

    impl ProcessClock {
        pub fn start() -> Self {
            Self::default()
        }
    }

    impl Clock for ProcessClock {
        fn now(&self) -> Moment {
            now_on(&self.0).0
        }

        fn wall(&self) -> WallTime {
            wall()
        }

        fn bring_nearer(&self, span: Duration) {
            self.0.bring_nearer(span);
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

        fn bring_nearer(&self, span: Duration) {
            self.advance(span);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clocks that were started at 1,000,000 s of wall time.
    fn at(monotonic_s: i64, wall_s: u64) -> Reading {
        Reading {
            monotonic: Moment::from_millis(monotonic_s * 1000),
            wall: Moment::from_millis(wall_s as i64 * 1000),
        }
    }

    fn look(line: &Timeline, reading: Reading) -> (Moment, Option<Jump>) {
        line.now(|| reading, || reading)
    }

    fn now(line: &Timeline, reading: Reading) -> Moment {
        look(line, reading).0
    }

    fn seconds(from: Moment, to: Moment) -> i64 {
        from.millis_until(to) / 1000
    }

    #[test]
    fn the_first_reading_after_a_sleep_knows_of_all_of_it() {
        let line = Timeline::default();
        let asleep = now(&line, at(100, 1_000_100));
        let (awake, jump) = look(&line, at(101, 1_003_701));
        assert_eq!(seconds(asleep, awake), 3_601);
        assert_eq!(jump, Some(Jump(3_600_000)));
        assert_eq!(look(&line, at(102, 1_003_702)).1, None, "it is said once");
    }

    #[test]
    fn a_wall_clock_stepped_back_moves_no_deadline() {
        let line = Timeline::default();
        let before = now(&line, at(100, 1_000_100));
        assert_eq!(look(&line, at(101, 996_501)).1, Some(Jump(-3_600_000)));
        assert_eq!(seconds(before, now(&line, at(101, 996_501))), 1);
        assert_eq!(seconds(before, now(&line, at(161, 996_561))), 61, "and it goes on from there");
    }

    #[test]
    fn a_sleep_after_a_step_back_is_noticed_in_full() {
        let line = Timeline::default();
        let before = now(&line, at(100, 1_000_100));
        now(&line, at(101, 996_501));
        assert_eq!(seconds(before, now(&line, at(102, 996_501 + 601))), 602);
    }

    #[test]
    fn a_clock_that_goes_to_and_fro_makes_time_run_faster_and_never_back() {
        let line = Timeline::default();
        let mut last = now(&line, at(100, 1_000_100));
        for turn in 1..=20 {
            let wall = if turn % 2 == 0 { 1_000_100 } else { 1_000_400 };
            let next = now(&line, at(100 + turn, wall + turn as u64));
            assert!(last < next);
            last = next;
        }
    }

    #[test]
    fn an_hour_of_ordinary_time_is_no_jump() {
        let line = Timeline::default();
        let before = now(&line, at(100, 1_000_100));
        let (after, jump) = look(&line, at(3_700, 1_003_700));
        assert_eq!((seconds(before, after), jump), (3_600, None));
    }

    #[test]
    fn processes_that_see_the_same_step_take_it_in_once() {
        let line = Timeline::default();
        let before = now(&line, at(100, 1_000_100));
        // Both have read the words before either has written one.
        let (shift, lead) = line.words();
        for _ in 0..2 {
            let by = ahead(at(101, 999_101), shift) - lead;
            line.shift.fetch_max((shift - by) as u64, AcqRel);
        }
        assert_eq!(seconds(before, now(&line, at(101, 999_101))), 1);
    }

    #[test]
    fn small_steps_back_add_up_to_one_that_is_noticed() {
        let line = Timeline::default();
        let start = now(&line, at(100, 1_000_100));
        let step = |n: i64| Reading {
            monotonic: Moment::from_millis(100_000),
            wall: Moment::from_millis(1_000_100_000 - n * 30),
        };
        for n in 1..=100 {
            let behind = now(&line, step(n)).millis_until(start);
            assert!(behind <= Timeline::TOLERANCE_MS, "{behind} ms behind");
        }
    }

    #[test]
    fn a_device_that_boots_in_1970_keeps_its_deadlines_when_its_clock_is_set() {
        let line = Timeline::default();
        let before = now(&line, at(5, 5));
        assert_eq!(seconds(before, now(&line, at(6, 1_790_000_000))), 1_789_999_995);
    }

    #[test]
    fn a_host_that_stood_still_brings_its_deadlines_nearer() {
        let line = Timeline::default();
        let before = now(&line, at(100, 1_000_100));
        line.bring_nearer(Duration::from_secs(3600));
        assert_eq!(seconds(before, now(&line, at(101, 1_000_101))), 3_601);
        assert_eq!(seconds(before, now(&line, at(161, 1_000_161))), 3_661);
    }

    #[test]
    fn a_timeline_at_its_end_stays_there() {
        for (shift, lead) in
            [(u64::MAX, 0), (0, u64::MAX), (u64::MAX, u64::MAX), (i64::MAX as u64, 1)]
        {
            let line = Timeline { shift: shift.into(), lead: lead.into() };
            for (monotonic, wall) in [(100, 1_000_100), (101, 1_000_101), (102, 0)] {
                assert!(now(&line, at(monotonic, wall)).as_millis() >= 0, "{shift} {lead}");
            }
        }
    }

    #[cfg(any(feature = "host", feature = "redis", feature = "http"))]
    #[test]
    fn a_window_is_open_for_its_span_and_for_no_clock_before_it() {
        let window = system::Window::open(Duration::from_millis(60));
        assert!(window.is_open());
        std::thread::sleep(Duration::from_millis(80));
        assert!(!window.is_open());
        assert!(!system::Window::open(Duration::ZERO).is_open());
    }
}
