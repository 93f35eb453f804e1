#include <anteroom/bench/arrival.h>
#include <anteroom/bench/scenario.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace anteroom::bench {
namespace {

using std::chrono::nanoseconds;

/// Counts in windows, the last of which may be cut short and is left out.
struct Counts {
  double mean = 0;
  double variance = 0;
};
Counts count(const std::vector<nanoseconds>& times, nanoseconds window) {
  std::vector<double> counts(static_cast<std::size_t>(times.back() / window) + 1);
  for (const nanoseconds time : times) ++counts[static_cast<std::size_t>(time / window)];
  counts.pop_back();
  const auto n = static_cast<double>(counts.size());
  Counts result;
  for (const double value : counts) result.mean += value / n;
  for (const double value : counts) result.variance += (value - result.mean) * (value - result.mean) / n;
  return result;
}

TEST(Arrival, OfABurstIsAllAtOnce) {
  for (const nanoseconds time : schedule({.clients = 100})) EXPECT_EQ(time, nanoseconds(0));
}

TEST(Arrival, IsSteadyToTheNanosecond) {
  const auto times = schedule({.clients = 1001, .arrival = Arrival::kSteady, .rate = 3000});
  EXPECT_EQ(times.front(), nanoseconds(0));
  EXPECT_NEAR(static_cast<double>(times.back().count()), 1000.0 / 3000 * 1e9, 2);
  EXPECT_TRUE(std::ranges::is_sorted(times));
}

TEST(Arrival, OfPoissonHasTheRateAndTheDispersionOfPoisson) {
  constexpr int kClients = 200'000;
  constexpr double kRate = 5000;
  const auto times = schedule({.clients = kClients, .arrival = Arrival::kPoisson, .rate = kRate, .seed = 42});
  EXPECT_TRUE(std::ranges::is_sorted(times));
  EXPECT_NEAR(static_cast<double>(times.back().count()) * 1e-9, kClients / kRate, kClients / kRate * 0.01);
  const Counts counts = count(times, std::chrono::milliseconds(100));  // their variance is their mean
  EXPECT_NEAR(counts.mean, 500, 10);
  EXPECT_NEAR(counts.variance / counts.mean, 1, 0.25);
}

TEST(Arrival, InClumpsHasTheRateAndTheDispersionThatWereAskedFor) {
  const auto times =
      schedule({.clients = 200'000, .arrival = Arrival::kPoisson, .rate = 5000, .dispersion = 4, .seed = 42});
  EXPECT_TRUE(std::ranges::is_sorted(times));
  const Counts counts = count(times, std::chrono::milliseconds(100));
  EXPECT_NEAR(counts.mean, 500, 10);
  EXPECT_NEAR(counts.variance / counts.mean, 4, 0.8);
}

TEST(Arrival, OfABurstWithinATimeFillsThatTime) {
  const auto times = schedule({.clients = 1000, .burst_within = std::chrono::milliseconds(50), .seed = 3});
  EXPECT_TRUE(std::ranges::is_sorted(times));
  EXPECT_GE(times.front(), nanoseconds(0));
  EXPECT_LT(times.front(), std::chrono::milliseconds(1));
  EXPECT_GT(times.back(), std::chrono::milliseconds(49));
  EXPECT_LE(times.back(), std::chrono::milliseconds(50));
}

TEST(Arrival, OnAndOffHasItsRateOverBothAndNobodyWhileItIsOff) {
  const Scenario scenario{.clients = 100'000,
                          .arrival = Arrival::kOnOff,
                          .rate = 5000,
                          .on = std::chrono::milliseconds(50),
                          .off = std::chrono::milliseconds(150),
                          .seed = 5};
  const auto times = schedule(scenario);
  EXPECT_TRUE(std::ranges::is_sorted(times));
  EXPECT_NEAR(static_cast<double>(times.back().count()) * 1e-9, 20, 0.6);
  int gaps = 0;
  for (std::size_t i = 1; i < times.size(); ++i) {
    if (times[i] - times[i - 1] > std::chrono::milliseconds(100)) ++gaps;
  }
  EXPECT_NEAR(gaps, 100, 5);  // one each 200 ms
}

TEST(Arrival, RampsUpToItsRate) {
  const auto times = schedule({.clients = 5000, .arrival = Arrival::kRamp, .rate = 10'000});
  EXPECT_TRUE(std::ranges::is_sorted(times));
  EXPECT_NEAR(static_cast<double>(times.back().count()) * 1e-9, 1, 0.01);
  const auto first_half = std::ranges::lower_bound(times, std::chrono::milliseconds(500)) - times.begin();
  EXPECT_NEAR(static_cast<double>(first_half), 1250, 10);  // a quarter of all
}

TEST(Arrival, AddsBurstsToWhoeverComesAnyway) {
  Scenario scenario{.clients = 10'000,
                    .arrival = Arrival::kSteady,
                    .rate = 1000,
                    .burst = 500,
                    .burst_every = std::chrono::milliseconds(500),
                    .burst_within = std::chrono::milliseconds(10),
                    .seed = 8};
  EXPECT_EQ(scenario.load_length(), std::chrono::seconds(5));
  const auto times = schedule(scenario);
  EXPECT_TRUE(std::ranges::is_sorted(times));
  EXPECT_NEAR(static_cast<double>(times.back().count()) * 1e-9, 5, 0.5);
  int bursts = 0;
  for (std::size_t i = 400; i < times.size(); ++i) {
    if (times[i] - times[i - 400] < std::chrono::milliseconds(11)) {
      ++bursts;
      i += 400;
    }
  }
  EXPECT_NEAR(bursts, 10, 1);
}

TEST(Arrival, IsTheSameForTheSameSeedAndAnotherForAnother) {
  Scenario scenario{.clients = 1000,
                    .arrival = Arrival::kPoisson,
                    .rate = 1000,
                    .burst = 50,
                    .burst_every = std::chrono::milliseconds(100),
                    .burst_within = std::chrono::milliseconds(5),
                    .seed = 9};
  for (const Arrival arrival :
       {Arrival::kBurst, Arrival::kSteady, Arrival::kPoisson, Arrival::kOnOff, Arrival::kRamp}) {
    scenario.arrival = arrival;
    scenario.on = scenario.off = std::chrono::milliseconds(20);
    Scenario other = scenario;
    EXPECT_EQ(schedule(scenario), schedule(other)) << name(arrival);
    other.seed = 10;
    EXPECT_NE(schedule(scenario), schedule(other)) << name(arrival);
  }
  // To the byte, on every machine and with every library: the third client, worked out apart from this code.
  EXPECT_EQ(schedule({.clients = 3, .arrival = Arrival::kPoisson, .rate = 1000, .seed = 1})[2].count(),
            861492);
}

}  // namespace
}  // namespace anteroom::bench
