//! Which server to speak to, where a DSN names those who know.
//!
//! - **Sentinel**: the first sentinel that names a master which says of itself that it is one. A
//!   sentinel that was cut off may name the former one; its role, and the next sentinel, decide.
//! - **Cluster**: all keys of a prefix are one slot, so one node at a time is spoken to. Any node
//!   knows which; the one that had it last is asked first, and mostly is the answer itself.
//!
//! Who is asked gets an equal share of the time that is left, so that one that is dead without
//! saying so leaves enough for the others.

use redis::{ConnectionLike as _, FromRedisValue as _, Value, cmd};

use super::config::{Endpoint, Login, Topology};
use super::connection::{Connection, Connector, Role};
use crate::clock::{Uptime, system};
use crate::store::StoreError;

impl Connector {
    /// A connection to the server that has the data now, ready for requests, by `deadline`.
    pub fn open(&self, deadline: Uptime) -> Result<Connection, StoreError> {
        let config = self.config();
        match &config.topology {
            Topology::Single(endpoint) => {
                self.open_at(endpoint, &config.login, Role::Whatever, deadline)
            }
            Topology::Sentinel { sentinels, login, .. } => {
                self.first(sentinels, deadline, |sentinel, share| {
                    let master = self.master(sentinel, login, share)?;
                    let by = half_way(share, deadline);
                    self.open_at(&master, &config.login, Role::Master, by)
                })
            }
            Topology::Cluster { seeds } => {
                let mut nodes = seeds.clone();
                if let Some(last) = self.last_at() {
                    nodes.retain(|node| *node != last);
                    nodes.insert(0, last);
                }
                self.first(&nodes, deadline, |node, share| self.holder(node, share, deadline))
            }
        }
    }

    /// Whether the server that `connection` leads to is still the one to ask; sentinels only, for
    /// whoever else is wrong says so itself.
    pub fn still_right(&self, connection: &Connection, deadline: Uptime) -> bool {
        let Topology::Sentinel { sentinels, login, .. } = &self.config().topology else {
            return true;
        };
        let named =
            self.first(sentinels, deadline, |sentinel, by| self.master(sentinel, login, by));
        // While no sentinel answers, nothing says that it is not.
        named.map_or(true, |master| master == *connection.endpoint())
    }

    fn first<T>(
        &self,
        endpoints: &[Endpoint],
        deadline: Uptime,
        ask: impl Fn(&Endpoint, Uptime) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut last = None;
        for (tried, endpoint) in endpoints.iter().enumerate() {
            let now = system::monotonic();
            let share = now.until(deadline) / u32::try_from(endpoints.len() - tried).unwrap_or(1);
            match ask(endpoint, now.plus(share)) {
                Ok(answer) => return Ok(answer),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| StoreError::Unreachable("no server is named".into())))
    }

    fn master(
        &self,
        sentinel: &Endpoint,
        login: &Login,
        deadline: Uptime,
    ) -> Result<Endpoint, StoreError> {
        let Topology::Sentinel { master, .. } = &self.config().topology else {
            return Err(StoreError::Refused("no sentinel is configured".into()));
        };
        let mut connection = self.open_at(sentinel, login, Role::Sentinel, deadline)?;
        let mut ask = cmd("SENTINEL");
        ask.arg("get-master-addr-by-name").arg(master);
        let named: Option<(String, u16)> =
            ask.query(&mut connection).map_err(|error| self.explain(&error))?;
        let (host, port) = named.ok_or_else(|| {
            StoreError::Refused(format!(
                "the sentinel at {sentinel} knows no master of the name {master}: check the DSN"
            ))
        })?;
        Ok(Endpoint::Tcp { host, port })
    }

    /// A connection to the holder of our slot, as `node` knows it.
    fn holder(
        &self,
        node: &Endpoint,
        share: Uptime,
        deadline: Uptime,
    ) -> Result<Connection, StoreError> {
        let config = self.config();
        let mut asked = self.open_at(node, &config.login, Role::Whatever, share)?;
        let mut bytes = Vec::new();
        let tag = config.prefix.to_string();
        cmd("CLUSTER").arg("KEYSLOT").arg(&tag).write_packed_command(&mut bytes);
        cmd("CLUSTER").arg("SLOTS").write_packed_command(&mut bytes);
        let answers =
            asked.req_packed_commands(&bytes, 0, 2).map_err(|error| self.explain(&error))?;
        let answers: Result<Vec<Value>, _> =
            answers.into_iter().map(Value::extract_error).collect();
        let answers = answers.map_err(|error| self.explain(&error))?;
        let holder = holder_of(answers, node).ok_or_else(|| {
            StoreError::Refused(format!("no node of the cluster holds the slot, says {node}"))
        })?;
        if holder == *node {
            return Ok(asked);
        }
        self.open_at(&holder, &config.login, Role::Whatever, half_way(share, deadline))
    }
}

/// Until when whom somebody named is waited for: half of what is left, for others may know better. The
/// last one's share is all of it.
fn half_way(share: Uptime, deadline: Uptime) -> Uptime {
    let now = system::monotonic();
    if share >= deadline { deadline } else { now.plus(now.until(deadline) / 2) }
}

/// From the answers to `CLUSTER KEYSLOT` and `CLUSTER SLOTS`: rows of first slot, last slot, the
/// master as host and port, replicas. An empty host means the node that was asked.
pub(super) fn holder_of(answers: Vec<Value>, asked: &Endpoint) -> Option<Endpoint> {
    let [slot, rows]: [Value; 2] = answers.try_into().ok()?;
    let slot = u16::from_redis_value(slot).ok()?;
    for row in Vec::<Vec<Value>>::from_redis_value(rows).ok()? {
        let mut row = row.into_iter();
        let mut bound = || u16::from_redis_value(row.next()?).ok();
        let (first, last) = (bound()?, bound()?);
        if !(first..=last).contains(&slot) {
            continue;
        }
        let mut master = Vec::<Value>::from_redis_value(row.next()?).ok()?.into_iter();
        let host = Option::<String>::from_redis_value(master.next()?).ok()?.unwrap_or_default();
        let port = u16::from_redis_value(master.next()?).ok()?;
        return Some(match (host.as_str(), asked) {
            ("" | "?", Endpoint::Tcp { host, .. }) => Endpoint::Tcp { host: host.clone(), port },
            _ => Endpoint::Tcp { host, port },
        });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn row(first: i64, last: i64, host: Value, port: i64) -> Value {
        let master = Value::Array(vec![host, Value::Int(port), text("id")]);
        Value::Array(vec![Value::Int(first), Value::Int(last), master])
    }

    #[test]
    fn the_slot_decides_and_an_empty_host_is_the_node_that_was_asked() {
        let asked = Endpoint::Tcp { host: "seed".into(), port: 7000 };
        let rows = Value::Array(vec![
            row(0, 5460, text("a"), 1),
            row(5461, 10922, Value::Nil, 2),
            row(10923, 16000, text(""), 3),
        ]);
        let holder = |slot| holder_of(vec![Value::Int(slot), rows.clone()], &asked);
        let tcp = |host: &str, port| Some(Endpoint::Tcp { host: host.into(), port });
        assert_eq!(holder(5460), tcp("a", 1));
        assert_eq!(holder(5461), tcp("seed", 2));
        assert_eq!(holder(16000), tcp("seed", 3));
        assert_eq!(holder(16001), None, "nobody holds it");
    }
}
