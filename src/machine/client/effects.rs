//! What every part of the client needs: the present, effects, timers, chance, link numbers.

use super::{ClientCounts, Event, LinkId, Output, Target, Time};
use crate::machine::Service;
use crate::machine::outbox::Outbox;
use crate::machine::timer::Deadlines;
use crate::wire::Asap;

/// What a deadline means. The first are RFC 5352's (section 7.1), by the names they have there; its T6-Serverannounce
/// is a registrar's. Numbers say of which ask, element or pool it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// T1-ENRPrequest: the registrar did not answer this handle resolution.
    T1EnrpRequest(u64),
    /// T2-registration: the registrar did not answer this registration.
    T2Registration(u64),
    /// T3-deregistration: the registrar did not answer this deregistration.
    T3Deregistration(u64),
    /// T4-reregistration: this element is to be registered anew.
    T4Reregistration(u64),
    /// T5-Serverhunt: the hunt takes its next step: dials more candidates, gives up some, or starts over.
    T5ServerHunt,
    /// T7-ENRPoutdate: an announced registrar was not heard for too long.
    T7EnrpOutdate,
    /// A request has waited too long for a link.
    Patience(u64),
    /// The home registrar has been silent: look for another, or move to it.
    Probe,
    /// No keep-alive came from the home registrar for longer than usual.
    Silence,
    /// The home registrar was asked whether it lives, since another one wants its place.
    Suit,
    /// Requests have waited long enough for candidates that refuse.
    Refused,
    /// An incoming link proved nothing in time, or was idle for long.
    Stranger(LinkId),
    /// A pool whose registrar pushes nothing is to be asked again.
    Poll(u64),
    /// What a new registrar did not list is gone from now on.
    Grace(u64),
    /// A subscription that nobody wants any more is to be ended.
    Linger(u64),
    /// Nothing was heard for long from a registrar that should push.
    Refresh,
    /// The home before the present one is not waited for any longer.
    Retire,
    /// Unsent reports may be sent, or are old.
    Reports,
    /// A shutdown is out of patience.
    Shutdown,
}

#[derive(Debug)]
pub(super) struct Effects {
    /// Time of the call under way.
    pub now: Time,
    pub outbox: Outbox<Event>,
    pub timers: Deadlines<Timer>,
    pub rng: fastrand::Rng,
    pub counts: ClientCounts,
    last_link: u64,
}

impl Effects {
    pub fn new(seed: u64, now: Time) -> Effects {
        Effects {
            now,
            outbox: Outbox::default(),
            timers: Deadlines::new(),
            rng: fastrand::Rng::with_seed(seed),
            counts: ClientCounts::default(),
            last_link: 0,
        }
    }

    /// Sets or clears a timer.
    pub fn wind(&mut self, timer: Timer, time: Option<Time>) {
        match time {
            Some(time) => self.timers.set(timer, time),
            None => {
                self.timers.clear(&timer);
            }
        }
    }

    pub fn event(&mut self, event: Event) {
        if let Event::Home { registrar: None, .. } = event {
            self.counts.homes_lost += 1;
        }
        self.outbox.push(Output::Event(event));
    }

    pub fn open(&mut self, target: Target) -> LinkId {
        self.last_link += 1;
        let link = LinkId(self.last_link);
        self.outbox.push(Output::Open { link, service: Service::Asap, target });
        link
    }

    pub fn send(&mut self, link: LinkId, message: &Asap) {
        if let Asap::EndpointKeepAliveAck { .. } = message {
            self.counts.keep_alives += 1;
        }
        self.outbox.send_with(link, message.encoded_len(), |out| message.encode_into(out));
    }

    pub fn close(&mut self, link: LinkId) {
        self.outbox.push(Output::Close { link });
    }
}
