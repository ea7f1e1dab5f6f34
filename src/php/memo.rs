//! What this thread has already looked up in this request: a hit costs no lock, no system call and
//! no allocation. Bounded, never older than the entry is trusted, and gone when the request ends:
//! the strings in it are request memory.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ptr::NonNull;
use std::time::Duration;

use ext_php_rs::boxed::ZBox;
use ext_php_rs::ffi::ext_php_rs_zend_string_release;
use ext_php_rs::types::ZendStr;

use super::runtime::Watch;
use super::zend;
use crate::clock::Moment;
use crate::process;

/// Keys per kind. An application asks for a handful; a worker that runs for days must not grow.
const PLACES: usize = 64;

/// A PHP string that is kept alive by a reference of its own. Released by hand, never by `Drop`:
/// a thread ends after its request memory is gone.
#[derive(Clone, Copy)]
struct Held(NonNull<ZendStr>);

impl Held {
    fn new(string: &ZendStr) -> Self {
        zend::add_ref(string);
        Self(NonNull::from(string))
    }

    #[inline]
    fn get(&self) -> &ZendStr {
        // SAFETY: `new` took a reference, and only `release` gives it back.
        unsafe { self.0.as_ref() }
    }

    /// The same string: by address, or by its bytes.
    #[inline]
    fn is(&self, other: &ZendStr) -> bool {
        std::ptr::eq(self.0.as_ptr(), other) || self.get().as_bytes() == other.as_bytes()
    }

    fn release(self) {
        // SAFETY: gives back the reference `new` took; the entry that held it is gone.
        unsafe { ext_php_rs_zend_string_release(self.0.as_ptr()) };
    }
}

/// Then the ordinary path is taken once: only there a process sees that its table was replaced or
/// that a clock jumped. A web request ends sooner; a queue worker runs for days.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

fn until(watch: &Watch, trusted_until: Moment) -> Moment {
    trusted_until.min(watch.now().plus(LOOK_AGAIN))
}

struct Entry<const NAMES: usize, V> {
    names: [Held; NAMES],
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
    fn place(names: [&ZendStr; NAMES]) -> usize {
        let hash = names.iter().fold(0_u64, |hash, name| hash.rotate_left(7) ^ zend::hash_of(name));
        hash as usize % PLACES
    }

    #[inline]
    fn get(&self, names: [&ZendStr; NAMES]) -> Option<V> {
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
        let place = Self::place(names.each_ref().map(Held::get));
        let same = |other: &Entry<NAMES, V>| {
            other.names.iter().zip(&names).all(|(held, name)| held.is(name.get()))
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
    static TOKENS: RefCell<Table<1, Held>> = const { RefCell::new(Table::new()) };
    static RATES: RefCell<Table<2, f64>> = const { RefCell::new(Table::new()) };
}

/// The token known under `name`, with one more reference, or nothing.
#[inline]
pub fn token(name: &ZendStr) -> Option<ZBox<ZendStr>> {
    TOKENS.with_borrow(|table| {
        let held = table.get([name])?;
        zend::add_ref(held.get());
        // SAFETY: the reference just added belongs to the box.
        Some(unsafe { ZBox::from_raw(held.0.as_ptr()) })
    })
}

#[inline]
pub fn rate(from: &ZendStr, to: &ZendStr) -> Option<f64> {
    RATES.with_borrow(|table| table.get([from, to]))
}

/// Remember what was served, under a watch on that very version.
pub fn remember_token(name: &ZendStr, value: &ZendStr, watch: Watch, trusted_until: Moment) {
    let entry = Entry {
        names: [Held::new(name)],
        value: Held::new(value),
        trusted_until: until(&watch, trusted_until),
        watch,
        process: process::generation(),
    };
    release_token(TOKENS.with_borrow_mut(|table| table.put(entry)));
}

pub fn remember_rate(names: [&ZendStr; 2], value: f64, watch: Watch, trusted_until: Moment) {
    let entry = Entry {
        names: names.map(Held::new),
        value,
        trusted_until: until(&watch, trusted_until),
        watch,
        process: process::generation(),
    };
    if let Some(old) = RATES.with_borrow_mut(|table| table.put(entry)) {
        old.names.into_iter().for_each(Held::release);
    }
}

fn release_token(entry: Option<Entry<1, Held>>) {
    if let Some(entry) = entry {
        entry.names.into_iter().for_each(Held::release);
        entry.value.release();
    }
}

/// RSHUTDOWN, and after an invalidation.
pub fn clear() {
    for entry in TOKENS.with_borrow_mut(|table| table.take_all().collect::<Vec<_>>()) {
        release_token(Some(entry));
    }
    for entry in RATES.with_borrow_mut(|table| table.take_all().collect::<Vec<_>>()) {
        entry.names.into_iter().for_each(Held::release);
    }
}
