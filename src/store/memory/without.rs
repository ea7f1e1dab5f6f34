//! The rules of a host, each of which a test can do without, to see what breaks then.

use std::cell::Cell;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostRule {
    /// A gap puts everything in doubt.
    Doubt,
    /// A heartbeat is as old as the question.
    BeatAsSent,
    /// Nothing older than what was heard of is kept.
    NewerOnly,
}

thread_local! {
    static WITHOUT: Cell<Option<HostRule>> = const { Cell::new(None) };
}

/// From here on this thread's hosts do without it.
#[allow(dead_code)] // Only where there is a simulation.
pub fn set(rule: Option<HostRule>) {
    WITHOUT.set(rule);
}

pub fn is(rule: HostRule) -> bool {
    WITHOUT.get() == Some(rule)
}
