use super::*;

const B: RegistrarId = RegistrarId(0x6000);
const C: RegistrarId = RegistrarId(0x7000);

fn target(text: &str) -> Target {
    Target { protocol: LinkProtocol::Tcp, addresses: vec![address(text)] }
}

fn with_peers(peers: &[&str]) -> Config {
    Config { peers: peers.iter().map(|text| target(text)).collect(), ..config() }
}

fn hello(id: RegistrarId, text: &str) -> Enrp {
    Enrp::Presence { reply_required: false, checksum: Some([0xff; 2]), server: Some(server(id, text)) }
}

fn rejection() -> Enrp {
    Enrp::HandleTableResponse { rejected: true, more: false, pools: Vec::new() }
}

/// Dials succeed and the peer says hello.
fn meet(bench: &mut Bench, id: RegistrarId) -> (LinkId, Vec<Effect>) {
    let (link, effects) = bench.answer_dial();
    let hello_to_nobody = Enrp::Presence {
        reply_required: true,
        checksum: Some([0xff; 2]),
        server: Some(ServerInformation { id: SELF, transports: Vec::new() }),
    };
    assert_eq!(effects, [Effect::Enrp(link, RegistrarId(0), hello_to_nobody)]);
    let effects = bench.enrp(link, id, hello(id, "10.0.0.2:9901"));
    (link, effects)
}

/// What a mentor is asked.
fn questions(bench: &Bench, link: LinkId, id: RegistrarId) -> Vec<Effect> {
    vec![
        Effect::Enrp(link, id, bench.presence(true)),
        Effect::Enrp(link, id, Enrp::ListRequest),
        Effect::Enrp(link, id, Enrp::HandleTableRequest { own_only: false }),
    ]
}

#[test]
fn a_mentor_gives_peers_and_elements() {
    let (mut bench, effects) = Bench::new(with_peers(&["10.0.0.2:9901"]));
    assert_eq!(effects, [Open(Service::Enrp, target("10.0.0.2:9901"))]);
    let (link, effects) = meet(&mut bench, B);
    assert!(effects.ends_with(&questions(&bench, link, B)), "{effects:?}");
    assert_eq!(
        bench.enrp(link, B, table(true, &[(1, B)])),
        [added(1), Effect::Enrp(link, B, Enrp::HandleTableRequest { own_only: false })]
    );
    assert!(!bench.registrar.is_serving());
    let effects = bench.enrp(link, B, table(false, &[(2, C)]));
    assert_eq!(
        effects,
        [
            Saw(Event::PeerAdded { id: C }),
            added(2),
            Saw(Event::Serving),
            Effect::Enrp(link, B, bench.presence(true)),
        ]
    );
    assert!(bench.registrar.is_serving());
    assert_eq!(bench.content("echo"), [(1, B), (2, C)]);
}

#[test]
fn nobody_there_means_alone() {
    let (mut bench, _) = Bench::new(with_peers(&["10.0.0.2:9901"]));
    assert_eq!(bench.refuse_dial(), []);
    bench.wait(ms(100));
    assert_eq!(bench.refuse_dial(), [Saw(Event::Serving)]);
}

#[test]
fn an_unreachable_peer_costs_the_discovery_timeout() {
    let (mut bench, _) = Bench::new(Config { announce_enrp: true, ..config() });
    let effects = bench.wait_quietly(ms(1999));
    assert_eq!(effects, []);
    assert_eq!(bench.wait_quietly(ms(1)), [Saw(Event::Serving)]);
}

#[test]
fn a_mentor_that_rejects_is_replaced() {
    let (mut bench, _) = Bench::new(with_peers(&["10.0.0.2:9901", "10.0.0.3:9901"]));
    let (b, _) = meet(&mut bench, B);
    let (c, _) = meet(&mut bench, C);
    assert_eq!(bench.enrp(b, B, rejection()), questions(&bench, c, C));
    let effects = bench.enrp(c, C, table(false, &[(2, C)]));
    assert!(effects.contains(&Saw(Event::Serving)), "{effects:?}");
}

#[test]
fn a_mentor_that_rejects_and_is_the_only_one_is_asked_again() {
    let (mut bench, _) = Bench::new(with_peers(&["10.0.0.2:9901"]));
    // A lower ID: it will be the first to serve, not we.
    let lower = RegistrarId(0x4000);
    let (link, _) = meet(&mut bench, lower);
    assert_eq!(bench.enrp(link, lower, rejection()), []);
    assert_eq!(bench.wait_quietly(ms(250)), questions(&bench, link, lower));
    let effects = bench.enrp(link, lower, table(false, &[]));
    assert!(effects.contains(&Saw(Event::Serving)), "{effects:?}");
}

#[test]
fn of_several_that_start_together_the_lowest_id_serves_first() {
    let (mut bench, _) = Bench::new(with_peers(&["10.0.0.2:9901"]));
    let (link, _) = meet(&mut bench, B);
    assert_eq!(bench.enrp(link, B, rejection()), []);
    let mut effects = Vec::new();
    for _ in 0..3 {
        effects.extend(bench.wait_quietly(ms(250)));
        effects.extend(bench.enrp(link, B, rejection()));
    }
    assert!(effects.contains(&Saw(Event::Serving)), "{effects:?}");
}

#[test]
fn a_mentor_that_falls_silent_in_the_middle_is_replaced_from_the_beginning() {
    let (mut bench, _) = Bench::new(with_peers(&["10.0.0.2:9901", "10.0.0.3:9901"]));
    let (b, _) = meet(&mut bench, B);
    let (c, _) = meet(&mut bench, C);
    bench.enrp(b, B, table(true, &[(1, B)]));
    // It has the time that RFC 5353 section 4.2 gives, as long as it lives.
    let mut effects = Vec::new();
    for _ in 0..50 {
        for (link, id) in [(b, B), (c, C)] {
            bench.enrp(link, id, Enrp::InitTakeoverAck { target: id });
        }
        assert_eq!(effects, [], "{:?}", bench.now);
        effects = bench.wait_quietly(ms(100));
    }
    assert!(!bench.registrar.is_serving());
    let asked = questions(&bench, c, C);
    assert_eq!(effects[0], Close(b));
    assert!(effects.windows(3).any(|three| three == asked), "{effects:?}");
    // What the first one sends too late does not count as the end.
    let effects = bench.enrp(c, C, table(false, &[(1, B), (2, C)]));
    assert!(effects.contains(&Saw(Event::Serving)), "{effects:?}");
    assert_eq!(bench.content("echo"), [(1, B), (2, C)]);
}

#[test]
fn a_mentor_that_dies_in_the_middle_is_replaced() {
    let (mut bench, _) = Bench::new(with_peers(&["10.0.0.2:9901", "10.0.0.3:9901"]));
    let (b, _) = meet(&mut bench, B);
    let (c, _) = meet(&mut bench, C);
    bench.enrp(b, B, table(true, &[(1, B)]));
    let effects = bench.down(b);
    let asked = questions(&bench, c, C);
    assert!(effects.windows(3).any(|three| three == asked), "{effects:?}");
}

#[test]
fn the_last_mentor_lost_means_serving_what_there_is() {
    let (mut bench, _) = Bench::new(with_peers(&["10.0.0.2:9901"]));
    let (b, _) = meet(&mut bench, B);
    bench.enrp(b, B, table(true, &[(1, B)]));
    bench.down(b);
    bench.refuse_dial();
    let effects = bench.wait(ms(2100));
    assert!(effects.contains(&Saw(Event::Serving)), "{effects:?}");
}

#[test]
fn while_joining_others_are_rejected_and_requests_wait() {
    let (mut bench, _) = Bench::new(with_peers(&["10.0.0.2:9901"]));
    let (b, _) = meet(&mut bench, B);
    let effects = bench.enrp(b, B, Enrp::HandleTableRequest { own_only: false });
    assert_eq!(effects, [Effect::Enrp(b, B, rejection())]);
    let list = Enrp::ListResponse { rejected: true, servers: Vec::new() };
    assert_eq!(bench.enrp(b, B, Enrp::ListRequest), [Effect::Enrp(b, B, list)]);
    let pe = bench.pe();
    assert_eq!(bench.asap(pe, registration(1)), []);
    assert_eq!(bench.asap(pe, registration(2)), []);
    let effects = bench.enrp(b, B, table(false, &[]));
    let answers: Vec<_> = effects.into_iter().filter(|effect| matches!(effect, Effect::Asap(..))).collect();
    assert_eq!(answers, [registered(pe, 1), registered(pe, 2)]);
}

#[test]
fn what_waits_is_bounded() {
    let (mut bench, _) = Bench::new(with_peers(&["10.0.0.2:9901"]));
    let pe = bench.pe();
    let message = registration(1).encode();
    let mut closed = false;
    for _ in 0..2000 {
        bench.registrar.handle_message(bench.now, pe, &message);
        closed |= bench.drain().contains(&Close(pe));
    }
    assert!(closed);
}

/// Of all links together there is only so much: those make room that have most.
#[test]
fn whoever_has_most_waiting_makes_room() {
    let (mut bench, _) = Bench::new(with_peers(&["10.0.0.2:9901"]));
    let (b, _) = meet(&mut bench, B);
    let user = bench.pe();
    assert_eq!(bench.asap(user, registration(1)), []);
    let mut closed = Vec::new();
    let message = registration(2).encode();
    for number in 0..100 {
        let link = bench.pe();
        // Each somewhat less than the one before.
        for _ in 0..60_000 / message.len() - number {
            bench.registrar.handle_message(bench.now, link, &message);
        }
        closed.extend(bench.drain().into_iter().filter(|effect| matches!(effect, Close(_))));
    }
    let first: Vec<Effect> = (user.0 + 1..).take(closed.len()).map(|link| Close(LinkId(link))).collect();
    assert!(closed.len() > 20, "{closed:?}");
    assert_eq!(closed, first, "in the order of what they had");
    let effects = bench.enrp(b, B, table(false, &[]));
    assert!(effects.contains(&registered(user, 1)), "{effects:?}");
}

#[test]
fn a_configured_peer_that_is_us_is_left_alone() {
    let (mut bench, _) = Bench::new(with_peers(&["10.0.0.1:9901"]));
    let (link, effects) = bench.answer_dial();
    assert_eq!(effects.len(), 1);
    // Its other end is ours as well: the same two ends the other way round.
    let back = bench.accept_at(Service::Enrp, "10.0.0.1:3863", "10.0.0.1:9901");
    assert_eq!(bench.enrp(back, SELF, hello(SELF, "10.0.0.1:9901")), [Close(back), Saw(Event::Serving)]);
    bench.change(link, LinkChange::Down(LinkDown::Closed));
    assert_eq!(bench.wait_quietly(ms(10_000)), []);
}

#[test]
fn a_registrar_with_our_identifier_is_said_in_the_log() {
    let (mut bench, _) = Bench::new(with_peers(&["10.0.0.2:9901"]));
    let (link, _) = bench.answer_dial();
    let effects = bench.enrp(link, SELF, hello(SELF, "10.0.0.2:9901"));
    assert!(
        matches!(&effects[..], [Saw(Event::Complaint { cause: "our identifier", .. }), Close(_), ..]),
        "{effects:?}"
    );
    // The other one hears us, and says it as well.
    let mut bench = Bench::serving();
    let link = bench.accept(Service::Enrp, LinkProtocol::Tcp, "10.0.0.2:50000");
    let effects = bench.enrp(link, SELF, hello(SELF, "10.0.0.2:9901"));
    assert!(
        matches!(&effects[..], [Saw(Event::Complaint { cause: "our identifier", .. }), Close(_)]),
        "{effects:?}"
    );
}

#[test]
fn a_mentor_that_never_ends_is_given_up() {
    let (mut bench, _) = Bench::new(with_peers(&["10.0.0.2:9901"]));
    let (b, _) = meet(&mut bench, B);
    let mut parts = 0;
    while !bench.registrar.is_serving() && parts < 100_000 {
        parts += 1;
        let effects = bench.enrp(b, B, table(true, &[(1, B)]));
        if effects.contains(&Close(b)) {
            bench.opened.clear();
            bench.wait(ms(3000));
        }
    }
    assert!(parts < 1000, "{parts} parts");
    assert_eq!(bench.content("echo").len(), 1);
}

/// One that tells of something new for ever, and takes its time.
#[test]
fn a_mentor_that_tells_next_to_nothing_is_given_up() {
    let (mut bench, _) = Bench::new(with_peers(&["10.0.0.2:9901"]));
    let (b, _) = meet(&mut bench, B);
    let began = bench.now;
    for id in 1..600 {
        if bench.enrp(b, B, table(true, &[(id, B)])).contains(&Close(b)) {
            break;
        }
        bench.wait(ms(1000));
    }
    bench.wait(ms(5000));
    assert!(bench.registrar.is_serving());
    assert!(bench.now - began < ms(30_000), "after {:?}", bench.now - began);
    // One that is as slow to begin with and then gets on is listened to.
    let (mut bench, _) = Bench::new(with_peers(&["10.0.0.2:9901"]));
    let (b, _) = meet(&mut bench, B);
    for part in 0..30 {
        let ids: Vec<_> = (1..=120).map(|id| (1000 * part + id, B)).collect();
        bench.enrp(b, B, table(true, &ids));
        bench.wait(ms(1000));
    }
    bench.enrp(b, B, table(false, &[(1_000_000, B)]));
    assert!(bench.registrar.is_serving());
    assert_eq!(bench.content("echo").len(), 30 * 120 + 1);
}

/// What another one has told already is no standing still.
#[test]
fn a_second_mentor_begins_at_the_beginning() {
    let (mut bench, _) = Bench::new(with_peers(&["10.0.0.2:9901"]));
    let (b, _) = meet(&mut bench, B);
    for id in 1..=200 {
        bench.enrp(b, B, table(true, &[(id, B)]));
    }
    let c = bench.accept(Service::Enrp, LinkProtocol::Tcp, "10.0.0.3:50000");
    bench.enrp(c, C, hello(C, "10.0.0.3:9901"));
    let effects = bench.down(b);
    let question = Effect::Enrp(c, C, Enrp::HandleTableRequest { own_only: false });
    assert!(effects.contains(&question), "{effects:?}");
    for id in 1..=200 {
        assert!(!bench.enrp(c, C, table(true, &[(id, B)])).contains(&Close(c)), "at {id}");
    }
    bench.enrp(c, C, table(false, &[(201, B)]));
    assert!(bench.registrar.is_serving());
    assert_eq!(bench.content("echo").len(), 201);
}

/// There is always one more to be asked, and none of them answers.
#[test]
fn however_many_mentors_never_end_the_service_starts() {
    let (mut bench, _) = Bench::new(with_peers(&["10.0.0.2:9901"]));
    let began = bench.now;
    for number in 0..600 {
        if bench.registrar.is_serving() {
            break;
        }
        let link = bench.accept(Service::Enrp, LinkProtocol::Tcp, &format!("10.0.0.66:{}", 1000 + number));
        bench.enrp(link, RegistrarId(0x6000 + number), hello(RegistrarId(0x6000 + number), "10.0.0.66:9901"));
        bench.wait(ms(500));
    }
    assert!(bench.registrar.is_serving());
    assert!(bench.now - began < ms(40_000), "after {:?}", bench.now - began);
}

/// Somebody comes and says hello.
fn come(bench: &mut Bench, id: RegistrarId, host: &str) -> (LinkId, Vec<Effect>) {
    let link = bench.accept(Service::Enrp, LinkProtocol::Tcp, &format!("{host}:{}", 50_000 + id.0 % 10_000));
    let effects = bench.enrp(link, id, hello(id, &format!("{host}:9901")));
    (link, effects)
}

fn table_request(link: LinkId, id: RegistrarId) -> Effect {
    Effect::Enrp(link, id, Enrp::HandleTableRequest { own_only: false })
}

#[test]
fn a_configured_peer_is_asked_before_those_that_come_by_themselves() {
    let (mut bench, _) = Bench::new(with_peers(&["10.0.0.2:9901"]));
    for id in 1..60 {
        let (link, effects) = come(&mut bench, RegistrarId(id), "10.0.0.66");
        assert!(!effects.contains(&table_request(link, RegistrarId(id))), "{effects:?}");
    }
    let (b, effects) = meet(&mut bench, B);
    assert!(effects.ends_with(&questions(&bench, b, B)), "{effects:?}");
    // If it does not come soon, they are asked.
    let (mut bench, _) = Bench::new(with_peers(&["10.0.0.2:9901"]));
    let (link, _) = come(&mut bench, RegistrarId(1), "10.0.0.66");
    let effects = bench.wait(ms(500));
    assert!(effects.contains(&table_request(link, RegistrarId(1))), "{effects:?}");
}

#[test]
fn who_has_the_identifier_of_a_configured_peer_is_not_one_elsewhere() {
    let (mut bench, _) = Bench::new(with_peers(&["10.0.0.2:9901"]));
    let (link, _) = meet(&mut bench, B);
    bench.enrp(link, B, table(false, &[]));
    assert!(bench.registrar.is_configured(B));
    bench.down(link);
    for _ in 0..100 {
        if !bench.opened.is_empty() {
            bench.refuse_dial();
        }
        bench.wait(ms(100));
    }
    assert!(bench.registrar.peers().is_empty(), "nothing is known of it any more");
    come(&mut bench, B, "10.0.0.66");
    assert_eq!(bench.registrar.peers().len(), 1);
    assert!(!bench.registrar.is_configured(B));
    while bench.opened.is_empty() {
        bench.wait(ms(100));
    }
    let (link, _) = bench.answer_dial();
    bench.enrp(link, B, hello(B, "10.0.0.2:9901"));
    assert!(bench.registrar.is_configured(B));
}

#[test]
fn of_each_host_one_is_asked_in_turn() {
    let (mut bench, _) = Bench::new(Config { announce_enrp: true, ..config() });
    let mut theirs: Vec<(LinkId, RegistrarId)> = Vec::new();
    for id in 1..60 {
        theirs.push((come(&mut bench, RegistrarId(id), "10.0.0.66").0, RegistrarId(id)));
    }
    let (b, _) = come(&mut bench, B, "10.0.0.2");
    // The first of them has been asked, and says nothing, but that it lives.
    let mut asked = false;
    for _ in 0..55 {
        for &(link, id) in &theirs {
            bench.enrp(link, id, Enrp::InitTakeoverAck { target: id });
        }
        bench.enrp(b, B, Enrp::InitTakeoverAck { target: B });
        asked |= bench.wait(ms(100)).contains(&table_request(b, B));
    }
    assert!(asked);
    bench.enrp(b, B, table(false, &[(1, B)]));
    assert!(bench.registrar.is_serving());
    assert_eq!(bench.content("echo"), [(1, B)]);
}

#[test]
fn a_configured_peer_is_dialled_until_it_is_there() {
    let (mut bench, _) = Bench::new(with_peers(&["10.0.0.2:9901"]));
    let mut dials = 1;
    for _ in 0..100 {
        if !bench.opened.is_empty() {
            bench.refuse_dial();
        }
        let effects = bench.wait_quietly(ms(100));
        dials += effects.iter().filter(|effect| matches!(effect, Open(..))).count();
    }
    assert!((6..=12).contains(&dials), "{dials} dials in 10 s");
    assert!(bench.registrar.is_serving());
    while bench.opened.is_empty() {
        bench.wait(ms(100));
    }
    let (_, effects) = meet(&mut bench, B);
    assert!(effects.contains(&Saw(Event::PeerAdded { id: B })), "{effects:?}");
}

#[test]
fn what_was_ours_before_a_restart_with_the_same_id_is_asked() {
    let (mut bench, _) = Bench::new(with_peers(&["10.0.0.2:9901"]));
    let (b, _) = meet(&mut bench, B);
    let effects = bench.enrp(b, B, table(false, &[(1, SELF)]));
    let process = target("10.0.0.9:99");
    assert_eq!(effects.first(), Some(&added(1)));
    assert_eq!(effects.last(), Some(&Open(Service::Asap, process)));
    let (pe, effects) = bench.answer_dial();
    assert_eq!(effects, [keep_alive(pe, true, 1)]);
    assert_eq!(bench.asap(pe, ack(1)), []);
    assert_eq!(bench.content("echo"), [(1, SELF)]);
}

fn dials(effects: &[Effect]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Open(..))).count()
}

#[test]
fn who_is_among_its_own_peers_dials_itself_once() {
    let (mut bench, effects) = Bench::new(with_peers(&["10.0.0.1:3863"]));
    assert_eq!(dials(&effects), 1);
    let (link, _) = bench.answer_dial();
    let other_end = bench.accept(Service::Enrp, LinkProtocol::Tcp, "10.0.0.1:3863");
    let effects = bench.enrp(other_end, SELF, hello(SELF, "10.0.0.1:3863"));
    assert_eq!(effects, [Close(other_end), Saw(Event::Serving)]);
    assert_eq!(bench.change(link, LinkChange::Down(LinkDown::Closed)), []);
    assert_eq!(dials(&bench.wait(ms(10_000))), 0);
}

#[test]
fn a_configured_peer_that_came_by_itself_is_not_dialled() {
    let (mut bench, _) = Bench::new(with_peers(&["10.0.0.2:9901"]));
    bench.refuse_dial();
    bench.wait(ms(100));
    assert_eq!(bench.refuse_dial(), [Saw(Event::Serving)]);
    let link = bench.accept(Service::Enrp, LinkProtocol::Tcp, "10.0.0.2:50000");
    bench.enrp(link, B, hello(B, "10.0.0.2:9901"));
    let mut effects = Vec::new();
    for _ in 0..10 {
        effects.extend(bench.wait(ms(500)));
        effects.extend(bench.enrp(link, B, hello(B, "10.0.0.2:9901")));
    }
    assert_eq!(dials(&effects), 0, "{effects:?}");
}
