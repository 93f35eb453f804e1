#pragma once
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

/// What the peers' servers have in common, so that nothing but their loops differs.
namespace peers {

constexpr std::string_view kHello = "Hello World!";
/// Every server reads into one buffer of this size, but for those whose library brings its own.
constexpr std::size_t kBufferBytes = 64 * 1024;

enum class Service {
  kHello,  // greets whoever comes, and closes
  kEcho,   // sends back what it is sent, until the guest closes
};

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "%s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

struct Arguments {
  Service service = Service::kHello;
  std::uint16_t port = 0;
};

/// hello|echo PORT; 0 takes any port.
inline Arguments arguments(int argc, char** argv) {
  const std::string_view service = argc == 3 ? argv[1] : "";
  if (service != "hello" && service != "echo") {
    std::fprintf(stderr, "usage: %s hello|echo PORT\n", argv[0]);
    std::exit(2);
  }
  return {.service = service == "hello" ? Service::kHello : Service::kEcho,
          .port = static_cast<std::uint16_t>(std::atoi(argv[2]))};
}

/// The listening socket of all of them: as long a queue as the system allows, and a TCP_NODELAY that the
/// accepted inherit, which costs them nothing.
inline int listening_socket(std::uint16_t port) {
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (listener < 0) fail("socket");
  const int on = 1;
  if (::setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0) fail("SO_REUSEADDR");
  if (::setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0) fail("TCP_NODELAY");
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  if (::bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) fail("bind");
  if (::listen(listener, SOMAXCONN) != 0) fail("listen");
  return listener;
}

/// Says where it listens, once the server is about to run.
inline void announce(int listener) {
  sockaddr_in address{};
  socklen_t length = sizeof(address);
  if (::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length) != 0) fail("getsockname");
  std::printf("listening on 0.0.0.0:%u\n", ntohs(address.sin_port));
  std::fflush(stdout);
}

/// Whether the kernel has taken all of it. Nobody here is sent more than he has sent himself, or a greeting,
/// so whoever does not take that is as good as gone.
inline bool send_all(int guest, std::string_view bytes) {
  return ::send(guest, bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size());
}

}  // namespace peers
