//! What an issuer or a provider, or something before it, says instead of a token or a sheet.

use serde_json::{Map, Value};

use crate::error::{REMOVED, may_be_secret, redact};

/// Its own words (RFC 6749, section 5.2, and what others make of it), as a sentence.
pub fn of(fields: &Map<String, Value>) -> Option<String> {
    let error = fields.get("error").filter(|error| !is_none(error))?;
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let inner = |name: &str| error.get(name).and_then(Value::as_str);
    let code = match error {
        Value::String(code) => code.clone(),
        Value::Bool(_) => String::new(),
        Value::Object(_) => {
            ["type", "code", "status"].into_iter().find_map(inner).unwrap_or_default().into()
        }
        Value::Number(code) => code.to_string(),
        Value::Array(_) | Value::Null => String::new(),
    };
    let description = text(fields.get("error_description"))
        .or_else(|| {
            ["message", "info", "description"].into_iter().find_map(inner).map(str::to_owned)
        })
        .or_else(|| text(fields.get("message")));
    Some(said(&code, description.as_deref().unwrap_or_default()))
}

/// False, zero and emptiness are how some say that there was none.
fn is_none(error: &Value) -> bool {
    match error {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) => false,
    }
}

fn said(code: &str, description: &str) -> String {
    if code.is_empty() && description.is_empty() {
        return "and it does not say why".into();
    }
    let between = if code.is_empty() || description.is_empty() { "" } else { ": " };
    redact(&without_long_secrets(&format!("it says: {code}{between}{description}")))
}

/// Some say back the token or the key that they refuse. Long words of letters and digits are taken for one.
fn without_long_secrets(text: &str) -> String {
    let of_a_secret = |c: char| c.is_ascii_alphanumeric() || "-._~+/=".contains(c);
    let mut words: Vec<&str> =
        text.split(|c| !of_a_secret(c)).filter(|word| may_be_secret(word)).collect();
    words.sort_by_key(|word| std::cmp::Reverse(word.len()));
    words.into_iter().fold(text.to_owned(), |text, word| text.replace(word, REMOVED))
}

/// A text that is no token, by what it looks like. It is not quoted: it may hold one.
pub fn of_text(text: &str, at: usize) -> String {
    if text.contains("access_token=") {
        return "the returned text looks form-encoded, expected JSON: send the header \"Accept: \
                application/json\" to the issuer"
            .into();
    }
    if text.starts_with("error=") || text.contains("&error=") {
        let field = |name: &str| {
            let found = form_urlencoded::parse(text.as_bytes()).find(|(key, _)| key == name);
            found.map(|(_, value)| value.into_owned()).unwrap_or_default()
        };
        let words = said(&field("error"), &field("error_description"));
        return format!("the issuer's answer is an error, {words}");
    }
    let like = match text.trim_start().chars().next() {
        Some('<') => "begins like markup",
        Some('[' | '"') => "begins like JSON, but is no object",
        _ if text.contains(' ') => "has words in it",
        _ => {
            return format!(
                "the returned text has a character at byte {at} that no bearer token has (RFC 6750): if it is a \
             token, pass ['opaque' => true]"
            );
        }
    };
    format!(
        "the returned text {like}, not like a token: throw an exception when the issuer answers with an error"
    )
}
