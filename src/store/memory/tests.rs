//! The reference as a store, and as the host it stands in for.

use super::*;
use crate::clock::fake::FakeClock;
use crate::entry::{Fingerprint, Kind, Timing};
use crate::store::conformance::{check, check_host, secret};

fn at(ms: i64) -> Moment {
    Moment::from_millis(ms)
}

fn host() -> MemoryHost {
    MemoryHost::new(Arc::new(FakeClock::at(0)))
}

/// One in which the key has a place.
fn placed() -> MemoryHost {
    let host = host();
    let (right, _) = board(&host, 1, 0).unwrap();
    host.leave(&key(), &right);
    host
}

fn asked(ms: i64) -> Asked {
    Asked { at: at(ms), reservation: Reservation(1) }
}

fn key() -> Key {
    Key::new(Kind::Token, b"crm", Fingerprint::default()).unwrap()
}

fn entry(version: u64) -> Entry {
    let timing =
        Timing { minted_at: at(0), refresh_at: at(80), usable_until: at(100), expires_at: at(120) };
    let version = Version(version);
    Entry { version, timing, unsynced: false, value: b"one".to_vec().into(), detail: vec![].into() }
}

fn board(host: &MemoryHost, until: i64, now: i64) -> Result<(Right, Option<Secret>), u32> {
    match host.board(&key(), at(until), at(now)).unwrap() {
        Boarding::Mine { right, orphan } => Ok((right, orphan)),
        Boarding::Taken { bell, .. } => Err(bell),
    }
}

#[test]
fn process_memory_keeps_the_contract_of_a_host() {
    let clock = Arc::new(FakeClock::at(1_000_000));
    let make = || -> Box<dyn Host> { Box::new(MemoryHost::new(clock.clone())) };
    check_host("MemoryHost", &make, &*clock);
}

#[test]
fn the_reference_keeps_the_contract_of_a_store() {
    let clock = Arc::new(FakeClock::at(0));
    check("MemoryHost", &|| Box::new(MemoryHost::new(clock.clone())), &*clock);
}

#[test]
fn a_flight_past_its_deadline_is_taken_over_with_its_secret_and_its_owner_can_do_nothing() {
    let host = host();
    let (first, orphan) = board(&host, 50, 0).unwrap();
    assert_eq!(orphan, None);
    host.note_secret(&key(), &first, secret(7));
    assert!(board(&host, 60, 49).is_err());
    assert!(host.extend(&key(), &first, at(60)));
    assert!(board(&host, 70, 59).is_err());

    let (second, orphan) = board(&host, 200, 60).unwrap();
    assert_eq!(orphan, Some(secret(7)));
    assert!(!host.extend(&key(), &first, at(300)));
    host.leave(&key(), &first);
    assert!(board(&host, 300, 61).is_err(), "the late owner's leave changed nothing");
    host.leave(&key(), &second);
    assert_eq!(board(&host, 300, 62).unwrap().1, None);
}

#[test]
fn leaving_wakes_who_waits_and_a_late_waiter_does_not_sleep() {
    let host = host();
    let (right, _) = board(&host, 1_000, 0).unwrap();
    let bell = board(&host, 1_000, 0).unwrap_err();
    std::thread::scope(|scope| {
        scope.spawn(|| host.wait(&key(), bell, Duration::from_secs(600)));
        host.leave(&key(), &right);
    });
    host.wait(&key(), bell, Duration::from_secs(600));
}

#[test]
fn a_host_never_takes_over_what_is_older_than_it_knows_or_below_the_floor() {
    let host = placed();
    let version = || host.look(&key()).unwrap().entry.map(|entry| entry.version.0);
    host.adopt(&key(), &entry(5), asked(1)).unwrap();
    host.adopt(&key(), &entry(4), asked(2)).unwrap();
    assert_eq!(version(), Some(5));
    host.raise_floor(&key(), Version(7));
    assert_eq!(version(), None);
    host.adopt(&key(), &entry(6), asked(3)).unwrap();
    assert_eq!(version(), None);
    host.adopt(&key(), &entry(7), asked(4)).unwrap();
    assert_eq!(version(), Some(7));
}

#[test]
fn an_older_answer_about_the_same_version_does_not_unconfirm_it() {
    let host = placed();
    host.adopt(&key(), &entry(5), asked(10)).unwrap();
    host.adopt(&key(), &entry(5), asked(8)).unwrap();
    host.confirm(&key(), Version(5), at(9));
    host.confirm(&key(), Version(4), at(50));
    assert_eq!(host.look(&key()).unwrap().confirmed_at, at(10));
}

#[test]
fn of_two_copies_of_one_version_the_earlier_deadlines_are_kept_and_of_two_files_the_second() {
    for version in [Version(5), Version::FILE] {
        let host = placed();
        let first = Entry { version, ..entry(5) };
        let mut second = first.clone();
        second.timing.usable_until = first.timing.usable_until.plus_millis(9);
        host.adopt(&key(), &first, asked(1)).unwrap();
        host.adopt(&key(), &second, asked(2)).unwrap();
        let kept = host.look(&key()).unwrap().entry.unwrap().timing;
        let wanted = if version == Version::FILE { second.timing } else { first.timing };
        assert_eq!(kept, wanted);
    }
}

#[test]
fn one_process_revalidates_until_its_time_is_up() {
    let host = placed();
    assert!(host.may_revalidate(&key(), at(0), at(50)));
    assert!(!host.may_revalidate(&key(), at(49), at(99)));
    assert!(host.may_revalidate(&key(), at(50), at(100)));
}

#[test]
fn a_rejection_is_kept_until_it_was_sent() {
    let host = placed();
    let rejected = Some(Digest::of(b"one"));
    host.set_pending_rejection(&key(), rejected);
    assert_eq!(host.look(&key()).unwrap().pending_rejection, rejected);
    host.set_pending_rejection(&key(), None);
    assert_eq!(host.look(&key()).unwrap().pending_rejection, None);
}

#[test]
fn an_answer_is_not_kept_for_a_key_that_made_room_meanwhile() {
    let host = placed();
    host.evict(&key());
    host.adopt(&key(), &entry(5), asked(1)).unwrap();
    assert_eq!(host.look(&key()), None);
    host.restore(&key(), &entry(4), at(0)).unwrap();
    host.adopt(&key(), &entry(5), asked(1)).unwrap();
    assert_eq!(host.look(&key()).unwrap().entry.unwrap().version, Version(4), "another place");
}

#[test]
fn one_process_leads_until_it_is_given_up_on() {
    let host = host();
    let first = host.lead(at(10), at(100)).unwrap();
    assert_eq!(host.lead(at(99), at(200)), None);
    assert!(host.keep_leading(&first, at(150)));
    let second = host.lead(at(150), at(300)).unwrap();
    assert!(!host.keep_leading(&first, at(400)));
    host.stop_leading(&second);
    assert!(host.lead(at(151), at(300)).is_some());
}

#[test]
fn a_heartbeat_vouches_for_what_was_confirmed_since_the_doubt_and_for_the_rest_until_then() {
    let clock = Arc::new(FakeClock::at(1_000));
    let host = MemoryHost::new(clock.clone());
    let keys = [b"in doubt".as_slice(), b"compared"]
        .map(|name| Key::new(Kind::Token, name, Fingerprint::default()).unwrap());
    for key in &keys {
        host.restore(key, &entry(5), at(0)).unwrap();
    }
    let anchor = Anchor::default();
    host.beat(at(900), &anchor);
    let confirmed = || keys.each_ref().map(|key| host.look(key).unwrap().confirmed_at);
    assert_eq!(confirmed(), [at(900), at(900)]);
    let doubt = host.doubt();
    clock.advance(Duration::from_millis(50));
    host.confirm(&keys[1], Version(5), at(1_010));
    host.beat(at(1_040), &anchor);
    assert_eq!(confirmed(), [at(900), at(1_040)]);
    // Another gap, before all was compared: what is still in doubt gains nothing by it.
    let later = host.doubt();
    host.beat(at(1_060), &anchor);
    assert_eq!(confirmed(), [at(900), at(1_010)]);
    host.settle(doubt);
    assert_eq!(host.in_doubt(), Some(later), "the first doubt is not the second");
    host.settle(later);
    assert_eq!(host.in_doubt(), None);
}
