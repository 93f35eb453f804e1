#include <anteroom/bench/advice.h>

#include <algorithm>
#include <cmath>
#include <map>

namespace anteroom::bench {
namespace {

/// What the trials at one backlog came to.
struct Row {
  bool nobody_turned_away = true;
};

/// Clients a second, as they came.
double offered_rate(const TrialResult& trial) {
  if (trial.scenario.arrival != Arrival::kBurst) return trial.scenario.rate;
  const double seconds = static_cast<double>(trial.launch_span.count()) * 1e-9;
  return seconds > 0 ? trial.scenario.clients / seconds : 0;
}

}  // namespace

double Advice::headroom() const noexcept {
  return deepest_queue == 0
             ? 0
             : (recommended + 1.0) / deepest_queue - 1;  // the kernel admits one more than the backlog
}

int round_up_backlog(double places) noexcept {
  int power = 4;
  while (true) {
    if (places <= power) return power;
    if (places <= power * 1.5) return power + power / 2;
    if (power >= 1 << 29) return power;
    power *= 2;
  }
}

Advice advise(const std::vector<TrialResult>& trials) {
  Advice advice;
  std::map<int, Row> grid;
  for (const TrialResult& trial : trials) {
    if (trial.is_void()) {
      ++advice.void_trials;
      continue;
    }
    ++advice.valid_trials;
    const bool is_unlimited = trial.scenario.backlog == kUnlimitedBacklog;
    if (is_unlimited) ++advice.unlimited_trials;
    if (is_unlimited && !trial.everybody_served()) ++advice.hopeless_trials;
    if (trial.nobody_turned_away()) {
      ++advice.lossless_trials;
      if (trial.deepest_queue >= advice.deepest_queue) {
        advice.deepest_queue = trial.deepest_queue;
        advice.rate = offered_rate(trial);
        advice.longest_wait = trial.longest_wait;
        advice.clients = trial.scenario.clients;
        advice.stalls = trial.scenario.stall.count() > 0;
      }
    }
    if (is_unlimited) continue;
    Row& row = grid[trial.scenario.backlog];
    if (trial.nobody_turned_away()) continue;
    row.nobody_turned_away = false;
    advice.largest_lossy = std::max(advice.largest_lossy.value_or(0), trial.scenario.backlog);
  }
  if (advice.unlimited_trials == 0 || advice.hopeless_trials > 0) return advice;
  if (advice.longest_wait.count() > 0 && advice.stalls) {
    const double came = advice.rate * std::chrono::duration<double>(advice.longest_wait).count();
    advice.predicted_depth = std::min(came, static_cast<double>(advice.clients));
  }
  for (const auto& [backlog, row] : grid) {
    advice.recommended = backlog;
    if (row.nobody_turned_away && advice.headroom() >= kHeadroomMin &&
        backlog > advice.largest_lossy.value_or(-1)) {
      advice.confirmed = true;
      return advice;
    }
  }
  const double needed = std::max<double>(advice.deepest_queue, 1.0 + advice.largest_lossy.value_or(0));
  advice.recommended = round_up_backlog(needed * (1 + kHeadroom));
  return advice;
}

}  // namespace anteroom::bench
