//! Lines of a trace.

use super::world::Input;
use rserpool::machine::Output;
use rserpool::wire::{Asap, EnrpMessage, frame, show};

/// Which of the two protocols a link speaks is not known here: what is valid in one of them is none of the other, as a rule.
fn bytes(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = bytes;
    while let Ok(Some(length)) = frame::first_message(rest) {
        let (message, behind) = rest.split_at(length);
        let is_enrp = EnrpMessage::decode(message).is_ok() || Asap::decode(message).is_err();
        text += &format!("[{}] ", if is_enrp { show::enrp(message) } else { show::asap(message) });
        rest = behind;
    }
    text
}

pub fn input(input: &Input) -> String {
    match input {
        Input::Link(link, change) => format!("{link:?} {change:?}"),
        Input::Message(link, message) => format!("{link:?} {}", bytes(message)),
        Input::Datagram(service, from, message) => {
            format!("{service:?} datagram from {from} {}", bytes(message))
        }
        Input::Read { connection, bytes, .. } => format!("{bytes} bytes of connection {connection} read"),
    }
}

pub fn output(output: &Output<()>) -> String {
    match output {
        Output::Send { link, bytes: message } => format!("{link:?} {}", bytes(message)),
        Output::Announce { service, bytes: message } => format!("{service:?} announce {}", bytes(message)),
        other => format!("{other:?}"),
    }
}
