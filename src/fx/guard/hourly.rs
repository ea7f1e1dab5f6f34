//! The guard against sources that publish every hour. The days are the ECB's; what lies between two
//! of them is made up, in three ways.

use std::collections::BTreeMap;

use super::history::{Rates, history, sheet_of, shown};
use super::*;

const HOUR: i64 = 3600;
const AS_OF: i64 = 14 * HOUR + 15 * 60;
/// Hours from Thursday midnight, as 1 January 1970 was one, to Friday and to Sunday 22:00.
const CLOSED: std::ops::Range<i64> = 46..94;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Between {
    /// Each currency walks at random, as far as it usually does, and stands still at weekends.
    Walk,
    /// The same, and all sheets of every fifth day are missing.
    Outages,
    /// The day's rates, with a new date every hour.
    Redated,
}

fn is_open(at: i64) -> bool {
    !CLOSED.contains(&(at / HOUR).rem_euclid(7 * 24))
}

/// The same numbers in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> f64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / (1_u64 << 31) as f64
    }

    /// About normal, as the sum of twelve is.
    fn sway(&mut self) -> f64 {
        (0..12).map(|_| self.roll()).sum::<f64>() - 6.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.roll() * bound as f64) as usize
    }
}

/// Logarithms of a rate at each hour, from that of one day to that of the next.
fn path(
    hours: &[i64],
    [from, to]: [f64; 2],
    habit: f64,
    between: Between,
    dice: &mut Dice,
) -> Vec<f64> {
    if between == Between::Redated {
        let last = hours.len() - 1;
        return (0..hours.len()).map(|n| if n == last { to } else { from }).collect();
    }
    let mut walked = 0.0;
    let mut path: Vec<f64> = vec![];
    for at in hours {
        walked += if is_open(*at) { habit / 24_f64.sqrt() * dice.sway() } else { 0.0 };
        path.push(from + walked);
    }
    // Bent so that it ends where the next day is.
    let open = hours.iter().filter(|at| is_open(**at)).count().max(1) as f64;
    let mut passed = 0.0;
    for (at, rate) in hours.iter().zip(&mut path) {
        passed += if is_open(*at) { 1.0 } else { 0.0 };
        *rate += (to - from - walked) * passed / open;
    }
    path
}

fn logarithm(rates: &Rates, code: &str) -> Option<f64> {
    let (_, rate) = rates.iter().find(|(other, _)| other == code)?;
    Some(rate.parse::<f64>().unwrap().ln())
}

/// Of each currency, its usual move of a day as a standard deviation.
fn habits(days: &[(i64, Rates)]) -> BTreeMap<String, f64> {
    let mut seen: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for pair in days.windows(2) {
        for (code, _) in &pair[1].1 {
            let both = logarithm(&pair[0].1, code).zip(logarithm(&pair[1].1, code));
            seen.entry(code.clone()).or_default().extend(both.map(|(old, new)| (new - old).abs()));
        }
    }
    let usual = |mut moves: Vec<f64>| {
        moves.sort_by(f64::total_cmp);
        // Of a normal distribution, the median is 0.67 of it.
        moves.get(moves.len() / 2).map_or(0.0, |median| median / 0.67)
    };
    seen.into_iter().map(|(code, moves)| (code, usual(moves))).collect()
}

/// How many sheets came and were held back, and of how many swaps how many were.
fn run(days: &[(i64, Rates)], between: Between) -> (usize, usize, usize, usize) {
    let (guard, habits, mut dice) = (Guard { max_jump: 0.2 }, habits(days), Dice(2026));
    let mut held = Holding::first(sheet_of(days[0].0, &days[0].1).unwrap());
    let (mut sheets, mut held_back, mut swaps, mut caught) = (0, 0, 0, 0);
    for pair in days.windows(2) {
        let (today, tomorrow) = (pair[0].0 + AS_OF, pair[1].0 + AS_OF);
        let hours: Vec<i64> = (1..=(tomorrow - today) / HOUR).map(|n| today + n * HOUR).collect();
        let paths = pair[0].1.iter().filter_map(|(code, _)| {
            let ends = [logarithm(&pair[0].1, code)?, logarithm(&pair[1].1, code)?];
            Some((code.clone(), path(&hours, ends, habits[code], between, &mut dice)))
        });
        let paths: Vec<_> = paths.collect();
        for (n, at) in hours.iter().enumerate() {
            if between == Between::Outages && today / DAY % 5 == 0 && n + 1 < hours.len() {
                continue;
            }
            let mut rates: Rates = paths
                .iter()
                .map(|(code, path)| (code.clone(), format!("{:.8}", path[n].exp())))
                .collect();
            let judge = |held: &Holding, rates: &Rates| {
                let sheet = Sheet::build("EUR", Some(*at), "hourly".into(), rates.iter().cloned());
                guard.judge(
                    Some(held),
                    Found { sheet: sheet.unwrap(), at: *at, held_is_stale: true },
                )
            };
            let (next, verdict) = judge(&held, &rates);
            sheets += 1;
            held_back += usize::from(matches!(verdict, Verdict::Quarantined(_)));
            if n % 6 == 5 {
                let a = dice.below(rates.len());
                let b = (a + 1 + dice.below(rates.len() - 1)) % rates.len();
                let (first, second) = (rates[a].1.clone(), rates[b].1.clone());
                (rates[a].1, rates[b].1) = (second, first);
                let usual = Holding { quarantine: None, ..held.clone() };
                swaps += 1;
                caught += usize::from(judge(&usual, &rates).1 != Verdict::Accepted);
            }
            held = next.unwrap();
        }
    }
    (sheets, held_back, swaps, caught)
}

#[test]
fn an_hourly_source_is_held_back_about_as_rarely_as_a_daily_one_and_its_swaps_are_caught() {
    let days = history();
    let from = days.iter().position(|day| shown(day.0).as_str() >= "2023-06-01").unwrap();
    for between in [Between::Walk, Between::Outages, Between::Redated] {
        let (sheets, held_back, swaps, caught) = run(&days[from..from + 500], between);
        let share = caught as f64 / swaps as f64;
        println!(
            "{:<8} {held_back} of {sheets} sheets held back, {caught} of {swaps} swaps caught ({:.2} %)",
            format!("{between:?}"),
            100.0 * share
        );
        // Of the same 500 days' own sheets, four are.
        assert!(held_back <= 8, "{between:?}: {held_back}");
        assert!(share > 0.99, "{between:?}: {share}");
    }
}
