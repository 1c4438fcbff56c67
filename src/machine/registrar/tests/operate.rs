//! What operators want, and who may say so.

use super::*;
use crate::handlespace::marks::{Marks, with_marks};
use crate::machine::registrar::{Operated, Operation};
use crate::machine::trust::Roles;
use crate::wire::CauseCode;
use std::sync::Arc;

const B: RegistrarId = RegistrarId(0x6000);
const C: RegistrarId = RegistrarId(0x7000);

/// Another registrar's operator wants element 1 drained, weighed otherwise, or out.
fn requests() -> [Enrp; 3] {
    let asked = |life: u32, drained: bool, policy: bool| {
        let marks = Marks { request: true, drained, policy };
        let element = PoolElement { life: with_marks(life, marks), ..owned(1, SELF) };
        let (handle, action) = (pool("echo"), UpdateAction::Add);
        Enrp::HandleUpdate { takeover_suggested: false, action, handle, element }
    };
    [asked(LIFE, true, false), asked(LIFE, false, true), asked(0, false, false)]
}

fn known(bench: &Bench) -> Option<PoolElement> {
    let space = bench.registrar.handlespace();
    Some(space.get(space.find(&pool("echo"), PeId(1))?)?.to_element())
}

fn introduction(id: RegistrarId, at: &str) -> Enrp {
    Enrp::Presence { reply_required: false, checksum: None, server: Some(server(id, at)) }
}

fn with_peer(at: &str) -> Bench {
    let target = Target { protocol: LinkProtocol::Tcp, addresses: vec![address(at)] };
    let mut bench = Bench::new(Config { peers: vec![target], ..config() }).0;
    bench.wait(ms(5000));
    bench
}

fn refusal(link: LinkId) -> Effect {
    Effect::Enrp(link, B, Enrp::Error { error: CauseCode::SECURITY.into() })
}

#[test]
fn without_certificates_only_named_peers_change_our_elements() {
    // None is named; one elsewhere is, and one that is near.
    for named in [None, Some("10.0.0.3:9901"), Some("127.0.0.1:9901")] {
        let mut bench = named.map_or_else(Bench::serving, with_peer);
        let pe = bench.pe();
        bench.asap(pe, registration(1));
        let before = known(&bench);
        let mut strangers = vec![(B, bench.peer(B))];
        if named == Some("127.0.0.1:9901") {
            let local = bench.accept_at(Service::Enrp, "127.0.0.66:40000", "127.0.0.66:9901");
            bench.enrp(local, C, introduction(C, "127.0.0.1:9901"));
            strangers.push((C, local));
        }
        for (id, stranger) in strangers {
            for request in requests() {
                let effects = bench.enrp(stranger, id, request);
                let error = Effect::Enrp(stranger, id, Enrp::Error { error: CauseCode::SECURITY.into() });
                let line = |effect: &Effect| {
                    matches!(effect, Saw(Event::Complaint { cause: "operator elsewhere", about, .. })
                        if about.contains("--peer"))
                };
                assert!(effects.contains(&error) && effects.iter().any(line), "{named:?}: {effects:?}");
                assert_eq!(known(&bench), before, "{named:?}");
            }
        }
    }
}

#[test]
fn what_a_named_peer_asks_for_is_done() {
    let mut bench = with_peer("10.0.0.2:9901");
    let pe = bench.pe();
    bench.asap(pe, registration(1));
    let peer = bench.peer(B);
    for (number, request) in requests().into_iter().enumerate() {
        let effects = bench.enrp(peer, B, request);
        assert!(!effects.contains(&refusal(peer)), "{effects:?}");
        let marks = known(&bench).map(|element| crate::handlespace::marks::marks(element.life));
        let is = |drained, policy| Some(Marks { request: false, drained, policy });
        assert_eq!(marks, [is(true, false), is(false, true), None][number]);
    }
}

/// Two registrars of one host: one is named, and the other one is not it.
#[test]
fn while_a_named_peer_is_up_nobody_else_of_its_host_asks() {
    let mut bench = with_peer("10.0.0.2:9901");
    bench.opened.clear();
    for _ in 0..100 {
        if bench.opened.is_empty() {
            bench.wait(ms(50));
        }
    }
    let pe = bench.pe();
    bench.asap(pe, registration(1));
    let (dialled, _) = bench.answer_dial();
    bench.enrp(dialled, C, introduction(C, "10.0.0.2:9901"));
    let other = bench.peer(B);
    let [drain, .., leave] = requests();
    assert!(bench.enrp(other, B, drain.clone()).contains(&refusal(other)));
    bench.enrp(dialled, C, drain);
    assert!(known(&bench).is_some_and(|element| crate::handlespace::marks::marks(element.life).drained));
    bench.enrp(dialled, C, leave);
    assert_eq!(known(&bench), None);
}

#[test]
fn whoever_has_proved_to_be_a_registrar_asks() {
    let mut bench = Bench::serving();
    let pe = bench.pe();
    bench.asap(pe, registration(1));
    let link = LinkId(bench.next);
    bench.next += 1;
    bench.services.insert(link, Service::Enrp);
    let ends = LinkEnds {
        service: Service::Enrp,
        protocol: LinkProtocol::Tcp,
        peer: vec![address("10.0.0.2:40001")],
        local: vec![address("10.0.0.1:9901")],
        roles: Some(Arc::new(Roles::parse(["registrar"]))),
    };
    bench.change(link, LinkChange::Up(ends));
    bench.enrp(link, B, introduction(B, "10.0.0.2:9901"));
    let [.., leave] = requests();
    bench.enrp(link, B, leave);
    assert_eq!(known(&bench), None);
}

/// It is told with a cause, by which it sees that it is not to be back at once.
#[test]
fn an_element_that_an_operator_takes_out_hears_of_it() {
    let mut bench = Bench::serving();
    let pe = bench.pe();
    bench.asap(pe, registration(1));
    let done = bench.registrar.operate(bench.now, &pool("echo"), PeId(1), &Operation::Deregister);
    assert_eq!(done, Ok(Operated::Done));
    let error = Some(CauseCode::SECURITY.into());
    let told = Asap::DeregistrationResponse { handle: pool("echo"), id: PeId(1), error };
    assert_eq!(bench.drain(), [Effect::Asap(pe, told), removed(1, "deregistered")]);
}

#[test]
fn a_home_that_refuses_is_known_for_it_until_it_is_asked_again() {
    let mut bench = Bench::serving();
    let peer = bench.peer(B);
    bench.enrp(peer, B, update(1, B));
    let refuses = |bench: &Bench| bench.registrar.peers()[0].refuses;
    let no = || Enrp::Error { error: CauseCode::SECURITY.into() };
    // Nobody asked it for anything.
    bench.enrp(peer, B, no());
    assert!(!refuses(&bench));
    let ask = |bench: &mut Bench| {
        let asked = bench.registrar.operate(bench.now, &pool("echo"), PeId(1), &Operation::Drain);
        bench.drain();
        asked
    };
    assert_eq!(ask(&mut bench), Ok(Operated::Asked(B)));
    assert!(!refuses(&bench));
    let effects = bench.enrp(peer, B, no());
    let line = |effect: &Effect| matches!(effect, Saw(Event::Complaint { cause: "operation refused", .. }));
    assert!(refuses(&bench) && effects.iter().any(line), "{effects:?}");
    assert_eq!(ask(&mut bench), Ok(Operated::Asked(B)));
    assert!(!refuses(&bench));
}
