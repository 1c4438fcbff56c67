/* Calls that wait: rsp_close of their descriptor by another thread ends every one of them at once with EBADF,
 * however many wait on it, and so does rsp_cleanup; a signal ends those that POSIX would end with EINTR. */
#define _GNU_SOURCE

#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "pool.h"

/* How long a registrar may take here, in milliseconds: longer than a busy machine sleeps. */
#define PATIENCE 20000
/* How many calls wait at once. */
#define CALLS 4

/* A descriptor on which there is something to wait for. */
struct scene {
    int sd;
    rserpool_session_t session;
    /* Where the other side is, to be closed afterwards; -1: nowhere. */
    int other;
    struct crowded crowded;
    int registrar;
};

struct call {
    pthread_t thread;
    const struct scene* scene;
    long long (*run)(const struct scene*);
    long long result;
    int code;
    bool ended;
};

static bool ended(struct call* call)
{
    return __atomic_load_n(&call->ended, __ATOMIC_SEQ_CST);
}

static void* run(void* argument)
{
    struct call* call = argument;

    errno = 0;
    call->result = call->run(call->scene);
    call->code = errno;
    __atomic_store_n(&call->ended, true, __ATOMIC_SEQ_CST);
    return NULL;
}

static void begin(struct call* call, const struct scene* scene, long long (*what)(const struct scene*))
{
    memset(call, 0, sizeof(*call));
    call->scene = scene;
    call->run = what;
    SAME(0, pthread_create(&call->thread, NULL, run, call));
}

static void pause_for(int milliseconds)
{
    struct timespec pause = {milliseconds / 1000, milliseconds % 1000 * 1000000};

    nanosleep(&pause, NULL);
}

static long long milliseconds_since(const struct timespec* before)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - before->tv_sec) * 1000LL + (now.tv_nsec - before->tv_nsec) / 1000000;
}

/* The calls. */

static long long recvmsg_call(const struct scene* scene)
{
    char buffer[64];
    int flags = 0;

    return rsp_recvmsg(scene->sd, buffer, sizeof(buffer), NULL, &flags, SOON);
}

static long long recvfullmsg_call(const struct scene* scene)
{
    char buffer[64];
    int flags = 0;

    return rsp_recvfullmsg(scene->sd, buffer, sizeof(buffer), NULL, &flags, -1);
}

/* As poll(2) has it, what is no descriptor is POLLNVAL, whichever direction is waited for. */
static long long poll_call(const struct scene* scene, short events)
{
    struct pollfd entry = {scene->sd, events, 0};
    int count = rsp_poll(&entry, 1, -1);

    if (count == 1 && entry.revents == POLLNVAL) {
        errno = EBADF;
        return -1;
    }
    return count;
}

static long long poll_in(const struct scene* scene)
{
    return poll_call(scene, POLLIN);
}

static long long poll_out(const struct scene* scene)
{
    return poll_call(scene, POLLOUT);
}

static long long select_in(const struct scene* scene)
{
    fd_set set;

    FD_ZERO(&set);
    FD_SET(scene->sd, &set);
    return rsp_select(scene->sd + 1, &set, NULL, NULL, NULL);
}

static long long select_out(const struct scene* scene)
{
    fd_set set;

    FD_ZERO(&set);
    FD_SET(scene->sd, &set);
    return rsp_select(scene->sd + 1, NULL, &set, NULL, NULL);
}

static long long accept_call(const struct scene* scene)
{
    return rsp_accept(scene->sd, -1);
}

static long long accept_tags_call(const struct scene* scene)
{
    return rsp_accept_tags(scene->sd, SOON, NULL);
}

static long long sendmsg_call(const struct scene* scene)
{
    return rsp_sendmsg(scene->sd, "x", 1, 0, scene->session, 0, 0, 0, 0, SOON);
}

static long long send_cookie_call(const struct scene* scene)
{
    return rsp_send_cookie(scene->sd, (const unsigned char*)"x", 1, scene->session, -1);
}

static long long connect_call(const struct scene* scene)
{
    return rsp_connect(scene->sd, (const unsigned char*)"Waiting", 7, 0);
}

static long long connect_tags_call(const struct scene* scene)
{
    return rsp_connect_tags(scene->sd, (const unsigned char*)"Waiting", 7, 0, NULL);
}

static long long forcefailover_call(const struct scene* scene)
{
    return rsp_forcefailover(scene->sd, FFF_NONE, 0);
}

static long long forcefailover_tags_call(const struct scene* scene)
{
    return rsp_forcefailover_tags(scene->sd, FFF_UNREACHABLE, 0, NULL);
}

static long long register_call(const struct scene* scene)
{
    return rsp_register(scene->sd, (const unsigned char*)"Waiting", 7, NULL, 30000, 0);
}

static long long register_tags_call(const struct scene* scene)
{
    return rsp_register_tags(scene->sd, (const unsigned char*)"Waiting", 7, NULL, 30000, 0, NULL);
}

static long long deregister_call(const struct scene* scene)
{
    return rsp_deregister(scene->sd, 0);
}

static long long deregister_tags_call(const struct scene* scene)
{
    return rsp_deregister_tags(scene->sd, 0, NULL);
}

/* Those that never wait are called until the descriptor is closed. */

static bool again(long long result)
{
    pause_for(1);
    return result >= 0 || errno == EAGAIN;
}

static long long read_call(const struct scene* scene)
{
    char buffer[64];

    while (again(rsp_read(scene->sd, buffer, sizeof(buffer)))) {
    }
    return -1;
}

static long long recv_call(const struct scene* scene)
{
    char buffer[64];

    while (again(rsp_recv(scene->sd, buffer, sizeof(buffer), 0))) {
    }
    return -1;
}

static long long write_call(const struct scene* scene)
{
    while (again(rsp_write(scene->sd, "x", 1))) {
    }
    return -1;
}

static long long send_call(const struct scene* scene)
{
    while (again(rsp_send(scene->sd, "x", 1, 0))) {
    }
    return -1;
}

/* The scenes. */

/* Nobody comes. */
static void many(struct scene* scene)
{
    scene->sd = element("Waiting", SOCK_SEQPACKET, 0);
}

static void listener(struct scene* scene)
{
    scene->sd = element("Waiting", SOCK_STREAM, 0);
}

/* The element says nothing. */
static void quiet_user(struct scene* scene)
{
    scene->other = element("Waiting", SOCK_SEQPACKET, 0);
    scene->sd = user("Waiting", SOCK_SEQPACKET);
    expect_session(scene->other, RSERPOOL_SESSION_ADD);
}

/* The element reads nothing. */
static void full_user(struct scene* scene)
{
    quiet_user(scene);
    fill(scene->sd, 0);
}

/* The user says nothing. */
static void quiet_session(struct scene* scene)
{
    int element_sd = element("Waiting", SOCK_STREAM, 0);

    scene->other = user("Waiting", SOCK_STREAM);
    OK(scene->sd = rsp_accept(element_sd, SOON));
    OK(rsp_close(element_sd));
}

/* The user reads nothing. */
static void full_session(struct scene* scene)
{
    quiet_session(scene);
    fill(scene->sd, 0);
}

static void full_many(struct scene* scene)
{
    many(scene);
    scene->other = user("Waiting", SOCK_SEQPACKET);
    scene->session = expect_session(scene->sd, RSERPOOL_SESSION_ADD);
    fill(scene->sd, scene->session);
}

/* The only element lets nobody in. */
static void crowded(struct scene* scene)
{
    struct sockaddr_in address = crowd(&scene->crowded);

    elsewhere("Waiting", &address, IPPROTO_TCP);
    OK(scene->sd = rsp_socket(0, SOCK_SEQPACKET, PROTOCOL));
}

/* A failed session, to be moved to an element that lets nobody in. */
static void stranded(struct scene* scene)
{
    struct TagItem tags[] = {{TAG_RspSession_HandleResolutionRetryDelay, 1000}, {TAG_DONE, 0}};
    struct sockaddr_in address;

    OK(scene->sd = rsp_socket(0, SOCK_SEQPACKET, PROTOCOL));
    SETS(ENOENT, rsp_connect_tags(scene->sd, (const unsigned char*)"Waiting", 7, 0, tags));
    address = crowd(&scene->crowded);
    elsewhere("Waiting", &address, IPPROTO_TCP);
}

/* A failed session whose pool is empty, which is looked at again after a while: longer than a busy machine sleeps, since a
 * call whose time is over ends by itself. In microseconds. */
static void deserted(struct scene* scene)
{
    struct TagItem tags[] = {{TAG_RspSession_HandleResolutionRetryDelay, 2500000}, {TAG_DONE, 0}};

    OK(scene->sd = rsp_socket(0, SOCK_SEQPACKET, PROTOCOL));
    SETS(ENOENT, rsp_connect_tags(scene->sd, (const unsigned char*)"Waiting", 7, 0, tags));
}

/* The registrar says nothing. */
static void unheard(struct scene* scene)
{
    OK(scene->sd = rsp_socket(0, SOCK_SEQPACKET, PROTOCOL));
}

/* It has been asked to register, which it must have been for a deregistration to wait. */
static void half_registered(struct scene* scene)
{
    struct timespec before;
    char request[64];
    int sd;

    unheard(scene);
    OK(rsp_register(scene->sd, (const unsigned char*)"Waiting", 7, NULL, 30000, REGF_DONTWAIT));
    OK(sd = accept(scene->registrar, NULL, NULL));
    HOLDS(recv(sd, request, sizeof(request), 0) > 0);
    scene->other = sd;
    /* Changed values are the registrar's business, too, but nobody waits for it. */
    clock_gettime(CLOCK_MONOTONIC, &before);
    OK(rsp_register(scene->sd, (const unsigned char*)"Waiting", 7, NULL, 20000, 0));
    HOLDS(milliseconds_since(&before) < PATIENCE / 4);
}

/* What can be waited for; all calls of a row wait at the same time. */
static const struct row {
    const char* name;
    void (*set)(struct scene*);
    /* The registrar is one that doesn't answer. */
    bool silence;
    /* Whether rsp_cleanup is tried as well: where it doesn't end the other side at the same time. */
    bool cleanup;
    long long (*calls[CALLS])(const struct scene*);
    /* How many of them a signal ends. */
    int interruptible;
} rows[] = {
    {"many", many, false, true, {recvmsg_call, recvfullmsg_call, poll_in, select_in}, 4},
    {"many, not waiting", many, false, true, {read_call, recv_call}, 0},
    {"listener", listener, false, true, {accept_call, accept_tags_call, poll_in, select_in}, 4},
    {"quiet user", quiet_user, false, false, {recvmsg_call, recvfullmsg_call, poll_in, select_in}, 4},
    {"full user", full_user, false, false, {sendmsg_call, poll_out, select_out}, 3},
    {"full user, not waiting", full_user, false, false, {write_call, send_call}, 0},
    {"quiet session", quiet_session, false, false, {recvmsg_call, recvfullmsg_call, poll_in, select_in}, 4},
    {"full session", full_session, false, false, {sendmsg_call, send_cookie_call, poll_out, select_out}, 4},
    {"full many", full_many, false, false, {sendmsg_call, send_cookie_call}, 2},
    {"crowded", crowded, false, true, {connect_call}, 0},
    {"crowded, tags", crowded, false, false, {connect_tags_call}, 0},
    {"stranded", stranded, false, true, {forcefailover_call, forcefailover_tags_call}, 0},
    {"deserted", deserted, false, true, {forcefailover_call, forcefailover_tags_call}, 0},
    {"unheard connect", unheard, true, true, {connect_call}, 0},
    {"unheard register", unheard, true, true, {register_call}, 0},
    {"unheard register, tags", unheard, true, false, {register_tags_call}, 0},
    {"half registered", half_registered, true, true, {deregister_call}, 0},
    {"half registered, tags", half_registered, true, false, {deregister_tags_call}, 0},
};

static void set(const struct row* row, struct scene* scene)
{
    struct sockaddr_in address;

    memset(scene, 0, sizeof(*scene));
    scene->other = -1;
    if (row->silence) {
        address = bound(&scene->registrar);
        OK(listen(scene->registrar, 5));
        start_with(&address, PATIENCE);
    } else {
        setenv("RSP_REGISTRAR", "embedded", 1);
        start();
    }
    row->set(scene);
}

static void strike(const struct row* row, struct scene* scene)
{
    if (row->silence && scene->other >= 0) {
        OK(close(scene->other));
    } else if (scene->other >= 0) {
        rsp_close(scene->other);
    }
    if (row->silence) {
        OK(close(scene->registrar));
    }
    if (scene->crowded.listener > 0) {
        disperse(&scene->crowded);
    }
}

static void* close_it(void* argument)
{
    OK(rsp_close(*(const int*)argument));
    return NULL;
}

static void* clean_up(void* argument)
{
    (void)argument;
    rsp_cleanup();
    return NULL;
}

/* Ends all calls of a row from another thread, which may itself wait for the registrar. */
static void ended_by(const struct row* row, void* (*what)(void*))
{
    struct scene scene;
    struct call calls[CALLS];
    struct timespec before;
    pthread_t closer;
    int count = 0;

    fprintf(stderr, "%s\n", row->name);
    set(row, &scene);
    while (count < CALLS && row->calls[count] != NULL) {
        begin(&calls[count], &scene, row->calls[count]);
        count++;
    }
    /* Into the calls, most likely. They must end either way. */
    pause_for(50);
    for (int i = 0; i < count; i++) {
        HOLDS(!ended(&calls[i]));
    }
    clock_gettime(CLOCK_MONOTONIC, &before);
    SAME(0, pthread_create(&closer, NULL, what, &scene.sd));
    for (int i = 0; i < count; i++) {
        SAME(0, pthread_join(calls[i].thread, NULL));
        SAME(-1, calls[i].result);
        SAME(EBADF, calls[i].code);
    }
    HOLDS(milliseconds_since(&before) < PATIENCE / 4);
    strike(row, &scene);
    /* Who closes waits for the registrar, at most until the library ends, and that takes three seconds at most. */
    rsp_cleanup();
    SAME(0, pthread_join(closer, NULL));
    HOLDS(milliseconds_since(&before) < PATIENCE / 2);
}

static void on_signal(int number)
{
    (void)number;
}

/* Whether or not the handler wants calls restarted. */
static void interrupted(const struct row* row, int flags)
{
    struct scene scene;
    struct call pair[2];
    struct sigaction action;

    fprintf(stderr, "%s\n", row->name);
    memset(&action, 0, sizeof(action));
    action.sa_handler = on_signal;
    action.sa_flags = flags;
    OK(sigaction(SIGUSR1, &action, NULL));
    set(row, &scene);
    for (int i = 0; i < row->interruptible; i++) {
        /* Whoever receives second waits for the same in another way, perhaps. */
        bool receives = row->calls[i] == recvmsg_call || row->calls[i] == recvfullmsg_call;

        begin(&pair[0], &scene, row->calls[i]);
        if (receives) {
            begin(&pair[1], &scene, row->calls[i]);
        }
        for (int which = receives; which >= 0; which--) {
            /* Until it has arrived within the call. */
            while (!ended(&pair[which])) {
                pthread_kill(pair[which].thread, SIGUSR1);
                pause_for(2);
            }
            SAME(0, pthread_join(pair[which].thread, NULL));
            SAME(-1, pair[which].result);
            SAME(EINTR, pair[which].code);
        }
    }
    strike(row, &scene);
    rsp_cleanup();
}

int main(void)
{
    const struct row* end = rows + sizeof(rows) / sizeof(rows[0]);

    for (const struct row* row = rows; row < end; row++) {
        ended_by(row, close_it);
        if (row->cleanup) {
            ended_by(row, clean_up);
        }
        if (row->interruptible > 0) {
            interrupted(row, 0);
            interrupted(row, SA_RESTART);
        }
    }
    return checked();
}
