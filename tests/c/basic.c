/* Basic mode: resolution, registration and failure reports without sessions. */
#define _POSIX_C_SOURCE 200809L

#include "pool.h"

#define POOL (const unsigned char*)"Basic", 5

static struct rsp_addrinfo where(struct sockaddr_in* v4, int protocol, int port)
{
    struct rsp_addrinfo info;

    memset(&info, 0, sizeof(info));
    memset(v4, 0, sizeof(*v4));
    v4->sin_family = AF_INET;
    v4->sin_port = htons((uint16_t)port);
    v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    info.ai_protocol = protocol;
    info.ai_addrs = 1;
    info.ai_addr = (struct sockaddr*)v4;
    return info;
}

static void registering(void)
{
    struct rsp_loadinfo load = {PPT_WEIGHTED_ROUNDROBIN, 1, 0, 0, 0, 0};
    struct rsp_loadinfo other = {PPT_RANDOM, 0, 0, 0, 0, 0};
    struct rsp_loadinfo odd = {PPT_PRIORITY_LEASTUSED_DPF, 0, 0, 0, 0, 0};
    struct sockaddr_in addresses[3];
    struct rsp_addrinfo one = where(&addresses[0], IPPROTO_TCP, 1001);
    struct rsp_addrinfo two = where(&addresses[1], IPPROTO_TCP, 1002);
    struct rsp_addrinfo bad = where(&addresses[2], IPPROTO_TCP, 0);
    struct rsp_addrinfo* list;
    unsigned int sum = 0;
    struct sockaddr_in v4;

    SAME(REAI_NONAME, rsp_getaddrinfo(POOL, &list, 1, 0));
    HOLDS(list == NULL);
    two.ai_pe_id = 0x1000;
    SAME(RSPERR_OKAY, rsp_pe_registration(POOL, &one, &load, 30000, 0));
    HOLDS(one.ai_pe_id != 0);
    SAME(RSPERR_OKAY, rsp_pe_registration_tags(POOL, &two, &load, 30000, 0, NULL));
    SAME(0x1000, two.ai_pe_id);

    /* What can't be. */
    SAME(RSPERR_INVALID_ADDRESSES, rsp_pe_registration(POOL, &bad, &load, 30000, 0));
    bad.ai_protocol = IPPROTO_ICMP;
    SAME(RSPERR_WRONG_PROTOCOL, rsp_pe_registration(POOL, &bad, &load, 30000, 0));
    SAME(RSPERR_INVALID_VALUE, rsp_pe_registration(POOL, NULL, &load, 30000, 0));
    SAME(RSPERR_UNSUPPORTED_POOL_POLICY, rsp_pe_registration(POOL, &one, &odd, 30000, 0));
    SAME(RSPERR_INVALID_POOL_HANDLE, rsp_pe_registration(NULL, 3, &one, &load, 30000, 0));
    bad = where(&addresses[2], IPPROTO_TCP, 1003);
    SAME(RSPERR_INCOMPATIBLE_POOL_POLICY, rsp_pe_registration(POOL, &bad, &other, 30000, 0));
    SAME(RSPERR_OKAY, rsp_pe_deregistration(POOL, bad.ai_pe_id, 0));

    /* All of them. */
    SAME(2, rsp_getaddrinfo(POOL, &list, RSPGETADDRS_ALL, 0));
    rsp_freeaddrinfo(list);
    SAME(2, rsp_getaddrinfo(POOL, &list, RSPGETADDRS_MAX, 0));
    for (const struct rsp_addrinfo* info = list; info != NULL; info = info->ai_next) {
        memcpy(&v4, info->ai_addr, sizeof(v4));
        SAME(AF_INET, info->ai_family);
        SAME(SOCK_STREAM, info->ai_socktype);
        SAME(IPPROTO_TCP, info->ai_protocol);
        SAME(28, info->ai_addrlen);
        SAME(1, info->ai_addrs);
        SAME(AF_INET, v4.sin_family);
        SAME(htonl(INADDR_LOOPBACK), v4.sin_addr.s_addr);
        HOLDS(info->ai_pe_id == (ntohs(v4.sin_port) == 1001 ? one.ai_pe_id : two.ai_pe_id));
        sum += ntohs(v4.sin_port);
    }
    SAME(2003, sum);
    rsp_freeaddrinfo(list);
    SAME(1, rsp_getaddrinfo_tags(POOL, &list, RSPGETADDRS_DEFAULT, 0, NULL));
    rsp_freeaddrinfo(list);
    /* From the cache: what is reported is not in it any more. */
    SAME(2, rsp_getaddrinfo(POOL, &list, RSPGETADDRS_MAX, 60000));
    rsp_freeaddrinfo(list);
    SAME(RSPERR_OKAY, rsp_pe_failure(POOL, one.ai_pe_id));
    SAME(1, rsp_getaddrinfo(POOL, &list, RSPGETADDRS_MAX, 60000));
    SAME(two.ai_pe_id, list->ai_pe_id);
    rsp_freeaddrinfo(list);
    SAME(RSPERR_OKAY, rsp_pe_failure_tags(POOL, 4711, NULL));
    SAME(RSPERR_INVALID_POOL_HANDLE, rsp_pe_failure(NULL, 0, 1));

    SAME(RSPERR_OKAY, rsp_pe_deregistration(POOL, one.ai_pe_id, 0));
    SAME(RSPERR_NOT_FOUND, rsp_pe_deregistration(POOL, one.ai_pe_id, 0));
    SAME(RSPERR_OKAY, rsp_pe_deregistration_tags(POOL, two.ai_pe_id, DEREGF_DONTWAIT, NULL));
    SAME(RSPERR_INVALID_POOL_HANDLE, rsp_pe_deregistration(NULL, 0, 1, 0));
    while (rsp_getaddrinfo(POOL, &list, 1, 0) > 0) {
        rsp_freeaddrinfo(list);
    }
    SAME(REAI_NONAME, rsp_getaddrinfo(POOL, &list, 1, 0));
}

static void arguments(void)
{
    struct rsp_addrinfo* list;
    static unsigned char longest[LONGEST + 1];

    memset(longest, 'x', sizeof(longest));
    SAME(REAI_SYSTEM, FAILS(EFAULT, rsp_getaddrinfo(POOL, NULL, 1, 0)));
    SAME(REAI_SYSTEM, FAILS(EFAULT, rsp_getaddrinfo(NULL, 3, &list, 1, 0)));
    SAME(REAI_SYSTEM, FAILS(EINVAL, rsp_getaddrinfo(longest, 0, &list, 1, 0)));
    SAME(REAI_SYSTEM, FAILS(ENAMETOOLONG, rsp_getaddrinfo(longest, LONGEST + 1, &list, 1, 0)));
    SAME(REAI_NONAME, rsp_getaddrinfo(longest, LONGEST, &list, 1, 0));
}

/* Several addresses of both families lie without gaps. */
static void packed(void)
{
    unsigned char bytes[16 + 28];
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct rsp_addrinfo info;
    struct rsp_addrinfo* list;

    where(&v4, IPPROTO_SCTP, 2001);
    memset(&v6, 0, sizeof(v6));
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(2001);
    v6.sin6_addr = in6addr_loopback;
    memcpy(bytes, &v4, 16);
    memcpy(bytes + 16, &v6, 28);
    memset(&info, 0, sizeof(info));
    info.ai_protocol = IPPROTO_SCTP;
    info.ai_addrs = 2;
    info.ai_addr = (struct sockaddr*)bytes;
    SAME(RSPERR_OKAY, rsp_pe_registration(POOL, &info, NULL, 30000, REGF_CONTROLCHANNEL));
    SAME(1, rsp_getaddrinfo(POOL, &list, 1, 0));
    SAME(AF_INET6, list->ai_family);
    SAME(IPPROTO_SCTP, list->ai_protocol);
    SAME(SOCK_STREAM, list->ai_socktype);
    SAME(2, list->ai_addrs);
    SAME(0, memcmp(bytes, list->ai_addr, sizeof(bytes)));
    rsp_freeaddrinfo(list);
    SAME(RSPERR_OKAY, rsp_pe_deregistration(POOL, info.ai_pe_id, 0));
}

int main(void)
{
    start();
    arguments();
    registering();
    packed();
    rsp_cleanup();
    return checked();
}
