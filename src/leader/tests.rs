//! The leader in simulated time, over a log and rows that do what a test says.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use super::machine::ENOUGH;
use super::*;
use crate::clock::fake::FakeClock;
use crate::clock::server::ServerTime;
use crate::clock::{Clock as _, Moment};
use crate::entry::{Fingerprint, Kind, Timing, TokenPolicy};
use crate::lock::Mutex;
use crate::store::faulty::{Fault, FaultyStore};
use crate::store::log::{Looked, News as Told};
use crate::store::memory::MemoryHost;

const STALENESS: Duration = Duration::from_secs(1);
const TURN: Duration = Duration::from_millis(150);

/// What the server has, and how it answers.
struct FakeLog {
    clock: Arc<FakeClock>,
    state: Mutex<State>,
    /// Keys in questions about versions, and about values.
    compared: AtomicUsize,
    fetched: AtomicUsize,
    questions: AtomicUsize,
}

#[derive(Default)]
struct State {
    rows: HashMap<Key, Entry>,
    lines: BTreeMap<u64, Change>,
    /// Whether the connection was looked at, and which server it was.
    looked_at: bool,
    /// Added to the server's clock.
    clock: i64,
    /// Only so many keys fit into an answer that comes in time.
    fits: Option<usize>,
    /// One in so many questions is not answered.
    flaky: Option<usize>,
    /// How long an answer about the log takes.
    slow: Duration,
    /// So long it takes to fetch values.
    slow_values: Duration,
    /// What happens while the next values are on their way; they never come if it says so.
    meanwhile: Option<Box<dyn FnOnce() -> bool + Send>>,
}

impl FakeLog {
    fn new(clock: &Arc<FakeClock>) -> Arc<Self> {
        Arc::new(Self {
            clock: clock.clone(),
            state: Mutex::default(),
            compared: AtomicUsize::new(0),
            fetched: AtomicUsize::new(0),
            questions: AtomicUsize::new(0),
        })
    }

    /// Somebody elsewhere commits.
    fn commit(&self, key: &Key, entry: Entry) {
        let news = Told { version: entry.version, floor: Version::NONE };
        self.say(key, Some(news));
        self.state.lock().rows.insert(key.clone(), entry);
    }

    fn say(&self, key: &Key, news: Option<Told>) {
        let mut state = self.state.lock();
        let next = state.lines.last_key_value().map_or(1, |(line, _)| line + 1);
        state.lines.insert(next, Change { key: key.clone(), news });
    }

    /// The log is gone, and so is what it said.
    fn lose_lines(&self) {
        let mut state = self.state.lock();
        state.lines.clear();
    }

    fn reconnect(&self) {
        self.state.lock().looked_at = false;
    }

    fn answers(&self, keys: usize) -> Result<(), StoreError> {
        let asked = self.questions.fetch_add(1, SeqCst);
        let state = self.state.lock();
        let mixed = asked.wrapping_mul(0x9e37_79b1) >> 16;
        let lost = state.flaky.is_some_and(|one_in| mixed.is_multiple_of(one_in));
        if lost || state.fits.is_some_and(|fits| keys > fits) {
            return Err(StoreError::Lapsed("no answer in time".into()));
        }
        Ok(())
    }

    fn anchor(line: u64) -> Anchor {
        Anchor { line: (line, 0), digest: line * 31 }
    }
}

impl ChangeLog for FakeLog {
    fn look(&self, anchor: Option<&Anchor>) -> Result<Looked, StoreError> {
        self.answers(0)?;
        let mut state = self.state.lock();
        let continued = std::mem::replace(&mut state.looked_at, true);
        let last = state
            .lines
            .last_key_value()
            .map_or_else(Anchor::default, |(line, _)| Self::anchor(*line));
        let stands = anchor.is_some_and(|anchor| {
            let empty = *anchor == Anchor::default();
            state.lines.contains_key(&anchor.line.0)
                || (empty && (continued || state.lines.is_empty()))
        });
        let clock = self.clock.now().as_millis() + 500_000 + state.clock;
        let at = Moment::from_millis(self.clock.now().as_millis());
        let told = ServerTime { clock, sent: at, heard: at };
        Ok(Looked { stands, last, told, set_back: false })
    }

    fn follow(&self, anchor: &Anchor, patience: Duration) -> Result<Followed, StoreError> {
        self.answers(0)?;
        if !self.state.lock().looked_at {
            return Ok(Followed::Unknown);
        }
        let lines = |state: &State| -> Vec<(u64, Change)> {
            let after = state.lines.range(anchor.line.0 + 1..);
            after.map(|(line, change)| (*line, change.clone())).collect()
        };
        let slow = self.state.lock().slow;
        let mut found = lines(&self.state.lock());
        if found.is_empty() {
            self.clock.advance(patience);
        }
        // What is said after the answer left is not in it.
        self.clock.advance(slow);
        if found.is_empty() && slow.is_zero() {
            found = lines(&self.state.lock());
        }
        let anchor = found.last().map_or(*anchor, |(line, _)| Self::anchor(*line));
        Ok(Followed::Lines {
            changes: found.into_iter().map(|(_, change)| change).collect(),
            anchor,
        })
    }

    fn versions(&self, keys: &[Key], _: Moment) -> Result<Vec<Reply<Stored>>, StoreError> {
        self.answers(keys.len())?;
        self.compared.fetch_add(keys.len(), SeqCst);
        let state = self.state.lock();
        let stored = |key| match state.rows.get(key) {
            None => Stored::NOTHING,
            Some(Entry { version, timing, .. }) => {
                Stored::Version { version: *version, usable_until: timing.usable_until }
            }
        };
        Ok(keys.iter().map(|key| Reply { floor: Version::NONE, what: stored(key) }).collect())
    }

    fn fetch(&self, keys: &[Key], _: Moment) -> Result<Vec<Reply<Fetched>>, StoreError> {
        self.answers(keys.len())?;
        self.fetched.fetch_add(keys.len(), SeqCst);
        let slow = self.state.lock().slow_values;
        self.clock.advance(slow);
        let meanwhile = self.state.lock().meanwhile.take();
        if meanwhile.is_some_and(|happens| happens()) {
            return Err(StoreError::Lapsed("no answer in time".into()));
        }
        let state = self.state.lock();
        let stored = |key| state.rows.get(key).cloned().map_or(Fetched::Nothing, Fetched::Entry);
        Ok(keys.iter().map(|key| Reply { floor: Version::NONE, what: stored(key) }).collect())
    }
}

struct Scene {
    clock: Arc<FakeClock>,
    host: Arc<MemoryHost>,
    store: Arc<FaultyStore>,
    log: Arc<FakeLog>,
    leader: Leader,
}

impl Scene {
    fn new() -> Self {
        let clock = Arc::new(FakeClock::at(1_000_000));
        let host = Arc::new(MemoryHost::new(clock.clone()));
        let store = Arc::new(FaultyStore::new(Arc::new(MemoryHost::new(clock.clone()))));
        let log = FakeLog::new(&clock);
        let leader = Leader::new(host.clone(), store.clone(), log.clone(), STALENESS);
        Self { clock, host, store, log, leader }
    }

    /// This host and the store have so many keys, of version 7.
    fn with_keys(keys: u64) -> Self {
        let scene = Self::new();
        for n in 0..keys {
            scene.have(&key(n), 7);
            scene.log.commit(&key(n), scene.entry(7));
        }
        scene
    }

    fn entry(&self, version: u64) -> Entry {
        let policy = TokenPolicy { margin: Duration::ZERO, refresh_ratio: 0.8 };
        let (timing, _) = Timing::token(self.clock.now(), Duration::from_secs(36_000), policy);
        let (value, detail) = (b"token".to_vec().into(), Vec::new().into());
        Entry { version: Version(version), timing, unsynced: false, value, detail }
    }

    fn have(&self, key: &Key, version: u64) {
        Store::restore(&*self.host, key, &self.entry(version), self.clock.now()).unwrap();
    }

    fn turn(&mut self) -> bool {
        self.leader.turn(TURN)
    }

    fn turns(&mut self, seconds: u64) {
        let end = self.clock.now().plus(Duration::from_secs(seconds));
        while self.clock.now() < end {
            let before = self.clock.now();
            self.turn();
            if self.clock.now() == before {
                self.clock.advance(TURN);
            }
        }
    }

    fn confirmed_at(&self, key: &Key) -> Moment {
        self.host.look(key).unwrap().confirmed_at
    }

    fn version(&self, key: &Key) -> Option<u64> {
        self.host.look(key)?.entry.map(|entry| entry.version.0)
    }

    /// How many entries the last heartbeat vouches for.
    fn vouched(&self, keys: u64) -> usize {
        let heartbeat = self.host.health().heartbeat;
        (0..keys).filter(|n| self.confirmed_at(&key(*n)) >= heartbeat).count()
    }
}

fn key(n: u64) -> Key {
    Key::new(Kind::Token, n.to_string().as_bytes(), Fingerprint::default()).unwrap()
}

#[test]
fn what_is_committed_elsewhere_is_here_after_the_next_turn() {
    let mut scene = Scene::with_keys(1);
    scene.turn();
    let newer = scene.entry(8);
    scene.log.commit(&key(0), newer);
    scene.turn();
    assert_eq!(scene.version(&key(0)), Some(8));
    assert_eq!(scene.vouched(1), 1);
}

#[test]
fn a_heartbeat_has_the_time_at_which_the_question_was_sent() {
    let mut scene = Scene::with_keys(1);
    scene.turn();
    scene.log.state.lock().slow = Duration::from_millis(700);
    let sent = scene.clock.now();
    assert!(scene.turn());
    let answered = scene.clock.now();
    assert!(scene.host.health().heartbeat <= sent.plus(TURN), "of {sent:?}, answered {answered:?}");
}

#[test]
fn what_is_newer_is_marked_before_its_value_is_fetched() {
    let mut scene = Scene::with_keys(1);
    let newer = scene.entry(8);
    scene.log.commit(&key(0), newer);
    scene.log.lose_lines();
    scene.log.state.lock().meanwhile = Some(Box::new(|| true));
    scene.turn();
    assert_eq!(scene.version(&key(0)), Some(7), "its value has not come");
    assert_eq!(scene.host.look(&key(0)).unwrap().newest, Version(8));
}

#[test]
fn a_value_fetched_for_a_place_that_changed_hands_is_not_kept() {
    let mut scene = Scene::with_keys(1);
    scene.turn();
    let newer = scene.entry(8);
    scene.log.commit(&key(0), newer);
    let host = scene.host.clone();
    scene.log.state.lock().meanwhile = Some(Box::new(move || {
        host.evict(&key(0));
        let now = host.now();
        host.board(&key(0), now.plus(STALENESS), now).unwrap();
        false
    }));
    scene.turn();
    assert_eq!(scene.version(&key(0)), None);
}

#[test]
fn what_was_there_before_the_leader_is_vouched_for_only_when_it_was_compared() {
    let mut scene = Scene::with_keys(1);
    let newer = scene.entry(8);
    // Committed while nobody followed; no line of it is left.
    scene.log.commit(&key(0), newer);
    scene.log.lose_lines();
    let before = scene.clock.now();
    // The comparison gets no answer, and the log does.
    scene.log.state.lock().fits = Some(0);
    scene.turns(1);
    assert!(scene.host.health().heartbeat > before, "the heart beats");
    assert!(scene.confirmed_at(&key(0)) < before, "an entry is vouched for that is not the newest");
    scene.log.state.lock().fits = None;
    scene.turns(1);
    assert_eq!(scene.version(&key(0)), Some(8));
    assert_eq!(scene.vouched(1), 1);
}

#[test]
fn what_comes_in_while_all_is_in_doubt_is_vouched_for_if_it_was_asked_for_after_that() {
    let mut scene = Scene::with_keys(300);
    scene.turn();
    scene.log.lose_lines();
    let before = scene.clock.now();
    let reserve = |key: &Key| scene.host.reserve(key);
    let (late, fresh) = (key(298), key(299));
    let asked_before = Asked { at: before, reservation: reserve(&late) };
    scene.clock.advance(Duration::from_secs(2));
    let (host, newer) = (scene.host.clone(), scene.entry(8));
    scene.turn();
    let asked_after =
        Asked { at: scene.clock.now().plus_millis(1), reservation: host.reserve(&fresh) };
    host.adopt(&late, &newer, asked_before).unwrap();
    host.adopt(&fresh, &newer, asked_after).unwrap();
    scene.clock.advance(Duration::from_millis(5));
    scene.turn();
    let heartbeat = host.health().heartbeat;
    assert!(scene.confirmed_at(&late) < heartbeat);
    assert!(scene.confirmed_at(&fresh) >= heartbeat);
}

#[test]
fn on_a_new_connection_it_goes_on_from_its_anchor_and_compares_nothing() {
    let mut scene = Scene::with_keys(2_000);
    scene.turns(60);
    let compared = scene.log.compared.load(SeqCst);
    let newer = scene.entry(8);
    scene.log.commit(&key(3), newer);
    scene.log.reconnect();
    scene.turn();
    assert_eq!(scene.version(&key(3)), Some(8));
    assert_eq!(scene.vouched(2_000), 2_000);
    assert!(scene.log.compared.load(SeqCst) - compared <= 256, "as at rest");
}

#[test]
fn the_next_leader_of_a_host_goes_on_from_the_anchor_of_the_last() {
    let mut scene = Scene::with_keys(2_000);
    scene.turns(60);
    let (compared, newer) = (scene.log.compared.load(SeqCst), scene.entry(8));
    scene.leader.resign();
    scene.log.commit(&key(3), newer);
    scene.log.reconnect();
    let (host, store, log) = (scene.host.clone(), scene.store.clone(), scene.log.clone());
    scene.leader = Leader::new(host, store, log, STALENESS);
    scene.turn();
    assert_eq!(scene.version(&key(3)), Some(8));
    assert_eq!(scene.vouched(2_000), 2_000);
    assert!(scene.log.compared.load(SeqCst) - compared <= 256, "as at rest");
}

#[test]
fn the_next_leader_of_a_host_compares_what_the_last_left_in_doubt() {
    let mut scene = Scene::with_keys(2_000);
    scene.turn();
    assert!(scene.vouched(2_000) < 2_000, "one batch was compared");
    scene.leader.resign();
    let (host, store, log) = (scene.host.clone(), scene.store.clone(), scene.log.clone());
    scene.leader = Leader::new(host, store, log, STALENESS);
    scene.turns(60);
    assert_eq!(scene.vouched(2_000), 2_000);
    assert_eq!(scene.host.in_doubt(), None);
}

#[test]
fn a_log_that_was_lost_is_noticed_within_a_second_and_the_heart_beats_on() {
    let mut scene = Scene::with_keys(5_000);
    scene.turns(120);
    assert_eq!(scene.vouched(5_000), 5_000);
    scene.log.lose_lines();
    scene.turns(2);
    let vouched = scene.vouched(5_000);
    assert!((256..5_000).contains(&vouched), "{vouched} compared at once");
    let before = scene.host.health().heartbeat;
    scene.turns(1);
    assert!(scene.host.health().heartbeat > before, "whatever is still to be compared");
    scene.turns(100);
    assert_eq!(scene.vouched(5_000), 5_000);
}

#[test]
fn what_is_in_doubt_is_compared_at_a_bounded_rate() {
    let mut scene = Scene::with_keys(10_000);
    scene.turns(200);
    scene.log.lose_lines();
    let compared = scene.log.compared.load(SeqCst);
    let (mut most, mut seconds) = (0, 0);
    while seconds < 2 || scene.host.in_doubt().is_some() {
        let before = scene.log.compared.load(SeqCst);
        scene.turns(1);
        most = most.max(scene.log.compared.load(SeqCst) - before);
        seconds += 1;
        assert!(seconds < 200, "still in doubt");
    }
    // The first batch, a second of the pace, and what was compared at rest before the loss was noticed.
    assert!(most <= 256 + 2 * 64 + 160, "{most} keys in a second");
    let all = scene.log.compared.load(SeqCst) - compared;
    assert!((10_000..11_000).contains(&all), "{all} in all");
    assert_eq!(scene.vouched(10_000), 10_000);
}

#[test]
fn at_rest_two_kilobytes_a_second_are_compared_whatever_there_is_and_no_value() {
    for keys in [5, 10_000] {
        let mut scene = Scene::with_keys(keys);
        scene.turns(200);
        let before = [&scene.log.compared, &scene.log.fetched].map(|count| count.load(SeqCst));
        scene.turns(60);
        let after = [&scene.log.compared, &scene.log.fetched].map(|count| count.load(SeqCst));
        let compared = after[0] - before[0];
        assert!((12 * 5..=13 * 160).contains(&compared), "{compared} of {keys} in a minute");
        assert_eq!(after[1] - before[1], 0);
    }
}

#[test]
fn at_rest_every_key_has_its_turn_and_a_row_that_was_lost_comes_back() {
    let mut scene = Scene::with_keys(200);
    scene.turns(10);
    scene.log.state.lock().rows.remove(&key(150));
    let before = scene.store.operations();
    scene.turns(25);
    assert!(scene.store.operations() > before, "nothing was given back");
}

#[test]
fn a_comparison_that_is_interrupted_goes_on_where_it_was() {
    let mut scene = Scene::with_keys(10_000);
    scene.log.state.lock().flaky = Some(10);
    scene.turns(300);
    assert_eq!(scene.vouched(10_000), 10_000);
    assert!(scene.log.compared.load(SeqCst) < 16_000, "it began anew and anew");
}

#[test]
fn a_question_whose_answer_does_not_come_in_time_is_asked_about_fewer_keys() {
    for fits in [1, 3, 100] {
        let mut scene = Scene::with_keys(300);
        scene.log.state.lock().fits = Some(fits);
        scene.turns(200);
        assert_eq!(scene.vouched(300), 300, "{fits} at a time");
    }
}

#[test]
fn of_two_copies_of_one_version_a_host_keeps_the_earlier_deadlines() {
    let mut scene = Scene::new();
    scene.have(&key(0), 7);
    let mut stored = scene.entry(7);
    for instant in [&mut stored.timing.usable_until, &mut stored.timing.expires_at] {
        *instant = instant.plus_millis(-36_100_000);
    }
    scene.log.commit(&key(0), stored);
    scene.turn();
    let entry = scene.host.look(&key(0)).unwrap().entry.unwrap();
    assert!(!entry.servable(Kind::Token, scene.clock.now()), "the store says that it has ended");
}

#[test]
fn a_host_that_stood_still_hears_it_from_the_servers_clock() {
    let mut scene = Scene::with_keys(1);
    scene.turns(3);
    let entry = || scene.host.look(&key(0)).unwrap().entry.unwrap();
    assert!(entry().servable(Kind::Token, scene.clock.now()));
    scene.log.state.lock().clock += 36_000_000;
    scene.log.reconnect();
    scene.turn();
    let entry = scene.host.look(&key(0)).unwrap().entry.unwrap();
    assert!(!entry.servable(Kind::Token, scene.clock.now()));
}

#[test]
fn a_line_that_cannot_be_believed_is_asked_about() {
    let mut scene = Scene::with_keys(1);
    scene.turn();
    let newer = scene.entry(8);
    scene.log.state.lock().rows.insert(key(0), newer);
    scene.log.say(&key(0), None);
    scene.turn();
    assert_eq!(scene.version(&key(0)), Some(8));
}

#[test]
fn a_lease_that_was_given_back_wakes_who_waits_for_it() {
    let mut scene = Scene::with_keys(1);
    scene.turn();
    scene.host.set_busy(&key(0), scene.clock.now().plus(Duration::from_secs(60)));
    let bell = scene.host.look(&key(0)).unwrap().bell;
    scene.log.say(&key(0), Some(Told::default()));
    scene.turn();
    let known = scene.host.look(&key(0)).unwrap();
    assert_eq!(known.busy_until, Moment::default());
    assert_ne!(known.bell, bell);
}

#[test]
fn a_lost_log_wakes_who_waits_for_another_host() {
    let mut scene = Scene::with_keys(1);
    scene.turn();
    scene.host.set_busy(&key(0), scene.clock.now().plus(Duration::from_secs(60)));
    scene.log.lose_lines();
    scene.turns(2);
    assert_eq!(scene.host.look(&key(0)).unwrap().busy_until, Moment::default());
}

#[test]
fn with_much_to_give_back_to_a_slow_store_each_turn_is_short() {
    const KEYS: u64 = 20;
    let mut scene = Scene::new();
    for n in 0..KEYS {
        scene.have(&key(n), 7);
        let clock = scene.clock.clone();
        let slow = move || clock.advance(Duration::from_millis(100));
        scene.store.strike(n, Fault::Meanwhile(Box::new(slow)));
    }
    // In the first turn all is put in doubt.
    assert!(scene.leader.turn(Duration::ZERO));
    scene.clock.advance(Duration::from_millis(20));
    let mut beats = 0;
    while scene.store.operations() < KEYS {
        let (before, heartbeat) = (scene.clock.now(), scene.host.health().heartbeat);
        let given_back = scene.store.operations();
        assert!(scene.leader.turn(Duration::ZERO));
        assert!(scene.store.operations() > given_back, "every turn gets on");
        assert!(before.until(scene.clock.now()) <= ENOUGH + Duration::from_millis(100));
        beats += usize::from(scene.host.health().heartbeat > heartbeat);
    }
    assert!(beats > 3, "the heart beats meanwhile");
    scene.turns(1);
    assert_eq!(scene.vouched(KEYS), KEYS as usize);
}

#[test]
fn with_much_to_fetch_from_a_slow_store_each_turn_is_short() {
    const KEYS: u64 = 2_000;
    let mut scene = Scene::with_keys(KEYS);
    scene.turns(60);
    (0..KEYS).for_each(|n| scene.log.commit(&key(n), scene.entry(8)));
    let slow = Duration::from_millis(200);
    scene.log.state.lock().slow_values = slow;
    let before = scene.clock.now();
    scene.turn();
    let took = before.until(scene.clock.now());
    assert!(took <= ENOUGH + slow * 2, "{took:?}");
}

/// A worker asks, is told of the old one, and another host commits, all before the clock ticks; and in the same tick the
/// leader finds that it has missed something.
#[test]
fn what_was_confirmed_in_the_tick_of_the_doubt_is_compared() {
    let mut scene = Scene::with_keys(1);
    scene.turns(3);
    let tick = scene.clock.now();
    scene.host.confirm(&key(0), Version(7), tick);
    scene.log.lose_lines();
    let beat = scene.host.health().heartbeat;
    scene.host.doubt();
    scene.host.beat(tick.plus_millis(50), &scene.host.anchor().unwrap());
    assert!(scene.confirmed_at(&key(0)) <= beat.max(tick), "nobody has compared it since");
}
