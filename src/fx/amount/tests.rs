use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::fx::Sheet;

fn code(code: &str) -> Currency {
    Currency::parse(code).unwrap()
}

fn scale(decimals: i64) -> Scale {
    Scale::new(decimals).unwrap()
}

fn ratio(to: &str, from: &str) -> Ratio {
    let exact = |text| Decimal::from_str_exact(text).unwrap();
    Ratio { to: exact(to), from: exact(from) }
}

fn convert(amount: &str, by: Ratio, decimals: i64, rounding: Rounding) -> String {
    Amount::parse(amount.as_bytes()).unwrap().convert(by, scale(decimals), rounding)
}

fn rounded(amount: &str, decimals: i64, rounding: Rounding) -> String {
    convert(amount, Ratio::ONE, decimals, rounding)
}

#[test]
fn twenty_digits_before_and_behind_the_point_are_exact() {
    let amount = "12345678901234567890.12345678901234567891";
    assert_eq!(rounded(amount, 20, Rounding::HalfEven), amount);
    // 12345678901234567890.12345678901234567891 × 1.1172 / 0.83380, to 20 places, as Python's fractions have it.
    let by = ratio("1.1172", "0.83380");
    assert_eq!(
        convert(amount, by, 20, Rounding::HalfEven),
        "16541847527535691109.19396249062676012530"
    );
}

#[test]
fn a_conversion_rounds_once_and_not_by_way_of_a_cross_rate() {
    // 30 × (1 ÷ 3) is ten; with a cross rate of 28 places it is ten less a little.
    let by = ratio("1", "3");
    assert_eq!(convert("30", by, 28, Rounding::HalfEven), format!("10.{}", "0".repeat(28)));
    assert_eq!(convert("1", by, 28, Rounding::HalfUp), format!("0.{}", "3".repeat(28)));
    // Exactly half a cent, by a rate that no decimal can hold.
    assert_eq!(convert("0.015", by, 2, Rounding::HalfEven), "0.00");
    assert_eq!(convert("0.015", by, 2, Rounding::HalfUp), "0.01");
    assert_eq!(convert("0.045", by, 2, Rounding::HalfEven), "0.02");
}

#[test]
fn ties_go_to_the_even_neighbour_or_away_from_zero() {
    for (amount, decimals, even, up) in [
        ("0.5", 0, "0", "1"),
        ("1.5", 0, "2", "2"),
        ("2.5", 0, "2", "3"),
        ("-0.5", 0, "0", "-1"),
        ("-2.5", 0, "-2", "-3"),
        ("2.50000000000000000001", 0, "3", "3"),
        ("2.49999999999999999999", 0, "2", "2"),
        ("0.125", 2, "0.12", "0.13"),
        ("0.375", 2, "0.38", "0.38"),
        ("9.995", 2, "10.00", "10.00"),
        ("99999999999999999999.5", 0, "100000000000000000000", "100000000000000000000"),
    ] {
        assert_eq!(rounded(amount, decimals, Rounding::HalfEven), even, "{amount}");
        assert_eq!(rounded(amount, decimals, Rounding::HalfUp), up, "{amount}");
    }
}

#[test]
fn zero_has_no_sign_and_all_its_decimals() {
    for amount in ["0", "-0", "+0", "-0.00", "-0.004", "0.005", "-0.005", "000"] {
        assert_eq!(rounded(amount, 2, Rounding::HalfEven), "0.00", "{amount}");
    }
    assert_eq!(rounded("-0.4", 0, Rounding::HalfUp), "0");
}

#[test]
fn what_comes_out_has_as_many_decimals_as_were_asked_for() {
    assert_eq!(rounded("+007", 2, Rounding::HalfEven), "7.00");
    assert_eq!(rounded("7.1", 0, Rounding::HalfEven), "7");
    assert_eq!(rounded("0.05", 3, Rounding::HalfEven), "0.050");
}

#[test]
fn text_that_is_no_plain_decimal_is_refused_with_what_was_expected() {
    for text in [
        "", "-", "+", ".", ".5", "5.", "-.5", "1e3", "1E3", "1,5", "1 000", "1_000", " 1", "1 ",
        "--1", "+-1", "1-", "1.2.3", "0x1F", "NaN", "INF", "١", "1\0", "1\n", "€1",
    ] {
        let sentence = Amount::parse(text.as_bytes()).expect_err(text);
        assert!(sentence.contains("such as -1234.50"), "{text:?}: {sentence}");
    }
    assert!(Amount::parse(b"1\xff").is_err(), "not even text");
    assert!(Amount::parse(&[b'x'; 9_999]).unwrap_err().len() < 250);
}

#[test]
fn forty_digits_are_an_amount_and_forty_one_are_not() {
    let amount = format!("-{}.{}", "9".repeat(20), "9".repeat(20));
    assert_eq!(rounded(&amount, 20, Rounding::HalfUp), amount);
    let sentence = Amount::parse(&[b'9'; 41]).unwrap_err();
    assert!(sentence.contains("41 digits") && sentence.contains("at most 40"), "{sentence}");
}

#[test]
fn decimals_of_a_currency_are_those_of_iso_4217() {
    for (name, decimals) in [
        ("EUR", 2),
        ("USD", 2),
        ("JPY", 0),
        ("ISK", 0),
        ("BHD", 3),
        ("TND", 3),
        ("CLF", 4),
        ("VES", 2),
    ] {
        assert_eq!(Scale::of(code(name)), Some(scale(decimals)), "{name}");
    }
    for name in ["XAU", "XDR", "XXX", "BTC", "ZZZ", "HRK", "BGN", "CUC", "SLL", "ZWL", "DEM"] {
        assert_eq!(Scale::of(code(name)), None, "{name}");
    }
}

#[test]
fn a_scale_is_none_below_zero_and_none_beyond_what_a_rate_has() {
    assert!(Scale::new(0).is_ok() && Scale::new(28).is_ok());
    for decimals in [-1, 29, i64::MIN, i64::MAX] {
        assert!(Scale::new(decimals).unwrap_err().contains("between 0 and 28"));
    }
}

/// Schoolbook arithmetic on digits, least significant first: nothing in common with what is tested.
mod by_hand {
    pub fn times(a: &[u32], b: &[u32]) -> Vec<u32> {
        let mut out = vec![0; a.len() + b.len() + 1];
        for (i, x) in a.iter().enumerate() {
            for (j, y) in b.iter().enumerate() {
                let mut at = i + j;
                let mut carry = x * y;
                while carry > 0 {
                    carry += out[at];
                    out[at] = carry % 10;
                    carry /= 10;
                    at += 1;
                }
            }
        }
        out
    }

    pub fn plus(a: &[u32], b: &[u32]) -> Vec<u32> {
        let mut carry = 0;
        let digit = |of: &[u32], at: usize| of.get(at).copied().unwrap_or(0);
        (0..=a.len().max(b.len()))
            .map(|at| {
                let sum = digit(a, at) + digit(b, at) + carry;
                carry = sum / 10;
                sum % 10
            })
            .collect()
    }

    pub fn less(a: &[u32], b: &[u32]) -> bool {
        let digit = |of: &[u32], at: usize| of.get(at).copied().unwrap_or(0);
        let differ = (0..a.len().max(b.len())).rev().find(|at| digit(a, *at) != digit(b, *at));
        differ.is_some_and(|at| digit(a, at) < digit(b, at))
    }

    pub fn digits(text: &str) -> Vec<u32> {
        text.bytes().rev().filter(u8::is_ascii_digit).map(|byte| u32::from(byte - b'0')).collect()
    }

    pub fn shifted(digits: &[u32], places: u32) -> Vec<u32> {
        std::iter::repeat_n(0, places as usize).chain(digits.iter().copied()).collect()
    }
}

fn decimals_in(text: &str) -> u32 {
    text.split_once('.').map_or(0, |(_, fraction)| fraction.len() as u32)
}

fn amount() -> impl Strategy<Value = String> {
    "-?[0-9]{1,20}(\\.[0-9]{1,20})?"
}

/// What real sheets hold: a bitcoin in dollars to a dollar in rial, with up to twelve decimals.
fn rate() -> impl Strategy<Value = Decimal> {
    (1_i64..=9_999_999_999, 0_u32..=12).prop_map(|(digits, scale)| Decimal::new(digits, scale))
}

fn rounding() -> impl Strategy<Value = Rounding> {
    prop_oneof![Just(Rounding::HalfEven), Just(Rounding::HalfUp)]
}

/// The number that `text` says, in units of its last decimal.
fn units(text: &str) -> i128 {
    text.replace('.', "").parse().unwrap()
}

proptest! {
    /// |2 × (result × from) − 2 × (amount × to)| ≤ from, in whole numbers: no result is nearer.
    #[test]
    fn the_result_is_the_nearest_there_is(
        amount in amount(),
        (to, from) in (rate(), rate()),
        decimals in 0_i64..=28,
        rounding in rounding(),
    ) {
        let out = convert(&amount, Ratio { to, from }, decimals, rounding);
        prop_assert_eq!(i64::from(decimals_in(&out)), decimals);
        let (to, from) = (to.to_string(), from.to_string());
        let places = 80;
        let product = |a: &str, b: &str| {
            let missing = places - decimals_in(a) - decimals_in(b);
            by_hand::shifted(&by_hand::times(&by_hand::digits(a), &by_hand::digits(b)), missing)
        };
        let (wanted, got) = (product(&amount, &to), product(&out, &from));
        // Half a unit of the result's last decimal, times `from`.
        let half = product(&format!("0.{}5", "0".repeat(decimals as usize)), &from);
        let (above, below) = (by_hand::plus(&got, &half), by_hand::plus(&wanted, &half));
        prop_assert!(!by_hand::less(&above, &wanted), "{} is too small", out);
        prop_assert!(!by_hand::less(&below, &got), "{} is too large", out);
        let tie_went_up = !by_hand::less(&got, &below);
        let tie_went_down = !by_hand::less(&wanted, &above);
        let even = by_hand::digits(&out)[0].is_multiple_of(2);
        match rounding {
            Rounding::HalfEven => prop_assert!(even || !(tie_went_up || tie_went_down)),
            Rounding::HalfUp => prop_assert!(!tie_went_down),
        }
    }

    #[test]
    fn an_amount_in_its_own_currency_is_itself(amount in amount(), rounding in rounding()) {
        let out = rounded(&amount, 20, rounding);
        let exact = |text: &str| Amount::parse(text.as_bytes()).unwrap();
        let power = power_of_ten(20 - exact(&amount).scale);
        prop_assert_eq!(exact(&out).digits, exact(&amount).digits * power);
    }

    #[test]
    fn a_sign_changes_the_sign_alone(
        amount in "[0-9]{1,20}(\\.[0-9]{1,20})?",
        (to, from) in (rate(), rate()),
        decimals in 0_i64..=10,
        rounding in rounding(),
    ) {
        let plus = convert(&amount, Ratio { to, from }, decimals, rounding);
        let minus = convert(&format!("-{amount}"), Ratio { to, from }, decimals, rounding);
        let zero = plus.bytes().all(|byte| matches!(byte, b'0' | b'.'));
        prop_assert_eq!(minus, if zero { plus } else { format!("-{plus}") });
    }

    /// Where the rate does not shrink the amount there, the way back ends where it began.
    #[test]
    fn there_and_back_is_the_amount_within_one_unit_of_its_last_digit(
        cents in -10_i64.pow(15)..10_i64.pow(15),
        (a, b) in (rate(), rate()),
        rounding in rounding(),
    ) {
        let (to, from) = (a.max(b), a.min(b));
        let amount = Decimal::new(cents, 2).to_string();
        let there = convert(&amount, Ratio { to, from }, 2, rounding);
        let back = convert(&there, Ratio { to: from, from: to }, 2, rounding);
        prop_assert!((units(&back) - units(&amount)).abs() <= 1, "{} to {} to {}", amount, there, back);
    }

    /// A cross rate is the amount of one, and its inverse that of the other.
    #[test]
    fn a_rate_is_what_one_unit_converts_to_within_the_last_digit(a in rate(), b in rate()) {
        let response = json!({"base": "EUR", "rates": {"AAA": a.to_string(), "BBB": b.to_string()}});
        let sheet = Sheet::from_value(&response, "test").unwrap();
        for (from, to) in [("AAA", "BBB"), ("BBB", "AAA"), ("EUR", "AAA"), ("BBB", "EUR")] {
            let (from, to) = (code(from), code(to));
            let cross = sheet.cross(from, to).unwrap();
            let one = Amount::parse(b"1").unwrap();
            let decimals = i64::from(cross.scale());
            let out = one.convert(sheet.ratio(from, to).unwrap(), scale(decimals), Rounding::HalfEven);
            prop_assert!((units(&out) - cross.mantissa()).abs() <= 1, "{} and {}", out, cross);
        }
    }

    #[test]
    fn no_text_that_is_refused_by_the_grammar_is_an_amount(text in "[-+0-9. e,_]{0,12}") {
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(&text);
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        prop_assert_eq!(Amount::parse(text.as_bytes()).is_ok(), digits(whole) && digits(fraction));
    }
}
