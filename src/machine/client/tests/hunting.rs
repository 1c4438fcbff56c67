//! Whom the client dials, when, and when it stops.

use super::*;

fn opened(seen: &[Seen]) -> Vec<Target> {
    seen.iter()
        .filter_map(|one| if let Open(_, target) = one { Some(target.clone()) } else { None })
        .collect()
}

#[test]
fn nobody_is_dialled_while_there_is_nothing_to_ask() {
    let mut bench = bench(config(&[A]));
    bench.hear(B, 2, vec![]).at(60_000).expect([]);
    assert_eq!(bench.client.poll_timeout(), None);
}

#[test]
fn three_dials_at_once_the_first_up_wins_and_the_others_are_closed() {
    let mut bench = bench(config(&[A, B, C, D]));
    bench.resolve(1, "echo").at(399);
    assert_eq!(bench.take().len(), 2);
    bench.at(1_000);
    let seen = bench.take();
    assert!(matches!(seen[..], [Open(LinkId(3), _)]), "{seen:?}");
    bench.up(link(2), B).expect([
        Close(link(1)),
        Close(link(3)),
        home(0, link(2)),
        Send(link(2), question("echo")),
    ]);
}

#[test]
fn the_next_is_dialled_at_once_when_one_is_refused() {
    let mut bench = bench(config(&[A, B]));
    bench.resolve(1, "echo");
    let first = opened(&bench.take());
    bench.down(link(1), LinkDown::Refused);
    let second = opened(&bench.take());
    assert_ne!(first, second);
    assert_eq!((first.len(), second.len()), (1, 1));
}

#[test]
fn who_is_refused_everywhere_hears_so_within_a_second() {
    let mut bench = bench(config(&[A, B]));
    bench.resolve(1, "echo");
    let refuse = |bench: &mut Bench, until: u64| {
        while bench.now < Time(until * 1000) {
            let dials: Vec<LinkId> = bench
                .seen
                .iter()
                .filter_map(|one| if let Open(link, _) = one { Some(*link) } else { None })
                .collect();
            bench.seen.retain(|one| !matches!(one, Open(..)));
            for dial in dials {
                bench.down(dial, LinkDown::Refused);
            }
            bench.at(bench.now.0 / 1000 + 10);
        }
    };
    refuse(&mut bench, 490);
    bench.seen.retain(|one| !matches!(one, Open(..)));
    bench.expect([]);
    refuse(&mut bench, 900);
    bench.seen.retain(|one| !matches!(one, Open(..)));
    bench.expect([is_resolved(1, "echo", Err(RequestError::NoRegistrar))]);
}

#[test]
fn a_dial_that_may_be_lost_is_repeated() {
    let mut bench = bench(config(&[A]));
    bench.resolve(1, "echo").at(7_000);
    let dials = opened(&bench.take()).len();
    assert!((3..=7).contains(&dials), "{dials} dials in 7 s");
}

#[test]
fn static_before_announced_before_fallback() {
    let mut config = config(&[A]);
    config.fallback = vec![tcp(C)];
    let mut bench = bench(config);
    bench.hear(
        B,
        2,
        vec![Transport::new(Protocol::Tcp, TransportUse::DataOnly, 3863, vec![address(B).ip()])],
    );
    bench.resolve(1, "echo").at(600);
    assert_eq!(opened(&bench.take()), [tcp(A), tcp(B), tcp(C)]);
}

#[test]
fn chance_decides_among_equals() {
    let first = |seed| {
        let mut client = Client::new(config(&[A, B, C]), seed, Time(0));
        client.resolve(Time(0), RequestId(1), &handle("echo"), None, false);
        match client.poll_output() {
            Some(Output::Open { target, .. }) => target,
            other => panic!("{other:?}"),
        }
    };
    let firsts: std::collections::BTreeSet<Target> = (0..64).map(first).collect();
    assert_eq!(firsts.len(), 3);
    assert_eq!(first(5), first(5));
}

#[test]
fn an_announcement_without_transport_is_sctp_at_its_source_or_the_well_known_port() {
    let mut only_sctp = config(&[]);
    only_sctp.protocols = vec![LinkProtocol::Sctp];
    let mut bench = bench(only_sctp);
    bench
        .resolve(1, "echo")
        .hear("10.0.0.7:36000", 7, vec![])
        .expect([Open(link(1), sctp("10.0.0.7:36000"))]);
    // One of rsplib's has its port there; by the RFC it is the well-known one.
    bench.at(300).expect([Open(link(2), sctp("10.0.0.7:3863"))]);
    bench.up(link(2), "10.0.0.7:3863");
    assert_eq!(bench.take()[..2], [Close(link(1)), home(7, link(2))]);
}

#[test]
fn the_protocol_filter_holds_and_the_first_protocol_is_preferred() {
    let both = || {
        [Protocol::Tcp, Protocol::Sctp]
            .map(|protocol| Transport::new(protocol, TransportUse::DataOnly, 3863, vec![address(B).ip()]))
            .to_vec()
    };
    let dials = |protocols: &[LinkProtocol]| {
        let mut bench = bench(Config { protocols: protocols.to_vec(), ..config(&[]) });
        bench.hear(B, 2, both()).resolve(1, "echo").at(300);
        opened(&bench.take())
    };
    assert_eq!(dials(&[LinkProtocol::Tcp]), [tcp(B)]);
    assert_eq!(dials(&[LinkProtocol::Sctp, LinkProtocol::Tcp]), [sctp(B), tcp(B)]);
    assert_eq!(dials(&[LinkProtocol::Tcp, LinkProtocol::Sctp]), [tcp(B), sctp(B)]);
}

#[test]
fn an_announced_registrar_is_forgotten_when_not_heard() {
    let mut only_sctp = config(&[]);
    only_sctp.protocols = vec![LinkProtocol::Sctp];
    let mut bench = bench(only_sctp);
    bench.hear(B, 2, vec![]).at(5_000).resolve(1, "echo").at(6_000);
    bench.expect([is_resolved(1, "echo", Err(RequestError::NoRegistrar))]);
}

#[test]
fn a_new_announcement_is_dialled_at_once_even_with_all_dials_taken() {
    let mut config = config(&[A, B, C]);
    config.protocols = vec![LinkProtocol::Tcp, LinkProtocol::Sctp];
    let mut bench = bench(config);
    bench.resolve(1, "echo").at(1_000).forget();
    bench.hear(D, 4, vec![]).expect([Close(link(1)), Open(link(4), sctp(D))]);
    bench.hear(D, 4, vec![]).expect([]);
}

#[test]
fn back_off_grows_to_two_seconds_and_is_random() {
    let mut bench = bench(config(&[A]));
    bench.client.config.connect_timeout = Duration::from_secs(60);
    bench.register(1, registration("echo", 7));
    let mut times = Vec::new();
    for number in 1..=12 {
        while !bench.take().iter().any(|one| matches!(one, Open(..))) {
            let due = bench.client.poll_timeout().expect("it goes on");
            bench.at(due.0.div_ceil(1000));
        }
        times.push(bench.now.0 / 1000);
        bench.down(link(number), LinkDown::Refused);
    }
    let pauses: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses[0] >= 100 && pauses[0] <= 126, "{pauses:?}");
    assert!(pauses[6..].iter().all(|&pause| (1_499..=2_001).contains(&pause)), "{pauses:?}");
    assert!(pauses[6..].windows(2).any(|pair| pair[0] != pair[1]), "{pauses:?}");
}

#[test]
fn where_dials_are_swallowed_a_request_ends_when_patience_is_over() {
    let mut bench = bench(config(&[A]));
    bench.resolve(1, "echo").at(7_490);
    let seen = bench.take();
    assert!(seen.iter().all(|one| matches!(one, Open(..) | Close(_))), "{seen:?}");
    assert!(opened(&seen).len() >= 4, "{seen:?}");
    bench.at(7_500);
    let seen = bench.take();
    assert!(seen.contains(&is_resolved(1, "echo", Err(RequestError::NoRegistrar))), "{seen:?}");
    // And with nothing left to ask the hunt is over.
    bench.at(60_000);
    assert_eq!(opened(&bench.take()), []);
}

#[test]
fn a_silent_dial_is_given_up_and_tried_again() {
    let mut bench = bench(config(&[A]));
    bench.register(1, registration("echo", 7)).expect([Open(link(1), tcp(A))]);
    bench.at(999).expect([]);
    let mut dials = vec![link(1)];
    for second in 1..20 {
        bench.at(second * 1000);
        for one in bench.take() {
            match one {
                Open(link, target) if target == tcp(A) => dials.push(link),
                Close(link) => assert_eq!(dials.remove(0), link, "the oldest"),
                Seen::Event(Event::Registered { .. }) => assert_eq!(second, 8, "out of patience"),
                other => panic!("{other:?}"),
            }
        }
        assert!((1..=2).contains(&dials.len()), "{dials:?} after {second} s");
    }
    assert!(dials[0] > link(5), "{dials:?}");
}

#[test]
fn many_silent_candidates_are_all_tried_within_the_connect_timeout() {
    let all: Vec<String> = (1..=9).map(|host| format!("10.0.0.{host}:3863")).collect();
    let mut bench = bench(config(&all.iter().map(String::as_str).collect::<Vec<_>>()));
    bench.resolve(1, "echo").at(7_500);
    let mut dialled = opened(&bench.take());
    dialled.truncate(9);
    dialled.sort();
    let mut expected: Vec<Target> = all.iter().map(|text| tcp(text)).collect();
    expected.sort();
    assert_eq!(dialled, expected);
}

#[test]
fn there_are_never_more_than_three_links() {
    let all: Vec<String> = (1..=9).map(|host| format!("10.0.0.{host}:3863")).collect();
    let mut bench = bench(config(&all.iter().map(String::as_str).collect::<Vec<_>>()));
    bench.register(1, registration("echo", 7));
    let mut open = std::collections::BTreeSet::new();
    for step in 0..4_000u64 {
        bench.at(step * 10);
        for one in bench.take() {
            match one {
                Open(link, _) => assert!(open.insert(link)),
                Close(link) => assert!(open.remove(&link)),
                _ => {}
            }
            assert!(open.len() <= 3, "{open:?} at {:?}", bench.now);
        }
        // Now and then one comes up, says nothing, and goes.
        if step % 97 == 0
            && let Some(&link) = open.last()
        {
            bench.up(link, "10.0.0.5:3863");
        }
        if step % 389 == 0
            && let Some(&link) = open.first()
        {
            open.remove(&link);
            bench.down(link, LinkDown::Broken);
        }
    }
}

#[test]
fn a_registrar_that_closes_at_once_does_not_make_us_spin() {
    let mut bench = bench(config(&[A, B]));
    bench.register(1, registration("echo", 7));
    let mut dials = 0;
    for ms in 0..10_000 {
        bench.at(ms);
        for one in bench.take() {
            if let Open(link, target) = one {
                dials += 1;
                bench.up(link, &target.addresses[0].to_string()).down(link, LinkDown::Closed);
            }
        }
    }
    assert!((8..40).contains(&dials), "{dials} dials in 10 s");
}

#[test]
fn nothing_is_dialled_after_the_last_wish_is_withdrawn() {
    let mut bench = bench(config(&[A, B]));
    bench.subscribe("echo").at(300).forget();
    let echo = handle("echo");
    bench.feed(|client, now| client.unsubscribe(now, &echo)).expect([Close(link(1)), Close(link(2))]);
    assert_eq!(bench.client.poll_timeout(), None);
}

/// Over a link with certificates, whoever is no registrar is left at once, and the hunt goes on.
#[test]
fn only_registrars_are_adopted_or_let_in() {
    use crate::machine::trust::Roles;
    let proved = |peer: &str, role: &str| {
        let roles = Some(std::sync::Arc::new(Roles::parse([role])));
        LinkChange::Up(LinkEnds { roles, ..ends(peer) })
    };
    let mut config = config(&[A]);
    config.scope = Some("here".into());
    for (role, is_one) in [
        ("rserpool:registrar:here", true),
        ("rserpool:registrar:there", false),
        ("rserpool:element:*", false),
    ] {
        let mut bench = bench(config.clone());
        bench.resolve(1, "echo").forget();
        bench.feed(|client, now| client.handle_link(now, link(1), proved(A, role)));
        assert_eq!(bench.client.home().is_some(), is_one, "{role}");
        assert_eq!(bench.take().contains(&Seen::Close(link(1))), !is_one, "{role}");
        bench.feed(|client, now| client.handle_link(now, incoming(1), proved(B, role)));
        assert_eq!(bench.take().contains(&Seen::Close(incoming(1))), !is_one, "{role}");
    }
}
