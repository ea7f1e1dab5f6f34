use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::clock::Clock as _;
use crate::clock::fake::FakeClock;
use crate::entry::{Fingerprint, SheetPolicy};
use crate::fx::guard::Guard;
use crate::fx::{FetchError, parse_list};
use crate::store::faulty::FaultyStore;
use crate::store::memory::MemoryHost;

const HOUR: Duration = Duration::from_secs(3600);

/// What each source answers, by name, and when it was asked.
#[derive(Default)]
struct Provider {
    answers: Mutex<BTreeMap<String, Result<String, FetchError>>>,
    asked: Mutex<Vec<(String, Validators, Duration)>>,
    hangs: AtomicU64,
}

struct Asked(Arc<Provider>, Arc<FakeClock>);

impl Fetch for Asked {
    fn fetch(
        &self,
        source: &Source,
        known: &Validators,
        within: Duration,
    ) -> Result<Fetched, FetchError> {
        let Self(provider, clock) = self;
        provider.asked.lock().push((source.name().into(), known.clone(), within));
        clock.advance(within.min(Duration::from_secs(provider.hangs.load(Ordering::SeqCst))));
        let answer = provider.answers.lock().get(source.name()).cloned();
        let text = answer.unwrap_or_else(|| Err(failed("HTTP 500", None)))?;
        let sheet =
            Sheet::from_json(text.as_bytes(), source.name()).map_err(|why| failed(&why, None))?;
        let validators = Validators { etag: Some(source.name().into()), last_modified: None };
        Ok(Fetched::Sheet { sheet, validators })
    }
}

fn failed(why: &str, retry_after: Option<u64>) -> FetchError {
    FetchError { reason: why.into(), retry_after: retry_after.map(Duration::from_secs) }
}

struct Shop {
    clock: Arc<FakeClock>,
    provider: Arc<Provider>,
    store: Arc<FaultyStore>,
    hosts: Vec<(Arc<MemoryHost>, Arc<Engine>, Refresher)>,
}

const ONE: &str = "json:one.example";
const TWO: &str = "json:two.example";

/// Two hosts with one store and two sources.
fn shop() -> Shop {
    let clock = Arc::new(FakeClock::at(1_000));
    let provider = Arc::new(Provider::default());
    let store = Arc::new(FaultyStore::new(Arc::new(MemoryHost::new(clock.clone()))));
    let host = |_| {
        let host = Arc::new(MemoryHost::new(clock.clone()));
        let engine = Arc::new(Engine::new(host.clone(), Some(store.clone())));
        let refresher = process(&clock, &provider, &host, &engine, None);
        (host, engine, refresher)
    };
    let hosts = (0..2).map(host).collect();
    // A process leaves the very first fetch to whoever asks.
    clock.advance(YOUNG);
    Shop { clock: clock.clone(), provider, store, hosts }
}

/// A process of a host, with what it keeps to itself.
fn process(
    clock: &Arc<FakeClock>,
    provider: &Arc<Provider>,
    host: &Arc<MemoryHost>,
    engine: &Arc<Engine>,
    shelf: Option<Shelf>,
) -> Refresher {
    Refresher::new(Parts {
        key: Key::new(Kind::Sheet, b"default", Fingerprint::default()).unwrap(),
        rules: Rules {
            policy: SheetPolicy { interval: HOUR, max_stale: HOUR * 72 },
            max_age: HOUR * 168,
            guard: Guard { max_jump: 0.2 },
        },
        sources: parse_list("json:http://one.example/, json:http://two.example/", None).unwrap(),
        fetch: Box::new(Asked(provider.clone(), clock.clone())),
        quota: None,
        plan: Plan { may_mint: false, ..Plan::usual(clock.now()) },
        host: host.clone(),
        engine: Arc::downgrade(engine),
        shelf,
        by: MintedBy::default(),
    })
}

impl Shop {
    fn answer(&self, source: &str, usd: f64) {
        let as_of = self.clock.wall().unix_millis() / 1000;
        let text = format!(r#"{{"base":"EUR","timestamp":{as_of},"rates":{{"USD":{usd}}}}}"#);
        self.provider.answers.lock().insert(source.into(), Ok(text));
    }

    fn answer_of(&self, source: &str, usd: f64, as_of: i64) {
        let text = format!(r#"{{"base":"EUR","timestamp":{as_of},"rates":{{"USD":{usd}}}}}"#);
        self.provider.answers.lock().insert(source.into(), Ok(text));
    }

    fn fail(&self, source: &str, retry_after: Option<u64>) {
        self.provider.answers.lock().insert(source.into(), Err(failed("HTTP 429", retry_after)));
    }

    /// What the thread of a process does when it looks.
    fn look(&self, host: usize) {
        let refresher = &self.hosts[host].2;
        if refresher.due() {
            refresher.run();
        }
    }

    /// Both hosts look once a minute.
    fn pass(&self, span: Duration) {
        for _ in 0..span.as_secs() / 60 {
            self.clock.advance(Duration::from_secs(60));
            self.look(0);
            self.look(1);
        }
    }

    fn asked(&self) -> Vec<String> {
        self.provider.asked.lock().drain(..).map(|(name, ..)| name).collect()
    }

    fn held(&self, host: usize) -> Holding {
        Holding::from_bytes(&self.hosts[host].2.held().unwrap().value).unwrap()
    }

    fn usd(&self, host: usize) -> String {
        let usd = crate::fx::Currency::parse("USD").unwrap();
        self.held(host).sheet.rates()[&usd].to_string()
    }
}

#[test]
fn a_day_costs_the_fleet_a_call_an_hour_and_nobody_ever_has_an_old_sheet() {
    let shop = shop();
    shop.answer(ONE, 1.1);
    shop.look(0);
    shop.look(1);
    assert_eq!(shop.asked(), [ONE], "one of the fleet");
    for _ in 0..24 {
        shop.answer(ONE, 1.1);
        shop.pass(HOUR);
        let stale =
            |host: usize| shop.hosts[host].2.held().unwrap().timing.is_stale(shop.clock.now());
        assert!(!stale(0) && !stale(1));
    }
    let calls = shop.asked().len();
    assert!((23..=25).contains(&calls), "{calls}");
}

#[test]
fn the_next_source_stands_in_and_one_that_asked_to_be_left_alone_is_by_the_whole_fleet() {
    let shop = shop();
    shop.fail(ONE, Some(3 * 3600 + 1800));
    shop.answer(TWO, 1.1);
    shop.look(0);
    assert_eq!(shop.asked(), [ONE, TWO]);
    shop.answer(TWO, 1.1);
    shop.pass(HOUR);
    shop.answer(TWO, 1.1);
    shop.pass(HOUR);
    // Kept with the first sheet, which had nothing to be noted in before.
    assert!(shop.asked().iter().filter(|name| *name == ONE).count() <= 1);
    assert!(shop.held(1).not_before.contains_key(ONE));
    shop.asked();
    shop.answer(TWO, 1.1);
    shop.pass(HOUR);
    assert!(!shop.asked().contains(&ONE.to_owned()));
    shop.answer(ONE, 1.1);
    shop.pass(HOUR * 2);
    assert!(shop.asked().contains(&ONE.to_owned()), "and asked again afterwards");
}

/// The first source dates its sheets by the hour and goes down. The second answers all the time, with a sheet of two days
/// ago, as the ECB does at weekends.
#[test]
fn a_source_that_answers_stands_in_as_soon_as_the_held_sheet_is_stale() {
    let shop = shop();
    let now = || shop.clock.wall().unix_millis() / 1000;
    shop.answer_of(TWO, 1.105, now() - 2 * 86_400);
    shop.answer(ONE, 1.1);
    shop.look(0);
    shop.look(1);
    shop.fail(ONE, None);
    let (mut minutes, mut stands_in) = (0, None);
    for minute in 0..80 * 60 {
        shop.clock.advance(Duration::from_secs(60));
        shop.look(0);
        shop.look(1);
        minutes += usize::from(shop.hosts[0].2.held().is_some());
        if stands_in.is_none() && shop.usd(0) == "1.105" {
            stands_in = Some(minute);
        }
    }
    assert_eq!(minutes, 80 * 60, "never a moment without rates");
    let minute = stands_in.unwrap();
    assert!((115..=130).contains(&minute), "the held one is stale after two hours: {minute}");
    shop.answer(ONE, 1.1);
    shop.pass(HOUR * 2);
    assert_eq!(shop.usd(1), "1.1", "and the first is back when it answers");
}

#[test]
fn with_a_sheet_at_hand_retry_after_of_the_only_answer_is_kept_by_all_hosts() {
    let shop = shop();
    shop.answer(ONE, 1.1);
    shop.pass(Duration::from_secs(120));
    shop.fail(ONE, Some(2 * 3600));
    shop.fail(TWO, Some(5 * 3600));
    shop.pass(HOUR);
    shop.asked();
    shop.pass(HOUR);
    assert_eq!(shop.asked(), Vec::<String>::new(), "for two hours nobody asks anybody");
    shop.pass(HOUR + HOUR / 2);
    let asked = shop.asked();
    assert!(!asked.is_empty() && !asked.contains(&TWO.to_owned()), "{asked:?}");
    assert_eq!(shop.usd(1), "1.1", "and the sheet is served all the while");
}

#[test]
fn an_outage_of_every_source_costs_a_call_each_quarter_of_an_hour() {
    let shop = shop();
    shop.answer(ONE, 1.1);
    shop.pass(Duration::from_secs(120));
    shop.fail(ONE, None);
    shop.asked();
    shop.pass(HOUR * 24);
    let calls = shop.asked().len();
    // Of two sources.
    assert!((60..=2 * (24 * 4 + 2)).contains(&calls), "{calls}");
    assert_eq!(shop.usd(0), "1.1");
}

#[test]
fn a_source_that_hangs_leaves_time_for_the_next_one() {
    let shop = shop();
    shop.answer(TWO, 1.1);
    shop.provider.hangs.store(3_600, Ordering::SeqCst);
    let (_, engine, refresher) = &shop.hosts[0];
    let now = shop.clock.now();
    let plan = Plan {
        may_mint: true,
        wait_until: now.plus(Duration::from_secs(6)),
        ..refresher.plan.clone()
    };
    let Step::Mint(ticket) = engine.begin(&refresher.key, &plan) else { panic!() };
    let (_, ended) = refresher.refresh(*ticket, plan.wait_until);
    assert_eq!(ended, Ended::Refreshed);
    let asked = shop.provider.asked.lock();
    let within: Vec<u64> = asked.iter().map(|(.., within)| within.as_secs()).collect();
    assert_eq!(within, [3, 3]);
}

#[test]
fn a_jump_is_confirmed_by_the_next_source_within_one_refresh() {
    let shop = shop();
    shop.answer(ONE, 1.1);
    shop.pass(Duration::from_secs(120));
    shop.clock.advance(HOUR);
    shop.answer(ONE, 1.6);
    shop.answer(TWO, 1.61);
    shop.look(0);
    assert_eq!((shop.usd(0), shop.held(0).quarantine), ("1.61".into(), None));
    assert_eq!(shop.held(0).validators.etag.as_deref(), Some(TWO));
}

#[test]
fn a_jump_that_nobody_confirms_is_held_back_and_asked_about_once_an_hour() {
    let shop = shop();
    shop.answer(ONE, 1.1);
    shop.pass(Duration::from_secs(120));
    shop.clock.advance(HOUR);
    shop.answer(ONE, 1.6);
    shop.asked();
    shop.pass(HOUR * 10);
    let first = shop.asked().iter().filter(|name| *name == ONE).count();
    assert!((10..=12).contains(&first), "{first}");
    assert_eq!(shop.usd(1), "1.1");
    assert!(shop.held(1).quarantine.is_some());
}

#[test]
fn with_the_store_down_each_host_fetches_for_itself_after_two_intervals() {
    let shop = shop();
    shop.answer(ONE, 1.1);
    shop.pass(Duration::from_secs(120));
    shop.store.set_down(true);
    shop.asked();
    shop.pass(HOUR + HOUR / 2);
    assert_eq!(shop.asked(), Vec::<String>::new());
    shop.answer(ONE, 1.11);
    shop.pass(HOUR);
    assert_eq!(shop.asked(), [ONE, ONE], "one of each host");
    assert_eq!((shop.usd(0), shop.usd(1)), ("1.11".into(), "1.11".into()));
}

/// Two processes of one host that also write the sheet down look a few times a minute.
fn pass_on_one_host(shop: &Shop, processes: &[Refresher], span: Duration) {
    for _ in 0..span.as_secs() / 20 {
        shop.clock.advance(Duration::from_secs(20));
        for refresher in processes {
            if refresher.due() {
                refresher.run();
            }
        }
    }
}

fn processes(shop: &Shop, folder: &std::path::Path) -> Vec<Refresher> {
    let (host, engine, _) = &shop.hosts[0];
    let shelf = || Some(Shelf::new(folder, "shop"));
    let made = (0..3).map(|_| process(&shop.clock, &shop.provider, host, engine, shelf()));
    let made = made.collect();
    shop.clock.advance(YOUNG);
    made
}

#[test]
fn writing_the_sheet_down_makes_nobody_ask_while_one_is_held_back_or_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let shop = shop();
    let three = processes(&shop, folder.path());
    shop.answer(ONE, 1.1);
    pass_on_one_host(&shop, &three, Duration::from_secs(120));
    shop.answer(ONE, 1.6);
    shop.asked();
    pass_on_one_host(&shop, &three, HOUR * 10);
    let first = shop.asked().iter().filter(|name| *name == ONE).count();
    assert!((9..=12).contains(&first), "{first} calls in ten hours");

    shop.fail(ONE, Some(24 * 3600));
    pass_on_one_host(&shop, &three, HOUR * 10);
    let asked = shop.asked();
    let calls = |source| asked.iter().filter(|name| *name == source).count();
    assert!(calls(ONE) <= 1, "{}", calls(ONE));
    assert!(calls(TWO) <= 45, "{}", calls(TWO));
}

#[test]
fn when_the_sheet_has_ended_nobody_is_busy_with_writing_it_down() {
    let folder = tempfile::tempdir().unwrap();
    let shop = shop();
    let three = processes(&shop, folder.path());
    shop.answer(ONE, 1.1);
    pass_on_one_host(&shop, &three, Duration::from_secs(120));
    shop.fail(ONE, None);
    shop.clock.advance(HOUR * 80);
    let late = processes(&shop, folder.path());
    for refresher in &late {
        refresher.run();
        assert!(!refresher.due(), "it has asked, and was told to wait");
    }
}

#[test]
fn what_a_file_says_is_neither_judged_by_nor_committed() {
    let folder = tempfile::tempdir().unwrap();
    let shop = shop();
    let three = processes(&shop, folder.path());
    shop.answer(ONE, 1.1);
    pass_on_one_host(&shop, &three, Duration::from_secs(120));
    // Another host, cold, on a store that has lost everything.
    let clock = &shop.clock;
    let host = Arc::new(MemoryHost::new(clock.clone()));
    let store = Arc::new(FaultyStore::new(Arc::new(MemoryHost::new(clock.clone()))));
    let engine = Arc::new(Engine::new(host.clone(), Some(store.clone())));
    let shelf = Some(Shelf::new(folder.path(), "shop"));
    let cold = process(clock, &shop.provider, &host, &engine, shelf);
    shop.fail(ONE, Some(3600));
    assert_eq!(cold.from_shelf().unwrap().version, Version::FILE);
    clock.advance(YOUNG);
    cold.run();
    let claim = crate::store::conformance::claim_of(crate::store::Secret::from_bits(9).unwrap());
    let stored = crate::store::Store::claim(&*store, &cold.key, &claim, clock.now()).unwrap().what;
    assert!(matches!(stored, crate::store::Claimed::BackOff { .. }), "{stored:?}");
}
