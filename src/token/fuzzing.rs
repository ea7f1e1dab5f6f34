#![allow(clippy::panic, clippy::unwrap_used)] // A property fails by a panic, as a test does.
//! What issuers write: a token response, and a JWT.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;
use crate::fuzzing::{SECRET, check_sentence, lines};
use crate::store::MAX_REASON;

/// 2026-11-23T10:00:00Z.
const WALL: WallTime = WallTime::from_unix_millis(1_795_428_000_000);
const FROM: Moment = Moment::from_millis(5_000);
const POLICY: TokenPolicy = TokenPolicy { margin: Duration::from_secs(60), refresh_ratio: 0.8 };

/// A token response: how it came in the first line (`text`, `json` or `object`, then perhaps `ttl`), and
/// the response in the others.
///
/// - An error message fits a reason and shows no value of the response, because the whole fleet gets it.
/// - A token that is accepted fits a header, lives for at most ten years from the mint, and has its four
///   instants in order.
/// - No field that is kept beside a token contains the token.
pub fn token_response(bytes: &[u8]) -> bool {
    let [how, response] = lines(bytes);
    let keep = ["scope", "data", "instance_url", "list"].map(str::to_owned).to_vec();
    let options = TokenOptions::new(POLICY).keep(keep);
    let mut options = options.unwrap();
    if how.ends_with(b"ttl") {
        options.ttl = Some(Duration::from_secs(3600));
    }
    if how.starts_with(b"text") {
        return check(Answer::Text(response.to_vec()), &options);
    }
    if how.starts_with(b"object") {
        let token = String::from_utf8_lossy(response.get(8..).unwrap_or_default()).into_owned();
        let expires = response.first_chunk().map(|bytes| i64::from_be_bytes(*bytes));
        return check(Answer::Object { token, expires }, &options);
    }
    let Ok(mut response) = serde_json::from_slice::<Value>(response) else { return false };
    let taken = check(Answer::Json(response.clone()), &options);
    // Once more, with a token that can be recognized.
    for name in ["access_token", "token", "refresh_token", "id_token"] {
        if let Some(Value::String(token)) = response.get_mut(name) {
            token.insert_str(0, SECRET);
        }
    }
    check(Answer::Json(response), &options);
    taken
}

fn check(answer: Answer, options: &TokenOptions) -> bool {
    match read(answer, options, FROM, WALL) {
        Err(why) => {
            // What follows are the issuer's own words.
            check_sentence(why.split(", it says: ").next().unwrap_or_default());
            assert!(why.len() <= MAX_REASON, "{} bytes", why.len());
            false
        }
        Ok(token) => {
            assert!(!token.value.trim().is_empty() && !token.value.contains(char::is_control));
            let Timing { minted_at, refresh_at, usable_until, expires_at } = token.timing;
            assert_eq!(minted_at, FROM);
            assert!(minted_at <= refresh_at && refresh_at <= usable_until);
            assert!(usable_until <= expires_at && minted_at < expires_at);
            assert!(minted_at.until(expires_at) <= lifetime::LONGEST);
            let shown = |value: &Value| shows(value, &token.value);
            assert!(!token.kept.values().any(shown), "kept beside itself");
            assert!(!format!("{token:?}").contains(SECRET));
            true
        }
    }
}

/// Whether a string within the value has the token in it. Of a few letters any string may have them.
fn shows(value: &Value, token: &str) -> bool {
    match value {
        Value::String(text) => text == token || token.len() >= 8 && text.contains(token),
        Value::Array(values) => values.iter().any(|value| shows(value, token)),
        Value::Object(fields) => fields.values().any(|value| shows(value, token)),
        _ => false,
    }
}

/// A JWT: header, claims and signature in three lines, or one that is encoded already in one line.
///
/// - Claims are only read from three parts of base64url with a JSON object in the middle.
/// - The same claims, encoded again, are read again.
pub fn jwt(bytes: &[u8]) -> bool {
    let [header, claims, signature] = lines(bytes);
    let given = if bytes.contains(&b'\n') {
        let parts = [header, claims, signature].map(|part| URL_SAFE_NO_PAD.encode(part));
        parts.join(".")
    } else {
        String::from_utf8_lossy(bytes).into_owned()
    };
    check(Answer::Text(given.clone().into_bytes()), &TokenOptions::new(POLICY));
    let Some(claims) = jwt::claims(&given) else { return false };
    assert_eq!(given.split('.').count(), 3);
    let payload = Value::Object(claims.clone()).to_string();
    let again = format!("e30.{}.", URL_SAFE_NO_PAD.encode(&payload));
    let again = jwt::claims(&again).map(|claims| claims.into_iter().map(|(name, _)| name));
    assert!(again.is_some_and(|names| names.eq(claims.into_iter().map(|(name, _)| name))));
    true
}
