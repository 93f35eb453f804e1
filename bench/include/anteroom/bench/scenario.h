#pragma once
#include <anteroom/bench/arrival.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace anteroom::bench {

/// The server under test. Each greets its guest with "Hello World!" and closes; the guest says nothing.
enum class ServerKind : std::uint8_t {
  kReactor,   ///< anteroom's acceptor, one thread
  kBlocking,  ///< the textbook's loop, one guest at a time
  kThreads,   ///< a thread for each connection
  kPool,      ///< a fixed pool of threads
};

constexpr int kUnlimitedBacklog = -1;  ///< so large that nobody is turned away

/// One experiment as a value: who serves, how many may wait, and who comes when.
struct Scenario {
  ServerKind server = ServerKind::kReactor;
  int backlog = 128;
  int threads = 8;  ///< of ServerKind::kPool
  int clients = 2000;
  Arrival arrival = Arrival::kBurst;
  double rate = 0;  ///< clients a second; 0 for a burst
  /// How long the server accepts nobody: once, a quarter into the load (at its start in a burst), or every so
  /// often.
  std::chrono::nanoseconds stall{0};
  std::chrono::nanoseconds stall_every{0};
  /// How long after the last client's call the others still wait. Who is not served by then has lost.
  std::chrono::nanoseconds patience{1'500'000'000};
  std::uint64_t seed = 1;

  /// From the first client's call to the last one's.
  std::chrono::nanoseconds load_length() const noexcept;
  /// When the first stall begins, from the start of the load.
  std::chrono::nanoseconds first_stall() const noexcept;

  /// The law: while nobody is accepted the queue grows by rate x stall, and turns away whoever finds it full,
  /// which is at backlog + 1. How many the first stall turns away; nothing without a stall, with one so long
  /// that SYNs come again while it lasts (0.9 s), in a burst, or with an unlimited backlog.
  std::optional<double> stall_loss() const noexcept;

  /// "server=reactor backlog=128 clients=2000 arrival=steady rate=5000 stall=100ms ...", which parse() reads.
  std::string to_string() const;
  static std::optional<Scenario> parse(std::string_view text);

  friend bool operator==(const Scenario&, const Scenario&) = default;
};

std::string_view name(ServerKind kind) noexcept;
std::string_view name(Arrival arrival) noexcept;
std::optional<ServerKind> parse_server_kind(std::string_view text) noexcept;
std::optional<Arrival> parse_arrival(std::string_view text) noexcept;

/// "100ms", "1.5s", "20us", "7ns", "2m"; nothing for anything else, and for what is negative or beyond a day.
std::optional<std::chrono::nanoseconds> parse_duration(std::string_view text) noexcept;
/// As parse_duration() reads it, exactly.
std::string print_duration(std::chrono::nanoseconds duration);

}  // namespace anteroom::bench
