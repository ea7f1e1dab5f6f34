//! What a process works with, built at its first call: the one place that names concrete stores.
//!
//! Nothing is opened at module start, during preload, or in a process that never asks. A forked
//! child builds its own and forgets its parent's, whose descriptors still belong to the parent.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use parking_lot::Mutex;

use super::ini::{self, Snapshot};
use super::{logger, standin, zend};
use crate::clock::{Clock as _, Moment, WallTime};
use crate::config::Config;
use crate::entry::{Digest, Key, MintedBy, Version};
use crate::error::Error;
use crate::flight::Engine;
use crate::process;
use crate::store::{Host as _, Known, Store as _, StoreError};

/// MERGE: `crate::host::{HostTable, Watch}`.
pub use super::standin::{Host, Watch};

pub struct Runtime {
    pub engine: Engine,
    pub config: Config,
    pub host: Arc<Host>,
    settings: Snapshot,
    process: u64,
}

/// The process's runtime, shared by its threads.
static CURRENT: Mutex<Option<Arc<Runtime>>> = Mutex::new(None);

thread_local! {
    /// Whether a request is being served: not during preload, where RINIT never ran.
    static SERVING: Cell<bool> = const { Cell::new(false) };
    /// The runtime whose settings were compared in this request.
    static CHECKED: RefCell<Option<Arc<Runtime>>> = const { RefCell::new(None) };
}

/// RINIT.
pub fn request_begins() {
    SERVING.set(true);
}

/// RSHUTDOWN, last.
pub fn request_ends() {
    SERVING.set(false);
    forget(CHECKED.take());
}

/// The runtime, for a call inside a request.
pub fn current() -> Result<Arc<Runtime>, Error> {
    if let Some(runtime) = CHECKED.with_borrow(|checked| checked.as_ref().and_then(usable)) {
        return Ok(runtime);
    }
    if !SERVING.get() {
        return Err(Error::Config(
            "sharedstate cannot be used before the first request (in an opcache.preload script): \
             what it opened there would be shared with every worker"
                .into(),
        ));
    }
    let runtime = shared()?;
    if let Some(name) = runtime.settings.first_change() {
        return Err(Error::Config(format!(
            "{name} differs from the value this process has been using since its first request; \
             settings never mix within a process: give the application its own pool"
        )));
    }
    forget(CHECKED.replace(Some(Arc::clone(&runtime))));
    Ok(runtime)
}

/// The runtime if this process has one already; opens nothing.
pub fn attached() -> Option<Arc<Runtime>> {
    CURRENT.lock().as_ref().and_then(usable)
}

fn usable(runtime: &Arc<Runtime>) -> Option<Arc<Runtime>> {
    (runtime.process == process::generation()).then(|| Arc::clone(runtime))
}

/// Let go of a runtime; a parent's is leaked, for dropping it would unlock and hang up in its name.
fn forget(runtime: Option<Arc<Runtime>>) {
    if let Some(runtime) = runtime
        && runtime.process != process::generation()
    {
        std::mem::forget(runtime);
    }
}

/// The process's runtime, built when there is none. A failure is not remembered: the next call
/// tries again, with whatever has been mended meanwhile.
fn shared() -> Result<Arc<Runtime>, Error> {
    let mut current = CURRENT.lock();
    if let Some(runtime) = current.as_ref().and_then(usable) {
        return Ok(runtime);
    }
    let runtime = Arc::new(build()?);
    forget(current.replace(Arc::clone(&runtime)));
    Ok(runtime)
}

/// MERGE: the stores this process uses come from here and from nowhere else.
fn build() -> Result<Runtime, Error> {
    let settings = ini::snapshot();
    let config = settings.parse().map_err(Error::Config)?;
    logger::set_up(config.log_level);
    let host = Arc::new(Host::open().map_err(Error::Config)?);
    let engine = Engine::new(host.clone(), None);
    Ok(Runtime { engine, config, host, settings, process: process::generation() })
}

/// In the child of a fork: close what was inherited. Must neither lock nor allocate.
pub fn close_inherited() {
    // MERGE: crate::host::close_inherited(); crate::redis::close_inherited();
}

pub fn count_memo_hits(tokens: u64, rates: u64) {
    // MERGE: host.count(Counter::TokenHits, tokens); host.count(Counter::FxHits, rates).
    if let Some(runtime) = attached() {
        runtime.host.count(standin::Counter::TokenHits, tokens);
        runtime.host.count(standin::Counter::FxHits, rates);
    }
}

impl Runtime {
    pub fn now(&self) -> Moment {
        self.host.now()
    }

    pub fn wall(&self) -> WallTime {
        self.host.wall()
    }

    pub fn watch(&self, key: &Key, version: Version) -> Option<Watch> {
        self.host.watch(key, version)
    }

    pub fn look(&self, key: &Key) -> Option<Known> {
        self.host.look(key)
    }

    /// MERGE: the engine's, which tells the fleet too and keeps a rejection while it cannot.
    pub fn invalidate(&self, key: &Key, rejected: Option<Digest>) -> Result<bool, StoreError> {
        self.host.invalidate(key, rejected, self.now()).map(|reply| reply.what)
    }

    pub fn minted_by(&self) -> MintedBy {
        MintedBy { host: host_name(), sapi: zend::sapi_name(), script: zend::script_path() }
    }
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}

/// What `sharedstate_status` and phpinfo show.
impl Runtime {
    /// MERGE: `Counter::ALL`, `HostTable::usage`, coherence and leadership.
    pub fn numbers(&self) -> Vec<(&'static str, u64)> {
        self.host.counters()
    }

    /// MERGE: `HostTable::path` and `Config::identity_parts`.
    pub fn places(&self) -> Vec<(&'static str, String)> {
        vec![("prefix", self.config.prefix.clone()), ("table", "process memory (stand-in)".into())]
    }
}
