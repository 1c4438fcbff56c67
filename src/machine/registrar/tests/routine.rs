//! What a registrar says without being asked, and when: announcements, presences, keep-alives.

use super::*;
use crate::wire::AsapType;

/// All that is announced by group-cast until `passed` from now, with the time.
fn announced(bench: &mut Bench, service: Service, passed: Duration) -> Vec<(Time, Vec<u8>)> {
    let (end, mut found) = (bench.now + passed, Vec::new());
    while let Some(due) = bench.registrar.poll_timeout().filter(|&due| due <= end) {
        bench.now = due;
        bench.registrar.handle_timeout(due);
        while let Some(output) = bench.registrar.poll_output() {
            match output {
                Output::Announce { service: of, bytes } if of == service => found.push((due, bytes)),
                _ => {}
            }
        }
    }
    found
}

/// Whether all times follow each other by `cycle`, give or take 12.5 %.
#[track_caller]
fn come_every(cycle: Duration, times: &[Time]) {
    for pair in times.windows(2) {
        let gap = pair[1] - pair[0];
        assert!(gap >= cycle * 7 / 8 && gap <= cycle * 9 / 8, "{gap:?} instead of about {cycle:?}");
    }
}

#[test]
fn announcements_come_every_second_and_say_where() {
    let sctp = transport(Protocol::Sctp, TransportUse::DataOnly, "10.0.0.1:3863");
    let tcp = transport(Protocol::Tcp, TransportUse::DataOnly, "10.0.0.1:3863");
    let asap_transports = vec![sctp.clone(), tcp.clone()];
    let (mut bench, _) = Bench::new(Config { announce_asap: true, asap_transports, ..config() });
    let heard = announced(&mut bench, Service::Asap, ms(30_000));
    assert!((26..=34).contains(&heard.len()), "{} in 30 s", heard.len());
    let times: Vec<Time> = heard.iter().map(|(time, _)| *time).collect();
    come_every(Duration::from_secs(1), &times);
    for (_, bytes) in heard {
        assert_eq!(bytes[..2], [AsapType::SERVER_ANNOUNCE.0, 0]);
        // All of them and nothing else; rsplib reads nothing behind an SCTP transport.
        let transports = vec![tcp.clone(), sctp.clone()];
        assert_eq!(
            Asap::decode(&bytes).unwrap().message,
            Asap::ServerAnnounce { registrar: SELF, transports }
        );
    }
}

#[test]
fn presences_go_to_the_group_every_cycle_with_our_identifier() {
    let (mut bench, _) = Bench::new(Config { announce_enrp: true, ..config() });
    // It looks for others first, who are to answer.
    bench.wait(ms(10_000));
    let heard = announced(&mut bench, Service::Enrp, ms(20_000));
    let times: Vec<Time> = heard.iter().map(|(time, _)| *time).collect();
    assert!(times.len() >= 10, "{}", times.len());
    come_every(config().peer_heartbeat_cycle, &times);
    for (_, bytes) in heard {
        // To nobody in particular, and no answer is asked for.
        let message = EnrpMessage::decode(&bytes).unwrap().message;
        assert_eq!((bytes[1], message.sender, message.receiver), (0, SELF, RegistrarId(0)));
        assert_eq!(message.body, bench.presence(false));
    }
}

#[test]
fn every_peer_gets_a_presence_each_cycle_and_owes_no_answer() {
    let mut bench = Bench::serving();
    let peers: Vec<(RegistrarId, LinkId)> =
        (0x6000..0x6003).map(|id| (RegistrarId(id), bench.peer(RegistrarId(id)))).collect();
    let cycle = config().peer_heartbeat_cycle;
    let (mut heard, rounds) = (BTreeMap::<RegistrarId, usize>::new(), 40);
    for _ in 0..rounds {
        for effect in bench.wait(cycle) {
            if let Effect::Enrp(_, to, Enrp::Presence { reply_required, .. }) = effect {
                assert!(!reply_required, "{to} is asked to answer");
                *heard.entry(to).or_default() += 1;
            }
        }
        for &(id, link) in &peers {
            let server = Some(server(id, "10.0.0.2:9901"));
            let alive = Enrp::Presence {
                reply_required: false,
                checksum: Some(bench.registrar.handlespace().checksum(id)),
                server,
            };
            bench.enrp(link, id, alive);
        }
    }
    for (id, _) in peers {
        let count = heard.get(&id).copied().unwrap_or(0);
        assert!(
            (rounds * 8 / 9 - 1..=rounds * 8 / 7 + 1).contains(&count),
            "{id}: {count} in {rounds} cycles"
        );
    }
}

#[test]
fn keep_alives_do_not_come_all_at_once() {
    const LINKS: u32 = 64;
    let mut bench = Bench::serving();
    for id in 1..=LINKS {
        let pe = bench.pe();
        bench.asap(pe, registration(id));
    }
    // Registered at the same moment, asked at moments of their own: each after half to one and a half intervals.
    let (start, interval) = (bench.now, config().endpoint_keep_alive_transmission_interval);
    let mut first = BTreeMap::new();
    while bench.now < start + interval * 3 / 2 {
        for effect in bench.wait(ms(5)) {
            if let Effect::Asap(link, Asap::EndpointKeepAlive { home, handle, id: Some(id), .. }) = effect {
                assert!(!home, "asked with H");
                first.entry(link).or_insert(bench.now - start);
                bench.asap(link, Asap::EndpointKeepAliveAck { handle, id });
            }
        }
    }
    assert_eq!(first.len(), LINKS as usize);
    let in_part = |from: u32| {
        let (from, to) = (interval * from / 8, interval * (from + 1) / 8);
        first.values().filter(|&&time| time > from && time <= to + ms(5)).count()
    };
    assert!(first.values().all(|&time| time >= interval / 2));
    for part in 4..12 {
        assert!((1..=24).contains(&in_part(part)), "{:?}", first.values());
    }
}
