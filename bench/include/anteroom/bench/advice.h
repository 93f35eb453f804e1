#pragma once
#include <anteroom/bench/trial.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace anteroom::bench {

/// How deep a queue a load needs, and how that was found.
struct Advice {
  /// The backlog to use; 0 if nothing can be said.
  int recommended = 0;
  /// Whether trials at that very backlog turned nobody away.
  bool confirmed = false;
  /// The deepest queue that was seen in trials that turned nobody away, and how many these were; those with
  /// an unlimited backlog are among them.
  std::uint32_t deepest_queue = 0;
  int lossless_trials = 0;
  int unlimited_trials = 0;
  /// The law: clients a second x the longest that one of them waited in the queue, but never more than there
  /// are. Stands beside `deepest_queue` as a check; nothing if nobody waited long enough for the kernel's
  /// clock (4 ms at HZ 250).
  std::optional<double> predicted_depth;
  double rate = 0;      ///< in the trial of the deepest queue, as it came, clients a second
  int clients = 0;      ///< in that trial
  bool stalls = false;  ///< in that trial
  std::chrono::milliseconds longest_wait{0};  ///< in that trial
  /// The largest backlog of the grid that turned somebody away, and the largest share of clients that lost
  /// their first SYN.
  std::optional<int> largest_lossy;
  /// Trials with an unlimited backlog in which somebody was not served by the end of the patience: then no
  /// backlog helps, only a faster server, a shorter stall, or more patience, and nothing is recommended.
  int hopeless_trials = 0;
  /// Trials that count, and those that were void.
  int valid_trials = 0;
  int void_trials = 0;

  bool found() const noexcept { return recommended > 0; }
  /// Places for guests beyond the deepest queue, as a share of it: 0.5 is half as much again.
  double headroom() const noexcept;
};

/// A quarter more than the deepest queue that was seen: the next run's may be deeper.
constexpr double kHeadroom = 0.25;
/// A backlog of the grid is good enough with this much; a smaller one may just have been lucky.
constexpr double kHeadroomMin = 0.10;

/// The smallest backlog of the grid that turned nobody away in any valid trial, and holds the deepest queue
/// with kHeadroomMin to spare. If there is none, the deepest queue and kHeadroom, rounded up, not confirmed.
/// Nothing, if even an unlimited backlog did not get everybody served. Void trials do not count. Looks at one
/// server's trials.
Advice advise(const std::vector<TrialResult>& trials);

/// The next number with two significant binary digits (..., 96, 128, 192, 256, ...), which is how people
/// write backlogs.
int round_up_backlog(double places) noexcept;

}  // namespace anteroom::bench
