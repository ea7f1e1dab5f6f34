//! The change log as a stream, followed by plain `XREAD BLOCK` on a connection of its own.
//!
//! Ordered, resumable, and through Sentinel, Cluster, proxies and managed services the same. On another
//! connection there may be another server, or the same with another past: there it is first looked whether
//! the line is there at which the follower stands.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use redis::{
    ConnectionLike as _, FromRedisValue as _, RedisResult, Script, ScriptInvocation, Value,
    from_redis_value,
};
use xxhash_rust::xxh3::xxh3_64;

use super::connection::{Connection, Connector};
use super::pool::misled;
use super::scripts::{self, Clocks, Fields, Reading};
use super::{RedisConfig, RedisStore};
use crate::clock::server::ServerTime;
use crate::clock::{Clock, Moment, Uptime, system};
use crate::entry::{Key, Version};
use crate::lock::Mutex;
use crate::process::SignalsHeld;
use crate::seal::Seal;
use crate::store::log::{Anchor, Change, ChangeLog, Fetched, Followed, Looked, News, Stored};
use crate::store::{Noticed, Reply, StoreError};

/// Lines taken at once. A reply as long as this may have been overtaken by the log's trimming.
const MOST: usize = 5000;
/// A log of fewer lines has never been cut: see `announce` in `common.lua`.
const KEPT: usize = 10_000;

pub struct RedisLog {
    connector: Connector,
    values: String,
    stream: String,
    /// Never there: deleting it is a write that changes nothing.
    nothing: String,
    /// `None` until the first question, and after any error.
    connection: Mutex<Option<Kept>>,
    seal: Option<Arc<Seal>>,
    clocks: Clocks,
    host: Option<Arc<dyn Clock>>,
    /// As the servers of a simulation are; what they are asked stays what it is about.
    known_to_run_scripts: bool,
}

struct Kept {
    connection: Connection,
    /// When it was last certain that it leads to the right server.
    right_at: Uptime,
    /// What its server told of its clock when the log was last looked at on it.
    looked_at: Option<ServerTime>,
    /// When its name was last resolved.
    named_at: Uptime,
}

/// How often it is made sure that this is still the server to follow: a former master goes on answering.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How often its name is resolved: one that was not even demoted may have been left. Whoever moves a
/// name lets it live about as long, and the resolver may be far away.
const RESOLVE_AGAIN: Duration = Duration::from_secs(5);

impl RedisLog {
    /// Connects at first need.
    pub fn new(config: RedisConfig) -> Self {
        Self {
            values: RedisStore::tagged(&config, "v:"),
            stream: RedisStore::tagged(&config, "log"),
            nothing: RedisStore::tagged(&config, "l:"),
            connector: Connector::new(config),
            connection: Mutex::new(None),
            seal: None,
            clocks: Clocks::default(),
            host: None,
            known_to_run_scripts: false,
        }
    }

    #[cfg(test)]
    pub fn resolving(self, resolver: crate::resolve::Resolver) -> Self {
        Self { connector: self.connector.resolving(resolver), ..self }
    }

    #[cfg(test)]
    pub fn over(self, network: Arc<dyn super::connection::Network>) -> Self {
        Self { connector: self.connector.over(network), known_to_run_scripts: true, ..self }
    }

    /// Read what is sealed, and nothing else.
    pub fn sealing(self, seal: Option<Arc<Seal>>) -> Self {
        Self { seal, ..self }
    }

    /// Believe what `host` has watched of the server's clock.
    pub fn on(self, host: Arc<dyn Clock>) -> Self {
        Self { host: Some(host), ..self }
    }

    /// Whether the log was looked at on this very connection decides what an answer means, so it is an
    /// argument of `ask`.
    fn with<T>(
        &self,
        patience: Duration,
        ask: impl FnOnce(&mut Connection, &mut Option<ServerTime>) -> RedisResult<T>,
    ) -> Result<T, StoreError> {
        let _held = SignalsHeld::hold();
        let config = self.connector.config();
        let mut lock = self.connection.lock();
        let now = system::monotonic();
        let by = now.plus(config.connect_timeout);
        let (mut kept, reused) = match lock.take().and_then(|kept| self.still_right(kept, by)) {
            Some(kept) => (kept, true),
            None => {
                let connection = self.connector.open(by)?;
                (Kept { connection, right_at: now, looked_at: None, named_at: now }, false)
            }
        };
        let connection = &mut kept.connection;
        connection.expect_answer(config.response_timeout + patience, config.response_timeout);
        let answer = ask(connection, &mut kept.looked_at);
        if connection.is_open() && answer.is_ok() {
            *lock = Some(kept);
        }
        answer.map_err(|error| match self.connector.explain(&error) {
            StoreError::TimedOut(why) if reused => StoreError::Lapsed(why),
            error => error,
        })
    }

    /// `kept`, unless it leads to the wrong server by now.
    fn still_right(&self, mut kept: Kept, by: Uptime) -> Option<Kept> {
        let (connection, now) = (&mut kept.connection, system::monotonic());
        if kept.right_at.until(now) >= LOOK_AGAIN {
            if !self.connector.still_right(connection, by) {
                return None;
            }
            kept.right_at = now;
        }
        if kept.named_at.until(now) >= RESOLVE_AGAIN {
            if !self.connector.still_named(connection, by) {
                return None;
            }
            kept.named_at = now;
        }
        Some(kept)
    }

    /// `script` on the rows of these keys.
    fn of_rows<'a>(&self, script: &'a Script, keys: &[Key]) -> ScriptInvocation<'a> {
        let mut call = script.prepare_invoke();
        for key in keys {
            call.key(format!("{}{}", self.values, key.text()));
        }
        call
    }

    /// The answers to a look, and what the server told of its clock at the one before on this connection. `None`:
    /// there was one, and the connection leads to a server by now that takes no writes.
    ///
    /// A server that was demoted goes on answering what is read, of a log that may end there. Behind one
    /// address (a name, a virtual one) nobody says so but the server, to who writes: so the first of these
    /// questions is a write that changes nothing.
    fn try_look(&self, anchor: Option<&Anchor>) -> Result<Option<Answers>, StoreError> {
        let mut questions = redis::pipe();
        questions.cmd("DEL").arg(&self.nothing).cmd("TIME");
        questions.cmd("XREVRANGE").arg(&self.stream).arg("+").arg("-").arg("COUNT").arg(1);
        if let Some(Anchor { line, .. }) = anchor {
            let id = shown(*line);
            questions.cmd("XREVRANGE").arg(&self.stream).arg(&id).arg(&id).arg("COUNT").arg(1);
        }
        let (packed, asked) = (questions.get_packed_pipeline(), questions.len());
        self.with(Duration::ZERO, |connection, looked_at| {
            let before = *looked_at;
            if before.is_none() && !self.known_to_run_scripts {
                // One that answers what is read and runs no script of ours is of no use to this host.
                scripts::VERSIONS.prepare_invoke().invoke::<Value>(connection)?;
            }
            let sent = system::monotonic();
            let mut answers = connection.req_packed_commands(&packed, 0, asked)?.into_iter();
            match answers.next().map(Value::extract_error) {
                Some(Err(error)) if misled(&error) && before.is_some() => return Ok(None),
                Some(Err(error)) if misled(&error) => return Err(error),
                // Refused for another reason (too few replicas, a full disk): masters do that, too.
                _ => {}
            }
            let clock = answers.next().unwrap_or(Value::Nil).extract_error()?;
            let told = told(clock, sent)?;
            *looked_at = Some(told);
            let lines = answers.map(Value::extract_error).collect::<RedisResult<_>>()?;
            Ok(Some(Answers { lines, told, before }))
        })
    }

    /// Every key that the log has a line of. A page at a time: between two of them others are served.
    pub fn named(&self) -> Result<Named, StoreError> {
        self.named_by(MOST)
    }

    pub(super) fn named_by(&self, page: usize) -> Result<Named, StoreError> {
        let (mut keys, mut lines, mut end) = (HashSet::new(), 0, String::from("+"));
        loop {
            let mut ask = redis::cmd("XREVRANGE");
            ask.arg(&self.stream).arg(&end).arg("-").arg("COUNT").arg(page);
            let answer: Value = self.with(Duration::ZERO, |connection, _| ask.query(connection))?;
            let found = Lines::from_redis_value(answer).map_err(|_| super::not_ours())?;
            lines += found.len();
            if let Some((oldest, _)) = found.last() {
                end = format!("({oldest}");
            }
            let full = found.len() == page;
            keys.extend(
                found.into_iter().filter_map(|(_, line)| Some(text(&line, "key")?.to_owned())),
            );
            if !full {
                break;
            }
        }
        let keys = keys.iter().filter_map(|text| Key::from_text(text)).collect();
        let oldest = end.trim_start_matches('(').split('-').next().and_then(|ms| ms.parse().ok());
        Ok(Named { keys, cut_at: oldest.filter(|_| lines >= KEPT) })
    }

    /// Commands sent since this log was made.
    pub fn commands_sent(&self) -> u64 {
        self.connector.sent()
    }
}

impl ChangeLog for RedisLog {
    fn noticed(&self) -> Noticed {
        let questions = self.connector.newly_sent();
        Noticed { questions, clocks_disagreed: self.clocks.newly_disagreed() }
    }

    fn look(&self, anchor: Option<&Anchor>) -> Result<Looked, StoreError> {
        let answers = match self.try_look(anchor)? {
            Some(answers) => answers,
            // Where the connection leads there was a master; perhaps its name leads to another by now.
            None => {
                self.connection.lock().take();
                self.try_look(anchor)?.ok_or_else(super::not_ours)?
            }
        };
        looked(answers, anchor).ok_or_else(super::not_ours)
    }

    fn follow(&self, anchor: &Anchor, patience: Duration) -> Result<Followed, StoreError> {
        let mut ask = redis::cmd("XREAD");
        ask.arg("COUNT").arg(MOST).arg("BLOCK").arg(patience.as_millis().max(1) as u64);
        ask.arg("STREAMS").arg(&self.stream).arg(shown(anchor.line));
        let answer = self.with(patience, |connection, looked_at| {
            if looked_at.is_some() { ask.query::<Value>(connection).map(Some) } else { Ok(None) }
        })?;
        let Some(answer) = answer else { return Ok(Followed::Unknown) };
        let latest = Version::latest(system::wall());
        Ok(lines(answer, anchor, latest).unwrap_or(Followed::Gap))
    }

    fn versions(&self, keys: &[Key], now: Moment) -> Result<Vec<Reply<Stored>>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let (call, wall) = (self.of_rows(&scripts::VERSIONS, keys), system::wall());
        let fields: Fields = self.with(Duration::ZERO, |connection, _| call.invoke(connection))?;
        scripts::versions_reply(&fields, keys.len(), now, wall).ok_or_else(super::not_ours)
    }

    fn fetch(&self, keys: &[Key], now: Moment) -> Result<Vec<Reply<Fetched>>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let (wall, sent) = (system::wall(), system::monotonic());
        let watched = self.host.as_ref().and_then(|host| host.watched());
        let call = self.of_rows(&scripts::FETCH, keys);
        let (server, rows): (i64, Vec<Fields>) = self
            .with(Duration::ZERO, |connection, _| call.invoke::<Vec<Value>>(connection))
            .and_then(|reply| scripts::fetched(reply).ok_or_else(super::not_ours))?;
        if rows.len() != keys.len() {
            return Err(super::not_ours());
        }
        let (seal, clocks) = (self.seal.as_deref(), &self.clocks);
        let heard = system::monotonic();
        let reading = |key| Reading { key, now, wall, sent, heard, watched, seal, clocks };
        Ok(rows
            .iter()
            .zip(keys)
            .map(|(row, key)| scripts::fetch_reply(row, server, reading(key)))
            .collect())
    }
}

/// What the log names.
#[derive(Debug, PartialEq, Eq)]
pub struct Named {
    pub keys: Vec<Key>,
    /// Of what last changed before, in milliseconds since 1970 by the server's clock, the log may
    /// have forgotten the line. `None`: it has forgotten none.
    pub cut_at: Option<u64>,
}

/// Its place, and fields that need be no text: a later release's, or a stranger's.
pub(super) type Line = (String, HashMap<Vec<u8>, Vec<u8>>);
pub(super) type Lines = Vec<Line>;

/// A line's place as Redis has it.
fn shown((ms, number): (u64, u64)) -> String {
    format!("{ms}-{number}")
}

fn anchor_at((id, said): &Line) -> Option<Anchor> {
    let (ms, number) = id.split_once('-')?;
    let said: BTreeMap<_, _> = said.iter().collect();
    let text: Vec<u8> = said
        .into_iter()
        .flat_map(|(name, value)| [name, &b"\0"[..], value, b"\0"].concat())
        .collect();
    Some(Anchor { line: (ms.parse().ok()?, number.parse().ok()?), digest: xxh3_64(&text) })
}

/// What `TIME` answered, to who asked at `sent`.
pub(super) fn told(answer: Value, sent: Uptime) -> RedisResult<ServerTime> {
    let (seconds, micros): (i64, i64) = from_redis_value(answer)?;
    let clock = seconds.saturating_mul(1000).saturating_add(micros / 1000);
    Ok(ServerTime { clock, sent, heard: system::monotonic() })
}

/// What a server answers to a look.
pub(super) struct Answers {
    pub lines: Vec<Value>,
    pub told: ServerTime,
    /// What it told at the look before, on the same connection.
    pub before: Option<ServerTime>,
}

/// What the answers say: where the log ends and, asked for an anchor, the line there.
pub(super) fn looked(answers: Answers, anchor: Option<&Anchor>) -> Option<Looked> {
    let Answers { lines, told, before } = answers;
    let mut lines = lines.into_iter();
    let mut line = || Some(Lines::from_redis_value(lines.next()?).ok()?.into_iter().next());
    // No line at all: the log is where it begins.
    let at = |line: Option<Line>| line.map_or(Some(Anchor::default()), |line| anchor_at(&line));
    let last = at(line()?)?;
    let stands = match anchor {
        None => false,
        // Of a log that was empty only this connection knows that nothing was cut off since.
        Some(anchor) if *anchor == Anchor::default() => before.is_some() || last == *anchor,
        Some(anchor) => at(line()?)? == *anchor,
    };
    let set_back = before.is_some_and(|before| told.is_set_back(&before));
    Some(Looked { stands, last, told, set_back })
}

/// What is said of keys that this release knows. Lines of another shape and keys of another kind are a later
/// release's, and nothing to us. `None`: there may be more than was taken.
pub(super) fn lines(answer: Value, after: &Anchor, latest: Version) -> Option<Followed> {
    let streams = Option::<Vec<(String, Lines)>>::from_redis_value(answer).ok()?;
    let lines = streams.into_iter().flatten().next().map(|(_, lines)| lines).unwrap_or_default();
    if lines.len() >= MOST {
        return None;
    }
    let anchor = lines.last().map_or(Some(*after), anchor_at)?;
    let changes = lines.iter().filter_map(|(_, line)| change(line, latest)).collect();
    Some(Followed::Lines { changes, anchor })
}

fn text<'a>(line: &'a HashMap<Vec<u8>, Vec<u8>>, name: &str) -> Option<&'a str> {
    std::str::from_utf8(line.get(name.as_bytes())?).ok()
}

fn change(line: &HashMap<Vec<u8>, Vec<u8>>, latest: Version) -> Option<Change> {
    let key = Key::from_text(text(line, "key")?)?;
    let number = |name| {
        let number = text(line, name)?.parse().map(Version).ok()?;
        (number <= latest).then_some(number)
    };
    let news = number("version").zip(number("floor"));
    Some(Change { key, news: news.map(|(version, floor)| News { version, floor }) })
}
