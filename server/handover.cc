#include <anteroom/handover.h>
#include <anteroom/reactor.h>
#include <anteroom/socket.h>
#include <anteroom/timer.h>
#include <anteroom/unix_path.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <new>
#include <string_view>
#include <utility>

#include "handover_record.h"

namespace anteroom {
namespace {

constexpr int kCallersMax = 8;          // who wait to become our successor
constexpr int kCallersPerTurnMax = 16;  // whom we look at before the others get their turn again
constexpr std::chrono::seconds kRestOfAnOffer{1};
constexpr std::chrono::seconds kBetweenFailures{1};   // that are reported
constexpr std::chrono::hours kPatienceMax{24 * 365};  // in nanoseconds, milliseconds::max() is none
constexpr int kAsksMore = 3;                          // after an error, until we believe that nobody is there

/// Whether the process at the other end, or the one that called listen(2) there, is of our user, or root's.
bool is_one_of_us(int fd) noexcept {
  ucred peer{};
  socklen_t size = sizeof(peer);
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return false;
  return peer.uid == ::geteuid() || peer.uid == 0;
}

/// Of a blocking socket: its time is over.
bool is_late(std::error_code error) noexcept { return error == std::errc::resource_unavailable_try_again; }

/// How long the calls on a blocking socket wait. 0 would be for ever.
void wait_at_most(int fd, std::chrono::nanoseconds time) noexcept {
  const auto wait =
      std::max(std::chrono::ceil<std::chrono::microseconds>(time), std::chrono::microseconds(1));
  const auto seconds = std::chrono::floor<std::chrono::seconds>(wait);
  const timeval limit{.tv_sec = seconds.count(), .tv_usec = (wait - seconds).count()};
  (void)::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
  (void)::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
}

Fd open_record_socket(int flags, const Endpoint& endpoint) {
  Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | flags, 0));
  if (!fd) throw setup_error(last_error(), "socket", endpoint.to_string());
  return fd;
}

/// 0, or the errno of connect(2).
int call(int fd, const Endpoint& endpoint) noexcept {
  while (::connect(fd, endpoint.data(), endpoint.size()) != 0) {
    if (errno != EINTR) return errno;
  }
  return 0;
}

void check_offer(const HandoverHandlers& handlers, const HandoverOptions& options) {
  const auto check = [](const char* lacks, bool is_there) {
    if (!is_there) throw setup_error(std::make_error_code(std::errc::invalid_argument), "to offer", lacks);
  };
  check("without a handler `listeners`", handlers.listeners != nullptr);
  check("without a handler `handed_over`", handlers.handed_over != nullptr);
  check("with a negative deadline", options.deadline >= options.deadline.zero());
}

Fd listen_at(const Endpoint& endpoint, const HandoverHandlers& handlers, const HandoverOptions& options) {
  check_offer(handlers, options);  // first, for the path stays
  const auto check = [&](const char* tried, int result) {
    if (result != 0) throw setup_error(last_error(), tried, endpoint.to_string());
  };
  Fd door = open_record_socket(SOCK_NONBLOCK, endpoint);
  // Before bind(2), which makes the file with the mode of the socket: nobody else gets in at any time.
  check("fchmod", ::fchmod(door.get(), S_IRUSR | S_IWUSR));
  std::optional<UnixPathLock> path_lock;  // until we listen
  if (!endpoint.path().starts_with('@')) path_lock.emplace(endpoint).remove_dead(SOCK_SEQPACKET);
  check("bind", ::bind(door.get(), endpoint.data(), endpoint.size()));
  check("listen", ::listen(door.get(), kCallersMax));
  return door;
}

}  // namespace

// ---- The successor

Handover::Handover(Fd predecessor, std::chrono::milliseconds timeout) noexcept
    : predecessor_(std::move(predecessor)), timeout_(timeout) {}

std::optional<Handover> Handover::take(const std::string& path, std::chrono::milliseconds timeout) {
  if (timeout < timeout.zero())
    throw setup_error(std::make_error_code(std::errc::invalid_argument), "to succeed within",
                      "a negative timeout");
  timeout = std::min<std::chrono::milliseconds>(timeout, kPatienceMax);
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  const Endpoint endpoint = Endpoint::unix_path(path);
  Handover handover(open_record_socket(0, endpoint), timeout);
  const int fd = handover.predecessor_.get();
  wait_at_most(fd, timeout);
  const int error = call(fd, endpoint);
  if (error == ENOENT || error == ECONNREFUSED) return std::nullopt;
  if (error != 0)  // EAGAIN: its queue was full all the time
    throw setup_error({error == EAGAIN ? ETIMEDOUT : error, std::system_category()}, "connect",
                      endpoint.to_string());
  if (!is_one_of_us(fd))
    throw setup_error(std::make_error_code(std::errc::permission_denied), "to succeed another user at",
                      endpoint.to_string());
  for (std::size_t later = 1; later > 0;) {
    wait_at_most(fd, deadline - std::chrono::steady_clock::now());
    later = handover.take_record();
  }
  return handover;
}

/// The first descriptor of all is the socket of the path itself. How many are still to come.
std::size_t Handover::take_record() {
  handover::Record record = handover::receive_record(predecessor_.get());
  for (std::size_t i = 0; i < record.names.size(); ++i) {
    Fd& fd = record.descriptors[i];
    if (!door_) {
      door_ = std::move(fd);
    } else {
      Listener listener = adopt_listener(std::move(fd), record.names[i]);
      listeners.push_back({std::move(record.names[i]), std::move(listener)});
    }
  }
  return record.later;
}

std::error_code Handover::ready() noexcept {
  if (!predecessor_) return said_ready_ ? std::error_code() : std::make_error_code(std::errc::not_connected);
  wait_at_most(predecessor_.get(), timeout_);
  // Whether that gets through or not: what counts is what it has said, or that it has ended.
  if (!std::exchange(said_ready_, true)) (void)handover::say(predecessor_.get(), handover::kReady);
  std::array<char, 16> room{};
  std::error_code error;
  std::string_view answer = handover::hear(predecessor_.get(), room, error);
  // A pending error is told once; behind it is an answer, or the end, which is none.
  for (int more = kAsksMore; more > 0 && error && !is_late(error); --more)
    answer = handover::hear(predecessor_.get(), room, error);
  if (is_late(error)) return std::make_error_code(std::errc::timed_out);
  if (answer == handover::kGoesOn) return std::make_error_code(std::errc::operation_canceled);
  if (!answer.empty() && answer != handover::kLetGo) return std::make_error_code(std::errc::bad_message);
  predecessor_.reset();
  return {};
}

// ---- The predecessor

/// Where successors call. Ends itself when all has been handed over.
class HandoverOffer::Door final : public Channel {
 public:
  Door(Reactor& reactor, Fd socket, HandoverHandlers handlers, const HandoverOptions& options)
      : Channel(reactor, std::move(socket)),
        handlers_(std::move(handlers)),
        deadline_(std::min<std::chrono::milliseconds>(options.deadline, kPatienceMax)),
        alarm_(reactor, [this] { rung(); }),
        next_report_(reactor, [this] { report_suppressed(); }) {}

  bool has_successor() const noexcept { return reactor().find(successor_) != nullptr; }

  void close() noexcept {
    alarm_.cancel();
    next_report_.cancel();
    if (Channel* const successor = reactor().find(successor_)) reactor().retire(*successor);
    reactor().retire(*this);
  }

  void succeeded() noexcept {
    close();
    handlers_.handed_over();
  }

  /// The successor will not be one, and is gone.
  void failed(std::error_code why) noexcept {
    alarm_.cancel();
    reactor().again(*this);  // others may have called meanwhile
    tell(why);
  }

 private:
  void on_ready(std::uint32_t /*events*/) noexcept override { look(); }
  void look() noexcept;
  void rung() noexcept;
  void rest(std::error_code why) noexcept;
  void offer_to(Fd caller) noexcept;
  std::error_code take_in(Fd caller) noexcept;
  std::error_code give(const Successor& successor, std::vector<OfferedListener> listeners) const noexcept;
  void tell(std::error_code why) noexcept;
  void report_suppressed() noexcept;

  HandoverHandlers handlers_;
  std::chrono::milliseconds deadline_;
  ChannelId successor_ = ChannelId::kNone;
  Timer alarm_;        // the successor's deadline; or, without one, the end of a rest
  Timer next_report_;  // armed: there has been one within a second
  std::error_code failure_;
  std::uint64_t unreported_ = 0;
};

/// Somebody who has our listeners, until it is ready or gone. The door outlives it.
class HandoverOffer::Successor final : public Channel {
 public:
  Successor(Reactor& reactor, Fd socket, Door& door) : Channel(reactor, std::move(socket)), door_(door) {}

  /// To the end of what it has said: one that was ready and has died since is none.
  void listen() noexcept {
    std::array<char, 16> room{};
    while (!is_retired()) {
      std::error_code error;
      const std::string_view word = handover::hear(fd(), room, error);
      if (error == std::errc::resource_unavailable_try_again) return is_ready_ ? let_go() : void();
      if (word.empty()) return fail(std::make_error_code(std::errc::connection_aborted));
      if (word != handover::kReady || std::exchange(is_ready_, true))
        return fail(std::make_error_code(std::errc::bad_message));
    }
  }

  void fail(std::error_code why) noexcept {
    (void)handover::say(fd(), handover::kGoesOn);
    reactor().retire(*this);
    door_.failed(why);
  }

 private:
  void on_ready(std::uint32_t /*events*/) noexcept override { listen(); }

  void let_go() noexcept {
    if (!handover::say(fd(), handover::kLetGo)) return fail(last_error());
    door_.succeeded();
  }

  Door& door_;
  bool is_ready_ = false;
};

void HandoverOffer::Door::look() noexcept {
  for (int tries = 0; tries < kCallersPerTurnMax; ++tries) {
    if (is_retired() || has_successor()) return;
    Fd caller(::accept4(fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (caller) {
      offer_to(std::move(caller));
    } else if (errno != EINTR) {
      return errno == EAGAIN ? void() : rest(last_error());
    }
  }
  reactor().again(*this);
}

void HandoverOffer::Door::rung() noexcept {
  auto* const successor = reactor().find<Successor>(successor_);
  if (successor == nullptr) return look();
  successor->listen();  // it may have become ready just now
  if (has_successor()) successor->fail(std::make_error_code(std::errc::timed_out));
}

/// There are no descriptors, or no memory. Whoever calls keeps its place.
void HandoverOffer::Door::rest(std::error_code why) noexcept {
  alarm_.arm(kRestOfAnOffer);
  reactor().again_when_a_descriptor_closes(*this);
  tell(why);
}

/// Reports it now, or together with others that follow within the second.
void HandoverOffer::Door::tell(std::error_code why) noexcept {
  // Anybody can cause permission_denied, so it does not hide what became of a successor.
  if (unreported_ == 0 || why != std::errc::permission_denied) failure_ = why;
  ++unreported_;
  if (!next_report_.is_armed()) report_suppressed();
}

void HandoverOffer::Door::report_suppressed() noexcept {
  if (unreported_ == 0) return;
  next_report_.arm(kBetweenFailures);
  const std::uint64_t suppressed = std::exchange(unreported_, 0) - 1;
  if (handlers_.failed) handlers_.failed({.why = failure_, .suppressed = suppressed});
}

/// Whatever may fail for want of memory comes before the listeners are given: from then on, an end without a
/// word says that we are no more.
void HandoverOffer::Door::offer_to(Fd caller) noexcept {
  if (!is_one_of_us(caller.get())) {
    (void)handover::say(caller.get(), handover::kGoesOn);
    return tell(std::make_error_code(std::errc::permission_denied));
  }
  if (const std::error_code error = take_in(std::move(caller))) return tell(error);
  std::vector<OfferedListener> listeners = handlers_.listeners();
  auto* const successor = reactor().find<Successor>(successor_);
  if (successor == nullptr) return;  // that handler has ended the offer
  const std::error_code error = give(*successor, std::move(listeners));
  const bool has_ended = error == std::errc::broken_pipe || error == std::errc::connection_reset;
  if (error) successor->fail(has_ended ? std::make_error_code(std::errc::connection_aborted) : error);
}

std::error_code HandoverOffer::Door::take_in(Fd caller) noexcept try {
  auto& successor = reactor().adopt(std::make_unique<Successor>(reactor(), std::move(caller), *this));
  if (const std::error_code error = reactor().watch(successor)) {
    reactor().retire(successor);
    return error;
  }
  successor_ = successor.id();
  alarm_.arm(deadline_);
  return {};
} catch (const std::bad_alloc&) {
  return std::make_error_code(std::errc::not_enough_memory);
}

std::error_code HandoverOffer::Door::give(const Successor& successor,
                                          std::vector<OfferedListener> listeners) const noexcept try {
  listeners.insert(listeners.begin(), {.name = "", .fd = fd()});
  return handover::send_listeners(successor.fd(), listeners);
} catch (const std::bad_alloc&) {
  return std::make_error_code(std::errc::not_enough_memory);
}

HandoverOffer::HandoverOffer(Reactor& reactor, const std::string& path, HandoverHandlers handlers,
                             const HandoverOptions& options)
    : HandoverOffer(reactor, listen_at(Endpoint::unix_path(path), handlers, options), std::move(handlers),
                    options) {}

HandoverOffer::HandoverOffer(Reactor& reactor, Handover& predecessor, HandoverHandlers handlers,
                             const HandoverOptions& options)
    : HandoverOffer(reactor, std::move(predecessor.door_), std::move(handlers), options) {}

HandoverOffer::HandoverOffer(Reactor& reactor, Fd&& door, HandoverHandlers&& handlers,
                             const HandoverOptions& options)
    : reactor_(reactor), door_(ChannelId::kNone) {
  check_offer(handlers, options);
  if (!door)
    throw setup_error(std::make_error_code(std::errc::invalid_argument), "to offer",
                      "where a predecessor did, a second time");
  auto& made = reactor.adopt(std::make_unique<Door>(reactor, std::move(door), std::move(handlers), options));
  if (const std::error_code error = reactor.watch(made)) {
    made.close();
    throw setup_error(error, "epoll_ctl", "for an offer to hand over");
  }
  door_ = made.id();
}

HandoverOffer::~HandoverOffer() {
  if (Door* const door = reactor_.find<Door>(door_)) door->close();
}

bool HandoverOffer::is_taken() const noexcept {
  const Door* const door = reactor_.find<Door>(door_);
  return door != nullptr && door->has_successor();
}

}  // namespace anteroom
