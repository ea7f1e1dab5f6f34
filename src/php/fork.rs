//! What a forked child must do before anything else: note that it is another process, and let go
//! of what it inherited. Descriptors are only closed, never unlocked or shut down: they still
//! belong to the parent.
#![allow(unsafe_code)]

use std::sync::Once;

use crate::process;

/// Runs in the child, on the one thread that survived the fork. Nothing here may lock or allocate.
extern "C" fn in_child() {
    process::forked();
}

/// Once per process image, however often a SAPI starts the module: a handler cannot be taken back.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler is a plain function of this library, which stays mapped until the
        // process ends (`-z nodelete`, set by build.rs).
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
}
