#include <anteroom/log2_histogram.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

namespace anteroom {
namespace {

constexpr std::uint64_t kLargest = std::numeric_limits<std::uint64_t>::max();

TEST(Log2Histogram, OfNothingKnowsNothing) {
  const Log2Histogram none;
  EXPECT_EQ(none.count(), 0U);
  EXPECT_EQ(none.sum(), 0U);
  EXPECT_EQ(none.max(), 0U);
  EXPECT_EQ(none.quantile(0.5), 0U);
  EXPECT_EQ(none.quantile(1), 0U);
}

TEST(Log2Histogram, PutsEachNumberIntoTheBucketThatHoldsIt) {
  std::vector<std::uint64_t> values = {0, 1, kLargest};
  for (int bits = 1; bits < 64; ++bits) {
    for (const int beside : {-1, 0, 1})
      values.push_back((std::uint64_t{1} << bits) + static_cast<std::uint64_t>(beside));
  }
  for (const std::uint64_t value : values) {
    Log2Histogram one;
    one.record(value);
    const auto filled = std::ranges::find(one.buckets(), 1U);
    ASSERT_NE(filled, one.buckets().end());
    const auto bucket = static_cast<std::size_t>(filled - one.buckets().begin());
    EXPECT_LE(value, Log2Histogram::upper_bound(bucket));
    if (bucket > 0) {
      EXPECT_GT(value, Log2Histogram::upper_bound(bucket - 1));
    }
    EXPECT_EQ(one.max(), value);
    EXPECT_EQ(one.sum(), value);
    EXPECT_EQ(one.quantile(0.5), value) << "no more than the largest";
  }
}

TEST(Log2Histogram, GivesAQuantileThatIsNeverTooSmallAndAtMostTwiceTooLarge) {
  std::mt19937 random(5);
  std::lognormal_distribution<double> waits(5, 2);
  for (const std::size_t count : {1U, 2U, 10U, 999U}) {
    Log2Histogram histogram;
    std::vector<std::uint64_t> values;
    for (std::size_t i = 0; i < count; ++i) {
      values.push_back(static_cast<std::uint64_t>(waits(random)));
      histogram.record(values.back());
    }
    std::ranges::sort(values);
    for (const double q : {0.0, 0.1, 0.5, 0.9, 0.99, 1.0}) {
      const auto rank = static_cast<std::size_t>(q * static_cast<double>(count));
      const std::uint64_t exact = values[std::min(rank, count - 1)];
      EXPECT_GE(histogram.quantile(q), exact) << q << " of " << count;
      EXPECT_LE(histogram.quantile(q), 2 * exact) << q << " of " << count;
    }
    EXPECT_EQ(histogram.quantile(1), values.back());
  }
}

TEST(Log2Histogram, TakesAQuantileThatThereIsNotForTheNextThatThereIs) {
  Log2Histogram histogram;
  for (const std::uint64_t value : {1U, 10U, 100U}) histogram.record(value);
  EXPECT_EQ(histogram.quantile(-1), histogram.quantile(0));
  EXPECT_EQ(histogram.quantile(7), histogram.quantile(1));
  EXPECT_EQ(histogram.quantile(std::numeric_limits<double>::quiet_NaN()), histogram.quantile(0));
}

TEST(Log2Histogram, MergedIsAsIfAllHadBeenRecordedInOne) {
  Log2Histogram first;
  Log2Histogram second;
  Log2Histogram both;
  for (std::uint64_t value = 0; value < 1000; ++value) {
    (value % 3 == 0 ? first : second).record(value * value);
    both.record(value * value);
  }
  first.merge(second);
  EXPECT_EQ(first.buckets(), both.buckets());
  EXPECT_EQ(first.count(), 1000U);
  EXPECT_EQ(first.sum(), both.sum());
  EXPECT_EQ(first.max(), both.max());
}

}  // namespace
}  // namespace anteroom
