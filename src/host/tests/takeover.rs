//! What a writer that was stopped, given up on and resumed can still do: scribble in the one
//! buffer it had announced, and nothing else. A second open of the file stands for a second
//! process (its kernel locks are its own), so every stopping point can be tried by name.

use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::Duration;

use super::super::layout::State;
use super::super::table::{Edited, Table, Tenure};
use super::{Place, entry, genuine, key, small, temp};
use crate::clock::Clock as _;
use crate::entry::{Key, Version};
use crate::store::record::Record;
use crate::store::{Asked, Host as _};

struct Two {
    _dir: tempfile::TempDir,
    stopped: Table,
    other: Table,
}

fn two() -> Two {
    let dir = temp();
    let open = || Table::open(&Place::new(dir.path(), &["two"]), small(), None).unwrap();
    Two { stopped: open(), other: open(), _dir: dir }
}

fn write(table: &Table, key: &Key, version: u64) {
    let value = entry(key, version, 300, table.now());
    table.edit(key, true, |record, _| record.entry = Some(value.clone())).unwrap();
}

fn version(table: &Table, key: &Key) -> Option<u64> {
    let (_, record) = table.read(table.find(key)?, key);
    let found = record.entry?;
    assert!(genuine(key, &found), "a torn or foreign record was accepted");
    Some(found.version.0)
}

fn begin<'a>(table: &'a Table, key: &Key) -> Tenure<'a> {
    Tenure::begin(table, table.bucket(table.hash(key))).unwrap().unwrap()
}

/// Past a writer's deadline and the grace that follows it.
fn overrun() {
    std::thread::sleep(Duration::from_millis(60));
}

#[test]
fn a_writer_stopped_before_it_announced_can_announce_nothing_any_more() {
    let Two { stopped, other, .. } = &two();
    let crm = key("crm");
    write(other, &crm, 1);
    let tenure = begin(stopped, &crm);
    overrun();
    write(other, &crm, 2);
    let late = entry(&crm, 9, 300, stopped.now());
    let edited = tenure.edit(&crm, true, &mut |record: &mut Record, _: &mut Version| {
        record.entry = Some(late.clone());
    });
    assert!(matches!(edited, Ok(Edited::Lost)));
    tenure.end();
    assert_eq!(version(other, &crm), Some(2));
}

#[test]
fn a_writer_stopped_in_the_middle_scribbles_in_a_buffer_nobody_uses() {
    let Two { stopped, other, .. } = &two();
    let crm = key("crm");
    write(other, &crm, 1);
    let slot = other.find(&crm).unwrap();
    let tenure = begin(stopped, &crm);
    let seen = State(stopped.map.slot(slot).state.load(Acquire));
    let buffer = tenure.idle_buffer(slot, seen, 0).unwrap();
    assert!(tenure.announce(slot, buffer));
    overrun();

    let scribble = || {
        for word in stopped.map.buffer(slot, buffer) {
            word.store(0xdead_dead_dead_dead, Relaxed);
        }
    };
    // After each write: one of two would have gone into the buffer that is scribbled in.
    for next in [2, 3] {
        write(other, &crm, next);
        scribble();
        assert_eq!(version(other, &crm), Some(next), "the scribbling reached a current buffer");
    }
    let swung = stopped.map.slot(slot).state.compare_exchange(
        seen.0,
        seen.then(Some(buffer)).0,
        Acquire,
        Acquire,
    );
    assert!(swung.is_err(), "the late publication went through");
    write(other, &crm, 4);
    assert_eq!(version(other, &crm), Some(4));

    // Let go: the buffer is used again.
    tenure.end();
    write(other, &crm, 5);
    write(other, &crm, 6);
    assert_eq!(version(other, &crm), Some(6));
    write(other, &crm, 7);
    assert_eq!(other.map.slot(slot).lost.load(Acquire), 0, "the lost buffer never came back");
}

#[test]
fn a_writer_stopped_while_evicting_cannot_evict_who_came_after() {
    let Two { stopped, other, .. } = &two();
    let (old, new) = (key("old"), key("new"));
    write(other, &old, 1);
    let slot = other.find(&old).unwrap();
    let tenure = begin(stopped, &old);
    assert!(tenure.announce(slot, 0));
    // It has just emptied the slot and is stopped before it changes the tag.
    let state = State(stopped.map.slot(slot).state.load(Acquire));
    let tag = stopped.tag(slot).load(Acquire);
    stopped.map.slot(slot).state.store(state.then(None).0, Relaxed);
    overrun();

    write(other, &old, 2);
    assert_eq!(other.find(&old), Some(slot));
    let freed = stopped.tag(slot).compare_exchange(tag, 0, Acquire, Acquire);
    assert!(freed.is_err(), "the late eviction went through");
    assert_eq!(version(other, &old), Some(2));
    tenure.end();
    write(other, &new, 3);
    assert_eq!(version(other, &new), Some(3));
}

#[test]
fn whoever_was_given_up_on_publishes_nothing_before_the_next_writer_has() {
    let Two { stopped, other, .. } = &two();
    let crm = key("crm");
    write(other, &crm, 1);
    let slot = other.find(&crm).unwrap();
    let tenure = begin(stopped, &crm);
    let seen = State(stopped.map.slot(slot).state.load(Acquire));
    let buffer = tenure.idle_buffer(slot, seen, 0).unwrap();
    assert!(tenure.announce(slot, buffer));
    overrun();
    let next = loop {
        match Tenure::begin(other, other.bucket(other.hash(&crm))).unwrap() {
            Some(next) => break next,
            None => std::thread::sleep(std::time::Duration::from_millis(5)),
        }
    };
    // It goes on now, before the next writer has done anything but take over.
    let late = seen.then(Some(buffer)).0;
    let swung = stopped.map.slot(slot).state.compare_exchange(seen.0, late, Acquire, Acquire);
    assert!(swung.is_err(), "the late publication went through");
    assert!(next.announce(slot, 0));
    assert!(!tenure.settle(), "it has not noticed that somebody else writes");
    next.retract(slot, 0);
    next.end();
    tenure.end();
    assert_eq!(version(other, &crm), Some(1));
}

#[test]
fn a_running_writer_is_not_given_up_on() {
    let Two { stopped: running, other, .. } = &two();
    let crm = key("crm");
    write(other, &crm, 1);
    let tenure = begin(running, &crm);
    assert!(Tenure::begin(other, other.bucket(other.hash(&crm))).unwrap().is_none());
    let fresh = entry(&crm, 2, 300, running.now());
    let edited = tenure.edit(&crm, true, &mut |record: &mut Record, _: &mut Version| {
        record.entry = Some(fresh.clone());
    });
    assert!(matches!(edited, Ok(Edited::Done(()))));
    tenure.end();
    assert_eq!(version(other, &crm), Some(2));
}

#[test]
fn an_answer_that_was_overtaken_on_its_way_is_not_kept() {
    let dir = temp();
    let host = super::open(dir.path());
    let (crm, now) = (key("crm"), host.now());
    super::put(&host, &crm, 5, 300);
    let asked = Asked { at: now, reservation: host.reserve(&crm) };
    let (table, _) = host.current();
    table.raise(&crm, |slot| &slot.newest, Version(7)); // somebody heard of version 7 meanwhile
    host.adopt(&crm, &entry(&crm, 6, 300, now), asked).unwrap();
    assert_eq!(version(&table, &crm), Some(5));
    host.adopt(&crm, &entry(&crm, 7, 300, now), asked).unwrap();
    assert_eq!(version(&table, &crm), Some(7));
}

#[test]
fn an_answer_is_not_kept_for_a_key_that_was_evicted_and_came_back_meanwhile() {
    let dir = temp();
    let host = super::open(dir.path());
    let (crm, now) = (key("crm"), host.now());
    super::put(&host, &crm, 5, 300);
    let asked = Asked { at: now, reservation: host.reserve(&crm) };
    for n in 0..200 {
        super::put(&host, &key(&format!("crowd {n}")), 1, 300);
    }
    assert!(host.look(&crm).is_none(), "still there: the test proves nothing");
    host.board(&crm, now.plus(Duration::from_secs(9)), now).unwrap();
    host.adopt(&crm, &entry(&crm, 6, 300, now), asked).unwrap();
    assert_eq!(host.look(&crm).unwrap().entry, None);
}
