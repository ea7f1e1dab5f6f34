//! Which process this is: a number that changes in every forked child.
//!
//! A child inherits descriptors, and with them the parent's kernel locks and half-read replies.
//! Everything that owns one notes the generation it was born in and is forgotten, never closed or
//! used, when the number has moved on. Comparing it costs one load; `getpid()` is a system call.

use std::sync::atomic::{AtomicU64, Ordering};

static GENERATION: AtomicU64 = AtomicU64::new(0);

#[inline]
pub fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

/// Called in the child of a fork, before anything else runs there. Async-signal-safe.
pub fn forked() {
    GENERATION.fetch_add(1, Ordering::SeqCst);
}
