#include <anteroom/bench/histogram.h>
#include <anteroom/bench/random.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace anteroom::bench {
namespace {

using std::chrono::nanoseconds;

TEST(Histogram, OfNothingSaysZero) {
  const Histogram histogram;
  EXPECT_EQ(histogram.count(), 0U);
  EXPECT_EQ(histogram.percentile(0.5), nanoseconds(0));
  EXPECT_EQ(histogram.max(), nanoseconds(0));
}

TEST(Histogram, IsExactBelow256Nanoseconds) {
  for (int value = 0; value < 256; ++value) {
    Histogram histogram;
    histogram.record(nanoseconds(value));
    histogram.record(nanoseconds(1'000'000));
    EXPECT_EQ(histogram.percentile(0.5), nanoseconds(value));
  }
}

TEST(Histogram, KnowsEveryPercentileToWithinItsStep) {
  Random random(7);
  Histogram histogram;
  std::vector<std::int64_t> values;
  for (int i = 0; i < 20'000; ++i) {
    values.push_back(
        static_cast<std::int64_t>(std::exp(random.unit() * 27)));  // 1 ns to 9 minutes, each decade alike
    histogram.record(nanoseconds(values.back()));
  }
  std::ranges::sort(values);
  for (const double share : {0.001, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0}) {
    const auto rank = static_cast<std::size_t>(std::ceil(share * static_cast<double>(values.size()))) - 1;
    const auto exact = static_cast<double>(values[rank]);
    const auto said = static_cast<double>(histogram.percentile(share).count());
    EXPECT_GE(said, exact) << share;
    EXPECT_LE(said, exact * (1 + 1.0 / 128) + 1) << share;
  }
  EXPECT_EQ(histogram.max(), nanoseconds(values.back()));
}

TEST(Histogram, MergedIsAsIfAllHadBeenRecordedInOne) {
  Histogram one;
  Histogram left;
  Histogram right;
  Random random(3);
  for (int i = 0; i < 1000; ++i) {
    const nanoseconds value(static_cast<std::int64_t>(random.below(10'000'000)));
    one.record(value);
    (i % 3 == 0 ? left : right).record(value);
  }
  left.merge(right);
  EXPECT_EQ(left.count(), one.count());
  EXPECT_EQ(left.max(), one.max());
  for (const double share : {0.01, 0.5, 0.99}) EXPECT_EQ(left.percentile(share), one.percentile(share));
}

TEST(Histogram, KeepsWhatIsBeyondItsRange) {
  Histogram histogram;
  histogram.record(std::chrono::hours(100));
  histogram.record(nanoseconds(-5));
  EXPECT_EQ(histogram.count(), 2U);
  EXPECT_EQ(histogram.max(), std::chrono::hours(100));
  EXPECT_EQ(histogram.percentile(0.5), nanoseconds(0));
}

}  // namespace
}  // namespace anteroom::bench
