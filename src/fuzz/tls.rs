//! Both ends of a TLS connection under anything that comes before anybody has proved anything, and a real
//! handshake with bytes changed on the way.

use super::Input;
use crate::transport::tls::{Credentials, Engine, Files, Purpose};
use std::fs;
use std::io::Read;
use std::sync::{Arc, OnceLock};

/// Worth nothing: its authority's key is gone.
const FILES: [(&str, &str); 3] = [
    ("cert.pem", include_str!("tls/cert.pem")),
    ("key.pem", include_str!("tls/key.pem")),
    ("ca.pem", include_str!("tls/ca.pem")),
];
/// What an end may keep of a peer that has proved nothing: a handshake, and what one read brings on top.
const UNPROVED: usize = (32 << 10) + 4096;
/// What an end says before its peer has proved anything.
const SAID: usize = 16 << 10;

fn credentials() -> &'static Arc<Credentials> {
    static CREDENTIALS: OnceLock<Arc<Credentials>> = OnceLock::new();
    CREDENTIALS.get_or_init(|| {
        let dir = std::env::temp_dir().join(format!("rsp-fuzz-tls-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a folder");
        for (name, text) in FILES {
            fs::write(dir.join(name), text).expect("a file");
        }
        let loaded = Credentials::load(&Files::in_directory(&dir));
        let _ = fs::remove_dir_all(&dir);
        Arc::new(loaded.expect("good files"))
    })
}

/// A list of operations: bytes of a stranger, or of a real peer, with some of them changed. Whatever comes,
/// nothing panics, what is kept and said stays bounded, and a stranger never proves itself.
pub fn tls(data: &[u8]) {
    let mut input = Input(data);
    let (dialled, purpose) = match input.byte() % 4 {
        0 => (false, Purpose::Asap),
        1 => (true, Purpose::Asap),
        2 => (false, Purpose::Session),
        _ => (true, Purpose::Enrp),
    };
    let end = |dialled| match dialled {
        true => Engine::dialled(credentials(), purpose, None),
        false => Engine::accepted(credentials(), purpose, None),
    };
    let (Ok(mut ours), Ok(mut peer)) = (end(dialled), end(!dialled)) else { panic!("no engine") };
    let (mut to_us, mut to_peer) = (Vec::new(), Vec::new());
    let (mut met_peer, mut said) = (false, 0);
    while !input.0.is_empty() {
        match input.byte() % 4 {
            0 => {
                let count = usize::from(input.byte());
                to_us.extend_from_slice(input.bytes(count));
            }
            1 => {
                // The real peer hears us and answers.
                if !hear(&mut peer, &mut to_peer) {
                    return;
                }
                met_peer = true;
                peer.take_output(&mut to_us);
            }
            2 => {
                let at = usize::from(input.byte()) << 4 | usize::from(input.byte() & 15);
                let flip = input.byte();
                if let Some(byte) = to_us.get_mut(at) {
                    *byte ^= flip;
                }
            }
            _ => {
                let goes_on = hear(&mut ours, &mut to_us);
                let before = to_peer.len();
                ours.take_output(&mut to_peer);
                said += to_peer.len() - before;
                assert!(met_peer || !ours.is_proved(), "a stranger proved itself");
                assert!(ours.is_proved() || said <= SAID, "{said} bytes said to a stranger");
                if !goes_on {
                    return;
                }
            }
        }
        assert!(ours.unproved_bytes() <= UNPROVED, "{} bytes kept", ours.unproved_bytes());
        if to_us.len() > 1 << 20 {
            return;
        }
    }
}

/// Feeds what has come; whether the connection goes on.
fn hear(engine: &mut Engine, bytes: &mut Vec<u8>) -> bool {
    let (mut rest, mut buffer) = (&bytes[..], [0; 4096]);
    let mut goes_on = true;
    while !rest.is_empty() && goes_on {
        // What the peer sent is to be taken before the next read.
        while engine.plaintext(&mut buffer).is_ok_and(|count| count > 0) {}
        let mut piece = rest.take(1000);
        match engine.read_from(&mut piece) {
            Ok(Ok(0)) => break,
            Ok(Ok(count)) => rest = &rest[count..],
            Ok(Err(failure)) => {
                assert!(!failure.to_string().is_empty());
                goes_on = false;
            }
            Err(error) => panic!("memory can be read: {error}"),
        }
    }
    bytes.clear();
    goes_on
}
