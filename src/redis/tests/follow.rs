//! A host that follows the change log of a real server.

use std::sync::Arc;

use super::*;
use crate::clock::system::ProcessClock;
use crate::flight::{Engine, FlightError, Plan, Step};
use crate::leader::Leader;
use crate::redis::log::{Named, RedisLog};
use crate::store::Host as _;
use crate::store::log::{Anchor, Change, ChangeLog as _, Followed, News};
use crate::store::memory::MemoryHost;

const PATIENCE: Duration = Duration::from_millis(50);

struct Follower {
    host: Arc<MemoryHost>,
    leader: Leader,
}

impl Follower {
    fn of(server: &Server) -> Self {
        let host = Arc::new(MemoryHost::new(Arc::new(ProcessClock::start())));
        let log = Arc::new(RedisLog::new(server.config()));
        let store = Arc::new(server.store());
        let staleness = Duration::from_secs(1);
        Self { leader: Leader::new(host.clone(), store, log, staleness), host }
    }

    /// Until the leader has caught up with everything written so far.
    fn turn(&mut self) {
        for _ in 0..3 {
            self.leader.turn(PATIENCE);
        }
    }

    fn version(&self, key: &Key) -> Option<Version> {
        self.host.look(key)?.entry.map(|entry| entry.version)
    }

    /// Give the key a place, as a flight does.
    fn reserve(&self, key: &Key) {
        let now = crate::clock::Clock::now(&*self.host);
        let boarded = self.host.board(key, now.plus(Duration::from_secs(1)), now).unwrap();
        let crate::store::Boarding::Mine { right, .. } = boarded else { panic!("{boarded:?}") };
        self.host.leave(key, &right);
    }

    fn heartbeat(&self, key: &Key) -> Moment {
        self.host.look(key).unwrap().confirmed_at
    }
}

#[test]
fn a_commit_elsewhere_reaches_a_resident_key_and_no_other() {
    let server = Server::start();
    let mut follower = Follower::of(&server);
    let (here, elsewhere) = (key("here"), key("elsewhere"));
    follower.reserve(&here);
    follower.turn();
    let entry = mint(&server.store(), &here, 1, "one");
    mint(&server.store(), &elsewhere, 1, "two");
    follower.turn();
    assert_eq!(follower.version(&here), Some(entry.version));
    assert_eq!(follower.version(&elsewhere), None);
}

#[test]
fn an_invalidation_elsewhere_drops_the_entry_here() {
    let server = Server::start();
    let mut follower = Follower::of(&server);
    let crm = key("crm");
    follower.reserve(&crm);
    mint(&server.store(), &crm, 1, "one");
    follower.turn();
    assert!(follower.version(&crm).is_some());
    server.store().invalidate(&crm, None, Version::NONE, now()).unwrap();
    follower.turn();
    assert_eq!(follower.version(&crm), None);
}

#[test]
fn what_happened_before_the_leader_came_is_caught_up_with() {
    let server = Server::start();
    let crm = key("crm");
    let mut follower = Follower::of(&server);
    follower.reserve(&crm);
    let entry = mint(&server.store(), &crm, 1, "one");
    follower.leader.turn(PATIENCE);
    assert_eq!(follower.version(&crm), Some(entry.version));
}

#[test]
fn the_heartbeat_moves_without_any_change_and_stops_with_the_connection() {
    let server = Server::start();
    let crm = key("crm");
    let mut follower = Follower::of(&server);
    follower.reserve(&crm);
    mint(&server.store(), &crm, 1, "one");
    follower.turn();
    let first = follower.heartbeat(&crm);
    thread::sleep(Duration::from_millis(20));
    follower.turn();
    let second = follower.heartbeat(&crm);
    assert!(second > first);
    server.admin().tell("CLIENT KILL TYPE normal SKIPME yes");
    follower.leader.turn(PATIENCE);
    assert_eq!(follower.heartbeat(&crm), second, "a lost connection is a gap, not a heartbeat");
    follower.turn();
    assert!(follower.heartbeat(&crm) > second);
}

#[test]
fn a_store_that_lost_everything_gets_back_what_this_host_has() {
    let server = Server::start();
    let crm = key("crm");
    let mut follower = Follower::of(&server);
    follower.reserve(&crm);
    let entry = mint(&server.store(), &crm, 1, "one");
    follower.turn();
    server.admin().tell("FLUSHALL");
    server.admin().tell("CLIENT KILL TYPE normal SKIPME yes");
    follower.turn();
    follower.turn();
    let claim = claim_of(secret(9));
    let found = server.store().claim(&crm, &claim, now()).unwrap().what;
    assert!(matches!(&found, Claimed::Value(it) if it.version == entry.version), "{found:?}");
}

#[test]
fn on_a_new_connection_the_log_is_looked_at_and_goes_on_where_its_anchor_stands() {
    let server = Server::start();
    let log = RedisLog::new(server.config());
    mint(&server.store(), &key("first"), 1, "one");
    let anchor = log.look(None).unwrap().last;
    assert!(matches!(log.follow(&anchor, PATIENCE), Ok(Followed::Lines { .. })));
    server.admin().tell("CLIENT KILL TYPE normal SKIPME yes");
    assert!(log.follow(&anchor, PATIENCE).is_err());
    let missed = mint(&server.store(), &key("second"), 1, "two").version;
    assert_eq!(log.follow(&anchor, PATIENCE), Ok(Followed::Unknown));
    let looked = log.look(Some(&anchor)).unwrap();
    assert!(looked.stands);
    let followed = log.follow(&anchor, PATIENCE).unwrap();
    let Followed::Lines { changes, anchor } = followed else { panic!("{followed:?}") };
    let news = Some(News { version: missed, floor: Version::NONE });
    assert_eq!(changes, [Change { key: key("second"), news }]);
    let looked = log.look(Some(&anchor)).unwrap();
    assert!(looked.stands && looked.last == anchor);
}

#[test]
fn an_anchor_stands_where_its_line_is_and_says_what_it_said() {
    let server = Server::start();
    let mut admin = server.admin();
    let log = RedisLog::new(server.config());
    let empty = log.look(None).unwrap().last;
    assert_eq!(empty, Anchor::default());
    assert!(log.look(Some(&empty)).unwrap().stands, "nothing was ever said");
    admin.tell("XADD {sharedstate}:log 5000-7 key t:-:crm version 7 floor 0");
    assert!(log.look(Some(&empty)).unwrap().stands, "nothing was missed on this connection");
    let newcomer = RedisLog::new(server.config());
    assert!(!newcomer.look(Some(&empty)).unwrap().stands, "nobody knows what was cut off");
    let anchor = log.look(Some(&empty)).unwrap().last;
    assert_eq!(anchor.line, (5000, 7));
    assert!(newcomer.look(Some(&anchor)).unwrap().stands);
    for (lost, why) in [
        ("XTRIM {sharedstate}:log MAXLEN 0", "the line was trimmed"),
        ("DEL {sharedstate}:log", "the log is gone"),
        ("FLUSHALL", "everything is gone"),
    ] {
        admin.tell("DEL {sharedstate}:log");
        admin.tell("XADD {sharedstate}:log 5000-7 key t:-:crm version 7 floor 0");
        assert!(log.look(Some(&anchor)).unwrap().stands);
        admin.tell(lost);
        let looked = log.look(Some(&anchor)).unwrap();
        assert!(!looked.stands && looked.last == Anchor::default(), "{why}");
    }
    admin.tell("XADD {sharedstate}:log 5000-7 key t:-:crm version 8 floor 0");
    let looked = log.look(Some(&anchor)).unwrap();
    assert!(!looked.stands, "another server said something else at that moment");
    assert!(looked.last != anchor);
}

#[test]
fn a_look_tells_the_servers_clock() {
    let server = Server::start();
    let before = system::wall().unix_millis();
    let told = RedisLog::new(server.config()).look(None).unwrap().told.clock;
    assert!((before - 20..=system::wall().unix_millis() + 20).contains(&told), "{told}");
}

#[test]
fn lines_come_in_order_and_with_all_digits() {
    let server = Server::start();
    let log = RedisLog::new(server.config());
    let anchor = log.look(None).unwrap().last;
    let wanted: Vec<_> = (1..=5)
        .map(|n| {
            (key(&format!("key {n}")), mint(&server.store(), &key(&format!("key {n}")), n, "v"))
        })
        .collect();
    let followed = log.follow(&anchor, PATIENCE).unwrap();
    let Followed::Lines { changes, .. } = followed else { panic!("{followed:?}") };
    let heard: Vec<_> =
        changes.iter().map(|it| (it.key.clone(), it.news.unwrap().version)).collect();
    assert_eq!(heard, wanted.into_iter().map(|(k, e)| (k, e.version)).collect::<Vec<_>>());
}

#[test]
fn a_line_of_a_later_release_is_passed_over_and_one_that_cannot_be_read_is_asked_about() {
    let server = Server::start();
    let log = RedisLog::new(server.config());
    let anchor = log.look(None).unwrap().last;
    let minted = mint(&server.store(), &key("crm"), 1, "one");
    let mut admin = server.admin();
    for line in [
        "key v:-:page:home version 7 floor 0",
        "key z:0:crm version 7 floor 0 flags 3",
        "kind clear namespace page",
        "key t:-:odd version seven floor 0",
        "key t:-:far version 1 floor 9000000000000000000",
        "key t:-:more version 7 floor 1 kind later",
    ] {
        admin.tell(&format!("XADD {{sharedstate}}:log * {line}"));
    }
    let followed = log.follow(&anchor, PATIENCE).unwrap();
    let Followed::Lines { changes, anchor } = followed else { panic!("{followed:?}") };
    let news = |version, floor| Some(News { version, floor });
    let heard = [
        ("crm", news(minted.version, Version::NONE)),
        ("odd", None),
        ("far", None),
        ("more", news(Version(7), Version(1))),
    ];
    assert_eq!(changes, heard.map(|(name, news)| Change { key: key(name), news }));
    let followed = log.follow(&anchor, PATIENCE).unwrap();
    assert_eq!(followed, Followed::Lines { changes: Vec::new(), anchor });
}

#[test]
fn a_key_that_is_no_row_of_ours_keeps_no_other_from_being_compared() {
    let server = Server::start();
    let mut follower = Follower::of(&server);
    let (crm, other_type, no_number) = (key("crm"), key("type"), key("number"));
    for key in [&crm, &other_type, &no_number] {
        follower.reserve(key);
        mint(&server.store(), key, 1, "one");
    }
    let mut admin = server.admin();
    admin.tell("SET {sharedstate}:v:t:-:type text");
    admin.tell("HSET {sharedstate}:v:t:-:number ver text");
    follower.turn();
    assert!(follower.version(&crm).is_some());
    let first = follower.heartbeat(&crm);
    thread::sleep(Duration::from_millis(20));
    follower.turn();
    assert!(follower.heartbeat(&crm) > first, "the host never becomes coherent");
}

#[test]
fn a_comparison_that_an_acl_denies_is_a_refusal_and_no_foreign_key() {
    let server = Server::start();
    server.admin().tell("ACL SETUSER app on >pw ~* +@all -hmget");
    let log = RedisLog::new(server.tcp("app:pw@", ""));
    let denied = log.fetch(&[key("crm")], now());
    assert!(
        matches!(&denied, Err(StoreError::Refused(why)) if why.contains("ACL LOG")),
        "{denied:?}"
    );
}

#[test]
fn a_server_that_was_demoted_is_not_followed_although_it_answers() {
    let server = Server::start();
    let log = RedisLog::new(server.config());
    let anchor = log.look(None).unwrap().last;
    assert!(matches!(log.follow(&anchor, PATIENCE), Ok(Followed::Lines { .. })));
    server.admin().tell("REPLICAOF 127.0.0.1 1");
    assert!(matches!(log.look(Some(&anchor)), Err(StoreError::Refused(_))));
    assert_eq!(log.follow(&anchor, PATIENCE), Ok(Followed::Unknown), "nor on another connection");
}

#[test]
fn a_connection_that_was_replaced_between_two_questions_is_not_followed() {
    let server = Server::start();
    let log = RedisLog::new(server.config());
    let anchor = log.look(None).unwrap().last;
    server.admin().tell("CLIENT KILL TYPE normal SKIPME yes");
    let now = now();
    // The first notices, the second is asked on a new one.
    drop(log.fetch(&[key("crm")], now));
    log.fetch(&[key("crm")], now).unwrap();
    assert_eq!(log.follow(&anchor, PATIENCE), Ok(Followed::Unknown));
}

#[test]
fn the_log_names_each_key_once_over_as_many_pages_as_it_takes() {
    let server = Server::start();
    let (store, log) = (server.store(), RedisLog::new(server.config()));
    assert_eq!(log.named().unwrap().keys, []);
    for n in 1..=3 {
        mint(&store, &key("crm"), n, "one");
        store.invalidate(&key("crm"), None, Version::NONE, now()).unwrap();
    }
    mint(&store, &key("a b:{c}"), 9, "two");
    server.admin().tell("XADD {sharedstate}:log * key nonsense version 1 floor 0");
    for page in [1, 2, 8, 9] {
        let mut named = log.named_by(page).unwrap();
        named.keys.sort_unstable_by(|one, other| one.name().cmp(other.name()));
        assert_eq!(named, Named { keys: vec![key("a b:{c}"), key("crm")], cut_at: None });
    }
}

#[test]
fn a_log_that_was_cut_says_since_when_it_is_whole() {
    let server = Server::start();
    let mut admin = server.admin();
    admin.tell("XADD {sharedstate}:log 5000-7 key t:-:first version 1 floor 0");
    for number in 1..10_000 {
        let second = 6_000 + number;
        admin.tell(&format!("XADD {{sharedstate}}:log {second}-0 key t:-:crm version 1 floor 0"));
    }
    let named = RedisLog::new(server.config()).named().unwrap();
    assert_eq!((named.keys.len(), named.cut_at), (2, Some(5000)));
}

/// How many questions a host has sent that waits for two seconds for what another mints.
fn asked_in_two_seconds(
    server: &Server,
    engine: &Engine,
    host: &MemoryHost,
    store: &RedisStore,
) -> u64 {
    let minter = server.store();
    lease(&minter, &key("crm"), 1);
    let now = crate::clock::Clock::now(host);
    let plan = Plan { wait_until: now.plus(Duration::from_secs(2)), ..Plan::usual(now) };
    let before = store.commands_sent();
    let Step::Failed(FlightError::WaitTimeout) = engine.begin(&key("crm"), &plan) else {
        panic!("the other host mints all the while")
    };
    store.commands_sent() - before
}

#[test]
fn a_host_that_waits_for_anothers_mint_asks_now_and_then() {
    let server = Server::start();
    let host = Arc::new(MemoryHost::new(Arc::new(ProcessClock::start())));
    let store = Arc::new(server.store());
    let engine = Engine::new(host.clone(), Some(store.clone()));
    let asked = asked_in_two_seconds(&server, &engine, &host, &store);
    assert!((5..=16).contains(&asked), "{asked} questions");
}

#[test]
fn a_host_that_waits_for_anothers_mint_asks_once_while_its_leader_follows() {
    let server = Server::start();
    let host = Arc::new(MemoryHost::new(Arc::new(ProcessClock::start())));
    let store = Arc::new(server.store());
    let log = Arc::new(RedisLog::new(server.config()));
    let leader = Leader::new(host.clone(), store.clone(), log, Duration::from_secs(1));
    let engine = Engine::following(host.clone(), store.clone(), leader);
    // So that its leader follows.
    engine.invalidate(&key("something"), None).unwrap();
    let given_up = crate::clock::Clock::now(&*host).plus(Duration::from_secs(20));
    while host.health().heartbeat == Moment::default() {
        assert!(crate::clock::Clock::now(&*host) < given_up, "nobody follows the log");
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(asked_in_two_seconds(&server, &engine, &host, &store), 1);
    engine.stop(Duration::from_secs(5));
}

#[test]
fn who_waits_is_served_what_another_host_commits_without_asking_again() {
    let server = Server::start();
    let host = Arc::new(MemoryHost::new(Arc::new(ProcessClock::start())));
    let store = Arc::new(server.store());
    let log = Arc::new(RedisLog::new(server.config()));
    let leader = Leader::new(host.clone(), store.clone(), log, Duration::from_secs(1));
    let engine = Engine::following(host.clone(), store.clone(), leader);
    let minter = server.store();
    let lease = lease(&minter, &key("crm"), 1);
    let served = thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let now = crate::clock::Clock::now(&*host);
            engine.begin(
                &key("crm"),
                &Plan { wait_until: now.plus(Duration::from_secs(20)), ..Plan::usual(now) },
            )
        });
        thread::sleep(Duration::from_millis(700));
        minter.commit(&key("crm"), &lease, &entry(lease.version, "one"), now()).unwrap();
        waits.join().unwrap()
    });
    let Step::Served(served) = served else { panic!("{served:?}") };
    assert_eq!(&*served.entry.value, b"one");
    // The first claims came before its leader followed.
    assert!(store.commands_sent() <= 6, "{} questions", store.commands_sent());
    engine.stop(Duration::from_secs(5));
}
