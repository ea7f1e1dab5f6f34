//! Single answers that a flight must not take at face value: late ones, and those that say more than
//! they were asked.

use std::time::Duration;

use super::machine::{Action, Authority, Event, Flight};
use super::{FlightError, MintReason, Plan};
use crate::clock::Moment;
use crate::entry::{Entry, Kind, Timing, Version};
use crate::store::{Backoff, Boarding, Claimed, Known, Lease, Reply, Right, Secret, StoreError};

const NOW: Moment = Moment::from_millis(100_000);
const MINTED: Version = Version(7);

/// Due since a while, usable for another second, and confirmed so long ago.
fn due(unconfirmed: Duration) -> Known {
    let timing = Timing {
        minted_at: NOW.plus_millis(-60_000),
        refresh_at: NOW.plus_millis(-5_000),
        usable_until: NOW.plus_millis(1_000),
        expires_at: NOW.plus_millis(9_000),
    };
    let entry = Entry {
        version: MINTED,
        timing,
        unsynced: false,
        value: b"token".to_vec().into(),
        detail: Vec::new().into(),
    };
    Known {
        entry: Some(entry),
        confirmed_at: NOW.plus_millis(-(unconfirmed.as_millis() as i64)),
        heartbeat: Moment::default(),
        bell: 0,
        busy_until: Moment::default(),
        backoff: None,
        paused_until: Moment::default(),
        newest: MINTED,
        highest: MINTED,
        floor: Version::NONE,
        pending_rejection: None,
        ask_at: Moment::default(),
        authority_failing: false,
        evicted: false,
    }
}

fn flight() -> Flight {
    Flight::new(Kind::Token, Plan::usual(NOW), true, NOW)
}

/// One whose claim is on its way.
fn claiming() -> Flight {
    let mut flight = flight();
    let right = Right { place: 1, generation: 1 };
    let boarded = Event::Boarded(Ok(Boarding::Mine { right, orphan: None }));
    for event in [Event::Begin, Event::Looked(Some(due(Duration::ZERO))), boarded] {
        flight.step(event, NOW);
    }
    let action = flight.step(Event::Looked(Some(due(Duration::ZERO))), NOW);
    assert!(matches!(action, Action::Claim(..)), "{action:?}");
    flight
}

fn claimed(floor: Version, what: Claimed) -> Event {
    Event::Claimed(Ok(Reply { floor, what }))
}

#[test]
fn what_is_below_the_floor_that_a_refusal_names_is_not_served() {
    let second = Duration::from_secs(1);
    for refusal in
        [Claimed::Busy(second), Claimed::BackOff { wait: second, reason: "HTTP 429".into() }]
    {
        let usable = claiming().step(claimed(Version::NONE, refusal.clone()), NOW);
        assert!(matches!(usable, Action::Postpone { .. }), "{usable:?}");
        let dropped = claiming().step(claimed(MINTED.next(), refusal), NOW);
        let turned_away = matches!(dropped, Action::SetBusy { .. } | Action::HearBackoff { .. });
        assert!(turned_away, "{dropped:?}");
    }
}

/// Where nobody answers, another process of the host may have heard of something meanwhile.
#[test]
fn who_gets_no_answer_serves_nothing_older_than_others_of_his_host_have() {
    let newer = || Entry { version: MINTED.next(), ..due(Duration::ZERO).entry.unwrap() };
    let has_newer = || Known { entry: Some(newer()), newest: MINTED.next(), ..due(Duration::ZERO) };
    let has_floor = || Known { floor: MINTED.next(), entry: None, ..due(Duration::ZERO) };
    let silent = || failed(StoreError::TimedOut("no answer".into()));

    let mut asking = claiming();
    assert!(matches!(asking.step(silent(), NOW), Action::Look));
    let action = asking.step(Event::Looked(Some(has_newer())), NOW);
    let Action::Done(Ok(served)) = action else { panic!("{action:?}") };
    assert_eq!((served.entry.version, served.degraded), (MINTED.next(), true));
    let mut asking = claiming();
    asking.step(silent(), NOW);
    let action = asking.step(Event::Looked(Some(has_floor())), NOW);
    assert!(matches!(action, Action::Sleep(_)), "what was dropped meanwhile is served: {action:?}");

    let mut asking = claiming();
    asking.step(claimed(Version::NONE, Claimed::Busy(Duration::from_secs(1))), NOW);
    assert!(matches!(asking.step(Event::Carried, NOW), Action::Look));
    let action = asking.step(Event::Looked(Some(has_newer())), NOW);
    let Action::Done(Ok(served)) = action else { panic!("{action:?}") };
    assert_eq!(served.entry.version, MINTED.next());

    let asking = || {
        let old = due(Duration::from_millis(2_500));
        let mut flight = flight();
        flight.step(Event::Begin, NOW);
        let fresh = Entry {
            timing: Timing {
                refresh_at: NOW.plus_millis(900),
                ..due(Duration::ZERO).entry.unwrap().timing
            },
            ..old.entry.clone().unwrap()
        };
        flight.step(Event::Looked(Some(Known { entry: Some(fresh), ..old })), NOW);
        let action = flight.step(Event::MayRevalidate(true), NOW);
        assert!(matches!(action, Action::Restore(_)), "{action:?}");
        let silence = StoreError::TimedOut("no answer".into());
        assert!(matches!(flight.step(Event::Restored(Err(silence)), NOW), Action::Look));
        flight
    };
    let action = asking().step(Event::Looked(Some(has_newer())), NOW);
    let Action::Done(Ok(served)) = action else { panic!("{action:?}") };
    assert_eq!(served.entry.version, MINTED.next());
    let action = asking().step(Event::Looked(Some(has_floor())), NOW);
    assert!(matches!(action, Action::Board { .. }), "{action:?}");
}

#[test]
fn what_ran_out_while_the_answer_was_awaited_is_not_served() {
    let late = NOW.plus_millis(1_000);
    let action =
        claiming().step(claimed(Version::NONE, Claimed::Busy(Duration::from_secs(1))), late);
    assert!(matches!(action, Action::SetBusy { .. }), "{action:?}");
    let newer = Entry { version: MINTED.next(), ..due(Duration::ZERO).entry.unwrap() };
    let action = claiming().step(claimed(Version::NONE, Claimed::Value(newer)), late);
    let Action::Claim(_, claim) = action else { panic!("{action:?}") };
    assert_eq!(claim.newer_than, MINTED.next(), "anything but the one that ran out");
}

#[test]
fn an_adopted_value_that_runs_out_before_it_is_handed_over_is_not_served() {
    let mut flight = claiming();
    let newer = Entry { version: MINTED.next(), ..due(Duration::ZERO).entry.unwrap() };
    let action = flight.step(claimed(Version::NONE, Claimed::Value(newer)), NOW);
    assert!(matches!(action, Action::Adopt(_)), "{action:?}");
    let action = flight.step(Event::Adopted(Ok(())), NOW.plus_millis(1_000));
    assert!(matches!(action, Action::Done(Err(_))), "{action:?}");
}

#[test]
fn while_somebody_renews_it_an_entry_unconfirmed_for_long_is_asked_about_once() {
    let taken = || Event::Boarded(Ok(Boarding::Taken { bell: 0, since: NOW }));
    let mut fresh = flight();
    fresh.step(Event::Begin, NOW);
    fresh.step(Event::Looked(Some(due(Duration::ZERO))), NOW);
    assert!(matches!(fresh.step(taken(), NOW), Action::Done(Ok(_))), "it is confirmed");

    let mut old = flight();
    old.step(Event::Begin, NOW);
    old.step(Event::Looked(Some(due(Duration::from_millis(2_500)))), NOW);
    let action = old.step(taken(), NOW);
    assert!(matches!(action, Action::MayRevalidate { .. }), "{action:?}");
    // Somebody else asks: wait for the answer, but not for ever.
    let action = old.step(Event::MayRevalidate(false), NOW);
    assert!(matches!(action, Action::Sleep(_)), "{action:?}");
    assert!(matches!(old.step(Event::Woke, NOW), Action::Look));
    let later = NOW.plus_millis(400);
    let action = old.step(Event::Looked(Some(due(Duration::from_millis(2_500)))), later);
    assert!(matches!(action, Action::Board { .. }), "{action:?}");
    let Action::Done(Ok(served)) = old.step(taken(), later) else { panic!() };
    assert!(served.degraded);
}

/// Why a key is minted of which the host knows this.
fn reason(known: Known) -> MintReason {
    let mut flight = flight();
    let right = Right { place: 1, generation: 1 };
    let boarded = Event::Boarded(Ok(Boarding::Mine { right, orphan: None }));
    for event in [Event::Begin, Event::Looked(Some(known.clone())), boarded] {
        flight.step(event, NOW);
    }
    flight.step(Event::Looked(Some(known)), NOW);
    let lease = Lease { secret: Secret::random(), version: Version(99), given_at: 0 };
    let action = flight.step(claimed(Version(3), Claimed::Lease(lease)), NOW);
    let Action::Mint(_, _, reason) = action else { panic!("{action:?}") };
    reason
}

#[test]
fn why_a_mint_was_started_is_told_by_what_the_host_knew_before() {
    let known = due(Duration::ZERO);
    let gone = Known { entry: None, ..known.clone() };
    let never = Known { newest: Version::NONE, ..gone.clone() };
    assert_eq!(reason(never.clone()), MintReason::Cold, "a floor that only the store knew is old");
    assert_eq!(reason(Known { evicted: true, ..never }), MintReason::Evicted);
    assert_eq!(reason(gone.clone()), MintReason::Expired);
    assert_eq!(reason(Known { evicted: true, ..gone.clone() }), MintReason::Expired);
    let floor = MINTED.next();
    assert_eq!(reason(Known { floor, newest: floor, ..gone.clone() }), MintReason::Rejected);
    let since = Known { floor: MINTED, newest: MINTED.next(), ..gone };
    assert_eq!(reason(since), MintReason::Expired, "there has been one since it was dropped");
    assert_eq!(reason(known), MintReason::Refresh);
}

/// A claim of a key of which the host has nothing, at `NOW`.
fn cold() -> Flight {
    let mut flight = flight();
    let right = Right { place: 1, generation: 1 };
    let boarded = Event::Boarded(Ok(Boarding::Mine { right, orphan: None }));
    for event in [Event::Begin, Event::Looked(None), boarded] {
        flight.step(event, NOW);
    }
    let action = flight.step(Event::Looked(Some(nothing())), NOW);
    assert!(matches!(action, Action::Claim(Authority::Fleet, _)), "{action:?}");
    flight
}

fn nothing() -> Known {
    Known { entry: None, newest: Version::NONE, highest: Version::NONE, ..due(Duration::ZERO) }
}

fn failed(error: StoreError) -> Event {
    Event::Claimed(Err(error))
}

#[test]
fn a_host_mints_for_itself_only_after_a_second_question_a_second_later() {
    let silent = || failed(StoreError::TimedOut("no answer".into()));
    let not_asked = || failed(StoreError::NotAsked("others hear nothing".into()));
    let lapsed = || failed(StoreError::Lapsed("the connection".into()));
    let mut flight = cold();
    let mut now = NOW;
    for event in [silent(), silent(), not_asked(), lapsed(), not_asked()] {
        let action = flight.step(event, now);
        assert!(matches!(action, Action::Sleep(_)), "{action:?}");
        now = now.plus_millis(240);
        let action = flight.step(Event::Woke, now);
        assert!(matches!(action, Action::Claim(Authority::Fleet, _)), "{action:?}");
    }
    // A second has passed, and nobody has asked again since.
    let action = flight.step(not_asked(), now);
    assert!(matches!(action, Action::Sleep(_)), "{action:?}");
    flight.step(Event::Woke, now);
    let action = flight.step(silent(), now);
    assert!(matches!(action, Action::Claim(Authority::Host, _)), "{action:?}");
}

#[test]
fn a_host_mints_for_itself_at_once_where_the_store_refuses_or_is_known_to_be_gone() {
    for error in [StoreError::Unreachable("refused".into()), StoreError::Refused("OOM".into())] {
        let action = cold().step(failed(error), NOW);
        assert!(matches!(action, Action::Claim(Authority::Host, _)), "{action:?}");
    }
}

#[test]
fn nobody_waits_past_the_budget_for_a_store_that_is_silent() {
    let mut flight = cold();
    let silent = || failed(StoreError::TimedOut("no answer".into()));
    let action = flight.step(silent(), NOW);
    assert!(matches!(action, Action::Sleep(_)), "{action:?}");
    let end = NOW.plus_millis(6_000);
    flight.step(Event::Woke, end);
    let action = flight.step(failed(StoreError::NotAsked("a moment".into())), end);
    assert!(matches!(action, Action::Done(Err(FlightError::WaitTimeout))), "{action:?}");
}

/// The host's own pause may be of when Redis was down.
#[test]
fn a_host_that_failed_alone_waits_for_another_hosts_mint_all_the_same() {
    let mut flight = told_busy();
    let (until, reason) = (NOW.plus_millis(60_000), "HTTP 503".into());
    let backoff = Some(Backoff { until, failures: 3, reason });
    let busy_until = NOW.plus_millis(4_001);
    let known = Known { busy_until, heartbeat: NOW, backoff, ..nothing() };
    let action = flight.step(Event::Looked(Some(known)), NOW);
    assert!(matches!(action, Action::Wait { .. }), "{action:?}");
}

/// What is waited for while another host mints: the heartbeat and the bell are as given.
fn waits(flight: &mut Flight, heartbeat: Moment, bell: u32, now: Moment) -> Action {
    let busy_until = NOW.plus_millis(4_001);
    let known = Known { heartbeat, bell, busy_until, ..nothing() };
    flight.step(Event::Looked(Some(known)), now)
}

fn told_busy() -> Flight {
    let mut flight = cold();
    let busy = claimed(Version::NONE, Claimed::Busy(Duration::from_secs(4)));
    let action = flight.step(busy, NOW);
    let Action::SetBusy { until, followed: false } = action else { panic!("{action:?}") };
    assert_eq!(until, NOW.plus_millis(4_001));
    assert!(matches!(flight.step(Event::Carried, NOW), Action::Look));
    flight
}

#[test]
fn while_somebody_follows_the_log_who_waits_asks_again_when_the_lease_is_over() {
    let mut flight = told_busy();
    for ms in (0..4_000).step_by(100) {
        let now = NOW.plus_millis(ms);
        let action = waits(&mut flight, now, 0, now);
        assert!(matches!(action, Action::Wait { .. }), "after {ms} ms {action:?}");
        flight.step(Event::Woke, now);
    }
    let over = NOW.plus_millis(4_001);
    let action = waits(&mut flight, over, 0, over);
    assert!(matches!(action, Action::Claim(..)), "{action:?}");
}

#[test]
fn a_heartbeat_from_after_the_question_is_as_good_as_a_fresh_one() {
    let mut flight = told_busy();
    let now = NOW.plus_millis(3_000);
    assert!(matches!(waits(&mut flight, NOW.plus_millis(10), 0, now), Action::Wait { .. }));
    assert!(matches!(waits(&mut flight, NOW.plus_millis(-10), 0, now), Action::Claim(..)));
}

#[test]
fn a_bell_that_rang_for_nothing_means_that_the_lease_is_free_and_hosts_come_back_one_by_one() {
    let mut flight = told_busy();
    let action = waits(&mut flight, NOW, 1, NOW);
    let Action::Sleep(span) = action else { panic!("{action:?}") };
    assert!(span <= Duration::from_millis(50));
    assert!(matches!(flight.step(Event::Woke, NOW.plus(span)), Action::Claim(..)));
}

#[test]
fn what_another_host_brought_is_served_when_it_is_here() {
    let mut flight = told_busy();
    let action = flight.step(Event::Looked(Some(due(Duration::ZERO))), NOW);
    assert!(matches!(action, Action::Done(Ok(_))), "{action:?}");
}

/// A store may have lost it. Who heard of it has perhaps handed it out.
#[test]
fn a_claim_asks_for_nothing_older_than_its_host_has_heard_of() {
    let mut flight = flight();
    let right = Right { place: 1, generation: 1 };
    let boarded = Event::Boarded(Ok(Boarding::Mine { right, orphan: None }));
    let heard = || Event::Looked(Some(Known { newest: MINTED, ..nothing() }));
    for event in [Event::Begin, heard(), boarded] {
        flight.step(event, NOW);
    }
    let Action::Claim(_, claim) = flight.step(heard(), NOW) else { panic!() };
    assert_eq!(claim.newer_than, Version(MINTED.0 - 1));
}
