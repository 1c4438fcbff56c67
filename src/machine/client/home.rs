//! The home registrar: adopting it, watching it, leaving it.

use super::effects::Timer;
use super::{Client, Event, LinkDown, LinkId, RegistrarId, Target, Time};
use crate::machine::LinkEnds;
use crate::wire::scope::host_of;
use crate::wire::{Asap, Cause, CauseCode, OperationError, PeId, PoolHandle};
use std::time::Duration;

/// A home that was heard and stayed for so long was of use.
const USEFUL: Duration = Duration::from_secs(1);
/// How long a home stays that has been replaced, at most.
const RETIREMENT: Duration = Duration::from_secs(2);

/// A keep-alive may come so much later than twice the usual time after the last one, and after so long at least.
const SLACK: Duration = Duration::from_millis(250);
const LEAST_SILENCE: Duration = Duration::from_millis(1500);
/// How long the home may take to show that it lives when another registrar wants its place: less than that one
/// waits for our answer.
const ANSWER: Duration = Duration::from_millis(500);
/// For so long after the last home was lost it may come back.
const RETURN: Duration = Duration::from_secs(3);

/// One way to a registrar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    /// What is dialled: one address if it is TCP.
    pub target: Target,
    /// All addresses of the host, whose fate is one.
    pub host: Target,
    /// 0: not known.
    pub registrar: RegistrarId,
}

/// A second registrar in reserve, while the first is silent.
#[derive(Debug)]
pub(super) struct Spare {
    pub link: LinkId,
    pub candidate: Candidate,
    pub ends: LinkEnds,
}

#[derive(Debug)]
pub(super) struct Home {
    pub link: LinkId,
    /// 0: not known yet.
    pub registrar: RegistrarId,
    pub ends: LinkEnds,
    /// Where we dialled; `None`: it came to us.
    pub target: Option<Target>,
    since: Time,
    /// When it last said anything.
    pub heard: Option<Time>,
    /// When it last answered an ask, and the latest transmission that it answered.
    pub answered: Option<Time>,
    pub answered_sequence: u64,
    pub congested: bool,
    /// When its last keep-alive came.
    kept: Option<Time>,
    /// How long it lets us wait for the next one, at most.
    gap: Duration,
    /// When it was asked whether it lives, since another one wants its place.
    doubted: Time,
}

impl Client {
    /// One of our dials came through.
    pub(super) fn dialled(&mut self, link: LinkId, ends: LinkEnds) {
        if let Some(spare) = self.hunt.up(&mut self.fx, &self.config, link, ends) {
            self.adopt_spare(spare);
        } else if self.hunt.is_spare(link) {
            self.probe();
        }
    }

    fn adopt_spare(&mut self, spare: Spare) {
        let Spare { link, candidate, ends } = spare;
        self.adopt(link, ends, candidate.registrar, Some(candidate.host));
    }

    /// Makes the registrar at the other end of `link` the home for everything.
    pub(super) fn adopt(
        &mut self,
        link: LinkId,
        ends: LinkEnds,
        registrar: RegistrarId,
        target: Option<Target>,
    ) {
        let known = Some(registrar).filter(|registrar| registrar.0 != 0);
        let registrar = known.or_else(|| self.hunt.registrar_at(&ends)).unwrap_or_default();
        let home = Home {
            link,
            registrar,
            ends,
            target,
            since: self.fx.now,
            heard: None,
            answered: None,
            answered_sequence: 0,
            congested: false,
            kept: None,
            gap: Duration::ZERO,
            doubted: Time::default(),
        };
        self.fx.timers.clear(&Timer::Silence);
        self.fx.timers.clear(&Timer::Suit);
        self.strangers.last_suit();
        let old = self.home.replace(home);
        self.fx.counts.homes_found += 1;
        self.fx.counts.homes_lost += u64::from(old.is_some());
        self.fx.event(Event::Home { registrar: Some(registrar), link: Some(link) });
        self.unsend_all();
        self.spare_exhausted();
        self.register_all();
        self.subscribe_all();
        self.flush();
        self.send_reports();
        if let Some(old) = old {
            self.retire(old.link);
        }
    }

    /// The old home takes our elements out of their pools when we are gone from it. So it is closed
    /// only when they are registered with the new one, or can't be soon.
    fn retire(&mut self, link: LinkId) {
        self.close_retired();
        self.retiring = Some(link);
        self.fx.timers.set(Timer::Retire, self.fx.now + RETIREMENT);
    }

    pub(super) fn close_retired(&mut self) {
        self.fx.timers.clear(&Timer::Retire);
        if let Some(link) = self.retiring.take() {
            self.fx.close(link);
        }
    }

    /// A link is down. If it was the home's, the spare steps in, or the hunt begins.
    pub(super) fn link_down(&mut self, link: LinkId, _why: LinkDown) {
        if self.hunt.down(&mut self.fx, &self.config, link) {
            return;
        }
        if self.retiring.take_if(|retiring| *retiring == link).is_some() {
            return;
        }
        let Some(home) = self.home.take_if(|home| home.link == link) else {
            return self.strangers.forget(&mut self.fx, link);
        };
        let useful = home.heard.is_some() && self.fx.now - home.since >= USEFUL;
        self.hunt.home_lost(&mut self.fx, home.target.as_ref(), useful);
        match self.hunt.take_spare() {
            Some(spare) => self.adopt_spare(spare),
            None => self.homeless(),
        }
        if self.home.is_none() {
            self.suit_over();
        }
    }

    /// The home does not answer: everything moves to the spare, or waits for another.
    pub(super) fn leave_home(&mut self) {
        let Some(home) = &self.home else { return };
        self.hunt.home_hung(self.fx.now, &self.config, home);
        if let Some(spare) = self.hunt.take_spare() {
            return self.adopt_spare(spare);
        }
        self.fx.close(home.link);
        self.home = None;
        self.homeless();
    }

    fn homeless(&mut self) {
        self.fx.event(Event::Home { registrar: None, link: None });
        self.fx.timers.clear(&Timer::Refresh);
        self.fx.timers.clear(&Timer::Silence);
        self.hopeful = self.hopeful.max(self.fx.now + RETURN);
        self.close_retired();
        self.unsend_all();
    }

    /// The home registrar watches us: we know by that that we are in our pools.
    fn kept_alive(&mut self) {
        let now = self.fx.now;
        let Some(home) = &mut self.home else { return };
        let Some(last) = home.kept.replace(now) else { return };
        let gap = now - last;
        home.gap = gap.max(home.gap - home.gap.saturating_sub(gap) / 8);
        let usual = (2 * home.gap + SLACK).max(LEAST_SILENCE);
        self.fx.timers.set(Timer::Silence, now + usual);
    }

    /// No keep-alive for longer than usual: the way to the home registrar is cut, or it does not have our
    /// elements any more. Its answers to registrations tell; if there are none, another is looked for.
    pub(super) fn home_silent(&mut self) {
        self.register_all();
    }

    pub(super) fn set_congested(&mut self, link: LinkId, congested: bool) {
        if let Some(home) = self.home.as_mut().filter(|home| home.link == link) {
            home.congested = congested;
        }
    }

    /// The home registrar said something.
    pub(super) fn home_spoke(&mut self, message: &Asap) {
        let Some(home) = &mut self.home else { return };
        home.heard = Some(self.fx.now);
        // Who answers questions about our own elements with "its home is .." speaks of itself.
        if home.registrar.0 == 0
            && let Asap::HandleResolutionResponse { handle, elements, .. } = message
            && let Some(own) =
                elements.iter().find(|element| self.elements.is_registered(handle, element.id, home.link))
        {
            self.learn_home(own.home);
        }
    }

    /// The home registrar's ID became known.
    pub(super) fn learn_home(&mut self, registrar: RegistrarId) {
        if let Some(home) = &mut self.home
            && registrar.0 != 0
            && home.registrar != registrar
        {
            home.registrar = registrar;
            self.fx.event(Event::Home { registrar: Some(registrar), link: Some(home.link) });
        }
    }

    pub(super) fn learn_home_by_address(&mut self) {
        if let Some(home) = self.home.as_ref().filter(|home| home.registrar.0 == 0)
            && let Some(registrar) = self.hunt.registrar_at(&home.ends)
        {
            self.learn_home(registrar);
        }
    }

    /// Sees to it that a silent home is noticed long before its answers are overdue.
    pub(super) fn watch_silence(&mut self) {
        if self.fx.timers.get(&Timer::Probe).is_none() {
            self.fx.timers.set(Timer::Probe, self.fx.now + self.config.response_timeout / 3);
        }
    }

    /// After a third of the response time-out without any answer another registrar is dialled, after
    /// two thirds the client moves to it if it is there.
    pub(super) fn probe(&mut self) {
        let now = self.fx.now;
        let Some(home) = &self.home else { return };
        let Some((_, oldest)) = self.asks.oldest_sent() else { return };
        let silent_since = home.answered.unwrap_or(oldest.at).max(oldest.at);
        let third = self.config.response_timeout / 3;
        let (first, second) = (silent_since + third, silent_since + third * 2);
        if now < first {
            self.fx.timers.set(Timer::Probe, first);
        } else if now < second {
            self.close_retired();
            let Some(home) = &self.home else { return };
            self.hunt.probe(&mut self.fx, &self.config, home);
            self.fx.timers.set(Timer::Probe, second);
        } else if self.hunt.has_spare() && home.heard.is_some_and(|heard| heard > silent_since) {
            // It lives, and so does the way from it: the answer may be late. T1 to T3 decide.
        } else if self.hunt.has_spare() {
            self.leave_home();
        } else {
            self.hunt.probe(&mut self.fx, &self.config, home);
        }
    }

    /// T5-Serverhunt while there is a home: more may be dialled. Without one, `settle` sees to it.
    pub(super) fn hunt_on(&mut self) {
        if let Some(home) = &self.home {
            self.hunt.probe(&mut self.fx, &self.config, home);
        }
    }

    /// Somebody connected to us: perhaps a registrar. There is a place for one that comes from where we know of one.
    pub(super) fn welcome(&mut self, link: LinkId, ends: LinkEnds) {
        let (config, hunt, home) = (&self.config, &self.hunt, &self.home);
        let known = || {
            let home = home.iter().flat_map(|home| home.ends.peer.first());
            hunt.registrars_addresses(config).chain(home).map(|at| host_of(at.ip())).collect()
        };
        self.strangers.welcome(&mut self.fx, link, ends, known);
    }

    /// ENDPOINT_KEEP_ALIVE (RFC 5352 section 3.4), over whatever link it comes.
    pub(super) fn keep_alive(
        &mut self,
        link: LinkId,
        adopt: bool,
        registrar: RegistrarId,
        handle: PoolHandle,
        id: Option<PeId>,
    ) {
        let named = self.elements.named(&handle, id);
        if named.is_empty() {
            return;
        }
        let from_home = self.home.as_ref().is_some_and(|home| home.link == link);
        let is_home = registrar.0 != 0 && self.home() == Some(registrar);
        let stranger = self.strangers.contains(link);
        if adopt && stranger && !is_home && self.home.is_some() && !self.home_owes_an_answer() {
            return self.doubt_home(link, registrar, &handle, &named);
        }
        for id in &named {
            self.fx.send(link, &Asap::EndpointKeepAliveAck { handle: handle.clone(), id: *id });
        }
        if from_home {
            self.kept_alive();
            self.learn_home(registrar);
            if let (Some(id), true) = (id, registrar.0 != 0) {
                self.may_register_now((handle, id));
            }
            return;
        }
        self.strangers.proved(&mut self.fx, link);
        if !adopt {
            return;
        }
        if is_home {
            // It has us already, by a link of ours: if that link were closed now it would take all
            // our elements for dead. A fresh registration ties the element to it.
            named.iter().for_each(|&id| self.ask_registration((handle.clone(), id)));
        } else if stranger {
            self.follow(link, registrar);
        } else if self.hunt.is_spare(link)
            && let Some(mut spare) = self.hunt.take_spare()
        {
            spare.candidate.registrar = registrar;
            self.adopt_spare(spare);
        }
    }

    /// Whether the home has let something wait for so long that it is not asked again.
    fn home_owes_an_answer(&self) -> bool {
        let (Some(home), Some((_, oldest))) = (&self.home, self.asks.oldest_sent()) else { return false };
        self.fx.now - home.heard.unwrap_or(home.since).max(oldest.at) >= ANSWER
    }

    /// Somebody wants to be the home of our elements although there is one. It may be its heir, or anybody who
    /// found our port: so the home is asked, and whoever wants its place has it if it does not answer.
    fn doubt_home(&mut self, link: LinkId, registrar: RegistrarId, handle: &PoolHandle, named: &[PeId]) {
        let now = self.fx.now;
        let numbers = named.iter().filter_map(|&id| self.elements.number(handle, id)).collect();
        self.strangers.court(now, link, registrar, numbers);
        if self.fx.timers.get(&Timer::Suit).is_none() {
            self.fx.timers.set(Timer::Suit, now + ANSWER);
            if let Some(home) = &mut self.home {
                home.doubted = now;
            }
            if let Some(&id) = named.first() {
                self.ask_registration((handle.clone(), id));
            }
        }
    }

    /// The home has answered by now, or another one takes its place.
    pub(super) fn suit_over(&mut self) {
        self.fx.timers.clear(&Timer::Suit);
        // However late we look at it.
        let answers =
            self.home.as_ref().is_some_and(|home| home.heard.is_some_and(|heard| heard >= home.doubted));
        let Some((link, suit)) = self.strangers.last_suit() else { return };
        if answers {
            return;
        }
        for number in suit.named {
            if let Some((handle, id)) = self.elements.key(number) {
                self.fx.send(link, &Asap::EndpointKeepAliveAck { handle, id });
            }
        }
        self.follow(link, suit.registrar);
    }

    /// A registrar that came to us becomes the home.
    fn follow(&mut self, link: LinkId, registrar: RegistrarId) {
        if let Some(ends) = self.strangers.take(&mut self.fx, link) {
            self.hunt.cease(&mut self.fx);
            self.adopt(link, ends, registrar, None);
        }
    }

    /// Reports skipped parameters whose type says so (RFC 5354 section 3.13).
    pub(super) fn report_unrecognized(&mut self, link: LinkId, unrecognized: Vec<Vec<u8>>) {
        let causes =
            unrecognized.into_iter().map(|data| Cause { code: CauseCode::UNRECOGNIZED_PARAMETER, data });
        let causes: Vec<Cause> = causes.collect();
        if !causes.is_empty() {
            self.send_error(link, OperationError(causes));
        }
    }

    /// Reports a message that could not be decoded, if its sender wants to know.
    pub(super) fn report_error(&mut self, link: LinkId, cause: Option<Cause>) {
        if let Some(cause) = cause {
            self.send_error(link, OperationError(vec![cause]));
        }
    }

    fn send_error(&mut self, link: LinkId, error: OperationError) {
        let message = Asap::Error { error };
        if message.fits() {
            self.fx.send(link, &message);
        }
    }
}
