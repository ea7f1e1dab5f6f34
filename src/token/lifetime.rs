//! How long a token lives, from whatever its issuer and the caller say about that.
//!
//! Everything that is said must agree: `ttl`, `expires_in`, `expires_at`, `expires_on`, `expires`, and the `exp` of a
//! JWT, each counted from the mint, from the issue time beside it, and to its instant by this host's clock. Where
//! they do not, the shortest counts. An issuer that answers from a cache says an hour of a token that has three seconds
//! left; a wrong unit, or a field of another meaning, makes a lifetime too long as well.

use std::time::Duration;

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Iso8601;

use super::{Unread, jwt, type_of};
use crate::clock::WallTime;

/// A longer lifetime is a mistake of units (milliseconds, or an instant taken for a duration).
pub(super) const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// From here on a number in `expires` is an instant (September 2001) and no duration (31 years).
const FIRST_INSTANT_S: f64 = 1e9;

/// From here on an instant is in milliseconds (1973), for in seconds it would be the year 5138.
const FIRST_INSTANT_MS: f64 = 1e11;

/// By so much what is said may differ: whole seconds, the way of the answer, clocks that are nearly right.
const AGREED_MS: f64 = 5e3;

pub(super) struct Lifetime {
    pub length: Duration,
    /// Nothing but an instant and this host's clock say so.
    pub clock_dependent: bool,
    /// What disagreed, as a sentence.
    pub contradiction: Option<String>,
}

/// Something that is said about the end.
struct Said {
    name: &'static str,
    /// What is left in milliseconds.
    left: f64,
    /// By this host's clock.
    by_clock: bool,
}

pub(super) fn of(
    fields: &Map<String, Value>,
    unread: &Unread,
    token: &str,
    ttl: Option<Duration>,
    wall_now: WallTime,
) -> Result<Lifetime, String> {
    let now = wall_now.unix_millis() as f64;
    let (mut said, mut refused) = (Vec::new(), Vec::new());
    if let Some(ttl) = ttl {
        said.push(Said { name: "ttl", left: ttl.as_secs_f64() * 1e3, by_clock: false });
    }
    let mut unreadable = Vec::new();
    let mut say = |name: &'static str, value: &Value, issued: Option<f64>| {
        match end(name, value) {
            Ok(Some(End::In(left))) => {
                said.push(Said { name, left, by_clock: false });
                if let Some(issued) = issued {
                    said.push(Said { name, left: issued + left - now, by_clock: true });
                }
            }
            Ok(Some(End::At(at))) => {
                if let Some(issued) = issued {
                    said.push(Said { name, left: at - issued, by_clock: false });
                }
                said.push(Said { name, left: at - now, by_clock: true });
            }
            Ok(None) => {}
            Err(sentence) => refused.push(sentence),
        };
    };
    let issued_at = issued(fields);
    for name in ["expires_in", "expires_at", "expires_on", "expires"] {
        // Null is how many clients spell "absent".
        if let Some(value) = fields.get(name).filter(|value| !value.is_null()) {
            say(name, value, issued_at);
        }
        unreadable.extend(
            unread
                .get(name)
                .map(|what| format!("\"{name}\" is {what}, expected a number or a date")),
        );
    }
    if let Some(claims) = jwt::claims(token)
        && let Some(exp) = claims.get("exp").filter(|exp| instant(exp).is_some())
    {
        say("exp", exp, issued(&claims));
    }
    refused.extend(unreadable);
    let longest = LONGEST.as_millis() as f64;
    for Said { name, .. } in said.extract_if(.., |said| said.left > longest) {
        refused.push(format!(
            "\"{name}\" means more than 10 years: check its unit, or pass ['ttl' => seconds]"
        ));
    }
    let Some(shortest) = said.iter().min_by(|one, other| one.left.total_cmp(&other.left)) else {
        return Err(refused.into_iter().next().unwrap_or_else(|| {
            "the token response says no lifetime: pass ['ttl' => seconds], or return \"expires_in\", \
             \"expires_at\" or a JWT with \"exp\""
                .into()
        }));
    };
    if shortest.left < 1.0 {
        return Err(dead(shortest));
    }
    let agrees = |it: &&Said| it.left - shortest.left <= AGREED_MS;
    // An issuer may date a token back: its whole life is longer then than what is left of it, and what is left is
    // what others say, too.
    let dated_back = |it: &Said| {
        let mut agreeing = said.iter().filter(agrees);
        agreeing.clone().any(|other| other.name == it.name)
            && agreeing.any(|other| other.name != it.name)
    };
    // The caller may want less than the issuer gives; and this host's clock may be behind.
    let longer = |it: &&Said| !it.by_clock && !agrees(it) && !dated_back(it);
    let longer = said.iter().filter(|it| shortest.name != "ttl" && longer(it));
    let longest = longer.max_by(|one, other| one.left.total_cmp(&other.left));
    Ok(Lifetime {
        length: Duration::from_millis(shortest.left as u64),
        clock_dependent: said.iter().all(|it| it.by_clock),
        contradiction: longest.map(|longest| contradiction(shortest, longest)),
    })
}

fn dead(said: &Said) -> String {
    let Said { name, left, by_clock } = said;
    if !by_clock {
        return none_left(name);
    }
    format!(
        "by this host's clock \"{name}\" was {} s ago: check that clock, and whether the issuer answers \
         from a cache",
        (-left / 1e3).round().max(0.0)
    )
}

/// Zero and below are how some issuers say that a token never ends.
fn none_left(name: &str) -> String {
    format!(
        "\"{name}\" leaves the token no lifetime, expected one above zero: if it never ends, pass \
         ['ttl' => seconds]"
    )
}

fn contradiction(shortest: &Said, longest: &Said) -> String {
    let seconds = |said: &Said| {
        let by = if said.by_clock { " by this host's clock" } else { "" };
        format!("\"{}\" says {} s{by}", said.name, (said.left / 1e3).floor())
    };
    format!(
        "{}, and {}; the shorter counts: check the unit, this host's clock, and whether the issuer \
         answers from a cache",
        seconds(shortest),
        seconds(longest)
    )
}

enum End {
    /// In so many milliseconds.
    In(f64),
    /// At this one since 1970.
    At(f64),
}

/// What the field says; `None`: that the issuer named no end.
fn end(name: &'static str, value: &Value) -> Result<Option<End>, String> {
    let number = number(value);
    if name == "expires_in" {
        let seconds = number.ok_or_else(|| {
            format!("\"expires_in\" is {}, expected a number of seconds", described(value))
        })?;
        if seconds <= 0.0 {
            return Err(none_left(name));
        }
        return Ok(Some(End::In(seconds * 1e3)));
    }
    match number {
        Some(seconds) if name != "expires" && seconds <= 0.0 => return Err(none_left(name)),
        // league/oauth2-client says 0 when the issuer named no expiry.
        Some(0.0) if name == "expires" => return Ok(None),
        Some(seconds) if name == "expires" && seconds < FIRST_INSTANT_S => {
            return Ok(Some(End::In(seconds * 1e3)));
        }
        _ => {}
    }
    let at = instant(value).ok_or_else(|| {
        format!(
            "\"{name}\" is {}, expected seconds since 1970 or an ISO 8601 time with Z or an offset; \
             or pass ['ttl' => seconds]",
            described(value)
        )
    })?;
    Ok(Some(End::At(at)))
}

/// When the token was issued, by the issuer's own clock. Salesforce sends milliseconds in a string.
fn issued(fields: &Map<String, Value>) -> Option<f64> {
    ["iat", "issued_at"].iter().find_map(|name| fields.get(*name)).and_then(instant)
}

/// A finite number, also as text. Whole milliseconds of this millennium are exact in an `f64`.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
    .filter(|number| number.is_finite())
}

/// Milliseconds since 1970.
fn instant(value: &Value) -> Option<f64> {
    if let Some(number) = number(value) {
        return Some(if number < FIRST_INSTANT_MS { number * 1e3 } else { number });
    }
    let time = OffsetDateTime::parse(value.as_str()?.trim(), &Iso8601::DEFAULT).ok()?;
    Some(time.unix_timestamp() as f64 * 1e3 + f64::from(time.millisecond()))
}

fn described(value: &Value) -> &'static str {
    if value.is_string() { "a string of another form" } else { type_of(value) }
}
