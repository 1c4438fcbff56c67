//! Many descriptors waited for at once: an epoll instance with the sessions' sockets themselves in it, so that an arrival
//! wakes through one such instance and not through one within another.

use super::Reason;
use crate::socket::error::{Result, SocketError};
use crate::socket::readiness::wait::Deadline;
use crate::transport::descriptors::{self, Held};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// Token of the eventfd; sockets have their descriptor's number.
const BEACON: u64 = 1 << 62;

/// What a member's owner wants to know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interest {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

/// What is the matter with a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) sd: RawFd,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    interest: Interest,
    /// Why it is readable whatever its socket says ([`Reason`]s).
    reasons: u8,
}

impl Member {
    fn ready(&self, sd: RawFd) -> Option<Ready> {
        let over = self.reasons & (Reason::Failed as u8 | Reason::Closed as u8) != 0;
        let readable = self.interest.readable && self.reasons != 0;
        // A send says at once that it is over.
        let writable = self.interest.writable && over;
        (readable || writable).then_some(Ready { sd, readable, writable })
    }
}

#[derive(Debug, Default)]
struct Members {
    all: BTreeMap<RawFd, Member>,
    /// How many are ready for reasons of their own.
    ready: usize,
    /// Whose turn it is among them.
    next: RawFd,
}

/// The set; its number can be polled as well.
#[derive(Debug)]
pub(crate) struct WaitSet {
    epoll: Held<Epoll>,
    /// Always readable; in the epoll instance while members are ready for reasons of their own.
    beacon: Held<EventFd>,
    members: Mutex<Members>,
}

impl Interest {
    fn flags(self) -> EpollFlags {
        let mut flags = EpollFlags::empty();
        flags.set(EpollFlags::EPOLLIN, self.readable);
        flags.set(EpollFlags::EPOLLOUT, self.writable);
        flags
    }

    fn event(self, sd: RawFd) -> EpollEvent {
        EpollEvent::new(self.flags(), sd as u64)
    }
}

impl WaitSet {
    pub(crate) fn new() -> Result<WaitSet> {
        let (epoll, beacon) = (descriptors::epoll()?, descriptors::eventfd(1)?);
        Ok(WaitSet { epoll, beacon, members: Mutex::default() })
    }

    pub(crate) fn number(&self) -> RawFd {
        self.epoll.0.as_raw_fd()
    }

    /// A member comes, or wants to know something else.
    pub(crate) fn join(&self, sd: RawFd, interest: Interest, reasons: u8) -> Result<()> {
        self.change(sd, |_| Some(Member { interest, reasons }))
    }

    /// A member goes; its sockets have to be taken out as well.
    pub(crate) fn leave(&self, sd: RawFd) {
        let _ = self.change(sd, |_| None);
    }

    /// A member's reasons changed.
    pub(crate) fn show(&self, sd: RawFd, reasons: u8) {
        let shown = self.change(sd, |member| member.map(|member| Member { reasons, ..member }));
        if let Err(error) = shown {
            log::error!("a wait set can't be made readable: {error}");
        }
    }

    fn change(&self, sd: RawFd, change: impl FnOnce(Option<Member>) -> Option<Member>) -> Result<()> {
        let mut members = self.members.lock();
        let before = members.all.remove(&sd);
        members.ready -= usize::from(before.as_ref().is_some_and(|member| member.ready(sd).is_some()));
        let was = before.is_some();
        if let Some(member) = change(before) {
            members.ready += usize::from(member.ready(sd).is_some());
            members.all.insert(sd, member);
        } else if !was {
            return Ok(());
        }
        if members.ready == 0 {
            let _ = self.epoll.delete(&self.beacon);
            return Ok(());
        }
        match self.epoll.add(&self.beacon, EpollEvent::new(EpollFlags::EPOLLIN, BEACON)) {
            Err(nix::errno::Errno::EEXIST) => Ok(()),
            result => Ok(result?),
        }
    }

    /// `socket` speaks for a member.
    pub(crate) fn watch(&self, socket: BorrowedFd<'_>, sd: RawFd, interest: Interest) -> Result<()> {
        match self.epoll.add(socket, interest.event(sd)) {
            Err(nix::errno::Errno::EEXIST) => Ok(self.epoll.modify(socket, &mut interest.event(sd))?),
            result => Ok(result?),
        }
    }

    /// It no longer does.
    pub(crate) fn ignore(&self, socket: BorrowedFd<'_>) {
        let _ = self.epoll.delete(socket);
    }

    /// Waits until something is the matter with members, and says of up to `most` of them what.
    pub(crate) fn wait(
        &self,
        most: usize,
        deadline: Deadline,
        mut found: impl FnMut(Ready),
    ) -> Result<usize> {
        const AT_ONCE: usize = 64;
        let mut events = [EpollEvent::empty(); AT_ONCE];
        let deadline = deadline.begin();
        let most = most.min(AT_ONCE);
        if most == 0 {
            return Err(SocketError::Invalid);
        }
        loop {
            let timeout = EpollTimeout::try_from(deadline.milliseconds()).unwrap_or(EpollTimeout::NONE);
            let count = self.epoll.wait(&mut events[..most], timeout)?;
            let events = &events[..count];
            let mut told = 0;
            let beacon = events.iter().any(|event| event.data() == BEACON);
            for event in events.iter().filter(|event| event.data() != BEACON) {
                let sd = event.data() as RawFd;
                let broken = EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP;
                let has = |flags: EpollFlags| event.events().intersects(flags | broken);
                let (mut readable, mut writable) = (has(EpollFlags::EPOLLIN), has(EpollFlags::EPOLLOUT));
                // What its socket says is not all.
                if beacon
                    && let Some(own) = self.members.lock().all.get(&sd).and_then(|member| member.ready(sd))
                {
                    readable |= own.readable;
                    writable |= own.writable;
                }
                found(Ready { sd, readable, writable });
                told += 1;
            }
            if beacon {
                let mut members = self.members.lock();
                let (first, all) = (members.next, &members.all);
                let mut last = None;
                for (&sd, member) in all.range(first..).chain(all.range(..first)) {
                    let twice = events.iter().any(|event| event.data() == sd as u64);
                    if let Some(ready) = member.ready(sd)
                        && !twice
                        && told < most
                    {
                        found(ready);
                        told += 1;
                        last = Some(sd);
                    }
                }
                members.next = last.map_or(first, |last| last.saturating_add(1));
            }
            if told > 0 || deadline.passed() {
                return Ok(told);
            }
        }
    }
}
