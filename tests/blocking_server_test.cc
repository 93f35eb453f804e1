#include <anteroom/blocking_server.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "support/descriptors.h"
#include "support/own_network.h"
#include "support/peer.h"

namespace anteroom {
namespace {

using namespace std::chrono_literals;
using namespace test;

const char* name_of(BlockingStyle style) {
  switch (style) {
    case BlockingStyle::kOneAtATime:
      return "OneAtATime";
    case BlockingStyle::kThreadPerConnection:
      return "ThreadPerConnection";
    case BlockingStyle::kThreadPool:
      return "ThreadPool";
  }
  return "";
}

class BlockingServerTest : public testing::TestWithParam<BlockingStyle> {
 protected:
  BlockingServerOptions options() const {
    BlockingServerOptions options;
    options.style = GetParam();
    options.threads = 4;
    return options;
  }
  static Listener listener() { return Listener(kLoopback, {.blocking = true}); }
};

INSTANTIATE_TEST_SUITE_P(EachStyle, BlockingServerTest,
                         testing::Values(BlockingStyle::kOneAtATime, BlockingStyle::kThreadPerConnection,
                                         BlockingStyle::kThreadPool),
                         [](const auto& style) { return name_of(style.param); });

TEST(BlockingServerOfNothing, IsRefused) {
  for (const int threads : {0, -1})
    EXPECT_THROW(
        BlockingServer(Listener(kLoopback), {.style = BlockingStyle::kThreadPool, .threads = threads}),
        std::system_error);
  Listener empty(kLoopback);
  (void)empty.release();
  EXPECT_THROW(BlockingServer(std::move(empty), {}), std::system_error);
}

/// Runs a server in a thread of its own for as long as it lives.
class Running {
 public:
  explicit Running(BlockingServer& server) : server_(server), thread_([&server] { server.run(); }) {}
  ~Running() { stop(); }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;
  void stop() {
    server_.stop();
    if (thread_.joinable()) thread_.join();
  }

 private:
  BlockingServer& server_;
  std::thread thread_;
};

TEST_P(BlockingServerTest, GreetsWhoeverComes) {
  BlockingServer server(listener(), options());
  Running running(server);
  std::vector<Peer> peers = connect_peers(server.endpoint(), 30);
  for (Peer& peer : peers) {
    EXPECT_EQ(peer.receive_all(), "Hello World!");
    EXPECT_EQ(peer.error(), 0);
  }
  running.stop();
  EXPECT_EQ(server.stats().accepted, 30U);
}

TEST_P(BlockingServerTest, SendsAllOfALongGreeting) {
  BlockingServerOptions with_long_greeting = options();
  with_long_greeting.greeting = pattern(4 << 20);
  BlockingServer server(listener(), with_long_greeting);
  const Running running(server);
  Peer peer(server.endpoint());
  EXPECT_TRUE(peer.receive_all() == with_long_greeting.greeting);
}

TEST_P(BlockingServerTest, GoesOnWhenAGuestIsGoneAlready) {
  BlockingServerOptions with_long_greeting = options();
  with_long_greeting.greeting = pattern(1 << 20);
  BlockingServer server(listener(), with_long_greeting);
  const Running running(server);
  for (int i = 0; i < 20; ++i) Peer(server.endpoint()).reset();
  Peer peer(server.endpoint());
  EXPECT_EQ(peer.receive_all().size(), with_long_greeting.greeting.size());
}

TEST_P(BlockingServerTest, StopsWhileItWaitsForGuests) {
  for (int i = 0; i < 20; ++i) {
    BlockingServer server(listener(), options());
    Running running(server);
    if (i % 2 == 0) {
      EXPECT_EQ(Peer(server.endpoint()).receive_all(), "Hello World!");
    }
    running.stop();
  }
}

TEST_P(BlockingServerTest, StoppedBeforeItRunsReturnsAtOnce) {
  BlockingServer server(listener(), options());
  server.stop();
  server.run();
  EXPECT_EQ(server.stats().accepted, 0U);
}

TEST_P(BlockingServerTest, EndsEveryThreadAndDescriptor) {
  const int before = open_descriptors();
  {
    BlockingServer server(listener(), options());
    Running running(server);
    std::vector<Peer> peers = connect_peers(server.endpoint(), 20);
    for (Peer& peer : peers) peer.receive_all();
  }
  EXPECT_EQ(open_descriptors(), before);
}

TEST_P(BlockingServerTest, AcceptsNobodyDuringAStall) {
  using Clock = AcceptStall::Clock;
  BlockingServerOptions with_stall = options();
  const auto begin = Clock::now();
  with_stall.stall = AcceptStall({{.begin = begin, .length = 60ms}});
  with_stall.observe_queue = true;
  BlockingServer server(listener(), with_stall);
  Running running(server);
  std::vector<Peer> peers = connect_peers(server.endpoint(), 10);
  const bool all_came_in_time = Clock::now() < begin + 60ms;
  peers[0].receive_all();
  EXPECT_GE(Clock::now() - begin, 60ms);
  for (Peer& peer : peers) EXPECT_EQ(peer.receive_all(), "Hello World!");
  running.stop();
  EXPECT_EQ(server.stats().accepted, 10U);
  if (all_came_in_time) {
    EXPECT_EQ(server.stats().queue_peak, 10U) << "the whole stall's guests were seen to wait";
    EXPECT_GT(server.stats().longest_wait, 0ms);
  }
}

TEST_P(BlockingServerTest, StallsAgainAndAgainAndMayBeStoppedThen) {
  using Clock = AcceptStall::Clock;
  BlockingServerOptions with_stalls = options();
  std::vector<AcceptStall::Window> windows;
  for (int i = 0; i < 60; ++i) windows.push_back({.begin = Clock::now() + i * 20ms, .length = 10ms});
  with_stalls.stall = AcceptStall(windows);
  BlockingServer server(listener(), with_stalls);
  Running running(server);
  int waited = 0;
  const auto give_up = Clock::now() + 1s;  // time for fifty stalls
  while (waited < 3 && Clock::now() < give_up) {
    const auto end_of_stall = with_stalls.stall.end_of_current(Clock::now());
    Peer peer(server.endpoint());
    EXPECT_EQ(peer.receive_all(), "Hello World!");
    // Who comes when a stall is only beginning may still be let in, for want of an exact alarm.
    if (end_of_stall && Clock::now() >= *end_of_stall) ++waited;
  }
  EXPECT_EQ(waited, 3) << "they were let in at once, or in the middle of a stall";
  running.stop();
}

TEST(AcceptStall, KnowsWhenItIs) {
  using Time = AcceptStall::Clock::time_point;
  const AcceptStall never;
  EXPECT_FALSE(never.is_set());
  EXPECT_EQ(never.end_of_current(Time(5s)), std::nullopt);
  EXPECT_EQ(never.next_after(Time(5s)), std::nullopt);

  const AcceptStall once({{.begin = Time(10s), .length = 2s}});
  EXPECT_EQ(once.end_of_current(Time(9s)), std::nullopt);
  EXPECT_EQ(once.next_after(Time(9s)), Time(10s));
  EXPECT_EQ(once.end_of_current(Time(10s)), Time(12s));
  EXPECT_EQ(once.end_of_current(Time(12s)), std::nullopt);
  EXPECT_EQ(once.next_after(Time(10s)), std::nullopt);

  const AcceptStall often({{.begin = Time(10s), .length = 2s},
                           {.begin = Time(15s), .length = 2s},
                           {.begin = Time(20s), .length = 2s}});
  EXPECT_EQ(often.end_of_current(Time(16s)), Time(17s));
  EXPECT_EQ(often.end_of_current(Time(17s)), std::nullopt);
  EXPECT_EQ(often.next_after(Time(17s)), Time(20s));
  EXPECT_EQ(often.next_after(Time(20s)), std::nullopt);
}

}  // namespace
}  // namespace anteroom
