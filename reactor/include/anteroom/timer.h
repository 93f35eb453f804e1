#pragma once
#include <anteroom/export.h>
#include <anteroom/reactor.h>

#include <chrono>
#include <functional>
#include <memory>

namespace ANTEROOM_EXPORT anteroom {

/// Calls back once, or every interval, until it is destroyed or cancelled.
///
/// Arming, arming anew and cancelling are O(1). It never fires early, and late by at most 16 µs, what the
/// kernel adds to a wait (50 µs or a thousandth of it, select(2) and prctl(2) on timer slack), and the
/// handlers before it. Its handler may arm, cancel or destroy it. Time is CLOCK_MONOTONIC: it stands still
/// while the machine is suspended.
class Timer {
 public:
  using Clock = Reactor::Clock;

  /// A timer without a reactor, as one that was moved from: not armed, and may be cancelled and assigned to.
  /// To arm it ends the program, in every build, with a message.
  Timer() noexcept;
  /// Throws std::system_error (invalid_argument) without a handler.
  Timer(Reactor& reactor, std::function<void()> handler);
  Timer(Timer&&) noexcept;
  Timer& operator=(Timer&&) noexcept;
  ~Timer();

  /// Fires once, `delay` from now; 0 or less means as soon as the turn comes to its timers. An armed timer is
  /// moved.
  void arm(Clock::duration delay) noexcept;
  void arm_at(Clock::time_point when) noexcept;

  /// Fires every `interval` (at least 1 ms; a negative one asserts), first in one interval from now.
  /// Intervals missed by a busy loop are skipped.
  void arm_every(Clock::duration interval) noexcept;

  void cancel() noexcept;
  bool is_armed() const noexcept;

 private:
  class Node;
  explicit Timer(std::unique_ptr<Node> node) noexcept;
  Node& node_to_arm() const noexcept;
  std::unique_ptr<Node> node_;
};

}  // namespace anteroom
