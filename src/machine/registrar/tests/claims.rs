//! Asking elements whose they are: who comes first, and who gives way.

use super::*;

const B: RegistrarId = RegistrarId(0x6000);
const C: RegistrarId = RegistrarId(0x7000);
const D: RegistrarId = RegistrarId(0x8000);

/// A peer at an address of its own.
fn peer_at(bench: &mut Bench, id: RegistrarId, at: &str) -> LinkId {
    let link = bench.accept(Service::Enrp, LinkProtocol::Tcp, &format!("{at}:50000"));
    let server = Some(server(id, &format!("{at}:9901")));
    bench.enrp(link, id, Enrp::Presence { reply_required: false, checksum: None, server });
    link
}

/// A peer says that it has an element whose process is at an address, perhaps that we had better take it.
fn tell(bench: &mut Bench, link: LinkId, home: RegistrarId, id: u32, at: &str, suggested: bool) {
    let mut element = owned(id, home);
    element.asap = Some(transport(Protocol::Tcp, TransportUse::DataOnly, at));
    let body = Enrp::HandleUpdate {
        takeover_suggested: suggested,
        action: UpdateAction::Add,
        handle: pool("echo"),
        element,
    };
    let message = EnrpMessage { sender: home, receiver: SELF, body };
    bench.registrar.handle_message(bench.now, link, &message.encode());
    while let Some(output) = bench.registrar.poll_output() {
        if let Output::Open { link, service, target } = output {
            bench.services.insert(link, service);
            bench.opened.push((link, target));
        }
    }
}

/// Addresses at which nobody answers, of so many hosts.
fn holes(count: u32) -> impl Iterator<Item = (u32, String)> {
    (1..=count).map(|number| (number, format!("10.9.{}.{}:99", number / 200, number % 200 + 1)))
}

/// Lets a peer die whose dials fail, and no others.
fn kill(bench: &mut Bench, link: LinkId) {
    bench.down(link);
    for _ in 0..20 {
        let refused: Vec<LinkId> = (bench.opened.iter())
            .filter(|(_, target)| target.addresses[0].port() == 9901)
            .map(|(link, _)| *link)
            .collect();
        bench.opened.retain(|(_, target)| target.addresses[0].port() != 9901);
        for link in refused {
            bench.change(link, LinkChange::Down(LinkDown::Refused));
        }
        bench.wait_quietly(ms(30));
    }
}

/// How many processes at addresses that begin so are being dialled.
fn dialled(bench: &Bench, begin: &str) -> usize {
    let at = |target: &Target| target.addresses[0].to_string().starts_with(begin);
    bench.opened.iter().filter(|(_, target)| at(target)).count()
}

#[test]
fn what_is_only_said_keeps_no_inherited_element_waiting() {
    let (mut bench, _) = Bench::new(Config { support_takeover_suggestion: true, ..config() });
    let (b, c) = (peer_at(&mut bench, B, "10.0.0.2"), peer_at(&mut bench, C, "10.0.0.66"));
    for id in 1001..=1020 {
        tell(&mut bench, b, B, id, &format!("10.0.1.{}:99", id - 1000), false);
    }
    for (id, hole) in holes(600) {
        tell(&mut bench, c, C, id, &hole, true);
    }
    let suggested = dialled(&bench, "10.9.");
    assert!((16..=64).contains(&suggested), "{suggested} dials");
    kill(&mut bench, b);
    bench.enrp(c, C, Enrp::InitTakeoverAck { target: B });
    assert_eq!(dialled(&bench, "10.0.1."), 20);
    // And what somebody else says has its turn as well.
    let d = peer_at(&mut bench, D, "10.0.0.4");
    tell(&mut bench, d, D, 1021, "10.0.2.1:99", true);
    assert_eq!(dialled(&bench, "10.0.2."), 1);
}

#[test]
fn the_elements_of_one_dead_registrar_leave_dials_for_those_of_another() {
    let mut bench = Bench::serving();
    let (b, c) = (peer_at(&mut bench, B, "10.0.0.2"), peer_at(&mut bench, C, "10.0.0.66"));
    for id in 1001..=1020 {
        tell(&mut bench, b, B, id, &format!("10.0.1.{}:99", id - 1000), false);
    }
    for (id, hole) in holes(600) {
        tell(&mut bench, c, C, id, &hole, false);
    }
    kill(&mut bench, c);
    bench.enrp(b, B, Enrp::InitTakeoverAck { target: C });
    bench.wait_quietly(ms(1));
    let theirs = dialled(&bench, "10.9.");
    assert!((100..=192).contains(&theirs), "{theirs} dials");
    kill(&mut bench, b);
    assert_eq!(dialled(&bench, "10.0.1."), 20);
}

#[test]
fn a_host_at_which_nobody_answers_leaves_dials_for_others() {
    let mut bench = Bench::serving();
    let b = peer_at(&mut bench, B, "10.0.0.2");
    for id in 1..=400 {
        tell(&mut bench, b, B, id, &format!("10.9.0.1:{}", 1000 + id), false);
    }
    for id in 1001..=1020 {
        tell(&mut bench, b, B, id, &format!("10.9.1.{}:99", id - 1000), false);
    }
    kill(&mut bench, b);
    assert_eq!((dialled(&bench, "10.9.0."), dialled(&bench, "10.9.1.")), (64, 20));
    // Each dial that ends makes room for the next, and in the end all had their turn.
    let mut seen = 0;
    while !bench.opened.is_empty() {
        bench.refuse_dial();
        seen += 1;
        assert!(dialled(&bench, "10.9.0.") <= 64);
    }
    assert_eq!((seen, bench.content("echo").len()), (420, 0));
}

#[test]
fn claims_that_come_while_their_target_is_dealt_with_are_dialled_again() {
    let (mut bench, _) = Bench::new(Config { support_takeover_suggestion: true, ..config() });
    let c = peer_at(&mut bench, C, "10.0.0.3");
    for id in 1..=1000 {
        tell(&mut bench, c, C, id, "10.9.0.1:99", false);
    }
    for id in 1..=1000 {
        tell(&mut bench, c, C, id, "10.9.0.1:99", true);
    }
    assert_eq!(bench.opened.len(), 1);
    // More than one call may do: meanwhile another one comes.
    bench.refuse_dial();
    tell(&mut bench, c, C, 1001, "10.9.0.1:99", true);
    bench.wait_quietly(ms(1));
    assert_eq!(bench.opened.len(), 1);
    let (pe, _) = bench.answer_dial();
    let effects = bench.wait_quietly(ms(1));
    assert!(effects.is_empty() && bench.opened.is_empty(), "{effects:?}");
    bench.asap(pe, ack(1001));
    assert_eq!(bench.registrar.handlespace().owned_count(SELF), 1);
}

#[test]
fn whoever_has_most_to_ask_gives_way() {
    let (mut bench, _) = Bench::new(Config { support_takeover_suggestion: true, ..config() });
    let (c, d) = (peer_at(&mut bench, C, "10.0.0.66"), peer_at(&mut bench, D, "10.0.0.4"));
    let long = |number: u32| PoolHandle::new(&[&number.to_be_bytes()[..], &[b'x'; 60_000]].concat()).unwrap();
    let suggest = |bench: &mut Bench, link, home, number| {
        let body = Enrp::HandleUpdate {
            takeover_suggested: true,
            action: UpdateAction::Add,
            handle: long(number),
            element: owned(number, home),
        };
        let message = EnrpMessage { sender: home, receiver: SELF, body };
        bench.registrar.handle_message(bench.now, link, &message.encode());
        while bench.registrar.poll_output().is_some() {}
    };
    let most = 64 << 20;
    for number in 1..=1200 {
        suggest(&mut bench, c, C, number);
    }
    let full = bench.registrar.claims.bytes();
    assert!(full <= most && full > most - 70_000, "{full}");
    assert!(!bench.registrar.claims.has(&long(1200), PeId(1200)));
    suggest(&mut bench, d, D, 2000);
    let claims = &bench.registrar.claims;
    assert!(claims.has(&long(2000), PeId(2000)) && claims.has(&long(1), PeId(1)) && claims.bytes() <= most);
    bench.registrar.invariants().unwrap();
}
