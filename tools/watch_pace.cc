#include "watch_pace.h"

#include <algorithm>

namespace anteroom::tool {
namespace {

constexpr double kSmoothing = 0.1;
constexpr double kOverheadMax = 50;
// A newly busy listener is found by a look at all, but how full a busy one gets only by many looks at it.
constexpr double kBusyPart = 0.75;

}  // namespace

void WatchPace::looked(bool is_whole, Nanoseconds cpu) {
  double& cost = is_whole ? whole_ns_ : busy_ns_;
  const auto now = static_cast<double>(cpu.count());
  cost = cost == 0 ? now : cost + kSmoothing * (now - cost);
}

void WatchPace::used(Nanoseconds cpu, Nanoseconds wall) {
  if (wall.count() <= 0) return;
  const double share = static_cast<double>(cpu.count()) / static_cast<double>(wall.count());
  overhead_ = std::clamp(overhead_ * std::clamp(share / kCpuShare, 0.8, 1.5), 1.0, kOverheadMax);
}

WatchPace::Nanoseconds WatchPace::paced(double cost_ns, double share) const {
  const Nanoseconds wanted(static_cast<std::int64_t>(overhead_ * cost_ns / share));
  return std::clamp(wanted, kIntervalMin, kIntervalMax);
}

WatchPace::Nanoseconds WatchPace::interval(bool mixed) const {
  if (fixed_) return *fixed_;
  // Until one has been made, a look at the busy ones is taken to cost as much as one at all.
  return mixed ? paced(busy_ns_ > 0 ? busy_ns_ : whole_ns_, kCpuShare * kBusyPart)
               : paced(whole_ns_, kCpuShare);
}

WatchPace::Nanoseconds WatchPace::whole_interval() const {
  return fixed_ ? *fixed_ : paced(whole_ns_, kCpuShare * (1 - kBusyPart));
}

}  // namespace anteroom::tool
