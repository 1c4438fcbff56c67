//! The proxy's loop: one thread, one poll, all connections.

use super::options::{ListenPlace, ProxyArgs, Wanted};
use super::relay::{Direction, Failure, Room, Turn};
use super::stats::Stats;
use super::stream::{Inherited, Listener, Stream};
use super::{header, pipe, stream};
use crate::out;
use crossbeam_channel::{Receiver, Sender, unbounded};
use log::{debug, info, warn};
use mio::{Events, Interest, Poll, Token, Waker};
use rserpool::machine::Time;
use rserpool::machine::client::Resolution;
use rserpool::runtime::{Directory, Follower, Pool, Runtime};
use rserpool::wire::show;
use rserpool::wire::{PeId, PoolHandle};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const WAKER: Token = Token(usize::MAX);
const SIGNALS: Token = Token(usize::MAX - 1);
/// Listeners' tokens begin here; below are two for each connection.
const LISTENERS: usize = usize::MAX / 2;
/// Connections accepted before others get a turn.
const ACCEPTS: usize = 64;
/// What one read may take.
const SCRATCH: usize = 128 << 10;
/// Descriptors for everything but connections.
const OTHER_DESCRIPTORS: u64 = 64 + 2 * pipe::MOST as u64;

/// What the event thread of the library tells.
enum News {
    Changed(usize),
    Lost(usize, PeId),
}

/// Passes on what happens to the pool of that number.
struct Teller {
    backend: usize,
    news: Sender<News>,
    waker: Arc<Waker>,
}

impl Teller {
    fn tell(&self, news: News) {
        let _ = self.news.send(news);
        let _ = self.waker.wake();
    }
}

impl Follower for Teller {
    fn pool(&self, _: Time, _: &Resolution) {
        self.tell(News::Changed(self.backend));
    }

    fn left(&self, id: PeId, lost: bool) {
        if lost {
            self.tell(News::Lost(self.backend, id));
        }
    }
}

/// A listening socket and the pool behind it.
struct Service {
    place: ListenPlace,
    listener: Listener,
    backend: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nobody is in the pool.
    Waiting {
        until: Instant,
    },
    Connecting {
        until: Instant,
    },
    Relaying,
}

/// A client's connection and the one to an element.
struct Relay {
    client: Stream,
    server: Option<Stream>,
    backend: usize,
    phase: Phase,
    element: PeId,
    /// Its address that was tried last.
    at: Option<SocketAddr>,
    /// Further addresses of that element.
    others: Vec<SocketAddr>,
    tried: Vec<PeId>,
    up: Direction,
    down: Direction,
    /// Told to the poll that we want to write to the client.
    client_writes: bool,
    queued: bool,
    /// Looked at when a half-closed connection has been silent for too long.
    ages: bool,
    moved: Instant,
    /// Distinguishes the connections that had this place.
    number: u64,
}

/// An element and its address, for the log.
fn who(element: PeId, at: Option<SocketAddr>) -> String {
    format!("{element}{}", show::at(at))
}

/// When to look at a connection: place and number. All in a queue wait equally long, so it is in order.
type Queue = VecDeque<(Instant, usize, u64)>;

/// The first of a queue if its time has come.
fn due(queue: &mut Queue, now: Instant) -> Option<(usize, u64)> {
    let &(time, index, number) = queue.front()?;
    if time > now {
        return None;
    }
    queue.pop_front();
    Some((index, number))
}

/// See the module.
pub struct Engine<'a> {
    args: &'a ProxyArgs,
    runtime: Runtime,
    stats: Arc<Stats>,
    poll: Poll,
    waker: Arc<Waker>,
    signals: Signals,
    news: (Sender<News>, Receiver<News>),
    backends: Vec<Arc<Pool>>,
    services: Vec<Option<Service>>,
    inherited: Inherited,
    relays: Vec<Option<Box<Relay>>>,
    free: Vec<usize>,
    /// Places that become free when the events at hand are over.
    freed: Vec<usize>,
    open: usize,
    limit: usize,
    numbers: u64,
    /// Those who have more to do.
    queue: VecDeque<usize>,
    connects: Queue,
    waits: Queue,
    half_closed: Queue,
    /// Listeners from which nothing is accepted at present.
    paused: bool,
    accept_again: Option<Instant>,
    ending: Option<Instant>,
    room: Room,
    now: Instant,
}

impl<'a> Engine<'a> {
    pub fn new(
        args: &'a ProxyArgs,
        runtime: Runtime,
        stats: Arc<Stats>,
        inherited: Inherited,
    ) -> io::Result<Engine<'a>> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
        let room = rserpool::transport::host::descriptor_limit().saturating_sub(OTHER_DESCRIPTORS) / 2;
        let room = usize::try_from(room).unwrap_or(usize::MAX).max(1);
        Ok(Engine {
            limit: args.max_connections.map_or(room, |limit| room.min(limit as usize)),
            args,
            runtime,
            stats,
            poll,
            waker,
            signals,
            news: unbounded(),
            backends: Vec::new(),
            services: Vec::new(),
            inherited,
            relays: Vec::new(),
            free: Vec::new(),
            freed: Vec::new(),
            open: 0,
            numbers: 0,
            queue: VecDeque::new(),
            connects: VecDeque::new(),
            waits: VecDeque::new(),
            half_closed: VecDeque::new(),
            paused: false,
            accept_again: None,
            ending: None,
            room: Room::new(SCRATCH),
            now: Instant::now(),
        })
    }

    /// Makes the services those that are wanted. On an error everything stays as it was.
    pub fn serve(&mut self, wanted: Vec<Wanted>) -> Result<(), String> {
        let mut new = Vec::new();
        for Wanted { place, pool } in &wanted {
            let known = |service: &&Service| service.place == *place;
            if self.services.iter().flatten().find(known).is_none() {
                for listener in
                    Listener::bind(place, &mut self.inherited).map_err(|error| format!("{place}: {error}"))?
                {
                    new.push((place.clone(), pool.clone(), listener));
                }
            }
        }
        for slot in &mut self.services {
            let Some(service) = slot else { continue };
            match wanted.iter().find(|one| one.place == service.place) {
                Some(one) => {
                    service.backend =
                        backend(&mut self.backends, &one.pool, &self.runtime, &self.news.0, &self.waker)
                }
                None => {
                    info!("{} is not served any more", service.place);
                    *slot = None;
                }
            }
        }
        for (place, pool, mut listener) in new {
            let backend = backend(&mut self.backends, &pool, &self.runtime, &self.news.0, &self.waker);
            let token = Token(LISTENERS + self.services.len());
            self.poll
                .registry()
                .register(&mut listener, token, Interest::READABLE)
                .map_err(|error| format!("{place}: {error}"))?;
            out::line(format_args!("proxy {} for \"{pool}\"", listener.address()));
            self.services.push(Some(Service { place, listener, backend }));
        }
        for place in self.inherited.left() {
            warn!("{place} was handed over, and no LISTEN means it");
        }
        self.stats.pools(self.backends.clone());
        Ok(())
    }

    /// Until a signal says that it is enough, and the connections have ended.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            let timeout = match self.queue.is_empty() {
                true => self.next_timeout(),
                false => Some(Duration::ZERO),
            };
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            self.now = Instant::now();
            for event in &events {
                match event.token() {
                    WAKER => {}
                    SIGNALS => {
                        if self.signalled() {
                            return Ok(());
                        }
                    }
                    Token(number) if number >= LISTENERS => self.accept(number - LISTENERS),
                    Token(number) => self.event(number, event),
                }
            }
            for _ in 0..self.queue.len() {
                let Some(index) = self.queue.pop_front() else { break };
                if let Some(relay) = self.relays[index].as_mut() {
                    relay.queued = false;
                    self.pump(index);
                }
            }
            self.hear();
            self.timers();
            self.free.append(&mut self.freed);
            if self.paused && self.open < self.limit && self.accept_again.is_none_or(|time| time <= self.now)
            {
                self.paused = false;
                self.accept_again = None;
                (0..self.services.len()).for_each(|service| self.accept(service));
            }
            if self.ending.is_some_and(|end| self.open == 0 || end <= self.now) {
                if self.open > 0 {
                    warn!("{} connections did not end in time", self.open);
                }
                return Ok(());
            }
        }
    }

    fn next_timeout(&self) -> Option<Duration> {
        let first = |queue: &Queue| queue.front().map(|(time, ..)| *time);
        let queues = [first(&self.connects), first(&self.waits), first(&self.half_closed)];
        let times = queues.into_iter().chain([self.ending, self.accept_again]);
        let next = times.flatten().min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// `true`: end at once.
    fn signalled(&mut self) -> bool {
        for signal in self.signals.pending().collect::<Vec<_>>() {
            match signal {
                SIGHUP => match self.args.read().and_then(|wanted| self.serve(wanted)) {
                    Ok(()) => info!("configuration read again"),
                    Err(error) => out::complain(format_args!("rspctl: proxy: {error}; nothing changed")),
                },
                _ if self.ending.is_some() => return true,
                _ => {
                    self.services.clear();
                    self.ending = Some(self.now + Duration::from_secs(self.args.drain));
                    info!("ending; {} connections are still served", self.open);
                }
            }
        }
        false
    }

    fn accept(&mut self, service: usize) {
        for _ in 0..ACCEPTS {
            if self.open >= self.limit {
                self.paused = true;
                return;
            }
            let Some(Some(service)) = self.services.get(service) else { return };
            match service.listener.accept() {
                Ok(client) => {
                    let backend = service.backend;
                    self.admit(client, backend);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
                    ) =>
                {
                    warn!("{}: {error}", service.place);
                    self.paused = true;
                    self.accept_again = Some(self.now + Duration::from_millis(100));
                    return;
                }
                // That connection is gone already; the next one may not be.
                Err(error) => debug!("accept: {error}"),
            }
        }
        // The edge is spent: others first, then this one again.
        self.paused = true;
        self.accept_again = Some(self.now);
    }

    fn admit(&mut self, client: Stream, backend: usize) {
        self.numbers += 1;
        let until = self.now + Duration::from_millis(self.args.patience);
        let relay = Box::new(Relay {
            client,
            server: None,
            backend,
            phase: Phase::Waiting { until },
            element: PeId(0),
            at: None,
            others: Vec::new(),
            tried: Vec::new(),
            up: Direction::default(),
            down: Direction::default(),
            client_writes: false,
            queued: false,
            ages: false,
            moved: self.now,
            number: self.numbers,
        });
        let index = self.free.pop().unwrap_or_else(|| {
            self.relays.push(None);
            self.relays.len() - 1
        });
        self.open += 1;
        self.stats.accepted();
        let relay = self.relays[index].insert(relay);
        let registered =
            self.poll.registry().register(&mut relay.client, Token(2 * index), Interest::READABLE);
        match registered {
            Ok(()) => self.find_element(index),
            Err(error) => {
                warn!("{error}");
                self.close(index, true);
            }
        }
        if self.relays[index].as_ref().is_some_and(|relay| matches!(relay.phase, Phase::Waiting { .. })) {
            self.waits.push_back((until, index, self.numbers));
        }
    }

    /// Connects to the next address of the element at hand, or to the next element.
    fn find_element(&mut self, index: usize) {
        loop {
            let Some(relay) = self.relays[index].as_mut() else { return };
            let pool = &self.backends[relay.backend];
            relay.server = None;
            if relay.others.is_empty() {
                let tries = relay.tried.len();
                let next = match tries < usize::from(self.args.tries) {
                    true => pool.choose(&relay.tried, |_| true),
                    false => None,
                };
                let Some(element) = next else {
                    match relay.phase {
                        // Somebody may come.
                        Phase::Waiting { until } if until > self.now => {}
                        _ => {
                            self.stats.refused();
                            self.close(index, true);
                        }
                    }
                    return;
                };
                relay.element = element.id;
                relay.others = element.transport.socket_addresses().collect();
                relay.others.reverse();
            }
            let Some(address) = relay.others.pop() else { return };
            relay.at = Some(address);
            match stream::connect(address) {
                Ok(server) => {
                    let until = self.now + self.args.connect_timeout();
                    relay.phase = Phase::Connecting { until };
                    let server = relay.server.insert(server);
                    let both = Interest::READABLE | Interest::WRITABLE;
                    if let Err(error) = self.poll.registry().register(server, Token(2 * index + 1), both) {
                        warn!("{error}");
                        return self.close(index, true);
                    }
                    return self.connects.push_back((until, index, relay.number));
                }
                Err(error) => self.not_reached(index, &error),
            }
        }
    }

    /// The connect at hand failed: the element is reported, unless it has another address.
    fn not_reached(&mut self, index: usize, error: &io::Error) {
        let Some(relay) = self.relays[index].as_mut() else { return };
        let pool = &self.backends[relay.backend];
        debug!("element {} of \"{}\": {error}", who(relay.element, relay.at), pool.handle());
        // What is our own fault says nothing about the element.
        let ours = matches!(
            error.raw_os_error(),
            Some(libc::EMFILE | libc::ENFILE | libc::EADDRNOTAVAIL | libc::ENOBUFS)
        );
        if relay.others.is_empty() {
            self.stats.failed_connect();
            if !ours && pool.failed(relay.element) {
                info!(
                    "element {} of \"{}\" can't be reached: {error}",
                    who(relay.element, relay.at),
                    pool.handle()
                );
                self.runtime.report_unreachable(pool.handle(), relay.element);
            }
            relay.tried.push(relay.element);
            // From the next one on, nobody is waited for.
            relay.phase = Phase::Connecting { until: self.now };
        }
    }

    fn event(&mut self, number: usize, event: &mio::event::Event) {
        let index = number / 2;
        let Some(relay) = self.relays.get_mut(index).and_then(Option::as_mut) else { return };
        let end = event.is_read_closed() || event.is_error();
        if number.is_multiple_of(2) {
            if event.is_readable() || end {
                relay.up.readable(end);
            }
            if event.is_writable() {
                relay.down.writable();
            }
            // Who has hung up altogether need not be connected.
            if event.is_error() && !matches!(relay.phase, Phase::Relaying) {
                return self.close(index, true);
            }
        } else {
            if let Phase::Connecting { .. } = relay.phase {
                return self.connecting(index, event);
            }
            if event.is_readable() || end {
                relay.down.readable(end);
            }
            if event.is_writable() {
                relay.up.writable();
            }
        }
        if let Some(Relay { phase: Phase::Relaying, .. }) = self.relays[index].as_deref() {
            self.pump(index);
        }
    }

    fn connecting(&mut self, index: usize, event: &mio::event::Event) {
        let Some(relay) = self.relays[index].as_mut() else { return };
        let Some(server) = &relay.server else { return };
        if event.is_error() || event.is_write_closed() {
            let error =
                server.take_error().ok().flatten().unwrap_or_else(|| ErrorKind::ConnectionRefused.into());
            self.not_reached(index, &error);
            return self.find_element(index);
        }
        if !event.is_writable() {
            return;
        }
        self.backends[relay.backend].worked(relay.element);
        relay.phase = Phase::Relaying;
        relay.others = Vec::new();
        relay.tried = Vec::new();
        relay.moved = self.now;
        if self.args.proxy_protocol {
            let was =
                std::mem::replace(&mut relay.up, Direction::beginning_with(header::version2(&relay.client)));
            relay.up.readable(false);
            if was.is_over() {
                return self.close(index, true);
            }
        }
        if event.is_readable() {
            relay.down.readable(event.is_read_closed());
        }
        self.pump(index);
    }

    /// Moves what can be moved, both ways.
    fn pump(&mut self, index: usize) {
        let Some(relay) = self.relays[index].as_deref_mut() else { return };
        let Relay { client, server: Some(server), up, down, element, at, .. } = relay else { return };
        let before = (up.passed + down.passed, up.piped + down.piped);
        let ways = [up.pump(client, server, &mut self.room), down.pump(server, client, &mut self.room)];
        let moved = up.passed + down.passed - before.0;
        self.stats.moved(moved, up.piped + down.piped - before.1);
        let over = up.is_over() && down.is_over();
        let half = up.is_over() || down.is_over();
        if moved > 0 || half {
            relay.moved = self.now;
        }
        match ways {
            [Ok(_), Ok(_)] if over => return self.close(index, false),
            [Ok(first), Ok(second)] => {
                if (first == Turn::More || second == Turn::More) && !relay.queued {
                    relay.queued = true;
                    self.queue.push_back(index);
                }
            }
            [first, second] => {
                let server_failed =
                    matches!(first, Err(Failure::Sink(_))) || matches!(second, Err(Failure::Source(_)));
                let who = who(*element, *at);
                for failure in [&first, &second].into_iter().filter_map(|way| way.as_ref().err()) {
                    debug!("a connection with {who} breaks: {failure}");
                }
                self.stats.broken(server_failed);
                // What the server said before it went away is the client's.
                if server_failed && second.is_ok() {
                    relay.down.readable(true);
                    while let Ok(Turn::More) = relay.down.pump(server, client, &mut self.room) {}
                }
                return self.close(index, true);
            }
        }
        if relay.down.is_blocked() && !relay.client_writes {
            relay.client_writes = true;
            let both = Interest::READABLE | Interest::WRITABLE;
            if let Err(error) = self.poll.registry().reregister(&mut relay.client, Token(2 * index), both) {
                warn!("{error}");
                return self.close(index, true);
            }
        }
        if half && !relay.ages {
            relay.ages = true;
            self.half_closed.push_back((self.now + self.args.half_closed(), index, relay.number));
        }
    }

    /// Ends a connection; `reset`: so that the client knows that it is not complete.
    fn close(&mut self, index: usize, reset: bool) {
        let Some(relay) = self.relays[index].take() else { return };
        if reset {
            relay.client.reset_on_close();
            relay.server.iter().for_each(Stream::reset_on_close);
        }
        self.open -= 1;
        self.stats.closed();
        self.freed.push(index);
    }

    /// What the registrar said.
    fn hear(&mut self) {
        while let Ok(news) = self.news.1.try_recv() {
            match news {
                News::Changed(backend) => {
                    for index in 0..self.relays.len() {
                        let waits = self.relays[index].as_ref().is_some_and(|relay| {
                            relay.backend == backend && matches!(relay.phase, Phase::Waiting { .. })
                        });
                        if waits && !self.backends[backend].is_empty() {
                            self.find_element(index);
                        }
                    }
                }
                News::Lost(backend, id) => self.lost(backend, id),
            }
        }
    }

    /// An element is gone: so are its connections.
    fn lost(&mut self, backend: usize, id: PeId) {
        let mut count = 0;
        let mut at = None;
        for index in 0..self.relays.len() {
            let Some(relay) = self.relays[index].as_ref() else { continue };
            if relay.backend != backend || relay.element != id {
                continue;
            }
            at = at.or(relay.at);
            match relay.phase {
                Phase::Relaying => {
                    count += 1;
                    self.stats.shut();
                    self.close(index, true);
                }
                Phase::Connecting { .. } => {
                    self.not_reached(index, &ErrorKind::TimedOut.into());
                    self.find_element(index);
                }
                Phase::Waiting { .. } => {}
            }
        }
        let handle = self.backends[backend].handle();
        info!("element {} of \"{handle}\" is lost; {count} connections shut", who(id, at));
    }

    fn timers(&mut self) {
        while let Some((index, number)) = due(&mut self.connects, self.now) {
            if let Some(Phase::Connecting { until }) = self.phase(index, number)
                && until <= self.now
            {
                self.not_reached(index, &ErrorKind::TimedOut.into());
                self.find_element(index);
            }
        }
        while let Some((index, number)) = due(&mut self.waits, self.now) {
            if let Some(Phase::Waiting { .. }) = self.phase(index, number) {
                self.stats.refused();
                self.close(index, true);
            }
        }
        while let Some((index, number)) = due(&mut self.half_closed, self.now) {
            if self.phase(index, number).is_none() {
                continue;
            }
            let Some(relay) = &self.relays[index] else { continue };
            let end = relay.moved + self.args.half_closed();
            match end <= self.now {
                true => self.close(index, true),
                false => self.half_closed.push_back((end, index, number)),
            }
        }
    }

    /// The phase of a connection that is still the one of that number.
    fn phase(&self, index: usize, number: u64) -> Option<Phase> {
        let relay = self.relays.get(index)?.as_ref()?;
        (relay.number == number).then_some(relay.phase)
    }
}

/// The number of a pool, which is followed from the first time on.
fn backend(
    backends: &mut Vec<Arc<Pool>>,
    handle: &PoolHandle,
    runtime: &Runtime,
    news: &Sender<News>,
    waker: &Arc<Waker>,
) -> usize {
    if let Some(known) = backends.iter().position(|pool| pool.handle() == handle) {
        return known;
    }
    let backend = backends.len();
    let teller = Teller { backend, news: news.clone(), waker: waker.clone() };
    backends.push(runtime.follow_pool(handle, Some(Arc::new(teller))));
    backend
}
