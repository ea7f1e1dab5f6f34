use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::fx::to_f64;

/// European Central Bank, euro reference rates of 30 October 2026.
const CODES: &str = "USD JPY CZK DKK GBP HUF PLN RON SEK CHF ISK NOK TRY AUD BRL CAD CNY HKD IDR \
                     ILS INR KRW MXN MYR NZD PHP SGD THB ZAR";
const RATES: &str = "1.1172 175.68 24.353 7.4735 0.83380 366.33 4.4038 5.3447 10.9780 0.9194 \
                     136.00 10.3120 55.8015 1.5904 6.0692 1.5606 7.4326 8.7652 20275.17 3.4950 \
                     106.0840 1491.76 21.1237 4.5325 1.9823 71.143 1.4282 37.683 18.6455";

fn code(code: &str) -> Currency {
    Currency::parse(code).unwrap()
}

fn pairs() -> impl Iterator<Item = (&'static str, &'static str)> {
    CODES.split_whitespace().zip(RATES.split_whitespace())
}

/// The ECB's sheet, its numbers written as a provider's JSON would have them.
fn ecb() -> Sheet {
    let rates: Vec<_> = pairs().map(|(code, rate)| format!("\"{code}\":{rate}")).collect();
    let rates = rates.join(",");
    let json = format!(r#"{{"base":"EUR","timestamp":1793369700,"rates":{{{rates}}}}}"#);
    Sheet::from_json(json.as_bytes(), "ecb").unwrap()
}

fn refused(response: &str) -> String {
    Sheet::from_json(response.as_bytes(), "test").expect_err(response)
}

fn one(rate: &str) -> Result<String, String> {
    let response = format!(r#"{{"base":"EUR","rates":{{"USD":{rate}}}}}"#);
    Sheet::from_json(response.as_bytes(), "test").map(|s| s.rates[&code("USD")].to_string())
}

#[test]
fn the_ecb_sheet_is_held_digit_by_digit() {
    let sheet = ecb();
    assert_eq!(
        (sheet.base(), sheet.as_of(), sheet.source()),
        (code("EUR"), Some(1793369700), "ecb")
    );
    assert_eq!(sheet.rates().len(), 30, "29 currencies and the base");
    for (name, text) in pairs() {
        assert_eq!(sheet.cross(code("EUR"), code(name)).unwrap().to_string(), text);
    }
}

#[test]
fn a_cross_rate_is_the_quotient_of_two_rates_of_one_sheet() {
    let cross = |from, to| ecb().cross(code(from), code(to)).unwrap().to_string();
    assert_eq!(cross("USD", "GBP"), "0.7463301109917651271034729681");
    assert_eq!(cross("GBP", "USD"), "1.3398896617893979371551930919");
    assert_eq!(cross("USD", "USD"), "1");
    assert_eq!(cross("XXX", "XXX"), "1", "with or without a rate");
}

#[test]
fn an_absent_currency_is_named_with_its_sheet() {
    for (from, to) in [("EUR", "RUB"), ("RUB", "EUR")] {
        let error = ecb().cross(code(from), code(to)).unwrap_err();
        assert!(matches!(error, Error::RateUnavailable(_)));
        let sentence = error.to_string();
        assert!(sentence.contains("RUB") && sentence.contains("sheet of ecb"), "{sentence}");
    }
}

#[test]
fn a_day_is_an_as_of_where_there_is_no_timestamp() {
    let sheet = |fields: &str| {
        let text = format!(r#"{{"base":"EUR",{fields}"rates":{{"USD":1.1}}}}"#);
        Sheet::from_json(text.as_bytes(), "test").map(|sheet| sheet.as_of())
    };
    assert_eq!(sheet(r#""date":"2026-10-30","#), Ok(Some(1_793_369_700)));
    assert_eq!(sheet(r#""date":"2026-10-30","timestamp":1793000000,"#), Ok(Some(1_793_000_000)));
    assert_eq!(sheet(r#""date":null,"#), Ok(None));
    assert!(sheet(r#""date":"yesterday","#).unwrap_err().contains("expected as in 2026-11-24"));
}

#[test]
fn a_document_without_a_base_is_refused_with_what_it_has() {
    let sentence = Sheet::from_json(br#"{"status":"ok","terms":{}}"#, "x").unwrap_err();
    assert!(sentence.contains("it has \"status\", \"terms\""), "{sentence}");
}

#[test]
fn a_php_array_and_json_text_make_the_same_sheet() {
    let rates: serde_json::Map<_, _> =
        pairs().map(|(code, text)| (code.into(), json!(text.parse::<f64>().unwrap()))).collect();
    let value = json!({"base": "EUR", "timestamp": 1793369700, "rates": rates});
    assert_eq!(Sheet::from_value(&value, "ecb").unwrap(), ecb());
}

#[test]
fn numbers_and_strings_are_read_from_their_text() {
    for (json, text) in [
        ("1.10", "1.10"),
        ("\"1.10\"", "1.10"),
        ("175", "175"),
        ("0.1234567890123456789012345678", "0.1234567890123456789012345678"),
        ("9007199254740993", "9007199254740993"),
        ("1e-7", "0.0000001"),
        ("1.5E+3", "1500"),
        ("2.5e1", "25"),
        ("0.0000000000000000000000000001", "0.0000000000000000000000000001"),
        ("79228162514264337593543950335", "79228162514264337593543950335"),
        ("7e28", "70000000000000000000000000000"),
    ] {
        assert_eq!(one(json).as_deref(), Ok(text), "{json}");
    }
}

#[test]
fn a_rate_that_is_no_exact_positive_number_is_refused_by_name() {
    for json in [
        "0",
        "0.000",
        "0e5",
        "-1.1",
        "-0",
        "true",
        "[1.1]",
        "{\"value\":1.1}",
        "\"\"",
        "\" 1.1\"",
        "\"+1.1\"",
        "\"NaN\"",
        "\"Infinity\"",
        "\"INF\"",
        "\"1,1\"",
        "\"1.\"",
        "\".5\"",
        "\"1_000\"",
        "\"1.1.1\"",
        "\"0x1\"",
        "\"1e\"",
        "\"1e1.5\"",
        "\"1e--1\"",
        "\"١\"",
        "79228162514264337593543950336",
        "8e28",
        "1e29",
        "1e400",
        "\"1e400\"",
        "1e999999999999",
        "1e-29",
        "0.12345678901234567890123456789",
        "1.2345678901234567890123456789012e2",
    ] {
        let sentence = one(json).expect_err(json);
        assert!(sentence.contains("rate of USD"), "{json}: {sentence}");
    }
}

#[test]
fn a_response_of_another_shape_is_refused_in_words() {
    for (response, words) in [
        ("", "not a JSON object"),
        ("[]", "not a JSON object"),
        (r#"{"base":"EUR","rates":{"USD":NaN}}"#, "not a JSON object"),
        (r#"{"base":"EUR","rates":{"USD":-Infinity}}"#, "not a JSON object"),
        (r#"{"base":"EUR","rates":{"USD":1.1}"#, "not a JSON object"),
        (r#"{"base":"EUR","rates":{"USD":1.1}}{}"#, "not a JSON object"),
        ("<gesmes:Envelope/>", "not a JSON object"),
        (r#"{"rates":{"USD":1.1}}"#, "no \"base\""),
        (r#"{"base":null,"rates":{"USD":1.1}}"#, "\"base\": \"null\""),
        (r#"{"base":"eur","rates":{"USD":1.1}}"#, "three capital letters"),
        (r#"{"base":"EUR"}"#, "no \"rates\""),
        (r#"{"base":"EUR","rates":[1.1]}"#, "\"rates\" are no map"),
        (r#"{"base":"EUR","rates":{}}"#, "no rate besides its base EUR"),
        (r#"{"base":"EUR","rates":{"EUR":1}}"#, "no rate besides its base EUR"),
        (r#"{"base":"EUR","rates":{"EUR":1.1,"USD":1}}"#, "its own base EUR is 1.1"),
        (r#"{"base":"EUR","rates":{"usd":1.1}}"#, "\"usd\" is not a currency code"),
        (r#"{"base":"EUR","rates":{"USD":1},"timestamp":"now"}"#, "\"timestamp\" is \"now\""),
        (r#"{"base":"EUR","rates":{"USD":1},"timestamp":1.5}"#, "\"timestamp\" is \"1.5\""),
        (r#"{"base":"EUR","rates":{"USD":1},"timestamp":0}"#, "not in seconds"),
        (r#"{"base":"EUR","rates":{"USD":1},"timestamp":1793369700000}"#, "not in seconds"),
    ] {
        let sentence = refused(response);
        assert!(sentence.contains(words), "{response}: {sentence}");
    }
}

#[test]
fn what_open_exchange_rates_sends_beside_the_rates_is_passed_over() {
    let response = br#"{"disclaimer": "Usage subject to terms", "license": "", "base": "USD",
        "timestamp": 1793369700, "rates": {"AED": 3.6725, "BTC": 0.0000089, "USD": 1}}"#;
    let sheet = Sheet::from_json(response, "openexchangerates").unwrap();
    assert_eq!((sheet.base(), sheet.as_of()), (code("USD"), Some(1793369700)));
    assert_eq!(sheet.rates[&code("BTC")].to_string(), "0.0000089");
    let refusal = br#"{"error": true, "status": 401, "message": "invalid_app_id"}"#;
    assert!(
        Sheet::from_json(refusal, "openexchangerates")
            .unwrap_err()
            .contains("it says: invalid_app_id")
    );
}

/// Frankfurter's `amount`, exchangerate.host's `success`, and a currency that a provider has no rate for.
#[test]
fn what_a_sheet_says_of_itself_counts() {
    for (response, words) in [
        (r#"{"amount":10,"base":"EUR","rates":{"USD":11.1}}"#, "for an \"amount\" of \"10\""),
        (r#"{"amount":"2.0","base":"EUR","rates":{"USD":2.2}}"#, "for an \"amount\" of \"2.0\""),
        (
            r#"{"success":false,"error":{"code":104,"type":"usage_limit_reached","info":"Your limit has been reached."}}"#,
            "it says: usage_limit_reached: Your limit has been reached.",
        ),
        (r#"{"success":false,"base":"EUR","rates":{"USD":1.1}}"#, "\"success\": false"),
        (r#"{"error":"invalid_access_key"}"#, "it says: invalid_access_key"),
        (r#"{"base":"EUR","rates":{"USD":1.1,"USD":1.2}}"#, "more than one rate of USD"),
        (r#"{"base":"EUR","rates":{"USD":null}}"#, "no rate besides its base EUR"),
    ] {
        let sentence = refused(response);
        assert!(sentence.contains(words), "{response}: {sentence}");
    }
    for response in [
        r#"{"amount":1,"base":"EUR","rates":{"USD":1.1}}"#,
        r#"{"amount":1.0,"success":true,"error":null,"base":"EUR","rates":{"USD":1.1,"XPT":null}}"#,
    ] {
        let sheet = Sheet::from_json(response.as_bytes(), "x").unwrap();
        assert_eq!(sheet.rates.len(), 2, "a currency without a rate is not in it");
    }
}

#[test]
fn a_document_of_either_kind_is_told_by_how_it_begins() {
    let xml = include_str!("../testdata/eurofxref-daily.xml");
    let json = r#"{"base":"EUR","timestamp":1793369700,"rates":{"USD":1.1172}}"#;
    for before in ["", " \r\n\t", "\u{feff}", "\u{feff}\n"] {
        // A declaration has to be the first thing in XML, a mark apart.
        let (_, rest) = xml.split_once("?>").unwrap();
        for (document, rates) in [(rest, 30), (json, 2)] {
            let sheet = Sheet::from_text(format!("{before}{document}").as_bytes(), "test").unwrap();
            assert_eq!((sheet.rates().len(), sheet.as_of()), (rates, Some(1793369700)));
        }
    }
    for (document, words) in [
        (&b"<html></html>"[..], "gesmes:Envelope"),
        (b"rate limit exceeded", "not a JSON object"),
        (b"", "not a JSON object"),
        (b"\xef\xbb\xbf", "not a JSON object"),
        (b"\xff\xfe{\0}\0", "not a JSON object"),
        (b"<\xff>", "not in UTF-8"),
    ] {
        let sentence = Sheet::from_text(document, "test").unwrap_err();
        assert!(sentence.contains(words), "{sentence}");
    }
}

#[test]
fn the_base_may_be_named_among_its_rates_at_one() {
    let named = br#"{"base":"EUR","rates":{"EUR":1.0,"USD":1.1},"timestamp":null,"license":"x"}"#;
    let sheet = Sheet::from_json(named, "test").unwrap();
    let unnamed = Sheet::from_json(br#"{"base":"EUR","rates":{"USD":1.1}}"#, "test").unwrap();
    assert_eq!(sheet, unnamed);
}

#[test]
fn a_cross_rate_has_no_zero_at_its_end() {
    let json = br#"{"base":"EUR","rates":{"AAA":290,"BBB":6865270.717}}"#;
    let sheet = Sheet::from_json(json, "test").unwrap();
    let rate = sheet.cross(code("AAA"), code("BBB")).unwrap().to_string();
    assert!(!rate.ends_with('0'), "{rate}");
}

#[test]
fn a_cross_rate_that_cannot_be_held_is_an_error_and_never_zero() {
    let wide = br#"{"base":"EUR","rates":{"AAA":1e-28,"BBB":7e28}}"#;
    let sheet = Sheet::from_json(wide, "test").unwrap();
    for (from, to) in [("AAA", "BBB"), ("BBB", "AAA")] {
        let error = sheet.cross(code(from), code(to)).unwrap_err();
        assert!(error.to_string().contains("does not fit"), "{error}");
    }
}

#[test]
fn a_stored_sheet_with_a_rate_that_is_none_is_refused() {
    let mut stored = ecb().store();
    stored.rates.insert("USD".into(), "-1.1172".into());
    assert!(Sheet::restore(stored).is_err());
}

/// What real sheets hold: a bitcoin in dollars to a dollar in rial, with up to twelve decimals.
fn rate() -> impl Strategy<Value = Decimal> {
    (1_i64..=9_999_999_999, 4_u32..=12).prop_map(|(digits, scale)| Decimal::new(digits, scale))
}

fn sheet_of(a: Decimal, b: Decimal) -> Sheet {
    let response = json!({"base": "EUR", "rates": {"AAA": a.to_string(), "BBB": b.to_string()}});
    Sheet::from_value(&response, "test").unwrap()
}

proptest! {
    #[test]
    fn there_and_back_is_one_but_for_the_last_digits(a in rate(), b in rate()) {
        let sheet = sheet_of(a, b);
        let there = sheet.cross(code("AAA"), code("BBB")).unwrap();
        let back = sheet.cross(code("BBB"), code("AAA")).unwrap();
        // Each is rounded at 28 places or 28 digits, whichever comes first, and the larger one
        // multiplies the other's error.
        let larger = to_f64(there.max(back));
        let off = to_f64((there * back - Decimal::ONE).abs());
        prop_assert!(off <= 2e-28 * larger + 1e-27, "off by {off} at {larger}");
    }

    #[test]
    fn what_is_stored_is_read_back_digit_by_digit(a in rate(), b in rate()) {
        let sheet = sheet_of(a, b);
        let back = Sheet::restore(sheet.store()).unwrap();
        prop_assert_eq!(&back, &sheet);
        prop_assert_eq!(back.rates[&code("AAA")].to_string(), a.to_string());
    }

    #[test]
    fn a_float_keeps_its_value_through_a_sheet(float in 1e-9..1e9_f64) {
        let response = json!({"base": "EUR", "rates": {"USD": float}});
        let sheet = Sheet::from_value(&response, "test").unwrap();
        let out = to_f64(sheet.cross(code("EUR"), code("USD")).unwrap());
        prop_assert_eq!(out.to_bits(), float.to_bits());
    }

    #[test]
    fn any_bytes_are_a_sound_sheet_or_a_sentence(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        text in r#"[<{]?([{}\[\]":,0-9eE.+-]|base|rates|EUR|USD|timestamp){0,40}"#,
    ) {
        for document in [&bytes[..], text.as_bytes()] {
            if let Ok(sheet) = Sheet::from_text(document, "test") {
                prop_assert!(sheet.rates().len() > 1);
            }
        }
    }

    #[test]
    fn no_text_makes_an_unsound_rate(text in "[0-9.eE+-]{1,12}") {
        if let Some(rate) = positive(&text) {
            prop_assert!(rate > Decimal::ZERO);
            let (exact, float) = (to_f64(rate), text.parse::<f64>().unwrap());
            prop_assert_eq!(exact, float);
        }
    }
}
