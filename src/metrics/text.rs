//! `sharedstate_metrics()`: what a host has counted, and how it is, as OpenMetrics text. Every series
//! is of the whole host, whichever of its processes is asked.

use std::collections::BTreeMap;
use std::fmt;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::Counter;
use super::tally::{BOUNDS, Counts, Family, Hit, MintReason, Miss, OTHER, Refresh, Spans};

/// All that there is to say, taken at one moment.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    pub counters: Vec<(Counter, u64)>,
    pub counts: Counts,
    /// Tokens that may be served now, by family.
    pub usable: BTreeMap<Vec<u8>, u64>,
    pub sheets: Vec<SheetAge>,
    /// Of the host table, where there is one.
    pub table: Option<TableUse>,
    /// Names that have a place.
    pub resident: u64,
    /// The counts are of the whole host, and not of one process.
    pub of_host: bool,
    pub store_up: bool,
    pub breaker_open: bool,
    /// What this host has is known to be the newest.
    pub coherent: bool,
    /// A process of this host follows the change log; `None` where there is none.
    pub led: Option<bool>,
    /// Seconds after which a sheet is due.
    pub refresh_interval: u64,
}

#[derive(Clone, Debug, Default)]
pub struct SheetAge {
    pub name: Vec<u8>,
    pub source: String,
    /// Seconds since the sheet's own date, and since a source last said that it is its newest.
    pub age: u64,
    pub confirmed: u64,
    pub held_back: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct TableUse {
    pub slots: u64,
    pub used: u64,
    pub memory: u64,
    pub occupied: u64,
}

/// Counters without labels, with what they count. Those that are not here are shown by family or by
/// source.
const PLAIN: [(Counter, &str, &str); 26] = [
    (Counter::FxHits, "fx_cache_hits", "Rates that this host had"),
    (Counter::FxMisses, "fx_cache_misses", "Rates that this host did not have"),
    (Counter::FxQuarantined, "fx_quarantined", "Sheets that looked wrong and were held back"),
    (
        Counter::CommitsRefused,
        "commit_refused",
        "Mints that came too late, or under an invalidation",
    ),
    (Counter::LeasesLost, "lease_lost", "Mints that took longer than they could hold their lease"),
    (Counter::WaitTimeouts, "wait_timeouts", "Calls that waited for a mint in vain"),
    (Counter::Degraded, "served_degraded", "Answers given although the store could not be asked"),
    (Counter::MarginsCut, "margins_cut", "Margins cut to a fifth of a short lifetime"),
    (
        Counter::ClockDependent,
        "clock_dependent_lifetimes",
        "Lifetimes that rest on this host's clock",
    ),
    (
        Counter::Contradicted,
        "lifetimes_contradicted",
        "Mints whose lifetimes, as they were said, differed by more than 5 s, so that the shortest counted",
    ),
    (Counter::EvictedUsable, "evicted_usable", "Usable entries that had to make room"),
    (Counter::TableFull, "table_full", "Entries for which the table had no memory"),
    (Counter::TooLarge, "values_too_large", "Values above host.value_size"),
    (Counter::Remaps, "table_remaps", "Times that the table's file was replaced under a process"),
    (
        Counter::ClockJumps,
        "clock_jumps",
        "Times that the machine slept, its clock was set, or Redis' clock gained on it",
    ),
    (
        Counter::ClocksDisagreed,
        "clocks_disagreed",
        "Entries about whose age Redis' clock and those of the hosts differed by more than 5 s",
    ),
    (Counter::WritersGivenUp, "writers_given_up", "Processes stopped in the middle of a write"),
    (Counter::FlightsGivenUp, "flights_given_up", "Processes stopped or hanging while they minted"),
    (Counter::Revalidations, "revalidations", "Entries asked about, for nobody follows the log"),
    (Counter::StoreErrors, "store_errors", "Questions to the store that failed"),
    (Counter::BreakerOpened, "breaker_opened", "Times that this host stopped asking the store"),
    (Counter::Rejections, "rejections", "Tokens that were rejected while they were current"),
    (Counter::ChangesHeard, "changes_heard", "Lines of the change log"),
    (Counter::SealedUnreadable, "sealed_unreadable", "Values that could not be opened"),
    (Counter::Attached, "processes_attached", "Processes that came to the table"),
    (Counter::RedisCommands, "redis_commands", "Commands sent to Redis"),
];

/// The text. An empty one cannot happen: writing to a string does not fail.
pub fn text(scrape: Scrape) -> String {
    let mut registry = Registry::with_prefix("sharedstate");
    registry.register_collector(Box::new(scrape));
    let mut text = String::with_capacity(32 << 10);
    let _ = encode(&mut text, &registry);
    text
}

/// A name as a label: itself where it is UTF-8. Otherwise as no name can be, which has no `:` before
/// a family's end.
fn label(name: &[u8]) -> String {
    match std::str::from_utf8(name) {
        Ok(name) => name.to_owned(),
        Err(_) => format!("bytes:{}", percent_encode(name, NON_ALPHANUMERIC)),
    }
}

type Written = fmt::Result;

fn counter(metric: &mut MetricEncoder<'_>, value: u64) -> Written {
    metric.encode_counter::<NoLabelSet, u64, f64>(&value, None)
}

fn seconds_counter(metric: &mut MetricEncoder<'_>, millis: u64) -> Written {
    metric.encode_counter::<NoLabelSet, f64, f64>(&seconds(millis), None)
}

fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}

/// Nobody counts so far, but the file of the counts may be damaged; and the sum of a few of these fits a word.
const LARGEST: u64 = 1 << 53;

fn spans(metric: &mut MetricEncoder<'_>, spans: &Spans) -> Written {
    let bounds = BOUNDS.iter().map(|bound| seconds(*bound)).chain([f64::INFINITY]);
    let counts = spans.buckets.map(|count| count.min(LARGEST));
    let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
    let count = counts.iter().sum();
    metric.encode_histogram::<NoLabelSet>(seconds(spans.sum), count, &buckets, None)
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: impl EncodeGaugeValue,
) -> Written {
    encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?.encode_gauge(&value)
}

/// One line for each label set.
fn lines<L: EncodeLabelSet, V>(
    metric: &mut MetricEncoder<'_>,
    lines: impl IntoIterator<Item = (L, V)>,
    write: impl Fn(&mut MetricEncoder<'_>, V) -> Written,
) -> Written {
    for (labels, value) in lines {
        write(&mut metric.encode_family(&labels)?, value)?;
    }
    Ok(())
}

type SheetGauge = (&'static str, &'static str, Option<&'static Unit>, fn(&SheetAge) -> u64);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Written {
        let encoder = &mut encoder;
        self.tokens(encoder)?;
        self.rates(encoder)?;
        for (which, name, help) in PLAIN {
            if let Some((_, value)) = self.counters.iter().find(|(counter, _)| *counter == which) {
                let mut metric =
                    encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
                counter(&mut metric, *value)?;
            }
        }
        self.state(encoder)
    }
}

impl Scrape {
    fn tokens(&self, encoder: &mut DescriptorEncoder<'_>) -> Written {
        let families = &self.counts.families;
        let labels: Vec<String> = families.iter().map(|family| label(&family.name)).collect();
        // Every value of the second label is a series from the start, so that rates can be taken.
        let split = |key, of: &'static [&'static str], row: fn(&Family) -> &[u64]| {
            let labels = &labels;
            families.iter().zip(labels).flat_map(move |(family, name)| {
                let values = of.iter().zip(row(family));
                values
                    .map(move |(value, count)| ([("family", name.as_str()), (key, *value)], *count))
            })
        };
        let whole = |value: fn(&Family) -> u64| {
            let labels = &labels;
            let line = move |(family, name)| ([("family", String::as_str(name))], value(family));
            families.iter().zip(labels).map(line)
        };

        let help = "Tokens that this host had: in the memory of the request, or in its table";
        let mut metric =
            encoder.encode_descriptor("token_cache_hits", help, None, MetricType::Counter)?;
        lines(&mut metric, split("tier", &Hit::LABELS, |family| &family.hits), counter)?;

        let help = "Tokens that this host did not have, and who brought them";
        let mut metric =
            encoder.encode_descriptor("token_cache_misses", help, None, MetricType::Counter)?;
        lines(&mut metric, split("from", &Miss::LABELS, |family| &family.misses), counter)?;

        let help = "Mints that brought a token, by why they were started";
        let mut metric =
            encoder.encode_descriptor("token_mint_count", help, None, MetricType::Counter)?;
        lines(&mut metric, split("reason", &MintReason::LABELS, |family| &family.mints), counter)?;

        let help = "Mints that failed, or brought what cannot be used";
        let mut metric =
            encoder.encode_descriptor("mint_failures", help, None, MetricType::Counter)?;
        lines(&mut metric, whole(|family| family.failures), counter)?;

        let help = "Time from mint to refresh, summed over mints: as long as time itself with one mint \
                    per token and lifetime";
        let mut metric = encoder.encode_descriptor(
            "token_lifetime",
            help,
            Some(&Unit::Seconds),
            MetricType::Counter,
        )?;
        lines(&mut metric, whole(|family| family.lifetime), seconds_counter)?;

        let help = "Tokens that may be served now";
        let mut metric =
            encoder.encode_descriptor("tokens_usable", help, None, MetricType::Gauge)?;
        let usable = self.usable_by_label();
        let usable = usable.iter().map(|(name, count)| ([("family", name.as_str())], *count));
        lines(&mut metric, usable, |metric, count| metric.encode_gauge(&count))?;

        let help = "How long mints took, failed ones included";
        let mut metric = encoder.encode_descriptor(
            "mint_duration",
            help,
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        let took = families.iter().zip(&labels);
        let took = took.map(|(family, name)| ([("family", name.as_str())], &family.took));
        lines(&mut metric, took, spans)?;

        let help = "How long calls waited for somebody else's mint";
        let mut metric =
            encoder.encode_descriptor("wait", help, Some(&Unit::Seconds), MetricType::Histogram)?;
        spans(&mut metric, &self.counts.waited)
    }

    /// Those without a place of their own are with the others here, too. A family that has none now
    /// is 0 and not absent, or its mints could not be compared with it.
    fn usable_by_label(&self) -> BTreeMap<String, u64> {
        let families = self.counts.families.iter();
        let mut usable: BTreeMap<_, _> = families.map(|family| (label(&family.name), 0)).collect();
        for (name, count) in &self.usable {
            let known = self.counts.families.iter().any(|family| family.name == *name);
            let name = if known { label(name) } else { OTHER.to_owned() };
            *usable.entry(name).or_default() += count;
        }
        usable
    }

    fn rates(&self, encoder: &mut DescriptorEncoder<'_>) -> Written {
        let names: Vec<String> = self.sheets.iter().map(|sheet| label(&sheet.name)).collect();
        let by_sheet = |value: fn(&SheetAge) -> u64| {
            self.sheets.iter().zip(&names).map(move |(sheet, name)| {
                ([("sheet", name.as_str()), ("source", sheet.source.as_str())], value(sheet))
            })
        };
        let gauges: [SheetGauge; 3] = [
            ("fx_age", "Since the sheet's own date", Some(&Unit::Seconds), |sheet| sheet.age),
            (
                "fx_confirmed_age",
                "Since a source last said that the sheet is its newest",
                Some(&Unit::Seconds),
                |sheet| sheet.confirmed,
            ),
            ("fx_sheet_held_back", "A newer sheet looks wrong: 1", None, |sheet| {
                u64::from(sheet.held_back)
            }),
        ];
        for (name, help, unit, value) in gauges {
            let mut metric = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
            lines(&mut metric, by_sheet(value), |metric, value| metric.encode_gauge(&value))?;
        }

        let sources = &self.counts.sources;
        let names: Vec<String> = sources.iter().map(|source| label(&source.name)).collect();
        let help = "Calls to sources of rates";
        let mut metric =
            encoder.encode_descriptor("fx_provider_calls", help, None, MetricType::Counter)?;
        let calls = sources.iter().zip(&names);
        let calls = calls.map(|(source, name)| ([("source", name.as_str())], source.calls));
        lines(&mut metric, calls, counter)?;

        let help = "What came of asking a source of rates";
        let mut metric =
            encoder.encode_descriptor("fx_refresh", help, None, MetricType::Counter)?;
        let results = sources.iter().zip(&names).flat_map(|(source, name)| {
            let results = Refresh::LABELS.iter().zip(source.refreshes);
            results.map(move |(result, count)| {
                ([("source", name.as_str()), ("result", *result)], count)
            })
        });
        lines(&mut metric, results, counter)?;

        let help = "When a sheet is due again, as configured";
        let interval = self.refresh_interval;
        gauge(encoder, "fx_refresh_interval", help, Some(&Unit::Seconds), interval)
    }

    fn state(&self, encoder: &mut DescriptorEncoder<'_>) -> Written {
        let flags = [
            ("store_up", "The store answered when it was last asked: 1", self.store_up),
            ("breaker_open", "This host does not ask the store for a moment: 1", self.breaker_open),
            ("coherent", "What this host has is known to be the newest: 1", self.coherent),
        ];
        let led =
            self.led.map(|led| ("leader", "A process of this host follows the change log: 1", led));
        for (name, help, flag) in flags.into_iter().chain(led) {
            gauge(encoder, name, help, None, u64::from(flag))?;
        }
        let help = "Hits and mints by family are counted over all processes of this host: 1";
        gauge(encoder, "host_counts", help, None, u64::from(self.of_host))?;
        let help = "Names that have a place on this host";
        gauge(encoder, "host_entries", help, None, self.resident)?;
        if let Some(table) = self.table {
            let bytes = Some(&Unit::Bytes);
            gauge(encoder, "host_slots", "Places of the host table", None, table.slots)?;
            gauge(encoder, "host_slots_used", "Places that are taken", None, table.used)?;
            let help = "What the host table may occupy";
            gauge(encoder, "host_memory_limit", help, bytes, table.memory)?;
            let help = "What the host table occupies";
            gauge(encoder, "host_memory_used", help, bytes, table.occupied)?;
        }
        // A gauge, which any reader knows, where OpenMetrics has an info.
        let mut metric =
            encoder.encode_descriptor("build_info", "The extension", None, MetricType::Gauge)?;
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        metric.encode_family(&version)?.encode_gauge(&1_u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::tally::Tally;
    use std::time::Duration;

    fn series(text: &str, begins: &str) -> Vec<String> {
        let lines = text.lines().filter(|line| line.starts_with(begins));
        lines.map(|line| line.strip_prefix(begins).unwrap().to_owned()).collect()
    }

    #[test]
    fn every_counter_is_shown_once_by_itself_or_by_a_label() {
        let labelled = [
            Counter::TokenHits,
            Counter::TokenMisses,
            Counter::TokenMints,
            Counter::MintFailures,
            Counter::FxFetches,
            Counter::FxFailures,
            Counter::Waits,
        ];
        for (counter, name) in Counter::ALL {
            let plain = PLAIN.iter().filter(|(which, ..)| *which == counter).count();
            assert_eq!(plain + usize::from(labelled.contains(&counter)), 1, "{name}");
        }
    }

    #[test]
    fn a_series_without_a_label_is_there_before_anything_has_happened() {
        let counters = Counter::ALL.map(|(counter, _)| (counter, 0)).to_vec();
        let text = text(Scrape { counters, ..Scrape::default() });
        for name in [
            "sharedstate_wait_seconds_count",
            "sharedstate_redis_commands_total",
            "sharedstate_fx_refresh_interval_seconds",
            "sharedstate_store_up",
        ] {
            assert_eq!(series(&text, &format!("{name} ")), ["0"], "{name}");
        }
        assert!(series(&text, "sharedstate_leader ").is_empty(), "nobody can follow anything");
    }

    #[test]
    fn names_of_any_bytes_are_labels_that_differ_and_break_no_line() {
        let tally = Tally::of_process();
        for name in [&b"a\"b"[..], b"a\\b", b"caf\xe9", b"caf\xe8", "café".as_bytes()] {
            tally.hit(name, Hit::Memo, 1);
        }
        let text = text(Scrape { counts: tally.counts(), ..Scrape::default() });
        let mut memo = series(&text, "sharedstate_token_cache_hits_total{family=");
        memo.retain(|line| line.ends_with("tier=\"memo\"} 1"));
        memo.sort();
        let labels: Vec<_> = memo.iter().map(|line| line.split_once(',').unwrap().0).collect();
        let wanted =
            [r#""a\"b""#, r#""a\\b""#, r#""bytes:caf%E8""#, r#""bytes:caf%E9""#, r#""café""#];
        assert_eq!(labels, wanted);
    }

    #[test]
    fn spans_are_cumulative_and_end_with_the_count() {
        let tally = Tally::of_process();
        for millis in [5, 30, 90_000] {
            tally.waited(Duration::from_millis(millis));
        }
        let text = text(Scrape { counts: tally.counts(), ..Scrape::default() });
        let buckets = series(&text, "sharedstate_wait_seconds_bucket{le=");
        let value = |le: &str| buckets.iter().find(|line| line.starts_with(le)).unwrap().clone();
        assert_eq!(value("\"0.01\""), "\"0.01\"} 1");
        assert_eq!(value("\"30.0\""), "\"30.0\"} 2");
        assert_eq!(value("\"+Inf\""), "\"+Inf\"} 3");
        assert_eq!(series(&text, "sharedstate_wait_seconds_count "), ["3"]);
        assert_eq!(series(&text, "sharedstate_wait_seconds_sum "), ["90.035"]);
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn usable_tokens_of_families_without_a_place_are_with_the_others() {
        let tally = Tally::of_process();
        tally.hit(b"crm", Hit::Memo, 1);
        let usable = [(b"crm".to_vec(), 2), (b"shop".to_vec(), 3), (b"billing".to_vec(), 4)];
        let text =
            text(Scrape { counts: tally.counts(), usable: usable.into(), ..Scrape::default() });
        let lines = series(&text, "sharedstate_tokens_usable{family=");
        assert_eq!(lines, ["\"crm\"} 2", "\"other\"} 7"]);
    }

    #[test]
    fn a_family_without_a_usable_token_says_so() {
        let tally = Tally::of_process();
        tally.mint_failed(b"crm", Duration::ZERO);
        let text = text(Scrape { counts: tally.counts(), ..Scrape::default() });
        assert_eq!(series(&text, "sharedstate_tokens_usable{family="), ["\"crm\"} 0"]);
    }

    #[test]
    fn damaged_counts_are_shown_and_do_not_overflow() {
        let waited = Spans { sum: u64::MAX, buckets: [u64::MAX; BOUNDS.len() + 1] };
        let counts = Counts { waited, ..Counts::default() };
        let text = text(Scrape { counts, ..Scrape::default() });
        let most = 12 * (1_u64 << 53);
        assert_eq!(series(&text, "sharedstate_wait_seconds_count "), [most.to_string()]);
    }
}
