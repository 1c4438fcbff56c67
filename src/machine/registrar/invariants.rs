//! What must hold between any two calls, for the simulator and the fuzzer.

use super::asap::held_size;
use super::dialect::rsplib_can_hold;
use super::subscriptions::weight;
use super::watch::overdue_bytes;
use super::{Registrar, Role, Timer};
use crate::handlespace::{ElementKey, Sum};
use crate::wire::RegistrarId;
use std::cmp::Reverse;
use std::collections::BTreeSet;

impl Registrar {
    /// Checks all that can be checked from the inside: checksums equal a fresh recomputation, queues
    /// and tables are within their bounds, side tables fit each other. O(elements × registrars).
    pub fn invariants(&self) -> Result<(), String> {
        self.check_checksums()?;
        self.chronicle.check()?;
        self.check_links()?;
        self.check_side()?;
        self.check_claims()?;
        self.check_peers()
    }

    fn check_checksums(&self) -> Result<(), String> {
        let owners = self.peers.table.keys().copied().chain([self.id]);
        for owner in owners {
            let (kept, fresh) = (self.space.checksum(owner), self.space.recompute_checksum(owner));
            if kept != fresh {
                return Err(format!("checksum of {owner}: {kept:02x?} kept, {fresh:02x?} right"));
            }
        }
        let holdable = self
            .space
            .owned_after(self.id, None)
            .filter(|element| rsplib_can_hold(element.handle(), &element.to_element()));
        let mut fresh = Sum::default();
        holdable.for_each(|element| fresh.add(Sum::of(element.handle(), element.id())));
        if fresh != self.rsplib_sum {
            return Err(format!("checksum for rsplib: {:?} kept, {fresh:?} right", self.rsplib_sum));
        }
        Ok(())
    }

    fn check_links(&self) -> Result<(), String> {
        let (mut subscriptions, mut deferred, mut watched, mut overdue) = (0, 0, 0, 0);
        deferred += self.chores.held_bytes();
        deferred +=
            self.held.iter().map(|(handle, questions)| questions.len() * held_size(handle)).sum::<usize>();
        subscriptions += self.chores.clients().map(|client| client.subscriptions.len()).sum::<usize>();
        let (mut peer_links, mut shares, mut ranks) = (BTreeSet::new(), Vec::new(), BTreeSet::new());
        for (&link, state) in &self.links {
            let client = match &state.role {
                Role::Asap(client) => client,
                Role::Enrp(peer_link) => {
                    peer_links.extend(peer_link.peer.map(|peer| (peer, link)));
                    continue;
                }
            };
            subscriptions += client.subscriptions.len();
            deferred += client.deferred.taken();
            if !client.deferred.is_empty() {
                ranks.insert((client.deferred.len(), Reverse(link)));
            }
            overdue += overdue_bytes(client);
            let timed = self.timers.get(&Timer::KeepAlive(link)).is_some();
            watched += usize::from(timed);
            if client.subscriptions.len() > self.config.max_subscriptions_per_link {
                return Err(format!("{link:?} has too many subscriptions"));
            }
            let subscribed: usize = client.subscriptions.iter().map(weight).sum();
            let named = client.elements.iter().filter_map(|&key| self.space.get(key));
            let bytes: usize = named.map(|element| element.handle().as_bytes().len()).sum();
            if (subscribed, bytes) != (client.subscribed, client.bytes) {
                return Err(format!("{link:?} takes {subscribed} and {bytes} bytes, which is counted wrong"));
            }
            shares.push((client.host, client.share()));
            if !client.elements.is_empty() && !timed && !self.leaving {
                return Err(format!("{link:?} has elements and no keep-alive"));
            }
            for &key in &client.elements {
                let attached = self.side(key).is_some_and(|side| side.link == Some(link));
                if !attached || !self.is_ours(key) {
                    return Err(format!("{link:?} lists {key:?}, which is not registered over it"));
                }
            }
        }
        if !self.leaving && !self.shares.check(shares.into_iter()) {
            return Err(format!("hosts' shares are counted wrong: {:?}", self.shares));
        }
        if peer_links != self.peer_links {
            return Err(format!("{:?} are listed as peers' links, {peer_links:?} are", self.peer_links));
        }
        if self.subscriptions.check()? != subscriptions && !self.leaving {
            return Err("subscriptions of links and pools differ".into());
        }
        if (deferred, watched) != (self.deferred, self.watched) && !self.leaving {
            return Err(format!(
                "{deferred} bytes deferred and {watched} links watched, {} and {} counted",
                self.deferred, self.watched
            ));
        }
        if ranks != self.deferred_ranks && !self.leaving {
            return Err(format!("{ranks:?} wait for the service, {:?} are ranked", self.deferred_ranks));
        }
        if overdue != self.overdue && !self.leaving {
            return Err(format!("{overdue} bytes overdue, {} counted", self.overdue));
        }
        let over = self.accounts().into_iter().find(|account| account.bytes > account.bound);
        over.map_or(Ok(()), |account| Err(format!("{account:?} is beyond its bound")))
    }

    fn check_side(&self) -> Result<(), String> {
        let known: BTreeSet<RegistrarId> = self.peers.table.keys().copied().chain([self.id]).collect();
        for element in self.space.elements_after(None) {
            let key: ElementKey = element.key();
            let Some(side) = self.side(key) else { return Err(format!("{key:?} has no side entry")) };
            if side.probed.is_some() != self.timers.get(&Timer::Probe(key)).is_some() && !self.leaving {
                return Err(format!("{key:?}: probe and timer differ"));
            }
            if let Some(link) = side.link {
                let listed = self.links.get(&link).is_some_and(
                    |link| matches!(&link.role, Role::Asap(client) if client.elements.contains(&key)),
                );
                if !listed && !self.chores.has_client(link, key) && !self.leaving {
                    return Err(format!("{key:?} is registered over {link:?}, which does not list it"));
                }
            }
            if !known.contains(&element.home()) {
                return Err(format!("{key:?} belongs to {}, who is no peer", element.home()));
            }
        }
        let keys = self.space.elements_after(None).map(|element| element.key());
        let due = keys.filter_map(|key| self.side(key).map(|side| (side.lapse, key)));
        if !self.lives.check(due) {
            return Err("registration lives are watched that nobody has, or the other way round".into());
        }
        Ok(())
    }

    fn check_peers(&self) -> Result<(), String> {
        if self.peers.table.len() > self.config.max_peers {
            return Err(format!("{} peers", self.peers.table.len()));
        }
        for (id, peer) in &self.peers.table {
            if !peer.backlog.check() || !peer.absent.check() || !peer.wanted.check() {
                return Err(format!("what is kept for {id} is too long or miscounted"));
            }
            if self.leaving {
                continue;
            }
            if let Some(link) = peer.link
                && !self.links.contains_key(&link)
            {
                return Err(format!("{id} is sent to over {link:?}, which is gone"));
            }
            if let Some(dial) = peer.dial
                && !self.dials.contains_key(&dial)
            {
                return Err(format!("{id} is dialled over {dial:?}, which is gone"));
            }
            let watched = [Timer::LastHeard(*id), Timer::NoResponse(*id)];
            let timed = watched.iter().any(|timer| self.timers.get(timer).is_some());
            let cared = peer.taken_by.is_some()
                || self.takeovers.contains_key(id)
                || self.chores.inherits(*id)
                || !self.is_serving();
            if !(timed || peer.life.is_dead() && cared) {
                return Err(format!("{id} is watched by nobody"));
            }
        }
        Ok(())
    }
}
