#pragma once
#include <anteroom/fd.h>
#include <linux/netlink.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>

namespace anteroom::bench {

// What a netlink socket receives (netlink(7)). Nothing in it is trusted: a process with CAP_NET_ADMIN in the
// user namespace that owns the network namespace may send to it, for example root of a container.

/// One message of an answer: all of `body` was received.
struct NetlinkMessage {
  nlmsghdr header{};
  std::span<const std::byte> body;
};
/// One attribute of a message (rtnetlink(7)): all of `value` was received.
struct NetlinkAttribute {
  std::uint16_t type = 0;
  std::span<const std::byte> value;
};

/// Takes the first message off `received`, or nothing at its end. Throws std::system_error (bad_message) if
/// its length is less than its header or more than was received.
std::optional<NetlinkMessage> take_message(std::span<const std::byte>& received);
/// The same of an attribute.
std::optional<NetlinkAttribute> take_attribute(std::span<const std::byte>& attributes);

/// The T at `offset`, which need not be aligned there; nothing if it is not all there.
template <class T>
std::optional<T> read_as(std::span<const std::byte> bytes, std::size_t offset = 0) noexcept {
  static_assert(std::is_trivially_copyable_v<T>);
  if (bytes.size() < offset || bytes.size() - offset < sizeof(T)) return std::nullopt;
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

/// The error of an NLMSG_ERROR as an errno, 0 for an acknowledgement. Throws std::system_error (bad_message)
/// if there is none.
int error_in(const NetlinkMessage& message);

/// A netlink socket that only the kernel can send to: it is connected to port 0, which is the kernel's, and
/// the kernel refuses to deliver what other ports send to such a socket (netlink_getsockbyportid in
/// net/netlink/af_netlink.c). `name` is what errors call it. Throws std::system_error.
Fd open_netlink(int protocol, std::string_view name);
/// Its own port, which the kernel's answers repeat. Throws std::system_error.
std::uint32_t netlink_port(const Fd& socket, std::string_view name);

/// The next datagram that the kernel itself has sent; others are read and forgotten. Throws std::system_error
/// if `buffer` is too small for it (message_size), and if none comes.
std::span<const std::byte> receive_from_kernel(const Fd& socket, std::span<std::byte> buffer,
                                               std::string_view name);

}  // namespace anteroom::bench
