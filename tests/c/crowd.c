/* As many sessions in one process as its limit of descriptors allows, up to 100 000: each takes one descriptor and
 * one socket on the user's side and one socket on the element's. All of them talk, all are polled at once, and
 * nothing is left when they are closed. CROWD sets another number; with the right to do so the limit is raised. */
#define _GNU_SOURCE

#include <sys/resource.h>
#include <time.h>

#include "pool.h"

#define ELEMENTS 8
#define MOST 100000
#define ENOUGH 1000

static int elements[ELEMENTS];
static int users[MOST];
static struct pollfd entries[MOST];

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Resident memory in KiB. */
static double memory(void)
{
    FILE* statm = fopen("/proc/self/statm", "r");
    long pages = 0;

    HOLDS(statm != NULL && fscanf(statm, "%*d %ld", &pages) == 1);
    fclose(statm);
    return (double)pages * (double)sysconf(_SC_PAGESIZE) / 1024;
}

/* How many sessions fit beside what else is open. */
static int room(void)
{
    struct rlimit limit;
    const char* wish = getenv("CROWD");
    int wanted = wish != NULL ? atoi(wish) : MOST;
    long fits;

    OK(getrlimit(RLIMIT_NOFILE, &limit));
    limit.rlim_cur = limit.rlim_max;
    if (wish != NULL && (long)limit.rlim_max < 4L * wanted) {
        limit.rlim_cur = limit.rlim_max = (rlim_t)(4L * wanted);
    }
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0) {
        OK(getrlimit(RLIMIT_NOFILE, &limit));
        limit.rlim_cur = limit.rlim_max;
        OK(setrlimit(RLIMIT_NOFILE, &limit));
    }
    fits = ((long)limit.rlim_cur - 512) / 3;
    if (wanted > MOST) {
        wanted = MOST;
    }
    return fits < wanted ? (int)fits : wanted;
}

/* Serves everybody until `count` messages were echoed. */
static void echo(int count)
{
    struct pollfd servers[ELEMENTS];

    for (int i = 0; i < ELEMENTS; i++) {
        servers[i] = (struct pollfd){elements[i], POLLIN, 0};
    }
    while (count > 0) {
        HOLDS(OK(rsp_poll(servers, ELEMENTS, SOON)) > 0);
        for (int i = 0; i < ELEMENTS; i++) {
            struct delivery d;
            while (count > 0 && servers[i].revents != 0 && (d = receive(elements[i], -1)).length >= 0) {
                if (d.length > 0 && !(d.flags & MSG_RSERPOOL_NOTIFICATION)) {
                    SAME(d.length, rsp_sendmsg(elements[i], d.bytes, (size_t)d.length, 0, d.info.rinfo_session, 0, 0, 0, 0, SOON));
                    count--;
                }
            }
        }
    }
}

int main(void)
{
    int count = room();
    double begin = now();
    double connected;
    double empty;
    double full;

    if (count < ENOUGH) {
        fprintf(stderr, "SKIPPED crowd: the limit of descriptors leaves room for %d sessions only\n", count);
        return 0;
    }
    start();
    for (int i = 0; i < ELEMENTS; i++) {
        elements[i] = element("Crowd", SOCK_SEQPACKET, 0);
        OK(rsp_listen(elements[i], 4096));
    }
    empty = memory();
    for (int i = 0; i < count; i++) {
        users[i] = (int)OK(rsp_socket(AF_INET, SOCK_SEQPACKET, IPPROTO_SCTP));
        errno = 0;
        SAME(0, rsp_connect(users[i], (const unsigned char*)"Crowd", 5, 60000));
        SAME(0, errno);
        SAME(sizeof(i), rsp_sendmsg(users[i], &i, sizeof(i), 0, 0, 0, 0, 0, 0, SOON));
        if (i % 256 == 255 || i == count - 1) {
            echo(i % 256 + 1);
        }
    }
    connected = now();
    full = memory();
    /* Everybody has an answer: one call sees them all. */
    for (int left = count; left > 0;) {
        int polled = 0;
        for (int i = 0; i < count; i++) {
            if (users[i] >= 0) {
                entries[polled++] = (struct pollfd){users[i], POLLIN, 0};
            }
        }
        SAME(left, polled);
        HOLDS(OK(rsp_poll(entries, (unsigned int)polled, SOON)) > 0);
        for (int i = 0, at = 0; i < count; i++) {
            if (users[i] >= 0 && entries[at++].revents != 0) {
                struct delivery d = receive(users[i], SOON);
                SAME(sizeof(i), d.length);
                SAME(0, memcmp(&i, d.bytes, sizeof(i)));
                OK(rsp_close(users[i]));
                users[i] = -1;
                left--;
            }
        }
    }
    rsp_cleanup();
    fprintf(stderr, "%d sessions in one process: connected and served in %.1f s, closed after %.1f s, %.1f KiB each with both ends\n", count,
            connected - begin, now() - begin, (full - empty) / count);
    return checked();
}
