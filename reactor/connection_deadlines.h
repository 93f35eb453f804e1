#pragma once
#include <anteroom/connection.h>
#include <anteroom/reactor.h>

#include <chrono>
#include <cstddef>

#include "timer_wheel.h"

namespace anteroom {

/// When a connection is over if nothing happens until then. One timer for all its deadlines, which is not
/// moved by what happens: events leave their time here, and the timer, when it fires, works out when to look
/// again. So an event costs two stores, and the wheel is touched once a deadline.
class Connection::Deadlines final : public TimerEntry {
 public:
  using Clock = Reactor::Clock;

  explicit Deadlines(Connection& connection) noexcept : connection_(connection) {}
  ~Deadlines() { cancel(); }
  void cancel() noexcept { connection_.reactor().timers().cancel(*this); }

  /// The end, whatever happens, of an attempt to connect. Of a connection that closes with output waiting:
  /// unless the peer takes something until then.
  void end_after(Clock::duration delay) noexcept;
  /// Our FIN is sent. The peer has `linger` to end its side, too: from now on, or from when it last took
  /// something that the kernel still holds.
  void linger() noexcept;
  /// It is open: from now on the deadlines of its options hold, and no other.
  void opened() noexcept;

  void received(std::size_t count) noexcept {
    active_at_ = connection_.reactor().now();
    received_bytes_ += count;
  }
  void sent(std::size_t count) noexcept {
    active_at_ = connection_.reactor().now();
    sent_bytes_ += count;
  }
  /// Input is expected or read again: a new window.
  void input_begins() noexcept;
  /// Output waits: a new window.
  void output_begins() noexcept;

 private:
  void expired() noexcept override;
  void look_at_lingering(Clock::time_point now) noexcept;
  void time_out() noexcept;
  bool is_missed(Clock::time_point now) const noexcept;
  bool is_input_due() const noexcept;
  bool is_output_due() const noexcept;
  bool is_output_missed(Clock::time_point now) const noexcept;
  bool is_taken_by_peer() const noexcept;
  std::size_t bytes_in_kernel() const noexcept;
  double needed_in_window(std::size_t bytes_per_second) const noexcept;
  void begin_windows(Clock::time_point now) noexcept;
  Clock::time_point next() const noexcept;
  void look_at(Clock::time_point when) noexcept;
  Clock::time_point now() noexcept { return connection_.reactor().now(); }
  const ConnectionOptions& options() const noexcept;

  Connection& connection_;
  Clock::time_point end_ = Clock::time_point::max();
  Clock::time_point armed_for_{};
  Clock::time_point opened_at_{};
  Clock::time_point active_at_{};
  Clock::time_point input_window_{};  // its beginning
  Clock::time_point output_window_{};
  std::size_t received_bytes_ = 0;  // in the window
  std::size_t sent_bytes_ = 0;
  std::size_t in_kernel_at_window_ = 0;  // at its beginning
  std::size_t in_kernel_at_end_set_ = 0;
};

}  // namespace anteroom
