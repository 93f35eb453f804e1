#include <anteroom/datagram_socket.h>
#include <anteroom/socket.h>
#include <anteroom/timer.h>
#include <linux/sock_diag.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <utility>

namespace anteroom {
namespace {

constexpr unsigned kBatchMax = 32;
constexpr unsigned kBatchMin = 2;  // with one, nobody would know whether there are more
constexpr std::chrono::milliseconds kRestFromErrors{20};
constexpr std::size_t kUnsentBytesMin = 128 * 1024;

/// Datagrams that wait to be sent, one behind the other in one stretch of memory: of each how long its address
/// and its bytes are, and both of them.
class UnsentDatagrams {
 public:
  explicit UnsentDatagrams(std::size_t bytes_max) noexcept : bytes_max_(std::max(bytes_max, kUnsentBytesMin)) {}

  std::size_t count() const noexcept { return count_; }
  std::size_t size() const noexcept { return end_ - begin_; }

  bool append(const Endpoint& to, std::string_view bytes) noexcept {
    const bool has_address = to.family() != AF_UNSPEC;
    const Head head{bytes.size(), has_address ? to.size() : 0};
    if (bytes.size() > bytes_max_ || head.record_bytes() > bytes_max_ - size()) return false;
    if (!make_room(head.record_bytes())) return false;
    put(&head, sizeof(head));
    put(to.data(), head.address_bytes);
    put(bytes.data(), bytes.size());
    ++count_;
    return true;
  }

  /// Points `messages` at the first of them; at how many.
  unsigned gather(std::span<mmsghdr> messages, std::span<iovec> pieces) const noexcept {
    const auto count = static_cast<unsigned>(std::min(count_, messages.size()));
    std::size_t at = begin_;
    for (unsigned i = 0; i < count; ++i) {
      const Head head = head_at(at);
      char* const address = memory_.get() + at + sizeof(head);
      pieces[i] = {.iov_base = address + head.address_bytes, .iov_len = head.payload_bytes};
      messages[i] = {};
      messages[i].msg_hdr.msg_name = head.address_bytes == 0 ? nullptr : address;
      messages[i].msg_hdr.msg_namelen = head.address_bytes;
      messages[i].msg_hdr.msg_iov = &pieces[i];
      messages[i].msg_hdr.msg_iovlen = 1;
      at += head.record_bytes();
    }
    return count;
  }

  /// Whom the first is for.
  Endpoint address() const noexcept {
    sockaddr_storage address{};
    std::memcpy(&address, memory_.get() + begin_ + sizeof(Head), head_at(begin_).address_bytes);
    return Endpoint::from(reinterpret_cast<sockaddr*>(&address), head_at(begin_).address_bytes);
  }

  void forget(std::size_t count) noexcept {
    count_ -= count;
    for (; count > 0; --count) begin_ += head_at(begin_).record_bytes();
    if (count_ == 0) begin_ = end_ = 0;
  }

 private:
  struct Head {
    std::size_t payload_bytes = 0;
    socklen_t address_bytes = 0;
    std::size_t record_bytes() const noexcept { return sizeof(Head) + address_bytes + payload_bytes; }
  };

  /// The memory is twice what may be used, so whatever has to be moved to the front finds room there, and
  /// what has gone since the last time was more than that.
  bool make_room(std::size_t bytes) noexcept {
    if (!memory_) memory_.reset(new (std::nothrow) char[2 * bytes_max_]);
    if (!memory_) return false;
    if (bytes > 2 * bytes_max_ - end_) {
      std::memcpy(memory_.get(), memory_.get() + begin_, size());
      end_ -= std::exchange(begin_, 0);
    }
    return true;
  }
  void put(const void* from, std::size_t bytes) noexcept {
    if (bytes > 0) std::memcpy(memory_.get() + end_, from, bytes);
    end_ += bytes;
  }
  Head head_at(std::size_t at) const noexcept {
    Head head;
    std::memcpy(&head, memory_.get() + at, sizeof(head));
    return head;
  }

  std::size_t bytes_max_;
  std::unique_ptr<char[]> memory_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  std::size_t count_ = 0;
};

/// A path on which nobody receives any more would make bind(2) say EADDRINUSE for ever.
void remove_dead_mailbox(const Endpoint& endpoint) {
  struct stat file {};
  if (::lstat(endpoint.path().c_str(), &file) != 0 || !S_ISSOCK(file.st_mode)) return;
  const Fd probe(::socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (probe && ::connect(probe.get(), endpoint.data(), endpoint.size()) != 0 && errno == ECONNREFUSED) {
    ::unlink(endpoint.path().c_str());
  }
}

Fd open_datagram_socket(const Endpoint& local, const std::optional<Endpoint>& peer) {
  const int family = local.family() != AF_UNSPEC ? local.family() : peer.value_or(local).family();
  Fd socket(::socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket) throw setup_error(last_error(), "socket", local.to_string());
  return socket;
}

}  // namespace

class DatagramSocket::Mailbox final : public Channel {
 public:
  Mailbox(Reactor& reactor, const Endpoint& local, DatagramHandlers handlers, const DatagramOptions& options)
      : Channel(reactor, open_datagram_socket(local, options.peer)),
        handlers_(std::move(handlers)),
        receive_bytes_max_(std::clamp<std::size_t>(options.receive_bytes_max, 1, reactor.scratch().size())),
        per_turn_max_(static_cast<unsigned>(std::max(options.datagrams_per_turn_max, 1))),
        unsent_(options.unsent_bytes_max),
        alarm_(reactor, [this] { alarm(); }) {
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
    const int family = local.family() != AF_UNSPEC ? local.family() : options.peer->family();
    is_unix_ = family == AF_UNIX;
    waits_for_room_ = !is_unix_ || options.peer;
  }
  ~Mailbox() override { remove_path(); }

  bool send(const Endpoint& to, std::string_view bytes) noexcept {
    if (!unsent_.append(to, bytes)) {
      has_waited_ = true;
      ++stats_.refused;
      return false;
    }
    if (unsent_.count() >= kBatchMax && may_push()) push();
    if (!is_working_ && !alarm_.is_armed() && !is_blocked_) alarm_.arm({});
    return true;
  }

  /// As far as it goes without telling anybody.
  void flush() noexcept {
    while (unsent_.count() > 0 && may_push()) push();
  }

  void close() noexcept {
    flush();
    alarm_.cancel();
    remove_path();  // now, or at the turn's end it might be our successor's
    reactor().retire(*this);
  }

  std::error_code start_watching() noexcept { return reactor().watch_exclusive(*this); }
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
    work();
  }

  /// The end of a turn in which something was sent, or of a rest.
  void alarm() noexcept {
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
    if (!is_retired() && unsent_.count() > 0 && !is_blocked_) alarm_.arm({});
  }

  // ---- Receiving

  /// Until the kernel has fewer than were asked for, or the budget is used up: an error that cuts a batch
  /// short brings an edge of its own.
  void receive() noexcept {
    for (unsigned budget = per_turn_max_; budget > 0 && !is_retired();) {
      const unsigned wanted = std::min(budget, batch_);
      const int count = receive_batch(wanted);
      if (count >= 0) {
        budget -= static_cast<unsigned>(count);
        send_all();
        if (static_cast<unsigned>(count) == wanted) continue;
        more_to_receive_ = false;
        return;
      }
      if (errno == EINTR) continue;
    }
  }
