//! What an operator changes while the service runs.

use super::chronicle::What;
use super::dialect::client_may_be_rsplibs;
use super::links::StaticPeer;
use super::{Config, LinkId, Registrar};
use crate::handlespace::marks::{Marks, life, marks, unmarked, with_marks};
use crate::handlespace::{Bounds, ElementKey};
use crate::machine::Target;
use crate::machine::Time;
use crate::wire::enrp::UpdateAction;
use crate::wire::{
    Asap, CauseCode, Enrp, OperationError, PeId, Policy, PoolElement, PoolHandle, RegistrarId,
};
use std::fmt;
use std::time::Duration;

/// For so long after a home registrar was asked a refusal is about that.
const REFUSAL: Duration = Duration::from_secs(10);

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
                self.tell_taken_out(key, handle, element.id);
                self.deregister_and_tell(key);
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
        if let Some(peer) = self.peers.get_mut(home) {
            (peer.asked, peer.refuses) = (Some(self.now), false);
        }
        Ok(Operated::Asked(home))
    }

    /// Whether a peer says that it does not do what an operator asked of it here.
    pub(super) fn operation_refused(&mut self, home: RegistrarId, error: &OperationError) -> bool {
        let now = self.now;
        let asked = |asked: Time| now - asked <= REFUSAL;
        let Some(peer) = self.peers.get_mut(home) else { return false };
        if error.code() != CauseCode::SECURITY || !peer.asked.is_some_and(asked) {
            return false;
        }
        peer.refuses = true;
        let who = self.called(home);
        self.complain("operation refused", || {
            format!(
                "registrar {who} does not let this one change its elements: ask it itself, or start it with this one's \
                 address as --peer, or both with TLS"
            )
        });
        true
    }

    /// The process of an element hears that an operator took it out. One of rsplib's expects no such response.
    fn tell_taken_out(&mut self, key: ElementKey, handle: &PoolHandle, id: PeId) {
        let Some(link) = self.side(key).and_then(|side| side.link) else { return };
        if self.links.get(&link).is_some_and(|state| !client_may_be_rsplibs(&self.config, &state.ends)) {
            let error = Some(CauseCode::SECURITY.into());
            self.send_asap(link, &Asap::DeregistrationResponse { handle: handle.clone(), id, error });
        }
    }

    /// Whether what an operator wants with our elements is taken from a peer. Without certificates whoever connects is
    /// one, so it must be one that our operator has named: by the address that it comes from, and as long as another one
    /// answers there it is not that.
    fn may_ask(&self, link: LinkId, sender: RegistrarId) -> bool {
        let Some(state) = self.links.get(&link) else { return false };
        if let Some(roles) = &state.ends.roles {
            return roles.is_registrar(self.config.scope.as_deref());
        }
        let from = state.ends.peer.first().map(|peer| peer.ip().to_canonical());
        let named = |entry: &StaticPeer| {
            let mut addresses = entry.target.addresses.iter();
            let other = entry.id.is_some_and(|id| id != sender && self.is_up(id));
            !entry.dropped && !other && addresses.any(|at| Some(at.ip().to_canonical()) == from)
        };
        self.statics.iter().any(named)
    }

    /// Another registrar's operator wants something with an element of ours. `false`: it is not a request.
    pub(super) fn asked_to_operate(
        &mut self,
        link: LinkId,
        sender: RegistrarId,
        handle: &PoolHandle,
        asked: &PoolElement,
    ) -> bool {
        let wanted = marks(asked.life);
        if !wanted.request || self.peers.get(sender).is_none_or(|peer| peer.dialect.may_be_rsplib()) {
            return false;
        }
        if !self.may_ask(link, sender) {
            self.refuse_operation(link, sender, handle, asked.id);
            return true;
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

    fn refuse_operation(&mut self, link: LinkId, sender: RegistrarId, handle: &PoolHandle, id: PeId) {
        self.stats.messages_rejected += 1;
        let from = self.links.get(&link).and_then(|state| state.ends.peer.first().copied());
        let at = self.end_of(link);
        self.complain("operator elsewhere", || {
            format!(
                "registrar {sender} at {at} asks for a change of element {id} of pool \"{handle}\": without TLS that is \
                 taken only from registrars whose addresses are given with --peer"
            )
        });
        self.refused("operation", CauseCode::SECURITY, handle, id, from);
        self.report_error(link, sender, CauseCode::SECURITY.into());
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
