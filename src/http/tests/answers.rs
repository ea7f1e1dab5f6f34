//! What a server says, and what is made of it.

use super::*;

#[test]
fn each_kind_of_source_becomes_a_sheet_of_its_name() {
    let ecb = Site::saying(xml(DAILY.as_bytes())).sheet("ecb").unwrap();
    assert_eq!((ecb.source(), ecb.as_of(), ecb.rates().len()), ("ecb", Some(1_793_369_700), 30));
    let site = Site::saying(json(LATEST.as_bytes()));
    let sheet = site.sheet("json").unwrap();
    assert_eq!(sheet.source(), format!("json:127.0.0.1:{}", site.port));
    assert_eq!((sheet.base().to_string().as_str(), sheet.rates().len()), ("USD", 4));
    let request = &site.asked()[0];
    assert!(request.starts_with("GET /rates?key=s3cret HTTP/1.1\r\n"), "{request}");
    let lower = request.to_ascii_lowercase();
    for header in [
        concat!("user-agent: sharedstate/", env!("CARGO_PKG_VERSION")),
        "accept: application/json",
        "accept-encoding: identity",
    ] {
        assert!(lower.contains(&format!("{header}\r\n")), "{header} in: {lower}");
    }
    assert!(!lower.contains("authorization") && !lower.contains("if-none-match"), "{lower}");
}

#[test]
fn an_app_id_is_sent_in_a_header_alone_and_read_anew_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app_id");
    let site = Site::saying(json(LATEST.as_bytes()));
    let word = format!("openexchangerates:{}", site.at("/latest.json"));
    let source = parse_list(&word, Some(&file)).unwrap().remove(0);
    let fetch = || patient().fetch(&source, &Validators::default(), TIMEOUT);
    for id in ["0123456789abcdef", "  fedcba9876543210\n"] {
        std::fs::write(&file, id).unwrap();
        let Fetched::Sheet { sheet, .. } = fetch().unwrap() else { panic!("{id}") };
        assert_eq!(sheet.source(), "openexchangerates");
        let request = site.asked().pop().unwrap();
        let header = format!("authorization: token {}\r\n", id.trim());
        assert!(request.to_ascii_lowercase().contains(&header), "{request}");
        assert!(request.starts_with("GET /latest.json HTTP/1.1\r\n"), "{request}");
    }
    let asked = site.asked().len();
    for content in ["", " \n", "two words", "a\nb", "s3cr\u{e9}t", "s3cret\0"] {
        std::fs::write(&file, content).unwrap();
        let reason = fetch().unwrap_err().reason;
        assert!(reason.contains("app_id does not hold what it should"), "{reason}");
        assert!(!reason.contains("s3cr"), "{reason}");
    }
    std::fs::remove_file(&file).unwrap();
    let reason = fetch().unwrap_err().reason;
    assert!(reason.contains("app_id cannot be read: No such file"), "{reason}");
    assert_eq!(site.asked().len(), asked, "nobody is asked without an app id");
}

#[test]
fn a_refused_app_id_is_looked_for_in_its_file_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("id");
    std::fs::write(&file, "0123456789abcdef").unwrap();
    let body = br#"{"error":true,"status":401,"message":"invalid_app_id 0123456789abcdef"}"#;
    let site = Site::saying(answer("401 Unauthorized", "Content-Type: application/json\r\n", body));
    let word = format!("openexchangerates:{}", site.at("/latest.json"));
    let source = parse_list(&word, Some(&file)).unwrap().remove(0);
    let error = patient().fetch(&source, &Validators::default(), TIMEOUT).unwrap_err();
    says(&error, "answered 401, it says: invalid_app_id");
    says(&error, &format!(": check the app id in {}", file.display()));
    assert!(!error.reason.contains("0123456789abcdef"), "{error:?}");
}

#[test]
fn what_a_source_said_about_its_sheet_is_sent_back_and_then_confirms_it() {
    let (etag, modified) = ("W/\"2026-10-30\"", "Fri, 30 Oct 2026 15:00:03 GMT");
    let site = Site::start(move |request, stream| {
        let lower = request.to_ascii_lowercase();
        let both = lower.contains(&format!("if-none-match: {}\r\n", etag.to_ascii_lowercase()))
            && lower.contains(&format!("if-modified-since: {}\r\n", modified.to_ascii_lowercase()));
        let headers = format!("ETag: {etag}\r\nLast-Modified: {modified}\r\n");
        let headers = format!("{headers}Content-Type: text/xml\r\n");
        let said = match both {
            true => format!("HTTP/1.1 304 Not Modified\r\n{headers}\r\n").into_bytes(),
            false => answer("200 OK", &headers, DAILY.as_bytes()),
        };
        let _ = stream.write_all(&said);
    });
    let first = site.fetch("ecb", &Validators::default()).unwrap();
    let Fetched::Sheet { validators, .. } = first else { panic!("{first:?}") };
    let expected = Validators { etag: Some(etag.into()), last_modified: Some(modified.into()) };
    assert_eq!(validators, expected);
    assert_eq!(site.fetch("ecb", &validators), Ok(Fetched::NotModified));
    let other = Validators { etag: Some("\"other\"".into()), ..validators };
    assert!(matches!(site.fetch("ecb", &other), Ok(Fetched::Sheet { .. })));
}

#[test]
fn a_validator_that_is_no_header_is_neither_kept_nor_sent() {
    let long = "x".repeat(9_999);
    let headers = format!("ETag: \"{long}\"\r\nLast-Modified: \r\nContent-Type: text/xml\r\n");
    let site = Site::saying(answer("200 OK", &headers, DAILY.as_bytes()));
    let stored = Validators { etag: Some("a\r\nX-Evil: 1".into()), last_modified: None };
    let fetched = site.fetch("ecb", &stored).unwrap();
    let Fetched::Sheet { validators, .. } = fetched else { panic!("{fetched:?}") };
    assert_eq!(validators, Validators::default());
    assert!(!site.asked()[0].contains("Evil"), "{:?}", site.asked());
}

#[test]
fn nothing_is_confirmed_that_was_not_known() {
    Site::saying("HTTP/1.1 304 Not Modified\r\n\r\n").refused("ecb", "answered 304");
}

#[test]
fn a_source_that_is_asked_too_often_says_for_how_long_to_wait() {
    let at = |status: &str, value: &str| {
        let headers = format!("Retry-After: {value}\r\n");
        Site::saying(answer(status, &headers, b"s3cret")).refused("json", "answered ").retry_after
    };
    assert_eq!(at("429 Too Many Requests", "120"), Some(Duration::from_secs(120)));
    assert_eq!(at("503 Service Unavailable", "7"), Some(Duration::from_secs(7)));
    assert_eq!(at("429 Too Many Requests", "9999999"), Some(Duration::from_secs(86_400)));
    let date = "Fri, 31 Dec 2100 23:59:59 GMT";
    assert_eq!(at("429 Too Many Requests", date), Some(Duration::from_secs(86_400)));
    assert_eq!(at("429 Too Many Requests", "Fri, 30 Oct 2020 14:15:00 GMT"), None);
    assert_eq!(at("500 Internal Server Error", "120"), None);
    let error = Site::saying(answer("429 Slow", "", b"")).refused("json", "asked too often");
    assert_eq!(error.retry_after, None);
}

#[test]
fn a_refusal_has_the_providers_own_words_and_not_what_was_sent() {
    let body = br#"{"error":true,"status":429,"message":"not_allowed","description":"x"}"#;
    Site::saying(answer("429 Slow", "", body))
        .refused("json", "answered 429, it says: not_allowed: it is asked too often");
    let body =
        br#"{"success":false,"error":{"type":"invalid_access_key","info":"no such key s3cret"}}"#;
    Site::saying(answer("403 No", "", body))
        .refused("json", "answered 403, it says: invalid_access_key: no such key [removed]");
    let body = br#"{"error":"expired","error_description":"the token 8xLOxBtZp8mN4kQ2 is over"}"#;
    Site::saying(answer("401 No", "", body))
        .refused("json", "answered 401, it says: expired: the token [removed] is over");
    let body = br#"{"error":[{"apikey":"ABCDEF"}],"message":"no"}"#;
    Site::saying(answer("401 No", "", body)).refused("json", "answered 401, it says: no: ");
    for body in ["<html>s3cret</html>", "", "{", "[]"] {
        Site::saying(answer("503 Away", "", body.as_bytes())).refused("json", "answered 503");
    }
}

#[test]
fn any_other_status_is_a_failure_that_names_it_and_the_host() {
    for status in ["201", "204", "206", "300", "400", "403", "404", "418", "500", "502", "599"] {
        let site = Site::saying(answer(&format!("{status} s3cret"), "", LATEST.as_bytes()));
        let host = format!("127.0.0.1:{} answered {status}", site.port);
        site.refused("json", &host);
    }
}

#[test]
fn a_page_in_place_of_a_document_is_refused_as_what_it_is() {
    for (kind, feed, fits) in [
        ("text/html; charset=utf-8", "json", false),
        ("text/html", "ecb", false),
        ("application/xhtml+xml", "ecb", false),
        ("image/png", "json", false),
        ("application/xml", "json", false),
        ("application/json", "ecb", false),
        ("", "json", false),
        ("\u{ff}", "json", false),
        ("Application/JSON", "json", true),
        ("application/hal+json;v=1", "json", true),
        ("application/xml", "ecb", true),
        ("application/rss+xml", "ecb", true),
        ("text/plain", "ecb", true),
        ("application/octet-stream", "json", true),
    ] {
        let body = if feed == "ecb" { DAILY } else { LATEST };
        let headers = format!("Content-Type: {kind}\r\n");
        let site = Site::saying(answer("200 OK", &headers, body.as_bytes()));
        assert_eq!(site.sheet(feed).is_ok(), fits, "{kind} for {feed}");
        if !fits {
            site.refused(feed, "check its address, and what stands before it");
        }
    }
    let silent = Site::saying(answer("200 OK", "", LATEST.as_bytes()));
    assert!(silent.sheet("json").is_ok(), "a server may say nothing");
}

#[test]
fn an_answer_that_is_compressed_although_nobody_asked_is_refused() {
    let headers = "Content-Type: application/json\r\nContent-Encoding: gzip\r\n";
    let site = Site::saying(answer("200 OK", headers, b"\x1f\x8b\x08\0s3cret"));
    site.refused("json", "compressed its answer (\"gzip\") without being asked");
}

#[test]
fn an_answer_that_is_no_sheet_is_refused_by_its_own_sentence() {
    let json_of = |rate: &str| format!(r#"{{"base":"USD","rates":{{"EUR":{rate}}},"x":"s3cret"}}"#);
    for (body, words) in [
        (json_of("NaN").into_bytes(), "not a JSON object"),
        (json_of("1e400").into_bytes(), "rate of EUR is \"1e400\""),
        (json_of("0").into_bytes(), "rate of EUR is \"0\""),
        (json_of("-1").into_bytes(), "rate of EUR is \"-1\""),
        (br#"{"rates":{"EUR":1}}"#.to_vec(), "no \"base\""),
        (br#"{"error":true,"message":"no s3cret"}"#.to_vec(), "error, it says: no [removed]"),
        (b"{\"base\":\"USD\",\"rates\":{\"EUR\":1,\"x\":\"\xff\"}}".to_vec(), "not a JSON object"),
        (b"".to_vec(), "not a JSON object"),
        (DAILY.as_bytes().to_vec(), "not a JSON object"),
    ] {
        Site::saying(json(&body)).refused("json", words);
    }
    let bomb = "<!DOCTYPE l [<!ENTITY a 'lol'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;'>]>";
    let outside = "<!DOCTYPE l [<!ENTITY b SYSTEM 'file:///etc/passwd'>]>";
    for (document, words) in [
        (DAILY.replacen("?>", &format!("?>{bomb}"), 1), "document type (DTD)"),
        (DAILY.replacen("?>", &format!("?>{outside}"), 1), "document type (DTD)"),
        (DAILY.replace("'1.1172'", "'NaN'"), "rate of USD is \"NaN\""),
        (DAILY[..DAILY.len() / 2].to_owned(), "the ECB's document"),
        (LATEST.to_owned(), "the ECB's document has text outside of its root"),
    ] {
        Site::saying(xml(document.as_bytes())).refused("ecb", words);
    }
    let latin1 = DAILY.replace("Reference", "R\u{1}f\u{1}rence").into_bytes();
    let latin1: Vec<_> = latin1.into_iter().map(|b| if b == 1 { 0xe9 } else { b }).collect();
    Site::saying(xml(&latin1)).refused("ecb", "not in UTF-8");
}

#[test]
fn a_redirect_on_the_same_host_is_followed_with_all_that_was_asked() {
    let site = Site::start(|request, stream| {
        let said = match request.split(' ').nth(1).unwrap_or_default() {
            "/rates?key=s3cret" => answer("301 Moved", "Location: /b\r\n", b"moved"),
            "/b" => answer("307 Temporary Redirect", "Location: c/d\r\n", b""),
            "/c/d" => answer("308 Permanent Redirect", "Location: e\r\n", b""),
            "/c/e" => json(LATEST.as_bytes()),
            _ => answer("404 Not Found", "", b""),
        };
        let _ = stream.write_all(&said);
    });
    let known = Validators { etag: Some("\"1\"".into()), last_modified: None };
    assert!(matches!(site.fetch("json", &known), Ok(Fetched::Sheet { .. })));
    let asked = site.asked();
    assert_eq!(asked.len(), 4);
    assert!(asked.iter().all(|r| r.to_ascii_lowercase().contains("if-none-match: \"1\"")));
}

#[test]
fn a_redirect_to_elsewhere_is_not_followed() {
    let elsewhere = Site::saying(json(LATEST.as_bytes()));
    let to = |location: &str| answer("302 Found", &format!("Location: {location}\r\n"), b"");
    let site = Site::saying(to(&elsewhere.at("/rates?key=s3cret")));
    site.refused("json", &format!("redirects to 127.0.0.1:{}, which is not", elsewhere.port));
    let site = Site::saying(to(&format!("http://localhost:{}/", elsewhere.port)));
    site.refused("json", "redirects to localhost:");
    assert_eq!(elsewhere.asked().len(), 0);
    Site::saying(answer("302 Found", "", b"")).refused("json", "without saying where to");
}

#[test]
fn redirects_in_a_circle_end_at_the_fourth_request() {
    let site = Site::saying(answer("302 Found", "Location: /rates\r\n", b""));
    site.refused("json", "redirects more than 3 times");
    assert_eq!(site.asked().len(), 4);
}
