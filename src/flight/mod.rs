//! One lookup that may end in a mint.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::entry::{Digest, Entry, Key, Timing};
use crate::store::{Host, Lease, Right, Secret, Store};

/// What to do for a key that must be minted while Redis cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreDown {
    /// Mint once per host and write it back later.
    Host,
    /// Refuse, for providers whose new token revokes the old. Usable entries are still served.
    Fail,
}

/// How one lookup may go about it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Nobody waits past this.
    pub wait_until: Moment,
    pub lease: Duration,
    /// A mint is given up on after this, renewed or not.
    pub max_mint: Duration,
    /// An entry unconfirmed for this long is asked about.
    pub max_staleness: Duration,
    pub store_down: StoreDown,
    pub failure_backoff: Duration,
    /// A token the application has just had rejected.
    pub rejected: Option<Digest>,
    /// Whether there is a callable to mint with.
    pub may_mint: bool,
}

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    Host,
    Store,
    Minted,
}

/// An entry that may be handed out now.
#[derive(Clone, Debug, PartialEq)]
pub struct Served {
    pub entry: Entry,
    pub tier: Tier,
    /// Served although the authority could not be asked.
    pub degraded: bool,
    /// Until then it may be served again from memory, as long as the slot's state does not change.
    pub trusted_until: Moment,
}

/// Why a mint was started; the `reason` label of the mint counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MintReason {
    Cold,
    Refresh,
    Rejected,
    Degraded,
}

/// The right to mint, as plain data: user code runs between `begin` and `finish`, and may throw,
/// exit, or never come back. Whoever holds a ticket must hand it to [`Engine::finish`].
#[derive(Clone, Debug)]
pub struct Ticket {
    pub key: Key,
    pub plan: Plan,
    pub reason: MintReason,
    /// Taken before the callable runs; a lifetime counts from here.
    pub minted_from: Moment,
    lease: Lease,
    right: Right,
    fleet: bool,
    have: Option<Served>,
}

/// What became of a ticket.
#[derive(Debug)]
pub enum Outcome {
    Minted {
        value: Vec<u8>,
        timing: Timing,
        detail: Vec<u8>,
    },
    /// The callable failed, or its answer cannot be used: the fleet backs off.
    Failed {
        reason: String,
    },
    /// The request ended inside the callable (`exit`, a fatal error): nobody is to blame.
    Abandoned,
}

#[derive(Debug)]
pub enum Step {
    Served(Served),
    Mint(Box<Ticket>),
    Failed(FlightError),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlightError {
    #[error("no value within the wait budget")]
    WaitTimeout,
    #[error("{reason}")]
    MintFailed { reason: String, retry_in: Duration },
    #[error("{0}")]
    StoreUnavailable(String),
    /// No entry and nothing to mint with.
    #[error("no entry")]
    Nothing,
    #[error("the value has {bytes} bytes and at most {limit} fit")]
    TooLarge { bytes: usize, limit: usize },
}

/// Carries out flights over a host and, with many hosts, the fleet's store.
pub struct Engine {
    host: Arc<dyn Host>,
    fleet: Option<Arc<dyn Store>>,
}

impl Engine {
    pub fn new(host: Arc<dyn Host>, fleet: Option<Arc<dyn Store>>) -> Self {
        Self { host, fleet }
    }

    pub fn begin(&self, key: &Key, plan: &Plan) -> Step {
        let _ = (key, plan, &self.host, &self.fleet, Secret::random());
        Step::Failed(FlightError::Nothing)
    }

    pub fn finish(&self, ticket: Ticket, outcome: Outcome) -> Step {
        let _ = (ticket.lease, ticket.right, ticket.fleet, ticket.have, outcome);
        Step::Failed(FlightError::Nothing)
    }
}
