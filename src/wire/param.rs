//! RFC 5354 parameters as owned values.

use super::cause::DecodeError;
use super::code::ParamType;
use super::reader::{Param, Unrecognized};
use super::writer::{Writer, param_len};
use super::{PeId, Policy, RegistrarId};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The most addresses a transport may have (rsplib: 64).
pub const MAX_ADDRESSES: usize = 128;

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

impl Protocol {
    fn param(self) -> ParamType {
        match self {
            Protocol::Sctp => ParamType::SCTP,
            Protocol::Tcp => ParamType::TCP,
            Protocol::Udp => ParamType::UDP,
            Protocol::UdpLite => ParamType::UDP_LITE,
            Protocol::Dccp { .. } => ParamType::DCCP,
        }
    }
}

impl TransportUse {
    /// The number on the wire.
    pub fn code(self) -> u16 {
        match self {
            TransportUse::DataOnly => 0,
            TransportUse::DataPlusControl => 1,
            TransportUse::Other(code) => code,
        }
    }

    /// What a number on the wire means.
    pub fn from_code(code: u16) -> TransportUse {
        match code {
            0 => TransportUse::DataOnly,
            1 => TransportUse::DataPlusControl,
            other => TransportUse::Other(other),
        }
    }
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
    /// An address transport. IPv4 addresses in IPv6 clothes become IPv4 ones, and addresses behind
    /// [`MAX_ADDRESSES`] are left out.
    pub fn new(protocol: Protocol, usage: TransportUse, port: u16, mut addresses: Vec<IpAddr>) -> Transport {
        addresses.truncate(MAX_ADDRESSES);
        addresses.iter_mut().for_each(|ip| *ip = ip.to_canonical());
        Transport::Address { protocol, port, usage, addresses }
    }

    /// The transport type, as the type of its parameter: what all elements of a pool have in common (RFC 5352
    /// section 3.1). DCCP's service code is no part of it.
    pub fn kind(&self) -> ParamType {
        match self {
            Transport::Address { protocol, .. } => protocol.param(),
            Transport::Opaque(_) => ParamType::OPAQUE,
        }
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

    /// Bytes of the whole parameter, padding included.
    pub fn encoded_len(&self) -> usize {
        match self {
            Transport::Opaque(data) => param_len(data.len()),
            Transport::Address { protocol, addresses, .. } => {
                let fixed = if matches!(protocol, Protocol::Dccp { .. }) { 8 } else { 4 };
                let each = |ip: &IpAddr| if ip.to_canonical().is_ipv4() { 8 } else { 20 };
                param_len(fixed + addresses.iter().take(MAX_ADDRESSES).map(each).sum::<usize>())
            }
        }
    }

    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        match self {
            Transport::Opaque(data) => w.param(ParamType::OPAQUE, |w| w.bytes(data)),
            Transport::Address { protocol, port, usage, addresses } => w.param(protocol.param(), |w| {
                w.u16(*port);
                w.u16(usage.code());
                if let Protocol::Dccp { service_code } = protocol {
                    w.u32(*service_code);
                }
                for ip in addresses.iter().take(MAX_ADDRESSES) {
                    match ip.to_canonical() {
                        IpAddr::V4(ip) => w.param(ParamType::IPV4, |w| w.bytes(&ip.octets())),
                        IpAddr::V6(ip) => w.param(ParamType::IPV6, |w| w.bytes(&ip.octets())),
                    }
                }
            }),
        }
    }

    pub(crate) fn decode(
        param: Param<'_>,
        unrecognized: &mut Unrecognized,
    ) -> Result<Transport, DecodeError> {
        let Param { kind, mut value } = param;
        if kind == ParamType::OPAQUE {
            return Ok(Transport::Opaque(value.rest().to_vec()));
        }
        let (port, usage) = (value.u16()?, TransportUse::from_code(value.u16()?));
        let protocol = match kind {
            ParamType::DCCP => Protocol::Dccp { service_code: value.u32()? },
            ParamType::TCP => Protocol::Tcp,
            ParamType::UDP => Protocol::Udp,
            ParamType::UDP_LITE => Protocol::UdpLite,
            _ => Protocol::Sctp,
        };
        value.check(unrecognized)?;
        let mut addresses = Vec::new();
        while let Some(address) = value.next(&[ParamType::IPV4, ParamType::IPV6])? {
            if addresses.len() == MAX_ADDRESSES {
                return Err(value.invalid("too many addresses"));
            }
            addresses.push(match address.kind {
                ParamType::IPV4 => IpAddr::V4(Ipv4Addr::from(address.value.exactly::<4>()?)),
                _ => IpAddr::V6(Ipv6Addr::from(address.value.exactly::<16>()?)),
            });
        }
        Ok(Transport::new(protocol, usage, port, addresses))
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

impl PoolElement {
    /// Bytes of the whole parameter, padding included.
    pub fn encoded_len(&self) -> usize {
        let asap = self.asap.as_ref().map_or(0, Transport::encoded_len);
        param_len(12 + self.transport.encoded_len() + self.policy.encoded_len() + asap)
    }

    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        w.param(ParamType::ELEMENT, |w| {
            w.u32(self.id.0);
            w.u32(self.home.0);
            w.u32(self.life);
            self.transport.write(w);
            self.policy.write(w);
            if let Some(asap) = &self.asap {
                asap.write(w);
            }
        });
    }

    pub(crate) fn decode(
        param: Param<'_>,
        unrecognized: &mut Unrecognized,
    ) -> Result<PoolElement, DecodeError> {
        let mut value = param.value;
        let (id, home, life) = (PeId(value.u32()?), RegistrarId(value.u32()?), value.u32()?);
        value.check(unrecognized)?;
        let policy = Policy::decode(value.require(&[ParamType::POLICY])?)?;
        // The first transport is the user's, the second one ASAP's, wherever the policy stands.
        let transport = Transport::decode(value.require(ParamType::TRANSPORTS)?, unrecognized)?;
        value.next(ParamType::TRANSPORTS)?;
        let asap = match value.next(ParamType::TRANSPORTS)? {
            Some(asap) => Some(Transport::decode(asap, unrecognized)?),
            None => None,
        };
        Ok(PoolElement { id, home, life, transport, policy, asap })
    }
}

impl ServerInformation {
    /// Bytes of the whole parameter, padding included.
    pub fn encoded_len(&self) -> usize {
        param_len(4 + self.transports.iter().map(Transport::encoded_len).sum::<usize>())
    }

    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        w.param(ParamType::SERVER, |w| {
            w.u32(self.id.0);
            self.transports.iter().for_each(|transport| transport.write(w));
        });
    }

    pub(crate) fn decode(
        param: Param<'_>,
        unrecognized: &mut Unrecognized,
    ) -> Result<ServerInformation, DecodeError> {
        let mut value = param.value;
        let id = RegistrarId(value.u32()?);
        value.check(unrecognized)?;
        let mut transports = Vec::new();
        while let Some(transport) = value.next(ParamType::TRANSPORTS)? {
            transports.push(Transport::decode(transport, unrecognized)?);
        }
        Ok(ServerInformation { id, transports })
    }
}
