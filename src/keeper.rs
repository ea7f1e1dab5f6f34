//! The thread that renews this process's leases while their callables run.
//!
//! PHP is busy inside the callable, so somebody else has to renew. The thread is started by the
//! first mint of a process (never before a fork, never in a process that only reads), has a small
//! stack and all signals blocked, sleeps while there is nothing to renew, and never touches PHP.
//! It stops renewing at the mint's own deadline: a callable that hangs loses its lease.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::clock::Moment;
use crate::entry::Key;
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

struct Due {
    charge: Charge,
    at: Moment,
}

#[derive(Default)]
struct Ledger {
    charges: Vec<Due>,
    running: bool,
    stopping: bool,
}

struct Shared {
    host: Arc<dyn Host>,
    fleet: Option<Arc<dyn Store>>,
    ledger: Mutex<Ledger>,
    changed: Condvar,
}

/// Owner's side of the thread.
pub struct Keeper(Arc<Shared>);

/// Deep enough for a Redis command; the default of 8 MiB would only look large.
const STACK: usize = 256 * 1024;

impl Keeper {
    pub fn new(host: Arc<dyn Host>, fleet: Option<Arc<dyn Store>>) -> Self {
        let (ledger, changed) = (Mutex::default(), Condvar::new());
        Self(Arc::new(Shared { host, fleet, ledger, changed }))
    }

    /// Renew at a third of the lease's length, until released.
    pub fn keep(&self, charge: Charge) {
        let at = self.0.host.now().plus(charge.length / 3);
        let mut ledger = self.0.ledger.lock();
        ledger.charges.push(Due { charge, at });
        if ledger.running || ledger.stopping {
            self.0.changed.notify_one();
            return;
        }
        let shared = self.0.clone();
        let thread = std::thread::Builder::new().name("sharedstate".into()).stack_size(STACK);
        // A signal to the process must reach the thread that PHP runs in, never ours: it inherits
        // the mask it is started under.
        #[cfg(any(feature = "host", feature = "redis"))]
        let _held = crate::process::SignalsHeld::hold();
        match thread.spawn(move || run(&shared)) {
            Ok(_) => ledger.running = true,
            // Not renewed: a mint longer than its lease loses it, and the commit decides.
            Err(error) => log::warn!("the thread that renews leases did not start: {error}"),
        }
    }

    pub fn release(&self, lease: &Lease) {
        self.0.ledger.lock().charges.retain(|due| due.charge.lease != *lease);
    }

    pub fn stop(&self, patience: Duration) {
        let mut ledger = self.0.ledger.lock();
        ledger.stopping = true;
        self.0.changed.notify_one();
        if ledger.running {
            // A thread stuck in a time-out is left behind: nothing it does needs the library gone.
            self.0.changed.wait_while_for(&mut ledger, |ledger| ledger.running, patience);
        }
    }
}

fn run(shared: &Shared) {
    let mut ledger = shared.ledger.lock();
    while !ledger.stopping {
        let now = shared.host.now();
        let next = ledger.charges.iter().enumerate().min_by_key(|(_, due)| due.at);
        let Some((index, at)) = next.map(|(index, due)| (index, due.at)) else {
            shared.changed.wait(&mut ledger);
            continue;
        };
        if now < at {
            shared.changed.wait_for(&mut ledger, now.until(at));
            continue;
        }
        let charge = ledger.charges[index].charge.clone();
        // Never renew under the lock: `release` must not wait for Redis.
        let kept = parking_lot::MutexGuard::unlocked(&mut ledger, || shared.renew(&charge));
        if !kept {
            // Released meanwhile, or lost: the callable is not told, for it cannot be stopped. Its
            // commit will be.
            let held = ledger.charges.len();
            ledger.charges.retain(|due| due.charge.lease != charge.lease);
            let lost = held != ledger.charges.len();
            shared.host.count(Counter::LeasesLost, u64::from(lost));
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
    ledger.running = false;
    shared.changed.notify_all();
}

impl Shared {
    /// `false`: the lease is no longer ours.
    fn renew(&self, charge: &Charge) -> bool {
        let now = self.host.now();
        if let Some(right) = &charge.right {
            self.host.extend(&charge.key, right, now.plus(charge.length).min(charge.give_up));
        }
        let renewed = match &self.fleet {
            Some(fleet) if charge.fleet => {
                fleet.renew(&charge.key, &charge.lease, charge.length, now)
            }
            _ => self.host.renew(&charge.key, &charge.lease, charge.length, now),
        };
        renewed != Ok(false)
    }
}
