#include <anteroom/signals.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <optional>
#include <system_error>
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

TEST(Signals, AreBlockedAsLongAsTheyAreEvents) {
  EXPECT_FALSE(is_blocked(SIGUSR1));
  Reactor reactor;
  {
    const Signals signals(reactor, {SIGUSR1}, [](int) {});
    EXPECT_TRUE(is_blocked(SIGUSR1));
    EXPECT_FALSE(is_blocked(SIGUSR2));
  }
  EXPECT_FALSE(is_blocked(SIGUSR1));
}

TEST(Signals, LeaveBlockedWhatWasBlockedBefore) {
  sigset_t mask;
  ::sigemptyset(&mask);
  ::sigaddset(&mask, SIGUSR1);
  ::pthread_sigmask(SIG_BLOCK, &mask, nullptr);
  {
    Reactor reactor;
    const Signals signals(reactor, {SIGUSR1}, [](int) {});
  }
  EXPECT_TRUE(is_blocked(SIGUSR1));
  ::pthread_sigmask(SIG_UNBLOCK, &mask, nullptr);
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

TEST(Signals, WithoutADescriptorSaySoAndBlockNothing) {
  Reactor reactor;
  DescriptorLimit limit(0);
  try {
    const Signals signals(reactor, {SIGUSR1}, [](int) {});
    FAIL();
  } catch (const std::system_error& error) {
    limit.lift();
    EXPECT_STREQ(error.what(), "signalfd for a reactor: Too many open files");
  }
  EXPECT_FALSE(is_blocked(SIGUSR1));
}

}  // namespace
}  // namespace anteroom
