//! The two roles behind a flight, and their contract. `conformance` checks every line of it on the
//! in-memory reference, the host table and Redis.
//!
//! [`Store`] is the authority for a key: leases, versions, floors, back-off.
//! - At most one live lease per key while the store keeps its data.
//! - Versions only grow: a lease's version is above everything this store has issued, above the
//!   floor and above what the caller has seen. What no clock can have issued ([`Version::latest`]) is
//!   not believed, whoever says it.
//! - A commit below the stored version, the floor, or a later live lease is refused. The same
//!   commit sent twice is accepted twice and changes nothing the second time.
//! - Every operation may be repeated after a lost reply, with the same secret, without harm.
//! - Every operation ends within a bound the store was built with, or fails.
//!
//! [`Host`] is what the processes of one host share: entries read without a lock, and the right to
//! run the one flight of a key. The host table is both; with Redis configured, Redis is the
//! authority and the host table its cache.
//!
//! Not promised: exactly-once minting, durability, or order between two keys.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::server::ServerTime;
use crate::clock::{Clock, Moment};
use crate::entry::{Digest, Entry, Key, Kind, Version};
use crate::lock::Mutex;
use crate::metrics::Counter;
use crate::metrics::tally::Tally;
use crate::random;
use crate::seal::KeyId;
use crate::store::log::Anchor;

pub mod breaker;
#[cfg(test)]
pub mod conformance;
#[cfg(test)]
pub mod faulty;
pub mod log;
pub mod memory;
pub mod record;

/// Made by the client before it asks, so that a claim whose reply was lost can be sent again.
/// Random and never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Secret(u64);

impl Secret {
    pub fn random() -> Self {
        // A failing getrandom leaves no way to tell two minters apart; the address-space layout
        // and the process id would not either. Linux fails it only before boot has finished.
        Self(random::number().unwrap_or(1).max(1))
    }

    /// `None` for zero, which stands for "no secret" in shared memory and in Redis.
    pub const fn from_bits(bits: u64) -> Option<Self> {
        if bits == 0 { None } else { Some(Self(bits)) }
    }

    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// The right to mint a key until the store's clock has run `length` past the last claim or renewal.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    pub secret: Secret,
    /// The fence: what is minted under this lease is committed with this version.
    pub version: Version,
    /// In milliseconds of the clock of the server that gave it; zero where that is a host. So the server that is
    /// told of what was minted knows how long that was under way.
    pub given_at: i64,
}

/// It is the same whenever it was given: the reply to a claim may be lost.
impl PartialEq for Lease {
    fn eq(&self, other: &Self) -> bool {
        (self.secret, self.version) == (other.secret, other.version)
    }
}

#[cfg(test)]
impl Lease {
    /// One that nobody gave; what is minted under it was never under way for long.
    pub fn made_up(secret: Secret, version: Version) -> Self {
        Self { secret, version, given_at: i64::MAX }
    }
}

/// "I need this key: give me something newer than I have, or the right to mint it."
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    pub secret: Secret,
    /// The secret a dead process of this host left behind: its lease passes to `secret` at once,
    /// under a higher version, so that the dead one's commit is refused should it still arrive.
    pub takeover: Option<Secret>,
    /// A stored value counts only when its version is above this.
    pub newer_than: Version,
    /// The highest version this host has seen of any key; the lease's version lies above it. So a server
    /// that lost writes issues none of them again once a host that saw them has spoken to it.
    pub highest_known: Version,
    /// A token the application has just had rejected: apply [`Store::invalidate`] first. When that
    /// refuses because the last drop was a moment ago, nobody mints: the answer is what is stored
    /// or, to who has that already, a back-off for the rest of the pause.
    pub rejected: Option<Digest>,
    pub lease: Duration,
}

/// What a store answers, with the floor it knows: below it nothing may be served any more.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply<T> {
    pub floor: Version,
    pub what: T,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Claimed {
    /// A servable entry newer than the one named in the claim.
    Value(Entry),
    Lease(Lease),
    /// Somebody else is minting; their lease runs out in this long.
    Busy(Duration),
    /// The last mints failed; nobody may try for this long. The reason is the last failure's.
    BackOff {
        wait: Duration,
        reason: String,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Committed {
    /// Stored now, or stored before by the same commit.
    Accepted,
    /// Adopt it: a newer version is stored, or this one, and it ends earlier than was thought.
    Superseded(Entry),
    /// Refused by the floor, or by a later lease that has not committed yet: what was minted must
    /// not be published. Claim again.
    Fenced,
}

/// What came of giving an entry back.
#[derive(Clone, Debug, PartialEq)]
pub struct Restored {
    pub outcome: Committed,
    /// From when on this is so: from before the question; but where the store had lost the entry from after it said so,
    /// for what else it lost then nobody knows.
    pub since: Moment,
}

/// Why nobody may mint for a while.
#[derive(Clone, Debug)]
pub struct Failure {
    /// First pause; doubles with every failure in a row up to [`MAX_BACKOFF`].
    pub base: Duration,
    /// The pause is at least this, beyond [`MAX_BACKOFF`], too: who failed us may have said how long
    /// to stay away (`Retry-After`).
    pub least: Duration,
    /// Shown to every caller who is turned away; at most [`MAX_REASON`] bytes, no secrets.
    pub reason: String,
}

pub const MAX_BACKOFF: Duration = Duration::from_secs(60);
pub const MAX_REASON: usize = 200;

/// How much of the pause is added at random so that a fleet does not come back in step: 0 to 25 %.
/// Only ever added: the pause named is the least.
pub fn jittered(pause: Duration) -> Duration {
    pause + pause.mul_f64(0.25 * random::share())
}

/// What a store had, as this host keeps it: see [`Timing::spread`](crate::entry::Timing::spread).
pub fn as_kept_here(entry: Entry, kind: Kind) -> Entry {
    if kind != Kind::Token {
        // A sheet is refreshed early or in time, never late.
        return entry;
    }
    Entry { timing: entry.timing.spread(random::share()), ..entry }
}

/// The pause after `failures` failures in a row (1 is the first).
pub fn backoff(base: Duration, failures: u64) -> Duration {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    (base * (1 << doublings)).min(MAX_BACKOFF)
}

/// The pause after the `rejections`-th drop in a row before a rejection drops a token again: the
/// first drop is at once, the next after 1 s, 2 s, … 60 s. An endpoint that always answers 401 must
/// not become a mint storm.
pub fn rejection_pause(rejections: u64) -> Duration {
    backoff(Duration::from_secs(1), rejections)
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No connection, or a lost one. The operation may or may not have happened.
    #[error("{0}")]
    Unreachable(String),
    /// No answer in time, for connecting or for the reply; otherwise like `Unreachable`. It may be slow, or gone.
    #[error("{0}")]
    TimedOut(String),
    /// No answer in time on a connection that had been used before: perhaps it was this connection only, cut
    /// by something on the way.
    #[error("{0}")]
    Lapsed(String),
    /// It was not asked: it has not answered others lately, and it is not certain yet that it is gone.
    #[error("{0}")]
    NotAsked(String),
    /// The store answered and refused (authentication, read-only, out of memory).
    #[error("{0}")]
    Refused(String),
    /// The store is well, but what it has under this key is not ours.
    #[error("{0}")]
    Foreign(String),
    /// The store is well, and what it has under this key is for hosts that have another key to it.
    #[error("the value is sealed with key {with}, {why}")]
    Sealed { with: KeyId, why: String },
    /// The entry does not fit: `bytes` where `limit` is the most.
    #[error(
        "the value has {bytes} bytes with what is kept beside it, and at most {limit} fit: raise \
         sharedstate.host.value_size or keep fewer fields"
    )]
    TooLarge { bytes: usize, limit: usize },
}

/// What came of a question, for the host's decision whether to ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    Answer,
    /// It refused, or there is no way to it.
    Refusal,
    /// Nothing on a connection that may have been cut.
    Lapse,
    /// Nothing, for as long as it was waited for.
    Silence,
}

impl Heard {
    /// What is wrong with one key must not keep the host from asking about the others.
    pub fn of(error: Option<&StoreError>) -> Self {
        match error {
            Some(StoreError::TimedOut(_)) => Self::Silence,
            Some(StoreError::Lapsed(_) | StoreError::NotAsked(_)) => Self::Lapse,
            Some(StoreError::Unreachable(_) | StoreError::Refused(_)) => Self::Refusal,
            None
            | Some(
                StoreError::Foreign(_) | StoreError::Sealed { .. } | StoreError::TooLarge { .. },
            ) => Self::Answer,
        }
    }
}

/// Why the fleet's store did not answer this process, last time it did not.
#[derive(Clone, Debug, Default)]
pub struct LastFailure(Arc<Mutex<Option<StoreError>>>);

impl LastFailure {
    pub fn note(&self, error: &StoreError) {
        *self.0.lock() = Some(error.clone());
    }

    pub fn words(&self) -> Option<String> {
        self.0.lock().as_ref().map(ToString::to_string)
    }
}

impl StoreError {
    /// Whether the store may be merely slow: nobody knows yet whether it is there.
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::TimedOut(_) | Self::Lapsed(_) | Self::NotAsked(_))
    }
}

/// Whether an authority may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    Given,
    /// It has not answered this host lately, and somebody else asks; whether it is certain that it is out of reach.
    Withheld {
        certain: bool,
    },
}

pub trait Store: Send + Sync {
    fn claim(&self, key: &Key, claim: &Claim, now: Moment) -> Result<Reply<Claimed>, StoreError>;

    /// Lengthen the lease to `length` from now. `false`: it is no longer ours.
    fn renew(
        &self,
        key: &Key,
        lease: &Lease,
        length: Duration,
        now: Moment,
    ) -> Result<bool, StoreError>;

    /// Publish `entry`, whose version is the lease's. Ends the lease and any back-off.
    fn commit(
        &self,
        key: &Key,
        lease: &Lease,
        entry: &Entry,
        now: Moment,
    ) -> Result<Reply<Committed>, StoreError>;

    /// Give the lease back without a value; with a failure, start or lengthen the back-off.
    /// Nothing happens when the lease is no longer ours. Returns the pause that begins.
    fn abandon(
        &self,
        key: &Key,
        lease: &Lease,
        failure: Option<&Failure>,
        now: Moment,
    ) -> Result<Duration, StoreError>;

    /// Raise the floor so that the present entry is never served again.
    /// With `rejected`: only when that is the present entry's digest, and only once per
    /// [`rejection_pause`]; a token that had lived half its usable life starts the count anew. `seen` is its
    /// version where the caller has it, for a store that lost it must not get it back.
    /// Without: whatever is stored goes, and a mint in flight is fenced. The floor is then a new
    /// version of the store's own, above `seen`, the highest of any key as in a [`Claim`], so that nothing
    /// issued before can come back.
    /// Returns whether anything was dropped.
    fn invalidate(
        &self,
        key: &Key,
        rejected: Option<Digest>,
        seen: Version,
        now: Moment,
    ) -> Result<Reply<bool>, StoreError>;

    /// Ask whether `entry` is still the newest and, should the store have lost it, give it back:
    /// an absent or older entry is replaced, never a newer one and never below the floor.
    /// `Fenced` here means below the floor.
    fn restore(&self, key: &Key, entry: &Entry, now: Moment)
    -> Result<Reply<Restored>, StoreError>;

    /// Let go of what is kept for a next question and was not needed lately.
    fn rest(&self) {}

    /// Let go of what is kept for a next question: there will be none for a while.
    fn let_go(&self) {}

    /// What has happened since this was asked last, to be counted.
    fn noticed(&self) -> Noticed {
        Noticed::default()
    }
}

/// What a way to a fleet's store has seen since it was asked last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noticed {
    /// Questions sent.
    pub questions: u64,
    /// Entries whose age the clocks did not agree about.
    pub clocks_disagreed: u64,
}

/// What a host knows of a key: the entry that may be served and the marks beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    pub entry: Option<Entry>,
    /// When this host last knew the entry to be the newest.
    pub confirmed_at: Moment,
    /// When everything here was the newest that is vouched for.
    pub heartbeat: Moment,
    /// Rung when what is waited for may have come; from before everything else here was read.
    pub bell: u32,
    /// Another host mints the key, and will have to until then unless something is heard of it.
    pub busy_until: Moment,
    /// The pause after the last failure here or, for as long as this host asks no more (`paused_until`), of the fleet.
    pub backoff: Option<Backoff>,
    pub paused_until: Moment,
    /// The highest version seen of this key, entry or not.
    pub newest: Version,
    /// The highest version seen of any key.
    pub highest: Version,
    /// Nothing below it is served.
    pub floor: Version,
    /// A rejection that could not be told to the authority yet.
    pub pending_rejection: Option<Digest>,
    /// Nobody of this host asks about a usable entry before.
    pub ask_at: Moment,
    /// The authority did not answer when this host last asked it, about any key.
    pub authority_failing: bool,
    /// There is no entry, because a usable one had to make room lately.
    pub evicted: bool,
}

/// One key's place in a host's memory, for people. Reading it counts as no use.
#[derive(Clone, Debug, PartialEq)]
pub struct Resident {
    pub key: Key,
    pub entry: Option<Entry>,
    pub confirmed_at: Moment,
    pub backoff: Option<Backoff>,
    pub flight: Option<Flying>,
}

/// The last mints failed, and nobody may try before `until`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    pub until: Moment,
    pub failures: u64,
    pub reason: String,
}

/// Somebody looks after the key: asks for it, or mints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flying {
    pub since: Moment,
    /// Given up on then; renewed as long as it is looked after.
    pub until: Moment,
    /// `None` where an earlier release looks after it.
    pub process: Option<u32>,
}

/// What a host has, summed up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stock {
    /// Keys that have a place.
    pub resident: usize,
    /// Tokens that may be served, by family.
    pub usable: BTreeMap<Vec<u8>, u64>,
    pub sheets: Vec<Resident>,
}

/// How a host and its authority get on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// The authority did not answer when this host last asked.
    pub failing: bool,
    /// It is not asked before.
    pub asked_again: Option<Moment>,
    /// Everything here was the newest then.
    pub heartbeat: Moment,
    /// Whether a process of this host follows the change log.
    pub led: bool,
}

/// The right to run this host's flight for a key: plain data, so that nothing rests on `Drop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right {
    pub place: u64,
    pub generation: u32,
}

/// A key's place in a host's memory, for as long as it is not evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation(pub u64);

/// How things stood when a question was sent. An answer says how they stood then, not later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    pub at: Moment,
    pub reservation: Reservation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boarding {
    /// Ours. `orphan` is the lease secret of an owner who died or was given up on.
    Mine { right: Right, orphan: Option<Secret> },
    /// Somebody has it, since at the latest `since`; wait for the bell (see [`Host::wait`]).
    Taken { bell: u32, since: Moment },
}

pub trait Host: Store + Clock {
    /// The entry under `key` with its floor already applied; no lock.
    fn look(&self, key: &Key) -> Option<Known>;

    /// Try for the flight without waiting. `until` is when others may give up on us; a stopped
    /// process is not dead, so the kernel's lock alone is not enough.
    fn board(&self, key: &Key, until: Moment, now: Moment) -> Result<Boarding, StoreError>;

    /// Note the secret of the claim we are about to send, for whoever must take over from us.
    fn note_secret(&self, key: &Key, right: &Right, secret: Secret);

    /// Move our deadline. `false`: the flight was taken over.
    fn extend(&self, key: &Key, right: &Right, until: Moment) -> bool;

    /// Give the flight back and ring the bell. Harmless when it was taken over.
    fn leave(&self, key: &Key, right: &Right);

    /// Sleep until the bell changes from `bell`, or `at_most`. May return early; an owner that
    /// dies rings no bell, so a caller asks for a few milliseconds at a time.
    fn wait(&self, key: &Key, bell: u32, at_most: Duration);

    /// The key's place as it is now. Taken **before** the authority is asked: while the answer is
    /// under way the key may be evicted and come back, and what was heard of it meanwhile is gone.
    fn reserve(&self, key: &Key) -> Reservation;

    /// Take over what the authority has. Refused when anything newer has been heard of, or when
    /// the place is not the one reserved; the answer may then be older than it looks.
    /// Confirms the entry as of `asked.at`, the time the question was sent.
    fn adopt(&self, key: &Key, entry: &Entry, asked: Asked) -> Result<(), StoreError>;

    /// The most bytes that a value and what is kept beside it may have here. What is larger is not minted: others
    /// could not have it without asking the fleet's store each time, and without one nobody could.
    fn most(&self) -> usize;

    /// Nothing below `floor` is served from now on.
    fn raise_floor(&self, key: &Key, floor: Version);

    /// The entry of this version was still the newest at `asked_at`.
    fn confirm(&self, key: &Key, version: Version, asked_at: Moment);

    /// Whether this process is the one that may re-validate the key until `until`: one per host.
    fn may_revalidate(&self, key: &Key, now: Moment, until: Moment) -> bool;

    /// Keep a rejection for the next claim (`None`: it was sent).
    fn set_pending_rejection(&self, key: &Key, rejected: Option<Digest>);

    /// Every key that has a place here; what was used last comes first.
    fn resident(&self) -> Vec<Key>;

    /// The authority has `version` of the key (or only a new floor): nothing older is taken over
    /// or trusted from now on. Whether the key has a place here; nothing happens otherwise.
    fn hear(&self, key: &Key, version: Version, floor: Version) -> bool;

    /// Another host mints the key until then, as far as is known; see [`Host::wake`].
    fn set_busy(&self, key: &Key, until: Moment);

    /// Nobody may mint the key, and this host asks no more before `paused_until`; see [`Host::wake`].
    fn hear_backoff(&self, key: &Key, until: Moment, reason: &str, paused_until: Moment);

    /// What those who wait for another host's mint wait for may have come: nobody is known to mint the
    /// key any more, nor that nobody may, and the bell rings.
    fn wake(&self, key: &Key);

    /// Everything here was the newest at `at`; see [`crate::leader`]. With where the log had been read to,
    /// for the next leader.
    fn beat(&self, at: Moment, anchor: &Anchor);

    /// Where the log was read to when this host's heart last beat.
    fn anchor(&self) -> Option<Anchor>;

    /// Something may have been missed. From now on a heartbeat vouches only for what has been confirmed since;
    /// nobody is known to mint anything. What [`Host::settle`] is told.
    fn doubt(&self) -> u64;

    /// All that was in doubt has been compared.
    fn settle(&self, doubt: u64);

    /// Whether something is in doubt that nobody has compared yet.
    fn in_doubt(&self) -> Option<u64>;

    /// What the server's clock shows. Where it has gained on this host, this host stood still and does not know it:
    /// everything here comes nearer by as much. `noted`: the latest instant in the log; `set_back`: that clock has
    /// gone back since it was heard last.
    fn hear_clock(&self, told: &ServerTime, noted: i64, set_back: bool);

    /// Whatever it had is that much older.
    fn stood_still_for(&self, gained: Option<Duration>) {
        let Some(gained) = gained else { return };
        self.bring_nearer(gained);
        self.count(Counter::ClockJumps, 1);
        ::log::warn!(
            "the clock of Redis has gone on by {gained:?} more than this host's: this host stood still, or \
             that clock was set ahead; deadlines have come nearer by as much"
        );
    }

    /// Become the one process that follows the change log; `None` while another does. Until then
    /// a leader that does not say otherwise keeps it.
    fn lead(&self, now: Moment, until: Moment) -> Option<Right>;

    /// `false`: somebody else leads by now, or the memory that was led is no longer the host's.
    fn keep_leading(&self, term: &Right, until: Moment) -> bool;

    fn stop_leading(&self, term: &Right);

    /// At most so many keys that have a place here, with what is known of them. Takes no lock that a
    /// lookup takes, and leaves no trace.
    fn survey(&self, at_most: usize) -> Vec<Resident>;

    fn stock(&self) -> Stock;

    fn health(&self) -> Health;

    fn count(&self, counter: Counter, times: u64);

    fn counted(&self, counter: Counter) -> u64;

    fn count_noticed(&self, noticed: Noticed) {
        let counts = [
            (Counter::RedisCommands, noticed.questions),
            (Counter::ClocksDisagreed, noticed.clocks_disagreed),
        ];
        for (counter, times) in counts.into_iter().filter(|(_, times)| *times > 0) {
            self.count(counter, times);
        }
    }

    /// What is counted by family and source.
    fn tally(&self) -> Arc<Tally>;

    /// Whether the authority may be asked now. After a few failures in a row the whole host stops
    /// asking for a short, growing time, and then one process probes.
    fn may_ask(&self, now: Moment) -> Leave;

    /// A turn to ask the authority, for a few processes of the host at a time; `None`: all are taken. A turn
    /// that is not ended is over then.
    fn take_turn(&self, until: Moment) -> Option<Right>;

    fn end_turn(&self, turn: &Right);

    /// What came of asking at `asked_at`. Whether that is news: the first failure, or the first answer after
    /// one. While others are answered, who is not is merely slow.
    fn authority_heard(&self, heard: Heard, asked_at: Moment, now: Moment) -> bool;
}
