//! Links that have to prove who is at their other end before the machine hears of them.
//!
//! ```text
//!   Dialling ──connected──┐                  ┌──► Up
//!                         ├──► Proving ──────┤ failed          the alert is sent, the peer's FIN came,
//!   accepted ──┬──────────┤   │ 5 s, or      └──► Refusing ──► or 1 s passed ──► gone
//!              └► Waiting ┘   │ room is needed
//!                             ▼
//!                           gone; if it was dialled: the next way
//! ```

use super::links::{Admission, Phase, Way};
use super::{Input, Reactor, ReactorTimer};
use crate::machine::{LinkDown, LinkId, Service};
use crate::runtime::guests::Leaving;
use crate::transport::Link;
use crate::transport::allow::Networks;
use crate::transport::tcp::TcpLink;
use crate::transport::tls::{Credentials, FIRST_BYTE, Failure, Fault, Mode, Purpose, TlsLink};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// An unproved link that is older makes room for a new one of the same host.
const STALLED: Duration = Duration::from_secs(1);
/// Whoever waits for its turn to prove itself does so for so many times the time that proving may take.
const QUEUE: u32 = 4;
/// How often it is looked whether there is one.
const WAITS: Duration = Duration::from_millis(100);
/// How long a peer may take to hear why it was refused, and what it may send meanwhile, in bytes.
const REFUSAL: (Duration, usize) = (Duration::from_secs(1), 64 << 10);
/// Waiting links that begin to prove themselves in one turn.
const ADMISSIONS: usize = 64;
/// Links looked at again in one turn after the credentials changed.
const LOOKS: usize = 16;

/// What the links of a reactor prove themselves by.
#[derive(Debug, Default)]
pub(crate) struct Security {
    mode: Mode,
    credentials: Option<Arc<Credentials>>,
    /// From where connections and datagrams are taken.
    allowed: Networks,
    /// After a change: slots from here on are still to be looked at.
    looking: Option<usize>,
    /// A timer for those who wait to prove themselves is running.
    watching: bool,
}

fn purpose(service: Service) -> Purpose {
    match service {
        Service::Asap => Purpose::Asap,
        Service::Enrp => Purpose::Enrp,
    }
}

impl Security {
    /// The link of a connection that is being dialled.
    pub fn dialled(&self, link: TcpLink, secure: bool, service: Service) -> io::Result<Link> {
        match &self.credentials {
            Some(credentials) if secure => {
                let link = TlsLink::dialled(link, credentials, purpose(service))?;
                Ok(Link::Tls(Box::new(link)))
            }
            None if secure => Err(ErrorKind::Unsupported.into()),
            _ => Ok(Link::Tcp(link)),
        }
    }
}

impl Reactor {
    /// From now on links prove themselves by these credentials. Those that are up stay, unless the new
    /// credentials would not let them in.
    pub fn secure(&mut self, mode: Mode, credentials: Option<Arc<Credentials>>) {
        self.security =
            Security { mode, credentials, looking: Some(0), ..std::mem::take(&mut self.security) };
    }

    /// From now on connections and datagrams are taken from these networks only.
    pub fn allow(&mut self, networks: Networks) {
        self.security.allowed = networks;
    }

    /// Whether who is at `peer` may speak to us at all; if not, that is counted and said.
    pub(super) fn is_allowed(&mut self, what: std::fmt::Arguments<'_>, peer: Option<SocketAddr>) -> bool {
        let allowed = &self.security.allowed;
        if allowed.is_everybody() || peer.is_some_and(|peer| allowed.contains(peer.ip())) {
            return true;
        }
        self.counters.refused += 1;
        let from = peer.map_or("nowhere".into(), |peer| peer.to_string());
        let by = peer.map(|peer| peer.ip());
        self.complain("allow", by, format_args!("{what} from {from} refused: not from an allowed network"));
        false
    }

    /// The ways to somebody at `addresses`, last first.
    pub(super) fn ways(&self, addresses: &[SocketAddr]) -> Vec<Way> {
        let ways = addresses.iter().flat_map(|&to| {
            let (secure, plain) = (Way { to, secure: true }, Way { to, secure: false });
            match self.security.mode {
                Mode::Off => [Some(plain), None],
                Mode::Allow => [Some(secure), Some(plain)],
                Mode::Require => [Some(secure), None],
            }
        });
        let mut ways: Vec<Way> = ways.flatten().collect();
        ways.reverse();
        ways
    }

    /// A link was accepted of which it isn't known yet who is at the other end.
    pub(super) fn ask_for_proof(
        &mut self,
        index: usize,
        id: LinkId,
        link: Link,
        (admission, from): (Admission, Option<IpAddr>),
    ) {
        let Some(slot) = self.links.get_as(index, id) else { return };
        slot.phase = Phase::Waiting(admission);
        slot.link = Some(link);
        if self.makes_way(from) {
            return self.begin_proof(index);
        }
        self.arm(self.limits.proof * QUEUE, ReactorTimer::Proof { slot: index, link: id });
        // It waits, as do others of its host.
        if self.links.waiting.len() >= self.limits.waiting {
            match self.links.waiting.who_goes(from) {
                Some(Leaving { guest, is_own: false, .. }) => self.give_up_unproved(guest),
                _ => return self.give_up_unproved(index),
            }
        }
        let place = self.links.waiting.add(from, index);
        if let Some(slot) = self.links.get_as(index, id) {
            slot.waiting = Some(place);
        }
        self.watch_waiting();
    }

    /// Whether there is a place for one more of that host to prove itself. If need be, the oldest of the host that has
    /// most of them goes; of its own host only one that has had some time.
    fn makes_way(&mut self, from: Option<IpAddr>) -> bool {
        if self.links.unproved.len() < self.limits.unproved {
            return true;
        }
        let Some(Leaving { guest, is_of_more, .. }) = self.links.unproved.who_goes(from) else { return true };
        let since = self.links.get(guest).map_or(self.now, |slot| slot.heard);
        if !is_of_more && self.now - since < STALLED {
            return false;
        }
        self.give_up_unproved(guest);
        true
    }

    fn give_up_unproved(&mut self, index: usize) {
        self.counters.handshakes_failed += 1;
        self.complain_about(index, "unproved", "it has not proved itself, and others are waiting");
        self.remove(index);
    }

    /// Its turn to prove itself.
    fn begin_proof(&mut self, index: usize) {
        let (now, patience) = (self.now, self.limits.proof);
        let Some(slot) = self.links.get(index) else { return };
        let Phase::Waiting(admission) = slot.phase else { return };
        let service = slot.service;
        let from = slot.link.as_ref().and_then(|link| link.peer_addresses().first().map(SocketAddr::ip));
        (slot.phase, slot.heard, slot.proves_by) = (Phase::Proving(None), now, now + patience);
        let (id, waited) = (slot.id, slot.waiting.take());
        waited.into_iter().for_each(|place| self.links.waiting.remove(place));
        let place = self.links.unproved.add(from, index);
        if let Some(slot) = self.links.get(index) {
            slot.unproved = Some(place);
        }
        self.arm(patience, ReactorTimer::Proof { slot: index, link: id });
        if admission == Admission::Proved {
            self.begin_tls(index, service);
        }
    }

    fn watch_waiting(&mut self) {
        if !std::mem::replace(&mut self.security.watching, true) {
            self.arm(WAITS, ReactorTimer::Waiting);
        }
    }

    /// Those who wait to prove themselves have their turn as far as there are places; first those of whose host fewest wait.
    pub(super) fn admit_waiting<F>(&mut self, handler: &mut F)
    where
        F: FnMut(&mut Reactor, Input<'_>),
    {
        for _ in 0..ADMISSIONS {
            let Some(index) = self.links.waiting.of_the_fewest() else { break };
            let link = self.links.slots.get(index).and_then(|slot| slot.link.as_ref());
            let from = link.and_then(|link| link.peer_addresses().first().map(SocketAddr::ip));
            if !self.makes_way(from) {
                break;
            }
            self.begin_proof(index);
            // What has come meanwhile was not looked at.
            self.hear_unproved(index, handler);
        }
    }

    /// Whether there are places for those who wait.
    pub(super) fn has_to_admit(&self) -> bool {
        !self.links.waiting.is_empty() && self.links.unproved.len() < self.limits.unproved
    }

    /// The turn of those who wait, where none of those that prove themselves has come to an end for a while.
    pub(super) fn admit_late<F>(&mut self, handler: &mut F)
    where
        F: FnMut(&mut Reactor, Input<'_>),
    {
        self.security.watching = false;
        self.admit_waiting(handler);
        if !self.links.waiting.is_empty() {
            self.watch_waiting();
        }
    }

    /// Makes an accepted TCP link one over TLS.
    fn begin_tls(&mut self, index: usize, service: Service) {
        let credentials = self.security.credentials.clone();
        let Some(slot) = self.links.get(index) else { return };
        let Some(Link::Tcp(link)) = slot.link.take_if(|link| matches!(link, Link::Tcp(_))) else { return };
        let made = match &credentials {
            Some(credentials) => TlsLink::accepted(link, credentials, purpose(service)),
            None => Err(Failure::Broken("there are no credentials".into())),
        };
        match made {
            Ok(link) => {
                slot.link = Some(Link::Tls(Box::new(link)));
                self.counters.handshakes += 1;
            }
            Err(failure) => {
                log::error!("no TLS: {failure}");
                self.drop_link(index, LinkDown::Broken);
            }
        }
    }

    /// A dialled link is connected.
    pub(super) fn proof_begins(&mut self, index: usize) {
        let Some(slot) = self.links.get(index) else { return };
        if let Phase::Dialling(rest) = &mut slot.phase {
            let rest = std::mem::take(rest);
            slot.phase = Phase::Proving(Some(rest));
            self.counters.handshakes += 1;
            self.prove(index);
        }
    }

    /// Something came over a link that has not proved itself, or was refused.
    pub(super) fn hear_unproved<F>(&mut self, index: usize, handler: &mut F)
    where
        F: FnMut(&mut Reactor, Input<'_>),
    {
        let Some(slot) = self.links.get(index) else { return };
        let (id, service) = (slot.id, slot.service);
        match (&slot.phase, &mut slot.link) {
            (Phase::Refusing, Some(Link::Tls(link))) => {
                let mut most = REFUSAL.1;
                if !link.drain(&mut most) {
                    self.remove(index);
                }
                return;
            }
            (Phase::Proving(_), Some(Link::Tcp(link))) => match link.first_byte() {
                Ok(None) => return,
                Ok(Some(FIRST_BYTE)) => self.begin_tls(index, service),
                Ok(Some(_)) => return self.admit_plain(index, id, handler),
                Err(_) => return self.drop_link(index, LinkDown::Closed),
            },
            _ => {}
        }
        self.prove(index);
        // What the peer sent right behind its proof.
        if let Some(slot) = self.links.get_as(index, id)
            && matches!(slot.phase, Phase::Up)
        {
            self.report_changes(handler);
            self.read(index, handler);
        }
    }

    /// At a listener that takes both.
    fn admit_plain<F>(&mut self, index: usize, id: LinkId, handler: &mut F)
    where
        F: FnMut(&mut Reactor, Input<'_>),
    {
        let Some(link) = self.links.get(index).and_then(|slot| slot.link.take()) else { return };
        self.counters.plain += 1;
        self.links.no_more_unproved(index);
        self.up(index, id, link);
        self.report_changes(handler);
        self.read(index, handler);
    }

    /// Goes on with a handshake.
    pub(super) fn prove(&mut self, index: usize) {
        let Some(slot) = self.links.get(index) else { return };
        let id = slot.id;
        let Some(Link::Tls(link)) = &mut slot.link else { return };
        match link.prove() {
            Ok(false) => {
                if self.links.count_held(index, self.limits.buffered) {
                    self.counters.overflows += 1;
                    self.drop_link(index, LinkDown::Overflow);
                }
            }
            Ok(true) => {
                self.links.no_more_unproved(index);
                let Some(link) = self.links.get(index).and_then(|slot| slot.link.take()) else { return };
                self.up(index, id, link);
                self.flush_slot(index);
            }
            Err(failure) => self.proof_failed(index, &failure),
        }
    }

    fn proof_failed(&mut self, index: usize, failure: &Failure) {
        self.counters.handshakes_failed += 1;
        let Some(slot) = self.links.get(index) else { return };
        let (id, service) = (slot.id, slot.service);
        let peer = slot.link.as_ref().and_then(|link| link.peer_addresses().first().copied());
        let by = peer.map(|peer| peer.ip());
        let peer = peer.map_or("a peer".into(), |peer| peer.to_string());
        let (cause, hint) = match failure {
            Failure::Plain => ("plain", "; tls=allow admits peers without TLS beside the others"),
            Failure::Refused(_) => ("refused", ""),
            // Somebody who was let in before is news, whoever else isn't.
            Failure::Distrusted(Fault::Revoked, _) => ("revoked", ""),
            Failure::Distrusted(..) => ("distrusted", ""),
            Failure::Silent | Failure::Broken(_) => ("handshake", ""),
        };
        match &mut slot.phase {
            // It was dialled: perhaps there is another way.
            Phase::Proving(Some(rest)) => {
                let rest = std::mem::take(rest);
                let without = rest.last().is_some_and(|way| !way.secure);
                // A peer that has a certificate, or wants ours, will not be better without.
                let has_tls = matches!(failure, Failure::Refused(_) | Failure::Distrusted(..));
                if !without || has_tls {
                    self.complain(cause, by, format_args!("{service:?} at {peer}: {failure}"));
                }
                let Some(slot) = self.links.get_as(index, id) else { return };
                let skip = usize::from(without && has_tls);
                let left = rest.len() - skip;
                slot.phase = Phase::Dialling(rest[..left].to_vec());
                // The alert goes out with the link's end as far as the kernel takes it.
                if let Some(Link::Tls(link)) = &mut slot.link {
                    let _ = link.flush();
                    link.finish();
                }
                self.dial_next(index);
            }
            _ => {
                let text = format!("{service:?} connection from {peer} refused: {failure}{hint}");
                self.complain(cause, by, format_args!("{text}"));
                self.refuse(index, id);
            }
        }
    }

    /// Sends the alert and waits for the peer to have read it: closed with something unread, the connection
    /// would be reset, and the alert lost.
    fn refuse(&mut self, index: usize, id: LinkId) {
        let Some(slot) = self.links.get_as(index, id) else { return };
        slot.phase = Phase::Refusing;
        self.links.no_more_unproved(index);
        let Some(slot) = self.links.get_as(index, id) else { return };
        let mut most = REFUSAL.1;
        let waits = match &mut slot.link {
            Some(Link::Tls(link)) => {
                let _ = link.flush();
                link.finish();
                link.drain(&mut most)
            }
            _ => false,
        };
        match waits {
            true => self.arm(REFUSAL.0, ReactorTimer::Proof { slot: index, link: id }),
            false => self.remove(index),
        }
    }

    /// A link had its time to prove itself, or to hear why it was refused.
    pub(super) fn proof_timed_out(&mut self, index: usize, id: LinkId) {
        let now = self.now;
        let Some(slot) = self.links.get_as(index, id) else { return };
        match &mut slot.phase {
            Phase::Proving(_) if now < slot.proves_by => {}
            Phase::Refusing => self.remove(index),
            Phase::Proving(None) | Phase::Waiting(_) => {
                self.counters.handshakes_failed += 1;
                self.complain_about(index, "unproved", "it has not proved itself in time");
                self.remove(index);
            }
            Phase::Proving(Some(_)) => {
                self.proof_failed(index, &Failure::Broken("it has not proved itself in time".into()));
            }
            _ => {}
        }
    }

    /// Whether links are still to be looked at after a change of the credentials.
    pub(super) fn looks_again(&self) -> bool {
        self.security.looking.is_some()
    }

    /// Drops those links that would not be let in any more, a few at a time.
    pub(super) fn look_again(&mut self) {
        let Some(from) = self.security.looking else { return };
        let Some(credentials) = self.security.credentials.clone() else {
            self.security.looking = None;
            return;
        };
        let (mut index, mut looked) = (from, 0);
        while looked < LOOKS && index < self.links.slot_count() {
            if let Some(slot) = self.links.get(index)
                && let (Phase::Up, Some(Link::Tls(link))) = (&slot.phase, &slot.link)
            {
                looked += 1;
                if !link.is_believed_by(&credentials) {
                    self.complain_about(index, "no longer", "its certificate is no longer valid, or revoked");
                    self.drop_link(index, LinkDown::Broken);
                }
            }
            index += 1;
        }
        self.security.looking = (index < self.links.slot_count()).then_some(index);
    }
}
