#pragma once
#include <anteroom/bench/trial.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

namespace anteroom::bench {

/// Several runs of one server at one backlog. Medians are over runs, never over single connections.
struct Summary {
  ServerKind server = ServerKind::kReactor;
  int backlog = 0;
  int runs = 0;  ///< that count
  int void_runs = 0;
  double lost_first_syn = 0;          ///< share of clients, median
  double lost_first_syn_worst = 0;    ///< share of clients, of the worst run
  double ghosts = 0;                  ///< clients, median
  double connections_per_second = 0;  ///< median
  double overflows = 0;               ///< median
  double first_stall_drops = 0;       ///< median
  std::optional<double> stall_loss;   ///< what the law says of that (Scenario::stall_loss)
  std::uint32_t deepest_queue = 0;    ///< of all runs
  double server_cpu_us = 0;           ///< a served connection, median
  Histogram first_byte;               ///< of all clients of all runs
  double unserved = 0;  ///< share of those in `first_byte` who were not served, and count with their age

  /// Whether that percentile is only known to be larger, because it falls among the unserved.
  bool is_lower_bound(double share) const noexcept { return share > 1 - unserved; }
};

/// One for each server and backlog, in that order, an unlimited backlog last.
std::vector<Summary> summarize(const std::vector<TrialResult>& trials);

/// The middle one, or the mean of the two in the middle; 0 if there is none.
double median(std::vector<double> values);

}  // namespace anteroom::bench
