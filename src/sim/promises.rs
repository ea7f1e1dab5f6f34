//! The promises of docs/PROTOCOL.md, each judged by what really happened.

use super::clock::{MS, Micros, SECOND};
use super::data::Data;
use super::host::{Began, Process};
use super::issuer::Issued;
use super::plan::Wrong;
use super::task::{self, Owner};
use super::witness::{self, MintSeen, Split, Witness};
use crate::clock::Clock as _;
use crate::entry::{Digest, Key, Version};
use crate::flight::machine::Authority;
use crate::flight::{FlightError, Served, StoreDown, Tier};
use crate::store::{Claim, Host as _, Known, Lease};

/// What clocks that are right differ by, what a tick is and what a timeline passes over.
const IN_STEP: Micros = 250 * MS;
/// A host that stood still for less does not hear of it.
const STOOD_UNHEARD: Micros = 2_500 * MS;
/// A second until a leader looks, and the way there.
pub const LOOKS: Micros = 2 * SECOND;
/// Who waits for a turn to ask, connects, and is answered slowly.
const QUEUE: Micros = 500 * MS;
/// The least pause after a failure, less what clocks and messages take.
const FAILURE: Micros = 800 * MS;
/// The second after which a silence is believed, by a clock that is slewed.
const PATIENCE: Micros = 900 * MS;
/// For so long a host remembers that it was refused: the longest pause, twice, and a stop.
const REFUSED: Micros = 28 * SECOND;

impl Witness {
    fn breaks(&mut self, sentence: String) {
        super::trace::say(|| format!("BROKEN: {sentence}"));
        self.broken.get_or_insert(sentence);
    }

    /// A script ran over a key's row on the authority.
    pub fn judge_row(&mut self, key: usize, row: &[u8], takeover: &[u8], data: &Data, wall: i64) {
        let (line, digest) = self.look_at_row(row, data);
        let before = self.rows[key].now();
        if line.version > Version::NONE && line.version < line.floor {
            self.breaks(format!(
                "Version {} is stored below the floor {}.",
                line.version, line.floor
            ));
        }
        // A row ends by the server's clock, and with it what was written there.
        let ended = self.settings.wrong == Wrong::Servers && line.floor == Version::NONE;
        if line.floor < before.floor && !ended {
            self.breaks(format!("The floor went back from {} to {}.", before.floor, line.floor));
        }
        if line.version > Version::NONE && line.version < before.version && !ended {
            self.breaks(format!(
                "An older mint, {}, replaced a newer one, {}.",
                line.version, before.version
            ));
        }
        if line.version > Version::NONE {
            let known = self.values.entry((key, line.version)).or_insert_with(|| digest.clone());
            if *known != digest {
                self.breaks(format!("Two values were committed as version {}.", line.version));
            }
        }
        if (line.version, line.floor) != (before.version, before.floor) {
            self.rows[key].lines.push(line);
        }
        self.rows[key].digest = digest;
        self.judge_lease(key, takeover, data, wall);
    }

    fn judge_lease(&mut self, key: usize, takeover: &[u8], data: &Data, wall: i64) {
        let lease = data.peek_text(&witness::lease_of(&self.keys[key]));
        let lease = lease.map(|(text, until)| (text.to_vec(), until.unwrap_or(i64::MAX)));
        let secret =
            |text: &[u8]| text.split(|byte| *byte == b':').next().unwrap_or_default().to_vec();
        if let (Some((before, until)), Some((after, _))) = (&self.rows[key].lease, &lease)
            && secret(before) != secret(after)
            && *until > wall / 1000
            && secret(before) != takeover
        {
            let (before, after) = (before.clone(), after.clone());
            self.breaks(format!(
                "The lease {} was given while {} lived.",
                String::from_utf8_lossy(&after),
                String::from_utf8_lossy(&before)
            ));
        }
        self.rows[key].lease = lease;
    }

    /// The version a host knows to have been the newest then was it.
    fn judge_confirmed(&mut self, owner: Owner, key: usize, known: &Known, version: Version) {
        let (when, until) = self.true_times(owner.host, known.confirmed_at);
        let row = &self.rows[key];
        // It may have been lost within a tick.
        let newest = row.at(when).version.min(row.at(until).version);
        let stood = &self.hosts[owner.host].stood;
        let excused = self.splits.iter().any(|Split { from, until }| {
            // Who stood still hears of it, and of what was before, when it goes on.
            let (since, until) = match stood.iter().find(|stood| stood.contains(from)) {
                Some(stood) => (*stood.start(), stood.end() + (until - from).max(LOOKS)),
                None => (*from, *until),
            };
            (*from..=until).contains(&when) && version >= row.at(since - 1).version
        });
        if version < newest && !excused {
            self.breaks(format!(
                "Host {} vouches that version {version} of key {key} was the newest {} ms ago, and \
                 version {newest} was.",
                owner.host,
                (task::now() - when) / MS
            ));
        }
    }

    pub fn judge_mint(&mut self, mint: &MintSeen) {
        self.judge_pause(mint);
        if mint.authority == Authority::Host {
            self.judge_alone(mint.owner.host);
        }
        if mint.authority == Authority::Host && self.settings.store_down == StoreDown::Fail {
            self.breaks(format!("Host {} minted for itself and must not.", mint.owner.host));
        }
    }

    /// Who failed is not asked again at once, by whomever.
    fn judge_pause(&mut self, mint: &MintSeen) {
        let last = self.mints.iter().rev().find(|it| it.key == mint.key && it.until.is_some());
        let Some(MintSeen { failed: true, from, until: Some(until), owner, .. }) = last else {
            return;
        };
        let left_alone = |host: usize| self.hosts[host].disturbed_until < *until;
        // Who has lost his lease, as Redis did, cannot say that he has failed.
        let paused = left_alone(mint.owner.host) && left_alone(owner.host) && self.lost_at < *from;
        if paused && mint.from - until < FAILURE && self.settings.wrong == Wrong::Nobody {
            let after = (mint.from - until) / MS;
            self.breaks(format!("A mint began {after} ms after the last one had failed."));
        }
    }

    /// A host mints for itself only when Redis refuses, or was silent for a second.
    fn judge_alone(&mut self, host: usize) {
        if self.settings.wrong == Wrong::Host(host) {
            // The second is by its own clock.
            return;
        }
        let began = self.lookups.get(&task::current()).map_or(0, |lookup| lookup.began);
        let (now, seen) = (task::now(), &self.hosts[host]);
        let silent = seen.silent_since.is_some_and(|since| now - since >= PATIENCE);
        if now - began < PATIENCE && !silent && now - seen.refused_at > REFUSED {
            self.breaks(format!(
                "Host {host} minted for itself after {} ms, and Redis was merely slow.",
                (now - began) / MS
            ));
        }
    }

    /// Nothing breaks: a key is minted once in its lifetime, for all.
    pub fn judge_quiet(&mut self) {
        let life = self.settings.renewed_after() - IN_STEP;
        for (at, mint) in self.mints.iter().enumerate() {
            let next = self.mints[at + 1..].iter().find(|next| next.key == mint.key);
            let sentence = match next {
                _ if mint.authority == Authority::Host => "A host minted for itself",
                Some(next) if next.from - mint.from < life => {
                    "A key was minted twice in a lifetime"
                }
                _ => continue,
            };
            return self.breaks(format!("{sentence} although nothing had broken."));
        }
    }

    /// What was dropped before it was asked for is gone everywhere, as soon as an invalidation can have been heard of.
    fn judge_dropped(&mut self, owner: Owner, key: usize, issued: &Issued, old: Micros) {
        // A server whose clock is behind makes floors below what a host minted for itself.
        let alone = self.settings.wrong == Wrong::Servers
            && self.mints.iter().any(|mint| {
                (mint.authority, mint.key) == (Authority::Host, key)
                    && (mint.from..=mint.until.unwrap_or(i64::MAX)).contains(&issued.at)
            });
        let dropped = !alone
            && self.drops.iter().any(|(dropped, began, acknowledged)| {
                *dropped == key
                    && issued.at < *began
                    && *acknowledged < old
                    && self.lost_at < *began
            });
        if dropped {
            self.breaks(format!("Host {} served what had been dropped for long.", owner.host));
        }
    }

    fn judge_end(&mut self, owner: Owner, issued: &Issued) {
        let now = task::now();
        let seen = &self.hosts[owner.host];
        if seen.unaware.is_some() {
            return;
        }
        let margin = (self.settings.margin.as_micros() as i64).min(self.settings.lifetime / 5);
        let (end, what) = match self.settings.wrong {
            Wrong::Nobody => (issued.expires - margin, "inside its margin"),
            _ => (issued.expires, "after its end"),
        };
        let stands = matches!(self.settings.wrong, Wrong::Host(_));
        let slack = if stands { STOOD_UNHEARD } else { 0 };
        if now >= end + IN_STEP + slack {
            self.breaks(format!(
                "Host {} handed out a token {what}, by {} ms.",
                owner.host,
                (now - end) / MS
            ));
        }
    }

    fn judge_young(&mut self, owner: Owner, key: usize, served: &Served, issued: &Issued) {
        let now = task::now();
        let twice = 2 * self.settings.staleness.as_micros() as i64;
        // An answer may take its time, and who waits for another's gives up after 300 ms.
        let old = now - twice - SECOND - self.settings.timeout.as_micros() as i64;
        if old < self.hosts[owner.host].disturbed_until {
            return;
        }
        self.judge_dropped(owner, key, issued, old);
        let newest = self.rows[key].at(old);
        let version = served.entry.version;
        if version < newest.version || version < newest.floor {
            self.breaks(format!(
                "Host {} served version {version} of key {key}, and for {} ms and more there was {newest:?}.",
                owner.host,
                (now - old) / MS
            ));
        }
    }
}

/// A host was given a lease.
pub fn leased(host: usize, claim: &Claim, lease: &Lease) {
    if lease.version <= claim.highest_known {
        witness::broken(format!(
            "Host {host} was given version {}, and has seen {}.",
            lease.version, claim.highest_known
        ));
    }
}

/// A lookup ended in this token, and not in one that was rejected.
pub fn served(process: &Process, key: &Key, served: &Served, rejected: Option<Digest>) {
    let owner = process.owner();
    let memory = &process.machine.memory;
    let (now, known) = (memory.now(), memory.look(key));
    let issuer = process.issuer().borrow();
    let issued = issuer.token(&served.entry.value);
    witness::with(|witness| {
        let index = witness.key(key);
        witness.served += 1;
        let Some(issued) = issued.filter(|issued| issued.key == *key) else {
            return witness.breaks(format!("Host {} served what is no token of it.", owner.host));
        };
        witness.judge_end(owner, issued);
        if served.trusted_until > served.entry.timing.usable_until
            || !served.entry.servable(key.kind(), now)
        {
            witness.breaks(format!("Host {} serves what it knows to have ended.", owner.host));
        }
        let version = served.entry.version;
        let highest =
            known.as_ref().map_or(version, |known| known.highest.max(known.floor).max(version));
        if highest.0 as i64 > witness::LATEST {
            witness.breaks(format!("Host {} believes in version {highest}.", owner.host));
        }
        let told = witness.hosts[owner.host].told[index];
        // An answer may be overtaken by news on its way here; who got none has looked once more.
        let began = witness.lookups.get(&task::current()).map(|lookup| lookup.told[index]);
        let told = match began {
            // Not where the key was forgotten meanwhile.
            Some(began) if began.floor <= told.floor && began.served <= told.served => {
                if served.tier == Tier::Host && served.degraded { told } else { began }
            }
            _ => told,
        };
        if version < told.floor {
            witness.breaks(format!(
                "Host {} served version {version} of key {index} below the floor {} that it knows.",
                owner.host, told.floor
            ));
        }
        // A host that was alone counts by its own clock, and that of the servers may be days behind.
        // Nor can a deadline be known where those differ, or what is next after one that was rejected; and who has
        // minted for long gets what he minted.
        let comparable = witness.settings.wrong != Wrong::Servers
            && rejected.is_none()
            && served.tier != Tier::Minted;
        if comparable && version < told.served && issued.at < told.issued {
            witness.breaks(format!(
                "Host {} served version {version} of key {index} after version {}.",
                owner.host, told.served
            ));
        }
        let told = &mut witness.hosts[owner.host].told[index];
        if version > told.served {
            (told.served, told.issued) = (version, issued.at);
        }
        if let Some(known) = &known
            // What Redis has not got nobody has vouched for.
            && known.entry.as_ref().is_some_and(|it| it.version == version && !it.unsynced)
        {
            witness.judge_confirmed(owner, index, known, version);
        }
        if !served.degraded {
            witness.judge_young(owner, index, served, issued);
        }
    });
}

/// A lookup ended, after so long.
pub fn waited(
    process: &Process,
    began: &Began,
    minted: Micros,
    mints: i64,
    error: Option<&FlightError>,
) {
    let stopped = process.stopped_for.get() - began.stopped_for;
    let stood = process.machine.stood_for.get() - began.stood_for;
    let waited = task::now() - began.at - minted - stopped - stood;
    witness::with(|witness| {
        let timeout = witness.settings.timeout.as_micros() as i64;
        let question = QUEUE + 5 * timeout;
        let allowed =
            witness.settings.wait.as_micros() as i64 + question * (1 + 4 * mints) + 100 * MS;
        if waited > allowed {
            witness.breaks(format!(
                "A lookup on host {} waited for {} ms, of {} at the most: {error:?}.",
                process.machine.index,
                waited / MS,
                allowed / MS
            ));
        }
    });
}
