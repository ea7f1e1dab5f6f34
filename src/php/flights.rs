//! One lookup from begin to end: ask the engine, run the callable when it hands out a ticket, and
//! tell the caller. Tokens and rate sheets differ only in how an answer is read.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use log::{error, warn};

use super::callable::{self, Callable, Called};
use super::exceptions::{self, Stop};
use super::runtime::{Event, Runtime};
use super::tickets::{self, Holder};
use super::{fibers, rates, zend};
use crate::clock::Moment;
use crate::entry::{Key, Kind, Timing};
use crate::error::{Error, redact};
use crate::flight::{FlightError, Outcome, Plan, Served, Step, Ticket, Tier};
use crate::fx::refresher::{self, Ended, Refresher};
use crate::metrics::tally::{Hit, Miss, Refresh};
use crate::process;
use crate::token::Answer;

/// An answer that was understood.
pub struct Minted {
    pub value: Vec<u8>,
    pub timing: Timing,
    pub detail: Vec<u8>,
}

/// Turns the callable's answer into a value; the moment is when the mint began.
pub type Read<'a> = &'a dyn Fn(Answer, Moment) -> Result<Minted, String>;

/// What a missing value is made with.
#[derive(Clone, Copy)]
pub enum Maker<'a> {
    /// The caller's, and how its answer is read.
    Callable(&'a Callable, Read<'a>),
    /// The configured sources of rates. What is merely due is renewed in the background.
    Sources(&'a Refresher),
    Nothing,
}

pub struct Flight<'a> {
    runtime: &'a Arc<Runtime>,
    key: &'a Key,
    maker: Maker<'a>,
    /// How the making ended, where this flight came to it.
    ended: Cell<Option<Ended>>,
}

/// An invalidation may fence one mint, so that it has to be claimed again; a second one in the
/// same call is somebody else's to deal with.
const MAX_MINTS: usize = 2;

impl<'a> Flight<'a> {
    pub fn new(runtime: &'a Arc<Runtime>, key: &'a Key, maker: Maker<'a>) -> Self {
        Self { runtime, key, maker, ended: Cell::new(None) }
    }

    pub fn maker(&self) -> Maker<'a> {
        self.maker
    }

    pub fn ended(&self) -> Option<Ended> {
        self.ended.take()
    }

    /// The value, counted as a hit when this host had it.
    pub fn run(&self, plan: Plan) -> Result<Served, Stop> {
        let served = self.fly(plan)?;
        let event = if served.tier == Tier::Host { Event::Hit } else { Event::Miss };
        self.count(event);
        if self.key.kind() == Kind::Token {
            let (tally, name) = (self.runtime.tally(), self.key.name());
            match served.tier {
                Tier::Host => tally.hit(name, Hit::Table, 1),
                Tier::Store => tally.miss(name, Miss::Redis),
                Tier::Minted => tally.miss(name, Miss::Mint),
            }
        }
        if served.degraded {
            self.count(Event::Degraded);
        }
        Ok(served)
    }

    fn count(&self, event: Event) {
        self.runtime.count(event, self.key.kind(), 1);
    }

    fn fly(&self, mut plan: Plan) -> Result<Served, Stop> {
        plan.may_mint = !matches!(self.maker, Maker::Nothing);
        if let Some(served) = self.after_the_other_fiber(&plan)? {
            return Ok(served);
        }
        let outer = tickets::innermost();
        if let Some((_, until)) = &outer {
            // Half of what is left, so that two mints that need each other end quickly.
            let now = self.runtime.now();
            plan.wait_until = plan.wait_until.min(now.plus(now.until(*until) / 2));
        }
        let mut step = self.begin(&plan)?;
        for _ in 0..MAX_MINTS {
            match step {
                Step::Served(served) => return Ok(served),
                Step::Failed(error) => return Err(self.failed(error, outer).into()),
                Step::Mint(ticket) => step = self.mint(*ticket)?,
            }
        }
        match step {
            Step::Served(served) => Ok(served),
            Step::Failed(error) => Err(self.failed(error, outer).into()),
            Step::Mint(ticket) => {
                self.runtime.engine.finish(*ticket, Outcome::Abandoned);
                Err(self.failed(FlightError::WaitTimeout, outer).into())
            }
        }
    }

    /// A signal handler of the application runs in a wait as it would between two lines of PHP. Nothing is held
    /// meanwhile: it may ask for the same name.
    fn begin(&self, plan: &Plan) -> Result<Step, Stop> {
        loop {
            let begun = self.runtime.engine.begin_unless(self.key, plan, &zend::is_interrupted);
            if let Some(step) = begun {
                return Ok(step);
            }
            let process = process::generation();
            exceptions::see_to_interrupt()?;
            if process::generation() != process {
                // The engine is the parent's.
                return Err(Stop::Throw(Error::WaitTimeout(format!(
                    "a signal handler forked while {} was waited for: in the child, ask again",
                    self.key.shown()
                ))));
            }
        }
    }

    /// Where this thread holds the key's ticket itself: what is usable is served, and else another fiber is
    /// waited for. `None`: nobody holds it any more.
    fn after_the_other_fiber(&self, plan: &Plan) -> Result<Option<Served>, Stop> {
        if tickets::holder(self.key).is_none() {
            return Ok(None);
        }
        let now = Plan { may_mint: false, wait_until: self.runtime.now(), ..*plan };
        if let Step::Served(served) = self.runtime.engine.begin(self.key, &now) {
            return Ok(Some(served));
        }
        let name = String::from_utf8_lossy(self.key.name());
        while let Some(holder) = tickets::holder(self.key) {
            let sentence = match holder {
                Holder::Caller => format!("recursion: the callable of '{name}' asks for '{name}'"),
                Holder::OtherFiber if self.runtime.now() >= plan.wait_until => {
                    self.count(Event::WaitTimedOut);
                    format!(
                        "the callable of '{name}' is suspended in another fiber of this thread, and has not \
                         ended within the time to wait for it"
                    )
                }
                Holder::OtherFiber if fibers::step_aside()? => continue,
                Holder::OtherFiber => format!(
                    "the callable of '{name}' is suspended in another fiber of this thread; resume it \
                     before asking for '{name}' again"
                ),
            };
            return Err(Stop::Throw(Error::WaitTimeout(sentence)));
        }
        Ok(None)
    }

    fn failed(&self, error: FlightError, outer: Option<(Vec<u8>, Moment)>) -> Error {
        if error == FlightError::WaitTimeout {
            self.count(Event::WaitTimedOut);
            warn!("nobody has brought {} within the time to wait for it", self.key.shown());
        }
        let error = match error {
            FlightError::MintFailed { reason, retry_in } if self.asks_sources() => {
                let again = retry_in.as_secs().max(1);
                let next = format!("the sources are asked again in {again} s");
                return self.unavailable(&format!("{}; {next}", redact(&reason)));
            }
            FlightError::Nothing if self.has_expired() => {
                return self.unavailable(
                    "nothing to renew it with: set sharedstate.fx.sources, or pass a callable as \
                     $fetch (option 'fetch')",
                );
            }
            error => error,
        };
        match (Error::from_flight(error, self.key), outer) {
            // Both names first: the sentence may be cut when it becomes the reason of a failed mint.
            (Error::WaitTimeout(sentence), Some((outer, _))) => Error::WaitTimeout(format!(
                "inside the callable of '{}': {sentence}",
                String::from_utf8_lossy(&outer)
            )),
            (error, _) => error,
        }
    }

    fn asks_sources(&self) -> bool {
        matches!(self.maker, Maker::Sources(_))
    }

    /// No source has brought a sheet, and none that may be served is left.
    fn unavailable(&self, why: &str) -> Error {
        let entry = self.runtime.look(self.key).and_then(|known| known.entry);
        let last = entry.map_or("there has been none yet".into(), |entry| {
            let age = entry.timing.minted_at.until(self.runtime.now()).as_secs();
            format!("the last good one was confirmed {age} s ago")
        });
        Error::RateUnavailable(format!("there is no rate sheet that may be served, {last}: {why}"))
    }

    fn has_sheet(&self) -> bool {
        let entry = self.runtime.look(self.key).and_then(|known| known.entry);
        entry.is_some_and(|entry| entry.servable(Kind::Sheet, self.runtime.now()))
    }

    fn has_expired(&self) -> bool {
        self.key.kind() == Kind::Sheet
            && self.runtime.look(self.key).is_some_and(|known| known.entry.is_some())
    }

    fn mint(&self, ticket: Ticket) -> Result<Step, Stop> {
        match self.maker {
            Maker::Callable(callable, read) => self.call(ticket, callable, read),
            Maker::Sources(sources) => {
                let until = ticket.plan().wait_until;
                let (step, ended) = sources.refresh(ticket, until);
                self.ended.set(Some(ended));
                Ok(step)
            }
            Maker::Nothing => Ok(self.runtime.engine.finish(ticket, Outcome::Abandoned)),
        }
    }

    fn call(&self, ticket: Ticket, callable: &Callable, read: Read<'_>) -> Result<Step, Stop> {
        let (from, version) = (ticket.minted_from, ticket.version());
        let id = tickets::open(self.runtime, ticket);
        if self.key.kind() == Kind::Sheet {
            self.runtime.tally().called(rates::SOURCE);
        }
        let called = callable::call(callable, self.key, version);
        let Some(ticket) = tickets::take(id) else {
            return Err(self.forked(&called));
        };
        let finish = |outcome| {
            match &outcome {
                Outcome::Minted { .. } => {
                    self.count(Event::Mint);
                    self.ended.set(Some(Ended::Refreshed));
                }
                Outcome::Failed { reason, .. } => {
                    self.count(Event::MintFailed);
                    if self.key.kind() == Kind::Sheet {
                        self.runtime.tally().refreshed(rates::SOURCE, Refresh::Failed);
                    }
                    self.ended.set(Some(Ended::Failed(reason.clone())));
                }
                Outcome::TooLarge { .. } | Outcome::Abandoned => {}
            }
            self.runtime.engine.finish(ticket, outcome)
        };
        match called {
            Called::Answered(answer) => match read(answer, from) {
                Ok(Minted { value, timing, detail }) => {
                    Ok(finish(Outcome::Minted { value, timing, detail }))
                }
                Err(sentence) => self.unusable(sentence, finish),
            },
            Called::Unusable(sentence) => self.unusable(sentence, finish),
            Called::Uncallable => {
                let step = finish(Outcome::Abandoned);
                self.told("the callable could not be called", step)
            }
            Called::Failed(reason, wait) => match finish(self.failure(reason.clone(), wait)) {
                Step::Served(served) => {
                    // The old token is still good: the failure is the operator's business.
                    zend::clear_exception();
                    warn!("{} failed, the old value is served: {reason}", self.what());
                    Ok(Step::Served(served))
                }
                step => {
                    warn!("{} failed, and nothing is served: {reason}", self.what());
                    Err(Stop::Throw(Error::MintFailed {
                        what: self.what(),
                        reason,
                        retry_in: self.give_up(step),
                    }))
                }
            },
            // A bug, or an answer that it was not written for: a page fails with it only where it has nothing else.
            Called::Broken(reason) => match finish(self.failure(reason.clone(), Duration::ZERO)) {
                Step::Served(served) => {
                    zend::clear_exception();
                    error!("{} failed, the old value is served: {reason}", self.what());
                    Ok(Step::Served(served))
                }
                step => {
                    self.give_up(step);
                    Err(Stop::Pending)
                }
            },
            Called::Interrupted => {
                finish(Outcome::Abandoned);
                Err(Stop::Pending)
            }
            Called::Bailout => {
                finish(Outcome::Abandoned);
                Err(Stop::Bailout)
            }
        }
    }

    /// `wait`: nobody should ask again before.
    fn failure(&self, reason: String, wait: Duration) -> Outcome {
        let least = match self.key.kind() {
            Kind::Sheet if self.has_sheet() => {
                refresher::pause(self.runtime.config.fx_policy.interval)
            }
            _ => Duration::ZERO,
        };
        Outcome::Failed { reason, least: least.max(wait) }
    }

    /// The answer cannot be used: a failed mint for the fleet, the fix for whoever wrote it.
    fn unusable(
        &self,
        sentence: String,
        finish: impl FnOnce(Outcome) -> Step,
    ) -> Result<Step, Stop> {
        let step = finish(self.failure(redact(&sentence), Duration::ZERO));
        self.told(&sentence, step)
    }

    /// What the application did wrong goes to the log while the old value is still good.
    fn told(&self, sentence: &str, step: Step) -> Result<Step, Stop> {
        let sentence = format!("{}: {sentence}", self.what());
        match step {
            Step::Served(served) => {
                warn!("{sentence}; the old value is served");
                Ok(Step::Served(served))
            }
            step => {
                self.give_up(step);
                warn!("{sentence}");
                Err(Stop::Throw(Error::InvalidValue(sentence)))
            }
        }
    }

    /// The pause a failure brought. A ticket cannot follow a failure, but if one ever did it must
    /// not be lost.
    fn give_up(&self, step: Step) -> Duration {
        match step {
            Step::Failed(FlightError::MintFailed { retry_in, .. }) => retry_in,
            Step::Mint(ticket) => {
                self.runtime.engine.finish(*ticket, Outcome::Abandoned);
                Duration::ZERO
            }
            _ => Duration::ZERO,
        }
    }

    /// The callable forked, and this is the child: the right to publish is the parent's.
    fn forked(&self, called: &Called) -> Stop {
        match called {
            Called::Failed(..) | Called::Broken(_) | Called::Interrupted => Stop::Pending,
            Called::Bailout => Stop::Bailout,
            _ => Stop::Throw(Error::MintFailed {
                what: self.what(),
                reason: "the callable forked, and only the parent process may publish".into(),
                retry_in: Duration::ZERO,
            }),
        }
    }

    /// The act and its object, as [`Error::MintFailed`] wants it.
    fn what(&self) -> String {
        let name = String::from_utf8_lossy(self.key.name());
        match self.key.kind() {
            Kind::Token => format!("minting token \"{name}\""),
            Kind::Sheet | Kind::Quota => format!("fetching rate sheet \"{name}\""),
        }
    }
}
