//! Where a server is: addresses, or a name that is looked up again when nobody answers there.

use crate::out;
use rserpool::runtime::address;
use rserpool::transport::dials;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

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
    let stream = TcpStream::from(dials::connect(addresses.iter().copied(), until)?);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

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
