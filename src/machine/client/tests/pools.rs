//! Resolutions, subscriptions, reports.

use super::*;

impl Bench {
    fn unsubscribe(&mut self, pool: &str) -> &mut Bench {
        let handle = handle(pool);
        self.feed(|client, now| client.unsubscribe(now, &handle))
    }

    fn report(&mut self, pool: &str, id: u32) -> &mut Bench {
        let handle = handle(pool);
        self.feed(|client, now| client.report_unreachable(now, &handle, PeId(id)))
    }

    /// Lets time pass with a registrar that pushes `ids` and answers every sign-of-life question.
    fn alive_until(&mut self, ms: u64, link: LinkId, name: &str, ids: &[u32]) -> &mut Bench {
        while self.now < Time(ms * 1000) {
            self.at((self.now.0 / 1000 + 100).min(ms));
            if self.seen.contains(&Send(link, subscription(name))) {
                self.seen.retain(|one| *one != Send(link, subscription(name)));
                self.receive(link, pool(name, true, ids, &[], None));
                self.seen.retain(|one| !matches!(one, Seen::Event(Event::Pool { .. })));
            }
        }
        self
    }
}

impl Bench {
    fn watch(&mut self, pool: &str, id: u32, number: u64) -> &mut Bench {
        let handle = handle(pool);
        self.feed(|client, now| client.watch(now, &handle, PeId(id), number))
    }

    /// The watches that were told that their elements are gone.
    fn told(&mut self) -> Vec<u64> {
        let number = |one: &Seen| match one {
            Seen::Event(Event::WatchedGone { number }) => Some(*number),
            _ => None,
        };
        self.take().iter().filter_map(number).collect()
    }
}

#[test]
fn a_watch_is_told_when_its_element_is_lost_and_not_when_it_deregisters() {
    let mut bench = bench(config(&[A])).settled();
    bench.watch("echo", 1, 10).watch("echo", 2, 20).watch("echo", 2, 21);
    bench.receive(link(1), pool("echo", true, &[1, 2, 3], &[], None));
    assert_eq!(bench.told(), []);
    bench.receive(link(1), pool("echo", true, &[1, 3], &[2], None));
    assert_eq!(bench.told(), [20, 21]);
    // It comes, it goes.
    bench.receive(link(1), pool("echo", true, &[1, 2, 3], &[], None));
    bench.receive(link(1), pool("echo", true, &[1, 3], &[], None));
    assert_eq!(bench.told(), [20, 21]);
}

#[test]
fn a_watch_that_begins_too_late_is_told_once_the_pool_is_known() {
    let mut bench = bench(config(&[A])).settled();
    bench.watch("echo", 9, 1);
    // A registrar that was just started knows nothing.
    bench.receive(link(1), pool("echo", true, &[], &[], None));
    assert_eq!(bench.told(), []);
    bench.receive(link(1), pool("echo", true, &[1, 2], &[], None));
    assert_eq!(bench.told(), [1]);
    bench.watch("echo", 1, 2).watch("echo", 8, 3);
    assert_eq!(bench.told(), [3]);
}

#[test]
fn the_end_of_the_last_watch_ends_the_subscription() {
    let mut bench = bench(config(&[A])).settled();
    bench.watch("echo", 1, 1).watch("echo", 2, 2).receive(link(1), pool("echo", true, &[1, 2], &[], None));
    bench.forget();
    let echo = handle("echo");
    bench.feed(|client, now| client.unwatch(now, &echo, PeId(1), 1)).expect([]);
    bench.feed(|client, now| client.unwatch(now, &echo, PeId(1), 1)).expect([]);
    let unsubscribed = Seen::Event(Event::Unsubscribed { handle: echo.clone() });
    bench.feed(|client, now| client.unwatch(now, &echo, PeId(2), 2)).expect([unsubscribed]);
}

#[test]
fn those_who_share_ask_once_and_all_get_the_answer() {
    let mut bench = bench(config(&[A])).settled();
    let echo = handle("echo");
    let ask = |bench: &mut Bench, request, items, share| {
        bench.feed(|client, now| client.resolve(now, RequestId(request), &echo, items, share));
    };
    ask(&mut bench, 1, None, true);
    ask(&mut bench, 2, None, true);
    ask(&mut bench, 3, Some(7), true);
    ask(&mut bench, 4, None, false);
    let asked = bench.take().iter().filter(|one| matches!(one, Send(..))).count();
    assert_eq!(asked, 3);
    let requests = |bench: &mut Bench| match bench.take().pop() {
        Some(Seen::Event(Event::Resolved { requests, .. })) => requests,
        other => panic!("{other:?}"),
    };
    for expected in [vec![RequestId(1), RequestId(2)], vec![RequestId(3)], vec![RequestId(4)]] {
        bench.receive(link(1), pool("echo", false, &[1], &[], None));
        assert_eq!(requests(&mut bench), expected);
    }
    ask(&mut bench, 5, None, true);
    assert_eq!(bench.take().len(), 1, "answered questions are not shared");
}

fn unreachable(pool: &str, id: u32) -> Asap {
    Asap::EndpointUnreachable { handle: handle(pool), id: PeId(id) }
}

#[test]
fn answers_are_matched_by_handle_and_equal_questions_by_age() {
    let mut bench = bench(config(&[A])).settled();
    bench.resolve(1, "one").resolve(2, "two").resolve(3, "one").forget();
    bench.receive(link(1), pool("two", false, &[2], &[], None));
    bench.expect([is_resolved(2, "two", Ok(resolution(&[2], false, false)))]);
    bench.receive(link(1), pool("one", false, &[1], &[], None));
    bench.expect([is_resolved(1, "one", Ok(resolution(&[1], false, false)))]);
    bench.receive(link(1), unknown_pool("one"));
    bench.expect([is_resolved(3, "one", Err(rejected(CauseCode::UNKNOWN_POOL)))]);
    bench.receive(link(1), unknown_pool("one")).expect([]);
}

#[test]
fn an_answer_says_whether_it_is_complete() {
    let mut bench = bench(config(&[A])).settled();
    let mut ask = |items: Option<u32>, answer: Asap| {
        let handle = handle("echo");
        bench
            .feed(|client, now| client.resolve(now, RequestId(1), &handle, items, false))
            .receive(link(1), answer);
        match bench.take().pop() {
            Some(Seen::Event(Event::Resolved { result: Ok(resolution), .. })) => resolution.complete,
            other => panic!("{other:?}"),
        }
    };
    assert!(!ask(None, pool("echo", false, &[1, 2], &[], None)));
    assert!(!ask(Some(2), pool("echo", false, &[1, 2], &[], None)));
    assert!(ask(Some(3), pool("echo", false, &[1, 2], &[], None)));
    assert!(ask(Some(u32::MAX), pool("echo", false, &[1, 2], &[], None)));
    assert!(!ask(Some(u32::MAX), pool("echo", false, &[1, 2], &[], Some(3))));
    let many: Vec<u32> = (1..=128).collect();
    assert!(!ask(Some(u32::MAX), pool("echo", false, &many, &[], None)));
}

#[test]
fn a_subscription_is_pushed() {
    let mut bench = bench(config(&[A])).settled();
    bench.subscribe("echo").expect([Send(link(1), subscription("echo"))]);
    bench.receive(link(1), pool("echo", true, &[1, 2, 3], &[], None)).expect([is_pool(
        "echo",
        &[1, 2, 3],
        true,
        true,
    )]);
    // One says goodbye, of one the list tells.
    bench.receive(link(1), pool("echo", true, &[3], &[1], None));
    bench.expect([is_pool("echo", &[3], true, true), is_gone("echo", 1), is_gone("echo", 2)]);
    bench.receive(link(1), pool("echo", true, &[3], &[1, 9], None)).expect([is_pool(
        "echo",
        &[3],
        true,
        true,
    )]);
}

#[test]
fn who_retires_is_not_gone() {
    let retiring = |ids: &[u32], who: &[u32], total| {
        let mut message = pool("echo", true, ids, &[], total);
        if let Asap::HandleResolutionResponse { deregistered, .. } = &mut message {
            deregistered.extend(who.iter().map(|&id| PeId(id)));
        }
        message
    };
    let is_retired = |id| Seen::Event(Event::ElementRetired { handle: handle("echo"), id: PeId(id) });
    let mut bench = bench(config(&[A])).settled();
    bench.subscribe("echo").receive(link(1), pool("echo", true, &[1, 2, 3], &[], None)).forget();
    // 9 was never known, 2 is still there.
    bench.receive(link(1), retiring(&[2, 3], &[1, 2, 9], None));
    bench.expect([is_pool("echo", &[2, 3], true, true), is_retired(1)]);
    bench.receive(link(1), pool("echo", true, &[2, 3], &[], None)).expect([is_pool(
        "echo",
        &[2, 3],
        true,
        true,
    )]);
    bench.receive(link(1), retiring(&[3], &[2], Some(5)));
    bench.expect([is_pool("echo", &[3], false, true), is_retired(2)]);
}

#[test]
fn what_an_incomplete_listing_leaves_out_is_not_gone() {
    let mut bench = bench(config(&[A])).settled();
    bench.subscribe("echo").receive(link(1), pool("echo", true, &[1, 2], &[], Some(4))).forget();
    bench.receive(link(1), pool("echo", true, &[3, 4], &[], Some(4))).expect([is_pool(
        "echo",
        &[3, 4],
        false,
        true,
    )]);
    bench.receive(link(1), pool("echo", true, &[3, 4], &[1], Some(3)));
    bench.expect([is_pool("echo", &[3, 4], false, true), is_gone("echo", 1)]);
    bench.receive(link(1), pool("echo", true, &[3, 4], &[], None));
    bench.expect([is_pool("echo", &[3, 4], true, true), is_gone("echo", 2)]);
}

#[test]
fn a_pool_that_vanishes_takes_its_elements_along() {
    let mut bench = bench(config(&[A])).settled();
    bench.subscribe("echo").receive(link(1), pool("echo", true, &[1], &[], None)).forget();
    bench.receive(link(1), pool("echo", true, &[], &[1], None));
    let empty = Event::Pool {
        handle: handle("echo"),
        resolution: Resolution {
            policy: Some(Policy::RoundRobin),
            elements: vec![],
            complete: true,
            subscribed: true,
        },
    };
    bench.expect([Seen::Event(empty), is_gone("echo", 1)]);
}

#[test]
fn subscribers_are_counted() {
    let mut bench = bench(config(&[A])).settled();
    bench.subscribe("echo").subscribe("echo").expect([Send(link(1), subscription("echo"))]);
    bench.receive(link(1), pool("echo", true, &[1], &[], None)).forget();
    bench.unsubscribe("echo").receive(link(1), pool("echo", true, &[1, 2], &[], None));
    bench.expect([is_pool("echo", &[1, 2], true, true)]);
    bench.unsubscribe("echo").receive(link(1), pool("echo", true, &[1], &[2], None));
    bench.expect([Seen::Event(Event::Unsubscribed { handle: handle("echo") })]);
    // Nobody came back: the registrar is told, by a question without the flag.
    bench.at(4_999).expect([]);
    let end = Asap::HandleResolution { subscribe: false, handle: handle("echo"), items: Some(1) };
    bench.at(5_000).expect([Send(link(1), end)]);
    bench.receive(link(1), pool("echo", false, &[1], &[], None)).at(60_000).expect([]);
    bench.unsubscribe("echo").expect([]);
}

#[test]
fn a_subscriber_that_comes_back_in_time_gets_the_pool_at_once() {
    let mut bench = bench(config(&[A])).settled();
    bench
        .subscribe("echo")
        .receive(link(1), pool("echo", true, &[1], &[], None))
        .unsubscribe("echo")
        .forget();
    bench.at(1_000).subscribe("echo").expect([Send(link(1), subscription("echo"))]);
    bench.receive(link(1), pool("echo", true, &[1], &[], None)).expect([is_pool("echo", &[1], true, true)]);
    bench.alive_until(20_000, link(1), "echo", &[1]).expect([]);
}

#[test]
fn a_resolution_keeps_the_subscription() {
    let mut bench = bench(config(&[A])).settled();
    bench.subscribe("echo").receive(link(1), pool("echo", true, &[1], &[], None)).forget();
    bench.resolve(5, "echo").expect([Send(link(1), subscription("echo"))]);
    bench.receive(link(1), pool("echo", true, &[1, 2], &[], None));
    bench.expect([
        is_pool("echo", &[1, 2], true, true),
        is_resolved(5, "echo", Ok(resolution(&[1, 2], true, true))),
    ]);
}

#[test]
fn a_registrar_that_does_not_push_is_polled_quietly() {
    let mut bench = bench(config(&[A])).settled();
    bench.subscribe("echo").receive(link(1), pool("echo", false, &[1, 2], &[], None)).forget();
    bench.at(999).expect([]);
    bench.at(1_000).expect([Send(link(1), subscription("echo"))]);
    bench.receive(link(1), pool("echo", false, &[1], &[], None));
    bench.expect([is_pool("echo", &[1], true, false), is_gone("echo", 2)]);
    bench.at(2_000).expect([Send(link(1), subscription("echo"))]);
    bench.receive(link(1), unknown_pool("echo"));
    // It may have forgotten the pool for a while; with nobody else to go to, the session stays.
    bench.expect([]);
    bench.at(3_000).expect([Send(link(1), subscription("echo"))]);
    bench.receive(link(1), pool("echo", false, &[2], &[], None));
    bench.expect([is_pool("echo", &[2], true, false), is_gone("echo", 1)]);
    bench.at(4_000).expect([Send(link(1), subscription("echo"))]);
    bench.unsubscribe("echo").at(10_000);
    assert!(!bench.take().iter().any(|one| matches!(one, Send(..))));
}

#[test]
fn a_new_home_is_asked_again_and_given_time_to_know_all() {
    let mut bench = bench(config(&[A])).settled();
    bench.subscribe("echo").receive(link(1), pool("echo", true, &[1, 2, 3], &[], None)).at(2_000).forget();
    bench.down(link(1), LinkDown::Broken).up(link(2), A);
    bench.expect([no_home(), Open(link(2), tcp(A)), home(0, link(2)), Send(link(2), subscription("echo"))]);
    // The restarted registrar has heard of one element so far.
    bench.receive(link(2), pool("echo", true, &[1], &[], None)).expect([is_pool("echo", &[1], true, true)]);
    bench.receive(link(2), pool("echo", true, &[1, 2], &[], None)).expect([is_pool(
        "echo",
        &[1, 2],
        true,
        true,
    )]);
    // What it says left is gone even so.
    bench.receive(link(2), pool("echo", true, &[1], &[2], None));
    bench.expect([is_pool("echo", &[1], true, true), is_gone("echo", 2)]);
    bench.alive_until(11_900, link(2), "echo", &[1]).expect([]);
    bench.alive_until(12_000, link(2), "echo", &[1]).expect([is_gone("echo", 3)]);
}

#[test]
fn a_registrar_that_withdraws_the_subscription_with_an_error_proves_nothing_at_once() {
    let mut bench = bench(config(&[A])).settled();
    bench.subscribe("echo").receive(link(1), pool("echo", true, &[1], &[], None)).resolve(5, "echo").forget();
    bench.receive(link(1), unknown_pool("echo"));
    assert!(!bench.take().contains(&is_gone("echo", 1)));
    bench.at(1_000).expect([Send(link(1), subscription("echo"))]);
    bench.receive(link(1), pool("echo", true, &[1], &[], None)).expect([is_pool("echo", &[1], true, true)]);
    bench.alive_until(30_000, link(1), "echo", &[1]).expect([]);
}

#[test]
fn a_pool_that_does_not_exist_yet_may_be_subscribed() {
    let mut bench = bench(config(&[A])).settled();
    let not_yet = Asap::HandleResolutionResponse {
        subscribed: true,
        handle: handle("echo"),
        error: Some(CauseCode::UNKNOWN_POOL.into()),
        policy: None,
        elements: vec![],
        total: None,
        lost: vec![],
        deregistered: vec![],
    };
    bench.subscribe("echo").receive(link(1), not_yet).forget().at(2_000).expect([]);
    bench.receive(link(1), pool("echo", true, &[1], &[], None)).expect([is_pool("echo", &[1], true, true)]);
}

#[test]
fn an_element_that_shows_up_in_time_was_never_gone() {
    let mut bench = bench(config(&[A])).settled();
    bench.subscribe("echo").receive(link(1), pool("echo", true, &[1], &[], None)).at(2_000);
    bench.down(link(1), LinkDown::Broken).up(link(2), A);
    bench
        .receive(link(2), unknown_pool("echo"))
        .receive(link(2), pool("echo", true, &[1], &[], None))
        .forget();
    bench.alive_until(20_000, link(2), "echo", &[1]);
    assert!(!bench.take().contains(&is_gone("echo", 1)));
}

#[test]
fn a_registrar_that_hangs_while_nobody_asks_is_noticed() {
    let mut bench = bench(config(&[A, B])).settled();
    bench.subscribe("echo").receive(link(1), pool("echo", true, &[1], &[], None)).forget();
    while bench.seen.is_empty() {
        bench.at(bench.now.0 / 1000 + 1);
    }
    let asked = bench.now.0 / 1000;
    assert!((2_250..=3_751).contains(&asked), "{asked}");
    bench.expect([Send(link(1), subscription("echo"))]).at(asked + 1_000);
    let other = match &bench.take()[..] {
        [Open(LinkId(2), other)] => other.addresses[0].to_string(),
        other => panic!("{other:?}"),
    };
    bench.up(link(2), &other).at(asked + 2_000);
    bench.expect([home(0, link(2)), Send(link(2), subscription("echo")), Close(link(1))]);
}

#[test]
fn reports_are_limited_and_one_event_is_one_report() {
    let mut bench = bench(config(&[A])).settled();
    let reported = |bench: &mut Bench| {
        let is_report = |seen: &&Seen| matches!(seen, Send(_, Asap::EndpointUnreachable { .. }));
        bench.take().iter().filter(is_report).count()
    };
    // Whatever many sessions say of one element within a second is one report.
    for _ in 0..50 {
        bench.report("echo", 1);
    }
    assert_eq!(reported(&mut bench), 1);
    bench.at(1100).report("echo", 1);
    assert_eq!(reported(&mut bench), 1);
    // Of a flood a second's worth goes at once, then so much a second; what is 10 s old is of no use.
    bench.at(2500);
    for id in 10..5010 {
        bench.report("echo", id);
    }
    assert_eq!(reported(&mut bench), 100);
    bench.at(3500);
    let second = reported(&mut bench);
    assert!((80..=110).contains(&second), "{second} in a second");
    bench.at(15_000);
    let rest = reported(&mut bench);
    assert!((750..=1000).contains(&rest), "{rest}");
    bench.at(17_000);
    assert_eq!(reported(&mut bench), 0);
}

#[test]
fn reports_are_sent_at_once_or_when_there_is_a_registrar() {
    let mut bench = bench(config(&[A]));
    bench.report("echo", 1).report("echo", 2).report("echo", 1).expect([Open(link(1), tcp(A))]);
    bench.up(link(1), A).expect([
        home(0, link(1)),
        Send(link(1), unreachable("echo", 1)),
        Send(link(1), unreachable("echo", 2)),
    ]);
    bench.report("echo", 3).expect([Send(link(1), unreachable("echo", 3))]);
}

#[test]
fn old_reports_are_dropped_and_their_number_is_bounded() {
    let mut bench = bench(config(&[A]));
    for id in 0..2_000 {
        bench.report("echo", id + 1);
    }
    bench.forget().up(link(1), A);
    // A second's worth, and what is left of 1024 as time permits.
    assert_eq!(bench.take().len(), 1 + 100);
    bench.at(9_500);
    let later = bench.take().len();
    assert!((800..=924).contains(&later), "{later}");
    bench.down(link(1), LinkDown::Broken).down(link(2), LinkDown::Refused);
    bench.report("echo", 7).at(20_500).forget();
    // Nothing left to ask: no more dials.
    bench.at(60_000).expect([]);
}

#[test]
fn addresses_that_mean_every_host_are_left_out() {
    let with = |id: u32, addresses: &[&str]| {
        let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        let transport = Transport::new(Protocol::Tcp, TransportUse::DataPlusControl, 7, addresses);
        PoolElement { transport, ..element(id) }
    };
    let answer = |elements| Asap::HandleResolutionResponse {
        subscribed: false,
        handle: handle("echo"),
        error: None,
        policy: None,
        elements,
        total: None,
        lost: Vec::new(),
        deregistered: Vec::new(),
    };
    let told = vec![
        with(1, &["127.0.0.1"]),
        with(2, &["0.0.0.0"]),
        with(3, &["224.0.0.1", "255.255.255.255", "::1"]),
        with(4, &["127.0.0.1", "10.1.1.4"]),
    ];
    let found = |bench: &mut Bench| match bench.take().pop() {
        Some(Seen::Event(Event::Resolved { result: Ok(resolution), .. })) => resolution.elements,
        other => panic!("{other:?}"),
    };
    let mut far = bench(config(&[A])).settled();
    far.resolve(1, "echo").receive(link(1), answer(told.clone()));
    assert_eq!(found(&mut far), [with(4, &["10.1.1.4"])]);
    // On one host, its loopback addresses are what is meant.
    let mut near = bench(config(&["127.0.0.1:3863"]));
    near.resolve(999, "warm-up")
        .up(link(1), "127.0.0.1:3863")
        .receive(link(1), unknown_pool("warm-up"))
        .forget();
    near.resolve(1, "echo").receive(link(1), answer(told));
    let expected = [with(1, &["127.0.0.1"]), with(3, &["::1"]), with(4, &["127.0.0.1", "10.1.1.4"])];
    assert_eq!(found(&mut near), expected);
}
