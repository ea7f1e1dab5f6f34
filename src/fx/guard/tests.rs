use proptest::prelude::*;

use super::*;

const GUARD: Guard = Guard { max_jump: 0.2 };
const NOW: i64 = 1_700_000_000;

/// Rates of dollar, yen and pound, `age` seconds before now.
fn sheet(source: &str, age: i64, rates: [f64; 3]) -> Sheet {
    let [usd, jpy, gbp] = rates;
    let text = format!(
        r#"{{"base":"EUR","timestamp":{},"rates":{{"USD":{usd},"JPY":{jpy},"GBP":{gbp}}}}}"#,
        NOW - age
    );
    Sheet::from_json(text.as_bytes(), source).unwrap()
}

const USUAL: [f64; 3] = [1.1, 160.0, 0.85];
const JUMPED: [f64; 3] = [1.6, 160.0, 0.85];

fn held() -> Holding {
    Holding::first(sheet("ecb", 7200, USUAL))
}

fn judge(held: &Holding, sheet: Sheet) -> (Option<Holding>, Verdict) {
    GUARD.judge(Some(held), Found { sheet, at: NOW, held_is_stale: false })
}

fn quarantined(held: &Holding, sheet: Sheet) -> Holding {
    match judge(held, sheet) {
        (Some(holding), Verdict::Quarantined(_)) => holding,
        other => panic!("{other:?}"),
    }
}

fn refused(held: &Holding, sheet: Sheet) -> String {
    match judge(held, sheet) {
        (None, Verdict::Refused(why)) => why,
        (None, Verdict::Older) => OLDER.into(),
        other => panic!("{other:?}"),
    }
}

fn accepted(held: &Holding, sheet: Sheet) -> Holding {
    match judge(held, sheet) {
        (Some(holding), Verdict::Accepted) => holding,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_sheet_is_accepted_and_unconfirmed_until_a_second_look() {
    let found = Found { sheet: sheet("ecb", 60, USUAL), at: NOW, held_is_stale: false };
    let (first, verdict) = GUARD.judge(None, found);
    let first = first.unwrap();
    assert_eq!(verdict, Verdict::Accepted);
    assert!(first.unconfirmed);
    let (same, verdict) = judge(&first, sheet("ecb", 60, USUAL));
    assert_eq!(verdict, Verdict::Confirmed);
    assert!(same.unwrap().unconfirmed, "the same source once more has not looked again");
    assert!(!judge(&first, sheet("other", 60, USUAL)).0.unwrap().unconfirmed);
    assert!(!accepted(&first, sheet("ecb", 0, [1.101, 160.1, 0.85])).unconfirmed);
}

#[test]
fn a_date_ahead_or_before_the_held_one_is_refused() {
    assert!(refused(&held(), sheet("ecb", -DAY - 1, USUAL)).contains("ahead"));
    accepted(&held(), sheet("ecb", -DAY, [1.11, 160.0, 0.85]));
    assert!(refused(&held(), sheet("ecb", 7201, USUAL)).contains("older"));
    assert!(refused(&held(), sheet("other", 7201, USUAL)).contains("older"));
}

fn judge_stale(held: &Holding, sheet: Sheet) -> (Option<Holding>, Verdict) {
    GUARD.judge(Some(held), Found { sheet, at: NOW, held_is_stale: true })
}

/// The second source dates by the day, and the first, which dates by the hour, is down.
#[test]
fn when_the_held_one_is_stale_another_source_stands_in_whatever_its_date() {
    let days_ago = |source| sheet(source, 2 * DAY, [1.11, 160.0, 0.85]);
    assert_eq!(judge(&held(), days_ago("other")), (None, Verdict::Older));
    let (holding, verdict) = judge_stale(&held(), days_ago("other"));
    assert_eq!(verdict, Verdict::Accepted);
    assert_eq!(holding.unwrap().sheet, days_ago("other"));
    assert_eq!(judge_stale(&held(), days_ago("ecb")), (None, Verdict::Older), "one source goes on");
    let (_, verdict) = judge_stale(&held(), sheet("other", 2 * DAY, JUMPED));
    assert!(matches!(verdict, Verdict::Quarantined(_)), "a jump is one in either direction");
}

/// Half a day ahead, and so not refused as such.
#[test]
fn a_date_ahead_of_now_blocks_nothing_that_follows() {
    let ahead = Holding::first(sheet("ecb", -DAY / 2, USUAL));
    for source in ["ecb", "other"] {
        accepted(&ahead, sheet(source, 60, [1.101, 160.0, 0.85]));
    }
    let (_, verdict) = judge(&ahead, sheet("ecb", -DAY / 2, USUAL));
    assert_eq!(verdict, Verdict::Confirmed);
}

#[test]
fn one_currency_beyond_its_limit_holds_the_whole_sheet_back() {
    let (holding, verdict) = judge(&held(), sheet("ecb", 0, JUMPED));
    let holding = holding.unwrap();
    assert_eq!(holding.sheet, held().sheet, "what is served stays");
    assert_eq!(holding.quarantine, Some(sheet("ecb", 0, JUMPED)));
    let Verdict::Quarantined(why) = verdict else { panic!() };
    assert!(why.contains("USD moved 45.5 %") && !why.contains("JPY"), "{why}");
}

#[test]
fn the_same_document_again_confirms_nothing_and_a_later_one_does() {
    let one = quarantined(&held(), sheet("ecb", 600, JUMPED));
    let two = quarantined(&one, sheet("ecb", 600, JUMPED));
    assert_eq!(two, one);
    let three = quarantined(&two, sheet("ecb", 900, JUMPED));
    assert_eq!(three, one, "an older one neither");
    let done = accepted(&three, sheet("ecb", 599, [1.61, 160.0, 0.85]));
    assert_eq!((done.sheet.rates()[&usd()].to_string(), done.quarantine), ("1.61".into(), None));
}

#[test]
fn another_source_confirms_at_once_what_it_says_too() {
    let one = quarantined(&held(), sheet("ecb", 600, JUMPED));
    let far = quarantined(&one, sheet("other", 600, [2.0, 160.0, 0.85]));
    assert_eq!(far, one, "it says something else");
    let done = accepted(&one, sheet("other", 600, [1.62, 160.0, 0.85]));
    assert_eq!(done.sheet.source(), "other");
}

#[test]
fn a_usual_sheet_ends_the_quarantine() {
    let one = quarantined(&held(), sheet("ecb", 600, JUMPED));
    assert_eq!(accepted(&one, sheet("ecb", 0, [1.101, 160.0, 0.85])).quarantine, None);
    let same = judge(&one, sheet("ecb", 7200, USUAL));
    assert_eq!((same.1, same.0.unwrap().quarantine), (Verdict::Confirmed, None));
}

#[test]
fn a_correction_of_the_same_date_goes_the_same_way() {
    accepted(&held(), sheet("ecb", 7200, [1.101, 160.0, 0.85]));
    let one = quarantined(&held(), sheet("ecb", 7200, JUMPED));
    assert_eq!(quarantined(&one, sheet("ecb", 7200, JUMPED)), one);
}

#[test]
fn a_sheet_that_lacks_currencies_waits_until_the_held_one_is_stale() {
    let less = || {
        let text = format!(r#"{{"base":"EUR","timestamp":{NOW},"rates":{{"USD":1.1}}}}"#);
        Sheet::from_json(text.as_bytes(), "ecb").unwrap()
    };
    assert!(refused(&held(), less()).contains("lacks GBP, JPY"));
    let found = Found { sheet: less(), at: NOW, held_is_stale: true };
    assert_eq!(GUARD.judge(Some(&held()), found).1, Verdict::Accepted);
}

#[test]
fn another_base_is_compared_on_a_common_one_and_without_one_refused() {
    let dollars = |eur: f64| {
        let text = format!(
            r#"{{"base":"USD","timestamp":{NOW},"rates":{{"EUR":{eur},"JPY":145.45,"GBP":0.7727}}}}"#
        );
        Sheet::from_json(text.as_bytes(), "openexchangerates").unwrap()
    };
    accepted(&held(), dollars(1.0 / 1.1));
    quarantined(&held(), dollars(1.0 / 1.6));
    let foreign = r#"{"base":"CHF","rates":{"SEK":11.0}}"#;
    let sheet = Sheet::from_json(foreign.as_bytes(), "x").unwrap();
    let found = Found { sheet, at: NOW, held_is_stale: true };
    let (_, verdict) = GUARD.judge(Some(&held()), found);
    assert!(matches!(&verdict, Verdict::Refused(why) if why.contains("common")), "{verdict:?}");
}

#[test]
fn without_dates_a_changed_sheet_counts_as_later_and_the_same_one_does_not() {
    let undated = |usd: f64| {
        let text = format!(r#"{{"base":"EUR","rates":{{"USD":{usd},"JPY":160.0}}}}"#);
        Sheet::from_json(text.as_bytes(), "callable").unwrap()
    };
    let held = Holding::first(undated(1.1));
    let one = quarantined(&held, undated(1.6));
    assert_eq!(quarantined(&one, undated(1.6)), one);
    accepted(&one, undated(1.61));
}

#[test]
fn a_currency_that_learned_to_be_calm_is_held_back_earlier_than_a_lively_one() {
    let mut calm = held();
    let mut lively = held();
    for day in 1..200 {
        let at = 7200 - day * DAY;
        let swing = if day % 2 == 0 { 1.0 } else { 1.02 };
        let found = |sheet: Sheet| Found { at: NOW + day * DAY, sheet, held_is_stale: false };
        calm = GUARD
            .judge(Some(&calm), found(sheet("ecb", at, [1.1, 160.0 * swing, 0.85])))
            .0
            .unwrap();
        lively = GUARD
            .judge(Some(&lively), found(sheet("ecb", at, [1.1 * swing, 160.0, 0.85])))
            .0
            .unwrap();
    }
    let next = |holding: &Holding| {
        let found = Found {
            sheet: sheet("ecb", 7200 - 200 * DAY, [1.122, 160.0, 0.85]),
            at: NOW + 200 * DAY,
            held_is_stale: false,
        };
        GUARD.judge(Some(holding), found).1
    };
    assert!(matches!(next(&calm), Verdict::Quarantined(_)), "2 % where it never moved");
    assert_eq!(next(&lively), Verdict::Accepted);
}

#[test]
fn staleness_excuses_what_is_lacking_and_never_a_jump() {
    let text = format!(r#"{{"base":"EUR","timestamp":{NOW},"rates":{{"USD":1.6}}}}"#);
    let sheet = Sheet::from_json(text.as_bytes(), "ecb").unwrap();
    let found = Found { sheet, at: NOW, held_is_stale: true };
    let (_, verdict) = GUARD.judge(Some(&held()), found);
    assert!(matches!(verdict, Verdict::Quarantined(_)), "{verdict:?}");
}

#[test]
fn a_sentence_names_three_currencies_and_counts_the_rest() {
    let many = |factor: f64| {
        let rates = ["USD", "JPY", "GBP", "CHF", "SEK"].map(|code| format!(r#""{code}":{factor}"#));
        let text = format!(
            r#"{{"base":"EUR","timestamp":{},"rates":{{{}}}}}"#,
            NOW + factor as i64,
            rates.join(",")
        );
        Sheet::from_json(text.as_bytes(), "ecb").unwrap()
    };
    let (_, verdict) = judge(&Holding::first(many(1.0)), many(2.0));
    let Verdict::Quarantined(why) = verdict else { panic!("{verdict:?}") };
    assert_eq!(why.matches("moved").count(), 3, "{why}");
    assert!(why.contains("and 2 more"), "{why}");
}

#[test]
fn a_later_suspicious_sheet_of_the_same_source_takes_the_place_of_the_first() {
    let one = quarantined(&held(), sheet("ecb", 600, JUMPED));
    let two = quarantined(&one, sheet("ecb", 300, [0.5, 160.0, 0.85]));
    assert_eq!(two.quarantine, Some(sheet("ecb", 300, [0.5, 160.0, 0.85])));
}

#[test]
fn two_sources_that_disagree_do_not_keep_each_other_from_being_confirmed() {
    const ELSEWHERE: [f64; 3] = [2.4, 160.0, 0.85];
    let one = quarantined(&held(), sheet("ecb", 3600, JUMPED));
    let two = quarantined(&one, sheet("other", 3000, ELSEWHERE));
    let done = accepted(&two, sheet("ecb", 0, JUMPED));
    assert_eq!(done.sheet.source(), "ecb", "its own later sheet confirms it");
}

#[test]
fn a_source_that_went_silent_in_quarantine_does_not_block_the_others() {
    let one = quarantined(&held(), sheet("ecb", 3600, JUMPED));
    let day = |n: i64| Found {
        sheet: sheet("other", 3599 - n * DAY, [2.4, 160.0, 0.85]),
        at: NOW + n * DAY,
        held_is_stale: true,
    };
    let (two, _) = GUARD.judge(Some(&one), day(1));
    assert_eq!(GUARD.judge(two.as_ref(), day(2)).1, Verdict::Accepted);
}

#[test]
fn the_same_rates_under_new_dates_teach_nothing_until_they_move() {
    let mut held = held();
    for hour in 1..=24 {
        let at = NOW + hour * 3600;
        let found =
            Found { sheet: sheet("json", 7200 - hour * 3600, USUAL), at, held_is_stale: false };
        held = GUARD.judge(Some(&held), found).0.unwrap();
    }
    assert_eq!((held.moved_at, held.typical.is_empty()), (Some(NOW - 7200), true));
    let moved = sheet("json", 7200 - 25 * 3600, [1.102, 160.2, 0.851]);
    let by_the_hour = accepted(&held, moved.clone());
    let at_once = accepted(&Holding::first(sheet("json", 7200, USUAL)), moved);
    assert_eq!(by_the_hour.typical, at_once.typical);
    assert_eq!(by_the_hour.moved_at, by_the_hour.sheet.as_of());
}

#[test]
fn a_jump_is_not_confirmed_by_a_suspicious_sheet_that_lacks_the_currency() {
    let text =
        format!(r#"{{"base":"EUR","timestamp":{},"rates":{{"USD":1.6,"GBP":0.85}}}}"#, NOW - 600);
    let lacking = Sheet::from_json(text.as_bytes(), "ecb").unwrap();
    let found = Found { sheet: lacking, at: NOW, held_is_stale: true };
    let one = GUARD.judge(Some(&held()), found).0.unwrap();
    assert!(one.quarantine.is_some());
    quarantined(&one, sheet("ecb", 0, [1.6, 16_000.0, 0.85]));
}

fn usd() -> Currency {
    Currency::parse("USD").unwrap()
}

proptest! {
    #[test]
    fn what_is_accepted_at_first_sight_never_moved_further_than_the_ceiling(
        usd in 0.01..100.0_f64, jpy in 1.0..10_000.0_f64, gbp in 0.01..10.0_f64, lively in 0..80_i64
    ) {
        // The livelier its habits, the more is left to the ceiling.
        let swing = |n: i64| if n % 2 == 0 { 1.0 } else { 1.04 };
        let rates = |n: i64| [1.1 * swing(n), 160.0 * swing(n), 0.85];
        let old = |n: i64| sheet("ecb", (200 - n) * DAY, rates(n));
        let held = (1..=lively * 2).fold(Holding::first(old(0)), |held, n| accepted(&held, old(n)));
        let (_, verdict) = judge(&held, sheet("ecb", 0, [usd, jpy, gbp]));
        let far = |now: f64, then: f64| (now / then).max(then / now) - 1.0 > GUARD.max_jump + 1e-9;
        let jumped = far(usd, 1.1) || far(jpy, 160.0) || far(gbp, 0.85);
        prop_assert!(!jumped || matches!(verdict, Verdict::Quarantined(_)), "{verdict:?}");
    }
}
