#![allow(clippy::panic, clippy::unwrap_used)] // A property fails by a panic, as a test does.
//! What a server that speaks for Redis answers: the bytes, the fields of a script's reply, and the body of an
//! entry. It may be another release of ours, another program, or somebody in between.

use std::io::{self, Cursor, Read, Write};
use std::time::Duration;

use redis::{ConnectionLike as _, RedisError, Value, cmd};

use super::connection::{Connection, Connector};
use super::log::{self, Lines};
use super::scripts::{self, CommitReply};
use super::socket::{Limit, Transport};
use super::*;
use crate::clock::server::Watched;
use crate::clock::{Uptime, WallTime};
use crate::entry::{Kind, Timing, freshness};
use crate::fuzzing::{SECRET, check_sentence, key_named, lines, seals};
use crate::store::log::{Anchor, Fetched, Followed, Looked, Stored};
use crate::store::{Claimed, as_kept_here};

const UPTIME: Uptime = Uptime::from_millis(9_000_000);
const NOW: Moment = Moment::from_millis(50_000_000);
/// 2026-11-23T10:00:00Z.
const WALL: WallTime = WallTime::from_unix_millis(1_795_428_000_000);

fn own_entry(key: &Key, value: &[u8]) -> Entry {
    let at = |seconds| NOW.plus(Duration::from_secs(seconds));
    let timing = Timing {
        minted_at: NOW,
        refresh_at: at(2800),
        usable_until: at(3540),
        expires_at: at(3600),
    };
    let version = Version(key.hash() % (1 << 50));
    let (value, detail) = (value.to_vec().into(), b"{}".to_vec().into());
    Entry { version, timing, unsynced: false, value, detail }
}

/// Who reads a reply, and what it may believe.
struct Reader<'a> {
    key: &'a Key,
    seal: Option<&'a Seal>,
    clocks: &'a Clocks,
}

impl<'a> Reader<'a> {
    fn reading(&self) -> Reading<'a> {
        let lead = WALL.unix_millis() - UPTIME.as_millis();
        let watched = Watched { lead, since: 0, from: UPTIME, at: UPTIME };
        Reading {
            key: self.key,
            now: NOW,
            wall: WALL,
            sent: UPTIME,
            heard: UPTIME,
            watched: Some(watched),
            seal: self.seal,
            clocks: self.clocks,
        }
    }

    fn check_version(&self, version: Version, fields: &[Vec<u8>]) {
        // Of two clocks that may be wrong the later one counts: ours, and the one in the reply.
        let told = fields.first().and_then(|first| std::str::from_utf8(first).ok()?.parse().ok());
        let latest = WALL.max(WallTime::from_unix_millis(told.unwrap_or(0)));
        assert!(version <= Version::latest(latest), "{version} is beyond belief");
        assert!(version.0 < 1 << 53, "Lua would round it");
    }

    fn check_entry(&self, entry: &Entry, fields: &[Vec<u8>]) {
        self.check_version(entry.version, fields);
        assert_ne!(entry.version, Version::NONE);
        assert!(!entry.unsynced);
        check_timing(&entry.timing);
        let kept = as_kept_here(entry.clone(), Kind::Token);
        assert_eq!(kept.timing.expires_at, entry.timing.expires_at);
        check_body(self.key, entry, self.seal);
    }

    fn check_claim(&self, fields: &Fields) -> bool {
        let secret = Secret::from_bits(7).unwrap_or_else(Secret::random);
        let Some(reply) = scripts::claim_reply(fields, secret, self.reading()) else {
            return false;
        };
        self.check_version(reply.floor, fields);
        match reply.what {
            ClaimReply::Value(Ok(entry)) => self.check_entry(&entry, fields),
            ClaimReply::Value(Err((version, _))) => self.check_version(version, fields),
            ClaimReply::Other(Claimed::Lease(lease)) => {
                assert_eq!(lease.secret, secret, "a lease is ours or none");
                self.check_version(lease.version, fields);
            }
            ClaimReply::Other(Claimed::Busy(wait) | Claimed::BackOff { wait, .. }) => {
                assert!(NOW.plus(wait) >= NOW);
            }
            ClaimReply::Other(Claimed::Value(_)) => panic!("a value comes with its body"),
        }
        true
    }

    fn check_commit(&self, fields: &Fields) -> bool {
        let Some(reply) = scripts::commit_reply(fields, self.reading()) else { return false };
        self.check_version(reply.floor, fields);
        match &reply.what {
            CommitReply::Accepted(timing) => check_timing(timing),
            CommitReply::Superseded(Ok(entry)) | CommitReply::Missing(Some(Ok(entry)), _) => {
                self.check_entry(entry, fields);
            }
            _ => {}
        }
        let own = own_entry(self.key, b"token");
        let theirs = matches!(reply.what, CommitReply::Superseded(_));
        if let Ok(Committed::Superseded(entry)) = reply.what.decided(&own)
            && !theirs
        {
            assert_eq!(entry.value, own.value, "what we minted, ending earlier");
            assert!(entry.timing.expires_at <= own.timing.expires_at);
            assert!(entry.timing.usable_until < own.timing.usable_until);
        }
        true
    }

    fn check_invalidate(&self, fields: &Fields) -> bool {
        let reply = scripts::invalidate_reply(fields, WALL);
        reply.inspect(|reply| self.check_version(reply.floor, fields)).is_some()
    }

    fn check_versions(&self, fields: &Fields) -> bool {
        let keys = fields.len().saturating_sub(1) / 3;
        let Some(replies) = scripts::versions_reply(fields, keys, NOW, WALL) else { return false };
        assert_eq!(replies.len(), keys, "one for each key that was asked for");
        for reply in replies {
            self.check_version(reply.floor, fields);
            if let Stored::Version { version, .. } = reply.what {
                self.check_version(version, fields);
            }
        }
        true
    }

    /// `server` is its clock, and `row` what it has of one key.
    fn check_fetched(&self, server: i64, row: &Fields) -> bool {
        let told = [server.to_string().into_bytes()];
        let reply = scripts::fetch_reply(row, server, self.reading());
        self.check_version(reply.floor, &told);
        match reply.what {
            Fetched::Entry(entry) => self.check_entry(&entry, &told),
            Fetched::Nothing | Fetched::Sealed(_) => {}
            Fetched::Foreign => return false,
        }
        true
    }
}

/// Nothing was minted in the future, and no instant of it overflows.
fn check_timing(timing: &Timing) {
    assert!(timing.minted_at <= NOW, "minted in the future");
    freshness(timing, Kind::Token, NOW);
    assert!(timing.interval() <= Duration::from_millis(i64::MAX as u64));
    assert!(timing.spread(1.0).refresh_at >= timing.refresh_at);
}

/// An entry that was read is written, and read again as it was.
fn check_body(key: &Key, entry: &Entry, seal: Option<&Seal>) {
    let body = envelope::encode(key, entry, seal);
    let again = envelope::decode(key, entry.version, &body, seal);
    assert_eq!(again, Ok((entry.value.clone(), entry.detail.clone())));
    let detail = entry.parsed_detail();
    let text = serde_json::to_vec(&detail).unwrap_or_default();
    let again: crate::entry::Detail = serde_json::from_slice(&text).unwrap();
    assert!(again.source == detail.source && again.minted_by == detail.minted_by);
    assert!(again.kept.keys().eq(detail.kept.keys()), "what is kept is handed on");
    assert!(again.other.keys().eq(detail.other.keys()), "so is what a newer release has added");
}

/// The fields of a script's reply, one in a line behind its name: `claim`, `commit`, `invalidate`,
/// `versions` or `fetch`, and `sealed` behind it where the reader seals.
///
/// - A version, floor or lease that nobody can have issued is not believed.
/// - No entry was minted later than now, and no instant overflows.
/// - An entry that was parsed is written as it was read.
pub fn redis_reply(bytes: &[u8]) -> bool {
    let [first, rest] = lines(bytes);
    let fields: Fields = rest.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let ([ours, _], key, clocks) = (seals(), key_named(b"crm"), Clocks::default());
    let seal = first.ends_with(b"sealed").then_some(&ours);
    let reader = Reader { key: &key, seal, clocks: &clocks };
    match first.strip_suffix(b" sealed").unwrap_or(first) {
        b"claim" => reader.check_claim(&fields),
        b"commit" => reader.check_commit(&fields),
        b"invalidate" => reader.check_invalidate(&fields),
        b"versions" => reader.check_versions(&fields),
        b"fetch" => {
            let (server, row) = fields.split_at(1);
            let server = std::str::from_utf8(&server[0]).ok().and_then(|text| text.parse().ok());
            server.is_some_and(|server| reader.check_fetched(server, &row.to_vec()))
        }
        _ => false,
    }
}

/// A server that sends these bytes and closes.
struct Said(Cursor<Vec<u8>>);

impl Read for Said {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 if !buffer.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            some => Ok(some),
        }
    }
}

impl Write for Said {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Transport for Said {
    fn set_limit(&mut self, _limit: Limit) {}
}

/// The bytes of an answer behind the name of the question in the first line: that of a script, or `renew`,
/// `follow`, `look`, `named`, `sentinel`, `cluster` or `ping`.
///
/// - The result is an answer or an error message. The message shows nothing of the answer, unless it is the
///   server's own error.
/// - A connection on which an answer broke off is used no more.
/// - Everything that [`redis_reply`] promises.
pub fn redis_wire(bytes: &[u8]) -> bool {
    let [question, said] = lines(bytes);
    let dsn = RedisConfig::parse("redis://redis.example").unwrap();
    let connector = Connector::new(dsn);
    let mut connection = Connection::over(Box::new(Said(Cursor::new(said.to_vec()))));
    match asked(question, &mut connection) {
        Ok(taken) => taken,
        Err(error) => {
            assert!(!(error.is_io_error() && connection.is_open()), "{error}");
            let sentence = connector.explain(&error).to_string();
            // What a server calls an error is its own sentence, and it may be long.
            if error.code().is_none() {
                check_sentence(&sentence);
                let told = said.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
                assert!(!(told && sentence.contains(SECRET)));
            }
            false
        }
    }
}

fn asked(question: &[u8], connection: &mut Connection) -> Result<bool, RedisError> {
    let (key, clocks) = (key_named(b"crm"), Clocks::default());
    let reader = Reader { key: &key, seal: None, clocks: &clocks };
    // Not by `Script::invoke`: where a script is missing it loads it, and its debug builds panic over a server
    // that says another hash then.
    let mut answer = || -> Result<Fields, RedisError> { cmd("EVALSHA").query(connection) };
    Ok(match question {
        b"claim" => reader.check_claim(&answer()?),
        b"commit" => reader.check_commit(&answer()?),
        b"invalidate" => reader.check_invalidate(&answer()?),
        b"versions" => reader.check_versions(&answer()?),
        b"fetch" => {
            let reply: Vec<Value> = cmd("EVALSHA").query(connection)?;
            let Some((server, rows)) = scripts::fetched(reply) else { return Ok(false) };
            rows.iter().all(|row| reader.check_fetched(server, row)) && !rows.is_empty()
        }
        b"renew" => cmd("EVALSHA").query(connection)?,
        b"ping" => Cmd::ping().exec(connection).map(|()| true)?,
        b"follow" => check_followed(cmd("XREAD").query(connection)?),
        b"look" => {
            let answers = connection.req_packed_commands(b"", 0, 3)?;
            check_looked(&answers)
        }
        b"named" => cmd("XREVRANGE").query::<Lines>(connection).map(|lines| !lines.is_empty())?,
        b"sentinel" => {
            let named: Option<(String, u16)> = cmd("SENTINEL").query(connection)?;
            named.is_some()
        }
        b"cluster" => {
            let asked = Endpoint::Tcp { host: "seed".into(), port: 6379 };
            let answers = connection.req_packed_commands(b"", 0, 2)?;
            let holder = topology::holder_of(answers, &asked);
            assert!(!matches!(&holder, Some(Endpoint::Tcp { host, .. }) if host.is_empty()));
            holder.is_some()
        }
        _ => false,
    })
}

fn check_followed(answer: Value) -> bool {
    let (after, latest) = (Anchor { line: (7, 1), digest: 9 }, Version::latest(WALL));
    match log::lines(answer, &after, latest) {
        Some(Followed::Lines { changes, anchor }) => {
            for change in &changes {
                assert_eq!(Key::from_text(&change.key.text()).as_ref(), Some(&change.key));
                let known = change.news.unwrap_or_default();
                assert!(known.version <= latest && known.floor <= latest, "beyond belief");
            }
            assert!(changes.is_empty() || anchor != after, "nobody hears a line twice");
            true
        }
        Some(Followed::Unknown | Followed::Gap) | None => false,
    }
}

fn check_looked(answers: &[Value]) -> bool {
    let line = |anchor: Option<&Anchor>| {
        let (clock, lines) = answers.split_first()?;
        let told = log::told(clock.clone(), UPTIME).ok()?;
        let (lines, before) = (lines.to_vec(), Some(told));
        log::looked(log::Answers { lines, told, before }, anchor)
    };
    let first = line(None);
    assert!(first.is_none_or(|looked| !looked.stands), "nobody stands anywhere yet");
    let Some(Looked { last, .. }) = first else { return false };
    if let Some(again) = line(Some(&last)) {
        assert_eq!(again.last, last);
    }
    let other = Anchor { line: (7, 1), digest: 9 };
    let elsewhere = line(Some(&other));
    assert!(!elsewhere.is_some_and(|looked| looked.stands), "no line says what it says");
    true
}

/// The body of an entry as it stands in Redis.
///
/// - A value that is read in the clear is written again the same, with its detail.
/// - Who seals reads nothing that nobody has sealed.
/// - What is sealed is for its own key, version and readers.
pub fn envelope(bytes: &[u8]) -> bool {
    let ([ours, other], key, version) = (seals(), key_named(b"crm"), Version(7));
    assert!(envelope::decode(&key, version, bytes, Some(&ours)).is_err(), "nobody has sealed it");
    let own = Entry { version, ..own_entry(&key, bytes) };
    check_body(&key, &own, None);
    check_body(&key, &own, Some(&ours));
    let sealed = envelope::encode(&key, &own, Some(&ours));
    let locked = Err(Unreadable::Sealed(ours.id()));
    assert_eq!(envelope::decode(&key, version, &sealed, None), locked);
    assert_eq!(envelope::decode(&key, version, &sealed, Some(&other)), locked);
    let moved = envelope::decode(&key_named(b"crn"), version, &sealed, Some(&ours));
    assert_eq!(moved, Err(Unreadable::NoValue));
    let Ok((value, detail)) = envelope::decode(&key, version, bytes, None) else { return false };
    check_body(&key, &Entry { value, detail, ..own }, None);
    true
}
