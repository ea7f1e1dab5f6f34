#![allow(unsafe_code)]
//! The kernel calls that the standard library lacks, each behind a safe signature.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

pub fn effective_uid() -> u32 {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    Shared,
    Exclusive,
    Unlock,
}

/// Set an open-file-description lock on one byte without waiting. `false`: somebody else holds it.
/// Such a lock belongs to the open file, not to the process, and the kernel frees it when the last
/// descriptor of that open file is gone, however its holder died.
pub fn lock_byte(file: &File, byte: i64, kind: LockKind) -> io::Result<bool> {
    let l_type = match kind {
        LockKind::Shared => libc::F_RDLCK,
        LockKind::Exclusive => libc::F_WRLCK,
        LockKind::Unlock => libc::F_UNLCK,
    };
    let lock = libc::flock {
        l_type: l_type as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    };
    loop {
        // SAFETY: `file` keeps the descriptor open and `lock` outlives the call.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EACCES) => return Ok(false),
            Some(libc::EINTR) => {}
            _ => return Err(error),
        }
    }
}

/// What the kernel allocates at once: 4 KiB on x86-64, up to 64 KiB on arm64.
pub fn page_size() -> usize {
    // SAFETY: sysconf has no preconditions.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(4096)
}

/// Allocate the pages under a range, so that writing to them cannot raise SIGBUS.
pub fn allocate(file: &File, offset: usize, bytes: usize) -> io::Result<()> {
    loop {
        // SAFETY: plain values; `file` keeps the descriptor open.
        let code = unsafe { libc::posix_fallocate(file.as_raw_fd(), offset as i64, bytes as i64) };
        match code {
            0 => return Ok(()),
            libc::EINTR => {}
            code => return Err(io::Error::from_raw_os_error(code)),
        }
    }
}

/// `RLIMIT_FSIZE`, unless there is none.
pub fn file_size_limit() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit for the whole call.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) } == 0;
    (known && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// Sleep until `word` is no longer `expected`, a wake-up, a signal, or `at_most`.
/// A shared futex: a private one is never woken across processes.
pub fn futex_wait(word: &AtomicU32, expected: u32, at_most: Duration) {
    let timeout = libc::timespec {
        tv_sec: at_most.as_secs() as libc::time_t,
        tv_nsec: libc::c_long::from(at_most.subsec_nanos()),
    };
    // SAFETY: `word` is mapped for as long as the borrow lives and `timeout` outlives the call.
    // Every return value means "look again", so none is inspected.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT,
            expected,
            &raw const timeout,
        );
    }
}

pub fn futex_wake_all(word: &AtomicU32) {
    // SAFETY: waking uses only the word's address, mapped for as long as the borrow lives.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}
