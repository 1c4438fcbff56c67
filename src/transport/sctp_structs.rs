//! The structures of `linux/sctp.h` that travel through socket options, and those of notifications, field by field. The
//! kernel packs those that hold an address.

use super::structures::structures;

/// `sctp_assoc_t`.
type AssociationNumber = i32;

/// Size of a `sockaddr_storage`, which has alignment 4 inside SCTP's structures.
pub(super) const STORAGE: usize = 128;
/// A `sockaddr_storage`.
pub(super) type Storage = [u8; STORAGE];

structures! {
    /// `struct sctp_paddrparams`.
    PathParameters: 156 {
        association: AssociationNumber,
        address: Storage,
        hb_interval: u32,
        path_max_rxt: u16,
        path_mtu: u32,
        sack_delay: u32,
        flags: u32,
        flow_label: u32,
        dscp: u8,
        gap: u8,
    }
    /// `struct sctp_rtoinfo`; milliseconds.
    RtoInfo: 16 {
        association: AssociationNumber,
        initial: u32,
        max: u32,
        min: u32,
    }
    /// `struct sctp_assocparams`.
    AssociationParameters: 20 {
        association: AssociationNumber,
        max_rxt: u16,
        peer_destinations: u16,
        peer_window: u32,
        local_window: u32,
        cookie_life: u32,
    }
    /// `struct sctp_initmsg`.
    InitMessage: 8 {
        streams: u16,
        max_incoming_streams: u16,
        attempts: u16,
        longest: u16,
    }
    /// `struct sctp_sack_info`.
    SackInfo: 12 {
        association: AssociationNumber,
        delay: u32,
        frequency: u32,
    }
    /// `struct sctp_prim`.
    Primary: 132 {
        association: AssociationNumber,
        address: Storage,
    }
    /// `struct sctp_getaddrs`, behind which the addresses stand.
    AddressList: 8 {
        association: AssociationNumber,
        count: u32,
    }
    /// `sctp_peeloff_flags_arg_t`.
    PeelOff: 12 {
        association: AssociationNumber,
        descriptor: i32,
        flags: i32,
    }
    /// `struct sctp_paddrinfo`.
    PathInfo: 152 {
        association: AssociationNumber,
        address: Storage,
        state: i32,
        congestion_window: u32,
        srtt: u32,
        rto: u32,
        mtu: u32,
    }
    /// `struct sctp_status` with the `struct sctp_paddrinfo` of the primary path.
    Status: 176 {
        association: AssociationNumber,
        state: i32,
        window: u32,
        unacknowledged: u16,
        pending: u16,
        incoming_streams: u16,
        outgoing_streams: u16,
        fragmentation_point: u32,
        primary_association: AssociationNumber,
        primary_address: Storage,
        primary_state: i32,
        congestion_window: u32,
        srtt: u32,
        rto: u32,
        mtu: u32,
    }
    /// `struct sctp_assoc_stats`: counters since they were last read, chunks and packets.
    Statistics: 256 {
        association: AssociationNumber,
        gap: u32,
        max_rto_address: Storage,
        max_rto: u64,
        sacks_in: u64,
        sacks_out: u64,
        packets_out: u64,
        packets_in: u64,
        retransmitted: u64,
        out_of_sequence: u64,
        duplicates: u64,
        gaps: u64,
        unordered_out: u64,
        unordered_in: u64,
        ordered_out: u64,
        ordered_in: u64,
        control_out: u64,
        control_in: u64,
    }
    /// What every notification begins with: its type, flags and length.
    NotificationHeader: 8 {
        kind: u16,
        flags: u16,
        length: u32,
    }
    /// `struct sctp_assoc_change`, without what the peer said.
    AssociationChange: 20 {
        kind: u16,
        flags: u16,
        length: u32,
        state: u16,
        error: u16,
        outgoing_streams: u16,
        incoming_streams: u16,
        association: AssociationNumber,
    }
    /// `struct sctp_paddr_change`.
    PathChange: 148 {
        kind: u16,
        flags: u16,
        length: u32,
        address: Storage,
        state: i32,
        error: i32,
        association: AssociationNumber,
    }
    /// `struct sctp_send_failed`, without the message.
    SendFailure: 48 {
        kind: u16,
        flags: u16,
        length: u32,
        error: u32,
        // `struct sctp_sndrcvinfo`.
        info: [u8; 32],
        association: AssociationNumber,
    }
    /// `struct sctp_shutdown_event`.
    PeerShutdown: 12 {
        kind: u16,
        flags: u16,
        length: u32,
        association: AssociationNumber,
    }
    /// `struct sctp_pdapi_event` as kernels before 4.16 have it.
    OldPartialDelivery: 16 {
        kind: u16,
        flags: u16,
        length: u32,
        indication: u32,
        association: AssociationNumber,
    }
    /// `struct sctp_pdapi_event`.
    PartialDelivery: 24 {
        kind: u16,
        flags: u16,
        length: u32,
        indication: u32,
        association: AssociationNumber,
        stream: u32,
        sequence: u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn fields_lie_where_the_kernel_has_them() {
        assert_eq!(offset_of!(PathParameters, hb_interval), 132);
        assert_eq!(offset_of!(PathParameters, path_max_rxt), 136);
        assert_eq!(offset_of!(PathParameters, flags), 146);
        assert_eq!(offset_of!(AssociationParameters, max_rxt), 4);
        assert_eq!(offset_of!(Status, unacknowledged), 12);
        assert_eq!(offset_of!(Status, incoming_streams), 16);
        assert_eq!(offset_of!(Status, outgoing_streams), 18);
        assert_eq!(offset_of!(Status, primary_state), 156);
        assert_eq!(offset_of!(Status, srtt), 164);
        assert_eq!(offset_of!(Statistics, retransmitted), 176);
        assert_eq!(offset_of!(Statistics, duplicates), 192);
        assert_eq!(offset_of!(AssociationChange, association), 16);
        assert_eq!(offset_of!(PathChange, state), 136);
        assert_eq!(offset_of!(SendFailure, association), 44);
        assert_eq!(offset_of!(PartialDelivery, association), offset_of!(OldPartialDelivery, association));
        assert_eq!(offset_of!(PartialDelivery, stream), 16);
    }
}
