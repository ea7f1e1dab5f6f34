//! A socket whose every send and receive ends by one deadline, in a process that forks and is sent
//! signals. Knows bytes, not Redis.
//!
//! - A timeout counts for the operation, not for one `recv`: a server that drips bytes cannot
//!   exceed it.
//! - Signals of the application wait until an operation is over: see [`SignalsHeld`].
//! - A forked child closes what it inherited and says nothing on it: see [`close_inherited`].

#![allow(unsafe_code)] // sigmask, and closing by number in a fork handler; nothing else

use std::io::{self, Read, Write};
use std::mem::{self, MaybeUninit};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use std::os::fd::AsRawFd as _;

use socket2::{Domain, SockAddr, Socket as Descriptor, TcpKeepalive, Type};

use crate::clock::{Moment, system};
use crate::process;

const FREE: i32 = -1;

/// The descriptors of all open sockets of this process, for the fork handler: it may not take a
/// lock, so it cannot ask the pools. A place is written by the thread that opens and closes its
/// socket. 64 is far above what pools and log readers of one process open.
static OPEN: [AtomicI32; 64] = [const { AtomicI32::new(FREE) }; 64];

/// For the child handler of `pthread_atfork`, together with [`process::forked`]: closes every
/// inherited socket without a word to the server, which still talks to the parent on it.
/// Async-signal-safe.
pub fn close_inherited() {
    for place in &OPEN {
        let fd = place.swap(FREE, Ordering::Relaxed);
        if fd != FREE {
            // SAFETY: a registered descriptor was open in the parent when it forked, `Socket::drop`
            // unregisters before it closes, and the child has run nothing since. Nobody closes it
            // again: a `Socket` of an older generation forgets its descriptor.
            unsafe { libc::close(fd) };
        }
    }
}

/// While this lives, signals are kept from this thread, except those the CPU raises. A handled
/// signal interrupts `recv` whatever `SA_RESTART` says, and a PHP handler must not run inside.
#[must_use]
pub struct SignalsHeld(libc::sigset_t);

impl SignalsHeld {
    pub fn hold() -> Self {
        const SYNCHRONOUS: [libc::c_int; 6] =
            [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];
        let mut held = MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `sigfillset` writes all of `held` before the others read it, `pthread_sigmask`
        // writes all of `before`; neither fails for a valid set and SIG_SETMASK.
        unsafe {
            libc::sigfillset(held.as_mut_ptr());
            for signal in SYNCHRONOUS {
                libc::sigdelset(held.as_mut_ptr(), signal);
            }
            libc::pthread_sigmask(libc::SIG_SETMASK, held.as_ptr(), before.as_mut_ptr());
            Self(before.assume_init())
        }
    }
}

impl Drop for SignalsHeld {
    fn drop(&mut self) {
        // SAFETY: `self.0` is the mask `hold` read.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) };
    }
}

/// What a connection speaks through; a TLS stream over a [`Socket`] would be another one.
pub trait Transport: Read + Write + Send {
    /// All reading and writing from now on ends by `deadline`.
    fn set_deadline(&mut self, deadline: Moment);
}

pub struct Socket {
    /// `None` only inside `drop`.
    descriptor: Option<Descriptor>,
    place: &'static AtomicI32,
    generation: u64,
    deadline: Moment,
}

impl Socket {
    /// Blocks until `deadline` at the latest.
    pub fn connect(address: &SockAddr, deadline: Moment) -> io::Result<Self> {
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
        let fd = descriptor.as_raw_fd();
        let free = |place: &&AtomicI32| {
            place.compare_exchange(FREE, fd, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        let place = OPEN.iter().find(free).ok_or_else(|| io::Error::other("too many sockets"))?;
        let socket = Self {
            descriptor: Some(descriptor),
            place,
            generation: process::generation(),
            deadline,
        };
        socket.finish_connect(address)?;
        Ok(socket)
    }

    fn finish_connect(&self, address: &SockAddr) -> io::Result<()> {
        let descriptor = self.descriptor()?;
        // A send timeout bounds connect, on unix sockets too, where a full backlog blocks.
        descriptor.set_write_timeout(Some(left(self.deadline)?))?;
        descriptor.connect(address).map_err(|error| match error.raw_os_error() {
            Some(libc::EINPROGRESS | libc::EAGAIN) => io::ErrorKind::TimedOut.into(),
            _ => error,
        })
    }

    fn descriptor(&self) -> io::Result<&Descriptor> {
        // A child that kept a connection of its parent finds it closed.
        let own = self.descriptor.as_ref().filter(|_| self.generation == process::generation());
        own.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

/// What remains, at least a millisecond (zero would mean "for ever" to the kernel).
fn left(deadline: Moment) -> io::Result<Duration> {
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
        let mut descriptor = self.descriptor()?;
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
        let descriptor = self.descriptor()?;
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
    fn set_deadline(&mut self, deadline: Moment) {
        self.deadline = deadline;
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.generation == process::generation() {
            self.place.store(FREE, Ordering::Relaxed);
        } else {
            // Inherited: `close_inherited` has closed it, and its number may be somebody else's.
            mem::forget(self.descriptor.take());
        }
    }
}
