#pragma once
#include <anteroom/bench/histogram.h>
#include <anteroom/fd.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace anteroom::bench {

/// What lies between clients and server.
enum class RoadKind : std::uint8_t {
  kPair,      ///< two private network namespaces: each side has its own counters, ports and sysctls
  kLoopback,  ///< one private network namespace with its loopback device
  kShared,    ///< this machine's own loopback, with everybody else's traffic
};

std::string_view name(RoadKind kind) noexcept;  // "pair", "loopback", "shared"

/// What is asked of a road.
struct RoadPlan {
  std::chrono::nanoseconds rtt{0};  ///< added by a delay line, half of it each way
  double loss = 0;                  ///< share of packets (0 to 1) that the delay line loses, each way
  std::uint64_t seed = 1;           ///< of what is lost: the n-th packet of a direction has the same lot
  /// Whether to stay where the calling process is, because the server is there already. Then nothing of the
  /// above is to be had.
  bool stays = false;
  /// On both sides: {"net.ipv4.tcp_syncookies", "0"}. Only those of the network, which nobody else sees.
  std::vector<std::pair<std::string, std::string>> sysctls;
};

/// What a delay line did. May lie in memory shared with others; the process that carries writes it.
struct RoadTraffic {
  std::uint64_t carried = 0;       ///< packets that arrived
  std::uint64_t lost = 0;          ///< all that did not; each is also one of the following
  std::uint64_t lost_syn = 0;      ///< TCP's SYN
  std::uint64_t lost_syn_ack = 0;  ///< TCP's SYN with ACK
  std::uint64_t lost_ack = 0;      ///< TCP's ACK with nothing else and no data
  std::uint64_t lost_other = 0;
  /// Of `lost`, those that the seed did not ask for: there were kPacketsMax on the way, or the far side took
  /// no more.
  std::uint64_t overrun = 0;
  std::int64_t lateness_max_ns = 0;
  /// By how much packets arrived later than rtt / 2 after they were sent. An upper bound: a packet counts as
  /// sent when the line last had nothing to read.
  Histogram lateness;
};

/// The road between clients and server in a trial: two private network namespaces, joined by a veth pair or,
/// if a round-trip time or loss is asked for, by a delay line between two TUN devices. Owns what holds the
/// far namespace and the devices: with it, and the processes on it, the road is gone.
class Road {
 public:
  /// Moves the calling process (which must have one thread) to the server's side of a new road: as root, or
  /// by a user namespace. If there is no pair to be had there is one private namespace with its loopback
  /// device, and if there is none at all, this machine's own; why_not() tells. In private ones IPv6 is off,
  /// net.core.somaxconn 1000000, and net.ipv4.ip_local_port_range 10000 to 65535, unless `plan` says
  /// otherwise.
  ///
  /// Throws std::runtime_error, with one line of cause and cure, if rtt, loss or sysctls are asked for and
  /// cannot be had.
  explicit Road(const RoadPlan& plan);

  RoadKind kind() const noexcept { return kind_; }
  /// What the system said instead of giving a pair; empty if it gave one.
  const std::string& why_not() const noexcept { return why_not_; }

  /// Moves the calling thread, and the processes that it forks from now on. Does nothing unless the road is a
  /// pair. Throws std::system_error.
  void go_to_client_side() const;
  void go_to_server_side() const;

  /// "10.77.0.1" in a pair, else "127.0.0.1".
  std::string server_address() const;
  /// Where the i-th batch of clients calls from, i below kSourcesMax; each is another one.
  std::string source_address(std::size_t i) const;
  static constexpr std::size_t kSourcesMax = 65'000;

  /// Whether somebody has to carry() for anything to arrive.
  bool is_delayed() const noexcept { return static_cast<bool>(client_tun_); }
  /// Runs the delay line in the calling process (a child of the one that made the road) until it is killed.
  /// Returns at once unless is_delayed(). Throws std::system_error if a device fails.
  ///
  /// A packet is written rtt / 2 after it was read, first in, first out. Lost are those that the seed says,
  /// those beyond kPacketsMax on the way, and those for which the far side has no memory. The line carries
  /// some 100,000 packets a second, a handshake being three, and is late beyond that: see
  /// RoadTraffic::lateness. Runs at a real-time priority if it may.
  void carry(RoadTraffic& traffic) const;
  static constexpr std::size_t kPacketsMax = 1'000'000;  ///< on the way, each way half of them

 private:
  void make_pair();
  void furnish() const;

  RoadPlan plan_;
  RoadKind kind_ = RoadKind::kShared;
  std::string why_not_;
  Fd client_namespace_;
  Fd server_namespace_;
  Fd client_tun_;
  Fd server_tun_;
};

/// Writes one sysctl, "net.core.somaxconn"; those of the network are of the calling thread's namespace. False
/// if that is not allowed, or there is none of that name; errno says which.
bool write_sysctl(std::string_view name, std::string_view value);
/// Reads one, with a space between its numbers; empty if it cannot be read.
std::string read_sysctl(std::string_view name);

}  // namespace anteroom::bench
