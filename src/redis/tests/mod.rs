//! Claims about Redis that the conformance suite cannot make, on real servers and on bad ones.

mod clocks;
mod data;
mod follow;
mod informants;
mod late;
mod network;
mod process;
mod tls;

use std::thread;
use std::time::Duration;

use super::testing::Server;
use super::*;
use crate::clock::Clock as _;
use crate::clock::system::ProcessClock;
use crate::entry::{Fingerprint, Kind, Timing};
use crate::store::conformance::{claim_of, secret};

/// The host timeline of a process that shares no table.
fn now() -> Moment {
    ProcessClock::start().now()
}

fn key(name: &str) -> Key {
    Key::new(Kind::Token, name.as_bytes(), Fingerprint::default()).unwrap()
}

fn entry(version: Version, value: &str) -> Entry {
    let minted_at = now();
    let after = |s| minted_at.plus(Duration::from_secs(s));
    let timing = Timing {
        minted_at,
        refresh_at: after(2_400),
        usable_until: after(3_000),
        expires_at: after(3_600),
    };
    Entry {
        version,
        timing,
        unsynced: false,
        value: value.as_bytes().to_vec().into(),
        detail: b"{}".to_vec().into(),
    }
}

fn claim(store: &dyn Store, key: &Key, n: u64) -> Result<Claimed, StoreError> {
    store.claim(key, &claim_of(secret(n)), now()).map(|reply| reply.what)
}

fn lease(store: &dyn Store, key: &Key, n: u64) -> Lease {
    match claim(store, key, n).unwrap() {
        Claimed::Lease(lease) => lease,
        other => panic!("a lease was due, not {other:?}"),
    }
}

fn mint(store: &dyn Store, key: &Key, n: u64, value: &str) -> Entry {
    let lease = lease(store, key, n);
    let entry = entry(lease.version, value);
    let reply = store.commit(key, &lease, &entry, now()).unwrap();
    assert_eq!(reply.what, Committed::Accepted);
    entry
}

fn value(store: &dyn Store, key: &Key) -> Vec<u8> {
    match claim(store, key, 99).unwrap() {
        Claimed::Value(entry) => entry.value.to_vec(),
        other => panic!("a value was due, not {other:?}"),
    }
}
