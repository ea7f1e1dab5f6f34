//! The one process of a host that follows the fleet's change log, so that all others may trust what
//! the host has without asking.
//!
//! Three rules make the heartbeat true, each tested by switching it off:
//! - the log's last position is noted **before** the resident keys are compared with the store;
//! - what is heard of is marked in the slot (`newest`, `floor`) before its value is fetched, and a
//!   slot refuses what is older than that, or was asked for before the slot was taken;
//! - the heartbeat is the time at which the question was *sent*, and is written after everything in
//!   the answer was carried out.
//!
//! A heartbeat says "everything this host has was newest at that time". It is a fact and stays one,
//! whoever leads: so a leader that was stopped and given up on does no harm when it wakes.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::entry::{Entry, Key, Version};
use crate::metrics::Counter;
use crate::seal::KeyId;
use crate::store::log::{Change, ChangeLog, Fetched, Followed, Position};
use crate::store::{Asked, Committed, Heard, Host, Reply, Right, Store, StoreError, as_kept_here};

/// Keys compared in one pipeline.
const BATCH: usize = 256;
/// How often a batch of resident keys is compared with the store although nothing was heard of:
/// a store that lost what it had (FLUSHALL, a lossy fail-over) writes no line about it.
const COMPARE_EVERY: Duration = Duration::from_secs(5);

pub struct Leader {
    host: Arc<dyn Host>,
    store: Arc<dyn Store>,
    log: Arc<dyn ChangeLog>,
    max_staleness: Duration,
    /// The term of our leadership.
    term: Option<Right>,
    /// Where we are in the log; `None` after a gap.
    position: Option<Position>,
    /// Resident keys still to be compared in this round.
    to_compare: Vec<Key>,
    compare_at: Moment,
    /// Whether this term has said that it cannot read what others have sealed.
    told_sealed: Cell<bool>,
}

impl Leader {
    pub fn new(
        host: Arc<dyn Host>,
        store: Arc<dyn Store>,
        log: Arc<dyn ChangeLog>,
        max_staleness: Duration,
    ) -> Self {
        Self {
            host,
            store,
            log,
            max_staleness,
            term: None,
            position: None,
            to_compare: Vec::new(),
            compare_at: Moment::default(),
            told_sealed: Cell::new(false),
        }
    }

    /// One step: lead if nobody does, and then follow the log for at most `patience`.
    /// `false`: somebody else leads, or the store cannot be asked; come back a little later.
    pub fn turn(&mut self, patience: Duration) -> bool {
        if !self.leads() || !self.host.authority_allowed(self.host.now()) {
            self.position = None;
            return false;
        }
        let turned = match self.position.take() {
            None => self.catch_up(),
            Some(position) => self.follow(position, patience),
        };
        let answered = turned.is_ok();
        if self.host.authority_heard(Heard::of(turned.as_ref().err()), self.host.now()) {
            match &turned {
                Ok(()) => log::warn!("Redis answers again"),
                Err(error) => log::warn!("{error}; usable entries are served"),
            }
        }
        answered
    }

    /// Give the leadership back, so that the next one need not wait.
    pub fn resign(&mut self) {
        if let Some(term) = self.term.take() {
            self.host.stop_leading(&term);
        }
    }

    fn leads(&mut self) -> bool {
        let now = self.host.now();
        // A leader that is stopped is given up on when its heartbeat is too old to be trusted.
        let until = now.plus(self.max_staleness * 2);
        if let Some(term) = &self.term
            && self.host.keep_leading(term, until)
        {
            return true;
        }
        self.position = None;
        self.told_sealed.set(false);
        self.term = self.host.lead(now, until);
        self.term.is_some()
    }

    fn catch_up(&mut self) -> Result<(), StoreError> {
        let sent = self.host.now();
        let position = self.log.last()?;
        for batch in self.host.resident().chunks(BATCH) {
            self.compare(batch)?;
        }
        self.host.beat(sent);
        self.position = Some(position);
        Ok(())
    }

    fn follow(&mut self, position: Position, patience: Duration) -> Result<(), StoreError> {
        let sent = self.host.now();
        let Followed::Lines { changes, position } = self.log.follow(&position, patience)? else {
            return Ok(()); // the next turn catches up
        };
        self.hear(&changes)?;
        self.compare_some()?;
        self.host.beat(sent);
        self.position = Some(position);
        Ok(())
    }

    fn hear(&self, changes: &[Change]) -> Result<(), StoreError> {
        let news = |change: &&Change| {
            self.host.hear(&change.key, change.version, change.floor)
                && self.held(&change.key) < change.version
        };
        let mut keys: Vec<Key> =
            changes.iter().filter(news).map(|change| change.key.clone()).collect();
        keys.sort_unstable_by_key(Key::hash);
        keys.dedup();
        self.host.count(Counter::ChangesHeard, changes.len() as u64);
        keys.chunks(BATCH).try_for_each(|batch| self.compare(batch))
    }

    fn held(&self, key: &Key) -> Version {
        let entry = self.host.look(key).and_then(|known| known.entry);
        entry.map_or(Version::NONE, |entry| entry.version)
    }

    /// A bounded batch now and then.
    fn compare_some(&mut self) -> Result<(), StoreError> {
        let now = self.host.now();
        if self.to_compare.is_empty() {
            if now < self.compare_at {
                return Ok(());
            }
            self.compare_at = now.plus(COMPARE_EVERY);
            self.to_compare = self.host.resident();
        }
        let rest = self.to_compare.split_off(self.to_compare.len().min(BATCH));
        let batch = std::mem::replace(&mut self.to_compare, rest);
        self.compare(&batch)
    }

    /// Bring host and store to the same, newer state of each key.
    fn compare(&self, keys: &[Key]) -> Result<(), StoreError> {
        let now = self.host.now();
        let asked = |key| Asked { at: now, reservation: self.host.reserve(key) };
        let asked: Vec<Asked> = keys.iter().map(asked).collect();
        let replies = self.log.fetch(keys, now)?;
        for ((key, asked), Reply { floor, what }) in keys.iter().zip(asked).zip(replies) {
            self.host.raise_floor(key, floor);
            let what = match what {
                Fetched::Entry(entry) => Some(entry),
                Fetched::Nothing => None,
                // Neither to be read nor to be replaced by anything of ours.
                Fetched::Sealed(id) => {
                    self.tell_sealed(id);
                    continue;
                }
            };
            let stored = what.as_ref().map_or(Version::NONE, |entry| entry.version);
            let held = self.host.look(key).and_then(|known| known.entry);
            match held {
                // The store lost it, or has never heard of it.
                Some(held) if held.version > stored && held.servable(key.kind(), now) => {
                    self.give_back(key, &held, asked)?;
                }
                Some(held) if held.version == stored && !held.unsynced => {
                    self.host.confirm(key, stored, asked.at);
                }
                _ => {
                    if let Some(entry) = what.filter(|entry| entry.version >= floor) {
                        self.keep(key, &entry, asked);
                    }
                }
            }
        }
        Ok(())
    }

    fn tell_sealed(&self, id: KeyId) {
        if !self.told_sealed.replace(true) {
            log::warn!(
                "Redis has values sealed with key {id}, which this host does not have: it mints \
                 for itself until sharedstate.encryption_key_file holds that key"
            );
        }
    }

    fn give_back(&self, key: &Key, held: &Entry, asked: Asked) -> Result<(), StoreError> {
        let entry = Entry { unsynced: false, ..held.clone() };
        let reply = self.store.restore(key, &entry, asked.at)?;
        self.host.raise_floor(key, reply.floor);
        match reply.what {
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
    }
}
