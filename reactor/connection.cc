#include <anteroom/connection.h>
#include <anteroom/reactor.h>
#include <anteroom/socket.h>
#include <fmt/format.h>
#include <linux/sockios.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <new>
#include <utility>

#include "connection_deadlines.h"
#include "output.h"
#include "sanitized.h"

namespace anteroom {
namespace {

using namespace std::chrono_literals;

constexpr std::chrono::hours kTimeMax{24 * 365};

/// What lies behind the last bytes, or stops a read in the middle of them (PRI: urgent data), and brings no
/// further edge.
constexpr std::uint32_t kMoreThanBytes = EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI;

/// Throws std::system_error (invalid_argument).
ConnectionOptions checked(ConnectionOptions options) {
  struct Time {
    const char* name;
    std::chrono::milliseconds& value;
  };
  for (const Time& time :
       {Time{"linger", options.linger}, Time{"first_byte_deadline", options.first_byte_deadline},
        Time{"idle_deadline", options.idle_deadline}, Time{"rate_window", options.rate_window}}) {
    if (time.value < 0ms)
      throw argument_error("set", fmt::format("{} of a connection to {} ms", time.name, time.value.count()));
    time.value = std::min<std::chrono::milliseconds>(time.value, kTimeMax);
  }
  if (options.high_watermark_bytes < options.low_watermark_bytes)
    throw argument_error("set", fmt::format("high_watermark_bytes of a connection to {}, less than its "
                                            "low_watermark_bytes of {}",
                                            options.high_watermark_bytes, options.low_watermark_bytes));
  options.rate_window = std::max<std::chrono::milliseconds>(options.rate_window, 10ms);
  return options;
}

std::error_code error_of(int error) noexcept { return {error, std::system_category()}; }

}  // namespace

Connection::Kind::Kind(ConnectionHandlers the_handlers, const ConnectionOptions& the_options)
    : handlers(std::move(the_handlers)),
      options(checked(the_options)),
      has_deadlines_(options.has_deadlines()) {}

Connection::Connection(Reactor& reactor, Fd&& socket, Kind& kind, int family, std::uint32_t ticket) noexcept
    : Channel(reactor, std::move(socket)),
      short_read_means_drained_(family != AF_UNIX),
      ticket_(ticket),
      kind_(&kind) {
  ++kind.living_;
  Connection* const next = std::exchange(kind.first_, this);
  next_ = next;
  if (next != nullptr) next->previous_fd_ = fd();
}

Connection::~Connection() {
  if (state_ != State::kEnded) {  // with its reactor, or for want of memory to take it in
    if (output_ && reactor().is_of_this_process()) reset_on_close(fd());
    leave_group();
  }
  if (--kind_->living_ == 0 && kind_->ended_) reactor().retire(std::unique_ptr<Reapable>(kind_));
}

/// Before the descriptor is closed: the next one in the list finds this one by it.
inline void Connection::leave_group() noexcept {
  auto* const next = static_cast<Connection*>(std::exchange(next_, nullptr));
  if (previous_fd_ < 0) {
    kind_->first_ = next;
  } else {
    reactor().channels_[static_cast<std::size_t>(previous_fd_)]->next_ = next;
  }
  if (next != nullptr) next->previous_fd_ = previous_fd_;
}

// ---- Beginning ----

inline std::unique_ptr<Connection> Connection::make(Reactor& reactor, Fd&& socket, Kind& kind, int family,
                                                    std::uint32_t ticket) {
  void* memory = reactor.take_spare();
  if (memory == nullptr) memory = ::operator new(sizeof(Connection));
  return std::unique_ptr<Connection>(::new (memory)
                                         Connection(reactor, std::move(socket), kind, family, ticket));
}

void Connection::free() noexcept {
  Reactor& reactor = this->reactor();
  this->~Connection();
  if (kMemoryIsWatched || !reactor.keep_spare(this)) ::operator delete(this);
}

void Connection::start(Reactor& reactor, Fd&& socket, Kind& kind, int family, std::uint32_t ticket) {
  Connection& connection = reactor.adopt(make(reactor, std::move(socket), kind, family, ticket));
  connection.tell_open();
  if (connection.is_open()) connection.read();
  // After what it has said already, or it would be taken for idle.
  if (kind.draining_ && connection.is_open() && kind.handlers.draining) kind.handlers.draining(connection);
}

Connection& Connection::start_connecting(Reactor& reactor, Fd&& socket, Kind& kind, const Attempt& attempt) {
  assert(is_thread_of(reactor));
  Connection& connection = reactor.adopt(make(reactor, std::move(socket), kind, attempt.family, 0));
  connection.state_ = State::kConnecting;
  connection.context_ = attempt.context;
  connection.check_self_connect_ = attempt.check_self_connect;
  connection.connected_ = attempt.error == 0;
  if (attempt.error == EINPROGRESS) {
    // Only now: an unconnected socket would report OUT and HUP at once.
    connection.error_ = reactor.watch(connection).value();
    if (attempt.deadline > attempt.deadline.zero()) connection.end_after(attempt.deadline);
  } else {
    connection.error_ = attempt.error;
  }
  if (attempt.error != EINPROGRESS || connection.error_ != 0)
    reactor.again(connection);  // told by the turn, not from here
  return connection;
}

/// Whether it is open now. If neither that nor at an end, the event meant nothing.
bool Connection::finish_connecting(std::uint32_t events) noexcept {
  if (error_ != 0) return end(error_), false;
  if (!connected_) {
    if (events == 0) return false;
    if (const int error = take_socket_error(fd()).value()) return end(error), false;
    // Some kernels tell HUP of a connect that has only begun: then there is no error, and no peer either.
    const bool certain = (events & EPOLLOUT) != 0 && (events & (EPOLLHUP | EPOLLERR)) == 0;
    if (!certain && peer().family() == AF_UNSPEC) return false;
  }
  // A connect to a free local port may pick that very port as its own, and meet itself (RFC 9293,
  // simultaneous open).
  if (check_self_connect_ && local() == peer()) return end(ECONNREFUSED), false;
  deadlines_.reset();
  tell_open();
  more_to_read_ = more_to_read_ || !is_watched();
  return state_ == State::kOpen;
}

void Connection::tell_open() noexcept {
  if (kind_->has_deadlines_ && deadlines() == nullptr) return;
  state_ = State::kOpen;
  was_open_ = true;
  ++reactor().counts().connections_opened;
  ++reactor().counts().connections_open;
  if (deadlines_) deadlines_->opened();
  if (kind_->handlers.open) kind_->handlers.open(*this);
}

// ---- The turn's call ----

void Connection::on_ready(std::uint32_t events) noexcept {
  if ((events & kMoreThanBytes) != 0) short_read_means_drained_ = false;
  if ((events & (EPOLLIN | kMoreThanBytes)) != 0) more_to_read_ = true;
  if ((events & EPOLLERR) != 0) sees_error_ = true;
  switch (state_) {
    case State::kConnecting:
      if (finish_connecting(events) && more_to_read_) read();
      return;
    case State::kOpen:
    case State::kFailing:
      if (peer_has_ended_ && (events & (EPOLLERR | EPOLLHUP)) != 0) return peer_gone();
      if (output_) write();
      if (more_to_read_ || state_ == State::kFailing) read();
      return;
    case State::kClosing:
      if (output_) write();
      return;
    case State::kLingering:
      return read_last();
    case State::kEnded:
      return;
  }
}

void Connection::reaped() noexcept {
  if (kind_->ended_) return;
  if (kind_->handlers.closed) kind_->handlers.closed(*this, error_of(error_));
  if (kind_->tells_left_ && !kind_->ended_) kind_->left(ticket_);
}

// ---- Reading ----

bool Connection::may_read() const noexcept {
  if (state_ != State::kOpen && state_ != State::kFailing) return false;
  return !paused_by_user_ && !paused_by_output_ && !peer_has_ended_;
}

/// Drains: reads until EAGAIN, the end of the stream, an error, or the budget. A short read means drained
/// too, unless epoll has told of more than bytes: a FIN or an error, which lie behind the last of them, or
/// urgent data, at which a read stops. On a Unix socket a read stops at passed descriptors also.
void Connection::read() noexcept {
  const std::span<char> scratch = reactor().scratch();
  std::size_t budget = kind_->options.read_bytes_per_turn_max;
  more_to_read_ = true;
  while (may_read()) {
    const ssize_t count = ::recv(fd(), scratch.data(), scratch.size(), 0);
    if (count > 0) {
      const auto bytes = static_cast<std::size_t>(count);
      has_heard_ = true;
      reactor().counts().received_bytes += bytes;
      if (deadlines_) deadlines_->received(bytes);
      if (kind_->handlers.data) kind_->handlers.data(*this, {scratch.data(), bytes});
      if (bytes < scratch.size() && short_read_means_drained_) {
        more_to_read_ = false;
        break;
      }
      if (bytes >= budget) return reactor().again(*this);
      budget -= bytes;
    } else if (count == 0) {
      return peer_ended();
    } else if (errno == EAGAIN) {
      more_to_read_ = false;
      break;
    } else if (errno != EINTR) {
      return end(state_ == State::kFailing ? error_ : errno);
    }
  }
  if (state_ == State::kFailing) return end(error_);
  if (state_ == State::kOpen) watch_or_end();
}

/// Its FIN: no more will come, but the answer to what did come may still be on its way out.
void Connection::peer_ended() noexcept {
  peer_has_ended_ = true;
  more_to_read_ = false;
  if (sees_error_) {
    if (const int error = take_socket_error(fd()).value()) return end(error);
  }
  const bool stays = state_ == State::kOpen && kind_->handlers.peer_ended;
  if (stays) kind_->handlers.peer_ended(*this);
  if (state_ == State::kFailing) return end(error_);
  if (state_ != State::kOpen) return;
  if (!output_ && (output_ended_ || !stays)) return end_behind_peer();
  watch_or_end();  // for its reset
}

/// Half-closed, and now it has reset, or the other half has gone too.
void Connection::peer_gone() noexcept {
  const int error = take_socket_error(fd()).value();
  end(error == 0 && output_ ? EPIPE : error);
}

void Connection::pause_reading() noexcept {
  assert(is_thread_of(reactor()));
  paused_by_user_ = true;
}

void Connection::resume_reading() noexcept {
  assert(is_thread_of(reactor()));
  if (deadlines_ && paused_by_user_ && state_ == State::kOpen) deadlines_->input_begins();
  paused_by_user_ = false;
  if (more_to_read_ && may_read()) reactor().again(*this);
}

void Connection::expect_input(bool expected) noexcept {
  assert(is_thread_of(reactor()));
  const bool begins = expected && !input_expected_;
  input_expected_ = expected;
  if (begins && deadlines_ && state_ == State::kOpen) deadlines_->input_begins();
}

// ---- Ending ----

void Connection::close() noexcept {
  assert(is_thread_of(reactor()));
  switch (state_) {
    case State::kConnecting:
      return end(0);
    case State::kFailing:
      return end(error_);
    case State::kOpen:
      break;
    default:
      return;
  }
  if (!reactor().is_of_this_process()) return end(0);  // the parent goes on with the same socket
  state_ = State::kClosing;
  if (!output_) return end_in_order();
  end_after(
      kind_->options.linger);  // from the last progress: a peer that takes nothing does not hold us for ever
}

/// All is sent. close(2) with input unread, or still under way, would send a reset that may overtake our last
/// bytes (RFC 2525, 2.17). So whoever has spoken, or has much to take in, is heard out. Who never spoke and
/// was sent one segment, as the textbook's hello client, needs no such care, and costs no more than this one
/// recv.
void Connection::end_in_order() noexcept {
  if (peer_has_ended_) return end_behind_peer();
  char probe;  // not the scratch buffer: the handler that calls close() may be looking at it
  ssize_t count = 0;
  do {
    count = ::recv(fd(), &probe, sizeof(probe), 0);
  } while (count < 0 && errno == EINTR);
  if (count == 0) return end_behind_peer();
  if (count < 0 && errno != EAGAIN) return end(errno);
  if (count < 0 && !has_heard_ && sent_bytes_ <= kSmallAnswer) return end(0);
  linger();
}

void Connection::linger() noexcept {
  state_ = State::kLingering;
  if (::shutdown(fd(), SHUT_WR) != 0) {  // ENOTCONN: it has reset
    const int error = errno;
    const int reset = take_socket_error(fd()).value();
    return end(reset != 0 ? reset : error);
  }
  if (is_watched()) {
    reactor().again(*this);  // the edge for what lies there already may be behind us
  } else if (!watch_or_end()) {
    return;
  }
  if (Deadlines* const all = deadlines()) all->linger();
}

/// Both sides have ended. The peer may never read what it was sent, and once the descriptor is closed the
/// kernel keeps that for minutes. So a connection that has sent more than a segment lingers until the peer's
/// kernel has all of it.
void Connection::end_behind_peer() noexcept {
  peer_has_ended_ = true;
  if (sent_bytes_ <= kSmallAnswer || unacknowledged() == 0) return end(0);
  if (state_ != State::kLingering) linger();
}

/// Bytes of ours that the kernel still holds (SIOCOUTQ, tcp(7)), where our FIN counts as one of them. 0 for a
/// Unix socket, of which they lie in the peer's own queue.
std::size_t Connection::unacknowledged() const noexcept {
  int bytes = 0;
  if (::ioctl(fd(), SIOCOUTQ, &bytes) != 0 || bytes <= 1 || local().family() == AF_UNIX) return 0;
  return static_cast<std::size_t>(bytes);
}

void Connection::read_last() noexcept {
  const std::span<char> scratch = reactor().scratch();
  std::size_t budget = kind_->options.read_bytes_per_turn_max;
  for (;;) {
    const ssize_t count = ::recv(fd(), scratch.data(), scratch.size(), 0);
    if (count == 0) return peer_ended_last();
    if (count < 0 && errno == EAGAIN) return;
    if (count < 0 && errno != EINTR) return end(errno);
    if (count < 0) continue;
    if (static_cast<std::size_t>(count) >= budget) return reactor().again(*this);
    budget -= static_cast<std::size_t>(count);
  }
}

/// Its FIN, behind ours. A reset behind it is no error of recv(2) any more.
void Connection::peer_ended_last() noexcept {
  if (sees_error_) {
    if (const int error = take_socket_error(fd()).value()) return end(error);
  }
  end_behind_peer();
}

void Connection::abort() noexcept {
  assert(is_thread_of(reactor()));
  if (state_ == State::kEnded) return;
  if (reactor().is_of_this_process()) reset_on_close(fd());
  end(ECANCELED);
}

void Connection::end(int error) noexcept {
  if (state_ == State::kEnded) return;
  // A FIN would say that this was all.
  if (error != 0 && (is_truncated_ || output_)) reset_on_close(fd());
  if (was_open_) {
    ++reactor().counts().connections_closed;
    --reactor().counts().connections_open;
  }
  state_ = State::kEnded;
  error_ = error;
  leave_group();
  drop_output();
  if (deadlines_) deadlines_->cancel();
  reactor().retire(*this);
}

bool Connection::watch_or_end() noexcept {
  if (is_watched()) return true;
  const std::error_code error = reactor().watch(*this);
  if (error) end(error.value());
  return !error;
}

Connection::Deadlines* Connection::deadlines() noexcept {
  if (!deadlines_) deadlines_.reset(new (std::nothrow) Deadlines(*this));
  if (!deadlines_) end(ENOMEM);
  return deadlines_.get();
}

void Connection::end_after(std::chrono::nanoseconds delay) noexcept {
  if (Deadlines* const all = deadlines()) all->end_after(delay);
}

void Connection::end_all(Reactor& reactor, Kind& kind) noexcept {
  assert(is_thread_of(reactor));
  kind.ended_ = true;
  if (kind.living_ == 0) return reactor.retire(std::unique_ptr<Reapable>(&kind));
  close_all(reactor, kind);
}

void Connection::close_all([[maybe_unused]] Reactor& reactor, const Kind& kind) noexcept {
  assert(is_thread_of(reactor));
  for (Connection* connection = kind.first_; connection != nullptr;) {
    auto* const next = static_cast<Connection*>(connection->next_);
    connection->close();  // ends at most itself
    connection = next;
  }
}

void Connection::tell_draining([[maybe_unused]] Reactor& reactor, Kind& kind) noexcept {
  assert(is_thread_of(reactor));
  kind.draining_ = true;
  if (!kind.handlers.draining) return;
  Connection* connection = kind.first_;
  while (connection != nullptr && !kind.ended_) {
    auto* const next = static_cast<Connection*>(connection->next_);
    if (connection->is_open() && !connection->told_draining_) {
      connection->told_draining_ = true;
      kind.handlers.draining(*connection);
    }
    // A handler may end any of them. What has ended is in no list, but is not freed before the turn ends.
    connection = next != nullptr && next->state_ == State::kEnded ? kind.first_ : next;
  }
}

// ---- Questions ----

Endpoint Connection::peer() const noexcept {
  assert(is_thread_of(reactor()));
  return peer_endpoint(fd());
}
Endpoint Connection::local() const noexcept {
  assert(is_thread_of(reactor()));
  return local_endpoint(fd());
}
std::optional<TcpInfo> Connection::tcp_info() const noexcept {
  assert(is_thread_of(reactor()));
  return anteroom::tcp_info(fd());
}

}  // namespace anteroom
