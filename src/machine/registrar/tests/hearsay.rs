//! What one message makes us dial, and what one question costs.

use super::*;
use crate::wire::MAX_MESSAGE;

const B: RegistrarId = RegistrarId(0x6000);
const C: RegistrarId = RegistrarId(0x7000);

/// Connections that are tried within so long, of which none succeeds, by address. Nobody is at home.
fn tried(bench: &mut Bench, time: Duration) -> BTreeMap<SocketAddr, usize> {
    let mut tried = BTreeMap::new();
    let end = bench.now + time;
    loop {
        while !bench.opened.is_empty() {
            for &address in &bench.opened[0].1.addresses {
                *tried.entry(address).or_default() += 1;
            }
            bench.refuse_dial();
        }
        if bench.now >= end {
            return tried;
        }
        bench.wait(ms(20));
    }
}

/// A registrar somewhere, as it is told of.
fn at(id: u32, port: u16, addresses: Vec<IpAddr>) -> ServerInformation {
    let transports = vec![Transport::new(Protocol::Tcp, TransportUse::DataOnly, port, addresses)];
    ServerInformation { id: RegistrarId(id), transports }
}

/// What a list costs others: bytes of the message, and connections within a minute by address.
fn cost_of_list(servers: Vec<ServerInformation>) -> (usize, BTreeMap<SocketAddr, usize>) {
    let mut bench = Bench::serving();
    let link = bench.accept(Service::Enrp, LinkProtocol::Tcp, "10.0.0.66:50000");
    let body = Enrp::Presence { reply_required: false, checksum: None, server: None };
    bench.enrp(link, B, body);
    let body = Enrp::ListResponse { rejected: false, servers };
    let message = EnrpMessage { sender: B, receiver: SELF, body };
    let bytes = message.encode();
    assert!(bytes.len() <= MAX_MESSAGE);
    bench.registrar.handle_message(bench.now, link, &bytes);
    bench.drain();
    (bytes.len(), tried(&mut bench, ms(59_000)))
}

#[test]
fn a_list_makes_us_dial_an_address_twice_however_often_it_names_it() {
    let victim = ip("192.0.2.77");
    for (addresses, servers) in [(1, 1), (15, 1), (1, 256), (15, 256)] {
        let all = (0..servers).map(|id| at(0x9000 + id, 6666, vec![victim; addresses])).collect();
        let (bytes, tried) = cost_of_list(all);
        assert_eq!(tried, [(address("192.0.2.77:6666"), 2)].into(), "{servers} x {addresses}, {bytes} bytes");
    }
    // Nor by several transports, or in IPv6's clothes.
    let transports = ["192.0.2.77:6666", "[::ffff:192.0.2.77]:6666", "192.0.2.77:6666"]
        .map(|text| transport(Protocol::Tcp, TransportUse::DataOnly, text));
    let server = ServerInformation { id: C, transports: transports.to_vec() };
    assert_eq!(cost_of_list(vec![server]).1, [(address("192.0.2.77:6666"), 2)].into());
}

#[test]
fn one_host_is_dialled_a_few_times_at_once_whatever_is_named_there() {
    let victim = vec![ip("192.0.2.77")];
    let all = (0..256).map(|id| at(0x9000 + id, 1000 + id as u16, victim.clone())).collect();
    let (_, tried) = cost_of_list(all);
    // While they are remembered, for less than 3 s, one a second comes on top.
    let times: usize = tried.values().sum();
    assert!((8..=11).contains(&times), "{times}");
}

/// Connections for each byte of a message: two for each address of 8 bytes, and in all what one host may name.
#[test]
fn what_a_message_makes_us_dial_is_bounded_by_its_length() {
    let far = |number: u32| IpAddr::from((0xc633_0000 + number).to_be_bytes());
    for (servers, each) in [(1u32, 1u32), (1, 15), (3, 15), (30, 15), (256, 1), (256, 15)] {
        let all: Vec<_> = (0..servers)
            .map(|id| at(0x9000 + id, 6666, (0..each).map(|n| far(id * 256 + n)).collect()))
            .collect();
        let (bytes, tried) = cost_of_list(all);
        let times: usize = tried.values().sum();
        assert!(times >= servers.min(100) as usize, "{servers} x {each}: {times}");
        assert!(times <= 2 * bytes / 8 && times <= 540, "{servers} x {each}: {times} of {bytes} bytes");
        assert!(tried.values().all(|&times| times <= 2));
    }
}

fn announce(bench: &mut Bench, id: RegistrarId, from: &str, server: ServerInformation) {
    let body = Enrp::Presence { reply_required: false, checksum: None, server: Some(server) };
    let message = EnrpMessage { sender: id, receiver: RegistrarId(0), body }.encode();
    bench.registrar.handle_announce(bench.now, Service::Enrp, address(from), &message);
    bench.drain();
}

#[test]
fn datagrams_make_us_dial_no_more_than_lists() {
    let mut bench = Bench::serving();
    for round in 0..3 {
        for id in 0..256 {
            let server = at(0x9000 + id, 6666, vec![ip("192.0.2.77"); 15]);
            announce(&mut bench, server.id, if id % 2 == 0 { "10.0.0.66:9" } else { "10.0.0.67:9" }, server);
        }
        let tried = tried(&mut bench, ms(3000));
        let victim = tried.get(&address("192.0.2.77:6666")).copied().unwrap_or(0);
        assert_eq!(victim, if round == 0 { 2 } else { 0 }, "{tried:?}");
        // Where they came from, once a second.
        let others: usize = tried.values().sum::<usize>() - victim;
        assert!(others <= 8, "{tried:?}");
    }
}

/// Who does not answer yet is found as soon as it does, by what it announces itself.
#[test]
fn who_announces_itself_is_dialled_every_second() {
    let mut bench = Bench::serving();
    let mut dials = Vec::new();
    for _ in 0..40 {
        announce(&mut bench, C, "10.0.0.3:9999", server(C, "10.0.0.3:9901"));
        while !bench.opened.is_empty() {
            dials.push(bench.now);
            bench.refuse_dial();
        }
        bench.wait(ms(500));
    }
    assert!((18..=21).contains(&dials.len()), "{dials:?}");
    bench.wait(ms(1000));
    announce(&mut bench, C, "10.0.0.3:9999", server(C, "10.0.0.3:9901"));
    let (link, _) = bench.answer_dial();
    bench.enrp(link, C, Enrp::Presence { reply_required: false, checksum: None, server: None });
    let known = bench.registrar.peers();
    assert!(known.iter().any(|peer| peer.id == C && peer.state == "alive"), "{known:?}");
}

/// One that is known is dialled where it came from as before, and elsewhere a few times, whatever it says.
#[test]
fn who_says_that_it_is_elsewhere_has_others_dialled_a_few_times() {
    let mut bench = Bench::serving();
    for round in 0..50 {
        let link = bench.accept(Service::Enrp, LinkProtocol::Tcp, "10.0.0.66:50000");
        let server = at(0x9000 + round % 3, 6666, vec![ip("192.0.2.77"), ip("10.0.0.66")]);
        let id = server.id;
        bench.enrp(link, id, Enrp::Presence { reply_required: false, checksum: None, server: Some(server) });
        bench.down(link);
        let tried = tried(&mut bench, ms(400));
        assert!(tried[&address("10.0.0.66:6666")] >= 1, "{tried:?}");
        let victim = tried.get(&address("192.0.2.77:6666")).copied().unwrap_or(0);
        assert!(victim == 0 || round < 4, "{round}: {tried:?}");
    }
}

fn lists(effects: &[Effect]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::Enrp(_, _, Enrp::ListResponse { .. }))).count()
}

#[test]
fn who_asks_for_our_peers_over_and_over_waits() {
    let mut bench = Bench::serving();
    let (b, c) = (bench.peer(B), bench.accept(Service::Enrp, LinkProtocol::Tcp, "10.0.0.3:50000"));
    let mut told = 0;
    for _ in 0..100 {
        for _ in 0..64 {
            told += lists(&bench.enrp(b, B, Enrp::ListRequest));
        }
        told += lists(&bench.wait(ms(10)));
    }
    assert!((15..=21).contains(&told), "{told}");
    // Others are told at once, and whoever asks again gets its answer.
    assert_eq!(lists(&bench.enrp(c, C, Enrp::ListRequest)), 1);
    assert_eq!(lists(&bench.enrp(c, C, Enrp::ListRequest)), 0);
    assert_eq!(lists(&bench.wait(ms(50))), 1);
    bench.enrp(c, C, Enrp::ListRequest);
    bench.down(c);
    bench.wait(ms(1000));
}

/// Many who ask at the same time are told one after the other, with everything else in between.
#[test]
fn lists_that_are_due_take_their_turn() {
    let mut bench = Bench::serving();
    let links: Vec<_> = (0..200)
        .map(|number| {
            let link = bench.accept(Service::Enrp, LinkProtocol::Tcp, &format!("10.0.1.{number}:50000"));
            let id = RegistrarId(0x9000 + number);
            for _ in 0..2 {
                bench.enrp(link, id, Enrp::ListRequest);
            }
            link
        })
        .collect();
    bench.now = bench.now + ms(60);
    bench.registrar.handle_timeout(bench.now);
    let at_once = lists(&bench.drain());
    assert!((1..=3).contains(&at_once), "{at_once} of {}", links.len());
}

#[test]
fn what_is_told_of_a_peer_is_short() {
    let mut bench = Bench::serving();
    let b = bench.peer(B);
    let c = bench.accept(Service::Enrp, LinkProtocol::Tcp, "10.0.0.3:50000");
    let mut transports = vec![Transport::Opaque(vec![0, 16, 0, 4]); 1000];
    let addresses = (1..=100).map(|n| IpAddr::from([10, 0, 3, n])).collect();
    transports.push(Transport::new(Protocol::Tcp, TransportUse::DataOnly, 9901, addresses));
    transports.extend((0..40).map(|_| transport(Protocol::Tcp, TransportUse::DataOnly, "10.0.4.1:9901")));
    let server = Some(ServerInformation { id: C, transports });
    bench.enrp(c, C, Enrp::Presence { reply_required: false, checksum: None, server });
    let effects = bench.enrp(b, B, Enrp::ListRequest);
    let [Effect::Enrp(_, _, Enrp::ListResponse { servers, .. })] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(servers.len(), 1);
    assert_eq!(servers[0].transports[0].addresses().len(), 15);
    assert!(servers[0].encoded_len() <= 512, "{}", servers[0].encoded_len());
    // Of whom nothing can be told, nothing is.
    let server =
        Some(ServerInformation { id: C, transports: vec![Transport::Opaque(vec![0, 16, 0, 4]); 900] });
    bench.enrp(c, C, Enrp::Presence { reply_required: false, checksum: None, server });
    bench.wait(ms(50));
    let effects = bench.enrp(b, B, Enrp::ListRequest);
    assert_eq!(effects, [Effect::Enrp(b, B, Enrp::ListResponse { rejected: false, servers: Vec::new() })]);
}
