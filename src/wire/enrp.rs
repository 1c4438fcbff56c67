//! ENRP messages (RFC 5353 section 2).

use super::code::{EnrpType, ParamType};
use super::reader::{Reader, Unrecognized, without_answer};
use super::writer::{Lengths, MAX_MESSAGE, Writer, param_len};
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

impl Enrp {
    /// The message type.
    pub fn kind(&self) -> EnrpType {
        match self {
            Enrp::Presence { .. } => EnrpType::PRESENCE,
            Enrp::HandleTableRequest { .. } => EnrpType::HANDLE_TABLE_REQUEST,
            Enrp::HandleTableResponse { .. } => EnrpType::HANDLE_TABLE_RESPONSE,
            Enrp::HandleUpdate { .. } => EnrpType::HANDLE_UPDATE,
            Enrp::ListRequest => EnrpType::LIST_REQUEST,
            Enrp::ListResponse { .. } => EnrpType::LIST_RESPONSE,
            Enrp::InitTakeover { .. } => EnrpType::INIT_TAKEOVER,
            Enrp::InitTakeoverAck { .. } => EnrpType::INIT_TAKEOVER_ACK,
            Enrp::TakeoverServer { .. } => EnrpType::TAKEOVER_SERVER,
            Enrp::Error { .. } => EnrpType::ERROR,
        }
    }

    fn flags(&self) -> u8 {
        match self {
            Enrp::Presence { reply_required: flag, .. }
            | Enrp::HandleTableRequest { own_only: flag }
            | Enrp::HandleUpdate { takeover_suggested: flag, .. }
            | Enrp::ListResponse { rejected: flag, .. } => u8::from(*flag),
            Enrp::HandleTableResponse { rejected, more, .. } => u8::from(*rejected) | u8::from(*more) << 1,
            _ => 0,
        }
    }
}

impl EnrpMessage {
    /// Bytes of every message before the parameters: header and the two identifiers.
    pub const HEADER_LEN: usize = 12;

    /// Bytes of the encoded message, padding included: to fill a message without trying.
    pub fn encoded_len(&self) -> usize {
        EnrpMessage::HEADER_LEN
            + match &self.body {
                Enrp::Presence { checksum, server, .. } => {
                    let server = server.as_ref().map_or(0, ServerInformation::encoded_len);
                    checksum.map_or(0, |_| param_len(2)) + server
                }
                Enrp::HandleTableRequest { .. } | Enrp::ListRequest => 0,
                Enrp::HandleTableResponse { pools, .. } => {
                    let elements =
                        |list: &[PoolElement]| list.iter().map(PoolElement::encoded_len).sum::<usize>();
                    pools.iter().map(|(handle, list)| handle.encoded_len() + elements(list)).sum()
                }
                Enrp::HandleUpdate { handle, element, .. } => {
                    4 + handle.encoded_len() + element.encoded_len()
                }
                Enrp::ListResponse { servers, .. } => {
                    servers.iter().map(ServerInformation::encoded_len).sum()
                }
                Enrp::InitTakeover { .. } | Enrp::InitTakeoverAck { .. } | Enrp::TakeoverServer { .. } => 4,
                Enrp::Error { error } => error.encoded_len(),
            }
    }

    /// Whether the message can be sent: not longer than [`MAX_MESSAGE`].
    pub fn fits(&self) -> bool {
        self.encoded_len() <= MAX_MESSAGE
    }

    /// Encodes the message, padding included.
    ///
    /// Cannot fail, but a message must fit ([`EnrpMessage::fits`]): of one that does not, the first
    /// parameter that finds no room and all behind it are missing (and debug builds panic).
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded_len());
        self.encode_into(&mut out);
        out
    }

    /// The same with lengths of that kind.
    pub fn encode_as(&self, lengths: Lengths) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded_len());
        self.encode_with(lengths, &mut out);
        out
    }

    /// The same, behind what is in `out` already.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        self.encode_with(Lengths::Padded, out);
    }

    /// The same with lengths of that kind.
    pub fn encode_with(&self, lengths: Lengths, out: &mut Vec<u8>) {
        Writer::message(out, lengths, self.body.kind().0, self.body.flags(), |w| {
            w.u32(self.sender.0);
            w.u32(self.receiver.0);
            self.body.write(w);
        });
    }

    /// Decodes one message; `bytes` is one SCTP user message, UDP datagram or padded TCP frame.
    ///
    /// # Errors
    ///
    /// Says where and why, and what to answer. An Error message never gets an answer.
    pub fn decode(bytes: &[u8]) -> Result<Decoded<EnrpMessage>, DecodeError> {
        let decoded = EnrpMessage::read(bytes);
        if bytes.first() == Some(&EnrpType::ERROR.0) { without_answer(decoded) } else { decoded }
    }

    fn read(bytes: &[u8]) -> Result<Decoded<EnrpMessage>, DecodeError> {
        let (kind, flags, mut reader) = Reader::message(bytes)?;
        if EnrpType(kind).name().is_none() {
            return Err(DecodeError::unknown_message(bytes));
        }
        let mut unrecognized = Vec::new();
        let (sender, receiver) = (RegistrarId(reader.u32()?), RegistrarId(reader.u32()?));
        let body = read_body(EnrpType(kind), flags, &mut reader, &mut unrecognized)?;
        Ok(Decoded { message: EnrpMessage { sender, receiver, body }, unrecognized })
    }
}

impl Enrp {
    fn write(&self, w: &mut Writer<'_>) {
        match self {
            Enrp::Presence { checksum, server, .. } => {
                if let Some(checksum) = checksum {
                    w.param(ParamType::CHECKSUM, |w| w.bytes(checksum));
                }
                if let Some(server) = server {
                    server.write(w);
                }
            }
            Enrp::HandleTableRequest { .. } | Enrp::ListRequest => {}
            Enrp::HandleTableResponse { pools, .. } => {
                for (handle, elements) in pools {
                    handle.write(w);
                    elements.iter().for_each(|element| element.write(w));
                }
            }
            Enrp::HandleUpdate { action, handle, element, .. } => {
                w.u16(match action {
                    UpdateAction::Add => 0,
                    UpdateAction::Delete => 1,
                });
                w.u16(0);
                handle.write(w);
                element.write(w);
            }
            Enrp::ListResponse { servers, .. } => servers.iter().for_each(|server| server.write(w)),
            Enrp::InitTakeover { target }
            | Enrp::InitTakeoverAck { target }
            | Enrp::TakeoverServer { target } => {
                w.u32(target.0);
            }
            Enrp::Error { error } => error.write(w),
        }
    }
}

/// Reads what follows the two identifiers, of a type that is known.
fn read_body(
    kind: EnrpType,
    flags: u8,
    reader: &mut Reader<'_>,
    unrecognized: &mut Unrecognized,
) -> Result<Enrp, DecodeError> {
    let flag = flags & 1 != 0;
    // What stands before the parameters, of those that have something there.
    let (mut action, mut target) = (UpdateAction::Add, RegistrarId(0));
    match kind {
        EnrpType::HANDLE_UPDATE => {
            action = match reader.u16()? {
                0 => UpdateAction::Add,
                1 => UpdateAction::Delete,
                _ => return Err(reader.invalid("unknown update action")),
            };
            reader.u16()?;
        }
        EnrpType::INIT_TAKEOVER | EnrpType::INIT_TAKEOVER_ACK | EnrpType::TAKEOVER_SERVER => {
            target = RegistrarId(reader.u32()?);
        }
        _ => {}
    }
    reader.check(unrecognized)?;
    Ok(match kind {
        EnrpType::PRESENCE => read_presence(flag, reader, unrecognized)?,
        EnrpType::HANDLE_TABLE_REQUEST => Enrp::HandleTableRequest { own_only: flag },
        EnrpType::HANDLE_TABLE_RESPONSE => {
            let pools = read_pools(reader, unrecognized)?;
            Enrp::HandleTableResponse { rejected: flag, more: flags & 2 != 0, pools }
        }
        EnrpType::HANDLE_UPDATE => {
            let handle = PoolHandle::decode(reader.require(&[ParamType::HANDLE])?)?;
            let element = PoolElement::decode(reader.require(&[ParamType::ELEMENT])?, unrecognized)?;
            Enrp::HandleUpdate { takeover_suggested: flag, action, handle, element }
        }
        EnrpType::LIST_REQUEST => Enrp::ListRequest,
        EnrpType::LIST_RESPONSE => {
            let mut servers = Vec::new();
            while let Some(server) = reader.next(&[ParamType::SERVER])? {
                servers.push(ServerInformation::decode(server, unrecognized)?);
            }
            Enrp::ListResponse { rejected: flag, servers }
        }
        EnrpType::INIT_TAKEOVER => Enrp::InitTakeover { target },
        EnrpType::INIT_TAKEOVER_ACK => Enrp::InitTakeoverAck { target },
        EnrpType::TAKEOVER_SERVER => Enrp::TakeoverServer { target },
        // The caller knows that there is no other.
        _ => Enrp::Error { error: OperationError::decode(reader.require(&[ParamType::ERROR])?)? },
    })
}

/// RFC 5353 section 2.1: both parameters may be missing, rsplib always sends both.
fn read_presence(
    reply_required: bool,
    reader: &mut Reader<'_>,
    unrecognized: &mut Unrecognized,
) -> Result<Enrp, DecodeError> {
    let (mut checksum, mut server) = (None, None);
    while let Some(param) = reader.next(&[ParamType::CHECKSUM, ParamType::SERVER])? {
        match param.kind {
            ParamType::CHECKSUM => checksum = Some(param.value.exactly::<2>()?),
            _ => server = Some(ServerInformation::decode(param, unrecognized)?),
        }
    }
    Ok(Enrp::Presence { reply_required, checksum, server })
}

/// A handle, then its elements, and so on.
fn read_pools(
    reader: &mut Reader<'_>,
    unrecognized: &mut Unrecognized,
) -> Result<Vec<(PoolHandle, Vec<PoolElement>)>, DecodeError> {
    let mut pools: Vec<(PoolHandle, Vec<PoolElement>)> = Vec::new();
    while let Some(param) = reader.next(&[ParamType::HANDLE, ParamType::ELEMENT])? {
        if param.kind == ParamType::HANDLE {
            pools.push((PoolHandle::decode(param)?, Vec::new()));
            continue;
        }
        let Some((_, elements)) = pools.last_mut() else {
            return Err(param.value.invalid("pool element before any pool handle"));
        };
        elements.push(PoolElement::decode(param, unrecognized)?);
    }
    Ok(pools)
}
