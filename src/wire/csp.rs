//! Reports of the Component Status Protocol: who is there, doing what, talking to whom.
//!
//! rsplib's own protocol, UDP to port 2960, in no RFC. Big endian:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | type, 1 |
//! | 1 | 1 | flags, bit 0: last report |
//! | 2 | 2 | length of the whole report |
//! | 4 | 4 | version, 0x200 |
//! | 8 | 8 | sender: group in the top 8 bits, object in the others |
//! | 16 | 8 | µs since the sender's first report |
//! | 24 | 4 | µs between reports |
//! | 28 | 128 | location, padded with zeros |
//! | 156 | 128 | status, padded with zeros |
//! | 284 | 2 | workload in 1/65534, all ones: unknown |
//! | 286 | 2 | number of associations |
//! | 288 | 24 each | receiver (8), duration in µs (8, all ones: unknown), flags (2), protocol (2), PPID (4) |

use super::cause::DecodeError;
use super::reader::Reader;

/// Port of the monitor.
pub const CSP_PORT: u16 = 2960;
/// Bytes of a location or a status text.
pub const CSP_TEXT: usize = 128;
/// The most associations in a report: what fits into a UDP datagram.
pub const CSP_MAX_ASSOCIATIONS: usize = 2700;

const REPORT: u8 = 1;
const VERSION: u32 = 0x200;
const FIXED: usize = 288;
const ASSOCIATION: usize = 24;
const WORKLOAD_UNKNOWN: u16 = 0xffff;

/// Who a component is: its group and, within it, its identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CspId(pub u64);

impl CspId {
    /// Group of registrars; the object is the registrar's identifier.
    pub const REGISTRAR: u8 = 1;
    /// Group of pool elements; the object is the element's identifier.
    pub const POOL_ELEMENT: u8 = 2;
    /// Group of pool users; the object is a number of their own choice.
    pub const POOL_USER: u8 = 3;

    /// Puts an identifier together; only the lower 56 bits of `object` count.
    pub fn new(group: u8, object: u64) -> CspId {
        CspId(u64::from(group) << 56 | object & ((1 << 56) - 1))
    }

    /// The group.
    pub fn group(self) -> u8 {
        (self.0 >> 56) as u8
    }

    /// The identifier within the group.
    pub fn object(self) -> u64 {
        self.0 & ((1 << 56) - 1)
    }
}

/// One component that the sender is talking to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CspAssociation {
    /// The other component.
    pub receiver: CspId,
    /// For how long, in microseconds, if known.
    pub duration: Option<u64>,
    /// rsplib: 0.
    pub flags: u16,
    /// IP protocol number (SCTP: 132).
    pub protocol: u16,
    /// SCTP payload protocol identifier, host order.
    pub ppid: u32,
}

/// A status report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CspReport {
    /// The sender's last report: it is going away.
    pub last: bool,
    /// The sender.
    pub sender: CspId,
    /// Microseconds since the sender's first report.
    pub timestamp: u64,
    /// Microseconds from one report to the next.
    pub interval: u32,
    /// Where the sender runs; what is longer than [`CSP_TEXT`] bytes is cut. No trailing zeros.
    pub location: Vec<u8>,
    /// What it is doing; likewise.
    pub status: Vec<u8>,
    /// How busy it is, in 1/65534, if known; 0xffff counts as unknown.
    pub workload: Option<u16>,
    /// Whom it is talking to; at most [`CSP_MAX_ASSOCIATIONS`].
    pub associations: Vec<CspAssociation>,
}

impl CspReport {
    /// A load (fraction of 2^32-1, as in policies) as a workload.
    pub fn workload_of(load: u32) -> u16 {
        (f64::from(load) / f64::from(u32::MAX) * 65534.0).round_ties_even() as u16
    }

    /// Encodes the report.
    pub fn encode(&self) -> Vec<u8> {
        debug_assert!(self.associations.len() <= CSP_MAX_ASSOCIATIONS);
        let associations = &self.associations[..self.associations.len().min(CSP_MAX_ASSOCIATIONS)];
        let length = FIXED + ASSOCIATION * associations.len();
        let mut out = Vec::with_capacity(length);
        out.extend([REPORT, u8::from(self.last)]);
        out.extend((length as u16).to_be_bytes());
        out.extend(VERSION.to_be_bytes());
        out.extend(self.sender.0.to_be_bytes());
        out.extend(self.timestamp.to_be_bytes());
        out.extend(self.interval.to_be_bytes());
        for (text, end) in [(&self.location, 28 + CSP_TEXT), (&self.status, 28 + 2 * CSP_TEXT)] {
            out.extend(text.iter().take(CSP_TEXT));
            out.resize(end, 0);
        }
        out.extend(self.workload.unwrap_or(WORKLOAD_UNKNOWN).to_be_bytes());
        out.extend((associations.len() as u16).to_be_bytes());
        for association in associations {
            out.extend(association.receiver.0.to_be_bytes());
            out.extend(association.duration.unwrap_or(u64::MAX).to_be_bytes());
            out.extend(association.flags.to_be_bytes());
            out.extend(association.protocol.to_be_bytes());
            out.extend(association.ppid.to_be_bytes());
        }
        out
    }

    /// Decodes a report; `bytes` is one UDP datagram.
    pub fn decode(bytes: &[u8]) -> Result<CspReport, DecodeError> {
        // Nobody answers reports.
        CspReport::read(bytes).map_err(|error| DecodeError { cause: None, ..error })
    }

    fn read(bytes: &[u8]) -> Result<CspReport, DecodeError> {
        let (kind, flags, mut r) = Reader::message(bytes)?;
        if kind != REPORT {
            return Err(DecodeError { at: 0, ..r.invalid("not a report") });
        }
        if r.u32()? != VERSION {
            return Err(DecodeError { at: 4, ..r.invalid("unknown version") });
        }
        let sender = CspId(r.u64()?);
        let timestamp = r.u64()?;
        let interval = r.u32()?;
        let location = text(r.take(CSP_TEXT)?);
        let status = text(r.take(CSP_TEXT)?);
        let workload = Some(r.u16()?).filter(|workload| *workload != WORKLOAD_UNKNOWN);
        let count = usize::from(r.u16()?);
        let mut associations = Vec::new();
        for _ in 0..count {
            associations.push(CspAssociation {
                receiver: CspId(r.u64()?),
                duration: Some(r.u64()?).filter(|duration| *duration != u64::MAX),
                flags: r.u16()?,
                protocol: r.u16()?,
                ppid: r.u32()?,
            });
        }
        if !r.is_empty() || count > CSP_MAX_ASSOCIATIONS {
            return Err(r.invalid("length and number of associations disagree"));
        }
        Ok(CspReport {
            last: flags & 1 != 0,
            sender,
            timestamp,
            interval,
            location,
            status,
            workload,
            associations,
        })
    }
}

fn text(field: &[u8]) -> Vec<u8> {
    let end = field.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    field[..end].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> CspReport {
        CspReport {
            last: false,
            sender: CspId::new(CspId::POOL_USER, 0x0061_f4a2_3358_7000),
            timestamp: 1_000_000,
            interval: 700_000,
            location: b"host: 10.0.0.1:3863".to_vec(),
            status: vec![b's'; CSP_TEXT],
            workload: Some(CspReport::workload_of(u32::MAX / 2)),
            associations: vec![CspAssociation {
                receiver: CspId::new(CspId::REGISTRAR, 0x1234),
                duration: None,
                flags: 0,
                protocol: 132,
                ppid: 11,
            }],
        }
    }

    #[test]
    fn there_and_back() {
        let bytes = report().encode();
        assert_eq!(bytes.len(), 288 + 24);
        assert_eq!(bytes[..8], [1, 0, 0x01, 0x38, 0, 0, 2, 0]);
        assert_eq!(bytes[284..288], [0x7f, 0xff, 0, 1]);
        assert_eq!(CspReport::decode(&bytes), Ok(report()));
    }

    #[test]
    fn too_long_texts_are_cut() {
        let long = CspReport { location: vec![b'x'; 500], ..report() };
        let decoded = CspReport::decode(&long.encode()).unwrap();
        assert_eq!((decoded.location, decoded.status), (vec![b'x'; CSP_TEXT], report().status));
    }

    #[test]
    fn every_wrong_length_is_an_error() {
        let bytes = report().encode();
        for length in 0..bytes.len() {
            let mut short = bytes[..length].to_vec();
            assert!(CspReport::decode(&short).is_err(), "{length}");
            if length >= 4 {
                short[2..4].copy_from_slice(&(length as u16).to_be_bytes());
                assert!(CspReport::decode(&short).is_err(), "{length} declared");
            }
        }
        let mut two = bytes.clone();
        two[287] = 0;
        let error = CspReport::decode(&two).unwrap_err();
        assert_eq!(error.to_string(), "at byte 288: length and number of associations disagree");
        assert_eq!(error.cause, None);
    }
}
