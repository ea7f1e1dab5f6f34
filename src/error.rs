//! Everything the library can tell a caller, as finished sentences: what was wrong, what was
//! expected, what to do. The binding turns each variant into one exception class and adds nothing.
//! Refuses to know PHP, and never carries a token.

use std::time::Duration;

use crate::entry::{Key, Kind};
use crate::flight::FlightError;
use crate::store::{MAX_REASON, StoreError};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A setting, or the place the table should live in, cannot be used.
    #[error("{0}")]
    Config(String),
    /// Nobody came up with a value before the caller's deadline.
    #[error("{0}")]
    WaitTimeout(String),
    /// The callable failed, here or elsewhere, and nobody may try again before `retry_in`.
    #[error("{what} failed: {reason}; the next attempt is allowed in {}", seconds(.retry_in))]
    MintFailed {
        /// Such as `minting token "crm"`.
        what: String,
        /// Passed through [`redact`].
        reason: String,
        retry_in: Duration,
    },
    #[error("{0}")]
    StoreUnavailable(String),
    /// No entry, and nothing to make one with.
    #[error("{0}")]
    NoSource(String),
    #[error("{0}")]
    RateUnavailable(String),
    /// What the callable returned cannot be used, or the callable cannot be called.
    #[error("{0}")]
    InvalidValue(String),
    /// An argument or option is malformed: PHP's `\ValueError`.
    #[error("{0}")]
    Argument(String),
}

impl Error {
    /// Why an invalidation did not arrive everywhere.
    pub fn invalidating(error: &StoreError, key: &Key) -> Self {
        Self::StoreUnavailable(format!(
            "token \"{}\" could not be dropped on every host: {}. Invalidate it again when that is mended",
            String::from_utf8_lossy(key.name()),
            redact(&error.to_string())
        ))
    }

    /// What became of the flight for `key`, in words.
    pub fn from_flight(error: FlightError, key: &Key) -> Self {
        let (noun, act, callable) = match key.kind() {
            Kind::Token => ("token", "minting", "$mint"),
            Kind::Sheet | Kind::Quota => ("rate sheet", "fetching", "$fetch (option 'fetch')"),
        };
        let what = format!("{noun} \"{}\"", String::from_utf8_lossy(key.name()));
        match error {
            FlightError::WaitTimeout => Self::WaitTimeout(format!(
                "{what} was not there within the wait budget: another worker is still {act} it, \
                 or Redis does not answer in time. Make {callable} faster, look at Redis, or raise \
                 sharedstate.token.wait_timeout_ms"
            )),
            FlightError::MintFailed { reason, retry_in } => Self::MintFailed {
                what: format!("{act} {what}"),
                reason: redact(&reason),
                retry_in,
            },
            FlightError::StoreUnavailable(detail) => Self::StoreUnavailable(format!(
                "there is no usable {what} on this host and the store cannot be asked: {}. \
                 Restore the store, or allow one attempt per host with sharedstate.store_down=host",
                redact(&detail)
            )),
            FlightError::Nothing => Self::NoSource(format!(
                "there is no usable {what} and nothing to make one with: {}pass a callable as \
                 {callable}",
                if key.kind() == Kind::Token { "" } else { "set sharedstate.fx.sources, or " }
            )),
            FlightError::TooLarge { bytes, limit } => Self::InvalidValue(format!(
                "{what} has {bytes} bytes with what is kept beside it, and at most {limit} fit: \
                 raise sharedstate.host.value_size or keep fewer fields"
            )),
        }
    }
}

/// Tenths are enough to wait by; a pause is never shown as nothing.
fn seconds(span: &Duration) -> String {
    format!("{:.1} s", span.as_secs_f64().max(0.1))
}

pub const REMOVED: &str = "[removed]";

/// Makes the message of a foreign failure fit to be shown, logged and shared with the fleet: no
/// credentials, no URL queries, one line, at most [`MAX_REASON`] bytes.
///
/// HTTP clients like to put the whole request into their exceptions. This cannot know every
/// secret, so it removes what has the shape of one and would rather remove too much.
pub fn redact(reason: &str) -> String {
    let line: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    // Cut last: half a token is no longer recognised.
    let mut line = without_jwts(&without_labelled(&without_url_secrets(&line)));
    line.truncate(line.floor_char_boundary(MAX_REASON));
    line
}

/// Drops `user:password@`, the query, and what may be a key in the path from everything with a scheme, Redis
/// addresses included. Some providers take their key as a part of the path.
fn without_url_secrets(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, url) = rest.split_at(at + 3);
        let (url, after) = url.split_at(url.find(ends_word).unwrap_or(url.len()));
        let (path, query) = url.split_at(url.find(['?', '#']).unwrap_or(url.len()));
        // An unescaped `?` in a password puts the `@` behind it: then all of it is suspect.
        let host = if query.contains('@') && !path.contains(['/', '@']) {
            REMOVED
        } else {
            path.rsplit_once('@').map_or(path, |(_, host)| host)
        };
        out.push_str(before);
        for (at, part) in host.split('/').enumerate() {
            let secret = at > 0 && may_be_secret(part);
            out.push_str(if at > 0 { "/" } else { "" });
            out.push_str(if secret { REMOVED } else { part });
        }
        rest = after;
    }
    out + rest
}

/// Whether a word has the shape of a key or a token: it is long, and has letters and digits.
pub fn may_be_secret(word: &str) -> bool {
    const SHORTEST: usize = 16;
    word.len() >= SHORTEST
        && word.contains(|c: char| c.is_ascii_digit())
        && word.contains(|c: char| c.is_ascii_alphabetic())
}

/// Names whose value is a secret, and whether white space alone may stand between the two.
const LABELS: [(&str, bool); 8] = [
    ("bearer", true),
    ("basic", true),
    ("token", false),
    ("secret", false),
    ("password", false),
    ("assertion", false),
    ("api_key", false),
    ("app_id", false),
];

/// Keeps `Bearer`, `client_secret=` and the like, and removes the word after them.
fn without_labelled(text: &str) -> String {
    // ASCII only, so that every index fits both strings.
    let lower = text.to_ascii_lowercase();
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    while let Some((end, spaces_do)) = next_label(&lower, done) {
        let value = end + prefix_len(&text[end..], |c| " :=\"'\\]>".contains(c));
        let gap = &text[end..value];
        let labelled = gap.contains([':', '=']) || (spaces_do && gap.contains(' '));
        out.push_str(&text[done..value]);
        done = value;
        let length = prefix_len(&text[value..], |c| !ends_word(c) && c != '&');
        if labelled && length > 0 {
            out.push_str(REMOVED);
            done += length;
        }
    }
    out + &text[done..]
}

/// The end of the first label at or after `from`.
fn next_label(lower: &str, from: usize) -> Option<(usize, bool)> {
    LABELS
        .iter()
        .filter_map(|(label, spaces_do)| {
            let at = lower[from..].find(label)? + from;
            Some((at + label.len(), *spaces_do))
        })
        .min()
}

/// A header of any JWT begins with `{"`, which is `eyJ` in base64.
fn without_jwts(text: &str) -> String {
    /// No signed token is shorter; many a word that happens to contain `eyJ` is.
    const SHORTEST: usize = 20;
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("eyJ") {
        let length = prefix_len(&rest[at..], |c| c.is_ascii_alphanumeric() || "-_.=".contains(c));
        out.push_str(&rest[..at]);
        out.push_str(if length < SHORTEST { &rest[at..at + length] } else { REMOVED });
        rest = &rest[at + length..];
    }
    out + rest
}

fn ends_word(c: char) -> bool {
    c.is_whitespace() || "\"'`<>".contains(c)
}

fn prefix_len(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Fingerprint;
    use proptest::prelude::*;

    fn told(error: FlightError) -> String {
        let key = Key::new(Kind::Token, b"crm", Fingerprint::default()).unwrap();
        Error::from_flight(error, &key).to_string()
    }

    #[test]
    fn every_failed_flight_names_the_token_and_the_way_out() {
        let second = Duration::from_millis(1_250);
        let failed = FlightError::MintFailed { reason: "HTTP 503".into(), retry_in: second };
        for (error, fix) in [
            (FlightError::WaitTimeout, "sharedstate.token.wait_timeout_ms"),
            (failed, "HTTP 503; the next attempt is allowed in 1.2 s"),
            (FlightError::StoreUnavailable("connection refused".into()), "sharedstate.store_down"),
            (FlightError::Nothing, "$mint"),
            (FlightError::TooLarge { bytes: 9, limit: 5 }, "sharedstate.host.value_size"),
        ] {
            let sentence = told(error);
            assert!(sentence.contains("token \"crm\""), "{sentence}");
            assert!(sentence.contains(fix), "{sentence}");
        }
    }

    #[test]
    fn a_missing_sheet_asks_for_a_fetch_and_not_for_a_mint() {
        let key = Key::new(Kind::Sheet, b"default", Fingerprint::default()).unwrap();
        let sentence = Error::from_flight(FlightError::Nothing, &key).to_string();
        assert!(sentence.contains("rate sheet \"default\"") && sentence.contains("$fetch"));
    }

    #[test]
    fn a_reason_of_another_release_is_redacted_again() {
        let reason = "GET https://api.example/t?secret=hunter2 failed".into();
        let sentence = told(FlightError::MintFailed { reason, retry_in: Duration::ZERO });
        assert!(!sentence.contains("hunter2"), "{sentence}");
    }

    #[test]
    fn credentials_in_an_address_are_removed_and_the_host_stays() {
        for (reason, shown) in [
            ("GET https://a.example/t?code=x&s=y: 400", "GET https://a.example/t 400"),
            ("\"https://u:p@a.example/t\" said 401", "\"https://a.example/t\" said 401"),
            ("redis://:p@ss@10.0.0.1:6379/0 refused", "redis://10.0.0.1:6379/0 refused"),
            ("redis://:p/a@10.0.0.1 refused", "redis://10.0.0.1 refused"),
            ("redis://:p?a@10.0.0.1 refused", "redis://[removed] refused"),
            ("https://a.example/t?mail=a@b failed", "https://a.example/t failed"),
            ("https://a.example/cb#access_token=x", "https://a.example/cb"),
            ("http://a?x http://b?y z", "http://a http://b z"),
            (
                "GET https://a.example/v6/0123456789abcdef01234567/latest/USD: 403",
                "GET https://a.example/v6/[removed]/latest/USD: 403",
            ),
            ("https://0123456789abcdef.example/t", "https://0123456789abcdef.example/t"),
        ] {
            assert_eq!(redact(reason), shown);
        }
    }

    #[test]
    fn what_looks_like_a_token_is_removed() {
        let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln";
        for (reason, shown) in [
            (format!("got {jwt}, 401"), "got [removed], 401"),
            (format!("token={jwt}"), "token=[removed]"),
            (jwt[..30].to_owned(), "[removed]"),
            ("authorization: BEARER abc.def== x".into(), "authorization: BEARER [removed] x"),
            ("Basic dXNlcjpwYXNz".into(), "Basic [removed]"),
            (r#"{"access_token":"ya29.a0","a":1}"#.into(), r#"{"access_token":"[removed]","a":1}"#),
            ("[token] => ghs_16C7e".into(), "[token] => [removed]"),
            ("client_secret=s3&grant_type=x".into(), "client_secret=[removed]&grant_type=x"),
        ] {
            assert_eq!(redact(&reason), shown);
        }
    }

    #[test]
    fn an_ordinary_message_is_left_alone() {
        for reason in ["the password expired", "HeyJude.php: line 3", "HTTP 503 from issuer", ""] {
            assert_eq!(redact(reason), reason);
        }
    }

    #[test]
    fn a_reason_is_one_line_of_at_most_200_bytes() {
        assert_eq!(redact("a\r\nb\0c\u{85}d"), "a  b c d");
        assert_eq!(redact(&"é".repeat(150)).len(), 200);
        assert_eq!(redact(&format!("a{}", "é".repeat(150))).len(), 199);
    }

    #[test]
    fn a_token_across_the_cut_is_removed_whole() {
        let reason = format!("{} eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "x".repeat(180));
        assert!(redact(&reason).ends_with("x [removed]"));
    }

    proptest! {
        #[test]
        fn any_text_can_be_redacted_within_the_limit(
            reason in "(\\PC|://|bearer |eyJ|[?@=\"\n]){0,80}",
        ) {
            let shown = redact(&reason);
            prop_assert!(shown.len() <= MAX_REASON);
            prop_assert!(!shown.contains(char::is_control));
        }
    }
}
