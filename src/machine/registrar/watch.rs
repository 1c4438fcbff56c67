//! Watching the elements we are home of: keep-alives, reports, lost links (RFC 5352 sections 3.4, 3.5).
//!
//! The process answers, not the element, so one keep-alive per link and interval is enough; it names
//! the link's elements in turn. If nothing at all comes back within the time-out, the process hangs
//! and all its elements go; if other things come but no answer, only the element named goes.
//!
//! How long an answer may take depends on the link, which only the kernel knows ([`Output::Measure`]). Where
//! what we sent was acknowledged and nothing was lost lately, the process had its keep-alive and hangs. Where
//! something is stuck or gets lost, the answer may be on its way for as long as it takes to send it again.
//!
//! A lost *answer* shows nowhere at our end, and over SCTP its sender waits a second or longer before it sends it again. So
//! a missing answer is asked for again there: the next one arrives behind the gap, which our kernel does know of, and a few of
//! them have the lost one sent again at once (RFC 9260 section 7.2.4).

use super::asap::AsapLink;
use super::chores::Chore;
use super::{LinkId, Registrar, Timer, dialect, reach};
use crate::handlespace::{ElementKey, marks};
use crate::machine::{LinkProtocol, Measurement, Output, Time};
use crate::wire::{Asap, CauseCode, OperationError, PeId, PoolElement, PoolHandle};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::time::Duration;

/// Bound on elements of a link that may come back by a late answer, and on the bytes of those of all links.
const MAX_OVERDUE: usize = 64;
pub(super) const MAX_OVERDUE_BYTES: usize = 16 << 20;
/// How much later than its registration life says an element goes at most.
const SLOT: Duration = Duration::from_millis(128);
/// An element of which nothing is due for longer is looked at all the same.
const LONGEST: Duration = Duration::from_secs(3600);

/// What an overdue element takes.
fn size(handle: &PoolHandle, element: &PoolElement) -> usize {
    const RECORD: usize = 256;
    RECORD + handle.as_bytes().len() + element.encoded_len()
}

/// What the elements of a link that may come back take.
pub(super) fn overdue_bytes(client: &AsapLink) -> usize {
    client.overdue.iter().map(|((handle, _), element)| size(handle, element)).sum()
}

/// Which registrations may have ended when: each element that there is once at most.
#[derive(Debug, Default)]
pub(super) struct Lives {
    slots: BTreeSet<(u64, ElementKey)>,
}

impl Lives {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// For the check of our tables.
    pub(super) fn check<'a>(&self, due: impl Iterator<Item = (u64, ElementKey)> + 'a) -> bool {
        due.filter(|(due, _)| *due != 0).collect::<BTreeSet<_>>() == self.slots
    }
}

fn slot(time: Time) -> u64 {
    time.0.div_ceil(SLOT.as_micros() as u64)
}

fn begin(slot: u64) -> Time {
    Time(slot * SLOT.as_micros() as u64)
}

/// Hosts whose reports about an element are remembered.
const MAX_REPORTERS: usize = 64;
/// Elements of which reports are remembered.
pub(super) const MAX_REPORTED: usize = 1 << 16;
/// How long a loss says something about a link.
const ROUGH: Duration = Duration::from_secs(30);
/// How long the driver may take to measure, and how often a link is measured while an answer is missing.
const MEASURING: Duration = Duration::from_millis(10);
const MEASURED_AGAIN: Duration = Duration::from_millis(250);
/// How often it is asked for, where it is asked for again, before the shortest time is over in which it may come.
const ASKED_BEFORE: u32 = 3;
/// For how many elements of a link one measurement decides at once.
const DECISIONS: usize = 64;

/// How a link has been lately.
#[derive(Debug, Default)]
pub(super) struct Road {
    round_trip: Duration,
    /// What had been sent again when everything was last acknowledged.
    retransmissions: u64,
    /// Whether something lacks its acknowledgement.
    stuck: bool,
    /// When things were last found to have been sent again, and the time before.
    losses: [Option<Time>; 2],
}

impl Road {
    pub fn note(&mut self, now: Time, measured: &Measurement) {
        self.round_trip = measured.round_trip.unwrap_or(self.round_trip);
        self.stuck = measured.unacknowledged;
        // While nothing comes through, that it is sent again says nothing new.
        if !self.stuck && measured.retransmissions > self.retransmissions {
            self.retransmissions = measured.retransmissions;
            self.losses = [Some(now), self.losses[0]];
        }
    }

    /// The process came this way at `since`, while the one that it had was up: that it gave that one up counts as a loss.
    fn instead_of(&mut self, since: Time, before: [Option<Time>; 2]) {
        let known = before.into_iter().chain(self.losses).chain([Some(since)]);
        let last = known.clone().max().flatten();
        self.losses = [last, known.filter(|&time| time < last).max().flatten()];
    }

    /// How many losses were found lately, at most two.
    fn losses(&self, now: Time) -> usize {
        self.losses.iter().flatten().filter(|&&time| now - time < ROUGH).count()
    }
}

impl Registrar {
    /// Notes that an element is registered over `link`.
    pub(super) fn attach(&mut self, key: ElementKey, link: LinkId) {
        let Some(side) = self.side(key) else { return };
        let now = self.now;
        if side.link != Some(link) {
            let before = side.link.and_then(|left| self.links.get(&left)).map(|left| left.road.losses);
            if let Some((before, state)) = before.zip(self.links.get_mut(&link)) {
                state.road.instead_of(state.since, before);
            }
            self.detach(key);
            self.reports.remove(&key);
        }
        if let Some(side) = self.side_mut(key) {
            side.link = Some(link);
            side.heard = now;
            side.stays = false;
            if side.probed.take().is_some() {
                self.timers.clear(&Timer::Probe(key));
            }
        }
        let name = self.space.get(key).map(|element| (element.handle().clone(), element.id()));
        let Some(client) = self.client(link) else { return };
        if client.elements.insert(key) {
            let bytes = name.as_ref().map_or(0, |(handle, _)| handle.as_bytes().len());
            client.bytes += bytes;
            let host = client.host;
            self.shares.change(host, |share| {
                share.elements += 1;
                share.bytes += bytes;
            });
        }
        if let Some((handle, id)) = name {
            self.take_overdue(link, &handle, id);
        }
        if self.timers.get(&Timer::KeepAlive(link)).is_none() {
            self.watched += 1;
            self.schedule_keep_alive(link);
        }
    }

    /// Ends keep-alives on a link.
    pub(super) fn stop_watching(&mut self, link: LinkId) {
        if self.timers.clear(&Timer::KeepAlive(link)) {
            self.watched -= 1;
        }
    }

    fn schedule_keep_alive(&mut self, link: LinkId) {
        let rate = u64::from(self.config.max_keep_alives_per_second.max(1));
        let stretched = Duration::from_micros(self.watched as u64 * 1_000_000 / rate);
        let interval = self.config.endpoint_keep_alive_transmission_interval.max(stretched);
        let due = self.now + self.jitter(interval, 50);
        self.timers.set(Timer::KeepAlive(link), due);
    }

    pub(super) fn keep_alive_due(&mut self, link: LinkId) {
        let Some(client) = self.client(link) else { return };
        let after = client.turn.map_or(Bound::Unbounded, Bound::Excluded);
        let next =
            client.elements.range((after, Bound::Unbounded)).next().or(client.elements.first()).copied();
        client.turn = next;
        let Some(key) = next else {
            // The timer is spent: nothing left to clear.
            self.watched -= 1;
            return;
        };
        self.probe(key);
        self.schedule_keep_alive(link);
    }

    /// Sends a keep-alive over the element's link, unless one is under way.
    pub(super) fn probe(&mut self, key: ElementKey) {
        let Some(side) = self.side(key) else { return };
        let (Some(link), None) = (side.link, side.probed) else { return };
        if self.is_claimed_over(key, link) {
            return;
        }
        let now = self.now;
        if let Some(side) = self.side_mut(key) {
            side.probed = Some(now);
        }
        let patience = self.answer_patience(link);
        let next = if self.resends_late(link) { patience / ASKED_BEFORE } else { patience };
        self.timers.set(Timer::Probe(key), now + next);
        // What was lost before is no reason to wait longer for this answer.
        self.outbox.push(Output::Measure { link });
        self.send_keep_alive(link, key, false);
    }

    /// Asks an element once more, whose answer is missing.
    fn ask_again(&mut self, link: LinkId, key: ElementKey) {
        if !self.is_claimed_over(key, link) {
            self.send_keep_alive(link, key, false);
        }
    }

    /// Whether what is lost is sent again only after a second, and after twice as long each time, as SCTP does (RFC 9260
    /// section 6.3.3): a missing answer is asked for again while it may still come, and one loss is much.
    fn resends_late(&self, link: LinkId) -> bool {
        self.links.get(&link).is_some_and(|state| state.ends.protocol == LinkProtocol::Sctp)
    }

    /// How long an answer may take over a link on which nothing gets lost.
    pub(super) fn answer_patience(&self, link: LinkId) -> Duration {
        let limit = self.config.endpoint_keep_alive_timeout_interval;
        let Some(state) = self.links.get(&link) else { return limit };
        limit.max(3 * state.road.round_trip)
    }

    /// How long an answer may take over a link as it is now.
    fn most_patience(&self, link: LinkId) -> Duration {
        let patience = self.answer_patience(link);
        let Some(state) = self.links.get(&link) else { return patience };
        let paths = usize::from(reach::has_several_paths(&state.ends));
        let trouble = state.road.losses(self.now).max(usize::from(state.road.stuck));
        let weight = if self.resends_late(link) { 2 } else { 1 };
        match weight * trouble + paths {
            0 => patience,
            1 => patience.max(self.config.path_change_timeout),
            _ => patience.max(self.config.lossy_link_timeout),
        }
    }

    /// Sends a keep-alive for an element.
    pub(super) fn send_keep_alive(&mut self, link: LinkId, key: ElementKey, home: bool) {
        let Some(element) = self.space.get(key) else { return };
        let (handle, id) = (element.handle().clone(), Some(element.id()));
        self.stats.keep_alives_sent += 1;
        self.send_asap(link, &Asap::EndpointKeepAlive { home, registrar: self.id, handle, id });
    }

    pub(super) fn keep_alive_ack(&mut self, link: LinkId, handle: &PoolHandle, id: PeId) {
        if !self.may_serve(link, handle) {
            return;
        }
        self.claim_answered(link, handle, id);
        let now = self.now;
        let Some(key) = self.space.find(handle, id) else { return self.answered_late(link, handle, id) };
        let Some(side) = self.side_mut(key) else { return };
        if side.link != Some(link) {
            return;
        }
        side.heard = now;
        if let Some(probed) = side.probed.take() {
            self.answers.add(now - probed);
            self.timers.clear(&Timer::Probe(key));
        }
        // It was just heard, which is more than others can say.
        self.reports.remove(&key);
        if let Some(client) = self.client(link) {
            client.unanswered.remove(&key);
        }
    }

    /// An answer is missing: what that means is decided when the link has been measured.
    pub(super) fn probe_unanswered(&mut self, key: ElementKey) {
        let overslept = self.overslept;
        let Some(side) = self.side_mut(key) else { return };
        let (Some(probed), Some(link)) = (side.probed, side.link) else { return };
        if overslept {
            side.probed = None;
            return self.probe(key);
        }
        let patience = self.answer_patience(link);
        let due = probed + patience;
        if self.now < due && self.resends_late(link) {
            self.timers.set(Timer::Probe(key), due.min(self.now + patience / ASKED_BEFORE));
            return self.ask_again(link, key);
        }
        let Some(client) = self.client(link) else { return };
        match client.unanswered.insert(key) {
            true => {
                self.timers.set(Timer::Probe(key), self.now + MEASURING);
                self.outbox.push(Output::Measure { link });
            }
            // Nobody measured.
            false => self.decide(link, key),
        }
    }

    /// A link was measured: what do missing answers mean?
    pub(super) fn judge_silence(&mut self, link: LinkId) {
        let Some(client) = self.client(link) else { return };
        // Those beyond have timers of their own.
        let some: Vec<ElementKey> = client.unanswered.iter().take(DECISIONS).copied().collect();
        let most = self.chores.left().max(1);
        for key in some.into_iter().take(most) {
            self.chores.spend(1);
            self.decide(link, key);
        }
    }

    fn decide(&mut self, link: LinkId, key: ElementKey) {
        if let Some(client) = self.client(link) {
            client.unanswered.remove(&key);
        }
        let Some(probed) = self.side(key).and_then(|side| side.probed) else { return };
        let hearsay = self.is_reported(key);
        let most = if hearsay { self.answer_patience(link) } else { self.most_patience(link) };
        let end = probed + most;
        if self.now < end {
            self.timers.set(Timer::Probe(key), end.min(self.now + MEASURED_AGAIN));
            if self.resends_late(link) {
                self.ask_again(link, key);
            }
            return;
        }
        self.timers.clear(&Timer::Probe(key));
        if let Some(side) = self.side_mut(key) {
            side.probed = None;
        }
        self.stats.keep_alives_missed += 1;
        let silent = self.links.get(&link).is_some_and(|state| state.heard <= probed);
        let reason = if hearsay { "reported unreachable" } else { "no answer to keep-alive" };
        if silent {
            self.drop_client(link, reason);
        } else {
            let last = self.space.get(key).map(|element| (element.handle().clone(), element.to_element()));
            self.lose(key, reason);
            let Some((handle, element)) = last else { return };
            self.tell_that_it_is_out(link, &handle, element.id);
            let size = size(&handle, &element);
            if self.overdue + size <= MAX_OVERDUE_BYTES
                && let Some(client) = self.client(link)
                && client.overdue.len() < MAX_OVERDUE
            {
                client.overdue.insert((handle, element.id), element);
                self.overdue += size;
            }
        }
    }

    /// Tells a process that an element of it is in its pool no longer, so that it comes back or says why not.
    pub(super) fn tell_that_it_is_out(&mut self, link: LinkId, handle: &PoolHandle, id: PeId) {
        // One of rsplib's does not expect that.
        if self
            .links
            .get(&link)
            .is_some_and(|state| !dialect::client_may_be_rsplibs(&self.config, &state.ends))
        {
            let (handle, error) = (handle.clone(), Some(OperationError::from(CauseCode::UNSPECIFIED)));
            self.send_asap(link, &Asap::DeregistrationResponse { handle, id, error });
        }
    }

    /// An element that was given up on a link is not waited for any longer.
    pub(super) fn take_overdue(
        &mut self,
        link: LinkId,
        handle: &PoolHandle,
        id: PeId,
    ) -> Option<PoolElement> {
        let client = self.client(link)?;
        if client.overdue.is_empty() {
            return None;
        }
        let element = client.overdue.remove(&(handle.clone(), id))?;
        self.overdue -= size(handle, &element);
        Some(element)
    }

    /// The process was slow, or the way to it: its element is there after all, and nobody else's.
    fn answered_late(&mut self, link: LinkId, handle: &PoolHandle, id: PeId) {
        if let Some(element) = self.take_overdue(link, handle, id)
            && let Ok((key, _)) = self.put(handle, &element)
        {
            self.attach(key, link);
            self.announce_update(key);
        }
    }

    /// How long a registration lasts (RFC 5352 section 3.1); `None`: for ever.
    fn life(&self, marked: u32) -> Option<Duration> {
        let life = marks::life(marked);
        (life != 0 && life != u32::MAX).then(|| dialect::life(life, self.config.dialect))
    }

    /// An element of ours was registered, or became ours: when does its registration end?
    pub(super) fn expect_lapse(&mut self, key: ElementKey) {
        let now = self.now;
        let life = self.space.get(key).and_then(|element| self.life(element.life()));
        let Some(side) = self.side_mut(key) else { return };
        side.registered = now;
        let Some(life) = life else { return };
        let due = slot(now + life.min(LONGEST));
        if side.lapse != 0 && side.lapse <= due {
            // Looked at early enough.
            return;
        }
        self.look_at(key, due);
    }

    /// When an element's registration is looked at next; 0: never.
    fn look_at(&mut self, key: ElementKey, due: u64) {
        let Some(side) = self.side_mut(key) else { return };
        let before = std::mem::replace(&mut side.lapse, due);
        if before != 0 {
            self.lives.slots.remove(&(before, key));
        }
        if due != 0 {
            self.lives.slots.insert((due, key));
        }
        self.time_lapses();
    }

    /// An element is gone.
    pub(super) fn forget_life(&mut self, key: ElementKey) {
        if self.side(key).is_some_and(|side| side.lapse != 0) {
            self.look_at(key, 0);
        }
    }

    fn time_lapses(&mut self) {
        if let Some(&(first, _)) = self.lives.slots.first() {
            let due = begin(first).max(Time(self.now.0 + 1));
            if self.timers.get(&Timer::Lapse) != Some(due) {
                self.timers.set(Timer::Lapse, due);
            }
        }
    }

    /// Some registrations may have ended.
    pub(super) fn lapses_due(&mut self) {
        while self.chores.left() > 0
            && let Some(&(slot, key)) = self.lives.slots.first()
            && begin(slot) <= self.now
        {
            self.chores.spend(1);
            self.lapse(key);
        }
        self.time_lapses();
    }

    /// The registration of an element may have ended.
    fn lapse(&mut self, key: ElementKey) {
        let now = self.now;
        let life =
            self.space.get(key).filter(|element| element.home() == self.id).map(|element| element.life());
        let slept = self.overslept;
        self.look_at(key, 0);
        let Some(side) = self.side(key) else { return };
        let (registered, link) = (side.registered, side.link);
        let Some(life) = life.and_then(|life| self.life(life)) else { return };
        let end = registered + life;
        if end > now || slept {
            // It registered again meanwhile; or it did and we slept.
            let wait = if end > now { end - now } else { SLOT };
            return self.look_at(key, slot(now + wait.min(LONGEST)));
        }
        let name = self.space.get(key).map(|element| (element.handle().clone(), element.id()));
        let Some((handle, id)) = name else { return };
        self.drop_claim(&handle, id);
        self.stats.lapsed += 1;
        self.lose(key, "registration life over");
        if let Some(link) = link {
            // RFC 5352 section 2.2.4.
            self.send_asap(link, &Asap::DeregistrationResponse { handle, id, error: None });
        }
    }

    /// Somebody says that an element can't be reached: it is asked at once (RFC 5352 section 3.5). What several
    /// hosts say counts for more than a bad link, but for less than its answer; and the last element of a pool
    /// is better than none.
    pub(super) fn reported_unreachable(&mut self, key: ElementKey, host: IpAddr) {
        if !self.is_ours(key) {
            return self.ask_foreign(key);
        }
        let (now, decay) = (self.now, self.config.bad_pe_report_decay);
        let reports = self.reports.touch(key, MAX_REPORTED, BTreeMap::new());
        reports.retain(|_, &mut time| now - time < decay);
        if reports.len() < MAX_REPORTERS {
            reports.entry(host).or_insert(now);
        }
        self.probe(key);
        if self.is_reported(key)
            && let Some((probed, link)) = self.side(key).and_then(|side| side.probed.zip(side.link))
        {
            let due = (probed + self.answer_patience(link)).max(now);
            self.timers.set(Timer::Probe(key), due);
        }
    }

    /// Whether enough hosts say that they can't reach an element (MAX-BAD-PE-REPORT).
    fn is_reported(&self, key: ElementKey) -> bool {
        let enough = self.config.max_bad_pe_reports.max(1) as usize;
        let handle = self.space.get(key).map(|element| element.handle());
        let others = handle.and_then(|handle| self.space.pool(handle)).is_some_and(|pool| pool.len() > 1);
        others && self.reports.get(&key).is_some_and(|reports| reports.len() >= enough)
    }

    /// Closes an ASAP link; its elements go.
    pub(super) fn drop_client(&mut self, link: LinkId, reason: &'static str) {
        if self.client(link).is_none() {
            return;
        }
        self.outbox.push(Output::Close { link });
        if let Some(super::LiveLink { role: super::Role::Asap(client), .. }) = self.remove_link(link) {
            self.client_gone(link, client, reason, false);
        }
    }

    /// An ASAP link is gone, and with it the elements registered over it. `closed`: in order.
    pub(super) fn client_gone(
        &mut self,
        link: LinkId,
        mut client: AsapLink,
        reason: &'static str,
        closed: bool,
    ) {
        // What is held for it goes when its turn comes.
        self.forget_deferred(link, std::mem::take(&mut client.deferred));
        self.shares.without(client.host, client.share());
        self.overdue -= overdue_bytes(&client);
        client.overdue.clear();
        self.stop_watching(link);
        if let Some(target) = client.awaited.take() {
            self.nobody_speaks(link, target);
        }
        self.drop_claims_of(link);
        self.start(Chore::Gone { link, client: Box::new(client), reason, closed });
    }

    /// Some of what hung on a link that is gone; whether that was all.
    pub(super) fn client_leaves(
        &mut self,
        link: LinkId,
        client: &mut AsapLink,
        reason: &'static str,
        closed: bool,
        units: &mut usize,
    ) -> bool {
        self.chronicle.done_by(client.host);
        while *units > 0
            && let Some(key) = client.elements.pop_first()
        {
            *units -= 1;
            let Some(side) = self.side_mut(key).filter(|side| side.link == Some(link)) else { continue };
            if closed && side.brief && side.lapse != 0 {
                // It registers over short connections, and for its life.
                self.detach(key);
                if let Some(side) = self.side_mut(key) {
                    side.stays = true;
                }
            } else {
                self.lose(key, reason);
            }
        }
        while *units > 0
            && let Some(handle) = client.subscriptions.pop_first()
        {
            *units -= 1;
            self.subscriptions.remove(link, &handle);
        }
        client.elements.is_empty() && client.subscriptions.is_empty()
    }
}
