//! What a session's owner asks for and is told.

use crate::wire::PeId;
use std::time::Duration;

/// A session's number on its descriptor (`rserpool_session_t`), from 1.
pub type SessionId = i32;

/// How to connect and fail over (tags of `rsp_connect_tags`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// `TAG_RspSession_ConnectTimeout`, default 5 s.
    pub connect_timeout: Duration,
    /// `TAG_RspSession_HandleResolutionRetryDelay`, default 250 ms.
    pub retry_delay: Duration,
}

/// Options of one message to send.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendOptions {
    /// Which session; ignored on a connected descriptor.
    pub session: SessionId,
    /// Network byte order, as the C API has it; opaque here.
    pub ppid: u32,
    /// Stream number.
    pub stream: u16,
    /// Milliseconds; 0: for ever (SCTP partial reliability).
    pub time_to_live: u32,
    /// `SCTP_UNORDERED`, `SCTP_EOF`, `SCTP_ABORT`.
    pub flags: u16,
    /// `None`: non-blocking (the C API's time-outs up to 0).
    pub timeout: Option<Duration>,
}

/// To whom of a pool a message goes (RFC 5352 sections 6.5.1, 6.5.3 and 6.5.5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Recipient {
    /// Whom the policy chooses, for each message anew.
    #[default]
    Policy,
    /// A certain element.
    Element(PeId),
    /// Whom the last message to this pool went to; the first time, whom the policy chooses.
    Last,
    /// Each of them has a copy.
    All,
}

/// How a message is sent to a pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ToPool {
    /// To whom.
    pub recipient: Recipient,
    /// To all: also to the element that is registered on the descriptor itself.
    pub to_self: bool,
    /// To another element if a certain one can't be reached.
    pub failover: bool,
    /// To no other element than the one chosen first.
    pub forbid_failover: bool,
    /// How old what is known about the pool may be.
    pub stale: Duration,
}

/// A message that did not get to an element, or of which nobody knows whether it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Undelivered {
    pub(crate) pe_id: PeId,
    /// There was a connection, which broke before the element said anything: it may have got the message.
    pub(crate) reached: bool,
    /// The first portion of it.
    pub(crate) head: Vec<u8>,
    /// How long it was.
    pub(crate) size: usize,
}

impl Undelivered {
    /// As a receive call delivers it.
    pub(crate) fn deliver(&self, buffer: &mut [u8]) -> Received {
        let space = buffer.get_mut(NOTIFICATION_ROOM..).unwrap_or_default();
        let length = self.head.len().min(space.len());
        space[..length].copy_from_slice(&self.head[..length]);
        Received::Undelivered { length, size: self.size, pe_id: self.pe_id, reached: self.reached }
    }
}

/// A notification (`union rserpool_notification`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Notification {
    SessionAdd { session: SessionId },
    SessionRemove { session: SessionId },
    FailoverNecessary { session: SessionId, has_cookie: bool },
    FailoverComplete { session: SessionId, has_cookie: bool },
    Shutdown { session: SessionId },
}

/// What one receive call delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Received {
    /// Application data.
    Data {
        /// Bytes written to the buffer.
        length: usize,
        /// Whether the message ends here (`MSG_EOR`).
        end: bool,
        /// Its session.
        session: SessionId,
        /// Network byte order.
        ppid: u32,
        /// On connected descriptors the element's ID, else 0.
        pe_id: PeId,
        /// Stream number.
        stream: u16,
    },
    /// A cookie echo of a failed-over session; as much as fits, `end` as for data.
    CookieEcho {
        /// Bytes written to the buffer.
        length: usize,
        /// Whether all of it was delivered.
        end: bool,
        /// Its session.
        session: SessionId,
    },
    /// A notification; nothing was written to the buffer.
    Notification(Notification),
    /// A message sent to a pool without a session did not get there, or perhaps not (RFC 5352 section 6.7).
    Undelivered {
        /// Bytes of it written to the buffer, behind the first [`NOTIFICATION_ROOM`].
        length: usize,
        /// How long the message was.
        size: usize,
        /// For whom it was; 0: for an address.
        pe_id: PeId,
        /// There was a connection, which broke before anything came back: the message may have arrived.
        reached: bool,
    },
    /// End of the session.
    End {
        /// Which one ended.
        session: SessionId,
    },
}

/// Bytes of buffer that a notification takes (`union rserpool_notification`): with less, it stays.
pub const NOTIFICATION_ROOM: usize = 20;

/// Where a message goes.
#[derive(Debug)]
pub enum Room<'a> {
    /// Into the caller's buffer.
    Buffer(&'a mut [u8]),
    /// Nowhere: so many bytes are thrown away, over a buffer for the purpose.
    Nowhere {
        /// Most bytes.
        length: usize,
        /// For some of them at a time.
        scratch: Vec<u8>,
    },
}

impl Room<'_> {
    /// Throws away up to so many bytes.
    pub fn nowhere(length: usize) -> Room<'static> {
        Room::Nowhere { length, scratch: vec![0; length.min(1 << 16)] }
    }

    pub(crate) fn length(&self) -> usize {
        match self {
            Room::Buffer(buffer) => buffer.len(),
            Room::Nowhere { length, .. } => *length,
        }
    }

    /// What is left behind the first `taken` bytes, some of it at least.
    pub fn from(&mut self, taken: usize) -> &mut [u8] {
        match self {
            Room::Buffer(buffer) => &mut buffer[taken..],
            Room::Nowhere { length, scratch } => {
                let left = scratch.len().min(*length - taken);
                &mut scratch[..left]
            }
        }
    }
}
