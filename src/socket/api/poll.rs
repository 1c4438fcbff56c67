//! poll(2) over RSerPool descriptors, mapped and ordinary ones, with the full semantics: what only the
//! library cares for is not reported, what is read ahead is.

use super::Library;
use crate::socket::descriptor::entry::{Entry, EntryRole};
use crate::socket::error::{Result, SocketError};
use crate::socket::readiness::wait::{Deadline, GLANCE, new_bell};
use crate::transport::descriptors::Held;
use crate::transport::host::descriptor_limit;
use crate::transport::stream;
use nix::sys::eventfd::EventFd;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// One entry of [`Library::poll`]; `events` and `revents` are poll(2)'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PollEntry {
    pub sd: RawFd,
    pub events: i16,
    pub revents: i16,
}

const IN: i16 = libc::POLLIN | libc::POLLRDNORM;
const OUT: i16 = libc::POLLOUT | libc::POLLWRNORM;

/// What one entry of the call stands for.
enum Polled {
    Ours(Arc<Entry>),
    /// Mapped or ordinary: its system descriptor.
    System(RawFd),
    Ignored,
}

/// What stands behind writability.
enum Writable {
    /// The socket says.
    Ask(RawFd),
    /// A send would not wait.
    Now,
    Never,
}

/// Up to so many entries the kernel is left to say whether they are too many: asking it costs a system call.
const NOT_WORTH_ASKING: usize = 256;

impl Library {
    /// [`SocketError::Invalid`] for more entries than [`Library::poll`] takes: to be known before anybody looks at them.
    pub fn check_poll(entries: usize) -> Result<()> {
        let fit = entries <= NOT_WORTH_ASKING || entries as u64 <= descriptor_limit();
        if fit { Ok(()) } else { Err(SocketError::Invalid) }
    }

    /// poll(2) over RSerPool, mapped and ordinary descriptors; how many have something. `None`: wait for
    /// ever. [`SocketError::Interrupted`], [`SocketError::NoMemory`]; [`SocketError::System`] with EINVAL: too many
    /// entries.
    pub fn poll(&self, entries: &mut [PollEntry], timeout: Option<Duration>) -> Result<usize> {
        self.check_process()?;
        let deadline = Deadline::or_never(timeout);
        let (mut polled, mut system) = (Vec::new(), Vec::new());
        polled.try_reserve_exact(entries.len()).map_err(|_| SocketError::NoMemory)?;
        system.try_reserve_exact(entries.len() * 2 + 1).map_err(|_| SocketError::NoMemory)?;
        polled.extend(entries.iter().map(|entry| self.classify(entry.sd)));
        let senders = senders(entries, &polled)?;
        let mut bell: Option<Bell<'_>> = None;
        let mut deaf = false;
        loop {
            system.clear();
            let mut at_once = false;
            for (entry, polled) in entries.iter().zip(&polled) {
                at_once |= ask(entry, polled, &mut system);
            }
            system.extend(bell.as_ref().map(|bell| poll_for(bell.0.as_raw_fd(), libc::POLLIN)));
            // Who waits to send needs a bell as well, and that only if there is really something to wait for.
            let look = at_once || (bell.is_none() && !deaf && !senders.is_empty());
            let turn = if deaf { deadline.min(Deadline::after(GLANCE)) } else { deadline };
            let milliseconds = if look { 0 } else { turn.milliseconds() };
            let any = stream::poll(&mut system, milliseconds)? > 0;
            if !any && !at_once {
                if look && !deadline.passed() {
                    bell = Bell::hang(&senders);
                    deaf = bell.is_none();
                    continue;
                }
                // Rounding may have woken us early.
                if deadline.passed() {
                    entries.iter_mut().for_each(|entry| entry.revents = 0);
                    return Ok(0);
                }
                continue;
            }
            let mut answers = system.iter();
            let mut count = 0;
            for (entry, polled) in entries.iter_mut().zip(&polled) {
                entry.revents = answer(entry, polled, &mut answers);
                count += usize::from(entry.revents != 0);
            }
            if count > 0 || deadline.passed() {
                return Ok(count);
            }
            if let Some(bell) = &bell {
                let _ = bell.0.read();
            }
        }
    }

    fn classify(&self, sd: RawFd) -> Polled {
        match self.entry(sd) {
            Ok(entry) => Polled::Ours(entry),
            Err(_) if sd < 0 => Polled::Ignored,
            Err(_) => Polled::System(self.alias(sd).unwrap_or(sd)),
        }
    }
}

/// Those of ours that are asked whether they can send.
fn senders(entries: &[PollEntry], polled: &[Polled]) -> Result<Vec<Arc<Entry>>> {
    let ours = entries.iter().zip(polled).filter_map(|(entry, polled)| match polled {
        Polled::Ours(ours) if entry.events & OUT != 0 => Some(ours.clone()),
        _ => None,
    });
    let mut all = Vec::new();
    for entry in ours {
        all.try_reserve(1).map_err(|_| SocketError::NoMemory)?;
        all.push(entry);
    }
    Ok(all)
}

/// Rings when a descriptor that waits to send is closed, lost or moved: its socket may not say so.
struct Bell<'a>(Arc<Held<EventFd>>, &'a [Arc<Entry>]);

impl<'a> Bell<'a> {
    fn hang(entries: &'a [Arc<Entry>]) -> Option<Bell<'a>> {
        let bell = Bell(new_bell()?, entries);
        entries.iter().for_each(|entry| entry.readiness().waiters.attach(&bell.0));
        Some(bell)
    }
}

impl Drop for Bell<'_> {
    fn drop(&mut self) {
        self.1.iter().for_each(|entry| entry.readiness().waiters.detach(&self.0));
    }
}

fn poll_for(fd: RawFd, events: i16) -> libc::pollfd {
    libc::pollfd { fd, events, revents: 0 }
}

/// Puts what stands for an entry on the system's list: for one of ours two if both directions are asked for
/// (the kernel takes no more entries than the process may have files). Whether something is known without
/// asking.
fn ask(entry: &PollEntry, polled: &Polled, system: &mut Vec<libc::pollfd>) -> bool {
    let poll = poll_for;
    match polled {
        Polled::Ignored => false,
        Polled::System(fd) => {
            system.push(poll(*fd, entry.events));
            false
        }
        Polled::Ours(ours) => {
            system.push(poll(ours.number(), if entry.events & IN != 0 { libc::POLLIN } else { 0 }));
            if entry.events & OUT == 0 {
                return ours.readiness().is_closed();
            }
            let writable = writable(ours);
            system.push(match writable {
                Writable::Ask(fd) => poll(fd, libc::POLLOUT),
                Writable::Now | Writable::Never => poll(-1, 0),
            });
            matches!(writable, Writable::Now) || ours.readiness().is_closed()
        }
    }
}

fn answer<'a>(
    entry: &PollEntry,
    polled: &Polled,
    system: &mut impl Iterator<Item = &'a libc::pollfd>,
) -> i16 {
    let mut next = || system.next().map_or(0, |poll| poll.revents);
    match polled {
        Polled::Ignored => 0,
        Polled::System(_) => next(),
        Polled::Ours(ours) => {
            let readable = next();
            let socket = if entry.events & OUT != 0 { next() } else { 0 };
            if ours.readiness().is_closed() {
                return libc::POLLNVAL;
            }
            let mut revents = 0;
            if readable & libc::POLLIN != 0 && look(ours) {
                revents |= entry.events & IN;
            }
            let broken = libc::POLLERR | libc::POLLHUP;
            let now = entry.events & OUT != 0 && matches!(writable(ours), Writable::Now);
            if now || socket & (libc::POLLOUT | broken) != 0 {
                revents |= entry.events & OUT;
            }
            revents
        }
    }
}

fn look(entry: &Entry) -> bool {
    match entry.role() {
        EntryRole::Fresh { .. } => false,
        EntryRole::Listener(listener) => listener.look(),
        EntryRole::Many(many) => many.look(),
        EntryRole::Single(session) => session.look(),
    }
}

fn writable(entry: &Entry) -> Writable {
    match entry.role() {
        EntryRole::Fresh { .. } | EntryRole::Listener(_) => Writable::Never,
        // Each session has its own buffer; a send to one that is full says so.
        EntryRole::Many(_) => Writable::Now,
        EntryRole::Single(session) => match session.conn() {
            // A send says at once that the session failed.
            _ if session.is_down() => Writable::Now,
            None => Writable::Never,
            Some(conn) => {
                let _ = conn.flush();
                Writable::Ask(conn.as_fd().as_raw_fd())
            }
        },
    }
}
