//! When nobody may mint and what must not be served: back-off, floors, rejections.

use super::*;

pub const CLAIMS: Claims = claims![
    a_failure_turns_everybody_away_with_its_reason,
    failures_in_a_row_pause_longer_until_a_commit,
    a_pause_is_as_long_as_the_failure_says_even_beyond_the_longest,
    a_backoff_does_not_hide_a_newer_value,
    a_reason_is_cut_to_its_limit_at_a_character,
    an_invalidation_drops_the_value_and_raises_the_floor,
    an_invalidation_fences_the_mint_in_flight,
    an_invalidation_fences_a_lease_that_ran_out,
    an_invalidation_of_nothing_raises_the_floor_above_what_may_come_back,
    another_digest_drops_nothing,
    what_was_lost_is_rejected_by_whoever_has_it,
    a_rejected_token_goes_at_once_and_the_mint_in_flight_may_land,
    rejections_in_a_row_are_paced,
    a_token_that_lived_half_its_life_is_rejected_at_once,
    a_life_in_which_it_was_rejected_all_along_does_not_count,
    a_claim_with_a_rejection_drops_and_grants,
    a_claim_with_an_early_rejection_mints_nothing,
];

fn a_failure_turns_everybody_away_with_its_reason(b: &Bench) {
    let lease = b.lease_by(1);
    b.fail(&lease, LONG, "the endpoint answered 503");
    match b.claim_by(2) {
        Claimed::BackOff { wait, reason } => {
            assert_eq!(reason, "the endpoint answered 503");
            assert!(wait > LONG / 2 && wait <= LONG * 5 / 4, "{wait:?} with a base of {LONG:?}");
        }
        other => panic!("{other:?}"),
    }
}

fn failures_in_a_row_pause_longer_until_a_commit(b: &Bench) {
    const BASE: Duration = Duration::from_millis(200);
    let pause_after = |lease: &Lease| {
        let told = b.fail(lease, BASE, "no");
        match b.claim_by(9) {
            Claimed::BackOff { wait, .. } => {
                // In whole milliseconds where it is told by a server.
                let told = told + Duration::from_millis(1);
                assert!(
                    wait <= told && told < wait + LONG,
                    "{told:?} was told, and it is {wait:?}"
                );
                wait
            }
            other => panic!("{other:?}"),
        }
    };
    let first = pause_after(&b.lease_by(1));
    assert!(first <= BASE * 5 / 4, "{first:?}");
    b.pace.pass(first + Duration::from_millis(30));
    let lease = b.lease_by(2);
    let second = pause_after(&lease);
    assert!(second > BASE * 5 / 4, "{second:?} after {first:?}");
    b.pace.pass(second + Duration::from_millis(30));
    let entry = b.minted(3, "one");
    let lease = b.lease(Claim { newer_than: entry.version, ..claim_of(secret(4)) });
    b.fail(&lease, BASE, "again");
    match b.claim(Claim { newer_than: entry.version, ..claim_of(secret(5)) }) {
        Claimed::BackOff { wait, reason } => {
            assert!(wait <= BASE * 5 / 4, "{wait:?}");
            assert_eq!(reason, "again");
        }
        other => panic!("{other:?}"),
    }
}

fn a_pause_is_as_long_as_the_failure_says_even_beyond_the_longest(b: &Bench) {
    let least = MAX_BACKOFF * 10;
    let failure = Failure { base: Duration::from_millis(1), least, reason: "429".into() };
    let told = b.store.abandon(&key(), &b.lease_by(1), Some(&failure), b.now()).unwrap();
    assert_eq!(told, least);
    match b.claim_by(2) {
        Claimed::BackOff { wait, .. } => {
            assert!(wait > least - LONG && wait <= least, "{wait:?}");
        }
        other => panic!("{other:?}"),
    }
}

fn a_backoff_does_not_hide_a_newer_value(b: &Bench) {
    let entry = b.minted(1, "one");
    let lease = b.lease(Claim { newer_than: entry.version, ..claim_of(secret(2)) });
    b.fail(&lease, LONG, "no");
    assert_eq!(b.value(), "one");
    let reply = b.claim(Claim { newer_than: entry.version, ..claim_of(secret(3)) });
    assert!(matches!(reply, Claimed::BackOff { .. }), "{reply:?}");
}

fn a_reason_is_cut_to_its_limit_at_a_character(b: &Bench) {
    let lease = b.lease_by(1);
    b.fail(&lease, LONG, &format!("a{}", "é".repeat(MAX_REASON)));
    let Claimed::BackOff { reason, .. } = b.claim_by(2) else { panic!("a back-off was due") };
    assert_eq!(reason.len(), MAX_REASON - 1);
}

fn an_invalidation_drops_the_value_and_raises_the_floor(b: &Bench) {
    let entry = b.minted(1, "one");
    let reply = b.invalidate();
    assert!(reply.what);
    assert!(reply.floor > entry.version);
    let claimed = b.store.claim(&key(), &claim_of(secret(2)), b.now()).unwrap();
    assert_eq!(claimed.floor, reply.floor);
    let Claimed::Lease(lease) = claimed.what else { panic!("a lease was due") };
    assert!(lease.version > reply.floor);
    let committed = b.commit(&lease, &b.entry(&lease, "two"));
    assert_eq!(committed, Reply { floor: reply.floor, what: Committed::Accepted });
    assert_eq!(b.value(), "two");
}

fn an_invalidation_fences_the_mint_in_flight(b: &Bench) {
    let lease = b.lease_by(1);
    let floor = b.invalidate().floor;
    assert!(floor > lease.version);
    let committed = b.commit(&lease, &b.entry(&lease, "one"));
    assert_eq!(committed, Reply { floor, what: Committed::Fenced });
}

fn an_invalidation_fences_a_lease_that_ran_out(b: &Bench) {
    let lease = b.lease(Claim { lease: SHORT, ..claim_of(secret(1)) });
    b.pace.pass(PAST_SHORT);
    b.invalidate();
    assert_eq!(b.commit(&lease, &b.entry(&lease, "one")).what, Committed::Fenced);
}

fn an_invalidation_of_nothing_raises_the_floor_above_what_may_come_back(b: &Bench) {
    let elsewhere = match b.store.claim(&token("other"), &claim_of(secret(1)), b.now()) {
        Ok(Reply { what: Claimed::Lease(lease), .. }) => lease,
        other => panic!("{other:?}"),
    };
    let reply = b.invalidate();
    assert!(!reply.what, "nothing was dropped");
    assert_eq!(b.restore(&b.entry(&elsewhere, "from before")), Committed::Fenced);
}

fn another_digest_drops_nothing(b: &Bench) {
    b.minted(1, "one");
    assert!(!b.reject("another"));
    assert_eq!(b.value(), "one");
}

/// A row was evicted. Nobody who has the entry may give it back after it was rejected.
fn what_was_lost_is_rejected_by_whoever_has_it(b: &Bench) {
    let lost = b.entry(&b.lease_by(1), "lost");
    b.pace.pass(LONG);
    let reject = |digest, held| b.store.invalidate(&key(), Some(digest), held, b.now()).unwrap();
    assert!(!reject(lost.digest(), Version::NONE).what, "who has not got it drops nothing");
    let reply = reject(lost.digest(), lost.version);
    assert_eq!((reply.what, reply.floor), (true, lost.version.next()));
    assert_eq!(b.restore(&lost), Committed::Fenced);
    assert!(!reject(lost.digest(), lost.version).what, "once");
    let newer = b.minted(2, "newer");
    assert!(!reject(lost.digest(), lost.version).what, "what is newer stays");
    assert!(!reject(lost.digest(), newer.version).what, "and so does what is as new");
    assert_eq!(b.restore(&newer), Committed::Accepted);
}

fn a_rejected_token_goes_at_once_and_the_mint_in_flight_may_land(b: &Bench) {
    let entry = b.minted(1, "one");
    let lease = b.lease(Claim { newer_than: entry.version, ..claim_of(secret(2)) });
    assert!(b.reject("one"));
    assert!(matches!(b.claim_by(3), Claimed::Busy(_)), "the token is gone, the mint is not");
    assert!(!b.reject("one"), "it cannot be dropped twice");
    assert_eq!(b.commit(&lease, &b.entry(&lease, "two")).what, Committed::Accepted);
    assert_eq!(b.value(), "two");
}

fn rejections_in_a_row_are_paced(b: &Bench) {
    b.minted(1, "one");
    assert!(b.reject("one"));
    b.minted(2, "two");
    assert!(!b.reject("two"), "the second one within a second");
    assert_eq!(b.value(), "two");
    b.pace.pass(Duration::from_millis(1_050));
    assert!(b.reject("two"));
    b.minted(3, "three");
    b.pace.pass(Duration::from_millis(1_050));
    assert!(!b.reject("three"), "the third one within two seconds");
}

fn a_token_that_lived_half_its_life_is_rejected_at_once(b: &Bench) {
    b.minted(1, "one");
    assert!(b.reject("one"));
    let lease = b.lease_by(2);
    let mut entry = b.entry(&lease, "two");
    entry.timing.minted_at = b.now().plus_millis(-3_100_000);
    b.commit(&lease, &entry);
    assert!(b.reject("two"));
}

fn a_life_in_which_it_was_rejected_all_along_does_not_count(b: &Bench) {
    b.minted(1, "one");
    assert!(b.reject("one"));
    let lease = b.lease_by(2);
    let mut entry = b.entry(&lease, "two");
    entry.timing.minted_at = b.now();
    entry.timing.usable_until = b.now().plus_millis(1_600);
    b.commit(&lease, &entry);
    assert!(!b.reject("two"), "too soon");
    b.pace.pass(Duration::from_millis(1_050));
    assert!(b.reject("two"), "its pause is over");
    b.minted(3, "three");
    b.pace.pass(Duration::from_millis(1_050));
    assert!(!b.reject("three"), "the pause began anew at one second");
}

fn a_claim_with_a_rejection_drops_and_grants(b: &Bench) {
    let entry = b.minted(1, "one");
    let claim = Claim { rejected: Some(entry.digest()), ..claim_of(secret(2)) };
    let reply = b.store.claim(&key(), &claim, b.now()).unwrap();
    assert!(reply.floor > entry.version);
    let Claimed::Lease(lease) = reply.what else { panic!("{:?}", reply.what) };
    assert_eq!(b.lease(claim), lease, "and repeats after a lost reply");
    b.commit(&lease, &b.entry(&lease, "two"));
    assert_eq!(b.value(), "two");
}

fn a_claim_with_an_early_rejection_mints_nothing(b: &Bench) {
    b.minted(1, "one");
    assert!(b.reject("one"));
    let entry = b.minted(2, "two");
    let claim = Claim { rejected: Some(entry.digest()), ..claim_of(secret(3)) };
    let reply = b.claim(claim);
    assert!(matches!(&reply, Claimed::Value(stored) if *stored.value == b"two"), "{reply:?}");
    match b.claim(Claim { newer_than: entry.version, ..claim }) {
        Claimed::BackOff { wait, .. } => assert!(wait <= Duration::from_secs(1), "{wait:?}"),
        other => panic!("an endpoint that always says 401 would mint for ever: {other:?}"),
    }
}
