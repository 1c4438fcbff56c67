/* Reliable Server Pooling (RFC 5351-5356), classic RSerPool socket API. SPDX-License-Identifier: Apache-2.0 OR MIT
 * Made by cbindgen from src/ffi; `RSP_BLESS=1 cargo test --test header` writes it anew. */

#ifndef RSERPOOL_H
#define RSERPOOL_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <netdb.h>
#include <sys/types.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <poll.h>
#include "rserpool-policytypes.h"
#include "rserpool-csp.h"

/* Of the library that these headers belong to; rsp_version tells that of the library that runs. The classic API's
 * RSPLIB_VERSION and RSPLIB_REVISION stay what rsplib's programs expect. */
#define RSERPOOL_VERSION "0.1.0"
#define RSERPOOL_VERSION_MAJOR 0
#define RSERPOOL_VERSION_MINOR 1
#define RSERPOOL_VERSION_PATCH 0
/* For #if: 0.1.0 is */
#define RSERPOOL_VERSION_NUMBER 0x000100

/* Multicast groups in which registrars announce themselves. */
#define ASAP_ANNOUNCE_MULTICAST_ADDRESS "239.0.0.50:3863"
#define ENRP_ANNOUNCE_MULTICAST_ADDRESS "239.0.0.51:9901"

/* How many elements rsp_getaddrinfo shall return. MAX is as many as possible, which is 128. */
#define RSPGETADDRS_MIN ((size_t)1)
#define RSPGETADDRS_DEFAULT ((size_t)0)
#define RSPGETADDRS_MAX ((size_t)0xffffffff)
/* Not in rsplib: all of the pool's elements, as many as one answer of 64 KiB holds (some 600 to 1000). */
#define RSPGETADDRS_ALL ((size_t)0x7fffffff)

#define RSPLIB_VERSION 2
#define RSPLIB_REVISION 3

/* Port of ASAP, between registrars and everyone. */
#define ASAP_PORT 3863

/* Port of ENRP, between registrars. */
#define ENRP_PORT 9901

/* Flags of rsp_register and rsp_pe_registration.
 * Don't wait for the registrar's answer. */
#define REGF_DONTWAIT 1

/* The element understands the ASAP control channel (sessions with cookies). */
#define REGF_CONTROLCHANNEL 2

/* Register even if there is no usable local address yet. */
#define REGF_DAEMONMODE 4

/* Flag of rsp_deregister and rsp_pe_deregistration: don't wait for the registrar's answer. */
#define DEREGF_DONTWAIT 1

/* Flags of rsp_forcefailover. */
#define FFF_NONE 0

/* Report the element as unreachable. */
#define FFF_UNREACHABLE 1

/* Flags out of rsp_recvmsg: the buffer holds a notification. */
#define MSG_RSERPOOL_NOTIFICATION 1

/* The buffer holds the cookie of a session that came over from another element. */
#define MSG_RSERPOOL_COOKIE_ECHO 2

/* Types of notification. */
#define RSERPOOL_SESSION_CHANGE 1
#define RSERPOOL_FAILOVER 2
#define RSERPOOL_SHUTDOWN_EVENT 3

/* Not in rsplib: only who calls rsp_sendto_pool gets it. */
#define RSERPOOL_SEND_FAILED 4
#define RSERPOOL_FAILOVER_NECESSARY 1
#define RSERPOOL_FAILOVER_COMPLETE 2
#define RSERPOOL_SESSION_ADD 1
#define RSERPOOL_SESSION_REMOVE 2

/* The element could not be reached. */
#define RSERPOOL_SEND_UNREACHED 1

/* The connection broke before the element sent anything back: it may have got the message. */
#define RSERPOOL_SEND_UNCERTAIN 2

/* Options of rsp_sendto_pool (RFC 5352 section 6.5.5).
 * To whom the policy chooses, and to another element if that one can't be reached; to a certain element only. */
#define ASAP_USE_DEFAULT 0

/* To another element if the first one can't be reached. */
#define ASAP_SEND_FAILOVER 1

/* To no other element if the first one can't be reached. */
#define ASAP_SEND_NO_FAILOVER 2

/* To whom the last message to this pool went. */
#define ASAP_SEND_TO_LAST 4

/* A copy to each of the pool's elements, but not to the descriptor's own. */
#define ASAP_SEND_TO_ALL 8

/* With ASAP_SEND_TO_ALL: to the descriptor's own element as well. */
#define ASAP_SEND_TO_SELF 16

/* The message may overtake others (SCTP). */
#define ASAP_SCTP_UNORDER 4096

/* rsplib's limit of sessions per descriptor. Kept for programs that size tables by it; not a limit here. */
#define SESSION_SETSIZE 16384

/* Errors of rsp_getaddrinfo: unknown pool, or an empty one. */
#define REAI_NONAME (-1)
#define REAI_MEMORY (-2)

/* See errno. */
#define REAI_SYSTEM (-3)
#define REAI_FAMILY (-4)

/* Results of rsp_pe_registration, rsp_pe_deregistration and rsp_pe_failure. */
#define RSPERR_OKAY 0x0000
#define RSPERR_UNRECOGNIZED_PARAMETER 0x0001
#define RSPERR_UNRECOGNIZED_MESSAGE 0x0002
#define RSPERR_INVALID_TLV 0x0003
#define RSPERR_INCOMPATIBLE_POOL_POLICY 0x0005
#define RSPERR_OUT_OF_MEMORY 0x0006
#define RSPERR_WRONG_CONTROLCHANNEL_HANDLING 0x0008
#define RSPERR_NOT_FOUND 0x0009
#define RSPERR_INVALID_MESSAGE 0x0010
#define RSPERR_INVALID_VALUE 0x0011
#define RSPERR_NOT_INITIALIZED 0x1000
#define RSPERR_BUFFERSIZE_EXCEEDED 0x1001
#define RSPERR_READ_ERROR 0x1003
#define RSPERR_WRITE_ERROR 0x1004
#define RSPERR_CONNECTION_FAILURE_SOCKET 0x1005
#define RSPERR_CONNECTION_FAILURE_CONNECT 0x1006
#define RSPERR_NO_REGISTRAR 0x1007
#define RSPERR_TIMEOUT 0x1008
#define RSPERR_UNRECOGNIZED_PARAMETER_SILENT 0x1009
#define RSPERR_WRONG_PROTOCOL 0x100a
#define RSPERR_UNSUPPORTED_POOL_POLICY 0x100b
#define RSPERR_INVALID_ID 0xf000
#define RSPERR_OWN_ID 0xf001
#define RSPERR_DUPLICATE_ID 0xf002
#define RSPERR_INVALID_POOL_POLICY 0xf003
#define RSPERR_INVALID_POOL_HANDLE 0xf004
#define RSPERR_INVALID_ADDRESSES 0xf005
#define RSPERR_INVALID_REGISTRATOR 0xf006
#define RSPERR_NO_USABLE_ASAP_ADDRESSES 0xf007
#define RSPERR_NO_USABLE_USER_ADDRESSES 0xf008

/* A static registrar: one host, all its addresses. */
struct rsp_registrar_info {
    /* Next registrar or NULL. */
    struct rsp_registrar_info *rri_next;
    /* Addresses one after the other without gaps: 16 bytes per IPv4, 28 per IPv6 address. */
    struct sockaddr *rri_addr;
    /* Number of addresses. */
    size_t rri_addrs;
};

/* Settings of the library; all 0 means defaults. */
struct rsp_info {
    /* Out: RSPLIB_VERSION. */
    unsigned int ri_version;
    /* Out: RSPLIB_REVISION. */
    unsigned int ri_revision;
    /* Out: NULL. */
    const char *ri_build_date;
    /* Out: NULL. */
    const char *ri_build_time;
    /* Static registrars, tried first. */
    struct rsp_registrar_info *ri_registrars;
    /* Not 0: don't listen for registrars' multicast announcements. */
    int ri_disable_autoconfig;
    /* Group to listen to; NULL: ASAP_ANNOUNCE_MULTICAST_ADDRESS. */
    struct sockaddr *ri_registrar_announce;
    /* How long an announced registrar stays known, in milliseconds. Default 5000. */
    unsigned int ri_registrar_announce_timeout;
    /* How long one connection attempt may take, in milliseconds. Default 7500. */
    unsigned int ri_registrar_connect_timeout;
    /* Rounds of connection attempts per request. Default 1. */
    unsigned int ri_registrar_connect_max_trials;
    /* How long sending a request may take, in milliseconds. Default 3000. */
    unsigned int ri_registrar_request_timeout;
    /* How long to wait for each response, in milliseconds. Default 3000. */
    unsigned int ri_registrar_response_timeout;
    /* Transmissions per request. Default 1. */
    unsigned int ri_registrar_request_max_trials;
    /* Who we are in component status reports (CID_COMPOUND). */
    uint64_t ri_csp_identifier;
    /* Where to send component status reports; NULL: nowhere. */
    struct sockaddr *ri_csp_server;
    /* How often to send them, in milliseconds; 0: never. */
    unsigned int ri_csp_interval;
};

/* One pool element's transport address, as rsp_getaddrinfo returns it. */
struct rsp_addrinfo {
    /* AF_INET6 if any address is IPv6, else AF_INET. */
    int ai_family;
    /* SOCK_STREAM for SCTP and TCP, else SOCK_DGRAM. */
    int ai_socktype;
    /* IPPROTO_*. */
    int ai_protocol;
    /* Always 28: the size of the largest address. An address's own size follows from its family. */
    size_t ai_addrlen;
    /* Number of addresses. */
    size_t ai_addrs;
    /* Addresses one after the other without gaps: 16 bytes per IPv4, 28 per IPv6 address. */
    struct sockaddr *ai_addr;
    /* Next element or NULL. */
    struct rsp_addrinfo *ai_next;
    /* The element's identifier. */
    uint32_t ai_pe_id;
};

/* A pool member selection policy with this element's values. */
struct rsp_loadinfo {
    /* PPT_*. */
    uint32_t rli_policy;
    /* Weight; for PPT_PRIORITY the priority (larger is preferred). */
    uint32_t rli_weight;
    /* Weight distance penalty factor: fraction of 2^32-1 per millisecond. */
    uint32_t rli_weight_dpf;
    /* Load: 0 is idle, 0xffffffff is 100 %. */
    uint32_t rli_load;
    /* Load increment per selection, on the same scale. */
    uint32_t rli_load_degradation;
    /* Load distance penalty factor: fraction of 2^32-1 per millisecond. */
    uint32_t rli_load_dpf;
};

/* SCTP parameters of the associations to be made; 0 means "leave as it is" on the way in. */
struct rserpool_session_parameters {
    /* Initial retransmission time-out, in milliseconds. */
    unsigned int sp_rto_initial;
    /* Smallest retransmission time-out, in milliseconds. */
    unsigned int sp_rto_min;
    /* Largest retransmission time-out, in milliseconds. */
    unsigned int sp_rto_max;
    /* Retransmissions until the association is given up. */
    unsigned int sp_assoc_max_rxt;
    /* Retransmissions until a path is given up. */
    unsigned int sp_path_max_rxt;
    /* Heartbeat interval, in milliseconds. */
    unsigned int sp_hbinterval;
};

/* A session's number on its descriptor, from 1. 0 stands for a connected descriptor's only session. */
typedef int rserpool_session_t;

/* What rsp_recvmsg tells about a message. */
struct rsp_sndrcvinfo {
    /* Its session. */
    rserpool_session_t rinfo_session;
    /* Its payload protocol identifier, in network byte order. */
    uint32_t rinfo_ppid;
    /* Which pool element sent it; 0 on an element's own descriptors. */
    uint32_t rinfo_pe_id;
    /* Always 0. */
    uint32_t rinfo_timetolive;
    /* Its stream. */
    uint16_t rinfo_stream;
};

/* What all notifications begin with. */
struct rserpool_notification_header {
    /* RSERPOOL_*: which notification. */
    uint16_t rn_type;
    /* Always 0. */
    uint16_t rn_flags;
    /* Always 20, the size of the union. */
    uint32_t rn_length;
};

/* Notification: the session's pool element failed, or the session has moved to another one. */
struct rserpool_failover {
    /* RSERPOOL_FAILOVER. */
    uint16_t rf_type;
    /* Always 0. */
    uint16_t rf_flags;
    /* Always 20, the size of the union. */
    uint32_t rf_length;
    /* RSERPOOL_FAILOVER_NECESSARY or RSERPOOL_FAILOVER_COMPLETE. */
    unsigned int rf_state;
    /* Which session. */
    rserpool_session_t rf_session;
    /* 1 if a cookie is there to take the state along. */
    unsigned char rf_has_cookie;
};

/* Notification: a session came or went. */
struct rserpool_session_change {
    /* RSERPOOL_SESSION_CHANGE. */
    uint16_t rsc_type;
    /* Always 0. */
    uint16_t rsc_flags;
    /* Always 20, the size of the union. */
    uint32_t rsc_length;
    /* RSERPOOL_SESSION_ADD or RSERPOOL_SESSION_REMOVE. */
    unsigned int rsc_state;
    /* Which session. */
    rserpool_session_t rsc_session;
};

/* Notification: the peer shuts the session down. */
struct rserpool_shutdown_event {
    /* RSERPOOL_SHUTDOWN_EVENT. */
    uint16_t rse_type;
    /* Always 0. */
    uint16_t rse_flags;
    /* Always 20, the size of the union. */
    uint32_t rse_length;
    /* Which session. */
    rserpool_session_t rse_session;
};

/* Notification: a message of rsp_sendto_pool did not arrive, or perhaps not (RFC 5352 section 6.7). Its first
 * portion, up to 1024 bytes, follows in the buffer as far as there is room. */
struct rserpool_send_failed {
    /* RSERPOOL_SEND_FAILED. */
    uint16_t rsf_type;
    /* Always 0. */
    uint16_t rsf_flags;
    /* Always 20, the size of the union. */
    uint32_t rsf_length;
    /* RSERPOOL_SEND_UNREACHED or RSERPOOL_SEND_UNCERTAIN. */
    unsigned int rsf_state;
    /* For which element it was; 0: for an address. */
    uint32_t rsf_pe_id;
    /* How long the message was, in bytes. */
    uint32_t rsf_message_length;
};

/* A notification: rn_header.rn_type tells which. */
union rserpool_notification {
    struct rserpool_notification_header rn_header;
    struct rserpool_failover rn_failover;
    struct rserpool_session_change rn_session_change;
    struct rserpool_shutdown_event rn_shutdown_event;
    struct rserpool_send_failed rn_send_failed;
};

/* What the library did since the process began; counters never go back. Later versions add members at the end. */
struct rsp_counters {
    /* Resolutions answered from the cache. */
    uint64_t rc_cache_hits;
    /* Resolutions for which a registrar was asked. */
    uint64_t rc_cache_misses;
    /* Questions about pools that a registrar answered ... */
    uint64_t rc_resolutions;
    /* ... and those that got no answer. */
    uint64_t rc_resolutions_failed;
    /* Registrations granted, but for those of elements that had been registered before ... */
    uint64_t rc_registrations;
    /* ... which are here, as when their life is renewed or their home registrar is another ... */
    uint64_t rc_reregistrations;
    /* ... and those refused, or without an answer. */
    uint64_t rc_registrations_failed;
    /* Deregistrations confirmed. */
    uint64_t rc_deregistrations;
    /* Keep-alives answered, one for each element. */
    uint64_t rc_keepalives;
    /* Registrars that became the home registrar ... */
    uint64_t rc_registrars_found;
    /* ... and how often it was lost. */
    uint64_t rc_registrars_lost;
    /* Elements reported as unreachable. */
    uint64_t rc_reports;
    /* Sessions connected to an element, as users. */
    uint64_t rc_sessions_connected;
    /* Sessions accepted, as an element. */
    uint64_t rc_sessions_accepted;
    /* Sessions that moved to another element. */
    uint64_t rc_failovers;
    /* Elements that could not be connected to. */
    uint64_t rc_connects_failed;
    /* Connections to our elements that were refused, or dropped before they were sessions. */
    uint64_t rc_connections_refused;
    /* Bytes acknowledged by peers of sessions over TCP, framing and TLS included ... */
    uint64_t rc_bytes_sent;
    /* ... and received from them. */
    uint64_t rc_bytes_received;
};

#ifdef __cplusplus
extern "C" {
#endif

/* Fills in what the environment says (CSP_SERVER, CSP_INTERVAL); all else becomes 0, which means
 * defaults. Call it before rsp_initarg. NULL: nothing. */
void rsp_initinfo(struct rsp_info *info);

/* Frees what rsp_initarg and rsp_initinfo allocated: the list of registrars (also if the program made it,
 * with malloc) and addresses. NULL: nothing. */
void rsp_freeinfo(struct rsp_info *info);

/* Takes one command line argument: 1 if it is one of the library's (-registrar=, -registrar...timeout=,
 * -registrar...maxtrials=, -asapannounce=, -csp...=, -log...=, -transport=), else 0, also when its value
 * makes no sense (then a line on standard error says so). */
int rsp_initarg(struct rsp_info *info,
                const char *arg);

/* The version of the library that runs, as text: "0.1.0". Works at any time. RSERPOOL_VERSION is that of the headers. */
const char *rsp_version(void);

/* Starts the library with these settings; NULL: defaults. Environment variables RSP_* stand in for what
 * is not set. Returns 0, also if it runs already (the settings are not used then).
 * -1: EINVAL, EAFNOSUPPORT, EFAULT (bad settings), EAGAIN (no thread), EMFILE, ENFILE, ENOMEM.
 * RFC 5352 section 3.6. */
int rsp_initialize(struct rsp_info *info);

/* Closes every descriptor, deregisters every pool element, ends the library. Does nothing if it
 * doesn't run. The library can be initialised again. In a signal handler that interrupted a call of this library it
 * does nothing. */
void rsp_cleanup(void);

/* Resolves a pool handle (1 to 65000 bytes) to up to `items` elements (1 to 128, RSPGETADDRS_*), chosen by the
 * pool's policy. staleCacheValue: how old, in milliseconds, what is known about the pool may be. Returns
 * their number and a list to be freed with rsp_freeaddrinfo, else REAI_NONAME (no such pool, or an empty
 * one), REAI_MEMORY, or REAI_SYSTEM (errno: EACCES not initialised, EIO no registrar or no answer, ENOBUFS too
 * many requests wait, EINVAL, ENAMETOOLONG, EFAULT). RFC 5352 section 3.3. */
int rsp_getaddrinfo(const unsigned char *poolHandle,
                    size_t poolHandleSize,
                    struct rsp_addrinfo **addrinfo,
                    size_t items,
                    unsigned int staleCacheValue);

/* Frees what rsp_getaddrinfo gave. NULL is fine. */
void rsp_freeaddrinfo(struct rsp_addrinfo *addrinfo);

/* Registers a pool element and keeps it registered: addrinfo describes its one transport (ai_next is not
 * used); ai_pe_id 0 is replaced by a random identifier. registrationLife: milliseconds. flags: REGF_*.
 * Returns RSPERR_OKAY, the registrar's refusal, or RSPERR_NO_REGISTRAR, RSPERR_TIMEOUT,
 * RSPERR_OUT_OF_MEMORY (too many requests wait), RSPERR_NOT_INITIALIZED, RSPERR_INVALID_POOL_HANDLE,
 * RSPERR_INVALID_VALUE, RSPERR_INVALID_ADDRESSES, RSPERR_WRONG_PROTOCOL, RSPERR_UNSUPPORTED_POOL_POLICY.
 * Without an answer, or if refused, it is tried again. RFC 5352 section 3.1. */
unsigned int rsp_pe_registration(const unsigned char *poolHandle,
                                 size_t poolHandleSize,
                                 struct rsp_addrinfo *addrinfo,
                                 const struct rsp_loadinfo *loadinfo,
                                 unsigned int registrationLife,
                                 int flags);

/* Takes an element of rsp_pe_registration out of its pool. flags: DEREGF_*. Returns RSPERR_OKAY,
 * RSPERR_NOT_FOUND (none of ours), RSPERR_NO_REGISTRAR, RSPERR_TIMEOUT, RSPERR_NOT_INITIALIZED,
 * RSPERR_INVALID_POOL_HANDLE. RFC 5352 section 3.2. */
unsigned int rsp_pe_deregistration(const unsigned char *poolHandle,
                                   size_t poolHandleSize,
                                   uint32_t identifier,
                                   int flags);

/* Reports an element that does not answer: to the registrar, and it is not chosen again until it is
 * heard of anew. Doesn't wait. Returns RSPERR_OKAY, RSPERR_NOT_INITIALIZED, RSPERR_INVALID_POOL_HANDLE.
 * RFC 5352 section 3.5. */
unsigned int rsp_pe_failure(const unsigned char *poolHandle,
                            size_t poolHandleSize,
                            uint32_t identifier);

/* The name of a policy type (PPT_*, RFC 5356); NULL if there is no such policy. Works at any time. */
const char *rsp_getpolicybytype(unsigned int policyType);

/* The policy type (PPT_*) of a name, upper and lower case mattering; PPT_UNDEFINED if there is no such
 * policy. Works at any time. */
unsigned int rsp_getpolicybyname(const char *policyName);

/* Makes a descriptor. It is a real file descriptor that poll(2), select(2) and epoll(7) report as
 * readable when rsp_recvmsg or rsp_accept has something.
 *
 * domain: AF_INET, AF_INET6, or 0 for either. type: SOCK_STREAM (one session, no notifications) or
 * SOCK_SEQPACKET, with SOCK_NONBLOCK: as if O_NONBLOCK were set later. protocol: IPPROTO_SCTP; where the kernel has no SCTP, sessions run over TCP, unless
 * -transport=sctp or RSP_TRANSPORT=sctp. IPPROTO_TCP: TCP only.
 * -1: EACCES (not initialised), EPROTONOSUPPORT, EAFNOSUPPORT, EMFILE, ENFILE, ENOMEM. */
int rsp_socket(int domain,
               int type,
               int protocol);

/* Changes the SCTP parameters of the descriptor's associations, those it has and those it will have (over
 * TCP, what comes nearest): fields that are not 0 are taken over, those that are 0 are filled in.
 * -1: EBADF, EFAULT. */
int rsp_update_session_parameters(int sd,
                                  struct rserpool_session_parameters *params);

/* Binds to addresses (up to 128) that lie one after the other without gaps; addrcnt 0 or less: to any
 * address. Port 0 in the first one: a free port. -1: EBADF, EFAULT, EINVAL (bound or in use already, too
 * many), EAFNOSUPPORT, EADDRINUSE, EADDRNOTAVAIL, EACCES, EMFILE, ENFILE, ENOMEM. */
int rsp_bind(int sd,
             const struct sockaddr *addrs,
             int addrcnt);

/* Lets others connect; may be repeated to change the backlog. Binds to any address if need be.
 * -1: EBADF, EINVAL (connected), EADDRINUSE, EMFILE, ENFILE, ENOMEM. */
int rsp_listen(int sd, int backlog);

/* The pool handle and identifier under which the descriptor is registered. handleSize is the buffer's
 * size on the way in and the handle's on the way out; either pointer may be NULL.
 * -1: EBADF (also: not registered), ENOBUFS. */
int rsp_getsockname(int sd, unsigned char *handle, size_t *handleSize, uint32_t *identifier);

/* The pool handle and identifier of the element that the descriptor's session is with; an accepted
 * session has none: size and identifier 0. -1: EBADF (also: no connected session), ENOBUFS. */
int rsp_getpeername(int sd, unsigned char *handle, size_t *handleSize, uint32_t *identifier);

/* Closes a descriptor: deregisters its pool element, ends its sessions, wakes calls that are blocked on
 * it with EBADF. A mapped descriptor's system descriptor is closed too. -1: EBADF, EDEADLK (in a signal handler that
 * interrupted a call of this library). */
int rsp_close(int sd);

/* getsockopt(2) on the system socket in use. -1: EBADF, ENOTCONN (none in use), ENOTSOCK, EFAULT, EINVAL,
 * ENOPROTOOPT, EOPNOTSUPP (another protocol's option), EMFILE, ENFILE, ENOMEM. */
int rsp_getsockopt(int sd,
                   int level,
                   int optname,
                   void *optval,
                   socklen_t *optlen);

/* setsockopt(2) on the system socket in use. -1: EBADF, ENOTCONN (none in use), ENOTSOCK, EFAULT, EINVAL,
 * ENOPROTOOPT, EOPNOTSUPP (SO_RCVTIMEO, SO_SNDTIMEO: each call has its own time-out), EMFILE, ENFILE, ENOMEM. */
int rsp_setsockopt(int sd,
                   int level,
                   int optname,
                   const void *optval,
                   socklen_t optlen);

/* Gives a system descriptor a number that rsp_poll, rsp_read and rsp_write take; toSD: which one, or -1
 * for its own. Returns the number. -1: EACCES (not initialised), EINVAL (negative, or one of ours), EMFILE
 * (the number is in use). */
int rsp_mapsocket(int sd,
                  int toSD);

/* Ends a mapping; the system descriptor stays open. -1: EBADF (no mapping). */
int rsp_unmapsocket(int sd);

/* poll(2) over RSerPool, mapped and ordinary descriptors; timeout: milliseconds, -1: for ever. A
 * descriptor that is none gets POLLNVAL. -1: EACCES (not initialised), EFAULT, EINVAL (past the limit
 * of open files; POLLIN and POLLOUT count twice), EINTR, ENOMEM. */
int rsp_poll(struct pollfd *ufds, unsigned int nfds, int timeout);

/* select(2) over RSerPool, mapped and ordinary descriptors below FD_SETSIZE; sets and timeout may be NULL,
 * timeout is not changed. -1: EACCES (not initialised), EBADF, EINVAL (n past FD_SETSIZE, bad time), EINTR,
 * ENOMEM. */
int rsp_select(int n,
               fd_set *readfds,
               fd_set *writefds,
               fd_set *exceptfds,
               struct timeval *timeout);

/* A new wait set: sessions in it are waited for by their own sockets, which costs what epoll(7) costs with bare ones. An
 * RSerPool descriptor in the program's own epoll instance works as well and costs some more. Close it with rsp_close.
 * -1: EACCES (not initialised), EMFILE, ENFILE, ENOMEM. Not in RFC 5351 or rsplib. */
int rsp_waitset_create(void);

/* Has a wait set wait until an RSerPool descriptor is readable (POLLIN), writable (POLLOUT; sessions only), or either; 0:
 * for nothing, it leaves the set, as it does when it is closed. Called again, it changes what is waited for. A descriptor is in
 * one set at a time, the last one; a session stays in it when it fails over. -1: EBADF (no such set or descriptor), EINVAL
 * (other events). */
int rsp_waitset_set(int waitset,
                    int sd,
                    short events);

/* Waits until something is the matter with descriptors of a wait set, and puts up to most (64 at a time) of them into
 * ready: fd, and in revents what of POLLIN and POLLOUT it is. What is left comes with the next calls, others' turn first.
 * timeout: milliseconds, -1: for ever. Returns how many, 0: time is over. A session may be readable for a control message alone:
 * receive from it with MSG_DONTWAIT. -1: EBADF (no such set), EFAULT, EINVAL (most is 0), EINTR. */
int rsp_waitset_wait(int waitset,
                     struct pollfd *ready,
                     unsigned int most,
                     int timeout);

/* Registers the descriptor's element in a pool (handle of 1 to 65000 bytes) and keeps it registered, or
 * changes its policy values (same handle; never waits). loadinfo NULL: round robin. reregInterval:
 * milliseconds, at least 1. flags: REGF_*. Returns 0 also when the registrar refuses or none is there: it is
 * tried again. -1: EBADF (also: other handle, closed meanwhile), ENAMETOOLONG, EINVAL (empty handle,
 * unknown policy, connected descriptor), EFAULT, EADDRINUSE (it did not listen yet, and another does), EADDRNOTAVAIL
 * (no usable local address), EMFILE, ENFILE, ENOMEM. RFC 5352 section 3.1. */
int rsp_register(int sd,
                 const unsigned char *poolHandle,
                 size_t poolHandleSize,
                 const struct rsp_loadinfo *loadinfo,
                 unsigned int reregInterval,
                 int flags);

/* Takes the descriptor's element out of its pool. flags: DEREGF_*. -1: EBADF (also: not registered,
 * closed meanwhile).
 * RFC 5352 section 3.2. */
int rsp_deregister(int sd, int flags);

/* Takes the next session of a listening descriptor; timeout: milliseconds, -1: for ever. Returns the
 * session's descriptor. -1: EBADF, EAGAIN (nothing in that time), EINVAL (not listening), EOPNOTSUPP
 * (SOCK_SEQPACKET), EINTR, EMFILE, ENFILE, ENOMEM. */
int rsp_accept(int sd, int timeout);

/* Opens a session with one of the pool's elements (handle of 1 to 65000 bytes). staleCacheValue: how old, in
 * milliseconds, what is known about the pool may be. Returns 0 even if no element could be reached (errno is
 * not 0 then: ENOENT empty pool, EIO no registrar, EINVAL empty handle, ECONNREFUSED, ETIMEDOUT,
 * EPROTONOSUPPORT, EMFILE, ENFILE, ..); then the first receive or send call says that a failover is
 * necessary. -1: EBADF (also: there is a session), ENAMETOOLONG, EFAULT, ENOMEM. RFC 5352 section 3.3. */
int rsp_connect(int sd,
                const unsigned char *poolHandle,
                size_t poolHandleSize,
                unsigned int staleCacheValue);

/* Moves the session to another element. flags: FFF_UNREACHABLE reports the one in use as unreachable.
 * staleCacheValue: as for rsp_connect. Notifications that wait are dropped; RSERPOOL_FAILOVER_COMPLETE
 * follows. Returns 0 also if the pool is empty now, after a short pause (errno ENOENT): try again.
 * -1: EBADF (also: no session), EIO (no registrar), EINVAL (session without handle), ETIMEDOUT, ECONNREFUSED,
 * EPROTONOSUPPORT, EMFILE, ENFILE, ENOMEM. RFC 5352 sections 3.5, 3.8 and 3.9. */
int rsp_forcefailover(int sd,
                      unsigned int flags,
                      unsigned int staleCacheValue);

/* Whether the connected session holds a cookie: 1 or 0. -1: EBADF (also: no session).
 * RFC 5352 section 3.8. */
int rsp_has_cookie(int sd);

/* Sets the text that component status reports show for a session; at most 127 bytes of it.
 * -1: EBADF, EINVAL (unknown session), EFAULT. */
int rsp_csp_setstatus(int sd, rserpool_session_t sessionID, const char *statusText);

/* Sends one message. sessionID matters on descriptors with many sessions only. sctpPPID: in network byte
 * order. sctpTimeToLive: milliseconds, 0: no limit. sctpFlags: SCTP_UNORDERED, SCTP_EOF, SCTP_ABORT.
 * timeout: milliseconds; 0 or less, MSG_DONTWAIT or O_NONBLOCK: don't wait for room. Returns the number of bytes.
 * -1: EOPNOTSUPP (flags other than MSG_DONTWAIT, MSG_NOSIGNAL, which is always on, and MSG_EOR), EBADF (also: unknown session), EAGAIN, EINTR, EIO (session has failed), EPIPE (session is over), EFAULT,
 * EINVAL (no data; over SCTP: no such stream), EMSGSIZE (past 16 MiB without waiting; over SCTP: more than the
 * send buffer can hold), ENOMEM; and ECONNRESET, ETIMEDOUT, EHOSTUNREACH and other connection errors, after
 * which RSERPOOL_FAILOVER_NECESSARY follows. RFC 5352 section 6.5. */
ssize_t rsp_sendmsg(int sd,
                    const void *data,
                    size_t dataLength,
                    unsigned int msg_flags,
                    rserpool_session_t sessionID,
                    uint32_t sctpPPID,
                    uint16_t sctpStreamID,
                    uint32_t sctpTimeToLive,
                    uint16_t sctpFlags,
                    int timeout);

/* Sends a cookie, up to 65524 bytes, to the session's pool user, which gives it to the element that takes
 * over. timeout: milliseconds, 0: don't wait, -1: for ever. Returns cookieSize.
 * -1: EBADF, EINVAL (unknown session, or a user's), EMSGSIZE, EAGAIN, EINTR, EFAULT, EPIPE (session is over),
 * ENOMEM, ECONNRESET, ETIMEDOUT, EHOSTUNREACH and other connection errors. RFC 5352 section 3.8. */
ssize_t rsp_send_cookie(int sd,
                        const unsigned char *cookie,
                        size_t cookieSize,
                        rserpool_session_t sessionID,
                        int timeout);

/* Receives data, a notification or a cookie echo. msg_flags: set it to 0 or MSG_DONTWAIT before; out come
 * MSG_RSERPOOL_NOTIFICATION, MSG_RSERPOOL_COOKIE_ECHO, and MSG_EOR when the message ends here; what
 * did not fit into the buffer comes with the next calls. rinfo may be NULL; buffer NULL: throw away. What the buffer holds
 * behind the bytes that were returned, or after an error, is undefined: it need not be what was there before.
 * timeout: milliseconds; negative, or O_NONBLOCK: don't wait. Returns the number of bytes, 0: end of the session.
 * -1: EOPNOTSUPP (MSG_WAITALL, MSG_TRUNC, MSG_ERRQUEUE), EBADF, EAGAIN, EINTR, EINVAL (buffer too small for the notification, which stays), EFAULT, ENOTCONN (no
 * session to come). RFC 5352 sections 6.6 and 3.8. */
ssize_t rsp_recvmsg(int sd,
                    void *buffer,
                    size_t bufferLength,
                    struct rsp_sndrcvinfo *rinfo,
                    int *msg_flags,
                    int timeout);

/* rsp_recvmsg until the message is whole, the buffer is full (no MSG_EOR then; the rest comes with the
 * next calls), or time is over. timeout: milliseconds; negative: for ever. The errors are rsp_recvmsg's. */
ssize_t rsp_recvfullmsg(int sd,
                        void *buffer,
                        size_t bufferLength,
                        struct rsp_sndrcvinfo *rinfo,
                        int *msg_flags,
                        int timeout);

/* rsp_recvmsg without its information and without waiting; for a mapped descriptor read(2).
 * -1: EBADF, EAGAIN, EINVAL, EFAULT, ENOTCONN. */
ssize_t rsp_read(int fd, void *buffer, size_t bufferLength);

/* rsp_read; for a mapped descriptor with flags recv(2). EOPNOTSUPP: flags other than MSG_DONTWAIT, which changes nothing. */
ssize_t rsp_recv(int sd,
                 void *buffer,
                 size_t bufferLength,
                 int flags);

/* Sends one message with PPID 0 on stream 0 without waiting; for a mapped descriptor write(2).
 * -1: EBADF, EAGAIN, EIO, EPIPE, EFAULT, EINVAL, EMSGSIZE, ENOMEM, ECONNRESET, ETIMEDOUT, EHOSTUNREACH, as
 * rsp_sendmsg. */
ssize_t rsp_write(int fd,
                  const char *buffer,
                  size_t bufferLength);

/* rsp_write; for a mapped descriptor send(2), which gets the flags (ENOTSOCK if it is none). EOPNOTSUPP: flags other than
 * MSG_DONTWAIT, MSG_NOSIGNAL and MSG_EOR, which change nothing. */
ssize_t rsp_send(int sd,
                 const void *buffer,
                 size_t bufferLength,
                 int flags);

/* Prints a notification on one line, without a newline. */
void rsp_print_notification(const union rserpool_notification *notification, FILE *fd);

/* Sends one message to a pool (handle of 1 to 65000 bytes) without a session: to the element that the policy
 * chooses, anew for each message. The descriptor is a SOCK_SEQPACKET one that is not connected; an element's own
 * will do. What the element answers is received there, with its identifier in rinfo_pe_id; rinfo_session is good for
 * rsp_sendmsg as long as the connection lasts. options: ASAP_SEND_*, ASAP_SCTP_UNORDER. identifier: NULL, or where
 * the identifier of a certain element stands (0: whom the policy chooses) and that of the element that got the
 * message is written to. staleCacheValue: as for rsp_connect. sctpPPID, sctpStreamID, sctpTimeToLive, timeout: as for
 * rsp_sendmsg; connecting takes up to timeout, or 5 s if that is 0 or less. Returns to how many elements it was
 * sent; what may not have arrived comes back as RSERPOOL_SEND_FAILED. -1: EBADF, EOPNOTSUPP (SOCK_STREAM), EINVAL
 * (connected descriptor, no data, empty handle, options that exclude one another), ENAMETOOLONG, EFAULT, ENOENT (the
 * pool is empty, or has no such element), EIO (no registrar), EAGAIN (no room in time), EMSGSIZE, EMFILE;
 * ECONNREFUSED, ETIMEDOUT and other errors of connect(2): no element could be reached. RFC 5352 section 6.5. */
int rsp_sendto_pool(int sd,
                    const void *data,
                    size_t dataLength,
                    unsigned int options,
                    const unsigned char *poolHandle,
                    size_t poolHandleSize,
                    uint32_t *identifier,
                    unsigned int staleCacheValue,
                    uint32_t sctpPPID,
                    uint16_t sctpStreamID,
                    uint32_t sctpTimeToLive,
                    int timeout);

/* Sends one message to whoever is at an address, over the descriptor's transport (SCTP messages, or plain TCP
 * without the framing of sessions): no pool, no failover. The descriptor is one for rsp_sendto_pool; what comes back
 * is received there. options: 0 or ASAP_SCTP_UNORDER. Returns 0. -1: EBADF, EOPNOTSUPP (SOCK_STREAM), EINVAL
 * (connected descriptor, no data, other options), EFAULT, EAFNOSUPPORT, EAGAIN (no room in time), EMSGSIZE, EMFILE;
 * ECONNREFUSED, ETIMEDOUT and other errors of connect(2). RFC 5352 section 6.5.4. */
int rsp_sendto_address(int sd,
                       const void *data,
                       size_t dataLength,
                       unsigned int options,
                       const struct sockaddr *address,
                       uint32_t sctpPPID,
                       uint16_t sctpStreamID,
                       uint32_t sctpTimeToLive,
                       int timeout);

/* Asks a registrar for all elements of a pool, ahead of need. Returns how many are known now. -1: EACCES,
 * ENAMETOOLONG, EINVAL (empty handle), EFAULT, EIO (no registrar). RFC 5352 section 6.3. */
int rsp_cache_populate(const unsigned char *poolHandle,
                       size_t poolHandleSize);

/* Forgets what is known of a pool: the next resolution asks a registrar, however stale its answer may be. Returns 0.
 * -1: EACCES, ENAMETOOLONG, EINVAL (empty handle), EFAULT. RFC 5352 section 6.4. */
int rsp_cache_purge(const unsigned char *poolHandle,
                    size_t poolHandleSize);

/* Says in words why the last call on this descriptor failed, or did not do what it was to do: which pool, which
 * registrars were tried with what result, which element. -1: of this thread's last call without a descriptor
 * (rsp_initialize, rsp_getaddrinfo, rsp_pe_*). Empty text: nothing went wrong. The text lasts until the thread's next
 * rsp_strerror. Works at any time. */
const char *rsp_strerror(int sd);

/* The RSPERR_* code of what rsp_strerror says: RSPERR_NO_REGISTRAR, RSPERR_TIMEOUT (no answer), a registrar's refusal
 * (RSPERR_INCOMPATIBLE_POOL_POLICY, ..), RSPERR_NOT_FOUND (the pool is unknown or empty),
 * RSPERR_CONNECTION_FAILURE_CONNECT (no element could be reached); RSPERR_OKAY if nothing went wrong, or
 * nothing that has a code. Works at any time. */
unsigned int rsp_geterror(int sd);

/* Writes what was counted since the process began: at most `size` bytes, sizeof(struct rsp_counters) as the program
 * knows it; members that this library does not know become 0. Works at any time, also before rsp_initialize and
 * after rsp_cleanup. Returns how many bytes this library knows; -1: EFAULT (NULL), EINVAL (size is not a multiple
 * of 8, or 0), EDEADLK (in a signal handler that interrupted a call of this library). */
int rsp_getcounters(struct rsp_counters *counters,
                    size_t size);

#ifdef __cplusplus
}  // extern "C"
#endif

#endif
