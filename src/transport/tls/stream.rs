//! A session's bytes over TLS: what a socket's calls do, through an engine. Nothing here waits.

use super::engine::{Engine, Failure};
use crate::transport::scratch;
use crate::transport::stream;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::BorrowedFd;

/// Plaintext encrypted at once: what the kernel does not take of that is kept.
const CHUNK: usize = 64 << 10;
/// Records read at once, beyond what the reader has room for.
const BEYOND: usize = 1 << 10;
/// Longest plaintext of a record, and what a record has besides (RFC 8446 section 5.2).
const RECORD: usize = 16 << 10;
const OVERHEAD: usize = 5 + 1 + 16;
/// Most bytes of records read at once.
const MOST: usize = 160 << 10;
/// What a peer that was refused may have sent meanwhile.
const UNREAD: usize = 64 << 10;

/// One connection. The socket is handed in with each call.
#[derive(Debug)]
pub struct TlsStream {
    engine: Engine,
    /// Decrypted, but not taken: from `at` on.
    ahead: Vec<u8>,
    at: usize,
    /// The peer's direction is over: in order, or by an error.
    end: Option<Result<(), i32>>,
    /// Our direction is to end, or has.
    ending: bool,
    over: bool,
}

/// Where plaintext goes: to the reader's parts, and then ahead.
struct Sink<'a, 'b> {
    parts: &'a mut [IoSliceMut<'b>],
    /// Bytes in them.
    done: usize,
}

impl Sink<'_, '_> {
    /// What is left of the first part that has room.
    fn room(&mut self) -> Option<&mut [u8]> {
        let mut skip = self.done;
        for part in self.parts.iter_mut() {
            if skip < part.len() {
                return Some(&mut part[skip..]);
            }
            skip -= part.len();
        }
        None
    }
}

/// A socket as rustls writes to it.
struct Socket<'a>(BorrowedFd<'a>);

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        stream::send(self.0, &[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        stream::send(self.0, parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What one read of the socket came to.
enum Pulled {
    Some,
    Dry,
    End,
}

impl TlsStream {
    /// Through a connection that was just made.
    pub fn new(engine: Engine) -> TlsStream {
        TlsStream { engine, ahead: Vec::new(), at: 0, end: None, ending: false, over: false }
    }

    /// Who is at the other end.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Goes on with the handshake as far as what has come allows; `true` when the peer has proved itself. A failure's
    /// alert has been sent.
    pub fn prove(&mut self, socket: BorrowedFd<'_>) -> Result<bool, Failure> {
        let broken = |error: io::Error| Failure::Broken(error.to_string());
        while !self.engine.is_proved() {
            // Without room for a handshake's few bytes, what comes next can't be an answer to them.
            if !self.flush(socket).map_err(broken)? {
                return Ok(false);
            }
            match self.pull(socket, &mut Sink { parts: &mut [], done: 0 }) {
                Ok(Ok(Pulled::Dry)) => return Ok(false),
                Ok(Ok(Pulled::Some | Pulled::End)) => {}
                Ok(Err(failure)) => {
                    let _ = self.flush(socket);
                    return Err(failure);
                }
                // Whoever doesn't speak TLS may answer the first record by a reset.
                Err(_) if self.engine.unproved_bytes() == 0 => return Err(Failure::Silent),
                Err(error) => return Err(broken(error)),
            }
        }
        self.flush(socket).map_err(broken)?;
        Ok(true)
    }

    /// Sends `parts` in order; how many bytes were taken. Some of that may be [held](TlsStream::is_holding).
    /// `WouldBlock`: there is no room.
    pub fn send(&mut self, socket: BorrowedFd<'_>, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.ending {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if !self.flush(socket)? {
            return Err(ErrorKind::WouldBlock.into());
        }
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let mut done = 0;
        while done < total {
            done += match total <= CHUNK {
                true => self.engine.write(parts)?,
                false => self.write_some(parts, done)?,
            };
            if !self.flush(socket)? {
                break;
            }
        }
        Ok(done)
    }

    /// [`CHUNK`] bytes of `parts` behind the first `skip`.
    fn write_some(&mut self, parts: &[IoSlice<'_>], mut skip: usize) -> io::Result<usize> {
        let mut left = CHUNK;
        let mut cut = Vec::with_capacity(parts.len());
        for part in parts {
            let from = skip.min(part.len());
            skip -= from;
            let until = from + left.min(part.len() - from);
            left -= until - from;
            if until > from {
                cut.push(IoSlice::new(&part[from..until]));
            }
        }
        self.engine.write(&cut)
    }

    /// Sends what is held, and the end of our direction behind it; `true`: nothing is left.
    pub fn flush(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        while self.engine.has_output() {
            match self.engine.write_to(&mut Socket(socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        if self.ending && !self.over {
            self.over = true;
            stream::finish(socket);
        }
        Ok(true)
    }

    /// Whether [`TlsStream::flush`] has something to do.
    pub fn is_holding(&self) -> bool {
        self.engine.has_output() || (self.ending && !self.over)
    }

    /// Ends our direction in order, behind what is held; `true`: done.
    pub fn finish(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        self.ending = true;
        self.engine.finish();
        self.flush(socket)
    }

    /// A peer that was refused is to hear why: sent away with something of its unread, it would get a reset instead.
    pub fn dismiss(&mut self, socket: BorrowedFd<'_>) {
        let _ = self.flush(socket);
        stream::finish(socket);
        let (mut bytes, mut left) = ([0; 4096], UNREAD);
        while left > 0
            && let Ok(count @ 1..) = stream::receive(socket, &mut [IoSliceMut::new(&mut bytes)])
        {
            left = left.saturating_sub(count);
        }
    }

    /// Fills `parts` in order; how many bytes came. 0: the peer ended its direction in order. `WouldBlock`: there is
    /// nothing. What was decrypted beyond `parts` is [ahead](TlsStream::ahead), so the socket need not say so again.
    pub fn receive(&mut self, socket: BorrowedFd<'_>, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let mut sink = Sink { parts, done: 0 };
        self.take_ahead(&mut sink);
        while sink.done == 0 && sink.room().is_some() {
            match self.end {
                Some(Ok(())) => return Ok(0),
                Some(Err(code)) => return Err(io::Error::from_raw_os_error(code)),
                None => {}
            }
            match self.pull(socket, &mut sink)? {
                Ok(Pulled::Dry) => return Err(ErrorKind::WouldBlock.into()),
                Ok(Pulled::Some | Pulled::End) => {}
                Err(failure) => {
                    log::debug!("TLS: {failure}");
                    self.end = Some(Err(libc::EPROTO));
                }
            }
        }
        Ok(sink.done)
    }

    /// What was decrypted and not received.
    pub fn ahead(&self) -> &[u8] {
        &self.ahead[self.at..]
    }

    /// Somebody took it.
    pub fn clear_ahead(&mut self) {
        (self.ahead, self.at) = (Vec::new(), 0);
    }

    /// Whether a receive would find something. Reads the socket if need be.
    pub fn look(&mut self, socket: BorrowedFd<'_>) -> bool {
        while self.ahead().is_empty() && self.end.is_none() {
            match self.pull(socket, &mut Sink { parts: &mut [], done: 0 }) {
                Ok(Ok(Pulled::Dry)) => return false,
                Ok(Ok(Pulled::Some | Pulled::End)) => {}
                Ok(Err(_)) | Err(_) => return true,
            }
        }
        true
    }

    fn take_ahead(&mut self, sink: &mut Sink<'_, '_>) {
        while !self.ahead().is_empty()
            && let Some(room) = sink.room()
        {
            let count = room.len().min(self.ahead.len() - self.at);
            room[..count].copy_from_slice(&self.ahead[self.at..self.at + count]);
            self.at += count;
            sink.done += count;
        }
        // An idle session has no buffer.
        if self.ahead().is_empty() && self.at > 0 {
            self.clear_ahead();
        }
    }

    /// Reads the socket once.
    fn pull(
        &mut self,
        socket: BorrowedFd<'_>,
        sink: &mut Sink<'_, '_>,
    ) -> io::Result<Result<Pulled, Failure>> {
        let room: usize = sink.parts.iter().map(|part| part.len()).sum::<usize>() - sink.done;
        let want = (room + BEYOND + (room / RECORD + 1) * OVERHEAD).min(MOST);
        let mut records = scratch::take_second();
        if records.len() < want {
            records.resize(want, 0);
        }
        let read = loop {
            match stream::receive(socket, &mut [IoSliceMut::new(&mut records[..want])]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let result = match read {
            Ok(0) => self.eof(),
            Ok(count) => self.feed(&records[..count], sink).map(|()| Pulled::Some),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Pulled::Dry),
            Err(error) => {
                scratch::give_back_second(records);
                return Err(error);
            }
        };
        scratch::give_back_second(records);
        // Answers to what came; what the kernel does not take is held.
        let _ = self.flush(socket);
        Ok(result)
    }

    fn eof(&mut self) -> Result<Pulled, Failure> {
        let read = self.engine.read_from(&mut io::empty());
        if let Ok(Err(failure)) = read {
            return Err(failure);
        }
        // Without the peer's word for it, somebody else may have cut the stream.
        let in_order = self.engine.drain(&mut |_| {});
        self.end = Some(if in_order { Ok(()) } else { Err(libc::ECONNRESET) });
        Ok(Pulled::End)
    }

    fn feed(&mut self, mut records: &[u8], sink: &mut Sink<'_, '_>) -> Result<(), Failure> {
        while !records.is_empty() {
            let count = match self.engine.read_from(&mut records as &mut dyn Read) {
                Ok(result) => result?,
                Err(error) => return Err(Failure::Broken(error.to_string())),
            };
            self.drain(sink);
            if count == 0 {
                // Behind the end there is nothing to be read.
                self.end = Some(Ok(()));
                break;
            }
        }
        Ok(())
    }

    /// Takes all plaintext out of the engine.
    fn drain(&mut self, sink: &mut Sink<'_, '_>) {
        let TlsStream { engine, ahead, .. } = self;
        let ended = engine.drain(&mut |mut bytes| {
            while !bytes.is_empty()
                && ahead.is_empty()
                && let Some(room) = sink.room()
            {
                let count = room.len().min(bytes.len());
                room[..count].copy_from_slice(&bytes[..count]);
                (sink.done, bytes) = (sink.done + count, &bytes[count..]);
            }
            ahead.extend_from_slice(bytes);
        });
        if ended {
            self.end = Some(Ok(()));
        }
    }
}
