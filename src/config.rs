//! Every setting in one table, and the checked form of them. Knows no PHP: the binding registers
//! [`SETTINGS`], asks [`Config::parse`] once per process, and shows what [`shown`] returns.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use crate::entry::{SheetPolicy, TokenPolicy};
use crate::error::redact;
use crate::flight::StoreDown;
use crate::fx::Source;
use crate::journal::Sink;

mod dsn;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod read;
pub mod secrets;
#[cfg(test)]
mod tests;

use read::{MIB, Read};

/// One INI setting, as registered and as shown.
#[derive(Debug)]
pub struct Setting {
    pub name: &'static str,
    pub default: &'static str,
    /// One line, with the unit.
    pub help: &'static str,
    /// Never shown in full: see [`shown`].
    pub secret: bool,
}

const fn setting(name: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { name, default, help, secret: false }
}

const fn secret(name: &'static str, help: &'static str) -> Setting {
    Setting { name, default: "", help, secret: true }
}

const DSN: &str = "sharedstate.redis.dsn";
const PASSWORD: &str = "sharedstate.redis.password";
pub const KEY_FILE: &str = "sharedstate.encryption_key_file";
const SOURCES: &str = "sharedstate.fx.sources";
const APP_ID: &str = "sharedstate.fx.openexchangerates.app_id_file";
const QUOTA: &str = "sharedstate.fx.monthly_quota";
const TLS_CA: &str = "sharedstate.redis.tls_ca";
const TLS_SERVER_NAME: &str = "sharedstate.redis.tls_server_name";
const TLS_CERT: &str = "sharedstate.redis.tls_cert";
const TLS_KEY: &str = "sharedstate.redis.tls_key";

/// Read when the setting of the same meaning is empty: pool workers lose the environment under
/// `clear_env`, so the binding reads these while the master starts.
const ENVIRONMENT: [(&str, &str); 2] =
    [(DSN, "SHAREDSTATE_REDIS_DSN"), (PASSWORD, "SHAREDSTATE_REDIS_PASSWORD")];

#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    setting("sharedstate.prefix", "sharedstate", "what separates applications: at most 64 bytes, without spaces and braces"),
    secret(DSN, "address of Redis or Valkey; empty: this host only; or SHAREDSTATE_REDIS_DSN in the environment"),
    setting("sharedstate.redis.connect_timeout_ms", "250", "milliseconds to connect, name resolution and TLS included"),
    setting("sharedstate.redis.response_timeout_ms", "250", "milliseconds for one operation to be answered in full"),
    setting("sharedstate.redis.username", "", "ACL user; empty: the one in the address, or the default user"),
    secret(PASSWORD, "password; or SHAREDSTATE_REDIS_PASSWORD in the environment"),
    setting("sharedstate.redis.password_file", "", "absolute path of a file with the password, read again at every connect"),
    setting(TLS_CA, "", "absolute path of a PEM file with the authorities that sign Redis' certificate, for rediss://; empty: those the system trusts"),
    setting(TLS_SERVER_NAME, "", "name that Redis' certificate is for, where that is not the host of the address: behind a tunnel, or reached by its address"),
    setting(TLS_CERT, "", "absolute path of a PEM file with the certificate of this client and its chain; needs tls_key"),
    setting(TLS_KEY, "", "absolute path of a PEM file with the private key of tls_cert, not encrypted"),
    setting("sharedstate.redis.pool_max", "8", "most connections of one process"),
    setting("sharedstate.redis.pool_idle_s", "1", "seconds after which an idle connection is closed"),
    setting("sharedstate.host.dir", "", "absolute path of the folder for the host table; empty: /dev/shm"),
    setting("sharedstate.host.memory", "32M", "bytes of the host table (K, M, G); at least 1M"),
    setting("sharedstate.host.slots", "16384", "most keys held on a host; rounded up to a multiple of 64"),
    setting("sharedstate.host.value_size", "16K", "largest value held on a host, in bytes (K, M); 1K to 1M"),
    setting("sharedstate.max_staleness_ms", "1000", "milliseconds after which an unconfirmed entry is asked about again"),
    setting("sharedstate.store_down", "host", "without Redis: host (mint once per host) or fail (do not mint)"),
    setting(KEY_FILE, "", "absolute path of a file with the keys that seal values, 64 hexadecimal digits per line, the current one first; empty: values are kept in the clear"),
    setting("sharedstate.token.expiry_margin_s", "60", "seconds before its expiry from which a token is not handed out; at most a fifth of its lifetime is used"),
    setting("sharedstate.token.refresh_ratio", "0.8", "share of its usable life after which a token is renewed; above 0, below 1"),
    setting("sharedstate.token.lease_ms", "4000", "milliseconds for which one worker may mint before it has to renew its right; other hosts wait this long for a dead one"),
    setting("sharedstate.token.wait_timeout_ms", "6000", "milliseconds for which a caller waits for another's mint; at least lease_ms + 1000"),
    setting("sharedstate.token.max_mint_ms", "30000", "milliseconds after which a mint is given up on, however often it was renewed"),
    setting("sharedstate.token.failure_backoff_ms", "1000", "milliseconds of the first pause after a failed mint; doubles up to a minute"),
    secret(SOURCES, "where rates come from, in turn, separated by commas: ecb, openexchangerates, json:<address>; empty: the callable of the call"),
    setting("sharedstate.fx.refresh_interval_s", "3600", "seconds after which a rate sheet is due for renewal"),
    setting("sharedstate.fx.max_stale_s", "259200", "seconds since a source last confirmed a sheet after which it is not served; more than twice refresh_interval_s"),
    setting("sharedstate.fx.max_age_s", "604800", "seconds since a sheet's own date (as-of) after which it is not served, whatever a source says"),
    setting("sharedstate.fx.max_jump_pct", "20", "percent; a sheet in which a currency moved further, or far more than it usually does, is held back until it is confirmed"),
    setting(QUOTA, "", "most calls a calendar month to each source but ecb, by the whole fleet; empty: no limit"),
    setting(APP_ID, "", "absolute path of a file with the app id of openexchangerates.org, read again at every call"),
    setting("sharedstate.fx.state_dir", "", "absolute path of a folder that keeps the last sheet for a start with everything else down; empty: none"),
    setting("sharedstate.log", "", "absolute path of the log file, stderr or syslog; empty: PHP's error log"),
    setting("sharedstate.log_level", "warning", "off, error, warning, info or debug"),
];

/// Settings in effect, checked. Two are equal when every setting is.
#[derive(Clone, PartialEq)]
pub struct Config {
    pub prefix: String,
    /// `None`: this host only. Taken apart by the Redis store.
    pub redis_dsn: Option<String>,
    pub redis_connect_timeout: Duration,
    pub redis_response_timeout: Duration,
    pub redis_username: Option<String>,
    pub redis_password: Option<String>,
    pub redis_password_file: Option<PathBuf>,
    /// `None`: the authorities that the system trusts.
    pub redis_tls_ca: Option<PathBuf>,
    /// `None`: the host of the address.
    pub redis_tls_server_name: Option<String>,
    /// Certificate and key.
    pub redis_tls_identity: Option<(PathBuf, PathBuf)>,
    pub redis_pool_max: usize,
    pub redis_pool_idle: Duration,
    pub host_dir: PathBuf,
    pub host_memory: u64,
    /// A multiple of 64.
    pub host_slots: u32,
    pub host_value_size: u32,
    pub max_staleness: Duration,
    pub store_down: StoreDown,
    /// `None`: values are kept in the clear.
    pub encryption_key_file: Option<PathBuf>,
    pub token_policy: TokenPolicy,
    pub lease: Duration,
    pub wait_timeout: Duration,
    pub max_mint: Duration,
    pub failure_backoff: Duration,
    pub fx_sources: Vec<Source>,
    pub fx_policy: SheetPolicy,
    pub fx_max_age: Duration,
    /// As a fraction.
    pub fx_max_jump: f64,
    /// `None`: no limit.
    pub fx_monthly_quota: Option<u32>,
    pub fx_state_dir: Option<PathBuf>,
    pub log: Sink,
    pub log_level: LevelFilter,
    /// What was read, by setting, for [`Config::shown`].
    read: BTreeMap<&'static str, String>,
}

impl Config {
    /// `ini` answers by the setting's full name, `env` by the variable's; `None` means not set.
    /// The error is one sentence with the setting, what it was and what it may be.
    pub fn parse(
        ini: &dyn Fn(&str) -> Option<String>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let read = Read::all(ini, env);
        let config = Self {
            prefix: read.prefix()?,
            redis_dsn: read.dsn()?,
            redis_connect_timeout: read
                .millis("sharedstate.redis.connect_timeout_ms", 1..=60_000)?,
            redis_response_timeout: read
                .millis("sharedstate.redis.response_timeout_ms", 1..=60_000)?,
            redis_username: read.filled("sharedstate.redis.username"),
            redis_password: read.password()?,
            redis_password_file: read.path("sharedstate.redis.password_file")?,
            redis_tls_ca: read.path(TLS_CA)?,
            redis_tls_server_name: read.server_name(TLS_SERVER_NAME)?,
            redis_tls_identity: read.both_paths(TLS_CERT, TLS_KEY)?,
            redis_pool_max: read.whole("sharedstate.redis.pool_max", 1..=1024)?,
            redis_pool_idle: read.seconds("sharedstate.redis.pool_idle_s", 1..=86_400)?,
            host_dir: read
                .path("sharedstate.host.dir")?
                .unwrap_or_else(|| PathBuf::from("/dev/shm")),
            host_memory: read.bytes("sharedstate.host.memory", MIB..=1024 * 1024 * MIB)?,
            host_slots: read
                .whole::<u32>("sharedstate.host.slots", 1..=1 << 24)?
                .next_multiple_of(64),
            host_value_size: read.bytes("sharedstate.host.value_size", 1024..=MIB)?,
            max_staleness: read.millis("sharedstate.max_staleness_ms", 10..=600_000)?,
            store_down: read.one_of(
                "sharedstate.store_down",
                &[("host", StoreDown::Host), ("fail", StoreDown::Fail)],
            )?,
            encryption_key_file: read.path(KEY_FILE)?,
            token_policy: TokenPolicy {
                margin: read.seconds("sharedstate.token.expiry_margin_s", 0..=86_400)?,
                refresh_ratio: read.ratio("sharedstate.token.refresh_ratio")?,
            },
            lease: read.millis("sharedstate.token.lease_ms", 100..=600_000)?,
            wait_timeout: read.millis("sharedstate.token.wait_timeout_ms", 100..=3_600_000)?,
            max_mint: read.millis("sharedstate.token.max_mint_ms", 100..=3_600_000)?,
            failure_backoff: read.millis("sharedstate.token.failure_backoff_ms", 1..=60_000)?,
            fx_sources: read.sources()?,
            fx_policy: SheetPolicy {
                interval: read.seconds("sharedstate.fx.refresh_interval_s", 1..=31 * 86_400)?,
                max_stale: read.seconds("sharedstate.fx.max_stale_s", 1..=3650 * 86_400)?,
            },
            fx_max_age: read.seconds("sharedstate.fx.max_age_s", 1..=3650 * 86_400)?,
            fx_max_jump: read.percent("sharedstate.fx.max_jump_pct")?,
            fx_monthly_quota: match read.filled(QUOTA) {
                Some(_) => Some(read.whole(QUOTA, 1..=100_000_000)?),
                None => None,
            },
            fx_state_dir: read.path("sharedstate.fx.state_dir")?,
            log: read.sink("sharedstate.log")?,
            log_level: read.one_of(
                "sharedstate.log_level",
                &[
                    ("off", LevelFilter::Off),
                    ("error", LevelFilter::Error),
                    ("warning", LevelFilter::Warn),
                    ("info", LevelFilter::Info),
                    ("debug", LevelFilter::Debug),
                ],
            )?,
            read: read.0,
        };
        config.check_together()?;
        Ok(config)
    }

    /// The effective value of a setting, masked, with the environment's share in it.
    pub fn shown(&self, name: &str) -> String {
        self.read.get(name).map_or_else(String::new, |value| shown(name, value))
    }

    /// What makes two applications under one user id share a host table: prefix, address, user.
    /// Holds no password, so a rotated one keeps the table, and all of it may be shown.
    pub fn identity_parts(&self) -> Vec<String> {
        let dsn = self.redis_dsn.as_deref().map(dsn::without_password).unwrap_or_default();
        vec![self.prefix.clone(), dsn, self.redis_username.clone().unwrap_or_default()]
    }

    fn check_together(&self) -> Result<(), String> {
        if self.lease + Duration::from_secs(1) > self.wait_timeout {
            return Err(format!(
                "sharedstate.token.wait_timeout_ms is {}, but must be at least \
                 sharedstate.token.lease_ms + 1000 = {}: a caller has to outwait a minter who died",
                self.wait_timeout.as_millis(),
                self.lease.as_millis() + 1000
            ));
        }
        self.check_fx()?;
        if self.redis_password.is_some() && self.redis_password_file.is_some() {
            return Err("sharedstate.redis.password and sharedstate.redis.password_file are both \
                        set: keep one"
                .into());
        }
        let encrypted = self.redis_dsn.as_deref().is_some_and(dsn::asks_for_tls);
        let unused = [TLS_CA, TLS_SERVER_NAME, TLS_CERT]
            .into_iter()
            .find(|name| !self.shown(name).is_empty());
        if let Some(name) = unused.filter(|_| !encrypted) {
            return Err(format!(
                "{name} is set, but {DSN} does not ask for TLS: begin it with rediss, as in \
                 rediss://host:port, or remove the setting"
            ));
        }
        Ok(())
    }
}

impl Config {
    /// What would bring the four-minute stampede back, or end the rates by itself.
    fn check_fx(&self) -> Result<(), String> {
        let SheetPolicy { interval, max_stale } = self.fx_policy;
        if max_stale <= interval * 2 {
            return Err(format!(
                "sharedstate.fx.max_stale_s is {}, but must be more than twice \
                 sharedstate.fx.refresh_interval_s = {}: one missed refresh must not end the rates",
                max_stale.as_secs(),
                (interval * 2).as_secs()
            ));
        }
        if self.fx_max_age <= interval * 2 {
            return Err(format!(
                "sharedstate.fx.max_age_s is {}, but must be more than twice \
                 sharedstate.fx.refresh_interval_s = {}: every sheet would end before it is renewed",
                self.fx_max_age.as_secs(),
                (interval * 2).as_secs()
            ));
        }
        let counted = self.fx_sources.iter().any(Source::has_quota);
        if let Some(quota) = self.fx_monthly_quota.filter(|_| counted) {
            // Of the longest month, and one more for a start in the middle of an interval.
            let calls = 31 * 86_400 / interval.as_secs() + 1;
            if u64::from(quota) < calls {
                return Err(format!(
                    "{QUOTA} is {quota}, but sharedstate.fx.refresh_interval_s = {} takes {calls} \
                     calls in a month of 31 days: the rates would end before the month does; an \
                     interval of {} s fits",
                    interval.as_secs(),
                    (31 * 86_400_u64).div_ceil(u64::from(quota.saturating_sub(1).max(1)))
                ));
            }
        }
        Ok(())
    }
}

/// Shows every setting as phpinfo does; a `{:?}` in a log line must not leak the password.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.read.keys().map(|name| (name, self.shown(name)))).finish()
    }
}

/// How `value` of the setting `name` may be shown to anyone. Works on values that were refused.
pub fn shown(name: &str, value: &str) -> String {
    let secret = find(name).is_none_or(|setting| setting.secret);
    match name {
        _ if !secret || value.is_empty() => value.into(),
        DSN => dsn::masked(value),
        // An address may have a key in its path or query.
        SOURCES => redact(value),
        _ => dsn::MASK.into(),
    }
}

fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}
