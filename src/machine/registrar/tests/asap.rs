use super::super::Dialect;
use super::*;
use crate::wire::{ALL_ITEMS, Cause, CauseCode, OperationError};

const PEER: RegistrarId = RegistrarId(0x6000);

fn rejected(link: LinkId, id: u32, cause: CauseCode) -> Effect {
    refused(link, id, Cause::bare(cause))
}

fn refused(link: LinkId, id: u32, cause: Cause) -> Effect {
    let error = Some(OperationError(vec![cause]));
    Effect::Asap(
        link,
        Asap::RegistrationResponse { rejected: true, handle: pool("echo"), id: PeId(id), error },
    )
}

pub(super) fn resolution(items: Option<u32>, subscribe: bool) -> Asap {
    Asap::HandleResolution { subscribe, handle: pool("echo"), items }
}

/// To a subscriber, elements of one home registrar.
fn resolved_at(link: LinkId, home: RegistrarId, ids: &[u32]) -> Effect {
    let Effect::Asap(link, mut message) = resolved(link, true, ids, None, &[]) else { unreachable!() };
    if let Asap::HandleResolutionResponse { elements, .. } = &mut message {
        *elements = ids.iter().map(|&id| listed(id, home)).collect();
    }
    Effect::Asap(link, message)
}

fn resolved(link: LinkId, subscribed: bool, ids: &[u32], total: Option<u32>, lost: &[u32]) -> Effect {
    let elements: Vec<_> = ids.iter().map(|&id| listed(id, SELF)).collect();
    Effect::Asap(
        link,
        Asap::HandleResolutionResponse {
            subscribed,
            handle: pool("echo"),
            error: None,
            policy: (!elements.is_empty()).then_some(Policy::RoundRobin),
            elements,
            total,
            lost: lost.iter().map(|&id| PeId(id)).collect(),
            deregistered: Vec::new(),
        },
    )
}

/// The same with those who deregistered.
fn with_retired(effect: Effect, ids: &[u32]) -> Effect {
    let Effect::Asap(link, mut message) = effect else { panic!("{effect:?}") };
    if let Asap::HandleResolutionResponse { deregistered, .. } = &mut message {
        deregistered.extend(ids.iter().map(|&id| PeId(id)));
    }
    Effect::Asap(link, message)
}

fn unknown_pool(link: LinkId, subscribed: bool) -> Effect {
    Effect::Asap(
        link,
        Asap::HandleResolutionResponse {
            subscribed,
            handle: pool("echo"),
            error: Some(CauseCode::UNKNOWN_POOL.into()),
            policy: None,
            elements: Vec::new(),
            total: None,
            lost: Vec::new(),
            deregistered: Vec::new(),
        },
    )
}

/// Answers keep-alives for `passed` and returns everything else.
pub(super) fn wait_answering(bench: &mut Bench, passed: Duration) -> Vec<Effect> {
    let end = bench.now + passed;
    let mut others = Vec::new();
    while bench.now < end {
        for effect in bench.wait(ms(10)) {
            match effect {
                Effect::Asap(link, Asap::EndpointKeepAlive { handle, id: Some(id), .. }) => {
                    others.extend(bench.asap(link, Asap::EndpointKeepAliveAck { handle, id }));
                }
                other => others.push(other),
            }
        }
    }
    others
}

#[test]
fn registration_tells_peers_first() {
    let mut bench = Bench::serving();
    let peer = bench.peer(PEER);
    let pe = bench.pe();
    assert_eq!(
        bench.asap(pe, registration(1)),
        [added(1), Effect::Enrp(peer, PEER, update(1, SELF)), registered(pe, 1)]
    );
    // RFC 5353 section 3.3.1: a re-registration is told as well.
    assert_eq!(
        bench.asap(pe, registration(1)),
        [Effect::Enrp(peer, PEER, update(1, SELF)), registered(pe, 1)]
    );
}

#[test]
fn registrations_are_refused_for_the_reasons_that_clients_know() {
    let mut bench = Bench::serving();
    let pe = bench.pe();
    bench.asap(pe, registration(1));
    let mut try_with = |id: u32, change: &dyn Fn(&mut PoolElement)| {
        let mut changed = element(id);
        change(&mut changed);
        bench.asap(pe, Asap::Registration { handle: pool("echo"), element: changed })
    };
    use CauseCode as C;
    let about = |code, quoted: &Transport| Cause::about_transport(code, quoted);
    let refused = |id, cause| vec![refused(pe, id, cause)];
    assert_eq!(try_with(0, &|_| ()), refused(0, Cause::bare(C::INVALID_VALUES)));
    let other = |protocol, usage, text: &'static str| {
        move |element: &mut PoolElement| element.transport = transport(protocol, usage, text)
    };
    let (tcp, control) = (Protocol::Tcp, TransportUse::DataPlusControl);
    assert_eq!(
        try_with(2, &other(Protocol::Udp, control, "10.0.0.9:7")),
        refused(2, about(C::INCONSISTENT_TRANSPORT, &element(1).transport))
    );
    let nowhere = transport(tcp, control, "10.0.0.9:0");
    assert_eq!(
        try_with(2, &other(tcp, control, "10.0.0.9:0")),
        refused(2, about(C::INVALID_VALUES, &nowhere))
    );
    // Of TCP, the field is reserved.
    assert_eq!(try_with(3, &other(tcp, TransportUse::DataOnly, "10.0.0.9:7")), [added(3), registered(pe, 3)]);
    assert_eq!(
        try_with(2, &|element| element.policy = Policy::Random),
        refused(2, Cause::about_policy(C::INCONSISTENT_POLICY, &Policy::RoundRobin))
    );
    for local in ["127.0.0.1:7", "0.0.0.0:7", "169.254.3.3:7"] {
        let quoted = transport(tcp, control, local);
        assert_eq!(try_with(2, &other(tcp, control, local)), refused(2, about(C::INVALID_VALUES, &quoted)));
    }
    // A proxy may register others' addresses over TCP.
    assert_eq!(try_with(2, &other(tcp, control, "192.0.2.1:7")), [added(2), registered(pe, 2)]);
}

#[test]
fn refusals_over_sctp_have_the_rfcs_causes_unless_all_is_rsplibs() {
    for dialect in [None, Some(Dialect::Rfc), Some(Dialect::Rsplib)] {
        let (mut bench, _) = Bench::new(Config { dialect, ..config() });
        let pe = bench.accept(Service::Asap, LinkProtocol::Sctp, "10.0.0.9:40001");
        let sctp = |id: u32, protocol, addresses: &[&str]| {
            let ips = addresses.iter().map(|text| ip(text)).collect();
            let transport = Transport::new(protocol, TransportUse::DataOnly, 7, ips);
            PoolElement { transport, asap: None, ..element(id) }
        };
        let mut register = |element: PoolElement| {
            let answer = bench.asap(pe, Asap::Registration { handle: pool("echo"), element });
            let said = answer.into_iter().find_map(|effect| match effect {
                Effect::Asap(_, Asap::RegistrationResponse { rejected, error, .. }) => {
                    Some((rejected, error))
                }
                _ => None,
            });
            said.expect("an answer")
        };
        let refused = |cause: Cause| (true, Some(OperationError(vec![cause])));
        let first = sctp(1, Protocol::Sctp, &["10.0.0.9"]);
        assert_eq!(register(first.clone()), (false, None));
        use CauseCode as C;
        let (other, about) = match dialect {
            Some(Dialect::Rsplib) => (Cause::bare(C::INCONSISTENT_POLICY), Cause::bare(C::WRONG_PROTOCOL)),
            _ => (
                Cause::about_policy(C::INCONSISTENT_POLICY, &Policy::RoundRobin),
                Cause::about_transport(C::INCONSISTENT_TRANSPORT, &first.transport),
            ),
        };
        let policy = Policy::Random;
        assert_eq!(
            register(PoolElement { policy, ..sctp(2, Protocol::Sctp, &["10.0.0.9"]) }),
            refused(other)
        );
        assert_eq!(register(sctp(2, Protocol::Udp, &["10.0.0.9"])), refused(about));
        // One address is not the association's: a warning, which one of rsplib's would take for a refusal.
        let named = sctp(3, Protocol::Sctp, &["10.0.0.9", "192.0.2.1"]);
        let warning = Cause::about_transport(C::INVALID_VALUES, &named.transport);
        let warned = (dialect == Some(Dialect::Rfc)).then(|| OperationError(vec![warning]));
        assert_eq!(register(named), (false, warned));
    }
}

#[test]
fn loopback_is_as_good_as_the_link_it_came_over() {
    let mut bench = Bench::serving();
    let pe = bench.accept(Service::Asap, LinkProtocol::Tcp, "127.0.0.1:40000");
    let local = PoolElement {
        transport: transport(Protocol::Tcp, TransportUse::DataPlusControl, "127.0.0.1:7"),
        ..element(1)
    };
    let message = Asap::Registration { handle: pool("echo"), element: local.clone() };
    assert_eq!(bench.asap(pe, message), [added(1), registered(pe, 1)]);
    let key = bench.registrar.handlespace().find(&pool("echo"), PeId(1)).unwrap();
    let kept = bench.registrar.handlespace().get(key).unwrap().to_element();
    assert_eq!(kept.asap, Some(transport(Protocol::Tcp, TransportUse::DataOnly, "127.0.0.1:99")));

    // Found by its announcements, a registrar on the same host is reached at one of the host's addresses.
    let here = bench.accept(Service::Asap, LinkProtocol::Tcp, "10.0.0.1:40001");
    let next =
        Asap::Registration { handle: pool("echo"), element: PoolElement { id: PeId(2), ..local.clone() } };
    assert_eq!(bench.asap(here, next), [added(2), registered(here, 2)]);
    // From another host, it would be somebody else's address to everybody.
    let far = bench.accept(Service::Asap, LinkProtocol::Tcp, "10.0.0.9:40000");
    let last = Asap::Registration { handle: pool("echo"), element: PoolElement { id: PeId(3), ..local } };
    let quoted = transport(Protocol::Tcp, TransportUse::DataPlusControl, "127.0.0.1:7");
    let cause = Cause::about_transport(CauseCode::INVALID_VALUES, &quoted);
    assert_eq!(bench.asap(far, last), [refused(far, 3, cause)]);
}

#[test]
fn over_sctp_the_association_counts() {
    let mut bench = Bench::serving();
    let pe = bench.accept(Service::Asap, LinkProtocol::Sctp, "10.0.0.9:40000");
    let mut sctp = element(1);
    sctp.transport = Transport::new(
        Protocol::Sctp,
        TransportUse::DataPlusControl,
        7,
        vec![ip("10.0.0.9"), ip("10.0.0.10")],
    );
    bench.asap(pe, Asap::Registration { handle: pool("echo"), element: sctp.clone() });
    let key = bench.registrar.handlespace().find(&pool("echo"), PeId(1)).unwrap();
    let kept = bench.registrar.handlespace().get(key).unwrap().to_element();
    assert_eq!(kept.transport.addresses(), [ip("10.0.0.9")]);
    assert_eq!(kept.asap, Some(transport(Protocol::Sctp, TransportUse::DataOnly, "10.0.0.9:40000")));
    sctp.id = PeId(2);
    let named = transport(Protocol::Sctp, TransportUse::DataPlusControl, "10.0.0.10:7");
    sctp.transport = named.clone();
    assert_eq!(
        bench.asap(pe, Asap::Registration { handle: pool("echo"), element: sctp }),
        [refused(pe, 2, Cause::about_transport(CauseCode::INVALID_VALUES, &named))]
    );
}

#[test]
fn a_lost_link_takes_its_elements_along() {
    let mut bench = Bench::serving();
    let peer = bench.peer(PEER);
    let pe = bench.pe();
    bench.asap(pe, registration(1));
    bench.asap(pe, registration(2));
    assert_eq!(
        bench.down(pe),
        [
            removed(1, "link broken"),
            Effect::Enrp(peer, PEER, removal(1, SELF)),
            removed(2, "link broken"),
            Effect::Enrp(peer, PEER, removal(2, SELF)),
        ]
    );
}

#[test]
fn an_element_that_came_back_over_another_link_stays() {
    let mut bench = Bench::serving();
    let (first, second) = (bench.pe(), bench.pe());
    bench.asap(first, registration(1));
    bench.asap(second, registration(1));
    assert_eq!(bench.down(first), []);
    assert_eq!(bench.content("echo"), [(1, SELF)]);
    assert_eq!(bench.down(second), [removed(1, "link broken")]);
}

#[test]
fn registering_here_moves_an_element_here() {
    let mut bench = Bench::serving();
    let peer = bench.peer(PEER);
    bench.enrp(peer, PEER, update(1, PEER));
    assert_eq!(bench.content("echo"), [(1, PEER)]);
    let pe = bench.pe();
    assert_eq!(
        bench.asap(pe, registration(1)),
        [Effect::Enrp(peer, PEER, update(1, SELF)), registered(pe, 1)]
    );
    assert_eq!(bench.content("echo"), [(1, SELF)]);
}

#[test]
fn deregistration_by_its_own_process_only() {
    let mut bench = Bench::serving();
    let peer = bench.peer(PEER);
    let pe = bench.pe();
    bench.asap(pe, registration(1));
    let stranger = bench.accept(Service::Asap, LinkProtocol::Tcp, "10.0.0.66:40000");
    let message = Asap::Deregistration { handle: pool("echo"), id: PeId(1) };
    let response = |link, error| {
        Effect::Asap(link, Asap::DeregistrationResponse { handle: pool("echo"), id: PeId(1), error })
    };
    assert_eq!(bench.asap(stranger, message.clone()), [response(stranger, Some(CauseCode::SECURITY.into()))]);
    assert_eq!(
        bench.asap(pe, message.clone()),
        [removed(1, "deregistered"), Effect::Enrp(peer, PEER, retirement(1, SELF)), response(pe, None)]
    );
    // RFC 5352 section 3.2: what is not there is granted.
    assert_eq!(bench.asap(stranger, message), [response(stranger, None)]);
}

#[test]
fn resolutions_give_as_many_as_asked_for() {
    let mut bench = Bench::serving();
    let pe = bench.pe();
    assert_eq!(bench.asap(pe, resolution(None, false)), [unknown_pool(pe, false)]);
    for id in 1..=5 {
        bench.asap(pe, registration(id));
    }
    assert_eq!(bench.asap(pe, resolution(None, false)), [resolved(pe, false, &[1, 2, 3], None, &[])]);
    assert_eq!(bench.asap(pe, resolution(Some(1), false)), [resolved(pe, false, &[2], None, &[])]);
    assert_eq!(
        bench.asap(pe, resolution(Some(u32::MAX), false)),
        [resolved(pe, false, &[3, 4, 5, 1, 2], None, &[])]
    );
}

#[test]
fn beginning_and_ending_a_subscription_chooses_nobody() {
    let mut bench = Bench::serving();
    let (pe, user) = (bench.pe(), bench.pe());
    for id in 1..=3 {
        bench.asap(pe, registration(id));
    }
    let all = Some(u32::MAX);
    assert_eq!(bench.asap(user, resolution(all, true)), [resolved(user, true, &[1, 2, 3], None, &[])]);
    assert_eq!(bench.asap(pe, resolution(Some(1), false)), [resolved(pe, false, &[1], None, &[])]);
    // Who has a subscription and asks, does choose.
    assert_eq!(bench.asap(user, resolution(all, true)), [resolved(user, true, &[2, 3, 1], None, &[])]);
    assert_eq!(bench.asap(user, resolution(Some(1), false)), [resolved(user, false, &[3], None, &[])]);
    assert_eq!(bench.asap(pe, resolution(Some(1), false)), [resolved(pe, false, &[3], None, &[])]);
    // So does whoever wants some of them, and to be kept informed.
    let some = bench.pe();
    assert_eq!(bench.asap(some, resolution(Some(1), true)), [resolved(some, true, &[1], Some(3), &[])]);
    assert_eq!(bench.asap(pe, resolution(Some(1), false)), [resolved(pe, false, &[2], None, &[])]);
}

#[test]
fn large_pools_give_what_fits() {
    let mut bench = Bench::serving();
    let pe = bench.pe();
    bench.register_many(pe, 1..=3000);
    let count = |effects: Vec<Effect>| match &effects[..] {
        [Effect::Asap(_, Asap::HandleResolutionResponse { elements, total, .. })] => (elements.len(), *total),
        other => panic!("{other:?}"),
    };
    let sctp = bench.accept(Service::Asap, LinkProtocol::Sctp, "10.0.0.7:40000");
    assert_eq!(count(bench.asap(sctp, resolution(Some(u32::MAX), false))), (128, None));
    // Who asks for all of them by the number that nobody else says gets all that fit.
    let (elements, total) = count(bench.asap(sctp, resolution(Some(ALL_ITEMS), false)));
    assert!(elements > 1000 && total.is_none(), "{elements} {total:?}");
    let (elements, total) = count(bench.asap(pe, resolution(Some(u32::MAX), false)));
    assert!(elements > 1300 && total.is_none(), "{elements} {total:?}");
    let (elements, total) = count(bench.asap(pe, resolution(Some(u32::MAX), true)));
    assert!(elements > 1300 && total == Some(3000), "{elements} {total:?}");
}

/// As our own users subscribe.
fn subscription() -> Asap {
    resolution(Some(u32::MAX), true)
}

#[test]
fn a_user_of_the_rfc_subscribes_for_its_associations_lifetime() {
    let mut bench = Bench::serving();
    let (pe, user) = (bench.pe(), bench.pe());
    // RFC 5352 section 2.2.5: what there isn't can't be subscribed to.
    assert_eq!(bench.asap(user, resolution(None, true)), [unknown_pool(user, false)]);
    assert_eq!(bench.asap(pe, registration(1)), [added(1), registered(pe, 1)]);
    assert_eq!(bench.asap(user, resolution(None, true)), [resolved(user, true, &[1], None, &[])]);
    // Further requests don't end it.
    assert_eq!(bench.asap(user, resolution(None, false)), [resolved(user, true, &[1], None, &[])]);
    assert_eq!(
        bench.asap(pe, registration(2)),
        [added(2), registered(pe, 2), resolved(user, true, &[1, 2], None, &[])]
    );
    bench.wait(ms(50));
    // A pool that ends is an unknown one, and that was that: a positive answer has an element (section 2.2.6).
    let effects = bench.down(pe);
    assert_eq!(effects.last(), Some(&unknown_pool(user, false)), "{effects:?}");
    let pe = bench.pe();
    assert_eq!(bench.asap(pe, registration(4)), [added(4), registered(pe, 4)]);
}

#[test]
fn subscribers_are_told_at_once_and_then_all_together() {
    let mut bench = Bench::serving();
    let (pe, user) = (bench.pe(), bench.pe());
    assert_eq!(bench.asap(user, subscription()), [unknown_pool(user, true)]);
    assert_eq!(
        bench.asap(pe, registration(1)),
        [added(1), registered(pe, 1), resolved(user, true, &[1], None, &[])]
    );
    assert_eq!(bench.asap(pe, registration(2)), [added(2), registered(pe, 2)]);
    assert_eq!(bench.asap(pe, registration(3)), [added(3), registered(pe, 3)]);
    bench.asap(pe, Asap::Deregistration { handle: pool("echo"), id: PeId(1) });
    assert_eq!(bench.wait(ms(49)), []);
    assert_eq!(bench.wait(ms(1)), [with_retired(resolved(user, true, &[2, 3], None, &[]), &[1])]);
    assert_eq!(bench.wait(ms(100)), []);
    // The pool ends: an empty list, and who left.
    assert_eq!(
        bench.down(pe),
        [removed(2, "link broken"), removed(3, "link broken"), resolved(user, true, &[], None, &[2, 3])]
    );
    // A plain resolution does not end it; ours end it by one that says how many elements are wanted.
    assert_eq!(bench.asap(user, resolution(None, false)), [unknown_pool(user, true)]);
    assert_eq!(bench.asap(user, resolution(Some(1), false)), [unknown_pool(user, false)]);
    let pe = bench.pe();
    assert_eq!(bench.asap(pe, registration(4)), [added(4), registered(pe, 4)]);
}

/// What a change costs is what all are told of the whole pool, and one that changes all the time must not cost all.
#[test]
fn subscribers_of_a_long_list_are_told_of_it_more_rarely() {
    let mut bench = Bench::serving();
    let pe = bench.pe();
    for id in 0..1000 {
        bench.asap(pe, registration(1000 + id));
    }
    for _ in 0..100 {
        let user = bench.pe();
        bench.asap(user, subscription());
    }
    let told = |effects: Vec<Effect>| {
        effects
            .iter()
            .filter(|effect| matches!(effect, Effect::Asap(_, Asap::HandleResolutionResponse { .. })))
            .count()
    };
    let mut all = told(bench.wait(ms(1000)));
    for id in 1..=100 {
        all += told(bench.asap(pe, registration(id)));
        all += told(bench.wait(ms(10)));
    }
    // Some 40 bytes an element: 4 MB for all of them, which are a quarter of a second's.
    assert!((300..=500).contains(&all), "{all} messages");
    all = told(bench.wait(ms(1000)));
    assert!((100..=200).contains(&all), "and the last state: {all} messages");
}

#[test]
fn a_subscriber_that_does_not_read_gets_the_newest_state_when_it_does() {
    let mut bench = Bench::serving();
    let (pe, user) = (bench.pe(), bench.pe());
    bench.asap(pe, registration(1));
    bench.asap(user, subscription());
    bench.change(user, LinkChange::Congested);
    bench.asap(pe, registration(2));
    bench.asap(pe, Asap::Deregistration { handle: pool("echo"), id: PeId(1) });
    assert_eq!(bench.wait(ms(300)), []);
    let news = with_retired(resolved(user, true, &[2], None, &[]), &[1]);
    assert_eq!(bench.change(user, LinkChange::Drained), [news]);
}

#[test]
fn who_is_lost_once_has_not_retired() {
    let mut bench = Bench::serving();
    let (first, user) = (bench.pe(), bench.pe());
    bench.asap(first, registration(1));
    bench.asap(user, subscription());
    bench.change(user, LinkChange::Congested);
    bench.down(first);
    let second = bench.pe();
    bench.asap(second, registration(1));
    bench.asap(second, Asap::Deregistration { handle: pool("echo"), id: PeId(1) });
    assert_eq!(bench.change(user, LinkChange::Drained), [resolved(user, true, &[], None, &[1])]);
}

#[test]
fn an_answer_does_not_overtake_who_retired() {
    let mut bench = Bench::serving();
    let (pe, user) = (bench.pe(), bench.pe());
    for id in 1..=2 {
        bench.asap(pe, registration(id));
    }
    bench.asap(user, subscription());
    // The first change is pushed at once, further ones later.
    bench.asap(pe, registration(3));
    bench.asap(pe, Asap::Deregistration { handle: pool("echo"), id: PeId(1) });
    let effects = bench.asap(user, subscription());
    assert!(
        matches!(&effects[0], Effect::Asap(_, Asap::HandleResolutionResponse { deregistered, .. }) if deregistered == &[PeId(1)]),
        "{effects:?}"
    );
    assert_eq!(effects[1..], [resolved(user, true, &[2, 3], None, &[])]);
    assert_eq!(bench.wait(ms(100)), []);
}

#[test]
fn elements_of_peers_retire_as_well() {
    let mut bench = Bench::serving();
    let (peer, user) = (bench.peer(PEER), bench.pe());
    for id in 1..=2 {
        bench.enrp(peer, PEER, update(id, PEER));
    }
    bench.asap(user, subscription());
    assert_eq!(
        bench.enrp(peer, PEER, retirement(1, PEER)).pop(),
        Some(with_retired(resolved_at(user, PEER, &[2]), &[1]))
    );
    bench.enrp(peer, PEER, removal(2, PEER));
    assert_eq!(bench.wait(ms(50)), [resolved(user, true, &[], None, &[2])]);
}

#[test]
fn subscriptions_are_bounded() {
    let (mut bench, _) = Bench::new(Config { max_subscriptions_per_link: 1, ..config() });
    let user = bench.pe();
    assert_eq!(bench.asap(user, subscription()), [unknown_pool(user, true)]);
    let other = Asap::HandleResolution { subscribe: true, handle: pool("other"), items: Some(u32::MAX) };
    let effects = bench.asap(user, other);
    assert!(
        matches!(&effects[..], [Effect::Asap(_, Asap::HandleResolutionResponse { subscribed: false, .. })]),
        "{effects:?}"
    );
}

#[test]
fn rates_are_limited_per_link() {
    let (mut bench, _) = Bench::new(Config {
        max_handle_resolution_rate: Some(2),
        max_endpoint_unreachable_rate: Some(1),
        ..config()
    });
    let (pe, user) = (bench.pe(), bench.pe());
    bench.asap(pe, registration(1));
    for _ in 0..2 {
        assert_eq!(bench.asap(user, resolution(None, false)), [resolved(user, false, &[1], None, &[])]);
    }
    assert_eq!(bench.asap(user, resolution(None, false)), [unknown_pool(user, false)]);
    assert_eq!(bench.asap(pe, resolution(None, false)), [resolved(pe, false, &[1], None, &[])]);
    let report = Asap::EndpointUnreachable { handle: pool("echo"), id: PeId(1) };
    bench.asap(user, report.clone());
    for _ in 0..5 {
        assert_eq!(bench.asap(user, report.clone()), []);
    }
}

#[test]
fn garbage_gets_an_error_but_errors_get_none() {
    let mut bench = Bench::serving();
    let pe = bench.pe();
    // A registration that ends after its handle.
    let broken = [1, 0, 0, 12, 0, 9, 0, 8, b'e', b'c', b'h', b'o'];
    bench.registrar.handle_message(bench.now, pe, &broken);
    let effects = bench.drain();
    assert!(matches!(&effects[..], [Saw(Event::Complaint { .. }), Effect::Asap(_, Asap::Error { .. })]));
    bench.registrar.handle_message(bench.now, pe, &broken);
    let effects = bench.drain();
    assert!(matches!(&effects[..], [Saw(Event::Complaint { .. }), Effect::Asap(_, Asap::Error { .. })]));
    // An error with a bad length inside.
    bench.registrar.handle_message(bench.now, pe, &[0x0e, 0, 0, 8, 0, 12, 0, 200]);
    assert!(bench.drain().iter().all(|effect| matches!(effect, Saw(_))));
}

#[test]
fn a_full_handlespace_says_so() {
    let (mut bench, _) = Bench::new(Config { max_elements: 1, ..config() });
    let pe = bench.pe();
    bench.asap(pe, registration(1));
    assert_eq!(bench.asap(pe, registration(2)), [rejected(pe, 2, CauseCode::LACK_OF_RESOURCES)]);
    assert_eq!(bench.asap(pe, registration(1)), [registered(pe, 1)]);
}

#[test]
fn a_hundred_thousand_elements_on_one_link_are_cheap() {
    let mut bench = Bench::serving();
    let pe = bench.pe();
    bench.register_many(pe, 1..=100_000);
    let before = bench.registrar.stats().keep_alives_sent;
    bench.wait(ms(1000));
    assert!(bench.registrar.stats().keep_alives_sent - before <= 3);
}

#[test]
fn what_a_partition_held_back_on_a_link_left_behind_changes_nothing() {
    let mut bench = Bench::serving();
    let old = bench.pe();
    bench.asap(old, registration(1));
    bench.wait(ms(10));
    let new = bench.pe();
    let mut changed = element(1);
    changed.policy = Policy::WeightedRoundRobin { weight: 7 };
    let mut first = element(1);
    first.policy = Policy::WeightedRoundRobin { weight: 1 };
    let say = |element: &PoolElement| Asap::Registration { handle: pool("heavy"), element: element.clone() };
    bench.asap(old, say(&first));
    bench.asap(new, registration(1));
    bench.asap(new, say(&changed));
    // The process has left the old link, over which an older word of its comes now, and then its end.
    let answers = bench.asap(old, registration(1));
    assert_eq!(answers, [registered(old, 1)]);
    bench.asap(old, say(&first));
    let gone = bench.change(old, LinkChange::Down(LinkDown::Closed));
    assert!(!gone.iter().any(|effect| matches!(effect, Saw(Event::ElementRemoved { .. }))), "{gone:?}");
    assert_eq!(bench.content("echo"), [(1, SELF)]);
    let heavy = bench.registrar.handlespace().pool(&pool("heavy")).expect("still there");
    let policies: Vec<_> = heavy.elements().map(|element| element.to_element().policy).collect();
    assert_eq!(policies, [changed.policy]);
    // And the new link is the one that is watched.
    let asked = bench.wait_quietly(ms(1200));
    assert!(
        asked.iter().any(
            |effect| matches!(effect, Effect::Asap(link, Asap::EndpointKeepAlive { .. }) if *link == new)
        )
    );
}

fn free(link: LinkId, id: u32) -> Effect {
    Effect::Asap(link, Asap::DeregistrationResponse { handle: pool("echo"), id: PeId(id), error: None })
}

#[test]
fn who_was_refused_hears_when_the_identifier_is_free() {
    let mut bench = Bench::serving();
    let first = bench.pe();
    bench.asap(first, registration(1));
    let twin = bench.accept(Service::Asap, LinkProtocol::Tcp, "10.0.0.10:40001");
    let mut element = element(1);
    element.transport = transport(Protocol::Tcp, TransportUse::DataPlusControl, "10.0.0.10:7");
    let again = Asap::Registration { handle: pool("echo"), element };
    let effects = bench.asap(twin, again.clone());
    assert!(matches!(effects[..], [Saw(Event::Complaint { .. }), Effect::Asap(..)]), "{effects:?}");
    let effects = bench.asap(first, Asap::Deregistration { handle: pool("echo"), id: PeId(1) });
    assert!(effects.contains(&free(twin, 1)), "{effects:?}");
    assert!(bench.asap(twin, again).contains(&registered(twin, 1)));
    // Once is enough.
    assert!(!bench.down(twin).contains(&free(twin, 1)));
}

#[test]
fn who_was_refused_over_sctp_is_asked_for_a_sign_of_life_when_the_identifier_is_free() {
    let mut bench = Bench::serving();
    let first = bench.pe();
    bench.asap(first, registration(1));
    let twin = bench.accept(Service::Asap, LinkProtocol::Sctp, "10.0.0.10:40001");
    let mut element = element(1);
    element.transport = transport(Protocol::Tcp, TransportUse::DataPlusControl, "10.0.0.10:7");
    let again = Asap::Registration { handle: pool("echo"), element };
    bench.asap(twin, again.clone());
    let effects = bench.asap(first, Asap::Deregistration { handle: pool("echo"), id: PeId(1) });
    assert!(effects.contains(&keep_alive(twin, false, 1)), "{effects:?}");
    assert_eq!(bench.asap(twin, ack(1)), []);
    assert!(bench.asap(twin, again).contains(&registered(twin, 1)));
}

/// It has the identifier, and registers it over two links in turn, each of which waits when the other one has it.
#[test]
fn who_waits_for_an_identifier_is_not_forgotten_for_another_host() {
    let mut bench = Bench::serving();
    let first = bench.pe();
    bench.asap(first, registration(1));
    let waits = bench.accept(Service::Asap, LinkProtocol::Tcp, "10.0.0.10:40001");
    let mut element = element(1);
    element.transport = transport(Protocol::Tcp, TransportUse::DataPlusControl, "10.0.0.10:7");
    let again = Asap::Registration { handle: pool("echo"), element };
    bench.asap(waits, again.clone());
    let mut links = vec![first];
    for _ in 0..3 {
        bench.wait(ms(10));
        links.push(bench.pe());
        bench.asap(links[links.len() - 1], registration(1));
    }
    let effects = bench.asap(links[3], Asap::Deregistration { handle: pool("echo"), id: PeId(1) });
    let told: Vec<LinkId> =
        links[..3].iter().chain([&waits]).copied().filter(|&link| effects.contains(&free(link, 1))).collect();
    // Of the other host's links one.
    assert_eq!(told, [links[2], waits], "{effects:?}");
    assert!(bench.asap(waits, again).contains(&registered(waits, 1)));
}

#[test]
fn of_many_hosts_that_wait_for_an_identifier_those_that_asked_last_hear() {
    let mut bench = Bench::serving();
    let first = bench.pe();
    bench.asap(first, registration(1));
    let mut waiting = Vec::new();
    for host in 10..16 {
        let at = |port: u16| format!("10.0.0.{host}:{port}");
        let link = bench.accept(Service::Asap, LinkProtocol::Tcp, &at(40_001));
        let mut element = element(1);
        element.transport = transport(Protocol::Tcp, TransportUse::DataPlusControl, &at(7));
        bench.asap(link, Asap::Registration { handle: pool("echo"), element });
        waiting.push(link);
    }
    let effects = bench.asap(first, Asap::Deregistration { handle: pool("echo"), id: PeId(1) });
    let told: Vec<LinkId> =
        waiting.iter().copied().filter(|&link| effects.contains(&free(link, 1))).collect();
    assert_eq!(told, waiting[2..]);
}

#[test]
fn of_more_rivals_than_are_kept_the_one_refused_first_waits_in_vain() {
    let mut bench = Bench::serving();
    let first = bench.pe();
    let twin = bench.accept(Service::Asap, LinkProtocol::Tcp, "10.0.0.10:40001");
    // The one with the largest identifier comes first.
    let ids: Vec<u32> = (1..=1025).rev().collect();
    for &id in &ids {
        let mut other = element(id);
        other.transport = transport(Protocol::Tcp, TransportUse::DataPlusControl, "10.0.0.10:7");
        for (link, element) in [(first, element(id)), (twin, other)] {
            let message = Asap::Registration { handle: pool("echo"), element };
            bench.registrar.handle_message(bench.now, link, &message.encode());
            while bench.registrar.poll_output().is_some() {}
        }
    }
    let effects = bench.down(first);
    let effects: Vec<Effect> = effects.into_iter().chain(bench.wait(ms(1))).collect();
    let told: Vec<u32> = ids.into_iter().filter(|&id| effects.contains(&free(twin, id))).collect();
    assert_eq!((told.len(), told[0]), (1024, 1024));
}

#[test]
fn the_twin_on_the_same_host_that_is_left_hears_that_the_other_one_left() {
    let mut bench = Bench::serving();
    let first = bench.pe();
    bench.asap(first, registration(1));
    bench.wait(ms(10));
    let second = bench.pe();
    bench.asap(second, registration(1));
    let effects = bench.down(second);
    assert!(effects.contains(&free(first, 1)), "{effects:?}");
    assert!(bench.asap(first, registration(1)).contains(&registered(first, 1)));
}

#[test]
fn one_that_begins_alone_answers_late_instead_of_wrong() {
    let (mut bench, _) = Bench::new(Config { id: SELF, ..Config::default() });
    let user = bench.pe();
    let ask =
        |pool_name: &str| Asap::HandleResolution { subscribe: false, handle: pool(pool_name), items: None };
    assert_eq!(bench.asap(user, ask("echo")), []);
    assert_eq!(bench.asap(user, ask("other")), []);
    bench.wait(ms(300));
    let pe = bench.pe();
    let effects = bench.asap(pe, registration(1));
    let answers = effects.iter().filter(|effect| {
        matches!(effect, Effect::Asap(link, Asap::HandleResolutionResponse { elements, error: None, .. })
            if *link == user && elements.len() == 1)
    });
    assert_eq!(answers.count(), 1, "{effects:?}");
    // Who asks for it now is answered at once, and who asks for what does not come back, in the end.
    assert_eq!(bench.asap(user, ask("echo")).len(), 1);
    let effects = bench.wait_quietly(ms(1250));
    let unknown = |effect: &&Effect| {
        matches!(effect, Effect::Asap(link, Asap::HandleResolutionResponse { error: Some(error), .. })
            if *link == user && error.code() == crate::wire::CauseCode::UNKNOWN_POOL)
    };
    assert_eq!(effects.iter().filter(unknown).count(), 1, "{effects:?}");
    assert_eq!(bench.asap(user, ask("third")).iter().filter(unknown).count(), 1);
}

#[test]
fn what_waits_for_elements_to_come_back_is_bounded_and_goes_with_its_link() {
    let (mut bench, _) = Bench::new(Config { id: SELF, ..Config::default() });
    let user = bench.pe();
    let mut answered = 0;
    for n in 0..2000u32 {
        let handle = PoolHandle::new(format!("no pool {n}").as_bytes()).expect("a legal handle");
        answered += bench.asap(user, Asap::HandleResolution { subscribe: false, handle, items: None }).len();
    }
    assert!((1000..2000).contains(&answered), "{answered} answered at once");
    bench.down(user);
    bench.wait(ms(2000));
    assert!(bench.registrar.accounts().iter().all(|account| account.bytes == 0));
}
