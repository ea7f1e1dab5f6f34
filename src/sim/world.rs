//! A world: a fleet, what befalls it, and whether it kept its promises. All of it follows from a seed.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;

use super::clock::{self, Hands, HostClock, MS, Micros, SECOND};
use super::dice::Dice;
use super::host::{self, Machine, Process};
use super::issuer::{self, Issuer};
use super::plan::{Plan, RIGHT, Settings, Wrong};
use super::server::Server;
use super::task::{self, Event};
use super::{network, promises, trace, witness};
use crate::clock::{Clock as _, simulated};
use crate::entry::{Fingerprint, Key, Kind};
use crate::flight::FlightError;
use crate::flight::machine::RAN_OUT;
use crate::random;
use crate::store::Host as _;

/// When every world begins, in true time.
pub const START: Micros = 1_790_000_000 * SECOND;

pub struct World {
    pub plan: Plan,
    pub settings: Rc<Settings>,
    pub keys: Vec<Key>,
    pub machines: Vec<Rc<Machine>>,
    pub processes: Vec<Vec<Rc<Process>>>,
    pub issuer: Rc<RefCell<Issuer>>,
    pub dice: Dice,
    /// The server that is the master.
    pub master: usize,
    /// What is to happen, by number: see [`Event::World`].
    pub deeds: Vec<Deed>,
}

/// Something that happens to a world at its time.
pub type Deed = Option<Box<dyn FnOnce(&mut World)>>;

/// What a world came to.
#[derive(Clone, Debug, Default)]
pub struct Came {
    pub broken: Option<String>,
    pub mints: u64,
    pub served: u64,
    /// Of all hosts.
    pub commands: u64,
    /// Of them, what was about no key but about whether there is news.
    pub following: u64,
    /// By kind: see [`Witness::seen`].
    pub seen: BTreeSet<&'static str>,
}

/// The world of that seed.
pub fn run(seed: u64, plan: Plan) -> Came {
    let mut world = World::new(seed, plan);
    world.go_on();
    world.ends()
}

impl World {
    fn new(seed: u64, plan: Plan) -> Self {
        let mut dice = Dice::new(seed ^ 0x5157_4f52_4c44);
        random::repeat(seed);
        simulated::sleep_by(Some(host::sleep));
        task::begin(START);
        let settings = Rc::new(plan.settings.clone());
        let clocks: Vec<_> = (0..settings.hosts)
            .map(|host| HostClock::new(hands(&mut dice, settings.wrong == Wrong::Host(host))))
            .collect();
        clock::begin(clocks.clone());
        let servers = vec![Server::new(hands(&mut dice, settings.wrong == Wrong::Servers))];
        network::begin(servers, settings.hosts, settings.latency, Dice::new(dice.roll(u64::MAX)));
        let key = |n| Key::new(Kind::Token, format!("k{n}").as_bytes(), Fingerprint::default());
        let keys: Vec<_> = (0..settings.keys).map(|n| key(n).unwrap()).collect();
        witness::begin(settings.clone(), keys.clone());
        let issuer = Issuer::new(Dice::new(dice.roll(u64::MAX)), settings.lifetime, settings.mint);
        let machines = clocks.into_iter().enumerate();
        let machines = machines.map(|(host, clock)| Machine::new(host, clock)).collect();
        let mut world = Self {
            plan,
            settings,
            keys,
            machines,
            processes: Vec::new(),
            issuer: Rc::new(RefCell::new(issuer)),
            dice,
            master: 0,
            deeds: Vec::new(),
        };
        world.issuer.borrow_mut().exits = world.plan.exits;
        world.populate();
        world
    }

    fn populate(&mut self) {
        for host in 0..self.settings.hosts {
            self.processes.push(Vec::new());
            for process in 0..self.settings.workers {
                let process = self.start_process(host, process);
                self.processes[host].push(process);
            }
        }
        let faults: Vec<_> = self.plan.faults.clone();
        for (at, fault) in faults {
            self.later(at, move |world| world.befall(fault));
        }
        let calm_from = self.plan.calm_from;
        self.later(calm_from, World::calm);
    }

    /// Does it so long after the world's beginning.
    pub fn later(&mut self, after: Micros, deed: impl FnOnce(&mut Self) + 'static) {
        task::at(START + after, Event::World(self.deeds.len()));
        self.deeds.push(Some(Box::new(deed)));
    }

    /// How long the world has lasted.
    pub fn age(&self) -> Micros {
        task::now() - START
    }

    pub fn start_process(&mut self, host: usize, index: usize) -> Rc<Process> {
        clock::show(host, task::now());
        let machine = &self.machines[host];
        let process = Process::new(machine, index, &self.settings, &self.issuer);
        let begins = task::now() + self.dice.roll(300_000) as i64;
        process.spawn(begins, |process| process.background());
        let (keys, dice) = (self.keys.clone(), Dice::new(self.dice.roll(u64::MAX)));
        let strict_from = START + self.plan.calm_from + 12 * SECOND;
        process.spawn(begins, move |process| serve(process, &keys, dice, strict_from));
        process
    }

    fn go_on(&mut self) {
        let end = START + self.plan.ends;
        while let Some(event) = task::next(end) {
            match event {
                Event::Wake(task, _) => self.go_on_with(task),
                Event::World(deed) => {
                    if let Some(deed) = self.deeds[deed].take() {
                        deed(self);
                    }
                }
                event => network::happens(event),
            }
            if witness::is_broken() {
                return;
            }
        }
        self.judge_heartbeats(
            0..self.settings.hosts,
            (self.plan.ends - self.plan.calm_from) / SECOND,
        );
        if self.plan.is_quiet() {
            witness::with(witness::Witness::judge_quiet);
        }
    }

    fn go_on_with(&mut self, task: task::TaskId) {
        let (owner, now) = (task::owner(task), task::now());
        let process = self.processes[owner.host][owner.process].clone();
        let machine = &self.machines[owner.host];
        let held_until = process.stopped_until.get().max(machine.stands_until.get());
        if held_until > now {
            task::defer(task, held_until);
            return;
        }
        clock::show(owner.host, now);
        witness::shows(owner.host, &machine.memory);
        let term = machine.memory.term();
        task::resume(task);
        if machine.memory.term() != term {
            process.term.set(Some(machine.memory.term()));
        }
        machine.ring();
    }

    /// Nothing breaks any more.
    fn calm(&mut self) {
        trace::say(|| "from here on nothing breaks".into());
        network::with(|network| {
            for way in &mut network.ways {
                *way = network::Way { named: self.master, ..network::Way::default() };
            }
            for server in &mut network.servers {
                (server.frozen_until, server.slowness) = (0, 1);
            }
        });
        witness::disturbed(None, task::now());
        self.remove_foreign();
    }

    /// Nothing has broken for so many seconds, so these hosts hear of everything.
    pub fn judge_heartbeats(&self, hosts: Range<usize>, seconds: i64) {
        let now = task::now();
        for machine in &self.machines[hosts] {
            clock::show(machine.index, now);
            let health = machine.memory.health();
            let age = health.heartbeat.until(machine.memory.now());
            let old = age.as_micros() as i64 > 1_500 * MS;
            if old || health.failing || health.asked_again.is_some() {
                witness::broken(format!(
                    "Host {} is not well although nothing has broken for {} s: its heartbeat is {age:?} \
                     old, {health:?}.",
                    machine.index, seconds
                ));
            }
        }
    }

    fn ends(self) -> Came {
        drop(self.processes);
        task::end();
        let (commands, about_keys) = network::with(|network| {
            let about_keys: u64 = network.servers.iter().map(|server| server.about_keys).sum();
            (network.commands.iter().sum::<u64>(), about_keys)
        });
        let witness = witness::end();
        simulated::show(None);
        simulated::sleep_by(None);
        let Some(witness) = witness else { return Came::default() };
        let mints = witness.mints.len() as u64;
        let (broken, served, seen) = (witness.broken, witness.served, witness.seen);
        Came {
            broken,
            mints,
            served,
            commands,
            following: commands.saturating_sub(about_keys),
            seen,
        }
    }
}

/// A machine's clocks: right within a little, or wrong.
fn hands(dice: &mut Dice, wrong: bool) -> Hands {
    let up = dice.between(1_000, 9_000_000) * SECOND;
    let off = match (wrong, dice.roll(3)) {
        (false, _) => dice.between(-RIGHT, RIGHT),
        (true, 0) => dice.between(-5_000, 5_000) * MS,
        (true, 1) => dice.between(-3_600, 3_600) * SECOND,
        (true, _) => dice.between(-3, 3) * 86_400 * SECOND,
    };
    let drift = dice.between(-50, 50);
    Hands::new(START, up, START + off, drift)
}

/// What a worker does all day.
fn serve(process: &Rc<Process>, keys: &[Key], mut dice: Dice, strict_from: Micros) {
    let think = process.settings().think;
    loop {
        task::pause_until(task::now() + dice.between(think / 4, think * 7 / 4));
        let key = &keys[dice.roll(keys.len() as u64) as usize];
        let began = task::now();
        let mut result = process.get(key, None);
        trace::say(|| format!("{} got {key:?}: {result:?}", process.owner()));
        if let Ok(served) = &result {
            promises::served(process, key, served, None);
            if served.degraded {
                witness::saw("degraded");
            }
            // Whoever uses it hears at once that it is refused.
            if process.is_refused(&served.entry.value) {
                witness::saw("token refused");
                let digest = Some(served.entry.digest());
                if dice.one_in(2) {
                    process.invalidate(key, digest);
                } else {
                    result = process.get(key, digest);
                    trace::say(|| format!("{} got another {key:?}: {result:?}", process.owner()));
                    if let Ok(served) = &result {
                        promises::served(process, key, served, digest);
                    }
                }
            }
        }
        if let Err(FlightError::WaitTimeout) = &result {
            witness::saw("waited in vain");
        }
        if let Err(error) = &result
            && began > strict_from
            && !matches!(error, FlightError::Nothing)
            // The pause of a mint that failed is a minute at the most.
            && !matches!(error, FlightError::MintFailed { reason, .. } if [issuer::FAILS, RAN_OUT].contains(&&**reason))
            && !(*error == FlightError::WaitTimeout && witness::minted_since(key, began))
        {
            witness::broken(format!(
                "{} got nothing although nothing has broken for long: {error:?}.",
                process.owner()
            ));
        }
    }
}
