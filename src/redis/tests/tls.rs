//! Certificates that convince and certificates that do not, on real servers.

use std::cell::Cell;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::testing::{Authority, Identity};
use super::network::{BOUND, fake_server, impatient, timed};
use super::*;
use crate::store::conformance::{RealTime, check};

const HERE: &str = "DNS:localhost,IP:127.0.0.1";

pub(super) struct Secure {
    authority: Authority,
    client: Identity,
    pub(super) server: Server,
}

pub(super) fn secure() -> Secure {
    let authority = Authority::make();
    let server = Server::start_tls(&authority, &authority.sign("server", HERE, 1));
    let client = authority.sign("client", "DNS:app", 1);
    Secure { authority, client, server }
}

impl Secure {
    pub(super) fn config(&self) -> RedisConfig {
        self.server.tls("127.0.0.1", &self.authority, &self.client)
    }

    /// Why `change` of what would work does not.
    fn refused(&self, change: impl FnOnce(&mut RedisConfig, &mut Tls)) -> String {
        let mut config = self.config();
        let mut tls = config.tls.clone().unwrap();
        change(&mut config, &mut tls);
        refused(RedisConfig { tls: config.tls.is_some().then_some(tls), ..config })
    }
}

fn refused(config: RedisConfig) -> String {
    match RedisStore::new(config).ping() {
        Err(StoreError::Unreachable(why) | StoreError::TimedOut(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn says(sentence: &str, all: &[&str]) {
    assert!(all.iter().all(|part| sentence.contains(part)), "{all:?} in: {sentence}");
}

#[test]
fn redis_over_tls_keeps_the_contract_of_a_store() {
    let secure = secure();
    let made = Cell::new(0);
    let make = || -> Box<dyn Store> {
        made.set(made.get() + 1);
        let prefix = Prefix::new(&format!("suite{}", made.get())).unwrap();
        Box::new(RedisStore::new(RedisConfig { prefix, ..secure.config() }))
    };
    check("RedisStore over TLS", &make, &RealTime);
}

#[test]
fn a_server_is_believed_by_name_and_by_address_and_under_no_other() {
    let secure = secure();
    for host in ["localhost", "127.0.0.1"] {
        let config = secure.server.tls(host, &secure.authority, &secure.client);
        RedisStore::new(config).ping().unwrap();
    }
    let elsewhere = secure.authority.sign("elsewhere", "DNS:elsewhere.example,IP:127.0.0.2", 1);
    let server = Server::start_tls(&secure.authority, &elsewhere);
    for host in ["localhost", "127.0.0.1"] {
        let why = refused(server.tls(host, &secure.authority, &secure.client));
        says(&why, &[host, "elsewhere.example", "use one of its names"]);
    }
}

#[test]
fn a_server_may_be_named_otherwise_than_it_is_reached() {
    let authority = Authority::make();
    let client = authority.sign("client", "DNS:app", 1);
    let server =
        Server::start_tls(&authority, &authority.sign("server", "DNS:cache.example.com", 1));
    let named = |name: &str| {
        let mut config = server.tls("127.0.0.1", &authority, &client);
        config.tls.as_mut().unwrap().server_name = Some(name.into());
        config
    };
    RedisStore::new(named("cache.example.com")).ping().unwrap();
    says(&refused(named("localhost")), &["cache.example.com", "tls_server_name"]);
}

#[test]
fn a_name_in_the_cn_alone_is_none() {
    let authority = Authority::make();
    let client = authority.sign("client", "DNS:app", 1);
    let server = Server::start_tls(&authority, &authority.sign_by_cn("localhost"));
    let why = refused(server.tls("localhost", &authority, &client));
    says(&why, &["no subjectAltName", "CN does not count"]);
}

#[test]
fn a_server_of_old_ciphers_is_told_from_one_that_wants_a_certificate() {
    let secure = secure();
    let identity = secure.authority.sign("old", HERE, 1);
    let options = "--tls-protocols TLSv1.2 --tls-ciphers AES256-SHA256";
    let old = Server::start_tls_with(&secure.authority, &identity, options);
    says(
        &refused(old.tls("localhost", &secure.authority, &secure.client)),
        &["no cipher in common", "ECDHE"],
    );
    for version in ["TLSv1.2", "TLSv1.3"] {
        let options = format!("--tls-protocols {version}");
        let server = Server::start_tls_with(&secure.authority, &identity, &options);
        let mut config = server.tls("localhost", &secure.authority, &secure.client);
        config.tls.as_mut().unwrap().identity = None;
        says(&refused(config), &["set tls_cert and tls_key"]);
    }
}

#[test]
fn an_unknown_authority_is_named_with_the_file_that_lacks_it() {
    let other = Authority::make();
    let why = secure().refused(|_, tls| tls.ca = Some(other.certificate()));
    says(&why, &["signed by nobody in", &other.certificate().display().to_string(), "set tls_ca"]);
}

#[test]
fn without_tls_ca_the_system_is_asked_and_does_not_know_a_private_authority() {
    let why = secure().refused(|_, tls| tls.ca = None);
    says(&why, &["tls_ca"]);
}

#[test]
fn an_expired_certificate_is_refused() {
    let authority = Authority::make();
    let server = Server::start_tls(&authority, &authority.sign("server", HERE, 0));
    let client = authority.sign("client", "DNS:app", 1);
    thread::sleep(Duration::from_secs(2));
    says(&refused(server.tls("localhost", &authority, &client)), &["expired", "renew it"]);
}

#[test]
fn a_server_in_the_clear_does_not_get_past_the_handshake() {
    // Redis says something only where there happens to be a line's end in what we send.
    let talker = fake_server(|mut stream| {
        let _ = stream.read(&mut [0; 64]);
        let _ = stream.write_all(b"-ERR unknown command\r\n");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let ca = Authority::make();
    let tls = Some(Tls { ca: Some(ca.certificate()), ..Tls::default() });
    says(&refused(RedisConfig { tls, ..talker }), &["does not speak TLS", "redis://"]);

    let silent = fake_server(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let tls = Some(Tls { ca: Some(ca.certificate()), ..Tls::default() });
    let (result, took) = timed(|| impatient(RedisConfig { tls, ..silent }).ping());
    says(&result.unwrap_err().to_string(), &["handshake", "expected a port that speaks TLS"]);
    assert!(took < BOUND, "{took:?}");
}

#[test]
fn a_tls_port_spoken_to_in_the_clear_says_rediss() {
    let why = secure().refused(|config, _| config.tls = None);
    says(&why, &["rediss://"]);
    // As others do it: an alert in the protocol that was expected.
    let alerting = fake_server(|mut stream| {
        let _ = stream.write_all(b"\x15\x03\x01\x00\x02\x02\x46");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    says(&refused(alerting), &["rediss://"]);
}

#[test]
fn a_client_without_a_certificate_or_with_anothers_is_told_so() {
    let secure = secure();
    let other = Authority::make();
    let stranger = other.sign("client", "DNS:app", 1);
    // The server hangs up behind its reason; it must not get lost on the way.
    for _ in 0..20 {
        says(&secure.refused(|_, tls| tls.identity = None), &["tls_cert", "tls_key"]);
    }
    let why = secure.refused(|_, tls| tls.identity = Some(stranger));
    says(&why, &["client certificate"]);
}

#[test]
fn a_file_that_is_missing_empty_or_something_else_is_named_and_never_quoted() {
    let secure = secure();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let (missing, empty) = (folder.path().join("missing"), file("empty", b""));
    let broken = file("broken", b"-----BEGIN PRIVATE KEY-----\ns3cret\n-----END");
    let (certificate, key) = secure.client.clone();
    let says_which = |why: String, path: &Path, expected: &str| {
        says(&why, &[&path.display().to_string(), expected]);
        assert!(!why.contains("s3cret"), "{why}");
    };
    for path in [&missing, &empty, &broken, &key] {
        let expected = if path == &missing { "cannot be read" } else { "expected certificates" };
        says_which(secure.refused(|_, tls| tls.ca = Some(path.clone())), path, expected);
        let identity = Some((path.clone(), key.clone()));
        says_which(secure.refused(|_, tls| tls.identity = identity), path, expected);
    }
    for path in [&missing, &empty, &broken, &certificate] {
        let expected = if path == &missing { "cannot be read" } else { "a private key" };
        let identity = Some((certificate.clone(), path.clone()));
        says_which(secure.refused(|_, tls| tls.identity = identity), path, expected);
    }
    let other = secure.authority.sign("other", "DNS:app", 1).1;
    let identity = Some((certificate, other.clone()));
    says_which(secure.refused(|_, tls| tls.identity = identity), &other, "is not the private key");
    let old = secure.authority.sign_plainly("old");
    let why = secure.refused(|_, tls| tls.identity = Some(old.clone()));
    says_which(why, &old.0, "X.509 version 3");
}

#[test]
fn a_connection_that_drips_cannot_exceed_the_deadline_in_the_handshake_or_later() {
    let secure = secure();
    let drips = Arc::new(AtomicBool::new(false));
    let (port, slow) = (secure.server.port, Arc::clone(&drips));
    let config = fake_server(move |client| dripping(client, port, &slow));
    let config = RedisConfig { tls: secure.config().tls, ..config };
    let limit = Duration::from_secs(2);
    let patient = RedisStore::new(RedisConfig { connect_timeout: limit, ..config.clone() });
    patient.ping().unwrap();
    drips.store(true, Ordering::Relaxed);
    for store in [patient, impatient(config)] {
        let (result, took) = timed(|| store.ping());
        let late = matches!(result, Err(StoreError::TimedOut(_) | StoreError::Lapsed(_)));
        assert!(late, "{result:?}");
        assert!(took < 2 * BOUND, "{took:?}");
    }
}

/// Hands everything on; what the server says, byte by byte when told so.
fn dripping(client: TcpStream, port: u16, slow: &AtomicBool) {
    let server = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (mut from_client, mut to_server) = (client.try_clone().unwrap(), &server);
    let (mut from_server, mut to_client) = (&server, &client);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = std::io::copy(&mut from_client, &mut to_server);
            let _ = server.shutdown(Shutdown::Both);
        });
        let mut byte = [0];
        while matches!(from_server.read(&mut byte), Ok(1)) && to_client.write_all(&byte).is_ok() {
            if slow.load(Ordering::Relaxed) {
                // An answer of thirty bytes would take two seconds.
                thread::sleep(Duration::from_millis(60));
            }
        }
        let _ = client.shutdown(Shutdown::Both);
    });
}
