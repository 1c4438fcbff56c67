//! Asking elements whose they are.
//!
//! A claim is a question on its way to an element: a keep-alive with the H flag ("I am your home
//! registrar now") after a takeover, over a link that we dial, or after news that an element with a
//! link here moved away, over that link. Its answer makes us the element's home registrar, and so
//! decides contradictions among registrars. Claims keep a copy of the element, because a peer's audit
//! may remove the record while the question is under way.

use super::{Dial, LinkId, Registrar, Timer};
use crate::handlespace::ElementKey;
use crate::machine::{LinkProtocol, Target};
use crate::wire::{Asap, PeId, PoolElement, PoolHandle, Protocol, RegistrarId, Transport};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Where a claim stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Until its timer ends: this link may close by itself, or the element may register.
    Waiting(Option<LinkId>),
    /// Its process is to be dialled.
    Dialling(Target),
    /// Keep-alive sent over this link.
    Asked(LinkId),
}

/// Why we ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// Its registrar is dead and we took over: no answer, no element.
    Inherited,
    /// It has this link and is said to be another's: no answer, no claim.
    Contested(LinkId),
    /// Its registrar suggests that we take it.
    Suggested,
    /// Somebody can't reach an element of another registrar; the keep-alive has no H flag.
    Reported,
}

#[derive(Debug)]
struct Claim {
    handle: PoolHandle,
    element: PoolElement,
    why: Why,
    step: Step,
    /// It was dialled in vain once.
    redialled: bool,
}

/// All claims.
#[derive(Debug, Default)]
pub(super) struct Claims {
    by_number: BTreeMap<u64, Claim>,
    by_name: BTreeMap<(PoolHandle, PeId), u64>,
    by_link: BTreeMap<LinkId, BTreeSet<u64>>,
    by_target: BTreeMap<Target, BTreeSet<u64>>,
    queue: VecDeque<Target>,
    dialling: usize,
    numbers: u64,
    /// How often elements were contested, and since when; against quarrels with an element that keeps
    /// links to two registrars.
    quarrels: BTreeMap<(PoolHandle, PeId), (u32, crate::machine::Time)>,
}

/// Bound on claims; what is beyond is not asked, and lost if it was inherited.
const MAX_CLAIMS: usize = 1 << 20;
/// Dials of elements at the same time.
const MAX_DIALS: usize = 256;
/// How long a contested element's link may stay before we ask, ±50 %.
const GRACE: Duration = Duration::from_millis(300);
/// How long an inherited element that can't be dialled has to register.
const ORPHAN_GRACE: Duration = Duration::from_secs(3);
/// Pause before an inherited element is dialled again.
const REDIAL: Duration = Duration::from_millis(500);
/// A quarrel is over after so long, and given up after so many rounds.
const QUARREL: (Duration, u32) = (Duration::from_secs(60), 6);
/// Bound on quarrels remembered.
const MAX_QUARRELS: usize = 1 << 16;

impl Claims {
    fn number(&self, handle: &PoolHandle, id: PeId) -> Option<u64> {
        self.by_name.get(&(handle.clone(), id)).copied()
    }

    fn unlist(list: &mut BTreeSet<u64>, number: u64) -> bool {
        list.remove(&number);
        list.is_empty()
    }

    fn leave_step(&mut self, number: u64) {
        let Some(claim) = self.by_number.get(&number) else { return };
        match &claim.step {
            Step::Waiting(None) => {}
            Step::Waiting(Some(link)) | Step::Asked(link) => {
                let link = *link;
                if self.by_link.get_mut(&link).is_some_and(|list| Claims::unlist(list, number)) {
                    self.by_link.remove(&link);
                }
            }
            Step::Dialling(target) => {
                let target = target.clone();
                if self.by_target.get_mut(&target).is_some_and(|list| Claims::unlist(list, number)) {
                    self.by_target.remove(&target);
                }
            }
        }
    }

    fn set_step(&mut self, number: u64, step: Step) {
        self.leave_step(number);
        match &step {
            Step::Waiting(None) => {}
            Step::Waiting(Some(link)) | Step::Asked(link) => {
                self.by_link.entry(*link).or_default().insert(number);
            }
            Step::Dialling(target) => {
                if !self.by_target.contains_key(target) {
                    self.queue.push_back(target.clone());
                }
                self.by_target.entry(target.clone()).or_default().insert(number);
            }
        }
        if let Some(claim) = self.by_number.get_mut(&number) {
            claim.step = step;
        }
    }

    fn remove(&mut self, number: u64) -> Option<Claim> {
        self.leave_step(number);
        let claim = self.by_number.remove(&number)?;
        self.by_name.remove(&(claim.handle.clone(), claim.element.id));
        Some(claim)
    }

    pub(super) fn has(&self, handle: &PoolHandle, id: PeId) -> bool {
        self.number(handle, id).is_some()
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let linked: usize = self.by_link.values().map(BTreeSet::len).sum();
        let aimed: usize = self.by_target.values().map(BTreeSet::len).sum();
        let on_link = |claim: &&Claim| matches!(claim.step, Step::Asked(_) | Step::Waiting(Some(_)));
        let asked = self.by_number.values().filter(on_link).count();
        let dialling =
            self.by_number.values().filter(|claim| matches!(claim.step, Step::Dialling(_))).count();
        let names = self.by_name.len();
        if names != self.by_number.len() || linked != asked || aimed != dialling || names > MAX_CLAIMS {
            return Err(format!(
                "claims: {} of {names} names, {linked} linked of {asked}, {aimed} aimed of {dialling}",
                self.by_number.len()
            ));
        }
        if self.dialling > MAX_DIALS || self.quarrels.len() > MAX_QUARRELS {
            return Err("claims: too many dials or quarrels".into());
        }
        Ok(())
    }
}

impl Registrar {
    fn new_claim(&mut self, handle: PoolHandle, element: PoolElement, why: Why) -> Option<u64> {
        if let Some(old) = self.claims.number(&handle, element.id) {
            self.end_claim(old);
        }
        if self.claims.by_number.len() >= MAX_CLAIMS {
            return None;
        }
        self.claims.numbers += 1;
        let number = self.claims.numbers;
        self.claims.by_name.insert((handle.clone(), element.id), number);
        self.claims
            .by_number
            .insert(number, Claim { handle, element, why, step: Step::Waiting(None), redialled: false });
        Some(number)
    }

    fn end_claim(&mut self, number: u64) -> Option<Claim> {
        self.timers.clear(&Timer::Claim(number));
        self.claims.remove(number)
    }

    /// The element decided otherwise.
    pub(super) fn drop_claim(&mut self, handle: &PoolHandle, id: PeId) {
        if let Some(number) = self.claims.number(handle, id) {
            self.end_claim(number);
        }
    }

    /// An inherited element registered with another registrar before we asked it.
    pub(super) fn element_moved(&mut self, handle: &PoolHandle, id: PeId) {
        if let Some(number) = self.claims.number(handle, id)
            && self.claims.by_number.get(&number).is_some_and(|claim| !matches!(claim.step, Step::Asked(_)))
        {
            self.end_claim(number);
        }
    }

    /// An ASAP link is gone: what was asked over it won't be answered.
    pub(super) fn drop_claims_of(&mut self, link: LinkId) {
        for number in self.claims.by_link.remove(&link).unwrap_or_default() {
            self.unanswered(number, "link lost after takeover");
        }
    }

    /// An element was taken over from a dead registrar: ask it.
    pub(super) fn claim_inherited(&mut self, key: ElementKey) {
        let Some(element) = self.space.get(key) else { return };
        let (handle, element) = (element.handle().clone(), element.to_element());
        let target = self.element_target(&element);
        let Some(number) = self.new_claim(handle, element, Why::Inherited) else {
            return self.remove_and_tell(key, "too many elements to ask");
        };
        match target {
            Some(target) => self.claims.set_step(number, Step::Dialling(target)),
            None => self.timers.set(Timer::Claim(number), self.now + ORPHAN_GRACE),
        }
    }

    /// An element is said to be another's while it has a link here.
    pub(super) fn contest(&mut self, key: ElementKey, link: LinkId) {
        let Some(element) = self.space.get(key) else { return };
        let (handle, element) = (element.handle().clone(), element.to_element());
        let name = (handle.clone(), element.id);
        let now = self.now;
        if !self.claims.quarrels.contains_key(&name) && self.claims.quarrels.len() >= MAX_QUARRELS {
            self.claims.quarrels.retain(|_, (_, since)| now - *since < QUARREL.0);
            if self.claims.quarrels.len() >= MAX_QUARRELS {
                return;
            }
        }
        let quarrel = self.claims.quarrels.entry(name).or_insert((0, now));
        if now - quarrel.1 >= QUARREL.0 {
            *quarrel = (0, now);
        }
        quarrel.0 += 1;
        let times = quarrel.0;
        if times > QUARREL.1 {
            return;
        }
        if let Some(number) = self.new_claim(handle, element, Why::Contested(link)) {
            self.claims.set_step(number, Step::Waiting(Some(link)));
            let due = now + self.jitter(GRACE * (1 << (times - 1).min(5)), 50);
            self.timers.set(Timer::Claim(number), due);
        }
    }

    /// The same by key, as part of being taken over ourselves.
    pub(super) fn contest_key(&mut self, key: ElementKey) {
        if let Some(link) = self.side(key).and_then(|side| side.link) {
            self.contest(key, link);
        }
    }

    /// Somebody can't reach an element of another registrar (RFC 5352 section 3.5: ask it at once).
    pub(super) fn ask_foreign(&mut self, key: ElementKey) {
        self.claim_foreign(key, Why::Reported);
    }

    /// An element's registrar suggests that we take it.
    pub(super) fn take_suggested(&mut self, handle: &PoolHandle, id: PeId) {
        if let Some(key) = self.space.find(handle, id) {
            self.claim_foreign(key, Why::Suggested);
        }
    }

    fn claim_foreign(&mut self, key: ElementKey, why: Why) {
        let Some(element) = self.space.get(key) else { return };
        let (handle, element) = (element.handle().clone(), element.to_element());
        if element.home == self.id || self.claims.has(&handle, element.id) {
            return;
        }
        let Some(target) = self.element_target(&element) else { return };
        if let Some(number) = self.new_claim(handle, element, why) {
            self.claims.set_step(number, Step::Dialling(target));
            self.dial_claims();
        }
    }

    /// Where an element's process is dialled, if we can.
    fn element_target(&self, element: &PoolElement) -> Option<Target> {
        let asap = element.asap.as_ref()?;
        let ours = &self.config.asap_transports;
        let speaks = |protocol: Protocol| {
            ours.iter().any(|transport: &Transport| transport.protocol() == Some(protocol))
                || (ours.is_empty() && protocol == Protocol::Tcp)
        };
        let protocol = match asap.protocol()? {
            Protocol::Sctp if speaks(Protocol::Sctp) => LinkProtocol::Sctp,
            Protocol::Tcp if speaks(Protocol::Tcp) => LinkProtocol::Tcp,
            _ => return None,
        };
        let addresses: Vec<_> = asap.socket_addresses().collect();
        (asap.port() != 0 && !addresses.is_empty()).then_some(Target { protocol, addresses })
    }

    /// Dials as many processes as may be dialled at once.
    pub(super) fn dial_claims(&mut self) {
        while self.claims.dialling < MAX_DIALS {
            let Some(target) = self.claims.queue.pop_front() else { break };
            let Some(numbers) = self.claims.by_target.get(&target) else { continue };
            match self.association_with(&target) {
                // It lost its home registrar before we knew, and has come to us already.
                Some(link) => {
                    for number in numbers.clone() {
                        self.ask(number, link);
                    }
                }
                None => {
                    self.claims.dialling += 1;
                    self.dial_elements(target);
                }
            }
        }
    }

    /// The association that there already is with an element's process: elements dial from the port at
    /// which they are dialled.
    fn association_with(&self, target: &Target) -> Option<LinkId> {
        if target.protocol != LinkProtocol::Sctp {
            return None;
        }
        target.addresses.iter().find_map(|address| self.associations.get(address)).copied()
    }

    fn dial_ended(&mut self, target: &Target) -> Vec<u64> {
        self.claims.dialling = self.claims.dialling.saturating_sub(1);
        self.claims.by_target.get(target).into_iter().flatten().copied().collect()
    }

    /// A process was reached: ask its elements.
    pub(super) fn elements_dialled(&mut self, link: LinkId, target: &Target) {
        let numbers = self.dial_ended(target);
        if numbers.is_empty() {
            self.close_link(link);
        }
        for number in numbers {
            self.ask(number, link);
        }
        self.dial_claims();
    }

    /// A process was not reached.
    pub(super) fn elements_dial_failed(&mut self, target: &Target, refused: bool) {
        let association = self.association_with(target);
        for number in self.dial_ended(target) {
            let Some(claim) = self.claims.by_number.get_mut(&number) else { continue };
            if let Some(link) = association {
                self.ask(number, link);
                continue;
            }
            match claim.why {
                // Perhaps it is dialling us, or closing its last association with us.
                Why::Inherited if !refused && !claim.redialled => {
                    claim.redialled = true;
                    self.claims.set_step(number, Step::Waiting(None));
                    self.timers.set(Timer::Claim(number), self.now + REDIAL);
                }
                Why::Reported if refused => {
                    let (handle, id) = (claim.handle.clone(), claim.element.id);
                    self.end_claim(number);
                    if let Some(key) = self.space.find(&handle, id) {
                        self.stats.elements_lost += 1;
                        self.remove_and_tell(key, "reported unreachable");
                    }
                }
                _ => self.unanswered(number, "not reached after takeover"),
            }
        }
        self.dial_claims();
    }

    fn ask(&mut self, number: u64, link: LinkId) {
        let Some(claim) = self.claims.by_number.get(&number) else { return };
        let home = claim.why != Why::Reported;
        let (handle, id) = (claim.handle.clone(), Some(claim.element.id));
        self.claims.set_step(number, Step::Asked(link));
        self.timers.set(Timer::Claim(number), self.now + self.answer_patience(link));
        self.stats.keep_alives_sent += 1;
        self.send_asap(link, &Asap::EndpointKeepAlive { home, registrar: self.id, handle, id });
    }

    pub(super) fn claim_due(&mut self, number: u64) {
        let Some(claim) = self.claims.by_number.get(&number) else { return };
        match (&claim.step, claim.why) {
            (Step::Waiting(_), Why::Contested(link)) => {
                if self.client(link).is_some() {
                    self.ask(number, link);
                } else {
                    self.end_claim(number);
                }
            }
            (Step::Waiting(None), Why::Inherited) => match self.element_target(&claim.element) {
                Some(target) => {
                    self.claims.set_step(number, Step::Dialling(target));
                    self.dial_claims();
                }
                None => self.unanswered(number, "no answer after takeover"),
            },
            (Step::Asked(link), _) if self.overslept => {
                let link = *link;
                self.ask(number, link);
            }
            _ => self.unanswered(number, "no answer after takeover"),
        }
    }

    /// An element does not answer. If nobody else is its home registrar, that is its end.
    fn unanswered(&mut self, number: u64, reason: &'static str) {
        let Some(claim) = self.end_claim(number) else { return };
        if let Some(key) = self.space.find(&claim.handle, claim.element.id)
            && self.is_ours(key)
            && self.side(key).is_some_and(|side| side.link.is_none())
        {
            self.stats.elements_lost += 1;
            self.remove_and_tell(key, reason);
        }
        self.close_if_idle(&claim);
    }

    /// Closes a link that we dialled for claims and that turned out to have no use.
    fn close_if_idle(&mut self, claim: &Claim) {
        let Step::Asked(link) = claim.step else { return };
        let asking = self.claims.by_link.contains_key(&link);
        let idle =
            |client: &mut super::asap::Client| client.elements.is_empty() && client.subscriptions.is_empty();
        if !link.is_incoming() && !asking && self.client(link).is_some_and(idle) {
            self.close_link(link);
        }
    }

    /// An element answered a keep-alive: if that was a claim, it is ours.
    pub(super) fn claim_answered(&mut self, link: LinkId, handle: &PoolHandle, id: PeId) {
        let Some(number) = self.claims.number(handle, id) else { return };
        if !self.claims.by_number.get(&number).is_some_and(|claim| matches!(claim.step, Step::Asked(_))) {
            return;
        }
        let Some(claim) = self.end_claim(number) else { return };
        if claim.why == Why::Reported {
            return self.close_if_idle(&claim);
        }
        let known = self.space.find(handle, id);
        let was_ours = known.is_some_and(|key| self.is_ours(key));
        let key = match known {
            Some(key) => {
                self.rehome(key, self.id);
                key
            }
            None => {
                let element = PoolElement { home: self.id, ..claim.element };
                match self.put(handle, &element) {
                    Ok((key, _)) => key,
                    Err(_) => return,
                }
            }
        };
        self.attach(key, link);
        if !was_ours {
            self.announce_update(key);
        }
    }

    /// Whether a dial for elements is under way, for the check of our tables.
    pub(super) fn element_dials(&self) -> usize {
        self.dials.values().filter(|dial| matches!(dial, Dial::Elements(_))).count()
    }

    /// For the check of our tables.
    pub(super) fn check_claims(&self) -> Result<(), String> {
        self.claims.check()?;
        if self.claims.dialling != self.element_dials() {
            return Err(format!("{} dials counted, {} there", self.claims.dialling, self.element_dials()));
        }
        let ours: RegistrarId = self.id;
        for element in self.space.owned_after(ours, None) {
            let linked = self.side(element.key()).is_some_and(|side| side.link.is_some());
            if !linked && !self.claims.has(element.handle(), element.id()) {
                return Err(format!(
                    "element {} of {:?} is watched by nobody",
                    element.id(),
                    element.handle()
                ));
            }
        }
        Ok(())
    }
}
