#pragma once
#include <anteroom/bench/histogram.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>

namespace anteroom::bench {

/// How long many clients took, those who never finished among them: they count with their age when the trial
/// ended for them, so that whoever is lost does not make the others look fast.
class Latencies {
 public:
  using Duration = Histogram::Duration;

  void record(Duration latency) noexcept { finished_.record(latency); }
  void record_unfinished(Duration age) noexcept {
    unfinished_.record(age);
    least_age_ = std::min(least_age_.value_or(age), age);
  }
  void merge(const Latencies& other) noexcept {
    finished_.merge(other.finished_);
    unfinished_.merge(other.unfinished_);
    if (other.least_age_) least_age_ = std::min(least_age_.value_or(*other.least_age_), *other.least_age_);
  }

  void forget_unfinished() noexcept {
    unfinished_ = {};
    least_age_.reset();
  }

  /// Of all, the unfinished by their age.
  Duration percentile(double share) const noexcept {
    Histogram all = finished_;
    all.merge(unfinished_);
    return all.percentile(share);
  }
  Duration max() const noexcept { return std::max(finished_.max(), unfinished_.max()); }

  /// Whether that percentile is only known to be larger, because it falls among the unfinished.
  bool is_lower_bound(double share) const noexcept { return least_age_ && percentile(share) >= *least_age_; }

  std::uint64_t count() const noexcept { return finished_.count() + unfinished_.count(); }
  const Histogram& finished() const noexcept { return finished_; }
  const Histogram& unfinished() const noexcept { return unfinished_; }

 private:
  Histogram finished_;
  Histogram unfinished_;
  std::optional<Duration> least_age_;
};

}  // namespace anteroom::bench
