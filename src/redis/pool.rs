//! The connections of one process, opened at first need and closed when idle.
//!
//! An operation has one deadline, whatever it takes: waiting for a place, connecting, the request,
//! and once more on a fresh connection when a reused one turns out to be dead.

use std::time::Duration;

use redis::{ConnectionLike as _, RedisError, RedisResult};

use super::config::{RedisConfig, Topology};
use super::connection::{Connection, Connector, code_of};
use crate::clock::{Uptime, sleep, system};
use crate::lock::{Condvar, Mutex};
use crate::process::{self, SignalsHeld};
use crate::store::StoreError;

pub struct Pool {
    connector: Connector,
    state: Mutex<State>,
    returned: Condvar,
    generation: u64,
}

#[derive(Default)]
struct State {
    /// The last returned is the next used, so that the surplus grows old.
    idle: Vec<Idle>,
    in_use: usize,
}

struct Idle {
    connection: Connection,
    since: Uptime,
}

/// One of the pool's places, in use.
struct Place<'a>(&'a Pool);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.state.lock().in_use -= 1;
        self.0.returned.notify_one();
    }
}

impl Pool {
    /// Connects to nothing yet.
    pub fn new(config: RedisConfig) -> Self {
        Self {
            connector: Connector::new(config),
            state: Mutex::default(),
            returned: Condvar::default(),
            generation: process::generation(),
        }
    }

    #[cfg(test)]
    pub fn over(self, network: std::sync::Arc<dyn super::connection::Network>) -> Self {
        Self { connector: self.connector.over(network), ..self }
    }

    pub fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Run `operation` on a connection. It must be idempotent: on a reused connection it may run
    /// twice. Blocks for at most the connect and the response timeout together, unless an answer comes slowly.
    pub fn with<T>(
        &self,
        operation: impl Fn(&mut Connection) -> RedisResult<T>,
    ) -> Result<T, StoreError> {
        if self.generation != process::generation() {
            // The lock may be held by a thread that does not exist here, and the sockets are the
            // parent's.
            return Err(StoreError::Unreachable(
                "the connections belong to another process".into(),
            ));
        }
        let _held = SignalsHeld::hold();
        let config = self.connector.config();
        let end = system::monotonic().plus(config.connect_timeout + config.response_timeout);
        let (_place, mut reused) = self.take(end)?;
        loop {
            let fresh = reused.is_none();
            let mut connection = match reused.take() {
                Some(connection) => connection,
                None => {
                    let by = system::monotonic().plus(config.connect_timeout);
                    self.connector.open(by.min(end))?
                }
            };
            let first = system::monotonic().until(end).min(config.response_timeout);
            connection.expect_answer(first, config.response_timeout);
            match operation(&mut connection) {
                // The rest of the idle ones met the same end, or soon will.
                Err(error) if !fresh && outdated(&error) => self.state.lock().idle.clear(),
                // The slot is on its way to another node, or has just arrived there.
                Err(error) if in_motion(&error) && system::monotonic().plus(MOVING) < end => {
                    sleep(MOVING);
                }
                result => {
                    if connection.is_open() && !result.as_ref().is_err_and(outdated) {
                        self.keep(connection);
                    }
                    return result.map_err(|error| match self.connector.explain(&error) {
                        StoreError::TimedOut(why) if !fresh => StoreError::Lapsed(why),
                        explained => explained,
                    });
                }
            }
        }
    }

    fn take(&self, end: Uptime) -> Result<(Place<'_>, Option<Connection>), StoreError> {
        let max = self.connector.config().pool_max.max(1);
        let mut state = self.state.lock();
        while state.in_use >= max {
            let left = system::monotonic().until(end);
            if left.is_zero() {
                return Err(StoreError::Unreachable(format!("all {max} connections are busy")));
            }
            state = self.returned.wait_for(state, left);
        }
        state.in_use += 1;
        self.close_idle(&mut state);
        let idle = state.idle.pop().map(|idle| idle.connection);
        Ok((Place(self), idle))
    }

    fn keep(&self, connection: Connection) {
        let mut state = self.state.lock();
        self.close_idle(&mut state);
        state.idle.push(Idle { connection, since: system::monotonic() });
    }

    /// Close what has been idle for long. Nobody may ask again, so somebody has to call this.
    pub fn rest(&self) {
        if self.generation == process::generation() {
            self.close_idle(&mut self.state.lock());
        }
    }

    /// Close whatever is idle.
    pub fn let_go(&self) {
        if self.generation == process::generation() {
            self.state.lock().idle.clear();
        }
    }

    fn close_idle(&self, state: &mut State) {
        let config = self.connector.config();
        let most = match config.topology {
            // A master that was cut off goes on answering until it hears of its successor.
            Topology::Sentinel { .. } => config.pool_idle.min(Duration::from_secs(1)),
            _ => config.pool_idle,
        };
        let now = system::monotonic();
        state.idle.retain(|idle| idle.since.until(now) < most);
    }
}

/// Whether a fresh connection may fare better: this one was closed while it lay idle, or leads to
/// the wrong server.
fn outdated(error: &RedisError) -> bool {
    error.is_connection_dropped() || misled(error)
}

/// Whether the server says that it is not the one to ask: the password has changed since, it has
/// stopped being the master, or the slot has moved.
pub(super) fn misled(error: &RedisError) -> bool {
    let codes = ["NOAUTH", "READONLY", "MASTERDOWN", "MOVED", "CLUSTERDOWN"];
    code_of(error).is_some_and(|code| codes.contains(&code))
}

/// How long to wait before asking again about a slot that is being moved, key by key.
const MOVING: Duration = Duration::from_millis(20);

fn in_motion(error: &RedisError) -> bool {
    error.code().is_some_and(|code| ["MOVED", "ASK", "TRYAGAIN"].contains(&code))
}
