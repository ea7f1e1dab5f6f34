//! The proxy before a source, as the environment names it, by the rules of curl.
//!
//! - `HTTP_PROXY` in capitals is not read: under CGI it is a header of the visitor's request.
//! - `NO_PROXY` names hosts, and with each all below it.
//!
//! An address of a proxy may hold a password: nothing here shows one.

use ureq::http::Uri;
use ureq::{Proxy, ProxyProtocol};

const HTTPS: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
const HTTP: [&str; 3] = ["http_proxy", "all_proxy", "ALL_PROXY"];
const NONE: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// All that [`Proxies::from_env`] asks for.
pub const VARIABLES: [&str; 7] =
    ["http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"];

/// By default, none.
#[derive(Clone, Default)]
pub struct Proxies {
    https: Option<Proxy>,
    http: Option<Proxy>,
    except: Vec<String>,
}

impl Proxies {
    /// What `env` says of each of [`VARIABLES`]. `Err` is the sentence of a `ConfigError`: going
    /// around a proxy that was asked for would be worse.
    pub fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let filled = |name: &str| env(name).filter(|value| !value.trim().is_empty());
        let proxy = |names: &[&str]| {
            let given = names.iter().find_map(|name| Some((*name, filled(name)?)));
            given.map(|(name, value)| parse(name, value.trim())).transpose()
        };
        let except = NONE.iter().find_map(|name| filled(name)).unwrap_or_default();
        let except = except.split(',').map(entry).filter(|entry| !entry.is_empty()).collect();
        Ok(Self { https: proxy(&HTTPS)?, http: proxy(&HTTP)?, except })
    }

    /// The one on the way to `uri`.
    pub(super) fn to(&self, uri: &Uri) -> Option<&Proxy> {
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        let beside = |entry: &String| {
            let above = host.strip_suffix(entry.as_str());
            entry == "*" || above.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let proxy = if uri.scheme_str() == Some("https") { &self.https } else { &self.http };
        proxy.as_ref().filter(|_| !self.except.iter().any(beside))
    }
}

fn parse(name: &str, value: &str) -> Result<Proxy, String> {
    let proxy = Proxy::new(value).ok();
    // The others would be passed over without a word.
    let known =
        |proxy: &Proxy| matches!(proxy.protocol(), ProxyProtocol::Http | ProxyProtocol::Https);
    proxy.filter(known).ok_or_else(|| {
        format!(
            "{name} in the environment is no address of an HTTP proxy, expected http://host:port"
        )
    })
}

/// `.example.com` and `*.example.com` mean what `example.com` does.
fn entry(text: &str) -> String {
    let text = text.trim().to_ascii_lowercase();
    if text == "*" {
        return text;
    }
    text.trim_start_matches('*').trim_start_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(env: &[(&str, &str)]) -> Result<Proxies, String> {
        Proxies::from_env(&|name| {
            assert!(VARIABLES.contains(&name), "{name} is not announced");
            env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn on_the_way(env: &[(&str, &str)], uri: &'static str) -> Option<String> {
        let proxies = proxies(env).unwrap();
        let proxy = proxies.to(&Uri::from_static(uri))?;
        Some(format!("{}:{}", proxy.host(), proxy.port()))
    }

    #[test]
    fn each_scheme_has_its_variable_and_small_letters_come_first() {
        let env = [
            ("http_proxy", "http://plain:1"),
            ("https_proxy", "http://small:2"),
            ("HTTPS_PROXY", "http://large:3"),
            ("all_proxy", "other:4"),
        ];
        assert_eq!(on_the_way(&env, "https://a.example/").unwrap(), "small:2");
        assert_eq!(on_the_way(&env[2..], "https://a.example/").unwrap(), "large:3");
        assert_eq!(on_the_way(&env, "http://a.example/").unwrap(), "plain:1");
        assert_eq!(on_the_way(&env[3..], "http://a.example/").unwrap(), "other:4");
        assert_eq!(on_the_way(&[], "https://a.example/"), None);
        assert_eq!(on_the_way(&[("https_proxy", " ")], "https://a.example/"), None);
    }

    #[test]
    fn a_header_of_a_visitor_is_no_proxy() {
        assert_eq!(on_the_way(&[("HTTP_PROXY", "http://evil:1")], "http://a.example/"), None);
    }

    #[test]
    fn a_host_of_no_proxy_is_spoken_to_directly_and_so_is_all_below_it() {
        for (except, direct) in [
            ("a.example", true),
            ("example", true),
            (" .example , b", true),
            ("*.example", true),
            ("*", true),
            ("A.EXAMPLE", true),
            ("b.a.example", false),
            ("xample", false),
            ("", false),
            (",", false),
        ] {
            let env = [("https_proxy", "http://p:1"), ("no_proxy", except)];
            assert_eq!(on_the_way(&env, "https://a.example/").is_none(), direct, "{except:?}");
        }
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_refused_without_its_password() {
        for value in ["socks5://u:hunter2@p:1", "ftp://u:hunter2@p", "http://u:hunter2@", "a b"] {
            let sentence = proxies(&[("HTTPS_PROXY", value)]).err().expect(value);
            assert!(sentence.starts_with("HTTPS_PROXY in the environment"), "{sentence}");
            assert!(!sentence.contains("hunter2"), "{sentence}");
        }
    }
}
