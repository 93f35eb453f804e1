// How a connection sends.
#include <anteroom/connection.h>
#include <anteroom/reactor.h>
#include <anteroom/socket.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <limits>
#include <new>
#include <utility>

#include "connection_deadlines.h"
#include "output.h"

namespace anteroom {
namespace {

constexpr std::size_t kPiecesPerCall = 64;
constexpr std::uint64_t kFileOffsetMax = std::numeric_limits<off_t>::max();

}  // namespace

inline void Connection::note_sent(std::size_t count) noexcept {
  reactor().counts().sent_bytes += count;
  sent_bytes_ = static_cast<std::uint16_t>(std::min<std::size_t>(sent_bytes_ + count, kSmallAnswer + 1));
  if (deadlines_ && count > 0) deadlines_->sent(count);
}

inline bool Connection::put(std::string_view bytes, int flags) noexcept {
  if (state_ != State::kOpen || output_ended_) return false;
  if (bytes.empty()) return true;
  if (output_) return keep(bytes);
  std::size_t sent = 0;
  while (sent < bytes.size()) {
    const ssize_t count = ::send(fd(), bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL | flags);
    if (count >= 0) {
      sent += static_cast<std::size_t>(count);
    } else if (errno == EAGAIN) {
      break;
    } else if (errno != EINTR) {
      return send_failed(errno), false;
    }
  }
  note_sent(sent);
  return sent == bytes.size() || keep(bytes.substr(sent));
}

bool Connection::send(std::string_view bytes) noexcept {
  assert(is_thread_of(reactor()));
  return put(bytes, 0);
}

void Connection::close(std::string_view last_words) noexcept {
  assert(is_thread_of(reactor()));
  if (!put(last_words, MSG_MORE)) return last_words_lost(last_words);
  close();
}

/// They cannot be sent in this state, or sending has failed, which the turn reports.
void Connection::last_words_lost(std::string_view last_words) noexcept {
  if (state_ == State::kConnecting && !last_words.empty()) return end(ENOTCONN);
  if (state_ == State::kOpen && !last_words.empty()) return send_failed(EPIPE);  // after end_output()
  if (state_ != State::kFailing) close();
}

bool Connection::send(std::span<const std::string_view> pieces) noexcept {
  assert(is_thread_of(reactor()));
  if (state_ != State::kOpen || output_ended_) return false;
  std::size_t sent = output_ ? 0 : send_now(pieces);
  for (const std::string_view piece : pieces) {
    if (state_ != State::kOpen) return false;
    const std::size_t skipped = std::min(sent, piece.size());
    sent -= skipped;
    if (skipped < piece.size() && !keep(piece.substr(skipped))) return false;
  }
  return state_ == State::kOpen;
}

bool Connection::send_file(Fd file, std::uint64_t offset, std::uint64_t size) noexcept {
  assert(is_thread_of(reactor()));
  if (state_ != State::kOpen || output_ended_) return false;
  if (!file) return send_failed(EBADF), false;
  if (offset > kFileOffsetMax || size > kFileOffsetMax - offset) return send_failed(EOVERFLOW), false;
  if (size == 0) return true;
  const bool is_first = !output_;
  if (!make_output()) return false;
  if (size > kFileOffsetMax - std::min(output_->bytes_in_all(), kFileOffsetMax))
    return send_failed(EOVERFLOW), false;
  if (!output_->append_file(std::move(file), offset, size)) return send_failed(ENOMEM), false;
  if (is_first) {
    std::size_t sent = 0;
    const int error = send_output(sent);
    if (error == 0) return drop_output(), true;
    if (error == EINTR) reactor().again(*this);
    if (error != EAGAIN && error != EINTR) return send_failed(error), false;
  }
  // It costs no memory, but a descriptor, so who takes no files may not ask for more of them.
  if (output_->bytes_in_all() >= kind_->options.high_watermark_bytes) paused_by_output_ = true;
  return watch_or_end();
}

/// How many bytes of `pieces` the kernel took.
std::size_t Connection::send_now(std::span<const std::string_view> pieces) noexcept {
  std::size_t sent = 0;
  while (!pieces.empty()) {
    std::array<iovec, kPiecesPerCall> parts;
    const std::size_t count = std::min(pieces.size(), parts.size());
    std::size_t size = 0;
    for (std::size_t i = 0; i < count; ++i) {
      parts[i] = {.iov_base = const_cast<char*>(pieces[i].data()), .iov_len = pieces[i].size()};
      size += pieces[i].size();
    }
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = count;
    ssize_t taken = 0;
    do {
      taken = ::sendmsg(fd(), &message, MSG_NOSIGNAL);
    } while (taken < 0 && errno == EINTR);
    if (taken < 0 && errno != EAGAIN) send_failed(errno);
    if (taken < 0) break;
    sent += static_cast<std::size_t>(taken);
    if (static_cast<std::size_t>(taken) < size) {
      reactor().again(*this);  // no EAGAIN was met, so there may be no edge to come
      break;
    }
    pieces = pieces.subspan(count);
  }
  note_sent(sent);
  return sent;
}

bool Connection::keep(std::string_view bytes) noexcept {
  if (!make_output()) return false;
  LoopMetrics& counts = reactor().counts();
  const std::size_t most = kind_->options.output_bytes_max;
  const std::size_t most_in_all = reactor().buffered_bytes_max();
  const bool is_too_much = most > 0 && (bytes.size() > most || output_->bytes() > most - bytes.size());
  const std::size_t before = output_->memory();
  if (is_too_much) return send_failed(ENOBUFS), false;
  if (!output_->append(bytes)) return send_failed(ENOMEM), false;
  counts.buffered_bytes += output_->memory() - before;
  if (most_in_all > 0 && counts.buffered_bytes > most_in_all) return send_failed(ENOBUFS), false;
  if (output_->bytes_in_all() >= kind_->options.high_watermark_bytes) paused_by_output_ = true;
  return watch_or_end();
}

bool Connection::make_output() noexcept {
  if (output_) return true;
  output_.reset(new (std::nothrow) Output);
  if (!output_) return send_failed(ENOMEM), false;
  if (deadlines_) deadlines_->output_begins();
  return true;
}

void Connection::drop_output() noexcept {
  if (!output_) return;
  reactor().counts().buffered_bytes -= output_->memory();
  output_.reset();
}

/// Output::send_to(), counted.
int Connection::send_output(std::size_t& sent) noexcept {
  const std::size_t before = output_->memory();
  const int error = output_->send_to(fd(), sent);
  reactor().counts().buffered_bytes -= before - output_->memory();
  note_sent(sent);
  return error;
}

void Connection::write() noexcept {
  std::size_t sent = 0;
  const int error = send_output(sent);
  if (error != 0 && error != EAGAIN && error != EINTR) return send_failed(error);
  if (output_->bytes_in_all() <= kind_->options.low_watermark_bytes && paused_by_output_) {
    paused_by_output_ = false;
    if (deadlines_) deadlines_->input_begins();
  }
  if (error == 0) {
    drop_output();
    return written();
  }
  if (error == EINTR) reactor().again(*this);
  if (state_ == State::kClosing && sent > 0) end_after(kind_->options.linger);
}

/// All that waited has been taken.
void Connection::written() noexcept {
  if (state_ == State::kClosing) return end_in_order();
  if (output_ended_) finish_output();
  if (state_ == State::kOpen && kind_->handlers.drained) kind_->handlers.drained(*this);
  if (state_ == State::kOpen && peer_has_ended_ && !output_ && !kind_->handlers.peer_ended) end_behind_peer();
}

void Connection::end_output() noexcept {
  assert(is_thread_of(reactor()));
  assert(state_ != State::kConnecting && "end_output() before `open`");
  if (state_ != State::kOpen || output_ended_) return;
  output_ended_ = true;
  if (!output_) finish_output();
}

void Connection::finish_output() noexcept {
  if (::shutdown(fd(), SHUT_WR) != 0) {  // ENOTCONN: it has reset
    const int error = errno;
    const int reset = take_socket_error(fd()).value();
    return send_failed(reset != 0 ? reset : error);
  }
  if (peer_has_ended_) return end_behind_peer();
  if (!is_watched()) watch_or_end();  // for its end
}

std::size_t Connection::unsent_bytes() const noexcept {
  assert(is_thread_of(reactor()));
  return output_ ? output_->bytes() : 0;
}

/// The peer has reset, or the kernel has no memory. What the peer sent before may still lie there: the turn
/// reads it first.
void Connection::send_failed(int error) noexcept {
  is_truncated_ = true;
  if (state_ != State::kOpen || peer_has_ended_) return end(error);
  state_ = State::kFailing;
  error_ = error;
  drop_output();
  paused_by_output_ = false;
  reactor().again(*this);
}

}  // namespace anteroom
