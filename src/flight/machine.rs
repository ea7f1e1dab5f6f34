//! The flight: one lookup that may end in a mint, as a state machine without I/O.
//!
//! It is told what happened and says what to do next; it never touches a store, a clock or PHP.
//! So it runs under simulated time and every order of faults. The engine carries out its actions.
//!
//! The invariants, each tested below and in `tests.rs`:
//! - whoever has something usable is served; only who has nothing waits, and never past the budget;
//! - the table is looked at again after the flight was won, and before anybody is asked to mint;
//! - what a store refused to commit is never handed out.

use std::time::Duration;

use super::{FlightError, MintReason, Outcome, Plan, Renew, Served, StoreDown, Tier};
use crate::clock::Moment;
use crate::entry::{Digest, Entry, Freshness, Kind, Version};
use crate::random;
use crate::store::breaker::Breaker;
use crate::store::{
    Backoff, Boarding, Claim, Claimed, Committed, Failure, Known, Lease, Reply, Right, Secret,
    StoreError, as_kept_here, jittered,
};

/// The kernel wakes nobody when an owner dies, so nobody sleeps for longer than this.
const NAP: Duration = Duration::from_millis(10);
/// While nobody of this host follows the log, who waits for another host's mint asks again after this, and each
/// time after twice as long, up to [`ASK_LATEST`].
const ASK_SOONEST: Duration = Duration::from_millis(25);
const ASK_LATEST: Duration = Duration::from_millis(200);
/// Who waits for another host's mint is woken by whoever follows the log; this is for the case that he dies.
const LONG_NAP: Duration = Duration::from_millis(100);
/// When a lease is given back, all hosts that waited for it ask within this.
const COME_BACK_WITHIN: Duration = Duration::from_millis(50);
/// How often a process that waits for a store that is silent looks whether others have heard of it.
const LISTEN: Duration = Duration::from_millis(50);
/// How long an entry may be served from the request's memory while somebody else renews it.
const WHILE_RENEWED: Duration = Duration::from_millis(100);
/// The same while the authority does not answer.
const WHILE_DEGRADED: Duration = Duration::from_millis(250);
/// For so long a host believes that nobody may mint a key, and asks no more; then one lookup asks again.
const PAUSE_BELIEVED: Duration = Duration::from_secs(1);
/// Why a mint that took longer than its token lives came to nothing.
pub const RAN_OUT: &str = "it had run out before the callable returned";
/// The longest wait for another process's answer about an entry that is usable but unconfirmed.
const CONFIRMATION: Duration = Duration::from_millis(300);

/// Whom to ask: the store of the fleet, or the host's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    Fleet,
    Host,
}

#[derive(Debug)]
pub enum Action {
    Look,
    Board {
        until: Moment,
    },
    Wait {
        bell: u32,
        at_most: Duration,
    },
    Sleep(Duration),
    /// Another host mints, until then as far as is known. `followed`: somebody of this host follows the log and
    /// wakes who waits, so nothing more will be asked for a while.
    SetBusy {
        until: Moment,
        followed: bool,
    },
    /// Nobody may mint before `until`, and nobody of this host asks again before `paused_until`.
    HearBackoff {
        until: Moment,
        reason: String,
        paused_until: Moment,
    },
    /// May this process be the one that re-validates until then?
    MayRevalidate {
        until: Moment,
    },
    Restore(Entry),
    Claim(Authority, Claim),
    Mint(Authority, Lease, MintReason),
    Commit(Authority, Lease, Entry),
    Abandon(Authority, Lease, Option<Failure>),
    /// Write to the host what the fleet has; confirmed as of the last question's sending.
    Adopt(Entry),
    /// The host's entry of this version is still the newest.
    Confirm(Version),
    /// Nobody of this host asks about the entry it has until then.
    Postpone {
        until: Moment,
    },
    Done(Result<Served, FlightError>),
}

#[derive(Debug)]
pub enum Event {
    Begin,
    Looked(Option<Known>),
    Boarded(Result<Boarding, StoreError>),
    Woke,
    MayRevalidate(bool),
    Restored(Result<Reply<Committed>, StoreError>),
    Claimed(Result<Reply<Claimed>, StoreError>),
    Outcome(Outcome),
    Committed(Result<Reply<Committed>, StoreError>),
    /// The pause that has begun with it.
    Abandoned(Duration),
    /// An action without a result was carried out.
    Carried,
    Adopted(Result<(), StoreError>),
}

#[derive(Clone, Debug)]
pub struct Flight {
    kind: Kind,
    plan: Plan,
    /// Whether there is a fleet, whose store is then the authority.
    fleet: bool,
    authority: Authority,
    degraded: bool,
    /// Whether the fleet's store did not answer when this host last asked.
    failing: bool,
    backing_off: Option<Duration>,
    began: Moment,
    phase: Phase,
    /// Usable, and given out should nothing better be had.
    have: Option<Have>,
    newest: Version,
    /// Of any key.
    highest: Version,
    /// Nobody asks about what is usable before.
    ask_at: Moment,
    /// Below it this host serves nothing, whatever a store may still have.
    floor: Version,
    /// What the host had was rejected or invalidated, and nothing newer has been heard of.
    dropped: bool,
    /// What the host had was good, and had to make room.
    evicted: bool,
    rejected: Option<Digest>,
    right: Option<Right>,
    orphan: Option<Secret>,
    /// Made at the first claim; most lookups need none.
    secret: Option<Secret>,
    lease: Option<Lease>,
    /// What we minted, while it is being committed.
    minted: Option<Entry>,
    /// Fenced once already; the second time is final.
    fenced: bool,
    /// The commit whose reply was lost has been sent again.
    recommitted: bool,
    /// A stored value of this version ran out before it could be served.
    ran_out: Version,
    /// What is usable has been asked about while somebody else renews it.
    asked_about: bool,
    /// When the fleet's store did not answer us for the first time.
    silent_since: Option<Moment>,
    /// How often we were told that another host mints.
    told_busy: u32,
    /// The key's bell and the heartbeat as they were before the last claim.
    bell: u32,
    heartbeat: Moment,
}

/// What a look says to who waits for another host's mint.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    bell: u32,
    busy_until: Moment,
    heartbeat: Moment,
}

impl Waiting {
    fn of(known: &Known) -> Self {
        Self { bell: known.bell, busy_until: known.busy_until, heartbeat: known.heartbeat }
    }
}

#[derive(Clone, Debug)]
struct Have {
    entry: Entry,
    confirmed_at: Moment,
}

/// What the next event answers.
#[derive(Clone, Debug)]
enum Phase {
    First,
    /// Waiting for whoever asks about a usable entry.
    Confirmation {
        give_up: Moment,
    },
    /// Somebody else's flight; look whether it brought something.
    Waiting,
    /// Ours; look whether it was needed.
    Rechecking,
    Claiming,
    /// Another host mints; what it brings comes by the log. Asked last at that moment, and again at this one
    /// where nobody follows the log.
    Elsewhere {
        asked: Moment,
        again: Moment,
    },
    Minting,
    Committing,
    /// Our mint failed: what is still usable now, else the error.
    FallingBack(FlightError),
    /// The store did not answer: what is usable now, and not what was when it was asked.
    Unanswered(StoreError),
    /// The same, where it was asked whether an entry is still the newest.
    Unconfirmed,
    /// What is usable is served, once the others know not to ask.
    Postponing,
    /// One more action to carry out, then this.
    Finishing(Result<Served, FlightError>),
}

impl Flight {
    pub fn new(kind: Kind, plan: Plan, fleet: bool, now: Moment) -> Self {
        Self {
            kind,
            rejected: plan.rejected,
            plan,
            fleet,
            authority: if fleet { Authority::Fleet } else { Authority::Host },
            degraded: false,
            failing: false,
            backing_off: None,
            began: now,
            phase: Phase::First,
            have: None,
            newest: Version::NONE,
            highest: Version::NONE,
            ask_at: Moment::default(),
            floor: Version::NONE,
            dropped: false,
            evicted: false,
            right: None,
            orphan: None,
            secret: None,
            lease: None,
            minted: None,
            fenced: false,
            recommitted: false,
            ran_out: Version::NONE,
            asked_about: false,
            silent_since: None,
            told_busy: 0,
            bell: 0,
            heartbeat: Moment::default(),
        }
    }

    /// The host flight held; whoever carries out the flight gives it back after `Done`.
    pub fn right(&self) -> Option<Right> {
        self.right
    }

    pub fn lease(&self) -> Option<Lease> {
        self.lease
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub fn step(&mut self, event: Event, now: Moment) -> Action {
        self.drop_unusable(now);
        match event {
            Event::Begin => Action::Look,
            Event::Looked(known) => self.looked(known, now),
            Event::MayRevalidate(may) => self.may_revalidate(may, now),
            Event::Restored(reply) => self.restored(reply, now),
            Event::Boarded(boarded) => self.boarded(boarded, now),
            Event::Woke => match self.phase {
                Phase::Claiming => self.claim(),
                _ => Action::Look,
            },
            Event::Claimed(reply) => self.claimed(reply, now),
            Event::Outcome(outcome) => self.outcome(outcome, now),
            Event::Committed(reply) => self.committed(reply, now),
            Event::Carried if matches!(self.phase, Phase::Postponing | Phase::Elsewhere { .. }) => {
                Action::Look
            }
            Event::Abandoned(pause) => self.abandoned(pause, now),
            Event::Carried | Event::Adopted(Ok(())) => self.finished(now),
            Event::Adopted(Err(error)) => {
                // Served all the same; it will be asked for again.
                log::debug!("not kept in the host table: {error}");
                self.finished(now)
            }
        }
    }

    /// The answer to a question may have taken long, and what was usable then may not be now.
    fn drop_unusable(&mut self, now: Moment) {
        let (floor, kind) = (self.floor, self.kind);
        let usable = |entry: &Entry| entry.version >= floor && entry.servable(kind, now);
        self.have.take_if(|have| !usable(&have.entry));
    }

    /// What a store says of a floor counts from this very reply on.
    fn heard<T>(&mut self, reply: Reply<T>, now: Moment) -> T {
        self.floor = self.floor.max(reply.floor);
        self.drop_unusable(now);
        reply.what
    }

    fn looked(&mut self, known: Option<Known>, now: Moment) -> Action {
        self.have = None;
        let waiting = known.as_ref().map(Waiting::of);
        let paused = known.as_ref().and_then(|known| self.paused(known, now));
        if let Some(known) = known {
            self.heartbeat = known.heartbeat;
            self.newest = self.newest.max(known.newest);
            self.highest = self.highest.max(known.highest);
            self.floor = self.floor.max(known.floor);
            self.dropped = known.floor > Version::NONE && known.floor >= known.newest;
            self.evicted = known.evicted;
            self.failing = known.authority_failing;
            self.rejected = self.rejected.or(known.pending_rejection);
            let confirmed_at = known.confirmed_at;
            self.ask_at = known.ask_at;
            self.have = known
                .entry
                .filter(|entry| entry.servable(self.kind, now))
                // Asking with a rejected token means: anything but this one.
                .filter(|entry| self.plan.rejected.is_none_or(|it| it != entry.digest()))
                .map(|entry| Have { entry, confirmed_at });
        }
        match &self.phase {
            Phase::FallingBack(error) => {
                let error = error.clone();
                return self.fail(error, now);
            }
            Phase::Unanswered(error) => {
                let error = error.clone();
                return self.unanswered(&error, now);
            }
            _ => {}
        }
        let Some(have) = &self.have else {
            if let Some(error) = paused {
                return Action::Done(Err(error));
            }
            return match self.phase {
                Phase::Rechecking | Phase::Postponing => {
                    self.bell = waiting.map_or(0, |it| it.bell);
                    self.claim()
                }
                Phase::Elsewhere { asked, again } => self.elsewhere(asked, again, waiting, now),
                _ => self.board(now),
            };
        };
        if matches!(self.phase, Phase::Unconfirmed | Phase::Postponing) {
            return self.serve(Tier::Host, now);
        }
        let due = self.plan.may_mint && self.plan.renew.wants(&have.entry, self.kind, now);
        let age = self.unconfirmed_for(have, now);
        let half = self.plan.max_staleness / 2;
        match self.phase {
            Phase::Rechecking if due => self.claim(),
            Phase::Rechecking | Phase::Waiting | Phase::Elsewhere { .. } => {
                self.serve(Tier::Host, now)
            }
            Phase::Confirmation { give_up } if age >= half && now < give_up && !self.failing => {
                Action::Sleep(Duration::from_millis(2))
            }
            // Who goes by the sheet's age and not by a reader's luck minds his own pauses.
            _ if due && self.fleet && self.plan.renew == Renew::WhenDue && now < self.ask_at => {
                self.serve(Tier::Host, now)
            }
            // The flight's claim asks about the entry as well.
            _ if due => self.board(now),
            Phase::Confirmation { .. } => {
                self.degraded = age >= half;
                self.serve(Tier::Host, now)
            }
            _ if age >= half => Action::MayRevalidate { until: now.plus(half) },
            _ => self.serve(Tier::Host, now),
        }
    }

    /// Why asking the fleet is of no use: another lookup of this host has just been told that nobody may mint.
    fn paused(&self, known: &Known, now: Moment) -> Option<FlightError> {
        let asks = self.fleet && self.authority == Authority::Fleet;
        if !asks || self.plan.rejected.is_some() || known.pending_rejection.is_some() {
            return None;
        }
        let Backoff { until, reason, .. } = known.backoff.as_ref()?;
        let told = now < known.paused_until && now < *until;
        told.then(|| FlightError::MintFailed {
            reason: reason.clone(),
            retry_in: now.until(*until),
        })
    }

    /// Zero without a fleet: the host is its own authority. What is from a file nobody can confirm.
    fn unconfirmed_for(&self, have: &Have, now: Moment) -> Duration {
        let asked_about = self.fleet && have.entry.version > Version::FILE;
        if asked_about { have.confirmed_at.until(now) } else { Duration::ZERO }
    }

    fn may_revalidate(&mut self, may: bool, now: Moment) -> Action {
        let Some(have) = &self.have else { return self.board(now) };
        if may {
            return Action::Restore(Entry { unsynced: false, ..have.entry.clone() });
        }
        let old = self.unconfirmed_for(have, now) >= self.plan.max_staleness * 2;
        self.degraded = old && self.failing;
        if !old || self.failing {
            return self.serve(Tier::Host, now);
        }
        // Too old to be served unasked, and somebody is asking.
        let give_up = now.plus(CONFIRMATION).min(self.plan.wait_until);
        self.phase = Phase::Confirmation { give_up };
        Action::Sleep(Duration::from_millis(2))
    }

    fn restored(&mut self, reply: Result<Reply<Committed>, StoreError>, now: Moment) -> Action {
        let reply = reply.map(|reply| self.heard(reply, now));
        let Some(have) = &mut self.have else { return self.board(now) };
        match reply {
            Ok(Committed::Accepted) => {
                have.confirmed_at = now;
                let unsynced = std::mem::take(&mut have.entry.unsynced);
                let entry = have.entry.clone();
                self.phase = Phase::Finishing(Ok(self.served(entry.clone(), Tier::Host, now)));
                if unsynced { Action::Adopt(entry) } else { Action::Confirm(entry.version) }
            }
            Ok(Committed::Superseded(newer)) if newer.servable(self.kind, now) => {
                self.adopt(newer, now)
            }
            Ok(Committed::Superseded(_) | Committed::Fenced) => {
                self.have = None;
                self.board(now)
            }
            Err(_) => {
                self.degraded = true;
                self.phase = Phase::Unconfirmed;
                Action::Look
            }
        }
    }

    fn board(&mut self, now: Moment) -> Action {
        Action::Board { until: now.plus(self.plan.lease) }
    }

    fn boarded(&mut self, boarded: Result<Boarding, StoreError>, now: Moment) -> Action {
        match boarded {
            Ok(Boarding::Mine { right, orphan }) => {
                self.right = Some(right);
                self.orphan = orphan;
                self.phase = Phase::Rechecking;
                Action::Look
            }
            Ok(Boarding::Taken { .. }) if self.have.is_some() => self.while_taken(now),
            Ok(Boarding::Taken { bell, since }) => {
                let budget = self.began.until(self.plan.wait_until);
                // A flight older than anybody may wait will not end for us: a hanging token
                // endpoint must not eat the pool. Seen twice, because an owner that has just
                // boarded may not have noted its time yet.
                let hangs = since.until(now) >= budget && matches!(self.phase, Phase::Waiting);
                if now >= self.plan.wait_until || hangs {
                    return Action::Done(Err(FlightError::WaitTimeout));
                }
                self.phase = Phase::Waiting;
                Action::Wait { bell, at_most: NAP.min(now.until(self.plan.wait_until)) }
            }
            // No room in the table: the fleet's lease still keeps others out.
            Err(_) if self.fleet => self.claim(),
            Err(error) => self.fail(FlightError::StoreUnavailable(error.to_string()), now),
        }
    }

    /// Usable, and somebody of this host renews it. Nobody says how long that takes, so an entry that
    /// nobody has confirmed lately is asked about, once.
    fn while_taken(&mut self, now: Moment) -> Action {
        let half = self.plan.max_staleness / 2;
        let old = self.have.as_ref().is_some_and(|have| self.unconfirmed_for(have, now) >= half);
        if old && !std::mem::replace(&mut self.asked_about, true) {
            return Action::MayRevalidate { until: now.plus(half) };
        }
        self.degraded |= old;
        self.serve(Tier::Host, now)
    }

    fn claim(&mut self) -> Action {
        self.phase = Phase::Claiming;
        let have = self.have.as_ref().map_or(Version::NONE, |have| have.entry.version);
        // A store may have lost the floor, and what this host has heard of, or never have known it.
        let least = self.floor.max(self.newest);
        let claim = Claim {
            secret: *self.secret.get_or_insert_with(Secret::random),
            takeover: self.orphan,
            newer_than: have.max(self.ran_out).max(Version(least.0.saturating_sub(1))),
            highest_known: self.highest,
            rejected: self.rejected,
            lease: self.plan.lease,
        };
        Action::Claim(self.authority, claim)
    }

    fn claimed(&mut self, reply: Result<Reply<Claimed>, StoreError>, now: Moment) -> Action {
        let reply = match reply {
            Ok(reply) => reply,
            // It took a while to hear nothing, and others of this host may have heard of a newer entry or a floor.
            Err(error) if self.have.is_some() => {
                self.phase = Phase::Unanswered(error);
                return Action::Look;
            }
            Err(error) => return self.unanswered(&error, now),
        };
        match self.heard(reply, now) {
            Claimed::Value(entry) if !entry.servable(self.kind, now) => {
                // It ran out on its way here.
                self.ran_out = entry.version;
                self.claim()
            }
            Claimed::Value(entry) => self.adopt(entry, now),
            Claimed::Lease(lease) => {
                self.lease = Some(lease);
                if !self.plan.may_mint {
                    self.phase = Phase::Finishing(Err(FlightError::Nothing));
                    return Action::Abandon(self.authority, lease, None);
                }
                self.phase = Phase::Minting;
                Action::Mint(self.authority, lease, self.reason())
            }
            Claimed::Busy(left) if self.have.is_some() => self.postpone(left, now),
            Claimed::Busy(left) => {
                let later = ASK_SOONEST * (1 << self.told_busy.min(3));
                self.told_busy += 1;
                let again = now.plus(jittered(later.min(ASK_LATEST)));
                self.phase = Phase::Elsewhere { asked: now, again };
                // A lease runs out at the store's own millisecond.
                Action::SetBusy {
                    until: now.plus(left).plus_millis(1),
                    followed: self.is_followed(now),
                }
            }
            Claimed::BackOff { wait, reason } => {
                self.backing_off = Some(wait);
                if self.have.is_some() {
                    return self.postpone(wait, now);
                }
                let error = FlightError::MintFailed { reason: reason.clone(), retry_in: wait };
                // The host knows its own; and what is said to a rejection concerns who has rejected.
                if self.authority == Authority::Host || self.rejected.is_some() {
                    return self.fail(error, now);
                }
                self.phase = Phase::Finishing(Err(error));
                let until = now.plus(wait);
                let paused_until = until.min(now.plus(PAUSE_BELIEVED));
                Action::HearBackoff { until, reason, paused_until }
            }
        }
    }

    /// There is nothing here yet of what another host mints. Whoever follows the log wakes us when there is, or
    /// when the lease is free again; where nobody does we ask ourselves.
    fn elsewhere(
        &mut self,
        asked: Moment,
        again: Moment,
        waiting: Option<Waiting>,
        now: Moment,
    ) -> Action {
        if now >= self.plan.wait_until {
            return Action::Done(Err(FlightError::WaitTimeout));
        }
        let Some(waiting) = waiting else {
            // No room in the table, so nobody can wake us.
            let span = NAP.min(now.until(again.min(self.plan.wait_until)));
            return if span.is_zero() { self.claim() } else { Action::Sleep(span) };
        };
        if std::mem::replace(&mut self.bell, waiting.bell) != waiting.bell {
            // Rung while there is nothing: the lease was given back, and every host has heard of it.
            let again = now.plus(COME_BACK_WITHIN.mul_f64(random::share()));
            self.phase = Phase::Claiming;
            return Action::Sleep(now.until(again.min(self.plan.wait_until)));
        }
        // A line of what was committed since comes after what the heart beat for.
        let followed = self.is_followed(now) || waiting.heartbeat >= asked;
        if now >= waiting.busy_until || (!followed && now >= again) {
            return self.claim();
        }
        let next = if followed { waiting.busy_until } else { waiting.busy_until.min(again) };
        let at_most = LONG_NAP.min(now.until(next.min(self.plan.wait_until)));
        Action::Wait { bell: waiting.bell, at_most: at_most.max(Duration::from_millis(1)) }
    }

    fn is_followed(&self, now: Moment) -> bool {
        self.heartbeat.plus(self.plan.max_staleness / 2) >= now
    }

    /// Nobody can renew it before; the log says when somebody has. Every reader would ask until then.
    fn postpone(&mut self, span: Duration, now: Moment) -> Action {
        self.phase = Phase::Postponing;
        Action::Postpone { until: now.plus(span.min(self.plan.max_staleness / 2)) }
    }

    fn unanswered(&mut self, error: &StoreError, now: Moment) -> Action {
        self.phase = Phase::Claiming;
        let from_fleet = self.authority == Authority::Fleet;
        // A sheet that is two intervals old is served, and still worth a fetch per host.
        let stale = |have: &Have| have.entry.freshness(self.kind, now) == Freshness::Stale;
        let usable = self.have.as_ref().is_some_and(|have| !stale(have));
        if from_fleet && !usable && self.may_be_slow(error, now) {
            if now >= self.plan.wait_until {
                return self.fail(FlightError::WaitTimeout, now);
            }
            return Action::Sleep(jittered(LISTEN).min(now.until(self.plan.wait_until)));
        }
        self.degraded |= from_fleet;
        if usable {
            return self.serve(Tier::Host, now);
        }
        // Without a callable the host's own store could only say that it has nothing.
        if from_fleet && self.plan.store_down == StoreDown::Host && self.plan.may_mint {
            self.authority = Authority::Host;
            return self.claim();
        }
        self.fail(FlightError::StoreUnavailable(error.to_string()), now)
    }

    /// Whether it is too early to do without the store. One that is merely slow has a lease for each key, and
    /// a host that mints for itself mints what others mint: so a second question decides, a second later.
    fn may_be_slow(&mut self, error: &StoreError, now: Moment) -> bool {
        if !error.is_silence() {
            return false;
        }
        let since = *self.silent_since.get_or_insert(now);
        let asked_again = !matches!(error, StoreError::NotAsked(_));
        !(asked_again && since.until(now) >= Breaker::PATIENCE)
    }

    fn reason(&self) -> MintReason {
        if self.degraded {
            MintReason::Degraded
        } else if self.rejected.is_some() {
            MintReason::Rejected
        } else if self.have.is_some() {
            MintReason::Refresh
        } else if self.dropped {
            MintReason::Rejected
        } else if self.newest > Version::NONE {
            MintReason::Expired
        } else if self.evicted {
            MintReason::Evicted
        } else {
            MintReason::Cold
        }
    }

    fn outcome(&mut self, outcome: Outcome, now: Moment) -> Action {
        let Some(lease) = self.lease else { return Action::Done(Err(FlightError::Nothing)) };
        let (failure, error) = match outcome {
            Outcome::Minted { value, timing, detail } => {
                let unsynced = self.fleet && self.authority == Authority::Host;
                let (version, value, detail) = (lease.version, value.into(), detail.into());
                let entry = Entry { version, timing, unsynced, value, detail };
                if entry.servable(self.kind, now) {
                    return self.commit(lease, entry);
                }
                self.failed(RAN_OUT.into(), Duration::ZERO)
            }
            Outcome::Failed { reason, least } => self.failed(reason, least),
            Outcome::TooLarge { bytes, limit } => {
                let error = FlightError::TooLarge { bytes, limit };
                (self.failed(error.to_string(), Duration::ZERO).0, error)
            }
            Outcome::Abandoned => (None, FlightError::Nothing),
        };
        self.abandon(lease, failure, error)
    }

    fn failed(&self, reason: String, least: Duration) -> (Option<Failure>, FlightError) {
        let base = self.plan.failure_backoff;
        let error = FlightError::MintFailed { reason: reason.clone(), retry_in: base.max(least) };
        (Some(Failure { base, least, reason }), error)
    }

    fn abandon(&mut self, lease: Lease, failure: Option<Failure>, error: FlightError) -> Action {
        // What we had may have run out or been invalidated while the callable ran: look again.
        self.have = None;
        self.phase = Phase::FallingBack(error);
        Action::Abandon(self.authority, lease, failure)
    }

    /// The store knows how many have failed before, and so how long the pause is.
    fn abandoned(&mut self, pause: Duration, now: Moment) -> Action {
        let Phase::FallingBack(error) = &mut self.phase else { return self.finished(now) };
        if let FlightError::MintFailed { retry_in, .. } = error {
            *retry_in = (*retry_in).max(pause);
        }
        Action::Look
    }

    fn commit(&mut self, lease: Lease, entry: Entry) -> Action {
        self.phase = Phase::Committing;
        self.minted = Some(entry.clone());
        Action::Commit(self.authority, lease, entry)
    }

    fn committed(&mut self, reply: Result<Reply<Committed>, StoreError>, now: Moment) -> Action {
        let (Some(lease), Some(entry)) = (self.lease, self.minted.take()) else {
            return Action::Done(Err(FlightError::Nothing));
        };
        match reply.map(|reply| self.heard(reply, now)) {
            Ok(Committed::Accepted) if self.authority == Authority::Fleet => {
                self.finish_with(entry, Tier::Minted, now)
            }
            Ok(Committed::Accepted) => Action::Done(Ok(self.served(entry, Tier::Minted, now))),
            Ok(Committed::Superseded(winner)) if winner.servable(self.kind, now) => {
                self.adopt(winner, now)
            }
            Ok(Committed::Superseded(_) | Committed::Fenced) => self.minted_in_vain(now),
            Err(_) if !self.recommitted => {
                // The reply may have been lost; the same commit twice is accepted.
                self.recommitted = true;
                self.commit(lease, entry)
            }
            Err(_) if self.authority == Authority::Fleet => {
                self.degraded = true;
                self.finish_with(Entry { unsynced: true, ..entry }, Tier::Minted, now)
            }
            Err(error) => {
                let reason = error.to_string();
                let (failure, _) = self.failed(reason.clone(), Duration::ZERO);
                self.abandon(lease, failure, FlightError::StoreUnavailable(reason))
            }
        }
    }

    /// What we minted was invalidated, or overtaken, before it could be published.
    fn minted_in_vain(&mut self, now: Moment) -> Action {
        self.have = None;
        if self.fenced {
            let reason = "it was invalidated twice while it was being minted".into();
            let error = FlightError::MintFailed { reason, retry_in: Duration::ZERO };
            return match self.lease {
                Some(lease) => self.abandon(lease, None, error),
                None => self.fail(error, now),
            };
        }
        self.fenced = true;
        self.rejected = None;
        // Who fenced a host that was alone may have been the fleet, which then can be reached again.
        if self.fleet {
            self.authority = Authority::Fleet;
        }
        // A claim with the old secret would find the old lease, and one with a new secret would
        // wait for it to run out: pass it on.
        self.orphan = self.secret.take();
        self.claim()
    }

    fn adopt(&mut self, entry: Entry, now: Moment) -> Action {
        if self.authority == Authority::Host {
            // It is there, and nobody else has vouched for it.
            return Action::Done(Ok(self.served(entry, Tier::Host, now)));
        }
        self.finish_with(as_kept_here(entry, self.kind), Tier::Store, now)
    }

    fn finish_with(&mut self, entry: Entry, tier: Tier, now: Moment) -> Action {
        self.have = Some(Have { entry: entry.clone(), confirmed_at: now });
        self.phase = Phase::Finishing(Ok(self.served(entry.clone(), tier, now)));
        Action::Adopt(entry)
    }

    /// What we have, else the error.
    fn fail(&mut self, error: FlightError, now: Moment) -> Action {
        if self.have.is_some() { self.serve(Tier::Host, now) } else { Action::Done(Err(error)) }
    }

    fn serve(&mut self, tier: Tier, now: Moment) -> Action {
        match self.have.take() {
            Some(have) => {
                let mut served = self.served(have.entry, tier, now);
                if self.fleet && !self.degraded {
                    let confirmed = have.confirmed_at.plus(self.plan.max_staleness / 2);
                    let asked = now.plus(WHILE_RENEWED);
                    served.trusted_until = served.trusted_until.min(confirmed.max(asked));
                }
                Action::Done(Ok(served))
            }
            None => Action::Done(Err(FlightError::Nothing)),
        }
    }

    fn served(&self, entry: Entry, tier: Tier, now: Moment) -> Served {
        let freshest = match entry.freshness(self.kind, now) {
            Freshness::Fresh => entry.timing.refresh_at,
            _ => now.plus(WHILE_RENEWED),
        };
        let asked = if self.degraded {
            now.plus(WHILE_DEGRADED)
        } else if self.fleet {
            now.plus(self.plan.max_staleness / 2)
        } else {
            freshest
        };
        let last = crate::entry::servable_until(&entry.timing, self.kind);
        let trusted_until = freshest.min(asked).min(last);
        let (degraded, backing_off) = (self.degraded, self.backing_off);
        Served { entry, tier, degraded, trusted_until, backing_off }
    }

    fn finished(&mut self, now: Moment) -> Action {
        match std::mem::replace(&mut self.phase, Phase::First) {
            Phase::Finishing(Ok(served)) if !served.entry.servable(self.kind, now) => {
                let reason = "it ran out while it was being shared".into();
                let error = FlightError::MintFailed { reason, retry_in: Duration::ZERO };
                Action::Done(Err(error))
            }
            Phase::Finishing(result) => Action::Done(result),
            _ => Action::Done(Err(FlightError::Nothing)),
        }
    }
}
