//! The one process of a host that follows the fleet's change log, so that all others may trust what
//! the host has without asking: [`machine`] decides, [`Leader`] carries out.
//!
//! A heartbeat says "everything this host has was the newest at that time", but for what is in doubt. Four rules
//! make it true, each tested by switching it off:
//! - after a gap everything is put in doubt, and only then is the log read on: the heartbeat vouches for an
//!   entry again when it has been compared;
//! - what is heard of is marked in the slot (`newest`, `floor`) before its value is fetched, and a
//!   slot refuses what is older than that, or was asked for before the slot was taken;
//! - the heartbeat is the time at which the question was *sent*, and is written after everything that
//!   the answer named was fetched;
//! - no gap is only what an anchor shows to be none: the log still has the line at which the last heartbeat
//!   stood, on a server that takes writes.
//!
//! A heartbeat is a fact and stays one, whoever leads: so a leader that was stopped and given up on does no
//! harm when it wakes, and the next one goes on from its anchor.

mod machine;

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use self::machine::{Action, Event, Machine, News, Verdict, Verdicts, verdict};
use crate::entry::{Entry, Key, Version};
use crate::metrics::Counter;
use crate::seal::KeyId;
use crate::store::log::{Anchor, Change, ChangeLog, Fetched, Followed, Stored};
use crate::store::{
    Asked, Committed, Heard, Host, LastFailure, Leave, Reply, Right, Store, StoreError,
    as_kept_here,
};

pub struct Leader {
    host: Arc<dyn Host>,
    store: Arc<dyn Store>,
    log: Arc<dyn ChangeLog>,
    max_staleness: Duration,
    last_failure: LastFailure,
    /// The term of our leadership, and what it has come to.
    term: Option<(Right, Machine)>,
    /// Whether this term has said that it cannot read what others have sealed.
    told_sealed: Cell<bool>,
    /// Whether it has said that there is something else under a key of ours.
    told_foreign: Cell<bool>,
}

impl Leader {
    pub fn new(
        host: Arc<dyn Host>,
        store: Arc<dyn Store>,
        log: Arc<dyn ChangeLog>,
        max_staleness: Duration,
    ) -> Self {
        let told = || Cell::new(false);
        Self {
            host,
            store,
            log,
            max_staleness,
            last_failure: LastFailure::default(),
            term: None,
            told_sealed: told(),
            told_foreign: told(),
        }
    }

    /// What the store says to this leader when it refuses, or why it cannot be asked.
    pub fn last_failure(&self) -> LastFailure {
        self.last_failure.clone()
    }

    /// One step: lead if nobody does, and then follow the log for at most `patience`. However much there
    /// is to do and however slow the store, a step is short: who calls it has leases to renew, and our
    /// own term to keep.
    /// `false`: somebody else leads, or the store cannot be asked; come back a little later.
    pub fn turn(&mut self, patience: Duration) -> bool {
        let Some((term, mut machine)) = self.leading() else { return false };
        let turned = match self.host.may_ask(self.host.now()) {
            Leave::Given => self.carry_out(&mut machine, patience),
            Leave::Withheld { .. } => {
                machine.interrupted();
                false
            }
        };
        self.host.count_noticed(self.log.noticed());
        self.term = Some((term, machine));
        turned
    }

    /// Give the leadership back, so that the next one need not wait.
    pub fn resign(&mut self) {
        if let Some((term, _)) = self.term.take() {
            self.host.stop_leading(&term);
        }
    }

    fn leading(&mut self) -> Option<(Right, Machine)> {
        let now = self.host.now();
        // A leader that is stopped is given up on when its heartbeat is too old to be trusted.
        let until = now.plus(self.max_staleness * 2);
        if let Some((term, machine)) = self.term.take()
            && self.host.keep_leading(&term, until)
        {
            return Some((term, machine));
        }
        let term = self.host.lead(now, until)?;
        self.told_sealed.set(false);
        self.told_foreign.set(false);
        log::info!("this process follows the change log for its host");
        Some((term, Machine::new(self.host.anchor(), self.host.in_doubt())))
    }

    fn carry_out(&self, machine: &mut Machine, patience: Duration) -> bool {
        let mut event = Event::Turn { patience };
        loop {
            event = match machine.step(event, self.host.now()) {
                Action::Look(anchor) => Event::Looked(self.ask(|| {
                    let looked = self.log.look(anchor.as_ref())?;
                    // A line is never older than the one before, whatever the clock.
                    let noted = i64::try_from(looked.last.line.0).unwrap_or(i64::MAX);
                    self.host.hear_clock(&looked.told, noted, looked.set_back);
                    Ok(looked)
                })),
                Action::Doubt => {
                    let doubt = self.host.doubt();
                    Event::Doubted(doubt, self.host.resident())
                }
                Action::List => Event::Listed(self.host.resident()),
                Action::Follow(anchor, patience) => {
                    Event::Followed(self.ask(|| self.follow(&anchor, patience)))
                }
                Action::Compare(keys) => Event::Compared(self.ask(|| self.compare(&keys))),
                Action::Fetch(keys) => Event::Fetched(self.ask(|| self.fetch(&keys))),
                Action::GiveBack(key) => Event::GivenBack(self.ask(|| self.give_back(&key))),
                Action::Beat(sent, anchor) => {
                    self.host.beat(sent, &anchor);
                    Event::Carried
                }
                Action::Settle(doubt) => {
                    self.host.settle(doubt);
                    Event::Carried
                }
                Action::Done(answered) => return answered,
            }
        }
    }

    /// Ask the store, and tell the host whether it answers.
    fn ask<T>(&self, question: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let asked_at = self.host.now();
        let answer = question();
        let error = answer.as_ref().err();
        // No failure of the store, so nobody else says it.
        if let Some(StoreError::Foreign(why)) = error
            && !self.told_foreign.replace(true)
        {
            log::warn!("{why}; this host hears of no change elsewhere");
        }
        let heard = Heard::of(error);
        if let Some(error) = error.filter(|_| heard != Heard::Answer) {
            self.last_failure.note(error);
        }
        if self.host.authority_heard(heard, asked_at, self.host.now()) {
            match error {
                None => log::warn!("Redis answers again"),
                Some(error) => log::warn!("{error}; usable entries are served"),
            }
        }
        answer
    }

    fn follow(&self, after: &Anchor, patience: Duration) -> Result<News, StoreError> {
        let sent = self.host.now();
        Ok(match self.log.follow(after, patience)? {
            Followed::Unknown => News::Unknown,
            Followed::Gap => News::Gap,
            Followed::Lines { changes, anchor } => {
                News::Lines { sent, anchor, keys: self.hear(&changes) }
            }
        })
    }

    /// The keys of which there is something newer.
    fn hear(&self, changes: &[Change]) -> Vec<Key> {
        let mut keys = Vec::new();
        for Change { key, news } in changes {
            let told = news.unwrap_or_default();
            if !self.host.hear(key, told.version, told.floor) {
                continue;
            }
            match news {
                Some(news) if news.version == Version::NONE => self.host.wake(key),
                Some(news) if self.held(key) >= news.version => {}
                _ => keys.push(key.clone()),
            }
        }
        keys.sort_unstable_by(|one, other| one.bytes().cmp(other.bytes()));
        keys.dedup();
        self.host.count(Counter::ChangesHeard, changes.len() as u64);
        keys
    }

    fn held(&self, key: &Key) -> Version {
        let entry = self.host.look(key).and_then(|known| known.entry);
        entry.map_or(Version::NONE, |entry| entry.version)
    }

    /// What the store has of the keys, by their versions. What is the same here is confirmed.
    fn compare(&self, keys: &[Key]) -> Result<Verdicts, StoreError> {
        let sent = self.host.now();
        let replies = self.log.versions(keys, sent)?;
        let mut verdicts = Verdicts::default();
        for (key, Reply { floor, what }) in keys.iter().zip(replies) {
            let Stored::Version { version, usable_until } = what else {
                self.tell_foreign(key);
                continue;
            };
            self.host.hear(key, version, floor);
            let held = self.host.look(key).and_then(|known| known.entry);
            match verdict(version, usable_until, held.as_ref(), key.kind(), self.host.now()) {
                Verdict::Same => self.host.confirm(key, version, sent),
                Verdict::Fetch => verdicts.fetch.push(key.clone()),
                Verdict::GiveBack => verdicts.give_back.push(key.clone()),
                Verdict::Nothing => {}
            }
        }
        Ok(verdicts)
    }

    /// Take over what the store has of the keys. Which of them it has not got, or not as new as this host.
    fn fetch(&self, keys: &[Key]) -> Result<Vec<Key>, StoreError> {
        let sent = self.host.now();
        let reserved = |key| Asked { at: sent, reservation: self.host.reserve(key) };
        let asked: Vec<Asked> = keys.iter().map(reserved).collect();
        let replies = self.log.fetch(keys, sent)?;
        let mut give_back = Vec::new();
        for ((key, asked), Reply { floor, what }) in keys.iter().zip(asked).zip(replies) {
            self.host.raise_floor(key, floor);
            let stored = match what {
                Fetched::Entry(entry) => Some(entry),
                Fetched::Nothing => None,
                // Neither to be read nor to be replaced by anything of ours.
                Fetched::Sealed(id) => {
                    self.tell_sealed(id);
                    continue;
                }
                // What is wrong with one key must not keep the others from being compared.
                Fetched::Foreign => {
                    self.tell_foreign(key);
                    continue;
                }
            };
            let held = self.host.look(key).and_then(|known| known.entry);
            let (version, usable_until) = stored
                .as_ref()
                .map_or((Version::NONE, sent), |it| (it.version, it.timing.usable_until));
            match verdict(version, usable_until, held.as_ref(), key.kind(), self.host.now()) {
                Verdict::Same => self.host.confirm(key, version, asked.at),
                Verdict::GiveBack => give_back.push(key.clone()),
                Verdict::Fetch | Verdict::Nothing => {
                    if let Some(entry) = stored.filter(|entry| entry.version >= floor) {
                        self.keep(key, &entry, asked);
                    }
                }
            }
        }
        Ok(give_back)
    }

    fn give_back(&self, key: &Key) -> Result<(), StoreError> {
        let asked = Asked { at: self.host.now(), reservation: self.host.reserve(key) };
        let held = self.host.look(key).and_then(|known| known.entry);
        let Some(held) = held.filter(|it| it.servable(key.kind(), asked.at)) else { return Ok(()) };
        let entry = Entry { unsynced: false, ..held.clone() };
        let reply = match self.store.restore(key, &entry, asked.at) {
            Err(StoreError::Sealed { with, .. }) => {
                self.tell_sealed(with);
                return Ok(());
            }
            Err(StoreError::Foreign(_)) => {
                self.tell_foreign(key);
                return Ok(());
            }
            reply => reply?,
        };
        self.host.raise_floor(key, reply.floor);
        let asked = Asked { at: reply.what.since, ..asked };
        match reply.what.outcome {
            Committed::Accepted if held.unsynced => self.keep(key, &entry, asked),
            Committed::Accepted => self.host.confirm(key, entry.version, asked.at),
            Committed::Superseded(newer) => self.keep(key, &newer, asked),
            Committed::Fenced => {}
        }
        Ok(())
    }

    fn keep(&self, key: &Key, entry: &Entry, asked: Asked) {
        let entry = as_kept_here(entry.clone(), key.kind());
        if let Err(error) = self.host.adopt(key, &entry, asked) {
            log::debug!("not kept in the host table: {error}");
        }
        self.host.wake(key);
    }

    fn tell_sealed(&self, id: KeyId) {
        if !self.told_sealed.replace(true) {
            log::warn!(
                "Redis has values sealed with key {id}, which this host does not have: it mints \
                 for itself until sharedstate.encryption_key_file holds that key"
            );
        }
    }

    fn tell_foreign(&self, key: &Key) {
        if !self.told_foreign.replace(true) {
            log::warn!("what Redis has as {} is no entry of ours, and left alone", key.text());
        }
    }
}

#[cfg(test)]
mod tests;
