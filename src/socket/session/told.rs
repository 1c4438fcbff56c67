//! What a session's owner asks for and is told.

use crate::wire::PeId;
use std::time::Duration;

/// A session's number on its descriptor (`rserpool_session_t`), from 1.
pub type SessionId = i32;

/// How to connect and fail over (tags of `rsp_connect_tags`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectOptions {
    /// `TAG_RspSession_ConnectTimeout`, default 5 s.
    pub connect_timeout: Duration,
    /// `TAG_RspSession_HandleResolutionRetryDelay`, default 250 ms.
    pub retry_delay: Duration,
}

/// Options of one message to send.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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

/// A notification (`union rserpool_notification`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Notification {
    SessionAdd { session: SessionId },
    SessionRemove { session: SessionId },
    FailoverNecessary { session: SessionId, has_cookie: bool },
    FailoverComplete { session: SessionId, has_cookie: bool },
    Shutdown { session: SessionId },
}

/// What one receive call delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// End of the session.
    End {
        /// Which one ended.
        session: SessionId,
    },
}

/// Bytes of buffer that a notification takes (`union rserpool_notification`): with less, it stays.
pub const NOTIFICATION_ROOM: usize = 20;
