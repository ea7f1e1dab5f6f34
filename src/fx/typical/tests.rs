use super::*;

const CEILING: f64 = 0.2;

fn usd() -> Currency {
    Currency::parse("USD").unwrap()
}

fn sheet(usd: f64) -> Sheet {
    let text = format!(r#"{{"base":"EUR","rates":{{"USD":{usd}}}}}"#);
    Sheet::from_json(text.as_bytes(), "x").unwrap()
}

/// After so many moves of one size, each so many days after the one before.
fn learned(from: Typical, times: usize, moved: f64, days: f64) -> Typical {
    let (old, new) = (sheet(1.0), sheet(1.0 + moved));
    (0..times).fold(from, |typical, _| typical.after(&old, &new, days))
}

fn limit(typical: &Typical, days: f64) -> f64 {
    typical.limit(usd(), days, CEILING)
}

fn near(this: f64, that: f64) -> bool {
    (this / that - 1.0).abs() < 0.06
}

#[test]
fn an_unknown_currency_has_the_limit_of_an_ordinary_one() {
    assert!(near(limit(&Typical::default(), 1.0), 0.06));
}

#[test]
fn a_limit_grows_with_the_root_of_the_days_and_never_shrinks_below_a_day() {
    let typical = Typical::default();
    assert!(near(limit(&typical, 4.0), 2.0 * limit(&typical, 1.0)));
    assert_eq!(limit(&typical, 1.0 / 24.0), limit(&typical, 1.0));
}

#[test]
fn no_habit_lifts_a_limit_over_the_ceiling_or_puts_it_below_one_in_a_hundred() {
    assert_eq!(limit(&learned(Typical::default(), 400, 0.5, 1.0), 1.0), CEILING);
    assert_eq!(limit(&learned(Typical::default(), 400, 0.0, 1.0), 1.0), LEAST);
    assert_eq!(Typical::default().limit(usd(), 1.0, 0.005), 0.005, "the ceiling is the last word");
}

#[test]
fn it_settles_at_the_move_that_is_seen_whether_days_or_hours_apart() {
    for days in [1.0, 4.0, SHORTEST] {
        let moved = 0.003 * days.sqrt();
        let typical = learned(Typical::default(), 3_000, moved, days);
        assert!(near(typical.of(usd()), 0.003), "{days} days: {}", typical.of(usd()));
    }
}

#[test]
fn a_peg_that_ends_is_learned_in_a_season_however_long_it_held() {
    let peg = learned(Typical::default(), 5_000, 0.0, 1.0);
    let floating = learned(peg, 60, 0.01, 1.0);
    assert!(limit(&floating, 1.0) > 0.05, "{}", limit(&floating, 1.0));
}

#[test]
fn a_weekend_of_flat_hours_unlearns_no_more_than_two_flat_days() {
    let before = Typical::default();
    let hours = learned(before.clone(), 48, 0.0, SHORTEST);
    let days = learned(before, 2, 0.0, 1.0);
    assert!(near(hours.of(usd()), days.of(usd())), "{} {}", hours.of(usd()), days.of(usd()));
}

#[test]
fn a_correction_of_the_same_instant_teaches_nothing() {
    let before = learned(Typical::default(), 5, 0.01, 1.0);
    assert_eq!(before.after(&sheet(1.0), &sheet(1.004), 0.0), before);
}

#[test]
fn there_and_back_is_the_same_move() {
    let moved = |old, new| moves(&sheet(old), &sheet(new)).unwrap()[1].1;
    assert_eq!(moved(1.0, 1.5), moved(1.5, 1.0));
    assert!(near(moved(1.5, 1.0), 0.5));
}

#[test]
fn either_base_serves_when_the_other_sheet_has_it() {
    let euros = sheet(1.25);
    let dollars = |rates: &str| {
        let text = format!(r#"{{"base":"USD","rates":{{{rates}}}}}"#);
        Sheet::from_json(text.as_bytes(), "x").unwrap()
    };
    let euro_known = dollars(r#""EUR":0.8"#);
    let euro_unknown = dollars(r#""JPY":150"#);
    let still = |found: Option<Vec<(Currency, f64)>>| found.unwrap().iter().all(|it| it.1 < 1e-9);
    assert!(still(moves(&euros, &euro_known)));
    // USD is the only one that both have, once as the old base and once as the new.
    assert!(still(moves(&euros, &euro_unknown)));
    assert!(still(moves(&euro_unknown, &euros)));
}
