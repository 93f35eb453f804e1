#pragma once
#include <anteroom/bench/trial.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

namespace anteroom::bench {

/// Several runs of one server at one backlog. Losses are given as the best and the worst run, because the
/// median of 77, 0 and 0 would hide what decides; rates as medians over runs; latencies of all clients of all
/// runs together.
struct Summary {
  ServerKind server = ServerKind::kReactor;
  int backlog = 0;
  int runs = 0;  ///< that count
  int void_runs = 0;
  double lost_first_syn_best = 0;   ///< share of clients
  double lost_first_syn_worst = 0;  ///< share of clients
  std::uint32_t ghosts_best = 0;
  std::uint32_t ghosts_worst = 0;
  int runs_that_turned_away = 0;
  double connections_per_second = 0;  ///< median
  double overflows = 0;               ///< median
  double first_stall_drops = 0;       ///< median
  std::optional<double> stall_loss;   ///< what the law says of that (Scenario::stall_loss)
  std::uint32_t deepest_queue = 0;    ///< of all runs
  double server_cpu_us = 0;           ///< a served connection, median
  Histogram first_byte;               ///< of all clients of all runs
  /// The smallest age among those in `first_byte` who were not served, and count with their age; nothing if
  /// all were.
  std::optional<std::chrono::nanoseconds> least_unserved_age;

  /// Whether that percentile is only known to be larger, because it falls among the unserved.
  bool is_lower_bound(double share) const noexcept {
    return least_unserved_age && first_byte.percentile(share) >= *least_unserved_age;
  }
};

/// One for each server and backlog, in that order, an unlimited backlog last.
std::vector<Summary> summarize(const std::vector<TrialResult>& trials);

/// The middle one, or the mean of the two in the middle; 0 if there is none.
double median(std::vector<double> values);

}  // namespace anteroom::bench
