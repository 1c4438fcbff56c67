//! The only place that changes the handlespace, with everything that hangs on an element: its link,
//! its timers, its pool's subscribers, the checksum for rsplib's registrars.

use super::dialect::{Removal, rsplib_can_hold};
use super::{ElementSide, Event, Registrar, Timer, What};
use crate::handlespace::{Change, ElementKey, Reject, Sum};
use crate::wire::{PeId, PoolElement, PoolHandle, RegistrarId};
use std::net::SocketAddr;

impl Registrar {
    pub(super) fn side(&self, key: ElementKey) -> Option<&ElementSide> {
        self.side.get(key.index as usize).filter(|side| side.generation == key.generation)
    }

    pub(super) fn side_mut(&mut self, key: ElementKey) -> Option<&mut ElementSide> {
        self.side.get_mut(key.index as usize).filter(|side| side.generation == key.generation)
    }

    /// Adds or updates an element under the home registrar it names.
    pub(super) fn put(
        &mut self,
        handle: &PoolHandle,
        element: &PoolElement,
    ) -> Result<(ElementKey, Change), Reject> {
        let (key, change) = self.space.register(handle, element)?;
        self.stamp += 1;
        let index = key.index as usize;
        while index >= self.side.len() {
            self.side.push(ElementSide::default());
        }
        if change == Change::Added {
            self.side[index] =
                ElementSide { generation: key.generation, since: self.now, ..ElementSide::default() };
            self.event(Event::ElementAdded { handle: handle.clone(), id: element.id });
            if self.held.contains_key(handle) {
                self.arrived.push(handle.clone());
            }
            self.chronicle.came(self.now, handle);
            let what = What::Registered {
                handle: handle.clone(),
                id: element.id,
                home: element.home,
                address: element.transport.socket_addresses().next(),
                size: self.space.pool(handle).map_or(0, |pool| pool.len()),
            };
            self.chronicle.note(self.now, what);
        }
        if let Change::Moved { from } = change {
            self.moved(handle, element.id, key, from, element.home);
        }
        let side = &mut self.side[index];
        side.heard = self.now;
        side.stamp = self.stamp;
        if element.home != self.id {
            self.detach(key);
        } else {
            self.expect_lapse(key);
        }
        self.account(key);
        if change != Change::Same {
            self.subscriptions.changed(handle);
        }
        Ok((key, change))
    }

    /// Removes an element that is lost, without telling peers.
    pub(super) fn remove(
        &mut self,
        key: ElementKey,
        reason: &'static str,
    ) -> Option<(PoolHandle, PoolElement)> {
        self.take_out(key, reason, Removal::Lost)
    }

    /// Removes an element, without telling peers.
    pub(super) fn take_out(
        &mut self,
        key: ElementKey,
        reason: &'static str,
        why: Removal,
    ) -> Option<(PoolHandle, PoolElement)> {
        let (handle, id, home) =
            self.space.get(key).map(|element| (element.handle().clone(), element.id(), element.home()))?;
        if let Some(peer) = self.peers.get_mut(home) {
            peer.wanted.take(&handle, id);
        }
        self.detach(key);
        if self.side(key)?.for_rsplib {
            self.rsplib_sum.subtract(Sum::of(&handle, self.space.get(key)?.id()));
        }
        self.forget_life(key);
        let element = self.space.remove(key)?;
        self.side[key.index as usize] = ElementSide::default();
        self.tell_rivals(&handle, element.id);
        self.reports.remove(&key);
        self.subscriptions.departed(&handle, element.id, why);
        self.event(Event::ElementRemoved { handle: handle.clone(), id: element.id, reason });
        let left = self.space.pool(&handle).map_or(0, |pool| pool.len());
        self.chronicle.left(self.now, &handle, why, left);
        let address = element.transport.socket_addresses().next();
        let what = What::Removed { handle: handle.clone(), id: element.id, reason, why, address, left };
        self.chronicle.note(self.now, what);
        Some((handle, element))
    }

    /// An element of ours is lost: it goes to who says that it is there, or it is removed and peers are told.
    pub(super) fn lose(&mut self, key: ElementKey, reason: &'static str) {
        self.stats.elements_lost += 1;
        if !self.give_way(key) {
            self.remove_and_tell(key, reason);
        }
    }

    /// Removes an element that is lost, and tells peers.
    pub(super) fn remove_and_tell(&mut self, key: ElementKey, reason: &'static str) {
        if let Some((handle, element)) = self.remove(key, reason) {
            self.announce_removal(handle, element, Removal::Lost);
        }
    }

    /// Removes an element that deregistered, and tells peers.
    pub(super) fn deregister_and_tell(&mut self, key: ElementKey) {
        if let Some((handle, element)) = self.take_out(key, "deregistered", Removal::Deregistered) {
            self.announce_removal(handle, element, Removal::Deregistered);
        }
    }

    /// Gives an element another home registrar.
    pub(super) fn rehome(&mut self, key: ElementKey, owner: RegistrarId) {
        if owner != self.id {
            self.detach(key);
        }
        let from =
            self.space.get(key).map(|element| (element.handle().clone(), element.id(), element.home()));
        if self.space.set_home(key, owner) {
            if let Some((handle, id, from)) = from.filter(|(_, _, from)| *from != owner) {
                self.moved(&handle, id, key, from, owner);
            }
            self.stamp += 1;
            let (now, stamp) = (self.now, self.stamp);
            if let Some(side) = self.side_mut(key) {
                side.heard = now;
                side.stamp = stamp;
            }
            if owner == self.id {
                self.expect_lapse(key);
            }
            self.account(key);
        }
    }

    /// Where an element's users find it.
    pub(super) fn element_address(&self, key: ElementKey) -> Option<SocketAddr> {
        self.space.get(key)?.transport().socket_addresses().next()
    }

    /// An element has another home registrar.
    fn moved(&mut self, handle: &PoolHandle, id: PeId, key: ElementKey, from: RegistrarId, to: RegistrarId) {
        if let Some(peer) = self.peers.get_mut(from) {
            peer.wanted.take(handle, id);
        }
        if to == self.id {
            self.stats.adoptions += 1;
        }
        let (address, to_address) = (self.element_address(key), self.whereabouts(to));
        let what = What::Moved { handle: handle.clone(), id, address, from, to, to_address };
        self.chronicle.note(self.now, what);
    }

    /// Whether we are an element's home registrar.
    pub(super) fn is_ours(&self, key: ElementKey) -> bool {
        self.space.get(key).is_some_and(|element| element.home() == self.id)
    }

    /// Takes an element off the link that it was registered over.
    pub(super) fn detach(&mut self, key: ElementKey) {
        let Some(side) = self.side_mut(key) else { return };
        let link = side.link.take();
        if side.probed.take().is_some() {
            self.timers.clear(&Timer::Probe(key));
        }
        let bytes = self.space.get(key).map_or(0, |element| element.handle().as_bytes().len());
        if let Some(client) = link.and_then(|link| self.client(link)) {
            client.unanswered.remove(&key);
            if client.elements.remove(&key) {
                client.bytes -= bytes;
                let host = client.host;
                self.shares.change(host, |share| {
                    share.elements -= 1;
                    share.bytes -= bytes;
                });
            }
        }
    }

    /// Keeps the checksum of what rsplib's registrars get of our elements.
    fn account(&mut self, key: ElementKey) {
        let Some(element) = self.space.get(key) else { return };
        let counts = element.home() == self.id && rsplib_can_hold(element.handle(), &element.to_element());
        let sum = Sum::of(element.handle(), element.id());
        let Some(side) = self.side_mut(key) else { return };
        let counted = std::mem::replace(&mut side.for_rsplib, counts);
        match (counted, counts) {
            (false, true) => self.rsplib_sum.add(sum),
            (true, false) => self.rsplib_sum.subtract(sum),
            _ => {}
        }
    }
}
