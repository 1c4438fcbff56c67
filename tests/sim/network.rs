//! The network: connections with order and delay, datagrams with loss, partitions (also one-way).

use rserpool::machine::{LinkEnds, LinkId, Service, Time};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Index of a host; every process of the world has one.
pub type HostId = usize;

/// A connection and its two ends.
#[derive(Debug)]
pub struct Connection {
    pub ends: [(HostId, LinkId); 2],
    /// Incarnations of the processes that opened it.
    pub incarnations: [u32; 2],
    /// Whether the end still has it.
    pub open: [bool; 2],
    /// Nothing overtakes: time of the last delivery in each direction.
    pub last: [Time; 2],
    /// What a partition holds back, by direction (0: from end 0 to end 1).
    pub held: [VecDeque<Packet>; 2],
    /// Since when something is held back.
    pub stuck_since: Option<Time>,
}

/// What travels on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// Whole messages.
    Bytes(Vec<u8>),
    /// End of the connection, in order.
    End,
    /// The process is gone: reset.
    Reset,
}

/// Something that is to happen.
#[derive(Debug)]
pub enum Happening {
    /// A dial reaches its target (or not).
    Dial {
        from: HostId,
        incarnation: u32,
        link: LinkId,
        service: Service,
        to: std::net::SocketAddr,
        ends: LinkEnds,
    },
    /// Something arrives at the other end of a connection.
    Arrive { connection: usize, direction: usize, packet: Packet },
    /// A link of a host turns out to be refused or broken.
    Refused { host: HostId, incarnation: u32, link: LinkId },
    /// A datagram arrives.
    Datagram { to: HostId, service: Service, from: std::net::SocketAddr, bytes: Vec<u8> },
    /// A fault or a step of the scenario.
    Act(super::world::Act),
}

/// Delays, losses, partitions, and what is under way.
#[derive(Debug)]
pub struct Network {
    pub rng: fastrand::Rng,
    pub queue: BTreeMap<(Time, u64), Happening>,
    sequence: u64,
    pub connections: BTreeMap<usize, Connection>,
    next_connection: usize,
    /// Directed pairs of hosts between which nothing passes.
    blocked: BTreeSet<(HostId, HostId)>,
    pub delay: (Duration, Duration),
    pub datagram_loss: f64,
}

/// A connection on which something is stuck for this long breaks (TCP_USER_TIMEOUT).
pub const USER_TIMEOUT: Duration = Duration::from_secs(10);

impl Network {
    pub fn new(rng: fastrand::Rng, delay: (Duration, Duration), datagram_loss: f64) -> Network {
        Network {
            rng,
            queue: BTreeMap::new(),
            sequence: 0,
            connections: BTreeMap::new(),
            next_connection: 0,
            blocked: BTreeSet::new(),
            delay,
            datagram_loss,
        }
    }

    pub fn schedule(&mut self, at: Time, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), happening);
    }

    pub fn latency(&mut self) -> Duration {
        let (least, most) = (self.delay.0.as_micros() as u64, self.delay.1.as_micros() as u64);
        Duration::from_micros(self.rng.u64(least..=most))
    }

    pub fn passes(&self, from: HostId, to: HostId) -> bool {
        !self.blocked.contains(&(from, to))
    }

    pub fn block(&mut self, from: HostId, to: HostId) {
        self.blocked.insert((from, to));
    }

    pub fn connect(&mut self, ends: [(HostId, LinkId); 2], incarnations: [u32; 2], now: Time) -> usize {
        self.next_connection += 1;
        let connection = Connection {
            ends,
            incarnations,
            open: [true; 2],
            last: [now; 2],
            held: [VecDeque::new(), VecDeque::new()],
            stuck_since: None,
        };
        self.connections.insert(self.next_connection, connection);
        self.next_connection
    }

    /// The connection and the end's side (0 or 1) of a link.
    pub fn find(&self, host: HostId, link: LinkId) -> Option<(usize, usize)> {
        self.connections.iter().find_map(|(&number, connection)| {
            let side = connection.ends.iter().position(|&end| end == (host, link))?;
            connection.open[side].then_some((number, side))
        })
    }

    /// Sends from one side of a connection; what a partition stops waits for its end.
    pub fn send(&mut self, now: Time, number: usize, side: usize, packet: Packet) {
        let latency = self.latency();
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let [from, to] = [connection.ends[side].0, connection.ends[1 - side].0];
        if !connection.held[side].is_empty() || self.blocked.contains(&(from, to)) {
            connection.held[side].push_back(packet);
            connection.stuck_since.get_or_insert(now);
            return;
        }
        let at = (now + latency).max(connection.last[side]);
        connection.last[side] = at;
        self.schedule(at, Happening::Arrive { connection: number, direction: side, packet });
    }

    /// Ends all partitions; what was held back goes on its way.
    pub fn heal(&mut self, now: Time) {
        self.blocked.clear();
        let numbers: Vec<usize> = self.connections.keys().copied().collect();
        for number in numbers {
            for side in 0..2 {
                let Some(connection) = self.connections.get_mut(&number) else { continue };
                connection.stuck_since = None;
                for packet in std::mem::take(&mut connection.held[side]) {
                    self.send(now, number, side, packet);
                }
            }
        }
    }

    /// Connections on which something was stuck for too long.
    pub fn stuck(&self, now: Time) -> Vec<usize> {
        let long =
            |connection: &Connection| connection.stuck_since.is_some_and(|since| now - since > USER_TIMEOUT);
        self.connections
            .iter()
            .filter(|(_, connection)| long(connection))
            .map(|(&number, _)| number)
            .collect()
    }

    /// Drops connections that neither end has any more.
    pub fn tidy(&mut self) {
        self.connections.retain(|_, connection| connection.open != [false, false]);
    }
}
