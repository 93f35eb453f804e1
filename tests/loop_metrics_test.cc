// What a reactor says of itself: every count of LoopMetrics, against what the test did.
#include <anteroom/acceptor.h>
#include <anteroom/connection.h>
#include <anteroom/connector.h>
#include <anteroom/loop_metrics.h>
#include <anteroom/reactor.h>
#include <anteroom/signals.h>
#include <anteroom/timer.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "support/own_network.h"
#include "support/peer.h"
#include "support/turns.h"

namespace anteroom {
namespace {

using namespace std::chrono_literals;
using namespace test;

TEST(LoopMetrics, BeginAtZero) {
  const Reactor reactor;
  const LoopMetrics& metrics = reactor.metrics();
  EXPECT_EQ(metrics.turns, 0U);
  EXPECT_EQ(metrics.events, 0U);
  EXPECT_EQ(metrics.tasks, 0U);
  EXPECT_EQ(metrics.timers, 0U);
  EXPECT_EQ(metrics.turn_us.count(), 0U);
  EXPECT_EQ(metrics.connections_opened, 0U);
  EXPECT_EQ(metrics.connections_closed, 0U);
  EXPECT_EQ(metrics.connections_open, 0U);
  EXPECT_EQ(metrics.channels, 0U);
  EXPECT_EQ(metrics.received_bytes, 0U);
  EXPECT_EQ(metrics.sent_bytes, 0U);
  EXPECT_EQ(metrics.buffered_bytes, 0U);
  EXPECT_EQ(metrics.timed_out, 0U);
}

TEST(LoopMetrics, CountTurns) {
  Reactor reactor;
  turn_times(reactor, 100);
  EXPECT_EQ(reactor.metrics().turns, 100U);
}

TEST(LoopMetrics, TimeOneTurnInSixtyFour) {
  Reactor reactor;
  turn_times(reactor, 640);
  EXPECT_EQ(reactor.metrics().turn_us.count(), 10U);
}

TEST(LoopMetrics, TimeATurnFromItsEventsToItsEnd) {
  Reactor reactor;
  for (int i = 0; i < 16; ++i) {
    reactor.post([] {
      const auto begin = Reactor::Clock::now();
      while (Reactor::Clock::now() - begin < 3ms) {
      }
    });
    reactor.turn();
  }
  ASSERT_EQ(reactor.metrics().turn_us.count(), 1U);
  EXPECT_GE(reactor.metrics().turn_us.max(), 3000U) << "what handlers cost belongs to it";
}

TEST(LoopMetrics, DoNotCountTheWaitAsTime) {
  Reactor reactor;
  reactor.turn(200ms);
  ASSERT_EQ(reactor.metrics().turn_us.count(), 1U) << "the first of sixty-four is the one that is timed";
  EXPECT_LT(reactor.metrics().turn_us.max(), 200'000U);
}

TEST(LoopMetrics, CountTasks) {
  Reactor reactor;
  int run = 0;
  for (int i = 0; i < 5; ++i) reactor.post([&] { ++run; });
  std::thread([&] { reactor.post([&] { ++run; }); }).join();
  EXPECT_EQ(reactor.metrics().tasks, 0U);
  ASSERT_TRUE(turn_until(reactor, [&] { return run == 6; }));
  EXPECT_EQ(reactor.metrics().tasks, 6U);
  turn_times(reactor, 3);
  EXPECT_EQ(reactor.metrics().tasks, 6U);
}

TEST(LoopMetrics, CountTimersThatFired) {
  Reactor reactor;
  int fired = 0;
  Timer once(reactor, [&] { ++fired; });
  Timer again(reactor, [&] { ++fired; });
  Timer never(reactor, [&] { ++fired; });
  once.arm(1ms);
  again.arm_every(1ms);
  never.arm(1ms);
  never.cancel();
  ASSERT_TRUE(turn_until(reactor, [&] { return fired >= 6; }));
  again.cancel();
  EXPECT_EQ(reactor.metrics().timers, static_cast<std::uint64_t>(fired));
}

TEST(LoopMetrics, CountEvents) {
  Reactor reactor;
  std::vector<ChannelId> ids;
  Acceptor acceptor(reactor, kLoopback,
                    {.open = [&](Connection& guest) { ids.push_back(guest.id()); },
                     .data = [](Connection&, std::string_view) {}});
  turn_times(reactor, 3);
  EXPECT_EQ(reactor.metrics().events, 0U);
  const std::vector<Peer> peers = connect_peers(acceptor.endpoint(), 5);
  ASSERT_TRUE(turn_until(reactor, [&] { return ids.size() == 5; }));
  turn_times(reactor, 3);
  const std::uint64_t before = reactor.metrics().events;
  EXPECT_GE(before, 1U) << "the arrivals";
  for (const Peer& peer : peers) ASSERT_TRUE(peer.send("x"));
  for (const ChannelId id : ids) ASSERT_TRUE(await_events(reactor.find(id)->fd(), POLLIN));
  reactor.turn();
  EXPECT_EQ(reactor.metrics().events, before + 5);
}

TEST(LoopMetrics, CountConnections) {
  Reactor reactor;
  Acceptor acceptor(reactor, kLoopback, {});
  std::vector<Peer> peers = connect_peers(acceptor.endpoint(), 7);
  ASSERT_TRUE(turn_until(reactor, [&] { return reactor.metrics().connections_opened == 7; }));
  EXPECT_EQ(reactor.metrics().connections_open, 7U);
  EXPECT_EQ(reactor.metrics().connections_closed, 0U);
  peers.pop_back();
  peers.back().reset();
  peers.pop_back();
  ASSERT_TRUE(turn_until(reactor, [&] { return reactor.metrics().connections_closed == 2; }));
  EXPECT_EQ(reactor.metrics().connections_open, 5U);
  EXPECT_EQ(reactor.metrics().connections_opened, 7U);
  EXPECT_EQ(reactor.metrics().timed_out, 0U);
}

TEST(LoopMetrics, CountBothEndsOfAConnectionThatAreOurs) {
  Reactor reactor;
  Acceptor acceptor(reactor, kLoopback, {});
  int ended = 0;
  Connector connector(reactor, {.open = [](Connection& caller) { caller.close(); },
                                .closed = [&](Connection&, std::error_code) { ++ended; }});
  for (int i = 0; i < 3; ++i) ASSERT_FALSE(connector.connect(acceptor.endpoint()).error);
  ASSERT_TRUE(turn_until(reactor, [&] { return reactor.metrics().connections_closed == 6; }));
  EXPECT_EQ(reactor.metrics().connections_opened, 6U);
  EXPECT_EQ(reactor.metrics().connections_open, 0U);
  EXPECT_EQ(ended, 3);
}

TEST(LoopMetrics, DoNotCountAttemptsAsConnections) {
  Reactor reactor;
  int failed = 0;
  Connector connector(reactor, {.closed = [&](Connection&, std::error_code) { ++failed; }});
  for (int i = 0; i < 4; ++i) ASSERT_FALSE(connector.connect(closed_endpoint()).error);
  EXPECT_EQ(reactor.metrics().channels, 4U) << "they are channels, though";
  ASSERT_TRUE(turn_until(reactor, [&] { return failed == 4; }));
  EXPECT_EQ(reactor.metrics().connections_opened, 0U);
  EXPECT_EQ(reactor.metrics().connections_closed, 0U);
  EXPECT_EQ(reactor.metrics().connections_open, 0U);
  EXPECT_EQ(reactor.metrics().channels, 0U);
}

TEST(LoopMetrics, CountChannelsOfAllKinds) {
  Reactor reactor;
  {
    Acceptor acceptor(reactor, kLoopback, {});
    EXPECT_EQ(reactor.metrics().channels, 1U);
    const Signals signals(reactor, {SIGUSR1}, [](int) {});
    EXPECT_EQ(reactor.metrics().channels, 2U);
    std::vector<Peer> peers = connect_peers(acceptor.endpoint(), 3);
    ASSERT_TRUE(turn_until(reactor, [&] { return reactor.metrics().connections_open == 3; }));
    EXPECT_EQ(reactor.metrics().channels, 5U);
    peers.clear();
    ASSERT_TRUE(turn_until(reactor, [&] { return reactor.metrics().connections_open == 0; }));
    EXPECT_EQ(reactor.metrics().channels, 2U);
  }
  turn_times(reactor, 2);
  EXPECT_EQ(reactor.metrics().channels, 0U);
}

TEST(LoopMetrics, CountBytes) {
  Reactor reactor;
  Acceptor acceptor(reactor, kLoopback,
                    {.data = [](Connection& guest, std::string_view bytes) { guest.send(bytes); }});
  Peer peer(acceptor.endpoint());
  const std::string speech = pattern(1 << 20);
  std::size_t sent = 0;
  ASSERT_TRUE(turn_until(reactor, [&] {
    sent += peer.send_some(std::string_view(speech).substr(sent));
    peer.drain();
    EXPECT_LE(reactor.metrics().received_bytes, sent);
    EXPECT_LE(peer.received().size(), reactor.metrics().sent_bytes);
    return peer.received().size() == speech.size();
  }));
  EXPECT_EQ(reactor.metrics().received_bytes, speech.size());
  EXPECT_EQ(reactor.metrics().sent_bytes, speech.size());
}

TEST(LoopMetrics, CountAsSentWhatTheKernelHasTaken) {
  Reactor reactor;
  ChannelId id = ChannelId::kNone;
  Acceptor acceptor(reactor, kLoopback, {.open = [&](Connection& guest) {
                      id = guest.id();
                      (void)set_socket_option(guest.fd(), SOL_SOCKET, SO_SNDBUF, 100'000);
                    }});
  Peer peer(acceptor.endpoint(), {.receive_buffer_bytes = 100'000});
  ASSERT_TRUE(turn_until(reactor, [&] { return id != ChannelId::kNone; }));
  const std::string answer = pattern(2 << 20);
  const std::vector<std::string_view> pieces{"head", answer, "tail"};
  auto& guest = *reactor.find<Connection>(id);
  EXPECT_TRUE(guest.send(pieces));
  EXPECT_GT(guest.unsent_bytes(), 0U);
  EXPECT_EQ(reactor.metrics().sent_bytes + guest.unsent_bytes(), answer.size() + 8);
  EXPECT_GE(reactor.metrics().buffered_bytes, guest.unsent_bytes());
  ASSERT_TRUE(turn_until(reactor, [&] { return peer.drain(), peer.received().size() == answer.size() + 8; }));
  turn_times(reactor, 2);
  EXPECT_EQ(reactor.metrics().sent_bytes, answer.size() + 8);
  EXPECT_EQ(reactor.metrics().buffered_bytes, 0U);
}

TEST(LoopMetrics, CountThoseWhoMissedADeadline) {
  Reactor reactor;
  AcceptorOptions options;
  options.connection.first_byte_deadline = 5ms;
  Acceptor acceptor(reactor, kLoopback, {}, options);
  const std::vector<Peer> silent = connect_peers(acceptor.endpoint(), 3);
  const Peer speaker(acceptor.endpoint());
  ASSERT_TRUE(speaker.send("x"));
  ASSERT_TRUE(turn_until(reactor, [&] { return reactor.metrics().connections_closed == 3; }));
  EXPECT_EQ(reactor.metrics().timed_out, 3U);
  EXPECT_EQ(reactor.metrics().connections_open, 1U);
}

// As one value: a copy is what it was, whatever happens later.
TEST(LoopMetrics, MayBeKept) {
  Reactor reactor;
  turn_times(reactor, 3);
  const LoopMetrics then = reactor.metrics();
  turn_times(reactor, 2);
  EXPECT_EQ(then.turns, 3U);
  EXPECT_EQ(reactor.metrics().turns, 5U);
}

}  // namespace
}  // namespace anteroom
