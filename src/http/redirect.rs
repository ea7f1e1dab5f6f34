//! Where a redirect may lead: to the same host, and never out of TLS.

use ureq::http::{HeaderValue, Uri};

/// `Err` is the end of a sentence that begins with the host.
pub(super) fn target(from: &Uri, location: Option<&HeaderValue>) -> Result<Uri, String> {
    let location = location.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let to =
        resolved(from, location).ok_or("redirects without saying where to: correct its address")?;
    let secure = |uri: &Uri| uri.scheme_str() == Some("https");
    if secure(from) && !secure(&to) {
        return Err("redirects out of TLS, which is not followed: correct its address".into());
    }
    let (old, new) = (place(from), place(&to));
    // The usual way into TLS is the only change of a port.
    let into_tls = old.1 == 80 && new.1 == 443 && !secure(from) && secure(&to);
    if old.0 != new.0 || (old.1 != new.1 && !into_tls) {
        return Err(format!(
            "redirects to {}:{}, which is not followed: use that address if it is right",
            new.0.chars().take(60).collect::<String>(),
            new.1
        ));
    }
    Ok(to)
}

fn place(uri: &Uri) -> (String, u16) {
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    (uri.host().unwrap_or_default().to_ascii_lowercase(), port)
}

/// A reference as RFC 3986 has it, but for `..` and a query alone, which no server needs here.
fn resolved(from: &Uri, location: &str) -> Option<Uri> {
    if location.is_empty() {
        return None;
    }
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    let lower = location.to_ascii_lowercase();
    let address = if lower.starts_with("http://") || lower.starts_with("https://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.split(['/', '?', '#']).next().is_some_and(|part| part.contains(':')) {
        // Another scheme.
        return None;
    } else {
        let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let to: Uri = address.parse().ok()?;
    // User info in a redirect is how a host is made to look like another.
    to.authority().is_some_and(|authority| !authority.as_str().contains('@')).then_some(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirected(from: &'static str, location: &str) -> Result<String, String> {
        let location = HeaderValue::from_str(location).unwrap();
        target(&Uri::from_static(from), Some(&location)).map(|uri| uri.to_string())
    }

    #[test]
    fn a_redirect_within_the_host_is_followed_in_each_form() {
        for (from, location, to) in [
            ("https://a.example/x/y", "/z?q=1", "https://a.example/z?q=1"),
            ("https://a.example/x/y", "z", "https://a.example/x/z"),
            ("https://a.example", "z", "https://a.example/z"),
            ("https://a.example/x", "//A.example/z", "https://A.example/z"),
            ("https://a.example/x", "https://a.example:443/z", "https://a.example:443/z"),
            ("http://a.example/x", "https://a.example/x", "https://a.example/x"),
            ("http://a.example:8080/x", "/z#f", "http://a.example:8080/z"),
        ] {
            assert_eq!(redirected(from, location).as_deref(), Ok(to), "{from} {location}");
        }
    }

    #[test]
    fn a_redirect_to_elsewhere_is_refused() {
        for (from, location, words) in [
            ("https://a.example/x", "https://b.example/x?key=s3cret", "to b.example:443"),
            ("https://a.example/x", "//b.example/x", "to b.example:443"),
            ("https://a.example/x", "https://sub.a.example/x", "to sub.a.example:443"),
            ("https://a.example/x", "https://a.example:8443/x", "to a.example:8443"),
            ("http://a.example:8080/x", "https://a.example/x", "to a.example:443"),
            ("https://a.example/x", "http://a.example/x", "out of TLS"),
            ("https://a.example/x", "http://a.example:443/x", "out of TLS"),
            ("https://a.example/x", "https://a.example@b.example/x", "without saying where"),
            ("https://a.example/x", "file:///etc/passwd", "without saying where"),
            ("https://a.example/x", "", "without saying where"),
            ("https://a.example/x", "https://", "without saying where"),
        ] {
            let why = redirected(from, location).unwrap_err();
            assert!(why.contains(words), "{location}: {why}");
            assert!(!why.contains("s3cret"), "{why}");
        }
        let from = Uri::from_static("https://a.example/x");
        assert!(target(&from, None).is_err());
        assert!(target(&from, Some(&HeaderValue::from_bytes(b"/\xff").unwrap())).is_err());
    }
}
