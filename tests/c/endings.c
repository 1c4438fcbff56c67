/* Calls from the last moments of a thread: destructors of pthread keys, and of C++'s thread_local variables, which run
 * before or after the library's own for that thread. */
#define _GNU_SOURCE

#include <poll.h>
#include <pthread.h>

#include "pool.h"

/* What C++ registers destructors of thread_local variables with. */
int __cxa_thread_atexit_impl(void (*destructor)(void*), void* object, void* library);
extern void* __dso_handle __attribute__((visibility("hidden")));

static unsigned int endings;
static pthread_key_t key;

/* Nearly everything that there is. */
static void everything(void* argument)
{
    struct rsp_addrinfo* found = NULL;
    struct pollfd entry;
    int server = element("Endings", SOCK_SEQPACKET, 0);
    int client = user("Endings", SOCK_SEQPACKET);
    rserpool_session_t session = expect_session(server, RSERPOOL_SESSION_ADD);
    int stream = element("Stream", SOCK_STREAM, 0);
    int other = user("Stream", SOCK_STREAM);

    (void)argument;
    OK(rsp_close((int)OK(rsp_accept(stream, SOON))));
    OK(rsp_close(other));
    OK(rsp_close(stream));
    send_text(client, 0, "question");
    entry = (struct pollfd){server, POLLIN, 0};
    SAME(1, rsp_poll(&entry, 1, SOON));
    expect_text(server, "question");
    OK(rsp_send_cookie(server, (const unsigned char*)"c", 1, session, SOON));
    send_text(server, session, "answer");
    expect_text(client, "answer");
    SAME(1, rsp_getaddrinfo((const unsigned char*)"Endings", 7, &found, 8, 1000));
    rsp_freeaddrinfo(found);
    SAME(REAI_NONAME, rsp_getaddrinfo((const unsigned char*)"Nobody", 6, &found, 8, 0));
    FAILS(EAGAIN, receive(client, 10).length);
    FAILS(EBADF, rsp_close(-1));
    OK(rsp_forcefailover(client, FFF_NONE, 0));
    OK(rsp_deregister(server, 0));
    OK(rsp_close(client));
    OK(rsp_close(server));
    endings++;
}

/* The library's whole life as well. */
static void from_start_to_end(void* argument)
{
    start();
    everything(argument);
    rsp_cleanup();
}

static void (*at_the_end)(void*);

static void run(void* argument)
{
    at_the_end(argument);
}

/* Keys' destructors come last of all. */
static void* with_a_key(void* used)
{
    OK(rsp_getpolicybyname("RoundRobin"));
    if (used) {
        everything(NULL);
    }
    SAME(0, pthread_setspecific(key, &key));
    return NULL;
}

/* Registered first, it runs last: after what the library registers when it is used. */
static void* before_the_library(void* used)
{
    SAME(0, __cxa_thread_atexit_impl(run, NULL, &__dso_handle));
    if (used) {
        everything(NULL);
    }
    return NULL;
}

static void* after_the_library(void* used)
{
    if (used) {
        everything(NULL);
    }
    SAME(0, __cxa_thread_atexit_impl(run, NULL, &__dso_handle));
    return NULL;
}

static void in_a_thread(void* (*body)(void*), bool used)
{
    unsigned int before = endings;
    pthread_t thread;

    SAME(0, pthread_create(&thread, NULL, body, used ? &key : NULL));
    SAME(0, pthread_join(thread, NULL));
    SAME(before + (used ? 2 : 1), endings);
}

static void everywhere(bool used)
{
    in_a_thread(with_a_key, used);
    in_a_thread(before_the_library, used);
    in_a_thread(after_the_library, used);
}

int main(void)
{
    SAME(0, pthread_key_create(&key, run));
    start();
    at_the_end = everything;
    everywhere(false);
    everywhere(true);
    rsp_cleanup();
    at_the_end = from_start_to_end;
    everywhere(false);
    return checked();
}
