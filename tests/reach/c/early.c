/* Somebody else's library: it connects before any other has begun, and stands before connect as well. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int counted;

int connect(int fd, const struct sockaddr *address, socklen_t length)
{
    static int (*next)(int, const struct sockaddr *, socklen_t);
    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "connect");
    counted++;
    return next(fd, address, length);
}

__attribute__((constructor(101))) static void begin(void)
{
    struct sockaddr_in nobody = {.sin_family = AF_INET, .sin_port = htons(1), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct sigaction action;
    struct addrinfo *list;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    connect(fd, (struct sockaddr *)&nobody, sizeof nobody);
    close(fd);
    sigaction(SIGTERM, NULL, &action);
    if (getaddrinfo("127.0.0.1", "1", NULL, &list) == 0)
        freeaddrinfo(list);
}

__attribute__((destructor)) static void end(void)
{
    if (!counted)
        _exit(5);
}
