//! The ASAP side of a process, put together as one machine.
//!
//! | file | does |
//! |---|---|
//! | `config` | what a process sets, asks for, is told and counts |
//! | `element` | our pool elements: registered, kept registered, deregistered |
//! | `user` | resolutions, subscriptions, watches |
//! | `reports` | which elements do not answer, and how many of them are reported |
//! | `asks` | what the registrar was asked and has not answered |
//! | `home` | the registrar that was found: adopting, watching, leaving it |
//! | `hunt` | finding a registrar: whom to dial, in which order, and when |
//! | `announced` | registrars that announce themselves by multicast |
//! | `stranger` | links that somebody else opened: registrars that took over our elements, or anybody |
//! | `effects` | the present, effects, timers and chance, for all of the above |
//! | `invariants` | what must hold between any two calls, for the simulator |
//!
//! Three rules hold it together:
//! - Whoever wants something puts an ask into the table; asks outlive links. What is asked on our
//!   own account (re-registrations, subscriptions) is dropped with the link and asked anew by whoever
//!   still wants it when the next registrar is there.
//! - Every verb begins with the present, which everybody takes from `effects`, and ends in `settle`, which alone decides
//!   whether to hunt.
//! - Nothing is ever read from a link that is not the home registrar's, except keep-alives.

mod announced;
mod asks;
mod config;
mod effects;
mod element;
mod home;
mod hunt;
mod invariants;
mod reports;
mod stranger;
#[cfg(test)]
mod tests;
mod user;

pub use config::{ClientCounts, Config, Event, Registration, RequestError, Resolution};

use super::{
    LinkChange, LinkDown, LinkEnds, LinkId, LinkProtocol, Output, RequestId, Target, Time, hello, reach,
};
use crate::wire::{Asap, PeId, PoolHandle, RegistrarId, Transport};
use asks::{Asks, What};
use effects::{Effects, Timer};
use element::Elements;
use home::Home;
use hunt::Hunt;
use std::net::SocketAddr;
use std::time::Duration;
use stranger::StrangerLinks;
use user::User;

/// Requests that may wait for answers; beyond: [`RequestError::Busy`].
pub const MAX_REQUESTS: usize = 65_536;
/// Own elements; beyond: [`RequestError::Busy`].
pub const MAX_ELEMENTS: usize = 65_536;
/// Subscribed pools; a subscription beyond that is not made, so that its pool is not pushed.
pub const MAX_SUBSCRIPTIONS: usize = 4_096;

/// Registrars, rsplib's as well, announce themselves every second, ±12.5 % (RFC 5352 section 6.2, T6-Serverannounce):
/// before that much has passed nobody can say that there is none.
const ANNOUNCED: Duration = Duration::from_millis(1250);

/// Hunt, elements and user of one process.
#[derive(Debug)]
pub struct Client {
    config: Config,
    fx: Effects,
    hunt: Hunt,
    home: Option<Home>,
    /// The home before, until all is arranged with the new one.
    retiring: Option<LinkId>,
    strangers: StrangerLinks,
    asks: Asks,
    elements: Elements,
    user: User,
    ending: Ending,
    /// Until when it is no surprise that nobody takes our dials: an announcement may be on its way, or the
    /// last home may come back.
    hopeful: Time,
}

/// ```text
/// Running ──shutdown──► Leaving ──all deregistered, or out of patience──► Over
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Running,
    Leaving,
    Over,
}

impl Client {
    /// A client that knows nobody yet and hunts only when there is something to ask.
    pub fn new(config: Config, seed: u64, now: Time) -> Client {
        let hears = config.announcements && config.registrars.is_empty();
        Client {
            hopeful: if hears { now + ANNOUNCED } else { now },
            config,
            fx: Effects::new(seed, now),
            hunt: Hunt::default(),
            home: None,
            retiring: None,
            strangers: StrangerLinks::default(),
            asks: Asks::default(),
            elements: Elements::default(),
            user: User::default(),
            ending: Ending::Running,
        }
    }

    /// Registers an element, or updates one of ours (same handle and id). Answer: [`Event::Registered`].
    /// One that has no address waits for [`Client::set_transport`] to give it one.
    pub fn register(&mut self, now: Time, request: RequestId, registration: Registration) {
        self.fx.now = now;
        if let Err(error) = self.may_ask().and_then(|()| self.add_element(request, registration)) {
            self.fx.event(Event::Registered { request, result: Err(error) });
        }
        self.settle();
    }

    /// Deregisters one of ours. Answer: [`Event::Deregistered`].
    pub fn deregister(&mut self, now: Time, request: RequestId, handle: &PoolHandle, id: PeId) {
        self.fx.now = now;
        match self.remove_element(Some(request), (handle.clone(), id), RequestError::NotFound) {
            // No registrar was ever told of it, so none needs to be told again.
            Ok(false) => self.fx.event(Event::Deregistered { request, result: Ok(()) }),
            Ok(true) => {}
            Err(error) => self.fx.event(Event::Deregistered { request, result: Err(error) }),
        }
        self.settle();
    }

    /// Asks a registrar for up to `items` (`None`: registrar's default; `u32::MAX`: all). Answer:
    /// [`Event::Resolved`]. With `share`, the answer to the same question of another who shares may do.
    pub fn resolve(
        &mut self,
        now: Time,
        request: RequestId,
        handle: &PoolHandle,
        items: Option<u32>,
        share: bool,
    ) {
        self.fx.now = now;
        match self.may_ask() {
            Ok(()) if share && self.asks.share(handle, items, request) => {}
            Ok(()) => self.ask_resolution(request, handle.clone(), items, share),
            Err(error) => {
                let (requests, handle) = (vec![request], handle.clone());
                self.fx.event(Event::Resolved { requests, handle, result: Err(error) });
            }
        }
        self.settle();
    }

    /// Reports an element that does not answer (ASAP_ENDPOINT_UNREACHABLE).
    pub fn report_unreachable(&mut self, now: Time, handle: &PoolHandle, id: PeId) {
        self.fx.now = now;
        if self.ending == Ending::Running {
            self.user.reports.add(now, handle.clone(), id);
            self.send_reports();
        }
        self.settle();
    }

    /// Subscribes to a pool ('S' flag); counted, so each call needs its `unsubscribe`.
    pub fn subscribe(&mut self, now: Time, handle: &PoolHandle) {
        self.fx.now = now;
        if self.ending == Ending::Running {
            self.add_subscription(handle);
        }
        self.settle();
    }

    /// Ends one `subscribe`.
    pub fn unsubscribe(&mut self, now: Time, handle: &PoolHandle) {
        self.fx.now = now;
        self.drop_subscription(handle);
        self.settle();
    }

    /// Whether somebody subscribed to a pool.
    pub fn is_subscribed(&self, handle: &PoolHandle) -> bool {
        self.user.is_subscribed(handle)
    }

    /// Watches an element of a pool, and subscribes to the pool for as long: [`Event::WatchedGone`] says when
    /// the element is lost, or that it was so already. Each watch has a number of its own.
    pub fn watch(&mut self, now: Time, handle: &PoolHandle, id: PeId, number: u64) {
        self.fx.now = now;
        if self.ending == Ending::Running {
            self.add_watch(handle, id, number);
        }
        self.settle();
    }

    /// Ends a watch.
    pub fn unwatch(&mut self, now: Time, handle: &PoolHandle, id: PeId, number: u64) {
        self.fx.now = now;
        self.drop_watch(handle, id, number);
        self.settle();
    }

    /// Deregisters everything, without waiting longer than `patience`; requests end with `Shutdown`.
    pub fn shutdown(&mut self, now: Time, patience: Duration) {
        self.fx.now = now;
        if self.ending == Ending::Running {
            self.ending = Ending::Leaving;
            self.user.clear(&mut self.fx);
            for key in self.elements.keys() {
                // Whether it needs a deregistration is all that could be said, and nobody asked.
                let _ = self.remove_element(None, key, RequestError::Shutdown);
            }
            for number in self.asks.select(|what| !matches!(what, What::Deregister { .. })) {
                self.fail(number, RequestError::Shutdown);
            }
            self.fx.timers.set(Timer::Shutdown, now + patience);
        }
        self.settle();
    }

    /// Whether a shutdown has nothing left to wait for.
    pub fn is_shut_down(&self) -> bool {
        self.ending == Ending::Over
    }

    /// The static registrars are elsewhere now.
    pub fn set_registrars(&mut self, now: Time, registrars: Vec<Target>) {
        self.fx.now = now;
        if self.config.registrars != registrars {
            self.config.registrars = registrars;
            self.hunt.renew(&mut self.fx, &self.config);
        }
        self.settle();
    }

    /// Whether a registrar is looked for, and there is none.
    pub fn is_hunting(&self) -> bool {
        self.home.is_none() && self.has_business()
    }

    /// The addresses at which registrars reach us changed.
    pub fn set_listen(&mut self, now: Time, listen: Vec<Target>) {
        self.fx.now = now;
        if self.config.listen != listen {
            self.config.listen = listen;
            if self.home.as_ref().is_some_and(|home| home.ends.protocol == LinkProtocol::Tcp) {
                self.register_changed();
            }
        }
        self.settle();
    }

    /// An element of ours is reached elsewhere now: its registrar hears of that at once.
    pub fn set_transport(&mut self, now: Time, handle: &PoolHandle, id: PeId, transport: Transport) {
        self.fx.now = now;
        self.move_element((handle.clone(), id), transport);
        self.settle();
    }

    /// One whole message.
    pub fn handle_message(&mut self, now: Time, link: LinkId, bytes: &[u8]) {
        self.fx.now = now;
        let from_home = self.home.as_ref().is_some_and(|home| home.link == link);
        let listened = from_home || self.retiring == Some(link);
        if listened || self.strangers.contains(link) || self.hunt.is_spare(link) {
            match Asap::decode(bytes) {
                Ok(decoded) => {
                    if from_home {
                        self.home_spoke(&decoded.message);
                        self.report_unrecognized(link, decoded.unrecognized);
                    }
                    self.receive(link, from_home, decoded.message, bytes.len());
                }
                Err(error) if from_home => self.report_error(link, error.cause),
                // A stranger gets one chance.
                Err(_) => self.strangers.dismiss(&mut self.fx, link),
            }
        }
        self.settle();
    }

    /// A link came, went, filled or drained.
    pub fn handle_link(&mut self, now: Time, link: LinkId, change: LinkChange) {
        self.fx.now = now;
        match change {
            LinkChange::Up(ends) if !self.is_registrar(&ends) => {
                self.fx.close(link);
                self.link_down(link, LinkDown::Refused);
            }
            LinkChange::Up(ends) if link.is_incoming() => {
                if self.ending == Ending::Over {
                    self.fx.close(link);
                } else {
                    if ends.protocol == LinkProtocol::Tcp {
                        self.fx.send(link, &hello());
                    }
                    self.welcome(link, ends);
                }
            }
            LinkChange::Up(ends) => self.dialled(link, ends),
            LinkChange::Down(why) => self.link_down(link, why),
            LinkChange::Congested => self.set_congested(link, true),
            LinkChange::Drained => self.set_congested(link, false),
        }
        self.settle();
    }

    /// Whether a registrar may be at the other end, as far as it had to prove that.
    fn is_registrar(&mut self, ends: &LinkEnds) -> bool {
        let Some(roles) = &ends.roles else { return true };
        let is_one = roles.is_registrar(self.config.scope.as_deref());
        if !is_one {
            self.fx.event(Event::NoRegistrar { at: ends.peer.first().copied(), roles: roles.clone() });
        }
        is_one
    }

    /// A datagram from the ASAP announce group.
    pub fn handle_announce(&mut self, now: Time, from: SocketAddr, bytes: &[u8]) {
        self.fx.now = now;
        if self.ending != Ending::Over
            && let Ok(decoded) = Asap::decode(bytes)
            && let Asap::ServerAnnounce { registrar, transports } = decoded.message
        {
            self.hunt.announced(&mut self.fx, &self.config, from, registrar, &transports);
            self.learn_home_by_address();
        }
        self.settle();
    }

    /// Time has come.
    pub fn handle_timeout(&mut self, now: Time) {
        self.fx.now = now;
        while let Some(timer) = self.fx.timers.pop_expired(now) {
            self.expire(timer);
        }
        self.settle();
    }

    /// When to call `handle_timeout`.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.fx.timers.next()
    }

    /// The next effect.
    pub fn poll_output(&mut self) -> Option<Output<Event>> {
        self.fx.outbox.pop()
    }

    /// What it has done.
    pub fn counts(&self) -> ClientCounts {
        self.fx.counts
    }

    /// The home registrar, 0 while its ID is not known; `None` while there is none.
    pub fn home(&self) -> Option<RegistrarId> {
        self.home.as_ref().map(|home| home.registrar)
    }

    /// Where the home registrar is, if it is still the one at the other end of this link.
    pub fn home_address(&self, link: LinkId) -> Option<SocketAddr> {
        let home = self.home.as_ref().filter(|home| home.link == link)?;
        home.ends.peer.first().copied()
    }

    /// Requests and other asks that wait for answers.
    fn waiting(&self) -> usize {
        self.asks.len() + self.asks.sharing() + self.elements.waiting()
    }

    /// Whether a request may be taken on.
    fn may_ask(&self) -> Result<(), RequestError> {
        match self.ending {
            Ending::Running if self.waiting() < MAX_REQUESTS => Ok(()),
            Ending::Running => Err(RequestError::Busy),
            Ending::Leaving | Ending::Over => Err(RequestError::Shutdown),
        }
    }

    fn expire(&mut self, timer: Timer) {
        match timer {
            Timer::T1EnrpRequest(number)
            | Timer::T2Registration(number)
            | Timer::T3Deregistration(number) => {
                self.response_overdue(number);
            }
            Timer::T4Reregistration(number) => self.reregister(number),
            Timer::T5ServerHunt => self.hunt_on(),
            Timer::T7EnrpOutdate => self.hunt.outdate(&mut self.fx),
            Timer::Patience(number) => self.patience_over(number),
            Timer::Probe => self.probe(),
            Timer::Silence => self.home_silent(),
            Timer::Suit => self.suit_over(),
            Timer::Refused => self.refused(),
            Timer::Stranger(link) => self.strangers.dismiss(&mut self.fx, link),
            Timer::Poll(number) => self.poll_pool(number),
            Timer::Grace(number) => self.grace_over(number),
            Timer::Linger(number) => self.linger_over(number),
            Timer::Refresh => self.refresh(),
            Timer::Retire => self.close_retired(),
            Timer::Reports => self.send_reports(),
            Timer::Shutdown => self.end(),
        }
    }

    /// One message of a link that we listen to.
    fn receive(&mut self, link: LinkId, from_home: bool, message: Asap, length: usize) {
        match message {
            Asap::EndpointKeepAlive { home, registrar, handle, id } => {
                self.keep_alive(link, home, registrar, handle, id);
            }
            _ if !from_home => {}
            Asap::RegistrationResponse { rejected, handle, id, error } => {
                self.registration_answered((handle, id), rejected, error);
            }
            Asap::DeregistrationResponse { handle, id, error } => {
                self.deregistration_answered((handle, id), error);
            }
            Asap::HandleResolutionResponse {
                subscribed,
                handle,
                error,
                policy,
                mut elements,
                total,
                lost,
                deregistered,
            } => {
                // What means each host itself is no address of another one.
                let near = self.home.as_ref().is_some_and(|home| reach::is_local(&home.ends));
                elements.retain_mut(|element| reach::check_element(near, element));
                let answer = user::ResolutionAnswer {
                    subscribed,
                    error,
                    policy,
                    elements,
                    total,
                    lost,
                    deregistered,
                    length,
                };
                self.resolution_answered(handle, answer);
            }
            Asap::Error { error } => self.error_answered(error),
            _ => {}
        }
    }

    /// Brings the hunt in line with what there is to ask, and sends what can be sent.
    fn settle(&mut self) {
        if self.ending == Ending::Leaving && self.asks.is_empty() {
            self.end();
        }
        if self.home.is_none() {
            if self.has_business() {
                self.hunt.seek(&mut self.fx, &self.config);
                if self.hunt.only_hung_left(self.fx.now) && self.asks.any_exhausted() {
                    self.fail_exhausted();
                    return self.settle();
                }
            } else {
                self.hunt.cease(&mut self.fx);
            }
        } else {
            self.flush();
        }
        if self.retiring.is_some() && !self.asks.any_registration() {
            self.close_retired();
        }
    }

    /// Whether a registrar is wanted.
    fn has_business(&self) -> bool {
        !self.asks.is_empty() || !self.elements.is_empty() || self.user.has_business()
    }

    /// The end of a shutdown.
    fn end(&mut self) {
        for number in self.asks.select(|_| true) {
            self.forget(number, RequestError::Shutdown);
        }
        self.ending = Ending::Over;
        self.hunt.cease(&mut self.fx);
        self.strangers.dismiss_all(&mut self.fx);
        self.close_retired();
        if let Some(home) = self.home.take() {
            self.fx.close(home.link);
            self.fx.event(Event::Home { registrar: None, link: None });
        }
        self.fx.timers = Default::default();
    }
}
