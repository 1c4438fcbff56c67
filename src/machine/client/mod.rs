//! The ASAP side of a process: `hunt` (find a registrar), `home` (the one that was found), `asks`
//! (what it was asked and has not answered), `element` (our pool elements), `user` (resolutions,
//! subscriptions), `reports` (of elements that do not answer), put together as one machine.
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

use super::trust::Roles;
use super::{
    LinkChange, LinkDown, LinkEnds, LinkId, LinkProtocol, Output, RequestId, Target, Time, hello, reach,
};
use crate::wire::{
    Asap, CauseCode, OperationError, PeId, Policy, PoolElement, PoolHandle, RegistrarId, Transport,
};
use asks::{Asks, What};
use effects::{Effects, Timer};
use element::Elements;
use home::Home;
use hunt::Hunt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
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

/// Timers, bounds and static registrars. Defaults are in [`Config::default`].
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Config {
    /// Static registrars (`-registrar=`), tried first.
    pub registrars: Vec<Target>,
    /// Tried last: localhost.
    pub fallback: Vec<Target>,
    /// Which protocols this process can dial, best first.
    pub protocols: Vec<LinkProtocol>,
    /// How long an announced registrar stays a candidate (rsplib: 5 s).
    pub announce_timeout: Duration,
    /// How long one dial may take before the next candidates are tried as well.
    pub connect_timeout: Duration,
    /// Registrar hunts per request (rsplib: 1).
    pub connect_max_trials: u32,
    /// How long a send to the registrar may block in rsplib; here: how long a request that has a registrar may wait
    /// for its turn beyond the time for finding one.
    pub request_timeout: Duration,
    /// How long to wait for each response (T1-ENRPrequest).
    pub response_timeout: Duration,
    /// Transmissions per request (rsplib: 1).
    pub request_max_trials: u32,
    /// The scope that a registrar's certificate must name; `None`: any of our authority.
    pub scope: Option<String>,
    /// Whether registrars may announce themselves: who knows no other waits for a first announcement.
    pub announcements: bool,
    /// Where we listen for registrars that take over our elements (the ASAP transport), per protocol.
    pub listen: Vec<Target>,
}

impl Default for Config {
    fn default() -> Config {
        let port = crate::wire::ASAP_PORT;
        let localhost = vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
        Config {
            registrars: Vec::new(),
            fallback: vec![Target { protocol: LinkProtocol::Tcp, addresses: localhost }],
            protocols: vec![LinkProtocol::Tcp],
            announce_timeout: Duration::from_millis(5000),
            connect_timeout: Duration::from_millis(7500),
            connect_max_trials: 1,
            request_timeout: Duration::from_millis(3000),
            response_timeout: Duration::from_millis(3000),
            request_max_trials: 1,
            scope: None,
            announcements: false,
            listen: Vec::new(),
        }
    }
}

impl Config {
    /// How long a request waits without any registrar link before it fails.
    fn patience(&self) -> Duration {
        self.connect_timeout.saturating_mul(self.connect_max_trials.clamp(1, 1000))
    }
}

/// An element to be registered and kept registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Under which pool.
    pub handle: PoolHandle,
    /// `home` and `asap` are filled in by the machine.
    pub element: PoolElement,
    /// Re-registration interval (T4-reregistration).
    pub interval: Duration,
}

/// What a registrar says about a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// The pool's policy: the overall one of the answer; round robin if a positive answer names none (RFC 5352
    /// section 2.2.6).
    pub policy: Option<Policy>,
    /// In the registrar's order.
    pub elements: Vec<PoolElement>,
    /// Whether `elements` is the whole pool.
    pub complete: bool,
    /// Whether it came or stays fresh by subscription.
    pub subscribed: bool,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestError {
    /// No registrar could be reached (RSPERR 0x1007).
    NoRegistrar,
    /// A registrar was there and did not answer in time (RSPERR 0x1008).
    TimedOut,
    /// The registrar says no, and why.
    Rejected(OperationError),
    /// Not one of our elements.
    NotFound,
    /// A bound on pending requests was reached.
    Busy,
    /// The machine was shut down.
    Shutdown,
}

impl RequestError {
    /// Whether the registrar's answer is that there is no such pool, so nobody is in it.
    pub fn is_unknown_pool(&self) -> bool {
        matches!(self, RequestError::Rejected(error) if error.code() == CauseCode::UNKNOWN_POOL)
    }
}

impl std::fmt::Display for RequestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RequestError::NoRegistrar => f.write_str("no registrar can be reached"),
            RequestError::TimedOut => f.write_str("the registrar did not answer in time"),
            RequestError::Rejected(error) => write!(f, "the registrar says: {error}"),
            RequestError::NotFound => f.write_str("not an element of this process"),
            RequestError::Busy => f.write_str("too many requests are waiting"),
            RequestError::Shutdown => f.write_str("the library is being shut down"),
        }
    }
}

impl std::error::Error for RequestError {}

/// What the driver passes on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Event {
    /// Answer to `register`. After a rejection or failure the element stays ours and is retried.
    Registered { request: RequestId, result: Result<RegistrarId, RequestError> },
    /// Answer to `deregister`.
    Deregistered { request: RequestId, result: Result<(), RequestError> },
    /// Answer to `resolve`; to several of them where they may share it.
    Resolved { requests: Vec<RequestId>, handle: PoolHandle, result: Result<Resolution, RequestError> },
    /// A subscribed pool as it is now (also the first answer of a subscription).
    Pool { handle: PoolHandle, resolution: Resolution },
    /// A subscribed pool's registrar says that this element left: sessions with it must move.
    ElementGone { handle: PoolHandle, id: PeId },
    /// An element of a subscribed pool deregistered. It ends the sessions that it has itself.
    ElementRetired { handle: PoolHandle, id: PeId },
    /// A watched element (`watch` with this number) is gone, or was so before the watch began.
    WatchedGone { number: u64 },
    /// The last user of a pool that was told of by [`Event::Pool`] left: nothing more will be said of it.
    Unsubscribed { handle: PoolHandle },
    /// The home registrar changed; `None`: hunting.
    Home { registrar: Option<RegistrarId>, link: Option<LinkId> },
    /// Whoever is at the other end of a link has proved to be something else than a registrar.
    NoRegistrar { at: Option<SocketAddr>, roles: Arc<Roles> },
    /// The registrar says that an element of ours is not in its pool any more, and perhaps why. It is
    /// registered again soon.
    Unregistered { handle: PoolHandle, id: PeId, error: Option<OperationError> },
    /// A background (re-)registration was refused or got no answer.
    RegistrationFailed { handle: PoolHandle, id: PeId, error: RequestError },
    /// A registration was granted, and the registrar says that it changed something of it (RFC 5352 section 2.2.3).
    RegistrationWarned { handle: PoolHandle, id: PeId, error: OperationError },
}

/// What the machine has done since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ClientCounts {
    /// Questions about pools that were answered, and those that were not.
    pub resolutions: u64,
    pub resolutions_failed: u64,
    /// Registrations that were granted for the first time, those of elements that had been registered, and those
    /// that were refused or not answered.
    pub registrations: u64,
    pub reregistrations: u64,
    pub registrations_failed: u64,
    pub deregistrations: u64,
    /// Answers to keep-alives.
    pub keep_alives: u64,
    pub homes_found: u64,
    pub homes_lost: u64,
}

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
                departed,
                retired,
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
                    departed,
                    retired,
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
