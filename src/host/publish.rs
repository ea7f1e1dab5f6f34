//! The publish/read protocol of one slot, over any memory: the mapped file in production, loom's
//! atomics in the test that tries every interleaving.
//!
//! A record is never changed in place. The writer fills a buffer that no state word points to and
//! then swings the state word to it. A reader copies and then looks whether the state word moved.
//! - A writer killed at any instruction leaves the old record in force.
//! - A reader never waits and never sees a mix: if any word it copied was newer than the state word
//!   it started from, the second look shows a moved state word.

use std::sync::atomic::Ordering;

/// One 64-bit word of the memory a slot lives in.
pub trait Word {
    fn load(&self, order: Ordering) -> u64;
    fn store(&self, value: u64, order: Ordering);
    fn swing(&self, from: u64, to: u64) -> bool;
    fn fence(order: Ordering);
}

impl Word for std::sync::atomic::AtomicU64 {
    #[inline]
    fn load(&self, order: Ordering) -> u64 {
        Self::load(self, order)
    }

    #[inline]
    fn store(&self, value: u64, order: Ordering) {
        Self::store(self, value, order);
    }

    #[inline]
    fn swing(&self, from: u64, to: u64) -> bool {
        self.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    #[inline]
    fn fence(order: Ordering) {
        std::sync::atomic::fence(order);
    }
}

/// Fill `buffer`, which `from` does not point to, and swing `state` from `from` to `to`.
/// `false`: the state moved, nothing was published.
pub fn publish<W: Word>(state: &W, from: u64, to: u64, buffer: &[W], record: &[u64]) -> bool {
    // A reader that still copies this buffer under an older state word and sees one of our words
    // must then also see the state word that had moved off it: pairs with the fence in `copy`.
    W::fence(Ordering::Release);
    for (word, value) in buffer.iter().zip(record) {
        word.store(*value, Ordering::Relaxed);
    }
    state.swing(from, to)
}

/// Copy words of the buffer that `seen` points to. `false`: `state` moved on, and what was copied
/// means nothing.
pub fn copy<W: Word>(state: &W, seen: u64, buffer: &[W], into: &mut [u64]) -> bool {
    for (value, word) in into.iter_mut().zip(buffer) {
        *value = word.load(Ordering::Relaxed);
    }
    W::fence(Ordering::Acquire);
    state.load(Ordering::Relaxed) == seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU64;

    impl Word for AtomicU64 {
        fn load(&self, order: Ordering) -> u64 {
            Self::load(self, order)
        }

        fn store(&self, value: u64, order: Ordering) {
            Self::store(self, value, order);
        }

        fn swing(&self, from: u64, to: u64) -> bool {
            self.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
        }

        fn fence(order: Ordering) {
            loom::sync::atomic::fence(order);
        }
    }

    struct Place {
        state: AtomicU64,
        buffers: [[AtomicU64; 2]; 2],
    }

    /// State is the sequence; its parity names the buffer. Sequence n holds the words (n, n).
    fn place() -> Arc<Place> {
        let word = || AtomicU64::new(0);
        Arc::new(Place { state: word(), buffers: [[word(), word()], [word(), word()]] })
    }

    #[test]
    fn a_reader_sees_one_whole_record_in_every_interleaving() {
        loom::model(|| {
            let place = place();
            let writer = {
                let place = place.clone();
                loom::thread::spawn(move || {
                    for sequence in 1..=2 {
                        let idle = &place.buffers[(sequence & 1) as usize];
                        let to = [sequence, sequence];
                        assert!(publish(&place.state, sequence - 1, sequence, idle, &to));
                    }
                })
            };
            let seen = place.state.load(Ordering::Acquire);
            let mut copied = [0; 2];
            if copy(&place.state, seen, &place.buffers[(seen & 1) as usize], &mut copied) {
                assert_eq!(copied, [seen, seen], "torn or foreign record accepted");
            }
            assert!(writer.join().is_ok());
        });
    }

    #[test]
    fn without_the_second_look_loom_finds_the_torn_read() {
        let caught = std::panic::catch_unwind(|| {
            loom::model(|| {
                let place = place();
                let writer = {
                    let place = place.clone();
                    loom::thread::spawn(move || {
                        for sequence in 1..=2 {
                            let idle = &place.buffers[(sequence & 1) as usize];
                            publish(&place.state, sequence - 1, sequence, idle, &[sequence; 2]);
                        }
                    })
                };
                let seen = place.state.load(Ordering::Acquire);
                let mut copied = [0; 2];
                copy(&place.state, seen, &place.buffers[(seen & 1) as usize], &mut copied);
                assert_eq!(copied, [seen, seen]);
                assert!(writer.join().is_ok());
            });
        });
        assert!(caught.is_err(), "the model cannot fail, so it proves nothing");
    }
}
