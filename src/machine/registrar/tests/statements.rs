//! Statements of the RFCs that docs/conformance.md names and no story of the other tests would miss.

use super::super::Dialect;
use super::*;
use crate::wire::{Cause, CauseCode, OperationError};

const B: RegistrarId = RegistrarId(0x6000);
const C: RegistrarId = RegistrarId(0x7000);

fn presence_from(id: RegistrarId, checksum: [u8; 2]) -> Enrp {
    let server = Some(server(id, "10.0.0.2:9901"));
    Enrp::Presence { reply_required: false, checksum: Some(checksum), server }
}

/// `message` with a parameter behind all others.
fn with_parameter(mut message: Vec<u8>, tlv: &[u8]) -> Vec<u8> {
    message.extend(tlv);
    let length = (message.len() as u16).to_be_bytes();
    message[2..4].copy_from_slice(&length);
    message
}

/// RFC 5352 section 2.2.5.
#[test]
fn who_did_not_ask_for_updates_gets_none() {
    let mut bench = Bench::serving();
    let (pe, user) = (bench.pe(), bench.pe());
    bench.asap(pe, registration(1));
    for items in [None, Some(1), Some(u32::MAX)] {
        let question = Asap::HandleResolution { subscribe: false, handle: pool("echo"), items };
        let answer = bench.asap(user, question);
        let plain = |effect: &Effect| matches!(effect, Effect::Asap(to, Asap::HandleResolutionResponse { subscribed: false, .. }) if *to == user);
        assert!(answer.len() == 1 && plain(&answer[0]), "{answer:?}");
    }
    assert_eq!(bench.asap(pe, registration(2)), [added(2), registered(pe, 2)]);
    bench.asap(pe, Asap::Deregistration { handle: pool("echo"), id: PeId(1) });
    let later = bench.wait(ms(400));
    assert!(!later.iter().any(|effect| matches!(effect, Effect::Asap(to, _) if *to == user)), "{later:?}");
}

/// RFC 5352 section 3.1: peers hear of what was granted, and of nothing else.
#[test]
fn what_is_refused_is_told_to_nobody() {
    let mut bench = Bench::serving();
    let peer = bench.peer(B);
    let pe = bench.pe();
    bench.asap(pe, registration(1));
    let changes: [&dyn Fn(&mut PoolElement); 4] = [
        &|element| element.policy = Policy::Random,
        &|element| element.transport = transport(Protocol::Udp, TransportUse::DataOnly, "10.0.0.9:7"),
        &|element| element.transport = transport(Protocol::Tcp, TransportUse::DataOnly, "10.0.0.9:0"),
        &|element| element.id = PeId(0),
    ];
    for change in changes {
        // A new one and the one that is known.
        for id in [1, 2] {
            let mut wrong = element(id);
            change(&mut wrong);
            let effects = bench.asap(pe, Asap::Registration { handle: pool("echo"), element: wrong });
            let [Effect::Asap(_, Asap::RegistrationResponse { rejected: true, error: Some(_), .. })] =
                &effects[..]
            else {
                panic!("{effects:?}")
            };
        }
    }
    let later = bench.wait(ms(100));
    let told =
        |effect: &Effect| matches!(effect, Effect::Enrp(link, _, Enrp::HandleUpdate { .. }) if *link == peer);
    assert!(!later.iter().any(told), "{later:?}");
    assert_eq!(bench.content("echo"), [(1, SELF)]);
}

/// RFC 5352 section 3.1: an element need not know where its association comes from.
#[test]
fn the_asap_transport_is_where_the_registration_came_from() {
    let mut bench = Bench::serving();
    let peer = bench.peer(B);
    let pe = bench.accept(Service::Asap, LinkProtocol::Sctp, "10.0.0.9:40000");
    let at = transport(Protocol::Sctp, TransportUse::DataOnly, "10.0.0.9:40000");
    let user = transport(Protocol::Sctp, TransportUse::DataOnly, "10.0.0.9:7");
    let elsewhere = transport(Protocol::Sctp, TransportUse::DataOnly, "10.0.0.66:25");
    for (id, claimed) in [(1, None), (2, Some(elsewhere))] {
        let own = PoolElement { transport: user.clone(), asap: claimed, ..element(id) };
        let effects = bench.asap(pe, Asap::Registration { handle: pool("echo"), element: own.clone() });
        let told = PoolElement { home: SELF, asap: Some(at.clone()), ..own };
        let update = Enrp::HandleUpdate {
            takeover_suggested: false,
            action: UpdateAction::Add,
            handle: pool("echo"),
            element: told,
        };
        assert!(effects.contains(&Effect::Enrp(peer, B, update)), "{effects:?}");
    }
}

/// RFC 5354 section 3.12.9: cause 0x8, without data.
#[test]
fn another_transport_use_is_refused_with_its_cause() {
    let mut bench = Bench::serving();
    let pe = bench.accept(Service::Asap, LinkProtocol::Sctp, "10.0.0.9:40000");
    let (data, control) = (TransportUse::DataOnly, TransportUse::DataPlusControl);
    for (name, first, second) in [("data", data, control), ("control", control, data)] {
        let with = |id, usage| {
            let transport = transport(Protocol::Sctp, usage, "10.0.0.9:7");
            Asap::Registration { handle: pool(name), element: PoolElement { transport, ..element(id) } }
        };
        bench.asap(pe, with(1, first));
        let error = Some(OperationError(vec![Cause { code: CauseCode(8), data: vec![] }]));
        let refused = Asap::RegistrationResponse { rejected: true, handle: pool(name), id: PeId(2), error };
        assert_eq!(bench.asap(pe, with(2, second)), [Effect::Asap(pe, refused)]);
    }
}

/// RFC 5352 section 3.5: of an element whose home is another registrar that is up, that one decides.
#[test]
fn elements_of_others_that_hang_or_cannot_be_asked_stay() {
    let mut bench = Bench::serving();
    let b = bench.peer(B);
    bench.enrp(b, B, update(1, B));
    let unknown = PoolElement { asap: None, ..owned(2, B) };
    let (action, handle) = (UpdateAction::Add, pool("echo"));
    bench.enrp(b, B, Enrp::HandleUpdate { takeover_suggested: false, action, handle, element: unknown });
    let user = bench.accept(Service::Asap, LinkProtocol::Tcp, "10.0.0.66:40000");
    let report = |id| Asap::EndpointUnreachable { handle: pool("echo"), id: PeId(id) };
    // Nobody knows where to ask it.
    assert_eq!(bench.asap(user, report(2)), []);
    // This one takes the connection, and says no more.
    let asked = bench.asap(user, report(1));
    assert!(matches!(asked[..], [Open(Service::Asap, _)]), "{asked:?}");
    let (pe, effects) = bench.answer_dial();
    assert_eq!(effects, [keep_alive(pe, false, 1)]);
    for _ in 0..100 {
        bench.wait(ms(100));
        bench.enrp(b, B, Enrp::InitTakeoverAck { target: C });
        bench.opened.clear();
    }
    assert_eq!(bench.content("echo"), [(1, B), (2, B)]);
}

/// RFC 5353 section 2.3.
#[test]
fn an_empty_handlespace_is_no_refusal() {
    let mut bench = Bench::serving();
    let b = bench.peer(B);
    for own_only in [false, true] {
        let effects = bench.enrp(b, B, Enrp::HandleTableRequest { own_only });
        assert_eq!(effects, [Effect::Enrp(b, B, table(false, &[]))]);
    }
}

/// RFC 5353 section 3.3.2: no further action.
#[test]
fn the_removal_of_what_nobody_knows_changes_nothing() {
    let mut bench = Bench::serving();
    let (b, c) = (bench.peer(B), bench.peer(C));
    bench.enrp(c, C, update(1, C));
    for (sender, link) in [(B, b), (C, c)] {
        for home in [B, C, SELF, RegistrarId(0)] {
            assert_eq!(bench.enrp(link, sender, removal(7, home)), []);
        }
    }
    assert_eq!(bench.content("echo"), [(1, C)]);
    assert_eq!(bench.enrp(b, B, presence_from(B, [0xff; 2])), [], "the checksums agree as before");
}

/// RFC 5353 section 2.1 wants a checksum in each presence. While updates wait, ours would say something else than
/// the peer was told: ours do without it, and rsplib's, which need one, without the presence.
#[test]
fn while_updates_wait_no_checksum_contradicts_them() {
    let mut bench = Bench::serving();
    let ours = bench.peer(B);
    let theirs = bench.accept(Service::Enrp, LinkProtocol::Sctp, "10.0.0.3:9901");
    let transports = vec![transport(Protocol::Sctp, TransportUse::DataOnly, "10.0.0.3:9901")];
    let server = Some(ServerInformation { id: C, transports });
    bench.enrp(theirs, C, Enrp::Presence { reply_required: false, checksum: Some([0xff; 2]), server });
    refuse_probe(&mut bench, theirs);
    let heard = |bench: &mut Bench, link: LinkId| {
        let mut sums = Vec::new();
        for _ in 0..20 {
            for effect in bench.wait(ms(100)) {
                if let Effect::Enrp(to, _, Enrp::Presence { checksum, reply_required: false, .. }) = effect
                    && to == link
                {
                    sums.push(checksum);
                }
            }
            for (id, at) in [(B, ours), (C, theirs)] {
                bench.enrp(at, id, Enrp::InitTakeoverAck { target: id });
            }
        }
        sums
    };
    for link in [ours, theirs] {
        let sums = heard(&mut bench, link);
        assert!(sums.len() >= 2 && sums.iter().all(|sum| *sum == Some([0xff; 2])), "{sums:?}");
        bench.change(link, LinkChange::Congested);
    }
    let pe = bench.accept(Service::Asap, LinkProtocol::Sctp, "10.0.0.9:40000");
    let user = transport(Protocol::Sctp, TransportUse::DataOnly, "10.0.0.9:7");
    let own = PoolElement { transport: user, ..element(1) };
    bench.asap(pe, Asap::Registration { handle: pool("echo"), element: own });
    let sums = heard(&mut bench, ours);
    assert!(sums.len() >= 2 && sums.iter().all(Option::is_none), "{sums:?}");
    assert_eq!(heard(&mut bench, theirs), []);
    for link in [ours, theirs] {
        let effects = bench.change(link, LinkChange::Drained);
        let [
            Effect::Enrp(_, _, Enrp::HandleUpdate { .. }),
            Effect::Enrp(_, _, Enrp::Presence { checksum, .. }),
        ] = &effects[..]
        else {
            panic!("{effects:?}")
        };
        assert_eq!(*checksum, Some(bench.registrar.handlespace().checksum(SELF)));
    }
}

/// RFC 5353 section 3.6.3: who can't answer an audit now is asked again, and loses nothing by it.
#[test]
fn a_refused_audit_removes_nothing_and_comes_again() {
    let mut bench = Bench::serving();
    let b = bench.peer(B);
    bench.enrp(b, B, update(1, B));
    let asked = [Effect::Enrp(b, B, Enrp::HandleTableRequest { own_only: true })];
    for _ in 0..3 {
        assert_eq!(bench.enrp(b, B, presence_from(B, [1, 1])), asked);
        let refusal = Enrp::HandleTableResponse { rejected: true, more: false, pools: Vec::new() };
        assert_eq!(bench.enrp(b, B, refusal), []);
        assert_eq!(bench.content("echo"), [(1, B)]);
        // At once would be a loop between the two.
        assert_eq!(bench.enrp(b, B, presence_from(B, [1, 1])), []);
        bench.now = bench.now + ms(61_000);
    }
}

/// RFC 5353 section 3.7 and RFC 5354 section 3: among registrars as among clients.
#[test]
fn unknown_parameters_from_peers_are_taken_by_their_high_bits() {
    let mut bench = Bench::serving();
    let b = bench.peer(B);
    let ask = EnrpMessage { sender: B, receiver: SELF, body: Enrp::HandleTableRequest { own_only: true } };
    for (high, served, reported) in
        [(0x00, false, false), (0x40, false, true), (0x80, true, false), (0xc0, true, true)]
    {
        let tlv = [high, 0x19, 0, 8, 1, 2, 3, 4];
        bench.registrar.handle_message(bench.now, b, &with_parameter(ask.encode(), &tlv));
        let effects = bench.drain();
        let answer = Effect::Enrp(b, B, table(false, &[]));
        assert_eq!(effects.contains(&answer), served, "{high:#x}: {effects:?}");
        let cause = Cause { code: CauseCode::UNRECOGNIZED_PARAMETER, data: tlv.to_vec() };
        let report = Effect::Enrp(b, B, Enrp::Error { error: OperationError(vec![cause]) });
        assert_eq!(effects.contains(&report), reported, "{high:#x}: {effects:?}");
        let said = effects.iter().filter(|effect| matches!(effect, Effect::Enrp(..))).count();
        assert_eq!(said, usize::from(served) + usize::from(reported), "{high:#x}: {effects:?}");
    }
}

/// RFC 5354 section 3.11 has one SCTP transport; ours name what they listen at, rsplib's read the first.
#[test]
fn presences_name_all_transports_sctp_first() {
    let enrp_transports = [Protocol::Sctp, Protocol::Tcp]
        .map(|protocol| transport(protocol, TransportUse::DataOnly, "10.0.0.1:9901"))
        .to_vec();
    let (mut bench, _) = Bench::new(Config { enrp_transports: enrp_transports.clone(), ..config() });
    let b = bench.peer(B);
    let asked = Enrp::Presence { reply_required: true, checksum: None, server: None };
    let effects = bench.enrp(b, B, asked);
    let [Effect::Enrp(_, B, Enrp::Presence { server: Some(server), .. })] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(*server, ServerInformation { id: SELF, transports: enrp_transports });
}

/// RFC 5353 section 3.5.2: the target leaves the list of peers, at who takes over and at who hears of it.
#[test]
fn who_was_taken_over_is_no_peer_any_more() {
    for ours in [true, false] {
        let mut bench = Bench::serving();
        let (b, c) = (bench.peer(B), bench.peer(C));
        bench.enrp(b, B, update(1, B));
        bench.kill(b);
        let told = match ours {
            true => Enrp::InitTakeoverAck { target: B },
            false => Enrp::TakeoverServer { target: B },
        };
        bench.enrp(c, C, told);
        assert_eq!(bench.content("echo"), [(1, if ours { SELF } else { C })]);
        let known: Vec<_> = bench.registrar.peers().iter().map(|peer| peer.id).collect();
        assert_eq!(known, [C]);
        let listed = bench.enrp(c, C, Enrp::ListRequest);
        let nobody = Enrp::ListResponse { rejected: false, servers: Vec::new() };
        assert_eq!(listed, [Effect::Enrp(c, C, nobody)]);
    }
}

/// RFC 5354 section 3.10 counts seconds, rsplib milliseconds: where it is said what all speak, the number means that.
#[test]
fn a_life_is_what_the_dialect_says() {
    for (dialect, number, millis) in [
        (Some(Dialect::Rfc), 3, 3000),
        (Some(Dialect::Rfc), 1200, 1_200_000),
        (Some(Dialect::Rsplib), 700, 700),
        (Some(Dialect::Rsplib), 3000, 3000),
        (None, 700, 700_000),
        (None, 3000, 3000),
    ] {
        let (mut bench, _) = Bench::new(Config { dialect, ..config() });
        // Over a link of its own, which goes: it lives for its life.
        let pe = bench.pe();
        let own = PoolElement { asap: None, life: number, ..element(1) };
        bench.asap(pe, Asap::Registration { handle: pool("echo"), element: own });
        bench.change(pe, LinkChange::Down(LinkDown::Closed));
        bench.wait(ms(millis * 9 / 10));
        assert_eq!(bench.content("echo"), [(1, SELF)], "{dialect:?} {number}");
        bench.wait(ms(millis / 10 + 500));
        assert_eq!(bench.content("echo"), [], "{dialect:?} {number}");
    }
}
