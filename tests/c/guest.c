/* The library as a guest in somebody's process: start and end any number of times, fork, threads,
 * signals, nothing left behind. */
#define _GNU_SOURCE

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

#include "asleep.h"
#include "pool.h"

#define NAME(text) (const unsigned char*)(text), strlen(text)

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
            before = settled_files();
        }
        LEAVES_FILES(before);
    }
    OK(rsp_initialize(NULL));
    rsp_cleanup();
    LEAVES_FILES(before);
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

static void loopback(bool up)
{
    struct ifreq request;
    int sd = (int)OK(socket(AF_INET, SOCK_DGRAM, 0));

    memset(&request, 0, sizeof(request));
    strcpy(request.ifr_name, "lo");
    request.ifr_flags = up ? IFF_UP : 0;
    OK(ioctl(sd, SIOCSIFFLAGS, &request));
    OK(close(sd));
}

/* Who has no address yet is an element as soon as there is one. */
static void homeless(void)
{
    struct rsp_addrinfo* found = NULL;
    int sd;

    start();
    sd = (int)OK(rsp_socket(0, SOCK_SEQPACKET, PROTOCOL));
    OK(rsp_listen(sd, 10));
    FAILS(EADDRNOTAVAIL, rsp_register(sd, NAME("Homeless"), NULL, 300000, 0));
    FAILS(EBADF, rsp_getsockname(sd, NULL, NULL, NULL));
    /* One that leaves before. */
    OK(rsp_register(sd, NAME("Nobody"), NULL, 300000, REGF_DAEMONMODE));
    OK(rsp_deregister(sd, 0));
    OK(rsp_register(sd, NAME("Homeless"), NULL, 300000, REGF_DAEMONMODE));
    own_id(sd);
    loopback(true);
    while (rsp_getaddrinfo(NAME("Homeless"), &found, 1, 0) != 1) {
        usleep(10000);
    }
    SAME(own_id(sd), found->ai_pe_id);
    rsp_freeaddrinfo(found);
    SAME(REAI_NONAME, rsp_getaddrinfo(NAME("Nobody"), &found, 1, 0));
    OK(rsp_close(user("Homeless", SOCK_STREAM)));
    rsp_cleanup();
}

/* In a process and a network of its own, before anything has threads. */
static void without_a_network(void)
{
    pid_t child = (pid_t)OK(fork());
    int status;

    if (child == 0) {
        if (unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0) {
            fprintf(stderr, "SKIPPED elements without a network: unshare: %s\n", strerror(errno));
            _exit(0);
        }
        homeless();
        _exit(0);
    }
    SAME(child, waitpid(child, &status, 0));
    SAME(0, status);
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

/* A child that only lives on has open what the parent closes; its number. */
static pid_t bystander(void)
{
    pid_t parent = getpid();
    pid_t child = fork();

    OK(child);
    if (child == 0) {
        OK(prctl(PR_SET_PDEATHSIG, SIGKILL));
        while (getppid() == parent) {
            pause();
        }
        _Exit(0);
    }
    return child;
}

static void dismiss(pid_t child)
{
    OK(kill(child, SIGKILL));
    OK(waitpid(child, NULL, 0));
}

static in_port_t port_of(const char* pool)
{
    struct rsp_addrinfo* found;
    in_port_t port;

    OK(rsp_getaddrinfo((const unsigned char*)pool, strlen(pool), &found, 1, 0));
    /* IPv4 and IPv6 have it at the same place. */
    port = ((const struct sockaddr_in*)found->ai_addr)->sin_port;
    rsp_freeaddrinfo(found);
    return port;
}

static int try_it(int server, int type)
{
    return type == SOCK_STREAM ? rsp_accept(server, 0) : (int)receive(server, 0).length;
}

/* A connection that is sent away does not keep the descriptor readable, and calls busy, because a child has it. */
static void stranger_in_a_child(const char* pool, int type)
{
    int server = (int)OK(rsp_socket(0, type, IPPROTO_TCP));
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct pollfd readable = {server, POLLIN, 0};
    int stranger = (int)OK(socket(AF_INET, SOCK_STREAM, 0));
    pid_t child;

    OK(rsp_register(server, (const unsigned char*)pool, strlen(pool), NULL, 30000, 0));
    address.sin_port = port_of(pool);
    OK(rsp_listen(server, 10));
    OK(connect(stranger, (const struct sockaddr*)&address, sizeof(address)));
    SAME(3, send(stranger, "RSe", 3, 0));
    SAME(1, poll(&readable, 1, SOON));
    /* It was heard, and says too little. */
    FAILS(EAGAIN, try_it(server, type));
    for (int tries = 0; poll(&readable, 1, 0) == 1 && tries < 1000; tries++) {
        FAILS(EAGAIN, try_it(server, type));
    }
    child = bystander();
    OK(shutdown(stranger, SHUT_WR));
    OK(close(stranger));
    SAME(1, poll(&readable, 1, SOON));
    FAILS(EAGAIN, try_it(server, type));
    SAME(0, poll(&readable, 1, 0));
    dismiss(child);
    OK(rsp_close(server));
}

static long long milliseconds(clockid_t clock)
{
    struct timespec time;

    OK(clock_gettime(clock, &time));
    return time.tv_sec * 1000LL + time.tv_nsec / 1000000;
}

/* What a session had still to send when it was moved keeps nobody busy because a child has its connection. */
static void backlog_in_a_child(void)
{
    static char block[60000];
    int server = (int)OK(rsp_socket(0, SOCK_SEQPACKET, IPPROTO_TCP));
    int client;
    long long begin, busy;
    pid_t child;

    OK(rsp_listen(server, 10));
    OK(rsp_register(server, (const unsigned char*)"Backlog", 7, NULL, 30000, 0));
    client = user("Backlog", SOCK_SEQPACKET);
    expect_session(server, RSERPOOL_SESSION_ADD);
    while (rsp_sendmsg(client, block, sizeof(block), 0, 0, 0, 0, 0, 0, 0) >= 0) {
    }
    SAME(EAGAIN, errno);
    child = bystander();
    OK(rsp_forcefailover(client, FFF_NONE, 0));
    /* All that the kernels have, so that there is room. */
    while (receive(server, 100).length >= 0) {
    }
    begin = milliseconds(CLOCK_MONOTONIC);
    busy = milliseconds(CLOCK_PROCESS_CPUTIME_ID);
    while (milliseconds(CLOCK_MONOTONIC) < begin + 1000) {
        usleep(200000);
    }
    HOLDS(milliseconds(CLOCK_PROCESS_CPUTIME_ID) - busy < 40);
    dismiss(child);
    OK(rsp_close(client));
    OK(rsp_close(server));
}

/* A user who says no more than hello. */
static void greet(int user, const struct sockaddr_in* address)
{
    static const char greeting[12] = {'R', 'S', 'e', 'r', 'P', 'o', 'o', 'l', 1, 0, 0, 0};

    OK(connect(user, (const struct sockaddr*)address, sizeof(*address)));
    SAME(sizeof(greeting), send(user, greeting, sizeof(greeting), 0));
}

/* A process that was out of descriptors hears of users again, in its own event loop as well. */
static void full_for_a_while(void)
{
    int server = (int)OK(rsp_socket(0, SOCK_SEQPACKET, IPPROTO_TCP));
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct pollfd readable = {server, POLLIN, 0};
    int users[2] = {(int)OK(socket(AF_INET, SOCK_STREAM, 0)), (int)OK(socket(AF_INET, SOCK_STREAM, 0))};
    struct rlimit before, none;
    /* Valgrind takes the connection that there is no room for, and closes it. */
    int expected = getenv("CHECK_SLOW") ? 1 : 2;

    OK(rsp_listen(server, 10));
    OK(rsp_register(server, (const unsigned char*)"Full", 4, NULL, 30000, 0));
    address.sin_port = port_of("Full");
    OK(getrlimit(RLIMIT_NOFILE, &before));
    none = before;
    none.rlim_cur = 3;
    OK(setrlimit(RLIMIT_NOFILE, &none));
    greet(users[0], &address);
    SAME(1, poll(&readable, 1, SOON));
    for (int tries = 0; tries < 2; tries++) {
        FAILS(EAGAIN, receive(server, 0).length);
    }
    /* From then on, while it is full, its owner is left alone. */
    SAME(0, poll(&readable, 1, 0));
    OK(setrlimit(RLIMIT_NOFILE, &before));
    greet(users[1], &address);
    for (int sessions = 0; sessions < expected;) {
        SAME(1, poll(&readable, 1, SOON));
        sessions += receive(server, 0).length == (ssize_t)sizeof(union rserpool_notification);
    }
    OK(close(users[0]));
    OK(close(users[1]));
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

static void* receive_for_a_while(void* argument)
{
    struct sleeper* user = argument;

    is_me(user);
    receive(user->sd, 300);
    pause();
    return NULL;
}

static void* accept_for_ever(void* argument)
{
    struct sleeper* listener = argument;

    is_me(listener);
    rsp_accept(listener->sd, -1);
    pause();
    return NULL;
}

/* A thread that is cancelled ends, but not before its call. */
static void cancelled(void)
{
    int element_sd = element("Cancelled", SOCK_STREAM, 0);
    int client = user("Cancelled", SOCK_STREAM);
    int session = (int)OK(rsp_accept(element_sd, SOON));
    struct sleeper sleepers[2] = {{client, 0}, {element_sd, 0}};
    pthread_t threads[2];
    void* result;

    SAME(0, pthread_create(&threads[1], NULL, accept_for_ever, &sleepers[1]));
    until_asleep(&sleepers[1]);
    SAME(0, pthread_create(&threads[0], NULL, receive_for_a_while, &sleepers[0]));
    until_asleep(&sleepers[0]);
    SAME(0, pthread_cancel(threads[0]));
    SAME(0, pthread_join(threads[0], &result));
    HOLDS(result == PTHREAD_CANCELED);
    SAME(0, pthread_cancel(threads[1]));
    send_text(session, 0, "unharmed");
    expect_text(client, "unharmed");
    OK(rsp_close(element_sd));
    SAME(0, pthread_join(threads[1], &result));
    HOLDS(result == PTHREAD_CANCELED);
    OK(rsp_close(client));
    OK(rsp_close(session));
}

static int torn;
static volatile sig_atomic_t deadlocks, handled;

/* Takes everything down, wherever the program is. */
static void on_alarm(int number)
{
    int before = errno;

    (void)number;
    handled++;
    if (rsp_close(torn) < 0 && errno == EDEADLK) {
        deadlocks++;
        errno = 0;
        rsp_cleanup();
        if (errno != EDEADLK) {
            _Exit(2);
        }
    }
    errno = before;
}

static void on_alarm_in_a_call(int number)
{
    struct rsp_counters counters;

    (void)number;
    FAILS(EDEADLK, rsp_close(torn));
    FAILS(EDEADLK, rsp_getcounters(&counters, sizeof(counters)));
    errno = 0;
    rsp_cleanup();
    SAME(EDEADLK, errno);
}

/* A handler that interrupts a call of the library can't close or clean up; it is told so instead of hanging. */
static void handlers_that_close(void)
{
    struct itimerval timer = {{0, 300}, {0, 300}};
    struct sigaction action;
    int element_sd = element("Handlers", SOCK_STREAM, 0);
    int client = user("Handlers", SOCK_STREAM);
    int session = (int)OK(rsp_accept(element_sd, SOON));
    int flags = 0;
    char byte;

    torn = user("Handlers", SOCK_STREAM);
    memset(&action, 0, sizeof(action));
    action.sa_handler = on_alarm_in_a_call;
    OK(sigaction(SIGALRM, &action, NULL));
    timer.it_interval.tv_usec = 0;
    timer.it_value.tv_usec = 50000;
    OK(setitimer(ITIMER_REAL, &timer, NULL));
    FAILS(EINTR, rsp_recvmsg(session, &byte, 1, NULL, &flags, SOON));
    timer.it_interval.tv_usec = timer.it_value.tv_usec = 300;
    action.sa_handler = on_alarm;
    action.sa_flags = SA_RESTART;
    OK(sigaction(SIGALRM, &action, NULL));
    OK(setitimer(ITIMER_REAL, &timer, NULL));
    /* Until it came within a call; at any other time the close succeeds, and later ones are EBADF. */
    for (int i = 0; i < 1000000 && deadlocks < 3; i++) {
        if (handled > deadlocks) {
            timer.it_interval.tv_usec = timer.it_value.tv_usec = 0;
            OK(setitimer(ITIMER_REAL, &timer, NULL));
            torn = user("Handlers", SOCK_STREAM);
            handled = deadlocks;
            timer.it_interval.tv_usec = timer.it_value.tv_usec = 300;
            OK(setitimer(ITIMER_REAL, &timer, NULL));
        }
        rsp_sendmsg(client, "x", 1, 0, 0, 0, 0, 0, 0, 0);
        rsp_recvmsg(session, &byte, 1, NULL, &flags, 1);
    }
    timer.it_interval.tv_usec = timer.it_value.tv_usec = 0;
    OK(setitimer(ITIMER_REAL, &timer, NULL));
    HOLDS(deadlocks >= 3);
    OK(rsp_close(client));
    OK(rsp_close(session));
    OK(rsp_close(element_sd));
}

/* As systemd's RestrictAddressFamilies= does it. */
static void forbid_netlink(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_NETLINK, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAFNOSUPPORT),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof(filter) / sizeof(*filter), filter};

    OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    OK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0));
    FAILS(EAFNOSUPPORT, socket(AF_NETLINK, SOCK_RAW, 0));
}

/* Registrar, element and user at addresses that are given; that there are no others is said once. */
static void hardened(void)
{
    char name[] = "/tmp/rserpool-hardened-XXXXXX", argument[80], line[512];
    struct sockaddr_in address;
    struct rsp_info info;
    int server, client, told = 0;
    FILE* log;

    OK(close((int)OK(mkstemp(name))));
    forbid_netlink();
    rsp_initinfo(&info);
    snprintf(argument, sizeof(argument), "-logfile=%s", name);
    SAME(1, rsp_initarg(&info, argument));
    SAME(1, rsp_initarg(&info, "-loglevel=2"));
    OK(rsp_initialize(&info));
    server = (int)OK(rsp_socket(0, SOCK_SEQPACKET, PROTOCOL));
    memset(&address, 0, sizeof(address));
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    OK(rsp_bind(server, (struct sockaddr*)&address, 1));
    OK(rsp_register(server, NAME("Hardened"), NULL, 30000, 0));
    client = user("Hardened", SOCK_SEQPACKET);
    expect_session(server, RSERPOOL_SESSION_ADD);
    send_text(client, 0, "hello");
    expect_text(server, "hello");
    rsp_cleanup();
    log = fopen(name, "r");
    while (fgets(line, sizeof(line), log) != NULL) {
        told += strstr(line, "AF_NETLINK") != NULL;
    }
    fclose(log);
    OK(unlink(name));
    SAME(1, told);
}

/* In a process of its own: what is forbidden stays so. */
static void without_netlink(void)
{
    int status = 0;
    pid_t child;

    if (getenv("CHECK_SLOW") != NULL) {
        /* valgrind needs more than a filter knows. */
        return;
    }
    child = (pid_t)OK(fork());
    if (child == 0) {
        hardened();
        _Exit(0);
    }
    OK(waitpid(child, &status, 0));
    SAME(0, status);
}

int main(void)
{
    note_handlers();
    without_a_network();
    without_netlink();
    again_and_again();
    limits();
    failed_start();
    only_sctp();
    start();
    forking();
    stranger_in_a_child("Stranger", SOCK_STREAM);
    stranger_in_a_child("Strangers", SOCK_SEQPACKET);
    backlog_in_a_child();
    full_for_a_while();
    no_handlers();
    no_sigpipe();
    many_threads();
    cancelled();
    handlers_that_close();
    rsp_cleanup();
    return checked();
}
