#include "netlink.h"

#include <anteroom/socket.h>
#include <arpa/inet.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <span>
#include <vector>

#include "netlink_answer.h"

namespace anteroom::bench {
namespace {

// Locally administered (the second bit of the first byte), and ours alone: nobody else is on the line.
constexpr std::array<unsigned char, 6> kHardwareAddress{0x02, 'd', 'o', 'o', 'r', 0x01};
// A refusal repeats the request, and a link has some 2 KiB of attributes.
constexpr std::size_t kAnswerBytes = 32 * 1024;
constexpr std::string_view kName = "rtnetlink";
constexpr int kLoopbackIndex = 1;  // in every network namespace (LOOPBACK_IFINDEX)

int index_of(const std::string& link) {
  const unsigned index = ::if_nametoindex(link.c_str());
  if (index == 0) throw setup_error(last_error(), "look for the link", link);
  return static_cast<int>(index);
}

in_addr address_of(std::string_view ip) {
  in_addr address{};
  if (::inet_pton(AF_INET, std::string(ip).c_str(), &address) != 1)
    throw setup_error(std::make_error_code(std::errc::invalid_argument), "read the address", ip);
  return address;
}

}  // namespace

/// One message to the kernel: its header, the header of what it is about, and attributes, each of which may
/// hold others.
class Netlink::Request {
 public:
  template <class Subject>
  Request(int type, int flags, const Subject& subject) {
    const nlmsghdr header{.nlmsg_len = 0,
                          .nlmsg_type = static_cast<std::uint16_t>(type),
                          .nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags),
                          .nlmsg_seq = 0,
                          .nlmsg_pid = 0};
    append(&header, sizeof(header));
    append(&subject, sizeof(subject));
  }

  void append(const void* data, std::size_t size) {
    const auto* const begin = static_cast<const std::byte*>(data);
    bytes_.insert(bytes_.end(), begin, begin + size);
    bytes_.resize(NLMSG_ALIGN(bytes_.size()));
  }

  void add(unsigned short type, const void* data, std::size_t size) {
    const std::size_t begin = begin_attribute(type);
    append(data, size);
    // Padding belongs to no attribute.
    set_length(begin, RTA_LENGTH(size));
  }
  void add(unsigned short type, const std::string& text) { add(type, text.c_str(), text.size() + 1); }
  template <class Number>
  void add(unsigned short type, const Number& number) {
    add(type, &number, sizeof(number));
  }

  std::size_t begin_attribute(unsigned short type) {
    const std::size_t begin = bytes_.size();
    const rtattr attribute{.rta_len = 0, .rta_type = type};
    append(&attribute, sizeof(attribute));
    return begin;
  }
  void end_attribute(std::size_t begin) { set_length(begin, bytes_.size() - begin); }

  /// The whole message, of which the header knows its number and the length now.
  const std::vector<std::byte>& finish(std::uint32_t number) {
    const auto length = static_cast<std::uint32_t>(bytes_.size());
    std::memcpy(bytes_.data() + offsetof(nlmsghdr, nlmsg_seq), &number, sizeof(number));
    std::memcpy(bytes_.data() + offsetof(nlmsghdr, nlmsg_len), &length, sizeof(length));
    return bytes_;
  }

 private:
  void set_length(std::size_t begin, std::size_t size) {
    const auto length = static_cast<std::uint16_t>(size);
    std::memcpy(bytes_.data() + begin + offsetof(rtattr, rta_len), &length, sizeof(length));
  }

  std::vector<std::byte> bytes_;
};

Netlink::Netlink()
    : socket_(open_netlink(NETLINK_ROUTE, kName)),
      port_(netlink_port(socket_, kName)),
      buffer_(kAnswerBytes) {}

NetlinkMessage Netlink::exchange(Request& request, std::string_view tried, std::string_view on) {
  const std::uint32_t number = ++requests_;
  const std::vector<std::byte>& message = request.finish(number);
  if (::send(socket_.get(), message.data(), message.size(), 0) < 0)
    throw setup_error(last_error(), tried, on);
  for (;;) {
    std::span<const std::byte> received = receive_from_kernel(socket_, buffer_, kName);
    while (const auto answer = take_message(received)) {
      if (answer->header.nlmsg_seq != number || answer->header.nlmsg_pid != port_) continue;
      if (answer->header.nlmsg_type == NLMSG_NOOP) continue;
      return *answer;
    }
  }
}

void Netlink::ask(Request& request, std::string_view tried, std::string_view on) {
  const NetlinkMessage answer = exchange(request, tried, on);
  if (answer.header.nlmsg_type != NLMSG_ERROR)
    throw setup_error(std::make_error_code(std::errc::protocol_error), tried, on);
  if (const int error = error_in(answer)) throw setup_error({error, std::system_category()}, tried, on);
}

void Netlink::make_veth(const std::string& link, int other_namespace) {
  Request request(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, ifinfomsg{});
  request.add(IFLA_IFNAME, link);
  request.add(IFLA_ADDRESS, kHardwareAddress);
  const std::size_t info = request.begin_attribute(IFLA_LINKINFO);
  request.add(IFLA_INFO_KIND, std::string("veth"));
  const std::size_t data = request.begin_attribute(IFLA_INFO_DATA);
  const std::size_t peer = request.begin_attribute(VETH_INFO_PEER);
  const ifinfomsg peer_header{};
  request.append(&peer_header, sizeof(peer_header));
  request.add(IFLA_IFNAME, link);
  request.add(IFLA_ADDRESS, kHardwareAddress);
  request.add(IFLA_NET_NS_FD, other_namespace);
  request.end_attribute(peer);
  request.end_attribute(data);
  request.end_attribute(info);
  ask(request, "make the veth pair", link);
}

void Netlink::set_queue_length(const std::string& link, std::uint32_t packets) {
  Request request(RTM_NEWLINK, NLM_F_ACK, ifinfomsg{.ifi_index = index_of(link)});
  request.add(IFLA_TXQLEN, packets);
  ask(request, "lengthen the queue of", link);
}

void Netlink::raise(const std::string& link) { set_flags(link, IFF_UP); }

void Netlink::raise_without_arp(const std::string& link) { set_flags(link, IFF_UP | IFF_NOARP); }

void Netlink::set_flags(const std::string& link, unsigned flags) {
  Request request(RTM_NEWLINK, NLM_F_ACK,
                  ifinfomsg{.ifi_index = index_of(link), .ifi_flags = flags, .ifi_change = flags});
  ask(request, "raise the link", link);
}

bool Netlink::is_running(const std::string& link) {
  Request request(RTM_GETLINK, 0, ifinfomsg{.ifi_index = index_of(link)});
  const NetlinkMessage answer = exchange(request, "look at the link", link);
  const auto state = read_as<ifinfomsg>(answer.body);
  return answer.header.nlmsg_type == RTM_NEWLINK && state && (state->ifi_flags & IFF_RUNNING) != 0;
}

void Netlink::add_address(const std::string& link, const Network& address) {
  const in_addr ip = address_of(address.ip);
  Request request(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
                  ifaddrmsg{.ifa_family = AF_INET,
                            .ifa_prefixlen = address.prefix_bits,
                            .ifa_index = static_cast<std::uint32_t>(index_of(link))});
  request.add(IFA_LOCAL, ip);
  request.add(IFA_ADDRESS, ip);
  ask(request, "add the address", address.ip);
}

void Netlink::add_route(const Network& network, std::string_view gateway) {
  Request request(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
                  rtmsg{.rtm_family = AF_INET,
                        .rtm_dst_len = network.prefix_bits,
                        .rtm_table = RT_TABLE_MAIN,
                        .rtm_protocol = RTPROT_STATIC,
                        .rtm_scope = RT_SCOPE_UNIVERSE,
                        .rtm_type = RTN_UNICAST});
  request.add(RTA_DST, address_of(network.ip));
  request.add(RTA_GATEWAY, address_of(gateway));
  ask(request, "add the route to", network.ip);
}

void Netlink::make_local(const Network& network) {
  Request request(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
                  rtmsg{.rtm_family = AF_INET,
                        .rtm_dst_len = network.prefix_bits,
                        .rtm_table = RT_TABLE_LOCAL,
                        .rtm_protocol = RTPROT_STATIC,
                        .rtm_scope = RT_SCOPE_HOST,
                        .rtm_type = RTN_LOCAL});
  request.add(RTA_DST, address_of(network.ip));
  request.add(RTA_OIF, kLoopbackIndex);
  ask(request, "make local the network", network.ip);
}

}  // namespace anteroom::bench
