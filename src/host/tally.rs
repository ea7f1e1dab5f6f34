//! The file of the host's [`Tally`], beside the table: a table of an earlier release has no room for it,
//! and the two share tables. As the table's file it gets its name when it is complete, and is allocated
//! whole. Its header begins as the table's does, so that any release leaves alone what is in use.
//! Without it a process counts for itself; no call ever fails for it.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::file::{self, Place};
use super::layout::{LAYOUT, MAGIC, PAGE};
use super::map::Words;
use super::sys::{self, LockKind};
use crate::metrics::tally::{Memory, RESERVED, Tally};

const BYTES: usize = (Tally::WORDS * 8).div_ceil(PAGE) * PAGE;

/// Which file it is; another one may get its name.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Inode {
    device: u64,
    number: u64,
}

impl Inode {
    fn of(meta: &fs::Metadata) -> Self {
        Self { device: meta.dev(), number: meta.ino() }
    }
}

/// The tally of this host, or of this process where there is none.
pub struct TallyFile {
    pub tally: Arc<Tally>,
    named: Option<(PathBuf, Inode)>,
}

impl Memory for Words {
    fn words(&self) -> &[AtomicU64] {
        self.all()
    }
}

impl TallyFile {
    pub fn open(place: &Place) -> Self {
        // The name says what a word means: releases that disagree have a file each.
        let path = place.folder.join("tally-1");
        match open(place, &path) {
            Ok((tally, inode)) => Self { tally: Arc::new(tally), named: Some((path, inode)) },
            Err(error) => {
                log::warn!(
                    "{} cannot be used: {error}; this process's hits and mints by family are counted \
                     by itself",
                    path.display()
                );
                Self { tally: Arc::new(Tally::of_process()), named: None }
            }
        }
    }

    /// Whether the file is still the one that a new process would find.
    pub fn still_named(&self) -> bool {
        self.named.as_ref().is_none_or(|(path, inode)| names(path, *inode))
    }
}

fn names(path: &Path, inode: Inode) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| Inode::of(&meta) == inode)
}

fn open(place: &Place, path: &Path) -> io::Result<(Tally, Inode)> {
    // A turn of the loop is lost only to somebody else who is making or removing the file.
    for _ in 0..20 {
        let opened = match file::open_existing(path) {
            Ok(opened) => opened,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                create(place, path)?;
                continue;
            }
            Err(error) => return Err(error),
        };
        let meta = opened.metadata()?;
        if !meta.is_file() || meta.uid() != place.uid {
            return Err(io::Error::other("it is not a regular file of this user"));
        }
        let whole = meta.len() == BYTES as u64 && meta.blocks() * 512 >= BYTES as u64;
        if !whole || !file::fits(&opened) {
            // Of an earlier boot, or damaged. Who has it mapped goes on counting there.
            file::remove_if_unchanged(&place.folder, path, &opened)?;
            continue;
        }
        // The mapping keeps it when the descriptor is closed: the file is in use.
        let locked = sys::lock_byte(&opened, 0, LockKind::Shared)?;
        let tally = Tally::over(Words::new(&opened, BYTES)?);
        let inode = Inode::of(&meta);
        file::note_opened(&opened);
        if locked && names(path, inode) {
            return Ok((tally.ok_or(ErrorKind::UnexpectedEof)?, inode));
        }
    }
    Err(io::Error::other("other processes kept replacing it"))
}

fn create(place: &Place, path: &Path) -> io::Result<()> {
    file::create_named(place, path, |file| {
        file.set_len(BYTES as u64)?;
        sys::allocate(file, 0, BYTES)?;
        write_header(file)
    })
    .map(drop)
}

fn write_header(file: &File) -> io::Result<()> {
    let words = Words::new(file, BYTES)?;
    let [high, low] = file::boot_id();
    // Where the table has its own; magic last.
    let head = [(1, LAYOUT), (5, high), (6, low), (0, MAGIC)];
    const _: () = assert!(RESERVED > 6);
    for (at, value) in head {
        words.all()[at].store(value, Relaxed);
    }
    Ok(())
}
