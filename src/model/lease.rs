//! Leases, takeover, floors and lost writes: a minter that may die with its commit under way, its
//! successor on the same host, a minter on another host, one invalidation, one fail-over to a replica
//! that is behind (or empty: FLUSHALL), hosts that hear of changes and give back what was lost.
//!
//! The server's clock ticks with every version; it may step back once. Lost writes *and* a clock that
//! stepped back may give a version twice, to a host that knows nothing: that is not judged.

use super::Model;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    LaterLeaseFences,
    FloorAtCommit,
    FloorAboveLease,
    HigherVersion,
    NewSecret,
    OnlyNewerReplaces,
    RestoreOnlyNewer,
    RestoreFloor,
    HighestKnown,
    ClockInVersion,
    HostNewest,
    HostFloor,
}
use Rule::*;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Store {
    version: u8,
    floor: u8,
    issued: u8,
    /// Secret and version.
    lease: Option<(u8, u8)>,
}

impl Store {
    fn issue(&mut self, above: u8, clock: &mut u8) -> u8 {
        self.issued = self.issued.max(self.floor).max(self.version).max(above).max(*clock) + 1;
        *clock = self.issued;
        self.issued
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Host {
    version: u8,
    newest: u8,
    floor: u8,
}

impl Host {
    fn adopt(&mut self, version: u8, off: Option<Rule>) {
        let newer = version >= self.newest || off == Some(HostNewest);
        if version > 0 && newer && (version >= self.floor || off == Some(HostFloor)) {
            self.version = version;
            self.newest = self.newest.max(version);
        }
    }

    fn raise(&mut self, floor: u8) {
        self.floor = self.floor.max(floor);
        if self.version < self.floor {
            self.version = 0;
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Minter {
    Idle,
    Minting {
        secret: u8,
        version: u8,
    },
    /// On the wire; the minter may be dead by now.
    Committing {
        secret: u8,
        version: u8,
    },
    Done,
}

/// Of the host's flight: the first and second minter are on host 0, one after the other.
const HOST_OF: [usize; 3] = [0, 0, 1];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    store: Store,
    replica: Store,
    hosts: [Host; 2],
    minters: [Minter; 3],
    dead: bool,
    /// Mints below this were under way when somebody invalidated.
    void_below: u8,
    clock: u8,
    clock_steps: u8,
    expiries: u8,
    invalidations: u8,
    losses: u8,
    /// Who published each version, as bits.
    published: [u8; 16],
    fault: Option<&'static str>,
}

pub struct Leases;

impl Model for Leases {
    type State = State;
    type Rule = Rule;

    const RULES: &'static [(Rule, &'static str)] = &[
        (LaterLeaseFences, "a commit is refused while a later lease is out"),
        (FloorAtCommit, "a commit below the floor is refused"),
        (FloorAboveLease, "a floor lies above everything issued, a live lease included"),
        (HigherVersion, "a takeover brings a higher version"),
        (NewSecret, "a takeover brings a new secret"),
        (OnlyNewerReplaces, "the stored entry decides where it is not older"),
        (RestoreOnlyNewer, "what is given back replaces only what is older"),
        (RestoreFloor, "nothing is given back below the floor"),
        (HighestKnown, "a version lies above the highest the claimant knows"),
        (ClockInVersion, "a version lies above the server's clock"),
        (HostNewest, "a host keeps nothing older than it has heard of"),
        (HostFloor, "a host keeps nothing below a floor it knows"),
    ];

    fn start() -> State {
        State {
            store: Store::default(),
            replica: Store::default(),
            hosts: [Host::default(); 2],
            minters: [Minter::Idle; 3],
            dead: false,
            void_below: 0,
            clock: 0,
            clock_steps: 1,
            expiries: 1,
            invalidations: 1,
            losses: 1,
            published: [0; 16],
            fault: None,
        }
    }

    fn broken(state: &State) -> Option<&'static str> {
        let store = state.store;
        if store.version > 0 && store.version < store.floor {
            return Some("stored below the floor");
        }
        if state.hosts.iter().any(|host| host.version > 0 && host.version < host.floor) {
            return Some("served below a floor the host knows");
        }
        let both = state.losses == 0 && state.clock_steps == 0;
        if !both && state.published.iter().any(|who| who.count_ones() > 1) {
            return Some("two mints were published as one version");
        }
        state.fault
    }

    fn steps(state: &State, off: Option<Rule>) -> Vec<(String, State)> {
        let mut next = Vec::new();
        for who in 0..3 {
            next.extend(minter(state, who, off));
        }
        if !state.dead
            && matches!(state.minters[0], Minter::Minting { .. } | Minter::Committing { .. })
        {
            let mut after = State { dead: true, ..*state };
            if let Minter::Minting { .. } = after.minters[0] {
                after.minters[0] = Minter::Done;
            }
            next.push(("minter 0 dies".into(), after));
        }
        if state.expiries > 0 && state.store.lease.is_some() {
            let mut after = State { expiries: state.expiries - 1, ..*state };
            after.store.lease = None;
            next.push(("the lease runs out".into(), after));
        }
        if state.invalidations > 0 {
            next.push(invalidate(state, off));
        }
        if state.clock_steps > 0 && state.clock > 0 {
            let after = State { clock: 0, clock_steps: 0, ..*state };
            next.push(("the server's clock steps back".into(), after));
        }
        for host in 0..2 {
            next.extend(hear(state, host, off));
            next.extend(give_back(state, host, off));
        }
        if state.losses > 0 {
            if state.replica != state.store {
                let after = State { replica: state.store, ..*state };
                next.push(("the replica catches up".into(), after));
            }
            let after = State { store: state.replica, losses: 0, void_below: 0, ..*state };
            next.push(("the master dies, the replica takes over".into(), after));
        }
        next
    }
}

fn minter(state: &State, who: usize, off: Option<Rule>) -> Option<(String, State)> {
    let mut after = *state;
    let host = HOST_OF[who];
    match state.minters[who] {
        Minter::Idle => {
            // One flight per host at a time; a successor when the first is gone.
            if who == 1 && !(state.dead || state.minters[0] == Minter::Done) {
                return None;
            }
            if state.store.version
                > state.hosts[host].version.max(state.hosts[host].floor.saturating_sub(1))
            {
                after.hosts[host].raise(state.store.floor);
                after.hosts[host].adopt(state.store.version, off);
                after.minters[who] = Minter::Done;
                return Some((
                    format!("minter {who} finds version {}", state.store.version),
                    after,
                ));
            }
            let mut secret = who as u8 + 1;
            if let Some((held, version)) = state.store.lease {
                let orphan = who == 1 && state.dead && held == 1;
                if !orphan {
                    return None;
                }
                if off == Some(NewSecret) {
                    secret = held;
                }
                if off == Some(HigherVersion) {
                    after.store.lease = Some((secret, version));
                    after.minters[who] = Minter::Minting { secret, version };
                    return Some((format!("minter {who} takes over version {version}"), after));
                }
            }
            let Host { newest, floor, .. } = state.hosts[host];
            let known = if off == Some(HighestKnown) { 0 } else { newest.max(floor) };
            let mut clock = if off == Some(ClockInVersion) { 0 } else { after.clock };
            let version = after.store.issue(known, &mut clock);
            after.clock = after.clock.max(clock);
            if version <= newest {
                after.fault = Some("a lease is not above what its holder has seen");
            }
            after.store.lease = Some((secret, version));
            after.minters[who] = Minter::Minting { secret, version };
            Some((format!("minter {who} gets the lease of version {version}"), after))
        }
        Minter::Minting { secret, version } => {
            after.minters[who] = Minter::Committing { secret, version };
            Some((format!("minter {who} sends version {version}"), after))
        }
        Minter::Committing { secret, version } => {
            after.minters[who] = Minter::Done;
            let alive = who != 0 || !state.dead;
            let verdict = commit(&mut after, who, secret, version, off);
            if alive {
                after.hosts[host].raise(after.store.floor);
                after.hosts[host].adopt(after.store.version, off);
            }
            Some((format!("minter {who}'s version {version} arrives: {verdict}"), after))
        }
        Minter::Done => None,
    }
}

fn commit(
    state: &mut State,
    who: usize,
    secret: u8,
    version: u8,
    off: Option<Rule>,
) -> &'static str {
    let store = &mut state.store;
    if version < store.floor && off != Some(FloorAtCommit) {
        return "below the floor";
    }
    if store.version >= version && off != Some(OnlyNewerReplaces) {
        return "superseded";
    }
    let ours = store.lease.is_some_and(|(held, _)| held == secret);
    let later = store.lease.is_some_and(|(_, held)| held > version);
    if later && !ours && off != Some(LaterLeaseFences) {
        return "a later lease is out";
    }
    if store.version > version {
        state.fault = Some("an older mint replaced a newer one");
    }
    // One whose lease ran out may still be published, while nobody else is at it.
    if later {
        state.fault = Some("a mint was published while a later lease was out");
    }
    if version < state.void_below {
        state.fault = Some("a mint from before the invalidation was published");
    }
    store.version = version;
    if ours {
        store.lease = None;
    }
    state.published[usize::from(version) % 16] |= 1 << who;
    "accepted"
}

fn invalidate(state: &State, off: Option<Rule>) -> (String, State) {
    let mut after = State { invalidations: 0, ..*state };
    let floor = if off == Some(FloorAboveLease) {
        state.store.version.max(state.store.floor) + 1
    } else {
        let mut clock = after.clock;
        let floor = after.store.issue(0, &mut clock);
        after.clock = clock;
        floor
    };
    after.store.floor = floor;
    after.store.version = 0;
    after.void_below = state.store.lease.map_or(0, |(_, version)| version + 1);
    after.hosts[1].raise(floor);
    (format!("host 1 invalidates below {floor}"), after)
}

fn hear(state: &State, host: usize, off: Option<Rule>) -> Option<(String, State)> {
    let mut after = *state;
    after.hosts[host].raise(state.store.floor);
    let before = after.hosts[host].version;
    after.hosts[host].adopt(state.store.version, off);
    if after.hosts[host].version < before {
        after.fault = Some("a host went back to an older entry");
    }
    (after != *state).then(|| (format!("host {host} hears what the store has"), after))
}

fn give_back(state: &State, host: usize, off: Option<Rule>) -> Option<(String, State)> {
    let held = state.hosts[host].version;
    let store = state.store;
    if held == 0 || held == store.version {
        return None;
    }
    if (held < store.floor && off != Some(RestoreFloor))
        || (held < store.version && off != Some(RestoreOnlyNewer))
    {
        return None;
    }
    let mut after = *state;
    if held < store.version {
        after.fault = Some("an older entry was given back over a newer one");
    }
    after.store.version = held;
    after.store.issued = store.issued.max(held);
    Some((format!("host {host} gives back version {held}"), after))
}
