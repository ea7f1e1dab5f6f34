//! Everything a store knows of one key, and the rules by which it changes: the lease protocol as
//! plain functions over plain data. Whoever keeps the record (process memory, a slot of the host
//! table) makes each change atomic; `redis/*.lua` says the same for Redis, and `conformance`
//! holds the two to each other.

use std::time::Duration;

use super::{Claim, Claimed, Committed, Failure, Lease, backoff, jittered, rejection_pause};
use crate::clock::Moment;
use crate::entry::{Digest, Entry, Kind, Version};

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
}

impl Record {
    /// `issue` makes a version above its argument and above all it has made before.
    pub fn claim(
        &mut self,
        at: &mut Context<'_>,
        claim: &Claim,
        issue: impl FnOnce(Version) -> Version,
    ) -> Claimed {
        if claim.rejected.is_some() {
            self.invalidate(at, claim.rejected);
        }
        if let Some(entry) = self.served(at)
            && entry.version > claim.newer_than
        {
            return Claimed::Value(entry.clone());
        }
        if let Some(held) = self.live_lease(at.now) {
            if held.lease.secret == claim.secret {
                // The reply to this very claim was lost: grant it once more.
                let lease = held.lease;
                self.lease = Some(Held { lease, until: at.now.plus(claim.lease) });
                return Claimed::Lease(lease);
            }
            if claim.takeover != Some(held.lease.secret) {
                return Claimed::Busy(at.now.until(held.until));
            }
        }
        if at.now < self.retry_at {
            let (wait, reason) = (at.now.until(self.retry_at), self.reason.clone());
            return Claimed::BackOff { wait, reason };
        }
        let stored = self.entry.as_ref().map_or(Version::NONE, |entry| entry.version);
        let version = issue(stored.max(*at.floor).max(claim.highest_known));
        let lease = Lease { secret: claim.secret, version };
        self.lease = Some(Held { lease, until: at.now.plus(claim.lease) });
        Claimed::Lease(lease)
    }

    pub fn renew(&mut self, now: Moment, lease: &Lease, length: Duration) -> bool {
        match self.live_lease(now) {
            Some(held) if held.lease == *lease => {
                self.lease = Some(Held { lease: *lease, until: now.plus(length) });
                true
            }
            _ => false,
        }
    }

    pub fn commit(&mut self, at: &mut Context<'_>, lease: &Lease, entry: &Entry) -> Committed {
        // A later lease is out: its holder will publish, and our mint may already be revoked.
        let fenced = self.live_lease(at.now).is_some_and(|held| {
            held.lease.secret != lease.secret && held.lease.version > entry.version
        });
        if fenced || entry.version < *at.floor {
            return Committed::Fenced;
        }
        let committed = self.store_if_newer(entry);
        if committed == Committed::Accepted {
            if self.lease.is_some_and(|held| held.lease.secret == lease.secret) {
                self.lease = None;
            }
            self.failures = 0;
            self.retry_at = Moment::default();
            self.reason.clear();
        }
        committed
    }

    pub fn abandon(&mut self, now: Moment, lease: &Lease, failure: Option<&Failure>) {
        if self.lease.is_none_or(|held| held.lease != *lease) {
            return;
        }
        self.lease = None;
        if let Some(failure) = failure {
            self.failures += 1;
            self.retry_at = now.plus(jittered(backoff(failure.base, self.failures)));
            self.reason.clone_from(&failure.reason);
        }
    }

    /// Whether something that could have been served is dropped.
    pub fn invalidate(&mut self, at: &mut Context<'_>, rejected: Option<Digest>) -> bool {
        let held = self.live_lease(at.now).map_or(Version::NONE, |held| held.lease.version);
        let Some(entry) = self.served(at) else {
            // Nothing to drop; without a digest the mint in flight is still fenced.
            if rejected.is_none() && held > Version::NONE {
                *at.floor = held.next().max(*at.floor);
            }
            return false;
        };
        let version = entry.version;
        match rejected {
            None => *at.floor = version.max(held).next().max(*at.floor),
            Some(digest) if entry.digest() == digest => {
                let usable = entry.timing.minted_at.millis_until(entry.timing.usable_until);
                let lived = entry.timing.minted_at.millis_until(at.now);
                if lived * 2 >= usable {
                    self.rejections = 0;
                } else if at.now < self.reject_at {
                    return false;
                }
                self.rejections += 1;
                self.reject_at = at.now.plus(rejection_pause(self.rejections));
                *at.floor = version.next().max(*at.floor);
            }
            Some(_) => return false,
        }
        true
    }

    pub fn restore(&mut self, at: &mut Context<'_>, entry: &Entry) -> Committed {
        if entry.version < *at.floor {
            return Committed::Fenced;
        }
        self.store_if_newer(entry)
    }

    /// The entry that may be handed out now.
    pub fn served(&self, at: &Context<'_>) -> Option<&Entry> {
        self.entry
            .as_ref()
            .filter(|entry| entry.version >= *at.floor && entry.servable(at.kind, at.now))
    }

    fn live_lease(&self, now: Moment) -> Option<Held> {
        self.lease.filter(|held| now < held.until)
    }

    fn store_if_newer(&mut self, entry: &Entry) -> Committed {
        match &self.entry {
            Some(stored) if stored.version > entry.version => Committed::Superseded(stored.clone()),
            Some(stored) if stored.version == entry.version && stored.value != entry.value => {
                Committed::Superseded(stored.clone())
            }
            _ => {
                self.entry = Some(entry.clone());
                Committed::Accepted
            }
        }
    }
}
