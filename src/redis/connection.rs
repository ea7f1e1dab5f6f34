//! One conversation with Redis: resolve, connect, authenticate, then requests and replies.
//!
//! The `redis` crate is the codec; sockets and deadlines are ours. After any I/O or protocol error
//! the conversation is over: a late reply would answer the wrong question.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::{Cmd, ConnectionLike, ErrorKind, Parser, RedisError, RedisResult, Value, cmd};
use socket2::SockAddr;

use super::config::{Endpoint, Login, RedisConfig, Topology};
use super::socket::{Limit, Socket, Transport};
use super::tls::Secured;
use crate::clock::{Uptime, system};
use crate::lock::Mutex;
use crate::resolve::Resolver;
use crate::secret;
use crate::store::StoreError;

pub struct Connection {
    transport: Box<dyn Transport>,
    parser: Parser,
    database: u32,
    endpoint: Endpoint,
    /// The address that the endpoint's name led to; `None` for a path.
    address: Option<SocketAddr>,
    sent: Arc<AtomicU64>,
    broken: bool,
}

impl Connection {
    /// To whoever is at the other end of `transport`.
    #[cfg(any(test, fuzzing))]
    pub fn over(transport: Box<dyn Transport>) -> Self {
        Self {
            transport,
            parser: Parser::new(),
            database: 0,
            endpoint: Endpoint::Unix { path: "/".into() },
            address: None,
            sent: Arc::default(),
            broken: false,
        }
    }

    /// All requests from now on end by `deadline`.
    pub fn set_deadline(&mut self, deadline: Uptime) {
        self.transport.set_limit(Limit::by(deadline));
    }

    /// The next answer begins within `first`, and then pauses for no longer than `silence`.
    pub fn expect_answer(&mut self, first: Duration, silence: Duration) {
        self.transport.set_limit(Limit::answer(system::monotonic(), first, silence));
    }

    /// Where it leads.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn exchange(&mut self, commands: &[u8], replies: usize) -> RedisResult<Vec<Value>> {
        let mut values = Vec::with_capacity(replies);
        self.converse(commands, replies, &mut values)?;
        Ok(values)
    }

    /// With what was answered before the conversation ended, if it did.
    fn converse(
        &mut self,
        commands: &[u8],
        replies: usize,
        values: &mut Vec<Value>,
    ) -> RedisResult<()> {
        if self.broken {
            return Err(io::Error::from(io::ErrorKind::NotConnected).into());
        }
        self.sent.fetch_add(replies as u64, Ordering::Relaxed);
        // Broken until the last reply is in: whoever leaves early leaves replies behind.
        self.broken = true;
        match self.transport.write_all(commands) {
            // A server that lets nobody in says so and closes, without having read anything.
            Err(error) if dropped(&error) => {}
            written => written?,
        }
        while values.len() < replies {
            values.push(self.parser.parse_value(&mut *self.transport)?);
        }
        self.broken = false;
        Ok(())
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

/// What a server must be to be spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Whatever,
    /// It has to say so itself: who named it may not have heard of a fail-over.
    Master,
    /// Knows neither databases nor our name.
    Sentinel,
}

/// Opens connections, and counts what all of them send. Which server: see `topology`.
pub struct Connector {
    config: RedisConfig,
    sent: Arc<AtomicU64>,
    told: AtomicU64,
    resolver: Resolver,
    /// The server that was spoken to last, where the DSN does not say it.
    last: Mutex<Option<Endpoint>>,
    #[cfg(test)]
    network: Option<Arc<dyn Network>>,
}

/// What a simulation has in the place of names and sockets.
#[cfg(test)]
pub trait Network: Send + Sync {
    fn resolve(&self, host: &str, port: u16, deadline: Uptime) -> io::Result<Vec<SocketAddr>>;
    fn connect(&self, address: &SockAddr, deadline: Uptime) -> io::Result<Box<dyn Transport>>;
}

impl Connector {
    pub fn new(config: RedisConfig) -> Self {
        Self {
            config,
            sent: Arc::default(),
            told: AtomicU64::new(0),
            resolver: Resolver::default(),
            last: Mutex::default(),
            #[cfg(test)]
            network: None,
        }
    }

    #[cfg(test)]
    pub fn over(self, network: Arc<dyn Network>) -> Self {
        Self { network: Some(network), ..self }
    }

    #[cfg(test)]
    pub fn resolving(self, resolver: Resolver) -> Self {
        Self { resolver, ..self }
    }

    pub fn config(&self) -> &RedisConfig {
        &self.config
    }

    /// Of the commands sent, those that this was not told of before.
    pub fn newly_sent(&self) -> u64 {
        let sent = self.sent();
        sent.saturating_sub(self.told.fetch_max(sent, Ordering::Relaxed))
    }

    /// Commands sent since the start, by all connections.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub fn last_at(&self) -> Option<Endpoint> {
        self.last.lock().clone()
    }

    /// A connection to this very server, ready for requests, by `deadline`.
    pub fn open_at(
        &self,
        endpoint: &Endpoint,
        login: &Login,
        role: Role,
        deadline: Uptime,
    ) -> Result<Connection, StoreError> {
        if role != Role::Sentinel {
            *self.last.lock() = Some(endpoint.clone());
        }
        let (transport, address) = self.connect(endpoint, deadline)?;
        let mut connection = Connection {
            transport,
            parser: Parser::new(),
            database: if role == Role::Sentinel { 0 } else { self.config.database },
            endpoint: endpoint.clone(),
            address: address.as_socket(),
            sent: Arc::clone(&self.sent),
            broken: false,
        };
        self.greet(&mut connection, login, role)?;
        Ok(connection)
    }

    fn connect(
        &self,
        endpoint: &Endpoint,
        deadline: Uptime,
    ) -> Result<(Box<dyn Transport>, SockAddr), StoreError> {
        let addresses = match endpoint {
            Endpoint::Unix { path } => SockAddr::unix(path).map(|address| vec![address]),
            Endpoint::Tcp { host, port } => self
                .resolve(host, *port, deadline)
                .map(|all| all.into_iter().map(SockAddr::from).collect()),
        };
        let addresses = addresses.map_err(|error| unreachable_at(endpoint, &error))?;
        let mut last = io::ErrorKind::NotFound.into();
        for (tried, address) in addresses.iter().enumerate() {
            // An equal share of what is left: a dead first address must not starve the second.
            let now = system::monotonic();
            let share = now.until(deadline) / u32::try_from(addresses.len() - tried).unwrap_or(1);
            #[cfg(test)]
            if let Some(network) = &self.network {
                match network.connect(address, now.plus(share)) {
                    Ok(mut transport) => {
                        transport.set_limit(Limit::by(deadline));
                        return Ok((transport, address.clone()));
                    }
                    Err(error) => last = error,
                }
                continue;
            }
            match Socket::connect(address, now.plus(share)) {
                Ok(mut socket) => {
                    socket.set_limit(Limit::by(deadline));
                    return Ok((self.secured(socket, endpoint)?, address.clone()));
                }
                Err(error) => last = error,
            }
        }
        Err(unreachable_at(endpoint, &last))
    }

    fn resolve(&self, host: &str, port: u16, deadline: Uptime) -> io::Result<Vec<SocketAddr>> {
        #[cfg(test)]
        if let Some(network) = &self.network {
            return network.resolve(host, port, deadline);
        }
        self.resolver.resolve(host, port, deadline)
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
                .map_err(|error| unreachable_at(endpoint, &error)),
            // A unix socket does not leave this host; no DSN asks for TLS on one.
            _ => Ok(Box::new(socket)),
        }
    }

    /// Whether the name of its endpoint still leads to where `connection` does.
    pub fn still_named(&self, connection: &Connection, deadline: Uptime) -> bool {
        let (Endpoint::Tcp { host, port }, Some(address)) =
            (&connection.endpoint, &connection.address)
        else {
            return true;
        };
        // While names cannot be resolved, nothing says that it does not.
        let named = self.resolve(host, *port, deadline);
        named.map_or(true, |named| named.contains(address))
    }

    /// Everything in one round trip.
    fn greet(
        &self,
        connection: &mut Connection,
        login: &Login,
        role: Role,
    ) -> Result<(), StoreError> {
        let mut greeting: Vec<Cmd> = Vec::new();
        if let Some(password) = password(login)? {
            let mut auth = cmd("AUTH");
            if let Some(user) = &login.username {
                auth.arg(user);
            }
            auth.arg(password);
            greeting.push(auth);
        }
        if connection.database != 0 {
            let mut select = cmd("SELECT");
            select.arg(connection.database);
            greeting.push(select);
        }
        if role == Role::Master {
            greeting.push(cmd("ROLE"));
        }
        let needed = greeting.len();
        if role != Role::Sentinel {
            let mut name = cmd("CLIENT");
            name.arg("SETNAME").arg("sharedstate");
            greeting.push(name);
        }
        if greeting.is_empty() {
            return Ok(());
        }

        let mut bytes = Vec::new();
        greeting.iter().for_each(|command| command.write_packed_command(&mut bytes));
        let mut replies = Vec::new();
        let ended = connection.converse(&bytes, greeting.len(), &mut replies).err();
        let mut replies = replies.into_iter().map(Value::extract_error);
        let mut said = Value::Nil;
        for reply in replies.by_ref().take(needed) {
            said = reply.map_err(|error| self.unwelcome(&error))?;
        }
        let named = replies.next().unwrap_or(Ok(Value::Okay));
        match named {
            // What the server says before it closes is why.
            Err(error) if ended.is_some() => return Err(self.unwelcome(&error)),
            Err(error) => self.nameless(connection, &error)?,
            Ok(_) => ended.map_or(Ok(()), |error| Err(self.unwelcome(&error)))?,
        }
        match (role, said) {
            (Role::Master, Value::Array(said))
                if said.first() != Some(&Value::BulkString(b"master".into())) =>
            {
                let at = &connection.endpoint;
                Err(StoreError::Unreachable(format!("Redis at {at} is not the master any more")))
            }
            _ => Ok(()),
        }
    }

    /// A user or a proxy that may not set a name works all the same. Is it that, or does the server say this
    /// to whatever it is asked?
    fn nameless(
        &self,
        connection: &mut Connection,
        refusal: &RedisError,
    ) -> Result<(), StoreError> {
        match refusal.code() {
            Some("NOPERM") => Ok(()),
            Some("ERR") => match cmd("PING").exec(connection) {
                // One that may not ask this, either, is heard.
                Err(error) if error.code().is_none() => Err(self.unwelcome(refusal)),
                _ => Ok(()),
            },
            _ => Err(self.unwelcome(refusal)),
        }
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

    /// The server that was spoken to last, and where the DSN does not name it, who did.
    fn at(&self) -> String {
        match (&self.config.topology, self.last_at()) {
            (Topology::Single(endpoint), _) => endpoint.to_string(),
            (topology, Some(last)) => format!("{last} ({topology})"),
            (topology, None) => topology.to_string(),
        }
    }

    /// An error of the codec as one of the store's, without anything a request or a reply carried.
    pub fn explain(&self, error: &RedisError) -> StoreError {
        let at = self.at();
        if let Some(code) = error.code() {
            // "unknown command" and its kind quote the arguments.
            let detail = error.detail().unwrap_or_default();
            let detail = detail.split(", with args").next().unwrap_or_default();
            let sentence = format!("Redis at {at}: {code} {detail}");
            let sentence = sentence.trim_end_matches('.');
            let (inner_code, inner) = within(code, detail);
            if inner_code == "NOPERM"
                || DENIED_IN_SCRIPT.iter().any(|start| inner.starts_with(start))
            {
                return StoreError::Refused(format!(
                    "{sentence}; ACL LOG there names what the user lacks"
                ));
            }
            return if is_of_one_key(code, detail) {
                StoreError::Foreign(sentence.to_owned())
            } else {
                StoreError::Refused(sentence.to_owned())
            };
        }
        match error.kind() {
            ErrorKind::Io if error.is_timeout() => {
                StoreError::TimedOut(format!("Redis at {at}: no answer in time"))
            }
            ErrorKind::Io => StoreError::Unreachable(if error.is_connection_dropped() {
                format!("Redis at {at}: the connection was closed")
            } else {
                format!("Redis at {at}: {error}")
            }),
            // The codec quotes what it could not read, and that may be a token.
            kind => StoreError::Refused(format!("Redis at {at}: unexpected reply ({kind:?})")),
        }
    }
}

/// Whether the other side hung up while we were still sending.
pub(super) fn dropped(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// Whether the server is well, and what it found under one key is not what a script of ours expects. All else
/// that it says it would say about any other key, too: a command that it does not know or may not run, a
/// password that is missing, no memory, no writes.
fn is_of_one_key(code: &str, detail: &str) -> bool {
    let (inner_code, inner) = within(code, detail);
    // A line of ours found what it cannot compute with; or a command did.
    let fault_of_a_line = detail.starts_with("user_script:") || inner.starts_with("attempt to ");
    let no_number = ["is not an integer", "is not a valid float", "would overflow"];
    let found = fault_of_a_line || no_number.iter().any(|words| inner.contains(words));
    inner_code == "WRONGTYPE" || inner_code == "ERR" && found
}

/// The code of what the server says, also of a command in a script.
pub(super) fn code_of(error: &RedisError) -> Option<&str> {
    error.code().map(|code| within(code, error.detail().unwrap_or_default()).0)
}

/// Up to 6.2 what a command in a script says is wrapped: "ERR Error running script (call to f_…):
/// @user_script:8: -OOM command not allowed …". Its own code and words.
fn within<'a>(code: &'a str, detail: &'a str) -> (&'a str, &'a str) {
    let wrapped = detail.starts_with("Error running script");
    let Some((_, inner)) = detail.rsplit_once("user_script:").filter(|_| wrapped) else {
        return (code, detail);
    };
    let inner = inner.trim_start_matches(|c: char| c.is_ascii_digit() || " :-".contains(c));
    let first = inner.split(' ').next().unwrap_or_default();
    let is_code = first.len() > 2 && first.bytes().all(|byte| byte.is_ascii_uppercase());
    (if is_code { first } else { code }, inner)
}

fn password(login: &Login) -> Result<Option<String>, StoreError> {
    if let Some(path) = &login.password_file {
        let refused =
            |why: String| StoreError::Refused(format!("password file {}: {why}", path.display()));
        let read = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
        let password = secret::one_line(&read).map_err(|why| refused(why.into()))?;
        if password.is_empty() {
            return Err(refused("it is empty, but must hold the password".into()));
        }
        return Ok(Some(password.to_owned()));
    }
    Ok(login.password.as_ref().map(|password| password.reveal().to_owned()))
}

fn unreachable_at(endpoint: &Endpoint, error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::TimedOut if error.get_ref().is_none() => {
            StoreError::TimedOut(format!("Redis at {endpoint}: no answer in time"))
        }
        io::ErrorKind::TimedOut => StoreError::TimedOut(format!("Redis at {endpoint}: {error}")),
        _ => StoreError::Unreachable(format!("Redis at {endpoint}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_found_under_a_key_is_of_that_key() {
        let of_a_key = [
            ("WRONGTYPE", "Operation against a key holding the wrong kind of value"),
            ("ERR", "value is not an integer or out of range script: 2f, on @user_script:12."),
            (
                "ERR",
                "user_script:31: attempt to compare nil with number script: 2f, on @user_script:31.",
            ),
            // 6.2
            (
                "ERR",
                "Error running script (call to f_2f): @user_script:8: WRONGTYPE Operation against a key",
            ),
            (
                "ERR",
                "Error running script (call to f_2f): @user_script:8: user_script:8: attempt to compare",
            ),
        ];
        let of_the_server = [
            ("NOAUTH", "Authentication required."),
            ("ERR", "unknown command 'EVALSHA', with args beginning with: "),
            ("ERR", "Unknown Redis command called from script script: 2f, on @user_script:1."),
            ("ERR", "unknown command 'TIME' script: 2f, on @user_script:1."),
            ("ERR", "max number of clients reached"),
            ("ERR", "Protocol error: unauthenticated multibulk length"),
            ("ERR", "This instance has cluster support disabled"),
            ("LOADING", "Redis is loading the dataset in memory"),
            (
                "OOM",
                "command not allowed when used memory > 'maxmemory'. script: 2f, on @user_script:1.",
            ),
            ("BUSY", "Redis is busy running a script."),
            ("ERR", "This Redis command is not allowed from script script: 2f, on @user_script:3."),
            ("ERR", "wrong number of arguments for 'xadd' command script: 2f, on @user_script:3."),
            // 6.2
            (
                "ERR",
                "Error running script (call to f_2f): @user_script:8: @user_script: 8: -OOM command not",
            ),
            (
                "ERR",
                "Error running script (call to f_2f): @user_script:8: @user_script: 8: -MISCONF Errors writing to the AOF file: No space left on device",
            ),
            (
                "ERR",
                "Error running script (call to f_2f): @user_script:8: @user_script: 8: Unknown Redis command called from Lua script",
            ),
        ];
        for (code, detail) in of_a_key {
            assert!(is_of_one_key(code, detail), "{code} {detail}");
        }
        for (code, detail) in of_the_server {
            assert!(!is_of_one_key(code, detail), "{code} {detail}");
        }
        let demoted =
            "Error running script (call to f_2f): @user_script:8: READONLY this server was demoted";
        assert_eq!(within("ERR", demoted).0, "READONLY");
    }
}
