//! Servers that are slow, broken, endless or absent.

use super::*;
use crate::clock::system;

#[test]
fn a_body_that_ends_early_is_refused() {
    let whole = json(LATEST.as_bytes());
    let cut = whole[..whole.len() - 10].to_vec();
    Site::saying(cut).refused("json", "closed the connection before its answer was complete");
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/xml\r\n\r\n";
    let chunk = format!("{head}{:x}\r\n{DAILY}\r\n", DAILY.len());
    Site::saying(chunk.clone()).refused("ecb", "before its answer was complete");
    assert!(Site::saying(format!("{chunk}0\r\n\r\n")).sheet("ecb").is_ok());
    // Without a length only the document says where it ends.
    let head = "HTTP/1.0 200 OK\r\nContent-Type: text/xml\r\n\r\n";
    let cut = &DAILY[..DAILY.rfind("<Cube currency").unwrap()];
    Site::saying(format!("{head}{cut}")).refused("ecb", "incomplete");
    assert!(Site::saying(format!("{head}{DAILY}")).sheet("ecb").is_ok());
}

#[test]
fn a_body_without_an_end_is_left_at_the_limit() {
    const SENT: usize = 10 * 1024 * 1024;
    let taken = Arc::new(Mutex::new(0));
    for head in [
        format!("HTTP/1.1 200 OK\r\nContent-Length: {SENT}\r\n\r\n"),
        "HTTP/1.1 200 OK\r\n\r\n".into(),
    ] {
        let counted = taken.clone();
        let site = Site::start(move |_, stream| {
            let _ = stream.write_all(head.as_bytes());
            let block = [b' '; 16 * 1024];
            let sent = (0..SENT / block.len()).take_while(|_| stream.write_all(&block).is_ok());
            *counted.lock() = sent.count() * block.len();
        });
        let (_, took) = timed(|| site.refused("json", "sends more than 1048576 bytes"));
        assert!(took < PATIENT / 2, "{took:?}");
        // The next request is heard when the answer to this one has ended.
        let _ = TcpStream::connect(("127.0.0.1", site.port)).unwrap().write_all(b"\r\n\r\n");
        let give_up = system::monotonic().plus(PATIENT);
        while site.asked().len() < 2 {
            assert!(system::monotonic() < give_up, "the answer has no end");
            thread::sleep(Duration::from_millis(5));
        }
        let sent = *taken.lock();
        assert!(sent < SENT, "{sent} bytes, and the buffers of two sockets are no 9 MB");
    }
}

#[test]
fn a_sheet_of_exactly_the_limit_is_read() {
    for (length, fits) in [(MAX_DOCUMENT, true), (MAX_DOCUMENT + 1, false)] {
        let body = LATEST.to_owned() + &" ".repeat(length - LATEST.len());
        assert_eq!(Site::saying(json(body.as_bytes())).sheet("json").is_ok(), fits, "{length}");
    }
}

#[test]
fn headers_without_an_end_are_refused() {
    let site = Site::start(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream.write_all(b"X-Header: s3cret s3cret s3cret s3cret\r\n").is_ok() {}
    });
    let (error, took) = timed(|| site.sheet("json").unwrap_err());
    says(&error, "");
    assert!(took < PATIENT, "{took:?}");
}

#[test]
fn what_is_no_http_is_refused_in_words() {
    for said in ["SSH-2.0-OpenSSH_9.2 s3cret\r\n\r\n", "-ERR unknown command\r\n\r\n", "\0\0\0\0"] {
        says(&Site::saying(said).sheet("json").unwrap_err(), "");
    }
    Site::saying("").refused("json", "closed the connection before its answer was complete");
}

#[test]
fn the_deadline_holds_for_a_server_that_drips_and_for_one_that_says_nothing() {
    let drip = |from: usize| {
        move |_: &str, stream: &mut TcpStream| {
            let whole = json(LATEST.as_bytes());
            let _ = stream.write_all(&whole[..from]);
            for byte in &whole[from..] {
                thread::sleep(Duration::from_millis(50));
                if stream.write_all(&[*byte]).is_err() {
                    return;
                }
            }
        }
    };
    let head = json(LATEST.as_bytes()).len() - LATEST.len();
    // What a redirect took is not given back to the next request: they would end by their number.
    let redirect = |_: &str, stream: &mut TcpStream| {
        thread::sleep(SHORT * 2 / 3);
        let _ = stream.write_all(&answer("302 Found", "Location: /next\r\n", b""));
    };
    let silent = |_: &str, stream: &mut TcpStream| drop(stream.read_to_end(&mut Vec::new()));
    for site in
        [Site::start(drip(0)), Site::start(drip(head)), Site::start(redirect), Site::start(silent)]
    {
        let source = source(&format!("json:{}", site.at("/rates")));
        let impatient = HttpFetch::new(SHORT, Proxies::default(), None);
        let (result, took) = timed(|| impatient.fetch(&source, &Validators::default(), TIMEOUT));
        says(&result.unwrap_err(), "did not answer in full within 1.0 s");
        assert!(took >= SHORT - Duration::from_millis(20) && took < SHORT * 5, "{took:?}");
    }
}

#[test]
fn a_closed_port_and_an_unknown_name_are_told_apart() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let closed = source(&format!("json:http://127.0.0.1:{free}/rates?key=s3cret"));
    let error = patient().fetch(&closed, &Validators::default(), TIMEOUT).unwrap_err();
    says(&error, "cannot be reached: Connection refused");
    let unknown = source("json:http://nowhere.localhost.invalid:1/rates");
    let reason = patient().fetch(&unknown, &Validators::default(), TIMEOUT).unwrap_err().reason;
    assert!(reason.starts_with("nowhere.localhost.invalid:1 "), "{reason}");
    assert!(reason.contains("its name has no address") || reason.contains("within"), "{reason}");
}

#[test]
fn a_host_is_found_by_its_name() {
    let site = Site::saying(json(LATEST.as_bytes()));
    let named = source(&format!("json:http://localhost:{}/rates", site.port));
    assert!(patient().fetch(&named, &Validators::default(), TIMEOUT).is_ok());
}

/// A proxy that connects to wherever it is told to, in the clear.
pub(super) fn proxy() -> Site {
    Site::start(|request, stream| {
        let to = request.split(' ').nth(1).unwrap_or_default();
        let Ok(mut beyond) = TcpStream::connect(to) else {
            let _ = stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\ns3cret");
            return;
        };
        let _ = stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n");
        let (mut from, mut into) = (stream.try_clone().unwrap(), beyond.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut from, &mut into));
        let _ = std::io::copy(&mut beyond, stream);
        let _ = stream.shutdown(std::net::Shutdown::Both);
    })
}

fn by_way_of(proxy: &Site, site: &Site, except: &str) -> Result<Fetched, FetchError> {
    let address = format!("http://user:s3cret@127.0.0.1:{}", proxy.port);
    let proxies = Proxies::from_env(&|name| match name {
        "http_proxy" => Some(address.clone()),
        "no_proxy" => Some(except.into()),
        _ => None,
    });
    let fetch = HttpFetch::new(PATIENT, proxies.unwrap(), None);
    fetch.fetch(&source(&format!("json:{}", site.at("/rates"))), &Validators::default(), TIMEOUT)
}

#[test]
fn a_proxy_of_the_environment_is_asked_unless_the_host_is_excepted() {
    let (proxy, site) = (proxy(), Site::saying(json(LATEST.as_bytes())));
    assert!(by_way_of(&proxy, &site, "").is_ok());
    assert!(proxy.asked()[0].starts_with(&format!("CONNECT 127.0.0.1:{} ", site.port)));
    assert!(by_way_of(&proxy, &site, "127.0.0.1").is_ok());
    assert_eq!((proxy.asked().len(), site.asked().len()), (1, 2));
}

#[test]
fn a_proxy_that_refuses_is_named_as_the_one_who_did_and_its_password_is_not_shown() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let closed = Site { port: free, asked: Arc::default() };
    let error = by_way_of(&proxy(), &closed, "").unwrap_err();
    says(&error, "by way of the proxy cannot be reached: the proxy does not connect to it");
    let site = Site::saying(json(LATEST.as_bytes()));
    let error = by_way_of(&closed, &site, "").unwrap_err();
    says(&error, "by way of the proxy cannot be reached: Connection refused");
}
