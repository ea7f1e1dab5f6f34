//! Hits, counted where it costs nothing: answers from the memo in the memo's own entry, the others in
//! this thread. They join the host's counters when the request ends, when somebody asks for them, and
//! once a second in a process that runs for long.

use std::cell::{Cell, RefCell};

use super::memo::{self, LOOK_AGAIN};
use super::runtime::{self, Event};
use crate::clock::Moment;
use crate::entry::Kind;
use crate::metrics::tally::{Hit, family};
use crate::process;

thread_local! {
    static RATES: Cell<u64> = const { Cell::new(0) };
    static TOKENS: RefCell<Tokens> = const { RefCell::new(Tokens::new()) };
    /// The next time at which a lookup past the memo flushes.
    static DUE: Cell<Moment> = const { Cell::new(Moment::from_millis(0)) };
}

/// Hits of one family, which the next ones are mostly of, too.
struct Tokens {
    family: Vec<u8>,
    hits: [u64; 2],
    /// A forked child does not count what its parent has.
    process: u64,
}

impl Tokens {
    const fn new() -> Self {
        Self { family: Vec::new(), hits: [0; 2], process: 0 }
    }

    fn flush(&mut self) {
        let hits = std::mem::take(&mut self.hits);
        if hits == [0; 2] || self.process != process::generation() {
            return;
        }
        let Some(runtime) = runtime::attached() else { return };
        let tally = runtime.tally();
        for (hit, times) in [Hit::Memo, Hit::Table].into_iter().zip(hits) {
            tally.hit(&self.family, hit, times);
        }
        runtime.count(Event::Hit, Kind::Token, hits.iter().sum());
    }
}

pub fn token_hits(name: &[u8], hit: Hit, times: u64) {
    if times == 0 {
        return;
    }
    TOKENS.with_borrow_mut(|tokens| {
        let family = family(name);
        if tokens.family != family || tokens.process != process::generation() {
            tokens.flush();
            tokens.family.clear();
            tokens.family.extend_from_slice(family);
            tokens.process = process::generation();
        }
        tokens.hits[hit as usize] += times;
    });
}

pub fn rate_hits(times: u64) {
    RATES.set(RATES.get().wrapping_add(times));
}

/// What is left is told by [`flush`] at the end of the request, which may be days away.
pub fn flush_now_and_then(now: Moment) {
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
