//! What the leader does next, as a state machine without I/O.
//!
//! It is told what happened and says what to do; it never touches a log, a store or a clock. So it runs
//! in simulated time, under every order of faults.
//!
//! The invariants, each tested below and in the simulation:
//! - after a gap everything is put in doubt **before** the log is read on, and listed after that;
//! - what a line names is fetched before the heart beats;
//! - a beat has the moment at which the question was *sent* whose answer was carried out;
//! - what no answer came to is asked about again, whatever failed.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Moment;
use crate::entry::{Entry, Key, Kind, Version};
use crate::random;
use crate::store::StoreError;
use crate::store::log::{Anchor, Looked};

/// After this a turn ends; what is left is for the next.
pub const ENOUGH: Duration = Duration::from_millis(250);
/// How often it is looked whether the log still has the line at which we stand, on a server that takes writes.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Keys compared in one question, at the most.
const BATCH: usize = 256;
/// Keys fetched with their values in one question, at the most.
const BODIES: usize = 64;
/// The clock is coarse, and it is later after this.
const TICK: Duration = Duration::from_millis(11);
/// Keys in doubt compared in a second: all hosts of a large fleet may be in doubt at once, and a key costs the
/// server some 5 µs. What is read meanwhile is asked about on its own.
const DOUBTED_PER_SECOND: u32 = 64;
/// The log is not read more often than that for its sake, nor are more compared at once after a pause.
const DOUBTED_EVERY: Duration = Duration::from_secs(1);
/// The first batch is compared at once: it is what was used last. With the others hosts begin at different
/// moments of this span, for they all learn of a lost log within a second.
const BEGIN_WITHIN: Duration = Duration::from_secs(10);
/// At rest so many bytes are exchanged, 2 KB a second, whatever there is to compare: a store that lost single rows
/// writes no line about it, and its log has no gap.
const REST_BYTES: usize = 10 * 1024;
const REST_EVERY: Duration = Duration::from_secs(5);
/// What a key takes in question and answer beside its name.
const PER_KEY: usize = 64;
/// A deadline of ours this much later than the store's is no slow way's doing.
const TRANSIT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub enum Action {
    Look(Option<Anchor>),
    /// Something may have been missed: put all in doubt, and list it.
    Doubt,
    List,
    Follow(Anchor, Duration),
    Compare(Vec<Key>),
    Fetch(Vec<Key>),
    GiveBack(Key),
    /// Everything that is vouched for was the newest then.
    Beat(Moment, Anchor),
    /// What was put in doubt has been compared.
    Settle(u64),
    /// The turn is over. Whether the store answered.
    Done(bool),
}

#[derive(Debug)]
pub enum Event {
    Turn {
        patience: Duration,
    },
    Looked(Result<Looked, StoreError>),
    Doubted(u64, Vec<Key>),
    /// What was used last comes first.
    Listed(Vec<Key>),
    Followed(Result<News, StoreError>),
    Compared(Result<Verdicts, StoreError>),
    /// With what the store has not got, or not as new.
    Fetched(Result<Vec<Key>, StoreError>),
    GivenBack(Result<(), StoreError>),
    /// An action without a result was carried out.
    Carried,
}

/// What following the log brought.
#[derive(Debug)]
pub enum News {
    /// Read up to here; the question was sent at that moment. Of these keys there is something newer.
    Lines { sent: Moment, anchor: Anchor, keys: Vec<Key> },
    /// It is another connection: look first.
    Unknown,
    /// More lines than can be taken at once.
    Gap,
}

/// What is to be done after a comparison; what is the same is confirmed by then.
#[derive(Debug, Default)]
pub struct Verdicts {
    pub fetch: Vec<Key>,
    pub give_back: Vec<Key>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Same,
    /// The store has something newer, or knows better when it ends.
    Fetch,
    /// The store lost it, or has never heard of it.
    GiveBack,
    Nothing,
}

/// What is to be done about an entry of this host, when the store has this version until then.
pub fn verdict(
    stored: Version,
    usable_until: Moment,
    held: Option<&Entry>,
    kind: Kind,
    now: Moment,
) -> Verdict {
    match held {
        Some(held) if held.version > stored.max(Version::FILE) => {
            if held.servable(kind, now) {
                Verdict::GiveBack
            } else {
                Verdict::Nothing
            }
        }
        Some(held) if held.version == stored && !held.unsynced => {
            let earlier = usable_until.plus(TRANSIT) < held.timing.usable_until;
            if earlier { Verdict::Fetch } else { Verdict::Same }
        }
        _ if stored > Version::NONE => Verdict::Fetch,
        _ => Verdict::Nothing,
    }
}

/// The question that is out, so that nothing is forgotten when no answer comes.
#[derive(Clone, Debug, Default)]
enum Question {
    #[default]
    None,
    Named(Vec<Key>),
    Differing(Vec<Key>),
    Doubted(Vec<Key>),
    Resting(Vec<Key>),
    GiveBack(Key),
}

#[derive(Debug)]
pub struct Machine {
    /// How far the log was read. `None`: not known, so all is in doubt.
    anchor: Option<Anchor>,
    /// Whether this connection was looked at.
    known: bool,
    look_at: Moment,
    /// A beat, once everything is fetched that lines have named.
    beat: Option<Moment>,
    named: Vec<Key>,
    /// Found to differ: not vouched for until it is fetched, so no beat waits for it.
    differing: VecDeque<Key>,
    give_back: VecDeque<Key>,
    doubt: Option<Doubt>,
    /// When the comparison of what is in doubt goes on.
    doubted_at: Moment,
    resting: VecDeque<Key>,
    rest_at: Moment,
    out: Question,
    batch: Fits,
    bodies: Fits,
    turn: Turn,
}

/// What was put in doubt.
#[derive(Debug)]
struct Doubt {
    id: u64,
    /// What of it is still to be compared; `None` before it is listed.
    keys: Option<VecDeque<Key>>,
    begun: bool,
}

impl Doubt {
    fn listed(id: u64, keys: Vec<Key>) -> Self {
        Self { id, keys: Some(keys.into()), begun: false }
    }

    fn is_settled(&self) -> bool {
        self.keys.as_ref().is_some_and(VecDeque::is_empty)
    }
}

/// How many keys fit into an answer that comes in time.
#[derive(Clone, Copy, Debug)]
struct Fits {
    many: usize,
    most: usize,
    /// Answers in a row that came in time.
    answers: u32,
    /// The last one did not.
    late: bool,
}

impl Fits {
    /// So many answers come before a longer one is tried: one that does not come in time costs a connection.
    const TRUSTED: u32 = 4;

    fn up_to(most: usize) -> Self {
        Self { many: most, most, answers: 0, late: false }
    }

    fn answered(&mut self) {
        self.answers += 1;
        self.late = false;
        if self.answers >= Self::TRUSTED {
            *self = Self { many: (self.many * 2).min(self.most), answers: 0, ..*self };
        }
    }

    /// The second time in a row: the first may have been lost for another reason.
    fn late(&mut self) {
        let many = if self.late { (self.many / 2).max(1) } else { self.many };
        *self = Self { many, answers: 0, late: true, ..*self };
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    began: Moment,
    patience: Duration,
    followed: bool,
    rested: bool,
    /// How often the connection was found to be another one.
    replaced: u32,
}

impl Machine {
    /// A new term. `anchor`: where the host's last leader stood, and what it left in doubt.
    pub fn new(anchor: Option<Anchor>, doubt: Option<u64>) -> Self {
        Self {
            anchor,
            known: false,
            look_at: Moment::default(),
            beat: None,
            named: Vec::new(),
            differing: VecDeque::new(),
            give_back: VecDeque::new(),
            doubt: doubt.map(|id| Doubt { id, keys: None, begun: false }),
            doubted_at: Moment::default(),
            resting: VecDeque::new(),
            rest_at: Moment::default(),
            out: Question::None,
            batch: Fits::up_to(BATCH),
            bodies: Fits::up_to(BODIES),
            turn: Turn::default(),
        }
    }

    /// The connection may be another one by now.
    pub fn interrupted(&mut self) {
        self.known = false;
    }

    pub fn step(&mut self, event: Event, now: Moment) -> Action {
        match event {
            Event::Turn { patience } => {
                self.turn = Turn { began: now, patience, ..Turn::default() };
            }
            Event::Looked(Ok(looked)) => {
                self.known = true;
                self.look_at = now.plus(LOOK_EVERY);
                if !looked.stands {
                    return self.missed(looked.last);
                }
            }
            Event::Doubted(id, keys) => {
                self.doubt = Some(Doubt::listed(id, keys));
                // What is confirmed in the same tick of the clock stays in doubt.
                self.doubted_at = now.plus(TICK);
            }
            Event::Listed(keys) => match &mut self.doubt {
                Some(doubt) => {
                    *doubt = Doubt::listed(doubt.id, keys);
                    self.doubted_at = now;
                }
                None => {
                    self.resting = keys.into();
                    self.turn.rested = self.resting.is_empty();
                    self.rest_at = if self.turn.rested { now.plus(REST_EVERY) } else { now };
                }
            },
            Event::Followed(Ok(News::Lines { sent, anchor, keys })) => {
                self.turn.followed = true;
                self.anchor = Some(anchor);
                self.beat = Some(sent);
                self.named.extend(keys);
            }
            Event::Followed(Ok(News::Unknown)) => {
                self.known = false;
                self.turn.replaced += 1;
                if self.turn.replaced > 2 {
                    return Action::Done(false);
                }
            }
            Event::Followed(Ok(News::Gap)) => (self.known, self.anchor) = (false, None),
            Event::Compared(Ok(Verdicts { fetch, give_back })) => {
                self.answered();
                self.differing.extend(fetch);
                self.give_back.extend(give_back);
            }
            Event::Fetched(Ok(give_back)) => {
                self.answered();
                self.give_back.extend(give_back);
            }
            Event::GivenBack(Ok(())) => self.answered(),
            Event::Looked(Err(error))
            | Event::Followed(Err(error))
            | Event::Compared(Err(error))
            | Event::Fetched(Err(error))
            | Event::GivenBack(Err(error)) => return self.failed(&error, now),
            Event::Carried => {}
        }
        self.next(now)
    }

    /// Everything that lines would have named is among what is in doubt from now on.
    fn missed(&mut self, last: Anchor) -> Action {
        self.anchor = Some(last);
        self.beat = None;
        self.named.clear();
        self.differing.clear();
        self.give_back.clear();
        Action::Doubt
    }

    /// First what others wait for. The log is read once in a turn, and then there is time for the rest.
    fn next(&mut self, now: Moment) -> Action {
        let Some(anchor) = self.anchor.filter(|_| self.known && now < self.look_at) else {
            return Action::Look(self.anchor);
        };
        if !self.named.is_empty() {
            if self.turn.began.until(now) >= ENOUGH {
                return Action::Done(true);
            }
            let many = self.named.len().min(self.bodies.many);
            return self.fetch(|machine| machine.named.drain(..many).collect(), Question::Named);
        }
        if let Some(sent) = self.beat.take() {
            return Action::Beat(sent, anchor);
        }
        if self.doubt.as_ref().is_some_and(|doubt| doubt.keys.is_none()) {
            return Action::List;
        }
        if !self.turn.followed {
            return Action::Follow(anchor, self.patience(now));
        }
        if self.turn.began.until(now) >= ENOUGH {
            return Action::Done(true);
        }
        self.at_leisure(now)
    }

    fn at_leisure(&mut self, now: Moment) -> Action {
        if !self.differing.is_empty() {
            let many = self.differing.len().min(self.bodies.many);
            return self
                .fetch(|machine| machine.differing.drain(..many).collect(), Question::Differing);
        }
        if let Some(key) = self.give_back.pop_front() {
            self.out = Question::GiveBack(key.clone());
            return Action::GiveBack(key);
        }
        if let Some(doubt) = self.doubt.take_if(|doubt| doubt.is_settled()) {
            return Action::Settle(doubt.id);
        }
        if now < self.compare_at() {
            return Action::Done(true);
        }
        if let Some(doubted) = self.some_doubted(now) {
            return Action::Compare(doubted);
        }
        // Listed or compared once in a turn, for there may be nothing.
        if std::mem::replace(&mut self.turn.rested, true) {
            return Action::Done(true);
        }
        if self.resting.is_empty() { Action::List } else { Action::Compare(self.some_resting(now)) }
    }

    /// When there is something to do that nobody waits for.
    fn compare_at(&self) -> Moment {
        if self.doubt.is_some() { self.doubted_at } else { self.rest_at }
    }

    fn patience(&self, now: Moment) -> Duration {
        if !self.differing.is_empty() || !self.give_back.is_empty() {
            return Duration::ZERO;
        }
        let due = self.compare_at().max(now.plus(DOUBTED_EVERY)).min(self.look_at);
        self.turn.patience.min(now.until(due))
    }

    fn fetch(
        &mut self,
        take: impl FnOnce(&mut Self) -> Vec<Key>,
        question: fn(Vec<Key>) -> Question,
    ) -> Action {
        let keys = take(self);
        self.out = question(keys.clone());
        Action::Fetch(keys)
    }

    fn some_doubted(&mut self, now: Moment) -> Option<Vec<Key>> {
        let doubt = self.doubt.as_mut()?;
        let doubted = doubt.keys.as_mut()?;
        let keys: Vec<Key> = doubted.drain(..doubted.len().min(self.batch.many)).collect();
        let pace = Duration::from_secs(1) / DOUBTED_PER_SECOND;
        let mut pause = pace * u32::try_from(keys.len()).unwrap_or(u32::MAX);
        if !std::mem::replace(&mut doubt.begun, true) && !doubted.is_empty() {
            pause += BEGIN_WITHIN.mul_f64(random::share());
        }
        // Counted from when it was due: the clock is coarse, and a turn is long.
        let due = self.doubted_at.max(now.plus_millis(-(DOUBTED_EVERY.as_millis() as i64)));
        self.doubted_at = due.plus(pause);
        self.out = Question::Doubted(keys.clone());
        Some(keys)
    }

    fn some_resting(&mut self, now: Moment) -> Vec<Key> {
        let mut bytes = 0;
        let fits = |key: &&Key| {
            bytes += PER_KEY + key.text().len();
            bytes <= REST_BYTES
        };
        let many = self.resting.iter().take(self.batch.many).take_while(fits).count().max(1);
        let keys: Vec<Key> = self.resting.drain(..many).collect();
        self.rest_at = now.plus(REST_EVERY);
        self.out = Question::Resting(keys.clone());
        keys
    }

    fn answered(&mut self) {
        match std::mem::take(&mut self.out) {
            Question::Named(_) | Question::Differing(_) => self.bodies.answered(),
            Question::Doubted(_) | Question::Resting(_) => self.batch.answered(),
            Question::GiveBack(_) | Question::None => {}
        }
    }

    fn failed(&mut self, error: &StoreError, now: Moment) -> Action {
        let back = |queue: &mut VecDeque<Key>, keys: Vec<Key>| {
            keys.into_iter().rev().for_each(|key| queue.push_front(key));
        };
        let question = std::mem::take(&mut self.out);
        if error.is_silence() {
            // An answer that does not come in time may be too long for the way.
            match &question {
                Question::Named(_) | Question::Differing(_) => self.bodies.late(),
                Question::Doubted(_) | Question::Resting(_) => self.batch.late(),
                Question::GiveBack(_) | Question::None => {}
            }
        }
        match question {
            Question::None => {}
            Question::Named(keys) => self.named.extend(keys),
            Question::Differing(keys) => back(&mut self.differing, keys),
            Question::Doubted(keys) => {
                if let Some(doubted) = self.doubt.as_mut().and_then(|doubt| doubt.keys.as_mut()) {
                    back(doubted, keys);
                    self.doubted_at = now;
                }
            }
            Question::Resting(keys) => back(&mut self.resting, keys),
            Question::GiveBack(key) => self.give_back.push_front(key),
        }
        // A beat that waits still says what was so when it was sent; whether the rest of the log follows on
        // is seen by a look.
        self.interrupted();
        Action::Done(false)
    }
}
