#include <anteroom/bench/models.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

namespace anteroom::bench {
namespace {

/// Beyond so many deviations a normal's tail is no longer a double.
constexpr double kNormalEnd = 40;

double mean_in_stall(const StallLoad& load) noexcept { return std::max(0.0, load.rate * load.stall_s); }

double deviation_in_stall(const StallLoad& load) noexcept {
  return std::sqrt(std::max(0.0, load.dispersion) * mean_in_stall(load));
}

/// The smallest whole number from 0 to `most` that is enough, if `most` is and none above one that is, is
/// not.
template <class Enough>
double smallest_enough(double most, const Enough& enough) noexcept {
  double too_few = -1;
  while (most - too_few > 1) {
    const double between = std::floor(too_few + (most - too_few) / 2);
    (enough(between) ? most : too_few) = between;
  }
  return most;
}

/// 1 + r + ... + r^(terms - 1) for r from 0 to 1, without the cancellation near 1.
double geometric_sum(double r, double terms) noexcept {
  if (r >= 1) return terms;
  return -std::expm1(terms * std::log(r)) / (1 - r);
}

/// What of a binomial is above a limit.
struct Above {
  double chance = 0;  ///< P(X > limit)
  double excess = 0;  ///< E[(X - limit)+]
};

/// Chance of exactly `hits` in `trials`.
double binomial_chance(double trials, double share, double hits) noexcept {
  return std::exp(std::lgamma(trials + 1) - std::lgamma(hits + 1) - std::lgamma(trials - hits + 1) +
                  hits * std::log(share) + (trials - hits) * std::log1p(-share));
}

/// Sums away from the mean, where each term is smaller than the one before, until they no longer matter. A
/// limit below the mean is reached from below: E[(X - K)+] = E[X] - K + E[(K - X)+].
Above binomial_above(double trials, double share, double limit) noexcept {
  constexpr double kNegligible = 1e-18;
  if (limit >= trials) return {};
  if (share >= 1) return {.chance = 1, .excess = trials - limit};
  const double mean = trials * share;
  const double odds = share / (1 - share);
  Above sum;
  if (limit >= mean) {
    double hits = limit + 1;
    double term = binomial_chance(trials, share, hits);
    do {
      sum.chance += term;
      sum.excess += term * (hits - limit);
      term *= (trials - hits) / (hits + 1) * odds;
      ++hits;
    } while (term * (hits - limit) > sum.excess * kNegligible);
    return sum;
  }
  double hits = limit;
  double term = binomial_chance(trials, share, hits);
  do {
    sum.chance += term;
    sum.excess += term * (limit - hits);
    term *= hits / (trials - hits + 1) / odds;
    --hits;
  } while (term * (limit - hits) > sum.excess * kNegligible);
  return {.chance = 1 - sum.chance, .excess = mean - limit + sum.excess};
}

}  // namespace

double stall_loss_share(const StallLoad& load, double places) noexcept {
  const double come = load.rate * load.every_s;
  if (!(come > 0)) return 0;
  const double mean = mean_in_stall(load);
  const double lost = normal_excess(mean, deviation_in_stall(load), std::max(0.0, places));
  return std::min({lost, mean, come}) / come;
}

double stall_places(const StallLoad& load, double share) noexcept {
  const double plenty = std::ceil(mean_in_stall(load) + kNormalEnd * deviation_in_stall(load));
  return smallest_enough(plenty, [&](double places) { return stall_loss_share(load, places) <= share; });
}

double stall_places_quantile(const StallLoad& load, double z) noexcept {
  return mean_in_stall(load) + z * deviation_in_stall(load);
}

double mm1k_loss(double rho, double places) noexcept {
  if (!(rho > 0)) return 0;
  const double room = std::max(0.0, places);
  if (rho > 1) return 1 / geometric_sum(1 / rho, room + 1);
  return std::pow(rho, room) / geometric_sum(rho, room + 1);
}

std::optional<double> mm1k_places(double rho, double loss) noexcept {
  if (!(rho > 0) || loss >= 1) return 0;
  if (!(loss > 0)) return std::nullopt;
  // K = ln(e / (1 - rho + e rho)) / ln rho, in terms of 1 - rho, which is exact where rho is near 1.
  const double idle = 1 - rho;
  const double grows = idle * (1 - loss) / loss;
  if (grows <= -1 || !std::isfinite(grows)) return std::nullopt;
  const double exact = idle == 0 ? 1 / loss - 1 : -std::log1p(grows) / std::log(rho);
  const double places = std::ceil(exact);
  // The logarithms may end just above a whole number that is enough.
  return places >= 1 && mm1k_loss(rho, places - 1) <= loss ? places - 1 : places;
}

double erlang_b(double erlangs, int servers) noexcept {
  if (!(erlangs > 0)) return 0;
  double blocked = 1;
  for (int busy = 1; busy <= servers; ++busy) blocked = erlangs * blocked / (busy + erlangs * blocked);
  return blocked;
}

double erlang_c(double erlangs, int servers) noexcept {
  if (!(erlangs > 0)) return 0;
  if (erlangs >= servers) return 1;
  const double blocked = erlang_b(erlangs, servers);
  return blocked / (1 - erlangs / servers * (1 - blocked));
}

/// A queue of m behind c servers: 1/B(c+m) = 1 + (c/a) / B(c+m-1), a geometric series. It is taken in powers
/// of whichever of a/c and c/a is not above 1.
double mmck_loss(double erlangs, int servers, double places_in_all) noexcept {
  if (!(erlangs > 0)) return 0;
  if (servers < 1 || places_in_all < 1) return 1;
  if (places_in_all <= servers) return erlang_b(erlangs, static_cast<int>(places_in_all));
  const double blocked = erlang_b(erlangs, servers);
  const double queue = places_in_all - servers;
  const double rho = erlangs / servers;
  if (rho > 1) return blocked / (std::pow(1 / rho, queue) + blocked * geometric_sum(1 / rho, queue));
  return blocked * std::pow(rho, queue) / (1 + blocked * rho * geometric_sum(rho, queue));
}

double queue_tail(double rho, double ca2, double cs2, double depth) noexcept {
  if (rho >= 1 || depth <= 0) return 1;
  const double variation = rho * ca2 + cs2;
  return variation > 0 ? std::exp(-2 * depth * (1 - rho) / variation) : 0;
}

std::optional<double> kingman_wait_s(double rho, double ca2, double cs2, double service_s) noexcept {
  if (rho >= 1) return std::nullopt;
  return rho / (1 - rho) * (ca2 + cs2) / 2 * service_s;
}

double burst_places(double clients, double within_s, double served_per_s) noexcept {
  return std::max(0.0, clients - std::max(0.0, served_per_s * within_s));
}

double burst_loss_share(double clients, double within_s, double served_per_s, double places) noexcept {
  if (!(clients > 0)) return 0;
  return std::max(0.0, burst_places(clients, within_s, served_per_s) - std::max(0.0, places)) / clients;
}

double reuseport_places(std::int64_t clients, int listeners, double chance) noexcept {
  if (clients <= 0 || listeners < 1) return 0;
  const auto waiting = static_cast<double>(clients);
  return smallest_enough(waiting, [&](double places) {
    return listeners * binomial_above(waiting, 1.0 / listeners, places).chance <= chance;
  });
}

double reuseport_loss_share(std::int64_t clients, int listeners, double places_each) noexcept {
  if (clients <= 0 || listeners < 1) return 0;
  const auto waiting = static_cast<double>(clients);
  const double limit = std::floor(std::max(0.0, places_each));
  return std::min(1.0, binomial_above(waiting, 1.0 / listeners, limit).excess * listeners / waiting);
}

double upper_bound_places(double served_per_s, double patience_s, double stall_s) noexcept {
  return std::max(0.0, served_per_s * (patience_s - stall_s));
}

double normal_density(double x) noexcept {
  return std::exp(-x * x / 2) * std::numbers::inv_sqrtpi / std::numbers::sqrt2;
}

double normal_cumulative(double x) noexcept { return std::erfc(-x / std::numbers::sqrt2) / 2; }

/// By bisection: slow and without a table of constants. The upper half by symmetry, because only the lower
/// tail is known to its last digit.
double normal_quantile(double chance) noexcept {
  if (chance > 0.5) return -normal_quantile(1 - chance);
  if (!(chance > 0)) return -std::numeric_limits<double>::infinity();
  double low = -kNormalEnd;
  double high = 0;
  for (int bit = 0; bit < std::numeric_limits<double>::digits; ++bit) {
    const double between = (low + high) / 2;
    (normal_cumulative(between) < chance ? low : high) = between;
  }
  return high;
}

double normal_excess(double mean, double deviation, double places) noexcept {
  const double surplus = mean - places;
  if (!(deviation * kNormalEnd > std::abs(surplus))) return std::max(0.0, surplus);
  const double z = -surplus / deviation;
  return std::max(0.0, deviation * (normal_density(z) - z * normal_cumulative(-z)));
}

}  // namespace anteroom::bench
