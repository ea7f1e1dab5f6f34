//! What this thread has already looked up in this request: a hit costs no lock, no system call and
//! no allocation. Bounded, never older than the entry is trusted, and gone when the request ends:
//! the strings in it are request memory.
//!
//! A hit reads one clock. Which way that one has jumped it cannot know, so an answer is kept for a
//! [`Window`] of the wall clock, which a jump leaves.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use super::array::Array;
use super::counters;
use super::runtime::{self, Watch};
use super::string::Str;
use crate::clock::system::{self, Window};
use crate::metrics::tally::Hit;
use crate::process;

/// Answers per kind. An application asks for a handful; a worker that runs for days must not grow.
const PLACES: usize = 64;

/// Then the ordinary path is taken once: only there a process sees that its table was replaced or
/// that a clock jumped. A web request ends sooner; a queue worker runs for days.
pub const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What was asked: one or two names, and the very options array that was passed with them.
#[derive(Clone, Copy)]
pub struct Question<const NAMES: usize> {
    pub names: [Str; NAMES],
    pub options: Option<Array>,
}

impl<const NAMES: usize> Question<NAMES> {
    #[inline]
    fn is(&self, other: &Self) -> bool {
        self.options == other.options
            && self.names.iter().zip(other.names).all(|(held, name)| held.is(name))
    }

    #[inline]
    fn place(&self) -> usize {
        // An array's address is a multiple of 8, and mostly of 56.
        let options = self.options.map_or(0, |array| array.address() as u64 >> 3);
        let names = self.names.iter();
        names.fold(options, |hash, name| hash.rotate_left(7) ^ name.hash()) as usize % PLACES
    }

    fn held(self) -> Self {
        Self { names: self.names.map(Str::add_ref), options: self.options.map(Array::add_ref) }
    }

    fn release(self) {
        self.names.into_iter().for_each(Str::release);
        self.options.into_iter().for_each(Array::release);
    }
}

struct Entry<const NAMES: usize, V> {
    question: Question<NAMES>,
    value: V,
    watch: Watch,
    trusted: Window,
    /// Answers given and not counted yet.
    hits: Cell<u32>,
    /// An inherited memo watches words that the child has not mapped for itself.
    process: u64,
}

impl<const NAMES: usize, V> Entry<NAMES, V> {
    /// Answers that were not counted yet; from now on they are. A parent counts its own.
    fn take_hits(&self) -> u64 {
        let hits = u64::from(self.hits.take());
        if self.process == process::generation() { hits } else { 0 }
    }
}

/// Two places per question.
struct Table<const NAMES: usize, V>(Vec<Option<Entry<NAMES, V>>>);

impl<const NAMES: usize, V: Copy> Table<NAMES, V> {
    const fn new() -> Self {
        Self(Vec::new())
    }

    #[inline]
    fn get(&self, question: &Question<NAMES>) -> Option<V> {
        let place = question.place();
        let entry = [place, place ^ 1].into_iter().find_map(|place| {
            self.0.get(place)?.as_ref().filter(|entry| entry.question.is(question))
        })?;
        let valid = entry.process == process::generation()
            && entry.watch.holds()
            && entry.trusted.is_open();
        valid.then(|| {
            // The one thing that `build/bench` leaves out to see what it costs.
            #[cfg(not(feature = "uncounted"))]
            entry.hits.set(entry.hits.get().wrapping_add(1));
            entry.value
        })
    }

    /// Returns what had to make room.
    fn put(&mut self, entry: Entry<NAMES, V>) -> Option<Entry<NAMES, V>> {
        if self.0.is_empty() {
            self.0.resize_with(PLACES, || None);
        }
        let free = |place: usize| match self.0.get(place) {
            Some(Some(other)) => other.question.is(&entry.question),
            _ => true,
        };
        let place = entry.question.place();
        let place = if !free(place) && free(place ^ 1) { place ^ 1 } else { place };
        self.0.get_mut(place)?.replace(entry)
    }

    fn take_all(&mut self) -> impl Iterator<Item = Entry<NAMES, V>> {
        std::mem::take(&mut self.0).into_iter().flatten()
    }
}

thread_local! {
    static TOKENS: RefCell<Table<1, Str>> = const { RefCell::new(Table::new()) };
    static RATES: RefCell<Table<2, f64>> = const { RefCell::new(Table::new()) };
}

/// The token known for the question; the memo keeps its reference.
#[inline]
pub fn token(question: &Question<1>) -> Option<Str> {
    TOKENS.with_borrow(|table| table.get(question))
}

#[inline]
pub fn rate(question: &Question<2>) -> Option<f64> {
    RATES.with_borrow(|table| table.get(question))
}

fn entry<const NAMES: usize, V>(
    question: Question<NAMES>,
    value: V,
    watch: Watch,
    trusted_for: Duration,
) -> Entry<NAMES, V> {
    let trusted = Window::open(trusted_for.min(LOOK_AGAIN));
    let (question, hits) = (question.held(), Cell::new(0));
    Entry { question, value, watch, trusted, hits, process: process::generation() }
}

/// Remember what was served, under a watch on that very version.
pub fn remember_token(asked: Question<1>, value: Str, watch: Watch, trusted_for: Duration) {
    if !runtime::remembers() {
        return;
    }
    counters::flush_now_and_then(system::monotonic());
    let entry = entry(asked, value.add_ref(), watch, trusted_for);
    if let Some(old) = TOKENS.with_borrow_mut(|table| table.put(entry)) {
        counters::token_hits(old.question.names[0].bytes(), Hit::Memo, old.take_hits());
        release_token(old);
    }
}

pub fn remember_rate(asked: Question<2>, value: f64, watch: Watch, trusted_for: Duration) {
    if !runtime::remembers() {
        return;
    }
    counters::flush_now_and_then(system::monotonic());
    let entry = entry(asked, value, watch, trusted_for);
    if let Some(old) = RATES.with_borrow_mut(|table| table.put(entry)) {
        counters::rate_hits(old.take_hits());
        old.question.release();
    }
}

fn release_token(entry: Entry<1, Str>) {
    entry.question.release();
    entry.value.wipe_and_release();
}

/// Hand all answers that were not counted yet to [`counters`].
pub fn tell_hits() {
    TOKENS.with_borrow(|table| {
        for entry in table.0.iter().flatten() {
            let name = entry.question.names[0].bytes();
            counters::token_hits(name, Hit::Memo, entry.take_hits());
        }
    });
    RATES.with_borrow(|table| {
        table.0.iter().flatten().for_each(|entry| counters::rate_hits(entry.take_hits()));
    });
}

/// RSHUTDOWN, when all is counted.
pub fn clear() {
    TOKENS.with_borrow_mut(|table| table.take_all().for_each(release_token));
    RATES.with_borrow_mut(|table| table.take_all().for_each(|entry| entry.question.release()));
}
