// Timers under a clock that the test sets: linked with --wrap for std::chrono::steady_clock::now().
#include <anteroom/timer.h>
#include <gtest/gtest.h>

#include <chrono>
#include <optional>
#include <vector>

#include "support/turns.h"

using Clock = std::chrono::steady_clock;

namespace {
std::optional<Clock::time_point> set_time;
}

// NOLINTBEGIN(bugprone-reserved-identifier): the linker's names, see --wrap in ld(1)
Clock::time_point real_now() noexcept asm("__real__ZNSt6chrono3_V212steady_clock3nowEv");
Clock::time_point wrapped_now() noexcept asm("__wrap__ZNSt6chrono3_V212steady_clock3nowEv");
// NOLINTEND(bugprone-reserved-identifier)
Clock::time_point wrapped_now() noexcept { return set_time ? *set_time : real_now(); }

namespace anteroom {
namespace {

using namespace std::chrono_literals;
using namespace test;

class TimerRhythm : public testing::Test {
 protected:
  TimerRhythm() { set_time = start; }
  ~TimerRhythm() override { set_time.reset(); }

  void advance(Clock::duration by) {
    *set_time += by;
    reactor.turn(0ms);
  }

  static constexpr Clock::time_point start{1000s + 1ns};
  // made after the clock is set
  struct SetFirst {
    SetFirst() { set_time = start; }
  } set_first_;
  Reactor reactor;
  std::vector<Clock::duration> fired;
  Timer timer{reactor, [this] { fired.push_back(*set_time - start); }};
};

// Found by this test: each interval began at the tick in which the one before had ended, so every one was
// longer.
TEST_F(TimerRhythm, DoesNotDrift) {
  timer.arm_every(1ms);
  while (fired.size() < 1000) advance(1us);
  for (std::size_t i = 0; i < fired.size(); ++i) {
    EXPECT_GE(fired[i], (i + 1) * 1ms);
    EXPECT_LE(fired[i], (i + 1) * 1ms + 18us) << "late by a tick of 16.4 µs at most";
  }
}

TEST_F(TimerRhythm, SkipsWhatWasMissedAndKeepsTheBeat) {
  timer.arm_every(10ms);
  advance(10ms + 20us);
  ASSERT_EQ(fired.size(), 1U);
  advance(45ms);  // 55: those of 20, 30, 40 and 50 are one
  ASSERT_EQ(fired.size(), 2U);
  advance(4ms);  // 59
  EXPECT_EQ(fired.size(), 2U);
  advance(1ms);  // 60
  EXPECT_EQ(fired.size(), 3U);
  advance(24h * 365);  // suspended machines do not count, but this one was busy for a year
  EXPECT_EQ(fired.size(), 4U);
  advance(0ms);
  EXPECT_EQ(fired.size(), 4U);
  advance(10ms);
  EXPECT_EQ(fired.size(), 5U);
}

TEST_F(TimerRhythm, FiresAtADeadlineYearsAheadAndNotBefore) {
  timer.arm(24h * 365 * 30);
  for (int day = 1; day < 365 * 30; ++day) advance(24h);
  EXPECT_TRUE(fired.empty());
  advance(24h - 1ns);
  EXPECT_TRUE(fired.empty());
  advance(1ns + 17us);
  EXPECT_EQ(fired.size(), 1U);
}

TEST_F(TimerRhythm, IsAtLeastAMillisecond) {
  timer.arm_every(0ms);
  for (int i = 0; i < 100; ++i) advance(100us);
  EXPECT_GE(fired.size(), 9U);
  EXPECT_LE(fired.size(), 10U);
}

}  // namespace
}  // namespace anteroom
