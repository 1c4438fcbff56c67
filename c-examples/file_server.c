/* Serves the files of a directory to pool users, as one element of a pool.
 *
 *   file_server -pool=NAME -directory=DIR [-rate=BYTES_PER_SECOND] [-registrar=.. and other library switches]
 *
 * A user asks with the text "GET OFFSET NAME". The answer is messages of a 16 byte header (offset of
 * these bytes, size of the whole file, both 64 bit in network byte order) and data; a size of all ones
 * means that there is no such file. After every megabyte the user gets a cookie: the very request
 * that would go on from there. When this server dies, the library brings the cookie to another one, for
 * which a cookie is as good as a request. Servers need no state in common but the files.
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <rserpool/rserpool.h>

#define HEADER 16
#define CHUNK 32768
#define COOKIE_EVERY (1 << 20)
#define MAX_REQUEST 512
#define MAX_SESSIONS 256

/* One user's download. */
struct session {
    int sd;
    int file; /* -1: nothing to send */
    char name[256];
    uint64_t size;
    uint64_t position;
    uint64_t next_cookie;
    uint64_t sent; /* since `begin`, for the rate */
    double begin;
};

static struct session sessions[MAX_SESSIONS];
static size_t session_count;
static int directory;
static double rate; /* bytes per second and session, 0: no limit */
static volatile sig_atomic_t stop;

static void on_signal(int signal_number)
{
    (void)signal_number;
    stop = 1;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void put64(unsigned char* to, uint64_t value)
{
    for (int i = 7; i >= 0; i--, value >>= 8) {
        to[i] = (unsigned char)(value & 0xff);
    }
}

/* Starts a download. The request comes from outside, perhaps by way of a cookie: nothing in it is
 * believed, and no name leads out of the directory. */
static void begin(struct session* session, const char* request)
{
    unsigned long long offset;
    char name[sizeof(session->name)];
    struct stat status;

    if (session->file >= 0) {
        close(session->file);
        session->file = -1;
    }
    if (sscanf(request, "GET %llu %255[^\n]", &offset, name) == 2 && name[0] != '.' && strchr(name, '/') == NULL) {
        session->file = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    }
    if (session->file >= 0 && (fstat(session->file, &status) < 0 || !S_ISREG(status.st_mode))) {
        close(session->file);
        session->file = -1;
    }
    if (session->file < 0) {
        unsigned char refusal[HEADER];
        put64(refusal, 0);
        put64(refusal + 8, UINT64_MAX);
        rsp_sendmsg(session->sd, refusal, sizeof(refusal), 0, 0, 0, 0, 0, 0, 0);
        return;
    }
    strcpy(session->name, name);
    session->size = (uint64_t)status.st_size;
    session->position = offset < session->size ? offset : session->size;
    session->next_cookie = session->position + COOKIE_EVERY;
    session->sent = 0;
    session->begin = now();
    printf("session %d: \"%s\" from byte %llu\n", session->sd, session->name, (unsigned long long)session->position);
    fflush(stdout);
}

/* Takes what the user sent. False: the session is over. */
static bool receive(struct session* session)
{
    char request[MAX_REQUEST + 1];
    int flags = 0;
    ssize_t length = rsp_recvmsg(session->sd, request, MAX_REQUEST, NULL, &flags, 0);

    if (length > 0 && (flags & MSG_EOR) && !(flags & MSG_RSERPOOL_NOTIFICATION)) {
        request[length] = '\0';
        if (flags & MSG_RSERPOOL_COOKIE_ECHO) {
            printf("session %d: takes over\n", session->sd);
        }
        begin(session, request);
    }
    return length > 0 || (length < 0 && errno == EAGAIN);
}

static bool send_cookie(struct session* session)
{
    char cookie[MAX_REQUEST];
    int length = snprintf(cookie, sizeof(cookie), "GET %llu %s", (unsigned long long)session->position, session->name);
    ssize_t sent = rsp_send_cookie(session->sd, (unsigned char*)cookie, (size_t)length, 0, 0);

    if (sent >= 0) {
        session->next_cookie = session->position + COOKIE_EVERY;
    }
    return sent >= 0 || errno == EAGAIN;
}

static bool may_send(const struct session* session)
{
    return session->file >= 0 && (rate == 0 || (double)session->sent <= rate * (now() - session->begin));
}

/* Sends as much as the session takes now, but no more than a few messages, for the others' sake.
 * False: the session is over. */
static bool serve(struct session* session)
{
    unsigned char message[HEADER + CHUNK];

    for (int i = 0; i < 16 && may_send(session); i++) {
        ssize_t length = pread(session->file, message + HEADER, CHUNK, (off_t)session->position);
        if (length < 0) {
            return false;
        }
        put64(message, session->position);
        put64(message + 8, session->size);
        if (rsp_sendmsg(session->sd, message, HEADER + (size_t)length, 0, 0, 0, 0, 0, 0, 0) < 0) {
            return errno == EAGAIN;
        }
        session->position += (uint64_t)length;
        session->sent += (uint64_t)length;
        if (session->position >= session->size || length == 0) {
            close(session->file);
            session->file = -1;
        } else if (session->position >= session->next_cookie && !send_cookie(session)) {
            return false;
        }
    }
    return true;
}

static void add(int sd)
{
    if (session_count == MAX_SESSIONS) {
        rsp_close(sd);
        return;
    }
    memset(&sessions[session_count], 0, sizeof(sessions[0]));
    sessions[session_count].sd = sd;
    sessions[session_count].file = -1;
    session_count++;
}

static void drop(size_t i)
{
    printf("session %d: ends at byte %llu\n", sessions[i].sd, (unsigned long long)sessions[i].position);
    fflush(stdout);
    if (sessions[i].file >= 0) {
        close(sessions[i].file);
    }
    rsp_close(sessions[i].sd);
    sessions[i] = sessions[--session_count];
}

static void run(int listener)
{
    struct pollfd entries[MAX_SESSIONS + 1];

    while (!stop) {
        int timeout = 500;
        entries[0].fd = listener;
        entries[0].events = POLLIN;
        for (size_t i = 0; i < session_count; i++) {
            entries[i + 1].fd = sessions[i].sd;
            entries[i + 1].events = (short)(POLLIN | (may_send(&sessions[i]) ? POLLOUT : 0));
            if (sessions[i].file >= 0) {
                timeout = 5; /* one that waits for its rate is due soon */
            }
        }
        if (rsp_poll(entries, (unsigned int)session_count + 1, timeout) <= 0) {
            continue;
        }
        /* Backwards: the last one takes the place of one that is dropped. */
        for (size_t i = session_count; i-- > 0;) {
            short events = entries[i + 1].revents;
            if (((events & ~POLLOUT) && !receive(&sessions[i])) || ((events & POLLOUT) && !serve(&sessions[i]))) {
                drop(i);
            }
        }
        if (entries[0].revents & POLLIN) {
            int sd = rsp_accept(listener, 0);
            if (sd >= 0) {
                add(sd);
            }
        }
    }
}

int main(int argc, char** argv)
{
    struct rsp_info info;
    struct rsp_loadinfo load;
    struct sigaction action;
    const char* pool = "Download";
    const char* path = ".";
    int listener;
    uint32_t id = 0;

    rsp_initinfo(&info);
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "-pool=", 6) == 0) {
            pool = argv[i] + 6;
        } else if (strncmp(argv[i], "-directory=", 11) == 0) {
            path = argv[i] + 11;
        } else if (strncmp(argv[i], "-rate=", 6) == 0) {
            rate = atof(argv[i] + 6);
        } else if (!rsp_initarg(&info, argv[i])) {
            fprintf(stderr, "usage: %s [-pool=NAME] [-directory=DIR] [-rate=BYTES_PER_SECOND] [-registrar=ADDR]\n", argv[0]);
            return 2;
        }
    }
    directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) {
        perror(path);
        return 1;
    }
    memset(&action, 0, sizeof(action));
    action.sa_handler = on_signal;
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);

    memset(&load, 0, sizeof(load));
    load.rli_policy = PPT_ROUNDROBIN;
    if (rsp_initialize(&info) < 0) {
        perror("rsp_initialize");
        return 1;
    }
    rsp_freeinfo(&info);
    listener = rsp_socket(0, SOCK_STREAM, IPPROTO_SCTP);
    if (listener < 0 || rsp_bind(listener, NULL, 0) < 0 || rsp_listen(listener, 16) < 0
        || rsp_register(listener, (const unsigned char*)pool, strlen(pool), &load, 30000, 0) < 0
        || rsp_getsockname(listener, NULL, NULL, &id) < 0) {
        perror("cannot serve");
        rsp_cleanup();
        return 1;
    }
    printf("serving %s in pool \"%s\" as 0x%08x, process %ld\n", path, pool, id, (long)getpid());
    fflush(stdout);
    run(listener);
    while (session_count > 0) {
        drop(session_count - 1);
    }
    rsp_close(listener);
    rsp_cleanup();
    close(directory);
    return 0;
}
