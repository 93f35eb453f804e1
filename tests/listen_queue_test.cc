#include <anteroom/listen_queue.h>
#include <anteroom/listener.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/eventfd.h>

#include <chrono>
#include <optional>
#include <thread>
#include <vector>

#include "support/own_network.h"
#include "support/peer.h"

namespace anteroom {
namespace {

using namespace test;

/// A call that the kernel has answered, or will answer later: it does not wait.
Fd call(const Endpoint& to) {
  std::error_code error;
  Fd socket = open_stream_socket(to.family(), error);
  (void)::connect(socket.get(), to.data(), to.size());
  return socket;
}

TEST(ListenQueue, TellsItsDepthAndItsLimit) {
  const Listener listener(kLoopback, {.backlog = 4});
  std::vector<Peer> peers;
  for (std::uint32_t waiting = 0; waiting <= 5; ++waiting) {
    const auto queue = listener.queue();
    ASSERT_TRUE(queue);
    EXPECT_EQ(queue->depth, waiting);
    EXPECT_EQ(queue->limit, 4U);
    EXPECT_EQ(queue->drops, 0U);
    if (waiting < 5) peers.emplace_back(listener.endpoint());
  }
  for (std::uint32_t waiting = 5; waiting > 0; --waiting) {
    EXPECT_EQ(listener.queue()->depth, waiting);
    const Fd guest(::accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC));
    EXPECT_TRUE(guest);
  }
  EXPECT_EQ(listener.queue()->depth, 0U);
}

TEST(ListenQueue, CountsWhoWasTurnedAway) {
  const Listener listener(kLoopback, {.backlog = 1});
  const auto guests = connect_peers(listener.endpoint(), 2);
  std::vector<Fd> turned_away;
  for (int i = 0; i < 5; ++i) turned_away.push_back(call(listener.endpoint()));
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (listener.queue()->drops < 5 && std::chrono::steady_clock::now() < end) {
  }
  EXPECT_GE(listener.queue()->drops, 5U);  // more if one has called again meanwhile, as they do every second
  EXPECT_LE(listener.queue()->drops, 15U);
  EXPECT_EQ(listener.queue()->depth, 2U);
}

TEST(ListenCounters, CountWhoMetAFullQueue) {
  const auto before = listen_counters();
  ASSERT_TRUE(before);
  const Listener listener(kLoopback, {.backlog = 1});
  const auto guests = connect_peers(listener.endpoint(), 2);
  EXPECT_EQ(listen_counters()->overflows, before->overflows);
  std::vector<Fd> turned_away;
  for (int i = 0; i < 5; ++i) turned_away.push_back(call(listener.endpoint()));
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (listen_counters()->overflows < before->overflows + 5 && std::chrono::steady_clock::now() < end) {
  }
  const auto after = listen_counters();
  ASSERT_TRUE(after);
  EXPECT_GE(after->overflows - before->overflows, 5U);
  EXPECT_LE(after->overflows - before->overflows, 15U) << "more if one has called again meanwhile";
  EXPECT_GE(after->drops - before->drops, 5U);
  EXPECT_GE(after->drops, after->overflows) << "each overflow is a drop, too";
}

TEST(ListenCounters, AreThoseOfTheThreadsOwnNetwork) {
  {
    const Listener listener(kLoopback, {.backlog = 0});
    const Peer guest(listener.endpoint());
    const Fd turned_away = call(listener.endpoint());
    const auto end = std::chrono::steady_clock::now() + kPatience;
    while (listen_counters()->overflows == 0 && std::chrono::steady_clock::now() < end) {
    }
  }
  ASSERT_GT(listen_counters()->overflows, 0U);
  bool has_left = false;
  std::optional<ListenCounters> elsewhere;
  std::thread([&] {
    has_left = ::unshare(CLONE_NEWNET) == 0;
    elsewhere = listen_counters();
  }).join();
  if (!has_left) GTEST_SKIP() << "no network namespaces here";
  ASSERT_TRUE(elsewhere);
  EXPECT_EQ(elsewhere->overflows, 0U);
  EXPECT_EQ(elsewhere->drops, 0U);
}

TEST(ListenQueue, OfWhatIsNoTcpListenerIsNothing) {
  EXPECT_EQ(listen_queue(-1), std::nullopt);
  const Fd event(::eventfd(0, EFD_CLOEXEC));
  EXPECT_EQ(listen_queue(event.get()), std::nullopt);
  const Listener listener(kLoopback);
  const Peer peer(listener.endpoint());
  EXPECT_EQ(listen_queue(peer.fd()), std::nullopt) << "a connection has no queue";
  const Listener local(Endpoint::unix_path("@listen-queue-test"));
  EXPECT_EQ(local.queue(), std::nullopt);
}

TEST(ListenQueue, IsClippedToTheSystemsMaximum) {
  EXPECT_GT(system_backlog_max(), 0);
  EXPECT_EQ(Listener(kLoopback, {.backlog = -1}).queue()->limit,
            static_cast<std::uint32_t>(system_backlog_max()));
  if (!set_network_sysctl("/proc/sys/net/core/somaxconn", "17"))
    GTEST_SKIP() << "somaxconn is not ours to change";
  EXPECT_EQ(system_backlog_max(), 17);
  EXPECT_EQ(Listener(kLoopback, {.backlog = 500}).queue()->limit, 17U);
  EXPECT_EQ(Listener(kLoopback, {.backlog = -1}).queue()->limit, 17U);
  EXPECT_TRUE(set_network_sysctl("/proc/sys/net/core/somaxconn", "4096"));
}

}  // namespace
}  // namespace anteroom
