//! The elements that a one-to-many descriptor sends to without a session of the program's (RFC 5352 section 6.5):
//! over which connection each is reached, and what may not have arrived.

use crate::socket::session::told::{SessionId, Undelivered};
use crate::wire::{PeId, PoolHandle};
use std::collections::HashMap;
use std::net::SocketAddr;

/// Connections kept per descriptor; beyond that, the one not used for longest is given up.
pub(crate) const MOST_PARTNERS: usize = 1024;
/// How much of a message is kept to be handed back.
const HEAD: usize = 1024;

/// Who is written to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Partner {
    /// A pool's element.
    Element(PoolHandle, PeId),
    /// Whoever is at an address.
    Address(SocketAddr),
}

impl Partner {
    pub(crate) fn pe_id(&self) -> PeId {
        match self {
            Partner::Element(_, id) => *id,
            Partner::Address(_) => PeId(0),
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Partners {
    reached: HashMap<Partner, Reached>,
    of: HashMap<SessionId, Partner>,
    /// To whom the last message to a pool went.
    last: HashMap<PoolHandle, PeId>,
    /// Counts messages: who was used when.
    clock: u64,
}

#[derive(Debug)]
struct Reached {
    session: SessionId,
    used: u64,
    /// Its pool lost it.
    lost: bool,
    /// The last message, until the partner says something.
    unanswered: Option<(Vec<u8>, usize)>,
}

impl Partners {
    /// Over which session a partner is reached.
    pub(crate) fn session(&self, partner: &Partner) -> Option<SessionId> {
        self.reached.get(partner).map(|reached| reached.session)
    }

    /// A partner is reached; the session of another one to be given up for it.
    pub(crate) fn add(&mut self, partner: &Partner, session: SessionId) -> Option<SessionId> {
        let crowded = self.reached.len() >= MOST_PARTNERS;
        let oldest =
            || self.reached.values().min_by_key(|reached| reached.used).map(|reached| reached.session);
        let oldest = if crowded { oldest() } else { None };
        self.clock += 1;
        let reached = Reached { session, used: self.clock, lost: false, unanswered: None };
        self.reached.insert(partner.clone(), reached);
        self.of.insert(session, partner.clone());
        oldest
    }

    /// A message was handed to a partner's connection.
    pub(crate) fn sent(&mut self, partner: &Partner, data: &[u8]) {
        self.clock += 1;
        if let Partner::Element(handle, id) = partner {
            self.last.insert(handle.clone(), *id);
        }
        if let Some(reached) = self.reached.get_mut(partner) {
            reached.used = self.clock;
            reached.unanswered = Some((data[..data.len().min(HEAD)].to_vec(), data.len()));
        }
    }

    /// A partner said something: it reads what it is sent.
    pub(crate) fn heard(&mut self, session: SessionId) {
        if let Some(reached) = self.of.get(&session).and_then(|partner| self.reached.get_mut(partner)) {
            reached.unanswered = None;
        }
    }

    /// To whom the last message to a pool went.
    pub(crate) fn last(&self, handle: &PoolHandle) -> Option<PeId> {
        self.last.get(handle).copied()
    }

    /// A partner's pool lost it: however its session ends, that is no end in order.
    pub(crate) fn lost(&mut self, session: SessionId) {
        if let Some(reached) = self.of.get(&session).and_then(|partner| self.reached.get_mut(partner)) {
            reached.lost = true;
        }
    }

    /// A session is over. What its partner may not have got; `None`: it is no partner's, or there is nothing.
    pub(crate) fn ended(&mut self, session: SessionId, in_order: bool) -> Option<Undelivered> {
        let partner = self.of.remove(&session)?;
        if self.session(&partner) != Some(session) {
            return None;
        }
        let reached = self.reached.remove(&partner)?;
        if let Partner::Element(handle, id) = &partner
            && self.last.get(handle) == Some(id)
        {
            self.last.remove(handle);
        }
        let (head, size) = reached.unanswered.filter(|_| !in_order || reached.lost)?;
        Some(Undelivered { pe_id: partner.pe_id(), reached: true, head, size })
    }
}

/// What is handed back of a message that could not be sent.
pub(crate) fn unsent(pe_id: PeId, data: &[u8]) -> Undelivered {
    Undelivered { pe_id, reached: false, head: data[..data.len().min(HEAD)].to_vec(), size: data.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(id: u32) -> Partner {
        Partner::Element(PoolHandle::new(b"pool").unwrap(), PeId(id))
    }

    #[test]
    fn a_message_is_handed_back_unless_it_was_answered() {
        let mut partners = Partners::default();
        assert_eq!(partners.add(&element(1), 7), None);
        partners.sent(&element(1), &[5; 3000]);
        assert_eq!(partners.last(&PoolHandle::new(b"pool").unwrap()), Some(PeId(1)));
        let back = partners.ended(7, false).unwrap();
        assert_eq!((back.pe_id, back.reached, back.head.len(), back.size), (PeId(1), true, HEAD, 3000));
        assert_eq!(partners.ended(7, false), None);
        assert_eq!(partners.last(&PoolHandle::new(b"pool").unwrap()), None);
        partners.add(&element(1), 8);
        partners.sent(&element(1), b"x");
        partners.heard(8);
        assert_eq!(partners.ended(8, false), None);
        assert_eq!(partners.session(&element(1)), None);
    }

    #[test]
    fn who_was_not_written_to_for_longest_makes_room() {
        let mut partners = Partners::default();
        for id in 0..MOST_PARTNERS as u32 {
            assert_eq!(partners.add(&element(id), id as SessionId + 1), None);
        }
        partners.sent(&element(0), b"x");
        assert_eq!(partners.add(&element(5000), 5000), Some(2));
        assert_eq!(partners.ended(2, false), None);
        assert_eq!(partners.reached.len(), MOST_PARTNERS);
    }
}
