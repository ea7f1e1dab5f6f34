//! Where Redis is and how long it may take: a DSN and the settings beside it.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::secret;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Tcp { host: String, port: u16 },
    Unix { path: PathBuf },
}

impl Endpoint {
    /// A name may lead anywhere, except for the one that never does.
    fn is_remote(&self) -> bool {
        match self {
            Self::Unix { .. } => false,
            Self::Tcp { host, .. } => {
                let address = host.parse::<IpAddr>();
                host != "localhost" && !address.is_ok_and(|address| address.is_loopback())
            }
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { path } => write!(f, "{}", path.display()),
        }
    }
}

/// Which server is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    Single(Endpoint),
    /// The one that a sentinel calls the master of this name; sentinels have a login of their own.
    Sentinel {
        sentinels: Vec<Endpoint>,
        master: String,
        login: Login,
    },
    /// The node that holds the slot of the prefix; any seed knows which.
    Cluster {
        seeds: Vec<Endpoint>,
    },
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Single(endpoint) => endpoint.fmt(f),
            Self::Sentinel { sentinels, master, .. } => {
                write!(f, "{master} of {}", list(sentinels))
            }
            Self::Cluster { seeds } => write!(f, "cluster {}", list(seeds)),
        }
    }
}

fn list(endpoints: &[Endpoint]) -> String {
    endpoints.iter().map(Endpoint::to_string).collect::<Vec<_>>().join(",")
}

/// How a server proves who it is, and we to it: PEM files, read again at every connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// `None`: the authorities that the system trusts.
    pub ca: Option<PathBuf>,
    /// Whom the server's certificate is for, where that is not the host by which it is reached.
    pub server_name: Option<String>,
    /// Certificate chain and key of this client.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Shown as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What all keys begin with, so that applications can share a Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    pub fn new(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("the prefix must not be empty".into());
        }
        if text.contains(['{', '}']) {
            // The keys of a prefix share one hash tag; a brace of its own would end it early.
            return Err(
                "the prefix must not contain braces: they mark the hash tag of a key".into()
            );
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// As whom a server is spoken to; without a password there is no login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    pub username: Option<String>,
    pub password: Option<Password>,
    /// Read at every connect, so that a rotated password is taken up; goes before `password`.
    pub password_file: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisConfig {
    pub topology: Topology,
    /// `None`: in the clear.
    pub tls: Option<Tls>,
    pub database: u32,
    pub login: Login,
    pub prefix: Prefix,
    /// For name resolution, connecting and authentication together.
    pub connect_timeout: Duration,
    /// For one request and its reply.
    pub response_timeout: Duration,
    /// Connections of one process, in use or idle.
    pub pool_max: usize,
    pub pool_idle: Duration,
}

const EXPECTED: &str = "expected redis://host:port/db, rediss:// for TLS, redis+unix:///path?db=N, \
    redis+sentinel://host1,host2/master/db or redis+cluster://host1,host2";

const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

impl RedisConfig {
    /// - `redis://[user[:password]@]host[:port][/db]`
    /// - `redis+sentinel://[user[:password]@]host[:port][,host[:port]…]/master[/db]`, where the
    ///   sentinels want one, too: `?sentinel_username=…&sentinel_password=…`
    /// - `redis+cluster://[user[:password]@]host[:port][,host[:port]…]`
    /// - each of these with TLS: `rediss://`, `rediss+sentinel://`, `rediss+cluster://`
    /// - `redis+unix://[user[:password]@]/path[?db=N]`, or `unix://`
    ///
    /// Credentials, path and master are percent-decoded, the rest has defaults. An error never
    /// repeats the DSN, which may hold a password.
    pub fn parse(dsn: &str) -> Result<Self, String> {
        let (scheme, rest) =
            dsn.split_once("://").ok_or_else(|| format!("no scheme: {EXPECTED}"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (credentials, address) = authority.rsplit_once('@').unwrap_or(("", authority));
        let tls = scheme.starts_with("rediss").then(Tls::default);
        let (mut topology, number) = match scheme {
            "redis" | "rediss" => {
                (Topology::Single(tcp(address, REDIS_PORT)?), path.trim_start_matches('/'))
            }
            "redis+unix" | "unix" => (Topology::Single(unix(address, path)?), ""),
            "redis+sentinel" | "rediss+sentinel" => {
                let (master, number) = named_master(path)?;
                let (sentinels, login) = (all(address, SENTINEL_PORT)?, Login::default());
                (Topology::Sentinel { sentinels, master, login }, number)
            }
            "redis+cluster" | "rediss+cluster" => {
                (Topology::Cluster { seeds: all(address, REDIS_PORT)? }, path.trim_matches('/'))
            }
            _ => return Err(format!("unknown scheme: {EXPECTED}")),
        };
        let mut number = number;
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match (name, &mut topology) {
                ("db", _) => number = value,
                ("sentinel_username", Topology::Sentinel { login, .. }) => {
                    login.username = Some(decoded(value)?);
                }
                ("sentinel_password", Topology::Sentinel { login, .. }) => {
                    login.password = Some(Password(password(value)?));
                }
                _ => return Err(format!("unknown parameter after '?': {EXPECTED}")),
            }
        }
        let database = database(number)?;
        if database != 0 && matches!(topology, Topology::Cluster { .. }) {
            return Err(format!("a Cluster has no database but 0: {EXPECTED}"));
        }
        let (username, password) = match credentials.split_once(':') {
            Some((user, password)) => (user, Some(Password(self::password(password)?))),
            None => (credentials, None),
        };
        Ok(Self {
            topology,
            tls,
            database,
            login: Login {
                username: Some(decoded(username)?).filter(|user| !user.is_empty()),
                password,
                password_file: None,
            },
            prefix: Prefix("sharedstate".into()),
            connect_timeout: Duration::from_millis(250),
            response_timeout: Duration::from_millis(250),
            pool_max: 8,
            pool_idle: Duration::from_secs(1),
        })
    }

    /// Whether what is sent can be read on a network.
    pub fn exposed(&self) -> bool {
        let servers = match &self.topology {
            Topology::Single(endpoint) => std::slice::from_ref(endpoint),
            Topology::Sentinel { sentinels: servers, .. }
            | Topology::Cluster { seeds: servers } => servers,
        };
        self.tls.is_none() && servers.iter().any(Endpoint::is_remote)
    }
}

fn all(addresses: &str, port: u16) -> Result<Vec<Endpoint>, String> {
    addresses.split(',').map(|address| tcp(address, port)).collect()
}

/// The name, and the database behind it.
fn named_master(path: &str) -> Result<(String, &str), String> {
    let path = path.trim_start_matches('/');
    let (name, number) = path.split_once('/').unwrap_or((path, ""));
    match name {
        "" => Err(format!("no name of a master: {EXPECTED}")),
        _ => Ok((decoded(name)?, number)),
    }
}

fn tcp(address: &str, default_port: u16) -> Result<Endpoint, String> {
    let (host, port) = match address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    if host.is_empty() {
        return Err(format!("no host: {EXPECTED}"));
    }
    let port = match port {
        Some(port) => port.parse().map_err(|_| format!("the port is not a number: {EXPECTED}"))?,
        None => default_port,
    };
    Ok(Endpoint::Tcp { host: host.into(), port })
}

fn unix(address: &str, path: &str) -> Result<Endpoint, String> {
    if !address.is_empty() || path.len() < 2 {
        return Err(format!("a unix socket needs an absolute path: {EXPECTED}"));
    }
    Ok(Endpoint::Unix { path: decoded(path)?.into() })
}

fn database(number: &str) -> Result<u32, String> {
    match number {
        "" => Ok(0),
        _ => number.parse().map_err(|_| format!("the database is not a number: {EXPECTED}")),
    }
}

fn password(text: &str) -> Result<String, String> {
    let decoded = decoded(text)?;
    secret::one_line(&decoded)
        .map(Into::into)
        .map_err(|why| format!("the password in it is no password: {why}"))
}

fn decoded(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| format!("percent-encoding is not UTF-8: {EXPECTED}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Endpoint {
        Endpoint::Tcp { host: host.into(), port }
    }

    fn single(host: &str, port: u16) -> Topology {
        Topology::Single(tcp(host, port))
    }

    #[test]
    fn a_dsn_says_where_and_as_whom() {
        let parse = |dsn| RedisConfig::parse(dsn).unwrap();
        assert_eq!(parse("redis://cache").topology, single("cache", 6379));
        assert_eq!(parse("redis://[::1]:7000/").topology, single("::1", 7000));
        let full = parse("redis://a%40b:p%3Aw%2F@10.0.0.1:7000/3");
        assert_eq!(full.topology, single("10.0.0.1", 7000));
        assert_eq!(full.database, 3);
        assert_eq!(full.login.username.as_deref(), Some("a@b"));
        assert_eq!(full.login.password, Some(Password::new("p:w/")));
        assert_eq!(parse("redis://:pw@cache").login.username, None);
        assert_eq!(parse("redis://cache?db=4").database, 4);
        for dsn in ["redis+unix:///run/redis.sock?db=2", "unix://:pw@/run/redis.sock?db=2"] {
            let unix = parse(dsn);
            let path = "/run/redis.sock".into();
            assert_eq!(unix.topology, Topology::Single(Endpoint::Unix { path }));
            assert_eq!(unix.database, 2);
        }
    }

    #[test]
    fn a_password_in_a_dsn_has_no_line_end() {
        let parse = |dsn| RedisConfig::parse(dsn);
        let password = |dsn| parse(dsn).unwrap().login.password;
        assert_eq!(password("redis://:pw%0A@cache"), Some(Password::new("pw")));
        assert_eq!(password("redis://:%EF%BB%BFpw%0D%0A@cache"), Some(Password::new("pw")));
        let two = parse("redis://:hunter2%0Ahunter3@cache").unwrap_err();
        assert!(two.contains("more than one line") && !two.contains("hunter"), "{two}");
    }

    #[test]
    fn a_dsn_names_sentinels_and_seeds() {
        let sentinel = RedisConfig::parse("redis+sentinel://u:p@a,b:7,[::1]/my%20shop/3").unwrap();
        let sentinels = vec![tcp("a", 26379), tcp("b", 7), tcp("::1", 26379)];
        let master = "my shop".into();
        let login = Login::default();
        assert_eq!(sentinel.topology, Topology::Sentinel { sentinels, master, login });
        let theirs = "redis+sentinel://a/m?sentinel_username=u%40&sentinel_password=p%26&db=2";
        let theirs = RedisConfig::parse(theirs).unwrap();
        let Topology::Sentinel { login, .. } = theirs.topology else { panic!() };
        assert_eq!(
            (login.username.as_deref(), login.password),
            (Some("u@"), Some(Password::new("p&")))
        );
        assert_eq!(theirs.database, 2);
        assert_eq!((sentinel.database, sentinel.login.username.as_deref()), (3, Some("u")));
        let cluster = RedisConfig::parse("redis+cluster://a,b:7").unwrap();
        let seeds = vec![tcp("a", 6379), tcp("b", 7)];
        assert_eq!(cluster.topology, Topology::Cluster { seeds });
    }

    #[test]
    fn a_second_s_asks_for_tls() {
        for (scheme, tls) in [("redis", false), ("rediss", true)] {
            for rest in ["://h", "+sentinel://h/m", "+cluster://h"] {
                let config = RedisConfig::parse(&format!("{scheme}{rest}")).unwrap();
                assert_eq!(config.tls.is_some(), tls, "{scheme}{rest}");
            }
        }
    }

    #[test]
    fn a_wrong_dsn_is_refused_without_repeating_its_password() {
        for dsn in [
            "s3cret",
            "redis://:s3cret@",
            "redis://:s3cret@host:port",
            "redis://:s3cret@host/one",
            "redis://:s3cret@host?timeout=1",
            "redis://:s3cret%ff@host",
            "redis+unix://:s3cret@relative",
            "http://:s3cret@host",
            "rediss+unix://:s3cret@/path",
            "redis+sentinel://:s3cret@host",
            "redis+sentinel://:s3cret@host,/master",
            "redis+cluster://:s3cret@host/1",
            "redis://:s3cret@host?sentinel_password=s3cret",
        ] {
            let error = RedisConfig::parse(dsn).unwrap_err();
            assert!(!error.contains("s3cret") && error.contains("expected"), "{dsn}: {error}");
        }
    }

    #[test]
    fn what_leaves_this_host_without_tls_is_exposed() {
        for (dsn, exposed) in [
            ("redis://127.0.0.2", false),
            ("redis://[::1]:7000", false),
            ("redis://localhost", false),
            ("unix:///run/redis.sock", false),
            ("redis://10.0.0.1", true),
            ("redis://redis.internal", true),
            ("rediss://redis.internal", false),
            ("redis+sentinel://127.0.0.1,sentinel-2/master", true),
            ("redis+cluster://10.0.0.1,10.0.0.2", true),
            ("rediss+cluster://10.0.0.1,10.0.0.2", false),
        ] {
            assert_eq!(RedisConfig::parse(dsn).unwrap().exposed(), exposed, "{dsn}");
        }
    }

    #[test]
    fn debug_masks_the_password() {
        let config = RedisConfig::parse("redis://u:s3cret@host").unwrap();
        assert!(!format!("{config:?}").contains("s3cret"));
    }

    #[test]
    fn a_prefix_with_a_brace_is_refused_in_words() {
        assert!(Prefix::new("a{b").unwrap_err().contains("braces"));
        assert!(Prefix::new("").is_err());
        assert_eq!(Prefix::new("shop").unwrap().to_string(), "shop");
    }
}
