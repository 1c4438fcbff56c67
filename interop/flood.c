/* flood: ASAP straight from an SCTP association, as fast as the registrar answers.
 *
 *   flood ADDRESS PORT register COUNT HOLD HANDLE...   COUNT elements with identifiers from 0xff000001 in each
 *                                                       pool, kept for HOLD seconds (keep-alives are answered)
 *   flood ADDRESS PORT unknown PPID 0 0                 something that is answered with an error, at ASAP's
 *                                                       or ENRP's port
 *   flood ADDRESS PORT resolve SECONDS DEPTH POOL      asks, with DEPTH questions under way
 *
 * Prints one line: count, seconds, count per second. The same program for every registrar. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/sctp.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define DEPTH 64
static int sd;
static unsigned ppid = 11;
static struct in_addr local_address;

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void die(const char* what)
{
    perror(what);
    exit(1);
}

static unsigned char* u16(unsigned char* at, unsigned value)
{
    at[0] = (unsigned char)(value >> 8);
    at[1] = (unsigned char)value;
    return at + 2;
}

static unsigned char* u32(unsigned char* at, unsigned value) { return u16(u16(at, value >> 16), value & 0xffff); }

static unsigned char* pool(unsigned char* at, const char* handle)
{
    size_t length = strlen(handle);

    at = u16(u16(at, 0x0009), (unsigned)length + 4);
    memset(at, 0, length + 3);
    memcpy(at, handle, length);
    return at + (length + 3) / 4 * 4;
}

/* One message as one user message with ASAP's PPID. */
static void send_message(unsigned char* message, const unsigned char* end)
{
    union {
        char bytes[CMSG_SPACE(sizeof(struct sctp_sndrcvinfo))];
        struct cmsghdr aligned;
    } control;
    struct iovec part = { message, (size_t)(end - message) };
    struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
    struct cmsghdr* cmsg = CMSG_FIRSTHDR(&header);
    struct sctp_sndrcvinfo info = { .sinfo_ppid = htonl(ppid) };

    u16(message + 2, (unsigned)part.iov_len);
    cmsg->cmsg_level = IPPROTO_SCTP;
    cmsg->cmsg_type = SCTP_SNDRCV;
    cmsg->cmsg_len = CMSG_LEN(sizeof(info));
    memcpy(CMSG_DATA(cmsg), &info, sizeof(info));
    if (sendmsg(sd, &header, MSG_NOSIGNAL) < 0) {
        die("send");
    }
}

/* The next answer of a type; keep-alives are acknowledged on the way. false: nothing until `deadline`. */
static bool answer(int type, double deadline)
{
    static unsigned char buffer[65536];

    for (;;) {
        struct pollfd wait = { sd, POLLIN, 0 };
        double left = deadline - now();
        ssize_t length;

        if (left <= 0 || poll(&wait, 1, (int)(left * 1000) + 1) <= 0) {
            return false;
        }
        length = recv(sd, buffer, sizeof(buffer), 0);
        if (length <= 0) {
            die("the registrar is gone");
        }
        if (buffer[0] == 7 && length >= 8) {
            /* The pool handle and the identifier come back, the registrar's ID does not. */
            memmove(buffer + 4, buffer + 8, (size_t)length - 8);
            buffer[0] = 8;
            buffer[1] = 0;
            send_message(buffer, buffer + length - 4);
        } else if (buffer[0] == type) {
            if (type == 3 && (buffer[1] & 1) != 0) {
                fprintf(stderr, "registration refused\n");
                exit(1);
            }
            return true;
        }
    }
}

static void ask_register(const char* handle, unsigned id)
{
    unsigned char message[512] = { 1 };
    unsigned char* at = pool(message + 4, handle);

    at = u16(u16(at, 0x000a), 40);
    at = u32(u32(u32(at, id), 0), 300000);
    at = u16(u16(u16(u16(at, 0x0004), 16), 4711), 1);
    at = u16(u16(at, 0x0001), 8);
    memcpy(at, &local_address, 4);
    at += 4;
    at = u32(u16(u16(at, 0x0008), 8), 1);
    send_message(message, at);
}

static void ask_resolve(const char* handle)
{
    unsigned char message[512] = { 5 };

    send_message(message, pool(message + 4, handle));
}

static void report(double count, double seconds)
{
    printf("%.0f %.3f %.0f\n", count, seconds, count / seconds);
    fflush(stdout);
}

static void flood_register(unsigned count, double hold, char** handles, int pools)
{
    unsigned asked = 0, answered = 0, total = count * (unsigned)pools;
    double start = now(), end;

    while (answered < total) {
        while (asked < total && asked - answered < DEPTH) {
            ask_register(handles[asked / count], 0xff000001u + asked % count);
            asked++;
        }
        if (!answer(3, now() + 30)) {
            fprintf(stderr, "no answer after %u registrations\n", answered);
            exit(1);
        }
        answered++;
    }
    report(total, now() - start);
    for (end = now() + hold; now() < end;) {
        answer(-1, end);
    }
}

static void flood_resolve(double seconds, unsigned depth, const char* handle)
{
    double start = now();
    unsigned long answered = 0;

    for (unsigned i = 0; i < depth; i++) {
        ask_resolve(handle);
    }
    while (now() - start < seconds) {
        if (!answer(6, now() + 30)) {
            fprintf(stderr, "no answer after %lu questions\n", answered);
            exit(1);
        }
        answered++;
        ask_resolve(handle);
    }
    report((double)answered, now() - start);
}

/* A parameter that nobody knows, with the bits "stop and report". */
static void ask_unknown(void)
{
    unsigned char message[64] = { 1 };
    unsigned char* at = message + 4;

    if (ppid == 12) {
        at = u32(u32(at, 0x7777), 0);
    }
    at = u32(u16(u16(at, 0x4077), 8), 1);
    send_message(message, at);
    if (!answer(ppid == 12 ? 0x0a : 0x0e, now() + 3)) {
        fprintf(stderr, "no error\n");
        exit(1);
    }
}

int main(int argc, char** argv)
{
    struct sockaddr_in to = { .sin_family = AF_INET };
    struct sockaddr_in local;
    socklen_t length = sizeof(local);
    int on = 1;

    if (argc < 7 || inet_pton(AF_INET, argv[1], &to.sin_addr) != 1) {
        fprintf(stderr, "usage: flood ADDRESS PORT register COUNT HOLD HANDLE... | resolve SECONDS DEPTH POOL | unknown PPID 0 0\n");
        return 2;
    }
    to.sin_port = htons((unsigned short)atoi(argv[2]));
    sd = socket(AF_INET, SOCK_STREAM, IPPROTO_SCTP);
    if (sd < 0 || connect(sd, (struct sockaddr*)&to, sizeof(to)) < 0) {
        die("connect");
    }
    setsockopt(sd, IPPROTO_SCTP, SCTP_NODELAY, &on, sizeof(on));
    getsockname(sd, (struct sockaddr*)&local, &length);
    local_address = local.sin_addr;
    if (strcmp(argv[3], "register") == 0) {
        flood_register((unsigned)atoi(argv[4]), atof(argv[5]), argv + 6, argc - 6);
    } else if (strcmp(argv[3], "unknown") == 0) {
        ppid = (unsigned)atoi(argv[4]);
        ask_unknown();
    } else {
        flood_resolve(atof(argv[4]), (unsigned)atoi(argv[5]), argv[6]);
    }
    close(sd);
    return 0;
}
