#![allow(clippy::panic, clippy::unwrap_used)] // A property fails by a panic, as a test does.
//! What servers answer: status, headers and body.

use std::sync::LazyLock;

use super::*;
use crate::clock::WallTime;
use crate::fuzzing::{SECRET, check_sentence};

/// No call goes out: the answers are made up.
static FETCH: LazyLock<HttpFetch> =
    LazyLock::new(|| HttpFetch::new(TIMEOUT, Proxies::default(), None));

/// Friday, 30 October 2026, 14:15:00.
const WALL: WallTime = WallTime::from_unix_millis(1_793_369_700_000);

/// The answer of a source of rates: `ecb` or `json` and the status in the first line, then headers, an empty
/// line, and the body.
///
/// - No error message shows the key in the source's address.
/// - A redirect is followed to the same host only, not out of TLS, and to no address with a user.
/// - A pause that the server asks for is above zero and at most a day.
pub fn http_answer(bytes: &[u8]) -> bool {
    let end = bytes.windows(2).position(|pair| pair == b"\n\n").unwrap_or(bytes.len());
    let (head, body) = bytes.split_at(end);
    let mut head = head.split(|byte| *byte == b'\n');
    let first = String::from_utf8_lossy(head.next().unwrap_or_default()).into_owned();
    let (feed, status) = first.split_once(' ').unwrap_or((&first, ""));
    let mut headers = HeaderMap::new();
    for line in head {
        let at = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(at);
        let value = value.strip_prefix(b":").unwrap_or(value).trim_ascii();
        let (name, value) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value));
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let kind = if feed == "ecb" { "ecb" } else { "json" };
    let address = format!("{kind}:https://rates.example/latest?key={SECRET}");
    let sources = crate::fx::parse_list(&address, None).unwrap_or_default();
    let call = Call {
        fetch: &FETCH,
        source: &sources[0],
        known: &Validators::default(),
        app_id: None,
        deadline: Uptime::default(),
    };
    match status.trim().parse().unwrap_or(0_u16) {
        200 => {
            let body = body.strip_prefix(b"\n\n").unwrap_or(body).to_vec();
            let mut response = Response::new(Body::builder().data(body));
            *response.headers_mut() = headers;
            match call.sheet(response) {
                Err(error) => check_refusal(&error),
                Ok(Fetched::NotModified) => panic!("nothing was known"),
                Ok(Fetched::Sheet { sheet, validators }) => {
                    assert_eq!(sheet.source(), sources[0].name());
                    for text in [validators.etag, validators.last_modified].into_iter().flatten() {
                        assert!((1..=MAX_VALIDATOR).contains(&text.len()));
                        assert!(HeaderValue::from_str(&text).is_ok());
                    }
                    return true;
                }
            }
        }
        300..400 => return check_redirect(headers.get(LOCATION)),
        status => {
            let error = call.refused(status, &headers, body);
            check_refusal(&error);
            let retry = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let pause = retry.and_then(|text| retry::after(text, WALL));
            for pause in [pause, error.retry_after].into_iter().flatten() {
                assert!(pause > Duration::ZERO && pause <= Duration::from_secs(86_400));
            }
            return pause.is_some();
        }
    }
    false
}

fn check_refusal(error: &FetchError) {
    check_sentence(&error.reason);
    assert!(error.reason.len() <= crate::store::MAX_REASON);
}

fn check_redirect(location: Option<&HeaderValue>) -> bool {
    let mut followed = false;
    for from in ["https://rates.example/a/b?key=hunter2", "http://rates.example:8080/a"] {
        let from = Uri::from_static(from);
        match redirect::target(&from, location) {
            // The end of a sentence, with the host that the server itself has named.
            Err(why) => assert!(!why.contains(SECRET) || shows(location)),
            Ok(to) => {
                followed = true;
                assert!(to.host().is_some_and(|host| host.eq_ignore_ascii_case("rates.example")));
                assert!(!to.authority().is_some_and(|authority| authority.as_str().contains('@')));
                let scheme = to.scheme_str();
                assert!(scheme == Some("https") || scheme == from.scheme_str());
            }
        }
    }
    followed
}

fn shows(location: Option<&HeaderValue>) -> bool {
    location.is_some_and(|value| value.to_str().is_ok_and(|text| text.contains(SECRET)))
}
