/* What programs made for rsplib rely on, however it reads; src/ffi/legacy says why. */
#define _GNU_SOURCE

#include <pthread.h>
#include <stdarg.h>
#include <time.h>

#include "asleep.h"
#include "pool.h"

int rsp_socket_internal(int domain, int type, int protocol, int system_socket);

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* -1 is "don't wait" for messages. A wait would last for ever, and fail the test by that. */
static void minus_one_does_not_wait(void)
{
    char buffer[64];
    int flags = 0;
    int server = element("Old", SOCK_SEQPACKET, 0);
    int client = user("Old", SOCK_SEQPACKET);

    FAILS(EAGAIN, rsp_recvmsg(client, buffer, sizeof(buffer), NULL, &flags, -1));
    FAILS(EAGAIN, rsp_read(client, buffer, sizeof(buffer)));
    fill(client, 0);
    FAILS(EAGAIN, rsp_sendmsg(client, buffer, sizeof(buffer), 0, 0, 0, 0, 0, 0, -1));
    FAILS(EAGAIN, rsp_sendmsg(client, buffer, sizeof(buffer), 0, 0, 0, 0, 0, 0, 0));
    FAILS(EAGAIN, rsp_write(client, buffer, sizeof(buffer)));
    OK(rsp_close(client));
    OK(rsp_close(server));
}

struct late {
    int session;
    struct sleeper user;
};

static void* send_later(void* argument)
{
    struct late* late = argument;

    until_asleep(&late->user);
    send_text(late->session, 0, "late");
    return NULL;
}

/* In rsp_recvfullmsg -1 waits. */
static void minus_one_waits_for_full_messages(void)
{
    char buffer[64];
    int flags = 0;
    int server = element("Old", SOCK_STREAM, 0);
    int client = user("Old", SOCK_STREAM);
    struct late late = {(int)OK(rsp_accept(server, -1)), {client, 0}};
    pthread_t sender;

    is_me(&late.user);
    SAME(0, pthread_create(&sender, NULL, send_later, &late));
    SAME(4, rsp_recvfullmsg(client, buffer, sizeof(buffer), NULL, &flags, -1));
    SAME(MSG_EOR, flags);
    SAME(0, pthread_join(sender, NULL));
    OK(rsp_close(client));
    OK(rsp_close(late.session));
    OK(rsp_close(server));
}

/* Flags are added to what the variable holds, but a part of a message is no end of one. */
static void flags_accumulate(void)
{
    char buffer[64];
    int flags = 0x1000;
    int server = element("Old", SOCK_SEQPACKET, 0);
    int client = user("Old", SOCK_SEQPACKET);

    SAME(20, rsp_recvmsg(server, buffer, sizeof(buffer), NULL, &flags, SOON));
    SAME(0x1000 | MSG_EOR | MSG_RSERPOOL_NOTIFICATION, flags);
    send_text(client, 0, "parts");
    SAME(3, rsp_recvmsg(server, buffer, 3, NULL, &flags, SOON));
    SAME(0x1000 | MSG_RSERPOOL_NOTIFICATION, flags);
    SAME(2, rsp_recvfullmsg(server, buffer, 3, NULL, &flags, SOON));
    SAME(0x1000 | MSG_EOR | MSG_RSERPOOL_NOTIFICATION, flags);
    send_text(client, 0, "whole");
    SAME(3, rsp_recvfullmsg(server, buffer, 3, NULL, &flags, SOON));
    SAME(0x1000 | MSG_RSERPOOL_NOTIFICATION, flags);
    /* Nothing came, nothing changes. */
    flags |= MSG_EOR;
    FAILS(EBADF, rsp_recvmsg(-1, buffer, 3, NULL, &flags, 0));
    SAME(0x1000 | MSG_EOR | MSG_RSERPOOL_NOTIFICATION, flags);
    OK(rsp_close(client));
    OK(rsp_close(server));
}

/* Connecting and moving to an empty pool succeed; moving pauses, so that loops around it don't spin. */
static void an_empty_pool_is_no_failure(void)
{
    int client = (int)OK(rsp_socket(0, SOCK_SEQPACKET, IPPROTO_SCTP));
    double begin;

    SETS(ENOENT, rsp_connect(client, (const unsigned char*)"Empty", 5, 0));
    begin = now();
    SETS(ENOENT, rsp_forcefailover(client, FFF_UNREACHABLE, 0));
    HOLDS(now() - begin >= 0.24);
    OK(rsp_close(client));
}

/* The echo's PPID is 11 in host order, data's PPIDs are as sent. */
static void echo_ppid(void)
{
    struct delivery d;
    int server = element("Old", SOCK_STREAM, 0);
    int client = user("Old", SOCK_STREAM);
    int session = (int)OK(rsp_accept(server, SOON));

    SAME(1, rsp_send_cookie(session, (const unsigned char*)"c", 1, 0, SOON));
    send_text(session, 0, "x");
    expect_text(client, "x");
    OK(rsp_forcefailover(client, FFF_NONE, 0));
    OK(rsp_close(session));
    session = (int)OK(rsp_accept(server, SOON));
    d = receive(session, SOON);
    SAME(MSG_EOR | MSG_RSERPOOL_COOKIE_ECHO, d.flags);
    SAME(11, d.info.rinfo_ppid);
    OK(rsp_close(client));
    OK(rsp_close(session));
    OK(rsp_close(server));
}

/* ai_addrlen is 28 whatever the family; no number of items means one. */
static void resolution(void)
{
    struct rsp_addrinfo* list;
    int one = element("Old", SOCK_STREAM, 0);
    int two = element("Old", SOCK_STREAM, 0);

    SAME(1, rsp_getaddrinfo((const unsigned char*)"Old", 3, &list, 0, 0));
    SAME(28, list->ai_addrlen);
    rsp_freeaddrinfo(list);
    /* The cache may have the pool from before, and hears of both in a moment. */
    int found = 0;
    for (int looks = 0; found < 2 && looks < SOON / 10; looks++) {
        found = rsp_getaddrinfo((const unsigned char*)"Old", 3, &list, RSPGETADDRS_MAX, 0);
        if (OK(found) > 0)
            rsp_freeaddrinfo(list);
        if (found < 2)
            poll(NULL, 0, 10);
    }
    SAME(2, found);
    OK(rsp_close(one));
    OK(rsp_close(two));
}

static void printed(const char* expected, const union rserpool_notification* notification)
{
    char* text = NULL;
    size_t size = 0;
    FILE* stream = open_memstream(&text, &size);

    rsp_print_notification(notification, stream);
    fclose(stream);
    SAME_TEXT(expected, text);
    free(text);
}

static void printing(void)
{
    union rserpool_notification n;

    memset(&n, 0, sizeof(n));
    n.rn_header.rn_type = RSERPOOL_SESSION_CHANGE;
    n.rn_session_change.rsc_session = 5;
    n.rn_session_change.rsc_state = RSERPOOL_SESSION_ADD;
    printed("RSERPOOL_SESSION_CHANGE for session 5, state=RSERPOOL_SESSION_ADD", &n);
    n.rn_session_change.rsc_state = RSERPOOL_SESSION_REMOVE;
    printed("RSERPOOL_SESSION_CHANGE for session 5, state=RSERPOOL_SESSION_REMOVE", &n);
    n.rn_session_change.rsc_state = 9;
    printed("RSERPOOL_SESSION_CHANGE for session 5, state=Unknown state 9!", &n);
    memset(&n, 0, sizeof(n));
    n.rn_header.rn_type = RSERPOOL_FAILOVER;
    n.rn_failover.rf_session = 1;
    n.rn_failover.rf_state = RSERPOOL_FAILOVER_NECESSARY;
    n.rn_failover.rf_has_cookie = 1;
    printed("RSERPOOL_FAILOVER for session 1, state=RSERPOOL_FAILOVER_NECESSARY, cookie=yes", &n);
    n.rn_failover.rf_state = RSERPOOL_FAILOVER_COMPLETE;
    n.rn_failover.rf_has_cookie = 0;
    printed("RSERPOOL_FAILOVER for session 1, state=RSERPOOL_FAILOVER_COMPLETE, cookie=no", &n);
    memset(&n, 0, sizeof(n));
    n.rn_header.rn_type = RSERPOOL_SHUTDOWN_EVENT;
    n.rn_shutdown_event.rse_session = 7;
    printed("RSERPOOL_SHUTDOWN_EVENT for session 7", &n);
    n.rn_header.rn_type = 77;
    printed("Unknown type 77!", &n);
    rsp_print_notification(NULL, stdout);
    rsp_print_notification(&n, NULL);
}

/* Exported by rsplib without being in a header. */
static void internal_socket(void)
{
    int sd = (int)OK(rsp_socket_internal(0, SOCK_SEQPACKET, IPPROTO_SCTP, -1));

    OK(rsp_close(sd));
    FAILS(EOPNOTSUPP, rsp_socket_internal(0, SOCK_SEQPACKET, IPPROTO_SCTP, 0));
    FAILS(EPROTONOSUPPORT, rsp_socket_internal(0, SOCK_DGRAM, IPPROTO_SCTP, -1));
}

int main(void)
{
    printing();
    start();
    minus_one_does_not_wait();
    minus_one_waits_for_full_messages();
    flags_accumulate();
    an_empty_pool_is_no_failure();
    echo_ppid();
    resolution();
    internal_socket();
    rsp_cleanup();
    return checked();
}
