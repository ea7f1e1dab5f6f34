use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::thread;

use super::plan::{Fault, Plan};
use super::rules::{self, RULES, Rule};
use super::world::{self, Came};
use super::{host, trace};

/// A number that the environment may give.
fn asked(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|it| it.parse().ok()).unwrap_or(otherwise)
}

/// Runs the worlds of these seeds, on all processors.
fn run(seeds: Range<u64>, plan: impl Fn(u64) -> Plan + Sync) -> Vec<(u64, Came)> {
    let (next, end, plan) = (&AtomicU64::new(seeds.start), seeds.end, &plan);
    let work = move || {
        let mut came = Vec::new();
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= end {
                return came;
            }
            came.push((seed, world::run(seed, plan(seed))));
        }
    };
    let threads = thread::available_parallelism().map_or(1, |it| it.get());
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|it| it.join().unwrap()).collect()
    })
}

/// The world once more, with what happened in it.
fn traced(seed: u64, plan: Plan) -> (Came, Vec<String>) {
    trace::keep(true);
    let came = world::run(seed, plan);
    let lines = trace::last(usize::MAX);
    trace::keep(false);
    (came, lines)
}

/// Fails with the first world that broke a promise, and its last moments. What all of them have seen.
fn judge(worlds: Vec<(u64, Came)>, what: &str, plan: impl Fn(u64) -> Plan) -> Came {
    let mut sum = Came::default();
    let mut broken: Vec<_> = Vec::new();
    for (seed, came) in worlds {
        broken.extend(came.broken.map(|sentence| (seed, sentence)));
        sum.mints += came.mints;
        sum.served += came.served;
        sum.commands += came.commands;
        sum.seen.extend(came.seen);
    }
    broken.sort();
    if let Some((seed, _)) = broken.first() {
        let (_, lines) = traced(*seed, plan(*seed));
        for line in lines.iter().skip(lines.len().saturating_sub(40)) {
            println!("{line}");
        }
        for (seed, sentence) in broken.iter().take(20) {
            println!("{what} {seed}: {sentence}");
        }
        panic!(
            "{} broke a promise, the first of them {what} {seed}. All of it: \
             SHAREDSTATE_TRACE=1 SHAREDSTATE_SEED={seed} cargo nextest run --cargo-profile checked sim::tests::{what} --no-capture",
            broken.len()
        );
    }
    sum
}

/// Worlds of that kind; with SHAREDSTATE_TRACE one, and all that happens in it.
fn promises_are_kept(what: &str, count: u64, plan: impl Fn(u64) -> Plan + Sync) -> Came {
    let first = asked("SHAREDSTATE_SEED", 1);
    if std::env::var_os("SHAREDSTATE_TRACE").is_some() {
        let plan = plan(first);
        println!("{plan:#?}");
        let (came, lines) = traced(first, plan);
        lines.iter().for_each(|line| println!("{line}"));
        println!("{:?}", came.broken);
        return came;
    }
    let began = std::time::Instant::now();
    let sum = judge(run(first..first + count, &plan), what, plan);
    println!(
        "{count} worlds from seed {first}: {} tokens handed out, {} mints, {} commands, {:.1} s",
        sum.served,
        sum.mints,
        sum.commands,
        began.elapsed().as_secs_f64()
    );
    sum
}

#[test]
fn small_worlds() {
    let count = asked("SHAREDSTATE_WORLDS", 200);
    let came = promises_are_kept("small_worlds", count, Plan::small);
    if count >= 1_000 {
        let all: BTreeSet<_> = Fault::NAMES.iter().chain(&host::WAYS).copied().collect();
        let missing: Vec<_> = all.difference(&came.seen).collect();
        assert!(missing.is_empty(), "never seen: {missing:?}");
    }
}

#[test]
fn worlds_of_a_hundred_hosts() {
    promises_are_kept("worlds_of_a_hundred_hosts", asked("SHAREDSTATE_HUNDREDS", 1), |seed| {
        Plan::large(seed, 100)
    });
}

#[test]
fn worlds_of_a_thousand_hosts() {
    promises_are_kept("worlds_of_a_thousand_hosts", asked("SHAREDSTATE_THOUSANDS", 0), |seed| {
        Plan::large(seed, 1_000)
    });
}

/// A seed is all of a world: it happens again, line by line.
#[test]
fn a_world_repeats_from_its_seed() {
    for seed in 1..=5 {
        let (first, again) = (traced(seed, Plan::small(seed)).1, traced(seed, Plan::small(seed)).1);
        let other = first.iter().zip(&again).find(|(first, again)| first != again);
        assert_eq!(other, None, "seed {seed}");
        assert_eq!(first.len(), again.len());
        assert!(first.len() > 100);
    }
}

#[test]
fn tempting_worlds() {
    promises_are_kept("tempting_worlds", asked("SHAREDSTATE_WORLDS", 200) / 4, Plan::tempting);
}

/// What chance shows in one of hundreds of worlds only; looked for where there is time.
const RARE: [&str; 3] = [
    "a gap puts everything in doubt",
    "no gap is only what an anchor shows to be none",
    "a host keeps nothing older than it has heard of",
];

/// So many worlds at the most, until one breaks a promise.
fn enough(rule: &Rule) -> u64 {
    match (RARE.contains(&rule.name), asked("SHAREDSTATE_WORLDS", 200)) {
        (false, _) => 300,
        (true, ..4_000) => 0,
        (true, 4_000..) => 2_000,
    }
}

/// The first world that keeps its promises with the rule, and does not without it.
fn missed(at: usize, rule: &'static Rule) -> Option<(u64, String)> {
    let seeds = (at as u64..).step_by(RULES.len()).take(enough(rule) as usize);
    let broken = |seed: u64, off| {
        rules::switch_off(off);
        let came = world::run(seed, Plan::tempting(seed));
        rules::switch_off(None);
        came.broken
    };
    seeds
        .filter_map(|seed| Some((seed, broken(seed, Some(rule))?)))
        .find(|(seed, _)| broken(*seed, None).is_none())
}

#[test]
fn without_any_rule_a_promise_is_broken() {
    let next = &AtomicUsize::new(0);
    let worker = move || {
        let mut needless = Vec::new();
        while let Some((at, rule)) =
            Some(next.fetch_add(1, Relaxed)).and_then(|at| Some((at, RULES.get(at)?)))
        {
            match missed(at, rule) {
                Some((seed, sentence)) => println!("| {} | {seed} | {sentence} |", rule.name),
                None if enough(rule) > 0 => needless.push(rule.name),
                None => {}
            }
        }
        needless
    };
    let threads = thread::available_parallelism().map_or(1, |it| it.get());
    let needless: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        threads.into_iter().flat_map(|it| it.join().unwrap()).collect()
    });
    assert!(needless.is_empty(), "rules that nothing needs: {needless:?}");
}

/// What a key costs a fleet in a lifetime of it, where nothing breaks.
#[test]
fn a_key_is_minted_once_in_its_lifetime_by_a_fleet_of_any_size() {
    const LIFETIMES: i64 = 6;
    println!(
        "| hosts | mints per key and lifetime | commands about it per host | commands per host and second to hear of news |"
    );
    println!("| --- | --- | --- | --- |");
    let largest = asked("SHAREDSTATE_LARGEST", 100);
    for hosts in [1, 10, 100, 1_000].into_iter().filter(|hosts| *hosts <= largest) {
        let plan = Plan::steady(hosts as usize, LIFETIMES);
        // A life ends for the fleet when it is renewed.
        let lives = plan.ends as f64 / plan.settings.renewed_after() as f64;
        let (keys, seconds) = (plan.settings.keys as f64, plan.ends as f64 / 1e6);
        let came = world::run(hosts, plan);
        assert_eq!(came.broken, None, "{hosts} hosts");
        let hosts = hosts as f64;
        let following = came.following as f64 / hosts / seconds;
        println!(
            "| {hosts} | {:.2} | {:.2} | {following:.1} |",
            came.mints as f64 / keys / lives,
            (came.commands - came.following) as f64 / hosts / keys / lives,
        );
    }
}
