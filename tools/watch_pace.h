#pragma once
#include <chrono>
#include <cstdint>
#include <optional>

namespace anteroom::tool {

/// How often to look, so that all we do costs kCpuShare of one processor. As long as nobody waits anywhere it
/// takes less than that, and saves the rest for the moments in which somebody does: then it looks as often as
/// kIntervalMin allows, until what was saved is spent. A look at the busy listeners alone is cheaper than one
/// at all of them; where both are made, three quarters of the share go to the former.
class WatchPace {
 public:
  using Nanoseconds = std::chrono::nanoseconds;

  static constexpr double kCpuShare = 0.007;
  static constexpr Nanoseconds kIntervalMin = std::chrono::milliseconds(2);
  static constexpr Nanoseconds kIntervalMax = std::chrono::seconds(1);
  /// Processor time that may have been saved, and that there is to begin with.
  static constexpr Nanoseconds kSavedMax = std::chrono::milliseconds(100);
  static constexpr Nanoseconds kSavedFirst = std::chrono::milliseconds(15);

  /// With `fixed` there is nothing to find out.
  explicit WatchPace(std::optional<Nanoseconds> fixed) : fixed_(fixed) {}

  /// A look has cost so much of our processor time.
  void looked(bool is_whole, Nanoseconds cpu);
  /// In all we have used so much in the last `wall`, and not only for looking.
  void used(Nanoseconds cpu, Nanoseconds wall);

  /// What is looked at.
  struct Scene {
    bool is_mixed = false;   ///< only the busy ones are looked at, and all of them now and then
    bool is_lively = false;  ///< somebody waits, or has just been turned away
  };
  /// Until the next look.
  Nanoseconds interval(Scene scene) const;
  /// If mixed, between two looks at all.
  Nanoseconds whole_interval() const;

 private:
  Nanoseconds paced(double cost_ns, double share) const;

  std::optional<Nanoseconds> fixed_;
  double whole_ns_ = 0;  // smoothed; 0 as long as there was none
  double busy_ns_ = 0;
  double overhead_ = 1.5;  // what all costs, as a multiple of what the looks alone cost; smoothed
  double looks_ns_ = 0;    // what they have cost since used()
  double saved_ns_ = static_cast<double>(kSavedFirst.count());
};

}  // namespace anteroom::tool
