#pragma once
#include <anteroom/endpoint.h>
#include <anteroom/fd.h>
#include <anteroom/socket.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cerrno>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "support/turns.h"

/// The other end of the line: a plain socket that owes the library nothing.
namespace anteroom::test {

inline const Endpoint kLoopback{"127.0.0.1", 0};

/// Whether poll(2) tells of all `events` on `fd` in time. Leaves epoll's edges as they are.
inline bool await_events(int fd, short events) {
  const auto end = Reactor::Clock::now() + kPatience;
  while (Reactor::Clock::now() < end) {
    pollfd entry{.fd = fd, .events = events, .revents = 0};
    (void)::poll(&entry, 1, 100);
    if ((entry.revents & events) == events) return true;
  }
  return false;
}

class Peer {
 public:
  /// What is asked of the socket before it connects.
  struct Options {
    int receive_buffer_bytes = 0;  ///< SO_RCVBUF; 0 leaves it to the kernel
    int send_buffer_bytes = 0;     ///< SO_SNDBUF
  };

  explicit Peer(Fd socket) : socket_(std::move(socket)) { be_patient(); }

  /// Connects and waits for it. Throws if nobody lets it in.
  explicit Peer(const Endpoint& to) : Peer(to, Options()) {}
  Peer(const Endpoint& to, Options options) : socket_(::socket(to.family(), SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    if (!socket_) throw setup_error(last_error(), "socket", "of a test's peer");
    if (options.receive_buffer_bytes > 0)
      (void)set_socket_option(fd(), SOL_SOCKET, SO_RCVBUF, options.receive_buffer_bytes);
    if (options.send_buffer_bytes > 0)
      (void)set_socket_option(fd(), SOL_SOCKET, SO_SNDBUF, options.send_buffer_bytes);
    be_patient();
    if (::connect(fd(), to.data(), to.size()) != 0)
      throw setup_error(last_error(), "connect", to.to_string());
  }

  int fd() const { return socket_.get(); }
  Endpoint local() const { return local_endpoint(fd()); }

  /// Sends all of it, and waits as long as it takes. False when the other end does not let it.
  bool send(std::string_view bytes) const {
    while (!bytes.empty()) {
      const ssize_t count = ::send(fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (count < 0 && errno != EINTR) return false;
      if (count > 0) bytes.remove_prefix(static_cast<std::size_t>(count));
    }
    return true;
  }

  /// Sends what the kernel takes now; how much that was.
  std::size_t send_some(std::string_view bytes) const {
    const ssize_t count = ::send(fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    return count > 0 ? static_cast<std::size_t>(count) : 0;
  }

  /// Our FIN; we still listen.
  void finish() const { (void)::shutdown(fd(), SHUT_WR); }
  void close() { socket_.reset(); }
  void reset() {
    reset_on_close(fd());
    socket_.reset();
  }

  /// Takes what has come, without waiting. True once the stream is over.
  bool drain() {
    char bytes[16 * 1024];
    while (!over_) {
      const ssize_t count = ::recv(fd(), bytes, sizeof(bytes), MSG_DONTWAIT);
      if (count > 0) {
        received_.append(bytes, static_cast<std::size_t>(count));
      } else if (count == 0) {
        over_ = true;
      } else if (errno == EAGAIN) {
        return false;
      } else if (errno != EINTR) {
        over_ = true;
        error_ = errno;
      }
    }
    return true;
  }

  /// Waits for the end of the stream: for a server that runs in another thread.
  const std::string& receive_all() {
    while (!drain()) {
      if (!await_events(fd(), POLLIN)) break;
    }
    return received_;
  }

  const std::string& received() const { return received_; }
  bool is_over() const { return over_; }
  int error() const { return error_; }  ///< why it is over; 0 for an orderly end

 private:
  void be_patient() const {
    const timeval limit{.tv_sec = kPatience.count(), .tv_usec = 0};
    (void)::setsockopt(fd(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    (void)::setsockopt(fd(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  }

  Fd socket_;
  std::string received_;
  bool over_ = false;
  int error_ = 0;
};

inline std::vector<Peer> connect_peers(const Endpoint& to, int count) {
  std::vector<Peer> peers;
  for (int i = 0; i < count; ++i) peers.emplace_back(to);
  return peers;
}

/// A loopback port on which nobody listens: one that was just given back.
inline Endpoint closed_endpoint() {
  const Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  (void)::bind(socket.get(), kLoopback.data(), kLoopback.size());
  return local_endpoint(socket.get());
}

/// Bytes of which no two stretches look alike, so that a lost, doubled or swapped one is seen.
inline std::string pattern(std::size_t size, std::uint32_t seed = 1) {
  std::string bytes(size, '\0');
  std::uint32_t state = seed * 2654435761U + 1;
  for (char& byte : bytes) {
    state = state * 1664525U + 1013904223U;
    byte = static_cast<char>(state >> 24);
  }
  return bytes;
}

}  // namespace anteroom::test
