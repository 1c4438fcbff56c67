// The smallest pool user in C++: sends lines from standard input, prints what comes back and from whom; when a server
// fails, sends the line again to another one.   echo_client++ [POOL [library switches]]
#include <cstdio>
#include <exception>
#include <iostream>
#include <string>

#include <rserpool.hpp>

using namespace std::chrono_literals;

// Waits for the answer to `line`. False: not in this many tries.
static bool ask(rserpool::session& session, const std::string& line)
{
    std::string answer;
    bool sent = false;

    for (int tries = 0; tries < 100; tries++) {
        sent = sent || session.try_send(line, 1000ms);
        auto received = session.try_receive(answer, 500ms);
        if (received && !*received) {
            continue; // Nothing came.
        }
        if (received && (*received)->is_data()) {
            std::printf("0x%08x: %s\n", (*received)->element, answer.c_str());
            std::fflush(stdout);
            return true;
        }
        if (received && (*received)->failover_complete()) {
            continue;
        }
        (void)session.try_force_failover(FFF_UNREACHABLE);
        sent = false;
    }
    return false;
}

int main(int argc, char** argv)
try {
    const rserpool::library library(argc, argv);
    rserpool::session session(argc > 1 ? argv[1] : "EchoPool");
    for (std::string line; std::getline(std::cin, line);) {
        if (!line.empty() && !ask(session, line)) {
            std::fprintf(stderr, "nobody answers: %s\n", session.explanation().c_str());
            return 1;
        }
    }
    return 0;
} catch (const rserpool::error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
