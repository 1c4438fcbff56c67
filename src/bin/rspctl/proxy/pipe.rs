//! Pipes between sockets: with splice(2) the bytes of a connection that has many of them stay in the kernel.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

/// Connections that have one at a time. A connection to whose client nothing can be written keeps its own; others copy.
pub const MOST: usize = 16;
/// What one holds, if the system allows that much (pipe(7): fs.pipe-max-size is 1 MiB, pipe-user-pages-soft 64 MiB).
const SIZE: usize = 256 << 10;

/// Bytes on their way from a socket to another one.
#[derive(Debug)]
pub struct Pipe {
    reader: PipeReader,
    writer: PipeWriter,
    size: usize,
    held: usize,
    /// How many there are is counted by these.
    _one: Arc<()>,
}

impl Pipe {
    /// Bytes in it.
    pub fn held(&self) -> usize {
        self.held
    }

    /// As much as is there and fits; 0 is the end of the stream. Only into an empty one, so that EAGAIN is the source's.
    pub fn fill(&mut self, from: impl AsFd) -> io::Result<usize> {
        debug_assert_eq!(self.held, 0);
        let count = splice(from.as_fd(), self.writer.as_fd(), self.size)?;
        self.held = count;
        Ok(count)
    }

    /// What the sink takes of what is held.
    pub fn drain(&mut self, to: impl AsFd) -> io::Result<usize> {
        self.drain_at_most(to, self.held)
    }

    /// The same, of part of it.
    pub fn drain_at_most(&mut self, to: impl AsFd, most: usize) -> io::Result<usize> {
        let count = splice(self.reader.as_fd(), to.as_fd(), most.min(self.held))?;
        self.held -= count.min(self.held);
        Ok(count)
    }
}

fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
    let none = std::ptr::null_mut();
    // SAFETY: both descriptors are borrowed for the call; without offsets no memory of ours is touched.
    let count =
        unsafe { libc::splice(from.as_raw_fd(), none, to.as_raw_fd(), none, most, libc::SPLICE_F_NONBLOCK) };
    Ok(Errno::result(count).map(|count| usize::try_from(count).unwrap_or(0))?)
}

/// Empty pipes, for whoever needs one next.
#[derive(Debug, Default)]
pub struct Pipes {
    spare: Vec<Pipe>,
    one: Arc<()>,
}

impl Pipes {
    /// One that is empty, unless all are in use, or none can be made.
    pub fn take(&mut self) -> Option<Pipe> {
        if let Some(pipe) = self.spare.pop() {
            return Some(pipe);
        }
        if Arc::strong_count(&self.one) > MOST {
            return None;
        }
        let (reader, writer) = io::pipe().ok()?;
        let size = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(SIZE as i32))
            .or_else(|_| fcntl(&writer, FcntlArg::F_GETPIPE_SZ))
            .ok()?;
        let size = usize::try_from(size).ok()?;
        Some(Pipe { reader, writer, size, held: 0, _one: self.one.clone() })
    }

    /// Is given back: only an empty one can be used again.
    pub fn give_back(&mut self, pipe: Pipe) {
        if pipe.held == 0 {
            self.spare.push(pipe);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn there_are_so_many_and_full_ones_do_not_come_back() {
        let mut pipes = Pipes::default();
        let mut all: Vec<Pipe> = (0..MOST).map(|_| pipes.take().expect("a pipe")).collect();
        assert!(pipes.take().is_none());
        let (mut far, near) = UnixStream::pair().unwrap();
        far.write_all(b"abc").unwrap();
        assert_eq!(all[0].fill(&near).unwrap(), 3);
        let used = all.remove(0);
        assert_eq!(used.held(), 3);
        pipes.give_back(used);
        let mut new = pipes.take().expect("a new one in the place of it");
        far.write_all(b"de").unwrap();
        assert_eq!((new.fill(&near).unwrap(), new.drain(&near).unwrap()), (2, 2));
        let mut said = [0; 9];
        assert_eq!(far.read(&mut said).unwrap(), 2, "nothing of who had it before");
        assert_eq!(said[..2], *b"de");
        near.set_nonblocking(true).unwrap();
        assert_eq!(new.fill(&near).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(far);
        assert_eq!(new.fill(&near).unwrap(), 0, "the end");
    }
}
