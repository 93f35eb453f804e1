#include <anteroom/bench/advice.h>
#include <anteroom/bench/models.h>
#include <anteroom/bench/summary.h>

#include <algorithm>
#include <cmath>
#include <map>

namespace anteroom::bench {
namespace {

constexpr std::uint64_t kSeed =
    1;  // of the bootstraps: any number does, but the same one must come out again
constexpr int kBacklogMax = 1 << 29;

/// What was seen of a load so far, apart from any one backlog.
struct Evidence {
  std::map<int, std::vector<const TrialResult*>> grid;  // by backlog, without the unlimited
  std::vector<double> peaks;                            // of the lossless trials
  const TrialResult* deepest = nullptr;                 // of those
};

/// Clients a second, as they came.
double offered_rate(const TrialResult& trial) {
  if (trial.scenario.arrival != Arrival::kBurst) return trial.scenario.rate;
  const double seconds = static_cast<double>(trial.launch_span.count()) * 1e-9;
  return seconds > 0 ? trial.scenario.clients / seconds : 0;
}

Evidence gather(const std::vector<TrialResult>& trials, Advice& advice) {
  Evidence evidence;
  for (const TrialResult& trial : trials) {
    if (trial.is_void()) {
      ++advice.void_trials;
      continue;
    }
    ++advice.valid_trials;
    const bool is_unlimited = trial.scenario.backlog == kUnlimitedBacklog;
    if (is_unlimited) ++advice.unlimited_trials;
    if (is_unlimited && !trial.everybody_served()) ++advice.hopeless_trials;
    if (!is_unlimited) evidence.grid[trial.scenario.backlog].push_back(&trial);
    if (!trial.nobody_turned_away()) continue;
    ++advice.lossless_trials;
    evidence.peaks.push_back(trial.deepest_queue);
    if (evidence.deepest == nullptr || trial.deepest_queue >= evidence.deepest->deepest_queue)
      evidence.deepest = &trial;
  }
  return evidence;
}

class Search {
 public:
  Search(const Evidence& evidence, Advice& advice) : evidence_(evidence), advice_(advice) {
    for (const auto& [backlog, in_row] : evidence.grid) {
      const double upper = loss_upper_bound(loss_by_block(in_row), kSeed);
      measured_[backlog] = upper;
      if (upper > advice.target_loss) advice.largest_lossy = backlog;
    }
  }

  /// What is known against that backlog, whether or not it has been tried.
  double loss_upper(int backlog) const {
    const Scenario& scenario = evidence_.deepest->scenario;
    if (backlog + 1 >= scenario.clients) return measured_upper(backlog);  // everybody has a place
    return std::max(measured_upper(backlog),
                    depth_loss_upper(evidence_.peaks, backlog + 1.0, scenario.cycles(), scenario.clients));
  }

  bool is_enough(int backlog) const {
    const double room = backlog + 1.0;
    const bool holds_everybody = room >= evidence_.deepest->scenario.clients;
    return backlog > advice_.largest_lossy.value_or(-1) && loss_upper(backlog) <= advice_.target_loss &&
           (holds_everybody || room >= evidence_.deepest->deepest_queue * (1 + kHeadroomMin));
  }

  bool was_tried(int backlog) const { return measured_.contains(backlog); }

  /// The smallest of those tried that is enough; 0 if none is.
  int smallest_tried() const {
    for (const auto& [backlog, upper] : measured_) {
      if (is_enough(backlog)) return backlog;
    }
    return 0;
  }

  /// The smallest that people would write and that is enough, below `limit`; 0 if there is none.
  int smallest_round(int limit) const {
    for (int backlog = 4; backlog < limit; backlog = round_up_backlog(backlog + 1)) {
      if (is_enough(backlog)) return backlog;
    }
    return 0;
  }

 private:
  double measured_upper(int backlog) const {
    const auto row = measured_.find(backlog);
    return row == measured_.end() ? 0 : row->second;
  }
  const Evidence& evidence_;
  Advice& advice_;
  std::map<int, double> measured_;
};

}  // namespace

double Advice::headroom() const noexcept {
  // The kernel admits one more than the backlog.
  return deepest_queue.most > 0 ? (recommended + 1.0) / deepest_queue.most - 1 : 0;
}

double depth_loss_upper(const std::vector<double>& peaks, double places, int cycles, double clients) {
  if (clients <= 0) return 1;
  return std::min(normal_excess_upper(peaks, places) * std::max(cycles, 1) / clients, 1.0);
}

int round_up_backlog(double places) noexcept {
  int power = 4;
  while (true) {
    if (places <= power) return power;
    if (places <= power * 1.5) return power + power / 2;
    if (power >= kBacklogMax) return power;
    power *= 2;
  }
}

Advice advise(const std::vector<TrialResult>& trials, const AdviceOptions& options) {
  Advice advice;
  advice.target_loss = options.target_loss;
  const Evidence evidence = gather(trials, advice);
  advice.deepest_queue = estimate(evidence.peaks, kSeed);
  const Search search(evidence, advice);
  const double accepts = accepts_per_second(trials);
  if (evidence.deepest != nullptr) {
    const TrialResult& deepest = *evidence.deepest;
    advice.rate = offered_rate(deepest);
    advice.longest_wait = deepest.longest_wait;
    advice.clients = deepest.scenario.clients;
    advice.model_needs = needs(deepest.scenario, accepts, options.target_loss);
    const bool has_one_rate = deepest.scenario.burst == 0 && deepest.scenario.arrival != Arrival::kOnOff &&
                              deepest.scenario.arrival != Arrival::kRamp;
    if (advice.longest_wait.count() > 0 && deepest.scenario.stall.count() > 0 && has_one_rate) {
      const double came = advice.rate * std::chrono::duration<double>(advice.longest_wait).count();
      advice.predicted_depth = std::min(came, static_cast<double>(advice.clients));
    }
    if (accepts > 0) {
      advice.places_max =
          upper_bound_places(accepts, std::chrono::duration<double>(deepest.scenario.patience).count(),
                             std::chrono::duration<double>(deepest.scenario.stall).count());
    }
  }
  if (advice.unlimited_trials == 0 || advice.hopeless_trials > 0 || evidence.deepest == nullptr)
    return advice;

  advice.recommended = search.smallest_tried();
  advice.confirmed = advice.recommended > 0;
  if (!advice.confirmed || options.refine) {
    const int limit = advice.confirmed ? advice.recommended : kBacklogMax;
    const int nearer = search.smallest_round(limit);
    if (nearer > 0 && !search.was_tried(nearer)) {
      advice.try_next.push_back(nearer);
      if (!advice.confirmed) advice.recommended = nearer;
    }
  }
  if (advice.found()) advice.loss_upper = search.loss_upper(advice.recommended);
  return advice;
}

}  // namespace anteroom::bench
