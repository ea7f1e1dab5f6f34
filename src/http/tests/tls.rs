//! Certificates that convince and certificates that do not, on real servers.

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;
use crate::trust::authority::{Authority, Identity};

const HERE: &str = "DNS:localhost,IP:127.0.0.1";

/// Answers every request over TLS with the same.
fn secure(identity: &Identity, said: Vec<u8>) -> u16 {
    let chain = trust::certificates(&identity.0).unwrap();
    let key = PrivateKeyDer::from_pem_file(&identity.1).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let session = ServerConnection::new(config.clone()).unwrap();
            let mut stream = StreamOwned::new(session, stream);
            if stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {
                let _ = stream.write_all(&said);
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });
    port
}

fn fetch(host: &str, port: u16, authorities: Option<&Path>) -> Result<Fetched, FetchError> {
    let source = source(&format!("json:https://{host}:{port}/rates?key=s3cret"));
    let fetch = HttpFetch::new(PATIENT, Proxies::default(), authorities.map(Into::into));
    fetch.fetch(&source, &Validators::default(), TIMEOUT)
}

#[test]
fn a_server_is_believed_by_name_and_by_address_and_under_no_other() {
    let authority = Authority::make();
    let ca = authority.certificate();
    let port = secure(&authority.sign("server", HERE, 1), json(LATEST.as_bytes()));
    for host in ["localhost", "127.0.0.1"] {
        assert!(matches!(fetch(host, port, Some(&ca)), Ok(Fetched::Sheet { .. })), "{host}");
    }
    let elsewhere = authority.sign("elsewhere", "DNS:elsewhere.example", 1);
    let port = secure(&elsewhere, json(LATEST.as_bytes()));
    for host in ["localhost", "127.0.0.1"] {
        says(&fetch(host, port, Some(&ca)).unwrap_err(), "cannot be trusted: the server's");
    }
}

#[test]
fn a_certificate_that_nobody_known_has_signed_is_refused() {
    let (authority, other) = (Authority::make(), Authority::make());
    let port = secure(&authority.sign("server", HERE, 1), json(LATEST.as_bytes()));
    let error = fetch("localhost", port, Some(&other.certificate())).unwrap_err();
    says(&error, &format!("signed by nobody in {}", other.certificate().display()));
    // The system's list knows no private authority either.
    says(&fetch("localhost", port, None).unwrap_err(), "");
    let itself = authority.itself();
    let port = secure(&itself, json(LATEST.as_bytes()));
    says(&fetch("localhost", port, None).unwrap_err(), "");
    says(&fetch("localhost", port, Some(&other.certificate())).unwrap_err(), "cannot be trusted");
}

#[test]
fn an_expired_certificate_is_refused() {
    let authority = Authority::make();
    let port = secure(&authority.sign("server", HERE, 0), json(LATEST.as_bytes()));
    thread::sleep(Duration::from_secs(2));
    let error = fetch("localhost", port, Some(&authority.certificate())).unwrap_err();
    says(&error, "renew it");
}

#[test]
fn a_server_beyond_a_proxy_proves_its_own_name_to_us() {
    let authority = Authority::make();
    let here = secure(&authority.sign("server", HERE, 1), json(LATEST.as_bytes()));
    let elsewhere = authority.sign("elsewhere", "DNS:elsewhere.example", 1);
    let elsewhere = secure(&elsewhere, json(LATEST.as_bytes()));
    let proxy = super::network::proxy();
    let address = format!("http://127.0.0.1:{}", proxy.port);
    let env = |name: &str| (name == "HTTPS_PROXY").then(|| address.clone());
    let proxies = Proxies::from_env(&env).unwrap();
    let fetch = HttpFetch::new(PATIENT, proxies, Some(authority.certificate()));
    let by = |port| {
        let source = source(&format!("json:https://localhost:{port}/rates?key=s3cret"));
        fetch.fetch(&source, &Validators::default(), TIMEOUT)
    };
    assert!(matches!(by(here), Ok(Fetched::Sheet { .. })));
    says(&by(elsewhere).unwrap_err(), "certificate is for DnsName(\"elsewhere.example\")");
    let asked = proxy.asked().concat();
    assert!(asked.contains(&format!("CONNECT localhost:{here} ")), "{asked}");
    assert!(!asked.contains("s3cret") && !asked.contains("/rates"), "{asked}");
}

#[test]
fn a_list_of_authorities_that_is_missing_or_something_else_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (missing, empty) = (folder.path().join("missing"), folder.path().join("empty"));
    std::fs::write(&empty, b"s3cret").unwrap();
    for (file, words) in [(&missing, "cannot be read"), (&empty, "expected certificates")] {
        let reason = fetch("localhost", 1, Some(file)).unwrap_err().reason;
        assert!(reason.contains(&file.display().to_string()), "{reason}");
        assert!(reason.contains(words) && !reason.contains("s3cret"), "{reason}");
    }
}

#[test]
fn a_redirect_out_of_tls_is_not_followed() {
    let authority = Authority::make();
    let plain = Site::saying(json(LATEST.as_bytes()));
    let location = format!("Location: {}\r\n", plain.at("/rates"));
    let port = secure(&authority.sign("server", HERE, 1), answer("302 Found", &location, b""));
    let error = fetch("127.0.0.1", port, Some(&authority.certificate())).unwrap_err();
    says(&error, "redirects out of TLS, which is not followed");
    assert_eq!(plain.asked().len(), 0);
}

#[test]
fn a_server_that_does_not_speak_tls_does_not_get_past_the_handshake() {
    let plain = Site::start(|_, stream| {
        let _ = stream.write_all(&json(LATEST.as_bytes()));
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let authority = Authority::make();
    let source = source(&format!("json:https://localhost:{}/rates", plain.port));
    let ca = Some(authority.certificate());
    let fetch = HttpFetch::new(SHORT, Proxies::default(), ca);
    let (result, took) = timed(|| fetch.fetch(&source, &Validators::default(), TIMEOUT));
    says(&result.unwrap_err(), "");
    assert!(took < SHORT * 5, "{took:?}");
}
