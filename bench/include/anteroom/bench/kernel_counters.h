#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace anteroom::bench {

/// The kernel's own books about listening, of the network namespace of the calling thread. All only grow.
struct KernelCounters {
  std::uint64_t listen_overflows =
      0;                           ///< the accept queue was full, at a SYN or at the last ACK of a handshake
  std::uint64_t listen_drops = 0;  ///< handshakes thrown away for that or another reason
  std::uint64_t syn_cookies_sent = 0;  ///< the SYN queue was full, and the answer was a cookie
  std::uint64_t syn_retransmits = 0;   ///< TCPSynRetrans: SYNs and SYN-ACKs sent again
  std::uint64_t active_opens = 0;      ///< connect(2) calls
  /// Packets lost because a processor's input queue was full (net.core.netdev_max_backlog). Of the whole
  /// machine, not of the namespace.
  std::uint64_t softnet_drops = 0;

  /// What has been added since `before`.
  KernelCounters since(const KernelCounters& before) const noexcept;
};

/// Reads /proc/thread-self/net/{netstat,snmp} and /proc/net/softnet_stat: 0.2 ms. What a kernel does not know
/// stays 0.
KernelCounters read_kernel_counters();

/// One IPv4 TCP socket of this network namespace.
struct TcpSocket {
  std::uint32_t local_address = 0;  ///< as in sockaddr_in, network byte order
  std::uint16_t local_port = 0;
  std::uint32_t remote_address = 0;
  std::uint16_t remote_port = 0;
  int state = 0;  ///< TCP_ESTABLISHED, ... as in <netinet/tcp.h>
};

/// Reads /proc/thread-self/net/tcp: 5 µs a socket.
std::vector<TcpSocket> read_tcp_sockets();

}  // namespace anteroom::bench
