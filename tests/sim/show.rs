//! Lines of a trace.

use super::world::Input;
use rserpool::machine::Output;
use rserpool::wire::frame;

fn bytes(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = bytes;
    while let Ok(Some(length)) = frame::first_message(rest) {
        text += &format!("[type {} flags {} length {length}] ", rest[0], rest[1]);
        rest = &rest[length..];
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
