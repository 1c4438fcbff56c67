//! One host's addresses, dialled over TCP: the next beside the last where that does not answer, until one does.

use super::{stream, tcp_socket};
use std::io::{self, ErrorKind};
use std::iter::Peekable;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Before the next address of a host is dialled beside one that has not answered (RFC 8305 section 5).
pub const STAGGER: Duration = Duration::from_millis(250);

/// See the module. Whoever has it waits between its steps.
#[derive(Debug)]
pub struct Dials<I: Iterator<Item = SocketAddr>> {
    rest: Peekable<I>,
    under_way: Vec<OwnedFd>,
    /// When the next is dialled.
    due: Instant,
    failure: Option<io::Error>,
}

impl<I: Iterator<Item = SocketAddr>> Dials<I> {
    /// `addresses` are tried in this order, the first with the first step.
    pub fn new(addresses: I, now: Instant) -> Dials<I> {
        Dials { rest: addresses.peekable(), under_way: Vec::new(), due: now, failure: None }
    }

    /// Looks at those under way, and dials what is due with `dial` ([`stream::dial`], or its like). The connection, once
    /// there is one; the others are closed with the rest of this.
    ///
    /// Errors: that of the last address that failed, once none is left; `NotFound` if there never was one.
    pub fn step(
        &mut self,
        now: Instant,
        mut dial: impl FnMut(SocketAddr) -> io::Result<OwnedFd>,
    ) -> io::Result<Option<OwnedFd>> {
        let mut index = 0;
        while let Some(socket) = self.under_way.get(index) {
            match tcp_socket::is_connected(socket.as_fd()) {
                Ok(true) => return Ok(Some(self.under_way.swap_remove(index))),
                Ok(false) => index += 1,
                Err(error) => {
                    drop(self.under_way.swap_remove(index));
                    (self.failure, self.due) = (Some(error), now);
                }
            }
        }
        while now >= self.due || self.under_way.is_empty() {
            let Some(address) = self.rest.next() else { break };
            match dial(address) {
                Ok(socket) => {
                    self.under_way.push(socket);
                    self.due = now + STAGGER;
                }
                Err(error) => self.failure = Some(error),
            }
        }
        if !self.under_way.is_empty() {
            return Ok(None);
        }
        Err(self
            .failure
            .take()
            .unwrap_or_else(|| io::Error::new(ErrorKind::NotFound, "there is no such host")))
    }

    /// The next step is worth something when one of these is writable, or at [`Dials::due`].
    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.under_way.iter().map(OwnedFd::as_fd)
    }

    /// When the next address is dialled; `None`: all are under way.
    pub fn due(&mut self) -> Option<Instant> {
        self.rest.peek().map(|_| self.due)
    }
}

/// [`Dials`] with sockets as they come, until one is connected or it is `until`.
///
/// Errors: as [`Dials::step`]'s, `TimedOut`, and poll(2)'s.
#[expect(clippy::disallowed_methods, reason = "connections are made in real time")]
pub fn connect(addresses: impl Iterator<Item = SocketAddr>, until: Instant) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let mut dials = Dials::new(addresses, Instant::now());
    loop {
        let now = Instant::now();
        if let Some(socket) = dials.step(now, stream::dial)? {
            return Ok(socket);
        }
        if now >= until {
            return Err(io::Error::new(ErrorKind::TimedOut, "no connection in time"));
        }
        let event =
            |dial: BorrowedFd<'_>| libc::pollfd { fd: dial.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
        let mut events: Vec<libc::pollfd> = dials.sockets().map(event).collect();
        let next = dials.due().map_or(until, |due| due.min(until));
        let left = next.saturating_duration_since(now).as_millis() + 1;
        stream::poll(&mut events, i32::try_from(left).unwrap_or(i32::MAX))?;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)]
    use super::*;
    use std::net::{TcpListener, TcpStream};

    /// A listener whose backlog is full answers nothing.
    fn deaf() -> (SocketAddr, impl Sized) {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        (address, (TcpStream::connect(address).unwrap(), socket))
    }

    #[test]
    fn the_next_address_is_tried_soon_and_at_once_after_a_refusal() {
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = open.local_addr().unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (silent, _silent) = deaf();
        let patience = Duration::from_secs(60);
        let until = || Instant::now() + patience;
        for (addresses, least) in [
            (vec![closed, at], Duration::ZERO),
            (vec![silent, closed, at], STAGGER),
            (vec![silent, silent, at], 2 * STAGGER),
        ] {
            let begun = Instant::now();
            let socket = connect(addresses.iter().copied(), until()).unwrap();
            assert_eq!(TcpStream::from(socket).peer_addr().unwrap(), at);
            // A silent address alone holds up for minutes.
            assert!(begun.elapsed() >= least && begun.elapsed() < patience, "{:?}", begun.elapsed());
        }
        assert!(connect([closed, closed].into_iter(), until()).unwrap_err().to_string().contains("refused"));
        assert_eq!(connect([].into_iter(), until()).unwrap_err().kind(), ErrorKind::NotFound);
        let soon = Instant::now() + Duration::from_millis(20);
        assert_eq!(connect([silent].into_iter(), soon).unwrap_err().kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn a_refusal_makes_the_next_address_due() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (silent, _silent) = deaf();
        let now = Instant::now();
        let mut dials = Dials::new([silent, closed, silent].into_iter(), now);
        let mut dialled = Vec::new();
        let mut dial = |address| {
            dialled.push(address);
            stream::dial(address)
        };
        assert!(dials.step(now, &mut dial).unwrap().is_none());
        assert_eq!(dials.due(), Some(now + STAGGER));
        assert!(dials.step(now + STAGGER / 2, &mut dial).unwrap().is_none(), "not yet");
        let later = now + STAGGER;
        assert!(dials.step(later, &mut dial).unwrap().is_none());
        // On loopback, a refusal is there as soon as it is asked for.
        assert!(dials.step(later, &mut dial).unwrap().is_none());
        assert_eq!((dialled, dials.due()), (vec![silent, closed, silent], None));
    }
}
