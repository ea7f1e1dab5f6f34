//! Single answers that a flight must not take at face value: late ones, and those that say more than
//! they were asked.

use std::time::Duration;

use super::machine::{Action, Event, Flight};
use super::{MintReason, Plan};
use crate::clock::Moment;
use crate::entry::{Entry, Kind, Timing, Version};
use crate::store::{Boarding, Claimed, Known, Lease, Reply, Right, Secret};

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
        assert!(matches!(dropped, Action::SetBusy { .. } | Action::Done(Err(_))), "{dropped:?}");
    }
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
    let lease = Lease { secret: Secret::random(), version: Version(99) };
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
