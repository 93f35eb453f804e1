#include <anteroom/bench/arrival.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace anteroom::bench {
namespace {

using std::chrono::nanoseconds;

TEST(Arrival, OfABurstIsAllAtOnce) {
  for (const nanoseconds time : schedule(Arrival::kBurst, 100, 0, 1)) EXPECT_EQ(time, nanoseconds(0));
}

TEST(Arrival, IsSteadyToTheNanosecond) {
  const auto times = schedule(Arrival::kSteady, 1001, 3000, 1);
  EXPECT_EQ(times.front(), nanoseconds(0));
  EXPECT_NEAR(static_cast<double>(times.back().count()), 1000.0 / 3000 * 1e9, 2);
  EXPECT_TRUE(std::ranges::is_sorted(times));
}

TEST(Arrival, OfPoissonHasTheRateAndTheDispersionOfPoisson) {
  constexpr int kClients = 200'000;
  constexpr double kRate = 5000;
  const auto times = schedule(Arrival::kPoisson, kClients, kRate, 42);
  EXPECT_TRUE(std::ranges::is_sorted(times));
  EXPECT_NEAR(static_cast<double>(times.back().count()) * 1e-9, kClients / kRate, kClients / kRate * 0.01);
  // Counts in windows of 100 ms: their variance is their mean.
  std::vector<double> counts(static_cast<std::size_t>(times.back() / std::chrono::milliseconds(100)) + 1);
  for (const nanoseconds time : times)
    ++counts[static_cast<std::size_t>(time / std::chrono::milliseconds(100))];
  counts.pop_back();
  double mean = 0;
  for (const double count : counts) mean += count / static_cast<double>(counts.size());
  double variance = 0;
  for (const double count : counts)
    variance += (count - mean) * (count - mean) / static_cast<double>(counts.size());
  EXPECT_NEAR(mean, 500, 10);
  EXPECT_NEAR(variance / mean, 1, 0.25);
}

TEST(Arrival, IsTheSameForTheSameSeedAndAnotherForAnother) {
  EXPECT_EQ(schedule(Arrival::kPoisson, 1000, 100, 9), schedule(Arrival::kPoisson, 1000, 100, 9));
  EXPECT_NE(schedule(Arrival::kPoisson, 1000, 100, 9), schedule(Arrival::kPoisson, 1000, 100, 10));
  // To the byte, on every machine and with every library: the third client, worked out apart from this code.
  EXPECT_EQ(schedule(Arrival::kPoisson, 3, 1000, 1)[2].count(), 861492);
}

}  // namespace
}  // namespace anteroom::bench
