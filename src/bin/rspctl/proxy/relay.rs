//! One direction of a relayed connection, from one end to the other: a state machine that does no input or
//! output but what the two [`End`]s do for it.
//!
//! ```text
//!         end of stream read          all written, end passed on
//!   Open ───────────────────► Ending ───────────────────────────► Ended
//! ```
//!
//! Nothing is read while something waits to be written, so what is held is bounded by one read. An end of stream
//! is passed on behind the last byte, never as a close: the other direction goes on. Who has much to say gets a pipe, and
//! its bytes are not copied any more.

use super::pipe::{Pipe, Pipes};
use std::fmt;
use std::io::{self, ErrorKind};

/// What is relayed between: a non-blocking stream.
pub trait End {
    /// As read(2): 0 is the end of the stream.
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize>;
    /// As write(2), without a signal.
    fn write(&self, bytes: &[u8]) -> io::Result<usize>;
    /// Nothing more will be written.
    fn finish(&self) -> io::Result<()>;
    /// As [`Pipe::fill`].
    fn fill(&self, pipe: &mut Pipe) -> io::Result<usize>;
    /// As [`Pipe::drain`].
    fn drain(&self, pipe: &mut Pipe) -> io::Result<usize>;
}

/// What bytes are moved by, for one turn each.
pub struct Room {
    scratch: Vec<u8>,
    pipes: Pipes,
}

impl Room {
    /// With what one read may take.
    pub fn new(size: usize) -> Room {
        Room { scratch: vec![0; size], pipes: Pipes::default() }
    }
}

/// Reads of one turn: others want to be served as well.
const TURN: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Open,
    Ending,
    Ended,
}

/// What a turn came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nothing to do before the next event.
    Waits,
    /// There is more to do: give others a turn first.
    More,
    /// This direction is over.
    Over,
}

/// Which of the two ends failed, and how.
#[derive(Debug)]
pub enum Failure {
    /// Could not be read from.
    Source(io::Error),
    /// Could not be written to.
    Sink(io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Source(error) => write!(f, "reading: {error}"),
            Failure::Sink(error) => write!(f, "writing: {error}"),
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Direction {
    state: State,
    /// Read, and not yet written: from `written` on.
    pending: Vec<u8>,
    written: usize,
    /// Whether a read may find something; the end of the stream may be behind what is there.
    readable: bool,
    ending_seen: bool,
    /// The sink took less than it was offered.
    blocked: bool,
    /// A read was full: the source has much to say.
    bulk: bool,
    /// The source is none of those that splice(2) knows.
    copies: bool,
    /// What is read goes into it, while there is more.
    pipe: Option<Pipe>,
    /// Into pipes since the source was last heard to have nothing.
    spliced: usize,
    /// Bytes passed on.
    pub passed: u64,
    /// Of them, through a pipe.
    pub piped: u64,
}

impl Direction {
    /// With bytes that go first.
    pub fn beginning_with(bytes: Vec<u8>) -> Direction {
        Direction { pending: bytes, ..Direction::default() }
    }

    /// The source has something; `end`: perhaps the end of the stream.
    pub fn readable(&mut self, end: bool) {
        self.readable = true;
        self.ending_seen |= end;
    }

    /// The sink takes something.
    pub fn writable(&mut self) {
        self.blocked = false;
    }

    /// Whether it waits for the sink.
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Whether the end of the stream was passed on.
    pub fn is_over(&self) -> bool {
        self.state == State::Ended
    }

    /// Moves what can be moved. After an error this direction is of no use any more.
    pub fn pump(&mut self, from: &impl End, to: &impl End, room: &mut Room) -> Result<Turn, Failure> {
        if !self.flush(to)? {
            return Ok(Turn::Waits);
        }
        for _ in 0..TURN {
            match self.state {
                State::Ended => return Ok(Turn::Over),
                State::Ending => {
                    // Who is not connected any more need not hear that nothing comes.
                    if let Err(error) = to.finish()
                        && error.kind() != ErrorKind::NotConnected
                    {
                        return Err(Failure::Sink(error));
                    }
                    self.state = State::Ended;
                    return Ok(Turn::Over);
                }
                State::Open if !self.readable => return Ok(Turn::Waits),
                State::Open => {}
            }
            if self.bulk && self.pipe.is_none() {
                self.pipe = room.pipes.take();
            }
            let moved = match &mut self.pipe {
                Some(pipe) => from.fill(pipe),
                None => from.read(&mut room.scratch),
            };
            match moved {
                Ok(0) => {
                    self.state = State::Ending;
                    self.give_back(room);
                }
                Ok(count) if self.pipe.is_some() => {
                    // A pipe may be full of little: only the source itself says that it has nothing more.
                    self.spliced = self.spliced.saturating_add(count);
                    if !self.drain(to)? {
                        return Ok(Turn::Waits);
                    }
                }
                Ok(count) => {
                    // Events are edges: what comes after a read that found less than it could take is told anew.
                    self.bulk = count == room.scratch.len() && !self.copies;
                    self.readable = count == room.scratch.len() || self.ending_seen;
                    if !self.pass(to, &room.scratch[..count])? {
                        return Ok(Turn::Waits);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    // With a pipe it takes two calls more to hear that there is nothing more.
                    self.bulk &= self.spliced >= room.scratch.len();
                    self.give_back(room);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // This kind of socket can't.
                Err(error) if error.kind() == ErrorKind::InvalidInput && self.pipe.is_some() => {
                    (self.bulk, self.copies) = (false, true);
                    self.give_back(room);
                }
                Err(error) => return Err(Failure::Source(error)),
            }
        }
        Ok(Turn::More)
    }

    /// Others may need the pipe.
    fn give_back(&mut self, room: &mut Room) {
        self.spliced = 0;
        if let Some(pipe) = self.pipe.take() {
            room.pipes.give_back(pipe);
        }
    }

    /// Writes what the pipe holds; `false`: not all of it yet.
    fn drain(&mut self, to: &impl End) -> Result<bool, Failure> {
        let Some(pipe) = &mut self.pipe else { return Ok(true) };
        while pipe.held() > 0 {
            match to.drain(pipe) {
                Ok(0) => return Err(Failure::Sink(ErrorKind::WriteZero.into())),
                Ok(count) => {
                    self.passed += count as u64;
                    self.piped += count as u64;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.blocked = true;
                    return Ok(false);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::Sink(error)),
            }
        }
        Ok(true)
    }

    /// Writes what was kept; `false`: not all of it yet.
    fn flush(&mut self, to: &impl End) -> Result<bool, Failure> {
        if self.blocked {
            return Ok(false);
        }
        if self.pending.is_empty() {
            return self.drain(to);
        }
        let pending = std::mem::take(&mut self.pending);
        let kept = self.written;
        self.written = 0;
        let (count, result) = write_all(to, &pending[kept..]);
        self.passed += count as u64;
        result.map_err(Failure::Sink)?;
        let done = kept + count == pending.len();
        if !done {
            (self.pending, self.written, self.blocked) = (pending, kept + count, true);
        }
        Ok(done)
    }

    /// Writes what was read, and keeps what the sink does not take.
    fn pass(&mut self, to: &impl End, bytes: &[u8]) -> Result<bool, Failure> {
        let (count, result) = write_all(to, bytes);
        self.passed += count as u64;
        result.map_err(Failure::Sink)?;
        if count < bytes.len() {
            self.pending.extend_from_slice(&bytes[count..]);
            self.blocked = true;
        }
        Ok(!self.blocked)
    }
}

/// How many bytes the sink took before it had enough (`Ok`) or failed.
fn write_all(to: &impl End, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut count = 0;
    while count < bytes.len() {
        match to.write(&bytes[count..]) {
            Ok(0) => return (count, Err(ErrorKind::WriteZero.into())),
            Ok(more) => count += more,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return (count, Err(error)),
        }
    }
    (count, Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    /// A stream whose reads and writes go as a script says.
    #[derive(Debug, Default)]
    struct Scripted(RefCell<Script>);

    #[derive(Debug, Default)]
    struct Script {
        /// What comes: pieces of data, which end with a wait; the end of the stream behind the last.
        input: VecDeque<Vec<u8>>,
        /// How much is taken before each wait.
        room: VecDeque<usize>,
        output: Vec<u8>,
        finished: bool,
    }

    impl End for Scripted {
        fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
            let mut script = self.0.borrow_mut();
            let Some(mut piece) = script.input.pop_front() else { return Ok(0) };
            if piece.is_empty() {
                return Err(ErrorKind::WouldBlock.into());
            }
            let count = piece.len().min(buffer.len());
            buffer[..count].copy_from_slice(&piece[..count]);
            piece.drain(..count);
            // What is left is there at once, or after a wait.
            script.input.push_front(piece);
            Ok(count)
        }

        fn write(&self, bytes: &[u8]) -> io::Result<usize> {
            let mut script = self.0.borrow_mut();
            assert!(!script.finished, "written behind the end");
            let room = script.room.pop_front().unwrap_or(usize::MAX);
            if room == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            let count = bytes.len().min(room);
            script.output.extend_from_slice(&bytes[..count]);
            if room != usize::MAX {
                script.room.push_front(room - count);
            }
            Ok(count)
        }

        fn fill(&self, pipe: &mut Pipe) -> io::Result<usize> {
            let (far, near) = UnixStream::pair()?;
            let mut buffer = [0; 64];
            match self.read(&mut buffer)? {
                0 => return Ok(0),
                count => (&far).write_all(&buffer[..count])?,
            }
            pipe.fill(&near)
        }

        fn drain(&self, pipe: &mut Pipe) -> io::Result<usize> {
            let mut room = self.0.borrow_mut().room.front().copied().unwrap_or(usize::MAX);
            let (far, near) = UnixStream::pair()?;
            far.set_nonblocking(true)?;
            let mut taken = 0;
            // A sink of a given room takes so much.
            if room == 0 {
                self.0.borrow_mut().room.pop_front();
                return Err(ErrorKind::WouldBlock.into());
            }
            room = room.min(pipe.held());
            while taken < room {
                taken += pipe.drain_at_most(&near, room - taken)?;
            }
            let mut bytes = vec![0; taken];
            (&far).read_exact(&mut bytes)?;
            assert_eq!(self.write(&bytes)?, taken);
            Ok(taken)
        }

        fn finish(&self) -> io::Result<()> {
            let mut script = self.0.borrow_mut();
            assert!(!script.finished, "finished twice");
            script.finished = true;
            Ok(())
        }
    }

    proptest! {
        /// Whatever comes when, and whatever is taken when: what goes out is what came in, and the end comes last.
        #[test]
        fn bytes_out_are_bytes_in(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20),
            room in proptest::collection::vec(0usize..150, 0..40),
            beginning in proptest::collection::vec(any::<u8>(), 0..30),
            size in 1usize..100,
        ) {
            let mut expected = beginning.clone();
            expected.extend(pieces.iter().flatten());
            let from = Scripted(RefCell::new(Script { input: pieces.into(), ..Script::default() }));
            let to = Scripted(RefCell::new(Script { room: room.into(), ..Script::default() }));
            let mut direction = Direction::beginning_with(beginning);
            let mut space = Room::new(size);
            let mut over = false;
            // Events may come when there is nothing, as those of epoll may.
            for event in 0..2000 {
                match event % 2 {
                    0 => direction.readable(true),
                    _ => direction.writable(),
                }
                let turn = direction.pump(&from, &to, &mut space).expect("no errors in the script");
                prop_assert!(direction.pending.len() <= size.max(30), "bounded by a read");
                if turn == Turn::Over {
                    over = true;
                    break;
                }
                prop_assert!(!to.0.borrow().finished);
            }
            prop_assert!(over && direction.is_over());
            prop_assert_eq!(direction.passed, expected.len() as u64);
            prop_assert_eq!(&to.0.borrow().output, &expected);
            prop_assert!(to.0.borrow().finished);
        }
    }

    #[test]
    fn a_short_read_ends_the_turn_unless_the_end_was_seen() {
        let script = |pieces: &[&[u8]]| Script {
            input: pieces.iter().map(|piece| piece.to_vec()).collect(),
            ..Script::default()
        };
        let (from, to) = (Scripted(RefCell::new(script(&[b"ab"]))), Scripted::default());
        let mut direction = Direction::default();
        let mut room = Room::new(8);
        assert_eq!(direction.pump(&from, &to, &mut room).unwrap(), Turn::Waits, "nothing was announced");
        direction.readable(false);
        assert_eq!(direction.pump(&from, &to, &mut room).unwrap(), Turn::Waits);
        assert_eq!(from.0.borrow().input.len(), 1, "no second read");
        from.0.borrow_mut().input.clear();
        direction.readable(true);
        assert_eq!(direction.pump(&from, &to, &mut room).unwrap(), Turn::Over);
        assert_eq!(to.0.borrow().output, b"ab");
    }

    #[test]
    fn errors_name_the_end() {
        struct Broken;
        impl End for Broken {
            fn read(&self, _: &mut [u8]) -> io::Result<usize> {
                Err(ErrorKind::ConnectionReset.into())
            }
            fn write(&self, _: &[u8]) -> io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }
            fn finish(&self) -> io::Result<()> {
                Err(ErrorKind::NotConnected.into())
            }
            fn fill(&self, _: &mut Pipe) -> io::Result<usize> {
                Err(ErrorKind::ConnectionReset.into())
            }
            fn drain(&self, _: &mut Pipe) -> io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }
        }
        let mut room = Room::new(8);
        let mut direction = Direction::default();
        direction.readable(false);
        let error = direction.pump(&Broken, &Scripted::default(), &mut room).unwrap_err();
        assert!(matches!(error, Failure::Source(error) if error.kind() == ErrorKind::ConnectionReset));
        let mut direction = Direction::beginning_with(b"x".to_vec());
        let error = direction.pump(&Scripted::default(), &Broken, &mut room).unwrap_err();
        assert!(matches!(error, Failure::Sink(error) if error.kind() == ErrorKind::BrokenPipe));
        let mut direction = Direction::default();
        direction.readable(true);
        assert_eq!(direction.pump(&Scripted::default(), &Broken, &mut room).unwrap(), Turn::Over);
    }
}
