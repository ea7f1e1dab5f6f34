#![allow(clippy::panic, clippy::unwrap_used)] // A property fails by a panic, as a test does.
//! Rates as sources, Redis and a file of this host give them, and amounts as visitors type them.

use std::time::Duration;

use rust_decimal::Decimal;

use super::guard::{Guard, Verdict};
use super::holding::Holding;
use super::rules::{Read, Rules};
use super::sheet::Stored;
use super::shelf::{self, Shelved};
use super::*;
use crate::clock::{Moment, WallTime};
use crate::entry::{Entry, SheetPolicy, Timing, Version};
use crate::fuzzing::{check_sentence, lines};

/// 30 October 2026, 15:00 UTC.
const WALL: i64 = 1_793_372_400_000;
const FROM: Moment = Moment::from_millis(5_000_000);
const POLICY: SheetPolicy =
    SheetPolicy { interval: Duration::from_secs(3600), max_stale: Duration::from_secs(259_200) };
/// A table of all pairs grows by the square.
const PAIRS_OF: usize = 8;

/// A sheet that exists is sound, and comes back from where it is stored and from its own JSON.
fn check_sheet(sheet: &Sheet) {
    assert_eq!(sheet.rates().get(&sheet.base()), Some(&Decimal::ONE));
    assert!(sheet.rates().len() >= 2);
    assert!(sheet.rates().values().all(|rate| *rate > Decimal::ZERO));
    assert!(sheet.as_of().is_none_or(|at| at > 0 && at < 100_000_000_000));
    let stored = serde_json::to_vec(&sheet.store()).unwrap_or_default();
    let stored: Stored = serde_json::from_slice(&stored).unwrap();
    assert_eq!(Sheet::restore(stored).as_ref(), Ok(sheet));
    let rates: serde_json::Map<_, _> = sheet
        .rates()
        .iter()
        .map(|(code, rate)| (code.to_string(), rate.to_string().into()))
        .collect();
    let base = sheet.base().to_string();
    let json = serde_json::json!({"base": base, "timestamp": sheet.as_of(), "rates": rates});
    assert_eq!(Sheet::from_value(&json, sheet.source()).as_ref(), Ok(sheet));

    let now = WallTime::from_unix_millis(WALL as u64);
    Age::of(sheet.as_of(), FROM, FROM, now).seconds(FROM);
    for from in sheet.rates().keys().take(PAIRS_OF) {
        for to in sheet.rates().keys().take(PAIRS_OF) {
            match sheet.cross(*from, *to) {
                Ok(rate) => assert!(rate > Decimal::ZERO),
                Err(why) => check_sentence(&why.to_string()),
            }
        }
    }
}

fn check(sheet: &Result<Sheet, String>) -> bool {
    match sheet {
        Ok(sheet) => check_sheet(sheet),
        Err(why) => check_sentence(why),
    }
    sheet.is_ok()
}

/// The ECB's XML.
///
/// - A sheet that is taken is sound, in euro and of a day: see [`Sheet`].
/// - A refusal is one line.
pub fn ecb_xml(document: &[u8]) -> bool {
    let sheet = Sheet::from_ecb_xml(document, "ecb");
    if let Ok(sheet) = &sheet {
        assert_eq!(sheet.base().code(), "EUR");
        assert!(sheet.as_of().is_some());
        assert_eq!(Sheet::from_text(document, "ecb").as_ref(), Ok(sheet));
    }
    check(&sheet)
}

/// A sheet as Open Exchange Rates, a `json:` source or a callable has it.
///
/// - A sheet that is taken is sound, and the same whoever looks what kind of document it is.
/// - A refusal is one line.
pub fn json_sheet(document: &[u8]) -> bool {
    let sheet = Sheet::from_json(document, "json:rates.example");
    if sheet.is_ok() {
        assert_eq!(Sheet::from_text(document, "json:rates.example"), sheet);
    }
    if let Ok(value) = serde_json::from_slice(document) {
        check(&Sheet::from_value(&value, "callable"));
    }
    check(&sheet)
}

/// The sheet that Redis or the host table holds in the first line, and a source's next sheet after it.
///
/// - A stored sheet that was parsed is written as it was read.
/// - The next sheet is judged; one that is kept can be read again, and expires as its policy says.
/// - The pause that a source asked for does not overflow.
pub fn sheet_state(bytes: &[u8]) -> bool {
    let [stored, next] = lines(bytes);
    let holding = match Holding::from_bytes(stored) {
        Ok(holding) => holding,
        Err(why) => {
            check_sentence(&why);
            return false;
        }
    };
    assert_eq!(Holding::from_bytes(&holding.to_bytes()).as_ref(), Ok(&holding));
    check_sheet(&holding.sheet);
    holding.quarantine.iter().for_each(check_sheet);
    for source in holding.not_before.keys() {
        holding.left_alone(source, WALL);
    }
    let next = Sheet::from_json(next, "ecb").unwrap_or_else(|_| holding.sheet.clone());
    let timing = Timing::sheet(FROM.plus_millis(-60_000), FROM.plus_millis(-60_000), POLICY);
    let held = Entry {
        version: Version(7),
        timing,
        unsynced: false,
        value: stored.to_vec().into(),
        detail: Vec::new().into(),
    };
    let rules = Rules {
        policy: POLICY,
        max_age: Duration::from_secs(604_800),
        guard: Guard { max_jump: 0.2 },
    };
    let (validators, alone) = (Validators::default(), [("ecb".to_owned(), 7)].into());
    match rules.read(Some(&held), next, validators, &alone, FROM, WALL) {
        Read::Older => {}
        Read::Refused(why) => check_sentence(&why),
        Read::Kept { value, timing, verdict } => {
            let kept = Holding::from_bytes(&value);
            assert!(kept.as_ref().is_ok_and(|kept| kept.to_bytes() == value));
            assert!(FROM < timing.expires_at && timing.expires_at <= FROM.plus(POLICY.max_stale));
            match verdict {
                Verdict::Older | Verdict::Refused(_) => panic!("kept what was refused"),
                Verdict::Quarantined(why) => check_sentence(&why),
                Verdict::Accepted | Verdict::Confirmed => {}
            }
        }
    }
    true
}

/// The file that keeps the last sheet: all of it, and once more with the right first line before it.
///
/// - A sheet that was parsed was confirmed now or earlier.
/// - It is written as it was read.
pub fn snapshot_file(bytes: &[u8]) -> bool {
    let raw = shelf::understood(bytes);
    let fitting = shelf::understood(&shelf::framed(bytes));
    for Shelved { version, confirmed_at, holding } in raw.iter().chain(&fitting) {
        let again =
            Shelved { version: *version, confirmed_at: *confirmed_at, holding: holding.clone() };
        assert!(again.confirmed(FROM, WALL) <= FROM);
        let body = serde_json::to_vec(&again).unwrap_or_default();
        let again = shelf::understood(&shelf::framed(&body));
        assert!(again.is_some_and(|again| again.holding.get() == holding.get()));
        let _ = Holding::from_bytes(holding.get().as_bytes());
    }
    raw.is_some() || fitting.is_some()
}

/// An amount of money in the first line; two rates and a number of decimals in the next three.
///
/// - An amount that is accepted has at most [`amount::MAX_DIGITS`] digits, and does not change when it is
///   converted at one to one.
/// - A result has exactly the decimals that were asked for, and zero has no sign.
pub fn amount(bytes: &[u8]) -> bool {
    let [given, to, from, scale] = lines(bytes);
    let amount = match Amount::parse(given) {
        Ok(amount) => amount,
        Err(why) => {
            check_sentence(&why);
            return false;
        }
    };
    let digits = given.iter().filter(|byte| byte.is_ascii_digit()).count();
    assert!((1..=amount::MAX_DIGITS).contains(&digits));
    let decimals = given.iter().rev().position(|byte| *byte == b'.').unwrap_or(0);
    if let Ok(scale) = Scale::new(decimals as i64) {
        let same = amount.convert(Ratio::ONE, scale, Rounding::HalfEven);
        let whole = |text: &str| {
            let (sign, digits) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
            let digits = digits.strip_prefix('+').unwrap_or(digits).trim_start_matches('0');
            let zero = !digits.contains(|c: char| matches!(c, '1'..='9'));
            if zero { String::new() } else { format!("{sign}{digits}") }
        };
        assert_eq!(whole(&same), whole(&String::from_utf8_lossy(given)));
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let rates = [("USD".into(), text(to)), ("JPY".into(), text(from))];
    let Ok(sheet) = Sheet::build("EUR", None, "x".into(), rates) else { return true };
    let [usd, jpy] = ["USD", "JPY"].map(Currency::parse);
    let (Ok(usd), Ok(jpy)) = (usd, jpy) else { return true };
    let Ok(ratio) = sheet.ratio(jpy, usd) else { return true };
    let scale = text(scale).trim().parse().ok().and_then(|scale| Scale::new(scale).ok());
    let Some(scale) = scale else { return true };
    for rounding in [Rounding::HalfEven, Rounding::HalfUp] {
        check_converted(&amount.convert(ratio, scale, rounding), scale);
    }
    true
}

fn check_converted(text: &str, scale: Scale) {
    let number = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    assert!(!whole.is_empty() && digits(whole) && digits(fraction), "{text}");
    assert_eq!(Scale::new(fraction.len() as i64), Ok(scale), "{text}");
    let zero = number.bytes().all(|byte| matches!(byte, b'0' | b'.'));
    assert!(!(zero && text.starts_with('-')), "{text}");
}
