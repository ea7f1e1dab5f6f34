//! How each fault befalls a world.

use super::clock::{MS, Micros, SECOND};
use super::data::Value;
use super::host::Machine;
use super::plan::{FailOver, Fault, Former, RIGHT, Wrong};
use super::promises::LOOKS;
use super::server::Server;
use super::world::World;
use super::{network, task, trace, witness};
use crate::entry::Key;

const LOG: &[u8] = b"{sharedstate}:log";
const META: &[u8] = b"{sharedstate}:meta";

impl World {
    pub fn befall(&mut self, fault: Fault) {
        trace::say(|| format!("{fault:?}"));
        fault.names().into_iter().for_each(witness::saw);
        let now = task::now();
        let master = self.master;
        match fault {
            Fault::Partition(host, span) => {
                network::with(|network| network.ways[host].cut_until = now + span);
                witness::disturbed(Some(host), now + span);
            }
            Fault::Loss(host, span, [requests, replies, late]) => {
                network::with(|network| {
                    let way = &mut network.ways[host];
                    (way.lost_requests, way.lost_replies, way.late) = (requests, replies, late);
                    way.late_by = 900 * MS;
                });
                self.over(span, move |network| {
                    let way = &mut network.ways[host];
                    (way.lost_requests, way.lost_replies, way.late) = (0, 0, 0);
                });
                witness::disturbed(Some(host), now + span);
            }
            Fault::SlowWay(host, span, by) => {
                network::with(|network| network.ways[host].slower_by = by);
                self.over(span, move |network| network.ways[host].slower_by = 0);
                witness::disturbed(Some(host), now + span);
            }
            Fault::CutConnections(host) => {
                network::with(|network| network.cut(master, host));
                witness::disturbed(host, now);
                self.judge_heartbeats_soon(host);
            }
            Fault::Silence(host) => {
                network::with(|network| network.silence(host));
                witness::disturbed(Some(host), now);
            }
            Fault::FreezeServer(span) => {
                network::with(|network| network.servers[master].frozen_until = now + span);
                witness::disturbed(None, now + span);
            }
            Fault::SlowServer(span, times) => {
                network::with(|network| network.servers[master].slowness = times);
                self.over(span, move |network| network.servers[master].slowness = 1);
                witness::disturbed(None, now + span);
            }
            Fault::FailOver(fail_over) => self.fail_over(fail_over),
            Fault::Restart => {
                network::with(|network| {
                    network.cut(master, None);
                    network.servers[master].restart();
                });
                witness::disturbed(None, now);
                self.replaced();
            }
            Fault::Flush => self.lose(|server| server.data.clear()),
            Fault::LoseLog => self.lose(|server| server.data.remove(LOG)),
            Fault::LoseMeta => self.lose(|server| server.data.remove(META)),
            Fault::LoseRow(key) => {
                let row = witness::row_of(&self.keys[key]);
                self.lose(|server| server.data.remove(&row));
            }
            Fault::TrimLog(keep) => self.lose(|server| server.data.trim(LOG, keep)),
            Fault::Foreign(key, span) => {
                let row = witness::row_of(&self.keys[key]);
                self.lose(|server| server.data.put(&row, Value::Text(b"not ours".to_vec())));
                self.later(self.age() + span, move |world| {
                    world.lose(|server| server.data.remove(&row));
                });
                // What is done about that key meanwhile is each host's own business.
                witness::disturbed(None, now + span);
            }
            Fault::Poison(key) => {
                let row = witness::row_of(&self.keys[key]);
                let version = b"9007199254740000".as_slice();
                self.lose(|server| {
                    let now = server.clock.wall(now);
                    server.data.command(&[b"HSET", META, b"issued", version], now);
                    server.data.command(&[b"HSET", &row, b"ver", version, b"floor", version], now);
                });
            }
            Fault::ServerClock(by) => {
                network::with(|network| network.servers[master].clock.step(by));
            }
            Fault::HostClock(host, by) => self.machines[host].clock.change(|hands| hands.step(by)),
            Fault::Stand(host, span, slewed) => self.stand(host, span, slewed),
            Fault::Kill(host, process) => self.kill(host, process),
            Fault::Stop(host, process, span) => {
                let process = &self.processes[host][process];
                process.stopped_until.set(now + span);
                process.stopped_for.set(process.stopped_for.get() + span);
                witness::disturbed(Some(host), now + span);
            }
            Fault::Reboot(host) => self.reboot(host),
            Fault::Evict(host, key) => {
                super::clock::show(host, now);
                let key_name: &Key = &self.keys[key];
                let memory = &self.machines[host].memory;
                memory.evict(key_name);
                if crate::store::Host::reserve(&**memory, key_name) == crate::store::Reservation(0)
                {
                    witness::evicted(host, key);
                }
            }
            Fault::Invalidate(host, key) => {
                let (process, key) = (self.processes[host][0].clone(), self.keys[key].clone());
                process.spawn(now, move |process| process.invalidate(&key, None));
            }
            Fault::Revoke(key) => self.issuer.borrow_mut().revoke(&self.keys[key]),
            Fault::IssuerFails(span, retry_after) => {
                let mut issuer = self.issuer.borrow_mut();
                (issuer.fails_until, issuer.retry_after) = (now + span, retry_after);
            }
            Fault::IssuerSlow(span, by) => {
                let mut issuer = self.issuer.borrow_mut();
                (issuer.slow_until, issuer.slow_by) = (now + span, by);
            }
            Fault::AlwaysRefused(span) => self.issuer.borrow_mut().refused_until = now + span,
        }
    }

    /// In so long the network is well again in this respect.
    fn over(&mut self, span: Micros, end: impl FnOnce(&mut network::Network) + 'static) {
        self.later(self.age() + span, |_| network::with(end));
    }

    /// The master's data change without a script.
    fn lose(&mut self, lose: impl FnOnce(&mut Server)) {
        let now = task::now();
        let hidden = network::with(|network| {
            let server = &mut network.servers[self.master];
            let stood = server.data.last_line(LOG);
            lose(server);
            stood > server.data.last_line(LOG).max(server.clock.wall(now) / MS)
        });
        // New lines may be below the one that hosts wait behind, until they look for it. Who is not there misses what
        // was in the log.
        let unseen = if hidden { LOOKS } else { UNSEEN };
        witness::split(now, now + unseen);
        self.replaced();
    }

    /// What a server that took over may have kept of it.
    pub fn remove_foreign(&mut self) {
        for row in self.keys.iter().map(witness::row_of).collect::<Vec<_>>() {
            let foreign = network::with(|network| {
                network.servers[self.master].data.peek_text(&row).is_some()
            });
            if foreign {
                self.lose(|server| server.data.remove(&row));
            }
        }
    }

    fn replaced(&mut self) {
        network::with(|network| {
            witness::replaced(self.master, &network.servers[self.master].data);
        });
    }

    fn fail_over(&mut self, FailOver { loses, ahead, former }: FailOver) {
        // What the replica has is what the master had then.
        let replica = network::with(|network| network.servers[self.master].data.clone());
        let ahead =
            if self.settings.wrong == Wrong::Servers { ahead } else { ahead.clamp(-RIGHT, RIGHT) };
        self.later(self.age() + loses, move |world| world.promote(replica, ahead, former));
    }

    fn promote(&mut self, mut data: super::data::Data, ahead: Micros, former: Former) {
        let (now, old) = (task::now(), self.master);
        trace::say(|| format!("another server is promoted, and the former: {former:?}"));
        data.read_only = false;
        let mut server = Server::new(super::clock::Hands::new(now, 0, now + ahead, 0));
        server.data = data;
        let new = network::with(|network| {
            network.servers.push(server);
            network.servers.len() - 1
        });
        self.master = new;
        let until = match former {
            Former::Dies(span) => {
                network::with(|network| {
                    network.servers[old].up = false;
                    network.cut(old, None);
                });
                // To whoever is the master by then.
                self.later(self.age() + span, |world| world.name());
                now + span
            }
            Former::Demoted => {
                network::with(|network| {
                    network.servers[old].demote();
                });
                self.name();
                // Who is connected may ask it until it closes, as Sentinel sees to.
                self.over(LOOKS, move |network| network.cut(old, None));
                // Who follows the log looks once a second whether its server takes writes.
                witness::split(now, now + LOOKS);
                now + LOOKS
            }
            Former::Left(span) => {
                self.name();
                self.over(span, move |network| {
                    network.servers[old].up = false;
                    network.cut(old, None);
                });
                // And every five seconds where its name leads.
                witness::split(now, now + LEFT);
                now + LEFT
            }
        };
        witness::disturbed(None, until);
        self.replaced();
    }

    /// The name leads to the master from now on.
    fn name(&self) {
        network::with(|network| network.ways.iter_mut().for_each(|way| way.named = self.master));
    }

    fn stand(&mut self, host: usize, span: Micros, slewed: Option<i64>) {
        let now = task::now();
        let machine = &self.machines[host];
        machine.stands_until.set(now + span);
        machine.stood_for.set(machine.stood_for.get() + span);
        machine.clock.change(|hands| hands.stand(now));
        witness::stands(host, now + span);
        witness::disturbed(Some(host), now + span);
        self.later(self.age() + span, move |world| {
            let now = task::now();
            let clock = &world.machines[host].clock;
            clock.change(|hands| hands.go_on(now));
            match slewed {
                Some(drift) => {
                    clock.change(|hands| hands.slew(now, drift));
                    let caught_up = span * 1_000_000 / drift;
                    world.later(world.age() + caught_up, move |world| {
                        let clock = &world.machines[host].clock;
                        clock.change(|hands| hands.slew(task::now(), 0));
                    });
                }
                None => {
                    let noticed = world.dice.between(0, 8_000) * MS;
                    world.later(world.age() + noticed, move |world| {
                        world.machines[host].clock.change(|hands| hands.step(span));
                    });
                }
            }
        });
    }

    fn reboot(&mut self, host: usize) {
        let now = task::now();
        super::clock::show(host, now);
        self.processes[host].iter().for_each(|process| process.kill());
        let wall = self.machines[host].clock.hands().wall(now);
        self.machines[host] = Machine::new(host, super::clock::reboot(host, now, wall));
        witness::rebooted(host);
        witness::disturbed(Some(host), now);
        for index in 0..self.settings.workers {
            self.processes[host][index] = self.start_process(host, index);
        }
    }

    /// A cut connection is no gap, so the hosts' hearts beat again in five seconds.
    fn judge_heartbeats_soon(&mut self, host: Option<usize>) {
        let hosts = host.map_or(0..self.settings.hosts, |host| host..host + 1);
        let (now, faults) = (self.age(), &self.plan.faults);
        let alone = faults.iter().all(|(at, fault)| {
            *at + 30 * SECOND < now
                || *at == now && matches!(fault, Fault::CutConnections(_))
                || *at > now + 6 * SECOND
        });
        if alone && self.settings.wrong == Wrong::Nobody {
            self.later(now + 5 * SECOND, move |world| world.judge_heartbeats(hosts, 5));
        }
    }

    fn kill(&mut self, host: usize, index: usize) {
        super::clock::show(host, task::now());
        self.processes[host][index].kill();
        let process = self.start_process(host, index);
        self.processes[host][index] = process;
        self.machines[host].ring();
    }
}

/// An answer that is under way.
const UNSEEN: Micros = 50 * MS;
/// Five until the name is resolved, and the way there.
const LEFT: Micros = 6_500 * MS;
