//! The registrar: ASAP service, peers (ENRP), download, takeover, audit.
//!
//! | file | does |
//! |---|---|
//! | `asap` | registrations, deregistrations, reports |
//! | `resolve` | handle resolutions |
//! | `watch` | keep-alives, unreachability, lost links |
//! | `subscriptions`, `subscribers` | pushes changed pools; to whom |
//! | `store` | the only place that changes the handlespace, with everything that hangs on it |
//! | `enrp` | what peers say and are told: presence, lists, errors |
//! | `peers` | who the peers are, and whether they live |
//! | `links` | peers' links: dialling, choosing |
//! | `identity` | whether a peer is who it says it is |
//! | `hearsay` | how often is dialled what others name |
//! | `distance` | how far elements are, where their policy asks |
//! | `updates` | telling peers what changed |
//! | `sync` | what to believe of what peers say |
//! | `audit` | checksums and handle tables |
//! | `download` | joining: mentor, list, table, start of service |
//! | `takeover` | arbitration |
//! | `deferred` | requests from before the service |
//! | `shares` | how much one link, host or peer may have, and who makes room |
//! | `trust` | what the roles of a peer's certificate let it do |
//! | `operate` | what an operator changes while the service runs |
//! | `chronicle` | what happened lately, for the operator |
//! | `claims` | asking elements whose they are, after a takeover or a contradiction |
//! | `docket` | which elements are to be asked, and whose turn it is |
//! | `absent` | what peers say they have and we hold otherwise |
//! | `aged` | things of which the oldest goes |
//! | `dialect` | what differs for peers and clients of rsplib's |
//! | `reach` | which addresses mean something to whom |
//! | `rivals` | who waits for an identifier that somebody else has |
//! | `chores` | work that is more than one call may take |
//! | `config` | what an operator sets, sees and counts |
//! | `invariants` | what must hold between any two calls |
//!
//! # Whose element is it
//!
//! An element's own acts decide. Registering with a registrar makes that one its home, and so does
//! answering a keep-alive with the H flag. Both are told to all peers by HANDLE_UPDATE, and what an
//! update says is taken over at once, except for an element that is somebody else's, see below, or has a link here. That is left as it is, and
//! what the peer says is kept beside it (`absent`): the update may be the first news that the element moved.
//! If so, the element closes its link to us, and the peer's word counts. If its link to us stays up for a
//! moment, the news was old (updates of two registrars are not ordered among each other), or false: then we
//! ask the element, by a keep-alive with H, and if it answers over its link, it stays ours, and the others are
//! told so. So registrars that contradict each other never argue among themselves, nobody but an
//! element moves or removes it, and whatever a partition left behind, each element ends with the
//! registrar that it last answered.
//!
//! Of two other registrars that both say that they have an element, and are both up, the one that had it keeps it here
//! until it has given it up: it hears the same news, and its checksum says whether it has (`audit`). So nobody moves at third
//! registrars what is where it is. While the one that had it is silent or gone, nobody can say so, and for a minute
//! from then on whoever spoke last is believed. Who says that such a registrar's element is gone makes us ask the element.
//!
//! A handle table is not news but a state, so it never takes away an element that has a link here.

mod absent;
mod aged;
mod asap;
mod audit;
mod chores;
mod chronicle;
mod claims;
mod config;
mod deferred;
mod dialect;
mod distance;
mod docket;
mod download;
mod enrp;
mod hearsay;
mod identity;
mod invariants;
mod links;
mod operate;
mod peers;
mod reach;
mod resolve;
mod rivals;
mod shares;
mod store;
mod subscribers;
mod subscriptions;
mod sync;
mod takeover;
mod trust;
mod updates;
mod watch;

#[cfg(test)]
mod tests;

pub use chronicle::{Happening, Histogram, PoolRecord, What};
pub use config::{Account, Config, Dialect, Event, PeerView, Stats};
pub use dialect::Removal;
pub use operate::{Impossible, Operated, Operation};
pub use shares::Leaver;

use super::outbox::Outbox;
use super::timer::{self, Deadlines};
use super::{
    LinkChange, LinkDown, LinkEnds, LinkId, LinkProtocol, Measurement, Output, Service, Target, Time,
};
use crate::handlespace::chunks::Chunks;
use crate::handlespace::{Bounds, ElementKey, Handlespace, Sum};
use crate::wire::{CauseCode, PeId, PoolHandle, RegistrarId, Transport, scope};
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What a deadline means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// T6-Serverannounce: the next ASAP announcement is due.
    Announce,
    /// PEER-HEARTBEAT-CYCLE: the next presence is due.
    Heartbeat,
    /// The next keep-alive on a link is due.
    KeepAlive(LinkId),
    /// An element did not answer its keep-alive.
    Probe(ElementKey),
    /// A pool's subscribers may be told again.
    Push(u64),
    /// MAX-TIME-LAST-HEARD: a peer may have fallen silent.
    LastHeard(RegistrarId),
    /// MAX-TIME-NO-RESPONSE: a silent peer did not answer either.
    NoResponse(RegistrarId),
    /// Dial a peer (again).
    Redial(RegistrarId),
    /// Dial a static peer (again).
    RedialStatic(usize),
    /// A dial takes too long.
    DialTimeout(LinkId),
    /// More updates for a peer can go out.
    Flush(RegistrarId),
    /// Our takeover of this registrar lacks acknowledgements.
    Takeover(RegistrarId),
    /// Another's takeover of this registrar did not end.
    TakenBy(RegistrarId),
    /// The next step of a claim.
    Claim(u64),
    /// More processes of claims are to be dialled.
    Dials,
    /// The mentor fell silent.
    Mentor,
    /// Elements had time to come back.
    Returned,
    /// There is time to look for another mentor.
    MentorRetry,
    /// Looking for a mentor has lasted long enough.
    Discovery,
    /// Joining has lasted long enough, whoever helps.
    Joined,
    /// A peer passed over the question what it speaks.
    Dialect(RegistrarId),
    /// Who was dialled for its elements must have said that it speaks ASAP.
    Hello(LinkId),
    /// A list of our peers is due on this link.
    List(LinkId),
    /// The peer whose ID this link claims was asked whether its own link lives.
    Doubt(LinkId),
    /// Registrations may have ended.
    Lapse,
    /// Work is left over.
    Chores,
}

/// What we keep about an element besides what the handlespace knows.
#[derive(Debug, Clone, Copy, Default)]
struct ElementSide {
    generation: u32,
    /// Over which it is registered with us.
    link: Option<LinkId>,
    /// When we learnt of it.
    since: Time,
    /// Last (re-)registration, update or answer.
    heard: Time,
    /// When the keep-alive that lacks an answer was sent.
    probed: Option<Time>,
    /// Number of the last record that its home registrar gave us.
    stamp: u64,
    /// Ours, and among what rsplib's registrars can hold.
    for_rsplib: bool,
    /// Ours: when it last registered.
    registered: Time,
    /// When its registration is looked at next (`watch`); 0: never.
    lapse: u64,
    /// It registers over links that need not stay.
    brief: bool,
    /// Such a link is gone, and it stays for its life.
    stays: bool,
    /// How often its home was disputed, and since when.
    quarrel: (u8, Time),
    /// When it came to who has it although nobody who should know could say so; 0: never.
    doubted: Time,
    /// Stands for where it was registered from; 0: not known.
    from: u32,
}

/// A link that is up.
#[derive(Debug)]
struct LiveLink {
    ends: LinkEnds,
    since: Time,
    congested: bool,
    /// When something last came from it.
    heard: Time,
    distance: distance::Distance,
    road: watch::Road,
    role: Role,
}

// Most links are those of processes.
#[expect(clippy::large_enum_variant)]
#[derive(Debug)]
enum Role {
    Asap(asap::AsapLink),
    Enrp(links::PeerLink),
}

/// Why a dial is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Dial {
    Peer(RegistrarId),
    Static(usize),
    /// Whether a peer is where it says it is.
    Proof(RegistrarId),
    Elements(Target),
}

/// One registrar.
#[derive(Debug)]
pub struct Registrar {
    config: Config,
    id: RegistrarId,
    /// Time of the call under way.
    now: Time,
    /// How much later than asked `handle_timeout` was called: we slept, not the others.
    overslept: bool,
    excused: Option<Time>,
    rng: Rng,
    /// What nobody else knows.
    secret: u64,
    space: Handlespace,
    side: Chunks<ElementSide>,
    links: BTreeMap<LinkId, LiveLink>,
    /// Which ASAP link is the SCTP association with this address: there can be no second one.
    associations: BTreeMap<SocketAddr, LinkId>,
    /// Which peers are at the other ends of ENRP links.
    peer_links: BTreeSet<(RegistrarId, LinkId)>,
    dials: BTreeMap<LinkId, Dial>,
    next_link: u64,
    /// Links with elements, for the rate of keep-alives.
    watched: usize,
    /// Who was refused since somebody else had the identifier, or had to leave it to a later link of its host: the
    /// first to be told when it is free.
    rivals: aged::Aged<(PoolHandle, PeId), rivals::Contenders>,
    /// Which hosts can't reach an element, and since when each says so.
    reports: aged::Aged<ElementKey, BTreeMap<IpAddr, Time>>,
    subscriptions: subscriptions::Subscriptions,
    shares: shares::Shares,
    peers: peers::Peers,
    hearsay: hearsay::Hearsay,
    identity: identity::Twins,
    statics: Vec<links::StaticPeer>,
    takeovers: BTreeMap<RegistrarId, takeover::Takeover>,
    claims: docket::Claims,
    join: download::Join,
    /// Bytes of requests that wait for the service to start, or for elements to come back.
    deferred: usize,
    deferred_ranks: deferred::Ranks,
    /// Elements that were here before we were started again may come back.
    returning: bool,
    /// Who asked meanwhile for pools that there are not yet.
    held: BTreeMap<PoolHandle, Vec<asap::HeldQuestion>>,
    /// Those of them that there are now.
    arrived: Vec<PoolHandle>,
    /// Bytes of elements that may come back by a late answer.
    overdue: usize,
    /// Accumulated checksum of what rsplib's registrars get of our own elements.
    rsplib_sum: Sum,
    lives: watch::Lives,
    chores: chores::Chores,
    stamp: u64,
    timers: Deadlines<Timer>,
    outbox: Outbox<Event>,
    spare: resolve::ResolveScratch,
    stats: Stats,
    chronicle: chronicle::Chronicle,
    /// Refused requests by what was asked and why.
    refusals: BTreeMap<(&'static str, CauseCode), u64>,
    /// How long elements take to answer keep-alives.
    answers: Histogram,
    leaving: bool,
}

/// Expired deadlines handled in one call.
const TIMEOUTS_PER_CALL: usize = 256;
/// A call of `handle_timeout` that comes later than this means that we slept.
const OVERSLEPT: Duration = Duration::from_millis(300);

impl Registrar {
    /// A registrar that starts looking for a mentor. An ID of 0 is replaced by a random one.
    pub fn new(mut config: Config, seed: u64, now: Time) -> Registrar {
        let mut rng = Rng::with_seed(seed);
        let drawn = config.id == RegistrarId(0);
        if drawn {
            config.id = RegistrarId(rng.u32(1..));
        }
        let mut space = Handlespace::new(rng.u64(..));
        space.set_bounds(Bounds { elements: config.max_elements, ..Bounds::default() });
        let mut registrar = Registrar {
            id: config.id,
            now,
            overslept: false,
            excused: None,
            secret: seed,
            rng,
            space,
            side: Chunks::default(),
            links: BTreeMap::new(),
            associations: BTreeMap::new(),
            peer_links: BTreeSet::new(),
            dials: BTreeMap::new(),
            next_link: 1,
            watched: 0,
            rivals: aged::Aged::default(),
            reports: aged::Aged::default(),
            subscriptions: subscriptions::Subscriptions::default(),
            shares: shares::Shares::default(),
            peers: peers::Peers::default(),
            hearsay: hearsay::Hearsay::default(),
            identity: identity::Twins::default(),
            statics: Vec::new(),
            takeovers: BTreeMap::new(),
            claims: docket::Claims::default(),
            join: download::Join::default(),
            deferred: 0,
            deferred_ranks: deferred::Ranks::default(),
            returning: false,
            held: BTreeMap::new(),
            arrived: Vec::new(),
            overdue: 0,
            rsplib_sum: Sum::default(),
            lives: watch::Lives::default(),
            chores: chores::Chores::default(),
            stamp: 0,
            timers: Deadlines::new(),
            outbox: Outbox::default(),
            spare: resolve::ResolveScratch::default(),
            stats: Stats::default(),
            chronicle: chronicle::Chronicle::default(),
            refusals: BTreeMap::new(),
            answers: Histogram::default(),
            leaving: false,
            config,
        };
        registrar.identity.drawn = drawn;
        registrar.begin(now);
        registrar.join();
        registrar
    }

    /// Our transports changed (an interface came or went).
    pub fn set_transports(&mut self, now: Time, asap: Vec<Transport>, enrp: Vec<Transport>) {
        self.begin(now);
        let changed = self.config.enrp_transports != enrp;
        self.config.asap_transports = asap;
        self.config.enrp_transports = enrp;
        if changed && self.is_serving() {
            self.heartbeat();
        }
    }

    /// Leaves in order: links closed, so that peers take over and elements look for another home at
    /// once. Nothing else is to be called afterwards but `poll_output`.
    pub fn shutdown(&mut self, now: Time) {
        self.begin(now);
        self.leaving = true;
        self.chores = chores::Chores::default();
        for link in self.links.keys().chain(self.dials.keys()) {
            self.outbox.push(Output::Close { link: *link });
        }
        self.links.clear();
        self.associations.clear();
        self.peer_links.clear();
        self.dials.clear();
        self.timers = Deadlines::new();
    }

    /// One whole message.
    pub fn handle_message(&mut self, now: Time, link: LinkId, bytes: &[u8]) {
        self.begin_for(now, link);
        let Some(state) = self.links.get_mut(&link) else { return };
        state.heard = now;
        let measure = state.distance.is_due(now);
        match state.role {
            Role::Asap(_) => self.asap_message(link, bytes),
            Role::Enrp(_) => self.enrp_message(link, bytes),
        }
        if measure {
            self.outbox.push(Output::Measure { link });
        }
        self.finish();
    }

    /// The answer to [`Output::Measure`].
    pub fn handle_measurement(&mut self, now: Time, link: LinkId, measured: Measurement) {
        self.begin_for(now, link);
        let Some(state) = self.links.get_mut(&link) else { return };
        state.road.note(now, &measured);
        if let Some(round_trip) = measured.round_trip {
            self.set_round_trip(link, round_trip);
        }
        self.judge_silence(link);
        self.finish();
    }

    /// A link came, went, filled or drained.
    pub fn handle_link(&mut self, now: Time, link: LinkId, change: LinkChange) {
        self.begin_for(now, link);
        if self.leaving {
            return;
        }
        match change {
            LinkChange::Up(ends) => self.link_up(link, ends),
            LinkChange::Down(why) => self.link_down(link, why),
            LinkChange::Congested => {
                if let Some(state) = self.links.get_mut(&link) {
                    state.congested = true;
                }
            }
            LinkChange::Drained => self.link_drained(link),
        }
        self.finish();
    }

    /// A datagram from the ENRP group.
    pub fn handle_announce(&mut self, now: Time, service: Service, from: SocketAddr, bytes: &[u8]) {
        self.begin(now);
        self.chronicle.done_by(Some(scope::host_of(from.ip())));
        if service == Service::Enrp && !self.leaving {
            self.multicast_message(from, bytes);
        }
        self.finish();
    }

    /// Time has come.
    pub fn handle_timeout(&mut self, now: Time) {
        self.begin(now);
        let late = self.timers.next().map_or(Duration::ZERO, |due| now - due);
        // Whoever sleeps must not take the others' silence for death: they get another chance. But
        // not for ever, or a machine too slow for its timers would never notice anything.
        let again = self.excused.is_some_and(|time| now - time < 10 * OVERSLEPT);
        self.overslept = late > OVERSLEPT && !again;
        if self.overslept {
            self.excused = Some(now);
        }
        for _ in 0..TIMEOUTS_PER_CALL {
            if self.chores.left() == 0 {
                break;
            }
            let Some(timer) = self.timers.pop_expired(now) else { break };
            self.expire(timer);
            self.chores.spend(1);
        }
        self.overslept = false;
        self.finish();
    }

    fn expire(&mut self, timer: Timer) {
        match timer {
            Timer::Announce => self.announce_asap(),
            Timer::Heartbeat => self.heartbeat(),
            Timer::KeepAlive(link) => self.keep_alive_due(link),
            Timer::Probe(key) => self.probe_unanswered(key),
            Timer::Push(audience) => self.push_due(audience),
            Timer::LastHeard(id) => self.last_heard_expired(id),
            Timer::NoResponse(id) => self.no_response(id),
            Timer::Redial(id) => self.dial_peer(id),
            Timer::RedialStatic(index) => self.dial_static(index),
            Timer::DialTimeout(link) => self.dial_timed_out(link),
            Timer::Flush(id) => self.flush_backlog(id),
            Timer::Takeover(target) => self.takeover_expired(target),
            Timer::TakenBy(target) => self.other_takeover_expired(target),
            Timer::Claim(number) => self.claim_due(number),
            Timer::Dials => self.dial_claims(),
            Timer::Mentor => self.mentor_silent(),
            Timer::Returned => self.all_returned(),
            Timer::MentorRetry => self.seek_mentor(),
            Timer::Discovery => self.discovery_over(),
            Timer::Joined => self.joining_over(),
            Timer::Dialect(id) => self.took_probe(id),
            Timer::Hello(link) => self.ask_awaited(link),
            Timer::List(link) => self.list_due(link),
            Timer::Doubt(link) => self.doubt_over(link),
            Timer::Lapse => self.lapses_due(),
            Timer::Chores => self.chores_due(),
        }
    }

    /// When to call `handle_timeout`.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    /// The next effect.
    pub fn poll_output(&mut self) -> Option<Output<Event>> {
        self.outbox.pop()
    }

    /// Our ID.
    pub fn id(&self) -> RegistrarId {
        self.id
    }

    /// Where peers reach us.
    pub fn enrp_transports(&self) -> &[Transport] {
        &self.config.enrp_transports
    }

    /// The handlespace, to read.
    pub fn handlespace(&self) -> &Handlespace {
        &self.space
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// What happened after the happening with this number (0: all that is still known), oldest first.
    pub fn happenings_after(&self, number: u64) -> impl Iterator<Item = &Happening> {
        self.chronicle.after(number)
    }

    /// The number of the last happening.
    pub fn last_happening(&self) -> u64 {
        self.chronicle.last()
    }

    /// What became of a pool, which may be empty by now; `None`: not known, or not remembered.
    pub fn pool_record(&self, handle: &PoolHandle) -> Option<&PoolRecord> {
        self.chronicle.pool(handle)
    }

    /// Whether pools and elements that are not known may yet come: of those who were here before we were started again.
    pub fn awaits_elements(&self) -> bool {
        self.returning
    }

    /// Pools that became empty within the last hour (the last 1024 of them).
    pub fn emptied_pools(&self, now: Time) -> impl Iterator<Item = (&PoolHandle, &PoolRecord)> {
        self.chronicle.emptied(now)
    }

    /// Refused requests: what was asked, the cause told, and how often.
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, CauseCode, u64)> {
        self.refusals.iter().map(|(&(what, cause), &count)| (what, cause, count))
    }

    /// How long elements take to answer keep-alives.
    pub fn keep_alive_answers(&self) -> &Histogram {
        &self.answers
    }

    /// What is bounded: its name, how much of it there is, and how much there can be.
    pub fn bounds(&self) -> Vec<(&'static str, usize, usize)> {
        let (count, most) = self.subscriptions.use_of_bound();
        let happened = self.chronicle.use_of_bound();
        let kept = self.accounts().map(|account| (account.cause, account.bytes, account.bound));
        let counted = [
            ("elements", self.space.len(), self.config.max_elements),
            ("pools", self.space.pool_count(), Bounds::default().pools),
            ("bytes of handles and addresses", self.space.bytes(), Bounds::default().bytes),
            ("subscriptions", count, most),
            ("peers", self.peers.table.len(), self.config.max_peers),
            ("reported elements", self.reports.len(), watch::MAX_REPORTED),
            ("identifiers waited for", self.rivals.len(), rivals::MAX_RIVALS),
            ("bytes of what happened", happened.0, happened.1),
        ];
        counted.into_iter().chain(kept).collect()
    }

    /// Since when we know an element.
    pub fn element_since(&self, key: ElementKey) -> Option<Time> {
        self.side(key).map(|side| side.since)
    }

    /// Time since an element's last (re-)registration, update or answer, for the status page.
    pub fn element_age(&self, now: Time, key: ElementKey) -> Option<Duration> {
        self.side(key).map(|side| now - side.heard)
    }

    /// What every call begins with.
    fn begin(&mut self, now: Time) {
        self.now = now;
        self.chronicle.done_by(None);
        self.chores.refill(self.peers.table.len());
    }

    /// The same where it is the doing of who is at the other end of a link.
    fn begin_for(&mut self, now: Time, link: LinkId) {
        self.begin(now);
        let ends = self.links.get(&link).map(|state| &state.ends);
        self.chronicle.done_by(ends.and_then(reach::host));
    }

    /// What every call ends with.
    fn finish(&mut self) {
        if !self.arrived.is_empty() {
            self.answer_arrived();
        }
        self.push_changes();
    }

    /// Tells the driver, for the log.
    fn event(&mut self, event: Event) {
        let what = match event {
            Event::PeerDead { id } => Some(What::PeerDead { id, address: self.whereabouts(id) }),
            Event::TakeoverStarted { target } => {
                Some(What::TakingOver { target, address: self.whereabouts(target) })
            }
            Event::Serving => Some(What::Serving),
            _ => None,
        };
        if let Some(What::PeerDead { .. }) = what {
            self.stats.peers_dead += 1;
        }
        if let Some(what) = what {
            self.chronicle.note(self.now, what);
        }
        self.outbox.push(Output::Event(event));
    }

    /// Complains, every time. Who writes the log counts those of one cause, which is never anything that somebody
    /// else chose.
    fn complain(&mut self, cause: &'static str, about: impl FnOnce() -> String) {
        let about = about();
        let by = self.chronicle.by();
        self.event(Event::Complaint { cause, by, about });
    }

    /// What is kept for others, by cause.
    pub fn accounts(&self) -> [Account; 7] {
        let account = |cause, bytes, bound| Account { cause, bytes, bound };
        let peers = self.peers.table.values();
        let absent = peers.clone().map(|peer| peer.absent.bytes() + peer.wanted.bytes()).sum();
        let backlog = peers.map(|peer| peer.backlog.bytes()).sum();
        let most = self.config.max_peers;
        let departures = self.subscriptions.departed_bytes();
        [
            account("bytes of requests before the service", self.deferred, asap::MAX_DEFERRED),
            account("bytes of subscriptions", self.subscriptions.bytes(), subscriptions::MAX_BYTES),
            account("bytes of departures", departures, subscriptions::MAX_DEPARTED_BYTES),
            account("bytes of overdue elements", self.overdue, watch::MAX_OVERDUE_BYTES),
            account("bytes of claims", self.claims.bytes(), docket::MAX_BYTES),
            account("bytes of waiting updates", backlog, most * updates::MAX_BACKLOG_BYTES),
            account("bytes of disputed elements", absent, 2 * most * absent::MAX_BYTES),
        ]
    }

    /// Number for the next link that we open.
    fn new_link(&mut self) -> LinkId {
        let link = LinkId(self.next_link);
        self.next_link += 1;
        link
    }

    /// `base` times 1 ± `spread` per cent.
    fn jitter(&mut self, base: Duration, spread: u32) -> Duration {
        timer::jitter(&mut self.rng, base, spread)
    }

    /// Closes a link that is up, and forgets what hangs on it.
    fn close_link(&mut self, link: LinkId) {
        self.outbox.push(Output::Close { link });
        self.link_down(link, LinkDown::Closed);
    }

    /// A link that the driver or a dial brought up.
    fn link_up(&mut self, link: LinkId, ends: LinkEnds) {
        let dial = self.dials.remove(&link);
        self.timers.clear(&Timer::DialTimeout(link));
        if dial.is_none() && !link.is_incoming() || self.links.contains_key(&link) {
            return;
        }
        if !self.admits(&ends) {
            self.outbox.push(Output::Close { link });
            return self.dial_failed(dial, false);
        }
        let role = match ends.service {
            Service::Asap => Role::Asap(asap::AsapLink::new(reach::host(&ends))),
            Service::Enrp => Role::Enrp(links::PeerLink::default()),
        };
        if ends.service == Service::Asap && ends.protocol == LinkProtocol::Sctp {
            // Where it came from: what else its INIT lists may be somebody else's.
            self.associations.extend(ends.peer.first().map(|&address| (address, link)));
        }
        let mut distance = distance::Distance::default();
        if ends.service == Service::Enrp {
            distance.want(self.now);
        }
        let road = watch::Road::default();
        let now = self.now;
        self.links
            .insert(link, LiveLink { ends, since: now, congested: false, heard: now, distance, road, role });
        // TCP has measured by now, so that what comes first over the link can be right.
        self.outbox.push(Output::Measure { link });
        match dial {
            Some(Dial::Peer(id)) => self.peer_dialled(link, id),
            Some(Dial::Static(index)) => self.static_dialled(link, index),
            Some(Dial::Proof(id)) => self.proof_dialled(link, id),
            Some(Dial::Elements(target)) => self.elements_dialled(link, &target),
            None => {}
        }
    }

    /// A link or a dial that is no more.
    fn link_down(&mut self, link: LinkId, why: LinkDown) {
        self.timers.clear(&Timer::DialTimeout(link));
        let dial = self.dials.remove(&link);
        if dial.is_some() {
            return self.dial_failed(dial, why == LinkDown::Refused);
        }
        let Some(state) = self.remove_link(link) else { return };
        match state.role {
            Role::Asap(client) => self.client_gone(link, client, reason(why), why == LinkDown::Closed),
            Role::Enrp(peer_link) => self.peer_link_lost(link, peer_link),
        }
    }

    fn dial_failed(&mut self, dial: Option<Dial>, refused: bool) {
        match dial {
            Some(Dial::Peer(id)) => self.peer_dial_failed(id, refused),
            Some(Dial::Static(index)) => self.static_dial_failed(index),
            Some(Dial::Elements(target)) => self.elements_dial_failed(&target, refused),
            Some(Dial::Proof(_)) | None => {}
        }
    }

    fn remove_link(&mut self, link: LinkId) -> Option<LiveLink> {
        let state = self.links.remove(&link)?;
        if let Some(address) = state.ends.peer.first()
            && self.associations.get(address) == Some(&link)
        {
            self.associations.remove(address);
        }
        if let Role::Enrp(links::PeerLink { peer: Some(peer), .. }) = state.role {
            self.peer_links.remove(&(peer, link));
        }
        Some(state)
    }

    fn link_drained(&mut self, link: LinkId) {
        let Some(state) = self.links.get_mut(&link) else { return };
        state.congested = false;
        match &state.role {
            Role::Asap(_) => self.subscriber_drained(link),
            Role::Enrp(peer_link) => {
                if let Some(id) = peer_link.peer {
                    self.flush_backlog(id);
                }
            }
        }
    }

    /// A dial that neither succeeds nor fails is given up.
    fn dial_timed_out(&mut self, link: LinkId) {
        if self.dials.contains_key(&link) {
            self.outbox.push(Output::Close { link });
            self.link_down(link, LinkDown::Broken);
        }
    }
}

/// A link's end in words for the log.
fn reason(why: LinkDown) -> &'static str {
    match why {
        LinkDown::Closed => "link closed",
        LinkDown::Broken => "link broken",
        LinkDown::Refused => "not reached",
        LinkDown::Overflow => "does not read",
        LinkDown::Garbage => "sends garbage",
    }
}
