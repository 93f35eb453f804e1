#pragma once
#include <anteroom/export.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>
#include <vector>

namespace ANTEROOM_EXPORT anteroom {

/// When a server shall not accept, fixed beforehand. An accept stall makes the loss of a burst deterministic,
/// where otherwise luck decides who wins the race between connecting and accepting.
class AcceptStall {
 public:
  using Clock = std::chrono::steady_clock;

  struct Window {
    Clock::time_point begin;
    Clock::duration length;
    Clock::time_point end() const noexcept { return begin + length; }
  };

  AcceptStall() = default;  ///< never
  /// In order, none of them overlapping another.
  explicit AcceptStall(std::vector<Window> windows) : windows_(std::move(windows)) {}

  bool is_set() const noexcept { return !windows_.empty(); }

  /// When the stall ends that `now` lies in; nothing if it lies in none.
  std::optional<Clock::time_point> end_of_current(Clock::time_point now) const noexcept {
    const auto later = after(now);
    if (later == windows_.begin() || now >= std::prev(later)->end()) return std::nullopt;
    return std::prev(later)->end();
  }

  /// When the next stall begins, after `now`; nothing if there is no more.
  std::optional<Clock::time_point> next_after(Clock::time_point now) const noexcept {
    const auto later = after(now);
    return later == windows_.end() ? std::nullopt : std::optional(later->begin);
  }

 private:
  std::vector<Window>::const_iterator after(Clock::time_point now) const noexcept {
    return std::ranges::upper_bound(windows_, now, {}, &Window::begin);
  }
  std::vector<Window> windows_;
};

}  // namespace anteroom
