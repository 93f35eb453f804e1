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
                           const TrialProgress& progress) {
  try {
    return run_trial(scenario, interrupted, progress);
  } catch (const std::exception& error) {
    TrialResult result;
    result.scenario = scenario;
    result.problems.push_back(std::string("it could not be run: ") + error.what());
    return result;
  }
}

struct Planned {
  Scenario scenario;
  bool may_be_repeated = true;
};

}  // namespace

std::vector<TrialResult> run_experiment(const std::vector<Scenario>& scenarios,
                                        const ExperimentOptions& options,
                                        const std::atomic<bool>& interrupted,
                                        const std::function<void(const ExperimentProgress&)>& progress) {
  Random random(options.seed);
  std::vector<Scenario> order;
  for (int run = 0; run < options.repeat; ++run) {
    const std::uint64_t seed = random.next();  // one schedule a round, the same for all that are compared
    std::vector<Scenario> round = scenarios;
    for (Scenario& scenario : round) scenario.seed = seed;
    random.shuffle(round);
    order.insert(order.end(), round.begin(), round.end());
  }
  std::deque<Planned> plan;
  for (const Scenario& scenario : order) plan.push_back({.scenario = scenario});

  std::vector<TrialResult> results;
  ExperimentProgress state;
  while (!plan.empty() && !interrupted.load()) {
    const Planned next = plan.front();
    plan.pop_front();
    state.trial = results.size();
    state.trials = results.size() + 1 + plan.size();
    state.scenario = &next.scenario;
    state.left = longest(next.scenario);
    for (const Planned& later : plan) state.left += longest(later.scenario);
    results.push_back(
        run_or_explain(next.scenario, interrupted, [&](std::uint32_t ended, std::uint32_t /*clients*/) {
          state.clients_ended = ended;
          if (progress) progress(state);
        }));
    if (interrupted.load()) {
      if (!results.back().complete) results.pop_back();
      break;
    }
    if (results.back().is_void() && next.may_be_repeated) {
      plan.push_back({.scenario = next.scenario, .may_be_repeated = false});
    }
  }
  return results;
}

}  // namespace anteroom::bench
