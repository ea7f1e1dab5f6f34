//! Everything a store knows of one key, and the rules by which it changes: the lease protocol as
//! plain functions over plain data. Whoever keeps the record (process memory, a slot of the host
//! table) makes each change atomic; `redis/*.lua` says the same for Redis, and `conformance`
//! holds the two to each other.

use std::time::Duration;

use super::{
    Backoff, Claim, Claimed, Committed, Failure, Lease, MAX_REASON, backoff, jittered,
    rejection_pause,
};
use crate::clock::Moment;
use crate::entry::{Digest, Entry, Kind, Timing, Version};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    pub entry: Option<Entry>,
    pub lease: Option<Held>,
    /// Failed mints in a row, and when the next may be tried.
    pub failures: u64,
    pub retry_at: Moment,
    pub reason: String,
    /// Rejections in a row, and when the next may drop a token.
    pub rejections: u64,
    pub reject_at: Moment,
    /// The version that was rejected too soon to be dropped: its life does not count as unrejected.
    pub rejected_early: Version,
    /// A rejection that the fleet's store has not been told of yet.
    pub pending_rejection: Option<Digest>,
}

/// A lease and the end of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Held {
    pub lease: Lease,
    pub until: Moment,
}

/// Where the record stands: the floor of its key, what the key holds, and the time.
#[derive(Debug)]
pub struct Context<'a> {
    pub kind: Kind,
    pub floor: &'a mut Version,
    pub now: Moment,
    /// See [`Version::latest`].
    pub latest: Version,
}

enum Rejection {
    NotCurrent,
    Dropped,
    /// Another one was dropped a moment ago; this one stays in force for so long.
    TooSoon(Duration),
}

impl Record {
    /// `issue` makes a version above its argument and above all it has made before.
    pub fn claim(
        &mut self,
        at: &mut Context<'_>,
        claim: &Claim,
        issue: impl FnOnce(Version) -> Version,
    ) -> Claimed {
        let rejection = claim.rejected.map(|rejected| self.reject(at, rejected, Version::NONE));
        if let Some(entry) = self.served(at)
            && entry.version > claim.newer_than
        {
            return Claimed::Value(entry.clone());
        }
        if let Some(held) = self.live_lease(at.now) {
            if held.lease.secret == claim.secret {
                // The reply to this very claim was lost: grant it once more.
                self.lease = Some(Held { until: at.now.plus(claim.lease), ..held });
                return Claimed::Lease(held.lease);
            }
            if claim.takeover != Some(held.lease.secret) {
                return Claimed::Busy(at.now.until(held.until));
            }
        }
        if let Some(Rejection::TooSoon(wait)) = rejection {
            return Claimed::BackOff { wait, reason: "the token was rejected again".into() };
        }
        if at.now < self.retry_at {
            let (wait, reason) = (at.now.until(self.retry_at), self.reason.clone());
            return Claimed::BackOff { wait, reason };
        }
        let version = issue(self.above(at, claim.highest_known));
        let lease = Lease { secret: claim.secret, version, given_at: 0 };
        self.lease = Some(Held { lease, until: at.now.plus(claim.lease) });
        Claimed::Lease(lease)
    }

    pub fn renew(&mut self, now: Moment, lease: &Lease, length: Duration) -> bool {
        let ours = self.live_lease(now).is_some_and(|held| held.lease == *lease);
        if ours {
            self.lease = Some(Held { lease: *lease, until: now.plus(length) });
        }
        ours
    }

    pub fn commit(&mut self, at: &Context<'_>, lease: &Lease, entry: &Entry) -> Committed {
        if entry.version < *at.floor || entry.version > at.latest {
            return Committed::Fenced;
        }
        if let Some(decided) = self.against_stored(entry) {
            return decided;
        }
        // A later lease is out: its holder will publish, and our mint may already be revoked.
        if self.live_lease(at.now).is_some_and(|held| {
            held.lease.secret != lease.secret && held.lease.version > entry.version
        }) {
            return Committed::Fenced;
        }
        self.entry = Some(entry.clone());
        self.lease = self.lease.filter(|held| held.lease.secret != lease.secret);
        self.succeeded();
        Committed::Accepted
    }

    /// The pause that begins.
    pub fn abandon(&mut self, now: Moment, lease: &Lease, failure: Option<&Failure>) -> Duration {
        if self.live_lease(now).is_none_or(|held| held.lease != *lease) {
            return Duration::ZERO;
        }
        self.lease = None;
        let Some(Failure { base, least, reason }) = failure else { return Duration::ZERO };
        self.failures = self.failures.saturating_add(1);
        let pause = jittered(backoff(*base, self.failures)).max(*least);
        self.retry_at = now.plus(pause);
        self.reason = reason[..reason.floor_char_boundary(MAX_REASON)].into();
        pause
    }

    /// Whether anything was dropped.
    pub fn invalidate(
        &mut self,
        at: &mut Context<'_>,
        rejected: Option<Digest>,
        seen: Version,
        issue: impl FnOnce(Version) -> Version,
    ) -> bool {
        if let Some(rejected) = rejected {
            return matches!(self.reject(at, rejected, seen), Rejection::Dropped);
        }
        let dropped = self.served(at).is_some() || self.live_lease(at.now).is_some();
        // The floor is a version of its own that no mint ever gets: above the stored one, above
        // the live lease's, and above that of a lease that has run out.
        *at.floor = issue(self.above(at, seen));
        dropped
    }

    pub fn restore(&mut self, at: &Context<'_>, entry: &Entry) -> Committed {
        if entry.version < *at.floor || entry.version > at.latest {
            return Committed::Fenced;
        }
        if let Some(decided) = self.against_stored(entry) {
            return decided;
        }
        self.entry = Some(entry.clone());
        Committed::Accepted
    }

    /// Take over what the authority has. Of two copies of one version the minter's own is renewed
    /// first, and stays so; and neither may live longer than the other, for the authority may have
    /// come to it late.
    pub fn adopt(&mut self, entry: &Entry) {
        let mut entry = entry.clone();
        // A file's version does not say which file.
        let one_mint =
            |held: &&Entry| held.version == entry.version && held.version > Version::FILE;
        if let Some(held) = self.entry.as_ref().filter(one_mint) {
            entry.timing = entry.timing.earlier(held.timing);
        } else if entry.version > Version::FILE {
            self.succeeded();
        }
        self.entry = Some(entry);
    }

    /// The entry that may be handed out now.
    pub fn served(&self, at: &Context<'_>) -> Option<&Entry> {
        self.entry
            .as_ref()
            .filter(|entry| entry.version >= *at.floor && entry.servable(at.kind, at.now))
    }

    /// Somebody has minted.
    fn succeeded(&mut self) {
        self.failures = 0;
        self.retry_at = Moment::default();
        self.reason.clear();
    }

    /// The pause after the last failure, which may be over.
    pub fn backoff(&self) -> Option<Backoff> {
        (self.retry_at > Moment::default()).then(|| Backoff {
            until: self.retry_at,
            failures: self.failures,
            reason: self.reason.clone(),
        })
    }

    /// The authority keeps everybody from minting until then. How often mints have failed it does not say.
    pub fn hear_backoff(&mut self, until: Moment, reason: &str) {
        self.failures = self.failures.max(1);
        self.retry_at = until;
        self.reason = reason[..reason.floor_char_boundary(MAX_REASON)].into();
    }

    fn reject(&mut self, at: &mut Context<'_>, rejected: Digest, held: Version) -> Rejection {
        let in_force = |entry: &&Entry| entry.version >= *at.floor && entry.digest() == rejected;
        let (version, half) = match self.entry.as_ref().filter(in_force) {
            Some(entry) => (entry.version, lived_half(&entry.timing, at.now)),
            None => {
                let held = held.believed(at.latest);
                // Above all that is stored: it was lost here, and whoever has it would give it back.
                if held <= self.stored() || held < *at.floor {
                    return Rejection::NotCurrent;
                }
                (held, false)
            }
        };
        if half && self.rejected_early != version {
            self.rejections = 0;
        }
        // The first waits for nothing, not even for a clock that began at zero.
        if self.rejections > 0 && at.now < self.reject_at {
            self.rejected_early = version;
            return Rejection::TooSoon(at.now.until(self.reject_at));
        }
        // Not above a mint in flight: that one is already the answer to this rejection.
        *at.floor = version.next();
        self.rejections = self.rejections.saturating_add(1);
        self.reject_at = at.now.plus(rejection_pause(self.rejections));
        Rejection::Dropped
    }

    /// The stored entry decides, where it is not older than `entry`.
    fn against_stored(&self, entry: &Entry) -> Option<Committed> {
        let stored = self.entry.as_ref().filter(|stored| stored.version >= entry.version)?;
        let same = stored.version == entry.version && stored.value == entry.value;
        Some(if same { Committed::Accepted } else { Committed::Superseded(stored.clone()) })
    }

    /// What a new version has to lie above.
    fn above(&self, at: &Context<'_>, highest_known: Version) -> Version {
        self.stored().max(*at.floor).max(highest_known.believed(at.latest))
    }

    fn stored(&self) -> Version {
        self.entry.as_ref().map_or(Version::NONE, |entry| entry.version)
    }

    fn live_lease(&self, now: Moment) -> Option<Held> {
        self.lease.filter(|held| now < held.until)
    }
}

/// A token that worked this long shows that the issuer and the endpoint are at one again.
fn lived_half(timing: &Timing, now: Moment) -> bool {
    let usable = timing.minted_at.millis_until(timing.usable_until);
    timing.minted_at.millis_until(now) >= usable / 2
}
