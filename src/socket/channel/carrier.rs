//! The byte stream under a session over TCP, in TLS or without: all that `sender`, `receiver` and data-only sessions
//! know of it.

use crate::runtime::SessionSecurity;
use crate::runtime::complaints::SESSIONS;
use crate::socket::channel::ahead::Ahead;
use crate::transport::descriptors::Held;
use crate::transport::stream;
use crate::transport::tls::{Credentials, Engine, FIRST_BYTE, Failure, Judge, Mode, Purpose, TlsStream};
use crate::wire::show;
use parking_lot::{Mutex, MutexGuard};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// A connected socket and how bytes pass through it. Nothing here waits.
#[derive(Debug)]
pub(crate) struct Carrier {
    socket: Held<OwnedFd>,
    tls: OnceLock<Box<Secure>>,
    /// Of an accepted connection whose first byte tells whether it is TLS.
    undecided: Option<Proof>,
}

/// What accepted connections have to prove.
#[derive(Debug, Clone)]
pub(crate) struct Proof {
    pub(crate) security: Arc<SessionSecurity>,
    pub(crate) judge: Arc<Judge>,
}

/// TLS, and by what it is judged.
#[derive(Debug)]
struct Secure {
    stream: Mutex<TlsStream>,
    /// Something waits for the socket to become writable.
    holds: AtomicBool,
    security: Arc<SessionSecurity>,
    /// The change of the credentials by which the peer was looked at last.
    looked: AtomicU64,
}

impl From<OwnedFd> for Carrier {
    fn from(socket: OwnedFd) -> Carrier {
        Carrier { socket: socket.into(), tls: OnceLock::new(), undecided: None }
    }
}

impl Carrier {
    /// Bytes that the other end has acknowledged, and those that came; none once somebody closed the socket.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        if self.socket.is_there() { stream::bytes(self.socket.as_fd()) } else { (0, 0) }
    }
}

impl AsFd for Carrier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Secure {
    fn new(
        security: &Arc<SessionSecurity>,
        engine: impl FnOnce(&Arc<Credentials>) -> Result<Engine, Failure>,
    ) -> Result<Box<Secure>, Failure> {
        let looked = AtomicU64::new(security.changes());
        let credentials = security.credentials();
        let credentials = credentials.ok_or_else(|| Failure::Broken("there are no credentials".into()))?;
        let stream = Mutex::new(TlsStream::new(engine(&credentials)?));
        Ok(Box::new(Secure { stream, holds: AtomicBool::new(false), security: security.clone(), looked }))
    }

    /// The stream, unless its peer would not be let in any more.
    fn stream(&self, socket: BorrowedFd<'_>) -> io::Result<MutexGuard<'_, TlsStream>> {
        let stream = self.stream.lock();
        let changes = self.security.changes();
        if self.looked.load(Relaxed) != changes {
            if let Some(credentials) = self.security.credentials()
                && stream.engine().is_proved()
                && !stream.engine().is_believed_by(&credentials)
            {
                let peer = stream::peer(socket);
                SESSIONS.note(
                    "a session's certificate is no longer valid",
                    peer.map(|peer| peer.ip()),
                    format_args!(
                        "a session ends: the certificate of its peer{} is no longer valid, or revoked",
                        show::at(peer)
                    ),
                );
                return Err(io::Error::from_raw_os_error(libc::EPROTO));
            }
            self.looked.store(changes, Relaxed);
        }
        Ok(stream)
    }

    fn note(&self, stream: &TlsStream) {
        self.holds.store(stream.is_holding(), Relaxed);
    }
}

impl Carrier {
    /// TLS over a connection that we made. [`Carrier::prove`] it before anything else.
    pub(crate) fn dialled(
        socket: OwnedFd,
        security: &Arc<SessionSecurity>,
        purpose: Purpose,
        judge: Arc<Judge>,
    ) -> Result<Carrier, Failure> {
        let secure = Secure::new(security, |credentials| Engine::dialled(credentials, purpose, Some(judge)))?;
        Ok(Carrier { socket: socket.into(), tls: OnceLock::from(secure), undecided: None })
    }

    /// A connection that came in and has to give `proof`: plain, TLS, or not decided yet.
    pub(crate) fn accepted(socket: OwnedFd, proof: Option<Proof>) -> Result<Carrier, Failure> {
        let carrier = Carrier::from(socket);
        Ok(match proof {
            Some(proof) if proof.security.mode() == Mode::Allow => {
                Carrier { undecided: Some(proof), ..carrier }
            }
            Some(proof) => Carrier { tls: OnceLock::from(proof.secure()?), ..carrier },
            None => carrier,
        })
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.tls.get().is_some()
    }

    /// Goes on with the handshake, if there is to be one; `Ok(true)`: the peer has proved itself, or need not.
    pub(crate) fn prove(&self) -> Result<bool, Failure> {
        if self.tls.get().is_none()
            && let Some(proof) = &self.undecided
        {
            let broken = |error: io::Error| Failure::Broken(error.to_string());
            let mut first = [0];
            match stream::peek(self.as_fd(), &mut first) {
                Ok(0) => return Err(Failure::Silent),
                Ok(_) if first[0] == FIRST_BYTE => _ = self.tls.set(proof.secure()?),
                Ok(_) => return Ok(true),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    return Ok(false);
                }
                Err(error) => return Err(broken(error)),
            }
        }
        let Some(secure) = self.tls.get() else { return Ok(true) };
        let mut stream = secure.stream.lock();
        let result = stream.prove(self.as_fd());
        secure.note(&stream);
        result
    }

    /// The peer was refused: lets it hear why.
    pub(crate) fn dismiss(&self) {
        if let Some(secure) = self.tls.get() {
            secure.stream.lock().dismiss(self.as_fd());
        }
    }

    /// Sends `parts` in order; how many bytes were taken. `WouldBlock`: there is no room.
    pub(crate) fn send(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let Some(secure) = self.tls.get() else { return stream::send(self.as_fd(), parts) };
        let mut stream = secure.stream(self.socket.as_fd())?;
        let result = stream.send(self.as_fd(), parts);
        secure.note(&stream);
        result
    }

    /// Fills `parts` in order; how many bytes came. 0: the peer's direction is over. `WouldBlock`: there is nothing.
    pub(crate) fn receive(&self, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let Some(secure) = self.tls.get() else { return stream::receive(self.as_fd(), parts) };
        let mut stream = secure.stream(self.socket.as_fd())?;
        let result = stream.receive(self.as_fd(), parts);
        secure.note(&stream);
        result
    }

    /// The next bytes of a plain connection, left where they are.
    pub(crate) fn peek(&self, bytes: &mut [u8]) -> io::Result<usize> {
        stream::peek(self.as_fd(), bytes)
    }

    /// Whether a receive would find something; reads what TLS has under the bytes.
    pub(crate) fn look(&self) -> bool {
        match self.tls.get() {
            Some(secure) => secure.stream.lock().look(self.as_fd()),
            None => {
                let would_block = |error: io::Error| error.kind() == ErrorKind::WouldBlock;
                !self.peek(&mut [0]).is_err_and(would_block)
            }
        }
    }

    /// Whether there are bytes that the socket does not know of any more.
    pub(crate) fn is_ahead(&self) -> bool {
        self.tls.get().is_some_and(|secure| !secure.stream.lock().ahead().is_empty())
    }

    /// Moves these bytes behind what `bytes` has, unless there is no memory for them.
    pub(crate) fn take_ahead(&self, bytes: &mut Ahead) {
        if let Some(secure) = self.tls.get() {
            let mut stream = secure.stream.lock();
            if bytes.push(stream.ahead()).is_ok() {
                stream.clear_ahead();
            }
        }
    }

    /// How many bytes can be received at once, as far as that is known.
    pub(crate) fn pending(&self) -> usize {
        if self.is_secure() { 0 } else { stream::pending(self.as_fd()) }
    }

    /// Whether something that was taken waits for room: [`Carrier::flush`] it.
    pub(crate) fn is_holding(&self) -> bool {
        self.tls.get().is_some_and(|secure| secure.holds.load(Relaxed))
    }

    /// Sends what was taken and waits for room; `true`: nothing is left.
    pub(crate) fn flush(&self) -> io::Result<bool> {
        let Some(secure) = self.tls.get().filter(|secure| secure.holds.load(Relaxed)) else {
            return Ok(true);
        };
        let mut stream = secure.stream.lock();
        let result = stream.flush(self.as_fd());
        secure.note(&stream);
        result
    }

    /// Ends our direction in order, behind what waits for room; `false`: [`Carrier::flush`] has to go on.
    pub(crate) fn finish(&self) -> bool {
        let Some(secure) = self.tls.get() else {
            stream::finish(self.as_fd());
            return true;
        };
        let mut stream = secure.stream.lock();
        // What is broken needs no end.
        let done = stream.finish(self.as_fd()).unwrap_or(true);
        secure.note(&stream);
        done
    }

    /// Breaks the connection.
    pub(crate) fn abort(&self) {
        stream::abort(self.as_fd());
    }
}

impl Proof {
    fn secure(&self) -> Result<Box<Secure>, Failure> {
        let judge = Some(self.judge.clone());
        Secure::new(&self.security, |credentials| Engine::accepted(credentials, Purpose::Session, judge))
    }
}
