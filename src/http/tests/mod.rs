//! Against real servers on this host: each test's own.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use super::*;
use crate::fx::{Sheet, parse_list};
use crate::lock::Mutex;
use crate::store::MAX_REASON;

mod answers;
mod network;
mod tls;

pub(super) const DAILY: &str = include_str!("../../fx/testdata/eurofxref-daily.xml");
pub(super) const LATEST: &str = r#"{"disclaimer":"x","license":"x","timestamp":1793369700,
    "base":"USD","rates":{"EUR":0.895095,"GBP":0.746330,"JPY":157.250268}}"#;

/// No test about something else fails because the machine is busy.
pub(super) const PATIENT: Duration = Duration::from_secs(20);
/// For those in which nothing comes.
pub(super) const SHORT: Duration = Duration::from_secs(1);

pub(super) struct Site {
    pub port: u16,
    /// All requests so far, from the first line to the empty one.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Site {
    /// Hears a request, answers it, hangs up; until the process ends.
    pub fn start(answer: impl Fn(&str, &mut TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let site = Self { port: listener.local_addr().unwrap().port(), asked: Arc::default() };
        let asked = site.asked.clone();
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let request = heard(&stream);
                asked.lock().push(request.clone());
                answer(&request, &mut stream);
            }
        });
        site
    }

    /// Answers every request with the same.
    pub fn saying(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |_, stream| {
            let _ = stream.write_all(&answer);
        })
    }

    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }

    pub fn at(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn fetch(&self, feed: &str, known: &Validators) -> Result<Fetched, FetchError> {
        patient().fetch(
            &source(&format!("{feed}:{}", self.at("/rates?key=s3cret"))),
            known,
            TIMEOUT,
        )
    }

    pub fn sheet(&self, feed: &str) -> Result<Sheet, FetchError> {
        match self.fetch(feed, &Validators::default())? {
            Fetched::Sheet { sheet, .. } => Ok(sheet),
            Fetched::NotModified => panic!("there was nothing to modify"),
        }
    }

    #[track_caller]
    pub fn refused(&self, feed: &str, words: &str) -> FetchError {
        let error = self.sheet(feed).expect_err(words);
        says(&error, words);
        error
    }
}

fn heard(stream: &TcpStream) -> String {
    let mut request = String::new();
    let mut reader = BufReader::new(stream);
    while !request.ends_with("\r\n\r\n") && reader.read_line(&mut request).is_ok_and(|n| n > 0) {}
    request
}

pub(super) fn patient() -> HttpFetch {
    HttpFetch::new(PATIENT, Proxies::default(), None)
}

pub(super) fn source(word: &str) -> Source {
    parse_list(word, None).unwrap().remove(0)
}

pub(super) fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

pub(super) fn json(body: &[u8]) -> Vec<u8> {
    answer("200 OK", "Content-Type: application/json; charset=utf-8\r\n", body)
}

pub(super) fn xml(body: &[u8]) -> Vec<u8> {
    answer("200 OK", "Content-Type: text/xml\r\n", body)
}

/// Each reason is fit to be shown: it has passed what others will pass it through again, and
/// nothing of an address but the host is in it.
#[track_caller]
pub(super) fn says(error: &FetchError, words: &str) {
    let reason = &error.reason;
    assert!(reason.contains(words), "{words} in: {reason}");
    assert!(reason.contains("127.0.0.1:") || reason.contains("localhost"), "{reason}");
    assert_eq!(redact(reason), *reason);
    assert!(reason.len() < MAX_REASON, "cut: {reason}");
    for secret in ["s3cret", "/rates", "key="] {
        assert!(!reason.contains(secret), "{reason}");
    }
}

pub(super) fn timed<T>(act: impl FnOnce() -> T) -> (T, Duration) {
    let before = system::monotonic();
    let done = act();
    (done, before.until(system::monotonic()))
}
