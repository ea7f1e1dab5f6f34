//! Requests that a server carries out when nobody waits for them any more.

use std::sync::Arc;

use super::super::testing::patient;
use super::network::way;
use super::*;
use crate::clock::system::ProcessClock;
use crate::leader::Leader;
use crate::redis::log::RedisLog;
use crate::store::log::ChangeLog as _;
use crate::store::memory::MemoryHost;
use crate::store::{Asked, Host as _};

const LATE: Duration = Duration::from_millis(1_500);
/// After which who asks gives up; a busy machine has got the request on its way by then.
const GIVE_UP: Duration = Duration::from_millis(700);

/// The way to `server`, where whatever has an entry in it arrives late, as in the buffer of a server
/// that is frozen. Who asks gives up long before.
fn jammed(server: &Server) -> RedisStore {
    let late = |request: &[u8]| match request.windows(7).any(|word| word == b"\"value\"") {
        true => LATE,
        false => Duration::ZERO,
    };
    RedisStore::new(RedisConfig { response_timeout: GIVE_UP, ..patient(way(server, late)) })
}

/// Every script that takes an entry is known to the server from then on, and sent once.
pub fn server() -> Server {
    let server = Server::start();
    let store = server.store();
    let known = mint(&store, &key("known"), 1, "one");
    let restored = store.restore(&key("other"), &known, now()).unwrap().what.outcome;
    assert_eq!(restored, Committed::Accepted);
    server
}

/// How much later than `entry` what is stored by now ends.
pub fn later(server: &Server, entry: &Entry) -> i64 {
    let store = server.store();
    let end = now().plus(Duration::from_secs(20));
    loop {
        let asked = Claim { newer_than: Version::NONE, ..claim_of(secret(9)) };
        match store.claim(&key("crm"), &asked, now()).unwrap().what {
            Claimed::Value(stored) => {
                return entry.timing.expires_at.millis_until(stored.timing.expires_at);
            }
            Claimed::Lease(lease) => {
                store.abandon(&key("crm"), &lease, None, now()).unwrap();
            }
            Claimed::Busy(_) | Claimed::BackOff { .. } => {}
        }
        assert!(now() < end, "it never arrived");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The same to who goes by the server's clock alone.
fn later_by_the_server(server: &Server, entry: &Entry) -> i64 {
    later(server, entry);
    server.admin().tell("HDEL {sharedstate}:v:t:-:crm w");
    later(server, entry)
}

/// A clock tick, and some.
pub const TICKS: i64 = 100;

#[test]
fn a_commit_that_is_carried_out_after_its_minter_gave_up_lives_no_longer_for_it() {
    let server = server();
    let store = jammed(&server);
    let lease = lease(&store, &key("crm"), 1);
    let entry = entry(lease.version, "one");
    store.commit(&key("crm"), &lease, &entry, now()).unwrap_err();
    let later = later_by_the_server(&server, &entry);
    assert!(later < TICKS, "{later} ms later than it was minted for");
}

#[test]
fn an_entry_given_back_to_a_server_that_comes_to_it_late_lives_no_longer_for_it() {
    let server = server();
    let entry = entry(Version(1_700_000_000_000_001), "one");
    jammed(&server).restore(&key("crm"), &entry, now()).unwrap_err();
    let later = later_by_the_server(&server, &entry);
    assert!(later < TICKS, "{later} ms later than it was minted for");
}

#[test]
fn a_version_ahead_of_the_clock_makes_no_entry_live_shorter() {
    let server = server();
    let store = server.store();
    let half_a_year = 15_768_000_000_000;
    let known = Version(system::wall().unix_micros() + half_a_year);
    let ahead = Claim { highest_known: known, ..claim_of(secret(1)) };
    let claimed = store.claim(&key("crm"), &ahead, now()).unwrap().what;
    let Claimed::Lease(lease) = claimed else { panic!("{claimed:?}") };
    let entry = entry(lease.version, "one");
    store.commit(&key("crm"), &lease, &entry, now()).unwrap();
    let later = later_by_the_server(&server, &entry);
    assert!((-5_000..TICKS).contains(&later), "{later} ms later than it was minted for");
}

#[test]
fn a_minters_host_keeps_its_own_deadlines_where_redis_has_later_ones() {
    let server = server();
    let host = Arc::new(MemoryHost::new(Arc::new(ProcessClock::start())));
    let log = Arc::new(RedisLog::new(server.config()));
    let mut leader =
        Leader::new(host.clone(), Arc::new(server.store()), log, Duration::from_secs(1));
    // Its reply was lost, so the minter does not know that it was committed.
    let stored = mint(&server.store(), &key("crm"), 1, "one");
    let mut minted = Entry { unsynced: true, ..stored };
    minted.timing.usable_until = minted.timing.usable_until.plus_millis(-90_000);
    minted.timing.expires_at = minted.timing.expires_at.plus_millis(-90_000);
    host.restore(&key("crm"), &minted, crate::clock::Clock::now(&*host)).unwrap();
    let asked =
        Asked { at: crate::clock::Clock::now(&*host), reservation: host.reserve(&key("crm")) };
    host.adopt(&key("crm"), &minted, asked).unwrap();
    assert!(leader.turn(Duration::from_millis(50)));
    let held = host.look(&key("crm")).unwrap().entry.unwrap();
    assert!(!held.unsynced, "it is known by now");
    assert_eq!(held.timing.usable_until, minted.timing.usable_until);
    assert_eq!(held.timing.expires_at, minted.timing.expires_at);
}

/// A lease whose version is minutes ahead, as it is after a host or a server whose clock was.
fn lease_ahead(store: &RedisStore) -> Lease {
    let known = Version(system::wall().unix_micros() + 600_000_000);
    let ahead = Claim { highest_known: known, ..claim_of(secret(1)) };
    let claimed = store.claim(&key("crm"), &ahead, now()).unwrap().what;
    let Claimed::Lease(lease) = claimed else { panic!("{claimed:?}") };
    lease
}

#[test]
fn while_versions_run_ahead_a_late_commit_lives_no_longer_for_it() {
    const LATE: Duration = Duration::from_millis(3_000);
    let server = server();
    let watcher = Arc::new(MemoryHost::new(Arc::new(ProcessClock::start())));
    let log = RedisLog::new(server.config());
    let watch = || {
        let looked = log.look(None).unwrap();
        watcher.hear_clock(&looked.told, 0, looked.set_back);
    };
    watch();
    thread::sleep(Duration::from_millis(5));
    let late = |request: &[u8]| match request.windows(7).any(|word| word == b"\"value\"") {
        true => LATE,
        false => Duration::ZERO,
    };
    let store =
        RedisStore::new(RedisConfig { response_timeout: GIVE_UP, ..patient(way(&server, late)) });
    let lease = lease_ahead(&store);
    let entry = entry(lease.version, "one");
    store.commit(&key("crm"), &lease, &entry, now()).unwrap_err();
    later(&server, &entry);
    watch();
    // To who believes the server's clock alone.
    let reader = server.store().on(watcher.clone());
    let Claimed::Value(stored) = claim(&reader, &key("crm"), 9).unwrap() else { panic!() };
    let by = entry.timing.expires_at.millis_until(stored.timing.expires_at);
    assert!(by < TICKS, "{by} ms later than it was minted for");
}

#[test]
fn while_versions_run_ahead_a_minter_that_was_stopped_before_it_sent_lengthens_no_life() {
    let server = server();
    let store = server.store();
    let lease = lease_ahead(&store);
    let (sent, entry) = (now(), entry(lease.version, "one"));
    thread::sleep(Duration::from_millis(3_000));
    store.commit(&key("crm"), &lease, &entry, sent).unwrap();
    let by = later_by_the_server(&server, &entry);
    assert!(by < TICKS, "{by} ms later than it was minted for");
}
