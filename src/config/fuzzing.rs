#![allow(clippy::panic, clippy::unwrap_used)] // A property fails by a panic, as a test does.
//! What an administrator, a deployment or a container's environment writes: an address of Redis, and all the
//! other settings.

use super::*;
use crate::fuzzing::{SECRET, check_sentence, lines};

/// The settings of these lines, `name=value`; the last of a name counts.
fn parse(given: &[(String, String)]) -> Result<Config, String> {
    let find = |name: &str| {
        let found = given.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    };
    Config::parse(&find, &find)
}

/// An address of Redis in four lines: scheme, user, what comes behind the `@`, and parameters. Its
/// password is [`SECRET`], which stands in no other part.
///
/// - The password is in no error message, and in nothing else that is shown.
/// - An address that is accepted names a server, and leads to the same server when it is parsed as it is shown.
pub fn dsn(bytes: &[u8]) -> bool {
    let parts = lines::<4>(bytes).map(String::from_utf8_lossy);
    if parts.iter().any(|part| part.contains(SECRET)) {
        return false;
    }
    let [scheme, user, rest, query] = parts;
    let parameters = if query.is_empty() { String::new() } else { format!("?{query}") };
    let dsn = format!("{scheme}://{user}:{SECRET}@{rest}{parameters}");
    #[cfg(feature = "redis")]
    let understood = check_understood(&dsn);
    #[cfg(not(feature = "redis"))]
    let understood = true;
    for shown in [dsn::masked(&dsn), dsn::without_password(&dsn), shown(DSN, &dsn)] {
        assert!(!shown.contains(SECRET), "{dsn:?} is shown as {shown:?}");
    }
    match parse(&[(DSN.into(), dsn)]) {
        Err(why) => {
            check_sentence(&why);
            false
        }
        Ok(config) => {
            check_shown(&config);
            understood
        }
    }
}

#[cfg(feature = "redis")]
fn check_understood(dsn: &str) -> bool {
    use crate::redis::{RedisConfig, Topology};

    let config = match RedisConfig::parse(dsn) {
        Err(why) => {
            check_sentence(&why);
            return false;
        }
        Ok(config) => config,
    };
    assert!(!format!("{config:?}").contains(SECRET) || !dsn::is_plain(dsn));
    let endpoints = match &config.topology {
        Topology::Single(endpoint) => std::slice::from_ref(endpoint),
        Topology::Sentinel { sentinels: endpoints, master, .. } => {
            assert!(!master.is_empty());
            endpoints
        }
        Topology::Cluster { seeds: endpoints } => {
            assert_eq!(config.database, 0);
            endpoints
        }
    };
    assert!(!endpoints.is_empty());
    for endpoint in endpoints {
        if let crate::redis::Endpoint::Tcp { host, .. } = endpoint {
            assert!(!host.is_empty());
            let again = RedisConfig::parse(&format!("redis://{endpoint}"));
            assert_eq!(again.map(|it| it.topology), Ok(Topology::Single(endpoint.clone())));
        }
    }
    true
}

/// Settings, one in a line: `sharedstate.prefix=shop`, or a variable of the environment.
///
/// - An error message names its setting. Neither it nor anything else that is shown contains the password or the
///   key in a source's address.
/// - Settings that are accepted are within their ranges, and mean the same when they are parsed again.
/// - A host table of any accepted size can be laid out.
pub fn settings(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let mut given: Vec<(String, String)> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(name, value)| !name.contains(SECRET) && !value.contains(SECRET))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    for (name, value) in &mut given {
        match name.as_str() {
            PASSWORD | "SHAREDSTATE_REDIS_PASSWORD" => value.push_str(SECRET),
            SOURCES if !value.trim().is_empty() => value.push_str(&format!("?app_id={SECRET}")),
            _ => {}
        }
    }
    #[cfg(feature = "http")]
    check_proxies(&given);
    let config = match parse(&given) {
        Err(why) => {
            check_sentence(&why);
            assert!(why.contains("sharedstate."), "{why}");
            return false;
        }
        Ok(config) => config,
    };
    check_shown(&config);
    assert!(config.host_slots >= 64 && config.host_slots.is_multiple_of(64));
    assert!((1024..=MIB as u32).contains(&config.host_value_size));
    assert!(config.lease + Duration::from_secs(1) <= config.wait_timeout);
    assert!(config.token_policy.refresh_ratio > 0.0 && config.token_policy.refresh_ratio < 1.0);
    assert!(config.fx_max_jump > 0.0 && config.fx_max_jump <= 1.0);
    assert!(config.fx_policy.max_stale > config.fx_policy.interval * 2);
    for (at, source) in config.fx_sources.iter().enumerate() {
        assert!(!config.fx_sources[..at].iter().any(|other| other.name() == source.name()));
        assert!(!source.name().contains(SECRET) && !source.host().contains(SECRET));
    }
    #[cfg(feature = "host")]
    {
        let (slots, value) = (config.host_slots as usize, config.host_value_size as usize);
        let sizes = crate::host::Sizes::new(slots, value, config.host_memory);
        assert!(sizes.index_end() < sizes.file_bytes());
    }
    let again: Vec<(String, String)> =
        config.read.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    assert!(parse(&again).is_ok_and(|again| again == config));
    true
}

#[cfg(feature = "http")]
fn check_proxies(given: &[(String, String)]) {
    use crate::http::{Proxies, VARIABLES};

    let env = |name: &str| {
        let found = given.iter().rev().find(|(known, _)| known == name);
        // The password of a proxy is its user's business.
        found.map(|(_, value)| value.replacen("://", &format!("://u:{SECRET}@"), 1))
    };
    if let Err(why) = Proxies::from_env(&env) {
        check_sentence(&why);
        assert!(VARIABLES.iter().any(|name| why.starts_with(name)), "{why}");
    }
}

fn check_shown(config: &Config) {
    assert!(!format!("{config:?}").contains(SECRET));
    assert!(!config.identity_parts().concat().contains(SECRET));
    for setting in SETTINGS {
        assert!(!config.shown(setting.name).contains(SECRET), "{}", setting.name);
    }
}
