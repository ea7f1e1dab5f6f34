//! Why there is no answer, as the end of a sentence that begins with the host. Written anew for each
//! kind: ureq's own words may quote an address or a header.

use std::io;
use std::path::Path;
use std::time::Duration;

use rustls::Error as Tls;
use ureq::Error;

use crate::fx::MAX_DOCUMENT;
use crate::trust;

pub(super) fn told(error: Error, timeout: Duration, authorities: &Path) -> String {
    match error {
        Error::Timeout(_) => late(timeout),
        Error::Io(error) => io(&error, timeout, authorities),
        Error::Rustls(error) => tls(&error, authorities),
        Error::BodyExceedsLimit(_) => {
            format!("sends more than {MAX_DOCUMENT} bytes, which is no sheet: check its address")
        }
        Error::LargeResponseHeader(..) => "sends headers without an end".into(),
        Error::ConnectProxyFailed(_) => {
            "cannot be reached: the proxy does not connect to it".into()
        }
        Error::Protocol(_) | Error::Http(_) => {
            "does not speak HTTP as expected: check its address and port".into()
        }
        _ => "cannot be asked: check its address".into(),
    }
}

fn late(timeout: Duration) -> String {
    format!("did not answer in full within {:.1} s", timeout.as_secs_f64())
}

fn io(error: &io::Error, timeout: Duration, authorities: &Path) -> String {
    if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref()) {
        return tls(error, authorities);
    }
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => late(timeout),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
            "closed the connection before its answer was complete".into()
        }
        _ => format!("cannot be reached: {error}"),
    }
}

fn tls(error: &Tls, authorities: &Path) -> String {
    let why = match error {
        Tls::InvalidMessage(_) => "it does not speak TLS: check its address and port".into(),
        Tls::InvalidCertificate(why) => trust::disbelieved(
            why,
            authorities,
            "if it is right, add its CA's certificate there",
            "use one of its names, or add this one to its subjectAltName",
        ),
        other => other.to_string(),
    };
    format!("cannot be trusted: {why}")
}
