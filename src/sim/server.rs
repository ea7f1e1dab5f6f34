//! A Redis: one core with a queue before it, a clock of its own, scripts that must be loaded, and readers that wait for a line.

use std::collections::{BTreeSet, VecDeque};

use super::clock::{Hands, MS, Micros};
use super::data::{Data, Place, place};
use super::lua;
use super::resp::{self, Reply, number};

/// What a command takes of the core, in microseconds, as it was measured.
mod cost {
    pub const READ: i64 = 11;
    pub const SCRIPT: i64 = 22;
    pub const BUSY: i64 = 7;
    pub const OTHER: i64 = 2;
    /// For each key.
    pub const VERSION: i64 = 1;
    pub const BODY: i64 = 8;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Master,
    /// It was a master, and has another one now.
    Replica,
}

pub struct Server {
    pub data: Data,
    pub clock: Hands,
    pub role: Role,
    /// Whether anybody listens.
    pub up: bool,
    /// It stands still until then, and what arrives lies in its buffers.
    pub frozen_until: Micros,
    /// Everything takes so many times what it should.
    pub slowness: i64,
    busy_until: Micros,
    scripts: BTreeSet<Vec<u8>>,
    queue: VecDeque<(usize, Vec<u8>)>,
    readers: Vec<Reader>,
    readings: u64,
    /// Commands carried out.
    pub commands: u64,
    /// Of them, those about keys, and not about whether there is news.
    pub about_keys: u64,
    /// How long its core was busy.
    pub busy: Micros,
}

/// Who waits for a line.
struct Reader {
    connection: usize,
    number: u64,
    wish: Wish,
}

/// An answer, and when it leaves.
pub struct Answer {
    pub connection: usize,
    pub bytes: Vec<u8>,
    pub leaves: Micros,
}

/// What came of one request.
enum Done {
    Answered(Reply),
    /// A reader waits for so long.
    Waits(Wish, Micros),
}

/// What a reader waits for.
struct Wish {
    stream: Vec<u8>,
    after: Place,
    most: usize,
}

/// What is to be done after a request was carried out.
pub enum Task {
    Answer(Answer),
    /// On that connection the reading of that number ends then.
    Patience(usize, u64, Micros),
    /// This row may have changed, by who wants to take a lease over from that secret.
    Changed(Vec<u8>, Vec<u8>),
}

impl Server {
    pub fn new(clock: Hands) -> Self {
        Self {
            data: Data::default(),
            clock,
            role: Role::Master,
            up: true,
            frozen_until: 0,
            slowness: 1,
            busy_until: 0,
            scripts: BTreeSet::new(),
            queue: VecDeque::new(),
            readers: Vec::new(),
            readings: 0,
            commands: 0,
            about_keys: 0,
            busy: 0,
        }
    }

    /// Forgets all that was not written down, and everything is not.
    pub fn restart(&mut self) {
        self.data.clear();
        self.scripts.clear();
        self.readers.clear();
        self.queue.clear();
    }

    pub fn demote(&mut self) {
        self.role = Role::Replica;
        self.data.read_only = true;
    }

    /// Requests arrive. When it comes to them, if it has others to do first or stands still.
    pub fn arrive(&mut self, connection: usize, bytes: Vec<u8>, now: Micros) -> Option<Micros> {
        self.queue.push_back((connection, bytes));
        (self.queue.len() == 1).then(|| self.free_at(now))
    }

    /// Whose request is next.
    pub fn front(&self) -> Option<usize> {
        self.queue.front().map(|(connection, _)| *connection)
    }

    fn free_at(&self, now: Micros) -> Micros {
        now.max(self.busy_until).max(self.frozen_until)
    }

    /// The next of the queue, if it is time. The answers, and when it comes to the one after it.
    pub fn work(&mut self, now: Micros, tasks: &mut Vec<Task>) -> Option<Micros> {
        if self.free_at(now) > now {
            return (!self.queue.is_empty()).then(|| self.free_at(now));
        }
        if let Some((connection, bytes)) = self.queue.pop_front() {
            self.carry_out(connection, &bytes, now, tasks);
        }
        (!self.queue.is_empty()).then(|| self.free_at(now))
    }

    fn carry_out(&mut self, connection: usize, bytes: &[u8], now: Micros, tasks: &mut Vec<Task>) {
        let (mut rest, mut out, mut at) = (bytes, Vec::new(), now);
        while let Some(words) = resp::request(&mut rest) {
            self.commands += 1;
            let (done, cost) = self.command(&words, at);
            at += cost * self.slowness;
            self.busy += cost * self.slowness;
            match done {
                Done::Answered(reply) => reply.write(&mut out),
                Done::Waits(wish, patience) => {
                    self.readings += 1;
                    let number = self.readings;
                    self.readers.push(Reader { connection, number, wish });
                    tasks.push(Task::Patience(connection, number, at + patience));
                }
            }
            // One without a key changes nothing.
            if words[0] == b"EVALSHA" && words.len() > 3 {
                let takeover = words.get(10).copied().unwrap_or_default();
                tasks.push(Task::Changed(words[3].to_vec(), takeover.to_vec()));
                at = self.tell_readers(at, tasks);
            }
        }
        self.busy_until = at;
        if !out.is_empty() {
            tasks.push(Task::Answer(Answer { connection, bytes: out, leaves: at }));
        }
    }

    fn command(&mut self, words: &[&[u8]], now: Micros) -> (Done, i64) {
        let wall = self.clock.wall(now);
        let (reply, cost) = match words[0] {
            b"EVALSHA" => return self.script(words, wall),
            b"SCRIPT" => {
                let sha = lua::load(words[2]);
                self.scripts.insert(sha.clone());
                (Reply::Text(sha), cost::SCRIPT)
            }
            b"XREAD" => {
                // XREAD COUNT most BLOCK patience STREAMS stream after
                let (most, patience) = (number(words[2]), number(words[4]));
                let (stream, after) = (words[6], place(words[7]).unwrap_or_default());
                let most = most.unwrap_or(0) as usize;
                match self.data.lines_after(stream, after, most, wall / MS) {
                    Some(lines) => (lines, cost::READ),
                    None => {
                        let wish = Wish { stream: stream.to_vec(), after, most };
                        return (Done::Waits(wish, patience.unwrap_or(0) * MS), cost::READ);
                    }
                }
            }
            b"CLIENT" => (Reply::Status("OK"), cost::OTHER),
            b"ROLE" => {
                let role = if self.role == Role::Master { "master" } else { "slave" };
                (Reply::Array(vec![Reply::text(role.as_bytes())]), cost::OTHER)
            }
            _ => (self.data.command(words, wall), cost::OTHER),
        };
        (Done::Answered(reply), cost)
    }

    /// EVALSHA sha count key… argument…
    fn script(&mut self, words: &[&[u8]], wall: i64) -> (Done, i64) {
        if !self.scripts.contains(words[1]) {
            let error = "NOSCRIPT No matching script. Please use EVAL.".into();
            return (Done::Answered(Reply::Error(error)), cost::OTHER);
        }
        self.about_keys += 1;
        let keys = number(words[2]).unwrap_or(0) as usize;
        let (keys, arguments) = words[3..].split_at(keys);
        let reply = lua::run(&mut self.data, wall, words[1], keys, arguments);
        let cost = match (&reply, arguments.is_empty()) {
            (Reply::Array(parts), true) if matches!(parts.get(1), Some(Reply::Array(_))) => {
                cost::READ + cost::BODY * keys.len() as i64
            }
            (_, true) => {
                self.about_keys -= 1;
                cost::READ + cost::VERSION * keys.len() as i64
            }
            (Reply::Array(parts), _) if parts.get(2) == Some(&Reply::text(b"busy")) => cost::BUSY,
            _ => cost::SCRIPT,
        };
        (Done::Answered(reply), cost)
    }

    /// Whoever waits for a line that is there now hears of it.
    fn tell_readers(&mut self, mut at: Micros, tasks: &mut Vec<Task>) -> Micros {
        let ms = self.clock.wall(at) / MS;
        let (data, slowness) = (&mut self.data, self.slowness);
        let mut busy = 0;
        self.readers.retain(|reader| {
            let Wish { stream, after, most } = &reader.wish;
            let lines = data.lines_after(stream, *after, *most, ms);
            let Some(lines) = lines else { return true };
            at += cost::READ * slowness;
            busy += cost::READ * slowness;
            let mut bytes = Vec::new();
            lines.write(&mut bytes);
            let connection = reader.connection;
            tasks.push(Task::Answer(Answer { connection, bytes, leaves: at }));
            false
        });
        self.busy += busy;
        at
    }

    /// A reader has waited for long enough.
    pub fn patience_over(&mut self, number: u64, now: Micros) -> Option<Answer> {
        let at = self.readers.iter().position(|reader| reader.number == number)?;
        let connection = self.readers.swap_remove(at).connection;
        let mut bytes = Vec::new();
        Reply::NoLines.write(&mut bytes);
        Some(Answer { connection, bytes, leaves: now.max(self.frozen_until) })
    }

    /// Nobody reads on that connection any more.
    pub fn closed(&mut self, connection: usize) {
        self.readers.retain(|reader| reader.connection != connection);
    }
}
