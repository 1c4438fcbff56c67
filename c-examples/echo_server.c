/* The smallest pool element: sends every message back.   echo_server [POOL [library switches]] */
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <rserpool/rserpool.h>

/* SCTP_ABORT of <netinet/sctp.h>, which not everybody has. */
#define ABORT 0x0004

static volatile sig_atomic_t stop;

static void on_signal(int signal_number)
{
    (void)signal_number;
    stop = 1;
}

int main(int argc, char** argv)
{
    const char* pool = argc > 1 ? argv[1] : "EchoPool";
    struct rsp_info info;
    char buffer[65536];
    uint32_t id = 0;
    int sd;

    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    rsp_initinfo(&info);
    for (int i = 2; i < argc; i++) {
        rsp_initarg(&info, argv[i]);
    }
    if (rsp_initialize(&info) < 0) {
        perror("rsp_initialize");
        return 1;
    }
    rsp_freeinfo(&info);

    /* One descriptor for all sessions. Without loads and weights: round robin. */
    sd = rsp_socket(0, SOCK_SEQPACKET, IPPROTO_SCTP);
    if (sd < 0 || rsp_bind(sd, NULL, 0) < 0 || rsp_listen(sd, 10) < 0
        || rsp_register(sd, (const unsigned char*)pool, strlen(pool), NULL, 30000, 0) < 0
        || rsp_getsockname(sd, NULL, NULL, &id) < 0) {
        perror("cannot serve");
        rsp_cleanup();
        return 1;
    }
    printf("element 0x%08x of pool \"%s\"\n", id, pool);
    fflush(stdout);

    while (!stop) {
        struct rsp_sndrcvinfo from;
        int flags = 0;
        ssize_t length = rsp_recvmsg(sd, buffer, sizeof(buffer), &from, &flags, 500);

        if (length < 0 && errno != EAGAIN && errno != EINTR) {
            perror("rsp_recvmsg");
            break;
        }
        if (length <= 0) {
            continue;
        }
        if (flags & MSG_RSERPOOL_NOTIFICATION) {
            rsp_print_notification((union rserpool_notification*)buffer, stdout);
            putchar('\n');
            fflush(stdout);
        } else if (!(flags & MSG_RSERPOOL_COOKIE_ECHO)) {
            /* Without waiting: who does not read his answers must not hold up the others, and is sent away. */
            if (rsp_sendmsg(sd, buffer, (size_t)length, 0, from.rinfo_session, from.rinfo_ppid, from.rinfo_stream, 0, 0, 0) < 0
                && errno == EAGAIN) {
                rsp_sendmsg(sd, NULL, 0, 0, from.rinfo_session, 0, 0, 0, ABORT, 0);
            }
        }
    }
    rsp_close(sd);
    rsp_cleanup();
    return 0;
}
