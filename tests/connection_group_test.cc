// The connections of one acceptor or connector among those of others: what is done with the group finds all
// of them, no others, and does not cost more where the reactor has many.
#include <anteroom/acceptor.h>
#include <anteroom/connection.h>
#include <anteroom/connector.h>
#include <anteroom/reactor.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "support/own_network.h"
#include "support/peer.h"
#include "support/turns.h"

namespace anteroom {
namespace {

using namespace std::chrono_literals;
using namespace test;

std::chrono::nanoseconds cpu_time() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

/// Some connections of one acceptor, and their peers.
struct Group {
  Group(Reactor& its_reactor, int count) : reactor(its_reactor) {
    acceptor.emplace(
        reactor, Endpoint::unix_path(name()),
        ConnectionHandlers{
            .open = [this](Connection& connection) { living.insert(connection.id()); },
            .draining =
                [this](Connection& connection) {
                  ++told[connection.id()];
                  if (draining) draining(connection);
                },
            .closed = [this](Connection& connection, std::error_code) { living.erase(connection.id()); }});
    while (static_cast<int>(peers.size()) < count) {
      peers.emplace_back(acceptor->endpoint());
      if (peers.size() % 50 == 0) reactor.turn(0ms);
    }
    EXPECT_TRUE(turn_until(reactor, [&] { return static_cast<int>(living.size()) == count; }));
  }
  static std::string name() {
    static int number = 0;
    return "@anteroom-group-" + std::to_string(::getpid()) + '-' + std::to_string(++number);
  }
  /// Whether each of the peers has seen its end.
  bool is_over() {
    return std::ranges::all_of(peers, [](Peer& peer) { return peer.drain(); });
  }

  Reactor& reactor;
  std::optional<Acceptor> acceptor;
  std::vector<Peer> peers;
  std::set<ChannelId> living;
  std::map<ChannelId, int> told;
  std::function<void(Connection&)> draining;
};

TEST(ConnectionGroup, EndsWithItsAcceptorAndNoOtherDoes) {
  Reactor reactor;
  Group first(reactor, 20);
  Group second(reactor, 20);
  Group third(reactor, 20);
  second.acceptor.reset();
  ASSERT_TRUE(turn_until(reactor, [&] { return second.is_over(); }));
  EXPECT_FALSE(std::ranges::any_of(first.peers, &Peer::drain));
  EXPECT_FALSE(std::ranges::any_of(third.peers, &Peer::drain));
  EXPECT_EQ(first.acceptor->open_connections(), 20U);
  EXPECT_EQ(third.acceptor->open_connections(), 20U);
}

TEST(ConnectionGroup, IsWholeAfterAnyOfItHasEnded) {
  std::mt19937 random(5);
  for (int round = 0; round < 10; ++round) {
    Reactor reactor;
    Group other(reactor, 10);
    Group group(reactor, 30);
    for (int step = 0; step < 60; ++step) {
      if (!group.living.empty() && random() % 2 == 0) {
        auto victim = group.living.begin();
        std::advance(victim, random() % group.living.size());
        auto* const connection = reactor.find<Connection>(*victim);
        if (connection == nullptr) continue;  // it has ended, and `closed` is still to be called
        random() % 2 == 0 ? connection->abort() : connection->close();
      } else {
        group.peers.emplace_back(group.acceptor->endpoint());
      }
      if (random() % 3 == 0) turn_times(reactor, 2);
    }
    turn_times(reactor, 3);
    ASSERT_EQ(group.living.size(), group.acceptor->open_connections());
    group.acceptor.reset();
    ASSERT_TRUE(turn_until(reactor, [&] { return group.is_over(); })) << "some are left in round " << round;
    EXPECT_FALSE(std::ranges::any_of(other.peers, &Peer::drain));
  }
}

TEST(ConnectionGroup, IsToldOfADrainOnceEachThoughAHandlerEndsOthers) {
  for (const int victims : {1, 2, 29}) {
    Reactor reactor;
    Group group(reactor, 30);
    std::mt19937 random(7);
    group.draining = [&](Connection& self) {
      if (group.told.size() != 3) return;
      std::vector<ChannelId> others(group.living.begin(), group.living.end());
      std::ranges::shuffle(others, random);
      int ended = 0;
      for (const ChannelId id : others) {
        auto* const other = reactor.find<Connection>(id);
        if (other == nullptr || other == &self || ended == victims) continue;
        other->abort();
        ++ended;
      }
    };
    std::optional<std::size_t> cut;
    group.acceptor->drain({.deadline = 1h, .handshakes = 0ms}, [&](std::size_t count) { cut = count; });
    ASSERT_TRUE(turn_until(reactor, [&] { return group.told.size() >= 3U; }));
    turn_times(reactor, 5);
    for (const ChannelId id : group.living) EXPECT_EQ(group.told[id], 1) << "one that lives was not told";
    for (const auto& [id, times] : group.told) EXPECT_EQ(times, 1);
    EXPECT_EQ(group.living.size(), 30U - static_cast<std::size_t>(victims));
    for (const ChannelId id : std::set<ChannelId>(group.living)) reactor.find<Connection>(id)->abort();
    ASSERT_TRUE(turn_until(reactor, [&] { return cut.has_value(); }));
  }
}

TEST(ConnectionGroup, MayLoseItsAcceptorWhileItIsToldOfADrain) {
  Reactor reactor;
  Group group(reactor, 10);
  group.draining = [&](Connection&) { group.acceptor.reset(); };
  group.acceptor->drain({.handshakes = 0ms}, [](std::size_t) { FAIL() << "the acceptor is gone"; });
  ASSERT_TRUE(turn_until(reactor, [&] { return group.is_over(); }));
  EXPECT_EQ(group.told.size(), 1U);
  turn_times(reactor, 3);
  EXPECT_EQ(reactor.metrics().channels, 0U);
}

// A channel of a user's that owns a connector, and goes with the reactor: some of the connections have gone
// before it.
TEST(ConnectionGroup, MayLoseItsConnectorWhileItsReactorEnds) {
  struct Holder final : Channel {
    Holder(Reactor& its_reactor, Fd fd, std::unique_ptr<Connector> held)
        : Channel(its_reactor, std::move(fd)), connector(std::move(held)) {}
    void on_ready(std::uint32_t /*events*/) noexcept override {}
    std::unique_ptr<Connector> connector;
  };
  const Listener listener(Endpoint::unix_path(Group::name()));
  {
    Reactor reactor;
    int open = 0;
    auto connector =
        std::make_unique<Connector>(reactor, ConnectionHandlers{.open = [&](Connection&) { ++open; }});
    // Channels end in the order of descriptors.
    Fd middle;
    for (int i = 0; i < 6; ++i) {
      if (i == 3) middle.reset(::fcntl(2, F_DUPFD_CLOEXEC, 0));
      ASSERT_FALSE(connector->connect(listener.endpoint()).error);
    }
    ASSERT_TRUE(turn_until(reactor, [&] { return open == 6; }));
    reactor.adopt(std::make_unique<Holder>(reactor, std::move(middle), std::move(connector)));
  }
  for (int i = 0; i < 6; ++i) {
    Peer peer(Fd(::accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC)));
    peer.receive_all();
    EXPECT_TRUE(peer.is_over());
    EXPECT_EQ(peer.error(), 0);
  }
}

// Found outside: it went through all channels of the reactor.
TEST(ConnectionGroup, EndsAtNoHigherPriceBesideMany) {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  rlimit wide = limit;
  wide.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &wide);
  const int many = std::min<int>(4000, static_cast<int>(wide.rlim_cur / 2) - 500);
  const auto price = [](Reactor& reactor, const Endpoint& to) {
    constexpr int kConnectors = 200;
    auto best = std::chrono::nanoseconds::max();
    for (int round = 0; round < 3; ++round) {
      std::vector<std::unique_ptr<Connector>> connectors;
      for (int i = 0; i < kConnectors; ++i) {
        connectors.push_back(std::make_unique<Connector>(reactor, ConnectionHandlers{}));
        EXPECT_FALSE(connectors.back()->connect(to).error);
        if (i % 50 == 0) reactor.turn(0ms);
      }
      turn_times(reactor, 5);
      const auto before = cpu_time();
      connectors.clear();
      best = std::min(best, cpu_time() - before);
      turn_times(reactor, 5);
    }
    return best;
  };
  Reactor reactor;
  Group small(reactor, 1);
  const auto alone = price(reactor, small.acceptor->endpoint());
  Group large(reactor, many);
  const auto beside_many = price(reactor, small.acceptor->endpoint());
  EXPECT_LT(beside_many, 2 * alone + 1ms)
      << "alone " << alone.count() << " ns, beside " << many << ' ' << beside_many.count() << " ns";
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace
}  // namespace anteroom
