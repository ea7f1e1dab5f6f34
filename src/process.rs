//! Which process this is, and what belongs to it alone.
//!
//! A forked child inherits descriptors, and with them the parent's kernel locks and half-read
//! replies. So each is registered here, closed in the child before anything else runs there, and
//! whoever owns one there forgets it: its number may be somebody else's by then. Comparing the
//! generation costs one load; `getpid()` is a system call.
#![cfg_attr(any(feature = "host", feature = "redis", feature = "http"), allow(unsafe_code))]

use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// Written by the `pthread_atfork` child handler only, while the child has one thread.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// Differs from what the parent saw before the fork.
#[inline]
pub fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

/// Whether a write of a line would go on at once. Who asks is alone with it for no longer than that:
/// another writer may be faster, and then a write waits after all.
#[allow(unsafe_code)]
pub fn takes_bytes(fd: BorrowedFd<'_>) -> bool {
    let mut asked = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: one `pollfd`, which lives until the call returns; the borrow keeps the descriptor open.
    let ready = unsafe { libc::poll(&raw mut asked, 1, 0) };
    ready == 1 && asked.revents & libc::POLLOUT != 0
}

#[cfg(any(feature = "host", feature = "redis"))]
pub use descriptors::{Own, forked};
#[cfg(any(feature = "host", feature = "redis", feature = "http"))]
pub use signals::SignalsHeld;

#[cfg(any(feature = "host", feature = "redis"))]
mod descriptors {
    use std::io;
    use std::mem::ManuallyDrop;
    use std::os::fd::AsRawFd;
    use std::sync::atomic::{AtomicI32, Ordering};

    use super::{GENERATION, generation};

    const FREE: i32 = -1;

    /// All registered descriptors, for the fork handler, which may not take a lock. A place is
    /// written by the thread that opens and drops its descriptor. There is room for the 1,024
    /// connections that `redis.pool_max` may allow the threads of a process, the one that follows
    /// the log, and a few tables.
    static OPEN: [AtomicI32; 1100] = [const { AtomicI32::new(FREE) }; 1100];

    /// For the child handler of `pthread_atfork`: this is another process now, and it lets go of
    /// what it inherited. Only closes: an unlock through an inherited descriptor would free the
    /// parent's lock, and a word on an inherited socket would reach the parent's server.
    /// Async-signal-safe.
    pub fn forked() {
        GENERATION.fetch_add(1, Ordering::Relaxed);
        for place in &OPEN {
            let fd = place.swap(FREE, Ordering::Relaxed);
            if fd != FREE {
                // SAFETY: a registered descriptor was open in the parent when it forked, for it is
                // unregistered before it is closed, and the child has run nothing since. Nobody
                // closes it again: an `Own` of an older generation forgets it.
                unsafe { libc::close(fd) };
            }
        }
    }

    /// A descriptor of this process, closed in every child.
    pub struct Own<T: AsRawFd> {
        descriptor: ManuallyDrop<T>,
        place: &'static AtomicI32,
        generation: u64,
    }

    impl<T: AsRawFd> Own<T> {
        pub fn new(descriptor: T) -> io::Result<Self> {
            let fd = descriptor.as_raw_fd();
            let free = |place: &&AtomicI32| {
                place.compare_exchange(FREE, fd, Ordering::Relaxed, Ordering::Relaxed).is_ok()
            };
            let place = OPEN.iter().find(free);
            let place = place.ok_or_else(|| io::Error::other("too many open descriptors"))?;
            let descriptor = ManuallyDrop::new(descriptor);
            Ok(Self { descriptor, place, generation: generation() })
        }

        /// `NotConnected` in a forked child.
        pub fn get(&self) -> io::Result<&T> {
            if self.generation == generation() {
                Ok(&self.descriptor)
            } else {
                Err(io::ErrorKind::NotConnected.into())
            }
        }
    }

    impl<T: AsRawFd> Drop for Own<T> {
        fn drop(&mut self) {
            if self.generation == generation() {
                self.place.store(FREE, Ordering::Relaxed);
                // SAFETY: dropped here only, and never used again.
                unsafe { ManuallyDrop::drop(&mut self.descriptor) };
            }
        }
    }
}

#[cfg(any(feature = "host", feature = "redis", feature = "http"))]
mod signals {
    use std::mem::MaybeUninit;

    /// While this lives, signals are kept from this thread, and from threads it starts, except
    /// those the CPU raises. A handled signal interrupts `recv` whatever `SA_RESTART` says, and a
    /// PHP handler must not run inside.
    #[must_use]
    pub struct SignalsHeld(libc::sigset_t);

    impl SignalsHeld {
        pub fn hold() -> Self {
            const SYNCHRONOUS: [libc::c_int; 6] = [
                libc::SIGSEGV,
                libc::SIGBUS,
                libc::SIGFPE,
                libc::SIGILL,
                libc::SIGTRAP,
                libc::SIGSYS,
            ];
            let mut held = MaybeUninit::<libc::sigset_t>::uninit();
            let mut before = MaybeUninit::<libc::sigset_t>::uninit();
            // SAFETY: `sigfillset` writes all of `held` before the others read it,
            // `pthread_sigmask` writes all of `before`; neither fails for a valid set and
            // SIG_SETMASK.
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
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_pipe_that_nobody_reads_takes_nothing_more_when_it_is_full() {
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        assert!(takes_bytes(writer.as_fd()));
        while takes_bytes(writer.as_fd()) {
            writer.write_all(&[0; 4096]).unwrap();
        }
        reader.read_exact(&mut [0; 8192]).unwrap();
        assert!(takes_bytes(writer.as_fd()));
    }
}
