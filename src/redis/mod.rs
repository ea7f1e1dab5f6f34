//! The authority for many hosts: [`Store`] on one Redis or Valkey, 6.2 or newer.
//!
//! Every operation is one script and mostly one round trip. All keys of a prefix share a hash tag:
//! - `{prefix}:v:<key>`: a hash with the entry, the floor, the back-off and the count of rejections;
//!   it outlives its entry by a day
//! - `{prefix}:l:<key>`: the lease, `secret:version`, expiring with it; not in the log
//! - `{prefix}:meta`: the highest version issued
//! - `{prefix}:log`: the change log: a line for every commit, restored entry and raised floor
//!
//! Missing is not invalidated: after FLUSHALL the entries come back by `restore`, and versions go
//! on growing because they are microseconds at the least.
//!
//! No retry policy lives here beyond one for a dead idle connection; the breaker is the host's.

mod age;
pub mod config;
pub mod connection;
pub mod envelope;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod log;
pub mod pool;
mod scripts;
pub mod socket;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
mod tls;
mod topology;

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, FromRedisValue, Script, ScriptInvocation};

pub use config::{Endpoint, Login, Password, Prefix, RedisConfig, Tls, Topology};

use crate::clock::{Clock, Moment, system};
use crate::entry::{Digest, Entry, Key, Version, servable_until};
use crate::seal::{KeyId, Seal};
use crate::store::{
    Claim, Claimed, Committed, Failure, Lease, MAX_REASON, Noticed, Reply, Restored, Secret, Store,
    StoreError, jittered,
};
use envelope::Unreadable;
use pool::Pool;
use scripts::{ClaimReply, Clocks, CommitReply, Fields, Reading};

pub struct RedisStore {
    pool: Pool,
    keys: Keys,
    seal: Option<Arc<Seal>>,
    clocks: Clocks,
    host: Option<Arc<dyn Clock>>,
}

struct Keys {
    values: String,
    leases: String,
    meta: String,
    log: String,
}

impl RedisStore {
    /// Connects at first need.
    pub fn new(config: RedisConfig) -> Self {
        let tag = |what| Self::tagged(&config, what);
        let keys =
            Keys { values: tag("v:"), leases: tag("l:"), meta: tag("meta"), log: tag("log") };
        Self { pool: Pool::new(config), keys, seal: None, clocks: Clocks::default(), host: None }
    }

    /// Seal what is written, and read nothing else.
    pub fn sealing(self, seal: Option<Arc<Seal>>) -> Self {
        Self { seal, ..self }
    }

    /// Believe what `host` has watched of the server's clock.
    pub fn on(self, host: Arc<dyn Clock>) -> Self {
        Self { host: Some(host), ..self }
    }

    #[cfg(test)]
    pub fn over(self, network: Arc<dyn connection::Network>) -> Self {
        Self { pool: self.pool.over(network), ..self }
    }

    fn reading<'a>(&'a self, key: &'a Key, now: Moment) -> Reading<'a> {
        Reading {
            key,
            now,
            wall: system::wall(),
            sent: system::monotonic(),
            heard: system::monotonic(),
            watched: self.host.as_ref().and_then(|host| host.watched()),
            seal: self.seal.as_deref(),
            clocks: &self.clocks,
        }
    }

    /// One hash tag for all keys of a prefix.
    fn tagged(config: &RedisConfig, what: &str) -> String {
        format!("{{{}}}:{what}", config.prefix)
    }

    pub fn ping(&self) -> Result<(), StoreError> {
        self.pool.with(|connection| Cmd::ping().exec(connection))
    }

    /// Commands sent since this store was made.
    pub fn commands_sent(&self) -> u64 {
        self.pool.connector().sent()
    }

    /// `script` on the keys of `key`, whose text is its first argument. The second is what time it is here.
    fn call<'a>(&self, script: &'a Script, key: &Key) -> ScriptInvocation<'a> {
        let text = key.text();
        let mut call = script.prepare_invoke();
        call.key(format!("{}{text}", self.keys.values))
            .key(format!("{}{text}", self.keys.leases))
            .key(self.keys.meta.as_str())
            .key(self.keys.log.as_str())
            .arg(text)
            .arg(system::wall().unix_micros());
        call
    }

    fn run<T: FromRedisValue>(&self, call: &ScriptInvocation<'_>) -> Result<T, StoreError> {
        self.pool.with(|connection| call.invoke(connection))
    }

    fn run_commit(
        &self,
        call: &ScriptInvocation<'_>,
        key: &Key,
        now: Moment,
    ) -> Result<Reply<CommitReply>, StoreError> {
        let reading = self.reading(key, now);
        let fields: Fields = self.run(call)?;
        scripts::commit_reply(&fields, reading.answered()).ok_or_else(not_ours)
    }

    /// What remains of each instant, the minting by our clock, then the body: see `publish` in
    /// `common.lua`.
    fn push_entry(&self, call: &mut ScriptInvocation<'_>, key: &Key, entry: &Entry, now: Moment) {
        let timing = &entry.timing;
        for instant in [
            timing.minted_at,
            timing.refresh_at,
            timing.usable_until,
            timing.expires_at,
            servable_until(timing, key.kind()),
        ] {
            call.arg(now.millis_until(instant));
        }
        call.arg(system::wall().unix_millis().saturating_add(now.millis_until(timing.minted_at)));
        call.arg(envelope::encode(key, entry, self.seal.as_deref()));
    }

    /// Minting in place of a value that others can read would go on for ever, each side replacing the
    /// other's; so this host is as one without Redis.
    fn locked_out(&self, with: KeyId) -> StoreError {
        let why = match &self.seal {
            None => "and this host has no sharedstate.encryption_key_file".into(),
            Some(seal) => format!(
                "which is not in this host's sharedstate.encryption_key_file (it seals with {})",
                seal.id()
            ),
        };
        StoreError::Sealed { with, why }
    }

    fn claim_once(
        &self,
        key: &Key,
        claim: &Claim,
        now: Moment,
    ) -> Result<Reply<ClaimReply>, StoreError> {
        let mut call = self.call(&scripts::CLAIM, key);
        call.arg(hex(claim.secret))
            .arg(claim.takeover.map(hex).unwrap_or_default())
            .arg(claim.newer_than.0)
            .arg(claim.highest_known.0)
            .arg(claim.rejected.map(|digest| digest.to_string()).unwrap_or_default())
            .arg(expiry(claim.lease));
        let reading = self.reading(key, now);
        let fields: Fields = self.run(&call)?;
        scripts::claim_reply(&fields, claim.secret, reading.answered()).ok_or_else(not_ours)
    }
}

fn hex(secret: Secret) -> String {
    format!("{:x}", secret.bits())
}

/// A key's life in Redis; zero would be refused.
fn expiry(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX).clamp(1, i64::MAX as u64 / 4)
}

fn not_ours() -> StoreError {
    StoreError::Foreign(
        "a script answered what it never says: is the prefix used by others?".into(),
    )
}

impl Store for RedisStore {
    fn claim(&self, key: &Key, claim: &Claim, now: Moment) -> Result<Reply<Claimed>, StoreError> {
        let Reply { floor, what } = self.claim_once(key, claim, now)?;
        let unreadable: Version = match what {
            ClaimReply::Other(what) => return Ok(Reply { floor, what }),
            ClaimReply::Value(Ok(entry)) => {
                return Ok(Reply { floor, what: Claimed::Value(entry) });
            }
            ClaimReply::Value(Err((_, Unreadable::Sealed(id)))) => return Err(self.locked_out(id)),
            ClaimReply::Value(Err((version, Unreadable::NoValue))) => version,
        };
        // As if it were not there: ask again for something newer.
        let claim = Claim { newer_than: unreadable, rejected: None, ..*claim };
        let Reply { floor, what } = self.claim_once(key, &claim, now)?;
        let what = match what {
            ClaimReply::Other(what) => what,
            ClaimReply::Value(Ok(entry)) => Claimed::Value(entry),
            ClaimReply::Value(Err((_, Unreadable::Sealed(id)))) => return Err(self.locked_out(id)),
            // A newer release is at work on this key; its next value may be no better.
            ClaimReply::Value(Err(_)) => Claimed::Busy(claim.lease),
        };
        Ok(Reply { floor, what })
    }

    fn renew(
        &self,
        key: &Key,
        lease: &Lease,
        length: Duration,
        _now: Moment,
    ) -> Result<bool, StoreError> {
        let mut call = scripts::RENEW.prepare_invoke();
        call.key(format!("{}{}", self.keys.leases, key.text()));
        call.arg(hex(lease.secret)).arg(lease.version.0).arg(expiry(length));
        self.run(&call)
    }

    fn commit(
        &self,
        key: &Key,
        lease: &Lease,
        entry: &Entry,
        now: Moment,
    ) -> Result<Reply<Committed>, StoreError> {
        let mut call = self.call(&scripts::COMMIT, key);
        call.arg(hex(lease.secret)).arg(entry.version.0).arg(entry.digest().to_string());
        self.push_entry(&mut call, key, entry, now);
        call.arg(lease.given_at);
        let Reply { floor, what } = self.run_commit(&call, key, now)?;
        Ok(Reply { floor, what: what.decided(entry).map_err(|id| self.locked_out(id))? })
    }

    fn abandon(
        &self,
        key: &Key,
        lease: &Lease,
        failure: Option<&Failure>,
        _now: Moment,
    ) -> Result<Duration, StoreError> {
        let mut call = self.call(&scripts::ABANDON, key);
        call.arg(hex(lease.secret)).arg(lease.version.0);
        match failure {
            Some(Failure { base, least, reason }) => {
                let permille = jittered(Duration::from_secs(1)).as_millis() - 1000;
                call.arg(base.as_millis() as u64)
                    .arg(permille as u64)
                    .arg(&reason[..reason.floor_char_boundary(MAX_REASON)])
                    .arg(least.as_millis() as u64);
            }
            None => {
                call.arg("");
            }
        }
        self.run(&call).map(Duration::from_millis)
    }

    fn invalidate(
        &self,
        key: &Key,
        rejected: Option<Digest>,
        seen: Version,
        _now: Moment,
    ) -> Result<Reply<bool>, StoreError> {
        let mut call = self.call(&scripts::INVALIDATE, key);
        call.arg(rejected.map(|digest| digest.to_string()).unwrap_or_default()).arg(seen.0);
        scripts::invalidate_reply(&self.run(&call)?, system::wall()).ok_or_else(not_ours)
    }

    /// Mostly nothing is missing, so the version goes first and the body only when asked for.
    fn restore(
        &self,
        key: &Key,
        entry: &Entry,
        now: Moment,
    ) -> Result<Reply<Restored>, StoreError> {
        let mut call = self.call(&scripts::RESTORE, key);
        // No secret: a restored entry was committed elsewhere, or under no lease.
        call.arg("").arg(entry.version.0).arg(entry.digest().to_string());
        let sent = system::monotonic();
        let mut since = now;
        let mut reply = self.run_commit(&call, key, now)?;
        if let CommitReply::Missing(None | Some(Ok(_) | Err((_, Unreadable::NoValue))), asked_at) =
            reply.what
        {
            // From now on the server counts for itself, by what it noted before it answered; what it took
            // until now, a connect among it, is over already.
            since = now.plus(sent.until(system::monotonic()));
            self.push_entry(&mut call, key, entry, since);
            call.arg(asked_at);
            reply = self.run_commit(&call, key, since)?;
        }
        let outcome = reply.what.decided(entry).map_err(|id| self.locked_out(id))?;
        Ok(Reply { floor: reply.floor, what: Restored { outcome, since } })
    }

    fn rest(&self) {
        self.pool.rest();
    }

    fn let_go(&self) {
        self.pool.let_go();
    }

    fn noticed(&self) -> Noticed {
        let questions = self.pool.connector().newly_sent();
        Noticed { questions, clocks_disagreed: self.clocks.newly_disagreed() }
    }
}
