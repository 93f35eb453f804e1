#include <anteroom/socket.h>
#include <fmt/format.h>
#include <sys/socket.h>

#include <cassert>
#include <cerrno>

namespace anteroom {

std::error_code last_error() noexcept { return {errno, std::system_category()}; }

std::system_error setup_error(std::error_code error, std::string_view tried, std::string_view on) {
  return {error, fmt::format("{} {}", tried, on)};
}

std::system_error argument_error(std::string_view tried, std::string_view on) {
  return setup_error(std::make_error_code(std::errc::invalid_argument), tried, on);
}

Fd open_stream_socket(int family, std::error_code& error) noexcept {
  Fd fd(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  error = fd ? std::error_code{} : last_error();
  return fd;
}

std::error_code set_socket_option(int fd, int level, int name, int value) noexcept {
  return ::setsockopt(fd, level, name, &value, sizeof(value)) == 0 ? std::error_code{} : last_error();
}

std::error_code take_socket_error(int fd) noexcept {
  int error = 0;
  socklen_t size = sizeof(error);
  if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) return last_error();
  return {error, std::system_category()};
}

Endpoint local_endpoint(int fd) noexcept {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return {};
  return Endpoint::from(reinterpret_cast<sockaddr*>(&address), size);
}

Endpoint peer_endpoint(int fd) noexcept {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return {};
  return Endpoint::from(reinterpret_cast<sockaddr*>(&address), size);
}

void reset_on_close(int fd) noexcept {
  assert(fd >= 0 && "reset_on_close() of no descriptor");
  const linger at_once{.l_onoff = 1, .l_linger = 0};
  (void)::setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
}

}  // namespace anteroom
