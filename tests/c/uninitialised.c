/* Every function before rsp_initialize and after rsp_cleanup, and with NULL: an errno, never a crash. */
#define _POSIX_C_SOURCE 200809L

#include <netinet/in.h>
#include <poll.h>

#include <rserpool/rserpool.h>
#include <rserpool/rserpool-internals.h>

#include "check.h"

static const unsigned char handle[] = "Pool";

static void descriptors(int sd)
{
    struct rserpool_session_parameters parameters = {0, 0, 0, 0, 0, 0};
    struct rsp_loadinfo load = {PPT_ROUNDROBIN, 0, 0, 0, 0, 0};
    struct rsp_sndrcvinfo info;
    unsigned char buffer[64];
    size_t size = sizeof(buffer);
    uint32_t id = 0;
    int flags = 0;
    int value = 0;
    socklen_t length = sizeof(value);

    FAILS(EBADF, rsp_bind(sd, NULL, 0));
    FAILS(EBADF, rsp_listen(sd, 1));
    FAILS(EBADF, rsp_getsockname(sd, buffer, &size, &id));
    FAILS(EBADF, rsp_getpeername(sd, buffer, &size, &id));
    FAILS(EBADF, rsp_update_session_parameters(sd, &parameters));
    FAILS(EBADF, rsp_getsockopt(sd, SOL_SOCKET, SO_TYPE, &value, &length));
    FAILS(EBADF, rsp_setsockopt(sd, SOL_SOCKET, SO_KEEPALIVE, &value, length));
    FAILS(EBADF, rsp_register(sd, handle, 4, &load, 1000, 0));
    FAILS(EBADF, rsp_register_tags(sd, handle, 4, &load, 1000, 0, NULL));
    FAILS(EBADF, rsp_deregister(sd, 0));
    FAILS(EBADF, rsp_deregister_tags(sd, 0, NULL));
    FAILS(EBADF, rsp_accept(sd, 0));
    FAILS(EBADF, rsp_accept_tags(sd, 0, NULL));
    FAILS(EBADF, rsp_connect(sd, handle, 4, 0));
    FAILS(EBADF, rsp_connect_tags(sd, handle, 4, 0, NULL));
    FAILS(EBADF, rsp_forcefailover(sd, FFF_NONE, 0));
    FAILS(EBADF, rsp_forcefailover_tags(sd, FFF_NONE, 0, NULL));
    FAILS(EBADF, rsp_has_cookie(sd));
    FAILS(EBADF, rsp_csp_setstatus(sd, 0, "text"));
    FAILS(EBADF, rsp_sendmsg(sd, buffer, 1, 0, 0, 0, 0, 0, 0, 0));
    FAILS(EBADF, rsp_send_cookie(sd, buffer, 1, 0, 0));
    FAILS(EBADF, rsp_recvmsg(sd, buffer, sizeof(buffer), &info, &flags, 0));
    FAILS(EBADF, rsp_recvfullmsg(sd, buffer, sizeof(buffer), &info, &flags, 0));
    FAILS(EBADF, rsp_read(sd, buffer, sizeof(buffer)));
    FAILS(EBADF, rsp_recv(sd, buffer, sizeof(buffer), 0));
    FAILS(EBADF, rsp_write(sd, "x", 1));
    FAILS(EBADF, rsp_send(sd, "x", 1, 0));
    FAILS(EBADF, rsp_unmapsocket(sd));
    FAILS(EBADF, rsp_close(sd));
}

static void others(void)
{
    struct pollfd entry = {0, POLLIN, 0};
    struct rsp_addrinfo* list = (struct rsp_addrinfo*)&entry;
    struct rsp_addrinfo address;
    struct sockaddr_in v4;
    fd_set set;
    struct timeval none = {0, 0};

    FD_ZERO(&set);
    memset(&v4, 0, sizeof(v4));
    v4.sin_family = AF_INET;
    v4.sin_port = htons(7);
    memset(&address, 0, sizeof(address));
    address.ai_protocol = IPPROTO_TCP;
    address.ai_addrs = 1;
    address.ai_addr = (struct sockaddr*)&v4;

    FAILS(EACCES, rsp_socket(0, SOCK_STREAM, IPPROTO_SCTP));
    FAILS(EACCES, rsp_poll(&entry, 1, 0));
    FAILS(EACCES, rsp_select(1, &set, NULL, NULL, &none));
    FAILS(EACCES, rsp_mapsocket(0, -1));
    SAME(REAI_SYSTEM, FAILS(EACCES, rsp_getaddrinfo(handle, 4, &list, 1, 0)));
    HOLDS(list == NULL);
    SAME(REAI_SYSTEM, rsp_getaddrinfo_tags(handle, 4, &list, 1, 0, NULL));
    SAME(RSPERR_NOT_INITIALIZED, rsp_pe_registration(handle, 4, &address, NULL, 1000, 0));
    SAME(RSPERR_NOT_INITIALIZED, rsp_pe_registration_tags(handle, 4, &address, NULL, 1000, 0, NULL));
    SAME(RSPERR_NOT_INITIALIZED, rsp_pe_deregistration(handle, 4, 7, 0));
    SAME(RSPERR_NOT_INITIALIZED, rsp_pe_deregistration_tags(handle, 4, 7, 0, NULL));
    SAME(RSPERR_NOT_INITIALIZED, rsp_pe_failure(handle, 4, 7));
    SAME(RSPERR_NOT_INITIALIZED, rsp_pe_failure_tags(handle, 4, 7, NULL));
    rsp_freeaddrinfo(NULL);
    rsp_print_notification(NULL, stdout);
    rsp_cleanup();
    rsp_cleanup();
}

int main(void)
{
    descriptors(3);
    descriptors(0);
    descriptors(-1);
    descriptors(1000000);
    others();
    return checked();
}
