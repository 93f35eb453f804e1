#include <anteroom/acceptor.h>
#include <anteroom/socket.h>
#include <anteroom/timer.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <limits>
#include <memory>
#include <new>
#include <utility>

#include "door.h"

namespace anteroom {
namespace {

constexpr std::chrono::milliseconds kRest{20};
constexpr std::uint32_t kNobodyKnows = std::numeric_limits<std::uint32_t>::max();
constexpr std::chrono::seconds kTellEvery{1};
constexpr std::uint32_t kGuestsWhileFirst = 16;

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

void Acceptor::Guests::left(std::uint32_t ticket) noexcept { door_.left(ticket); }
void Acceptor::Bell::on_ready(std::uint32_t events) noexcept { door_.knocked(events); }
void Acceptor::Bell::continued_after_fork() noexcept { door_.continue_after_fork(); }

Acceptor::Door::Door(Reactor& reactor, Listener listener, ConnectionHandlers handlers,
                     AcceptorOptions options)
    : reactor_(reactor),
      options_(std::move(options)),
      family_(listener.endpoint().family()),
      admits_(options_.admission.is_set()),
      asks_who_(options_.admission.is_by_source()),
      admission_(options_.admission),
      queue_delay_(options_.queue_delay),
      tuner_(options_.backlog),
      alarm_(reactor, [this] { look(); }),
      stage_end_(reactor, [this] { next_stage(); }),
      deadline_(reactor, [this] { cut(); }) {
  if (listener.fd() < 0)
    throw setup_error(std::make_error_code(std::errc::invalid_argument), "to accept",
                      "from a listener without a socket");
  options_.accepts_per_turn_max = std::max(options_.accepts_per_turn_max, 1);
  auto guests = std::make_unique<Guests>(*this, std::move(handlers), options_.connection);
  if (admits_) guests->tell_left();
  if (const std::optional<ListenQueue> queue = listener.queue(); queue && options_.backlog.is_self_tuning()) {
    stats_.tuned_backlog = static_cast<int>(queue->limit);
    drops_seen_ = queue->drops;
  }
  bell_ = &reactor.adopt(std::make_unique<Bell>(reactor, listener.release(), *this));
  listener_.emplace(std::move(listener));
  const std::error_code error = options_.exclusive ? reactor.watch_exclusive(*bell_) : reactor.watch(*bell_);
  if (error) {
    close();
    throw setup_error(error, "epoll_ctl", "for a listener");
  }
  guests_ = guests.release();
}

// ---- At the door ----

/// 0, or the errno. Retries only what a signal has interrupted. Nobody costs any memory before he is
/// admitted.
inline int Acceptor::Door::accept_one(bool is_first_of_several) noexcept {
  sockaddr_storage address;
  socklen_t size = sizeof(address);
  auto* const peer = asks_who_ ? reinterpret_cast<sockaddr*>(&address) : nullptr;
  int socket = -1;
  do {
    socket = ::accept4(bell_->fd(), peer, asks_who_ ? &size : nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  } while (socket < 0 && errno == EINTR);
  if (socket < 0) return errno;
  Fd guest(socket);
  ++stats_.accepted;
  const bool is_sample = ++unasked_ == options_.sample_wait_every;
  if ((is_sample || is_first_of_several || queue_delay_.is_set()) && has_waited_too_long(socket, is_sample)) {
    ++stats_.shed;
    return turn_away(guest), 0;
  }
  Admission::Ticket ticket = 0;
  if (admits_ && admission_.arrive(peer, reactor_.now(), ticket) != AdmissionVerdict::kAdmitted) {
    ++stats_.refused;
    return turn_away(guest), 0;
  }
  try {
    if (options_.deal) {
      deal_out(std::move(guest), ticket);
    } else {
      Connection::start(reactor_, std::move(guest), *guests_, family_, ticket);
    }
  } catch (const std::bad_alloc&) {
    if (admits_) admission_.leave(ticket);
    return ENOMEM;
  }
  return 0;
}

void Acceptor::Door::look() noexcept {
  if (paused_ || bell_ == nullptr) return;
  if (rests_) alarm_.cancel();
  rests_ = false;
  ++stats_.looks;
  std::uint32_t waiting = kNobodyKnows;
  std::uint32_t limit = 0;
  const bool is_known = ask_queue(waiting, limit);
  if (is_known) {
    stats_.queue_peak = std::max(stats_.queue_peak, waiting);
    if (waiting == 0) queue_delay_.emptied();
    if (tuner_.is_crowded(waiting, limit)) {
      tune(waiting);
      if (paused_ || bell_ == nullptr) return;
    }
  }
  // A dead guest may not have been one of those who wait (a firewall's EPERM), so it does not count as one.
  std::uint32_t taken = 0;
  for (int tries = 0; taken < waiting && tries < options_.accepts_per_turn_max; ++tries) {
    const int error = accept_one(is_known && waiting > 1 && tries == 0);
    if (paused_ || bell_ == nullptr) return;
    if (error == 0) {
      ++taken;
    } else if (error == EAGAIN) {
      waiting = taken;  // others take from this queue, too, or nobody knew how many were in it
    } else if (is_the_guests_trouble(error)) {
      ++stats_.aborted;
    } else {
      return rest(error, is_known ? std::optional(waiting - taken) : std::nullopt);
    }
  }
  if (options_.exclusive && !go_to_the_end_of_the_line(taken)) return;
  if (taken >= waiting) {
    queue_delay_.emptied();
    return queue_is_empty();
  }
  if (taken > 0) {
    ++stats_.carried_over;
    return reactor_.again(*bell_);
  }
  // A whole turn of dead guests: whatever that is, it must not hold the loop.
  rest(ECONNABORTED, is_known ? std::optional(waiting) : std::nullopt);
}

/// The kernel wakes the first idle thread of those that watch, in the order in which they began to, so the
/// first would get nearly all guests. Who has let in a few goes to the end of the line; nginx does so every
/// 16 as well.
bool Acceptor::Door::go_to_the_end_of_the_line(std::uint32_t taken) noexcept {
  let_in_while_first_ += taken;
  if (let_in_while_first_ < kGuestsWhileFirst) return true;
  let_in_while_first_ = 0;
  reactor_.unwatch(*bell_);
  const std::error_code error = reactor_.watch_exclusive(*bell_);
  if (!error) return true;
  let_in_while_first_ = kGuestsWhileFirst;  // and tries again when it has rested
  rest(error.value(), std::nullopt);
  return false;
}

/// Listener::queue() without what is not needed here: this is on the way of every guest. False for a Unix
/// socket, and for one that listens no more, because somebody else who has it has shut it down: accept(2)
/// says so.
bool Acceptor::Door::ask_queue(std::uint32_t& depth, std::uint32_t& limit) const noexcept {
  ::tcp_info kernel;
  socklen_t size = sizeof(kernel);
  if (::getsockopt(bell_->fd(), IPPROTO_TCP, TCP_INFO, &kernel, &size) != 0) return false;
  if (kernel.tcpi_state != TCP_LISTEN) return false;
  depth = kernel.tcpi_unacked;
  limit = kernel.tcpi_sacked;
  return true;
}

/// Asked are one in so many, for the histogram; the first of several, who has waited the longest; and with a
/// target, everybody.
bool Acceptor::Door::has_waited_too_long(int guest, bool is_sample) noexcept {
  if (is_sample) unasked_ = 0;
  const std::optional<TcpInfo> info = tcp_info(guest);
  if (!info) return false;
  const std::chrono::milliseconds waited = info->since_last_sent;
  stats_.longest_wait = std::max(stats_.longest_wait, waited);
  if (is_sample) stats_.wait_ms.record(static_cast<std::uint64_t>(waited.count()));
  return queue_delay_.is_set() && queue_delay_.should_shed(waited, reactor_.now());
}

void Acceptor::Door::deal_out(Fd guest, Admission::Ticket ticket) noexcept {
  ++dealt_;
  options_.deal(std::move(guest), family_, ticket);
}

void Acceptor::Door::turn_away(const Fd& guest) const noexcept {
  switch (options_.admission.refusal) {
    case Refusal::kReset:
      return reset_on_close(guest.get());
    case Refusal::kReply:
      // An empty send buffer takes it whole, or he is gone already. What he has said must not turn our end
      // into a reset.
      while (::send(guest.get(), options_.admission.reply.data(), options_.admission.reply.size(),
                    MSG_NOSIGNAL) < 0 &&
             errno == EINTR) {
      }
      [[fallthrough]];
    case Refusal::kClose:
      const std::span<char> scratch = reactor_.scratch();
      while (::recv(guest.get(), scratch.data(), scratch.size(), 0) < 0 && errno == EINTR) {
      }
      return;
  }
}

void Acceptor::Door::rest(int error, std::optional<std::uint32_t> waiting) noexcept {
  if (is_others_too_ && stage_ == Stage::kEmptying) return queue_is_empty();  // they have room
  rests_ = true;
  ++stats_.rests;
  reactor_.again_when_a_descriptor_closes(*bell_);
  alarm_.arm(kRest);
  if (options_.resting && (!told_ || reactor_.now() - *told_ >= kTellEvery)) {
    told_ = reactor_.now();
    options_.resting({error, std::system_category()}, waiting);
  }
  // Those inside have what those who wait would need.
  if (stage_ == Stage::kEmptying) tell_draining();
}

void Acceptor::Door::pause(bool paused) noexcept {
  if (paused_ == paused || bell_ == nullptr) return;
  paused_ = paused;
  if (!paused) reactor_.again(*bell_);  // the edges of those who have come meanwhile are behind us
}

/// The queue is half full or more: how many were turned away already, and what does the system allow?
void Acceptor::Door::tune(std::uint32_t depth) noexcept {
  const std::optional<ListenQueue> queue = listen_queue(fd());
  if (!queue) return;
  const auto turned_away = static_cast<std::uint32_t>(queue->drops - drops_seen_);  // it counts in 32 bits
  drops_seen_ = queue->drops;
  const int was = static_cast<int>(queue->limit);
  const int wanted_before = tuner_.wanted_beyond_somaxconn();
  std::optional<int> grown = tuner_.grow(depth, queue->limit, turned_away, system_backlog_max());
  if (grown && ::listen(fd(), *grown) != 0) grown.reset();
  if (grown) {
    stats_.tuned_backlog = *grown;
    ++stats_.tunings;
  }
  const int wanted = tuner_.wanted_beyond_somaxconn();
  stats_.wanted_beyond_somaxconn = wanted;
  const int now = grown.value_or(was);
  const bool has_news = grown || (wanted > now && wanted != wanted_before);
  if (has_news && options_.tuned) options_.tuned(was, now, std::max(now, wanted));
}

// ---- The acceptor ----

Acceptor::Acceptor(Reactor& reactor, const Endpoint& endpoint, ConnectionHandlers handlers,
                   AcceptorOptions options)
    : door_(nullptr) {
  Listener listener(endpoint, {.backlog = options.backlog.initial()});
  door_ = new Door(reactor, std::move(listener), std::move(handlers), std::move(options));
}

Acceptor::Acceptor(Reactor& reactor, Listener listener, ConnectionHandlers handlers, AcceptorOptions options)
    : door_(new Door(reactor, std::move(listener), std::move(handlers), std::move(options))) {}

Acceptor::~Acceptor() {
  assert(is_thread_of(door_->reactor()));
  door_->end();
}

Endpoint Acceptor::endpoint() const noexcept {
  assert(is_thread_of(door_->reactor()));
  return local_endpoint(door_->fd());
}
int Acceptor::fd() const noexcept {
  assert(is_thread_of(door_->reactor()));
  return door_->fd();
}
void Acceptor::set_backlog(int backlog) {
  assert(is_thread_of(door_->reactor()));
  change_backlog(door_->fd(), backlog);
}
const AcceptorStats& Acceptor::stats() const noexcept {
  assert(is_thread_of(door_->reactor()));
  return door_->stats();
}
std::size_t Acceptor::open_connections() const noexcept {
  assert(is_thread_of(door_->reactor()));
  return door_->guests();
}
void Acceptor::pause() noexcept {
  assert(is_thread_of(door_->reactor()));
  door_->pause(true);
}
void Acceptor::resume() noexcept {
  assert(is_thread_of(door_->reactor()));
  door_->pause(false);
}
void Acceptor::left(Admission::Ticket ticket) noexcept {
  assert(is_thread_of(door_->reactor()));
  door_->dealt_one_left(ticket);
}

std::optional<ListenQueue> Acceptor::queue() const noexcept {
  assert(is_thread_of(door_->reactor()));
  std::optional<ListenQueue> queue = listen_queue(door_->fd());
  if (queue) queue->peak = std::max(door_->stats().queue_peak, queue->depth);
  return queue;
}

void Acceptor::drain(const DrainOptions& options, std::function<void(std::size_t)> drained) {
  assert(is_thread_of(door_->reactor()));
  check_drain_options(options);
  if (!door_->is_of_this_process())
    throw setup_error(std::make_error_code(std::errc::operation_not_permitted), "to drain",
                      "an acceptor that the parent process made: see Reactor::continue_after_fork()");
  door_->drain(options, std::move(drained));
}

}  // namespace anteroom
