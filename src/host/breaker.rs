//! When a whole host stops asking an authority that does not answer, and who asks again: pure
//! arithmetic over one word of the table's header.

use std::time::Duration;

use crate::clock::Moment;
use crate::store::{backoff, jittered};

/// Failures in a row (high 16 bits) and the moment until which nobody asks.
#[derive(Clone, Copy, Debug)]
pub struct Breaker {
    pub failures: u16,
    pub until: Moment,
}

impl Breaker {
    /// One lost connection is no outage.
    pub const TOLERATED: u16 = 3;
    const BASE: Duration = Duration::from_millis(250);
    const LONGEST: Duration = Duration::from_secs(5);
    /// A prober that has not reported after this is dead or stopped.
    pub const PROBE: Duration = Duration::from_secs(1);

    pub fn unpack(word: u64) -> Self {
        Self {
            failures: (word >> 48) as u16,
            until: Moment::from_millis((word & ((1 << 48) - 1)) as i64),
        }
    }

    pub fn pack(self) -> u64 {
        u64::from(self.failures) << 48 | (self.until.as_millis().max(0) as u64 & ((1 << 48) - 1))
    }

    pub fn opened(self, now: Moment, pause: Duration) -> Self {
        Self { until: now.plus(pause), ..self }
    }

    /// After one more failure, and whether that opened it.
    pub fn failed(self, now: Moment) -> (Self, bool) {
        let failures = self.failures.saturating_add(1);
        let over = failures.checked_sub(Self::TOLERATED);
        let pause = over.map_or(Duration::ZERO, |over| {
            jittered(backoff(Self::BASE, u64::from(over) + 1).min(Self::LONGEST))
        });
        (Self { failures, ..self }.opened(now, pause), over == Some(0))
    }
}
