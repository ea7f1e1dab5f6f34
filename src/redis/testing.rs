//! A real redis-server for tests: in a folder of its own, killed when the test ends or panics.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use redis::{Cmd, FromRedisValue};
use tempfile::TempDir;

use super::RedisStore;
use super::config::{Login, Password, RedisConfig, Tls};
use super::connection::{Connection, Connector};
use crate::clock::system;
use crate::process::SignalsHeld;

pub use crate::trust::authority::{Authority, Identity};

/// No test fails because the machine is busy; those about timeouts set their own.
const PATIENT: Duration = Duration::from_secs(10);

pub struct Server {
    child: Child,
    folder: TempDir,
    pub port: u16,
    password: Option<String>,
}

impl Server {
    pub fn start() -> Self {
        Self::start_with(&[], None)
    }

    /// With `password` for the default user; `options` as on the command line.
    pub fn start_with(options: &[&str], password: Option<&str>) -> Self {
        Self::listening(password, |port| {
            let port = format!("--port {port}");
            port.split_whitespace().chain(options.iter().copied()).map(str::to_owned).collect()
        })
    }

    /// With TLS on its port, as `identity`; asks clients for a certificate of the authority.
    pub fn start_tls(authority: &Authority, identity: &Identity) -> Self {
        Self::start_tls_with(authority, identity, "")
    }

    pub fn start_tls_with(authority: &Authority, identity: &Identity, options: &str) -> Self {
        let ca = authority.certificate();
        Self::listening(None, |port| {
            let arguments = format!(
                "--port 0 --tls-port {port} --tls-auth-clients yes --tls-ca-cert-file {} \
                 --tls-cert-file {} --tls-key-file {} {options}",
                ca.display(),
                identity.0.display(),
                identity.1.display()
            );
            arguments.split_whitespace().map(str::to_owned).collect()
        })
    }

    /// On a port of which `options` make arguments; on another one where somebody took it meanwhile.
    fn listening(password: Option<&str>, options: impl Fn(u16) -> Vec<String>) -> Self {
        let tried = (0..5).find_map(|_| {
            let port = free_port();
            Self::listening_on(port, &options(port), password)
        });
        tried.unwrap_or_else(|| panic!("redis-server ends at once, or does not answer"))
    }

    fn listening_on(port: u16, options: &[String], password: Option<&str>) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut command =
            Command::new(std::env::var("REDIS_SERVER").unwrap_or("redis-server".into()));
        command
            .current_dir(&folder)
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--enable-debug-command", "yes"])
            .args(["--unixsocket", "redis.sock"])
            .args(options)
            .stdout(Stdio::null());
        if let Some(password) = password {
            command.args(["--requirepass", password]);
        }
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("redis-server does not start ({error}): apt-get install redis-server")
        });
        let mut server = Self { child, folder, port, password: password.map(str::to_owned) };
        let give_up = system::monotonic().plus(PATIENT * 2);
        while system::monotonic() < give_up && !matches!(server.child.try_wait(), Ok(Some(_))) {
            if server.store().ping().is_ok() {
                return Some(server);
            }
            thread::sleep(Duration::from_millis(10));
        }
        None
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    pub fn config(&self) -> RedisConfig {
        let dsn = format!("redis+unix://{}", self.socket().display());
        let config = RedisConfig::parse(&dsn).unwrap();
        let password = self.password.clone().map(Password::new);
        RedisConfig { login: Login { password, ..Login::default() }, ..patient(config) }
    }

    pub fn tcp(&self, credentials: &str, rest: &str) -> RedisConfig {
        let dsn = format!("redis://{credentials}127.0.0.1:{}{rest}", self.port);
        patient(RedisConfig::parse(&dsn).unwrap())
    }

    pub fn store(&self) -> RedisStore {
        RedisStore::new(self.config())
    }

    /// For a server with TLS, reached as `host`.
    pub fn tls(&self, host: &str, authority: &Authority, client: &Identity) -> RedisConfig {
        let dsn = format!("rediss://{host}:{}", self.port);
        let tls = Tls {
            ca: Some(authority.certificate()),
            identity: Some(client.clone()),
            ..Tls::default()
        };
        patient(RedisConfig { tls: Some(tls), ..RedisConfig::parse(&dsn).unwrap() })
    }

    /// A connection beside the store under test, as an administrator has it.
    pub fn admin(&self) -> Admin {
        let deadline = system::monotonic().plus(Duration::from_secs(600));
        Admin(Connector::new(self.config()).open(deadline).unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Free a moment ago; the server listens on it only for the tests that need TCP.
fn free_port() -> u16 {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().port()
}

pub fn patient(config: RedisConfig) -> RedisConfig {
    RedisConfig { connect_timeout: PATIENT, response_timeout: PATIENT, ..config }
}

pub struct Admin(Connection);

impl Admin {
    /// `command` as typed into redis-cli, without quoting.
    pub fn ask<T: FromRedisValue>(&mut self, command: &str) -> T {
        let _held = SignalsHeld::hold();
        let mut request = Cmd::new();
        command.split_whitespace().for_each(|word| {
            request.arg(word);
        });
        request.query(&mut self.0).unwrap()
    }

    pub fn tell(&mut self, command: &str) {
        let _: redis::Value = self.ask(command);
    }
}
