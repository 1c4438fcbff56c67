//! Where users reach our elements, if that is not where they listen: behind NAT, or a published port (`RSP_ADVERTISE`,
//! `TAG_PoolElement_Advertise`).

use super::address;
use super::names::Names;
use super::reactor::Waker;
use crate::machine::Time;
use crate::wire::{Protocol, Transport};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A name is looked up so often, since it may have moved.
const MOVED: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub(super) struct Advertised {
    /// As it was given.
    text: String,
    /// Port 0: the element's own. Empty: not known yet.
    at: Vec<SocketAddr>,
    names: Option<Names>,
}

impl Advertised {
    /// `text`: `host[:port]`. Errors: what is wrong with its spelling.
    pub fn new(text: &str, waker: Arc<Waker>) -> io::Result<Advertised> {
        Ok(match address::is_literal(text)? {
            true => Advertised { text: text.into(), at: address::parse_list(text, 0)?, names: None },
            false => {
                let names = Names::new(vec![text.into()], 0, waker).refreshed_every(MOVED);
                Advertised { text: text.into(), at: Vec::new(), names: Some(names) }
            }
        })
    }

    /// Whether it was given so.
    pub fn is(&self, text: &str) -> bool {
        self.text == text
    }

    /// The transport that is registered instead of an element's own. Without an address, while there is none.
    pub fn instead_of(&self, own: &Transport) -> Transport {
        let Some(protocol) = own.protocol() else { return own.clone() };
        let fits = |address: &&SocketAddr| !address.ip().is_unspecified();
        let mut at: Vec<&SocketAddr> = self.at.iter().filter(fits).collect();
        // TCP has room for one address (RFC 5354 section 3.5); IPv4 because everybody has it.
        if protocol == Protocol::Tcp {
            at.sort_by_key(|address| address.is_ipv6());
            at.truncate(1);
        }
        let port = at.first().map(|first| first.port()).filter(|&port| port != 0).unwrap_or(own.port());
        Transport::new(protocol, own.usage(), port, at.iter().map(|address| address.ip()).collect())
    }

    /// When the name is to be looked up.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.names.as_ref()?.poll_timeout(self.at.is_empty())
    }

    /// Looks the name up; whether it leads elsewhere now.
    pub fn handle_timeout(&mut self, now: Time) -> bool {
        let Some(names) = &mut self.names else { return false };
        let moved = names.take_answers();
        if moved {
            self.at = names.addresses().flatten().copied().collect();
        }
        names.handle_timeout(now, self.at.is_empty());
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::TransportUse;
    use mio::{Poll, Token};

    fn instead(text: &str, protocol: Protocol) -> Vec<String> {
        let poll = Poll::new().unwrap();
        let advertised = Advertised::new(text, Arc::new(Waker::new(&poll, Token(0)).unwrap())).unwrap();
        let own =
            Transport::new(protocol, TransportUse::DataPlusControl, 7, vec!["10.0.0.1".parse().unwrap()]);
        let other = advertised.instead_of(&own);
        assert_eq!((other.protocol(), other.usage()), (Some(protocol), own.usage()));
        other.socket_addresses().map(|address| address.to_string()).collect()
    }

    #[test]
    fn the_port_is_the_own_one_unless_it_is_given() {
        assert_eq!(instead("192.0.2.1", Protocol::Tcp), ["192.0.2.1:7"]);
        assert_eq!(instead("192.0.2.1:80", Protocol::Tcp), ["192.0.2.1:80"]);
        assert_eq!(instead("[2001:db8::1]", Protocol::Tcp), ["[2001:db8::1]:7"]);
        assert_eq!(instead("localhost:5", Protocol::Sctp), ["127.0.0.1:5", "[::1]:5"]);
        assert_eq!(instead("[::1]:5,127.0.0.1", Protocol::Tcp), ["127.0.0.1:5"], "TCP has one");
        assert!(
            instead("*:5", Protocol::Tcp).is_empty()
                && instead("not-known-yet.invalid", Protocol::Tcp).is_empty()
        );
    }

    #[test]
    fn a_bad_spelling_is_said() {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(&poll, Token(0)).unwrap());
        assert!(Advertised::new("192.0.2.1:x", waker).unwrap_err().to_string().contains("bad port"));
    }
}
