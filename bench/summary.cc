#include <anteroom/bench/summary.h>

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

namespace anteroom::bench {
namespace {

constexpr int kLast = 1 << 30;

template <class T>
std::pair<T, T> best_and_worst(const std::vector<T>& values) {
  const auto [best, worst] = std::ranges::minmax(values);
  return {best, worst};
}

Summary summarize_cell(const std::vector<const TrialResult*>& trials) {
  Summary summary{.server = trials.front()->scenario.server, .backlog = trials.front()->scenario.backlog};
  summary.stall_loss = trials.front()->scenario.stall_loss();
  std::vector<double> lost;
  std::vector<std::uint32_t> ghosts;
  std::vector<double> rates;
  std::vector<double> overflows;
  std::vector<double> in_stall;
  std::vector<double> cpu;
  for (const TrialResult* trial : trials) {
    if (trial->is_void()) {
      ++summary.void_runs;
      continue;
    }
    ++summary.runs;
    const double clients = trial->scenario.clients;
    lost.push_back(trial->lost_first_syn / clients);
    ghosts.push_back(trial->fates[Fate::kGhost]);
    rates.push_back(trial->connections_per_second);
    overflows.push_back(static_cast<double>(trial->counters.listen_overflows));
    in_stall.push_back(static_cast<double>(trial->first_stall_drops));
    if (trial->fates.served() > 0) {
      cpu.push_back(static_cast<double>(trial->server_cpu.count()) * 1e-3 / trial->fates.served());
    }
    summary.deepest_queue = std::max(summary.deepest_queue, trial->deepest_queue);
    summary.first_byte.merge(trial->first_byte);
    if (!trial->nobody_turned_away()) ++summary.runs_that_turned_away;
    if (trial->unserved > 0) {
      summary.least_unserved_age =
          std::min(summary.least_unserved_age.value_or(trial->least_unserved_age), trial->least_unserved_age);
    }
  }
  if (summary.runs == 0) return summary;
  std::tie(summary.lost_first_syn_best, summary.lost_first_syn_worst) = best_and_worst(lost);
  std::tie(summary.ghosts_best, summary.ghosts_worst) = best_and_worst(ghosts);
  summary.connections_per_second = median(std::move(rates));
  summary.overflows = median(std::move(overflows));
  summary.first_stall_drops = median(std::move(in_stall));
  summary.server_cpu_us = median(std::move(cpu));
  return summary;
}

}  // namespace

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::ranges::sort(values);
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

std::vector<Summary> summarize(const std::vector<TrialResult>& trials) {
  using Cell = std::pair<ServerKind, int>;
  std::map<Cell, std::vector<const TrialResult*>> cells;
  for (const TrialResult& trial : trials) {
    const int backlog = trial.scenario.backlog;
    cells[{trial.scenario.server, backlog == kUnlimitedBacklog ? kLast : backlog}].push_back(&trial);
  }
  std::vector<Summary> summaries;
  summaries.reserve(cells.size());
  for (const auto& [cell, in_cell] : cells) summaries.push_back(summarize_cell(in_cell));
  return summaries;
}

}  // namespace anteroom::bench
