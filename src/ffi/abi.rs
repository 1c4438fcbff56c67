//! The structures of `rserpool.h`, laid out as rsplib's.

#![allow(non_camel_case_types)]

use libc::{c_char, c_int, c_uchar, c_uint, size_t, sockaddr};

/// A session's number on its descriptor, from 1. 0 stands for a connected descriptor's only session.
pub type rserpool_session_t = c_int;

/// A static registrar: one host, all its addresses.
#[repr(C)]
#[derive(Debug)]
pub struct rsp_registrar_info {
    /// Next registrar or NULL.
    pub rri_next: *mut rsp_registrar_info,
    /// Addresses one after the other without gaps: 16 bytes per IPv4, 28 per IPv6 address.
    pub rri_addr: *mut sockaddr,
    /// Number of addresses.
    pub rri_addrs: size_t,
}

/// Settings of the library; all 0 means defaults.
#[repr(C)]
#[derive(Debug)]
pub struct rsp_info {
    /// Out: RSPLIB_VERSION.
    pub ri_version: c_uint,
    /// Out: RSPLIB_REVISION.
    pub ri_revision: c_uint,
    /// Out: NULL.
    pub ri_build_date: *const c_char,
    /// Out: NULL.
    pub ri_build_time: *const c_char,

    /// Static registrars, tried first.
    pub ri_registrars: *mut rsp_registrar_info,

    /// Not 0: don't listen for registrars' multicast announcements.
    pub ri_disable_autoconfig: c_int,
    /// Group to listen to; NULL: ASAP_ANNOUNCE_MULTICAST_ADDRESS.
    pub ri_registrar_announce: *mut sockaddr,
    /// How long an announced registrar stays known, in milliseconds. Default 5000.
    pub ri_registrar_announce_timeout: c_uint,

    /// How long one connection attempt may take, in milliseconds. Default 7500.
    pub ri_registrar_connect_timeout: c_uint,
    /// Rounds of connection attempts per request. Default 1.
    pub ri_registrar_connect_max_trials: c_uint,
    /// How long sending a request may take, in milliseconds. Default 3000.
    pub ri_registrar_request_timeout: c_uint,
    /// How long to wait for each response, in milliseconds. Default 3000.
    pub ri_registrar_response_timeout: c_uint,
    /// Transmissions per request. Default 1.
    pub ri_registrar_request_max_trials: c_uint,

    /// Who we are in component status reports (CID_COMPOUND).
    pub ri_csp_identifier: u64,
    /// Where to send component status reports; NULL: nowhere.
    pub ri_csp_server: *mut sockaddr,
    /// How often to send them, in milliseconds; 0: never.
    pub ri_csp_interval: c_uint,
}

/// A pool member selection policy with this element's values.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct rsp_loadinfo {
    /// PPT_*.
    pub rli_policy: u32,
    /// Weight; for PPT_PRIORITY the priority (larger is preferred).
    pub rli_weight: u32,
    /// Weight distance penalty factor: fraction of 2^32-1 per millisecond.
    pub rli_weight_dpf: u32,
    /// Load: 0 is idle, 0xffffffff is 100 %.
    pub rli_load: u32,
    /// Load increment per selection, on the same scale.
    pub rli_load_degradation: u32,
    /// Load distance penalty factor: fraction of 2^32-1 per millisecond.
    pub rli_load_dpf: u32,
}

/// One pool element's transport address, as rsp_getaddrinfo returns it.
#[repr(C)]
#[derive(Debug)]
pub struct rsp_addrinfo {
    /// AF_INET6 if any address is IPv6, else AF_INET.
    pub ai_family: c_int,
    /// SOCK_STREAM for SCTP and TCP, else SOCK_DGRAM.
    pub ai_socktype: c_int,
    /// IPPROTO_*.
    pub ai_protocol: c_int,
    /// Always 28: the size of the largest address. An address's own size follows from its family.
    pub ai_addrlen: size_t,
    /// Number of addresses.
    pub ai_addrs: size_t,
    /// Addresses one after the other without gaps: 16 bytes per IPv4, 28 per IPv6 address.
    pub ai_addr: *mut sockaddr,
    /// Next element or NULL.
    pub ai_next: *mut rsp_addrinfo,
    /// The element's identifier.
    pub ai_pe_id: u32,
}

/// What rsp_recvmsg tells about a message.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct rsp_sndrcvinfo {
    /// Its session.
    pub rinfo_session: rserpool_session_t,
    /// Its payload protocol identifier, in network byte order.
    pub rinfo_ppid: u32,
    /// Which pool element sent it; 0 on an element's own descriptors.
    pub rinfo_pe_id: u32,
    /// Always 0.
    pub rinfo_timetolive: u32,
    /// Its stream.
    pub rinfo_stream: u16,
}

/// Notification: the session's pool element failed, or the session has moved to another one.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct rserpool_failover {
    /// RSERPOOL_FAILOVER.
    pub rf_type: u16,
    /// Always 0.
    pub rf_flags: u16,
    /// Always 20, the size of the union.
    pub rf_length: u32,
    /// RSERPOOL_FAILOVER_NECESSARY or RSERPOOL_FAILOVER_COMPLETE.
    pub rf_state: c_uint,
    /// Which session.
    pub rf_session: rserpool_session_t,
    /// 1 if a cookie is there to take the state along.
    pub rf_has_cookie: c_uchar,
}

/// Notification: a session came or went.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct rserpool_session_change {
    /// RSERPOOL_SESSION_CHANGE.
    pub rsc_type: u16,
    /// Always 0.
    pub rsc_flags: u16,
    /// Always 20, the size of the union.
    pub rsc_length: u32,
    /// RSERPOOL_SESSION_ADD or RSERPOOL_SESSION_REMOVE.
    pub rsc_state: c_uint,
    /// Which session.
    pub rsc_session: rserpool_session_t,
}

/// Notification: the peer shuts the session down.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct rserpool_shutdown_event {
    /// RSERPOOL_SHUTDOWN_EVENT.
    pub rse_type: u16,
    /// Always 0.
    pub rse_flags: u16,
    /// Always 20, the size of the union.
    pub rse_length: u32,
    /// Which session.
    pub rse_session: rserpool_session_t,
}

/// Notification: a message of rsp_sendto_pool did not arrive, or perhaps not (RFC 5352 section 6.7). Its first
/// portion, up to 1024 bytes, follows in the buffer as far as there is room.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct rserpool_send_failed {
    /// RSERPOOL_SEND_FAILED.
    pub rsf_type: u16,
    /// Always 0.
    pub rsf_flags: u16,
    /// Always 20, the size of the union.
    pub rsf_length: u32,
    /// RSERPOOL_SEND_UNREACHED or RSERPOOL_SEND_UNCERTAIN.
    pub rsf_state: c_uint,
    /// For which element it was; 0: for an address.
    pub rsf_pe_id: u32,
    /// How long the message was, in bytes.
    pub rsf_message_length: u32,
}

/// What all notifications begin with.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct rserpool_notification_header {
    /// RSERPOOL_*: which notification.
    pub rn_type: u16,
    /// Always 0.
    pub rn_flags: u16,
    /// Always 20, the size of the union.
    pub rn_length: u32,
}

/// A notification: rn_header.rn_type tells which.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(missing_docs, missing_debug_implementations)]
pub union rserpool_notification {
    pub rn_header: rserpool_notification_header,
    pub rn_failover: rserpool_failover,
    pub rn_session_change: rserpool_session_change,
    pub rn_shutdown_event: rserpool_shutdown_event,
    pub rn_send_failed: rserpool_send_failed,
}

/// SCTP parameters of the associations to be made; 0 means "leave as it is" on the way in.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct rserpool_session_parameters {
    /// Initial retransmission time-out, in milliseconds.
    pub sp_rto_initial: c_uint,
    /// Smallest retransmission time-out, in milliseconds.
    pub sp_rto_min: c_uint,
    /// Largest retransmission time-out, in milliseconds.
    pub sp_rto_max: c_uint,
    /// Retransmissions until the association is given up.
    pub sp_assoc_max_rxt: c_uint,
    /// Retransmissions until a path is given up.
    pub sp_path_max_rxt: c_uint,
    /// Heartbeat interval, in milliseconds.
    pub sp_hbinterval: c_uint,
}

/// Size of every notification.
pub(super) const NOTIFICATION_SIZE: usize = size_of::<rserpool_notification>();
// What a receive leaves room for.
const _: () = assert!(NOTIFICATION_SIZE == crate::socket::NOTIFICATION_ROOM);

/// Holds a structure to its size, alignment and offsets. The C test `tests/c/layout.c` says the same.
macro_rules! layout {
    ($type:ty, $size:literal, $align:literal, { $($field:ident: $offset:literal),* $(,)? }) => {
        #[cfg(all(target_pointer_width = "64", target_os = "linux"))]
        const _: () = {
            assert!(size_of::<$type>() == $size);
            assert!(align_of::<$type>() == $align);
            $(assert!(std::mem::offset_of!($type, $field) == $offset);)*
        };
    };
}
pub(super) use layout;

layout!(rsp_registrar_info, 24, 8, { rri_next: 0, rri_addr: 8, rri_addrs: 16 });
layout!(rsp_info, 96, 8, {
    ri_version: 0, ri_revision: 4, ri_build_date: 8, ri_build_time: 16, ri_registrars: 24,
    ri_disable_autoconfig: 32, ri_registrar_announce: 40, ri_registrar_announce_timeout: 48,
    ri_registrar_connect_timeout: 52, ri_registrar_connect_max_trials: 56,
    ri_registrar_request_timeout: 60, ri_registrar_response_timeout: 64,
    ri_registrar_request_max_trials: 68, ri_csp_identifier: 72, ri_csp_server: 80, ri_csp_interval: 88,
});
layout!(rsp_loadinfo, 24, 4, {
    rli_policy: 0, rli_weight: 4, rli_weight_dpf: 8, rli_load: 12, rli_load_degradation: 16,
    rli_load_dpf: 20,
});
layout!(rsp_addrinfo, 56, 8, {
    ai_family: 0, ai_socktype: 4, ai_protocol: 8, ai_addrlen: 16, ai_addrs: 24, ai_addr: 32,
    ai_next: 40, ai_pe_id: 48,
});
layout!(rsp_sndrcvinfo, 20, 4, {
    rinfo_session: 0, rinfo_ppid: 4, rinfo_pe_id: 8, rinfo_timetolive: 12, rinfo_stream: 16,
});
layout!(rserpool_failover, 20, 4, {
    rf_type: 0, rf_flags: 2, rf_length: 4, rf_state: 8, rf_session: 12, rf_has_cookie: 16,
});
layout!(rserpool_session_change, 16, 4, {
    rsc_type: 0, rsc_flags: 2, rsc_length: 4, rsc_state: 8, rsc_session: 12,
});
layout!(rserpool_shutdown_event, 12, 4, { rse_type: 0, rse_flags: 2, rse_length: 4, rse_session: 8 });
layout!(rserpool_send_failed, 20, 4, {
    rsf_type: 0, rsf_flags: 2, rsf_length: 4, rsf_state: 8, rsf_pe_id: 12, rsf_message_length: 16,
});
layout!(rserpool_notification_header, 8, 4, { rn_type: 0, rn_flags: 2, rn_length: 4 });
layout!(rserpool_notification, 20, 4, {
    rn_header: 0, rn_failover: 0, rn_session_change: 0, rn_shutdown_event: 0, rn_send_failed: 0,
});
layout!(rserpool_session_parameters, 24, 4, {
    sp_rto_initial: 0, sp_rto_min: 4, sp_rto_max: 8, sp_assoc_max_rxt: 12, sp_path_max_rxt: 16,
    sp_hbinterval: 20,
});
