use std::fmt::Write as _;

use proptest::prelude::*;

use super::super::Currency;
use super::*;

/// Reference rates of 30 October 2026, in the form in which the ECB publishes them.
const DAILY: &str = include_str!("../testdata/eurofxref-daily.xml");

fn sheet(document: &str) -> Result<Sheet, String> {
    Sheet::from_ecb_xml(document.as_bytes(), "ecb")
}

fn rate(sheet: &Sheet, code: &str) -> String {
    sheet.rates()[&Currency::parse(code).unwrap()].to_string()
}

/// A document with these in its outer Cube.
fn with(cubes: &str) -> String {
    format!("<e:Envelope xmlns:e='x'><Cube>{cubes}</Cube></e:Envelope>")
}

fn day(date: &str, rate: &str) -> String {
    format!("<Cube time='{date}'><Cube currency='USD' rate='{rate}'/></Cube>")
}

#[track_caller]
fn refused(document: &str, words: &str) {
    let sentence = sheet(document).expect_err(words);
    assert!(sentence.contains(words), "{words} in: {sentence}");
    assert!(sentence.len() < 200, "{sentence}");
}

#[test]
fn the_daily_document_is_read_digit_by_digit_as_of_a_quarter_past_two() {
    let sheet = sheet(DAILY).unwrap();
    assert_eq!((sheet.base().to_string().as_str(), sheet.source()), ("EUR", "ecb"));
    // 30 October 2026, 14:15 UTC.
    assert_eq!(sheet.as_of(), Some(1_793_369_700));
    assert_eq!(sheet.rates().len(), 30, "29 currencies and the base");
    for (code, text) in [("USD", "1.1172"), ("GBP", "0.83380"), ("IDR", "20275.17")] {
        assert_eq!(rate(&sheet, code), text);
    }
}

#[test]
fn prefixes_quotes_comments_and_elements_of_others_do_not_matter() {
    let plain = sheet(DAILY).unwrap();
    let comment = "<!-- <Cube time='2030-01-01'> & --><news lang='en'>&amp;<b/></news>";
    for other in [
        DAILY.replace("gesmes:", ""),
        DAILY.replace("<Cube", "<ecb:Cube").replace("</Cube", "</ecb:Cube"),
        DAILY.replace('\'', "\""),
        DAILY.replace("'/>", "' ></Cube>"),
        DAILY.replace("<Cube>", &format!("{comment}<Cube>{comment}")),
        format!("\u{feff}{DAILY}"),
        DAILY.split_once("?>").unwrap().1.to_owned(),
    ] {
        assert_eq!(sheet(&other).as_ref(), Ok(&plain), "{other}");
    }
}

#[test]
fn of_several_days_the_newest_is_taken_wherever_it_stands() {
    let (old, new) = (day("2026-10-29", "1.1130"), day("2026-10-30", "1.1172"));
    for document in [with(&format!("{old}{new}")), with(&format!("{new}{old}"))] {
        let sheet = sheet(&document).unwrap();
        assert_eq!(sheet.as_of(), Some(1_793_369_700));
        assert_eq!(rate(&sheet, "USD"), "1.1172");
    }
    refused(&with(&format!("{new}{new}")), "the same day twice");
    refused(&with(&format!("<Cube time='2026-10-28'>{new}</Cube>")), "a day within a day");
}

#[test]
fn a_document_type_is_refused_whatever_it_declares() {
    let mut laughs = String::from("<!DOCTYPE lolz [<!ENTITY lol0 'lol'>");
    for n in 1..10 {
        let _ = write!(laughs, "<!ENTITY lol{n} '{}'>", format!("&lol{};", n - 1).repeat(10));
    }
    laughs.push_str("]>");
    for declared in [
        laughs.as_str(),
        "<!DOCTYPE e [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>",
        "<!DOCTYPE e SYSTEM 'http://127.0.0.1/evil.dtd'>",
        "<!DOCTYPE e [<!ENTITY % x SYSTEM 'http://127.0.0.1/'> %x;]>",
        "<!DOCTYPE html>",
    ] {
        let document = DAILY.replacen("?>", &format!("?>{declared}"), 1);
        refused(&document.replace("Reference rates", "&lol9;&x;"), "document type (DTD)");
    }
}

#[test]
fn an_entity_is_never_expanded() {
    let document = DAILY.replace("Reference rates", "&lol9; &#x41;");
    assert!(sheet(&document).is_ok(), "text means nothing here");
    refused(&with(&day("2026-10-30", "&#49;.1")), "rate of USD is \"&#49;.1\"");
    refused(&with("<Cube time='&d;'/>"), "the time \"&d;\"");
    refused(&day("2026-10-30", "1").replace("USD", "&usd;"), "at its root");
    refused(&with(&day("2026-10-30", "1").replace("USD", "&usd;")), "not a currency code");
}

#[test]
fn a_document_that_ends_early_is_refused_wherever_it_ends() {
    let complete = DAILY.trim_end();
    for end in 0..complete.len() {
        assert!(sheet(&complete[..end]).is_err(), "{end}");
    }
    let between = complete.find("<Cube currency='JPY'").unwrap();
    refused(&complete[..between], "incomplete");
}

#[test]
fn a_document_of_another_form_is_refused_in_words() {
    let one = day("2026-10-30", "1.1172");
    for (document, words) in [
        ("", "incomplete"),
        ("rates", "text outside of its root"),
        (&format!("x{}", with(&one)), "text outside of its root"),
        (&format!("{}&x;", with(&one)), "text outside of its root"),
        (&format!("\u{feff}\u{feff}{}", with(&one)), "text outside of its root"),
        ("<html><body>Log in</body></html>", "\"html\" at its root"),
        ("<Envelope/>", "has no rates"),
        ("<Envelope/><Envelope/>", "at its root"),
        ("<Envelope></Wrong>", "not well-formed XML at byte"),
        ("<Envelope", "not well-formed"),
        (&with(""), "has no rates"),
        (&with("<Cube time='2026-10-30'/>"), "no rate besides its base EUR"),
        (&with("<Cube currency='USD' rate='1.1'/>"), "outside of a day"),
        (&with(&format!("{one}<Cube currency='USD' rate='1.1'/>")), "outside of a day"),
        (&with(&one.replace(" rate='1.1172'", "")), "a Cube of another form"),
        (&with(&one.replace(" currency='USD'", "")), "a Cube of another form"),
        (&with(&one.replace("currency", "time='2026-10-30' currency")), "a Cube of another form"),
        (&with(&one.replace("rate=", "rate='1' rate=")), "malformed attributes"),
        (&with(&one.replace("rate=", "rate")), "malformed attributes"),
        (
            &with(&one.replace("<Cube c", "<Cube currency='USD' rate='1.2'/><Cube c")),
            "more than one",
        ),
        (&with(&day("2026-10-30", "0")), "rate of USD is \"0\""),
        (&with(&day("2026-10-30", "-1.1")), "rate of USD is \"-1.1\""),
        (&with(&day("2026-10-30", "NaN")), "rate of USD is \"NaN\""),
        (&with(&day("2026-10-30", "1e400")), "rate of USD is \"1e400\""),
        (&with(&day("2026-10-30", "1,1")), "rate of USD is \"1,1\""),
        (&with(&day("2026-10-30", "N/A")), "rate of USD is \"N/A\""),
        (&with(&day("2026-10-30", "1").replace("USD", "EUR")), "no rate besides its base"),
        (&with(&day("2026-10-30", "2").replace("USD", "EUR")), "its own base EUR is 2"),
    ] {
        refused(document, words);
    }
    for date in ["", "2026-02-30", "2026-13-01", "2026-1-01", "26-10-30", "2026-10-30T14:15Z"] {
        refused(&with(&day(date, "1.1")), "expected a day such as");
    }
    refused(&with(&day("1969-12-31", "1.1")), "not in seconds since 1970");
    let latin1 = Sheet::from_ecb_xml(b"<Envelope>\xe9</Envelope>", "ecb");
    assert!(latin1.unwrap_err().contains("not in UTF-8"));
}

#[test]
fn a_hostile_document_costs_no_more_than_its_length() {
    let space = " ".repeat(MAX_DOCUMENT);
    refused(&format!("{space}{DAILY}"), "at most");
    let deep = "<a>".repeat(MAX_DOCUMENT / 4);
    refused(&format!("<Envelope>{deep}"), "incomplete");
    let mut crowded = String::from("<Cube");
    for n in 0..MAX_DOCUMENT / 16 {
        let _ = write!(crowded, " a{n}=''");
    }
    refused(&with(&format!("{crowded}/>")), "too many");
}

proptest! {
    #[test]
    fn any_bytes_are_a_sound_sheet_or_a_sentence(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        at in 0..DAILY.len(),
        text in "(<|/|>|<Envelope>|</Envelope>|<Cube( time='2026-10-30')?|<!|\\[|\\]|--|&|;|'|\\PC){0,30}",
    ) {
        let _ = Sheet::from_ecb_xml(&bytes, "ecb");
        let _ = Sheet::from_ecb_xml(text.as_bytes(), "ecb");
        for insertion in [&bytes[..], text.as_bytes()] {
            let mut document = DAILY.as_bytes().to_vec();
            document.splice(at..at, insertion.iter().copied());
            if let Ok(sheet) = Sheet::from_ecb_xml(&document, "ecb") {
                prop_assert!(sheet.rates().len() > 1);
            }
        }
    }
}
