#include <anteroom/signals.h>
#include <anteroom/socket.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string_view>
#include <utility>
#include <vector>

namespace anteroom {
namespace {

// What the handler needs. It may run in any thread, between any two instructions, so these are never freed,
// and the descriptor is never closed: its number cannot become somebody else's while a handler writes to it.
std::array<std::atomic<std::uint32_t>, NSIG> arrivals;  // of each signal
std::atomic<int> wake_descriptor{-1};
std::atomic<pid_t> owner{0};                          // the process that has the reactors
std::array<struct sigaction, NSIG> actions_before{};  // written before the handler is installed
static_assert(std::atomic<std::uint32_t>::is_always_lock_free && std::atomic<int>::is_always_lock_free);

/// Every Signals watches a duplicate of the eventfd. Edge-triggered, each write is an event for each of them,
/// and nobody reads it. After 2^64 writes it says EAGAIN, and then an event is under way already.
///
/// A forked child, in which nobody would report the signal, may be sent one before fork(2) has returned
/// there: it gets what it would have got without us, when this handler returns.
extern "C" void note_arrival(int signal) {
  const int error = errno;
  if (::getpid() != owner.load()) {
    (void)::sigaction(signal, &actions_before[static_cast<std::size_t>(signal)], nullptr);
    (void)::raise(signal);
    errno = error;
    return;
  }
  arrivals[static_cast<std::size_t>(signal)].fetch_add(1);
  const std::uint64_t one = 1;
  while (::write(wake_descriptor.load(), &one, sizeof(one)) < 0 && errno == EINTR) {
  }
  errno = error;
}

std::system_error bad_signals(std::string_view what) {
  return setup_error(std::make_error_code(std::errc::invalid_argument), "signals:", what);
}

/// The signals of the process that are caught for some Signals.
class CaughtSignals {
 public:
  static CaughtSignals& all() {
    static CaughtSignals& caught = *new CaughtSignals;  // a fork may come later than static destructors
    return caught;
  }

  /// A descriptor to watch.
  Fd open_descriptor() {
    const std::lock_guard lock(mutex_);
    if (wake_descriptor.load() < 0) {
      Fd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
      if (!wake) throw setup_error(last_error(), "eventfd", "for signals");
      wake_descriptor.store(wake.release());
    }
    Fd copy(::fcntl(wake_descriptor.load(), F_DUPFD_CLOEXEC, 0));
    if (!copy) throw setup_error(last_error(), "F_DUPFD_CLOEXEC", "for signals");
    return copy;
  }

  std::error_code add(int signal) noexcept {
    const std::lock_guard lock(mutex_);
    Caught& caught = caught_[static_cast<std::size_t>(signal)];
    if (const std::error_code error = install(signal, caught)) return error;
    ++caught.users;
    return {};
  }

  /// For a reactor that goes on in a forked child.
  void add_again(int signal) noexcept {
    const std::lock_guard lock(mutex_);
    (void)install(signal, caught_[static_cast<std::size_t>(signal)]);  // it could be caught before
  }

  /// Whether it was the last one for that signal.
  bool remove(int signal) noexcept {
    const std::lock_guard lock(mutex_);
    Caught& caught = caught_[static_cast<std::size_t>(signal)];
    if (--caught.users > 0) return false;
    uninstall(signal, caught);
    return true;
  }

 private:
  struct Caught {
    int users = 0;
    bool is_installed = false;
    bool was_blocked = false;
  };

  CaughtSignals() noexcept {
    (void)::pthread_atfork([] { all().mutex_.lock(); }, [] { all().mutex_.unlock(); },
                           [] {
                             all().leave_to_parent();
                             all().mutex_.unlock();
                           });
  }

  static std::error_code install(int signal, Caught& caught) noexcept {
    if (caught.is_installed) return {};
    struct sigaction action {};
    action.sa_handler = note_arrival;
    action.sa_flags = SA_RESTART | SA_ONSTACK;
    ::sigemptyset(&action.sa_mask);
    struct sigaction& before = actions_before[static_cast<std::size_t>(signal)];
    if (::sigaction(signal, nullptr, &before) != 0) return last_error();
    owner.store(::getpid());
    if (::sigaction(signal, &action, nullptr) != 0) return last_error();
    caught.is_installed = true;
    caught.was_blocked = change_mask(SIG_UNBLOCK, signal);
    return {};
  }

  static void uninstall(int signal, Caught& caught) noexcept {
    if (!std::exchange(caught.is_installed, false)) return;
    struct sigaction now {};
    // Somebody who has set another action since then keeps it.
    if (::sigaction(signal, nullptr, &now) == 0 && now.sa_handler == note_arrival)
      (void)::sigaction(signal, &actions_before[static_cast<std::size_t>(signal)], nullptr);
    if (caught.was_blocked) change_mask(SIG_BLOCK, signal);
  }

  /// Nothing in the child would read what the handler notes, and it would be deaf to SIGTERM.
  void leave_to_parent() noexcept {
    for (std::size_t signal = 1; signal < caught_.size(); ++signal)
      uninstall(static_cast<int>(signal), caught_[signal]);
  }

  /// Whether the thread had blocked it.
  static bool change_mask(int how, int signal) noexcept {
    sigset_t mask;
    sigset_t before;
    ::sigemptyset(&mask);
    ::sigaddset(&mask, signal);
    ::pthread_sigmask(how, &mask, &before);
    return ::sigismember(&before, signal) == 1;
  }

  std::mutex mutex_;
  std::array<Caught, NSIG> caught_{};
};

/// What sigaction(2) would take, and what it would not.
std::vector<int> checked(std::initializer_list<int> signals) {
  constexpr std::array kFaults{SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
  std::vector<int> sorted(signals);
  std::ranges::sort(sorted);
  if (sorted.empty()) throw bad_signals("none is named");
  if (const auto twice = std::ranges::adjacent_find(sorted); twice != sorted.end())
    throw bad_signals(fmt::format("{} is named twice", *twice));
  for (const int signal : sorted) {
    if (signal < 1 || signal >= NSIG) throw bad_signals(fmt::format("there is no signal {}", signal));
    if (signal == SIGKILL || signal == SIGSTOP)
      throw bad_signals(fmt::format("signal {} cannot be caught", signal));
    if (std::ranges::find(kFaults, signal) != kFaults.end())
      throw bad_signals(
          fmt::format("signal {} is raised by a fault, and again when its handler returns", signal));
  }
  return sorted;
}

}  // namespace

class Signals::SignalChannel final : public Channel {
 public:
  SignalChannel(Reactor& reactor, std::vector<int> signals, std::function<void(int)> handler)
      : Channel(reactor, CaughtSignals::all().open_descriptor()), handler_(std::move(handler)) {
    for (const int signal : signals) watched_.push_back({signal, arrivals_of(signal)});
  }

  /// Throws std::system_error, and then none of them is caught.
  void begin() {
    for (std::size_t i = 0; i < watched_.size(); ++i) {
      const std::error_code error = CaughtSignals::all().add(watched_[i].signal);
      if (!error) continue;
      for (std::size_t added = 0; added < i; ++added) CaughtSignals::all().remove(watched_[added].signal);
      throw setup_error(error, "sigaction", fmt::format("signal {}", watched_[i].signal));
    }
  }

  /// A stop request that no turn has seen must not be lost. What a forked child finds here was the parent's.
  void end() noexcept {
    for (const Watched& watched : watched_) {
      const bool is_last = CaughtSignals::all().remove(watched.signal);
      const bool is_due = watched.reported != arrivals_of(watched.signal);
      if (is_last && is_due && reactor().is_of_this_process()) (void)::raise(watched.signal);
    }
  }

 private:
  struct Watched {
    int signal;
    std::uint32_t reported;  // so many arrivals
  };

  static std::uint32_t arrivals_of(int signal) noexcept {
    return arrivals[static_cast<std::size_t>(signal)].load();
  }

  void on_ready(std::uint32_t /*events*/) noexcept override {
    for (Watched& watched : watched_) {
      const std::uint32_t arrived = arrivals_of(watched.signal);
      if (std::exchange(watched.reported, arrived) == arrived) continue;
      handler_(watched.signal);
      if (is_retired()) return;
    }
  }

  void continued_after_fork() noexcept override {
    for (Watched& watched : watched_) {
      watched.reported = arrivals_of(watched.signal);
      CaughtSignals::all().add_again(watched.signal);
    }
  }

  std::vector<Watched> watched_;
  std::function<void(int)> handler_;
};

Signals::Signals(Reactor& reactor, std::initializer_list<int> signals, std::function<void(int)> handler)
    : channel_(nullptr) {
  if (!handler) throw bad_signals("no handler");
  channel_ = &reactor.adopt(std::make_unique<SignalChannel>(reactor, checked(signals), std::move(handler)));
  try {
    if (const std::error_code error = reactor.watch(*channel_))
      throw setup_error(error, "epoll_ctl", "for signals");
    channel_->begin();
  } catch (...) {
    reactor.retire(*channel_);
    throw;
  }
}

Signals::~Signals() {
  Reactor& reactor = channel_->reactor();
  channel_->end();
  reactor.retire(*channel_);
}

}  // namespace anteroom
