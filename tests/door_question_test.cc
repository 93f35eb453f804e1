// The doorman asks how many wait, and accepts just those. Who comes after the question brings an edge of
// their own: here guests arrive at every point between the two. Linked with --wrap=getsockopt,--wrap=accept4.
#include <anteroom/acceptor.h>
#include <anteroom/reactor.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <cerrno>
#include <functional>
#include <string>
#include <vector>

#include "support/own_network.h"
#include "support/peer.h"
#include "support/turns.h"

namespace {

std::function<void()> at_this_point;  // run before and after each of the doorman's calls
int accepts = 0;
int found_nobody = 0;

void pass_a_point() {
  if (!at_this_point) return;
  const std::function<void()> what =
      std::exchange(at_this_point, nullptr);  // what it calls itself is no point
  what();
  at_this_point = what;
}

}  // namespace

extern "C" {
// NOLINTBEGIN(bugprone-reserved-identifier): the linker's names, see --wrap in ld(1)
int __real_getsockopt(int fd, int level, int name, void* value, socklen_t* size);
int __wrap_getsockopt(int fd, int level, int name, void* value, socklen_t* size);
int __real_accept4(int fd, sockaddr* address, socklen_t* size, int flags);
int __wrap_accept4(int fd, sockaddr* address, socklen_t* size, int flags);
// NOLINTEND(bugprone-reserved-identifier)

int __wrap_getsockopt(int fd, int level, int name, void* value, socklen_t* size) {
  pass_a_point();
  const int result = __real_getsockopt(fd, level, name, value, size);
  pass_a_point();
  return result;
}

int __wrap_accept4(int fd, sockaddr* address, socklen_t* size, int flags) {
  pass_a_point();
  const int guest = __real_accept4(fd, address, size, flags);
  const int error = errno;
  ++accepts;
  if (guest < 0 && error == EAGAIN) ++found_nobody;
  pass_a_point();
  errno = error;
  return guest;
}
}

namespace anteroom {
namespace {

using namespace test;

class DoorQuestion : public testing::Test {
 protected:
  ~DoorQuestion() override { at_this_point = nullptr; }

  struct Evening {
    int waiting;  ///< before the doorman comes
    int point;    ///< at which others arrive
    int others;
    int budget;
  };

  /// False when there was no such point.
  static bool spend(const Evening& evening) {
    Reactor reactor;
    AcceptorOptions options;
    options.accepts_per_turn_max = evening.budget;
    std::optional<Acceptor> acceptor;
    acceptor.emplace(
        reactor, kLoopback,
        ConnectionHandlers{.open = [](Connection& guest) { guest.send("Hello"), guest.close(); }}, options);
    std::vector<Peer> peers = connect_peers(acceptor->endpoint(), evening.waiting);
    accepts = 0;
    found_nobody = 0;
    int point = 0;
    bool have_come = false;
    at_this_point = [&] {
      if (point++ != evening.point) return;
      have_come = true;
      for (int i = 0; i < evening.others; ++i) peers.emplace_back(acceptor->endpoint());
    };
    const auto all_are_in = [&] { return acceptor->stats().accepted == peers.size(); };
    EXPECT_TRUE(turn_until(reactor, all_are_in)) << "left waiting, with point " << evening.point;
    turn_times(reactor, 3);
    at_this_point = nullptr;
    EXPECT_EQ(found_nobody, 0) << "an accept4 that finds nobody, with point " << evening.point;
    EXPECT_EQ(accepts, static_cast<int>(peers.size()));
    EXPECT_EQ(acceptor->queue()->depth, 0U);
    for (Peer& peer : peers) EXPECT_EQ(peer.receive_all(), "Hello");
    return have_come;
  }
};

TEST_F(DoorQuestion, LeavesNobodyWaitingWhoComesAtAnyPoint) {
  for (const int waiting : {1, 2, 5}) {
    for (const int others : {1, 3}) {
      for (const int budget : {64, 2, 1}) {
        int point = 0;
        while (spend({waiting, point, others, budget}) && !HasFailure()) ++point;
        EXPECT_GE(point, 2 * waiting + 2) << "there are two points at each call";
        if (HasFailure()) FAIL() << waiting << " waiting, " << others << " others, budget " << budget;
      }
    }
  }
}

TEST_F(DoorQuestion, LeavesNobodyWaitingWhenSomebodyComesAtEveryPoint) {
  Reactor reactor;
  AcceptorOptions options;
  options.accepts_per_turn_max = 4;
  std::optional<Acceptor> acceptor;
  acceptor.emplace(reactor, kLoopback,
                   ConnectionHandlers{.open = [](Connection& guest) { guest.send("Hello"), guest.close(); }},
                   options);
  std::vector<Peer> peers = connect_peers(acceptor->endpoint(), 1);
  found_nobody = 0;
  at_this_point = [&] {
    if (peers.size() < 300) peers.emplace_back(acceptor->endpoint());
  };
  ASSERT_TRUE(turn_until(reactor, [&] { return peers.size() == 300 && acceptor->stats().accepted == 300; }));
  at_this_point = nullptr;
  EXPECT_EQ(found_nobody, 0);
  for (Peer& peer : peers) EXPECT_EQ(peer.receive_all(), "Hello");
}

// He may find fewer than he was told of only when somebody else accepts from the same queue.
TEST_F(DoorQuestion, SurvivesThatAnotherTakesHisGuests) {
  Reactor reactor;
  const Acceptor acceptor(reactor, kLoopback,
                          {.open = [](Connection& guest) { guest.send("Hello"), guest.close(); }});
  std::vector<Peer> peers = connect_peers(acceptor.endpoint(), 5);
  int listener = -1;
  reactor.for_each_channel([&](Channel& channel) { listener = channel.fd(); });
  found_nobody = 0;
  int point = 0;
  std::vector<Fd> taken;
  at_this_point = [&] {
    if (point++ != 2) return;  // after the question
    for (int i = 0; i < 3; ++i) taken.emplace_back(__real_accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
  };
  ASSERT_TRUE(turn_until(reactor, [&] { return acceptor.stats().accepted == 2; }));
  turn_times(reactor, 3);
  at_this_point = nullptr;
  EXPECT_EQ(found_nobody, 1) << "once, and he does not ask for the others";
  peers.emplace_back(acceptor.endpoint());
  ASSERT_TRUE(turn_until(reactor, [&] { return acceptor.stats().accepted == 3; }));
}

}  // namespace
}  // namespace anteroom
