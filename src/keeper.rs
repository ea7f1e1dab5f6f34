//! The one background thread of a process: it renews the process's leases while their callables
//! run, and where it is the host's leader it follows the change log.
//!
//! PHP is busy inside the callable, so somebody else has to renew. The thread is started by the
//! first mint or the first question to the fleet's store (never before a fork, never in a process
//! that only reads), has a small stack and all signals blocked, and never touches PHP. It stops
//! renewing at the mint's own deadline: a callable that hangs loses its lease.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::clock::Moment;
use crate::entry::Key;
use crate::leader::Leader;
use crate::lock::{Condvar, Mutex, MutexGuard};
use crate::metrics::Counter;
use crate::store::{Host, Lease, Right, Store};

/// A lease to renew, and the host flight that goes with it.
#[derive(Clone)]
pub struct Charge {
    pub key: Key,
    /// Whose lease: the fleet's store, or the host's own.
    pub fleet: bool,
    pub lease: Lease,
    pub right: Option<Right>,
    pub length: Duration,
    /// Not renewed past this.
    pub give_up: Moment,
}

impl Charge {
    /// `false`: the lease is no longer ours.
    pub fn renew(&self, host: &dyn Host, fleet: Option<&dyn Store>) -> bool {
        let now = host.now();
        if let Some(right) = &self.right {
            host.extend(&self.key, right, now.plus(self.length).min(self.give_up));
        }
        let renewed = match fleet {
            Some(fleet) if self.fleet => fleet.renew(&self.key, &self.lease, self.length, now),
            _ => host.renew(&self.key, &self.lease, self.length, now),
        };
        renewed != Ok(false)
    }
}

struct Due {
    charge: Charge,
    at: Moment,
}

/// What a process does now and then without being asked.
pub trait Chore: Send + Sync {
    /// Whether there is something to do. Asked a few times a second, so it neither waits nor sends.
    fn due(&self) -> bool;

    /// Do it, in a thread of its own: it may wait for a network, and leases want to be renewed
    /// meanwhile. One at a time.
    fn run(&self);
}

#[derive(Default)]
struct Ledger {
    charges: Vec<Due>,
    running: bool,
    stopping: bool,
    /// Something was added that the thread has not seen.
    news: bool,
}

struct Shared {
    host: Arc<dyn Host>,
    fleet: Option<Arc<dyn Store>>,
    ledger: Mutex<Ledger>,
    changed: Condvar,
    /// Taken by the thread; there is none without a fleet.
    leader: Mutex<Option<Leader>>,
    started: AtomicBool,
    chore: OnceLock<Arc<dyn Chore>>,
    /// Whether the chore is being done.
    busy: AtomicBool,
}

/// Owner's side of the thread.
pub struct Keeper(Arc<Shared>);

/// Deep enough for a Redis command; the default of 8 MiB would only look large.
const STACK: usize = 256 * 1024;
/// TLS and HTTP are deeper.
const CHORE_STACK: usize = 1024 * 1024;

impl Keeper {
    pub fn new(host: Arc<dyn Host>, fleet: Option<Arc<dyn Store>>, leader: Option<Leader>) -> Self {
        Self(Arc::new(Shared {
            host,
            fleet,
            ledger: Mutex::default(),
            changed: Condvar::default(),
            leader: Mutex::new(leader),
            started: false.into(),
            chore: OnceLock::new(),
            busy: false.into(),
        }))
    }

    /// From now on this process looks after it; the first one counts.
    pub fn assign(&self, chore: Arc<dyn Chore>) {
        if self.0.chore.set(chore).is_ok() {
            self.start(&mut self.0.ledger.lock());
        }
    }

    /// From now on this process stands by to lead its host.
    pub fn stand_by(&self) {
        if !self.0.started.load(Relaxed) && self.0.leader.lock().is_some() {
            self.start(&mut self.0.ledger.lock());
        }
    }

    /// Renew at a third of the lease's length, until released.
    pub fn keep(&self, charge: Charge) {
        let at = self.0.host.now().plus(charge.length / 3);
        let mut ledger = self.0.ledger.lock();
        ledger.charges.push(Due { charge, at });
        ledger.news = true;
        self.0.changed.notify_one();
        self.start(&mut ledger);
    }

    fn start(&self, ledger: &mut Ledger) {
        if ledger.running || ledger.stopping {
            return;
        }
        let shared = self.0.clone();
        // Not started: a mint longer than its lease loses it, and the commit decides.
        ledger.running = spawn("sharedstate", STACK, move || run(&shared));
        self.0.started.store(true, Relaxed);
    }

    pub fn release(&self, lease: &Lease) {
        self.0.ledger.lock().charges.retain(|due| due.charge.lease != *lease);
    }

    pub fn stop(&self, patience: Duration) {
        let mut ledger = self.0.ledger.lock();
        ledger.stopping = true;
        ledger.news = true;
        self.0.changed.notify_one();
        if ledger.running {
            // A thread stuck in a time-out is left behind: nothing it does needs the library gone.
            self.0.changed.wait_while_for(ledger, |ledger| ledger.running, patience);
        }
    }
}

/// Whether it started; it is said if not.
fn spawn(name: &str, stack: usize, body: impl FnOnce() + Send + 'static) -> bool {
    let thread = std::thread::Builder::new().name(name.into()).stack_size(stack);
    // A signal to the process must reach the thread that PHP runs in, never ours: it inherits the
    // mask it is started under.
    #[cfg(any(feature = "host", feature = "redis", feature = "http"))]
    let _held = crate::process::SignalsHeld::hold();
    let started = thread.spawn(body);
    if let Err(error) = &started {
        log::warn!("the background thread {name} did not start: {error}");
    }
    started.is_ok()
}

/// How long the leader waits for a line of the log: the least a shutdown may have to wait for it.
pub(crate) const PATIENCE: Duration = Duration::from_millis(150);
/// How often the others look whether their host still has a leader; a dead one wakes nobody.
pub(crate) const STAND_BY: Duration = Duration::from_millis(180);
/// How often a process without a fleet looks after its chore.
const LOOK_AFTER: Duration = Duration::from_millis(250);

fn run(shared: &Arc<Shared>) {
    let mut leader = shared.leader.lock().take();
    let mut ledger = shared.ledger.lock();
    while !ledger.stopping {
        let now = shared.host.now();
        let next = ledger.charges.iter().min_by_key(|due| due.at);
        let Some((charge, at)) = next.map(|due| (due.charge.clone(), due.at)) else {
            ledger = wait(shared, &mut leader, ledger, None);
            continue;
        };
        if now < at {
            ledger = wait(shared, &mut leader, ledger, Some(now.until(at)));
            continue;
        }
        // Never renew under the lock: `release` must not wait for Redis.
        drop(ledger);
        let kept = charge.renew(&*shared.host, shared.fleet.as_deref());
        ledger = shared.ledger.lock();
        if !kept {
            // Released meanwhile, or lost: the callable is not told, for it cannot be stopped. Its
            // commit will be.
            let held = ledger.charges.len();
            ledger.charges.retain(|due| due.charge.lease != charge.lease);
            let lost = held != ledger.charges.len();
            shared.host.count(Counter::LeasesLost, u64::from(lost));
            if lost {
                log::warn!(
                    "the lease of {} was lost while it was being minted: there may be one more mint",
                    charge.key.shown()
                );
            }
            continue;
        }
        let after = shared.host.now().plus(charge.length / 3);
        if let Some(due) = ledger.charges.iter_mut().find(|due| due.charge.lease == charge.lease) {
            due.at = after;
        }
        if after >= charge.give_up {
            ledger.charges.retain(|due| due.charge.lease != charge.lease);
        }
    }
    if let Some(leader) = &mut leader {
        leader.resign();
    }
    ledger.running = false;
    shared.changed.notify_all();
}

impl Shared {
    /// Until something is added, or for `at_most`.
    fn sleep(&self, at_most: Option<Duration>) -> MutexGuard<'_, Ledger> {
        let mut ledger = self.ledger.lock();
        if !ledger.news {
            ledger = match at_most {
                Some(span) => self.changed.wait_for(ledger, span),
                None => self.changed.wait(ledger),
            };
        }
        ledger.news = false;
        ledger
    }
}

/// Nothing is due for `at_most`: follow the log meanwhile, or sleep.
fn wait<'a>(
    shared: &'a Arc<Shared>,
    leader: &mut Option<Leader>,
    ledger: MutexGuard<'a, Ledger>,
    at_most: Option<Duration>,
) -> MutexGuard<'a, Ledger> {
    drop(ledger);
    look_after(shared);
    // Lines of this thread that no request has taken along.
    log::logger().flush();
    let Some(leader) = leader else {
        let chore = shared.chore.get().map(|_| LOOK_AFTER);
        return shared.sleep(at_most.into_iter().chain(chore).min());
    };
    // At rest a host has one connection, its leader's: a worker's is closed soon after its flight.
    if let Some(fleet) = &shared.fleet {
        fleet.rest();
        shared.host.count_noticed(fleet.noticed());
    }
    if leader.turn(at_most.unwrap_or(PATIENCE).min(PATIENCE)) {
        return shared.ledger.lock();
    }
    shared.sleep(Some(at_most.unwrap_or(STAND_BY).min(STAND_BY)))
}

/// Start the chore where it is due and not being done.
fn look_after(shared: &Arc<Shared>) {
    let Some(chore) = shared.chore.get() else { return };
    if shared.busy.load(Acquire) || !chore.due() || shared.busy.swap(true, AcqRel) {
        return;
    }
    let (mine, chore) = (Arc::clone(shared), Arc::clone(chore));
    let started = spawn("sharedstate-fx", CHORE_STACK, move || {
        let _done = Done(&mine.busy);
        chore.run();
    });
    if !started {
        shared.busy.store(false, Release);
    }
}

/// Says so also when the chore panics.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(false, Release);
    }
}
