//! One lookup that may end in a mint: [`machine`] decides, [`Engine`] carries out.

pub(crate) mod machine;
#[cfg(test)]
mod steps;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use self::machine::{Action, Authority, Event, Flight};
use crate::clock::{Moment, sleep};
use crate::entry::{Digest, Entry, Freshness, Key, Kind, Timing, Version, freshness};
use crate::keeper::{Charge, Chore, Keeper};
use crate::leader::Leader;
use crate::metrics::Counter;
pub use crate::metrics::tally::MintReason;
use crate::store::{
    Asked, Committed, Heard, Host, LastFailure, Leave, Reply, Right, Store, StoreError, jittered,
};

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
    /// Whether there is something to mint with.
    pub may_mint: bool,
    /// When something usable is renewed.
    pub renew: Renew,
}

#[cfg(test)]
impl Plan {
    /// With the settings' defaults.
    pub fn usual(now: Moment) -> Self {
        Self {
            wait_until: now.plus(Duration::from_millis(6_000)),
            lease: Duration::from_millis(4_000),
            max_mint: Duration::from_secs(30),
            max_staleness: Duration::from_secs(1),
            store_down: StoreDown::Host,
            failure_backoff: Duration::from_secs(1),
            rejected: None,
            may_mint: true,
            renew: Renew::WhenDue,
        }
    }
}

/// When a lookup that finds something usable renews it. What is missing is minted in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renew {
    WhenDue,
    /// Also before it is due, once it is this old; for sheets.
    AtAge(Duration),
    /// Somebody else sees to it.
    Never,
}

impl Renew {
    fn wants(self, entry: &Entry, kind: Kind, now: Moment) -> bool {
        let due = entry.freshness(kind, now) != Freshness::Fresh;
        match self {
            Self::WhenDue => due,
            // Counted back from the refresh, for that may have been put off: somebody asked a moment
            // ago, and what came of it is no reason to ask again at once.
            Self::AtAge(age) => {
                let ahead = entry.timing.interval().saturating_sub(age);
                due || now.plus(ahead) >= entry.timing.refresh_at
            }
            Self::Never => false,
        }
    }
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
    /// The last renewals failed, so nobody tries another one for so long.
    pub backing_off: Option<Duration>,
}

/// Until when an entry may be served without a flight; `None`: take one. `confirmed_at` is `None`
/// where the host is its own authority.
pub fn trusted_until(
    timing: &Timing,
    kind: Kind,
    confirmed_at: Option<Moment>,
    max_staleness: Duration,
    now: Moment,
) -> Option<Moment> {
    let asked = confirmed_at.map_or(timing.refresh_at, |at| at.plus(max_staleness / 2));
    let fresh = freshness(timing, kind, now) == Freshness::Fresh && now < asked;
    fresh.then(|| asked.min(timing.refresh_at))
}

/// The right to mint, as plain data: user code runs between `begin` and `finish`, and may throw,
/// exit, or never come back. Whoever holds a ticket must hand it to [`Engine::finish`].
#[derive(Clone, Debug)]
pub struct Ticket {
    pub key: Key,
    pub reason: MintReason,
    /// Taken before the callable runs; a lifetime counts from here.
    pub minted_from: Moment,
    flight: Flight,
}

impl Ticket {
    pub fn plan(&self) -> &Plan {
        self.flight.plan()
    }

    /// What the minted entry will be committed as.
    pub fn version(&self) -> u64 {
        self.flight.lease().map_or(0, |lease| lease.version.0)
    }
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
        /// Nobody tries again before, however few have failed.
        least: Duration,
    },
    /// There is no room for it on this host: a failure with a reason that says what to do.
    TooLarge {
        bytes: usize,
        limit: usize,
    },
    /// The request ended inside the callable (`exit`, a fatal error): nobody is to blame.
    Abandoned,
}

impl Outcome {
    fn within(self, limit: usize) -> Self {
        match &self {
            Self::Minted { value, detail, .. } if value.len() + detail.len() > limit => {
                Self::TooLarge { bytes: value.len() + detail.len(), limit }
            }
            _ => self,
        }
    }
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
    #[error(
        "it has {bytes} bytes with what is kept beside it, and at most {limit} fit: raise \
         sharedstate.host.value_size or keep fewer fields"
    )]
    TooLarge { bytes: usize, limit: usize },
}

/// Carries out flights over a host and, with many hosts, the fleet's store.
pub struct Engine {
    host: Arc<dyn Host>,
    fleet: Option<Arc<dyn Store>>,
    keeper: Keeper,
    last_failure: LastFailure,
}

impl Engine {
    pub fn new(host: Arc<dyn Host>, fleet: Option<Arc<dyn Store>>) -> Self {
        let keeper = Keeper::new(host.clone(), fleet.clone(), None);
        Self { host, fleet, keeper, last_failure: LastFailure::default() }
    }

    /// An engine whose process stands by to lead its host, once it has asked the fleet's store.
    pub fn following(host: Arc<dyn Host>, fleet: Arc<dyn Store>, leader: Leader) -> Self {
        let last_failure = leader.last_failure();
        let keeper = Keeper::new(host.clone(), Some(fleet.clone()), Some(leader));
        Self { host, fleet: Some(fleet), keeper, last_failure }
    }

    pub fn begin(&self, key: &Key, plan: &Plan) -> Step {
        loop {
            if let Some(step) = self.begin_unless(key, plan, &|| false) {
                return step;
            }
        }
    }

    /// As [`Self::begin`]; `None` as soon as `interrupted` says so in the middle of a wait. Nothing is held then, and
    /// who begins again, with the same plan, waits for what is left of the time.
    pub fn begin_unless(
        &self,
        key: &Key,
        plan: &Plan,
        interrupted: &dyn Fn() -> bool,
    ) -> Option<Step> {
        let now = self.host.now();
        let flight = Flight::new(key.kind(), plan.clone(), self.fleet.is_some(), now);
        self.carry_out(key, flight, Event::Begin, interrupted)
    }

    pub fn finish(&self, ticket: Ticket, outcome: Outcome) -> Step {
        let outcome = outcome.within(self.host.most());
        let news = self.count_mint(&ticket, &outcome);
        if let Some(lease) = ticket.flight.lease() {
            self.keeper.release(&lease);
        }
        let step = self.carry_out(&ticket.key, ticket.flight, Event::Outcome(outcome), &|| false);
        // Nothing interrupts it.
        let step = step.unwrap_or(Step::Failed(FlightError::WaitTimeout));
        // Told when others have it: a log may take its time.
        log::info!("{news}");
        step
    }

    /// Count the mint of a token; what came of any, in words.
    fn count_mint(&self, ticket: &Ticket, outcome: &Outcome) -> String {
        let (tally, name) = (self.host.tally(), ticket.key.name());
        let took = ticket.minted_from.until(self.host.now());
        let (what, why) = (ticket.key.shown(), MintReason::LABELS[ticket.reason as usize]);
        let counted = ticket.key.kind() == Kind::Token;
        match outcome {
            Outcome::Minted { timing, .. } if counted => {
                let lifetime = timing.minted_at.until(timing.refresh_at);
                tally.minted(name, ticket.reason, lifetime, took);
            }
            Outcome::Failed { .. } | Outcome::TooLarge { .. } if counted => {
                tally.mint_failed(name, took)
            }
            _ => {}
        }
        match outcome {
            Outcome::Minted { .. } => format!("{what} was minted in {took:?}: {why}"),
            Outcome::Failed { reason, .. } => format!("{what} was not minted: {reason}"),
            Outcome::TooLarge { bytes, .. } => {
                self.host.count(Counter::TooLarge, 1);
                format!("{what} was not minted: its {bytes} bytes are too many")
            }
            Outcome::Abandoned => format!("the request that minted {what} ended before it had"),
        }
    }

    /// Drop what is stored; with a digest only if it is that token. Marks the host before it
    /// returns. With the fleet's store out of reach the host is marked alone, and the rejection
    /// kept for the next claim.
    pub fn invalidate(&self, key: &Key, rejected: Option<Digest>) -> Result<bool, StoreError> {
        let dropped = self.drop_stored(key, rejected)?;
        self.host.count(Counter::Rejections, u64::from(dropped && rejected.is_some()));
        Ok(dropped)
    }

    fn drop_stored(&self, key: &Key, rejected: Option<Digest>) -> Result<bool, StoreError> {
        let now = self.host.now();
        let Some(fleet) = &self.fleet else {
            return self.host.invalidate(key, rejected, Version::NONE, now).map(|reply| reply.what);
        };
        // Below what this host has seen a floor would leave it in use.
        let seen = self.host.look(key).map_or(Version::NONE, |known| match rejected {
            None => known.highest,
            Some(digest) => known
                .entry
                .filter(|entry| entry.digest() == digest)
                .map_or(Version::NONE, |entry| entry.version),
        });
        let here = self.drop_unsynced(key, rejected, now);
        match self.ask_fleet(|| fleet.invalidate(key, rejected, seen, now)) {
            Ok(reply) => {
                self.host.raise_floor(key, reply.floor);
                Ok(reply.what || here)
            }
            Err(_) if rejected.is_some() => {
                let synced = self.host.invalidate(key, rejected, Version::NONE, now)?.what;
                self.keep_rejection(key, rejected, synced);
                Ok(synced || here)
            }
            Err(error) => {
                // Without a digest nothing can be sent later: say so, the other hosts go on.
                self.host.invalidate(key, None, Version::NONE, now)?;
                Err(error)
            }
        }
    }

    /// Drop what was rejected where the fleet's store has not got it and so cannot: it would be served while
    /// another is minted, and given back to that store.
    fn drop_unsynced(&self, key: &Key, rejected: Option<Digest>, now: Moment) -> bool {
        let entry = || self.host.look(key).and_then(|known| known.entry);
        let ours =
            |digest: &Digest| entry().is_some_and(|it| it.unsynced && it.digest() == *digest);
        let Some(digest) = rejected.filter(ours) else { return false };
        self.host.invalidate(key, Some(digest), Version::NONE, now).is_ok_and(|reply| reply.what)
    }

    /// Drop every token that this host has or `elsewhere` names, or those of one `name` among them. How many
    /// there were to drop, and the first failure: this host is marked whatever the store says. Sheets
    /// stay: they come from no issuer, and without them there are no rates until a source answers.
    pub fn invalidate_all(
        &self,
        elsewhere: Vec<Key>,
        name: Option<&[u8]>,
    ) -> (usize, Option<StoreError>) {
        let mut keys = self.host.resident();
        keys.extend(elsewhere);
        keys.retain(|key| key.kind() == Kind::Token && name.is_none_or(|name| name == key.name()));
        keys.sort_unstable_by(|one, other| one.bytes().cmp(other.bytes()));
        keys.dedup();
        let (mut dropped, mut failure) = (0, None);
        for key in keys {
            let known = self.host.look(&key).and_then(|known| known.entry);
            let here = known.is_some_and(|entry| entry.servable(Kind::Token, self.host.now()));
            let there = self.invalidate(&key, None).unwrap_or_else(|error| {
                failure.get_or_insert(error);
                false
            });
            dropped += usize::from(here || there);
        }
        (dropped, failure)
    }

    /// From now on this process does the chore in the background.
    pub fn assign(&self, chore: Arc<dyn Chore>) {
        self.keeper.assign(chore);
    }

    /// Why the fleet's store last failed to answer this process.
    pub fn last_failure(&self) -> Option<String> {
        self.last_failure.words()
    }

    /// Join the thread that renews leases, for at most `patience`.
    pub fn stop(&self, patience: Duration) {
        self.keeper.stop(patience);
    }

    fn carry_out(
        &self,
        key: &Key,
        mut flight: Flight,
        first: Event,
        interrupted: &dyn Fn() -> bool,
    ) -> Option<Step> {
        let host = &*self.host;
        let mut event = first;
        let mut asked = self.asked(key);
        let mut waiting_since = None;
        let ended = |flight: &Flight, waiting_since: Option<Moment>| {
            if let Some(right) = flight.right() {
                host.leave(key, &right);
            }
            if let Some(since) = waiting_since {
                host.tally().waited(since.until(host.now()));
            }
        };
        loop {
            event = match flight.step(event, host.now()) {
                Action::Mint(authority, lease, reason) => {
                    let minted_from = host.now();
                    host.count(Counter::Rejections, u64::from(reason == MintReason::Rejected));
                    self.keeper.keep(Charge {
                        key: key.clone(),
                        fleet: authority == Authority::Fleet,
                        lease,
                        right: flight.right(),
                        length: flight.plan().lease,
                        give_up: minted_from.plus(flight.plan().max_mint),
                    });
                    let ticket = Ticket { key: key.clone(), reason, minted_from, flight };
                    return Some(Step::Mint(Box::new(ticket)));
                }
                Action::Done(result) => {
                    ended(&flight, waiting_since);
                    return Some(result.map_or_else(Step::Failed, Step::Served));
                }
                action => {
                    if matches!(action, Action::Wait { .. }) && waiting_since.is_none() {
                        waiting_since = Some(host.now());
                        host.count(Counter::Waits, 1);
                    }
                    let event = self.perform(key, &flight, action, &mut asked);
                    if matches!(event, Event::Woke) && interrupted() {
                        ended(&flight, waiting_since);
                        return None;
                    }
                    if let Some(counter) = noteworthy(&event) {
                        host.count(counter, 1);
                    }
                    event
                }
            }
        }
    }

    /// One that did not arrive goes with the next claim. There is room for one: what the store had, for sure,
    /// comes before what it may have.
    fn keep_rejection(&self, key: &Key, rejected: Option<Digest>, sure: bool) {
        if sure || self.kept_rejection(key).is_none() {
            self.host.set_pending_rejection(key, rejected);
        }
    }

    fn kept_rejection(&self, key: &Key) -> Option<Digest> {
        self.host.look(key).and_then(|known| known.pending_rejection)
    }

    pub(crate) fn asked(&self, key: &Key) -> Asked {
        Asked { at: self.host.now(), reservation: self.host.reserve(key) }
    }

    pub(crate) fn perform(
        &self,
        key: &Key,
        flight: &Flight,
        action: Action,
        asked: &mut Asked,
    ) -> Event {
        let host = &*self.host;
        let now = host.now();
        // Before the question is sent: an answer vouches for what was then, in the place that was then the key's.
        if matches!(action, Action::Restore(_) | Action::Claim(..) | Action::Commit(..)) {
            *asked = self.asked(key);
        }
        match action {
            Action::Look => Event::Looked(host.look(key)),
            Action::Board { until } => Event::Boarded(host.board(key, until, now)),
            Action::Wait { bell, at_most } => {
                host.wait(key, bell, at_most);
                Event::Woke
            }
            Action::Sleep(span) => {
                sleep(span);
                Event::Woke
            }
            Action::SetBusy { until, followed } => {
                host.set_busy(key, until);
                // Who waits holds no connection: a fleet that is cold has more waiting processes than a server
                // takes connections.
                if let Some(fleet) = self.fleet.as_ref().filter(|_| followed) {
                    fleet.let_go();
                }
                Event::Carried
            }
            Action::HearBackoff { until, reason, paused_until } => {
                host.hear_backoff(key, until, &reason, paused_until);
                Event::Carried
            }
            Action::MayRevalidate { until } => {
                Event::MayRevalidate(host.may_revalidate(key, now, until))
            }
            Action::Postpone { until } => {
                host.may_revalidate(key, now, until);
                Event::Carried
            }
            Action::Restore(entry) => {
                host.count(Counter::Revalidations, 1);
                let restore = |fleet: &dyn Store| fleet.restore(key, &entry, now);
                let reply = self.ask(key, Authority::Fleet, restore);
                Event::Restored(reply.map(|Reply { floor, what }| {
                    asked.at = what.since;
                    Reply { floor, what: what.outcome }
                }))
            }
            Action::Claim(authority, claim) => {
                if let Some(right) = flight.right() {
                    host.extend(key, &right, now.plus(claim.lease));
                    host.note_secret(key, &right, claim.secret);
                }
                if authority == Authority::Host {
                    return Event::Claimed(self.host.claim(key, &claim, now));
                }
                let here = self.drop_unsynced(key, claim.rejected, now);
                let reply = self.ask(key, authority, |store| store.claim(key, &claim, now));
                match claim.rejected {
                    Some(_) if reply.is_err() => self.keep_rejection(key, claim.rejected, !here),
                    // It arrived.
                    Some(_) if claim.rejected == self.kept_rejection(key) => {
                        self.host.set_pending_rejection(key, None);
                    }
                    _ => {}
                }
                Event::Claimed(reply)
            }
            Action::Commit(authority, lease, entry) => {
                let commit = |store: &dyn Store| store.commit(key, &lease, &entry, now);
                Event::Committed(self.ask(key, authority, commit))
            }
            Action::Abandon(authority, lease, failure) => {
                let give = |store: &dyn Store| {
                    let what = store.abandon(key, &lease, failure.as_ref(), now)?;
                    Ok(Reply { floor: Version::NONE, what })
                };
                // One that does not arrive leaves the lease to run out.
                let given = self.ask(key, authority, give);
                if let Err(error) = &given {
                    log::debug!("a lease was not given back: {error}");
                }
                Event::Abandoned(given.map_or(Duration::ZERO, |reply| reply.what))
            }
            Action::Adopt(entry) => Event::Adopted(host.adopt(key, &entry, *asked)),
            Action::Confirm(version) => {
                host.confirm(key, version, asked.at);
                Event::Carried
            }
            // Both end the loop of `carry_out` and are not carried out here.
            Action::Mint(..) | Action::Done(_) => Event::Carried,
        }
    }

    /// Ask an authority, through the host's breaker where it is the fleet's, and note the floor it
    /// names before anything else is done with the answer.
    fn ask<T>(
        &self,
        key: &Key,
        authority: Authority,
        question: impl Fn(&dyn Store) -> Result<Reply<T>, StoreError>,
    ) -> Result<Reply<T>, StoreError> {
        let Some(fleet) = self.fleet.as_ref().filter(|_| authority == Authority::Fleet) else {
            return question(&*self.host);
        };
        let reply = self.ask_fleet(|| question(&**fleet))?;
        self.host.raise_floor(key, reply.floor);
        Ok(reply)
    }

    fn ask_fleet<T>(&self, question: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let turn = self.take_turn();
        let answer = self.ask_in_turn(question);
        if let Some(turn) = turn {
            self.host.end_turn(&turn);
        }
        answer
    }

    /// Only a few processes of a host ask at once: of a thousand hosts that are cold a server gets as many questions
    /// as it can answer in time. `None`: it takes too long, and is done without.
    fn take_turn(&self) -> Option<Right> {
        let queued_at = self.host.now();
        loop {
            let now = self.host.now();
            let turn = self.host.take_turn(now.plus(TURN));
            if turn.is_some() || queued_at.until(now) >= QUEUE {
                return turn;
            }
            sleep(jittered(QUEUED));
        }
    }

    fn ask_in_turn<T>(
        &self,
        question: impl Fn() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let asked_at = self.host.now();
        if let Leave::Withheld { certain } = self.host.may_ask(asked_at) {
            let last = self.last_failure.words();
            let last = last.unwrap_or_else(|| "it failed to answer another process".into());
            let why = format!("it is not asked for a moment: {last}");
            return Err(if certain { StoreError::Unreachable } else { StoreError::NotAsked }(why));
        }
        self.keeper.stand_by();
        let answer = question();
        let heard = Heard::of(answer.as_ref().err());
        let failure = answer.as_ref().err().filter(|_| heard != Heard::Answer);
        if let Some(error) = failure {
            self.last_failure.note(error);
        }
        let news = self.host.authority_heard(heard, asked_at, self.host.now());
        match failure {
            Some(error) if news => log::warn!(
                "{error}; usable entries are served, missing ones wait or follow sharedstate.store_down"
            ),
            None if news => log::warn!("Redis answers again"),
            _ => {}
        }
        answer
    }
}

/// How long a process waits for its turn to ask. Who has one has mostly asked within a millisecond.
const QUEUE: Duration = Duration::from_millis(500);
const QUEUED: Duration = Duration::from_millis(2);
/// A turn takes no longer, unless its holder was stopped.
const TURN: Duration = Duration::from_secs(3);

/// What an operator should be able to see.
fn noteworthy(event: &Event) -> Option<Counter> {
    match event {
        Event::Committed(Ok(reply)) if reply.what != Committed::Accepted => {
            Some(Counter::CommitsRefused)
        }
        Event::Adopted(Err(StoreError::TooLarge { .. })) => Some(Counter::TooLarge),
        _ => None,
    }
}
