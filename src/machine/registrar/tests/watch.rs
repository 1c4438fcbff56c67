//! How elements are watched: keep-alives, what others say of them, and whose fault a silence is.

use super::asap::{resolution, wait_answering};
use super::*;
use crate::wire::CauseCode;

#[test]
fn a_hung_process_is_noticed_within_two_seconds() {
    let mut bench = Bench::serving();
    let pe = bench.pe();
    bench.asap(pe, registration(1));
    bench.asap(pe, registration(2));
    assert_eq!(wait_answering(&mut bench, ms(20_000)), []);
    let effects: Vec<_> = bench
        .wait(ms(1900))
        .into_iter()
        .filter(|effect| !matches!(effect, Effect::Asap(_, Asap::EndpointKeepAlive { .. })))
        .collect();
    let reason = "no answer to keep-alive";
    assert_eq!(effects, [Close(pe), removed(1, reason), removed(2, reason)]);
}

#[test]
fn an_element_that_its_process_does_not_know_goes_alone() {
    let mut bench = Bench::serving();
    let pe = bench.pe();
    bench.asap(pe, registration(1));
    bench.asap(pe, registration(2));
    let mut left = Vec::new();
    for _ in 0..1000 {
        for effect in bench.wait(ms(10)) {
            match effect {
                Effect::Asap(link, Asap::EndpointKeepAlive { id: Some(PeId(1)), .. }) => {
                    left.extend(bench.asap(link, ack(1)))
                }
                Effect::Asap(_, Asap::EndpointKeepAlive { .. }) => {
                    // Something else comes from it.
                    bench.asap(pe, resolution(None, false));
                }
                other => left.push(other),
            }
        }
    }
    assert_eq!(left, [removed(2, "no answer to keep-alive"), out(pe, 2)]);
    assert_eq!(bench.content("echo"), [(1, SELF)]);
    // The process knew it, and was slow.
    assert_eq!(bench.asap(pe, ack(2)), [added(2)]);
    assert_eq!(bench.content("echo"), [(1, SELF), (2, SELF)]);
    assert_eq!(bench.asap(pe, ack(3)), [], "never heard of");
}

#[test]
fn who_slept_does_not_blame_others() {
    let mut bench = Bench::serving();
    let pe = bench.pe();
    bench.asap(pe, registration(1));
    let effects = bench.wait(ms(1125));
    assert_eq!(effects[0], keep_alive(pe, false, 1));
    // The machine was stopped for ten seconds.
    bench.now = bench.now + ms(10_000);
    bench.registrar.handle_timeout(bench.now);
    assert_eq!(bench.drain(), [keep_alive(pe, false, 1)]);
    assert_eq!(bench.asap(pe, ack(1)), []);
    assert_eq!(wait_answering(&mut bench, ms(5000)), []);
}

fn report(id: u32) -> Asap {
    Asap::EndpointUnreachable { handle: pool("echo"), id: PeId(id) }
}

/// What a process hears when an element of it is in its pool no longer.
fn out(link: LinkId, id: u32) -> Effect {
    let error = Some(CauseCode::UNSPECIFIED.into());
    Effect::Asap(link, Asap::DeregistrationResponse { handle: pool("echo"), id: PeId(id), error })
}

/// Users on three hosts, and a second one on the first of them.
fn users(bench: &mut Bench) -> [LinkId; 4] {
    ["10.0.0.66:1", "10.0.0.66:2", "10.0.0.67:1", "10.0.0.68:1"]
        .map(|host| bench.accept(Service::Asap, LinkProtocol::Tcp, host))
}

#[test]
fn an_answer_outweighs_what_others_say() {
    let mut bench = Bench::serving();
    let pe = bench.pe();
    bench.asap(pe, registration(1));
    bench.asap(pe, registration(2));
    let users = users(&mut bench);
    for _ in 0..10 {
        for user in users {
            assert_eq!(bench.asap(user, report(1)), [keep_alive(pe, false, 1)]);
            assert_eq!(bench.asap(pe, ack(1)), []);
        }
    }
    assert_eq!(bench.content("echo").len(), 2);
}

#[test]
fn reports_count_once_for_each_host_and_more_than_a_bad_link() {
    let mut bench = Bench::serving();
    let (pe, other) = (bench.pe(), bench.pe());
    bench.asap(pe, registration(1));
    bench.asap(other, registration(2));
    // Nothing comes through to the process for now.
    bench.ways.insert(pe, Measurement { unacknowledged: true, ..Measurement::default() });
    let [one, again, two, three] = users(&mut bench);
    assert_eq!(bench.asap(one, report(1)), [keep_alive(pe, false, 1)]);
    for user in [again, again, two] {
        assert_eq!(bench.asap(user, report(1)), []);
    }
    let others = |effects: Vec<Effect>| {
        let about = |effect: &Effect| matches!(effect, Effect::Asap(link, _) if *link != pe);
        effects.into_iter().filter(|effect| !about(effect)).collect::<Vec<_>>()
    };
    assert_eq!(others(bench.wait(ms(1000))), []);
    bench.asap(other, ack(2));
    assert_eq!(bench.asap(three, report(1)), []);
    assert_eq!(others(bench.wait(ms(20))), [Close(pe), removed(1, "reported unreachable")]);
}

#[test]
fn the_addresses_of_one_network_are_one_reporter() {
    let mut bench = Bench::serving();
    let (pe, other) = (bench.pe(), bench.pe());
    bench.asap(pe, registration(1));
    bench.asap(other, registration(2));
    bench.ways.insert(pe, Measurement { unacknowledged: true, ..Measurement::default() });
    // A host with as many addresses as it likes; then others.
    let one_host = ["[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8::3:4]:1", "[2001:db8:0:0:9::]:1"];
    let others = ["[2001:db8:0:1::1]:1", "[::ffff:192.0.2.1]:1"];
    let tell = |bench: &mut Bench, host: &str| {
        let user = bench.accept(Service::Asap, LinkProtocol::Tcp, host);
        bench.asap(user, report(1));
        bench.asap(other, ack(2));
    };
    for host in one_host {
        tell(&mut bench, host);
    }
    bench.wait(ms(1100));
    assert_eq!(bench.content("echo"), [(1, SELF), (2, SELF)]);
    for host in others {
        tell(&mut bench, host);
    }
    bench.wait(ms(20));
    assert_eq!(bench.content("echo"), [(2, SELF)]);
}

#[test]
fn the_last_element_of_a_pool_is_not_removed_for_what_others_say() {
    let mut bench = Bench::serving();
    let pe = bench.pe();
    bench.asap(pe, registration(1));
    bench.ways.insert(pe, Measurement { unacknowledged: true, ..Measurement::default() });
    for user in users(&mut bench) {
        bench.asap(user, report(1));
    }
    assert_eq!(bench.wait(ms(1500)), []);
    assert_eq!(bench.content("echo"), [(1, SELF)]);
}

#[test]
fn patience_follows_the_link() {
    let way = |round_trip, retransmissions, unacknowledged| Measurement {
        round_trip: Some(ms(round_trip)),
        retransmissions,
        unacknowledged,
    };
    // What the kernel said before, what it says when the answer is missing, and how long that may take.
    let cases: [(&[Measurement], Measurement, u64); 6] = [
        (&[way(1, 0, false)], way(1, 0, false), 750),
        (&[way(800, 0, false)], way(800, 0, false), 2400),
        (&[way(1, 0, false)], way(1, 0, true), 3000),
        (&[way(1, 0, false)], way(1, 1, false), 3000),
        (&[way(1, 0, false), way(1, 1, false)], way(1, 5, true), 3000),
        (&[way(1, 0, false), way(1, 1, false), way(1, 2, false)], way(1, 2, false), 10_000),
    ];
    for (before, now, patience) in cases {
        let mut bench = Bench::serving();
        let pe = bench.pe();
        bench.asap(pe, registration(1));
        for measured in before {
            bench.registrar.handle_measurement(bench.now, pe, *measured);
        }
        bench.ways.insert(pe, *before.last().expect("one"));
        bench.asap(pe, report(1));
        bench.ways.insert(pe, now);
        assert_eq!(bench.wait(ms(patience - 1)), [], "{before:?} {now:?}");
        let gone = [Close(pe), removed(1, "no answer to keep-alive")];
        assert_eq!(bench.wait(ms(20)), gone, "{before:?} {now:?}");
    }
}

/// Of a link that is new no loss is known; that the process gave up the one before it is one.
#[test]
fn who_comes_by_another_link_had_losses_on_the_one_before() {
    // Over which protocol, whether the link before it was given up while it was up, and how long an answer may take.
    let cases = [
        (LinkProtocol::Tcp, true, 3000),
        (LinkProtocol::Sctp, true, 10_000),
        (LinkProtocol::Tcp, false, 750),
        (LinkProtocol::Sctp, false, 750),
    ];
    for (protocol, up, patience) in cases {
        let mut bench = Bench::serving();
        let left = bench.accept(Service::Asap, protocol, "10.0.0.9:40000");
        for id in [1, 2] {
            bench.asap(left, registration(id));
        }
        if !up {
            bench.change(left, LinkChange::Down(LinkDown::Closed));
        }
        let pe = bench.accept(Service::Asap, protocol, "10.0.0.9:40001");
        for id in [1, 2] {
            bench.asap(pe, registration(id));
        }
        bench.asap(pe, report(1));
        let is_gone = |effects: Vec<Effect>| effects.contains(&removed(1, "no answer to keep-alive"));
        assert!(!is_gone(bench.wait(ms(patience - 20))), "{protocol:?} {up}");
        assert!(is_gone(bench.wait(ms(300))), "{protocol:?} {up}");
    }
}

/// Over SCTP a lost answer would come a second later, and shows by what arrives behind it.
#[test]
fn over_sctp_a_missing_answer_is_asked_for_again() {
    for (protocol, asked) in [(LinkProtocol::Sctp, [1, 1, 0]), (LinkProtocol::Tcp, [0, 0, 0])] {
        let mut bench = Bench::serving();
        let pe = bench.accept(Service::Asap, protocol, "10.0.0.9:40000");
        bench.asap(pe, registration(1));
        bench.asap(pe, report(1));
        let keep_alives = |effects: Vec<Effect>| {
            let is_one = |effect: &&Effect| matches!(effect, Effect::Asap(to, Asap::EndpointKeepAlive { .. }) if *to == pe);
            effects.iter().filter(is_one).count()
        };
        let seen = [251, 250, 240].map(|after| keep_alives(bench.wait(ms(after))));
        assert_eq!(seen, asked, "{protocol:?}");
        // What waits in our kernel behind the lost one.
        bench.ways.insert(pe, Measurement { unacknowledged: true, ..Measurement::default() });
        let again = keep_alives(bench.wait(ms(if protocol == LinkProtocol::Sctp { 9000 } else { 2200 })));
        assert_eq!(again > 5, protocol == LinkProtocol::Sctp, "{again}");
        assert!(bench.registrar.handlespace().find(&pool("echo"), PeId(1)).is_some());
        bench.ways.insert(pe, Measurement::default());
        let gone = bench.wait(ms(300));
        assert!(gone.ends_with(&[Close(pe), removed(1, "no answer to keep-alive")]), "{gone:?}");
    }
}

#[test]
fn a_process_hears_that_an_element_of_it_is_out() {
    let mut bench = Bench::serving();
    let pe = bench.pe();
    bench.asap(pe, registration(1));
    bench.asap(pe, registration(2));
    bench.asap(pe, report(1));
    bench.now = bench.now + ms(1);
    bench.asap(pe, resolution(None, false));
    let effects = bench.wait(ms(760));
    assert!(effects.ends_with(&[removed(1, "no answer to keep-alive"), out(pe, 1)]), "{effects:?}");
}

#[test]
fn a_reported_element_that_hangs_goes_after_the_timeout() {
    let mut bench = Bench::serving();
    let (pe, user) = (bench.pe(), bench.pe());
    bench.asap(pe, registration(1));
    bench.asap(user, Asap::EndpointUnreachable { handle: pool("echo"), id: PeId(1) });
    let effects = bench.wait(ms(750));
    assert_eq!(effects, [Close(pe), removed(1, "no answer to keep-alive")]);
}

#[test]
fn many_links_stretch_the_interval() {
    let (mut bench, _) = Bench::new(Config { max_keep_alives_per_second: 10, ..config() });
    for id in 1..=100 {
        let pe = bench.pe();
        bench.asap(pe, registration(id));
    }
    let before = bench.registrar.stats().keep_alives_sent;
    wait_answering(&mut bench, ms(20_000));
    let sent = bench.registrar.stats().keep_alives_sent - before;
    assert!((150..=300).contains(&sent), "{sent} in 20 s");
    assert_eq!(bench.content("echo").len(), 100);
}
