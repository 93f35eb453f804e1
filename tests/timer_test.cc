#include <anteroom/timer.h>
#include <gtest/gtest.h>
#include <time.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <system_error>
#include <utility>
#include <vector>

#include "support/thrown.h"
#include "support/turns.h"

namespace anteroom {
namespace {

using namespace std::chrono_literals;
using namespace test;
using Clock = Timer::Clock;

/// Asked of the kernel itself, so that it is not the library's own clock that says it is right.
std::chrono::nanoseconds monotonic_now() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

TEST(Timer, NeverFiresEarly) {
  Reactor reactor;
  std::mt19937 random(11);
  struct Case {
    Timer timer;
    std::chrono::nanoseconds due{};
    int fired = 0;
  };
  std::vector<Case> cases(300);
  std::size_t fired = 0;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    Case& one = cases[i];
    one.timer = Timer(reactor, [&one, &fired] {
      EXPECT_GE(monotonic_now(), one.due);
      ++one.fired;
      ++fired;
    });
    // most of them within a few milliseconds, one after more than a second
    const auto delay = i == 0 ? 1100ms + 123ns : std::chrono::nanoseconds(random() >> (random() % 12 + 4));
    const std::chrono::nanoseconds before = monotonic_now();
    one.timer.arm(delay);
    one.due = before + delay;
  }
  ASSERT_TRUE(turn_until(reactor, [&] { return fired == cases.size(); }));
  for (const Case& one : cases) {
    EXPECT_EQ(one.fired, 1);
    EXPECT_FALSE(one.timer.is_armed());
  }
}

TEST(Timer, FiresInTheOrderOfDeadlines) {
  Reactor reactor;
  std::mt19937 random(12);
  std::vector<Timer> timers(500);
  std::vector<Clock::time_point> fired;
  const auto start = Clock::now();
  for (Timer& timer : timers) {
    const auto when = start + 2ms + std::chrono::microseconds(random() % 20'000);
    timer = Timer(reactor, [&fired, when] { fired.push_back(when); });
    timer.arm_at(when);
  }
  const auto armed = Clock::now();
  ASSERT_TRUE(turn_until(reactor, [&] { return fired.size() == timers.size(); }));
  for (std::size_t i = 1; i < fired.size(); ++i) {
    if (fired[i] < armed) continue;  // those that were due when they were armed come in the order of arming
    EXPECT_LE(fired[i - 1], fired[i] + 17us) << "within one tick of 16.4 µs they may come in any order";
  }
}

TEST(Timer, EndsTheWaitOfATurnAndDoesNotSpin) {
  Reactor reactor;
  bool fired = false;
  Timer timer(reactor, [&] { fired = true; });
  const auto begin = Clock::now();
  timer.arm(30ms);
  int turns = 0;
  while (!fired) {
    reactor.turn();
    ++turns;
  }
  EXPECT_GE(Clock::now() - begin, 30ms);
  EXPECT_LE(turns, 3) << "it waits until the deadline and not until shortly before";
}

TEST(Timer, WithNoDelayOrLessFiresInTheNextTurn) {
  for (const Clock::duration delay : {0ns, -1ns, -1000000000ns, Clock::duration::min()}) {
    Reactor reactor;
    int fired = 0;
    Timer timer(reactor, [&] { ++fired; });
    timer.arm(delay);
    EXPECT_TRUE(timer.is_armed());
    EXPECT_EQ(fired, 0) << "not from inside arm";
    reactor.turn();
    EXPECT_EQ(fired, 1);
    EXPECT_FALSE(timer.is_armed());
  }
}

TEST(Timer, MayBeArmedForAnyTime) {
  Reactor reactor;
  int fired = 0;
  std::vector<Timer> timers;
  for (int i = 0; i < 6; ++i) timers.emplace_back(reactor, [&] { ++fired; });
  timers[0].arm(Clock::duration::max());
  timers[1].arm_at(Clock::time_point::max());
  timers[2].arm(24h * 365 * 200);
  timers[3].arm(24h * 365 * 100);
  timers[4].arm_every(Clock::duration::max());
  timers[5].arm(24h);
  const auto begin = Clock::now();
  reactor.turn(2ms);
  EXPECT_GE(Clock::now() - begin, 2ms) << "nothing is due, so the whole wait is waited";
  EXPECT_EQ(fired, 0);
  for (const Timer& timer : timers) EXPECT_TRUE(timer.is_armed());
  timers[5].arm_at(Clock::time_point::min());
  reactor.turn();
  EXPECT_EQ(fired, 1);
}

TEST(Timer, IsMovedByArmingItAnew) {
  Reactor reactor;
  int fired = 0;
  Timer timer(reactor, [&] { ++fired; });
  timer.arm(0ms);
  timer.arm(1h);
  turn_times(reactor, 3);
  EXPECT_EQ(fired, 0);
  timer.arm(0ms);
  timer.arm(0ms);
  reactor.turn();
  turn_times(reactor, 3);
  EXPECT_EQ(fired, 1);
}

TEST(Timer, DoesNotFireOnceCancelled) {
  Reactor reactor;
  Timer timer(reactor, [&] { FAIL(); });
  timer.cancel();
  timer.arm(0ms);
  timer.cancel();
  EXPECT_FALSE(timer.is_armed());
  timer.arm_every(1ms);
  timer.cancel();
  timer.cancel();
  reactor.turn(3ms);
}

TEST(Timer, DoesNotFireOnceDestroyed) {
  Reactor reactor;
  {
    Timer timer(reactor, [&] { FAIL(); });
    timer.arm(0ms);
    Timer every(reactor, [&] { FAIL(); });
    every.arm_every(1ms);
  }
  reactor.turn(3ms);
}

TEST(Timer, OfNobodyMayBeAskedAndCancelled) {
  Timer timer;
  EXPECT_FALSE(timer.is_armed());
  timer.cancel();
  Timer other(std::move(timer));
  EXPECT_FALSE(other.is_armed());
}

TEST(Timer, KeepsItsDeadlineWhenMoved) {
  Reactor reactor;
  int fired = 0;
  Timer first(reactor, [&] { ++fired; });
  first.arm(1ms);
  Timer second(std::move(first));
  EXPECT_FALSE(first.is_armed());  // NOLINT(bugprone-use-after-move): that it is empty is what we ask
  EXPECT_TRUE(second.is_armed());
  Timer third(reactor, [&] { FAIL() << "ended by the assignment"; });
  third.arm(0ms);
  third = std::move(second);
  EXPECT_TRUE(third.is_armed());
  Timer& alias = third;
  third = std::move(alias);
  ASSERT_TRUE(turn_until(reactor, [&] { return fired == 1; }));
  first = std::move(third);
  first.arm(0ms);
  reactor.turn();
  EXPECT_EQ(fired, 2);
}

TEST(Timer, FiresEveryInterval) {
  Reactor reactor;
  int fired = 0;
  Timer timer;
  const auto begin = Clock::now();
  timer = Timer(reactor, [&] {
    ++fired;
    EXPECT_GE(Clock::now() - begin, fired * 2ms) << "each of them late at most, never early";
    EXPECT_TRUE(timer.is_armed());
    if (fired == 10) timer.cancel();
  });
  timer.arm_every(2ms);
  ASSERT_TRUE(turn_until(reactor, [&] { return fired == 10; }));
  EXPECT_FALSE(timer.is_armed());
  reactor.turn(5ms);
  EXPECT_EQ(fired, 10);
}

TEST(Timer, ThatFiredEveryIntervalFiresOnceWhenArmedSo) {
  Reactor reactor;
  int fired = 0;
  Timer timer;
  timer = Timer(reactor, [&] {
    if (++fired == 3) timer.arm(0ms);
  });
  timer.arm_every(1ms);
  ASSERT_TRUE(turn_until(reactor, [&] { return fired == 4; }));
  EXPECT_FALSE(timer.is_armed());
}

TEST(Timer, SkipsIntervalsThatABusyLoopMissed) {
  Reactor reactor;
  int fired = 0;
  Timer timer(reactor, [&] {
    if (++fired > 1) return;
    const auto until = Clock::now() + 30ms;
    while (Clock::now() < until) {
    }
  });
  timer.arm_every(1ms);
  ASSERT_TRUE(turn_until(reactor, [&] { return fired == 1; }));
  const auto begin = Clock::now();
  reactor.turn();
  EXPECT_LE(fired, 2) << "once for all that was missed";
  turn_times(reactor, 50);
  EXPECT_LE(fired, 3 + (Clock::now() - begin) / 1ms);
}

TEST(Timer, MayBeOneOfAHundredThousand) {
  Reactor reactor;
  std::mt19937 random(13);
  std::vector<Timer> timers;
  timers.reserve(100'000);
  int fired = 0;
  for (int i = 0; i < 100'000; ++i) {
    timers.emplace_back(reactor, [&] { ++fired; });
    timers.back().arm(1h + std::chrono::milliseconds(random() % 3'600'000));
  }
  const auto begin = Clock::now();
  for (int i = 0; i < 300'000; ++i) {
    Timer& timer = timers[random() % timers.size()];
    if (i % 3 == 0) {
      timer.cancel();
    } else {
      timer.arm(1h + std::chrono::milliseconds(random() % 3'600'000));
    }
  }
  const auto each = (Clock::now() - begin) / 300'000;
  EXPECT_LT(each, 10us) << "O(1) is some 100 ns here; a list of 100,000 would take milliseconds";
  turn_times(reactor, 10);
  EXPECT_EQ(fired, 0);
  for (Timer& timer : timers) timer.arm(0ms);
  ASSERT_TRUE(turn_until(reactor, [&] { return fired == 100'000; }));
}

// ---- What makes no sense

TEST(Timer, WithoutAHandlerIsRefused) {
  Reactor reactor;
  const Thrown thrown = thrown_by([&] { return Timer(reactor, nullptr); });
  EXPECT_EQ(thrown.code, std::errc::invalid_argument);
  EXPECT_NE(thrown.what.find("a timer without a handler"), std::string::npos) << thrown.what;
  EXPECT_EQ(thrown_by([&] { return Timer(reactor, std::function<void()>()); }).code,
            std::errc::invalid_argument);
}

TEST(TimerDeathTest, WithoutAReactorCannotBeArmed) {
  Timer timer;
  EXPECT_DEATH(timer.arm(0ms), "a timer without a reactor cannot be armed");
  EXPECT_DEATH(timer.arm_at(Clock::now()), "a timer without a reactor cannot be armed");
  EXPECT_DEATH(timer.arm_every(1ms), "a timer without a reactor cannot be armed");
}

TEST(TimerDeathTest, ThatWasMovedFromCannotBeArmed) {
  Reactor reactor;
  Timer first(reactor, [] {});
  const Timer second(std::move(first));
  // NOLINTBEGIN(bugprone-use-after-move): what may be done with it is what we ask
  EXPECT_DEATH(first.arm(0ms), "a timer without a reactor cannot be armed");
  first.cancel();
  EXPECT_FALSE(first.is_armed());
  first = Timer(reactor, [] {});
  first.arm(0ms);
  EXPECT_TRUE(first.is_armed());
  // NOLINTEND(bugprone-use-after-move)
}

TEST(TimerDeathTest, CannotBeArmedForANegativeInterval) {
  if (!kAsserts) GTEST_SKIP() << "without assertions it is a millisecond";
  Reactor reactor;
  Timer timer(reactor, [] {});
  EXPECT_DEATH(timer.arm_every(-1ms), "a negative interval");
}

}  // namespace
}  // namespace anteroom
