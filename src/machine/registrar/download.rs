//! Joining: finding a mentor, its peers, its handlespace (RFC 5353 section 3.2).

use super::chores::Chore;
use super::dialect::order_announced;
use super::links::StaticPeer;
use super::{Event, Registrar, Timer};
use crate::machine::Time;
use crate::wire::{Enrp, PeId, PoolHandle, RegistrarId};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// How far we are.
#[derive(Debug, Default)]
pub(super) struct Join {
    served: bool,
    /// A mentor's whole table was read.
    learnt: bool,
    mentor: Option<RegistrarId>,
    /// Where the present mentor's link comes from.
    host: Option<IpAddr>,
    /// Who refused or failed.
    failed: BTreeMap<RegistrarId, PastMentor>,
    /// Looking for a mentor has lasted long enough.
    over: bool,
    began: Time,
    /// When the present mentor was asked first, and how many parts of its table in a row had nothing new.
    asked: Time,
    idle: u32,
    /// The last name in its table so far.
    reached: Option<(PoolHandle, PeId)>,
    /// What was new in its table, and in those of all mentors.
    told: u32,
    told_by_all: u32,
}

/// A mentor that refused or failed.
#[derive(Debug, Clone, Copy)]
struct PastMentor {
    when: Time,
    host: Option<IpAddr>,
}

/// Pause before a mentor that refused is asked again.
const MENTOR_PAUSE: Duration = Duration::from_millis(250);
/// How long a mentor may take for each part of its table: MAX-TIME-NO-RESPONSE as RFC 5353 section 4.2 has it,
/// whoever it is, since a large handlespace takes anybody time.
const MENTOR_PATIENCE: Duration = Duration::from_secs(5);
/// How many parts in a row may have nothing new.
const MENTOR_IDLE: u32 = 64;
/// How long one mentor may take, and how long joining, whoever comes to be one: so long, and a second more for each so
/// many elements that were new, up to the last. So one that never ends, or says next to nothing, is given up, and as many of
/// them as there may be don't keep the service from starting.
const MENTOR_TIME: Duration = Duration::from_secs(15);
const JOINING_TIME: Duration = Duration::from_secs(30);
const ELEMENTS_A_SECOND: u32 = 100;
const LONGEST_TIME: Duration = Duration::from_secs(600);
/// Registrars that start together settle who serves first after this time.
const SETTLE: Duration = Duration::from_millis(500);
/// Dials of each configured peer before we believe that nobody is there.
const STATIC_DIALS: u32 = 2;

/// How long whoever has told of so many elements may take.
fn time_for(least: Duration, told: u32) -> Duration {
    let time = least + Duration::from_secs((told / ELEMENTS_A_SECOND).into());
    time.min(LONGEST_TIME.max(least))
}

impl Registrar {
    /// Whether ASAP service has started.
    pub fn is_serving(&self) -> bool {
        self.join.served
    }

    pub(super) fn join(&mut self) {
        self.join.began = self.now;
        for target in self.config.peers.clone() {
            self.statics.push(StaticPeer::new(target));
        }
        let due = self.now + self.jitter(self.config.peer_heartbeat_cycle, 12);
        self.timers.set(Timer::Heartbeat, due);
        if self.statics.is_empty() && !self.config.announce_enrp && !self.config.awaits_peers {
            return self.serve();
        }
        self.timers.set(Timer::Discovery, self.now + self.config.mentor_discovery_timeout);
        self.timers.set(Timer::Joined, self.now + JOINING_TIME.max(self.config.mentor_discovery_timeout));
        self.announce_presence(true);
        for index in 0..self.statics.len() {
            self.dial_static(index);
        }
    }

    pub(super) fn is_joining_with(&self, id: RegistrarId) -> bool {
        self.join.mentor == Some(id)
    }

    /// Takes the next step of joining, if there is one to take.
    pub(super) fn seek_mentor(&mut self) {
        if self.join.served || self.join.mentor.is_some() {
            return;
        }
        let now = self.now;
        let failed = &self.join.failed;
        let rested = |id: &RegistrarId| failed.get(id).is_none_or(|failed| now - failed.when >= MENTOR_PAUSE);
        let linked: Vec<RegistrarId> = (self.peers.table.iter())
            .filter(|(_, peer)| peer.link.is_some() && peer.is_met())
            .map(|(&id, _)| id)
            .collect();
        // Those that the operator named come first, and then one of each host in turn: anybody can be many.
        let rank = |id: &RegistrarId| {
            let host = self.peers_host(*id);
            let tried = failed.values().filter(|failed| failed.host == host).count();
            (!self.is_configured(*id), tried, *id)
        };
        let best = |ids: &mut dyn Iterator<Item = RegistrarId>| ids.min_by_key(rank);
        let fresh = best(&mut linked.iter().copied().filter(|id| !failed.contains_key(id)));
        if fresh.is_some_and(|id| !self.is_configured(id)) && self.expects_configured() {
            // One that comes by itself meanwhile may be asked as well, soon.
            return self.timers.set(Timer::MentorRetry, self.join.began + SETTLE);
        }
        let candidate = fresh.or_else(|| best(&mut linked.iter().copied().filter(rested)));
        let pending = !linked.is_empty();
        if fresh.is_none() && (self.join.over || self.nobody_else() || self.first_of_many()) {
            return self.serve();
        }
        match candidate {
            Some(mentor) => self.ask_mentor(mentor),
            None if pending => self.timers.set(Timer::MentorRetry, now + MENTOR_PAUSE),
            None => {}
        }
    }

    /// Whether a configured peer is on its way to be asked for the first time.
    fn expects_configured(&self) -> bool {
        let expected = |entry: &StaticPeer| {
            entry.failed == 0 && (entry.dialling || (entry.link.is_some() && entry.id.is_none()))
        };
        self.now - self.join.began < SETTLE && self.statics.iter().any(expected)
    }

    /// Whether no configured peer is there, and none can announce itself.
    fn nobody_else(&self) -> bool {
        let absent =
            |entry: &StaticPeer| entry.ourselves || (entry.link.is_none() && entry.failed >= STATIC_DIALS);
        !self.config.announce_enrp
            && !self.config.awaits_peers
            && self.statics.iter().all(absent)
            && self.peers.table.values().all(|peer| peer.link.is_none())
    }

    /// Whether all that we know are joining too, and we have the lowest ID: somebody has to begin.
    fn first_of_many(&self) -> bool {
        let mut linked = self.peers.table.iter().filter(|(_, peer)| peer.link.is_some()).peekable();
        self.now - self.join.began >= SETTLE
            && linked.peek().is_some()
            && linked.all(|(id, _)| self.id < *id && self.join.failed.contains_key(id))
            && !self.statics.iter().any(|entry| entry.dialling)
    }

    fn ask_mentor(&mut self, mentor: RegistrarId) {
        self.join.mentor = Some(mentor);
        self.join.host = self.peers_host(mentor);
        self.join =
            Join { asked: self.now, idle: 0, told: 0, reached: None, ..std::mem::take(&mut self.join) };
        self.mentor_continues();
        self.send_presence(mentor, true);
        self.send_enrp(mentor, Enrp::ListRequest);
        self.send_enrp(mentor, Enrp::HandleTableRequest { own_only: false });
    }

    /// A part came and the next one is asked for.
    pub(super) fn mentor_continues(&mut self) {
        let patience = self.config.peer_max_time_no_response.max(MENTOR_PATIENCE);
        self.timers.set(Timer::Mentor, self.now + patience);
    }

    /// Whether the mentor has not told of an element before.
    pub(super) fn is_told_first(&mut self, handle: &PoolHandle, id: PeId) -> bool {
        // Tables are in this order. Somebody else's may not be: then what is not known is new.
        let beyond = self.join.reached.as_ref().is_none_or(|last| (&last.0, last.1) < (handle, id));
        if beyond {
            self.join.reached = Some((handle.clone(), id));
        }
        beyond || self.space.find(handle, id).is_none()
    }

    /// A part of the mentor's table came and more is to follow: whether to ask for it. `new`: how much of it was.
    pub(super) fn mentor_helps(&mut self, new: u32) -> bool {
        let join = &mut self.join;
        join.idle = if new > 0 { 0 } else { join.idle + 1 };
        join.told = join.told.saturating_add(new);
        join.told_by_all = join.told_by_all.saturating_add(new);
        let given_up = join.idle > MENTOR_IDLE || self.now - join.asked > time_for(MENTOR_TIME, join.told);
        if given_up {
            let who = self.join.mentor.map_or("a mentor".into(), |mentor| self.called(mentor));
            self.complain("mentor", || format!("{who}, our mentor, does not come to the end of its table"));
            self.give_up_mentor();
        }
        !given_up
    }

    /// Joining has had its time.
    pub(super) fn joining_over(&mut self) {
        if self.join.served {
            return;
        }
        let least = JOINING_TIME.max(self.config.mentor_discovery_timeout);
        let due = self.join.began + time_for(least, self.join.told_by_all);
        if due > self.now || self.overslept {
            return self.timers.set(Timer::Joined, due.max(self.now + MENTOR_PAUSE));
        }
        self.complain("joining", || "no mentor comes to the end of its table: service starts without".into());
        let mentor = self.join.mentor;
        self.serve();
        // So that what it still sends is not taken for something else.
        for link in mentor.map(|mentor| self.links_of(mentor)).unwrap_or_default() {
            self.close_link(link);
        }
    }

    pub(super) fn mentor_rejects(&mut self, mentor: RegistrarId) {
        self.without_mentor(mentor);
    }

    fn without_mentor(&mut self, mentor: RegistrarId) {
        self.mentor_failed(mentor);
        self.join.mentor = None;
        self.timers.clear(&Timer::Mentor);
        self.seek_mentor();
    }

    fn mentor_failed(&mut self, mentor: RegistrarId) {
        let failed = PastMentor { when: self.now, host: self.join.host };
        self.join.failed.insert(mentor, failed);
    }

    /// The mentor fell silent in the middle: another one, from the beginning.
    pub(super) fn mentor_silent(&mut self) {
        if self.overslept {
            return self.mentor_continues();
        }
        self.give_up_mentor();
    }

    fn give_up_mentor(&mut self) {
        let Some(mentor) = self.join.mentor else { return };
        // Closing makes it forget how far we read.
        self.mentor_failed(mentor);
        for link in self.links_of(mentor) {
            self.close_link(link);
        }
        self.mentor_gone(mentor);
    }

    /// A peer is lost; was it the mentor?
    pub(super) fn mentor_gone(&mut self, id: RegistrarId) {
        if self.join.mentor == Some(id) {
            self.without_mentor(id);
        } else {
            self.seek_mentor();
        }
    }

    pub(super) fn mentor_done(&mut self, mentor: RegistrarId) {
        if let Some(peer) = self.peers.get_mut(mentor) {
            peer.audit.done_otherwise();
        }
        self.join.learnt = true;
        self.serve();
    }

    pub(super) fn discovery_over(&mut self) {
        self.join.over = true;
        self.seek_mentor();
    }

    /// ASAP service starts.
    fn serve(&mut self) {
        // Whoever had a mentor knows all that there is.
        let alone = !self.join.learnt;
        self.join = Join { served: true, ..Join::default() };
        if alone && !self.config.return_time.is_zero() {
            self.returning = true;
            self.timers.set(Timer::Returned, self.now + self.config.return_time);
        }
        for timer in [Timer::Mentor, Timer::MentorRetry, Timer::Discovery, Timer::Joined] {
            self.timers.clear(&timer);
        }
        self.event(Event::Serving);
        self.announce_asap();
        for id in self.peers.linked() {
            self.send_presence(id, true);
        }
        // Whoever died before there was somebody to take over from it.
        let dead: Vec<RegistrarId> =
            self.peers.table.iter().filter(|(_, peer)| peer.life.is_dead()).map(|(&id, _)| id).collect();
        for id in dead {
            self.start_takeover(id);
        }
        self.start(Chore::Deferred { after: None });
        self.dial_claims();
    }

    /// T6-Serverannounce: where elements and users find us.
    pub(super) fn announce_asap(&mut self) {
        if !self.config.announce_asap || !self.is_serving() {
            return;
        }
        let due = self.now + self.jitter(self.config.server_announce_cycle, 12);
        self.timers.set(Timer::Announce, due);
        let mut transports = self.config.asap_transports.clone();
        order_announced(&mut transports);
        let message = crate::wire::Asap::ServerAnnounce { registrar: self.id, transports };
        self.outbox.push(crate::machine::Output::Announce {
            service: super::Service::Asap,
            bytes: message.encode_as(self.config.lengths()),
        });
    }
}
