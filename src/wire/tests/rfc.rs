//! Messages written down from the RFCs' bit boxes, also in the forms that rsplib never sends: they
//! mean what the RFCs say.
//!
//! Lengths in here are the RFCs': without the padding at the end of a message or parameter.

use super::*;

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// Whether the bytes count all padding, so that they are what we would send as well.
#[derive(PartialEq)]
enum Form {
    /// There is one way to say it.
    Exact,
    /// We say it differently.
    Other,
}
use Form::{Exact, Other};

#[track_caller]
fn asap(form: Form, line: &str, hex: &str) {
    let bytes = unhex(hex);
    assert_eq!(show::asap(&bytes), format!("ASAP {line}"));
    let decoded = Asap::decode(&bytes).unwrap();
    let again = decoded.message.encode();
    assert_eq!(Asap::decode(&again).unwrap().message, decoded.message);
    assert_eq!(again == bytes, form == Exact, "encoded anew: {again:02x?}");
}

#[track_caller]
fn enrp(form: Form, line: &str, hex: &str) {
    let bytes = unhex(hex);
    assert_eq!(show::enrp(&bytes), format!("ENRP {line}"));
    let decoded = EnrpMessage::decode(&bytes).unwrap();
    let again = decoded.message.encode();
    assert_eq!(EnrpMessage::decode(&again).unwrap().message, decoded.message);
    assert_eq!(again == bytes, form == Exact, "encoded anew: {again:02x?}");
}

/// RFC 5352 section 2.2.1 with RFC 5354 section 3.10: the element brings its ASAP transport, and
/// lives for ever (-1).
#[test]
fn registration_with_asap_transport() {
    asap(
        Exact,
        "Registration pool=\"pool\" pe=0x00000001 home=0x00000000 life=forever \
         sctp+control 192.0.2.1:7,[2001:db8::1]:7 RoundRobin asap=sctp 192.0.2.1:4000",
        "01 00 0058  0009 0008 706f6f6c
         000a 004c 00000001 00000000 ffffffff
           0004 0024 0007 0001 0001 0008 c0000201 0002 0014 20010db8 00000000 00000000 00000001
           0008 0008 00000001
           0004 0010 0fa0 0000 0001 0008 c0000201",
    );
}

/// RFC 5354 sections 3.3 to 3.7 and 3.16: every transport that a user may be told of.
#[test]
fn registration_over_every_transport() {
    let with = |transport: &str, shown: &str| {
        let transport_len = unhex(transport).len();
        let (element, message) = (4 + 12 + transport_len + 8, 4 + 8 + 4 + 12 + transport_len + 8);
        asap(
            Exact,
            &format!(
                "Registration pool=\"pool\" pe=0x00000001 home=0x00000000 life=30s {shown} \
                 WeightedRandom(weight=5)"
            ),
            &format!(
                "01 00 {:04x} 0009 0008 706f6f6c 000a {:04x} 00000001 00000000 00007530 {transport}
                 0008 000c 00000004 00000005",
                message + 4,
                element + 4
            ),
        );
    };
    with("0003 0014 0007 0000 64697363 0001 0008 c0000201", "dccp[0x64697363] 192.0.2.1:7");
    with("0004 0018 0007 0000 0001 0008 c0000201 0001 0008 c0000202", "sctp 192.0.2.1:7,192.0.2.2:7");
    with("0005 0010 0007 0000 0001 0008 c0000201", "tcp 192.0.2.1:7");
    with("0006 001c 0007 0000 0002 0014 20010db8 00000000 00000000 00000007", "udp [2001:db8::7]:7");
    with("0007 0010 0007 0000 0001 0008 c0000201", "udplite 192.0.2.1:7");
    with("0010 000c 01020304 05060708", "opaque 0x0102030405060708");
}

/// RFC 5356 section 3: all nine, in an answer without error.
#[test]
fn every_policy() {
    let with = |policy: &str, shown: &str| {
        let length = 4 + 8 + unhex(policy).len();
        asap(
            Exact,
            &format!("HandleResolutionResponse pool=\"pool\" {shown}"),
            &format!("06 00 {length:04x} 0009 0008 706f6f6c {policy}"),
        );
    };
    with("0008 0008 00000001", "RoundRobin");
    with("0008 000c 00000002 00000007", "WeightedRoundRobin(weight=7)");
    with("0008 0008 00000003", "Random");
    with("0008 000c 00000004 00000007", "WeightedRandom(weight=7)");
    with("0008 000c 00000005 00000007", "Priority(priority=7)");
    with("0008 000c 40000001 80000000", "LeastUsed(load=50.00%)");
    with("0008 0010 40000002 80000000 19999999", "LeastUsedDegradation(load=50.00%, degradation=10.00%)");
    with("0008 0010 40000003 80000000 19999999", "PriorityLeastUsed(load=50.00%, degradation=10.00%)");
    with("0008 000c 40000004 ffffffff", "RandomizedLeastUsed(load=100.00%)");
    // Private use, and invalid: kept as they are.
    with("0008 000c 80000001 00000007", "0x80000001(00000007)");
    with("0008 0008 00000000", "0x0");
}

/// The numbers themselves: RFC 5352 sections 2.2, 8.2 and 8.3, RFC 5353 sections 2, 5.3 and 5.4, RFC 5354
/// sections 3 and 3.12, RFC 5356 section 7.1. What else is written down here goes by names.
#[test]
fn code_points_are_the_rfcs() {
    let parameters = "IPv4 Address, IPv6 Address, DCCP Transport, SCTP Transport, TCP Transport, UDP Transport, \
                      UDP-Lite Transport, Pool Member Selection Policy, Pool Handle, Pool Element, \
                      Server Information, Operation Error, Cookie, PE Identifier, PE Checksum, Opaque Transport";
    for (number, name) in (1..).zip(parameters.split(", ")) {
        assert_eq!(ParamType::by_name(name), Some(ParamType(number)), "{name}");
    }
    let private = ParamType::ALL.iter().filter(|(code, _)| !code.is_standard()).collect::<Vec<_>>();
    assert_eq!((private.len(), ParamType::ALL.len()), (3, 19));
    assert!(private.iter().all(|(code, _)| Unknown::of(*code) == Unknown::Skip), "{private:?}");
    assert!(!ParamType(0xffff).is_standard(), "reserved");
    let asap = "Registration Deregistration RegistrationResponse DeregistrationResponse HandleResolution \
                HandleResolutionResponse EndpointKeepAlive EndpointKeepAliveAck EndpointUnreachable ServerAnnounce \
                Cookie CookieEcho BusinessCard Error";
    for (number, name) in (1..).zip(asap.split_whitespace()) {
        assert_eq!(AsapType::by_name(name), Some(AsapType(number)), "{name}");
    }
    let enrp = "Presence HandleTableRequest HandleTableResponse HandleUpdate ListRequest ListResponse InitTakeover \
                InitTakeoverAck TakeoverServer Error";
    for (number, name) in (1..).zip(enrp.split_whitespace()) {
        assert_eq!(EnrpType::by_name(name), Some(EnrpType(number)), "{name}");
    }
    use CauseCode as C;
    let causes = [
        C::UNSPECIFIED,
        C::UNRECOGNIZED_PARAMETER,
        C::UNRECOGNIZED_MESSAGE,
        C::INVALID_VALUES,
        C::NON_UNIQUE_PE_ID,
        C::INCONSISTENT_POLICY,
        C::LACK_OF_RESOURCES,
        C::INCONSISTENT_TRANSPORT,
        C::INCONSISTENT_CONTROL,
        C::UNKNOWN_POOL,
        C::SECURITY,
    ];
    assert_eq!(causes.map(|cause| cause.0), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0xa]);
    let policies = "RoundRobin WeightedRoundRobin Random WeightedRandom Priority";
    let adaptive = "LeastUsed LeastUsedDegradation PriorityLeastUsed RandomizedLeastUsed";
    for (from, names) in [(1, policies), (0x4000_0001, adaptive)] {
        for (number, name) in (from..).zip(names.split_whitespace()) {
            assert_eq!(PolicyType::by_name(name), Some(PolicyType(number)), "{name}");
        }
    }
    assert_eq!([ASAP_PORT, ASAP_TLS_PORT, ENRP_PORT, ENRP_TLS_PORT], [3863, 3864, 9901, 9902]);
    assert_eq!([PPID_ASAP, PPID_ENRP], [11, 12]);
}

/// RFC 5352 section 2.2.2.
#[test]
fn a_deregistration() {
    asap(
        Exact,
        "Deregistration pool=\"pool\" pe=0x00000001",
        "02 00 0014 0009 0008 706f6f6c 000e 0008 00000001",
    );
}

/// RFC 5354 sections 3 and 4: what stands in the padding does not matter, at whatever depth.
#[test]
fn padding_is_not_looked_at() {
    asap(Other, "HandleResolution pool=\"pools\"", "05 00 0010 0009 0009 706f6f6c73 ffffff");
    asap(Other, "HandleResolution pool=\"pools\"", "05 00 000d 0009 0009 706f6f6c73 ffffff");
    enrp(
        Other,
        "Presence from=0x0000000a to=0x0000000b checksum=0xbeef",
        "01 00 0014 0000000a 0000000b 000f 0006 beef ffff",
    );
    asap(
        Other,
        "Registration pool=\"pool\" pe=0x00000001 home=0x00000000 life=30s opaque 0x01 0x80000009(aa)",
        "01 00 0030 0009 0008 706f6f6c
         000a 0024 00000001 00000000 00007530 0010 0005 01 ffffff 0008 0009 80000009 aa ffffff",
    );
}

/// RFC 5354 sections 3.1 and 3.2: an address parameter has 8 bytes, or 20.
#[test]
fn addresses_have_one_length() {
    for (address, good) in [
        ("0001 0008 c0000201", true),
        ("0001 0007 c00002 00", false),
        ("0001 000c c0000201 00000000", false),
        ("0002 0014 20010db8 00000000 00000000 00000007", true),
        ("0002 0008 20010db8", false),
        ("0002 0018 20010db8 00000000 00000000 00000007 00000000", false),
    ] {
        let bytes = unhex(address).len() as u16;
        let announce =
            format!("0a 00 {:04x} 0000000a 0005 {:04x} 0f17 0000 {address}", 16 + bytes, 8 + bytes);
        let decoded = Asap::decode(&unhex(&announce));
        assert_eq!(decoded.is_ok(), good, "{address}: {decoded:?}");
        if let Err(error) = decoded {
            assert_eq!(error.cause.map(|cause| cause.code), Some(CauseCode::INVALID_VALUES), "{address}");
        }
    }
}

/// RFC 5352 section 2.2.3: a warning with R=0, a refusal with R=1; 2.2.4; causes of RFC 5354 section 3.12.
#[test]
fn responses_to_elements() {
    asap(
        Exact,
        "RegistrationResponse pool=\"pool\" pe=0x00000001",
        "03 00 0014 0009 0008 706f6f6c 000e 0008 00000001",
    );
    asap(
        Exact,
        "RegistrationResponse pool=\"pool\" pe=0x00000001 error: unspecified error (0x0)",
        "03 00 001c 0009 0008 706f6f6c 000e 0008 00000001 000c 0008 0000 0004",
    );
    // The pool's policy and transport come with the cause (sections 3.12.6 and 3.12.8).
    asap(
        Exact,
        "RegistrationResponse pool=\"pool\" pe=0x00000001 rejected error: \
         inconsistent pool policy (0x5): 0x0008000800000001",
        "03 01 0024 0009 0008 706f6f6c 000e 0008 00000001 000c 0010 0005 000c 0008 0008 00000001",
    );
    asap(
        Exact,
        "RegistrationResponse pool=\"pool\" pe=0x00000001 rejected error: \
         inconsistent transport type (0x7): 0x0005001000070000000100080a000001",
        "03 01 002c 0009 0008 706f6f6c 000e 0008 00000001
         000c 0018 0007 0014 0005 0010 0007 0000 0001 0008 0a000001",
    );
    // Several causes, and the names of all that RFC 5354 knows.
    asap(
        Exact,
        "DeregistrationResponse pool=\"pool\" pe=0x00000001 error: invalid values (0x3): 0x000e0004, \
         PE identifier not unique (0x4), lack of resources (0x6), \
         inconsistent data/control configuration (0x8), unknown pool handle (0x9), \
         rejected for security reasons (0xa), cause 0xb",
        "04 00 0038 0009 0008 706f6f6c 000e 0008 00000001
         000c 0024 0003 0008 000e 0004 0004 0004 0006 0004 0008 0004 0009 0004 000a 0004 000b 0004",
    );
}

/// RFC 5352 sections 2.2.5 and 2.2.6: S and A flags, elements without an overall policy, and an
/// error behind the place of the elements.
#[test]
fn resolutions() {
    asap(Exact, "HandleResolution pool=\"pool\" subscribe", "05 01 000c 0009 0008 706f6f6c");
    asap(
        Exact,
        "HandleResolutionResponse pool=\"pool\" subscribed (pe=0x00000001 home=0x0000000a life=30s \
         tcp 192.0.2.1:7 RoundRobin) (pe=0x00000002 home=0x0000000a life=30s udp 192.0.2.2:7 Random)",
        "06 01 005c 0009 0008 706f6f6c
         000a 0028 00000001 0000000a 00007530 0005 0010 0007 0000 0001 0008 c0000201 0008 0008 00000001
         000a 0028 00000002 0000000a 00007530 0006 0010 0007 0000 0001 0008 c0000202 0008 0008 00000003",
    );
    // All of it counts without the overall policy's place mattering.
    asap(
        Exact,
        "HandleResolutionResponse pool=\"pool\" error: unknown pool handle (0x9)",
        "06 00 0014 0009 0008 706f6f6c 000c 0008 0009 0004",
    );
    // An error behind the policy: legal for a reader, though a negative answer has none.
    asap(
        Other,
        "HandleResolutionResponse pool=\"pool\" error: unknown pool handle (0x9) RoundRobin",
        "06 00 001c 0009 0008 706f6f6c 0008 0008 00000001 000c 0008 0009 0004",
    );
}

/// RFC 5352 sections 2.2.7 to 2.2.10: a keep-alive without identifier, announcements with transports.
#[test]
fn keep_alives_reports_and_announcements() {
    asap(
        Exact,
        "EndpointKeepAlive registrar=0x0000000a home pool=\"pool\"",
        "07 01 0010 0000000a 0009 0008 706f6f6c",
    );
    asap(
        Exact,
        "EndpointKeepAliveAck pool=\"pool\" pe=0x00000001",
        "08 00 0014 0009 0008 706f6f6c 000e 0008 00000001",
    );
    asap(
        Exact,
        "EndpointUnreachable pool=\"pool\" pe=0x00000001",
        "09 00 0014 0009 0008 706f6f6c 000e 0008 00000001",
    );
    asap(
        Exact,
        "ServerAnnounce registrar=0x0000000a sctp 192.0.2.9:3863,[2001:db8::9]:3863 tcp 192.0.2.9:3863",
        "0a 00 003c 0000000a
         0004 0024 0f17 0000 0001 0008 c0000209 0002 0014 20010db8 00000000 00000000 00000009
         0005 0010 0f17 0000 0001 0008 c0000209",
    );
}

/// RFC 5352 sections 2.2.11 to 2.2.14; lengths leave out the padding at the end.
#[test]
fn control_channel() {
    asap(Other, "Cookie cookie=\"state\"", "0b 00 000d 000d 0009 7374617465");
    asap(Other, "Cookie cookie=\"state\"", "0b 00 000d 000d 0009 7374617465 000000");
    asap(Exact, "CookieEcho cookie=\"\"", "0c 00 0008 000d 0004");
    // Without a policy between handle and elements.
    asap(
        Exact,
        "BusinessCard pool=\"pool\" (pe=0x00000001 home=0x0000000a life=30s tcp 192.0.2.1:7 RoundRobin)",
        "0d 00 0034 0009 0008 706f6f6c
         000a 0028 00000001 0000000a 00007530 0005 0010 0007 0000 0001 0008 c0000201 0008 0008 00000001",
    );
    asap(
        Exact,
        "Error unrecognized message (0x2): 0x7f000004, unrecognized parameter (0x1): 0x7fff0004",
        "0e 00 0018 000c 0014 0002 0008 7f000004 0001 0008 7fff0004",
    );
}

/// The last parameter's padding counts nowhere (RFC 5354 section 3), also within another parameter.
#[test]
fn padding_that_nobody_counts() {
    // A handle of five bytes, an unknown policy of one more byte than its type.
    let element = "000a 0029 00000001 00000000 00007530 0005 0010 0007 0000 0001 0008 c0000201
                   0008 0009 80000009 aa";
    for (length, padding) in [("0039", ""), ("0039", "000000"), ("003c", "000000")] {
        asap(
            Other,
            "Registration pool=\"pools\" pe=0x00000001 home=0x00000000 life=30s tcp 192.0.2.1:7 \
             0x80000009(aa)",
            &format!("01 00 {length} 0009 0009 706f6f6c73 000000 {element} {padding}"),
        );
    }
}

/// RFC 5354 section 3.10 draws user transport, policy, ASAP transport. They are told apart wherever the policy
/// stands, and among parameters that have no business there.
#[test]
fn an_element_in_another_order() {
    let line = "Registration pool=\"pool\" pe=0x00000001 home=0x00000000 life=30s tcp 192.0.2.1:7 \
                RoundRobin asap=sctp 192.0.2.1:4000";
    let (user, policy) = ("0005 0010 0007 0000 0001 0008 c0000201", "0008 0008 00000001");
    let (asap_transport, handle) = ("0004 0010 0fa0 0000 0001 0008 c0000201", "0009 0008 706f6f6c");
    let fixed = "00000001 00000000 00007530";
    for element in [
        format!("000a 0038 {fixed} {user} {policy} {asap_transport}"),
        format!("000a 0038 {fixed} {policy} {user} {asap_transport}"),
        format!("000a 0038 {fixed} {user} {asap_transport} {policy}"),
        // A cookie, a type that is not the handle's although its low bits are.
        format!("000a 0044 {fixed} 000d 0004 {user} 8009 0004 {policy} {asap_transport} 0009 0004"),
    ] {
        let length = if element.starts_with("000a 0044") { "0050" } else { "0044" };
        let form = if element.contains(&format!("{user} {policy} {asap_transport}")) { Exact } else { Other };
        asap(form, line, &format!("01 00 {length} {handle} {element}"));
        asap(Other, line, &format!("01 00 {length} {element} {handle}"));
    }
}

/// RFC 5354 section 3: the two high bits are part of the type, and say what to do with one that is not known.
#[test]
fn known_types_with_high_bits_are_unknown() {
    let resolution = |first: &str| Asap::decode(&unhex(&format!("05 00 0010 {first} 0009 0008 706f6f6c")));
    let expected = |unrecognized| {
        let handle = PoolHandle::new(b"pool").unwrap();
        let message = Asap::HandleResolution { subscribe: false, handle, items: None };
        Ok(Decoded { message, unrecognized })
    };
    assert_eq!(resolution("8009 0004"), expected(vec![]));
    assert_eq!(resolution("c009 0004"), expected(vec![unhex("c009 0004")]));
    let cause = resolution("4009 0004").unwrap_err().cause.unwrap();
    assert_eq!((cause.code, cause.data), (CauseCode::UNRECOGNIZED_PARAMETER, unhex("4009 0004")));
    // None of them is a pool handle.
    let alone = Asap::decode(&unhex("05 00 000c 8009 0008 706f6f6c")).unwrap_err();
    assert_eq!(alone.reason, "mandatory parameter missing");
    assert!(Asap::decode(&unhex("0c 00 000a 800d 0006 6162 0000")).is_err());
}

/// RFC 5354 section 3.12.4: what is wrong goes back with cause 0x3, as the parameter or the message that it is in.
#[test]
fn invalid_values_are_shown() {
    let shown = |error: DecodeError| error.cause.map(|cause| (cause.code, cause.data));
    let invalid = |hex: &str| Some((CauseCode::INVALID_VALUES, unhex(hex)));
    for (message, wrong) in [
        // No pool handle; an identifier of three bytes; a length beyond the message.
        ("02 00 000c 000e 0008 00000001", "02 00 000c 000e 0008 00000001"),
        ("02 00 0014 0009 0008 706f6f6c 000e 0007 01020300", "000e 0007 010203"),
        ("05 00 000c 0009 0040 706f6f6c", "0009 0040 706f6f6c"),
    ] {
        assert_eq!(shown(Asap::decode(&unhex(message)).unwrap_err()), invalid(wrong), "{message}");
    }
    let update = "04 00 0010 0000000a 0000000b 0007 0000";
    assert_eq!(shown(EnrpMessage::decode(&unhex(update)).unwrap_err()), invalid(update));
}

/// RFC 5353 section 3.7: what is unknown is so however short it is.
#[test]
fn unknown_messages_without_identifiers() {
    for (kind, told) in [("0b", false), ("4b", true), ("8b", false), ("cb", false)] {
        let bytes = unhex(&format!("{kind} 00 0004"));
        let cause = EnrpMessage::decode(&bytes).unwrap_err().cause;
        let expected = Cause { code: CauseCode::UNRECOGNIZED_MESSAGE, data: bytes };
        assert_eq!(cause, told.then_some(expected), "{kind}");
    }
}

/// RFC 5353 section 2.1: both parameters are optional, and the receiver may be nobody.
#[test]
fn presences() {
    enrp(Exact, "Presence from=0x0000000a to=0x00000000", "01 00 000c 0000000a 00000000");
    enrp(
        Exact,
        "Presence from=0x0000000a to=0x0000000b reply-required checksum=0xbeef",
        "01 01 0014 0000000a 0000000b 000f 0006 beef 0000",
    );
    // Without the checksum's padding counted.
    enrp(
        Other,
        "Presence from=0x0000000a to=0x0000000b checksum=0xbeef",
        "01 00 0012 0000000a 0000000b 000f 0006 beef",
    );
    enrp(
        Exact,
        "Presence from=0x0000000a to=0x0000000b server=0x0000000a sctp 192.0.2.9:9901 tcp 192.0.2.9:9901",
        "01 00 0034 0000000a 0000000b
         000b 0028 0000000a 0004 0010 26ad 0000 0001 0008 c0000209 0005 0010 26ad 0000 0001 0008 c0000209",
    );
    // In the other order.
    enrp(
        Other,
        "Presence from=0x0000000a to=0x0000000b checksum=0xbeef server=0x0000000a udp 192.0.2.9:9901",
        "01 00 002c 0000000a 0000000b
         000b 0018 0000000a 0006 0010 26ad 0000 0001 0008 c0000209 000f 0006 beef 0000",
    );
}

/// RFC 5353 sections 2.2 and 2.3.
#[test]
fn handle_tables() {
    enrp(Exact, "HandleTableRequest from=0x0000000a to=0x0000000b", "02 00 000c 0000000a 0000000b");
    enrp(Exact, "HandleTableRequest from=0x0000000a to=0x0000000b own-only", "02 01 000c 0000000a 0000000b");
    enrp(Exact, "HandleTableResponse from=0x0000000b to=0x0000000a rejected", "03 01 000c 0000000b 0000000a");
    let element = |id: u8| {
        format!(
            "000a 0038 000000{id:02x} 0000000b 00007530 0004 0010 0007 0000 0001 0008 c0000201
             0008 0008 00000001 0004 0010 0fa0 0000 0001 0008 c0000201"
        )
    };
    let shown = |id: u8| {
        format!(
            "pe=0x000000{id:02x} home=0x0000000b life=30s sctp 192.0.2.1:7 RoundRobin \
             asap=sctp 192.0.2.1:4000"
        )
    };
    let bytes = format!(
        "03 02 00c4 0000000b 0000000a 0009 0008 706f6f6c {} {} 0009 0005 7a 000000 {}",
        element(1),
        element(2),
        element(1)
    );
    let Enrp::HandleTableResponse { rejected: false, more: true, pools } =
        EnrpMessage::decode(&unhex(&bytes)).unwrap().message.body
    else {
        panic!("not a part of a table");
    };
    let pools: Vec<_> = pools
        .iter()
        .map(|(handle, list)| (handle.to_string(), list.iter().map(ToString::to_string).collect::<Vec<_>>()))
        .collect();
    assert_eq!(pools, [("pool".into(), vec![shown(1), shown(2)]), ("z".into(), vec![shown(1)])]);
}

/// RFC 5353 section 2.4: the reserved field is ignored, other actions than two are not.
#[test]
fn handle_updates() {
    let update = |action: &str| {
        format!(
            "04 00 0040 0000000a 00000000 {action} 0009 0008 706f6f6c
             000a 0028 00000001 0000000a 00007530 0005 0010 0007 0000 0001 0008 c0000201 0008 0008 00000003"
        )
    };
    let shown = "pool=\"pool\" pe=0x00000001 home=0x0000000a life=30s tcp 192.0.2.1:7 Random";
    enrp(Exact, &format!("HandleUpdate from=0x0000000a to=0x00000000 add {shown}"), &update("0000 0000"));
    enrp(Exact, &format!("HandleUpdate from=0x0000000a to=0x00000000 delete {shown}"), &update("0001 0000"));
    enrp(Other, &format!("HandleUpdate from=0x0000000a to=0x00000000 delete {shown}"), &update("0001 beef"));
    let error = EnrpMessage::decode(&unhex(&update("0002 0000"))).unwrap_err();
    assert_eq!((error.at, error.reason), (14, "unknown update action"));
}

/// RFC 5353 sections 2.5 and 2.6.
#[test]
fn lists_of_servers() {
    enrp(Exact, "ListRequest from=0x0000000a to=0x0000000b", "05 00 000c 0000000a 0000000b");
    enrp(Exact, "ListResponse from=0x0000000b to=0x0000000a rejected", "06 01 000c 0000000b 0000000a");
    enrp(
        Exact,
        "ListResponse from=0x0000000b to=0x0000000a (server=0x0000000c sctp 192.0.2.3:9901) \
         (server=0x0000000d)",
        "06 00 002c 0000000b 0000000a
         000b 0018 0000000c 0004 0010 26ad 0000 0001 0008 c0000203 000b 0008 0000000d",
    );
}

/// RFC 5353 sections 2.7 to 2.10.
#[test]
fn takeovers_and_errors() {
    for (kind, name) in [("07", "InitTakeover"), ("08", "InitTakeoverAck"), ("09", "TakeoverServer")] {
        enrp(
            Exact,
            &format!("{name} from=0x0000000a to=0x0000000b target=0x0000000c"),
            &format!("{kind} 00 0010 0000000a 0000000b 0000000c"),
        );
    }
    enrp(
        Exact,
        "Error from=0x0000000a to=0x0000000b rejected for security reasons (0xa)",
        "0a 00 0014 0000000a 0000000b 000c 0008 000a 0004",
    );
}
