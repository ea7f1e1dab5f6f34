//! How old an entry is that somebody else stored.
//!
//! Two pairs of clocks saw it minted and see it now: the server's then and now, and the wall clocks of
//! its minter and of this host. A server that took over may be minutes behind the one before it, a
//! clock may be stepped, a host may have the wrong time. So the two answers are not compared but
//! joined: an entry is as old as the pair says by which it is older. It is served too long only if
//! both pairs are wrong, in the same direction.
//!
//! One host whose clock is wrong would take all that others mint for too old. But of what was minted while it
//! watched the server's clock it knows which pair is wrong: not the server's ([`crate::clock::server::Watched`]).
//! For that the server must have seen the minting itself, at the time that the version says.

use crate::clock::{Moment, WallTime};
use crate::entry::{Timing, Version};

/// A row's instants, in milliseconds of the server's clock, and when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instants {
    pub minted: i64,
    pub refresh: i64,
    pub usable: i64,
    pub expires: i64,
    /// The minting by its minter's wall clock; an earlier release does not say.
    pub minted_wall: Option<i64>,
    /// When the server answered, by its clock.
    pub now: i64,
}

/// How far apart the two answers may be before somebody should be told. Clocks that nobody
/// synchronizes drift by seconds a day.
const WORTH_TELLING_MS: i64 = 5_000;
/// No mint lies in the future; clocks that are synchronized differ by a little.
const IN_STEP_MS: i64 = 2_000;

/// From when a lease is given until its mint begins; one that took longer is dated by both pairs.
const AT_ONCE_MS: u64 = 250;

/// An entry's timing, and in what the clocks disagree where that is worth telling.
pub struct Dated {
    pub timing: Timing,
    pub disagreement: Option<Disagreement>,
}

/// Each by so many milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disagreement {
    /// It is still to be minted, whomever one asks, so nobody knows how old it is.
    NotYet(i64),
    /// It is older by the hosts' clocks, and that counts.
    Older(i64),
    /// It is older by the hosts' clocks, one of which is wrong.
    Refuted(i64),
}

impl Instants {
    /// Whether it was minted when its lease was given, which is what its version says where it is the server's own.
    /// Who gave the entry back later may have stood still, and told the server so much too little of its age.
    pub fn agree_with(&self, version: Version) -> bool {
        let given = i64::try_from(version.0 / 1000).unwrap_or(i64::MAX);
        self.minted.saturating_sub(given).unsigned_abs() <= AT_ONCE_MS
    }

    /// On this host's timeline, by the moment and wall time from before the question was sent: its way
    /// brings deadlines nearer. `vouched`: the host knows that the server's clock is right about it.
    pub fn dated(&self, now: Moment, wall: WallTime, vouched: bool) -> Dated {
        let by_server = self.now.saturating_sub(self.minted);
        let by_hosts = self.minted_wall.map(|minted| wall.unix_millis().saturating_sub(minted));
        let apart = by_hosts.map_or(0, |by_hosts| by_hosts.saturating_sub(by_server));
        let refuted = vouched && apart > IN_STEP_MS;
        let by_hosts = by_hosts.filter(|_| !refuted);
        let age = by_hosts.map_or(by_server, |by_hosts| by_hosts.max(by_server));
        if age < -IN_STEP_MS {
            let disagreement = Some(Disagreement::NotYet(age.saturating_neg()));
            return Dated { timing: Timing::over(now), disagreement };
        }
        let minted_at = now.plus_millis(-age.max(0));
        let at = |instant: i64| minted_at.plus_millis(instant.saturating_sub(self.minted));
        let timing = Timing {
            minted_at,
            refresh_at: at(self.refresh),
            usable_until: at(self.usable),
            expires_at: at(self.expires),
        };
        // A host whose clock is behind learns nothing wrong.
        let what = if refuted { Disagreement::Refuted } else { Disagreement::Older };
        let disagreement = (apart > WORTH_TELLING_MS).then(|| what(apart));
        Dated { timing, disagreement }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment::from_millis(50_000_000);
    const WALL: i64 = 1_790_000_000_000;

    /// Of an hour, minted ten minutes ago by a server and a minter that are ahead of ours by so much.
    fn dated_by(server_ahead: i64, minter_ahead: Option<i64>, vouched: bool) -> Dated {
        let minted = WALL - 600_000;
        let server_now = 777_000_000_000;
        let of_server = server_now - 600_000 + server_ahead;
        let instants = Instants {
            minted: of_server,
            refresh: of_server + 2_800_000,
            usable: of_server + 3_540_000,
            expires: of_server + 3_600_000,
            minted_wall: minter_ahead.map(|ahead| minted + ahead),
            now: server_now,
        };
        instants.dated(NOW, WallTime::from_unix_millis(WALL as u64), vouched)
    }

    fn dated(server_ahead: i64, minter_ahead: Option<i64>) -> Dated {
        dated_by(server_ahead, minter_ahead, false)
    }

    fn left(dated: &Dated) -> i64 {
        NOW.millis_until(dated.timing.expires_at)
    }

    #[test]
    fn where_all_clocks_agree_its_age_is_what_they_say() {
        let dated = dated(0, Some(0));
        assert_eq!(left(&dated), 3_000_000);
        assert_eq!(dated.disagreement, None);
        assert_eq!(NOW.millis_until(dated.timing.refresh_at), 2_200_000);
    }

    #[test]
    fn of_a_server_whose_clock_is_behind_the_hosts_know_better() {
        for behind in [300_000, 700_000, 86_400_000] {
            let dated = dated(behind, Some(0));
            assert_eq!(left(&dated), 3_000_000, "{behind} ms behind");
            assert_eq!(dated.disagreement, Some(Disagreement::Older(behind)));
        }
    }

    #[test]
    fn of_hosts_whose_clocks_differ_the_server_knows_better_or_it_is_dropped_early() {
        let younger = dated(0, Some(300_000));
        assert_eq!((left(&younger), younger.disagreement), (3_000_000, None));
        let older = dated(0, Some(-300_000));
        assert_eq!(left(&older), 2_700_000);
        assert_eq!(older.disagreement, Some(Disagreement::Older(300_000)));
    }

    #[test]
    fn a_host_that_has_watched_the_servers_clock_knows_that_a_hosts_clock_is_wrong() {
        let dated = dated_by(0, Some(-300_000), true);
        assert_eq!(left(&dated), 3_000_000);
        assert_eq!(dated.disagreement, Some(Disagreement::Refuted(300_000)));
        let ahead = dated_by(-300_000, Some(0), true);
        assert_eq!(left(&ahead), 2_700_000, "older is older");
        // By less than can be seen of a step, the hosts may still be right.
        let little = dated_by(0, Some(-1_900), true);
        assert_eq!((left(&little), little.disagreement), (2_998_100, None));
    }

    #[test]
    fn a_server_that_runs_ahead_ends_it_early() {
        assert_eq!(left(&dated(-300_000, Some(0))), 2_700_000);
    }

    #[test]
    fn of_what_every_clock_says_is_still_to_be_minted_the_age_is_unknown_and_nothing_is_left() {
        for minter in [None, Some(602_001)] {
            let dated = dated(602_001, minter);
            assert_eq!(left(&dated), 0);
            assert_eq!(dated.disagreement, Some(Disagreement::NotYet(2_001)));
        }
    }

    #[test]
    fn clocks_in_step_differ_by_a_little_and_no_life_grows_by_it() {
        let dated = dated(601_500, None);
        assert_eq!(left(&dated), 3_600_000, "a whole life and no more");
        assert_eq!(dated.timing.minted_at, NOW);
    }

    #[test]
    fn whatever_a_stranger_writes_nothing_overflows() {
        for at in [i64::MIN, -1, 0, i64::MAX] {
            for now in [i64::MIN, 0, i64::MAX] {
                let (minted_wall, expires) = (Some(at), at);
                let (minted, refresh, usable) = (at, now, at);
                let instants = Instants { minted, refresh, usable, expires, minted_wall, now };
                for vouched in [false, true] {
                    instants.dated(NOW, WallTime::from_unix_millis(WALL as u64), vouched);
                }
            }
        }
    }

    #[test]
    fn an_entry_is_as_its_lease_was_given_unless_who_gave_it_back_had_stood_still() {
        let given = Version(1_790_000_000_000_123);
        let (end, now) = (1_790_003_600_000, 1_790_000_600_000);
        let (usable, minted_wall) = (end, None);
        let minted = |later: i64| {
            let minted = 1_790_000_000_000 + later;
            Instants { minted, refresh: end, usable, expires: end, minted_wall, now }
        };
        assert!(minted(3).agree_with(given));
        for later in [19_000, 300, -300] {
            assert!(!minted(later).agree_with(given), "{later}");
        }
        assert!(!minted(0).agree_with(Version(u64::MAX)));
    }
}
