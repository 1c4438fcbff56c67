//! Messages of the reference implementation decode, and encode to the very same bytes.
//!
//! `RSP_VECTORS=DIR` takes other files of the same format.

use rserpool::wire::{Asap, EnrpMessage};
use std::path::PathBuf;

struct Vector {
    name: String,
    protocol: String,
    bytes: Vec<u8>,
}

fn vectors() -> Vec<Vector> {
    let directory = std::env::var_os("RSP_VECTORS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors"), PathBuf::from);
    let mut all = Vec::new();
    for entry in std::fs::read_dir(&directory).expect("directory of vectors") {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let mut words = line.split(' ').map(str::to_owned);
            let (Some(name), Some(protocol), Some(hex)) = (words.next(), words.next(), words.next()) else {
                panic!("{}: not a vector: {line}", path.display());
            };
            all.push(Vector { name, protocol, bytes: unhex(&hex) });
        }
    }
    all
}

fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "odd number of digits: {text}");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn recode(vector: &Vector) -> Result<Vec<u8>, String> {
    match vector.protocol.as_str() {
        "asap" => Asap::decode(&vector.bytes).map(|decoded| {
            assert_eq!(decoded.unrecognized, Vec::<Vec<u8>>::new(), "{}", vector.name);
            assert_eq!(decoded.message.encoded_len(), vector.bytes.len(), "{}", vector.name);
            decoded.message.encode()
        }),
        "enrp" => EnrpMessage::decode(&vector.bytes).map(|decoded| {
            assert_eq!(decoded.unrecognized, Vec::<Vec<u8>>::new(), "{}", vector.name);
            assert_eq!(decoded.message.encoded_len(), vector.bytes.len(), "{}", vector.name);
            decoded.message.encode()
        }),
        other => return Err(format!("unknown protocol {other}")),
    }
    .map_err(|error| error.to_string())
}

#[test]
fn reference_messages_encode_to_the_same_bytes() {
    let vectors = vectors();
    assert!(vectors.len() >= 40, "only {} vectors", vectors.len());
    let mut wrong = Vec::new();
    for vector in vectors.iter().filter(|vector| vector.protocol != "csp") {
        match recode(vector) {
            Ok(bytes) if bytes == vector.bytes => {}
            Ok(bytes) => {
                wrong.push(format!("{}\n  is  {}\n  was {}", vector.name, hex(&bytes), hex(&vector.bytes)))
            }
            Err(error) => wrong.push(format!("{}: {error}\n  {}", vector.name, hex(&vector.bytes))),
        }
    }
    println!("{} of {} messages equal", vectors.len() - wrong.len(), vectors.len());
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), vectors.len(), wrong.join("\n"));
}
