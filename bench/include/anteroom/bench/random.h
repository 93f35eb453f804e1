#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace anteroom::bench {

/// SplitMix64 (Steele, Lea and Flood, 2014). Ours and not <random>'s, whose distributions differ between
/// libraries: the same seed has to give the same schedule, to the byte, everywhere.
class Random {
 public:
  explicit Random(std::uint64_t seed) noexcept : state_(seed) {}

  std::uint64_t next() noexcept {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

  /// Uniform in (0, 1]: never 0, so that its logarithm exists.
  double unit() noexcept { return static_cast<double>((next() >> 11) + 1) * 0x1p-53; }

  /// Uniform in [0, bound), `bound` at least 1 (the bias of the remainder is below 2^-40 for any bound we
  /// use).
  std::uint64_t below(std::uint64_t bound) noexcept { return next() % bound; }

  /// Fisher and Yates.
  template <class T>
  void shuffle(std::vector<T>& items) noexcept {
    for (std::size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[below(i)]);
  }

 private:
  std::uint64_t state_;
};

}  // namespace anteroom::bench
