//! The guard against 27 years of the ECB's rates: what it holds back, what of injected faults it
//! catches, and that neither ever leaves anybody without a rate.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::time::Duration;

use flate2::read::GzDecoder;
use time::{Date, Month};

use super::*;
use crate::clock::Moment;
use crate::entry::{Entry, Kind, SheetPolicy, Timing, Version};
use crate::fx::Validators;
use crate::fx::rules::{Read, Rules};

const HISTORY: &[u8] = include_bytes!("../testdata/eurofxref-hist.csv.gz");
const HOUR: i64 = 3600;
/// An as-of is 14:15 UTC of its day, and the document is there at 15:00.
const AS_OF: i64 = 14 * HOUR + 15 * 60;
const PUBLISHED: i64 = 15 * HOUR;

/// The settings' defaults.
fn rules() -> Rules {
    let hours = |n: u64| Duration::from_secs(n * 3600);
    Rules {
        policy: SheetPolicy { interval: hours(1), max_stale: hours(72) },
        max_age: hours(7 * 24),
        guard: Guard { max_jump: 0.2 },
    }
}

pub(super) type Rates = Vec<(String, String)>;

/// Midnight UTC of each day in Unix seconds, oldest first, and its rates as they are written.
pub(super) fn history() -> Vec<(i64, Rates)> {
    let mut text = String::new();
    GzDecoder::new(HISTORY).read_to_string(&mut text).unwrap();
    let mut lines = text.lines();
    let codes: Vec<&str> = lines.next().unwrap().split(',').skip(1).map(str::trim).collect();
    let day = |line: &str| {
        let mut cells = line.split(',').map(str::trim);
        let date: Vec<i32> = cells.next()?.split('-').map(|part| part.parse().unwrap()).collect();
        let month = Month::try_from(date[1] as u8).unwrap();
        let date = Date::from_calendar_date(date[0], month, date[2] as u8).unwrap();
        let given =
            |(code, rate): &(&str, &str)| !code.is_empty() && !rate.is_empty() && *rate != "N/A";
        let rates = codes.iter().copied().zip(cells).filter(given);
        let rates = rates.map(|(code, rate)| (code.to_owned(), rate.to_owned())).collect();
        Some((date.midnight().assume_utc().unix_timestamp(), rates))
    };
    let mut days: Vec<_> = lines.filter_map(day).collect();
    days.sort_by_key(|(midnight, _)| *midnight);
    assert_eq!(days.len(), 7_126);
    days
}

pub(super) fn sheet_of(midnight: i64, rates: &Rates) -> Result<Sheet, String> {
    Sheet::build("EUR", Some(midnight + AS_OF), "ecb".into(), rates.iter().cloned())
}

pub(super) fn shown(midnight: i64) -> String {
    time::OffsetDateTime::from_unix_timestamp(midnight).unwrap().date().to_string()
}

/// One host that asks once an hour, as the refresher does, in simulated time.
struct Shop {
    rules: Rules,
    held: Option<Entry>,
    /// The newest document that was published.
    newest: Sheet,
    quarantined: Vec<(i64, String)>,
    /// As-ofs of the sheets that came into force.
    accepted: Vec<i64>,
    unavailable: Vec<i64>,
    /// And the as-of of what was served then.
    longest_age: (i64, i64),
}

impl Shop {
    fn at(&self, seconds: i64) -> Moment {
        Moment::from_millis(seconds * 1000)
    }

    /// Whether what is held may be served then; and ask the source.
    fn hour(&mut self, now: i64) {
        let moment = self.at(now);
        let servable = |entry: &Entry| entry.servable(Kind::Sheet, moment);
        if !self.held.as_ref().is_some_and(servable) {
            if self.held.is_some() {
                self.unavailable.push(now);
            }
            self.held = None;
        }
        let held = self.held.as_ref();
        let answer = self.newest.clone();
        let read = self.rules.read(
            held,
            answer,
            Validators::default(),
            &BTreeMap::new(),
            moment,
            now * 1000,
        );
        if let Read::Kept { value, timing, verdict } = read {
            if verdict == Verdict::Accepted {
                self.accepted.push(self.newest.as_of().unwrap());
            }
            if let Verdict::Quarantined(why) = verdict
                && self.quarantined.last().is_none_or(|(at, _)| *at != self.newest.as_of().unwrap())
            {
                self.quarantined.push((self.newest.as_of().unwrap(), why));
            }
            self.held = Some(entry(value, timing));
        }
        if let Some(held) = &self.held {
            let as_of = Holding::from_bytes(&held.value).unwrap().sheet.as_of().unwrap();
            self.longest_age = self.longest_age.max((now - as_of, as_of));
        }
    }
}

fn entry(value: Vec<u8>, timing: Timing) -> Entry {
    let (value, detail) = (value.into(), Vec::new().into());
    Entry { version: Version(7), timing, unsynced: false, value, detail }
}

/// Every hour of the days in `range`, with the document of each from 15:00 on.
fn replay(days: &[(i64, Rates)], every: i64) -> Shop {
    let newest = sheet_of(days[0].0, &days[0].1).unwrap();
    let mut shop = Shop {
        rules: rules(),
        held: None,
        newest,
        quarantined: vec![],
        accepted: vec![],
        unavailable: vec![],
        longest_age: (0, 0),
    };
    for pair in days.windows(2) {
        let (today, tomorrow) = (pair[0].0, pair[1].0);
        shop.newest = sheet_of(today, &pair[0].1).unwrap();
        let mut now = today + PUBLISHED;
        while now < tomorrow + PUBLISHED {
            shop.hour(now);
            now += every;
        }
    }
    let (last, rates) = &days[days.len() - 1];
    shop.newest = sheet_of(*last, rates).unwrap();
    // Twice, for one that lacks a currency waits until the held one is stale.
    shop.hour(last + PUBLISHED);
    shop.hour(last + PUBLISHED + 3 * HOUR);
    shop
}

#[test]
fn every_sheet_of_27_years_is_accepted_or_held_back_and_confirmed_and_nobody_is_ever_without_a_rate()
 {
    let days = history();
    // Every sixth hour: 27 years by the hour take a minute in a debug build.
    let shop = replay(&days, 6 * HOUR);
    assert_eq!(shop.unavailable, Vec::<i64>::new(), "RateUnavailable");
    let held = Holding::from_bytes(&shop.held.unwrap().value).unwrap();
    assert_eq!(
        held.sheet.as_of(),
        Some(days[days.len() - 1].0 + AS_OF),
        "the last one is in force"
    );
    println!(
        "{} of {} sheets were held back, each until the next one; the oldest rates served were {:.1} days old, those of {}",
        shop.quarantined.len(),
        days.len(),
        shop.longest_age.0 as f64 / DAY as f64,
        shown(shop.longest_age.1)
    );
    // The first becomes what is held; of the others, whatever was held back made way for the next.
    for pair in days.windows(2) {
        let came = |midnight: i64| shop.accepted.binary_search(&(midnight + AS_OF)).is_ok();
        let (this, next) = (pair[0].0, pair[1].0);
        let held_back = shop.quarantined.iter().any(|(at, _)| *at == this + AS_OF);
        assert_ne!(came(this), held_back, "{}", shown(this));
        assert!(came(this) || came(next), "{} was not confirmed by the next", shown(this));
    }
    for (as_of, why) in &shop.quarantined {
        println!("  {} {}", shown(*as_of), why.split(" against").next().unwrap());
    }
    assert!((50..=250).contains(&shop.quarantined.len()), "{}", shop.quarantined.len());
}

#[test]
fn a_currency_that_ends_does_not_hold_up_the_others() {
    let days = history();
    let lost = |n: usize| -> Vec<String> {
        let has = |code: &str| days[n].1.iter().any(|(other, _)| other == code);
        days[n - 1].1.iter().map(|(code, _)| code.clone()).filter(|code| !has(code)).collect()
    };
    let mut ended = vec![];
    for n in 1..days.len() - 3 {
        let codes = lost(n);
        if codes.is_empty() {
            continue;
        }
        let shop = replay(&days[n - 1..n + 3], HOUR);
        assert_eq!(shop.unavailable, Vec::<i64>::new());
        assert!(shop.accepted.contains(&(days[n].0 + AS_OF)), "{codes:?} {}", shown(days[n].0));
        ended.push(format!("{} {}", codes.join(" "), shown(days[n].0)));
    }
    println!("ended: {}", ended.join(", "));
    assert!(["HRK", "RUB", "BGN"].iter().all(|code| ended.iter().any(|it| it.contains(code))));
}

#[test]
fn in_2025_by_the_hour_rates_are_never_unavailable_with_default_settings() {
    let days = history();
    let from =
        days.iter().position(|(midnight, _)| shown(*midnight).as_str() >= "2024-12-23").unwrap();
    let to =
        days.iter().position(|(midnight, _)| shown(*midnight).as_str() > "2026-01-05").unwrap();
    let shop = replay(&days[from..to], HOUR);
    assert_eq!(shop.unavailable, Vec::<i64>::new());
    println!("2025: {} held back", shop.quarantined.len());
}

/// What goes wrong with a sheet of a day, given a number at will.
type Fault = fn(today: &mut Rates, at_will: usize) -> bool;

fn one(rates: &mut Rates, at_will: usize, change: impl Fn(f64) -> String) -> bool {
    let index = at_will % rates.len();
    let rate: f64 = rates[index].1.parse().unwrap();
    rates[index].1 = change(rate);
    true
}

const FAULTS: [(&str, Fault); 4] = [
    ("zero", |today, n| one(today, n, |_| "0".into())),
    ("sign flipped", |today, n| one(today, n, |rate| format!("-{rate}"))),
    ("decimal point moved", |today, n| {
        one(today, n, |rate| format!("{}", if n % 2 == 0 { rate * 10.0 } else { rate / 10.0 }))
    }),
    ("two currencies swapped", |today, n| {
        let (a, b) = (n % today.len(), (n / today.len()) % today.len());
        let (first, second) = (today[a].1.clone(), today[b].1.clone());
        today[a].1 = second;
        today[b].1 = first;
        a != b
    }),
];

#[test]
fn of_a_thousand_injected_faults_more_than_99_in_100_are_caught_and_reach_nobody() {
    const EACH: usize = 167;
    let (rules, days) = (rules(), history());
    let mut caught: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let (mut swaps, mut by_ceiling) = (0, 0);
    // What is held before each day, without faults.
    let mut holding = Holding::first(sheet_of(days[0].0, &days[0].1).unwrap());
    let mut random: u64 = 2026;
    let mut next = || {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize
    };
    for (index, pair) in days.windows(2).enumerate() {
        let ((before, yesterday), (midnight, today)) = (&pair[0], &pair[1]);
        let held = entry(
            holding.to_bytes(),
            Timing::sheet(Moment::default(), Moment::default(), rules.policy),
        );
        let now = midnight + PUBLISHED;
        let judge = |sheet: Sheet, holding: &Holding| {
            let held = Entry { value: holding.to_bytes().into(), ..held.clone() };
            rules.read(
                Some(&held),
                sheet,
                Validators::default(),
                &BTreeMap::new(),
                Moment::default(),
                now * 1000,
            )
        };
        let kept = |read: &Read| match read {
            Read::Kept { value, .. } => Some(Holding::from_bytes(value).unwrap()),
            Read::Older | Read::Refused(_) => None,
        };
        // A fault about every seventh day, each kind in turn.
        if index % 7 == 3 && index / 7 < 6 * EACH {
            let kind = (index / 7) % 6;
            let (name, sheet) = match FAULTS.get(kind) {
                Some((name, fault)) => {
                    let mut faulty = today.clone();
                    let mut at_will = next();
                    while !fault(&mut faulty, at_will) {
                        at_will = next();
                    }
                    (*name, sheet_of(*midnight, &faulty))
                }
                None if kind == 4 => ("yesterday's sheet", sheet_of(*before, yesterday)),
                None => ("stale date", sheet_of(before - DAY, today)),
            };
            let after = sheet.ok().map(|sheet| (judge(sheet.clone(), &holding), sheet));
            // Caught: what is in force afterwards is what was before.
            let in_force = after.as_ref().and_then(|(read, _)| kept(read));
            let harmless = in_force.is_none_or(|kept| kept.sheet == holding.sheet);
            let (all, good) = caught.entry(name).or_default();
            *all += 1;
            *good += usize::from(harmless);
            if harmless && let Some((read, _)) = after {
                let state = kept(&read).unwrap_or_else(|| holding.clone());
                // The true sheet of the same day: accepted, unless it is a real jump itself or the
                // one that would have confirmed yesterday's.
                let usual = Holding { quarantine: None, ..holding.clone() };
                let true_one = sheet_of(*midnight, today).unwrap();
                let alone = matches!(
                    judge(true_one.clone(), &usual),
                    Read::Kept { verdict: Verdict::Accepted, .. }
                );
                let then = judge(true_one, &state);
                assert!(
                    !alone || matches!(&then, Read::Kept { verdict: Verdict::Accepted, .. }),
                    "{name} {}",
                    shown(*midnight)
                );
            }
        }
        // And two currencies swapped on every single day, for that is what is hardest to see.
        let mut faulty = today.clone();
        while !FAULTS[3].1(&mut faulty, next()) {}
        let found =
            Found { sheet: sheet_of(*midnight, &faulty).unwrap(), at: now, held_is_stale: false };
        let unnoticed =
            rules.guard.judge(Some(&Holding { quarantine: None, ..holding.clone() }), found).1
                == Verdict::Accepted;
        swaps += usize::from(!unnoticed);
        let faulty = sheet_of(*midnight, &faulty).unwrap();
        let far = |moves: Vec<(Currency, f64)>| moves.iter().any(|(_, moved)| *moved > 0.2);
        by_ceiling += usize::from(moves(&holding.sheet, &faulty).is_some_and(far));
        if let Some(after) = kept(&judge(sheet_of(*midnight, today).unwrap(), &holding)) {
            holding = after;
        } else {
            // It lacks a currency that has ended: by the next day the held one is stale.
            let found =
                Found { sheet: sheet_of(*midnight, today).unwrap(), at: now, held_is_stale: true };
            holding = rules.guard.judge(Some(&holding), found).0.unwrap();
        }
    }
    let (all, good) = caught.values().fold((0, 0), |(a, g), (all, good)| (a + all, g + good));
    for (name, (all, good)) in &caught {
        println!("{name:<30} {good:>4} of {all:>4}");
    }
    println!("all {good} of {all}: {:.2} %", 100.0 * good as f64 / all as f64);
    let share = swaps as f64 / (days.len() - 1) as f64;
    let fixed = by_ceiling as f64 / (days.len() - 1) as f64;
    println!(
        "two currencies swapped, every day: {:.2} %; with a fixed limit of 20 %: {:.2} %",
        100.0 * share,
        100.0 * fixed
    );
    assert!(share > 0.99, "{share}");
    assert!(all >= 1_000, "{all}");
    assert!(good as f64 > 0.99 * all as f64, "{good} of {all}");
}
