//! Messages and cookies of sessions.

use super::Library;
use crate::socket::descriptor::entry::EntryRole;
use crate::socket::error::{Result, SocketError};
use crate::socket::readiness::wait::Deadline;
use crate::socket::session::told::{Received, Room, SendOptions, SessionId};
use crate::transport::sctp_socket::send_flags;
use std::os::fd::RawFd;
use std::time::Duration;

impl Library {
    /// Sends a message, whole: what the kernel does not take at once follows by itself.
    /// [`SocketError::WouldBlock`]: nothing was taken in time; [`SocketError::SessionFailed`] of a user's,
    /// [`SocketError::SessionOver`] of an element's; [`SocketError::NoSession`]; [`SocketError::Invalid`]: no data, no such
    /// stream; [`SocketError::TooLong`]: over TCP, more than 16 MiB without a time-out, over SCTP, more than the send
    /// buffer can be made to hold; [`SocketError::Interrupted`]. Others end the session.
    pub fn send(&self, sd: RawFd, data: &[u8], options: SendOptions) -> Result<usize> {
        let many = match self.role(sd)? {
            EntryRole::Single(session) => return session.send(data, &options),
            EntryRole::Many(many) => many,
            EntryRole::Fresh { .. } | EntryRole::Listener(_) => return Err(SocketError::NoSession),
        };
        let session = many.session(options.session).ok_or(SocketError::NoSession)?;
        let sent = session.send(data, &options);
        if options.flags & send_flags::ABORT != 0 && sent.is_ok() {
            many.remove(&session, false);
        }
        sent
    }

    /// Sends an element's cookie to its user; `timeout` `None`: without waiting. [`SocketError::Misused`]: no
    /// such session, or not an element's; [`SocketError::TooLong`]: more than 65 524 bytes;
    /// [`SocketError::WouldBlock`], [`SocketError::Interrupted`].
    pub fn send_cookie(
        &self,
        sd: RawFd,
        cookie: &[u8],
        session: SessionId,
        timeout: Option<Duration>,
    ) -> Result<usize> {
        let entry = self.entry(sd)?;
        let session = match entry.role() {
            EntryRole::Single(session) => Some(session),
            EntryRole::Many(many) => many.session(session),
            EntryRole::Fresh { .. } | EntryRole::Listener(_) => None,
        };
        let session = session
            .filter(|session| session.as_user().is_none())
            .ok_or_else(|| entry.readiness().refusal(SocketError::Misused))?;
        session.send_cookie(cookie, Deadline::or_now(timeout))?;
        Ok(cookie.len())
    }

    /// Receives: notifications and cookie echoes first, then data, then what was lost. `timeout` `None`: one
    /// non-blocking attempt. A message larger than `buffer` is delivered in parts.
    /// [`SocketError::WouldBlock`]: nothing came; [`SocketError::NotConnected`]: nothing can come;
    /// [`SocketError::NoRoom`]: a notification, and less than `NOTIFICATION_ROOM` for it;
    /// [`SocketError::Interrupted`].
    pub fn recv(&self, sd: RawFd, buffer: &mut [u8], timeout: Option<Duration>) -> Result<Received> {
        self.receive(sd, &self.role(sd)?, buffer, &mut Deadline::or_now(timeout))
    }

    fn receive(
        &self,
        sd: RawFd,
        role: &EntryRole,
        buffer: &mut [u8],
        deadline: &mut Deadline,
    ) -> Result<Received> {
        match role {
            EntryRole::Single(session) => session.receive(buffer, deadline),
            EntryRole::Many(many) => many.receive(buffer, deadline),
            EntryRole::Fresh { .. } | EntryRole::Listener(_) => {
                Err(self.entry(sd)?.readiness().refusal(SocketError::NotConnected))
            }
        }
    }

    /// After [`Library::recv`] delivered a part of a message or cookie echo (`end` false): more of it, and
    /// nothing else. [`SocketError::WouldBlock`]: not in time; [`SocketError::PeerGone`]: it never comes;
    /// [`SocketError::NoSession`].
    pub fn recv_rest(
        &self,
        sd: RawFd,
        session: SessionId,
        buffer: &mut [u8],
        timeout: Option<Duration>,
    ) -> Result<Received> {
        self.receive_rest(&self.role(sd)?, session, buffer, &mut Deadline::or_now(timeout))
    }

    fn receive_rest(
        &self,
        role: &EntryRole,
        session: SessionId,
        buffer: &mut [u8],
        deadline: &mut Deadline,
    ) -> Result<Received> {
        match role {
            EntryRole::Single(session) => session.receive_rest(buffer, deadline),
            EntryRole::Many(many) => {
                let session = many.session(session).ok_or(SocketError::NoSession)?;
                session.receive_rest(buffer, deadline)
            }
            EntryRole::Fresh { .. } | EntryRole::Listener(_) => Err(SocketError::NoSession),
        }
    }

    /// [`Library::recv`] until the message is whole or `room` full: what is left of `timeout` is for the rest of it.
    /// If that fails, what came is delivered (`end` false), and the next call meets the failure again.
    pub fn recv_full(&self, sd: RawFd, room: &mut Room<'_>, timeout: Option<Duration>) -> Result<Received> {
        let role = self.role(sd)?;
        let mut deadline = Deadline::or_now(timeout);
        let mut whole = self.receive(sd, &role, room.from(0), &mut deadline)?;
        let most = room.length();
        while let Received::Data { length, end: end @ false, session, .. }
        | Received::CookieEcho { length, end: end @ false, session } = &mut whole
            && (1..most).contains(length)
        {
            match self.receive_rest(&role, *session, room.from(*length), &mut deadline) {
                Ok(
                    Received::Data { length: part @ 1.., end: last, .. }
                    | Received::CookieEcho { length: part @ 1.., end: last, .. },
                ) => {
                    *length += part;
                    *end = last;
                }
                _ => break,
            }
        }
        Ok(whole)
    }
}
