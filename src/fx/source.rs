//! Where sheets come from without a callable: the list in `sharedstate.fx.sources`, understood, and
//! the role of whoever asks one of them. Knows no HTTP, and reads no file.
//!
//! A source's name is a metric label and stands in every sheet, so it is stable and never holds a
//! path, a query or a secret. Its address may hold a key in its path or query, and is not shown.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Sheet;
use crate::error::redact;

const SETTING: &str = "sharedstate.fx.sources";
const APP_ID_SETTING: &str = "sharedstate.fx.openexchangerates.app_id_file";
const KNOWN: &str = "ecb, openexchangerates or json:<address>, separated by commas";

/// The euro reference rates of the day. Free, no key, once per working day.
const ECB: &str = "https://www.ecb.europa.eu/stats/eurofxref/eurofxref-daily.xml";
const OPEN_EXCHANGE_RATES: &str = "https://openexchangerates.org/api/latest.json";

/// What a source's answers look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    /// The ECB's XML.
    Ecb,
    /// JSON, for those with an app id.
    OpenExchangeRates,
    /// JSON in the shape of Open Exchange Rates.
    Json,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Source {
    feed: Feed,
    name: String,
    address: String,
    host: String,
    app_id_file: Option<PathBuf>,
}

impl Source {
    pub fn feed(&self) -> Feed {
        self.feed
    }

    /// Whether a quota counts its calls: the ECB's are free.
    pub fn has_quota(&self) -> bool {
        self.feed != Feed::Ecb
    }

    /// `ecb`, `openexchangerates` or `json:<host>`, with its port where the address has one.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// With `http` or `https`, and without user info. May hold a key: not to be shown.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Who is asked, with the port where the address has one; to be shown.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Where the app id is, for Open Exchange Rates alone. To be read at each fetch, so that a
    /// rotated one is taken up.
    pub fn app_id_file(&self) -> Option<&Path> {
        self.app_id_file.as_deref()
    }

    /// The sheet in a source's answer. The error is an `InvalidValue` sentence.
    pub fn read(&self, answer: &[u8]) -> Result<Sheet, String> {
        match self.feed {
            Feed::Ecb => Sheet::from_ecb_xml(answer, &self.name),
            Feed::OpenExchangeRates | Feed::Json => Sheet::from_json(answer, &self.name),
        }
    }

    /// A word of the list: `ecb`, `ecb:<address>` for a mirror of it, and likewise the others.
    fn parse(word: &str, app_id_file: Option<&Path>) -> Result<Self, String> {
        let (kind, given) = match word.split_once(':') {
            Some((kind, address)) => (kind, Some(address)),
            None => (word, None),
        };
        let (feed, address) = match (kind, given) {
            ("ecb", given) => (Feed::Ecb, given.unwrap_or(ECB)),
            ("openexchangerates", given) => {
                (Feed::OpenExchangeRates, given.unwrap_or(OPEN_EXCHANGE_RATES))
            }
            ("json", Some(given)) => (Feed::Json, given),
            _ => {
                return Err(format!(
                    "{SETTING} has {}, expected {KNOWN}; a comma in an address is written %2C",
                    shown(word)
                ));
            }
        };
        let host = host(address).ok_or_else(|| {
            format!(
                "{SETTING} has {kind} with an address that cannot be used, expected \
                 http:// or https:// with a host, without user info, fragment and spaces"
            )
        })?;
        if feed == Feed::OpenExchangeRates && app_id_file.is_none() {
            return Err(format!(
                "{SETTING} has openexchangerates, which needs an app id: set {APP_ID_SETTING} to a \
                 file with it"
            ));
        }
        let name = if feed == Feed::Json { format!("json:{host}") } else { kind.into() };
        let app_id_file = app_id_file.filter(|_| feed == Feed::OpenExchangeRates);
        Ok(Self {
            feed,
            name,
            address: address.into(),
            host,
            app_id_file: app_id_file.map(Into::into),
        })
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("name", &self.name).field("host", &self.host).finish()
    }
}

/// The sources in the order in which they are asked; none for an empty text. The file is where the
/// app id of Open Exchange Rates is. `Err` is the sentence of a `ConfigError`.
pub fn parse_list(text: &str, app_id_file: Option<&Path>) -> Result<Vec<Source>, String> {
    let mut list: Vec<Source> = Vec::new();
    if text.trim().is_empty() {
        return Ok(list);
    }
    for word in text.split(',') {
        let source = Source::parse(word.trim(), app_id_file)?;
        if list.iter().any(|other| other.name == source.name) {
            return Err(format!(
                "{SETTING} has {} twice, and their sheets could not be told apart: expected each \
                 kind once, and json:<address> once for each host",
                source.name
            ));
        }
        list.push(source);
    }
    Ok(list)
}

/// As much of a word as cannot be a secret.
fn shown(word: &str) -> String {
    if word.contains('@') {
        return "a word with an @".into();
    }
    let plain = word.split(['?', '#', '&', '=']).next().unwrap_or_default();
    let cut: String = redact(plain).chars().take(40).collect();
    format!("{cut:?}")
}

/// Host and port of an address that can be asked.
fn host(address: &str) -> Option<String> {
    let rest = ["https://", "http://"].iter().find_map(|scheme| address.strip_prefix(scheme))?;
    // RFC 3986, without `#`: a fragment is never sent.
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?[]@!$&'()*+;=%".contains(&byte);
    if !rest.bytes().all(allowed) {
        return None;
    }
    let authority = rest.split(['/', '?']).next()?;
    let (host, port) = match authority.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
        Some((v6, port)) => {
            v6.parse::<std::net::Ipv6Addr>().ok()?;
            (&authority[..v6.len() + 2], port)
        }
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let named = host.starts_with('[') || (!host.is_empty() && host.bytes().all(plain));
    let port_is_sound = port.is_empty()
        || port.strip_prefix(':').is_some_and(|port| {
            port.bytes().all(|byte| byte.is_ascii_digit())
                && port.parse::<u16>().is_ok_and(|p| p > 0)
        });
    (named && port_is_sound).then(|| authority.to_ascii_lowercase())
}

/// What a source said about the sheet it sent, to be sent back to it: an unchanged one is then not
/// sent again. They belong to one address, and to the sheet that came with them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validators {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_modified: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Fetched {
    Sheet {
        sheet: Sheet,
        validators: Validators,
    },
    /// The sheet that came with the known validators still is the source's newest.
    NotModified,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchError {
    /// Fit to be shown, logged and shared: passed through [`crate::error::redact`].
    pub reason: String,
    /// The source said not to be asked before; at most a day.
    pub retry_after: Option<Duration>,
}

/// Asks sources.
pub trait Fetch: Send + Sync {
    /// Whether the source could be asked at all: what this host has to bring is there. Sends nothing.
    fn ready(&self, _source: &Source) -> Result<(), FetchError> {
        Ok(())
    }

    /// Blocks, for at most `within` and a bound of the implementation's own. Without [`Validators`] in `known`, never
    /// [`Fetched::NotModified`].
    fn fetch(
        &self,
        source: &Source,
        known: &Validators,
        within: Duration,
    ) -> Result<Fetched, FetchError>;
}

#[cfg(test)]
mod tests;
