//! The stores that are in use, with somebody beside them who notes what was asked and answered.

use std::sync::Arc;
use std::time::Duration;

use super::rules::{self, Answer};
use super::{promises, task, trace, witness};
use crate::clock::Moment;
use crate::entry::{Digest, Entry, Key, Version};
use crate::redis::RedisStore;
use crate::redis::log::RedisLog;
use crate::store::log::{Anchor, ChangeLog, Fetched, Followed, Looked, Stored};
use crate::store::memory::MemoryHost;
use crate::store::{
    Claim, Claimed, Committed, Failure, Host as _, Lease, Noticed, Reply, Reservation, Restored,
    Store, StoreError,
};

pub struct WatchedStore {
    inner: RedisStore,
    host: usize,
    memory: Arc<MemoryHost>,
}

/// What a host is told of a floor counts for it, as long as the key has a place there.
fn heard(host: usize, memory: &MemoryHost, key: &Key, floor: Version) {
    if memory.reserve(key) != Reservation(0) {
        witness::heard_floor(host, key, floor);
    }
}

impl WatchedStore {
    pub fn new(inner: RedisStore, host: usize, memory: Arc<MemoryHost>) -> Self {
        Self { inner, host, memory }
    }

    fn told<T: std::fmt::Debug>(
        &self,
        what: &str,
        key: &Key,
        reply: Result<Reply<T>, StoreError>,
    ) -> Result<Reply<T>, StoreError> {
        trace::say(|| format!("host {}: {what} of {key:?} -> {reply:?}", self.host));
        if let Ok(reply) = &reply {
            heard(self.host, &self.memory, key, reply.floor);
        }
        let reply = failed(self.host, reply);
        reply.map(|reply| Reply { floor: told_of(reply.floor), ..reply })
    }
}

/// The floor that a host hears of.
fn told_of(floor: Version) -> Version {
    if rules::changes(Answer::NoFloor) { Version::NONE } else { floor }
}

/// What came of a question, with a failure noted.
fn failed<T>(host: usize, answer: Result<T, StoreError>) -> Result<T, StoreError> {
    witness::came_of(host, &answer);
    let refused = rules::changes(Answer::SilenceIsRefusal);
    answer.map_err(|error| match error {
        error if refused && error.is_silence() => StoreError::Unreachable(error.to_string()),
        error => error,
    })
}

impl Store for WatchedStore {
    fn claim(&self, key: &Key, claim: &Claim, now: Moment) -> Result<Reply<Claimed>, StoreError> {
        trace::say(|| format!("host {}: claims {key:?}: {claim:?}", self.host));
        witness::claims(claim);
        let reply = self.inner.claim(key, claim, now);
        if let Ok(Reply { what: Claimed::Lease(lease), .. }) = &reply {
            promises::leased(self.host, claim, lease);
        }
        self.told("claim", key, reply)
    }

    fn renew(
        &self,
        key: &Key,
        lease: &Lease,
        length: Duration,
        now: Moment,
    ) -> Result<bool, StoreError> {
        // The keeper does not tell its host whether it was answered.
        let reply = self.inner.renew(key, lease, length, now);
        trace::say(|| format!("host {}: renews {key:?}: {reply:?}", self.host));
        reply
    }

    fn commit(
        &self,
        key: &Key,
        lease: &Lease,
        entry: &Entry,
        now: Moment,
    ) -> Result<Reply<Committed>, StoreError> {
        trace::say(|| format!("host {}: commits {key:?}: {entry:?}", self.host));
        let reply = self.inner.commit(key, lease, entry, now);
        self.told("commit", key, reply)
    }

    fn abandon(
        &self,
        key: &Key,
        lease: &Lease,
        failure: Option<&Failure>,
        now: Moment,
    ) -> Result<Duration, StoreError> {
        let reply = failed(self.host, self.inner.abandon(key, lease, failure, now));
        trace::say(|| format!("host {}: gives the lease of {key:?} back: {reply:?}", self.host));
        reply
    }

    fn invalidate(
        &self,
        key: &Key,
        rejected: Option<Digest>,
        seen: Version,
        now: Moment,
    ) -> Result<Reply<bool>, StoreError> {
        let reply = self.inner.invalidate(key, rejected, seen, now);
        self.told("invalidation", key, reply)
    }

    fn restore(
        &self,
        key: &Key,
        entry: &Entry,
        now: Moment,
    ) -> Result<Reply<Restored>, StoreError> {
        trace::say(|| format!("host {}: asks about {key:?}, version {}", self.host, entry.version));
        let reply = self.inner.restore(key, entry, now);
        self.told("restore", key, reply)
    }

    fn rest(&self) {
        self.inner.rest();
    }

    fn let_go(&self) {
        self.inner.let_go();
    }

    fn noticed(&self) -> Noticed {
        self.inner.noticed()
    }
}

pub struct WatchedLog {
    inner: RedisLog,
    host: usize,
    memory: Arc<MemoryHost>,
}

impl WatchedLog {
    pub fn new(inner: RedisLog, host: usize, memory: Arc<MemoryHost>) -> Self {
        Self { inner, host, memory }
    }

    fn heard<T>(&self, keys: &[Key], replies: &Result<Vec<Reply<T>>, StoreError>) {
        for (key, reply) in keys.iter().zip(replies.iter().flatten()) {
            heard(self.host, &self.memory, key, reply.floor);
        }
    }
}

impl ChangeLog for WatchedLog {
    fn look(&self, anchor: Option<&Anchor>) -> Result<Looked, StoreError> {
        let asked = task::now();
        let mut looked = failed(self.host, self.inner.look(anchor));
        trace::say(|| format!("host {}: looks at the log: {looked:?}", self.host));
        if let Ok(looked) = &mut looked {
            witness::looked(self.host, asked);
            witness::saw(if looked.stands { "anchor stands" } else { "gap" });
            looked.stands |= anchor.is_some() && rules::changes(Answer::AnchorStands);
        }
        looked
    }

    fn follow(&self, anchor: &Anchor, patience: Duration) -> Result<Followed, StoreError> {
        let followed = failed(self.host, self.inner.follow(anchor, patience));
        match &followed {
            Ok(Followed::Lines { changes, .. }) if changes.is_empty() => {}
            followed => trace::say(|| format!("host {}: follows: {followed:?}", self.host)),
        }
        if let Ok(Followed::Lines { changes, .. }) = &followed {
            for change in changes {
                let floor = change.news.unwrap_or_default().floor;
                witness::saw("line");
                heard(self.host, &self.memory, &change.key, floor);
            }
        }
        followed
    }

    fn versions(&self, keys: &[Key], now: Moment) -> Result<Vec<Reply<Stored>>, StoreError> {
        let replies = failed(self.host, self.inner.versions(keys, now));
        trace::say(|| format!("host {}: compares {keys:?}: {replies:?}", self.host));
        self.heard(keys, &replies);
        replies.map(|replies| {
            replies.into_iter().map(|it| Reply { floor: told_of(it.floor), ..it }).collect()
        })
    }

    fn fetch(&self, keys: &[Key], now: Moment) -> Result<Vec<Reply<Fetched>>, StoreError> {
        let replies = failed(self.host, self.inner.fetch(keys, now));
        trace::say(|| format!("host {}: fetches {keys:?}: {replies:?}", self.host));
        self.heard(keys, &replies);
        replies.map(|replies| {
            replies.into_iter().map(|it| Reply { floor: told_of(it.floor), ..it }).collect()
        })
    }

    fn noticed(&self) -> Noticed {
        self.inner.noticed()
    }
}
