// What a netlink socket receives, with every length in it wrong in every way.
#include "netlink_answer.h"

#include <gtest/gtest.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <system_error>
#include <vector>

#include "diag_dump.h"

namespace anteroom::bench {
namespace {

using Bytes = std::vector<std::byte>;

constexpr DiagQuestion kQuestion{.family = AF_INET, .states = 1U << TCP_LISTEN, .sequence = 7, .port = 4242};

template <class T>
void put(Bytes& bytes, const T& value) {
  const auto* const begin = reinterpret_cast<const std::byte*>(&value);
  bytes.insert(bytes.end(), begin, begin + sizeof(value));
}
template <class T>
void put_at(Bytes& bytes, std::size_t offset, const T& value) {
  std::memcpy(bytes.data() + offset, &value, sizeof(value));
}

nlmsghdr header_of(std::uint16_t type, std::size_t body_bytes) {
  return {.nlmsg_len = static_cast<std::uint32_t>(sizeof(nlmsghdr) + body_bytes),
          .nlmsg_type = type,
          .nlmsg_flags = NLM_F_MULTI,
          .nlmsg_seq = kQuestion.sequence,
          .nlmsg_pid = kQuestion.port};
}

void put_attribute(Bytes& bytes, std::uint16_t type, const Bytes& value) {
  put(bytes, rtattr{.rta_len = static_cast<std::uint16_t>(RTA_LENGTH(value.size())), .rta_type = type});
  bytes.insert(bytes.end(), value.begin(), value.end());
  bytes.resize(NLMSG_ALIGN(bytes.size()));
}

/// A listener on 127.0.0.1:8080 with 3 of 50 waiting and 9 drops, as the kernel shows one.
Bytes listener() {
  inet_diag_msg socket{};
  socket.idiag_family = AF_INET;
  socket.idiag_state = TCP_LISTEN;
  socket.id.idiag_sport = htons(8080);
  socket.id.idiag_src[0] = htonl(INADDR_LOOPBACK);
  socket.id.idiag_cookie[0] = 5;
  socket.idiag_rqueue = 3;
  socket.idiag_wqueue = 50;
  socket.idiag_inode = 12345;
  Bytes body;
  put(body, socket);
  Bytes memory;
  for (std::uint32_t i = 0; i < SK_MEMINFO_VARS; ++i) put(memory, i == SK_MEMINFO_DROPS ? 9U : 100U);
  put_attribute(body, INET_DIAG_SKMEMINFO, memory);
  put_attribute(body, INET_DIAG_SKV6ONLY, {std::byte{1}});
  Bytes message;
  put(message, header_of(SOCK_DIAG_BY_FAMILY, body.size()));
  message.insert(message.end(), body.begin(), body.end());
  return message;
}

Bytes end_of_dump(int result = 0) {
  Bytes message;
  put(message, header_of(NLMSG_DONE, sizeof(result)));
  put(message, result);
  return message;
}

Bytes error_message(int error) {
  Bytes message;
  put(message, header_of(NLMSG_ERROR, sizeof(nlmsgerr)));
  put(message, nlmsgerr{.error = error, .msg = {}});
  return message;
}

Bytes joined(std::initializer_list<Bytes> messages) {
  Bytes all;
  for (const Bytes& each : messages) all.insert(all.end(), each.begin(), each.end());
  return all;
}

struct Read {
  std::vector<ListeningSocket> listeners;
  DiagProgress progress;
  std::error_code error;
};

/// From memory of just that size, so that AddressSanitizer sees a byte that is read beyond it.
Read read(const Bytes& datagram) {
  Read read;
  const std::unique_ptr<std::byte[]> exact(new std::byte[datagram.size()]);
  std::ranges::copy(datagram, exact.get());
  try {
    read.progress = read_diag_dump(std::span<const std::byte>(exact.get(), datagram.size()), kQuestion,
                                   [&](const inet_diag_msg& socket, std::span<const std::byte> attributes) {
                                     read.listeners.push_back(listening_socket(socket, attributes));
                                   });
  } catch (const std::system_error& error) {
    read.error = error.code();
  }
  return read;
}

TEST(NetlinkAnswer, IsReadAsTheKernelWroteIt) {
  const Read all = read(joined({listener(), listener(), end_of_dump()}));
  EXPECT_FALSE(all.error) << all.error.message();
  EXPECT_TRUE(all.progress.is_done);
  ASSERT_EQ(all.listeners.size(), 2U);
  for (const ListeningSocket& each : all.listeners) {
    EXPECT_EQ(each.address, Endpoint("127.0.0.1", 8080));
    EXPECT_EQ(each.depth, 3U);
    EXPECT_EQ(each.limit, 50U);
    EXPECT_EQ(each.drops, 9U);
    EXPECT_EQ(each.cookie, 5U);
    EXPECT_EQ(each.inode, 12345U);
    EXPECT_TRUE(each.is_v6_only);
  }
  EXPECT_FALSE(read(listener()).progress.is_done) << "the rest is in another datagram";
}

TEST(NetlinkAnswer, WhoseLengthIsLessThanASocketIsRefused) {
  // The attributes would begin behind the end, and their length would wrap around.
  for (const std::uint32_t length : {16U, 17U, 20U, 61U, 87U}) {
    Bytes message = listener();
    message.resize(std::max<std::size_t>(length, 16));
    put_at(message, offsetof(nlmsghdr, nlmsg_len), length);
    const Read read_message = read(message);
    EXPECT_EQ(read_message.error, std::errc::bad_message) << length;
    EXPECT_TRUE(read_message.listeners.empty()) << length;
  }
}

TEST(NetlinkAnswer, ThatEndsBehindAnotherOneOfTheSameDatagramIsRefused) {
  // A first message that is too short for a socket, and bytes behind it that would be taken for one.
  Bytes message = joined({listener(), listener()});
  put_at(message, offsetof(nlmsghdr, nlmsg_len), std::uint32_t{61});
  EXPECT_EQ(read(message).error, std::errc::bad_message);
  EXPECT_TRUE(read(message).listeners.empty());
}

TEST(NetlinkAnswer, IsSafeWhereverItIsCutOff) {
  const Bytes whole = joined({listener(), listener(), end_of_dump()});
  const std::size_t one = listener().size();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const Read part = read(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)));
    EXPECT_EQ(part.listeners.size(), size / one) << size;
    EXPECT_FALSE(part.progress.is_done) << size;
    const bool ends_with_a_message = size == 0 || size == one || size == 2 * one;
    EXPECT_EQ(part.error == std::errc::bad_message, !ends_with_a_message) << size;
  }
}

TEST(NetlinkAnswer, IsSafeWithEveryLengthInIt) {
  const Bytes whole = joined({listener(), end_of_dump()});
  const std::size_t attributes = NLMSG_HDRLEN + sizeof(inet_diag_msg);
  for (std::uint32_t length = 0; length <= 64; ++length) {
    SCOPED_TRACE(length);
    Bytes message = whole;
    put_at(message, offsetof(nlmsghdr, nlmsg_len), length);
    EXPECT_EQ(read(message).error, std::errc::bad_message);
    for (const std::size_t attribute : {attributes, attributes + RTA_LENGTH(SK_MEMINFO_VARS * 4)}) {
      message = whole;
      put_at(message, attribute + offsetof(rtattr, rta_len), static_cast<std::uint16_t>(length));
      const Read read_message = read(message);
      if (length < sizeof(rtattr)) {
        EXPECT_EQ(read_message.error, std::errc::bad_message);
      } else if (!read_message.error) {
        EXPECT_EQ(read_message.listeners.size(), 1U);
        EXPECT_EQ(read_message.listeners.front().depth, 3U);
      }
    }
    message = whole;
    put_at(message, listener().size() + offsetof(nlmsghdr, nlmsg_len), length);
    const Read read_end = read(message);
    EXPECT_EQ(read_end.listeners.size(), 1U);
    EXPECT_EQ(read_end.progress.is_done, !read_end.error);
  }
  for (const std::uint32_t length : {0x7fffffffU, 0x80000000U, 0xfffffff0U, 0xffffffffU}) {
    Bytes message = whole;
    put_at(message, offsetof(nlmsghdr, nlmsg_len), length);
    EXPECT_EQ(read(message).error, std::errc::bad_message) << length;
  }
  Bytes message = whole;
  put_at(message, attributes + offsetof(rtattr, rta_len), std::uint16_t{0xffff});
  EXPECT_EQ(read(message).error, std::errc::bad_message);
}

TEST(NetlinkAnswer, IsSafeWithEveryByteOfItChanged) {
  const Bytes whole = joined({listener(), end_of_dump()});
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (const int value : {0x00, 0x01, 0x7f, 0x80, 0xff}) {
      Bytes message = whole;
      message[at] = static_cast<std::byte>(value);
      EXPECT_LE(read(message).listeners.size(), 1U) << at;
    }
  }
}

TEST(NetlinkAnswer, ToAnotherQuestionIsPassedOver) {
  const std::array<std::function<void(Bytes&)>, 4> changes{
      [](Bytes& message) { put_at(message, offsetof(nlmsghdr, nlmsg_seq), kQuestion.sequence + 1); },
      [](Bytes& message) { put_at(message, offsetof(nlmsghdr, nlmsg_pid), kQuestion.port + 1); },
      [](Bytes& message) { put_at(message, NLMSG_HDRLEN, std::uint8_t{AF_INET6}); },
      [](Bytes& message) { put_at(message, NLMSG_HDRLEN + 1, std::uint8_t{TCP_ESTABLISHED}); },
  };
  for (const auto& change : changes) {
    Bytes other = listener();
    change(other);
    const Read all = read(joined({other, listener(), end_of_dump()}));
    EXPECT_FALSE(all.error) << all.error.message();
    EXPECT_EQ(all.listeners.size(), 1U);
    EXPECT_TRUE(all.progress.is_done);
  }
  Bytes wild = listener();
  put_at(wild, NLMSG_HDRLEN + 1, std::uint8_t{0xff});
  EXPECT_TRUE(read(wild).listeners.empty()) << "a state for which there is no bit";
}

TEST(NetlinkAnswer, SaysWhatTheKernelRefused) {
  EXPECT_EQ(read(error_message(-EPERM)).error, std::errc::operation_not_permitted);
  EXPECT_EQ(read(end_of_dump(-ENOMEM)).error, std::errc::not_enough_memory);
  EXPECT_EQ(read(error_message(0)).error, std::errc::protocol_error) << "a dump is not acknowledged";
  EXPECT_EQ(read(error_message(5)).error, std::errc::bad_message);
  EXPECT_EQ(read(error_message(INT_MIN)).error, std::errc::bad_message);
  Bytes bare;
  put(bare, header_of(NLMSG_ERROR, 0));
  EXPECT_EQ(read(bare).error, std::errc::bad_message) << "an error without a number";
  Bytes overrun;
  put(overrun, header_of(NLMSG_OVERRUN, 0));
  EXPECT_EQ(read(overrun).error, std::errc::no_buffer_space);
}

TEST(NetlinkAnswer, ThatWasInterruptedSaysSo) {
  Bytes first = listener();
  put_at(first, offsetof(nlmsghdr, nlmsg_flags), std::uint16_t{NLM_F_MULTI | NLM_F_DUMP_INTR});
  const Read all = read(joined({first, end_of_dump()}));
  EXPECT_TRUE(all.progress.was_interrupted);
  EXPECT_TRUE(all.progress.is_done);
  EXPECT_FALSE(read(joined({listener(), end_of_dump()})).progress.was_interrupted);
}

/// Asks rtnetlink for the loopback interface.
void query_loopback(const Fd& socket) {
  struct {
    nlmsghdr header;
    ifinfomsg link;
  } request{};
  request.header.nlmsg_len = sizeof(request);
  request.header.nlmsg_type = RTM_GETLINK;
  request.header.nlmsg_flags = NLM_F_REQUEST;
  request.header.nlmsg_seq = kQuestion.sequence;
  request.link.ifi_index = 1;
  ASSERT_EQ(::send(socket.get(), &request, sizeof(request), 0), static_cast<ssize_t>(sizeof(request)));
}

TEST(NetlinkAnswer, OfAnotherProcessIsForgotten) {
  // Not connected, so that another socket may send to it: only the sender tells who it was.
  const Fd victim(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  const Fd forger(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  const sockaddr_nl any{.nl_family = AF_NETLINK, .nl_pad = 0, .nl_pid = 0, .nl_groups = 0};
  ASSERT_EQ(::bind(victim.get(), reinterpret_cast<const sockaddr*>(&any), sizeof(any)), 0);
  sockaddr_nl to = any;
  to.nl_pid = netlink_port(victim, "the victim");
  const Bytes forged = joined({listener(), end_of_dump()});
  const auto forge = [&] {
    return ::sendto(forger.get(), forged.data(), forged.size(), 0, reinterpret_cast<const sockaddr*>(&to),
                    sizeof(to)) == static_cast<ssize_t>(forged.size());
  };
  for (int i = 0; i < 10; ++i) {
    if (!forge()) GTEST_SKIP() << "only who has CAP_NET_ADMIN here may send to a netlink socket";
  }
  query_loopback(victim);
  Bytes buffer(32 * 1024);
  std::span<const std::byte> received = receive_from_kernel(victim, buffer, "rtnetlink");
  const auto message = take_message(received);
  ASSERT_TRUE(message);
  EXPECT_EQ(message->header.nlmsg_type, RTM_NEWLINK) << "the kernel's own";
}

TEST(NetlinkAnswer, OfAnotherProcessDoesNotEvenArrive) {
  const Fd victim = open_netlink(NETLINK_ROUTE, "rtnetlink");
  const Fd forger(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  sockaddr_nl to{
      .nl_family = AF_NETLINK, .nl_pad = 0, .nl_pid = netlink_port(victim, "the victim"), .nl_groups = 0};
  const Bytes forged = listener();
  EXPECT_EQ(::sendto(forger.get(), forged.data(), forged.size(), 0, reinterpret_cast<const sockaddr*>(&to),
                     sizeof(to)),
            -1);
}

TEST(NetlinkAnswer, ThatDoesNotFitIsRefused) {
  const Fd socket = open_netlink(NETLINK_ROUTE, "rtnetlink");
  query_loopback(socket);
  Bytes small(20);
  try {
    (void)receive_from_kernel(socket, small, "rtnetlink");
    FAIL() << "it was cut off";
  } catch (const std::system_error& error) {
    EXPECT_EQ(error.code(), std::errc::message_size);
  }
}

}  // namespace
}  // namespace anteroom::bench
