//! What lies between hosts and servers: latency, requests and replies that are lost or late, connections that are cut or fall
//! silent, names that lead elsewhere. The stores under test speak through it as through sockets.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockAddr;

use super::clock::{self, Micros};
use super::dice::Dice;
use super::server::{Answer, Server, Task};
use super::task::{self, Event, TaskId};
use super::witness;
use crate::clock::{Uptime, system};
use crate::redis::connection;
use crate::redis::socket::{Limit, Transport};

/// How a host is connected.
#[derive(Clone, Debug, Default)]
pub struct Way {
    /// Nothing comes through until then.
    pub cut_until: Micros,
    /// Of a thousand requests so many are lost, and their connection falls silent in that direction.
    pub lost_requests: u64,
    pub lost_replies: u64,
    /// Of a thousand messages so many take up to `late_by` longer.
    pub late: u64,
    pub late_by: Micros,
    /// Every message takes so much longer.
    pub slower_by: Micros,
    /// The server that the name leads to for this host.
    pub named: usize,
}

struct Connection {
    host: usize,
    server: usize,
    reader: Option<TaskId>,
    inbox: VecDeque<u8>,
    /// The client closed it.
    left: bool,
    /// The server, or something on the way, closed it.
    reset: bool,
    /// What is sent disappears.
    deaf: bool,
    /// What is answered disappears.
    mute: bool,
    /// When the last message arrives, either way: they do not overtake each other.
    arrives: Micros,
    delivered: Micros,
}

#[derive(Default)]
pub struct Network {
    pub servers: Vec<Server>,
    pub ways: Vec<Way>,
    /// Each way, without jitter.
    pub latency: Micros,
    connections: Vec<Connection>,
    dice: Option<Dice>,
    /// Commands that each host had carried out.
    pub commands: Vec<u64>,
}

thread_local! {
    static NETWORK: RefCell<Network> = RefCell::default();
}

pub fn begin(servers: Vec<Server>, hosts: usize, latency: Micros, dice: Dice) {
    let (ways, commands) = (vec![Way::default(); hosts], vec![0; hosts]);
    NETWORK.with_borrow_mut(|network| {
        let (connections, dice) = (Vec::new(), Some(dice));
        *network = Network { servers, ways, latency, connections, dice, commands };
    });
}

pub fn with<T>(look: impl FnOnce(&mut Network) -> T) -> T {
    NETWORK.with_borrow_mut(look)
}

/// A message arrives, or it is time for something.
pub fn happens(event: Event) {
    let reader = with(|network| network.happens(event));
    if let Some(reader) = reader {
        task::wake(reader);
    }
}

impl Network {
    fn happens(&mut self, event: Event) -> Option<TaskId> {
        let now = task::now();
        match event {
            Event::Arrive(id, bytes) => self.arrived(id, bytes, now),
            Event::Work(server) => self.work(server, now),
            Event::Patience(server, id, number) => {
                let answer = self.servers[server].patience_over(number, now);
                if let Some(answer) = answer {
                    self.answered(answer);
                }
                let _ = id;
                None
            }
            Event::Deliver(id, bytes) => {
                let connection = &mut self.connections[id];
                if connection.left || connection.reset {
                    return None;
                }
                connection.inbox.extend(bytes);
                connection.reader.take()
            }
            Event::Closed(id) => {
                self.connections[id].reset = true;
                self.connections[id].reader.take()
            }
            Event::Wake(..) | Event::World(_) => None,
        }
    }

    fn arrived(&mut self, id: usize, bytes: Vec<u8>, now: Micros) -> Option<TaskId> {
        let server = self.connections[id].server;
        if !self.servers[server].up {
            self.connections[id].reset = true;
            return self.connections[id].reader.take();
        }
        if bytes.is_empty() {
            // The client's last word.
            self.servers[server].closed(id);
            return None;
        }
        if let Some(when) = self.servers[server].arrive(id, bytes, now) {
            task::at(when, Event::Work(server));
        }
        None
    }

    fn work(&mut self, index: usize, now: Micros) -> Option<TaskId> {
        let mut tasks = Vec::new();
        let server = &mut self.servers[index];
        let before = server.commands;
        let next = server.front();
        let when = server.work(now, &mut tasks);
        let carried_out = server.commands - before;
        if let Some(when) = when {
            task::at(when, Event::Work(index));
        }
        if let (Some(id), true) = (next, carried_out > 0) {
            self.commands[self.connections[id].host] += carried_out;
        }
        for done in tasks {
            match done {
                Task::Answer(answer) => self.answered(answer),
                Task::Patience(id, number, when) => {
                    task::at(when, Event::Patience(index, id, number));
                }
                Task::Changed(row, takeover) => {
                    let server = &self.servers[index];
                    let wall = server.clock.wall(now);
                    witness::row_changed(index, &row, &takeover, &server.data, wall);
                }
            }
        }
        None
    }

    fn answered(&mut self, Answer { connection: id, bytes, leaves }: Answer) {
        let connection = &self.connections[id];
        if connection.left || connection.reset || connection.mute {
            return;
        }
        let (host, delivered) = (connection.host, connection.delivered);
        let way = self.ways[host].clone();
        match self.takes(&way, way.lost_replies, leaves) {
            None => self.connections[id].mute = true,
            Some(delay) => {
                let when = (leaves + delay).max(delivered);
                self.connections[id].delivered = when;
                task::at(when, Event::Deliver(id, bytes));
            }
        }
    }

    /// How long a message takes that leaves then. `None`: it is lost.
    fn takes(&mut self, way: &Way, lost: u64, leaves: Micros) -> Option<Micros> {
        let latency = self.latency;
        let dice = self.dice.as_mut()?;
        let mut delay = latency + dice.roll(latency as u64) as i64 + way.slower_by;
        if way.lost_requests + way.lost_replies + way.late > 0 {
            if dice.roll(1000) < lost {
                return None;
            }
            if dice.roll(1000) < way.late {
                delay += dice.roll(way.late_by as u64) as i64;
            }
        }
        if leaves < way.cut_until {
            // What the kernel goes on sending arrives when the way is open again.
            if dice.one_in(2) {
                return None;
            }
            delay += way.cut_until - leaves;
        }
        Some(delay)
    }

    fn send(&mut self, id: usize, bytes: &[u8]) -> io::Result<()> {
        let connection = &self.connections[id];
        if connection.reset {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if connection.deaf {
            return Ok(());
        }
        let (host, arrives, now) = (connection.host, connection.arrives, task::now());
        let way = self.ways[host].clone();
        match self.takes(&way, way.lost_requests, now) {
            None => self.connections[id].deaf = true,
            Some(delay) => {
                let when = (now + delay).max(arrives);
                self.connections[id].arrives = when;
                task::at(when, Event::Arrive(id, bytes.to_vec()));
            }
        }
        Ok(())
    }

    /// Closes every connection to a server, or those of one host.
    pub fn cut(&mut self, server: usize, host: Option<usize>) {
        let when = task::now() + self.latency;
        for (id, connection) in self.connections.iter().enumerate() {
            let meant = host.is_none_or(|host| connection.host == host);
            if connection.server == server && meant && !connection.left && !connection.reset {
                self.servers[server].closed(id);
                task::at(when, Event::Closed(id));
            }
        }
    }

    /// The open connections of a host lead nowhere from now on, and nobody says so.
    pub fn silence(&mut self, host: usize) {
        for connection in &mut self.connections {
            if connection.host == host {
                (connection.deaf, connection.mute) = (true, true);
            }
        }
    }
}

/// A host's way into the network.
pub struct Access {
    pub host: usize,
}

fn address_of(server: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, server as u8], 6379))
}

fn server_at(address: &SockAddr) -> Option<usize> {
    Some(usize::from(address.as_socket_ipv4()?.ip().octets()[3]))
}

impl connection::Network for Access {
    fn resolve(&self, _: &str, _: u16, _: Uptime) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![address_of(with(|network| network.ways[self.host].named))])
    }

    fn connect(&self, address: &SockAddr, deadline: Uptime) -> io::Result<Box<dyn Transport>> {
        let server = server_at(address).ok_or(ErrorKind::AddrNotAvailable)?;
        let host = self.host;
        let answers = with(|network| {
            let way = network.ways[host].clone();
            let lost = way.lost_requests + way.lost_replies;
            let there = network.takes(&way, lost, task::now())?;
            Some(task::now() + 2 * there)
        });
        loop {
            if answers.is_some_and(|answers| task::now() >= answers) {
                break;
            }
            if system::monotonic() >= deadline {
                return Err(ErrorKind::TimedOut.into());
            }
            let late = until(host, deadline);
            task::pause(Some(answers.map_or(late, |answers| answers.min(late))));
        }
        with(|network| {
            if !network.servers[server].up {
                return Err(ErrorKind::ConnectionRefused.into());
            }
            let id = network.connections.len();
            network.connections.push(Connection {
                host,
                server,
                reader: None,
                inbox: VecDeque::new(),
                left: false,
                reset: false,
                deaf: false,
                mute: false,
                arrives: 0,
                delivered: 0,
            });
            Ok(Box::new(Wire { id, host, limit: Limit::by(deadline) }) as _)
        })
    }
}

/// A true time at which a host's monotonic clock will show `deadline`, if it does not stand still.
fn until(host: usize, deadline: Uptime) -> Micros {
    let left = system::monotonic().until(deadline).max(Duration::from_millis(1));
    clock::of(host).hands().after(task::now(), left)
}

/// A connection as its client has it.
struct Wire {
    id: usize,
    host: usize,
    limit: Limit,
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if system::monotonic() >= self.limit.deadline() {
            return Err(ErrorKind::TimedOut.into());
        }
        loop {
            let came = with(|network| {
                let connection = &mut network.connections[self.id];
                if !connection.inbox.is_empty() {
                    return Some(connection.inbox.read(buffer));
                }
                if connection.reset {
                    return Some(Err(ErrorKind::UnexpectedEof.into()));
                }
                connection.reader = task::current();
                None
            });
            if let Some(came) = came {
                self.limit.came(system::monotonic());
                return came;
            }
            if system::monotonic() >= self.limit.deadline() {
                return Err(ErrorKind::TimedOut.into());
            }
            task::pause(Some(until(self.host, self.limit.deadline())));
        }
    }
}

impl Write for Wire {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if system::monotonic() >= self.limit.deadline() {
            return Err(ErrorKind::TimedOut.into());
        }
        with(|network| network.send(self.id, buffer)).map(|()| buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Transport for Wire {
    fn set_limit(&mut self, limit: Limit) {
        self.limit = limit;
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        with(|network| {
            let connection = &mut network.connections[self.id];
            (connection.left, connection.reader) = (true, None);
            let (reset, deaf, arrives) = (connection.reset, connection.deaf, connection.arrives);
            connection.inbox = VecDeque::new();
            if !reset && !deaf {
                let when = (task::now() + network.latency).max(arrives);
                task::at(when, Event::Arrive(self.id, Vec::new()));
            }
        });
    }
}
