//! What a process works with, built at its first call: the one place that names concrete stores.
//!
//! Nothing is opened at module start, during preload, or in a process that never asks. A forked
//! child builds its own and forgets its parent's, whose descriptors still belong to the parent.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::ini::{self, Snapshot};
use super::{logger, zend};
use crate::clock::{Clock as _, Moment, WallTime};
use crate::config::Config;
use crate::entry::{Key, Kind, MintedBy, Version};
use crate::error::Error;
use crate::flight::Engine;
use crate::host::{Counter, HostTable, Place, Sizes};
use crate::process;
use crate::store::{Host as _, Known, Store};

pub use crate::host::Watch;

pub struct Runtime {
    pub engine: Engine,
    pub config: Config,
    host: Arc<HostTable>,
    settings: Snapshot,
    process: u64,
}

/// The process's runtime, shared by its threads.
static CURRENT: Mutex<Option<Arc<Runtime>>> = Mutex::new(None);

thread_local! {
    /// Whether a request is being served.
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
    if !SERVING.get() || zend::is_preloading() {
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

fn build() -> Result<Runtime, Error> {
    let settings = ini::snapshot();
    let config = settings.parse().map_err(Error::Config)?;
    logger::configure(&config);
    let identity = config.identity_parts();
    let identity: Vec<&str> = identity.iter().map(String::as_str).collect();
    let place = Place::new(&config.host_dir, &identity);
    let bytes = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    let sizes =
        Sizes::new(bytes(config.host_slots), bytes(config.host_value_size), config.host_memory);
    let host = Arc::new(HostTable::open(place, sizes).map_err(Error::Config)?);
    let engine = Engine::new(host.clone(), fleet(&config)?);
    Ok(Runtime { engine, config, host, settings, process: process::generation() })
}

/// The authority for many hosts, when there is one; connects at first need.
/// MERGE: `RedisConfig::parse(dsn)` with the timeouts, pool and credentials of `config` put in,
/// then `Arc::new(RedisStore::new(redis))`.
fn fleet(config: &Config) -> Result<Option<Arc<dyn Store>>, Error> {
    match &config.redis_dsn {
        None => Ok(None),
        Some(_) => Err(Error::Config("sharedstate.redis.dsn: Redis is not built in yet".into())),
    }
}

/// In the child of a fork: close what was inherited. Neither locks nor allocates.
pub fn close_inherited() {
    crate::host::close_inherited();
    // MERGE: crate::redis::close_inherited();
}

/// MSHUTDOWN: this process's helper thread ends, or is left behind in code that stays mapped.
pub fn stop() {
    /// A lease renewal in flight may take a response timeout; nobody waits longer for a restart.
    const PATIENCE: Duration = Duration::from_millis(200);
    let runtime = CURRENT.lock().take();
    if let Some(runtime) = runtime.as_ref().and_then(usable) {
        runtime.engine.stop(PATIENCE);
    }
    forget(runtime);
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

    /// Add to one of the host's counters, by the kind of key it is about.
    pub fn count(&self, event: Event, kind: Kind, times: u64) {
        let token = kind == Kind::Token;
        let counter = match event {
            Event::Hit if token => Counter::TokenHits,
            Event::Hit => Counter::FxHits,
            Event::Miss if token => Counter::TokenMisses,
            Event::Miss => Counter::FxMisses,
            Event::Mint if token => Counter::TokenMints,
            Event::Mint => Counter::FxFetches,
            Event::MintFailed => Counter::MintFailures,
            Event::WaitTimedOut => Counter::WaitTimeouts,
            Event::Degraded => Counter::Degraded,
            Event::MarginCut => Counter::MarginsCut,
            Event::ClockDependent => Counter::ClockDependent,
        };
        self.host.count(counter, times);
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

/// What the binding sees happen and nobody else counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Hit,
    Miss,
    Mint,
    MintFailed,
    WaitTimedOut,
    Degraded,
    MarginCut,
    ClockDependent,
}

/// What `sharedstate_status` and phpinfo show.
impl Runtime {
    pub fn numbers(&self) -> Vec<(&'static str, u64)> {
        let usage = self.host.usage();
        let counted =
            Counter::ALL.iter().map(|(counter, name)| (*name, self.host.counter(*counter)));
        let sized = [
            ("host_slots", usage.slots as u64),
            ("host_slots_used", usage.used as u64),
            ("host_memory", usage.memory),
            ("host_memory_used", usage.occupied),
        ];
        counted.chain(sized).collect()
    }

    pub fn places(&self) -> Vec<(&'static str, String)> {
        vec![
            ("host_table", self.host.path().display().to_string()),
            ("host_table_hashed_from", self.config.identity_parts().join(", ")),
        ]
    }
}
