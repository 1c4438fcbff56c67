//! Dialling: from `open` to a link that is up, or to none (see [`super::links`]).

use super::links::{Phase, Way};
use super::{Reactor, ReactorTimer, deregister, register};
use crate::machine::{LinkDown, LinkId, LinkProtocol, Service, Target};
use crate::transport::Link;
use crate::transport::dials::STAGGER;
use crate::transport::tcp::TcpLink;
use mio::{Interest, Token};
use std::io;
use std::net::SocketAddr;

impl Reactor {
    pub(super) fn open(&mut self, link: LinkId, service: Service, target: Target) {
        if self.links.by_id.contains_key(&link) {
            log::error!("link {link:?} opened twice");
            return;
        }
        log::trace!("{link:?}: dialled at {:?}", target.addresses);
        match target.protocol {
            _ if self.links.len() >= self.limits.links && !self.make_room_for_ours() => {
                self.down(link, LinkDown::Refused);
            }
            LinkProtocol::Sctp => self.associate_with(link, service, &target.addresses),
            LinkProtocol::Tcp => {
                let ways = self.ways(&target.addresses);
                let index = self.links.insert(link, service, Phase::Dialling(ways));
                self.dial_next(index);
            }
        }
    }

    fn associate_with(&mut self, link: LinkId, service: Service, addresses: &[SocketAddr]) {
        let dialling = match self.endpoint(service) {
            Some(endpoint) => endpoint.dial(link.0, addresses),
            None => Err(io::ErrorKind::Unsupported.into()),
        };
        match dialling {
            Ok(()) => {
                let slot = self.links.insert(link, service, Phase::Associating);
                self.arm(self.limits.dial, ReactorTimer::Dial { slot, link, left: 0 });
            }
            Err(error) => {
                log::debug!("can't associate with {addresses:?}: {error}");
                // That there is an association already says that somebody is there.
                let there = error.kind() == io::ErrorKind::AlreadyExists;
                self.down(link, if there { LinkDown::Broken } else { LinkDown::Refused });
            }
        }
    }

    /// An endpoint's dial came to its end.
    pub(super) fn dialled(&mut self, id: LinkId, result: io::Result<Link>) {
        let Some(&index) = self.links.by_id.get(&id) else { return };
        let registered = result.and_then(|link| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            register(self.poll.registry(), &link, Token(index), interest)?;
            Ok(link)
        });
        match registered {
            Ok(link) => {
                self.up(index, id, link);
                self.flush_slot(index);
            }
            Err(error) => {
                log::debug!("{id:?}: {error}");
                self.drop_link(index, LinkDown::Refused);
            }
        }
    }

    /// Dials the next address of the slot's target, or gives up.
    pub(super) fn dial_next(&mut self, index: usize) {
        let Some(slot) = self.links.get(index) else { return };
        if let Some(failed) = slot.link.take() {
            deregister(self.poll.registry(), &failed);
        }
        self.dial_beside(index);
    }

    /// The same without giving up those that are on their way.
    fn dial_beside(&mut self, index: usize) {
        let Some(slot) = self.links.get(index) else { return };
        while let Phase::Dialling(rest) = &mut slot.phase
            && let Some(Way { to: address, secure }) = rest.pop()
        {
            let left = rest.len();
            let (id, service) = (slot.id, slot.service);
            let dialled = TcpLink::dial(address, None);
            let started =
                dialled.and_then(|link| self.security.dialled(link, secure, service)).and_then(|link| {
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    register(self.poll.registry(), &link, Token(index), interest)?;
                    Ok(link)
                });
            match started {
                Ok(link) => {
                    let waits_alone = slot.next_may_not_wait(secure);
                    slot.link = Some(link);
                    self.set_queue_bound(index);
                    let patience = if waits_alone { STAGGER.min(self.limits.dial) } else { self.limits.dial };
                    self.arm(patience, ReactorTimer::Dial { slot: index, link: id, left });
                    return;
                }
                Err(error) => log::debug!("can't connect to {address}: {error}"),
            }
        }
        let Some(slot) = self.links.get(index) else { return };
        match slot.rivals.pop() {
            // They were there first, so that the last one's time is more than theirs.
            Some(rival) => {
                let id = slot.id;
                slot.link = Some(rival);
                self.arm(self.limits.dial, ReactorTimer::Dial { slot: index, link: id, left: 0 });
            }
            None => self.drop_link(index, LinkDown::Refused),
        }
    }

    pub(super) fn dial_timed_out(&mut self, index: usize, link: LinkId, left: usize) {
        let Some(slot) = self.links.get_as(index, link) else { return };
        match &slot.phase {
            Phase::Dialling(rest) if rest.len() == left => {
                let secure = matches!(slot.link, Some(Link::Tls(_)));
                if !slot.next_may_not_wait(secure) {
                    return self.give_up_dials(index);
                }
                slot.rivals.extend(slot.link.take());
                self.dial_beside(index);
            }
            Phase::Proving(Some(rest)) if rest.len() == left => self.proof_timed_out(index, link),
            Phase::Associating => {
                let service = slot.service;
                if let Some(endpoint) = self.endpoint(service) {
                    endpoint.cancel(link.0);
                }
                self.drop_link(index, LinkDown::Refused);
            }
            _ => {}
        }
    }

    /// The last address has had its time, and so have those before it.
    fn give_up_dials(&mut self, index: usize) {
        let Some(slot) = self.links.get(index) else { return };
        for late in std::mem::take(&mut slot.rivals) {
            deregister(self.poll.registry(), &late);
        }
        self.dial_next(index);
    }

    /// Of several addresses that are being dialled the first that answers is the link; those that failed are closed.
    pub(super) fn judge_rivals(&mut self, index: usize) {
        let Some(slot) = self.links.get(index) else { return };
        let mut waiting = Vec::new();
        let mut over = Vec::new();
        for mut rival in std::mem::take(&mut slot.rivals) {
            match rival.finish_connect() {
                Ok(true) => {
                    over.extend(slot.link.replace(rival));
                    over.append(&mut waiting);
                }
                Ok(false) => waiting.push(rival),
                Err(error) => {
                    log::debug!("{:?}: {error}", slot.id);
                    over.push(rival);
                }
            }
        }
        slot.rivals = waiting;
        over.iter().for_each(|link| deregister(self.poll.registry(), link));
    }
}
