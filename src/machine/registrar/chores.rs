//! Work that is more than one call may take: what hangs on a link with a hundred thousand elements, on a registrar
//! with a million, on a pool with twenty thousand subscribers. A call does some of it at once and the rest follows,
//! a slice at a time, with everything else in between.

use super::asap::{AsapLink, HeldQuestion, held_size};
use super::{LinkId, Registrar, Timer};
use crate::handlespace::ElementKey;
use crate::machine::{Target, Time};
use crate::wire::{PeId, PoolHandle, RegistrarId};
use std::collections::VecDeque;

/// Something to be done, with how far it has come.
#[derive(Debug)]
pub(super) enum Chore {
    /// An ASAP link is gone, and with it what hung on it. `closed`: it was closed in order.
    Gone { link: LinkId, client: Box<AsapLink>, reason: &'static str, closed: bool },
    /// A dead registrar's elements go to another one.
    Inherit { target: RegistrarId, heir: RegistrarId, elements: usize },
    /// Elements of a registrar that its audit did not find.
    Purge { owner: RegistrarId, since: u64, after: Option<(PoolHandle, PeId)> },
    /// A pool's subscribers are told.
    Push { audience: u64, after: Option<LinkId> },
    /// Requests from before the service started.
    Deferred { after: Option<LinkId> },
    /// Elements that were to be dialled at a target and are asked over a link whose they are.
    Ask { link: LinkId, target: Target },
    /// Elements whose process was not reached: those that were claimed after one and up to another.
    Unreached { target: Target, after: u64, last: u64, refused: bool },
    /// Elements that came to be dialled at a target while others there were dealt with, after this one.
    Again { target: Target, after: u64 },
    /// Elements that won't answer over a link which is gone.
    Unanswered { link: LinkId, reason: &'static str },
    /// Questions for a pool, from before its elements came back.
    Held { handle: PoolHandle, questions: Vec<HeldQuestion> },
    /// A subscriber reads again, and is told of the pools after this one.
    Drained { link: LinkId, after: Option<PoolHandle> },
    /// Elements whose distance changed with that of their link.
    Distance { link: LinkId, after: Option<ElementKey>, distance: u32 },
    /// A part of our table, for a peer that can't hold most of it.
    Table { id: RegistrarId, link: LinkId },
}

/// Units of work in one call; a unit is about one element, and telling so many peers of it.
pub(super) const BUDGET: usize = 256;
const PEERS_OF_A_UNIT: usize = 16;
/// A claim whose dial is over, or that is to be dialled anew, is as much work as so many units.
const CLAIM: usize = 4;

/// What is still to be done.
#[derive(Debug, Default)]
pub(super) struct Chores {
    queue: VecDeque<Chore>,
    /// Units left in this call.
    left: usize,
    /// How many of the chores change homes.
    homes: usize,
}

impl Chore {
    fn changes_homes(&self) -> bool {
        matches!(self, Chore::Inherit { .. } | Chore::Purge { .. })
    }
}

impl Chores {
    /// A call begins, with so many peers to be told of what it changes.
    pub(super) fn refill(&mut self, peers: usize) {
        self.left = (BUDGET / (1 + peers / PEERS_OF_A_UNIT)).max(1);
    }

    /// How much this call may still do.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// This call did some of it.
    pub(super) fn spend(&mut self, units: usize) {
        self.left = self.left.saturating_sub(units);
    }

    /// Whether checksums can't be right for now.
    pub(super) fn change_homes(&self) -> bool {
        self.homes > 0
    }

    /// Whether a link that is gone still has elements here.
    pub(super) fn has_client(&self, link: LinkId, key: ElementKey) -> bool {
        self.queue.iter().any(|chore| match chore {
            Chore::Gone { link: gone, client, .. } => *gone == link && client.elements.contains(&key),
            _ => false,
        })
    }

    /// Whether a dead registrar's elements are on their way to another one.
    pub(super) fn inherits(&self, id: RegistrarId) -> bool {
        self.queue.iter().any(|chore| matches!(chore, Chore::Inherit { target, .. } if *target == id))
    }

    /// Whether claims at a target are being queued again, for the check of our tables.
    pub(super) fn queues(&self, target: &Target) -> bool {
        self.queue.iter().any(|chore| matches!(chore, Chore::Again { target: other, .. } if other == target))
    }

    /// Bytes of questions that are being answered, for the check of our tables.
    pub(super) fn held_bytes(&self) -> usize {
        let bytes = |chore: &Chore| match chore {
            Chore::Held { handle, questions } => questions.len() * held_size(handle),
            _ => 0,
        };
        self.queue.iter().map(bytes).sum()
    }

    /// Links that are gone and not forgotten, for the check of our tables.
    pub(super) fn clients(&self) -> impl Iterator<Item = &AsapLink> {
        self.queue.iter().filter_map(|chore| match chore {
            Chore::Gone { client, .. } => Some(&**client),
            _ => None,
        })
    }
}

impl Registrar {
    /// Begins a chore, and does of it at once what this call has left.
    pub(super) fn start(&mut self, chore: Chore) {
        self.chores.homes += usize::from(chore.changes_homes());
        self.proceed(chore);
    }

    /// The next slice of what is left over.
    pub(super) fn chores_due(&mut self) {
        if let Some(chore) = self.chores.queue.pop_front() {
            self.proceed(chore);
        }
        self.go_on();
    }

    fn go_on(&mut self) {
        if !self.chores.queue.is_empty() && self.timers.get(&Timer::Chores).is_none() {
            self.timers.set(Timer::Chores, Time(self.now.0 + 1));
        }
    }

    fn proceed(&mut self, chore: Chore) {
        let mut next = Some(chore);
        while let Some(chore) = next {
            let homes = chore.changes_homes();
            let mut units = std::mem::take(&mut self.chores.left);
            let rest = if units == 0 { Some(chore) } else { self.slice(chore, &mut units) };
            self.chores.left = units;
            match rest {
                Some(rest) => self.chores.queue.push_back(rest),
                None => self.chores.homes -= usize::from(homes),
            }
            // What came up on the way, if there is something left for it.
            next = if units > 0 { self.chores.queue.pop_front() } else { None };
        }
        self.go_on();
    }

    /// Does some of a chore; what is left of it.
    fn slice(&mut self, chore: Chore, units: &mut usize) -> Option<Chore> {
        match chore {
            Chore::Gone { link, mut client, reason, closed } => {
                let done = self.client_leaves(link, &mut client, reason, closed, units);
                (!done).then_some(Chore::Gone { link, client, reason, closed })
            }
            Chore::Inherit { target, heir, mut elements } => {
                let done = self.inherit_some(target, heir, &mut elements, units);
                (!done).then_some(Chore::Inherit { target, heir, elements })
            }
            Chore::Purge { owner, since, after } => {
                let after = self.purge_some(owner, since, after, units)?;
                Some(Chore::Purge { owner, since, after: Some(after) })
            }
            Chore::Push { audience, after } => {
                let after = self.push_some(audience, after, units)?;
                Some(Chore::Push { audience, after: Some(after) })
            }
            Chore::Deferred { after } => {
                let after = self.answer_some(after, units)?;
                Some(Chore::Deferred { after: Some(after) })
            }
            Chore::Ask { link, target } => {
                if !self.links.contains_key(&link) {
                    self.claims.dealt_with(&target);
                    return Some(Chore::Again { target, after: 0 });
                }
                while *units > 0 {
                    let silent = self.client(link).is_some_and(|client| client.silent);
                    let Some(number) = self.claims.first_at(&target) else {
                        self.dial_ended(&target);
                        if silent && self.claims.first_over(link).is_none() {
                            self.close_link(link);
                        }
                        return None;
                    };
                    *units -= 1;
                    match !silent || self.is_harmless(number) {
                        true => self.ask(number, link),
                        false => self.unreached(number, &target, false),
                    }
                }
                Some(Chore::Ask { link, target })
            }
            Chore::Unreached { target, mut after, last, refused } => {
                while *units > 0 {
                    let next = self.claims.next_at(&target, after);
                    let Some(number) = next.filter(|&number| number <= last) else {
                        self.claims.dealt_with(&target);
                        return Some(Chore::Again { target, after: 0 });
                    };
                    *units = units.saturating_sub(CLAIM);
                    after = number;
                    self.unreached(number, &target, refused);
                }
                Some(Chore::Unreached { target, after, last, refused })
            }
            Chore::Again { target, mut after } => {
                while *units > 0 {
                    let Some(number) = self.claims.next_at(&target, after) else {
                        self.dial_claims();
                        return None;
                    };
                    *units = units.saturating_sub(CLAIM);
                    after = number;
                    self.claims.queue(number);
                }
                Some(Chore::Again { target, after })
            }
            Chore::Unanswered { link, reason } => {
                while *units > 0 {
                    let number = self.claims.first_over(link)?;
                    *units -= 1;
                    self.unanswered(number, reason);
                }
                Some(Chore::Unanswered { link, reason })
            }
            Chore::Held { handle, mut questions } => {
                while *units > 0
                    && let Some(question) = questions.pop()
                {
                    *units = units.saturating_sub(16);
                    self.answer_held(&handle, question);
                }
                (!questions.is_empty()).then_some(Chore::Held { handle, questions })
            }
            Chore::Drained { link, mut after } => {
                let done = self.drained_some(link, &mut after, units);
                (!done).then_some(Chore::Drained { link, after })
            }
            Chore::Distance { link, after, distance } => {
                let after = self.move_some(link, after, distance, units)?;
                Some(Chore::Distance { link, after: Some(after), distance })
            }
            Chore::Table { id, link } => {
                self.table_part(id, link, units).then_some(Chore::Table { id, link })
            }
        }
    }

    fn purge_some(
        &mut self,
        owner: RegistrarId,
        since: u64,
        after: Option<(PoolHandle, PeId)>,
        units: &mut usize,
    ) -> Option<(PoolHandle, PeId)> {
        let from = after.as_ref().map(|(handle, id)| (handle, *id));
        let mut last = None;
        let mut stale = Vec::new();
        for element in self.space.owned_after(owner, from) {
            if *units == 0 {
                break;
            }
            *units -= 1;
            last = Some((element.handle().clone(), element.id()));
            if self.side(element.key()).is_some_and(|side| side.stamp <= since) {
                stale.push(element.key());
            }
        }
        for key in stale {
            if !self.give_way(key) {
                self.remove(key, "unknown to its registrar");
            }
        }
        if *units > 0 { None } else { last.or(after) }
    }
}
