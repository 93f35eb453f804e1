#include <anteroom/listener.h>
#include <anteroom/socket.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cerrno>
#include <limits>
#include <string>
#include <utility>

namespace anteroom {
namespace {

int kernel_backlog(int backlog) noexcept { return backlog < 0 ? std::numeric_limits<int>::max() : backlog; }

/// A path that nobody listens on any more would make bind(2) say EADDRINUSE for ever. A file that is no
/// socket refuses connections too, and is none of ours.
void remove_dead_path(const Endpoint& endpoint) {
  struct stat file {};
  if (::lstat(endpoint.path().c_str(), &file) != 0 || !S_ISSOCK(file.st_mode)) return;
  std::error_code error;
  const Fd probe = open_stream_socket(AF_UNIX, error);
  if (probe && ::connect(probe.get(), endpoint.data(), endpoint.size()) != 0 && errno == ECONNREFUSED) {
    ::unlink(endpoint.path().c_str());
  }
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
  if (endpoint.family() == AF_UNIX) {
    if (!endpoint.path().starts_with('@')) remove_dead_path(endpoint);
  } else {
    check("SO_REUSEADDR", set_socket_option(fd(), SOL_SOCKET, SO_REUSEADDR, 1));
    if (options.reuse_port) check("SO_REUSEPORT", set_socket_option(fd(), SOL_SOCKET, SO_REUSEPORT, 1));
    if (options.no_delay) check("TCP_NODELAY", set_socket_option(fd(), IPPROTO_TCP, TCP_NODELAY, 1));
  }
  if (::bind(fd(), endpoint.data(), endpoint.size()) != 0) check("bind", last_error());
  if (endpoint.family() == AF_UNIX && !endpoint.path().starts_with('@')) unix_path_ = endpoint;
  if (::listen(fd(), kernel_backlog(options.backlog)) != 0) check("listen", last_error());
  if (options.blocking && ::fcntl(fd(), F_SETFL, 0) != 0) check("fcntl", last_error());
}

Listener::Listener(Fd socket) : socket_(std::move(socket)) {
  if (::fcntl(fd(), F_SETFL, O_NONBLOCK) != 0) throw setup_error(last_error(), "fcntl", "a listener");
}

Listener::Listener(Listener&& other) noexcept
    : socket_(std::move(other.socket_)), unix_path_(std::exchange(other.unix_path_, Endpoint())) {}

Listener::~Listener() {
  if (unix_path_.family() != AF_UNIX) return;
  // Not path(), which needs memory.
  ::unlink(reinterpret_cast<const sockaddr_un*>(unix_path_.data())->sun_path);
}

Endpoint Listener::endpoint() const noexcept { return local_endpoint(fd()); }

}  // namespace anteroom
