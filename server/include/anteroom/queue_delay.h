#pragma once
#include <anteroom/export.h>

#include <chrono>

namespace ANTEROOM_EXPORT anteroom {

struct QueueDelayOptions {
  /// A guest should not have waited longer than this in the listen queue before it is accepted. 0: never
  /// shed.
  std::chrono::milliseconds target{0};
  /// For so long the wait has to have been above the target before anybody is shed: a burst is no overload.
  std::chrono::milliseconds interval{100};
};

/// CoDel's idea (Nichols and Jacobson, 2012; RFC 8289) on the accept queue: one that does not get empty, and
/// in which nobody waited less than the target, for a whole interval, is a standing queue: the server is
/// overloaded. As long as it is, those who have waited longer than twice the target are turned away, for
/// their clients have given up on them or soon will; the others are served in time. Otherwise nobody is.
///
/// RFC 8289 drops one packet, then the next ever sooner, because each drop makes a sender slow down. Guests
/// are not one sender: turning one away slows down nobody else, so a rhythm of drops would let the queue
/// stand. Hence all who are late go, as in folly's Codel (`sloughTimeout`, twice the target). Twice, because
/// a limit at the target itself would end the overload with the first guest whom it helps: the next interval
/// would be served late again, and so on in turn. In between, waits settle where the server just keeps up.
class QueueDelay {
 public:
  using Clock = std::chrono::steady_clock;

  /// Throws std::system_error (invalid_argument) for times below 0.
  explicit QueueDelay(const QueueDelayOptions& options);
  bool is_set() const noexcept { return options_.target > options_.target.zero(); }

  /// Told of each guest how long it waited (steps of 4 ms at HZ 250). True: shed this one.
  bool should_shed(std::chrono::milliseconds waited, Clock::time_point now) noexcept;
  /// The queue was found empty: nobody stands in it, and no overload lasts beyond that.
  void emptied() noexcept;

  bool is_overloaded() const noexcept { return overloaded_; }

 private:
  QueueDelayOptions options_;
  bool overloaded_ = false;
  bool is_above_ = false;
  Clock::time_point above_since_{};
};

}  // namespace anteroom
