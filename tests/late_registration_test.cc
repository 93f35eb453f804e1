// Who is registered with epoll, and when: linked with --wrap=epoll_ctl, which counts.
#include <anteroom/acceptor.h>
#include <anteroom/connector.h>
#include <gtest/gtest.h>
#include <sys/epoll.h>

#include <map>
#include <string>

#include "support/own_network.h"
#include "support/peer.h"
#include "support/turns.h"

namespace {

int additions = 0;
int changes = 0;  // EPOLL_CTL_MOD and EPOLL_CTL_DEL: there are to be none
std::map<int, std::uint32_t> asked_for;

}  // namespace

extern "C" {
// NOLINTBEGIN(bugprone-reserved-identifier): the linker's names, see --wrap in ld(1)
int __real_epoll_ctl(int epoll, int operation, int fd, epoll_event* event);
int __wrap_epoll_ctl(int epoll, int operation, int fd, epoll_event* event);
// NOLINTEND(bugprone-reserved-identifier)

int __wrap_epoll_ctl(int epoll, int operation, int fd, epoll_event* event) {
  if (operation == EPOLL_CTL_ADD) {
    ++additions;
    asked_for[fd] = event->events;
  } else {
    ++changes;
  }
  return __real_epoll_ctl(epoll, operation, fd, event);
}
}

namespace anteroom {
namespace {

using namespace test;

class LateRegistration : public testing::Test {
 protected:
  void let_in(ConnectionHandlers handlers) {
    handlers.closed = [this](Connection&, std::error_code) { ++ended; };
    acceptor.emplace(reactor, kLoopback, std::move(handlers));
    EXPECT_EQ(additions, 2) << "the reactor's own eventfd, and the door";
    additions = 0;
  }
  void SetUp() override { changes = 0; }
  void TearDown() override { EXPECT_EQ(changes, 0); }

  // counts from here on
  struct FromZero {
    FromZero() { additions = 0; }
  } from_zero_;
  Reactor reactor;
  std::optional<Acceptor> acceptor;
  int ended = 0;
};

TEST_F(LateRegistration, IsNotNeededForTheTextbooksHello) {
  let_in({.open = [](Connection& guest) {
    guest.send("Hello World!");
    guest.close();
  }});
  std::vector<Peer> peers = connect_peers(acceptor->endpoint(), 50);
  ASSERT_TRUE(turn_until(reactor, [&] { return ended == 50; }));
  EXPECT_EQ(additions, 0);
  for (Peer& peer : peers) EXPECT_EQ(peer.receive_all(), "Hello World!");
}

TEST_F(LateRegistration, IsNotNeededForWhoHasSaidAllAndClosedBeforeItWasLetIn) {
  let_in({.data = [](Connection& guest, std::string_view bytes) {
    guest.send(bytes);
    guest.close();
  }});
  std::vector<Peer> peers = connect_peers(acceptor->endpoint(), 20);
  for (const Peer& peer : peers) {
    peer.send("question and answer");
    peer.finish();
  }
  ASSERT_TRUE(turn_until(reactor, [&] { return ended == 20; }));
  EXPECT_EQ(additions, 0);
  for (Peer& peer : peers) EXPECT_EQ(peer.receive_all(), "question and answer");
}

TEST_F(LateRegistration, HappensOnceForWhoStays) {
  let_in({.data = [](Connection& guest, std::string_view bytes) { guest.send(bytes); }});
  std::vector<Peer> peers = connect_peers(acceptor->endpoint(), 10);
  for (int i = 1; i <= 5; ++i) {
    for (const Peer& peer : peers) peer.send("again ");
    ASSERT_TRUE(turn_until(reactor, [&] {
      bool all = true;
      for (Peer& peer : peers)
        peer.drain(), all = all && peer.received().size() == static_cast<std::size_t>(6 * i);
      return all;
    }));
  }
  EXPECT_EQ(additions, 10);
  for (Peer& peer : peers) peer.close();
  ASSERT_TRUE(turn_until(reactor, [&] { return ended == 10; }));
  EXPECT_EQ(additions, 10);
}

TEST_F(LateRegistration, AsksForAllEdgesAtOnce) {
  asked_for.clear();
  ChannelId id = ChannelId::kNone;
  let_in({.open = [&](Connection& guest) { id = guest.id(); }});
  const Peer peer(acceptor->endpoint());
  ASSERT_TRUE(turn_until(reactor, [&] { return additions == 1; }));
  EXPECT_EQ(asked_for[static_cast<int>(static_cast<std::uint32_t>(id))],
            static_cast<std::uint32_t>(EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP | EPOLLET));
}

TEST_F(LateRegistration, HappensOnceForAnAnswerThatHasToWait) {
  const std::string answer = pattern(8 << 20);
  let_in({.open = [&](Connection& guest) {
    guest.send(answer);
    guest.close();
  }});
  Peer peer(acceptor->endpoint());
  ASSERT_TRUE(turn_until(reactor, [&] { return peer.drain() && ended == 1; }));
  EXPECT_TRUE(peer.received() == answer);
  EXPECT_EQ(additions, 1);
}

}  // namespace
}  // namespace anteroom
