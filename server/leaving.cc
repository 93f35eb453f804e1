// How an acceptor leaves without losing anybody.
#include <anteroom/reuseport_group.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <memory>
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

void Acceptor::Door::close() noexcept {
  if (bell_ == nullptr) return;
  alarm_.cancel();
  stage_end_.cancel();
  if (steers_ && reactor_.is_of_this_process()) (void)unsteer_group(fd());
  if (drain_.handed_over && listener_) listener_->keep_path();
  listener_.reset();         // its path goes first, or it might be our successor's
  reactor_.unwatch(*bell_);  // others may hold the socket
  reactor_.retire(*bell_);
  bell_ = nullptr;
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
/// A successor takes in who waits; but of the guests of a shared listener the kernel may have told us alone.
void Acceptor::Door::drain(const DrainOptions& options, std::function<void(std::size_t)> drained) {
  if (stage_ != Stage::kServing) return;
  guests_->tell_left();
  stage_end_ = Timer(reactor_, [this] { next_stage(); });
  deadline_ = Timer(reactor_, [this] { cut(); });
  drain_ = options;
  drain_.handshakes = at_most_a_year(options.handshakes);
  drained_ = std::move(drained);
  deadline_.arm(at_most_a_year(options.deadline));
  takes_in_nobody_ = options.handed_over && !options_.exclusive;
  if (takes_in_nobody_)
    paused_ = true;
  else
    pause(false);
  if (options.handed_over || family_ == AF_UNIX) {
    if (!options.handed_over) listener_.reset();
    stage_ = Stage::kLastCall;
    return stage_end_.arm({});
  }
  if (is_in_group(fd()) && steer_group(fd(), options.leaving, options.leaving)) {
    steers_ = options.leaving == 1;
    stage_ = Stage::kSteered;
    return stage_end_.arm(drain_.handshakes);
  }
  (void)refuse_syns(fd());
  stage_ = Stage::kLastCall;
  stage_end_.arm(drain_.handshakes);
}

void Acceptor::Door::next_stage() noexcept {
  if (stage_ == Stage::kLeaving) return leave_if_alone();
  if (stage_ == Stage::kSteered) {
    stage_ = Stage::kLastCall;
    (void)refuse_syns(fd());
    return stage_end_.arm(drain_.handshakes);
  }
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
