//! Registration, re-registration, updates, deregistration.

use super::*;

fn with_load(pool: &str, id: u32, load: u32) -> Registration {
    let mut registration = registration(pool, id);
    registration.element.policy = Policy::LeastUsed { load };
    registration
}

fn register_load(pool: &str, id: u32, load: u32) -> Asap {
    Asap::Registration { handle: handle(pool), element: with_load(pool, id, load).element }
}

#[test]
fn an_element_is_registered_and_registered_again_at_its_interval() {
    let mut bench = bench(config(&[A])).settled();
    bench.register(1, registration("echo", 7)).expect([Send(link(1), register("echo", 7))]);
    bench.at(100).receive(link(1), registered("echo", 7)).expect([is_registered(1, Ok(0))]);
    bench.at(30_099).expect([]);
    bench.at(30_100).expect([Send(link(1), register("echo", 7))]);
    bench.at(30_200).receive(link(1), registered("echo", 7)).expect([]);
    bench.at(60_200).expect([Send(link(1), register("echo", 7))]);
}

#[test]
fn a_new_home_gets_all_elements_at_once() {
    let mut bench = bench(config(&[A])).settled();
    bench.register(1, registration("echo", 7)).register(2, registration("time", 8));
    bench.receive(link(1), registered("echo", 7)).receive(link(1), registered("time", 8));
    bench.at(2_000).forget();
    bench.down(link(1), LinkDown::Closed).up(link(2), A).expect([
        no_home(),
        Open(link(2), tcp(A)),
        home(0, link(2)),
        Send(link(2), register("echo", 7)),
        Send(link(2), register("time", 8)),
    ]);
}

#[test]
fn an_update_is_sent_at_once() {
    let mut bench = bench(config(&[A])).settled();
    bench.register(1, with_load("echo", 7, 10)).receive(link(1), registered("echo", 7)).forget();
    bench.register(2, with_load("echo", 7, 20)).expect([Send(link(1), register_load("echo", 7, 20))]);
    bench.receive(link(1), registered("echo", 7)).expect([is_registered(2, Ok(0))]);
}

#[test]
fn an_element_without_an_address_waits_for_one() {
    let mut nowhere = registration("echo", 7);
    let somewhere = nowhere.element.transport.clone();
    nowhere.element.transport =
        Transport::new(Protocol::Tcp, TransportUse::DataPlusControl, somewhere.port(), vec![]);
    let mut bench = bench(config(&[A])).settled();
    bench.register(1, nowhere.clone()).register(2, nowhere).at(2_000).expect([]);
    bench.feed(|client, now| client.set_transport(now, &handle("echo"), PeId(7), somewhere));
    bench.expect([Send(link(1), register("echo", 7))]);
    bench.receive(link(1), registered("echo", 7)).expect([is_registered(1, Ok(0)), is_registered(2, Ok(0))]);
}

#[test]
fn an_element_without_an_address_can_be_let_go() {
    let mut nowhere = registration("echo", 7);
    nowhere.element.transport = Transport::new(Protocol::Tcp, TransportUse::DataPlusControl, 7, vec![]);
    let mut bench = bench(config(&[A])).settled();
    bench.register(1, nowhere).deregister(2, "echo", 7);
    bench.expect([
        is_registered(1, Err(RequestError::NotFound)),
        Seen::Event(Event::Deregistered { request: RequestId(2), result: Ok(()) }),
    ]);
}

/// The registrar says by itself that an element is out.
fn unregistered(bench: &mut Bench, code: CauseCode) {
    let error = Some(OperationError::from(code));
    let message = Asap::DeregistrationResponse { handle: handle("echo"), id: PeId(7), error: error.clone() };
    bench.receive(link(1), message);
    let event = Event::Unregistered { handle: handle("echo"), id: PeId(7), error };
    assert_eq!(bench.seen.remove(0), Seen::Event(event));
}

#[test]
fn an_element_that_is_told_to_be_out_comes_back_at_once_and_then_ever_later() {
    let mut bench = bench(config(&[A])).settled();
    bench.register(1, registration("echo", 7)).receive(link(1), registered("echo", 7)).forget();
    unregistered(&mut bench, CauseCode::UNSPECIFIED);
    bench.expect([Send(link(1), register("echo", 7))]);
    let mut time = 0;
    for pause in [500, 1000, 2000, 4000] {
        bench.receive(link(1), registered("echo", 7)).forget();
        unregistered(&mut bench, CauseCode::UNSPECIFIED);
        time += pause;
        bench.at(time - 1).expect([]);
        bench.at(time).expect([Send(link(1), register("echo", 7))]);
    }
}

#[test]
fn twins_do_not_drive_each_other_out_at_once() {
    let mut bench = bench(config(&[A])).settled();
    bench.register(1, registration("echo", 7)).receive(link(1), registered("echo", 7)).forget();
    unregistered(&mut bench, CauseCode::NON_UNIQUE_PE_ID);
    bench.at(2_000).expect([]);
}

#[test]
fn an_element_that_an_operator_takes_out_comes_back_with_its_next_registration() {
    let mut bench = bench(config(&[A])).settled();
    bench.register(1, registration("echo", 7)).receive(link(1), registered("echo", 7)).forget();
    unregistered(&mut bench, CauseCode::SECURITY);
    bench.at(29_999).expect([]);
    bench.at(30_000).expect([Send(link(1), register("echo", 7))]);
}

#[test]
fn elements_are_registered_again_when_keep_alives_stay_out() {
    let mut bench = bench(config(&[A])).settled();
    bench.register(1, registration("echo", 7)).receive(link(1), registered("echo", 7)).forget();
    for time in [500, 1500, 2500] {
        bench.at(time).receive(link(1), keep_alive(false, 0, "echo", Some(7)));
    }
    bench.forget().at(4_749).expect([]);
    bench.at(4_750).expect([Send(link(1), register("echo", 7))]);
    // No answer to that either: others are dialled, had we any.
    bench.at(7_800);
    assert!(bench.seen.contains(&Close(link(1))), "{:?}", bench.seen);
}

#[test]
fn an_element_that_moves_is_registered_where_it_is_now() {
    let moved = |pool: &str, last: u8| {
        let mut element = registration(pool, 7).element;
        let address = std::net::IpAddr::from([10, 0, 1, last]);
        element.transport = Transport::new(Protocol::Tcp, TransportUse::DataPlusControl, 80, vec![address]);
        element
    };
    let again = |last| Asap::Registration { handle: handle("echo"), element: moved("echo", last) };
    let to = |bench: &mut Bench, last| {
        let transport = moved("echo", last).transport;
        bench.feed(|client, now| client.set_transport(now, &handle("echo"), PeId(7), transport));
    };
    let mut bench = bench(config(&[A])).settled();
    bench.register(1, registration("echo", 7)).receive(link(1), registered("echo", 7)).forget();
    to(&mut bench, 1);
    bench.expect([Send(link(1), again(1))]);
    // While that is under way, and back again.
    to(&mut bench, 2);
    bench.expect([]);
    bench.receive(link(1), registered("echo", 7)).expect([Send(link(1), again(2))]);
    bench.receive(link(1), registered("echo", 7)).expect([]);
    to(&mut bench, 2);
    bench.expect([]);
    // Without a home: the next one gets it.
    bench.at(2_000).down(link(1), LinkDown::Closed).forget();
    to(&mut bench, 3);
    bench.expect([]);
    bench.up(link(2), A).expect([home(0, link(2)), Send(link(2), again(3))]);
}

#[test]
fn updates_are_gathered_while_one_is_under_way_and_all_are_answered() {
    let mut bench = bench(config(&[A])).settled();
    bench.register(1, with_load("echo", 7, 10)).expect([Send(link(1), register_load("echo", 7, 10))]);
    bench.register(2, with_load("echo", 7, 20)).register(3, with_load("echo", 7, 30)).expect([]);
    bench.receive(link(1), registered("echo", 7));
    bench.expect([is_registered(1, Ok(0)), Send(link(1), register_load("echo", 7, 30))]);
    bench.receive(link(1), registered("echo", 7)).expect([is_registered(2, Ok(0)), is_registered(3, Ok(0))]);
}

#[test]
fn updates_made_without_a_link_are_one_registration() {
    let mut bench = bench(config(&[A]));
    bench.register(1, with_load("echo", 7, 10)).register(2, with_load("echo", 7, 20)).forget();
    bench.up(link(1), A).expect([home(0, link(1)), Send(link(1), register_load("echo", 7, 20))]);
    bench.receive(link(1), registered("echo", 7)).expect([is_registered(1, Ok(0)), is_registered(2, Ok(0))]);
}

#[test]
fn gathered_updates_survive_the_loss_of_the_link() {
    let mut bench = bench(config(&[A])).settled();
    bench.at(2_000).register(1, with_load("echo", 7, 10)).register(2, with_load("echo", 7, 20));
    bench.down(link(1), LinkDown::Broken).forget();
    bench.up(link(2), A).expect([home(0, link(2)), Send(link(2), register_load("echo", 7, 20))]);
    bench.receive(link(2), registered("echo", 7)).expect([is_registered(1, Ok(0)), is_registered(2, Ok(0))]);
}

#[test]
fn a_rejected_element_stays_ours_and_is_tried_again() {
    let mut bench = bench(config(&[A])).settled();
    let no = Asap::RegistrationResponse {
        rejected: true,
        handle: handle("echo"),
        id: PeId(7),
        error: Some(CauseCode::INCONSISTENT_POLICY.into()),
    };
    bench.register(1, registration("echo", 7)).forget().receive(link(1), no.clone());
    bench.expect([is_registered(1, Err(rejected(CauseCode::INCONSISTENT_POLICY)))]);
    let error = rejected(CauseCode::INCONSISTENT_POLICY);
    let failed = Event::RegistrationFailed { handle: handle("echo"), id: PeId(7), error };
    // Ever later, up to the interval.
    let mut time = 0;
    for pause in [500, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
        time += pause;
        bench.at(time - 1).expect([]);
        bench.at(time).expect([Send(link(1), register("echo", 7))]);
        bench.receive(link(1), no.clone()).expect([Seen::Event(failed.clone())]);
    }
}

/// RFC 5352 section 2.2.3: without the R flag, an error is a warning.
#[test]
fn a_warning_is_no_refusal() {
    let mut bench = bench(config(&[A])).settled();
    bench.register(1, registration("echo", 7)).forget();
    let error: OperationError = CauseCode::INVALID_VALUES.into();
    let answer = Asap::RegistrationResponse {
        rejected: false,
        handle: handle("echo"),
        id: PeId(7),
        error: Some(error.clone()),
    };
    let warned = Seen::Event(Event::RegistrationWarned { handle: handle("echo"), id: PeId(7), error });
    bench.receive(link(1), answer).expect([warned, is_registered(1, Ok(0))]);
    bench.at(29_000).expect([]);
}

/// RFC 5352 section 3.2: the end of a registration's life is told, and who goes on is back at once.
#[test]
fn an_element_whose_registration_ended_registers_anew() {
    let mut bench = bench(config(&[A])).settled();
    bench.register(1, registration("echo", 7)).receive(link(1), registered("echo", 7)).forget();
    // Of somebody else's element there is nothing to say.
    bench.receive(link(1), deregistered("echo", 8)).expect([]);
    bench.receive(link(1), deregistered("echo", 7)).expect([Send(link(1), register("echo", 7))]);
    // Once for each registration.
    bench.receive(link(1), deregistered("echo", 7)).expect([]);
    bench.receive(link(1), registered("echo", 7)).expect([]);
    bench.receive(link(1), deregistered("echo", 7)).expect([Send(link(1), register("echo", 7))]);
}

#[test]
fn a_re_registration_without_answer_is_told() {
    let mut bench = bench(config(&[A])).settled();
    bench.register(1, registration("echo", 7)).receive(link(1), registered("echo", 7)).at(30_000).forget();
    bench.at(33_000);
    let error = RequestError::TimedOut;
    let failed = Seen::Event(Event::RegistrationFailed { handle: handle("echo"), id: PeId(7), error });
    bench.expect([failed, Close(link(1)), no_home(), Open(link(2), tcp(A))]);
    bench.up(link(2), A).expect([home(0, link(2)), Send(link(2), register("echo", 7))]);
}

#[test]
fn an_element_without_registrar_is_registered_when_one_appears() {
    let mut config = config(&[A]);
    config.protocols = vec![LinkProtocol::Tcp, LinkProtocol::Sctp];
    let mut bench = bench(config);
    bench.register(1, registration("echo", 7)).down(link(1), LinkDown::Refused).at(11_000);
    let seen = bench.take();
    assert!(seen.contains(&is_registered(1, Err(RequestError::NoRegistrar))), "{seen:?}");
    bench.hear(B, 2, vec![]);
    let opened = bench.take().into_iter().find_map(|one| match one {
        Open(link, target) if target == sctp(B) => Some(link),
        _ => None,
    });
    let opened = opened.expect("the new registrar is dialled");
    bench.up(opened, B);
    assert!(matches!(bench.seen.last(), Some(Send(_, Asap::Registration { .. }))), "{:?}", bench.seen);
}

#[test]
fn deregistration_waits_for_the_answer() {
    let mut bench = bench(config(&[A])).settled();
    bench.register(1, registration("echo", 7)).receive(link(1), registered("echo", 7)).forget();
    bench.deregister(2, "echo", 7).expect([Send(link(1), deregister("echo", 7))]);
    bench.deregister(3, "echo", 7).expect([is_deregistered(3, Err(RequestError::NotFound))]);
    bench.receive(link(1), keep_alive(false, 1, "echo", Some(7))).expect([]);
    bench.receive(link(1), deregistered("echo", 7)).expect([is_deregistered(2, Ok(()))]);
    bench.at(90_000).expect([]);
}

#[test]
fn what_goes_to_one_link_in_a_row_is_one_send() {
    let mut bench = bench(config(&[A])).settled();
    for id in [7, 8] {
        bench.register(1, registration("echo", id)).receive(link(1), registered("echo", id)).forget();
    }
    let asked = keep_alive(false, 0, "echo", None).encode();
    bench.client.handle_message(bench.now, link(1), &asked);
    let bytes = [ack("echo", 7).encode(), ack("echo", 8).encode()].concat();
    let outputs: Vec<_> = std::iter::from_fn(|| bench.client.poll_output()).collect();
    assert_eq!(outputs, [Output::Send { link: link(1), bytes }]);
}

/// RFC 5352 section 3.2, D4: T3, then another registrar and the same again.
#[test]
fn a_deregistration_without_answer_goes_to_the_next_registrar() {
    let mut config = config(&[A]);
    config.request_max_trials = 2;
    let mut bench = bench(config).settled();
    bench.register(1, registration("echo", 7)).receive(link(1), registered("echo", 7)).at(2_000).forget();
    bench.deregister(2, "echo", 7).expect([Send(link(1), deregister("echo", 7))]);
    bench.at(4_999).expect([]);
    bench.at(5_000).expect([Close(link(1)), no_home(), Open(link(2), tcp(A))]);
    bench.up(link(2), A).expect([home(0, link(2)), Send(link(2), deregister("echo", 7))]);
    bench.receive(link(2), deregistered("echo", 7)).expect([is_deregistered(2, Ok(()))]);
}

/// Where there is another registrar, once is enough.
#[test]
fn a_deregistration_moves_on_from_a_hung_registrar() {
    let mut bench = bench(config(&[A, B])).settled();
    bench.register(1, registration("echo", 7)).receive(link(1), registered("echo", 7)).at(10_000).forget();
    bench.deregister(2, "echo", 7).expect([Send(link(1), deregister("echo", 7))]);
    bench.at(11_000).up(link(2), B).forget();
    bench.at(12_000).expect([home(0, link(2)), Send(link(2), deregister("echo", 7)), Close(link(1))]);
    bench.receive(link(2), deregistered("echo", 7)).expect([is_deregistered(2, Ok(()))]);
}

#[test]
fn deregistration_is_bounded_without_a_registrar() {
    let mut bench = bench(config(&[A])).settled();
    bench.register(1, registration("echo", 7)).receive(link(1), registered("echo", 7)).at(2_000);
    bench.down(link(1), LinkDown::Broken).down(link(2), LinkDown::Refused).forget();
    bench.deregister(2, "echo", 7).at(12_600);
    let seen = bench.take();
    assert!(seen.contains(&is_deregistered(2, Err(RequestError::NoRegistrar))), "{seen:?}");
}

#[test]
fn an_element_nobody_was_told_of_is_gone_at_once() {
    let mut bench = bench(config(&[A]));
    bench.register(1, registration("echo", 7)).forget();
    bench.deregister(2, "echo", 7).expect([
        is_registered(1, Err(RequestError::NotFound)),
        is_deregistered(2, Ok(())),
        Close(link(1)),
    ]);
}

#[test]
fn a_new_registration_follows_the_deregistration_also_on_a_new_link() {
    let mut bench = bench(config(&[A])).settled();
    bench.register(1, registration("echo", 7)).receive(link(1), registered("echo", 7)).at(2_000);
    bench.deregister(2, "echo", 7).register(3, registration("echo", 7));
    bench.down(link(1), LinkDown::Broken).forget();
    bench.up(link(2), A).expect([
        home(0, link(2)),
        Send(link(2), deregister("echo", 7)),
        Send(link(2), register("echo", 7)),
    ]);
    bench.receive(link(2), deregistered("echo", 7)).receive(link(2), registered("echo", 7));
    bench.expect([is_deregistered(2, Ok(())), is_registered(3, Ok(0))]);
}

#[test]
fn an_answer_to_a_withdrawn_registration_is_ignored() {
    let mut bench = bench(config(&[A])).settled();
    bench.register(1, registration("echo", 7)).deregister(2, "echo", 7).forget();
    bench.receive(link(1), registered("echo", 7)).expect([]);
    bench.receive(link(1), deregistered("echo", 7)).expect([is_deregistered(2, Ok(()))]);
}

#[test]
fn over_tcp_the_registration_says_where_we_listen() {
    let with = |listen: &[&str]| {
        let mut config = config(&[A]);
        let addresses = listen.iter().map(|text| address(text)).collect();
        config.listen = vec![sctp("0.0.0.0:1"), Target { protocol: LinkProtocol::Tcp, addresses }];
        let mut bench = bench(config).settled();
        bench.register(1, registration("echo", 7));
        match bench.take().pop() {
            Some(Send(_, Asap::Registration { element, .. })) => element.asap.expect("an ASAP transport"),
            other => panic!("{other:?}"),
        }
    };
    let at = |text: &str| {
        Transport::new(Protocol::Tcp, TransportUse::DataOnly, address(text).port(), vec![address(text).ip()])
    };
    assert_eq!(with(&["0.0.0.0:5000"]), at("10.0.0.99:5000"));
    assert_eq!(with(&["[::]:5000"]), at("10.0.0.99:5000"));
    assert_eq!(with(&["10.5.5.5:5000", "10.0.0.99:5000"]), at("10.0.0.99:5000"));
    assert_eq!(with(&["10.5.5.5:5000"]), at("10.5.5.5:5000"));
}

#[test]
fn over_sctp_it_does_not() {
    let mut config = config(&[]);
    config.registrars = vec![sctp(A)];
    config.protocols = vec![LinkProtocol::Sctp];
    config.listen = vec![tcp("0.0.0.0:5000"), sctp("0.0.0.0:5001")];
    let mut bench = bench(config);
    let ends = LinkEnds { protocol: LinkProtocol::Sctp, ..ends(A) };
    bench.register(1, registration("echo", 7));
    bench.feed(|client, now| client.handle_link(now, link(1), LinkChange::Up(ends)));
    assert_eq!(bench.seen.last(), Some(&Send(link(1), register("echo", 7))));
}

#[test]
fn new_addresses_are_registered_at_once() {
    let mut bench = bench(config(&[A])).settled();
    bench.register(1, registration("echo", 7)).forget();
    let listen = vec![tcp("10.0.0.99:5000")];
    // One registration is under way: the next follows its answer.
    bench.feed(|client, now| client.set_listen(now, listen)).expect([]);
    bench.receive(link(1), registered("echo", 7));
    match &bench.take()[..] {
        [_, Send(_, Asap::Registration { element, .. })] => assert!(element.asap.is_some()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_home_is_named_once_it_is_known() {
    let mut bench = bench(config(&[A])).settled();
    bench.register(1, registration("echo", 7)).receive(link(1), registered("echo", 7));
    bench.receive(link(1), keep_alive(false, 5, "echo", Some(7))).forget().at(30_000);
    match &bench.take()[..] {
        [Send(_, Asap::Registration { element, .. })] => assert_eq!(element.home, RegistrarId(5)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_element_too_large_for_a_message_is_refused() {
    let mut bench = bench(config(&[A]));
    let mut large = registration("echo", 7);
    large.handle = PoolHandle::new(&[1; crate::wire::handle::MAX_HANDLE]).unwrap();
    large.element.policy = Policy::Unknown { policy_type: 0x7777_7777, value: vec![0; 2_000] };
    bench.register(1, large).expect([is_registered(1, Err(rejected(CauseCode::INVALID_VALUES)))]);
}

/// An element was refused again and again since another one has its identifier.
fn refused_for_long() -> Bench {
    let mut bench = bench(config(&[A])).settled();
    bench.register(1, registration("echo", 7));
    let error = Some(CauseCode::NON_UNIQUE_PE_ID.into());
    let refused = Asap::RegistrationResponse { rejected: true, handle: handle("echo"), id: PeId(7), error };
    for time in [0, 500, 1_000, 2_000, 4_000] {
        bench.at(time).receive(link(1), refused.clone());
    }
    bench.at(4_100).forget();
    bench
}

#[test]
fn an_element_whose_identifier_was_taken_is_back_when_it_is_free() {
    let mut bench = refused_for_long();
    bench.receive(link(1), deregistered("echo", 7)).expect([Send(link(1), register("echo", 7))]);
    // One that was never refused has nothing to come back from.
    bench.receive(link(1), registered("echo", 7)).forget();
    bench.receive(link(1), deregistered("time", 9)).expect([]);
}

/// Over SCTP, where the registrar can't know whether we are rsplib's.
#[test]
fn a_keep_alive_for_an_element_that_was_refused_has_it_register() {
    let mut bench = refused_for_long();
    let answer = || Send(link(1), ack("echo", 7));
    let asked = keep_alive(false, 0x1111, "echo", Some(7));
    // One for all elements of the pool is about others.
    bench.receive(link(1), keep_alive(false, 0x1111, "echo", None)).forget();
    let mut again = register("echo", 7);
    if let Asap::Registration { element, .. } = &mut again {
        element.home = RegistrarId(0x1111);
    }
    bench.receive(link(1), asked.clone()).expect([answer(), Send(link(1), again)]);
    bench.receive(link(1), registered("echo", 7)).forget();
    bench.receive(link(1), asked).expect([answer()]);
}

#[test]
fn the_same_where_it_was_registered_at_a_home_before() {
    let mut bench = bench(config(&[A])).settled();
    bench.register(1, registration("echo", 7)).receive(link(1), registered("echo", 7));
    bench.at(2_000).down(link(1), LinkDown::Closed).up(link(2), A);
    let error = Some(CauseCode::NON_UNIQUE_PE_ID.into());
    let refused = Asap::RegistrationResponse { rejected: true, handle: handle("echo"), id: PeId(7), error };
    bench.receive(link(2), refused).at(2_100).forget();
    bench.receive(link(2), deregistered("echo", 7)).expect([Send(link(2), register("echo", 7))]);
}
