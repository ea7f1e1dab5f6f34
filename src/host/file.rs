//! Identity and life of the table's file: who may have made it, when it is too old to use, and how
//! two processes that start at once end up with the same one.
//!
//! The file gets its name by `link(2)` when it is complete, so nobody ever opens half a table.
//! Every mapper holds a shared lock on byte 0; whoever can lock it exclusively knows that nobody
//! uses the table.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::layout::{LAYOUT, MAGIC, Sizes};
use super::map::Map;
use super::sys::{self, LockKind};
use crate::clock::system;

/// Where a table lives.
#[derive(Clone, Debug)]
pub struct Place {
    pub dir: PathBuf,
    pub folder: PathBuf,
    pub uid: u32,
}

impl Place {
    /// `identity` is everything that makes two applications under one uid different (prefix, Redis
    /// endpoints, database, user): they never share an entry, a breaker or a leader. Nor do processes
    /// whose monotonic clocks differ, for rights end by it.
    pub fn new(dir: &Path, identity: &[&str]) -> Self {
        let mut hash = Sha256::new();
        hash.update(LAYOUT.to_be_bytes());
        let namespace = time_namespace();
        for part in identity.iter().copied().chain(namespace.as_deref()) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let hash: String = hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let uid = sys::effective_uid();
        let folder = dir.join(format!("{}{hash}", Self::folder_prefix(uid)));
        Self { dir: dir.to_owned(), folder, uid }
    }

    pub fn table(&self) -> PathBuf {
        self.folder.join("table")
    }

    fn folder_prefix(uid: u32) -> String {
        format!("sharedstate-{uid}-")
    }
}

/// Open the table, making it when it is absent and replacing it when it cannot be trusted.
/// The error is a finished sentence that names the folder and the fix.
pub fn open(place: &Place, wanted: Sizes) -> Result<(File, Map), String> {
    let mut last = String::new();
    // A turn of the loop is lost only to somebody else who is making or removing the file.
    for turn in 0..20 {
        std::thread::sleep(Duration::from_millis(turn));
        make_folder(place)?;
        match try_open(place, wanted) {
            Ok(Some(opened)) => return Ok(opened),
            Ok(None) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => last = error.to_string(),
            Err(error) => return Err(refusal(place, &error.to_string())),
        }
    }
    Err(refusal(place, &format!("other processes kept replacing it ({last})")))
}

/// Whether the path still names this very file: systemd's RemoveIPC and cleaning scripts unlink
/// files under running workers.
pub fn still_named(place: &Place, file: &File) -> bool {
    names(&place.table(), file)
}

fn names(path: &Path, file: &File) -> bool {
    match (fs::symlink_metadata(path), file.metadata()) {
        (Ok(named), Ok(open)) => named.ino() == open.ino() && named.dev() == open.dev(),
        _ => false,
    }
}

fn refusal(place: &Place, why: &str) -> String {
    let (folder, uid) = (place.folder.display(), sys::effective_uid());
    if uid != place.uid {
        return format!(
            "the host table in {folder} cannot be used: {why}; this process was uid {} at its first call and is \
             uid {uid} now: change the user before",
            place.uid
        );
    }
    format!(
        "the host table in {folder} cannot be used: {why}; set sharedstate.host.dir to a folder on a \
         memory file system that uid {uid} can write, or free space in it"
    )
}

fn make_folder(place: &Place) -> Result<(), String> {
    match DirBuilder::new().mode(0o700).create(&place.folder) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(refusal(place, &error.to_string())),
    }
    // `/dev/shm` is writable by all: another user may have been there first.
    let found = match fs::symlink_metadata(&place.folder) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()), // removed; try again
        Err(error) => return Err(refusal(place, &error.to_string())),
    };
    if !found.is_dir() {
        return Err(refusal(place, "it is not a folder but a file or a symbolic link"));
    }
    if found.uid() != place.uid {
        return Err(refusal(place, &format!("it belongs to uid {}", found.uid())));
    }
    if found.permissions().mode() & 0o077 != 0 {
        return Err(refusal(place, "others may enter it; its mode must be 0700"));
    }
    Ok(())
}

/// `Ok(None)`: somebody else was faster, or an unusable file was removed; look again.
fn try_open(place: &Place, wanted: Sizes) -> io::Result<Option<(File, Map)>> {
    let path = place.table();
    let file = match open_existing(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            create(place, wanted)?;
            return Ok(None);
        }
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(io::Error::other("`table` in it is a symbolic link"));
        }
        Err(error) => return Err(error),
    };
    let Some(found) = inspect(place, &file)? else {
        remove_if_unchanged(&place.folder, &path, &file)?;
        return Ok(None);
    };
    if found != wanted && sys::lock_byte(&file, 0, LockKind::Exclusive)? {
        // The settings changed and nobody uses the old table.
        remove_if_unchanged(&place.folder, &path, &file)?;
        return Ok(None);
    }
    if !sys::lock_byte(&file, 0, LockKind::Shared)? || !still_named(place, &file) {
        return Ok(None);
    }
    // Through an open of its own: a mapping keeps its open file alive, with all locks on it, in
    // every forked child that inherits the mapping, however many descriptors are closed there.
    let unlocked = open_existing(&path)?;
    if !still_named(place, &unlocked) {
        return Ok(None);
    }
    let map = Map::new(&unlocked, found).map_err(|error| {
        let megabytes = found.file_bytes() >> 20;
        io::Error::other(format!("{error}: it needs {megabytes} MB of address space (ulimit -v)"))
    })?;
    note_opened(&file);
    Ok(still_named(place, &file).then_some((file, map)))
}

pub(super) fn open_existing(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)
}

/// The sizes in the header of a table of this layout and boot; `None` when it is anything else.
fn inspect(place: &Place, file: &File) -> io::Result<Option<Sizes>> {
    let meta = file.metadata()?;
    if !meta.is_file() || meta.uid() != place.uid {
        return Err(io::Error::other("`table` in it is not a regular file of this user"));
    }
    let Some([_, _, slots, value_size, memory, ..]) = header(file).filter(|_| fits(file)) else {
        return Ok(None);
    };
    if !(1..=1 << 24).contains(&slots) || !(1..=1 << 24).contains(&value_size) {
        return Ok(None);
    }
    let sizes = Sizes::new(slots as usize, value_size as usize, memory);
    let whole = meta.len() == sizes.file_bytes() as u64
        // A hole where the index should be would be a SIGBUS waiting for a full file system.
        && meta.blocks() * 512 >= sizes.index_end() as u64;
    Ok(whole.then_some(sizes))
}

/// The first words of the file.
fn header(file: &File) -> Option<[u64; 7]> {
    let mut head = [0; 56];
    file.read_exact_at(&mut head, 0).ok()?;
    let mut words = [0_u64; 7];
    for (word, bytes) in words.iter_mut().zip(head.chunks_exact(8)) {
        let mut eight = [0; 8];
        eight.copy_from_slice(bytes);
        *word = u64::from_ne_bytes(eight);
    }
    Some(words)
}

fn create(place: &Place, sizes: Sizes) -> io::Result<()> {
    if create_named(place, &place.table(), |file| write_table(file, sizes))? {
        remove_siblings(place);
    }
    Ok(())
}

/// Make a file of the folder that has its name when `write` has completed it. `false`: somebody else
/// was faster.
pub(super) fn create_named(
    place: &Place,
    path: &Path,
    write: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<bool> {
    let unnamed = place.folder.join(format!("new-{:016x}", crate::random::number().unwrap_or(0)));
    let made = create_new(&unnamed)
        .and_then(|file| write(&file))
        .and_then(|()| fs::hard_link(&unnamed, path));
    let _ = fs::remove_file(&unnamed);
    match made {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)
}

fn write_table(file: &File, sizes: Sizes) -> io::Result<()> {
    if let Some(limit) = sys::file_size_limit().filter(|limit| *limit < sizes.file_bytes() as u64) {
        // Growing past it would be a fatal signal, SIGXFSZ.
        return Err(io::Error::other(format!(
            "this process may not make files above {limit} bytes (ulimit -f) and the table, \
             although it occupies little, is {} bytes long: lower sharedstate.host.slots",
            sizes.file_bytes()
        )));
    }
    file.set_len(sizes.file_bytes() as u64)?;
    sys::allocate(file, 0, sizes.index_end())?;
    let map = Map::new(file, sizes)?;
    let header = map.header();
    header.layout.store(LAYOUT, Relaxed);
    header.slots.store(sizes.slots as u64, Relaxed);
    header.value_size.store(sizes.value_size as u64, Relaxed);
    header.memory.store(sizes.memory, Relaxed);
    for (word, half) in header.boot.iter().zip(boot_id()) {
        word.store(half, Relaxed);
    }
    header.seed.store(crate::random::number().unwrap_or(0), Relaxed);
    header.magic.store(MAGIC, Relaxed);
    Ok(())
}

/// Unlink the file at the path, unless it is another one by now. Two processes that find the same
/// bad file must not remove each other's replacement, so the folder is locked; a stopped holder
/// costs the others a second and this attempt.
pub(super) fn remove_if_unchanged(folder: &Path, path: &Path, bad: &File) -> io::Result<()> {
    let folder = File::open(folder)?;
    for _ in 0..100 {
        if folder.try_lock().is_ok() {
            if names(path, bad) {
                fs::remove_file(path)?;
            }
            return Ok(()); // closing `folder` unlocks it
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(io::Error::other("another process holds the lock on it"))
}

/// Tables of older layouts and earlier boots that nobody maps, and those that nobody has opened for
/// a day; also what a process left that was killed while it made one. A table of another
/// application that merely rests between two requests is left alone. Best effort.
fn remove_siblings(place: &Place) {
    let Ok(entries) = fs::read_dir(&place.dir) else { return };
    let ours = Place::folder_prefix(place.uid);
    for folder in entries.flatten().map(|entry| entry.path()) {
        let named_ours = folder
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(ours.as_bytes()));
        let owned = fs::symlink_metadata(&folder)
            .is_ok_and(|meta| meta.is_dir() && meta.uid() == place.uid);
        if named_ours && owned && folder != place.folder {
            remove_unused(&folder);
        }
    }
}

/// A folder rests as long as its table does; what is beside that is of no use without it.
fn remove_unused(folder: &Path) {
    let resting = |table: File| fits(&table) && opened_lately(&table);
    if open_existing(&folder.join("table")).is_ok_and(resting) {
        return;
    }
    let Ok(files) = fs::read_dir(folder) else { return };
    for path in files.flatten().map(|entry| entry.path()) {
        let Ok(file) = open_existing(&path) else { continue };
        // Held until the name is gone: a process that opens it meanwhile sees that and goes on.
        if sys::lock_byte(&file, 0, LockKind::Exclusive).unwrap_or(false) {
            let _ = fs::remove_file(&path);
        }
    }
    let _ = fs::remove_dir(folder);
}

/// A table that this release could use, in this boot.
pub(super) fn fits(file: &File) -> bool {
    header(file).is_some_and(|[magic, layout, _, _, _, high, low]| {
        magic == MAGIC && layout == LAYOUT && [high, low] == boot_id()
    })
}

/// For [`opened_lately`], here or in an earlier release, which asks each file.
pub(super) fn note_opened(file: &File) {
    let _ = file.set_modified(std::time::SystemTime::UNIX_EPOCH + system::wall().since_epoch());
}

fn opened_lately(file: &File) -> bool {
    let opened = file.metadata().and_then(|meta| meta.modified());
    let age = opened.ok().and_then(|at| at.elapsed().ok());
    age.is_none_or(|age| age < Duration::from_secs(86_400))
}

/// The time namespace of this process (LXC and CRIU make some), unless it is the one the machine booted
/// with.
fn time_namespace() -> Option<String> {
    /// PROC_TIME_INIT_INO of Linux' include/linux/proc_ns.h.
    const FIRST: &str = "time:[4026531834]";
    let link = fs::read_link("/proc/self/ns/time").ok()?;
    link.to_str().filter(|name| *name != FIRST).map(str::to_owned)
}

/// A table on a real disk outlives a reboot, and its monotonic deadlines do not.
pub(super) fn boot_id() -> [u64; 2] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let id = u128::from_str_radix(&hex, 16).unwrap_or(0);
    [(id >> 64) as u64, id as u64]
}
