#pragma once
#include <chrono>
#include <cstdint>
#include <optional>

namespace anteroom::tool {

/// How often to look, so that all we do costs kCpuShare of one processor: as often as kIntervalMin allows,
/// and as rarely as the machine needs it. A look at the busy listeners alone is cheaper than one at all of
/// them; where both are made, three quarters of the share go to the former.
class WatchPace {
 public:
  using Nanoseconds = std::chrono::nanoseconds;

  static constexpr double kCpuShare = 0.006;
  static constexpr Nanoseconds kIntervalMin = std::chrono::milliseconds(2);
  static constexpr Nanoseconds kIntervalMax = std::chrono::seconds(1);

  /// With `fixed` there is nothing to find out.
  explicit WatchPace(std::optional<Nanoseconds> fixed) : fixed_(fixed) {}

  /// A look has cost so much of our processor time.
  void looked(bool is_whole, Nanoseconds cpu);
  /// In all we have used so much in the last `wall`, and not only for looking.
  void used(Nanoseconds cpu, Nanoseconds wall);

  /// Until the next look, if only the busy ones are looked at in between (`mixed`), and if not.
  Nanoseconds interval(bool mixed) const;
  /// If mixed, between two looks at all.
  Nanoseconds whole_interval() const;

 private:
  Nanoseconds paced(double cost_ns, double share) const;

  std::optional<Nanoseconds> fixed_;
  double whole_ns_ = 0;  // smoothed; 0 as long as there was none
  double busy_ns_ = 0;
  double overhead_ = 1.5;  // what all costs, as a multiple of what the looks alone cost
};

}  // namespace anteroom::tool
