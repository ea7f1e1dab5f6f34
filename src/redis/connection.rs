//! One conversation with Redis: resolve, connect, authenticate, then requests and replies.
//!
//! The `redis` crate is the codec; sockets and deadlines are ours. After any I/O or protocol error
//! the conversation is over: a late reply would answer the wrong question.

use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

use redis::{Cmd, ConnectionLike, ErrorKind, Parser, RedisError, RedisResult, Value, cmd};
use socket2::SockAddr;

use super::config::{Endpoint, RedisConfig, Topology};
use super::socket::{Socket, Transport};
use super::tls::Secured;
use crate::clock::{Moment, system};
use crate::store::StoreError;

pub struct Connection {
    transport: Box<dyn Transport>,
    parser: Parser,
    database: u32,
    sent: Arc<AtomicU64>,
    broken: bool,
}

impl Connection {
    /// All requests from now on end by `deadline`.
    pub fn set_deadline(&mut self, deadline: Moment) {
        self.transport.set_deadline(deadline);
    }

    fn exchange(&mut self, commands: &[u8], replies: usize) -> RedisResult<Vec<Value>> {
        if self.broken {
            return Err(io::Error::from(io::ErrorKind::NotConnected).into());
        }
        self.sent.fetch_add(replies as u64, Ordering::Relaxed);
        // Broken until the last reply is in: whoever leaves early leaves replies behind.
        self.broken = true;
        self.transport.write_all(commands)?;
        let mut values = Vec::with_capacity(replies);
        while values.len() < replies {
            values.push(self.parser.parse_value(&mut *self.transport)?);
        }
        self.broken = false;
        Ok(values)
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command(&mut self, command: &[u8]) -> RedisResult<Value> {
        Ok(self.exchange(command, 1)?.pop().unwrap_or(Value::Nil))
    }

    fn req_packed_commands(
        &mut self,
        commands: &[u8],
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        Ok(self.exchange(commands, offset + count)?.split_off(offset))
    }

    fn get_db(&self) -> i64 {
        self.database.into()
    }

    fn check_connection(&mut self) -> bool {
        cmd("PING").exec(self).is_ok()
    }

    fn is_open(&self) -> bool {
        !self.broken
    }
}

/// How Redis begins what it says when a script may not run a command, up to 7.0 and from 7.2 on. The
/// code is mostly `ERR`.
const DENIED_IN_SCRIPT: [&str; 2] = ["The user executing the script", "ACL failure in script"];

/// Opens connections, and counts what all of them send.
pub struct Connector {
    config: RedisConfig,
    sent: Arc<AtomicU64>,
    resolving: Arc<AtomicU32>,
}

impl Connector {
    pub fn new(config: RedisConfig) -> Self {
        Self { config, sent: Arc::default(), resolving: Arc::default() }
    }

    pub fn config(&self) -> &RedisConfig {
        &self.config
    }

    /// Commands sent since the start, by all connections.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// A connection ready for requests, by `deadline`.
    pub fn open(&self, deadline: Moment) -> Result<Connection, StoreError> {
        let mut connection = Connection {
            transport: self.connect(deadline)?,
            parser: Parser::new(),
            database: self.config.database,
            sent: Arc::clone(&self.sent),
            broken: false,
        };
        self.greet(&mut connection)?;
        Ok(connection)
    }

    fn connect(&self, deadline: Moment) -> Result<Box<dyn Transport>, StoreError> {
        let Topology::Single(endpoint) = &self.config.topology else {
            return Err(StoreError::Refused("Sentinel and Cluster: not in this release".into()));
        };
        let addresses = match endpoint {
            Endpoint::Unix { path } => SockAddr::unix(path).map(|address| vec![address]),
            Endpoint::Tcp { host, port } => self.resolve(host, *port, deadline),
        };
        let addresses = addresses.map_err(|error| self.unreachable(&error))?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for (tried, address) in addresses.iter().enumerate() {
            // An equal share of what is left: a dead first address must not starve the second.
            let now = system::monotonic();
            let share = now.until(deadline) / u32::try_from(addresses.len() - tried).unwrap_or(1);
            match Socket::connect(address, now.plus(share)) {
                Ok(mut socket) => {
                    socket.set_deadline(deadline);
                    return self.secured(socket, endpoint);
                }
                Err(error) => last = error,
            }
        }
        Err(self.unreachable(&last))
    }

    /// The socket to `endpoint` as it may be spoken through.
    fn secured(
        &self,
        socket: Socket,
        endpoint: &Endpoint,
    ) -> Result<Box<dyn Transport>, StoreError> {
        match (&self.config.tls, endpoint) {
            (Some(tls), Endpoint::Tcp { host, .. }) => Secured::over(socket, host, tls)
                .map(|secured| Box::new(secured) as _)
                .map_err(|error| self.unreachable(&error)),
            // A unix socket does not leave this host; no DSN asks for TLS on one.
            _ => Ok(Box::new(socket)),
        }
    }

    /// `getaddrinfo` knows no timeout, so it runs in a thread that is left behind when it is late;
    /// a few of those at most, or a dead resolver would pile them up.
    fn resolve(&self, host: &str, port: u16, deadline: Moment) -> io::Result<Vec<SockAddr>> {
        const MAX_LATE: u32 = 4;
        const STACK: usize = 256 * 1024;

        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port).into()]);
        }
        if self.resolving.fetch_add(1, Ordering::Relaxed) >= MAX_LATE {
            self.resolving.fetch_sub(1, Ordering::Relaxed);
            return Err(io::Error::new(io::ErrorKind::TimedOut, "name resolution hangs"));
        }
        let (answer, answered) = mpsc::sync_channel(1);
        let (name, resolving) = (host.to_owned(), Arc::clone(&self.resolving));
        let started = thread::Builder::new().stack_size(STACK).spawn(move || {
            let found = (name.as_str(), port).to_socket_addrs();
            resolving.fetch_sub(1, Ordering::Relaxed);
            // Nobody may be listening any more.
            let _ = answer.send(found.map(|all| all.map(SockAddr::from).collect()));
        });
        if let Err(error) = started {
            self.resolving.fetch_sub(1, Ordering::Relaxed);
            return Err(error);
        }
        let late =
            |_| Err(io::Error::new(io::ErrorKind::TimedOut, "name resolution took too long"));
        answered.recv_timeout(system::monotonic().until(deadline)).unwrap_or_else(late)
    }

    /// Everything in one round trip.
    fn greet(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let mut greeting: Vec<Cmd> = Vec::new();
        if let Some(password) = self.password()? {
            let mut auth = cmd("AUTH");
            if let Some(user) = &self.config.username {
                auth.arg(user);
            }
            auth.arg(password);
            greeting.push(auth);
        }
        if self.config.database != 0 {
            let mut select = cmd("SELECT");
            select.arg(self.config.database);
            greeting.push(select);
        }
        let needed = greeting.len();
        let mut name = cmd("CLIENT");
        name.arg("SETNAME").arg("sharedstate");
        greeting.push(name);

        let mut bytes = Vec::new();
        greeting.iter().for_each(|command| command.write_packed_command(&mut bytes));
        let replies =
            connection.exchange(&bytes, greeting.len()).map_err(|error| self.unwelcome(&error))?;
        // A user or proxy that may not set a name works all the same.
        for reply in replies.into_iter().take(needed) {
            reply.extract_error().map_err(|error| self.unwelcome(&error))?;
        }
        Ok(())
    }

    /// Why a greeting was not answered as it should be.
    fn unwelcome(&self, error: &RedisError) -> StoreError {
        let unix = matches!(self.config.topology, Topology::Single(Endpoint::Unix { .. }));
        let cut_short = error.is_connection_dropped() || error.kind() == ErrorKind::Parse;
        match self.explain(error) {
            // A port that speaks TLS only is like that.
            StoreError::Unreachable(why) | StoreError::Refused(why)
                if cut_short && !unix && self.config.tls.is_none() =>
            {
                StoreError::Unreachable(format!("{why}; if it speaks TLS, use rediss://"))
            }
            // Nothing here is about one key.
            StoreError::Foreign(why) => StoreError::Refused(why),
            explained => explained,
        }
    }

    fn password(&self) -> Result<Option<String>, StoreError> {
        if let Some(path) = &self.config.password_file {
            let refused = |why: String| {
                StoreError::Refused(format!("password file {}: {why}", path.display()))
            };
            let read = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
            let password = read.trim_end_matches(['\r', '\n']);
            if password.is_empty() {
                return Err(refused("it is empty, but must hold the password".into()));
            }
            return Ok(Some(password.to_owned()));
        }
        Ok(self.config.password.as_ref().map(|password| password.reveal().to_owned()))
    }

    fn unreachable(&self, error: &io::Error) -> StoreError {
        let what = match error.kind() {
            io::ErrorKind::TimedOut if error.get_ref().is_none() => "no answer in time".into(),
            _ => error.to_string(),
        };
        StoreError::Unreachable(format!("Redis at {}: {what}", self.config.topology))
    }

    /// An error of the codec as one of the store's, without anything a request or a reply carried.
    pub fn explain(&self, error: &RedisError) -> StoreError {
        let at = &self.config.topology;
        if let Some(code) = error.code() {
            // "unknown command" and its kind quote the arguments.
            let detail = error.detail().unwrap_or_default();
            let detail = detail.split(", with args").next().unwrap_or_default();
            let sentence = format!("Redis at {at}: {code} {detail}");
            if code == "NOPERM" || DENIED_IN_SCRIPT.iter().any(|start| detail.starts_with(start)) {
                let sentence = sentence.trim_end_matches('.');
                return StoreError::Refused(format!(
                    "{sentence}; ACL LOG there names what the user lacks"
                ));
            }
            // Of one key, not of the server.
            return match code {
                "WRONGTYPE" | "ERR" => StoreError::Foreign(sentence),
                _ => StoreError::Refused(sentence),
            };
        }
        match error.kind() {
            ErrorKind::Io => StoreError::Unreachable(if error.is_timeout() {
                format!("Redis at {at}: no answer in time")
            } else if error.is_connection_dropped() {
                format!("Redis at {at}: the connection was closed")
            } else {
                format!("Redis at {at}: {error}")
            }),
            // The codec quotes what it could not read, and that may be a token.
            kind => StoreError::Refused(format!("Redis at {at}: unexpected reply ({kind:?})")),
        }
    }
}
