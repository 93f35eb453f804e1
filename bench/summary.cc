#include <anteroom/bench/forecast.h>
#include <anteroom/bench/summary.h>

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

namespace anteroom::bench {
namespace {

constexpr int kLast = 1 << 30;
// Of the bootstraps: any number does, but the same one must come out again.
constexpr std::uint64_t kBootstrapSeed = 1;

using Trials = std::vector<const TrialResult*>;

template <class Number>
std::optional<double> if_known(Number number) {
  return static_cast<double>(number);
}
std::optional<double> if_known(std::optional<double> number) { return number; }

/// Over those in which it was measured.
template <class Measure>
Estimate over_runs(const Trials& trials, Measure measure) {
  std::vector<double> values;
  for (const TrialResult* trial : trials) {
    if (const std::optional<double> value = if_known(measure(*trial))) values.push_back(*value);
  }
  return estimate(values, kBootstrapSeed);
}

/// What the books have of that counter.
std::optional<double> counted(const TrialResult& trial, Counter counter, std::int64_t entry) {
  if (!trial.server_counters.is_known(counter)) return std::nullopt;
  return static_cast<double>(entry);
}

std::optional<double> bound_of(const std::vector<BlockLoss>& blocks) {
  const auto share = [](const BlockLoss& block) {
    return block.clients > 0 ? block.lost / block.clients : 0;
  };
  const auto [least, most] = std::ranges::minmax(blocks, {}, share);
  if (blocks.size() < 2 || share(least) == share(most)) return std::nullopt;
  return loss_upper_bound(blocks, kBootstrapSeed);
}

Summary summarize_cell(const Trials& all) {
  Summary summary{.scenario = all.front()->scenario};
  summary.stall_loss = summary.scenario.stall_loss();
  Trials trials;
  for (const TrialResult* trial : all) {
    if (trial->is_void()) {
      ++summary.void_runs;
    } else {
      trials.push_back(trial);
    }
  }
  summary.runs = static_cast<int>(trials.size());
  if (trials.empty()) return summary;
  for (const TrialResult* trial : trials) {
    summary.clients += trial->clients;
    summary.fates += trial->fates;
    summary.first_byte.merge(trial->first_byte);
    summary.connect.merge(trial->connect);
    summary.queue_wait.merge(trial->queue_wait);
    if (!trial->nobody_turned_away()) ++summary.runs_that_turned_away;
  }
  using T = const TrialResult&;
  summary.lost_first_syn = over_runs(trials, [](T trial) { return trial.lost_share(); });
  summary.turned_away = over_runs(trials, [](T trial) { return trial.turned_away_share(); });
  summary.loss_upper = bound_of(loss_by_block(trials));
  summary.connections_per_second = over_runs(trials, [](T trial) { return trial.connections_per_second; });
  summary.ghosts = over_runs(trials, [](T trial) { return trial.fates.ghosts(); });
  summary.overflows = over_runs(trials, [](T trial) {
    return counted(trial, Counter::kListenOverflows, trial.entries.listen_overflows);
  });
  summary.drops = over_runs(
      trials, [](T trial) { return counted(trial, Counter::kListenDrops, trial.entries.listen_drops); });
  summary.syn_retransmits = over_runs(trials, [](T trial) { return trial.entries.syn_retransmits; });
  summary.first_stall_drops = over_runs(trials, [](T trial) { return trial.first_stall_drops; });
  summary.deepest_queue = over_runs(trials, [](T trial) { return trial.deepest_queue; });
  summary.server_cpu_s = over_runs(trials, [](T trial) { return trial.server_cpu_per_connection_s(); });
  summary.first_byte_p99_s = over_runs(trials, [](T trial) -> std::optional<double> {
    if (trial.first_byte.count() == 0) return std::nullopt;
    return std::chrono::duration<double>(trial.first_byte.percentile(0.99)).count();
  });
  const TrialResult& first = *trials.front();
  summary.depth_step = first.depth_step;
  summary.depth_over_time = first.depth_over_time;
  summary.mean_in_system = first.known_in_system();
  summary.rate_times_latency = first.known_rate_times_latency();
  const double accepts = summary.server_cpu_s.median > 0 ? 1 / summary.server_cpu_s.median : 0;
  if (const auto said = forecast(summary.scenario, accepts)) {
    summary.forecast_loss = said->loss;
    summary.model = said->model;
  }
  return summary;
}

}  // namespace

std::vector<BlockLoss> loss_by_block(const Trials& trials) {
  std::vector<BlockLoss> blocks;
  for (const TrialResult* trial : trials) {
    for (const Cycle& cycle : trial->cycles)
      blocks.push_back(
          {.lost = static_cast<double>(cycle.lost), .clients = static_cast<double>(cycle.clients)});
    if (trial->cycles.empty())
      blocks.push_back(
          {.lost = static_cast<double>(trial->turned_away), .clients = static_cast<double>(trial->clients)});
  }
  return blocks;
}

double accepts_per_second(const std::vector<TrialResult>& trials) {
  std::vector<double> costs;
  for (const TrialResult& trial : trials) {
    const std::optional<double> cost = trial.server_cpu_per_connection_s();
    if (!trial.is_void() && cost) costs.push_back(*cost);
  }
  const double cost = estimate(costs, kBootstrapSeed).median;
  return cost > 0 ? 1 / cost : 0;
}

std::vector<Summary> summarize(const std::vector<TrialResult>& trials) {
  using Cell = std::tuple<ServerKind, Loop, int>;
  std::map<Cell, Trials> cells;
  for (const TrialResult& trial : trials) {
    const Scenario& scenario = trial.scenario;
    const int backlog = scenario.backlog == kUnlimitedBacklog ? kLast : scenario.backlog;
    cells[{scenario.server, scenario.loop, backlog}].push_back(&trial);
  }
  std::vector<Summary> summaries;
  summaries.reserve(cells.size());
  for (const auto& [cell, in_cell] : cells) summaries.push_back(summarize_cell(in_cell));
  return summaries;
}

}  // namespace anteroom::bench
