//! What anybody asks the name server.

use super::Input;
use crate::dns::{Asker, Found, MAX_FACTOR, MAX_UDP, Pools, Reply, Responder, Zone};
use crate::wire::{PeId, Policy, PoolElement, PoolHandle, Protocol, RegistrarId, Transport, TransportUse};
use std::net::{IpAddr, Ipv4Addr};

/// One pool, by any name but some.
struct Anything;

fn element(id: u32) -> PoolElement {
    let addresses = vec![Ipv4Addr::from_bits(id).into()];
    PoolElement {
        id: PeId(id),
        home: RegistrarId(1),
        life: 1,
        transport: Transport::new(Protocol::Tcp, TransportUse::DataOnly, 1, addresses),
        policy: Policy::WeightedRandom { weight: id },
        asap: None,
    }
}

impl Pools for Anything {
    fn find(&mut self, name: &[u8]) -> Found {
        match name.first() {
            Some(b'u') => Found::Unknown,
            Some(b'l') => Found::Later,
            Some(b'n') => Found::Unavailable,
            _ => PoolHandle::new(name).map_or(Found::Unknown, Found::Pool),
        }
    }

    fn choose(
        &mut self,
        _: &PoolHandle,
        items: usize,
        usable: &dyn Fn(&Transport) -> bool,
    ) -> Vec<PoolElement> {
        (1..=300).map(element).filter(|element| usable(&element.transport)).take(items).collect()
    }

    fn element(&self, _: &PoolHandle, id: PeId) -> Option<PoolElement> {
        (1..=300).contains(&id.0).then(|| element(id.0))
    }

    fn size(&self, _: &PoolHandle) -> usize {
        300
    }
}

/// Any queries over UDP and TCP: an answer repeats the identifier, is one, and is no longer than is stated.
pub fn dns(data: &[u8]) {
    let mut input = Input(data);
    let mut responder = Responder::new(Zone::default(), 0);
    let here: [IpAddr; 1] = [Ipv4Addr::LOCALHOST.into()];
    while !input.0.is_empty() {
        let tcp = input.byte() & 1 == 1;
        let length = usize::from(input.byte()) * 2;
        let query = input.bytes(length);
        let asker = Asker { from: here[0], tcp, now: u64::from(input.byte()) * 100, here: &here };
        if let Reply::Send(answer) = responder.answer(&mut Anything, &asker, query) {
            assert!(answer.len() >= 12 && answer[..2] == query[..2] && answer[2] & 0x80 != 0);
            let most = if tcp { usize::from(u16::MAX) } else { MAX_UDP.min(MAX_FACTOR * query.len()) };
            assert!(answer.len() <= most, "{} bytes for {}", answer.len(), query.len());
        }
    }
}
