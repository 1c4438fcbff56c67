/* The system has no descriptors, no memory, no threads, no address: calls fail with its errno, and work again
 * when it has. System calls that can't be made to fail otherwise are replaced by ones of this program. */
#define _GNU_SOURCE
/* The calls that fail are those that TCP needs. */
#define PROTOCOL IPPROTO_TCP

#include <dlfcn.h>
#include <ifaddrs.h>
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include "pool.h"

#define NAME(text) (const unsigned char*)(text), strlen(text)

/* Which call of this thread fails, and with what. */
static __thread const char* failing;
static __thread int failure;

static void fail(const char* call, int code)
{
    failing = call;
    failure = code;
}

static bool fails(const char* call)
{
    if (failing == NULL || strcmp(failing, call) != 0) {
        return false;
    }
    errno = failure;
    return true;
}

/* The system's own function. */
static void* real(const char* name)
{
    void* found = dlsym(RTLD_NEXT, name);
    if (found == NULL) {
        abort();
    }
    return found;
}

int epoll_create1(int flags)
{
    int (*next)(int);
    *(void**)&next = real("epoll_create1");
    return fails("epoll_create1") ? -1 : next(flags);
}

int socket(int domain, int type, int protocol)
{
    int (*next)(int, int, int);
    *(void**)&next = real("socket");
    return fails("socket") ? -1 : next(domain, type, protocol);
}

int bind(int sd, const struct sockaddr* address, socklen_t length)
{
    int (*next)(int, const struct sockaddr*, socklen_t);
    *(void**)&next = real("bind");
    return fails("bind") ? -1 : next(sd, address, length);
}

int poll(struct pollfd* entries, nfds_t count, int timeout)
{
    int (*next)(struct pollfd*, nfds_t, int);
    *(void**)&next = real("poll");
    return fails("poll") ? -1 : next(entries, count, timeout);
}

ssize_t sendmsg(int sd, const struct msghdr* message, int flags)
{
    ssize_t (*next)(int, const struct msghdr*, int);
    *(void**)&next = real("sendmsg");
    return fails("sendmsg") ? -1 : next(sd, message, flags);
}

/* Which of the two the library uses is its own business. */
ssize_t send(int sd, const void* data, size_t length, int flags)
{
    ssize_t (*next)(int, const void*, size_t, int);
    *(void**)&next = real("send");
    return fails("sendmsg") ? -1 : next(sd, data, length, flags);
}

int getifaddrs(struct ifaddrs** list)
{
    int (*next)(struct ifaddrs**);
    *(void**)&next = real("getifaddrs");
    *list = NULL;
    return fails("getifaddrs") ? 0 : next(list);
}

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*run)(void*), void* argument)
{
    int (*next)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
    *(void**)&next = real("pthread_create");
    return fails("pthread_create") ? failure : next(thread, attributes, run, argument);
}

/* How many nodes of address lists there is still memory for, when there is not enough. */
static __thread int nodes;

void* calloc(size_t count, size_t size)
{
    static void* (*next)(size_t, size_t);

    if (next == NULL) {
        *(void**)&next = real("calloc");
    }
    if (count == 1 && size == sizeof(struct rsp_addrinfo) && fails("calloc") && nodes-- == 0) {
        return NULL;
    }
    return next(count, size);
}

static struct rlimit limit;
static int files;

/* No further descriptors for this process. */
static void no_descriptors(void)
{
    struct rlimit none;
    int next;

    files = settled_files();
    OK(next = dup(0));
    OK(close(next));
    OK(getrlimit(RLIMIT_NOFILE, &limit));
    none = limit;
    none.rlim_cur = (rlim_t)next;
    OK(setrlimit(RLIMIT_NOFILE, &none));
}

/* As before, and what failed has left nothing. */
static void enough_descriptors(void)
{
    OK(setrlimit(RLIMIT_NOFILE, &limit));
    LEAVES_FILES(files);
}

static void starting(void)
{
    struct sockaddr somewhere;
    struct rsp_registrar_info registrar = {NULL, NULL, 1};
    struct rsp_info info;

    fail("epoll_create1", ENOMEM);
    FAILS(ENOMEM, rsp_initialize(NULL));
    fail("epoll_create1", ENFILE);
    FAILS(ENFILE, rsp_initialize(NULL));
    fail("pthread_create", EAGAIN);
    FAILS(EAGAIN, rsp_initialize(NULL));
    fail(NULL, 0);
    no_descriptors();
    FAILS(EMFILE, rsp_initialize(NULL));
    enough_descriptors();

    rsp_initinfo(&info);
    info.ri_registrars = &registrar;
    FAILS(EFAULT, rsp_initialize(&info));
    memset(&somewhere, 0, sizeof(somewhere));
    somewhere.sa_family = AF_UNIX;
    registrar.rri_addr = &somewhere;
    FAILS(EAFNOSUPPORT, rsp_initialize(&info));
    registrar.rri_addrs = 0;
    FAILS(EINVAL, rsp_initialize(&info));
    setenv("RSP_CONNECT_TIMEOUT", "soon", 1);
    FAILS(EINVAL, rsp_initialize(NULL));
    unsetenv("RSP_CONNECT_TIMEOUT");
    FAILS(EACCES, rsp_socket(0, SOCK_STREAM, PROTOCOL));
    FAILS(EACCES, rsp_waitset_create());
    start();
}

static void descriptors(void)
{
    int value = 0;
    socklen_t length = sizeof(value);
    int sd;

    fail("epoll_create1", ENOMEM);
    FAILS(ENOMEM, rsp_socket(0, SOCK_STREAM, PROTOCOL));
    FAILS(ENOMEM, rsp_waitset_create());
    fail("epoll_create1", ENFILE);
    FAILS(ENFILE, rsp_socket(0, SOCK_STREAM, PROTOCOL));
    FAILS(ENFILE, rsp_waitset_create());
    fail(NULL, 0);
    no_descriptors();
    FAILS(EMFILE, rsp_waitset_create());
    FAILS(EMFILE, rsp_socket(0, SOCK_STREAM, PROTOCOL));
    enough_descriptors();
    OK(sd = rsp_socket(0, SOCK_STREAM, PROTOCOL));

    for (int round = 0; round < 2; round++) {
        fail("socket", round == 0 ? ENOMEM : ENFILE);
        if (round == 0) {
            FAILS(ENOMEM, rsp_bind(sd, NULL, 0));
            FAILS(ENOMEM, rsp_listen(sd, 5));
            FAILS(ENOMEM, rsp_register(sd, NAME("Faults"), NULL, 1000, 0));
            FAILS(ENOMEM, rsp_getsockopt(sd, SOL_SOCKET, SO_TYPE, &value, &length));
            FAILS(ENOMEM, rsp_setsockopt(sd, SOL_SOCKET, SO_KEEPALIVE, &value, sizeof(value)));
        } else {
            FAILS(ENFILE, rsp_bind(sd, NULL, 0));
            FAILS(ENFILE, rsp_listen(sd, 5));
            FAILS(ENFILE, rsp_register(sd, NAME("Faults"), NULL, 1000, 0));
            FAILS(ENFILE, rsp_getsockopt(sd, SOL_SOCKET, SO_TYPE, &value, &length));
            FAILS(ENFILE, rsp_setsockopt(sd, SOL_SOCKET, SO_KEEPALIVE, &value, sizeof(value)));
        }
    }
    fail(NULL, 0);
    no_descriptors();
    FAILS(EMFILE, rsp_bind(sd, NULL, 0));
    FAILS(EMFILE, rsp_listen(sd, 5));
    FAILS(EMFILE, rsp_register(sd, NAME("Faults"), NULL, 1000, 0));
    FAILS(EMFILE, rsp_getsockopt(sd, SOL_SOCKET, SO_TYPE, &value, &length));
    FAILS(EMFILE, rsp_setsockopt(sd, SOL_SOCKET, SO_KEEPALIVE, &value, sizeof(value)));
    enough_descriptors();

    fail("bind", EACCES);
    FAILS(EACCES, rsp_bind(sd, NULL, 0));
    fail("getifaddrs", 0);
    FAILS(EADDRNOTAVAIL, rsp_register(sd, NAME("Faults"), NULL, 1000, 0));
    /* Registered later, when there is one. */
    OK(rsp_register(sd, NAME("Faults"), NULL, 1000, REGF_DAEMONMODE));
    fail(NULL, 0);
    OK(rsp_register(sd, NAME("Faults"), NULL, 1000, 0));
    OK(rsp_listen(sd, 5));
    OK(rsp_close(sd));
}

static void waiting(void)
{
    struct pollfd entry = {0, POLLIN, 0};
    struct timeval none = {0, 0};
    fd_set set;

    FD_ZERO(&set);
    fail("poll", ENOMEM);
    FAILS(ENOMEM, rsp_poll(&entry, 1, 0));
    FAILS(ENOMEM, rsp_select(0, &set, NULL, NULL, &none));
    fail(NULL, 0);
}

/* What could not be accepted stays to be accepted. */
static void accepting(void)
{
    int server = element("Faults", SOCK_STREAM, 0);
    int client = user("Faults", SOCK_STREAM);
    struct pollfd entry = {server, POLLIN, 0};
    int session;

    SAME(1, rsp_poll(&entry, 1, SOON));
    fail("epoll_create1", ENOMEM);
    FAILS(ENOMEM, rsp_accept(server, SOON));
    fail("epoll_create1", ENFILE);
    FAILS(ENFILE, rsp_accept(server, SOON));
    fail(NULL, 0);
    no_descriptors();
    FAILS(EMFILE, rsp_accept(server, SOON));
    enough_descriptors();
    OK(session = rsp_accept(server, SOON));
    send_text(client, 0, "after all");
    expect_text(session, "after all");
    OK(rsp_close(session));
    OK(rsp_close(client));
    OK(rsp_close(server));
}

/* A session that goes on though the kernel had no memory for a while. */
static void pair(int server, int* client, int* session)
{
    *client = user("Faults", SOCK_STREAM);
    OK(*session = rsp_accept(server, SOON));
    fail("sendmsg", ENOMEM);
    FAILS(ENOMEM, rsp_sendmsg(*client, "x", 1, 0, 0, 0, 0, 0, 0, 0));
    FAILS(ENOMEM, rsp_write(*client, "x", 1));
    FAILS(ENOMEM, rsp_send_cookie(*session, NAME("x"), 0, 0));
    fail(NULL, 0);
    send_text(*client, 0, "goes on");
    expect_text(*session, "goes on");
}

/* Nothing but a session's own connection ends it, and then for both sides. */
static void over(int client, int session)
{
    fail(NULL, 0);
    FAILS(EIO, rsp_write(client, "x", 1));
    FAILS(EPIPE, rsp_write(session, "x", 1));
    OK(rsp_close(session));
    OK(rsp_close(client));
}

/* The same for sessions that nobody asks for one by one. */
static void accepting_many(void)
{
    int server = element("Faults", SOCK_SEQPACKET, 0);
    int client = user("Faults", SOCK_SEQPACKET);
    char byte;
    int flags = 0;

    /* Valgrind takes such a connection all the same, and throws it away. */
    if (getenv("CHECK_SLOW") == NULL) {
        no_descriptors();
        FAILS(EAGAIN, rsp_recvmsg(server, &byte, 1, NULL, &flags, 150));
        enough_descriptors();
    }
    expect_session(server, RSERPOOL_SESSION_ADD);
    send_text(client, 0, "after all");
    expect_text(server, "after all");
    OK(rsp_close(client));
    OK(rsp_close(server));
}

/* A list of addresses is whole, or there is none, and then nothing of it is left. */
static void resolving(void)
{
    struct rsp_addrinfo* list;
    size_t before = 0;
    int first = element("Faults", SOCK_SEQPACKET, 0);
    int second = element("Faults", SOCK_SEQPACKET, 0);

    /* Valgrind has a calloc of its own. */
    for (int i = 0; i < 2020 && getenv("CHECK_SLOW") == NULL; i++) {
        fail("calloc", ENOMEM);
        nodes = i % 2;
        SAME(REAI_MEMORY, rsp_getaddrinfo(NAME("Faults"), &list, 2, 0));
        HOLDS(list == NULL);
        before = i == 20 ? mallinfo2().uordblks : before;
    }
    HOLDS(before == 0 || mallinfo2().uordblks < before + 1000 * sizeof(*list));
    fail(NULL, 0);
    SAME(2, rsp_getaddrinfo(NAME("Faults"), &list, 2, 0));
    rsp_freeaddrinfo(list);
    OK(rsp_close(first));
    OK(rsp_close(second));
}

/* The registrar can't be called without a descriptor, but it can when there is one again. */
static void hunting(void)
{
    struct rsp_addrinfo* list;

    start_with(NULL, 100);
    no_descriptors();
    FAILS(EIO, rsp_getaddrinfo(NAME("Faults"), &list, 1, 0));
    enough_descriptors();
    while (rsp_getaddrinfo(NAME("Nobody"), &list, 1, 0) != REAI_NONAME) {
    }
    OK(rsp_close(element("Faults", SOCK_SEQPACKET, 0)));
}

/* What the network says of a connection. */
static void sending(void)
{
    int server = element("Faults", SOCK_STREAM, 0);
    int client, session;

    pair(server, &client, &session);
    fail("sendmsg", ETIMEDOUT);
    FAILS(ETIMEDOUT, rsp_sendmsg(client, "x", 1, 0, 0, 0, 0, 0, 0, 0));
    FAILS(ETIMEDOUT, rsp_send_cookie(session, NAME("x"), 0, 0));
    over(client, session);

    pair(server, &client, &session);
    fail("sendmsg", ETIMEDOUT);
    FAILS(ETIMEDOUT, rsp_write(client, "x", 1));
    FAILS(ETIMEDOUT, rsp_send_cookie(session, NAME("x"), 0, 0));
    over(client, session);

    pair(server, &client, &session);
    fail("sendmsg", EHOSTUNREACH);
    FAILS(EHOSTUNREACH, rsp_sendmsg(client, "x", 1, 0, 0, 0, 0, 0, 0, 0));
    FAILS(EHOSTUNREACH, rsp_send_cookie(session, NAME("x"), 0, 0));
    over(client, session);

    pair(server, &client, &session);
    fail("sendmsg", EHOSTUNREACH);
    FAILS(EHOSTUNREACH, rsp_write(client, "x", 1));
    FAILS(EHOSTUNREACH, rsp_send_cookie(session, NAME("x"), 0, 0));
    over(client, session);
    OK(rsp_close(server));
}

/* Waiting needs no descriptor. */
static void waiting_without(void)
{
    int server = element("Faults", SOCK_SEQPACKET, 0);
    int client = user("Faults", SOCK_SEQPACKET);
    struct pollfd entry = {client, POLLOUT, 0};

    expect_session(server, RSERPOOL_SESSION_ADD);
    fill(client, 0);
    no_descriptors();
    FAILS(EAGAIN, rsp_sendmsg(client, "x", 1, 0, 0, 0, 0, 0, 0, 100));
    SAME(0, OK(rsp_poll(&entry, 1, 100)));
    enough_descriptors();
    OK(rsp_close(client));
    OK(rsp_close(server));
}

static void connecting(void)
{
    struct TagItem tags[] = {{TAG_RspSession_HandleResolutionRetryDelay, 1000}, {TAG_DONE, 0}};
    int server = element("Faults", SOCK_SEQPACKET, 0);
    int client = (int)OK(rsp_socket(0, SOCK_SEQPACKET, PROTOCOL));

    fail("socket", ENOMEM);
    FAILS(ENOMEM, rsp_connect_tags(client, NAME("Faults"), 0, tags));
    /* There is a session, and it can be moved. */
    FAILS(ENOMEM, rsp_forcefailover(client, FFF_NONE, 0));
    fail("socket", ENFILE);
    FAILS(ENFILE, rsp_forcefailover(client, FFF_NONE, 0));
    fail(NULL, 0);
    no_descriptors();
    FAILS(EMFILE, rsp_forcefailover(client, FFF_NONE, 0));
    enough_descriptors();
    while (rsp_forcefailover(client, FFF_NONE, 0) < 0 || peer_id(client) != own_id(server)) {
    }
    expect_failover(client, RSERPOOL_FAILOVER_COMPLETE, false);
    OK(rsp_close(client));

    client = (int)OK(rsp_socket(0, SOCK_SEQPACKET, PROTOCOL));
    no_descriptors();
    SETS(EMFILE, rsp_connect_tags(client, NAME("Faults"), 0, tags));
    enough_descriptors();
    OK(rsp_close(client));
    client = (int)OK(rsp_socket(0, SOCK_SEQPACKET, PROTOCOL));
    fail("socket", ENFILE);
    SETS(ENFILE, rsp_connect_tags(client, NAME("Faults"), 0, tags));
    fail(NULL, 0);
    OK(rsp_close(client));
    OK(rsp_close(server));
}

int main(void)
{
    starting();
    descriptors();
    waiting();
    accepting();
    accepting_many();
    resolving();
    sending();
    waiting_without();
    connecting();
    rsp_cleanup();
    hunting();
    rsp_cleanup();
    return checked();
}
