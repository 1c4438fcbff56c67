/* Basic mode: shows a pool's elements and where they are.   resolve POOL [library switches] */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include <rserpool/rserpool.h>

/* Prints one address of a list without gaps, returns the next one. */
static const char* print_address(const char* at)
{
    char text[INET6_ADDRSTRLEN];
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;

    memcpy(&v4, at, sizeof(v4));
    if (v4.sin_family == AF_INET) {
        printf(" %s:%u", inet_ntop(AF_INET, &v4.sin_addr, text, sizeof(text)), ntohs(v4.sin_port));
        return at + sizeof(v4);
    }
    memcpy(&v6, at, sizeof(v6));
    printf(" [%s]:%u", inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof(text)), ntohs(v6.sin6_port));
    return at + sizeof(v6);
}

int main(int argc, char** argv)
{
    struct rsp_info info;
    struct rsp_addrinfo* list = NULL;
    int found;

    if (argc < 2) {
        fprintf(stderr, "usage: %s POOL [-registrar=ADDR]\n", argv[0]);
        return 2;
    }
    rsp_initinfo(&info);
    for (int i = 2; i < argc; i++) {
        rsp_initarg(&info, argv[i]);
    }
    if (rsp_initialize(&info) < 0) {
        perror("rsp_initialize");
        return 1;
    }
    rsp_freeinfo(&info);
    found = rsp_getaddrinfo((const unsigned char*)argv[1], strlen(argv[1]), &list, RSPGETADDRS_MAX, 0);
    if (found == REAI_NONAME) {
        fprintf(stderr, "nobody is in pool \"%s\"\n", argv[1]);
    } else if (found < 0) {
        perror("rsp_getaddrinfo");
    }
    for (const struct rsp_addrinfo* element = list; element != NULL; element = element->ai_next) {
        const char* address = (const char*)element->ai_addr;

        printf("0x%08x %s", element->ai_pe_id,
               element->ai_protocol == IPPROTO_SCTP  ? "sctp"
               : element->ai_protocol == IPPROTO_TCP ? "tcp"
                                                     : "udp");
        for (size_t i = 0; i < element->ai_addrs; i++) {
            address = print_address(address);
        }
        putchar('\n');
    }
    rsp_freeaddrinfo(list);
    rsp_cleanup();
    return found > 0 ? 0 : 1;
}
