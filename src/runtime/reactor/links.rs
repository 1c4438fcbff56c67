//! The table of links: dialling, reading, coalescing of what is sent, closing.
//!
//! ```text
//!   open ──► Dialling ──connected──► Up ◄── accepted
//!               │ no address left     │ close        │ closed, broken, garbage, overflow
//!               ▼                     ▼              ▼
//!             Down(Refused)        Closing        Down(..)
//! ```
//!
//! Over TLS the way to Up leads through Proving (see [`super::security`]).

use super::hoards::Hoards;
use super::{FIRST_BUDGET, HEAVY, READ_BUDGET, Reactor, ReactorTimer, deregister, register};
use crate::machine::trust::Roles;
use crate::machine::{
    LinkChange, LinkDown, LinkEnds, LinkId, LinkProtocol, Measurement, Service, Target, Time,
};
use crate::runtime::guests::{Guests, Place};
use crate::transport::dials::STAGGER;
use crate::transport::tcp::TcpLink;
use crate::transport::tls::Mode;
use crate::transport::{Condition, Link, QueueStatus, ReadStatus};
use crate::wire::frame::LONGEST_MESSAGE;
use mio::{Interest, Token};
use slab::Slab;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// Whom a listener lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Whoever comes, without TLS.
    Plain,
    /// Whoever proves itself by a certificate.
    Proved,
    /// Both: the first byte tells.
    Mixed,
}

impl From<Mode> for Admission {
    fn from(mode: Mode) -> Admission {
        match mode {
            Mode::Off => Admission::Plain,
            Mode::Allow => Admission::Mixed,
            Mode::Require => Admission::Proved,
        }
    }
}

/// Outputs of one drain beyond this are sent at once instead of being collected.
const MAX_BATCHED: usize = 1 << 20;
/// A message at least this long is moved into an empty batch, not copied.
const WORTH_MOVING: usize = 4096;
/// Batch buffers larger than this are not kept for the next link.
const KEPT_CAPACITY: usize = 64 << 10;

#[derive(Debug)]
pub(super) enum Phase {
    /// Connecting; the ways not yet tried, last first.
    Dialling(Vec<Way>),
    /// The same over SCTP, where the endpoint does it.
    Associating,
    /// Connected, but who is at the other end is not known yet. The machine has not heard of it, or still
    /// believes it to be dialled: then the ways not yet tried.
    Proving(Option<Vec<Way>>),
    /// Accepted, while as many are proving themselves as may: it is not looked at until one of them is done.
    Waiting(Admission),
    /// The peer was refused and is told why; it goes when it has heard that.
    Refusing,
    Up,
    /// The machine has forgotten it; it goes when its queue is empty.
    Closing,
}

/// One way to dial: where, and whether with TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    pub to: SocketAddr,
    pub secure: bool,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub id: LinkId,
    pub service: Service,
    /// Taken out while it is being read from.
    pub link: Option<Link>,
    /// Other addresses that are being dialled, older than `link`: the first that answers is taken.
    rivals: Vec<Link>,
    pub phase: Phase,
    /// Where it stands among those that never said anything, that have not proved themselves, that wait to do so.
    silent: Option<Place>,
    pub unproved: Option<Place>,
    pub waiting: Option<Place>,
    /// Until when it is to have proved itself, from when it may begin to.
    pub proves_by: Time,
    /// Whether a whole message ever came from it, and when the last one did.
    pub(super) spoke: bool,
    pub(super) heard: Time,
    /// What the machine sent in this drain.
    batch: Vec<u8>,
    dirty: bool,
    /// More than half of the queue's bound waits: no reading until it is empty.
    congested: bool,
    /// There was something to read while congested.
    unread: bool,
    /// Stands in `ready`.
    ready: bool,
    /// Messages taken at a time.
    budget: usize,
    /// Those of the last time were much work: it waits for its turn.
    heavy: bool,
    /// The peer has closed or broken it; told once, so it must be remembered until all is read.
    ended: bool,
    /// Bytes held for it, as last counted into the total.
    pub(super) held: usize,
    partial_since: Option<Time>,
    /// A timer for `partial_since` or an earlier one is running.
    partial_timer: bool,
    /// What the kernel was last found to keep for it.
    pub(super) kernel: usize,
    /// Since when the kernel has something of it that it doesn't hand out.
    pub(super) stuck_since: Option<Time>,
}

impl Slot {
    /// Whether something that came may lie there because it is not read.
    pub fn is_left_alone(&self) -> bool {
        self.congested || self.ready || !matches!(self.phase, Phase::Up)
    }

    /// Whether the next address is dialled a moment after this one, without waiting for its end. Not without TLS what
    /// is to be tried with TLS before.
    fn next_may_not_wait(&self, secure: bool) -> bool {
        matches!(&self.phase, Phase::Dialling(rest) if rest.last().is_some_and(|next| next.secure == secure))
    }
}

#[derive(Debug, Default)]
pub(super) struct Links {
    pub(super) slots: Slab<Slot>,
    /// Link numbers are ours, so nobody can choose colliding ones.
    by_id: HashMap<LinkId, usize, foldhash::fast::FixedState>,
    /// Slots with more to read than one turn's budget.
    ready: VecDeque<usize>,
    /// Slots with a batch.
    dirty: Vec<usize>,
    batched: usize,
    /// Bytes that machines sent so far.
    sent: u64,
    /// An empty batch buffer for the next link that needs one.
    spare: Vec<u8>,
    /// Number of the last accepted link.
    incoming: u64,
    /// Accepted links that have not proved themselves, those that wait to do so, and all that never said anything whole:
    /// by their slots.
    pub unproved: Guests<usize>,
    pub waiting: Guests<usize>,
    pub(super) silent: Guests<usize>,
    /// Bytes held for all links.
    held: usize,
    /// The associations, and what the kernel keeps for them.
    pub(super) hoards: Hoards,
}

impl Links {
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Bytes held for all links.
    pub fn held(&self) -> usize {
        self.held
    }

    /// All slots in use are below that.
    pub fn slot_count(&self) -> usize {
        self.slots.capacity()
    }

    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub fn ready_count(&self) -> usize {
        self.ready.len()
    }

    pub fn next_ready(&mut self) -> Option<usize> {
        let index = self.ready.pop_front()?;
        if let Some(slot) = self.get(index) {
            slot.ready = false;
        }
        Some(index)
    }

    pub fn get(&mut self, index: usize) -> Option<&mut Slot> {
        self.slots.get_mut(index)
    }

    /// The slot, if it still is the one of `link`.
    pub fn get_as(&mut self, index: usize, link: LinkId) -> Option<&mut Slot> {
        self.get(index).filter(|slot| slot.id == link)
    }

    fn insert(&mut self, id: LinkId, service: Service, phase: Phase) -> usize {
        let slot = Slot {
            id,
            service,
            link: None,
            rivals: Vec::new(),
            phase,
            silent: None,
            unproved: None,
            waiting: None,
            proves_by: Time::default(),
            spoke: false,
            heard: Time::default(),
            batch: Vec::new(),
            dirty: false,
            congested: false,
            unread: false,
            ready: false,
            budget: FIRST_BUDGET,
            heavy: false,
            ended: false,
            held: 0,
            partial_since: None,
            partial_timer: false,
            kernel: 0,
            stuck_since: None,
        };
        let index = self.slots.insert(slot);
        self.by_id.insert(id, index);
        index
    }

    fn remove(&mut self, index: usize) -> Option<Slot> {
        let slot = self.slots.try_remove(index)?;
        slot.silent.into_iter().for_each(|place| self.silent.remove(place));
        slot.unproved.into_iter().for_each(|place| self.unproved.remove(place));
        slot.waiting.into_iter().for_each(|place| self.waiting.remove(place));
        self.by_id.remove(&slot.id);
        self.held -= slot.held;
        self.hoards.forget(slot.kernel);
        Some(slot)
    }

    /// It has proved itself, or need not any more.
    pub(super) fn no_more_unproved(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        slot.unproved.take().into_iter().for_each(|place| self.unproved.remove(place));
    }

    fn make_ready(&mut self, index: usize) {
        if let Some(slot) = self.get(index)
            && !slot.ready
        {
            slot.ready = true;
            self.ready.push_back(index);
        }
    }

    /// Counts what the link holds; whether all together hold more than `bound`.
    pub fn count_held(&mut self, index: usize, bound: usize) -> bool {
        let Some(slot) = self.slots.get_mut(index) else { return false };
        let held = slot.link.as_ref().map_or(0, Link::buffered);
        let more = held > slot.held;
        self.held = self.held - slot.held + held;
        slot.held = held;
        more && self.held > bound
    }

    /// The slot of a link.
    pub fn find(&self, link: LinkId) -> Option<usize> {
        self.by_id.get(&link).copied()
    }
}

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

    fn set_queue_bound(&mut self, index: usize) {
        let bound = self.limits.queue;
        match self.links.get(index) {
            Some(Slot { link: Some(Link::Tcp(link)), .. }) => link.set_queue_bound(bound),
            Some(Slot { link: Some(Link::Sctp(link)), .. }) => link.set_queue_bound(bound),
            Some(Slot { link: Some(Link::Tls(link)), .. }) => link.set_queue_bound(bound),
            _ => {}
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

    /// The last address has had its time, and so have those before it.
    fn give_up_dials(&mut self, index: usize) {
        let Some(slot) = self.links.get(index) else { return };
        for late in std::mem::take(&mut slot.rivals) {
            deregister(self.poll.registry(), &late);
        }
        self.dial_next(index);
    }

    /// Of several addresses that are being dialled the first that answers is the link; those that failed are closed.
    fn judge_rivals(&mut self, index: usize) {
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
