//! Change log, marks and heartbeat: two workers that ask about the key, a leader that follows, loses
//! its connection, is stopped and superseded, another host that commits, an eviction.
//!
//! Time is the length of the log: a heartbeat says up to which line everything was carried out when
//! its question was sent.

use super::Model;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    ReserveFirst,
    CheckNewest,
    SamePlace,
    NoteBefore,
    BeatWhenSent,
    GapAfterReconnect,
}
use Rule::*;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Slot {
    resident: bool,
    sequence: u8,
    newest: u8,
    entry: u8,
}

impl Slot {
    fn take(&mut self) {
        if !self.resident {
            *self = Self { resident: true, newest: 0, entry: 0, ..*self };
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Worker {
    Idle,
    /// The place it reserved.
    Asking(Option<u8>),
    Answered(Option<u8>, u8),
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Leader {
    Off,
    /// Where the log ended, when the question was sent.
    Noted(Option<u8>),
    /// What the store had: applied next.
    Compared(Option<u8>, u8, Option<u8>),
    /// Up to which line it has heard.
    Follows(u8),
    /// The question is out; the answer will hold the lines up to then.
    Asked {
        from: u8,
        sent: u8,
    },
    Heard {
        from: u8,
        upto: u8,
        sent: u8,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The version in the store, which is also the number of lines in the log.
    stored: u8,
    slot: Slot,
    workers: [Worker; 2],
    leader: Leader,
    /// Up to which line everything here was carried out; `None`: nobody has led yet.
    heartbeat: Option<u8>,
    commits: u8,
    losses: u8,
    evictions: u8,
}

pub struct Log;

impl Model for Log {
    type State = State;
    type Rule = Rule;

    const RULES: &'static [(Rule, &'static str)] = &[
        (ReserveFirst, "a place is reserved before the question is sent"),
        (CheckNewest, "an answer below what was heard of is not kept"),
        (SamePlace, "an answer is kept only in the place that was reserved"),
        (NoteBefore, "the log's end is noted before the comparison"),
        (BeatWhenSent, "the heartbeat is the time at which the question was sent"),
        (GapAfterReconnect, "a new connection is a gap"),
    ];

    fn start() -> State {
        State {
            stored: 1,
            slot: Slot::default(),
            workers: [Worker::Idle; 2],
            leader: Leader::Off,
            heartbeat: None,
            commits: 2,
            losses: 1,
            evictions: 1,
        }
    }

    /// A heartbeat vouches for what is not older than what was heard of.
    fn broken(state: &State) -> Option<&'static str> {
        let Slot { resident, newest, entry, .. } = state.slot;
        let vouched = state.heartbeat? + 1;
        (resident && entry > 0 && entry >= newest && entry < vouched)
            .then_some("an entry is trusted that was not the newest at the heartbeat")
    }

    fn steps(state: &State, off: Option<Rule>) -> Vec<(String, State)> {
        let on = |rule| off != Some(rule);
        let mut next = Vec::new();
        if state.commits > 0 {
            let (stored, commits) = (state.stored + 1, state.commits - 1);
            next.push((
                format!("another host commits {stored}"),
                State { stored, commits, ..*state },
            ));
        }
        if state.evictions > 0 && state.slot.resident {
            let slot = Slot { sequence: state.slot.sequence + 1, ..Slot::default() };
            let evictions = state.evictions - 1;
            next.push(("the key is evicted".into(), State { slot, evictions, ..*state }));
        }
        for i in 0..2 {
            let mut after = *state;
            let step = match state.workers[i] {
                Worker::Idle => {
                    if on(ReserveFirst) {
                        after.slot.take();
                    }
                    let place = on(ReserveFirst).then_some(after.slot.sequence);
                    after.workers[i] = Worker::Asking(place);
                    format!("worker {i} asks")
                }
                Worker::Asking(place) => {
                    after.workers[i] = Worker::Answered(place, state.stored);
                    format!("worker {i} is answered {}", state.stored)
                }
                Worker::Answered(place, version) => {
                    if place.is_none() || !on(SamePlace) {
                        after.slot.take();
                    }
                    let slot = &mut after.slot;
                    let same = place.is_none_or(|place| place == slot.sequence) || !on(SamePlace);
                    let newer = version >= slot.newest || !on(CheckNewest);
                    if slot.resident && same && newer {
                        slot.newest = if on(CheckNewest) { version } else { slot.newest };
                        slot.entry = version;
                        if !on(CheckNewest) {
                            slot.newest = slot.newest.min(version);
                        }
                    }
                    after.workers[i] = Worker::Done;
                    format!("worker {i} writes {version}")
                }
                Worker::Done => continue,
            };
            next.push((step, after));
        }
        if state.losses > 0 && state.leader != Leader::Off {
            let losses = state.losses - 1;
            // Without the rule it goes on where the log ends now.
            let leader =
                if on(GapAfterReconnect) { Leader::Off } else { Leader::Follows(state.stored) };
            next.push(("the connection is lost".into(), State { leader, losses, ..*state }));
        }
        next.push(lead(state, off));
        next
    }
}

fn lead(state: &State, off: Option<Rule>) -> (String, State) {
    let on = |rule| off != Some(rule);
    let apply = |slot: &mut Slot, version: u8| {
        if slot.resident {
            slot.newest = slot.newest.max(version);
            slot.entry = slot.entry.max(version);
        }
    };
    let mut after = *state;
    let end = state.stored;
    let step = match state.leader {
        Leader::Off => {
            after.leader = Leader::Noted(on(NoteBefore).then_some(end));
            format!("the leader notes that the log ends at {end}")
        }
        Leader::Noted(end) => {
            let place = state.slot.resident.then_some(state.slot.sequence);
            after.leader = Leader::Compared(end, state.stored, place);
            format!("the leader asks what the store has: {}", state.stored)
        }
        Leader::Compared(noted, version, place) => {
            if place == Some(after.slot.sequence) {
                apply(&mut after.slot, version);
            }
            let upto = noted.unwrap_or(end);
            after.leader = Leader::Follows(upto);
            after.heartbeat = Some(upto - 1);
            format!("the leader writes {version} and its first heartbeat")
        }
        Leader::Follows(from) => {
            after.leader = Leader::Asked { from, sent: end };
            "the leader asks for lines".into()
        }
        Leader::Asked { from, sent } => {
            after.leader = Leader::Heard { from, upto: end, sent };
            format!("the leader hears up to {end}")
        }
        Leader::Heard { from, upto, sent } => {
            // No line, no news: it beats all the same.
            if from < upto {
                apply(&mut after.slot, upto);
            }
            after.leader = Leader::Follows(upto);
            // What was committed after the answer left is not in it.
            let beat = if on(BeatWhenSent) { sent.min(upto) } else { end };
            after.heartbeat = Some(beat - 1);
            "the leader carries it out and beats".into()
        }
    };
    (step, after)
}
