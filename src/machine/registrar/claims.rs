//! Asking elements whose they are.
//!
//! A claim is a question on its way to an element: a keep-alive with the H flag ("I am your home
//! registrar now") after a takeover, over a link that we dial, or after news that an element with a
//! link here moved away, over that link. Its answer makes us the element's home registrar, and so
//! decides contradictions among registrars. Claims keep a copy of the element, because a peer's audit
//! may remove the record while the question is under way.

use super::chores::Chore;
use super::dialect::Removal;
use super::docket::{Claim, Step, Why};
use super::{Dial, LinkId, Registrar, Timer};
use crate::handlespace::ElementKey;
use crate::machine::{LinkProtocol, Target, Time};
use crate::wire::{Asap, PeId, PoolElement, PoolHandle, Protocol, RegistrarId, Transport};
use std::net::IpAddr;
use std::time::Duration;

/// Claims that are looked at in one call for what is to be dialled.
const LOOKED_AT: usize = 256;
/// So many claims give way to one at most.
const GIVE_WAY: usize = 16;
/// How long a contested element's link may stay before we ask, ±50 %.
const GRACE: Duration = Duration::from_millis(300);
/// How long an inherited element that can't be dialled has to register.
const ORPHAN_GRACE: Duration = Duration::from_secs(3);
/// Pause before an inherited element is dialled again.
const REDIAL: Duration = Duration::from_millis(500);
/// So many rounds of a quarrel about an element are fought in so long. What is said of it beyond that is ignored: it
/// is ours as long as it is registered here.
const QUARREL: (Duration, u8) = (Duration::from_secs(60), 6);

impl Registrar {
    /// A claim that comes from this host, if there is room for it; and how many had to make that.
    fn new_claim(
        &mut self,
        handle: PoolHandle,
        element: PoolElement,
        why: Why,
        from: Option<IpAddr>,
    ) -> (Option<u64>, usize) {
        if let Some(old) = self.claims.number(&handle, element.id) {
            self.end_claim(old);
        }
        let mut gone = 0;
        while !self.claims.has_room(&handle, &element, why) {
            let Some(other) = self.claims.who_gives_way(from, why).filter(|_| gone < GIVE_WAY) else {
                return (None, gone);
            };
            gone += 1;
            self.give_claim_up(other);
        }
        (Some(self.claims.add(handle, element, why, from)), gone)
    }

    /// Others have fewer claims: this one is not asked.
    fn give_claim_up(&mut self, number: u64) {
        let Some(claim) = self.end_claim(number) else { return };
        if claim.why == Why::Inherited
            && let Some(key) = self.space.find(&claim.handle, claim.element.id)
            && self.is_ours(key)
            && self.side(key).is_some_and(|side| side.link.is_none())
        {
            self.remove_and_tell(key, "too many elements to ask");
        }
        self.close_if_idle(&claim);
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
            && self.claims.get(number).is_some_and(|claim| !matches!(claim.step, Step::Asked(_)))
        {
            self.end_claim(number);
        }
    }

    /// An ASAP link is gone: what was asked over it won't be answered.
    pub(super) fn drop_claims_of(&mut self, link: LinkId) {
        if self.claims.first_over(link).is_some() {
            self.start(Chore::Unanswered { link, reason: "link lost after takeover" });
        }
    }

    /// An element was taken over from a dead registrar, which was at this host: ask it. How many others had to go for that.
    pub(super) fn claim_inherited(&mut self, key: ElementKey, from: Option<IpAddr>) -> usize {
        let Some(element) = self.space.get(key) else { return 0 };
        let (handle, element) = (element.handle().clone(), element.to_element());
        let target = self.element_target(&element);
        let (number, gone) = self.new_claim(handle, element, Why::Inherited, from);
        match (number, target) {
            (Some(number), Some(target)) => self.claims.set_step(number, Step::Dialling(target)),
            (Some(number), None) => self.timers.set(Timer::Claim(number), self.now + ORPHAN_GRACE),
            (None, _) => self.remove_and_tell(key, "too many elements to ask"),
        }
        gone
    }

    /// Whether to say once more that an element is ours.
    pub(super) fn may_quarrel(&mut self, key: ElementKey) -> bool {
        let now = self.now;
        let Some(side) = self.side_mut(key) else { return false };
        if now - side.quarrel.1 >= QUARREL.0 {
            side.quarrel = (0, now);
        }
        side.quarrel.0 = side.quarrel.0.saturating_add(1);
        side.quarrel.0 <= QUARREL.1
    }

    /// An element is said to be another's, or gone, while it has a link here. It stays as it is until it has been
    /// asked.
    pub(super) fn contest(&mut self, key: ElementKey, link: LinkId, removal: Option<Removal>) {
        let Some(element) = self.space.get(key) else { return };
        let (handle, element) = (element.handle().clone(), element.to_element());
        if self.claims.has(&handle, element.id) || !self.may_quarrel(key) {
            return;
        }
        let times = self.side(key).map_or(1, |side| side.quarrel.0);
        let from = self.chronicle.by();
        if let (Some(number), _) = self.new_claim(handle, element, Why::Contested(link, removal), from) {
            self.claims.set_step(number, Step::Waiting(Some(link)));
            let due = self.now + self.jitter(GRACE * (1 << (times - 1).min(5)), 50);
            self.timers.set(Timer::Claim(number), due);
        }
    }

    /// Somebody can't reach an element of another registrar (RFC 5352 section 3.5: ask it at once).
    pub(super) fn ask_foreign(&mut self, key: ElementKey) {
        self.claim_foreign(key, Why::Reported);
    }

    /// Its registrar is silent, and another one says that it is gone.
    pub(super) fn ask_whether_gone(&mut self, key: ElementKey, why: Removal) {
        self.claim_foreign(key, Why::Gone(why));
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
        let from = self.chronicle.by();
        if let (Some(number), _) = self.new_claim(handle, element, why, from) {
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
        if self.timers.get(&Timer::Dials).is_some() {
            return;
        }
        let mut looks = LOOKED_AT;
        while let Some(target) = self.claims.next_dial(&mut looks) {
            match self.association_with(&target) {
                // It lost its home registrar before we knew, and has come to us already.
                Some(link) => {
                    self.claims.dialled(&target);
                    self.start(Chore::Ask { link, target });
                }
                None => self.dial_elements(target),
            }
        }
        if looks == 0 {
            // Many have been asked with others since they were to be dialled.
            self.timers.set(Timer::Dials, Time(self.now.0 + 1));
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

    /// All that were to be asked at a target were, or were given up.
    pub(super) fn dial_ended(&mut self, target: &Target) {
        self.claims.dealt_with(target);
        self.dial_claims();
    }

    /// A process was reached: ask its elements.
    pub(super) fn elements_dialled(&mut self, link: LinkId, target: &Target) {
        self.claims.dialled(target);
        if self.claims.first_at(target).is_none() {
            self.close_link(link);
            return self.dial_ended(target);
        }
        // What claims name was chosen by others, perhaps together with the address: nobody but one that speaks
        // ASAP gets to see it. Over SCTP the protocol's identifier says so, and in TLS the certificate.
        let proved = self
            .links
            .get(&link)
            .is_none_or(|state| state.ends.protocol == LinkProtocol::Sctp || state.ends.roles.is_some());
        if proved {
            return self.start(Chore::Ask { link, target: target.clone() });
        }
        let patience = self.answer_patience(link);
        if let Some(client) = self.client(link) {
            client.awaited = Some(target.clone());
            client.silent = true;
            self.timers.set(Timer::Hello(link), self.now + patience);
        }
    }

    /// A process that was dialled has said something.
    pub(super) fn process_speaks(&mut self, link: LinkId) {
        if let Some(client) = self.client(link) {
            client.silent = false;
            self.ask_awaited(link);
        }
    }

    /// Asks a process that was dialled. Who has said nothing until now, as processes that know the RFC alone, hears of
    /// pools whose handles no line of another protocol can be made of.
    pub(super) fn ask_awaited(&mut self, link: LinkId) {
        if let Some(target) = self.client(link).and_then(|client| client.awaited.take()) {
            self.timers.clear(&Timer::Hello(link));
            self.start(Chore::Ask { link, target });
        }
    }

    /// Whether whoever is asked about a claim can't take its handle for a line of some other protocol.
    pub(super) fn is_harmless(&self, number: u64) -> bool {
        let claim = self.claims.get(number);
        claim.is_some_and(|claim| !claim.handle.as_bytes().iter().any(u8::is_ascii_control))
    }

    /// Who was dialled has not said anything, or is gone before it did.
    pub(super) fn nobody_speaks(&mut self, link: LinkId, target: Target) {
        self.timers.clear(&Timer::Hello(link));
        let last = self.claims.last();
        self.start(Chore::Unreached { target, after: 0, last, refused: false });
    }

    /// A process was not reached.
    pub(super) fn elements_dial_failed(&mut self, target: &Target, refused: bool) {
        self.claims.dialled(target);
        let last = self.claims.last();
        self.start(Chore::Unreached { target: target.clone(), after: 0, last, refused });
    }

    pub(super) fn unreached(&mut self, number: u64, target: &Target, refused: bool) {
        let association = self.association_with(target);
        let Some(claim) = self.claims.get(number) else { return };
        if claim.step != Step::Dialling(target.clone()) {
            return;
        }
        if let Some(link) = association {
            return self.ask(number, link);
        }
        match claim.why {
            // Perhaps it is dialling us, or closing its last association with us.
            Why::Inherited if !refused && !claim.redialled => {
                self.claims.set_redialled(number);
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
            Why::Gone(why) if refused => {
                if let Some(claim) = self.end_claim(number) {
                    self.found_gone(&claim, why);
                }
            }
            _ => self.unanswered(number, "not reached after takeover"),
        }
    }

    pub(super) fn ask(&mut self, number: u64, link: LinkId) {
        let Some(claim) = self.claims.get(number) else { return };
        let home = !matches!(claim.why, Why::Reported | Why::Gone(_));
        let (handle, id) = (claim.handle.clone(), Some(claim.element.id));
        self.claims.set_step(number, Step::Asked(link));
        self.timers.set(Timer::Claim(number), self.now + self.answer_patience(link));
        self.stats.keep_alives_sent += 1;
        self.send_asap(link, &Asap::EndpointKeepAlive { home, registrar: self.id, handle, id });
    }

    pub(super) fn claim_due(&mut self, number: u64) {
        let Some(claim) = self.claims.get(number) else { return };
        match (&claim.step, claim.why) {
            (Step::Waiting(_), Why::Contested(link, _)) => {
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
    pub(super) fn unanswered(&mut self, number: u64, reason: &'static str) {
        let Some(claim) = self.end_claim(number) else { return };
        if let Why::Contested(link, removal) = claim.why {
            // It does not speak for us, so it is as was said.
            if let Some(key) = self.space.find(&claim.handle, claim.element.id)
                && self.side(key).is_some_and(|side| side.link == Some(link))
                && !self.give_way(key)
                && let Some(why) = removal
                && let Some((handle, element)) = self.take_out(key, "removed elsewhere", why)
            {
                self.announce_removal(handle, element, why);
            }
            // Its link is up, so it hears of that.
            if self.space.find(&claim.handle, claim.element.id).is_none_or(|key| !self.is_ours(key)) {
                self.tell_that_it_is_out(link, &claim.handle, claim.element.id);
            }
            return;
        }
        if let Why::Gone(why) = claim.why {
            // Who can't be reached from here may be there all the same.
            if matches!(claim.step, Step::Asked(_)) {
                self.found_gone(&claim, why);
            }
            return self.close_if_idle(&claim);
        }
        if let Some(key) = self.space.find(&claim.handle, claim.element.id)
            && self.is_ours(key)
            && self.side(key).is_some_and(|side| side.link.is_none())
        {
            self.stats.elements_lost += 1;
            self.remove_and_tell(key, reason);
        }
        self.close_if_idle(&claim);
    }

    /// An element does not answer of which was said that it is gone; whoever takes over from its registrar finds out
    /// by itself.
    fn found_gone(&mut self, claim: &Claim, why: Removal) {
        let key = self.space.find(&claim.handle, claim.element.id);
        let still =
            key.filter(|&key| self.space.get(key).is_some_and(|now| now.home() == claim.element.home));
        if let Some(key) = still {
            self.take_out(key, "removed elsewhere", why);
        }
    }

    /// Closes a link that we dialled for claims and that turned out to have no use.
    fn close_if_idle(&mut self, claim: &Claim) {
        let Step::Asked(link) = claim.step else { return };
        let asking = self.claims.first_over(link).is_some();
        let idle = |client: &mut super::asap::AsapLink| {
            client.elements.is_empty() && client.subscriptions.is_empty()
        };
        if !link.is_incoming() && !asking && self.client(link).is_some_and(idle) {
            self.close_link(link);
        }
    }

    /// Whether an element was asked whose it is, over `link`: it is not asked anything else meanwhile, since answers are alike.
    pub(super) fn is_claimed_over(&self, key: ElementKey, link: LinkId) -> bool {
        let Some(element) = self.space.get(key) else { return false };
        let number = self.claims.number(element.handle(), element.id());
        number.is_some_and(|number| self.claims.is_asked(number, link))
    }

    /// An element answered a keep-alive: if that was a claim, it is ours.
    pub(super) fn claim_answered(&mut self, link: LinkId, handle: &PoolHandle, id: PeId) {
        let Some(number) = self.claims.number(handle, id) else { return };
        // Only where it was asked: anybody can answer.
        if !self.claims.is_asked(number, link) {
            return;
        }
        // A keep-alive without the H flag went before, which also a process answers that is another registrar's.
        let earlier = self.space.find(handle, id).and_then(|key| self.side(key));
        if earlier.is_some_and(|side| side.link == Some(link) && side.probed.is_some()) {
            return;
        }
        let Some(claim) = self.end_claim(number) else { return };
        if matches!(claim.why, Why::Reported | Why::Gone(_)) {
            return self.close_if_idle(&claim);
        }
        if let Why::Contested(..) = claim.why {
            // It speaks for us. What others were told is put right.
            if let Some(key) = self.space.find(handle, id)
                && self.side(key).is_some_and(|side| side.link == Some(link))
            {
                self.announce_update(key);
            }
            return;
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
        self.claims.check(|target| self.chores.queues(target))?;
        if self.claims.dialling() != self.element_dials() {
            return Err(format!("{} dials counted, {} there", self.claims.dialling(), self.element_dials()));
        }
        let ours: RegistrarId = self.id;
        for element in self.space.owned_after(ours, None) {
            let linked = self.side(element.key()).is_some_and(|side| side.link.is_some() || side.stays);
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
