//! PHP values as plain data, so that nothing of PHP's is held once a callable has answered.

use ext_php_rs::types::{ZendHashTable, ZendObject, Zval};
use serde_json::{Map, Number, Value};

use super::string::Str;
use super::{array, zend};
use crate::entry::Kind;
use crate::token::{Answer, Unread};

/// Deeper than any token response; an array that holds itself by reference ends here.
const MAX_DEPTH: usize = 32;

/// Why a value could not be taken over.
#[derive(Debug)]
pub enum Refused {
    /// In words that continue "the callable returned …".
    Because(String),
    /// A method of the returned object threw; the exception is pending.
    Threw,
}

impl From<String> for Refused {
    fn from(sentence: String) -> Self {
        Self::Because(sentence)
    }
}

/// What a callable returned. May run user code, `getToken()` and `getExpires()`: the caller has a counted copy of the
/// value, so the object lives whatever they let go of, and what each returns is a value of ours.
pub fn answer(value: &Zval, kind: Kind) -> Result<Answer, Refused> {
    let value = value.dereference();
    if let Some(text) = Str::in_slot(value) {
        Ok(Answer::Text(text.bytes().to_vec()))
    } else if let Some(table) = value.array() {
        fields(table)
    } else if let Some(object) = value.object() {
        from_object(object, kind)
    } else {
        Err(Refused::Because(format!("{}; {}", zend::type_name(value), wanted(kind))))
    }
}

fn wanted(kind: Kind) -> &'static str {
    match kind {
        Kind::Token => {
            "it must return the token response as an array or JSON string, a token string with \
             ['ttl' => seconds], or an object with getToken()"
        }
        Kind::Sheet | Kind::Quota => {
            "it must return a sheet as an array or JSON string: base, rates, and timestamp if known"
        }
    }
}

/// The class as people write it: an anonymous one carries its file behind a NUL.
fn class_of(object: &ZendObject) -> String {
    let class = object.get_class_name().unwrap_or_default();
    class.split('\0').next().unwrap_or_default().to_owned()
}

/// The token object of league/oauth2-client and its relatives.
fn from_object(object: &ZendObject, kind: Kind) -> Result<Answer, Refused> {
    let class = class_of(object);
    let foreign = || {
        let hint =
            if class == "stdClass" { " (json_decode($text, true) makes an array)" } else { "" };
        format!("an object of class {class}{hint}; {}", wanted(kind))
    };
    if kind != Kind::Token {
        return Err(foreign().into());
    }
    let token = method(object, "getToken")?.ok_or_else(foreign)?;
    let token = Str::in_slot(token.dereference())
        .ok_or_else(|| format!("a {class} whose getToken() is not a string"))?;
    let token = std::str::from_utf8(token.bytes())
        .map_err(|_| format!("a {class} whose getToken() is not valid UTF-8"))?
        .to_owned();
    let expires =
        match method(object, "getExpires")? {
            None => None,
            Some(value) => match value.dereference() {
                at if at.is_null() => None,
                at => {
                    let date = || zend::timestamp(at.object()?);
                    Some(at.long().or_else(|| at.str()?.parse().ok()).or_else(date).ok_or_else(|| {
                    format!("a {class} whose getExpires() is neither a Unix time, a date nor null")
                })?)
                }
            },
        };
    Ok(Answer::Object { token, expires })
}

/// The fields of an array. What is no data is named and left out: it may be a field that nobody wants.
fn fields(table: &ZendHashTable) -> Result<Answer, Refused> {
    if array::is_list(table) {
        return Ok(Answer::Json(Value::Array(Vec::new())));
    }
    let (mut fields, mut unread) = (Map::new(), Unread::new());
    for (key, value) in array::entries(table) {
        let Ok(name) = key_text(&key) else { continue };
        match json(value, MAX_DEPTH) {
            Ok(value) => drop(fields.insert(name, value)),
            Err(what) => drop(unread.insert(name, what)),
        }
    }
    // A date that was never constructed.
    if zend::pending().is_some() {
        return Err(Refused::Threw);
    }
    Ok(Answer::Array(fields, unread))
}

/// The result of a public method, or of `__call`, by which a proxy stands for another object. `None`
/// when the class has neither.
fn method(object: &ZendObject, name: &str) -> Result<Option<Zval>, Refused> {
    let result = if zend::has_public_method(object, name) {
        object.try_call_method(name, Vec::new())
    } else {
        let arguments = ZendHashTable::new();
        object.try_call_method("__call", vec![&name, &arguments])
    };
    if zend::pending().is_some() {
        return Err(Refused::Threw);
    }
    Ok(result.ok())
}

/// A value as JSON. Lists become arrays, all other arrays objects, dates the seconds since 1970. Else: what it is.
fn json(value: &Zval, depth: usize) -> Result<Value, String> {
    let value = value.dereference();
    if let Some(number) = value.long() {
        Ok(Value::from(number))
    } else if let Some(number) = value.double() {
        // The shortest text that reads back as this number: what PHP itself prints.
        // JSON has no infinity; as text it is refused where a number is wanted.
        Ok(Number::from_f64(number).map_or_else(|| number.to_string().into(), Value::Number))
    } else if let Some(text) = Str::in_slot(value) {
        let text = std::str::from_utf8(text.bytes());
        text.map(Value::from).map_err(|_| "a string that is not UTF-8".into())
    } else if let Some(flag) = value.bool() {
        Ok(Value::Bool(flag))
    } else if value.is_null() {
        Ok(Value::Null)
    } else if let Some(table) = value.array() {
        let depth = depth
            .checked_sub(1)
            .ok_or_else(|| format!("something nested more than {MAX_DEPTH} levels deep"))?;
        table_json(table, depth).map_err(|what| match what.strip_prefix(HOLDS) {
            Some(_) => what,
            None => format!("{HOLDS}{what}"),
        })
    } else if let Some(object) = value.object() {
        match zend::timestamp(object) {
            Some(seconds) => Ok(Value::from(seconds)),
            None => Err(format!("an object of class {}", class_of(object))),
        }
    } else {
        Err(format!("a {}", zend::type_name(value)))
    }
}

const HOLDS: &str = "an array that holds ";

fn table_json(table: &ZendHashTable, depth: usize) -> Result<Value, String> {
    if array::is_list(table) {
        let list = array::values(table).map(|value| json(value, depth));
        return Ok(Value::Array(list.collect::<Result<_, _>>()?));
    }
    let mut map = Map::new();
    for (key, value) in array::entries(table) {
        map.insert(key_text(&key)?, json(value, depth)?);
    }
    Ok(Value::Object(map))
}

fn key_text(key: &Zval) -> Result<String, String> {
    if let Some(number) = key.long() {
        return Ok(number.to_string());
    }
    let bytes = Str::in_slot(key).map_or(&[][..], |key| key.bytes());
    String::from_utf8(bytes.to_vec()).map_err(|_| "a key that is not UTF-8".into())
}

/// Appends `value` as bytes that no other value has: every part carries its type and its length.
/// Keys are sorted, so the order in which an array was written does not matter; the order of a
/// list does. Floats are told apart by their bits, 1 from "1".
pub fn canonical(value: &Zval, out: &mut Vec<u8>) -> Result<(), String> {
    canonical_within(value, MAX_DEPTH, out)
}

fn canonical_within(value: &Zval, depth: usize, out: &mut Vec<u8>) -> Result<(), String> {
    let value = value.dereference();
    if let Some(number) = value.long() {
        part(b'i', &number.to_be_bytes(), out);
    } else if let Some(number) = value.double() {
        part(b'f', &number.to_bits().to_be_bytes(), out);
    } else if let Some(text) = Str::in_slot(value) {
        part(b's', text.bytes(), out);
    } else if let Some(flag) = value.bool() {
        part(b'b', &[u8::from(flag)], out);
    } else if value.is_null() {
        part(b'n', &[], out);
    } else if let Some(table) = value.array() {
        let depth = depth
            .checked_sub(1)
            .ok_or_else(|| format!("is nested more than {MAX_DEPTH} levels deep"))?;
        let mut pairs = Vec::with_capacity(table.len());
        for (key, value) in array::entries(table) {
            let (mut left, mut right) = (Vec::new(), Vec::new());
            canonical_within(&key, depth, &mut left)?;
            canonical_within(value, depth, &mut right)?;
            pairs.push((left, right));
        }
        pairs.sort();
        let body: Vec<u8> = pairs.into_iter().flat_map(|(k, v)| [k, v].concat()).collect();
        part(b'a', &body, out);
    } else {
        return Err(format!("holds a value of type {}", zend::type_name(value)));
    }
    Ok(())
}

fn part(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// JSON as a PHP value: objects become arrays.
pub fn to_php(value: &Value) -> ext_php_rs::error::Result<Zval> {
    let mut result = Zval::new();
    match value {
        Value::Null => result.set_null(),
        Value::Bool(flag) => result.set_bool(*flag),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => result.set_long(whole),
            (None, float) => result.set_double(float.unwrap_or(f64::NAN)),
        },
        Value::String(text) => result.set_string(text, false)?,
        Value::Array(list) => {
            let mut table = ZendHashTable::with_capacity(u32::try_from(list.len())?);
            for value in list {
                table.push(to_php(value)?)?;
            }
            result.set_hashtable(table);
        }
        Value::Object(map) => {
            let mut table = ZendHashTable::with_capacity(u32::try_from(map.len())?);
            for (name, value) in map {
                table.insert(name.as_str(), to_php(value)?)?;
            }
            result.set_hashtable(table);
        }
    }
    Ok(result)
}
