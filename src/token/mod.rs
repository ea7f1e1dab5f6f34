//! What a minting callable may return, and how long that lives. Pure: the binding turns PHP values
//! into an [`Answer`], and time is handed in.
//!
//! Every refusal is a sentence about field names and types. It never quotes a value, for the value
//! may be the token; and it fits [`crate::store::MAX_REASON`], because the fleet is told it too.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::clock::{Moment, WallTime};
use crate::entry::{Timing, TokenPolicy};
use crate::fault;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod jwt;
mod lifetime;
#[cfg(test)]
mod tests;

use lifetime::Lifetime;

/// What the callable returned.
pub enum Answer {
    /// A PHP array. A float that is not finite arrives as text, for JSON has no such number.
    Array(Map<String, Value>, Unread),
    /// Anything but a JSON object is refused by its type.
    Json(Value),
    /// A string: the issuer's JSON, a JWT, or an opaque token for which `ttl` was passed.
    Text(Vec<u8>),
    /// An object with `getToken()` and `getExpires()` (league/oauth2-client; 0 is unknown).
    Object { token: String, expires: Option<i64> },
}

/// Fields that are no data, by name: what they are instead.
pub type Unread = BTreeMap<String, String>;

/// How one call wants its token read. Each setter refuses with the sentence of a `\ValueError`.
#[derive(Clone, Debug)]
pub struct TokenOptions {
    policy: TokenPolicy,
    ttl: Option<Duration>,
    keep: Vec<String>,
    opaque: bool,
}

impl TokenOptions {
    pub fn new(policy: TokenPolicy) -> Self {
        Self { policy, ttl: None, keep: vec![], opaque: false }
    }

    /// Any text without control characters is a token.
    pub fn opaque(self, opaque: bool) -> Self {
        Self { opaque, ..self }
    }

    /// Seconds from the mint. Should the response say less, that counts.
    pub fn ttl(self, seconds: i64) -> Result<Self, String> {
        match u64::try_from(seconds).map(Duration::from_secs) {
            Ok(ttl) if !ttl.is_zero() && ttl <= lifetime::LONGEST => {
                Ok(Self { ttl: Some(ttl), ..self })
            }
            _ => Err(format!(
                "option 'ttl' is {seconds}, but must be the token's lifetime in seconds, from 1 to \
                 {} (10 years)",
                lifetime::LONGEST.as_secs()
            )),
        }
    }

    /// Seconds before the expiry from which the token is not handed out any more.
    pub fn margin(mut self, seconds: i64) -> Result<Self, String> {
        match u64::try_from(seconds) {
            Ok(margin) if margin <= 86_400 => {
                self.policy.margin = Duration::from_secs(margin);
                Ok(self)
            }
            _ => Err(format!("option 'margin' is {seconds}, but must be 0 to 86400 seconds")),
        }
    }

    pub fn refresh_ratio(mut self, ratio: f64) -> Result<Self, String> {
        if ratio > 0.0 && ratio < 1.0 {
            self.policy.refresh_ratio = ratio;
            return Ok(self);
        }
        Err(format!("option 'refresh_ratio' is {ratio}, but must be above 0 and below 1"))
    }

    /// Fields of the response to keep beside the token, for `info()`.
    pub fn keep(self, names: Vec<String>) -> Result<Self, String> {
        const NEVER: [&str; 4] = ["access_token", "token", "refresh_token", "id_token"];
        let secret = |name: &&String| NEVER.iter().any(|never| name.eq_ignore_ascii_case(never));
        match names.iter().find(secret) {
            Some(name) => Err(format!(
                "option 'keep' names \"{name}\", but what is kept can be read by anyone who may \
                 see shared_token_info(): leave tokens out"
            )),
            None => Ok(Self { keep: names, ..self }),
        }
    }
}

/// A token that may be published.
#[derive(Clone, PartialEq)]
pub struct Token {
    pub value: String,
    pub timing: Timing,
    pub kept: Map<String, Value>,
    /// The margin was cut to a fifth of the lifetime.
    pub margin_cut: bool,
    /// The lifetime came from an instant and this host's clock, and is as wrong as that clock.
    pub clock_dependent: bool,
    /// What was said about the lifetime does not agree, and the shorter counts; a sentence without values of the
    /// response but for seconds.
    pub contradiction: Option<String>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("bytes", &self.value.len())
            .field("timing", &self.timing)
            .field("clock_dependent", &self.clock_dependent)
            .finish_non_exhaustive()
    }
}

/// Reads the answer. `minted_from` is the moment before the callable ran; `wall_now` is read then
/// or later, and later only shortens the token's life. The error is an `InvalidValue` sentence.
pub fn read(
    answer: Answer,
    options: &TokenOptions,
    minted_from: Moment,
    wall_now: WallTime,
) -> Result<Token, String> {
    let (value, fields, unread, shape) = take_apart(answer)?;
    check(&value, if options.opaque { Shape::Opaque } else { shape })?;
    let life = lifetime::of(&fields, &unread, &value, options.ttl, wall_now)?;
    if let Some((name, what)) = unread.iter().find(|(name, _)| options.keep.contains(name)) {
        return Err(format!("\"{name}\" is {what}, and option 'keep' names it: keep what is data"));
    }
    let (timing, margin_cut) = Timing::token(minted_from, life.length, options.policy);
    let kept = options
        .keep
        .iter()
        .filter_map(|name| Some((name.clone(), fields.get(name)?.clone())))
        // `info()` never shows the token, whatever other name the issuer has for it.
        .filter(|(_, kept)| !contains(kept, &value))
        .collect();
    let Lifetime { clock_dependent, contradiction, .. } = life;
    Ok(Token { value, timing, kept, margin_cut, clock_dependent, contradiction })
}

/// What a token may be made of, by where it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// A text that says nothing of itself: a bearer token as RFC 6750 has it, section 2.1. So whatever a proxy or
    /// an issuer says instead of a token becomes none.
    Bearer,
    /// In a field that says so, or by a method: what RFC 6749 has, appendix A.12, without spaces. Salesforce has
    /// an exclamation mark in its tokens.
    Named,
    /// The caller says that it is one.
    Opaque,
}

/// The token, the fields that came with it, and what it may be made of.
fn take_apart(answer: Answer) -> Result<(String, Map<String, Value>, Unread, Shape), String> {
    let named = |fields: Map<String, Value>, unread: Unread| {
        Ok((token_of(&fields, &unread)?, fields, unread, Shape::Named))
    };
    match answer {
        Answer::Array(fields, unread) => named(fields, unread),
        Answer::Json(Value::Object(fields)) => named(fields, Unread::new()),
        Answer::Json(other) => Err(format!(
            "the callable returned {}, expected the token response as an array, a JSON string, a \
             JWT, or a string with ['ttl' => seconds]",
            type_of(&other)
        )),
        Answer::Text(bytes) => {
            let text = String::from_utf8(bytes).map_err(|_| "the token is not valid UTF-8")?;
            // What editors and some servers put before a text.
            let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
            if text.trim_start().starts_with('{') {
                let fields = serde_json::from_str::<Map<_, _>>(text)
                    .map_err(|_| "the returned text begins like JSON but is not valid JSON")?;
                return named(fields, Unread::new());
            }
            Ok((text.to_owned(), Map::new(), Unread::new(), Shape::Bearer))
        }
        Answer::Object { token, expires } => {
            let expires = expires.map(|at| ("expires".to_owned(), at.into()));
            Ok((token, expires.into_iter().collect(), Unread::new(), Shape::Named))
        }
    }
}

fn token_of(fields: &Map<String, Value>, unread: &Unread) -> Result<String, String> {
    const NAMES: [&str; 2] = ["access_token", "token"];
    for name in NAMES {
        if let Some(what) = unread.get(name) {
            return Err(format!("\"{name}\" is {what}, expected a string"));
        }
        match fields.get(name) {
            None | Some(Value::Null) => {}
            Some(Value::String(token)) => return Ok(token.clone()),
            Some(other) => {
                return Err(format!("\"{name}\" is {}, expected a string", type_of(other)));
            }
        }
    }
    if let Some(words) = fault::of(fields) {
        return Err(format!("the issuer's answer is an error, {words}"));
    }
    if let Some(name) = NAMES.iter().find(|name| fields.contains_key(**name)) {
        return Err(format!(
            "\"{name}\" is null; throw an exception when the issuer answers with an error"
        ));
    }
    Err(format!(
        "the token response has no \"access_token\" or \"token\", only {}; throw an exception \
         when the issuer answers with an error",
        names_of(fields)
    ))
}

/// Whether the token stands anywhere in the field. A short one may be a part of any word, and counts only as a whole.
fn contains(field: &Value, token: &str) -> bool {
    let quoted = Value::from(token).to_string();
    let wanted = if token.len() < 8 { &quoted[..] } else { &quoted[1..quoted.len() - 1] };
    field.to_string().contains(wanted)
}

fn check(token: &str, shape: Shape) -> Result<(), String> {
    if token.trim().is_empty() {
        return Err("the token is empty; throw an exception when there is none".into());
    }
    // A line feed in a token ends up in an HTTP header.
    if let Some((at, _)) = token.char_indices().find(|(_, c)| c.is_control()) {
        return Err(format!(
            "the token has a control character at byte {at}: return the token alone, without line \
             ends"
        ));
    }
    let allowed = |c: char| match shape {
        Shape::Bearer => c.is_ascii_alphanumeric() || "-._~+/".contains(c),
        Shape::Named => c.is_ascii_graphic(),
        Shape::Opaque => true,
    };
    // Padding is at the end.
    let body = if shape == Shape::Bearer { token.trim_end_matches('=') } else { token };
    let odd = body.char_indices().find(|(_, c)| !allowed(*c)).map(|(at, _)| at);
    let Some(at) = odd.or(body.is_empty().then_some(0)) else { return Ok(()) };
    if shape == Shape::Named {
        return Err(format!(
            "the token has a space, or a character outside of printable ASCII, at byte {at}: if it is right, \
             pass ['opaque' => true]"
        ));
    }
    Err(fault::of_text(token, at))
}

/// A few field names, for orientation. One that is no plain word may be a token itself, as after
/// `parse_str()` on the wrong thing, and is not shown.
fn names_of(fields: &Map<String, Value>) -> String {
    let plain = |name: &&String| {
        name.len() <= 20 && name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_')
    };
    let names: Vec<_> = fields.keys().filter(plain).take(3).map(String::as_str).collect();
    if names.is_empty() { "other fields".into() } else { names.join(", ") }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an array",
    }
}
