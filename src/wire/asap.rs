//! ASAP messages (RFC 5352 section 2.2).

use super::{
    DecodeError, Decoded, OperationError, PeId, Policy, PoolElement, PoolHandle, RegistrarId, Transport,
};

/// An ASAP message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Asap {
    /// 0x01, PE to registrar.
    Registration { handle: PoolHandle, element: PoolElement },
    /// 0x02, PE to registrar.
    Deregistration { handle: PoolHandle, id: PeId },
    /// 0x03, registrar to PE. `rejected` is the R flag.
    RegistrationResponse { rejected: bool, handle: PoolHandle, id: PeId, error: Option<OperationError> },
    /// 0x04, registrar to PE.
    DeregistrationResponse { handle: PoolHandle, id: PeId, error: Option<OperationError> },
    /// 0x05, PU to registrar. `subscribe` is the S flag, `items` the private parameter 0x803f
    /// (all ones: as many as fit).
    HandleResolution { subscribe: bool, handle: PoolHandle, items: Option<u32> },
    /// 0x06, registrar to PU. `subscribed` is the A flag. Either `error`, or `policy` and elements.
    HandleResolutionResponse {
        subscribed: bool,
        handle: PoolHandle,
        error: Option<OperationError>,
        policy: Option<Policy>,
        elements: Vec<PoolElement>,
        /// Private, only to subscribers (rsplib never subscribes): how many elements the pool has,
        /// when the message does not list them all (0x803f).
        total: Option<u32>,
        /// Private, only to subscribers: elements that left since the last message of the
        /// subscription (0x803e, a list of identifiers).
        departed: Vec<PeId>,
    },
    /// 0x07, registrar to PE. `home` is the H flag: "I am your home registrar now".
    EndpointKeepAlive { home: bool, registrar: RegistrarId, handle: PoolHandle, id: Option<PeId> },
    /// 0x08, PE to registrar.
    EndpointKeepAliveAck { handle: PoolHandle, id: PeId },
    /// 0x09, PU to registrar.
    EndpointUnreachable { handle: PoolHandle, id: PeId },
    /// 0x0a, registrar to all, by multicast. TCP and UDP transports first, SCTP last.
    ServerAnnounce { registrar: RegistrarId, transports: Vec<Transport> },
    /// 0x0b, PE to PU on the control channel.
    Cookie { cookie: Vec<u8> },
    /// 0x0c, PU to PE on the control channel.
    CookieEcho { cookie: Vec<u8> },
    /// 0x0d, on the control channel.
    BusinessCard { handle: PoolHandle, policy: Option<Policy>, elements: Vec<PoolElement> },
    /// 0x0e.
    Error { error: OperationError },
}

impl Asap {
    /// Encodes the message, padding included.
    pub fn encode(&self) -> Vec<u8> {
        let _ = self;
        todo!()
    }

    /// Decodes one message; `bytes` is one SCTP user message or one padded TCP frame.
    pub fn decode(_bytes: &[u8]) -> Result<Decoded<Asap>, DecodeError> {
        todo!()
    }
}
