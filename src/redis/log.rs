//! The change log as a stream, followed by plain `XREAD BLOCK` on a connection of its own.
//!
//! Ordered, resumable, and through Sentinel, Cluster, proxies and managed services the same. A
//! connection that was lost is a gap: between two masters nothing says that they wrote the same.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::{ConnectionLike as _, FromRedisValue as _, RedisResult, Value};

use super::connection::{Connection, Connector};
use super::pool::misled;
use super::scripts::{self, Clocks, Fields, Reading};
use super::{RedisConfig, RedisStore};
use crate::clock::{Moment, Uptime, system};
use crate::entry::{Key, Version};
use crate::process::SignalsHeld;
use crate::seal::Seal;
use crate::store::log::{Change, ChangeLog, Fetched, Followed, News, Position};
use crate::store::{Noticed, Reply, StoreError};

/// Lines taken at once. A reply as long as this may have been overtaken by the log's trimming.
const MOST: usize = 5000;
const EMPTY: &str = "0-0";
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
}

struct Kept {
    connection: Connection,
    /// When it was last certain that it leads to the right server.
    right_at: Uptime,
    /// Whether the log's last position was read on it.
    positioned: bool,
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
        }
    }

    #[cfg(test)]
    pub fn resolving(self, resolver: crate::resolve::Resolver) -> Self {
        Self { connector: self.connector.resolving(resolver), ..self }
    }

    /// Read what is sealed, and nothing else.
    pub fn sealing(self, seal: Option<Arc<Seal>>) -> Self {
        Self { seal, ..self }
    }

    /// Whether the log's position was read on this very connection decides what an answer means, so it
    /// is an argument of `ask`.
    fn with<T>(
        &self,
        patience: Duration,
        ask: impl FnOnce(&mut Connection, &mut bool) -> RedisResult<T>,
    ) -> Result<T, StoreError> {
        let _held = SignalsHeld::hold();
        let config = self.connector.config();
        let mut lock = self.connection.lock();
        let now = system::monotonic();
        let by = now.plus(config.connect_timeout);
        let kept = match lock.take() {
            Some(kept) => self.looked_at(kept, by).map_err(of_this_connection)?,
            None => None,
        };
        let (mut kept, reused) = match kept {
            Some(kept) => (kept, true),
            None => {
                let connection = self.connector.open(by)?;
                (Kept { connection, right_at: now, positioned: false, named_at: now }, false)
            }
        };
        let connection = &mut kept.connection;
        connection.set_deadline(system::monotonic().plus(config.response_timeout + patience));
        let answer = ask(connection, &mut kept.positioned);
        if connection.is_open() && answer.is_ok() {
            *lock = Some(kept);
        }
        answer.map_err(|error| match self.connector.explain(&error) {
            error if reused => of_this_connection(error),
            error => error,
        })
    }

    /// `kept`, unless it leads to the wrong server by now. `Err`: it is of no use any more.
    fn looked_at(&self, mut kept: Kept, by: Uptime) -> Result<Option<Kept>, StoreError> {
        let (connection, now) = (&mut kept.connection, system::monotonic());
        if kept.right_at.until(now) >= LOOK_AGAIN {
            connection.set_deadline(by);
            // First, for sentinels that hang leave no time for it.
            match self.takes_writes(connection) {
                Err(error) if misled(&error) => return Ok(None),
                asked => asked.map_err(|error| self.connector.explain(&error))?,
            }
            if !self.connector.still_right(connection, by) {
                return Ok(None);
            }
            kept.right_at = now;
        }
        if kept.named_at.until(now) >= RESOLVE_AGAIN {
            if !self.connector.still_named(connection, by) {
                return Ok(None);
            }
            kept.named_at = now;
        }
        Ok(Some(kept))
    }

    /// A server that was demoted goes on answering what is read, of a log that may end there. Behind one
    /// address (a name, a virtual one) nobody says so but the server, to who writes.
    fn takes_writes(&self, connection: &mut Connection) -> RedisResult<()> {
        match redis::cmd("DEL").arg(&self.nothing).exec(connection) {
            Err(error) if misled(&error) || !connection.is_open() => Err(error),
            // Refused for another reason (too few replicas, a full disk): masters do that, too.
            _ => Ok(()),
        }
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
            keys.extend(found.into_iter().filter_map(|(_, line)| line.get("key").cloned()));
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

/// Perhaps it was this connection only, cut by something on the way.
fn of_this_connection(error: StoreError) -> StoreError {
    match error {
        StoreError::TimedOut(why) => StoreError::Unreachable(why),
        other => other,
    }
}

impl ChangeLog for RedisLog {
    fn noticed(&self) -> Noticed {
        let questions = self.connector.newly_sent();
        Noticed { questions, clocks_disagreed: self.clocks.newly_disagreed() }
    }

    fn last(&self) -> Result<Position, StoreError> {
        let mut ask = redis::cmd("XREVRANGE");
        ask.arg(&self.stream).arg("+").arg("-").arg("COUNT").arg(1);
        let found: Vec<(String, Value)> = self.with(Duration::ZERO, |connection, positioned| {
            self.takes_writes(connection)?;
            *positioned = true;
            ask.query(connection)
        })?;
        Ok(Position(found.into_iter().next().map_or_else(|| EMPTY.into(), |(id, _)| id)))
    }

    fn follow(&self, position: &Position, patience: Duration) -> Result<Followed, StoreError> {
        let mut ask = redis::cmd("XREAD");
        ask.arg("COUNT").arg(MOST).arg("BLOCK").arg(patience.as_millis().max(1) as u64);
        ask.arg("STREAMS").arg(&self.stream).arg(&position.0);
        let answer = self.with(patience, |connection, positioned| {
            // On a new connection this may be another server, or the same with another past.
            if *positioned { ask.query::<Value>(connection).map(Some) } else { Ok(None) }
        })?;
        let Some(answer) = answer else { return Ok(Followed::Gap) };
        let latest = Version::latest(system::wall());
        Ok(lines(answer, position, latest).unwrap_or(Followed::Gap))
    }

    fn fetch(&self, keys: &[Key], now: Moment) -> Result<Vec<Reply<Fetched>>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut call = scripts::FETCH.prepare_invoke();
        for key in keys {
            call.key(format!("{}{}", self.values, key.text()));
        }
        let wall = system::wall();
        let (server, rows): (i64, Vec<Fields>) = self
            .with(Duration::ZERO, |connection, _| call.invoke::<Vec<Value>>(connection))
            .and_then(|reply| scripts::fetched(reply).ok_or_else(super::not_ours))?;
        if rows.len() != keys.len() {
            return Err(super::not_ours());
        }
        let (seal, clocks) = (self.seal.as_deref(), &self.clocks);
        let reading = |key| Reading { key, now, wall, seal, clocks };
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

type Lines = Vec<(String, HashMap<String, String>)>;

/// What is said of keys that this release knows. Lines of another shape and keys of another kind are a later
/// release's, and nothing to us. `None`: there may be more than was taken.
fn lines(answer: Value, after: &Position, latest: Version) -> Option<Followed> {
    let streams = Option::<Vec<(String, Lines)>>::from_redis_value(answer).ok()?;
    let lines = streams.into_iter().flatten().next().map(|(_, lines)| lines).unwrap_or_default();
    if lines.len() >= MOST {
        return None;
    }
    let position = lines.last().map_or_else(|| after.clone(), |(id, _)| Position(id.clone()));
    let changes = lines.iter().filter_map(|(_, line)| change(line, latest)).collect();
    Some(Followed::Lines { changes, position })
}

fn change(line: &HashMap<String, String>, latest: Version) -> Option<Change> {
    let key = Key::from_text(line.get("key")?)?;
    let number = |name| {
        let number = line.get(name)?.parse().map(Version).ok()?;
        (number <= latest).then_some(number)
    };
    let news = number("version").zip(number("floor"));
    Some(Change { key, news: news.map(|(version, floor)| News { version, floor }) })
}
