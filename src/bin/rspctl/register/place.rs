//! Where a server is: addresses, or a name that is looked up again when nobody answers there.

use crate::out;
use rserpool::runtime::address;
use rserpool::transport::stream;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Before the next address is dialled beside one that has not answered (RFC 8305 section 5).
const STAGGER: Duration = Duration::from_millis(250);

/// See the module.
#[derive(Debug, Clone)]
pub struct Place {
    /// As it was written.
    text: String,
    /// Of a server without a port.
    default_port: u16,
    named: bool,
    /// Empty: the name is nowhere.
    addresses: Vec<SocketAddr>,
    complained: bool,
}

impl From<SocketAddr> for Place {
    fn from(address: SocketAddr) -> Place {
        Place {
            text: address.to_string(),
            default_port: 0,
            named: false,
            addresses: vec![address],
            complained: false,
        }
    }
}

impl Place {
    /// `host[:port]`. Errors: what is wrong with the spelling; a name that is nowhere is none.
    pub fn parse(text: &str, default_port: u16) -> io::Result<Place> {
        let named = !address::is_literal(text)?;
        let addresses = if named { Vec::new() } else { address::parse(text, default_port)? };
        let mut place = Place { text: text.into(), default_port, named, addresses, complained: false };
        place.look_up();
        Ok(place)
    }

    /// 0: none is known.
    pub fn port(&self) -> u16 {
        let written = self.text.rsplit_once([':', '!']).and_then(|(_, port)| port.parse().ok());
        let found = self.addresses.first().map(SocketAddr::port);
        found.or(written.filter(|_| self.named)).unwrap_or(self.default_port)
    }

    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// A name that is nowhere now stays where it was, with a word at the first time.
    pub fn look_up(&mut self) {
        if !self.named {
            return;
        }
        match address::parse(&self.text, self.default_port) {
            Ok(addresses) => (self.addresses, self.complained) = (addresses, false),
            Err(error) if !std::mem::replace(&mut self.complained, true) => {
                out::complain(format_args!("rspctl: register: {error}; trying again"));
            }
            Err(_) => {}
        }
    }

    /// The addresses, `first` before the others.
    pub fn beginning_with(&self, first: Option<SocketAddr>) -> Vec<SocketAddr> {
        let mut addresses = self.addresses.clone();
        addresses.sort_by_key(|address| Some(*address) != first);
        addresses
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// A connection with the first of these that answers.
pub fn connect(addresses: &[SocketAddr], until: Instant) -> io::Result<TcpStream> {
    let mut rest = addresses.iter();
    let mut failure = io::Error::new(ErrorKind::NotFound, "there is no such host");
    let mut dials: Vec<OwnedFd> = Vec::new();
    let mut due = Instant::now();
    loop {
        let now = Instant::now();
        if now >= due || dials.is_empty() {
            match rest.next() {
                Some(&address) => {
                    due = now + STAGGER;
                    match stream::dial(address) {
                        Ok(dial) => dials.push(dial),
                        Err(error) => {
                            failure = error;
                            continue;
                        }
                    }
                }
                None if dials.is_empty() => return Err(failure),
                None => due = until,
            }
        }
        if now >= until {
            return Err(io::Error::new(ErrorKind::TimedOut, "no connection in time"));
        }
        let event = |dial: &OwnedFd| libc::pollfd { fd: dial.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
        let mut events: Vec<libc::pollfd> = dials.iter().map(event).collect();
        let left = due.min(until).saturating_duration_since(now).as_millis() + 1;
        stream::poll(&mut events, i32::try_from(left).unwrap_or(i32::MAX))?;
        for index in (0..dials.len()).rev().filter(|&index| events[index].revents != 0) {
            let dial = dials.remove(index);
            match stream::dialled(dial.as_fd()) {
                Ok(()) => {
                    let stream = TcpStream::from(dial);
                    stream.set_nonblocking(false)?;
                    return Ok(stream);
                }
                Err(error) => (failure, due) = (error, now),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn the_next_address_is_tried_soon_and_at_once_after_a_refusal() {
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        // What is sent there is swallowed (RFC 5737), or refused by the host that has no way.
        let silent: SocketAddr = "192.0.2.1:9".parse().unwrap();
        let until = || Instant::now() + Duration::from_secs(5);
        let at = open.local_addr().unwrap();
        for (addresses, most) in [(vec![closed, at], 200), (vec![silent, closed, at], 1500)] {
            let begun = Instant::now();
            let stream = connect(&addresses, until()).unwrap();
            assert_eq!(stream.peer_addr().unwrap(), at);
            assert!(begun.elapsed() < Duration::from_millis(most), "{:?}", begun.elapsed());
        }
        assert!(connect(&[closed, closed], until()).unwrap_err().to_string().contains("refused"));
        assert_eq!(connect(&[], until()).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn names_that_are_nowhere_are_no_mistakes() {
        let mut place = Place::parse("no-such-host.invalid:80", 0).unwrap();
        assert!(place.addresses().is_empty() && place.complained);
        place.look_up();
        assert!(place.addresses().is_empty());
        assert_eq!(Place::parse("localhost:80", 0).unwrap().addresses().len(), 2);
        assert_eq!(Place::parse("192.0.2.1", 80).unwrap().addresses(), ["192.0.2.1:80".parse().unwrap()]);
        assert!(Place::parse("192.0.2.1:x", 0).is_err());
        let second = Place::parse("localhost:80", 0).unwrap().addresses()[1];
        assert_eq!(Place::parse("localhost:80", 0).unwrap().beginning_with(Some(second))[0], second);
    }
}
