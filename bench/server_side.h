#pragma once
#include <anteroom/bench/fate.h>
#include <anteroom/bench/socket_diag.h>

#include <cstdint>
#include <vector>

namespace anteroom::bench {

/// What the server's side knows of the clients that believe to be connected.
class ServerSide {
 public:
  /// All sockets of its port, as they are now.
  explicit ServerSide(const std::vector<ConnectedSocket>& sockets);

  /// Of one that was never served: it waits there, or is a ghost. `client` is its peer_key().
  Fate fate_of(std::uint64_t client) const noexcept;

 private:
  std::vector<std::uint64_t> known_;
  std::vector<std::uint64_t> half_open_;
};

}  // namespace anteroom::bench
