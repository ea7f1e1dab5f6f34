//! What is stored and handed out: commits, and entries given back after a loss.

use super::*;

pub const CLAIMS: Claims = claims![
    a_committed_value_comes_back_whole,
    a_value_is_given_only_to_who_has_less,
    a_token_past_its_margin_is_not_given_and_a_stale_sheet_is,
    keys_do_not_meet,
    a_commit_frees_the_lease,
    the_same_commit_twice_is_accepted_twice,
    another_value_under_the_same_version_is_refused,
    a_late_commit_nobody_overtook_is_accepted,
    a_commit_behind_a_newer_value_is_superseded_by_it,
    a_commit_behind_a_live_later_lease_is_fenced,
    a_lost_entry_is_restored,
    restoring_replaces_older_and_never_newer,
    restoring_below_the_floor_is_fenced,
    a_restored_version_is_never_given_again,
    what_nobody_can_have_issued_is_neither_committed_nor_restored,
];

fn a_committed_value_comes_back_whole(b: &Bench) {
    let lease = b.lease_by(1);
    let mut entry = b.entry(&lease, "");
    entry.value = (0..=255).collect::<Vec<u8>>().into();
    let detail = br#"{"source":"crm","kept":{"instance_url":"https://eu.example"},"later":[1,{}]}"#;
    entry.detail = detail.to_vec().into();
    b.commit(&lease, &entry);
    let Claimed::Value(stored) = b.claim_by(2) else { panic!("a value was due") };
    assert_eq!(stored.version, entry.version);
    assert_eq!(stored.value, entry.value);
    assert_eq!(stored.parsed_detail(), entry.parsed_detail());
    for (name, is, was) in [
        ("minted_at", stored.timing.minted_at, entry.timing.minted_at),
        ("refresh_at", stored.timing.refresh_at, entry.timing.refresh_at),
        ("usable_until", stored.timing.usable_until, entry.timing.usable_until),
        ("expires_at", stored.timing.expires_at, entry.timing.expires_at),
    ] {
        let moved = was.millis_until(is);
        assert!(moved.abs() < 1_000, "{name} moved by {moved} ms");
    }
}

fn a_value_is_given_only_to_who_has_less(b: &Bench) {
    let entry = b.minted(1, "one");
    let older = Version(entry.version.0 - 1);
    let given = b.claim(Claim { newer_than: older, ..claim_of(secret(2)) });
    assert!(matches!(given, Claimed::Value(_)), "{given:?}");
    let lease = b.lease(Claim { newer_than: entry.version, ..claim_of(secret(2)) });
    assert!(lease.version > entry.version);
}

fn a_token_past_its_margin_is_not_given_and_a_stale_sheet_is(b: &Bench) {
    let sheet = Key::new(Kind::Sheet, b"ecb", Fingerprint::default()).unwrap();
    for key in [key(), sheet] {
        let claim = claim_of(secret(1));
        let Claimed::Lease(lease) = b.store.claim(&key, &claim, b.now()).unwrap().what else {
            panic!("a lease was due");
        };
        let mut entry = b.entry(&lease, "one");
        entry.timing.refresh_at = b.now();
        entry.timing.usable_until = b.now().plus(SHORT);
        b.store.commit(&key, &lease, &entry, b.now()).unwrap();
        b.pace.pass(PAST_SHORT);
        let reply = b.store.claim(&key, &claim_of(secret(2)), b.now()).unwrap().what;
        match key.kind() {
            Kind::Token => assert!(matches!(reply, Claimed::Lease(_)), "{reply:?}"),
            Kind::Sheet | Kind::Quota => assert!(matches!(reply, Claimed::Value(_)), "{reply:?}"),
        }
    }
}

fn keys_do_not_meet(b: &Bench) {
    b.minted(1, "one");
    let scoped = Key::new(Kind::Token, b"crm:eu", Fingerprint::of(b"scope=read")).unwrap();
    let reply = b.store.claim(&scoped, &claim_of(secret(2)), b.now()).unwrap().what;
    assert!(matches!(reply, Claimed::Lease(_)), "{reply:?}");
    assert_eq!(b.value(), "one");
}

fn a_commit_frees_the_lease(b: &Bench) {
    let entry = b.minted(1, "one");
    b.lease(Claim { newer_than: entry.version, ..claim_of(secret(2)) });
}

fn the_same_commit_twice_is_accepted_twice(b: &Bench) {
    let lease = b.lease_by(1);
    let entry = b.entry(&lease, "one");
    assert_eq!(b.commit(&lease, &entry).what, Committed::Accepted);
    assert_eq!(b.commit(&lease, &entry).what, Committed::Accepted);
    b.lease(Claim { newer_than: entry.version, ..claim_of(secret(2)) });
    assert_eq!(b.commit(&lease, &entry).what, Committed::Accepted, "beside the next lease, too");
    assert_eq!(b.value(), "one");
}

fn another_value_under_the_same_version_is_refused(b: &Bench) {
    let lease = b.lease_by(1);
    b.commit(&lease, &b.entry(&lease, "one"));
    match b.commit(&lease, &b.entry(&lease, "two")).what {
        Committed::Superseded(stored) => assert_eq!(*stored.value, b"one"),
        other => panic!("{other:?}"),
    }
}

fn a_late_commit_nobody_overtook_is_accepted(b: &Bench) {
    let lease = b.lease(Claim { lease: SHORT, ..claim_of(secret(1)) });
    b.pace.pass(PAST_SHORT);
    assert_eq!(b.commit(&lease, &b.entry(&lease, "one")).what, Committed::Accepted);
    assert_eq!(b.value(), "one");
}

fn a_commit_behind_a_newer_value_is_superseded_by_it(b: &Bench) {
    let late = b.lease(Claim { lease: SHORT, ..claim_of(secret(1)) });
    b.pace.pass(PAST_SHORT);
    b.minted(2, "two");
    match b.commit(&late, &b.entry(&late, "one")).what {
        Committed::Superseded(stored) => assert_eq!(*stored.value, b"two"),
        other => panic!("{other:?}"),
    }
    assert_eq!(b.value(), "two");
}

fn a_commit_behind_a_live_later_lease_is_fenced(b: &Bench) {
    let late = b.lease(Claim { lease: SHORT, ..claim_of(secret(1)) });
    b.pace.pass(PAST_SHORT);
    let next = b.lease_by(2);
    assert_eq!(b.commit(&late, &b.entry(&late, "one")).what, Committed::Fenced);
    assert_eq!(b.commit(&next, &b.entry(&next, "two")).what, Committed::Accepted);
}

fn a_lost_entry_is_restored(b: &Bench) {
    let known = Lease::made_up(secret(1), Version(1_700_000_000_000_001));
    let entry = b.entry(&known, "one");
    assert_eq!(b.restore(&entry), Committed::Accepted);
    assert_eq!(b.restore(&entry), Committed::Accepted);
    assert_eq!(b.value(), "one");
}

fn restoring_replaces_older_and_never_newer(b: &Bench) {
    let held = b.minted(1, "one");
    let newer = Lease::made_up(secret(2), held.version.next());
    let older = Lease::made_up(secret(2), Version(held.version.0 - 1));
    match b.restore(&b.entry(&older, "older")) {
        Committed::Superseded(stored) => assert_eq!(*stored.value, b"one"),
        other => panic!("{other:?}"),
    }
    match b.restore(&Entry { value: b"other".to_vec().into(), ..held }) {
        Committed::Superseded(stored) => assert_eq!(*stored.value, b"one"),
        other => panic!("the same version with another value: {other:?}"),
    }
    assert_eq!(b.restore(&b.entry(&newer, "newer")), Committed::Accepted);
    assert_eq!(b.value(), "newer");
}

fn restoring_below_the_floor_is_fenced(b: &Bench) {
    let entry = b.minted(1, "one");
    let floor = b.invalidate().floor;
    let reply = b.store.restore(&key(), &entry, b.now()).unwrap();
    assert_eq!((reply.floor, reply.what.outcome), (floor, Committed::Fenced));
    assert!(matches!(b.claim_by(2), Claimed::Lease(_)));
}

fn a_restored_version_is_never_given_again(b: &Bench) {
    // Minted by a host whose clock runs ahead, while the store could not be asked.
    let ahead = Lease::made_up(secret(1), b.ahead());
    let entry = b.entry(&ahead, "one");
    assert_eq!(b.restore(&entry), Committed::Accepted);
    match b.store.claim(&token("other"), &claim_of(secret(2)), b.now()).unwrap().what {
        Claimed::Lease(lease) => assert!(lease.version > entry.version),
        other => panic!("{other:?}"),
    }
}

fn what_nobody_can_have_issued_is_neither_committed_nor_restored(b: &Bench) {
    for impossible in b.impossible() {
        let lease = Lease { version: impossible, ..b.lease_by(1) };
        let entry = b.entry(&lease, "poison");
        assert_eq!(b.commit(&lease, &entry).what, Committed::Fenced);
        assert_eq!(b.restore(&entry), Committed::Fenced);
    }
    assert!(b.minted(1, "one").version < b.ahead());
}
