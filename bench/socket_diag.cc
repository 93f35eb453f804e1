#include <anteroom/bench/socket_diag.h>
#include <anteroom/socket.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "diag_dump.h"
#include "netlink_answer.h"

namespace anteroom::bench {
namespace {

// The kernel fills as much of a dump into one answer as the reader has room for, up to 32 KiB
// (netlink_dump in net/netlink/af_netlink.c).
constexpr std::size_t kAnswerBytes = 32 * 1024;

// A jump of the filter is a 16-bit number, and each port takes 12 bytes of it.
constexpr std::size_t kFilterPortsMax = 5000;

// Answers that were interrupted, before it is given up.
constexpr int kTriesMax = 5;

// Where the attributes of a socket begin.
constexpr std::size_t kSocketBytes = NLMSG_ALIGN(sizeof(inet_diag_msg));

constexpr std::string_view kName = "sock_diag";

/// "Its local port (or its remote one) is one of these", as a little program that the kernel runs on each
/// socket (inet_diag_bc_run in net/ipv4/inet_diag.c). An operation is followed by its operand; on a yes it
/// goes on `yes` bytes further, else `no` bytes; who gets to the end is sent, who jumps beyond it is not.
std::vector<inet_diag_bc_op> one_of(std::span<const std::uint16_t> ports, bool is_remote) {
  constexpr std::uint16_t kWord = sizeof(inet_diag_bc_op);
  const std::uint8_t compare = is_remote ? INET_DIAG_BC_D_EQ : INET_DIAG_BC_S_EQ;
  std::vector<inet_diag_bc_op> program;
  for (std::size_t i = 0; i < ports.size(); ++i) {
    // A yes goes on to the jump behind the operand, a no to the next port, and from the last one too far.
    program.push_back({.code = compare, .yes = 2 * kWord, .no = 3 * kWord});
    program.push_back({.code = INET_DIAG_BC_NOP, .yes = 0, .no = ports[i]});
    const std::size_t after = ports.size() - i - 1;
    if (after == 0) break;
    const auto to_the_end = static_cast<std::uint16_t>(kWord * (1 + 3 * (after - 1) + 2));
    program.push_back({.code = INET_DIAG_BC_JMP, .yes = kWord, .no = to_the_end});
  }
  return program;
}

Endpoint endpoint_of(int family, const __be32* address, __be16 port, std::uint32_t interface) {
  if (family == AF_INET) {
    sockaddr_in v4{};
    v4.sin_family = AF_INET;
    v4.sin_port = port;
    v4.sin_addr.s_addr = address[0];
    return Endpoint::from(reinterpret_cast<const sockaddr*>(&v4), sizeof(v4));
  }
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = port;
  std::memcpy(&v6.sin6_addr, address, sizeof(v6.sin6_addr));
  if (IN6_IS_ADDR_LINKLOCAL(&v6.sin6_addr)) v6.sin6_scope_id = interface;
  return Endpoint::from(reinterpret_cast<const sockaddr*>(&v6), sizeof(v6));
}

}  // namespace

DiagProgress read_diag_dump(std::span<const std::byte> received, const DiagQuestion& question,
                            const TakeSocket& take) {
  DiagProgress progress;
  while (const auto message = take_message(received)) {
    const nlmsghdr& header = message->header;
    // The rest of an answer that nobody read, or none of ours.
    if (header.nlmsg_seq != question.sequence || header.nlmsg_pid != question.port) continue;
    if ((header.nlmsg_flags & NLM_F_DUMP_INTR) != 0) progress.was_interrupted = true;
    if (header.nlmsg_type == NLMSG_DONE) {
      // It ends with how the dump went (netlink_dump_done in net/netlink/af_netlink.c).
      if (const auto result = read_as<int>(message->body); result && *result < 0)
        throw setup_error({error_in(*message), std::system_category()}, "query", kName);
      progress.is_done = true;
      return progress;
    }
    if (header.nlmsg_type == NLMSG_OVERRUN)
      throw setup_error(std::make_error_code(std::errc::no_buffer_space), "query", kName);
    if (header.nlmsg_type == NLMSG_ERROR) {
      // An error of 0 acknowledges, and a dump is not acknowledged.
      const int error = error_in(*message);
      throw setup_error({error != 0 ? error : EPROTO, std::system_category()}, "query", kName);
    }
    if (header.nlmsg_type != SOCK_DIAG_BY_FAMILY) continue;
    const auto socket = read_as<inet_diag_msg>(message->body);
    if (!socket)
      throw setup_error(std::make_error_code(std::errc::bad_message), "read a netlink answer",
                        "that ends within a socket");
    const bool is_asked_for = socket->idiag_family == question.family && socket->idiag_state < 32 &&
                              (question.states >> socket->idiag_state & 1) != 0;
    if (is_asked_for) take(*socket, message->body.subspan(std::min(kSocketBytes, message->body.size())));
  }
  return progress;
}

ListeningSocket listening_socket(const inet_diag_msg& socket, std::span<const std::byte> attributes) {
  ListeningSocket listener;
  listener.address =
      endpoint_of(socket.idiag_family, socket.id.idiag_src, socket.id.idiag_sport, socket.id.idiag_if);
  listener.depth = socket.idiag_rqueue;
  listener.limit = socket.idiag_wqueue;
  listener.cookie = std::uint64_t{socket.id.idiag_cookie[1]} << 32 | socket.id.idiag_cookie[0];
  listener.inode = socket.idiag_inode;
  listener.uid = socket.idiag_uid;
  while (const auto attribute = take_attribute(attributes)) {
    if (attribute->type == INET_DIAG_SKMEMINFO) {
      constexpr std::size_t kDropsAt = SK_MEMINFO_DROPS * sizeof(std::uint32_t);
      listener.drops = read_as<std::uint32_t>(attribute->value, kDropsAt).value_or(listener.drops);
    } else if (attribute->type == INET_DIAG_SKV6ONLY) {
      listener.is_v6_only = read_as<std::uint8_t>(attribute->value).value_or(0) != 0;
    }
  }
  return listener;
}

SocketDiag::SocketDiag()
    : socket_(open_netlink(NETLINK_SOCK_DIAG, kName)),
      port_(netlink_port(socket_, kName)),
      buffer_(kAnswerBytes) {}

template <class Take, class Restart>
void SocketDiag::dump(int family, std::uint32_t states, std::uint8_t extensions,
                      std::span<const std::uint16_t> ports, Take take, Restart restart, bool is_remote) {
  struct {
    nlmsghdr header{};
    inet_diag_req_v2 question{};
  } request;
  std::vector<inet_diag_bc_op> filter;
  if (ports.size() <= kFilterPortsMax) filter = one_of(ports, is_remote);
  const std::size_t filter_bytes = filter.size() * sizeof(filter[0]);
  rtattr attribute{.rta_len = static_cast<unsigned short>(RTA_LENGTH(filter_bytes)),
                   .rta_type = INET_DIAG_REQ_BYTECODE};
  std::array<iovec, 3> parts{{{.iov_base = &request, .iov_len = sizeof(request)},
                              {.iov_base = &attribute, .iov_len = sizeof(attribute)},
                              {.iov_base = filter.data(), .iov_len = filter_bytes}}};
  request.question.sdiag_family = static_cast<std::uint8_t>(family);
  request.question.sdiag_protocol = IPPROTO_TCP;
  request.question.idiag_ext = extensions;
  request.question.idiag_states = states;
  for (int tries = 1;; ++tries) {
    const std::uint32_t number = ++questions_;
    request.header = {.nlmsg_len = static_cast<std::uint32_t>(
                          sizeof(request) + (filter.empty() ? 0 : sizeof(attribute) + filter_bytes)),
                      .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                      .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
                      .nlmsg_seq = number,
                      .nlmsg_pid = 0};
    if (::writev(socket_.get(), parts.data(), filter.empty() ? 1 : 3) < 0)
      throw setup_error(last_error(), "query", kName);
    const DiagQuestion question{.family = family, .states = states, .sequence = number, .port = port_};
    DiagProgress all;
    while (!all.is_done) {
      const DiagProgress part = read_diag_dump(receive_from_kernel(socket_, buffer_, kName), question, take);
      all.is_done = part.is_done;
      all.was_interrupted = all.was_interrupted || part.was_interrupted;
    }
    if (!all.was_interrupted) return;
    if (tries == kTriesMax)
      throw setup_error(std::make_error_code(std::errc::resource_unavailable_try_again), "query", kName);
    restart();
  }
}

void SocketDiag::listeners(std::vector<ListeningSocket>& into, std::span<const std::uint16_t> ports) {
  constexpr std::uint8_t kMemory = 1 << (INET_DIAG_SKMEMINFO - 1);
  into.clear();
  const bool is_filtered_here = ports.size() > kFilterPortsMax;
  for (const int family : {AF_INET, AF_INET6}) {
    const auto known = static_cast<std::ptrdiff_t>(into.size());
    const auto take = [&](const inet_diag_msg& socket, std::span<const std::byte> attributes) {
      if (is_filtered_here && std::ranges::count(ports, ntohs(socket.id.idiag_sport)) == 0) return;
      into.push_back(listening_socket(socket, attributes));
    };
    dump(family, 1U << TCP_LISTEN, kMemory, ports, take,
         [&] { into.erase(into.begin() + known, into.end()); });
  }
}

std::vector<ConnectedSocket> SocketDiag::connections(std::uint16_t local_port) {
  constexpr std::uint32_t kAllStates = (1U << (TCP_CLOSING + 1)) - 2;
  constexpr std::uint32_t kNotThese = 1U << TCP_LISTEN | 1U << TCP_TIME_WAIT;
  std::vector<ConnectedSocket> sockets;
  for (const int family : {AF_INET, AF_INET6}) {
    const auto known = static_cast<std::ptrdiff_t>(sockets.size());
    const auto take = [&](const inet_diag_msg& socket, std::span<const std::byte>) {
      sockets.push_back({.local = endpoint_of(family, socket.id.idiag_src, socket.id.idiag_sport, 0),
                         .remote = endpoint_of(family, socket.id.idiag_dst, socket.id.idiag_dport, 0),
                         .state = socket.idiag_state});
    };
    dump(family, kAllStates & ~kNotThese, 0, std::span(&local_port, 1), take,
         [&] { sockets.erase(sockets.begin() + known, sockets.end()); });
  }
  return sockets;
}

std::optional<Endpoint> SocketDiag::arrival_of(const Endpoint& client, const Endpoint& server) {
  // TIME_WAIT may be of an earlier connection from the same port.
  constexpr std::uint32_t kStates =
      (1U << (TCP_CLOSING + 1)) - 2 - (1U << TCP_LISTEN) - (1U << TCP_TIME_WAIT);
  const std::uint16_t port = client.port();
  std::vector<Endpoint> others;
  for (const int family : {AF_INET, AF_INET6}) {
    const auto known = static_cast<std::ptrdiff_t>(others.size());
    const auto take = [&](const inet_diag_msg& socket, std::span<const std::byte>) {
      if (unmapped(endpoint_of(family, socket.id.idiag_dst, socket.id.idiag_dport, 0)) == unmapped(client))
        others.push_back(unmapped(endpoint_of(family, socket.id.idiag_src, socket.id.idiag_sport, 0)));
    };
    dump(family, kStates, 0, std::span(&port, 1), take,
         [&] { others.erase(others.begin() + known, others.end()); }, true);
  }
  if (std::ranges::count(others, unmapped(server)) > 0) return unmapped(server);
  // One port of a client may have several connections, each to another server. Those were made to the address
  // at which they arrived.
  for (const ConnectedSocket& own : connections(port)) {
    if (unmapped(own.local) == unmapped(client)) std::erase(others, unmapped(own.remote));
  }
  return others.size() == 1 ? std::optional(others.front()) : std::nullopt;
}

Endpoint unmapped(const Endpoint& endpoint) noexcept {
  if (endpoint.family() != AF_INET6) return endpoint;
  const auto* const v6 = reinterpret_cast<const sockaddr_in6*>(endpoint.data());
  if (!IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) return endpoint;
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  v4.sin_port = v6->sin6_port;
  std::memcpy(&v4.sin_addr, &v6->sin6_addr.s6_addr[12], sizeof(v4.sin_addr));
  return Endpoint::from(reinterpret_cast<const sockaddr*>(&v4), sizeof(v4));
}

}  // namespace anteroom::bench
