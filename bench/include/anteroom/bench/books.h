#pragma once
#include <cstdint>

namespace anteroom::bench {

/// The kernel's account of one trial against the clients'. What was thrown away at the door must be what the
/// clients missed:
///
///   ListenDrops + softnet drops = SYNs sent again + clients still in SYN_SENT + ghosts + SYN-ACKs sent again
///
/// Each SYN that is dropped is either sent again, or was the last one of a client still in SYN_SENT. Each
/// last ACK that is dropped leaves a ghost, or a handshake that the server's repeated SYN-ACK heals. A packet
/// that a processor's input queue lost was one of those too, or another one; so with softnet drops the
/// account is known only to within their number. Exact in all of 186 bursts without softnet drops on
/// Linux 6.18; the last term is 0 unless handshakes healed.
///
/// The SYN-ACKs are known only as what TCPSynRetrans has beyond the clients' own count. So what is held
/// against the drops is the kernel's count of both together, and the clients' count has to stay within it.
struct Books {
  std::int64_t listen_drops = 0;        ///< the kernel's
  std::int64_t softnet_drops = 0;       ///< the kernel's, of the whole machine
  std::int64_t syn_retransmits = 0;     ///< of all clients (tcpi_total_retrans)
  std::int64_t in_syn_sent = 0;         ///< clients at the end
  std::int64_t ghosts = 0;              ///< clients at the end
  std::int64_t synack_retransmits = 0;  ///< TCPSynRetrans less the clients'
  std::int64_t fates = 0;               ///< of all clients
  std::int64_t clients = 0;

  std::int64_t missed() const noexcept { return syn_retransmits + in_syn_sent + ghosts + synack_retransmits; }
  /// What the kernel dropped and nobody missed (or, negative, the other way round).
  std::int64_t residual() const noexcept { return listen_drops - missed(); }
  bool balance() const noexcept {
    return fates == clients && residual() <= 0 && residual() >= -softnet_drops && synack_retransmits >= 0;
  }
};

}  // namespace anteroom::bench
