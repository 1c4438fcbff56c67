//! The event thread of a process that has elements or uses pools: one client machine on the reactor.

use super::advertise::Advertised;
use super::cache::Cache;
use super::complaints::SESSIONS;
use super::counters;
use super::csp::{Component, Reporter};
use super::directory::Replier;
use super::groups::{GroupPurpose, MissingGroups};
use super::names::Names;
use super::reactor::{Admission, Clock, Input, Limits, Reactor, Waker};
use super::shared::{Command, Resolved, Shared, Watched};
use super::{Follower, Keeper, Reachable, Settings, Watcher, targets, why};
use crate::machine::client::{Client, ClientCounts, Config, Event, Registration, RequestError, Resolution};
use crate::machine::{LinkChange, LinkId, LinkProtocol, Output, RequestId, Service, Target, Time};
use crate::transport::host;
use crate::transport::multicast::heard_for;
use crate::wire::show;
use crate::wire::{ASAP_PORT, ASAP_TLS_PORT, PeId, PoolHandle, RegistrarId, Transport};
use crossbeam_channel::Receiver;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Commands taken before links are served again.
const COMMAND_BUDGET: usize = 1024;
/// How often unused pools are looked for.
const TIDYING: Duration = Duration::from_secs(60);
/// Links of a process: its registrars, and those that take its elements over.
const MAX_LINKS: usize = 256;
/// Those of them that have not proved themselves by a certificate; as many wait to do so.
const MAX_UNPROVED: usize = 32;

/// Who waits for the answer to a request.
enum Waiting {
    Registration(Replier<RegistrarId>),
    Deregistration(Replier<()>),
    Resolution { reply: Replier<Resolved>, share: bool },
}

/// The reactor of an event thread. Made by the caller's thread, so that it gets the errors.
/// Takes SCTP out of the settings if the kernel has it but gives no port.
pub(super) fn reactor(
    clock: Clock,
    settings: &mut Settings,
    keeper: Option<&Keeper>,
) -> io::Result<(Reactor, Arc<Waker>)> {
    let limits =
        Limits { links: MAX_LINKS, unproved: MAX_UNPROVED, waiting: MAX_UNPROVED, ..Limits::default() };
    let mut reactor = Reactor::new(clock, limits)?;
    reactor.allow(settings.allow.clone());
    if let Some(keeper) = keeper {
        reactor.secure(keeper.mode(), Some(keeper.credentials().clone()));
    }
    // Registrars that take elements over associate with the port that their association came from.
    if settings.protocols.contains(&LinkProtocol::Sctp)
        && let Err(error) = reactor.associate(Service::Asap, &[])
    {
        log::warn!("registrars can't be reached over SCTP: {error}");
        settings.protocols.retain(|protocol| *protocol != LinkProtocol::Sctp);
    }
    let waker = reactor.waker();
    Ok((reactor, waker))
}

fn config(settings: &Settings, keeper: Option<&Keeper>) -> Config {
    let port = settings.tls.port(ASAP_PORT, ASAP_TLS_PORT);
    let localhost: [SocketAddr; 2] = [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
    Config {
        registrars: settings.registrars.clone(),
        scope: keeper.and_then(Keeper::scope),
        // Who named registrars wants one of them.
        fallback: match settings.names_registrars() {
            true => Vec::new(),
            false => targets(&settings.protocols, &localhost),
        },
        protocols: settings.protocols.clone(),
        announcements: settings.announce.is_some() || !settings.registrar_names.is_empty(),
        announce_timeout: settings.announce_timeout,
        connect_timeout: settings.connect_timeout,
        connect_max_trials: settings.connect_max_trials,
        request_timeout: settings.request_timeout,
        response_timeout: settings.response_timeout,
        request_max_trials: settings.request_max_trials,
        ..Config::default()
    }
}

/// Status reports, if they are wanted.
fn reporter(settings: &Settings, reactor: &Reactor) -> Option<Reporter> {
    let address = settings.csp_server.map(|address| address.to_string());
    let monitor = address.or_else(|| settings.csp_server_name.clone());
    let monitor = monitor.filter(|_| !settings.csp_interval.is_zero())?;
    let made = Reporter::to(&monitor, settings.csp_interval, reactor.now(), reactor.waker());
    made.inspect_err(|error| log::warn!("no status reports to {monitor}: {error}")).ok()
}

/// See the module.
pub(super) struct LibraryThread {
    reactor: Reactor,
    groups: MissingGroups,
    names: Names,
    reporter: Option<Reporter>,
    keeper: Option<Keeper>,
    state: LibraryState,
}

/// Everything but the reactor, so that inputs that borrow from that can be handled.
struct LibraryState {
    client: Client,
    inbox: Receiver<Command>,
    shared: Weak<Shared>,
    /// Static registrars that are given by address.
    given: Vec<Target>,
    protocols: Vec<LinkProtocol>,
    waiting: HashMap<RequestId, Waiting>,
    last_request: u64,
    /// By the numbers of their watches.
    watchers: HashMap<u64, Arc<dyn Watcher>>,
    /// Followed pools.
    followers: BTreeMap<(PoolHandle, u64), Arc<dyn Follower>>,
    listening: bool,
    /// Which registrars are let in.
    admission: Admission,
    /// Where elements are registered instead of where they listen, if nothing else is said of them.
    advertised: Option<Advertised>,
    /// Links to registrars.
    dialled: BTreeMap<LinkId, Target>,
    /// Own elements whose addresses may change.
    followed: BTreeMap<(PoolHandle, PeId), Followed>,
    tidied: Time,
    /// What the process's counters know of the client.
    counted: ClientCounts,
    /// For status reports.
    component: Component,
    /// Since when nothing but the end is waited for.
    ending: Option<Time>,
    /// The end is to come without a word to anybody.
    abandoned: bool,
}

/// An own element whose addresses may change.
struct Followed {
    at: Weak<dyn Reachable>,
    /// Where it is registered instead of there.
    advertised: Option<Advertised>,
}

fn advertised(text: &str, reactor: &Reactor) -> Option<Advertised> {
    let advertised = Advertised::new(text, reactor.waker());
    advertised.inspect_err(|error| log::warn!("not advertised as {text}: {error}")).ok()
}

impl LibraryThread {
    pub fn new(
        reactor: Reactor,
        settings: Settings,
        keeper: Option<Keeper>,
        inbox: Receiver<Command>,
        shared: Weak<Shared>,
    ) -> LibraryThread {
        let (mut reactor, mut groups) = (reactor, MissingGroups::default());
        for group in settings.announce.into_iter().flat_map(heard_for) {
            // Registrars can still be found otherwise.
            groups.want(&mut reactor, Service::Asap, group, GroupPurpose::Hear);
        }
        let client = Client::new(config(&settings, keeper.as_ref()), host::seed(), reactor.now());
        let port = settings.registrar_port();
        let names = Names::new(settings.registrar_names.clone(), port, reactor.waker());
        let advertised = settings.advertise.as_ref().and_then(|text| advertised(text, &reactor));
        let state = LibraryState {
            client,
            inbox,
            shared,
            given: settings.registrars.clone(),
            protocols: settings.protocols.clone(),
            waiting: HashMap::new(),
            last_request: 0,
            watchers: HashMap::new(),
            followers: BTreeMap::new(),
            listening: false,
            admission: keeper.as_ref().map_or(Admission::Plain, |keeper| keeper.mode().into()),
            advertised,
            dialled: BTreeMap::new(),
            followed: BTreeMap::new(),
            tidied: reactor.now(),
            counted: ClientCounts::default(),
            component: Component::new(settings.csp_identifier),
            ending: None,
            abandoned: false,
        };
        LibraryThread { reporter: reporter(&settings, &reactor), reactor, groups, names, keeper, state }
    }

    /// Until a shutdown is complete.
    pub fn run(mut self) {
        let LibraryThread { reactor, groups, names, reporter, keeper, state } = &mut self;
        loop {
            let report = reporter.as_ref().map(Reporter::poll_timeout);
            let files = keeper.as_ref().map(Keeper::poll_timeout);
            let lookup = names.poll_timeout(state.client.is_hunting());
            let place = state.advertisements().filter_map(|advertised| advertised.poll_timeout()).min();
            let own = [state.client.poll_timeout(), state.ending, groups.poll_timeout()];
            let until = own.into_iter().chain([report, files, lookup, place]).flatten().min();
            let turned = reactor.turn(until, &mut |reactor, input| {
                state.input(reactor, input);
            });
            if let Err(error) = turned {
                log::error!("the event thread ends: {error}");
                return self.vanish();
            }
            groups.handle_timeout(reactor);
            if let Some(keeper) = keeper {
                keeper.turn(reactor, false);
            }
            let now = reactor.now();
            if names.take_answers() {
                state.registrars_moved(reactor, names);
            }
            names.handle_timeout(now, state.client.is_hunting());
            if state.look_up_advertised(now) {
                state.drain(reactor);
            }
            if state.client.poll_timeout().is_some_and(|time| time <= now) {
                state.client.handle_timeout(now);
                state.drain(reactor);
            }
            if state.abandoned {
                return;
            }
            state.tidy(now);
            if let Some(reporter) = reporter
                && reporter.poll_timeout() <= now
            {
                state.report(now, reporter);
            }
            if state.ending.is_some_and(|end| state.client.is_shut_down() || now >= end) {
                if let Some(reporter) = reporter {
                    reporter.last(now);
                }
                reactor.flush();
                return;
            }
        }
    }
}

impl LibraryThread {
    /// The end without descriptors (see [`Reactor::turn`]): who waits is told, the rest is forgotten.
    fn vanish(mut self) {
        if let Some(shared) = self.state.shared.upgrade() {
            shared.ended.store(true, Ordering::Relaxed);
            // The last hold on it may not be this one, whose end would close what is left.
            std::mem::forget(shared);
        }
        self.state.waiting.clear();
        let nobody = crossbeam_channel::never();
        drop(std::mem::replace(&mut self.state.inbox, nobody));
        std::mem::forget(self);
    }
}

impl LibraryState {
    fn input(&mut self, reactor: &mut Reactor, input: Input<'_>) {
        let now = reactor.now();
        match input {
            Input::Message { link, bytes } => self.client.handle_message(now, link, bytes),
            Input::Link { link, change } => {
                self.note_change(link, &change);
                self.client.handle_link(now, link, change);
            }
            Input::Announce { from, bytes, .. } => self.client.handle_announce(now, from, bytes),
            Input::Woken => return self.commands(reactor),
            Input::Interfaces(_) => self.interfaces_changed(now),
            Input::Other { .. } | Input::Full => return,
        }
        self.drain(reactor);
    }

    fn drain(&mut self, reactor: &mut Reactor) {
        // Before anybody who waits for an answer hears it.
        counters::add(&mut self.counted, self.client.counts());
        while let Some(output) = self.client.poll_output() {
            self.note_attempt(&output);
            if let Some(event) = reactor.execute(output) {
                self.event(reactor, event);
            }
        }
    }

    /// Who is tried, for those whose request comes to nothing.
    fn note_attempt(&mut self, output: &Output<Event>) {
        match output {
            Output::Open { link, service: Service::Asap, target } => {
                self.note_result(target, "no answer yet");
                self.dialled.insert(*link, target.clone());
            }
            Output::Close { link } => {
                if let Some(target) = self.dialled.remove(link) {
                    self.note_result(&target, "given up");
                }
            }
            _ => {}
        }
    }

    fn note_result(&self, target: &Target, result: &'static str) {
        if let Some(shared) = self.shared.upgrade() {
            shared.tried.set(target, result);
        }
    }

    /// What became of a link to a registrar.
    fn note_change(&mut self, link: LinkId, change: &LinkChange) {
        match change {
            LinkChange::Up(_) => {
                if let Some(target) = self.dialled.get(&link) {
                    self.note_result(target, "connected, no answer yet");
                }
            }
            LinkChange::Down(why) => {
                if let Some(target) = self.dialled.remove(&link) {
                    self.note_result(&target, why::ended(*why));
                }
            }
            LinkChange::Congested | LinkChange::Drained => {}
        }
    }

    fn commands(&mut self, reactor: &mut Reactor) {
        // Before looking, so that what comes while we look wakes us again.
        if let Some(shared) = self.shared.upgrade() {
            shared.woken.store(false, Ordering::Release);
        }
        for _ in 0..COMMAND_BUDGET {
            let Ok(command) = self.inbox.try_recv() else { return };
            self.command(reactor, command);
            self.drain(reactor);
        }
        let _ = reactor.waker().wake();
    }

    fn command(&mut self, reactor: &mut Reactor, command: Command) {
        let now = reactor.now();
        match command {
            Command::Register { mut registration, reply } => {
                // Of an element that is registered where somebody says, that is where it is.
                let key = (registration.handle.clone(), registration.element.id);
                if let Some(followed) = self.followed.get(&key) {
                    let element = &mut registration.element;
                    element.transport = self.instead_of(followed, &element.transport);
                }
                self.listen(reactor);
                self.component.registered(registration.element.id, &registration.element.policy);
                self.register(now, registration, reply);
            }
            Command::Follow { handle, id, at, advertise } => {
                if let Err(error) = reactor.follow_interfaces() {
                    log::warn!("changes of interfaces will go unnoticed: {error}");
                }
                let before =
                    self.followed.remove(&(handle.clone(), id)).and_then(|followed| followed.advertised);
                let advertised = match advertise {
                    // Where it was looked up stays known.
                    Some(text) if before.as_ref().is_none_or(|before| !before.is(&text)) => {
                        advertised(&text, reactor)
                    }
                    _ => before,
                };
                self.followed.insert((handle, id), Followed { at, advertised });
            }
            Command::Deregister { handle, id, reply } => {
                self.followed.remove(&(handle.clone(), id));
                let request = self.request(Waiting::Deregistration(reply));
                self.client.deregister(now, request, &handle, id);
            }
            Command::Resolve { handle, items, share, reply } => {
                let request = self.request(Waiting::Resolution { reply, share });
                self.client.resolve(now, request, &handle, items, share);
            }
            Command::Unreachable { handle, id } => self.client.report_unreachable(now, &handle, id),
            Command::Watch(Watched { handle, id, number }, watcher) => {
                self.watchers.insert(number, watcher);
                self.client.watch(now, &handle, id, number);
            }
            Command::Unwatch(Watched { handle, id, number }) => {
                self.client.unwatch(now, &handle, id, number);
                self.watchers.remove(&number);
            }
            Command::Attend { handle, number, follower } => {
                // Whoever is first gets the whole pool with the subscription; who comes later asks.
                let again = self.client.is_subscribed(&handle);
                self.client.subscribe(now, &handle);
                self.followers.insert((handle.clone(), number), follower);
                if again {
                    self.last_request += 1;
                    self.client.resolve(now, RequestId(self.last_request), &handle, Some(u32::MAX), false);
                }
            }
            Command::Leave { handle, number } => {
                if self.followers.remove(&(handle.clone(), number)).is_some() {
                    self.client.unsubscribe(now, &handle);
                }
            }
            Command::Abandon => self.abandoned = true,
            Command::Shutdown { patience } => {
                self.ending = Some(now + patience + Duration::from_millis(500));
                self.client.shutdown(now, patience);
            }
        }
    }

    fn request(&mut self, waiting: Waiting) -> RequestId {
        self.last_request += 1;
        let request = RequestId(self.last_request);
        self.waiting.insert(request, waiting);
        request
    }

    fn register(&mut self, now: Time, registration: Registration, reply: Replier<RegistrarId>) {
        let (handle, id) = (registration.handle.clone(), registration.element.id);
        let request = self.request(Waiting::Registration(reply));
        self.client.register(now, request, registration);
        // What the caller knew of its addresses may be old by now.
        self.follow(now, &handle, id);
    }

    /// Registrars that are given by name are elsewhere.
    fn registrars_moved(&mut self, reactor: &mut Reactor, names: &Names) {
        let named = names.addresses().flat_map(|addresses| targets(&self.protocols, addresses));
        let all = self.given.iter().cloned().chain(named).collect();
        self.client.set_registrars(reactor.now(), all);
        self.drain(reactor);
    }

    /// Elements that have other addresses now are registered with these.
    fn interfaces_changed(&mut self, now: Time) {
        let followed: Vec<_> = self.followed.keys().cloned().collect();
        for (handle, id) in followed {
            self.follow(now, &handle, id);
        }
    }

    /// All that says where elements are reached.
    fn advertisements(&self) -> impl Iterator<Item = &Advertised> {
        self.followed.values().filter_map(|followed| followed.advertised.as_ref()).chain(&self.advertised)
    }

    /// Looks up the names among them; whether one leads elsewhere now.
    fn look_up_advertised(&mut self, now: Time) -> bool {
        let own = self.followed.values_mut().filter_map(|followed| followed.advertised.as_mut());
        let moved =
            own.chain(&mut self.advertised).filter_map(|at| at.handle_timeout(now).then_some(())).count() > 0;
        if moved {
            self.interfaces_changed(now);
        }
        moved
    }

    /// Where an element is registered.
    fn instead_of(&self, followed: &Followed, own: &Transport) -> Transport {
        let advertised = followed.advertised.as_ref().or(self.advertised.as_ref());
        advertised.map_or_else(|| own.clone(), |advertised| advertised.instead_of(own))
    }

    /// Tells the machine where an element is reached now.
    fn follow(&mut self, now: Time, handle: &PoolHandle, id: PeId) {
        let key = (handle.clone(), id);
        let Some(followed) = self.followed.get(&key) else { return };
        match followed.at.upgrade() {
            Some(at) => {
                if let Some(own) = at.transport() {
                    let transport = self.instead_of(followed, &own);
                    self.client.set_transport(now, handle, id, transport);
                }
            }
            None => {
                self.followed.remove(&key);
            }
        }
    }

    /// Registrars that take over our elements connect to us; without elements nobody has a reason to.
    fn listen(&mut self, reactor: &mut Reactor) {
        if std::mem::replace(&mut self.listening, true) {
            return;
        }
        let any = [SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)), (Ipv4Addr::UNSPECIFIED, 0).into()];
        let listening =
            any.into_iter().find_map(|local| reactor.listen(Service::Asap, local, self.admission).ok());
        match listening {
            Some(local) => {
                let target = Target { protocol: LinkProtocol::Tcp, addresses: vec![local] };
                self.client.set_listen(reactor.now(), vec![target]);
                self.drain(reactor);
            }
            None => log::warn!("can't listen for registrars: takeovers of our elements will take longer"),
        }
    }

    fn event(&mut self, reactor: &mut Reactor, event: Event) {
        let now = reactor.now();
        match event {
            Event::Registered { request, result } => {
                if let Some(Waiting::Registration(reply)) = self.waiting.remove(&request) {
                    let _ = reply.send(result);
                }
            }
            Event::Deregistered { request, result } => {
                if let Some(Waiting::Deregistration(reply)) = self.waiting.remove(&request) {
                    let _ = reply.send(result);
                }
            }
            Event::Resolved { requests, handle, result } => self.resolved(now, &requests, &handle, result),
            Event::Pool { handle, resolution } => {
                self.cache(|cache| drop(cache.update(now, &handle, &resolution)));
                self.followers(&handle).for_each(|follower| follower.pool(now, &resolution));
            }
            Event::ElementGone { handle, id } => {
                self.cache(|cache| cache.remove(&handle, id));
                self.followers(&handle).for_each(|follower| follower.left(id, true));
            }
            Event::ElementRetired { handle, id } => {
                self.cache(|cache| cache.remove(&handle, id));
                self.followers(&handle).for_each(|follower| follower.left(id, false));
            }
            Event::WatchedGone { number } => {
                if let Some(watcher) = self.watchers.get(&number) {
                    watcher.element_gone();
                }
            }
            Event::Unsubscribed { handle } => self.cache(|cache| cache.forget(&handle)),
            Event::Home { registrar, link } => {
                let at = link.and_then(|link| self.client.home_address(link));
                self.home(now, registrar, at);
            }
            Event::Unregistered { handle, id, error } => {
                let why = error.map_or_else(|| "no reason given".to_string(), |error| error.to_string());
                reactor.complain(
                    format!("an element of {handle} was taken out"),
                    None,
                    format_args!(
                        "the registrar took {id} out of \"{handle}\": {why}; it is registered again"
                    ),
                );
            }
            Event::NoRegistrar { at, roles } => reactor.complain(
                "no registrar",
                at.map(|at| at.ip()),
                format_args!(
                    "{} is no registrar: its certificate says {roles}",
                    at.map_or("a peer".into(), |at| at.to_string())
                ),
            ),
            Event::RegistrationWarned { handle, id, error } => reactor.complain(
                format!("a registration in {handle} was warned of"),
                None,
                format_args!("{id} is registered in \"{handle}\", but the registrar says: {error}"),
            ),
            Event::RegistrationFailed { handle, id, error } => reactor.complain(
                format!("a registration in {handle} failed"),
                None,
                format_args!("{id} could not be registered in \"{handle}\": {error:?}; it is tried again"),
            ),
        }
    }

    fn cache(&self, change: impl FnOnce(&Cache)) {
        if let Some(shared) = self.shared.upgrade() {
            change(&shared.cache);
        }
    }

    fn resolved(
        &mut self,
        now: Time,
        requests: &[RequestId],
        handle: &PoolHandle,
        result: Result<Resolution, RequestError>,
    ) {
        let mut replies = Vec::new();
        let mut shared = false;
        for request in requests {
            if let Some(Waiting::Resolution { reply, share }) = self.waiting.remove(request) {
                replies.push(reply);
                shared |= share;
            }
        }
        let Some(threads) = self.shared.upgrade() else { return };
        let answer = result.map(|resolution| {
            let entry = match shared {
                true => threads.cache.update(now, handle, &resolution),
                false => threads.cache.complement(now, handle, &resolution),
            };
            (resolution.elements, entry)
        });
        for reply in replies {
            // Those who share the answer choose from the cache.
            let _ = reply.send(answer.clone().map(|(elements, entry)| Resolved { elements, entry }));
        }
    }

    fn followers(&self, handle: &PoolHandle) -> impl Iterator<Item = &Arc<dyn Follower>> {
        let bound = |number| (handle.clone(), number);
        self.followers.range(bound(0)..=bound(u64::MAX)).map(|(_, follower)| follower)
    }

    fn home(&mut self, now: Time, registrar: Option<RegistrarId>, at: Option<SocketAddr>) {
        self.component.home(registrar, now);
        let Some(shared) = self.shared.upgrade() else { return };
        match (registrar, shared.home.load(Ordering::Relaxed)) {
            (Some(registrar), _) => log::info!("home registrar is {registrar}{}", show::at(at)),
            (None, 0) => log::info!("looking for a registrar"),
            (None, left) => {
                let (left, at) = (RegistrarId(left as u32), show::at(*shared.home_at.lock()));
                log::info!("looking for a registrar instead of {left}{at}");
            }
        }
        let home = registrar.map_or(0, |registrar| 1 << 32 | u64::from(registrar.0));
        shared.home.store(home, Ordering::Relaxed);
        *shared.home_at.lock() = at;
    }

    /// Sends the status report that is due.
    fn report(&self, now: Time, reporter: &mut Reporter) {
        let Some(shared) = self.shared.upgrade() else { return };
        let sessions = shared.sessions.get().map(|sessions| sessions.report()).unwrap_or_default();
        reporter.report_library(now, &self.component, &sessions);
    }

    fn tidy(&mut self, now: Time) {
        SESSIONS.settle();
        if now - self.tidied >= TIDYING {
            self.tidied = now;
            if let Some(shared) = self.shared.upgrade() {
                shared.cache.expire(now);
            }
        }
    }
}
