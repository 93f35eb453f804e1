#pragma once
#include <chrono>

namespace anteroom {

struct QueueDelayOptions {
  /// A guest should not have waited longer than this in the listen queue before it is accepted. 0: never
  /// shed.
  std::chrono::milliseconds target{0};
  /// For so long the wait has to have been above the target before anybody is shed: a burst is no overload.
  std::chrono::milliseconds interval{100};
};

/// CoDel's idea (Nichols and Jacobson, 2012; RFC 8289) on the accept queue: a queue that does not get empty
/// for an interval is a standing one. Then those who have waited longest are turned away, for their clients
/// have given up on them or soon will, and the others are served in time; as long as it is not, nobody is.
class QueueDelay {
 public:
  using Clock = std::chrono::steady_clock;

  explicit QueueDelay(const QueueDelayOptions& options) noexcept : options_(options) {}
  bool is_set() const noexcept { return options_.target > options_.target.zero(); }

  /// Told of each guest how long it waited (steps of 4 ms at HZ 250). True: shed this one.
  bool should_shed(std::chrono::milliseconds waited, Clock::time_point now) noexcept;
  /// The queue was found empty: nobody stands in it.
  void emptied() noexcept;

  bool is_overloaded() const noexcept { return overloaded_; }

 private:
  QueueDelayOptions options_;
  bool overloaded_ = false;
  bool is_above_ = false;
  Clock::time_point above_since_{};
};

}  // namespace anteroom
