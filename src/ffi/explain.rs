//! `rsp_strerror`, `rsp_geterror`: what lies behind an errno, for each descriptor, and for each thread's calls
//! without one.

use super::constants::*;
use super::guard::{Errno, guard};
use crate::machine::client::RequestError;
use crate::runtime::why::{self, Note};
use crate::socket::SocketError;
use libc::{c_char, c_int, c_uint};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;

/// What went wrong last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Explanation {
    code: c_uint,
    text: String,
}

/// Only descriptors that have something to explain.
static DESCRIPTORS: Mutex<BTreeMap<c_int, Explanation>> = Mutex::new(BTreeMap::new());

thread_local! {
    static OWN: RefCell<Explanation> = RefCell::default();
    static SHOWN: RefCell<CString> = RefCell::default();
}

/// Says in words why the last call on this descriptor failed, or did not do what it was to do: which pool, which
/// registrars were tried with what result, which element. -1: of this thread's last call without a descriptor
/// (rsp_initialize, rsp_getaddrinfo, rsp_pe_*). Empty text: nothing went wrong. The text lasts until the thread's next
/// rsp_strerror. Works at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_strerror(sd: c_int) -> *const c_char {
    guard(|| {
        let text = CString::new(explanation(sd).text.replace('\0', "\\0")).unwrap_or_default();
        // A thread that is ending has no place to keep it.
        Ok(SHOWN
            .try_with(|shown| {
                *shown.borrow_mut() = text;
                shown.borrow().as_ptr()
            })
            .unwrap_or(c"".as_ptr()))
    })
}

/// The RSPERR_* code of what rsp_strerror says: RSPERR_NO_REGISTRAR, RSPERR_TIMEOUT (no answer), a registrar's refusal
/// (RSPERR_INCOMPATIBLE_POOL_POLICY, ..), RSPERR_NOT_FOUND (the pool is unknown or empty),
/// RSPERR_CONNECTION_FAILURE_CONNECT (no element could be reached); RSPERR_OKAY if nothing went wrong, or
/// nothing that has a code. Works at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_geterror(sd: c_int) -> c_uint {
    guard(|| Ok(code(sd)))
}

fn explanation(sd: c_int) -> Explanation {
    match sd {
        -1 => OWN.try_with(|own| own.borrow().clone()).unwrap_or_default(),
        sd => DESCRIPTORS.lock().get(&sd).cloned().unwrap_or_default(),
    }
}

/// Runs what a function does, and keeps what went wrong for `sd` (`None`: for this thread). `what`: what it was
/// about, if errno alone has to say it.
pub(super) fn explained<T>(
    sd: Option<c_int>,
    what: impl FnOnce() -> String,
    body: impl FnOnce() -> Result<T, Errno>,
) -> Result<T, Errno> {
    why::begin();
    let result = body();
    keep(sd, result.as_ref().err().map(|errno| reason(*errno)), what);
    result
}

/// [`explained`] for bodies that return a code.
pub(super) fn explained_code(body: impl FnOnce() -> Result<c_uint, Errno>) -> Result<c_uint, Errno> {
    why::begin();
    let result = body();
    let failure = match &result {
        Ok(RSPERR_OKAY) => None,
        Ok(code) => Some((*code, format!("refused with code {code:#x}"))),
        Err(errno) => Some(reason(*errno)),
    };
    keep(None, failure, || "arguments".into());
    result
}

/// Code and words of an errno.
fn reason(errno: Errno) -> (c_uint, String) {
    let code = match errno.0 {
        libc::ENOENT => RSPERR_NOT_FOUND,
        libc::ECONNREFUSED | libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETUNREACH => {
            RSPERR_CONNECTION_FAILURE_CONNECT
        }
        _ => RSPERR_OKAY,
    };
    let text = match errno.0 {
        libc::EACCES => "the library does not run (rsp_initialize)".into(),
        libc::ENOENT => "no element is in it".into(),
        number => io::Error::from_raw_os_error(number).to_string(),
    };
    // "(os error 111)" says nothing more.
    (code, text.split(" (os error").next().unwrap_or_default().to_owned())
}

fn keep(sd: Option<c_int>, failure: Option<(c_uint, String)>, what: impl FnOnce() -> String) {
    let notes = why::take();
    // What was overcome is no failure; what a function doesn't report by its result is.
    let noted = notes.iter().find_map(|note| note.error.as_ref());
    let explanation = match (failure, noted) {
        (None, None) => None,
        (failure, noted) => {
            let code = noted.map_or_else(
                || failure.as_ref().map_or(RSPERR_OKAY, |(code, _)| *code),
                |error| error_code(error.clone()),
            );
            let texts = notes.iter().map(|note: &Note| note.text.clone());
            let own = failure.filter(|_| noted.is_none()).map(|(_, text)| format!("{}: {text}", what()));
            Some(Explanation { code, text: own.into_iter().chain(texts).collect::<Vec<_>>().join("; ") })
        }
    };
    set(sd, explanation);
}

fn set(sd: Option<c_int>, explanation: Option<Explanation>) {
    match (sd, explanation) {
        (None, explanation) => {
            let _ = OWN.try_with(|own| *own.borrow_mut() = explanation.unwrap_or_default());
        }
        (Some(sd), Some(explanation)) => {
            DESCRIPTORS.lock().insert(sd, explanation);
        }
        (Some(sd), None) => forget(sd),
    }
}

/// What is known about an element's registration after all.
pub(super) fn amend(sd: c_int, more: &str) {
    if let Some(explanation) = DESCRIPTORS.lock().get_mut(&sd) {
        explanation.text.push_str(more);
    }
}

/// What a setting's value is wrong with. Said before the error comes up.
pub(super) fn wrong_setting(error: &io::Error) {
    why::begin();
    let code = RSPERR_INVALID_VALUE;
    set(None, error.get_ref().map(|text| Explanation { code, text: text.to_string() }));
}

/// What was set can't be used after all: a certificate, say.
pub(super) fn not_started(error: &io::Error) {
    log::error!("the library can't be started: {error}");
    if error.kind() == io::ErrorKind::InvalidInput {
        wrong_setting(error);
    }
}

/// The library could not be started.
pub(super) fn start_failed(errno: Errno) {
    let said = explanation(-1);
    if errno.0 != libc::EINVAL || said.code != RSPERR_INVALID_VALUE {
        let (code, text) = reason(errno);
        set(None, Some(Explanation { code, text: format!("the library can't be started: {text}") }));
    }
}

/// A message could not be sent or received. What happens all the time is not worth words.
pub(super) fn failed(sd: c_int, what: &str, error: &SocketError) {
    let errno = Errno::from(error);
    if matches!(errno.0, libc::EAGAIN | libc::EINTR | libc::EBADF) {
        return;
    }
    let has_failed = matches!(error, SocketError::SessionFailed);
    let (code, text) = match errno.0 {
        _ if has_failed => {
            (RSPERR_OKAY, "the session has failed; rsp_forcefailover moves it to another element".into())
        }
        libc::EPIPE => (RSPERR_OKAY, "the session is over".into()),
        libc::ENOTCONN => (RSPERR_OKAY, "no session, and none to come".into()),
        _ => reason(errno),
    };
    let mut known = DESCRIPTORS.lock();
    let explanation = known.entry(sd).or_default();
    // Why a session has failed is what was kept when it did.
    match has_failed && !explanation.text.is_empty() {
        true if explanation.text.ends_with(&text) => {}
        true => explanation.text.push_str(&format!("; {what}: {text}")),
        false => *explanation = Explanation { code, text: format!("{what}: {text}") },
    }
}

/// The descriptor is closed, or new.
pub(super) fn forget(sd: c_int) {
    DESCRIPTORS.lock().remove(&sd);
}

/// The code that [`rsp_geterror`] would give.
pub(super) fn code(sd: c_int) -> c_uint {
    explanation(sd).code
}

/// A pool handle in words.
pub(super) fn pool(bytes: &[u8]) -> String {
    format!("pool \"{}\"", bytes.escape_ascii())
}

/// The code of a request's error in the basic API.
pub(super) fn error_code(error: RequestError) -> c_uint {
    match error {
        RequestError::NoRegistrar => RSPERR_NO_REGISTRAR,
        RequestError::TimedOut => RSPERR_TIMEOUT,
        // A refusal without a reason is no success.
        RequestError::Rejected(error) => match c_uint::from(error.code().0) {
            RSPERR_OKAY => RSPERR_INVALID_MESSAGE,
            code => code,
        },
        RequestError::NotFound => RSPERR_NOT_FOUND,
        RequestError::Busy => RSPERR_OUT_OF_MEMORY,
        RequestError::Shutdown => RSPERR_NOT_INITIALIZED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// EIO has several meanings; only one of them is a session that has failed.
    #[test]
    fn a_system_error_is_no_failed_session() {
        let sd = -77;
        set(Some(sd), Some(Explanation { code: RSPERR_OKAY, text: "the element is gone".into() }));
        failed(sd, "sending", &SocketError::SessionFailed);
        failed(sd, "sending", &SocketError::SessionFailed);
        let said = explanation(sd).text;
        assert!(said.starts_with("the element is gone; sending: the session has failed;"), "{said}");
        assert_eq!(said.matches("has failed").count(), 1);
        failed(sd, "sending", &SocketError::WouldBlock);
        assert_eq!(explanation(sd).text, said);
        failed(sd, "sending", &io::Error::from_raw_os_error(libc::EIO).into());
        assert_eq!(explanation(sd).text, "sending: Input/output error");
        failed(sd, "receiving", &SocketError::NotConnected);
        assert_eq!(explanation(sd).text, "receiving: no session, and none to come");
        forget(sd);
    }
}
