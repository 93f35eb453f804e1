#pragma once
#include <anteroom/fd.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "netlink_answer.h"

namespace anteroom::bench {

/// An IPv4 address with the length of its network's prefix: "10.77.0.1", 24.
struct Network {
  std::string_view ip;
  std::uint8_t prefix_bits = 32;
};

/// Asks the kernel for links, addresses and routes, as ip(8) does (rtnetlink(7)), which a fresh machine need
/// not have. Speaks to the network namespace of the thread that makes it. Every request is answered before it
/// returns, and throws std::system_error if the answer is no.
class Netlink {
 public:
  Netlink();

  /// A veth pair: both links are named `link`, one here, the other in the network namespace `other_namespace`
  /// (a descriptor). Both have one hardware address, for a line without ARP.
  void make_veth(const std::string& link, int other_namespace);

  /// Sets a link's transmit queue, in packets.
  void set_queue_length(const std::string& link, std::uint32_t packets);

  void raise(const std::string& link);
  /// Raises it without ARP, so that no packet of a burst waits, or is lost, for the address of the next hop.
  void raise_without_arp(const std::string& link);
  /// Whether packets go through: a link that was raised before its peer drops them until the kernel has come
  /// round to it, which is some time after the peer was raised.
  bool is_running(const std::string& link);

  void add_address(const std::string& link, const Network& address);
  /// Packets to `network` go by way of `gateway`.
  void add_route(const Network& network, std::string_view gateway);
  /// All of `network` is this machine: any of its addresses can be bound, and answers.
  void make_local(const Network& network);

 private:
  class Request;
  /// The kernel's answer to it, which lies in `buffer_`.
  NetlinkMessage exchange(Request& request, std::string_view tried, std::string_view on);
  void ask(Request& request, std::string_view tried, std::string_view on);
  void set_flags(const std::string& link, unsigned flags);

  Fd socket_;
  std::uint32_t port_ = 0;
  std::uint32_t requests_ = 0;
  std::vector<std::byte> buffer_;
};

}  // namespace anteroom::bench
