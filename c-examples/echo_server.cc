// The smallest pool element in C++: sends every message back.   echo_server++ [POOL [library switches]]
#include <csignal>
#include <cstdio>
#include <exception>
#include <string>

#include <rserpool.hpp>

static volatile std::sig_atomic_t stop;

int main(int argc, char** argv)
try {
    using namespace std::chrono_literals;
    std::signal(SIGTERM, [](int) { stop = 1; });
    std::signal(SIGINT, [](int) { stop = 1; });

    const rserpool::library library(argc, argv);
    const std::string pool = argc > 1 ? argv[1] : "EchoPool";
    rserpool::element element(pool);
    std::printf("element 0x%08x of pool \"%s\"\n", element.id(), pool.c_str());
    std::fflush(stdout);

    std::string data;
    while (!stop) {
        const auto message = element.receive(data, 500ms);
        if (!message || !message->is_data()) {
            continue;
        }
        // Without waiting: who does not read his answers must not hold up the others, and is sent away.
        if (!element.try_send(message->session, data, 0ms, message->ppid, message->stream)) {
            (void)element.try_abort(message->session);
        }
    }
    return 0;
} catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
