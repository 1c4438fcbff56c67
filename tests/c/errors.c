/* The errors that a call's own arguments, its peer or the registrar cause, as far as no other test here has
 * them: every errno on a man page is provoked by a test (tests/tidy.rs). */
#define _GNU_SOURCE
/* Which error it is, the transport says; these are TCP's. */
#define PROTOCOL IPPROTO_TCP

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>

#include "asleep.h"
#include "pool.h"

#define NAME(text) (const unsigned char*)(text), strlen(text)
/* As in netinet/sctp.h, which is not everywhere. */
#define SCTP_ABORT 0x0004
#define SCTP_EOF 0x0200
/* One byte more than what goes into one frame. */
#define TOO_LONG ((16u << 20) + 1)
#define BUFFER 65536

static char buffer[BUFFER];
static int flags;

static void arguments(void)
{
    struct rlimit limit;
    struct pollfd* entries;
    int value = 0;
    socklen_t length = sizeof(value);
    socklen_t negative = (socklen_t)-1;
    int server = element("Errors", SOCK_SEQPACKET, 0);
    int client = user("Errors", SOCK_SEQPACKET);
    struct pollfd entry = {server, POLLIN, 0};
    char* large = calloc(TOO_LONG, 1);

    FAILS(EINVAL, rsp_sendmsg(client, "", 0, 0, 0, 0, 0, 0, 0, 0));
    FAILS(EINVAL, rsp_write(client, "", 0));
    FAILS(EINVAL, rsp_send(client, "", 0, 0));
    FAILS(EFAULT, rsp_write(client, NULL, 1));
    FAILS(EFAULT, rsp_send(client, NULL, 1, 0));
    FAILS(EMSGSIZE, rsp_sendmsg(client, large, TOO_LONG, 0, 0, 0, 0, 0, 0, 0));
    FAILS(EMSGSIZE, rsp_write(client, large, TOO_LONG));
    FAILS(EMSGSIZE, rsp_send(client, large, TOO_LONG, 0));
    /* A user has no cookies to send. */
    FAILS(EINVAL, rsp_send_cookie(client, NAME("cookie"), 0, 0));
    SAME(1, rsp_poll(&entry, 1, SOON));
    FAILS(EINVAL, rsp_recvfullmsg(server, buffer, 19, NULL, &flags, 0));
    FAILS(EINVAL, rsp_read(server, buffer, 19));
    FAILS(EINVAL, rsp_recv(server, buffer, 19, 0));
    FAILS(EFAULT, rsp_recvmsg(server, buffer, (size_t)-1, NULL, &flags, 0));
    FAILS(EFAULT, rsp_recvfullmsg(server, buffer, (size_t)-1, NULL, &flags, 0));
    FAILS(EFAULT, rsp_read(server, buffer, (size_t)-1));
    FAILS(EFAULT, rsp_recv(server, buffer, (size_t)-1, 0));
    FAILS(EMSGSIZE, rsp_send_cookie(server, (const unsigned char*)large, 65525, expect_session(server, RSERPOOL_SESSION_ADD), 0));

    FAILS(ENOPROTOOPT, rsp_getsockopt(server, SOL_SOCKET, 0x7fff, &value, &length));
    /* SCTP's options on a TCP socket of IPv4. */
    FAILS(EOPNOTSUPP, rsp_getsockopt(client, IPPROTO_SCTP, 3, &value, &length));
    FAILS(ENOPROTOOPT, rsp_setsockopt(client, IPPROTO_SCTP, 3, &value, length));
    if (getenv("CHECK_SLOW") == NULL) {
        /* What only the kernel may look at. */
        FAILS(EINVAL, rsp_getsockopt(server, SOL_SOCKET, SO_TYPE, &value, &negative));
        FAILS(EFAULT, rsp_getsockopt(server, SOL_SOCKET, SO_TYPE, NULL, &length));
    }
    FAILS(EINVAL, rsp_setsockopt(server, SOL_SOCKET, SO_KEEPALIVE, &value, 1));

    OK(getrlimit(RLIMIT_NOFILE, &limit));
    /* Not looked at: there are not that many. */
    if (limit.rlim_cur < UINT_MAX) {
        FAILS(EINVAL, rsp_poll(&entry, UINT_MAX, 0));
    }
    if (limit.rlim_cur < 1000000 && getenv("CHECK_SLOW") == NULL) {
        OK(entries = calloc(limit.rlim_cur + 1, sizeof(*entries)));
        FAILS(EINVAL, rsp_poll(entries, (unsigned int)limit.rlim_cur + 1, 0));
        free(entries);
    }
    OK(rsp_close(client));
    OK(rsp_close(server));
    free(large);
}

/* Calls that the descriptor is not for. */
static void roles(void)
{
    struct sockaddr_in taken;
    socklen_t length = sizeof(taken);
    struct sockaddr many[129];
    int ends[2];
    int value = 0;
    socklen_t size = sizeof(value);
    int mapped;
    int other = (int)OK(socket(AF_INET, SOCK_STREAM, 0));
    int sd = (int)OK(rsp_socket(AF_INET, SOCK_STREAM, PROTOCOL));
    int client;

    FAILS(ENOTCONN, rsp_recvmsg(sd, buffer, BUFFER, NULL, &flags, 0));
    FAILS(ENOTCONN, rsp_recvfullmsg(sd, buffer, BUFFER, NULL, &flags, 0));
    FAILS(ENOTCONN, rsp_read(sd, buffer, BUFFER));
    FAILS(ENOTCONN, rsp_recv(sd, buffer, BUFFER, 0));
    FAILS(EINVAL, rsp_accept(sd, 0));

    /* An address that somebody listens at. */
    memset(&taken, 0, sizeof(taken));
    taken.sin_family = AF_INET;
    taken.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    OK(bind(other, (struct sockaddr*)&taken, sizeof(taken)));
    OK(listen(other, 1));
    OK(getsockname(other, (struct sockaddr*)&taken, &length));
    FAILS(EADDRINUSE, rsp_bind(sd, (struct sockaddr*)&taken, 1));
    memset(many, 0, sizeof(many));
    FAILS(EINVAL, rsp_bind(sd, many, 129));
    OK(close(other));
    /* Two may be bound to an address, one may listen there. */
    OK(rsp_bind(sd, (struct sockaddr*)&taken, 1));
    OK(other = rsp_socket(AF_INET, SOCK_STREAM, PROTOCOL));
    OK(rsp_bind(other, (struct sockaddr*)&taken, 1));
    OK(rsp_listen(sd, 1));
    FAILS(EADDRINUSE, rsp_listen(other, 1));
    FAILS(EADDRINUSE, rsp_register(other, NAME("Taken"), NULL, 1000, 0));
    OK(rsp_close(sd));
    OK(rsp_close(other));

    sd = element("Roles", SOCK_SEQPACKET, 0);
    FAILS(EOPNOTSUPP, rsp_accept(sd, 0));
    client = user("Roles", SOCK_STREAM);
    FAILS(EINVAL, rsp_listen(client, 1));
    FAILS(EINVAL, rsp_bind(client, NULL, 0));
    FAILS(EINVAL, rsp_register(client, NAME("Roles"), NULL, 1000, 0));
    FAILS(EINVAL, rsp_mapsocket(client, -1));
    OK(rsp_close(client));
    OK(rsp_close(sd));

    /* A session without a connection has no options. */
    client = (int)OK(rsp_socket(0, SOCK_SEQPACKET, PROTOCOL));
    SETS(EINVAL, rsp_connect(client, NULL, 0, 0));
    FAILS(ENOTCONN, rsp_getsockopt(client, SOL_SOCKET, SO_TYPE, &value, &size));
    FAILS(ENOTCONN, rsp_setsockopt(client, SOL_SOCKET, SO_KEEPALIVE, &value, sizeof(value)));
    OK(rsp_close(client));

    OK(pipe(ends));
    mapped = (int)OK(rsp_mapsocket(ends[0], -1));
    FAILS(ENOTSOCK, rsp_getsockopt(mapped, SOL_SOCKET, SO_TYPE, &value, &size));
    FAILS(ENOTSOCK, rsp_setsockopt(mapped, SOL_SOCKET, SO_KEEPALIVE, &value, sizeof(value)));
    OK(rsp_close(mapped));
    OK(close(ends[1]));
}

/* What happens to those who go on sending. */
static void lost(void)
{
    struct delivery d;
    int server = element("Lost", SOCK_SEQPACKET, 0);
    int listener = element("Lonely", SOCK_STREAM, 0);
    int client = user("Lost", SOCK_SEQPACKET);
    rserpool_session_t session = expect_session(server, RSERPOOL_SESSION_ADD);
    int accepted;

    /* The element breaks the session. */
    send_text(server, session, "mark");
    expect_text(client, "mark");
    OK(rsp_sendmsg(server, NULL, 0, 0, session, 0, 0, 0, SCTP_ABORT, 0));
    FAILS(ECONNRESET, rsp_sendmsg(client, "x", 1, 0, 0, 0, 0, 0, 0, 0));
    FAILS(EIO, rsp_sendmsg(client, "x", 1, 0, 0, 0, 0, 0, 0, 0));
    FAILS(EIO, rsp_write(client, "x", 1));
    FAILS(EIO, rsp_send(client, "x", 1, 0));
    expect_failover(client, RSERPOOL_FAILOVER_NECESSARY, false);
    OK(rsp_close(client));
    OK(rsp_close(server));
    client = user("Lonely", SOCK_STREAM);
    OK(accepted = rsp_accept(listener, SOON));
    send_text(accepted, 0, "mark");
    expect_text(client, "mark");
    OK(rsp_sendmsg(accepted, NULL, 0, 0, 0, 0, 0, 0, SCTP_ABORT, 0));
    FAILS(ECONNRESET, rsp_write(client, "x", 1));
    OK(rsp_close(accepted));
    OK(rsp_close(client));
    client = user("Lonely", SOCK_STREAM);
    OK(accepted = rsp_accept(listener, SOON));
    send_text(accepted, 0, "mark");
    expect_text(client, "mark");
    OK(rsp_sendmsg(accepted, NULL, 0, 0, 0, 0, 0, 0, SCTP_ABORT, 0));
    FAILS(ECONNRESET, rsp_send(client, "x", 1, 0));
    OK(rsp_close(accepted));
    OK(rsp_close(client));

    /* The user goes, in order and not. */
    client = user("Lonely", SOCK_STREAM);
    OK(accepted = rsp_accept(listener, SOON));
    SAME(4, rsp_sendmsg(client, "last", 4, 0, 0, 0, 0, 0, SCTP_EOF, 0));
    FAILS(EPIPE, rsp_sendmsg(client, "x", 1, 0, 0, 0, 0, 0, 0, 0));
    expect_text(accepted, "last");
    OK(rsp_close(client));
    d = receive(accepted, SOON);
    SAME(0, d.length);
    FAILS(EPIPE, rsp_sendmsg(accepted, "x", 1, 0, 0, 0, 0, 0, 0, 0));
    FAILS(EPIPE, rsp_write(accepted, "x", 1));
    FAILS(EPIPE, rsp_send(accepted, "x", 1, 0));
    FAILS(EPIPE, rsp_send_cookie(accepted, NAME("cookie"), 0, 0));
    OK(rsp_close(accepted));
    client = user("Lonely", SOCK_STREAM);
    OK(accepted = rsp_accept(listener, SOON));
    OK(rsp_sendmsg(client, NULL, 0, 0, 0, 0, 0, 0, SCTP_ABORT, 0));
    FAILS(ECONNRESET, rsp_send_cookie(accepted, NAME("cookie"), 0, 0));
    OK(rsp_close(client));
    OK(rsp_close(accepted));
    OK(rsp_close(listener));
}

static void on_signal(int number)
{
    (void)number;
}

/* A signal every few milliseconds, so that one comes within whatever waits. */
static void alarms(int microseconds)
{
    struct itimerval timer = {{0, microseconds}, {0, microseconds}};

    OK(setitimer(ITIMER_REAL, &timer, NULL));
}

/* EAGAIN when time is over, EINTR when a signal comes first, EBADF when the descriptor is closed. */
static void interrupted(void)
{
    struct sigaction action;
    int server = element("Signals", SOCK_SEQPACKET, 0);
    int listener = element("Accepts", SOCK_STREAM, 0);
    int client = user("Signals", SOCK_SEQPACKET);
    int set_of_none = (int)OK(rsp_waitset_create());
    rserpool_session_t session = expect_session(server, RSERPOOL_SESSION_ADD);
    struct pollfd entry = {client, POLLOUT, 0};
    fd_set set;

    memset(&action, 0, sizeof(action));
    action.sa_handler = on_signal;
    OK(sigaction(SIGALRM, &action, NULL));
    fill(client, 0);
    FAILS(EAGAIN, rsp_sendmsg(client, "x", 1, 0, 0, 0, 0, 0, 0, 10));
    FAILS(EAGAIN, rsp_write(client, "x", 1));
    FAILS(EAGAIN, rsp_send(client, "x", 1, 0));
    alarms(5000);
    FAILS(EINTR, rsp_sendmsg(client, "x", 1, 0, 0, 0, 0, 0, 0, SOON));
    FAILS(EINTR, rsp_poll(&entry, 1, -1));
    FAILS(EINTR, rsp_waitset_wait(set_of_none, &entry, 1, -1));
    alarms(0);
    OK(rsp_close(set_of_none));
    fill(server, session);
    FAILS(EAGAIN, rsp_send_cookie(server, NAME("cookie"), session, 10));
    alarms(5000);
    FAILS(EINTR, rsp_send_cookie(server, NAME("cookie"), session, SOON));
    FAILS(EINTR, rsp_send_cookie(server, NAME("cookie"), session, -1));
    FAILS(EINTR, rsp_accept(listener, -1));
    FD_ZERO(&set);
    FD_SET(listener, &set);
    FAILS(EINTR, rsp_select(listener + 1, &set, NULL, NULL, NULL));
    alarms(0);
    OK(rsp_close(client));
    OK(rsp_close(server));
    OK(rsp_close(listener));
    server = element("Signals", SOCK_SEQPACKET, 0);
    alarms(5000);
    FAILS(EINTR, rsp_recvmsg(server, buffer, BUFFER, NULL, &flags, SOON));
    FAILS(EINTR, rsp_recvfullmsg(server, buffer, BUFFER, NULL, &flags, -1));
    alarms(0);
    OK(rsp_close(server));
}

/* A program that wants no call to wait, by fcntl(2) or with the call, and what is refused instead of ignored. */
static void not_waiting(void)
{
    int server = element("Never", SOCK_SEQPACKET, 0);
    int listener = element("Accepts", SOCK_STREAM, 0);
    int client = user("Never", SOCK_SEQPACKET);
    rserpool_session_t session = expect_session(server, RSERPOOL_SESSION_ADD);
    struct timeval time = {1, 0};
    struct rsp_loadinfo load = {PPT_ROUNDROBIN, 0, 0, 0, 0, 0};
    int made = (int)OK(rsp_socket(0, SOCK_SEQPACKET | SOCK_NONBLOCK, PROTOCOL));

    HOLDS(fcntl(made, F_GETFL) & O_NONBLOCK);
    OK(rsp_close(made));
    flags = MSG_DONTWAIT;
    FAILS(EAGAIN, rsp_recvmsg(client, buffer, BUFFER, NULL, &flags, SOON));
    FAILS(EAGAIN, rsp_recvfullmsg(client, buffer, BUFFER, NULL, &flags, -1));
    flags = MSG_WAITALL;
    FAILS(EOPNOTSUPP, rsp_recvmsg(client, buffer, BUFFER, NULL, &flags, 0));
    /* What was never set is no wish. */
    flags = (int)0xdeadbeef;
    FAILS(EAGAIN, rsp_recvmsg(client, buffer, BUFFER, NULL, &flags, 0));
    flags = 0;
    FAILS(EOPNOTSUPP, rsp_recv(client, buffer, BUFFER, MSG_PEEK));
    FAILS(EAGAIN, rsp_recv(client, buffer, BUFFER, MSG_DONTWAIT));
    FAILS(EOPNOTSUPP, rsp_send(client, "x", 1, MSG_OOB));
    FAILS(EOPNOTSUPP, rsp_sendmsg(client, "x", 1, MSG_OOB, 0, 0, 0, 0, 0, 0));
    FAILS(EOPNOTSUPP, rsp_setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof(time)));
    FAILS(EOPNOTSUPP, rsp_setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof(time)));
    OK(fcntl(client, F_SETFL, O_NONBLOCK));
    OK(fcntl(server, F_SETFL, O_NONBLOCK));
    OK(fcntl(listener, F_SETFL, O_NONBLOCK));
    FAILS(EAGAIN, rsp_recvmsg(client, buffer, BUFFER, NULL, &flags, SOON));
    FAILS(EAGAIN, rsp_recvfullmsg(client, buffer, BUFFER, NULL, &flags, -1));
    FAILS(EAGAIN, rsp_recvmsg(server, buffer, BUFFER, NULL, &flags, SOON));
    FAILS(EAGAIN, rsp_accept(listener, -1));
    OK(rsp_sendmsg(client, "here", 4, MSG_DONTWAIT | MSG_NOSIGNAL, 0, 0, 0, 0, 0, SOON));
    fill(client, 0);
    FAILS(EAGAIN, rsp_sendmsg(client, "x", 1, 0, 0, 0, 0, 0, 0, SOON));
    fill(server, session);
    FAILS(EAGAIN, rsp_send_cookie(server, NAME("cookie"), session, -1));
    /* New values, which never wait anyway. */
    OK(rsp_register(server, NAME("Never"), &load, 30000, 0));
    OK(rsp_deregister(server, 0));
    OK(rsp_close(client));
    OK(rsp_close(server));
    OK(rsp_close(listener));
}

/* Elements that can't be reached, and why. */
static void unreachable(void)
{
    struct TagItem tags[] = {{TAG_RspSession_ConnectTimeout, 300000}, {TAG_RspSession_HandleResolutionRetryDelay, 1000}, {TAG_DONE, 0}};
    struct crowded full;
    int closed, sd;
    struct sockaddr_in address = bound(&closed);
    uint32_t id = elsewhere("Closed", &address, IPPROTO_TCP);

    OK(sd = rsp_socket(0, SOCK_SEQPACKET, PROTOCOL));
    SETS(ECONNREFUSED, rsp_connect_tags(sd, NAME("Closed"), 0, tags));
    FAILS(ECONNREFUSED, rsp_forcefailover(sd, FFF_NONE, 0));
    SAME(RSPERR_OKAY, rsp_pe_deregistration(NAME("Closed"), id, 0));
    SETS(ENOENT, rsp_forcefailover(sd, FFF_NONE, 0));
    OK(rsp_close(sd));
    OK(close(closed));

    address = crowd(&full);
    id = elsewhere("Full", &address, IPPROTO_TCP);
    OK(sd = rsp_socket(0, SOCK_SEQPACKET, PROTOCOL));
    SETS(ETIMEDOUT, rsp_connect_tags(sd, NAME("Full"), 0, tags));
    FAILS(ETIMEDOUT, rsp_forcefailover(sd, FFF_NONE, 0));
    OK(rsp_close(sd));
    SAME(RSPERR_OKAY, rsp_pe_deregistration(NAME("Full"), id, 0));
    disperse(&full);

    id = elsewhere("Datagrams", &address, IPPROTO_UDP);
    OK(sd = rsp_socket(0, SOCK_SEQPACKET, PROTOCOL));
    SETS(EPROTONOSUPPORT, rsp_connect_tags(sd, NAME("Datagrams"), 0, tags));
    FAILS(EPROTONOSUPPORT, rsp_forcefailover(sd, FFF_NONE, 0));
    OK(rsp_close(sd));
    SAME(RSPERR_OKAY, rsp_pe_deregistration(NAME("Datagrams"), id, 0));
}

static void* close_under(void* argument)
{
    struct sleeper* user = argument;

    until_asleep(user);
    OK(rsp_close(user->sd));
    return NULL;
}

/* Nor does closing wait for the registrar's answer. */
static void closed_while_resolving(void)
{
    struct timespec before, after;
    pthread_t closer;
    struct sleeper user = {(int)OK(rsp_socket(0, SOCK_SEQPACKET, PROTOCOL)), 0};

    is_me(&user);
    SAME(0, pthread_create(&closer, NULL, close_under, &user));
    clock_gettime(CLOCK_MONOTONIC, &before);
    FAILS(EBADF, rsp_connect(user.sd, NAME("Silence"), 0));
    clock_gettime(CLOCK_MONOTONIC, &after);
    HOLDS(after.tv_sec - before.tv_sec < 5);
    SAME(0, pthread_join(closer, NULL));
}

static void* resolve(void* argument)
{
    struct rsp_addrinfo* list;

    is_me(argument);
    FAILS(EACCES, rsp_getaddrinfo(NAME("Silence"), &list, 1, 0));
    return NULL;
}

/* Nor does the library's end. */
static void ended_while_resolving(void)
{
    struct sleeper user = {-1, 0};
    pthread_t thread;

    SAME(0, pthread_create(&thread, NULL, resolve, &user));
    until_asleep(&user);
    rsp_cleanup();
    SAME(0, pthread_join(thread, NULL));
}

/* A registrar that says nothing. */
static void silent_registrar(void)
{
    struct rsp_addrinfo* list;
    struct rsp_addrinfo info;
    int registrar, sd;
    struct sockaddr_in address = bound(&registrar);

    OK(listen(registrar, 5));
    start_with(&address, 200);
    info = at(&address, IPPROTO_TCP);
    FAILS(EIO, rsp_getaddrinfo(NAME("Silence"), &list, 1, 0));
    SAME(RSPERR_TIMEOUT, rsp_pe_registration(NAME("Silence"), &info, NULL, 30000, 0));
    SAME(RSPERR_TIMEOUT, rsp_pe_deregistration(NAME("Silence"), info.ai_pe_id, 0));
    OK(sd = rsp_socket(0, SOCK_SEQPACKET, PROTOCOL));
    SETS(EIO, rsp_connect(sd, NAME("Silence"), 0));
    FAILS(EIO, rsp_forcefailover(sd, FFF_NONE, 0));
    OK(rsp_close(sd));
    rsp_cleanup();
    start_with(&address, 15000);
    closed_while_resolving();
    ended_while_resolving();
    OK(close(registrar));
}

/* A registrar that registers one element, which it is told of, and is never seen again. */
static void* brief_registrar(void* argument)
{
    const uint32_t* id = argument;
    unsigned char answer[24] = {3, 0, 0, 24, 0, 9, 0, 10, 'N', 'o', 'b', 'o', 'd', 'y', 0, 0, 0, 14, 0, 8};
    uint32_t network = htonl(*id);
    int listener = (int)id[1];
    int sd = accept(listener, NULL, NULL);

    OK(sd);
    OK(recv(sd, buffer, BUFFER, 0));
    memcpy(answer + 20, &network, 4);
    SAME(24, send(sd, answer, 24, MSG_NOSIGNAL));
    OK(close(listener));
    OK(shutdown(sd, SHUT_WR));
    while (recv(sd, buffer, BUFFER, 0) > 0) {
    }
    OK(close(sd));
    return NULL;
}

/* No registrar at all, if none runs on this machine. */
static void no_registrar(void)
{
    struct rsp_addrinfo* list;
    struct rsp_addrinfo info;
    pthread_t thread;
    int nobody, sd;
    struct sockaddr_in address = bound(&nobody);
    struct sockaddr_in usual = address;
    uint32_t registration[2] = {4711, (uint32_t)nobody};

    usual.sin_port = htons(ASAP_PORT);
    OK(sd = socket(AF_INET, SOCK_STREAM, 0));
    if (connect(sd, (struct sockaddr*)&usual, sizeof(usual)) == 0) {
        fprintf(stderr, "SKIPPED errors: no_registrar: a registrar runs on this machine\n");
        OK(close(sd));
        OK(close(nobody));
        return;
    }
    OK(close(sd));
    start_with(&address, 200);
    info = at(&address, IPPROTO_TCP);
    FAILS(EIO, rsp_getaddrinfo(NAME("Nobody"), &list, 1, 0));
    SAME(RSPERR_NO_REGISTRAR, rsp_pe_registration(NAME("Nobody"), &info, NULL, 30000, 0));
    /* No registrar knows it, so none needs to be told. */
    SAME(RSPERR_OKAY, rsp_pe_deregistration(NAME("Nobody"), info.ai_pe_id, 0));

    OK(listen(nobody, 5));
    info.ai_pe_id = registration[0];
    SAME(0, pthread_create(&thread, NULL, brief_registrar, registration));
    SAME(RSPERR_OKAY, rsp_pe_registration(NAME("Nobody"), &info, NULL, 300000, 0));
    SAME(RSPERR_NO_REGISTRAR, rsp_pe_deregistration(NAME("Nobody"), info.ai_pe_id, 0));
    SAME(0, pthread_join(thread, NULL));
    rsp_cleanup();
}

/* More requests than can wait for an answer. */
static void flooded(void)
{
    struct rsp_addrinfo* list;
    struct rsp_addrinfo info;
    int registrar;
    unsigned int result;
    struct sockaddr_in address = bound(&registrar);

    if (getenv("CHECK_SLOW") != NULL) {
        OK(close(registrar));
        return;
    }
    OK(listen(registrar, 5));
    start_with(&address, 60000);
    info = at(&address, IPPROTO_TCP);
    for (uint32_t id = 1; id <= 70000; id++) {
        info.ai_pe_id = id;
        result = rsp_pe_registration(NAME("Flood"), &info, NULL, 300000, REGF_DONTWAIT);
        HOLDS(result == RSPERR_OKAY || result == RSPERR_OUT_OF_MEMORY);
    }
    FAILS(ENOBUFS, rsp_getaddrinfo(NAME("Flood"), &list, 1, 0));
    SAME(RSPERR_OUT_OF_MEMORY, rsp_pe_registration(NAME("Flood"), &info, NULL, 300000, 0));
    rsp_cleanup();
    OK(close(registrar));
}

/* What the process may still map. */
static void leave(size_t bytes, struct rlimit* before)
{
    struct rlimit limit;
    unsigned long pages;
    FILE* file = fopen("/proc/self/statm", "r");

    HOLDS(file && fscanf(file, "%lu", &pages) == 1);
    fclose(file);
    OK(getrlimit(RLIMIT_AS, before));
    limit = *before;
    limit.rlim_cur = pages * (size_t)sysconf(_SC_PAGESIZE) + bytes;
    OK(setrlimit(RLIMIT_AS, &limit));
}

/* A long message whose backlog there is no memory for is refused before it begins. */
static void no_memory(void)
{
    const size_t length = 16u << 20;
    int server = element("Errors", SOCK_STREAM, 0), client, session;
    char* message = malloc(length);
    struct rlimit before;

    /* Valgrind needs the memory itself. */
    if (getenv("CHECK_SLOW")) {
        free(message);
        OK(rsp_close(server));
        return;
    }
    HOLDS(message != NULL);
    memset(message, 'a', length);
    client = user("Errors", SOCK_STREAM);
    SAME(1, OK(rsp_write(client, "1", 1)));
    session = (int)OK(rsp_accept(server, SOON));
    flags = 0;
    SAME(1, OK(rsp_recvfullmsg(session, buffer, BUFFER, NULL, &flags, SOON)));
    leave(8u << 20, &before);
    FAILS(ENOMEM, rsp_sendmsg(client, message, length, 0, 0, 0, 0, 0, 0, 0));
    FAILS(ENOMEM, rsp_sendmsg(client, message, length, 0, 0, 0, 0, 0, 0, SOON));
    FAILS(ENOMEM, rsp_sendmsg(session, message, length + 1, 0, 0, 0, 0, 0, 0, SOON));
    SAME(1, OK(rsp_write(client, "2", 1)));
    OK(setrlimit(RLIMIT_AS, &before));
    SAME(1, OK(rsp_recvfullmsg(session, buffer, BUFFER, NULL, &flags, SOON)));
    SAME('2', buffer[0]);
    /* With enough of it, the same message arrives. */
    SAME(length, OK(rsp_sendmsg(client, message, length, 0, 0, 0, 0, 0, 0, 0)));
    for (size_t have = 0; have < length;) {
        have += (size_t)OK(rsp_recvfullmsg(session, buffer, BUFFER, NULL, &flags, SOON));
        HOLDS(buffer[0] == 'a' && have <= length);
    }
    HOLDS(flags & MSG_EOR);
    free(message);
    OK(rsp_close(session));
    OK(rsp_close(client));
    OK(rsp_close(server));
}

int main(void)
{
    start();
    no_memory();
    arguments();
    roles();
    lost();
    interrupted();
    not_waiting();
    unreachable();
    rsp_cleanup();
    silent_registrar();
    no_registrar();
    flooded();
    return checked();
}
