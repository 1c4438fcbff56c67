//! Distances, for the policies that want to know them.

use super::*;

const PEER: RegistrarId = RegistrarId(0x6000);

fn far(id: u32, home: RegistrarId, distance: u32) -> PoolElement {
    PoolElement { policy: Policy::LeastUsedDpf { load: 1, load_dpf: 2, distance }, ..owned(id, home) }
}

fn told(peer: LinkId, element: PoolElement) -> Effect {
    let action = UpdateAction::Add;
    let body = Enrp::HandleUpdate { takeover_suggested: false, action, handle: pool("echo"), element };
    Effect::Enrp(peer, PEER, body)
}

fn measured(bench: &mut Bench, link: LinkId, round_trip: u64) -> Vec<Effect> {
    let measured = Measurement { round_trip: Some(ms(round_trip)), ..Measurement::default() };
    bench.registrar.handle_measurement(bench.now, link, measured);
    bench.drain()
}

fn distance(bench: &Bench, id: u32) -> u32 {
    let space = bench.registrar.handlespace();
    let found = space.get(space.find(&pool("echo"), PeId(id)).expect("it is there")).expect("an element");
    *found.to_element().policy.distance_mut().expect("a distance")
}

#[test]
fn an_elements_distance_is_half_the_round_trip_and_peers_are_told() {
    let mut bench = Bench::serving();
    let (peer, pe) = (bench.peer(PEER), bench.pe());
    assert_eq!(measured(&mut bench, pe, 120), []);
    // What it says itself does not count.
    let message = Asap::Registration { handle: pool("echo"), element: far(1, RegistrarId(0), 999) };
    let effects = bench.asap(pe, message.clone());
    assert_eq!(effects, [added(1), told(peer, far(1, SELF, 50)), registered(pe, 1)]);
    assert_eq!(distance(&bench, 1), 50);
    // No news by the step, a jitter about where one rounds up, and news.
    assert_eq!(measured(&mut bench, pe, 140), []);
    assert_eq!(measured(&mut bench, pe, 160), []);
    assert_eq!(measured(&mut bench, pe, 180), [told(peer, far(1, SELF, 100))]);
    assert_eq!(distance(&bench, 1), 100);
    assert_eq!(bench.asap(pe, message), [told(peer, far(1, SELF, 100)), registered(pe, 1)]);
    // Other policies don't want to know.
    bench.asap(pe, Asap::Registration { handle: pool("other"), element: element(2) });
    assert_eq!(measured(&mut bench, pe, 400), [told(peer, far(1, SELF, 200))]);
}

#[test]
fn subscribers_are_told_of_a_new_distance() {
    let mut bench = Bench::serving();
    let (pe, pu) = (bench.pe(), bench.pe());
    bench.asap(pe, Asap::Registration { handle: pool("echo"), element: far(1, RegistrarId(0), 0) });
    bench.asap(pu, Asap::HandleResolution { subscribe: true, handle: pool("echo"), items: Some(u32::MAX) });
    bench.wait_quietly(ms(100));
    let pushed = measured(&mut bench, pe, 120);
    let [Effect::Asap(link, Asap::HandleResolutionResponse { subscribed: true, elements, .. })] = &pushed[..]
    else {
        panic!("{pushed:?}")
    };
    assert_eq!(*link, pu);
    assert_eq!(elements[0].policy, Policy::LeastUsedDpf { load: 1, load_dpf: 2, distance: 50 });
}

#[test]
fn anothers_element_is_as_far_as_that_one_says_and_the_way_to_it() {
    let mut bench = Bench::serving();
    let peer = bench.peer(PEER);
    let update = |id, distance| Enrp::HandleUpdate {
        takeover_suggested: false,
        action: UpdateAction::Add,
        handle: pool("echo"),
        element: far(id, PEER, distance),
    };
    bench.enrp(peer, PEER, update(1, 50));
    assert_eq!(distance(&bench, 1), 50);
    measured(&mut bench, peer, 220);
    bench.enrp(peer, PEER, update(1, 50));
    bench.enrp(peer, PEER, update(2, u32::MAX - 1));
    assert_eq!((distance(&bench, 1), distance(&bench, 2)), (150, u32::MAX));
}
