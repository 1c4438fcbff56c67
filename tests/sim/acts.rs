//! What is done to the world: faults, and steps of a scenario.

use super::network::{HostId, Packet};
use super::world::{Machine, World, transport};
use rserpool::machine::client::Registration;
use rserpool::wire::{PeId, Policy, PoolElement, PoolHandle, Protocol, RegistrarId, TransportUse};
use std::collections::BTreeSet;
use std::time::Duration;

/// A fault, or a step of the scenario.
#[derive(Debug, Clone)]
pub enum Act {
    Kill(HostId),
    /// At the same instant.
    KillAll(Vec<HostId>),
    /// Leaves in order: a registrar closes its links, a process deregisters.
    Leave(HostId),
    /// Start again; registrars with the same ID or a new one.
    Start {
        host: HostId,
        same_id: bool,
    },
    Pause(HostId),
    Resume(HostId),
    /// Cut the hosts of the list off the others; one way: what they send is lost.
    Partition {
        hosts: Vec<HostId>,
        one_way: bool,
    },
    /// Cut two hosts off each other only.
    Cut {
        hosts: [HostId; 2],
        one_way: bool,
    },
    Heal,
    /// Reset one connection of a host.
    Drop(HostId),
    /// A new element at a process.
    Register {
        host: HostId,
        handle: PoolHandle,
        id: PeId,
    },
    /// New policy values of one of its elements.
    Update {
        host: HostId,
        load: u32,
    },
    Deregister(HostId),
    Resolve {
        host: HostId,
        handle: PoolHandle,
    },
    Subscribe {
        host: HostId,
        handle: PoolHandle,
    },
    /// Say that some element of the pool can't be reached.
    Report {
        host: HostId,
        handle: PoolHandle,
    },
}

impl Act {
    /// Whether it ends when the faults end.
    pub fn is_fault(&self) -> bool {
        use Act::*;
        matches!(
            self,
            Kill(_)
                | KillAll(_)
                | Leave(_)
                | Pause(_)
                | Partition { .. }
                | Cut { .. }
                | Drop(_)
                | Report { .. }
        )
    }
}

impl World {
    pub fn act(&mut self, act: Act) {
        if self.trace {
            println!("{:>12} == {act:?}", self.now.0);
        }
        match act {
            Act::Kill(host) => self.kill(host),
            Act::KillAll(hosts) => {
                self.tally.fault("several registrars killed at once");
                for host in hosts {
                    self.kill(host);
                }
            }
            Act::Leave(host) => self.leave(host),
            Act::Start { host, same_id } => {
                let known = self.hosts[host].id != RegistrarId(0);
                if self.start(host, same_id) && self.hosts[host].incarnation > 0 {
                    let registrar = self.hosts[host].is_registrar;
                    self.tally.fault(match (registrar, same_id && known) {
                        (true, true) => "registrar restarted, same ID",
                        (true, false) => "registrar restarted, new ID",
                        (false, _) => "process restarted",
                    });
                }
            }
            Act::Pause(host) => self.pause(host),
            Act::Resume(host) => {
                if std::mem::take(&mut self.hosts[host].paused) {
                    self.disturbed = self.now;
                    self.woken = self.now;
                    self.work(host);
                }
            }
            Act::Partition { hosts, one_way } => self.partition(&hosts, one_way),
            Act::Cut { hosts: [a, b], one_way } => {
                self.tally.fault(if one_way { "pair cut, one way" } else { "pair cut" });
                self.disturbed = self.now;
                self.network.block(a, b);
                if !one_way {
                    self.network.block(b, a);
                }
            }
            Act::Heal => {
                self.disturbed = self.now;
                self.network.heal(self.now);
            }
            Act::Drop(host) => self.drop_one(host),
            act => self.application(act),
        }
    }

    fn pause(&mut self, host: HostId) {
        if self.hosts[host].paused || matches!(self.hosts[host].machine, Machine::Nothing) {
            return;
        }
        self.hosts[host].paused = true;
        self.disturbed = self.now;
        let registrar = self.hosts[host].is_registrar;
        self.tally.fault(if registrar { "registrar paused" } else { "process paused" });
    }

    fn partition(&mut self, hosts: &[HostId], one_way: bool) {
        self.tally.fault(if one_way { "partition, one way" } else { "partition" });
        self.disturbed = self.now;
        for &inside in hosts {
            for outside in (0..self.hosts.len()).filter(|host| !hosts.contains(host)) {
                self.network.block(inside, outside);
                if !one_way {
                    self.network.block(outside, inside);
                }
            }
        }
    }

    fn drop_one(&mut self, host: HostId) {
        let mine = |connection: &super::network::Connection| connection.ends.iter().any(|end| end.0 == host);
        let found: Vec<usize> =
            self.network.connections.iter().filter(|(_, c)| mine(c)).map(|(&number, _)| number).collect();
        if !found.is_empty() {
            let number = found[self.network.rng.usize(..found.len())];
            self.tally.fault("connection reset");
            self.break_connection(number);
        }
    }

    /// What the application of a process asks of its machine.
    fn application(&mut self, act: Act) {
        let host = match act {
            Act::Register { host, .. }
            | Act::Update { host, .. }
            | Act::Deregister(host)
            | Act::Resolve { host, .. }
            | Act::Report { host, .. }
            | Act::Subscribe { host, .. } => host,
            _ => return,
        };
        if self.hosts[host].paused || !matches!(self.hosts[host].machine, Machine::Process(_)) {
            return;
        }
        let now = self.local_time(host);
        match act {
            Act::Report { handle, .. } => return self.report(host, &handle),
            Act::Subscribe { handle, .. } => {
                let node = &mut self.hosts[host];
                node.pools.entry(handle.clone()).or_insert(None);
                if let Machine::Process(client) = &mut node.machine {
                    client.subscribe(now, &handle);
                }
                return self.drain(host);
            }
            _ => {}
        }
        let request = self.request(host);
        let node = &mut self.hosts[host];
        let Machine::Process(client) = &mut node.machine else { return };
        let mut element = None;
        let mut asked = true;
        match act {
            Act::Register { handle, id, .. } => {
                let registration = new_element(self.plan.sctp, host, handle.clone(), id);
                node.elements.insert((handle.clone(), id), registration.clone());
                self.left.remove(&(handle.clone(), id));
                element = Some((handle, id));
                client.register(now, request, registration);
            }
            Act::Update { load, .. } => match node.elements.values_mut().next() {
                Some(registration) => {
                    registration.element.policy = Policy::LeastUsed { load };
                    element = Some((registration.handle.clone(), registration.element.id));
                    client.register(now, request, registration.clone());
                }
                None => asked = false,
            },
            Act::Deregister(_) => match node.elements.pop_first() {
                Some(((handle, id), _)) => {
                    client.deregister(now, request, &handle, id);
                    self.registered.remove(&(handle.clone(), id));
                    self.left.insert((handle, id), self.now);
                }
                None => asked = false,
            },
            Act::Resolve { handle, .. } => client.resolve(now, request, &handle, None, false),
            _ => asked = false,
        }
        if !asked {
            self.requests.remove(&request);
        } else if let Some(open) = self.requests.get_mut(&request) {
            open.element = element;
        }
        self.drain(host);
    }

    fn report(&mut self, host: HostId, handle: &PoolHandle) {
        let keys: Vec<(PoolHandle, PeId)> =
            self.registered.keys().filter(|key| key.0 == *handle).cloned().collect();
        if keys.is_empty() {
            return;
        }
        let key = keys[self.network.rng.usize(..keys.len())].clone();
        self.tally.fault("reported unreachable");
        // Enough reports take it out of its pool until it registers again.
        self.registered.remove(&key);
        let now = self.local_time(host);
        if let Machine::Process(client) = &mut self.hosts[host].machine {
            client.report_unreachable(now, &key.0, key.1);
        }
        self.drain(host);
    }

    fn leave(&mut self, host: HostId) {
        if self.hosts[host].paused {
            return;
        }
        let now = self.local_time(host);
        match &mut self.hosts[host].machine {
            Machine::Registrar(registrar) => {
                self.tally.fault("registrar left in order");
                registrar.shutdown(now);
                self.drain(host);
                self.gone(host);
            }
            Machine::Process(client) => {
                self.tally.fault("process left in order");
                client.shutdown(now, Duration::from_secs(1));
                self.elements_left(host);
                self.hosts[host].pools.clear();
                self.drain(host);
                let end = super::network::Happening::Act(Act::Kill(host));
                self.network.schedule(self.now + Duration::from_millis(1100), end);
            }
            Machine::Stranger(_) | Machine::Nothing => {}
        }
    }

    fn elements_left(&mut self, host: HostId) {
        for (key, _) in std::mem::take(&mut self.hosts[host].elements) {
            self.registered.remove(&key);
            self.left.insert(key, self.now);
        }
    }

    /// The process of a host is no more.
    fn gone(&mut self, host: HostId) {
        self.disturbed = self.now;
        let node = &mut self.hosts[host];
        node.machine = Machine::Nothing;
        node.incarnation += 1;
        node.paused = false;
        node.pools.clear();
        self.clear_inbox(host);
        self.elements_left(host);
        self.requests.retain(|_, open| open.host != host);
    }

    fn kill(&mut self, host: HostId) {
        if matches!(self.hosts[host].machine, Machine::Nothing) {
            return;
        }
        let registrar = self.hosts[host].is_registrar;
        self.tally.fault(match self.hosts[host].machine {
            Machine::Stranger(_) => "stranger gone",
            _ if registrar => "registrar killed",
            _ => "process killed",
        });
        if registrar && !self.registrar(host).is_serving() {
            self.tally.fault("registrar killed while it joined");
        }
        if self.is_strange(host) {
            self.stranger_ended = self.now;
        }
        self.gone(host);
        let numbers: Vec<usize> = self.network.connections.keys().copied().collect();
        for number in numbers {
            for side in 0..2 {
                let ours = self
                    .network
                    .connections
                    .get(&number)
                    .is_some_and(|c| c.ends[side].0 == host && c.open[side]);
                if ours {
                    self.network.send(self.now, number, side, Packet::Reset);
                    if let Some(connection) = self.network.connections.get_mut(&number) {
                        connection.open[side] = false;
                    }
                }
            }
        }
    }

    /// IDs of all elements that should be in a pool.
    pub fn expected(&self, handle: &PoolHandle) -> BTreeSet<PeId> {
        let keys = self.hosts.iter().flat_map(|host| host.elements.keys());
        keys.filter(|key| key.0 == *handle).map(|key| key.1).collect()
    }
}

fn new_element(sctp: bool, host: HostId, handle: PoolHandle, id: PeId) -> Registration {
    let protocol = if sctp { Protocol::Sctp } else { Protocol::Tcp };
    let element = PoolElement {
        id,
        home: RegistrarId(0),
        life: 30_000,
        transport: transport(protocol, host, 7, TransportUse::DataPlusControl),
        policy: Policy::LeastUsed { load: id.0 },
        asap: None,
    };
    Registration { handle, element, interval: Duration::from_secs(10) }
}
