//! Rate sheets by HTTP: a [`Fetch`] whose whole work ends by one deadline.
//!
//! - The server proves its name, and redirects lead to the same host or nowhere: an app id is
//!   sent to nobody else, and a captive portal's answer is no sheet.
//! - The deadline counts for names, proxy, TLS, redirects and body together: a server that drips
//!   bytes cannot exceed it. The body is limited, and never compressed: a sheet has 5 KB, and a
//!   decompressor is one more thing that a hostile answer can feed.
//! - Nothing is kept between two calls: no connection that a forked child could inherit, no list
//!   of authorities that was replaced meanwhile.
//!
//! A failure is a sentence that names the host. Never the rest of the address, an app id, or what
//! the answer held.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use rustls::crypto::ring;
use ureq::config::Config;
use ureq::http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderName, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, LAST_MODIFIED, LOCATION, RETRY_AFTER,
};
use ureq::http::{HeaderMap, HeaderValue, Response, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::typestate::WithoutBody;
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body, ProxyProtocol, RequestBuilder};
use zeroize::Zeroizing;

use crate::clock::{Uptime, system};
use crate::error::{REMOVED, redact};
use crate::fault;
use crate::fx::{Feed, Fetch, FetchError, Fetched, MAX_DOCUMENT, Source, Validators};
use crate::process::SignalsHeld;
use crate::resolve::Resolver;
use crate::{secret, trust};

mod failure;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod names;
mod proxy;
mod redirect;
mod retry;

pub use proxy::{Proxies, VARIABLES};

/// Enough for any source, and for any proxy before it.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// A moved address takes one or two; more is a loop.
const MAX_REDIRECTS: u32 = 3;

/// A longer validator is not worth its place in the store.
const MAX_VALIDATOR: usize = 256;

pub struct HttpFetch {
    timeout: Duration,
    proxies: Proxies,
    /// `None`: those that the system trusts.
    authorities: Option<PathBuf>,
    resolver: Resolver,
    defaults: Config,
}

impl HttpFetch {
    /// Each fetch ends within `timeout`. A file of `authorities` stands in for the system's. One for
    /// the process: it bounds how many threads a dead resolver can hold. ureq looks at the
    /// environment here, though what it finds is not used, and never again: PHP may change it then.
    pub fn new(timeout: Duration, proxies: Proxies, authorities: Option<PathBuf>) -> Self {
        let defaults = Config::builder()
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .max_idle_connections(0)
            .user_agent(concat!("sharedstate/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .build();
        Self { timeout, proxies, authorities, resolver: Resolver::default(), defaults }
    }

    fn ask(
        &self,
        source: &Source,
        known: &Validators,
        within: Duration,
    ) -> Result<Fetched, FetchError> {
        let call = Call {
            fetch: self,
            source,
            known,
            app_id: app_id(source)?,
            deadline: system::monotonic().plus(within.min(self.timeout)),
        };
        let host = source.host();
        let mut uri: Uri = source
            .address()
            .parse()
            .map_err(|_| failed(format!("the address of {host} is malformed: correct it")))?;
        for _ in 0..=MAX_REDIRECTS {
            let response = call.get(&uri)?;
            match response.status().as_u16() {
                200 => return call.sheet(response),
                304 if *known != Validators::default() => return Ok(Fetched::NotModified),
                301 | 302 | 303 | 307 | 308 => {
                    let location = response.headers().get(LOCATION);
                    uri = redirect::target(&uri, location)
                        .map_err(|why| failed(format!("{host} {why}")))?;
                }
                status => {
                    let (parts, mut body) = response.into_parts();
                    let body = body.with_config().limit(MAX_REFUSAL).read_to_vec();
                    return Err(call.refused(status, &parts.headers, &body.unwrap_or_default()));
                }
            }
        }
        Err(failed(format!(
            "{host} redirects more than {MAX_REDIRECTS} times: correct its address"
        )))
    }

    fn request(&self, uri: &Uri, time: Duration) -> Result<RequestBuilder<WithoutBody>, String> {
        let proxy = self.proxies.to(uri);
        let secure = uri.scheme_str() == Some("https")
            || proxy.is_some_and(|proxy| proxy.protocol() == ProxyProtocol::Https);
        let mut authorities = Vec::new();
        if secure {
            let known = trust::certificates(&self.authorities()?);
            for certificate in known.map_err(|error| error.to_string())? {
                authorities.push(Certificate::from_der(&certificate).to_owned());
            }
        }
        let tls = TlsConfig::builder()
            // Named: looking for the process's default one panics without it.
            .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
            .root_certs(RootCerts::Specific(Arc::new(authorities)))
            .build();
        let names = names::Names(self.resolver.clone());
        let agent = Agent::with_parts(self.defaults.clone(), DefaultConnector::default(), names);
        let request = agent.get(uri.clone()).config();
        Ok(request.tls_config(tls).proxy(proxy.cloned()).timeout_global(Some(time)).build())
    }

    fn authorities(&self) -> Result<PathBuf, String> {
        trust::authorities(self.authorities.as_deref(), "").map_err(|error| error.to_string())
    }
}

impl Fetch for HttpFetch {
    fn ready(&self, source: &Source) -> Result<(), FetchError> {
        app_id(source).map(drop)
    }

    /// Blocks for as long as the timeout at most.
    fn fetch(
        &self,
        source: &Source,
        known: &Validators,
        within: Duration,
    ) -> Result<Fetched, FetchError> {
        // A thread that resolves a name inherits the mask.
        let _held = SignalsHeld::hold();
        self.ask(source, known, within)
    }
}

/// One fetch, over all redirects.
struct Call<'a> {
    fetch: &'a HttpFetch,
    source: &'a Source,
    known: &'a Validators,
    app_id: Option<HeaderValue>,
    deadline: Uptime,
}

impl Call<'_> {
    fn get(&self, uri: &Uri) -> Result<Response<Body>, FetchError> {
        let left = system::monotonic().until(self.deadline);
        if left.is_zero() {
            return Err(self.lost(ureq::Error::Timeout(ureq::Timeout::Global)));
        }
        let accepted = match self.source.feed() {
            Feed::Ecb => "application/xml, text/xml;q=0.9",
            Feed::OpenExchangeRates | Feed::Json => "application/json",
        };
        let request = self.fetch.request(uri, left).map_err(failed)?;
        let mut request = request.header(ACCEPT, accepted);
        let known =
            [(IF_NONE_MATCH, &self.known.etag), (IF_MODIFIED_SINCE, &self.known.last_modified)];
        for (name, value) in known {
            // What is no header's value came from no header, and is not sent.
            if let Some(Ok(value)) = value.as_deref().map(HeaderValue::from_str) {
                request = request.header(name, value);
            }
        }
        if let Some(app_id) = &self.app_id {
            request = request.header(AUTHORIZATION, app_id.clone());
        }
        request.call().map_err(|error| self.lost(error))
    }

    fn sheet(&self, mut response: Response<Body>) -> Result<Fetched, FetchError> {
        let headers = response.headers();
        self.expected(headers)?;
        let validators = Validators {
            etag: validator(headers, ETAG),
            last_modified: validator(headers, LAST_MODIFIED),
        };
        // ureq refuses the byte after the limit, and an end there too.
        let limit = MAX_DOCUMENT as u64 + 1;
        let body = response.body_mut().with_config().limit(limit).read_to_vec();
        let body = body.map_err(|error| self.lost(error))?;
        let sheet = self.source.read(&body);
        let sheet = sheet.map_err(|why| {
            failed(format!("{}: {}", self.source.host(), self.without_own_secrets(why)))
        })?;
        Ok(Fetched::Sheet { sheet, validators })
    }

    /// A portal, a login page or an error in place of the document is named as what it is. Servers
    /// that do not know what a file holds may say nothing, or that it is text or just bytes.
    fn expected(&self, headers: &HeaderMap) -> Result<(), FetchError> {
        let host = self.source.host();
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        if let Some(encoding) = text(CONTENT_ENCODING).filter(|given| *given != "identity") {
            let encoding: String = encoding.chars().take(20).collect();
            return Err(failed(format!(
                "{host} compressed its answer ({encoding:?}) without being asked"
            )));
        }
        let given = text(CONTENT_TYPE).unwrap_or("text/plain");
        let kind = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let wanted = if self.source.feed() == Feed::Ecb { "xml" } else { "json" };
        let wanted_kind = kind.ends_with(wanted) && !kind.contains("html");
        if wanted_kind || kind == "text/plain" || kind == "application/octet-stream" {
            return Ok(());
        }
        let kind: String = kind.chars().take(40).collect();
        Err(failed(format!(
            "{host} answered with {kind:?}, expected {wanted}: check its address, and what stands \
             before it"
        )))
    }

    fn refused(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> FetchError {
        let words = self.own_words(body);
        let retry_after = headers
            .get(RETRY_AFTER)
            .filter(|_| matches!(status, 429 | 503))
            .and_then(|value| retry::after(value.to_str().ok()?, system::wall()));
        let advice = match (status, self.source.app_id_file()) {
            (401 | 403, Some(file)) => format!(": check the app id in {}", file.display()),
            (401 | 403 | 404 | 410, _) => ": check its address".into(),
            (429, _) => ": it is asked too often".into(),
            _ => String::new(),
        };
        let host = self.source.host();
        FetchError { retry_after, ..failed(format!("{host} answered {status}{words}{advice}")) }
    }

    /// What the provider says besides the status.
    fn own_words(&self, body: &[u8]) -> String {
        let words = serde_json::from_slice(body).ok().as_ref().and_then(fault::of);
        words.map_or_else(String::new, |words| format!(", {}", self.without_own_secrets(words)))
    }

    /// Some say back what was asked.
    fn without_own_secrets(&self, words: String) -> String {
        /// Shorter ones are words, and no key.
        const SHORTEST: usize = 6;
        let query = self.source.address().split_once('?').map_or("", |(_, query)| query);
        let given = query.split('&').filter_map(|pair| pair.split_once('=').map(|(_, it)| it));
        let app_id = self.app_id.as_ref().and_then(|value| value.to_str().ok()?.split_once(' '));
        let given = given.chain(app_id.map(|(_, id)| id)).filter(|it| it.len() >= SHORTEST);
        given.fold(words, |words, secret| {
            let decoded =
                percent_decode_str(&secret.replace('+', " ")).decode_utf8_lossy().into_owned();
            words.replace(secret, REMOVED).replace(&decoded, REMOVED)
        })
    }

    fn lost(&self, error: ureq::Error) -> FetchError {
        let authorities = self.fetch.authorities().unwrap_or_default();
        let why = failure::told(error, self.fetch.timeout, &authorities);
        let address = self.source.address().parse();
        let proxied = address.is_ok_and(|uri| self.fetch.proxies.to(&uri).is_some());
        let by = if proxied { " by way of the proxy" } else { "" };
        failed(format!("{}{by} {why}", self.source.host()))
    }
}

fn failed(sentence: impl AsRef<str>) -> FetchError {
    FetchError { reason: redact(sentence.as_ref()), retry_after: None }
}

fn validator(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    (1..=MAX_VALIDATOR).contains(&value.len()).then(|| value.to_owned())
}

/// What is read of an answer that is no sheet, for its words.
const MAX_REFUSAL: u64 = 16 << 10;

/// What authorizes us, as Open Exchange Rates documents it: in a header, where no log of addresses
/// has it.
fn app_id(source: &Source) -> Result<Option<HeaderValue>, FetchError> {
    let Some(path) = source.app_id_file() else { return Ok(None) };
    let id = read_app_id(path)
        .map_err(|error| failed(format!("{} cannot be read: {error}", path.display())))?;
    let id = secret::bare(std::str::from_utf8(&id).unwrap_or_default()).trim();
    let sound = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic());
    let value = Zeroizing::new(format!("Token {id}"));
    let mut value = HeaderValue::from_str(&value).ok().filter(|_| sound).ok_or_else(|| {
        let path = path.display();
        failed(format!("{path} does not hold what it should: expected an app id and nothing else"))
    })?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn read_app_id(path: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    /// An app id has 32 characters. A buffer that grows would leave copies behind.
    const LONGEST: usize = 1024;
    let mut id = Zeroizing::new(Vec::with_capacity(LONGEST));
    File::open(path)?.take(LONGEST as u64).read_to_end(&mut id)?;
    Ok(id)
}

#[cfg(test)]
mod tests;
