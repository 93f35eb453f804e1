#include <anteroom/listener.h>
#include <anteroom/tcp_info.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "support/own_network.h"
#include "support/peer.h"

namespace anteroom {
namespace {

using namespace std::chrono_literals;
using namespace test;

TEST(TcpInfo, OfAListenerTellsWhoWaits) {
  const Listener listener(kLoopback, {.backlog = 7});
  const auto empty = tcp_info(listener.fd());
  ASSERT_TRUE(empty);
  EXPECT_TRUE(empty->listening);
  EXPECT_FALSE(empty->established);
  EXPECT_EQ(empty->queue_depth, 0U);
  EXPECT_EQ(empty->queue_limit, 7U);
  const auto peers = connect_peers(listener.endpoint(), 3);
  EXPECT_EQ(tcp_info(listener.fd())->queue_depth, 3U);
}

TEST(TcpInfo, OfAConnectionTellsItsState) {
  const Listener listener(kLoopback);
  const Peer peer(listener.endpoint());
  const auto info = tcp_info(peer.fd());
  ASSERT_TRUE(info);
  EXPECT_TRUE(info->established);
  EXPECT_FALSE(info->listening);
  EXPECT_EQ(info->queue_depth, 0U);
  EXPECT_EQ(info->queue_limit, 0U);
  EXPECT_EQ(info->total_retransmits, 0U);
}

TEST(TcpInfo, OfAFreshGuestTellsHowLongItWaited) {
  const Listener listener(kLoopback, {.blocking = true});
  const auto before = std::chrono::steady_clock::now();
  const Peer peer(listener.endpoint());
  std::this_thread::sleep_for(40ms);  // the time itself is what is measured here
  const Fd guest(::accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC));
  const auto info = tcp_info(guest.get());
  const auto waited = std::chrono::steady_clock::now() - before;
  ASSERT_TRUE(info);
  EXPECT_GE(info->since_last_sent, 40ms - 10ms) << "in steps of a kernel tick, of 10 ms at worst";
  EXPECT_LE(info->since_last_sent, waited + 11ms);
}

TEST(TcpInfo, OfWhatIsNoTcpSocketIsNothing) {
  EXPECT_EQ(tcp_info(-1), std::nullopt);
  const Fd event(::eventfd(0, EFD_CLOEXEC));
  EXPECT_EQ(tcp_info(event.get()), std::nullopt);
  const Fd local(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(tcp_info(local.get()), std::nullopt);
  const Fd udp(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(tcp_info(udp.get()), std::nullopt);
}

}  // namespace
}  // namespace anteroom
