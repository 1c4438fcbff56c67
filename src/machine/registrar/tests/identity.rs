//! Two registrars with one identifier.

use super::*;
use crate::wire::CauseCode;

const B: RegistrarId = RegistrarId(0x6000);

fn hello(at: &str) -> Enrp {
    Enrp::Presence { reply_required: false, checksum: None, server: Some(server(B, at)) }
}

/// Somebody says that it is B, from this address, and that it listens there.
fn come(bench: &mut Bench, from: &str) -> (LinkId, Vec<Effect>) {
    let link = bench.accept(Service::Enrp, LinkProtocol::Tcp, &format!("{from}:50000"));
    let effects = bench.enrp(link, B, hello(&format!("{from}:9901")));
    (link, effects)
}

/// B's link now: it is told of an element that registers.
fn link_of_b(bench: &mut Bench, id: u32) -> Option<LinkId> {
    let pe = bench.pe();
    let effects = bench.asap(pe, registration(id));
    let told = effects.iter().find_map(|effect| match effect {
        Effect::Enrp(link, _, Enrp::HandleUpdate { .. }) => Some(*link),
        _ => None,
    });
    bench.down(pe);
    told
}

/// Time for doubts, in which the first one answers what it is asked. Whether it was dialled where it is.
fn contest(bench: &mut Bench, first: LinkId, at: &str, answers: bool) -> (bool, Vec<Effect>) {
    let (mut dialled, mut effects) = (false, Vec::new());
    for _ in 0..50 {
        bench.wait(ms(10)).into_iter().for_each(|effect| effects.push(effect));
        if bench.registrar.peers().iter().any(|peer| peer.id == B) && !effects.contains(&Close(first)) {
            effects.extend(bench.enrp(first, B, hello(&format!("{at}:9901"))));
        }
        while !bench.opened.is_empty() {
            dialled = true;
            if answers {
                let (link, _) = bench.answer_dial();
                effects.extend(bench.enrp(link, B, hello(&format!("{at}:9901"))));
            } else {
                effects.extend(bench.refuse_dial());
            }
        }
    }
    (dialled, effects)
}

#[test]
fn who_came_first_has_to_be_where_it_says_it_is() {
    let mut bench = Bench::serving();
    let (stranger, _) = come(&mut bench, "10.0.0.66");
    bench.wait(ms(100));
    bench.enrp(stranger, B, hello("10.0.0.66:9901"));
    let (honest, _) = come(&mut bench, "10.0.0.2");
    let (dialled, effects) = contest(&mut bench, stranger, "10.0.0.66", false);
    assert!(dialled && effects.contains(&Close(stranger)), "{effects:?}");
    assert_eq!(link_of_b(&mut bench, 7), Some(honest));
    bench.enrp(honest, B, hello("10.0.0.2:9901"));
    bench.enrp(honest, B, update(1, B));
    assert_eq!(bench.content("echo"), [(1, B)]);
    // The stranger comes again: now it is the second one.
    let (again, _) = come(&mut bench, "10.0.0.66");
    let (_, effects) = contest(&mut bench, honest, "10.0.0.2", true);
    assert!(effects.contains(&Close(again)), "{effects:?}");
    assert_eq!(bench.content("echo"), [(1, B)]);
}

/// Who can be dialled keeps its identifier, whether it has elements or not, and the second one is told.
#[test]
fn who_came_first_and_is_there_stays_and_the_second_one_is_told() {
    for elements in [false, true] {
        let mut bench = Bench::serving();
        let (first, _) = come(&mut bench, "10.0.0.2");
        if elements {
            bench.enrp(first, B, update(1, B));
        }
        bench.wait(ms(100));
        let (second, _) = come(&mut bench, "10.0.0.66");
        let (dialled, effects) = contest(&mut bench, first, "10.0.0.2", true);
        assert_eq!(dialled, !elements, "one with elements need not prove itself");
        let told = |effect: &Effect| {
            matches!(effect, Effect::Enrp(link, B, Enrp::Error { error })
                if *link == second && error.code() == CauseCode::NON_UNIQUE_PE_ID)
        };
        assert!(effects.iter().any(told) && effects.contains(&Close(second)), "{effects:?}");
        assert_ne!(link_of_b(&mut bench, 7), None);
        let view = bench.registrar.peers();
        assert!(
            view.iter().any(|peer| peer.id == B && peer.addresses == [address("10.0.0.2:9901")]),
            "{view:?}"
        );
    }
}

#[test]
fn a_configured_peer_has_its_identifier_whoever_came_first() {
    let target = Target { protocol: LinkProtocol::Tcp, addresses: vec![address("10.0.0.2:9901")] };
    let (mut bench, _) = Bench::new(Config { peers: vec![target], ..config() });
    bench.refuse_dial();
    bench.wait(ms(5000));
    bench.opened.clear();
    let (stranger, _) = come(&mut bench, "10.0.0.66");
    bench.enrp(stranger, B, update(1, B));
    bench.wait(ms(100));
    bench.enrp(stranger, B, hello("10.0.0.66:9901"));
    let (_, effects) = come(&mut bench, "10.0.0.2");
    assert!(effects.contains(&Close(stranger)), "{effects:?}");
}

/// It is started again, and somebody was faster.
#[test]
fn where_a_registrar_was_before_it_has_its_identifier() {
    let mut bench = Bench::serving();
    let (first, _) = come(&mut bench, "10.0.0.2");
    bench.wait(ms(200));
    bench.kill(first);
    assert_eq!(bench.registrar.peers(), []);
    let (stranger, _) = come(&mut bench, "10.0.0.66");
    let (again, _) = come(&mut bench, "10.0.0.2");
    let (_, effects) = contest(&mut bench, stranger, "10.0.0.66", true);
    assert!(effects.contains(&Close(stranger)), "{effects:?}");
    bench.enrp(again, B, update(1, B));
    assert_eq!(bench.content("echo"), [(1, B)]);
}

/// A registrar with a configured peer that knows another one with its identifier.
fn told_that_it_is_two(id: RegistrarId) -> (Bench, Vec<Effect>) {
    let target = Target { protocol: LinkProtocol::Tcp, addresses: vec![address("10.0.0.2:9901")] };
    let (mut bench, _) = Bench::new(Config { id, peers: vec![target], ..config() });
    let (link, _) = bench.answer_dial();
    bench.enrp(link, B, hello("10.0.0.2:9901"));
    let effects = bench.enrp(link, B, Enrp::Error { error: CauseCode::NON_UNIQUE_PE_ID.into() });
    (bench, effects)
}

#[test]
fn an_identifier_that_was_drawn_is_drawn_again_if_another_has_it() {
    let (mut bench, effects) = told_that_it_is_two(RegistrarId(0));
    let fresh = bench.registrar.id();
    assert!(effects.iter().any(|effect| matches!(effect, Close(_))), "{effects:?}");
    let said = format!("ours is {fresh} now");
    assert!(
        effects
            .iter()
            .any(|effect| matches!(effect, Saw(Event::Complaint { about, .. }) if about.contains(&said))),
        "{effects:?}"
    );
    // It dials again, under the new one, and starts.
    bench.wait(ms(200));
    let (link, _) = bench.answer_dial();
    bench.enrp(link, B, hello("10.0.0.2:9901"));
    bench.wait(ms(300));
    bench.enrp(link, B, table(false, &[(1, B)]));
    assert!(bench.registrar.is_serving());
    // Not once something hangs on it.
    let pe = bench.pe();
    bench.asap(pe, registration(2));
    bench.enrp(link, B, Enrp::Error { error: CauseCode::NON_UNIQUE_PE_ID.into() });
    assert_eq!(bench.registrar.id(), fresh);
    // One that was given is kept.
    let (bench, effects) = told_that_it_is_two(SELF);
    assert_eq!(bench.registrar.id(), SELF);
    assert!(
        effects.iter().any(|effect| matches!(effect, Saw(Event::Complaint { cause: "our identifier", .. }))),
        "{effects:?}"
    );
}
