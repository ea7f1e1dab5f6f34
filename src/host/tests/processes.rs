//! Processes that are killed, stopped and forked in the middle of things.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{HostTable, SetWhenDropped, entry, genuine, key, open, put, temp};
use crate::clock::Clock as _;
use crate::entry::{Key, Version};
use crate::metrics::Counter;
use crate::store::{Boarding, Host as _, Right, Secret, Store as _};

const ROLE: &str = "SHAREDSTATE_TEST_ROLE";
const DIR: &str = "SHAREDSTATE_TEST_DIR";

/// A child in a role, killed when dropped.
struct Actor(Child);

/// A process that is nobody's child any more, killed when dropped.
struct Orphan(i32);

impl Drop for Orphan {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: a signal to a process that the test alone knows of, and that lives until then.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
    }
}

fn spawn(role: &str, dir: &Path) -> Actor {
    spawn_by(Command::new(std::env::current_exe().unwrap()), role, dir)
}

fn spawn_by(mut command: Command, role: &str, dir: &Path) -> Actor {
    let child = command
        .args(["--exact", "host::tests::child", "--ignored", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(DIR, dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    Actor(child)
}

impl Actor {
    /// The next line that the role said, without the test harness's own.
    fn hear(&mut self) -> String {
        let mut reader = BufReader::with_capacity(1, self.0.stdout.as_mut().unwrap());
        loop {
            let mut line = String::new();
            assert!(reader.read_line(&mut line).unwrap() > 0, "the child is gone");
            // The harness prints "test … ... " in front of the first line.
            if let Some((_, said)) = line.split_once("say:") {
                return said.trim().to_owned();
            }
        }
    }

    fn tell(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    #[allow(unsafe_code)]
    fn signal(&self, signal: i32) {
        // SAFETY: a signal to a child of ours that has not been waited for.
        unsafe { libc::kill(self.0.id() as i32, signal) };
    }

    fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        let _ = self.0.wait();
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.kill();
    }
}

fn say(line: &str) {
    println!("say:{line}");
    std::io::stdout().flush().unwrap();
}

fn listen() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}

/// What the binding registers when it is loaded.
#[allow(unsafe_code)]
fn watch_forks() {
    extern "C" fn in_child() {
        crate::process::forked();
    }
    // SAFETY: a plain function of this program.
    unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
}

pub fn child() {
    let dir = std::path::PathBuf::from(std::env::var(DIR).unwrap());
    watch_forks();
    let table = open(&dir);
    match std::env::var(ROLE).unwrap().as_str() {
        "busy" => busy(&table),
        "one key" => one_key(&table),
        "owner" => owner(&table),
        "forker" => forker(&table),
        "contender" => contender(&table),
        role => panic!("unknown role {role}"),
    }
}

const NAMES: usize = 90; // more than the 64 slots: there is always somebody to evict

fn name(n: u64) -> Key {
    key(&format!("key {}", n % NAMES as u64))
}

/// Writes records of all sizes, boards and leaves flights, as fast as it can, until killed.
fn busy(table: &HostTable) {
    say("ready");
    let mut random = u64::from(std::process::id());
    loop {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let key = name(random >> 33);
        let now = table.now();
        let bytes = 1 + (random >> 40) as usize % if random >> 61 == 0 { 9000 } else { 1300 };
        let version = crate::clock::system::wall().unix_micros();
        let _ = table.restore(&key, &entry(&key, version, bytes, now), now);
        if let Ok(Boarding::Mine { right, .. }) =
            table.board(&key, now.plus(Duration::from_secs(60)), now)
        {
            table.note_secret(&key, &right, Secret::random());
            table.leave(&key, &right);
        }
    }
}

fn one_key(table: &HostTable) {
    say("ready");
    loop {
        let version = crate::clock::system::wall().unix_micros();
        let (crm, now) = (key("crm"), table.now());
        let _ = table.restore(&crm, &entry(&crm, version, 1200, now), now);
    }
}

fn board(table: &HostTable, name: &str, hold: Duration) -> Result<(Right, Option<Secret>), u32> {
    let now = table.now();
    match table.board(&key(name), now.plus(hold), now).unwrap() {
        Boarding::Mine { right, orphan } => Ok((right, orphan)),
        Boarding::Taken { bell, .. } => Err(bell),
    }
}

const SECRET: Option<Secret> = Secret::from_bits(4711);

/// Boards `crm` for 300 ms, waits to be told, and says whether it still has it.
fn owner(table: &HostTable) {
    let (right, _) = board(table, "crm", Duration::from_millis(300)).unwrap();
    table.note_secret(&key("crm"), &right, SECRET.unwrap());
    say("boarded");
    listen();
    let kept = table.extend(&key("crm"), &right, table.now().plus(Duration::from_secs(9)));
    table.leave(&key("crm"), &right);
    say(if kept { "kept" } else { "lost" });
}

/// Boards `crm`, then forks; the child lives on with what it inherited.
#[allow(unsafe_code)]
fn forker(table: &HostTable) {
    board(table, "crm", Duration::from_secs(600)).unwrap();
    // SAFETY: the child only speaks, sleeps and exits.
    if unsafe { libc::fork() } == 0 {
        say(&std::process::id().to_string());
        std::thread::sleep(Duration::from_secs(20));
        std::process::exit(0);
    }
    listen();
}

/// Takes and leaves one flight 300 times, from two threads, counting whether it was ever alone.
fn contender(table: &HostTable) {
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..300 {
                    let (right, _) = loop {
                        match board(table, "crm", Duration::from_secs(600)) {
                            Ok(mine) => break mine,
                            Err(bell) => {
                                table.wait(&key("crm"), bell, Duration::from_millis(10));
                            }
                        }
                    };
                    // Not atomic on purpose: two owners at once lose an increment.
                    let count = table.look(&key("count")).and_then(|it| it.entry);
                    let next = count.map_or(1, |entry| entry.version.0 + 1);
                    put(table, &key("count"), next, 100);
                    table.leave(&key("crm"), &right);
                }
            });
        }
    });
    say("done");
}

#[test]
fn two_thousand_kills_leave_no_torn_read_no_foreign_value_and_nobody_waiting() {
    let dir = temp();
    let table = open(dir.path());
    let done = std::sync::atomic::AtomicBool::new(false);
    // As many as are asked for by `build/soak --kills`.
    let kills = std::env::var("SHAREDSTATE_KILLS").map_or(2_000, |kills| kills.parse().unwrap());
    let mut owners = 0_u64;
    let reads = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut reads, mut n) = (0_u64, 0_u64);
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                n += 1;
                let key = name(n);
                if let Some(found) = table.look(&key).and_then(|known| known.entry) {
                    assert!(genuine(&key, &found), "{key:?} gave a torn or foreign value");
                    reads += 1;
                }
            }
            reads
        });
        let all_killed = SetWhenDropped(&done);
        for kill in 0..kills {
            let mut actor = spawn("busy", dir.path());
            assert_eq!(actor.hear(), "ready");
            std::thread::sleep(Duration::from_micros(kill * 7 % 1500));
            actor.kill();
            // Nobody else is alive: whatever cannot be had at once was left behind by the dead.
            for n in 0..3 {
                let key = name(kill * 3 + n);
                let now = table.now();
                let until = now.plus(Duration::from_secs(60));
                let boarded = table.board(&key, until, now).unwrap();
                let Boarding::Mine { right, orphan } = boarded else {
                    panic!("{key:?}: a survivor waits for the dead");
                };
                owners += u64::from(orphan.is_some());
                table.leave(&key, &right);
            }
        }
        drop(all_killed);
        reader.join().unwrap()
    });
    println!("{kills} kills, {owners} of a flight's owner whom a survivor met; {reads} reads");
    assert!(reads > 100_000, "only {reads} reads");
    assert_eq!(table.counted(Counter::WritersGivenUp), 0, "the dead are not the stopped");
}

#[test]
fn a_stopped_writer_costs_the_others_no_write() {
    let dir = temp();
    let table = open(dir.path());
    let crm = key("crm");
    put(&table, &crm, 1, 1200);
    let mut actor = spawn("one key", dir.path());
    assert_eq!(actor.hear(), "ready");
    for round in 0..150_u64 {
        std::thread::sleep(Duration::from_micros(200 + round * 13 % 400));
        actor.signal(libc::SIGSTOP);
        let (version, now) = (crate::clock::system::wall().unix_micros(), table.now());
        let written = table.restore(&crm, &entry(&crm, version, 1200, now), now);
        assert!(written.is_ok(), "{written:?}");
        let found = table.look(&crm).unwrap().entry.unwrap();
        assert!(genuine(&crm, &found) && found.version >= Version(version));
        actor.signal(libc::SIGCONT);
        let found = table.look(&crm).unwrap().entry.unwrap();
        assert!(genuine(&crm, &found), "the resumed writer damaged what came after it");
    }
    let given_up = table.counted(Counter::WritersGivenUp);
    assert!(given_up > 0, "no stop ever hit a writer at work: the test proves nothing");
}

#[test]
fn several_stopped_writers_at_once_cost_the_others_no_write() {
    let dir = temp();
    let table = open(dir.path());
    let crm = key("crm");
    let mut actors: Vec<Actor> = (0..3).map(|_| spawn("one key", dir.path())).collect();
    for actor in &mut actors {
        assert_eq!(actor.hear(), "ready");
    }
    for round in 0..40_u64 {
        std::thread::sleep(Duration::from_micros(300 + round * 13 % 400));
        actors.iter().for_each(|actor| actor.signal(libc::SIGSTOP));
        let (version, now) = (crate::clock::system::wall().unix_micros(), table.now());
        let written = table.restore(&crm, &entry(&crm, version, 1200, now), now);
        assert!(written.is_ok(), "{written:?}");
        actors.iter().for_each(|actor| actor.signal(libc::SIGCONT));
        assert!(genuine(&crm, &table.look(&crm).unwrap().entry.unwrap()));
    }
}

#[test]
fn a_killed_owner_frees_its_flight_at_once_and_leaves_its_secret() {
    let dir = temp();
    let table = open(dir.path());
    let mut actor = spawn("owner", dir.path());
    assert_eq!(actor.hear(), "boarded");
    let hour = Duration::from_secs(3600);
    assert!(board(&table, "crm", hour).is_err());
    assert!(board(&table, "other", hour).is_ok(), "another name is not delayed");
    actor.kill();
    let (_, orphan) = board(&table, "crm", hour).unwrap();
    assert_eq!(orphan, SECRET);
}

#[test]
fn a_stopped_owner_is_given_up_on_at_its_deadline_and_learns_it() {
    let dir = temp();
    let table = open(dir.path());
    let mut actor = spawn("owner", dir.path());
    assert_eq!(actor.hear(), "boarded");
    actor.signal(libc::SIGSTOP);
    let hour = Duration::from_secs(3600);
    let (right, orphan) = loop {
        match board(&table, "crm", hour) {
            Ok(mine) => break mine,
            Err(bell) => table.wait(&key("crm"), bell, Duration::from_millis(10)),
        }
    };
    assert_eq!(orphan, SECRET);
    actor.signal(libc::SIGCONT);
    actor.tell();
    assert_eq!(actor.hear(), "lost");
    assert!(board(&table, "crm", hour).is_err(), "the late leave took away what is ours now");
    assert!(table.extend(&key("crm"), &right, table.now().plus(hour)));
}

#[test]
fn an_owner_that_left_properly_leaves_no_secret() {
    let dir = temp();
    let table = open(dir.path());
    let mut actor = spawn("owner", dir.path());
    assert_eq!(actor.hear(), "boarded");
    actor.tell();
    assert_eq!(actor.hear(), "kept");
    assert_eq!(board(&table, "crm", Duration::from_secs(9)).unwrap().1, None);
}

#[test]
fn two_processes_of_two_threads_never_have_one_flight_at_once() {
    let dir = temp();
    let table = open(dir.path());
    let mut actors = [spawn("contender", dir.path()), spawn("contender", dir.path())];
    for actor in &mut actors {
        assert_eq!(actor.hear(), "done");
    }
    assert_eq!(table.look(&key("count")).unwrap().entry.unwrap().version, Version(1200));
}

/// CLOCK_MONOTONIC, by which rights end, is another one there.
#[test]
fn a_process_in_a_time_namespace_of_its_own_has_a_table_of_its_own() {
    let dir = temp();
    let table = open(dir.path());
    let mut unshare = Command::new("unshare");
    unshare.args(["--time", "--monotonic", "100000", "--fork", "--kill-child", "--"]);
    unshare.arg(std::env::current_exe().unwrap());
    let mut actor = spawn_by(unshare, "owner", dir.path());
    assert_eq!(actor.hear(), "boarded");
    assert!(board(&table, "crm", Duration::from_secs(9)).is_ok());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
#[allow(unsafe_code)]
fn a_forked_child_keeps_none_of_its_parents_rights_alive() {
    let dir = temp();
    let table = open(dir.path());
    let mut actor = spawn("forker", dir.path());
    let child = Orphan(actor.hear().parse().unwrap());
    let hour = Duration::from_secs(3600);
    assert!(board(&table, "crm", hour).is_err());
    actor.kill();
    // SAFETY: signal 0 only asks whether the process exists.
    assert_eq!(unsafe { libc::kill(child.0, 0) }, 0, "the child must outlive its parent here");
    assert!(
        board(&table, "crm", hour).is_ok(),
        "the forked child kept the flight of its dead parent"
    );
}
