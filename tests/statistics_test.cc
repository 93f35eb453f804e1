#include <anteroom/bench/models.h>
#include <anteroom/bench/random.h>
#include <anteroom/bench/statistics.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numbers>
#include <vector>

namespace anteroom::bench {
namespace {

using Sample = std::vector<double>;

double normal(Random& random) { return normal_quantile(random.unit() * (1 - 1e-12)); }

/// Skewed to the right, as times are; its median is 1.
double log_normal(Random& random) { return std::exp(0.5 * normal(random)); }

Sample draw(std::size_t n, const std::function<double()>& one) {
  Sample sample(n);
  for (double& value : sample) value = one();
  return sample;
}

constexpr int kCases = 400;

/// In how many of so many cases something holds, as a share.
double share_of_cases(const std::function<bool(std::uint64_t)>& holds, int cases = kCases) {
  int held = 0;
  for (int i = 0; i < cases; ++i) held += holds(static_cast<std::uint64_t>(i)) ? 1 : 0;
  return static_cast<double>(held) / cases;
}

// Medians.

TEST(Estimate, OfFewRunsIsAsWideAsTheyAre) {
  const Estimate none = estimate({}, 1);
  EXPECT_EQ(none.n, 0);
  EXPECT_EQ(none.median, 0);
  EXPECT_EQ(none.half_width_share(), 0);
  const Estimate one = estimate({7}, 1);
  EXPECT_EQ(one.n, 1);
  EXPECT_EQ(one.median, 7);
  EXPECT_EQ(one.low, 7);
  EXPECT_EQ(one.high, 7);
  const Estimate four = estimate({4, 1, 3, 2}, 1);
  EXPECT_EQ(four.median, 2.5);
  EXPECT_EQ(four.low, 1);
  EXPECT_EQ(four.high, 4);
  EXPECT_DOUBLE_EQ(four.half_width_share(), 0.6);
}

TEST(Estimate, LeavesOutWhatIsFarOff) {
  const Estimate nine = estimate({5, 3, 4, 6, 7, 1000, 2, 1, 8}, 1);
  EXPECT_EQ(nine.n, 9);
  EXPECT_EQ(nine.median, 5);
  EXPECT_EQ(nine.least, 1);
  EXPECT_EQ(nine.most, 1000);
  EXPECT_GT(nine.low, nine.least);
  EXPECT_LT(nine.low, 5);
  EXPECT_LE(nine.high, 8);
  EXPECT_GT(nine.high, 5);
}

TEST(Estimate, IsTheSameForTheSameSeedAndAnotherForAnother) {
  Random random(1);
  const Sample runs = draw(40, [&] { return normal(random); });
  EXPECT_EQ(estimate(runs, 5).low, estimate(runs, 5).low);
  EXPECT_EQ(estimate(runs, 5).high, estimate(runs, 5).high);
  bool differs = false;
  for (std::uint64_t seed = 6; seed < 26; ++seed)
    differs |= estimate(runs, seed).low != estimate(runs, 5).low;
  EXPECT_TRUE(differs);
}

TEST(Estimate, CoversTheMedianAsOftenAsItSays) {
  for (const std::size_t n : {9U, 20U}) {
    Random random(n);
    const double covered = share_of_cases([&](std::uint64_t seed) {
      const Estimate found = estimate(draw(n, [&] { return log_normal(random); }), seed);
      return found.low <= 1 && 1 <= found.high;
    });
    EXPECT_GE(covered, 0.90) << n;
    EXPECT_LE(covered, 0.99) << n;
  }
}

TEST(Estimate, KnowsItsWidthAsAShareOfItsMedian) {
  EXPECT_DOUBLE_EQ((Estimate{.median = 100, .low = 95, .high = 107}).half_width_share(), 0.06);
  EXPECT_DOUBLE_EQ((Estimate{.median = -100, .low = -105, .high = -95}).half_width_share(), 0.05);
  EXPECT_EQ((Estimate{.median = 0, .low = 0, .high = 1}).half_width_share(),
            std::numeric_limits<double>::infinity());
}

TEST(MedianRatio, HasTheIntervalOfTheSignTest) {
  // Of 1 to n the ends are their ranks, as in the tables of the sign test.
  const auto ends = [](int n) {
    Sample ratios;
    for (int rank = n; rank >= 1; --rank) ratios.push_back(rank);
    const Estimate found = median_ratio(ratios);
    EXPECT_EQ(found.median, (n + 1) / 2.0);
    EXPECT_EQ(found.n, n);
    return std::pair(found.low, found.high);
  };
  EXPECT_EQ(ends(5), std::pair(1.0, 5.0));
  EXPECT_EQ(ends(6), std::pair(1.0, 6.0));
  EXPECT_EQ(ends(8), std::pair(1.0, 8.0));
  EXPECT_EQ(ends(9), std::pair(2.0, 8.0));
  EXPECT_EQ(ends(10), std::pair(2.0, 9.0));
  EXPECT_EQ(ends(20), std::pair(6.0, 15.0));
  EXPECT_EQ(ends(100), std::pair(40.0, 61.0));
  EXPECT_EQ(ends(2000), std::pair(956.0, 1045.0));
  EXPECT_EQ(median_ratio({}).n, 0);
  EXPECT_EQ(median_ratio({3}).low, 3);
}

TEST(MedianRatio, CoversTheMedianAsOftenAsItSays) {
  Random random(3);
  const double covered = share_of_cases([&](std::uint64_t) {
    const Estimate found = median_ratio(draw(12, [&] { return log_normal(random); }));
    return found.low <= 1 && 1 <= found.high;
  });
  EXPECT_GE(covered, 0.93);
  EXPECT_LE(covered, 0.995);  // whole ranks: 96.1 %
}

// Losses.

TEST(LossBound, OfEqualBlocksIsTheirShare) {
  EXPECT_EQ(upper_bound({0.25, 0.25, 0.25}, 1), 0.25);
  EXPECT_DOUBLE_EQ(upper_bound(Sample(30, 0.1), 1), 0.1);
  EXPECT_EQ(upper_bound(Sample(30, 0), 1), 0);
  EXPECT_EQ(upper_bound({0.3}, 1), 0.3);
  EXPECT_EQ(upper_bound({}, 1), 1);
  EXPECT_EQ(loss_upper_bound({}, 1), 1);
  EXPECT_EQ(loss_upper_bound({{.lost = 0, .clients = 0}}, 1), 1);
  EXPECT_EQ(loss_upper_bound({{.lost = 3, .clients = 12}}, 1), 0.25);
  EXPECT_DOUBLE_EQ(loss_upper_bound({{.lost = 3, .clients = 12}, {.lost = 25, .clients = 100}}, 1), 0.25);
}

TEST(LossBound, IsNeverMoreThanAll) {
  EXPECT_EQ(upper_bound({0, 1}, 1), 1);
  EXPECT_LT(upper_bound({0.1, 0.2, 0.1, 0.2, 0.15}, 1), 0.25);
}

TEST(LossBound, IsAtLeastStudents) {
  // Mean 0.2, deviation 0.1, n = 4: 0.2 + 2.353 x 0.1 / 2.
  const double reach = 0.1 * std::sqrt(3) / 2;
  const double bound = upper_bound({0.2 - reach, 0.2 - reach, 0.2 + reach, 0.2 + reach}, 1);
  EXPECT_NEAR(bound, 0.2 + 2.35336 * 0.05, 1e-5);
}

TEST(LossBound, KnowsABlockThatWasFarWorse) {
  // One clump in 40 blocks: the exact bound of such an event's share is 4.5 in 40 (Clopper and Pearson),
  // while Student's t comes to 2.7.
  Sample shares(40, 0);
  shares[7] = 0.4;
  EXPECT_GT(upper_bound(shares, 1), 3.5 * 0.4 / 40);
  EXPECT_LT(upper_bound(shares, 1), 5.5 * 0.4 / 40);
}

TEST(LossBound, WeighsBlocksByTheirClients) {
  const std::vector<BlockLoss> blocks{{.lost = 0, .clients = 1000},
                                      {.lost = 0, .clients = 1000},
                                      {.lost = 10, .clients = 10},
                                      {.lost = 1, .clients = 1000},
                                      {.lost = 0, .clients = 1000}};
  const double bound = loss_upper_bound(blocks, 1);
  EXPECT_GT(bound, 11.0 / 4010);
  EXPECT_LT(bound, 0.05);  // and not the mean share, which is 0.2
}

TEST(LossBound, IsFiniteWhereBlocksHadNoClients) {
  const double bound = loss_upper_bound(
      {{.lost = 0, .clients = 0}, {.lost = 1, .clients = 10}, {.lost = 2, .clients = 10}}, 1);
  EXPECT_GT(bound, 0.15);
  EXPECT_LE(bound, 1);
}

TEST(LossBound, HoldsAsOftenAsItSays) {
  Random random(17);
  // Stalls of 100 clients and more, each of which loses what came beyond 100: 3.99 on average, as 10 x
  // phi(0).
  const double truth = 10 * normal_density(0) / 100;
  const double held = share_of_cases([&](std::uint64_t seed) {
    std::vector<BlockLoss> blocks;
    for (int i = 0; i < 20; ++i) {
      const double come = 100 + 10 * normal(random);
      blocks.push_back({.lost = std::max(0.0, come - 100), .clients = come});
    }
    return loss_upper_bound(blocks, seed) >= truth;
  });
  EXPECT_GE(held, 0.90);
  EXPECT_LE(held, 0.99);
  const double held_by_shares = share_of_cases([&](std::uint64_t seed) {
    return upper_bound(draw(12, [&] { return std::abs(normal(random)) / 20; }), seed) >=
           2 * normal_density(0) / 20;
  });
  EXPECT_GE(held_by_shares, 0.90);
  EXPECT_LE(held_by_shares, 0.99);
}

TEST(LossBound, IsTheSameForTheSameSeedAndLargerForMoreConfidence) {
  Random random(4);
  const Sample shares = draw(20, [&] { return std::pow(random.unit(), 8); });
  EXPECT_EQ(upper_bound(shares, 9), upper_bound(shares, 9));
  EXPECT_GT(upper_bound(shares, 9, 0.99), upper_bound(shares, 9, 0.95));
  EXPECT_GT(upper_bound(shares, 9, 0.95), upper_bound(shares, 9, 0.5));
}

TEST(ZeroBlocks, BoundTheShareOfBlocksThatHaveALoss) {
  EXPECT_EQ(zero_blocks_bound(0), 1);
  EXPECT_DOUBLE_EQ(zero_blocks_bound(1), 0.95);
  EXPECT_NEAR(zero_blocks_bound(10), 0.2589, 0.0001);
  EXPECT_NEAR(zero_blocks_bound(30'000), 1e-4, 1e-6);  // the rule of three
  EXPECT_NEAR(zero_blocks_bound(10, 0.99), 0.3690, 0.0001);
  for (const int n : {1, 7, 400}) EXPECT_NEAR(std::pow(1 - zero_blocks_bound(n), n), 0.05, 1e-12);
}

TEST(Wilson, GivesTheKnownIntervals) {
  const auto check = [](double successes, double n, double low, double high) {
    const Interval interval = wilson(successes, n);
    EXPECT_NEAR(interval.low, low, 0.0001) << successes << "/" << n;
    EXPECT_NEAR(interval.high, high, 0.0001) << successes << "/" << n;
  };
  check(0, 0, 0, 1);
  check(0, 10, 0, 0.2775);
  check(10, 10, 0.7225, 1);
  check(81, 263, 0.2553, 0.3662);  // Newcombe, Statistics in Medicine 17, 1998, table I
  check(15, 148, 0.0624, 0.1605);
  check(1, 29, 0.0061, 0.1718);
}

TEST(ExcessBound, HoldsAtLeastAsOftenAsItSays) {
  Random random(23);
  const double truth = normal_excess(600, 24, 620);
  const double held = share_of_cases([&](std::uint64_t) {
    return normal_excess_upper(draw(5, [&] { return 600 + 24 * normal(random); }), 620) >= truth;
  });
  EXPECT_GE(held, 0.95);
  EXPECT_LT(held, 1);
}

TEST(ExcessBound, OfOnePeakTakesItForACount) {
  EXPECT_NEAR(normal_excess_upper({100}, 100), normal_excess(100 + 16.44854, 10, 100), 1e-4);
  EXPECT_EQ(normal_excess_upper({0}, 10), 0);
  EXPECT_EQ(normal_excess_upper({}, 10), std::numeric_limits<double>::infinity());
}

TEST(ExcessBound, OfEqualPeaksIsTheExcessItself) {
  EXPECT_EQ(normal_excess_upper({129, 129, 129}, 120), 9);
  EXPECT_EQ(normal_excess_upper({129, 129, 129}, 130), 0);
}

TEST(ExcessBound, IsWorkedOutFromBothEnds) {
  // Mean 110, deviation 10, n = 3: t = 2.91999, chi-square = 0.102587.
  const double expected =
      normal_excess(110 + 2.919986 * 10 / std::sqrt(3), 10 * std::sqrt(2 / 0.1025866), 120);
  EXPECT_NEAR(normal_excess_upper({100, 110, 120}, 120), expected, 1e-4);
}

// Comparisons.

TEST(MannWhitney, GivesThePublishedValues) {
  EXPECT_NEAR(mann_whitney_p({1, 2, 3}, {4, 5, 6}), 0.1, 1e-12);
  EXPECT_NEAR(mann_whitney_p({1, 2, 3, 4, 5}, {6, 7, 8, 9, 10}), 2.0 / 252, 1e-12);
  EXPECT_NEAR(mann_whitney_p({6, 7, 8, 9, 10}, {1, 2, 3, 4, 5}), 2.0 / 252, 1e-12);
  // The tables of Mann and Whitney, n = m = 5: U = 2 has 0.016 on a side, U = 3 has 0.028.
  EXPECT_NEAR(mann_whitney_p({1, 2, 3, 5, 6}, {4, 7, 8, 9, 10}), 8.0 / 252, 1e-12);
  EXPECT_NEAR(mann_whitney_p({1, 2, 3, 4, 8}, {5, 6, 7, 9, 10}), 14.0 / 252, 1e-12);
  EXPECT_NEAR(mann_whitney_p({1, 2}, {3, 4, 5, 6, 7, 8}), 2.0 / 28, 1e-12);
  EXPECT_EQ(mann_whitney_p({1, 4}, {2, 3}), 1);
  EXPECT_EQ(mann_whitney_p({1}, {2}), 1);
}

TEST(MannWhitney, SaysNothingOfNothing) {
  EXPECT_EQ(mann_whitney_p({}, {}), 1);
  EXPECT_EQ(mann_whitney_p({}, {1, 2}), 1);
  EXPECT_EQ(mann_whitney_p({1, 2}, {}), 1);
  EXPECT_EQ(mann_whitney_p(Sample(9, 5), Sample(9, 5)), 1);
  EXPECT_EQ(mann_whitney_p(Sample(50, 5), Sample(50, 5)), 1);
}

/// Share of the splits of all values for which U is as far from its mean: the definition, by trying `splits`.
double p_by_shuffling(const Sample& a, const Sample& b, int splits) {
  const auto distance = [&](const Sample& all) {
    double u = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      for (std::size_t j = a.size(); j < all.size(); ++j)
        u += all[i] > all[j] ? 1 : all[i] == all[j] ? 0.5 : 0;
    }
    return std::abs(u - static_cast<double>(a.size() * b.size()) / 2);
  };
  Sample all = a;
  all.insert(all.end(), b.begin(), b.end());
  const double seen = distance(all);
  Random random(77);
  return share_of_cases(
      [&](std::uint64_t) {
        random.shuffle(all);
        return distance(all) >= seen;
      },
      splits);
}

TEST(MannWhitney, CountsTiesAsEverySplitWould) {
  Random random(8);
  for (int shift = 0; shift < 3; ++shift) {
    const Sample a = draw(7, [&] { return static_cast<double>(random.below(4)); });
    const Sample b = draw(9, [&] { return static_cast<double>(random.below(4)) + shift; });
    EXPECT_NEAR(mann_whitney_p(a, b), p_by_shuffling(a, b, 20'000), 0.015) << shift;
  }
  // By hand: of the 6 splits of 1 1 1 2 into two pairs 3 have the 2 on this side, and 3 on the other.
  EXPECT_EQ(mann_whitney_p({1, 1}, {1, 2}), 1);
  // Of the 20 splits of 1 1 1 2 2 2 only two are as far apart.
  EXPECT_NEAR(mann_whitney_p({1, 1, 1}, {2, 2, 2}), 0.1, 1e-12);
}

TEST(MannWhitney, ComesNearToEverySplitWhereItUsesTheNormal) {
  Random random(9);
  for (int shift = 0; shift < 3; ++shift) {
    const Sample a = draw(25, [&] { return static_cast<double>(random.below(10)); });
    const Sample b = draw(20, [&] { return static_cast<double>(random.below(10)) + shift; });
    EXPECT_NEAR(mann_whitney_p(a, b), p_by_shuffling(a, b, 5'000), 0.02) << shift;
  }
  // Two values only, so the corrections are most of the answer: without the one for ties 0.22, with half a
  // rank for continuity 0.037.
  Sample hits(25, 0);
  Sample misses(25, 0);
  std::fill_n(hits.begin(), 8, 1);
  std::fill_n(misses.begin(), 2, 1);
  EXPECT_NEAR(mann_whitney_p(hits, misses), p_by_shuffling(hits, misses, 10'000), 0.025);
  // 30 below 30: z = 449.5 / sqrt(30 x 30 x 61 / 12).
  Sample low;
  Sample high;
  for (int i = 0; i < 30; ++i) {
    low.push_back(i);
    high.push_back(100 + i);
  }
  const double expected = std::erfc(449.5 / std::sqrt(4575) / std::numbers::sqrt2);
  EXPECT_NEAR(mann_whitney_p(low, high), expected, 1e-6 * expected);
}

TEST(MannWhitney, FindsADifferenceWhereThereIsNoneInAtMostOneOfTwenty) {
  // The statistical half of comparing a server with itself. 2,000 draws: 5 % and three deviations are 6.5 %.
  constexpr int kDraws = 2000;
  for (const std::size_t n : {5U, 9U, 25U}) {
    Random random(100 + n);
    const double found = share_of_cases(
        [&](std::uint64_t) {
          const Sample a = draw(n, [&] { return std::round(20 * log_normal(random)); });
          const Sample b = draw(n, [&] { return std::round(20 * log_normal(random)); });
          return mann_whitney_p(a, b) <= 0.05;
        },
        kDraws);
    EXPECT_LE(found, 0.065) << n;
    EXPECT_GE(found, 0.02) << n;  // it does look
  }
}

TEST(MannWhitney, FindsADifferenceThatIsThere) {
  Random random(10);
  const double found = share_of_cases([&](std::uint64_t) {
    const Sample a = draw(9, [&] { return log_normal(random); });
    const Sample b = draw(9, [&] { return 3 * log_normal(random); });
    return mann_whitney_p(a, b) <= 0.05;
  });
  EXPECT_GE(found, 0.9);
}

TEST(Comparison, OfASampleWithItselfIsOne) {
  const Sample runs{5, 3, 4, 6, 7, 9, 2, 1, 8};
  const Comparison same = compare_runs(runs, runs, 1);
  EXPECT_EQ(same.ratio, 1);
  EXPECT_LT(same.low.value_or(1), 1);
  EXPECT_GT(same.high.value_or(1), 1);
  EXPECT_EQ(same.p, 1);
}

TEST(Comparison, CoversTheRatioAsOftenAsItSays) {
  Random random(15);
  const double covered = share_of_cases([&](std::uint64_t seed) {
    const Sample a = draw(9, [&] { return 2 * log_normal(random); });
    const Sample base = draw(11, [&] { return log_normal(random); });
    const Comparison found = compare_runs(a, base, seed);
    return found.low <= 2.0 && 2.0 <= found.high;
  });
  EXPECT_GE(covered, 0.90);
  EXPECT_LE(covered, 0.99);
}

TEST(Comparison, OfFewRunsIsAsWideAsTheyAllow) {
  const Comparison found = compare_runs({10, 30, 20}, {2, 4, 5}, 1);
  EXPECT_EQ(found.ratio, 5);
  EXPECT_EQ(found.low, 2);
  EXPECT_EQ(found.high, 15);
  EXPECT_NEAR(found.p, 0.1, 1e-12);
  const Comparison of_four = compare_runs({10, 20, 30, 40}, {1, 2, 4, 5, 3, 6}, 1);
  EXPECT_DOUBLE_EQ(of_four.low.value_or(0), 10.0 / 6);
  EXPECT_EQ(of_four.high, 40);
}

TEST(Comparison, HasNoRatioToNothing) {
  const Comparison to_zero = compare_runs(Sample(6, 1), Sample(6, 0), 1);
  EXPECT_FALSE(to_zero.ratio || to_zero.low || to_zero.high);
  EXPECT_LT(to_zero.p, 0.01);
  const Comparison to_none = compare_runs({1}, {}, 1);
  EXPECT_FALSE(to_none.ratio || to_none.low || to_none.high);
  EXPECT_EQ(to_none.p, 1);
  // The median is not 0, but some resamples' is.
  const Comparison to_some = compare_runs(Sample(6, 1), {0, 0, 1, 1, 1, 1}, 1);
  EXPECT_EQ(to_some.ratio, 1);
  EXPECT_EQ(to_some.low, 1);
  EXPECT_FALSE(to_some.high);
  const Comparison some_of_some = compare_runs({0, 0, 0, 1, 1, 1}, {0, 0, 1, 1, 1, 1}, 1);
  EXPECT_EQ(some_of_some.ratio, 0.5);
  EXPECT_EQ(some_of_some.low, 0);
  EXPECT_FALSE(some_of_some.high);
  const Comparison of_zero = compare_runs(Sample(6, 0), Sample(6, 1), 1);
  EXPECT_EQ(of_zero.ratio, 0);
  EXPECT_EQ(of_zero.high, 0);
}

TEST(Comparison, IsTheSameForTheSameSeed) {
  Random random(2);
  const Sample a = draw(20, [&] { return log_normal(random); });
  const Sample base = draw(20, [&] { return log_normal(random); });
  EXPECT_EQ(compare_runs(a, base, 3).low, compare_runs(a, base, 3).low);
  EXPECT_EQ(compare_runs(a, base, 3).high, compare_runs(a, base, 3).high);
}

TEST(Holm, StepsDownAsInHisExample) {
  const Sample adjusted = holm({0.01, 0.04, 0.03, 0.005});
  ASSERT_EQ(adjusted.size(), 4U);
  EXPECT_DOUBLE_EQ(adjusted[0], 0.03);
  EXPECT_DOUBLE_EQ(adjusted[1], 0.06);
  EXPECT_DOUBLE_EQ(adjusted[2], 0.06);
  EXPECT_DOUBLE_EQ(adjusted[3], 0.02);
  EXPECT_EQ(holm({}), Sample{});
  EXPECT_EQ(holm({0.2}), Sample{0.2});
  EXPECT_EQ(holm({0.6, 0.7}), (Sample{1, 1}));
}

// Distributions.

TEST(StudentT, HasItsTable) {
  const auto check = [](double chance, double degrees, double t) {
    EXPECT_NEAR(student_t_quantile(chance, degrees), t, 1e-6 * std::abs(t)) << chance << " " << degrees;
  };
  check(0.975, 1, 12.70620474);
  check(0.95, 2, 2.91998558);
  check(0.95, 4, 2.13184679);
  check(0.975, 10, 2.22813885);
  check(0.995, 30, 2.74999565);
  check(0.05, 4, -2.13184679);
  check(0.99999, 1, 1 / std::tan(1e-5 * std::numbers::pi));
  check(0.75, 1, 1);
  check(0.9, 2, 1.88561808);
  EXPECT_NEAR(student_t_quantile(0.5, 7), 0, 1e-9);
}

TEST(StudentT, OfManyDegreesIsTheNormal) {
  // Cornish and Fisher: z + (z^3 + z) / 4v, and no more that matters.
  for (const double chance : {0.9, 0.975, 0.99999}) {
    const double z = normal_quantile(chance);
    const double v = 10'000;
    EXPECT_NEAR(student_t_quantile(chance, v), z + (z * z * z + z) / (4 * v), 1e-6);
  }
}

TEST(ChiSquare, HasItsTable) {
  const auto check = [](double chance, double degrees, double x) {
    EXPECT_NEAR(chi_square_quantile(chance, degrees), x, 1e-6 * x) << chance << " " << degrees;
  };
  check(0.05, 1, 0.00393214000);
  check(0.95, 1, 3.84145882);
  check(0.95, 4, 9.48772904);
  check(0.05, 10, 3.94029914);
  check(0.95, 10, 18.3070381);
  check(0.95, 100, 124.342113);
  check(0.05, 100, 77.9294652);
  // With two degrees it is an exponential.
  for (const double chance : {1e-5, 0.05, 0.5, 0.95, 0.99999}) check(chance, 2, -2 * std::log1p(-chance));
}

TEST(ChiSquare, OfManyDegreesIsWilsonAndHilfertys) {
  for (const double chance : {1e-5, 0.05, 0.5, 0.95, 0.99999}) {
    const double v = 10'000;
    const double cube_root = 1 - 2 / (9 * v) + normal_quantile(chance) * std::sqrt(2 / (9 * v));
    EXPECT_NEAR(chi_square_quantile(chance, v), v * cube_root * cube_root * cube_root, 0.1) << chance;
  }
}

}  // namespace
}  // namespace anteroom::bench
