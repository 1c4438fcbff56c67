//! What somebody who does not belong can do: nothing to others.

use super::*;
use crate::wire::CauseCode;

const B: RegistrarId = RegistrarId(0x6000);
const C: RegistrarId = RegistrarId(0x7000);

fn presence_from(id: RegistrarId, reply_required: bool) -> Enrp {
    Enrp::Presence { reply_required, checksum: None, server: Some(server(id, "10.0.0.2:9901")) }
}

/// A registered element, and a link from somewhere else.
fn with_stranger() -> (Bench, LinkId, LinkId) {
    let mut bench = Bench::serving();
    let pe = bench.pe();
    bench.asap(pe, registration(1));
    let stranger = bench.accept(Service::Asap, LinkProtocol::Tcp, "10.0.0.66:40000");
    (bench, pe, stranger)
}

fn known(bench: &Bench, id: u32) -> PoolElement {
    let space = bench.registrar.handlespace();
    let key = space.find(&pool("echo"), PeId(id)).expect("it is there");
    space.get(key).expect("a fresh key").to_element()
}

#[test]
fn an_element_with_a_link_is_registered_over_that_link_only() {
    let (mut bench, pe, stranger) = with_stranger();
    let before = known(&bench, 1);
    let mut mine = element(1);
    mine.transport = transport(Protocol::Tcp, TransportUse::DataPlusControl, "10.0.0.66:7");
    let effects = bench.asap(stranger, Asap::Registration { handle: pool("echo"), element: mine });
    let [
        Saw(Event::Complaint { cause: "two elements", .. }),
        Effect::Asap(_, Asap::RegistrationResponse { rejected: true, error: Some(error), .. }),
    ] = &effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!(error.code(), CauseCode::NON_UNIQUE_PE_ID);
    assert_eq!(known(&bench, 1), before);
    // Nor by a second process of its host, which listens at another port.
    let second = bench.pe();
    let mut other = element(1);
    other.transport = transport(Protocol::Tcp, TransportUse::DataPlusControl, "10.0.0.9:8");
    let effects = bench.asap(second, Asap::Registration { handle: pool("echo"), element: other });
    assert!(matches!(
        effects.last(),
        Some(Effect::Asap(_, Asap::RegistrationResponse { rejected: true, .. }))
    ));
    assert_eq!(known(&bench, 1), before);
    // The same process over another link may, and anybody once the link is gone.
    assert_eq!(bench.asap(second, registration(1)), [registered(second, 1)]);
    assert_eq!(bench.down(pe), []);
    bench.down(second);
    let mut mine = element(1);
    mine.transport = transport(Protocol::Tcp, TransportUse::DataPlusControl, "10.0.0.66:7");
    let effects = bench.asap(stranger, Asap::Registration { handle: pool("echo"), element: mine });
    assert_eq!(effects, [added(1), registered(stranger, 1)]);
}

#[test]
fn an_element_with_a_link_is_deregistered_by_its_host_only() {
    let (mut bench, _pe, stranger) = with_stranger();
    let leave = Asap::Deregistration { handle: pool("echo"), id: PeId(1) };
    let effects = bench.asap(stranger, leave.clone());
    assert!(
        matches!(&effects[..], [Effect::Asap(_, Asap::DeregistrationResponse { error: Some(error), .. })]
            if error.code() == CauseCode::SECURITY)
    );
    let same = bench.pe();
    assert!(bench.asap(same, leave).contains(&removed(1, "deregistered")));
}

/// Everybody on this host has as many addresses as he likes.
#[test]
fn an_address_of_the_loopback_network_is_not_every_one() {
    let registered_elsewhere = |at: &str| {
        let reached_at = vec![transport(Protocol::Tcp, TransportUse::DataOnly, "10.0.0.1:3863")];
        let mut bench = Bench::new(Config { asap_transports: reached_at, ..config() }).0;
        let peer = bench.accept_at(Service::Enrp, "127.0.0.1:50000", "127.0.0.1:9901");
        let server = Some(server(B, "127.0.0.1:9902"));
        bench.enrp(peer, B, Enrp::Presence { reply_required: false, checksum: None, server });
        let mut there = owned(1, B);
        there.transport = transport(Protocol::Tcp, TransportUse::DataPlusControl, at);
        there.asap = None;
        let (handle, action) = (pool("echo"), UpdateAction::Add);
        let element = there.clone();
        bench.enrp(peer, B, Enrp::HandleUpdate { takeover_suggested: false, action, handle, element });
        assert_eq!(known(&bench, 1), there);
        (bench, there)
    };
    for (at, from, to, may) in [
        ("127.0.0.1:7", "127.0.0.66:40000", "127.0.0.1:3863", false),
        ("127.0.0.1:7", "127.0.0.66:40000", "127.0.0.66:3863", false),
        ("10.0.0.1:7", "127.0.0.66:40000", "127.0.0.1:3863", false),
        ("10.0.0.9:7", "127.0.0.1:40000", "127.0.0.1:3863", false),
        ("127.0.0.66:7", "127.0.0.66:40000", "127.0.0.1:3863", true),
        ("127.0.0.1:7", "127.0.0.1:40000", "127.0.0.1:3863", true),
        // It reaches us at another address than the other registrar, and is where the kernel takes it.
        ("127.0.0.1:7", "[::1]:40000", "[::1]:3863", true),
        ("127.0.0.1:7", "10.0.0.1:40000", "10.0.0.1:3863", true),
        ("10.0.0.1:7", "127.0.0.1:40000", "127.0.0.1:3863", true),
    ] {
        let (mut bench, element) = registered_elsewhere(at);
        let before = known(&bench, 1);
        let somebody = bench.accept_at(Service::Asap, from, to);
        let leave = Asap::Deregistration { handle: pool("echo"), id: PeId(1) };
        let mine = PoolElement {
            transport: transport(Protocol::Tcp, TransportUse::DataPlusControl, from),
            home: RegistrarId(0),
            ..element
        };
        bench.asap(somebody, Asap::Registration { handle: pool("echo"), element: mine });
        assert_eq!(known(&bench, 1) != before, may, "{from} registers {at}");
        let (mut bench, _) = registered_elsewhere(at);
        let somebody = bench.accept_at(Service::Asap, from, to);
        bench.asap(somebody, leave);
        assert_eq!(bench.content("echo").is_empty(), may, "{from} deregisters {at}");
    }
}

#[test]
fn acknowledgements_count_from_the_elements_link_only() {
    let (mut bench, pe, stranger) = with_stranger();
    let mut gone = Vec::new();
    for _ in 0..19 {
        for effect in bench.wait(ms(100)) {
            if !matches!(effect, Effect::Asap(..)) {
                gone.push(effect);
            }
        }
        bench.asap(stranger, ack(1));
    }
    assert_eq!(gone, [Close(pe), removed(1, "no answer to keep-alive")]);
}

#[test]
fn a_claim_is_answered_where_it_was_asked() {
    let mut bench = Bench::serving();
    let b = bench.peer(B);
    bench.enrp(b, B, update(1, B));
    bench.down(b);
    for _ in 0..3 {
        bench.refuse_dial();
        if bench.opened.is_empty() {
            bench.wait(ms(200));
        }
    }
    let (asked, effects) = bench.answer_dial();
    assert_eq!(effects, [keep_alive(asked, true, 1)]);
    let stranger = bench.accept(Service::Asap, LinkProtocol::Tcp, "10.0.0.66:40000");
    bench.asap(stranger, ack(1));
    let effects = bench.wait_quietly(ms(750));
    assert!(effects.contains(&removed(1, "no answer after takeover")), "{effects:?}");
}

#[test]
fn an_element_of_a_registrar_that_is_up_is_not_registered_here_by_another_host() {
    let mut bench = Bench::serving();
    let b = bench.peer(B);
    bench.enrp(b, B, update(1, B));
    let stranger = bench.accept(Service::Asap, LinkProtocol::Tcp, "10.0.0.66:40000");
    let effects = bench.asap(stranger, registration(1));
    assert!(matches!(
        effects.last(),
        Some(Effect::Asap(_, Asap::RegistrationResponse { rejected: true, .. }))
    ));
    assert_eq!(bench.content("echo"), [(1, B)]);
    // From where it is, it may come to us.
    let pe = bench.pe();
    bench.asap(pe, registration(1));
    assert_eq!(bench.content("echo"), [(1, SELF)]);
}

#[test]
fn updates_neither_move_nor_change_nor_remove_an_element_with_a_link() {
    let (mut bench, pe, _) = with_stranger();
    let before = known(&bench, 1);
    let c = bench.peer(C);
    for round in 0..30 {
        let mut moved = owned(1, C);
        moved.transport = transport(Protocol::Tcp, TransportUse::DataPlusControl, "10.0.0.66:7");
        let body = Enrp::HandleUpdate {
            takeover_suggested: false,
            action: UpdateAction::Add,
            handle: pool("echo"),
            element: moved,
        };
        bench.enrp(c, C, body);
        bench.enrp(c, C, if round % 2 == 0 { removal(1, SELF) } else { retirement(1, C) });
        bench.enrp(c, C, removal(1, RegistrarId(0)));
        for _ in 0..10 {
            for effect in bench.wait(ms(100)) {
                if let Effect::Asap(link, Asap::EndpointKeepAlive { .. }) = effect {
                    assert_eq!(link, pe);
                    bench.asap(link, ack(1));
                }
            }
            bench.enrp(c, C, Enrp::InitTakeoverAck { target: C });
        }
        bench.asap(pe, registration(1));
        assert_eq!(known(&bench, 1), before, "round {round}");
    }
}

#[test]
fn an_element_of_another_registrar_that_is_up_is_removed_by_that_one_only() {
    let mut bench = Bench::serving();
    let (b, c) = (bench.peer(B), bench.peer(C));
    bench.enrp(b, B, update(1, B));
    for home in [B, C, SELF, RegistrarId(0)] {
        bench.enrp(c, C, removal(1, home));
        bench.enrp(c, C, update(1, RegistrarId(0x1111)));
        assert_eq!(bench.content("echo"), [(1, B)]);
    }
}

#[test]
fn a_datagram_proves_nothing() {
    let mut bench = Bench::serving();
    let b = bench.peer(B);
    bench.enrp(b, B, update(1, B));
    bench.down(b);
    let message = EnrpMessage { sender: B, receiver: RegistrarId(0), body: presence_from(B, false) }.encode();
    let mut effects = Vec::new();
    for _ in 0..50 {
        bench.registrar.handle_announce(bench.now, Service::Enrp, address("10.0.0.66:9901"), &message);
        effects.extend(bench.drain());
        while !bench.opened.is_empty() {
            effects.extend(bench.refuse_dial());
        }
        effects.extend(bench.wait_quietly(ms(50)));
    }
    assert!(effects.contains(&Saw(Event::PeerDead { id: B })), "{effects:?}");
    assert!(effects.contains(&Saw(Event::TakeoverStarted { target: B })), "{effects:?}");
}

#[test]
fn a_link_with_a_peers_identifier_does_not_replace_its_link() {
    let mut bench = Bench::serving();
    let b = bench.peer(B);
    bench.enrp(b, B, update(1, B));
    for _ in 0..30 {
        bench.wait(ms(100));
        bench.enrp(b, B, Enrp::InitTakeoverAck { target: C });
    }
    for from in ["10.0.0.66:50000", "10.0.0.2:50001"] {
        let stranger = bench.accept(Service::Enrp, LinkProtocol::Tcp, from);
        let effects = bench.enrp(stranger, B, presence_from(B, false));
        assert_eq!(effects, [Effect::Enrp(b, B, bench.presence(true))]);
        // What comes over it counts for nothing.
        assert_eq!(bench.enrp(stranger, B, removal(1, B)), []);
        assert_eq!(bench.enrp(stranger, B, Enrp::HandleTableRequest { own_only: false }), []);
        bench.wait(ms(10));
        bench.enrp(b, B, presence_from(B, false));
        let effects = bench.wait_quietly(ms(450));
        assert!(
            matches!(&effects[..], [Saw(Event::Complaint { cause: "two registrars", .. }),
                Effect::Enrp(to, B, Enrp::Error { .. }), Close(link)] if *to == stranger && *link == stranger),
            "{effects:?}"
        );
        let pe = bench.pe();
        let effects = bench.asap(pe, registration(2));
        assert!(effects.contains(&Effect::Enrp(b, B, update(2, SELF))), "{effects:?}");
        bench.down(pe);
    }
    assert_eq!(bench.content("echo"), [(1, B)]);
}

#[test]
fn addresses_from_registrars_are_checked() {
    let mut bench = Bench::serving();
    let c = bench.peer(C);
    let told = |text: &str, id| {
        let mut element = owned(id, C);
        element.transport = transport(Protocol::Tcp, TransportUse::DataPlusControl, text);
        Enrp::HandleUpdate {
            takeover_suggested: false,
            action: UpdateAction::Add,
            handle: pool("echo"),
            element,
        }
    };
    for (id, bad) in ["127.0.0.1:7", "0.0.0.0:7", "224.0.0.9:7", "10.0.0.9:0", "[::1]:7"].iter().enumerate() {
        let effects = bench.enrp(c, C, told(bad, id as u32 + 1));
        assert!(matches!(&effects[..], [Saw(Event::Complaint { .. })]), "{bad}: {effects:?}");
    }
    assert_eq!(bench.content("echo"), []);
    // Where keep-alives would go is checked as well: nobody is made to dial what means us.
    let mut element = owned(9, C);
    element.asap = Some(transport(Protocol::Tcp, TransportUse::DataOnly, "127.0.0.1:25"));
    let action = UpdateAction::Add;
    let handle = pool("echo");
    bench.enrp(c, C, Enrp::HandleUpdate { takeover_suggested: false, action, handle, element });
    assert_eq!(known(&bench, 9).asap, None);
    // A registrar on this host may speak of this host.
    let near = bench.accept(Service::Enrp, LinkProtocol::Tcp, "127.0.0.1:50000");
    bench.enrp(near, B, presence_from(B, false));
    let mut element = owned(10, B);
    element.transport = transport(Protocol::Tcp, TransportUse::DataPlusControl, "127.0.0.1:7");
    let action = UpdateAction::Add;
    let handle = pool("echo");
    bench.enrp(near, B, Enrp::HandleUpdate { takeover_suggested: false, action, handle, element });
    assert_eq!(known(&bench, 10).transport.addresses(), [ip("127.0.0.1")]);
}

#[test]
fn one_message_makes_us_dial_a_few_at_a_time() {
    let mut bench = Bench::serving();
    let c = bench.peer(C);
    let host = |n| format!("10.0.1.{n}:9901");
    let servers: Vec<_> = (0..200).map(|n| server(RegistrarId(0x9000 + n), &host(n))).collect();
    bench.enrp(c, C, Enrp::ListResponse { rejected: false, servers });
    bench.wait(ms(50));
    assert_eq!(bench.opened.len(), 12);
    let loopback: Vec<_> = (0..8).map(|n| server(RegistrarId(0x1000 + n), "127.0.0.1:25")).collect();
    bench.enrp(c, C, Enrp::ListResponse { rejected: false, servers: loopback });
    assert!(bench.opened.iter().all(|(_, target)| target.addresses[0].port() == 9901));
}

#[test]
fn complaints_are_never_muted_by_what_others_send() {
    let mut bench = Bench::serving();
    let pe = bench.pe();
    let mut causes = std::collections::BTreeSet::new();
    for code in 0..3000u16 {
        for effect in bench.asap(pe, Asap::Error { error: CauseCode(code).into() }) {
            if let Saw(Event::Complaint { cause, .. }) = effect {
                causes.insert(cause);
            }
        }
    }
    assert_eq!(causes.into_iter().collect::<Vec<_>>(), ["asap error"], "one cause, whatever is sent");
    let effects =
        bench.asap(pe, Asap::EndpointKeepAlive { home: true, registrar: B, handle: pool("echo"), id: None });
    assert!(matches!(&effects[..], [Saw(Event::Complaint { cause: "asap kind", .. })]), "{effects:?}");
}

#[test]
fn a_registration_ends_with_its_life() {
    let mut bench = Bench::serving();
    let (peer, pe) = (bench.peer(B), bench.pe());
    let mut brief = element(1);
    brief.life = 2000;
    bench.asap(pe, Asap::Registration { handle: pool("echo"), element: brief.clone() });
    // Registered again in time, it lives on.
    let stay = |bench: &mut Bench, passed: u64| {
        let mut others = Vec::new();
        for _ in 0..passed / 100 {
            for effect in bench.wait_quietly(ms(100)) {
                match effect {
                    Effect::Asap(link, Asap::EndpointKeepAlive { .. }) => drop(bench.asap(link, ack(1))),
                    other => others.push(other),
                }
            }
            bench.enrp(peer, B, Enrp::InitTakeoverAck { target: C });
        }
        others
    };
    assert_eq!(stay(&mut bench, 1500), []);
    bench.asap(pe, Asap::Registration { handle: pool("echo"), element: brief.clone() });
    assert_eq!(stay(&mut bench, 1900), []);
    // RFC 5352 section 2.2.4: it is told.
    let gone = PoolElement { life: 2000, ..owned(1, SELF) };
    let removal = Enrp::HandleUpdate {
        takeover_suggested: false,
        action: UpdateAction::Delete,
        handle: pool("echo"),
        element: gone,
    };
    assert_eq!(
        stay(&mut bench, 400),
        [
            removed(1, "registration life over"),
            Effect::Enrp(peer, B, removal),
            Effect::Asap(pe, Asap::DeregistrationResponse { handle: pool("echo"), id: PeId(1), error: None }),
        ]
    );
    // For ever is for ever.
    brief.life = u32::MAX;
    bench.asap(pe, Asap::Registration { handle: pool("echo"), element: brief });
    assert_eq!(stay(&mut bench, 200_000), []);
}

/// RFC 5354 section 3.10 counts seconds, rsplib and we milliseconds.
#[test]
fn a_life_too_short_for_milliseconds_counts_seconds() {
    use crate::machine::registrar::dialect::life;
    for (number, millis) in [(1, 1000), (30, 30_000), (999, 999_000), (1000, 1000), (30_000, 30_000)] {
        assert_eq!(life(number, None), ms(millis), "{number}");
    }
}

#[test]
fn an_element_that_registers_over_short_connections_lives_for_its_life() {
    let mut bench = Bench::serving();
    let pe = bench.pe();
    // As the RFC has it: no word of where it listens for registrars.
    let brief = PoolElement { asap: None, life: 3000, ..element(1) };
    bench.asap(pe, Asap::Registration { handle: pool("echo"), element: brief.clone() });
    assert_eq!(bench.change(pe, LinkChange::Down(LinkDown::Closed)), []);
    bench.wait(ms(2800));
    assert_eq!(bench.content("echo"), [(1, SELF)]);
    let again = bench.accept(Service::Asap, LinkProtocol::Tcp, "10.0.0.9:40002");
    bench.asap(again, Asap::Registration { handle: pool("echo"), element: brief });
    bench.change(again, LinkChange::Down(LinkDown::Closed));
    assert_eq!(bench.wait(ms(2800)), []);
    assert_eq!(bench.wait(ms(400)), [removed(1, "registration life over")]);
    // One of ours that closes its link is gone, and so is one whose link breaks.
    let pe = bench.pe();
    bench.asap(pe, registration(2));
    assert_eq!(bench.change(pe, LinkChange::Down(LinkDown::Closed)), [removed(2, "link closed")]);
    let pe = bench.pe();
    bench.asap(
        pe,
        Asap::Registration { handle: pool("echo"), element: PoolElement { asap: None, ..element(3) } },
    );
    assert_eq!(bench.down(pe), [removed(3, "link broken")]);
}

#[test]
fn a_registration_that_was_changed_is_granted_with_a_warning() {
    let mut bench = Bench::serving();
    let pe = bench.pe();
    let mut two = element(1);
    two.transport = Transport::new(
        Protocol::Tcp,
        TransportUse::DataPlusControl,
        7,
        vec![ip("127.0.0.1"), ip("10.0.0.9")],
    );
    let effects = bench.asap(pe, Asap::Registration { handle: pool("echo"), element: two });
    let [_, Effect::Asap(_, Asap::RegistrationResponse { rejected: false, error: Some(error), .. })] =
        &effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!(error.code(), CauseCode::INVALID_VALUES);
    assert_eq!(known(&bench, 1).transport.addresses(), [ip("10.0.0.9")]);
}

const NO_LINE: &[u8] = b"echo";
const A_LINE: &[u8] = b"GET /off HTTP/1.1\r\n\r\n";

/// B says that a process with elements in pools of these handles listens at somebody's, and dies. That is dialled.
fn dialled_for(handles: &[&[u8]]) -> Bench {
    let mut bench = Bench::serving();
    let b = bench.peer(B);
    for (id, &handle) in (1..).zip(handles) {
        let mut element = owned(id, B);
        element.asap = Some(transport(Protocol::Tcp, TransportUse::DataOnly, "10.0.0.80:80"));
        let handle = PoolHandle::new(handle).expect("a legal handle");
        let action = UpdateAction::Add;
        bench.enrp(b, B, Enrp::HandleUpdate { takeover_suggested: false, action, handle, element });
    }
    bench.down(b);
    while bench.opened.first().is_some_and(|(_, target)| target.addresses[0].port() == 9901) {
        bench.refuse_dial();
        bench.wait(ms(200));
    }
    bench
}

#[test]
fn pool_handles_are_told_to_nobody_who_does_not_speak_asap() {
    let mut bench = dialled_for(&[A_LINE]);
    let (link, first) = bench.answer_dial_silently();
    assert_eq!(first, [], "nothing is said first");
    let then = bench.wait_quietly(ms(2000));
    assert!(!then.iter().any(|effect| matches!(effect, Effect::Asap(..))), "{then:?}");
    assert!(then.contains(&Close(link)), "{then:?}");
    // It is dialled once more, and that is all that comes of one element.
    let dials = then.iter().filter(|effect| matches!(effect, Open(Service::Asap, _))).count();
    assert_eq!(dials, 1, "{then:?}");
    assert_eq!(bench.registrar.handlespace().len(), 1);
    bench.answer_dial_silently();
    bench.wait(ms(1000));
    assert_eq!(bench.registrar.handlespace().len(), 0);
    bench.wait(ms(10_000));
    assert!(!bench.opened.iter().any(|(_, target)| target.addresses[0].port() == 80), "{:?}", bench.opened);
}

/// Processes that know the RFC alone say nothing first.
#[test]
fn who_says_nothing_is_asked_in_the_end_but_about_nothing_that_is_a_line() {
    let mut bench = dialled_for(&[NO_LINE, A_LINE]);
    let (link, first) = bench.answer_dial_silently();
    assert_eq!(first, [], "nothing is said first");
    let then = bench.wait_quietly(ms(1000));
    let told: Vec<&Effect> = then.iter().filter(|effect| matches!(effect, Effect::Asap(..))).collect();
    let [Effect::Asap(to, Asap::EndpointKeepAlive { home: true, handle, .. })] = &told[..] else {
        panic!("{then:?}")
    };
    assert_eq!((*to, handle.as_bytes()), (link, NO_LINE));
}

#[test]
fn invented_peers_of_one_host_make_room_for_others() {
    let (mut bench, _) = Bench::new(Config { max_peers: 8, ..config() });
    let own = bench.accept(Service::Enrp, LinkProtocol::Tcp, "10.0.0.3:50000");
    bench.enrp(own, B, Enrp::Presence { reply_required: false, checksum: None, server: None });
    bench.enrp(own, B, update(1, B));
    for id in 0..20 {
        let link = bench.accept(Service::Enrp, LinkProtocol::Tcp, &format!("10.0.0.66:{}", 1000 + id));
        let body = Enrp::Presence { reply_required: false, checksum: None, server: None };
        bench.enrp(link, RegistrarId(0x100 + id), body);
    }
    let known = |bench: &Bench| bench.registrar.peers().iter().map(|peer| peer.id).collect::<Vec<_>>();
    assert_eq!(known(&bench).len(), 8);
    assert!(known(&bench).contains(&B));
    // Two more from elsewhere, one of them with the invented ones' table full.
    for (id, at) in [(C, "10.0.0.2:50000"), (RegistrarId(0x7001), "10.0.0.4:50000")] {
        let link = bench.accept(Service::Enrp, LinkProtocol::Tcp, at);
        bench.enrp(link, id, Enrp::Presence { reply_required: true, checksum: None, server: None });
        assert!(known(&bench).contains(&id), "{id}");
    }
    assert!(known(&bench).contains(&B) && known(&bench).len() == 8);
    // What one hears of others makes nobody leave who came himself.
    let link = bench.accept(Service::Enrp, LinkProtocol::Tcp, "10.0.0.66:9");
    bench.enrp(
        link,
        RegistrarId(0x999),
        Enrp::Presence { reply_required: false, checksum: None, server: None },
    );
    assert!(!known(&bench).contains(&RegistrarId(0x999)));
}

#[test]
fn one_link_leaves_room_for_others() {
    let (mut bench, _) = Bench::new(Config { max_elements: 100, ..config() });
    let greedy = bench.pe();
    let mut taken = 0;
    for id in 1..=100 {
        let effects = bench.asap(greedy, registration(id));
        taken += u32::from(effects.contains(&registered(greedy, id)));
    }
    assert_eq!(taken, 50, "as much as is left for all others");
    for id in 200..210 {
        let other = bench.pe();
        assert!(bench.asap(other, registration(id)).contains(&registered(other, id)));
    }
    // What it has, it may change, and what it gives back is free.
    assert_eq!(bench.asap(greedy, registration(1)), [registered(greedy, 1)]);
    bench.down(greedy);
    let next = bench.pe();
    for id in 1..=40 {
        assert!(bench.asap(next, registration(id)).contains(&registered(next, id)), "{id}");
    }
}

/// While an element has no link here and its home is gone, it is still nobody else's.
#[test]
fn who_is_left_alone_by_its_home_is_not_robbed() {
    let mut bench = Bench::serving();
    let b = bench.peer(B);
    bench.enrp(b, B, update(1, B));
    bench.down(b);
    let stranger = bench.accept(Service::Asap, LinkProtocol::Tcp, "10.0.0.66:40000");
    let effects = bench.asap(stranger, registration(1));
    assert!(
        matches!(effects.last(), Some(Effect::Asap(_, Asap::RegistrationResponse { rejected: true, .. }))),
        "{effects:?}"
    );
    let pe = bench.pe();
    bench.asap(pe, registration(1));
    assert_eq!(bench.content("echo"), [(1, SELF)]);
    // One that lives for its life without a link is registered again from where it was only.
    let far = bench.accept(Service::Asap, LinkProtocol::Tcp, "10.9.9.9:40000");
    let brief = PoolElement { asap: None, life: 30_000, ..element(2) };
    let register = Asap::Registration { handle: pool("echo"), element: brief };
    bench.asap(far, register.clone());
    bench.change(far, LinkChange::Down(LinkDown::Closed));
    let refused = bench.asap(stranger, register.clone());
    assert!(
        matches!(refused.last(), Some(Effect::Asap(_, Asap::RegistrationResponse { rejected: true, .. }))),
        "{refused:?}"
    );
    let far = bench.accept(Service::Asap, LinkProtocol::Tcp, "10.9.9.9:40001");
    assert_eq!(bench.asap(far, register), [registered(far, 2)]);
}

/// The checksum of whoever has just these elements of the pool.
fn checksum_of(ids: &[u32]) -> [u8; 2] {
    let mut sum = crate::handlespace::Sum::default();
    ids.iter().for_each(|&id| sum.add(crate::handlespace::Sum::of(&pool("echo"), PeId(id))));
    sum.to_wire()
}

/// What another registrar says about an element whose home is up is not believed before that one has given it up.
#[test]
fn an_element_of_a_registrar_that_is_up_is_moved_by_nobody_else() {
    let mut bench = Bench::serving();
    let b = bench.peer(B);
    bench.enrp(b, B, update(1, B));
    bench.enrp(b, B, update(2, B));
    let before = (known(&bench, 1), known(&bench, 2));
    let stranger = bench.accept(Service::Enrp, LinkProtocol::Tcp, "10.0.0.66:50000");
    bench.enrp(stranger, C, presence_from(C, false));
    let claim = |id: u32| {
        let mut mine = owned(id, C);
        mine.transport = transport(Protocol::Tcp, TransportUse::DataPlusControl, "10.0.0.66:7");
        Enrp::HandleUpdate {
            takeover_suggested: false,
            action: UpdateAction::Add,
            handle: pool("echo"),
            element: mine,
        }
    };
    let hello = |ids: &[u32]| Enrp::Presence {
        reply_required: false,
        checksum: Some(checksum_of(ids)),
        server: Some(server(B, "10.0.0.2:9901")),
    };
    for round in 0..100 {
        bench.enrp(stranger, C, claim(1));
        bench.enrp(stranger, C, table(false, &[(1, C), (2, C)]));
        if round % 2 == 0 {
            bench.enrp(stranger, C, removal(1, C));
            bench.enrp(stranger, C, removal(1, B));
        }
        bench.wait(ms(100));
        bench.enrp(b, B, hello(&[1, 2]));
        assert_eq!((known(&bench, 1), known(&bench, 2)), before, "round {round}");
    }
    // It is asked at once, and as soon as it has given it up, that one is the other one's, and its other one stays.
    bench.enrp(stranger, C, removal(1, C));
    bench.enrp(b, B, hello(&[1, 2]));
    bench.enrp(stranger, C, claim(1));
    bench.enrp(b, B, hello(&[2]));
    assert_eq!(bench.content("echo"), [(1, C), (2, B)]);
}

/// Where an element's home has gone, whoever says first that it has it is believed, but not for long.
#[test]
fn what_was_said_while_its_registrar_was_gone_is_open_to_doubt() {
    let mut bench = Bench::serving();
    let (b, d) = (bench.peer(B), bench.peer(RegistrarId(0x7777)));
    bench.enrp(b, B, update(1, B));
    bench.down(b);
    let stranger = bench.accept(Service::Enrp, LinkProtocol::Tcp, "10.0.0.66:50000");
    bench.enrp(stranger, C, presence_from(C, false));
    bench.enrp(stranger, C, update(1, C));
    assert_eq!(bench.content("echo"), [(1, C)]);
    // It has found another home.
    bench.enrp(d, RegistrarId(0x7777), update(1, RegistrarId(0x7777)));
    assert_eq!(bench.content("echo"), [(1, RegistrarId(0x7777))]);
}

/// Its own link is gone: that is not the time for others.
#[test]
fn who_is_elsewhere_is_not_a_registrar_that_is_missed() {
    let mut bench = Bench::serving();
    let b = bench.peer(B);
    bench.enrp(b, B, update(1, B));
    let stranger = bench.accept(Service::Enrp, LinkProtocol::Tcp, "10.0.0.66:50000");
    bench.enrp(stranger, B, presence_from(B, false));
    bench.down(b);
    let mut effects = Vec::new();
    for _ in 0..40 {
        // Over the link that is there, and over new ones, and to who dials for a datagram.
        bench.enrp(stranger, B, removal(1, B));
        let other = bench.accept(Service::Enrp, LinkProtocol::Tcp, "10.0.0.66:50001");
        bench.enrp(other, B, presence_from(B, true));
        let from = address("10.0.0.66:9901");
        let message = EnrpMessage { sender: B, receiver: RegistrarId(0), body: presence_from(B, false) };
        bench.registrar.handle_announce(bench.now, Service::Enrp, from, &message.encode());
        effects.extend(bench.drain());
        while !bench.opened.is_empty() {
            let (_, target) = &bench.opened[0];
            assert_ne!(target.addresses[0].ip(), ip("10.0.0.66"));
            effects.extend(bench.refuse_dial());
        }
        effects.extend(bench.wait_quietly(ms(50)));
    }
    assert!(effects.contains(&Saw(Event::TakeoverStarted { target: B })), "{effects:?}");
    // It comes back where it was, and is itself.
    let (mut bench, c) = (Bench::serving(), RegistrarId(0x7777));
    let b = bench.peer(c);
    bench.enrp(b, c, update(1, c));
    bench.down(b);
    let again = bench.peer(c);
    let effects = bench.enrp(again, c, removal(1, c));
    assert!(effects.contains(&removed(1, "removed by its registrar")), "{effects:?}");
}

/// Who was dialled for one registrar is not another one that has a link.
#[test]
fn who_is_dialled_for_another_is_not_a_registrar_that_is_up() {
    let mut bench = Bench::serving();
    let b = bench.peer(B);
    bench.enrp(b, B, update(1, B));
    let stranger = bench.accept(Service::Enrp, LinkProtocol::Tcp, "10.0.0.66:50000");
    bench.enrp(stranger, C, presence_from(C, false));
    let servers = vec![server(RegistrarId(0xffff), "10.0.0.66:9901")];
    bench.enrp(stranger, C, Enrp::ListResponse { rejected: false, servers });
    bench.wait(ms(300));
    assert_eq!(bench.opened.len(), 1);
    let (false_one, _) = bench.answer_dial();
    for _ in 0..100 {
        bench.enrp(false_one, B, presence_from(B, false));
        bench.enrp(false_one, B, removal(1, B));
        assert_eq!(bench.content("echo"), [(1, B)]);
        bench.wait(ms(20));
        bench.enrp(b, B, presence_from(B, false));
    }
    // Its link is where it is spoken to, as before.
    assert_eq!(bench.enrp(b, B, removal(1, B)), [removed(1, "removed by its registrar")]);
}

/// What is said of a registrar that says it itself costs nobody a look at its table.
#[test]
fn elements_invented_under_the_name_of_a_registrar_that_is_up_are_none() {
    let mut bench = Bench::serving();
    let b = bench.peer(B);
    bench.enrp(b, B, update(1, B));
    let c = bench.accept(Service::Enrp, LinkProtocol::Tcp, "10.0.0.66:40000");
    bench.enrp(
        c,
        C,
        Enrp::Presence { reply_required: false, checksum: None, server: Some(server(C, "10.0.0.66:9901")) },
    );
    let sum = bench.registrar.handlespace().checksum(B);
    for id in 100..110 {
        assert_eq!(bench.enrp(c, C, update(id, B)), []);
    }
    assert_eq!(bench.content("echo"), [(1, B)]);
    let hello = Enrp::Presence {
        reply_required: false,
        checksum: Some(sum),
        server: Some(server(B, "10.0.0.2:9901")),
    };
    assert_eq!(bench.enrp(b, B, hello), []);
    // Of one that has no link here only others can tell.
    let d = RegistrarId(0x9000);
    bench.enrp(c, C, update(110, d));
    assert_eq!(bench.content("echo"), [(1, B), (110, d)]);
}
