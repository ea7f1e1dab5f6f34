//! How often a source may be asked in a calendar month, counted over the whole fleet and *before*
//! the call: a call that fails, or whose process dies, has been made all the same.
//!
//! The count is an entry like any other, committed under a lease of its own. So it is shared by all
//! hosts, only ever grows within a month, and comes back from the host that saw the highest when the
//! store has lost it. The month is that of the lease's version, which is the store's clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::entry::{Fingerprint, Key, Kind, Timing, Version};
use crate::flight::{Engine, Outcome, Plan, Renew, Step, StoreDown, Tier};
use crate::store::Host;

/// The count as it is stored.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Calls {
    /// Year × 12 + month.
    month: i32,
    calls: u32,
}

/// A count that is older than this is of another month.
const KEPT: Duration = Duration::from_secs(40 * 86_400);
/// Others who count at this moment are waited for.
const PATIENCE: Duration = Duration::from_secs(1);
const NAP: Duration = Duration::from_millis(20);

/// Take one of the month's `limit` calls to `source`. The error is a sentence: none is left, or the
/// store cannot be asked, and then nobody knows how many are.
pub fn reserve(
    engine: &Engine,
    host: &dyn Host,
    source: &str,
    limit: u32,
    plan: &Plan,
) -> Result<(), String> {
    let key = Key::new(Kind::Quota, source.as_bytes(), Fingerprint::default())?;
    let give_up = host.now().plus(PATIENCE);
    let plan = Plan {
        wait_until: give_up,
        store_down: StoreDown::Fail,
        may_mint: true,
        renew: Renew::AtAge(Duration::ZERO),
        ..plan.clone()
    };
    loop {
        match engine.begin(&key, &plan) {
            Step::Mint(ticket) => {
                let month = month_of(Version(ticket.version()));
                let calls = counted(host, &key, month);
                if calls >= limit {
                    engine.finish(*ticket, Outcome::Abandoned);
                    return Err(format!("its {limit} calls of this month are used up"));
                }
                let value = serde_json::to_vec(&Calls { month, calls: calls + 1 });
                let value = value.map_err(|error| error.to_string())?;
                let end = ticket.minted_from.plus(KEPT);
                let minted_at = ticket.minted_from;
                let timing =
                    Timing { minted_at, refresh_at: end, usable_until: end, expires_at: end };
                let outcome = Outcome::Minted { value, timing, detail: Vec::new() };
                return match engine.finish(*ticket, outcome) {
                    Step::Served(served) if served.tier == Tier::Minted && !served.degraded => {
                        Ok(())
                    }
                    _ => Err("a call of this month's quota could not be reserved".into()),
                };
            }
            Step::Served(served) if served.degraded => {
                return Err("its quota cannot be counted while Redis does not answer".into());
            }
            // Somebody else has counted, or is counting: count on from there.
            Step::Served(_) if host.now() < give_up => std::thread::sleep(NAP),
            Step::Served(_) => return Err("its quota is being counted by others".into()),
            Step::Failed(error) => return Err(format!("its quota cannot be counted: {error}")),
        }
    }
}

fn counted(host: &dyn Host, key: &Key, month: i32) -> u32 {
    let entry = host.look(key).and_then(|known| known.entry);
    let calls = entry.and_then(|entry| serde_json::from_slice::<Calls>(&entry.value).ok());
    calls.filter(|calls| calls.month == month).map_or(0, |calls| calls.calls)
}

fn month_of(version: Version) -> i32 {
    let seconds = i64::try_from(version.0 / 1_000_000).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds)
        .map_or(0, |at| at.year() * 12 + i32::from(u8::from(at.month())))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::Clock as _;
    use crate::clock::fake::FakeClock;
    use crate::store::faulty::FaultyStore;
    use crate::store::memory::MemoryHost;

    struct Hosts {
        clock: Arc<FakeClock>,
        store: Arc<FaultyStore>,
        hosts: Vec<(Arc<MemoryHost>, Engine)>,
    }

    fn two_hosts() -> Hosts {
        let clock = Arc::new(FakeClock::at(1_000));
        let store = Arc::new(FaultyStore::new(Arc::new(MemoryHost::new(clock.clone()))));
        let host = |_| {
            let host = Arc::new(MemoryHost::new(clock.clone()));
            let engine = Engine::new(host.clone(), Some(store.clone()));
            (host, engine)
        };
        let hosts = (0..2).map(host).collect();
        Hosts { clock, store, hosts }
    }

    impl Hosts {
        fn reserve(&self, host: usize, limit: u32) -> Result<(), String> {
            let (host, engine) = &self.hosts[host];
            super::reserve(
                engine,
                &**host,
                "openexchangerates",
                limit,
                &Plan::usual(self.clock.now()),
            )
        }
    }

    #[test]
    fn two_hosts_together_make_as_many_calls_a_month_as_the_quota_has() {
        let hosts = two_hosts();
        let made = (0..10).filter(|n| hosts.reserve(n % 2, 7).is_ok()).count();
        assert_eq!(made, 7);
        assert!(hosts.reserve(1, 7).unwrap_err().contains("7 calls of this month are used up"));
        hosts.clock.advance(Duration::from_secs(32 * 86_400));
        assert_eq!(hosts.reserve(1, 7), Ok(()), "the next month begins at none");
    }

    #[test]
    fn while_the_store_cannot_count_nobody_calls() {
        let hosts = two_hosts();
        hosts.reserve(0, 7).unwrap();
        hosts.store.set_down(true);
        assert!(hosts.reserve(0, 7).unwrap_err().contains("cannot be counted"));
        assert!(hosts.reserve(1, 7).unwrap_err().contains("cannot be counted"));
    }

    #[test]
    fn a_month_ends_where_the_calendar_says() {
        let month = |seconds: u64| month_of(Version(seconds * 1_000_000));
        assert_eq!(month(1_761_955_199), 2025 * 12 + 10);
        assert_eq!(month(1_761_955_200), 2025 * 12 + 11);
    }
}
