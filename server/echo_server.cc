// Sends back what it is sent, until the guest closes.
#include "server_main.h"

int main(int argc, char** argv) {
  using namespace anteroom;
  prepare_standard_streams();
  const auto port = argc == 2 ? parse_port_argument(argv[1]) : std::nullopt;
  if (!port) {
    (void)say(stdout, "Usage : echo_server <port>\n");
    return 1;
  }
  return serve("echo_server", *port,
               {.data = [](Connection& guest, std::string_view bytes) { guest.send(bytes); }});
}
