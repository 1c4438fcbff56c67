//! The event loop's engine: links, listeners, groups, timers, waker. It turns readiness into machine
//! inputs and carries out machine outputs; what to feed and where events go is the two plain loops' part
//! ([`super::library`], [`super::registrar`]).
//!
//! Nobody starves: each link may hand in [`READ_BUDGET`] messages per turn, each listener
//! [`ACCEPT_BUDGET`] links, each group [`DATAGRAM_BUDGET`] datagrams. What is left waits for its turn, and
//! so does whoever asks for very long answers ([`HEAVY`]): the loop spends [`SLICE`] on those, then looks
//! for others again. A link whose peer does not read is not read from either.
//!
//! | file | what |
//! |---|---|
//! | `links` | the table of links |
//! | `dials` | dialling |
//! | `traffic` | taking links in, reading, sending, closing |
//! | `security` | links that have to prove themselves |
//! | `room` | who makes room where places are short |
//! | `hoards` | what the kernel keeps for associations |
//! | `groups` | multicast |
//! | `waker` | how another thread wakes the loop |

mod dials;
mod groups;
mod hoards;
mod links;
mod room;
mod security;
#[cfg(test)]
mod security_tests;
#[cfg(test)]
mod tests;
mod traffic;
mod waker;

use super::complaints::{Complaints, LeftOut};
use crate::machine::{LinkChange, LinkDown, LinkId, Output, Service, Time};
use crate::transport::descriptors::above_standard;
use crate::transport::interfaces::Interface;
use crate::transport::sctp::{EndpointEvent, SctpEndpoint};
use crate::transport::sctp_socket;
use crate::transport::tcp::{QUEUE_BOUND, TcpListener};
use crate::transport::{Link, ReadStatus};
use crate::wire::scope::host_of;
use crate::wire::{PPID_ASAP, PPID_ENRP};
use groups::Groups;
use links::Links;
use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use nix::time::ClockId;
use room::Crowd;
use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use links::Admission;
pub(crate) use security::Security;

/// Messages taken from one link before others are served.
const READ_BUDGET: usize = 64;
/// The same for a link that is new, or whose messages turned out to be much work.
const FIRST_BUDGET: usize = 2;
/// A link whose messages led to more than so many bytes to be sent at a time is much work.
const HEAVY: usize = 64 << 10;
/// How long links are served that wait for their turn, before those that are ready are looked for.
const SLICE: Duration = Duration::from_millis(5);
/// Links taken from one listener before others are served.
const ACCEPT_BUDGET: usize = 64;
/// Datagrams taken from one group before others are served.
const DATAGRAM_BUDGET: usize = 32;
/// How long a listener rests when descriptors or memory are short.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// The longest sleep, so that a suspended machine finds its way back.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

pub use waker::Waker;

const WAKER: Token = Token(usize::MAX);
const INTERFACES: Token = Token(usize::MAX - 1);
/// Links at a time that tokens have room for.
pub(crate) const MAX_SLOTS: usize = LISTENERS;
const LISTENERS: usize = 1 << 28;
const GROUPS: usize = 1 << 29;
/// Tokens from here on are the loop's own ([`Input::Other`]).
pub(crate) const OTHERS: usize = 1 << 30;

/// Machine time: microseconds since a process-wide origin.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    /// Of the system's monotonic clock.
    origin: Duration,
}

impl Clock {
    pub fn start() -> Clock {
        Clock { origin: read(ClockId::CLOCK_MONOTONIC) }
    }

    pub fn now(self) -> Time {
        self.time(read(ClockId::CLOCK_MONOTONIC))
    }

    /// Up to 4 ms behind, and several times cheaper.
    pub fn about_now(self) -> Time {
        self.time(read(ClockId::CLOCK_MONOTONIC_COARSE))
    }

    /// Never 0, which thus can stand for "never".
    fn time(self, clock: Duration) -> Time {
        let since = clock.saturating_sub(self.origin);
        Time(since.as_secs() * 1_000_000 + u64::from(since.subsec_micros()) + 1)
    }
}

fn read(clock: ClockId) -> Duration {
    // Fails only for clocks that don't exist.
    clock.now().map(Duration::from).unwrap_or_default()
}

/// Bounds and patience.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Links at a time; more are closed as they come.
    pub links: usize,
    /// Bytes waiting for one peer.
    pub queue: usize,
    /// Bytes waiting for or from all peers together: beyond it, who has most to do with it is dropped.
    pub buffered: usize,
    /// Bytes that the kernel keeps for all associations together, likewise.
    pub kernel: usize,
    /// One attempt to connect to one address.
    pub dial: Duration,
    /// From the first byte of a message to its last.
    pub partial: Duration,
    /// What was queued before a close.
    pub close: Duration,
    /// From the connection to the peer's proof of who it is.
    pub proof: Duration,
    /// Accepted connections at a time of which that proof is asked, and those that wait for their turn.
    pub unproved: usize,
    pub waiting: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            links: 1 << 20,
            queue: QUEUE_BOUND,
            buffered: 128 << 20,
            kernel: sctp_socket::memory_share(),
            dial: Duration::from_secs(5),
            partial: Duration::from_secs(10),
            close: Duration::from_secs(5),
            proof: Duration::from_secs(5),
            unproved: 1024,
            waiting: 4096,
        }
    }
}

/// What happened; to be fed to the machine.
#[derive(Debug)]
pub(crate) enum Input<'a> {
    Message {
        link: LinkId,
        bytes: &'a [u8],
    },
    Link {
        link: LinkId,
        change: LinkChange,
    },
    Announce {
        service: Service,
        from: SocketAddr,
        bytes: &'a [u8],
    },
    /// The interfaces or their addresses changed.
    Interfaces(&'a [Interface]),
    /// The waker was used.
    Woken,
    /// All places are taken, and nobody is silent: who makes room? ([`Reactor::name_leavers`])
    Full,
    /// A source that the loop registered itself.
    Other {
        token: Token,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ReactorTimer {
    /// A dial's current address (that with `left` more behind it) has had its time.
    Dial { slot: usize, link: LinkId, left: usize },
    /// A link may have an old half message.
    Partial { slot: usize, link: LinkId },
    /// An accepted link has had its time to prove itself, or a refused one to hear why.
    Proof { slot: usize, link: LinkId },
    /// A closing link has had its time.
    Close { slot: usize, link: LinkId },
    /// The associations' turn to be looked at.
    Hoards,
    /// Associations that the kernel had no room for.
    Again,
    /// Links that wait to prove themselves.
    Waiting,
    /// A listener has rested.
    Accept { listener: usize },
    /// Changes of interfaces have settled.
    Interfaces,
}

#[derive(Debug)]
struct Listening {
    socket: LinkListener,
    service: Service,
    admission: Admission,
}

#[derive(Debug)]
enum LinkListener {
    Tcp(TcpListener),
    /// Dials as well.
    Sctp(SctpEndpoint),
}

/// What is counted for the status page.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ReactorCounters {
    pub messages: u64,
    pub accepted: u64,
    pub refused: u64,
    pub garbage: u64,
    pub half_messages: u64,
    pub overflows: u64,
    pub handshakes: u64,
    pub handshakes_failed: u64,
    /// Accepted without TLS where it is asked for.
    pub plain: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Reactor {
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
    clock: Clock,
    now: Time,
    limits: Limits,
    links: Links,
    listeners: Vec<Listening>,
    /// Listeners that may have more to accept than one turn's budget.
    accepting: Vec<usize>,
    groups: Groups,
    timers: BinaryHeap<Reverse<(Time, ReactorTimer)>>,
    /// To be told to the machine; never from within its own drain.
    changes: VecDeque<(LinkId, LinkChange)>,
    counters: ReactorCounters,
    complaints: Complaints,
    security: Security,
    room: Crowd,
}

impl Reactor {
    pub fn new(clock: Clock, limits: Limits) -> io::Result<Reactor> {
        let poll = above_standard(Poll::new, Poll::as_raw_fd)?;
        let waker = Arc::new(Waker::new(&poll, WAKER)?);
        Ok(Reactor {
            poll,
            events: Events::with_capacity(512),
            waker,
            clock,
            now: clock.now(),
            limits,
            links: Links::default(),
            listeners: Vec::new(),
            accepting: Vec::new(),
            groups: Groups::default(),
            timers: BinaryHeap::new(),
            changes: VecDeque::new(),
            counters: ReactorCounters::default(),
            complaints: Complaints::default(),
            security: Security::default(),
            room: Crowd::default(),
        })
    }

    pub fn waker(&self) -> Arc<Waker> {
        self.waker.clone()
    }

    pub fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// Where the time comes from.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// The time of the current turn.
    pub fn now(&self) -> Time {
        self.now
    }

    pub fn counters(&self) -> ReactorCounters {
        self.counters
    }

    /// Links at a time from now on; those that are up stay.
    pub fn set_max_links(&mut self, links: usize) {
        self.limits.links = links;
    }

    /// See [`Reactor::set_max_links`].
    pub fn max_links(&self) -> usize {
        self.limits.links
    }

    /// Bytes of queues and half messages of all links, and how many there can be.
    pub fn links_held(&self) -> (usize, usize) {
        (self.links.held(), self.limits.buffered)
    }

    /// Bytes that the kernel keeps for all associations, as last looked at, and how many there can be.
    pub fn kernel_memory(&self) -> (usize, usize) {
        (self.links.hoards.total(), self.limits.kernel)
    }

    /// Links that are up, dialling or closing.
    pub fn link_count(&self) -> usize {
        self.links.len()
    }

    /// Logs what must appear once per cause, however often it happens; `by`: whose doing it is.
    pub fn complain(
        &mut self,
        cause: impl Into<Cow<'static, str>>,
        by: Option<IpAddr>,
        detail: std::fmt::Arguments<'_>,
    ) {
        self.complaints.note(self.now, cause, by.map(host_of), detail);
    }

    /// Whether a line is due that tells of something by its name; if so, how many of its kind were left out.
    pub fn news(&mut self, cause: &'static str, by: Option<IpAddr>, name: u64) -> Option<LeftOut> {
        self.complaints.news(self.now, cause, by.map(host_of), name)
    }

    /// Accepts links of a service over TCP at `local`, from those whom `admission` lets in; where it listens
    /// in the end.
    pub fn listen(
        &mut self,
        service: Service,
        local: SocketAddr,
        admission: Admission,
    ) -> io::Result<SocketAddr> {
        let socket = TcpListener::bind(local)?;
        let address = socket.local_address();
        let token = Token(LISTENERS + self.listeners.len());
        register(self.registry(), &socket, token, Interest::READABLE)?;
        self.listeners.push(Listening { socket: LinkListener::Tcp(socket), service, admission });
        Ok(address)
    }

    /// Accepts and dials links of a service over SCTP, from one port of `addresses` (none: all of this
    /// host); which port that is.
    pub fn associate(&mut self, service: Service, addresses: &[SocketAddr]) -> io::Result<u16> {
        let ppid = match service {
            Service::Asap => PPID_ASAP,
            Service::Enrp => PPID_ENRP,
        };
        let socket = SctpEndpoint::bind(ppid, addresses)?;
        let port = socket.port();
        let token = Token(LISTENERS + self.listeners.len());
        register(self.registry(), &socket, token, Interest::READABLE)?;
        self.listeners.push(Listening {
            socket: LinkListener::Sctp(socket),
            service,
            admission: Admission::Plain,
        });
        Ok(port)
    }

    /// Carries out a machine's output; an event is handed back. Measurements are the loop's business.
    pub fn execute<E>(&mut self, output: Output<E>) -> Option<E> {
        match output {
            Output::Send { link, bytes } => self.queue(link, bytes),
            Output::Open { link, service, target } => self.open(link, service, target),
            Output::Close { link } => self.close(link),
            Output::Announce { service, bytes } => self.announce(service, &bytes),
            Output::Measure { .. } => {}
            Output::Event(event) => return Some(event),
        }
        None
    }

    /// Waits until something happens or `until`, and hands all of it to `handler`. Not long after the
    /// last input the outputs are with the kernel. An error: the descriptors are gone, and what is left must be
    /// forgotten, not dropped, since their numbers may be others' by now.
    pub fn turn<F>(&mut self, until: Option<Time>, handler: &mut F) -> io::Result<()>
    where
        F: FnMut(&mut Reactor, Input<'_>),
    {
        self.flush();
        let timeout = self.patience(until);
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let polled = self.poll.poll(&mut events, Some(timeout));
        self.now = self.clock.now();
        match polled {
            // A sleep that nothing ended: where all descriptors were closed meanwhile, nothing ever will.
            Ok(()) if events.is_empty() && !self.waker.is_sound() => {
                return Err(io::Error::other("its descriptors were closed by somebody else"));
            }
            Ok(()) => {
                for event in &events {
                    self.dispatch(event, handler);
                    self.flush();
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                self.events = events;
                return Err(error);
            }
        }
        self.events = events;
        self.serve_the_rest(handler);
        self.look_again();
        self.admit_waiting(handler);
        self.fire_timers(handler);
        self.report_changes(handler);
        self.complaints.settle(self.now);
        self.flush();
        Ok(())
    }

    fn patience(&self, until: Option<Time>) -> Duration {
        if self.links.has_ready()
            || !self.accepting.is_empty()
            || !self.changes.is_empty()
            || self.looks_again()
            || self.has_to_admit()
        {
            return Duration::ZERO;
        }
        if self.groups.has_ready() {
            return Duration::ZERO;
        }
        let timer = self.timers.peek().map(|Reverse((time, _))| *time);
        match [until, timer].into_iter().flatten().min() {
            Some(time) => (time - self.clock.now()).min(LONGEST_SLEEP),
            None => LONGEST_SLEEP,
        }
    }

    fn dispatch<F>(&mut self, event: &Event, handler: &mut F)
    where
        F: FnMut(&mut Reactor, Input<'_>),
    {
        match event.token() {
            WAKER => handler(self, Input::Woken),
            INTERFACES => self.interfaces_changed(),
            token if token.0 >= OTHERS => handler(self, Input::Other { token }),
            Token(group) if group >= GROUPS => self.hear_group(group - GROUPS, handler),
            Token(listener) if listener >= LISTENERS => self.accept(listener - LISTENERS, handler),
            Token(slot) => {
                if event.is_writable() || event.is_error() {
                    self.writable(slot);
                    self.report_changes(handler);
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    self.readable(slot, event.is_read_closed() || event.is_error(), handler);
                }
            }
        }
        self.report_changes(handler);
    }

    /// What was over the budget of earlier turns.
    fn serve_the_rest<F>(&mut self, handler: &mut F)
    where
        F: FnMut(&mut Reactor, Input<'_>),
    {
        for listener in std::mem::take(&mut self.accepting) {
            self.accept(listener, handler);
        }
        for group in self.groups.take_ready() {
            self.hear_group(group, handler);
        }
        if !self.links.has_ready() {
            return;
        }
        let end = self.clock.now() + SLICE;
        for _ in 0..self.links.ready_count() {
            let Some(slot) = self.links.next_ready() else { break };
            self.read(slot, handler);
            self.report_changes(handler);
            self.flush();
            if self.clock.now() >= end {
                break;
            }
        }
    }

    /// Tells the machine what is queued now; what that leads to is told in the next turn, so that a
    /// machine that dials a dead address again and again can't hold up everybody.
    fn report_changes<F>(&mut self, handler: &mut F)
    where
        F: FnMut(&mut Reactor, Input<'_>),
    {
        for _ in 0..self.changes.len() {
            let Some((link, change)) = self.changes.pop_front() else { break };
            handler(self, Input::Link { link, change });
        }
    }

    fn arm(&mut self, after: Duration, timer: ReactorTimer) {
        self.timers.push(Reverse((self.now + after, timer)));
    }

    fn fire_timers<F>(&mut self, handler: &mut F)
    where
        F: FnMut(&mut Reactor, Input<'_>),
    {
        while let Some(Reverse((time, timer))) = self.timers.peek().copied() {
            if time > self.now {
                return;
            }
            self.timers.pop();
            match timer {
                ReactorTimer::Dial { slot, link, left } => self.dial_timed_out(slot, link, left),
                ReactorTimer::Partial { slot, link } => self.check_partial(slot, link),
                ReactorTimer::Close { slot, link } => self.close_timed_out(slot, link),
                ReactorTimer::Proof { slot, link } => self.proof_timed_out(slot, link),
                ReactorTimer::Waiting => self.admit_late(handler),
                ReactorTimer::Accept { listener } => self.accept(listener, handler),
                ReactorTimer::Hoards => self.look_at_hoards(),
                ReactorTimer::Again => self.try_again(),
                ReactorTimer::Interfaces => {
                    if let Some(list) = self.refresh_groups() {
                        handler(self, Input::Interfaces(&list));
                    }
                }
            }
        }
    }

    fn accept<F>(&mut self, listener: usize, handler: &mut F)
    where
        F: FnMut(&mut Reactor, Input<'_>),
    {
        match self.listeners.get(listener) {
            Some(Listening { socket: LinkListener::Tcp(_), .. }) => {
                self.accept_connections(listener, handler);
            }
            Some(Listening { socket: LinkListener::Sctp(_), .. }) => {
                self.accept_associations(listener, handler);
            }
            None => {}
        }
    }

    fn accept_connections<F>(&mut self, listener: usize, handler: &mut F)
    where
        F: FnMut(&mut Reactor, Input<'_>),
    {
        for _ in 0..ACCEPT_BUDGET {
            let Some(listening) = self.listeners.get(listener) else { return };
            let (service, admission) = (listening.service, listening.admission);
            let LinkListener::Tcp(socket) = &listening.socket else { return };
            match socket.accept() {
                Ok(None) => return,
                Ok(Some(link)) => self.accepted(service, Link::Tcp(link), admission, handler),
                Err(error) => {
                    self.complain("accept", None, format_args!("can't accept connections for now: {error}"));
                    self.arm(ACCEPT_REST, ReactorTimer::Accept { listener });
                    return;
                }
            }
        }
        self.accepting.push(listener);
    }

    fn accept_associations<F>(&mut self, listener: usize, handler: &mut F)
    where
        F: FnMut(&mut Reactor, Input<'_>),
    {
        let Some(Listening { socket: LinkListener::Sctp(socket), service, .. }) =
            self.listeners.get_mut(listener)
        else {
            return;
        };
        let service = *service;
        let mut events = Vec::new();
        let status = socket.read_events(ACCEPT_BUDGET, &mut |event| events.push(event));
        for event in events {
            match event {
                EndpointEvent::Accepted(link) => {
                    self.accepted(service, Link::Sctp(link), Admission::Plain, handler);
                }
                EndpointEvent::NotAccepted(error) => {
                    self.complain("accept", None, format_args!("can't accept associations for now: {error}"));
                }
                EndpointEvent::DialDone(link, result) => self.dialled(LinkId(link), result.map(Link::Sctp)),
            }
        }
        match status {
            Ok(ReadStatus::More) => self.accepting.push(listener),
            Ok(_) => {}
            Err(error) => {
                self.complain("associate", None, format_args!("{service:?} over SCTP: {error}"));
                self.arm(ACCEPT_REST, ReactorTimer::Accept { listener });
            }
        }
    }

    fn endpoint(&mut self, of: Service) -> Option<&mut SctpEndpoint> {
        self.listeners.iter_mut().find_map(|listening| match &mut listening.socket {
            LinkListener::Sctp(endpoint) if listening.service == of => Some(endpoint),
            _ => None,
        })
    }

    fn down(&mut self, link: LinkId, why: LinkDown) {
        log::trace!("{link:?}: down, {why:?}");
        self.changes.push_back((link, LinkChange::Down(why)));
    }
}

/// Edge-triggered, once for the source's whole life.
fn register(registry: &Registry, source: &impl AsFd, token: Token, interest: Interest) -> io::Result<()> {
    registry.register(&mut SourceFd(&source.as_fd().as_raw_fd()), token, interest)
}

/// Needed before closing: if a forked child holds the descriptor too, closing it alone would leave it
/// in the poll.
fn deregister(registry: &Registry, source: &impl AsFd) {
    let _ = registry.deregister(&mut SourceFd(&source.as_fd().as_raw_fd()));
}
