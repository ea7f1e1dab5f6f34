//! Races that a review found, run until they would have shown: threads on tables of their own stand
//! for processes. And the clock, which several rights and entries share.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::time::Duration;

use super::super::layout::Slot;
use super::super::table::latest;
use super::{HostTable, SetWhenDropped, entry, key, open, put, temp};
use crate::clock::{Clock as _, system};
use crate::entry::{Entry, Key, Version};
use crate::store::log::Anchor;
use crate::store::{Asked, Boarding, Heard, Host as _, Leave, Right, Secret, Store as _};

const HOUR: Duration = Duration::from_secs(3600);
/// Each race showed within a tenth of a second before it was mended.
const LONG_ENOUGH: Duration = Duration::from_secs(3);

fn board(table: &HostTable, name: &str, hold: Duration) -> Option<Right> {
    let now = table.now();
    match table.board(&key(name), now.plus(hold), now) {
        Ok(Boarding::Mine { right, .. }) => Some(right),
        _ => None,
    }
}

/// Make the key the first to be evicted.
fn neglect(table: &HostTable, name: &str) {
    if let Some(slot) = table.table().find(&key(name)) {
        table.table().map.slot(slot).used.store(0, Relaxed);
    }
}

/// `step` over and over, until the time is up.
fn for_a_while(mut step: impl FnMut(u64)) {
    let end = system::monotonic().plus(LONG_ENOUGH);
    let mut turn = 0;
    while system::monotonic() < end {
        turn += 1;
        step(turn);
    }
}

#[test]
fn a_late_thread_of_a_former_owner_cannot_move_the_next_owners_deadline() {
    let dir = temp();
    let (first, second) = (open(dir.path()), open(dir.path()));
    let right = board(&first, "crm", HOUR).unwrap();
    first.leave(&key("crm"), &right);
    board(&second, "crm", HOUR).unwrap();
    assert!(!first.extend(&key("crm"), &right, first.now()));
}

#[test]
fn a_wall_clock_that_steps_gives_no_running_flight_away() {
    for seconds in [10, 26 * 365 * 86_400].map(Duration::from_secs) {
        let dir = temp();
        let (owner, other) = (open(dir.path()), open(dir.path()));
        board(&owner, "crm", Duration::from_secs(4)).unwrap();
        owner.table().header().timeline.bring_nearer(seconds);
        assert!(board(&other, "crm", HOUR).is_none());
        std::thread::sleep(Duration::from_millis(40)); // past the grace
        assert!(board(&other, "crm", HOUR).is_none(), "{seconds:?}: two owners, both running");
    }
}

#[test]
fn time_does_not_run_backwards_when_the_table_is_replaced() {
    let dir = temp();
    let table = open(dir.path());
    table.table().header().timeline.bring_nearer(HOUR); // the machine slept
    let before = table.now();
    std::fs::remove_dir_all(table.path().parent().unwrap()).unwrap();
    board(&table, "crm", HOUR).unwrap();
    assert!(table.now() >= before);
}

#[test]
fn the_newest_key_is_not_the_next_to_go() {
    let dir = temp();
    let table = open(dir.path());
    for n in 0..64 {
        put(&table, &key(&format!("old {n}")), n + 1, 100);
        neglect(&table, &format!("old {n}"));
    }
    put(&table, &key("new 1"), 100, 100);
    put(&table, &key("new 2"), 101, 100);
    assert!(table.look(&key("new 1")).is_some_and(|known| known.entry.is_some()));
}

#[test]
fn an_invalidated_entry_is_not_served_while_its_slot_is_evicted() {
    let dir = temp();
    let tables = [open(dir.path()), open(dir.path()), open(dir.path())];
    let (floor, done) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _set = SetWhenDropped(&done);
        for table in &tables[..2] {
            let (floor, done) = (&floor, &done);
            scope.spawn(move || {
                while !done.load(Relaxed) {
                    let least = floor.load(SeqCst);
                    let found = table.look(&key("crm")).and_then(|known| known.entry);
                    assert!(found.is_none_or(|entry| entry.version.0 >= least), "below its floor");
                }
            });
        }
        for_a_while(|turn| {
            let (table, version) = (&tables[2], turn * 10);
            put(table, &key("crm"), version, 1200);
            table.raise_floor(&key("crm"), Version(version + 1));
            floor.store(version + 1, SeqCst);
            neglect(table, "crm");
            put(table, &key(&format!("crowd {}", turn % 300)), version, 100);
        });
    });
}

#[test]
fn a_key_in_flight_keeps_its_slot_however_many_others_come() {
    let dir = temp();
    let tables = [open(dir.path()), open(dir.path()), open(dir.path())];
    let (owners, done) = (AtomicI64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _set = SetWhenDropped(&done);
        for table in &tables[..2] {
            let (owners, done) = (&owners, &done);
            scope.spawn(move || {
                while !done.load(Relaxed) {
                    if let Some(right) = board(table, "crm", Duration::from_secs(60)) {
                        assert_eq!(owners.fetch_add(1, SeqCst), 0, "two owners of one flight");
                        std::thread::sleep(Duration::from_millis(3));
                        owners.fetch_sub(1, SeqCst);
                        table.leave(&key("crm"), &right);
                    }
                }
            });
        }
        for_a_while(|turn| {
            let (table, name) = (&tables[2], key(&format!("crowd {}", turn % 1000)));
            neglect(table, "crm");
            let _ = table.restore(&name, &entry(&name, turn, 100, table.now()), table.now());
        });
    });
}

#[test]
fn a_floor_hides_the_entry_and_ends_what_is_remembered_of_it() {
    let dir = temp();
    let table = open(dir.path());
    put(&table, &key("crm"), 5, 100);
    let watch = table.watch(&key("crm"), Version(5)).unwrap();
    assert!(watch.holds());
    table.raise_floor(&key("crm"), Version(6));
    assert!(!watch.holds());
    assert_eq!(table.look(&key("crm")).unwrap().entry, None);
}

#[test]
fn a_confirmation_vouches_for_no_other_record() {
    let dir = temp();
    let table = open(dir.path());
    put(&table, &key("crm"), 5, 100);
    table.confirm(&key("crm"), Version(5), table.now());
    assert!(table.look(&key("crm")).unwrap().confirmed_at.as_millis() > 0);
    put(&table, &key("crm"), 6, 100);
    assert_eq!(table.look(&key("crm")).unwrap().confirmed_at.as_millis(), 0);
}

#[test]
fn after_three_failures_one_process_of_the_host_probes_and_the_others_do_not_ask() {
    let dir = temp();
    let (one, other) = (open(dir.path()), open(dir.path()));
    for _ in 0..3 {
        assert_eq!(one.may_ask(one.now()), Leave::Given);
        one.authority_heard(Heard::Refusal, one.now(), one.now());
    }
    let withheld = Leave::Withheld { certain: true };
    assert_eq!([one.may_ask(one.now()), other.may_ask(other.now())], [withheld; 2]);
    let later = one.now().plus(Duration::from_secs(10));
    assert_eq!(one.may_ask(later), Leave::Given);
    assert_eq!(other.may_ask(later), withheld, "two probers");
    assert!(other.authority_heard(Heard::Answer, later, later), "news");
    assert_eq!([one.may_ask(later), other.may_ask(later)], [Leave::Given; 2]);
}

#[test]
fn a_key_that_is_being_written_is_resident() {
    let dir = temp();
    let (table, other) = (open(dir.path()), open(dir.path()));
    let crm = key("crm");
    put(&table, &crm, 1, 300);
    let done = AtomicBool::new(false);
    let (mut missing, mut looked) = (0, 0);
    std::thread::scope(|scope| {
        let _set = SetWhenDropped(&done);
        scope.spawn(|| {
            let mut version = 2;
            while !done.load(Relaxed) {
                put(&other, &crm, version, 300);
                version += 1;
            }
        });
        for_a_while(|_| {
            looked += 1;
            missing += usize::from(!table.resident().contains(&crm));
        });
    });
    assert_eq!(missing, 0, "of {looked}");
}

/// One hit as a request has it that asks no fleet.
fn hit(table: &HostTable, name: &str) -> bool {
    let trusted = |timing: &crate::entry::Timing, _, now: crate::clock::Moment| {
        (now < timing.usable_until).then(|| now.until(timing.usable_until))
    };
    table.hit(&key(name), trusted, <[u8]>::len).is_some()
}

#[test]
fn the_first_hit_after_the_machine_slept_serves_nothing_that_ran_out() {
    let dir = temp();
    let table = open(dir.path());
    put(&table, &key("crm"), 1, 300);
    assert!(hit(&table, "crm"));
    // It slept for two hours: as if the timeline had been there before the last reading.
    table.table().header().timeline.bring_nearer(HOUR * 2);
    assert!(!hit(&table, "crm"), "an hour's token was handed out two hours later");
}

#[test]
fn a_hit_hands_over_nothing_that_changed_while_it_was_decided_about() {
    let dir = temp();
    let table = open(dir.path());
    let crm = key("crm");
    put(&table, &crm, 5, 300);
    let decided = |meanwhile: &dyn Fn()| {
        let trusted = |_: &crate::entry::Timing, _, _| {
            meanwhile();
            Some(HOUR)
        };
        table.hit(&crm, trusted, <[u8]>::len).is_some()
    };
    assert!(decided(&|| {}));
    assert!(!decided(&|| put(&table, &crm, 6, 300)), "replaced");
    assert!(decided(&|| {}));
    assert!(!decided(&|| table.raise_floor(&crm, Version(7))), "invalidated");
}

#[test]
fn no_heartbeat_vouches_for_what_the_authority_has_not() {
    let dir = temp();
    let table = open(dir.path());
    let (crm, erp, now) = (key("crm"), key("erp"), table.now());
    put(&table, &crm, 5, 300);
    table.restore(&erp, &Entry { unsynced: true, ..entry(&erp, 5, 300, now) }, now).unwrap();
    let beat = now.plus(HOUR);
    table.beat(beat, &Anchor::default());
    let vouched = |key: &Key| {
        let mut at = None;
        table.hit(
            key,
            |_, confirmed, _| {
                at = Some(confirmed);
                None
            },
            <[u8]>::len,
        );
        [at, table.look(key).map(|known| known.confirmed_at)].map(|at| at == Some(beat))
    };
    assert_eq!((vouched(&crm), vouched(&erp)), ([true; 2], [false; 2]));
}

#[test]
fn of_the_key_that_had_a_place_before_nothing_is_left_in_it() {
    let dir = temp();
    let table = open(dir.path());
    let later = table.now().plus(HOUR);
    // One bucket of 64 slots, each with all that can be noted in it.
    for n in 0..64 {
        let key = key(&format!("old {n}"));
        put(&table, &key, 5, 100);
        let right = board(&table, &format!("old {n}"), Duration::ZERO).unwrap();
        table.note_secret(&key, &right, Secret::from_bits(7).unwrap());
        assert!(table.may_revalidate(&key, table.now(), later));
        table.set_busy(&key, later);
        table.hear(&key, Version(9), Version(8));
        table.hear_backoff(&key, later, "HTTP 429", later);
        table.confirm(&key, Version(5), later);
    }
    for n in 0..64 {
        let key = key(&format!("new {n}"));
        let now = table.now();
        let Ok(Boarding::Mine { orphan, .. }) = table.board(&key, now, now) else { panic!("{n}") };
        assert_eq!(orphan, None);
        let known = table.look(&key).unwrap();
        assert_eq!((known.floor, known.newest, known.entry), Default::default());
        assert!(known.busy_until < now && known.ask_at < now && known.confirmed_at < now);
        assert!(known.paused_until < now);
    }
}

#[test]
fn a_mark_that_comes_late_is_not_left_on_the_slots_next_key() {
    let dir = temp();
    let tables = [open(dir.path()), open(dir.path())];
    let (crm, done) = (key("crm"), AtomicBool::new(false));
    // One bucket of 64 slots: "crm" comes and goes, while somebody hears of it all the time.
    std::thread::scope(|scope| {
        let _set = SetWhenDropped(&done);
        scope.spawn(|| {
            while !done.load(Relaxed) {
                tables[0].hear(&crm, Version(1 << 40), Version(1 << 40));
            }
        });
        let mut wrong = 0;
        for_a_while(|turn| {
            put(&tables[1], &crm, 1 << 41, 100);
            neglect(&tables[1], "crm");
            let other = key(&format!("crowd {turn}"));
            put(&tables[1], &other, 5, 100);
            wrong += usize::from(tables[1].look(&other).is_none_or(|known| known.entry.is_none()));
        });
        assert_eq!(wrong, 0, "keys were hidden by another's floor");
    });
}

#[test]
fn a_mark_seen_before_an_eviction_changes_nothing_after_it() {
    let dir = temp();
    let host = open(dir.path());
    put(&host, &key("crm"), 5, 100);
    let table = host.table();
    let slot = table.find(&key("crm")).unwrap();
    // Here the process is stopped, and goes on when the slot is another key's.
    let [floor, newest] = [|slot: &Slot| slot.floor.seen(), |slot: &Slot| slot.newest.seen()];
    let seen = (floor(table.map.slot(slot)), newest(table.map.slot(slot)));
    neglect(&host, "crm");
    for n in 0..64 {
        put(&host, &key(&format!("crowd {n}")), 5, 100);
    }
    let words = table.map.slot(slot);
    words.floor.raise(seen.0, Version(900), latest());
    words.newest.raise(seen.1, Version(900), latest());
    assert!(!words.floor.set(seen.0, 900));
    assert_eq!((words.floor.value(), words.newest.value()), (0, 5));
}

#[test]
fn at_most_four_processes_of_a_host_ask_at_once() {
    let dir = temp();
    let tables: Vec<HostTable> = (0..5).map(|_| open(dir.path())).collect();
    let soon = tables[0].now().plus(HOUR);
    let turns: Vec<_> = tables.iter().map(|table| table.take_turn(soon)).collect();
    assert!(turns[..4].iter().all(Option::is_some) && turns[4].is_none());
    tables[2].end_turn(&turns[2].unwrap());
    let turn = tables[4].take_turn(tables[4].now().plus(Duration::from_millis(30)));
    assert!(turn.is_some());
    // One that was stopped is given up on when its turn is over, and ends nobody else's.
    let mut next = None;
    while next.is_none() {
        next = tables[0].take_turn(soon);
    }
    tables[4].end_turn(&turn.unwrap());
    assert_eq!(tables[4].take_turn(soon), None);
    // One that died gives it back.
    let mut tables = tables;
    drop(tables.remove(3));
    assert!(tables[0].take_turn(soon).is_some());
}

#[test]
fn while_others_are_answered_who_is_not_is_merely_slow() {
    let dir = temp();
    let (one, other) = (open(dir.path()), open(dir.path()));
    let asked = one.now();
    other.authority_heard(Heard::Answer, asked, asked.plus_millis(10));
    let late = asked.plus_millis(250);
    assert!(!one.authority_heard(Heard::Silence, asked, late), "no news");
    assert_eq!(one.may_ask(late), Leave::Given);
    // Nobody was answered since the next question.
    assert!(one.authority_heard(Heard::Silence, late, late.plus_millis(250)));
    assert_eq!(other.may_ask(late.plus_millis(251)), Leave::Withheld { certain: false });
    let sure = late.plus_millis(1_250);
    assert_eq!(other.may_ask(sure), Leave::Given, "it probes");
    other.authority_heard(Heard::Silence, sure, sure.plus_millis(250));
    assert_eq!(one.may_ask(sure.plus_millis(251)), Leave::Withheld { certain: true });
}

#[test]
fn one_process_leads_and_a_replaced_table_must_be_led_anew() {
    let dir = temp();
    let (one, other) = (open(dir.path()), open(dir.path()));
    let far = one.now().plus(HOUR);
    let term = one.lead(one.now(), far).unwrap();
    assert!(other.lead(other.now(), far).is_none());
    assert!(one.keep_leading(&term, far));
    std::fs::remove_dir_all(one.path().parent().unwrap()).unwrap();
    board(&one, "crm", HOUR).unwrap(); // notices
    assert!(
        !one.keep_leading(&term, far),
        "changes it heard of are marked in a table nobody reads"
    );
    assert!(one.lead(one.now(), far).is_some());
}

#[test]
fn what_a_killed_writer_left_without_its_mark_is_replaced_by_nothing_older() {
    let dir = temp();
    let (host, key) = (open(dir.path()), key("crm"));
    let version = |n: u64| 1_700_000_000_000_000 + n;
    put(&host, &key, version(7), 100);
    let asked = Asked { at: host.now(), reservation: host.reserve(&key) };
    put(&host, &key, version(8), 100);
    // As it is where the writer was killed after it had published and before it marked.
    let table = host.table();
    let newest = &table.map.slot(table.find(&key).unwrap()).newest;
    assert!(newest.set(newest.seen(), version(7)));
    host.adopt(&key, &entry(&key, version(7), 100, host.now()), asked).unwrap();
    assert_eq!(host.look(&key).unwrap().entry.unwrap().version, Version(version(8)));
}
