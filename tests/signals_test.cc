#include <anteroom/signals.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "support/descriptors.h"
#include "support/turns.h"

namespace anteroom {
namespace {

using namespace std::chrono_literals;
using namespace test;

std::atomic<int> delivered{0};

/// As long as it lives, `signal` is counted in `delivered` when it is delivered as signals always were.
class Counted {
 public:
  explicit Counted(int signal) : signal_(signal) {
    delivered = 0;
    struct sigaction action {};
    action.sa_handler = [](int) { ++delivered; };
    ::sigaction(signal_, &action, &before_);
  }
  ~Counted() { ::sigaction(signal_, &before_, nullptr); }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;

 private:
  int signal_;
  struct sigaction before_ {};
};

bool is_blocked(int signal) {
  sigset_t mask;
  ::pthread_sigmask(SIG_BLOCK, nullptr, &mask);
  return ::sigismember(&mask, signal) == 1;
}

TEST(Signals, AreToldByTheTurn) {
  const Counted counted(SIGUSR1);
  Reactor reactor;
  std::vector<int> told;
  const Signals signals(reactor, {SIGUSR1, SIGUSR2}, [&](int signal) { told.push_back(signal); });
  ::raise(SIGUSR1);
  EXPECT_TRUE(told.empty());
  reactor.turn();
  EXPECT_EQ(told, std::vector<int>{SIGUSR1});
  ::raise(SIGUSR2);
  ::raise(SIGUSR1);
  turn_times(reactor, 2);
  EXPECT_EQ(told.size(), 3U);
  EXPECT_EQ(delivered, 0);
}

TEST(Signals, EndTheWaitAndTheRun) {
  Reactor reactor;
  const Signals signals(reactor, {SIGTERM}, [&](int) { reactor.stop(); });
  ::kill(::getpid(), SIGTERM);
  reactor.run();
}

TEST(Signals, MayBeDestroyedInTheirOwnHandler) {
  const Counted counted(SIGUSR2);
  Reactor reactor;
  int told = 0;
  std::optional<Signals> signals;
  signals.emplace(reactor, std::initializer_list<int>{SIGUSR1, SIGUSR2}, [&](int signal) {
    EXPECT_EQ(signal, SIGUSR1) << "the lower number comes first";
    ++told;
    signals.reset();
  });
  ::raise(SIGUSR2);
  ::raise(SIGUSR1);
  turn_times(reactor, 3);
  EXPECT_EQ(told, 1);
  EXPECT_EQ(delivered, 1) << "the one that was not told is delivered as signals always were";
  EXPECT_FALSE(is_blocked(SIGUSR1));
}

TEST(Signals, BlockNothing) {
  Reactor reactor;
  const Signals signals(reactor, {SIGUSR1}, [](int) {});
  EXPECT_FALSE(is_blocked(SIGUSR1));
}

/// How a program ends that we start and send SIGTERM: the signal that has ended it, or -1 if that does not
/// end it.
int end_of_program_after_sigterm() {
  pid_t child = 0;
  const char* const words[] = {"sleep", "60", nullptr};
  if (::posix_spawnp(&child, "sleep", nullptr, nullptr, const_cast<char**>(words), environ) != 0) return -1;
  ::kill(child, SIGTERM);
  int status = 0;
  const auto end = Reactor::Clock::now() + kPatience;
  while (::waitpid(child, &status, WNOHANG) == 0) {
    if (Reactor::Clock::now() > end) ::kill(child, SIGKILL);
    std::this_thread::yield();
  }
  return WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL ? WTERMSIG(status) : -1;
}

TEST(Signals, LeaveAStartedProgramItsSignals) {
  Reactor reactor;
  const Signals signals(reactor, {SIGTERM, SIGINT, SIGHUP}, [](int) {});
  EXPECT_EQ(end_of_program_after_sigterm(), SIGTERM);
}

TEST(Signals, LeaveAProgramThatTheirHandlerStartsItsSignals) {
  Reactor reactor;
  int end = 0;
  const Signals signals(reactor, {SIGTERM, SIGUSR1}, [&](int) { end = end_of_program_after_sigterm(); });
  ::raise(SIGUSR1);
  ASSERT_TRUE(turn_until(reactor, [&] { return end != 0; }));
  EXPECT_EQ(end, SIGTERM);
}

TEST(Signals, LeaveAForkedChildItsSignals) {
  Reactor reactor;
  const Signals signals(reactor, {SIGTERM}, [](int) {});
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(10);
    for (;;) ::pause();
  }
  ::kill(child, SIGTERM);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM) << status;
}

TEST(Signals, ArriveThoughTheThreadHadBlockedThem) {
  sigset_t mask;
  ::sigemptyset(&mask);
  ::sigaddset(&mask, SIGUSR1);
  ::pthread_sigmask(SIG_BLOCK, &mask, nullptr);
  {
    Reactor reactor;
    int reported = 0;
    const Signals signals(reactor, {SIGUSR1}, [&](int) { ++reported; });
    ::raise(SIGUSR1);
    EXPECT_TRUE(turn_until(reactor, [&] { return reported == 1; }));
  }
  EXPECT_TRUE(is_blocked(SIGUSR1)) << "as it was before";
  ::pthread_sigmask(SIG_UNBLOCK, &mask, nullptr);
}

TEST(Signals, ReportChildrenThatEnd) {
  Reactor reactor;
  int ended = 0;
  const Signals signals(reactor, {SIGCHLD}, [&](int) {
    while (::waitpid(-1, nullptr, WNOHANG) > 0) ++ended;
  });
  for (int i = 0; i < 5; ++i) {
    if (::fork() == 0) ::_exit(0);
  }
  EXPECT_TRUE(turn_until(reactor, [&] { return ended == 5; })) << ended;
}

TEST(Signals, OfOneNumberAreReportedToEachThatNamesIt) {
  Reactor first;
  Reactor second;
  std::vector<char> reported;
  std::optional<Signals> a(std::in_place, first, std::initializer_list<int>{SIGUSR1},
                           [&](int) { reported.push_back('a'); });
  const Signals b(first, {SIGUSR1}, [&](int) { reported.push_back('b'); });
  const Signals c(second, {SIGUSR1}, [&](int) { reported.push_back('c'); });
  ::raise(SIGUSR1);
  turn_times(first, 2);
  turn_times(second, 2);
  EXPECT_EQ(reported, (std::vector<char>{'a', 'b', 'c'}));
  ::raise(SIGUSR1);
  a.reset();  // b and c still catch it
  turn_times(first, 2);
  turn_times(second, 2);
  EXPECT_EQ(reported, (std::vector<char>{'a', 'b', 'c', 'b', 'c'}));
}

TEST(Signals, WakeTheReactorOfAnotherThread) {
  std::atomic<int> reported{0};
  std::atomic<bool> is_ready{false};
  std::thread other([&] {
    Reactor reactor;
    const Signals signals(reactor, {SIGUSR2}, [&](int) {
      ++reported;
      reactor.stop();
    });
    is_ready = true;
    reactor.run();
  });
  while (!is_ready) std::this_thread::yield();
  ::kill(::getpid(), SIGUSR2);
  other.join();
  EXPECT_EQ(reported, 1);
}

TEST(Signals, SeveralTimesBetweenTwoTurnsAreReportedOnce) {
  Reactor reactor;
  int reported = 0;
  const Signals signals(reactor, {SIGUSR1}, [&](int) { ++reported; });
  for (int i = 0; i < 3; ++i) ::raise(SIGUSR1);
  turn_times(reactor, 3);
  EXPECT_EQ(reported, 1);
}

TEST(Signals, LeaveAnActionThatWasSetSinceThen) {
  const Counted counted(SIGUSR1);
  Reactor reactor;
  {
    const Signals signals(reactor, {SIGUSR1}, [](int) {});
    const Counted newer(SIGUSR1);  // puts back ours at its end
    ::raise(SIGUSR1);
    EXPECT_EQ(delivered, 1);
  }
  ::raise(SIGUSR1);
  EXPECT_EQ(delivered, 2);
}

std::string error_of(
    std::initializer_list<int> numbers, std::function<void(int)> handler = [](int) {}) {
  Reactor reactor;
  try {
    const Signals signals(reactor, numbers, std::move(handler));
  } catch (const std::system_error& error) {
    EXPECT_EQ(error.code(), std::errc::invalid_argument);
    return error.what();
  }
  return "";
}

TEST(Signals, ThatCannotBeAreRefused) {
  EXPECT_THAT(error_of({99}), testing::StartsWith("signals: there is no signal 99"));
  EXPECT_THAT(error_of({0}), testing::StartsWith("signals: there is no signal 0"));
  EXPECT_THAT(error_of({-1}), testing::StartsWith("signals: there is no signal -1"));
  EXPECT_THAT(error_of({SIGTERM, SIGKILL}), testing::StartsWith("signals: signal 9 cannot be caught"));
  EXPECT_THAT(error_of({SIGSTOP}), testing::StartsWith("signals: signal 19 cannot be caught"));
  EXPECT_THAT(error_of({SIGSEGV}), testing::HasSubstr("raised by a fault"));
  EXPECT_THAT(error_of({SIGTERM, SIGINT, SIGTERM}), testing::StartsWith("signals: 15 is named twice"));
  EXPECT_THAT(error_of({}), testing::StartsWith("signals: none is named"));
  EXPECT_THAT(error_of({SIGTERM}, nullptr), testing::StartsWith("signals: no handler"));
  // Between SIGSYS and SIGRTMIN: glibc's own (nptl(7)), which sigaction(2) refuses.
  EXPECT_THAT(error_of({SIGUSR1, 32}), testing::StartsWith("sigaction signal 32: Invalid argument"));
}

TEST(Signals, ThatAreRefusedLeaveTheOthersAsTheyWere) {
  const Counted counted(SIGUSR1);
  EXPECT_NE(error_of({SIGUSR1, 32}), "");
  ::raise(SIGUSR1);
  EXPECT_EQ(delivered, 1);
}

TEST(Signals, ThatCameAndWereNotToldAreDeliveredAtTheEnd) {
  const Counted counted(SIGUSR1);
  Reactor reactor;
  {
    const Signals signals(reactor, {SIGUSR1}, [](int) { FAIL(); });
    ::raise(SIGUSR1);
    EXPECT_EQ(delivered, 0);
  }
  EXPECT_EQ(delivered, 1);
}

TEST(Signals, WithoutADescriptorSaySoAndCatchNothing) {
  Reactor reactor;
  DescriptorLimit limit(0);
  const Counted counted(SIGUSR1);
  try {
    const Signals signals(reactor, {SIGUSR1}, [](int) {});
    FAIL();
  } catch (const std::system_error& error) {
    limit.lift();
    // eventfd if these are the first of the process.
    EXPECT_THAT(error.what(), testing::EndsWith(" for signals: Too many open files"));
  }
  ::raise(SIGUSR1);
  EXPECT_EQ(delivered, 1);
}

}  // namespace
}  // namespace anteroom
