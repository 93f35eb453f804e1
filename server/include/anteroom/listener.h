#pragma once
#include <anteroom/endpoint.h>
#include <anteroom/fd.h>
#include <anteroom/listen_queue.h>

#include <optional>

namespace anteroom {

struct ListenerOptions {
  /// How many may wait to be accepted; the kernel clips it to net.core.somaxconn, and takes a negative number
  /// for that maximum. `anteroom tune` measures the number that your load needs.
  int backlog = -1;
  /// SO_REUSEPORT: several listeners share one address, each with a queue of its own.
  bool reuse_port = false;
  /// TCP_NODELAY, which accepted connections inherit.
  bool no_delay = true;
  /// For blocking servers: accept(2) waits.
  bool blocking = false;
};

/// listen(2) again on a socket that listens already; its queue stays. Throws std::system_error.
void change_backlog(int listener, int backlog);

/// A listening socket. Closing it resets the guests who still wait in its queue.
class Listener {
 public:
  /// socket, SO_REUSEADDR, bind, listen. Throws std::system_error that says which of them failed, and on what
  /// address. A Unix socket's path left behind by a dead server is replaced; it is removed by the destructor.
  explicit Listener(const Endpoint& endpoint, const ListenerOptions& options = {});

  /// Takes over a socket that listens already, and makes it non-blocking. Throws std::system_error.
  explicit Listener(Fd socket);

  Listener(Listener&& other) noexcept;
  Listener& operator=(Listener&&) noexcept = delete;
  ~Listener();

  int fd() const noexcept { return socket_.get(); }
  /// Gives the socket away. A Unix socket's path is still removed with the Listener.
  Fd release() noexcept { return static_cast<Fd&&>(socket_); }

  /// Where it listens: with the port that the kernel picked, if 0 was asked for.
  Endpoint endpoint() const noexcept;

  /// Changes the backlog of the living socket. Whoever waits stays, even if there are more than that.
  /// Throws std::system_error.
  void set_backlog(int backlog) { change_backlog(fd(), backlog); }

  /// Nothing for Unix sockets, of whose queues the kernel tells nothing.
  std::optional<ListenQueue> queue() const noexcept { return listen_queue(fd()); }

 private:
  Listener() noexcept = default;

  Fd socket_;
  Endpoint unix_path_;  // to be removed at the end
};

}  // namespace anteroom
