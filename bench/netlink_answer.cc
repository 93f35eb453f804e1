#include "netlink_answer.h"

#include <anteroom/socket.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <system_error>

namespace anteroom::bench {
namespace {

// The kernel has answered before it returns from the request, so only what was lost is waited for.
constexpr timeval kAnswerTimeout{.tv_sec = 10, .tv_usec = 0};

[[noreturn]] void refuse(std::string_view what) {
  throw setup_error(std::make_error_code(std::errc::bad_message), "read a netlink answer", what);
}

/// Takes `length` bytes off, and what follows them up to the next multiple of four; returns those behind the
/// header.
std::span<const std::byte> take(std::span<const std::byte>& bytes, std::size_t length, std::size_t header) {
  const std::span<const std::byte> whole = bytes.first(length);
  bytes = bytes.subspan(std::min<std::size_t>(NLMSG_ALIGN(length), bytes.size()));
  return whole.subspan(std::min(header, length));
}

}  // namespace

std::optional<NetlinkMessage> take_message(std::span<const std::byte>& received) {
  if (received.empty()) return std::nullopt;
  const auto header = read_as<nlmsghdr>(received);
  if (!header) refuse("that ends within a header");
  if (header->nlmsg_len < sizeof(*header) || header->nlmsg_len > received.size())
    refuse("whose length is not its own");
  return NetlinkMessage{.header = *header, .body = take(received, header->nlmsg_len, NLMSG_HDRLEN)};
}

std::optional<NetlinkAttribute> take_attribute(std::span<const std::byte>& attributes) {
  if (attributes.empty()) return std::nullopt;
  const auto header = read_as<rtattr>(attributes);
  if (!header) refuse("that ends within an attribute");
  if (header->rta_len < sizeof(*header) || header->rta_len > attributes.size())
    refuse("with an attribute whose length is not its own");
  return NetlinkAttribute{.type = header->rta_type,
                          .value = take(attributes, header->rta_len, RTA_LENGTH(0))};
}

int error_in(const NetlinkMessage& message) {
  const auto error = read_as<int>(message.body);
  if (!error || *error > 0 || *error == INT_MIN) refuse("that is an error without a number");
  return -*error;
}

Fd open_netlink(int protocol, std::string_view name) {
  Fd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol));
  if (!socket) throw setup_error(last_error(), "socket", name);
  const sockaddr_nl kernel{.nl_family = AF_NETLINK, .nl_pad = 0, .nl_pid = 0, .nl_groups = 0};
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&kernel), sizeof(kernel)) != 0)
    throw setup_error(last_error(), "connect", name);
  (void)::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &kAnswerTimeout, sizeof(kAnswerTimeout));
  return socket;
}

std::uint32_t netlink_port(const Fd& socket, std::string_view name) {
  sockaddr_nl own{};
  socklen_t size = sizeof(own);
  if (::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&own), &size) != 0)
    throw setup_error(last_error(), "getsockname", name);
  return own.nl_pid;
}

std::span<const std::byte> receive_from_kernel(const Fd& socket, std::span<std::byte> buffer,
                                               std::string_view name) {
  for (;;) {
    sockaddr_nl sender{};
    iovec into{.iov_base = buffer.data(), .iov_len = buffer.size()};
    msghdr message{};
    message.msg_name = &sender;
    message.msg_namelen = sizeof(sender);
    message.msg_iov = &into;
    message.msg_iovlen = 1;
    const ssize_t size = ::recvmsg(socket.get(), &message, 0);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) throw setup_error(last_error(), "receive from", name);
    // Only the kernel has port 0. Another process may have sent something before the socket was connected.
    if (message.msg_namelen != sizeof(sender) || sender.nl_family != AF_NETLINK || sender.nl_pid != 0)
      continue;
    if ((message.msg_flags & MSG_TRUNC) != 0)
      throw setup_error(std::make_error_code(std::errc::message_size), "receive from", name);
    return buffer.first(static_cast<std::size_t>(size));
  }
}

}  // namespace anteroom::bench
