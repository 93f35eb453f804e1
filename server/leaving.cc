// How an acceptor leaves without losing anybody.
#include <anteroom/reuseport_group.h>
#include <anteroom/socket.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <span>
#include <system_error>
#include <utility>

#include "door.h"

namespace anteroom {
namespace {

/// Timers count in nanoseconds, in which the longest times do not fit.
std::chrono::milliseconds at_most_a_year(std::chrono::milliseconds time) noexcept {
  return std::clamp<std::chrono::milliseconds>(time, std::chrono::milliseconds::zero(),
                                               std::chrono::hours(24 * 365));
}

}  // namespace

void check_drain_options(const DrainOptions& options) {
  const auto check = [](const char* how, auto number, auto min) {
    if (number < min) throw setup_error(std::make_error_code(std::errc::invalid_argument), "to drain", how);
  };
  check("with a negative deadline", options.deadline.count(), 0);
  check("with a negative time for handshakes", options.handshakes.count(), 0);
  check("with none of its group leaving", options.leaving, 1U);
}

void LeavingTogether::leave(std::size_t number, Fd socket, bool is_altered) noexcept {
  sockets_[number] = std::move(socket);
  if (is_altered) is_altered_ = true;
  if (--remaining_ > 0) return;
  if (is_altered_ && are_group_) return close_first_of_group(std::span(sockets_));
  if (is_altered_) {
    (void)unsteer_group(sockets_.front().get());
    (void)admit_syns(sockets_.front().get());
  }
  sockets_.clear();
}

void Acceptor::Door::close() noexcept {
  if (bell_ == nullptr) return;
  alarm_.cancel();
  stage_end_.cancel();
  if (is_others_too_ && listener_) listener_->keep_path();
  listener_.reset();  // its path goes first, or it might be our successor's
  Bell& bell = *std::exchange(bell_, nullptr);
  const bool is_ours = reactor_.is_of_this_process();  // else the parent drains
  const bool is_altered = is_ours && (steers_ || refuses_syns_);
  if (is_ours && together_ != nullptr) return together_->leave(number_, reactor_.release(bell), is_altered);
  if (is_altered) return close_altered(reactor_.release(bell));
  reactor_.unwatch(bell);  // others may hold the socket
  reactor_.retire(bell);
}

/// What a drain has attached goes before the descriptor: others may hold the socket.
void Acceptor::Door::close_altered(Fd listener) const noexcept {
  if (steers_ && drain_.leaving == 1) return close_first_of_group(std::span(&listener, 1));
  if (steers_) (void)unsteer_group(listener.get());
  (void)admit_syns(listener.get());
}

void Acceptor::Door::end() noexcept {
  close();
  deadline_.cancel();
  stage_ = Stage::kLeft;
  Connection::end_all(reactor_, *guests_);
  reactor_.retire(std::unique_ptr<Reapable>(this));
}

/// First new guests are sent elsewhere, if there is an elsewhere. Then SYNs are refused: who was steered
/// wrongly comes again in a second. When those who were on their way are in the queue, it is emptied, and the
/// door closed. A Unix socket's path goes at once, or there might be no end of those who come.
///
/// A socket that others have, too, is left to them as it is. A successor accepts what is in the queue; but
/// with EPOLLEXCLUSIVE the kernel may have woken this acceptor alone for it.
void Acceptor::Door::drain(DrainOptions options, std::function<void(std::size_t)> drained,
                           LeavingTogether* together, std::size_t number) noexcept {
  if (stage_ != Stage::kServing) return;
  guests_->tell_left();
  drain_ = std::move(options);
  drain_.handshakes = at_most_a_year(drain_.handshakes);
  drained_ = std::move(drained);
  together_ = bell_ != nullptr ? together : nullptr;
  number_ = number;
  deadline_.arm(at_most_a_year(drain_.deadline));
  is_others_too_ = drain_.handed_over.value_or(listener_ && listener_->is_shared());
  takes_in_nobody_ = drain_.handed_over.value_or(false) && !options_.exclusive;
  if (takes_in_nobody_)
    paused_ = true;
  else
    pause(false);
  if (is_others_too_ || family_ == AF_UNIX) {
    if (!is_others_too_) listener_.reset();
    stage_ = Stage::kLastCall;
    return stage_end_.arm({});
  }
  if (is_in_group(fd()) && steer_group(fd(), drain_.leaving, drain_.leaving)) {
    steers_ = true;
    stage_ = Stage::kSteered;
    return stage_end_.arm(drain_.handshakes);
  }
  begin_last_call();
}

void Acceptor::Door::begin_last_call() noexcept {
  stage_ = Stage::kLastCall;
  refuses_syns_ = refuse_syns(fd());
  stage_end_.arm(drain_.handshakes);
}

void Acceptor::Door::next_stage() noexcept {
  if (stage_ == Stage::kLeaving) return leave_if_alone();
  if (stage_ == Stage::kSteered) return begin_last_call();
  stage_ = Stage::kEmptying;
  if (takes_in_nobody_) return queue_is_empty();
  look();
}

void Acceptor::Door::queue_is_empty() noexcept {
  if (stage_ != Stage::kEmptying) return;
  stage_ = Stage::kLeaving;
  close();
  if (drain_.door_closed) drain_.door_closed();
  tell_draining();
  leave_if_alone();
}

void Acceptor::Door::tell_draining() noexcept {
  if (!std::exchange(told_draining_, true)) Connection::tell_draining(reactor_, *guests_);
}

/// The drain's deadline.
void Acceptor::Door::cut() noexcept {
  if (stage_ == Stage::kLeft) return drained_ ? drained_(cut_) : void();
  if (stage_ < Stage::kLeaving) {
    stage_ = Stage::kEmptying;
    queue_is_empty();
  }
  if (stage_ != Stage::kLeaving) return;
  cut_ = guests();
  Connection::close_all(reactor_, *guests_);
}

void Acceptor::Door::leave_if_alone() noexcept {
  if (stage_ != Stage::kLeaving || guests() > 0) return;
  stage_ = Stage::kLeft;
  deadline_.arm({});  // from a timer: whoever leaves last is still on the stack
}

void Acceptor::Door::left(Admission::Ticket ticket) noexcept {
  if (admits_) admission_.leave(ticket);
  // Not yet: he still counts, as do all others who end in this turn.
  if (stage_ == Stage::kLeaving) stage_end_.arm({});
}

void Acceptor::Door::dealt_one_left(Admission::Ticket ticket) noexcept {
  --dealt_;
  left(ticket);
}

}  // namespace anteroom
