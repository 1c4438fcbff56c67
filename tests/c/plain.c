/* An ordinary TCP server in a pool: its users' sessions are plain byte streams, with failover, without cookies. */
#define _POSIX_C_SOURCE 200809L

#include <sys/socket.h>

#include "pool.h"

#define NAME(text) (const unsigned char*)(text), strlen(text)

/* A listening socket, registered as it is: no control channel. */
static int server(uint32_t* id)
{
    struct sockaddr_in address;
    struct rsp_addrinfo info;
    socklen_t length = sizeof(address);
    int sd = (int)OK(socket(AF_INET, SOCK_STREAM, 0));

    memset(&address, 0, sizeof(address));
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    OK(bind(sd, (struct sockaddr*)&address, sizeof(address)));
    OK(getsockname(sd, (struct sockaddr*)&address, &length));
    OK(listen(sd, 5));
    memset(&info, 0, sizeof(info));
    info.ai_protocol = IPPROTO_TCP;
    info.ai_addrs = 1;
    info.ai_addr = (struct sockaddr*)&address;
    SAME(RSPERR_OKAY, rsp_pe_registration(NAME("Web"), &info, NULL, 300000, 0));
    *id = info.ai_pe_id;
    return sd;
}

/* Exactly these bytes and no others. */
static void expect_bytes(int sd, const char* text)
{
    char bytes[64];

    SAME(strlen(text), recv(sd, bytes, strlen(text), MSG_WAITALL));
    SAME(0, memcmp(text, bytes, strlen(text)));
    SAME(-1, recv(sd, bytes, sizeof(bytes), MSG_DONTWAIT));
}

int main(void)
{
    /* At any time, and without a library. */
    SAME_TEXT(RSERPOOL_VERSION, rsp_version());
    SAME(RSERPOOL_VERSION_NUMBER, RSERPOOL_VERSION_MAJOR << 16 | RSERPOOL_VERSION_MINOR << 8 | RSERPOOL_VERSION_PATCH);
    struct delivery d;
    uint32_t first_id, second_id;
    int first, second, client, session;

    struct rsp_counters before, after;
    uint64_t part[2] = {1, 1}, longer[sizeof(before) / 8 + 1];

    /* Of any length that a program was compiled with. */
    SAME(sizeof(before), rsp_getcounters(&before, sizeof(before)));
    SAME(0, before.rc_registrations);
    SAME(sizeof(before), rsp_getcounters((struct rsp_counters*)part, 8));
    SAME(0, part[0]);
    SAME(1, part[1]);
    memset(longer, 1, sizeof(longer));
    SAME(sizeof(before), rsp_getcounters((struct rsp_counters*)longer, sizeof(longer)));
    SAME(0, longer[sizeof(before) / 8]);
    FAILS(EFAULT, rsp_getcounters(NULL, sizeof(before)));
    FAILS(EINVAL, rsp_getcounters(&before, 0));
    FAILS(EINVAL, rsp_getcounters(&before, 12));
    start();
    first = server(&first_id);
    client = user("Web", SOCK_SEQPACKET);
    SAME(first_id, peer_id(client));
    OK(session = accept(first, NULL, NULL));
    SAME(6, rsp_sendmsg(client, "GET /\n", 6, 0, 0, htonl(4711), 3, 0, 0, SOON));
    SAME(3, rsp_write(client, "abc", 3));
    expect_bytes(session, "GET /\nabc");
    SAME(5, send(session, "hello", 5, 0));
    d = expect_text(client, "hello");
    SAME(0, d.info.rinfo_ppid);
    SAME(0, d.info.rinfo_stream);
    SAME(first_id, d.info.rinfo_pe_id);
    SAME(0, rsp_has_cookie(client));

    /* The server goes: the session moves to another one. */
    second = server(&second_id);
    SAME(RSPERR_OKAY, rsp_pe_deregistration(NAME("Web"), first_id, 0));
    OK(close(session));
    expect_failover(client, RSERPOOL_FAILOVER_NECESSARY, false);
    while (rsp_forcefailover(client, FFF_UNREACHABLE, 0) < 0 || peer_id(client) != second_id) {
    }
    expect_failover(client, RSERPOOL_FAILOVER_COMPLETE, false);
    OK(session = accept(second, NULL, NULL));
    send_text(client, 0, "again");
    expect_bytes(session, "again");
    OK(rsp_getcounters(&after, sizeof(after)));
    SAME(2, after.rc_registrations);
    SAME(1, after.rc_deregistrations);
    SAME(1, after.rc_sessions_connected);
    SAME(1, after.rc_failovers);
    SAME(1, after.rc_registrars_found - after.rc_registrars_lost);
    HOLDS(after.rc_resolutions > 0 && after.rc_cache_misses > 0);
    /* "GET /\n", "abc" and "again"; the last perhaps not acknowledged. "hello". To the kernel, each SYN and FIN is a byte. */
    HOLDS(after.rc_bytes_sent >= 9 && after.rc_bytes_sent <= 18);
    HOLDS(after.rc_bytes_received >= 5 && after.rc_bytes_received <= 7);
    OK(rsp_close(client));
    SAME(0, recv(session, &d, sizeof(d), 0));
    OK(close(session));

    /* Without notifications the end is 0. */
    client = user("Web", SOCK_STREAM);
    OK(session = accept(second, NULL, NULL));
    SAME(3, send(session, "bye", 3, 0));
    OK(close(session));
    expect_text(client, "bye");
    d = receive(client, SOON);
    SAME(0, d.length);
    OK(rsp_close(client));
    OK(close(first));
    OK(close(second));
    rsp_cleanup();
    return checked();
}
