#include <anteroom/reactor_pool.h>
#include <anteroom/reuseport_group.h>
#include <anteroom/signals.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <numeric>
#include <optional>
#include <semaphore>
#include <set>
#include <string>
#include <system_error>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "support/descriptors.h"
#include "support/own_network.h"
#include "support/peer.h"
#include "support/sanitized.h"
#include "support/turns.h"

namespace anteroom {
namespace {

using namespace std::chrono_literals;
using namespace test;

using States = std::vector<ReactorPool::ThreadState>;

/// The same for each thread.
ReactorPool::MakeHandlers each(const ConnectionHandlers& handlers) {
  return [handlers](Reactor&, int) { return handlers; };
}

ReactorPool::MakeHandlers hello() {
  return each({.open = [](Connection& guest) {
    guest.send("Hello World!");
    guest.close();
  }});
}

ReactorPool::MakeHandlers echo() {
  return each({.data = [](Connection& guest, std::string_view bytes) { guest.send(bytes); }});
}

ReactorPoolOptions of(Sharing sharing, int threads = 2) { return {.threads = threads, .sharing = sharing}; }

void expect_greetings(std::vector<Peer>& peers) {
  for (Peer& peer : peers) {
    EXPECT_EQ(peer.receive_all(), "Hello World!");
    EXPECT_EQ(peer.error(), 0);
  }
}

void expect_echo(Peer& peer, std::string_view text) {
  const std::size_t had = peer.received().size();
  ASSERT_TRUE(peer.send(text));
  while (peer.received().size() < had + text.size()) {
    ASSERT_TRUE(await_events(peer.fd(), POLLIN));
    ASSERT_FALSE(peer.drain()) << "it has ended";
  }
  EXPECT_EQ(peer.received().substr(had), text);
}

template <class Value>
auto sum(const States& states, Value value) {
  using Number = std::decay_t<decltype(value(states.front()))>;
  return std::accumulate(states.begin(), states.end(), Number{},
                         [&](Number so_far, const auto& state) { return so_far + value(state); });
}

std::size_t open_in(const States& states) {
  return sum(states, [](const auto& state) { return state.open_connections; });
}

std::uint64_t accepted_in(const States& states) {
  return sum(states, [](const auto& state) { return state.acceptor.accepted; });
}

/// Asks the pool until it is so.
template <class Predicate>
bool becomes(const ReactorPool& pool, Predicate is_so) {
  const auto end = Reactor::Clock::now() + kPatience;
  while (!is_so(pool.state())) {
    if (Reactor::Clock::now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

std::size_t threads_of_this_process() {
  const std::filesystem::directory_iterator tasks("/proc/self/task");
  return static_cast<std::size_t>(std::distance(begin(tasks), end(tasks)));
}

/// Keeps a thread of the pool busy until it is let go.
class Occupation {
 public:
  explicit Occupation(Reactor& reactor) {
    reactor.post([this] {
      began_.release();
      let_go_.acquire();
      ended_.release();
    });
    began_.acquire();
  }
  ~Occupation() {
    let_go_.release();
    ended_.acquire();
  }
  Occupation(const Occupation&) = delete;
  Occupation& operator=(const Occupation&) = delete;

 private:
  std::binary_semaphore began_{0};
  std::binary_semaphore let_go_{0};
  std::binary_semaphore ended_{0};
};

class ReactorPoolSharing : public testing::TestWithParam<Sharing> {};
INSTANTIATE_TEST_SUITE_P(Each, ReactorPoolSharing,
                         testing::Values(Sharing::kReusePort, Sharing::kExclusive, Sharing::kDealt),
                         [](const auto& instance) {
                           return std::string(instance.param == Sharing::kReusePort   ? "ReusePort"
                                              : instance.param == Sharing::kExclusive ? "Exclusive"
                                                                                      : "Dealt");
                         });

// ---- Serving

TEST_P(ReactorPoolSharing, GreetsWhoeverComes) {
  ReactorPool pool(kLoopback, hello(), of(GetParam(), 3));
  EXPECT_EQ(pool.threads(), 3);
  pool.start();
  std::vector<Peer> peers = connect_peers(pool.endpoint(), 60);
  expect_greetings(peers);
  const States states = pool.state();
  ASSERT_EQ(states.size(), 3U);
  EXPECT_EQ(accepted_in(states), 60U);
  EXPECT_EQ(sum(states, [](const auto& state) { return state.loop.connections_opened; }), 60U);
}

TEST_P(ReactorPoolSharing, CallsTheHandlersOfAThreadInThatThread) {
  std::vector<std::set<std::thread::id>> callers(3);
  const auto make = [&](Reactor&, int thread) {
    std::set<std::thread::id>& mine = callers[static_cast<std::size_t>(thread)];
    const auto note = [&mine] { mine.insert(std::this_thread::get_id()); };
    return ConnectionHandlers{.open = [note](Connection&) { note(); },
                              .data =
                                  [note](Connection& guest, std::string_view bytes) {
                                    note();
                                    guest.send(bytes);
                                    guest.close();
                                  },
                              .closed = [note](Connection&, std::error_code) { note(); }};
  };
  {
    ReactorPool pool(kLoopback, make, of(GetParam(), 3));
    pool.start();
    for (int round = 0; round < 5; ++round) {
      std::vector<Peer> peers = connect_peers(pool.endpoint(), 16);
      for (Peer& peer : peers) ASSERT_TRUE(peer.send("hello"));
      for (Peer& peer : peers) peer.finish();
      for (Peer& peer : peers) EXPECT_EQ(peer.receive_all(), "hello");
    }
    pool.drain({.handshakes = 5ms});
  }
  std::set<std::thread::id> all;
  for (const auto& ids : callers) {
    EXPECT_LE(ids.size(), 1U) << "the handlers of one thread were called in several";
    for (const std::thread::id id : ids) EXPECT_TRUE(all.insert(id).second) << "two had the same thread";
  }
  EXPECT_FALSE(all.contains(std::this_thread::get_id()));
  EXPECT_FALSE(all.empty());
}

TEST_P(ReactorPoolSharing, ListensAtOnceButLetsNobodyInBeforeItsStart) {
  ReactorPool pool(kLoopback, hello(), of(GetParam()));
  std::vector<Peer> peers = connect_peers(pool.endpoint(), 20);
  const States before = pool.state();
  EXPECT_EQ(accepted_in(before), 0U);
  EXPECT_EQ(sum(before, [](const auto& state) { return state.queue ? state.queue->depth : 0U; }), 20U);
  for (Peer& peer : peers) EXPECT_FALSE(peer.drain());
  pool.start();
  expect_greetings(peers);
}

TEST_P(ReactorPoolSharing, TellsItsState) {
  ReactorPool pool(kLoopback, echo(), of(GetParam()));
  pool.start();
  std::vector<Peer> peers = connect_peers(pool.endpoint(), 10);
  for (Peer& peer : peers) expect_echo(peer, "12345");
  const States states = pool.state();
  EXPECT_EQ(open_in(states), 10U);
  EXPECT_EQ(sum(states, [](const auto& state) { return state.loop.connections_open; }), 10U);
  EXPECT_EQ(sum(states, [](const auto& state) { return state.loop.received_bytes; }), 50U);
  EXPECT_EQ(sum(states, [](const auto& state) { return state.loop.sent_bytes; }), 50U);
  EXPECT_EQ(std::ranges::count_if(states, [](const auto& state) { return state.queue.has_value(); }),
            GetParam() == Sharing::kReusePort ? 2 : 1)
      << "each queue is told once";
  EXPECT_EQ(pool.listeners().size(), GetParam() == Sharing::kReusePort ? 2U : 1U);
  peers.clear();
  EXPECT_TRUE(becomes(pool, [](const States& now) { return open_in(now) == 0; }));
}

TEST(ReactorPool, HasAsManyThreadsAsTheProcessorsItMayUse) {
  cpu_set_t allowed;
  ASSERT_EQ(::sched_getaffinity(0, sizeof(allowed), &allowed), 0);
  for (const Sharing sharing : {Sharing::kReusePort, Sharing::kDealt}) {
    const ReactorPool pool(kLoopback, hello(), of(sharing, 0));
    EXPECT_EQ(pool.threads(), CPU_COUNT(&allowed));
  }
}

TEST(ReactorPool, OfOneThreadServes) {
  for (const Sharing sharing : {Sharing::kReusePort, Sharing::kExclusive, Sharing::kDealt}) {
    ReactorPool pool(kLoopback, hello(), of(sharing, 1));
    pool.start();
    std::vector<Peer> peers = connect_peers(pool.endpoint(), 5);
    expect_greetings(peers);
    EXPECT_EQ(pool.drain({.handshakes = 5ms}), 0U);
  }
}

TEST(ReactorPool, OnAUnixSocketSharesOneListener) {
  ReactorPool pool(Endpoint::unix_path("@anteroom-reactor-pool-test"), hello(), of(Sharing::kReusePort));
  pool.start();
  EXPECT_EQ(pool.listeners().size(), 1U);
  std::vector<Peer> peers = connect_peers(pool.endpoint(), 30);
  expect_greetings(peers);
  EXPECT_EQ(pool.drain({.handshakes = 0ms}), 0U);
}

TEST(ReactorPool, PinsEachThreadToAProcessor) {
  ReactorPool pool(kLoopback, hello(), {.threads = 2, .pin_threads = true});
  pool.start();
  std::set<int> processors;
  for (int thread = 0; thread < 2; ++thread) {
    cpu_set_t mine;
    CPU_ZERO(&mine);
    std::binary_semaphore asked(0);
    pool.reactor(thread).post([&] {
      (void)::sched_getaffinity(0, sizeof(mine), &mine);
      asked.release();
    });
    asked.acquire();
    EXPECT_EQ(CPU_COUNT(&mine), 1);
    for (int i = 0; i < CPU_SETSIZE; ++i) {
      if (CPU_ISSET(i, &mine)) processors.insert(i);
    }
  }
  cpu_set_t allowed;
  ASSERT_EQ(::sched_getaffinity(0, sizeof(allowed), &allowed), 0);
  EXPECT_EQ(processors.size(), std::min<std::size_t>(2, static_cast<std::size_t>(CPU_COUNT(&allowed))));
}

TEST(ReactorPool, LeavesSignalsToWhoeverWantsThem) {
  ReactorPool pool(kLoopback, hello());
  Reactor reactor;
  int told = 0;
  const Signals signals(reactor, {SIGUSR1}, [&](int) { ++told; });
  pool.start();
  ASSERT_EQ(::kill(::getpid(), SIGUSR1), 0);
  EXPECT_TRUE(turn_until(reactor, [&] { return told == 1; }));
}

TEST(ReactorPool, LeavesAProgramThatAHandlerStartsItsSignals) {
  ReactorPool pool(kLoopback, hello());
  pool.start();
  sigset_t mask;
  ::sigfillset(&mask);
  std::binary_semaphore asked(0);
  pool.reactor(0).post([&] {
    (void)::pthread_sigmask(SIG_BLOCK, nullptr, &mask);
    asked.release();
  });
  asked.acquire();
  EXPECT_EQ(::sigismember(&mask, SIGTERM), 0) << "what the thread has blocked, the program would have, too";
}

TEST(ReactorPool, GoesOnWhenSomebodyStopsAReactorOfIts) {
  ReactorPool pool(kLoopback, hello());
  pool.start();
  for (int i = 0; i < 20; ++i) pool.reactor(i % pool.threads()).stop();
  std::vector<Peer> peers = connect_peers(pool.endpoint(), 20);
  expect_greetings(peers);
  EXPECT_EQ(pool.drain({.handshakes = 5ms}), 0U);
}

// ---- Shares

/// How many of `count` short connections, 64 of them at a time, each thread has had.
std::vector<double> shares_of_short_connections(Sharing sharing, int count) {
  ReactorPool pool(kLoopback, hello(), of(sharing));
  pool.start();
  for (int done = 0; done < count; done += 64) {
    std::vector<Peer> peers = connect_peers(pool.endpoint(), std::min(64, count - done));
    expect_greetings(peers);
  }
  std::vector<double> shares;
  for (const auto& state : pool.state())
    shares.push_back(static_cast<double>(state.loop.connections_opened) / count);
  return shares;
}

// The kernel's hash throws a coin for each: of 4,000 each of two gets 2,000 ± 31.6, and 10 % are 6.3 of
// these.
TEST(ReactorPool, WithReusePortSharesShortConnectionsWithinATenthOfEven) {
  for (const double share : shares_of_short_connections(Sharing::kReusePort, 4000))
    EXPECT_NEAR(share, 0.5, 0.05);
}

TEST(ReactorPool, DealsShortConnectionsEvenly) {
  for (const double share : shares_of_short_connections(Sharing::kDealt, 1000)) EXPECT_NEAR(share, 0.5, 0.05);
}

TEST(ReactorPool, DealsConnectionsThatLastEvenToTheLastOne) {
  ReactorPool pool(kLoopback, echo(), of(Sharing::kDealt, 3));
  pool.start();
  std::vector<Peer> peers = connect_peers(pool.endpoint(), 100);
  for (Peer& peer : peers) expect_echo(peer, "here");
  const States states = pool.state();
  EXPECT_EQ(states[0].open_connections, 34U);
  EXPECT_EQ(states[1].open_connections, 33U);
  EXPECT_EQ(states[2].open_connections, 33U);
}

// Each second one leaves again: strictly in turn, all who stay would be one thread's.
TEST(ReactorPool, DealsRoundAThreadInWhichThoseWhoStayGather) {
  ReactorPool pool(kLoopback, echo(), of(Sharing::kDealt));
  pool.start();
  std::vector<Peer> staying;
  for (int i = 0; i < 150; ++i) {
    staying.emplace_back(pool.endpoint());
    expect_echo(staying.back(), "I stay");
    Peer leaving(pool.endpoint());
    expect_echo(leaving, "I do not");
    leaving.finish();
    leaving.receive_all();
  }
  ASSERT_TRUE(becomes(pool, [](const States& states) { return open_in(states) == 150; }));
  const States states = pool.state();
  EXPECT_GE(states[0].open_connections, 35U);  // more than 64 and an eighth ahead nobody gets
  EXPECT_GE(states[1].open_connections, 35U);
}

TEST(ReactorPool, DealtACrowdLetsItInByItsBudget) {
  constexpr int kBudget = 5;
  constexpr int kCrowd = 40;
  std::array<std::atomic<int>, 2> opened{};
  ReactorPoolOptions options = of(Sharing::kDealt);
  options.acceptor.accepts_per_turn_max = kBudget;
  ReactorPool pool(
      kLoopback,
      [&](Reactor&, int thread) {
        return ConnectionHandlers{
            .open = [&mine = opened[static_cast<std::size_t>(thread)]](Connection&) { ++mine; }};
      },
      options);
  pool.start();
  std::vector<int> after_each_turn;
  std::function<void()> note = [&] {  // posted from the turn, it runs in the next
    after_each_turn.push_back(opened[1]);
    if (opened[1] < kCrowd / 2) pool.reactor(1).post(note);
  };
  std::vector<Peer> peers;
  {
    const Occupation occupation(pool.reactor(1));
    peers = connect_peers(pool.endpoint(), kCrowd);
    while (opened[0] < kCrowd / 2) std::this_thread::yield();
    pool.reactor(1).post(note);
  }
  ASSERT_TRUE(becomes(pool, [](const States& states) { return open_in(states) == kCrowd; }));
  pool.drain({.deadline = 0ms, .handshakes = 0ms});
  ASSERT_FALSE(after_each_turn.empty());
  int before = 0;
  for (const int now : after_each_turn) EXPECT_LE(now - std::exchange(before, now), kBudget);
}

TEST(ReactorPool, WithOneListenerLetsNobodyWaitBehindABusyThread) {
  ReactorPool pool(kLoopback, hello(), of(Sharing::kExclusive));
  pool.start();
  for (int busy = 0; busy < 2; ++busy) {
    const Occupation occupation(pool.reactor(busy));
    std::vector<Peer> peers = connect_peers(pool.endpoint(), 20);
    expect_greetings(peers);
  }
}

/// How many times this process watches a descriptor with EPOLLEXCLUSIVE (proc(5), fdinfo).
int exclusive_watches() {
  int count = 0;
  for (const auto& file : std::filesystem::directory_iterator("/proc/self/fdinfo")) {
    std::ifstream info(file.path());
    for (std::string word; info >> word;) {
      std::uint32_t events = 0;
      if (word == "events:" && info >> std::hex >> events) count += (events & EPOLLEXCLUSIVE) != 0 ? 1 : 0;
    }
  }
  return count;
}

TEST(ReactorPool, WithOneListenerWakesOneThreadForAGuest) {
  for (const auto& [sharing, threads, watches] :
       {std::tuple(Sharing::kExclusive, 3, 3), std::tuple(Sharing::kExclusive, 1, 0),
        std::tuple(Sharing::kReusePort, 3, 0), std::tuple(Sharing::kDealt, 3, 0)}) {
    const ReactorPool pool(kLoopback, hello(), of(sharing, threads));
    EXPECT_EQ(exclusive_watches(), watches);
  }
}

/// Of `count` who come one after the other, how many that thread gets that gets the fewest.
std::uint64_t fewest_of(const ReactorPool& pool, int count) {
  const States before = pool.state();
  for (int i = 0; i < count; ++i) EXPECT_EQ(Peer(pool.endpoint()).receive_all(), "Hello World!");
  const States after = pool.state();
  std::uint64_t fewest = static_cast<std::uint64_t>(count);
  for (std::size_t i = 0; i < after.size(); ++i)
    fewest = std::min(fewest, after[i].acceptor.accepted - before[i].acceptor.accepted);
  return fewest;
}

// Left alone, the kernel wakes the first of the idle for each of them: measured, 99 % were one thread's. On a
// machine that has other work a thread may not be idle yet when its turn comes: then they come once more.
TEST(ReactorPool, WithOneListenerIdleThreadsTakeTurns) {
  constexpr int kGuests = 320;
  for (const Endpoint& endpoint : {kLoopback, Endpoint::unix_path("@anteroom-reactor-pool-test")}) {
    ReactorPool pool(endpoint, hello(), of(Sharing::kExclusive));
    pool.start();
    std::uint64_t fewest = 0;
    for (int round = 0; round < 10 && fewest < kGuests / 4; ++round) fewest = fewest_of(pool, kGuests);
    EXPECT_GE(fewest, kGuests / 4U) << endpoint.to_string();
  }
}

TEST(ReactorPool, BindsItsListenersInTheOrderOfItsThreads) {
  ReactorPool pool(kLoopback, hello(), of(Sharing::kReusePort, 3));
  pool.start();
  for (std::uint32_t thread = 0; thread < 3; ++thread) {
    ASSERT_TRUE(steer_group(pool.listeners().front(), thread, 1));
    const std::uint64_t before = pool.state()[thread].acceptor.accepted;
    std::vector<Peer> peers = connect_peers(pool.endpoint(), 10);
    expect_greetings(peers);
    EXPECT_EQ(pool.state()[thread].acceptor.accepted, before + 10);
  }
}

// ---- Limits

TEST(ReactorPool, DealtOutHasOneAdmissionForAll) {
  ReactorPoolOptions options = of(Sharing::kDealt);
  options.acceptor.admission.connections_max = 3;
  ReactorPool pool(kLoopback, echo(), options);
  pool.start();
  std::vector<Peer> inside = connect_peers(pool.endpoint(), 3);
  for (Peer& peer : inside) expect_echo(peer, "we are three");
  Peer fourth(pool.endpoint());
  EXPECT_EQ(fourth.receive_all(), "");
  for (Peer& peer : inside) {  // whichever thread had it, its place is free again
    peer.finish();
    peer.receive_all();
    ASSERT_TRUE(becomes(pool, [](const States& states) { return open_in(states) == 2; }));
    // Its ticket may still be on its way to the door.
    for (bool is_in = false; !is_in;) {
      Peer next(pool.endpoint());
      is_in = next.send("in?") && (await_events(next.fd(), POLLIN), !next.drain());
      if (is_in) peer = std::move(next);
    }
  }
  EXPECT_GE(pool.state()[0].acceptor.refused, 1U);
}

// ---- Start and end

TEST_P(ReactorPoolSharing, MayEndWithoutHavingBegun) {
  const int before = open_descriptors();
  { const ReactorPool pool(kLoopback, hello(), of(GetParam())); }
  {
    ReactorPool pool(kLoopback, hello(), of(GetParam()));
    EXPECT_EQ(pool.drain({.handshakes = 5ms}), 0U);
    EXPECT_EQ(pool.state().size(), 2U);
  }
  EXPECT_EQ(open_descriptors(), before);
}

TEST_P(ReactorPoolSharing, BeginsAndEndsAtAnyMoment) {
  const int before = open_descriptors();
  for (int cycle = 0; cycle < 100; ++cycle) {
    std::vector<Peer> peers;
    ReactorPool pool(kLoopback, hello(), of(GetParam(), 1 + cycle % 3));
    if (cycle % 2 == 0) peers = connect_peers(pool.endpoint(), 3);
    pool.start();
    if (cycle % 3 == 0) pool.reactor(0).post([&pool] { pool.reactor(pool.threads() - 1).post([] {}); });
    if (cycle % 5 == 0) peers.emplace_back(pool.endpoint());
    if (cycle % 7 == 0) (void)pool.state();
    if (cycle % 11 == 0) pool.drain({.deadline = 50ms, .handshakes = 0ms});
  }
  EXPECT_EQ(open_descriptors(), before);
}

TEST_P(ReactorPoolSharing, ClosesWhatIsOpenWhenItIsDestroyed) {
  std::optional<ReactorPool> pool(std::in_place, kLoopback, echo(), of(GetParam()));
  pool->start();
  std::vector<Peer> peers = connect_peers(pool->endpoint(), 10);
  for (Peer& peer : peers) expect_echo(peer, "here");
  pool.reset();
  for (Peer& peer : peers) {
    peer.receive_all();
    EXPECT_TRUE(peer.is_over());
  }
}

/// As long as it lives, this process has memory for the stacks of two more threads.
class ScarceMemory {
 public:
  ScarceMemory() {
    ::pthread_getattr_default_np(&attributes_before_);
    pthread_attr_t attributes;
    ::pthread_attr_init(&attributes);
    ::pthread_attr_setstacksize(&attributes, kStackBytes);
    ::pthread_setattr_default_np(&attributes);
    ::pthread_attr_destroy(&attributes);
    ::getrlimit(RLIMIT_AS, &before_);
    rlimit limit = before_;
    limit.rlim_cur = address_space_bytes() + 2 * kStackBytes + kStackBytes / 2;
    ::setrlimit(RLIMIT_AS, &limit);
  }
  ~ScarceMemory() {
    ::setrlimit(RLIMIT_AS, &before_);
    ::pthread_setattr_default_np(&attributes_before_);
    ::pthread_attr_destroy(&attributes_before_);
  }
  ScarceMemory(const ScarceMemory&) = delete;
  ScarceMemory& operator=(const ScarceMemory&) = delete;

 private:
  static constexpr std::size_t kStackBytes = std::size_t{64} << 20;

  static std::size_t address_space_bytes() {
    std::size_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    return pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  }

  rlimit before_{};
  pthread_attr_t attributes_before_;
};

TEST_P(ReactorPoolSharing, HasNotBegunWhenAThreadCannotBeMade) {
  if (kIsSanitized) GTEST_SKIP() << "the sanitizers have the address space for themselves";
  ReactorPool pool(kLoopback, hello(), of(GetParam(), 4));
  std::vector<Peer> peers = connect_peers(pool.endpoint(), 10);
  const std::size_t threads = threads_of_this_process();
  {
    const ScarceMemory memory;
    EXPECT_THROW(pool.start(), std::system_error);
  }
  EXPECT_TRUE(becomes(pool, [&](const States&) { return threads_of_this_process() <= threads; }))
      << "the kernel lists a thread a little longer than pthread_join(3) waits";
  EXPECT_EQ(accepted_in(pool.state()), 0U);
  pool.start();
  expect_greetings(peers);
}

// ---- Leaving

TEST_P(ReactorPoolSharing, DrainsWithoutLosingAnybody) {
  std::atomic<int> told{0};
  ReactorPool pool(kLoopback,
                   each({.data = [](Connection& guest, std::string_view bytes) { guest.send(bytes); },
                         .draining =
                             [&told](Connection& guest) {
                               ++told;
                               guest.send("goodbye");
                               guest.close();
                             }}),
                   of(GetParam()));
  std::vector<Peer> peers = connect_peers(pool.endpoint(), 20);
  pool.start();
  for (Peer& peer : peers) expect_echo(peer, "here");
  {
    const Occupation first(pool.reactor(0));
    const Occupation second(pool.reactor(1));
    for (int i = 0; i < 20; ++i) peers.emplace_back(pool.endpoint());  // they wait in the queue
  }
  std::thread clients([&] {
    for (Peer& peer : peers) {
      peer.receive_all();
      peer.finish();  // else each would be waited for until its linger is over
    }
  });
  EXPECT_EQ(pool.drain({.handshakes = 10ms}), 0U);
  clients.join();
  for (std::size_t i = 0; i < peers.size(); ++i) {
    EXPECT_EQ(peers[i].error(), 0);
    EXPECT_EQ(peers[i].received(), i < 20 ? "heregoodbye" : "goodbye");
  }
  EXPECT_EQ(told, 40);
  EXPECT_EQ(pool.drain(), 0U) << "twice is once";
  const States states = pool.state();
  EXPECT_EQ(accepted_in(states), 40U);
  EXPECT_EQ(open_in(states), 0U);
  for (const auto& state : states) EXPECT_FALSE(state.queue);
  EXPECT_TRUE(pool.listeners().empty());
  EXPECT_THROW(Peer(pool.endpoint()), std::system_error) << "the door is closed";
}

TEST_P(ReactorPoolSharing, CutsWhoIsStillThereAtTheDeadline) {
  ReactorPool pool(kLoopback, echo(), of(GetParam()));
  pool.start();
  std::vector<Peer> peers = connect_peers(pool.endpoint(), 12);
  for (Peer& peer : peers) expect_echo(peer, "I do not go");
  std::thread clients([&] {
    for (Peer& peer : peers) {
      peer.receive_all();
      peer.finish();  // else each would be waited for until its linger is over
    }
  });
  EXPECT_EQ(pool.drain({.deadline = 100ms, .handshakes = 10ms}), 12U);
  clients.join();
}

TEST_P(ReactorPoolSharing, DrainsAsLongAsItTakesIfItMay) {
  ReactorPool pool(kLoopback,
                   each({.data = [](Connection& guest, std::string_view bytes) { guest.send(bytes); },
                         .draining = [](Connection& guest) { guest.close(); }}),
                   of(GetParam()));
  pool.start();
  std::vector<Peer> peers = connect_peers(pool.endpoint(), 4);
  for (Peer& peer : peers) expect_echo(peer, "here");
  std::thread clients([&] {
    for (Peer& peer : peers) {
      peer.receive_all();
      peer.finish();
    }
  });
  EXPECT_EQ(pool.drain({.deadline = std::chrono::milliseconds::max(), .handshakes = 5ms}), 0U);
  clients.join();
}

// The first thread, which accepts, comes to the drain when the second is through with its own.
TEST(ReactorPool, CountsWhomTheOthersCutBeforeTheFirstThreadCame) {
  std::atomic<int> closed{0};
  ReactorPool pool(kLoopback,
                   each({.data = [](Connection& guest, std::string_view bytes) { guest.send(bytes); },
                         .closed = [&closed](Connection&, std::error_code) { ++closed; }}),
                   of(Sharing::kDealt));
  pool.start();
  std::vector<Peer> peers = connect_peers(pool.endpoint(), 12);
  for (Peer& peer : peers) expect_echo(peer, "I do not go");
  std::optional<Occupation> occupation(std::in_place, pool.reactor(0));
  std::thread clients([&] {
    const auto end = Reactor::Clock::now() + kPatience;
    for (bool all_over = false; !all_over && Reactor::Clock::now() < end; std::this_thread::yield()) {
      all_over = true;
      for (Peer& peer : peers) peer.drain() ? peer.finish() : void(all_over = false);
      if (closed == 6) occupation.reset();
    }
    occupation.reset();
  });
  EXPECT_EQ(pool.drain({.deadline = 50ms, .handshakes = 0ms}), 12U);
  clients.join();
}

TEST_P(ReactorPoolSharing, HandsItsListenersOverWithWhoWaits) {
  std::optional<ReactorPool> old(std::in_place, kLoopback, hello(), of(GetParam()));
  old->start();
  std::vector<Listener> listeners;
  for (const int fd : old->listeners()) listeners.emplace_back(Fd(::fcntl(fd, F_DUPFD_CLOEXEC, 0)));
  ReactorPool successor(std::move(listeners), hello(), of(GetParam()));
  EXPECT_EQ(successor.endpoint(), old->endpoint());
  EXPECT_EQ(old->drain({.handed_over = true}), 0U);
  old.reset();
  std::vector<Peer> peers = connect_peers(successor.endpoint(), 50);
  successor.start();
  expect_greetings(peers);
  EXPECT_EQ(accepted_in(successor.state()), 50U);
}

// ---- What cannot be

/// The error of what `call` throws in a thread of the pool; none if it throws nothing.
std::error_code error_in_thread_of(ReactorPool& pool, const std::function<void()>& call) {
  std::error_code why;
  std::binary_semaphore is_done(0);
  pool.reactor(0).post([&] {
    try {
      call();
    } catch (const std::system_error& error) {
      why = error.code();
    }
    is_done.release();
  });
  is_done.acquire();
  return why;
}

// In release builds each waited for itself, for ever and in silence.
TEST_P(ReactorPoolSharing, TellsItsOwnThreadsThatTheyCannotWaitForThemselves) {
  ReactorPool pool(kLoopback, hello(), of(GetParam()));
  pool.start();
  EXPECT_EQ(error_in_thread_of(pool, [&] { (void)pool.state(); }), std::errc::resource_deadlock_would_occur);
  EXPECT_EQ(error_in_thread_of(pool, [&] { (void)pool.drain(); }), std::errc::resource_deadlock_would_occur);
  std::vector<Peer> peers = connect_peers(pool.endpoint(), 5);
  expect_greetings(peers);  // nothing has begun
  EXPECT_EQ(accepted_in(pool.state()), 5U);
  EXPECT_EQ(pool.drain({.handshakes = 5ms}), 0U);
}

TEST_P(ReactorPoolSharing, IsStartedOnce) {
  ReactorPool pool(kLoopback, hello(), of(GetParam()));
  pool.start();
  EXPECT_THROW(pool.start(), std::system_error);
  std::vector<Peer> peers = connect_peers(pool.endpoint(), 5);
  expect_greetings(peers);
  pool.drain({.handshakes = 0ms});
  EXPECT_THROW(pool.start(), std::system_error) << "it has no door any more";
}

TEST_P(ReactorPoolSharing, RefusesWhatCannotBe) {
  const auto error_of = [](auto&& call) -> std::error_code {
    try {
      call();
      return {};
    } catch (const std::system_error& error) {
      return error.code();
    }
  };
  EXPECT_EQ(error_of([] { ReactorPool(kLoopback, nullptr, of(GetParam())); }), std::errc::invalid_argument);
  EXPECT_EQ(error_of([] { ReactorPool(kLoopback, hello(), of(GetParam(), -1)); }),
            std::errc::invalid_argument);
  std::vector<Listener> one;
  one.emplace_back(kLoopback);
  (void)one.front().release();
  EXPECT_EQ(error_of([&] { ReactorPool(std::move(one), hello(), of(GetParam(), 1)); }),
            std::errc::invalid_argument);
  ReactorPool pool(kLoopback, hello(), of(GetParam()));
  pool.start();
  EXPECT_EQ(error_of([&] { pool.drain({.deadline = -1ms}); }), std::errc::invalid_argument);
  EXPECT_EQ(error_of([&] { pool.drain({.handshakes = -1ms}); }), std::errc::invalid_argument);
  std::vector<Peer> peers = connect_peers(pool.endpoint(), 5);
  expect_greetings(peers);  // it has not begun to drain
}

TEST(ReactorPool, TakesOverNoOtherNumberOfListenersThanItNeeds) {
  const auto listen = [](int count) {
    std::vector<Listener> listeners;
    for (int i = 0; i < count; ++i) listeners.emplace_back(kLoopback);
    return listeners;
  };
  for (const Sharing sharing : {Sharing::kReusePort, Sharing::kExclusive, Sharing::kDealt})
    EXPECT_THROW(ReactorPool(listen(0), hello(), of(sharing)), std::system_error);
  for (const Sharing sharing : {Sharing::kExclusive, Sharing::kDealt})
    EXPECT_THROW(ReactorPool(listen(2), hello(), of(sharing)), std::system_error);
  EXPECT_EQ(ReactorPool(listen(3), hello(), of(Sharing::kReusePort)).threads(), 3);
}

}  // namespace
}  // namespace anteroom
