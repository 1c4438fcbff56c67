//! ASAP messages (RFC 5352 section 2.2).

use super::code::{AsapType, ParamType};
use super::handle::MAX_HANDLE;
use super::reader::{Param, Reader, Unrecognized, without_answer};
use super::writer::{Lengths, MAX_MESSAGE, Writer, param_len};
use super::{
    DecodeError, Decoded, OperationError, PeId, Policy, PoolElement, PoolHandle, RegistrarId, Transport,
};

/// Asks for the whole pool (RFC 5352 sections 2.2.6 and 3.3), as far as one message holds it. Nobody else says this
/// number: rsplib's users, which take no more than 128 elements, say how many they want, or all ones.
pub const ALL_ITEMS: u32 = 0x7fff_ffff;

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
    /// (all ones: as many as fit; [`ALL_ITEMS`]: the whole pool, even over SCTP).
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
        /// Private, only to subscribers: elements that were lost since the last message of the
        /// subscription (0x803e, a list of identifiers).
        lost: Vec<PeId>,
        /// Private, only to subscribers: elements that deregistered themselves since then, and may still
        /// serve the sessions that they have (0x803d, a list of identifiers).
        deregistered: Vec<PeId>,
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
    /// The message type.
    pub fn kind(&self) -> AsapType {
        match self {
            Asap::Registration { .. } => AsapType::REGISTRATION,
            Asap::Deregistration { .. } => AsapType::DEREGISTRATION,
            Asap::RegistrationResponse { .. } => AsapType::REGISTRATION_RESPONSE,
            Asap::DeregistrationResponse { .. } => AsapType::DEREGISTRATION_RESPONSE,
            Asap::HandleResolution { .. } => AsapType::HANDLE_RESOLUTION,
            Asap::HandleResolutionResponse { .. } => AsapType::HANDLE_RESOLUTION_RESPONSE,
            Asap::EndpointKeepAlive { .. } => AsapType::ENDPOINT_KEEP_ALIVE,
            Asap::EndpointKeepAliveAck { .. } => AsapType::ENDPOINT_KEEP_ALIVE_ACK,
            Asap::EndpointUnreachable { .. } => AsapType::ENDPOINT_UNREACHABLE,
            Asap::ServerAnnounce { .. } => AsapType::SERVER_ANNOUNCE,
            Asap::Cookie { .. } => AsapType::COOKIE,
            Asap::CookieEcho { .. } => AsapType::COOKIE_ECHO,
            Asap::BusinessCard { .. } => AsapType::BUSINESS_CARD,
            Asap::Error { .. } => AsapType::ERROR,
        }
    }

    /// The message's flags: bit 0 has a meaning in some messages.
    fn flags(&self) -> u8 {
        match self {
            Asap::RegistrationResponse { rejected, .. } => u8::from(*rejected),
            Asap::HandleResolution { subscribe, .. } => u8::from(*subscribe),
            Asap::HandleResolutionResponse { subscribed, .. } => u8::from(*subscribed),
            Asap::EndpointKeepAlive { home, .. } => u8::from(*home),
            _ => 0,
        }
    }

    /// Bytes of the encoded message, padding included: to fill a message without trying.
    pub fn encoded_len(&self) -> usize {
        let elements = |list: &[PoolElement]| list.iter().map(PoolElement::encoded_len).sum::<usize>();
        let error_len =
            |error: &Option<OperationError>| error.as_ref().map_or(0, OperationError::encoded_len);
        let policy_len = |policy: &Option<Policy>| policy.as_ref().map_or(0, Policy::encoded_len);
        4 + match self {
            Asap::Registration { handle, element } => handle.encoded_len() + element.encoded_len(),
            Asap::Deregistration { handle, .. }
            | Asap::EndpointKeepAliveAck { handle, .. }
            | Asap::EndpointUnreachable { handle, .. } => handle.encoded_len() + PeId::ENCODED_LEN,
            Asap::RegistrationResponse { handle, error, .. }
            | Asap::DeregistrationResponse { handle, error, .. } => {
                handle.encoded_len() + PeId::ENCODED_LEN + error_len(error)
            }
            Asap::HandleResolution { handle, items, .. } => {
                handle.encoded_len() + items.map_or(0, |_| param_len(4))
            }
            Asap::HandleResolutionResponse {
                handle,
                error,
                policy,
                elements: list,
                total,
                lost,
                deregistered,
                ..
            } => {
                let ids = |ids: &[PeId]| if ids.is_empty() { 0 } else { param_len(4 * ids.len()) };
                let total = total.map_or(0, |_| param_len(4));
                handle.encoded_len()
                    + error_len(error)
                    + policy_len(policy)
                    + elements(list)
                    + total
                    + ids(lost)
                    + ids(deregistered)
            }
            Asap::EndpointKeepAlive { handle, id, .. } => {
                4 + handle.encoded_len() + id.map_or(0, |_| PeId::ENCODED_LEN)
            }
            Asap::ServerAnnounce { transports, .. } => {
                4 + transports.iter().map(Transport::encoded_len).sum::<usize>()
            }
            Asap::Cookie { cookie } | Asap::CookieEcho { cookie } => param_len(cookie.len()),
            Asap::BusinessCard { handle, policy, elements: list } => {
                handle.encoded_len() + policy_len(policy) + elements(list)
            }
            Asap::Error { error } => error.encoded_len(),
        }
    }

    /// Whether the message can be sent: not longer than [`MAX_MESSAGE`].
    pub fn fits(&self) -> bool {
        self.encoded_len() <= MAX_MESSAGE
    }

    /// Encodes the message, padding included.
    ///
    /// Cannot fail, but a message must fit ([`Asap::fits`]): of one that does not, the first
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
        Writer::message(out, lengths, self.kind().0, self.flags(), |w| self.write(w));
    }

    fn write(&self, w: &mut Writer<'_>) {
        match self {
            Asap::Registration { handle, element } => {
                handle.write(w);
                element.write(w);
            }
            Asap::Deregistration { handle, id }
            | Asap::EndpointKeepAliveAck { handle, id }
            | Asap::EndpointUnreachable { handle, id } => {
                handle.write(w);
                id.write(w);
            }
            Asap::RegistrationResponse { handle, id, error, .. }
            | Asap::DeregistrationResponse { handle, id, error } => {
                handle.write(w);
                id.write(w);
                if let Some(error) = error {
                    error.write(w);
                }
            }
            Asap::HandleResolution { handle, items, .. } => {
                handle.write(w);
                if let Some(items) = items {
                    w.param(ParamType::ITEMS, |w| w.u32(*items));
                }
            }
            Asap::HandleResolutionResponse {
                handle,
                error,
                policy,
                elements,
                total,
                lost,
                deregistered,
                ..
            } => {
                handle.write(w);
                if let Some(error) = error {
                    error.write(w);
                }
                write_pool(w, policy, elements);
                if let Some(total) = total {
                    w.param(ParamType::ITEMS, |w| w.u32(*total));
                }
                for (kind, ids) in [(ParamType::LOST, lost), (ParamType::DEREGISTERED, deregistered)] {
                    if !ids.is_empty() {
                        w.param(kind, |w| ids.iter().for_each(|id| w.u32(id.0)));
                    }
                }
            }
            Asap::EndpointKeepAlive { registrar, handle, id, .. } => {
                w.u32(registrar.0);
                handle.write(w);
                if let Some(id) = id {
                    id.write(w);
                }
            }
            Asap::ServerAnnounce { registrar, transports } => {
                w.u32(registrar.0);
                transports.iter().for_each(|transport| transport.write(w));
            }
            Asap::Cookie { cookie } | Asap::CookieEcho { cookie } => {
                w.param(ParamType::COOKIE, |w| w.bytes(cookie));
            }
            Asap::BusinessCard { handle, policy, elements } => {
                handle.write(w);
                write_pool(w, policy, elements);
            }
            Asap::Error { error } => error.write(w),
        }
    }

    /// Decodes one message; `bytes` is one SCTP user message or one padded TCP frame.
    ///
    /// # Errors
    ///
    /// Says where and why, and what to answer. An Error message never gets an answer.
    pub fn decode(bytes: &[u8]) -> Result<Decoded<Asap>, DecodeError> {
        let decoded = Body::decode(bytes);
        if bytes.first() == Some(&AsapType::ERROR.0) { without_answer(decoded) } else { decoded }
    }

    /// Handle and number of items of a HANDLE_RESOLUTION without the S flag and without anything that would
    /// have to be told about: to answer it without a copy. `None`: [`Asap::decode`] says what it is.
    pub fn plain_resolution(bytes: &[u8]) -> Option<(&[u8], Option<u32>)> {
        let (AsapType::HANDLE_RESOLUTION, 0, mut reader) =
            Reader::message(bytes).map(|(kind, flags, reader)| (AsapType(kind), flags, reader)).ok()?
        else {
            return None;
        };
        let mut handle = reader.param().ok().filter(|param| param.kind == ParamType::HANDLE)?;
        let items = match reader.is_empty() {
            true => None,
            false => {
                let items = reader.param().ok().filter(|param| param.kind == ParamType::ITEMS)?;
                Some(u32::from_be_bytes(items.value.exactly().ok()?))
            }
        };
        let handle = handle.value.rest();
        let plain = reader.is_empty() && (1..=MAX_HANDLE).contains(&handle.len());
        plain.then_some((handle, items))
    }
}

fn write_pool(w: &mut Writer<'_>, policy: &Option<Policy>, elements: &[PoolElement]) {
    if let Some(policy) = policy {
        policy.write(w);
    }
    elements.iter().for_each(|element| element.write(w));
}

/// A message that is being decoded.
struct Body<'a> {
    reader: Reader<'a>,
    unrecognized: Unrecognized,
}

impl<'a> Body<'a> {
    fn decode(bytes: &'a [u8]) -> Result<Decoded<Asap>, DecodeError> {
        let (kind, flags, reader) = Reader::message(bytes)?;
        let mut body = Body { reader, unrecognized: Vec::new() };
        if AsapType(kind).name().is_none() {
            return Err(DecodeError::unknown_message(bytes));
        }
        let message = body.message(AsapType(kind), flags & 1 != 0)?;
        Ok(Decoded { message, unrecognized: body.unrecognized })
    }

    fn message(&mut self, kind: AsapType, flag: bool) -> Result<Asap, DecodeError> {
        // The only two with something before the parameters.
        let registrar = match kind {
            AsapType::ENDPOINT_KEEP_ALIVE | AsapType::SERVER_ANNOUNCE => self.reader.u32()?,
            _ => 0,
        };
        let registrar = RegistrarId(registrar);
        self.reader.check(&mut self.unrecognized)?;
        Ok(match kind {
            AsapType::REGISTRATION => {
                let handle = self.handle()?;
                let element = self.reader.require(&[ParamType::ELEMENT])?;
                Asap::Registration { handle, element: PoolElement::decode(element, &mut self.unrecognized)? }
            }
            AsapType::DEREGISTRATION => Asap::Deregistration { handle: self.handle()?, id: self.pe_id()? },
            AsapType::REGISTRATION_RESPONSE => Asap::RegistrationResponse {
                rejected: flag,
                handle: self.handle()?,
                id: self.pe_id()?,
                error: self.error()?,
            },
            AsapType::DEREGISTRATION_RESPONSE => Asap::DeregistrationResponse {
                handle: self.handle()?,
                id: self.pe_id()?,
                error: self.error()?,
            },
            AsapType::HANDLE_RESOLUTION => {
                let handle = self.handle()?;
                let items = match self.optional(ParamType::ITEMS)? {
                    Some(items) => Some(u32::from_be_bytes(items.value.exactly()?)),
                    None => None,
                };
                Asap::HandleResolution { subscribe: flag, handle, items }
            }
            AsapType::HANDLE_RESOLUTION_RESPONSE => self.handle_resolution_response(flag)?,
            AsapType::ENDPOINT_KEEP_ALIVE => {
                let handle = self.handle()?;
                let id = self.optional(ParamType::PE_ID)?.map(PeId::decode).transpose()?;
                Asap::EndpointKeepAlive { home: flag, registrar, handle, id }
            }
            AsapType::ENDPOINT_KEEP_ALIVE_ACK => {
                Asap::EndpointKeepAliveAck { handle: self.handle()?, id: self.pe_id()? }
            }
            AsapType::ENDPOINT_UNREACHABLE => {
                Asap::EndpointUnreachable { handle: self.handle()?, id: self.pe_id()? }
            }
            AsapType::SERVER_ANNOUNCE => {
                let mut transports = Vec::new();
                while let Some(param) = self.reader.next(ParamType::TRANSPORTS)? {
                    transports.push(Transport::decode(param, &mut self.unrecognized)?);
                }
                Asap::ServerAnnounce { registrar, transports }
            }
            AsapType::COOKIE => Asap::Cookie { cookie: self.cookie()? },
            AsapType::COOKIE_ECHO => Asap::CookieEcho { cookie: self.cookie()? },
            AsapType::BUSINESS_CARD => self.business_card()?,
            // The caller knows that there is no other.
            _ => Asap::Error { error: OperationError::decode(self.reader.require(&[ParamType::ERROR])?)? },
        })
    }

    fn optional(&self, kind: ParamType) -> Result<Option<Param<'a>>, DecodeError> {
        self.reader.find(&[kind])
    }

    fn handle(&self) -> Result<PoolHandle, DecodeError> {
        PoolHandle::decode(self.reader.require(&[ParamType::HANDLE])?)
    }

    fn pe_id(&self) -> Result<PeId, DecodeError> {
        PeId::decode(self.reader.require(&[ParamType::PE_ID])?)
    }

    fn error(&self) -> Result<Option<OperationError>, DecodeError> {
        self.optional(ParamType::ERROR)?.map(OperationError::decode).transpose()
    }

    fn cookie(&self) -> Result<Vec<u8>, DecodeError> {
        let mut param = self.reader.require(&[ParamType::COOKIE])?;
        Ok(param.value.rest().to_vec())
    }

    /// rsplib puts the error in the place of policy and elements, the RFC behind them.
    fn handle_resolution_response(&mut self, subscribed: bool) -> Result<Asap, DecodeError> {
        const PARTS: &[ParamType] = &[
            ParamType::POLICY,
            ParamType::ELEMENT,
            ParamType::ERROR,
            ParamType::ITEMS,
            ParamType::LOST,
            ParamType::DEREGISTERED,
        ];
        let handle = self.handle()?;
        let (mut error, mut policy, mut total) = (None, None, None);
        let (mut elements, mut lost, mut deregistered) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(mut param) = self.reader.next(PARTS)? {
            match param.kind {
                ParamType::POLICY => policy = Some(Policy::decode(param)?),
                ParamType::ELEMENT => elements.push(PoolElement::decode(param, &mut self.unrecognized)?),
                ParamType::ERROR => error = Some(OperationError::decode(param)?),
                ParamType::ITEMS => total = Some(u32::from_be_bytes(param.value.exactly()?)),
                kind => {
                    let ids = if kind == ParamType::DEREGISTERED { &mut deregistered } else { &mut lost };
                    while !param.value.is_empty() {
                        ids.push(PeId(param.value.u32()?));
                    }
                }
            }
        }
        Ok(Asap::HandleResolutionResponse {
            subscribed,
            handle,
            error,
            policy,
            elements,
            total,
            lost,
            deregistered,
        })
    }

    /// The RFC has handle and elements, rsplib's encoder puts a policy between them.
    fn business_card(&mut self) -> Result<Asap, DecodeError> {
        let handle = self.handle()?;
        let (mut policy, mut elements) = (None, Vec::new());
        while let Some(param) = self.reader.next(&[ParamType::POLICY, ParamType::ELEMENT])? {
            match param.kind {
                ParamType::POLICY => policy = Some(Policy::decode(param)?),
                _ => elements.push(PoolElement::decode(param, &mut self.unrecognized)?),
            }
        }
        Ok(Asap::BusinessCard { handle, policy, elements })
    }
}
