#pragma once
#include <anteroom/bench/statistics.h>
#include <anteroom/bench/trial.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

namespace anteroom::bench {

/// Several runs of one server at one backlog. Of each number the median with its interval over runs, and the
/// least and the most; of what decides, the loss, over stall cycles where there are such, and never over
/// single clients. Latencies are of all clients of all runs together. What no run has measured has an
/// estimate of no sample (Estimate::n is 0).
struct Summary {
  Scenario scenario;  ///< of its runs, all but their seed
  int runs = 0;       ///< that count
  int void_runs = 0;
  std::uint32_t clients = 0;  ///< of all runs
  int runs_that_turned_away = 0;

  Estimate lost_first_syn;  ///< share of clients
  Estimate turned_away;     ///< share of clients: those, ghosts, and who was reset before the accept
  /// One-sided 95 % upper bound of its mean (loss_upper_bound); nothing of fewer than two runs or cycles, or
  /// of such as are all alike: they do not tell how the next will be.
  std::optional<double> loss_upper;
  std::optional<double> forecast_loss;  ///< what the model says
  std::string_view model;               ///< which

  Estimate connections_per_second;
  Estimate ghosts;     ///< clients a run
  Estimate overflows;  ///< ListenOverflows a run
  Estimate drops;      ///< ListenDrops a run
  Estimate syn_retransmits;
  Estimate first_stall_drops;
  std::optional<double> stall_loss;  ///< what the law says of that (Scenario::stall_loss)
  Estimate deepest_queue;
  Estimate server_cpu_s;  ///< a served connection
  Estimate first_byte_p99_s;
  Fates fates;  ///< of all runs
  Latencies first_byte;
  Latencies connect;
  Histogram queue_wait;
  /// Of the first run that counts.
  std::chrono::nanoseconds depth_step{0};
  std::vector<std::optional<std::uint32_t>> depth_over_time;
  std::optional<double> mean_in_system;      ///< of that run
  std::optional<double> rate_times_latency;  ///< of that run
};

/// One for each server, loop and backlog, in that order, an unlimited backlog last.
std::vector<Summary> summarize(const std::vector<TrialResult>& trials);

/// What one thread of this server accepts in a second, from the processor's time that it took: 1 over the
/// median of the runs; 0 if nobody was served.
double accepts_per_second(const std::vector<TrialResult>& trials);

/// The loss of each run, or of each stall cycle where there are such.
std::vector<BlockLoss> loss_by_block(const std::vector<const TrialResult*>& trials);

}  // namespace anteroom::bench
