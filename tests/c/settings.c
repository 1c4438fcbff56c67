/* rsp_initinfo, rsp_initarg, rsp_freeinfo. */
#define _POSIX_C_SOURCE 200809L

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <unistd.h>

#include <rserpool/rserpool.h>

#include "check.h"

static const char* ip(const void* address)
{
    static char text[INET6_ADDRSTRLEN];
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;

    memcpy(&v4, address, sizeof(v4));
    if (v4.sin_family == AF_INET) {
        return inet_ntop(AF_INET, &v4.sin_addr, text, sizeof(text));
    }
    memcpy(&v6, address, sizeof(v6));
    return inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof(text));
}

/* At the same place for both families. */
static int port(const void* address)
{
    struct sockaddr_in v4;
    memcpy(&v4, address, sizeof(v4));
    return ntohs(v4.sin_port);
}

static void environment(void)
{
    struct rsp_info info;
    const unsigned char* bytes = (const unsigned char*)&info;

    unsetenv("CSP_SERVER");
    unsetenv("CSP_INTERVAL");
    memset(&info, 0xff, sizeof(info));
    rsp_initinfo(&info);
    for (size_t i = 0; i < sizeof(info); i++) {
        SAME(0, bytes[i]);
    }
    setenv("CSP_SERVER", "127.0.0.1:2961", 1);
    setenv("CSP_INTERVAL", "100", 1);
    rsp_initinfo(&info);
    SAME_TEXT("127.0.0.1", ip(info.ri_csp_server));
    SAME(2961, port(info.ri_csp_server));
    SAME(250, info.ri_csp_interval);
    rsp_freeinfo(&info);
    HOLDS(info.ri_csp_server == NULL);
    setenv("CSP_SERVER", "not an address", 1);
    setenv("CSP_INTERVAL", "1000", 1);
    rsp_initinfo(&info);
    HOLDS(info.ri_csp_server == NULL);
    SAME(1000, info.ri_csp_interval);
    unsetenv("CSP_SERVER");
    unsetenv("CSP_INTERVAL");
}

static void registrars(void)
{
    struct rsp_info info;
    const struct rsp_registrar_info* registrar;

    rsp_initinfo(&info);
    SAME(1, rsp_initarg(&info, "-registrar=127.0.0.1:5001,[::1]:9,127.0.0.2"));
    SAME(1, rsp_initarg(&info, "-registrar=[::1]!5002"));
    SAME(1, rsp_initarg(&info, "-registrar=127.0.0.3"));
    registrar = info.ri_registrars;
    SAME_TEXT("127.0.0.3", ip(registrar->rri_addr));
    SAME(3863, port(registrar->rri_addr));
    registrar = registrar->rri_next;
    SAME_TEXT("::1", ip(registrar->rri_addr));
    SAME(5002, port(registrar->rri_addr));
    registrar = registrar->rri_next;
    SAME(3, registrar->rri_addrs);
    /* Packed: 16 bytes, 28 bytes, 16 bytes; all with the first one's port. */
    SAME_TEXT("127.0.0.1", ip(registrar->rri_addr));
    SAME_TEXT("::1", ip((const char*)registrar->rri_addr + 16));
    SAME_TEXT("127.0.0.2", ip((const char*)registrar->rri_addr + 44));
    SAME(5001, port((const char*)registrar->rri_addr + 16));
    SAME(5001, port((const char*)registrar->rri_addr + 44));
    HOLDS(registrar->rri_next == NULL);
    SAME(0, rsp_initarg(&info, "-registrar="));
    SAME(0, rsp_initarg(&info, "-registrar=[::1"));
    SAME(0, rsp_initarg(&info, "-registrar=127.0.0.1:99999"));
    rsp_freeinfo(&info);
    HOLDS(info.ri_registrars == NULL);
    rsp_freeinfo(&info);
}

static void switches(void)
{
    struct rsp_info info;

    rsp_initinfo(&info);
    SAME(1, rsp_initarg(&info, "-registrarannouncetimeout=1001"));
    SAME(1, rsp_initarg(&info, "-registrarconnecttimeout=1002"));
    SAME(1, rsp_initarg(&info, "-registrarconnectmaxtrials=3"));
    SAME(1, rsp_initarg(&info, "-registrarrequesttimeout=1004"));
    SAME(1, rsp_initarg(&info, "-registrarresponsetimeout=1005"));
    SAME(1, rsp_initarg(&info, "-registrarrequestmaxtrials=6"));
    SAME(1001, info.ri_registrar_announce_timeout);
    SAME(1002, info.ri_registrar_connect_timeout);
    SAME(3, info.ri_registrar_connect_max_trials);
    SAME(1004, info.ri_registrar_request_timeout);
    SAME(1005, info.ri_registrar_response_timeout);
    SAME(6, info.ri_registrar_request_max_trials);

    SAME(1, rsp_initarg(&info, "-cspserver=127.0.0.1"));
    SAME(2960, port(info.ri_csp_server));
    SAME(0, info.ri_csp_interval);
    SAME(1, rsp_initarg(&info, "-cspinterval=10"));
    SAME(10, info.ri_csp_interval);
    SAME(1, rsp_initarg(&info, "-cspidentifier=0x1234abcd"));
    HOLDS(info.ri_csp_identifier == CID_COMPOUND(CID_GROUP_POOLELEMENT, 0x1234abcd));
    SAME(1, rsp_initarg(&info, "-cspidentifier=4711"));
    HOLDS(info.ri_csp_identifier == CID_COMPOUND(CID_GROUP_POOLELEMENT, 4711));
    SAME(0, rsp_initarg(&info, "-cspidentifier=me"));
    SAME(0, rsp_initarg(&info, "-cspsomething=1"));

    SAME(1, rsp_initarg(&info, "-asapannounce=off"));
    SAME(1, info.ri_disable_autoconfig);
    SAME(1, rsp_initarg(&info, "-asapannounce=AUTO"));
    SAME(0, info.ri_disable_autoconfig);
    SAME(1, rsp_initarg(&info, "-asapannounce=239.1.2.3"));
    SAME_TEXT("239.1.2.3", ip(info.ri_registrar_announce));
    SAME(3863, port(info.ri_registrar_announce));
    SAME(1, rsp_initarg(&info, "-asapannounce=239.1.2.3:4"));
    SAME(4, port(info.ri_registrar_announce));

    SAME(1, rsp_initarg(&info, "-transport=tcp"));
    SAME(1, rsp_initarg(&info, "-transport=auto"));
    SAME(0, rsp_initarg(&info, "-transport=pigeon"));
    SAME(0, rsp_initarg(&info, "-Registrar=127.0.0.1"));
    SAME(0, rsp_initarg(&info, "something"));
    SAME(0, rsp_initarg(&info, ""));
    rsp_freeinfo(&info);
    HOLDS(info.ri_csp_server == NULL && info.ri_registrar_announce == NULL);
}

/* Two structures have nothing in common: rsplib keeps one address per process. */
static void two_at_once(void)
{
    struct rsp_info one, two;

    rsp_initinfo(&one);
    rsp_initinfo(&two);
    SAME(1, rsp_initarg(&one, "-cspserver=127.0.0.1"));
    SAME(1, rsp_initarg(&two, "-cspserver=127.0.0.2"));
    SAME_TEXT("127.0.0.1", ip(one.ri_csp_server));
    SAME_TEXT("127.0.0.2", ip(two.ri_csp_server));
    rsp_freeinfo(&one);
    SAME_TEXT("127.0.0.2", ip(two.ri_csp_server));
    rsp_freeinfo(&two);
}

static void logging(void)
{
    struct rsp_info info;
    char name[] = "/tmp/rserpool-log-XXXXXX";
    char argument[64];
    int file = (int)OK(mkstemp(name));

    rsp_initinfo(&info);
    snprintf(argument, sizeof(argument), "-logfile=%s", name);
    SAME(1, rsp_initarg(&info, argument));
    snprintf(argument, sizeof(argument), "-logappend=%s", name);
    SAME(1, rsp_initarg(&info, argument));
    SAME(1, rsp_initarg(&info, "-loglevel=4"));
    SAME(1, rsp_initarg(&info, "-logcolor=off"));
    SAME(1, rsp_initarg(&info, "-logquiet"));
    SAME(0, rsp_initarg(&info, "-logfile=/no/such/folder/file"));
    SAME(0, rsp_initarg(&info, "-logeverything"));
    OK(unlink(name));
    OK(close(file));
    rsp_freeinfo(&info);
}

static void nothing(void)
{
    struct rsp_info info;

    rsp_initinfo(&info);
    SAME(0, rsp_initarg(NULL, "-cspinterval=1"));
    SAME(0, rsp_initarg(&info, NULL));
    rsp_initinfo(NULL);
    rsp_freeinfo(NULL);
}

int main(void)
{
    environment();
    registrars();
    switches();
    two_at_once();
    logging();
    nothing();
    return checked();
}
