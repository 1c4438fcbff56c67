/* The library as a guest in somebody's process: start and end any number of times, fork, threads,
 * signals, nothing left behind. */
#define _GNU_SOURCE

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "pool.h"

static int open_files(void)
{
    DIR* folder = opendir("/proc/self/fd");
    int count = 0;

    while (readdir(folder) != NULL) {
        count++;
    }
    closedir(folder);
    return count;
}

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
    long long result;
    int code;
    bool running;
    pthread_mutex_t lock;
    pthread_cond_t begun;
};

static void* blocked(void* argument)
{
    struct call* call = argument;
    struct pollfd entry = {call->sd, POLLIN, 0};
    char buffer[64];
    int flags = 0;

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
        default:
            call->result = rsp_poll(&entry, 1, -1);
    }
    call->code = errno;
    return NULL;
}

static void begin(struct call* call, int sd, int kind)
{
    struct timespec pause = {0, 20000000};

    memset(call, 0, sizeof(*call));
    pthread_mutex_init(&call->lock, NULL);
    pthread_cond_init(&call->begun, NULL);
    call->sd = sd;
    call->kind = kind;
    SAME(0, pthread_create(&call->thread, NULL, blocked, call));
    pthread_mutex_lock(&call->lock);
    while (!call->running) {
        pthread_cond_wait(&call->begun, &call->lock);
    }
    pthread_mutex_unlock(&call->lock);
    /* Into the call, most likely. It must end either way. */
    nanosleep(&pause, NULL);
}

static void end(struct call* call)
{
    SAME(0, pthread_join(call->thread, NULL));
    pthread_mutex_destroy(&call->lock);
    pthread_cond_destroy(&call->begun);
}

/* Closing under a call that waits ends that call. */
static void closing(void)
{
    struct call call;
    int server = element("Close", SOCK_SEQPACKET, 0);
    int listener = element("Listen", SOCK_STREAM, 0);

    begin(&call, server, 0);
    OK(rsp_close(server));
    end(&call);
    SAME(-1, call.result);
    SAME(EBADF, call.code);

    begin(&call, listener, 1);
    OK(rsp_close(listener));
    end(&call);
    SAME(-1, call.result);
    SAME(EBADF, call.code);

    server = element("Close", SOCK_SEQPACKET, 0);
    begin(&call, server, 0);
    rsp_cleanup();
    end(&call);
    SAME(-1, call.result);
    SAME(EBADF, call.code);
    start();
}

/* A signal ends a call that waits with EINTR, and only the threads of the program get signals. */
static void signals(void)
{
    struct sigaction action;
    struct call call;
    int server = element("Signal", SOCK_SEQPACKET, 0);

    memset(&action, 0, sizeof(action));
    action.sa_handler = on_signal;
    OK(sigaction(SIGUSR1, &action, NULL));
    for (int kind = 0; kind <= 2; kind += 2) {
        begin(&call, server, kind);
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
    OK(rsp_close(server));
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
    again_and_again();
    failed_start();
    only_sctp();
    start();
    forking();
    closing();
    signals();
    no_sigpipe();
    many_threads();
    rsp_cleanup();
    return checked();
}
