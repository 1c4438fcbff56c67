use super::*;

/// Lower and higher than we are.
const A: RegistrarId = RegistrarId(0x4000);
const B: RegistrarId = RegistrarId(0x6000);
const C: RegistrarId = RegistrarId(0x7000);

/// A registrar with two peers; B owns element 1.
fn three() -> (Bench, LinkId, LinkId) {
    let mut bench = Bench::serving();
    let (b, c) = (bench.peer(B), bench.peer(C));
    bench.enrp(b, B, update(1, B));
    (bench, b, c)
}

fn asap_target() -> Target {
    Target { protocol: LinkProtocol::Tcp, addresses: vec![address("10.0.0.9:99")] }
}

fn peer_target() -> Target {
    Target { protocol: LinkProtocol::Tcp, addresses: vec![address("10.0.0.2:9901")] }
}

/// Lets a peer die; that it is dialled goes without saying.
fn kill(bench: &mut Bench, link: LinkId) -> Vec<Effect> {
    let mut effects = bench.kill(link);
    effects.retain(|effect| *effect != Open(Service::Enrp, peer_target()));
    effects
}

/// Keeps a peer alive for a while.
fn alive(bench: &mut Bench, link: LinkId, id: RegistrarId, passed: Duration) -> Vec<Effect> {
    let end = bench.now + passed;
    let mut effects = Vec::new();
    while bench.now < end {
        effects.extend(bench.wait_quietly(ms(100)));
        effects.extend(bench.enrp(link, id, Enrp::InitTakeoverAck { target: RegistrarId(1) }));
    }
    effects
}

/// Whoever it is, it was not there when the registrar was.
#[test]
fn who_came_after_a_registrar_was_last_heard_is_not_its_heir() {
    let (mut bench, b, c) = three();
    bench.down(b);
    bench.wait(ms(10));
    // The RFC would have us withdraw for the larger identifier.
    let late = RegistrarId(0x9000);
    let stranger = bench.accept(Service::Enrp, LinkProtocol::Tcp, "10.0.0.66:50000");
    bench.enrp(stranger, late, Enrp::Presence { reply_required: false, checksum: None, server: None });
    for said in [Enrp::InitTakeover { target: B }, Enrp::TakeoverServer { target: B }] {
        bench.enrp(stranger, late, said);
    }
    let effects = kill(&mut bench, b);
    assert!(effects.contains(&Saw(Event::TakeoverStarted { target: B })), "{effects:?}");
    assert_eq!(bench.content("echo"), [(1, B)]);
    for said in [Enrp::InitTakeover { target: B }, Enrp::TakeoverServer { target: B }] {
        let effects = bench.enrp(stranger, late, said);
        assert!(!effects.contains(&Effect::Enrp(stranger, late, Enrp::InitTakeoverAck { target: B })));
        assert_eq!(bench.content("echo"), [(1, B)]);
    }
    bench.enrp(stranger, late, Enrp::InitTakeoverAck { target: B });
    let effects = bench.enrp(c, C, Enrp::InitTakeoverAck { target: B });
    assert!(effects.contains(&Saw(Event::TakeoverDone { target: B, by: SELF, elements: 1 })), "{effects:?}");
}

/// One that belongs here and was started late has asked the elements, and says so of those that answered.
#[test]
fn what_a_late_heir_has_is_its_own_and_the_rest_is_asked() {
    let (mut bench, b, c) = three();
    bench.enrp(b, B, update(2, B));
    bench.down(b);
    bench.wait(ms(10));
    let late = RegistrarId(0x9000);
    let other = bench.accept(Service::Enrp, LinkProtocol::Tcp, "10.0.0.5:50000");
    let server = Some(server(late, "10.0.0.5:9901"));
    bench.enrp(other, late, Enrp::Presence { reply_required: false, checksum: None, server });
    bench.enrp(other, late, Enrp::TakeoverServer { target: B });
    bench.enrp(other, late, update(1, late));
    kill(&mut bench, b);
    bench.enrp(other, late, Enrp::InitTakeoverAck { target: B });
    bench.enrp(c, C, Enrp::InitTakeoverAck { target: B });
    assert_eq!(bench.content("echo"), [(1, late), (2, SELF)]);
    assert_eq!(bench.opened.len(), 1);
}

#[test]
fn a_killed_registrar_is_taken_over_at_once() {
    let (mut bench, b, c) = three();
    let began = bench.now;
    assert_eq!(
        kill(&mut bench, b),
        [
            Saw(Event::PeerDead { id: B }),
            Saw(Event::TakeoverStarted { target: B }),
            Effect::Enrp(c, C, Enrp::InitTakeover { target: B }),
        ]
    );
    assert!(bench.now - began < ms(1000), "{:?}", bench.now - began);
    let effects = bench.enrp(c, C, Enrp::InitTakeoverAck { target: B });
    assert_eq!(effects.len(), 4, "{effects:?}");
    assert_eq!(
        effects[..2],
        [Effect::Enrp(c, C, Enrp::TakeoverServer { target: B }), Effect::Enrp(c, C, bench.presence(false)),]
    );
    assert_eq!(
        effects[2..],
        [Saw(Event::TakeoverDone { target: B, by: SELF, elements: 1 }), Open(Service::Asap, asap_target()),]
    );
    assert_eq!(bench.content("echo"), [(1, SELF)]);
    let (pe, effects) = bench.answer_dial();
    assert_eq!(effects, [keep_alive(pe, true, 1)]);
    assert_eq!(bench.asap(pe, ack(1)), []);
    // From now on it is watched like any other.
    let effects = bench.wait_quietly(ms(1125));
    assert!(effects.contains(&keep_alive(pe, false, 1)), "{effects:?}");
}

#[test]
fn a_silent_registrar_is_dead_within_the_promised_time() {
    let (mut bench, b, c) = three();
    let effects = alive(&mut bench, c, C, ms(2400));
    let presence = Effect::Enrp(b, B, bench.presence(true));
    assert_eq!(effects[0], presence);
    assert_eq!(
        effects[1..4],
        [
            Saw(Event::PeerDead { id: B }),
            Saw(Event::TakeoverStarted { target: B }),
            // Told to the target as well, which may only be slow.
            Effect::Enrp(b, B, Enrp::InitTakeover { target: B }),
        ]
    );
}

#[test]
fn of_two_registrars_the_one_left_takes_over_alone() {
    let mut bench = Bench::serving();
    let b = bench.peer(B);
    bench.enrp(b, B, update(1, B));
    let effects = kill(&mut bench, b);
    assert_eq!(
        effects,
        [
            Saw(Event::PeerDead { id: B }),
            Saw(Event::TakeoverStarted { target: B }),
            Saw(Event::TakeoverDone { target: B, by: SELF, elements: 1 }),
            Open(Service::Asap, asap_target()),
        ]
    );
}

#[test]
fn without_elements_there_is_nothing_to_take_over() {
    let mut bench = Bench::serving();
    let b = bench.peer(B);
    assert_eq!(kill(&mut bench, b), [Saw(Event::PeerDead { id: B })]);
    assert!(bench.registrar.peers().is_empty());
}

#[test]
fn a_sign_of_life_calls_it_off() {
    let (mut bench, b, c) = three();
    kill(&mut bench, b);
    let b = bench.peer(B);
    assert_eq!(bench.content("echo"), [(1, B)]);
    assert_eq!(alive(&mut bench, c, C, ms(1000)), []);
    assert_eq!(bench.enrp(b, B, Enrp::InitTakeoverAck { target: B }), []);
    assert_eq!(bench.enrp(c, C, Enrp::InitTakeoverAck { target: B }), []);
    assert_eq!(bench.content("echo"), [(1, B)]);
}

/// A peer of rsplib's; whether it withdraws is another matter.
fn rsplib_peer(bench: &mut Bench, id: RegistrarId, at: &str) -> LinkId {
    let link = bench.accept(Service::Enrp, LinkProtocol::Sctp, at);
    let transports = vec![transport(Protocol::Sctp, TransportUse::DataOnly, at)];
    let server = Some(ServerInformation { id, transports });
    bench.enrp(link, id, Enrp::Presence { reply_required: false, checksum: Some([0xff; 2]), server });
    refuse_probe(bench, link);
    link
}

#[test]
fn the_smaller_identifier_withdraws_as_the_rfc_has_it() {
    let (mut bench, b, c) = three();
    kill(&mut bench, b);
    // RFC 5353 section 3.5.1: a smaller one is ignored, a larger one gets our place.
    let a = bench.peer(A);
    assert_eq!(bench.enrp(a, A, Enrp::InitTakeover { target: B }), []);
    assert_eq!(
        bench.enrp(c, C, Enrp::InitTakeover { target: B }),
        [Effect::Enrp(c, C, Enrp::InitTakeoverAck { target: B })]
    );
    assert_eq!(bench.enrp(a, A, Enrp::InitTakeoverAck { target: B }), []);
    assert_eq!(
        bench.enrp(c, C, Enrp::TakeoverServer { target: B }),
        [Saw(Event::TakeoverDone { target: B, by: C, elements: 1 })]
    );
    assert_eq!(bench.content("echo"), [(1, C)]);
}

#[test]
fn with_rsplib_the_larger_identifier_withdraws() {
    let mut bench = Bench::serving();
    let b = bench.peer(B);
    bench.enrp(b, B, update(1, B));
    let low = rsplib_peer(&mut bench, A, "10.0.0.4:9901");
    let high = rsplib_peer(&mut bench, C, "10.0.0.5:9901");
    kill(&mut bench, b);
    assert_eq!(bench.enrp(high, C, Enrp::InitTakeover { target: B }), []);
    assert_eq!(
        bench.enrp(low, A, Enrp::InitTakeover { target: B }),
        [Effect::Enrp(low, A, Enrp::InitTakeoverAck { target: B })]
    );
}

#[test]
fn who_announces_a_takeover_again_and_again_gains_no_time() {
    let (mut bench, b, c) = three();
    bench.down(b);
    let began = bench.now;
    let mut done = false;
    while !done && bench.now - began < ms(20_000) {
        let mut effects = bench.enrp(c, C, Enrp::InitTakeover { target: B });
        while !bench.opened.is_empty() {
            effects.extend(bench.refuse_dial());
        }
        effects.extend(bench.wait_quietly(ms(100)));
        done = effects.contains(&Saw(Event::TakeoverDone { target: B, by: SELF, elements: 1 }));
    }
    // Its time, ours, and twice that somebody is given way to.
    assert!(done && bench.now - began < ms(9000), "{:?}", bench.now - began);
}

#[test]
fn what_is_said_of_a_registrar_that_is_up_changes_nothing() {
    let (mut bench, b, c) = three();
    for _ in 0..100 {
        bench.enrp(c, C, Enrp::InitTakeover { target: B });
        bench.enrp(c, C, Enrp::TakeoverServer { target: B });
        assert_eq!(bench.content("echo"), [(1, B)]);
        bench.wait(ms(50));
        bench.enrp(b, B, Enrp::ListRequest);
    }
    // Once it is dead it was true.
    bench.enrp(c, C, Enrp::TakeoverServer { target: B });
    let effects = kill(&mut bench, b);
    assert!(effects.contains(&Saw(Event::TakeoverDone { target: B, by: C, elements: 1 })), "{effects:?}");
    assert_eq!(bench.content("echo"), [(1, C)]);
}

#[test]
fn who_does_not_object_acknowledges_even_the_unknown() {
    let (mut bench, _b, c) = three();
    for target in [B, RegistrarId(0x1234)] {
        assert_eq!(
            bench.enrp(c, C, Enrp::InitTakeover { target }),
            [Effect::Enrp(c, C, Enrp::InitTakeoverAck { target })]
        );
    }
}

#[test]
fn the_target_objects_by_its_presence() {
    let (mut bench, b, c) = three();
    let presence = bench.presence(false);
    assert_eq!(
        bench.enrp(c, C, Enrp::InitTakeover { target: SELF }),
        [Effect::Enrp(b, B, presence.clone()), Effect::Enrp(c, C, presence)]
    );
}

#[test]
fn an_initiator_that_dies_halfway_is_replaced() {
    let (mut bench, b, c) = three();
    let a = bench.peer(A);
    bench.down(b);
    assert_eq!(
        bench.enrp(a, A, Enrp::InitTakeover { target: B }),
        [Effect::Enrp(a, A, Enrp::InitTakeoverAck { target: B })]
    );
    // B is dead for us, too, but A cares.
    assert_eq!(kill(&mut bench, b), [Saw(Event::PeerDead { id: B })]);
    // A dies.
    let effects = kill(&mut bench, a);
    assert_eq!(
        effects,
        [
            Saw(Event::PeerDead { id: A }),
            Saw(Event::TakeoverStarted { target: B }),
            Effect::Enrp(c, C, Enrp::InitTakeover { target: B }),
        ]
    );
}

#[test]
fn a_takeover_by_another_that_never_ends_is_tried_again() {
    let (mut bench, b, c) = three();
    bench.down(b);
    bench.enrp(c, C, Enrp::InitTakeover { target: B });
    kill(&mut bench, b);
    let effects = alive(&mut bench, c, C, ms(1600));
    assert!(effects.contains(&Saw(Event::TakeoverStarted { target: B })), "{effects:?}");
}

#[test]
fn a_missing_acknowledgement_does_not_leave_elements_alone() {
    let (mut bench, b, c) = three();
    kill(&mut bench, b);
    let effects = alive(&mut bench, c, C, ms(1600));
    assert!(effects.contains(&Saw(Event::TakeoverDone { target: B, by: SELF, elements: 1 })), "{effects:?}");
}

#[test]
fn a_dead_element_of_a_dead_registrar_goes() {
    let mut bench = Bench::serving();
    let b = bench.peer(B);
    bench.enrp(b, B, update(1, B));
    kill(&mut bench, b);
    let c = bench.peer(C);
    assert_eq!(
        bench.refuse_dial(),
        [removed(1, "not reached after takeover"), Effect::Enrp(c, C, removal(1, SELF))]
    );
}

#[test]
fn an_inherited_element_that_hangs_goes() {
    let mut bench = Bench::serving();
    let b = bench.peer(B);
    bench.enrp(b, B, update(1, B));
    kill(&mut bench, b);
    let (pe, effects) = bench.answer_dial();
    assert_eq!(effects, [keep_alive(pe, true, 1)]);
    assert_eq!(bench.wait_quietly(ms(750)), [removed(1, "no answer after takeover"), Close(pe)]);
}

#[test]
fn what_comes_late_over_a_link_that_was_dialled_takes_no_element_back() {
    let mut bench = Bench::serving();
    let b = bench.peer(B);
    bench.enrp(b, B, update(1, B));
    kill(&mut bench, b);
    let (dialled, _) = bench.answer_dial();
    bench.asap(dialled, ack(1));
    bench.wait(ms(10));
    // The process has turned to a link of its own; what it said before comes now, and the end of that link.
    let own = bench.pe();
    assert_eq!(bench.asap(own, registration(1)).last(), Some(&registered(own, 1)));
    assert_eq!(bench.asap(dialled, registration(1)), [registered(dialled, 1)]);
    let gone = bench.change(dialled, LinkChange::Down(LinkDown::Closed));
    assert!(gone.is_empty(), "{gone:?}");
    assert_eq!(bench.content("echo"), [(1, SELF)]);
}

#[test]
fn an_inherited_element_that_cannot_be_dialled_has_time_to_register() {
    let mut bench = Bench::serving();
    let b = bench.peer(B);
    for id in [1, 2] {
        let mut element = owned(id, B);
        element.asap = None;
        let action = UpdateAction::Add;
        let handle = pool("echo");
        bench.enrp(b, B, Enrp::HandleUpdate { takeover_suggested: false, action, handle, element });
    }
    kill(&mut bench, b);
    let pe = bench.pe();
    assert_eq!(bench.asap(pe, registration(1)), [registered(pe, 1)]);
    let mut gone = Vec::new();
    for _ in 0..40 {
        for effect in bench.wait_quietly(ms(100)) {
            match effect {
                Effect::Asap(link, Asap::EndpointKeepAlive { .. }) => drop(bench.asap(link, ack(1))),
                other => gone.push(other),
            }
        }
    }
    assert_eq!(gone, [removed(2, "no answer after takeover")]);
}

#[test]
fn processes_are_dialled_a_few_at_a_time() {
    let mut bench = Bench::serving();
    let b = bench.peer(B);
    for id in 1..=1000u32 {
        let mut element = owned(id, B);
        element.asap = Some(Transport::new(
            Protocol::Tcp,
            TransportUse::DataOnly,
            1000 + id as u16,
            vec![ip("10.0.0.9")],
        ));
        let action = UpdateAction::Add;
        let handle = pool("echo");
        let body = Enrp::HandleUpdate { takeover_suggested: false, action, handle, element };
        let message = EnrpMessage { sender: B, receiver: SELF, body };
        bench.registrar.handle_message(bench.now, b, &message.encode());
        while bench.registrar.poll_output().is_some() {}
    }
    kill(&mut bench, b);
    assert_eq!(bench.opened.len(), 64);
    bench.refuse_dial();
    assert_eq!(bench.opened.len(), 64);
}

#[test]
fn who_is_taken_over_while_alive_objects() {
    let (mut bench, _b, c) = three();
    let pe = bench.pe();
    bench.asap(pe, registration(9));
    let presence = Effect::Enrp(c, C, bench.presence(false));
    assert_eq!(bench.enrp(c, C, Enrp::TakeoverServer { target: SELF }), [presence]);
    assert_eq!(bench.content("echo"), [(1, B), (9, SELF)]);
    // An element that went over to C closes its link, and C says that it has it.
    bench.enrp(c, C, update(9, C));
    bench.change(pe, LinkChange::Down(LinkDown::Closed));
    assert_eq!(bench.content("echo"), [(1, B), (9, C)]);
}

#[test]
fn the_owner_of_an_element_that_nobody_knows_is_found_dead() {
    let mut bench = Bench::serving();
    let c = bench.peer(C);
    // C's table names B, which we never meet.
    bench.enrp(c, C, update(1, B));
    assert_eq!(bench.content("echo"), [(1, B)]);
    let effects = alive(&mut bench, c, C, ms(2500));
    assert!(effects.contains(&Effect::Enrp(c, C, Enrp::InitTakeover { target: B })), "{effects:?}");
}

#[test]
fn a_registrar_that_slept_does_not_declare_the_others_dead() {
    let (mut bench, b, c) = three();
    bench.now = bench.now + ms(10_000);
    bench.registrar.handle_timeout(bench.now);
    let effects = bench.drain();
    assert!(!effects.iter().any(|effect| matches!(effect, Saw(Event::PeerDead { .. }))), "{effects:?}");
    bench.enrp(b, B, Enrp::ListRequest);
    let effects = alive(&mut bench, c, C, ms(1300));
    assert!(!effects.iter().any(|effect| matches!(effect, Saw(Event::PeerDead { .. }))), "{effects:?}");
}

#[test]
fn reports_about_others_elements_ask_the_element() {
    let (mut bench, b, c) = three();
    let user = bench.accept(Service::Asap, LinkProtocol::Tcp, "10.0.0.66:40000");
    let report = Asap::EndpointUnreachable { handle: pool("echo"), id: PeId(1) };
    assert_eq!(bench.asap(user, report.clone()), [Open(Service::Asap, asap_target())]);
    assert_eq!(bench.asap(user, report.clone()), []);
    let (pe, effects) = bench.answer_dial();
    assert_eq!(effects, [keep_alive(pe, false, 1)]);
    assert_eq!(bench.asap(pe, ack(1)), [Close(pe)]);
    assert_eq!(bench.content("echo"), [(1, B)]);
    // Nobody listens there: it is gone, and everybody hears so.
    bench.asap(user, report);
    assert_eq!(
        bench.refuse_dial(),
        [
            removed(1, "reported unreachable"),
            Effect::Enrp(b, B, removal(1, B)),
            Effect::Enrp(c, C, removal(1, B)),
        ]
    );
}
