#include <anteroom/bench/advice.h>
#include <anteroom/bench/models.h>
#include <anteroom/bench/summary.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

namespace anteroom::bench {
namespace {

// Of the bootstraps: any number does, but the same one must come out again.
constexpr std::uint64_t kSeed = 1;
constexpr int kBacklogMax = 1 << 29;
constexpr std::size_t kRunsMin = 2;

/// What was seen of a load so far, apart from any one backlog.
struct Evidence {
  std::map<int, std::vector<const TrialResult*>> grid;  // by backlog, without the unlimited
  /// How deep the queue gets where nobody is turned away: of each schedule (all trials of a round have the
  /// same, so they are one witness) and of each of its stall cycles, the deepest.
  std::vector<double> peaks;
  const TrialResult* deepest = nullptr;  // of the lossless trials
  std::size_t schedules = 0;             // that were seen to their end
};

/// The peaks of one trial: of its cycles, or its one.
std::vector<double> peaks_of(const TrialResult& trial) {
  std::vector<double> peaks;
  for (const Cycle& cycle : trial.cycles) peaks.push_back(cycle.peak);
  if (peaks.empty()) peaks.push_back(trial.deepest_queue);
  return peaks;
}

/// Chances to overflow in one trial: stalls, bursts, times that are on.
int chances(const Scenario& scenario) {
  const auto in = [&scenario](std::chrono::nanoseconds period) {
    return period.count() > 0 ? static_cast<int>(scenario.load_length() / period) : 0;
  };
  const int bursts = scenario.burst > 0 ? in(scenario.burst_every) : 0;
  return std::max({scenario.cycles(), bursts, in(scenario.on + scenario.off), 1});
}

/// Clients a second, as they came.
double offered_rate(const TrialResult& trial) {
  if (trial.scenario.arrival != Arrival::kBurst) return trial.scenario.rate;
  const double seconds = static_cast<double>(trial.launch_span.count()) * 1e-9;
  return seconds > 0 ? trial.scenario.clients / seconds : 0;
}

Evidence gather(const std::vector<TrialResult>& trials, Advice& advice) {
  Evidence evidence;
  std::map<std::uint64_t, std::vector<double>> by_schedule;
  std::set<std::uint64_t> seen_whole;
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
    if (is_unlimited) seen_whole.insert(trial.scenario.seed);
    std::vector<double>& peaks = by_schedule[trial.scenario.seed];
    const std::vector<double> more = peaks_of(trial);
    peaks.resize(std::max(peaks.size(), more.size()));
    for (std::size_t i = 0; i < more.size(); ++i) peaks[i] = std::max(peaks[i], more[i]);
    if (evidence.deepest == nullptr || trial.deepest_queue >= evidence.deepest->deepest_queue)
      evidence.deepest = &trial;
  }
  // A schedule of which only a limited queue was lossless may have been a lucky one: it would look too
  // shallow.
  for (const auto& [seed, peaks] : by_schedule) {
    if (seen_whole.contains(seed)) evidence.peaks.insert(evidence.peaks.end(), peaks.begin(), peaks.end());
  }
  evidence.schedules = seen_whole.size();
  return evidence;
}

class Search {
 public:
  Search(const Evidence& evidence, Advice& advice) : evidence_(evidence), advice_(advice) {
    for (const auto& [backlog, in_row] : evidence.grid) {
      const double upper = loss_upper_bound(loss_by_block(in_row), kSeed);
      measured_[backlog] = upper;
      runs_[backlog] = in_row.size();
      // A handshake that healed a second later has no client that was turned away, but it was at the door.
      const bool healed_too_many = std::ranges::any_of(in_row, [&advice](const TrialResult* trial) {
        return static_cast<double>(trial->door_drops()) > advice.target_loss * trial->clients;
      });
      if (upper > advice.target_loss || healed_too_many) advice.largest_lossy = backlog;
    }
  }

  /// What is known against that backlog, whether or not it has been tried.
  double loss_upper(int backlog) const {
    const Scenario& scenario = evidence_.deepest->scenario;
    if (backlog + 1 >= scenario.clients) return measured_upper(backlog);  // everybody has a place
    return std::max(measured_upper(backlog),
                    depth_loss_upper(evidence_.peaks, backlog + 1.0, chances(scenario), scenario.clients));
  }

  bool is_enough(int backlog) const {
    const double room = backlog + 1.0;
    const bool holds_everybody = room >= evidence_.deepest->scenario.clients;
    if (room < advice_.model_needs.together && !holds_everybody) return false;
    return backlog > advice_.largest_lossy.value_or(-1) && loss_upper(backlog) <= advice_.target_loss &&
           (holds_everybody || room >= evidence_.deepest->deepest_queue * (1 + kHeadroomMin));
  }

  bool was_tried(int backlog) const { return measured_.contains(backlog); }

  /// The smallest of those tried that is enough; 0 if none is. One run proves nothing.
  int smallest_tried() const {
    for (const auto& [backlog, runs] : runs_) {
      if (is_enough(backlog) && runs >= kRunsMin) return backlog;
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
  std::map<int, std::size_t> runs_;
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
  advice.schedules = static_cast<int>(evidence.schedules);
  const Search search(evidence, advice);
  const double accepts = accepts_per_second(trials);
  if (evidence.deepest != nullptr) {
    const TrialResult& deepest = *evidence.deepest;
    advice.rate = offered_rate(deepest);
    advice.longest_wait = deepest.longest_wait;
    advice.clients = deepest.scenario.clients;
    advice.is_of_a_running_server = deepest.scenario.server == ServerKind::kRunning;
    advice.model_needs = needs(deepest.scenario, accepts, options.target_loss);
    const bool has_one_rate = deepest.scenario.burst == 0 && deepest.scenario.arrival != Arrival::kOnOff &&
                              deepest.scenario.arrival != Arrival::kRamp;
    if (advice.longest_wait.count() > 0 && deepest.scenario.stall.count() > 0 && has_one_rate) {
      const double came = advice.rate * std::chrono::duration<double>(advice.longest_wait).count();
      advice.predicted_depth = std::min(came, static_cast<double>(advice.clients));
    }
    // What a handler waits is in no processor's time.
    if (accepts > 0 && deepest.scenario.handler.kind == Handling::kNone) {
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
    if (nearer > 0 && !search.was_tried(nearer)) advice.try_next.push_back(nearer);
    if (!advice.confirmed) advice.recommended = nearer;
  }
  if (advice.found()) advice.loss_upper = search.loss_upper(advice.recommended);
  return advice;
}

}  // namespace anteroom::bench
