#pragma once
#include <chrono>
#include <optional>

namespace anteroom {

/// When a server shall not accept: once, or every so often. An accept stall makes the loss of a burst
/// deterministic, where otherwise luck decides who wins the race between connecting and accepting.
struct AcceptStall {
  using Clock = std::chrono::steady_clock;

  Clock::time_point first{};
  Clock::duration length{0};  ///< 0 means never
  Clock::duration every{0};   ///< 0 means once

  bool is_set() const noexcept { return length > Clock::duration::zero(); }

  /// When the stall ends that `now` lies in; nothing if it lies in none.
  std::optional<Clock::time_point> end_of_current(Clock::time_point now) const noexcept {
    if (!is_set() || now < first) return std::nullopt;
    const Clock::time_point begin =
        first + (repeats() ? (now - first) / every * every : Clock::duration::zero());
    return now < begin + length ? std::optional(begin + length) : std::nullopt;
  }

  /// When the next stall begins, after `now`; nothing if there is no more.
  std::optional<Clock::time_point> next_after(Clock::time_point now) const noexcept {
    if (!is_set()) return std::nullopt;
    if (now < first) return first;
    if (!repeats()) return std::nullopt;
    return first + ((now - first) / every + 1) * every;
  }

 private:
  bool repeats() const noexcept { return every > Clock::duration::zero(); }
};

}  // namespace anteroom
