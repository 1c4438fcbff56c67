//! Messages as one line each, for logs, dumps and people.
//!
//! `ASAP Registration pool="echo" pe=0x00001a2b home=0x00000000 life=300s tcp 192.0.2.7:7 RoundRobin`
//!
//! The messages' `Display` is that line; [`asap()`], [`enrp()`] and [`csp()`] take bytes, and show of
//! broken ones what can be seen: the reason, and the parameters up to the break.

use super::cause::{Bytes, SHOWN};
use super::code::{AsapType, EnrpType};
use super::enrp::UpdateAction;
use super::reader::Reader;
use super::*;
use std::fmt::{self, Display, Formatter, Write as _};
use std::net::SocketAddr;

/// Where something is, as words behind its name; none if that is not known.
pub fn at(address: Option<SocketAddr>) -> String {
    address.map_or(String::new(), |address| format!(" at {address}"))
}

/// One ASAP message.
pub fn asap(bytes: &[u8]) -> String {
    Asap::decode(bytes).map(|decoded| complete(&decoded)).unwrap_or_else(|error| {
        let kind = bytes.first().map(|kind| AsapType(*kind));
        let fixed = match kind {
            Some(AsapType::ENDPOINT_KEEP_ALIVE | AsapType::SERVER_ANNOUNCE) => 4,
            _ => 0,
        };
        broken("ASAP", kind, fixed, bytes, &error)
    })
}

/// One ENRP message.
pub fn enrp(bytes: &[u8]) -> String {
    EnrpMessage::decode(bytes).map(|decoded| complete(&decoded)).unwrap_or_else(|error| {
        let kind = bytes.first().map(|kind| EnrpType(*kind));
        let fixed = match kind {
            Some(
                EnrpType::HANDLE_UPDATE
                | EnrpType::INIT_TAKEOVER
                | EnrpType::INIT_TAKEOVER_ACK
                | EnrpType::TAKEOVER_SERVER,
            ) => 12,
            _ => 8,
        };
        broken("ENRP", kind, fixed, bytes, &error)
    })
}

/// One CSP report.
pub fn csp(bytes: &[u8]) -> String {
    match CspReport::decode(bytes) {
        Ok(report) => report.to_string(),
        Err(error) => format!("CSP broken {error}, {} bytes: {}", bytes.len(), Bytes(bytes)),
    }
}

fn complete<M: Display>(decoded: &Decoded<M>) -> String {
    let mut line = decoded.message.to_string();
    for tlv in &decoded.unrecognized {
        let _ = write!(line, " unknown={}", Bytes(tlv));
    }
    line
}

/// A message that cannot be decoded: what kind it claims to be, why not, what is in it behind the
/// `fixed` bytes that follow its header.
fn broken(
    protocol: &str,
    kind: Option<impl Display>,
    fixed: usize,
    bytes: &[u8],
    error: &DecodeError,
) -> String {
    let mut line = protocol.to_owned();
    if let Some(kind) = kind {
        let _ = write!(line, " {kind}");
    }
    let _ = write!(line, " broken {error}, {} bytes:", bytes.len());
    let parameters = Reader::message(bytes).and_then(|(_, _, mut reader)| {
        reader.take(fixed)?;
        Ok(reader)
    });
    match parameters {
        Ok(reader) => show_parameters(&mut line, reader, bytes),
        Err(_) => {
            let _ = write!(line, " {}", Bytes(bytes));
        }
    }
    line
}

/// The outermost parameters up to the first that cannot be told from what follows.
fn show_parameters(line: &mut String, mut reader: Reader<'_>, bytes: &[u8]) {
    for _ in 0..SHOWN {
        if reader.is_empty() {
            return;
        }
        match reader.param() {
            Ok(mut param) => {
                let _ = write!(line, " [{}: {}]", param.kind, Bytes(param.value.rest()));
            }
            Err(error) => {
                let _ = write!(line, " {}", Bytes(bytes.get(error.at..).unwrap_or_default()));
                return;
            }
        }
    }
    line.push_str(" ...");
}

/// What may be missing: nothing, or a space and the thing.
struct Maybe<'a, T>(&'a str, &'a Option<T>);

impl<T: Display> Display for Maybe<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(thing) => write!(f, " {}{thing}", self.0),
            None => Ok(()),
        }
    }
}

/// ` (a) (b)`: several things of a kind.
struct Each<'a, T>(&'a [T]);

impl<T: Display> Display for Each<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|thing| write!(f, " ({thing})"))
    }
}

/// A flag that is set: a space and its name.
fn flag(set: bool, name: &'static str) -> &'static str {
    if set { name } else { "" }
}

impl Display for Protocol {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Protocol::Sctp => f.write_str("sctp"),
            Protocol::Tcp => f.write_str("tcp"),
            Protocol::Udp => f.write_str("udp"),
            Protocol::UdpLite => f.write_str("udplite"),
            Protocol::Dccp { service_code } => write!(f, "dccp[{service_code:#x}]"),
        }
    }
}

/// `tcp 192.0.2.7:7`, `sctp+control 10.0.0.2:7,[fd00::2]:7`
impl Display for Transport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Transport::Address { protocol, port, usage, addresses } = self else {
            let Transport::Opaque(data) = self else { return Ok(()) };
            return write!(f, "opaque {}", Bytes(data));
        };
        write!(f, "{protocol}")?;
        match usage {
            TransportUse::DataOnly => f.write_char(' ')?,
            TransportUse::DataPlusControl => f.write_str("+control ")?,
            TransportUse::Other(code) => write!(f, "+{code:#x} ")?,
        }
        if addresses.is_empty() {
            return write!(f, "none:{port}");
        }
        for (index, ip) in addresses.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}", SocketAddr::new(*ip, *port))?;
        }
        Ok(())
    }
}

/// Milliseconds as people read them.
struct ShownLife(u32);

impl Display for ShownLife {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            u32::MAX => f.write_str("forever"),
            ms if ms % 1000 == 0 => write!(f, "{}s", ms / 1000),
            ms => write!(f, "{ms}ms"),
        }
    }
}

/// `pe=0x00001a2b home=0x00000000 life=300s tcp 192.0.2.7:7 RoundRobin`
impl Display for PoolElement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let PoolElement { id, home, life, transport, policy, asap } = self;
        write!(
            f,
            "pe={id} home={home} life={} {transport} {policy}{}",
            ShownLife(*life),
            Maybe("asap=", asap)
        )
    }
}

/// `server=0x0000000a sctp 10.0.0.1:9901`
impl Display for ServerInformation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "server={}", self.id)?;
        self.transports.iter().try_for_each(|transport| write!(f, " {transport}"))
    }
}

impl Display for Asap {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "ASAP {}", self.kind())?;
        match self {
            Asap::Registration { handle, element } => write!(f, " pool={handle:?} {element}"),
            Asap::Deregistration { handle, id }
            | Asap::EndpointKeepAliveAck { handle, id }
            | Asap::EndpointUnreachable { handle, id } => write!(f, " pool={handle:?} pe={id}"),
            Asap::RegistrationResponse { rejected, handle, id, error } => {
                let rejected = flag(*rejected, " rejected");
                write!(f, " pool={handle:?} pe={id}{rejected}{}", Maybe("error: ", error))
            }
            Asap::DeregistrationResponse { handle, id, error } => {
                write!(f, " pool={handle:?} pe={id}{}", Maybe("error: ", error))
            }
            Asap::HandleResolution { subscribe, handle, items } => {
                let items =
                    items.map(|items| if items == u32::MAX { "all".into() } else { items.to_string() });
                write!(f, " pool={handle:?}{}{}", flag(*subscribe, " subscribe"), Maybe("items=", &items))
            }
            Asap::HandleResolutionResponse {
                subscribed,
                handle,
                error,
                policy,
                elements,
                total,
                lost,
                deregistered,
            } => {
                write!(f, " pool={handle:?}{}", flag(*subscribed, " subscribed"))?;
                write!(f, "{}{}", Maybe("error: ", error), Maybe("", policy))?;
                write!(f, "{}{}", Each(elements), Maybe("total=", total))?;
                lost.iter().try_for_each(|id| write!(f, " lost={id}"))?;
                deregistered.iter().try_for_each(|id| write!(f, " deregistered={id}"))
            }
            Asap::EndpointKeepAlive { home, registrar, handle, id } => {
                let home = flag(*home, " home");
                write!(f, " registrar={registrar}{home} pool={handle:?}{}", Maybe("pe=", id))
            }
            Asap::ServerAnnounce { registrar, transports } => {
                write!(f, " registrar={registrar}")?;
                transports.iter().try_for_each(|transport| write!(f, " {transport}"))
            }
            Asap::Cookie { cookie } | Asap::CookieEcho { cookie } => write!(f, " cookie={}", Bytes(cookie)),
            Asap::BusinessCard { handle, policy, elements } => {
                write!(f, " pool={handle:?}{}{}", Maybe("", policy), Each(elements))
            }
            Asap::Error { error } => write!(f, " {error}"),
        }
    }
}

impl Display for EnrpMessage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "ENRP {} from={} to={}", self.body.kind(), self.sender, self.receiver)?;
        match &self.body {
            Enrp::Presence { reply_required, checksum, server } => {
                f.write_str(flag(*reply_required, " reply-required"))?;
                let checksum = checksum.map(|bytes| format!("{:#06x}", u16::from_be_bytes(bytes)));
                write!(f, "{}{}", Maybe("checksum=", &checksum), Maybe("", server))
            }
            Enrp::HandleTableRequest { own_only } => f.write_str(flag(*own_only, " own-only")),
            Enrp::HandleTableResponse { rejected, more, pools } => {
                write!(f, "{}{}", flag(*rejected, " rejected"), flag(*more, " more"))?;
                let mut show =
                    |(handle, list): &(PoolHandle, Vec<_>)| write!(f, " pool={handle:?}{}", Each(list));
                pools.iter().try_for_each(&mut show)
            }
            Enrp::HandleUpdate { takeover_suggested, action, handle, element } => {
                let action = match action {
                    UpdateAction::Add => "add",
                    UpdateAction::Delete => "delete",
                };
                let suggested = flag(*takeover_suggested, " takeover-suggested");
                write!(f, " {action}{suggested} pool={handle:?} {element}")
            }
            Enrp::ListRequest => Ok(()),
            Enrp::ListResponse { rejected, servers } => {
                write!(f, "{}{}", flag(*rejected, " rejected"), Each(servers))
            }
            Enrp::InitTakeover { target }
            | Enrp::InitTakeoverAck { target }
            | Enrp::TakeoverServer { target } => {
                write!(f, " target={target}")
            }
            Enrp::Error { error } => write!(f, " {error}"),
        }
    }
}

/// `registrar 0x1234`
impl Display for CspId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.group() {
            CspId::REGISTRAR => write!(f, "registrar {:#x}", self.object()),
            CspId::POOL_ELEMENT => write!(f, "pe {:#x}", self.object()),
            CspId::POOL_USER => write!(f, "pu {:#x}", self.object()),
            other => write!(f, "{other}:{:#x}", self.object()),
        }
    }
}

impl Display for CspAssociation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} protocol={} ppid={:#x}", self.receiver, self.protocol, self.ppid)?;
        match self.duration {
            Some(duration) => write!(f, " for={}ms", duration / 1000),
            None => Ok(()),
        }
    }
}

impl Display for CspReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "CSP Report {}{} at={}ms", self.sender, flag(self.last, " last"), self.timestamp / 1000)?;
        write!(f, " every={}ms", self.interval / 1000)?;
        let text = |text: &[u8]| PoolHandle::new(text).map(|text| format!("{text:?}"));
        write!(f, "{}", Maybe("location=", &text(&self.location)))?;
        write!(f, "{}", Maybe("status=", &text(&self.status)))?;
        let workload = self.workload.map(|workload| format!("{:.1}%", f64::from(workload) / 655.34));
        write!(f, "{}{}", Maybe("workload=", &workload), Each(&self.associations))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unhex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    #[test]
    fn complete_messages() {
        let lines = [
            (
                "01000038 0009000c 4563686f506f6f6c 000a0028 abcd1234 00000000 00003a98
                 00040010 8d53 0001 00010008 0a010101 00080008 00000001",
                "ASAP Registration pool=\"EchoPool\" pe=0xabcd1234 home=0x00000000 life=15s \
                 sctp+control 10.1.1.1:36179 RoundRobin",
            ),
            (
                "0600001400090005 78000000 000c0008 0009 0004",
                "ASAP HandleResolutionResponse pool=\"x\" \
                 error: unknown pool handle (0x9)",
            ),
            (
                "05010014 00090005 78000000 803f0008 ffffffff",
                "ASAP HandleResolution pool=\"x\" subscribe items=all",
            ),
            (
                "0700001c 11111111 0009000c 4563686f506f6f6c 000e0008 abcd1234",
                "ASAP EndpointKeepAlive registrar=0x11111111 pool=\"EchoPool\" pe=0xabcd1234",
            ),
            ("0b000010 000d000b 434f4f4b494521 00", "ASAP Cookie cookie=\"COOKIE!\""),
            (
                "05000014 00090005 78000000 ffff0008 deadbeef",
                "ASAP HandleResolution pool=\"x\" unknown=0xffff0008deadbeef",
            ),
        ];
        for (hex, line) in lines {
            assert_eq!(asap(&unhex(hex)), line);
        }
        let update = "04000060 11111111 22222222 0000 0000 0009000d 4563686f506f6f6c31 000000
                      000a0040 abcd1234 11111111 00015f90 00040010 89b6 0001 00010008 0a010101
                      00080010 40000002 00000000 40000000 00040010 848b 0000 00010008 0a010101";
        assert_eq!(
            enrp(&unhex(update)),
            "ENRP HandleUpdate from=0x11111111 to=0x22222222 add pool=\"EchoPool1\" pe=0xabcd1234 \
             home=0x11111111 life=90s sctp+control 10.1.1.1:35254 \
             LeastUsedDegradation(load=0.00%, degradation=25.00%) asap=sctp 10.1.1.1:33931"
        );
    }

    #[test]
    fn broken_messages() {
        let lines = [
            ("", "ASAP broken at byte 0: shorter than a message header, 0 bytes: \"\""),
            ("3f000004", "ASAP 0x3f broken at byte 0: unknown message type, 4 bytes:"),
            (
                "02000010 0009000c 41424344 45",
                "ASAP Deregistration broken at byte 0: message shorter than its \
                declared length, 13 bytes: 0x020000100009000c4142434445",
            ),
            (
                "02000014 00090005 78000000 000e0009 00000000",
                "ASAP Deregistration broken at byte 12: parameter \
                longer than what contains it, 20 bytes: [Pool Handle: \"x\"] 0x000e000900000000",
            ),
            (
                "02000014 00090005 78000000 000e0006 00000000",
                "ASAP Deregistration broken at byte 16: parameter of \
                the wrong size, 20 bytes: [Pool Handle: \"x\"] [PE Identifier: 0x0000]",
            ),
        ];
        for (hex, line) in lines {
            assert_eq!(asap(&unhex(hex)), line);
        }
        assert!(csp(&[1, 0, 0, 4]).starts_with("CSP broken at byte 4: ends too early, 4 bytes: 0x01000004"));
    }

    #[test]
    fn long_data_is_cut() {
        let line = asap(&Asap::Cookie { cookie: vec![0; 60_000] }.encode());
        assert!(line.ends_with("00...(60000 bytes)") && line.len() < 200, "{line}");
        let many = [vec![2, 0, 0xff, 0xfc], [0xbf, 0xff, 0, 4].repeat(0x3ffe)].concat();
        assert!(asap(&many).len() < 2000);
    }
}
