#include <anteroom/datagram_socket.h>
#include <anteroom/socket.h>
#include <anteroom/timer.h>
#include <anteroom/unix_path.h>
#include <fmt/format.h>
#include <linux/sock_diag.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <chrono>
#include <memory>
#include <optional>
#include <utility>

#include "unsent_datagrams.h"

namespace anteroom {
namespace {

constexpr unsigned kBatchMax = 32;
constexpr unsigned kBatchMin = 2;  // with one, nobody would know whether there are more
constexpr std::chrono::milliseconds kRestFromErrors{20};

/// Throws std::system_error (invalid_argument).
void check(const DatagramOptions& options) {
  // connect(2) to no address would end a connection, and succeed.
  if (options.peer && options.peer->family() == AF_UNSPEC)
    throw argument_error("connect", "a datagram socket to no address");
  const auto check_number = [](const char* name, int value, int least) {
    if (value < least) throw argument_error("set", fmt::format("{} of a datagram socket to {}", name, value));
  };
  check_number("datagrams_per_turn_max", options.datagrams_per_turn_max, 1);
  check_number("receive_buffer_bytes", options.receive_buffer_bytes, 0);
  check_number("send_buffer_bytes", options.send_buffer_bytes, 0);
  if (options.receive_bytes_max == 0)
    throw argument_error("set", "receive_bytes_max of a datagram socket to 0");
}

int family_of(const Endpoint& local, const DatagramOptions& options) noexcept {
  return local.family() == AF_UNSPEC && options.peer ? options.peer->family() : local.family();
}

Fd open_datagram_socket(int family) {
  Fd socket(::socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket) throw setup_error(last_error(), "socket", "for datagrams");
  return socket;
}

}  // namespace

class DatagramSocket::Mailbox final : public Channel {
 public:
  Mailbox(Reactor& reactor, int family, DatagramHandlers handlers, const DatagramOptions& options)
      : Channel(reactor, open_datagram_socket(family)),
        handlers_(std::move(handlers)),
        receive_bytes_max_(std::clamp<std::size_t>(options.receive_bytes_max, 1, reactor.scratch().size())),
        per_turn_max_(static_cast<unsigned>(options.datagrams_per_turn_max)),
        batch_max_(static_cast<unsigned>(
            std::min<std::size_t>(kBatchMax, reactor.scratch().size() / receive_bytes_max_))),
        batch_(std::min(kBatchMin, batch_max_)),
        is_unix_(family == AF_UNIX),
        waits_for_room_(!is_unix_ || options.peer),
        unsent_(options.unsent_bytes_max),
        alarm_(reactor, [this] { woken(); }) {}
  ~Mailbox() override { remove_path(); }

  /// Throws std::system_error.
  void open(const Endpoint& local, const DatagramOptions& options) {
    const auto check = [](const char* tried, const Endpoint& on, std::error_code error) {
      if (error) throw setup_error(error, tried, on.to_string());
    };
    const auto set = [&](const char* tried, int name, int value) {
      if (value > 0) check(tried, local, set_socket_option(fd(), SOL_SOCKET, name, value));
    };
    set("SO_RCVBUF", SO_RCVBUF, options.receive_buffer_bytes);
    set("SO_SNDBUF", SO_SNDBUF, options.send_buffer_bytes);
    set("SO_REUSEPORT", SO_REUSEPORT, options.reuse_port ? 1 : 0);
    if (local.family() != AF_UNSPEC) check("bind", local, bind_to(local));
    if (options.peer && ::connect(fd(), options.peer->data(), options.peer->size()) != 0)
      check("connect", *options.peer, last_error());
  }

  bool send(const Endpoint& to, std::string_view bytes) noexcept {
    if (!unsent_.append(to, bytes)) {
      has_waited_ = has_waited_ || unsent_.count() > 0;
      ++stats_.refused;
      return false;
    }
    if (unsent_.count() >= kBatchMax && may_push()) push();
    if (unsent_.count() == 1 && !is_working_ && !is_blocked_) alarm_.arm({});
    return true;
  }

  /// As far as it goes without telling anybody.
  void flush() noexcept {
    while (unsent_.count() > 0 && may_push()) push();
  }

  void close() noexcept {
    if (reactor().is_of_this_process()) flush();
    alarm_.cancel();
    remove_path();  // now, or at the turn's end it might be our successor's
    reactor().retire(*this);
  }

  std::size_t unsent_bytes() const noexcept { return unsent_.size(); }

  DatagramStats stats() const noexcept {
    DatagramStats stats = stats_;
    std::uint32_t memory[SK_MEMINFO_VARS] = {};
    socklen_t size = sizeof(memory);
    if (::getsockopt(fd(), SOL_SOCKET, SO_MEMINFO, memory, &size) == 0)
      stats.kernel_drops = memory[SK_MEMINFO_DROPS];
    return stats;
  }

 private:
  void on_ready(std::uint32_t events) noexcept override {
    if ((events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0) more_to_receive_ = true;
    if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0) is_blocked_ = false;
    if (!is_blocked_ && failure_ == EAGAIN) failure_ = 0;  // met before the edge, which will not come twice
    work();
  }

  /// Something was sent in this turn, or a rest is over.
  void woken() noexcept {
    if (!is_watched()) {
      is_blocked_ = false;
      more_to_receive_ = true;
      watch_for_room();
    }
    work();
  }

  void work() noexcept {
    is_working_ = true;
    send_all();
    if (!is_retired() && more_to_receive_) receive();
    is_working_ = false;
    // Sent by `drained` or `error`, which would have no end if it went out in the same turn.
    if (!is_retired() && (unsent_.count() > 0 || has_waited_) && !is_blocked_) alarm_.arm({});
  }

  // ---- Receiving

  /// Until the kernel has fewer than were asked for, or the budget is used up. An error that cuts a batch
  /// short brings an edge of its own.
  void receive() noexcept {
    bool has_failed = false;
    for (unsigned budget = per_turn_max_; budget > 0;) {
      const unsigned wanted = std::min(budget, batch_);
      const int count = receive_batch(wanted);
      if (count < 0) {
        // One is what the network tells of a peer; two in a row are a state, and may last.
        if (has_failed) return alarm_.arm(kRestFromErrors);
        tell(-count, Endpoint());
      }
      if (!is_retired()) send_all();
      if (is_retired()) return;
      has_failed = count < 0;
      if (has_failed) continue;
      more_to_receive_ = count == static_cast<int>(wanted);
      if (!more_to_receive_) return;
      budget -= wanted;
    }
    reactor().again(*this);
  }

  struct Batch {
    mmsghdr messages[kBatchMax];
    iovec pieces[kBatchMax];
    sockaddr_un senders[kBatchMax];
  };

  /// How many came, or the errno as a negative number.
  int receive_batch(unsigned wanted) noexcept {
    Batch batch;  // only what is wanted is set up
    for (unsigned i = 0; i < wanted; ++i) {
      batch.pieces[i] = {.iov_base = slot(i), .iov_len = receive_bytes_max_};
      batch.messages[i] = message_of(&batch.senders[i], sizeof(batch.senders[i]), batch.pieces[i]);
    }
    int count = -1;
    do {  // MSG_TRUNC: a length is that of the datagram, and not of what had room
      count = ::recvmmsg(fd(), batch.messages, wanted, MSG_TRUNC, nullptr);
    } while (count < 0 && errno == EINTR);
    if (count < 0) return errno == EAGAIN ? 0 : -errno;
    const auto came = static_cast<unsigned>(count);
    ++stats_.receive_calls;
    // Whoever gets all that he asked for asks for more next time, and who gets little for less.
    if (came == batch_) {
      batch_ = std::min(4 * batch_, batch_max_);
    } else if (came < batch_ / 4) {
      batch_ /= 4;
    }
    for (unsigned i = 0; i < came && !is_retired(); ++i) tell(batch.messages[i], slot(i));
    return count;
  }

  void tell(const mmsghdr& message, const char* bytes) noexcept {
    const std::size_t kept = std::min<std::size_t>(message.msg_len, receive_bytes_max_);
    ++stats_.received;
    stats_.received_bytes += kept;
    if (kept < message.msg_len) ++stats_.cut;
    if (!handlers_.data) return;
    const auto* const sender = static_cast<const sockaddr*>(message.msg_hdr.msg_name);
    handlers_.data({.from = Endpoint::from(sender, message.msg_hdr.msg_namelen),
                    .bytes = {bytes, kept},
                    .lost_bytes = message.msg_len - kept});
  }

  char* slot(unsigned i) noexcept { return reactor().scratch().data() + i * receive_bytes_max_; }

  // ---- Sending

  bool may_push() const noexcept { return failure_ == 0 && !is_blocked_; }

  /// One system call. Of a failure, which is the first one's, nobody is told here: that is for the turn.
  std::size_t push() noexcept {
    mmsghdr messages[kBatchMax];
    iovec pieces[kBatchMax];
    const unsigned count = unsent_.gather(messages, pieces);
    int sent = -1;
    do {
      sent = ::sendmmsg(fd(), messages, count, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) return failure_ = errno, 0;
    ++stats_.send_calls;
    stats_.sent += static_cast<unsigned>(sent);
    for (int i = 0; i < sent; ++i) stats_.sent_bytes += messages[i].msg_len;
    unsent_.forget(static_cast<unsigned>(sent));
    return static_cast<unsigned>(sent);
  }

  /// What has waited up to now, and what became of it. Only from the turn.
  void send_all() noexcept {
    std::size_t left = unsent_.count();
    while (left > 0 && !is_blocked_) {
      const std::size_t done = failure_ == 0 ? push() : fail();
      if (is_retired()) return;
      left -= std::min(left, done);
    }
    if (!has_waited_ || unsent_.count() > 0) return;
    has_waited_ = false;
    if (sees_room_) watch_for_datagrams();
    if (handlers_.drained) handlers_.drained();
  }

  /// Deals with the failure of the first that waits; 1 once that is settled.
  std::size_t fail() noexcept {
    const int error = std::exchange(failure_, 0);
    if (error == EAGAIN && waits_for_room_) return wait_for_room(), 0;
    // UDP: not of this one, but of an earlier one that nobody received, udp(7).
    const bool is_of_an_earlier_one = error == ECONNREFUSED && !is_unix_;
    if (is_of_an_earlier_one) return tell(error, Endpoint()), 1;
    const Endpoint to = unsent_.address();
    unsent_.forget(1);
    ++stats_.failed;
    tell(error, to);
    return 1;
  }

  /// Until all has gone, epoll tells of room, too. Not at other times: with UDP each datagram that the
  /// network has taken is an edge, and would wake us for nothing.
  void wait_for_room() noexcept {
    is_blocked_ = has_waited_ = true;
    if (!sees_room_) watch_for_room();
  }

  void watch_for_room() noexcept {
    if (is_watched()) reactor().unwatch(*this);
    sees_room_ = !reactor().watch(*this);
    if (!sees_room_) alarm_.arm(kRestFromErrors);
  }
  void watch_for_datagrams() noexcept {
    reactor().unwatch(*this);
    sees_room_ = false;
    if (reactor().watch_exclusive(*this)) alarm_.arm(kRestFromErrors);
  }

  void tell(int error, const Endpoint& to) noexcept {
    if (handlers_.error) handlers_.error({error, std::system_category()}, to);
  }

  // ---- Its address

  std::error_code bind_to(const Endpoint& local) {
    std::optional<UnixPathLock> path_lock;
    if (local.family() == AF_UNIX && !local.path().starts_with('@'))
      path_lock.emplace(local).remove_dead(SOCK_DGRAM);
    if (::bind(fd(), local.data(), local.size()) != 0) return last_error();
    if (!path_lock) return {};
    path_ = local;
    inode_ = inode_at(local);
    return {};
  }

  void remove_path() noexcept {
    if (path_.family() != AF_UNIX || !reactor().is_of_this_process()) return;
    remove_path_if(path_, inode_);
    path_ = Endpoint();
  }

  const DatagramHandlers handlers_;
  const std::size_t receive_bytes_max_;
  const unsigned per_turn_max_;
  const unsigned batch_max_;  // as many as have room in the scratch
  unsigned batch_;
  const bool is_unix_;
  const bool waits_for_room_;     // a full queue is ours, or that of the one peer
  bool is_working_ = false;       // what is sent now goes out without the alarm
  bool is_blocked_ = false;       // sending has met EAGAIN
  bool sees_room_ = false;        // epoll tells when it has gone
  bool has_waited_ = false;       // `drained` has to be told
  bool more_to_receive_ = false;  // receiving stopped before it met EAGAIN
  int failure_ = 0;               // errno: of the first that waits
  UnsentDatagrams unsent_;
  Timer alarm_;
  Endpoint path_;    // to be removed at the end, if it is still this file:
  ino_t inode_ = 0;  // 0: not known
  DatagramStats stats_;
};

DatagramSocket::DatagramSocket(Reactor& reactor, const Endpoint& local, DatagramHandlers handlers,
                               const DatagramOptions& options) {
  assert(is_thread_of(reactor));
  check(options);
  auto mailbox = std::make_unique<Mailbox>(reactor, family_of(local, options), std::move(handlers), options);
  mailbox->open(local, options);
  mailbox_ = &reactor.adopt(std::move(mailbox));
  if (const std::error_code error = reactor.watch_exclusive(*mailbox_)) {
    mailbox_->close();
    throw setup_error(error, "epoll_ctl", "for a datagram socket");
  }
}

DatagramSocket::~DatagramSocket() {
  assert(is_thread_of(mailbox_->reactor()));
  mailbox_->close();
}

bool DatagramSocket::send(const Endpoint& to, std::string_view bytes) noexcept {
  assert(is_thread_of(mailbox_->reactor()));
  return mailbox_->send(to, bytes);
}
void DatagramSocket::flush() noexcept {
  assert(is_thread_of(mailbox_->reactor()));
  mailbox_->flush();
}
std::size_t DatagramSocket::unsent_bytes() const noexcept {
  assert(is_thread_of(mailbox_->reactor()));
  return mailbox_->unsent_bytes();
}
Endpoint DatagramSocket::endpoint() const noexcept {
  assert(is_thread_of(mailbox_->reactor()));
  return local_endpoint(mailbox_->fd());
}
int DatagramSocket::fd() const noexcept {
  assert(is_thread_of(mailbox_->reactor()));
  return mailbox_->fd();
}
DatagramStats DatagramSocket::stats() const noexcept {
  assert(is_thread_of(mailbox_->reactor()));
  return mailbox_->stats();
}

}  // namespace anteroom
