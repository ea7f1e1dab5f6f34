//! What people are told of a table: who mints, what was evicted, and that looking changes nothing.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::{HostTable, entry, key, open, put, temp};
use crate::clock::Clock as _;
use crate::store::{Boarding, Host as _, Known, Resident, Store as _};

const HOUR: Duration = Duration::from_secs(3600);

fn resident(table: &HostTable, name: &str) -> Resident {
    table.survey(usize::MAX).into_iter().find(|it| it.key == key(name)).unwrap()
}

/// What a flight of the key finds in the place it has taken.
fn look_in_flight(table: &HostTable, name: &str) -> Known {
    let now = table.now();
    let boarded = table.board(&key(name), now.plus(HOUR), now).unwrap();
    let Boarding::Mine { right, .. } = boarded else { panic!("{boarded:?}") };
    let known = table.look(&key(name)).unwrap();
    table.leave(&key(name), &right);
    known
}

/// More keys than the one bucket has places, so that one had to go; which.
fn evict_one(table: &HostTable) -> String {
    let names: Vec<String> = (0..65).map(|n| format!("name{n}")).collect();
    names.iter().for_each(|name| put(table, &key(name), 7, 100));
    names.into_iter().find(|name| table.look(&key(name)).is_none()).unwrap()
}

#[test]
fn a_key_whose_usable_entry_made_room_is_evicted_until_it_has_one_again() {
    // What a flight of the key evicts takes the place of what is remembered of it, one time in 256.
    let remembered = |_: &u8| {
        let dir = temp();
        let table = open(dir.path());
        let name = evict_one(&table);
        let by = [&table, &open(dir.path())].map(|table| look_in_flight(table, &name).evicted);
        assert!(!look_in_flight(&table, "never heard of").evicted);
        put(&table, &key(&name), 8, 100);
        assert!(!table.table().was_evicted(&key(&name)));
        by == [true; 2]
    };
    assert!((0..4).filter(remembered).count() >= 2, "by each process of the host");
}

#[test]
fn what_had_run_out_before_it_made_room_was_not_evicted() {
    let dir = temp();
    let table = open(dir.path());
    let long_ago = table.now().plus_millis(-4 * 3_600_000);
    for n in 0..65 {
        let key = key(&format!("name{n}"));
        table.restore(&key, &entry(&key, 7, 100, long_ago), table.now()).unwrap();
    }
    assert!((0..65).all(|n| !table.table().was_evicted(&key(&format!("name{n}")))));
}

#[test]
fn a_flight_is_listed_with_its_process_and_an_earlier_releases_without() {
    let dir = temp();
    let table = open(dir.path());
    let now = table.now();
    table.board(&key("crm"), now.plus(HOUR), now).unwrap();
    let flight = resident(&table, "crm").flight.unwrap();
    assert_eq!(flight.process, Some(std::process::id()));
    assert!(now.until(flight.until) > Duration::from_secs(3500));
    // An earlier release takes the next generation and leaves our word as it is.
    let slot = table.table().find(&key("crm")).unwrap();
    table.table().map.slot(slot).flight.fetch_add(1 << 40, Relaxed);
    assert_eq!(resident(&table, "crm").flight.unwrap().process, None);
}

#[test]
fn being_listed_and_summed_up_is_no_use_of_an_entry() {
    let dir = temp();
    let table = open(dir.path());
    put(&table, &key("crm"), 7, 100);
    let slot = table.table().find(&key("crm")).unwrap();
    table.table().map.slot(slot).used.store(1, Relaxed);
    table.survey(usize::MAX);
    let stock = table.stock();
    assert_eq!(table.table().map.slot(slot).used.load(Relaxed), 1);
    assert_eq!((stock.resident, stock.usable.get(&b"crm"[..])), (1, Some(&1)));
}
