//! Which process this is: a number that changes in every forked child.
//!
//! A child inherits descriptors, and with them the parent's kernel locks and half-read replies.
//! Everything that owns one notes the generation it was born in and is forgotten, never closed or
//! used, when the number has moved on. Comparing it costs one load; `getpid()` is a system call.

use std::sync::atomic::{AtomicU64, Ordering};

/// Written by the `pthread_atfork` child handler only, while the child has one thread.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// Differs from what the parent saw before the fork.
#[inline]
pub fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

/// For the fork handler in the child; async-signal-safe.
pub fn forked() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}
