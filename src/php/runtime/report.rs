//! What `sharedstate_status`, `sharedstate_metrics`, `sharedstate_entries` and phpinfo show: read from
//! this host's memory alone, without a lock that a lookup takes and without a question to Redis.

use super::{Fleet, Runtime, identity};
use crate::entry::Kind;
use crate::fx::Age;
use crate::fx::holding::Holding;
use crate::metrics::Counter;
use crate::metrics::text::{Scrape, SheetAge, TableUse};
use crate::store::{Resident, Stock};

impl Runtime {
    /// At most so many names, with what is known of them.
    pub fn residents(&self, at_most: usize) -> Vec<Resident> {
        self.host.survey(at_most)
    }

    /// Whether what is held is known to be the newest, as far as anybody can tell.
    pub fn is_confirmed(&self, resident: &Resident) -> bool {
        let unsynced = resident.entry.as_ref().is_some_and(|entry| entry.unsynced);
        let age = resident.confirmed_at.until(self.now());
        self.fleet.is_none() || (!unsynced && age <= self.config.max_staleness)
    }

    pub fn scrape(&self) -> Scrape {
        let Stock { resident, usable, sheets } = self.host.stock();
        let (health, now) = (self.host.health(), self.now());
        let tally = self.host.tally();
        let table = self.table.as_ref().ok().map(|table| table.usage());
        let fresh = health.heartbeat.until(now) <= self.config.max_staleness;
        Scrape {
            counters: Counter::ALL
                .iter()
                .map(|(counter, _)| (*counter, self.host.counted(*counter)))
                .collect(),
            counts: tally.counts(),
            of_host: tally.is_of_host(),
            usable,
            sheets: sheets.iter().filter_map(|sheet| self.sheet_age(sheet)).collect(),
            table: table.map(|usage| TableUse {
                slots: usage.slots as u64,
                used: usage.used as u64,
                memory: usage.memory,
                occupied: usage.occupied,
            }),
            resident: resident as u64,
            store_up: !health.failing,
            breaker_open: health.asked_again.is_some(),
            coherent: self.fleet.is_none() || fresh,
            led: self.fleet.is_some().then_some(health.led),
            refresh_interval: self.config.fx_policy.interval.as_secs(),
        }
    }

    fn sheet_age(&self, resident: &Resident) -> Option<SheetAge> {
        let entry = resident.entry.as_ref()?;
        let now = self.now();
        if !entry.servable(Kind::Sheet, now) {
            return None;
        }
        let Holding { sheet, quarantine, .. } = Holding::from_bytes(&entry.value).ok()?;
        let confirmed_at = entry.timing.minted_at;
        Some(SheetAge {
            name: resident.key.name().to_vec(),
            source: sheet.source().to_owned(),
            age: Age::of(sheet.as_of(), confirmed_at, now, self.wall()).seconds(now),
            confirmed: confirmed_at.until(now).as_secs(),
            held_back: quarantine.is_some(),
        })
    }

    pub fn numbers(&self) -> Vec<(&'static str, u64)> {
        let mut numbers: Vec<_> = Counter::ALL
            .iter()
            .map(|(counter, name)| (*name, self.host.counted(*counter)))
            .collect();
        if let Ok(table) = &self.table {
            let usage = table.usage();
            numbers.extend([
                ("host_slots", usage.slots as u64),
                ("host_slots_used", usage.used as u64),
                ("host_memory", usage.memory),
                ("host_memory_used", usage.occupied),
            ]);
        }
        if let Some(sheet) = self.look(&self.rates.key).and_then(|known| known.entry) {
            let confirmed = sheet.timing.minted_at.until(self.now()).as_secs();
            numbers.push(("fx_confirmed_age_s", confirmed));
            if let Ok(Holding { sheet, quarantine, .. }) = Holding::from_bytes(&sheet.value) {
                let wall = self.wall().unix_millis().div_euclid(1000);
                let age = sheet.as_of().map(|as_of| u64::try_from(wall - as_of).unwrap_or(0));
                numbers.push(("fx_age_s", age.unwrap_or(confirmed)));
                numbers.push(("fx_sheet_held_back", u64::from(quarantine.is_some())));
            }
        }
        if let Some(Fleet { store, log, .. }) = &self.fleet {
            let pause = self.host.health().asked_again;
            let pause = pause.map_or(0, |until| self.now().until(until).as_millis() as u64);
            let sent = store.commands_sent() + log.commands_sent();
            numbers.push(("redis_commands_of_this_process", sent));
            numbers.push(("redis_asked_again_in_ms", pause));
        }
        numbers
    }

    pub fn places(&self) -> Vec<(&'static str, String)> {
        let table = match &self.table {
            Ok(table) => table.path().display().to_string(),
            Err(why) => format!("none, this process's memory stands in: {why}"),
        };
        let store = if self.fleet.is_some() {
            self.config.shown("sharedstate.redis.dsn")
        } else {
            "the host table, for this host only".into()
        };
        let mut places = vec![
            ("store", store),
            ("host_table", table),
            ("host_table_hashed_from", identity(&self.config, self.seal.as_deref()).join(", ")),
        ];
        let sealed = self.seal.as_ref().map(|seal| format!("with key {}", seal.id()));
        places.push(("values_sealed", sealed.unwrap_or_else(|| "no".into())));
        places.extend(self.engine.last_failure().map(|why| ("store_last_failure", why)));
        places
    }
}
