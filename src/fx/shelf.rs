//! The last good sheet in a file of this host, for a start with everything else down. What is read
//! from it is as old as it says and goes to no store.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::clock::Moment;

/// What the file holds: a stored sheet, as its store had it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Shelved {
    pub version: u64,
    /// Unix seconds.
    pub confirmed_at: i64,
    pub holding: Box<RawValue>,
}

impl Shelved {
    /// When its sheet was confirmed, and no later than now; `wall` is the same instant in Unix milliseconds.
    pub fn confirmed(&self, now: Moment, wall: i64) -> Moment {
        now.plus_millis(self.confirmed_at.saturating_mul(1000).saturating_sub(wall).min(0))
    }
}

/// The file of one application.
#[derive(Debug)]
pub struct Shelf {
    path: PathBuf,
}

/// The first line: this, and the SHA-256 of all that follows.
const MAGIC: &str = "sharedstate sheet 1 ";
/// Far above what a table takes.
const MOST: u64 = 4 << 20;

impl Shelf {
    pub fn new(folder: &Path, prefix: &str) -> Self {
        let name = utf8_percent_encode(prefix, NON_ALPHANUMERIC);
        Self { path: folder.join(format!("{name}.sheet")) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All of it or nothing, whenever the machine stops.
    pub fn write(&self, shelved: &Shelved) -> io::Result<()> {
        let body = serde_json::to_vec(shelved)?;
        // Two processes at once: the rename of each is whole.
        let temporary = format!("{:x}", crate::random::number().unwrap_or(0));
        let temporary = self.path.with_extension(temporary);
        let written = || {
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(&framed(&body))?;
            file.sync_all()?;
            std::fs::rename(&temporary, &self.path)?;
            File::open(self.path.parent().unwrap_or(Path::new("/")))?.sync_all()
        };
        written().inspect_err(|_| drop(std::fs::remove_file(&temporary)))
    }

    /// `None` when there is no file yet. The error is a sentence.
    pub fn read(&self) -> Result<Option<Shelved>, String> {
        let shown = self.path.display();
        let mut text = Vec::new();
        match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("{shown} cannot be opened: {error}")),
            Ok(file) => file
                .take(MOST)
                .read_to_end(&mut text)
                .map_err(|error| format!("{shown} cannot be read: {error}"))?,
        };
        understood(&text).map(Some).ok_or_else(|| {
            format!("{shown} is damaged or not a sheet of sharedstate; it is written anew with the next sheet")
        })
    }
}

fn sum_of(body: &[u8]) -> String {
    Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file's content: the first line, and what it is the sum of.
pub(super) fn framed(body: &[u8]) -> Vec<u8> {
    [MAGIC.as_bytes(), sum_of(body).as_bytes(), b"\n", body].concat()
}

pub(super) fn understood(text: &[u8]) -> Option<Shelved> {
    let rest = text.strip_prefix(MAGIC.as_bytes())?;
    let (sum, body) = rest.split_at_checked(64)?;
    let body = body.strip_prefix(b"\n")?;
    let whole = sum_of(body).as_bytes() == sum;
    whole.then(|| serde_json::from_slice(body).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelved(version: u64) -> Shelved {
        let holding = RawValue::from_string(r#"{"v":1,"base":"EUR"}"#.into()).unwrap();
        Shelved { version, confirmed_at: 1_700_000_000, holding }
    }

    #[test]
    fn what_is_written_comes_back_and_the_later_one_stands() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(folder.path(), "shop/eu");
        assert!(shelf.read().unwrap().is_none());
        shelf.write(&shelved(1)).unwrap();
        shelf.write(&shelved(2)).unwrap();
        let read = shelf.read().unwrap().unwrap();
        assert_eq!((read.version, read.holding.get()), (2, r#"{"v":1,"base":"EUR"}"#));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left over");
    }

    #[test]
    fn a_file_with_one_byte_changed_or_cut_off_is_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(folder.path(), "shop");
        shelf.write(&shelved(1)).unwrap();
        let whole = std::fs::read(shelf.path()).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            std::fs::write(shelf.path(), &changed).unwrap();
            assert!(shelf.read().unwrap_err().contains("damaged"), "byte {at}");
            std::fs::write(shelf.path(), &whole[..at]).unwrap();
            assert!(shelf.read().unwrap_err().contains("damaged"), "cut at {at}");
        }
    }
}
