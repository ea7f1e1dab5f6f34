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

/// Run `hook`, which must be async-signal-safe, in the child of every later fork, and move the
/// generation on. Descriptors are closed there at once: one that lives on in the child would keep
/// the parent's locks alive after the parent's death.
#[cfg(any(feature = "host", feature = "redis"))]
#[allow(unsafe_code)]
pub fn close_in_children(hook: fn()) {
    use std::sync::atomic::AtomicPtr;

    static HOOKS: [AtomicPtr<()>; 4] = [const { AtomicPtr::new(std::ptr::null_mut()) }; 4];
    static REGISTERED: std::sync::Once = std::sync::Once::new();

    extern "C" fn in_child() {
        forked();
        for hook in &HOOKS {
            let hook = hook.load(Ordering::SeqCst);
            if !hook.is_null() {
                // SAFETY: only ever stored from a `fn()` below, and functions live for ever: the
                // library is linked so that it is never unloaded.
                let hook: fn() = unsafe { std::mem::transmute(hook) };
                hook();
            }
        }
    }

    let address = hook as *mut ();
    let known = |place: &AtomicPtr<()>| place.load(Ordering::SeqCst) == address;
    if !HOOKS.iter().any(known) {
        let null = std::ptr::null_mut();
        let free = |place: &&AtomicPtr<()>| {
            place.compare_exchange(null, address, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        };
        HOOKS.iter().find(free);
    }
    REGISTERED.call_once(|| {
        // SAFETY: `in_child` is a plain function of this never-unloaded library.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
}
