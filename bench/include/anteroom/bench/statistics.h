#pragma once
#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

namespace anteroom::bench {

// What may be concluded from a few runs. Runs are the sample, or stall cycles, never single clients: those
// of one stall fare alike, and a thousand of them say little more than one. What is random takes a seed, and
// gives the same for the same seed everywhere. A bootstrap (Efron, 1979) draws 1,999 samples with
// replacement, so that 2.5 and 5 % of 2,000 are whole ranks (Davison and Hinkley, Bootstrap Methods, 1997).

struct Interval {
  double low = 0;
  double high = 0;
};

/// A median with its 95 % interval.
struct Estimate {
  double median = 0;
  double low = 0;
  double high = 0;
  double least = 0;  ///< of the sample
  double most = 0;
  int n = 0;  ///< size of the sample; 0 if there was none, and then all is 0

  /// Half the interval as a share of the median, by which one stops measuring: 0 if the interval is a point,
  /// infinity if only the median is 0.
  double half_width_share() const noexcept {
    if (low == high) return 0;
    return median == 0 ? std::numeric_limits<double>::infinity()
                       : (high - low) / 2 / (median < 0 ? -median : median);
  }
};

/// The median of the runs, and where a bootstrap of it has its middle 95 %. With fewer than 5 that is the
/// least and the most, which covers less than 95 % (n = 3: 75 %).
Estimate estimate(const std::vector<double>& runs, std::uint64_t seed);

/// The median of the ratios of pairs (a run of each, one right after the other), with the interval of the
/// order statistics: between the k-th smallest and the k-th largest the median of any distribution is with
/// 95 % or more (by the binomial of n tosses; the sign test turned round). Fewer than 6 pairs cannot give
/// that, and have the least and the most.
Estimate median_ratio(const std::vector<double>& pair_ratios);

// Losses.

/// One-sided upper bound of the mean of shares (0 to 1) that were lost, one for each block: a run or a stall
/// cycle. The larger of a bootstrap's, which knows the skew (BCa: Efron, Journal of the American Statistical
/// Association 82, 1987), and Student's t, which knows how few they are; never more than 1. It can only speak
/// of losses like those it was shown: where half of the blocks have one, 95 % is 92 % with 20 blocks and 89 %
/// with 9; where one in six has, 83 % with 20. Of one block, or of equal ones, their share:
/// zero_blocks_bound() says what else there may be. 1 if there is none.
double upper_bound(const std::vector<double>& shares, std::uint64_t seed, double confidence = 0.95);

/// A run or a stall cycle, and how many of its clients were lost.
struct BlockLoss {
  double lost = 0;
  double clients = 0;
};

/// The same for all that were lost out of all that came, with blocks of different size: bootstrap of the
/// blocks, and Student's t for a ratio of sums (Cochran, Sampling Techniques, 1977, section 6.4).
double loss_upper_bound(const std::vector<BlockLoss>& blocks, std::uint64_t seed, double confidence = 0.95);

/// The largest share of blocks with a loss that would still show none in n blocks with a chance of
/// 1 - confidence: 1 - (1 - confidence)^(1/n), about 3/n ("rule of three"; Hanley and Lippman-Hand, JAMA 249,
/// 1983). So no loss in n blocks bounds how many blocks have one, not how much it is. 1 for no block.
double zero_blocks_bound(int blocks, double confidence = 0.95) noexcept;

/// 95 % interval of a share by Wilson's score (1927), for independent events only; 0 to 1 for none.
Interval wilson(double successes, double n) noexcept;

/// Upper bound of what a place too few costs: the expected excess E[(P - places)+] of a normal P over so many
/// places, with the upper ends at `confidence` of its mean (Student's t) and of its deviation (chi-square),
/// from the peaks of a few runs. Both ends at once: together they hold with at least 2 x confidence - 1.
/// One peak is taken for a Poisson count, with deviation sqrt(peak). Infinity without any.
double normal_excess_upper(const std::vector<double>& peaks, double places, double confidence = 0.95);

// Comparisons.

/// One set of runs against another.
struct Comparison {
  std::optional<double> ratio;  ///< of the medians; nothing if the base's is 0, or has no run
  std::optional<double> low;    ///< 95 % interval; nothing where a base is 0
  std::optional<double> high;
  double p = 1;  ///< mann_whitney_p()
};

/// The ratio of the medians a / base, of values that are not negative, with the middle 95 % of a bootstrap of
/// both. With fewer than 5 runs on a side: from least over most to most over least.
Comparison compare_runs(const std::vector<double>& a, const std::vector<double>& base, std::uint64_t seed);

/// Two-sided p of Mann and Whitney (1947): the chance that a random split of all values is as far from even
/// as this one, if both come from one distribution. Up to 40 values exactly, ties and all, by counting the
/// splits for each sum of midranks; beyond that by the normal, with corrections for ties and continuity
/// (Lehmann, Nonparametrics, 1975). 1 if a side is empty.
double mann_whitney_p(const std::vector<double>& a, const std::vector<double>& b);

/// Holm (1979): p values of several comparisons, made so large that the chance that any one of them is at
/// most 5 % while nothing differs is still 5 %. In the order given.
std::vector<double> holm(std::vector<double> p);

// Distributions, by series with positive terms, and bisection; to 1e-8 of their value for chances from 1e-5
// to 1 - 1e-5 and 1 to 10,000 degrees of freedom.

/// The t that Student's t stays below with this chance. 2.132 for 0.95 and 4 degrees.
double student_t_quantile(double chance, double degrees) noexcept;
/// The x that chi-square stays below with this chance. 9.488 for 0.95 and 4 degrees.
double chi_square_quantile(double chance, double degrees) noexcept;

}  // namespace anteroom::bench
