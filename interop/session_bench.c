/* session_bench: one program for both libraries (it is linked against librsplib.so.3, and run on theirs
 * or ours).
 *
 *   session_bench serve POOL              echoes, and swallows what begins with '!'
 *   session_bench ping POOL SECONDS       round trips of 64 bytes: count, seconds, microseconds each
 *   session_bench stream POOL COUNT       COUNT messages of 1000 bytes one way, then one answer: count,
 *                                         seconds, count per second
 *   session_bench resolve POOL SECONDS    rsp_getaddrinfo without the cache, one after the other: count,
 *                                         seconds, count per second */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>
#include <netinet/in.h>
#include <rserpool/rserpool.h>

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static ssize_t receive(int sd, char* buffer, size_t size, int* flags)
{
    struct rsp_sndrcvinfo info;

    *flags = 0;
    return rsp_recvmsg(sd, buffer, size, &info, flags, 10000);
}

static int serve(const char* pool)
{
    static char buffer[65536];
    struct rsp_loadinfo load;
    int sd = rsp_socket(0, SOCK_STREAM, IPPROTO_SCTP);

    memset(&load, 0, sizeof(load));
    load.rli_policy = PPT_ROUNDROBIN;
    if (sd < 0 || rsp_bind(sd, NULL, 0) < 0 || rsp_listen(sd, 10) < 0
        || rsp_register(sd, (const unsigned char*)pool, strlen(pool), &load, 30000, 0) < 0) {
        perror("serve");
        return 1;
    }
    for (;;) {
        int session = rsp_accept(sd, -1), flags;
        ssize_t length;

        if (session < 0) {
            continue;
        }
        while ((length = receive(session, buffer, sizeof(buffer), &flags)) > 0 || (length < 0 && errno == EAGAIN)) {
            if (length > 0 && (flags & MSG_RSERPOOL_NOTIFICATION) == 0 && buffer[0] != '!') {
                rsp_sendmsg(session, buffer, (size_t)length, 0, 0, 0, 0, 0, 0, 5000);
            }
        }
        rsp_close(session);
    }
}

/* The next message that is no notification. */
static int answered(int sd)
{
    static char buffer[65536];
    int flags;
    ssize_t length;

    do {
        length = receive(sd, buffer, sizeof(buffer), &flags);
    } while (length > 0 && (flags & MSG_RSERPOOL_NOTIFICATION) != 0);
    return length > 0;
}

static int send_one(int sd, const char* data, size_t length)
{
    return rsp_sendmsg(sd, data, length, 0, 0, 0, 0, 0, 0, 10000) == (ssize_t)length;
}

static int resolve(const char* pool, double seconds)
{
    double start = now();
    long count = 0;

    for (; now() < start + seconds; count++) {
        struct rsp_addrinfo* found = NULL;

        if (rsp_getaddrinfo((const unsigned char*)pool, strlen(pool), &found, RSPGETADDRS_MIN, 0) < 1) {
            perror("resolve");
            return 1;
        }
        rsp_freeaddrinfo(found);
    }
    printf("%ld %.3f %.0f\n", count, now() - start, (double)count / (now() - start));
    return 0;
}

int main(int argc, char** argv)
{
    static char data[1000];
    struct rsp_info info;
    double start, until;
    long count = 0;
    int sd;

    if (argc < 3) {
        fprintf(stderr, "usage: session_bench serve|ping|stream|resolve POOL [SECONDS|COUNT]\n");
        return 2;
    }
    rsp_initinfo(&info);
    if (rsp_initialize(&info) < 0) {
        perror("rsp_initialize");
        return 1;
    }
    if (strcmp(argv[1], "serve") == 0) {
        return serve(argv[2]);
    }
    if (strcmp(argv[1], "resolve") == 0) {
        /* The first finds the registrar. */
        if (resolve(argv[2], 0.5) != 0 || resolve(argv[2], atof(argv[3])) != 0) {
            return 1;
        }
        rsp_cleanup();
        return 0;
    }
    sd = rsp_socket(0, SOCK_STREAM, IPPROTO_SCTP);
    if (sd < 0 || rsp_connect(sd, (const unsigned char*)argv[2], strlen(argv[2]), 0) < 0) {
        perror("connect");
        return 1;
    }
    memset(data, 'x', sizeof(data));
    if (!send_one(sd, data, 64) || !answered(sd)) {
        fprintf(stderr, "no answer\n");
        return 1;
    }
    start = now();
    if (strcmp(argv[1], "ping") == 0) {
        for (until = start + atof(argv[3]); now() < until; count++) {
            if (!send_one(sd, data, 64) || !answered(sd)) {
                perror("ping");
                return 1;
            }
        }
        printf("%ld %.3f %.0f\n", count, now() - start, (now() - start) / (double)count * 1e6);
    } else {
        data[0] = '!';
        for (; count < atol(argv[3]); count++) {
            if (!send_one(sd, data, sizeof(data))) {
                perror("stream");
                return 1;
            }
        }
        data[0] = 'x';
        if (!send_one(sd, data, 64) || !answered(sd)) {
            perror("end of stream");
            return 1;
        }
        printf("%ld %.3f %.0f\n", count, now() - start, (double)count / (now() - start));
    }
    rsp_close(sd);
    rsp_cleanup();
    return 0;
}
