#include <anteroom/listener.h>
#include <anteroom/socket.h>
#include <anteroom/unix_path.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>

namespace anteroom {
namespace {

int kernel_backlog(int backlog) noexcept { return backlog < 0 ? std::numeric_limits<int>::max() : backlog; }

/// For setsockopt(2), which takes an int. What does not fit is as good as for ever.
template <class Duration>
int as_option(Duration time) noexcept {
  return static_cast<int>(std::clamp<std::int64_t>(time.count(), -1, std::numeric_limits<int>::max()));
}

/// What those who are accepted will have from the listener, if it is there before they come. The buffers set
/// the window that a SYN-ACK offers.
void set_what_is_inherited(int listener, const ListenerOptions& options, const Endpoint& endpoint) {
  const bool is_unix = endpoint.family() == AF_UNIX;
  const auto set = [&](const char* name, int level, int option, int value) {
    if (value == 0 || (value > 0 && is_unix)) return;
    // The kernel refuses some, and takes others for 0, or for the most that there is.
    const std::error_code error = value < 0 ? std::make_error_code(std::errc::invalid_argument)
                                            : set_socket_option(listener, level, option, value);
    if (error) throw setup_error(error, name, endpoint.to_string());
  };
  set("TCP_NODELAY", IPPROTO_TCP, TCP_NODELAY, options.no_delay ? 1 : 0);
  set("SO_KEEPALIVE", SOL_SOCKET, SO_KEEPALIVE, options.keep_alive.count() != 0 ? 1 : 0);
  set("TCP_KEEPIDLE", IPPROTO_TCP, TCP_KEEPIDLE, as_option(options.keep_alive));
  set("TCP_KEEPINTVL", IPPROTO_TCP, TCP_KEEPINTVL, as_option(options.keep_alive_interval));
  set("TCP_KEEPCNT", IPPROTO_TCP, TCP_KEEPCNT, options.keep_alive_probes);
  set("TCP_USER_TIMEOUT", IPPROTO_TCP, TCP_USER_TIMEOUT, as_option(options.user_timeout));
  set("SO_RCVBUF", SOL_SOCKET, SO_RCVBUF, options.receive_buffer_bytes);
  set("SO_SNDBUF", SOL_SOCKET, SO_SNDBUF, options.send_buffer_bytes);
  set("TCP_DEFER_ACCEPT", IPPROTO_TCP, TCP_DEFER_ACCEPT, as_option(options.defer_accept));
}

}  // namespace

void change_backlog(int listener, int backlog) {
  if (::listen(listener, kernel_backlog(backlog)) == 0) return;
  const std::error_code error = last_error();
  throw setup_error(error, "listen", local_endpoint(listener).to_string());
}

Listener::Listener(const Endpoint& endpoint, const ListenerOptions& options)
    : Listener() {  // complete from here on: if listen(2) fails, the destructor removes the path
  std::error_code error;
  const auto check = [&](const char* tried, std::error_code result) {
    if (result) throw setup_error(result, tried, endpoint.to_string());
  };
  socket_ = open_stream_socket(endpoint.family(), error);
  check("socket", error);
  set_what_is_inherited(fd(), options, endpoint);
  std::optional<UnixPathLock> path_lock;  // until we listen
  if (endpoint.family() == AF_UNIX) {
    if (!endpoint.path().starts_with('@')) path_lock.emplace(endpoint).remove_dead(SOCK_STREAM);
  } else {
    check("SO_REUSEADDR", set_socket_option(fd(), SOL_SOCKET, SO_REUSEADDR, 1));
    if (options.reuse_port) check("SO_REUSEPORT", set_socket_option(fd(), SOL_SOCKET, SO_REUSEPORT, 1));
  }
  if (::bind(fd(), endpoint.data(), endpoint.size()) != 0) check("bind", last_error());
  if (path_lock) {
    unix_path_ = endpoint;
    inode_ = inode_at(endpoint);
  }
  if (::listen(fd(), kernel_backlog(options.backlog)) != 0) check("listen", last_error());
  if (options.blocking && ::fcntl(fd(), F_SETFL, 0) != 0) check("fcntl", last_error());
}

Listener::Listener(Fd socket) : socket_(std::move(socket)) {
  if (::fcntl(fd(), F_SETFL, O_NONBLOCK) != 0) throw setup_error(last_error(), "fcntl", "a listener");
}

Listener::Listener(Listener&& other) noexcept
    : socket_(std::move(other.socket_)),
      unix_path_(std::exchange(other.unix_path_, Endpoint())),
      inode_(other.inode_),
      process_(other.process_),
      shared_(other.shared_) {}

/// Somebody may have removed the path, and another server have taken it: then it is theirs. As long as our
/// socket is open, nobody else's has its inode.
Listener::~Listener() {
  if (unix_path_.family() == AF_UNIX && process_ == ::getpid()) remove_path_if(unix_path_, inode_);
}

Endpoint Listener::endpoint() const noexcept { return local_endpoint(fd()); }

}  // namespace anteroom
