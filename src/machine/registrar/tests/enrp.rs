use super::super::Dialect;
use super::*;
use crate::handlespace::Sum;
use crate::wire::CauseCode;

const B: RegistrarId = RegistrarId(0x6000);
const C: RegistrarId = RegistrarId(0x7000);

fn presence_from(id: RegistrarId, checksum: [u8; 2], reply_required: bool) -> Enrp {
    Enrp::Presence { reply_required, checksum: Some(checksum), server: Some(server(id, "10.0.0.2:9901")) }
}

/// The checksum of `ids` in pool "echo".
fn checksum(ids: &[u32]) -> [u8; 2] {
    let mut sum = Sum::default();
    ids.iter().for_each(|&id| sum.add(Sum::of(&pool("echo"), PeId(id))));
    sum.to_wire()
}

#[test]
fn a_stranger_is_asked_to_introduce_itself() {
    let mut bench = Bench::serving();
    let link = bench.accept(Service::Enrp, LinkProtocol::Tcp, "10.0.0.2:50000");
    assert_eq!(
        bench.enrp(link, B, Enrp::ListRequest),
        [
            Saw(Event::PeerAdded { id: B }),
            Effect::Enrp(link, B, bench.presence(true)),
            Effect::Enrp(link, B, Enrp::ListResponse { rejected: false, servers: Vec::new() }),
        ]
    );
    // RFC 5353 section 3.4.1: also one whose first message is a presence.
    let other = bench.accept(Service::Enrp, LinkProtocol::Tcp, "10.0.0.3:50000");
    assert_eq!(
        bench.enrp(other, C, presence_from(C, [0xff, 0xff], false)),
        [
            Saw(Event::PeerAdded { id: C }),
            Effect::Enrp(other, C, bench.presence(true)),
            Effect::Enrp(other, C, Enrp::ListRequest),
        ]
    );
    // Then it is asked for its own peers, once.
    let body = presence_from(B, [0xff, 0xff], false);
    assert_eq!(bench.enrp(link, B, body.clone()), [Effect::Enrp(link, B, Enrp::ListRequest)]);
    assert_eq!(bench.enrp(link, B, body), []);
}

#[test]
fn a_required_reply_goes_back_over_the_same_link() {
    let mut bench = Bench::serving();
    let link = bench.peer(B);
    let body = presence_from(B, [0xff, 0xff], true);
    assert_eq!(bench.enrp(link, B, body), [Effect::Enrp(link, B, bench.presence(false))]);
}

#[test]
fn lists_name_the_living_with_their_transports() {
    let mut bench = Bench::serving();
    let (b, _c) = (bench.peer(B), bench.peer(C));
    let servers = vec![server(C, "10.0.0.2:9901")];
    assert_eq!(
        bench.enrp(b, B, Enrp::ListRequest),
        [Effect::Enrp(b, B, Enrp::ListResponse { rejected: false, servers })]
    );
}

#[test]
fn listed_registrars_are_dialled_by_the_lower_id_first() {
    let mut bench = Bench::serving();
    let link = bench.peer(B);
    let lower = RegistrarId(0x4000);
    let servers = vec![
        server(SELF, "10.0.0.1:9901"),
        server(RegistrarId(0), "10.0.0.4:9901"),
        server(C, "10.0.0.3:9901"),
        server(lower, "10.0.0.5:9901"),
    ];
    let target = |text: &str| Target { protocol: LinkProtocol::Tcp, addresses: vec![address(text)] };
    assert_eq!(
        bench.enrp(link, B, Enrp::ListResponse { rejected: false, servers }),
        [
            Saw(Event::PeerAdded { id: C }),
            Open(Service::Enrp, target("10.0.0.3:9901")),
            Saw(Event::PeerAdded { id: lower }),
        ]
    );
    assert_eq!(bench.wait_quietly(ms(200)), [Open(Service::Enrp, target("10.0.0.5:9901"))]);
    let (dialled, effects) = bench.answer_dial();
    assert_eq!(effects, [Effect::Enrp(dialled, C, bench.presence(true))]);
}

#[test]
fn a_multicast_presence_is_a_hint_where_to_dial() {
    let mut bench = Bench::serving();
    let message = |id| {
        let body = Enrp::Presence {
            reply_required: false,
            checksum: Some([1, 2]),
            server: Some(server(id, "192.0.2.3:9902")),
        };
        EnrpMessage { sender: id, receiver: RegistrarId(0), body }.encode()
    };
    let from = address("10.0.0.3:9999");
    bench.registrar.handle_announce(bench.now, Service::Enrp, from, &message(B));
    let target = Target {
        protocol: LinkProtocol::Tcp,
        addresses: vec![address("10.0.0.3:9902"), address("192.0.2.3:9902")],
    };
    assert_eq!(bench.drain(), [Saw(Event::PeerAdded { id: B }), Open(Service::Enrp, target)]);
    // Our own, with our ID or with none, and garbage: nothing.
    for bytes in [message(SELF), message(RegistrarId(0)), vec![1, 2, 3]] {
        bench.registrar.handle_announce(bench.now, Service::Enrp, from, &bytes);
        assert_eq!(bench.drain(), []);
    }
}

#[test]
fn peers_are_bounded() {
    let (mut bench, _) = Bench::new(Config { max_peers: 3, ..config() });
    let link = bench.peer(B);
    let servers = (1..100).map(|id| server(RegistrarId(id), "10.0.0.3:9901")).collect();
    bench.enrp(link, B, Enrp::ListResponse { rejected: false, servers });
    assert_eq!(bench.registrar.peers().len(), 3);
    // One that shows up itself takes the place of one of whom there is only hearsay.
    bench.peer(C);
    let known: Vec<_> = bench.registrar.peers().iter().map(|peer| peer.id).collect();
    assert!(known.contains(&B) && known.contains(&C), "{known:?}");
}

#[test]
fn updates_are_taken_over() {
    let mut bench = Bench::serving();
    let link = bench.peer(B);
    assert_eq!(bench.enrp(link, B, update(1, B)), [added(1)]);
    assert_eq!(bench.content("echo"), [(1, B)]);
    assert_eq!(bench.enrp(link, B, removal(1, B)), [removed(1, "removed by its registrar")]);
    // About ours and from nobody: nothing.
    assert_eq!(bench.enrp(link, B, update(1, SELF)), []);
    assert_eq!(bench.enrp(link, B, update(1, RegistrarId(0))), []);
}

#[test]
fn a_late_removal_by_a_former_home_is_ignored() {
    let mut bench = Bench::serving();
    let (b, c) = (bench.peer(B), bench.peer(C));
    bench.enrp(b, B, update(1, B));
    bench.enrp(c, C, update(1, C));
    assert_eq!(bench.enrp(b, B, removal(1, B)), []);
    assert_eq!(bench.content("echo"), [(1, C)]);
    // A deregistration elsewhere names the home, which says so itself if it is there.
    assert_eq!(bench.enrp(b, B, removal(1, C)), []);
    assert_eq!(bench.content("echo"), [(1, C)]);
    // And of one that is silent, the element is asked, whatever others say: it is there.
    bench.down(c);
    for there in [true, false] {
        while !bench.opened.is_empty() && bench.opened[0].1.addresses[0] != address("10.0.0.9:99") {
            bench.refuse_dial();
        }
        bench.enrp(b, B, removal(1, C));
        assert_eq!(bench.content("echo"), [(1, C)]);
        assert_eq!(bench.opened.len(), 1);
        let (pe, asked) = bench.answer_dial();
        let question = keep_alive(pe, false, 1);
        assert!(asked.contains(&question), "{asked:?}");
        if there {
            bench.asap(pe, ack(1));
            assert_eq!(bench.content("echo"), [(1, C)]);
        }
    }
    let later = bench.wait_quietly(ms(1000));
    assert!(later.contains(&removed(1, "removed elsewhere")), "{later:?}");
}

#[test]
fn the_audit_reads_what_differs_and_purges_the_rest() {
    let mut bench = Bench::serving();
    let link = bench.peer(B);
    for id in [1, 2] {
        bench.enrp(link, B, update(id, B));
    }
    assert_eq!(bench.enrp(link, B, presence_from(B, checksum(&[1, 2]), false)), []);
    assert_eq!(
        bench.enrp(link, B, presence_from(B, checksum(&[2, 3, 4]), false)),
        [Effect::Enrp(link, B, Enrp::HandleTableRequest { own_only: true })]
    );
    // One at a time.
    assert_eq!(bench.enrp(link, B, presence_from(B, checksum(&[2, 3, 4]), false)), []);
    assert_eq!(
        bench.enrp(link, B, table(true, &[(2, B)])),
        [Effect::Enrp(link, B, Enrp::HandleTableRequest { own_only: true })]
    );
    // What is new meanwhile is not purged.
    assert_eq!(bench.enrp(link, B, update(4, B)), [added(4)]);
    assert_eq!(
        bench.enrp(link, B, table(false, &[(3, B)])),
        [added(3), removed(1, "unknown to its registrar")]
    );
    assert_eq!(bench.enrp(link, B, presence_from(B, checksum(&[2, 3, 4]), false)), []);
    assert_eq!(bench.registrar.stats().resynchronisations, 1);
}

#[test]
fn an_audit_that_does_not_help_is_not_repeated_at_every_presence() {
    let mut bench = Bench::serving();
    let link = bench.peer(B);
    for _ in 0..100 {
        let effects = bench.enrp(link, B, presence_from(B, [1, 1], false));
        if effects == [Effect::Enrp(link, B, Enrp::HandleTableRequest { own_only: true })] {
            bench.enrp(link, B, table(false, &[(1, B)]));
        }
        bench.wait(ms(100));
    }
    let audits = bench.registrar.stats().resynchronisations;
    assert!((2..=5).contains(&audits), "{audits}");
}

/// Whoever made us read its table in vain for long does not keep others out under its name.
#[test]
fn who_is_refused_for_the_sake_of_a_registrar_has_its_table_read_soon() {
    let mut bench = Bench::serving();
    let link = bench.peer(B);
    bench.enrp(link, B, update(7, B));
    for _ in 0..600 {
        let effects = bench.enrp(link, B, presence_from(B, [1, 1], false));
        if effects == [Effect::Enrp(link, B, Enrp::HandleTableRequest { own_only: true })] {
            bench.enrp(link, B, table(false, &[(1, B), (7, B)]));
        }
        bench.wait(ms(100));
    }
    // It is right from now on, and what we read last is not.
    let audits = bench.registrar.stats().resynchronisations;
    assert_eq!(bench.enrp(link, B, presence_from(B, checksum(&[1]), false)), []);
    let elsewhere = bench.accept(Service::Asap, LinkProtocol::Tcp, "10.0.0.10:40001");
    let mut element = element(7);
    element.transport = transport(Protocol::Tcp, TransportUse::DataPlusControl, "10.0.0.10:7");
    let register = Asap::Registration { handle: pool("echo"), element };
    for _ in 0..3 {
        let effects = bench.asap(elsewhere, register.clone());
        let Some(Effect::Asap(_, Asap::RegistrationResponse { rejected: true, .. })) = effects.last() else {
            panic!("{effects:?}")
        };
    }
    let ask = Effect::Enrp(link, B, Enrp::HandleTableRequest { own_only: true });
    assert_eq!(bench.enrp(link, B, presence_from(B, checksum(&[1]), false)), [ask]);
    bench.enrp(link, B, table(false, &[(1, B)]));
    assert_eq!(bench.registrar.stats().resynchronisations, audits + 1);
    let effects = bench.asap(elsewhere, register);
    assert_eq!(effects.last(), Some(&registered(elsewhere, 7)), "{effects:?}");
}

#[test]
fn tables_come_in_parts_each_where_the_last_one_ended() {
    let (mut bench, _) = Bench::new(Config { max_elements_per_handle_table_request: 2, ..config() });
    let (link, other) = (bench.peer(B), bench.peer(C));
    let pe = bench.pe();
    for id in 1..=3 {
        bench.asap(pe, registration(id));
    }
    bench.enrp(other, C, update(4, C));
    let ask = |own_only| Enrp::HandleTableRequest { own_only };
    let part = |link, to, more, ids: &[(u32, RegistrarId)]| [Effect::Enrp(link, to, table(more, ids))];
    assert_eq!(bench.enrp(link, B, ask(false)), part(link, B, true, &[(1, SELF), (2, SELF)]));
    assert_eq!(bench.enrp(link, B, ask(false)), part(link, B, false, &[(3, SELF), (4, C)]));
    // From the beginning: after the end, with the other flag, after a pause, over another link.
    assert_eq!(bench.enrp(link, B, ask(false)), part(link, B, true, &[(1, SELF), (2, SELF)]));
    assert_eq!(bench.enrp(link, B, ask(true)), part(link, B, true, &[(1, SELF), (2, SELF)]));
    assert_eq!(bench.enrp(link, B, ask(true)), part(link, B, false, &[(3, SELF)]));
    assert_eq!(bench.enrp(link, B, ask(true)), part(link, B, true, &[(1, SELF), (2, SELF)]));
    bench.now = bench.now + ms(5001);
    assert_eq!(bench.enrp(link, B, ask(true)), part(link, B, true, &[(1, SELF), (2, SELF)]));
    bench.down(link);
    let link = bench.peer(B);
    assert_eq!(bench.enrp(link, B, ask(true)), part(link, B, true, &[(1, SELF), (2, SELF)]));
}

#[test]
fn parts_of_tables_fit_their_reader() {
    let mut bench = Bench::serving();
    let pe = bench.pe();
    bench.register_many(pe, 1..=2000);
    let tcp = bench.peer(B);
    let size = |effects: Vec<Effect>| match &effects[..] {
        [Effect::Enrp(_, receiver, body)] => {
            EnrpMessage { sender: SELF, receiver: *receiver, body: body.clone() }.encode().len()
        }
        other => panic!("{other:?}"),
    };
    let large = size(bench.enrp(tcp, B, Enrp::HandleTableRequest { own_only: true }));
    assert!((25_000..=32 << 10).contains(&large), "{large}");
    let sctp = bench.accept(Service::Enrp, LinkProtocol::Sctp, "10.0.0.3:9901");
    let at = transport(Protocol::Sctp, TransportUse::DataOnly, "10.0.0.3:9901");
    let server = Some(ServerInformation { id: C, transports: vec![at.clone(), at] });
    bench.enrp(sctp, C, Enrp::Presence { reply_required: false, checksum: None, server });
    let small = size(bench.enrp(sctp, C, Enrp::HandleTableRequest { own_only: true }));
    assert!((1300..=1400).contains(&small), "{small}");
}

#[test]
fn a_slow_peer_gets_the_newest_state_of_what_changed() {
    let mut bench = Bench::serving();
    let link = bench.peer(B);
    let pe = bench.pe();
    bench.asap(pe, registration(1));
    bench.change(link, LinkChange::Congested);
    for _ in 0..3 {
        assert_eq!(bench.asap(pe, registration(2)).last(), Some(&registered(pe, 2)));
    }
    bench.asap(pe, Asap::Deregistration { handle: pool("echo"), id: PeId(1) });
    bench.asap(pe, registration(3));
    bench.asap(pe, Asap::Deregistration { handle: pool("echo"), id: PeId(3) });
    assert_eq!(
        bench.change(link, LinkChange::Drained),
        [
            Effect::Enrp(link, B, retirement(1, SELF)),
            Effect::Enrp(link, B, update(2, SELF)),
            Effect::Enrp(link, B, retirement(3, SELF)),
            Effect::Enrp(link, B, bench.presence(false)),
        ]
    );
}

#[test]
fn a_peer_too_slow_for_that_reads_the_table() {
    let mut bench = Bench::serving();
    let link = bench.peer(B);
    let pe = bench.pe();
    bench.change(link, LinkChange::Congested);
    bench.register_many(pe, 1..=5000);
    let [a, b] = bench.registrar.handlespace().checksum(SELF);
    let effects = bench.change(link, LinkChange::Drained);
    let [Effect::Enrp(_, B, Enrp::Presence { checksum: Some(sent), .. })] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(*sent, [!a, !b]);
}

#[test]
fn a_burst_is_spread() {
    let mut bench = Bench::serving();
    let link = bench.peer(B);
    let pe = bench.pe();
    bench.register_many(pe, 1..=20_000);
    let bytes_sent = |effects: &[Effect]| effects.iter().filter(|e| matches!(e, Effect::Enrp(..))).count();
    let now = bytes_sent(&bench.down(pe));
    assert!(now < 10_000, "{now} messages at once");
    let later = bench.wait(ms(10));
    assert!(
        later.iter().any(|effect| matches!(effect, Effect::Enrp(_, B, Enrp::Presence { .. }))),
        "asks the peer to read the table"
    );
    let _ = link;
}

/// An RFC peer over SCTP whose first presence we have.
fn with_one_transport(bench: &mut Bench) -> (LinkId, Vec<Effect>) {
    let link = bench.accept(Service::Enrp, LinkProtocol::Sctp, "10.0.0.2:9901");
    let transports = vec![transport(Protocol::Sctp, TransportUse::DataOnly, "10.0.0.2:9901")];
    let server = Some(ServerInformation { id: B, transports });
    let hello = Enrp::Presence { reply_required: false, checksum: Some([0xff; 2]), server };
    let effects = bench.enrp(link, B, hello);
    (link, effects)
}

#[test]
fn a_registrar_of_the_rfc_has_one_sctp_transport_and_gets_everything() {
    let mut bench = Bench::serving();
    let pe = bench.pe();
    bench.asap(pe, registration(1));
    let (link, effects) = with_one_transport(&mut bench);
    // It is asked for its peers, twice, the first time with a parameter that the RFC has it skip.
    let asked = effects.iter().filter(|effect| **effect == Effect::Enrp(link, B, Enrp::ListRequest));
    assert_eq!(asked.count(), 2, "{effects:?}");
    // Until it answers it gets nothing that rsplib's would not survive.
    assert_eq!(bench.asap(pe, registration(2)), [added(2), registered(pe, 2)]);
    // Whoever answers is none of rsplib's, and is told by its checksum what it lacks.
    let effects = bench.enrp(link, B, Enrp::ListResponse { rejected: false, servers: Vec::new() });
    let [Effect::Enrp(_, B, Enrp::Presence { checksum: Some(sent), .. })] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(*sent, checksum(&[1, 2]));
    let effects = bench.asap(pe, registration(3));
    assert!(effects.contains(&Effect::Enrp(link, B, update(3, SELF))), "{effects:?}");
    let effects = bench.enrp(link, B, Enrp::HandleTableRequest { own_only: true });
    assert_eq!(effects, [Effect::Enrp(link, B, table(false, &[(1, SELF), (2, SELF), (3, SELF)]))]);
}

#[test]
fn who_lists_its_loopback_to_everybody_is_rsplibs() {
    let mut bench = Bench::serving();
    let link = bench.accept(Service::Enrp, LinkProtocol::Sctp, "10.0.0.2:9901");
    let all = ["127.0.0.1", "fe80::2", "10.0.0.2"].map(ip).to_vec();
    let transports = vec![Transport::new(Protocol::Sctp, TransportUse::DataOnly, 9901, all)];
    let server = Some(ServerInformation { id: B, transports });
    let hello = Enrp::Presence { reply_required: false, checksum: Some([0xff; 2]), server };
    let effects = bench.enrp(link, B, hello);
    let asked = effects.iter().filter(|effect| **effect == Effect::Enrp(link, B, Enrp::ListRequest));
    assert_eq!(asked.count(), 1, "nothing to find out: {effects:?}");
    let pe = bench.pe();
    let effects = bench.asap(pe, registration(1));
    assert!(!effects.contains(&Effect::Enrp(link, B, update(1, SELF))), "{effects:?}");
}

#[test]
fn who_passes_the_probe_over_is_taken_for_one_of_the_rfc() {
    let mut bench = Bench::serving();
    let (link, _) = with_one_transport(&mut bench);
    for _ in 0..6 {
        bench.wait(ms(1000));
        bench.enrp(link, B, Enrp::InitTakeoverAck { target: C });
    }
    let pe = bench.pe();
    let effects = bench.asap(pe, registration(1));
    assert!(effects.contains(&Effect::Enrp(link, B, update(1, SELF))), "{effects:?}");
}

#[test]
fn the_operator_may_say_what_peers_speak() {
    for (dialect, told) in [(Dialect::Rfc, true), (Dialect::Rsplib, false)] {
        let (mut bench, _) = Bench::new(Config { dialect: Some(dialect), ..config() });
        let (link, effects) = with_one_transport(&mut bench);
        let asked = effects.iter().filter(|effect| **effect == Effect::Enrp(link, B, Enrp::ListRequest));
        assert_eq!(asked.count(), 1, "nothing to find out: {effects:?}");
        let pe = bench.pe();
        let effects = bench.asap(pe, registration(1));
        assert_eq!(effects.contains(&Effect::Enrp(link, B, update(1, SELF))), told, "{effects:?}");
    }
}

#[test]
fn elements_that_cannot_be_held_do_not_spoil_the_checksum_for_good() {
    let mut bench = Bench::serving();
    let link = bench.peer(B);
    let pe = bench.pe();
    bench.asap(pe, registration(1));
    // RFC 5353 section 3.3.1: it must be added, which another policy than its pool's forbids.
    let mut odd = owned(2, B);
    odd.policy = Policy::Random;
    let told = Enrp::HandleUpdate {
        takeover_suggested: false,
        action: UpdateAction::Add,
        handle: pool("echo"),
        element: odd,
    };
    let effects = bench.enrp(link, B, told);
    assert!(matches!(&effects[..], [Saw(Event::Complaint { .. })]), "{effects:?}");
    assert_eq!(bench.enrp(link, B, presence_from(B, checksum(&[2]), false)), []);
    // It goes as it came.
    bench.enrp(link, B, removal(2, B));
    assert_eq!(bench.enrp(link, B, presence_from(B, checksum(&[]), false)), []);
    assert_eq!(bench.registrar.stats().resynchronisations, 0);
}

#[test]
fn a_refused_list_is_asked_for_elsewhere_and_again() {
    let mut bench = Bench::serving();
    let (b, c) = (bench.peer(B), bench.peer(C));
    let refused = Enrp::ListResponse { rejected: true, servers: Vec::new() };
    assert_eq!(bench.enrp(b, B, refused), [Effect::Enrp(c, C, Enrp::ListRequest)]);
    assert_eq!(bench.enrp(b, B, presence_from(B, [0xff; 2], false)), []);
    bench.now = bench.now + ms(2000);
    assert_eq!(bench.enrp(b, B, presence_from(B, [0xff; 2], false)), [Effect::Enrp(b, B, Enrp::ListRequest)]);
}

#[test]
fn lists_do_not_pass_on_what_means_each_host_itself() {
    let mut bench = Bench::serving();
    let (b, c) = (bench.peer(B), bench.peer(C));
    let all = ["127.0.0.1", "fe80::7", "10.0.0.3"].map(ip);
    let at = Transport::new(Protocol::Sctp, TransportUse::DataOnly, 9901, all.to_vec());
    let server = Some(ServerInformation { id: C, transports: vec![at] });
    bench.enrp(c, C, Enrp::Presence { reply_required: false, checksum: None, server });
    let effects = bench.enrp(b, B, Enrp::ListRequest);
    let [Effect::Enrp(_, B, Enrp::ListResponse { servers, .. })] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(servers[0].transports[0].addresses(), [ip("10.0.0.3")]);
}

#[test]
fn rsplib_gets_only_what_it_survives() {
    let mut bench = Bench::serving();
    let link = bench.accept(Service::Enrp, LinkProtocol::Sctp, "10.0.0.2:9901");
    let info = ServerInformation {
        id: B,
        transports: vec![transport(Protocol::Sctp, TransportUse::DataOnly, "10.0.0.2:9901")],
    };
    let hello = Enrp::Presence { reply_required: false, checksum: Some([0xff; 2]), server: Some(info) };
    bench.enrp(link, B, hello.clone());
    refuse_probe(&mut bench, link);
    // Over TCP: no SCTP transport for keep-alives.
    let pe = bench.pe();
    let effects = bench.asap(pe, registration(1));
    assert!(matches!(&effects[..], [_, Saw(Event::Complaint { .. }), Effect::Asap(..)]), "{effects:?}");
    // Over SCTP: fine, but not with a long handle.
    let pe = bench.accept(Service::Asap, LinkProtocol::Sctp, "10.0.0.9:40000");
    for (name, told) in [("short", true), ("a handle that is longer than 32 bytes", false)] {
        let mut sctp = element(3);
        sctp.transport = transport(Protocol::Sctp, TransportUse::DataPlusControl, "10.0.0.9:7");
        let effects = bench.asap(pe, Asap::Registration { handle: pool(name), element: sctp });
        let updates = effects.iter().filter(|effect| matches!(effect, Effect::Enrp(..))).count();
        assert_eq!(updates, usize::from(told));
    }
    // Its checksum and its table cover just that.
    let expected = Sum::of(&pool("short"), PeId(3)).to_wire();
    let ask = Enrp::Presence { reply_required: true, checksum: Some([0xff; 2]), server: None };
    let effects = bench.enrp(link, B, ask);
    let [Effect::Enrp(_, B, Enrp::Presence { checksum: Some(checksum), .. })] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(*checksum, expected);
    let effects = bench.enrp(link, B, Enrp::HandleTableRequest { own_only: true });
    let [Effect::Enrp(_, B, Enrp::HandleTableResponse { pools, more: false, .. })] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(pools.iter().map(|(handle, _)| handle.clone()).collect::<Vec<_>>(), [pool("short")]);
}

#[test]
fn a_contradiction_is_decided_by_the_element() {
    let mut bench = Bench::serving();
    let peer = bench.peer(B);
    let pe = bench.pe();
    bench.asap(pe, registration(1));
    // News: it registered with B. If it did, it closes its link, and that is no loss.
    assert_eq!(bench.enrp(peer, B, update(1, B)), []);
    assert_eq!(bench.content("echo"), [(1, SELF)]);
    let other = bench.pe();
    bench.asap(other, registration(2));
    bench.enrp(peer, B, update(2, B));
    assert_eq!(bench.down(other), []);
    assert_eq!(bench.content("echo"), [(1, SELF), (2, B)]);
    // If its link stays up, the news was old: ask it.
    let asked = bench.wait_quietly(ms(500));
    assert_eq!(asked, [keep_alive(pe, true, 1)]);
    assert_eq!(bench.asap(pe, ack(1)), [Effect::Enrp(peer, B, update(1, SELF))]);
    assert_eq!(bench.content("echo"), [(1, SELF), (2, B)]);
    // And it is watched as before. B gave it up.
    bench.enrp(peer, B, removal(1, B));
    assert_eq!(bench.down(pe).first(), Some(&removed(1, "link broken")));
}

#[test]
fn checksums_agree_while_an_element_is_disputed() {
    let mut bench = Bench::serving();
    let peer = bench.peer(B);
    let pe = bench.pe();
    bench.asap(pe, registration(1));
    bench.enrp(peer, B, update(1, B));
    assert_eq!(bench.enrp(peer, B, presence_from(B, checksum(&[1]), false)), []);
    assert_eq!(bench.wait_quietly(ms(500)), [keep_alive(pe, true, 1)]);
    bench.asap(pe, ack(1));
    // B believes us, and its checksum says so: no audit is needed, now or later.
    assert_eq!(bench.enrp(peer, B, presence_from(B, checksum(&[]), false)), []);
    assert_eq!(bench.content("echo"), [(1, SELF)]);
    assert_eq!(bench.enrp(peer, B, presence_from(B, checksum(&[]), false)), []);
    // Where neither the one nor the other fits, one is.
    assert_eq!(
        bench.enrp(peer, B, presence_from(B, checksum(&[1, 2]), false)),
        [Effect::Enrp(peer, B, Enrp::HandleTableRequest { own_only: true })]
    );
    assert_eq!(bench.enrp(peer, B, table(false, &[])), []);
    assert_eq!(bench.enrp(peer, B, presence_from(B, checksum(&[]), false)), []);
}

#[test]
fn an_element_that_does_not_speak_for_us_is_the_peers() {
    let mut bench = Bench::serving();
    let peer = bench.peer(B);
    let pe = bench.pe();
    bench.asap(pe, registration(1));
    bench.enrp(peer, B, update(1, B));
    assert_eq!(bench.wait_quietly(ms(500)), [keep_alive(pe, true, 1)]);
    bench.wait(ms(800));
    assert_eq!(bench.content("echo"), [(1, B)]);
}

/// Answers are alike: that to a keep-alive without the H flag says nothing of whose the element is.
#[test]
fn a_process_that_answers_keep_alives_alone_does_not_speak_for_us() {
    for probed_before in [false, true] {
        // Between two keep-alives there is time for a question, and while its answer may come for two keep-alives.
        let long = Duration::from_secs(5);
        let (mut bench, _) = Bench::new(Config { endpoint_keep_alive_timeout_interval: long, ..config() });
        let peer = bench.peer(B);
        let pe = bench.pe();
        bench.asap(pe, registration(1));
        if probed_before {
            bench.asap(pe, Asap::EndpointUnreachable { handle: pool("echo"), id: PeId(1) });
        }
        bench.enrp(peer, B, update(1, B));
        let mut asked = 0;
        for _ in 0..70 {
            for effect in bench.wait(ms(100)) {
                if let Effect::Asap(link, Asap::EndpointKeepAlive { home, .. }) = effect {
                    asked += u32::from(home);
                    if !home {
                        bench.asap(link, ack(1));
                    }
                }
            }
            if probed_before && asked == 1 {
                bench.asap(pe, ack(1));
                asked += 1;
            }
            bench.enrp(peer, B, presence_from(B, checksum(&[1]), false));
        }
        assert!(asked > 0);
        assert_eq!(bench.content("echo"), [(1, B)], "asked before: {probed_before}");
    }
}

/// A checksum of 16 bits says nothing of one in 65535 names, beside others.
#[test]
fn whose_an_element_is_that_adds_nothing_to_a_checksum_is_read_in_a_table() {
    let without = checksum(&[7]);
    let unseen = (8..1_000_000).find(|&id| checksum(&[7, id]) == without).expect("one of 65535");
    let mut bench = Bench::serving();
    let (one, other) = (bench.peer(B), bench.peer(C));
    for id in [7, unseen] {
        bench.enrp(one, B, update(id, B));
    }
    bench.enrp(other, C, update(unseen, C));
    assert_eq!(bench.content("echo"), [(7, B), (unseen, B)], "B is up, and has not said that it gave it up");
    let asks = Effect::Enrp(one, B, Enrp::HandleTableRequest { own_only: true });
    assert!(bench.enrp(one, B, presence_from(B, without, false)).contains(&asks));
    bench.enrp(one, B, table(false, &[(7, B)]));
    assert_eq!(bench.content("echo"), [(7, B), (unseen, C)]);
}

#[test]
fn quarrels_end_with_the_one_where_it_is_registered() {
    let mut bench = Bench::serving();
    let peer = bench.peer(B);
    let pe = bench.pe();
    bench.asap(pe, registration(1));
    let mut asked = 0;
    for _ in 0..20 {
        bench.enrp(peer, B, update(1, B));
        for _ in 0..20 {
            for effect in bench.wait(ms(100)) {
                if let Effect::Asap(link, Asap::EndpointKeepAlive { home, .. }) = effect {
                    asked += u32::from(home);
                    bench.asap(link, ack(1));
                }
            }
            bench.enrp(peer, B, Enrp::ListRequest);
        }
    }
    // Six rounds in a minute, each with more patience, and nobody else has it.
    assert!((3..=6).contains(&asked), "{asked}");
    assert_eq!(bench.content("echo"), [(1, SELF)]);
    // It does not register again, so at the end of its life it is where others say that it is.
    for _ in 0..600 {
        for effect in bench.wait(ms(100)) {
            if let Effect::Asap(link, Asap::EndpointKeepAlive { .. }) = effect {
                bench.asap(link, ack(1));
            }
        }
        bench.enrp(peer, B, Enrp::ListRequest);
    }
    assert_eq!(bench.content("echo"), [(1, B)]);
}

#[test]
fn a_table_does_not_take_elements_away_but_corrects_the_peer() {
    let mut bench = Bench::serving();
    let peer = bench.peer(B);
    let pe = bench.pe();
    bench.asap(pe, registration(1));
    bench.enrp(peer, B, presence_from(B, checksum(&[1]), false));
    assert_eq!(bench.enrp(peer, B, table(false, &[(1, B)])), [Effect::Enrp(peer, B, update(1, SELF))]);
    assert_eq!(bench.content("echo"), [(1, SELF)]);
}

#[test]
fn undecodable_messages_get_an_error_with_the_sender_as_receiver() {
    let mut bench = Bench::serving();
    let link = bench.peer(B);
    // A handle update that ends after its action.
    let broken = [4, 0, 0, 16, 0, 0, 0x60, 0, 0, 0, 0x50, 0, 0, 0, 0, 0];
    bench.registrar.handle_message(bench.now, link, &broken);
    let effects = bench.drain();
    let [Saw(Event::Complaint { .. }), Effect::Enrp(_, B, Enrp::Error { error })] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(error.code(), CauseCode::INVALID_VALUES, "IANA knows no 0x10");
    let mut error = broken;
    error[0] = 0x0a;
    bench.registrar.handle_message(bench.now, link, &error);
    assert!(bench.drain().iter().all(|effect| matches!(effect, Saw(_))));
}

#[test]
fn both_dial_and_one_link_is_sent_over() {
    let mut bench = Bench::serving();
    let first = bench.peer(B);
    let servers = vec![server(C, "10.0.0.3:9901")];
    bench.enrp(first, B, Enrp::ListResponse { rejected: false, servers });
    // C dials us while we dial C: ours is the lower ID, so ours is the link.
    let theirs = bench.peer(C);
    let (ours, effects) = bench.answer_dial();
    assert_eq!(effects, [Effect::Enrp(ours, C, bench.presence(true))]);
    let pe = bench.pe();
    let effects = bench.asap(pe, registration(1));
    assert!(effects.contains(&Effect::Enrp(ours, RegistrarId(0), update(1, SELF))), "{effects:?}");
    // The other one is listened to, and serves when the first is gone.
    assert_eq!(bench.enrp(theirs, C, update(2, C)), [added(2)]);
    let effects = bench.down(ours);
    assert!(
        matches!(&effects[..], [Effect::Enrp(link, C, Enrp::Presence { .. }), Effect::Enrp(_, C, _)] if *link == theirs),
        "{effects:?}"
    );
}

#[test]
fn a_second_link_is_used_when_the_first_does_not_answer() {
    let mut bench = Bench::serving();
    let old = bench.peer(B);
    bench.wait(ms(1200));
    bench.enrp(old, B, Enrp::ListRequest);
    bench.wait(ms(1000));
    let new = bench.accept(Service::Enrp, LinkProtocol::Tcp, "10.0.0.2:50001");
    // Whoever it is may know that we live, and B is asked whether it is.
    let effects = bench.enrp(new, B, presence_from(B, [0xff; 2], true));
    assert_eq!(
        effects,
        [Effect::Enrp(old, B, bench.presence(true)), Effect::Enrp(new, B, bench.presence(false))]
    );
    let effects = bench.wait_quietly(ms(450));
    assert!(effects.contains(&Close(old)), "{effects:?}");
    let pe = bench.pe();
    let effects = bench.asap(pe, registration(1));
    assert!(effects.contains(&Effect::Enrp(new, B, update(1, SELF))), "{effects:?}");
}

/// What a multicast presence of B from `source` makes us dial.
fn dialled_after(source: &str, addresses: &[&str]) -> Vec<Target> {
    let (mut bench, _) = Bench::new(Config { announce_enrp: true, ..config() });
    let transports = addresses.iter().map(|text| transport(Protocol::Tcp, TransportUse::DataOnly, text));
    let server = ServerInformation { id: B, transports: transports.collect() };
    let body = Enrp::Presence { reply_required: false, checksum: None, server: Some(server) };
    let bytes = EnrpMessage { sender: B, receiver: RegistrarId(0), body }.encode();
    bench.registrar.handle_announce(bench.now, Service::Enrp, address(source), &bytes);
    let (mut effects, mut targets) = (bench.drain(), Vec::new());
    for _ in 0..6 {
        targets.extend(effects.iter().filter_map(|effect| match effect {
            Open(_, target) => Some(target.clone()),
            _ => None,
        }));
        effects = if bench.opened.is_empty() { Vec::new() } else { bench.refuse_dial() };
        effects.extend(bench.wait(ms(300)));
    }
    targets.truncate(3);
    targets
}

#[test]
fn another_hosts_loopback_is_not_dialled() {
    let tcp = |addresses: &[&str]| Target {
        protocol: LinkProtocol::Tcp,
        addresses: addresses.iter().map(|text| address(text)).collect(),
    };
    let listed = ["[::1]:9901", "127.0.0.1:9901", "[fe80::7]:9901", "10.0.0.2:9901"];
    let only = tcp(&["10.0.0.2:9901"]);
    // The one address that is left is dialled twice, and again when the next datagram comes.
    assert_eq!(dialled_after("10.0.0.2:9901", &listed), [only.clone(), only.clone()]);
    // Heard over IPv6, the scope of the source is known and no other.
    let found = dialled_after("[fe80::2%3]:9901", &listed);
    let found: Vec<_> = found.into_iter().flat_map(|target| target.addresses).collect();
    assert_eq!(found, [address("[fe80::2%3]:9901"), address("10.0.0.2:9901")]);
    // On one host, the loopback interface is as good as any.
    assert_eq!(dialled_after("127.0.0.1:9901", &["127.0.0.1:9901"])[0], tcp(&["127.0.0.1:9901"]));
}

#[test]
fn a_peer_that_takes_every_link_and_closes_it_does_not_make_us_spin() {
    let mut bench = Bench::serving();
    let link = bench.peer(B);
    bench.wait(ms(1000));
    bench.down(link);
    let mut dials = 0;
    let end = bench.now + ms(800);
    while bench.now < end {
        while !bench.opened.is_empty() {
            dials += 1;
            let (link, _) = bench.answer_dial();
            bench.change(link, LinkChange::Down(LinkDown::Closed));
        }
        bench.wait(ms(1));
    }
    assert!((5..=9).contains(&dials), "{dials} dials in 0.8 s");
}
