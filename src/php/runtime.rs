//! What a process works with, built at its first call: the one place that names concrete stores.
//!
//! Nothing is opened at module start, during preload, or in a process that never asks. A forked
//! child builds its own and forgets its parent's, whose descriptors still belong to the parent.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use once_cell::sync::OnceCell;

mod report;

use super::ini::{self, Snapshot};
use super::{keys, logger, options, zend};
use crate::clock::system::ProcessClock;
use crate::clock::{Moment, WallTime};
use crate::config::Config;
use crate::entry::{Fingerprint, Key, Kind, MintedBy, Timing, Version};
use crate::error::Error;
use crate::flight::{Engine, trusted_until};
use crate::fx::guard::Guard;
use crate::fx::refresher::{Parts, Refresher};
use crate::fx::rules::Rules;
use crate::fx::shelf::Shelf;
use crate::host::{HostTable, Place, Sizes};
use crate::http::{HttpFetch, Proxies, TIMEOUT};
use crate::leader::Leader;
use crate::lock::Mutex;
use crate::metrics::Counter;
use crate::metrics::tally::Tally;
use crate::process;
use crate::redis::log::RedisLog;
use crate::redis::{Login, Password, Prefix, RedisConfig, RedisStore, Tls};
use crate::seal::Seal;
use crate::store::memory::MemoryHost;
use crate::store::{Host, Known, Store};

pub use crate::host::Watch;

pub struct Runtime {
    pub engine: Arc<Engine>,
    pub config: Config,
    /// Keeps the default sheet of rates, where sources are configured for it.
    pub rates: Arc<Refresher>,
    host: Arc<dyn Host>,
    /// The same host, when it is a table; else why there is none.
    table: Result<Arc<HostTable>, String>,
    fleet: Option<Fleet>,
    seal: Option<Arc<Seal>>,
    settings: Snapshot,
    process: u64,
}

/// The process's runtime, shared by its threads: the first one builds it while the others wait for that, and nobody
/// waits who only asks whether there is one. A failure is not remembered: the next call tries again, with whatever
/// has been mended meanwhile.
#[derive(Clone)]
struct Built {
    process: u64,
    runtime: Arc<OnceCell<Arc<Runtime>>>,
}

/// Locked for no longer than it takes to look: another thread may fork meanwhile.
static CURRENT: Mutex<Option<Built>> = Mutex::new(None);

impl Built {
    fn here() -> Self {
        let mut current = CURRENT.lock();
        if let Some(built) = current.as_ref().filter(|it| it.process == process::generation()) {
            return built.clone();
        }
        let here = Self { process: process::generation(), runtime: Arc::default() };
        forget_built(current.replace(here.clone()));
        here
    }
}

/// How far this thread is with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Outside,
    Serving,
    /// Between our RSHUTDOWN and the last code of the application: PHP writes sessions and closes streams in
    /// between. What belongs to the request's memory is gone, so nothing is remembered in it.
    Ending,
    /// And it was used since.
    UsedLate,
}

thread_local! {
    static PHASE: Cell<Phase> = const { Cell::new(Phase::Outside) };
    /// The runtime whose settings were compared in this request.
    static CHECKED: RefCell<Option<Arc<Runtime>>> = const { RefCell::new(None) };
}

/// RINIT.
pub fn request_begins() {
    PHASE.set(Phase::Serving);
}

/// RSHUTDOWN.
pub fn request_is_ending() {
    PHASE.set(Phase::Ending);
}

/// Whether what is answered may be remembered until RSHUTDOWN.
pub fn remembers() -> bool {
    PHASE.get() == Phase::Serving
}

pub fn was_used_late() -> bool {
    PHASE.get() == Phase::UsedLate
}

/// When no code of the application runs any more.
pub fn request_ends() {
    PHASE.set(Phase::Outside);
    forget(CHECKED.take());
}

/// The runtime, for a call inside a request.
pub fn current() -> Result<Arc<Runtime>, Error> {
    if PHASE.get() == Phase::Ending {
        PHASE.set(Phase::UsedLate);
    }
    if let Some(runtime) = CHECKED.with_borrow(|checked| checked.as_ref().and_then(usable)) {
        return Ok(runtime);
    }
    if zend::is_preloading() {
        return Err(Error::Config(
            "sharedstate cannot be used before the first request (in an opcache.preload script): \
             what it opened there would be shared with every worker"
                .into(),
        ));
    }
    if PHASE.get() == Phase::Outside {
        return Err(Error::Config("sharedstate cannot be used outside of a request".into()));
    }
    let runtime = Built::here().runtime.get_or_try_init(|| build().map(Arc::new))?.clone();
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
    Built::here().runtime.get().cloned()
}

/// For who only reports: the process's runtime, built where there is a table already. `None`: nobody has used it on
/// this host.
pub fn reported() -> Result<Option<Arc<Runtime>>, Error> {
    if let Some(runtime) = attached() {
        return Ok(Some(runtime));
    }
    let config = ini::snapshot().parse().map_err(Error::Config)?;
    let seal = seal(&config)?;
    if !place(&config, seal.as_deref()).table().exists() {
        return Ok(None);
    }
    current().map(Some)
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

/// The same of what has not been built to its end, perhaps.
fn forget_built(built: Option<Built>) {
    if let Some(built) = built
        && built.process != process::generation()
    {
        std::mem::forget(built);
    }
}

fn build() -> Result<Runtime, Error> {
    let settings = ini::snapshot();
    let config = settings.parse().map_err(Error::Config)?;
    logger::configure(&config);
    let seal = seal(&config)?;
    let place = place(&config, seal.as_deref());
    let bytes = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    let sizes =
        Sizes::new(bytes(config.host_slots), bytes(config.host_value_size), config.host_memory);
    let redis = redis(&config)?;
    let (host, table): (Arc<dyn Host>, _) = match HostTable::open(place, sizes, seal.clone()) {
        Ok(table) => {
            let table = Arc::new(table);
            // Once per host and start, and not by each of its workers.
            if table.attach() == 0
                && seal.is_none()
                && redis.as_ref().is_some_and(RedisConfig::exposed)
            {
                log::warn!(
                    "tokens travel to Redis in the clear: use rediss:// (TLS), or seal them with \
                     sharedstate.encryption_key_file"
                );
            }
            (table.clone(), Ok(table))
        }
        // Without Redis nobody else would know what this process mints: a silent cache per process
        // is the very incident this library exists against.
        Err(why) if redis.is_none() => return Err(Error::Config(why)),
        Err(why) => {
            log::warn!("{why}; until then this process asks Redis alone");
            (Arc::new(MemoryHost::new(Arc::new(ProcessClock::start()))), Err(why))
        }
    };
    let fleet = redis.map(|redis| Fleet::of(redis, seal.as_ref(), &host));
    let engine = match &fleet {
        None => Engine::new(host.clone(), None),
        Some(Fleet { store, log }) => {
            let store: Arc<dyn Store> = store.clone();
            let leader =
                Leader::new(host.clone(), store.clone(), log.clone(), config.max_staleness);
            Engine::following(host.clone(), store, leader)
        }
    };
    let engine = Arc::new(engine);
    let rates = Arc::new(refresher(&config, &host, &engine)?);
    if rates.is_wanted() {
        engine.assign(rates.clone());
    }
    let process = process::generation();
    Ok(Runtime { engine, config, rates, host, table, fleet, seal, settings, process })
}

/// What keeps the default sheet, from the configured sources if there are any.
fn refresher(
    config: &Config,
    host: &Arc<dyn Host>,
    engine: &Arc<Engine>,
) -> Result<Refresher, Error> {
    let key = Key::new(Kind::Sheet, DEFAULT_SHEET, Fingerprint::default());
    // Whoever fetches nothing must not fail for a proxy's sake.
    let proxies = match config.fx_sources.is_empty() {
        true => Proxies::default(),
        false => Proxies::from_env(&ini::environment).map_err(Error::Config)?,
    };
    if let Some(folder) = config.fx_state_dir.as_deref().filter(|folder| !folder.is_dir()) {
        return Err(Error::Config(format!(
            "sharedstate.fx.state_dir is \"{}\", which is no folder that this process can see: make \
             it, or leave the setting empty",
            folder.display()
        )));
    }
    Ok(Refresher::new(Parts {
        key: key.map_err(Error::Config)?,
        rules: Rules {
            policy: config.fx_policy,
            max_age: config.fx_max_age,
            guard: Guard { max_jump: config.fx_max_jump },
        },
        sources: config.fx_sources.clone(),
        fetch: Box::new(HttpFetch::new(TIMEOUT, proxies, None)),
        quota: config.fx_monthly_quota,
        plan: options::sheet_plan(config, host.now()),
        host: Arc::clone(host),
        engine: Arc::downgrade(engine),
        shelf: config.fx_state_dir.as_deref().map(|folder| Shelf::new(folder, &config.prefix)),
        by: minted_by(),
    }))
}

/// The name of the sheet that the fx functions work on unless told otherwise.
pub const DEFAULT_SHEET: &[u8] = b"default";

fn seal(config: &Config) -> Result<Option<Arc<Seal>>, Error> {
    Ok(config.encryption_key_file.as_deref().map(keys::seal).transpose()?.map(Arc::new))
}

fn place(config: &Config, seal: Option<&Seal>) -> Place {
    let identity = identity(config, seal);
    let identity: Vec<&str> = identity.iter().map(String::as_str).collect();
    Place::new(&config.host_dir, &identity)
}

/// What has to be the same for two processes to share a table. With another sealing key neither could
/// read what the other keeps, and each would replace it.
fn identity(config: &Config, seal: Option<&Seal>) -> Vec<String> {
    let mut parts = config.identity_parts();
    parts.extend(seal.map(|seal| format!("sealed with {}", seal.id())));
    parts
}

/// One Redis, as the store that is asked and as the log that is followed.
struct Fleet {
    store: Arc<RedisStore>,
    log: Arc<RedisLog>,
}

impl Fleet {
    /// Connects at first need.
    fn of(redis: RedisConfig, seal: Option<&Arc<Seal>>, host: &Arc<dyn Host>) -> Self {
        let store = RedisStore::new(redis.clone()).sealing(seal.cloned()).on(host.clone());
        let log = RedisLog::new(redis).sealing(seal.cloned()).on(host.clone());
        Self { store: Arc::new(store), log: Arc::new(log) }
    }
}

/// Where the authority for many hosts is, when there is one.
fn redis(config: &Config) -> Result<Option<RedisConfig>, Error> {
    let Some(dsn) = &config.redis_dsn else { return Ok(None) };
    let refused = |why: String| Error::Config(format!("sharedstate.redis.dsn: {why}"));
    let parsed = RedisConfig::parse(dsn).map_err(refused)?;
    let password = config.redis_password.as_deref().map(Password::new);
    let tls = || Tls {
        ca: config.redis_tls_ca.clone(),
        server_name: config.redis_tls_server_name.clone(),
        identity: config.redis_tls_identity.clone(),
    };
    Ok(Some(RedisConfig {
        tls: parsed.tls.map(|_| tls()),
        prefix: Prefix::new(&config.prefix).map_err(Error::Config)?,
        login: Login {
            username: config.redis_username.clone().or(parsed.login.username),
            password: password.or(parsed.login.password),
            password_file: config.redis_password_file.clone(),
        },
        connect_timeout: config.redis_connect_timeout,
        response_timeout: config.redis_response_timeout,
        pool_max: config.redis_pool_max,
        pool_idle: config.redis_pool_idle,
        ..parsed
    }))
}

/// MSHUTDOWN: this process's helper thread ends, or is left behind in code that stays mapped.
pub fn stop() {
    /// A lease renewal in flight may take a response timeout; nobody waits longer for a restart.
    const PATIENCE: Duration = Duration::from_millis(200);
    let built = CURRENT.lock().take();
    if let Some(runtime) = built.as_ref().and_then(|it| it.runtime.get()).and_then(usable) {
        runtime.engine.stop(PATIENCE);
    }
    forget_built(built);
}

impl Runtime {
    pub fn now(&self) -> Moment {
        self.host.now()
    }

    pub fn wall(&self) -> WallTime {
        self.host.wall()
    }

    /// Moments of the host timeline as seconds since 1970, for people.
    pub fn unix(&self) -> impl Fn(Moment) -> i64 + use<> {
        let (now, wall) = (self.now(), self.wall().unix_millis());
        move |at| (wall + now.millis_until(at)).div_euclid(1000)
    }

    /// The pure hit: what this host has and may serve without asking for so long, handed to `take`.
    pub fn hit<R>(&self, key: &Key, take: impl FnOnce(&[u8]) -> R) -> Option<(R, Watch, Duration)> {
        let table = self.table.as_ref().ok()?;
        let trusted = |timing: &Timing, confirmed_at, now: Moment| {
            let confirmed_at = self.fleet.is_some().then_some(confirmed_at);
            let staleness = self.config.max_staleness;
            let until = trusted_until(timing, key.kind(), confirmed_at, staleness, now)?;
            Some(now.until(until))
        };
        table.hit(key, trusted, take)
    }

    pub fn watch(&self, key: &Key, version: Version) -> Option<Watch> {
        self.table.as_ref().ok()?.watch(key, version)
    }

    pub fn look(&self, key: &Key) -> Option<Known> {
        self.host.look(key)
    }

    /// Drop every token that this host has or Redis' change log names, or those of one `name` among them.
    /// How many; and from which second on nothing was missed, unless nothing was at all.
    pub fn invalidate_all(&self, name: Option<&[u8]>) -> Result<(usize, Option<u64>), Error> {
        let named = self.fleet.as_ref().map(|fleet| fleet.log.named()).transpose();
        let (named, unread) = named.map_or_else(|error| (None, Some(error)), |it| (it, None));
        let cut_at = named.as_ref().and_then(|named| named.cut_at);
        let elsewhere = named.map(|named| named.keys).unwrap_or_default();
        let (dropped, untold) = self.engine.invalidate_all(elsewhere, name);
        match unread.or(untold) {
            None => Ok((dropped, cut_at.map(|ms| ms / 1000))),
            Some(error) => Err(Error::StoreUnavailable(format!(
                "{error}; this host has dropped {dropped}, the others go on with theirs: do it again \
                 when Redis answers"
            ))),
        }
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
            Event::Contradicted => Counter::Contradicted,
            Event::Quarantined => Counter::FxQuarantined,
        };
        self.host.count(counter, times);
    }

    /// By family of names, and by source of rates.
    pub fn tally(&self) -> Arc<Tally> {
        self.host.tally()
    }

    /// What this process could not open, and what it has sent, since it was last counted.
    pub fn count_unnoticed(&self) {
        let unreadable = self.seal.as_ref().map_or(0, |seal| seal.take_unreadable());
        if unreadable > 0 {
            self.host.count(Counter::SealedUnreadable, unreadable);
        }
        if let Some(fleet) = &self.fleet {
            self.host.count_noticed(fleet.store.noticed());
        }
    }

    pub fn minted_by(&self) -> MintedBy {
        minted_by()
    }
}

fn minted_by() -> MintedBy {
    MintedBy { host: host_name(), sapi: zend::sapi_name(), script: zend::script_path() }
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
    Contradicted,
    /// A sheet that was held back.
    Quarantined,
}
