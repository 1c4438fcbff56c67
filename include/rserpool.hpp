/* rserpool.hpp - Reliable Server Pooling (RFC 5351-5356) for C++17: objects that own what the C API of <rserpool/rserpool.h>
 * hands out. Header only; link with -lrserpool.
 *
 *   library  the library, running from the first to the last of these
 *   session  a pool user's session, which moves to another element when its own fails
 *   element  a pool element, registered as long as it lives: one descriptor for all its sessions
 *   resolve  a pool handle's elements
 *
 * Every call comes twice. `s.send(..)` throws rserpool::error, a std::system_error whose code() is errno's (a
 * std::errc) and whose what() says in words what happened (rsp_strerror). `s.try_send(..)` throws nothing but
 * std::bad_alloc and returns a result<T>, which has either the value or the error. That nothing came in the time given is
 * no error: receive() returns an empty optional.
 *
 * Objects move and do not copy; a moved-from one may be assigned to and destroyed, its calls fail with EBADF. Different
 * threads may use one object at a time for sending and receiving, as the C functions allow; moving, closing and destroying it
 * meanwhile is the program's to exclude. The errors of each call are those of the C function that is named beside it.
 */
#ifndef RSERPOOL_HPP
#define RSERPOOL_HPP

#if !defined(__cplusplus) || (__cplusplus < 201703L && (!defined(_MSVC_LANG) || _MSVC_LANG < 201703L))
#error "rserpool.hpp needs C++17"
#endif

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <variant>
#include <vector>

#include <netinet/in.h>

#include <rserpool/rserpool.h>

namespace rserpool {

using milliseconds = std::chrono::milliseconds;

/* The longest wait there is: some 24 days. */
inline constexpr milliseconds forever{INT32_MAX};

/* What went wrong: errno, and the same in words. */
class error : public std::system_error {
public:
    error(int number, const std::string& text) : std::system_error(number, std::generic_category(), text) {}
};

/* A value, or what went wrong. */
template <typename T> class [[nodiscard]] result {
public:
    result(T value) : held_(std::in_place_index<0>, std::move(value)) {}
    result(rserpool::error error) : held_(std::in_place_index<1>, std::move(error)) {}

    bool has_value() const noexcept { return held_.index() == 0; }
    explicit operator bool() const noexcept { return has_value(); }

    /* The value; throws what went wrong if there is none. */
    T& value() &
    {
        if (auto* wrong = std::get_if<1>(&held_)) {
            throw rserpool::error(*wrong);
        }
        return *std::get_if<0>(&held_);
    }
    T&& value() && { return std::move(value()); }
    T& operator*() & { return value(); }
    T&& operator*() && { return std::move(value()); }
    T* operator->() { return &value(); }

    /* What went wrong; only if there is no value. */
    const rserpool::error& error() const { return std::get<1>(held_); }

private:
    std::variant<T, rserpool::error> held_;
};

/* The same of a call that has nothing to return. */
template <> class [[nodiscard]] result<void> {
public:
    result() = default;
    result(rserpool::error error) : wrong_(std::move(error)) {}

    bool has_value() const noexcept { return !wrong_; }
    explicit operator bool() const noexcept { return has_value(); }
    void value() const
    {
        if (wrong_) {
            throw rserpool::error(*wrong_);
        }
    }
    const rserpool::error& error() const { return wrong_.value(); }

private:
    std::optional<rserpool::error> wrong_;
};

namespace detail {

inline int wait_of(milliseconds timeout) noexcept
{
    return timeout < milliseconds::zero() ? 0 : static_cast<int>(timeout < forever ? timeout.count() : forever.count());
}

inline unsigned int age_of(milliseconds age) noexcept
{
    return static_cast<unsigned int>(wait_of(age));
}

/* What errno says of the last call, and what rsp_strerror adds for the descriptor (-1: for the thread). */
inline error last_error(int descriptor, const char* call)
{
    const int number = errno;
    std::string text = call;
    const char* why = rsp_strerror(descriptor);
    if (why != nullptr && *why != '\0') {
        text += ": ";
        text += why;
    }
    return error(number, text);
}

/* The errno that suits a registration that a registrar refused, or that there is no registrar for (rsp_geterror). */
inline int errno_of(unsigned int code) noexcept
{
    switch (code) {
    case RSPERR_NO_REGISTRAR:
        return EHOSTUNREACH;
    case RSPERR_TIMEOUT:
        return ETIMEDOUT;
    case RSPERR_OUT_OF_MEMORY:
        return ENOMEM;
    default:
        return EPERM;
    }
}

inline const unsigned char* bytes_of(std::string_view text) noexcept
{
    return reinterpret_cast<const unsigned char*>(text.data());
}

} // namespace detail

/* The library, running as long as one of these lives (rsp_initialize, rsp_cleanup). */
class library {
public:
    /* Starts it, with switches as programs take them: "-registrar=10.0.0.1:3863". Errors: EINVAL for a switch that
     * makes no sense, and rsp_initialize's. */
    explicit library(std::initializer_list<std::string> switches = {}) { start(switches.begin(), switches.end()); }
    explicit library(const std::vector<std::string>& switches) { start(switches.begin(), switches.end()); }
    /* The same from main's arguments; those that are no switches of the library are passed over. */
    library(int argc, char** argv)
    {
        const std::vector<std::string> all(argv + (argc > 0 ? 1 : 0), argv + argc);
        start(all.begin(), all.end(), false);
    }

    library(const library&) = delete;
    library& operator=(const library&) = delete;

private:
    struct running {
        ~running() { rsp_cleanup(); }
    };
    struct settings {
        rsp_info info;
        settings() { rsp_initinfo(&info); }
        ~settings() { rsp_freeinfo(&info); }
        settings(const settings&) = delete;
        settings& operator=(const settings&) = delete;
    };

    template <typename Iterator> void start(Iterator begin, Iterator end, bool strict = true)
    {
        settings wanted;
        for (; begin != end; ++begin) {
            if (rsp_initarg(&wanted.info, begin->c_str()) == 0 && strict) {
                throw error(EINVAL, "no switch of the library: " + *begin);
            }
        }
        running_ = shared();
        if (!running_) {
            if (rsp_initialize(&wanted.info) < 0) {
                throw detail::last_error(-1, "rsp_initialize");
            }
            running_ = std::make_shared<running>();
            keep(running_);
        }
    }

    static std::weak_ptr<running>& last()
    {
        static std::weak_ptr<running> one;
        return one;
    }
    static std::shared_ptr<running> shared() { return last().lock(); }
    static void keep(const std::shared_ptr<running>& one) { last() = one; }

    std::shared_ptr<running> running_;
};

/* What was received. */
struct message {
    enum class kind {
        data,         /* the sender's */
        cookie_echo,  /* the state of a session that came over from another element */
        notification, /* what happens to a session: `notification` below */
        end           /* of the session; only where there are no notifications */
    };

    kind type = kind::data;
    /* Bytes in the buffer. */
    std::size_t size = 0;
    /* Whether the message ends here. */
    bool whole = true;
    /* Which session of an element; who serves a session; both 0 where it does not apply. */
    rserpool_session_t session = 0;
    std::uint32_t element = 0;
    /* Payload protocol identifier (host byte order), and stream. */
    std::uint32_t ppid = 0;
    std::uint16_t stream = 0;
    /* Only of a notification. */
    rserpool_notification notification{};

    bool is_data() const noexcept { return type == kind::data; }
    bool is(std::uint16_t notified, unsigned int state) const noexcept
    {
        return type == kind::notification && notification.rn_header.rn_type == notified
            && (notified == RSERPOOL_FAILOVER ? notification.rn_failover.rf_state
                                              : notification.rn_session_change.rsc_state)
            == state;
    }
    /* The session has failed, and waits for force_failover(). */
    bool failover_necessary() const noexcept { return is(RSERPOOL_FAILOVER, RSERPOOL_FAILOVER_NECESSARY); }
    /* The session has moved. */
    bool failover_complete() const noexcept { return is(RSERPOOL_FAILOVER, RSERPOOL_FAILOVER_COMPLETE); }
    bool session_added() const noexcept { return is(RSERPOOL_SESSION_CHANGE, RSERPOOL_SESSION_ADD); }
    bool session_removed() const noexcept { return is(RSERPOOL_SESSION_CHANGE, RSERPOOL_SESSION_REMOVE); }
};

/* A descriptor of the library, closed with the object (rsp_close): what sessions and elements have in common. */
class descriptor {
public:
    descriptor(const descriptor&) = delete;
    descriptor& operator=(const descriptor&) = delete;
    descriptor(descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
    descriptor& operator=(descriptor&& other) noexcept
    {
        if (this != &other) {
            close();
            number_ = std::exchange(other.number_, -1);
        }
        return *this;
    }
    ~descriptor() { close(); }

    /* For poll(2), epoll(7) and the C functions; -1 if there is none. It stays this object's. */
    int native_handle() const noexcept { return number_; }
    explicit operator bool() const noexcept { return number_ >= 0; }

    /* Ends it now. An element leaves its pool. */
    void close() noexcept
    {
        if (number_ >= 0) {
            rsp_close(std::exchange(number_, -1));
        }
    }

    /* What happened in the last call, in words; empty: nothing (rsp_strerror). */
    std::string explanation() const { return rsp_strerror(number_); }

    /* The next thing that comes (rsp_recvmsg); nothing: it did not come in that time, or a signal did. */
    result<std::optional<message>> try_receive(void* buffer, std::size_t size, milliseconds timeout = forever)
    {
        rsp_sndrcvinfo from{};
        int flags = 0;
        const ssize_t length = rsp_recvmsg(number_, buffer, size, &from, &flags, detail::wait_of(timeout));
        if (length < 0) {
            if (errno == EAGAIN || errno == EINTR) {
                return std::optional<message>();
            }
            return detail::last_error(number_, "rsp_recvmsg");
        }
        message received;
        received.size = static_cast<std::size_t>(length);
        received.session = from.rinfo_session;
        received.element = from.rinfo_pe_id;
        received.ppid = ntohl(from.rinfo_ppid);
        received.stream = from.rinfo_stream;
        received.whole = (flags & MSG_EOR) != 0;
        if ((flags & MSG_RSERPOOL_NOTIFICATION) != 0) {
            received.type = message::kind::notification;
            std::memcpy(&received.notification, buffer, sizeof(received.notification));
        } else if ((flags & MSG_RSERPOOL_COOKIE_ECHO) != 0) {
            received.type = message::kind::cookie_echo;
            received.ppid = 0;
        } else if (length == 0 && (flags & MSG_EOR) == 0) {
            received.type = message::kind::end;
        }
        return std::optional<message>(received);
    }
    std::optional<message> receive(void* buffer, std::size_t size, milliseconds timeout = forever)
    {
        return try_receive(buffer, size, timeout).value();
    }
    /* The same into a string or vector of bytes, which has the size that was received afterwards. */
    template <typename Buffer, typename = decltype(std::declval<Buffer&>().resize(0))>
    result<std::optional<message>> try_receive(Buffer& buffer, milliseconds timeout = forever)
    {
        static_assert(sizeof(*buffer.data()) == 1, "a buffer of bytes");
        if (buffer.size() < buffer_size) {
            buffer.resize(buffer_size);
        }
        auto received = try_receive(buffer.data(), buffer.size(), timeout);
        buffer.resize(received && *received ? (*received)->size : 0);
        return received;
    }
    template <typename Buffer, typename = decltype(std::declval<Buffer&>().resize(0))>
    std::optional<message> receive(Buffer& buffer, milliseconds timeout = forever)
    {
        return try_receive(buffer, timeout).value();
    }

    /* How large buffers are made that are not. Messages of up to 64 KiB are cut by the buffer only. */
    static constexpr std::size_t buffer_size = 65536;

protected:
    explicit descriptor(int number) noexcept : number_(number) {}

    /* A message into a session (rsp_sendmsg). */
    result<void> send_to(rserpool_session_t session, const void* data, std::size_t size, milliseconds timeout,
                         std::uint32_t ppid, std::uint16_t stream, std::uint16_t flags = 0)
    {
        const int wait = detail::wait_of(timeout);
        if (rsp_sendmsg(number_, data, size, 0, session, htonl(ppid), stream, 0, flags, wait) < 0) {
            return detail::last_error(number_, "rsp_sendmsg");
        }
        return {};
    }

    static result<int> open(int type, int protocol)
    {
        const int number = rsp_socket(0, type, protocol);
        if (number < 0) {
            return detail::last_error(-1, "rsp_socket");
        }
        return number;
    }

private:
    int number_;
};

/* A pool user's session (RFC 5352 section 6). */
class session : public descriptor {
public:
    /* Opens one with an element of the pool (rsp_socket, rsp_connect). Errors: theirs, those that rsp_connect sets beside 0
     * as well: ENOENT if the pool is unknown or empty, EIO if there is no registrar, EINVAL for an empty handle. What is
     * known of the pool may be `stale` old. */
    static result<session> try_connect(std::string_view pool, milliseconds stale = milliseconds::zero())
    {
        auto number = open(SOCK_SEQPACKET, IPPROTO_SCTP);
        if (!number) {
            return number.error();
        }
        session made(*number);
        errno = 0;
        const int done = rsp_connect(*number, detail::bytes_of(pool), pool.size(), detail::age_of(stale));
        // A session that could not be opened is one to be moved, for the C function.
        if (done < 0 || errno != 0) {
            return detail::last_error(*number, "rsp_connect");
        }
        return result<session>(std::move(made));
    }
    explicit session(std::string_view pool, milliseconds stale = milliseconds::zero())
        : session(try_connect(pool, stale).value())
    {
    }

    /* Sends a message (rsp_sendmsg). */
    result<void> try_send(std::string_view data, milliseconds timeout = forever, std::uint32_t ppid = 0,
                          std::uint16_t stream = 0)
    {
        return send_to(0, data.data(), data.size(), timeout, ppid, stream);
    }
    void send(std::string_view data, milliseconds timeout = forever, std::uint32_t ppid = 0, std::uint16_t stream = 0)
    {
        try_send(data, timeout, ppid, stream).value();
    }

    /* Moves on to another element (rsp_forcefailover); FFF_UNREACHABLE: and says that this one is not to be reached. */
    result<void> try_force_failover(unsigned int flags = FFF_NONE, milliseconds stale = milliseconds::zero())
    {
        if (rsp_forcefailover(native_handle(), flags, detail::age_of(stale)) < 0) {
            return detail::last_error(native_handle(), "rsp_forcefailover");
        }
        return {};
    }
    void force_failover(unsigned int flags = FFF_NONE, milliseconds stale = milliseconds::zero())
    {
        try_force_failover(flags, stale).value();
    }

    /* Whether an element left a cookie, so that the next one knows the session's state (rsp_has_cookie). */
    bool has_cookie() const noexcept { return rsp_has_cookie(native_handle()) > 0; }

private:
    explicit session(int number) noexcept : descriptor(number) {}
};

/* How a pool chooses among its elements, and this one's values for it. */
inline rsp_loadinfo policy(unsigned int type, std::uint32_t weight = 0, std::uint32_t load = 0,
                           std::uint32_t degradation = 0) noexcept
{
    rsp_loadinfo info{};
    info.rli_policy = type;
    info.rli_weight = weight;
    info.rli_load = load;
    info.rli_load_degradation = degradation;
    return info;
}

/* A pool element: it listens, is registered as long as it lives, and has all its users' sessions. */
class element : public descriptor {
public:
    struct options {
        rsp_loadinfo load = policy(PPT_ROUNDROBIN);
        /* Between two registrations. */
        milliseconds interval{30000};
        /* IPPROTO_SCTP: SCTP, or TCP on kernels that have none; or IPPROTO_TCP. */
        int protocol = IPPROTO_SCTP;
        int backlog = 10;
        /* That a registrar refuses, or that there is none, is no error: it is tried again until it succeeds. */
        bool patient = false;
    };

    /* Errors: rsp_socket's, rsp_bind's, rsp_listen's, rsp_register's; EPERM where a registrar refused (the pool has
     * another policy, say), EHOSTUNREACH if none can be reached, ETIMEDOUT if none answers. */
    static result<element> try_register(std::string_view pool, const options& wanted)
    {
        auto number = open(SOCK_SEQPACKET, wanted.protocol);
        if (!number) {
            return number.error();
        }
        element made(*number);
        if (rsp_bind(*number, nullptr, 0) < 0) {
            return detail::last_error(*number, "rsp_bind");
        }
        if (rsp_listen(*number, wanted.backlog) < 0) {
            return detail::last_error(*number, "rsp_listen");
        }
        made.pool_ = pool;
        made.interval_ = wanted.interval;
        made.patient_ = wanted.patient;
        auto registered = made.try_update(wanted.load);
        if (!registered) {
            return registered.error();
        }
        return result<element>(std::move(made));
    }
    static result<element> try_register(std::string_view pool) { return try_register(pool, options()); }
    element(std::string_view pool, const options& wanted) : element(try_register(pool, wanted).value()) {}
    explicit element(std::string_view pool) : element(pool, options()) {}

    /* Its identifier in the pool; 0 if it has none (rsp_getsockname). */
    std::uint32_t id() const noexcept
    {
        std::uint32_t id = 0;
        rsp_getsockname(native_handle(), nullptr, nullptr, &id);
        return id;
    }

    /* Says how busy it is, or what its policy's values are now (rsp_register). */
    result<void> try_update(const rsp_loadinfo& load)
    {
        const int number = native_handle();
        const auto* pool = detail::bytes_of(pool_);
        if (rsp_register(number, pool, pool_.size(), &load, detail::age_of(interval_), 0) < 0) {
            return detail::last_error(number, "rsp_register");
        }
        const unsigned int code = patient_ ? RSPERR_OKAY : rsp_geterror(number);
        if (code != RSPERR_OKAY) {
            errno = detail::errno_of(code);
            return detail::last_error(number, "rsp_register");
        }
        return {};
    }
    void update(const rsp_loadinfo& load) { try_update(load).value(); }

    /* Leaves the pool; sessions go on until they end (rsp_deregister). */
    result<void> try_deregister()
    {
        if (rsp_deregister(native_handle(), 0) < 0) {
            return detail::last_error(native_handle(), "rsp_deregister");
        }
        return {};
    }
    void deregister() { try_deregister().value(); }

    /* Sends a message into a session (rsp_sendmsg). */
    result<void> try_send(rserpool_session_t session, std::string_view data, milliseconds timeout = forever,
                          std::uint32_t ppid = 0, std::uint16_t stream = 0)
    {
        return send_to(session, data.data(), data.size(), timeout, ppid, stream);
    }
    void send(rserpool_session_t session, std::string_view data, milliseconds timeout = forever, std::uint32_t ppid = 0,
              std::uint16_t stream = 0)
    {
        try_send(session, data, timeout, ppid, stream).value();
    }

    /* Gives the session's user something to keep, which the next element gets first (rsp_send_cookie). */
    result<void> try_send_cookie(rserpool_session_t session, std::string_view cookie, milliseconds timeout = forever)
    {
        const int wait = detail::wait_of(timeout);
        if (rsp_send_cookie(native_handle(), detail::bytes_of(cookie), cookie.size(), session, wait) < 0) {
            return detail::last_error(native_handle(), "rsp_send_cookie");
        }
        return {};
    }
    void send_cookie(rserpool_session_t session, std::string_view cookie, milliseconds timeout = forever)
    {
        try_send_cookie(session, cookie, timeout).value();
    }

    /* Breaks a session off: its user moves on at once. */
    result<void> try_abort(rserpool_session_t session) { return send_to(session, nullptr, 0, milliseconds(0), 0, 0, 4); }
    void abort(rserpool_session_t session) { try_abort(session).value(); }

private:
    explicit element(int number) noexcept : descriptor(number) {}

    std::string pool_;
    milliseconds interval_{30000};
    bool patient_ = false;
};

/* An element as a handle resolution names it. */
struct resolved {
    std::uint32_t id = 0;
    int protocol = 0;
    std::vector<sockaddr_storage> addresses;
};

/* Up to `items` elements of a pool, best first (rsp_getaddrinfo); 1 to 128. Errors: ENOENT if it is unknown or empty,
 * and rsp_getaddrinfo's. */
inline result<std::vector<resolved>> try_resolve(std::string_view pool, std::size_t items = RSPGETADDRS_MAX,
                                                 milliseconds stale = milliseconds::zero())
{
    rsp_addrinfo* list = nullptr;
    const int count = rsp_getaddrinfo(detail::bytes_of(pool), pool.size(), &list, items, detail::age_of(stale));
    const std::unique_ptr<rsp_addrinfo, void (*)(rsp_addrinfo*)> owner(list, rsp_freeaddrinfo);
    if (count < 0) {
        if (count != REAI_SYSTEM) {
            errno = count == REAI_MEMORY ? ENOMEM : ENOENT;
        }
        return detail::last_error(-1, "rsp_getaddrinfo");
    }
    std::vector<resolved> elements;
    for (const rsp_addrinfo* node = list; node != nullptr; node = node->ai_next) {
        resolved one;
        one.id = node->ai_pe_id;
        one.protocol = node->ai_protocol;
        auto* at = reinterpret_cast<const char*>(node->ai_addr);
        for (std::size_t i = 0; i < node->ai_addrs; i++) {
            sockaddr head{};
            std::memcpy(&head, at, sizeof(head));
            const std::size_t size = head.sa_family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
            sockaddr_storage address{};
            std::memcpy(&address, at, size);
            one.addresses.push_back(address);
            at += size;
        }
        elements.push_back(std::move(one));
    }
    return elements;
}
inline std::vector<resolved> resolve(std::string_view pool, std::size_t items = RSPGETADDRS_MAX,
                                     milliseconds stale = milliseconds::zero())
{
    return try_resolve(pool, items, stale).value();
}

} // namespace rserpool

#endif
