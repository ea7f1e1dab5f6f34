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

/// Keys compared in one question.
const BATCH: usize = 256;
/// After this a comparison goes on in the next turn.
const ENOUGH: Duration = Duration::from_millis(250);
/// How often a batch of resident keys is compared with the store although nothing was heard of:
/// a store that lost what it had (FLUSHALL, a lossy fail-over) writes no line about it.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

pub struct Leader {
    host: Arc<dyn Host>,
    store: Arc<dyn Store>,
    log: Arc<dyn ChangeLog>,
    max_staleness: Duration,
    /// The term of our leadership.
    term: Option<Right>,
    /// `None` after a gap.
    reading: Option<Reading>,
    /// Resident keys still to be compared, although nothing was heard of them.
    sweep: Vec<Key>,
    sweep_at: Moment,
    /// Whether this term has said that it cannot read what others have sealed.
    told_sealed: Cell<bool>,
    /// Whether it has said that there is something else under a key of ours.
    told_foreign: Cell<bool>,
}

/// How far the log was read, and what of it is still to be carried out.
struct Reading {
    position: Position,
    /// When the question was sent that led here.
    sent: Moment,
    /// To be compared before the heartbeat may say so.
    keys: Vec<Key>,
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
            reading: None,
            sweep: Vec::new(),
            sweep_at: Moment::default(),
            told_sealed: Cell::new(false),
            told_foreign: Cell::new(false),
        }
    }

    /// One step: lead if nobody does, and then follow the log for at most `patience`. However much there
    /// is to do and however slow the store, a step is short: who calls it has leases to renew, and our
    /// own term to keep.
    /// `false`: somebody else leads, or the store cannot be asked; come back a little later.
    pub fn turn(&mut self, patience: Duration) -> bool {
        if !self.leads() || !self.host.authority_allowed(self.host.now()) {
            self.reading = None;
            return false;
        }
        let read = match self.reading.take() {
            None => self.catch_up(),
            Some(reading) if reading.keys.is_empty() => self.follow(&reading.position, patience),
            unfinished => Ok(unfinished),
        };
        let turned = read.and_then(|reading| self.carry_out(reading));
        self.host.count_noticed(self.log.noticed());
        // No failure of the store, so nobody else says it.
        if let Err(StoreError::Foreign(why)) = &turned
            && !self.told_foreign.replace(true)
        {
            log::warn!("{why}; this host hears of no change elsewhere");
        }
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
        self.reading = None;
        self.told_sealed.set(false);
        self.told_foreign.set(false);
        self.term = self.host.lead(now, until);
        if self.term.is_some() {
            log::info!("this process follows the change log for its host");
        }
        self.term.is_some()
    }

    fn catch_up(&mut self) -> Result<Option<Reading>, StoreError> {
        let sent = self.host.now();
        let position = self.log.last()?;
        self.sweep_at = sent.plus(SWEEP_EVERY);
        Ok(Some(Reading { position, sent, keys: self.host.resident() }))
    }

    /// `None` for a gap.
    fn follow(&self, after: &Position, patience: Duration) -> Result<Option<Reading>, StoreError> {
        let sent = self.host.now();
        Ok(match self.log.follow(after, patience)? {
            Followed::Gap => None,
            Followed::Lines { changes, position } => {
                Some(Reading { position, sent, keys: self.hear(&changes) })
            }
        })
    }

    fn carry_out(&mut self, reading: Option<Reading>) -> Result<(), StoreError> {
        let Some(mut reading) = reading else { return Ok(()) };
        self.compare_some(&mut reading.keys)?;
        if reading.keys.is_empty() {
            self.host.beat(reading.sent);
            self.sweep()?;
        }
        self.reading = Some(reading);
        Ok(())
    }

    /// The keys of which there is something newer.
    fn hear(&self, changes: &[Change]) -> Vec<Key> {
        let news = |change: &&Change| {
            let told = change.news.unwrap_or_default();
            self.host.hear(&change.key, told.version, told.floor)
                && (change.news.is_none() || self.held(&change.key) < told.version)
        };
        let mut keys: Vec<Key> =
            changes.iter().filter(news).map(|change| change.key.clone()).collect();
        keys.sort_unstable_by_key(Key::hash);
        keys.dedup();
        self.host.count(Counter::ChangesHeard, changes.len() as u64);
        keys
    }

    fn held(&self, key: &Key) -> Version {
        let entry = self.host.look(key).and_then(|known| known.entry);
        entry.map_or(Version::NONE, |entry| entry.version)
    }

    /// A batch of everything now and then.
    fn sweep(&mut self) -> Result<(), StoreError> {
        let now = self.host.now();
        if self.sweep.is_empty() && now >= self.sweep_at {
            self.sweep_at = now.plus(SWEEP_EVERY);
            self.sweep = self.host.resident();
        }
        let mut keys = std::mem::take(&mut self.sweep);
        let swept = self.compare_some(&mut keys);
        self.sweep = keys;
        swept
    }

    fn compare_some(&self, keys: &mut Vec<Key>) -> Result<(), StoreError> {
        if keys.is_empty() {
            return Ok(());
        }
        let done = self.compare(&keys[..keys.len().min(BATCH)])?;
        keys.drain(..done);
        Ok(())
    }

    /// Bring host and store to the same, newer state of each key. How many there was time for, one at
    /// the least: to give an entry back takes a question of its own.
    fn compare(&self, keys: &[Key]) -> Result<usize, StoreError> {
        let now = self.host.now();
        let asked = |key| Asked { at: now, reservation: self.host.reserve(key) };
        let asked: Vec<Asked> = keys.iter().map(asked).collect();
        let replies = self.log.fetch(keys, now)?;
        let questions = keys.iter().zip(asked).zip(replies);
        for (done, ((key, asked), Reply { floor, what })) in questions.enumerate() {
            if done > 0 && now.until(self.host.now()) > ENOUGH {
                return Ok(done);
            }
            self.host.raise_floor(key, floor);
            let what = match what {
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
            let stored = what.as_ref().map_or(Version::NONE, |entry| entry.version);
            let held = self.host.look(key).and_then(|known| known.entry);
            match held {
                // The store lost it, or has never heard of it.
                Some(held)
                    if held.version > stored.max(Version::FILE)
                        && held.servable(key.kind(), now) =>
                {
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
        Ok(keys.len())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock as _;
    use crate::clock::fake::FakeClock;
    use crate::entry::{Fingerprint, Kind, Timing, TokenPolicy};
    use crate::store::faulty::{Fault, FaultyStore};
    use crate::store::memory::MemoryHost;

    /// Nothing is ever said in it, and there is nothing in its store.
    struct SilentLog;

    impl ChangeLog for SilentLog {
        fn last(&self) -> Result<Position, StoreError> {
            Ok(Position(String::new()))
        }

        fn follow(&self, at: &Position, _: Duration) -> Result<Followed, StoreError> {
            Ok(Followed::Lines { changes: Vec::new(), position: at.clone() })
        }

        fn fetch(&self, keys: &[Key], _: Moment) -> Result<Vec<Reply<Fetched>>, StoreError> {
            let nothing = |_| Reply { floor: Version::NONE, what: Fetched::Nothing };
            Ok(keys.iter().map(nothing).collect())
        }
    }

    #[test]
    fn with_much_to_give_back_to_a_slow_store_each_turn_is_short_and_the_heartbeat_waits_for_all() {
        const KEYS: u64 = 20;
        let clock = Arc::new(FakeClock::at(1_000));
        let host = Arc::new(MemoryHost::new(clock.clone()));
        let store = Arc::new(FaultyStore::new(Arc::new(MemoryHost::new(clock.clone()))));
        let policy = TokenPolicy { margin: Duration::ZERO, refresh_ratio: 0.8 };
        let (timing, _) = Timing::token(clock.now(), Duration::from_secs(3600), policy);
        let key = |n: u64| {
            Key::new(Kind::Token, n.to_string().as_bytes(), Fingerprint::default()).unwrap()
        };
        for n in 0..KEYS {
            let (value, detail) = (b"token".to_vec().into(), Vec::new().into());
            let entry = Entry { version: Version(7), timing, unsynced: false, value, detail };
            Store::restore(&*host, &key(n), &entry, clock.now()).unwrap();
            let clock = clock.clone();
            let slow = move || clock.advance(Duration::from_millis(100));
            store.strike(n, Fault::Meanwhile(Box::new(slow)));
        }
        let log = Arc::new(SilentLog);
        let mut leader = Leader::new(host.clone(), store.clone(), log, Duration::from_secs(1));
        let before_all = clock.now();
        clock.advance(Duration::from_millis(1));
        let confirmed_at = |n| host.look(&key(n)).unwrap().confirmed_at;
        while store.operations() < KEYS {
            let (before, given_back) = (clock.now(), store.operations());
            assert!((0..KEYS).any(|n| confirmed_at(n) <= before_all), "not all is compared");
            assert!(leader.turn(Duration::ZERO));
            assert!(store.operations() > given_back, "every turn gets on");
            assert!(before.until(clock.now()) <= ENOUGH + Duration::from_millis(100));
        }
        leader.turn(Duration::ZERO);
        assert!((0..KEYS).all(|n| confirmed_at(n) > before_all));
    }
}
