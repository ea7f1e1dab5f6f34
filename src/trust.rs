//! Whom a TLS client believes: the file with the certificates of authorities, and why a server was
//! not believed. Knows neither Redis nor HTTP.
//!
//! Files are read when they are needed and nothing is kept, so a rotated list is taken up without a
//! reload. An error is a sentence without any content of a file.

use std::io;
use std::path::{Path, PathBuf};

use rustls::CertificateError;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

#[cfg(test)]
pub mod authority;

/// Where distributions keep the authorities they trust, in one file. Read here and not by
/// `rustls-native-certs`, which opens each of them singly (1,400 system calls, 4 to 28 ms) and asks
/// the environment, which PHP may be changing in another thread.
const SYSTEM: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt", // Debian, Ubuntu, Arch
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Fedora, RHEL
    "/var/lib/ca-certificates/ca-bundle.pem", // SUSE
];

/// The file that says whom to believe: `given`, or else the system's. `remedy` is what to do where
/// there is none.
pub fn authorities(given: Option<&Path>, remedy: &str) -> io::Result<PathBuf> {
    let system = || SYSTEM.iter().map(Path::new).find(|path| path.exists());
    given.or_else(system).map(Path::to_owned).ok_or_else(|| {
        wrong(format!("this system has no list of authorities: install ca-certificates{remedy}"))
    })
}

/// All that is in the file, at least one.
pub fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let unfit = || unfit(path, "certificates in PEM form");
    let pem = read(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    all.ok().filter(|all| !all.is_empty()).ok_or_else(unfit)
}

pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        wrong(format!(
            "{} cannot be read: {error}; this process's user must be able to",
            path.display()
        ))
    })
}

/// Why the certificate of a server is refused, and what to do: `unsigned`, where nobody in the file of
/// `authorities` has signed it; `misnamed`, where it is for others.
pub fn disbelieved(
    why: &CertificateError,
    authorities: &Path,
    unsigned: &str,
    misnamed: &str,
) -> String {
    use CertificateError as C;

    let authorities = authorities.display();
    match why {
        // The second is another key under the same name, as after a CA was made anew.
        C::UnknownIssuer | C::BadSignature => {
            format!("the server's certificate is signed by nobody in {authorities}: {unsigned}")
        }
        C::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            "the server's certificate has no subjectAltName, and its CN does not count: have it \
             made anew with one, such as subjectAltName=DNS:server.example"
                .into()
        }
        C::NotValidForNameContext { presented, .. } => {
            // Some have a hundred.
            let names = presented.iter().take(2).cloned().collect::<Vec<_>>().join(" and ");
            let all = if presented.len() > 2 { " and others" } else { "" };
            format!("the server's certificate is for {names}{all}: {misnamed}")
        }
        // Their own words are long, and count in seconds.
        C::Expired | C::ExpiredContext { .. } => {
            "the server's certificate has expired: renew it, or set this host's clock".into()
        }
        C::NotValidYet | C::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet: set this host's clock".into()
        }
        why => format!(
            "the server's certificate is refused, {why}: expected one for a server, of X.509 \
             version 3, signed by a CA"
        ),
    }
}

pub fn wrong(sentence: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, sentence)
}

/// Without its content, which may be a key.
pub fn unfit(path: &Path, expected: &str) -> io::Error {
    wrong(format!("{} does not hold what it should: expected {expected}", path.display()))
}
