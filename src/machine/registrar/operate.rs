//! What an operator changes while the service runs.

use super::chronicle::What;
use super::links::StaticPeer;
use super::{Config, Registrar};
use crate::handlespace::Bounds;
use crate::handlespace::marks::{Marks, life, marks, unmarked, with_marks};
use crate::machine::Target;
use crate::machine::Time;
use crate::wire::enrp::UpdateAction;
use crate::wire::{Enrp, PeId, Policy, PoolElement, PoolHandle, RegistrarId};
use std::fmt;

impl Registrar {
    /// Takes other timers, bounds and static peers. Who we are, where we are reached and whether we announce
    /// that stays as it is. Links stay as well: a peer that is no longer configured is only not dialled again,
    /// and beyond a bound that has become lower nothing is removed.
    pub fn reconfigure(&mut self, now: Time, config: Config) {
        self.begin(now);
        let running = &mut self.config;
        *running = Config {
            id: running.id,
            asap_transports: std::mem::take(&mut running.asap_transports),
            enrp_transports: std::mem::take(&mut running.enrp_transports),
            announce_asap: running.announce_asap,
            announce_enrp: running.announce_enrp,
            ..config
        };
        let (elements, step) = (self.config.max_elements, self.config.distance_step);
        self.config.distance_step = step.max(std::time::Duration::from_millis(1));
        self.space.set_bounds(Bounds { elements, ..Bounds::default() });
        self.dial_statics();
        self.finish();
    }

    /// Static peers are elsewhere, or now known to be somewhere.
    pub fn set_peers(&mut self, now: Time, peers: Vec<Target>) {
        self.begin(now);
        self.config.peers = peers;
        self.config.awaits_peers = false;
        self.dial_statics();
        self.seek_mentor();
        self.finish();
    }

    /// Whether a static peer is not where it is dialled.
    pub fn misses_peer(&self) -> bool {
        let missing = |entry: &StaticPeer| {
            entry.link.is_none() && entry.failed > 0 && !entry.ourselves && !entry.dropped
        };
        self.config.awaits_peers || self.statics.iter().any(missing)
    }

    fn dial_statics(&mut self) {
        let targets = self.config.peers.clone();
        for entry in &mut self.statics {
            entry.dropped = !targets.contains(&entry.target);
        }
        for target in targets {
            let index = match self.statics.iter().position(|entry| entry.target == target) {
                Some(index) => index,
                None => {
                    self.statics.push(StaticPeer::new(target));
                    self.statics.len() - 1
                }
            };
            self.dial_static(index);
        }
    }
}

/// What an operator can do with an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// It keeps its users and gets no new ones, until it leaves its pool.
    Drain,
    /// It gets new users again.
    Undrain,
    /// It has these policy values, whatever it says itself.
    SetPolicy(Policy),
    /// It has the policy values that it says itself, from its next re-registration on.
    UnsetPolicy,
    /// It leaves its pool. One that is alive comes back with its next re-registration.
    Deregister,
}

impl Operation {
    /// In a word, for the log and the page.
    pub fn name(&self) -> &'static str {
        match self {
            Operation::Drain => "drained",
            Operation::Undrain => "undrained",
            Operation::SetPolicy(_) => "policy set",
            Operation::UnsetPolicy => "policy unset",
            Operation::Deregister => "deregistered by an operator",
        }
    }
}

/// What became of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operated {
    /// It is done, and other registrars are being told.
    Done,
    /// The element's home registrar was asked to do it.
    Asked(RegistrarId),
}

/// Why an operation is not possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Impossible {
    /// There is no such element.
    Unknown,
    /// Its pool has another policy.
    OtherPolicy,
    /// Its home registrar is rsplib's, which has no such operations.
    Foreign(RegistrarId),
    /// Its home registrar can't be reached at present.
    Unreachable(RegistrarId),
}

impl fmt::Display for Impossible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Impossible::Unknown => write!(f, "no such element"),
            Impossible::OtherPolicy => write!(f, "its pool has another policy"),
            Impossible::Foreign(home) => {
                write!(f, "its home registrar {home} is rsplib's, which can't do that")
            }
            Impossible::Unreachable(home) => {
                write!(f, "its home registrar {home} can't be reached at present")
            }
        }
    }
}

impl Registrar {
    /// Does what an operator wants with an element, or asks its home registrar to.
    pub fn operate(
        &mut self,
        now: Time,
        handle: &PoolHandle,
        id: PeId,
        operation: &Operation,
    ) -> Result<Operated, Impossible> {
        self.begin(now);
        let key = self.space.find(handle, id).ok_or(Impossible::Unknown)?;
        let mut element =
            self.space.get(key).map(|element| element.to_element()).ok_or(Impossible::Unknown)?;
        let mut wanted = marks(element.life);
        match operation {
            Operation::Drain => wanted.drained = true,
            Operation::Undrain => wanted.drained = false,
            Operation::SetPolicy(policy) if policy.type_code() != element.policy.type_code() => {
                return Err(Impossible::OtherPolicy);
            }
            Operation::SetPolicy(policy) => {
                wanted.policy = true;
                element.policy = policy.clone();
            }
            Operation::UnsetPolicy => wanted.policy = false,
            Operation::Deregister => {}
        }
        if element.home != self.id {
            wanted.request = true;
            element.life = with_marks(element.life, wanted);
            return self.ask_home(handle, element, matches!(operation, Operation::Deregister));
        }
        element.life = with_marks(element.life, wanted);
        self.operated(handle, &element, operation);
        self.finish();
        Ok(Operated::Done)
    }

    /// An element of ours as its operator wants it.
    fn operated(&mut self, handle: &PoolHandle, element: &PoolElement, operation: &Operation) {
        let (id, address) = (element.id, element.transport.socket_addresses().next());
        let what = What::Operated { handle: handle.clone(), id, address, action: operation.name() };
        self.chronicle.note(self.now, what);
        if let Operation::Deregister = operation {
            if let Some(key) = self.space.find(handle, element.id) {
                self.retire_and_tell(key);
            }
            return;
        }
        let side = self.space.find(handle, element.id).and_then(|key| self.side(key));
        let said = side.map(|side| (side.heard, side.registered));
        if let Ok((key, _)) = self.put(handle, element) {
            // It said nothing itself.
            if let (Some((heard, registered)), Some(side)) = (said, self.side_mut(key)) {
                (side.heard, side.registered) = (heard, registered);
            }
            self.announce_update(key);
        }
    }

    /// Asks an element's home registrar: by an update that names the receiver as its home and carries the mark of
    /// a request, with life 0 beside it if the element shall leave.
    fn ask_home(
        &mut self,
        handle: &PoolHandle,
        mut element: PoolElement,
        leave: bool,
    ) -> Result<Operated, Impossible> {
        let home = element.home;
        let peer = self.peers.get(home).ok_or(Impossible::Unreachable(home))?;
        if peer.dialect.may_be_rsplib() {
            return Err(Impossible::Foreign(home));
        }
        if peer.link.is_none() {
            return Err(Impossible::Unreachable(home));
        }
        if leave {
            element.life = with_marks(0, Marks { request: true, ..Marks::default() });
        }
        let body = Enrp::HandleUpdate {
            takeover_suggested: false,
            action: UpdateAction::Add,
            handle: handle.clone(),
            element,
        };
        self.send_enrp(home, body);
        Ok(Operated::Asked(home))
    }

    /// Another registrar's operator wants something with an element of ours. `false`: it is not a request.
    pub(super) fn asked_to_operate(
        &mut self,
        sender: RegistrarId,
        handle: &PoolHandle,
        asked: &PoolElement,
    ) -> bool {
        let wanted = marks(asked.life);
        if !wanted.request || self.peers.get(sender).is_none_or(|peer| peer.dialect.may_be_rsplib()) {
            return false;
        }
        let Some(key) = self.space.find(handle, asked.id).filter(|&key| self.is_ours(key)) else {
            return true;
        };
        let Some(mut element) = self.space.get(key).map(|element| element.to_element()) else { return true };
        let known = marks(element.life);
        let operation = match (life(asked.life), known.drained, wanted.drained) {
            (0, ..) => Operation::Deregister,
            (_, false, true) => Operation::Drain,
            (_, true, false) => Operation::Undrain,
            _ if wanted.policy => Operation::SetPolicy(asked.policy.clone()),
            _ => Operation::UnsetPolicy,
        };
        if wanted.policy && asked.policy.type_code() == element.policy.type_code() {
            element.policy = asked.policy.clone();
        }
        element.life = with_marks(element.life, Marks { request: false, ..wanted });
        self.operated(handle, &element, &operation);
        true
    }

    /// An element registers (again): what an operator has decided about it stays.
    pub(super) fn keep_marks(&self, handle: &PoolHandle, element: &mut PoolElement) {
        element.life = unmarked(element.life);
        let known = self.space.find(handle, element.id).and_then(|key| self.space.get(key));
        if let Some(known) = known
            && known.marks() != Marks::default()
        {
            element.life = with_marks(element.life, known.marks());
            if known.marks().policy && known.policy().type_code() == element.policy.type_code() {
                element.policy = known.policy();
            }
        }
    }
}
