/* What a guest of other programs trips over, one case a run: traps CASE. Ends with 0 if all is as without the library, and
 * WebPool.pool is reached where the case is about that. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

#define CHECK(what)                                                                        \
    do {                                                                                   \
        if (!(what)) {                                                                     \
            fprintf(stderr, "%s:%d: %s: %s\n", __func__, __LINE__, #what, strerror(errno)); \
            _exit(1);                                                                      \
        }                                                                                  \
    } while (0)

static struct sockaddr_in found;

static void look_up(void)
{
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *list;
    CHECK(getaddrinfo("webpool.pool", "80", &hints, &list) == 0);
    CHECK(list->ai_next && list->ai_next->ai_next == NULL);
    found = *(struct sockaddr_in *)list->ai_addr;
    freeaddrinfo(list);
}

static int link_up(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    char name[4];
    CHECK(fd >= 0);
    errno = EDOM;
    CHECK(connect(fd, (struct sockaddr *)&found, sizeof found) == 0 && errno == EDOM);
    CHECK(recv(fd, name, 4, MSG_WAITALL) == 4 && memcmp(name, "one\n", 4) == 0);
    return fd;
}

static void reach(void)
{
    look_up();
    close(link_up());
}

static void *reach_often(void *unused)
{
    for (int n = 0; n < 10; n++)
        reach();
    return unused;
}

static void child_ends(pid_t child)
{
    int status;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    if (status != 0)
        fprintf(stderr, "a child ended with status %#x\n", status);
    CHECK(status == 0);
}

/* Children of a program with threads that all look up and connect. */
static void forks(void)
{
    pthread_t threads[4];
    for (int n = 0; n < 4; n++)
        CHECK(pthread_create(&threads[n], NULL, reach_often, NULL) == 0);
    for (int n = 0; n < 5; n++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(20);
            reach();
            _exit(0);
        }
        child_ends(child);
    }
    for (int n = 0; n < 4; n++)
        CHECK(pthread_join(threads[n], NULL) == 0);
}

/* What a child of vfork does is seen by its parent. */
static void spawns(void)
{
    char *arguments[] = {"/bin/true", NULL};
    look_up();
    for (int n = 0; n < 20; n++) {
        pid_t child;
        CHECK(posix_spawn(&child, arguments[0], NULL, NULL, arguments, environ) == 0);
        child_ends(child);
        child = vfork();
        if (child == 0) {
            int fd = socket(AF_INET, SOCK_STREAM, 0);
            /* Nobody connects in there, but nobody may be harmed by it. */
            if (connect(fd, (struct sockaddr *)&found, sizeof found) == 0)
                _exit(2);
            close(fd);
            execv(arguments[0], arguments);
            _exit(3);
        }
        child_ends(child);
    }
    close(link_up());
}

/* exec goes on with the address alone. */
static void executed(char **argv)
{
    char address[32];
    look_up();
    CHECK(inet_ntop(AF_INET, &found.sin_addr, address, sizeof address));
    execl(argv[0], argv[0], "given", address, NULL);
    CHECK(!"exec");
}

static void given(const char *address)
{
    found = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(80)};
    CHECK(inet_pton(AF_INET, address, &found.sin_addr) == 1);
    close(link_up());
}

static void closes(void)
{
    reach();
    CHECK(close_range(3, ~0U, 0) == 0);
    /* The numbers are the program's now. */
    int mine[8];
    for (int n = 0; n < 8; n++)
        CHECK((mine[n] = open("/dev/null", O_WRONLY)) >= 3);
    reach();
    for (int n = 0; n < 8; n++)
        CHECK(fcntl(mine[n], F_GETFL) >= 0 && write(mine[n], "x", 1) == 1);
    closefrom(3);
    reach();
}

/* Started without standard input, output and error. */
static void bare(void)
{
    close(0);
    close(1);
    close(2);
    look_up();
    for (int n = 0; n < 3; n++)
        if (open("/dev/null", O_RDWR) != n)
            _exit(9);
    close(link_up());
}

static int ticks;
static void tick(int number)
{
    (void)number;
    ticks++;
}

/* A handler that restarts calls does not end a connect; one that does not does. The pool's first element swallows. */
static void signals(void)
{
    struct sigaction action = {.sa_handler = tick, .sa_flags = SA_RESTART};
    struct itimerval often = {{0, 20000}, {0, 20000}}, never = {{0, 0}, {0, 0}};
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    look_up();
    CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
    for (int n = 0; n < 3; n++)
        close(link_up());
    CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
}

static void *waits(void *fd)
{
    accept(*(int *)fd, NULL, NULL);
    return fd;
}

static void cancels(void)
{
    pthread_t thread;
    void *ended;
    struct sockaddr_in any = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(bind(fd, (struct sockaddr *)&any, sizeof any) == 0 && listen(fd, 1) == 0);
    CHECK(pthread_create(&thread, NULL, waits, &fd) == 0);
    usleep(50000);
    CHECK(pthread_cancel(thread) == 0 && pthread_join(thread, &ended) == 0 && ended == PTHREAD_CANCELED);
    reach();
}

/* Locked in: nothing but what any program with sockets does. */
static void locked(void)
{
    static const int allowed[] = {SYS_read, SYS_write, SYS_close, SYS_socket, SYS_connect, SYS_recvfrom, SYS_sendto,
                                  SYS_getsockopt, SYS_setsockopt, SYS_fcntl, SYS_futex, SYS_exit_group, SYS_mmap, SYS_munmap,
                                  SYS_brk, SYS_getpid, SYS_epoll_ctl, SYS_clock_gettime};
    enum { COUNT = sizeof allowed / sizeof *allowed };
    struct sock_filter code[COUNT + 3] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
    for (int n = 0; n < COUNT; n++)
        code[n + 1] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[n], COUNT - n, 0);
    code[COUNT + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    code[COUNT + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog filter = {COUNT + 3, code};
    look_up();
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0);
    close(link_up());
}

static void chrooted(void)
{
    look_up();
    if (chroot("/proc") != 0)
        _exit(77);
    CHECK(chdir("/") == 0);
    close(link_up());
}

/* A name that was never asked for, a socket that is not TCP, and nonsense. */
static void unasked(void)
{
    struct sockaddr_in nobody = {.sin_family = AF_INET, .sin_port = htons(9)};
    struct addrinfo hints = {.ai_family = AF_INET6, .ai_socktype = SOCK_STREAM, .ai_flags = AI_V4MAPPED | AI_ADDRCONFIG}, *list;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    inet_pton(AF_INET, "127.214.9.9", &nobody.sin_addr);
    CHECK(connect(fd, (struct sockaddr *)&nobody, sizeof nobody) == -1 && errno == ECONNREFUSED);
    CHECK(connect(fd, NULL, 0) == -1 && (errno == EINVAL || errno == EFAULT));
    CHECK(connect(fd, NULL, sizeof nobody) == -1 && errno == EFAULT);
    CHECK(connect(fd, (struct sockaddr *)&nobody, 3) == -1 && errno == EINVAL);
    CHECK(connect(-1, (struct sockaddr *)&nobody, sizeof nobody) == -1);
    look_up();
    fd = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(connect(fd, (struct sockaddr *)&found, sizeof found) == 0);
    CHECK(getaddrinfo(NULL, NULL, NULL, &list) == EAI_NONAME);
    CHECK(getaddrinfo("webpool.pool", "no-such-service", NULL, &list) == EAI_SERVICE);
    CHECK(getaddrinfo("webpool.pool", "80", &hints, &list) == 0);
    CHECK(IN6_IS_ADDR_V4MAPPED(&((struct sockaddr_in6 *)list->ai_addr)->sin6_addr));
    fd = socket(AF_INET6, SOCK_STREAM, 0);
    CHECK(connect(fd, list->ai_addr, list->ai_addrlen) == 0);
    freeaddrinfo(list);
    struct hostent *host = gethostbyname2("webpool.pool", AF_INET6);
    CHECK(host && host->h_length == 16 && host->h_addr_list[1] == NULL);
    hints = (struct addrinfo){.ai_flags = AI_NUMERICHOST};
    CHECK(getaddrinfo("webpool.pool", NULL, &hints, &list) == EAI_NONAME);
}

/* MSG_FASTOPEN, with and without waiting. */
static void fast_opens(void)
{
    char name[6];
    struct iovec data = {"x\n", 2};
    struct msghdr message = {.msg_name = &found, .msg_namelen = sizeof found, .msg_iov = &data, .msg_iovlen = 1};
    look_up();
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(sendto(fd, "x\n", 2, MSG_FASTOPEN, (struct sockaddr *)&found, sizeof found) == 2);
    CHECK(recv(fd, name, 6, MSG_WAITALL) == 6 && memcmp(name, "one\nx\n", 6) == 0);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(sendmsg(fd, &message, MSG_FASTOPEN) == 2);
    CHECK(recv(fd, name, 6, MSG_WAITALL) == 6 && memcmp(name, "one\nx\n", 6) == 0);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    ssize_t sent = sendto(fd, "x\n", 2, MSG_FASTOPEN, (struct sockaddr *)&found, sizeof found);
    CHECK(sent == 2 || errno == EINPROGRESS);
}

/* How a program hears of a connect that it does not wait for: whatever it asks, the failure is told once, and for a second all go elsewhere. */
static void asks(const char *how)
{
    int failures = 0;
    struct timespec begun, now;
    look_up();
    clock_gettime(CLOCK_MONOTONIC, &begun);
    for (int n = 0; n < 6; n++) {
        struct sockaddr_in peer;
        socklen_t length = sizeof peer;
        int error = 0, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        int result = connect(fd, (struct sockaddr *)&found, sizeof found);
        CHECK(result == 0 || errno == EINPROGRESS || errno == ECONNREFUSED);
        if (result != 0 && errno == EINPROGRESS) {
            if (strcmp(how, "epoll") == 0) {
                struct epoll_event event = {.events = EPOLLOUT};
                int all = epoll_create1(0);
                CHECK(epoll_ctl(all, EPOLL_CTL_ADD, fd, &event) == 0 && epoll_wait(all, &event, 1, 9000) == 1);
                close(all);
            } else if (strcmp(how, "select") == 0) {
                fd_set set;
                struct timeval limit = {9, 0};
                FD_ZERO(&set);
                FD_SET(fd, &set);
                CHECK(select(fd + 1, NULL, &set, NULL, &limit) == 1);
            } else {
                struct pollfd one = {fd, POLLOUT, 0};
                CHECK(poll(&one, 1, 9000) == 1);
            }
        }
        if (strcmp(how, "again") == 0) {
            error = connect(fd, (struct sockaddr *)&found, sizeof found) == 0 || errno == EISCONN ? 0 : errno;
        } else if (strcmp(how, "write") == 0) {
            error = send(fd, "x", 1, MSG_NOSIGNAL) == 1 ? 0 : errno;
        } else {
            socklen_t size = sizeof error;
            CHECK(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0);
        }
        /* Passed over is who failed for a second, then for two. */
        clock_gettime(CLOCK_MONOTONIC, &now);
        CHECK(error == 0 || (error == ECONNREFUSED && failures++ <= now.tv_sec - begun.tv_sec));
        if (error == 0) {
            CHECK(getpeername(fd, (struct sockaddr *)&peer, &length) == 0 && peer.sin_addr.s_addr != found.sin_addr.s_addr);
        }
        /* Who does not ask the socket is noticed by the next connect, as long as it is open. */
        if (strcmp(how, "write") != 0)
            close(fd);
    }
}

typedef int call(int, const struct sockaddr *, socklen_t);

static double nanoseconds(call *call, const struct sockaddr_in *address)
{
    struct timespec begun, ended;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    for (int n = 0; n < 200; n++)
        call(-1, (const struct sockaddr *)address, sizeof *address);
    clock_gettime(CLOCK_MONOTONIC, &ended);
    return ((ended.tv_sec - begun.tv_sec) * 1e9 + (ended.tv_nsec - begun.tv_nsec)) / 200;
}

/* Nanoseconds that each call of the library costs where it has nothing to do: the best of many rounds that are too short to be
 * interrupted in each, and in turns, so that both have the same machine. */
static double cost(call *ours, call *libcs, const struct sockaddr_in *address)
{
    double with = 1e9, without = 1e9;
    for (int round = 0; round < 2000; round++) {
        double took = nanoseconds(ours, address);
        with = took < with ? took : with;
        took = nanoseconds(libcs, address);
        without = took < without ? took : without;
    }
    return with - without;
}

static int is_option(int fd, const struct sockaddr *address, socklen_t length)
{
    int value;
    (void)address;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &value, &length);
}

static int (*libcs_getsockopt)(int, int, int, void *, socklen_t *);
static int is_libcs_option(int fd, const struct sockaddr *address, socklen_t length)
{
    int value;
    (void)address;
    return libcs_getsockopt(fd, SOL_SOCKET, SO_ERROR, &value, &length);
}

static int (*libcs_accept)(int, struct sockaddr *, socklen_t *);
static int accepts(int fd, const struct sockaddr *address, socklen_t length)
{
    (void)address, (void)length;
    return accept(fd, NULL, NULL);
}
static int libc_accepts(int fd, const struct sockaddr *address, socklen_t length)
{
    (void)address, (void)length;
    return libcs_accept(fd, NULL, NULL);
}

static void costs(void)
{
    struct sockaddr_in local = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    void *libc = dlopen("libc.so.6", RTLD_LAZY);
    int (*libcs_connect)(int, const struct sockaddr *, socklen_t) = dlsym(libc, "connect");
    libcs_getsockopt = dlsym(libc, "getsockopt");
    libcs_accept = dlsym(libc, "accept");
    CHECK(libcs_connect && libcs_getsockopt && libcs_accept && (void *)libcs_connect != dlsym(RTLD_DEFAULT, "connect"));
    printf("%.0f %.0f %.0f\n", cost(connect, libcs_connect, &local), cost(is_option, is_libcs_option, &local),
           cost(accepts, libc_accepts, &local));
}

int main(int argc, char **argv)
{
    const char *which = argc > 1 ? argv[1] : "";
    static const struct {
        const char *name;
        void (*run)(void);
    } cases[] = {{"forks", forks}, {"spawns", spawns}, {"closes", closes}, {"bare", bare}, {"signals", signals}, {"cancels", cancels}, {"locked", locked},
                 {"chrooted", chrooted}, {"unasked", unasked}, {"fast_opens", fast_opens}, {"costs", costs}, {"reach", reach}};
    for (size_t n = 0; n < sizeof cases / sizeof *cases; n++)
        if (strcmp(which, cases[n].name) == 0)
            return cases[n].run(), 0;
    if (strcmp(which, "executed") == 0)
        executed(argv);
    else if (strcmp(which, "given") == 0 && argc == 3)
        given(argv[2]);
    else if (strcmp(which, "asks") == 0 && argc == 3)
        asks(argv[2]);
    else
        return 2;
    return 0;
}
