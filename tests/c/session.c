/* Sessions: registering, connecting, messages in both directions, notifications, cookies, failover. */
#define _POSIX_C_SOURCE 200809L

#include <pthread.h>
#include <time.h>

#include "pool.h"

#define NAME(text) (const unsigned char*)(text), strlen(text)

static void names(void)
{
    unsigned char handle[32];
    size_t size = sizeof(handle);
    uint32_t id = 0;
    int server = element("Names", SOCK_SEQPACKET, 0x12345678);
    int client = user("Names", SOCK_SEQPACKET);

    OK(rsp_getsockname(server, handle, &size, &id));
    SAME(5, size);
    SAME(0, memcmp(handle, "Names", 5));
    SAME(0x12345678, id);
    size = 4;
    FAILS(ENOBUFS, rsp_getsockname(server, handle, &size, NULL));
    OK(rsp_getsockname(server, NULL, NULL, NULL));
    FAILS(EBADF, rsp_getpeername(server, handle, &size, &id));

    size = sizeof(handle);
    id = 0;
    OK(rsp_getpeername(client, handle, &size, &id));
    SAME(5, size);
    SAME(0x12345678, id);
    size = 0;
    FAILS(ENOBUFS, rsp_getpeername(client, handle, &size, NULL));
    FAILS(EBADF, rsp_getsockname(client, handle, &size, &id));
    OK(rsp_close(client));
    OK(rsp_close(server));
    FAILS(EBADF, rsp_close(server));
}

/* What the protocol takes, the functions take. */
static void handles_of_every_length(void)
{
    static const size_t lengths[] = {1, 32, 33, 255, 256, 4096, LONGEST};
    static unsigned char name[LONGEST], buffer[LONGEST];
    struct rsp_addrinfo* list;
    uint32_t id;

    for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
        size_t length = lengths[i], size = sizeof(buffer);
        int server = (int)OK(rsp_socket(0, SOCK_SEQPACKET, IPPROTO_SCTP));
        int client = (int)OK(rsp_socket(0, SOCK_SEQPACKET, IPPROTO_SCTP));

        memset(name, 'a' + (int)i, length);
        OK(rsp_listen(server, 10));
        OK(rsp_register(server, name, length, NULL, 30000, 0));
        OK(rsp_getsockname(server, buffer, &size, &id));
        SAME(length, size);
        SAME(0, memcmp(name, buffer, length));
        SAME(1, rsp_getaddrinfo(name, length, &list, 8, 0));
        SAME(id, list->ai_pe_id);
        rsp_freeaddrinfo(list);
        errno = 0;
        SAME(0, rsp_connect(client, name, length, 0));
        SAME(0, errno);
        expect_session(server, RSERPOOL_SESSION_ADD);
        size = length - 1;
        FAILS(ENOBUFS, rsp_getpeername(client, buffer, &size, &id));
        size = sizeof(buffer);
        OK(rsp_getpeername(client, buffer, &size, &id));
        SAME(length, size);
        SAME(0, memcmp(name, buffer, length));
        send_text(client, 0, "hello");
        expect_text(server, "hello");
        OK(rsp_close(client));
        OK(rsp_close(server));
    }
}

/* rsp_listen is not needed for an element that is to be used as it is. */
static void registering_listens(int type)
{
    int server = (int)OK(rsp_socket(0, type, PROTOCOL));
    int client;

    OK(rsp_register(server, NAME("Implicit"), NULL, 30000, 0));
    client = user("Implicit", type);
    if (type == SOCK_STREAM) {
        int accepted = (int)OK(rsp_accept(server, SOON));

        OK(rsp_close(accepted));
    } else {
        expect_session(server, RSERPOOL_SESSION_ADD);
    }
    /* As before, it may be said, and how many may wait. */
    OK(rsp_listen(server, 5));
    OK(rsp_close(client));
    OK(rsp_close(server));
}

static void registering(void)
{
    struct rsp_loadinfo load = {PPT_LEASTUSED, 0, 0, 0, 0, 0};
    struct rsp_loadinfo odd = {4711, 0, 0, 0, 0, 0};
    static unsigned char longest[LONGEST + 1];
    int sd = (int)OK(rsp_socket(0, SOCK_SEQPACKET, IPPROTO_SCTP));
    uint32_t id;

    memset(longest, 'x', sizeof(longest));
    FAILS(EBADF, rsp_getsockname(sd, NULL, NULL, NULL));
    FAILS(EBADF, rsp_deregister(sd, 0));
    FAILS(ENAMETOOLONG, rsp_register(sd, longest, LONGEST + 1, &load, 1000, 0));
    FAILS(EINVAL, rsp_register(sd, longest, 0, &load, 1000, 0));
    FAILS(EFAULT, rsp_register(sd, NULL, 4, &load, 1000, 0));
    FAILS(EINVAL, rsp_register(sd, NAME("Load"), &odd, 1000, 0));
    OK(rsp_register(sd, longest, 32, &load, 30000, REGF_DAEMONMODE));
    id = own_id(sd);
    /* The same handle again: new values. Another one: no. */
    load.rli_load = 0x10000000;
    OK(rsp_register_tags(sd, longest, 32, &load, 30000, REGF_DONTWAIT, NULL));
    SAME(id, own_id(sd));
    FAILS(EBADF, rsp_register(sd, NAME("Other"), &load, 30000, 0));
    OK(rsp_deregister(sd, 0));
    FAILS(EBADF, rsp_deregister(sd, 0));
    /* Then under another one; NULL is round robin. */
    OK(rsp_register(sd, NAME("Other"), NULL, 30000, REGF_CONTROLCHANNEL));
    OK(rsp_deregister_tags(sd, DEREGF_DONTWAIT, NULL));
    OK(rsp_close(sd));
}

/* Where users reach it is said for this element only, and stays said when its values change. */
static void advertised(void)
{
    struct TagItem tags[] = {{TAG_PoolElement_Advertise, (tagdata_t) "192.0.2.7:4711"}, {TAG_DONE, 0}};
    struct TagItem wrong[] = {{TAG_PoolElement_Advertise, (tagdata_t) "0.0.0.0:4711"}, {TAG_DONE, 0}};
    struct TagItem bad[] = {{TAG_PoolElement_Advertise, (tagdata_t) "192.0.2.7:port"}, {TAG_DONE, 0}};
    struct TagItem none[] = {{TAG_PoolElement_Advertise, 0}, {TAG_DONE, 0}};
    struct rsp_addrinfo* found;
    struct sockaddr_in at;
    int sd = (int)OK(rsp_socket(0, SOCK_STREAM, PROTOCOL));
    int other = element("Beside", SOCK_STREAM, 0);

    FAILS(EINVAL, rsp_register_tags(sd, NAME("Published"), NULL, 30000, 0, wrong));
    FAILS(EINVAL, rsp_register_tags(sd, NAME("Published"), NULL, 30000, 0, bad));
    OK(rsp_register_tags(sd, NAME("Published"), NULL, 30000, 0, tags));
    for (int turn = 0; turn < 2; turn++) {
        SAME(1, rsp_getaddrinfo(NAME("Published"), &found, 1, 0));
        memcpy(&at, found->ai_addr, sizeof(at));
        SAME(AF_INET, at.sin_family);
        SAME(4711, ntohs(at.sin_port));
        SAME(0xc0000207, ntohl(at.sin_addr.s_addr));
        rsp_freeaddrinfo(found);
        OK(rsp_register_tags(sd, NAME("Published"), NULL, 20000, 0, none));
    }
    SAME(1, rsp_getaddrinfo(NAME("Beside"), &found, 1, 0));
    memcpy(&at, found->ai_addr, sizeof(at));
    HOLDS(at.sin_family != AF_INET || ntohl(at.sin_addr.s_addr) != 0xc0000207);
    rsp_freeaddrinfo(found);
    OK(rsp_close(other));
    OK(rsp_close(sd));
}

static void messages(void)
{
    struct delivery d;
    int server = element("Echo", SOCK_SEQPACKET, 0);
    int client = user("Echo", SOCK_SEQPACKET);
    rserpool_session_t session = expect_session(server, RSERPOOL_SESSION_ADD);
    int flags = 0;

    SAME(5, rsp_sendmsg(client, "hello", 5, 0, 0, htonl(4711), 3, 0, 0, SOON));
    d = expect_text(server, "hello");
    SAME(session, d.info.rinfo_session);
    SAME(htonl(4711), d.info.rinfo_ppid);
    SAME(3, d.info.rinfo_stream);
    SAME(0, d.info.rinfo_pe_id);
    SAME(0, d.info.rinfo_timetolive);
    SAME(5, rsp_sendmsg(server, "olleh", 5, 0, session, htonl(1174), 2, 0, 0, SOON));
    d = expect_text(client, "olleh");
    SAME(htonl(1174), d.info.rinfo_ppid);
    SAME(2, d.info.rinfo_stream);
    SAME(own_id(server), d.info.rinfo_pe_id);

    /* The short forms. */
    SAME(3, rsp_write(client, "abc", 3));
    d = expect_text(server, "abc");
    SAME(0, d.info.rinfo_ppid);
    SAME(3, rsp_send(client, "def", 3, 0));
    expect_text(server, "def");
    send_text(server, session, "ghi");
    send_text(server, session, "jkl");
    expect_text(client, "ghi");
    {
        struct pollfd entry = {client, POLLIN, 0};
        SAME(1, rsp_poll(&entry, 1, SOON));
        SAME(3, rsp_recv(client, d.bytes, sizeof(d.bytes), 0));
        SAME(0, memcmp(d.bytes, "jkl", 3));
    }
    FAILS(EAGAIN, rsp_read(client, d.bytes, sizeof(d.bytes)));
    FAILS(EAGAIN, rsp_recv(client, d.bytes, sizeof(d.bytes), 0));
    FAILS(EAGAIN, rsp_recvmsg(client, d.bytes, 1, NULL, &flags, 10));
    FAILS(EAGAIN, rsp_recvfullmsg(client, d.bytes, 1, NULL, &flags, 10));

    /* What is wrong with arguments. */
    FAILS(EBADF, rsp_sendmsg(server, "x", 1, 0, session + 1000, 0, 0, 0, 0, 0));
    FAILS(EBADF, rsp_sendmsg(server, "x", 1, 0, 0, 0, 0, 0, 0, 0));
    FAILS(EFAULT, rsp_sendmsg(client, NULL, 1, 0, 0, 0, 0, 0, 0, 0));
    FAILS(EFAULT, rsp_recvmsg(client, d.bytes, 1, NULL, NULL, 0));
    FAILS(EFAULT, rsp_recvfullmsg(client, d.bytes, 1, NULL, NULL, 0));
    FAILS(EINVAL, rsp_send_cookie(server, (const unsigned char*)"c", 1, session + 1000, 0));
    FAILS(EFAULT, rsp_send_cookie(server, NULL, 1, session, 0));
    FAILS(EBADF, rsp_connect(client, NAME("Echo"), 0));
    OK(rsp_close(client));
    OK(rsp_close(server));
}

/* Small buffers lose nothing. */
static void parts(void)
{
    char buffer[8];
    int flags = 0;
    int server = element("Parts", SOCK_SEQPACKET, 0);
    int client = user("Parts", SOCK_SEQPACKET);
    rserpool_session_t session;
    union rserpool_notification notification;

    /* A notification stays until the buffer is large enough for it. */
    struct pollfd entry = {server, POLLIN, 0};
    SAME(1, rsp_poll(&entry, 1, SOON));
    FAILS(EINVAL, rsp_recvmsg(server, buffer, sizeof(buffer), NULL, &flags, SOON));
    FAILS(EINVAL, rsp_recvmsg(server, buffer, sizeof(buffer), NULL, &flags, -1));
    SAME(20, rsp_recvmsg(server, &notification, sizeof(notification), NULL, &flags, SOON));
    session = notification.rn_session_change.rsc_session;

    send_text(client, 0, "0123456789ABCDEFGHIJ");
    send_text(client, 0, "next");
    for (int i = 0; i < 3; i++) {
        flags = 0;
        SAME(i < 2 ? 8 : 4, rsp_recvmsg(server, buffer, sizeof(buffer), NULL, &flags, SOON));
        SAME(i < 2 ? 0 : MSG_EOR, flags);
        SAME(0, memcmp(buffer, "0123456789ABCDEFGHIJ" + 8 * i, i < 2 ? 8 : 4));
    }
    expect_text(server, "next");

    flags = 0;
    send_text(server, session, "0123456789");
    SAME(8, rsp_recvfullmsg(client, buffer, sizeof(buffer), NULL, &flags, SOON));
    SAME(0, flags);
    SAME(2, rsp_recvfullmsg(client, buffer, sizeof(buffer), NULL, &flags, SOON));
    SAME(MSG_EOR, flags);

    /* No buffer: thrown away. */
    flags = 0;
    send_text(server, session, "away");
    send_text(server, session, "here");
    SAME(4, rsp_recvmsg(client, NULL, 100, NULL, &flags, SOON));
    expect_text(client, "here");
    OK(rsp_close(client));
    OK(rsp_close(server));
}

/* TCP takes any; over SCTP a message must fit into the send buffer. */
static size_t large_size(void)
{
    return over_sctp() ? 200000 : 3 << 20;
}

static void* send_large(void* argument)
{
    int sd = *(int*)argument;
    size_t size = large_size();
    char* bytes = malloc(size);

    for (size_t i = 0; i < size; i++) {
        bytes[i] = (char)(i * 7 + i / 251);
    }
    SAME(size, rsp_sendmsg(sd, bytes, size, 0, 0, 0, 0, 0, 0, SOON));
    free(bytes);
    return NULL;
}

/* A message far larger than any buffer of the system arrives whole. */
static void large(void)
{
    int server = element("Large", SOCK_SEQPACKET, 0);
    int client = user("Large", SOCK_SEQPACKET);
    size_t size = large_size();
    char* bytes = malloc(size);
    size_t have = 0;
    int flags = 0;
    pthread_t sender;

    expect_session(server, RSERPOOL_SESSION_ADD);
    SAME(0, pthread_create(&sender, NULL, send_large, &client));
    while (!(flags & MSG_EOR)) {
        have += (size_t)OK(rsp_recvmsg(server, bytes + have, size - have, NULL, &flags, SOON));
        HOLDS(have <= size);
    }
    SAME(0, pthread_join(sender, NULL));
    SAME(size, have);
    for (size_t i = 0; i < size; i += 4099) {
        SAME((char)(i * 7 + i / 251), bytes[i]);
    }
    SAME(0, pthread_create(&sender, NULL, send_large, &client));
    flags = 0;
    SAME(size, rsp_recvfullmsg(server, bytes, size, NULL, &flags, SOON));
    SAME(MSG_EOR, flags);
    SAME(0, pthread_join(sender, NULL));
    free(bytes);
    OK(rsp_close(client));
    OK(rsp_close(server));
}

/* The element goes, another one takes over with the cookie's help. */
static void failover(void)
{
    static const unsigned char cookie[] = "state 42";
    struct delivery d;
    rserpool_session_t session;
    int one = element("Moves", SOCK_SEQPACKET, 1);
    int two = element("Moves", SOCK_SEQPACKET, 2);
    int client = user("Moves", SOCK_SEQPACKET);
    int here, there;

    HOLDS(peer_id(client) == 1 || peer_id(client) == 2);
    here = peer_id(client) == 1 ? one : two;
    there = here == one ? two : one;
    session = expect_session(here, RSERPOOL_SESSION_ADD);
    SAME(0, rsp_has_cookie(client));
    SAME(1, rsp_send_cookie(here, (const unsigned char*)"x", 1, session, SOON));
    SAME(sizeof(cookie), rsp_send_cookie(here, cookie, sizeof(cookie), session, -1));
    send_text(here, session, "mark");
    expect_text(client, "mark");
    SAME(1, rsp_has_cookie(client));
    OK(rsp_csp_setstatus(client, 0, "moving"));

    OK(rsp_close(here));
    expect_failover(client, RSERPOOL_FAILOVER_NECESSARY, true);
    FAILS(EIO, rsp_sendmsg(client, "x", 1, 0, 0, 0, 0, 0, 0, 0));
    OK(rsp_forcefailover(client, FFF_UNREACHABLE, 0));
    expect_failover(client, RSERPOOL_FAILOVER_COMPLETE, true);
    SAME(there == one ? 1 : 2, peer_id(client));
    send_text(client, 0, "after");

    session = expect_session(there, RSERPOOL_SESSION_ADD);
    /* The echo comes in parts too, and before any data. */
    d = receive(there, SOON);
    SAME(sizeof(cookie), d.length);
    SAME(MSG_EOR | MSG_RSERPOOL_COOKIE_ECHO, d.flags);
    SAME(session, d.info.rinfo_session);
    SAME(11, d.info.rinfo_ppid);
    SAME(0, memcmp(cookie, d.bytes, sizeof(cookie)));
    expect_text(there, "after");

    /* On purpose, to the only one that is there: a new session with the same cookie. */
    OK(rsp_forcefailover_tags(client, FFF_NONE, 0, NULL));
    expect_failover(client, RSERPOOL_FAILOVER_COMPLETE, true);
    SAME(there == one ? 1 : 2, peer_id(client));
    do {
        d = receive(there, SOON);
        HOLDS(d.length >= 0 || errno == EAGAIN);
    } while (!(d.flags & MSG_RSERPOOL_COOKIE_ECHO));
    SAME(0, memcmp(cookie, d.bytes, sizeof(cookie)));

    /* Nobody left: success after a pause, and the session is still to be moved. */
    OK(rsp_close(there));
    expect_failover(client, RSERPOOL_FAILOVER_NECESSARY, true);
    SETS(ENOENT, rsp_forcefailover(client, FFF_UNREACHABLE, 0));
    expect_failover(client, RSERPOOL_FAILOVER_NECESSARY, true);
    expect_failover(client, RSERPOOL_FAILOVER_NECESSARY, true);
    one = element("Moves", SOCK_SEQPACKET, 3);
    while (rsp_forcefailover(client, FFF_NONE, 0) < 0 || peer_id(client) != 3) {
    }
    expect_failover(client, RSERPOOL_FAILOVER_COMPLETE, true);
    OK(rsp_close(client));
    OK(rsp_close(one));
}

/* Everything a session can't do before it is one. */
static void unconnected(void)
{
    struct TagItem tags[] = {
        {TAG_RspSession_ConnectTimeout, 1000000}, {TAG_RspSession_HandleResolutionRetryDelay, 1000}, {TAG_DONE, 0}};
    static unsigned char longest[LONGEST + 1];
    struct delivery d;
    int client = (int)OK(rsp_socket(0, SOCK_SEQPACKET, IPPROTO_SCTP));

    FAILS(EBADF, rsp_forcefailover(client, FFF_NONE, 0));
    FAILS(EBADF, rsp_has_cookie(client));
    FAILS(EBADF, rsp_getpeername(client, NULL, NULL, NULL));
    FAILS(EBADF, rsp_sendmsg(client, "x", 1, 0, 0, 0, 0, 0, 0, 0));
    FAILS(EINVAL, rsp_csp_setstatus(client, 1, "text"));
    FAILS(EFAULT, rsp_csp_setstatus(client, 1, NULL));
    FAILS(ENAMETOOLONG, rsp_connect(client, longest, LONGEST + 1, 0));
    FAILS(EFAULT, rsp_connect(client, NULL, 3, 0));
    /* A pool that doesn't exist: connected all the same, and the session has to be moved. */
    SETS(ENOENT, rsp_connect_tags(client, NAME("Nowhere"), 0, tags));
    d = receive(client, SOON);
    SAME(20, d.length);
    SAME(RSERPOOL_FAILOVER, d.notification.rn_header.rn_type);
    SAME(RSERPOOL_FAILOVER_NECESSARY, d.notification.rn_failover.rf_state);
    SAME(0, rsp_forcefailover(client, FFF_NONE, 0));
    OK(rsp_close(client));
    /* No handle: a session that has nowhere to go. */
    client = (int)OK(rsp_socket(0, SOCK_SEQPACKET, IPPROTO_SCTP));
    SETS(EINVAL, rsp_connect(client, NULL, 0, 0));
    FAILS(EINVAL, rsp_forcefailover(client, FFF_NONE, 0));
    OK(rsp_close(client));
}

/* One session per descriptor: no notifications, accept instead. */
static void streams(void)
{
    struct delivery d;
    unsigned char handle[32];
    size_t size = sizeof(handle);
    uint32_t id = 77;
    int server = element("Streams", SOCK_STREAM, 0);
    int client, session;

    FAILS(EAGAIN, rsp_accept(server, 0));
    FAILS(EAGAIN, rsp_accept_tags(server, 10, NULL));
    client = user("Streams", SOCK_STREAM);
    FAILS(EINVAL, rsp_accept(client, 0));
    session = (int)OK(rsp_accept(server, SOON));
    OK(rsp_getpeername(session, handle, &size, &id));
    SAME(0, size);
    SAME(0, id);
    FAILS(EBADF, rsp_getsockname(session, NULL, NULL, NULL));
    send_text(client, 0, "hello");
    expect_text(session, "hello");
    send_text(session, 0, "olleh");
    expect_text(client, "olleh");
    SAME(4, rsp_send_cookie(session, (const unsigned char*)"cook", 4, 0, SOON));
    send_text(session, 0, "mark");
    expect_text(client, "mark");
    SAME(1, rsp_has_cookie(client));
    /* The end is 0, for both. */
    OK(rsp_close(session));
    d = receive(client, SOON);
    HOLDS(d.length == 0 || (d.length < 0 && errno != EAGAIN));
    OK(rsp_forcefailover(client, FFF_NONE, 0));
    session = (int)OK(rsp_accept(server, SOON));
    d = receive(session, SOON);
    SAME(4, d.length);
    SAME(MSG_EOR | MSG_RSERPOOL_COOKIE_ECHO, d.flags);
    OK(rsp_close(client));
    d = receive(session, SOON);
    SAME(0, d.length);
    SAME(0, d.flags);
    OK(rsp_close(session));
    OK(rsp_close(server));
}

/* A user that leaves. */
static void leaving(void)
{
    struct delivery d;
    int server = element("Leaves", SOCK_SEQPACKET, 0);
    int client = user("Leaves", SOCK_SEQPACKET);
    rserpool_session_t session = expect_session(server, RSERPOOL_SESSION_ADD);

    OK(rsp_close(client));
    d = expect_notification(server, RSERPOOL_SHUTDOWN_EVENT);
    SAME(session, d.notification.rn_shutdown_event.rse_session);
    do {
        d = receive(server, SOON);
    } while (d.length == 0);
    SAME(20, d.length);
    SAME(RSERPOOL_SESSION_CHANGE, d.notification.rn_header.rn_type);
    SAME(RSERPOOL_SESSION_REMOVE, d.notification.rn_session_change.rsc_state);
    SAME(session, d.notification.rn_session_change.rsc_session);
    FAILS(EBADF, rsp_sendmsg(server, "x", 1, 0, session, 0, 0, 0, 0, 0));
    OK(rsp_close(server));
}

/* An element that leaves its pool serves the sessions that it has until it ends them; only then do users move. */
static void deregistering(void)
{
    int many = element("Drains", SOCK_SEQPACKET, 0);
    int client = user("Drains", SOCK_SEQPACKET);
    rserpool_session_t session = expect_session(many, RSERPOOL_SESSION_ADD);
    int listener = element("Closes", SOCK_STREAM, 0);
    int one = user("Closes", SOCK_SEQPACKET);
    int served = (int)OK(rsp_accept(listener, SOON));
    struct rsp_addrinfo* found = NULL;

    OK(rsp_deregister(many, 0));
    OK(rsp_close(listener));
    SAME(REAI_NONAME, rsp_getaddrinfo(NAME("Drains"), &found, 1, 0));
    SAME(REAI_NONAME, rsp_getaddrinfo(NAME("Closes"), &found, 1, 0));
    /* What subscribers are told may take so long. */
    SAME(0, poll(NULL, 0, 300));
    send_text(client, 0, "there");
    expect_text(many, "there");
    send_text(many, session, "back");
    expect_text(client, "back");
    send_text(one, 0, "there");
    expect_text(served, "there");
    send_text(served, 0, "back");
    expect_text(one, "back");
    OK(rsp_close(many));
    OK(rsp_close(served));
    expect_failover(client, RSERPOOL_FAILOVER_NECESSARY, false);
    expect_failover(one, RSERPOOL_FAILOVER_NECESSARY, false);
    OK(rsp_close(client));
    OK(rsp_close(one));
}

int main(void)
{
    start();
    names();
    handles_of_every_length();
    registering();
    advertised();
    registering_listens(SOCK_SEQPACKET);
    registering_listens(SOCK_STREAM);
    messages();
    parts();
    large();
    failover();
    unconnected();
    streams();
    leaving();
    deregistering();
    rsp_cleanup();
    return checked();
}
