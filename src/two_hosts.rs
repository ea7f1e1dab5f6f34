//! Two hosts as two processes with a table each, over one real Redis: the whole core, without PHP.
#![cfg(all(feature = "host", feature = "redis"))]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock as _;
use crate::entry::{Fingerprint, Key, Kind, Timing};
use crate::flight::{Engine, Outcome, Plan, Renew, Step, StoreDown};
use crate::host::{HostTable, Place, Sizes};
use crate::leader::Leader;
use crate::redis::log::RedisLog;
use crate::redis::testing::{Server, patient};
use crate::redis::{RedisConfig, RedisStore};
use crate::store::Host as _;

const ROUNDS: usize = 1000;
const SOCKET: &str = "SHAREDSTATE_TEST_SOCKET";
const DIR: &str = "SHAREDSTATE_TEST_HOST_DIR";

fn plan(host: &HostTable) -> Plan {
    Plan {
        wait_until: host.now().plus(Duration::from_secs(20)),
        lease: Duration::from_secs(10),
        max_mint: Duration::from_secs(30),
        max_staleness: Duration::from_secs(1),
        store_down: StoreDown::Fail,
        failure_backoff: Duration::from_secs(1),
        rejected: None,
        may_mint: true,
        renew: Renew::WhenDue,
    }
}

/// The body of a process: for every line it hears it gets, drops or looks at one key, and says how
/// often it minted and what it got.
#[test]
#[ignore = "the body of child processes, not a test"]
fn racer() {
    let dir = std::env::var(DIR).unwrap();
    let place = Place::new(Path::new(&dir), &["two hosts"]);
    let host =
        Arc::new(HostTable::open(place, Sizes::new(2048, 16 << 10, 32 << 20), None).unwrap());
    let dsn = format!("redis+unix://{}", std::env::var(SOCKET).unwrap());
    let redis = patient(RedisConfig::parse(&dsn).unwrap());
    let store = Arc::new(RedisStore::new(redis.clone()).on(host.clone()));
    let log = Arc::new(RedisLog::new(redis).on(host.clone()));
    let leader = Leader::new(host.clone(), store.clone(), log, Duration::from_secs(1));
    let engine = Engine::following(host.clone(), store, leader);
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let (asked, name) = line.split_once(' ').unwrap();
        let key = Key::new(Kind::Token, name.as_bytes(), Fingerprint::default()).unwrap();
        match asked {
            "drop" => {
                say(usize::from(engine.invalidate(&key, None).unwrap()), "dropped");
                continue;
            }
            // What the host has, without asking anybody.
            "look" => {
                let entry = host.look(&key).and_then(|known| known.entry);
                say(
                    0,
                    &entry.map_or("nothing".into(), |it| {
                        String::from_utf8(it.value.to_vec()).unwrap()
                    }),
                );
                continue;
            }
            _ => {}
        }
        let mut minted = 0;
        let mut step = engine.begin(&key, &plan(&host));
        while let Step::Mint(ticket) = step {
            minted += 1;
            let from = ticket.minted_from;
            let timing = Timing {
                minted_at: from,
                refresh_at: from.plus(Duration::from_secs(1000)),
                usable_until: from.plus(Duration::from_secs(2000)),
                expires_at: from.plus(Duration::from_secs(3000)),
            };
            let value = format!("{}-{}", std::process::id(), ticket.version()).into_bytes();
            let outcome = Outcome::Minted { value, timing, detail: b"{}".to_vec() };
            step = engine.finish(*ticket, outcome);
        }
        let Step::Served(served) = step else { panic!("{step:?}") };
        say(minted, std::str::from_utf8(&served.entry.value).unwrap());
    }
}

fn say(number: usize, what: &str) {
    println!("got:{number} {what}");
    std::io::stdout().flush().unwrap();
}

struct Racer(Child, BufReader<std::process::ChildStdout>);

impl Racer {
    fn start(server: &Server, dir: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "two_hosts::racer", "--ignored", "--nocapture"])
            .env(SOCKET, server.socket())
            .env(DIR, dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self(child, out)
    }

    fn go(&mut self, what: &str) {
        writeln!(self.0.stdin.as_mut().unwrap(), "{what}").unwrap();
    }

    fn ask(&mut self, what: &str) -> String {
        self.go(what);
        self.got().1
    }

    /// Until the host has it, or has it no more, without anybody on it asking.
    fn comes_to(&mut self, name: &str, wanted: &str) {
        for _ in 0..500 {
            if self.ask(&format!("look {name}")) == wanted {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the change never reached the other host");
    }

    fn signal(&self, signal: &str) {
        let pid = self.0.id().to_string();
        Command::new("kill").args([signal, &pid]).status().unwrap();
    }

    /// How often it minted, and what it was served.
    fn got(&mut self) -> (usize, String) {
        loop {
            let mut line = String::new();
            assert!(self.1.read_line(&mut line).unwrap() > 0, "a racer is gone");
            if let Some((_, got)) = line.split_once("got:") {
                let (minted, value) = got.trim().split_once(' ').unwrap();
                return (minted.parse().unwrap(), value.to_owned());
            }
        }
    }
}

impl Drop for Racer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn dir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("sharedstate-test-").tempdir_in("/dev/shm").unwrap()
}

#[test]
fn what_one_host_commits_or_drops_reaches_the_other_without_its_asking() {
    let server = Server::start();
    let dirs = [dir(), dir()];
    let [mut one, mut other] = [0, 1].map(|n| Racer::start(&server, dirs[n].path()));
    let first = one.ask("get crm");
    assert_eq!(other.ask("get crm"), first);
    assert_eq!(one.ask("drop crm"), "dropped");
    other.comes_to("crm", "nothing");
    let second = one.ask("get crm");
    other.comes_to("crm", &second);
}

#[test]
fn when_the_leader_dies_or_is_stopped_another_process_of_its_host_follows_on() {
    for signal in ["-KILL", "-STOP"] {
        let server = Server::start();
        let (here, there) = (dir(), dir());
        let mut writer = Racer::start(&server, there.path());
        let mut leader = Racer::start(&server, here.path());
        let first = leader.ask("get crm");
        let mut standby = Racer::start(&server, here.path());
        assert_eq!(standby.ask("get crm"), first);
        standby.ask("get something to ask the store for"); // so that it stands by
        leader.signal(signal);
        writer.ask("drop crm");
        standby.comes_to("crm", "nothing");
        let second = writer.ask("get crm");
        standby.comes_to("crm", &second);
    }
}

#[test]
fn two_processes_on_two_hosts_race_a_thousand_times_with_one_mint_and_one_commit_each() {
    let server = Server::start();
    let dirs = [dir(), dir()];
    let mut racers = [0, 1].map(|n| Racer::start(&server, dirs[n].path()));
    let mut wins = [0; 2];
    for round in 0..ROUNDS {
        let name = format!("get round {round}");
        racers.iter_mut().for_each(|racer| racer.go(&name));
        let [one, two] = [0, 1].map(|n| racers[n].got());
        assert_eq!(one.0 + two.0, 1, "round {round}: minted more or less than once");
        assert_eq!(one.1, two.1, "round {round}: two hosts, two tokens");
        wins[usize::from(two.0 == 1)] += 1;
    }
    // The log has one line for each commit, and nothing else was committed.
    let committed: usize = server.admin().ask("XLEN {sharedstate}:log");
    assert_eq!(committed, ROUNDS);
    assert!(wins[0] > 0 && wins[1] > 0, "{wins:?}: they never raced");
}
