/* needs <event2/event.h> -levent_core
 *
 * libevent's loop over RSerPool descriptors: its callbacks come exactly when there is something to accept or to
 * receive, with each of its ways to ask the kernel. */
#define _GNU_SOURCE

#include <event2/event.h>

#include "pool.h"

#define NAME(text) (const unsigned char*)(text), strlen(text)

struct seen {
    struct event_base* base;
    int sd;
    int calls;
    bool cookie;
    struct delivery last;
    int accepted;
};

/* Exactly when: a callback that finds nothing fails the test. The one exception is a user to whom a cookie is
 * under way: that the library keeps it to itself shows only when somebody looks. */
static void on_message(evutil_socket_t sd, short what, void* argument)
{
    struct seen* seen = argument;

    HOLDS(what & EV_READ);
    SAME(seen->sd, sd);
    seen->last = receive(sd, -1);
    if (seen->last.length < 0 && errno == EAGAIN && seen->cookie) {
        return;
    }
    HOLDS(seen->last.length >= 0);
    seen->calls++;
    event_base_loopbreak(seen->base);
}

static void on_session(evutil_socket_t sd, short what, void* argument)
{
    struct seen* seen = argument;

    HOLDS(what & EV_READ);
    seen->calls++;
    OK(seen->accepted = rsp_accept((int)sd, 0));
    event_base_loopbreak(seen->base);
}

/* What waits now is all there is. */
static int nothing_more(struct event_base* base, struct seen* seen)
{
    int before = seen->calls;

    OK(event_base_loop(base, EVLOOP_NONBLOCK));
    return seen->calls == before;
}

static struct event* watch(struct event_base* base, struct seen* seen, int sd, event_callback_fn call)
{
    struct event* event;

    memset(seen, 0, sizeof(*seen));
    seen->base = base;
    seen->sd = sd;
    event = event_new(base, sd, EV_READ | EV_PERSIST, call, seen);
    HOLDS(event != NULL);
    SAME(0, event_add(event, NULL));
    return event;
}

static void loop(const char* method)
{
    struct event_config* config = event_config_new();
    struct event_base* base;
    struct seen seen, other;
    struct event *event, *second;
    int server, client, session;

    for (const char** known = event_get_supported_methods(); *known != NULL; known++) {
        if (strcmp(*known, method) != 0) {
            event_config_avoid_method(config, *known);
        }
    }
    base = event_base_new_with_config(config);
    HOLDS(base != NULL);
    SAME_TEXT(method, event_base_get_method(base));

    /* Somebody to accept. */
    server = element("Loop", SOCK_STREAM, 0);
    event = watch(base, &seen, server, on_session);
    HOLDS(nothing_more(base, &seen));
    client = user("Loop", SOCK_STREAM);
    SAME(0, event_base_dispatch(base));
    session = seen.accepted;
    HOLDS(nothing_more(base, &seen));
    event_free(event);

    /* Messages, one callback each; and the end. */
    event = watch(base, &seen, session, on_message);
    HOLDS(nothing_more(base, &seen));
    send_text(client, 0, "one");
    send_text(client, 0, "two");
    SAME(0, event_base_dispatch(base));
    SAME_TEXT("one", seen.last.bytes);
    SAME(0, event_base_dispatch(base));
    SAME_TEXT("two", seen.last.bytes);
    HOLDS(nothing_more(base, &seen));
    SAME(3, rsp_send_cookie(session, NAME("abc"), 0, SOON));
    send_text(session, 0, "mark");
    expect_text(client, "mark");
    OK(rsp_close(client));
    SAME(0, event_base_dispatch(base));
    SAME(0, seen.last.length);
    event_free(event);
    OK(rsp_close(session));
    OK(rsp_close(server));

    /* Notifications, cookie echo, failure. */
    server = element("Events", SOCK_SEQPACKET, 0);
    event = watch(base, &seen, server, on_message);
    client = user("Events", SOCK_SEQPACKET);
    second = watch(base, &other, client, on_message);
    other.cookie = true;
    SAME(0, event_base_dispatch(base));
    SAME(RSERPOOL_SESSION_CHANGE, seen.last.notification.rn_header.rn_type);
    SAME(3, rsp_send_cookie(server, NAME("abc"), seen.last.notification.rn_session_change.rsc_session, SOON));
    send_text(server, seen.last.notification.rn_session_change.rsc_session, "mark");
    while (other.calls == 0) {
        SAME(0, event_base_dispatch(base));
    }
    SAME_TEXT("mark", other.last.bytes);
    OK(rsp_forcefailover(client, FFF_NONE, 0));
    while (!(seen.last.flags & MSG_RSERPOOL_COOKIE_ECHO)) {
        SAME(0, event_base_dispatch(base));
    }
    SAME_TEXT("abc", seen.last.bytes);
    SAME(RSERPOOL_FAILOVER_COMPLETE, other.last.notification.rn_failover.rf_state);
    event_free(event);
    OK(rsp_close(server));
    SAME(0, event_base_dispatch(base));
    SAME(RSERPOOL_FAILOVER, other.last.notification.rn_header.rn_type);
    SAME(RSERPOOL_FAILOVER_NECESSARY, other.last.notification.rn_failover.rf_state);
    event_free(second);
    OK(rsp_close(client));
    event_base_free(base);
    event_config_free(config);
}

int main(void)
{
    start();
    loop("epoll");
    loop("poll");
    loop("select");
    rsp_cleanup();
    libevent_global_shutdown();
    return checked();
}
