#pragma once
#include <anteroom/backlog.h>
#include <anteroom/endpoint.h>
#include <anteroom/export.h>
#include <anteroom/fd.h>
#include <anteroom/listen_queue.h>
#include <sys/types.h>
#include <unistd.h>

#include <chrono>
#include <optional>

namespace ANTEROOM_EXPORT anteroom {

struct ListenerOptions {
  /// How many may wait to be accepted; the kernel clips it to net.core.somaxconn, and takes a negative number
  /// for that maximum. `anteroom tune` measures the number that your load needs.
  int backlog = -1;
  /// SO_REUSEPORT: several listeners share one address, each with a queue of its own.
  bool reuse_port = false;
  // What the accepted inherit, set once here and not for each guest (tcp(7), socket(7)). Not for Unix
  // sockets. What is negative, or more than the kernel takes, is refused.
  bool no_delay = true;                         ///< TCP_NODELAY
  std::chrono::seconds keep_alive{0};           ///< SO_KEEPALIVE and TCP_KEEPIDLE; 0: none
  std::chrono::seconds keep_alive_interval{0};  ///< TCP_KEEPINTVL, with keep_alive; 0: the system's
  int keep_alive_probes = 0;                    ///< TCP_KEEPCNT, with keep_alive; 0: the system's
  std::chrono::milliseconds user_timeout{
      0};                        ///< TCP_USER_TIMEOUT: unacknowledged for so long is over; 0: the system's
  int receive_buffer_bytes = 0;  ///< SO_RCVBUF; 0: the kernel tunes it
  int send_buffer_bytes = 0;     ///< SO_SNDBUF; 0: the kernel tunes it
  /// TCP_DEFER_ACCEPT: who connects and says nothing is not shown to us for about so long. Not for servers
  /// that speak first. Of the guests hidden in this way the first-byte deadline knows nothing, and `drops`
  /// counts their bare ACKs, which a self-tuning backlog takes for guests who were turned away.
  std::chrono::seconds defer_accept{0};
  /// For blocking servers: accept(2) waits. Not for an Acceptor, which would wait with it.
  bool blocking = false;
};

/// listen(2) again on a socket that listens already; its queue stays. Throws std::system_error.
ANTEROOM_EXPORT void change_backlog(int listener, int backlog);

/// A listening socket. Closing it resets the guests who still wait in its queue.
class Listener {
 public:
  /// socket, SO_REUSEADDR, bind, listen. Throws std::system_error that says which of them failed, and on what
  /// address. A Unix socket's path left behind by a dead server is replaced; it is removed by the destructor,
  /// unless it has become another's meanwhile.
  explicit Listener(const Endpoint& endpoint, const ListenerOptions& options = {});

  /// Takes over a socket that listens already, and makes it non-blocking. Throws std::system_error. Whether
  /// it does listen is not looked at, and nobody else is taken to hold it: for a socket that came from
  /// another process see adopt_listener().
  explicit Listener(Fd socket);

  Listener(Listener&& other) noexcept;
  Listener& operator=(Listener&&) noexcept = delete;
  ~Listener();

  int fd() const noexcept { return socket_.get(); }
  /// Gives the socket away. A Unix socket's path is still removed with the Listener.
  Fd release() noexcept { return static_cast<Fd&&>(socket_); }
  /// Whether another process holds this socket, too: it came by adopt_listener(), activated_listeners() or
  /// Handover, or set_shared() said so. A drain leaves such a socket as it is to the others.
  bool is_shared() const noexcept { return shared_; }
  /// For a socket that was passed on, or came, by other ways (fork(2), SCM_RIGHTS).
  void set_shared(bool shared) noexcept { shared_ = shared; }
  /// A Unix socket's path stays: it is a successor's now.
  void keep_path() noexcept { unix_path_ = Endpoint(); }
  /// A Unix socket's path is removed by the process that made the Listener. In a child that goes on in its
  /// place (a daemon) it is removed there from now on. An acceptor sees to that itself.
  void continue_after_fork() noexcept { process_ = ::getpid(); }

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
  Endpoint unix_path_;  // to be removed at the end, if it is still this file:
  ino_t inode_ = 0;     // 0: not known
  pid_t process_ = ::getpid();
  bool shared_ = false;
};

}  // namespace anteroom
