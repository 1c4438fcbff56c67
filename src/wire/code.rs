//! Code points, with room for the values nobody has assigned yet.

/// One table gives the constants, the printed names and the way back from a name.
///
/// The type is a newtype over the wire's integer, so values nobody knows pass through unharmed.
macro_rules! code_points {
    ($(#[$meta:meta])* $name:ident: $int:ty { $($(#[$doc:meta])* $constant:ident = $value:literal $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub $int);

        #[allow(missing_docs)]
        impl $name {
            $($(#[$doc])* pub const $constant: $name = $name($value);)*
        }

        impl $name {
            /// Every code point with a name, in order of the table.
            pub const ALL: &'static [($name, &'static str)] = &[$(($name($value), $text)),*];

            /// The name, if it has one.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($text),)*
                    _ => None,
                }
            }

            /// The code point of that exact name.
            pub fn by_name(name: &str) -> Option<$name> {
                $name::ALL.iter().find(|(_, text)| *text == name).map(|(code, _)| *code)
            }
        }

        /// The name, or the number in hexadecimal.
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{:#x}", self.0),
                }
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({:#x})", stringify!($name), self.0)
            }
        }
    };
}
pub(crate) use code_points;

code_points! {
    /// A parameter type (RFC 5354 section 3; the last two are private).
    ParamType: u16 {
        IPV4 = 0x0001 "IPv4 Address",
        IPV6 = 0x0002 "IPv6 Address",
        DCCP = 0x0003 "DCCP Transport",
        SCTP = 0x0004 "SCTP Transport",
        TCP = 0x0005 "TCP Transport",
        UDP = 0x0006 "UDP Transport",
        UDP_LITE = 0x0007 "UDP-Lite Transport",
        POLICY = 0x0008 "Pool Member Selection Policy",
        HANDLE = 0x0009 "Pool Handle",
        ELEMENT = 0x000a "Pool Element",
        SERVER = 0x000b "Server Information",
        ERROR = 0x000c "Operation Error",
        COOKIE = 0x000d "Cookie",
        PE_ID = 0x000e "PE Identifier",
        CHECKSUM = 0x000f "PE Checksum",
        OPAQUE = 0x0010 "Opaque Transport",
        /// Ours, to subscribers only: identifiers of elements that deregistered themselves.
        DEREGISTERED = 0x803d "Deregistered",
        /// Ours, to subscribers only: identifiers of elements that were lost.
        LOST = 0x803e "Lost",
        /// rsplib's: how many elements are wanted; from us to subscribers: how many there are.
        ITEMS = 0x803f "Items",
    }
}

code_points! {
    /// An ASAP message type (RFC 5352 section 2.2).
    AsapType: u8 {
        REGISTRATION = 0x01 "Registration",
        DEREGISTRATION = 0x02 "Deregistration",
        REGISTRATION_RESPONSE = 0x03 "RegistrationResponse",
        DEREGISTRATION_RESPONSE = 0x04 "DeregistrationResponse",
        HANDLE_RESOLUTION = 0x05 "HandleResolution",
        HANDLE_RESOLUTION_RESPONSE = 0x06 "HandleResolutionResponse",
        ENDPOINT_KEEP_ALIVE = 0x07 "EndpointKeepAlive",
        ENDPOINT_KEEP_ALIVE_ACK = 0x08 "EndpointKeepAliveAck",
        ENDPOINT_UNREACHABLE = 0x09 "EndpointUnreachable",
        SERVER_ANNOUNCE = 0x0a "ServerAnnounce",
        COOKIE = 0x0b "Cookie",
        COOKIE_ECHO = 0x0c "CookieEcho",
        BUSINESS_CARD = 0x0d "BusinessCard",
        ERROR = 0x0e "Error",
    }
}

code_points! {
    /// An ENRP message type (RFC 5353 section 2).
    EnrpType: u8 {
        PRESENCE = 0x01 "Presence",
        HANDLE_TABLE_REQUEST = 0x02 "HandleTableRequest",
        HANDLE_TABLE_RESPONSE = 0x03 "HandleTableResponse",
        HANDLE_UPDATE = 0x04 "HandleUpdate",
        LIST_REQUEST = 0x05 "ListRequest",
        LIST_RESPONSE = 0x06 "ListResponse",
        INIT_TAKEOVER = 0x07 "InitTakeover",
        INIT_TAKEOVER_ACK = 0x08 "InitTakeoverAck",
        TAKEOVER_SERVER = 0x09 "TakeoverServer",
        ERROR = 0x0a "Error",
    }
}

impl ParamType {
    /// The transport parameters.
    pub const TRANSPORTS: &'static [ParamType] = &[
        ParamType::DCCP,
        ParamType::SCTP,
        ParamType::TCP,
        ParamType::UDP,
        ParamType::UDP_LITE,
        ParamType::OPAQUE,
    ];

    /// Whether RFC 5354 defines it. The two high bits, which say what to do with an unknown type, are part of the
    /// number: 0x8009 is another type than 0x9, and an unknown one (rsplib takes it for a pool handle).
    pub const fn is_standard(self) -> bool {
        matches!(self.0, 0x01..=0x10)
    }
}

/// What the two high bits of an unknown parameter's type ask for (RFC 5354 section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// `00`: drop the message, silently.
    Stop,
    /// `01`: drop the message and report the parameter.
    StopAndReport,
    /// `10`: go on without the parameter.
    Skip,
    /// `11`: go on without the parameter and report it.
    SkipAndReport,
}

impl Unknown {
    /// The reaction that a type asks for.
    pub const fn of(param: ParamType) -> Unknown {
        match param.0 >> 14 {
            0 => Unknown::Stop,
            1 => Unknown::StopAndReport,
            2 => Unknown::Skip,
            _ => Unknown::SkipAndReport,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for (code, name) in ParamType::ALL {
            assert_eq!((code.name(), ParamType::by_name(name)), (Some(*name), Some(*code)));
        }
        assert_eq!(ParamType(0x77).to_string(), "0x77");
        assert_eq!(AsapType::by_name("registration"), None);
    }

    #[test]
    fn high_bits_are_part_of_the_number() {
        assert!(ParamType::HANDLE.is_standard() && ParamType::OPAQUE.is_standard());
        assert!(![0xc009, 0x8010, 0x0011, 0x0000, 0x803f].iter().any(|&code| ParamType(code).is_standard()));
        assert_eq!(Unknown::of(ParamType(0x7fff)), Unknown::StopAndReport);
        assert_eq!(Unknown::of(ParamType(0xbfff)), Unknown::Skip);
    }
}
