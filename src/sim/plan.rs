//! What a world is and what befalls it, decided by its seed before anything moves.

use std::time::Duration;

use super::clock::{MS, Micros, SECOND};
use super::dice::Dice;
use super::rules::RULES;
use crate::flight::StoreDown;

#[derive(Clone, Debug)]
pub struct Settings {
    pub hosts: usize,
    pub workers: usize,
    pub keys: usize,
    pub lease: Duration,
    pub staleness: Duration,
    pub margin: Duration,
    pub lifetime: Micros,
    pub store_down: StoreDown,
    pub wait: Duration,
    pub max_mint: Duration,
    /// A mint takes at least and at most.
    pub mint: (Micros, Micros),
    /// What passes between two reads of a worker, on the average.
    pub think: Micros,
    /// How long the leader waits for a line of the log.
    pub patience: Duration,
    pub latency: Micros,
    /// To connect, and for an answer.
    pub timeout: Duration,
    /// Whose clock is wrong.
    pub wrong: Wrong,
}

impl Settings {
    /// How old a token is when it is renewed.
    pub fn renewed_after(&self) -> Micros {
        let margin = (self.margin.as_micros() as i64).min(self.lifetime / 5);
        (self.lifetime - margin) * 8 / 10
    }
}

/// No promise about the end of a token rests on one clock; of two that are wrong in the same direction nothing is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    Nobody,
    Host(usize),
    Servers,
}

/// What brings out why a rule is there: faults by the numbers of [`fault`].
#[derive(Clone, Copy, Debug)]
pub struct Temptation {
    pub faults: &'static [u64],
    pub wrong: Wrong,
}

/// By how much a clock that is right differs from the truth, at the most.
pub const RIGHT: Micros = 50 * MS;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// A host, and for how long.
    Partition(usize, Micros),
    /// Messages of a host are lost and late for so long: of a thousand requests, replies, and any.
    Loss(usize, Micros, [u64; 3]),
    /// Every message of a host takes so much longer.
    SlowWay(usize, Micros, Micros),
    CutConnections(Option<usize>),
    Silence(usize),
    FreezeServer(Micros),
    SlowServer(Micros, i64),
    /// See [`FailOver`].
    FailOver(FailOver),
    Restart,
    Flush,
    LoseLog,
    LoseMeta,
    /// Of a key.
    LoseRow(usize),
    TrimLog(usize),
    /// What is under the key is something else for so long.
    Foreign(usize, Micros),
    /// A version that nobody can have issued is in a key's row, and in `meta`.
    Poison(usize),
    ServerClock(Micros),
    /// A host's wall clock is stepped.
    HostClock(usize, Micros),
    /// A host stands still for so long; then it is stepped, or slewed at so many in a million.
    Stand(usize, Micros, Option<i64>),
    Kill(usize, usize),
    /// A process is stopped for so long.
    Stop(usize, usize, Micros),
    /// A host begins anew, with nothing.
    Reboot(usize),
    /// A host forgets a key.
    Evict(usize, usize),
    /// A process of the host drops a key everywhere.
    Invalidate(usize, usize),
    /// The issuer takes back what it issued for a key.
    Revoke(usize),
    IssuerFails(Micros, Duration),
    IssuerSlow(Micros, Micros),
    /// Whatever is issued until then is refused.
    AlwaysRefused(Micros),
}

/// Another server takes the master's place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FailOver {
    /// What the master wrote in so long before is lost.
    pub loses: Micros,
    /// By how much the clock of the new one is ahead of the truth.
    pub ahead: Micros,
    pub former: Former,
}

/// What becomes of the server that was the master.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Former {
    /// It is dead, and nobody answers for so long.
    Dies(Micros),
    /// It goes on answering what is read, for a while.
    Demoted,
    /// It goes on as a master for so long, for whoever is still connected to it.
    Left(Micros),
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub settings: Settings,
    /// By time.
    pub faults: Vec<(Micros, Fault)>,
    /// From then on nothing breaks any more, and everything is to come right.
    pub calm_from: Micros,
    pub ends: Micros,
    /// Of a thousand mints so many end with their request.
    pub exits: u64,
}

/// How long a world lasts.
pub const SPAN: Micros = 60 * SECOND;
/// How long it has to come right.
pub const CALM: Micros = 18 * SECOND;

impl Fault {
    /// All, for who wants to know whether each has been.
    pub const NAMES: [&str; 31] = [
        "Partition",
        "Loss",
        "SlowWay",
        "CutConnections",
        "Silence",
        "FreezeServer",
        "SlowServer",
        "FailOver",
        "Restart",
        "Flush",
        "LoseLog",
        "LoseMeta",
        "LoseRow",
        "TrimLog",
        "Foreign",
        "Poison",
        "ServerClock",
        "HostClock",
        "Stand",
        "Kill",
        "Stop",
        "Reboot",
        "Evict",
        "Invalidate",
        "Revoke",
        "IssuerFails",
        "IssuerSlow",
        "AlwaysRefused",
        "Dies",
        "Demoted",
        "Left",
    ];

    /// Of those, what this is.
    pub fn names(&self) -> Vec<&'static str> {
        let text = format!("{self:?} ");
        let has =
            |name: &&&str| text.split(|c: char| !c.is_alphanumeric()).any(|word| word == **name);
        Self::NAMES.iter().filter(has).copied().collect()
    }
}

impl Plan {
    /// A small world.
    pub fn small(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let settings = settings(&mut dice);
        let calm_from = SPAN - CALM;
        let mut faults = Vec::new();
        let many = match dice.roll(8) {
            0 => 0,
            1..=3 => dice.between(1, 2),
            4..=6 => dice.between(3, 6),
            _ => dice.between(7, 14),
        };
        for _ in 0..many {
            let at = dice.between(2 * SECOND, calm_from - SECOND);
            let left = calm_from - at;
            faults.push((at, fault(&mut dice, &settings, left, None)));
        }
        faults.sort_by_key(|(at, _)| *at);
        if settings.wrong != Wrong::Nobody && dice.one_in(2) {
            let at = dice.between(2 * SECOND, calm_from - SECOND);
            faults.push((at, clock_fault(&mut dice, &settings, calm_from - at)));
            faults.sort_by_key(|(at, _)| *at);
        }
        let exits = if dice.one_in(6) { 100 } else { 0 };
        Self { settings, faults, calm_from, ends: SPAN, exits }
    }
}

impl Plan {
    /// Many hosts, and little that befalls them.
    pub fn large(seed: u64, hosts: usize) -> Self {
        let mut dice = Dice::new(seed);
        let settings = Settings { hosts, wrong: Wrong::Nobody, ..steady(hosts) };
        let calm_from = SPAN - CALM;
        let mut faults: Vec<_> = (0..dice.between(2, 6))
            .map(|_| {
                let at = dice.between(2 * SECOND, calm_from - SECOND);
                let fault = match dice.roll(4) {
                    0 => Fault::CutConnections(None),
                    1 => Fault::FailOver(fail_over(&mut dice, &settings, calm_from - at)),
                    2 => dice.of(&[
                        Fault::Flush,
                        Fault::Restart,
                        Fault::LoseLog,
                        Fault::FreezeServer(SECOND),
                    ]),
                    _ => fault(&mut dice, &settings, calm_from - at, None),
                };
                // So slow that no answer to so many comes in time would be gone, and not slow.
                match fault {
                    Fault::SlowServer(span, _) => (at, Fault::SlowServer(span, 10)),
                    fault => (at, fault),
                }
            })
            .collect();
        faults.sort_by_key(|(at, _)| *at);
        Self { settings, faults, calm_from, ends: SPAN, exits: 0 }
    }

    /// A small world of short lives, in which more happens of what brings out why a rule is there; which rule, goes by turns.
    pub fn tempting(seed: u64) -> Self {
        let temptation = &RULES[seed as usize % RULES.len()].tempts;
        let mut dice = Dice::new(!seed);
        let mut settings = settings(&mut dice);
        settings.lifetime = settings.lifetime.min(15 * SECOND);
        settings.wrong = match temptation.wrong {
            Wrong::Host(_) => Wrong::Host(dice.roll(settings.hosts as u64) as usize),
            wrong => wrong,
        };
        let calm_from = SPAN - CALM;
        let mut faults: Vec<_> = (0..dice.between(4, 12))
            .map(|_| {
                let at = dice.between(2 * SECOND, calm_from - SECOND);
                let left = calm_from - at;
                if temptation.faults.is_empty() {
                    return (at, clock_fault(&mut dice, &settings, left));
                }
                let which = dice.of(temptation.faults);
                (at, fault(&mut dice, &settings, left, Some(which)))
            })
            .collect();
        faults.sort_by_key(|(at, _)| *at);
        Self { settings, faults, calm_from, ends: SPAN, exits: 0 }
    }

    /// Nothing befalls anybody, for so many lifetimes.
    pub fn steady(hosts: usize, lifetimes: i64) -> Self {
        let settings = steady(hosts);
        let ends = settings.lifetime * lifetimes;
        Self { settings, faults: Vec::new(), calm_from: 0, ends, exits: 0 }
    }

    pub fn is_quiet(&self) -> bool {
        self.faults.is_empty() && self.exits == 0 && self.settings.wrong == Wrong::Nobody
    }
}

/// As a fleet is that is set up as the documentation says, with short lives.
fn steady(hosts: usize) -> Settings {
    Settings {
        hosts,
        workers: if hosts > 100 { 1 } else { 2 },
        keys: 3,
        lease: ms(4_000),
        staleness: ms(1_000),
        margin: ms(2_000),
        lifetime: 30 * SECOND,
        store_down: StoreDown::Host,
        wait: ms(6_000),
        max_mint: Duration::from_secs(30),
        mint: (50 * MS, 300 * MS),
        think: SECOND,
        patience: ms(150),
        latency: 150,
        timeout: ms(500),
        wrong: Wrong::Nobody,
    }
}

fn ms(ms: i64) -> Duration {
    Duration::from_millis(ms as u64)
}

fn settings(dice: &mut Dice) -> Settings {
    let hosts = dice.of(&[2, 2, 2, 3, 3, 4, 5, 6]);
    let lease = dice.of(&[600, 1_000, 2_000, 4_000]);
    let wrong = match dice.roll(6) {
        0 | 1 => Wrong::Host(dice.roll(hosts as u64) as usize),
        2 => Wrong::Servers,
        _ => Wrong::Nobody,
    };
    let slow_mint = dice.one_in(4);
    let staleness = dice.of(&[400, 1_000, 1_000, 2_000]);
    let quick = (dice.between(5, 50) * MS, dice.between(60, 400) * MS);
    let slow = (dice.between(100, 500) * MS, dice.between(1_000, 5_000) * MS);
    Settings {
        hosts,
        workers: dice.of(&[1, 1, 2, 2, 3, 4]),
        keys: dice.of(&[1, 1, 2, 3]),
        lease: ms(lease),
        staleness: ms(staleness),
        margin: ms(dice.of(&[0, 0, 500, 60_000])),
        // None ends while it is minted.
        lifetime: dice.of(if slow_mint { &[15, 15, 30, 30, 300] } else { &[4, 8, 15, 30, 300] })
            * SECOND,
        store_down: if dice.one_in(4) { StoreDown::Fail } else { StoreDown::Host },
        wait: ms(lease + dice.of(&[1_000, 2_000])),
        max_mint: Duration::from_secs(30),
        mint: if slow_mint { slow } else { quick },
        think: dice.of(&[100, 300, 800, 2_000]) * MS,
        // Fewer questions make a world cheaper; the first is what processes do.
        patience: ms(dice.of(if staleness < 1_000 { &[150] } else { &[150, 400, 400] })),
        latency: dice.between(80, 1_500),
        timeout: ms(250),
        wrong,
    }
}

/// `which`: see below.
fn fault(dice: &mut Dice, settings: &Settings, left: Micros, which: Option<u64>) -> Fault {
    let host = dice.roll(settings.hosts as u64) as usize;
    let key = dice.roll(settings.keys as u64) as usize;
    let process = dice.roll(settings.workers as u64) as usize;
    let mut span = |most: Micros| dice.between(50 * MS, most.min(left).max(60 * MS));
    let (short, long) = (span(3 * SECOND), span(15 * SECOND));
    match which.unwrap_or_else(|| dice.roll(31)) {
        0 => Fault::Partition(host, long),
        1 => Fault::Partition(host, short),
        2 | 3 => {
            let lost = [dice.roll(150), dice.roll(150), dice.roll(200)];
            Fault::Loss(host, long, lost)
        }
        4 => Fault::SlowWay(host, long, dice.between(20 * MS, 400 * MS)),
        5 => Fault::CutConnections(dice.one_in(2).then_some(host)),
        6 => Fault::Silence(host),
        7 => Fault::FreezeServer(short),
        8 => Fault::SlowServer(short, dice.of(&[100, 1_000, 5_000])),
        9..=11 => Fault::FailOver(fail_over(dice, settings, left)),
        12 => Fault::Restart,
        13 => Fault::Flush,
        14 => Fault::LoseLog,
        15 => Fault::LoseMeta,
        16 => Fault::LoseRow(key),
        17 => Fault::TrimLog(dice.roll(3) as usize),
        18 => Fault::Kill(host, process),
        19 => Fault::Kill(host, process),
        20 | 21 => Fault::Stop(host, process, long),
        22 => Fault::Evict(host, key),
        23 => Fault::Invalidate(host, key),
        24 => Fault::Revoke(key),
        25 => Fault::IssuerFails(long, ms(dice.of(&[0, 0, 3_000]))),
        26 => Fault::IssuerSlow(long, dice.between(SECOND, 8 * SECOND)),
        27 => Fault::AlwaysRefused(long),
        28 => Fault::Foreign(key, short),
        29 => Fault::Poison(key),
        _ => Fault::Reboot(host),
    }
}

fn fail_over(dice: &mut Dice, settings: &Settings, left: Micros) -> FailOver {
    let ahead = match settings.wrong {
        Wrong::Servers => dice.between(-600, 600) * SECOND,
        _ => dice.between(-RIGHT, RIGHT),
    };
    FailOver {
        loses: dice.of(&[0, 200 * MS, 3 * SECOND]),
        ahead,
        former: match dice.roll(3) {
            0 => Former::Dies(dice.between(100 * MS, (4 * SECOND).min(left).max(200 * MS))),
            1 => Former::Demoted,
            _ => Former::Left(dice.between(SECOND, 8 * SECOND).min(left)),
        },
    }
}

fn clock_fault(dice: &mut Dice, settings: &Settings, left: Micros) -> Fault {
    let by = match dice.roll(3) {
        0 => dice.between(-5_000, 5_000) * MS,
        1 => dice.between(-3_600, 3_600) * SECOND,
        _ => dice.between(-3, 3) * 86_400 * SECOND,
    };
    match settings.wrong {
        Wrong::Host(host) if dice.one_in(2) => {
            let span = dice.between(SECOND, (20 * SECOND).min(left).max(2 * SECOND));
            Fault::Stand(host, span, dice.one_in(2).then_some(80_000))
        }
        Wrong::Host(host) => Fault::HostClock(host, by),
        _ => Fault::ServerClock(by),
    }
}
