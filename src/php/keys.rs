//! The keys that seal values, from `sharedstate.encryption_key_file`.
//!
//! Read while the module starts: an FPM master may still be root then, and the file readable by nobody
//! else. A setting of a pool is known only in its workers, which read the file as who they are.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::string::Str;
use super::zend;
use crate::config::KEY_FILE;
use crate::error::Error;
use crate::lock::Mutex;
use crate::seal::Seal;

type Contents = Zeroizing<Vec<u8>>;

/// What was in the file of php.ini's setting when the module started.
static AT_START: Mutex<Option<(PathBuf, Contents)>> = Mutex::new(None);

/// MINIT. Says nothing: the first call tries again, and tells.
pub fn read_at_start() {
    let path = zend::ini_value(KEY_FILE).map_or(&[][..], Str::bytes);
    let path = PathBuf::from(String::from_utf8_lossy(path).as_ref());
    *AT_START.lock() = read(&path).ok().map(|contents| (path, contents));
}

/// Room for the most a key file may have, at once: a buffer that grows leaves copies behind.
const ROOM: usize = 64 << 10;

fn read(path: &Path) -> io::Result<Contents> {
    let mut contents = Zeroizing::new(Vec::with_capacity(ROOM));
    File::open(path)?.take(ROOM as u64 / 2).read_to_end(&mut contents)?;
    Ok(contents)
}

pub fn seal(path: &Path) -> Result<Seal, Error> {
    let refused = |why: String| Error::Config(format!("{KEY_FILE} {}: {why}", path.display()));
    let known = AT_START.lock().as_ref().filter(|(of, _)| of == path).map(|(_, it)| it.clone());
    let contents = match known {
        Some(contents) => contents,
        None => read(path).map_err(|error| {
            let way_out = match error.kind() {
                ErrorKind::PermissionDenied => {
                    "set it in php.ini, where the master reads it while it is still root, or let \
                     this user read it"
                }
                _ => "expected a file with a key, such as openssl rand -hex 32 prints",
            };
            refused(format!("cannot be read: {error}; {way_out}"))
        })?,
    };
    Seal::parse(&contents).map_err(refused)
}
