#![allow(unsafe_code)]
//! The mapped file as words. The only place that turns an address into a reference.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use super::layout::{BUCKET_BYTES, Bucket, Header, PAGE, SLOT_BYTES, Sizes, Slot};

/// A shared mapping of a whole table. Unmapped on drop, also in a forked child: there it is the
/// child's own view that goes.
pub struct Map {
    base: NonNull<u8>,
    sizes: Sizes,
}

// SAFETY: the mapping is plain memory reached only through atomics.
unsafe impl Send for Map {}
// SAFETY: as above; every word is an atomic.
unsafe impl Sync for Map {}

impl Map {
    /// The caller has checked that the file is at least `sizes.file_bytes()` long and that its
    /// index is allocated; nothing shrinks a live table.
    pub fn new(file: &File, sizes: Sizes) -> io::Result<Self> {
        let base = map(file, sizes.file_bytes())?;
        // Tokens do not belong in core files.
        // SAFETY: exactly the range just mapped. Advice may fail on an old kernel; nothing rests on it.
        unsafe { libc::madvise(base.as_ptr().cast(), sizes.file_bytes(), libc::MADV_DONTDUMP) };
        Ok(Self { base, sizes })
    }

    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    pub fn header(&self) -> &Header {
        self.at(0)
    }

    pub fn slot(&self, index: usize) -> &Slot {
        assert!(index < self.sizes.slots);
        self.at(PAGE + index * SLOT_BYTES)
    }

    pub fn bucket(&self, index: usize) -> &Bucket {
        assert!(index < self.sizes.buckets());
        self.at(self.sizes.buckets_start() + index * BUCKET_BYTES)
    }

    /// The words of one buffer. Its pages must have been allocated before any word is touched.
    pub fn buffer(&self, slot: usize, buffer: usize) -> &[AtomicU64] {
        assert!(slot < self.sizes.slots && buffer < super::layout::BUFFERS);
        let (offset, bytes) = self.sizes.buffer(slot, buffer);
        // SAFETY: the layout keeps every buffer inside `file_bytes()`, which `new` mapped, and at a
        // multiple of 8. Atomics may be shared with other processes.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(offset).cast(), bytes / 8) }
    }

    fn at<T>(&self, offset: usize) -> &T {
        // SAFETY: callers pass offsets of the layout, inside the mapping and aligned for `T`, whose
        // fields are all atomics: any bytes are a valid value, and others may write them.
        unsafe { &*self.base.as_ptr().add(offset).cast::<T>() }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: exactly the range that `new` mapped; no reference outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.sizes.file_bytes()) };
    }
}

/// A shared mapping of a file that is nothing but words.
pub struct Words {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping is plain memory reached only through atomics.
unsafe impl Send for Words {}
// SAFETY: as above; every word is an atomic.
unsafe impl Sync for Words {}

impl Words {
    /// The caller has checked that the file is at least `bytes` long and allocated; nothing shrinks it.
    pub fn new(file: &File, bytes: usize) -> io::Result<Self> {
        Ok(Self { base: map(file, bytes)?, bytes })
    }

    pub fn all(&self) -> &[AtomicU64] {
        // SAFETY: `new` mapped so many bytes, at the start of a page; any bytes are valid words, and
        // others may write them.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().cast(), self.bytes / 8) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: exactly the range that `new` mapped; no reference outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

fn map(file: &File, bytes: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: a fresh mapping at an address of the kernel's choice; `file` is open.
    let base = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_NORESERVE,
            file.as_raw_fd(),
            0,
        )
    };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at zero"))
}
