//! Connecting, deadlines, and servers that die or misbehave.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;

use super::super::testing::patient;
use super::*;
use crate::redis::log::RedisLog;
use crate::store::log::ChangeLog as _;

/// A server of our own on TCP, for the ways of misbehaving that Redis lacks.
pub(super) fn fake_server(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> RedisConfig {
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

/// A way to `server` on which each request takes as long as `delay` says of it.
pub(super) fn way(
    server: &Server,
    delay: impl Fn(&[u8]) -> Duration + Send + Sync + 'static,
) -> RedisConfig {
    let port = server.port;
    fake_server(move |mut near| {
        let mut far = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (mut back, mut from) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        let answers = thread::spawn(move || std::io::copy(&mut from, &mut back));
        let mut request = [0; 8192];
        while let Ok(length @ 1..) = near.read(&mut request) {
            thread::sleep(delay(&request[..length]));
            far.write_all(&request[..length]).unwrap();
        }
        let _ = far.shutdown(Shutdown::Write);
        let _ = answers.join();
    })
}

/// One on which every request takes so long, however patient who asks.
pub(super) fn slow_way(server: &Server, delay: Duration) -> RedisStore {
    RedisStore::new(patient(way(server, move |_| delay)))
}

/// What an operation ended with, and how long it took.
pub(super) fn timed<T>(operation: impl FnOnce() -> T) -> (T, Duration) {
    let started = now();
    let done = operation();
    (done, started.until(now()))
}

pub(super) const SHORT: Duration = Duration::from_millis(150);
/// Connect and response timeout make 300 ms; the rest is for a busy machine. What is not bounded takes far longer.
pub(super) const BOUND: Duration = Duration::from_secs(4);

pub(super) fn impatient(config: RedisConfig) -> RedisStore {
    let config = RedisConfig { connect_timeout: SHORT, response_timeout: SHORT, ..config };
    RedisStore::new(config)
}

fn with_password_file(mut config: RedisConfig, file: &std::path::Path) -> RedisConfig {
    config.login.password_file = Some(file.into());
    config
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
fn what_an_acl_denies_is_a_refusal_that_says_where_to_look() {
    let server = Server::start();
    server.admin().tell("ACL SETUSER app on >pw ~* +@all -hmget -xrevrange");
    let config = server.tcp("app:pw@", "");
    let (store, log) = (RedisStore::new(config.clone()), RedisLog::new(config));
    let in_a_script = claim(&store, &key("crm"), 1).unwrap_err();
    let by_itself = log.look(None).unwrap_err();
    for error in [&in_a_script, &by_itself] {
        assert!(matches!(error, StoreError::Refused(why) if why.contains("ACL LOG")), "{error:?}");
    }
    assert!(by_itself.to_string().contains("'xrevrange'"), "{by_itself}");
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
fn whatever_a_greeting_is_refused_with_is_a_refusal_of_the_store() {
    let server = Server::start();
    // No such database, and a password where none is configured.
    for (credentials, database) in [("", "/99"), (":pw@", "")] {
        let result = RedisStore::new(server.tcp(credentials, database)).ping();
        assert!(matches!(result, Err(StoreError::Refused(_))), "{result:?}");
    }
    for (content, word) in
        [("", "empty"), ("\u{feff}\r\n", "empty"), ("a\nb\n", "more than one line")]
    {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, content).unwrap();
        let config = with_password_file(server.config(), file.path());
        let result = RedisStore::new(config).ping();
        assert!(
            matches!(&result, Err(StoreError::Refused(why)) if why.contains(word)),
            "{result:?}"
        );
    }
}

#[test]
fn a_password_file_is_read_again_at_every_connect() {
    let server = Server::start_with(&[], Some("old"));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "old\n").unwrap();
    let config = with_password_file(server.config(), file.path());
    let store = RedisStore::new(config);
    store.ping().unwrap();
    let mut admin = server.admin();
    admin.tell("CONFIG SET requirepass new");
    admin.tell("CLIENT KILL TYPE normal SKIPME yes");
    assert!(matches!(store.ping(), Err(StoreError::Refused(_))), "the file still has the old one");
    std::fs::write(&file, "\u{feff}new\r\n").unwrap();
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
    assert!(matches!(result, Err(StoreError::TimedOut(_))), "{result:?}");
    assert!(took < BOUND, "{took:?}");
}

#[test]
fn a_server_that_never_answers_costs_one_deadline() {
    let store = impatient(fake_server(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    }));
    let (result, took) = timed(|| claim(&store, &key("crm"), 1));
    assert!(matches!(&result, Err(StoreError::TimedOut(why)) if why.contains("no answer")));
    assert!(took >= SHORT / 2 && took < BOUND, "{took:?}");
}

#[test]
fn nobody_listening_is_unreachable_at_once() {
    let nobody = RedisConfig::parse("redis+unix:///nonexistent/redis.sock").unwrap();
    let store = RedisStore::new(patient(nobody));
    let (result, took) = timed(|| store.ping());
    assert!(matches!(result, Err(StoreError::Unreachable(_))), "{result:?}");
    assert!(took < BOUND, "{took:?}, and its timeouts are ten seconds");
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
    let limit = Duration::from_millis(500);
    let store = RedisStore::new(RedisConfig { response_timeout: limit, ..server.config() });
    mint(&store, &key("a"), 1, "of a");
    mint(&store, &key("b"), 2, "of b");
    server.admin().tell("CLIENT PAUSE 1000 ALL");
    assert!(matches!(claim(&store, &key("a"), 3), Err(StoreError::Lapsed(_))));
    thread::sleep(Duration::from_millis(1_000));
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
    let minted = mint(&store, &key("crm"), 1, "one");
    assert!(matches!(claim(&store, &key("cold"), 1), Ok(Claimed::Lease(_))));
    let mut admin = server.admin();
    admin.tell("REPLICAOF 127.0.0.1 1");
    let refused = |what: Option<StoreError>| {
        let said = matches!(&what, Some(StoreError::Refused(why)) if why.contains("READONLY"));
        assert!(said, "{what:?}");
    };
    refused(store.invalidate(&key("crm"), None, Version::NONE, now()).err());
    // Nor does it vouch for what it has.
    refused(claim(&store, &key("crm"), 2).err());
    refused(store.restore(&key("crm"), &minted, now()).err());
    // Not even by a lease that it was told of.
    refused(claim(&store, &key("cold"), 2).err());
    admin.tell("REPLICAOF NO ONE");
    assert!(store.invalidate(&key("crm"), None, Version::NONE, now()).unwrap().what);
}

#[test]
fn a_server_that_writes_nothing_for_the_time_being_vouches_for_what_it_has() {
    let server = Server::start();
    let store = server.store();
    let minted = mint(&store, &key("crm"), 1, "one");
    server.admin().tell("CONFIG SET min-replicas-to-write 1");
    assert!(matches!(claim(&store, &key("crm"), 2), Ok(Claimed::Value(_))));
    let confirmed = store.restore(&key("crm"), &minted, now());
    assert_eq!(confirmed.map(|reply| reply.what.outcome), Ok(Committed::Accepted));
    assert!(store.invalidate(&key("crm"), None, Version::NONE, now()).is_err());
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
        // One after the other they would take twice as long as the bound.
        for _ in 0..56 {
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
