//! The hunt for a registrar (RFC 5352 section 3.6): whom to dial, in which order, and when.

use super::announced::{Announced, same_way};
use super::effects::{Effects, Timer};
use super::home::{Candidate, Spare};
use super::{Config, Home, LinkId, RegistrarId, Target, Time};
use crate::machine::timer::jitter;
use crate::machine::{LinkEnds, LinkProtocol};
use crate::wire::Transport;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// No more than three registrar connections (RFC 5352 section 3.6, SH1).
const MAX_LINKS: usize = 3;
/// Between two dials (RFC 8305 section 5); a registrar next door has answered by then.
const STAGGER: Duration = Duration::from_millis(250);
/// A dial without an answer for so long may be lost: the same may be dialled once more.
const LOST: Duration = Duration::from_secs(1);
/// Before everybody is tried again: at first, and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Others have this head start before a registrar that did not answer is dialled again.
const HEAD_START: Duration = Duration::from_secs(1);
/// How long a registrar that did not answer is tried last.
const HUNG: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct HuntDial {
    candidate: Candidate,
    since: Time,
}

/// ```text
///        something to ask                    the first link is up:
/// Idle ───────────────────► Seeking ─────────────────────────────► Idle, with a home
///   ▲                        │  ▲ │ ▲                               │          ▲
///   │   nothing left to ask  │  │ └─┘ T5, refused, announcement:    │ silent   │ it answers
///   ├────────────────────────┘  │     dial more                     ▼          │
///   │                           └───────────────────────────── Probing ────────┤
///   │                             the home is gone              │   ▲          │
///   │                                            a link is up   ▼   │ it goes  │
///   └────────────────────────────────────────────────────────── Spare ─────────┘
///                 the home is gone: the spare is the home
/// ```
/// If the first link that is up leads to a registrar that did not answer before, the others on their
/// way are kept: Probing instead of Idle.
#[derive(Debug, Default)]
enum HuntState {
    /// Nobody is being dialled.
    #[default]
    Idle,
    /// There is no home.
    Seeking,
    /// There is a home that does not answer.
    Probing,
    /// There is somebody to move to.
    Spare(Spare),
}

#[derive(Debug, Default)]
pub(super) struct Hunt {
    state: HuntState,
    /// To be dialled, best first, those that hung last.
    queue: VecDeque<Candidate>,
    dials: BTreeMap<LinkId, HuntDial>,
    next_dial: Time,
    /// When to try everybody again; set while the queue is empty.
    refill_at: Option<Time>,
    /// How often everybody was tried in this hunt.
    rounds: u32,
    /// Whether a dial was given up without an answer in this hunt.
    gave_up: bool,
    /// How long a dial may keep others from being tried.
    dial_time: Duration,
    /// Homes in a row that went before they were of any use.
    failures: u32,
    /// Registrars that did not answer: tried last.
    hung: BTreeMap<Target, Time>,
    /// Registrars that went as soon as they came: not tried until then.
    cooling: BTreeMap<Target, Time>,
    announced: Announced,
}

impl Hunt {
    /// Hunts for a home, if it does not already.
    pub fn seek(&mut self, fx: &mut Effects, config: &Config) {
        if matches!(self.state, HuntState::Idle | HuntState::Probing) {
            self.state = HuntState::Seeking;
            self.rounds = 0;
            self.gave_up = false;
            self.next_dial = fx.now;
            self.refill(fx, config);
        }
        self.step(fx, config);
    }

    /// There are others to be dialled than before.
    pub fn renew(&mut self, fx: &mut Effects, config: &Config) {
        if matches!(self.state, HuntState::Seeking) {
            self.rounds = 0;
            self.next_dial = fx.now;
            self.refill(fx, config);
            self.step(fx, config);
        }
    }

    /// Looks for somebody to move to while `home` does not answer.
    pub fn probe(&mut self, fx: &mut Effects, config: &Config, home: &Home) {
        if matches!(self.state, HuntState::Idle) {
            self.state = HuntState::Probing;
            self.next_dial = fx.now;
            self.refill(fx, config);
            let way = Target { protocol: home.ends.protocol, addresses: home.ends.peer.clone() };
            let hung = &self.hung;
            self.queue.retain(|candidate| {
                let same_id = candidate.registrar == home.registrar && home.registrar.0 != 0;
                let ways = [Some(&way), home.target.as_ref()];
                !same_id
                    && !ways.into_iter().flatten().any(|way| same_way(way, &candidate.host))
                    && !hung.contains_key(&candidate.host)
            });
        }
        self.step(fx, config);
    }

    /// Ends the hunt: everything dialled and the spare are closed.
    pub fn cease(&mut self, fx: &mut Effects) {
        if matches!(self.state, HuntState::Idle) {
            return;
        }
        if let HuntState::Spare(spare) = std::mem::take(&mut self.state) {
            fx.close(spare.link);
        }
        for link in std::mem::take(&mut self.dials).into_keys() {
            fx.close(link);
        }
        self.queue.clear();
        self.refill_at = None;
        fx.timers.clear(&Timer::T5ServerHunt);
    }

    /// A link is up. `Some`: it is the new home's.
    pub fn up(&mut self, fx: &mut Effects, config: &Config, link: LinkId, ends: LinkEnds) -> Option<Spare> {
        let dial = self.dials.remove(&link)?;
        let spare = Spare { link, candidate: dial.candidate, ends };
        if matches!(self.state, HuntState::Probing) {
            self.cease(fx);
            self.state = HuntState::Spare(spare);
            return None;
        }
        // One that did not answer before is better than none, but those still on their way are not
        // given up for it.
        if self.is_hung(fx.now, &spare.candidate.host) {
            self.keep_only_fresh(fx);
            if !self.dials.is_empty() {
                self.state = HuntState::Probing;
                self.step(fx, config);
                return Some(spare);
            }
        }
        self.cease(fx);
        Some(spare)
    }

    /// Ends what was dialled in vain before.
    fn keep_only_fresh(&mut self, fx: &mut Effects) {
        let (now, hung) = (fx.now, std::mem::take(&mut self.hung));
        let is_hung = |target: &Target| hung.get(target).is_some_and(|&until| until > now);
        self.dials.retain(|&link, dial| {
            let stays = !is_hung(&dial.candidate.host);
            if !stays {
                fx.close(link);
            }
            stays
        });
        self.queue.retain(|candidate| !is_hung(&candidate.host));
        self.refill_at = None;
        self.hung = hung;
    }

    /// A link is down; true if it was one of the hunt's.
    pub fn down(&mut self, fx: &mut Effects, config: &Config, link: LinkId) -> bool {
        if self.is_spare(link) {
            self.state = HuntState::Probing;
        } else if self.dials.remove(&link).is_some() {
            self.next_dial = fx.now;
        } else {
            return false;
        }
        self.step(fx, config);
        true
    }

    /// The link in reserve, to become the home.
    pub fn take_spare(&mut self) -> Option<Spare> {
        match std::mem::take(&mut self.state) {
            HuntState::Spare(spare) => Some(spare),
            other => {
                self.state = other;
                None
            }
        }
    }

    pub fn has_spare(&self) -> bool {
        matches!(self.state, HuntState::Spare(_))
    }

    pub fn is_spare(&self, link: LinkId) -> bool {
        matches!(&self.state, HuntState::Spare(spare) if spare.link == link)
    }

    /// A home that answered: whatever it did before is forgotten.
    pub fn home_answered(&mut self, target: Option<&Target>) {
        if let Some(target) = target {
            self.hung.remove(target);
            self.cooling.remove(target);
        }
    }

    /// A home that did not answer is tried last for a while, by whatever way.
    pub fn home_hung(&mut self, now: Time, config: &Config, home: &Home) {
        self.hung.retain(|_, &mut until| until > now);
        let until = now + HUNG.max(config.response_timeout.saturating_mul(3));
        let mut ways: Vec<Target> = home.target.iter().cloned().collect();
        for (registrar, targets) in self.announced.registrars() {
            if registrar == home.registrar && registrar.0 != 0 {
                ways.extend(targets);
            }
        }
        self.hung.extend(ways.into_iter().map(|target| (target, until)));
    }

    /// A home link went. Of one that was of no use another dial waits, or both would spin.
    pub fn home_lost(&mut self, fx: &mut Effects, target: Option<&Target>, useful: bool) {
        let now = fx.now;
        if useful {
            self.failures = 0;
            return;
        }
        let pause = back_off(fx, self.failures);
        self.failures = self.failures.saturating_add(1);
        self.cooling.retain(|_, &mut until| until > now);
        if let Some(target) = target {
            self.cooling.insert(target.clone(), now + pause);
        }
    }

    /// How many announcements are remembered.
    pub fn announced_len(&self) -> usize {
        self.announced.len()
    }

    /// Whether everybody was dialled at least once in this hunt.
    pub fn tried_all(&self) -> bool {
        self.rounds > 0
    }

    /// Whether everybody was dialled, and nobody is there: not one dial is without an answer.
    pub fn is_refused_everywhere(&self) -> bool {
        self.rounds > 0 && self.dials.is_empty() && matches!(self.state, HuntState::Seeking) && !self.gave_up
    }

    /// Whether nobody is left in this round but those that did not answer before.
    pub fn only_hung_left(&self, now: Time) -> bool {
        let hung = |candidate: &Candidate| self.is_hung(now, &candidate.host);
        matches!(self.state, HuntState::Seeking)
            && self.queue.iter().all(hung)
            && self.dials.values().all(|dial| hung(&dial.candidate))
    }

    fn is_hung(&self, now: Time, target: &Target) -> bool {
        self.hung.get(target).is_some_and(|&until| until > now)
    }

    /// A registrar announced itself; one that is news is dialled at once.
    pub fn announced(
        &mut self,
        fx: &mut Effects,
        config: &Config,
        from: SocketAddr,
        registrar: RegistrarId,
        transports: &[Transport],
    ) {
        let now = fx.now;
        self.announced.outdate(now);
        let mut news = self.announced.hear(now, config.announce_timeout, from, registrar, transports);
        self.wind_t7(fx);
        if !matches!(self.state, HuntState::Seeking) {
            return;
        }
        news.retain(|target| config.protocols.contains(&target.protocol) && !self.is_under_way(target));
        if news.is_empty() {
            return;
        }
        news.sort_by_key(|target| config.protocols.iter().position(|one| *one == target.protocol));
        self.queue.retain(|waiting| !news.iter().any(|target| same_way(target, &waiting.target)));
        for candidate in news.into_iter().rev().flat_map(|host| one_by_one(host, registrar).rev()) {
            self.queue.push_front(candidate);
        }
        self.refill_at = None;
        self.next_dial = now;
        if self.dials.len() >= MAX_LINKS {
            self.give_up_oldest(fx, STAGGER);
        }
        self.step(fx, config);
    }

    /// T7-ENRPoutdate: announcements not renewed are forgotten.
    pub fn outdate(&mut self, fx: &mut Effects) {
        self.announced.outdate(fx.now);
        self.wind_t7(fx);
    }

    fn wind_t7(&mut self, fx: &mut Effects) {
        fx.wind(Timer::T7EnrpOutdate, self.announced.next_outdated());
    }

    /// Which registrar announces the address at the other end.
    pub fn registrar_at(&self, ends: &LinkEnds) -> Option<RegistrarId> {
        self.announced.registrar_at(ends.protocol, &ends.peer)
    }

    /// Where static registrars, and those that announce themselves, say they are.
    pub fn registrars_addresses<'a>(&'a self, config: &'a Config) -> impl Iterator<Item = &'a SocketAddr> {
        let lists = config.registrars.iter().chain(self.announced.targets());
        lists.flat_map(|target| &target.addresses)
    }

    /// Dials whoever is due, and sets T5-Serverhunt to the next moment at which somebody may be.
    fn step(&mut self, fx: &mut Effects, config: &Config) {
        let now = fx.now;
        let limit = match self.state {
            HuntState::Seeking => MAX_LINKS,
            HuntState::Probing => MAX_LINKS - 1,
            HuntState::Idle | HuntState::Spare(_) => return,
        };
        self.give_up_late(fx, config.connect_timeout);
        loop {
            if self.queue.is_empty() && !self.next_round(fx, config) {
                break;
            }
            self.make_room(fx, limit);
            if self.dials.len() >= limit || now < self.next_dial || now < self.hung_may_be_dialled(now) {
                break;
            }
            let Some(candidate) = self.queue.pop_front() else { break };
            let link = fx.open(candidate.target.clone());
            self.dials.insert(link, HuntDial { candidate, since: now });
            self.next_dial = now + STAGGER;
        }
        fx.wind(Timer::T5ServerHunt, self.next_step(now, limit, config.connect_timeout));
    }

    /// Everybody was dialled: fills the queue anew when the back-off is over. False: not yet.
    fn next_round(&mut self, fx: &mut Effects, config: &Config) -> bool {
        let now = fx.now;
        if !matches!(self.state, HuntState::Seeking) {
            return false;
        }
        if self.refill_at.is_some_and(|at| at <= now) {
            self.refill(fx, config);
        }
        if self.queue.is_empty() && self.refill_at.is_none() {
            self.refill_at = Some(now + back_off(fx, self.rounds.max(self.failures)));
            self.rounds = self.rounds.saturating_add(1);
        }
        !self.queue.is_empty()
    }

    /// When the first in the queue may be dialled as far as those that hung must wait.
    fn hung_may_be_dialled(&self, now: Time) -> Time {
        match self.queue.front() {
            Some(first) if self.is_hung(now, &first.host) => self
                .dials
                .values()
                .filter(|dial| !self.is_hung(now, &dial.candidate.host))
                .map(|dial| self.first_dialled(&dial.candidate.host).unwrap_or(dial.since) + HEAD_START)
                .max()
                .unwrap_or(now),
            _ => now,
        }
    }

    /// Since when a host is being dialled.
    fn first_dialled(&self, host: &Target) -> Option<Time> {
        let same = self.dials.values().filter(|dial| dial.candidate.host == *host);
        same.map(|dial| dial.since).min()
    }

    fn next_step(&self, now: Time, limit: usize, connect_timeout: Duration) -> Option<Time> {
        let oldest = self.dials.values().map(|dial| dial.since).min();
        let late = oldest.map(|since| since + connect_timeout);
        let more = if self.queue.is_empty() {
            self.refill_at
        } else if self.dials.len() >= limit {
            let again = self.queue.front().and_then(|next| self.first_dialled(&next.host));
            let room = oldest.map(|since| since + self.dial_time);
            let room = room.into_iter().chain(again.map(|since| since + 2 * LOST)).min();
            room.map(|time| time.max(self.next_dial))
        } else {
            Some(self.next_dial.max(self.hung_may_be_dialled(now)))
        };
        late.into_iter().chain(more).min()
    }

    /// Where dials get lost, a new one gets through sooner than what the kernel repeats at ever longer intervals.
    /// So whoever is dialled again has no more than two dials, and the old one makes room if that is needed.
    fn make_room(&mut self, fx: &mut Effects, limit: usize) {
        if let Some(next) = self.queue.front() {
            let mut same: Vec<(Time, LinkId)> = self
                .dials
                .iter()
                .filter(|(_, dial)| same_way(&dial.candidate.target, &next.target))
                .map(|(&link, dial)| (dial.since, link))
                .collect();
            same.sort();
            if let Some(&(since, link)) = same.first()
                && (same.len() > 1 || self.dials.len() >= limit && fx.now - since >= 2 * LOST)
            {
                self.gave_up = true;
                self.dials.remove(&link);
                fx.close(link);
            }
        }
        if self.dials.len() >= limit {
            self.give_up_oldest(fx, self.dial_time);
        }
    }

    /// Gives up dials that took longer than a dial may.
    fn give_up_late(&mut self, fx: &mut Effects, limit: Duration) {
        self.dials.retain(|&link, dial| {
            let stays = fx.now < dial.since + limit;
            if !stays {
                self.gave_up = true;
                fx.close(link);
            }
            stays
        });
    }

    /// Gives up the longest running dial if it has had `least`, to make room for another.
    fn give_up_oldest(&mut self, fx: &mut Effects, least: Duration) {
        let oldest =
            self.dials.iter().min_by_key(|(_, dial)| dial.since).map(|(&link, dial)| (link, dial.since));
        if let Some((link, since)) = oldest
            && since + least <= fx.now
        {
            self.gave_up = true;
            self.dials.remove(&link);
            fx.close(link);
        }
    }

    fn is_under_way(&self, target: &Target) -> bool {
        self.dials.values().any(|dial| same_way(&dial.candidate.target, target))
    }

    /// Whether it was dialled a moment ago.
    fn may_still_answer(&self, now: Time, target: &Target) -> bool {
        self.dials.values().any(|dial| now < dial.since + LOST && same_way(&dial.candidate.target, target))
    }

    /// Everybody who may be dialled: static, announced, fallback; chance decides among equals, so that
    /// not all users of a scope choose the same registrar. The ways to one registrar stay together.
    fn refill(&mut self, fx: &mut Effects, config: &Config) {
        let now = fx.now;
        self.refill_at = None;
        self.announced.outdate(now);
        let listed = |targets: &[Target]| -> Vec<(RegistrarId, Vec<Target>)> {
            by_host(targets).into_iter().map(|ways| (RegistrarId(0), ways)).collect()
        };
        let classes = [listed(&config.registrars), self.announced.registrars(), listed(&config.fallback)];
        let mut queue: Vec<Candidate> = Vec::new();
        for mut registrars in classes {
            fx.rng.shuffle(&mut registrars);
            for (registrar, mut ways) in registrars {
                ways.retain(|target| config.protocols.contains(&target.protocol));
                ways.sort_by_key(|target| config.protocols.iter().position(|one| *one == target.protocol));
                for candidate in ways.into_iter().flat_map(|host| one_by_one(host, registrar)) {
                    let cools = self.cooling.get(&candidate.host).is_some_and(|&until| until > now);
                    match queue.iter_mut().find(|known| same_way(&known.target, &candidate.target)) {
                        Some(known) if known.registrar.0 == 0 => known.registrar = registrar,
                        Some(_) => {}
                        None if cools || self.may_still_answer(now, &candidate.target) => {}
                        None => queue.push(candidate),
                    }
                }
            }
        }
        queue.sort_by_key(|candidate| self.is_hung(now, &candidate.host));
        let waves = u32::try_from(queue.len().div_ceil(MAX_LINKS)).unwrap_or(u32::MAX).max(1);
        let least = Duration::from_secs(1).min(config.connect_timeout);
        self.dial_time = (config.connect_timeout / waves).max(least);
        self.queue = queue.into();
    }
}

/// SCTP tries all addresses of a host at once; over TCP each is a dial of its own, a moment after the last
/// (RFC 8305), so that one that swallows what is sent to it holds up nobody.
fn one_by_one(host: Target, registrar: RegistrarId) -> std::vec::IntoIter<Candidate> {
    let addresses: Vec<Vec<SocketAddr>> = match host.protocol {
        LinkProtocol::Sctp => vec![host.addresses.clone()],
        LinkProtocol::Tcp => host.addresses.iter().map(|&address| vec![address]).collect(),
    };
    let candidate = |addresses| Candidate {
        target: Target { protocol: host.protocol, addresses },
        host: host.clone(),
        registrar,
    };
    addresses.into_iter().map(candidate).collect::<Vec<_>>().into_iter()
}

/// Groups the targets that share an address, whatever their protocol: one host, several ways.
fn by_host(targets: &[Target]) -> Vec<Vec<Target>> {
    let mut hosts: Vec<Vec<Target>> = Vec::new();
    for target in targets {
        let shares = |other: &Target| other.addresses.iter().any(|one| target.addresses.contains(one));
        match hosts.iter_mut().find(|ways| ways.iter().any(shares)) {
            Some(ways) => ways.push(target.clone()),
            None => hosts.push(vec![target.clone()]),
        }
    }
    hosts
}

/// Doubles with each try, random, within its bounds.
fn back_off(fx: &mut Effects, tries: u32) -> Duration {
    let (least, most) = BACK_OFF;
    let mean = least.saturating_mul(1 << tries.min(10)).min(most);
    jitter(&mut fx.rng, mean, 25).clamp(least, most)
}
