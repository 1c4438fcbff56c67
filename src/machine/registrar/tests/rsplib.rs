//! What registrars, elements and users of rsplib need.

use super::*;

const B: RegistrarId = RegistrarId(0x6000);

fn sctp(usage: TransportUse, at: &str) -> Transport {
    transport(Protocol::Sctp, usage, at)
}

/// An element whose process has its association from port 40000.
fn sctp_element(id: u32, home: RegistrarId) -> PoolElement {
    PoolElement {
        home,
        transport: sctp(TransportUse::DataPlusControl, "10.0.0.9:7"),
        asap: Some(sctp(TransportUse::DataOnly, "10.0.0.9:40000")),
        ..element(id)
    }
}

/// A registrar that speaks SCTP, with a peer that is rsplib's and owns element 1.
fn with_rsplib() -> (Bench, LinkId) {
    let mut config = config();
    config.asap_transports = vec![sctp(TransportUse::DataOnly, "10.0.0.1:3863")];
    config.enrp_transports = vec![sctp(TransportUse::DataOnly, "10.0.0.1:9901")];
    let (mut bench, _) = Bench::new(config);
    let link = bench.accept(Service::Enrp, LinkProtocol::Sctp, "10.0.0.2:9901");
    // As rsplib does, it lists addresses that are nobody's but its own.
    let own = Transport::new(
        Protocol::Sctp,
        TransportUse::DataOnly,
        9901,
        vec![ip("127.0.0.1"), ip("fe80::2"), ip("10.0.0.2")],
    );
    let server = Some(ServerInformation { id: B, transports: vec![own] });
    bench.enrp(link, B, Enrp::Presence { reply_required: false, checksum: Some([0xff; 2]), server });
    refuse_probe(&mut bench, link);
    let update = Enrp::HandleUpdate {
        takeover_suggested: false,
        action: crate::wire::enrp::UpdateAction::Add,
        handle: pool("echo"),
        element: sctp_element(1, B),
    };
    assert_eq!(bench.enrp(link, B, update), [added(1)]);
    (bench, link)
}

/// Its host is gone: dials are refused until it counts as dead.
fn let_it_die(bench: &mut Bench, link: LinkId) -> Vec<Effect> {
    let mut effects = bench.down(link);
    for _ in 0..3 {
        if bench.opened.is_empty() {
            effects.extend(bench.wait_quietly(ms(500)));
        }
        effects.extend(bench.refuse_dial());
    }
    effects
}

#[test]
fn an_element_that_came_by_itself_is_asked_over_its_association() {
    let (mut bench, link) = with_rsplib();
    // It lost its registrar before we did, and dialled us from the port that we would dial.
    let pe = bench.accept(Service::Asap, LinkProtocol::Sctp, "10.0.0.9:40000");
    let effects = let_it_die(&mut bench, link);
    assert!(effects.contains(&keep_alive(pe, true, 1)), "{effects:?}");
    assert!(!effects.iter().any(|effect| matches!(effect, Open(Service::Asap, _))), "{effects:?}");
    bench.asap(pe, ack(1));
    assert_eq!(bench.content("echo"), [(1, SELF)]);
}

#[test]
fn a_dial_that_met_an_association_is_tried_again() {
    let (mut bench, link) = with_rsplib();
    let effects = let_it_die(&mut bench, link);
    assert!(matches!(effects.last(), Some(Open(Service::Asap, _))), "{effects:?}");
    let (dial, _) = bench.opened.remove(0);
    // The driver knows of an association, the machine not yet.
    assert_eq!(bench.change(dial, LinkChange::Down(LinkDown::Broken)), []);
    assert_eq!(bench.content("echo"), [(1, SELF)]);
    let effects = bench.wait_quietly(ms(600));
    assert!(matches!(effects[..], [Open(Service::Asap, _)]), "{effects:?}");
    let (pe, effects) = bench.answer_dial();
    assert_eq!(effects, [keep_alive(pe, true, 1)]);
}

#[test]
fn addresses_that_mean_something_else_here_are_not_dialled() {
    let (mut bench, link) = with_rsplib();
    bench.down(link);
    let (_, target) = bench.opened.remove(0);
    assert_eq!(target.addresses, [address("10.0.0.2:9901")]);
}

#[test]
fn a_lost_path_is_not_a_lost_element() {
    let (mut bench, _) = with_rsplib();
    let pe = LinkId(bench.next);
    bench.next += 1;
    bench.services.insert(pe, Service::Asap);
    let ends = LinkEnds {
        service: Service::Asap,
        protocol: LinkProtocol::Sctp,
        peer: vec![address("10.0.0.9:40000"), address("10.0.1.9:40000")],
        local: vec![address("10.0.0.1:3863"), address("10.0.1.1:3863")],
        roles: None,
    };
    bench.registrar.handle_link(bench.now, pe, LinkChange::Up(ends));
    let handle = pool("two paths");
    let message = Asap::Registration { handle: handle.clone(), element: sctp_element(2, RegistrarId(0)) };
    bench.asap(pe, message);
    let asked = |effects: &[Effect]| {
        effects.iter().any(|effect| matches!(effect, Effect::Asap(_, Asap::EndpointKeepAlive { .. })))
    };
    while !asked(&bench.wait(ms(50))) {}
    // Each side waits for its retransmission time-out, 0.5 and 1 s, before it takes the other path.
    bench.wait(ms(1800));
    assert_eq!(bench.content("two paths"), [(2, SELF)]);
    bench.wait(ms(1500));
    assert_eq!(bench.content("two paths"), []);
}

#[test]
fn nothing_ends_an_rsplib_registrar() {
    use super::super::dialect::rsplib_can_hold;
    let good = sctp_element(1, B);
    assert!(rsplib_can_hold(&pool("pool"), &good));
    let weightless =
        PoolElement { policy: crate::wire::Policy::WeightedRandom { weight: 0 }, ..good.clone() };
    assert!(!rsplib_can_hold(&pool("pool"), &weightless));
    // Too long for the shortest part of a table, with fewer addresses than a transport may have.
    let many: Vec<IpAddr> = (1..60).map(|n| ip(&format!("2001:db8::{n}"))).collect();
    let asap = Transport::new(Protocol::Sctp, TransportUse::DataOnly, 7, many.clone());
    let transport = Transport::new(Protocol::Sctp, TransportUse::DataPlusControl, 7, many);
    let long = PoolElement { asap: Some(asap), transport, ..good };
    assert!(!rsplib_can_hold(&pool("pool"), &long));
}
