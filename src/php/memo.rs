//! What this thread has already looked up in this request: a hit costs no lock, no system call and
//! no allocation. Bounded, never older than the entry is trusted, and gone when the request ends:
//! the strings in it are request memory.

use std::cell::RefCell;
use std::time::Duration;

use super::runtime::Watch;
use super::string::Str;
use crate::clock::Moment;
use crate::process;

/// Keys per kind. An application asks for a handful; a worker that runs for days must not grow.
const PLACES: usize = 64;

/// Then the ordinary path is taken once: only there a process sees that its table was replaced or
/// that a clock jumped. A web request ends sooner; a queue worker runs for days.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

fn until(watch: &Watch, trusted_until: Moment) -> Moment {
    trusted_until.min(watch.now().plus(LOOK_AGAIN))
}

struct Entry<const NAMES: usize, V> {
    names: [Str; NAMES],
    value: V,
    watch: Watch,
    trusted_until: Moment,
    /// An inherited memo watches words that the child has not mapped for itself.
    process: u64,
}

/// Two places per key, chosen by the hash of its names.
struct Table<const NAMES: usize, V>(Vec<Option<Entry<NAMES, V>>>);

impl<const NAMES: usize, V: Copy> Table<NAMES, V> {
    const fn new() -> Self {
        Self(Vec::new())
    }

    #[inline]
    fn place(names: [Str; NAMES]) -> usize {
        let hash = names.iter().fold(0_u64, |hash, name| hash.rotate_left(7) ^ name.hash());
        hash as usize % PLACES
    }

    #[inline]
    fn get(&self, names: [Str; NAMES]) -> Option<V> {
        let place = Self::place(names);
        let entry = [place, place ^ 1].into_iter().find_map(|place| {
            let entry = self.0.get(place)?.as_ref()?;
            let same = entry.names.iter().zip(names).all(|(held, name)| held.is(name));
            same.then_some(entry)
        })?;
        let valid = entry.process == process::generation()
            && entry.watch.holds()
            && entry.watch.now() < entry.trusted_until;
        valid.then_some(entry.value)
    }

    /// Returns what had to make room.
    fn put(&mut self, entry: Entry<NAMES, V>) -> Option<Entry<NAMES, V>> {
        if self.0.is_empty() {
            self.0.resize_with(PLACES, || None);
        }
        let names = entry.names;
        let place = Self::place(names);
        let same = |other: &Entry<NAMES, V>| {
            other.names.iter().zip(&names).all(|(held, name)| held.is(*name))
        };
        let free = |place: usize, table: &Self| match table.0.get(place) {
            Some(Some(other)) => same(other),
            _ => true,
        };
        let place = if !free(place, self) && free(place ^ 1, self) { place ^ 1 } else { place };
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

/// The token known under `name`; the memo keeps its reference.
#[inline]
pub fn token(name: Str) -> Option<Str> {
    TOKENS.with_borrow(|table| table.get([name]))
}

#[inline]
pub fn rate(from: Str, to: Str) -> Option<f64> {
    RATES.with_borrow(|table| table.get([from, to]))
}

/// Remember what was served, under a watch on that very version.
pub fn remember_token(name: Str, value: Str, watch: Watch, trusted_until: Moment) {
    let entry = Entry {
        names: [name.add_ref()],
        value: value.add_ref(),
        trusted_until: until(&watch, trusted_until),
        watch,
        process: process::generation(),
    };
    if let Some(old) = TOKENS.with_borrow_mut(|table| table.put(entry)) {
        release_token(old);
    }
}

pub fn remember_rate(names: [Str; 2], value: f64, watch: Watch, trusted_until: Moment) {
    let entry = Entry {
        names: names.map(Str::add_ref),
        value,
        trusted_until: until(&watch, trusted_until),
        watch,
        process: process::generation(),
    };
    if let Some(old) = RATES.with_borrow_mut(|table| table.put(entry)) {
        old.names.into_iter().for_each(Str::release);
    }
}

fn release_token(entry: Entry<1, Str>) {
    entry.names.into_iter().for_each(Str::release);
    entry.value.release();
}

/// RSHUTDOWN, and after an invalidation.
pub fn clear() {
    TOKENS.with_borrow_mut(|table| table.take_all().for_each(release_token));
    RATES.with_borrow_mut(|table| {
        table.take_all().flat_map(|entry| entry.names).for_each(Str::release);
    });
}
