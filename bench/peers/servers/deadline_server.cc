// Ours, with deadlines: it takes whatever it is sent, says nothing, and ends whoever is too slow.
#include <anteroom/acceptor.h>
#include <anteroom/signals.h>

#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <exception>
#include <string_view>

namespace {

using namespace anteroom;

std::size_t number(std::string_view text) {
  std::size_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fprintf(stderr, "usage: %s PORT FIRST_BYTE_MS IDLE_MS BYTES_PER_SECOND_MIN WINDOW_MS\n", argv[0]);
    return 2;
  }
  try {
    Reactor reactor;
    const Signals signals(reactor, {SIGINT, SIGTERM}, [&reactor](int) { reactor.stop(); });
    AcceptorOptions options;
    options.connection.first_byte_deadline = std::chrono::milliseconds(number(argv[2]));
    options.connection.idle_deadline = std::chrono::milliseconds(number(argv[3]));
    options.connection.receive_bytes_per_second_min = number(argv[4]);
    options.connection.rate_window = std::chrono::milliseconds(number(argv[5]));
    const Acceptor acceptor(reactor, Endpoint("0.0.0.0", static_cast<std::uint16_t>(number(argv[1]))),
                            {.data = [](Connection&, std::string_view) {}}, std::move(options));
    std::printf("listening on %s\n", acceptor.endpoint().to_string().c_str());
    std::fflush(stdout);
    reactor.run();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", argv[0], error.what());
    return 1;
  }
}
