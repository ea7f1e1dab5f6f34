//! The tally's file: shared, on its own, and never in a call's way.

use std::fs;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::PathBuf;

use super::{HostTable, Place, Sizes, open, small, temp};
use crate::metrics::tally::Hit;
use crate::store::Host as _;

fn file(place: &Place) -> PathBuf {
    place.folder.join("tally-1")
}

fn hits(table: &HostTable) -> u64 {
    table.tally().counts().families.iter().map(|family| family.hits[0]).sum()
}

fn count(table: &HostTable) {
    table.tally().hit(b"crm", Hit::Memo, 1);
}

#[test]
fn two_openers_count_together_and_what_they_counted_outlives_them_and_their_table() {
    let dir = temp();
    let (one, two) = (open(dir.path()), open(dir.path()));
    count(&one);
    count(&two);
    assert_eq!((hits(&one), hits(&two)), (2, 2));
    drop((one, two));
    let larger = Sizes::new(128, 16 * 1024, 8 << 20);
    let anew = HostTable::open(Place::new(dir.path(), &["test"]), larger, None).unwrap();
    assert_eq!(anew.usage().slots, 128, "another table");
    assert_eq!(hits(&anew), 2);
}

#[test]
fn a_file_that_is_damaged_short_or_of_another_boot_is_replaced() {
    let dir = temp();
    let place = Place::new(dir.path(), &["test"]);
    let damages: [&dyn Fn(&fs::File); 3] = [
        &|file| file.write_all_at(&[0x77; 8], 0).unwrap(),
        &|file| file.set_len(4096).unwrap(),
        &|file| file.write_all_at(&[0x77; 16], 40).unwrap(),
    ];
    for damage in damages {
        count(&open(dir.path()));
        damage(&fs::File::options().write(true).open(file(&place)).unwrap());
        let table = open(dir.path());
        assert_eq!((hits(&table), table.tally().is_of_host()), (0, true));
        fs::remove_file(file(&place)).unwrap();
    }
}

#[test]
fn where_no_file_is_possible_a_process_counts_for_itself_and_says_so() {
    let dir = temp();
    let place = Place::new(dir.path(), &["test"]);
    drop(open(dir.path()));
    fs::remove_file(file(&place)).unwrap();
    symlink("/etc/hostname", file(&place)).unwrap();
    let (one, two) = (open(dir.path()), open(dir.path()));
    count(&one);
    assert_eq!((hits(&one), hits(&two)), (1, 0));
    assert!(!one.tally().is_of_host());
}

#[test]
fn an_unlinked_tally_is_left_for_the_one_that_others_find() {
    let dir = temp();
    let one = HostTable::open(Place::new(dir.path(), &["test"]), small(), None).unwrap();
    fs::remove_file(file(&Place::new(dir.path(), &["test"]))).unwrap();
    let two = open(dir.path());
    one.tally_anew_if_unlinked();
    count(&one);
    assert_eq!(hits(&two), 1);
}
