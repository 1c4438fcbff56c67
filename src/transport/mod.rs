//! Sockets: one [`Link`] over TCP, TLS or kernel SCTP, listeners, UDP multicast, the interface list.
//!
//! Nothing here raises SIGPIPE, every descriptor is close-on-exec and non-blocking. This room knows
//! message boundaries (`wire::frame`), not messages.
//!
//! | file | what |
//! |---|---|
//! | `mod` | [`Link`]: a connected message link over any transport |
//! | `tcp`, `tcp_socket` | links and listeners over TCP; what they and session sockets do alike |
//! | `stream`, `dials` | session sockets over TCP; a host's addresses dialled one beside the other |
//! | `tls` | links over TLS on TCP |
//! | `sctp` | links over SCTP, and the one port of a service |
//! | `sctp_socket`, `sctp_event`, `sctp_structs`, `sctp_sys` | SCTP sockets, their notifications, the kernel's structures and interface |
//! | `sockaddr`, `structures` | socket addresses, and any of the kernel's structures, as bytes |
//! | `multicast`, `interfaces`, `netns` | groups, the interface list, network namespaces for tests |
//! | `allow`, `diag` | from where connections are taken; what the kernel says of sockets |
//! | `descriptors`, `host`, `scratch` | numbers above 2; randomness, forks, limits; a buffer per thread |

pub mod allow;
pub mod descriptors;
pub mod diag;
pub mod dials;
pub mod host;
pub mod interfaces;
pub mod multicast;
pub mod scratch;
pub mod sctp;
mod sctp_event;
pub mod sctp_socket;
mod sctp_structs;
mod sctp_sys;
pub(crate) mod sockaddr;
pub mod stream;
mod structures;
pub mod tcp;
mod tcp_socket;
pub mod tls;

#[cfg(test)]
pub(crate) mod netns;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// What reading from a link came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadStatus {
    /// Nothing more to read for now.
    Drained,
    /// The budget of this call is used up; call again after serving others.
    More,
    /// The peer closed in order.
    Closed,
    /// What came is no message stream.
    Garbage,
}

/// State of a link's send queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueStatus {
    /// All of it is with the kernel.
    Empty,
    /// That many bytes wait for the socket to become writable.
    Waiting(usize),
    /// The bound was reached; nothing of this call was queued. The link should be dropped.
    Overflow,
}

/// What the kernel knows of the way to the other end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Condition {
    /// The smoothed round trip time, over SCTP that of the primary path; `None` before anything was measured.
    pub round_trip: Option<Duration>,
    /// Segments or chunks that were sent again, or came twice, since the link is up.
    pub retransmissions: u64,
    /// Whether something is under way: not sent yet, not acknowledged, or come and not read.
    pub unacknowledged: bool,
}

/// A connected message link: TCP connection, or SCTP association peeled off to its own descriptor.
#[derive(Debug)]
pub enum Link {
    /// Over TCP.
    Tcp(tcp::TcpLink),
    /// Over SCTP.
    Sctp(sctp::SctpLink),
    /// Over TLS on TCP.
    Tls(Box<tls::TlsLink>),
}

impl Link {
    /// Hands up to `budget` whole messages to `message`; a half message stays buffered (bounded by
    /// one message).
    pub fn read_messages(&mut self, budget: usize, message: &mut dyn FnMut(&[u8])) -> io::Result<ReadStatus> {
        match self {
            Link::Tcp(link) => link.read_messages(budget, message),
            Link::Sctp(link) => link.read_messages(budget, message),
            Link::Tls(link) => link.read_messages(budget, message),
        }
    }

    /// Queues whole messages and writes what the kernel takes.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<QueueStatus> {
        match self {
            Link::Tcp(link) => link.send(bytes),
            Link::Sctp(link) => link.send(bytes),
            Link::Tls(link) => link.send(bytes),
        }
    }

    /// The socket is writable: writes more of the queue.
    pub fn flush(&mut self) -> io::Result<QueueStatus> {
        match self {
            Link::Tcp(link) => link.flush(),
            Link::Sctp(link) => link.flush(),
            Link::Tls(link) => link.flush(),
        }
    }

    /// For an outgoing link whose connect is under way: `Ok(true)` once connected.
    pub fn finish_connect(&mut self) -> io::Result<bool> {
        match self {
            Link::Tcp(link) => link.finish_connect(),
            Link::Sctp(link) => link.finish_connect(),
            Link::Tls(link) => link.finish_connect(),
        }
    }

    /// Whether the beginning of a message waits for its end. Over SCTP a short one waits in the kernel
    /// ([`Link::kernel_memory`]).
    pub fn is_partial(&self) -> bool {
        match self {
            Link::Tcp(link) => link.is_partial(),
            Link::Sctp(link) => link.is_partial(),
            Link::Tls(link) => link.is_partial(),
        }
    }

    /// Bytes of ours that are kept with the link.
    pub fn buffered(&self) -> usize {
        match self {
            Link::Tcp(link) => link.buffered(),
            Link::Sctp(link) => link.buffered(),
            Link::Tls(link) => link.buffered(),
        }
    }

    /// What the kernel keeps for an association, in and out; `None`: nothing of which an owner would have to know (TCP
    /// hands out what it has, and bounds the rest by itself).
    pub fn kernel_memory(&self) -> Option<(usize, usize)> {
        match self {
            Link::Sctp(link) => Some(link.kernel_memory()),
            Link::Tcp(_) | Link::Tls(_) => None,
        }
    }

    /// Ends the link without waiting for what the peer has not taken.
    pub fn abort(&self) {
        if let Link::Sctp(link) = self {
            link.abort();
        }
    }

    /// Says that nothing more comes, behind what is queued, where the protocol has words for that: whoever
    /// hears nothing but the end of the connection can't know whether that was all.
    pub fn end(&mut self) -> io::Result<QueueStatus> {
        match self {
            Link::Tls(link) => link.end(),
            other => other.flush(),
        }
    }

    /// What the peer's certificate is called; `None` where it has none.
    pub fn names(&self) -> Option<Vec<String>> {
        match self {
            Link::Tls(link) => Some(link.names()),
            Link::Tcp(_) | Link::Sctp(_) => None,
        }
    }

    /// The peer's addresses, primary first.
    pub fn peer_addresses(&self) -> Vec<SocketAddr> {
        match self {
            Link::Tcp(link) => link.peer_addresses(),
            Link::Sctp(link) => link.peer_addresses(),
            Link::Tls(link) => link.peer_addresses(),
        }
    }

    /// How the way to the other end is; `None`: the kernel does not say.
    pub fn condition(&self) -> Option<Condition> {
        let (mut condition, unread) = match self {
            Link::Tcp(link) => (link.condition()?, stream::pending(link.as_fd()) > 0),
            Link::Sctp(link) => (link.condition()?, link.kernel_memory().0 > 0),
            Link::Tls(link) => (link.condition()?, stream::pending(link.as_fd()) > 0),
        };
        condition.unacknowledged |= unread || self.buffered() > 0;
        Some(condition)
    }

    /// Our addresses.
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        match self {
            Link::Tcp(link) => link.local_addresses(),
            Link::Sctp(link) => link.local_addresses(),
            Link::Tls(link) => link.local_addresses(),
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Link::Tcp(link) => link.as_fd(),
            Link::Sctp(link) => link.as_fd(),
            Link::Tls(link) => link.as_fd(),
        }
    }
}
