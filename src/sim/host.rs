//! A host of the fleet: its table, its clocks and its processes. Each process has the engine that is in use, over the stores that
//! are in use, and a background that renews leases and follows the log as `keeper` does.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::clock::{self, HostClock, Micros};
use super::issuer::{Answer, FAILS, Issuer};
use super::network::Access;
use super::plan::Settings;
use super::task::{self, Owner, TaskId};
use super::watched::{WatchedLog, WatchedStore};
use super::{promises, trace, witness};
use crate::clock::{Clock as _, Moment};
use crate::entry::{Digest, Key, Kind, Timing, TokenPolicy};
use crate::flight::machine::{Action, Authority, Event, Flight};
use crate::flight::{Engine, FlightError, Outcome, Plan, Renew, Served};
use crate::keeper::{Charge, STAND_BY};
use crate::leader::Leader;
use crate::redis::log::RedisLog;
use crate::redis::{RedisConfig, RedisStore};
use crate::store::log::ChangeLog;
use crate::store::memory::MemoryHost;
use crate::store::{Boarding, Claimed, Committed, Host as _, Reply, Right, Store};

pub struct Machine {
    pub index: usize,
    pub clock: Arc<HostClock>,
    pub memory: Arc<MemoryHost>,
    /// Who sleeps until a key's bell rings.
    sleepers: RefCell<Vec<(TaskId, Key, u32)>>,
    /// The machine stands still until then.
    pub stands_until: Cell<Micros>,
    /// How long it has stood still in all.
    pub stood_for: Cell<Micros>,
}

impl Machine {
    pub fn new(index: usize, clock: Arc<HostClock>) -> Rc<Self> {
        let memory = Arc::new(MemoryHost::new(clock.clone()));
        let (sleepers, stands_until, stood_for) = Default::default();
        Rc::new(Self { index, clock, memory, sleepers, stands_until, stood_for })
    }

    /// Bells that rang wake who sleeps.
    pub fn ring(&self) {
        if self.sleepers.borrow().is_empty() {
            return;
        }
        self.sleepers.borrow_mut().retain(|(task, key, bell)| {
            let sleeps = self.memory.bell(key) == *bell;
            if !sleeps {
                task::wake(*task);
            }
            sleeps
        });
    }

    fn sleep(&self, key: &Key, bell: u32, at_most: Duration) {
        if self.memory.bell(key) != bell {
            return;
        }
        let Some(task) = task::current() else { return };
        self.sleepers.borrow_mut().push((task, key.clone(), bell));
        let until = self.clock.hands().after(task::now(), at_most);
        task::pause(Some(until));
        self.sleepers.borrow_mut().retain(|(sleeper, ..)| *sleeper != task);
    }
}

struct Due {
    charge: Charge,
    at: Moment,
}

pub struct Process {
    pub machine: Rc<Machine>,
    pub index: usize,
    settings: Rc<Settings>,
    issuer: Rc<RefCell<Issuer>>,
    engine: Engine,
    store: Arc<dyn Store>,
    leader: RefCell<Option<Leader>>,
    charges: RefCell<Vec<Due>>,
    /// The flights that it holds, for the kernel frees them when it dies.
    held: RefCell<Vec<(Key, Right)>>,
    /// Its term, should it lead.
    pub term: Cell<Option<Right>>,
    pub tasks: RefCell<Vec<TaskId>>,
    /// It is stopped until then.
    pub stopped_until: Cell<Micros>,
    /// How long it was stopped in all.
    pub stopped_for: Cell<Micros>,
    pub dead: Cell<bool>,
}

impl Process {
    pub fn new(
        machine: &Rc<Machine>,
        index: usize,
        settings: &Rc<Settings>,
        issuer: &Rc<RefCell<Issuer>>,
    ) -> Rc<Self> {
        let config = redis_config(settings);
        let access = || Arc::new(Access { host: machine.index });
        let store = RedisStore::new(config.clone()).over(access()).on(machine.memory.clone());
        let log = RedisLog::new(config).over(access()).on(machine.memory.clone());
        let store: Arc<dyn Store> =
            Arc::new(WatchedStore::new(store, machine.index, machine.memory.clone()));
        let log: Arc<dyn ChangeLog> =
            Arc::new(WatchedLog::new(log, machine.index, machine.memory.clone()));
        let leader = Leader::new(machine.memory.clone(), store.clone(), log, settings.staleness);
        Rc::new(Self {
            machine: machine.clone(),
            index,
            settings: settings.clone(),
            issuer: issuer.clone(),
            engine: Engine::new(machine.memory.clone(), Some(store.clone())),
            store,
            leader: RefCell::new(Some(leader)),
            charges: RefCell::default(),
            held: RefCell::default(),
            term: Cell::new(None),
            tasks: RefCell::default(),
            stopped_until: Cell::new(0),
            stopped_for: Cell::new(0),
            dead: Cell::new(false),
        })
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn issuer(&self) -> &RefCell<Issuer> {
        &self.issuer
    }

    /// Whether whoever uses the token hears 401.
    pub fn is_refused(&self, value: &[u8]) -> bool {
        self.issuer.borrow().token(value).is_some_and(|token| token.revoked)
    }

    pub fn owner(&self) -> Owner {
        Owner { host: self.machine.index, process: self.index }
    }

    /// Runs `body` in this process, from `when` on.
    pub fn spawn(self: &Rc<Self>, when: Micros, body: impl FnOnce(&Rc<Self>) + 'static) {
        let process = self.clone();
        let task = task::spawn(self.owner(), when, move || body(&process));
        self.tasks.borrow_mut().push(task);
    }

    /// SIGKILL: nothing of it runs any more, and the kernel frees its locks.
    pub fn kill(&self) {
        self.dead.set(true);
        for task in self.tasks.borrow_mut().drain(..) {
            task::kill(task);
        }
        let memory = &self.machine.memory;
        for (key, right) in self.held.borrow_mut().drain(..) {
            memory.extend(&key, &right, Moment::default());
        }
        if let Some(term) = self.term.take() {
            memory.stop_leading(&term);
        }
    }

    /// As `keeper::run` does: leases first, and the log in between.
    pub fn background(&self) {
        let Some(mut leader) = self.leader.take() else { return };
        let memory = &self.machine.memory;
        loop {
            let now = memory.now();
            let due = self.charges.borrow().iter().map(|due| due.at).min();
            if due.is_some_and(|at| at <= now) {
                self.renew(now);
                continue;
            }
            self.store.rest();
            memory.count_noticed(self.store.noticed());
            let at_most = due.map(|at| now.until(at));
            let patience = self.settings.patience;
            if !leader.turn(at_most.unwrap_or(patience).min(patience)) {
                self.sleep(at_most.unwrap_or(STAND_BY).min(STAND_BY));
            }
        }
    }

    fn sleep(&self, span: Duration) {
        let until = self.machine.clock.hands().after(task::now(), span);
        task::pause_until(until);
    }

    fn renew(&self, now: Moment) {
        let charge = {
            let charges = self.charges.borrow();
            charges.iter().find(|due| due.at <= now).map(|due| due.charge.clone())
        };
        let Some(charge) = charge else { return };
        let kept = charge.renew(&*self.machine.memory, Some(&*self.store));
        let after = self.machine.memory.now().plus(charge.length / 3);
        let mut charges = self.charges.borrow_mut();
        if !kept || after >= charge.give_up {
            charges.retain(|due| due.charge.lease != charge.lease);
        } else if let Some(due) = charges.iter_mut().find(|due| due.charge.lease == charge.lease) {
            due.at = after;
        }
    }

    pub fn plan(&self, rejected: Option<Digest>) -> Plan {
        let Settings { wait, lease, max_mint, staleness, store_down, .. } = *self.settings;
        Plan {
            wait_until: self.machine.memory.now().plus(wait),
            lease,
            max_mint,
            max_staleness: staleness,
            store_down,
            failure_backoff: Duration::from_secs(1),
            rejected,
            may_mint: true,
            renew: Renew::WhenDue,
        }
    }

    /// One lookup, minting if it must: as `Engine::begin` and `Engine::finish` do it.
    pub fn get(&self, key: &Key, rejected: Option<Digest>) -> Result<Served, FlightError> {
        let memory = &self.machine.memory;
        let began = Began::now(self);
        let mut flight = Flight::new(Kind::Token, self.plan(rejected), true, memory.now());
        let (mut event, mut asked) = (Event::Begin, self.engine.asked(key));
        let (mut minted, mut mints) = (0, 0);
        loop {
            let action = flight.step(event, memory.now());
            event = match action {
                Action::Wait { bell, at_most } => {
                    self.machine.sleep(key, bell, at_most);
                    Event::Woke
                }
                Action::Mint(authority, ..) => {
                    let before = task::now();
                    let outcome = self.mint(key, &flight, authority);
                    minted += task::now() - before;
                    mints += 1;
                    asked = self.engine.asked(key);
                    Event::Outcome(outcome)
                }
                Action::Done(result) => {
                    if let Some(right) = flight.right() {
                        memory.leave(key, &right);
                        self.held.borrow_mut().retain(|(_, held)| *held != right);
                    }
                    promises::waited(self, &began, minted, mints, result.as_ref().err());
                    return result;
                }
                action => {
                    let event = self.engine.perform(key, &flight, action, &mut asked);
                    event_was(&event);
                    if let Event::Boarded(Ok(Boarding::Mine { right, .. })) = &event {
                        self.held.borrow_mut().push((key.clone(), *right));
                    }
                    event
                }
            };
        }
    }

    fn mint(&self, key: &Key, flight: &Flight, authority: Authority) -> Outcome {
        let Some(lease) = flight.lease() else { return Outcome::Abandoned };
        let from = self.machine.memory.now();
        let length = flight.plan().lease;
        let charge = Charge {
            key: key.clone(),
            fleet: authority == Authority::Fleet,
            lease,
            right: flight.right(),
            length,
            give_up: from.plus(flight.plan().max_mint),
        };
        self.charges.borrow_mut().push(Due { charge, at: from.plus(length / 3) });
        if authority == Authority::Host {
            witness::saw("minted for itself");
        }
        witness::mint_begins(self.owner(), key, authority, lease.version);
        let (takes, issued) = self.issuer.borrow_mut().begins(task::now());
        let began = task::now();
        task::pause_until(began + issued);
        let answer = self.issuer.borrow_mut().answers(key, task::now());
        task::pause_until(began + takes);
        self.charges.borrow_mut().retain(|due| due.charge.lease != lease);
        let outcome = match answer {
            Answer::Exit => {
                witness::saw("request ended");
                Outcome::Abandoned
            }
            Answer::Failure(least) => {
                witness::saw("mint failed");
                Outcome::Failed { reason: FAILS.into(), least }
            }
            Answer::Token { value, lifetime } => {
                let policy = TokenPolicy { margin: self.settings.margin, refresh_ratio: 0.8 };
                let (timing, _) = Timing::token(from, lifetime, policy);
                Outcome::Minted { value, timing, detail: Vec::new() }
            }
        };
        trace::say(|| format!("{} minted {key:?} as {}: {outcome:?}", self.owner(), lease.version));
        witness::mint_ended(self.owner(), key, &outcome);
        outcome
    }

    /// Drops what is stored: all hosts' if a digest is not given.
    pub fn invalidate(&self, key: &Key, rejected: Option<Digest>) {
        let began = task::now();
        let done = self.engine.invalidate(key, rejected);
        trace::say(|| format!("{} dropped {key:?}, {rejected:?}: {done:?}", self.owner()));
        if rejected.is_none() && done.is_ok() {
            witness::dropped(key, began);
        }
    }
}

/// Which of the ways a lookup went.
fn event_was(event: &Event) {
    use Claimed::{BackOff, Busy, Lease, Value};
    let what = match event {
        Event::Boarded(Ok(Boarding::Mine { orphan: Some(_), .. })) => "orphan",
        Event::Boarded(Ok(Boarding::Taken { .. })) => "taken",
        Event::Claimed(Ok(Reply { what: Value(_), .. })) => "value",
        Event::Claimed(Ok(Reply { what: Lease(_), .. })) => "lease",
        Event::Claimed(Ok(Reply { what: Busy(_), .. })) => "busy",
        Event::Claimed(Ok(Reply { what: BackOff { .. }, .. })) => "back-off",
        Event::Claimed(Err(_)) => "claim failed",
        Event::Committed(Ok(Reply { what: Committed::Accepted, .. })) => "committed",
        Event::Committed(Ok(Reply { what: Committed::Fenced, .. })) => "fenced",
        Event::Committed(Ok(Reply { what: Committed::Superseded(_), .. })) => "superseded",
        Event::Committed(Err(_)) => "commit failed",
        Event::Restored(Ok(Reply { what: Committed::Accepted, .. })) => "confirmed",
        Event::Restored(Ok(Reply { what: Committed::Superseded(_), .. })) => "asked and newer",
        Event::Restored(Err(_)) => "unconfirmed",
        _ => return,
    };
    witness::saw(what);
}

/// What is to have been, in so many worlds.
pub const WAYS: [&str; 25] = [
    "orphan",
    "taken",
    "value",
    "lease",
    "busy",
    "back-off",
    "claim failed",
    "committed",
    "fenced",
    "superseded",
    "commit failed",
    "confirmed",
    "asked and newer",
    "unconfirmed",
    "refused",
    "silent",
    "anchor stands",
    "gap",
    "line",
    "minted for itself",
    "mint failed",
    "request ended",
    "token refused",
    "waited in vain",
    "degraded",
];

/// When a lookup began, and how long its process had been stopped by then.
pub struct Began {
    pub at: Micros,
    pub stopped_for: Micros,
    pub stood_for: Micros,
}

impl Began {
    fn now(process: &Process) -> Self {
        witness::begins(process.owner());
        let (stopped_for, stood_for) = (process.stopped_for.get(), process.machine.stood_for.get());
        Self { at: task::now(), stopped_for, stood_for }
    }
}

fn redis_config(settings: &Settings) -> RedisConfig {
    let config = RedisConfig::parse("redis://redis").unwrap();
    RedisConfig { connect_timeout: settings.timeout, response_timeout: settings.timeout, ..config }
}

/// For code that sleeps without a host at hand.
pub fn sleep(span: Duration) {
    let Some(task) = task::current() else { return };
    let hands = clock::of(task::owner(task).host).hands();
    task::pause_until(hands.after(task::now(), span));
}
