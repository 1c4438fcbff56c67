/* Any call from any thread on any descriptor: each gives a result or an errno, none hangs, none crashes. */
#define _GNU_SOURCE

#include <pthread.h>
#include <stdlib.h>

#include "pool.h"

#define NAME(text) (const unsigned char*)(text), strlen(text)
#define THREADS 8
#define SLOTS 12
#define KINDS 26

/* Descriptors that anybody may use, close and make anew. */
static int slots[SLOTS];
static int rounds = 1500;

static int slot(unsigned int* seed)
{
    return __atomic_load_n(&slots[(unsigned int)rand_r(seed) % SLOTS], __ATOMIC_SEQ_CST);
}

/* Puts a new descriptor where another one was, which is closed. */
static void replace(unsigned int* seed, int sd)
{
    int old = __atomic_exchange_n(&slots[(unsigned int)rand_r(seed) % SLOTS], sd, __ATOMIC_SEQ_CST);

    if (old >= 0) {
        rsp_close(old);
    }
}

static int make(unsigned int* seed)
{
    int type = rand_r(seed) % 2 ? SOCK_STREAM : SOCK_SEQPACKET;
    int sd = (int)OK(rsp_socket(0, type, IPPROTO_SCTP));

    if (rand_r(seed) % 2) {
        rsp_listen(sd, 10);
        rsp_register(sd, NAME("Storm"), NULL, 30000, REGF_DONTWAIT);
    }
    return sd;
}

static long long manage(unsigned int* seed, int kind, int sd)
{
    static struct TagItem tags[] = {{TAG_RspSession_ConnectTimeout, 100000}, {TAG_RspSession_HandleResolutionRetryDelay, 1000}, {TAG_DONE, 0}};
    struct rserpool_session_parameters parameters = {0, 0, 0, 0, 0, 0};
    unsigned char handle[32];
    size_t size = sizeof(handle);
    uint32_t id;
    int accepted;

    switch (kind) {
        case 0:
            replace(seed, make(seed));
            return 0;
        case 1:
            return rsp_bind(sd, NULL, 0);
        case 2:
            return rsp_listen(sd, 5);
        case 3:
            return rsp_register(sd, NAME("Storm"), NULL, 30000, REGF_DONTWAIT);
        case 4:
            return rsp_deregister(sd, DEREGF_DONTWAIT);
        case 5:
        case 6:
            return rsp_connect_tags(sd, NAME("Storm"), 60000, tags);
        case 7:
            return rsp_forcefailover(sd, FFF_NONE, 60000);
        case 8:
        case 9:
            accepted = rsp_accept(sd, rand_r(seed) % 3);
            if (accepted >= 0) {
                replace(seed, accepted);
            }
            return accepted;
        case 10:
            return rsp_getsockname(sd, handle, &size, &id);
        case 11:
            return rsp_getpeername(sd, handle, &size, &id);
        case 12:
            return rsp_has_cookie(sd);
        case 13:
            return rsp_csp_setstatus(sd, 1, "in the storm");
        default:
            parameters.sp_rto_max = 1000;
            return rsp_update_session_parameters(sd, &parameters);
    }
}

static long long talk(unsigned int* seed, int kind, int sd)
{
    static char large[100000];
    char buffer[2000];
    struct rsp_sndrcvinfo info;
    struct pollfd entries[3] = {{sd, POLLIN, 0}, {slot(seed), POLLIN | POLLOUT, 0}, {slot(seed), POLLOUT, 0}};
    struct timeval time = {0, 1000};
    rserpool_session_t session = rand_r(seed) % 4;
    int value = 0;
    int flags = 0;
    socklen_t length = sizeof(value);
    fd_set set;

    switch (kind) {
        case 15:
        case 16:
            return rsp_sendmsg(sd, large, 1 + (size_t)rand_r(seed) % sizeof(large), 0, session, 0, 0, 0, 0, rand_r(seed) % 3);
        case 17:
            return rsp_send_cookie(sd, NAME("cookie"), session, 1);
        case 18:
            return rsp_recvfullmsg(sd, buffer, sizeof(buffer), &info, &flags, 1);
        case 19:
        case 20:
            return rsp_recvmsg(sd, buffer, sizeof(buffer), &info, &flags, rand_r(seed) % 3);
        case 21:
            return rsp_read(sd, buffer, sizeof(buffer));
        case 22:
            return rsp_write(sd, "written", 7);
        case 23:
            return rsp_poll(entries, 3, rand_r(seed) % 3);
        case 24:
            FD_ZERO(&set);
            if (sd >= 0) {
                FD_SET(sd, &set);
            }
            return rsp_select(FD_SETSIZE, &set, NULL, NULL, &time);
        default:
            return rsp_getsockopt(sd, SOL_SOCKET, SO_TYPE, &value, &length);
    }
}

static void* run(void* argument)
{
    unsigned int seed = *(unsigned int*)argument;

    for (int i = 0; i < rounds; i++) {
        int kind = rand_r(&seed) % KINDS;
        int sd = slot(&seed);

        errno = 0;
        if ((kind < 15 ? manage(&seed, kind, sd) : talk(&seed, kind, sd)) < 0) {
            /* EIO is a failed session, or an internal error: those end the process in valgrind's run. */
            HOLDS(errno != 0 && errno != EFAULT);
        }
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];
    unsigned int seeds[THREADS];
    int before = 0;

    if (getenv("CHECK_SLOW") != NULL) {
        rounds /= 10;
    }
    start();
    for (unsigned int i = 0; i < SLOTS; i++) {
        slots[i] = make(&(unsigned int){i});
    }
    for (unsigned int i = 0; i < THREADS; i++) {
        seeds[i] = 4711 + i;
        SAME(0, pthread_create(&threads[i], NULL, run, &seeds[i]));
    }
    for (unsigned int i = 0; i < THREADS; i++) {
        SAME(0, pthread_join(threads[i], NULL));
    }
    /* Those that are left are closed by: */
    rsp_cleanup();
    /* What a library leaves behind would add up; valgrind counts its bytes. */
    for (int i = 0; i < 10; i++) {
        start();
        element("Calm", SOCK_SEQPACKET, 0);
        user("Calm", SOCK_SEQPACKET);
        rsp_cleanup();
        before = i == 0 ? settled_files() : before;
        LEAVES_FILES(before);
    }
    return checked();
}
