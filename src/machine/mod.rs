//! Pure state machines: everything RSerPool decides, nothing it does.
//!
//! Time, seed and bytes are arguments, effects are values. All machines use the same verbs:
//! `handle_message(now, link, bytes)`, `handle_link(now, link, change)`, `handle_announce(now, ..)`,
//! `handle_timeout(now)`, `poll_timeout() -> Option<Time>`, `poll_output() -> Option<Output<_>>`.
//!
//! The law: *mutate, then drain `poll_output` to `None`, then ask `poll_timeout`.* Nothing in here
//! touches a clock, socket, thread, lock, global state or the iteration order of a hash map.

mod bucket;
pub mod cache;
pub mod choice;
pub mod client;
mod outbox;
mod reach;
pub mod registrar;
pub mod seal;
pub mod session;
pub mod timer;
pub mod trust;

use crate::wire::{Asap, OperationError};
use std::fmt;
use std::net::SocketAddr;
use std::ops::{Add, Sub};
use std::sync::Arc;
use std::time::Duration;

/// A point in time: microseconds since an origin that only the driver knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Time(pub u64);

impl Add<Duration> for Time {
    type Output = Time;
    fn add(self, later: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(later.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// Time passed since `earlier`; zero if that lies ahead.
impl Sub<Time> for Time {
    type Output = Duration;
    fn sub(self, earlier: Time) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// One connection (TCP connection, SCTP association) that carries ASAP or ENRP messages.
///
/// Numbers below [`LinkId::INCOMING`] are given out by the machine that opens the link, the others by
/// the driver for links that somebody else opened. A number is never used twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u64);

impl LinkId {
    /// First number of the driver's half.
    pub const INCOMING: u64 = 1 << 63;
    /// Whether somebody else opened the link.
    pub fn is_incoming(self) -> bool {
        self.0 >= LinkId::INCOMING
    }
}

impl fmt::Debug for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.0 & !LinkId::INCOMING;
        write!(f, "{}{number}", if self.is_incoming() { "in" } else { "out" })
    }
}

/// Which protocol a link or a multicast group carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    /// Between registrar and element or user.
    Asap,
    /// Between registrars.
    Enrp,
}

/// What links run over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LinkProtocol {
    /// Kernel SCTP: one message is one user message.
    Sctp,
    /// TCP: messages back to back.
    Tcp,
}

/// Where to dial: one host, all its addresses, best first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// Over what.
    pub protocol: LinkProtocol,
    /// At least one. SCTP dials all at once (connectx), TCP one after the other.
    pub addresses: Vec<SocketAddr>,
}

/// The two ends of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkEnds {
    /// ASAP or ENRP.
    pub service: Service,
    /// Over what.
    pub protocol: LinkProtocol,
    /// The peer's addresses, primary first (TCP: one).
    pub peer: Vec<SocketAddr>,
    /// Our addresses on it (TCP: one).
    pub local: Vec<SocketAddr>,
    /// What the peer has proved that it may be; `None` where no proof is asked for.
    pub roles: Option<Arc<trust::Roles>>,
}

/// What happened to a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkChange {
    /// It is there: dialled successfully, or accepted.
    Up(LinkEnds),
    /// It is gone or never came to be; the number is dead.
    Down(LinkDown),
    /// More than half of the send queue's bound is waiting. Sending still works.
    Congested,
    /// The send queue is empty again after `Congested`.
    Drained,
}

/// Why a link is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkDown {
    /// Nobody listens there, or it can't be reached.
    Refused,
    /// The peer closed it in order.
    Closed,
    /// It broke (reset, abort, transport time-out).
    Broken,
    /// The peer does not read: the send queue's bound was reached.
    Overflow,
    /// The peer sent what is no message stream.
    Garbage,
}

/// What the kernel has measured of the way to the other end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Measurement {
    /// Smoothed round trip time (SRTT); `None` before anything was measured.
    pub round_trip: Option<Duration>,
    /// How many segments or chunks were sent again, or came twice, since the link is up.
    pub retransmissions: u64,
    /// Whether something is under way: not sent yet, without the acknowledgement of the other kernel, or come and not read.
    pub unacknowledged: bool,
}

/// An effect, in the order in which it is to be carried out. `E` is the machine's event type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output<E> {
    /// Dial; answer with [`LinkChange::Up`] or [`LinkChange::Down`], never before the current drain ends.
    Open {
        /// The new link's number.
        link: LinkId,
        /// ASAP or ENRP.
        service: Service,
        /// Where.
        target: Target,
    },
    /// Send one or more whole messages.
    Send {
        /// Over which link. Unknown or dead: dropped.
        link: LinkId,
        /// Padded messages back to back; never splits a message. Over SCTP the driver splits them.
        bytes: Vec<u8>,
    },
    /// Close after what was queued is sent. No `Down` follows.
    Close {
        /// The link; its number is dead from here on.
        link: LinkId,
    },
    /// Send a datagram to the service's multicast group, from the service's port.
    Announce {
        /// Which group.
        service: Service,
        /// The message.
        bytes: Vec<u8>,
    },
    /// Ask the kernel how the way to the other end is; answer with `handle_measurement`, not before the current
    /// drain ends. Nothing to say: no answer.
    Measure {
        /// Of which link.
        link: LinkId,
    },
    /// Something for the application or the operator.
    Event(E),
}

/// Names a request to a machine until its answer event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What a process says first to whoever connects to it over TCP: that it speaks ASAP. Registrars connect to where
/// others say that a process is, and before they have heard this they say nothing of what others chose, or after a
/// while nothing that somebody else could take for a line.
fn hello() -> Asap {
    Asap::Error { error: OperationError(Vec::new()) }
}
