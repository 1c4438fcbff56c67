//! ENRP messages (RFC 5353 section 2).

use super::{DecodeError, Decoded, OperationError, PoolElement, PoolHandle, RegistrarId, ServerInformation};

/// An ENRP message: who, to whom (0: everybody), what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrpMessage {
    /// Sending registrar.
    pub sender: RegistrarId,
    /// Receiving registrar; 0 in multicast and to a static peer not yet known.
    pub receiver: RegistrarId,
    /// The rest.
    pub body: Enrp,
}

/// What a handle update says happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateAction {
    /// 0: added or changed.
    Add,
    /// 1: gone.
    Delete,
}

/// The body of an ENRP message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Enrp {
    /// 0x01. `reply_required` is the R flag; the checksum is the two bytes as on the wire.
    Presence { reply_required: bool, checksum: Option<[u8; 2]>, server: Option<ServerInformation> },
    /// 0x02. `own_only` is the W flag.
    HandleTableRequest { own_only: bool },
    /// 0x03. R and M flags; a pool may appear more than once.
    HandleTableResponse { rejected: bool, more: bool, pools: Vec<(PoolHandle, Vec<PoolElement>)> },
    /// 0x04. `takeover_suggested` is rsplib's private T flag.
    HandleUpdate { takeover_suggested: bool, action: UpdateAction, handle: PoolHandle, element: PoolElement },
    /// 0x05.
    ListRequest,
    /// 0x06. R flag.
    ListResponse { rejected: bool, servers: Vec<ServerInformation> },
    /// 0x07.
    InitTakeover { target: RegistrarId },
    /// 0x08.
    InitTakeoverAck { target: RegistrarId },
    /// 0x09.
    TakeoverServer { target: RegistrarId },
    /// 0x0a.
    Error { error: OperationError },
}

impl EnrpMessage {
    /// Encodes the message, padding included.
    pub fn encode(&self) -> Vec<u8> {
        let _ = self;
        todo!()
    }

    /// Decodes one message; `bytes` is one SCTP user message, UDP datagram or padded TCP frame.
    pub fn decode(_bytes: &[u8]) -> Result<Decoded<EnrpMessage>, DecodeError> {
        todo!()
    }
}
