// The textbook's program: greets whoever comes, and closes.
#include <anteroom/blocking_server.h>

#include <thread>

#include "server_main.h"

namespace {

using namespace anteroom;

/// With --blocking it is the textbook's own loop: socket, bind, listen, accept, write, close.
int serve_blocking(std::uint16_t port) {
  try {
    sigset_t ends;
    ::sigemptyset(&ends);
    ::sigaddset(&ends, SIGINT);
    ::sigaddset(&ends, SIGTERM);
    ::pthread_sigmask(SIG_BLOCK, &ends, nullptr);
    BlockingServer server(Listener(Endpoint("0.0.0.0", port), {.blocking = true}), {});
    announce(server.endpoint());
    std::jthread waits_for_the_end([&] {
      int signal = 0;
      ::sigwait(&ends, &signal);
      server.stop();
    });
    server.run();
    return 0;
  } catch (const std::exception& error) {
    print_error("hello_server: {}\n", error.what());
    return 1;
  }
}

}  // namespace

int main(int argc, char** argv) {
  prepare_standard_streams();
  const bool blocking = argc == 3 && std::string_view(argv[1]) == "--blocking";
  const auto port = argc == 2 || blocking ? parse_port_argument(argv[argc - 1]) : std::nullopt;
  if (!port) {
    (void)say(stdout, "Usage : hello_server <port>\n");
    return 1;
  }
  if (blocking) return serve_blocking(*port);
  return serve("hello_server", *port, {.open = [](Connection& guest) { guest.close("Hello World!"); }});
}
