// What a drain leaves behind: each test looks at the socket and its group afterwards, from another holder.
#include <anteroom/acceptor.h>
#include <anteroom/activation.h>
#include <anteroom/handover.h>
#include <anteroom/reactor_pool.h>
#include <anteroom/reuseport_group.h>
#include <anteroom/socket.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <semaphore>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "support/descriptors.h"
#include "support/own_network.h"
#include "support/peer.h"
#include "support/turns.h"

namespace anteroom {
namespace {

using namespace std::chrono_literals;
using namespace test;

constexpr ListenerOptions kInGroup{.reuse_port = true};
constexpr std::size_t kRefusesSyns = 5;  // instructions of that filter

/// How many instructions the socket's filter has; 0: there is none (SO_GET_FILTER, whose length counts them).
std::size_t filter_of(int socket) {
  socklen_t length = 0;
  EXPECT_EQ(::getsockopt(socket, SOL_SOCKET, SO_GET_FILTER, nullptr, &length), 0);
  return length;
}

/// Whether a program steers the group. It does not any more.
bool was_steered(int socket) {
  const int ignored = 0;
  return ::setsockopt(socket, SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, &ignored, sizeof(ignored)) == 0;
}

Fd copy_of(int socket) { return Fd(::fcntl(socket, F_DUPFD_CLOEXEC, 0)); }

/// Whether a client gets into the queue of that listener at once.
bool is_reachable(int listener) {
  const std::uint32_t before = listen_queue(listener)->depth;
  std::error_code error;
  const Endpoint at = local_endpoint(listener);
  const Fd caller = open_stream_socket(at.family(), error);
  (void)::connect(caller.get(), at.data(), at.size());
  return listen_queue(listener)->depth == before + 1;
}

/// Each of the group gets some of 50 clients for each, and all of them together get all.
void expect_shared_evenly(const std::vector<Listener>& group) {
  const int clients = 50 * static_cast<int>(group.size());
  const std::vector<Peer> peers = connect_peers(group.front().endpoint(), clients);
  std::uint32_t all = 0;
  for (const Listener& listener : group) {
    // 50 with a deviation of 7 at most: less than 12 once in 10^7.
    EXPECT_GE(listener.queue()->depth, 12U);
    EXPECT_EQ(filter_of(listener.fd()), 0U);
    all += listener.queue()->depth;
  }
  EXPECT_EQ(all, static_cast<std::uint32_t>(clients));
  EXPECT_FALSE(was_steered(group.front().fd()));
}

ConnectionHandlers greeting() {
  return {.open = [](Connection& client) { client.close("Hello World!"); }};
}

// ---- One acceptor, of whose socket somebody else has a copy

class ADrain : public testing::Test {
 protected:
  void open(Listener listener, AcceptorOptions options = {}) {
    keeper = copy_of(listener.fd());
    acceptor.emplace(reactor, std::move(listener), greeting(), std::move(options));
  }
  void drain(DrainOptions options) {
    acceptor->drain(options, [this](std::size_t) { is_over = true; });
  }
  bool turn_until(const std::function<bool()>& done) { return test::turn_until(reactor, done); }
  bool finished() {
    return turn_until([this] { return is_over; });
  }
  void expect_untouched() const {
    EXPECT_EQ(filter_of(keeper.get()), 0U);
    EXPECT_TRUE(is_reachable(keeper.get()));
  }

  Reactor reactor;
  Fd keeper;
  std::optional<Acceptor> acceptor;
  bool is_over = false;
};

TEST_F(ADrain, LeavesNoFilterOnASocketThatSomebodyElseHolds) {
  open(Listener(kLoopback));
  drain({.handshakes = 5ms});
  EXPECT_EQ(filter_of(keeper.get()), kRefusesSyns) << "it is for the time of the drain";
  ASSERT_TRUE(finished());
  expect_untouched();
}

TEST_F(ADrain, LeavesNoFilterWhenItsDeadlineIsOver) {
  open(Listener(kLoopback));
  drain({.deadline = 5ms, .handshakes = 60s});
  ASSERT_TRUE(finished());
  expect_untouched();
}

TEST_F(ADrain, LeavesNoFilterWhenThereAreNoDescriptorsForThoseWhoWait) {
  open(Listener(kLoopback));
  const std::vector<Peer> peers = connect_peers(acceptor->endpoint(), 5);
  {
    const DescriptorLimit limit(0);
    drain({.deadline = 30ms, .handshakes = 0ms});
    ASSERT_TRUE(finished());
  }
  EXPECT_EQ(listen_queue(keeper.get())->depth, 5U) << "they wait for the other holder";
  expect_untouched();
}

TEST_F(ADrain, LeavesNothingWhenItsAcceptorIsDestroyedInAnyStage) {
  struct Stage {
    const char* name;
    std::chrono::milliseconds handshakes;
    int turns;
  };
  for (const Stage& stage : {Stage{"before the first turn", 60s, 0}, Stage{"waiting for handshakes", 60s, 3},
                             Stage{"in between", 1ms, 1}, Stage{"after some turns", 1ms, 4}}) {
    for (const bool in_group : {false, true}) {
      open(Listener(kLoopback, {.reuse_port = in_group}));
      std::vector<Listener> others;
      if (in_group) {
        for (int i = 0; i < 3; ++i) others.emplace_back(acceptor->endpoint(), kInGroup);
      }
      drain({.handshakes = stage.handshakes});
      turn_times(reactor, stage.turns);
      acceptor.reset();
      EXPECT_EQ(filter_of(keeper.get()), 0U) << stage.name;
      if (in_group) {
        others.emplace_back(std::move(keeper));
        expect_shared_evenly(others);
      } else {
        EXPECT_TRUE(is_reachable(keeper.get())) << stage.name;
      }
    }
  }
}

TEST_F(ADrain, LeavesNothingOnAGroupOfWhichItsOwnSocketIsKept) {
  open(Listener(kLoopback, kInGroup));
  std::vector<Listener> group;
  for (int i = 0; i < 3; ++i) group.emplace_back(acceptor->endpoint(), kInGroup);
  drain({.handshakes = 2ms});
  ASSERT_TRUE(finished());
  group.emplace_back(std::move(keeper));
  expect_shared_evenly(group);
}

TEST_F(ADrain, LeavesNothingOnAGroupWithoutASpareDescriptor) {
  open(Listener(kLoopback, kInGroup));
  std::vector<Listener> group;
  for (int i = 0; i < 3; ++i) group.emplace_back(acceptor->endpoint(), kInGroup);
  {
    const DescriptorLimit limit(0);
    drain({.handshakes = 2ms});
    ASSERT_TRUE(finished());
  }
  group.emplace_back(std::move(keeper));
  expect_shared_evenly(group);
}

// Two that leave by themselves, and not as a pool: nobody undid it.
TEST_F(ADrain, LeavesNothingWhenSeveralLeaveTogetherByHand) {
  open(Listener(kLoopback, kInGroup));
  std::optional<Acceptor> second(std::in_place, reactor, Listener(acceptor->endpoint(), kInGroup),
                                 greeting());
  std::vector<Listener> stay;
  for (int i = 0; i < 4; ++i) stay.emplace_back(acceptor->endpoint(), kInGroup);
  keeper.reset();
  bool is_second_over = false;
  drain({.handshakes = 2ms, .leaving = 2});
  second->drain({.handshakes = 2ms, .leaving = 2}, [&](std::size_t) { is_second_over = true; });
  ASSERT_TRUE(turn_until([&] { return is_over && is_second_over; }));
  expect_shared_evenly(stay);
}

TEST_F(ADrain, ReplacesNoFilterThatSomebodyElseAttachesMeanwhile) {
  open(Listener(kLoopback));
  drain({.handshakes = 5ms});
  sock_filter accept_all = BPF_STMT(BPF_RET | BPF_K, 0xffffffff);
  const sock_fprog program{.len = 1, .filter = &accept_all};
  ASSERT_EQ(::setsockopt(keeper.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)), 0);
  ASSERT_TRUE(finished());
  EXPECT_EQ(filter_of(keeper.get()), 1U);
}

// ---- A listener that came from another process

Listener adopted(int socket) { return adopt_listener(copy_of(socket), "ours"); }

TEST_F(ADrain, OfAnAdoptedListenerDoesNothingToIt) {
  const Listener managers(kLoopback);
  open(adopted(managers.fd()));
  std::vector<Peer> early = connect_peers(managers.endpoint(), 10);
  drain({.handshakes = 60s});
  while (!is_over) {
    ASSERT_EQ(filter_of(keeper.get()), 0U);
    reactor.turn(10ms);
  }
  ASSERT_TRUE(
      turn_until([&] { return std::ranges::all_of(early, [](Peer& peer) { return peer.drain(); }); }));
  for (const Peer& peer : early) EXPECT_EQ(peer.received(), "Hello World!") << "they had waited for us";
  const std::vector<Peer> late = connect_peers(managers.endpoint(), 10);
  EXPECT_EQ(managers.queue()->depth, 10U) << "they wait for the next one";
}

TEST_F(ADrain, OfAnAdoptedListenerLeavesThoseWhoWaitToTheOthersWithoutDescriptors) {
  const Listener managers(kLoopback);
  open(adopted(managers.fd()));
  const std::vector<Peer> peers = connect_peers(managers.endpoint(), 5);
  {
    const DescriptorLimit limit(0);
    drain({.deadline = 60s});
    ASSERT_TRUE(finished());
  }
  EXPECT_EQ(managers.queue()->depth, 5U);
  expect_untouched();
}

TEST_F(ADrain, OfAnAdoptedGroupDoesNotSteerIt) {
  std::vector<Listener> group;
  group.emplace_back(kLoopback, kInGroup);
  for (int i = 0; i < 3; ++i) group.emplace_back(group.front().endpoint(), kInGroup);
  open(adopted(group.front().fd()));
  drain({.handshakes = 60s});
  EXPECT_FALSE(was_steered(group.front().fd()));
  ASSERT_TRUE(finished());
  expect_shared_evenly(group);
}

TEST_F(ADrain, OfAnAdoptedListenerThatNobodyElseHasRefusesSynsFirst) {
  Listener managers(kLoopback);
  open(adopted(managers.fd()));
  drain({.handshakes = 5ms, .handed_over = false});
  EXPECT_EQ(filter_of(managers.fd()), kRefusesSyns);
  ASSERT_TRUE(finished());
  expect_untouched();
}

TEST_F(ADrain, OfAListenerThatIsSaidToBeSharedDoesNothingToIt) {
  Listener listener(kLoopback);
  listener.set_shared(true);
  Listener moved(std::move(listener));
  EXPECT_TRUE(moved.is_shared());
  open(std::move(moved));
  drain({.handshakes = 60s});
  EXPECT_EQ(filter_of(keeper.get()), 0U);
  ASSERT_TRUE(finished());
  expect_untouched();
}

TEST(Adopting, MakesAListenerShared) {
  const Listener own(kLoopback);
  EXPECT_FALSE(own.is_shared());
  EXPECT_FALSE(Listener(copy_of(own.fd())).is_shared());
  EXPECT_TRUE(adopted(own.fd()).is_shared());
}

TEST(Adopting, TakesOffTheFilterThatACrashedPredecessorLeft) {
  const Listener managers(kLoopback);
  const pid_t predecessor = ::fork();
  if (predecessor == 0) {
    if (!refuse_syns(managers.fd())) ::_exit(1);
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(predecessor, &status, 0), predecessor);
  ASSERT_TRUE(WIFSIGNALED(status));
  ASSERT_EQ(filter_of(managers.fd()), kRefusesSyns) << "or there is nothing to take off";
  const Listener ours = adopted(managers.fd());
  EXPECT_EQ(filter_of(managers.fd()), 0U);
  EXPECT_TRUE(is_reachable(ours.fd()));
}

TEST(Adopting, TakesOffTheSteeringThatACrashedPredecessorLeft) {
  std::vector<Listener> group;
  group.emplace_back(kLoopback, kInGroup);
  for (int i = 0; i < 3; ++i) group.emplace_back(group.front().endpoint(), kInGroup);
  ASSERT_TRUE(steer_group(group.back().fd(), 1, 2));
  const Listener ours = adopted(group.front().fd());
  expect_shared_evenly(group);
}

TEST(Adopting, LeavesAFilterThatIsNotOurs) {
  const Listener managers(kLoopback);
  std::array<sock_filter, kRefusesSyns> code;
  code.fill(BPF_STMT(BPF_RET | BPF_K, 0xffffffff));
  for (const std::size_t length : {1U, 4U, 5U}) {
    const sock_fprog program{.len = static_cast<unsigned short>(length), .filter = code.data()};
    ASSERT_EQ(::setsockopt(managers.fd(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)), 0);
    const Listener ours = adopted(managers.fd());
    EXPECT_EQ(filter_of(managers.fd()), length);
  }
}

TEST(AdmitSyns, UndoesRefuseSynsOnce) {
  const Listener listener(kLoopback);
  EXPECT_TRUE(admit_syns(listener.fd())) << "there is nothing to undo";
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(refuse_syns(listener.fd()));
    ASSERT_FALSE(is_reachable(listener.fd()));
    EXPECT_TRUE(admit_syns(listener.fd()));
    EXPECT_TRUE(admit_syns(listener.fd()));
    EXPECT_EQ(filter_of(listener.fd()), 0U);
    EXPECT_TRUE(is_reachable(listener.fd()));
  }
}

TEST(AdmitSyns, OfWhatIsNoSocketIsFalse) {
  const Fd file(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  EXPECT_FALSE(admit_syns(file.get()));
  EXPECT_FALSE(admit_syns(-1));
}

TEST(AdmitSyns, LetsInThoseWhoWereRefusedWhenTheyRepeatTheirSyn) {
  const Listener listener(kLoopback);
  ASSERT_TRUE(refuse_syns(listener.fd()));
  std::error_code error;
  const Endpoint at = listener.endpoint();
  const Fd caller = open_stream_socket(at.family(), error);
  (void)::connect(caller.get(), at.data(), at.size());
  ASSERT_TRUE(admit_syns(listener.fd()));
  EXPECT_TRUE(await_events(caller.get(), POLLOUT));
  EXPECT_EQ(listener.queue()->depth, 1U);
}

// ---- Pools

ReactorPool::MakeHandlers each_greets() {
  return [](Reactor&, int) { return greeting(); };
}

std::string name_of(Sharing sharing) {
  return sharing == Sharing::kReusePort   ? "ReusePort"
         : sharing == Sharing::kExclusive ? "Exclusive"
                                          : "Dealt";
}

class APoolsDrain : public testing::TestWithParam<Sharing> {
 protected:
  void open(int threads = 2) {
    pool = std::make_unique<ReactorPool>(kLoopback, each_greets(),
                                         ReactorPoolOptions{.threads = threads, .sharing = GetParam()});
    for (const int listener : pool->listeners()) keepers.emplace_back(copy_of(listener));
    pool->start();
  }
  void expect_untouched() const {
    for (const Listener& keeper : keepers) {
      EXPECT_EQ(filter_of(keeper.fd()), 0U);
      EXPECT_FALSE(was_steered(keeper.fd()));
    }
    if (keepers.size() == 1) {
      EXPECT_TRUE(is_reachable(keepers.front().fd()));
    }
  }

  std::unique_ptr<ReactorPool> pool;
  std::vector<Listener> keepers;
};

INSTANTIATE_TEST_SUITE_P(Each, APoolsDrain,
                         testing::Values(Sharing::kReusePort, Sharing::kExclusive, Sharing::kDealt),
                         [](const auto& instance) { return name_of(instance.param); });

TEST_P(APoolsDrain, LeavesNothingOnSocketsThatSomebodyElseHolds) {
  for (const int threads : {1, 2, 3}) {
    keepers.clear();
    open(threads);
    EXPECT_EQ(pool->drain({.handshakes = 5ms}), 0U);
    expect_untouched();
    pool.reset();
    expect_untouched();
  }
}

TEST_P(APoolsDrain, LeavesNothingHoweverFewDescriptorsThereAre) {
  for (const int room : {0, 1, 2, 3}) {
    keepers.clear();
    open();
    {
      const DescriptorLimit limit(room);
      EXPECT_EQ(pool->drain({.deadline = 1s, .handshakes = 2ms}), 0U);
    }
    expect_untouched();
    if (GetParam() == Sharing::kReusePort) expect_shared_evenly(keepers);
  }
}

TEST_P(APoolsDrain, LeavesNothingWhenThoseWhoWaitFindNoDescriptors) {
  open();
  std::optional<DescriptorLimit> limit;
  std::vector<Peer> peers;
  std::binary_semaphore ready(0);
  std::binary_semaphore go_on(0);
  pool->reactor(0).post([&] {  // or it would let them in before the limit is there
    ready.release();
    go_on.acquire();
  });
  ready.acquire();
  peers = connect_peers(pool->endpoint(), 10);
  limit.emplace(0);
  go_on.release();
  (void)pool->drain({.deadline = 60ms, .handshakes = 2ms});
  limit.reset();
  expect_untouched();
}

TEST_P(APoolsDrain, OfAdoptedListenersDoesNothingToThem) {
  open();
  std::vector<Listener> listeners;
  for (const Listener& keeper : keepers) listeners.push_back(adopted(keeper.fd()));
  pool.reset();
  ReactorPool second(std::move(listeners), each_greets(), {.threads = 2, .sharing = GetParam()});
  second.start();
  EXPECT_EQ(second.drain({.handshakes = 60s}), 0U);
  expect_untouched();
}

// A pool of 2 without a spare descriptor left the group steered: its successor of 4 got 37, 43, 0 and 0
// of 80.
TEST(APoolsDrainInAGroup, LeavesItsSuccessorsAnEvenShareHoweverFewDescriptorsThereAre) {
  for (const int threads : {1, 2, 3}) {
    for (const int room : {0, 1, 2, 100}) {
      ReactorPool pool(kLoopback, each_greets(), {.threads = threads, .sharing = Sharing::kReusePort});
      std::vector<Listener> successors;
      for (int i = 0; i < 4; ++i) successors.emplace_back(pool.endpoint(), kInGroup);
      pool.start();
      {
        const DescriptorLimit limit(room);
        EXPECT_EQ(pool.drain({.deadline = 1s, .handshakes = 2ms}), 0U);
      }
      expect_shared_evenly(successors);
    }
  }
}

TEST(APoolsDrainInAGroup, LeavesItsSuccessorsAnEvenShareAfterItsDeadline) {
  ReactorPool pool(kLoopback, each_greets(), {.threads = 2, .sharing = Sharing::kReusePort});
  std::vector<Listener> successors;
  for (int i = 0; i < 4; ++i) successors.emplace_back(pool.endpoint(), kInGroup);
  pool.start();
  EXPECT_EQ(pool.drain({.deadline = 5ms, .handshakes = 60s}), 0U);
  expect_shared_evenly(successors);
}

// The first thread that is through must not let SYNs in while another one still has to empty the queue.
TEST(APoolsDrainOfOneListener, RefusesSynsUntilTheLastThreadIsThrough) {
  ReactorPool pool(kLoopback, each_greets(), {.threads = 2, .sharing = Sharing::kExclusive});
  const Fd keeper = copy_of(pool.listeners().front());
  pool.start();
  std::binary_semaphore busy(0);
  std::binary_semaphore go_on(0);
  pool.reactor(1).post([&] {
    busy.release();
    go_on.acquire();
  });
  busy.acquire();
  std::binary_semaphore is_first_closed(0);
  auto cut = std::async(std::launch::async, [&] {
    return pool.drain({.handshakes = 1ms, .door_closed = [&] { is_first_closed.release(); }});
  });
  is_first_closed.acquire();
  EXPECT_EQ(filter_of(keeper.get()), kRefusesSyns);
  go_on.release();
  EXPECT_EQ(cut.get(), 0U);
  EXPECT_EQ(filter_of(keeper.get()), 0U);
  EXPECT_TRUE(is_reachable(keeper.get()));
}

// ---- Hand-over

/// A predecessor with two listeners of a group, which offers them.
class AHandOver : public testing::Test {
 protected:
  AHandOver() {
    group.emplace_back(kLoopback, kInGroup);
    group.emplace_back(group.front().endpoint(), kInGroup);
    offer.emplace(reactor, name,
                  HandoverHandlers{.listeners =
                                       [this] {
                                         std::vector<OfferedListener> all;
                                         for (const Listener& one : group) all.push_back({"web", one.fd()});
                                         return all;
                                       },
                                   .handed_over = [] {}});
  }

  template <class Work>
  auto while_turning(Work work) {
    auto result = std::async(std::launch::async, std::move(work));
    EXPECT_TRUE(turn_until(reactor, [&] { return result.wait_for(0s) == std::future_status::ready; }));
    return result.get();
  }

  const std::string name = "@anteroom-shared-listener-test-" + std::to_string(::getpid());
  Reactor reactor;
  std::vector<Listener> group;
  std::optional<HandoverOffer> offer;
};

TEST_F(AHandOver, GivesListenersThatAreShared) {
  const auto handover = while_turning([this] { return Handover::take(name); });
  ASSERT_TRUE(handover);
  for (const NamedListener& each : handover->listeners) EXPECT_TRUE(each.listener.is_shared());
}

TEST_F(AHandOver, TakesOffWhatAPredecessorOfThePredecessorLeft) {
  ASSERT_TRUE(steer_group(group[0].fd(), 1, 1));
  ASSERT_TRUE(refuse_syns(group[1].fd()));
  ASSERT_TRUE(while_turning([this] { return Handover::take(name); }));
  expect_shared_evenly(group);
}

TEST_F(AHandOver, LeavesTheSocketsAsTheyWereHoweverFewDescriptorsThereAre) {
  for (int room = 0; room < 8; ++room) {
    {
      // Of both sides: the caller's socket, the one that is accepted, and three that are passed.
      const DescriptorLimit limit(room);
      (void)while_turning([this] {
        try {
          const auto handover = Handover::take(name, 50ms);
          return handover.has_value();
        } catch (const std::system_error&) {
          return false;
        }
      });
    }
    for (const Listener& listener : group) EXPECT_EQ(filter_of(listener.fd()), 0U);
    EXPECT_FALSE(was_steered(group.front().fd()));
    EXPECT_TRUE(turn_until(reactor, [&] { return !offer->is_taken(); })) << room;
  }
  EXPECT_TRUE(while_turning([this] { return Handover::take(name); })) << "and it can be succeeded";
  expect_shared_evenly(group);
}

}  // namespace
}  // namespace anteroom
