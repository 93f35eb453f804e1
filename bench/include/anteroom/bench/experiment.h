#pragma once
#include <anteroom/bench/scenario.h>
#include <anteroom/bench/trial.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <vector>

namespace anteroom::bench {

/// Where an experiment stands.
struct ExperimentProgress {
  std::size_t trial = 0;   ///< from 0
  std::size_t trials = 0;  ///< planned by now; void ones are added
  const Scenario* scenario = nullptr;
  std::uint32_t clients_ended = 0;
  std::chrono::nanoseconds left{0};  ///< estimated
};

struct ExperimentOptions {
  int repeat = 3;          ///< rounds, each of which runs every scenario once
  std::uint64_t seed = 1;  ///< of the order of trials, and of each trial's schedule
  /// After `repeat` rounds, whether they are enough; else there is another, up to `repeat_max` in all.
  std::function<bool(const std::vector<TrialResult>&)> enough;
  int repeat_max = 30;
  const Target* target = nullptr;  ///< the server, if it was there before
  /// Before each trial, for what has to be changed about such a server; false ends the experiment.
  std::function<bool(const Scenario&)> prepare;
};

/// Runs each scenario `repeat` times, all of them interleaved at random, each in processes and a network of
/// its own. All scenarios of a round have the same schedule. A void trial is run once more, and stays in the
/// results; nothing is dropped silently. After an interruption, or three trials in a row that could not be
/// run: what there is.
std::vector<TrialResult> run_experiment(const std::vector<Scenario>& scenarios,
                                        const ExperimentOptions& options,
                                        const std::atomic<bool>& interrupted,
                                        const std::function<void(const ExperimentProgress&)>& progress = {});

}  // namespace anteroom::bench
