//! RFC 5354 parameters as owned values.

use super::{PeId, Policy, RegistrarId};
use std::net::{IpAddr, SocketAddr};

/// The protocol of a transport parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Protocol {
    Sctp,
    Tcp,
    Udp,
    UdpLite,
    Dccp { service_code: u32 },
}

/// Transport use (RFC 5354 section 3.4). TCP parameters carry it too (rsplib; RFC: reserved, 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TransportUse {
    /// 0x0000: application data only.
    DataOnly,
    /// 0x0001: application data and the ASAP control channel.
    DataPlusControl,
    /// Anything else, kept as it came; treated as data only.
    Other(u16),
}

/// A transport parameter (RFC 5354 sections 3.3 to 3.7 and 3.16).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Port and addresses: SCTP any number, the others one (two are tolerated).
    Address {
        /// Which protocol.
        protocol: Protocol,
        /// Port, host order.
        port: u16,
        /// Transport use; for UDP, UDP-Lite and DCCP the reserved field.
        usage: TransportUse,
        /// Addresses in the order of the message.
        addresses: Vec<IpAddr>,
    },
    /// Opaque transport data (type 0x10).
    Opaque(Vec<u8>),
}

impl Transport {
    /// An address transport.
    pub fn new(protocol: Protocol, usage: TransportUse, port: u16, addresses: Vec<IpAddr>) -> Transport {
        Transport::Address { protocol, port, usage, addresses }
    }

    /// The protocol; `None` for an opaque transport.
    pub fn protocol(&self) -> Option<Protocol> {
        match self {
            Transport::Address { protocol, .. } => Some(*protocol),
            Transport::Opaque(_) => None,
        }
    }

    /// The port; 0 for an opaque transport.
    pub fn port(&self) -> u16 {
        match self {
            Transport::Address { port, .. } => *port,
            Transport::Opaque(_) => 0,
        }
    }

    /// The transport use.
    pub fn usage(&self) -> TransportUse {
        match self {
            Transport::Address { usage, .. } => *usage,
            Transport::Opaque(_) => TransportUse::DataOnly,
        }
    }

    /// The addresses; none for an opaque transport.
    pub fn addresses(&self) -> &[IpAddr] {
        match self {
            Transport::Address { addresses, .. } => addresses,
            Transport::Opaque(_) => &[],
        }
    }

    /// Addresses with the port.
    pub fn socket_addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let port = self.port();
        self.addresses().iter().map(move |&ip| SocketAddr::new(ip, port))
    }
}

/// A pool element parameter (RFC 5354 section 3.10).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PoolElement {
    /// The element's identifier.
    pub id: PeId,
    /// Home registrar; 0 when undetermined.
    pub home: RegistrarId,
    /// Registration life in milliseconds, as rsplib sends it (the RFC says seconds). All ones: no end.
    pub life: u32,
    /// Where users reach it.
    pub transport: Transport,
    /// Policy and values.
    pub policy: Policy,
    /// Where registrars reach it: absent in what rsplib sends by ASAP, mandatory by ENRP.
    pub asap: Option<Transport>,
}

/// A server information parameter (RFC 5354 section 3.11). rsplib knows exactly one SCTP transport
/// and skips what follows it, so an SCTP transport, where there is one, stands first.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerInformation {
    /// The registrar.
    pub id: RegistrarId,
    /// Its ENRP transports.
    pub transports: Vec<Transport>,
}
