//! What a large fleet costs one Redis: so many hosts, each with the leader, the flights and the connections
//! that a host has, in a few processes on one machine. Redis says itself what its core did.
//!
//!     hosts SOCKET-OF-REDIS HOSTS KEYS
//!
//! Hosts share processes of 70, which this program starts and speaks to by their standard input.

// It measures, so it reads the clock.
#![allow(clippy::disallowed_methods)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use sharedstate::clock::system::ProcessClock;
use sharedstate::clock::{Clock as _, Moment};
use sharedstate::entry::{Entry, Fingerprint, Key, Kind, Timing, TokenPolicy, Version};
use sharedstate::flight::{Engine, Outcome, Plan, Renew, Step, StoreDown};
use sharedstate::leader::Leader;
use sharedstate::metrics::Counter;
use sharedstate::redis::log::RedisLog;
use sharedstate::redis::{RedisConfig, RedisStore};
use sharedstate::store::memory::MemoryHost;
use sharedstate::store::{Host as _, Store as _};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const PER_PROCESS: usize = 70;
const STALENESS: Duration = Duration::from_secs(1);
const TURN: Duration = Duration::from_millis(150);
const STAND_BY: Duration = Duration::from_millis(180);
/// Leaders begin within this, as hosts of a deployment do.
const BEGIN: Duration = Duration::from_secs(5);
const COLD_KEYS: usize = 12;
const MINT: Duration = Duration::from_secs(2);
const HELD: u64 = 1_700_000_000_000_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["--hosts", socket, hosts, keys] => hosts_of(socket, hosts, keys),
        [socket, hosts, keys] => measure(socket, hosts, keys),
        _ => Err("usage: hosts SOCKET-OF-REDIS HOSTS KEYS".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn keys(prefix: &str, many: usize) -> Result<Vec<Key>> {
    let key = |n| {
        let name = format!("{prefix}:{n:05}:crm");
        Key::new(Kind::Token, name.as_bytes(), Fingerprint::default()).map_err(Into::into)
    };
    (0..many).map(key).collect()
}

/// Ten hours' token of so many bytes. Hosts keep short ones, for many of them share a memory.
fn entry(now: Moment, bytes: usize) -> Entry {
    let policy = TokenPolicy { margin: Duration::from_secs(60), refresh_ratio: 0.8 };
    let (timing, _) = Timing::token(now, Duration::from_secs(36_000), policy);
    let (value, detail) = (vec![b'x'; bytes].into(), b"{}".to_vec().into());
    Entry { version: Version(HELD), timing, unsynced: false, value, detail }
}

// --- The hosts of one process ---------------------------------------------------------------------

struct Hosts {
    hosts: Vec<Arc<MemoryHost>>,
    config: RedisConfig,
    clock: Arc<ProcessClock>,
}

/// Does what it is told by lines, and answers each with one.
fn hosts_of(socket: &str, hosts: &str, many: &str) -> Result<()> {
    let config = RedisConfig::parse(&format!("redis+unix://{socket}"))?;
    let clock = Arc::new(ProcessClock::start());
    let (kept, resident) = (entry(clock.now(), 16), keys("tenant", many.parse()?)?);
    let hosts: usize = hosts.parse()?;
    let made = (0..hosts).map(|_| {
        let host = Arc::new(MemoryHost::new(clock.clone()));
        for key in &resident {
            let _ = host.restore(key, &kept, clock.now());
        }
        host
    });
    let all = Hosts { hosts: made.collect(), config, clock };
    for (number, host) in all.hosts.iter().enumerate() {
        all.lead(host.clone(), BEGIN.mul_f64(number as f64 / hosts as f64))?;
    }
    println!("ready");
    loop {
        match told()?.as_str() {
            "status" => all.status(),
            "cold" => all.cold()?,
            _ => break,
        }
    }
    // Threads that wait are not waited for.
    std::process::exit(0);
}

fn told() -> Result<String> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line.trim_end().into())
}

impl Hosts {
    fn lead(&self, host: Arc<MemoryHost>, later: Duration) -> Result<()> {
        let store = Arc::new(RedisStore::new(self.config.clone()));
        let log = Arc::new(RedisLog::new(self.config.clone()));
        small_thread(move || {
            thread::sleep(later);
            let mut leader = Leader::new(host, store.clone(), log, STALENESS);
            loop {
                store.rest();
                if !leader.turn(TURN) {
                    thread::sleep(STAND_BY);
                }
            }
        })
    }

    /// Age of the oldest heartbeat in milliseconds, hosts in doubt, breakers opened.
    fn status(&self) {
        let now = self.clock.now();
        let age = |host: &Arc<MemoryHost>| host.health().heartbeat.until(now).as_millis();
        let oldest = self.hosts.iter().map(age).max().unwrap_or(0);
        let doubted = self.hosts.iter().filter(|host| host.in_doubt().is_some()).count();
        let opened = |host: &Arc<MemoryHost>| host.counted(Counter::BreakerOpened);
        println!("{oldest} {doubted} {}", self.hosts.iter().map(opened).sum::<u64>());
    }

    /// Every host wants the same few keys that nobody has, with a process for each. Says when it is ready, begins
    /// when told to, and says mints, calls without a value and the longest wait in milliseconds.
    fn cold(&self) -> Result<()> {
        let names = keys("cold", COLD_KEYS)?;
        let workers = self.hosts.len() * names.len();
        let (go, over) = (Arc::new(Barrier::new(workers + 1)), Arc::new(Barrier::new(workers + 1)));
        let counts: Arc<[AtomicU64; 3]> = Arc::default();
        for host in &self.hosts {
            for name in &names {
                let (host, name, config) = (host.clone(), name.clone(), self.config.clone());
                let (go, over, counts) = (go.clone(), over.clone(), counts.clone());
                small_thread(move || {
                    let [mints, failed, longest] = &*counts;
                    let engine = Engine::new(host.clone(), Some(Arc::new(RedisStore::new(config))));
                    go.wait();
                    let began = Instant::now();
                    let mut step = engine.begin(&name, &plan(host.now()));
                    while let Step::Mint(ticket) = step {
                        mints.fetch_add(1, Relaxed);
                        thread::sleep(MINT);
                        let minted = entry(ticket.minted_from, 1_200);
                        let (value, timing) = (minted.value.to_vec(), minted.timing);
                        let outcome = Outcome::Minted { value, timing, detail: b"{}".to_vec() };
                        step = engine.finish(*ticket, outcome);
                    }
                    failed.fetch_add(u64::from(!matches!(step, Step::Served(_))), Relaxed);
                    longest.fetch_max(began.elapsed().as_millis() as u64, Relaxed);
                    over.wait();
                })?;
            }
        }
        println!("ready");
        told()?;
        go.wait();
        over.wait();
        let [mints, failed, longest] = counts.each_ref().map(|count| count.load(Relaxed));
        println!("{mints} {failed} {longest}");
        Ok(())
    }
}

fn small_thread(body: impl FnOnce() + Send + 'static) -> Result<()> {
    thread::Builder::new().stack_size(192 << 10).spawn(body)?;
    Ok(())
}

fn plan(now: Moment) -> Plan {
    Plan {
        wait_until: now.plus(Duration::from_secs(6)),
        lease: Duration::from_secs(4),
        max_mint: Duration::from_secs(30),
        max_staleness: STALENESS,
        store_down: StoreDown::Host,
        failure_backoff: Duration::from_secs(1),
        rejected: None,
        may_mint: true,
        renew: Renew::WhenDue,
    }
}

// --- The fleet and its Redis ------------------------------------------------------------------------

struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(socket: &str, hosts: usize, keys: usize) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--hosts", socket, &hosts.to_string(), &keys.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("a child without pipes".into());
        };
        Ok(Self { child, input, output: BufReader::new(output) })
    }

    fn tell(&mut self, what: &str) -> Result<()> {
        Ok(writeln!(self.input, "{what}")?)
    }

    /// The numbers of a line, if it has any.
    fn hear(&mut self) -> Result<Vec<u64>> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err("a process of hosts has ended".into());
        }
        Ok(line.split_whitespace().filter_map(|word| word.parse().ok()).collect())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Fleet(Vec<Process>);

impl Fleet {
    fn start(socket: &str, hosts: usize, keys: usize) -> Result<Self> {
        let mut processes = Vec::new();
        for first in (0..hosts).step_by(PER_PROCESS) {
            processes.push(Process::start(socket, PER_PROCESS.min(hosts - first), keys)?);
        }
        let mut fleet = Self(processes);
        fleet.hear()?;
        Ok(fleet)
    }

    fn tell(&mut self, what: &str) -> Result<()> {
        self.0.iter_mut().try_for_each(|process| process.tell(what))
    }

    fn hear(&mut self) -> Result<Vec<Vec<u64>>> {
        self.0.iter_mut().map(Process::hear).collect()
    }

    /// Age of the oldest heartbeat in milliseconds, hosts in doubt, breakers opened.
    fn status(&mut self) -> Result<(u64, u64, u64)> {
        self.tell("status")?;
        let all = self.hear()?;
        let number = |at: usize| all.iter().filter_map(move |line| line.get(at).copied());
        Ok((number(0).max().unwrap_or(0), number(1).sum(), number(2).sum()))
    }
}

struct Server {
    socket: String,
}

#[derive(Clone, Copy)]
struct Spent {
    at: Instant,
    cpu: f64,
    commands: f64,
    bytes: f64,
}

impl Server {
    fn ask(&self, command: &str) -> Result<String> {
        let words = command.split(' ');
        let output = Command::new("redis-cli").args(["-s", &self.socket]).args(words).output()?;
        Ok(String::from_utf8(output.stdout)?)
    }

    fn spent(&self) -> Result<Spent> {
        let info = self.ask("INFO everything")?;
        let number = |name: &str| -> f64 {
            let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|number| number.trim().parse().ok()).unwrap_or(0.0)
        };
        // What clients send; commands of scripts are counted there, too. A look is four: two of XREVRANGE.
        let calls = |command: &str| -> f64 {
            let line = info.lines().find_map(|line| {
                line.strip_prefix("cmdstat_")?.strip_prefix(command)?.strip_prefix(":calls=")
            });
            let number = line.and_then(|line| line.split(',').next()?.parse().ok());
            number.unwrap_or(0.0)
        };
        Ok(Spent {
            at: Instant::now(),
            cpu: number("used_cpu_user") + number("used_cpu_sys"),
            commands: calls("xread") + calls("evalsha") + 2.0 * calls("xrevrange"),
            bytes: number("total_net_input_bytes") + number("total_net_output_bytes"),
        })
    }
}

fn measure(socket: &str, hosts: &str, many: &str) -> Result<()> {
    let (hosts, many): (usize, usize) = (hosts.parse()?, many.parse()?);
    let server = Server { socket: socket.into() };
    let store = RedisStore::new(RedisConfig::parse(&format!("redis+unix://{socket}"))?);
    let clock = ProcessClock::start();
    for key in keys("tenant", many)? {
        store.restore(&key, &entry(clock.now(), 1_200), clock.now())?;
    }
    let mut fleet = Fleet::start(socket, hosts, many)?;
    println!("\n{hosts} hosts, {many} keys on each\n");
    println!(
        "| | Redis' core | commands a second of a host | KB a second of a host | oldest heartbeat | hosts in doubt | breakers opened |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    row(&server, &mut fleet, hosts, "begin within 5 s: all is in doubt", 10)?;
    let since = Instant::now();
    while fleet.status()?.1 > 0 && since.elapsed() < Duration::from_secs(180) {
        thread::sleep(Duration::from_millis(500));
    }
    row(&server, &mut fleet, hosts, "at rest", 20)?;
    server.ask("CLIENT KILL TYPE normal SKIPME yes")?;
    row(&server, &mut fleet, hosts, "all connections were cut", 5)?;
    server.ask("DEL {sharedstate}:log")?;
    row(&server, &mut fleet, hosts, "the log was lost: seconds 1 to 5", 5)?;
    row(&server, &mut fleet, hosts, "6 to 10", 5)?;
    row(&server, &mut fleet, hosts, "11 to 20", 10)?;
    row(&server, &mut fleet, hosts, "21 to 30", 10)?;
    drop(fleet);
    server.ask("FLUSHALL")?;
    let mut fleet = Fleet::start(socket, hosts, 0)?;
    thread::sleep(BEGIN + Duration::from_secs(2));
    cold(&server, &mut fleet, hosts)
}

fn row(server: &Server, fleet: &mut Fleet, hosts: usize, what: &str, span: u64) -> Result<()> {
    let (before, (.., opened)) = (server.spent()?, fleet.status()?);
    let (mut oldest, mut doubted, mut opened_by_now) = (0, 0, opened);
    while before.at.elapsed() < Duration::from_secs(span) {
        thread::sleep(Duration::from_millis(500));
        let status = fleet.status()?;
        // Of a host that has not begun there is none.
        if status.0 < 1_000_000 {
            oldest = oldest.max(status.0);
        }
        (doubted, opened_by_now) = (doubted.max(status.1), status.2);
    }
    let after = server.spent()?;
    let seconds = (after.at - before.at).as_secs_f64();
    let per_host = |total: f64| total / seconds / hosts as f64;
    println!(
        "| {what} | {:.0} % | {:.1} | {:.1} | {:.1} s | {doubted} | {} |",
        (after.cpu - before.cpu) / seconds * 100.0,
        per_host(after.commands - before.commands),
        per_host(after.bytes - before.bytes) / 1024.0,
        oldest as f64 / 1000.0,
        opened_by_now - opened,
    );
    Ok(())
}

fn cold(server: &Server, fleet: &mut Fleet, hosts: usize) -> Result<()> {
    fleet.tell("cold")?;
    fleet.hear()?;
    let before = server.spent()?;
    fleet.tell("go")?;
    let most = Arc::new(AtomicU64::new(0));
    let (over, counted) = (Arc::new(AtomicBool::new(false)), most.clone());
    let (watched, ended) = (Server { socket: server.socket.clone() }, over.clone());
    let watch = thread::spawn(move || {
        while !ended.load(Relaxed) {
            let clients = watched.ask("INFO clients").unwrap_or_default();
            let open = clients.lines().find_map(|line| line.strip_prefix("connected_clients:"));
            let open = open.and_then(|it| it.trim().parse().ok()).unwrap_or(0);
            counted.fetch_max(open, Relaxed);
            thread::sleep(Duration::from_millis(20));
        }
    });
    let counts = fleet.hear()?;
    over.store(true, Relaxed);
    let _ = watch.join();
    let after = server.spent()?;
    let number = |at: usize| counts.iter().filter_map(move |line| line.get(at).copied());
    let seconds = (after.at - before.at).as_secs_f64();
    println!(
        "\n{COLD_KEYS} cold keys on {hosts} hosts at once, a process for each, {} s to mint\n",
        MINT.as_secs()
    );
    println!(
        "| mints | calls without a value | longest wait | commands of a host, its leader's included | Redis' core | most connections | breakers opened |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    println!(
        "| {} | {} | {:.1} s | {:.0} in {seconds:.0} s | {:.0} % | {} | {} |",
        number(0).sum::<u64>(),
        number(1).sum::<u64>(),
        number(2).max().unwrap_or(0) as f64 / 1000.0,
        (after.commands - before.commands) / hosts as f64,
        (after.cpu - before.cpu) / seconds * 100.0,
        most.load(Relaxed),
        fleet.status()?.2,
    );
    Ok(())
}
