// The wheel by itself, with times that are made up: years pass in a moment.
#include "timer_wheel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <optional>
#include <random>
#include <vector>

namespace anteroom {
namespace {

using namespace std::chrono_literals;
using Clock = TimerWheel::Clock;
using Time = Clock::time_point;

constexpr auto kTick = std::chrono::nanoseconds(1 << TimerWheel::kTickBits);

struct Entry final : TimerEntry {
  std::function<void(Entry&)> handler;
  Time when{};
  bool was_due = false;    // when it was armed
  int armed_in_turn = -1;  // by a handler
  void expired() noexcept override { handler(*this); }
};

/// The wheel, and beside it the simplest thing that does the same.
class Compared {
 public:
  explicit Compared(Time start, std::size_t count) : now_(start), wheel_(start), entries_(count) {
    for (Entry& entry : entries_) entry.handler = [this](Entry& fired) { fire_one(fired); };
  }
  ~Compared() {
    for (Entry& entry : entries_) wheel_.cancel(entry);
  }
  Compared(const Compared&) = delete;
  Compared& operator=(const Compared&) = delete;

  std::size_t size() const { return entries_.size(); }
  Time now() const { return now_; }

  void arm(std::size_t which, Time when) {
    Entry& entry = entries_[which];
    forget(entry);
    entry.when = when;
    entry.was_due = when <= now_;
    entry.armed_in_turn = firing_ ? turn_ : -1;
    model_.emplace(when, &entry);
    wheel_.arm(entry, when);
    EXPECT_TRUE(entry.is_linked());
  }

  void cancel(std::size_t which) {
    forget(entries_[which]);
    wheel_.cancel(entries_[which]);
    EXPECT_FALSE(entries_[which].is_linked());
  }

  void advance(Time now) {
    now_ = now;
    last_tick_ = 0;
    ++turn_;
    firing_ = true;
    wheel_.fire(now);
    firing_ = false;
    // Whatever was due a tick ago has fired; what is due in this tick may have to wait for the next.
    for (auto at = model_.begin(); at != model_.end() && at->first + kTick <= now_; ++at) {
      EXPECT_EQ(at->second->armed_in_turn, turn_) << "late by " << (now_ - at->first).count() << " ns";
    }
  }

  std::optional<Time> next() const {
    const std::optional<Time> next = wheel_.next();
    EXPECT_TRUE(model_.empty() || next) << "timers are armed, and the wheel knows of none";
    if (next && !model_.empty()) {
      EXPECT_LT(*next, model_.begin()->first + kTick) << "would sleep past a deadline";
    }
    return next;
  }

  int fired() const { return fired_; }
  std::function<void()> in_handler;

 private:
  void forget(const Entry& entry) {
    for (auto [at, end] = model_.equal_range(entry.when); at != end; ++at) {
      if (at->second != &entry) continue;
      model_.erase(at);
      return;
    }
  }

  void fire_one(Entry& entry) {
    ++fired_;
    EXPECT_LE(entry.when, now_) << "early";
    EXPECT_FALSE(entry.is_linked());
    EXPECT_NE(entry.armed_in_turn, turn_) << "what a handler arms waits for the next call";
    EXPECT_TRUE(entry.was_due || entry.tick >= last_tick_) << "out of order";
    last_tick_ = std::max(last_tick_, entry.tick);
    forget(entry);
    if (in_handler) in_handler();
  }

  Time now_;
  std::uint64_t last_tick_ = 0;
  int turn_ = 0;
  bool firing_ = false;
  int fired_ = 0;
  TimerWheel wheel_;
  std::vector<Entry> entries_;
  std::multimap<Time, Entry*> model_;
};

/// From nanoseconds to years, each magnitude as likely as the others.
std::chrono::nanoseconds any_duration(std::mt19937_64& random, int bits_max) {
  return std::chrono::nanoseconds(random() >> (63 - random() % static_cast<unsigned>(bits_max)));
}

TEST(TimerWheel, FiresWhatTheModelFiresWhateverIsArmedAndCancelled) {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    std::mt19937_64 random(seed);
    Compared timers(Time(any_duration(random, 50)), 1 + random() % 60);
    for (int step = 0; step < 1500; ++step) {
      const std::size_t which = random() % timers.size();
      switch (random() % 6) {
        case 0:
        case 1:
        case 2:
          timers.arm(which, timers.now() + any_duration(random, 54));
          break;
        case 3:
          timers.cancel(which);
          break;
        case 4:
          timers.advance(timers.now() + any_duration(random, 40));
          break;
        default:
          if (const auto next = timers.next()) timers.advance(std::max(*next, timers.now()));
      }
      (void)timers.next();
    }
    ASSERT_GT(timers.fired(), 50);
    if (HasFailure()) FAIL() << "seed " << seed;
  }
}

TEST(TimerWheel, FiresWhatTheModelFiresWhenHandlersArmAndCancel) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    std::mt19937_64 random(seed);
    Compared timers(Time(any_duration(random, 50)), 40);
    timers.in_handler = [&] {
      if (random() % 2 == 0)
        timers.arm(random() % timers.size(), timers.now() + any_duration(random, 30) - 1us);
      if (random() % 3 == 0) timers.cancel(random() % timers.size());
    };
    for (int step = 0; step < 800; ++step) {
      timers.arm(random() % timers.size(), timers.now() + any_duration(random, 34));
      if (random() % 3 == 0) timers.advance(timers.now() + any_duration(random, 34));
      (void)timers.next();
    }
    ASSERT_GT(timers.fired(), 50);
    if (HasFailure()) FAIL() << "seed " << seed;
  }
}

TEST(TimerWheel, FiresInTheOrderOfDeadlinesAfterALongSleep) {
  std::mt19937_64 random(5);
  TimerWheel wheel(Time(1h));
  std::vector<Entry> entries(500);
  std::vector<std::uint64_t> ticks;
  for (Entry& entry : entries) {
    entry.handler = [&](Entry& fired) { ticks.push_back(fired.tick); };
    wheel.arm(entry, Time(1h) + any_duration(random, 50));
  }
  wheel.fire(Time(24h * 365));
  EXPECT_EQ(ticks.size(), entries.size());
  EXPECT_TRUE(std::is_sorted(ticks.begin(), ticks.end()));
}

TEST(TimerWheel, WakesAFewTimesAtMostForOneFarDeadline) {
  for (const std::chrono::nanoseconds far :
       std::initializer_list<std::chrono::nanoseconds>{1us, 20ms, 3s, 7h, 24h * 30, 24h * 365 * 100}) {
    TimerWheel wheel(Time(12345678ns));
    Entry entry;
    int fired = 0;
    entry.handler = [&](Entry&) { ++fired; };
    wheel.arm(entry, Time(12345678ns) + far);
    int wakes = 0;
    for (; fired == 0 && wakes < 100; ++wakes) wheel.fire(*wheel.next());
    EXPECT_EQ(fired, 1);
    EXPECT_EQ(wakes, 1) << "it knows the very deadline, not only the slot";
    EXPECT_FALSE(wheel.next());
  }
}

TEST(TimerWheel, MayWakeForACancelledTimerOnceAndNotAgain) {
  TimerWheel wheel(Time(1s));
  Entry early;
  Entry late;
  int fired = 0;
  early.handler = late.handler = [&](Entry&) { ++fired; };
  wheel.arm(late, Time(1s) + 3h + 1min);
  wheel.arm(early, Time(1s) + 3h);
  wheel.cancel(early);
  int wakes = 0;
  for (; fired == 0 && wakes < 20; ++wakes) wheel.fire(*wheel.next());
  EXPECT_EQ(fired, 1);
  EXPECT_LE(wakes, 9) << "at most one for each level";
}

TEST(TimerWheel, KnowsOfNoTimerWhenAllAreCancelled) {
  std::mt19937_64 random(6);
  TimerWheel wheel(Time(1s));
  std::vector<Entry> entries(200);
  for (Entry& entry : entries) wheel.arm(entry, Time(1s) + any_duration(random, 60));
  EXPECT_TRUE(wheel.next());
  for (Entry& entry : entries) wheel.cancel(entry);
  EXPECT_FALSE(wheel.next());
  for (Entry& entry : entries) wheel.cancel(entry);  // twice is once
  wheel.fire(Time(24h * 365 * 100));
}

TEST(TimerWheel, HoldsTheFirstAndTheLastTimeThereIs) {
  TimerWheel wheel(Time(1s));
  Entry first;
  Entry last;
  int fired = 0;
  first.handler = last.handler = [&](Entry&) { ++fired; };
  wheel.arm(first, Time::min());
  wheel.arm(last, Time::max());
  wheel.fire(Time(1s));
  EXPECT_EQ(fired, 1);
  EXPECT_TRUE(last.is_linked());
  ASSERT_TRUE(wheel.next());
  EXPECT_GT(*wheel.next(), Time(24h * 365 * 140));
  wheel.fire(Time::max());
  EXPECT_EQ(fired, 2);
  EXPECT_FALSE(wheel.next());
}

TEST(TimerWheel, WaitsForTheNextCallWithWhatAHandlerArmsForNow) {
  TimerWheel wheel(Time(1s));
  Entry entry;
  int fired = 0;
  entry.handler = [&](Entry& self) {
    if (++fired < 10) wheel.arm(self, Time(0s));
  };
  wheel.arm(entry, Time(0s));
  for (int i = 1; i <= 10; ++i) {
    EXPECT_TRUE(wheel.next());
    wheel.fire(Time(1s));
    EXPECT_EQ(fired, i);
  }
  EXPECT_FALSE(wheel.next());
}

// A clock that two threads read may seem to stand still, or to have gone back by a little.
TEST(TimerWheel, MayBeToldAnEarlierTimeThanBefore) {
  TimerWheel wheel(Time(10s));
  Entry entry;
  int fired = 0;
  entry.handler = [&](Entry&) { ++fired; };
  wheel.fire(Time(20s));
  wheel.arm(entry, Time(20s) + 1ms);
  wheel.fire(Time(15s));
  EXPECT_EQ(fired, 0);
  wheel.fire(Time(20s) + 1ms + kTick);
  EXPECT_EQ(fired, 1);
}

}  // namespace
}  // namespace anteroom
