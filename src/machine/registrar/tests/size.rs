//! What a message costs does not depend on how much there is.

use super::super::chores::BUDGET;
use super::*;

const B: RegistrarId = RegistrarId(0x6000);
const C: RegistrarId = RegistrarId(0x7000);

fn presence_of(id: RegistrarId) -> Enrp {
    Enrp::Presence { reply_required: false, checksum: None, server: Some(server(id, "10.0.0.2:9901")) }
}

/// Drains without decoding or checking.
fn skip(bench: &mut Bench) -> usize {
    let mut sent = 0;
    while let Some(output) = bench.registrar.poll_output() {
        if let Output::Send { bytes, .. } = output {
            sent += bytes.len();
        }
    }
    sent
}

fn send(bench: &mut Bench, link: LinkId, sender: RegistrarId, body: Enrp) -> usize {
    let message = EnrpMessage { sender, receiver: SELF, body };
    bench.registrar.handle_message(bench.now, link, &message.encode());
    skip(bench)
}

#[test]
fn a_table_that_a_peer_cannot_hold_is_read_in_slices() {
    let mut bench = Bench::serving();
    let pe = bench.pe();
    bench.register_many(pe, 1..=3000);
    let link = bench.accept(Service::Enrp, LinkProtocol::Sctp, "10.0.0.2:9901");
    let transports = vec![transport(Protocol::Sctp, TransportUse::DataOnly, "10.0.0.2:9901")];
    let server = Some(ServerInformation { id: B, transports });
    bench.enrp(link, B, Enrp::Presence { reply_required: false, checksum: Some([0xff; 2]), server });
    refuse_probe(&mut bench, link);
    // Twice as fast as it is answered, a second question is no second answer.
    for _ in 0..250 {
        assert_eq!(send(&mut bench, link, B, Enrp::HandleTableRequest { own_only: false }), 0);
    }
    let effects = bench.wait(ms(1));
    let tables = effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Enrp(_, _, Enrp::HandleTableResponse { .. })));
    assert_eq!(tables.count(), 1);
}

#[test]
fn what_hangs_on_a_link_goes_a_slice_at_a_time() {
    let mut bench = Bench::serving();
    let pe = bench.pe();
    bench.register_many(pe, 1..=2000);
    bench.registrar.handle_link(bench.now, pe, LinkChange::Down(LinkDown::Broken));
    skip(&mut bench);
    let left = bench.registrar.handlespace().len();
    assert_eq!(left, 2000 - BUDGET);
    // Somebody else is served meanwhile, and one that comes back stays.
    let again = bench.pe();
    assert!(bench.asap(again, registration(2000)).contains(&registered(again, 2000)));
    bench.wait(ms(1));
    assert_eq!(bench.content("echo"), [(2000, SELF)]);
}

#[test]
fn a_registrar_is_inherited_a_slice_at_a_time() {
    let mut bench = Bench::serving();
    let (b, c) = (bench.peer(B), bench.peer(C));
    for id in 1..=1500 {
        send(&mut bench, b, B, update(id, B));
    }
    bench.down(b);
    for _ in 0..3 {
        bench.refuse_dial();
        if bench.opened.is_empty() {
            bench.wait(ms(200));
        }
    }
    bench.enrp(c, C, Enrp::InitTakeoverAck { target: B });
    assert_eq!(bench.registrar.handlespace().owned_count(SELF), BUDGET);
    bench.wait(ms(1));
    assert_eq!(bench.registrar.handlespace().owned_count(SELF), 1500);
    let (pe, _) = bench.answer_dial();
    bench.wait(ms(1));
    for id in 1..=1500 {
        bench.registrar.handle_message(bench.now, pe, &ack(id).encode());
        skip(&mut bench);
    }
    bench.wait(ms(700));
    assert_eq!(bench.registrar.handlespace().owned_count(SELF), 1500);
}

#[test]
fn an_audit_purges_a_slice_at_a_time() {
    let mut bench = Bench::serving();
    let b = bench.peer(B);
    for id in 1..=1500 {
        send(&mut bench, b, B, update(id, B));
    }
    let hello = Enrp::Presence { reply_required: false, checksum: Some([1, 2]), server: None };
    send(&mut bench, b, B, hello);
    send(&mut bench, b, B, table(false, &[(1, B)]));
    assert!(bench.registrar.handlespace().len() > 900);
    bench.wait(ms(1));
    assert_eq!(bench.content("echo"), [(1, B)]);
}

#[test]
fn bytes_kept_are_counted_and_bounded() {
    let mut bench = Bench::serving();
    let (b, pe) = (bench.peer(B), bench.pe());
    let long = |n: u32| PoolHandle::new(&[&n.to_be_bytes()[..], &[b'x'; 60_000]].concat()).unwrap();
    let user = bench.pe();
    bench.change(b, LinkChange::Congested);
    for n in 0..700 {
        // Elements that are registered and stop answering, that are disputed, subscriptions: whatever is kept.
        let mine = Asap::Registration { handle: long(n), element: element(n + 1) };
        bench.registrar.handle_message(bench.now, pe, &mine.encode());
        let body = Enrp::HandleUpdate {
            takeover_suggested: false,
            action: UpdateAction::Add,
            handle: long(n),
            element: owned(n + 1, B),
        };
        send(&mut bench, b, B, body);
        let pool = long(n + 1_000_000);
        let wish = Asap::HandleResolution { subscribe: true, handle: pool, items: Some(u32::MAX) };
        bench.registrar.handle_message(bench.now, user, &wish.encode());
        skip(&mut bench);
    }
    let accounts = bench.registrar.accounts();
    assert!(accounts.iter().all(|account| account.bytes <= account.bound), "{accounts:?}");
    bench.registrar.invariants().unwrap();
    // All of it goes with who brought it.
    for link in [pe, user, b] {
        bench.registrar.handle_link(bench.now, link, LinkChange::Down(LinkDown::Broken));
        skip(&mut bench);
    }
    bench.opened.clear();
    for _ in 0..700 {
        bench.now = bench.now + ms(10);
        bench.registrar.handle_timeout(bench.now);
        skip(&mut bench);
    }
    let accounts = bench.registrar.accounts();
    assert!(accounts.iter().all(|account| account.bytes == 0), "{accounts:?}");
}

#[test]
fn the_more_peers_are_to_be_told_the_less_is_done_at_once() {
    let mut bench = Bench::serving();
    for id in 0..200 {
        bench.peer(RegistrarId(0x6000 + id));
    }
    let pe = bench.pe();
    bench.register_many(pe, 1..=1000);
    bench.registrar.handle_link(bench.now, pe, LinkChange::Down(LinkDown::Broken));
    let told = std::iter::from_fn(|| bench.registrar.poll_output())
        .filter(|output| matches!(output, Output::Send { .. }))
        .count();
    assert!(told > 200 && told <= 200 * BUDGET / 8, "{told} messages");
    bench.wait_quietly(ms(2));
    assert_eq!(bench.content("echo"), []);
}

#[test]
fn whoever_comes_and_goes_leaves_nothing_to_look_at() {
    let mut bench = Bench::serving();
    let pe = bench.pe();
    for round in 0..100 {
        let element = PoolElement { life: 3_000_000 - 1000 * round, ..element(1) };
        bench.asap(pe, Asap::Registration { handle: pool("echo"), element });
        if round % 2 == 0 {
            bench.asap(pe, Asap::Deregistration { handle: pool("echo"), id: PeId(1) });
        }
    }
    // The last one, and at its time.
    assert_eq!(bench.registrar.lives.len(), 1);
}

#[test]
fn one_host_does_not_speak_for_a_registrar_over_many_links() {
    let mut bench = Bench::serving();
    let b = bench.peer(B);
    let closed = (0..20)
        .filter(|port| {
            let link =
                bench.accept(Service::Enrp, LinkProtocol::Tcp, &format!("10.0.0.66:{}", 50_000 + port));
            let effects = bench.enrp(link, B, presence_of(B));
            effects.contains(&Effect::Close(link))
        })
        .count();
    assert_eq!(closed, 12);
    // Somebody else still may, who may be the one.
    let link = bench.accept(Service::Enrp, LinkProtocol::Tcp, "10.0.0.2:50001");
    assert!(!bench.enrp(link, B, presence_of(B)).contains(&Effect::Close(link)));
    bench.enrp(b, B, presence_of(B));
}
