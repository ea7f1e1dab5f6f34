//! What really happened: what the authority had at which true time, what each host was told and has served, who minted. The
//! promises are judged by it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::rc::Rc;

use super::clock::{MS, Micros};
use super::data::Data;

use super::plan::Settings;
use super::resp;
use super::task::{self, Owner};
use super::trace;
use crate::clock::{Clock as _, Moment};
use crate::entry::{Key, Version};
use crate::flight::Outcome;
use crate::flight::machine::Authority;
use crate::store::memory::MemoryHost;
use crate::store::{Claim, StoreError};

/// A year after the beginning of a world, and what clocks may be wrong by.
pub const LATEST: Micros = super::world::START + 375 * 86_400 * super::clock::SECOND;

/// What the authority has of a key from a time on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Line {
    pub at: Micros,
    pub version: Version,
    pub floor: Version,
}

/// A key as the authority has it, and as it had it.
#[derive(Default)]
pub struct Row {
    pub lines: Vec<Line>,
    pub digest: Vec<u8>,
    /// Secret and version of the lease, and its end by the server's clock.
    pub lease: Option<(Vec<u8>, i64)>,
}

impl Row {
    pub fn now(&self) -> Line {
        self.lines.last().copied().unwrap_or_default()
    }

    pub fn at(&self, when: Micros) -> Line {
        let after = self.lines.partition_point(|line| line.at <= when);
        after.checked_sub(1).map(|at| self.lines[at]).unwrap_or_default()
    }
}

/// What a host was told and did, of one key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    pub floor: Version,
    /// The newest that it handed out, and when that was issued.
    pub served: Version,
    pub issued: Micros,
}

/// A host, as it is seen from outside.
#[derive(Default)]
pub struct Seen {
    pub told: Vec<Told>,
    /// What the timeline showed when.
    pub moments: Vec<(Moment, Micros)>,
    /// Nothing is asked of it as to Redis before: it could not be reached, or not well.
    pub disturbed_until: Micros,
    /// When it stood still.
    pub stood: Vec<RangeInclusive<Micros>>,
    /// It stood still until then, and has not asked for the server's clock since.
    pub unaware: Option<Micros>,
    /// It has heard a server's clock.
    pub aware_once: bool,
    /// When Redis last refused it, or could not be reached.
    pub refused_at: Micros,
    /// Since when it has answered nothing, if it was asked.
    pub silent_since: Option<Micros>,
}

/// Two servers took writes, or one that was none any more was believed: from, until.
#[derive(Clone, Copy, Debug)]
pub struct Split {
    pub from: Micros,
    pub until: Micros,
}

/// A lookup of a task.
#[derive(Default)]
pub struct Lookup {
    pub number: u64,
    pub began: Micros,
    /// What its host knew when it began, by key.
    pub told: Vec<Told>,
}

pub struct MintSeen {
    pub key: usize,
    pub owner: Owner,
    pub authority: Authority,
    pub from: Micros,
    pub until: Option<Micros>,
    pub minted: bool,
    pub failed: bool,
}

pub struct Witness {
    pub settings: Rc<Settings>,
    pub keys: Vec<Key>,
    pub names: BTreeMap<Vec<u8>, usize>,
    pub authority: usize,
    pub rows: Vec<Row>,
    /// By key and version: what was committed as it.
    pub values: BTreeMap<(usize, Version), Vec<u8>>,
    pub hosts: Vec<Seen>,
    pub splits: Vec<Split>,
    pub mints: Vec<MintSeen>,
    /// Which lookup used a secret, by its task and number.
    pub secrets: BTreeMap<u64, (Option<task::TaskId>, u64)>,
    /// By task, its last lookup.
    pub lookups: BTreeMap<Option<task::TaskId>, Lookup>,
    pub broken: Option<String>,
    pub served: u64,
    /// What has been, by name.
    pub seen: BTreeSet<&'static str>,
    /// By key: when a drop of whatever there was began, and when it was acknowledged.
    pub drops: Vec<(usize, Micros, Micros)>,
    /// When the authority last lost anything.
    pub lost_at: Micros,
}

thread_local! {
    static WITNESS: RefCell<Option<Witness>> = const { RefCell::new(None) };
}

pub fn begin(settings: Rc<Settings>, keys: Vec<Key>) {
    let names = keys.iter().enumerate();
    let names = names.map(|(at, key)| (row_of(key), at)).collect();
    let seen = |_| Seen { told: vec![Told::default(); keys.len()], ..Seen::default() };
    let hosts = (0..settings.hosts).map(seen).collect();
    let rows = keys.iter().map(|_| Row::default()).collect();
    WITNESS.set(Some(Witness {
        settings,
        keys,
        names,
        authority: 0,
        rows,
        values: BTreeMap::new(),
        hosts,
        splits: Vec::new(),
        mints: Vec::new(),
        secrets: BTreeMap::new(),
        lookups: BTreeMap::new(),
        broken: None,
        served: 0,
        seen: BTreeSet::new(),
        drops: Vec::new(),
        lost_at: 0,
    }));
}

pub fn end() -> Option<Witness> {
    WITNESS.take()
}

pub fn with<T: Default>(look: impl FnOnce(&mut Witness) -> T) -> T {
    WITNESS.with_borrow_mut(|witness| witness.as_mut().map(look).unwrap_or_default())
}

pub fn row_of(key: &Key) -> Vec<u8> {
    format!("{{sharedstate}}:v:{}", key.text()).into_bytes()
}

pub fn lease_of(key: &Key) -> Vec<u8> {
    format!("{{sharedstate}}:l:{}", key.text()).into_bytes()
}

/// The first promise that is broken is the one that is told.
pub fn broken(sentence: String) {
    trace::say(|| format!("BROKEN: {sentence}"));
    with(|witness| {
        witness.broken.get_or_insert(sentence);
    });
}

pub fn is_broken() -> bool {
    with(|witness| witness.broken.is_some())
}

/// What nobody can have issued is as good as nothing.
fn version_in(text: Option<&[u8]>) -> Version {
    let version = text.and_then(resp::number).unwrap_or(0);
    if version > LATEST { Version::NONE } else { Version(version as u64) }
}

impl Witness {
    pub fn key(&self, key: &Key) -> usize {
        self.keys.iter().position(|known| known == key).unwrap_or(0)
    }

    pub fn look_at_row(&self, row: &[u8], data: &Data) -> (Line, Vec<u8>) {
        let version = version_in(data.peek(row, b"ver"));
        let floor = version_in(data.peek(row, b"floor"));
        let digest = data.peek(row, b"digest").unwrap_or_default().to_vec();
        (Line { at: task::now(), version, floor }, digest)
    }

    /// Of a host's moment, the true times between which the timeline showed it: from, until.
    pub fn true_times(&self, host: usize, moment: Moment) -> (Micros, Micros) {
        let moments = &self.hosts[host].moments;
        let after = moments.partition_point(|(shown, _)| *shown <= moment);
        let until = moments.get(after).map_or_else(task::now, |(_, next)| *next);
        (after.checked_sub(1).map_or(0, |at| moments[at].1), until)
    }
}

/// A script ran on a server, over this row.
pub fn row_changed(server: usize, row: &[u8], takeover: &[u8], data: &Data, wall: i64) {
    with(|witness| {
        if witness.authority == server
            && let Some(key) = witness.names.get(row).copied()
        {
            witness.judge_row(key, row, takeover, data, wall);
        }
    });
}

/// The authority's data are others from now on, and no script did it.
pub fn replaced(server: usize, data: &Data) {
    with(|witness| {
        witness.authority = server;
        witness.lost_at = task::now();
        for key in 0..witness.keys.len() {
            let (line, digest) = witness.look_at_row(&row_of(&witness.keys[key]), data);
            let lease = data.peek_text(&lease_of(&witness.keys[key]));
            let lease = lease.map(|(text, until)| (text.to_vec(), until.unwrap_or(i64::MAX)));
            let row = &mut witness.rows[key];
            if row.now().version != line.version || row.now().floor != line.floor {
                row.lines.push(line);
            }
            (row.digest, row.lease) = (digest, lease);
            // What is lost may be issued again, to who does not know of it.
            witness.values.retain(|(of, version), _| *of != key || *version <= line.version);
        }
    });
}

pub fn claims(claim: &Claim) {
    let task = task::current();
    with(|witness| {
        let flight = (task, witness.lookups.get(&task).map_or(0, |lookup| lookup.number));
        let user = *witness.secrets.entry(claim.secret.bits()).or_insert(flight);
        if user != flight {
            witness.broken.get_or_insert("Two lookups used the same secret.".into());
        }
    });
}

/// A lookup begins.
pub fn begins(owner: Owner) {
    let task = task::current();
    let now = task::now();
    with(|witness| {
        let lookup = witness.lookups.entry(task).or_default();
        let told = witness.hosts[owner.host].told.clone();
        *lookup = Lookup { number: lookup.number + 1, began: now, told };
    });
}

pub fn heard_floor(host: usize, key: &Key, floor: Version) {
    with(|witness| {
        let key = witness.key(key);
        let told = &mut witness.hosts[host].told[key];
        told.floor = told.floor.max(floor);
    });
}

/// The host has forgotten the key.
pub fn evicted(host: usize, key: usize) {
    with(|witness| witness.hosts[host].told[key] = Told::default());
}

/// The host has forgotten everything.
pub fn rebooted(host: usize) {
    with(|witness| {
        let seen = &mut witness.hosts[host];
        let (told, disturbed_until) =
            (vec![Told::default(); seen.told.len()], seen.disturbed_until);
        *seen = Seen { told, disturbed_until, ..Seen::default() };
    });
}

/// Something has been.
pub fn saw(what: &'static str) {
    with(|witness| {
        witness.seen.insert(what);
    });
}

/// What came of a question of a host.
pub fn came_of<T>(host: usize, answer: &Result<T, StoreError>) {
    let now = task::now();
    with(|witness| {
        let seen = &mut witness.hosts[host];
        match answer {
            Ok(_) => seen.silent_since = None,
            Err(error) if error.is_silence() => seen.silent_since = seen.silent_since.or(Some(now)),
            Err(_) => seen.refused_at = now,
        }
        let what = match answer {
            Ok(_) => "answered",
            Err(error) if error.is_silence() => "silent",
            Err(_) => "refused",
        };
        witness.seen.insert(what);
    });
}

/// Whatever there was of a key was dropped, as far as Redis says.
pub fn dropped(key: &Key, began: Micros) {
    let now = task::now();
    with(|witness| {
        let key = witness.key(key);
        witness.drops.push((key, began, now));
    });
}

/// The host has asked for the server's clock, at `asked`, and knows it.
pub fn looked(host: usize, asked: Micros) {
    with(|witness| {
        let seen = &mut witness.hosts[host];
        if seen.aware_once && seen.unaware.is_some_and(|until| asked >= until) {
            seen.unaware = None;
        }
        seen.aware_once = true;
    });
}

/// Whether somebody has minted the key, or tried to, at any time since then.
pub fn minted_since(key: &Key, since: Micros) -> bool {
    with(|witness| {
        let key = witness.key(key);
        let overlaps = |mint: &&MintSeen| mint.until.is_none_or(|until| until >= since);
        witness.mints.iter().filter(|mint| mint.key == key).rev().any(|mint| overlaps(&mint))
    })
}

/// What the host's timeline shows now.
pub fn shows(host: usize, memory: &MemoryHost) {
    let (moment, now) = (memory.now(), task::now());
    with(|witness| {
        let moments = &mut witness.hosts[host].moments;
        if moments.last().is_none_or(|(shown, _)| *shown < moment) {
            moments.push((moment, now));
        }
    });
}

pub fn mint_begins(owner: Owner, key: &Key, authority: Authority, version: Version) {
    trace::say(|| format!("{owner} mints {key:?} as {version} for {authority:?}"));
    with(|witness| {
        let (key, from) = (witness.key(key), task::now());
        let mint =
            MintSeen { key, owner, authority, from, until: None, minted: false, failed: false };
        witness.judge_mint(&mint);
        witness.mints.push(mint);
    });
}

pub fn mint_ended(owner: Owner, key: &Key, outcome: &Outcome) {
    let minted = matches!(outcome, Outcome::Minted { .. });
    with(|witness| {
        let key = witness.key(key);
        let now = task::now();
        let mint = witness.mints.iter_mut().rev().find(|it| it.owner == owner && it.key == key);
        if let Some(mint) = mint {
            (mint.until, mint.minted) = (Some(now), minted);
            mint.failed = matches!(outcome, Outcome::Failed { .. });
        }
    });
}

/// Redis is out of this host's reach, or not well, until then and for as long as it takes to notice that it is back.
pub fn disturbed(host: Option<usize>, until: Micros) {
    const NOTICED: Micros = 9_000 * MS;
    with(|witness| {
        for (index, seen) in witness.hosts.iter_mut().enumerate() {
            if host.is_none_or(|host| host == index) {
                seen.disturbed_until = seen.disturbed_until.max(until + NOTICED);
            }
        }
    });
}

/// Until then somebody may believe a server that is none any more.
pub fn split(from: Micros, until: Micros) {
    with(|witness| witness.splits.push(Split { from, until }));
}

/// The host stands still until then.
pub fn stands(host: usize, until: Micros) {
    let now = task::now();
    with(|witness| {
        let seen = &mut witness.hosts[host];
        seen.unaware = Some(until);
        seen.stood.push(now..=until);
    });
}
