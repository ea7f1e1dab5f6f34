//! How old a sheet's rates are: the market's time, which no confirmation makes younger.

use std::time::Duration;

use crate::clock::{Moment, WallTime};
use crate::error::Error;

/// The moment a sheet's rates are of; on the host timeline, so that what is remembered ages too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age(Moment);

impl Age {
    /// From the as-of (seconds since 1970), or from the confirmation where the source did not say.
    pub fn of(as_of: Option<i64>, confirmed_at: Moment, now: Moment, wall: WallTime) -> Self {
        // A sheet has refused whatever would not fit into milliseconds.
        let as_of = as_of.map(|as_of| now.plus_millis(as_of * 1000 - wall.unix_millis()));
        Self(as_of.unwrap_or(confirmed_at))
    }

    /// Whole seconds; zero for an as-of that a clock of ours has not reached yet.
    pub fn seconds(self, now: Moment) -> u64 {
        self.0.until(now).as_secs()
    }

    /// Until when the rates are no older than `max_age`, in whole seconds.
    /// Fails with [`Error::RateUnavailable`] when they are.
    pub fn within(self, max_age: Duration, now: Moment) -> Result<Moment, Error> {
        let until = self.0.plus(max_age).plus(Duration::from_secs(1));
        if now < until {
            return Ok(until);
        }
        Err(Error::RateUnavailable(format!(
            "the rates are {} seconds old, and 'max_age_s' allows {}",
            self.seconds(now),
            max_age.as_secs()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment::from_millis(5_000_000);
    const WALL: WallTime = WallTime::from_unix_millis(1_700_000_000_400);

    #[test]
    fn age_counts_from_the_as_of_and_without_one_from_the_confirmation() {
        let confirmed_at = NOW.plus_millis(-7_900);
        let age = |as_of| Age::of(as_of, confirmed_at, NOW, WALL).seconds(NOW);
        assert_eq!(age(Some(1_699_999_000)), 1_000);
        assert_eq!(age(None), 7);
        assert_eq!(age(Some(1_700_000_060)), 0, "a clock behind the source's");
    }

    #[test]
    fn a_bound_holds_for_as_long_as_the_age_it_shows() {
        let age = Age::of(Some(1_699_999_400), NOW, NOW, WALL);
        let bound = |max| age.within(Duration::from_secs(max), NOW);
        assert_eq!(age.seconds(NOW), 600);
        let until = bound(600).unwrap();
        assert_eq!(age.seconds(until.plus_millis(-1)), 600);
        assert_eq!(age.seconds(until), 601);
        let sentence = bound(599).unwrap_err().to_string();
        assert!(sentence.contains("600 seconds old") && sentence.contains("599"), "{sentence}");
    }
}
