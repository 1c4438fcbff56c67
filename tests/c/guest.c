/* The library as a guest in somebody's process: start and end any number of times, fork, threads,
 * signals, nothing left behind. */
#define _GNU_SOURCE

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#include "pool.h"

/* Descriptors are given back; what the program forgets to close, rsp_cleanup closes. */
static void again_and_again(void)
{
    int before = 0;

    for (int i = 0; i < 5; i++) {
        start();
        OK(rsp_initialize(NULL));
        element("Again", SOCK_SEQPACKET, 0);
        user("Again", SOCK_SEQPACKET);
        rsp_cleanup();
        rsp_cleanup();
        if (i == 0) {
            before = open_files();
        }
        SAME(before, open_files());
    }
    OK(rsp_initialize(NULL));
    rsp_cleanup();
    SAME(before, open_files());
}

/* A kernel without SCTP is no failure to start, even if nothing else is allowed; sockets say it. */
static void only_sctp(void)
{
    int probe = socket(AF_INET, SOCK_STREAM, IPPROTO_SCTP);
    struct pollfd none;
    int sd;

    OK(setenv("RSP_TRANSPORT", "sctp", 1));
    OK(rsp_initialize(NULL));
    FAILS(EPROTONOSUPPORT, rsp_socket(0, SOCK_STREAM, IPPROTO_TCP));
    if (probe < 0) {
        FAILS(EPROTONOSUPPORT, rsp_socket(0, SOCK_STREAM, IPPROTO_SCTP));
        FAILS(EPROTONOSUPPORT, rsp_socket(0, SOCK_SEQPACKET, 0));
    } else {
        sd = rsp_socket(0, SOCK_STREAM, IPPROTO_SCTP);
        none = (struct pollfd){sd, POLLIN, 0};
        SAME(0, rsp_poll(&none, 1, 0));
        OK(rsp_close(sd));
        OK(close(probe));
    }
    rsp_cleanup();
    OK(unsetenv("RSP_TRANSPORT"));
}

/* The process's limits are its own, also with a registrar inside. */
static void limits(void)
{
    struct rlimit before, after;

    OK(getrlimit(RLIMIT_NOFILE, &before));
    before.rlim_cur = before.rlim_cur < 512 ? before.rlim_cur : 512;
    OK(setrlimit(RLIMIT_NOFILE, &before));
    start();
    OK(getrlimit(RLIMIT_NOFILE, &after));
    HOLDS(after.rlim_cur == before.rlim_cur);
    rsp_cleanup();
}

/* A start that fails leaves nothing, so that the next one isn't taken for a second one. */
static void failed_start(void)
{
    struct rsp_registrar_info registrar = {NULL, NULL, 0};
    struct rsp_info info;

    rsp_initinfo(&info);
    info.ri_registrars = &registrar;
    FAILS(EINVAL, rsp_initialize(&info));
    FAILS(EACCES, rsp_socket(0, SOCK_STREAM, IPPROTO_SCTP));
    FAILS(EINVAL, rsp_initialize(&info));
    OK(rsp_initialize(NULL));
    rsp_cleanup();
}

/* The child has no library until it starts one; the parent's goes on. */
static void forking(void)
{
    int server = element("Fork", SOCK_SEQPACKET, 0);
    int client = user("Fork", SOCK_SEQPACKET);
    rserpool_session_t session = expect_session(server, RSERPOOL_SESSION_ADD);
    int status = 0;
    pid_t child = fork();

    OK(child);
    if (child == 0) {
        FAILS(EBADF, rsp_write(client, "child", 5));
        FAILS(EBADF, rsp_close(server));
        FAILS(EACCES, rsp_socket(0, SOCK_STREAM, IPPROTO_SCTP));
        rsp_cleanup();
        start();
        server = element("Child", SOCK_SEQPACKET, 0);
        client = user("Child", SOCK_SEQPACKET);
        expect_session(server, RSERPOOL_SESSION_ADD);
        rsp_cleanup();
        _Exit(0);
    }
    OK(waitpid(child, &status, 0));
    SAME(0, status);
    send_text(client, 0, "parent");
    SAME(session, expect_text(server, "parent").info.rinfo_session);
    OK(rsp_close(client));
    OK(rsp_close(server));
}

static void on_signal(int number)
{
    (void)number;
}

struct call {
    pthread_t thread;
    int sd;
    int kind;
    rserpool_session_t session;
    long long result;
    int code;
    int events;
    bool running;
    pthread_mutex_t lock;
    pthread_cond_t begun;
};

static void* blocked(void* argument)
{
    struct call* call = argument;
    struct pollfd reading = {call->sd, POLLIN, 0};
    struct pollfd writing = {call->sd, POLLOUT, 0};
    char buffer[64];
    int flags = 0;
    fd_set set;

    pthread_mutex_lock(&call->lock);
    call->running = true;
    pthread_cond_signal(&call->begun);
    pthread_mutex_unlock(&call->lock);
    switch (call->kind) {
        case 0:
            call->result = rsp_recvmsg(call->sd, buffer, sizeof(buffer), NULL, &flags, SOON);
            break;
        case 1:
            call->result = rsp_accept(call->sd, -1);
            break;
        case 2:
            call->result = rsp_poll(&reading, 1, -1);
            call->events = reading.revents;
            break;
        case 3:
            call->result = rsp_poll(&writing, 1, -1);
            call->events = writing.revents;
            break;
        case 4:
            FD_ZERO(&set);
            FD_SET(call->sd, &set);
            call->result = rsp_select(call->sd + 1, &set, NULL, NULL, NULL);
            break;
        case 5:
            call->result = rsp_recvfullmsg(call->sd, buffer, sizeof(buffer), NULL, &flags, -1);
            break;
        case 6:
            call->result = rsp_sendmsg(call->sd, "x", 1, 0, call->session, 0, 0, 0, 0, SOON);
            break;
        case 7:
            call->result = rsp_send_cookie(call->sd, (const unsigned char*)"x", 1, call->session, -1);
            break;
        case 8:
            call->result = rsp_connect(call->sd, (const unsigned char*)"Full", 4, 0);
            break;
        default:
            call->result = rsp_forcefailover(call->sd, FFF_NONE, 0);
    }
    call->code = errno;
    return NULL;
}

static void begin_with(struct call* call, int sd, int kind, rserpool_session_t session)
{
    struct timespec pause = {0, 20000000};

    memset(call, 0, sizeof(*call));
    pthread_mutex_init(&call->lock, NULL);
    pthread_cond_init(&call->begun, NULL);
    call->sd = sd;
    call->kind = kind;
    call->session = session;
    SAME(0, pthread_create(&call->thread, NULL, blocked, call));
    pthread_mutex_lock(&call->lock);
    while (!call->running) {
        pthread_cond_wait(&call->begun, &call->lock);
    }
    pthread_mutex_unlock(&call->lock);
    /* Into the call, most likely. It must end either way. */
    nanosleep(&pause, NULL);
}

static void begin(struct call* call, int sd, int kind)
{
    begin_with(call, sd, kind, 0);
}

static void end(struct call* call)
{
    SAME(0, pthread_join(call->thread, NULL));
    pthread_mutex_destroy(&call->lock);
    pthread_cond_destroy(&call->begun);
}

/* Closes under the call, which ends with EBADF. */
static void closed_under(struct call* call)
{
    OK(rsp_close(call->sd));
    end(call);
    SAME(-1, call->result);
    SAME(EBADF, call->code);
}

/* Nobody reads at the other end: until no more fits. */
static void fill(int sd, rserpool_session_t session)
{
    static char bytes[65536];

    while (rsp_sendmsg(sd, bytes, sizeof(bytes), 0, session, 0, 0, 0, 0, 0) > 0) {
    }
    while (rsp_sendmsg(sd, bytes, 1, 0, session, 0, 0, 0, 0, 500) > 0) {
    }
    while (rsp_sendmsg(sd, bytes, 1, 0, session, 0, 0, 0, 0, 0) > 0) {
    }
    SAME(EAGAIN, errno);
}

/* A pool whose only element lets nobody in, by a listener that accepts nobody; its descriptors. */
static void full_pool(int sockets[9], uint32_t* id)
{
    struct sockaddr_in address;
    struct rsp_addrinfo info;
    socklen_t length = sizeof(address);

    memset(&address, 0, sizeof(address));
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    OK(sockets[0] = socket(AF_INET, SOCK_STREAM, 0));
    OK(bind(sockets[0], (struct sockaddr*)&address, sizeof(address)));
    OK(getsockname(sockets[0], (struct sockaddr*)&address, &length));
    OK(listen(sockets[0], 0));
    for (int i = 1; i < 9; i++) {
        OK(sockets[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
        SAME(-1, connect(sockets[i], (struct sockaddr*)&address, sizeof(address)));
    }
    memset(&info, 0, sizeof(info));
    info.ai_protocol = IPPROTO_TCP;
    info.ai_addrs = 1;
    info.ai_addr = (struct sockaddr*)&address;
    SAME(RSPERR_OKAY, rsp_pe_registration((const unsigned char*)"Full", 4, &info, NULL, 300000, REGF_CONTROLCHANNEL));
    *id = info.ai_pe_id;
}

/* Closing under a call that waits ends that call. */
static void closing(void)
{
    struct call call;
    int sockets[9];
    uint32_t id;
    int server = element("Close", SOCK_SEQPACKET, 0);
    int listener = element("Listen", SOCK_STREAM, 0);
    int client = user("Close", SOCK_SEQPACKET);
    rserpool_session_t session = expect_session(server, RSERPOOL_SESSION_ADD);

    fill(client, 0);
    fill(server, session);
    begin_with(&call, server, 7, session);
    closed_under(&call);
    OK(rsp_close(client));

    server = element("Close", SOCK_SEQPACKET, 0);
    client = user("Close", SOCK_SEQPACKET);
    expect_session(server, RSERPOOL_SESSION_ADD);
    fill(client, 0);
    begin(&call, client, 6);
    closed_under(&call);
    OK(rsp_close(server));
    server = element("Close", SOCK_SEQPACKET, 0);
    begin(&call, server, 0);
    closed_under(&call);
    server = element("Close", SOCK_SEQPACKET, 0);
    begin(&call, server, 5);
    closed_under(&call);
    server = element("Close", SOCK_SEQPACKET, 0);
    begin(&call, server, 4);
    closed_under(&call);
    begin(&call, listener, 1);
    closed_under(&call);

    full_pool(sockets, &id);
    OK(client = rsp_socket(0, SOCK_STREAM, IPPROTO_SCTP));
    begin(&call, client, 8);
    closed_under(&call);
    OK(client = rsp_socket(0, SOCK_STREAM, IPPROTO_SCTP));
    SAME(0, rsp_connect(client, (const unsigned char*)"Nowhere", 7, 0));
    begin(&call, client, 9);
    closed_under(&call);
    SAME(RSPERR_OKAY, rsp_pe_deregistration((const unsigned char*)"Full", 4, id, 0));
    for (int i = 0; i < 9; i++) {
        OK(close(sockets[i]));
    }

    server = element("Close", SOCK_SEQPACKET, 0);
    begin(&call, server, 0);
    rsp_cleanup();
    end(&call);
    SAME(-1, call.result);
    SAME(EBADF, call.code);
    start();
}

/* As poll(2) has it, what is no descriptor is POLLNVAL, whichever direction is waited for. */
static void closing_under_poll(void)
{
    struct call call;
    int server = element("Poll", SOCK_SEQPACKET, 0);
    int client = user("Poll", SOCK_SEQPACKET);

    expect_session(server, RSERPOOL_SESSION_ADD);
    fill(client, 0);
    begin(&call, client, 3);
    OK(rsp_close(client));
    end(&call);
    SAME(1, call.result);
    SAME(POLLNVAL, call.events);
    OK(rsp_close(server));
    server = element("Poll", SOCK_SEQPACKET, 0);
    begin(&call, server, 2);
    OK(rsp_close(server));
    end(&call);
    SAME(1, call.result);
    SAME(POLLNVAL, call.events);
}

static void interrupted(int sd)
{
    struct call call;

    for (int kind = 0; kind <= 5; kind++) {
        /* rsp_accept is for listeners, sending for those who are connected: errors.c. */
        if (kind == 1 || kind == 3) {
            continue;
        }
        begin(&call, sd, kind);
        /* Until it has arrived within the call. */
        while (pthread_kill(call.thread, SIGUSR1) == 0 && pthread_tryjoin_np(call.thread, NULL) != 0) {
            struct timespec pause = {0, 5000000};
            nanosleep(&pause, NULL);
        }
        SAME(-1, call.result);
        SAME(EINTR, call.code);
        pthread_mutex_destroy(&call.lock);
        pthread_cond_destroy(&call.begun);
    }
}

/* A signal ends a call that waits with EINTR, whether or not its handler wants calls restarted, and only the
   threads of the program get signals. */
static void signals(void)
{
    struct sigaction action;
    int server = element("Signal", SOCK_SEQPACKET, 0);
    int client = user("Signal", SOCK_SEQPACKET);

    expect_session(server, RSERPOOL_SESSION_ADD);
    memset(&action, 0, sizeof(action));
    action.sa_handler = on_signal;
    for (int flags = 0; flags <= SA_RESTART; flags += SA_RESTART) {
        action.sa_flags = flags;
        OK(sigaction(SIGUSR1, &action, NULL));
        interrupted(server);
        interrupted(client);
    }
    OK(rsp_close(client));
    OK(rsp_close(server));
}

/* What is done with each signal. */
static void (*handlers[NSIG])(int);

static void note_handlers(void)
{
    struct sigaction action;

    for (int number = 1; number < NSIG; number++) {
        handlers[number] = sigaction(number, NULL, &action) == 0 ? action.sa_handler : SIG_ERR;
    }
}

/* No handler is installed, none is changed. */
static void no_handlers(void)
{
    struct sigaction action;

    for (int number = 1; number < NSIG; number++) {
        if (number != SIGUSR1 && sigaction(number, NULL, &action) == 0) {
            HOLDS(action.sa_handler == handlers[number]);
        }
    }
}

/* No SIGPIPE, and no handler of ours: the default action would end this process. */
static void no_sigpipe(void)
{
    struct sigaction action;
    int server = element("Pipe", SOCK_SEQPACKET, 0);
    int client = user("Pipe", SOCK_SEQPACKET);

    OK(sigaction(SIGPIPE, NULL, &action));
    HOLDS(action.sa_handler == SIG_DFL);
    expect_session(server, RSERPOOL_SESSION_ADD);
    OK(rsp_close(server));
    while (rsp_sendmsg(client, "x", 1, 0, 0, 0, 0, 0, 0, 0) >= 0) {
    }
    rsp_sendmsg(client, "x", 1, 0, 0, 0, 0, 0, 0, 0);
    OK(rsp_close(client));
}

#define ROUNDS 200

static void* talk(void* argument)
{
    const char* pool = argument;
    int client = user(pool, SOCK_SEQPACKET);
    char text[32];

    for (int i = 0; i < ROUNDS; i++) {
        snprintf(text, sizeof(text), "round %d of %p", i, (void*)&client);
        send_text(client, 0, text);
        expect_text(client, text);
    }
    OK(rsp_close(client));
    return NULL;
}

/* Many threads, each with its own user, one element for all. */
static void many_threads(void)
{
    pthread_t threads[8];
    int server = element("Many", SOCK_SEQPACKET, 0);

    for (size_t i = 0; i < 8; i++) {
        SAME(0, pthread_create(&threads[i], NULL, talk, (void*)(uintptr_t)"Many"));
    }
    for (int echoed = 0; echoed < 8 * ROUNDS;) {
        struct delivery d = receive(server, SOON);
        OK(d.length);
        if (d.length > 0 && !(d.flags & MSG_RSERPOOL_NOTIFICATION)) {
            OK(rsp_sendmsg(server, d.bytes, (size_t)d.length, 0, d.info.rinfo_session, 0, 0, 0, 0, SOON));
            echoed++;
        }
    }
    for (size_t i = 0; i < 8; i++) {
        SAME(0, pthread_join(threads[i], NULL));
    }
    OK(rsp_close(server));
}

int main(void)
{
    note_handlers();
    again_and_again();
    limits();
    failed_start();
    only_sctp();
    start();
    forking();
    closing();
    closing_under_poll();
    signals();
    no_handlers();
    no_sigpipe();
    many_threads();
    rsp_cleanup();
    return checked();
}
