//! Links over TCP: ASAP and ENRP messages back to back, each padded to 4 bytes.
//!
//! An idle link costs its descriptor and this struct: bytes are read into one buffer per thread, and only
//! what is left of an unfinished message (less than 64 KiB) is kept with the link.

use super::descriptors::Held;
use super::{Condition, QueueStatus, ReadStatus};
use super::{scratch, tcp_socket};
use crate::wire::frame::{self, LONGEST_MESSAGE};
use crate::wire::scope::unmapped;
use socket2::{Domain, Socket};
use std::io::{self, ErrorKind, Read};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// The first byte of every TLS connection: a handshake record. No message of ASAP, ENRP or a session begins so.
pub const FIRST_BYTE: u8 = 0x16;
/// Default bound of a link's send queue in bytes.
pub const QUEUE_BOUND: usize = 4 << 20;
/// An emptied buffer larger than this is given back to the allocator.
const KEPT_CAPACITY: usize = 4096;
/// How long sent data may stay unacknowledged, or a closed window closed, before the kernel gives up.
const USER_TIMEOUT: Duration = Duration::from_secs(15);
const BACKLOG: i32 = 4096;

/// A link over TCP.
#[derive(Debug)]
pub struct TcpLink {
    socket: Held<Socket>,
    peer: SocketAddr,
    connecting: bool,
    frames: Frames,
    /// Bytes that the kernel did not take; those before `written` it has taken since.
    queue: Vec<u8>,
    written: usize,
    bound: usize,
}

impl TcpLink {
    /// Starts to connect to `to`, from `from` if given. [`TcpLink::finish_connect`] tells how it went.
    pub fn dial(to: SocketAddr, from: Option<SocketAddr>) -> io::Result<TcpLink> {
        let socket = tcp_socket::new_socket(Domain::for_address(to))?;
        if let Some(from) = from {
            socket.set_reuse_address(true)?;
            socket.bind(&from.into())?;
        }
        tcp_socket::connect(socket.as_fd(), to)?;
        TcpLink::new(socket, to, true)
    }

    fn new(socket: Socket, peer: SocketAddr, connecting: bool) -> io::Result<TcpLink> {
        tcp_socket::tune(socket.as_fd(), Duration::from_secs(15), Duration::from_secs(5), 3)?;
        socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        retransmit_steadily(&socket);
        let peer = unmapped(&peer);
        Ok(TcpLink {
            socket: socket.into(),
            peer,
            connecting,
            frames: Frames::default(),
            queue: Vec::new(),
            written: 0,
            bound: QUEUE_BOUND,
        })
    }

    /// Changes the send queue's bound (bytes).
    pub fn set_queue_bound(&mut self, bound: usize) {
        self.bound = bound;
    }

    /// Hands up to `budget` whole messages to `message`. What is left of an unfinished message stays.
    pub fn read_messages(&mut self, budget: usize, message: &mut dyn FnMut(&[u8])) -> io::Result<ReadStatus> {
        let TcpLink { frames, socket, .. } = self;
        // A read that did not fill the buffer has emptied the socket; asking again would cost a system
        // call per message.
        frames.read_messages(budget, message, true, &mut |buffer| (&**socket).read(buffer))
    }

    /// Whether the beginning of a message waits for its end.
    pub fn is_partial(&self) -> bool {
        self.frames.is_partial()
    }

    /// Bytes kept with the link: unfinished message and send queue.
    pub fn buffered(&self) -> usize {
        self.frames.len() + self.waiting()
    }

    /// Whether the garbage that came is TLS.
    pub fn is_tls(&self) -> bool {
        self.frames.is_tls
    }

    /// For who reads the bytes himself.
    pub(super) fn reader(&self) -> impl Read {
        &*self.socket
    }

    /// The first byte that comes, left where it is: `None` before it has come; at the end of the stream,
    /// `UnexpectedEof`.
    pub fn first_byte(&self) -> io::Result<Option<u8>> {
        let mut byte = [MaybeUninit::new(0)];
        match self.socket.peek(&mut byte) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            // SAFETY: it was initialised, and since then only written to.
            #[allow(unsafe_code)]
            Ok(_) => Ok(Some(unsafe { byte[0].assume_init() })),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn waiting(&self) -> usize {
        self.queue.len() - self.written
    }

    /// Queues whole messages and writes what the kernel takes; while connecting it only queues.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<QueueStatus> {
        let mut bytes = bytes;
        if !self.connecting && self.waiting() == 0 {
            bytes = &bytes[self.write(bytes)?..];
            if bytes.is_empty() {
                return Ok(QueueStatus::Empty);
            }
        }
        // A single message is always taken, so that a small bound can't make a link useless.
        if self.waiting() > 0 && self.waiting() + bytes.len() > self.bound {
            return Ok(QueueStatus::Overflow);
        }
        self.queue.extend_from_slice(bytes);
        Ok(QueueStatus::Waiting(self.waiting()))
    }

    /// The socket is writable: writes more of the queue.
    pub fn flush(&mut self) -> io::Result<QueueStatus> {
        if self.connecting && !self.queue.is_empty() {
            return Ok(QueueStatus::Waiting(self.waiting()));
        }
        while self.waiting() > 0 {
            let count = self.write(&self.queue[self.written..])?;
            self.written += count;
            if count == 0 {
                break;
            }
        }
        if self.waiting() > 0 {
            // Moving the rest is worth it only when at least as much was written.
            if self.written > self.queue.len() / 2 {
                self.queue.drain(..self.written);
                self.written = 0;
            }
            return Ok(QueueStatus::Waiting(self.waiting()));
        }
        self.written = 0;
        self.queue.clear();
        if self.queue.capacity() > KEPT_CAPACITY {
            self.queue = Vec::new();
        }
        Ok(QueueStatus::Empty)
    }

    /// Writes until the kernel takes no more; how much it took.
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut count = 0;
        while count < bytes.len() {
            match self.socket.send_with_flags(&bytes[count..], libc::MSG_NOSIGNAL) {
                Ok(more) => count += more,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    /// For an outgoing link whose connect is under way: `Ok(true)` once connected.
    pub fn finish_connect(&mut self) -> io::Result<bool> {
        if !self.connecting {
            return Ok(true);
        }
        self.connecting = !tcp_socket::is_connected(self.socket.as_fd())?;
        Ok(!self.connecting)
    }

    /// Tells the peer that nothing more comes.
    pub fn finish(&self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// The peer's address.
    pub fn peer_addresses(&self) -> Vec<SocketAddr> {
        vec![self.peer]
    }

    /// How the way to the other end is (TCP_INFO).
    pub fn condition(&self) -> Option<Condition> {
        let info = tcp_socket::info(self.socket.as_fd()).ok()?;
        Some(Condition {
            round_trip: (info.tcpi_rtt > 0).then(|| Duration::from_micros(info.tcpi_rtt.into())),
            retransmissions: info.tcpi_total_retrans.into(),
            unacknowledged: info.tcpi_unacked > 0,
        })
    }

    /// Our address.
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        let local = self.socket.local_addr().ok().and_then(|local| local.as_socket());
        local.as_ref().map(unmapped).into_iter().collect()
    }
}

/// What a link carries is little and must not wait: the first six retransmissions come at even intervals
/// instead of each after twice the time of the last, and no later one after more than a second (TCP_RTO_MAX_MS,
/// Linux 6.15). A kernel that can't do that does as it always does.
fn retransmit_steadily(socket: &Socket) {
    const TCP_RTO_MAX_MS: libc::c_int = 44;
    for (option, value) in [(libc::TCP_THIN_LINEAR_TIMEOUTS, 1), (TCP_RTO_MAX_MS, 1000)] {
        let _ = tcp_socket::set_option(socket.as_fd(), option, value);
    }
}

/// Cuts a stream of bytes into messages.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// The beginning of a message whose end has not come yet, or whole messages beyond a call's budget.
    partial: Vec<u8>,
    /// What came is the beginning of a TLS connection.
    is_tls: bool,
}

impl Frames {
    pub fn is_partial(&self) -> bool {
        !self.partial.is_empty()
    }

    pub fn len(&self) -> usize {
        self.partial.len()
    }

    /// Hands up to `budget` whole messages of what `read` gives to `message`. `short_is_all`: a read that does
    /// not fill the buffer says that there is nothing more.
    pub fn read_messages(
        &mut self,
        budget: usize,
        message: &mut dyn FnMut(&[u8]),
        short_is_all: bool,
        read: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<ReadStatus> {
        let mut buffer = scratch::take();
        buffer.resize(LONGEST_MESSAGE, 0);
        let (result, rest) = self.read_into(&mut buffer, budget, message, short_is_all, read);
        self.partial.clear();
        match result {
            Ok(ReadStatus::Drained | ReadStatus::More) => self.partial.extend_from_slice(&buffer[rest]),
            _ => self.partial = Vec::new(),
        }
        if self.partial.is_empty() && self.partial.capacity() > KEPT_CAPACITY {
            self.partial = Vec::new();
        }
        scratch::give_back(buffer);
        result
    }

    /// The loop of `read_messages`; also says which part of `buffer` was not handed out.
    fn read_into(
        &mut self,
        buffer: &mut [u8],
        budget: usize,
        message: &mut dyn FnMut(&[u8]),
        short_is_all: bool,
        read: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> (io::Result<ReadStatus>, std::ops::Range<usize>) {
        let (mut start, mut end, mut handed) = (0, self.partial.len(), 0);
        buffer[..end].copy_from_slice(&self.partial);
        let mut exhausted = false;
        loop {
            // A handshake record; read as a message, it would be one that lacks its end.
            if let [FIRST_BYTE, 3, ..] = buffer[start..end] {
                self.is_tls = true;
                return (Ok(ReadStatus::Garbage), start..end);
            }
            match frame::first_message(&buffer[start..end]) {
                Ok(Some(_)) if handed == budget => return (Ok(ReadStatus::More), start..end),
                Ok(Some(length)) => {
                    message(&buffer[start..start + length]);
                    (start, handed) = (start + length, handed + 1);
                    continue;
                }
                Ok(None) => {}
                Err(_) => return (Ok(ReadStatus::Garbage), start..end),
            }
            if exhausted {
                return (Ok(ReadStatus::Drained), start..end);
            }
            buffer.copy_within(start..end, 0);
            (start, end) = (0, end - start);
            let room = buffer.len() - end;
            match read(&mut buffer[end..]) {
                Ok(0) => return (Ok(ReadStatus::Closed), start..end),
                Ok(count) => (end, exhausted) = (end + count, short_is_all && count < room),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return (Ok(ReadStatus::Drained), start..end);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return (Err(error), start..end),
            }
        }
    }
}

impl AsFd for TcpLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Accepts links over TCP.
#[derive(Debug)]
pub struct TcpListener {
    socket: mio::net::TcpListener,
    local: SocketAddr,
}

impl TcpListener {
    /// Listens on `local`; port 0 takes a free one. The unspecified IPv6 address also takes IPv4 links.
    pub fn bind(local: SocketAddr) -> io::Result<TcpListener> {
        let socket = tcp_socket::bind(local)?;
        socket.listen(BACKLOG)?;
        let socket = std::net::TcpListener::from(socket);
        let local = socket.local_addr()?;
        Ok(TcpListener { socket: mio::net::TcpListener::from_std(socket), local })
    }

    /// Where it listens.
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// The next link; `None` when nobody waits. An error (descriptors or memory are short) leaves the
    /// caller of the connection waiting: try again later, not at once.
    pub fn accept(&self) -> io::Result<Option<TcpLink>> {
        while let Some((socket, peer)) = tcp_socket::accept(self.socket.as_fd())? {
            // Fails only when the peer is gone already.
            if let Ok(link) = TcpLink::new(socket, peer, false) {
                return Ok(Some(link));
            }
        }
        Ok(None)
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn any() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    fn wait(fd: &impl AsFd, events: nix::poll::PollFlags) {
        let mut fds = [nix::poll::PollFd::new(fd.as_fd(), events)];
        assert_eq!(nix::poll::poll(&mut fds, 10_000u16).unwrap(), 1, "nothing happened for 10 s");
    }

    /// An accepted link and the plain stream at its other end.
    fn pair() -> (TcpLink, std::net::TcpStream) {
        let listener = TcpListener::bind(any()).unwrap();
        let stream = std::net::TcpStream::connect(listener.local_address()).unwrap();
        wait(&listener, nix::poll::PollFlags::POLLIN);
        (listener.accept().unwrap().unwrap(), stream)
    }

    fn message(length: u16) -> Vec<u8> {
        let mut bytes = vec![0; usize::from(length).next_multiple_of(4)];
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        bytes
    }

    /// Reads until `count` messages came or the link ends.
    fn read(link: &mut TcpLink, count: usize) -> (Vec<usize>, ReadStatus) {
        let mut lengths = Vec::new();
        loop {
            let status = link.read_messages(usize::MAX, &mut |bytes| lengths.push(bytes.len())).unwrap();
            if lengths.len() >= count || status != ReadStatus::Drained {
                return (lengths, status);
            }
            wait(link, nix::poll::PollFlags::POLLIN);
        }
    }

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let (mut link, mut stream) = pair();
        let bytes: Vec<u8> = [message(4), message(7), message(65_535), message(12)].concat();
        let writer = std::thread::spawn(move || {
            for piece in bytes.chunks(4999) {
                stream.write_all(piece).unwrap();
            }
            stream
        });
        assert_eq!(read(&mut link, 4), (vec![4, 8, 65_536, 12], ReadStatus::Drained));
        assert!(!link.is_partial());
        assert!(link.frames.partial.capacity() <= KEPT_CAPACITY, "an idle link keeps no large buffer");
        drop(writer.join().unwrap());
        assert_eq!(read(&mut link, 1), (vec![], ReadStatus::Closed));
    }

    #[test]
    fn a_budget_is_kept_and_nothing_is_lost() {
        let (mut link, mut stream) = pair();
        stream.write_all(&message(8).repeat(10)).unwrap();
        wait(&link, nix::poll::PollFlags::POLLIN);
        let mut seen = 0;
        while seen < 10 {
            let before = seen;
            let status = link.read_messages(3, &mut |_| seen += 1).unwrap();
            assert!(seen - before <= 3);
            assert!(status == ReadStatus::More || seen == 10, "{status:?} after {seen}");
        }
        assert!(!link.is_partial());
    }

    #[test]
    fn a_length_below_the_header_is_garbage() {
        let (mut link, mut stream) = pair();
        stream.write_all(&[message(4), vec![1, 2, 0, 3]].concat()).unwrap();
        assert_eq!(read(&mut link, 99), (vec![4], ReadStatus::Garbage));
        assert!(!link.is_partial());
    }

    #[test]
    fn a_half_message_is_known_as_such() {
        let (mut link, mut stream) = pair();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        wait(&link, nix::poll::PollFlags::POLLIN);
        assert_eq!(link.read_messages(9, &mut |_| panic!("no message")).unwrap(), ReadStatus::Drained);
        assert!(link.is_partial());
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read(&mut link, 99), (vec![], ReadStatus::Closed));
        assert!(!link.is_partial());
    }

    #[test]
    fn a_peer_that_does_not_read_fills_the_queue_up_to_its_bound() {
        let (mut link, mut stream) = pair();
        link.set_queue_bound(100_000);
        let mut sent = 0;
        let overflow = loop {
            match link.send(&message(10_000)).unwrap() {
                QueueStatus::Overflow => break link.waiting(),
                QueueStatus::Waiting(_) | QueueStatus::Empty => sent += 10_000,
            }
        };
        assert!(overflow <= 100_000 && link.buffered() <= 100_000);
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            all.len()
        });
        while link.flush().unwrap() != QueueStatus::Empty {
            wait(&link, nix::poll::PollFlags::POLLOUT);
        }
        assert_eq!(link.queue.capacity(), 0);
        drop(link);
        assert_eq!(reader.join().unwrap(), sent, "all that was accepted arrives, nothing of the refused");
    }

    #[test]
    fn dialling_sends_what_was_queued_meanwhile() {
        let listener = TcpListener::bind(any()).unwrap();
        let mut link = TcpLink::dial(listener.local_address(), None).unwrap();
        assert_eq!(link.send(&message(20)).unwrap(), QueueStatus::Waiting(20));
        while !link.finish_connect().unwrap() {
            wait(&link, nix::poll::PollFlags::POLLOUT);
        }
        assert_eq!(link.flush().unwrap(), QueueStatus::Empty);
        wait(&listener, nix::poll::PollFlags::POLLIN);
        let mut accepted = listener.accept().unwrap().unwrap();
        assert_eq!(read(&mut accepted, 1), (vec![20], ReadStatus::Drained));
        assert_eq!(accepted.peer_addresses(), link.local_addresses());
        assert!(listener.accept().unwrap().is_none());
    }

    #[test]
    fn nobody_listening_is_an_error_and_a_closed_peer_no_signal() {
        let address = TcpListener::bind(any()).unwrap().local_address();
        let refused = TcpLink::dial(address, None).and_then(|mut link| {
            loop {
                wait(&link, nix::poll::PollFlags::POLLOUT);
                if link.finish_connect()? {
                    return Ok(());
                }
            }
        });
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);

        // Rust's test runner ignores SIGPIPE, so this only pins the error; MSG_NOSIGNAL does the rest.
        let (mut link, stream) = pair();
        drop(stream);
        assert_eq!(read(&mut link, 1).1, ReadStatus::Closed);
        let error = loop {
            match link.send(&message(4)) {
                Ok(_) => wait(&link, nix::poll::PollFlags::POLLOUT),
                Err(error) => break error,
            }
        };
        assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
    }

    #[test]
    fn one_listener_takes_both_families() {
        let listener = TcpListener::bind("[::]:0".parse().unwrap()).unwrap();
        let to = SocketAddr::new("127.0.0.1".parse().unwrap(), listener.local_address().port());
        let stream = std::net::TcpStream::connect(to).unwrap();
        wait(&listener, nix::poll::PollFlags::POLLIN);
        let link = listener.accept().unwrap().unwrap();
        assert_eq!(link.peer_addresses(), [stream.local_addr().unwrap()]);
        assert_eq!(link.local_addresses(), [to]);
    }
}
