/* Descriptors are the program's: those up to 2 stay its own even if they are closed when the library starts, and
 * whoever closes "all files" can start the library again. Each case in a process of its own. */
#define _GNU_SOURCE

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "pool.h"

#define FILES 64

/* A user and an element of ours, with what they need a registrar for. */
static void use(const char* pool)
{
    struct rsp_addrinfo* found = NULL;
    int server = element(pool, SOCK_SEQPACKET, 0);
    int client = user(pool, SOCK_SEQPACKET);
    rserpool_session_t session = expect_session(server, RSERPOOL_SESSION_ADD);

    send_text(client, 0, "question");
    expect_text(server, "question");
    send_text(server, session, "answer");
    expect_text(client, "answer");
    SAME(1, rsp_getaddrinfo((const unsigned char*)pool, strlen(pool), &found, 8, 0));
    rsp_freeaddrinfo(found);
    OK(rsp_close(client));
    OK(rsp_close(server));
}

static void none_is_below_three(void)
{
    for (int number = 0; number <= 2; number++) {
        FAILS(EBADF, fcntl(number, F_GETFD));
    }
}

/* As daemon(3) does. */
static void take_back(void)
{
    int null = (int)OK(open("/dev/null", O_RDWR));

    OK(dup2(null, 0));
    OK(dup2(null, 1));
    OK(dup2(null, 2));
    if (null > 2) {
        OK(close(null));
    }
}

/* Started without them, the library doesn't take them, not even for a session or a log. */
static void without_standard_descriptors(void)
{
    int server, client;

    OK(close(0));
    OK(close(1));
    OK(close(2));
    setenv("CSP_SERVER", "127.0.0.1:9", 1);
    setenv("CSP_INTERVAL", "250", 1);
    start();
    none_is_below_three();
    server = element("Standard", SOCK_STREAM, 0);
    client = user("Standard", SOCK_STREAM);
    OK(rsp_close((int)OK(rsp_accept(server, SOON))));
    SAME(0, receive(client, SOON).length);
    none_is_below_three();
    take_back();
    use("Afterwards");
    OK(rsp_close(client));
    OK(rsp_close(server));
    rsp_cleanup();
    OK(fcntl(0, F_GETFD));
    OK(fcntl(1, F_GETFD));
    OK(fcntl(2, F_GETFD));
}

/* With one of them missing at a time. */
static void without_one(int number)
{
    OK(close(number));
    start();
    use("One");
    FAILS(EBADF, fcntl(number, F_GETFD));
    rsp_cleanup();
    FAILS(EBADF, fcntl(number, F_GETFD));
}

static void close_all_files(void)
{
    for (int number = 3; number < 1024; number++) {
        close(number);
    }
}

/* The program's files, which get the numbers that were the library's. */
static void open_own(int* own)
{
    char name[] = "/tmp/rserpool-standard-XXXXXX";

    for (int i = 0; i < FILES; i++) {
        own[i] = i == 0 ? (int)OK(mkstemp(name)) : (int)OK(open(name, O_RDWR));
    }
    OK(unlink(name));
}

/* They are open, and nobody wrote to them. */
static void are_untouched(const int* own)
{
    struct stat status;

    for (int i = 0; i < FILES; i++) {
        OK(fstat(own[i], &status));
        SAME(0, status.st_size);
    }
}

static void after_all_were_closed(bool first_ask)
{
    int own[FILES];
    int server, client;
    struct rsp_addrinfo* found;

    start();
    server = element("Closed", SOCK_SEQPACKET, 0);
    client = user("Closed", SOCK_SEQPACKET);
    expect_session(server, RSERPOOL_SESSION_ADD);
    close_all_files();
    open_own(own);
    if (first_ask) {
        SAME(REAI_SYSTEM, rsp_getaddrinfo((const unsigned char*)"Closed", 6, &found, 1, 0));
        SAME(EACCES, errno);
    }
    are_untouched(own);
    start();
    FAILS(EBADF, rsp_close(server));
    FAILS(EBADF, rsp_write(client, "x", 1));
    use("Closed");
    rsp_cleanup();
    are_untouched(own);
}

/* Who doesn't start it again may still end it. */
static void cleaned_up_after_all_were_closed(void)
{
    int own[FILES];

    start();
    element("Closed", SOCK_SEQPACKET, 0);
    close_all_files();
    open_own(own);
    rsp_cleanup();
    are_untouched(own);
    start();
    use("Closed");
    rsp_cleanup();
    are_untouched(own);
}

/* The thread goes without a trace: it wakes up, with nothing to do, 60 s later at most, or when its timers say so. */
static void and_nothing_happens_later(void)
{
    int own[FILES];

    start();
    element("Later", SOCK_SEQPACKET, 0);
    close_all_files();
    open_own(own);
    start();
    for (int i = 0; i < 20; i++) {
        use("Later");
        usleep(50000);
    }
    are_untouched(own);
    rsp_cleanup();
    are_untouched(own);
}

static void in_a_child(void (*body)(int), int argument)
{
    int status = 0;
    pid_t child = (pid_t)OK(fork());

    if (child == 0) {
        body(argument);
        _Exit(0);
    }
    OK(waitpid(child, &status, 0));
    SAME(0, status);
}

static void one_case(int number)
{
    switch (number) {
    case 0: without_standard_descriptors(); break;
    case 1: case 2: case 3: without_one(number - 1); break;
    case 4: after_all_were_closed(false); break;
    case 5: after_all_were_closed(true); break;
    case 6: cleaned_up_after_all_were_closed(); break;
    default: and_nothing_happens_later(); break;
    }
}

int main(void)
{
    for (int number = 0; number < 8; number++) {
        in_a_child(one_case, number);
    }
    return checked();
}
