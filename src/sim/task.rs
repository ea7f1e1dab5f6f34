//! Code that blocks, on a stack of its own: where it waits others run, on the same thread and in an order that repeats.
//! And the schedule: what happens when.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::{fmt, ptr};

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};

use super::clock::Micros;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskId(usize);

/// Whose code it is: a host, and a process of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub host: usize,
    pub process: usize,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} of host {}", self.process, self.host)
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// The task goes on, if it still waits where it waited then.
    Wake(TaskId, u32),
    /// Bytes reach the server that a connection leads to.
    Arrive(usize, Vec<u8>),
    /// Bytes reach the client.
    Deliver(usize, Vec<u8>),
    /// The other side of a connection closed it.
    Closed(usize),
    /// The server has time for the next request.
    Work(usize),
    /// A blocked reader's patience is over: of a server, on a connection, the reading of that number.
    Patience(usize, usize, u64),
    /// Something of the world's own.
    World(usize),
}

type Task = Coroutine<(), Option<Micros>, ()>;

struct Slot {
    task: Option<Task>,
    owner: Owner,
    /// How often it has waited.
    pauses: u32,
}

#[derive(Default)]
struct Schedule {
    now: Micros,
    events: u64,
    queue: BinaryHeap<Reverse<(Micros, u64, Event)>>,
    slots: Vec<Slot>,
    stacks: Vec<DefaultStack>,
    current: Option<TaskId>,
}

const STACK: usize = 256 * 1024;

thread_local! {
    static SCHEDULE: RefCell<Schedule> = RefCell::default();
    /// Of the task that runs.
    static YIELDER: Cell<*const Yielder<(), Option<Micros>>> = const { Cell::new(ptr::null()) };
}

/// Everything of the world before is gone.
pub fn begin(now: Micros) {
    end();
    SCHEDULE.with_borrow_mut(|schedule| schedule.now = now);
}

/// Ends all tasks.
pub fn end() {
    let tasks = SCHEDULE.with_borrow(|schedule| schedule.slots.len());
    for task in 0..tasks {
        kill(TaskId(task));
    }
    SCHEDULE.with_borrow_mut(|schedule| {
        let stacks = std::mem::take(&mut schedule.stacks);
        *schedule = Schedule { stacks, ..Schedule::default() };
    });
}

pub fn now() -> Micros {
    SCHEDULE.with_borrow(|schedule| schedule.now)
}

pub fn current() -> Option<TaskId> {
    SCHEDULE.with_borrow(|schedule| schedule.current)
}

pub fn at(when: Micros, event: Event) {
    SCHEDULE.with_borrow_mut(|schedule| schedule.push(when, event));
}

/// The next thing that happens, by `end` at the latest.
pub fn next(end: Micros) -> Option<Event> {
    SCHEDULE.with_borrow_mut(|schedule| {
        loop {
            let Reverse((when, ..)) = schedule.queue.peek()?;
            if *when > end {
                schedule.now = end;
                return None;
            }
            let Reverse((when, _, event)) = schedule.queue.pop()?;
            if let Event::Wake(TaskId(task), pause) = &event
                && schedule.slots.get(*task).is_none_or(|slot| slot.pauses != *pause)
            {
                continue;
            }
            schedule.now = schedule.now.max(when);
            return Some(event);
        }
    })
}

/// A task that begins at `when`.
pub fn spawn(owner: Owner, when: Micros, body: impl FnOnce() + 'static) -> TaskId {
    let stack = SCHEDULE.with_borrow_mut(|schedule| schedule.stacks.pop());
    let stack = stack.unwrap_or_else(|| DefaultStack::new(STACK).unwrap());
    let task = Coroutine::with_stack(stack, move |yielder: &Yielder<(), Option<Micros>>, ()| {
        YIELDER.set(ptr::from_ref(yielder));
        body();
    });
    SCHEDULE.with_borrow_mut(|schedule| {
        let id = TaskId(schedule.slots.len());
        schedule.slots.push(Slot { task: Some(task), owner, pauses: 0 });
        schedule.push(when, Event::Wake(id, 0));
        id
    })
}

pub fn owner(TaskId(task): TaskId) -> Owner {
    SCHEDULE.with_borrow(|schedule| schedule.slots[task].owner)
}

/// Runs a task until it waits or ends.
pub fn resume(id: TaskId) {
    let TaskId(index) = id;
    let task = SCHEDULE.with_borrow_mut(|schedule| {
        schedule.current = Some(id);
        let slot = &mut schedule.slots[index];
        slot.pauses += 1;
        slot.task.take()
    });
    let Some(mut task) = task else { return };
    let result = task.resume(());
    YIELDER.set(ptr::null());
    SCHEDULE.with_borrow_mut(|schedule| {
        schedule.current = None;
        match result {
            CoroutineResult::Yield(until) => {
                let pauses = schedule.slots[index].pauses;
                schedule.slots[index].task = Some(task);
                if let Some(until) = until {
                    schedule.push(until, Event::Wake(id, pauses));
                }
            }
            CoroutineResult::Return(()) => schedule.stacks.push(task.into_stack()),
        }
    });
}

/// The task goes on now, whatever it waits for.
pub fn wake(id: TaskId) {
    SCHEDULE.with_borrow_mut(|schedule| {
        let (now, pauses) = (schedule.now, schedule.slots[id.0].pauses);
        schedule.push(now, Event::Wake(id, pauses));
    });
}

/// The same event once more, later.
pub fn defer(id: TaskId, until: Micros) {
    SCHEDULE.with_borrow_mut(|schedule| {
        let pauses = schedule.slots[id.0].pauses;
        schedule.push(until, Event::Wake(id, pauses));
    });
}

/// Ends it where it is.
pub fn kill(TaskId(task): TaskId) {
    let killed = SCHEDULE.with_borrow_mut(|schedule| {
        let slot = &mut schedule.slots[task];
        slot.pauses += 1;
        slot.task.take()
    });
    if let Some(mut killed) = killed {
        killed.force_unwind();
        SCHEDULE.with_borrow_mut(|schedule| schedule.stacks.push(killed.into_stack()));
    }
}

/// Lets others run until that time, or until somebody wakes this task.
pub fn pause(until: Option<Micros>) {
    let yielder = YIELDER.get();
    assert!(!yielder.is_null(), "only a task can wait");
    // SAFETY: it is on the stack of the task that runs: set by it when it began, and below after each wait; `resume` leaves
    // null behind. The task, and with it this call, is on that very stack.
    #[allow(unsafe_code)]
    let yielder = unsafe { &*yielder };
    yielder.suspend(until);
    YIELDER.set(ptr::from_ref(yielder));
}

pub fn pause_until(when: Micros) {
    while now() < when {
        pause(Some(when));
    }
}

impl Schedule {
    fn push(&mut self, when: Micros, event: Event) {
        self.events += 1;
        self.queue.push(Reverse((when.max(self.now), self.events, event)));
    }
}
