//! What happened, for who reads about a world that broke a promise. Nothing is kept unless somebody is to read it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use super::task;

/// Of so many lines the last are kept.
const KEPT: usize = 100_000;

thread_local! {
    static KEEPS: Cell<bool> = const { Cell::new(false) };
    static LINES: RefCell<VecDeque<String>> = RefCell::default();
}

/// From here on lines are kept, or not.
pub fn keep(keeps: bool) {
    KEEPS.set(keeps);
    LINES.with_borrow_mut(VecDeque::clear);
}

pub fn say(line: impl FnOnce() -> String) {
    if !KEEPS.get() {
        return;
    }
    let at = task::now() - super::world::START;
    LINES.with_borrow_mut(|lines| {
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(format!("{:>10.3} ms  {}", at as f64 / 1000.0, line()));
    });
}

/// The last lines.
pub fn last(count: usize) -> Vec<String> {
    LINES.with_borrow(|lines| {
        lines.iter().skip(lines.len().saturating_sub(count)).cloned().collect()
    })
}
