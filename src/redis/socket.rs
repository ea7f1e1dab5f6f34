//! A socket whose every send and receive ends by one deadline, in a process that forks and is sent
//! signals. Knows bytes, not Redis.
//!
//! - A time limit counts for the operation and from the last byte that came: an answer that is long, or that
//!   waits behind others, is not late while it comes. However slowly it does, there is an end.
//! - A forked child closes what it inherited and says nothing on it: see [`Own`].

use std::io::{self, Read, Write};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket as Descriptor, TcpKeepalive, Type};

use crate::clock::{Uptime, system};
use crate::process::Own;

/// What a connection speaks through: a [`Socket`], or TLS over one.
pub trait Transport: Read + Write + Send {
    fn set_limit(&mut self, limit: Limit);
}

/// How long reading and writing may take from now on.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// The end, when nothing comes until then.
    deadline: Uptime,
    /// Each byte that comes puts the end off to so long after it.
    silence: Duration,
    /// But not beyond this.
    latest: Uptime,
}

impl Limit {
    /// While an answer comes it may take so many times what may pass without a byte of it.
    const WHILE_IT_COMES: u32 = 4;

    pub fn deadline(&self) -> Uptime {
        self.deadline
    }

    pub fn by(deadline: Uptime) -> Self {
        Self { deadline, silence: Duration::ZERO, latest: deadline }
    }

    /// An answer that begins within `first`, and then pauses for no longer than `silence`.
    pub fn answer(now: Uptime, first: Duration, silence: Duration) -> Self {
        let latest = now.plus(first + silence * (Self::WHILE_IT_COMES - 1));
        Self { deadline: now.plus(first), silence, latest }
    }

    /// A byte came.
    pub fn came(&mut self, now: Uptime) {
        self.deadline = self.deadline.max(now.plus(self.silence)).min(self.latest);
    }
}

pub struct Socket {
    descriptor: Own<Descriptor>,
    limit: Limit,
}

impl Socket {
    /// Blocks until `deadline` at the latest.
    pub fn connect(address: &SockAddr, deadline: Uptime) -> io::Result<Self> {
        // Close-on-exec from birth: `Descriptor::new` asks for SOCK_CLOEXEC.
        let descriptor = Descriptor::new(address.domain(), Type::STREAM, None)?;
        if address.domain() != Domain::UNIX {
            descriptor.set_tcp_nodelay(true)?;
            // An idle connection whose peer has gone is noticed within a minute, and sent data
            // that nobody acknowledges within five seconds: all deadlines here are shorter.
            descriptor.set_tcp_keepalive(
                &TcpKeepalive::new()
                    .with_time(Duration::from_secs(30))
                    .with_interval(Duration::from_secs(10))
                    .with_retries(3),
            )?;
            descriptor.set_tcp_user_timeout(Some(Duration::from_secs(5)))?;
        }
        let socket = Self { descriptor: Own::new(descriptor)?, limit: Limit::by(deadline) };
        socket.finish_connect(address)?;
        Ok(socket)
    }

    fn finish_connect(&self, address: &SockAddr) -> io::Result<()> {
        let descriptor = self.descriptor.get()?;
        // A send timeout bounds connect, on unix sockets too, where a full backlog blocks.
        descriptor.set_write_timeout(Some(left(self.limit.deadline)?))?;
        descriptor.connect(address).map_err(|error| match error.raw_os_error() {
            Some(libc::EINPROGRESS | libc::EAGAIN) => io::ErrorKind::TimedOut.into(),
            _ => error,
        })
    }
}

/// What remains, at least a millisecond (zero would mean "for ever" to the kernel).
fn left(deadline: Uptime) -> io::Result<Duration> {
    let left = system::monotonic().until(deadline);
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Whether to ask the kernel again: the clock is coarser than its timers, and a stopped and
/// continued process is interrupted although its signals are held. The deadline ends both.
fn again(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut descriptor = self.descriptor.get()?;
        loop {
            descriptor.set_read_timeout(Some(left(self.limit.deadline)?))?;
            match Read::read(&mut descriptor, buffer) {
                Ok(0) if !buffer.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if again(&error) => {}
                done => {
                    self.limit.came(system::monotonic());
                    return done;
                }
            }
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let descriptor = self.descriptor.get()?;
        loop {
            descriptor.set_write_timeout(Some(left(self.limit.deadline)?))?;
            // PHP does not ignore SIGPIPE, and a held one would be delivered later.
            match descriptor.send_with_flags(buffer, libc::MSG_NOSIGNAL) {
                Err(error) if again(&error) => {}
                done => return done,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Transport for Socket {
    fn set_limit(&mut self, limit: Limit) {
        self.limit = limit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_late_by_its_last_byte_and_has_an_end_however_it_comes() {
        let (at, ms) = (Uptime::from_millis, Duration::from_millis);
        let mut limit = Limit::answer(at(1_000), ms(250), ms(250));
        assert_eq!(limit.deadline, at(1_250));
        limit.came(at(1_200));
        assert_eq!(limit.deadline, at(1_450));
        for byte in 0..100 {
            limit.came(at(1_400 + byte * 20));
        }
        assert_eq!(limit.deadline, at(2_000));
        let mut limit = Limit::by(at(1_250));
        limit.came(at(1_200));
        assert_eq!(limit.deadline, at(1_250), "a handshake ends by its deadline");
    }
}
