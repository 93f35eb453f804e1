#pragma once
#include <anteroom/bench/arrival.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace anteroom::bench {

/// The server under test. Each of ours greets its guest with "Hello World!" and closes; the guest says
/// nothing.
enum class ServerKind : std::uint8_t {
  kReactor,    ///< anteroom's acceptor, one thread
  kAcceptOne,  ///< the same, but it accepts only one guest a turn
  kReactors,   ///< several such threads, each with a listener of its own on the same port (SO_REUSEPORT)
  kBlocking,   ///< the textbook's loop, one guest at a time
  kThreads,    ///< a thread for each connection
  kPool,       ///< a fixed pool of threads
  kRunning,    ///< one that was there before, and is none of ours (Target)
};

/// Who sets the pace.
enum class Loop : std::uint8_t {
  kOpen,    ///< the schedule, whatever the server does: this is how the world calls
  kClosed,  ///< the server: each of a number of flows calls again when it was served. Gives the inverted
            ///< answer about backlog, because flows that wait for a lost SYN give no samples
};

/// What a guest costs before it is greeted.
enum class Handling : std::uint8_t {
  kNone,
  kWait,     ///< it waits for something else, without holding the loop: in a thread of a blocking server it
             ///< sleeps
  kCompute,  ///< it needs the processor
  kBlock,    ///< it sleeps in the handler, and holds the loop
};

struct Handler {
  Handling kind = Handling::kNone;
  std::chrono::nanoseconds time{0};
  bool is_exponential = false;  ///< drawn for each guest, `time` on average; else it is always the same

  /// "none", "wait:5ms", "compute:200us", "block:1ms:exponential"; parse() reads it.
  std::string to_string() const;
  static std::optional<Handler> parse(std::string_view text);
  friend bool operator==(const Handler&, const Handler&) = default;
};

constexpr int kUnlimitedBacklog = -1;  ///< so large that nobody is turned away

/// When a server accepts nobody, from the start of the load.
struct Stall {
  std::chrono::nanoseconds begin{0};
  std::chrono::nanoseconds length{0};
};

/// One experiment as a value: who serves, how many may wait, and who comes when.
struct Scenario {
  ServerKind server = ServerKind::kReactor;
  int backlog = 128;
  int threads = 8;  ///< of ServerKind::kPool and kReactors
  Loop loop = Loop::kOpen;
  int flows = 500;                                 ///< of a closed loop
  std::chrono::nanoseconds length{1'000'000'000};  ///< of a closed loop
  /// Of the whole trial; in a closed loop the most that may be played, one after another.
  int clients = 2000;
  Arrival arrival = Arrival::kBurst;
  double rate = 0;        ///< clients a second; 0 for a burst
  double dispersion = 1;  ///< variance of their number over its mean, of Arrival::kPoisson; at least 1
  std::chrono::nanoseconds on{0};   ///< of Arrival::kOnOff
  std::chrono::nanoseconds off{0};  ///< of Arrival::kOnOff
  /// On top of any other arrival: so many at once, every so often (shifted at random by up to a quarter).
  int burst = 0;
  std::chrono::nanoseconds burst_every{0};
  /// The time within which the clients of a burst call, each at random.
  std::chrono::nanoseconds burst_within{0};
  /// How long the server accepts nobody: once, a quarter into the load (at its start in a burst), or every so
  /// often, in the middle of each period.
  std::chrono::nanoseconds stall{0};
  std::chrono::nanoseconds stall_every{0};
  /// By how much of the rest of its period each stall may be shifted at random, 0 to 1.
  double stall_jitter = 0;
  Handler handler;
  /// What a delay line between clients and server adds, and the share of packets that it loses each way.
  std::chrono::nanoseconds rtt{0};
  double loss = 0;
  /// Of the trial's own network, on both sides.
  std::vector<std::pair<std::string, std::string>> sysctls;
  /// How long after the last client's call the others still wait. Who is not served by then has lost.
  std::chrono::nanoseconds patience{1'500'000'000};
  std::uint64_t seed = 1;

  /// From the first client's call to the last one's, as planned. A closed loop stops calling then.
  std::chrono::nanoseconds load_length() const noexcept;
  /// All stalls that begin until the end of everybody's patience, in order; fixed by the seed.
  std::vector<Stall> stalls() const;
  /// How many stalls the load has.
  int cycles() const noexcept;

  /// The law: while nobody is accepted the queue grows by rate x stall, and turns away whoever finds it full,
  /// which is at backlog + 1. How many the first stall turns away, on average if they come at random; nothing
  /// without a stall, with one so long that SYNs come again while it lasts (0.9 s), with arrivals that have
  /// no one rate (a burst, on-off, a ramp), with several listeners, or with an unlimited backlog.
  std::optional<double> stall_loss() const noexcept;

  /// "server=reactor backlog=128 clients=2000 arrival=steady rate=5000 stall=100ms ...", which parse() reads.
  std::string to_string() const;
  static std::optional<Scenario> parse(std::string_view text);

  friend bool operator==(const Scenario&, const Scenario&) = default;
};

std::string_view name(ServerKind kind) noexcept;
std::string_view name(Arrival arrival) noexcept;
std::string_view name(Loop loop) noexcept;
std::optional<ServerKind> parse_server_kind(std::string_view text) noexcept;
std::optional<Arrival> parse_arrival(std::string_view text) noexcept;
std::optional<Loop> parse_loop(std::string_view text) noexcept;
/// "name=value", a sysctl of the network: its name begins with "net." and has no "..".
std::optional<std::pair<std::string, std::string>> parse_sysctl(std::string_view text);

/// "100ms", "1.5s", "20us", "7ns", "2m" or "2min", "1h", "1h30m", in letters of any case; nothing for
/// anything else, and for what is negative or beyond a day.
std::optional<std::chrono::nanoseconds> parse_duration(std::string_view text) noexcept;
/// As parse_duration() reads it, exactly.
std::string print_duration(std::chrono::nanoseconds duration);

}  // namespace anteroom::bench
