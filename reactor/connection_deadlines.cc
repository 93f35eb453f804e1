#include "connection_deadlines.h"

#include <anteroom/socket.h>
#include <linux/sock_diag.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <limits>

namespace anteroom {
namespace {

constexpr std::chrono::milliseconds kMercy{1};
constexpr int kLooks = 4;  // while it lingers for one that takes nothing

bool has_input(int fd) noexcept {
  char byte;
  return ::recv(fd, &byte, 1, MSG_PEEK) > 0;
}

}  // namespace

const ConnectionOptions& Connection::Deadlines::options() const noexcept {
  return connection_.kind_->options;
}

void Connection::Deadlines::end_after(Clock::duration delay) noexcept {
  const Clock::time_point now = Clock::now();  // not the turn's: handlers before us may have taken long
  end_ = delay < Clock::time_point::max() - now ? now + delay : Clock::time_point::max();
  if (connection_.state_ == State::kClosing) in_kernel_at_end_set_ = bytes_in_kernel();
  connection_.reactor().timers().arm(*this, armed_for_ = next());
}

void Connection::Deadlines::linger() noexcept {
  const Clock::time_point now = Clock::now();  // see end_after()
  end_ = now + options().linger;
  output_window_ = now;
  in_kernel_at_window_ = std::numeric_limits<std::size_t>::max();
  // Most have ended by the first look, so what the kernel holds is not asked before. One that was sent little
  // is looked at in the end only.
  const bool may_hold_much = connection_.sent_bytes_ > kSmallAnswer;
  connection_.reactor().timers().arm(*this,
                                     armed_for_ = may_hold_much ? now + options().linger / kLooks : end_);
}

/// Closed now, the kernel would go on to offer the peer what it does not take, as an orphan, for minutes:
/// tcp(7), tcp_orphan_retries. What it takes slowly it shall get.
void Connection::Deadlines::look_at_lingering(Clock::time_point now) noexcept {
  const std::size_t left = connection_.unacknowledged();
  if (left == 0) {
    if (now >= end_) return connection_.end(0);  // it has been served
    return connection_.reactor().timers().arm(*this, armed_for_ = end_);
  }
  const double gone = static_cast<double>(in_kernel_at_window_) - static_cast<double>(left);
  const double seconds = std::chrono::duration<double>(now - output_window_).count();
  if (gone >= std::max(1.0, static_cast<double>(options().send_bytes_per_second_min) * seconds)) {
    in_kernel_at_window_ = left;
    output_window_ = now;
    end_ = now + options().linger;
  }
  if (now >= end_) return time_out();
  connection_.reactor().timers().arm(*this, armed_for_ = std::min(end_, now + options().linger / kLooks));
}

/// Only a reset frees what the kernel holds. A peer that has all of it sees an end in order.
void Connection::Deadlines::time_out() noexcept {
  ++connection_.reactor().counts().timed_out;
  if (connection_.unacknowledged() > 0) reset_on_close(connection_.fd());
  connection_.end(ETIMEDOUT);
}

void Connection::Deadlines::opened() noexcept {
  end_ = Clock::time_point::max();
  opened_at_ = active_at_ = input_window_ = output_window_ = Clock::now();  // see end_after()
  connection_.reactor().timers().arm(*this, armed_for_ = next());
}

void Connection::Deadlines::input_begins() noexcept {
  received_bytes_ = 0;
  input_window_ = Clock::now();
  if (is_input_due()) look_at(input_window_ + options().rate_window);
}

void Connection::Deadlines::output_begins() noexcept {
  sent_bytes_ = 0;
  output_window_ = Clock::now();
  if (options().send_bytes_per_second_min == 0) return;
  in_kernel_at_window_ = bytes_in_kernel();
  look_at(output_window_ + options().rate_window);
}

void Connection::Deadlines::expired() noexcept {
  const Clock::time_point now = this->now();
  if (connection_.state_ == State::kLingering) return look_at_lingering(now);
  // Its first byte lies there, though we do not read.
  if (connection_.state_ == State::kOpen && !connection_.has_heard_)
    connection_.has_heard_ = has_input(connection_.fd());
  if (now >= end_ && is_taken_by_peer()) end_after(options().linger);
  if (is_missed(now)) {
    // It has spoken, and it is we who are late.
    if (!is_output_missed(now) && connection_.may_read() && has_input(connection_.fd()))
      return connection_.reactor().timers().arm(*this, armed_for_ = now + kMercy);
    return time_out();
  }
  begin_windows(now);
  connection_.reactor().timers().arm(*this, armed_for_ = next());
}

bool Connection::Deadlines::is_missed(Clock::time_point now) const noexcept {
  if (now >= end_) return true;
  if (is_output_missed(now)) return true;
  if (connection_.state_ != State::kOpen) return false;
  const ConnectionOptions& limits = options();
  const bool waits_for_first = !connection_.has_heard_ && !connection_.peer_has_ended_;
  if (limits.first_byte_deadline.count() > 0 && waits_for_first &&
      now >= opened_at_ + limits.first_byte_deadline)
    return true;
  if (limits.idle_deadline.count() > 0 && now >= active_at_ + limits.idle_deadline) return true;
  if (is_input_due() && now >= input_window_ + limits.rate_window &&
      static_cast<double>(received_bytes_) < needed_in_window(limits.receive_bytes_per_second_min))
    return true;
  return false;
}

double Connection::Deadlines::needed_in_window(std::size_t bytes_per_second) const noexcept {
  return static_cast<double>(bytes_per_second) * std::chrono::duration<double>(options().rate_window).count();
}

/// Also of a connection that we have closed: a reader that takes a byte now and then must not hold it.
/// What the peer has taken from the kernel counts, too.
bool Connection::Deadlines::is_output_missed(Clock::time_point now) const noexcept {
  if (!is_output_due() || now < output_window_ + options().rate_window) return false;
  const double needed = needed_in_window(options().send_bytes_per_second_min);
  if (static_cast<double>(sent_bytes_) >= needed) return false;
  const std::size_t before = in_kernel_at_window_;
  const std::size_t gone = before - std::min(before, bytes_in_kernel());
  return static_cast<double>(sent_bytes_ + gone) < needed;
}

/// Of a connection that closes, since its end was set.
bool Connection::Deadlines::is_taken_by_peer() const noexcept {
  return connection_.state_ == State::kClosing && bytes_in_kernel() < in_kernel_at_end_set_;
}

/// What the kernel holds of ours until the peer has it: of TCP the one, of a Unix socket the other. Of room
/// it tells only when a third of the send buffer is free (sk_stream_is_writeable() in its include/net/sock.h;
/// of a Unix socket's three quarters), 1.3 of the 4 MB that tcp_wmem allows. Until then it takes nothing of
/// us, as steadily as the peer may take it.
std::size_t Connection::Deadlines::bytes_in_kernel() const noexcept {
  std::uint32_t memory[SK_MEMINFO_VARS] = {};
  socklen_t size = sizeof(memory);
  if (::getsockopt(connection_.fd(), SOL_SOCKET, SO_MEMINFO, memory, &size) != 0) return 0;
  return std::max(memory[SK_MEMINFO_WMEM_QUEUED], memory[SK_MEMINFO_WMEM_ALLOC]);
}

/// Who cannot send, or whom we do not read, is not slow.
bool Connection::Deadlines::is_input_due() const noexcept {
  return options().receive_bytes_per_second_min > 0 && connection_.input_expected_ && connection_.may_read();
}

bool Connection::Deadlines::is_output_due() const noexcept {
  return options().send_bytes_per_second_min > 0 && connection_.output_ != nullptr;
}

void Connection::Deadlines::begin_windows(Clock::time_point now) noexcept {
  if (now >= input_window_ + options().rate_window) {
    input_window_ = now;
    received_bytes_ = 0;
  }
  if (now >= output_window_ + options().rate_window) {
    output_window_ = now;
    sent_bytes_ = 0;
    if (is_output_due()) in_kernel_at_window_ = bytes_in_kernel();
  }
}

Connection::Deadlines::Clock::time_point Connection::Deadlines::next() const noexcept {
  Clock::time_point next = end_;
  if (is_output_due()) next = std::min(next, output_window_ + options().rate_window);
  if (connection_.state_ != State::kOpen) return next;
  const ConnectionOptions& limits = options();
  if (limits.first_byte_deadline.count() > 0 && !connection_.has_heard_ && !connection_.peer_has_ended_)
    next = std::min(next, opened_at_ + limits.first_byte_deadline);
  if (limits.idle_deadline.count() > 0) next = std::min(next, active_at_ + limits.idle_deadline);
  if (limits.receive_bytes_per_second_min > 0) next = std::min(next, input_window_ + limits.rate_window);
  return next;
}

void Connection::Deadlines::look_at(Clock::time_point when) noexcept {
  if (is_linked() && armed_for_ <= when) return;
  connection_.reactor().timers().arm(*this, armed_for_ = when);
}

}  // namespace anteroom
