//! What a host knows of its authority's clock by looking at it, once a second.

use std::time::Duration;

use super::{Moment, Uptime};

/// What an answer may take on its way, and clocks may differ by until the next.
const TOLERANCE_MS: i64 = 2_000;
/// Who has not looked for longer has not watched: nobody led, or the way to the server was cut.
const UNWATCHED_MS: i64 = 5_000;
/// Servers that take turns, and whose clocks differ, may bring what is held nearer its end once in this time.
const LONG_MS: i64 = 600_000;
/// Ticks, and what clocks drift by from one look to the next. A clock that is set by less than that is believed, so
/// it must be far below every margin.
const STEP_MS: i64 = 100;

/// What a server told of its clock, in milliseconds, and between which readings of this host's monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerTime {
    pub clock: i64,
    pub sent: Uptime,
    pub heard: Uptime,
}

impl ServerTime {
    /// By how much that clock leads at the least; an answer that took long makes it less.
    fn least(&self) -> i64 {
        self.clock.saturating_sub(self.heard.as_millis())
    }

    fn most(&self) -> i64 {
        self.clock.saturating_sub(self.sent.as_millis())
    }

    /// Whether that clock has gone back since, however long the answers were under way.
    pub fn is_set_back(&self, since: &Self) -> bool {
        self.most() < since.least()
    }
}

/// By how many milliseconds a server's clock was ahead of the host timeline when it was first heard. A
/// virtual machine that was paused, and whose clock is then slewed, does not know of it by either of its own
/// clocks; a server that it speaks to does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerLead(Option<i64>);

/// What came of one more look at the server's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeardClock {
    pub lead: ServerLead,
    /// By so much this host stood still, or that clock was set ahead: nobody can tell, so it is taken for
    /// the first.
    pub gained: Option<Duration>,
}

impl ServerLead {
    pub fn from_word(word: i64) -> Self {
        Self((word != 0).then_some(word))
    }

    pub fn word(self) -> i64 {
        self.0.unwrap_or(0)
    }

    /// `told` by the server some time before `now`, so what it leads by is more rather than less.
    /// `sure`: its clock has gone back since it was heard last ([`ServerTime::is_set_back`]), or it is the one that
    /// this host has watched for long ([`Watched::for_long`]).
    pub fn heard(self, told: i64, now: Moment, sure: bool) -> HeardClock {
        let least = told.saturating_sub(now.as_millis());
        let Some(known) = self.0 else {
            return HeardClock { lead: Self(Some(least)), gained: None };
        };
        let gained = least.saturating_sub(known);
        if gained > TOLERANCE_MS {
            let span = Duration::from_millis(gained.unsigned_abs());
            return HeardClock { lead: self, gained: Some(span) };
        }
        // Another server's clock that is behind proves nothing, and the first may be back soon; nor does a host
        // timeline that has gone ahead. But a lead that is too large hides a standstill. What the clock gains little by
        // little is kept until it is worth a step.
        let lead = if gained < -TOLERANCE_MS && sure { Self(Some(least)) } else { self };
        HeardClock { lead, gained: None }
    }
}

/// A server's clock as this host has watched it beside its own monotonic clock, which nobody can set. So the
/// host is a witness of its own: of what was minted since, it knows that the server's clock says how old it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Milliseconds that the server's clock is ahead of the monotonic clock.
    pub lead: i64,
    /// No instant that it told since, and none that it told another host, lies before a step back that was
    /// not seen. In milliseconds of that clock. It only grows.
    pub since: i64,
    /// The first look at this very clock, and the last.
    pub from: Uptime,
    pub at: Uptime,
}

impl Watched {
    /// One more look, or the first. `noted` is the latest instant that the server has noted, perhaps by the clock
    /// of one that it took over from.
    pub fn look(known: Option<Self>, told: &ServerTime, noted: i64) -> Self {
        let (least, most, at) = (told.least(), told.most(), told.heard);
        let anew = |since: i64| {
            let since = since.max(told.clock).max(noted);
            Self { lead: least, since, from: at, at }
        };
        let Some(Self { lead, since, from, at: last }) = known else { return anew(i64::MIN) };
        if last.millis_until(at) > UNWATCHED_MS || least > lead.saturating_add(STEP_MS) {
            // This host stood still, and has not watched; or that clock was set ahead.
            return anew(since);
        }
        if most < lead.saturating_sub(STEP_MS) {
            // Set back, or another server's. What the former clock told to others may lie ahead of this one's.
            let former = at.as_millis().saturating_add(lead);
            return anew(since.max(former));
        }
        // What it has noted of later than now a clock told that was not seen here.
        let unseen = noted > told.clock.saturating_add(STEP_MS);
        let since = if unseen { since.max(noted) } else { since };
        // Clocks drift, so the last answer is believed, as far as it says anything.
        Self { lead: lead.max(least).min(most), since, from, at }
    }

    /// Whether no other clock has been seen in between for so long that what it shows is what counts.
    pub fn for_long(&self) -> bool {
        self.from.millis_until(self.at) >= LONG_MS
    }

    /// Whether the server's clock alone tells the age of what was minted at `minted`, by the answer that `told`
    /// it. One that differs from what was watched may be another server's, and this host may have slept since.
    pub fn vouches(&self, minted: i64, told: &ServerTime) -> bool {
        let watches = self.at.millis_until(told.heard) <= UNWATCHED_MS;
        let same = told.least() <= self.lead.saturating_add(STEP_MS)
            && told.most() >= self.lead.saturating_sub(STEP_MS);
        watches && same && minted > self.since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 5_000_000_000;

    /// The lead after looks at a server's clock: (milliseconds later here, there), and what it gained in all.
    /// A second passes by the monotonic clock, which no pause and no setting moves.
    fn looked(looks: &[(i64, i64, bool)]) -> (ServerLead, u64) {
        let (mut here, mut there) = (NOW, NOW + 700_000);
        let (mut lead, mut sum, mut watched) = (ServerLead::default(), 0, None);
        for (uptime, (passed, told, set_back)) in (1..).zip(looks) {
            here += passed;
            there += told;
            let look = Watched::look(watched, &took(there, uptime * 1_000, 0), 0);
            let sure = *set_back || look.for_long();
            watched = Some(look);
            let heard = lead.heard(there, Moment::from_millis(here), sure);
            let gained = heard.gained.unwrap_or_default().as_millis() as i64;
            (lead, sum, here) = (heard.lead, sum + gained as u64, here + gained);
        }
        (lead, sum)
    }

    #[test]
    fn a_host_that_stood_still_hears_from_the_server_for_how_long() {
        let second = (1_000, 1_000, true);
        let (_, gained) = looked(&[second, second, (200, 3_600_200, true), second]);
        assert_eq!(gained, 3_600_000);
        let (_, gained) = looked(&[second, (200, 3_600_200, false), second]);
        assert_eq!(gained, 3_600_000, "its connection did not survive that");
    }

    #[test]
    fn a_host_that_is_slewed_is_brought_nearer_step_by_step() {
        let slow = (950, 1_000, true);
        let (_, gained) = looked(&[slow; 1_000]);
        assert!((45_000..=50_000).contains(&gained), "{gained}");
    }

    #[test]
    fn a_slow_answer_is_no_gain() {
        let (_, gained) =
            looked(&[(0, 0, true), (1_900, 1_000, true), (100, 1_000, true), (1_000, 1_000, true)]);
        assert_eq!(gained, 0);
    }

    #[test]
    fn servers_that_take_turns_and_differ_bring_nothing_nearer_twice() {
        let mut looks = vec![(1_000, 1_000, false)];
        for _ in 0..20 {
            looks.extend([(1_000, 301_000, false), (1_000, -299_000, false)]);
        }
        assert_eq!(looked(&looks).1, 300_000);
    }

    #[test]
    fn after_a_server_was_set_back_a_pause_is_noticed_all_the_same() {
        let (_, gained) = looked(&[
            (1_000, 1_000, true),
            (1_000, -3_599_000, true),
            (1_000, 1_000, true),
            (0, 60_000, true),
        ]);
        assert_eq!(gained, 60_000);
    }

    /// A wall clock that was set ahead, or another server that was ahead for a while, has moved the host timeline, but
    /// not what the server is ahead of it. A standstill of less than that would go unheard.
    #[test]
    fn after_the_timeline_has_gone_ahead_a_standstill_is_noticed_all_the_same() {
        let second = (1_000, 1_000, false);
        let mut looks = vec![second, (601_000, 1_000, false)];
        looks.extend([second; 60]);
        let mut unheard = looks.clone();
        unheard.push((0, 300_000, false));
        assert_eq!(looked(&unheard).1, 0, "it may be another server's clock");
        looks.extend([second; 600]);
        looks.push((0, 300_000, false));
        assert_eq!(looked(&looks).1, 300_000);
    }

    /// What is known after looks at a server's clock: (milliseconds later here, there).
    fn watched(looks: &[(i64, i64)]) -> (Watched, i64, i64) {
        let (mut here, mut there) = (NOW, NOW + 700_000);
        let mut watched = Watched::look(None, &told(there, here), 0);
        for (passed, later) in looks {
            here += passed;
            there += later;
            watched = Watched::look(Some(watched), &told(there, here), 0);
        }
        (watched, here, there)
    }

    /// An answer that took no time.
    fn told(clock: i64, at: i64) -> ServerTime {
        took(clock, at, 0)
    }

    fn took(clock: i64, heard: i64, span: i64) -> ServerTime {
        let (sent, heard) = (Moment::from_millis(heard - span), Moment::from_millis(heard));
        ServerTime { clock, sent, heard }
    }

    fn vouched(looks: &[(i64, i64)], minted_ago: i64, told_later: i64) -> bool {
        let (watched, here, there) = watched(looks);
        watched.vouches(there - minted_ago, &told(there + told_later, here))
    }

    #[test]
    fn of_what_was_minted_while_it_was_watched_a_servers_clock_tells_the_age() {
        let looks = [(1_000, 1_000); 60];
        assert!(vouched(&looks, 59_000, 0));
        assert!(!vouched(&looks, 61_000, 0), "minted before");
    }

    #[test]
    fn a_server_that_took_over_and_is_behind_is_no_witness_before_anybody_has_looked() {
        let looks = [(1_000, 1_000); 60];
        assert!(!vouched(&looks, 30_000, -300_000));
        assert!(!vouched(&looks, 30_000, 300_000), "nor one that is ahead");
    }

    #[test]
    fn after_a_step_back_it_is_no_witness_of_what_the_former_clock_may_have_told() {
        let mut looks = vec![(1_000, 1_000); 60];
        looks.push((1_000, -299_000));
        assert!(!vouched(&looks, 30_000, 0));
        // Minted by the former clock, and by now in the past of this one.
        looks.extend([(1_000, 1_000); 290]);
        assert!(!vouched(&looks, 0, 0));
        looks.extend([(1_000, 1_000); 20]);
        assert!(vouched(&looks, 5_000, 0));
        assert!(!vouched(&looks, 15_000, 0));
    }

    #[test]
    fn a_way_that_is_slow_at_times_is_no_step() {
        let (before, here, there) = watched(&[(1_000, 1_000); 60]);
        // Two seconds on its way here, and then back to usual.
        let slow = Watched::look(Some(before), &took(there + 1_000, here + 3_000, 2_500), 0);
        let usual = Watched::look(Some(slow), &took(there + 4_000, here + 4_000, 1), 0);
        for (watched, told) in [
            (before, took(there + 1_000, here + 3_000, 2_500)),
            (slow, told(there + 3_010, here + 3_010)),
            (usual, told(there + 4_010, here + 4_010)),
        ] {
            assert!(watched.vouches(there - 2_000, &told));
        }
    }

    /// What is too little for a step is too much to be served longer for it.
    #[test]
    fn a_clock_that_was_set_back_a_little_is_noticed() {
        for back in [150, 1_918] {
            assert!(!vouched(&[(1_000, 1_000); 60], 2_000, -back), "before a look");
            let mut looks = vec![(1_000, 1_000); 60];
            looks.push((1_000, 1_000 - back));
            assert!(!vouched(&looks, 2_000, 0), "after it");
        }
    }

    #[test]
    fn a_clock_that_drifts_is_no_step() {
        for passed in [950, 1_050] {
            assert!(vouched(&[(1_000, passed); 600], 20_000, 0));
        }
    }

    #[test]
    fn a_host_that_slept_has_not_watched() {
        let looks = [(1_000, 1_000), (1_000, 3_301_000), (1_000, 1_000)];
        assert!(!vouched(&looks, 3_000_000, 0), "another server may have taken over meanwhile");
        assert!(vouched(&looks, 500, 0));
        assert!(!vouched(&looks, 500, -3_300_000), "and notices a step back of as much");
    }

    #[test]
    fn of_what_a_former_clock_noted_a_server_that_took_over_is_no_witness() {
        let (noted, here) = (NOW, 9_000);
        let mut watched = Watched::look(None, &told(NOW - 300_000, here), noted);
        let later = |second: i64| told(NOW - 300_000 + second * 1_000, here + second * 1_000);
        for second in 1..=400 {
            watched = Watched::look(Some(watched), &later(second), noted);
        }
        assert!(!watched.vouches(NOW - 10_000, &later(400)));
        assert!(watched.vouches(NOW + 1, &later(400)));
    }

    /// Nobody led for ten minutes. In them the server was set ahead for a while, and is right again.
    #[test]
    fn who_has_not_looked_for_a_while_has_not_watched() {
        let (before, here, there) = watched(&[(1_000, 1_000); 60]);
        let minted = there + 240_000 + 300_000;
        let now = told(there + 600_000, here + 600_000);
        assert!(!before.vouches(minted, &now), "before it looks");
        let after = Watched::look(Some(before), &now, minted);
        assert!(!after.vouches(minted, &now), "after it has looked");
    }

    #[test]
    fn what_the_log_notes_of_later_than_now_a_clock_told_that_was_not_seen() {
        let (before, here, there) = watched(&[(1_000, 1_000); 60]);
        let noted = there + 300_000;
        let mut watched = before;
        for second in 1..=301 {
            let told = told(there + second * 1_000, here + second * 1_000);
            watched = Watched::look(Some(watched), &told, noted);
        }
        let now = told(there + 302_000, here + 302_000);
        assert!(!watched.vouches(noted - 100, &now));
        assert!(watched.vouches(noted + 100, &now));
    }

    #[test]
    fn a_host_that_slept_believes_no_server_before_it_has_looked() {
        // Meanwhile another server took over that is behind, and this host's monotonic clock stood still.
        assert!(!vouched(&[(1_000, 1_000); 60], 1_500_000, 3_600_000 - 300_000));
    }

    #[test]
    fn a_step_back_is_one_however_long_the_answers_took() {
        let first = took(1_000_000, 5_001, 1);
        assert!(!took(1_001_000, 9_000, 3_000).is_set_back(&first), "a slow answer");
        assert!(!took(1_000_900, 6_500, 1_000).is_set_back(&first));
        assert!(took(990_000, 9_000, 3_000).is_set_back(&first));
    }

    /// The second look on each connection tells that the clock has gone on.
    #[test]
    fn servers_that_take_turns_bring_nothing_nearer_twice_however_often_each_is_looked_at() {
        let mut looks = vec![(1_000, 1_000, false)];
        for _ in 0..20 {
            looks.extend([(1_000, 301_000, false), (1_000, 1_000, false)]);
            looks.extend([(1_000, -299_000, false), (1_000, 1_000, false)]);
        }
        assert_eq!(looked(&looks).1, 300_000);
    }
}
