//! Silence, moves, takeovers, strangers.

use super::*;

/// Both registrars known, the first one home by link 1 (whichever chance made it).
fn settled_with_two() -> Bench {
    bench(config(&[A, B])).settled()
}

#[test]
fn requests_wait_for_the_link_and_go_out_in_order() {
    let mut bench = bench(config(&[A]));
    bench.resolve(1, "one").register(2, registration("echo", 7)).resolve(3, "two").forget();
    bench.up(link(1), A).expect([
        home(0, link(1)),
        Send(link(1), question("one")),
        Send(link(1), register("echo", 7)),
        Send(link(1), question("two")),
    ]);
}

#[test]
fn unanswered_requests_are_sent_again_on_the_next_link() {
    let mut bench = bench(config(&[A])).settled();
    bench.at(5_000).resolve(1, "one").resolve(2, "two").forget();
    bench.receive(link(1), unknown_pool("one")).forget();
    bench.down(link(1), LinkDown::Broken).expect([no_home(), Open(link(2), tcp(A))]);
    bench.up(link(2), A).expect([home(0, link(2)), Send(link(2), question("two"))]);
    bench.receive(link(2), pool("two", false, &[1, 2], &[], None));
    bench.expect([is_resolved(2, "two", Ok(resolution(&[1, 2], false, false)))]);
}

#[test]
fn a_hung_registrar_costs_less_than_one_response_timeout() {
    let mut bench = settled_with_two();
    bench.at(10_000).resolve(1, "echo").expect([Send(link(1), question("echo"))]);
    bench.at(10_999).expect([]);
    bench.at(11_000);
    let seen = bench.take();
    assert!(matches!(seen[..], [Open(LinkId(2), _)]), "{seen:?}");
    bench.at(11_500).up(link(2), B).expect([]);
    bench.at(12_000).expect([home(0, link(2)), Send(link(2), question("echo")), Close(link(1))]);
    bench.receive(link(2), pool("echo", false, &[1], &[], None));
    bench.expect([is_resolved(1, "echo", Ok(resolution(&[1], false, false)))]);
}

#[test]
fn the_spare_is_closed_when_the_home_answers_after_all() {
    let mut bench = settled_with_two();
    bench.at(10_000).resolve(1, "echo").at(11_000).up(link(2), B).forget();
    bench.receive(link(1), unknown_pool("echo"));
    let error = Err(rejected(CauseCode::UNKNOWN_POOL));
    bench.expect([Close(link(2)), is_resolved(1, "echo", error)]);
    bench.at(30_000).expect([]);
}

#[test]
fn a_spare_steps_in_when_the_home_breaks() {
    let mut bench = settled_with_two();
    bench.at(10_000).resolve(1, "echo").at(11_000).up(link(2), B).forget();
    bench.down(link(1), LinkDown::Broken).expect([home(0, link(2)), Send(link(2), question("echo"))]);
}

#[test]
fn with_one_hung_registrar_a_request_times_out_and_the_hunt_goes_on_for_the_rest() {
    let mut bench = bench(config(&[A])).settled();
    bench.at(10_000).resolve(1, "one").at(11_500).resolve(2, "two").forget();
    bench.at(13_000).expect([
        Close(link(1)),
        no_home(),
        Open(link(2), tcp(A)),
        is_resolved(1, "one", Err(RequestError::TimedOut)),
    ]);
    bench.up(link(2), A).expect([home(0, link(2)), Send(link(2), question("two"))]);
    bench.receive(link(2), unknown_pool("two"));
    bench.expect([is_resolved(2, "two", Err(rejected(CauseCode::UNKNOWN_POOL)))]);
}

#[test]
fn more_trials_mean_more_transmissions() {
    let mut config = config(&[A]);
    config.request_max_trials = 2;
    let mut bench = bench(config).settled();
    bench.at(10_000).resolve(1, "one").forget();
    bench.at(13_000).expect([Close(link(1)), no_home(), Open(link(2), tcp(A))]);
    bench.up(link(2), A).expect([home(0, link(2)), Send(link(2), question("one"))]);
    bench.at(16_000);
    assert!(bench.take().contains(&is_resolved(1, "one", Err(RequestError::TimedOut))));
}

#[test]
fn a_timeout_at_one_registrar_does_not_fail_a_request_that_another_answers() {
    // The other is slow to connect: the time-out comes first.
    let mut bench = settled_with_two();
    bench.at(10_000).resolve(1, "echo").at(13_000);
    let seen = bench.take();
    let other = match &seen[..] {
        [Send(..), Open(LinkId(2), other), Close(LinkId(1)), event, Open(LinkId(3), again)]
            if *event == no_home() && other == again =>
        {
            other.clone()
        }
        other => panic!("{other:?}"),
    };
    // The one that hangs is there first, but the other's dial goes on.
    bench.at(13_300);
    assert!(matches!(&bench.take()[..], [Open(LinkId(4), hung)] if *hung != other));
    bench.up(link(4), A).expect([home(0, link(4)), Send(link(4), question("echo"))]);
    bench.at(15_000).up(link(2), &other.addresses[0].to_string()).expect([Close(link(3))]);
    bench.at(15_300).expect([home(0, link(2)), Send(link(2), question("echo")), Close(link(4))]);
}

#[test]
fn a_registrar_that_answers_all_but_one_question_is_kept() {
    let mut bench = settled_with_two();
    bench.at(10_000).resolve(1, "odd").resolve(2, "even").receive(link(1), unknown_pool("even")).forget();
    bench.at(13_000);
    assert!(!bench.seen.contains(&Close(link(1))));
    assert_eq!(bench.seen.last(), Some(&is_resolved(1, "odd", Err(RequestError::TimedOut))));
}

#[test]
fn a_slow_registrar_that_keeps_answering_is_kept() {
    let mut bench = settled_with_two();
    bench.at(10_000);
    for request in 0..10 {
        bench.resolve(request, &format!("pool{request}"));
    }
    for request in 0..10 {
        bench.at(10_900 + request * 900).receive(link(1), unknown_pool(&format!("pool{request}")));
    }
    assert!(!bench.seen.iter().any(|one| matches!(one, Close(_) | Open(..))), "{:?}", bench.seen);
}

#[test]
fn an_asap_error_ends_the_oldest_request_and_keeps_the_link() {
    let mut bench = bench(config(&[A])).settled();
    bench.resolve(1, "one").resolve(2, "two").forget();
    let error = Asap::Error { error: CauseCode::UNRECOGNIZED_MESSAGE.into() };
    bench.receive(link(1), error.clone());
    bench.expect([is_resolved(1, "one", Err(rejected(CauseCode::UNRECOGNIZED_MESSAGE)))]);
    bench.receive(link(1), unknown_pool("two")).receive(link(1), error);
    bench.expect([is_resolved(2, "two", Err(rejected(CauseCode::UNKNOWN_POOL)))]);
}

#[test]
fn a_report_of_a_skipped_parameter_ends_nothing() {
    let mut bench = bench(config(&[A])).settled();
    bench.resolve(1, "one").forget();
    let cause = crate::wire::Cause { code: CauseCode::UNRECOGNIZED_PARAMETER, data: vec![0xc0, 0x3f, 0, 4] };
    bench.receive(link(1), Asap::Error { error: OperationError(vec![cause]) }).expect([]);
    bench.receive(link(1), unknown_pool("one"));
    bench.expect([is_resolved(1, "one", Err(rejected(CauseCode::UNKNOWN_POOL)))]);
}

#[test]
fn unexpected_messages_are_ignored() {
    let mut bench = bench(config(&[A])).settled();
    for message in [
        registered("echo", 7),
        deregistered("echo", 7),
        unknown_pool("echo"),
        pool("echo", true, &[1], &[], None),
        keep_alive(true, 5, "echo", Some(7)),
        keep_alive(false, 5, "echo", None),
        Asap::Cookie { cookie: vec![1] },
        question("echo"),
    ] {
        bench.receive(link(1), message).expect([]);
    }
    let cause = crate::wire::Cause { code: CauseCode::INVALID_VALUES, data: vec![1, 2, 3] };
    let complaint = Asap::Error { error: OperationError(vec![cause]) };
    bench
        .feed(|client, now| client.handle_message(now, link(1), &[1, 2, 3]))
        .expect([Send(link(1), complaint)]);
    bench.feed(|client, now| client.handle_message(now, link(77), &unknown_pool("x").encode())).expect([]);
    assert_eq!(bench.client.home(), Some(RegistrarId(0)));
}

#[test]
fn the_registrar_id_is_learned_from_an_announcement_or_a_keep_alive() {
    let mut bench = bench(config(&[A])).settled();
    let announced = vec![Transport::new(Protocol::Tcp, TransportUse::DataOnly, 3863, vec![address(A).ip()])];
    bench.hear("10.0.0.1:3863", 11, announced).expect([home(11, link(1))]);
    bench.register(1, registration("echo", 7)).forget();
    bench.receive(link(1), keep_alive(false, 12, "echo", Some(7)));
    bench.expect([Send(link(1), ack("echo", 7)), home(12, link(1))]);
    assert_eq!(bench.client.home(), Some(RegistrarId(12)));
}

#[test]
fn keep_alives_are_answered_during_a_hunt() {
    let mut bench = bench(config(&[A])).settled();
    bench.register(1, registration("echo", 7)).register(2, registration("echo", 9));
    bench.down(link(1), LinkDown::Broken).up(incoming(1), B).forget();
    bench
        .receive(incoming(1), keep_alive(false, 2, "echo", Some(7)))
        .expect([Send(incoming(1), ack("echo", 7))]);
    bench.receive(incoming(1), keep_alive(false, 2, "echo", None));
    bench.expect([Send(incoming(1), ack("echo", 7)), Send(incoming(1), ack("echo", 9))]);
    bench.receive(incoming(1), keep_alive(false, 2, "echo", Some(8))).expect([]);
    assert_eq!(bench.client.home(), None);
}

#[test]
fn a_takeover_makes_the_caller_the_home_for_everything() {
    let mut bench = settled_with_two();
    bench.register(1, registration("echo", 7)).register(2, registration("time", 8)).subscribe("other");
    bench.receive(link(1), registered("echo", 7)).receive(link(1), registered("time", 8));
    bench.receive(link(1), pool("other", true, &[], &[], None));
    // The home owes an answer, so that it need not be asked whether it lives.
    bench.at(1_000).resolve(3, "more").at(1_600).up(incoming(1), C).forget();
    bench.receive(incoming(1), keep_alive(true, 3, "echo", Some(7)));
    let at_home = |message| match message {
        Asap::Registration { handle, mut element } => {
            element.home = RegistrarId(3);
            Send(incoming(1), Asap::Registration { handle, element })
        }
        other => Send(incoming(1), other),
    };
    bench.expect([
        Send(incoming(1), ack("echo", 7)),
        home(3, incoming(1)),
        at_home(question("more")),
        at_home(register("echo", 7)),
        at_home(register("time", 8)),
        at_home(subscription("other")),
    ]);
    // The old link stays until both are registered: its registrar takes them for dead when it goes.
    bench.receive(incoming(1), registered("echo", 7)).expect([]);
    bench.receive(incoming(1), registered("time", 8)).expect([Close(link(1))]);
    assert_eq!(bench.client.home(), Some(RegistrarId(3)));
}

#[test]
fn a_replaced_home_does_not_stay_for_long() {
    let mut bench = settled_with_two();
    bench.register(1, registration("echo", 7)).receive(link(1), registered("echo", 7)).up(incoming(1), C);
    bench.at(1).receive(incoming(1), keep_alive(true, 3, "echo", None)).at(501).forget();
    bench.at(1_500).expect([]);
    bench.at(1_501);
    assert_eq!(bench.take()[0], Close(link(1)));
}

/// An element at home, and somebody who found the port at which its process listens for registrars.
fn with_a_suitor() -> Bench {
    let mut bench = bench(config(&[A])).settled();
    bench.register(1, registration("echo", 7)).receive(link(1), registered("echo", 7)).up(incoming(1), C);
    bench.at(3_000).forget();
    bench
}

#[test]
fn nobody_takes_the_place_of_a_home_that_answers() {
    let mut bench = with_a_suitor();
    bench.receive(incoming(1), keep_alive(true, 66, "echo", Some(7)));
    // Not even an answer, which would make the element its own.
    bench.expect([Send(link(1), register("echo", 7))]);
    bench.at(3_100).receive(link(1), registered("echo", 7)).at(3_500).expect([]);
    assert_eq!(bench.client.home(), Some(RegistrarId(0)));
    // However often it says so, one question at a time.
    for _ in 0..100 {
        bench.receive(incoming(1), keep_alive(true, 66, "echo", Some(7)));
    }
    bench.expect([Send(link(1), register("echo", 7))]);
    bench.receive(link(1), keep_alive(false, 0, "echo", Some(7)));
    bench.expect([Send(link(1), ack("echo", 7))]);
    bench.at(4_000).expect([]);
    assert_eq!(bench.client.home(), Some(RegistrarId(0)));
    bench.at(5_000);
    assert!(bench.take().contains(&Close(incoming(1))));
}

/// A process that has no time looks late at what came in time.
#[test]
fn a_home_that_answered_keeps_its_place_however_late_that_is_looked_at() {
    let mut bench = with_a_suitor();
    bench.receive(incoming(1), keep_alive(true, 66, "echo", Some(7))).forget();
    bench.at(3_001).receive(link(1), registered("echo", 7));
    bench.feed(|client, _| client.handle_timeout(Time(3_700_000))).expect([]);
    assert_eq!(bench.client.home(), Some(RegistrarId(0)));
}

#[test]
fn who_wants_the_place_of_a_home_that_is_silent_or_gone_has_it() {
    let mut bench = with_a_suitor();
    bench.receive(incoming(1), keep_alive(true, 3, "echo", Some(7))).forget();
    bench.at(3_499).expect([]);
    bench.at(3_500);
    assert_eq!(bench.take()[..2], [Send(incoming(1), ack("echo", 7)), home(3, incoming(1))]);
    // At once when the home's link breaks meanwhile.
    let mut bench = with_a_suitor();
    bench.receive(incoming(1), keep_alive(true, 3, "echo", Some(7))).forget();
    bench.at(3_100).down(link(1), LinkDown::Broken);
    assert_eq!(bench.take()[..3], [no_home(), Send(incoming(1), ack("echo", 7)), home(3, incoming(1))]);
    assert_eq!(bench.client.home(), Some(RegistrarId(3)));
}

#[test]
fn a_call_from_the_home_itself_changes_nothing_but_registers_again() {
    let mut bench = bench(config(&[A])).settled();
    bench.register(1, registration("echo", 7)).receive(link(1), registered("echo", 7));
    bench.receive(link(1), keep_alive(false, 5, "echo", Some(7))).up(incoming(1), A).forget();
    bench.receive(incoming(1), keep_alive(true, 5, "echo", Some(7)));
    let Asap::Registration { handle, mut element } = register("echo", 7) else { unreachable!() };
    element.home = RegistrarId(5);
    bench.expect([Send(incoming(1), ack("echo", 7)), Send(link(1), Asap::Registration { handle, element })]);
}

#[test]
fn a_stranger_is_not_believed() {
    let mut bench = bench(config(&[A]));
    bench.register(1, registration("echo", 7)).resolve(2, "one").up(incoming(1), C).forget();
    for message in [
        pool("one", false, &[66], &[], None),
        registered("echo", 7),
        keep_alive(true, 66, "another", None),
        keep_alive(true, 66, "echo", Some(8)),
    ] {
        bench.receive(incoming(1), message).expect([]);
    }
    assert_eq!(bench.client.home(), None);
    bench.at(4_999).forget();
    bench.at(5_000).expect([Close(incoming(1))]);
}

#[test]
fn a_stranger_that_sends_garbage_is_closed() {
    let mut bench = bench(config(&[A]));
    bench.up(incoming(1), C).feed(|client, now| client.handle_message(now, incoming(1), &[0xff; 16]));
    bench.expect([Close(incoming(1))]);
}

#[test]
fn strangers_are_counted_and_the_oldest_leaves() {
    let mut bench = bench(config(&[A]));
    bench.register(1, registration("echo", 7));
    for number in 0..16 {
        bench.up(incoming(number), C);
        // Whoever asked a registrar for the pool can name an element.
        bench.receive(incoming(number), keep_alive(false, 3, "echo", Some(7)));
    }
    for number in 16..40 {
        bench.forget().up(incoming(number), C).expect([Close(incoming(number - 16))]);
        bench.receive(incoming(number), keep_alive(false, 3, "echo", Some(7)));
        bench.expect([Send(incoming(number), ack("echo", 7))]);
    }
}

/// Sixteen hosts, each with a link that named an element of ours.
fn with_strangers_of_many_hosts(registrars: &[&str]) -> Bench {
    let mut bench = bench(config(registrars));
    bench.register(1, registration("echo", 7));
    for number in 0..16 {
        bench.up(incoming(number), &format!("10.7.0.{number}:9"));
        bench.receive(incoming(number), keep_alive(false, 3, "echo", Some(7)));
    }
    bench.forget();
    bench
}

/// A registrar that took over need not be one that we know.
#[test]
fn strangers_of_many_hosts_leave_a_place_for_anothers() {
    let mut bench = with_strangers_of_many_hosts(&[A]);
    bench.up(incoming(16), D).expect([Close(incoming(0))]);
    bench.receive(incoming(16), keep_alive(true, 5, "echo", Some(7)));
    assert_eq!(bench.take()[0], Send(incoming(16), ack("echo", 7)));
    assert_eq!(bench.client.home(), Some(RegistrarId(5)));
}

/// It stays while the home is asked, and others come.
#[test]
fn who_wants_to_be_the_home_keeps_its_place_until_that_is_decided() {
    let mut bench = with_a_suitor();
    bench.receive(incoming(1), keep_alive(true, 3, "echo", Some(7))).forget();
    for number in 2..60 {
        bench.up(incoming(number), &format!("10.7.0.{number}:9"));
        bench.receive(incoming(number), keep_alive(false, 3, "echo", Some(7)));
    }
    assert!(!bench.take().contains(&Close(incoming(1))));
    bench.at(3_600);
    assert_eq!(bench.client.home(), Some(RegistrarId(3)));
}

/// Static, announced, or where the home is: its host has a place, whoever else has taken all, also when many links
/// come from its own.
#[test]
fn a_registrar_that_we_know_finds_a_place_and_keeps_it() {
    let announced = |bench: &mut Bench| {
        bench.hear("10.0.0.4:3863", 5, vec![]);
    };
    for (registrars, told) in [(&[A, D][..], false), (&[A][..], true)] {
        let mut bench = with_strangers_of_many_hosts(registrars);
        if told {
            announced(&mut bench);
        }
        bench.forget().up(incoming(16), "10.0.0.4:50000").expect([Close(incoming(0))]);
        for number in 17..80 {
            bench.up(incoming(number), &format!("10.8.0.{number}:9"));
            bench.receive(incoming(number), keep_alive(true, 3, "other", Some(7)));
        }
        assert!(!bench.take().contains(&Close(incoming(16))));
        bench.receive(incoming(16), keep_alive(false, 5, "echo", Some(7)));
        bench.expect([Send(incoming(16), ack("echo", 7))]);
    }
    // Where the home is: all strangers are of one network of IPv6, and court.
    let mut bench = bench(config(&[A])).settled();
    bench.register(1, registration("echo", 7)).receive(link(1), registered("echo", 7)).forget();
    for number in 0..16 {
        bench.up(incoming(number), &format!("[2001:db8::{number:x}]:9"));
        bench.receive(incoming(number), keep_alive(true, 3, "echo", Some(7)));
    }
    bench.forget().up(incoming(16), "10.0.0.1:50000").expect([Close(incoming(0))]);
    // That host has as many in the end, and no more.
    for number in 17..40 {
        bench.up(incoming(number), "10.0.0.1:50000");
    }
    let closed = bench.take();
    assert_eq!(closed[..8], [1, 2, 3, 4, 5, 6, 7, 16].map(|number| Close(incoming(number))));
    assert_eq!(closed.len(), 23, "{closed:?}");
    bench.up(incoming(40), D);
    assert!(matches!(bench.take()[..], [Close(leaver)] if leaver >= incoming(16)));
}

/// However many links one host opens, and whatever they name: a registrar of another one has a place and keeps it.
#[test]
fn strangers_of_one_host_leave_a_place_for_anothers() {
    let mut bench = bench(config(&[A]));
    bench.register(1, registration("echo", 7));
    for number in 0..16 {
        bench.up(incoming(number), C);
        bench.receive(incoming(number), keep_alive(false, 3, "echo", Some(7)));
    }
    bench.forget().up(incoming(16), B).expect([Close(incoming(0))]);
    for number in 17..40 {
        bench.up(incoming(number), C);
    }
    let closed = bench.take();
    assert!(closed.len() == 23 && !closed.contains(&Close(incoming(16))), "{closed:?}");
    bench.receive(incoming(16), keep_alive(false, 5, "echo", Some(7)));
    bench.expect([Send(incoming(16), ack("echo", 7))]);
}

#[test]
fn shutdown_deregisters_and_closes() {
    let mut bench = bench(config(&[A])).settled();
    bench.register(1, registration("echo", 7)).receive(link(1), registered("echo", 7)).resolve(2, "one");
    bench.subscribe("other").up(incoming(1), C).forget();
    bench.feed(|client, now| client.shutdown(now, Duration::from_secs(1)));
    bench.expect([is_resolved(2, "one", Err(RequestError::Shutdown)), Send(link(1), deregister("echo", 7))]);
    assert!(!bench.client.is_shut_down());
    bench.resolve(3, "one").expect([is_resolved(3, "one", Err(RequestError::Shutdown))]);
    bench.receive(link(1), deregistered("echo", 7));
    bench.expect([Close(incoming(1)), Close(link(1)), no_home()]);
    assert!(bench.client.is_shut_down());
    assert_eq!(bench.client.poll_timeout(), None);
}

#[test]
fn shutdown_does_not_wait_longer_than_told() {
    let mut bench = bench(config(&[A])).settled();
    bench.register(1, registration("echo", 7)).receive(link(1), registered("echo", 7)).forget();
    bench.feed(|client, now| client.shutdown(now, Duration::from_millis(500)));
    bench.expect([Send(link(1), deregister("echo", 7))]);
    bench.at(500).expect([Close(link(1)), no_home()]);
    assert!(bench.client.is_shut_down());
}

#[test]
fn a_congested_link_gets_no_more_questions() {
    let mut bench = bench(config(&[A])).settled();
    bench.feed(|client, now| client.handle_link(now, link(1), LinkChange::Congested));
    bench.resolve(1, "one").expect([]);
    bench.feed(|client, now| client.handle_link(now, link(1), LinkChange::Drained));
    bench.expect([Send(link(1), question("one"))]);
}

#[test]
fn thousands_of_requests_are_pipelined_within_a_window() {
    let mut bench = bench(config(&[A])).settled();
    for request in 0..10_000 {
        bench.resolve(request, &format!("pool{request}"));
    }
    assert_eq!(bench.take().len(), 8_192);
    bench.receive(link(1), unknown_pool("pool0"));
    bench.expect([
        is_resolved(0, "pool0", Err(rejected(CauseCode::UNKNOWN_POOL))),
        Send(link(1), question("pool8192")),
    ]);
}

#[test]
fn too_many_requests_are_refused() {
    let mut bench = bench(config(&[A]));
    for request in 0..MAX_REQUESTS as u64 {
        bench.resolve(request, "echo");
    }
    bench.forget().resolve(1, "echo").expect([is_resolved(1, "echo", Err(RequestError::Busy))]);
    let busy = is_registered(2, Err(RequestError::Busy));
    bench.register(2, registration("echo", 1)).expect([busy]);
}
