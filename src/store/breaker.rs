//! When a whole host stops asking an authority that does not answer, who asks again, and when it is certain
//! that nobody answers: pure arithmetic over two words that the processes of a host share.

use std::time::Duration;

use super::{Heard, backoff, jittered};
use crate::clock::Moment;

/// Failures in a row (14 bits), whether they make it certain that it is out of reach (1 bit), whether
/// somebody probes (1 bit), and the moment until which nobody else asks (48 bits).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Breaker {
    pub failures: u16,
    /// It refused, or cannot be reached, or said nothing twice at least [`Breaker::PATIENCE`] apart. Until then
    /// it may be merely slow, and a host that did without it would mint what others mint.
    pub certain: bool,
    probing: bool,
    pub until: Moment,
}

impl Breaker {
    /// One lost connection is no outage. One silence is enough: it was waited for, and who asks next
    /// would wait as long.
    const TOLERATED: u16 = 3;
    const MOST: u16 = (1 << 14) - 1;
    const BASE: Duration = Duration::from_millis(250);
    const LONGEST: Duration = Duration::from_secs(5);
    /// A prober that has not reported after this is dead or stopped.
    const PROBE: Duration = Duration::from_secs(1);
    /// How long after a first question without an answer a second one decides.
    pub const PATIENCE: Duration = Duration::from_secs(1);

    pub fn unpack(word: u64) -> Self {
        Self {
            failures: (word >> 50) as u16,
            certain: word >> 49 & 1 == 1,
            probing: word >> 48 & 1 == 1,
            until: Moment::from_millis((word & ((1 << 48) - 1)) as i64),
        }
    }

    pub fn pack(self) -> u64 {
        let until = self.until.as_millis().max(0) as u64 & ((1 << 48) - 1);
        let flags = u64::from(self.certain) << 49 | u64::from(self.probing) << 48;
        u64::from(self.failures) << 50 | flags | until
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
    /// counted, a crowd's first second would be taken for a long outage. `silent_since`: since when
    /// nothing was heard.
    pub fn failed(self, heard: Heard, silent_since: Moment, now: Moment) -> Self {
        let waited = silent_since.until(now) >= Self::PATIENCE;
        let certain = self.certain || heard == Heard::Refusal || waited;
        if self.is_open() && !self.probing && now < self.until {
            return Self { certain, ..self };
        }
        let least = if heard == Heard::Silence { Self::TOLERATED } else { 0 };
        let failures = (self.failures + 1).min(Self::MOST).max(least);
        let pause = failures.checked_sub(Self::TOLERATED).map_or(Duration::ZERO, |over| {
            jittered(backoff(Self::BASE, u64::from(over) + 1).min(Self::LONGEST))
        });
        Self { failures, certain, probing: false, until: now.plus(pause) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOSED: Breaker =
        Breaker { failures: 0, certain: false, probing: false, until: Moment::from_millis(0) };

    fn at(ms: i64) -> Moment {
        Moment::from_millis(ms)
    }

    #[test]
    fn a_word_holds_all_of_it() {
        for failures in [0, 1, Breaker::MOST] {
            for (probing, certain) in [(false, false), (true, false), (false, true)] {
                let breaker = Breaker { failures, certain, probing, until: at((1 << 48) - 1) };
                assert_eq!(Breaker::unpack(breaker.pack()), breaker);
            }
        }
        assert_eq!(CLOSED.pack(), 0);
    }

    #[test]
    fn it_opens_at_the_third_failure_and_at_the_first_silence() {
        for heard in [Heard::Refusal, Heard::Lapse] {
            let failed = |breaker: Breaker| breaker.failed(heard, at(0), at(0));
            let twice = failed(failed(CLOSED));
            assert!(!twice.is_open());
            assert!(failed(twice).is_open());
        }
        assert!(CLOSED.failed(Heard::Silence, at(0), at(0)).is_open());
    }

    #[test]
    fn a_refusal_is_certain_at_once_and_a_silence_when_a_second_follows_it_a_second_later() {
        assert!(CLOSED.failed(Heard::Refusal, at(5_000), at(5_000)).certain);
        let once = CLOSED.failed(Heard::Silence, at(5_000), at(5_000));
        assert!(!once.certain);
        let probe = |now| once.probed(at(now)).unwrap().failed(Heard::Silence, at(5_000), at(now));
        assert!(!probe(5_999).certain);
        assert!(probe(6_000).certain);
    }

    #[test]
    fn a_crowd_that_was_waiting_when_it_opened_makes_the_pause_no_longer() {
        let opened = CLOSED.failed(Heard::Silence, at(1000), at(1000));
        let more = |breaker: Breaker, _| breaker.failed(Heard::Silence, at(1000), at(1001));
        let crowd = (0..200).fold(opened, more);
        assert_eq!(crowd, opened);
        assert!(opened.until <= at(1000).plus(Breaker::BASE * 2));
    }

    #[test]
    fn each_probe_that_fails_makes_the_pause_longer_up_to_a_limit() {
        let mut breaker = CLOSED.failed(Heard::Silence, at(0), at(0));
        let mut longest = 0;
        for _ in 0..12 {
            let now = breaker.until;
            assert_eq!(breaker.probed(at(now.as_millis() - 1)), None, "not before its time");
            breaker = breaker.probed(now).unwrap();
            assert_eq!(breaker.probed(now), None, "a second prober");
            breaker = breaker.failed(Heard::Silence, at(0), now);
            longest = longest.max(now.millis_until(breaker.until));
        }
        let limit = Breaker::LONGEST.as_millis() as i64;
        assert!((limit..=limit * 2).contains(&longest), "{longest}");
    }
}
