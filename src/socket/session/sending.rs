//! Sending: messages, cookies, business cards.

use super::{Element, Session, Side};
use crate::machine::session as machine;
use crate::socket::SendOptions;
use crate::socket::conn::Conn;
use crate::socket::descriptor::Entry;
use crate::socket::linger::Linger;
use crate::socket::sender::Outgoing;
use crate::socket::wait::{Deadline, Patience, errno};
use crate::transport::sctp_socket::send_flags;
use nix::errno::Errno;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{Ordering::Relaxed, Ordering::SeqCst};

impl Session {
    /// Sends a message.
    pub(in crate::socket) fn send(
        &self,
        entry: &Entry,
        linger: &Linger,
        data: &[u8],
        options: &SendOptions,
    ) -> io::Result<usize> {
        self.stop(entry)?;
        let Some(conn) = self.conn() else { return Err(entry.refusal(Errno::EIO)) };
        if options.flags & send_flags::ABORT != 0 {
            conn.abort();
            self.lose(entry);
            if self.alone {
                self.forget_conn(entry);
            }
            return Ok(data.len());
        }
        let ends = options.flags & send_flags::EOF != 0;
        self.ended_here.fetch_or(ends, SeqCst);
        if data.is_empty() && !ends {
            return Err(errno(Errno::EINVAL));
        }
        let out = Outgoing {
            data,
            ppid: options.ppid.to_ne_bytes(),
            stream: options.stream,
            flags: options.flags & !send_flags::EOF,
            time_to_live: options.time_to_live,
            control: false,
        };
        let sent = if data.is_empty() {
            Ok(0)
        } else {
            self.enclose_card(&conn);
            self.last_ppid.store(options.ppid, Relaxed);
            self.transmit(entry, linger, &conn, &out, Deadline::or_now(options.timeout))
        };
        if ends && sent.is_ok() && !conn.finish() {
            linger.flush(&conn);
        }
        sent
    }

    /// An element's cookie for its user.
    pub(in crate::socket) fn send_cookie(
        &self,
        entry: &Entry,
        linger: &Linger,
        cookie: &[u8],
        deadline: Deadline,
    ) -> io::Result<()> {
        self.stop(entry)?;
        let message = machine::cookie_message(cookie).ok_or_else(|| errno(Errno::EMSGSIZE))?;
        let Some(conn) = self.conn() else { return Err(entry.refusal(Errno::EIO)) };
        self.transmit(entry, linger, &conn, &Outgoing::control(&message), deadline).map(|_| ())
    }

    fn transmit(
        &self,
        entry: &Entry,
        linger: &Linger,
        conn: &Arc<Conn>,
        out: &Outgoing<'_>,
        deadline: Deadline,
    ) -> io::Result<usize> {
        let stop = || self.stop_on(entry, conn);
        let patience = Patience { deadline, waiters: &entry.waiters, stop: &stop };
        let sent = conn.send(out, &patience);
        if conn.backlogged() {
            linger.flush(conn);
        }
        if let Err(error) = &sent
            && is_fatal(error)
        {
            entry.check_open()?;
            if !self.link.read().is(conn) {
                // Its end says nothing of the session, which somebody moved meanwhile.
                self.stop_on(entry, conn)?;
            }
            self.lose_conn(entry, conn);
        }
        sent
    }

    /// Why not to send (any longer).
    fn stop(&self, entry: &Entry) -> io::Result<()> {
        entry.check_open()?;
        match self.is_down() {
            true if self.as_user().is_some() => Err(entry.refusal(Errno::EIO)),
            true => Err(entry.refusal(Errno::EPIPE)),
            false => Ok(()),
        }
    }

    /// The same for `conn`, which may have been replaced meanwhile.
    pub(super) fn stop_on(&self, entry: &Entry, conn: &Conn) -> io::Result<()> {
        self.stop(entry)?;
        if self.link.read().is(conn) { Ok(()) } else { Err(entry.refusal(Errno::EIO)) }
    }

    /// An element's business card goes out with the first message for which other elements are known.
    fn enclose_card(&self, conn: &Conn) {
        let Side::Element(Element { pool: Some(pool), before_card }) = &self.side else { return };
        let sent = before_card.load(Relaxed);
        if sent == u32::MAX {
            return;
        }
        // Asked at the 1st, 2nd, 4th, 8th .. message.
        let mut next = sent.saturating_add(1).min(u32::MAX - 1);
        if next.is_power_of_two()
            && conn.takes_cards()
            && let Some(card) = pool.card()
        {
            conn.enclose(&card);
            next = u32::MAX;
        }
        before_card.store(next, Relaxed);
    }
}

/// Whether a send's error says that the connection is of no further use.
fn is_fatal(error: &io::Error) -> bool {
    use libc::{EAGAIN, EBADF, EINTR, EINVAL, EIO, EMFILE, EMSGSIZE, ENFILE, ENOBUFS, ENOMEM, EOPNOTSUPP};
    let harmless = [EAGAIN, EBADF, EINTR, EINVAL, EIO, EMFILE, EMSGSIZE, ENFILE, ENOBUFS, ENOMEM, EOPNOTSUPP];
    !error.raw_os_error().is_some_and(|code| harmless.contains(&code))
}
