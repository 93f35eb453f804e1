#include <anteroom/endpoint.h>
#include <arpa/inet.h>
#include <fmt/format.h>
#include <net/if.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstring>
#include <system_error>

namespace anteroom {
namespace {

constexpr std::size_t kPathOffset = offsetof(sockaddr_un, sun_path);

std::system_error bad_endpoint(std::errc code, std::string_view text) {
  return {std::make_error_code(code), fmt::format("endpoint \"{}\"", text)};
}

std::optional<std::uint16_t> parse_port(std::string_view text) {
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return port;
}

std::uint32_t parse_scope(const std::string& text) {
  std::uint32_t scope = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), scope);
  if (error == std::errc{} && end == text.data() + text.size()) return scope;
  return ::if_nametoindex(text.c_str());
}

}  // namespace

Endpoint::Endpoint() noexcept : unix_{}, size_(sizeof(sa_family_t)) {}

Endpoint::Endpoint(std::string_view ip, std::uint16_t port) : Endpoint() {
  const std::string text(ip);
  // The calls below look at what is before a zero only.
  if (text.find('\0') != std::string::npos) throw bad_endpoint(std::errc::invalid_argument, ip);
  if (::inet_pton(AF_INET, text.c_str(), &v4_.sin_addr) == 1) {
    v4_.sin_family = AF_INET;
    v4_.sin_port = htons(port);
    size_ = sizeof(v4_);
    return;
  }
  const std::size_t percent = text.find('%');
  if (::inet_pton(AF_INET6, text.substr(0, percent).c_str(), &v6_.sin6_addr) == 1) {
    v6_.sin6_family = AF_INET6;
    v6_.sin6_port = htons(port);
    size_ = sizeof(v6_);
    if (percent == std::string::npos) return;
    v6_.sin6_scope_id = parse_scope(text.substr(percent + 1));
    if (v6_.sin6_scope_id != 0) return;
  }
  throw bad_endpoint(std::errc::invalid_argument, ip);
}

Endpoint Endpoint::unix_path(std::string_view path) {
  Endpoint endpoint;
  sockaddr_un& un = endpoint.unix_;
  const bool is_abstract = path.starts_with('@');
  const bool has_no_name = path.empty() || path == "@";
  if (has_no_name || (!is_abstract && path.find('\0') != std::string_view::npos))
    throw bad_endpoint(std::errc::invalid_argument, fmt::format("unix:{}", path));
  if (path.size() >= sizeof(un.sun_path)) throw bad_endpoint(std::errc::filename_too_long, path);
  un.sun_family = AF_UNIX;
  std::memcpy(un.sun_path, path.data(), path.size());
  endpoint.size_ = static_cast<socklen_t>(kPathOffset + path.size());
  if (is_abstract) {
    un.sun_path[0] = '\0';  // abstract, unix(7): the name starts with a zero and is as long as the size says
  } else {
    ++endpoint.size_;  // a path ends with its zero
  }
  return endpoint;
}

std::optional<Endpoint> Endpoint::parse(std::string_view text) {
  try {
    if (text.starts_with("unix:")) return unix_path(text.substr(5));
    const std::size_t colon = text.rfind(':');
    if (colon == std::string_view::npos) return std::nullopt;
    std::string_view host = text.substr(0, colon);
    const std::optional<std::uint16_t> port = parse_port(text.substr(colon + 1));
    if (!port) return std::nullopt;
    const bool bracketed = host.size() >= 2 && host.front() == '[' && host.back() == ']';
    if (bracketed) host = host.substr(1, host.size() - 2);
    if (bracketed != (host.find(':') != std::string_view::npos)) return std::nullopt;
    return Endpoint(host, *port);
  } catch (const std::system_error&) {
    return std::nullopt;
  }
}

Endpoint Endpoint::from(const sockaddr* address, socklen_t size) noexcept {
  Endpoint endpoint;
  if (address == nullptr || size < sizeof(sa_family_t)) return endpoint;
  socklen_t wanted = sizeof(sockaddr_un);
  switch (address->sa_family) {
    case AF_INET:
      wanted = sizeof(sockaddr_in);
      break;
    case AF_INET6:
      wanted = sizeof(sockaddr_in6);
      break;
    case AF_UNIX:
      wanted = std::min<socklen_t>(size, sizeof(sockaddr_un));
      break;
    default:
      return endpoint;
  }
  if (size < wanted) return endpoint;
  std::memcpy(&endpoint.unix_, address, wanted);
  endpoint.size_ = wanted;
  return endpoint;
}

std::uint16_t Endpoint::port() const noexcept {
  if (family() == AF_INET) return ntohs(v4_.sin_port);
  if (family() == AF_INET6) return ntohs(v6_.sin6_port);
  return 0;
}

bool Endpoint::is_loopback() const noexcept {
  if (family() == AF_INET) return (ntohl(v4_.sin_addr.s_addr) >> 24) == 127;
  if (family() == AF_INET6) return IN6_IS_ADDR_LOOPBACK(&v6_.sin6_addr);
  return family() == AF_UNIX;
}

std::string Endpoint::path() const {
  if (family() != AF_UNIX || size_ <= kPathOffset) return {};
  const std::size_t length = size_ - kPathOffset;
  if (unix_.sun_path[0] == '\0') return '@' + std::string(unix_.sun_path + 1, length - 1);
  return {unix_.sun_path, ::strnlen(unix_.sun_path, length)};
}

std::string Endpoint::to_string() const {
  char text[INET6_ADDRSTRLEN] = "";
  if (family() == AF_INET) {
    ::inet_ntop(AF_INET, &v4_.sin_addr, text, sizeof(text));
    return fmt::format("{}:{}", text, port());
  }
  if (family() == AF_INET6) {
    ::inet_ntop(AF_INET6, &v6_.sin6_addr, text, sizeof(text));
    const std::string scope = v6_.sin6_scope_id == 0 ? "" : fmt::format("%{}", v6_.sin6_scope_id);
    return fmt::format("[{}{}]:{}", text, scope, port());
  }
  if (family() == AF_UNIX) return "unix:" + path();
  return "(no address)";
}

std::strong_ordering operator<=>(const Endpoint& a, const Endpoint& b) noexcept {
  if (const auto order = a.family() <=> b.family(); order != 0) return order;
  if (const auto order = a.size_ <=> b.size_; order != 0) return order;
  return std::memcmp(&a.unix_, &b.unix_, a.size_) <=> 0;
}

}  // namespace anteroom
