//! A machine's clocks, as they come of true time: ahead or behind, too fast or too slow, stepped, or standing still because
//! the machine does. What runs on the machine sees nothing else; true time is the simulation's alone.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::simulated::{self, Shown};
use crate::clock::{Clock, Moment, Timeline, WallTime, system};
use crate::lock::Mutex;

/// Microseconds of true time.
pub type Micros = i64;

pub const MS: Micros = 1_000;
pub const SECOND: Micros = 1_000_000;

/// The coarse clocks' tick.
const TICK: Micros = 4 * MS;
const MILLION: i64 = 1_000_000;

/// Straight lines from the last change on.
#[derive(Clone, Copy, Debug)]
pub struct Hands {
    since: Micros,
    monotonic: Micros,
    /// What the wall clock is ahead of the monotonic one by: only a step changes that.
    ahead: Micros,
    /// Of a million; NTP slews both clocks.
    drift: i64,
    stands: bool,
}

impl Hands {
    pub fn new(now: Micros, monotonic: Micros, wall: Micros, drift: i64) -> Self {
        Self { since: now, monotonic, ahead: wall - monotonic, drift, stands: false }
    }

    pub fn monotonic(&self, now: Micros) -> Micros {
        let passed = if self.stands { 0 } else { now - self.since };
        self.monotonic + passed + passed * self.drift / MILLION
    }

    pub fn wall(&self, now: Micros) -> Micros {
        self.monotonic(now) + self.ahead
    }

    fn turn(&mut self, now: Micros) {
        (self.monotonic, self.since) = (self.monotonic(now), now);
    }

    pub fn step(&mut self, by: Micros) {
        self.ahead += by;
    }

    pub fn slew(&mut self, now: Micros, drift: i64) {
        self.turn(now);
        self.drift = drift;
    }

    pub fn stand(&mut self, now: Micros) {
        self.turn(now);
        self.stands = true;
    }

    pub fn go_on(&mut self, now: Micros) {
        self.turn(now);
        self.stands = false;
    }

    fn shown(&self, now: Micros) -> Shown {
        let micros = |micros: Micros| Duration::from_micros(micros.max(0) as u64);
        let monotonic = self.monotonic(now);
        let coarse = monotonic - monotonic.rem_euclid(TICK);
        Shown {
            monotonic: micros(coarse),
            wall_coarse: micros(coarse + self.ahead),
            wall: micros(monotonic + self.ahead),
        }
    }

    /// A true time at which `span` has passed by the monotonic clock, unless the machine stands still meanwhile.
    pub fn after(&self, now: Micros, span: Duration) -> Micros {
        let span = i64::try_from(span.as_micros()).unwrap_or(i64::MAX / 4).min(86_400 * SECOND);
        now + span * MILLION / (MILLION + self.drift) + 1
    }
}

/// A host's clocks, and its timeline: the one that is in use, over clocks that are simulated.
#[derive(Debug)]
pub struct HostClock {
    hands: Mutex<Hands>,
    timeline: Timeline,
}

impl HostClock {
    pub fn new(hands: Hands) -> Arc<Self> {
        Arc::new(Self { hands: Mutex::new(hands), timeline: Timeline::default() })
    }

    /// From here on this thread's clocks are this host's, at `now`.
    pub fn show(&self, now: Micros) {
        simulated::show(Some(self.hands.lock().shown(now)));
    }

    pub fn hands(&self) -> Hands {
        *self.hands.lock()
    }

    pub fn change(&self, change: impl FnOnce(&mut Hands)) {
        change(&mut self.hands.lock());
    }
}

thread_local! {
    static HOSTS: RefCell<Vec<Arc<HostClock>>> = RefCell::default();
}

/// The clocks of this world's hosts.
pub fn begin(clocks: Vec<Arc<HostClock>>) {
    HOSTS.set(clocks);
}

pub fn of(host: usize) -> Arc<HostClock> {
    HOSTS.with_borrow(|clocks| clocks[host].clone())
}

/// The host starts again, and its wall clock goes on.
pub fn reboot(host: usize, now: Micros, wall: Micros) -> Arc<HostClock> {
    let clock = HostClock::new(Hands::new(now, 10 * SECOND, wall, 0));
    HOSTS.with_borrow_mut(|clocks| clocks[host] = clock.clone());
    clock.show(now);
    clock
}

/// This thread's clocks are the host's from here on.
pub fn show(host: usize, now: Micros) {
    HOSTS.with_borrow(|clocks| clocks[host].show(now));
}

impl Clock for HostClock {
    fn now(&self) -> Moment {
        system::now_on(&self.timeline).0
    }

    fn wall(&self) -> WallTime {
        system::wall()
    }

    fn bring_nearer(&self, span: Duration) {
        self.timeline.bring_nearer(span);
    }
}
