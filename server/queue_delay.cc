#include <anteroom/queue_delay.h>
#include <anteroom/socket.h>

#include <system_error>

namespace anteroom {

QueueDelay::QueueDelay(const QueueDelayOptions& options) : options_(options) {
  const auto check = [](const char* name, std::chrono::milliseconds time) {
    if (time < time.zero())
      throw setup_error(std::make_error_code(std::errc::invalid_argument), "a negative queue delay:", name);
  };
  check("target", options.target);
  check("interval", options.interval);
}

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
