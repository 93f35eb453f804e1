#include <anteroom/socket.h>
#include <anteroom/timer.h>

#include <algorithm>
#include <cassert>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "timer_wheel.h"

namespace anteroom {

/// What the wheel knows of a timer. The handler lives here, so it outlasts a Timer that is destroyed in its
/// own handler.
class Timer::Node final : public Reapable, public TimerEntry {
 public:
  Node(Reactor& reactor, std::function<void()> handler) : reactor_(reactor), handler_(std::move(handler)) {
    assert(is_thread_of(reactor));
    if (!handler_) throw argument_error("make", "a timer without a handler");
  }
  ~Node() override {
    assert(is_thread_of(reactor_));
    reactor_.timers().cancel(*this);
  }

  void arm_at(Clock::time_point when) noexcept {
    due_ = when;
    reactor_.timers().arm(*this, when);
  }
  void repeat_every(Clock::duration interval) noexcept { interval_ = interval; }
  void cancel() noexcept {
    interval_ = {};
    reactor_.timers().cancel(*this);
  }
  bool is_running() const noexcept { return running_; }
  Reactor& reactor() const noexcept { return reactor_; }

 private:
  void expired() noexcept override {
    if (interval_ > Clock::duration::zero()) {
      // From when it was due and not from its tick, which is later: that would add up.
      const auto missed = std::max<std::int64_t>((reactor_.now() - due_) / interval_, 0);
      arm_at(due_ + (missed + 1) * interval_);
    }
    running_ = true;
    handler_();
    running_ = false;
  }

  Reactor& reactor_;
  Clock::time_point due_{};
  Clock::duration interval_{};
  bool running_ = false;
  std::function<void()> handler_;
};

Timer::Timer() noexcept = default;
Timer::Timer(Reactor& reactor, std::function<void()> handler)
    : node_(std::make_unique<Node>(reactor, std::move(handler))) {}
Timer::Timer(std::unique_ptr<Node> node) noexcept : node_(std::move(node)) {}
Timer::Timer(Timer&&) noexcept = default;

Timer& Timer::operator=(Timer&& other) noexcept {
  if (this == &other) return *this;
  const Timer ended(std::exchange(node_, std::move(other.node_)));
  return *this;
}

Timer::~Timer() {
  if (!node_ || !node_->is_running()) return;
  node_->cancel();
  Reactor& reactor = node_->reactor();
  reactor.retire(std::unique_ptr<Reapable>(std::move(node_)));
}

/// Not only where assertions are on: the program would go on with a write through a null pointer.
Timer::Node& Timer::node_to_arm() const noexcept {
  if (node_) {
    assert(is_thread_of(node_->reactor()));
    return *node_;
  }
  std::fputs("anteroom: a timer without a reactor cannot be armed\n", stderr);
  std::abort();
}

void Timer::arm(Clock::duration delay) noexcept {
  if (delay <= Clock::duration::zero()) return arm_at(Clock::time_point::min());
  const Clock::time_point now = Clock::now();
  arm_at(delay < Clock::time_point::max() - now ? now + delay : Clock::time_point::max());
}

void Timer::arm_at(Clock::time_point when) noexcept {
  Node& node = node_to_arm();
  node.repeat_every({});
  node.arm_at(when);
}

void Timer::arm_every(Clock::duration interval) noexcept {
  assert(interval >= Clock::duration::zero() && "a negative interval");
  interval = std::max<Clock::duration>(interval, std::chrono::milliseconds(1));
  arm(interval);
  node_->repeat_every(interval);
}

void Timer::cancel() noexcept {
  assert(!node_ || is_thread_of(node_->reactor()));
  if (node_) node_->cancel();
}

bool Timer::is_armed() const noexcept {
  assert(!node_ || is_thread_of(node_->reactor()));
  return node_ && node_->is_linked();
}

}  // namespace anteroom
