#include <anteroom/acceptor.h>
#include <anteroom/connection.h>
#include <anteroom/reactor.h>
#include <gtest/gtest.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "support/descriptors.h"
#include "support/own_network.h"
#include "support/peer.h"
#include "support/turns.h"

namespace anteroom {
namespace {

using namespace std::chrono_literals;
using namespace test;

ConnectionHandlers hello_and_goodbye() {
  return {.open = [](Connection& guest) {
    guest.send("Hello World!");
    guest.close();
  }};
}

std::chrono::nanoseconds thread_cpu_time() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

bool all_are_over(std::vector<Peer>& peers) {
  bool over = true;
  for (Peer& peer : peers) over = peer.drain() && over;
  return over;
}

TEST(Acceptor, GreetsWhoeverComes) {
  Reactor reactor;
  const Acceptor acceptor(reactor, kLoopback, hello_and_goodbye());
  std::vector<Peer> peers = connect_peers(acceptor.endpoint(), 20);
  ASSERT_TRUE(turn_until(reactor, [&] { return all_are_over(peers); }));
  for (const Peer& peer : peers) {
    EXPECT_EQ(peer.received(), "Hello World!");
    EXPECT_EQ(peer.error(), 0);
  }
  EXPECT_EQ(acceptor.stats().accepted, 20U);
  EXPECT_EQ(acceptor.stats().aborted, 0U);
  EXPECT_EQ(acceptor.stats().rests, 0U);
}

TEST(Acceptor, GreetsThoseWhoCameBeforeItWasMade) {
  Listener listener(kLoopback);
  std::vector<Peer> peers = connect_peers(listener.endpoint(), 3);
  Reactor reactor;
  const Acceptor acceptor(reactor, std::move(listener), hello_and_goodbye());
  ASSERT_TRUE(turn_until(reactor, [&] { return all_are_over(peers); }));
}

TEST(Acceptor, KnowsWhoWaits) {
  Reactor reactor;
  Acceptor acceptor(reactor, Listener(kLoopback, {.backlog = 9}), hello_and_goodbye());
  std::vector<Peer> peers = connect_peers(acceptor.endpoint(), 4);
  ASSERT_TRUE(acceptor.queue());
  EXPECT_EQ(acceptor.queue()->depth, 4U);
  EXPECT_EQ(acceptor.queue()->limit, 9U);
  acceptor.set_backlog(20);
  EXPECT_EQ(acceptor.queue()->limit, 20U);
  EXPECT_EQ(acceptor.queue()->depth, 4U);
  std::this_thread::sleep_for(30ms);  // the time itself is what is measured here
  ASSERT_TRUE(turn_until(reactor, [&] { return all_are_over(peers); }));
  EXPECT_EQ(acceptor.queue()->depth, 0U);
  EXPECT_EQ(acceptor.stats().queue_peak, 4U);
  EXPECT_GE(acceptor.stats().longest_wait, 20ms) << "in steps of a kernel tick, of 10 ms at worst";
}

TEST(Acceptor, OnAnAddressInUseThrowsAndLeavesNoDescriptor) {
  Reactor reactor;
  const Acceptor first(reactor, kLoopback, {});
  const int before = open_descriptors();
  try {
    const Acceptor second(reactor, first.endpoint(), {});
    FAIL();
  } catch (const std::system_error& error) {
    EXPECT_EQ(error.what(), "bind " + first.endpoint().to_string() + ": Address already in use");
  }
  reactor.turn(0ms);
  EXPECT_EQ(open_descriptors(), before);
}

TEST(Acceptor, ShutsTheDoorWhenItEnds) {
  Reactor reactor;
  std::optional<Acceptor> acceptor(std::in_place, reactor, kLoopback, ConnectionHandlers{});
  const Endpoint address = acceptor->endpoint();
  acceptor.reset();
  EXPECT_THROW(Peer{address}, std::system_error);
}

TEST(Acceptor, MayBeOneOfSeveral) {
  Reactor reactor;
  std::string who;
  const Acceptor first(reactor, kLoopback, {.open = [&](Connection&) { who += '1'; }});
  const Acceptor second(reactor, kLoopback, {.open = [&](Connection&) { who += '2'; }});
  const Peer a(first.endpoint());
  ASSERT_TRUE(turn_until(reactor, [&] { return who.size() == 1; }));
  const Peer b(second.endpoint());
  ASSERT_TRUE(turn_until(reactor, [&] { return who.size() == 2; }));
  EXPECT_EQ(who, "12");
}

// ---- The budget

TEST(Acceptor, LetsInTwoHundredByTensWithoutAFurtherKnock) {
  constexpr std::uint64_t kBudget = 10;
  Reactor reactor;
  AcceptorOptions options;
  options.accepts_per_turn_max = static_cast<int>(kBudget);
  std::string heard;
  std::uint64_t in_when_heard = 0;
  std::optional<Acceptor> acceptor;
  acceptor.emplace(reactor, kLoopback,
                   ConnectionHandlers{.data =
                                          [&](Connection&, std::string_view bytes) {
                                            heard += bytes;
                                            in_when_heard = acceptor->stats().accepted;
                                          }},
                   options);
  const Peer old_guest(acceptor->endpoint());
  ASSERT_TRUE(turn_until(reactor, [&] { return acceptor->stats().accepted == 1; }));
  turn_times(reactor, 2);
  const std::vector<Peer> peers = connect_peers(acceptor->endpoint(), 200);
  ASSERT_EQ(acceptor->queue()->depth, 200U);
  bool has_spoken = false;
  for (int turns = 0; turns < 20; ++turns) {
    const std::uint64_t before = acceptor->stats().accepted;
    reactor.turn();  // waits for nothing: who stopped for his budget is called again
    ASSERT_EQ(acceptor->stats().accepted, before + kBudget);
    if (turns == 5) has_spoken = old_guest.send("me too");
  }
  EXPECT_TRUE(has_spoken);
  EXPECT_EQ(acceptor->stats().accepted, 201U);
  EXPECT_EQ(acceptor->stats().queue_peak, 200U);
  EXPECT_EQ(heard, "me too");
  EXPECT_LT(in_when_heard, 150U) << "an old guest had to wait until the last new one was in";
}

TEST(Acceptor, LetsInAllOfABurstWhileOthersComeAndGo) {
  Reactor reactor;
  AcceptorOptions options;
  options.accepts_per_turn_max = 3;
  int ended = 0;
  const Acceptor acceptor(reactor, kLoopback,
                          {.open = [](Connection& guest) { guest.send("Hello World!"), guest.close(); },
                           .closed = [&](Connection&, std::error_code) { ++ended; }},
                          options);
  std::vector<Peer> peers;
  for (int i = 0; i < 300; ++i) {
    peers.emplace_back(acceptor.endpoint());
    if (i % 7 == 0) reactor.turn(0ms);
  }
  ASSERT_TRUE(turn_until(reactor, [&] { return all_are_over(peers) && ended == 300; }));
}

// ---- Trouble

TEST(Acceptor, LetsInWhoHasResetWhileWaitingAndTellsItsEnd) {
  Reactor reactor;
  std::vector<std::error_code> ends;
  int without_address = 0;
  const Acceptor acceptor(reactor, kLoopback,
                          {.open =
                               [&](Connection& guest) {
                                 without_address += guest.peer() == Endpoint() ? 1 : 0;
                                 guest.send("Hello World!");
                               },
                           .closed = [&](Connection&, std::error_code error) { ends.push_back(error); }});
  std::vector<Peer> peers = connect_peers(acceptor.endpoint(), 5);
  peers[1].reset();
  peers[3].reset();
  ASSERT_TRUE(turn_until(reactor, [&] {
    return ends.size() == 2 && (peers[0].drain(), peers[0].received() == "Hello World!") &&
           (peers[4].drain(), peers[4].received() == "Hello World!");
  }));
  EXPECT_EQ(without_address, 2) << "Linux accepts them, and knows no peer";
  for (const std::error_code end : ends) EXPECT_TRUE(end);
  EXPECT_EQ(acceptor.stats().accepted, 5U);
}

/// Forty clients at a house that has no more descriptors than a few.
class AcceptorRests : public testing::Test {
 protected:
  void open() {
    AcceptorOptions options;
    options.resting = [this](std::error_code why, std::optional<std::uint32_t> waiting) {
      EXPECT_EQ(why, std::errc::too_many_files_open);
      told.push_back(waiting.value_or(0));
    };
    acceptor.emplace(reactor, kLoopback,
                     ConnectionHandlers{.open = [](Connection& guest) { guest.send("Hello"); }}, options);
    peers = connect_peers(acceptor->endpoint(), 40);
  }
  std::uint64_t accepted() const { return acceptor->stats().accepted; }

  Reactor reactor;
  std::optional<Acceptor> acceptor;
  std::vector<Peer> peers;
  std::vector<std::uint32_t> told;
};

TEST_F(AcceptorRests, AndCostsNextToNothing) {
  open();
  const auto opened = Reactor::Clock::now();
  const DescriptorLimit limit(5);
  ASSERT_TRUE(turn_until(reactor, [&] { return !told.empty(); }));
  EXPECT_EQ(accepted(), 5U);
  EXPECT_EQ(told, std::vector<std::uint32_t>{35}) << "with the number of those who wait";
  int turns = 0;
  const auto cpu = thread_cpu_time();
  const auto begin = Reactor::Clock::now();
  while (Reactor::Clock::now() < begin + 300ms) {
    reactor.turn(300ms);
    ++turns;
  }
  EXPECT_LE(turns, 40) << "he looks every 20 ms";
  EXPECT_LT(thread_cpu_time() - cpu, 60ms);
  EXPECT_LE(told.size(), 1U + static_cast<std::size_t>((Reactor::Clock::now() - opened) / 1s))
      << "told once a second at most";
  EXPECT_GE(acceptor->stats().rests, 2U);
  EXPECT_EQ(acceptor->queue()->depth, 35U) << "everybody keeps their place";
}

TEST_F(AcceptorRests, AndDoesNotGetUpForWhoKnocks) {
  open();
  std::vector<Fd> knocking;
  for (int i = 0; i < 100; ++i) {
    std::error_code error;
    knocking.push_back(open_stream_socket(AF_INET, error));
  }
  const Endpoint door = acceptor->endpoint();
  const DescriptorLimit limit(5);
  ASSERT_TRUE(turn_until(reactor, [&] { return !told.empty(); }));
  const std::uint64_t rests = acceptor->stats().rests;
  const auto begin = Reactor::Clock::now();
  for (const Fd& socket : knocking) {
    (void)::connect(socket.get(), door.data(), door.size());
    reactor.turn(0ms);
  }
  const auto alarms = static_cast<std::uint64_t>((Reactor::Clock::now() - begin) / 20ms);
  EXPECT_LE(acceptor->stats().rests - rests, alarms + 1) << "only the alarm makes him look";
}

TEST_F(AcceptorRests, UntilAConnectionOfTheReactorCloses) {
  open();
  const DescriptorLimit limit(5);
  ASSERT_TRUE(turn_until(reactor, [&] { return !told.empty(); }));
  for (std::uint64_t round = 1; round < 8; ++round) {
    ASSERT_EQ(accepted(), 5 * round);
    std::vector<Connection*> guests;
    reactor.for_each_channel([&](Channel& channel) {
      if (auto* const guest = dynamic_cast<Connection*>(&channel)) guests.push_back(guest);
    });
    ASSERT_EQ(guests.size(), 5U);
    for (Connection* guest : guests) guest->abort();
    const std::uint64_t rests = acceptor->stats().rests;
    const auto begin = Reactor::Clock::now();
    turn_times(reactor, 2);  // without waiting for the alarm
    EXPECT_EQ(accepted(), 5 * (round + 1));
    const auto alarms = static_cast<std::uint64_t>((Reactor::Clock::now() - begin) / 20ms);
    EXPECT_LE(acceptor->stats().rests, rests + alarms + 2);
  }
}

TEST_F(AcceptorRests, UntilAnyDescriptorCloses) {
  std::vector<std::chrono::nanoseconds> took;
  for (int attempt = 0; attempt < 5; ++attempt) {
    std::vector<Fd> foreign;
    for (int i = 0; i < 60; ++i) foreign.emplace_back(::fcntl(2, F_DUPFD_CLOEXEC, 0));
    told.clear();
    peers.clear();
    acceptor.reset();
    open();
    const DescriptorLimit limit(0);
    ASSERT_TRUE(turn_until(reactor, [&] { return !told.empty(); }));
    EXPECT_EQ(accepted(), 0U);
    foreign.clear();
    const auto begin = Reactor::Clock::now();
    const auto all_are_greeted = [&] {
      return std::all_of(peers.begin(), peers.end(), [](Peer& peer) {
        peer.drain();
        return peer.received() == "Hello";
      });
    };
    ASSERT_TRUE(turn_until(reactor, all_are_greeted));
    took.push_back(Reactor::Clock::now() - begin);
    if (took.back() <= 50ms) break;  // a machine that is busy with other things may need another attempt
  }
  EXPECT_LE(*std::min_element(took.begin(), took.end()), 50ms);
}

TEST_F(AcceptorRests, ThoughNobodyWantsToBeTold) {
  acceptor.emplace(reactor, kLoopback, hello_and_goodbye());
  peers = connect_peers(acceptor->endpoint(), 3);
  {
    const DescriptorLimit limit(0);
    ASSERT_TRUE(turn_until(reactor, [&] { return acceptor->stats().rests >= 2; }));
  }
  ASSERT_TRUE(turn_until(reactor, [&] { return all_are_over(peers); }));
}

TEST_F(AcceptorRests, AndAllAreServedOneAfterTheOtherWithRoomForOne) {
  AcceptorOptions options;
  acceptor.emplace(
      reactor, kLoopback,
      ConnectionHandlers{
          .data = [](Connection& guest, std::string_view bytes) { guest.send(bytes), guest.close(); }},
      options);
  peers = connect_peers(acceptor->endpoint(), 40);
  for (const Peer& peer : peers) {
    peer.send("me");
    peer.finish();
  }
  const DescriptorLimit limit(1);
  ASSERT_TRUE(turn_until(reactor, [&] { return all_are_over(peers); }));
  for (const Peer& peer : peers) EXPECT_EQ(peer.received(), "me");
}

// Another process that has the listener, too, may do that to its socket. Nobody was told, and nobody let in.
TEST(Acceptor, TellsThatItsListenerWasShutAndLetsInWhoComesWhenItListensAgain) {
  Reactor reactor;
  std::error_code why;
  AcceptorOptions options;
  options.resting = [&](std::error_code error, std::optional<std::uint32_t>) { why = error; };
  const Acceptor acceptor(reactor, kLoopback, hello_and_goodbye(), options);
  ASSERT_EQ(::shutdown(acceptor.fd(), SHUT_RD), 0);
  ASSERT_TRUE(turn_until(reactor, [&] { return static_cast<bool>(why); }));
  EXPECT_EQ(why, std::errc::invalid_argument);
  ASSERT_EQ(::listen(acceptor.fd(), 5), 0);
  std::vector<Peer> peers = connect_peers(acceptor.endpoint(), 3);
  ASSERT_TRUE(turn_until(reactor, [&] { return all_are_over(peers); }));
  for (const Peer& peer : peers) EXPECT_EQ(peer.received(), "Hello World!");
}

// ---- Unix sockets, of whose queues the kernel tells nothing

TEST(Acceptor, OnAUnixSocketGreetsWhoeverComes) {
  Reactor reactor;
  AcceptorOptions options;
  options.accepts_per_turn_max = 7;
  const Acceptor acceptor(reactor, Endpoint::unix_path("@anteroom-acceptor-test"), hello_and_goodbye(),
                          options);
  EXPECT_EQ(acceptor.queue(), std::nullopt);
  std::vector<Peer> peers = connect_peers(acceptor.endpoint(), 50);
  ASSERT_TRUE(turn_until(reactor, [&] { return all_are_over(peers); }));
  for (const Peer& peer : peers) EXPECT_EQ(peer.received(), "Hello World!");
  EXPECT_EQ(acceptor.stats().accepted, 50U);
  Peer late(acceptor.endpoint());
  ASSERT_TRUE(turn_until(reactor, [&] { return late.drain(); }));
}

TEST(Acceptor, OnAUnixSocketRestsAsAnyOther) {
  Reactor reactor;
  std::optional<std::uint32_t> waiting = 1;
  AcceptorOptions options;
  options.resting = [&](std::error_code, std::optional<std::uint32_t> how_many) { waiting = how_many; };
  const Acceptor acceptor(reactor, Endpoint::unix_path("@anteroom-acceptor-test"), hello_and_goodbye(),
                          options);
  std::vector<Peer> peers = connect_peers(acceptor.endpoint(), 3);
  {
    const DescriptorLimit limit(0);
    ASSERT_TRUE(turn_until(reactor, [&] { return acceptor.stats().rests > 0; }));
    EXPECT_EQ(waiting, std::nullopt);
  }
  ASSERT_TRUE(turn_until(reactor, [&] { return all_are_over(peers); }));
}

}  // namespace
}  // namespace anteroom
