// Only one thread at a time calls a reactor and what was made on it. What the library asserts of that.
#include <anteroom/acceptor.h>
#include <anteroom/connection.h>
#include <anteroom/connector.h>
#include <anteroom/datagram_socket.h>
#include <anteroom/reactor.h>
#include <anteroom/retry.h>
#include <anteroom/timer.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "support/own_network.h"
#include "support/peer.h"
#include "support/thrown.h"
#include "support/turns.h"

namespace anteroom {
namespace {

using namespace std::chrono_literals;
using namespace test;

/// One of each, on one reactor.
struct Everything {
  Reactor reactor;
  Timer timer{reactor, [] {}};
  ChannelId accepted = ChannelId::kNone;
  Acceptor acceptor{reactor, kLoopback, {.open = [this](Connection& opened) { accepted = opened.id(); }}};
  Connector connector{reactor, {}};
  Reconnector reconnector{reactor, acceptor.endpoint(), {}};
  DatagramSocket datagrams{reactor, kLoopback, {}};
  Connection* connection = nullptr;

  Everything() {
    EXPECT_TRUE(turn_until(reactor, [&] { return accepted != ChannelId::kNone; }));
    connection = reactor.find<Connection>(accepted);
  }
};

/// Calls it in another thread, while this one is in a turn.
void call_beside_a_turn(Everything& all, const std::function<void(Everything&)>& call) {
  all.reactor.post([&] { std::thread([&] { call(all); }).join(); });
  all.reactor.turn(0ms);
}

struct Call {
  const char* name;  ///< as the assertion names it
  std::function<void(Everything&)> call;
};

class WrongThreadDeathTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!kAsserts) GTEST_SKIP() << "a library without assertions does not look";
  }
  static void expect_death(std::initializer_list<Call> calls) {
    for (const Call& each : calls) {
      EXPECT_DEATH(
          {
            Everything all;
            call_beside_a_turn(all, each.call);
          },
          std::string(each.name) + ".*is_thread_of")
          << each.name;
    }
  }
};

TEST_F(WrongThreadDeathTest, OfAReactorIsNamed) {
  expect_death({
      {"Reactor::turn", [](Everything& all) { all.reactor.turn(0ms); }},
      {"Reactor::now", [](Everything& all) { (void)all.reactor.now(); }},
      {"Reactor::metrics", [](Everything& all) { (void)all.reactor.metrics(); }},
      {"Reactor::set_buffered_bytes_max", [](Everything& all) { all.reactor.set_buffered_bytes_max(1); }},
      {"Reactor::find_channel", [](Everything& all) { (void)all.reactor.find(all.accepted); }},
      {"Reactor::again", [](Everything& all) { all.reactor.again(*all.connection); }},
      {"Reactor::for_each_channel", [](Everything& all) { all.reactor.for_each_channel([](Channel&) {}); }},
  });
}

TEST_F(WrongThreadDeathTest, OfAnAcceptorIsNamed) {
  expect_death({
      {"Acceptor::endpoint", [](Everything& all) { (void)all.acceptor.endpoint(); }},
      {"Acceptor::fd", [](Everything& all) { (void)all.acceptor.fd(); }},
      {"Acceptor::set_backlog", [](Everything& all) { all.acceptor.set_backlog(1); }},
      {"Acceptor::stats", [](Everything& all) { (void)all.acceptor.stats(); }},
      {"Acceptor::queue", [](Everything& all) { (void)all.acceptor.queue(); }},
      {"Acceptor::open_connections", [](Everything& all) { (void)all.acceptor.open_connections(); }},
      {"Acceptor::pause", [](Everything& all) { all.acceptor.pause(); }},
      {"Acceptor::resume", [](Everything& all) { all.acceptor.resume(); }},
      {"Acceptor::drain", [](Everything& all) { all.acceptor.drain({}, [](std::size_t) {}); }},
      {"Acceptor::~Acceptor", [](Everything& all) { std::destroy_at(&all.acceptor); }},
  });
}

TEST_F(WrongThreadDeathTest, OfAConnectionIsNamed) {
  expect_death({
      {"Connection::send", [](Everything& all) { all.connection->send("x"); }},
      {"Connection::send_file", [](Everything& all) { all.connection->send_file(Fd(), 0, 0); }},
      {"Connection::close", [](Everything& all) { all.connection->close(); }},
      {"Connection::close", [](Everything& all) { all.connection->close("x"); }},
      {"Connection::end_output", [](Everything& all) { all.connection->end_output(); }},
      {"Connection::abort", [](Everything& all) { all.connection->abort(); }},
      {"Connection::pause_reading", [](Everything& all) { all.connection->pause_reading(); }},
      {"Connection::resume_reading", [](Everything& all) { all.connection->resume_reading(); }},
      {"Connection::expect_input", [](Everything& all) { all.connection->expect_input(false); }},
      {"Connection::unsent_bytes", [](Everything& all) { (void)all.connection->unsent_bytes(); }},
      {"Connection::is_open", [](Everything& all) { (void)all.connection->is_open(); }},
      {"Connection::peer", [](Everything& all) { (void)all.connection->peer(); }},
      {"Connection::set_context", [](Everything& all) { all.connection->set_context(nullptr); }},
  });
}

TEST_F(WrongThreadDeathTest, OfATimerIsNamed) {
  expect_death({
      {"Timer::node_to_arm", [](Everything& all) { all.timer.arm(1h); }},
      {"Timer::node_to_arm", [](Everything& all) { all.timer.arm_every(1h); }},
      {"Timer::cancel", [](Everything& all) { all.timer.cancel(); }},
      {"Timer::is_armed", [](Everything& all) { (void)all.timer.is_armed(); }},
      {"Timer::Node", [](Everything& all) { Timer(all.reactor, [] {}).cancel(); }},
      {"Timer::Node", [](Everything& all) { all.timer = Timer(); }},
  });
}

TEST_F(WrongThreadDeathTest, OfAClientIsNamed) {
  expect_death({
      {"Connector::connect", [](Everything& all) { (void)all.connector.connect(kLoopback); }},
      {"Connector::~Connector", [](Everything& all) { std::destroy_at(&all.connector); }},
      {"Connector::Connector", [](Everything& all) { const Connector connector(all.reactor, {}); }},
      {"Reconnector::connection", [](Everything& all) { (void)all.reconnector.connection(); }},
      {"Reconnector::~Reconnector", [](Everything& all) { std::destroy_at(&all.reconnector); }},
  });
}

TEST_F(WrongThreadDeathTest, OfADatagramSocketIsNamed) {
  expect_death({
      {"DatagramSocket::send", [](Everything& all) { all.datagrams.send("x"); }},
      {"DatagramSocket::flush", [](Everything& all) { all.datagrams.flush(); }},
      {"DatagramSocket::stats", [](Everything& all) { (void)all.datagrams.stats(); }},
      {"DatagramSocket::endpoint", [](Everything& all) { (void)all.datagrams.endpoint(); }},
      {"DatagramSocket::~DatagramSocket", [](Everything& all) { std::destroy_at(&all.datagrams); }},
  });
}

// It sleeps then, and no handler runs.
TEST_F(WrongThreadDeathTest, IsNoticedWhileTheReactorWaits) {
  EXPECT_DEATH(
      {
        Everything all;
        std::thread loop([&] { all.reactor.run(); });
        while (is_thread_of(all.reactor)) std::this_thread::yield();
        all.connection->send("from outside");
        loop.join();
      },
      "Connection::send.*is_thread_of");
}

// ---- The right thread

TEST(RightThread, MayBeAnotherThanTheOneThatMadeTheReactor) {
  Everything all;
  bool fired = false;
  all.timer = Timer(all.reactor, [&] {
    fired = true;
    EXPECT_TRUE(all.connection->send("from its thread"));
    all.reactor.stop();
  });
  all.timer.arm(1ms);
  std::thread([&] { all.reactor.run(); }).join();
  EXPECT_TRUE(fired);
  EXPECT_EQ(all.acceptor.open_connections(), 1U) << "and then the first one's again";
  all.connection->close();
  all.reactor.turn(0ms);
}

TEST(RightThread, ChangesFromTurnToTurn) {
  Everything all;
  for (int i = 0; i < 3; ++i) {
    std::thread([&] { all.reactor.turn(0ms); }).join();
    all.reactor.turn(0ms);
    EXPECT_TRUE(all.connection->is_open());
  }
}

TEST(RightThread, IsForgottenWhenAHandlerOfAnotherReactorTurnsThisOne) {
  Reactor outer;
  Everything all;
  bool turned = false;
  outer.post([&] {
    all.reactor.turn(0ms);
    turned = all.connection->is_open();
  });
  outer.turn(0ms);
  EXPECT_TRUE(turned);
}

TEST(RightThread, MayPostAndStopFromAnywhere) {
  Everything all;
  bool ran = false;
  std::thread loop([&] { all.reactor.run(); });
  all.reactor.post([&] {
    ran = true;
    all.reactor.stop();
  });
  loop.join();
  EXPECT_TRUE(ran);
}

}  // namespace
}  // namespace anteroom
