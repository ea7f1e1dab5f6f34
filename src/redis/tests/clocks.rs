//! Servers whose clocks are wrong, and ways that are slow. A server that took over from one whose clock
//! was ahead finds instants that lie too far ahead by as much; here they are put there.

use super::late::{TICKS, later};
use super::network::slow_way;
use super::*;
use crate::redis::log::RedisLog;
use crate::store::Host as _;
use crate::store::log::{ChangeLog as _, Fetched};
use crate::store::memory::MemoryHost;

const BEHIND: i64 = 300_000;

/// As if the server had been another one, whose clock was ahead of this one's by so many milliseconds.
fn move_instants(server: &Server, by: i64) {
    let mut admin = server.admin();
    for instant in ["m", "r", "u", "x", "s"] {
        admin.tell(&format!("HINCRBY {{sharedstate}}:v:t:-:crm {instant} {by}"));
    }
}

#[test]
fn an_entry_lives_no_longer_when_a_server_takes_over_whose_clock_is_behind() {
    let server = Server::start();
    let minted = mint(&server.store(), &key("crm"), 1, "one");
    move_instants(&server, BEHIND);
    let newcomer = server.store();
    let later = later(&server, &minted);
    assert!(later < TICKS, "{later} ms later than it was minted for");
    value(&newcomer, &key("crm"));
    assert!(newcomer.noticed().clocks_disagreed > 0);
    assert_eq!(newcomer.noticed().clocks_disagreed, 0, "counted once");
}

#[test]
fn an_entry_of_which_nobody_knows_when_it_was_minted_is_not_served() {
    let server = Server::start();
    mint(&server.store(), &key("crm"), 1, "one");
    move_instants(&server, BEHIND);
    // An earlier release minted it, or a host whose own clock was ahead as well.
    server.admin().tell("HDEL {sharedstate}:v:t:-:crm w");
    let store = server.store();
    let Claimed::Value(entry) = claim(&store, &key("crm"), 2).unwrap() else { panic!() };
    assert!(!entry.servable(Kind::Token, now()));
    assert_eq!(store.noticed().clocks_disagreed, 1);
}

#[test]
fn a_host_whose_clock_is_ahead_shares_what_is_minted_while_it_watches() {
    let server = Server::start();
    let (host, log) = (
        Arc::new(MemoryHost::new(Arc::new(ProcessClock::start()))),
        RedisLog::new(server.config()),
    );
    let before = mint(&server.store(), &key("crm"), 1, "one");
    thread::sleep(Duration::from_millis(50));
    let looked = log.look(None).unwrap();
    host.hear_clock(&looked.told, 0, looked.set_back);
    // Within the millisecond nobody knows which was first.
    thread::sleep(Duration::from_millis(2));
    let since = mint(&server.store(), &key("erp"), 2, "two");
    // To this host all other hosts are minutes behind.
    for name in ["crm", "erp"] {
        server.admin().tell(&format!("HINCRBY {{sharedstate}}:v:t:-:{name} w -{BEHIND}"));
    }
    let (store, log) = (server.store().on(host.clone()), log.on(host));
    let earlier = |minted: &Entry, stored: Entry| {
        stored.timing.expires_at.millis_until(minted.timing.expires_at)
    };
    for (name, minted, costs) in [("crm", &before, BEHIND), ("erp", &since, 0)] {
        let Claimed::Value(entry) = claim(&store, &key(name), 3).unwrap() else { panic!("{name}") };
        let by = earlier(minted, entry);
        assert!((by - costs).abs() < TICKS, "{name} ends {by} ms earlier");
        let fetched = log.fetch(&[key(name)], now()).unwrap().remove(0).what;
        let Fetched::Entry(entry) = fetched else { panic!("{name}") };
        let by = earlier(minted, entry);
        assert!((by - costs).abs() < TICKS, "by the log {name} ends {by} ms earlier");
    }
}

/// Who stood still counts so much less, and the server cannot know it.
#[test]
fn what_a_host_that_stood_still_gave_back_is_as_old_as_its_minter_says() {
    let server = Server::start();
    let host = Arc::new(MemoryHost::new(Arc::new(ProcessClock::start())));
    let looked = RedisLog::new(server.config()).look(None).unwrap();
    host.hear_clock(&looked.told, 0, looked.set_back);
    thread::sleep(Duration::from_millis(2));
    let minted = mint(&server.store(), &key("crm"), 1, "one");
    thread::sleep(Duration::from_millis(3_200));
    move_instants(&server, 3_000);
    let Claimed::Value(entry) = claim(&server.store().on(host), &key("crm"), 2).unwrap() else {
        panic!()
    };
    let by = minted.timing.expires_at.millis_until(entry.timing.expires_at);
    assert!(by < TICKS, "{by} ms later than it was minted for");
}

#[test]
fn a_server_that_is_ahead_ends_an_entry_early_for_who_has_to_ask() {
    let server = Server::start();
    let minted = mint(&server.store(), &key("crm"), 1, "one");
    move_instants(&server, -BEHIND);
    assert!(later(&server, &minted) < TICKS - BEHIND);
}

#[test]
fn who_asks_whether_its_entry_is_the_newest_hears_that_it_ends_earlier() {
    let server = Server::start();
    let store = server.store();
    let minted = mint(&store, &key("crm"), 1, "one");
    // This host stood still for an hour and does not know it.
    let mut held = minted.clone();
    held.timing.usable_until = held.timing.usable_until.plus_millis(3_600_000);
    held.timing.expires_at = held.timing.expires_at.plus_millis(3_600_000);
    let Committed::Superseded(stored) =
        store.restore(&key("crm"), &held, now()).unwrap().what.outcome
    else {
        panic!("it was confirmed")
    };
    assert_eq!(stored.version, minted.version);
    let late = minted.timing.usable_until.millis_until(stored.timing.usable_until);
    assert!((-2_000..TICKS).contains(&late), "{late}");
    assert_eq!(
        store.restore(&key("crm"), &minted, now()).unwrap().what.outcome,
        Committed::Accepted
    );
}

#[test]
fn a_minter_that_stood_still_while_it_minted_hears_that_its_token_ends_earlier() {
    let server = Server::start();
    let store = server.store();
    let lease = lease(&store, &key("crm"), 1);
    let mut entry = entry(lease.version, "one");
    thread::sleep(Duration::from_millis(2_500));
    // By a clock that did not count the last seconds the mint began just now.
    entry.timing.minted_at = now();
    let by = Duration::from_millis(2_500);
    for deadline in [&mut entry.timing.usable_until, &mut entry.timing.expires_at] {
        *deadline = deadline.plus(by);
    }
    let reply = store.commit(&key("crm"), &lease, &entry, now()).unwrap().what;
    let Committed::Superseded(stored) = reply else { panic!("{reply:?}") };
    assert!(stored.timing.usable_until < entry.timing.usable_until.plus_millis(-2_000));
}

#[test]
fn a_lease_lasts_no_longer_when_a_server_takes_over_whose_clock_is_behind() {
    let server = Server::start();
    let store = server.store();
    lease(&store, &key("crm"), 1);
    server.admin().tell("PEXPIRE {sharedstate}:l:t:-:crm 3600000");
    let Claimed::Busy(left) = claim(&store, &key("crm"), 2).unwrap() else { panic!() };
    assert!(left <= Duration::from_secs(30), "{left:?}");
    // Nor one that somebody made without an end.
    server.admin().tell("PERSIST {sharedstate}:l:t:-:crm");
    let Claimed::Busy(left) = claim(&store, &key("crm"), 2).unwrap() else { panic!() };
    assert!(left <= Duration::from_secs(30), "{left:?}");
}

#[test]
fn who_has_a_short_lease_leaves_a_longer_one_of_another_host_alone() {
    let server = Server::start();
    let store = server.store();
    lease(&store, &key("crm"), 1); // of 30 s
    let short = Claim { lease: Duration::from_millis(500), ..claim_of(secret(2)) };
    let Claimed::Busy(left) = store.claim(&key("crm"), &short, now()).unwrap().what else {
        panic!()
    };
    assert!(left > Duration::from_secs(20), "{left:?}");
}

#[test]
fn an_entry_given_back_on_a_slow_way_lives_no_longer_for_it() {
    let server = super::late::server();
    let entry = entry(Version(1_700_000_000_000_001), "one");
    let store = slow_way(&server, Duration::from_millis(240));
    assert_eq!(
        store.restore(&key("crm"), &entry, now()).unwrap().what.outcome,
        Committed::Accepted
    );
    let later = later(&server, &entry);
    assert!(later < TICKS, "{later} ms later than it was minted for");
}

#[test]
fn a_committed_entry_lives_no_longer_for_a_slow_way() {
    let server = super::late::server();
    let store = slow_way(&server, Duration::from_millis(240));
    let lease = lease(&store, &key("crm"), 1);
    let entry = entry(lease.version, "one");
    store.commit(&key("crm"), &lease, &entry, now()).unwrap();
    let later = later(&server, &entry);
    assert!(later < TICKS, "{later} ms later than it was minted for");
}

/// What else the server lost with it, perhaps something newer, it does not say.
#[test]
fn who_gives_an_entry_back_knows_of_nothing_before_it_heard_of_the_loss() {
    let server = super::late::server();
    let entry = entry(Version(1_700_000_000_000_001), "one");
    let way = Duration::from_millis(240);
    let store = slow_way(&server, way);
    let since = |asked| store.restore(&key("crm"), &entry, asked).unwrap().what.since;
    let asked = now();
    assert!(asked.until(since(asked)) >= way);
    let asked = now();
    assert_eq!(since(asked), asked, "it was there, and so was nothing newer when it was asked");
}

/// A server that took over and whose clock is behind, or that was set back.
#[test]
fn a_pause_lasts_no_longer_when_a_servers_clock_is_behind() {
    let server = Server::start();
    let store = server.store();
    let Claimed::Lease(lease) = claim(&store, &key("crm"), 1).unwrap() else { panic!() };
    let second = Duration::from_secs(1);
    let failure = Failure { base: second, least: second, reason: "HTTP 503".into() };
    store.abandon(&key("crm"), &lease, Some(&failure), now()).unwrap();
    assert!(matches!(claim(&store, &key("crm"), 2), Ok(Claimed::BackOff { .. })));
    server.admin().tell("HINCRBYFLOAT {sharedstate}:v:t:-:crm retry_at 60000");
    assert!(matches!(claim(&store, &key("crm"), 2), Ok(Claimed::Lease(_))));
}
