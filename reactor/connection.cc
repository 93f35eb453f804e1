#include <anteroom/connection.h>
#include <anteroom/reactor.h>
#include <anteroom/socket.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <utility>

namespace anteroom {
namespace {

using namespace std::chrono_literals;

constexpr std::chrono::hours kLingerMax{24};
constexpr std::size_t kSmallAnswer = 1400;  // bytes: one segment, which is on its way at once

/// What lies behind the last bytes, or stops a read in the middle of them (PRI: urgent data), and brings no
/// further edge.
constexpr std::uint32_t kMoreThanBytes = EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI;

/// Of connections whose acceptor or connector is gone.
const Connection::Kind& silent_kind() {
  static const Connection::Kind kind({}, {});
  return kind;
}

std::error_code error_of(int error) noexcept { return {error, std::system_category()}; }

}  // namespace

Connection::Connection(Reactor& reactor, Fd socket, const Kind& kind, int family) noexcept
    : Channel(reactor, std::move(socket)),
      short_read_means_drained_(family != AF_UNIX),
      linger_(std::clamp<std::chrono::milliseconds>(kind.options.linger, 0ms, kLingerMax)),
      kind_(&kind) {}

/// Only with its reactor does it end with output still waiting.
Connection::~Connection() {
  if (!output_.empty()) reset_on_close(fd());
}

// ---- Beginning ----

void Connection::start(Reactor& reactor, Fd socket, const Kind& kind, int family) {
  Connection& connection =
      reactor.adopt(std::make_unique<Connection>(reactor, std::move(socket), kind, family));
  connection.tell_open();
  connection.read();
}

Connection& Connection::start_connecting(Reactor& reactor, Fd socket, const Kind& kind,
                                         const Attempt& attempt) {
  Connection& connection =
      reactor.adopt(std::make_unique<Connection>(reactor, std::move(socket), kind, attempt.family));
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
  if (error_ != 0) return end(error_of(error_)), false;
  if (!connected_) {
    if (events == 0) return false;
    if (const std::error_code error = take_socket_error(fd())) return end(error), false;
    // Some kernels tell HUP of a connect that has only begun: then there is no error, and no peer either.
    const bool certain = (events & EPOLLOUT) != 0 && (events & (EPOLLHUP | EPOLLERR)) == 0;
    if (!certain && peer().family() == AF_UNSPEC) return false;
  }
  // A connect to a free local port may pick that very port as its own, and meet itself (RFC 9293,
  // simultaneous open).
  if (check_self_connect_ && local() == peer()) return end(error_of(ECONNREFUSED)), false;
  deadline_ = Timer();
  tell_open();
  more_to_read_ = more_to_read_ || !is_watched();
  return state_ == State::kOpen;
}

void Connection::tell_open() noexcept {
  state_ = State::kOpen;
  was_open_ = true;
  if (kind_->handlers.open) kind_->handlers.open(*this);
}

// ---- The turn's call ----

void Connection::on_ready(std::uint32_t events) noexcept {
  if ((events & kMoreThanBytes) != 0) short_read_means_drained_ = false;
  if ((events & (EPOLLIN | kMoreThanBytes)) != 0) more_to_read_ = true;
  switch (state_) {
    case State::kConnecting:
      if (finish_connecting(events) && more_to_read_) read();
      return;
    case State::kOpen:
    case State::kFailing:
      if (!output_.empty()) write();
      if (more_to_read_ || state_ == State::kFailing) read();
      return;
    case State::kClosing:
      return write();
    case State::kLingering:
      return read_last();
    case State::kEnded:
      return;
  }
}

void Connection::reaped() noexcept {
  if (!kind_->ended && kind_->handlers.closed) kind_->handlers.closed(*this, error_of(error_));
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
      return end(state_ == State::kFailing ? error_of(error_) : last_error());
    }
  }
  if (state_ == State::kFailing) return end(error_of(error_));
  if (state_ == State::kOpen) watch_or_end();
}

/// Its FIN: no more will come, but the answer to what did come may still be on its way out.
void Connection::peer_ended() noexcept {
  peer_has_ended_ = true;
  more_to_read_ = false;
  if (output_.empty()) end(error_of(error_));
}

void Connection::pause_reading() noexcept { paused_by_user_ = true; }

void Connection::resume_reading() noexcept {
  paused_by_user_ = false;
  if (more_to_read_ && may_read()) reactor().again(*this);
}

// ---- Writing ----

bool Connection::send(std::string_view bytes) noexcept {
  if (state_ != State::kOpen) return false;
  const std::size_t sent = output_.empty() ? write_now(bytes) : 0;
  if (state_ != State::kOpen) return false;
  if (sent == bytes.size()) return true;
  if (!output_.append(bytes.substr(sent))) {
    send_failed(error_of(ENOMEM));
    return false;
  }
  if (output_.size() >= kind_->options.high_watermark_bytes) paused_by_output_ = true;
  return watch_or_end();
}

void Connection::write() noexcept {
  const std::size_t sent = write_now(output_.front());
  if (state_ != State::kOpen && state_ != State::kClosing) return;
  output_.consume(sent);
  if (output_.size() <= kind_->options.low_watermark_bytes) paused_by_output_ = false;
  if (!output_.empty()) {
    if (state_ == State::kClosing && sent > 0) end_after(linger_);
    return;
  }
  if (state_ == State::kClosing) return end_in_order();
  if (kind_->handlers.drained) kind_->handlers.drained(*this);
  if (state_ == State::kOpen && peer_has_ended_ && output_.empty()) end({});
}

/// How many of `bytes` the kernel took.
std::size_t Connection::write_now(std::string_view bytes) noexcept {
  std::size_t sent = 0;
  while (sent < bytes.size()) {
    const ssize_t count = ::send(fd(), bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (count >= 0) {
      sent += static_cast<std::size_t>(count);
    } else if (errno == EAGAIN) {
      break;
    } else if (errno != EINTR) {
      send_failed(last_error());
      break;
    }
  }
  sent_bytes_ += sent;
  return sent;
}

/// The peer has reset, or the kernel has no memory. What the peer sent before may still lie there: the turn
/// reads it first.
void Connection::send_failed(std::error_code error) noexcept {
  is_truncated_ = true;
  if (state_ != State::kOpen || peer_has_ended_) return end(error);
  state_ = State::kFailing;
  error_ = error.value();
  output_.clear();
  paused_by_output_ = false;
  reactor().again(*this);
}

// ---- Ending ----

void Connection::close() noexcept {
  switch (state_) {
    case State::kConnecting:
      return end({});
    case State::kFailing:
      return end(error_of(error_));
    case State::kOpen:
      break;
    default:
      return;
  }
  state_ = State::kClosing;
  if (output_.empty()) return end_in_order();
  end_after(linger_);  // from the last progress: a peer that takes nothing does not hold us for ever
}

/// All is sent. close(2) with input unread, or still under way, would send a reset that may overtake our last
/// bytes (RFC 2525, 2.17). So whoever has spoken, or has much to take in, is heard out. Who never spoke and
/// was sent one segment, as the textbook's hello client, needs no such care, and costs no more than this one
/// recv.
void Connection::end_in_order() noexcept {
  if (peer_has_ended_) return end({});
  char probe;  // not the scratch buffer: the handler that calls close() may be looking at it
  ssize_t count = 0;
  do {
    count = ::recv(fd(), &probe, sizeof(probe), 0);
  } while (count < 0 && errno == EINTR);
  if (count == 0) return end({});
  if (count < 0 && errno != EAGAIN) return end(last_error());
  if (count < 0 && !has_heard_ && sent_bytes_ <= kSmallAnswer) return end({});
  linger();
}

void Connection::linger() noexcept {
  state_ = State::kLingering;
  if (::shutdown(fd(), SHUT_WR) != 0) return end(last_error());
  if (is_watched()) {
    reactor().again(*this);  // the edge for what lies there already may be behind us
  } else if (!watch_or_end()) {
    return;
  }
  end_after(linger_);
}

void Connection::read_last() noexcept {
  const std::span<char> scratch = reactor().scratch();
  std::size_t budget = kind_->options.read_bytes_per_turn_max;
  for (;;) {
    const ssize_t count = ::recv(fd(), scratch.data(), scratch.size(), 0);
    if (count == 0) return end({});
    if (count < 0 && errno == EAGAIN) return;
    if (count < 0 && errno != EINTR) return end(last_error());
    if (count < 0) continue;
    if (static_cast<std::size_t>(count) >= budget) return reactor().again(*this);
    budget -= static_cast<std::size_t>(count);
  }
}

void Connection::abort() noexcept {
  if (state_ == State::kEnded) return;
  reset_on_close(fd());
  end(error_of(ECANCELED));
}

void Connection::end(std::error_code error) noexcept {
  if (state_ == State::kEnded) return;
  // A FIN would say that this was all.
  if (error && (is_truncated_ || !output_.empty())) reset_on_close(fd());
  state_ = State::kEnded;
  error_ = error.value();
  output_.clear();
  deadline_.cancel();
  reactor().retire(*this);
}

bool Connection::watch_or_end() noexcept {
  if (is_watched()) return true;
  const std::error_code error = reactor().watch(*this);
  if (error) end(error);
  return !error;
}

/// A peer that stays after all is sent has still been served; otherwise the deadline is an error.
void Connection::end_after(std::chrono::nanoseconds delay) noexcept {
  try {
    deadline_ = Timer(reactor(), [this] { end(error_of(state_ == State::kLingering ? 0 : ETIMEDOUT)); });
    deadline_.arm(delay);
  } catch (const std::bad_alloc&) {
    end(error_of(ENOMEM));
  }
}

void Connection::end_all(Reactor& reactor, const Kind& kind) noexcept {
  kind.ended = true;
  reactor.for_each_channel([&kind](Channel& channel) {
    auto* const connection = dynamic_cast<Connection*>(&channel);
    if (connection == nullptr || connection->kind_ != &kind) return;
    connection->kind_ = &silent_kind();
    connection->close();
  });
}

// ---- Questions ----

Endpoint Connection::peer() const noexcept { return peer_endpoint(fd()); }
Endpoint Connection::local() const noexcept { return local_endpoint(fd()); }
std::optional<TcpInfo> Connection::tcp_info() const noexcept { return anteroom::tcp_info(fd()); }

}  // namespace anteroom
