#pragma once
#include <anteroom/acceptor.h>
#include <anteroom/signals.h>
#include <fmt/format.h>
#include <standard_streams.h>

#include <charconv>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

/// What the little server programs have in common.
namespace anteroom {

inline std::optional<std::uint16_t> parse_port_argument(std::string_view text) {
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return port;
}

/// A service goes on also if nobody can read where.
inline void announce(const Endpoint& endpoint) {
  (void)say(stdout, fmt::format("listening on {}\n", endpoint.to_string()));
}

/// Serves all addresses of this machine with the reactor until SIGINT or SIGTERM. Returns the exit status.
inline int serve(std::string_view program, std::uint16_t port, ConnectionHandlers handlers) {
  try {
    Reactor reactor;
    const Signals signals(reactor, {SIGINT, SIGTERM}, [&reactor](int) { reactor.stop(); });
    AcceptorOptions options;
    options.resting = [program](std::error_code why, std::optional<std::uint32_t> waiting) {
      print_error("{}: cannot accept: {}; {} wait until a connection closes\n", program, why.message(),
                  waiting ? fmt::to_string(*waiting) : "some");
    };
    const Acceptor acceptor(reactor, Endpoint("0.0.0.0", port), std::move(handlers), std::move(options));
    announce(acceptor.endpoint());
    reactor.run();
    return 0;
  } catch (const std::exception& error) {
    print_error("{}: {}\n", program, error.what());
    return 1;
  }
}

}  // namespace anteroom
