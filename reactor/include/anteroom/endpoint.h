#pragma once
#include <anteroom/export.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ANTEROOM_EXPORT anteroom {

/// An address as a value: IPv4, IPv6 or the path of a Unix socket.
class Endpoint {
 public:
  /// No address: family() is AF_UNSPEC.
  Endpoint() noexcept;

  /// A numeric IPv4 or IPv6 address (with its scope: "fe80::1%eth0"). Names are not looked up.
  /// Throws std::system_error (invalid_argument) for anything else.
  Endpoint(std::string_view ip, std::uint16_t port);

  /// A Unix socket: a path of at most 107 bytes, or "@name" for the abstract namespace. Neither may be empty.
  /// Throws std::system_error (filename_too_long, invalid_argument).
  static Endpoint unix_path(std::string_view path);

  /// "127.0.0.1:7777", "[::1]:7777", "unix:/run/door", "unix:@door"; nothing if `text` is none of them.
  static std::optional<Endpoint> parse(std::string_view text);

  /// What the kernel wrote; no address if there is none, the family is unknown, or `size` too small for it.
  static Endpoint from(const sockaddr* address, socklen_t size) noexcept;

  int family() const noexcept { return any_.sa_family; }
  std::uint16_t port() const noexcept;  ///< 0 for Unix sockets
  bool is_loopback() const noexcept;    ///< 127.0.0.0/8, ::1, and every Unix socket
  std::string path() const;             ///< of a Unix socket as unix_path() takes it, else empty

  /// As parse() reads it: the same value comes back.
  std::string to_string() const;

  const sockaddr* data() const noexcept { return &any_; }
  socklen_t size() const noexcept { return size_; }

  friend bool operator==(const Endpoint& a, const Endpoint& b) noexcept { return (a <=> b) == 0; }
  friend std::strong_ordering operator<=>(const Endpoint& a, const Endpoint& b) noexcept;

 private:
  union {
    sockaddr any_;
    sockaddr_in v4_;
    sockaddr_in6 v6_;
    sockaddr_un unix_;
  };
  socklen_t size_;
};

ANTEROOM_EXPORT std::strong_ordering operator<=>(const Endpoint& a, const Endpoint& b) noexcept;

}  // namespace anteroom
