#pragma once
#include <anteroom/bench/books.h>
#include <anteroom/bench/fate.h>
#include <anteroom/bench/histogram.h>
#include <anteroom/bench/kernel_counters.h>
#include <anteroom/bench/scenario.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace anteroom::bench {

/// What one run of one scenario gave.
struct TrialResult {
  Scenario scenario;
  bool complete = false;  ///< false: it could not be run, or was interrupted, and `problems` says why
  /// Why nothing may be concluded from it; empty if all is well.
  std::vector<std::string> problems;
  bool is_private_network = false;
  std::string why_not_private;

  Fates fates;
  Books books;
  KernelCounters counters;
  std::uint32_t backlog_in_force = 0;  ///< what the kernel made of scenario.backlog
  std::uint64_t listener_drops = 0;    ///< of this listener alone (SO_MEMINFO)
  /// Of them, those until the end of the first stall: what the law speaks of. Later ones may be of SYNs sent
  /// again.
  std::uint64_t first_stall_drops = 0;
  std::uint64_t accepted = 0;
  std::uint32_t deepest_queue = 0;            ///< seen before each accept, and once a millisecond
  std::chrono::milliseconds longest_wait{0};  ///< of a guest in the queue

  std::uint32_t lost_first_syn = 0;  ///< clients
  /// First byte from the intended start. Who was not served counts with the age at which the trial ended for
  /// it.
  Histogram first_byte;
  std::uint32_t unserved = 0;  ///< of those in `first_byte`, how many are ages, not latencies
  std::chrono::nanoseconds least_unserved_age{0};
  /// Served, from the first intended start to the last first byte; to the end of the trial if somebody was
  /// not served.
  double connections_per_second = 0;

  std::chrono::nanoseconds lateness_p99{0};  ///< of the generator: called after intended
  std::chrono::nanoseconds launch_span{0};   ///< from the first client's call to the last one's
  std::chrono::nanoseconds server_cpu{0};
  std::chrono::nanoseconds swarm_cpu{0};

  bool is_void() const noexcept { return !problems.empty(); }
  /// The door turned nobody away: no handshake was thrown away, not even one that healed a second later.
  bool nobody_turned_away() const noexcept {
    return lost_first_syn == 0 && listener_drops == 0 && fates[Fate::kGhost] == 0 &&
           fates[Fate::kRefused] == 0 && fates[Fate::kReset] == 0;
  }
  bool everybody_served() const noexcept { return unserved == 0; }
};

/// How many of how many clients have ended, while a trial runs.
using TrialProgress = std::function<void(std::uint32_t ended, std::uint32_t clients)>;

/// Runs one trial: a server process and one or more swarm processes in a private network if that can be had,
/// counters before and after, and books that must balance. Takes load_length() + patience at most, less when
/// everybody is served. `interrupted` ends it early, with nothing left behind. The calling process must have
/// one thread (it forks). Throws std::system_error if there is no memory or no process.
TrialResult run_trial(const Scenario& scenario, const std::atomic<bool>& interrupted,
                      const TrialProgress& progress = {});

/// Why this machine cannot play so many clients, and what to change; empty if it can.
std::string clients_limit_problem(int clients);

}  // namespace anteroom::bench
