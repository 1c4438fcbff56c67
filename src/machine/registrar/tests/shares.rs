//! One host, one peer, over however many links, leaves room for others.

use super::*;
use crate::machine::registrar::Leaver;

const B: RegistrarId = RegistrarId(0x6000);
const C: RegistrarId = RegistrarId(0x7000);

fn client(bench: &mut Bench, number: u32, at: &str) -> LinkId {
    bench.accept(Service::Asap, LinkProtocol::Tcp, &format!("{at}:{}", 1000 + number))
}

fn is_registered(bench: &mut Bench, link: LinkId, id: u32) -> bool {
    bench.asap(link, registration(id)).contains(&registered(link, id))
}

fn hello(bench: &mut Bench, id: RegistrarId, at: &str) -> LinkId {
    let link = bench.accept(Service::Enrp, LinkProtocol::Tcp, at);
    bench.enrp(link, id, Enrp::Presence { reply_required: false, checksum: None, server: None });
    link
}

fn knows(bench: &Bench, id: RegistrarId) -> bool {
    bench.registrar.peers().iter().any(|peer| peer.id == id)
}

/// Each link has what is left for others, and then comes the next one. In IPv6 each from an address of its own.
#[test]
fn many_links_of_one_host_leave_room_for_others() {
    let at4 = |_: u32| "10.0.0.66".to_owned();
    let at6 = |number: u32| format!("[2001:db8::{:x}]", number + 1);
    for at in [&at4 as &dyn Fn(u32) -> String, &at6] {
        let (mut bench, _) = Bench::new(Config { max_elements: 800, ..config() });
        let (mut taken, mut links) = (0, Vec::new());
        for number in 0..40 {
            let link = client(&mut bench, number, &at(number));
            links.push(link);
            while is_registered(&mut bench, link, taken + 1) {
                taken += 1;
            }
        }
        assert_eq!(taken, 700, "seven times as much as is left for others");
        for number in 0..50 {
            let other = client(&mut bench, number, "10.0.0.9");
            assert!(is_registered(&mut bench, other, 2000 + number));
        }
        // What is given back is free, for whoever comes.
        for link in links {
            bench.down(link);
        }
        bench.wait(ms(100));
        let next = client(&mut bench, 0, &at(0));
        assert!(is_registered(&mut bench, next, 1));
    }
}

#[test]
fn subscribers_of_one_host_leave_room_for_others() {
    let links: Vec<LinkId> = (0..20).map(|n| LinkId(LinkId::INCOMING | (n + 1))).collect();
    let ends = |at: String| LinkEnds {
        service: Service::Asap,
        protocol: LinkProtocol::Tcp,
        peer: vec![address(&at)],
        local: vec![address("10.0.0.1:3863")],
        roles: None,
    };
    let mut taken = 0;
    let mut bench = Bench::serving();
    let ask = |bench: &mut Bench, link: LinkId, name: String| {
        let handle = PoolHandle::new(name.repeat(6000).as_bytes()).unwrap();
        let question = Asap::HandleResolution { subscribe: true, handle, items: Some(u32::MAX) };
        bench.registrar.handle_message(bench.now, link, &question.encode());
        let mut taken = false;
        while let Some(output) = bench.registrar.poll_output() {
            if let Output::Send { bytes, .. } = output {
                let message = Asap::decode(&bytes).unwrap().message;
                taken |= matches!(message, Asap::HandleResolutionResponse { subscribed: true, .. });
            }
        }
        taken
    };
    for (number, &link) in links.iter().enumerate() {
        bench.registrar.handle_link(
            bench.now,
            link,
            LinkChange::Up(ends(format!("10.0.0.66:{}", 1000 + number))),
        );
        for _ in 0..1000 {
            if !ask(&mut bench, link, format!("{taken:09}-")) {
                break;
            }
            taken += 1;
        }
    }
    let other = LinkId(LinkId::INCOMING | 100);
    bench.registrar.handle_link(bench.now, other, LinkChange::Up(ends("10.0.0.9:1".into())));
    for number in 0..20 {
        assert!(ask(&mut bench, other, format!("o{number:08}-")), "{number} after {taken} of one host");
    }
}

/// Invented registrars that have an element each keep no place that others need.
#[test]
fn invented_peers_with_elements_leave_room_for_others() {
    let peers = vec![Target { protocol: LinkProtocol::Tcp, addresses: vec![address("10.0.0.7:9901")] }];
    let (mut bench, _) = Bench::new(Config { max_peers: 64, peers, ..config() });
    bench.refuse_dial();
    bench.wait(ms(20_000));
    assert!(bench.registrar.is_serving());
    for number in 0..70 {
        let id = RegistrarId(0x100 + number);
        let link = hello(&mut bench, id, &format!("10.0.0.66:{}", 1000 + number));
        bench.enrp(link, id, update(number + 1, id));
    }
    hello(&mut bench, C, "10.0.0.2:50000");
    assert!(knows(&bench, C));
    // Nor those of a second host beside them.
    for number in 0..70 {
        let id = RegistrarId(0x200 + number);
        let link = hello(&mut bench, id, &format!("10.0.0.67:{}", 1000 + number));
        bench.enrp(link, id, update(500 + number, id));
    }
    let d = RegistrarId(0x7001);
    let link = hello(&mut bench, d, "10.0.0.3:50000");
    bench.enrp(link, d, update(600, d));
    assert!(knows(&bench, d) && bench.content("echo").contains(&(600, d)));
    // From as many hosts as there are: who was configured has a place all the same.
    for number in 0..70 {
        let id = RegistrarId(0x300 + number);
        let link = hello(&mut bench, id, &format!("10.1.0.{}:1000", number + 1));
        bench.enrp(link, id, update(1000 + number, id));
    }
    hello(&mut bench, B, "10.0.0.7:50000");
    assert!(knows(&bench, B));
}

/// A host with an IPv6 network has as many addresses as it likes.
#[test]
fn invented_peers_of_one_network_make_room_for_others() {
    let (mut bench, _) = Bench::new(Config { max_peers: 8, ..config() });
    for number in 0..20 {
        hello(&mut bench, RegistrarId(0x100 + number), &format!("[2001:db8::{:x}]:1000", number + 1));
    }
    hello(&mut bench, B, "[2001:db8:0:1::1]:1000");
    assert!(knows(&bench, B));
}

#[test]
fn a_peers_elements_leave_room_for_those_that_register() {
    let (mut bench, _) = Bench::new(Config { max_elements: 400, ..config() });
    let b = hello(&mut bench, B, "10.0.0.66:50000");
    let c = hello(&mut bench, C, "10.0.0.66:50001");
    for id in 1..=400 {
        let (link, home) = if id % 2 == 0 { (b, B) } else { (c, C) };
        bench.enrp(link, home, update(id, home));
    }
    assert_eq!(bench.content("echo").len(), 350);
    for id in 1001..=1020 {
        let pe = bench.pe();
        assert!(is_registered(&mut bench, pe, id), "{id}");
    }
}

/// Requests that wait for the service to start: whoever has most waiting makes room.
#[test]
fn whose_requests_wait_does_not_close_others_links() {
    let awaits_peers = true;
    let (mut bench, _) = Bench::new(Config { awaits_peers, ..config() });
    assert!(!bench.registrar.is_serving());
    let long = PoolHandle::new(&[b'x'; 60_000]).unwrap();
    let question = Asap::HandleResolution { subscribe: false, handle: long, items: None };
    for number in 0..80 {
        let link = client(&mut bench, number, "10.0.0.66");
        bench.asap(link, question.clone());
    }
    let pe = bench.pe();
    assert!(!bench.asap(pe, registration(1)).contains(&Close(pe)));
    while !bench.registrar.is_serving() {
        bench.wait(ms(100));
    }
    bench.wait(ms(1));
    assert_eq!(bench.content("echo"), [(1, SELF)]);
}

#[test]
fn who_makes_room_is_whoever_has_most_and_is_of_no_use() {
    let mut bench = Bench::serving();
    let leaver = |link, at: &str, settled| Leaver { link, host: Some(at.parse().unwrap()), settled };
    let useful: Vec<LinkId> = (0..5).map(|number| client(&mut bench, number, "10.0.0.66")).collect();
    for (number, &link) in useful.iter().enumerate() {
        assert!(is_registered(&mut bench, link, number as u32 + 1));
    }
    let one = client(&mut bench, 9, "10.0.0.3");
    let idle: Vec<LinkId> = (0..4).map(|number| client(&mut bench, number, "10.0.0.9")).collect();
    bench.wait(ms(10));
    // Of those on whose links nothing hangs, those of the host that has most; who said something last, last.
    bench.asap(idle[0], Asap::HandleResolution { subscribe: false, handle: pool("echo"), items: None });
    let leavers = [1, 2, 3].map(|number: usize| leaver(idle[number], "10.0.0.9", false));
    assert_eq!(bench.registrar.who_makes_room(), leavers);
    for &link in &idle[..3] {
        bench.down(link);
    }
    assert_eq!(bench.registrar.who_makes_room().len(), 1);
    bench.down(one);
    assert_eq!(bench.registrar.who_makes_room(), [leaver(idle[3], "10.0.0.9", false)]);
    // Where all are of use, those of a host that has more than half, down to that.
    bench.down(idle[3]);
    let other = client(&mut bench, 1, "10.0.0.3");
    bench.asap(other, Asap::HandleResolution { subscribe: true, handle: pool("echo"), items: None });
    let leavers = [0, 1].map(|number: usize| leaver(useful[number], "10.0.0.66", true));
    assert_eq!(bench.registrar.who_makes_room(), leavers);
    for &link in &useful[..2] {
        bench.down(link);
    }
    let more: Vec<LinkId> = (2..5).map(|number| client(&mut bench, number, "10.0.0.4")).collect();
    for &link in &more {
        bench.asap(link, Asap::HandleResolution { subscribe: true, handle: pool("echo"), items: None });
    }
    assert_eq!(bench.registrar.who_makes_room(), []);
}
