//! A private certificate authority for tests, by the openssl command.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

pub struct Authority(TempDir);

/// Certificate and key.
pub type Identity = (PathBuf, PathBuf);

const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";

impl Authority {
    pub fn make() -> Self {
        let authority = Self(tempfile::tempdir().unwrap());
        authority.openssl(&format!(
            "req -x509 {NEW_KEY} -subj /CN=authority -days 1 -out ca.pem -keyout ca.key"
        ));
        authority
    }

    pub fn certificate(&self) -> PathBuf {
        self.named("ca").0
    }

    /// The authority as a server, whose certificate is signed by itself.
    #[cfg(feature = "http")]
    pub fn itself(&self) -> Identity {
        self.named("ca")
    }

    /// For a server of these `names`, as in `DNS:localhost,IP:127.0.0.1`; nobody compares those of
    /// a client. With zero `days` it is over a second later.
    pub fn sign(&self, file: &str, names: &str, days: u32) -> Identity {
        self.request(file, &format!("-addext subjectAltName={names}"));
        self.answer(file, days, "-copy_extensions copyall")
    }

    /// For a server that is named in its CN alone.
    pub fn sign_by_cn(&self, file: &str) -> Identity {
        self.request(file, "-addext keyUsage=digitalSignature");
        self.answer(file, 1, "-copy_extensions copyall")
    }

    /// Without any extension, which makes it one of the first version.
    pub fn sign_plainly(&self, file: &str) -> Identity {
        self.request(file, "");
        self.answer(file, 1, "")
    }

    fn request(&self, file: &str, more: &str) {
        self.openssl(&format!(
            "req {NEW_KEY} -subj /CN={file} -out {file}.request -keyout {file}.key {more}"
        ));
    }

    fn answer(&self, file: &str, days: u32, more: &str) -> Identity {
        self.openssl(&format!(
            "x509 -req -in {file}.request -CA ca.pem -CAkey ca.key -days {days} -out {file}.pem {more}"
        ));
        self.named(file)
    }

    fn named(&self, file: &str) -> Identity {
        let path = |ending| self.0.path().join(format!("{file}.{ending}"));
        (path("pem"), path("key"))
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        command.current_dir(&self.0).args(arguments.split_whitespace());
        let done = command.output().unwrap_or_else(|error| {
            panic!("openssl does not run ({error}): apt-get install openssl")
        });
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}
