use super::*;

fn file() -> Option<&'static Path> {
    Some(Path::new("/etc/app_id"))
}

fn one(word: &str) -> Source {
    let mut list = parse_list(word, file()).unwrap();
    assert_eq!(list.len(), 1);
    list.remove(0)
}

#[track_caller]
fn refused(text: &str, words: &str) -> String {
    let sentence = parse_list(text, file()).expect_err(text);
    assert!(sentence.starts_with("sharedstate.fx.sources has "), "{sentence}");
    assert!(sentence.contains(words), "{words} in: {sentence}");
    sentence
}

#[test]
fn a_list_names_its_sources_in_the_order_in_which_they_are_asked() {
    let text = " openexchangerates ,ecb,\n json:https://rates.example/latest?base=EUR ";
    let list = parse_list(text, file()).unwrap();
    let shape: Vec<_> = list.iter().map(|s| (s.feed(), s.name(), s.host())).collect();
    assert_eq!(
        shape,
        [
            (Feed::OpenExchangeRates, "openexchangerates", "openexchangerates.org"),
            (Feed::Ecb, "ecb", "www.ecb.europa.eu"),
            (Feed::Json, "json:rates.example", "rates.example"),
        ]
    );
    assert_eq!(list[2].address(), "https://rates.example/latest?base=EUR");
    assert_eq!(list[0].address(), OPEN_EXCHANGE_RATES);
    assert_eq!(parse_list("", None), Ok(vec![]));
    assert_eq!(parse_list(" \n", None), Ok(vec![]));
}

#[test]
fn a_mirror_keeps_the_name_of_what_it_mirrors() {
    for (word, name, feed) in [
        ("ecb:http://127.0.0.1:8080/daily.xml", "ecb", Feed::Ecb),
        ("openexchangerates:https://m.example", "openexchangerates", Feed::OpenExchangeRates),
    ] {
        let source = one(word);
        assert_eq!((source.name(), source.feed()), (name, feed));
        assert_eq!(source.address(), word.split_once(':').unwrap().1);
    }
}

#[test]
fn a_name_is_the_host_and_its_port_in_small_letters() {
    for (address, name) in [
        ("https://Rates.Example/x", "json:rates.example"),
        ("https://rates.example", "json:rates.example"),
        ("https://rates.example?key=s3cret", "json:rates.example"),
        ("http://rates.example:8080/x", "json:rates.example:8080"),
        ("http://[::1]:8080/x", "json:[::1]:8080"),
        ("https://cdn.example/npm/@a/b@latest/eur.json", "json:cdn.example"),
    ] {
        assert_eq!(one(&format!("json:{address}")).name(), name);
    }
}

#[test]
fn the_app_id_is_for_open_exchange_rates_alone_and_it_needs_one() {
    assert_eq!(one("openexchangerates").app_id_file(), file());
    assert_eq!(one("openexchangerates:http://m.example").app_id_file(), file());
    assert_eq!(one("ecb").app_id_file(), None);
    assert_eq!(one("json:https://rates.example").app_id_file(), None);
    for word in ["openexchangerates", "ecb,openexchangerates:https://m.example"] {
        let sentence = parse_list(word, None).unwrap_err();
        assert!(
            sentence.contains("set sharedstate.fx.openexchangerates.app_id_file"),
            "{sentence}"
        );
    }
}

#[test]
fn an_unknown_word_is_refused_with_those_that_are_known() {
    for (word, shown) in [
        ("fixer", "\"fixer\""),
        ("ECB", "\"ECB\""),
        ("json", "\"json\""),
        ("ecb,", "\"\""),
        (",ecb", "\"\""),
        ("ecb;json", "\"ecb;json\""),
        ("https://rates.example/x", "\"https://rates.example/x\""),
        ("json:https://rates.example/x?symbols=USD,GBP", "\"GBP\""),
        ("https://r.example/0a1b2c3d4e5f6a7b", "\"https://r.example/[removed]\""),
    ] {
        refused(word, &format!("has {shown}, expected ecb, openexchangerates or json:<address>"));
    }
    assert!(refused(&"x".repeat(9_999), "xxx").len() < 250);
}

#[test]
fn an_address_that_cannot_be_asked_is_refused() {
    for address in [
        "",
        "rates.example",
        "ftp://rates.example",
        "file:///etc/passwd",
        "HTTPS://rates.example",
        "https:/rates.example",
        "https://",
        "https:///x",
        "https://?x",
        "https://:8080",
        "https://rates.example:",
        "https://rates.example:0",
        "https://rates.example:+8",
        "https://rates.example:65536",
        "https://rates.example:80:80",
        "https://rates example",
        "https://rätes.example",
        "https://rates.example/x#y",
        "https://rates.example\\@evil.example",
        "https://rates.example/\r\nX: y",
        "https://[::1",
        "https://[::g]",
        "https://[::1]x",
        "https://%72ates.example",
    ] {
        refused(&format!("json:{address}"), "json with an address that cannot be used");
    }
}

#[test]
fn a_source_twice_is_refused_for_its_sheets_could_not_be_told_apart() {
    for (text, name) in [
        ("ecb,ecb", "ecb"),
        ("ecb,ecb:https://m.example", "ecb"),
        ("json:https://a.example/x,json:https://A.example/y", "json:a.example"),
    ] {
        refused(text, &format!("has {name} twice"));
    }
}

#[test]
fn no_secret_of_an_address_is_in_a_refusal_or_in_the_debug_form() {
    for text in [
        "json:https://user:s3cret@rates.example",
        "json:https://s3cret@rates.example/",
        "https://user:s3cret@rates.example",
        "fixer:https://rates.example/?key=s3cret",
        "json:https://rates.example/?a=b,c&key=s3cret",
        "json:ftp://rates.example/?key=s3cret",
        "json:https://a.example/?key=s3cret,json:https://a.example/?key=s3cret",
    ] {
        let sentence = parse_list(text, file()).expect_err(text);
        assert!(!sentence.contains("s3cret"), "{sentence}");
    }
    let source = one("json:https://rates.example/s3cret?key=s3cret");
    let shown = format!("{source:?} {}", source.name());
    assert!(shown.contains("rates.example") && !shown.contains("s3cret"), "{shown}");
}

#[test]
fn validators_survive_being_stored_and_so_do_those_of_a_later_release() {
    let both = Validators { etag: Some("W/\"1\"".into()), last_modified: Some("x".into()) };
    for validators in [both, Validators::default()] {
        let stored = serde_json::to_string(&validators).unwrap();
        assert_eq!(serde_json::from_str::<Validators>(&stored).unwrap(), validators);
    }
    let later = r#"{"etag":"\"1\"","digest":"x"}"#;
    let read: Validators = serde_json::from_str(later).unwrap();
    assert_eq!(read.etag.as_deref(), Some("\"1\""));
}
