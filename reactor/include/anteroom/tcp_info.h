#pragma once
#include <anteroom/export.h>

#include <chrono>
#include <cstdint>
#include <optional>

namespace ANTEROOM_EXPORT anteroom {

/// What the kernel knows of one TCP socket, as a value.
struct TcpInfo {
  bool listening = false;
  bool established = false;
  bool connecting = false;  ///< in SYN_SENT
  /// Of a listener: who waits in its queue now, and its limit (it admits one more than the limit).
  std::uint32_t queue_depth = 0;
  std::uint32_t queue_limit = 0;
  /// Of a connection: segments sent again since the beginning, SYNs and SYN-ACKs among them.
  std::uint32_t total_retransmits = 0;
  /// Of a connection: how long ago it last sent. Right after accept and before the first send this is the
  /// time that the guest waited in the listen queue, in steps of a kernel tick (4 ms at HZ 250).
  std::chrono::milliseconds since_last_sent{0};
};

/// Asks by getsockopt(TCP_INFO), tcp(7): 0.3 µs. Nothing if `fd` is no TCP socket.
/// The fields of a listener are tcpi_unacked and tcpi_sacked (tcp_get_info in the kernel's net/ipv4/tcp.c).
ANTEROOM_EXPORT std::optional<TcpInfo> tcp_info(int fd) noexcept;

}  // namespace anteroom
