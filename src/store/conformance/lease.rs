//! Who may mint: leases, their versions, and how they pass on.

use super::*;

pub const CLAIMS: Claims = claims![
    a_version_is_the_microseconds_of_a_clock_at_least,
    an_empty_store_gives_a_lease,
    at_most_one_of_many_claimers_gets_the_lease,
    the_other_hears_how_long_the_lease_lasts,
    the_same_secret_gets_the_same_lease_again,
    a_lease_that_ran_out_goes_to_the_next_under_a_higher_version,
    versions_grow_over_all_keys,
    a_version_lies_above_what_the_caller_has_seen_to_the_last_digit,
    what_nobody_can_have_issued_is_not_believed_of_a_claimant,
    an_orphan_passes_to_its_successor_at_once_and_its_commit_is_refused,
    a_takeover_finds_what_the_dead_one_committed,
    a_takeover_repeated_is_the_same_lease,
    a_takeover_needs_the_secret_of_the_live_lease,
    a_renewed_lease_lasts_longer,
    a_lost_lease_cannot_be_renewed,
    an_abandoned_lease_is_free_at_once,
    nobody_abandons_the_lease_of_another,
];

fn an_empty_store_gives_a_lease(b: &Bench) {
    let lease = b.lease_by(1);
    assert_eq!(lease.secret, secret(1));
    assert!(lease.version > Version::NONE);
}

fn at_most_one_of_many_claimers_gets_the_lease(b: &Bench) {
    let (store, now) = (b.store, b.now());
    let replies: Vec<Claimed> = thread::scope(|scope| {
        let ask = |n| move || store.claim(&key(), &claim_of(secret(n)), now).unwrap().what;
        let asked: Vec<_> = (1..9).map(|n| scope.spawn(ask(n))).collect();
        asked.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    let leases = replies.iter().filter(|reply| matches!(reply, Claimed::Lease(_))).count();
    assert_eq!(leases, 1, "{replies:?}");
    assert!(replies.iter().all(|reply| matches!(reply, Claimed::Lease(_) | Claimed::Busy(_))));
}

fn the_other_hears_how_long_the_lease_lasts(b: &Bench) {
    b.lease_by(1);
    match b.claim_by(2) {
        Claimed::Busy(left) => {
            assert!(left <= LONG && left > LONG / 2, "{left:?} of {LONG:?} are left")
        }
        other => panic!("busy was due, not {other:?}"),
    }
}

fn the_same_secret_gets_the_same_lease_again(b: &Bench) {
    let first = b.lease(Claim { lease: SHORT, ..claim_of(secret(1)) });
    assert_eq!(b.lease_by(1), first);
    b.pace.pass(PAST_SHORT);
    assert!(matches!(b.claim_by(2), Claimed::Busy(_)), "and it was lengthened");
}

fn a_lease_that_ran_out_goes_to_the_next_under_a_higher_version(b: &Bench) {
    let first = b.lease(Claim { lease: SHORT, ..claim_of(secret(1)) });
    b.pace.pass(PAST_SHORT);
    assert!(b.lease_by(2).version > first.version);
}

fn versions_grow_over_all_keys(b: &Bench) {
    let versions: Vec<Version> = (1..20)
        .map(|n| {
            let key = token(&format!("key{n}"));
            match b.store.claim(&key, &claim_of(secret(n)), b.now()).unwrap().what {
                Claimed::Lease(lease) => lease.version,
                other => panic!("a lease was due, not {other:?}"),
            }
        })
        .collect();
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
}

/// A store may leave out a thousand between one version and the next.
fn is_next(version: Version, last: Version) -> bool {
    version > last && version.0 <= last.0 + 1_000
}

fn a_version_lies_above_what_the_caller_has_seen_to_the_last_digit(b: &Bench) {
    let seen = b.ahead();
    let lease = b.lease(Claim { highest_known: seen, ..claim_of(secret(1)) });
    assert!(is_next(lease.version, seen), "{lease:?} after {seen}");
    assert_eq!(b.lease_by(1), lease);
    let entry = b.entry(&lease, "one");
    assert_eq!(b.commit(&lease, &entry).what, Committed::Accepted);
    match b.claim_by(2) {
        Claimed::Value(stored) => assert_eq!(stored.version, entry.version),
        other => panic!("a value was due, not {other:?}"),
    }
    let next = b.lease(Claim { newer_than: entry.version, ..claim_of(secret(2)) });
    assert!(is_next(next.version, entry.version), "{next:?} after {entry:?}");
}

fn what_nobody_can_have_issued_is_not_believed_of_a_claimant(b: &Bench) {
    for (n, impossible) in (1..).zip(b.impossible()) {
        let claim = Claim { highest_known: impossible, ..claim_of(secret(n)) };
        match b.store.claim(&token(&format!("key{n}")), &claim, b.now()).unwrap().what {
            Claimed::Lease(lease) => assert!(lease.version < b.ahead(), "{}", lease.version),
            other => panic!("a lease was due, not {other:?}"),
        }
    }
}

fn an_orphan_passes_to_its_successor_at_once_and_its_commit_is_refused(b: &Bench) {
    let dead = b.lease_by(1);
    let heir = b.lease(Claim { takeover: Some(dead.secret), ..claim_of(secret(2)) });
    assert_eq!(heir.secret, secret(2));
    assert!(heir.version > dead.version);
    assert_eq!(b.commit(&dead, &b.entry(&dead, "dead")).what, Committed::Fenced);
    assert!(!b.store.renew(&key(), &dead, LONG, b.now()).unwrap());
    assert_eq!(b.commit(&heir, &b.entry(&heir, "heir")).what, Committed::Accepted);
}

fn a_takeover_finds_what_the_dead_one_committed(b: &Bench) {
    let dead = b.lease_by(1);
    b.commit(&dead, &b.entry(&dead, "last words"));
    let reply = b.claim(Claim { takeover: Some(dead.secret), ..claim_of(secret(2)) });
    assert!(matches!(&reply, Claimed::Value(entry) if *entry.value == b"last words"), "{reply:?}");
}

fn a_takeover_repeated_is_the_same_lease(b: &Bench) {
    let dead = b.lease_by(1);
    let takeover = Claim { takeover: Some(dead.secret), ..claim_of(secret(2)) };
    assert_eq!(b.lease(takeover), b.lease(takeover));
}

fn a_takeover_needs_the_secret_of_the_live_lease(b: &Bench) {
    b.lease_by(1);
    let reply = b.claim(Claim { takeover: Some(secret(7)), ..claim_of(secret(2)) });
    assert!(matches!(reply, Claimed::Busy(_)), "{reply:?}");
}

fn a_renewed_lease_lasts_longer(b: &Bench) {
    let lease = b.lease(Claim { lease: SHORT * 4, ..claim_of(secret(1)) });
    assert!(b.store.renew(&key(), &lease, LONG, b.now()).unwrap());
    b.pace.pass(SHORT * 5);
    assert!(matches!(b.claim_by(2), Claimed::Busy(_)));
}

fn a_lost_lease_cannot_be_renewed(b: &Bench) {
    let lost = b.lease(Claim { lease: SHORT, ..claim_of(secret(1)) });
    b.pace.pass(PAST_SHORT);
    let next = b.lease_by(2);
    assert!(!b.store.renew(&key(), &lost, LONG, b.now()).unwrap());
    assert!(b.store.renew(&key(), &next, LONG, b.now()).unwrap());
}

fn an_abandoned_lease_is_free_at_once(b: &Bench) {
    let lease = b.lease_by(1);
    b.store.abandon(&key(), &lease, None, b.now()).unwrap();
    assert!(b.lease_by(2).version > lease.version);
}

fn nobody_abandons_the_lease_of_another(b: &Bench) {
    let lost = b.lease(Claim { lease: SHORT, ..claim_of(secret(1)) });
    b.pace.pass(PAST_SHORT);
    b.lease_by(2);
    b.fail(&lost, LONG, "too late to complain");
    let reply = b.claim_by(3);
    assert!(matches!(reply, Claimed::Busy(_)), "{reply:?}");
}

fn a_version_is_the_microseconds_of_a_clock_at_least(bench: &Bench<'_>) {
    let wall = bench.pace.wall().unix_micros();
    assert!(
        bench.lease_by(1).version.0 + 1_000_000 > wall,
        "a store that lost all issues it again"
    );
}
