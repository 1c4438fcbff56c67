//! Elements as they are kept: one cache line each, in chunks (`chunks.rs`).

use super::ElementKey;
use super::chunks::{Chunks, Places};
use super::policy::Values;
use crate::wire::{Protocol, Transport, TransportUse};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::{Index, IndexMut};

/// No element.
pub(super) const NONE: u32 = u32::MAX;

/// One element. Its pool knows the policy that `values` and the selection state belong to.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Element {
    pub id: u32,
    generation: u32,
    /// Index of the pool; [`NONE`] in a free slot.
    pub pool: u32,
    pub life: u32,
    pub values: Values,
    /// Degradation counter, or position within the lap of weighted round robin.
    pub used: u32,
    /// Neighbours among equals in an ordered pool, else position in the draw. Free slots: the next one.
    pub links: [u32; 2],
    pub transport: Packed,
    pub asap: Packed,
    /// Index of the home registrar.
    pub home: u16,
    /// Weighted round robin: which of two laps the element is in.
    pub lap: bool,
}

const _: () = assert!(size_of::<Element>() == 64);

/// A transport in eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packed {
    None,
    /// One IPv4 address, protocol and use in `form`.
    V4 {
        form: u8,
        port: u16,
        address: [u8; 4],
    },
    /// Anything else: index into [`Rare`].
    Rare(u32),
}

const FORMS: [(Protocol, TransportUse); 8] = [
    (Protocol::Sctp, TransportUse::DataOnly),
    (Protocol::Sctp, TransportUse::DataPlusControl),
    (Protocol::Tcp, TransportUse::DataOnly),
    (Protocol::Tcp, TransportUse::DataPlusControl),
    (Protocol::Udp, TransportUse::DataOnly),
    (Protocol::Udp, TransportUse::DataPlusControl),
    (Protocol::UdpLite, TransportUse::DataOnly),
    (Protocol::UdpLite, TransportUse::DataPlusControl),
];

/// The eight-byte form, where there is one.
fn pack(transport: &Transport) -> Option<Packed> {
    let Transport::Address { protocol, port, usage, addresses } = transport else { return None };
    let [IpAddr::V4(address)] = addresses[..] else { return None };
    let protocol = match protocol {
        Protocol::Sctp => 0,
        Protocol::Tcp => 2,
        Protocol::Udp => 4,
        Protocol::UdpLite => 6,
        Protocol::Dccp { .. } => return None,
    };
    let usage = match usage {
        TransportUse::DataOnly => 0,
        TransportUse::DataPlusControl => 1,
        TransportUse::Other(_) => return None,
    };
    Some(Packed::V4 { form: protocol + usage, port: *port, address: address.octets() })
}

/// Bytes that a transport takes elsewhere; none if it fits eight bytes.
pub(super) fn extra_bytes(transport: &Transport) -> usize {
    if pack(transport).is_some() { 0 } else { heap(transport) }
}

/// Transports that do not fit eight bytes.
#[derive(Debug, Default)]
pub(super) struct Rare {
    slots: Places<Transport>,
    /// Bytes of addresses and opaque data in all of them.
    bytes: usize,
}

/// What a transport takes beside its slot.
fn heap(transport: &Transport) -> usize {
    match transport {
        Transport::Address { addresses, .. } => size_of_val(&addresses[..]),
        Transport::Opaque(data) => data.len(),
    }
}

impl Rare {
    pub(super) fn store(&mut self, transport: Option<&Transport>) -> Packed {
        let Some(transport) = transport else { return Packed::None };
        if let Some(packed) = pack(transport) {
            return packed;
        }
        self.bytes += heap(transport);
        Packed::Rare(self.slots.insert(transport.clone()))
    }

    /// Bytes held, slots not counted: those are bounded with the elements.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn load(&self, packed: Packed) -> Option<Transport> {
        match packed {
            Packed::None => None,
            Packed::V4 { form, port, address } => {
                let (protocol, usage) = FORMS[form as usize & 7];
                let address = IpAddr::V4(Ipv4Addr::from(address));
                Some(Transport::new(protocol, usage, port, vec![address]))
            }
            Packed::Rare(index) => self.slots.get(index).cloned(),
        }
    }

    pub(super) fn equals(&self, packed: Packed, transport: Option<&Transport>) -> bool {
        match packed {
            Packed::None => transport.is_none(),
            Packed::V4 { .. } => transport.and_then(pack) == Some(packed),
            Packed::Rare(index) => self.slots.get(index) == transport,
        }
    }

    pub(super) fn drop(&mut self, packed: Packed) {
        if let Packed::Rare(index) = packed {
            self.bytes -= self.slots.remove(index).as_ref().map_or(0, heap);
        }
    }
}

/// All elements, by slot number. Slots are used again, with another generation. The list of free ones is in them.
#[derive(Debug)]
pub(super) struct Slab {
    elements: Chunks<Element>,
    free: u32,
    len: usize,
}

impl Slab {
    pub(super) fn new() -> Slab {
        Slab { elements: Chunks::default(), free: NONE, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Stores what `make` returns for the generation it is given.
    pub(super) fn insert(&mut self, element: NewElement) -> u32 {
        self.len += 1;
        let make = |generation| Element {
            id: element.id,
            generation,
            pool: element.pool,
            life: element.life,
            values: element.values,
            used: 0,
            links: [NONE; 2],
            transport: element.transport,
            asap: element.asap,
            home: element.home,
            lap: false,
        };
        if self.free != NONE {
            let slot = self.free;
            let place = &mut self[slot];
            let (generation, next) = (place.generation, place.links[0]);
            *place = make(generation);
            self.free = next;
            return slot;
        }
        self.elements.push(make(0)) as u32
    }

    /// Frees a slot in use.
    pub(super) fn remove(&mut self, slot: u32) {
        let next = self.free;
        let place = &mut self[slot];
        place.pool = NONE;
        place.generation = place.generation.wrapping_add(1);
        place.links[0] = next;
        self.free = slot;
        self.len -= 1;
    }

    /// Says that an element is about to be looked at, so that by then its memory is in the cache. Writes what is
    /// there already, that `before` stands before it among its equals: a write, unlike a read, is waited for by
    /// nobody.
    pub(super) fn expect(&mut self, slot: u32, before: u32) {
        debug_assert_eq!(self[slot].links[0], before);
        self[slot].links[0] = before;
    }

    pub(super) fn key(&self, slot: u32) -> ElementKey {
        ElementKey { index: slot, generation: self[slot].generation }
    }

    /// The slot that a key names, if its element is still there.
    pub(super) fn slot(&self, key: ElementKey) -> Option<u32> {
        let element = self.elements.get(key.index as usize)?;
        (element.pool != NONE && element.generation == key.generation).then_some(key.index)
    }
}

impl Index<u32> for Slab {
    type Output = Element;
    fn index(&self, slot: u32) -> &Element {
        &self.elements[slot as usize]
    }
}

impl IndexMut<u32> for Slab {
    fn index_mut(&mut self, slot: u32) -> &mut Element {
        &mut self.elements[slot as usize]
    }
}

/// What makes a new [`Element`].
pub(super) struct NewElement {
    pub id: u32,
    pub pool: u32,
    pub life: u32,
    pub values: Values,
    pub transport: Packed,
    pub asap: Packed,
    pub home: u16,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    #[test]
    fn every_transport_comes_back_as_it_was() {
        let v4 = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
        let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
        let mut all = vec![Transport::Opaque(vec![1, 2, 3])];
        for protocol in [
            Protocol::Sctp,
            Protocol::Tcp,
            Protocol::Udp,
            Protocol::UdpLite,
            Protocol::Dccp { service_code: 9 },
        ] {
            for usage in [TransportUse::DataOnly, TransportUse::DataPlusControl, TransportUse::Other(5)] {
                for addresses in [vec![v4], vec![v6], vec![v4, v6], vec![v4, v4], vec![]] {
                    all.push(Transport::new(protocol, usage, 4711, addresses));
                }
            }
        }
        let mut rare = Rare::default();
        let packed: Vec<Packed> = all.iter().map(|t| rare.store(Some(t))).collect();
        assert_eq!(packed.iter().filter(|p| matches!(p, Packed::V4 { .. })).count(), 8);
        for (i, &p) in packed.iter().enumerate() {
            assert_eq!(rare.load(p).as_ref(), Some(&all[i]));
            for (j, other) in all.iter().enumerate() {
                assert_eq!(rare.equals(p, Some(other)), i == j, "{i} {j}");
            }
            assert!(!rare.equals(p, None));
        }
        assert_eq!(rare.store(None), Packed::None);
        assert!(rare.equals(Packed::None, None));
        assert!(rare.bytes() > 0);
        packed.iter().for_each(|&p| rare.drop(p));
        assert_eq!((rare.slots.len(), rare.bytes()), (0, 0));
    }

    #[test]
    fn a_slot_used_again_has_another_key() {
        let make = |id| NewElement {
            id,
            pool: 0,
            life: 0,
            values: [0; 4],
            transport: Packed::None,
            asap: Packed::None,
            home: 0,
        };
        let mut slab = Slab::new();
        let slots: Vec<u32> = (0..1000).map(|id| slab.insert(make(id))).collect();
        assert_eq!(slots, (0..1000).collect::<Vec<u32>>(), "dense from 0");
        let old = slab.key(500);
        slab.remove(500);
        assert_eq!(slab.slot(old), None);
        assert_eq!(slab.insert(make(7)), 500);
        assert_eq!(slab.slot(old), None);
        assert_eq!(slab.slot(slab.key(500)), Some(500));
        assert_eq!(slab.slot(ElementKey { index: 1000, generation: 0 }), None);
        assert_eq!(slab.slot(ElementKey { index: u32::MAX, generation: 0 }), None);
        assert_eq!(slab.len(), 1000);
    }
}
