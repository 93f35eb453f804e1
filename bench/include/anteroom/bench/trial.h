#pragma once
#include <anteroom/bench/books.h>
#include <anteroom/bench/fate.h>
#include <anteroom/bench/histogram.h>
#include <anteroom/bench/kernel_counters.h>
#include <anteroom/bench/latencies.h>
#include <anteroom/bench/road.h>
#include <anteroom/bench/scenario.h>
#include <anteroom/bench/target.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace anteroom::bench {

/// One period of a load whose stalls repeat: those who were to call in it, those of them who were turned
/// away, and the deepest that the queue was.
struct Cycle {
  std::uint32_t clients = 0;
  std::uint32_t lost = 0;
  std::uint32_t peak = 0;
};

/// What one run of one scenario gave.
struct TrialResult {
  Scenario scenario;
  bool complete = false;  ///< false: it could not be run, or was interrupted, and `problems` says why
  /// Why nothing may be concluded from it; empty if all is well.
  std::vector<std::string> problems;
  bool server_died = false;  ///< in the middle of it
  RoadKind road = RoadKind::kShared;
  std::string why_not_better;  ///< why the road is no pair
  /// In force on the server's side: names and values.
  std::vector<std::pair<std::string, std::string>> sysctls;

  std::uint32_t clients = 0;  ///< who played: in a closed loop, as many as there was time for
  Fates fates;
  std::vector<std::uint32_t> served_after;  ///< clients served after 1, 2, ... retransmits
  std::uint32_t lost_first_syn = 0;         ///< clients
  /// Clients whose handshake was thrown away: those, ghosts, and who was reset before the accept. On a road
  /// that loses packets itself, what the door threw away, and no more than were called.
  std::uint32_t turned_away = 0;
  std::vector<Cycle> cycles;  ///< of the load, if its stalls repeat
  std::uint32_t largest_clump =
      0;  ///< the most clients whose SYNs were lost within 32 ms, and come again at once

  std::vector<Account> books;
  BookEntries entries;
  KernelCounters server_counters;
  KernelCounters client_counters;  ///< with a pair
  std::uint64_t softnet_drops = 0;
  RoadTraffic traffic;  ///< of the delay line

  std::uint32_t backlog_in_force = 0;  ///< what the kernel made of scenario.backlog
  std::uint64_t listener_drops = 0;    ///< of its listeners alone (SO_MEMINFO)
  /// Of them, those until the end of the first stall: what the law speaks of. Later ones may be of SYNs sent
  /// again.
  std::uint64_t first_stall_drops = 0;
  /// By the server; of one that was there before, those of ours that it answered or reset.
  std::uint64_t accepted = 0;
  /// Seen before each accept, and once a millisecond; of a server that was there before only the latter.
  std::uint32_t deepest_queue = 0;
  std::chrono::milliseconds longest_wait{0};  ///< of a guest in the queue
  Histogram queue_wait;                       ///< of each guest in the queue
  std::chrono::nanoseconds depth_step{0};
  std::vector<std::optional<std::uint32_t>> depth_over_time;  ///< the deepest in each step that has a sample

  /// From the intended start. A closed loop ends while clients are under way; they are not among the
  /// unfinished of either, unless nobody was served at all.
  Latencies first_byte;
  Latencies connect;  ///< the same, until it was writable
  /// Served, from the first intended start to the last first byte, or to the last intended start if that is
  /// later.
  double connections_per_second = 0;

  /// Little's law, L = λW, from two measurements that do not know of each other: the clients that had called
  /// and not ended, counted each millisecond, and their rate x their mean time by their own clocks. In a
  /// closed loop the latter is what a tool says that hears only of the served, and falls short.
  double mean_in_system = 0;
  double rate_times_latency = 0;

  Histogram lateness;                       ///< of the generator: called after intended
  std::chrono::nanoseconds launch_span{0};  ///< from the first client's call to the last one's
  std::chrono::nanoseconds server_cpu{0};
  std::chrono::nanoseconds swarm_cpu{0};

  bool is_void() const noexcept { return !problems.empty(); }
  double lost_share() const noexcept { return share_of(lost_first_syn); }
  double turned_away_share() const noexcept { return share_of(turned_away); }
  /// Nothing if nobody was served, or the server's processor time is not known: none takes none.
  std::optional<double> server_cpu_per_connection_s() const noexcept {
    if (fates.served() == 0 || server_cpu.count() <= 0) return std::nullopt;
    return static_cast<double>(server_cpu.count()) * 1e-9 / fates.served();
  }
  /// What there is of Little's two numbers: neither without a sample, and no latency of nobody.
  std::optional<double> known_in_system() const noexcept {
    return depth_over_time.empty() ? std::nullopt : std::optional(mean_in_system);
  }
  std::optional<double> known_rate_times_latency() const noexcept {
    const bool is_of_nobody = scenario.loop == Loop::kClosed && fates.served() == 0;
    return depth_over_time.empty() || is_of_nobody ? std::nullopt : std::optional(rate_times_latency);
  }
  /// Handshakes thrown away at the door: ListenDrops; in a network that others share at most that, and at
  /// most the listeners' own count, which has also what was discarded there for other reasons (the bare ACKs
  /// of TCP_DEFER_ACCEPT, say).
  std::uint64_t door_drops() const noexcept {
    const auto network = static_cast<std::uint64_t>(entries.listen_drops);
    return entries.is_private ? network : std::min(network, listener_drops);
  }
  /// The door turned nobody away: no handshake was thrown away, not even one that healed a second later.
  bool nobody_turned_away() const noexcept {
    return turned_away == 0 && door_drops() == 0 && fates[Fate::kRefused] == 0 && fates.reset() == 0;
  }
  /// By the server; who was not because the road lost its packets is none of the server's business.
  bool everybody_served() const noexcept {
    return fates.served() == clients || (scenario.loss > 0 && door_drops() == 0);
  }
  /// Little's two numbers are one, to within a tenth and two clients.
  bool little_holds() const noexcept;

 private:
  double share_of(std::uint32_t count) const noexcept {
    return clients > 0 ? static_cast<double>(count) / clients : 0;
  }
};

/// How many of how many clients have ended, while a trial runs.
using TrialProgress = std::function<void(std::uint32_t ended, std::uint32_t clients)>;

/// Runs one trial: a server process and one or more swarm processes on a road of their own if that can be
/// had, counters before and after, and books that must balance. Takes load_length() + patience at most, less
/// when everybody is served. `interrupted` ends it early, with nothing left behind. The calling process must
/// have one thread (it forks). With a `target` (and ServerKind::kRunning) that is the server, in the network
/// where the calling process is; who else calls it, or loses packets there, is seen in the books. What there
/// was of it until an interruption is in the result, which is then complete, and void for "interrupted".
/// Throws std::system_error if there is no memory or no process.
TrialResult run_trial(const Scenario& scenario, const std::atomic<bool>& interrupted,
                      const TrialProgress& progress = {}, const Target* target = nullptr);

/// Why this machine cannot play so many clients, and what to change; empty if it can.
std::string clients_limit_problem(int clients);

}  // namespace anteroom::bench
