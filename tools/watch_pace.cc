#include "watch_pace.h"

#include <algorithm>

namespace anteroom::tool {
namespace {

constexpr double kPaceSmoothing = 0.1;
constexpr double kOverheadSmoothing = 0.3;
constexpr double kOverheadMax = 50;
// A newly busy listener is found by a look at all, but how full a busy one gets only by many looks at it.
constexpr double kBusyPart = 0.75;
// Of the share, as long as nobody waits: the rest is saved.
constexpr double kQuietPart = 0.7;

}  // namespace

void WatchPace::looked(bool is_whole, Nanoseconds cpu) {
  double& cost = is_whole ? whole_ns_ : busy_ns_;
  const auto now = static_cast<double>(cpu.count());
  cost = cost == 0 ? now : cost + kPaceSmoothing * (now - cost);
  looks_ns_ += now;
  saved_ns_ -= overhead_ * now;  // as far as can be told; used() will know
}

void WatchPace::used(Nanoseconds cpu, Nanoseconds wall) {
  const auto spent = static_cast<double>(cpu.count());
  saved_ns_ += overhead_ * looks_ns_ - spent + kCpuShare * static_cast<double>(wall.count());
  saved_ns_ = std::min(saved_ns_, static_cast<double>(kSavedMax.count()));
  if (looks_ns_ > 0)
    overhead_ += kOverheadSmoothing * (std::clamp(spent / looks_ns_, 1.0, kOverheadMax) - overhead_);
  looks_ns_ = 0;
}

WatchPace::Nanoseconds WatchPace::paced(double cost_ns, double share) const {
  const Nanoseconds wanted(static_cast<std::int64_t>(overhead_ * cost_ns / share));
  return std::clamp(wanted, kIntervalMin, kIntervalMax);
}

WatchPace::Nanoseconds WatchPace::interval(Scene scene) const {
  if (fixed_) return *fixed_;
  if (scene.is_lively && saved_ns_ > 0) return kIntervalMin;
  const double share = kCpuShare * kQuietPart;
  // Until one has been made, a look at the busy ones is taken to cost as much as one at all.
  return scene.is_mixed ? paced(busy_ns_ > 0 ? busy_ns_ : whole_ns_, share * kBusyPart)
                        : paced(whole_ns_, share);
}

WatchPace::Nanoseconds WatchPace::whole_interval() const {
  return fixed_ ? *fixed_ : paced(whole_ns_, kCpuShare * kQuietPart * (1 - kBusyPart));
}

}  // namespace anteroom::tool
