// rserpool.hpp against a registrar: objects own what they have, errors are said both ways.   objects SWITCH
#undef NDEBUG
#include <cassert>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <string>
#include <type_traits>
#include <vector>

#include <rserpool.hpp>

using namespace std::chrono_literals;
using rserpool::message;

static_assert(!std::is_copy_constructible_v<rserpool::session> && std::is_nothrow_move_constructible_v<rserpool::session>);
static_assert(!std::is_copy_assignable_v<rserpool::element> && std::is_move_assignable_v<rserpool::element>);
static_assert(std::is_base_of_v<std::system_error, rserpool::error>);

static bool is_open(int descriptor)
{
    return fcntl(descriptor, F_GETFD) >= 0;
}

template <typename Call> static rserpool::error thrown(Call call)
{
    try {
        call();
    } catch (const std::system_error& caught) {
        return dynamic_cast<const rserpool::error&>(caught);
    }
    assert(false && "nothing was thrown");
    return rserpool::error(0, "");
}

// The next thing of a kind, whatever comes before.
static message next(rserpool::descriptor& from, std::string& data, message::kind kind)
{
    for (int tries = 0; tries < 100; tries++) {
        const auto received = from.receive(data, 100ms);
        if (received && received->type == kind) {
            return *received;
        }
    }
    assert(false && "it did not come");
    return {};
}

static void errors_are_said_both_ways()
{
    const auto wrong = rserpool::session::try_connect("nobody");
    assert(!wrong && wrong.error().code() == std::errc::no_such_file_or_directory);
    assert(std::strstr(wrong.error().what(), "nobody") != nullptr);
    assert(thrown([] { rserpool::session("nobody"); }).code() == wrong.error().code());
    assert(thrown([] { rserpool::resolve("nobody"); }).code().value() == ENOENT);
    assert(thrown([] { rserpool::session(""); }).code() == std::errc::invalid_argument);
    assert(thrown([] { rserpool::session(std::string(70000, 'x')); }).code() == std::errc::filename_too_long);
    assert(thrown([] { rserpool::library({"-registrar=nowhere:99999"}); }).code().value() == EINVAL);

    rserpool::element element("Errors");
    rserpool::element moved(std::move(element));
    assert(thrown([&] { element.send(1, "x"); }).code().value() == EBADF);
    rserpool::element::options other;
    other.load = rserpool::policy(PPT_WEIGHTED_RANDOM, 7);
    const auto refused = rserpool::element::try_register("Errors", other);
    assert(!refused && refused.error().code() == std::errc::operation_not_permitted);
    assert(std::strstr(refused.error().what(), "olicy") != nullptr);
    other.patient = true;
    assert(rserpool::element::try_register("Errors", other) && rserpool::resolve("Errors").size() == 1);
    // What is no error: nothing came.
    std::vector<char> data;
    assert(!moved.receive(data, 0ms) && data.empty());
    auto nothing = moved.try_receive(data, 10ms);
    assert(nothing && !*nothing);
}

static void objects_own_descriptors()
{
    int number;
    {
        rserpool::element one("Owners"), two("Owners");
        number = one.native_handle();
        const int other = two.native_handle();
        assert(one && is_open(number) && rserpool::resolve("Owners").size() == 2);
        one = std::move(two);
        assert(!is_open(number) && one.native_handle() == other && !two && two.native_handle() == -1);
        rserpool::element* self = &one;
        one = std::move(*self);
        assert(one && one.id() != 0);
        number = other;
        const auto found = rserpool::resolve("Owners");
        assert(found.size() == 1 && found[0].id == one.id() && !found[0].addresses.empty());
        one.deregister();
        assert(!rserpool::try_resolve("Owners"));
    }
    assert(!is_open(number));
}

static void a_session_moves_with_its_cookie()
{
    rserpool::element first("Moves");
    rserpool::session session("Moves");
    std::string data;
    session.send("hello", 1s, 42, 3);
    auto received = next(first, data, message::kind::data);
    assert(data == "hello" && received.ppid == 42 && received.stream == 3 && received.whole);
    first.send_cookie(received.session, "the state");
    first.send(received.session, "there");
    received = next(session, data, message::kind::data);
    assert(data == "there" && received.element == first.id() && session.has_cookie());
    assert(first.try_update(rserpool::policy(PPT_ROUNDROBIN)));

    rserpool::element second("Moves");
    first.close();
    for (bool moved = false; !moved;) {
        const auto happened = session.receive(data, 5s);
        assert(happened && happened->type == message::kind::notification);
        if (happened->failover_necessary()) {
            session.force_failover(FFF_UNREACHABLE);
        }
        moved = happened->failover_complete();
    }
    session.send("again");
    next(second, data, message::kind::cookie_echo);
    assert(data == "the state");
    received = next(second, data, message::kind::data);
    assert(data == "again");
    // Into a buffer of one's own; too small for the whole.
    second.send(received.session, "0123456789");
    char small[4];
    std::optional<message> part;
    while (!(part = session.receive(small, sizeof small, 5s)) || !part->is_data()) {
    }
    assert(part->size == 4 && !part->whole && std::memcmp(small, "0123", 4) == 0);
    second.abort(received.session);
}

int main(int argc, char** argv)
{
    assert(argc == 2);
    {
        const rserpool::library library({argv[1]});
        {
            const rserpool::library again({argv[1]});
        }
        errors_are_said_both_ways();
        objects_own_descriptors();
        a_session_moves_with_its_cookie();
    }
    // Over with the last of them.
    assert(thrown([] { rserpool::session("Moves"); }).code() == std::errc::permission_denied);
    const rserpool::library anew(argc, argv);
    assert(!rserpool::try_resolve("Moves"));
    std::puts("good");
    return 0;
}
