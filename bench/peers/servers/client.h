#pragma once
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

/// What the clients here have in common. They know nothing of our library: they call ours and its peers
/// alike.
namespace peers {

constexpr std::size_t kMessageBytes = 64;
/// A server listens on all of 127.0.0.0/8. Calls go to so many of its addresses in turn, each of which has
/// the ports of a client to itself, so none has to wait for a TIME_WAIT to pass.
constexpr std::uint32_t kAddresses = 64;

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "%s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

inline std::int64_t nanoseconds(clockid_t clock) {
  timespec now{};
  if (::clock_gettime(clock, &now) != 0) fail("clock_gettime");
  return now.tv_sec * 1'000'000'000LL + now.tv_nsec;
}
inline std::int64_t now_ns() { return nanoseconds(CLOCK_MONOTONIC); }

/// Begins to connect, and has epoll tell of it, once.
inline int call(int epoll, std::uint16_t port) {
  static std::uint32_t calls = 0;
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) fail("socket");
  const int on = 1;
  if (::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0) fail("TCP_NODELAY");
  sockaddr_in server{};
  server.sin_family = AF_INET;
  server.sin_port = htons(port);
  server.sin_addr.s_addr = htonl(INADDR_LOOPBACK + calls++ % kAddresses);
  if (::connect(fd, reinterpret_cast<sockaddr*>(&server), sizeof(server)) != 0 && errno != EINPROGRESS)
    fail("connect");
  epoll_event interest{.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data = {.fd = fd}};
  if (::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &interest) != 0) fail("epoll_ctl");
  return fd;
}

/// A message is small enough to be taken whole, and to come back whole.
inline void send_message(int fd) {
  static const char message[kMessageBytes] = {};
  if (::send(fd, message, sizeof(message), MSG_NOSIGNAL) != static_cast<ssize_t>(sizeof(message)))
    fail("send");
}

/// A number on the command line.
inline long number(const char* text) { return std::strtol(text, nullptr, 10); }

}  // namespace peers
