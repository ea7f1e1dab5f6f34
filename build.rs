//! Link flags of the PHP module; plain library builds and tests need none.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // PHP unloads extensions at shutdown. A helper thread that wakes up, or a fork handler that
    // runs, in code that is gone crashes the process; so the code stays mapped.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
