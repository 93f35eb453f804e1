// The textbook's program: connects, prints what the server says, and ends.
#include <anteroom/connector.h>
#include <anteroom/timer.h>
#include <fmt/format.h>
#include <standard_streams.h>

#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

namespace {

using namespace anteroom;

constexpr std::chrono::seconds kPatience{5};         // for the connection, and then again for the greeting
constexpr std::size_t kMessageBytesMax = 64 * 1024;  // enough for any greeting

std::optional<Endpoint> parse_arguments(int argc, char** argv) {
  if (argc != 3) return std::nullopt;
  const std::string_view text(argv[2]);
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc{} || end != text.data() + text.size() || port == 0) return std::nullopt;
  try {
    return Endpoint(argv[1], port);
  } catch (const std::system_error&) {
    return std::nullopt;
  }
}

int fail(const std::string& why) {
  print_error("hello_client: {}\n", why);
  return 1;
}

int run(const Endpoint& server) {
  Reactor reactor;
  std::string message;
  bool connected = false;
  std::error_code error;
  Timer patience(reactor, [&] { reactor.stop(); });
  Connector connector(reactor, {.open =
                                    [&](Connection&) {
                                      connected = true;
                                      patience.arm(kPatience);
                                    },
                                .data =
                                    [&](Connection& connection, std::string_view bytes) {
                                      message += bytes;
                                      if (message.size() > kMessageBytesMax) connection.close();
                                    },
                                .closed =
                                    [&](Connection&, std::error_code why) {
                                      error = why;
                                      reactor.stop();
                                    }});
  const ConnectResult attempt = connector.connect(server, {.deadline = kPatience});
  if (attempt.error) return fail(describe_connect_error(attempt.error, server));
  reactor.run();
  if (!message.empty()) {
    if (!say(stdout, fmt::format("Message from server: {}\n", message)))
      return fail(std::string(kOutputNotWritten));
    return 0;
  }
  if (!connected) return fail(describe_connect_error(error, server));
  if (error)
    return fail(fmt::format("connected to {}, but not greeted: {}", server.to_string(), error.message()));
  if (patience.is_armed()) return fail(fmt::format("{} closed without a greeting", server.to_string()));
  return fail(
      fmt::format("connected to {}, but not greeted within {} s: its listen queue may have overflowed, and "
                  "it may not know of us",
                  server.to_string(), kPatience.count()));
}

}  // namespace

int main(int argc, char** argv) {
  prepare_standard_streams();
  const std::optional<Endpoint> server = parse_arguments(argc, argv);
  if (!server) {
    (void)say(stdout, "Usage : hello_client <IP> <port>\n");
    return 1;
  }
  try {
    return run(*server);
  } catch (const std::exception& error) {
    return fail(error.what());
  }
}
