//! The examples of `docs/tcp-mapping.md` are what the code reads and writes.

use super::super::session_frame::{FrameHeader, FrameReader, Greeting, Item};
use super::super::{Asap, PeId, Policy, PoolElement, PoolHandle, Protocol, RegistrarId};
use super::super::{PPID_ASAP, Transport, TransportUse};

const DOCUMENT: &str = include_str!("../../../docs/tcp-mapping.md");

/// The document's blocks of hexadecimal: what stands behind "hex", and the bytes.
fn blocks() -> Vec<(&'static str, Vec<u8>)> {
    let mut blocks = Vec::new();
    let mut parts = DOCUMENT.split("```");
    while let (Some(_), Some(block)) = (parts.next(), parts.next()) {
        let (title, body) = block.split_once('\n').expect("a block with a body");
        let title = title.strip_prefix("hex ").expect("only blocks of hexadecimal");
        let digits = body.lines().flat_map(|line| {
            line.split(';').next().unwrap_or_default().split_whitespace().collect::<Vec<_>>()
        });
        let bytes = digits.map(|two| u8::from_str_radix(two, 16).expect("two digits")).collect();
        blocks.push((title, bytes));
    }
    blocks
}

fn block(title: &str) -> Vec<u8> {
    let (_, bytes) = blocks().into_iter().find(|(other, _)| *other == title).expect("that block");
    bytes
}

/// What a stream says.
#[derive(Debug, PartialEq)]
enum Said {
    Greeting(Greeting),
    Control(Asap),
    Data { begin: bool, end: bool, unordered: bool, stream: u16, ppid: u32, payload: Vec<u8> },
}

impl Said {
    fn encode(&self) -> Vec<u8> {
        let (header, payload) = match self {
            Said::Greeting(greeting) => return greeting.encode().to_vec(),
            Said::Control(message) => {
                let message = message.encode();
                (FrameHeader::control(message.len()), message)
            }
            Said::Data { begin, end, unordered, stream, ppid, payload } => {
                let header = FrameHeader {
                    begin: *begin,
                    end: *end,
                    unordered: *unordered,
                    control: false,
                    stream: *stream,
                    length: payload.len() as u32,
                    ppid: ppid.to_be_bytes(),
                };
                (header, payload.clone())
            }
        };
        [&header.encode()[..], &payload].concat()
    }
}

fn data(flags: &str, stream: u16, ppid: u32, payload: &[u8]) -> Said {
    let has = |flag| flags.contains(flag);
    let (begin, end, unordered) = (has('B'), has('E'), has('U'));
    Said::Data { begin, end, unordered, stream, ppid, payload: payload.to_vec() }
}

/// Reads the document's bytes and compares what they say; writes what they say and compares the bytes.
fn both_ways(bytes: &[u8], from_element: bool, said: &[Said]) {
    let encoded: Vec<u8> = said.iter().flat_map(Said::encode).collect();
    assert_eq!(encoded, bytes);

    let mut reader = FrameReader::new(from_element);
    let mut input = bytes;
    for said in said {
        match (reader.next(&mut input).expect("a good stream"), said) {
            (Item::Greeting(greeting), Said::Greeting(expected)) => assert_eq!(greeting, *expected),
            (Item::Control(message), Said::Control(expected)) => {
                assert_eq!(Asap::decode(&message).expect("a good message").message, *expected);
            }
            (Item::Data(frame), Said::Data { begin, end, stream, ppid, payload, .. }) => {
                assert_eq!((frame.left, frame.last, frame.stream), (payload.len(), *end, *stream));
                assert_eq!(frame.single, *begin && *end);
                assert_eq!(frame.ppid, ppid.to_be_bytes());
                assert_eq!(&input[..frame.left], payload);
                input = &input[frame.left..];
                reader.taken(frame.left);
            }
            (item, said) => panic!("{item:?} instead of {said:?}"),
        }
    }
    assert!(input.is_empty() && reader.at_boundary());
}

#[test]
fn the_users_side_of_the_example() {
    let said = [
        Said::Greeting(Greeting::ours(false)),
        Said::Control(Asap::CookieEcho { cookie: b"st42".to_vec() }),
        data("BE", 3, 4711, b"hello"),
    ];
    both_ways(&block("user"), false, &said);
}

#[test]
fn the_elements_side_of_the_example() {
    let other = PoolElement {
        id: PeId(2),
        home: RegistrarId(0x581e_5e00),
        life: 90_000,
        transport: Transport::new(
            Protocol::Tcp,
            TransportUse::DataPlusControl,
            50_007,
            vec!["192.0.2.9".parse().expect("address")],
        ),
        policy: Policy::RoundRobin,
        asap: None,
    };
    let card = Asap::BusinessCard {
        handle: PoolHandle::new(b"Echo").expect("handle"),
        policy: Some(Policy::RoundRobin),
        elements: vec![other],
    };
    let said = [
        Said::Greeting(Greeting::ours(true)),
        Said::Control(card),
        data("B", 3, 4711, b"he"),
        Said::Control(Asap::Cookie { cookie: b"st43".to_vec() }),
        data("E", 3, 4711, b"llo"),
        data("BEU", 0, 0, b"!"),
    ];
    both_ways(&block("element"), true, &said);
    assert_eq!(PPID_ASAP, 11);
}

#[test]
fn what_the_document_calls_bad_is_refused_for_that_reason() {
    let mut seen = 0;
    for (title, bytes) in blocks() {
        let Some(expected) = title.strip_prefix("bad ") else { continue };
        seen += 1;
        let mut reader = FrameReader::new(false);
        let mut input = &bytes[..];
        let error = loop {
            match reader.next(&mut input) {
                Ok(Item::Greeting(_)) => {}
                Ok(item) => panic!("{title}: {item:?}"),
                Err(error) => break error,
            }
        };
        assert_eq!(format!("{error:?}"), expected);
    }
    assert!(seen >= 9, "only {seen} bad examples");
}

/// The document's bounds are the code's.
#[test]
fn the_bounds_are_the_documents() {
    use super::super::session_frame::{MAX_CONTROL, MAX_EXTENSION, MAX_FRAME};
    let spaced = |number: usize| {
        let digits = number.to_string();
        let groups: Vec<&str> =
            digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
        groups.join(" ")
    };
    assert!(DOCUMENT.contains(&format!(
        "1 to {} (16 MiB), for control 1 to {}",
        spaced(MAX_FRAME),
        spaced(MAX_CONTROL)
    )));
    assert!(DOCUMENT.contains(&format!("0 to {MAX_EXTENSION}. ")));
    let longest = super::super::writer::MAX_MESSAGE;
    assert!(DOCUMENT.contains(&format!("{} bytes of cookie", spaced(longest - 8))));
    assert!(DOCUMENT.contains(&format!("no longer than {} bytes", spaced(longest))));
}
