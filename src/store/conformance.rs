//! The contract of [`Store`], one named claim per line, run on every implementation.
//!
//! A store that keeps real time cannot be told what time it is, so claims pass time through
//! [`Pace`]: a fake clock jumps, a real one sleeps. Spans are short where a claim waits for their
//! end, and long where it needs them to last on a busy machine.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use super::{Claim, Claimed, Committed, Failure, Lease, MAX_REASON, Reply, Secret, Store};
use crate::clock::fake::FakeClock;
use crate::clock::{Clock, Moment};
use crate::entry::{Detail, Digest, Entry, Fingerprint, Key, Kind, Timing, Version};

/// How time passes for the store under test.
pub trait Pace {
    /// What the store is told as `now`.
    fn now(&self) -> Moment;
    fn pass(&self, span: Duration);
}

impl Pace for FakeClock {
    fn now(&self) -> Moment {
        Clock::now(self)
    }

    fn pass(&self, span: Duration) {
        self.advance(span);
    }
}

/// For stores that keep their own time.
#[cfg(any(feature = "host", feature = "redis"))]
pub struct RealTime;

#[cfg(any(feature = "host", feature = "redis"))]
impl Pace for RealTime {
    fn now(&self) -> Moment {
        crate::clock::system::monotonic()
    }

    fn pass(&self, span: Duration) {
        thread::sleep(span);
    }
}

/// Check every claim on a store of its own, made by `make`; panics with the list of broken ones.
pub fn check(store: &str, make: &dyn Fn() -> Box<dyn Store>, pace: &dyn Pace) {
    let broken: Vec<String> = CLAIMS
        .iter()
        .filter_map(|(claim, holds)| {
            let made = make();
            let bench = Bench { store: &*made, pace };
            let panic = catch_unwind(AssertUnwindSafe(|| holds(&bench))).err()?;
            let why = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
                .unwrap_or_default();
            Some(format!("{store} breaks `{claim}`: {why}"))
        })
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

macro_rules! claims {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name)),*] };
}

type Holds = fn(&Bench<'_>);

const CLAIMS: &[(&str, Holds)] = claims![
    an_empty_store_gives_a_lease,
    at_most_one_of_many_claimers_gets_the_lease,
    the_other_hears_how_long_the_lease_lasts,
    the_same_secret_gets_the_same_lease_again,
    a_lease_that_ran_out_goes_to_the_next_under_a_higher_version,
    versions_grow_over_all_keys,
    a_version_lies_above_what_the_caller_has_seen_to_the_last_digit,
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
    an_orphan_passes_to_its_successor_at_once_and_its_commit_is_refused,
    a_takeover_finds_what_the_dead_one_committed,
    a_takeover_repeated_is_the_same_lease,
    a_takeover_needs_the_secret_of_the_live_lease,
    a_renewed_lease_lasts_longer,
    a_lost_lease_cannot_be_renewed,
    an_abandoned_lease_is_free_at_once,
    nobody_abandons_the_lease_of_another,
    a_failure_turns_everybody_away_with_its_reason,
    failures_in_a_row_pause_longer_until_a_commit,
    a_backoff_does_not_hide_a_newer_value,
    a_reason_is_cut_to_its_limit_at_a_character,
    an_invalidation_drops_the_value_and_raises_the_floor,
    an_invalidation_fences_the_mint_in_flight,
    an_invalidation_fences_a_lease_that_ran_out,
    an_invalidation_of_nothing_raises_the_floor_above_what_may_come_back,
    another_digest_drops_nothing,
    a_rejected_token_goes_at_once_and_the_mint_in_flight_may_land,
    rejections_in_a_row_are_paced,
    a_token_that_lived_half_its_life_is_rejected_at_once,
    a_claim_with_a_rejection_drops_and_grants,
    a_claim_with_an_early_rejection_mints_nothing,
    a_lost_entry_is_restored,
    restoring_replaces_older_and_never_newer,
    restoring_below_the_floor_is_fenced,
    a_restored_version_is_never_given_again,
];

/// Long enough that no claim sees its end.
const LONG: Duration = Duration::from_secs(30);
/// A lease whose end a claim waits for, and the wait.
const SHORT: Duration = Duration::from_millis(80);
const PAST_SHORT: Duration = Duration::from_millis(110);

struct Bench<'a> {
    store: &'a dyn Store,
    pace: &'a dyn Pace,
}

fn token(name: &str) -> Key {
    Key::new(Kind::Token, name.as_bytes(), Fingerprint::default()).unwrap()
}

/// The key of every claim that needs only one.
fn key() -> Key {
    token("crm:eu")
}

pub fn secret(n: u64) -> Secret {
    Secret::from_bits(n).unwrap()
}

/// The plainest claim: nothing known, a long lease.
pub fn claim_of(secret: Secret) -> Claim {
    Claim {
        secret,
        takeover: None,
        newer_than: Version::NONE,
        highest_known: Version::NONE,
        rejected: None,
        lease: LONG,
    }
}

impl Bench<'_> {
    fn now(&self) -> Moment {
        self.pace.now()
    }

    fn claim(&self, claim: Claim) -> Claimed {
        self.store.claim(&key(), &claim, self.now()).unwrap().what
    }

    fn claim_by(&self, n: u64) -> Claimed {
        self.claim(claim_of(secret(n)))
    }

    fn lease(&self, claim: Claim) -> Lease {
        match self.claim(claim) {
            Claimed::Lease(lease) => lease,
            other => panic!("a lease was due, not {other:?}"),
        }
    }

    fn lease_by(&self, n: u64) -> Lease {
        self.lease(claim_of(secret(n)))
    }

    /// Minted now, good for an hour.
    fn entry(&self, lease: &Lease, value: &str) -> Entry {
        let minted_at = self.now();
        let after = |s| minted_at.plus(Duration::from_secs(s));
        let timing = Timing {
            minted_at,
            refresh_at: after(2_400),
            usable_until: after(3_000),
            expires_at: after(3_600),
        };
        let detail = Detail { source: "test".into(), ..Detail::default() };
        Entry {
            version: lease.version,
            timing,
            unsynced: false,
            value: value.into(),
            detail: serde_json::to_vec(&detail).unwrap(),
        }
    }

    fn commit(&self, lease: &Lease, entry: &Entry) -> Reply<Committed> {
        self.store.commit(&key(), lease, entry, self.now()).unwrap()
    }

    /// Claim, mint, commit.
    fn minted(&self, n: u64, value: &str) -> Entry {
        let lease = self.lease_by(n);
        let entry = self.entry(&lease, value);
        assert_eq!(self.commit(&lease, &entry).what, Committed::Accepted);
        entry
    }

    fn reject(&self, value: &str) -> bool {
        let rejected = Some(Digest::of(value.as_bytes()));
        self.store.invalidate(&key(), rejected, self.now()).unwrap().what
    }

    fn invalidate(&self) -> Reply<bool> {
        self.store.invalidate(&key(), None, self.now()).unwrap()
    }

    fn restore(&self, entry: &Entry) -> Committed {
        self.store.restore(&key(), entry, self.now()).unwrap().what
    }

    fn fail(&self, lease: &Lease, base: Duration, reason: &str) {
        let failure = Failure { base, reason: reason.into() };
        self.store.abandon(&key(), lease, Some(&failure), self.now()).unwrap();
    }

    /// The value everybody is served now.
    fn value(&self) -> String {
        match self.claim_by(99) {
            Claimed::Value(entry) => String::from_utf8(entry.value).unwrap(),
            other => panic!("a value was due, not {other:?}"),
        }
    }
}

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

fn a_version_lies_above_what_the_caller_has_seen_to_the_last_digit(b: &Bench) {
    // The year 2240 in microseconds: 16 digits, of which a careless float keeps 14.
    let seen = Version(8_520_336_000_000_123);
    let lease = b.lease(Claim { highest_known: seen, ..claim_of(secret(1)) });
    assert_eq!(lease.version, seen.next());
    assert_eq!(b.lease_by(1), lease);
    let entry = b.entry(&lease, "one");
    assert_eq!(b.commit(&lease, &entry).what, Committed::Accepted);
    match b.claim_by(2) {
        Claimed::Value(stored) => assert_eq!(stored.version, entry.version),
        other => panic!("a value was due, not {other:?}"),
    }
    let next = b.lease(Claim { newer_than: entry.version, ..claim_of(secret(2)) });
    assert_eq!(next.version, entry.version.next());
}

fn a_committed_value_comes_back_whole(b: &Bench) {
    let lease = b.lease_by(1);
    let mut entry = b.entry(&lease, "");
    entry.value = (0..=255).collect();
    let detail = br#"{"source":"crm","kept":{"instance_url":"https://eu.example"},"later":[1,{}]}"#;
    entry.detail = detail.to_vec();
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
            Kind::Sheet => assert!(matches!(reply, Claimed::Value(_)), "{reply:?}"),
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
        Committed::Superseded(stored) => assert_eq!(stored.value, b"one"),
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
        Committed::Superseded(stored) => assert_eq!(stored.value, b"two"),
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
    assert!(matches!(&reply, Claimed::Value(entry) if entry.value == b"last words"), "{reply:?}");
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
        b.fail(lease, BASE, "no");
        match b.claim_by(9) {
            Claimed::BackOff { wait, .. } => wait,
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
    assert!(matches!(&reply, Claimed::Value(stored) if stored.value == b"two"), "{reply:?}");
    match b.claim(Claim { newer_than: entry.version, ..claim }) {
        Claimed::BackOff { wait, .. } => assert!(wait <= Duration::from_secs(1), "{wait:?}"),
        other => panic!("an endpoint that always says 401 would mint for ever: {other:?}"),
    }
}

fn a_lost_entry_is_restored(b: &Bench) {
    let known = Lease { secret: secret(1), version: Version(1_700_000_000_000_001) };
    let entry = b.entry(&known, "one");
    assert_eq!(b.restore(&entry), Committed::Accepted);
    assert_eq!(b.restore(&entry), Committed::Accepted);
    assert_eq!(b.value(), "one");
}

fn restoring_replaces_older_and_never_newer(b: &Bench) {
    let held = b.minted(1, "one");
    let newer = Lease { secret: secret(2), version: held.version.next() };
    let older = Lease { secret: secret(2), version: Version(held.version.0 - 1) };
    match b.restore(&b.entry(&older, "older")) {
        Committed::Superseded(stored) => assert_eq!(stored.value, b"one"),
        other => panic!("{other:?}"),
    }
    match b.restore(&Entry { value: "other".into(), ..held }) {
        Committed::Superseded(stored) => assert_eq!(stored.value, b"one"),
        other => panic!("the same version with another value: {other:?}"),
    }
    assert_eq!(b.restore(&b.entry(&newer, "newer")), Committed::Accepted);
    assert_eq!(b.value(), "newer");
}

fn restoring_below_the_floor_is_fenced(b: &Bench) {
    let entry = b.minted(1, "one");
    let floor = b.invalidate().floor;
    let reply = b.store.restore(&key(), &entry, b.now()).unwrap();
    assert_eq!(reply, Reply { floor, what: Committed::Fenced });
    assert!(matches!(b.claim_by(2), Claimed::Lease(_)));
}

fn a_restored_version_is_never_given_again(b: &Bench) {
    // Minted by a host whose clock runs ahead, while the store could not be asked.
    let ahead = Lease { secret: secret(1), version: Version(8_520_336_000_000_123) };
    let entry = b.entry(&ahead, "one");
    assert_eq!(b.restore(&entry), Committed::Accepted);
    match b.store.claim(&token("other"), &claim_of(secret(2)), b.now()).unwrap().what {
        Claimed::Lease(lease) => assert!(lease.version > entry.version),
        other => panic!("{other:?}"),
    }
}
