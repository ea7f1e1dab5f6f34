//! Who says which server to follow, and is wrong or silent: sentinels, nodes, names, and a former
//! master itself.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use super::super::testing::patient;
use super::network::fake_server;
use super::*;
use crate::redis::log::RedisLog;
use crate::resolve::Resolver;
use crate::store::log::{ChangeLog as _, Followed};

const PATIENCE: Duration = Duration::from_millis(50);
/// After this a leader makes sure of its server; see `log.rs`.
const LOOK_AGAIN: Duration = Duration::from_millis(1_100);

fn endpoint(config: RedisConfig) -> Endpoint {
    let Topology::Single(endpoint) = config.topology else { panic!("{config:?}") };
    endpoint
}

fn reached_by(topology: Topology, connect_timeout: Duration) -> RedisConfig {
    let defaults = RedisConfig::parse("redis://127.0.0.1").unwrap();
    RedisConfig { topology, connect_timeout, ..patient(defaults) }
}

/// Takes connections and says nothing, as a host does that is dead to whoever asks it.
fn dead() -> u16 {
    let silent = fake_server(|mut stream| drop(stream.read_to_end(&mut Vec::new())));
    let Endpoint::Tcp { port, .. } = endpoint(silent) else { panic!("it listens on TCP") };
    port
}

/// Answers every request with `answer`, and the name of a connection with OK; nothing while `silent`.
fn informant(answer: String, silent: &'static AtomicBool) -> Endpoint {
    endpoint(fake_server(move |mut stream| {
        let mut request = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut request) {
            let named = request[..length].windows(7).any(|word| word == b"SETNAME");
            if !silent.load(Ordering::SeqCst) {
                let _ = stream.write_all(if named { b"+OK\r\n" } else { answer.as_bytes() });
            }
        }
    }))
}

static NEVER: AtomicBool = AtomicBool::new(false);

fn sentinel(names: u16, silent: &'static AtomicBool) -> Endpoint {
    let port = names.to_string();
    informant(format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.len()), silent)
}

fn set_of(sentinels: Vec<Endpoint>) -> Topology {
    Topology::Sentinel { sentinels, master: "tokens".into(), login: Login::default() }
}

#[test]
fn a_sentinel_that_names_a_dead_master_leaves_time_to_ask_the_next() {
    let server = Server::start();
    let set = set_of(vec![sentinel(dead(), &NEVER), sentinel(server.port, &NEVER)]);
    RedisStore::new(reached_by(set, Duration::from_secs(2))).ping().unwrap();
}

#[test]
fn a_node_that_names_a_dead_holder_leaves_time_to_ask_the_next() {
    let server = Server::start();
    let node = |names: u16| {
        let holder = format!("*2\r\n$9\r\n127.0.0.1\r\n:{names}\r\n");
        informant(format!(":1\r\n*1\r\n*3\r\n:0\r\n:16383\r\n{holder}"), &NEVER)
    };
    let cluster = Topology::Cluster { seeds: vec![node(dead()), node(server.port)] };
    RedisStore::new(reached_by(cluster, Duration::from_secs(2))).ping().unwrap();
}

#[test]
fn while_sentinels_hang_the_master_is_followed_on() {
    static SILENT: AtomicBool = AtomicBool::new(false);
    let server = Server::start();
    let set = set_of(vec![sentinel(server.port, &SILENT)]);
    let log = RedisLog::new(reached_by(set, Duration::from_millis(500)));
    let anchor = log.look(None).unwrap().last;
    SILENT.store(true, Ordering::SeqCst);
    thread::sleep(LOOK_AGAIN);
    let followed = log.follow(&anchor, PATIENCE);
    assert!(matches!(followed, Ok(Followed::Lines { .. })), "{followed:?}");
}

#[test]
fn a_connection_that_fell_silent_is_lost_and_no_silence_of_the_server() {
    static SILENT: AtomicBool = AtomicBool::new(false);
    let server = Server::start();
    let port = server.port;
    let forgetful = fake_server(move |mut near| {
        let mut far = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (mut back, mut from) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut from, &mut back));
        let mut request = [0; 4096];
        while let Ok(length @ 1..) = near.read(&mut request) {
            if !SILENT.load(Ordering::SeqCst) && far.write_all(&request[..length]).is_err() {
                break;
            }
        }
    });
    let timeout = Duration::from_millis(500);
    let log = RedisLog::new(RedisConfig {
        connect_timeout: timeout,
        response_timeout: timeout,
        ..forgetful
    });
    let anchor = log.look(None).unwrap().last;
    SILENT.store(true, Ordering::SeqCst);
    thread::sleep(LOOK_AGAIN);
    let followed = log.follow(&anchor, PATIENCE);
    assert!(matches!(followed, Err(StoreError::Lapsed(_))), "{followed:?}");
    SILENT.store(false, Ordering::SeqCst);
    assert_eq!(log.follow(&anchor, PATIENCE), Ok(Followed::Unknown));
}

#[test]
fn a_master_that_lacks_replicas_is_followed_on() {
    let server = Server::start();
    let log = RedisLog::new(server.config());
    let anchor = log.look(None).unwrap().last;
    server.admin().tell("CONFIG SET min-replicas-to-write 1");
    assert!(log.look(Some(&anchor)).unwrap().stands);
    let followed = log.follow(&anchor, PATIENCE);
    assert!(matches!(followed, Ok(Followed::Lines { .. })), "{followed:?}");
}

#[test]
fn when_a_name_leads_elsewhere_the_server_that_was_left_is_not_followed_although_it_is_a_master() {
    static PORT: AtomicU16 = AtomicU16::new(0);
    let [former, next] = [Server::start(), Server::start()];
    PORT.store(former.port, Ordering::SeqCst);
    let resolver =
        Resolver::asking(|_, _| Ok(vec![([127, 0, 0, 1], PORT.load(Ordering::SeqCst)).into()]));
    let config = patient(RedisConfig::parse("redis://redis.internal").unwrap());
    let log = RedisLog::new(config).resolving(resolver);
    let anchor = log.look(None).unwrap().last;
    PORT.store(next.port, Ordering::SeqCst);
    let give_up = now().plus(Duration::from_secs(15));
    while log.follow(&anchor, PATIENCE).unwrap() != Followed::Unknown {
        assert!(now() < give_up, "it stays with the server that was left");
    }
    let anchor = log.look(None).unwrap().last;
    mint(&next.store(), &key("crm"), 1, "one");
    let heard = log.follow(&anchor, PATIENCE).unwrap();
    assert!(matches!(heard, Followed::Lines { changes, .. } if changes.len() == 1));
}
