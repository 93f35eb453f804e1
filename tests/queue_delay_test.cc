#include <anteroom/queue_delay.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <system_error>

namespace anteroom {
namespace {

using namespace std::chrono_literals;
using Clock = QueueDelay::Clock;

constexpr QueueDelayOptions kOptions{.target = 20ms, .interval = 100ms};

/// `time` after some point in the life of the machine.
Clock::time_point at(Clock::duration time) { return Clock::time_point(1h) + time; }

TEST(QueueDelay, OfLessThanNothingIsRefused) {
  for (const QueueDelayOptions& options :
       {QueueDelayOptions{.target = -1ms}, QueueDelayOptions{.target = 1ms, .interval = -1ms},
        QueueDelayOptions{.target = std::chrono::milliseconds::min()}}) {
    try {
      const QueueDelay delay(options);
      ADD_FAILURE();
    } catch (const std::system_error& error) {
      EXPECT_EQ(error.code(), std::errc::invalid_argument);
    }
  }
}

TEST(QueueDelay, WithoutATargetNeverSheds) {
  QueueDelay delay({});
  EXPECT_FALSE(delay.is_set());
  for (int second = 0; second < 100; ++second) EXPECT_FALSE(delay.should_shed(1min, at(1s * second)));
  EXPECT_FALSE(delay.is_overloaded());
}

TEST(QueueDelay, ShedsNobodyBeforeTheIntervalIsOver) {
  QueueDelay delay(kOptions);
  EXPECT_TRUE(delay.is_set());
  for (Clock::duration time = 0ms; time < 100ms; time += 1ms)
    EXPECT_FALSE(delay.should_shed(500ms, at(time)));
  EXPECT_FALSE(delay.is_overloaded());
  EXPECT_TRUE(delay.should_shed(500ms, at(100ms)));
  EXPECT_TRUE(delay.is_overloaded());
}

TEST(QueueDelay, ShedsOnlyThoseWhoWaitedLongerThanTwiceTheTarget) {
  QueueDelay delay(kOptions);
  EXPECT_FALSE(delay.should_shed(21ms, at(0ms)));
  EXPECT_FALSE(delay.should_shed(40ms, at(100ms)));
  EXPECT_TRUE(delay.is_overloaded());
  EXPECT_TRUE(delay.should_shed(41ms, at(101ms)));
  EXPECT_FALSE(delay.should_shed(40ms, at(102ms)));
  EXPECT_FALSE(delay.should_shed(21ms, at(103ms)));
  EXPECT_TRUE(delay.should_shed(44ms, at(104ms))) << "those who were served do not end it";
}

TEST(QueueDelay, EndsWithTheFirstGuestWhoWaitedNoLongerThanTheTarget) {
  QueueDelay delay(kOptions);
  (void)delay.should_shed(50ms, at(0ms));
  ASSERT_TRUE(delay.should_shed(50ms, at(100ms)));
  EXPECT_FALSE(delay.should_shed(20ms, at(101ms)));
  EXPECT_FALSE(delay.is_overloaded());
  EXPECT_FALSE(delay.should_shed(500ms, at(102ms))) << "the interval begins anew";
  EXPECT_FALSE(delay.should_shed(500ms, at(201ms)));
  EXPECT_TRUE(delay.should_shed(500ms, at(202ms)));
}

TEST(QueueDelay, EndsWithTheQueue) {
  QueueDelay delay(kOptions);
  (void)delay.should_shed(50ms, at(0ms));
  ASSERT_TRUE(delay.should_shed(50ms, at(100ms)));
  delay.emptied();
  EXPECT_FALSE(delay.is_overloaded());
  EXPECT_FALSE(delay.should_shed(50ms, at(101ms)));
}

TEST(QueueDelay, TakesTwoStallsThatLieApartForNoOverload) {
  QueueDelay delay(kOptions);
  for (int stall = 0; stall < 10; ++stall) {
    for (int guest = 0; guest < 50; ++guest)
      EXPECT_FALSE(delay.should_shed(90ms, at(10s * stall + 1ms * guest)));
    delay.emptied();
  }
}

TEST(QueueDelay, WithoutAnIntervalShedsAtOnce) {
  QueueDelay delay({.target = 20ms, .interval = 0ms});
  EXPECT_FALSE(delay.should_shed(40ms, at(0ms)));
  EXPECT_TRUE(delay.should_shed(41ms, at(0ms)));
}

TEST(QueueDelay, MeasuresTheLongestTimesThatThereAre) {
  QueueDelay delay({.target = std::chrono::milliseconds::max(), .interval = 100ms});
  EXPECT_FALSE(delay.should_shed(std::chrono::milliseconds::max(), at(0ms)));
  QueueDelay half({.target = std::chrono::milliseconds::max() / 2 + 1ms, .interval = 0ms});
  EXPECT_FALSE(half.should_shed(std::chrono::milliseconds::max(), at(0ms))) << "not twice as long";
  QueueDelay patient({.target = 20ms, .interval = std::chrono::milliseconds::max()});
  EXPECT_FALSE(patient.should_shed(500ms, at(0ms)));
  EXPECT_FALSE(patient.should_shed(500ms, at(1h))) << "the interval is not over in our time";
  QueueDelay other(kOptions);
  EXPECT_FALSE(other.should_shed(std::chrono::milliseconds::max(), at(0ms)));
  EXPECT_TRUE(other.should_shed(std::chrono::milliseconds::max(), at(100ms)));
}

/// A server that serves one guest a millisecond, and a queue before it.
class Simulation {
 public:
  int served = 0;
  int shed = 0;
  Clock::duration longest_wait_of_served{0};
  QueueDelay delay{kOptions};

  /// One guest comes every `every`.
  void run(Clock::duration length, Clock::duration every) {
    longest_wait_of_served = {};
    for (const Clock::time_point end = now_ + length; now_ < end; now_ += 1ms) {
      for (; next_ <= now_; next_ += every) queue_.push_back(next_);
      serve_one();
    }
  }

 private:
  void serve_one() {
    for (bool is_served = false; !is_served && !queue_.empty(); queue_.pop_front()) {
      const Clock::duration waited = now_ - queue_.front();
      constexpr auto kTick = 4ms;  // the kernel's
      is_served = !delay.should_shed(waited / kTick * kTick, now_);
      ++(is_served ? served : shed);
      if (is_served) longest_wait_of_served = std::max(longest_wait_of_served, waited);
    }
    if (queue_.empty()) delay.emptied();
  }

  Clock::time_point now_ = at(0ms);
  Clock::time_point next_ = now_;
  std::deque<Clock::time_point> queue_;
};

TEST(QueueDelay, KeepsAnOverloadedServerBusyWithGuestsWhoStillWait) {
  Simulation simulation;
  simulation.run(1s, 2ms);
  EXPECT_EQ(simulation.shed, 0) << "half of what it can do is no overload";
  simulation.run(500ms, 500us);  // twice as many as it can serve
  EXPECT_TRUE(simulation.delay.is_overloaded());
  const int served_before = simulation.served;
  simulation.run(10s, 500us);
  EXPECT_EQ(simulation.served - served_before, 10'000) << "it is never idle for having shed too many";
  EXPECT_LE(simulation.longest_wait_of_served, 44ms) << "twice the target, and a tick of the kernel";
  EXPECT_NEAR(simulation.shed, 10'000, 1'000) << "no more than it cannot serve";
  simulation.run(1s, 2ms);
  EXPECT_FALSE(simulation.delay.is_overloaded());
  const int shed_before = simulation.shed;
  simulation.run(1s, 2ms);
  EXPECT_EQ(simulation.shed, shed_before);
}

}  // namespace
}  // namespace anteroom
