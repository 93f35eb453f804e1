#include <anteroom/reactor.h>
#include <anteroom/socket.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <limits>
#include <memory>
#include <mutex>
#include <utility>

#include "timer_wheel.h"

namespace anteroom {
namespace {

// Who does not fit is first in line next time: the kernel rotates its ready list.
constexpr int kEventsPerTurn = 512;
constexpr std::uint64_t kWakeCookie = 0;  // finds nobody: a wake-up is only there to end the wait

constexpr std::uint8_t kBothMarks = 3;
constexpr std::uint64_t kTimeOneTurnIn = 64;  // a power of two

#ifndef NDEBUG
thread_local const char thread_mark = 0;  // its address names the thread
#endif

}  // namespace

// ---- Threads ----

bool is_thread_of([[maybe_unused]] const Reactor& reactor) noexcept {
#ifndef NDEBUG
  const void* const thread = reactor.thread_.load(std::memory_order_relaxed);
  return thread == nullptr || thread == &thread_mark;
#else
  return true;
#endif
}

/// As long as one lives, the reactor is this thread's.
class Reactor::InThread {
 public:
#ifndef NDEBUG
  explicit InThread(Reactor& reactor) noexcept
      : reactor_(reactor), before_(reactor.thread_.exchange(&thread_mark, std::memory_order_relaxed)) {
    assert((before_ == nullptr || before_ == &thread_mark) && "one thread turns a reactor");
  }
  ~InThread() { reactor_.thread_.store(before_, std::memory_order_relaxed); }

 private:
  Reactor& reactor_;
  const void* const before_;
#else
  explicit InThread(Reactor& /*reactor*/) noexcept {}
#endif
};

/// The reactors of this process. fork(2) copies their descriptors, which name the parent's epoll: a child
/// that used them would change what the parent waits for. Never destroyed: a fork may come later than static
/// destructors.
struct Reactor::Living {
  static Living& all() {
    static Living& living = *new Living;
    return living;
  }

  Living() noexcept {
    // Without memory for it (ENOMEM) a forked child is only told by what it finds out itself.
    (void)::pthread_atfork([] { all().mutex.lock(); }, [] { all().mutex.unlock(); },
                           [] {
                             for (Reactor* reactor = all().first; reactor != nullptr;
                                  reactor = reactor->next_living_)
                               reactor->leave_to_parent();
                             all().mutex.unlock();
                           });
  }

  void add(Reactor& reactor) noexcept {
    const std::lock_guard lock(mutex);
    reactor.next_living_ = first;
    if (first != nullptr) first->previous_living_ = &reactor;
    first = &reactor;
  }

  void remove(Reactor& reactor) noexcept {
    const std::lock_guard lock(mutex);
    Reactor* const next = reactor.next_living_;
    (reactor.previous_living_ == nullptr ? first : reactor.previous_living_->next_living_) = next;
    if (next != nullptr) next->previous_living_ = reactor.previous_living_;
  }

  std::mutex mutex;
  Reactor* first = nullptr;
};

Reactor::Reactor()
    : now_(Clock::now()),
      timers_(std::make_unique<TimerWheel>(now_)),
      scratch_(std::make_unique_for_overwrite<char[]>(kScratchBytes)) {
  open_epoll();
  Living::all().add(*this);
}

Reactor::~Reactor() {
  assert(is_thread_of(*this));
  assert(!turning_ && "a reactor must not be destroyed in a handler");
  // Channels and tasks may hold timers and other things that retire themselves here, so they go while all is
  // in place.
  for (std::unique_ptr<Channel>& channel : channels_) channel.reset();
  posted_.clear();
  running_.clear();
  while (retired_.first != nullptr) free_all(std::exchange(retired_, {}));
  while (void* const spare = take_spare()) ::operator delete(spare);
  Living::all().remove(*this);
}

void Reactor::open_epoll() {
  Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) throw setup_error(last_error(), "epoll_create1", "for a reactor");
  Fd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake) throw setup_error(last_error(), "eventfd", "for a reactor");
  epoll_event event{.events = EPOLLIN | EPOLLET, .data = {.u64 = kWakeCookie}};
  if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, wake.get(), &event) != 0) {
    throw setup_error(last_error(), "epoll_ctl", "for a reactor's eventfd");
  }
  epoll_ = std::move(epoll);
  wake_ = std::move(wake);
}

// ---- fork(2) ----

/// In the child, before fork(2) returns: without the epoll descriptor nothing that happens here reaches the
/// parent's, and the next wait fails. What is left of a turn that forked is left to the parent. Only
/// close(2) and stores: this reactor's thread, which the child does not have, may have been in the middle of
/// anything.
void Reactor::leave_to_parent() noexcept {
  if (!is_thread_of(*this)) thread_.store(nullptr, std::memory_order_relaxed);
  epoll_.reset();
  wake_.reset();
  events_ready_ = 0;
  timers_->stop_firing();
}

void Reactor::continue_after_fork() {
  assert(is_thread_of(*this));
  if (is_of_this_process()) return;
  open_epoll();
  std::construct_at(&posted_mutex_);  // another thread may have held it when we were forked
  for (const std::unique_ptr<Channel>& channel : channels_) {
    if (!channel || channel->watched_ == Channel::Watch::kNone) continue;
    const Channel::Watch watched = std::exchange(channel->watched_, Channel::Watch::kNone);
    if (const std::error_code error = add_to_epoll(*channel, watched)) {
      channel->watched_ = watched;
      leave_to_parent();
      throw setup_error(error, "epoll_ctl", "after fork");
    }
  }
  for_each_channel([](Channel& channel) { channel.continued_after_fork(); });
}

inline int Reactor::wait(epoll_event* events, Clock::duration wait_max) {
  if (wait_max > Clock::duration::zero()) {
    asleep_.store(true);
    if (has_posted_.load()) wait_max = Clock::duration::zero();
  }
  const bool is_endless = wait_max == Clock::duration::max() && timers_->is_empty();
  const int ready =
      is_endless ? ::epoll_wait(epoll_.get(), events, kEventsPerTurn, -1) : wait_for(events, wait_max);
  asleep_.store(false, std::memory_order_relaxed);
  if (ready >= 0) return ready;
  return wait_failed(events);
}

/// The wait has ended with an error. After a signal, whose handler may have made an event of it (Signals),
/// there is one more look that does not wait.
int Reactor::wait_failed(epoll_event* events) {
  const std::error_code error = last_error();
  if (!is_of_this_process())
    throw setup_error(std::make_error_code(std::errc::operation_not_permitted), "turn",
                      "of a reactor that the parent process made: see Reactor::continue_after_fork()");
  if (error != std::errc::interrupted) throw setup_error(error, "epoll_wait", "of a reactor");
  return std::max(::epoll_wait(epoll_.get(), events, kEventsPerTurn, 0), 0);
}

void Reactor::turn(std::optional<Clock::duration> wait_max) {
  assert(is_thread_of(*this));
  assert((!wait_max || *wait_max >= Clock::duration::zero()) && "turn() with a negative wait");
  turn_once(wait_max.value_or(Clock::duration::max()));
}

void Reactor::turn_once(Clock::duration wait_max) {
  [[maybe_unused]] const InThread in_thread(*this);
  assert(!turning_ && "no turn inside a handler");
  epoll_event events[kEventsPerTurn];
  const bool must_wait =
      again_.empty() && retired_.first == nullptr && !has_posted_.load(std::memory_order_relaxed);
  events_ready_ = wait(events, must_wait ? wait_max : Clock::duration::zero());
  turning_ = true;
  now_is_known_ = false;
  const bool is_timed = metrics_.turns++ % kTimeOneTurnIn == 0;
  if (is_timed) now();
  metrics_.events += static_cast<std::uint64_t>(events_ready_);
  // Who stopped for a budget goes on in this turn; who stops in this turn, in the next. Not before the wait,
  // which may throw.
  if (!again_.empty()) again_now_.swap(again_);
  again_mark_ ^= kBothMarks;
  room_taken_ = metrics_.channels;
  for (int i = 0; i < events_ready_; ++i) {
    Channel* const channel = find_channel(ChannelId{events[i].data.u64});
    if (channel != nullptr) channel->on_ready(events[i].events);
  }
  if (!timers_->is_empty() && is_of_this_process()) metrics_.timers += timers_->fire(now());
  if (has_posted_.load(std::memory_order_acquire)) run_posted();
  if (!again_now_.empty()) run_again();
  if (retired_.first != nullptr) reap();
  turning_ = false;
  if (is_timed) {
    const auto took = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - now_);
    metrics_.turn_us.record(static_cast<std::uint64_t>(took.count()));
  }
}

/// At most until the next timer. epoll_pwait2 when there is a time to keep, for its nanoseconds; kernels
/// before 5.11 have only milliseconds, rounded up.
int Reactor::wait_for(epoll_event* events, Clock::duration wait_max) {
  if (const auto next = timers_->next(); next && wait_max > Clock::duration::zero())
    wait_max = std::min(wait_max, *next - Clock::now());
  if (wait_max <= Clock::duration::zero()) return ::epoll_wait(epoll_.get(), events, kEventsPerTurn, 0);
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(wait_max);
  const timespec timeout{.tv_sec = seconds.count(), .tv_nsec = (wait_max - seconds).count()};
  const int ready = ::epoll_pwait2(epoll_.get(), events, kEventsPerTurn, &timeout, nullptr);
  // EPERM: a sandbox whose filter of system calls is older than this one.
  if (ready >= 0 || (errno != ENOSYS && errno != EPERM)) return ready;
  const auto milliseconds = std::chrono::ceil<std::chrono::milliseconds>(wait_max).count();
  const auto longest = static_cast<std::int64_t>(std::numeric_limits<int>::max());
  return ::epoll_wait(epoll_.get(), events, kEventsPerTurn,
                      static_cast<int>(std::min(milliseconds, longest)));
}

void Reactor::run() {
  assert(is_thread_of(*this));
  [[maybe_unused]] const InThread in_thread(*this);
  do {
    const bool stop_waits = stopping_.load(std::memory_order_acquire);
    turn_once(stop_waits ? Clock::duration::zero() : Clock::duration::max());
  } while (!stopping_.load(std::memory_order_acquire) ||
           !stopping_.exchange(false, std::memory_order_acq_rel));
}

void Reactor::stop() noexcept {
  stopping_.store(true, std::memory_order_release);
  wake();
}

void Reactor::post(Task task) {
  if (!task) throw argument_error("post", "an empty task to a reactor");
  {
    const std::lock_guard lock(posted_mutex_);
    posted_.push_back(std::move(task));
    if (has_posted_.exchange(true)) return;  // who came first has woken the reactor
  }
  // Either the reactor sees has_posted_ before it waits, or we see that it is about to: all four accesses are
  // sequentially consistent.
  if (asleep_.load()) wake();
}

/// Edge-triggered, each write is an event of its own, so nobody ever reads the eventfd. Its counter is full
/// after 2^64 wake-ups, and even then EAGAIN only says that an event is under way.
void Reactor::wake() noexcept {
  const std::uint64_t one = 1;
  while (::write(wake_.get(), &one, sizeof(one)) < 0 && errno == EINTR) {
  }
}

void Reactor::run_posted() {
  {
    const std::lock_guard lock(posted_mutex_);
    running_.swap(posted_);
    has_posted_.store(false, std::memory_order_release);
  }
  metrics_.tasks += running_.size();
  for (Task& task : running_) {
    if (is_of_this_process()) [&]() noexcept { task(); }();
  }
  running_.clear();
}

void Reactor::run_again() noexcept {
  // By index: whoever is taken in meanwhile may make adopt() move the list.
  for (std::size_t i = 0; i < again_now_.size() && is_of_this_process(); ++i) {
    Channel* const channel = find_channel(again_now_[i]);
    // Who has asked anew since, in this turn, has had its share and waits for the next.
    if (channel == nullptr || channel->again_ != again_mark_) continue;
    channel->again_ = 0;
    channel->on_ready(0);
  }
  again_now_.clear();
}

/// `closed` handlers run in here, and may retire others, who then wait for the next turn's end: a handler
/// that connects again and fails at once must not hold the loop.
void Reactor::reap() noexcept {
  const Retired reaping = std::exchange(retired_, {});
  for (Reapable* object = reaping.first; object != nullptr && is_of_this_process(); object = object->next_)
    object->reaped();
  free_all(reaping);
}

void Reactor::free_all(Retired retired) noexcept {
  while (retired.first != nullptr) std::exchange(retired.first, retired.first->next_)->free();
}

/// Each channel may once be on each list, so that telling the reactor something can never fail. Lists live
/// for a turn, and keep the ids of those who were retired in it.
void Reactor::make_room_for(const Channel& channel) {
  assert(is_thread_of(*this));
  assert(channel.id_ == ChannelId::kNone && "adopt() of a channel that a reactor has already");
  const auto fd = static_cast<std::size_t>(channel.fd());
  if (room_taken_ >= room_ || fd >= channels_.size()) make_more_room(fd);
}

void Reactor::make_more_room(std::size_t fd) {
  // No descriptor is beyond every table.
  if (static_cast<int>(fd) < 0) throw argument_error("adopt", "a channel without a descriptor");
  if (room_taken_ >= room_) {
    const std::size_t room = 2 * (room_taken_ + 1);
    for (std::vector<ChannelId>* list : {&again_, &again_now_, &want_descriptor_}) list->reserve(room);
    room_ = room;
  }
  // By half: what is not used yet is set to null, and so is memory that is paid for.
  if (fd >= channels_.size()) channels_.resize(std::max(fd + 1, channels_.size() + channels_.size() / 2));
}

void Reactor::take_in(Channel* channel) noexcept {
  const auto fd = static_cast<std::size_t>(channel->fd());
  assert(channels_[fd] == nullptr);
  if (++generation_ == 0) ++generation_;
  channel->id_ = ChannelId{static_cast<std::uint64_t>(generation_) << 32 | fd};
  channels_[fd].reset(channel);
  ++metrics_.channels;
  ++room_taken_;
}

std::error_code Reactor::watch(Channel& channel) noexcept {
  return add_to_epoll(channel, Channel::Watch::kAll);
}

std::error_code Reactor::watch_exclusive(Channel& channel) noexcept {
  return add_to_epoll(channel, Channel::Watch::kExclusive);
}

std::error_code Reactor::add_to_epoll(Channel& channel, Channel::Watch watch) noexcept {
  assert(is_thread_of(*this));
  assert(channel.id_ != ChannelId::kNone && "watch() of a channel that was not adopted");
  assert(!channel.is_watched() && !channel.retired_);
  constexpr std::uint32_t kAll = EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  const std::uint32_t events =
      watch == Channel::Watch::kAll ? kAll : std::uint32_t{EPOLLIN | EPOLLET | EPOLLEXCLUSIVE};
  epoll_event event{.events = events, .data = {.u64 = static_cast<std::uint64_t>(channel.id_)}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, channel.fd(), &event) != 0) return last_error();
  channel.watched_ = watch;
  return {};
}

void Reactor::unwatch(Channel& channel) noexcept {
  assert(is_thread_of(*this));
  if (!channel.is_watched() || channel.retired_) return;
  (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, channel.fd(), nullptr);
  channel.watched_ = Channel::Watch::kNone;
}

void Reactor::again(Channel& channel) noexcept {
  assert(is_thread_of(*this));
  assert(channel.id_ != ChannelId::kNone && "again() of a channel that was not adopted");
  const std::uint8_t next_mark = again_mark_ ^ kBothMarks;
  if (channel.again_ == next_mark || channel.retired_) return;
  channel.again_ = next_mark;
  again_.push_back(channel.id_);
}

inline void Reactor::free_later(Reapable* object) noexcept {
  assert(is_thread_of(*this));
  (retired_.first == nullptr ? retired_.first : retired_.last->next_) = object;
  retired_.last = object;
}

void Reactor::retire(Channel& channel) noexcept {
  assert(is_thread_of(*this));
  if (channel.retired_) return;
  assert(find_channel(channel.id_) == &channel && "retire() of a channel that this reactor does not have");
  assert(channel.next_ == nullptr && "retire() of a connection, which ends with close() or abort()");
  channel.retired_ = true;
  free_later(channels_[static_cast<std::size_t>(channel.fd())].release());
  --metrics_.channels;
  // epoll forgets it with its last descriptor; for a duplicate's events the id finds nobody.
  channel.fd_.reset();
  if (!want_descriptor_.empty()) call_waiting_for_descriptor();
}

/// By itself, or each channel that is retired would pay for it.
[[gnu::noinline]] void Reactor::call_waiting_for_descriptor() noexcept {
  for (const ChannelId id : want_descriptor_) {
    if (Channel* const waiting = find_channel(id)) again(*waiting);
  }
  want_descriptor_.clear();
}

void Reactor::retire(std::unique_ptr<Reapable> object) noexcept {
  if (object) free_later(object.release());  // as with delete, null is none
}

Fd Reactor::release(Channel& channel) noexcept {
  assert(!channel.retired_);
  unwatch(channel);
  channel.retired_ = true;
  free_later(channels_[static_cast<std::size_t>(channel.fd())].release());
  --metrics_.channels;
  return std::move(channel.fd_);
}

void Reactor::again_when_a_descriptor_closes(Channel& channel) {
  assert(is_thread_of(*this));
  assert(channel.id_ != ChannelId::kNone && "a channel that was not adopted");
  if (std::ranges::find(want_descriptor_, channel.id_) == want_descriptor_.end())
    want_descriptor_.push_back(channel.id_);
}

void Reactor::for_each_channel(const std::function<void(Channel&)>& visit) {
  assert(is_thread_of(*this));
  if (!visit) throw argument_error("visit", "the channels of a reactor with an empty function");
  for (std::size_t fd = 0; fd < channels_.size(); ++fd) {
    if (channels_[fd]) visit(*channels_[fd]);
  }
}

}  // namespace anteroom
