//! Identity and life of the file.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Command;

use super::super::table::Table;
use super::{HostTable, Place, Sizes, entry, genuine, key, open, put, small, temp};
use crate::clock::Clock as _;
use crate::store::{Host as _, Store as _};

fn version(table: &HostTable, name: &str) -> Option<u64> {
    let found = table.look(&key(name))?.entry?;
    assert!(genuine(&key(name), &found));
    Some(found.version.0)
}

fn refusal(place: Place) -> String {
    match HostTable::open(place, small(), None) {
        Ok(_) => panic!("opened"),
        Err(sentence) => sentence,
    }
}

#[test]
fn two_openers_share_one_table_and_two_identities_do_not() {
    let dir = temp();
    let (one, two) = (open(dir.path()), open(dir.path()));
    let foreign = HostTable::open(Place::new(dir.path(), &["other"]), small(), None).unwrap();
    put(&one, &key("crm"), 7, 1200);
    assert_eq!(version(&two, "crm"), Some(7));
    assert_eq!(version(&foreign, "crm"), None);
}

#[test]
fn identity_is_injective() {
    let folder = |parts: &[&str]| Place::new(Path::new("/x"), parts).folder;
    assert_ne!(folder(&["ab", "c"]), folder(&["a", "bc"]));
    assert_ne!(folder(&["a"]), folder(&["a", ""]));
}

#[test]
fn a_folder_of_another_user_is_refused() {
    let dir = temp();
    let place = Place::new(dir.path(), &["test"]);
    fs::create_dir(&place.folder).unwrap();
    chown(&place.folder, Some(65534), None).expect("this test gives a folder away: run it as root");
    let sentence = refusal(place.clone());
    assert!(sentence.contains("belongs to uid 65534"), "{sentence}");
    assert!(sentence.contains(&*place.folder.to_string_lossy()), "{sentence}");
    assert!(sentence.contains("sharedstate.host.dir"), "{sentence}");
}

#[test]
fn a_folder_that_others_may_enter_is_refused() {
    let dir = temp();
    let place = Place::new(dir.path(), &["test"]);
    fs::create_dir(&place.folder).unwrap();
    fs::set_permissions(&place.folder, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(refusal(place).contains("0700"));
}

#[test]
fn a_symbolic_link_is_followed_neither_as_folder_nor_as_table() {
    let dir = temp();
    let place = Place::new(dir.path(), &["test"]);
    let elsewhere = dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, &place.folder).unwrap();
    assert!(refusal(place.clone()).contains("symbolic link"));

    fs::remove_file(&place.folder).unwrap();
    drop(open(dir.path()));
    let target = dir.path().join("target");
    fs::rename(place.table(), &target).unwrap();
    symlink(&target, place.table()).unwrap();
    assert!(refusal(place).contains("symbolic link"));
}

#[test]
fn a_truncated_a_garbage_and_an_older_file_are_replaced() {
    type Damage = fn(&Path);
    let damage: [(&str, Damage); 4] = [
        ("truncated", |path| {
            fs::OpenOptions::new().write(true).open(path).unwrap().set_len(5000).unwrap();
        }),
        ("empty", |path| fs::write(path, "").unwrap()),
        ("garbage", |path| fs::write(path, vec![0xa5; 100_000]).unwrap()),
        ("older layout", |path| {
            use std::os::unix::fs::FileExt as _;
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            file.write_all_at(&0_u64.to_ne_bytes(), 8).unwrap();
        }),
    ];
    for (what, damage) in damage {
        let dir = temp();
        drop(open(dir.path()));
        damage(&Place::new(dir.path(), &["test"]).table());
        let table = open(dir.path());
        put(&table, &key("crm"), 7, 100);
        assert_eq!(version(&table, "crm"), Some(7), "{what}");
        assert_eq!(version(&open(dir.path()), "crm"), Some(7), "{what}");
    }
}

#[test]
fn a_table_of_another_boot_is_replaced() {
    use std::os::unix::fs::FileExt as _;
    let dir = temp();
    let table = open(dir.path());
    put(&table, &key("crm"), 7, 100);
    let path = table.path();
    drop(table);
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0x77; 16], 40).unwrap();
    assert_eq!(version(&open(dir.path()), "crm"), None);
}

#[test]
fn a_new_table_reclaims_what_nobody_can_or_does_use_and_no_other_applications_table() {
    use std::os::unix::fs::FileExt as _;
    let dir = temp();
    let place = |name| Place::new(dir.path(), &[name]);
    let make = |name| drop(HostTable::open(place(name), small(), None).unwrap());
    let change = |name, change: &dyn Fn(&fs::File)| {
        change(&fs::OpenOptions::new().write(true).open(place(name).table()).unwrap());
    };
    let used = HostTable::open(place("used"), small(), None).unwrap();
    ["resting", "older layout", "forgotten"].iter().for_each(|name| make(name));
    change("older layout", &|file| file.write_all_at(&0_u64.to_ne_bytes(), 8).unwrap());
    change("forgotten", &|file| file.set_modified(std::time::UNIX_EPOCH).unwrap());
    change("used", &|file| file.set_modified(std::time::UNIX_EPOCH).unwrap());
    let foreign = dir.path().join("sharedstate-test");
    fs::create_dir(&foreign).unwrap();

    let _new = HostTable::open(place("new"), small(), None).unwrap();
    assert!(!place("older layout").folder.exists());
    assert!(!place("forgotten").folder.exists());
    assert!(place("resting").folder.exists(), "another application's table between two requests");
    assert!(used.path().exists());
    assert!(foreign.exists());
}

#[test]
fn changed_sizes_take_effect_once_nobody_uses_the_old_table() {
    let dir = temp();
    let place = Place::new(dir.path(), &["test"]);
    let old = HostTable::open(place.clone(), small(), None).unwrap();
    let larger = Sizes::new(128, 16 * 1024, 8 << 20);
    let joined = HostTable::open(place.clone(), larger, None).unwrap();
    assert_eq!(joined.usage().slots, 64, "the live table's sizes win");
    drop((old, joined));
    assert_eq!(HostTable::open(place, larger, None).unwrap().usage().slots, 128);
}

#[test]
fn an_unlinked_table_is_left_at_the_next_flight() {
    let dir = temp();
    let (one, two) = (open(dir.path()), open(dir.path()));
    put(&one, &key("crm"), 7, 100);
    fs::remove_dir_all(&Place::new(dir.path(), &["test"]).folder).unwrap();

    for table in [&one, &two] {
        let now = crate::clock::Clock::now(table);
        let far = now.plus(std::time::Duration::from_secs(9));
        table.board(&key("crm"), far, now).unwrap();
    }
    put(&one, &key("crm"), 8, 100);
    assert_eq!(version(&two, "crm"), Some(8));
    assert_eq!(version(&open(dir.path()), "crm"), Some(8), "both stayed with the unlinked file");
}

/// A tmpfs of so many bytes, unmounted with the test.
struct Mount(tempfile::TempDir);

impl Mount {
    fn of(size: &str) -> Self {
        let dir = temp();
        let options = format!("size={size}");
        let mount = ["-t", "tmpfs", "-o", &options, "none"];
        let mounted = Command::new("mount").args(mount).arg(dir.path()).status().unwrap();
        assert!(mounted.success(), "this test mounts a small tmpfs: run it as root");
        Self(dir)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn on_a_tmpfs_of_1_mb_the_table_evicts_and_never_raises_sigbus() {
    let mount = Mount::of("1m");
    let place = Place::new(mount.0.path(), &["test"]);
    let table = HostTable::open(place, Sizes::new(1024, 16 * 1024, 64 << 20), None).unwrap();
    let names: Vec<String> = (0..1500).map(|n| format!("key {n}")).collect();
    let mut refused = 0;
    for (n, name) in names.iter().enumerate() {
        let now = crate::clock::Clock::now(&table);
        let entry = super::entry(&key(name), n as u64 + 1, 1200, now);
        refused +=
            usize::from(crate::store::Store::restore(&table, &key(name), &entry, now).is_err());
    }
    let kept = names.iter().filter(|name| version(&table, name).is_some()).count();
    assert!(kept > 100, "{kept} of 1500 keys kept, {refused} refused");
    assert!(table.counted(crate::metrics::Counter::EvictedUsable) > 0);
}

#[test]
fn a_table_that_cannot_even_begin_says_where_and_what_to_do() {
    let mount = Mount::of("1m");
    let place = Place::new(mount.0.path(), &["test"]);
    let sentence = match HostTable::open(place, Sizes::new(16_384, 16 * 1024, 64 << 20), None) {
        Ok(_) => panic!("an index of 2 MiB does not fit"),
        Err(sentence) => sentence,
    };
    assert!(sentence.contains("No space left") && sentence.contains("sharedstate.host.dir"));
    assert_eq!(fs::read_dir(mount.0.path()).unwrap().count(), 1, "nothing but the folder is left");
}

/// How many keys of 1,200 bytes a table of the default size holds where the kernel allocates so much at once,
/// and how many bytes it takes for that.
fn held_on_pages_of(page: usize) -> (usize, u64) {
    let dir = temp();
    let sizes = Sizes::new(16_384, 16 * 1024, 32 << 20);
    let mut table = Table::open(&Place::new(dir.path(), &["pages"]), sizes, None).unwrap();
    table.page = page;
    for n in 0..12_000_u64 {
        let key = key(&format!("tenant:{n}"));
        let entry = entry(&key, n + 1, 1200, table.now());
        let _ = table.edit(&key, true, |record, _| record.entry = Some(entry.clone()));
    }
    let held = (0..sizes.slots).filter(|slot| table.key_in(*slot).is_some()).count();
    (held, table.occupied())
}

#[test]
fn on_pages_of_64_kib_a_table_holds_nearly_as_many_keys_and_no_more_memory() {
    let (small, _) = held_on_pages_of(4096);
    let (large, occupied) = held_on_pages_of(64 << 10);
    assert!(
        large * 10 >= small * 8,
        "{large} keys on pages of 64 KiB and {small} on those of 4 KiB"
    );
    assert!(occupied <= (32 << 20) + (64 << 10), "{occupied} bytes");
}

#[test]
fn all_16384_slots_of_1200_bytes_fit_dockers_64_mb() {
    let mount = Mount::of("64m");
    let place = Place::new(mount.0.path(), &["test"]);
    let table = HostTable::open(place, Sizes::new(16_384, 16 * 1024, 63 << 20), None).unwrap();
    for n in 0_u64.. {
        let name = format!("tenant:{n}");
        put(&table, &key(&name), n + 1, 1200);
        put(&table, &key(&name), n + 2, 1200);
        if n % 4096 == 0 && table.usage().used == 16_384 {
            break;
        }
        assert!(n < 60_000, "{:?}", table.usage());
    }
    assert_eq!(table.counted(crate::metrics::Counter::TableFull), 0, "{:?}", table.usage());
}

#[test]
fn a_table_takes_no_more_memory_than_it_may() {
    let dir = temp();
    let sizes = Sizes::new(1_024, 16 * 1_024, 3 << 20);
    let table = HostTable::open(Place::new(dir.path(), &["test"]), sizes, None).unwrap();
    for n in 0..1_024 {
        // Refused when it is full and nothing may go.
        let (key, now) = (key(&format!("key {n}")), table.now());
        let _ = table.restore(&key, &entry(&key, 5, 9_000, now), now);
        let usage = table.usage();
        assert!(usage.occupied <= usage.memory, "{usage:?}");
    }
}
