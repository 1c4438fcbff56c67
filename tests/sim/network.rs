//! The network: connections with order, delay, width and bounded queues; datagrams with loss, repetition and
//! overtaking; partitions (also one-way).

use rserpool::machine::{LinkChange, LinkEnds, LinkId, Measurement, Service, Time};
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
    /// Nothing overtakes: time of the last delivery in each direction (0: from end 0 to end 1).
    last: [Time; 2],
    /// When the direction's link is free for the next packet.
    free: [Time; 2],
    /// Bytes sent and not read.
    queued: [usize; 2],
    congested: [bool; 2],
    /// What a partition holds back.
    held: [VecDeque<Packet>; 2],
    /// Since when something is held back, or not acknowledged.
    stuck_since: Option<Time>,
    /// When what each side has sent is acknowledged.
    acknowledged: [Time; 2],
    /// How often each side had to send something again.
    retransmissions: [u64; 2],
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

/// What sending did to the send queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    Fine,
    /// Just became more than half full.
    Congested,
    /// Past its bound.
    Overflow,
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
        /// How often it got no answer, and was sent again.
        again: u32,
    },
    /// Something arrives at the other end of a connection.
    Arrive { connection: usize, direction: usize, packet: Packet },
    /// A host learns something about one of its links.
    Change { host: HostId, incarnation: u32, link: LinkId, change: LinkChange },
    /// A datagram arrives.
    Datagram { to: HostId, service: Service, from: std::net::SocketAddr, bytes: Vec<u8> },
    /// A fault or a step of the scenario.
    Act(super::acts::Act),
}

/// How bad the network is.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// One way, least and most.
    pub delay: (Duration, Duration),
    pub datagram_loss: f64,
    pub datagram_repetition: f64,
    /// Packets of connections that get lost, in either direction: they are sent again, until the
    /// acknowledgement does not get lost either.
    pub loss: f64,
    /// Dials whose answer is lost, so that only the other end has a connection.
    pub half_open: f64,
    /// Bytes per second and direction of a connection.
    pub width: Option<u64>,
    /// Bound on bytes sent and not read.
    pub queue: usize,
}

impl Weather {
    /// Nothing lost, nothing slow.
    pub const FAIR: Weather = Weather {
        delay: (Duration::from_micros(50), Duration::from_millis(1)),
        datagram_loss: 0.0,
        datagram_repetition: 0.0,
        loss: 0.0,
        half_open: 0.0,
        width: None,
        queue: 4 << 20,
    };
}

/// Delays, losses, partitions, and what is under way.
#[derive(Debug)]
pub struct Network {
    pub rng: fastrand::Rng,
    pub weather: Weather,
    pub queue: BTreeMap<(Time, u64), Happening>,
    sequence: u64,
    pub connections: BTreeMap<usize, Connection>,
    next_connection: usize,
    /// Directed pairs of hosts between which nothing passes.
    blocked: BTreeSet<(HostId, HostId)>,
}

/// What is not acknowledged after so long is sent again, on a link without delay.
const LEAST_RTO: Duration = Duration::from_millis(200);

/// So long an acknowledgement waits for something to ride on.
const DELAYED_ACK: Duration = Duration::from_millis(40);

/// A connection on which something is stuck for this long breaks (TCP_USER_TIMEOUT).
pub const USER_TIMEOUT: Duration = Duration::from_secs(10);

impl Network {
    pub fn new(rng: fastrand::Rng, weather: Weather) -> Network {
        Network {
            rng,
            weather,
            queue: BTreeMap::new(),
            sequence: 0,
            connections: BTreeMap::new(),
            next_connection: 0,
            blocked: BTreeSet::new(),
        }
    }

    pub fn schedule(&mut self, at: Time, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), happening);
    }

    pub fn latency(&mut self) -> Duration {
        let (least, most) = self.weather.delay;
        Duration::from_micros(self.rng.u64(least.as_micros() as u64..=most.as_micros() as u64))
    }

    /// How long a packet takes to arrive, how long until its sender knows, and how often it sends it again: at even
    /// intervals at first (TCP_THIN_LINEAR_TIMEOUTS), then each time after twice the time.
    fn carry(&mut self) -> (Duration, Duration, u64) {
        let loss = self.weather.loss;
        let latency = self.latency();
        if loss == 0.0 {
            return (latency, latency * 2, 0);
        }
        let mut wait = LEAST_RTO.max(self.weather.delay.1 * 3);
        let (mut at, mut arrived, mut again) = (Duration::ZERO, None, 0);
        loop {
            if !self.chance(loss) {
                let arrival = *arrived.get_or_insert(at + latency);
                if !self.chance(loss) {
                    return (arrival, at + latency * 2, again);
                }
            }
            again += 1;
            at += wait;
            if again > 6 {
                wait *= 2;
            }
        }
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.rng.f64() < probability
    }

    pub fn passes(&self, from: HostId, to: HostId) -> bool {
        !self.blocked.contains(&(from, to))
    }

    pub fn is_whole(&self) -> bool {
        self.blocked.is_empty()
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
            free: [now; 2],
            queued: [0; 2],
            congested: [false; 2],
            held: [VecDeque::new(), VecDeque::new()],
            stuck_since: None,
            acknowledged: [now; 2],
            retransmissions: [0; 2],
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

    /// Sends from one side of a connection.
    pub fn send(&mut self, now: Time, number: usize, side: usize, packet: Packet) -> Queue {
        let bound = self.weather.queue;
        let Some(connection) = self.connections.get_mut(&number) else { return Queue::Fine };
        let mut status = Queue::Fine;
        if let Packet::Bytes(bytes) = &packet {
            connection.queued[side] += bytes.len();
            if connection.queued[side] > bound {
                return Queue::Overflow;
            }
            if connection.queued[side] > bound / 2 && !connection.congested[side] {
                connection.congested[side] = true;
                status = Queue::Congested;
            }
        }
        self.transmit(now, number, side, packet);
        status
    }

    /// What a partition stops waits for its end.
    fn transmit(&mut self, now: Time, number: usize, side: usize, packet: Packet) {
        let (latency, acknowledged, again) = self.carry();
        let width = self.weather.width;
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let [from, to] = [connection.ends[side].0, connection.ends[1 - side].0];
        if !connection.held[side].is_empty() || self.blocked.contains(&(from, to)) {
            connection.held[side].push_back(packet);
            connection.stuck_since.get_or_insert(now);
            return;
        }
        if self.blocked.contains(&(to, from)) {
            // It arrives, and no acknowledgement comes back.
            connection.stuck_since.get_or_insert(now);
        }
        let mut ready = now;
        if let (Some(width), Packet::Bytes(bytes)) = (width, &packet) {
            let takes = Duration::from_micros(bytes.len() as u64 * 1_000_000 / width);
            ready = now.max(connection.free[side]) + takes;
            connection.free[side] = ready;
        }
        let at = (ready + latency).max(connection.last[side]);
        connection.last[side] = at;
        connection.acknowledged[side] = connection.acknowledged[side].max(ready + acknowledged);
        // An acknowledgement rides on the answer, if that comes soon.
        if now - connection.last[1 - side] < DELAYED_ACK {
            connection.acknowledged[1 - side] = connection.acknowledged[1 - side].max(at);
        }
        connection.retransmissions[side] += again;
        self.schedule(at, Happening::Arrive { connection: number, direction: side, packet });
    }

    /// What the kernel of one side says about a connection.
    pub fn measure(&self, now: Time, number: usize, side: usize) -> Option<Measurement> {
        let connection = self.connections.get(&number)?;
        Some(Measurement {
            round_trip: Some(self.weather.delay.0 + self.weather.delay.1),
            retransmissions: connection.retransmissions[side],
            unacknowledged: connection.stuck_since.is_some() || connection.acknowledged[side] > now,
        })
    }

    /// The other side has read so many bytes; `true`: the send queue is empty again after congestion.
    pub fn read(&mut self, number: usize, direction: usize, bytes: usize) -> bool {
        let Some(connection) = self.connections.get_mut(&number) else { return false };
        let queued = &mut connection.queued[direction];
        *queued = queued.saturating_sub(bytes);
        *queued == 0 && std::mem::take(&mut connection.congested[direction])
    }

    /// Ends all partitions; what was held back goes on its way when it is sent again, which may take as long as
    /// it took the last time.
    pub fn heal(&mut self, now: Time) {
        self.blocked.clear();
        let numbers: Vec<usize> = self.connections.keys().copied().collect();
        for number in numbers {
            for side in 0..2 {
                let Some(connection) = self.connections.get_mut(&number) else { continue };
                let stuck = connection.stuck_since.map_or(Duration::ZERO, |since| now - since);
                if !connection.held[side].is_empty() {
                    let most = LEAST_RTO.max(stuck.saturating_sub(6 * LEAST_RTO) / 2);
                    let wait = Duration::from_micros(self.rng.u64(0..=most.as_micros() as u64));
                    connection.last[side] = connection.last[side].max(now + wait);
                    connection.retransmissions[side] += 1;
                }
                if side == 1 {
                    connection.stuck_since = None;
                }
                for packet in std::mem::take(&mut connection.held[side]) {
                    self.transmit(now, number, side, packet);
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
