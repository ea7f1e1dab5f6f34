//! The contracts of [`Store`] and of [`super::Host`], one named claim per line, run on every implementation.
//!
//! A store that keeps real time cannot be told what time it is, so claims pass time through
//! [`Pace`]: a fake clock jumps, a real one sleeps. Spans are short where a claim waits for their
//! end, and long where it needs them to last on a busy machine.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use super::{
    Claim, Claimed, Committed, Failure, Lease, MAX_BACKOFF, MAX_REASON, Reply, Secret, Store,
};
use crate::clock::fake::FakeClock;
use crate::clock::{Clock, Moment, WallTime};
use crate::entry::{Detail, Digest, Entry, Fingerprint, Key, Kind, Timing, Version};

/// How time passes for the store under test.
pub trait Pace {
    /// What the store is told as `now`.
    fn now(&self) -> Moment;
    fn wall(&self) -> WallTime;
    fn pass(&self, span: Duration);
}

impl Pace for FakeClock {
    fn now(&self) -> Moment {
        Clock::now(self)
    }

    fn wall(&self) -> WallTime {
        Clock::wall(self)
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
        crate::clock::system::ProcessClock::start().now()
    }

    fn wall(&self) -> WallTime {
        crate::clock::system::wall()
    }

    fn pass(&self, span: Duration) {
        thread::sleep(span);
    }
}

/// What is broken, if the claim is.
fn broken(store: &str, claim: &str, holds: impl FnOnce()) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(holds)).err()?;
    let why = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap_or_default();
    Some(format!("{store} breaks `{claim}`: {why}"))
}

/// Check every claim on a store of its own, made by `make`; panics with the list of broken ones.
pub fn check(store: &str, make: &dyn Fn() -> Box<dyn Store>, pace: &dyn Pace) {
    let claims = [lease::CLAIMS, publish::CLAIMS, refusal::CLAIMS];
    let broken: Vec<String> = claims
        .into_iter()
        .flatten()
        .filter_map(|(claim, holds)| {
            let made = make();
            let bench = Bench { store: &*made, pace };
            broken(store, claim, || holds(&bench))
        })
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

macro_rules! claims {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name)),*] };
}

type Holds = fn(&Bench<'_>);
type Claims = &'static [(&'static str, Holds)];

mod host;
mod lease;
mod publish;
mod refusal;

pub use host::check_host;

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
    /// One of 16 digits, of which a careless float keeps 14, almost a year ahead: from a host or a server whose
    /// clock is wrong.
    fn ahead(&self) -> Version {
        let latest = Version::latest(self.pace.wall()).0;
        Version(latest - latest % 1_000_000_000 - 1_000_000_000 + 123)
    }

    /// Some that nobody can have issued.
    fn impossible(&self) -> [Version; 4] {
        let latest = Version::latest(self.pace.wall()).0;
        [latest + 600_000_000, 1 << 53, 9_000_000_000_000_000_000, u64::MAX].map(Version)
    }

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
            value: value.as_bytes().to_vec().into(),
            detail: serde_json::to_vec(&detail).unwrap().into(),
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
        self.store.invalidate(&key(), rejected, Version::NONE, self.now()).unwrap().what
    }

    fn invalidate(&self) -> Reply<bool> {
        self.store.invalidate(&key(), None, Version::NONE, self.now()).unwrap()
    }

    fn restore(&self, entry: &Entry) -> Committed {
        self.store.restore(&key(), entry, self.now()).unwrap().what.outcome
    }

    /// The pause that begins.
    fn fail(&self, lease: &Lease, base: Duration, reason: &str) -> Duration {
        let failure = Failure { base, least: Duration::ZERO, reason: reason.into() };
        self.store.abandon(&key(), lease, Some(&failure), self.now()).unwrap()
    }

    /// The value everybody is served now.
    fn value(&self) -> String {
        match self.claim_by(99) {
            Claimed::Value(entry) => String::from_utf8(entry.value.to_vec()).unwrap(),
            other => panic!("a value was due, not {other:?}"),
        }
    }
}
