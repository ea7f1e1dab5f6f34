use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::store::MAX_REASON;

/// 2026-11-23T10:00:00Z.
const NOW_S: i64 = 1_795_428_000;
const START: Moment = Moment::from_millis(5_000);
const POLICY: TokenPolicy = TokenPolicy { margin: Duration::from_secs(60), refresh_ratio: 0.8 };

fn options() -> TokenOptions {
    TokenOptions::new(POLICY)
}

fn read_with(options: &TokenOptions, answer: Answer) -> Result<Token, String> {
    read(answer, options, START, WallTime::from_unix_millis(NOW_S as u64 * 1000))
}

fn array(response: Value) -> Result<Token, String> {
    read_with(&options(), Answer::Json(response))
}

fn text(text: &str) -> Result<Token, String> {
    read_with(&options(), Answer::Text(text.into()))
}

fn object(token: &str, expires: Option<i64>) -> Result<Token, String> {
    read_with(&options(), Answer::Object { token: token.into(), expires })
}

fn jwt(claims: Value) -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.c2lnbmF0dXJl", part(json!({"alg": "RS256"})), part(claims))
}

fn seconds(token: &Token) -> f64 {
    token.timing.minted_at.millis_until(token.timing.expires_at) as f64 / 1e3
}

/// Lifetime in seconds, and whether this host's clock had a part in it.
fn life(token: Result<Token, String>) -> (f64, bool) {
    let token = token.unwrap();
    (seconds(&token), token.clock_dependent)
}

#[test]
fn github_sends_token_and_an_iso_8601_instant() {
    let token = array(json!({
        "token": "ghs_16C7e42F292c6912E7710c838347Ae178B4a",
        "expires_at": "2026-11-23T11:00:00Z",
        "permissions": {"issues": "write"},
    }));
    assert_eq!(token.as_ref().unwrap().value, "ghs_16C7e42F292c6912E7710c838347Ae178B4a");
    assert_eq!(life(token), (3600.0, true));
}

#[test]
fn salesforce_sends_no_lifetime_and_an_instance_url() {
    let response = json!({
        "access_token": "00Dx0000000BV7z!AR8AQP0jITN80ESEsj5EbaZTFG0RNBaT1cyWk7T",
        "instance_url": "https://eu5.my.salesforce.example",
        "issued_at": (NOW_S * 1000).to_string(),
        "token_type": "Bearer",
    });
    assert!(array(response.clone()).unwrap_err().contains("['ttl' => seconds]"));
    let options = options().ttl(7200).unwrap().keep(vec!["instance_url".into(), "id".into()]);
    let token = read_with(&options.unwrap(), Answer::Json(response)).unwrap();
    assert_eq!(seconds(&token), 7200.0);
    let kept = json!({"instance_url": "https://eu5.my.salesforce.example"});
    assert_eq!(Value::Object(token.kept), kept, "a field that is not there is not kept");
}

#[test]
fn salesforce_milliseconds_in_a_string_are_an_issue_time() {
    let issued = (NOW_S * 1000).to_string();
    let response = json!({"access_token": "x", "issued_at": issued, "expires_at": NOW_S + 900});
    assert_eq!(life(array(response)), (900.0, false), "not by this host's clock alone");
}

#[test]
fn azure_sends_every_number_as_a_string_and_expires_in_counts() {
    let response = json!({
        "token_type": "Bearer", "expires_in": "3599", "ext_expires_in": "86399",
        "expires_on": (NOW_S + 3599).to_string(), "not_before": NOW_S.to_string(), "access_token": "eyJ0eXAi.x.y",
    });
    assert_eq!(life(array(response)), (3599.0, false));
    let on = json!({"access_token": "x", "expires_on": (NOW_S + 3599).to_string()});
    assert_eq!(life(array(on)), (3599.0, true));
}

#[test]
fn google_sends_expires_in_as_a_number() {
    let text_form = r#" {"access_token":"ya29.c.b0","expires_in":3599,"token_type":"Bearer"} "#;
    assert_eq!(life(text(text_form)), (3599.0, false));
}

#[test]
fn league_says_an_instant_or_that_it_does_not_know() {
    assert_eq!(life(object("opaque", Some(NOW_S + 1800))), (1800.0, true));
    for unknown in [None, Some(0)] {
        assert!(object("opaque", unknown).unwrap_err().contains("['ttl' => seconds]"));
        let token = jwt(json!({"iat": NOW_S, "exp": NOW_S + 300}));
        assert_eq!(life(object(&token, unknown)), (300.0, false));
        let told = options().ttl(120).unwrap();
        let answer = Answer::Object { token: "opaque".into(), expires: unknown };
        assert_eq!(life(read_with(&told, answer)), (120.0, false));
    }
}

#[test]
fn a_small_number_in_expires_is_a_duration_and_a_large_one_an_instant() {
    let expires = |value: Value| life(array(json!({"token": "x", "expires": value})));
    assert_eq!(expires(json!(3600)), (3600.0, false));
    assert_eq!(expires(json!("3600")), (3600.0, false));
    assert_eq!(expires(json!(NOW_S + 3600)), (3600.0, true));
    assert_eq!(expires(json!((NOW_S + 3600) * 1000)), (3600.0, true), "milliseconds");
    assert_eq!(expires(json!("2026-11-23T10:00:30Z")), (30.0, true));
}

#[test]
fn iso_8601_is_read_with_z_with_an_offset_and_with_fractions() {
    for instant in [
        "2026-11-23T10:05:00Z",
        "2026-11-23T11:05:00+01:00",
        "2026-11-23T04:35:00-05:30",
        "2026-11-23T10:05:00.000Z",
        "20261123T100500Z",
    ] {
        let response = json!({"token": "x", "expires_at": instant});
        assert_eq!(life(array(response)), (300.0, true), "{instant}");
    }
}

#[test]
fn a_jwt_lives_from_iat_to_exp_also_where_this_hosts_clock_is_behind() {
    let ahead = json!({"iat": NOW_S + 7200, "exp": NOW_S + 7500});
    let token = text(&jwt(ahead)).unwrap();
    assert_eq!((seconds(&token), token.contradiction), (300.0, None));
    assert_eq!(life(text(&jwt(json!({"iat": NOW_S, "exp": NOW_S + 300})))), (300.0, false));
    let in_array = json!({"access_token": jwt(json!({"iat": NOW_S, "exp": NOW_S + 300}))});
    assert_eq!(life(array(in_array)), (300.0, false));
}

#[test]
fn a_jwt_without_iat_depends_on_this_hosts_clock_and_says_so() {
    assert_eq!(life(text(&jwt(json!({"exp": NOW_S + 300})))), (300.0, true));
}

#[test]
fn of_what_the_response_the_jwt_and_ttl_say_the_shortest_counts() {
    let told = options().ttl(30).unwrap();
    let token = jwt(json!({"iat": NOW_S, "exp": NOW_S + 300}));
    for (response, length, contradicted) in [
        (json!({"access_token": token, "expires_in": 60}), 60.0, true),
        (json!({"access_token": token, "expires_in": 299}), 299.0, false),
        (json!({"access_token": token, "expires_in": 3600}), 300.0, true),
        (json!({"access_token": token, "expires_in": 3_600_000}), 300.0, true),
        (json!({"access_token": "x", "expires_in": 3600, "expires_at": NOW_S + 60}), 60.0, true),
        (json!({"access_token": "x", "expires_in": 3600, "issued_at": NOW_S - 3000}), 600.0, true),
        (
            json!({"access_token": "x", "expires_in": 3600, "issued_at": NOW_S + 3000}),
            3600.0,
            false,
        ),
        (json!({"access_token": "x", "expires_in": 60, "expires_at": "whenever"}), 60.0, false),
        (json!({"access_token": "x", "expires_in": "soon", "expires": 60}), 60.0, false),
        (json!({"access_token": "x", "expires_in": 9e11, "expires": 60}), 60.0, false),
    ] {
        let read = array(response.clone()).unwrap();
        assert_eq!(
            (seconds(&read), read.contradiction.is_some()),
            (length, contradicted),
            "{response}"
        );
        let read = read_with(&told, Answer::Json(response)).unwrap();
        assert_eq!((seconds(&read), read.contradiction), (30.0, None), "the caller may want less");
    }
    let longer = options().ttl(7200).unwrap();
    let read = read_with(&longer, Answer::Json(json!({"token": "x", "expires_in": 60}))).unwrap();
    assert_eq!(seconds(&read), 60.0);
    let why =
        "\"expires_in\" says 60 s, and \"ttl\" says 7200 s; the shorter counts: check the unit";
    assert!(read.contradiction.is_some_and(|said| said.starts_with(why)));
    let broken = json!({"access_token": "x", "expires_in": "soon"});
    assert_eq!(life(read_with(&told, Answer::Json(broken))), (30.0, false));
}

/// How some issuers say that a token never ends.
#[test]
fn nothing_and_less_is_no_lifetime_and_ttl_is_the_way_out() {
    let told = options().ttl(600).unwrap();
    for ends in [json!({"expires_in": 0}), json!({"expires_in": -1}), json!({"expires_at": 0})] {
        let mut response = ends.clone();
        response["access_token"] = json!("x");
        let read = read_with(&told, Answer::Json(response.clone())).unwrap();
        assert_eq!((seconds(&read), read.contradiction), (600.0, None), "{ends}");
        let why = array(response).unwrap_err();
        assert!(why.contains("above zero: if it never ends, pass ['ttl' => seconds]"), "{why}");
    }
}

#[test]
fn an_issuers_words_are_shown_without_what_looks_like_a_secret() {
    for (response, words) in [
        (
            json!({"error": "invalid_grant", "error_description": "The refresh token 8xLOxBtZp8mN4kQ2 is expired"}),
            "it says: invalid_grant: The refresh token [removed] is expired",
        ),
        (json!({"error": [{"apikey": "ABCDEF"}], "message": "no"}), "it says: no"),
        (json!({"error": 17, "message": "no"}), "it says: 17: no"),
        (json!({"error": true}), "is an error, and it does not say why"),
    ] {
        let why = array(response).unwrap_err();
        assert!(why.ends_with(words), "{why}");
    }
}

/// Entra ID dates its tokens back by five minutes.
#[test]
fn a_jwt_that_is_dated_back_contradicts_nobody() {
    let token = jwt(json!({"iat": NOW_S - 300, "nbf": NOW_S - 300, "exp": NOW_S + 3599}));
    for (expires_in, length) in [(3599, 3599.0), (3602, 3599.0), (3596, 3596.0)] {
        let read = array(json!({"access_token": token, "expires_in": expires_in})).unwrap();
        assert_eq!((seconds(&read), read.contradiction), (length, None), "{expires_in}");
    }
    let read = array(json!({"access_token": token, "expires_in": 60})).unwrap();
    assert!(read.contradiction.is_some());
}

/// The issuer, or something before it, answers from a cache.
#[test]
fn of_a_jwt_that_was_issued_a_while_ago_what_is_left_counts() {
    let token = text(&jwt(json!({"iat": NOW_S - 3597, "exp": NOW_S + 3}))).unwrap();
    assert_eq!((seconds(&token), token.contradiction.is_some()), (3.0, true));
    for options in [options(), options().ttl(3600).unwrap()] {
        let dead = jwt(json!({"iat": NOW_S - 7200, "exp": NOW_S - 3600}));
        let why = read_with(&options, Answer::Text(dead.into_bytes())).unwrap_err();
        assert!(why.contains("\"exp\" was 3600 s ago"), "{why}");
    }
}

/// With `ttl` there is no other sign that it is one.
#[test]
fn a_text_is_a_token_when_it_is_made_as_one() {
    let told = options().ttl(60).unwrap();
    let read = |text: &str| read_with(&told, Answer::Text(text.as_bytes().to_vec()));
    for token in ["a", "A-Z.a_z~0+9/==", "eyJ.eyJ.x"] {
        assert_eq!(read(token).unwrap().value, token);
    }
    let mark = "\u{feff}{\"access_token\": \"T1\", \"expires_in\": 30}";
    assert_eq!((read(mark).unwrap().value.as_str(), seconds(&read(mark).unwrap())), ("T1", 30.0));
    assert_eq!(read("\u{feff}T1").unwrap().value, "T1");
    for (answer, words) in [
        ("upstream connect error or disconnect/reset before headers.", "has words in it"),
        (
            "error=bad_code&error_description=The+code+is+incorrect.",
            "it says: bad_code: The code is incorrect.",
        ),
        ("state=1&error=denied", "it says: denied"),
        ("[1]", "no object"),
        ("\"T1\"", "no object"),
        ("<html>", "markup"),
        ("a|b", "byte 1"),
        ("caf\u{e9}", "byte 3"),
        ("a=b", "byte 1"),
        ("==", "byte 0"),
        ("Bearer abc", "has words in it"),
    ] {
        let why = read(answer).unwrap_err();
        assert!(why.contains(words), "{answer}: {why}");
        assert!(why.len() <= MAX_REASON);
    }
    let opaque = read_with(&told.clone().opaque(true), Answer::Text(b"a|b c".to_vec()));
    assert_eq!(opaque.unwrap().value, "a|b c");
    assert!(read_with(&told.opaque(true), Answer::Text(b"a\nb".to_vec())).is_err());
}

#[test]
fn a_token_in_a_field_may_have_what_an_access_token_may() {
    let in_field = |token: &str| array(json!({"access_token": token, "expires_in": 60}));
    assert!(in_field("00Dx0!AR8AQP0j|{}").is_ok());
    for token in ["two words", "caf\u{e9}", "\u{1f511}"] {
        let why = in_field(token).unwrap_err();
        assert!(why.contains("['opaque' => true]"), "{why}");
        let response = json!({"access_token": token, "expires_in": 60});
        assert!(read_with(&options().opaque(true), Answer::Json(response)).is_ok());
    }
}

#[test]
fn an_issuers_error_is_told_in_its_own_words() {
    for (response, words) in [
        (
            json!({"error": "invalid_client", "error_description": "No such client"}),
            "it says: invalid_client: No such client",
        ),
        (json!({"error": "invalid_scope"}), "it says: invalid_scope"),
        (
            json!({"error": {"code": "Unauthorized", "message": "Expired key"}}),
            "it says: Unauthorized: Expired key",
        ),
        (json!({"error": true, "message": "no"}), "it says: no"),
        (json!({"error": "invalid_grant", "access_token": null}), "it says: invalid_grant"),
    ] {
        let why = array(response.clone()).unwrap_err();
        assert!(why.contains(words), "{response}: {why}");
    }
    for none in [json!(null), json!(false), json!(0), json!(""), json!([]), json!({})] {
        let response = json!({"error": none, "access_token": "x", "expires_in": 60});
        assert!(array(response).is_ok());
        assert!(array(json!({"error": none})).unwrap_err().contains("has no \"access_token\""));
    }
}

#[test]
fn an_opaque_string_needs_a_ttl() {
    assert!(text("opaque").unwrap_err().contains("['ttl' => seconds]"));
    let told = options().ttl(300).unwrap();
    let token = read_with(&told, Answer::Text(b"opaque".to_vec())).unwrap();
    assert_eq!((token.value.as_str(), seconds(&token)), ("opaque", 300.0));
}

#[test]
fn what_only_resembles_a_jwt_is_opaque() {
    for token in ["a.b.c", "eyJhIjoxfQ.eyJhIjoxfQ.c", "a.b.c.d.e", "a.~.c", ".."] {
        assert!(text(token).unwrap_err().contains("says no lifetime"), "{token}");
    }
    assert!(text(&jwt(json!({"exp": "tomorrow"}))).unwrap_err().contains("says no lifetime"));
}

#[test]
fn common_lifetimes_are_usable_renew_early_and_keep_a_margin() {
    for lifetime in [5, 30, 60, 120, 300, 3600] {
        let token = array(json!({"access_token": "x", "expires_in": lifetime})).unwrap();
        let t = token.timing;
        assert_eq!(t.minted_at, START, "counted from before the callable ran");
        assert!(START < t.refresh_at && t.refresh_at < t.usable_until, "{lifetime} s");
        assert!(t.usable_until < t.expires_at, "{lifetime} s");
        assert_eq!(token.margin_cut, lifetime < 300, "{lifetime} s");
    }
}

#[test]
fn fractions_of_a_second_are_rounded_down() {
    assert_eq!(life(array(json!({"token": "x", "expires_in": 59.9999}))), (59.999, false));
}

/// Every value in here that might be secret says so.
const SECRET: &str = "hunter2";

#[test]
fn a_lifetime_that_cannot_be_is_refused_by_the_name_of_its_field() {
    let past = NOW_S - 1;
    for (field, value) in [
        ("expires_in", json!(0)),
        ("expires_in", json!(-1)),
        ("expires_in", json!("0")),
        ("expires_in", json!("NAN")),
        ("expires_in", json!("INF")),
        ("expires_in", json!("1e999")),
        ("expires_in", json!("hunter2")),
        ("expires_in", json!("")),
        ("expires_in", json!(true)),
        ("expires_in", json!([SECRET])),
        ("expires_in", json!({"hunter2": 1})),
        ("expires_in", json!(315_360_001)),
        ("expires_in", json!(NOW_S)),
        ("expires_at", json!(past)),
        ("expires_at", json!(0)),
        ("expires_at", json!("2026-11-23T09:59:59Z")),
        ("expires_at", json!("2026-11-23T11:00:00")),
        ("expires_at", json!("2026-11-23")),
        ("expires_at", json!("2026-13-23T11:00:00Z")),
        ("expires_at", json!("11/23/2026 11:00:00 +00:00")),
        ("expires_at", json!(false)),
        ("expires_at", json!(NOW_S + 315_360_001)),
        ("expires_on", json!([])),
        ("expires_on", json!("hunter2")),
        ("expires", json!(-5)),
        ("expires", json!(past)),
        ("expires", json!(999_999_999)),
    ] {
        let sentence = array(json!({"access_token": SECRET, field: value})).unwrap_err();
        assert!(sentence.contains(&format!("\"{field}\"")), "{field}={value}: {sentence}");
        assert!(!sentence.contains(SECRET) && sentence.len() <= MAX_REASON, "{sentence}");
    }
    for claims in [json!({"iat": 300, "exp": 300}), json!({"exp": past})] {
        assert!(text(&jwt(claims)).unwrap_err().contains("\"exp\""));
    }
}

#[test]
fn null_is_the_same_as_absent() {
    let response = json!({"access_token": null, "token": "x", "expires_in": null, "expires": 60});
    assert_eq!(life(array(response)), (60.0, false));
}

#[test]
fn an_answer_without_a_usable_token_is_refused_in_words_that_show_none() {
    let in_field = |token: Value| array(json!({"access_token": token, "expires_in": 60}));
    for (answer, words) in [
        (array(json!(null)), "returned null"),
        (array(json!(false)), "returned a boolean"),
        (array(json!([SECRET])), "returned a list"),
        (array(json!({"fault": SECRET, "ghs_hunter2": 1})), "only fault;"),
        (array(json!({})), "other fields"),
        (in_field(json!(7)), "\"access_token\" is a number"),
        (in_field(json!([SECRET])), "is a list"),
        (in_field(json!("")), "empty"),
        (in_field(json!("hunter2\n")), "control character at byte 7"),
        (in_field(json!("hunter2\u{85}")), "control character"),
        (text(""), "empty"),
        (text("  "), "empty"),
        (text("{\"access_token\":\"hunter2\""), "not valid JSON"),
        (text("<html>502 Bad Gateway</html>"), "begins like markup"),
        (array(json!({"access_token": null, "expires_in": 60})), "\"access_token\" is null"),
        (text("access_token=hunter2&scope=&token_type=bearer"), "form-encoded"),
        (read_with(&options(), Answer::Text(b"hunter2\xff".to_vec())), "not valid UTF-8"),
        (object("hunter2\r\nX-Evil: 1", None), "control character"),
    ] {
        let sentence = answer.unwrap_err();
        assert!(sentence.contains(words), "{sentence}");
        assert!(!sentence.contains(SECRET) && sentence.len() <= MAX_REASON, "{sentence}");
    }
}

#[test]
fn a_token_is_never_kept_beside_itself() {
    for name in ["access_token", "token", "refresh_token", "id_token", "Refresh_Token"] {
        assert!(options().keep(vec!["scope".into(), name.into()]).unwrap_err().contains(name));
    }
    let keep = options().keep(vec!["bearer".into(), "scope".into()]).unwrap();
    let response = json!({"token": "x", "expires_in": 60, "bearer": "x", "scope": ["a"]});
    let token = read_with(&keep, Answer::Json(response)).unwrap();
    assert_eq!(Value::Object(token.kept), json!({"scope": ["a"]}));
    for hiding in [
        json!({"inner": {"token": "hunter2 \"quoted\""}}),
        json!(["a", "hunter2 \"quoted\""]),
        json!("https://crm.example/?access_token=hunter2 \"quoted\"&x=1"),
        json!({"hunter2 \"quoted\"": 1}),
    ] {
        let token = "hunter2 \"quoted\"";
        let response = json!({"token": token, "expires_in": 60, "bearer": hiding, "scope": "a"});
        let token = read_with(&keep.clone().opaque(true), Answer::Json(response)).unwrap();
        assert_eq!(Value::Object(token.kept), json!({"scope": "a"}));
    }
    for (token, scope) in [("x", json!(["x"])), ("12345678", json!(12345678))] {
        let response = json!({"token": token, "expires_in": 60, "bearer": "xy", "scope": scope});
        let token = read_with(&keep, Answer::Json(response)).unwrap();
        assert_eq!(
            Value::Object(token.kept),
            json!({"bearer": "xy"}),
            "a short one counts as a whole"
        );
    }
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    for ttl in [0, -1, 315_360_001, i64::MIN] {
        assert!(options().ttl(ttl).unwrap_err().contains("'ttl'"));
    }
    for margin in [-1, 86_401] {
        assert!(options().margin(margin).unwrap_err().contains("'margin'"));
    }
    for ratio in [0.0, 1.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(options().refresh_ratio(ratio).unwrap_err().contains("'refresh_ratio'"));
    }
    let chosen = options().margin(10).unwrap().refresh_ratio(0.5).unwrap();
    let t = read_with(&chosen, Answer::Json(json!({"token": "x", "expires_in": 110}))).unwrap();
    assert_eq!(START.millis_until(t.timing.refresh_at), 50_000);
}

#[test]
fn debug_of_a_token_never_shows_it() {
    let token = array(json!({"token": SECRET, "expires_in": 60})).unwrap();
    assert!(!format!("{token:?}").contains(SECRET));
}

proptest! {
    #[test]
    fn a_text_that_is_refused_is_not_shown(answer in "\\PC{12,60}") {
        prop_assert!(!text(&answer).unwrap_err().contains(&answer));
    }
}
