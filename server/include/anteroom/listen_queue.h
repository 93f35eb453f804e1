#pragma once
#include <anteroom/export.h>

#include <cstdint>
#include <optional>

namespace ANTEROOM_EXPORT anteroom {

/// Who waits in the room of one listener right now, how many it holds, and how many were turned away.
struct ListenQueue {
  /// Established guests whom nobody has accepted yet.
  std::uint32_t depth = 0;
  /// The backlog in force: min(listen's backlog, somaxconn at that time). The kernel admits one guest more
  /// than this.
  std::uint32_t limit = 0;
  /// sk_drops of the socket since it was made, modulo 2^32: SYNs and last ACKs that were dropped, but also
  /// bare ACKs under TCP_DEFER_ACCEPT, resets of half-open connections, and what a socket filter drops (a
  /// drain attaches one).
  std::uint64_t drops = 0;
  /// The most who waited when somebody looked; Acceptor::queue() knows it, a mere look does not (0).
  std::uint32_t peak = 0;
};

/// Asks the kernel, 0.6 µs: TCP_INFO (tcpi_unacked, tcpi_sacked) and SO_MEMINFO. Nothing if `listener` is no
/// TCP listener.
ANTEROOM_EXPORT std::optional<ListenQueue> listen_queue(int listener) noexcept;

/// net.core.somaxconn of this network namespace, which silently clips every backlog; 4096 if it cannot be
/// read.
ANTEROOM_EXPORT int system_backlog_max() noexcept;

/// What the network namespace of this thread has counted since it was made, all listeners together.
struct ListenCounters {
  std::uint64_t overflows = 0;  ///< ListenOverflows: handshakes that met a full accept queue
  std::uint64_t drops = 0;      ///< ListenDrops: those, and what was thrown away for other reasons
};

/// Reads /proc/thread-self/net/netstat, about 40 µs. Nothing if it cannot be read.
ANTEROOM_EXPORT std::optional<ListenCounters> listen_counters() noexcept;

}  // namespace anteroom
