//! Code that blocks, on a stack of its own: where it waits others run, on the same thread and in an order that repeats.
//! And the schedule: what happens when.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;

use generator::{Generator, Gn};

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

/// It tells how long it waits, if nobody wakes it.
type Task = Generator<'static, (), Option<Micros>>;

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
    /// What tasks that have not begun will run.
    bodies: Vec<Option<Box<dyn FnOnce()>>>,
    /// Of tasks that have ended: their stacks are used again.
    ended: Vec<Task>,
    current: Option<TaskId>,
}

/// In words.
const STACK: usize = 32 * 1024;

thread_local! {
    static SCHEDULE: RefCell<Schedule> = RefCell::default();
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
        let ended = std::mem::take(&mut schedule.ended);
        *schedule = Schedule { ended, ..Schedule::default() };
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
    let (index, ended) = SCHEDULE.with_borrow_mut(|schedule| {
        schedule.bodies.push(Some(Box::new(body)));
        (schedule.bodies.len() - 1, schedule.ended.pop())
    });
    let run = move || {
        let body = SCHEDULE.with_borrow_mut(|schedule| schedule.bodies[index].take());
        body.into_iter().for_each(|body| body());
        None
    };
    let task = match ended {
        Some(mut ended) => {
            ended.init_code(run);
            ended
        }
        None => Gn::new_opt(STACK, run),
    };
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
    let until = task.resume().flatten();
    SCHEDULE.with_borrow_mut(|schedule| {
        schedule.current = None;
        if task.is_done() {
            schedule.ended.push(task);
            return;
        }
        let pauses = schedule.slots[index].pauses;
        schedule.slots[index].task = Some(task);
        if let Some(until) = until {
            schedule.push(until, Event::Wake(id, pauses));
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
        killed.cancel();
        SCHEDULE.with_borrow_mut(|schedule| schedule.ended.push(killed));
    }
}

/// Lets others run until that time, or until somebody wakes this task.
pub fn pause(until: Option<Micros>) {
    // Its successor hands a scope to the body, which code that is in use has no place for.
    #[allow(deprecated)]
    generator::yield_with(until);
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
