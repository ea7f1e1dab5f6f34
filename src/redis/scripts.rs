//! The scripts, each a Lua file behind a common head, and how their replies are read.

use std::sync::LazyLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use redis::{FromRedisValue as _, Script, Value};

use super::age::{Disagreement, Instants};
use super::envelope::{self, Unreadable};
use crate::clock::server::{ServerTime, Watched};
use crate::clock::{Moment, Uptime, WallTime, system};
use crate::entry::{Entry, Key, Timing, Version};
use crate::seal::{KeyId, Seal};
use crate::store::log::{Fetched, Stored};
use crate::store::{Claimed, Committed, Lease, Reply, Secret};

macro_rules! script {
    ($($file:literal),*) => {
        LazyLock::new(|| Script::new(concat!($(include_str!($file)),*)))
    };
}

pub static CLAIM: LazyLock<Script> = script!("demoted.lua", "busy.lua", "common.lua", "claim.lua");
pub static RENEW: LazyLock<Script> = script!("renew.lua");
pub static COMMIT: LazyLock<Script> = script!("demoted.lua", "common.lua", "commit.lua");
pub static ABANDON: LazyLock<Script> = script!("demoted.lua", "common.lua", "abandon.lua");
pub static INVALIDATE: LazyLock<Script> = script!("demoted.lua", "common.lua", "invalidate.lua");
pub static RESTORE: LazyLock<Script> = script!("demoted.lua", "common.lua", "restore.lua");
pub static FETCH: LazyLock<Script> = script!("fetch.lua");
pub static VERSIONS: LazyLock<Script> = script!("versions.lua");

/// What a script answers: texts, for Lua's own numbers would lose digits.
pub type Fields = Vec<Vec<u8>>;

/// A stored entry, or only its version when its body cannot be read.
pub type Body = Result<Entry, (Version, Unreadable)>;

/// What it takes to make an entry of a reply.
#[derive(Clone, Copy)]
pub struct Reading<'a> {
    pub key: &'a Key,
    /// These from before the request was sent, so transit brings deadlines nearer.
    pub now: Moment,
    pub wall: WallTime,
    pub sent: Uptime,
    /// When it was answered.
    pub heard: Uptime,
    /// What this host has watched of the server's clock.
    pub watched: Option<Watched>,
    pub seal: Option<&'a Seal>,
    pub clocks: &'a Clocks,
}

impl Reading<'_> {
    pub fn answered(self) -> Self {
        Self { heard: system::monotonic(), ..self }
    }
}

/// Whether the clocks that date an entry agree; see [`super::age`].
#[derive(Debug, Default)]
pub struct Clocks(AtomicU64);

impl Clocks {
    /// Said for every such entry; the log leaves out what is said too often.
    fn disagree(&self, disagreement: Disagreement) {
        self.0.fetch_add(1, Relaxed);
        let span = |ms: i64| Duration::from_millis(ms.unsigned_abs());
        match disagreement {
            Disagreement::NotYet(ms) => log::warn!(
                "an entry in Redis seems to have been minted {:?} in the future: the clock of Redis \
                 or of a host is wrong, and the entry is not used",
                span(ms)
            ),
            Disagreement::Older(ms) => log::warn!(
                "an entry in Redis is {:?} older by the clocks of the hosts than by that of Redis: \
                 one of these clocks is wrong, and the greater age counts",
                span(ms)
            ),
            Disagreement::Refuted(ms) => log::warn!(
                "an entry in Redis is {:?} older by the clocks of the hosts than by that of Redis: the \
                 clock of this host or of the one that minted is wrong, and that of Redis counts",
                span(ms)
            ),
        }
    }

    /// How many entries were dated since this was asked last although their clocks disagreed.
    pub fn newly_disagreed(&self) -> u64 {
        self.0.swap(0, Relaxed)
    }
}

pub enum ClaimReply {
    Value(Body),
    Other(Claimed),
}

pub enum CommitReply {
    /// As what is stored is to be dated.
    Accepted(Timing),
    Superseded(Body),
    Fenced,
    /// Restore only: there is nothing as new; send the whole entry. With what it would replace, and
    /// the server's time.
    Missing(Option<Body>, i64),
}

/// Takes a reply apart from the front; `None` wherever it is not what a script of ours sends.
struct Reader<'a> {
    fields: std::slice::Iter<'a, Vec<u8>>,
    /// The server's clock, where the reply has it.
    now: Option<i64>,
    latest: Version,
}

impl<'a> Reader<'a> {
    /// Of a reply that begins with the server's clock. Empty: it has no instant.
    fn of(fields: &'a [Vec<u8>], wall: WallTime) -> Option<Self> {
        let (first, rest) = fields.split_first()?;
        let now = match first.as_slice() {
            b"" => None,
            text => Some(std::str::from_utf8(text).ok()?.parse().ok()?),
        };
        Some(Self::at(rest, now, wall))
    }

    fn at(fields: &'a [Vec<u8>], now: Option<i64>, wall: WallTime) -> Self {
        // As the scripts have it: either clock may be wrong, so the later one counts.
        let server = now.map_or(0, |now| u64::try_from(now).unwrap_or(0));
        let latest = Version::latest(wall.max(WallTime::from_unix_millis(server)));
        Self { fields: fields.iter(), now, latest }
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        self.fields.next().map(Vec::as_slice)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    fn number<N: std::str::FromStr>(&mut self) -> Option<N> {
        self.text()?.parse().ok()
    }

    /// One that cannot have been issued is none.
    fn version(&mut self) -> Option<Version> {
        self.number().map(|number| Version(number).believed(self.latest))
    }

    fn millis(&mut self) -> Option<Duration> {
        self.number().map(Duration::from_millis)
    }

    fn stored_version(&self, version: &str, usable: &str, server: i64, now: Moment) -> Stored {
        let number = version.parse().map(|number| Version(number).believed(self.latest));
        let usable = usable.parse::<i64>();
        match (number, usable) {
            (Ok(Version::NONE), _) => Stored::NOTHING,
            (Ok(version), Ok(usable)) => {
                let usable_until = now.plus_millis(usable.saturating_sub(server));
                Stored::Version { version, usable_until }
            }
            _ => Stored::Foreign,
        }
    }

    fn timing(&mut self, version: Version, reading: Reading<'_>) -> Option<Timing> {
        let instants = Instants {
            minted: self.number()?,
            refresh: self.number()?,
            usable: self.number()?,
            expires: self.number()?,
            minted_wall: match self.text()? {
                "" => None,
                text => Some(text.parse().ok()?),
            },
            now: self.now?,
        };
        let watched = reading.watched.filter(|_| instants.agree_with(version));
        let told = ServerTime { clock: instants.now, sent: reading.sent, heard: reading.heard };
        let vouched = watched.is_some_and(|watched| watched.vouches(instants.minted, &told));
        let dated = instants.dated(reading.now, reading.wall, vouched);
        if let Some(disagreement) = dated.disagreement {
            reading.clocks.disagree(disagreement);
        }
        Some(dated.timing)
    }

    fn stored(&mut self, reading: Reading<'_>) -> Option<Body> {
        let version = self.version()?;
        let timing = self.timing(version, reading)?;
        let body = self.bytes()?;
        if version == Version::NONE {
            return Some(Err((version, Unreadable::NoValue)));
        }
        Some(match envelope::decode(reading.key, version, body, reading.seal) {
            // What Redis has is in sync with Redis.
            Ok((value, detail)) => Ok(Entry { version, timing, unsynced: false, value, detail }),
            Err(unreadable) => Err((version, unreadable)),
        })
    }
}

pub fn claim_reply(
    fields: &Fields,
    secret: Secret,
    reading: Reading<'_>,
) -> Option<Reply<ClaimReply>> {
    let mut reply = Reader::of(fields, reading.wall)?;
    let floor = reply.version()?;
    let what = match reply.text()? {
        "value" => ClaimReply::Value(reply.stored(reading)?),
        "lease" => {
            let (version, given_at) = (reply.version()?, reply.now?);
            ClaimReply::Other(Claimed::Lease(Lease { secret, version, given_at }))
        }
        "busy" => ClaimReply::Other(Claimed::Busy(reply.millis()?)),
        "backoff" => {
            let wait = reply.millis()?;
            let reason = String::from_utf8_lossy(reply.bytes()?).into_owned();
            ClaimReply::Other(Claimed::BackOff { wait, reason })
        }
        _ => return None,
    };
    Some(Reply { floor, what })
}

pub fn commit_reply(fields: &Fields, reading: Reading<'_>) -> Option<Reply<CommitReply>> {
    let mut reply = Reader::of(fields, reading.wall)?;
    let floor = reply.version()?;
    let what = match reply.text()? {
        "accepted" => {
            let version = reply.version()?;
            CommitReply::Accepted(reply.timing(version, reading)?)
        }
        "superseded" => CommitReply::Superseded(reply.stored(reading)?),
        "fenced" => CommitReply::Fenced,
        "missing" => CommitReply::Missing(None, reply.now?),
        "older" => CommitReply::Missing(Some(reply.stored(reading)?), reply.now?),
        _ => return None,
    };
    Some(Reply { floor, what })
}

pub fn invalidate_reply(fields: &Fields, wall: WallTime) -> Option<Reply<bool>> {
    let mut reply = Reader::of(fields, wall)?;
    Some(Reply { floor: reply.version()?, what: reply.text()? == "1" })
}

/// What the store has of each of so many keys.
pub fn versions_reply(
    fields: &Fields,
    keys: usize,
    now: Moment,
    wall: WallTime,
) -> Option<Vec<Reply<Stored>>> {
    let mut reply = Reader::of(fields, wall)?;
    let server = reply.now?;
    if fields.len() != 1 + keys * 3 {
        return None;
    }
    let one = |_| {
        let floor = reply.version().unwrap_or_default();
        let (version, usable) = (reply.text(), reply.text());
        let what = match (version, usable) {
            (Some(""), _) => Stored::NOTHING,
            (Some(version), Some(usable)) => reply.stored_version(version, usable, server, now),
            _ => Stored::Foreign,
        };
        Reply { floor, what }
    };
    Some((0..keys).map(one).collect())
}

/// The server's clock, and a reply for each key.
pub fn fetched(reply: Vec<Value>) -> Option<(i64, Vec<Fields>)> {
    let mut parts = reply.into_iter();
    let now = String::from_redis_value(parts.next()?).ok()?.parse().ok()?;
    let rows = parts.map(Fields::from_redis_value).collect::<Result<_, _>>().ok()?;
    Some((now, rows))
}

/// Of one key among many, so it always is a reply.
pub fn fetch_reply(fields: &Fields, server: i64, reading: Reading<'_>) -> Reply<Fetched> {
    let mut reply = Reader::at(fields, Some(server), reading.wall);
    let floor = reply.version();
    let what = match reply.text() {
        Some("value") => match reply.stored(reading) {
            Some(Ok(entry)) => Fetched::Entry(entry),
            Some(Err((_, Unreadable::NoValue))) => Fetched::Nothing,
            Some(Err((_, Unreadable::Sealed(id)))) => Fetched::Sealed(id),
            None => Fetched::Foreign,
        },
        Some("none") => Fetched::Nothing,
        _ => Fetched::Foreign,
    };
    match floor {
        Some(floor) => Reply { floor, what },
        None => Reply { floor: Version::NONE, what: Fetched::Foreign },
    }
}

/// How much later a deadline of ours may be than the store's: by so much a slow way brings those nearer.
const TRANSIT_MS: i64 = 2_000;

impl CommitReply {
    /// What came of `entry`. `Err`: what is stored was sealed for others.
    pub fn decided(self, entry: &Entry) -> Result<Committed, KeyId> {
        Ok(match self {
            Self::Superseded(Err((_, Unreadable::Sealed(id))))
            | Self::Missing(Some(Err((_, Unreadable::Sealed(id)))), _) => return Err(id),
            // This host stood still while it was on its way, or before: its own deadlines are too late.
            Self::Accepted(stored)
                if stored.usable_until.plus_millis(TRANSIT_MS) < entry.timing.usable_until =>
            {
                let timing = stored.earlier(entry.timing);
                Committed::Superseded(Entry { timing, unsynced: false, ..entry.clone() })
            }
            Self::Accepted(_) => Committed::Accepted,
            Self::Superseded(Ok(entry)) => Committed::Superseded(entry),
            // A newer release's value: not ours to adopt, nor to replace by something older.
            Self::Superseded(Err(_)) | Self::Fenced | Self::Missing(..) => Committed::Fenced,
        })
    }
}
