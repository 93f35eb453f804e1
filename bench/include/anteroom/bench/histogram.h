#pragma once
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace anteroom::bench {

/// Latencies from 1 ns to 18 minutes, in log-linear buckets: 128 equal steps in each doubling, so a value is
/// known to within 0.8 % (the layout and the error of HdrHistogram with two digits). Mergeable by adding, so
/// each run can have its own.
class Histogram {
 public:
  using Duration = std::chrono::nanoseconds;

  void record(Duration value) noexcept;
  void merge(const Histogram& other) noexcept;

  std::uint64_t count() const noexcept { return count_; }
  Duration max() const noexcept { return max_; }  ///< exact; 0 if empty
  /// The smallest value that at least `share` (0 to 1) of all are not above, to within a bucket; 0 if empty.
  Duration percentile(double share) const noexcept;

  /// visit(value, count) for each bucket that has any, ascending; `value` is the largest that falls into it.
  template <class Visit>
  void for_each(Visit visit) const {
    for (std::size_t i = 0; i < kBuckets; ++i) {
      if (counts_[i] > 0) visit(Duration(static_cast<std::int64_t>(upper_edge(i))), counts_[i]);
    }
  }

 private:
  static constexpr int kStepBits = 7;
  static constexpr int kOctaves =
      40 - kStepBits + 1;  // 2^40 ns = 18 minutes; longer ones count in the last bucket
  static constexpr std::size_t kBuckets = (static_cast<std::size_t>(kOctaves) + 1) << kStepBits;

  static std::size_t bucket_of(std::uint64_t value) noexcept;
  static std::uint64_t upper_edge(std::size_t bucket) noexcept;

  std::array<std::uint32_t, kBuckets> counts_{};
  std::uint64_t count_ = 0;
  Duration max_{0};
};

}  // namespace anteroom::bench
