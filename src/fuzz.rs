//! What the fuzz targets run, and `tests` over the committed corpus.
//!
//! Each function takes any bytes and panics where a promise is broken.

mod capi;
mod client;
#[cfg(feature = "dns")]
mod dns;
mod registrar;
mod session;
mod strangers;
#[cfg(test)]
mod tests;
mod tls;
pub use capi::capi;
pub use client::client;
#[cfg(feature = "dns")]
pub use dns::dns;
pub use registrar::registrar;
pub use session::session;
pub use strangers::{datagrams, notifications, settings};
pub use tls::tls;

use crate::wire::{Asap, CspReport, EnrpMessage, MAX_MESSAGE, PoolHandle, frame, show};

/// The promises of [`crate::wire`]: no panic; what decodes encodes to one form, of the length that
/// was announced, which decodes to the same; one line per message.
pub fn wire(data: &[u8]) {
    if let Ok(decoded) = Asap::decode(data) {
        let bytes = decoded.message.encode();
        check_frame(&bytes, decoded.message.encoded_len(), data);
        let again = Asap::decode(&bytes).expect("what was encoded decodes");
        assert_eq!(again.message, decoded.message);
        assert!(again.unrecognized.is_empty());
    }
    if let Ok(decoded) = EnrpMessage::decode(data) {
        let bytes = decoded.message.encode();
        check_frame(&bytes, decoded.message.encoded_len(), data);
        let again = EnrpMessage::decode(&bytes).expect("what was encoded decodes");
        assert_eq!(again.message, decoded.message);
        assert!(again.unrecognized.is_empty());
    }
    if let Ok(report) = CspReport::decode(data) {
        assert_eq!(CspReport::decode(&report.encode()).as_ref(), Ok(&report));
    }
    for line in [show::asap(data), show::enrp(data), show::csp(data)] {
        assert!(!line.chars().any(char::is_control), "more than a line: {line}");
    }
}

fn check_frame(bytes: &[u8], announced: usize, data: &[u8]) {
    assert_eq!(bytes.len(), announced);
    assert!(bytes.len() <= MAX_MESSAGE.min(data.len().next_multiple_of(4)), "longer than it came");
    assert_eq!(frame::first_message(bytes), Ok(Some(bytes.len())));
}

/// The fuzzer's bytes as a source of choices; zeros when they are used up.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    fn flag(&mut self) -> bool {
        self.byte() & 1 != 0
    }

    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// One of three handles.
fn handle(input: &mut Input) -> PoolHandle {
    let name: &[u8] = match input.byte() % 4 {
        0 => &[b'l'; 40],
        1 => b"b",
        _ => b"pool",
    };
    PoolHandle::new(name).expect("a legal handle")
}
