#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

namespace anteroom::bench {

/// The kernel's counters that have to do with listening, under its own names. Those of TcpExt are in
/// /proc/net/netstat, those of Tcp in /proc/net/snmp.
enum class Counter : std::uint8_t {
  kListenOverflows,    ///< the accept queue was full, at a SYN or at the last ACK of a handshake
  kListenDrops,        ///< handshakes thrown away for that or another reason
  kSyncookiesSent,     ///< the SYN queue was full, and the answer was a cookie
  kSyncookiesRecv,     ///< ACKs that brought one back
  kSyncookiesFailed,   ///< ACKs that were to bring one back, and did not
  kReqQFullDoCookies,  ///< the same as kSyncookiesSent, counted where it is decided
  kReqQFullDrop,       ///< the SYN queue was full, and cookies were off
  kSynRetrans,         ///< SYNs and SYN-ACKs sent again
  kTimeouts,           ///< retransmission timers that ran out
  kEmbryonicRsts,      ///< resets of connections that were not established yet
  kBacklogDrop,  ///< of a socket's own backlog while a process holds it: not the listen queue, despite its
                 ///< name
  kTimeWaitOverflow,        ///< more sockets in TIME_WAIT than tcp_max_tw_buckets
  kTimeWait,                ///< sockets that have ended their TIME_WAIT
  kTimeWaitRecycled,        ///< TIME_WAIT sockets used again
  kDeferAcceptDrop,         ///< last ACKs without data, under TCP_DEFER_ACCEPT
  kFastOpenListenOverflow,  ///< the queue of TCP Fast Open was full
  kActiveOpens,             ///< SYNs sent by connect(2), without those sent again
  kPassiveOpens,            ///< connections that came about at a listener
  kAttemptFails,            ///< handshakes that failed
  kEstabResets,             ///< established connections that were reset
  kRetransSegs,             ///< segments sent again, of any kind
  kOutRsts,                 ///< resets sent
};

constexpr std::array<std::pair<Counter, std::string_view>, 22> kCounters{{
    {Counter::kListenOverflows, "TcpExt.ListenOverflows"},
    {Counter::kListenDrops, "TcpExt.ListenDrops"},
    {Counter::kSyncookiesSent, "TcpExt.SyncookiesSent"},
    {Counter::kSyncookiesRecv, "TcpExt.SyncookiesRecv"},
    {Counter::kSyncookiesFailed, "TcpExt.SyncookiesFailed"},
    {Counter::kReqQFullDoCookies, "TcpExt.TCPReqQFullDoCookies"},
    {Counter::kReqQFullDrop, "TcpExt.TCPReqQFullDrop"},
    {Counter::kSynRetrans, "TcpExt.TCPSynRetrans"},
    {Counter::kTimeouts, "TcpExt.TCPTimeouts"},
    {Counter::kEmbryonicRsts, "TcpExt.EmbryonicRsts"},
    {Counter::kBacklogDrop, "TcpExt.TCPBacklogDrop"},
    {Counter::kTimeWaitOverflow, "TcpExt.TCPTimeWaitOverflow"},
    {Counter::kTimeWait, "TcpExt.TW"},
    {Counter::kTimeWaitRecycled, "TcpExt.TWRecycled"},
    {Counter::kDeferAcceptDrop, "TcpExt.TCPDeferAcceptDrop"},
    {Counter::kFastOpenListenOverflow, "TcpExt.TCPFastOpenListenOverflow"},
    {Counter::kActiveOpens, "Tcp.ActiveOpens"},
    {Counter::kPassiveOpens, "Tcp.PassiveOpens"},
    {Counter::kAttemptFails, "Tcp.AttemptFails"},
    {Counter::kEstabResets, "Tcp.EstabResets"},
    {Counter::kRetransSegs, "Tcp.RetransSegs"},
    {Counter::kOutRsts, "Tcp.OutRsts"},
}};

/// The kernel's own books about listening, of the network namespace of the calling thread. All only grow.
class KernelCounters {
 public:
  std::uint64_t& operator[](Counter counter) noexcept { return values_[static_cast<std::size_t>(counter)]; }
  std::uint64_t operator[](Counter counter) const noexcept {
    return values_[static_cast<std::size_t>(counter)];
  }
  /// What has been added since `before`.
  KernelCounters since(const KernelCounters& before) const noexcept {
    KernelCounters added;
    for (std::size_t i = 0; i < values_.size(); ++i) {
      added.values_[i] = values_[i] - before.values_[i];
      added.is_missing_[i] = is_missing_[i] || before.is_missing_[i];
    }
    return added;
  }

  /// Not, if the kernel has no such counter, or /proc does not show it: then its value is 0 and means
  /// nothing.
  bool is_known(Counter counter) const noexcept { return !is_missing_[static_cast<std::size_t>(counter)]; }
  void note_missing(Counter counter) noexcept { is_missing_[static_cast<std::size_t>(counter)] = true; }

 private:
  std::array<std::uint64_t, kCounters.size()> values_{};
  std::array<bool, kCounters.size()> is_missing_{};
};

/// Reads /proc/thread-self/net/{netstat,snmp}: 0.1 ms. What is not there is not known.
KernelCounters read_kernel_counters();

/// Packets lost because a processor's input queue was full (net.core.netdev_max_backlog), from
/// /proc/net/softnet_stat. Of the whole machine, not of a namespace.
std::uint64_t read_softnet_drops();

}  // namespace anteroom::bench
