/* The library as a guest in somebody's process: start and end any number of times, fork, threads,
 * signals, nothing left behind. */
#define _GNU_SOURCE

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

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
    no_handlers();
    no_sigpipe();
    many_threads();
    rsp_cleanup();
    return checked();
}
