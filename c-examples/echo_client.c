/* The smallest pool user: sends lines from standard input, prints what comes back and from whom; when a
 * server fails, sends the line again to another one.   echo_client [POOL [library switches]] */
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <rserpool/rserpool.h>

/* Waits for the answer to `line`. False: not in this many tries. */
static bool exchange(int sd, const char* line)
{
    char buffer[65536];
    struct rsp_sndrcvinfo from;
    bool sent = false;

    for (int tries = 0; tries < 100; tries++) {
        int flags = 0;
        ssize_t length;

        sent = sent || rsp_sendmsg(sd, line, strlen(line), 0, 0, 0, 0, 0, 0, 1000) >= 0;
        length = rsp_recvmsg(sd, buffer, sizeof(buffer), &from, &flags, 500);
        if (length > 0 && !(flags & MSG_RSERPOOL_NOTIFICATION)) {
            printf("0x%08x: %.*s\n", from.rinfo_pe_id, (int)length, buffer);
            fflush(stdout);
            return true;
        }
        if (length > 0) {
            const union rserpool_notification* notification = (union rserpool_notification*)buffer;

            if (notification->rn_header.rn_type == RSERPOOL_FAILOVER
                && notification->rn_failover.rf_state == RSERPOOL_FAILOVER_COMPLETE) {
                continue;
            }
        } else if (length < 0 && errno == EAGAIN) {
            continue;
        }
        rsp_forcefailover(sd, FFF_UNREACHABLE, 0);
        sent = false;
    }
    return false;
}

int main(int argc, char** argv)
{
    const char* pool = argc > 1 ? argv[1] : "EchoPool";
    struct rsp_info info;
    char line[4096];
    int result = 0;
    int sd;

    rsp_initinfo(&info);
    /* Without a registrar, that is said soon. */
    info.ri_registrar_connect_timeout = 400;
    for (int i = 2; i < argc; i++) {
        rsp_initarg(&info, argv[i]);
    }
    if (rsp_initialize(&info) < 0) {
        perror("rsp_initialize");
        return 1;
    }
    rsp_freeinfo(&info);
    sd = rsp_socket(0, SOCK_SEQPACKET, IPPROTO_SCTP);
    if (sd < 0 || rsp_connect(sd, (const unsigned char*)pool, strlen(pool), 0) < 0) {
        perror("cannot connect");
        rsp_cleanup();
        return 1;
    }
    if (rsp_geterror(sd) == RSPERR_NO_REGISTRAR) {
        fprintf(stderr, "%s\n", rsp_strerror(sd));
        rsp_cleanup();
        return 1;
    }
    while (result == 0 && fgets(line, sizeof(line), stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (line[0] != '\0' && !exchange(sd, line)) {
            fprintf(stderr, "nobody answers: %s\n", rsp_strerror(sd));
            result = 1;
        }
    }
    rsp_close(sd);
    rsp_cleanup();
    return result;
}
