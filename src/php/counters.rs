//! Hits answered from the memo, counted where it costs nothing: in this thread. They join the
//! host's counters when the request ends or somebody asks for them.

use std::cell::Cell;

use super::runtime::{self, Event};
use crate::entry::Kind;

thread_local! {
    static TOKENS: Cell<u64> = const { Cell::new(0) };
    static RATES: Cell<u64> = const { Cell::new(0) };
}

#[inline]
pub fn token_hit() {
    TOKENS.set(TOKENS.get().wrapping_add(1));
}

#[inline]
pub fn rate_hit() {
    RATES.set(RATES.get().wrapping_add(1));
}

pub fn flush() {
    let (tokens, rates) = (TOKENS.take(), RATES.take());
    let Some(runtime) = runtime::attached() else { return };
    if tokens | rates != 0 {
        runtime.count(Event::Hit, Kind::Token, tokens);
        runtime.count(Event::Hit, Kind::Sheet, rates);
    }
    runtime.count_unreadable();
}
