//! What an element costs in memory, every index included: the performance contract says at most 200
//! bytes with one IPv4 transport. An own program, since it counts all allocations of the process.

#[path = "common/counting.rs"]
mod counting;

use counting::LIVE;
use rserpool::handlespace::Handlespace;
use rserpool::wire::{PeId, Policy, PoolElement, PoolHandle, Protocol, RegistrarId, Transport, TransportUse};
use std::sync::atomic::Ordering::Relaxed;

/// Bytes per element of a pool of `count`.
fn bytes_each(count: u32, policy: impl Fn(u32) -> Policy) -> usize {
    let before = LIVE.load(Relaxed);
    let pool = PoolHandle::new(b"a pool").expect("a handle");
    let mut space = Handlespace::new(1);
    for i in 1..=count {
        let address = std::net::Ipv4Addr::from(i).into();
        let transport = Transport::new(Protocol::Tcp, TransportUse::DataPlusControl, 4711, vec![address]);
        let random = i.wrapping_mul(0x9e37_79b1);
        let element = PoolElement {
            id: PeId(random),
            home: RegistrarId(i % 3),
            life: 300_000,
            policy: policy(random),
            asap: Some(transport.clone()),
            transport,
        };
        space.register(&pool, &element).expect("a good element");
    }
    assert_eq!(space.len(), count as usize);
    (LIVE.load(Relaxed) - before) / count as usize
}

#[test]
fn an_element_costs_at_most_200_bytes() {
    // 120 000 lies just behind a doubling of the table of identifiers.
    for count in [100_000, 120_000] {
        let all = [
            bytes_each(count, |_| Policy::RoundRobin),
            bytes_each(count, |weight| Policy::WeightedRoundRobin { weight }),
            bytes_each(count, |weight| Policy::WeightedRandom { weight }),
            bytes_each(count, |load| Policy::LeastUsedDegradation { load, degradation: 1 }),
        ];
        assert!(all.iter().all(|&bytes| bytes <= 200), "{all:?} bytes at {count} elements");
        assert!(all.iter().all(|&bytes| bytes >= 64), "{all:?}: not counted");
    }
}
