//! The scripts, as they are sent to Redis, in the Lua of Redis: what `redis.call` answers is what it answers there.

use std::cell::RefCell;
use std::collections::HashMap;

use mlua::{Error, Function, Lua, LuaString, MultiValue, Table, Value};

use super::data::Data;
use super::resp::Reply;
use super::rules;

struct Interpreter {
    lua: Lua,
    /// By the SHA-1 that clients call them by.
    scripts: RefCell<HashMap<Vec<u8>, Function>>,
}

thread_local! {
    /// One for all worlds of a thread: a script keeps nothing from one call to the next.
    static INTERPRETER: Interpreter = Interpreter::new();
    /// What the script that runs works on, and what time it is there.
    static UNDER: RefCell<(Data, i64)> = RefCell::default();
}

impl Interpreter {
    fn new() -> Self {
        let lua = Lua::new();
        let redis = lua.create_table().unwrap();
        let call = lua.create_function(|lua, words: MultiValue| command(lua, words, true));
        let pcall = lua.create_function(|lua, words: MultiValue| command(lua, words, false));
        redis.set("call", call.unwrap()).unwrap();
        redis.set("pcall", pcall.unwrap()).unwrap();
        lua.globals().set("redis", redis).unwrap();
        Self { lua, scripts: RefCell::default() }
    }

    fn load(&self, text: &[u8]) -> Vec<u8> {
        let script = redis::Script::new(std::str::from_utf8(text).unwrap());
        let sha = script.get_hash().as_bytes().to_vec();
        let compile = || {
            let text = rules::script(std::str::from_utf8(text).unwrap());
            self.lua.load(text).set_name("@user_script").into_function().unwrap()
        };
        self.scripts.borrow_mut().entry(sha.clone()).or_insert_with(compile);
        sha
    }

    fn run(&self, sha: &[u8], keys: &[&[u8]], arguments: &[&[u8]]) -> Result<Reply, Error> {
        let list = |words: &[&[u8]]| -> Result<Table, Error> {
            let table = self.lua.create_table_with_capacity(words.len(), 0)?;
            for (at, word) in words.iter().enumerate() {
                table.raw_set(at + 1, self.lua.create_string(word)?)?;
            }
            Ok(table)
        };
        let globals = self.lua.globals();
        globals.raw_set("KEYS", list(keys)?)?;
        globals.raw_set("ARGV", list(arguments)?)?;
        let script = self.scripts.borrow()[sha].clone();
        reply(&script.call(())?)
    }
}

/// Runs a script over `data` at `now`, in microseconds of the server's clock.
pub fn run(data: &mut Data, now: i64, sha: &[u8], keys: &[&[u8]], arguments: &[&[u8]]) -> Reply {
    UNDER.with_borrow_mut(|under| *under = (std::mem::take(data), now));
    let answer = INTERPRETER.with(|interpreter| interpreter.run(sha, keys, arguments));
    UNDER.with_borrow_mut(|under| *data = std::mem::take(&mut under.0));
    answer.unwrap_or_else(|error| Reply::Error(said(&error)))
}

/// The SHA-1 by which the script can be called from now on.
pub fn load(text: &[u8]) -> Vec<u8> {
    INTERPRETER.with(|interpreter| interpreter.load(text))
}

/// Scripts are compiled again from here on.
pub fn forget() {
    INTERPRETER.with(|interpreter| interpreter.scripts.borrow_mut().clear());
}

/// As Redis from 7.0 on says what a command in a script failed with: its own words first.
fn said(error: &Error) -> String {
    match error {
        Error::CallbackError { cause, .. } => said(cause),
        Error::RuntimeError(text) if text.split(' ').next().is_some_and(is_code) => text.clone(),
        error => format!("ERR {}", error.to_string().replace(['\r', '\n'], " ")),
    }
}

fn is_code(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_uppercase())
}

fn command(lua: &Lua, words: MultiValue, raise: bool) -> Result<Value, Error> {
    let words: Vec<LuaString> =
        words.iter().map(|word| text(lua, word)).collect::<Result<_, _>>()?;
    let borrowed: Vec<_> = words.iter().map(LuaString::as_bytes).collect();
    let words: Vec<&[u8]> = borrowed.iter().map(|word| &**word).collect();
    let answer = UNDER.with_borrow_mut(|(data, now)| data.command(&words, *now));
    match answer {
        Reply::Error(text) if raise => Err(Error::RuntimeError(text)),
        answer => value(lua, &answer),
    }
}

fn text(lua: &Lua, value: &Value) -> Result<LuaString, Error> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => lua.create_string(number.to_string()),
        Value::Number(number) => lua.create_string(number.to_string()),
        _ => Err(Error::RuntimeError(
            "ERR Lua redis lib command arguments must be strings or integers".into(),
        )),
    }
}

/// A reply as a script gets it: no bulk is `false`, a status and an error are tables.
fn value(lua: &Lua, reply: &Reply) -> Result<Value, Error> {
    let table = |name: &str, text: &str| -> Result<Value, Error> {
        let table = lua.create_table()?;
        table.raw_set(name, text)?;
        Ok(Value::Table(table))
    };
    Ok(match reply {
        Reply::Nil | Reply::NoLines => Value::Boolean(false),
        Reply::Number(number) => Value::Number(*number as f64),
        Reply::Text(text) => Value::String(lua.create_string(text)?),
        Reply::Status(text) => table("ok", text)?,
        Reply::Error(text) => table("err", text)?,
        Reply::Array(parts) => {
            let list = lua.create_table_with_capacity(parts.len(), 0)?;
            for (at, part) in parts.iter().enumerate() {
                list.raw_set(at + 1, value(lua, part)?)?;
            }
            Value::Table(list)
        }
    })
}

/// What a script returned, as a client gets it.
fn reply(value: &Value) -> Result<Reply, Error> {
    Ok(match value {
        Value::String(text) => Reply::text(&text.as_bytes()),
        Value::Integer(number) => Reply::Number(*number),
        Value::Number(number) => Reply::Number(*number as i64),
        Value::Boolean(true) => Reply::Number(1),
        Value::Table(table) => {
            let error: Option<String> = table.raw_get("err")?;
            if let Some(error) = error {
                return Ok(Reply::Error(error));
            }
            let mut parts = Vec::new();
            for at in 1.. {
                match table.raw_get::<Value>(at)? {
                    Value::Nil => break,
                    part => parts.push(reply(&part)?),
                }
            }
            Reply::Array(parts)
        }
        _ => Reply::Nil,
    })
}
