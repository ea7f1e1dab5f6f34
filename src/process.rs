//! Which process this is. A fork copies memory but shares sockets, locks and threads with nobody
//! it should: whatever owns one of those notes the generation it was made in and compares.

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
