//! Descriptors, blocking, time-outs, sessions: what happens on the caller's thread.
//!
//! [`Library`] is the whole RSerPool socket API as safe Rust; the C functions of `ffi` only convert
//! their arguments. A descriptor is the number of an epoll instance, so it is a real file descriptor:
//! readable exactly when `recv` or `accept` has something. Errors are [`io::Error`] with an errno.

use crate::runtime::{Runtime, Settings};
use crate::wire::{PeId, Policy, PoolElement, PoolHandle};
use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::time::Duration;

/// `SOCK_STREAM` or `SOCK_SEQPACKET`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// One session per descriptor; no notifications.
    Stream,
    /// Many sessions per descriptor; notifications.
    SeqPacket,
}

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

/// What to register (`rsp_register`).
#[derive(Debug, Clone)]
pub struct Registration {
    /// Pool handle.
    pub handle: PoolHandle,
    /// Policy and values.
    pub policy: Policy,
    /// `TAG_PoolElement_Identifier`; `None`: random.
    pub id: Option<PeId>,
    /// Re-registration interval; registration life is three times that.
    pub interval: Duration,
    /// Block for the registrar's answer.
    pub wait: bool,
    /// `REGF_DAEMONMODE`: no error when there is no usable local address yet.
    pub daemon: bool,
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

/// One entry of [`Library::poll`]; `events` and `revents` are poll(2)'s. Laid out as `struct pollfd`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PollEntry {
    pub sd: RawFd,
    pub events: i16,
    pub revents: i16,
}

/// `struct rserpool_session_parameters`; 0 means "leave as it is".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SessionParameters {
    pub rto_initial: u32,
    pub rto_min: u32,
    pub rto_max: u32,
    pub assoc_max_rxt: u32,
    pub path_max_rxt: u32,
    pub hb_interval: u32,
}

/// The RSerPool socket API of one process.
#[derive(Debug)]
pub struct Library {
    _private: (),
}

#[allow(unused_variables, missing_docs, clippy::too_many_arguments)]
impl Library {
    pub fn start(settings: Settings) -> io::Result<Library> {
        todo!()
    }
    /// Closes every descriptor, deregisters every element, ends the event thread.
    pub fn shutdown(&self) {
        todo!()
    }
    pub fn runtime(&self) -> &Runtime {
        todo!()
    }

    /// `domain`: 0, AF_INET, AF_INET6; `protocol`: IPPROTO_SCTP (over the TCP mapping where the kernel
    /// has no SCTP), IPPROTO_TCP or 0. Errors: EPROTONOSUPPORT, EMFILE, ENFILE, ENOMEM.
    pub fn socket(&self, domain: i32, style: Style, protocol: i32) -> io::Result<RawFd> {
        todo!()
    }
    pub fn close(&self, sd: RawFd) -> io::Result<()> {
        todo!()
    }
    pub fn bind(&self, sd: RawFd, addresses: &[SocketAddr]) -> io::Result<()> {
        todo!()
    }
    pub fn listen(&self, sd: RawFd, backlog: i32) -> io::Result<()> {
        todo!()
    }
    /// `None`: wait for ever. EAGAIN when time is over.
    pub fn accept(&self, sd: RawFd, timeout: Option<Duration>) -> io::Result<RawFd> {
        todo!()
    }
    pub fn register(&self, sd: RawFd, registration: Registration) -> io::Result<()> {
        todo!()
    }
    pub fn deregister(&self, sd: RawFd, wait: bool) -> io::Result<()> {
        todo!()
    }
    /// Own pool handle and ID. EBADF when not registered.
    pub fn local_name(&self, sd: RawFd) -> io::Result<(PoolHandle, PeId)> {
        todo!()
    }
    /// The connected session's pool handle (`None` on accepted descriptors) and element.
    pub fn peer_name(&self, sd: RawFd) -> io::Result<(Option<PoolHandle>, PeId)> {
        todo!()
    }
    pub fn connect(
        &self,
        sd: RawFd,
        handle: Option<PoolHandle>,
        stale: Duration,
        options: ConnectOptions,
    ) -> io::Result<()> {
        todo!()
    }
    pub fn force_failover(&self, sd: RawFd, unreachable: bool, stale: Duration) -> io::Result<()> {
        todo!()
    }
    pub fn has_cookie(&self, sd: RawFd) -> io::Result<bool> {
        todo!()
    }
    pub fn send(&self, sd: RawFd, data: &[u8], options: SendOptions) -> io::Result<usize> {
        todo!()
    }
    pub fn send_cookie(
        &self,
        sd: RawFd,
        cookie: &[u8],
        session: SessionId,
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        todo!()
    }
    /// `timeout` `None`: one non-blocking attempt. EAGAIN when nothing came. A message larger than
    /// `buffer` is delivered in parts.
    pub fn recv(&self, sd: RawFd, buffer: &mut [u8], timeout: Option<Duration>) -> io::Result<Received> {
        todo!()
    }
    /// poll(2) over RSerPool, mapped and ordinary descriptors. `None`: wait for ever.
    pub fn poll(&self, entries: &mut [PollEntry], timeout: Option<Duration>) -> io::Result<usize> {
        todo!()
    }
    /// `rsp_mapsocket`: `to` `None`: any number.
    pub fn map(&self, system: RawFd, to: Option<RawFd>) -> io::Result<RawFd> {
        todo!()
    }
    pub fn unmap(&self, sd: RawFd) -> io::Result<()> {
        todo!()
    }
    /// The system descriptor behind a mapped number; `None` if `sd` is an RSerPool descriptor; EBADF if neither.
    pub fn mapped(&self, sd: RawFd) -> io::Result<Option<RawFd>> {
        todo!()
    }
    /// The current system socket, for option pass-through. EBADF; ENOTCONN when there is none.
    pub fn system_socket(&self, sd: RawFd) -> io::Result<RawFd> {
        todo!()
    }
    pub fn session_parameters(&self, sd: RawFd, change: SessionParameters) -> io::Result<SessionParameters> {
        todo!()
    }
    pub fn set_status(&self, sd: RawFd, session: SessionId, text: &str) -> io::Result<()> {
        todo!()
    }
    /// Basic mode: `rsp_getaddrinfo`.
    pub fn resolve(
        &self,
        handle: &PoolHandle,
        items: usize,
        stale: Duration,
    ) -> Result<Vec<PoolElement>, crate::machine::client::RequestError> {
        todo!()
    }
}
