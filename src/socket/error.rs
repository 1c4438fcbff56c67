//! Why a call on a descriptor came to nothing. What C calls it is `ffi`'s business.

use nix::errno::Errno;
use std::{fmt, io};

/// What happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum SocketError {
    /// The number is no descriptor of ours, or was closed meanwhile.
    Closed,
    /// The library belongs to the process that this one is a fork of.
    Forked,
    /// The descriptor has no such session.
    NoSession,
    /// No element is registered on the descriptor, or another one.
    NotRegistered,
    /// It would have to wait, and time is over.
    WouldBlock,
    /// A signal came first.
    Interrupted,
    /// The descriptor is in use for something else.
    Misused,
    /// An argument makes no sense: no data, no pool handle, no such option.
    Invalid,
    /// A notification waits and does not fit.
    NoRoom,
    /// The descriptor has no session and is not to get one, or its session no connection.
    NotConnected,
    /// A user's session has failed: a failover is necessary.
    SessionFailed,
    /// An element's session is over.
    SessionOver,
    /// The peer is gone.
    PeerGone,
    /// The message is longer than can be sent.
    TooLong,
    /// There is no number for one more descriptor or session.
    NoNumber,
    /// The connection or the descriptor can't do that.
    Unsupported,
    /// Not over this transport: not allowed, not in the kernel, not the peer's.
    UnsupportedTransport,
    /// Not with this kind of addresses.
    UnsupportedFamily,
    /// There is no address to be reached at, or to reach.
    NoAddress,
    /// Nobody answered in time.
    TimedOut,
    /// The peer's host refused.
    Refused,
    /// Peer and we don't trust each other: why.
    Untrusted(String),
    /// The pool has no element to go to.
    EmptyPool,
    /// No registrar could say who is in the pool.
    NotResolved,
    /// There is no memory for what was asked for.
    NoMemory,
    /// What the system says.
    System(io::Error),
}

/// What calls on descriptors come to.
pub type Result<T> = std::result::Result<T, SocketError>;

impl SocketError {
    /// Whether it is no failure, only too early.
    pub(crate) fn is_too_early(&self) -> bool {
        matches!(self, SocketError::WouldBlock | SocketError::Interrupted)
    }

    /// The system's word for it, if it is the system's.
    pub(crate) fn system(&self) -> Option<Errno> {
        match self {
            SocketError::System(error) => error.raw_os_error().map(Errno::from_raw),
            _ => None,
        }
    }

    fn is_system(&self, any: &[Errno]) -> bool {
        self.system().is_some_and(|errno| any.contains(&errno))
    }

    /// Of a send: whether the connection is of no further use.
    pub(crate) fn ends_connection(&self) -> bool {
        use Errno::{EBADF, EINVAL, EIO, EMFILE, EMSGSIZE, ENFILE, ENOBUFS, ENOMEM, EOPNOTSUPP};
        const HARMLESS: &[Errno] =
            &[EBADF, EINVAL, EIO, EMFILE, EMSGSIZE, ENFILE, ENOBUFS, ENOMEM, EOPNOTSUPP];
        match self {
            SocketError::System(_) => !self.is_system(HARMLESS),
            SocketError::SessionOver => true,
            _ => false,
        }
    }

    /// Of reaching an element: whether it is left out only because of what it runs over, or of its kind of addresses.
    pub(crate) fn is_unsupported(&self) -> bool {
        matches!(self, SocketError::UnsupportedTransport | SocketError::UnsupportedFamily)
            || self.is_system(&[Errno::EPROTONOSUPPORT, Errno::EAFNOSUPPORT])
    }

    /// Whether it is this process's or this machine's own, of which whoever was to be reached knows nothing.
    pub(crate) fn is_ours(&self) -> bool {
        use Errno::{EACCES, EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM};
        self.is_unsupported()
            || matches!(self, SocketError::NoAddress)
            || self.is_system(&[EACCES, EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM])
    }

    /// Of a message: whether it says that the element can't be reached, or can no longer.
    pub(crate) fn is_the_elements(&self) -> bool {
        !matches!(
            self,
            SocketError::Closed
                | SocketError::Forked
                | SocketError::WouldBlock
                | SocketError::Interrupted
                | SocketError::Invalid
                | SocketError::TooLong
                | SocketError::NoNumber
                | SocketError::EmptyPool
                | SocketError::NotResolved
        ) && !self.is_ours()
    }

    /// Whether the process, or the machine, has as many files open as it may.
    pub(crate) fn lacks_descriptors(&self) -> bool {
        self.is_system(&[Errno::EMFILE, Errno::ENFILE])
    }
}

impl From<io::Error> for SocketError {
    fn from(error: io::Error) -> SocketError {
        match error.kind() {
            io::ErrorKind::WouldBlock => SocketError::WouldBlock,
            io::ErrorKind::Interrupted => SocketError::Interrupted,
            _ => SocketError::System(error),
        }
    }
}

impl From<Errno> for SocketError {
    fn from(errno: Errno) -> SocketError {
        io::Error::from(errno).into()
    }
}

impl fmt::Display for SocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SocketError::Closed => "no descriptor, or closed",
            SocketError::Forked => "the library is the parent process's",
            SocketError::NoSession => "no such session",
            SocketError::NotRegistered => "not registered",
            SocketError::WouldBlock => "not in time",
            SocketError::Interrupted => "a signal came first",
            SocketError::Misused => "the descriptor is in use for something else",
            SocketError::Invalid => "an argument makes no sense",
            SocketError::NoRoom => "the notification does not fit",
            SocketError::NotConnected => "not connected",
            SocketError::SessionFailed => "the session has failed",
            SocketError::SessionOver => "the session is over",
            SocketError::PeerGone => "the peer is gone",
            SocketError::TooLong => "too long a message",
            SocketError::NoNumber => "no number for one more",
            SocketError::Unsupported => "not supported there",
            SocketError::UnsupportedTransport => "not over this transport",
            SocketError::UnsupportedFamily => "not with this kind of addresses",
            SocketError::NoAddress => "no usable address",
            SocketError::TimedOut => "no answer in time",
            SocketError::Refused => "refused",
            SocketError::Untrusted(why) => why,
            SocketError::EmptyPool => "the pool is empty",
            SocketError::NotResolved => "no registrar answered",
            SocketError::NoMemory => "no memory for that much",
            SocketError::System(error) => return error.fmt(f),
        })
    }
}

impl std::error::Error for SocketError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// What follows from an error, for each: of no further use, unsupported, ours, the element's.
    #[test]
    fn what_follows_from_an_error() {
        for (error, follows) in [
            (SocketError::WouldBlock, [false; 4]),
            (SocketError::TooLong, [false; 4]),
            (SocketError::SessionOver, [true, false, false, true]),
            (SocketError::SessionFailed, [false, false, false, true]),
            (SocketError::Refused, [false, false, false, true]),
            (SocketError::UnsupportedTransport, [false, true, true, false]),
            (SocketError::NoAddress, [false, false, true, false]),
            (Errno::ECONNRESET.into(), [true, false, false, true]),
            (Errno::EAFNOSUPPORT.into(), [true, true, true, false]),
            (Errno::EMFILE.into(), [false, false, true, false]),
            (Errno::EMSGSIZE.into(), [false, false, false, true]),
            (io::Error::other("what has no number").into(), [true, false, false, true]),
        ] {
            let error: SocketError = error;
            let said =
                [error.ends_connection(), error.is_unsupported(), error.is_ours(), error.is_the_elements()];
            assert_eq!(said, follows, "{error:?}");
            assert_eq!(error.lacks_descriptors(), matches!(error.system(), Some(Errno::EMFILE)));
        }
    }
}
