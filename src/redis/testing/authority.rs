//! A private certificate authority for tests, by the openssl command.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

pub struct Authority(TempDir);

/// Certificate and key.
pub type Identity = (PathBuf, PathBuf);

impl Authority {
    pub fn make() -> Self {
        let authority = Self(tempfile::tempdir().unwrap());
        let (certificate, key) = authority.named("ca");
        openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=authority \
             -days 1 -out {} -keyout {}",
            certificate.display(),
            key.display()
        ));
        authority
    }

    pub fn certificate(&self) -> PathBuf {
        self.named("ca").0
    }

    /// For a server of these `names`, as in `DNS:localhost,IP:127.0.0.1`; a client needs none that
    /// fits. With zero `days` it is over a second later.
    pub fn sign(&self, file: &str, names: &str, days: u32) -> Identity {
        let ((ca, ca_key), (certificate, key)) = (self.named("ca"), self.named(file));
        let request = self.0.path().join(format!("{file}.request"));
        openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={file} \
             -addext subjectAltName={names} -out {} -keyout {}",
            request.display(),
            key.display()
        ));
        openssl(&format!(
            "x509 -req -in {} -CA {} -CAkey {} -days {days} -copy_extensions copyall -out {}",
            request.display(),
            ca.display(),
            ca_key.display(),
            certificate.display()
        ));
        (certificate, key)
    }

    fn named(&self, file: &str) -> Identity {
        let path = |ending| Path::new(self.0.path()).join(format!("{file}.{ending}"));
        (path("pem"), path("key"))
    }
}

fn openssl(arguments: &str) {
    let done = Command::new("openssl")
        .args(arguments.split_whitespace())
        .output()
        .unwrap_or_else(|error| panic!("openssl does not run ({error}): apt-get install openssl"));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}
