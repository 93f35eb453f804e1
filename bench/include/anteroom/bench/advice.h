#pragma once
#include <anteroom/bench/forecast.h>
#include <anteroom/bench/statistics.h>
#include <anteroom/bench/trial.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

namespace anteroom::bench {

/// How deep a queue a load needs, and how that was found.
struct Advice {
  /// The backlog to use; 0 if nothing can be said.
  int recommended = 0;
  /// Whether two trials or more at that very backlog met the target.
  bool confirmed = false;
  double target_loss = 0;  ///< share of clients that may lose their first SYN
  /// Upper bound of the loss at that backlog: the larger of what was measured there (one-sided 95 %, over
  /// runs or stall cycles), and of what the peaks of the lossless trials let one expect (depth_loss_upper).
  double loss_upper = 1;
  /// Over stall cycles or runs in which nobody was turned away; of trials with the same schedule, the
  /// deepest.
  Estimate deepest_queue;
  /// Different schedules that were played to an unlimited queue: with fewer than three, no bound is sure.
  int schedules = 0;
  int lossless_trials = 0;
  int unlimited_trials = 0;
  /// The law: clients a second x the longest that one of them waited in the queue, but never more than there
  /// are. Stands beside `deepest_queue` as a check; nothing if the load has no stall, or not one rate, or if
  /// nobody waited long enough for the kernel's clock (4 ms at HZ 250).
  std::optional<double> predicted_depth;
  double rate = 0;                            ///< in the trial of the deepest queue, clients a second
  std::chrono::milliseconds longest_wait{0};  ///< in that trial
  int clients = 0;                            ///< in that trial
  Needs model_needs;                          ///< what each part of the load needs, by the models
  bool is_of_a_running_server = false;        ///< whose own stalls no model knows
  /// Beyond this many places whoever waits is served too late for its patience (upper_bound_places); nothing
  /// if nobody was served.
  std::optional<double> places_max;
  /// The largest backlog tried that lost more than the target.
  std::optional<int> largest_lossy;
  /// Trials with an unlimited backlog in which somebody was not served by the end of the patience: then no
  /// backlog helps, only a faster server, a shorter stall, or more patience, and nothing is recommended.
  int hopeless_trials = 0;
  /// Trials that count, and those that were void.
  int valid_trials = 0;
  int void_trials = 0;
  /// Backlogs that have not been tried, and would bring the answer nearer to the knee.
  std::vector<int> try_next;

  bool found() const noexcept { return recommended > 0; }
  /// Places for guests beyond the deepest queue, as a share of it: 0.5 is half as much again.
  double headroom() const noexcept;
};

struct AdviceOptions {
  double target_loss = 0.001;
  /// Look between the backlogs that were tried; else only beyond them, if none is enough.
  bool refine = true;
};

/// Room that a backlog must have beyond the deepest queue that was seen; less may just have been lucky.
constexpr double kHeadroomMin = 0.10;

/// The smallest backlog tried, or worth trying, whose upper bound of loss meets the target, which has room to
/// spare, which holds what the model says of a burst that meets a stall (whether one does in these runs is
/// luck), and than which no larger one has lost more than that. Nothing, if even an unlimited backlog did not
/// get everybody served. Void trials do not count. Looks at one server's trials of one load.
Advice advise(const std::vector<TrialResult>& trials, const AdviceOptions& options = {});

/// Upper bound of the share of clients that find no place, from the deepest queues of lossless trials: what a
/// normal with the upper ends of their mean and deviation has beyond `places` (normal_excess_upper), for each
/// of `cycles` stalls, of `clients`.
double depth_loss_upper(const std::vector<double>& peaks, double places, int cycles, double clients);

/// The next number with two significant binary digits (..., 96, 128, 192, 256, ...), which is how people
/// write backlogs.
int round_up_backlog(double places) noexcept;

}  // namespace anteroom::bench
