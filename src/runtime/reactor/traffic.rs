//! What comes and goes over links: taking them in, reading, coalescing of what is sent, closing.

use super::links::{Admission, Phase, Slot};
use super::{HEAVY, READ_BUDGET, Reactor, ReactorTimer, deregister, register};
use crate::machine::trust::Roles;
use crate::machine::{LinkChange, LinkDown, LinkEnds, LinkId, LinkProtocol, Measurement, Service};
use crate::transport::{Condition, Link, QueueStatus, ReadStatus};
use crate::wire::frame::LONGEST_MESSAGE;
use mio::{Interest, Token};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// Outputs of one drain beyond this are sent at once instead of being collected.
const MAX_BATCHED: usize = 1 << 20;
/// A message at least this long is moved into an empty batch, not copied.
const WORTH_MOVING: usize = 4096;
/// Batch buffers larger than this are not kept for the next link.
const KEPT_CAPACITY: usize = 64 << 10;

impl Reactor {
    pub(super) fn set_queue_bound(&mut self, index: usize) {
        let bound = self.limits.queue;
        match self.links.get(index) {
            Some(Slot { link: Some(Link::Tcp(link)), .. }) => link.set_queue_bound(bound),
            Some(Slot { link: Some(Link::Sctp(link)), .. }) => link.set_queue_bound(bound),
            Some(Slot { link: Some(Link::Tls(link)), .. }) => link.set_queue_bound(bound),
            _ => {}
        }
    }

    pub(super) fn accepted<F>(&mut self, service: Service, link: Link, admission: Admission, handler: &mut F)
    where
        F: FnMut(&mut Reactor, super::Input<'_>),
    {
        let peers = link.peer_addresses();
        if !self.is_allowed(format_args!("{service:?} connection"), peers.first().copied()) {
            return;
        }
        self.counters.accepted += 1;
        let from = peers.first().map(SocketAddr::ip);
        if self.links.len() >= self.limits.links && !self.make_room(from, handler) {
            let bound = self.limits.links;
            self.counters.refused += 1;
            return self.complain("full", from, format_args!("{bound} connections: no more are taken"));
        }
        self.links.incoming += 1;
        let id = LinkId(LinkId::INCOMING | self.links.incoming);
        let index = self.links.insert(id, service, Phase::Up);
        let silent = self.links.silent.add(from, index);
        if let Some(slot) = self.links.get(index) {
            (slot.silent, slot.heard) = (Some(silent), self.now);
        }
        if let Err(error) =
            register(self.poll.registry(), &link, Token(index), Interest::READABLE | Interest::WRITABLE)
        {
            self.links.remove(index);
            return self.complain("register", None, format_args!("can't watch a connection: {error}"));
        }
        match (admission, link) {
            (Admission::Plain, link) | (_, link @ Link::Sctp(_)) => self.up(index, id, link),
            (_, link) => self.ask_for_proof(index, id, link, (admission, from)),
        }
    }

    pub(super) fn up(&mut self, index: usize, id: LinkId, link: Link) {
        let roles = link.names().map(|names| Arc::new(Roles::parse(names.iter().map(String::as_str))));
        let Some(slot) = self.links.get_as(index, id) else { return };
        let protocol = match &link {
            Link::Tcp(_) | Link::Tls(_) => LinkProtocol::Tcp,
            Link::Sctp(_) => LinkProtocol::Sctp,
        };
        let (peer, local) = (link.peer_addresses(), link.local_addresses());
        slot.phase = Phase::Up;
        slot.link = Some(link);
        if protocol == LinkProtocol::Sctp {
            self.watch_kernel_memory(index, id);
        }
        let Some(slot) = self.links.get_as(index, id) else { return };
        let ends = LinkEnds { service: slot.service, protocol, peer, local, roles };
        log::trace!("{id:?}: up, {ends:?}");
        self.set_queue_bound(index);
        self.changes.push_back((id, LinkChange::Up(ends)));
    }

    /// How the way to the other end of a link is, not while it is being read from.
    pub fn measure(&self, id: LinkId) -> Option<Measurement> {
        let index = *self.links.by_id.get(&id)?;
        let Condition { round_trip, retransmissions, unacknowledged } =
            self.links.slots.get(index)?.link.as_ref()?.condition()?;
        Some(Measurement { round_trip, retransmissions, unacknowledged })
    }

    /// The socket takes more, or the connect has come to an end.
    pub(super) fn writable(&mut self, index: usize) {
        self.judge_rivals(index);
        let Some(slot) = self.links.get(index) else { return };
        let Some(link) = slot.link.as_mut() else { return };
        if matches!(slot.phase, Phase::Dialling(_)) {
            match link.finish_connect() {
                Ok(true) => {
                    let (id, secure) = (slot.id, matches!(link, Link::Tls(_)));
                    let rivals = std::mem::take(&mut slot.rivals);
                    rivals.iter().for_each(|link| deregister(self.poll.registry(), link));
                    if secure {
                        self.proof_begins(index);
                    } else if let Some(link) = self.links.get(index).and_then(|slot| slot.link.take()) {
                        self.up(index, id, link);
                    }
                }
                Ok(false) => return,
                Err(error) => {
                    log::debug!("{:?}: {error}", slot.id);
                    return self.dial_next(index);
                }
            }
        }
        self.flush_slot(index);
    }

    /// There is something to read, now or, for those who are much work, when it is their turn.
    pub(super) fn readable<F>(&mut self, index: usize, ended: bool, handler: &mut F)
    where
        F: FnMut(&mut Reactor, super::Input<'_>),
    {
        let Some(slot) = self.links.get(index) else { return };
        slot.ended |= ended;
        match slot.phase {
            Phase::Proving(_) | Phase::Refusing => return self.hear_unproved(index, handler),
            Phase::Waiting(_) if ended => return self.remove(index),
            _ => {}
        }
        if slot.heavy || slot.ready { self.links.make_ready(index) } else { self.read(index, handler) }
    }

    pub(super) fn read<F>(&mut self, index: usize, handler: &mut F)
    where
        F: FnMut(&mut Reactor, super::Input<'_>),
    {
        let now = self.now;
        let Some(slot) = self.links.get(index) else { return };
        if slot.congested {
            slot.unread = true;
            return;
        }
        if !matches!(slot.phase, Phase::Up) {
            return;
        }
        let (id, ended) = (slot.id, slot.ended);
        let Some(mut link) = slot.link.take() else { return };
        let (mut messages, sent) = (0, self.links.sent);
        let mut result = self.read_once(index, id, &mut link, &mut messages, handler);
        // Where the peer has closed, "drained" may just mean that the last read was short.
        if ended && matches!(result, Ok(ReadStatus::Drained)) {
            result = self.read_once(index, id, &mut link, &mut messages, handler);
        }
        self.counters.messages += messages;
        let sent = (self.links.sent - sent) as usize;
        let Some(slot) = self.links.get_as(index, id) else { return };
        let mut silent = None;
        if messages > 0 {
            slot.spoke = true;
            slot.heard = now;
            slot.stuck_since = None;
            silent = slot.silent.take();
        }
        slot.heavy = sent > HEAVY;
        slot.budget = match slot.heavy {
            true => (slot.budget * HEAVY / sent).max(1),
            false => (slot.budget * 2).min(READ_BUDGET),
        };
        let partial = link.is_partial();
        slot.link = Some(link);
        silent.into_iter().for_each(|place| self.links.silent.remove(place));
        self.flush_slot(index);
        match result {
            Ok(ReadStatus::More) => self.links.make_ready(index),
            Ok(ReadStatus::Drained) => self.note_partial(index, id, partial, messages > 0),
            Ok(ReadStatus::Closed) => self.drop_up(index, id, LinkDown::Closed),
            Ok(ReadStatus::Garbage) => {
                self.counters.garbage += 1;
                let link = self.links.get(index).and_then(|slot| slot.link.as_ref());
                match link {
                    Some(Link::Tcp(link)) if link.is_tls() => {
                        self.complain_about(index, "tls", "it speaks TLS, which is off here");
                    }
                    _ => self.complain_about(index, "garbage", "what came is no ASAP or ENRP message"),
                }
                self.drop_up(index, id, LinkDown::Garbage);
            }
            Err(error) => {
                log::debug!("{id:?}: {error}");
                self.drop_up(index, id, LinkDown::Broken);
            }
        }
        if self.links.count_held(index, self.limits.buffered) {
            self.drop_holders();
        }
    }

    fn read_once<F>(
        &mut self,
        index: usize,
        id: LinkId,
        link: &mut Link,
        messages: &mut u64,
        handler: &mut F,
    ) -> io::Result<ReadStatus>
    where
        F: FnMut(&mut Reactor, super::Input<'_>),
    {
        // So many that their answers fit into the queue, whatever they ask for.
        let room = self.limits.queue.saturating_sub(link.buffered());
        let most = self.links.get_as(index, id).map_or(1, |slot| slot.budget);
        let budget = (room / LONGEST_MESSAGE).clamp(1, most);
        link.read_messages(budget, &mut |bytes| {
            *messages += 1;
            // The machine may have closed the link on an earlier message.
            if let Some(Slot { phase: Phase::Up, .. }) = self.links.get_as(index, id) {
                handler(self, super::Input::Message { link: id, bytes });
            }
        })
    }

    /// Watches over the time that an unfinished message takes. A new one starts with `progress`.
    fn note_partial(&mut self, index: usize, id: LinkId, partial: bool, progress: bool) {
        let now = self.now;
        let Some(slot) = self.links.get_as(index, id) else { return };
        if !partial {
            slot.partial_since = None;
            return;
        }
        if slot.partial_since.is_none() || progress {
            slot.partial_since = Some(now);
        }
        if !slot.partial_timer {
            slot.partial_timer = true;
            self.arm(self.limits.partial, ReactorTimer::Partial { slot: index, link: id });
        }
    }

    pub(super) fn check_partial(&mut self, index: usize, id: LinkId) {
        let (now, patience) = (self.now, self.limits.partial);
        let Some(slot) = self.links.get_as(index, id) else { return };
        slot.partial_timer = false;
        let Some(since) = slot.partial_since else { return };
        if now - since < patience {
            slot.partial_timer = true;
            return self.arm(patience - (now - since), ReactorTimer::Partial { slot: index, link: id });
        }
        self.counters.half_messages += 1;
        self.complain_about(index, "half", "a message began and did not end in time");
        self.drop_up(index, id, LinkDown::Garbage);
    }

    pub(super) fn complain_about(&mut self, index: usize, cause: &'static str, what: &str) {
        let Some(slot) = self.links.get(index) else { return };
        let peer = slot.link.as_ref().and_then(|link| link.peer_addresses().first().copied());
        let service = slot.service;
        if let Some(peer) = peer {
            self.complain(
                cause,
                Some(peer.ip()),
                format_args!("{service:?} connection from {peer} dropped: {what}"),
            );
        }
    }

    /// Adds to what the link sends in this drain.
    pub(super) fn queue(&mut self, link: LinkId, bytes: Vec<u8>) {
        let links = &mut self.links;
        let Some(&index) = links.by_id.get(&link) else { return };
        let Some(slot) = links.slots.get_mut(index) else { return };
        if matches!(slot.phase, Phase::Closing | Phase::Refusing) {
            return;
        }
        let dialling = matches!(slot.phase, Phase::Dialling(_) | Phase::Associating | Phase::Proving(_));
        if dialling && slot.batch.len() + bytes.len() > self.limits.queue {
            return self.drop_link(index, LinkDown::Overflow);
        }
        links.batched += bytes.len();
        links.sent += bytes.len() as u64;
        if slot.batch.is_empty() && bytes.len() >= WORTH_MOVING {
            slot.batch = bytes;
        } else {
            if slot.batch.capacity() == 0 {
                slot.batch = std::mem::take(&mut links.spare);
            }
            slot.batch.extend_from_slice(&bytes);
        }
        if !slot.dirty {
            slot.dirty = true;
            links.dirty.push(index);
        }
        if links.batched > MAX_BATCHED {
            self.flush();
        }
    }

    /// Closes after what was queued is sent.
    pub(super) fn close(&mut self, link: LinkId) {
        log::trace!("{link:?}: closed by us");
        let Some(&index) = self.links.by_id.get(&link) else { return };
        let Some(slot) = self.links.get(index) else { return };
        match slot.phase {
            Phase::Dialling(_) | Phase::Proving(_) | Phase::Waiting(_) | Phase::Refusing => {
                return self.remove(index);
            }
            Phase::Associating => {
                let service = slot.service;
                if let Some(endpoint) = self.endpoint(service) {
                    endpoint.cancel(link.0);
                }
                return self.remove(index);
            }
            Phase::Up | Phase::Closing => slot.phase = Phase::Closing,
        }
        let Some(slot) = self.links.get(index) else { return };
        if !slot.dirty {
            slot.dirty = true;
            self.links.dirty.push(index);
        }
        self.arm(self.limits.close, ReactorTimer::Close { slot: index, link });
    }

    pub(super) fn close_timed_out(&mut self, index: usize, link: LinkId) {
        if let Some(slot) = self.links.get_as(index, link) {
            slot.link.iter().for_each(Link::abort);
            self.remove(index);
        }
    }

    /// Hands to the kernel what was sent since the last flush.
    pub(crate) fn flush(&mut self) {
        if self.links.dirty.is_empty() {
            return;
        }
        self.links.batched = 0;
        let mut dirty = std::mem::take(&mut self.links.dirty);
        for index in dirty.drain(..) {
            self.flush_slot(index);
        }
        // Flushing makes nothing dirty; the list only keeps its memory.
        self.links.dirty = dirty;
    }

    pub(super) fn flush_slot(&mut self, index: usize) {
        let links = &mut self.links;
        let Some(slot) = links.slots.get_mut(index) else { return };
        slot.dirty = false;
        // While dialling: sent when it is up. Without a link: it is being read from, and flushed after that.
        let early = matches!(slot.phase, Phase::Dialling(_) | Phase::Proving(_) | Phase::Waiting(_));
        let (false, Some(link)) = (early, slot.link.as_mut()) else {
            return;
        };
        let result = match slot.batch.is_empty() {
            true if matches!(slot.phase, Phase::Closing) => link.end(),
            true => link.flush(),
            false => {
                let mut batch = std::mem::take(&mut slot.batch);
                let result = link.send(&batch);
                if batch.capacity() <= KEPT_CAPACITY {
                    batch.clear();
                    links.spare = batch;
                }
                match &slot.phase {
                    Phase::Closing if result.is_ok() => link.end(),
                    _ => result,
                }
            }
        };
        match result {
            Ok(status) => self.queue_status(index, status),
            Err(error) => {
                log::debug!("{:?}: {error}", slot.id);
                self.drop_link(index, LinkDown::Broken);
            }
        }
    }

    fn queue_status(&mut self, index: usize, status: QueueStatus) {
        let congestion = self.limits.queue / 2;
        let Some(slot) = self.links.get(index) else { return };
        let id = slot.id;
        match status {
            QueueStatus::Empty if matches!(slot.phase, Phase::Closing) => return self.remove(index),
            _ if matches!(slot.phase, Phase::Refusing) => return,
            QueueStatus::Empty if slot.congested => {
                slot.congested = false;
                if std::mem::take(&mut slot.unread) {
                    self.links.make_ready(index);
                }
                self.changes.push_back((id, LinkChange::Drained));
            }
            QueueStatus::Empty => {}
            QueueStatus::Waiting(bytes) => {
                if bytes > congestion && !slot.congested {
                    slot.congested = true;
                    self.changes.push_back((id, LinkChange::Congested));
                }
                self.try_again_soon(index, id);
            }
            QueueStatus::Overflow => {
                self.counters.overflows += 1;
                self.complain_about(index, "overflow", "it does not read what it asked for");
                return self.drop_link(index, LinkDown::Overflow);
            }
        }
        if self.links.count_held(index, self.limits.buffered) {
            self.drop_holders();
        }
    }

    /// Ends a link from our side of the machine's view: it is told.
    pub(super) fn drop_link(&mut self, index: usize, why: LinkDown) {
        let Some(slot) = self.links.get(index) else { return };
        let unknown =
            matches!(slot.phase, Phase::Closing | Phase::Refusing | Phase::Proving(None) | Phase::Waiting(_));
        let told = (!unknown).then_some(slot.id);
        if let Some(link) = slot.link.as_ref().filter(|_| why != LinkDown::Closed) {
            link.abort();
        }
        self.remove(index);
        if let Some(id) = told {
            self.down(id, why);
        }
    }

    /// The same, unless the slot has been given to another link meanwhile.
    fn drop_up(&mut self, index: usize, id: LinkId, why: LinkDown) {
        if self.links.get_as(index, id).is_some() {
            self.drop_link(index, why);
        }
    }

    pub(super) fn remove(&mut self, index: usize) {
        let Some(Slot { link, rivals, .. }) = self.links.remove(index) else { return };
        link.iter().chain(&rivals).for_each(|link| deregister(self.poll.registry(), link));
    }
}
