//! What every part of the client needs: the output queue, the alarms, chance, link numbers.

use super::{ClientCounts, Event, LinkId, Output, Target, Time};
use crate::machine::Service;
use crate::machine::timer::{Deadlines, Timer};
use crate::wire::Asap;
use std::collections::VecDeque;
use std::time::Duration;

/// Why time may matter; the number says whose alarm it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alarm {
    /// One of RFC 5352's: T1 to T3 by request, T4 by element.
    Rfc(Timer, u64),
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
    pub out: VecDeque<Output<Event>>,
    pub alarms: Deadlines<Alarm>,
    pub rng: fastrand::Rng,
    pub counts: ClientCounts,
    last_link: u64,
}

impl Effects {
    pub fn new(seed: u64) -> Effects {
        Effects {
            out: VecDeque::new(),
            alarms: Deadlines::new(),
            rng: fastrand::Rng::with_seed(seed),
            counts: ClientCounts::default(),
            last_link: 0,
        }
    }

    /// Sets or clears an alarm.
    pub fn wind(&mut self, alarm: Alarm, time: Option<Time>) {
        match time {
            Some(time) => self.alarms.set(alarm, time),
            None => {
                self.alarms.clear(&alarm);
            }
        }
    }

    pub fn event(&mut self, event: Event) {
        if let Event::Home { registrar: None, .. } = event {
            self.counts.homes_lost += 1;
        }
        self.out.push_back(Output::Event(event));
    }

    pub fn open(&mut self, target: Target) -> LinkId {
        self.last_link += 1;
        let link = LinkId(self.last_link);
        self.out.push_back(Output::Open { link, service: Service::Asap, target });
        link
    }

    pub fn send(&mut self, link: LinkId, message: &Asap) {
        if let Asap::EndpointKeepAliveAck { .. } = message {
            self.counts.keep_alives += 1;
        }
        self.send_bytes(link, message.encode());
    }

    pub fn send_bytes(&mut self, link: LinkId, bytes: Vec<u8>) {
        self.out.push_back(Output::Send { link, bytes });
    }

    pub fn close(&mut self, link: LinkId) {
        self.out.push_back(Output::Close { link });
    }

    /// `mean`, give or take up to a quarter.
    pub fn about(&mut self, mean: Duration) -> Duration {
        let micros = u64::try_from(mean.as_micros()).unwrap_or(u64::MAX);
        let spread = micros / 4;
        Duration::from_micros(micros - spread + self.rng.u64(0..=spread.saturating_mul(2)))
    }
}
