#include <anteroom/connector.h>
#include <anteroom/socket.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cassert>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <new>

namespace anteroom {
namespace {

/// The ports that the kernel picks from (ip_local_port_range); all of them if it cannot be read.
std::pair<std::uint16_t, std::uint16_t> local_port_range() noexcept {
  const Fd file(::open("/proc/sys/net/ipv4/ip_local_port_range", O_RDONLY | O_CLOEXEC));
  char text[32] = "";
  const ssize_t count = file ? ::read(file.get(), text, sizeof(text) - 1) : -1;
  unsigned first = 0;
  unsigned last = 0;
  // NOLINTNEXTLINE(cert-err34-c): the kernel wrote it
  if (count <= 0 || std::sscanf(text, "%u %u", &first, &last) != 2) return {1, 65535};
  return {static_cast<std::uint16_t>(first), static_cast<std::uint16_t>(last)};
}

std::error_code bind_source(int fd, const Endpoint& source) noexcept {
  if (source.family() != AF_UNIX && source.port() == 0) {
    if (const auto error = set_socket_option(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)) return error;
  }
  return ::bind(fd, source.data(), source.size()) == 0 ? std::error_code{} : last_error();
}

}  // namespace

Connector::Connector(Reactor& reactor, ConnectionHandlers handlers, ConnectionOptions options)
    : reactor_(reactor),
      kind_(std::make_unique<Connection::Kind>(std::move(handlers), options).release()),
      local_ports_(local_port_range()) {
  assert(is_thread_of(reactor));
}

Connector::~Connector() {
  assert(is_thread_of(reactor_));
  Connection::end_all(reactor_, *kind_);
}

ConnectResult Connector::connect(const Endpoint& to, const ConnectOptions& options) {
  assert(is_thread_of(reactor_));
  ConnectResult result;
  if (options.deadline < options.deadline.zero()) {
    result.error = std::make_error_code(std::errc::invalid_argument);
    return result;
  }
  Fd socket = open_stream_socket(to.family(), result.error);
  if (!socket) return result;
  if (options.source) {
    result.error = bind_source(socket.get(), *options.source);
    if (result.error) return result;
  }
  if (options.no_delay && to.family() != AF_UNIX) {
    result.error = set_socket_option(socket.get(), IPPROTO_TCP, TCP_NODELAY, 1);
    if (result.error) return result;
  }
  const bool same_port = options.source && options.source->port() == to.port();
  Connection::Attempt attempt{.family = to.family(),
                              .check_self_connect = same_port || may_meet_itself(to),
                              .deadline = options.deadline,
                              .context = options.context};
  attempt.error = ::connect(socket.get(), to.data(), to.size()) == 0 ? 0 : errno;
  if (attempt.error == EINTR) attempt.error = EINPROGRESS;  // it goes on without us, connect(2)
  try {
    result.id = Connection::start_connecting(reactor_, std::move(socket), *kind_, attempt).id();
  } catch (const std::bad_alloc&) {
    result.error = std::error_code(ENOMEM, std::system_category());
  }
  return result;
}

/// Only at a port that the kernel might pick for our own end; which addresses are this machine's we do not
/// know.
bool Connector::may_meet_itself(const Endpoint& to) const noexcept {
  if (to.family() == AF_UNIX) return false;
  return to.port() >= local_ports_.first && to.port() <= local_ports_.second;
}

std::string describe_connect_error(const std::error_code& error, const Endpoint& to) {
  const auto says = [&](std::string_view what) { return fmt::format("{}: {}", to.to_string(), what); };
  switch (error.value()) {
    case ECONNREFUSED:
      return says("nobody listens there (connection refused)");
    case ETIMEDOUT:
      return says("no answer in time: the host is down, a firewall drops us, or its listen queue is full");
    case EADDRNOTAVAIL:
      return says("no local port is free for it, or the source address is not ours");
    case EADDRINUSE:
      return says("the local address is in use");
    case EMFILE:
      return says("this process has no descriptor left (ulimit -n)");
    case ENFILE:
      return says("this system has no descriptor left (fs.file-max)");
    case ENETUNREACH:
      return says("no route to that network");
    case EHOSTUNREACH:
      return says("no route to that host");
    case ECONNRESET:
      return says("the server reset the connection");
    case EACCES:
    case EPERM:
      if (to.family() == AF_UNIX)
        return says("not permitted (the rights of the socket, or of a folder above it)");
      return says("not permitted (a firewall rule, or a broadcast address)");
    case EAFNOSUPPORT:
      return says("this system has no such address family");
    case ENOENT:
      return says("there is no such socket");
    case EAGAIN:
      return says("its listen queue is full");
    case ENOBUFS:
    case ENOMEM:
      return says("the system has no memory for another socket");
    default:
      return says(error.message());
  }
}

}  // namespace anteroom
