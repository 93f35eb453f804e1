#include <anteroom/reactor.h>
#include <anteroom/timer.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <semaphore>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "support/descriptors.h"
#include "support/thrown.h"
#include "support/turns.h"

namespace anteroom {
namespace {

using namespace std::chrono_literals;
using namespace test;
using Clock = Reactor::Clock;

/// A channel on an eventfd, which writes down what it is told.
class Bell final : public Channel {
 public:
  explicit Bell(Reactor& reactor, std::function<void(Bell&, std::uint32_t)> handler = {})
      : Bell(reactor, Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)), std::move(handler)) {}
  Bell(Reactor& reactor, Fd fd, std::function<void(Bell&, std::uint32_t)> handler)
      : Channel(reactor, std::move(fd)), handler_(std::move(handler)) {}
  ~Bell() override {
    if (on_end) on_end();
  }

  void ring() const {
    const std::uint64_t one = 1;
    ASSERT_EQ(::write(fd(), &one, sizeof(one)), static_cast<ssize_t>(sizeof(one)));
  }
  using Channel::is_retired;
  using Channel::is_watched;

  std::vector<std::uint32_t> events;
  std::function<void()> on_end;

 private:
  void on_ready(std::uint32_t what) noexcept override {
    events.push_back(what);
    if (handler_) handler_(*this, what);
  }
  std::function<void(Bell&, std::uint32_t)> handler_;
};

struct OtherChannel final : Channel {
  using Channel::Channel;
  void on_ready(std::uint32_t /*events*/) noexcept override {}
};

Bell& hang(Reactor& reactor, std::function<void(Bell&, std::uint32_t)> handler = {}) {
  Bell& bell = reactor.adopt(std::make_unique<Bell>(reactor, std::move(handler)));
  EXPECT_FALSE(reactor.watch(bell));
  return bell;
}

// ---- Turns

TEST(Reactor, WaitsNoLongerThanItIsTold) {
  Reactor reactor;
  auto begin = Clock::now();
  reactor.turn(0ms);
  EXPECT_LT(Clock::now() - begin, 5s);
  begin = Clock::now();
  reactor.turn(20ms);
  EXPECT_GE(Clock::now() - begin, 20ms);
  begin = Clock::now();
  reactor.turn(300us);
  EXPECT_GE(Clock::now() - begin, 300us);
}

TEST(Reactor, UsesNoTimeWhileNothingHappens) {
  Reactor reactor;
  hang(reactor);
  turn_times(reactor, 2);
  timespec before{};
  timespec after{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
  reactor.turn(50ms);
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
  EXPECT_LT((after.tv_sec - before.tv_sec) * 1'000'000'000 + after.tv_nsec - before.tv_nsec, 10'000'000);
}

TEST(Reactor, KnowsWhenItsTurnBegan) {
  Reactor reactor;
  const auto before = Clock::now();
  reactor.turn(2ms);
  EXPECT_GE(reactor.now(), before + 2ms);
  EXPECT_LE(reactor.now(), Clock::now());
}

TEST(Reactor, IsNotDisturbedByASignal) {
  struct sigaction action {};
  struct sigaction before {};
  action.sa_handler = [](int) {};  // no SA_RESTART: epoll_wait says EINTR, as it does anyway
  ::sigaction(SIGUSR1, &action, &before);
  Reactor reactor;
  const pthread_t self = ::pthread_self();
  std::atomic<bool> done{false};
  std::thread other([&] {
    while (!done.load()) {
      ::pthread_kill(self, SIGUSR1);
      std::this_thread::yield();
    }
  });
  for (int i = 0; i < 100; ++i) EXPECT_NO_THROW(reactor.turn(1ms));
  done.store(true);
  other.join();
  ::sigaction(SIGUSR1, &before, nullptr);
}

TEST(Reactor, WithoutADescriptorSaysSo) {
  const int before = open_descriptors();
  for (int room = 0; room < 2; ++room) {
    DescriptorLimit limit(room);
    std::string what;
    std::error_code why;
    try {
      const Reactor reactor;
    } catch (const std::system_error& error) {
      why = error.code();
      what = error.what();
    }
    limit.lift();
    EXPECT_EQ(why, std::errc::too_many_files_open);
    EXPECT_EQ(what,
              std::string(room == 0 ? "epoll_create1" : "eventfd") + " for a reactor: Too many open files");
  }
  EXPECT_EQ(open_descriptors(), before);
}

TEST(ReactorDeathTest, EndsTheProgramWhenAHandlerThrows) {
  EXPECT_DEATH(
      {
        Reactor reactor;
        reactor.post([] { throw 1; });
        reactor.turn();
      },
      "");
}

TEST(ReactorDeathTest, DoesNotTakeANegativeWait) {
  Reactor reactor;
  if (kAsserts) {
    EXPECT_DEATH(reactor.turn(-5ms), "negative wait");
  } else {
    const auto begin = Clock::now();
    reactor.turn(-5ms);
    EXPECT_LT(Clock::now() - begin, 5s) << "not an endless wait, as in poll(2)";
  }
}

TEST(Reactor, RefusesAnEmptyTaskWhereItIsPosted) {
  Reactor reactor;
  const Thrown thrown = thrown_by([&] {
    reactor.post(nullptr);
    return 0;
  });
  EXPECT_EQ(thrown.code, std::errc::invalid_argument);
  EXPECT_NE(thrown.what.find("an empty task"), std::string::npos) << thrown.what;
  reactor.turn(0ms);
  EXPECT_EQ(reactor.metrics().tasks, 0U);
}

TEST(Reactor, RefusesAnEmptyVisit) {
  Reactor reactor;
  const auto refused = [&] {
    return thrown_by([&] {
             reactor.for_each_channel(nullptr);
             return 0;
           })
        .code;
  };
  EXPECT_EQ(refused(), std::errc::invalid_argument) << "also where there is nothing to visit";
  hang(reactor);
  EXPECT_EQ(refused(), std::errc::invalid_argument);
}

TEST(Reactor, RefusesAChannelWithoutADescriptor) {
  Reactor reactor;
  const std::size_t before = reactor.metrics().channels;
  const Thrown thrown =
      thrown_by([&] { return reactor.adopt(std::make_unique<Bell>(reactor, Fd(), nullptr)).fd(); });
  EXPECT_EQ(thrown.code, std::errc::invalid_argument);
  EXPECT_NE(thrown.what.find("a channel without a descriptor"), std::string::npos) << thrown.what;
  EXPECT_EQ(reactor.metrics().channels, before);
}

TEST(ReactorDeathTest, KnowsNothingOfChannelsThatItHasNotAdopted) {
  if (!kAsserts) GTEST_SKIP() << "a bug in the program, which asserts";
  Reactor reactor;
  Bell stray(reactor);
  EXPECT_DEATH((void)reactor.watch(stray), "not adopted");
  EXPECT_DEATH(reactor.again(stray), "not adopted");
  EXPECT_DEATH(reactor.retire(stray), "does not have");
  EXPECT_DEATH(reactor.adopt(std::unique_ptr<Bell>()), "no channel");
}

// ---- Channels

TEST(Reactor, TellsOfEachEventOnce) {
  Reactor reactor;
  Bell& bell = hang(reactor);
  reactor.turn(0ms);
  EXPECT_EQ(bell.events, std::vector<std::uint32_t>{EPOLLOUT})
      << "what is ready already is told in the next turn";
  turn_times(reactor, 3);
  EXPECT_EQ(bell.events.size(), 1U);
  bell.ring();
  reactor.turn();
  EXPECT_EQ(bell.events.back(), EPOLLIN | EPOLLOUT);
  turn_times(reactor, 3);
  EXPECT_EQ(bell.events.size(), 2U) << "an edge comes once, though nobody has read";
}

TEST(Reactor, FindsALivingChannelByItsNameAndKind) {
  Reactor reactor;
  Bell& bell = hang(reactor);
  EXPECT_NE(bell.id(), ChannelId::kNone);
  EXPECT_EQ(static_cast<std::uint32_t>(bell.id()), static_cast<std::uint32_t>(bell.fd()));
  EXPECT_EQ(reactor.find(bell.id()), &bell);
  EXPECT_EQ(reactor.find<Bell>(bell.id()), &bell);
  EXPECT_EQ(reactor.find<OtherChannel>(bell.id()), nullptr);
  EXPECT_EQ(reactor.find(ChannelId::kNone), nullptr);
  EXPECT_EQ(reactor.find(ChannelId{static_cast<std::uint64_t>(bell.id()) + (1ULL << 32)}), nullptr);
  EXPECT_EQ(reactor.find(ChannelId{~0ULL}), nullptr);
  EXPECT_EQ(&bell.reactor(), &reactor);
}

TEST(Reactor, DoesNotFindWhoHadTheSameDescriptorBefore) {
  Reactor reactor;
  Bell& first = hang(reactor);
  const ChannelId first_id = first.id();
  const int number = first.fd();
  reactor.retire(first);
  Bell& second = reactor.adopt(std::make_unique<Bell>(reactor, Fd(::fcntl(2, F_DUPFD_CLOEXEC, number)),
                                                      std::function<void(Bell&, std::uint32_t)>()));
  ASSERT_EQ(second.fd(), number);
  EXPECT_NE(second.id(), first_id);
  EXPECT_EQ(reactor.find(first_id), nullptr);
  EXPECT_EQ(reactor.find(second.id()), &second);
}

TEST(Reactor, ClosesARetiredChannelNowAndFreesItAtTheEndOfTheTurn) {
  Reactor reactor;
  bool freed = false;
  bool was_freed_in_handler = true;
  Bell& bell = hang(reactor, [&](Bell& self, std::uint32_t) {
    const int number = self.fd();
    self.reactor().retire(self);
    self.reactor().retire(self);  // twice is once
    EXPECT_EQ(::fcntl(number, F_GETFD), -1);
    EXPECT_TRUE(self.is_retired());
    EXPECT_EQ(self.reactor().find(self.id()), nullptr);
    was_freed_in_handler = freed;
  });
  bell.on_end = [&] { freed = true; };
  reactor.turn(0ms);
  EXPECT_FALSE(was_freed_in_handler);
  EXPECT_TRUE(freed);
}

TEST(Reactor, TellsARetiredChannelNothing) {
  Reactor reactor;
  std::vector<Bell*> bells;
  int told = 0;
  for (int i = 0; i < 10; ++i) {
    bells.push_back(&hang(reactor, [&](Bell& self, std::uint32_t) {
      ++told;
      reactor.again(self);
      for (Bell* other : bells) reactor.retire(*other);
      reactor.again(self);
    }));
    reactor.again(*bells.back());
  }
  turn_times(reactor, 3);
  EXPECT_EQ(told, 1);
}

TEST(Reactor, CallsAgainWhoAskedForIt) {
  Reactor reactor;
  int left = 3;
  Bell& bell = hang(reactor, [&](Bell& self, std::uint32_t) {
    if (left-- > 0) reactor.again(self);
  });
  reactor.again(bell);
  reactor.again(bell);  // twice is once
  const auto begin = Clock::now();
  reactor
      .turn();  // the event of its registration; who asks anew while it runs has had its share of this turn
  EXPECT_EQ(bell.events, std::vector<std::uint32_t>{EPOLLOUT});
  reactor.turn();
  EXPECT_EQ(bell.events, (std::vector<std::uint32_t>{EPOLLOUT, 0}));
  reactor.turn();
  reactor.turn();
  EXPECT_EQ(bell.events.size(), 4U) << "one call a turn";
  reactor.turn(1ms);
  EXPECT_EQ(bell.events.size(), 4U);
  EXPECT_GE(Clock::now() - begin, 1ms) << "with nothing left to do it waits again";
}

TEST(Reactor, CallsAgainWhoWantsADescriptorWhenOneCloses) {
  Reactor reactor;
  Bell& wanting = reactor.adopt(std::make_unique<Bell>(reactor));
  Bell& other = reactor.adopt(std::make_unique<Bell>(reactor));
  Bell& third = reactor.adopt(std::make_unique<Bell>(reactor));
  reactor.again_when_a_descriptor_closes(wanting);
  reactor.again_when_a_descriptor_closes(wanting);
  turn_times(reactor, 3);
  EXPECT_TRUE(wanting.events.empty());
  reactor.retire(other);
  turn_times(reactor, 3);
  EXPECT_EQ(wanting.events, std::vector<std::uint32_t>{0});
  reactor.retire(third);
  turn_times(reactor, 3);
  EXPECT_EQ(wanting.events.size(), 1U) << "asked once, called once";
  reactor.again_when_a_descriptor_closes(wanting);
  reactor.retire(wanting);  // the one that closes is the one that wants
  turn_times(reactor, 3);
}

TEST(Reactor, VisitsEveryChannelAndMayRetireIt) {
  Reactor reactor;
  std::vector<int> hung;
  for (int i = 0; i < 20; ++i) hung.push_back(hang(reactor).fd());
  std::vector<int> visited;
  reactor.for_each_channel([&](Channel& channel) {
    visited.push_back(channel.fd());
    if (visited.size() % 2 == 0) reactor.retire(channel);
  });
  EXPECT_EQ(visited, hung);
  int left = 0;
  reactor.for_each_channel([&](Channel&) { ++left; });
  EXPECT_EQ(left, 10);
}

TEST(Reactor, SaysWhyItCannotWatch) {
  Reactor reactor;
  Fd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  Bell& bell = reactor.adopt(
      std::make_unique<Bell>(reactor, std::move(file), std::function<void(Bell&, std::uint32_t)>()));
  EXPECT_EQ(reactor.watch(bell), std::errc::operation_not_permitted) << "a file is always ready";
  EXPECT_FALSE(bell.is_watched());
}

TEST(Reactor, TellsAllOfMoreThanOneBatch) {
  constexpr std::size_t kBells = 700;  // of whom 512 fit into one turn
  Reactor reactor;
  std::size_t told = 0;
  std::vector<Bell*> bells;
  for (std::size_t i = 0; i < kBells; ++i)
    bells.push_back(&hang(reactor, [&](Bell&, std::uint32_t) { ++told; }));
  turn_times(reactor, 2);
  EXPECT_EQ(told, kBells);
  for (const Bell* bell : bells) bell->ring();
  turn_times(reactor, 2);
  EXPECT_EQ(told, 2 * kBells);
}

TEST(Reactor, FreesWhatIsGivenToItAtTheEndOfTheTurn) {
  struct Object final : Reapable {
    explicit Object(std::string& the_order) : order(the_order) {}
    ~Object() override { order += 'f'; }
    std::string& order;
  };
  std::string order;
  Reactor reactor;
  reactor.post([&] {
    reactor.retire(std::unique_ptr<Reapable>(std::make_unique<Object>(order)));
    order += 'h';
  });
  reactor.turn();
  EXPECT_EQ(order, "hf");
}

// ---- Posted work

TEST(Reactor, RunsWhatIsPostedInOrderAndNotFromInside) {
  Reactor reactor;
  std::string order;
  reactor.post([&] {
    order += 'a';
    reactor.post([&] { order += 'd'; });
    order += 'b';
  });
  reactor.post([&] { order += 'c'; });
  EXPECT_EQ(order, "");
  reactor.turn();
  EXPECT_EQ(order, "abc") << "what a task posts runs in the next turn";
  reactor.turn();
  EXPECT_EQ(order, "abcd");
}

TEST(Reactor, FreesWhatWasPostedAndNeverRan) {
  auto captured = std::make_shared<int>(1);
  {
    Reactor reactor;
    reactor.post([captured] { FAIL(); });
    EXPECT_EQ(captured.use_count(), 2);
  }
  EXPECT_EQ(captured.use_count(), 1);
}

TEST(Reactor, IsWokenByAPost) {
  Reactor reactor;
  std::atomic<bool> ran{false};
  std::thread other([&] { reactor.post([&] { ran = true; }); });
  const auto end = Clock::now() + kPatience;
  while (!ran && Clock::now() < end) reactor.turn(kPatience);
  EXPECT_TRUE(ran);
  EXPECT_LT(Clock::now(), end) << "the wait was not ended by the post";
  other.join();
}

TEST(Reactor, WaitsAgainOnceAllThatWasPostedHasRun) {
  Reactor reactor;
  int ran = 0;
  reactor.post([&] { ++ran; });
  reactor.turn();
  EXPECT_EQ(ran, 1);
  reactor.turn(0ms);  // the wake-up of the post
  const auto begin = Clock::now();
  reactor.turn(5ms);
  EXPECT_GE(Clock::now() - begin, 5ms);
}

TEST(Reactor, KeepsTheOrderOfEachThreadThatPosts) {
  constexpr int kThreads = 6;
  constexpr int kPosts = 3000;
  Reactor reactor;
  std::array<int, kThreads> next{};  // of each thread; only the reactor's thread touches it
  int ran = 0;
  int out_of_order = 0;
  std::vector<std::thread> threads;
  for (std::size_t thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      for (int i = 0; i < kPosts; ++i) {
        reactor.post([&, thread, i] {
          out_of_order += next[thread]++ == i ? 0 : 1;
          if (++ran == kThreads * kPosts) reactor.stop();
        });
        if (i % 64 == 0) std::this_thread::yield();
      }
    });
  }
  reactor.run();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ran, kThreads * kPosts);
  EXPECT_EQ(out_of_order, 0);
}

// One post at a time, each of them into a reactor that is just going to sleep: a wake-up that is lost would
// hang.
TEST(Reactor, LosesNoWakeUp) {
  constexpr int kRounds = 3000;
  Reactor reactor;
  std::binary_semaphore ran(0);
  std::thread other([&] {
    for (int i = 0; i < kRounds; ++i) {
      reactor.post([&] { ran.release(); });
      EXPECT_TRUE(ran.try_acquire_for(kPatience)) << "round " << i;
    }
    reactor.stop();
  });
  reactor.run();
  other.join();
}

// ---- Stop

TEST(Reactor, RunsUntilAHandlerStopsIt) {
  Reactor reactor;
  Bell& bell = hang(reactor, [&](Bell& self, std::uint32_t) { self.reactor().stop(); });
  reactor.run();
  EXPECT_EQ(bell.events.size(), 1U);
}

TEST(Reactor, RunsUntilAPostedTaskStopsIt) {
  Reactor reactor;
  std::string order;
  reactor.post([&] {
    reactor.stop();
    order += 'a';
  });
  reactor.post([&] { order += 'b'; });
  reactor.run();
  EXPECT_EQ(order, "ab") << "the turn in which it is stopped is finished";
}

TEST(Reactor, RunsUntilATimerStopsIt) {
  Reactor reactor;
  Timer timer(reactor, [&] { reactor.stop(); });
  timer.arm(2ms);
  reactor.run();
}

TEST(Reactor, StoppedBeforeItRunsTurnsOnceAndReturns) {
  Reactor reactor;
  int ran = 0;
  reactor.stop();
  reactor.stop();  // twice is once
  reactor.post([&] { ++ran; });
  reactor.run();
  EXPECT_EQ(ran, 1);
  // That stop is used up: the next run goes on until the next.
  Timer timer(reactor, [&] {
    ++ran;
    reactor.stop();
  });
  timer.arm(1ms);
  reactor.run();
  EXPECT_EQ(ran, 2);
}

TEST(Reactor, IsStoppedByAnotherThreadAtAnyMoment) {
  constexpr int kRounds = 3000;
  Reactor reactor;
  std::counting_semaphore<kRounds> returned(0);
  std::thread other([&] {
    for (int i = 0; i < kRounds; ++i) {
      for (std::atomic<int> spin = i % 97; spin > 0; --spin) {
      }
      reactor.stop();  // before run, while it sleeps, or between two of its turns
      ASSERT_TRUE(returned.try_acquire_for(kPatience)) << "a stop was lost in round " << i;
    }
  });
  for (int i = 0; i < kRounds; ++i) {
    reactor.run();  // each stop ends exactly one
    returned.release();
  }
  other.join();
}

TEST(Reactor, IsStoppedAndPostedToByManyThreadsAtOnce) {
  constexpr int kThreads = 4;
  constexpr int kPosts = 1500;
  Reactor reactor;
  int ran = 0;
  std::atomic<int> working{kThreads};
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&] {
      for (int i = 0; i < kPosts; ++i) {
        reactor.post([&] { ++ran; });
        if (i % 3 == 0) reactor.stop();
      }
      --working;
      reactor.stop();
    });
  }
  while (working.load() > 0) reactor.run();
  for (std::thread& thread : threads) thread.join();
  reactor.stop();
  reactor.run();
  EXPECT_EQ(ran, kThreads * kPosts);
}

TEST(Reactor, MayBeDestroyedAfterOthersHavePostedAndStopped) {
  auto captured = std::make_shared<int>(1);
  for (int i = 0; i < 50; ++i) {
    std::optional<Reactor> reactor(std::in_place);
    std::thread other([&] {
      for (int k = 0; k < 20; ++k) reactor->post([captured] {});
      reactor->stop();
    });
    if (i % 2 == 0) reactor->run();
    other.join();
    reactor.reset();
  }
  EXPECT_EQ(captured.use_count(), 1);
}

TEST(Reactor, MayBeOneOfSeveralInOneThread) {
  Reactor first;
  Reactor second;
  std::string order;
  first.post([&] {
    order += '1';
    second.post([&] { order += '2'; });
  });
  first.turn();
  second.turn();
  EXPECT_EQ(order, "12");
}

}  // namespace
}  // namespace anteroom
