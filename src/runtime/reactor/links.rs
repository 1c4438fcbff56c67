//! The table of links: what is known of each, and who stands where.
//!
//! ```text
//!   open ──► Dialling ──connected──► Up ◄── accepted
//!               │ no address left     │ close        │ closed, broken, garbage, overflow
//!               ▼                     ▼              ▼
//!             Down(Refused)        Closing        Down(..)
//! ```
//!
//! Over TLS the way to Up leads through Proving (see [`super::security`]).

use super::FIRST_BUDGET;
use super::hoards::Hoards;
use crate::machine::{LinkId, Service, Time};
use crate::runtime::guests::{Guests, Place};
use crate::transport::Link;
use crate::transport::tls::Mode;
use slab::Slab;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

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
    pub rivals: Vec<Link>,
    pub phase: Phase,
    /// Where it stands among those that never said anything, that have not proved themselves, that wait to do so.
    pub silent: Option<Place>,
    pub unproved: Option<Place>,
    pub waiting: Option<Place>,
    /// Until when it is to have proved itself, from when it may begin to.
    pub proves_by: Time,
    /// Whether a whole message ever came from it, and when the last one did.
    pub spoke: bool,
    pub heard: Time,
    /// What the machine sent in this drain.
    pub batch: Vec<u8>,
    pub dirty: bool,
    /// More than half of the queue's bound waits: no reading until it is empty.
    pub congested: bool,
    /// There was something to read while congested.
    pub unread: bool,
    /// Stands in `ready`.
    pub ready: bool,
    /// Messages taken at a time.
    pub budget: usize,
    /// Those of the last time were much work: it waits for its turn.
    pub heavy: bool,
    /// The peer has closed or broken it; told once, so it must be remembered until all is read.
    pub ended: bool,
    /// Bytes held for it, as last counted into the total.
    pub held: usize,
    pub partial_since: Option<Time>,
    /// A timer for `partial_since` or an earlier one is running.
    pub partial_timer: bool,
    /// What the kernel was last found to keep for it.
    pub kernel: usize,
    /// Since when the kernel has something of it that it doesn't hand out.
    pub stuck_since: Option<Time>,
}

impl Slot {
    /// Whether something that came may lie there because it is not read.
    pub fn is_left_alone(&self) -> bool {
        self.congested || self.ready || !matches!(self.phase, Phase::Up)
    }

    /// Whether the next address is dialled a moment after this one, without waiting for its end. Not without TLS what
    /// is to be tried with TLS before.
    pub fn next_may_not_wait(&self, secure: bool) -> bool {
        matches!(&self.phase, Phase::Dialling(rest) if rest.last().is_some_and(|next| next.secure == secure))
    }
}

#[derive(Debug, Default)]
pub(super) struct Links {
    pub slots: Slab<Slot>,
    /// Link numbers are ours, so nobody can choose colliding ones.
    pub by_id: HashMap<LinkId, usize, foldhash::fast::FixedState>,
    /// Slots with more to read than one turn's budget.
    pub ready: VecDeque<usize>,
    /// Slots with a batch.
    pub dirty: Vec<usize>,
    pub batched: usize,
    /// Bytes that machines sent so far.
    pub sent: u64,
    /// An empty batch buffer for the next link that needs one.
    pub spare: Vec<u8>,
    /// Number of the last accepted link.
    pub incoming: u64,
    /// Accepted links that have not proved themselves, those that wait to do so, and all that never said anything whole:
    /// by their slots.
    pub unproved: Guests<usize>,
    pub waiting: Guests<usize>,
    pub silent: Guests<usize>,
    /// Bytes held for all links.
    pub held: usize,
    /// The associations, and what the kernel keeps for them.
    pub hoards: Hoards,
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

    pub fn insert(&mut self, id: LinkId, service: Service, phase: Phase) -> usize {
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

    pub fn remove(&mut self, index: usize) -> Option<Slot> {
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
    pub fn no_more_unproved(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        slot.unproved.take().into_iter().for_each(|place| self.unproved.remove(place));
    }

    pub fn make_ready(&mut self, index: usize) {
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
