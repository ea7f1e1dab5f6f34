//! Hits, counted where it costs nothing: answers from the memo in the memo's own entry, the others in
//! this thread. They join the host's counters when the request ends, when somebody asks for them, and
//! once a second in a process that runs for long.

use std::cell::{Cell, RefCell};

use super::memo::{self, LOOK_AGAIN};
use super::runtime::{self, Event};
use crate::clock::Uptime;
use crate::entry::Kind;
use crate::metrics::tally::{Hit, family};
use crate::process;

thread_local! {
    static RATES: Cell<u64> = const { Cell::new(0) };
    static TOKENS: RefCell<Tokens> = const { RefCell::new(Tokens::new()) };
    /// The next time at which a lookup past the memo flushes.
    static DUE: Cell<Uptime> = const { Cell::new(Uptime::from_millis(0)) };
}

/// A request asks for tokens of a handful of families.
const PLACES: usize = 16;

/// Hits by family; when there is no place left for another one, all are told.
struct Tokens {
    families: [Hits; PLACES],
    taken: usize,
    /// A forked child does not count what its parent has.
    process: u64,
}

struct Hits {
    /// Kept when they are told, for its memory.
    family: Vec<u8>,
    hits: [u64; 2],
}

impl Tokens {
    const fn new() -> Self {
        let none = [const { Hits { family: Vec::new(), hits: [0; 2] } }; PLACES];
        Self { families: none, taken: 0, process: 0 }
    }

    fn add(&mut self, family: &[u8], hit: Hit, times: u64) {
        if self.process != process::generation() {
            self.taken = 0;
            self.process = process::generation();
        }
        let known = self.families[..self.taken].iter().position(|it| it.family == family);
        let place = known.unwrap_or_else(|| {
            if self.taken == PLACES {
                self.flush();
            }
            let new = &mut self.families[self.taken];
            new.family.clear();
            new.family.extend_from_slice(family);
            new.hits = [0; 2];
            self.taken += 1;
            self.taken - 1
        });
        self.families[place].hits[hit as usize] += times;
    }

    fn flush(&mut self) {
        let families = &self.families[..std::mem::take(&mut self.taken)];
        if families.is_empty() || self.process != process::generation() {
            return;
        }
        let Some(runtime) = runtime::attached() else { return };
        let tally = runtime.tally();
        for Hits { family, hits } in families {
            tally.hit(family, Hit::Memo, hits[Hit::Memo as usize]);
            tally.hit(family, Hit::Table, hits[Hit::Table as usize]);
        }
        let all = families.iter().flat_map(|it| it.hits).sum();
        runtime.count(Event::Hit, Kind::Token, all);
    }
}

pub fn token_hits(name: &[u8], hit: Hit, times: u64) {
    if times > 0 {
        TOKENS.with_borrow_mut(|tokens| tokens.add(family(name), hit, times));
    }
}

pub fn rate_hits(times: u64) {
    RATES.set(RATES.get().wrapping_add(times));
}

/// What is left is told by [`flush`] at the end of the request, which may be days away.
pub fn flush_now_and_then(now: Uptime) {
    if now >= DUE.get() {
        DUE.set(now.plus(LOOK_AGAIN));
        flush();
    }
}

pub fn flush() {
    memo::tell_hits();
    TOKENS.with_borrow_mut(Tokens::flush);
    let rates = RATES.take();
    let Some(runtime) = runtime::attached() else { return };
    if rates > 0 {
        runtime.count(Event::Hit, Kind::Sheet, rates);
    }
    runtime.count_unnoticed();
}
