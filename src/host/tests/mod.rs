//! The host table against real processes: killed, stopped, forked, on full and hostile file
//! systems. Children are this test binary again, running the one ignored test `child`.

mod files;
mod processes;
mod races;
mod survey;
mod takeover;
mod tally;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{HostTable, Place, Sizes};
use crate::clock::{Clock as _, Moment};
use crate::entry::{Entry, Fingerprint, Key, Kind, Timing, Version};
use crate::store::Store as _;
use crate::store::conformance::{RealTime, check, check_host};

pub fn temp() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("sharedstate-test-").tempdir_in("/dev/shm").unwrap()
}

/// Threads that run until the flag is set end with it, also when an assertion beside them fails.
pub struct SetWhenDropped<'a>(pub &'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One bucket: every key competes with every other.
pub fn small() -> Sizes {
    Sizes::new(64, 16 * 1024, 8 << 20)
}

pub fn open(dir: &Path) -> HostTable {
    HostTable::open(Place::new(dir, &["test"]), small(), None).unwrap()
}

pub fn key(name: &str) -> Key {
    Key::new(Kind::Token, name.as_bytes(), Fingerprint::default()).unwrap()
}

/// An hour's entry whose value says which key and version it belongs to, over and over.
pub fn entry(key: &Key, version: u64, bytes: usize, now: Moment) -> Entry {
    let at = |seconds: u64| now.plus(Duration::from_secs(seconds));
    let timing = Timing {
        minted_at: now,
        refresh_at: at(2800),
        usable_until: at(3540),
        expires_at: at(3600),
    };
    let mark = format!("{}@{version};", key.text());
    let value = mark.bytes().cycle().take(bytes).collect::<Vec<u8>>().into();
    Entry {
        version: Version(version),
        timing,
        unsynced: false,
        value,
        detail: b"{}".to_vec().into(),
    }
}

/// Whether the entry is whole and really this key's.
pub fn genuine(key: &Key, found: &Entry) -> bool {
    entry(key, found.version.0, found.value.len(), Moment::default()).value == found.value
}

pub fn put(table: &HostTable, key: &Key, version: u64, bytes: usize) {
    let now = table.now();
    table.restore(key, &entry(key, version, bytes, now), now).unwrap();
}

#[test]
fn the_host_table_keeps_the_contract_of_a_store() {
    let dir = temp();
    let made = std::cell::Cell::new(0);
    let make = || -> Box<dyn crate::store::Store> {
        made.set(made.get() + 1);
        let name = format!("table {}", made.get());
        Box::new(HostTable::open(Place::new(dir.path(), &[&name]), small(), None).unwrap())
    };
    check("HostTable", &make, &RealTime);
}

#[test]
fn the_host_table_keeps_the_contract_of_a_host() {
    let dir = temp();
    let made = std::cell::Cell::new(0);
    let make = || -> Box<dyn crate::store::Host> {
        made.set(made.get() + 1);
        let name = format!("host {}", made.get());
        Box::new(HostTable::open(Place::new(dir.path(), &[&name]), small(), None).unwrap())
    };
    check_host("HostTable", &make, &RealTime);
}

/// What a child process does; started by [`processes::spawn`].
#[test]
#[ignore = "the body of child processes, not a test"]
fn child() {
    processes::child();
}
