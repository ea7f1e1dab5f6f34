//! Keeps one sheet young from configured sources. What it does depends on the age of the sheet
//! alone: not on traffic, workers, hosts, deployments or the phase of a clock.
//!
//! Every process of every host looks a few times a second whether the sheet is due; one gets the
//! host's flight, one host the fleet's lease, and only that one asks a source. Readers are served
//! meanwhile, and wait only when there is nothing at all.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::value::RawValue;

use super::guard::{OLDER, Verdict};
use super::holding::Holding;
use super::rules::{Read, Rules};
use super::shelf::{Shelf, Shelved};
use super::{Fetch, Fetched, Sheet, Source, Validators, quota};
use crate::clock::Moment;
use crate::entry::{Detail, Entry, Freshness, Key, Kind, MintedBy, Timing, Version};
use crate::flight::{Engine, FlightError, Outcome, Plan, Renew, Step, Ticket};
use crate::keeper::Chore;
use crate::lock::Mutex;
use crate::metrics::Counter;
use crate::metrics::tally::Refresh;
use crate::store::{Asked, Host, Known};

/// How a refresh ended, for whoever asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A source's sheet is in force, new or confirmed.
    Refreshed,
    /// What the last source brought is suspicious; the old sheet is in force.
    Quarantined,
    /// No source brought anything; why, a sentence for each.
    Failed(String),
}

pub struct Refresher {
    pub key: Key,
    pub rules: Rules,
    sources: Vec<Source>,
    fetch: Box<dyn Fetch>,
    /// Calls a month to each source that is not free.
    quota: Option<u32>,
    plan: Plan,
    host: Arc<dyn Host>,
    /// The engine's thread calls us, so it owns us.
    engine: Weak<Engine>,
    shelf: Option<Shelf>,
    by: MintedBy,
    /// Which version is on the shelf, as far as this process knows.
    shelved: Mutex<Version>,
    /// How much earlier than the others this process goes, as a share of [`EARLY`].
    early: f64,
    /// This process asks nobody before.
    not_before: Mutex<Moment>,
}

/// The share of an interval within which processes begin, each at a moment of its own: early only.
const EARLY: f64 = 0.02;
/// The most of it, for long intervals.
const EARLIEST: Duration = Duration::from_secs(60);
/// A failed refresh is tried again after this share of the interval, while there is a sheet to
/// serve: an outage of the source must not cost it, or its quota, many times the usual calls.
const AGAIN: u32 = 4;
const LATEST_AGAIN: Duration = Duration::from_secs(15 * 60);
/// A process that ends sooner asks nobody in the background: a script of a moment would end in the
/// middle of its call, and the next one would make it again. Who needs the first sheet fetches it
/// himself, and is told what came of that.
const YOUNG: Duration = Duration::from_secs(5);
/// The least time between two attempts of a process.
const A_MOMENT: Duration = Duration::from_secs(1);
/// The longest that one source is waited for.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// What it takes to make one.
pub struct Parts {
    pub key: Key,
    pub rules: Rules,
    pub sources: Vec<Source>,
    pub fetch: Box<dyn Fetch>,
    pub quota: Option<u32>,
    pub plan: Plan,
    pub host: Arc<dyn Host>,
    pub engine: Weak<Engine>,
    pub shelf: Option<Shelf>,
    pub by: MintedBy,
}

impl Refresher {
    pub fn new(parts: Parts) -> Self {
        let Parts { key, rules, sources, fetch, quota, plan, host, engine, shelf, by } = parts;
        let early = crate::random::share();
        let shelved = Mutex::new(Version::NONE);
        let not_before = Mutex::new(host.now().plus(YOUNG.min(rules.policy.interval / 10)));
        Self {
            key,
            rules,
            sources,
            fetch,
            quota,
            plan,
            host,
            engine,
            shelf,
            by,
            shelved,
            early,
            not_before,
        }
    }

    /// Whether there is anything to do in the background.
    pub fn is_wanted(&self) -> bool {
        self.has_sources() || self.shelf.is_some()
    }

    pub fn has_sources(&self) -> bool {
        !self.sources.is_empty()
    }

    /// Ask the sources in turn until one brings a sheet that may be served, by `until`. For whoever
    /// holds the ticket, which is finished here.
    pub fn refresh(&self, ticket: Ticket, until: Moment) -> (Step, Ended) {
        let Some(engine) = self.engine.upgrade() else {
            let why = "this process is shutting down";
            return (Step::Failed(FlightError::Nothing), Ended::Failed(why.into()));
        };
        let mut attempt = Attempt { held: self.held(), ..Attempt::default() };
        for (asked, source) in self.sources.iter().enumerate() {
            let from = self.host.now();
            // One that hangs leaves time for those after it.
            let left = u32::try_from(self.sources.len() - asked).unwrap_or(1);
            let within = (from.until(until) / left).min(FETCH_TIMEOUT);
            let wall = self.host.wall().unix_millis();
            let answer = self.ask(&engine, source, attempt.held.as_ref(), wall, within);
            let suspicious = attempt.suspicious.is_some();
            let taken = self.take(source, answer, (from, wall), &mut attempt);
            self.host.tally().refreshed(
                source.name(),
                match &taken {
                    Some(_) => Refresh::Taken,
                    None if attempt.suspicious.is_some() && !suspicious => Refresh::Quarantined,
                    None => Refresh::Failed,
                },
            );
            if let Some(outcome) = taken {
                self.host.count(Counter::FxFetches, 1);
                return (engine.finish(ticket, outcome), Ended::Refreshed);
            }
        }
        let (outcome, ended) = self.fruitless(attempt);
        (engine.finish(ticket, outcome), ended)
    }

    /// A sheet that is in force from now on; everything else is noted in the attempt.
    fn take(
        &self,
        source: &Source,
        answer: Result<(Sheet, Validators), Unanswered>,
        (from, wall): (Moment, i64),
        attempt: &mut Attempt,
    ) -> Option<Outcome> {
        let read = match answer {
            Ok((sheet, validators)) => {
                let held = attempt.held.as_ref();
                self.rules.read(held, sheet, validators, &attempt.not_before, from, wall)
            }
            Err(Unanswered { why, retry_after }) => {
                if let Some(span) = retry_after {
                    let seconds = i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
                    let until = wall.div_euclid(1000).saturating_add(seconds);
                    attempt.not_before.insert(source.name().to_owned(), until);
                }
                attempt.waits.push(retry_after.unwrap_or_default());
                Read::Refused(why)
            }
        };
        match read {
            Read::Kept { value, timing, verdict: Verdict::Accepted | Verdict::Confirmed } => {
                return Some(self.minted(source.name(), value, timing));
            }
            Read::Kept { value, timing, verdict } => {
                // Another source may confirm it at once.
                if let Verdict::Quarantined(why) = verdict {
                    log::warn!("{}: {why}", source.name());
                }
                attempt.suspicious = Some(source.name().to_owned());
                attempt.held =
                    attempt.held.take().map(|it| Entry { value: value.into(), timing, ..it });
            }
            Read::Older => {
                attempt.older = true;
                attempt.reasons.push(format!("{}: {OLDER}", source.name()));
            }
            Read::Refused(why) => attempt.reasons.push(format!("{}: {why}", source.name())),
        }
        None
    }

    /// No source has brought anything that may be served.
    fn fruitless(&self, attempt: Attempt) -> (Outcome, Ended) {
        let Attempt { held, suspicious, older, reasons, waits, not_before } = attempt;
        let reason = reasons.join("; ");
        if suspicious.is_none() {
            log::warn!("no source has brought a rate sheet: {reason}");
        }
        let Some(held) = held else {
            self.host.count(Counter::FxFailures, 1);
            // There is no sheet to note it with, so whoever asked to be left alone decides for all.
            let least = waits.into_iter().max().unwrap_or_default();
            return (Outcome::Failed { reason: reason.clone(), least }, Ended::Failed(reason));
        };
        // The first that may be asked again says when.
        let wait = waits.into_iter().min().unwrap_or_default();
        if let Some(source) = suspicious {
            self.host.count(Counter::FxQuarantined, 1);
            let value = noting(&held.value, not_before);
            return (self.minted(&source, value, held.timing), Ended::Quarantined);
        }
        self.host.count(Counter::FxFailures, 1);
        let least = pause(self.rules.policy.interval).max(wait);
        if older {
            // Somebody answers, and stands in from when the held one is stale: then is the time to ask again.
            let next = self.host.now().plus(pause(self.rules.policy.interval));
            let timing = Timing { refresh_at: next.min(held.timing.usable_until), ..held.timing };
            let source = held.parsed_detail().source;
            let outcome = self.minted(&source, noting(&held.value, not_before), timing);
            return (outcome, Ended::Failed(reason));
        }
        let outcome = if not_before.is_empty() {
            Outcome::Failed { reason: reason.clone(), least }
        } else {
            // Who asked to be left alone is left alone by the whole fleet: that is kept with the sheet.
            // Half an interval more, for a cron job comes that much ahead.
            let next = self.host.now().plus(least + self.rules.policy.interval / 2);
            let timing = Timing { refresh_at: next, ..held.timing };
            let source = held.parsed_detail().source;
            self.minted(&source, noting(&held.value, not_before), timing)
        };
        (outcome, Ended::Failed(reason))
    }

    fn ask(
        &self,
        engine: &Engine,
        source: &Source,
        held: Option<&Entry>,
        wall: i64,
        within: Duration,
    ) -> Result<(Sheet, Validators), Unanswered> {
        // Asked "anything newer than this?" only about a sheet of its own.
        let holding = held.and_then(|entry| Holding::from_bytes(&entry.value).ok());
        if let Some(left) = holding.as_ref().and_then(|it| it.left_alone(source.name(), wall)) {
            let why = format!("it asked to be left alone for another {} s", left.as_secs());
            return Err(Unanswered { why, retry_after: Some(left) });
        }
        if within.is_zero() {
            return Err("there was no time left for it".into());
        }
        // Before the call is counted: one that cannot be made costs none.
        self.fetch
            .ready(source)
            .map_err(|error| Unanswered { why: error.reason, retry_after: error.retry_after })?;
        if let Some(limit) = self.quota.filter(|_| source.has_quota()) {
            quota::reserve(engine, &*self.host, source.name(), limit, &self.plan)?;
        }
        let holding = holding.filter(|holding| holding.sheet.source() == source.name());
        let known = holding.as_ref().map(|holding| holding.validators.clone()).unwrap_or_default();
        self.host.tally().called(source.name());
        match self.fetch.fetch(source, &known, within) {
            Ok(Fetched::Sheet { sheet, validators }) => Ok((sheet, validators)),
            Ok(Fetched::NotModified) => {
                let holding = holding.ok_or("it answered 304 to an unconditional question")?;
                Ok((holding.sheet, holding.validators))
            }
            Err(error) => Err(Unanswered { why: error.reason, retry_after: error.retry_after }),
        }
    }

    fn minted(&self, source: &str, value: Vec<u8>, timing: Timing) -> Outcome {
        let detail =
            Detail { source: source.into(), minted_by: self.by.clone(), ..Detail::default() };
        let detail = serde_json::to_vec(&detail).unwrap_or_default();
        Outcome::Minted { value, timing, detail }
    }

    /// What the next sheet is judged by, and committed again where that one is held back.
    fn held(&self) -> Option<Entry> {
        binding(self.host.look(&self.key)?.entry?, self.host.now())
    }

    /// With everything else down: the sheet of the shelf, put into the host's table as old as it is.
    /// `None` when there is none, or it is too old to be served.
    pub fn from_shelf(&self) -> Option<Entry> {
        let shelf = self.shelf.as_ref()?;
        let shelved = match shelf.read() {
            Ok(shelved) => shelved?,
            Err(why) => {
                log::warn!("sharedstate.fx.state_dir: {why}");
                return None;
            }
        };
        let holding = Holding::from_bytes(shelved.holding.get().as_bytes()).ok()?;
        let (now, wall) = (self.host.now(), self.host.wall().unix_millis());
        let confirmed_at = shelved.confirmed(now, wall);
        let timing = Timing::sheet(confirmed_at, confirmed_at, self.rules.policy);
        let timing = self.rules.within_max_age(timing, holding.sheet.as_of(), now, wall);
        // Nobody knows what has happened since: due, and stale.
        let timing = Timing { refresh_at: confirmed_at, usable_until: confirmed_at, ..timing };
        let entry = Entry {
            version: Version::FILE,
            timing,
            unsynced: false,
            value: shelved.holding.get().as_bytes().to_vec().into(),
            detail: Vec::new().into(),
        };
        if !entry.servable(Kind::Sheet, now) {
            return None;
        }
        let asked = Asked { at: now, reservation: self.host.reserve(&self.key) };
        if let Err(error) = self.host.adopt(&self.key, &entry, asked) {
            log::debug!("not kept in the host table: {error}");
        }
        Some(entry)
    }

    /// Put what is in force on the shelf, once per version and host.
    fn shelve(&self) {
        let Some(shelf) = &self.shelf else { return };
        let Some(entry) = self.held() else { return };
        let mut last = self.shelved.lock();
        if *last >= entry.version {
            return;
        }
        *last = entry.version;
        // Another process of the host may have been first.
        let version = shelf.read().ok().flatten().map_or(0, |shelved| shelved.version);
        if version >= entry.version.0 {
            return;
        }
        let (now, wall) = (self.host.now(), self.host.wall().unix_millis());
        let confirmed_at = wall.saturating_add(now.millis_until(entry.timing.minted_at));
        let confirmed_at = confirmed_at.div_euclid(1000);
        let holding = String::from_utf8(entry.value.to_vec()).ok();
        let Some(holding) = holding.and_then(|text| RawValue::from_string(text).ok()) else {
            return;
        };
        let shelved = Shelved { version: entry.version.0, confirmed_at, holding };
        if let Err(error) = shelf.write(&shelved) {
            log::warn!("{} cannot be written: {error}", shelf.path().display());
        }
    }

    fn wants(&self, known: Option<&Known>) -> bool {
        let now = self.host.now();
        let ahead = now.plus(self.span().mul_f64(self.early));
        let fresh = |entry: &Entry| entry.freshness(Kind::Sheet, ahead) == Freshness::Fresh;
        now >= *self.not_before.lock()
            && !known.and_then(|known| known.entry.as_ref()).is_some_and(fresh)
    }

    /// Within which all processes begin, before the sheet is due.
    fn span(&self) -> Duration {
        self.rules.policy.interval.mul_f64(EARLY).min(EARLIEST)
    }
}

/// The stored sheet, with the sources that asked to be left alone.
fn noting(value: &[u8], not_before: BTreeMap<String, i64>) -> Vec<u8> {
    let Ok(mut holding) = Holding::from_bytes(value) else { return value.to_vec() };
    holding.not_before.extend(not_before);
    holding.to_bytes()
}

/// Nothing that has run out binds a newer sheet; nor does what is from a file, for that goes to no store.
pub fn binding(entry: Entry, now: Moment) -> Option<Entry> {
    (entry.servable(Kind::Sheet, now) && entry.version > Version::FILE).then_some(entry)
}

/// How long nobody asks again after a failure, while there is a sheet to serve.
pub fn pause(interval: Duration) -> Duration {
    (interval / AGAIN).min(LATEST_AGAIN)
}

/// What has come of asking so far.
#[derive(Default)]
struct Attempt {
    held: Option<Entry>,
    /// The source of a sheet that was held back, and is with what is held by now.
    suspicious: Option<String>,
    /// Whether somebody has brought one that is older than what is held.
    older: bool,
    reasons: Vec<String>,
    /// For how long each source that failed wants to be left alone.
    waits: Vec<Duration>,
    not_before: BTreeMap<String, i64>,
}

/// Why a source brought no sheet, and how long it wants to be left alone.
struct Unanswered {
    why: String,
    retry_after: Option<Duration>,
}

impl<S: Into<String>> From<S> for Unanswered {
    fn from(why: S) -> Self {
        Self { why: why.into(), retry_after: None }
    }
}

impl Chore for Refresher {
    fn due(&self) -> bool {
        let known = self.host.look(&self.key);
        let last = (*self.shelved.lock()).max(Version::FILE);
        let unshelved = self.shelf.is_some()
            && known
                .as_ref()
                .and_then(|known| known.entry.as_ref())
                .filter(|entry| entry.servable(Kind::Sheet, self.host.now()))
                .is_some_and(|entry| entry.version > last);
        unshelved || self.wants(known.as_ref())
    }

    fn run(&self) {
        self.shelve();
        if !self.wants(self.host.look(&self.key).as_ref()) {
            return;
        }
        let Some(engine) = self.engine.upgrade() else { return };
        let now = self.host.now();
        let age = self.rules.policy.interval.saturating_sub(self.span());
        let plan =
            Plan { wait_until: now, may_mint: true, renew: Renew::AtAge(age), ..self.plan.clone() };
        let mut step = engine.begin(&self.key, &plan);
        if let Step::Mint(ticket) = step {
            let (after, _) = self.refresh(*ticket, now.plus(FETCH_TIMEOUT * 2));
            step = after;
        }
        let pause = match step {
            Step::Served(served) => served.backing_off,
            Step::Failed(FlightError::MintFailed { retry_in, .. }) => Some(retry_in),
            Step::Failed(_) => None,
            Step::Mint(ticket) => {
                // Fenced in the middle; its next owner asks anew.
                engine.finish(*ticket, Outcome::Abandoned);
                None
            }
        };
        // Where it was of no use, others would ask as often as they look.
        let pause = pause.unwrap_or_default().max(A_MOMENT.min(self.rules.policy.interval / 10));
        *self.not_before.lock() = self.host.now().plus(pause);
        self.shelve();
    }
}

#[cfg(test)]
mod tests;
