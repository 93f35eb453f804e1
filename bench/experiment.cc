#include <anteroom/bench/experiment.h>
#include <anteroom/bench/random.h>

#include <algorithm>
#include <deque>
#include <exception>
#include <string>
#include <utility>

namespace anteroom::bench {
namespace {

/// The longest it may take: everybody's patience to its end, and a little for setting up.
std::chrono::nanoseconds longest(const Scenario& scenario) {
  return scenario.load_length() + scenario.patience + std::chrono::milliseconds(30);
}

/// What cannot be run is a trial with a problem: those before it are not lost.
TrialResult run_or_explain(const Scenario& scenario, const std::atomic<bool>& interrupted,
                           const TrialProgress& progress, const Target* target) {
  try {
    return run_trial(scenario, interrupted, progress, target);
  } catch (const std::exception& error) {
    TrialResult result;
    result.scenario = scenario;
    result.problems.push_back(std::string("it could not be run: ") + error.what());
    return result;
  }
}

// So many trials in a row that could not even be run, and the next will not be either.
constexpr int kFailuresMax = 3;

struct Planned {
  Scenario scenario;
  bool may_be_repeated = true;
};

/// Runs what is planned, and the void ones of it once more.
class Rounds {
 public:
  Rounds(const std::vector<Scenario>& scenarios, const ExperimentOptions& options,
         const std::atomic<bool>& interrupted, const std::function<void(const ExperimentProgress&)>& progress)
      : scenarios_(scenarios),
        options_(options),
        random_(options.seed),
        interrupted_(interrupted),
        progress_(progress) {}

  void plan(int rounds) {
    for (int round = 0; round < rounds; ++round) {
      const std::uint64_t seed = random_.next();
      std::vector<Scenario> order = scenarios_;
      for (Scenario& scenario : order) scenario.seed = seed;
      random_.shuffle(order);
      for (const Scenario& scenario : order) plan_.push_back({.scenario = scenario});
    }
  }

  /// False when interrupted, or when nothing can be run here, or not any more.
  bool run() {
    while (!plan_.empty()) {
      if (interrupted_.load()) return false;
      const Planned next = plan_.front();
      plan_.pop_front();
      if (options_.prepare && !options_.prepare(next.scenario)) return false;
      results_.push_back(run_one(next.scenario));
      could_not_run_ = results_.back().complete ? 0 : could_not_run_ + 1;
      if (could_not_run_ == kFailuresMax) return false;
      if (interrupted_.load()) {
        if (!results_.back().complete) results_.pop_back();
        return false;
      }
      if (results_.back().is_void() && next.may_be_repeated)
        plan_.push_back({.scenario = next.scenario, .may_be_repeated = false});
    }
    return true;
  }

  const std::vector<TrialResult>& results() const noexcept { return results_; }
  std::vector<TrialResult> take() && { return std::move(results_); }

 private:
  TrialResult run_one(const Scenario& scenario) {
    ExperimentProgress state{.trial = results_.size(),
                             .trials = results_.size() + 1 + plan_.size(),
                             .scenario = &scenario,
                             .left = longest(scenario)};
    for (const Planned& later : plan_) state.left += longest(later.scenario);
    const auto show = [&](std::uint32_t ended, std::uint32_t /*clients*/) {
      state.clients_ended = ended;
      if (progress_) progress_(state);
    };
    return run_or_explain(scenario, interrupted_, show, options_.target);
  }

  const std::vector<Scenario>& scenarios_;
  const ExperimentOptions& options_;
  Random random_;
  const std::atomic<bool>& interrupted_;
  const std::function<void(const ExperimentProgress&)>& progress_;
  std::deque<Planned> plan_;
  std::vector<TrialResult> results_;
  int could_not_run_ = 0;  // in a row
};

}  // namespace

std::vector<TrialResult> run_experiment(const std::vector<Scenario>& scenarios,
                                        const ExperimentOptions& options,
                                        const std::atomic<bool>& interrupted,
                                        const std::function<void(const ExperimentProgress&)>& progress) {
  Rounds rounds(scenarios, options, interrupted, progress);
  rounds.plan(options.repeat);
  for (int done = options.repeat; rounds.run(); ++done) {
    if (!options.enough || done >= options.repeat_max || options.enough(rounds.results())) break;
    rounds.plan(1);
  }
  return std::move(rounds).take();
}

}  // namespace anteroom::bench
