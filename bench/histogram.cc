#include <anteroom/bench/histogram.h>

#include <algorithm>
#include <bit>
#include <cmath>

namespace anteroom::bench {

/// Values below 2^7 have a bucket each; above, the octave is the position of the highest bit, and the next 7
/// bits the step.
std::size_t Histogram::bucket_of(std::uint64_t value) noexcept {
  const int octave = std::max(static_cast<int>(std::bit_width(value)) - 1 - kStepBits, 0);
  const std::uint64_t step = value >> octave;  // 0 to 255
  const std::size_t bucket = (static_cast<std::size_t>(octave) << kStepBits) + step;
  return std::min(bucket, kBuckets - 1);
}

std::uint64_t Histogram::upper_edge(std::size_t bucket) noexcept {
  const std::size_t octave = bucket < (std::size_t{2} << kStepBits) ? 0 : (bucket >> kStepBits) - 1;
  const std::uint64_t step = bucket - (octave << kStepBits);
  return ((step + 1) << octave) - 1;
}

void Histogram::record(Duration value) noexcept {
  ++counts_[bucket_of(static_cast<std::uint64_t>(std::max<std::int64_t>(value.count(), 0)))];
  ++count_;
  max_ = std::max(max_, value);
}

void Histogram::merge(const Histogram& other) noexcept {
  for (std::size_t i = 0; i < kBuckets; ++i) counts_[i] += other.counts_[i];
  count_ += other.count_;
  max_ = std::max(max_, other.max_);
}

Histogram::Duration Histogram::percentile(double share) const noexcept {
  const auto wanted =
      std::max(static_cast<std::uint64_t>(std::ceil(share * static_cast<double>(count_))), std::uint64_t{1});
  std::uint64_t seen = 0;
  for (std::size_t i = 0; i < kBuckets; ++i) {
    seen += counts_[i];
    if (seen >= wanted) return std::min(Duration(static_cast<std::int64_t>(upper_edge(i))), max_);
  }
  return max_;
}

}  // namespace anteroom::bench
