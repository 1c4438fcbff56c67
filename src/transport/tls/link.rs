//! Links over TLS: the same messages as over TCP, in records.

use super::credentials::{Credentials, Purpose};
use super::engine::{Engine, Failure};
use crate::transport::tcp::{Frames, TcpLink};
use crate::transport::{Condition, QueueStatus, ReadStatus};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// A link over TLS. Until [`TlsLink::prove`] says so, nobody is at the other end.
#[derive(Debug)]
pub struct TlsLink {
    engine: Engine,
    /// Carries the records; its own frames are not used.
    tcp: TcpLink,
    frames: Frames,
    /// Messages that wait for the proof.
    early: Vec<u8>,
}

impl TlsLink {
    /// Takes a connection that is being dialled, or was.
    pub fn dialled(
        tcp: TcpLink,
        credentials: &Arc<Credentials>,
        purpose: Purpose,
    ) -> Result<TlsLink, Failure> {
        Ok(TlsLink::new(tcp, Engine::dialled(credentials, purpose, None)?))
    }

    /// Takes a connection that was accepted.
    pub fn accepted(
        tcp: TcpLink,
        credentials: &Arc<Credentials>,
        purpose: Purpose,
    ) -> Result<TlsLink, Failure> {
        Ok(TlsLink::new(tcp, Engine::accepted(credentials, purpose, None)?))
    }

    fn new(tcp: TcpLink, engine: Engine) -> TlsLink {
        TlsLink { engine, tcp, frames: Frames::default(), early: Vec::new() }
    }

    /// Changes the send queue's bound (bytes).
    pub fn set_queue_bound(&mut self, bound: usize) {
        self.tcp.set_queue_bound(bound);
    }

    /// Goes on with the handshake as far as what has come allows; `true` when the peer has proved itself.
    /// After a failure, [`TlsLink::flush`] sends the alert that says why.
    pub fn prove(&mut self) -> Result<bool, Failure> {
        let broken = |error: io::Error| Failure::Broken(error.to_string());
        let result = loop {
            if self.engine.is_proved() {
                break Ok(true);
            }
            self.write_out().map_err(broken)?;
            match self.engine.read_from(&mut self.tcp.reader()) {
                Ok(Ok(_)) => {}
                Ok(Err(failure)) => break Err(failure),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Whoever doesn't speak TLS may answer the first record by a reset.
                Err(_) if self.engine.unproved_bytes() == 0 => break Err(Failure::Silent),
                Err(error) => break Err(broken(error)),
            }
        };
        self.write_out().map_err(broken)?;
        if result.is_ok() {
            let early = std::mem::take(&mut self.early);
            self.send(&early).map_err(broken)?;
        }
        result
    }

    /// Hands what the engine has for the peer to the kernel, or to the queue.
    fn write_out(&mut self) -> io::Result<()> {
        let mut output = Vec::new();
        self.engine.take_output(&mut output);
        if output.is_empty() {
            return Ok(());
        }
        self.tcp.send(&output).map(|_| ())
    }

    /// Hands up to `budget` whole messages to `message`. What is left of an unfinished message stays.
    pub fn read_messages(&mut self, budget: usize, message: &mut dyn FnMut(&[u8])) -> io::Result<ReadStatus> {
        let TlsLink { engine, tcp, frames, .. } = self;
        let result = frames.read_messages(budget, message, false, &mut |buffer| {
            loop {
                match engine.plaintext(buffer) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    other => return other,
                }
                if let Err(failure) = engine.read_from(&mut tcp.reader())? {
                    return Err(failure.into());
                }
            }
        });
        self.write_out()?;
        result
    }

    /// Whether the beginning of a message or record waits for its end.
    pub fn is_partial(&self) -> bool {
        self.frames.is_partial() || self.engine.is_partial()
    }

    /// Bytes kept with the link.
    pub fn buffered(&self) -> usize {
        self.frames.len() + self.tcp.buffered() + self.early.len() + self.engine.unproved_bytes()
    }

    /// Queues whole messages and writes what the kernel takes; before the proof it only queues.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<QueueStatus> {
        if !self.engine.is_proved() {
            self.early.extend_from_slice(bytes);
            return Ok(QueueStatus::Waiting(self.early.len()));
        }
        let mut output = Vec::with_capacity(bytes.len() + bytes.len() / 512 + 64);
        self.engine.encrypt(bytes, &mut output)?;
        if output.is_empty() {
            return self.tcp.flush();
        }
        self.tcp.send(&output)
    }

    /// The socket is writable: writes more of the queue.
    pub fn flush(&mut self) -> io::Result<QueueStatus> {
        self.write_out()?;
        self.tcp.flush()
    }

    /// For an outgoing link whose connect is under way: `Ok(true)` once connected.
    pub fn finish_connect(&mut self) -> io::Result<bool> {
        self.tcp.finish_connect()
    }

    /// Tells the peer that nothing more comes, behind what is queued.
    pub fn end(&mut self) -> io::Result<QueueStatus> {
        let mut output = Vec::new();
        self.engine.end(&mut output);
        if output.is_empty() { self.tcp.flush() } else { self.tcp.send(&output) }
    }

    /// Reads and drops what comes; `false` at the end. For a peer that was refused: closed with something
    /// unread, the connection would be reset, and the alert lost.
    pub fn drain(&mut self, bytes: &mut usize) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match io::Read::read(&mut self.tcp.reader(), &mut buffer) {
                Ok(0) => return false,
                Ok(count) if count <= *bytes => *bytes -= count,
                Ok(_) => return false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }

    /// Ends our direction of the connection below.
    pub fn finish(&self) {
        self.tcp.finish();
    }

    /// The peer's names.
    pub fn names(&self) -> Vec<String> {
        self.engine.names()
    }

    /// Whether the peer would be let in by `credentials` as well.
    pub fn is_believed_by(&self, credentials: &Credentials) -> bool {
        self.engine.is_believed_by(credentials)
    }

    /// The peer's address.
    pub fn peer_addresses(&self) -> Vec<SocketAddr> {
        self.tcp.peer_addresses()
    }

    /// How the way of the connection below is.
    pub fn condition(&self) -> Option<Condition> {
        self.tcp.condition()
    }

    /// Our address.
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        self.tcp.local_addresses()
    }
}

impl AsFd for TlsLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}
