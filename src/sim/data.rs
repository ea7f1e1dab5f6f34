//! What a server keeps, and the commands that scripts and clients of ours use, as Redis carries them out.

use std::collections::{BTreeMap, VecDeque};

use super::resp::{Reply, number};

type Text = Vec<u8>;

/// A line's place: milliseconds and number.
pub type Place = (u64, u64);

#[derive(Clone, Debug, Default)]
pub struct Stream {
    pub lines: VecDeque<(Place, Vec<Text>)>,
    last: Place,
}

#[derive(Clone, Debug)]
pub enum Value {
    Hash(Vec<(Text, Text)>),
    Text(Text),
    Stream(Stream),
}

#[derive(Clone, Debug)]
struct Item {
    value: Value,
    /// By this server's clock, in milliseconds.
    expires: Option<i64>,
}

#[derive(Clone, Debug, Default)]
pub struct Data {
    items: BTreeMap<Text, Item>,
    /// A replica's: what is read may be answered, and nothing is written.
    pub read_only: bool,
}

/// A stream is trimmed by whole nodes.
const NODE: usize = 100;

const WRITES: [&[u8]; 6] = [b"HSET", b"HDEL", b"SET", b"DEL", b"PEXPIRE", b"XADD"];

fn wrong_type() -> Reply {
    Reply::Error("WRONGTYPE Operation against a key holding the wrong kind of value".into())
}

impl Data {
    /// `now`: this server's clock, in microseconds.
    pub fn command(&mut self, words: &[&[u8]], now: i64) -> Reply {
        let ms = now / 1000;
        let name = words[0];
        if self.read_only && WRITES.contains(&name) {
            return Reply::Error(
                "READONLY You can't write against a read only replica.".to_owned(),
            );
        }
        let key = words.get(1).copied().unwrap_or_default();
        match name {
            b"TIME" => Reply::Array(vec![
                Reply::Text((now / 1_000_000).to_string().into_bytes()),
                Reply::Text((now % 1_000_000).to_string().into_bytes()),
            ]),
            b"GET" => match self.value(key, ms) {
                None => Reply::Nil,
                Some(Value::Text(text)) => Reply::text(text),
                Some(_) => wrong_type(),
            },
            b"HGET" => self.hash(key, ms, |hash| field(hash, words[2])),
            b"HMGET" => self.hash(key, ms, |hash| {
                Reply::Array(words[2..].iter().map(|name| field(hash, name)).collect())
            }),
            b"PTTL" => match self.item(key, ms) {
                None => Reply::Number(-2),
                Some(Item { expires: None, .. }) => Reply::Number(-1),
                Some(Item { expires: Some(at), .. }) => Reply::Number(*at - ms),
            },
            b"SET" => {
                let expires = (words[3] == b"PX").then(|| number(words[4]).map(|span| ms + span));
                let item = Item { value: Value::Text(words[2].into()), expires: expires.flatten() };
                self.items.insert(key.into(), item);
                Reply::Status("OK")
            }
            b"PEXPIRE" => {
                let Some(span) = number(words[2]) else { return not_a_number() };
                match self.item(key, ms) {
                    None => Reply::Number(0),
                    Some(item) => {
                        item.expires = Some(ms + span);
                        Reply::Number(1)
                    }
                }
            }
            b"HSET" => self.set(key, &words[2..], ms),
            b"HDEL" => self.remove_fields(key, &words[2..], ms),
            b"DEL" => Reply::number(words[1..].iter().filter(|key| self.delete(key)).count()),
            b"XADD" => self.add_line(words, ms),
            b"XREVRANGE" => self.lines_back(words, ms),
            _ => Reply::Error(format!("ERR unknown command '{}'", String::from_utf8_lossy(name))),
        }
    }

    fn item(&mut self, key: &[u8], ms: i64) -> Option<&mut Item> {
        let item = self.items.get(key)?;
        if item.expires.is_some_and(|at| at <= ms) {
            // A replica keeps it until its master says so, and answers as if it were gone.
            if !self.read_only {
                self.items.remove(key);
            }
            return None;
        }
        self.items.get_mut(key)
    }

    fn value(&mut self, key: &[u8], ms: i64) -> Option<&mut Value> {
        self.item(key, ms).map(|item| &mut item.value)
    }

    fn hash(&mut self, key: &[u8], ms: i64, read: impl FnOnce(&[(Text, Text)]) -> Reply) -> Reply {
        match self.value(key, ms) {
            None => read(&[]),
            Some(Value::Hash(hash)) => read(hash),
            Some(_) => wrong_type(),
        }
    }

    fn set(&mut self, key: &[u8], pairs: &[&[u8]], ms: i64) -> Reply {
        if self.item(key, ms).is_none() {
            let item = Item { value: Value::Hash(Vec::new()), expires: None };
            self.items.insert(key.into(), item);
        }
        let Some(Value::Hash(hash)) = self.value(key, ms) else { return wrong_type() };
        let mut new = 0;
        for pair in pairs.chunks(2) {
            match hash.iter_mut().find(|(name, _)| name == pair[0]) {
                Some((_, value)) => *value = pair[1].into(),
                None => {
                    new += 1;
                    hash.push((pair[0].into(), pair[1].into()));
                }
            }
        }
        Reply::Number(new)
    }

    fn remove_fields(&mut self, key: &[u8], names: &[&[u8]], ms: i64) -> Reply {
        let Some(value) = self.value(key, ms) else { return Reply::Number(0) };
        let Value::Hash(hash) = value else { return wrong_type() };
        let before = hash.len();
        hash.retain(|(name, _)| !names.contains(&name.as_slice()));
        let (removed, empty) = (before - hash.len(), hash.is_empty());
        if empty {
            self.items.remove(key);
        }
        Reply::number(removed)
    }

    pub fn delete(&mut self, key: &[u8]) -> bool {
        self.items.remove(key).is_some()
    }

    pub fn remove(&mut self, key: &[u8]) {
        self.delete(key);
    }

    pub fn clear(&mut self) {
        self.items.clear();
    }

    /// `XADD key MAXLEN ~ count * field value …`
    fn add_line(&mut self, words: &[&[u8]], ms: i64) -> Reply {
        let item = self.items.entry(words[1].into());
        let item =
            item.or_insert_with(|| Item { value: Value::Stream(Stream::default()), expires: None });
        let Value::Stream(stream) = &mut item.value else { return wrong_type() };
        let most = number(words[4]).unwrap_or(i64::MAX) as usize;
        let ms = ms.max(0) as u64;
        stream.last = if ms > stream.last.0 { (ms, 0) } else { (stream.last.0, stream.last.1 + 1) };
        let fields = words[6..].iter().map(|word| word.to_vec()).collect();
        stream.lines.push_back((stream.last, fields));
        if stream.lines.len() >= most + NODE {
            stream.lines.drain(..NODE);
        }
        Reply::Text(shown(stream.last).into_bytes())
    }

    /// Of `XTRIM key MAXLEN keep`.
    pub fn trim(&mut self, key: &[u8], keep: usize) {
        if let Some(Item { value: Value::Stream(stream), .. }) = self.items.get_mut(key) {
            let cut = stream.lines.len().saturating_sub(keep);
            stream.lines.drain(..cut);
        }
    }

    /// The milliseconds of the stream's last line.
    pub fn last_line(&self, key: &[u8]) -> i64 {
        match self.items.get(key).map(|item| &item.value) {
            Some(Value::Stream(stream)) => stream.last.0 as i64,
            _ => 0,
        }
    }

    fn stream(&mut self, key: &[u8], ms: i64) -> Result<Option<&Stream>, Reply> {
        match self.value(key, ms) {
            None => Ok(None),
            Some(Value::Stream(stream)) => Ok(Some(stream)),
            Some(_) => Err(wrong_type()),
        }
    }

    /// `XREVRANGE key from to COUNT 1`: the last line, or the one at a place.
    fn lines_back(&mut self, words: &[&[u8]], ms: i64) -> Reply {
        let stream = match self.stream(words[1], ms) {
            Ok(stream) => stream,
            Err(error) => return error,
        };
        let Some(Stream { lines, .. }) = stream else { return Reply::Array(Vec::new()) };
        let found = match place(words[2]) {
            None => lines.back(),
            Some(at) => lines.binary_search_by_key(&at, |(at, _)| *at).ok().map(|at| &lines[at]),
        };
        Reply::Array(found.into_iter().map(line).collect())
    }

    /// The lines of the stream after a place. `None`: there are none.
    pub fn lines_after(&mut self, key: &[u8], after: Place, most: usize, ms: i64) -> Option<Reply> {
        let stream = match self.stream(key, ms) {
            Ok(stream) => stream?,
            Err(error) => return Some(error),
        };
        let from = stream.lines.partition_point(|(at, _)| *at <= after);
        if from == stream.lines.len() {
            return None;
        }
        let lines = stream.lines.iter().skip(from).take(most).map(line).collect();
        Some(Reply::Array(vec![Reply::Array(vec![Reply::text(key), Reply::Array(lines)])]))
    }

    /// A field of a hash, for who watches.
    pub fn peek(&self, key: &[u8], name: &[u8]) -> Option<&[u8]> {
        let Value::Hash(hash) = &self.items.get(key)?.value else { return None };
        hash.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_slice())
    }

    /// A text and when it ends by this server's clock, for who watches.
    pub fn peek_text(&self, key: &[u8]) -> Option<(&[u8], Option<i64>)> {
        let item = self.items.get(key)?;
        let Value::Text(text) = &item.value else { return None };
        Some((text, item.expires))
    }

    /// Puts something else there.
    pub fn put(&mut self, key: &[u8], value: Value) {
        self.items.insert(key.into(), Item { value, expires: None });
    }
}

fn not_a_number() -> Reply {
    Reply::Error("ERR value is not an integer or out of range".into())
}

fn field(hash: &[(Text, Text)], name: &[u8]) -> Reply {
    hash.iter().find(|(field, _)| field == name).map_or(Reply::Nil, |(_, value)| Reply::text(value))
}

fn line((at, fields): &(Place, Vec<Text>)) -> Reply {
    let fields = fields.iter().map(|field| Reply::text(field)).collect();
    Reply::Array(vec![Reply::Text(shown(*at).into_bytes()), Reply::Array(fields)])
}

fn shown((ms, number): Place) -> String {
    format!("{ms}-{number}")
}

/// `None` for an end of the stream.
pub fn place(text: &[u8]) -> Option<Place> {
    let (ms, number) = std::str::from_utf8(text).ok()?.split_once('-')?;
    Some((ms.parse().ok()?, number.parse().ok()?))
}
