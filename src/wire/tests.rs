//! What the room promises, for messages that nobody thought of.

mod mapping;

use super::enrp::UpdateAction;
use super::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

mod rfc;

fn handle() -> impl Strategy<Value = PoolHandle> {
    vec(any::<u8>(), 1..40).prop_map(|bytes| PoolHandle::new(&bytes).unwrap())
}

fn pe_id() -> impl Strategy<Value = PeId> {
    any::<u32>().prop_map(PeId)
}

fn registrar() -> impl Strategy<Value = RegistrarId> {
    any::<u32>().prop_map(RegistrarId)
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|octets| IpAddr::V4(Ipv4Addr::from(octets))),
        any::<[u8; 16]>().prop_map(|octets| IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()),
    ]
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![
        Just(Protocol::Sctp),
        Just(Protocol::Tcp),
        Just(Protocol::Udp),
        Just(Protocol::UdpLite),
        any::<u32>().prop_map(|service_code| Protocol::Dccp { service_code }),
    ]
}

fn transport() -> impl Strategy<Value = Transport> {
    prop_oneof![
        8 => (protocol(), any::<u16>(), any::<u16>(), vec(address(), 0..5)).prop_map(
            |(protocol, port, usage, addresses)| {
                Transport::new(protocol, TransportUse::from_code(usage), port, addresses)
            }
        ),
        1 => vec(any::<u8>(), 0..20).prop_map(Transport::Opaque),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    let known = prop::sample::select(PolicyType::ALL).prop_map(|(code, _)| code.0);
    (prop_oneof![4 => known, 1 => any::<u32>()], vec(any::<u8>(), 16)).prop_map(|(policy_type, bytes)| {
        // Reading is the shortest way to a policy of every type.
        let value = [&policy_type.to_be_bytes()[..], &bytes].concat();
        let mut tlv = vec![0, 8, 0, (4 + value.len()) as u8];
        tlv.extend(value);
        let handle = [0, 9, 0, 5, b'x', 0, 0, 0];
        let message = [&[6, 0, 0, (4 + handle.len() + tlv.len()) as u8], &handle[..], &tlv].concat();
        match Asap::decode(&message).unwrap().message {
            Asap::HandleResolutionResponse { policy: Some(policy), .. } => policy,
            other => panic!("{other}"),
        }
    })
}

fn element() -> impl Strategy<Value = PoolElement> {
    (pe_id(), registrar(), any::<u32>(), transport(), policy(), option::of(transport())).prop_map(
        |(id, home, life, transport, policy, asap)| PoolElement { id, home, life, transport, policy, asap },
    )
}

fn server() -> impl Strategy<Value = ServerInformation> {
    (registrar(), vec(transport(), 0..3)).prop_map(|(id, transports)| ServerInformation { id, transports })
}

fn error() -> impl Strategy<Value = OperationError> {
    vec((any::<u16>(), vec(any::<u8>(), 0..10)), 0..3).prop_map(|causes| {
        OperationError(causes.into_iter().map(|(code, data)| Cause { code: CauseCode(code), data }).collect())
    })
}

fn asap() -> impl Strategy<Value = Asap> {
    prop_oneof![
        (handle(), element()).prop_map(|(handle, element)| Asap::Registration { handle, element }),
        (handle(), pe_id()).prop_map(|(handle, id)| Asap::Deregistration { handle, id }),
        (any::<bool>(), handle(), pe_id(), option::of(error())).prop_map(|(rejected, handle, id, error)| {
            Asap::RegistrationResponse { rejected, handle, id, error }
        }),
        (handle(), pe_id(), option::of(error()))
            .prop_map(|(handle, id, error)| Asap::DeregistrationResponse { handle, id, error }),
        (any::<bool>(), handle(), option::of(any::<u32>()))
            .prop_map(|(subscribe, handle, items)| Asap::HandleResolution { subscribe, handle, items }),
        (
            any::<bool>(),
            handle(),
            option::of(error()),
            option::of(policy()),
            vec(element(), 0..5),
            option::of(any::<u32>()),
            vec(pe_id(), 0..5),
            vec(pe_id(), 0..5),
        )
            .prop_map(|(subscribed, handle, error, policy, elements, total, lost, deregistered)| {
                Asap::HandleResolutionResponse {
                    subscribed,
                    handle,
                    error,
                    policy,
                    elements,
                    total,
                    lost,
                    deregistered,
                }
            }),
        (any::<bool>(), registrar(), handle(), option::of(pe_id())).prop_map(
            |(home, registrar, handle, id)| Asap::EndpointKeepAlive { home, registrar, handle, id }
        ),
        (handle(), pe_id()).prop_map(|(handle, id)| Asap::EndpointKeepAliveAck { handle, id }),
        (handle(), pe_id()).prop_map(|(handle, id)| Asap::EndpointUnreachable { handle, id }),
        (registrar(), vec(transport(), 0..4))
            .prop_map(|(registrar, transports)| Asap::ServerAnnounce { registrar, transports }),
        vec(any::<u8>(), 0..50).prop_map(|cookie| Asap::Cookie { cookie }),
        vec(any::<u8>(), 0..50).prop_map(|cookie| Asap::CookieEcho { cookie }),
        (handle(), option::of(policy()), vec(element(), 0..3))
            .prop_map(|(handle, policy, elements)| Asap::BusinessCard { handle, policy, elements }),
        error().prop_map(|error| Asap::Error { error }),
    ]
}

fn enrp() -> impl Strategy<Value = EnrpMessage> {
    let action = prop_oneof![Just(UpdateAction::Add), Just(UpdateAction::Delete)];
    let body = prop_oneof![
        (any::<bool>(), option::of(any::<[u8; 2]>()), option::of(server())).prop_map(
            |(reply_required, checksum, server)| Enrp::Presence { reply_required, checksum, server }
        ),
        any::<bool>().prop_map(|own_only| Enrp::HandleTableRequest { own_only }),
        (any::<bool>(), any::<bool>(), vec((handle(), vec(element(), 0..3)), 0..3))
            .prop_map(|(rejected, more, pools)| Enrp::HandleTableResponse { rejected, more, pools }),
        (any::<bool>(), action, handle(), element()).prop_map(
            |(takeover_suggested, action, handle, element)| Enrp::HandleUpdate {
                takeover_suggested,
                action,
                handle,
                element
            }
        ),
        Just(Enrp::ListRequest),
        (any::<bool>(), vec(server(), 0..4))
            .prop_map(|(rejected, servers)| Enrp::ListResponse { rejected, servers }),
        registrar().prop_map(|target| Enrp::InitTakeover { target }),
        registrar().prop_map(|target| Enrp::InitTakeoverAck { target }),
        registrar().prop_map(|target| Enrp::TakeoverServer { target }),
        error().prop_map(|error| Enrp::Error { error }),
    ];
    (registrar(), registrar(), body).prop_map(|(sender, receiver, body)| EnrpMessage {
        sender,
        receiver,
        body,
    })
}

fn known<M>(message: M) -> Result<Decoded<M>, DecodeError> {
    Ok(Decoded { message, unrecognized: Vec::new() })
}

/// Whatever the bytes: no panic, one line, and what decodes has one encoding that decodes to it.
fn check_bytes(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Some((handle, items)) = Asap::plain_resolution(bytes) {
        let handle = PoolHandle::new(handle).unwrap();
        let message = Asap::HandleResolution { subscribe: false, handle, items };
        prop_assert_eq!(Asap::decode(bytes), known(message));
    }
    if let Ok(Decoded { message, .. }) = Asap::decode(bytes) {
        prop_assert_eq!(Asap::decode(&message.encode()), known(message));
    }
    if let Ok(Decoded { message, .. }) = EnrpMessage::decode(bytes) {
        prop_assert_eq!(EnrpMessage::decode(&message.encode()), known(message));
    }
    if let Ok(report) = CspReport::decode(bytes) {
        prop_assert_eq!(CspReport::decode(&report.encode()), Ok(report));
    }
    for line in [show::asap(bytes), show::enrp(bytes), show::csp(bytes)] {
        prop_assert!(!line.contains(|c: char| c.is_control()), "{}", line);
    }
    Ok(())
}

/// Offsets of the parameters on the level of the message; `fixed` is where the first one is.
fn boundaries(bytes: &[u8], fixed: usize) -> Vec<usize> {
    let mut all = vec![fixed];
    while let Some([_, _, high, low]) = bytes.get(all[all.len() - 1]..).and_then(|rest| rest.first_chunk()) {
        let length = usize::from(u16::from_be_bytes([*high, *low])).next_multiple_of(4);
        all.push(all[all.len() - 1] + length);
    }
    all
}

/// `message` with `tlv` put in at `at`.
fn insert(message: &[u8], at: usize, tlv: &[u8]) -> Vec<u8> {
    let mut bytes = [&message[..at], tlv, &message[at..]].concat();
    let length = (bytes.len() as u16).to_be_bytes();
    bytes[2..4].copy_from_slice(&length);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn asap_there_and_back(message in asap()) {
        let bytes = message.encode();
        prop_assert_eq!(bytes.len(), message.encoded_len());
        prop_assert_eq!(frame::first_message(&bytes), Ok(Some(bytes.len())));
        let plain = match &message {
            Asap::HandleResolution { subscribe: false, handle, items } => Some((handle.as_bytes(), *items)),
            _ => None,
        };
        prop_assert_eq!(Asap::plain_resolution(&bytes), plain);
        let mut exact = Vec::new();
        message.encode_with(Lengths::Exact, &mut exact);
        prop_assert_eq!(exact.len(), bytes.len());
        prop_assert_eq!(frame::first_message(&exact), Ok(Some(bytes.len())));
        prop_assert_eq!(Asap::decode(&exact), known(message.clone()));
        // The padding need not even be there.
        let length = usize::from(u16::from_be_bytes([exact[2], exact[3]]));
        prop_assert_eq!(Asap::decode(&exact[..length]), known(message.clone()));
        prop_assert_eq!(Asap::decode(&bytes), known(message));
    }

    #[test]
    fn enrp_there_and_back(message in enrp()) {
        let bytes = message.encode();
        prop_assert_eq!(bytes.len(), message.encoded_len());
        prop_assert_eq!(frame::first_message(&bytes), Ok(Some(bytes.len())));
        let mut exact = Vec::new();
        message.encode_with(Lengths::Exact, &mut exact);
        prop_assert_eq!(exact.len(), bytes.len());
        prop_assert_eq!(EnrpMessage::decode(&exact), known(message.clone()));
        prop_assert_eq!(EnrpMessage::decode(&bytes), known(message));
    }

    /// RFC 5354 does not say that the order of a figure binds, nor that a message with a known parameter too many
    /// is none. Where several of a kind are meant, their order stays.
    #[test]
    fn parameters_in_another_order_and_unexpected_ones(
        message in asap(),
        turn in any::<prop::sample::Index>(),
        stranger in prop::sample::select(vec![
            &[0, 15, 0, 6, 1, 2, 0, 0][..],
            &[0x80, 9, 0, 4],
            &[0x80, 0x19, 0, 5, 7, 0, 0, 0],
            &[0, 11, 0, 8, 0, 0, 0, 1],
        ]),
    ) {
        let bytes = message.encode();
        let fixed = if matches!(message.kind(), AsapType::ENDPOINT_KEEP_ALIVE | AsapType::SERVER_ANNOUNCE) { 8 } else { 4 };
        let places = boundaries(&bytes, fixed);
        let parts: Vec<&[u8]> = places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        let kinds: std::collections::BTreeSet<&[u8]> = parts.iter().map(|part| &part[..2]).collect();
        let mut turned = parts.clone();
        // What stands more than once would change places among itself; transports of several types do as well.
        let several = kinds.len() < parts.len() || message.kind() == AsapType::SERVER_ANNOUNCE;
        if !several && !parts.is_empty() {
            turned.rotate_left(turn.index(parts.len()));
        }
        let turned = [&bytes[..fixed], &turned.concat()].concat();
        prop_assert_eq!(Asap::decode(&turned), known(message.clone()));
        let place = places[turn.index(places.len())];
        prop_assert_eq!(Asap::decode(&insert(&bytes, place, stranger)), known(message));
    }

    /// RFC 5354 section 4: 0 when sent, ignored when read.
    #[test]
    fn flags_that_nobody_defined(one in asap(), other in enrp(), flags in any::<u8>()) {
        let own = match one.kind() {
            AsapType::REGISTRATION_RESPONSE
            | AsapType::HANDLE_RESOLUTION
            | AsapType::HANDLE_RESOLUTION_RESPONSE
            | AsapType::ENDPOINT_KEEP_ALIVE => 1,
            _ => 0,
        };
        let mut bytes = one.encode();
        prop_assert_eq!(bytes[1] & !own, 0);
        bytes[1] |= flags & !own;
        prop_assert_eq!(Asap::decode(&bytes), known(one));
        // Of a handle update, the flag is rsplib's.
        let own = match other.body {
            Enrp::Presence { .. } | Enrp::HandleTableRequest { .. } | Enrp::HandleUpdate { .. } => 1,
            Enrp::HandleTableResponse { .. } => 3,
            Enrp::ListResponse { .. } => 1,
            _ => 0,
        };
        let mut bytes = other.encode();
        prop_assert_eq!(bytes[1] & !own, 0);
        bytes[1] |= flags & !own;
        prop_assert_eq!(EnrpMessage::decode(&bytes), known(other));
    }

    #[test]
    fn any_bytes(bytes in vec(any::<u8>(), 0..200)) {
        check_bytes(&bytes)?;
    }

    #[test]
    fn damaged_messages(
        message in prop_oneof![
            asap().prop_map(|message| message.encode()),
            enrp().prop_map(|message| message.encode()),
        ],
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = message;
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        check_bytes(&bytes)?;
        check_bytes(&bytes[..cut.index(bytes.len())])?;
    }

    /// RFC 5354 counts the final padding neither in the message nor in its last parameter.
    #[test]
    fn final_padding_is_optional(cookie in vec(any::<u8>(), 0..20), with_padding in any::<bool>()) {
        let mut bytes = Asap::Cookie { cookie: cookie.clone() }.encode();
        let length = 8 + cookie.len();
        bytes[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        if !with_padding {
            bytes.truncate(length);
        }
        prop_assert_eq!(Asap::decode(&bytes), known(Asap::Cookie { cookie }));
    }

    #[test]
    fn bytes_behind_the_message_do_not_matter(message in asap(), more in vec(any::<u8>(), 0..20)) {
        let bytes = [message.encode(), more].concat();
        prop_assert_eq!(Asap::decode(&bytes), known(message));
    }

    #[test]
    fn unknown_parameters(
        message in asap(),
        place in any::<prop::sample::Index>(),
        low in 0x11u16..0x3d,
        high in 0u16..4,
        value in vec(any::<u8>(), 0..9),
    ) {
        let bytes = message.encode();
        let fixed = if matches!(message.kind(), AsapType::ENDPOINT_KEEP_ALIVE | AsapType::SERVER_ANNOUNCE) { 8 } else { 4 };
        let mut tlv = (high << 14 | low).to_be_bytes().to_vec();
        tlv.extend(((4 + value.len()) as u16).to_be_bytes());
        tlv.extend(&value);
        let padded = [&tlv[..], &[0; 3][..tlv.len().next_multiple_of(4) - tlv.len()]].concat();
        let places = boundaries(&bytes, fixed);
        let decoded = Asap::decode(&insert(&bytes, places[place.index(places.len())], &padded));
        let is_error = message.kind() == AsapType::ERROR;
        match high {
            0 => prop_assert_eq!(decoded.unwrap_err().cause, None),
            1 => {
                let cause = Cause { code: CauseCode::UNRECOGNIZED_PARAMETER, data: tlv };
                prop_assert_eq!(decoded.unwrap_err().cause, (!is_error).then_some(cause));
            }
            2 => prop_assert_eq!(decoded, known(message)),
            _ => {
                let unrecognized = if is_error { vec![] } else { vec![tlv] };
                prop_assert_eq!(decoded, Ok(Decoded { message, unrecognized }));
            }
        }
    }
}

fn small_element(id: u32) -> PoolElement {
    PoolElement {
        id: PeId(id),
        home: RegistrarId(0x1111_1111),
        life: 15_000,
        transport: Transport::new(
            Protocol::Sctp,
            TransportUse::DataPlusControl,
            36179,
            vec![IpAddr::from([10, 1, 1, 1])],
        ),
        policy: Policy::RoundRobin,
        asap: None,
    }
}

/// The example packets of rsplib 3.4.4 that other tests build on, from values to bytes.
#[test]
fn reference_packets() {
    let handle = PoolHandle::new(b"EchoPool").unwrap();
    let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let registrar = RegistrarId(0x1111_1111);
    let id = PeId(0xabcd_1234);
    let announce = Asap::ServerAnnounce { registrar, transports: vec![] };
    assert_eq!(hex(announce.encode()), "0a00000811111111");
    let element = PoolElement { home: RegistrarId(0), ..small_element(id.0) };
    assert_eq!(
        hex(Asap::Registration { handle: handle.clone(), element }.encode()),
        "010000380009000c4563686f506f6f6c000a0028abcd12340000000000003a98\
         000400108d530001000100080a0101010008000800000001"
    );
    let resolution = Asap::HandleResolution { subscribe: false, handle: handle.clone(), items: Some(1) };
    assert_eq!(hex(resolution.encode()), "050000180009000c4563686f506f6f6c803f000800000001");
    let response = Asap::HandleResolutionResponse {
        subscribed: false,
        handle: handle.clone(),
        error: None,
        policy: Some(Policy::RoundRobin),
        elements: vec![small_element(id.0)],
        total: None,
        lost: vec![],
        deregistered: vec![],
    };
    assert_eq!(
        hex(response.encode()),
        "060000400009000c4563686f506f6f6c0008000800000001000a0028abcd12341111111100003a98\
         000400108d530001000100080a0101010008000800000001"
    );
    let keep_alive = Asap::EndpointKeepAlive { home: false, registrar, handle, id: Some(id) };
    assert_eq!(hex(keep_alive.encode()), "0700001c111111110009000c4563686f506f6f6c000e0008abcd1234");
    let takeover = EnrpMessage {
        sender: RegistrarId(0x2222_2222),
        receiver: RegistrarId(0x3333_3333),
        body: Enrp::InitTakeover { target: registrar },
    };
    assert_eq!(hex(takeover.encode()), "07000010222222223333333311111111");
}

/// Messages can be filled to the last byte by adding up lengths.
#[test]
fn full_messages_fit() {
    let handle = PoolHandle::new(b"EchoPool").unwrap();
    let mut elements = Vec::new();
    let mut room = MAX_MESSAGE - 4 - handle.encoded_len() - Policy::RoundRobin.encoded_len();
    for id in 1.. {
        let element = small_element(id);
        let Some(left) = room.checked_sub(element.encoded_len()) else { break };
        room = left;
        elements.push(element);
    }
    let response = Asap::HandleResolutionResponse {
        subscribed: false,
        handle,
        error: None,
        policy: Some(Policy::RoundRobin),
        elements,
        total: None,
        lost: vec![],
        deregistered: vec![],
    };
    assert!(response.fits() && room < small_element(0).encoded_len());
    assert_eq!(Asap::decode(&response.encode()), known(response));
    let longest = Asap::Cookie { cookie: vec![7; MAX_MESSAGE - 8] };
    assert!(longest.fits());
    assert_eq!(Asap::decode(&longest.encode()), known(longest));
    assert!(!Asap::Cookie { cookie: vec![7; MAX_MESSAGE - 7] }.fits());
}

#[test]
fn an_answer_is_due_or_not() {
    let cause = |bytes: &[u8]| Asap::decode(bytes).unwrap_err().cause.map(|cause| cause.code);
    let error = AsapType::ERROR.0;
    // Unknown message types, by their two high bits.
    assert_eq!(cause(&[0x3f, 0, 0, 4]), None);
    assert_eq!(cause(&[0x7f, 0, 0, 4]), Some(CauseCode::UNRECOGNIZED_MESSAGE));
    assert_eq!(cause(&[0xff, 0, 0, 4]), None);
    // Never to an error.
    assert_eq!(cause(&[error, 0, 0, 4]), None);
    assert_eq!(cause(&[error, 0, 0, 3]), None);
    assert_eq!(cause(&[error, 0, 0, 8, 0x7f, 0xff, 0, 4]), None);
    assert_eq!(cause(&[2, 0, 0, 4]), Some(CauseCode::INVALID_VALUES));
    assert_eq!(cause(&[5, 0, 0, 8, 0, 9, 0, 4]), Some(CauseCode::INVALID_VALUES));
}

#[test]
fn transports_have_bounds() {
    let address = |last: u8| IpAddr::from([10, 0, 0, last]);
    let many = Transport::new(Protocol::Sctp, TransportUse::DataOnly, 1, (0..=255).map(address).collect());
    assert_eq!(many.addresses().len(), param::MAX_ADDRESSES);
    let mapped =
        Transport::new(Protocol::Tcp, TransportUse::DataOnly, 1, vec!["::ffff:192.0.2.7".parse().unwrap()]);
    assert_eq!(mapped.to_string(), "tcp 192.0.2.7:1");
    let mut bytes = Asap::ServerAnnounce { registrar: RegistrarId(1), transports: vec![many] }.encode();
    let ip = [0, 1, 0, 8, 10, 0, 0, 1];
    bytes.extend(ip);
    let length = bytes.len() as u16;
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    bytes[10..12].copy_from_slice(&(length - 8).to_be_bytes());
    assert_eq!(Asap::decode(&bytes).unwrap_err().reason, "too many addresses");
}

/// However much somebody wants reported, the report fits.
#[test]
fn reports_fit() {
    let handle = [0, 9, 0, 5, b'x', 0, 0, 0];
    let report = |unknown: &[u8], times: usize| {
        let mut bytes = [&[5, 0, 0, 0], &handle[..], &unknown.repeat(times)].concat();
        let length = (bytes.len() as u16).to_be_bytes();
        bytes[2..4].copy_from_slice(&length);
        Asap::decode(&bytes).unwrap().report()
    };
    assert_eq!(report(&[], 0), None);
    let many = report(&[0xff, 1, 0, 4], 16_000).unwrap();
    assert_eq!(many.0.len(), 64);
    let long = report(&[&[0xff, 1, 0xc3, 0x50][..], &[0; 49_996]].concat(), 1).unwrap();
    assert_eq!(long.0[0].data.len(), 50_000);
    let too_long = [&[0xff, 1, 0xff, 0xe0][..], &[0; 65_500]].concat();
    assert_eq!(report(&too_long, 1), None);
    for error in [many, long] {
        let (sender, receiver) = (RegistrarId(1), RegistrarId(2));
        assert!(EnrpMessage { sender, receiver, body: Enrp::Error { error } }.fits());
    }
}
