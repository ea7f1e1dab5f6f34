//! When a whole host stops asking an authority that does not answer, and who asks again: pure
//! arithmetic over one word of the table's header.

use std::time::Duration;

use crate::clock::Moment;
use crate::store::{Heard, backoff, jittered};

/// Failures in a row (15 bits), whether somebody probes (1 bit), and the moment until which nobody
/// else asks (48 bits).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Breaker {
    pub failures: u16,
    probing: bool,
    pub until: Moment,
}

impl Breaker {
    /// One lost connection is no outage. One silence is enough: it was waited for, and who asks next
    /// would wait as long.
    const TOLERATED: u16 = 3;
    const MOST: u16 = (1 << 15) - 1;
    const BASE: Duration = Duration::from_millis(250);
    const LONGEST: Duration = Duration::from_secs(5);
    /// A prober that has not reported after this is dead or stopped.
    const PROBE: Duration = Duration::from_secs(1);

    pub fn unpack(word: u64) -> Self {
        Self {
            failures: (word >> 49) as u16,
            probing: word >> 48 & 1 == 1,
            until: Moment::from_millis((word & ((1 << 48) - 1)) as i64),
        }
    }

    pub fn pack(self) -> u64 {
        let until = self.until.as_millis().max(0) as u64 & ((1 << 48) - 1);
        u64::from(self.failures) << 49 | u64::from(self.probing) << 48 | until
    }

    pub fn is_open(self) -> bool {
        self.failures >= Self::TOLERATED
    }

    /// Open, and one process asks; `None` while it is not time yet.
    pub fn probed(self, now: Moment) -> Option<Self> {
        let until = now.plus(Self::PROBE);
        (now >= self.until).then_some(Self { probing: true, until, ..self })
    }

    /// After one more failure. Those who had asked before it opened say nothing new: were they
    /// counted, a crowd's first second would be taken for a long outage.
    pub fn failed(self, heard: Heard, now: Moment) -> Self {
        if self.is_open() && !self.probing && now < self.until {
            return self;
        }
        let least = if heard == Heard::Silence { Self::TOLERATED } else { 0 };
        let failures = (self.failures + 1).min(Self::MOST).max(least);
        let pause = failures.checked_sub(Self::TOLERATED).map_or(Duration::ZERO, |over| {
            jittered(backoff(Self::BASE, u64::from(over) + 1).min(Self::LONGEST))
        });
        Self { failures, probing: false, until: now.plus(pause) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOSED: Breaker = Breaker { failures: 0, probing: false, until: Moment::from_millis(0) };

    fn at(ms: i64) -> Moment {
        Moment::from_millis(ms)
    }

    #[test]
    fn a_word_holds_all_of_it() {
        for failures in [0, 1, Breaker::MOST] {
            for probing in [false, true] {
                let breaker = Breaker { failures, probing, until: at((1 << 48) - 1) };
                assert_eq!(Breaker::unpack(breaker.pack()), breaker);
            }
        }
        assert_eq!(CLOSED.pack(), 0);
    }

    #[test]
    fn it_opens_at_the_third_failure_and_at_the_first_silence() {
        let twice = CLOSED.failed(Heard::Failure, at(0)).failed(Heard::Failure, at(0));
        assert!(!twice.is_open());
        assert!(twice.failed(Heard::Failure, at(0)).is_open());
        assert!(CLOSED.failed(Heard::Silence, at(0)).is_open());
    }

    #[test]
    fn a_crowd_that_was_waiting_when_it_opened_makes_the_pause_no_longer() {
        let opened = CLOSED.failed(Heard::Silence, at(1000));
        let crowd = (0..200).fold(opened, |breaker, _| breaker.failed(Heard::Silence, at(1001)));
        assert_eq!(crowd, opened);
        assert!(opened.until <= at(1000).plus(Breaker::BASE * 2));
    }

    #[test]
    fn each_probe_that_fails_makes_the_pause_longer_up_to_a_limit() {
        let mut breaker = CLOSED.failed(Heard::Silence, at(0));
        let mut longest = 0;
        for _ in 0..12 {
            let now = breaker.until;
            assert_eq!(breaker.probed(at(now.as_millis() - 1)), None, "not before its time");
            breaker = breaker.probed(now).unwrap();
            assert_eq!(breaker.probed(now), None, "a second prober");
            breaker = breaker.failed(Heard::Silence, now);
            longest = longest.max(now.millis_until(breaker.until));
        }
        let limit = Breaker::LONGEST.as_millis() as i64;
        assert!((limit..=limit * 2).contains(&longest), "{longest}");
    }
}
