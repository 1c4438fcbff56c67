//! Why a call failed, in words. Errors that go up carry a code; what lies behind it (which pool, which registrars were
//! tried with what result, which element did not answer) is noted on the calling thread, for whoever asks afterwards.

use crate::machine::client::RequestError;
use crate::machine::{LinkDown, LinkProtocol, Target};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;

/// Notes of one call; beyond, the first ones stay.
const MAX_NOTES: usize = 8;
/// Registrars that are remembered.
const MAX_TRIED: usize = 8;

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Note {
    /// What a request ended with; `None`: an element that did not answer.
    pub error: Option<RequestError>,
    /// The whole of it.
    pub text: String,
}

thread_local! {
    static NOTES: RefCell<Vec<Note>> = const { RefCell::new(Vec::new()) };
}

/// Forgets what this thread's earlier calls left.
pub fn begin() {
    drop(take());
}

/// What was noted since [`begin`]. Nothing on a thread that is ending.
pub fn take() -> Vec<Note> {
    NOTES.try_with(RefCell::take).unwrap_or_default()
}

/// An element that was not used, and why.
pub fn refused(text: fmt::Arguments<'_>) {
    note(None, text);
}

pub(super) fn note(error: Option<&RequestError>, text: fmt::Arguments<'_>) {
    log::debug!("{text}");
    let _ = NOTES.try_with(|notes| {
        let mut notes = notes.borrow_mut();
        if notes.len() < MAX_NOTES {
            notes.push(Note { error: error.cloned(), text: text.to_string() });
        }
    });
}

/// The registrars that were tried last, each with what came of it.
#[derive(Debug, Default)]
pub(super) struct Tried(Mutex<VecDeque<(String, &'static str)>>);

impl Tried {
    pub fn set(&self, target: &Target, result: &'static str) {
        let name = name(target);
        let mut list = self.0.lock();
        list.retain(|(known, _)| *known != name);
        if list.len() == MAX_TRIED {
            list.pop_front();
        }
        list.push_back((name, result));
    }
}

/// " (192.0.2.1:3863 over TCP: refused; ..)", or nothing.
impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (target, result)) in self.0.lock().iter().enumerate() {
            write!(f, "{}{target}: {result}", if at == 0 { " (" } else { "; " })?;
        }
        f.write_str(if self.0.lock().is_empty() { "" } else { ")" })
    }
}

/// An error, and the registrars behind it where that is the matter.
pub(super) struct Failed<'a>(pub &'a RequestError, pub &'a Tried);

impl fmt::Display for Failed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            RequestError::NoRegistrar | RequestError::TimedOut => write!(f, "{}{}", self.0, self.1),
            error => write!(f, "{error}"),
        }
    }
}

fn name(target: &Target) -> String {
    let addresses: Vec<String> = target.addresses.iter().map(|address| address.to_string()).collect();
    let protocol = match target.protocol {
        LinkProtocol::Sctp => "SCTP",
        LinkProtocol::Tcp => "TCP",
    };
    format!("{} over {protocol}", addresses.join(","))
}

pub(super) fn ended(why: LinkDown) -> &'static str {
    match why {
        LinkDown::Refused => "nobody listens there, or it can't be reached",
        LinkDown::Closed => "it closed the connection",
        LinkDown::Broken => "the connection broke",
        LinkDown::Overflow => "it does not read",
        LinkDown::Garbage => "it does not speak ASAP",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registrars_are_listed_once_the_latest_last() {
        let target =
            |text: &str| Target { protocol: LinkProtocol::Tcp, addresses: vec![text.parse().unwrap()] };
        let tried = Tried::default();
        assert_eq!(tried.to_string(), "");
        tried.set(&target("192.0.2.1:3863"), "dialling");
        tried.set(&target("192.0.2.2:3863"), "no answer");
        tried.set(&target("192.0.2.1:3863"), "refused");
        assert_eq!(
            tried.to_string(),
            " (192.0.2.2:3863 over TCP: no answer; 192.0.2.1:3863 over TCP: refused)"
        );
        for port in 1..100 {
            tried.set(&target(&format!("192.0.2.3:{port}")), "refused");
        }
        assert_eq!(tried.to_string().matches(';').count(), MAX_TRIED - 1);
    }

    #[test]
    fn notes_are_the_threads_own_and_bounded() {
        begin();
        for number in 0..100 {
            note(Some(&RequestError::NoRegistrar), format_args!("{number}"));
        }
        assert!(std::thread::spawn(take).join().unwrap().is_empty());
        let notes = take();
        assert_eq!((notes.len(), notes[0].text.as_str()), (MAX_NOTES, "0"));
        assert!(take().is_empty());
    }
}
