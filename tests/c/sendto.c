/* Messages to pools without a session, RFC 5352 section 6: rsp_sendto_pool, rsp_sendto_address, and the cache. */
#define _POSIX_C_SOURCE 200809L

#include <sys/resource.h>

#include "pool.h"

#define NAME(text) (const unsigned char*)(text), strlen(text)

static int sender(void)
{
    return (int)OK(rsp_socket(0, SOCK_SEQPACKET, PROTOCOL));
}

static int to_pool(int sd, const char* text, unsigned int options, const char* pool, uint32_t* id)
{
    return rsp_sendto_pool(sd, text, strlen(text), options, NAME(pool), id, 0, htonl(47), 1, 0, SOON);
}

/* The next message, past what is told of sessions. */
static struct delivery message(int sd)
{
    for (;;) {
        struct delivery d = receive(sd, SOON);

        OK(d.length);
        if (!(d.flags & MSG_RSERPOOL_NOTIFICATION)) {
            return d;
        }
    }
}

static void one_of_a_pool(void)
{
    int elements[] = {element("One", SOCK_SEQPACKET, 11), element("One", SOCK_SEQPACKET, 22)};
    int sd = sender();
    int got[2] = {0, 0};
    uint32_t id;
    struct delivery d;

    for (int i = 0; i < 4; i++) {
        id = 0;
        SAME(1, to_pool(sd, "hello", 0, "One", &id));
        HOLDS(id == 11 || id == 22);
        d = message(elements[id / 11 - 1]);
        SAME_TEXT("hello", d.bytes);
        SAME(htonl(47), d.info.rinfo_ppid);
        SAME(1, d.info.rinfo_stream);
        got[id / 11 - 1]++;
    }
    SAME(2, got[0]);
    SAME(2, got[1]);
    /* The answer says who it is from. */
    send_text(elements[id / 11 - 1], d.info.rinfo_session, "answer");
    d = expect_text(sd, "answer");
    SAME(id, d.info.rinfo_pe_id);
    send_text(sd, d.info.rinfo_session, "and again");
    SAME_TEXT("and again", message(elements[id / 11 - 1]).bytes);
    /* Whom the last one went to, and a certain one. */
    SAME(1, to_pool(sd, "last", ASAP_SEND_TO_LAST, "One", NULL));
    SAME_TEXT("last", message(elements[id / 11 - 1]).bytes);
    id = 11;
    SAME(1, to_pool(sd, "eleven", ASAP_SCTP_UNORDER, "One", &id));
    SAME(11, id);
    SAME_TEXT("eleven", message(elements[0]).bytes);
    id = 33;
    FAILS(ENOENT, rsp_sendto_pool(sd, "x", 1, 0, NAME("One"), &id, 0, 0, 0, 0, SOON));
    SAME(RSPERR_NOT_FOUND, rsp_geterror(sd));
    OK(rsp_close(sd));
    OK(rsp_close(elements[0]));
    OK(rsp_close(elements[1]));
}

static void all_of_a_pool(void)
{
    int elements[] = {element("All", SOCK_SEQPACKET, 1), element("All", SOCK_SEQPACKET, 2),
        element("All", SOCK_SEQPACKET, 3)};
    int sd = sender();

    SAME(3, to_pool(sd, "everybody", ASAP_SEND_TO_ALL, "All", NULL));
    for (int i = 0; i < 3; i++) {
        SAME_TEXT("everybody", message(elements[i]).bytes);
    }
    SAME(2, to_pool(elements[0], "you two", ASAP_SEND_TO_ALL, "All", NULL));
    SAME_TEXT("you two", message(elements[1]).bytes);
    SAME_TEXT("you two", message(elements[2]).bytes);
    SAME(3, to_pool(elements[0], "all of us", ASAP_SEND_TO_ALL | ASAP_SEND_TO_SELF, "All", NULL));
    for (int i = 0; i < 3; i++) {
        SAME_TEXT("all of us", message(elements[i]).bytes);
    }
    SAME(3, rsp_cache_populate(NAME("All")));
    SAME(0, rsp_cache_purge(NAME("All")));
    SAME(0, rsp_cache_populate(NAME("Nobody")));
    OK(rsp_close(sd));
    for (int i = 0; i < 3; i++) {
        OK(rsp_close(elements[i]));
    }
}

/* What was asked ahead of need is known until it is too old, or purged (RFC 5352 sections 6.3 and 6.4). */
static void ahead_of_need(void)
{
    struct rsp_addrinfo* list;
    int one = element("Ahead", SOCK_SEQPACKET, 1), two;

    SAME(1, rsp_cache_populate(NAME("Ahead")));
    two = element("Ahead", SOCK_SEQPACKET, 2);
    SAME(1, rsp_getaddrinfo(NAME("Ahead"), &list, RSPGETADDRS_MAX, 600000));
    SAME(1, list->ai_pe_id);
    rsp_freeaddrinfo(list);
    SAME(0, rsp_cache_purge(NAME("Ahead")));
    SAME(2, rsp_getaddrinfo(NAME("Ahead"), &list, RSPGETADDRS_MAX, 600000));
    rsp_freeaddrinfo(list);
    OK(rsp_close(two));
    OK(rsp_close(one));
}

/* Whom nobody reaches is passed over, or it is said. */
static void nobody_there(void)
{
    int listener, sd = sender();
    struct sockaddr_in address = bound(&listener);
    uint32_t gone;
    union rserpool_notification note;
    struct delivery d;
    int living;
    /* All elements of a pool have the same transport (RFC 5354 section 3.12, cause 0x7). */
    const char* transport = getenv("RSP_TRANSPORT");
    int protocol = transport != NULL && strcmp(transport, "tcp") == 0 ? IPPROTO_TCP : IPPROTO_SCTP;

    gone = elsewhere("Gone", &address, protocol);
    FAILS(ECONNREFUSED, rsp_sendto_pool(sd, "x", 1, ASAP_SEND_NO_FAILOVER, NAME("Gone"), NULL, 0, 0, 0, 0, SOON));
    living = element("Gone", SOCK_SEQPACKET, 5);
    {
        struct rsp_addrinfo info = at(&address, protocol);
        info.ai_pe_id = gone;
        SAME(RSPERR_OKAY, rsp_pe_registration(NAME("Gone"), &info, NULL, 300000, REGF_CONTROLCHANNEL));
    }
    SAME(1, to_pool(sd, "one of two", ASAP_SEND_TO_ALL, "Gone", NULL));
    SAME_TEXT("one of two", message(living).bytes);
    d = receive(sd, SOON);
    SAME(sizeof(note) + 10, d.length);
    HOLDS(d.flags & MSG_RSERPOOL_NOTIFICATION);
    memcpy(&note, d.bytes, sizeof(note));
    SAME(RSERPOOL_SEND_FAILED, note.rn_header.rn_type);
    SAME(sizeof(note), note.rn_header.rn_length);
    SAME(RSERPOOL_SEND_UNREACHED, note.rn_send_failed.rsf_state);
    SAME(gone, note.rn_send_failed.rsf_pe_id);
    SAME(10, note.rn_send_failed.rsf_message_length);
    SAME_TEXT("one of two", d.bytes + sizeof(note));
    SAME(1, to_pool(sd, "moved", ASAP_SEND_FAILOVER, "Gone", &gone));
    SAME(5, gone);
    SAME_TEXT("moved", message(living).bytes);
    OK(rsp_close(living));
    OK(rsp_close(sd));
    OK(close(listener));
}

static void an_address(void)
{
    int listener, sd = (int)OK(rsp_socket(0, SOCK_SEQPACKET, IPPROTO_TCP));
    struct sockaddr_in address = bound(&listener);
    struct sockaddr* at = (struct sockaddr*)&address;
    char text[8] = "";
    int peer;

    FAILS(ECONNREFUSED, rsp_sendto_address(sd, "plain", 5, 0, at, 0, 0, 0, SOON));
    OK(listen(listener, 5));
    OK(rsp_sendto_address(sd, "plain", 5, 0, at, 0, 0, 0, SOON));
    OK(peer = accept(listener, NULL, NULL));
    SAME(5, recv(peer, text, 5, MSG_WAITALL));
    SAME_TEXT("plain", text);
    SAME(4, write(peer, "back", 4));
    SAME(0, expect_text(sd, "back").info.rinfo_pe_id);
    FAILS(EINVAL, rsp_sendto_address(sd, "x", 1, ASAP_SEND_TO_ALL, at, 0, 0, 0, SOON));
    FAILS(EFAULT, rsp_sendto_address(sd, "x", 1, 0, NULL, 0, 0, 0, SOON));
    FAILS(EBADF, rsp_sendto_address(-1, "x", 1, 0, at, 0, 0, 0, SOON));
    address.sin_family = AF_UNIX;
    FAILS(EAFNOSUPPORT, rsp_sendto_address(sd, "x", 1, 0, at, 0, 0, 0, SOON));
    OK(close(peer));
    OK(close(listener));
    OK(rsp_close(sd));
}

/* The other end does not read: what does not fit is said so, or waited for. */
static void no_room(void)
{
    static char bytes[65536], longest[16 * 1024 * 1024 + 1];
    int server = element("Full", SOCK_SEQPACKET, 7), sd = sender();
    int result;

    /* The kernels go on moving bytes from one end to the other for a while: until neither end has room. */
    for (int wait = 0; wait <= 20; wait += 20) {
        do {
            result = rsp_sendto_pool(sd, bytes, sizeof(bytes), 0, NAME("Full"), NULL, 60000, 0, 0, 0, wait);
        } while (result == 1);
        FAILED(EAGAIN, rsp_sendto_pool, result);
    }
    OK(rsp_close(sd));
    sd = sender();
    FAILS(EMSGSIZE, rsp_sendto_pool(sd, longest, sizeof(longest), 0, NAME("Full"), NULL, 0, 0, 0, 0, 0));
    OK(rsp_close(sd));
    OK(rsp_close(server));
}

static void wrong_arguments(void)
{
    static unsigned char longest[LONGEST + 1];
    int server = element("Args", SOCK_SEQPACKET, 9), sd = sender();
    int stream = (int)OK(rsp_socket(0, SOCK_STREAM, PROTOCOL)), client = user("Args", SOCK_SEQPACKET);

    FAILS(EBADF, rsp_sendto_pool(-1, "x", 1, 0, NAME("Args"), NULL, 0, 0, 0, 0, 0));
    FAILS(EOPNOTSUPP, rsp_sendto_pool(stream, "x", 1, 0, NAME("Args"), NULL, 0, 0, 0, 0, 0));
    FAILS(EOPNOTSUPP, rsp_sendto_address(stream, "x", 1, 0, (struct sockaddr*)&(struct sockaddr_in){.sin_family = AF_INET}, 0, 0, 0, 0));
    FAILS(EINVAL, rsp_sendto_pool(client, "x", 1, 0, NAME("Args"), NULL, 0, 0, 0, 0, 0));
    FAILS(EINVAL, rsp_sendto_pool(sd, "x", 0, 0, NAME("Args"), NULL, 0, 0, 0, 0, 0));
    FAILS(EINVAL, rsp_sendto_pool(sd, "x", 1, 0, NAME(""), NULL, 0, 0, 0, 0, 0));
    FAILS(EINVAL, rsp_sendto_pool(sd, "x", 1, 0x80, NAME("Args"), NULL, 0, 0, 0, 0, 0));
    FAILS(EINVAL, rsp_sendto_pool(sd, "x", 1, ASAP_SEND_TO_ALL | ASAP_SEND_TO_LAST, NAME("Args"), NULL, 0, 0, 0, 0, 0));
    FAILS(EINVAL, rsp_sendto_pool(sd, "x", 1, ASAP_SEND_TO_SELF, NAME("Args"), NULL, 0, 0, 0, 0, 0));
    FAILS(EINVAL, rsp_sendto_pool(sd, "x", 1, ASAP_SEND_FAILOVER | ASAP_SEND_NO_FAILOVER, NAME("Args"), NULL, 0, 0, 0, 0, 0));
    FAILS(EFAULT, rsp_sendto_pool(sd, NULL, 1, 0, NAME("Args"), NULL, 0, 0, 0, 0, 0));
    FAILS(EFAULT, rsp_sendto_pool(sd, "x", 1, 0, NULL, 4, NULL, 0, 0, 0, 0, 0));
    FAILS(ENAMETOOLONG, rsp_sendto_pool(sd, "x", 1, 0, longest, LONGEST + 1, NULL, 0, 0, 0, 0, 0));
    FAILS(ENOENT, rsp_sendto_pool(sd, "x", 1, 0, NAME("Nobody"), NULL, 0, 0, 0, 0, 0));
    FAILS(EINVAL, rsp_cache_purge(NAME("")));
    FAILS(EFAULT, rsp_cache_purge(NULL, 3));
    FAILS(ENAMETOOLONG, rsp_cache_purge(longest, LONGEST + 1));
    FAILS(EINVAL, rsp_cache_populate(NAME("")));
    OK(rsp_close(client));
    OK(rsp_close(stream));
    OK(rsp_close(sd));
    OK(rsp_close(server));
}

static void no_registrar(void)
{
    int listener, sd;
    struct sockaddr_in address = bound(&listener);

    start_with(&address, 300);
    sd = sender();
    FAILS(EIO, rsp_sendto_pool(sd, "x", 1, 0, NAME("Args"), NULL, 0, 0, 0, 0, SOON));
    FAILS(EIO, rsp_cache_populate(NAME("Args")));
    OK(rsp_close(sd));
    rsp_cleanup();
    OK(close(listener));
    FAILS(EACCES, rsp_cache_populate(NAME("Args")));
    FAILS(EACCES, rsp_cache_purge(NAME("Args")));
}

static void nobody_answers(void)
{
    struct crowded crowded;
    struct sockaddr_in address = crowd(&crowded);
    int sd = (int)OK(rsp_socket(0, SOCK_SEQPACKET, IPPROTO_TCP));
    struct rlimit limit, none;

    elsewhere("Hangs", &address, IPPROTO_TCP);
    FAILS(ETIMEDOUT, rsp_sendto_pool(sd, "x", 1, ASAP_SEND_NO_FAILOVER, NAME("Hangs"), NULL, 0, 0, 0, 0, 100));
    FAILS(ETIMEDOUT, rsp_sendto_address(sd, "x", 1, 0, (struct sockaddr*)&address, 0, 0, 0, 100));
    OK(getrlimit(RLIMIT_NOFILE, &limit));
    none = limit;
    none.rlim_cur = 0;
    OK(setrlimit(RLIMIT_NOFILE, &none));
    FAILS(EMFILE, rsp_sendto_address(sd, "x", 1, 0, (struct sockaddr*)&address, 0, 0, 0, SOON));
    OK(setrlimit(RLIMIT_NOFILE, &limit));
    OK(rsp_close(sd));
    disperse(&crowded);
}

int main(void)
{
    start();
    one_of_a_pool();
    all_of_a_pool();
    ahead_of_need();
    nobody_there();
    an_address();
    no_room();
    nobody_answers();
    wrong_arguments();
    rsp_cleanup();
    no_registrar();
    return checked();
}
