//! A socket whose every send and receive ends by one deadline, in a process that forks and is sent
//! signals. Knows bytes, not Redis.
//!
//! - A timeout counts for the operation, not for one `recv`: a server that drips bytes cannot
//!   exceed it.
//! - A forked child closes what it inherited and says nothing on it: see [`Own`].

use std::io::{self, Read, Write};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket as Descriptor, TcpKeepalive, Type};

use crate::clock::{Uptime, system};
use crate::process::Own;

/// What a connection speaks through: a [`Socket`], or TLS over one.
pub trait Transport: Read + Write + Send {
    /// All reading and writing from now on ends by `deadline`.
    fn set_deadline(&mut self, deadline: Uptime);
}

pub struct Socket {
    descriptor: Own<Descriptor>,
    deadline: Uptime,
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
        let socket = Self { descriptor: Own::new(descriptor)?, deadline };
        socket.finish_connect(address)?;
        Ok(socket)
    }

    fn finish_connect(&self, address: &SockAddr) -> io::Result<()> {
        let descriptor = self.descriptor.get()?;
        // A send timeout bounds connect, on unix sockets too, where a full backlog blocks.
        descriptor.set_write_timeout(Some(left(self.deadline)?))?;
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
            descriptor.set_read_timeout(Some(left(self.deadline)?))?;
            match Read::read(&mut descriptor, buffer) {
                Ok(0) if !buffer.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if again(&error) => {}
                done => return done,
            }
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let descriptor = self.descriptor.get()?;
        loop {
            descriptor.set_write_timeout(Some(left(self.deadline)?))?;
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
    fn set_deadline(&mut self, deadline: Uptime) {
        self.deadline = deadline;
    }
}
