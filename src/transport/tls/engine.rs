//! One TLS connection without a socket: bytes of the wire and bytes of the peer go in and out.

use super::FIRST_BYTE;
use super::credentials::{Credentials, Fault, Judge, Purpose, describe};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{AlertDescription, ClientConnection, Connection, Error, ServerConnection};
use std::fmt;
use std::io::{self, BufRead, ErrorKind, IoSlice, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// What may come before the peer has proved itself; a long chain of certificates is a quarter of that.
const LONGEST_HANDSHAKE: usize = 32 << 10;

/// Why there is no connection with a peer.
#[derive(Debug)]
pub enum Failure {
    /// What came is no TLS.
    Plain,
    /// The peer refuses us: by which alert.
    Refused(AlertDescription),
    /// We refuse the peer: for what, and why in words.
    Distrusted(Fault, String),
    /// The peer went before it said anything.
    Silent,
    /// Anything else.
    Broken(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Plain => f.write_str("what comes is no TLS"),
            Failure::Refused(AlertDescription::NoApplicationProtocol) => {
                f.write_str("the peer serves something else at that port (alert NoApplicationProtocol)")
            }
            Failure::Refused(AlertDescription::ProtocolVersion) => {
                f.write_str("the peer has no TLS 1.3 (alert ProtocolVersion)")
            }
            Failure::Refused(AlertDescription::AccessDenied) => {
                f.write_str("the peer says that our certificate is not for that (alert AccessDenied)")
            }
            Failure::Refused(alert) => write!(f, "the peer refused our certificate (alert {alert:?})"),
            Failure::Distrusted(_, why) => f.write_str(why),
            Failure::Silent => f.write_str("the peer closed the connection without a word of TLS"),
            Failure::Broken(why) => f.write_str(why),
        }
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> io::Error {
        io::Error::new(ErrorKind::InvalidData, failure.to_string())
    }
}

/// Follows the records in a stream of bytes (RFC 8446 section 5.1).
#[derive(Debug, Default)]
struct RecordFollower {
    header: [u8; 5],
    /// Bytes of `header` that have come.
    have: usize,
    /// Bytes of the record that have not.
    left: usize,
    whole: u64,
    bytes: usize,
}

impl RecordFollower {
    fn note(&mut self, mut bytes: &[u8]) {
        self.bytes = self.bytes.saturating_add(bytes.len());
        while !bytes.is_empty() {
            if self.have < self.header.len() {
                let count = bytes.len().min(self.header.len() - self.have);
                self.header[self.have..self.have + count].copy_from_slice(&bytes[..count]);
                (self.have, bytes) = (self.have + count, &bytes[count..]);
                if self.have == self.header.len() {
                    self.left = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
                }
            } else {
                let count = bytes.len().min(self.left);
                (self.left, bytes) = (self.left - count, &bytes[count..]);
            }
            if self.have == self.header.len() && self.left == 0 {
                (self.have, self.whole) = (0, self.whole + 1);
            }
        }
    }

    fn is_partial(&self) -> bool {
        self.have > 0
    }
}

/// Lets [`RecordFollower`] see what is read.
struct Seen<'a>(&'a mut dyn Read, &'a mut RecordFollower);

impl Read for Seen<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        self.1.note(&buffer[..count]);
        Ok(count)
    }
}

/// See the module.
pub struct Engine {
    connection: Connection,
    records: RecordFollower,
    credentials: Arc<Credentials>,
    judge: Option<Arc<Judge>>,
    /// A peer that need not be ours is not asked for a proof.
    asks: bool,
    /// As a client: how many records had come when the handshake was over and we asked for an answer.
    asked: Option<u64>,
    proved: bool,
    ended: bool,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("proved", &self.proved).finish_non_exhaustive()
    }
}

impl Engine {
    /// The end that dialled. `judge`: besides the authority, who must like the peer's names.
    pub fn dialled(
        credentials: &Arc<Credentials>,
        purpose: Purpose,
        judge: Option<Arc<Judge>>,
    ) -> Result<Engine, Failure> {
        // The verifier asks for roles, not for a name; this one is not sent.
        let name = ServerName::IpAddress(IpAddr::from(Ipv4Addr::UNSPECIFIED).into());
        let connection = ClientConnection::new(credentials.client(purpose, judge.clone()), name);
        let engine = Engine::new(credentials, judge, connection.map(Connection::Client))?;
        // Over HTTP too, a refusal comes with the first read, which every request has.
        Ok(Engine { asks: !matches!(purpose, Purpose::Data | Purpose::Page), ..engine })
    }

    /// The end that accepted. `judge`: besides the authority, who must like the peer's names.
    pub fn accepted(
        credentials: &Arc<Credentials>,
        purpose: Purpose,
        judge: Option<Arc<Judge>>,
    ) -> Result<Engine, Failure> {
        let config = credentials.server(purpose, judge.clone());
        let connection = config.and_then(ServerConnection::new);
        Engine::new(credentials, judge, connection.map(Connection::Server))
    }

    fn new(
        credentials: &Arc<Credentials>,
        judge: Option<Arc<Judge>>,
        connection: Result<Connection, Error>,
    ) -> Result<Engine, Failure> {
        let mut connection = connection.map_err(|error| Failure::Broken(error.to_string()))?;
        // What we send leaves at once, so nothing waits in here.
        connection.set_buffer_limit(None);
        Ok(Engine {
            connection,
            records: RecordFollower::default(),
            credentials: credentials.clone(),
            judge,
            asks: true,
            asked: None,
            proved: false,
            ended: false,
        })
    }

    /// Whether the peer is known, and we to it.
    pub fn is_proved(&self) -> bool {
        self.proved
    }

    /// Whether the beginning of a record waits for its end.
    pub fn is_partial(&self) -> bool {
        self.records.is_partial()
    }

    /// Bytes kept for a peer that has not proved itself.
    pub fn unproved_bytes(&self) -> usize {
        if self.proved { 0 } else { self.records.bytes }
    }

    /// What the peer's certificate is called.
    pub fn names(&self) -> Vec<String> {
        let first = self.chain().first();
        first.map(|der| self.credentials.names_of(der)).unwrap_or_default()
    }

    /// The peer's certificate and what leads from it to the authority.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        self.connection.peer_certificates().unwrap_or_default()
    }

    /// Whether a peer that came by this certificate would be let in by `credentials`.
    pub fn is_believed_by(&self, credentials: &Credentials) -> bool {
        let chain = self.chain();
        credentials.still_believes(chain, matches!(self.connection, Connection::Client(_)))
            && self.judge.as_ref().is_none_or(|judge| {
                chain.first().is_some_and(|first| judge.accepts(&credentials.names_of(first)))
            })
    }

    /// Reads once from `source`. What the peer sent can be had by [`Engine::plaintext`] and must be before
    /// the next call, what is to be sent by [`Engine::take_output`], the alert of a failure included.
    /// `Ok(0)`: the end of the stream.
    pub fn read_from(&mut self, source: &mut dyn Read) -> io::Result<Result<usize, Failure>> {
        let count = self.connection.read_tls(&mut Seen(source, &mut self.records))?;
        if count == 0 && !self.proved {
            let silent = self.records.bytes == 0;
            let why = "the peer closed the connection before it had proved itself";
            return Ok(Err(if silent { Failure::Silent } else { Failure::Broken(why.into()) }));
        }
        Ok(self.process().map(|()| count))
    }

    fn process(&mut self) -> Result<(), Failure> {
        let first = self.records.whole == 0 && self.records.have > 0;
        if (first || self.records.whole > 0) && !self.proved && self.is_plain() {
            return Err(Failure::Plain);
        }
        let plaintext = match self.connection.process_new_packets() {
            Ok(state) => state.plaintext_bytes_to_read(),
            Err(error) => return Err(self.failure(error)),
        };
        if !self.proved {
            self.look_for_proof()?;
            if !self.proved && self.records.bytes > LONGEST_HANDSHAKE {
                return Err(Failure::Broken("the handshake is too long".into()));
            }
        }
        if plaintext == 0 && self.proved {
            // An answer to a KeyUpdate waits for something to be sent.
            self.flush_answers();
        }
        Ok(())
    }

    /// The first bytes tell; a server's alert is TLS as well.
    fn is_plain(&self) -> bool {
        const ALERT: u8 = 0x15;
        self.records.whole == 0
            && self.records.have > 0
            && !matches!(self.records.header[0], FIRST_BYTE | ALERT)
    }

    fn look_for_proof(&mut self) -> Result<(), Failure> {
        if self.connection.is_handshaking() {
            return Ok(());
        }
        match (&mut self.connection, self.asked) {
            // The handshake of a server ends with the client's certificate and signature.
            (Connection::Server(_), _) => {
                self.proved = true;
                self.flush_answers();
            }
            (Connection::Client(_), None) if !self.asks => self.proved = true,
            (Connection::Client(client), None) => {
                self.asked = Some(self.records.whole);
                client.refresh_traffic_keys().map_err(|error| Failure::Broken(error.to_string()))?;
            }
            // Whatever comes now was sent by one who has seen our certificate; a refusal is an error.
            (Connection::Client(_), Some(before)) => self.proved = self.records.whole > before,
        }
        Ok(())
    }

    fn flush_answers(&mut self) {
        // Writing nothing sends what waits to be sent before something.
        let _ = self.connection.writer().write(&[]);
    }

    fn failure(&self, error: Error) -> Failure {
        match error {
            Error::AlertReceived(AlertDescription::CloseNotify) => Failure::Silent,
            Error::AlertReceived(alert) if !self.proved => Failure::Refused(alert),
            Error::InvalidCertificate(why) => {
                let said = self.judge.as_ref().and_then(|judge| judge.reason());
                let text = said.map_or_else(|| describe(&why), str::to_owned);
                Failure::Distrusted(Fault::of(&why), text)
            }
            Error::NoCertificatesPresented => {
                Failure::Distrusted(Fault::Missing, "it has no certificate".into())
            }
            Error::PeerIncompatible(why) => Failure::Broken(format!("the peer's TLS is not ours: {why:?}")),
            other => Failure::Broken(other.to_string()),
        }
    }

    /// What the peer sent: 0 at its end in order, `WouldBlock` if there is nothing, `UnexpectedEof` if the
    /// connection ended without a word.
    pub fn plaintext(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.connection.reader().read(buffer)
    }

    /// Adds `bytes`, encrypted, to `output`.
    pub fn encrypt(&mut self, bytes: &[u8], output: &mut Vec<u8>) -> io::Result<()> {
        self.connection.writer().write_all(bytes)?;
        self.take_output(output);
        Ok(())
    }

    /// Hands all that the peer sent to `take`; whether the peer ended in order behind it.
    pub(super) fn drain(&mut self, take: &mut dyn FnMut(&[u8])) -> bool {
        loop {
            let mut reader = self.connection.reader();
            let count = match reader.fill_buf() {
                Ok([]) => return true,
                Ok(bytes) => {
                    take(bytes);
                    bytes.len()
                }
                Err(_) => return false,
            };
            reader.consume(count);
        }
    }

    /// Takes `parts` in order, encrypted, for [`Engine::write_to`]; how many bytes.
    pub(super) fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match parts {
            [part] => self.connection.writer().write(part),
            parts => self.connection.writer().write_vectored(parts),
        }
    }

    /// Whether there is anything to send.
    pub(super) fn has_output(&self) -> bool {
        self.connection.wants_write()
    }

    /// Sends some of what is to be sent.
    pub(super) fn write_to(&mut self, sink: &mut dyn Write) -> io::Result<usize> {
        self.connection.write_tls(sink)
    }

    /// Adds what is to be sent to `output`.
    pub fn take_output(&mut self, output: &mut Vec<u8>) {
        while self.connection.wants_write() {
            // Into memory, so it can't fail.
            if self.connection.write_tls(output).is_err() {
                return;
            }
        }
    }

    /// Adds the end of our direction (close_notify) to `output`, once.
    pub fn end(&mut self, output: &mut Vec<u8>) {
        self.finish();
        self.take_output(output);
    }

    /// Ends our direction, once, behind what there is to send.
    pub(super) fn finish(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            self.connection.send_close_notify();
        }
    }
}
