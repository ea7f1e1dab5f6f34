//! The open tickets of this thread: kept outside the stack, because a callable may never come back
//! (its fiber is suspended and the main flow dies). What is left at the end of a request is given
//! back then.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use super::fibers::{self, Fiber};
use super::runtime::Runtime;
use super::zend;
use crate::clock::Moment;
use crate::entry::Key;
use crate::flight::{Outcome, Ticket};
use crate::process;

struct Open {
    id: u64,
    ticket: Ticket,
    runtime: Arc<Runtime>,
    /// Where the callable runs. It lives as long as the ticket is open: when it is destroyed, the callable ends.
    fiber: Fiber,
    /// A forked child inherits the memory of a ticket, not the right it stands for.
    process: u64,
}

impl Open {
    fn is_ours(&self) -> bool {
        self.process == process::generation()
    }
}

thread_local! {
    static OPEN: RefCell<Vec<Open>> = const { RefCell::new(Vec::new()) };
    static NEXT: Cell<u64> = const { Cell::new(0) };
}

/// Note a ticket before its callable runs.
pub fn open(runtime: &Arc<Runtime>, ticket: Ticket) -> u64 {
    let id = NEXT.get();
    NEXT.set(id + 1);
    let (runtime, fiber, process) =
        (Arc::clone(runtime), zend::active_fiber(), process::generation());
    OPEN.with_borrow_mut(|open| open.push(Open { id, ticket, runtime, fiber, process }));
    id
}

/// Take it back when the callable has ended. `None`: this process is not the one that opened it.
pub fn take(id: u64) -> Option<Ticket> {
    OPEN.with_borrow_mut(|open| {
        let at = open.iter().rposition(|entry| entry.id == id)?;
        let entry = open.remove(at);
        if entry.is_ours() {
            Some(entry.ticket)
        } else {
            // Its sockets and locks are the parent's.
            std::mem::forget(entry.runtime);
            None
        }
    })
}

/// Who holds the ticket of a key in this thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The very flow that asks: waiting for it would be waiting for ourselves.
    Caller,
    /// Another fiber, inside its callable.
    OtherFiber,
}

pub fn holder(key: &Key) -> Option<Holder> {
    OPEN.with_borrow(|open| {
        let entry = open.iter().rev().find(|entry| entry.is_ours() && entry.ticket.key == *key)?;
        let same = entry.fiber == zend::active_fiber();
        Some(if same { Holder::Caller } else { Holder::OtherFiber })
    })
}

/// The innermost open mint that we are called from: its name, and until when its caller waits. A fiber that is
/// suspended in a mint of its own has nothing to do with us.
pub fn innermost() -> Option<(Vec<u8>, Moment)> {
    OPEN.with_borrow(|open| {
        let around = |entry: &&Open| entry.is_ours() && fibers::is_around_us(entry.fiber);
        let entry = open.iter().rev().find(around)?;
        Some((entry.ticket.key.name().to_vec(), entry.ticket.plan().wait_until))
    })
}

/// RSHUTDOWN: give back what no callable will finish any more.
pub fn abandon_all() {
    for entry in OPEN.with_borrow_mut(std::mem::take) {
        if entry.is_ours() {
            entry.runtime.engine.finish(entry.ticket, Outcome::Abandoned);
        } else {
            std::mem::forget(entry.runtime);
        }
    }
}
