//! Sizes of what goes into messages, and how far addresses reach.

use crate::machine::LinkEnds;
use crate::wire::{EnrpMessage, Policy, PoolElement, PoolHandle, Protocol, Transport};
use std::net::IpAddr;

/// The longest message whose padded length still fits its 16-bit length field.
pub(super) const MAX_MESSAGE: usize = 65_532;
/// The longest pool handle that rsplib survives.
pub(super) const RSPLIB_MAX_HANDLE: usize = 32;

/// The most addresses in a transport that rsplib takes: of SCTP, and of the others.
const RSPLIB_MAX_ADDRESSES: (usize, usize) = (64, 2);
/// rsplib's registrar ends when an element does not fit the shortest part of a table.
pub(super) const RSPLIB_MAX_TABLE: usize = 1400;

/// The reach of an address, as numbers that rsplib compares too (`transport::scope` has names for them).
pub(super) fn scope(address: IpAddr) -> u8 {
    match address.to_canonical() {
        ip if ip.is_unspecified() => 0,
        ip if ip.is_multicast() => 0,
        ip if ip.is_loopback() => 2,
        IpAddr::V4(v4) if v4.is_broadcast() => 0,
        IpAddr::V4(v4) if v4.is_link_local() => 4,
        IpAddr::V4(v4) if v4.is_private() => 6,
        IpAddr::V6(v6) if v6.segments()[0] & 0xffc0 == 0xfe80 => 4,
        IpAddr::V6(v6) if v6.segments()[0] & 0xffc0 == 0xfec0 => 6,
        _ => 10,
    }
}

/// Whether an address given over this link is one that others may be told: it reaches far enough,
/// or means this host and was given on this host.
pub(super) fn acceptable(ends: &LinkEnds, minimum: u8, address: IpAddr) -> bool {
    let reach = scope(address);
    reach >= minimum.max(1) || (reach == 2 && is_local(ends))
}

/// Whether both ends are on this host: over the loopback interface, or from one of its addresses to the same.
fn is_local(ends: &LinkEnds) -> bool {
    let ours: Vec<IpAddr> = ends.local.iter().map(|local| local.ip().to_canonical()).collect();
    let mut peer = ends.peer.iter().map(|peer| peer.ip().to_canonical());
    peer.any(|ip| scope(ip) == 2 || ours.contains(&ip))
}

/// Whether the peer of an association is in several networks: several addresses of one family. One of
/// each family is the usual host on one network.
pub(super) fn has_several_paths(ends: &LinkEnds) -> bool {
    let far = ends.peer.iter().map(|peer| peer.ip().to_canonical()).filter(|&ip| scope(ip) > 4);
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = far.partition(IpAddr::is_ipv4);
    v4.len() > 1 || v6.len() > 1
}

/// Whether rsplib's registrars can hold the element: a short handle, an SCTP transport for
/// keep-alives, addresses that they do not drop as too local, and nothing at which they end.
pub(super) fn rsplib_can_hold(handle: &PoolHandle, element: &PoolElement) -> bool {
    let reachable = |transport: &Transport| {
        let addresses = transport.addresses();
        let most = match transport.protocol() {
            Some(Protocol::Sctp) => RSPLIB_MAX_ADDRESSES.0,
            _ => RSPLIB_MAX_ADDRESSES.1,
        };
        transport.port() != 0
            && addresses.len() <= most
            && addresses.iter().any(|&address| scope(address) > 4)
    };
    // A pool without any weight ends rsplib's registrar at the next question for it.
    let weightless = matches!(
        element.policy,
        Policy::WeightedRandom { weight: 0 } | Policy::WeightedRandomDpf { weight: 0, .. }
    );
    handle.as_bytes().len() <= RSPLIB_MAX_HANDLE
        && !weightless
        && element.id.0 != 0
        && EnrpMessage::HEADER_LEN + handle.encoded_len() + element.encoded_len() <= RSPLIB_MAX_TABLE
        && element
            .asap
            .as_ref()
            .is_some_and(|asap| asap.protocol() == Some(Protocol::Sctp) && reachable(asap))
        && reachable(&element.transport)
        && !matches!(element.transport.protocol(), None | Some(Protocol::UdpLite | Protocol::Dccp { .. }))
        && !matches!(element.policy, Policy::Unknown { .. })
}

/// What an element adds to the PE checksum's accumulator (RFC 5353 section 3.6.2 with
/// little-endian words, as rsplib on the usual machines).
pub(super) fn checksum_words(handle: &PoolHandle, id: u32) -> u32 {
    let words = |bytes: &[u8]| {
        bytes.chunks(2).fold(0u32, |sum, pair| {
            sum.wrapping_add(u32::from(u16::from_le_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        })
    };
    words(handle.as_bytes()).wrapping_add(words(&id.to_be_bytes()))
}

/// Folds and complements the accumulator.
pub(super) fn fold_checksum(sum: u32) -> [u8; 2] {
    let once = (sum >> 16) + (sum & 0xffff);
    let twice = (once >> 16) + (once & 0xffff);
    (!(twice as u16)).to_le_bytes()
}

/// At most so many events per second, with a second's worth of burst.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bucket {
    filled: Option<crate::machine::Time>,
    /// In millionths of an event.
    level: u64,
}

impl Bucket {
    /// Whether one more event is within the limit.
    pub(super) fn take(&mut self, now: crate::machine::Time, per_second: Option<u32>) -> bool {
        let Some(rate) = per_second else { return true };
        let full = u64::from(rate.max(1)) * 1_000_000;
        let gained = match self.filled {
            None => full,
            Some(filled) => now.0.saturating_sub(filled.0).saturating_mul(u64::from(rate)),
        };
        self.level = self.level.saturating_add(gained).min(full);
        self.filled = Some(now);
        let granted = self.level >= 1_000_000;
        if granted {
            self.level -= 1_000_000;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Time;

    #[test]
    fn a_bucket_gives_its_rate_and_no_more() {
        let mut bucket = Bucket::default();
        let start = Time(5_000_000);
        assert_eq!((0..100).filter(|_| bucket.take(start, Some(10))).count(), 10);
        let later = Time(start.0 + 500_000);
        assert_eq!((0..100).filter(|_| bucket.take(later, Some(10))).count(), 5);
        assert!((0..100).all(|_| bucket.take(later, None)));
    }

    #[test]
    fn checksum_vectors() {
        let of = |elements: &[(&str, u32)]| {
            fold_checksum(elements.iter().fold(0u32, |sum, (handle, id)| {
                let handle = PoolHandle::new(handle.as_bytes()).unwrap();
                sum.wrapping_add(checksum_words(&handle, *id))
            }))
        };
        assert_eq!(of(&[]), [0xff, 0xff]);
        assert_eq!(of(&[("EchoPool", 0xabcd1234)]), [0xd4, 0x4f]);
        assert_eq!(of(&[("EchoPool1", 0xabcd1234)]), [0xa3, 0x4f]);
        assert_eq!(of(&[("EchoPool1", 0xabcd1234), ("P2", 0xabcd5678)]), [0x50, 0xd7]);
    }
}
