#include <anteroom/queue_delay.h>

namespace anteroom {

bool QueueDelay::should_shed(std::chrono::milliseconds waited, Clock::time_point now) noexcept {
  if (!is_set()) return false;
  if (waited <= options_.target) {
    emptied();
    return false;
  }
  if (!is_above_) {
    is_above_ = true;
    above_since_ = now;
  }
  // Not in nanoseconds, in which the longest intervals do not fit.
  overloaded_ =
      std::chrono::duration_cast<std::chrono::milliseconds>(now - above_since_) >= options_.interval;
  return overloaded_ && waited - options_.target > options_.target;
}

void QueueDelay::emptied() noexcept {
  is_above_ = false;
  overloaded_ = false;
}

}  // namespace anteroom
