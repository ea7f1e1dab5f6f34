//! One reader per form of value: numbers with units, sizes, ratios, words, paths. Owns the wording
//! of every refusal.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::{APP_ID, DSN, ENVIRONMENT, PASSWORD, SETTINGS, SOURCES, dsn, shown};
use crate::fx::{self, Source};
use crate::journal::Sink;
use crate::secret;

pub(super) const MIB: u64 = 1024 * 1024;

/// What was configured, by setting, not yet understood.
pub(super) struct Read(pub(super) BTreeMap<&'static str, String>);

impl Read {
    pub(super) fn all(
        ini: &dyn Fn(&str) -> Option<String>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Self {
        let mut read: BTreeMap<_, _> = SETTINGS
            .iter()
            .map(|s| (s.name, ini(s.name).unwrap_or_else(|| s.default.into())))
            .collect();
        let by_file = read.get("sharedstate.redis.password_file").is_some_and(|v| !v.is_empty());
        for (name, variable) in ENVIRONMENT {
            // A file named in the INI is the INI's password, and the INI wins.
            let overruled = name == PASSWORD && by_file;
            if let Some(value) = read.get_mut(name).filter(|v| v.is_empty() && !overruled) {
                *value = env(variable).unwrap_or_default();
            }
            if let Some(value) = read.get_mut(name) {
                *value = secret::bare(value).to_owned();
            }
        }
        Self(read)
    }

    pub(super) fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    pub(super) fn filled(&self, name: &str) -> Option<String> {
        Some(self.text(name)).filter(|value| !value.is_empty()).map(Into::into)
    }

    /// The one form of a refusal. A value is quoted, cut and, where it is secret, masked.
    pub(super) fn refused(&self, name: &str, expected: &str) -> String {
        let value: String = shown(name, self.text(name)).chars().take(60).collect();
        format!("{name} is {value:?}, but must be {expected}")
    }

    pub(super) fn prefix(&self) -> Result<String, String> {
        const NAME: &str = "sharedstate.prefix";
        let prefix = self.text(NAME);
        let odd = |c: char| c.is_control() || c.is_whitespace() || "{}".contains(c);
        if prefix.is_empty() || prefix.len() > 64 || prefix.contains(odd) {
            let expected = "1 to 64 bytes without spaces, braces and control characters";
            return Err(self.refused(NAME, expected));
        }
        Ok(prefix.into())
    }

    pub(super) fn dsn(&self) -> Result<Option<String>, String> {
        let dsn = self.filled(DSN);
        if dsn.as_deref().is_some_and(|dsn| !dsn::is_plain(dsn)) {
            return Err(self.refused(
                DSN,
                "an address without control characters and with @ : / ? # in user and password \
                 written as %40 %3A %2F %3F %23",
            ));
        }
        Ok(dsn)
    }

    pub(super) fn password(&self) -> Result<Option<String>, String> {
        match secret::one_line(self.text(PASSWORD)) {
            Ok(_) => Ok(self.filled(PASSWORD)),
            Err(_) => Err(self.refused(PASSWORD, "one line")),
        }
    }

    /// Whom a certificate may be for.
    pub(super) fn server_name(&self, name: &str) -> Result<Option<String>, String> {
        match self.filled(name) {
            Some(given) if !names_a_server(&given) => {
                Err(self.refused(name, "a host name or an IP address, without a port"))
            }
            given => Ok(given),
        }
    }

    pub(super) fn path(&self, name: &str) -> Result<Option<PathBuf>, String> {
        match self.filled(name) {
            Some(path) if !path.starts_with('/') || path.contains(char::is_control) => {
                Err(self.refused(name, "an absolute path, or empty"))
            }
            path => Ok(path.map(PathBuf::from)),
        }
    }

    pub(super) fn sink(&self, name: &str) -> Result<Sink, String> {
        Sink::parse(self.text(name))
            .ok_or_else(|| self.refused(name, "an absolute path, stderr, syslog, or empty"))
    }

    /// Two files of which neither is of use alone.
    pub(super) fn both_paths(
        &self,
        one: &str,
        other: &str,
    ) -> Result<Option<(PathBuf, PathBuf)>, String> {
        match (self.path(one)?, self.path(other)?) {
            (Some(one), Some(other)) => Ok(Some((one, other))),
            (None, None) => Ok(None),
            (Some(_), None) => Err(format!("{one} is set, but {other} is not: set both")),
            (None, Some(_)) => Err(format!("{other} is set, but {one} is not: set both")),
        }
    }

    pub(super) fn whole<T>(&self, name: &str, range: RangeInclusive<T>) -> Result<T, String>
    where
        T: FromStr + PartialOrd + fmt::Display,
    {
        let value = self.text(name);
        let digits = value.bytes().all(|byte| byte.is_ascii_digit());
        match value.parse() {
            Ok(number) if digits && range.contains(&number) => Ok(number),
            _ => {
                let unit = match name {
                    _ if name.ends_with("_ms") => " of milliseconds",
                    _ if name.ends_with("_s") => " of seconds",
                    _ => "",
                };
                let (from, to) = range.into_inner();
                Err(self.refused(name, &format!("a whole number{unit} from {from} to {to}")))
            }
        }
    }

    pub(super) fn millis(
        &self,
        name: &str,
        range: RangeInclusive<u64>,
    ) -> Result<Duration, String> {
        self.whole(name, range).map(Duration::from_millis)
    }

    pub(super) fn seconds(
        &self,
        name: &str,
        range: RangeInclusive<u64>,
    ) -> Result<Duration, String> {
        self.whole(name, range).map(Duration::from_secs)
    }

    pub(super) fn bytes<T: TryFrom<u64>>(
        &self,
        name: &str,
        range: RangeInclusive<u64>,
    ) -> Result<T, String> {
        size(self.text(name))
            .filter(|bytes| range.contains(bytes))
            .and_then(|bytes| T::try_from(bytes).ok())
            .ok_or_else(|| {
                let (from, to) = (size_text(*range.start()), size_text(*range.end()));
                let expected = format!("a size such as 16K, 32M or 1G, from {from} to {to}");
                self.refused(name, &expected)
            })
    }

    /// As a fraction.
    pub(super) fn percent(&self, name: &str) -> Result<f64, String> {
        match self.text(name).parse::<f64>() {
            Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent / 100.0),
            _ => Err(self.refused(name, "a percentage above 0 and at most 100, such as 20")),
        }
    }

    pub(super) fn sources(&self) -> Result<Vec<Source>, String> {
        let app_id = self.path(APP_ID)?;
        fx::parse_list(self.text(SOURCES), app_id.as_deref())
    }

    pub(super) fn ratio(&self, name: &str) -> Result<f64, String> {
        match self.text(name).parse::<f64>() {
            Ok(ratio) if ratio > 0.0 && ratio < 1.0 => Ok(ratio),
            _ => Err(self.refused(name, "a number above 0 and below 1, such as 0.8")),
        }
    }

    pub(super) fn one_of<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<T, String> {
        let value = self.text(name);
        let found = choices.iter().find(|(word, _)| value.eq_ignore_ascii_case(word));
        found.map(|(_, choice)| *choice).ok_or_else(|| {
            let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            self.refused(name, &format!("one of {}", words.join(", ")))
        })
    }
}

/// What a certificate may be for, as far as a word shows.
fn names_a_server(text: &str) -> bool {
    let of_a_label = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && !label.starts_with('-') && label.bytes().all(of_a_label)
    };
    text.parse::<IpAddr>().is_ok() || text.len() <= 253 && text.split('.').all(label)
}

/// `32M` in bytes; K, M and G count in 1024 as in every php.ini.
fn size(text: &str) -> Option<u64> {
    let (number, shift) = match text.as_bytes().last()?.to_ascii_uppercase() {
        b'K' => (&text[..text.len() - 1], 10),
        b'M' => (&text[..text.len() - 1], 20),
        b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn size_text(bytes: u64) -> String {
    match bytes {
        b if b % (1 << 30) == 0 => format!("{}G", b >> 30),
        b if b % (1 << 20) == 0 => format!("{}M", b >> 20),
        b => format!("{}K", b >> 10),
    }
}
