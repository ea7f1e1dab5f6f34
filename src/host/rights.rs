//! Rights: who may run a key's flight, who may write a bucket.
//!
//! A right is a kernel lock **and** a deadline. The lock goes when its holder dies; but a stopped
//! process is not dead, so past the deadline another may take the next *generation*, which has a
//! lock byte of its own. Generation and deadline share one word: taking over, renewing and taking
//! are compare-and-sets of it, so a deadline that has just been renewed cannot be overrun.
//! Who was given up on learns it from the generation, whenever it wakes.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use super::layout::RightWord;
use super::sys::{self, LockKind};
use crate::clock::Uptime;
use crate::lock::Mutex;
use crate::process::Own;

/// Lock bytes of the table's file. Byte 0 is every mapper's shared lock.
#[derive(Clone, Copy, Debug)]
pub enum Space {
    Flight,
    Write,
    Lead,
    Ask,
}

impl Space {
    /// A byte of its own for every generation of every place.
    fn byte(self, place: usize, generation: u32) -> i64 {
        let base: i64 = match self {
            Self::Flight => 1 << 62,
            Self::Write => 1 << 61,
            Self::Lead => 1 << 60,
            Self::Ask => 1 << 59,
        };
        base + ((place as i64) << 24) + i64::from(generation)
    }
}

/// How long a holder that overran its deadline has left after somebody noticed.
const GRACE_MS: i64 = 20;

/// The lock bytes held by this process. Threads share one open file and so one set of kernel
/// locks; they exclude each other here first.
pub struct Rights {
    file: Own<File>,
    held: Mutex<HashSet<i64>>,
}

impl Rights {
    pub fn new(file: File) -> io::Result<Self> {
        Ok(Self { file: Own::new(file)?, held: Mutex::new(HashSet::new()) })
    }

    /// The table's file. Fails in a forked child, which opens a table of its own.
    pub fn file(&self) -> io::Result<&File> {
        self.file.get()
    }

    /// The generation taken, or `None` when somebody else has the right.
    pub fn take(
        &self,
        space: Space,
        place: usize,
        word: &AtomicU64,
        now: Uptime,
        until: Uptime,
    ) -> io::Result<Option<u32>> {
        // Each turn after the first means that somebody else moved the word: bounded, and losing
        // is as good as being late.
        for _ in 0..4 {
            let seen = word.load(Ordering::Acquire);
            let right = RightWord::unpack(seen);
            let byte = space.byte(place, right.generation);
            if self.lock(byte)? {
                let ours = RightWord { until: until.as_millis(), warned: false, ..right };
                if swing(word, seen, ours) {
                    return Ok(Some(right.generation));
                }
                self.unlock(byte);
            } else if now.as_millis() < right.until {
                return Ok(None);
            } else if right.warned {
                swing(word, seen, right.given_up());
            } else {
                let last = now.as_millis() + GRACE_MS;
                swing(word, seen, RightWord { until: last, warned: true, ..right });
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// Move the deadline. `false`: the right was taken over.
    pub fn extend(word: &AtomicU64, generation: u32, until: Uptime) -> bool {
        let seen = word.load(Ordering::Acquire);
        RightWord::unpack(seen).generation == generation
            && swing(word, seen, RightWord { generation, until: until.as_millis(), warned: false })
    }

    pub fn is_ours(word: &AtomicU64, generation: u32) -> bool {
        RightWord::unpack(word.load(Ordering::Acquire)).generation == generation
    }

    pub fn give_back(&self, space: Space, place: usize, word: &AtomicU64, generation: u32) {
        // A flight's next owner gets a generation of its own: what a late thread of ours still does
        // in our name must not touch it.
        match space {
            Space::Write | Space::Lead | Space::Ask => {
                Self::extend(word, generation, Uptime::default());
            }
            Space::Flight => {
                let seen = word.load(Ordering::Acquire);
                let right = RightWord::unpack(seen);
                if right.generation == generation {
                    swing(word, seen, right.given_up());
                }
            }
        }
        self.unlock(space.byte(place, generation));
    }

    /// Whether nobody holds this generation any more: its holder died or came back and let go.
    pub fn is_free(&self, space: Space, place: usize, generation: u32) -> bool {
        let byte = space.byte(place, generation);
        let free = self.lock(byte).unwrap_or(false);
        if free {
            self.unlock(byte);
        }
        free
    }

    fn lock(&self, byte: i64) -> io::Result<bool> {
        if !self.held.lock().insert(byte) {
            return Ok(false);
        }
        let locked = self.file().and_then(|file| sys::lock_byte(file, byte, LockKind::Exclusive));
        if !matches!(locked, Ok(true)) {
            self.held.lock().remove(&byte);
        }
        locked
    }

    fn unlock(&self, byte: i64) {
        // A failing unlock leaves the byte to the deadline, as if we had been stopped.
        let _ = self.file().and_then(|file| sys::lock_byte(file, byte, LockKind::Unlock));
        self.held.lock().remove(&byte);
    }
}

fn swing(word: &AtomicU64, from: u64, to: RightWord) -> bool {
    word.compare_exchange(from, to.pack(), Ordering::AcqRel, Ordering::Acquire).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: usize = 7;

    fn two() -> (tempfile::TempDir, Rights, Rights) {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            let options = File::options().read(true).write(true).create(true).to_owned();
            Rights::new(options.open(dir.path().join("locks")).unwrap()).unwrap()
        };
        let (one, other) = (open(), open());
        (dir, one, other)
    }

    fn take(rights: &Rights, word: &AtomicU64, now: i64, until: i64) -> Option<u32> {
        let at = Uptime::from_millis;
        rights.take(Space::Write, PLACE, word, at(now), at(until)).unwrap()
    }

    #[test]
    fn a_holder_that_has_only_just_locked_is_warned_and_not_given_up_on() {
        let (_dir, one, other) = two();
        let word = AtomicU64::new(0);
        assert!(one.lock(Space::Write.byte(PLACE, 0)).unwrap(), "locked, deadline not yet written");
        assert_eq!(take(&other, &word, 1000, 2000), None);
        assert_eq!(take(&other, &word, 1000 + GRACE_MS - 1, 2000), None);
        assert_eq!(RightWord::unpack(word.load(Ordering::Relaxed)).generation, 0);
        assert_eq!(take(&other, &word, 1000 + GRACE_MS, 2000), Some(1), "and then it is");
    }

    #[test]
    fn a_holder_that_renews_after_a_warning_is_warned_anew_before_it_is_given_up_on() {
        let (_dir, one, other) = two();
        let word = AtomicU64::new(0);
        assert_eq!(take(&one, &word, 0, 100), Some(0));
        assert_eq!(take(&other, &word, 100, 900), None);
        assert!(Rights::extend(&word, 0, Uptime::from_millis(500)));
        assert_eq!(take(&other, &word, 500, 900), None);
        assert!(Rights::is_ours(&word, 0));
        assert_eq!(take(&other, &word, 500 + GRACE_MS, 900), Some(1));
        assert!(!Rights::extend(&word, 0, Uptime::from_millis(9000)), "the former one learns it");
    }
}
