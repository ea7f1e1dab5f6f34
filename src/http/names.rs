//! Names as this crate resolves them, for ureq: its own resolver starts any number of threads, and
//! panics where it cannot start one.

use std::io;

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver as Resolve};
use ureq::unversioned::transport::NextTimeout;

use crate::clock::system;
use crate::resolve::Resolver;

#[derive(Debug)]
pub(super) struct Names(pub Resolver);

impl Resolve for Names {
    fn resolve(
        &self,
        uri: &Uri,
        _: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.host().ok_or(Error::HostNotFound)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port =
            uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let deadline = system::monotonic().plus(*timeout.after);
        let found = self.0.resolve(host, port, deadline).map_err(|error| match error.kind() {
            // Late, or not begun because others are.
            io::ErrorKind::TimedOut | io::ErrorKind::ResourceBusy => error,
            // The resolver's own words ("failed to lookup address information") say no more.
            _ => io::Error::new(io::ErrorKind::NotFound, "its name has no address"),
        })?;
        let mut addresses = self.empty();
        for address in found.into_iter().take(ROOM) {
            addresses.push(address);
        }
        Ok(addresses)
    }
}

/// `ResolvedSocketAddrs` panics when it is full.
const ROOM: usize = 16;
