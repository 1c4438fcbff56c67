/* Descriptors: making them, binding, options, mapping, poll and select, other event loops. */
#define _GNU_SOURCE

#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>

#include "pool.h"

static void making(void)
{
    struct sockaddr_in v4;
    int sd = (int)OK(rsp_socket(0, SOCK_STREAM, IPPROTO_SCTP));

    HOLDS(sd >= 3);
    HOLDS(OK(fcntl(sd, F_GETFD)) & FD_CLOEXEC);
    OK(rsp_close(sd));
    FAILS(EBADF, fcntl(sd, F_GETFD));
    OK(sd = rsp_socket(AF_INET, SOCK_SEQPACKET, IPPROTO_SCTP));
    OK(rsp_close(sd));
    OK(sd = rsp_socket(AF_INET6, SOCK_SEQPACKET, IPPROTO_SCTP));
    OK(rsp_close(sd));
    OK(sd = rsp_socket(0, SOCK_STREAM, IPPROTO_TCP));
    OK(rsp_close(sd));
    OK(sd = rsp_socket(0, SOCK_STREAM, 0));
    OK(rsp_close(sd));
    FAILS(EPROTONOSUPPORT, rsp_socket(0, SOCK_STREAM, IPPROTO_UDP));
    FAILS(EPROTONOSUPPORT, rsp_socket(0, SOCK_DGRAM, IPPROTO_SCTP));
    FAILS(EAFNOSUPPORT, rsp_socket(AF_UNIX, SOCK_STREAM, IPPROTO_SCTP));

    OK(sd = rsp_socket(AF_INET, SOCK_STREAM, IPPROTO_SCTP));
    memset(&v4, 0, sizeof(v4));
    v4.sin_family = AF_INET;
    v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    FAILS(EFAULT, rsp_bind(sd, NULL, 1));
    OK(rsp_bind(sd, (struct sockaddr*)&v4, 1));
    FAILS(EINVAL, rsp_bind(sd, (struct sockaddr*)&v4, 1));
    OK(rsp_listen(sd, 5));
    OK(rsp_listen(sd, 1));
    OK(rsp_close(sd));
    v4.sin_family = AF_UNIX;
    OK(sd = rsp_socket(0, SOCK_STREAM, IPPROTO_SCTP));
    FAILS(EAFNOSUPPORT, rsp_bind(sd, (struct sockaddr*)&v4, 1));
    v4.sin_family = AF_INET;
    v4.sin_addr.s_addr = htonl(0xc0000201); /* 192.0.2.1: documentation, nobody's */
    FAILS(EADDRNOTAVAIL, rsp_bind(sd, (struct sockaddr*)&v4, 1));
    OK(rsp_close(sd));
}

static void options(void)
{
    struct rserpool_session_parameters parameters = {0, 0, 0, 0, 0, 0};
    int sd = (int)OK(rsp_socket(0, SOCK_SEQPACKET, IPPROTO_SCTP));
    int value = 0;
    socklen_t length = sizeof(value);
    int client;

    OK(rsp_update_session_parameters(sd, &parameters));
    SAME(2000, parameters.sp_rto_initial);
    SAME(1000, parameters.sp_rto_min);
    SAME(5000, parameters.sp_rto_max);
    SAME(8, parameters.sp_assoc_max_rxt);
    SAME(3, parameters.sp_path_max_rxt);
    SAME(15000, parameters.sp_hbinterval);
    memset(&parameters, 0, sizeof(parameters));
    parameters.sp_rto_max = 3000;
    OK(rsp_update_session_parameters(sd, &parameters));
    SAME(3000, parameters.sp_rto_max);
    SAME(2000, parameters.sp_rto_initial);
    FAILS(EFAULT, rsp_update_session_parameters(sd, NULL));
    OK(rsp_close(sd));

    sd = element("Options", SOCK_SEQPACKET, 0);
    OK(rsp_getsockopt(sd, SOL_SOCKET, SO_ACCEPTCONN, &value, &length));
    SAME(1, value);
    value = 1;
    OK(rsp_setsockopt(sd, SOL_SOCKET, SO_KEEPALIVE, &value, sizeof(value)));
    value = 0;
    OK(rsp_getsockopt(sd, SOL_SOCKET, SO_KEEPALIVE, &value, &length));
    SAME(1, value);
    FAILS(ENOPROTOOPT, rsp_setsockopt(sd, SOL_SOCKET, 0x7fff, &value, sizeof(value)));
    FAILS(EFAULT, rsp_setsockopt(sd, SOL_SOCKET, SO_KEEPALIVE, NULL, sizeof(value)));

    /* Parameters hold at once, and never as the kernel's own limit, which takes a peer that doesn't read for gone. */
    OK(rsp_close(sd));
    OK(sd = rsp_socket(0, SOCK_STREAM, IPPROTO_TCP));
    OK(rsp_listen(sd, 5));
    OK(rsp_register(sd, (const unsigned char*)"Options", 7, NULL, 30000, 0));
    client = user("Options", SOCK_STREAM);
    OK(rsp_update_session_parameters(client, &parameters));
    OK(rsp_getsockopt(client, IPPROTO_TCP, TCP_USER_TIMEOUT, &value, &length));
    SAME(0, value);
    parameters.sp_rto_initial = parameters.sp_rto_min = parameters.sp_rto_max = 100;
    OK(rsp_update_session_parameters(client, &parameters));
    OK(rsp_getsockopt(client, IPPROTO_TCP, TCP_USER_TIMEOUT, &value, &length));
    SAME(0, value);
    OK(rsp_close(client));
    OK(rsp_close(sd));
}

static void mapping(void)
{
    char buffer[8];
    int ends[2];
    int mapped;
    struct pollfd entry;
    unsigned char handle[32];
    size_t size = sizeof(handle);

    OK(pipe(ends));
    FAILS(EINVAL, rsp_mapsocket(-1, -1));
    mapped = (int)OK(rsp_mapsocket(ends[0], -1));
    HOLDS(mapped > 0);
    FAILS(EMFILE, rsp_mapsocket(ends[1], mapped));
    /* Once more is the same; it may be another file that got the number meanwhile. */
    SAME(mapped, rsp_mapsocket(ends[0], -1));
    FAILS(EMFILE, rsp_mapsocket(ends[0], mapped));
    entry.fd = mapped;
    entry.events = POLLIN;
    SAME(0, OK(rsp_poll(&entry, 1, 0)));
    SAME(3, write(ends[1], "abc", 3));
    SAME(1, OK(rsp_poll(&entry, 1, SOON)));
    SAME(POLLIN, entry.revents);
    SAME(3, rsp_read(mapped, buffer, sizeof(buffer)));
    FAILS(EBADF, rsp_write(mapped, "x", 1));
    FAILS(ENOTSOCK, rsp_send(mapped, "x", 1, 0));
    FAILS(EBADF, rsp_getsockname(mapped, handle, &size, NULL));
    OK(rsp_unmapsocket(mapped));
    FAILS(EBADF, rsp_unmapsocket(mapped));
    OK(fcntl(ends[0], F_GETFD));
    /* Closing a mapped descriptor closes what is behind it. */
    mapped = (int)OK(rsp_mapsocket(ends[0], -1));
    OK(rsp_close(mapped));
    FAILS(EBADF, fcntl(ends[0], F_GETFD));
    OK(close(ends[1]));
    /* 0, 1 and 2 are there from the beginning. */
    FAILS(EMFILE, rsp_mapsocket(0, 1));
    SAME(0, rsp_mapsocket(0, -1));
    OK(rsp_write(1, "", 0));
    /* A descriptor of ours is no mapping. */
    mapped = (int)OK(rsp_socket(0, SOCK_STREAM, IPPROTO_SCTP));
    FAILS(EBADF, rsp_unmapsocket(mapped));
    OK(rsp_close(mapped));
}

/* Is it readable for everybody who can ask? */
static int readable(int sd, int timeout)
{
    struct pollfd entry = {sd, POLLIN, 0};
    struct pollfd ours = {sd, POLLIN, 0};
    struct epoll_event event;
    struct timeval none = {0, 0};
    struct timeval given = {timeout / 1000, timeout % 1000 * 1000};
    fd_set set;
    int result = (int)OK(rsp_poll(&ours, 1, timeout));
    int loop = (int)OK(epoll_create1(EPOLL_CLOEXEC));

    SAME(result ? POLLIN : 0, ours.revents);
    SAME(result, OK(poll(&entry, 1, timeout)));
    FD_ZERO(&set);
    FD_SET(sd, &set);
    SAME(result, OK(select(sd + 1, &set, NULL, NULL, &given)));
    FD_ZERO(&set);
    FD_SET(sd, &set);
    SAME(result, OK(rsp_select(sd + 1, &set, NULL, NULL, &none)));
    SAME(result, FD_ISSET(sd, &set) ? 1 : 0);
    memset(&event, 0, sizeof(event));
    event.events = EPOLLIN;
    OK(epoll_ctl(loop, EPOLL_CTL_ADD, sd, &event));
    SAME(result, OK(epoll_wait(loop, &event, 1, timeout)));
    OK(close(loop));
    return result;
}

/* Readable exactly when there is something to receive or to accept. */
static void readiness(void)
{
    struct delivery d;
    int server = element("Ready", SOCK_SEQPACKET, 0);
    int client, session;

    SAME(0, readable(server, 0));
    client = user("Ready", SOCK_SEQPACKET);
    SAME(1, readable(server, SOON));
    session = expect_session(server, RSERPOOL_SESSION_ADD);
    SAME(0, readable(server, 0));
    SAME(0, readable(client, 0));
    send_text(client, 0, "one");
    send_text(client, 0, "two");
    SAME(1, readable(server, SOON));
    expect_text(server, "one");
    SAME(1, readable(server, SOON));
    expect_text(server, "two");
    SAME(0, readable(server, 0));
    /* A cookie is nothing to receive for a user.. */
    SAME(3, rsp_send_cookie(server, (const unsigned char*)"abc", 3, session, SOON));
    send_text(server, session, "after");
    SAME(1, readable(client, SOON));
    expect_text(client, "after");
    SAME(0, readable(client, 0));
    /* ..its echo is, for the element. */
    OK(rsp_forcefailover(client, FFF_NONE, 0));
    SAME(1, readable(client, SOON));
    expect_failover(client, RSERPOOL_FAILOVER_COMPLETE, true);
    do {
        SAME(1, readable(server, SOON));
        d = receive(server, SOON);
        HOLDS(d.length >= 0 || errno == EAGAIN);
    } while (!(d.flags & MSG_RSERPOOL_COOKIE_ECHO));
    /* A failure is. */
    OK(rsp_close(server));
    SAME(1, readable(client, SOON));
    expect_failover(client, RSERPOOL_FAILOVER_NECESSARY, true);
    OK(rsp_close(client));
    /* A connection that failed from the start is, too. */
    client = (int)OK(rsp_socket(0, SOCK_SEQPACKET, IPPROTO_SCTP));
    SAME(0, readable(client, 0));
    SAME(0, rsp_connect(client, (const unsigned char*)"Nowhere", 7, 0));
    SAME(1, readable(client, SOON));
    expect_failover(client, RSERPOOL_FAILOVER_NECESSARY, false);
    OK(rsp_close(client));
    /* And somebody to accept. */
    server = element("Ready", SOCK_STREAM, 0);
    SAME(0, readable(server, 0));
    client = user("Ready", SOCK_STREAM);
    SAME(1, readable(server, SOON));
    session = (int)OK(rsp_accept(server, 0));
    SAME(0, readable(server, 0));
    SAME(0, readable(session, 0));
    OK(rsp_close(client));
    SAME(1, readable(session, SOON));
    OK(rsp_close(session));
    OK(rsp_close(server));
}

static void polling(void)
{
    int server = element("Polled", SOCK_SEQPACKET, 0);
    int client = user("Polled", SOCK_SEQPACKET);
    int ends[2];
    struct pollfd entries[4];
    struct timeval bad = {0, 1000000};
    fd_set reading, writing, others;

    OK(pipe(ends));
    expect_session(server, RSERPOOL_SESSION_ADD);
    /* Ours and ordinary ones in one call; each ready one counts once. */
    entries[0] = (struct pollfd){server, POLLIN, 99};
    entries[1] = (struct pollfd){client, POLLIN | POLLOUT, 99};
    entries[2] = (struct pollfd){ends[1], POLLOUT, 99};
    entries[3] = (struct pollfd){-1, POLLIN, 99};
    SAME(2, OK(rsp_poll(entries, 4, SOON)));
    SAME(0, entries[0].revents);
    SAME(POLLOUT, entries[1].revents);
    SAME(POLLOUT, entries[2].revents);
    SAME(0, entries[3].revents);
    entries[0] = (struct pollfd){987654, POLLIN, 0};
    SAME(1, OK(rsp_poll(entries, 1, 0)));
    SAME(POLLNVAL, entries[0].revents);
    SAME(0, OK(rsp_poll(NULL, 0, 0)));
    FAILS(EFAULT, rsp_poll(NULL, 1, 0));

    FD_ZERO(&reading);
    FD_ZERO(&writing);
    FD_ZERO(&others);
    FD_SET(server, &reading);
    FD_SET(client, &reading);
    FD_SET(client, &writing);
    FD_SET(ends[1], &writing);
    FD_SET(client, &others);
    send_text(client, 0, "x");
    entries[0] = (struct pollfd){server, POLLIN, 0};
    SAME(1, OK(rsp_poll(entries, 1, SOON)));
    SAME(3, OK(rsp_select(1024, &reading, &writing, &others, NULL)));
    HOLDS(FD_ISSET(server, &reading) && !FD_ISSET(client, &reading));
    HOLDS(FD_ISSET(client, &writing) && FD_ISSET(ends[1], &writing));
    HOLDS(!FD_ISSET(client, &others));
    expect_text(server, "x");
    FAILS(EINVAL, rsp_select(-1, NULL, NULL, NULL, NULL));
    FAILS(EINVAL, rsp_select(FD_SETSIZE + 1, NULL, NULL, NULL, NULL));
    FAILS(EINVAL, rsp_select(0, NULL, NULL, NULL, &bad));
    FD_ZERO(&reading);
    FD_SET(1000, &reading);
    FAILS(EBADF, rsp_select(1001, &reading, NULL, NULL, NULL));
    OK(rsp_close(client));
    OK(rsp_close(server));
    OK(close(ends[0]));
    OK(close(ends[1]));
}

/* Sessions by their sockets, listeners as poll(2) sees them; what was read ahead, failures and failovers count. */
static void waiting_sets(void)
{
    int server = element("Sets", SOCK_STREAM, 0);
    int set = (int)OK(rsp_waitset_create());
    int client = user("Sets", SOCK_SEQPACKET);
    struct pollfd ready[4];
    static char bytes[65536];
    int session, second;

    FAILS(EBADF, rsp_waitset_set(987654, client, POLLIN));
    FAILS(EBADF, rsp_waitset_set(set, 987654, POLLIN));
    FAILS(EBADF, rsp_waitset_wait(987654, ready, 4, 0));
    FAILS(EINVAL, rsp_waitset_set(set, client, POLLPRI));
    FAILS(EINVAL, rsp_waitset_wait(set, ready, 0, 0));
    FAILS(EFAULT, rsp_waitset_wait(set, NULL, 4, 0));
    SAME(0, OK(rsp_waitset_wait(set, ready, 4, 0)));

    OK(rsp_waitset_set(set, server, POLLIN));
    send_text(client, 0, "one");
    SAME(1, OK(rsp_waitset_wait(set, ready, 4, SOON)));
    SAME(server, ready[0].fd);
    SAME(POLLIN, ready[0].revents);
    OK(session = rsp_accept(server, SOON));

    /* Readable, writable, both, nothing. */
    OK(rsp_waitset_set(set, session, POLLIN | POLLOUT));
    do {
        SAME(1, OK(rsp_waitset_wait(set, ready, 4, SOON)));
        SAME(session, ready[0].fd);
        HOLDS(ready[0].revents & POLLOUT);
    } while (!(ready[0].revents & POLLIN));
    expect_text(session, "one");
    SAME(1, OK(rsp_waitset_wait(set, ready, 4, SOON)));
    SAME(POLLOUT, ready[0].revents);
    OK(rsp_waitset_set(set, session, POLLIN));
    SAME(0, OK(rsp_waitset_wait(set, ready, 4, 0)));

    /* Two messages that come with one read are told twice. */
    send_text(client, 0, "two");
    send_text(client, 0, "three");
    SAME(1, OK(rsp_waitset_wait(set, ready, 4, SOON)));
    expect_text(session, "two");
    SAME(1, OK(rsp_waitset_wait(set, ready, 4, SOON)));
    SAME(session, ready[0].fd);
    expect_text(session, "three");
    SAME(0, OK(rsp_waitset_wait(set, ready, 4, 0)));

    /* Full: not writable, until the peer reads. */
    OK(rsp_waitset_set(set, session, 0));
    fill(session, 0);
    OK(rsp_waitset_set(set, session, POLLOUT));
    SAME(0, OK(rsp_waitset_wait(set, ready, 4, 0)));
    do {
        while (rsp_recvmsg(client, bytes, sizeof(bytes), NULL, &(int){0}, 0) >= 0) {
        }
    } while (OK(rsp_waitset_wait(set, ready, 4, 10)) == 0);
    SAME(session, ready[0].fd);
    SAME(POLLOUT, ready[0].revents);

    /* The session fails over, and stays. */
    OK(rsp_waitset_set(set, server, 0));
    OK(rsp_waitset_set(set, session, 0));
    OK(rsp_waitset_set(set, client, POLLIN));
    while (rsp_recvmsg(client, bytes, sizeof(bytes), NULL, &(int){0}, 100) >= 0) {
    }
    OK(rsp_close(session));
    SAME(1, OK(rsp_waitset_wait(set, ready, 4, SOON)));
    SAME(client, ready[0].fd);
    expect_failover(client, RSERPOOL_FAILOVER_NECESSARY, false);
    SAME(1, OK(rsp_waitset_wait(set, ready, 4, SOON)));
    OK(rsp_forcefailover(client, 0, 0));
    SAME(1, OK(rsp_waitset_wait(set, ready, 4, SOON)));
    SAME(client, ready[0].fd);
    expect_failover(client, RSERPOOL_FAILOVER_COMPLETE, false);
    send_text(client, 0, "again");
    OK(second = rsp_accept(server, SOON));
    expect_text(second, "again");
    send_text(second, 0, "answer");
    SAME(1, OK(rsp_waitset_wait(set, ready, 4, SOON)));
    SAME(client, ready[0].fd);
    expect_text(client, "answer");
    SAME(0, OK(rsp_waitset_wait(set, ready, 4, 0)));

    /* Who is closed is gone. */
    OK(rsp_waitset_set(set, second, POLLIN | POLLOUT));
    OK(rsp_close(second));
    OK(rsp_close(client));
    SAME(0, OK(rsp_waitset_wait(set, ready, 4, 0)));
    OK(rsp_close(set));
    FAILS(EBADF, rsp_waitset_wait(set, ready, 4, 0));
    OK(rsp_close(server));
}

int main(void)
{
    start();
    making();
    options();
    mapping();
    readiness();
    polling();
    waiting_sets();
    rsp_cleanup();
    return checked();
}
