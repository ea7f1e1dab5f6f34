//! Claims about Redis that the conformance suite cannot make, on real servers and on bad ones.

use std::cell::Cell;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use super::testing::{Server, patient};
use super::*;
use crate::clock::system;
use crate::entry::{Fingerprint, Kind, Timing};
use crate::process;
use crate::store::conformance::{RealTime, check, claim_of, secret};
use crate::store::faulty::{Fault, FaultyStore};

fn key(name: &str) -> Key {
    Key::new(Kind::Token, name.as_bytes(), Fingerprint::default()).unwrap()
}

fn entry(version: Version, value: &str) -> Entry {
    let minted_at = system::monotonic();
    let after = |s| minted_at.plus(Duration::from_secs(s));
    let timing = Timing {
        minted_at,
        refresh_at: after(2_400),
        usable_until: after(3_000),
        expires_at: after(3_600),
    };
    Entry { version, timing, unsynced: false, value: value.into(), detail: b"{}".to_vec() }
}

fn claim(store: &dyn Store, key: &Key, n: u64) -> Result<Claimed, StoreError> {
    store.claim(key, &claim_of(secret(n)), system::monotonic()).map(|reply| reply.what)
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
    let reply = store.commit(key, &lease, &entry, system::monotonic()).unwrap();
    assert_eq!(reply.what, Committed::Accepted);
    entry
}

fn value(store: &dyn Store, key: &Key) -> Vec<u8> {
    match claim(store, key, 99).unwrap() {
        Claimed::Value(entry) => entry.value,
        other => panic!("a value was due, not {other:?}"),
    }
}

/// A server of our own on TCP, for the ways of misbehaving that Redis lacks.
fn fake_server(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> RedisConfig {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(stream));
        }
    });
    RedisConfig::parse(&format!("redis://127.0.0.1:{port}")).unwrap()
}

/// What an operation ended with, and how long it took.
fn timed<T>(operation: impl FnOnce() -> T) -> (T, Duration) {
    let started = system::monotonic();
    let done = operation();
    (done, started.until(system::monotonic()))
}

const SHORT: Duration = Duration::from_millis(150);
/// Connect and response timeout make 300 ms; the rest is for a busy machine.
const BOUND: Duration = Duration::from_secs(1);

fn impatient(config: RedisConfig) -> RedisStore {
    let config = RedisConfig { connect_timeout: SHORT, response_timeout: SHORT, ..config };
    RedisStore::new(config)
}

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
fn tcp_with_password_and_database_reaches_that_database() {
    let server = Server::start_with(&[], Some("s3:cret"));
    let store = RedisStore::new(server.tcp(":s3%3Acret@", "/3"));
    mint(&store, &key("crm"), 1, "one");
    let mut admin = server.admin();
    assert_eq!(admin.ask::<u64>("DBSIZE"), 0);
    admin.tell("SELECT 3");
    assert_eq!(admin.ask::<u64>("EXISTS {sharedstate}:v:t:-:crm"), 1);
}

#[test]
fn an_acl_user_needs_no_more_than_these_commands_and_keys() {
    let server = Server::start();
    server.admin().tell(
        "ACL SETUSER app on >pw ~{sharedstate}:* +evalsha +script|load +time +hget +hset +hmget \
         +hdel +get +set +del +pttl +pexpire +xadd",
    );
    let store = RedisStore::new(server.tcp("app:pw@", ""));
    let (crm, now) = (key("crm"), system::monotonic());
    let first = lease(&store, &crm, 1);
    assert!(store.renew(&crm, &first, Duration::from_secs(9), now).unwrap());
    store.abandon(&crm, &first, None, now).unwrap();
    let entry = mint(&store, &crm, 2, "one");
    assert_eq!(store.restore(&crm, &entry, now).unwrap().what, Committed::Accepted);
    assert!(store.invalidate(&crm, None, now).unwrap().what);
    let failed = lease(&store, &crm, 3);
    let failure = Failure { base: Duration::from_secs(9), reason: "no".into() };
    store.abandon(&crm, &failed, Some(&failure), now).unwrap();
    assert!(matches!(claim(&store, &crm, 4).unwrap(), Claimed::BackOff { .. }));
}

#[test]
fn a_wrong_password_is_a_refusal_that_does_not_show_it() {
    let server = Server::start_with(&[], Some("right"));
    for credentials in [":wr0ng@", "nobody:wr0ng@", ""] {
        match RedisStore::new(server.tcp(credentials, "")).ping() {
            Err(StoreError::Refused(why)) => {
                assert!(why.contains("WRONGPASS") || why.contains("NOAUTH"), "{why}");
                assert!(!why.contains("wr0ng"), "{why}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_password_file_is_read_again_at_every_connect() {
    let server = Server::start_with(&[], Some("old"));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "old\n").unwrap();
    let config = RedisConfig { password_file: Some(file.path().into()), ..server.config() };
    let store = RedisStore::new(config);
    store.ping().unwrap();
    let mut admin = server.admin();
    admin.tell("CONFIG SET requirepass new");
    admin.tell("CLIENT KILL TYPE normal SKIPME yes");
    assert!(matches!(store.ping(), Err(StoreError::Refused(_))), "the file still has the old one");
    std::fs::write(&file, "new\n").unwrap();
    store.ping().unwrap();
}

#[test]
fn a_server_that_drips_bytes_cannot_exceed_the_deadline() {
    let store = impatient(fake_server(|mut stream| {
        // Every byte comes within the timeout of one `recv`; the reply never ends.
        while stream.write_all(b"+").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    }));
    let (result, took) = timed(|| store.ping());
    assert!(matches!(result, Err(StoreError::Unreachable(_))), "{result:?}");
    assert!(took < BOUND, "{took:?}");
}

#[test]
fn a_server_that_never_answers_costs_one_deadline() {
    let store = impatient(fake_server(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    }));
    let (result, took) = timed(|| claim(&store, &key("crm"), 1));
    assert!(matches!(&result, Err(StoreError::Unreachable(why)) if why.contains("no answer")));
    assert!(took >= SHORT / 2 && took < BOUND, "{took:?}");
}

#[test]
fn nobody_listening_is_unreachable_at_once() {
    let store = impatient(RedisConfig::parse("redis+unix:///nonexistent/redis.sock").unwrap());
    let (result, took) = timed(|| store.ping());
    assert!(matches!(result, Err(StoreError::Unreachable(_))), "{result:?}");
    assert!(took < SHORT, "{took:?}");
}

#[test]
fn a_name_is_resolved() {
    let server = Server::start();
    let dsn = format!("redis://localhost:{}", server.port);
    RedisStore::new(patient(RedisConfig::parse(&dsn).unwrap())).ping().unwrap();
}

#[test]
fn a_late_reply_never_answers_the_next_question() {
    let server = Server::start();
    let store = impatient(server.config());
    mint(&store, &key("a"), 1, "of a");
    mint(&store, &key("b"), 2, "of b");
    server.admin().tell("CLIENT PAUSE 300 ALL");
    assert!(matches!(claim(&store, &key("a"), 3), Err(StoreError::Unreachable(_))));
    thread::sleep(Duration::from_millis(400));
    assert_eq!(value(&store, &key("b")), b"of b");
}

#[test]
fn a_killed_idle_connection_is_replaced_within_the_operation() {
    let server = Server::start();
    let store = server.store();
    mint(&store, &key("crm"), 1, "one");
    for _ in 0..3 {
        server.admin().tell("CLIENT KILL TYPE normal SKIPME yes");
        assert_eq!(value(&store, &key("crm")), b"one");
    }
}

#[test]
fn a_garbled_reply_is_an_error_without_its_content() {
    let store = impatient(fake_server(|mut stream| {
        let _ = stream.write_all(b"+OK\r\n?t0ken\r\n");
        let _ = stream.read_to_end(&mut Vec::new());
    }));
    let error = store.ping().unwrap_err();
    assert!(!error.to_string().contains("t0ken"), "{error}");
}

#[test]
fn a_demoted_master_is_left_for_a_fresh_connection() {
    let server = Server::start();
    let store = server.store();
    mint(&store, &key("crm"), 1, "one");
    let mut admin = server.admin();
    admin.tell("REPLICAOF 127.0.0.1 1");
    let refused = store.invalidate(&key("crm"), None, system::monotonic());
    assert!(
        matches!(&refused, Err(StoreError::Refused(why)) if why.contains("READONLY")),
        "{refused:?}"
    );
    admin.tell("REPLICAOF NO ONE");
    assert!(store.invalidate(&key("crm"), None, system::monotonic()).unwrap().what);
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
    let known = Version(8_520_336_000_000_122);
    let ahead = Claim { highest_known: known, ..claim_of(secret(1)) };
    let reply = store.claim(&crm, &ahead, system::monotonic()).unwrap().what;
    let Claimed::Lease(lease) = reply else { panic!("{reply:?}") };
    let mut admin = server.admin();
    let held: String = admin.ask("GET {sharedstate}:l:t:-:crm");
    assert_eq!(held, "1:8520336000000123");
    store.commit(&crm, &lease, &entry(lease.version, "one"), system::monotonic()).unwrap();
    let version: String = admin.ask("HGET {sharedstate}:v:t:-:crm ver");
    assert_eq!(version, "8520336000000123");
    store.invalidate(&crm, None, system::monotonic()).unwrap();
    let floor: String = admin.ask("HGET {sharedstate}:v:t:-:crm floor");
    assert_eq!(floor, "8520336000000124");
    let issued: String = admin.ask("HGET {sharedstate}:meta issued");
    assert_eq!(issued, "8520336000000124");
}

#[test]
fn after_flushall_entries_come_back_and_versions_go_on_growing() {
    let server = Server::start();
    let store = server.store();
    let (crm, now) = (key("crm"), system::monotonic());
    let entry = mint(&store, &crm, 1, "one");
    server.admin().tell("FLUSHALL");
    assert!(lease(&store, &key("other"), 2).version > entry.version);
    assert_eq!(store.restore(&crm, &entry, now).unwrap().what, Committed::Accepted);
    assert_eq!(value(&store, &crm), b"one");
}

#[test]
fn restoring_what_is_there_sends_no_body() {
    let server = Server::start();
    let store = server.store();
    let entry = mint(&store, &key("crm"), 1, "one");
    // The first time the script itself must be loaded.
    store.restore(&key("crm"), &entry, system::monotonic()).unwrap();
    let before = store.commands_sent();
    store.restore(&key("crm"), &entry, system::monotonic()).unwrap();
    assert_eq!(store.commands_sent() - before, 1);
}

#[test]
fn the_log_has_one_line_for_every_commit_and_every_raised_floor() {
    let server = Server::start();
    let (crm, now) = (key("crm"), system::monotonic());
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
    assert!(!store.invalidate(&crm, Some(Digest::of(b"another")), now).unwrap().what);
    assert_eq!(lines(), 1);
    let floor = store.invalidate(&crm, Some(entry.digest()), now).unwrap().floor;
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
    store.invalidate(&key("crm"), None, system::monotonic()).unwrap();
    assert_eq!(admin.ask::<u64>("HEXISTS {sharedstate}:v:t:-:crm body"), 0);
    let ttl: u64 = admin.ask("TTL {sharedstate}:v:t:-:crm");
    assert!(ttl >= 86_400 + 3_500, "the floor is kept as long: {ttl}");
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
        store.abandon(&crm, &lease, None, system::monotonic()).unwrap();
    }
    let older = Lease { secret: secret(3), version: Version(stored.version.0 - 1) };
    let late = store.commit(&crm, &older, &entry(older.version, "old"), system::monotonic());
    assert_eq!(late.unwrap().what, Committed::Fenced);
    mint(&store, &crm, 4, "two");
    assert_eq!(value(&store, &crm), b"two");
}

#[test]
fn two_hosts_that_race_for_a_key_commit_it_once() {
    const ROUNDS: u64 = 1_000;
    let server = Server::start();
    let start = Barrier::new(2);
    let race = |host: u64| {
        let store = server.store();
        let mut commits = Vec::new();
        for round in 0..ROUNDS {
            let key = key(&format!("round{round}"));
            start.wait();
            loop {
                match claim(&store, &key, 1 + round * 2 + host).unwrap() {
                    Claimed::Value(_) => break,
                    Claimed::Busy(_) => thread::yield_now(),
                    Claimed::Lease(lease) => {
                        let entry = entry(lease.version, &format!("host {host}"));
                        let reply = store.commit(&key, &lease, &entry, system::monotonic());
                        assert_eq!(reply.unwrap().what, Committed::Accepted);
                        commits.push(round);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        commits
    };
    let mut commits = thread::scope(|scope| {
        let other = scope.spawn(|| race(1));
        let mut commits = race(0);
        commits.extend(other.join().unwrap());
        commits
    });
    commits.sort_unstable();
    assert_eq!(commits, (0..ROUNDS).collect::<Vec<_>>());
}

#[test]
fn threads_share_the_places_of_a_pool_and_wait_no_longer_than_the_deadline() {
    let server = Server::start();
    let store = RedisStore::new(RedisConfig { pool_max: 2, ..server.config() });
    thread::scope(|scope| {
        for n in 1..=8 {
            let store = &store;
            scope.spawn(move || (0..50).for_each(|_| drop(claim(store, &key("crm"), n).unwrap())));
        }
    });
    let clients: String = server.admin().ask("CLIENT LIST");
    let ours = clients.lines().filter(|line| line.contains("cmd=evalsha")).count();
    assert!((1..=2).contains(&ours), "{clients}");

    let hung = fake_server(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let store = impatient(RedisConfig { pool_max: 1, ..hung });
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let (result, took) = timed(|| store.ping());
                assert!(result.is_err());
                assert!(took < BOUND, "{took:?}");
            });
        }
    });
}

#[test]
fn a_connection_idle_for_too_long_is_not_used_again() {
    let server = Server::start();
    let mut admin = server.admin();
    let config = RedisConfig { pool_idle: Duration::from_millis(20), ..server.config() };
    let store = RedisStore::new(config);
    let mut connections = || -> u64 {
        let stats: String = admin.ask("INFO stats");
        let received = |line: &str| line.strip_prefix("total_connections_received:")?.parse().ok();
        stats.lines().find_map(received).unwrap()
    };
    let before = connections();
    store.ping().unwrap();
    store.ping().unwrap();
    assert_eq!(connections() - before, 1);
    thread::sleep(Duration::from_millis(50));
    store.ping().unwrap();
    assert_eq!(connections() - before, 2);
}

static HEARD: AtomicU32 = AtomicU32::new(0);

extern "C" fn hear(_: libc::c_int) {
    HEARD.fetch_add(1, Ordering::SeqCst);
}

#[test]
#[allow(unsafe_code)]
fn a_signal_waits_for_the_operation_and_does_not_interrupt_it() {
    let server = Server::start();
    let store = server.store();
    store.ping().unwrap();
    // SAFETY: the handler only counts; SIGURG is nobody else's, and is ignored by default.
    unsafe { libc::signal(libc::SIGURG, hear as *const () as libc::sighandler_t) };
    // SAFETY: names the calling thread.
    let me = unsafe { libc::pthread_self() };
    server.admin().tell("CLIENT PAUSE 200 ALL");
    let during = thread::scope(|scope| {
        let caller = scope.spawn(move || {
            thread::sleep(Duration::from_millis(50));
            // SAFETY: the thread waits for this scope, so it exists.
            unsafe { libc::pthread_kill(me, libc::SIGURG) };
            thread::sleep(Duration::from_millis(50));
            HEARD.load(Ordering::SeqCst)
        });
        store.ping().unwrap();
        caller.join().unwrap()
    });
    assert_eq!(during, 0, "heard while the operation ran");
    assert_eq!(HEARD.load(Ordering::SeqCst), 1, "and heard afterwards");
}

#[test]
#[allow(unsafe_code)]
fn a_forked_child_closes_the_sockets_and_the_parent_goes_on() {
    let server = Server::start();
    let store = server.store();
    mint(&store, &key("crm"), 1, "one");
    // SAFETY: the child calls nothing that takes a lock another thread may have held, and leaves
    // by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        process::forked();
        close_inherited();
        let refused = matches!(store.ping(), Err(StoreError::Unreachable(_)));
        drop(store);
        // SAFETY: ends the child without the test harness noticing.
        unsafe { libc::_exit(if refused { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: `child` is our own child, and nobody else waits for it.
    unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(status, 0, "the child used its parent's pool");
    let before = store.commands_sent();
    assert_eq!(value(&store, &key("crm")), b"one");
    assert_eq!(store.commands_sent() - before, 1, "on the same connection");
}
