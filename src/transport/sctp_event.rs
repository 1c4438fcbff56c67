//! SCTP's notifications (RFC 6458 section 6.1) as values.

use super::sctp_structs::{
    AssociationChange, NotificationHeader, OldPartialDelivery, PartialDelivery, PathChange, PeerShutdown,
    SendFailure,
};
use super::sctp_sys::unpack;
use super::structures::read;
use std::net::SocketAddr;

/// The kernel's number for an association. On a one-to-one or peeled-off socket 0 means "the one".
pub type AssociationId = i32;

/// What the kernel tells about an association.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SctpNotification {
    /// It is up (`SCTP_COMM_UP`).
    Up {
        /// Which.
        association: AssociationId,
        /// Streams that we may use, from 0.
        outgoing_streams: u16,
        /// Streams that the peer may use.
        incoming_streams: u16,
    },
    /// It broke: abort, or no answer for too long (`SCTP_COMM_LOST`).
    Lost {
        /// Which.
        association: AssociationId,
        /// The kernel's reason, an SCTP cause code or an `sctp_sn_error`.
        error: u16,
    },
    /// The peer has started it anew, having forgotten the old one (`SCTP_RESTART`).
    Restarted {
        /// Which.
        association: AssociationId,
    },
    /// It has ended in order (`SCTP_SHUTDOWN_COMP`).
    Ended {
        /// Which.
        association: AssociationId,
    },
    /// It did not come to be (`SCTP_CANT_STR_ASSOC`).
    NotStarted {
        /// Which.
        association: AssociationId,
        /// As for `Lost`.
        error: u16,
    },
    /// The peer sends nothing any more (`SCTP_SHUTDOWN_EVENT`).
    PeerShutdown {
        /// Which.
        association: AssociationId,
    },
    /// One of the peer's addresses has changed its state (`SCTP_PEER_ADDR_CHANGE`).
    Path {
        /// Which association.
        association: AssociationId,
        /// The address, if the kernel named one.
        address: Option<SocketAddr>,
        /// Its new state.
        state: PathState,
    },
    /// The rest of a message that was delivered in part will not come (`SCTP_PARTIAL_DELIVERY_EVENT`).
    PartialDeliveryAborted {
        /// Which.
        association: AssociationId,
        /// The message's stream.
        stream: u16,
    },
    /// A message was given up: its time to live was over, or the association ended (`SCTP_SEND_FAILED`).
    SendFailed {
        /// Which.
        association: AssociationId,
        /// The kernel's reason.
        error: u32,
    },
    /// Any other one, by its type.
    Other(u16),
}

/// State of one of the peer's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum PathState {
    Available,
    Unreachable,
    Removed,
    Added,
    MadePrimary,
    Confirmed,
    PotentiallyFailed,
    Other(i32),
}

const ASSOC_CHANGE: u16 = 0x8001;
const PEER_ADDR_CHANGE: u16 = 0x8002;
const SEND_FAILED: u16 = 0x8003;
const SHUTDOWN_EVENT: u16 = 0x8005;
const PARTIAL_DELIVERY_EVENT: u16 = 0x8006;

impl SctpNotification {
    /// Reads one, or the beginning of one; `None`: less than its fixed part.
    pub(crate) fn parse(bytes: &[u8]) -> Option<SctpNotification> {
        Some(match read::<NotificationHeader>(bytes)?.kind {
            ASSOC_CHANGE => SctpNotification::of_association(read(bytes)?),
            PEER_ADDR_CHANGE => SctpNotification::of_path(&read(bytes)?),
            SEND_FAILED => {
                let SendFailure { association, error, .. } = read(bytes)?;
                SctpNotification::SendFailed { association, error }
            }
            SHUTDOWN_EVENT => {
                let PeerShutdown { association, .. } = read(bytes)?;
                SctpNotification::PeerShutdown { association }
            }
            PARTIAL_DELIVERY_EVENT => {
                let OldPartialDelivery { association, .. } = read(bytes)?;
                let stream = read(bytes).map_or(0, |event: PartialDelivery| event.stream);
                let stream = u16::try_from(stream).unwrap_or(0);
                SctpNotification::PartialDeliveryAborted { association, stream }
            }
            other => SctpNotification::Other(other),
        })
    }

    fn of_association(change: AssociationChange) -> SctpNotification {
        let AssociationChange { association, error, outgoing_streams, incoming_streams, .. } = change;
        match change.state {
            0 => SctpNotification::Up { association, outgoing_streams, incoming_streams },
            1 => SctpNotification::Lost { association, error },
            2 => SctpNotification::Restarted { association },
            3 => SctpNotification::Ended { association },
            4 => SctpNotification::NotStarted { association, error },
            _ => SctpNotification::Other(ASSOC_CHANGE),
        }
    }

    fn of_path(change: &PathChange) -> SctpNotification {
        SctpNotification::Path {
            association: change.association,
            address: unpack(&change.address).map(|(address, _)| address),
            state: match change.state {
                0 => PathState::Available,
                1 => PathState::Unreachable,
                2 => PathState::Removed,
                3 => PathState::Added,
                4 => PathState::MadePrimary,
                5 => PathState::Confirmed,
                6 => PathState::PotentiallyFailed,
                other => PathState::Other(other),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sctp_sys::storage;
    use super::super::structures::bytes_of;
    use super::*;

    /// Native-endian layout as in `linux/sctp.h`.
    fn change(state: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        for short in [ASSOC_CHANGE, 0] {
            bytes.extend(short.to_ne_bytes());
        }
        bytes.extend(20_u32.to_ne_bytes());
        for short in [state, 6, 10, 11] {
            bytes.extend(short.to_ne_bytes());
        }
        bytes.extend(77_i32.to_ne_bytes());
        bytes
    }

    #[test]
    fn association_changes() {
        let association = 77;
        let up = SctpNotification::Up { association, outgoing_streams: 10, incoming_streams: 11 };
        for (state, expected) in [
            (0, up),
            (1, SctpNotification::Lost { association, error: 6 }),
            (2, SctpNotification::Restarted { association }),
            (3, SctpNotification::Ended { association }),
            (4, SctpNotification::NotStarted { association, error: 6 }),
            (5, SctpNotification::Other(ASSOC_CHANGE)),
        ] {
            assert_eq!(SctpNotification::parse(&change(state)), Some(expected));
        }
    }

    #[test]
    fn path_changes_carry_the_address() {
        let address: SocketAddr = "10.0.1.2:7".parse().unwrap();
        let mut bytes = PEER_ADDR_CHANGE.to_ne_bytes().to_vec();
        bytes.extend([0; 6]);
        bytes.extend(storage(Some(&address)));
        for number in [1_i32, 0, 5] {
            bytes.extend(number.to_ne_bytes());
        }
        let expected =
            SctpNotification::Path { association: 5, address: Some(address), state: PathState::Unreachable };
        assert_eq!(SctpNotification::parse(&bytes), Some(expected));
    }

    #[test]
    fn a_cut_off_one_is_refused_wherever_it_is_cut() {
        for whole in [change(0), change(1)] {
            for length in 0..whole.len() {
                assert_eq!(SctpNotification::parse(&whole[..length]), None, "{length}");
            }
        }
        let other = NotificationHeader { kind: 0x8009, flags: 0, length: 8 };
        let other = bytes_of(&other);
        assert_eq!(SctpNotification::parse(other), Some(SctpNotification::Other(0x8009)));
        assert_eq!(SctpNotification::parse(&other[..7]), None);
    }

    #[test]
    fn what_ends_early_is_told_by_kernels_old_and_new() {
        let event = PartialDelivery {
            kind: PARTIAL_DELIVERY_EVENT,
            flags: 0,
            length: 24,
            indication: 0,
            association: 7,
            stream: 3,
            sequence: 0,
        };
        let told = |stream| Some(SctpNotification::PartialDeliveryAborted { association: 7, stream });
        assert_eq!(SctpNotification::parse(bytes_of(&event)), told(3));
        assert_eq!(SctpNotification::parse(&bytes_of(&event)[..16]), told(0));
        assert_eq!(SctpNotification::parse(&bytes_of(&event)[..15]), None);
        let failed =
            SendFailure { kind: SEND_FAILED, flags: 0, length: 48, error: 5, info: [9; 32], association: 7 };
        let expected = SctpNotification::SendFailed { association: 7, error: 5 };
        assert_eq!(SctpNotification::parse(bytes_of(&failed)), Some(expected));
    }
}
