#include "server_side.h"

#include <netinet/tcp.h>

#include <algorithm>

namespace anteroom::bench {

ServerSide::ServerSide(const std::vector<ConnectedSocket>& sockets) {
  for (const ConnectedSocket& socket : sockets) {
    std::vector<std::uint64_t>& clients = socket.state == TCP_SYN_RECV ? half_open_ : known_;
    clients.push_back(peer_key(socket.remote));
  }
  std::ranges::sort(known_);
  std::ranges::sort(half_open_);
}

Fate ServerSide::fate_of(std::uint64_t client) const noexcept {
  if (std::ranges::binary_search(known_, client)) return Fate::kDeadline;
  return std::ranges::binary_search(half_open_, client) ? Fate::kGhostHalfOpen : Fate::kGhostUnknown;
}

}  // namespace anteroom::bench
