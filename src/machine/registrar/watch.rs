//! Watching the elements we are home of: keep-alives, reports, lost links (RFC 5352 sections 3.4, 3.5).
//!
//! The process answers, not the element, so one keep-alive per link and interval is enough; it names
//! the link's elements in turn. If nothing at all comes back within the time-out, the process hangs
//! and all its elements go; if other things come but no answer, only the element named goes.

use super::asap::Client;
use super::{LinkId, Registrar, Timer, measure};
use crate::handlespace::ElementKey;
use crate::machine::Output;
use crate::wire::{Asap, PeId, PoolHandle};
use std::ops::Bound;
use std::time::Duration;

/// Bound on elements of a link that may come back by a late answer.
const MAX_OVERDUE: usize = 64;

impl Registrar {
    /// Notes that an element is registered over `link`.
    pub(super) fn attach(&mut self, key: ElementKey, link: LinkId) {
        let Some(side) = self.side(key) else { return };
        if side.link != Some(link) {
            self.detach(key);
            self.reports.remove(&key);
        }
        let now = self.now;
        if let Some(side) = self.side_mut(key) {
            side.link = Some(link);
            side.heard = now;
            if side.probed.take().is_some() {
                self.timers.clear(&Timer::Probe(key));
            }
        }
        let name = self.space.get(key).map(|element| (element.handle().clone(), element.id()));
        let Some(client) = self.client(link) else { return };
        client.elements.insert(key);
        if let Some(name) = name.filter(|_| !client.overdue.is_empty()) {
            client.overdue.remove(&name);
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
    fn probe(&mut self, key: ElementKey) {
        let Some(side) = self.side(key) else { return };
        let (Some(link), None) = (side.link, side.probed) else { return };
        let now = self.now;
        if let Some(side) = self.side_mut(key) {
            side.probed = Some(now);
        }
        self.timers.set(Timer::Probe(key), now + self.answer_patience(link));
        self.send_keep_alive(link, key, false);
    }

    /// How long an answer over a link may take.
    pub(super) fn answer_patience(&self, link: LinkId) -> Duration {
        let limit = self.config.endpoint_keep_alive_timeout_interval;
        match self.links.get(&link).is_some_and(|state| measure::has_several_paths(&state.ends)) {
            true => limit.max(self.config.path_change_timeout),
            false => limit,
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
        if self.space.find(handle, id).is_none() {
            return self.answered_late(link, handle, id);
        }
        if let Some(key) = self.space.find(handle, id)
            && let Some(side) = self.side_mut(key)
            && side.link.is_some()
        {
            side.heard = now;
            if let Some(probed) = side.probed.take() {
                self.answers.add(now - probed);
                self.timers.clear(&Timer::Probe(key));
            }
        }
    }

    pub(super) fn probe_unanswered(&mut self, key: ElementKey) {
        let Some(side) = self.side_mut(key) else { return };
        let (Some(probed), Some(link)) = (side.probed.take(), side.link) else { return };
        if self.overslept {
            return self.probe(key);
        }
        self.stats.keep_alives_missed += 1;
        let silent = self.links.get(&link).is_some_and(|state| state.heard <= probed);
        if silent {
            self.drop_client(link, "no answer to keep-alive");
        } else {
            self.stats.elements_lost += 1;
            let last = self.space.get(key).map(|element| (element.handle().clone(), element.to_element()));
            self.remove_and_tell(key, "no answer to keep-alive");
            if let (Some((handle, element)), Some(client)) = (last, self.client(link))
                && client.overdue.len() < MAX_OVERDUE
            {
                client.overdue.insert((handle, element.id), element);
            }
        }
    }

    /// The process was slow, or the way to it: its element is there after all, and nobody else's.
    fn answered_late(&mut self, link: LinkId, handle: &PoolHandle, id: PeId) {
        let late = self.client(link).and_then(|client| client.overdue.remove(&(handle.clone(), id)));
        if let Some(element) = late
            && let Ok((key, _)) = self.put(handle, &element)
        {
            self.attach(key, link);
            self.announce_update(key);
        }
    }

    /// Somebody says that an element can't be reached: ask it at once, and believe the third within
    /// a while (RFC 5352 section 3.5), whatever it answers: keep-alives may still reach what users
    /// don't.
    pub(super) fn reported_unreachable(&mut self, key: ElementKey) {
        if !self.is_ours(key) {
            return self.ask_foreign(key);
        }
        let (now, decay) = (self.now, self.config.bad_pe_report_decay);
        let enough = self.config.max_bad_pe_reports.max(1) as usize;
        let reports = self.reports.entry(key).or_default();
        reports.retain(|&time| now - time < decay);
        reports.push(now);
        if reports.len() >= enough {
            self.stats.elements_lost += 1;
            self.remove_and_tell(key, "reported unreachable");
        } else {
            self.probe(key);
        }
    }

    /// Closes an ASAP link; its elements go.
    pub(super) fn drop_client(&mut self, link: LinkId, reason: &'static str) {
        if self.client(link).is_none() {
            return;
        }
        self.outbox.push(Output::Close { link });
        if let Some(super::Link { role: super::Role::Asap(client), .. }) = self.remove_link(link) {
            self.client_gone(link, client, reason);
        }
    }

    /// An ASAP link is gone, and with it the elements registered over it.
    pub(super) fn client_gone(&mut self, link: LinkId, client: Client, reason: &'static str) {
        self.deferred = self.deferred.saturating_sub(client.deferred.iter().map(Vec::len).sum());
        for handle in &client.subscriptions {
            self.subscriptions.remove(link, handle);
        }
        self.stop_watching(link);
        self.drop_claims_of(link);
        for key in client.elements {
            self.stats.elements_lost += 1;
            self.remove_and_tell(key, reason);
        }
    }
}
