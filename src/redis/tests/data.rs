//! What the scripts leave in Redis, and what two hosts make of it.

use std::cell::Cell;
use std::sync::{Arc, Barrier};

use super::*;
use crate::clock::Clock;
use crate::flight::{Engine, Outcome, Plan, Step};
use crate::leader::Leader;
use crate::redis::log::RedisLog;
use crate::store::Host as _;
use crate::store::conformance::{RealTime, check};
use crate::store::faulty::{Fault, FaultyStore};
use crate::store::log::{ChangeLog as _, Fetched, Followed};
use crate::store::memory::MemoryHost;

#[test]
fn redis_keeps_the_contract_of_a_store() {
    let server = Server::start();
    let made = Cell::new(0);
    let make = || -> Box<dyn Store> {
        made.set(made.get() + 1);
        let prefix = Prefix::new(&format!("suite{}", made.get())).unwrap();
        Box::new(RedisStore::new(RedisConfig { prefix, ..server.config() }))
    };
    check("RedisStore", &make, &RealTime);
}

#[test]
fn scripts_are_loaded_again_when_the_server_forgot_them() {
    let server = Server::start();
    let store = server.store();
    mint(&store, &key("crm"), 1, "one");
    server.admin().tell("SCRIPT FLUSH");
    assert_eq!(value(&store, &key("crm")), b"one");
}

#[test]
fn a_claim_is_one_command() {
    let server = Server::start();
    let store = server.store();
    mint(&store, &key("crm"), 1, "one");
    let before = store.commands_sent();
    value(&store, &key("crm"));
    assert_eq!(store.commands_sent() - before, 1);
}

#[test]
fn sixteen_digits_survive_in_every_place_a_version_is_kept() {
    let server = Server::start();
    let store = server.store();
    let crm = key("crm");
    // Of half a year ahead, with digits of its own to the last.
    let round = system::wall().unix_micros() / 1_000_000_000 * 1_000_000_000;
    let known = Version(round + 15_768_000_000_122);
    let ahead = Claim { highest_known: known, ..claim_of(secret(1)) };
    let reply = store.claim(&crm, &ahead, now()).unwrap().what;
    let Claimed::Lease(lease) = reply else { panic!("{reply:?}") };
    let mut admin = server.admin();
    let held: String = admin.ask("GET {sharedstate}:l:t:-:crm");
    assert_eq!(held, format!("1:{}", lease.version));
    store.commit(&crm, &lease, &entry(lease.version, "one"), now()).unwrap();
    let version: String = admin.ask("HGET {sharedstate}:v:t:-:crm ver");
    assert_eq!(version, lease.version.to_string());
    let floor = store.invalidate(&crm, None, Version::NONE, now()).unwrap().floor;
    let stored: String = admin.ask("HGET {sharedstate}:v:t:-:crm floor");
    assert_eq!(stored, floor.to_string());
    let issued: String = admin.ask("HGET {sharedstate}:meta issued");
    assert_eq!(issued, floor.to_string());
    assert!(known < lease.version && lease.version < floor, "{lease:?}, {floor}");
}

/// Two servers that both take writes for a while count from the same version where their clocks are behind it.
#[test]
fn two_servers_whose_clocks_are_behind_do_not_count_in_step() {
    let servers = [Server::start(), Server::start()];
    let known = Version(system::wall().unix_micros() + 86_400_000_000);
    let ahead = |key: &Key, server: &Server| {
        let claim = Claim { highest_known: known, ..claim_of(secret(1)) };
        let reply = server.store().claim(key, &claim, now()).unwrap().what;
        let Claimed::Lease(lease) = reply else { panic!("{reply:?}") };
        lease.version
    };
    let both = |n: u64| {
        let [one, other] = [0, 1].map(|at| ahead(&key(&format!("name{n}")), &servers[at]));
        one == other
    };
    assert!((0..8).filter(|n| both(*n)).count() < 3);
}

#[test]
fn after_flushall_entries_come_back_and_versions_go_on_growing() {
    let server = Server::start();
    let store = server.store();
    let (crm, now) = (key("crm"), now());
    let entry = mint(&store, &crm, 1, "one");
    server.admin().tell("FLUSHALL");
    assert!(lease(&store, &key("other"), 2).version > entry.version);
    assert_eq!(store.restore(&crm, &entry, now).unwrap().what.outcome, Committed::Accepted);
    assert_eq!(value(&store, &crm), b"one");
}

#[test]
fn restoring_what_is_there_sends_no_body() {
    let server = Server::start();
    let store = server.store();
    let entry = mint(&store, &key("crm"), 1, "one");
    // The first time the script itself must be loaded.
    store.restore(&key("crm"), &entry, now()).unwrap();
    let before = store.commands_sent();
    store.restore(&key("crm"), &entry, now()).unwrap();
    assert_eq!(store.commands_sent() - before, 1);
}

#[test]
fn the_log_has_one_line_for_every_commit_and_every_raised_floor() {
    let server = Server::start();
    let (crm, now) = (key("crm"), now());
    let store = FaultyStore::new(Arc::new(server.store()));
    let mut admin = server.admin();
    let mut lines = || admin.ask::<u64>("XLEN {sharedstate}:log");

    let lease = lease(&store, &crm, 1);
    assert!(store.renew(&crm, &lease, Duration::from_secs(9), now).unwrap());
    assert_eq!(lines(), 0, "leases are not logged");
    let entry = entry(lease.version, "one");
    store.strike(0, Fault::LostReply);
    store.commit(&crm, &lease, &entry, now).unwrap_err();
    assert_eq!(store.commit(&crm, &lease, &entry, now).unwrap().what, Committed::Accepted);
    store.restore(&crm, &entry, now).unwrap();
    assert_eq!(lines(), 1, "a commit sent twice is one change");
    assert!(
        !store.invalidate(&crm, Some(Digest::of(b"another")), Version::NONE, now).unwrap().what
    );
    assert_eq!(lines(), 1);
    let floor = store.invalidate(&crm, Some(entry.digest()), Version::NONE, now).unwrap().floor;
    assert_eq!(lines(), 2);

    type Line = (String, Vec<(String, String)>);
    let last: Vec<Line> = admin.ask("XREVRANGE {sharedstate}:log + - COUNT 1");
    let fields = [("key", "t:-:crm".into()), ("version", "0".into()), ("floor", floor.to_string())];
    assert_eq!(last[0].1, fields.map(|(name, value)| (name.to_owned(), value)));
}

#[test]
fn a_row_outlives_its_entry_by_a_day_and_keeps_no_body_of_a_dropped_one() {
    let server = Server::start();
    let store = server.store();
    mint(&store, &key("crm"), 1, "one");
    let mut admin = server.admin();
    let ttl: u64 = admin.ask("TTL {sharedstate}:v:t:-:crm");
    assert!((86_400 + 3_590..=86_400 + 3_600).contains(&ttl), "{ttl}");
    store.invalidate(&key("crm"), None, Version::NONE, now()).unwrap();
    assert_eq!(admin.ask::<u64>("HEXISTS {sharedstate}:v:t:-:crm body"), 0);
    let ttl: u64 = admin.ask("TTL {sharedstate}:v:t:-:crm");
    assert!(ttl >= 86_400 + 3_500, "the floor is kept as long: {ttl}");
    store.invalidate(&key("other"), None, Version::NONE, now()).unwrap();
    let ttl: u64 = admin.ask("TTL {sharedstate}:v:t:-:other");
    assert!((86_390..=86_400).contains(&ttl), "a floor without an entry for a day: {ttl}");
}

#[test]
fn what_a_newer_release_stored_is_a_miss_and_not_a_crash() {
    let server = Server::start();
    let store = server.store();
    let crm = key("crm");
    let stored = mint(&store, &crm, 1, "one");
    for body in ["{\"v\":2,\"value\":[1]}", "garbage"] {
        server.admin().tell(&format!("HSET {{sharedstate}}:v:t:-:crm body {body}"));
        let lease = lease(&store, &crm, 2);
        assert!(lease.version > stored.version);
        store.abandon(&crm, &lease, None, now()).unwrap();
    }
    let older = Lease::made_up(secret(3), Version(stored.version.0 - 1));
    let late = store.commit(&crm, &older, &entry(older.version, "old"), now());
    assert_eq!(late.unwrap().what, Committed::Fenced);
    mint(&store, &crm, 4, "two");
    assert_eq!(value(&store, &crm), b"two");
}

#[test]
fn two_hosts_that_race_for_a_key_commit_it_once() {
    const ROUNDS: u64 = 1_000;
    let server = Server::start();
    let start = Barrier::new(2);
    // Nothing in here panics: the other host would wait at the barrier for ever.
    let race = |host: u64| {
        let store = server.store();
        let mut outcomes = Vec::new();
        for round in 0..ROUNDS {
            let key = key(&format!("round{round}"));
            start.wait();
            loop {
                match claim(&store, &key, 1 + round * 2 + host) {
                    Ok(Claimed::Busy(_)) => thread::yield_now(),
                    Ok(Claimed::Lease(lease)) => {
                        let entry = entry(lease.version, &format!("host {host}"));
                        let reply = store.commit(&key, &lease, &entry, now());
                        outcomes.push((round, reply.map(|reply| reply.what)));
                        break;
                    }
                    Ok(Claimed::Value(_)) => break,
                    Ok(Claimed::BackOff { .. }) | Err(_) => {
                        outcomes.push((round, Ok(Committed::Fenced)));
                        break;
                    }
                }
            }
        }
        outcomes
    };
    let mut outcomes = thread::scope(|scope| {
        let other = scope.spawn(|| race(1));
        let mut outcomes = race(0);
        outcomes.extend(other.join().unwrap());
        outcomes
    });
    outcomes.sort_unstable_by_key(|(round, _)| *round);
    let once: Vec<_> = (0..ROUNDS).map(|round| (round, Ok(Committed::Accepted))).collect();
    assert_eq!(outcomes, once);
}

#[test]
fn a_commit_that_a_frozen_server_carries_out_late_lives_no_longer_for_it() {
    let (server, crm) = (Server::start(), key("crm"));
    let store = server.store();
    let claimed = store.claim(&crm, &claim_of(secret(1)), now()).unwrap().what;
    let Claimed::Lease(lease) = claimed else { panic!("{claimed:?}") };
    // What remains is counted from here; that the server comes to it later, it can only tell itself.
    let sent = now();
    let entry = entry(lease.version, "one");
    thread::sleep(Duration::from_millis(600));
    store.commit(&crm, &lease, &entry, sent).unwrap();
    let stored = store.claim(&crm, &claim_of(secret(2)), now()).unwrap().what;
    let Claimed::Value(stored) = stored else { panic!("{stored:?}") };
    let later = entry.timing.usable_until.millis_until(stored.timing.usable_until);
    assert!((-300..=50).contains(&later), "{later} ms later than it was minted for");
}

/// What somebody else writes below the prefix, and a bug of ours might.
const POISON: [&str; 2] = ["9007199254740992", "9000000000000000000"];

#[test]
fn a_highest_version_that_nobody_can_have_issued_ends_no_key() {
    for poison in POISON {
        let server = Server::start();
        let store = server.store();
        server.admin().tell(&format!("HSET {{sharedstate}}:meta issued {poison}"));
        let one = mint(&store, &key("crm"), 1, "one");
        let newer =
            Claim { newer_than: one.version, highest_known: one.version, ..claim_of(secret(2)) };
        let claimed = store.claim(&key("crm"), &newer, now()).unwrap().what;
        let Claimed::Lease(lease) = claimed else { panic!("{claimed:?}") };
        assert!(one.version < lease.version && lease.version <= Version::latest(system::wall()));
        let two = store.commit(&key("crm"), &lease, &entry(lease.version, "two"), now()).unwrap();
        assert_eq!(two.what, Committed::Accepted);
        let issued: String = server.admin().ask("HGET {sharedstate}:meta issued");
        assert_eq!(issued, lease.version.to_string(), "it is mended by the first who asks");
    }
}

#[test]
fn a_row_whose_version_or_floor_nobody_can_have_issued_is_as_good_as_none() {
    for poison in POISON {
        for field in ["ver", "floor"] {
            let server = Server::start();
            let store = server.store();
            mint(&store, &key("crm"), 1, "one");
            server.admin().tell(&format!("HSET {{sharedstate}}:v:t:-:crm {field} {poison}"));
            let reply = store.claim(&key("crm"), &claim_of(secret(2)), now()).unwrap();
            assert_eq!(reply.floor, Version::NONE);
            let log = RedisLog::new(server.config());
            let fetched = log.fetch(&[key("crm")], now()).unwrap().remove(0);
            assert_eq!(fetched.floor, Version::NONE);
            if field == "floor" {
                assert!(matches!(reply.what, Claimed::Value(_)), "{:?}", reply.what);
                continue;
            }
            assert_eq!(fetched.what, Fetched::Nothing);
            let Claimed::Lease(lease) = reply.what else { panic!("{:?}", reply.what) };
            let two = entry(lease.version, "two");
            let committed = store.commit(&key("crm"), &lease, &two, now()).unwrap();
            assert_eq!(committed, Reply { floor: Version::NONE, what: Committed::Accepted });
            assert_eq!(value(&store, &key("crm")), b"two");
        }
    }
}

#[test]
fn a_lease_whose_version_nobody_can_have_issued_fences_no_commit() {
    let server = Server::start();
    let store = server.store();
    let lease = lease(&store, &key("crm"), 1);
    server.admin().tell("SET {sharedstate}:l:t:-:crm ff:9007199254740992 PX 60000");
    let one = entry(lease.version, "one");
    let committed = store.commit(&key("crm"), &lease, &one, now()).unwrap().what;
    assert_eq!(committed, Committed::Accepted);
}

#[test]
fn hosts_carry_no_floor_that_nobody_can_have_raised_into_a_clean_store() {
    let server = Server::start();
    let host = Arc::new(MemoryHost::new(Arc::new(ProcessClock::start())));
    let log = Arc::new(RedisLog::new(server.config()));
    let store = Arc::new(server.store());
    let mut leader = Leader::new(host.clone(), store.clone(), log, Duration::from_secs(1));
    let engine = Engine::new(host.clone(), Some(store));
    let mut mints = 0;
    let mut get = || {
        let mut step = engine.begin(&key("crm"), &Plan::usual(Clock::now(&*host)));
        while let Step::Mint(ticket) = step {
            mints += 1;
            let minted = entry(Version::NONE, "token");
            let (value, timing) = (minted.value.to_vec(), minted.timing);
            step = engine.finish(*ticket, Outcome::Minted { value, timing, detail: Vec::new() });
        }
        assert!(matches!(step, Step::Served(_)), "{step:?}");
        mints
    };
    assert_eq!(get(), 1);
    leader.turn(Duration::from_millis(20));
    let mut admin = server.admin();
    for poison in POISON {
        admin.tell(&format!("XADD {{sharedstate}}:log * key t:-:crm version 0 floor {poison}"));
        admin.tell(&format!("XADD {{sharedstate}}:log * key t:-:crm version {poison} floor 0"));
    }
    for _ in 0..3 {
        leader.turn(Duration::from_millis(20));
    }
    admin.tell("FLUSHALL");
    for _ in 0..6 {
        get();
    }
    engine.invalidate(&key("crm"), None).unwrap();
    assert_eq!(get(), 2, "what was minted is served, before and after");
    let issued: u64 = admin.ask("HGET {sharedstate}:meta issued");
    assert!(Version(issued) <= Version::latest(system::wall()), "{issued}");
}

#[test]
fn a_floor_that_is_none_ends_no_key() {
    for floor in ["-5", "9e15", "1.5", "none"] {
        let server = Server::start();
        let store = server.store();
        let set = format!("HSET {{sharedstate}}:v:t:-:crm floor {floor}");
        server.admin().tell(&set);
        let minting = claim(&store, &key("crm"), 1);
        assert!(matches!(minting, Ok(Claimed::Lease(_))), "{floor}: {minting:?}");
        assert!(matches!(claim(&store, &key("crm"), 2), Ok(Claimed::Busy(_))), "{floor}");
        let stored = mint(&store, &key("crm"), 1, "one");
        server.admin().tell(&set);
        let value = claim(&store, &key("crm"), 2);
        assert!(matches!(value, Ok(Claimed::Value(it)) if it.version == stored.version), "{floor}");
    }
}

/// Minted for itself by a host whose clock is ahead, or stored on a server whose clock was, and lost with it.
#[test]
fn an_invalidation_drops_what_has_a_version_ahead_of_the_servers_clock() {
    for unsynced in [true, false] {
        let server = Server::start();
        let host = Arc::new(MemoryHost::new(Arc::new(ProcessClock::start())));
        let engine = Engine::new(host.clone(), Some(Arc::new(server.store())));
        let version = Version(system::wall().unix_micros() + 300_000_000);
        let old = Entry { unsynced, ..entry(version, "revoked") };
        host.restore(&key("crm"), &old, now()).unwrap();
        engine.invalidate(&key("crm"), None).unwrap();
        assert_eq!(host.look(&key("crm")).unwrap().entry, None);
        let given_back = server.store().restore(&key("crm"), &old, now()).unwrap().what.outcome;
        assert_eq!(given_back, Committed::Fenced);
    }
}

#[test]
fn a_line_with_bytes_that_are_no_text_is_a_line() {
    let server = Server::start();
    let log = RedisLog::new(server.config());
    let anchor = log.look(None).unwrap().last;
    let mut add = redis::cmd("XADD");
    add.arg("{sharedstate}:log").arg("*").arg("kind").arg("later");
    add.arg("digest").arg(&[0xff_u8, 0xfe][..]);
    server.store().pool.with(|connection| add.exec(connection)).unwrap();
    mint(&server.store(), &key("crm"), 1, "one");
    let followed = log.follow(&anchor, Duration::from_millis(100)).unwrap();
    let Followed::Lines { changes, anchor } = followed else { panic!("{followed:?}") };
    assert_eq!(changes.len(), 1);
    assert!(log.look(Some(&anchor)).unwrap().stands);
}
