/* What rsp_strerror and rsp_geterror say beside errno. */
#define _POSIX_C_SOURCE 200809L

#include <pthread.h>

#include "pool.h"

#define NAME(text) (const unsigned char*)(text), strlen(text)

/* The text has all of these, one after the other. */
static void says(int sd, const char* one, const char* two, const char* three)
{
    const char* text = rsp_strerror(sd);
    const char* words[] = {one, two, three};

    for (size_t i = 0; i < 3; i++) {
        const char* found = strstr(text, words[i]);

        if (found == NULL) {
            fprintf(stderr, "\"%s\" says nothing of \"%s\"\n", text, words[i]);
            HOLDS(!"said");
        }
    }
}

static void silent(int sd)
{
    SAME_TEXT("", rsp_strerror(sd));
    SAME(RSPERR_OKAY, rsp_geterror(sd));
}

static void settings(void)
{
    setenv("RSP_TRANSPORT", "udp", 1);
    FAILS(EINVAL, rsp_initialize(NULL));
    says(-1, "RSP_TRANSPORT", "udp", "tcp");
    SAME(RSPERR_INVALID_VALUE, rsp_geterror(-1));
    setenv("RSP_TRANSPORT", "tcp", 1);
    setenv("RSP_RESPONSE_TIMEOUT", "soon", 1);
    FAILS(EINVAL, rsp_initialize(NULL));
    says(-1, "RSP_RESPONSE_TIMEOUT", "soon", "");
    unsetenv("RSP_RESPONSE_TIMEOUT");
    setenv("RSP_TLS_DIR", "/nowhere", 1);
    FAILS(EINVAL, rsp_initialize(NULL));
    says(-1, "TLS", "/nowhere/cert.pem", "");
    SAME(RSPERR_INVALID_VALUE, rsp_geterror(-1));
    unsetenv("RSP_TLS_DIR");
}

static void without_a_library(void)
{
    struct rsp_addrinfo* list;

    SAME(REAI_SYSTEM, FAILS(EACCES, rsp_getaddrinfo(NAME("Pool"), &list, 1, 0)));
    says(-1, "rsp_initialize", "", "");
    SAME(RSPERR_NOT_INITIALIZED, rsp_pe_failure(NAME("Pool"), 1));
}

static void no_registrar(void)
{
    struct sockaddr_in nobody, pe;
    struct rsp_addrinfo* list;
    struct rsp_addrinfo info;
    int listener, other, sd;
    char port[16];

    nobody = bound(&listener);
    pe = bound(&other);
    snprintf(port, sizeof(port), ":%d", ntohs(nobody.sin_port));
    start_with(&nobody, 300);
    SAME(REAI_SYSTEM, FAILS(EIO, rsp_getaddrinfo(NAME("Pool"), &list, 1, 0)));
    says(-1, "Pool", port, "over TCP");
    SAME(RSPERR_NO_REGISTRAR, rsp_geterror(-1));
    sd = (int)OK(rsp_socket(0, SOCK_SEQPACKET, IPPROTO_TCP));
    silent(sd);
    SETS(EIO, rsp_connect(sd, NAME("Pool"), 0));
    says(sd, "Pool", "no registrar", port);
    SAME(RSPERR_NO_REGISTRAR, rsp_geterror(sd));
    OK(rsp_close(sd));
    silent(sd);
    /* It returns 0, and is tried again; but why there is nothing in the pool can be known. */
    sd = (int)OK(rsp_socket(0, SOCK_SEQPACKET, IPPROTO_TCP));
    OK(rsp_listen(sd, 10));
    OK(rsp_register(sd, NAME("Pool"), NULL, 30000, REGF_DAEMONMODE));
    says(sd, "registration", "Pool", port);
    SAME(RSPERR_NO_REGISTRAR, rsp_geterror(sd));
    OK(rsp_close(sd));
    info = at(&pe, IPPROTO_TCP);
    SAME(RSPERR_NO_REGISTRAR, rsp_pe_registration(NAME("Pool"), &info, NULL, 30000, 0));
    says(-1, "registration", "Pool", port);
    SAME(RSPERR_NO_REGISTRAR, rsp_geterror(-1));
    rsp_cleanup();
    OK(close(listener));
    OK(close(other));
}

static void* elsewhere_in_the_process(void* unused)
{
    silent(-1);
    return unused;
}

static void pools(void)
{
    struct rsp_loadinfo least = {PPT_LEASTUSED, 0, 0, 0, 0, 0};
    struct rsp_addrinfo* list;
    struct sockaddr_in gone;
    int server, client, late, listener;
    pthread_t thread;

    start_with(NULL, 3000);
    SAME(REAI_NONAME, rsp_getaddrinfo(NAME("Nobody"), &list, 1, 0));
    says(-1, "Nobody", "unknown pool", "");
    SAME(RSPERR_NOT_FOUND, rsp_geterror(-1));
    SAME(0, pthread_create(&thread, NULL, elsewhere_in_the_process, NULL));
    SAME(0, pthread_join(thread, NULL));
    client = (int)OK(rsp_socket(0, SOCK_SEQPACKET, IPPROTO_TCP));
    SETS(ENOENT, rsp_connect(client, NAME("Nobody"), 0));
    says(client, "Nobody", "", "");
    SAME(RSPERR_NOT_FOUND, rsp_geterror(client));

    /* Refused: the pool has another policy. */
    server = element("Why", SOCK_SEQPACKET, 0);
    silent(server);
    late = (int)OK(rsp_socket(0, SOCK_SEQPACKET, IPPROTO_TCP));
    OK(rsp_listen(late, 10));
    OK(rsp_register(late, NAME("Why"), &least, 30000, 0));
    says(late, "Why", "RoundRobin", "LeastUsed");
    SAME(RSPERR_INCOMPATIBLE_POOL_POLICY, rsp_geterror(late));
    OK(rsp_close(late));

    /* What succeeds has nothing to say any more. */
    OK(rsp_close(element("Nobody", SOCK_SEQPACKET, 0)));
    SAME(1, rsp_getaddrinfo(NAME("Why"), &list, 1, 0));
    rsp_freeaddrinfo(list);
    silent(-1);
    OK(rsp_close(client));

    /* An element that is not there. */
    gone = bound(&listener);
    elsewhere("Gone", &gone, IPPROTO_TCP);
    client = (int)OK(rsp_socket(0, SOCK_SEQPACKET, IPPROTO_TCP));
    SAME(0, rsp_connect(client, NAME("Gone"), 0));
    SAME(ECONNREFUSED, errno);
    says(client, "Gone", "refused", "does not answer");
    SAME(RSPERR_CONNECTION_FAILURE_CONNECT, rsp_geterror(client));
    FAILS(EIO, rsp_sendmsg(client, "x", 1, 0, 0, 0, 0, 0, 0, 0));
    says(client, "sending", "rsp_forcefailover", "");
    OK(rsp_close(client));
    OK(close(listener));
    OK(rsp_close(server));
    rsp_cleanup();
}

int main(void)
{
    silent(-1);
    silent(4711);
    settings();
    without_a_library();
    no_registrar();
    pools();
    return checked();
}
