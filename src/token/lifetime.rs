//! How long a token lives, from whatever its issuer says about that.
//!
//! In this order: `expires_in`, `expires_at`, `expires_on`, `expires`, the `exp` of a JWT. Numbers
//! may be strings. An instant is measured from the issue time beside it, which two clocks that
//! disagree cannot spoil; without one, from this host's clock, and the result says so.

use std::time::Duration;

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Iso8601;

use super::{jwt, type_of};
use crate::clock::WallTime;

/// A longer lifetime is a mistake of units (milliseconds, or an instant taken for a duration).
pub(super) const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// From here on a number in `expires` is an instant (September 2001) and no duration (31 years).
const FIRST_INSTANT_S: f64 = 1e9;

/// From here on an instant is in milliseconds (1973), for in seconds it would be the year 5138.
const FIRST_INSTANT_MS: f64 = 1e11;

pub(super) struct Lifetime {
    pub length: Duration,
    pub clock_dependent: bool,
}

pub(super) fn of(
    fields: &Map<String, Value>,
    token: &str,
    wall_now: WallTime,
) -> Result<Lifetime, String> {
    if let Some(value) = given(fields, "expires_in") {
        let seconds = number(value).ok_or_else(|| {
            format!("\"expires_in\" is {}, expected a number of seconds", described(value))
        })?;
        return span("expires_in", seconds * 1e3);
    }
    for name in ["expires_at", "expires_on", "expires"] {
        let Some(value) = given(fields, name) else { continue };
        match number(value) {
            // league/oauth2-client says 0 when the issuer named no expiry.
            Some(0.0) if name == "expires" => continue,
            Some(seconds) if name == "expires" && seconds < FIRST_INSTANT_S => {
                return span(name, seconds * 1e3);
            }
            _ => {}
        }
        let expiry = instant(value).ok_or_else(|| {
            format!(
                "\"{name}\" is {}, expected seconds since 1970 or an ISO 8601 time with Z or an \
                 offset; or pass ['ttl' => seconds]",
                described(value)
            )
        })?;
        return until(name, expiry, issued(fields), wall_now);
    }
    if let Some(claims) = jwt::claims(token)
        && let Some(expiry) = claims.get("exp").and_then(instant)
    {
        return until("exp", expiry, issued(&claims), wall_now);
    }
    Err("the token response says no lifetime: pass ['ttl' => seconds], or return \"expires_in\", \
         \"expires_at\" or a JWT with \"exp\""
        .into())
}

/// Null is how many clients spell "absent".
fn given<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    fields.get(name).filter(|value| !value.is_null())
}

/// When the token was issued, by the issuer's own clock. Salesforce sends milliseconds in a string.
fn issued(fields: &Map<String, Value>) -> Option<f64> {
    ["iat", "issued_at"].iter().find_map(|name| fields.get(*name)).and_then(instant)
}

fn until(
    name: &str,
    expiry_ms: f64,
    issued_ms: Option<f64>,
    wall_now: WallTime,
) -> Result<Lifetime, String> {
    if let Some(issued) = issued_ms {
        return span(name, expiry_ms - issued);
    }
    let left = expiry_ms - wall_now.unix_millis() as f64;
    if left <= 0.0 {
        return Err(format!(
            "by this host's clock \"{name}\" has passed: check the clock and the issuer's \
             response, or pass ['ttl' => seconds]"
        ));
    }
    Ok(Lifetime { clock_dependent: true, ..span(name, left)? })
}

/// A lifetime in milliseconds, if it can be one.
fn span(name: &str, millis: f64) -> Result<Lifetime, String> {
    if millis < 1.0 {
        return Err(format!("\"{name}\" leaves the token no lifetime, expected one above zero"));
    }
    if millis > LONGEST.as_millis() as f64 {
        return Err(format!(
            "\"{name}\" means more than 10 years: check its unit, or pass ['ttl' => seconds]"
        ));
    }
    Ok(Lifetime { length: Duration::from_millis(millis as u64), clock_dependent: false })
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
