#include <anteroom/bench/models.h>
#include <anteroom/bench/random.h>
#include <anteroom/bench/statistics.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numbers>
#include <numeric>

namespace anteroom::bench {
namespace {

constexpr int kResamples = 1999;
constexpr double kLowEnd = 0.025;
constexpr double kHighEnd = 0.975;
/// A bootstrap of a median needs so many, or its interval is the whole sample.
constexpr std::size_t kBootstrapRunsMin = 5;
/// Up to so many values the splits are counted: C(40, 20) and all smaller counts are exact in a double.
constexpr std::size_t kExactValuesMax = 40;

/// The middle one, or the mean of the two in the middle. Leaves the values in another order.
double middle_of(std::vector<double>& values) {
  const auto half = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::ranges::nth_element(values, half);
  if (values.size() % 2 == 1) return *half;
  return (*std::max_element(values.begin(), half) + *half) / 2;
}

void draw_with_replacement(const std::vector<double>& from, Random& random, std::vector<double>& into) {
  into.resize(from.size());
  for (double& value : into) value = from[random.below(from.size())];
}

/// What a statistic is in each resample, in order. `statistic` draws its own sample.
template <class Statistic>
std::vector<double> bootstrap(const Statistic& statistic) {
  std::vector<double> values(kResamples);
  for (double& value : values) value = statistic();
  std::ranges::sort(values);
  return values;
}

/// The rank `share` x (B + 1) of B.
double at_share(const std::vector<double>& sorted, double share) {
  const auto rank = std::lround(share * static_cast<double>(sorted.size() + 1));
  return sorted[static_cast<std::size_t>(std::clamp(rank, 1L, static_cast<long>(sorted.size())) - 1)];
}

/// With the least and the most as its interval.
Estimate estimate_with_extremes(const std::vector<double>& sample) {
  if (sample.empty()) return {};
  std::vector<double> values = sample;
  const auto [least, most] = std::ranges::minmax(sample);
  return {.median = middle_of(values),
          .low = least,
          .high = most,
          .least = least,
          .most = most,
          .n = static_cast<int>(sample.size())};
}

std::optional<double> if_finite(double value) {
  return std::isfinite(value) ? std::optional(value) : std::nullopt;
}

struct Ranks {
  /// Midranks, doubled so that they are whole, of the first sample's values and then the second's.
  std::vector<int> doubled;
  double ties = 0;  ///< sum of t^3 - t over groups of t equal values
};

Ranks rank_together(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> values = a;
  values.insert(values.end(), b.begin(), b.end());
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, {}, [&](std::size_t i) { return values[i]; });
  Ranks ranks{.doubled = std::vector<int>(values.size())};
  for (std::size_t first = 0, next = 1; first < order.size(); first = next++) {
    while (next < order.size() && values[order[next]] == values[order[first]]) ++next;
    // Ranks first+1 to next, whose mean is half of this.
    for (std::size_t i = first; i < next; ++i) ranks.doubled[order[i]] = static_cast<int>(first + 1 + next);
    const auto equal = static_cast<double>(next - first);
    ranks.ties += equal * equal * equal - equal;
  }
  return ranks;
}

/// Of all ways to choose `chosen` of the ranks, the share whose sum is at least as far from the mean as
/// `sum`.
double share_as_far(const std::vector<int>& ranks, std::size_t chosen, int sum) {
  const int all = std::accumulate(ranks.begin(), ranks.end(), 0);
  const auto sums = static_cast<std::size_t>(all) + 1;
  // ways[k][s]: to choose k ranks of sum s, of the ranks seen so far.
  std::vector<std::vector<double>> ways(chosen + 1, std::vector<double>(sums));
  ways[0][0] = 1;
  for (const int rank : ranks) {
    const auto step = static_cast<std::size_t>(rank);
    for (std::size_t k = chosen; k > 0; --k) {
      for (std::size_t s = sums - 1; s >= step; --s) ways[k][s] += ways[k - 1][s - step];
    }
  }
  // The mean of the sum is all x chosen / size: times size, everything is whole.
  const auto size = static_cast<long>(ranks.size());
  const long mean = static_cast<long>(all) * static_cast<long>(chosen);
  const auto distance = [&](long of) { return std::abs(of * size - mean); };
  double far = 0;
  double total = 0;
  for (std::size_t s = 0; s < sums; ++s) {
    total += ways[chosen][s];
    if (distance(static_cast<long>(s)) >= distance(sum)) far += ways[chosen][s];
  }
  return far / total;
}

/// The x from `low` to `high` at which an increasing function comes to `wanted`.
template <class Increasing>
double solve(double low, double high, double wanted, const Increasing& function) noexcept {
  for (int bit = 0; bit < 2 * std::numeric_limits<double>::digits; ++bit) {
    const double between = (low + high) / 2;
    (function(between) < wanted ? low : high) = between;
  }
  return high;
}

/// 1 + f(1) + f(1) f(2) + ... until it grows no more.
template <class Factor>
double sum_of_products(const Factor& factor) noexcept {
  double sum = 1;
  double term = 1;
  for (int n = 1; term > sum * std::numeric_limits<double>::epsilon() / 4; ++n) {
    term *= factor(n);
    sum += term;
  }
  return sum;
}

/// So small a first term of a distribution's series is that of one of its ends, where all is 0 or 1.
constexpr double kVanished = 1e-290;

/// I_x(a, b), the regularized incomplete beta function (DLMF 8.17.8), by the series that converges at least
/// as fast as halves: of x, or of 1 - x with a and b swapped. `rest` is 1 - x, which the caller knows better.
double incomplete_beta(double a, double b, double x, double rest) noexcept {
  if (x > 0.5) return 1 - incomplete_beta(b, a, rest, x);
  const double first = std::exp(a * std::log(x) + b * std::log(rest) + std::lgamma(a + b) -
                                std::lgamma(a + 1) - std::lgamma(b));
  if (first < kVanished) return x > a / (a + b) ? 1 : 0;
  return first * sum_of_products([&](int n) { return x * (a + b + n - 1) / (a + n); });
}

/// P(a, x), the regularized lower incomplete gamma function (DLMF 8.11.4).
double incomplete_gamma(double a, double x) noexcept {
  const double first = std::exp(a * std::log(x) - x - std::lgamma(a + 1));
  if (first < kVanished) return x > a ? 1 : 0;
  return first * sum_of_products([&](int n) { return x / (a + n); });
}

/// Of values around their mean, with n - 1.
double deviation_of(const std::vector<double>& values, double mean) {
  if (values.size() < 2) return 0;
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return std::sqrt(squares / static_cast<double>(values.size() - 1));
}

/// The share of a bootstrap at which BCa (Efron, Journal of the American Statistical Association 82, 1987)
/// puts the end of an interval. `bias` is how far the bootstrap's middle is from what was found, `skew` the
/// skewness of what each block adds to it; both in deviations.
double accelerated(double share, const std::vector<double>& sorted, double found,
                   const std::vector<double>& influences) {
  const auto [first, last] = std::equal_range(sorted.begin(), sorted.end(), found);
  const auto below = static_cast<double>((first - sorted.begin()) + (last - sorted.begin())) / 2;
  const double bias = normal_quantile((below + 0.5) / static_cast<double>(sorted.size() + 1));
  double squares = 0;
  double cubes = 0;
  for (const double influence : influences) {
    squares += influence * influence;
    cubes += influence * influence * influence;
  }
  const double skew = cubes / (6 * std::pow(squares, 1.5));
  const double z = bias + normal_quantile(share);
  return skew * z < 1 ? normal_cumulative(bias + z / (1 - skew * z)) : 1;
}

BlockLoss sum_of(const std::vector<BlockLoss>& blocks) {
  BlockLoss sum;
  for (const auto& [lost, clients] : blocks) {
    sum.lost += lost;
    sum.clients += clients;
  }
  return sum;
}

}  // namespace

Estimate estimate(const std::vector<double>& runs, std::uint64_t seed) {
  Estimate found = estimate_with_extremes(runs);
  if (runs.size() < kBootstrapRunsMin) return found;
  Random random(seed);
  std::vector<double> drawn;
  const std::vector<double> medians = bootstrap([&] {
    draw_with_replacement(runs, random, drawn);
    return middle_of(drawn);
  });
  found.low = at_share(medians, kLowEnd);
  found.high = at_share(medians, kHighEnd);
  return found;
}

Estimate median_ratio(const std::vector<double>& pair_ratios) {
  Estimate found = estimate_with_extremes(pair_ratios);
  std::vector<double> sorted = pair_ratios;
  std::ranges::sort(sorted);
  // How many of each end may be left out: as long as no more heads than that, or no more tails, come in n
  // tosses at most once in 20.
  const auto n = static_cast<double>(sorted.size());
  double so_few = 0;
  for (std::size_t out = 0; out < sorted.size() / 2; ++out) {
    const auto heads = static_cast<double>(out);
    so_few += std::exp(std::lgamma(n + 1) - std::lgamma(heads + 1) - std::lgamma(n - heads + 1) -
                       n * std::numbers::ln2);
    if (so_few > kLowEnd) break;
    found.low = sorted[out];
    found.high = sorted[sorted.size() - 1 - out];
  }
  return found;
}

double upper_bound(const std::vector<double>& shares, std::uint64_t seed, double confidence) {
  std::vector<BlockLoss> blocks;
  blocks.reserve(shares.size());
  for (const double share : shares) blocks.push_back({.lost = share, .clients = 1});
  return loss_upper_bound(blocks, seed, confidence);
}

double loss_upper_bound(const std::vector<BlockLoss>& blocks, std::uint64_t seed, double confidence) {
  const BlockLoss all = sum_of(blocks);
  if (!(all.clients > 0)) return 1;
  const double share = all.lost / all.clients;
  std::vector<double> residuals;
  residuals.reserve(blocks.size());
  for (const auto& [lost, clients] : blocks) residuals.push_back(lost - share * clients);
  // Of equal shares, which rounding may leave at 1e-17, nothing more can be said.
  const double spread = deviation_of(residuals, 0);
  if (spread <= std::numeric_limits<double>::epsilon() * all.clients) return std::min(1.0, share);

  const auto n = static_cast<double>(blocks.size());
  const double by_t = share + student_t_quantile(confidence, n - 1) * spread * std::sqrt(n) / all.clients;
  Random random(seed);
  std::vector<BlockLoss> drawn(blocks.size());
  const std::vector<double> shares = bootstrap([&] {
    for (BlockLoss& block : drawn) block = blocks[random.below(blocks.size())];
    const BlockLoss sum = sum_of(drawn);
    return sum.clients > 0 ? sum.lost / sum.clients : 1;
  });
  return std::min(1.0, std::max(by_t, at_share(shares, accelerated(confidence, shares, share, residuals))));
}

double zero_blocks_bound(int blocks, double confidence) noexcept {
  return blocks < 1 ? 1 : -std::expm1(std::log1p(-confidence) / blocks);
}

Interval wilson(double successes, double n) noexcept {
  if (!(n > 0)) return {.low = 0, .high = 1};
  const double z = normal_quantile(kHighEnd);
  const double share = successes / n;
  const double centre = share + z * z / (2 * n);
  const double reach = z * std::sqrt(share * (1 - share) / n + z * z / (4 * n * n));
  const double scale = 1 + z * z / n;
  return {.low = std::max(0.0, (centre - reach) / scale), .high = std::min(1.0, (centre + reach) / scale)};
}

double normal_excess_upper(const std::vector<double>& peaks, double places, double confidence) {
  if (peaks.empty()) return std::numeric_limits<double>::infinity();
  const auto n = static_cast<double>(peaks.size());
  const double mean = std::accumulate(peaks.begin(), peaks.end(), 0.0) / n;
  if (peaks.size() == 1) {
    const double deviation = std::sqrt(std::max(0.0, mean));
    return normal_excess(mean + normal_quantile(confidence) * deviation, deviation, places);
  }
  const double deviation = deviation_of(peaks, mean);
  const double mean_upper = mean + student_t_quantile(confidence, n - 1) * deviation / std::sqrt(n);
  const double deviation_upper = deviation * std::sqrt((n - 1) / chi_square_quantile(1 - confidence, n - 1));
  return normal_excess(mean_upper, deviation_upper, places);
}

Comparison compare_runs(const std::vector<double>& a, const std::vector<double>& base, std::uint64_t seed) {
  Comparison found{.p = mann_whitney_p(a, base)};
  if (a.empty() || base.empty()) return found;
  const Estimate above = estimate_with_extremes(a);
  const Estimate below = estimate_with_extremes(base);
  if (below.median == 0) return found;
  found.ratio = above.median / below.median;
  if (std::min(a.size(), base.size()) < kBootstrapRunsMin) {
    found.low = if_finite(above.least / below.most);
    found.high = if_finite(above.most / below.least);
    return found;
  }
  Random random(seed);
  std::vector<double> drawn;
  const auto median_of_draw = [&](const std::vector<double>& runs) {
    draw_with_replacement(runs, random, drawn);
    return middle_of(drawn);
  };
  const std::vector<double> ratios = bootstrap([&] {
    const double of_base = median_of_draw(base);
    const double of_a = median_of_draw(a);
    return of_base == 0 ? std::numeric_limits<double>::infinity() : of_a / of_base;
  });
  found.low = if_finite(at_share(ratios, kLowEnd));
  found.high = if_finite(at_share(ratios, kHighEnd));
  return found;
}

double mann_whitney_p(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.empty() || b.empty()) return 1;
  const auto [doubled, ties] = rank_together(a, b);
  const int sum =
      std::accumulate(doubled.begin(), doubled.begin() + static_cast<std::ptrdiff_t>(a.size()), 0);
  if (doubled.size() <= kExactValuesMax) return share_as_far(doubled, a.size(), sum);

  const auto n = static_cast<double>(a.size());
  const auto m = static_cast<double>(b.size());
  const double all = n + m;
  const double variance = n * m / 12 * (all + 1 - ties / (all * (all - 1)));
  if (variance <= 0) return 1;
  const double distance = std::abs(sum / 2.0 - n * (all + 1) / 2);
  // The sum of ranks moves in steps, of 1 without ties and more where few values differ: half a step of it is
  // not evidence.
  int step = 0;
  for (const int rank : doubled) step = std::gcd(step, rank - doubled.front());
  const double z = std::max(0.0, distance - std::max(0.5, step / 4.0)) / std::sqrt(variance);
  return 2 * normal_cumulative(-z);
}

std::vector<double> holm(std::vector<double> p) {
  std::vector<std::size_t> order(p.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, {}, [&](std::size_t i) { return p[i]; });
  double largest = 0;
  for (std::size_t done = 0; done < order.size(); ++done) {
    double& of = p[order[done]];
    largest = std::max(largest, std::min(1.0, of * static_cast<double>(p.size() - done)));
    of = largest;
  }
  return p;
}

/// P(|T| < t) is I_y(1/2, v/2) with y = t^2 / (v + t^2). Solved for the odds t^2 / v, on a scale of
/// logarithms because one degree of freedom has very long tails.
double student_t_quantile(double chance, double degrees) noexcept {
  if (chance < 0.5) return -student_t_quantile(1 - chance, degrees);
  const double log_odds = solve(-200, 200, 2 * chance - 1, [&](double logarithm) {
    const double odds = std::exp(logarithm);
    return incomplete_beta(0.5, degrees / 2, odds / (1 + odds), 1 / (1 + odds));
  });
  return std::sqrt(degrees * std::exp(log_odds));
}

double chi_square_quantile(double chance, double degrees) noexcept {
  // Chernoff's bound: beyond d + 40 sqrt(d) + 120 is less than 1e-25.
  const double most = degrees + 40 * std::sqrt(degrees) + 120;
  return solve(0, most, chance, [&](double x) { return incomplete_gamma(degrees / 2, x / 2); });
}

}  // namespace anteroom::bench
