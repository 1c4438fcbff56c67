/* Pool elements and users for the C tests, all in one process with a registrar inside
 * (RSP_REGISTRAR=embedded). Nothing waits for a time to pass, only for things to happen. */
#ifndef POOL_H
#define POOL_H

#include <netinet/in.h>
#include <poll.h>
#include <unistd.h>

#include <rserpool/rserpool.h>
#include <rserpool/rserpool-internals.h>
#include <rserpool/tagitem.h>

#include "check.h"

/* What sessions run over; IPPROTO_SCTP is TCP where the kernel has no SCTP. */
#ifndef PROTOCOL
#define PROTOCOL IPPROTO_SCTP
#endif

/* Bytes of the longest pool handle. */
#define LONGEST 65000

/* For what must happen: long enough for a busy machine and valgrind. */
#define SOON 30000

/* Whether sessions run over SCTP: the kernel has it, and RSP_TRANSPORT doesn't say otherwise. */
static inline bool over_sctp(void)
{
    const char* transport = getenv("RSP_TRANSPORT");
    int probe = transport && strcmp(transport, "tcp") == 0 ? -1 : socket(AF_INET, SOCK_STREAM, IPPROTO_SCTP);

    if (probe >= 0) {
        close(probe);
    }
    return probe >= 0;
}

static inline void start(void)
{
    struct rsp_info info;

    rsp_initinfo(&info);
    SAME(1, rsp_initarg(&info, "-asapannounce=off"));
    OK(rsp_initialize(&info));
    SAME(RSPLIB_VERSION, info.ri_version);
    SAME(RSPLIB_REVISION, info.ri_revision);
    rsp_freeinfo(&info);
}

/* The library with that registrar instead of the one inside this process (NULL: with that one), which it gives
 * so many milliseconds for everything. */
static inline void start_with(const struct sockaddr_in* registrar, int patience)
{
    struct rsp_info info;
    char argument[64];

    setenv("RSP_REGISTRAR", registrar ? "" : "embedded", 1);
    rsp_initinfo(&info);
    if (registrar) {
        snprintf(argument, sizeof(argument), "-registrar=127.0.0.1:%d", ntohs(registrar->sin_port));
        SAME(1, rsp_initarg(&info, argument));
    }
    SAME(1, rsp_initarg(&info, "-asapannounce=off"));
    snprintf(argument, sizeof(argument), "-registrarconnecttimeout=%d", patience);
    SAME(1, rsp_initarg(&info, argument));
    snprintf(argument, sizeof(argument), "-registrarrequesttimeout=%d", patience);
    SAME(1, rsp_initarg(&info, argument));
    snprintf(argument, sizeof(argument), "-registrarresponsetimeout=%d", patience);
    SAME(1, rsp_initarg(&info, argument));
    OK(rsp_initialize(&info));
    rsp_freeinfo(&info);
}

/* A listening pool element; `id` 0: any. */
static inline int element(const char* pool, int type, uint32_t id)
{
    struct TagItem tags[] = {{TAG_PoolElement_Identifier, id}, {TAG_DONE, 0}};
    struct rsp_loadinfo load = {PPT_ROUNDROBIN, 0, 0, 0, 0, 0};
    int sd = (int)OK(rsp_socket(0, type, PROTOCOL));

    OK(rsp_bind(sd, NULL, 0));
    OK(rsp_listen(sd, 10));
    OK(rsp_register_tags(sd, (const unsigned char*)pool, strlen(pool), &load, 30000, 0, tags));
    return sd;
}

/* A connected pool user. */
static inline int user(const char* pool, int type)
{
    int sd = (int)OK(rsp_socket(0, type, PROTOCOL));

    errno = 0;
    SAME(0, rsp_connect(sd, (const unsigned char*)pool, strlen(pool), 0));
    SAME(0, errno);
    return sd;
}

/* A system socket on the loopback. */
static inline struct sockaddr_in bound(int* sd)
{
    struct sockaddr_in address;
    socklen_t length = sizeof(address);

    OK(*sd = socket(AF_INET, SOCK_STREAM, 0));
    memset(&address, 0, sizeof(address));
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    OK(bind(*sd, (struct sockaddr*)&address, sizeof(address)));
    OK(getsockname(*sd, (struct sockaddr*)&address, &length));
    return address;
}

/* A listener that accepts nobody, and enough connections that it lets nobody else in. */
struct crowded {
    int listener;
    int others[8];
};

static inline struct sockaddr_in crowd(struct crowded* crowded)
{
    struct sockaddr_in address = bound(&crowded->listener);

    OK(listen(crowded->listener, 0));
    for (int i = 0; i < 8; i++) {
        OK(crowded->others[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
        SAME(-1, connect(crowded->others[i], (struct sockaddr*)&address, sizeof(address)));
    }
    return address;
}

static inline void disperse(struct crowded* crowded)
{
    for (int i = 0; i < 8; i++) {
        OK(close(crowded->others[i]));
    }
    OK(close(crowded->listener));
}

/* What can be registered at an address; any identifier. */
static inline struct rsp_addrinfo at(struct sockaddr_in* address, int protocol)
{
    struct rsp_addrinfo info;

    memset(&info, 0, sizeof(info));
    info.ai_protocol = protocol;
    info.ai_addrs = 1;
    info.ai_addr = (struct sockaddr*)address;
    return info;
}

/* A pool with one element at an address that is none of ours; its identifier. */
static inline uint32_t elsewhere(const char* pool, struct sockaddr_in* address, int protocol)
{
    struct rsp_addrinfo info = at(address, protocol);

    SAME(RSPERR_OKAY, rsp_pe_registration((const unsigned char*)pool, strlen(pool), &info, NULL, 300000, REGF_CONTROLCHANNEL));
    return info.ai_pe_id;
}

/* What one receive call brought. */
struct delivery {
    char bytes[4096];
    ssize_t length;
    int flags;
    struct rsp_sndrcvinfo info;
    union rserpool_notification notification;
};

static inline struct delivery receive(int sd, int timeout)
{
    struct delivery d;

    memset(&d, 0, sizeof(d));
    d.length = rsp_recvmsg(sd, d.bytes, sizeof(d.bytes) - 1, &d.info, &d.flags, timeout);
    if (d.length >= 0) {
        /* A text ends where its message does: like recv(2), the call says nothing of the bytes behind. */
        d.bytes[d.length] = 0;
    }
    if (d.length == (ssize_t)sizeof(d.notification)) {
        memcpy(&d.notification, d.bytes, sizeof(d.notification));
    }
    return d;
}

static inline void send_text(int sd, rserpool_session_t session, const char* text)
{
    SAME(strlen(text), rsp_sendmsg(sd, text, strlen(text), 0, session, 0, 0, 0, 0, SOON));
}

/* Nobody reads at the other end: sends until no more fits. */
static inline void fill(int sd, rserpool_session_t session)
{
    static char bytes[65536];

    while (rsp_sendmsg(sd, bytes, sizeof(bytes), 0, session, 0, 0, 0, 0, 0) > 0) {
    }
    SAME(EAGAIN, errno);
    /* What was begun goes on in the background, and the kernel tidies up: there may be room once more. */
    while (rsp_sendmsg(sd, bytes, 1, 0, session, 0, 0, 0, 0, 500) > 0) {
    }
    SAME(EAGAIN, errno);
    while (rsp_sendmsg(sd, bytes, 1, 0, session, 0, 0, 0, 0, 0) > 0) {
    }
    SAME(EAGAIN, errno);
}

/* Data is next, and it is this. */
static inline struct delivery expect_text(int sd, const char* text)
{
    struct delivery d = receive(sd, SOON);

    OK(d.length);
    SAME(MSG_EOR, d.flags);
    SAME_TEXT(text, d.bytes);
    return d;
}

/* A notification is next, of this type; its state and session. */
static inline struct delivery expect_notification(int sd, int type)
{
    struct delivery d = receive(sd, SOON);

    SAME(20, d.length);
    SAME(MSG_EOR | MSG_RSERPOOL_NOTIFICATION, d.flags);
    SAME(type, d.notification.rn_header.rn_type);
    SAME(0, d.notification.rn_header.rn_flags);
    SAME(20, d.notification.rn_header.rn_length);
    return d;
}

static inline rserpool_session_t expect_session(int sd, unsigned int state)
{
    struct delivery d = expect_notification(sd, RSERPOOL_SESSION_CHANGE);

    SAME(state, d.notification.rn_session_change.rsc_state);
    HOLDS(d.notification.rn_session_change.rsc_session > 0);
    return d.notification.rn_session_change.rsc_session;
}

static inline void expect_failover(int sd, unsigned int state, bool cookie)
{
    struct delivery d = expect_notification(sd, RSERPOOL_FAILOVER);

    SAME(state, d.notification.rn_failover.rf_state);
    SAME(cookie, d.notification.rn_failover.rf_has_cookie);
}

static inline uint32_t own_id(int sd)
{
    uint32_t id = 0;

    OK(rsp_getsockname(sd, NULL, NULL, &id));
    HOLDS(id != 0);
    return id;
}

static inline uint32_t peer_id(int sd)
{
    uint32_t id = 0;

    OK(rsp_getpeername(sd, NULL, NULL, &id));
    return id;
}

#endif
