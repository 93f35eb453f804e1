#pragma once
#include <anteroom/export.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace ANTEROOM_EXPORT anteroom {

/// Counts whole numbers (microseconds, milliseconds, ...) by their power of two: bucket 0 holds the zeros,
/// bucket i those from 2^(i-1) up to 2^i - 1. To record one is O(1) and needs no memory.
class Log2Histogram {
 public:
  static constexpr std::size_t kBuckets = 33;  // the last one holds all from 2^31 on

  void record(std::uint64_t value) noexcept {
    ++buckets_[std::min<std::size_t>(static_cast<std::size_t>(std::bit_width(value)), kBuckets - 1)];
    ++count_;
    sum_ += value;
    max_ = std::max(max_, value);
  }

  void merge(const Log2Histogram& other) noexcept {
    for (std::size_t i = 0; i < kBuckets; ++i) buckets_[i] += other.buckets_[i];
    count_ += other.count_;
    sum_ += other.sum_;
    max_ = std::max(max_, other.max_);
  }

  std::uint64_t count() const noexcept { return count_; }
  std::uint64_t sum() const noexcept { return sum_; }
  std::uint64_t max() const noexcept { return max_; }
  const std::array<std::uint64_t, kBuckets>& buckets() const noexcept { return buckets_; }

  /// The largest number that bucket `i` holds; of the last one, the largest that there is.
  static constexpr std::uint64_t upper_bound(std::size_t i) noexcept {
    return i + 1 < kBuckets ? (std::uint64_t{1} << i) - 1 : ~std::uint64_t{0};
  }

  /// The upper end of the bucket in which the quantile `q` (0 to 1) lies, at most max(): up to twice the true
  /// value, never less. 0 if nothing was recorded.
  std::uint64_t quantile(double q) const noexcept {
    const double share = q > 0 ? std::min(q, 1.0) : 0;  // what is no number is 0
    const auto rank = static_cast<std::uint64_t>(share * static_cast<double>(count_));
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < kBuckets; ++i) {
      seen += buckets_[i];
      if (seen > rank || (seen == count_ && seen > 0)) return std::min(upper_bound(i), max_);
    }
    return 0;
  }

 private:
  std::array<std::uint64_t, kBuckets> buckets_{};
  std::uint64_t count_ = 0;
  std::uint64_t sum_ = 0;
  std::uint64_t max_ = 0;
};

}  // namespace anteroom
