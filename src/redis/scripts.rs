//! The scripts, each a Lua file behind a common head, and how their replies are read.

use std::sync::LazyLock;

use redis::Script;

use super::envelope::{self, Unreadable};
use crate::clock::Moment;
use crate::entry::{Entry, Key, Timing, Version};
use crate::seal::{KeyId, Seal};
use crate::store::log::Fetched;
use crate::store::{Claimed, Committed, Lease, Reply, Secret};

macro_rules! script {
    ($file:literal) => {
        LazyLock::new(|| Script::new(concat!(include_str!("common.lua"), include_str!($file))))
    };
}

pub static CLAIM: LazyLock<Script> = script!("claim.lua");
pub static RENEW: LazyLock<Script> = script!("renew.lua");
pub static COMMIT: LazyLock<Script> = script!("commit.lua");
pub static ABANDON: LazyLock<Script> = script!("abandon.lua");
pub static INVALIDATE: LazyLock<Script> = script!("invalidate.lua");
pub static RESTORE: LazyLock<Script> = script!("restore.lua");
pub static FETCH: LazyLock<Script> = script!("fetch.lua");

/// What a script answers: texts, for Lua's own numbers would lose digits.
pub type Fields = Vec<Vec<u8>>;

/// A stored entry, or only its version when its body cannot be read.
pub type Stored = Result<Entry, (Version, Unreadable)>;

/// What it takes to make an entry of a reply.
#[derive(Clone, Copy)]
pub struct Reading<'a> {
    pub key: &'a Key,
    /// From before the request was sent, so transit brings deadlines nearer.
    pub now: Moment,
    pub seal: Option<&'a Seal>,
}

pub enum ClaimReply {
    Value(Stored),
    Other(Claimed),
}

pub enum CommitReply {
    Accepted,
    Superseded(Stored),
    Fenced,
    /// Restore only: there is nothing as new; send the whole entry. With what it would replace, and
    /// the server's time.
    Missing(Option<Stored>, i64),
}

/// Takes a reply apart from the front; `None` wherever it is not what a script of ours sends.
struct Reader<'a>(std::slice::Iter<'a, Vec<u8>>);

impl<'a> Reader<'a> {
    fn bytes(&mut self) -> Option<&'a [u8]> {
        self.0.next().map(Vec::as_slice)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    fn number<N: std::str::FromStr>(&mut self) -> Option<N> {
        self.text()?.parse().ok()
    }

    fn version(&mut self) -> Option<Version> {
        self.number().map(Version)
    }

    fn millis(&mut self) -> Option<std::time::Duration> {
        self.number().map(std::time::Duration::from_millis)
    }

    fn stored(&mut self, Reading { key, now, seal }: Reading<'_>) -> Option<Stored> {
        let version = self.version()?;
        let mut instant = || self.number().map(|ms| now.plus_millis(ms));
        let timing = Timing {
            minted_at: instant()?,
            refresh_at: instant()?,
            usable_until: instant()?,
            expires_at: instant()?,
        };
        Some(match envelope::decode(key, version, self.bytes()?, seal) {
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
    let mut reply = Reader(fields.iter());
    let floor = reply.version()?;
    let what = match reply.text()? {
        "value" => ClaimReply::Value(reply.stored(reading)?),
        "lease" => ClaimReply::Other(Claimed::Lease(Lease { secret, version: reply.version()? })),
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
    let mut reply = Reader(fields.iter());
    let floor = reply.version()?;
    let what = match reply.text()? {
        "accepted" => CommitReply::Accepted,
        "superseded" => CommitReply::Superseded(reply.stored(reading)?),
        "fenced" => CommitReply::Fenced,
        "missing" => CommitReply::Missing(None, reply.number()?),
        "older" => CommitReply::Missing(Some(reply.stored(reading)?), reply.number()?),
        _ => return None,
    };
    Some(Reply { floor, what })
}

pub fn invalidate_reply(fields: &Fields) -> Option<Reply<bool>> {
    let mut reply = Reader(fields.iter());
    Some(Reply { floor: reply.version()?, what: reply.text()? == "1" })
}

/// Of one key among many, so it always is a reply.
pub fn fetch_reply(fields: &Fields, reading: Reading<'_>) -> Reply<Fetched> {
    let mut reply = Reader(fields.iter());
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

impl CommitReply {
    /// `Err`: what is stored was sealed for others.
    pub fn decided(self) -> Result<Committed, KeyId> {
        Ok(match self {
            Self::Superseded(Err((_, Unreadable::Sealed(id))))
            | Self::Missing(Some(Err((_, Unreadable::Sealed(id)))), _) => return Err(id),
            Self::Accepted => Committed::Accepted,
            Self::Superseded(Ok(entry)) => Committed::Superseded(entry),
            // A newer release's value: not ours to adopt, nor to replace by something older.
            Self::Superseded(Err(_)) | Self::Fenced | Self::Missing(..) => Committed::Fenced,
        })
    }
}
