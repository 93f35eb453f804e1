#include <anteroom/acceptor.h>
#include <anteroom/socket.h>
#include <anteroom/timer.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <memory>
#include <new>
#include <utility>

namespace anteroom {
namespace {

constexpr std::chrono::milliseconds kRest{20};
constexpr std::chrono::seconds kTellEvery{1};

/// The guest at the head of the queue is gone, or the network has lost it; accept(2) reports such errors of
/// the new connection as its own. The next guest may be well.
bool is_the_guests_trouble(int error) noexcept {
  switch (error) {
    case ECONNABORTED:
    case EPROTO:
    case EPERM:  // a firewall's word
    case ENETDOWN:
    case ENETUNREACH:
    case ENONET:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENOPROTOOPT:
    case EOPNOTSUPP:
      return true;
    default:
      return false;
  }
}

}  // namespace

class Acceptor::Door final : public Channel {
 public:
  Door(Reactor& reactor, Listener listener, ConnectionHandlers handlers, AcceptorOptions options)
      : Channel(reactor, listener.release()),
        listener_(std::move(listener)),
        kind_(std::move(handlers), options.connection),
        accepts_per_turn_max_(std::max(options.accepts_per_turn_max, 1)),
        resting_(std::move(options.resting)),
        family_(local_endpoint(fd()).family()),
        alarm_(reactor, [this] { look(); }) {}

  const AcceptorStats& stats() const noexcept { return stats_; }
  const Connection::Kind& kind() const noexcept { return kind_; }

  void close() noexcept {
    alarm_.cancel();
    { const Listener ended(std::move(listener_)); }  // its path goes first, or it might be our successor's
    reactor().retire(*this);
  }

 private:
  void on_ready(std::uint32_t events) noexcept override {
    // Resting, he does not get up for one who knocks, only for the alarm or a descriptor that has become
    // free.
    if (events == 0 || !rests_) look();
  }

  void look() noexcept {
    rests_ = false;
    alarm_.cancel();
    const std::optional<TcpInfo> info = tcp_info(fd());
    const std::uint32_t waiting = info ? info->queue_depth : std::numeric_limits<std::uint32_t>::max();
    if (info) stats_.queue_peak = std::max(stats_.queue_peak, waiting);
    // A dead guest may not have been one of those who wait (a firewall's EPERM), so it does not count as one.
    std::uint32_t let_in = 0;
    for (int tries = 0; let_in < waiting && tries < accepts_per_turn_max_; ++tries) {
      const int error = accept_one(info && waiting > 1 && tries == 0);
      if (is_retired()) return;
      if (error == 0) {
        ++let_in;
      } else if (error == EAGAIN) {
        return;
      } else if (is_the_guests_trouble(error)) {
        ++stats_.aborted;
      } else {
        return rest(error, info ? std::optional(waiting - let_in) : std::nullopt);
      }
    }
    if (let_in >= waiting) return;
    if (let_in > 0) return reactor().again(*this);
    // A whole turn of dead guests: whatever that is, it must not hold the loop.
    rest(ECONNABORTED, info ? std::optional(waiting) : std::nullopt);
  }

  /// 0, or the errno. Retries only what a signal has interrupted.
  int accept_one(bool ask_how_long) noexcept {
    int socket = -1;
    do {
      socket = ::accept4(fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    } while (socket < 0 && errno == EINTR);
    if (socket < 0) return errno;
    ++stats_.accepted;
    if (ask_how_long) note_wait(socket);
    try {
      Connection::start(reactor(), Fd(socket), kind_, family_);
    } catch (const std::bad_alloc&) {
      return ENOMEM;
    }
    return 0;
  }

  /// The first of several has waited the longest.
  void note_wait(int socket) noexcept {
    if (const std::optional<TcpInfo> guest = tcp_info(socket)) {
      stats_.longest_wait = std::max(stats_.longest_wait, guest->since_last_sent);
    }
  }

  void rest(int error, std::optional<std::uint32_t> waiting) noexcept {
    rests_ = true;
    ++stats_.rests;
    reactor().again_when_a_descriptor_closes(*this);
    alarm_.arm(kRest);
    if (!resting_ || (told_ && reactor().now() - *told_ < kTellEvery)) return;
    told_ = reactor().now();
    resting_({error, std::system_category()}, waiting);
  }

  Listener listener_;  // without its socket, which is the channel's: it looks after a Unix path
  Connection::Kind kind_;
  int accepts_per_turn_max_;
  std::function<void(std::error_code, std::optional<std::uint32_t>)> resting_;
  int family_;
  Timer alarm_;
  bool rests_ = false;
  std::optional<Reactor::Clock::time_point> told_;
  AcceptorStats stats_;
};

Acceptor::Acceptor(Reactor& reactor, const Endpoint& endpoint, ConnectionHandlers handlers,
                   AcceptorOptions options)
    : Acceptor(reactor, Listener(endpoint), std::move(handlers), std::move(options)) {}

Acceptor::Acceptor(Reactor& reactor, Listener listener, ConnectionHandlers handlers, AcceptorOptions options)
    : door_(&reactor.adopt(
          std::make_unique<Door>(reactor, std::move(listener), std::move(handlers), std::move(options)))) {
  if (const std::error_code error = reactor.watch(*door_)) {
    door_->close();
    throw setup_error(error, "epoll_ctl", "for a listener");
  }
}

Acceptor::~Acceptor() {
  Connection::end_all(door_->reactor(), door_->kind());
  door_->close();
}

Endpoint Acceptor::endpoint() const noexcept { return local_endpoint(door_->fd()); }
void Acceptor::set_backlog(int backlog) { change_backlog(door_->fd(), backlog); }
const AcceptorStats& Acceptor::stats() const noexcept { return door_->stats(); }
std::optional<ListenQueue> Acceptor::queue() const noexcept { return listen_queue(door_->fd()); }

}  // namespace anteroom
