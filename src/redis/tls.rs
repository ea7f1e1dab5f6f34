//! TLS over a [`Socket`]: who the server is, and who we are to it. Knows certificates, not Redis.
//!
//! - The server proves a name, always: there is no way to connect without.
//! - Files are read at every connect, so a rotated certificate is taken up without a reload; half a
//!   millisecond for the 140 authorities of Debian. No connection resumes the session of another,
//!   so none goes on with what was rotated away.
//! - Nothing is kept between connections: no lock that a forked child could inherit.
//! - No farewell (`close_notify`): a dropped connection says nothing, least of all in a forked child.
//!
//! An error is a sentence without any content of a file.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use rustls::client::{ClientConnection, Resumption};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{AlertDescription as Alert, ClientConfig, Error, RootCertStore, StreamOwned};

use super::config::Tls;
use super::connection::dropped;
use super::socket::{Limit, Socket, Transport};
use crate::trust::{self, certificates, read, unfit, wrong};

/// A connection on which both sides have proved what was asked of them.
pub struct Secured(StreamOwned<ClientConnection, Socket>);

impl Secured {
    /// Shake hands with the server that is reached as `host`, a name or an IP address. Blocks until
    /// the socket's deadline at the latest.
    pub fn over(socket: Socket, host: &str, tls: &Tls) -> io::Result<Self> {
        let host = tls.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            wrong(format!("no certificate can be for the host {host:?}: set tls_server_name"))
        })?;
        let authorities = trust::authorities(tls.ca.as_deref(), " or set tls_ca")?;
        let session = ClientConnection::new(Arc::new(client(tls, &authorities)?), name)
            .map_err(|error| wrong(format!("TLS: {error}")))?;
        let mut stream = StreamOwned::new(session, socket);
        match stream.conn.complete_io(&mut stream.sock) {
            Ok(_) => Ok(Self(stream)),
            Err(error) => {
                let word = dropped(&error).then(|| last_word(&mut stream)).flatten();
                let error = word.unwrap_or(error);
                let agreed = stream.conn.peer_certificates().is_some();
                Err(unshaken(error, &authorities, agreed))
            }
        }
    }
}

impl Read for Secured {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(explained)
    }
}

impl Write for Secured {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.write(buffer).map_err(explained)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(explained)
    }
}

impl Transport for Secured {
    fn set_limit(&mut self, limit: Limit) {
        self.0.sock.set_limit(limit);
    }
}

fn client(tls: &Tls, authorities: &Path) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    // One authority of an odd old form must not cost us the others of a long list.
    let (usable, _) = roots.add_parsable_certificates(certificates(authorities)?);
    if usable == 0 {
        return Err(unfit(authorities, "certificates of authorities in PEM form"));
    }
    // The provider is named: looking for the process's default one panics without it.
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(format!("TLS: {error}")))?
        .with_root_certificates(roots);
    let mut client = match &tls.identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder
            .with_client_auth_cert(certificates(chain)?, private_key(key)?)
            .map_err(|error| {
                let (chain, key) = (chain.display(), key.display());
                wrong(match error {
                    Error::InconsistentKeys(_) => {
                        format!("{key} is not the private key of the certificate in {chain}")
                    }
                    other => format!(
                        "{chain} and {key} cannot be used, {other}: expected a certificate of \
                         X.509 version 3 and its RSA, ECDSA or Ed25519 key"
                    ),
                })
            })?,
    };
    client.resumption = Resumption::disabled();
    Ok(client)
}

fn private_key(path: &Path) -> io::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(&read(path)?)
        .map_err(|_| unfit(path, "a private key in PEM form, not encrypted"))
}

/// What the server said before it closed, where we were still sending: why it did.
fn last_word(stream: &mut StreamOwned<ClientConnection, Socket>) -> Option<io::Error> {
    while let Ok(1..) = stream.conn.read_tls(&mut stream.sock) {
        if let Err(error) = stream.conn.process_new_packets() {
            return Some(io::Error::new(io::ErrorKind::InvalidData, error));
        }
    }
    None
}

/// Why there is no connection, and what to do. `agreed`: on a cipher, for the server has shown its certificate.
fn unshaken(error: io::Error, authorities: &Path, agreed: bool) -> io::Error {
    let Some(reason) = reason(&error) else {
        let what = match error.kind() {
            io::ErrorKind::TimedOut => "did not end in time",
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => "was cut short",
            _ => return error,
        };
        let sentence = format!("the TLS handshake {what}: expected a port that speaks TLS");
        return io::Error::new(error.kind(), sentence);
    };
    wrong(match reason {
        Error::InvalidMessage(_) => {
            "the server does not speak TLS here: use its TLS port, or redis:// without TLS".into()
        }
        Error::InvalidCertificate(why) => {
            trust::disbelieved(
                why,
                authorities,
                "set tls_ca to its CA's certificate",
                "use one of its names, here or in tls_server_name, or add this one to its subjectAltName",
            )
        }
        Error::AlertReceived(Alert::HandshakeFailure) if !agreed => {
            "the server ended TLS (HandshakeFailure): no cipher in common; expected TLS 1.3, or TLS 1.2 with ECDHE and \
             AES-GCM or ChaCha20 (see its tls-protocols, tls-ciphers)"
                .into()
        }
        other => said(other),
    })
}

fn reason(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

fn explained(error: io::Error) -> io::Error {
    reason(&error).map(said).map_or(error, wrong)
}

/// With TLS 1.3 a server looks at our certificate when we believe the handshake to be over, so its
/// alert may be heard at any time.
fn said(reason: &Error) -> String {
    let Error::AlertReceived(alert) = reason else { return format!("TLS: {reason}") };
    let remedy = match alert {
        Alert::CertificateRequired | Alert::HandshakeFailure => {
            "it may want a client certificate: set tls_cert and tls_key"
        }
        Alert::ProtocolVersion => "expected TLS 1.2 or 1.3",
        Alert::InternalError | Alert::UserCanceled => "its log may say why",
        _ => "our client certificate may be expired, or not signed by an authority it trusts",
    };
    format!("the server ended TLS ({alert:?}): {remedy}")
}
