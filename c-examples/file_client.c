/* Downloads a file from a pool of file servers, and goes on when the server in use fails.
 *
 *   file_client [-pool=NAME] [-timeout=SECONDS] [-idle=MILLISECONDS] [-registrar=.. and other library
 *               switches] FILE [TO]
 *
 * The session moves to another server when the library says that it must, or when nothing came for
 * `idle`. A cookie tells the new server where to go on. It may lie behind what has arrived, so
 * bytes are taken by the offset in their message's header, each exactly once; if there is no cookie
 * yet, or bytes are missing, the client asks anew.
 *
 * Standard output says who served what, one line of KEY=VALUE pairs each, beginning with "served",
 * "failover" or "done"; standard error shows the same as a timeline for people.
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <rserpool/rserpool.h>

#define HEADER 16
#define MAX_MESSAGE (1 << 20)

struct download {
    int sd;
    int file;
    const char* name;
    uint64_t position; /* all before it has arrived */
    uint64_t size;     /* UINT64_MAX: not known yet */
    uint32_t server;   /* who sent the last data; 0: nobody yet */
    uint64_t from;     /* where that server began */
    double since;      /* when it began */
    double last;       /* when the last data came */
    double start;
    double failed;     /* when the failure was noticed; 0: all is well */
    int failovers;
    uint64_t duplicates; /* bytes that came twice */
    size_t have;         /* bytes of a message that is not whole yet */
    bool asked;          /* and no answer seen yet */
};

static unsigned char message[MAX_MESSAGE];

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void pause_for(long milliseconds)
{
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static uint64_t get64(const unsigned char* from)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++) {
        value = value << 8 | from[i];
    }
    return value;
}

/* Asks the server for the rest of the file. */
static void ask(struct download* download)
{
    char request[300];
    int length = snprintf(request, sizeof(request), "GET %llu %s", (unsigned long long)download->position, download->name);

    /* If this fails, so does the session, and the library will say so. */
    rsp_sendmsg(download->sd, request, (size_t)length, 0, 0, htonl(1), 0, 0, 0, 1000);
    download->asked = true;
}

/* One line for what one server did. */
static void served(const struct download* download)
{
    double seconds = download->last - download->since;
    double mib = (double)(download->position - download->from) / (1 << 20);

    printf("served pe=0x%08x from=%llu to=%llu begin=%.3f end=%.3f\n", download->server,
           (unsigned long long)download->from, (unsigned long long)download->position, download->since - download->start,
           download->last - download->start);
    fflush(stdout);
    fprintf(stderr, "%8.3f s  server 0x%08x sent bytes %llu to %llu (%.1f MiB, %.1f MiB/s)\n",
            download->last - download->start, download->server, (unsigned long long)download->from,
            (unsigned long long)download->position, mib, seconds > 0 ? mib / seconds : 0);
}

/* Data from another server than before: the failover is over. */
static void changed_server(struct download* download, uint32_t server)
{
    double time = now();

    if (download->server != 0) {
        double gap = (time - download->last) * 1000;
        double repair = download->failed > 0 ? (time - download->failed) * 1000 : 0;
        served(download);
        download->failovers++;
        printf("failover pe=0x%08x to=0x%08x at=%.3f noticed_ms=%.1f repaired_ms=%.1f gap_ms=%.1f\n", download->server,
               server, time - download->start, gap - repair, repair, gap);
        fflush(stdout);
        fprintf(stderr, "%8.3f s  failover to 0x%08x: %.1f ms without data, %.1f ms of them after it was noticed\n",
                time - download->start, server, gap, repair);
    }
    download->server = server;
    download->from = download->position;
    download->since = time;
}

/* Takes one whole message. False: the download cannot succeed. */
static bool take(struct download* download, size_t length, uint32_t server)
{
    uint64_t offset, size, bytes;
    const unsigned char* data = message + HEADER;

    if (length < HEADER) {
        return true;
    }
    offset = get64(message);
    size = get64(message + 8);
    bytes = length - HEADER;
    if (size == UINT64_MAX) {
        fprintf(stderr, "there is no \"%s\"\n", download->name);
        return false;
    }
    if (download->size != UINT64_MAX && size != download->size) {
        fprintf(stderr, "\"%s\" has another size on 0x%08x\n", download->name, server);
        return false;
    }
    if (server != download->server) {
        changed_server(download, server);
    }
    download->size = size;
    download->failed = 0;
    download->last = now();
    if (offset > download->position) {
        if (!download->asked) {
            ask(download); /* bytes are missing: the cookie was ahead of us */
        }
        return true;
    }
    download->asked = false;
    if (offset + bytes <= download->position) {
        download->duplicates += bytes;
        return true;
    }
    download->duplicates += download->position - offset;
    data += download->position - offset;
    bytes -= download->position - offset;
    while (bytes > 0) {
        ssize_t written = pwrite(download->file, data, (size_t)bytes, (off_t)download->position);
        if (written < 0 && errno != EINTR) {
            perror("writing");
            return false;
        }
        if (written > 0) {
            data += written;
            bytes -= (uint64_t)written;
            download->position += (uint64_t)written;
        }
    }
    return true;
}

/* Moves the session to another server. Whether that worked, a notification will tell. */
static void fail_over(struct download* download)
{
    if (download->failed == 0) {
        download->failed = now();
    }
    download->have = 0;
    download->asked = false;
    if (rsp_forcefailover(download->sd, FFF_UNREACHABLE, 0) < 0) {
        pause_for(20);
    }
}

static void notified(struct download* download, const union rserpool_notification* notification)
{
    if (notification->rn_header.rn_type != RSERPOOL_FAILOVER) {
        return;
    }
    if (notification->rn_failover.rf_state == RSERPOOL_FAILOVER_NECESSARY) {
        fail_over(download);
    } else if (!notification->rn_failover.rf_has_cookie) {
        ask(download); /* nobody told the new server what we want */
    }
}

/* Takes what one receive call brought. False: the download cannot succeed. */
static bool received(struct download* download, size_t length, int flags, uint32_t server)
{
    if (flags & MSG_RSERPOOL_NOTIFICATION) {
        union rserpool_notification notification;

        memcpy(&notification, message + download->have, sizeof(notification));
        notified(download, &notification);
        return true;
    }
    download->have += length;
    if (flags & MSG_EOR) {
        length = download->have;
        download->have = 0;
        return take(download, length, server);
    }
    if (download->have + sizeof(union rserpool_notification) > sizeof(message)) {
        fprintf(stderr, "0x%08x sends messages that are too long\n", server);
        return false;
    }
    return true;
}

static bool run(struct download* download, double deadline, int idle)
{
    double heard = now();

    ask(download);
    while (download->size == UINT64_MAX || download->position < download->size) {
        struct rsp_sndrcvinfo info;
        int flags = 0;
        ssize_t length = rsp_recvmsg(download->sd, message + download->have, sizeof(message) - download->have, &info,
                                     &flags, 100);
        bool quiet = length < 0 && errno == EAGAIN;

        if (now() > deadline) {
            fprintf(stderr, "time is over\n");
            return false;
        }
        if (quiet && (now() - heard) * 1000 < idle) {
            continue;
        }
        if (length <= 0) {
            fail_over(download);
        } else if (!received(download, (size_t)length, flags, info.rinfo_pe_id)) {
            return false;
        }
        heard = now();
    }
    return true;
}

int main(int argc, char** argv)
{
    struct rsp_info info;
    struct download download;
    const char* pool = "Download";
    const char* to = NULL;
    double timeout = 300;
    int idle = 10000;
    bool ok;

    memset(&download, 0, sizeof(download));
    rsp_initinfo(&info);
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "-pool=", 6) == 0) {
            pool = argv[i] + 6;
        } else if (strncmp(argv[i], "-timeout=", 9) == 0) {
            timeout = atof(argv[i] + 9);
        } else if (strncmp(argv[i], "-idle=", 6) == 0) {
            idle = atoi(argv[i] + 6);
        } else if (argv[i][0] != '-' && download.name == NULL) {
            download.name = argv[i];
        } else if (argv[i][0] != '-' && to == NULL) {
            to = argv[i];
        } else if (!rsp_initarg(&info, argv[i])) {
            download.name = NULL;
            break;
        }
    }
    if (download.name == NULL || strlen(download.name) > 255) {
        fprintf(stderr, "usage: %s [-pool=NAME] [-timeout=SECONDS] [-idle=MILLISECONDS] [-registrar=ADDR] FILE [TO]\n", argv[0]);
        rsp_freeinfo(&info);
        return 2;
    }
    to = to == NULL ? download.name : to;
    download.file = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (download.file < 0) {
        perror(to);
        return 1;
    }
    if (rsp_initialize(&info) < 0) {
        perror("rsp_initialize");
        return 1;
    }
    rsp_freeinfo(&info);
    download.size = UINT64_MAX;
    download.start = now();
    download.sd = rsp_socket(0, SOCK_SEQPACKET, IPPROTO_SCTP);
    if (download.sd < 0 || rsp_connect(download.sd, (const unsigned char*)pool, strlen(pool), 0) < 0) {
        perror("cannot connect");
        rsp_cleanup();
        return 1;
    }
    ok = run(&download, download.start + timeout, idle);
    if (download.server != 0) {
        served(&download);
    }
    if (ok && fsync(download.file) < 0 && errno != EINVAL) {
        perror(to);
        ok = false;
    }
    printf("done ok=%d bytes=%llu seconds=%.3f failovers=%d duplicates=%llu\n", ok, (unsigned long long)download.position,
           now() - download.start, download.failovers, (unsigned long long)download.duplicates);
    rsp_close(download.sd);
    rsp_cleanup();
    close(download.file);
    return ok ? 0 : 1;
}
