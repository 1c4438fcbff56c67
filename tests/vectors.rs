//! Messages of the reference implementation decode, and encode to the very same bytes.
//!
//! `RSP_VECTORS=DIR` takes other files of the same format.

use rserpool::wire::{Asap, CspReport, EnrpMessage, show};
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
    let recoded = match vector.protocol.as_str() {
        "asap" => Asap::decode(&vector.bytes).map(|decoded| {
            let message = decoded.message;
            (message.encode(), message.encoded_len(), decoded.unrecognized.len())
        }),
        "enrp" => EnrpMessage::decode(&vector.bytes).map(|decoded| {
            let message = decoded.message;
            (message.encode(), message.encoded_len(), decoded.unrecognized.len())
        }),
        "csp" => CspReport::decode(&vector.bytes).map(|report| (report.encode(), vector.bytes.len(), 0)),
        other => return Err(format!("unknown protocol {other}")),
    };
    match recoded {
        Ok((bytes, length, 0)) if length == vector.bytes.len() => Ok(bytes),
        Ok((_, length, unrecognized)) => Err(format!("length {length}, {unrecognized} unknown parameters")),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn reference_messages_encode_to_the_same_bytes() {
    let vectors = vectors();
    assert!(vectors.len() >= 40, "only {} vectors", vectors.len());
    let mut wrong = Vec::new();
    for vector in &vectors {
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

/// Cut anywhere, a message is never taken for a whole one, and its line says so.
#[test]
fn truncated_reference_messages_are_broken() {
    for vector in vectors() {
        for length in 0..vector.bytes.len() {
            let bytes = &vector.bytes[..length];
            let line = match vector.protocol.as_str() {
                "asap" => show::asap(bytes),
                "enrp" => show::enrp(bytes),
                _ => show::csp(bytes),
            };
            assert!(line.contains(" broken at byte "), "{} cut to {length}: {line}", vector.name);
            assert!(!line.contains('\n'), "{line}");
        }
    }
}
