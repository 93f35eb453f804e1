#include <anteroom/bench/fate.h>
#include <anteroom/bench/socket_diag.h>
#include <netinet/in.h>

#include <span>

namespace anteroom::bench {
namespace {

/// FNV-1a with 64 bits, by Fowler, Noll and Vo; the two numbers are theirs.
std::uint64_t fnv1a(std::span<const unsigned char> bytes) noexcept {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const unsigned char byte : bytes) hash = (hash ^ byte) * 0x100000001b3;
  return hash;
}

}  // namespace

std::uint64_t peer_key(const Endpoint& client) noexcept {
  const Endpoint peer = unmapped(client);
  if (peer.family() == AF_INET) {
    const auto* const v4 = reinterpret_cast<const sockaddr_in*>(peer.data());
    return std::uint64_t{v4->sin_addr.s_addr} << 16 | peer.port();
  }
  if (peer.family() != AF_INET6) return 0;
  const auto* const v6 = reinterpret_cast<const sockaddr_in6*>(peer.data());
  const std::uint64_t hash = fnv1a(v6->sin6_addr.s6_addr);
  constexpr std::uint64_t kIsV6 = 1ULL << 63;  // never the key of an IPv4 client
  constexpr std::uint64_t kHashMask = (1ULL << 47) - 1;
  return kIsV6 | ((hash ^ hash >> 47) & kHashMask) << 16 | peer.port();
}

}  // namespace anteroom::bench
