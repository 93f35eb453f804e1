#include "tune.h"

#include <anteroom/bench/advice.h>
#include <anteroom/bench/experiment.h>
#include <anteroom/bench/random.h>
#include <anteroom/bench/summary.h>
#include <anteroom/listen_queue.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iterator>
#include <utility>

#include "json.h"
#include "progress.h"
#include "report_lines.h"
#include "table.h"

namespace anteroom::tool {
namespace {

using bench::Advice;
using bench::Scenario;
using bench::TrialResult;

/// How often a number that was not in the grid is tried and, if it fails, raised.
constexpr int kConfirmations = 2;

std::vector<Scenario> scenarios_for(const ExperimentCommand& command, const std::vector<int>& backlogs) {
  std::vector<Scenario> scenarios;
  for (const int backlog : backlogs) {
    Scenario scenario = command.load;
    scenario.backlog = backlog;
    scenarios.push_back(scenario);
  }
  return scenarios;
}

std::uint64_t rounded(double number) { return static_cast<std::uint64_t>(std::llround(number)); }

/// What the number rests on, in a sentence.
std::string reason(const Advice& advice, const Terminal& terminal) {
  std::string text = fmt::format("where nobody was turned away the queue was at most {} deep, in {}",
                                 with_commas(advice.deepest_queue), runs(advice.lossless_trials));
  if (advice.predicted_depth) {
    text += fmt::format(" (the law says {}: {}/s x {} without an accept)",
                        with_commas(rounded(*advice.predicted_depth)), with_commas(rounded(advice.rate)),
                        short_duration(advice.longest_wait, terminal));
  }
  if (advice.confirmed) {
    text += fmt::format(
        "; {} is the smallest tried that turned nobody away and has room to spare, {:.0f} % more than that",
        with_commas(static_cast<std::uint64_t>(advice.recommended)), advice.headroom() * 100);
  } else {
    text += fmt::format("; {} holds {:.0f} % more than that, but no trial has confirmed it",
                        with_commas(static_cast<std::uint64_t>(advice.recommended)), advice.headroom() * 100);
  }
  return text;
}

/// Why there is no number.
std::string why_none(const std::vector<TrialResult>& trials, const Advice& advice) {
  if (trials.empty()) return "no trial has ended";
  if (advice.hopeless_trials > 0) {
    return "even with an unlimited backlog some clients were not served in time: the server is too slow for "
           "this load, or its stall too long for the clients' patience (--patience)";
  }
  return "no trial with an unlimited backlog counts";
}

std::string somaxconn_line(int recommended) {
  const int system_max = system_backlog_max();
  if (system_max >= recommended) {
    return fmt::format("net.core.somaxconn is {}: enough",
                       with_commas(static_cast<std::uint64_t>(system_max)));
  }
  return fmt::format("net.core.somaxconn is {} and would silently clip it: sysctl -w net.core.somaxconn={}",
                     with_commas(static_cast<std::uint64_t>(system_max)), recommended);
}

void print_result(const ExperimentCommand& command, const std::vector<TrialResult>& trials,
                  const Advice& advice) {
  const Terminal terminal = Terminal::of(STDOUT_FILENO);
  fmt::print("{}", tune_table(bench::summarize(trials), advice.recommended, terminal));
  print_void_trials(trials);
  if (!advice.found()) {
    fmt::print("\nno recommendation: {}\n", why_none(trials, advice));
    return;
  }
  fmt::print("\n{}\n", terminal.bold(fmt::format("recommended backlog: {}", advice.recommended)));
  fmt::print("  because {}\n", reason(advice, terminal));
  fmt::print("  in your code: listen(fd, {}); {}\n", advice.recommended, somaxconn_line(advice.recommended));
  fmt::print("  again: {}\n", command.command_line);
}

}  // namespace

int tune(const ExperimentCommand& command, const std::atomic<bool>& interrupted) {
  const bool prints = !command.quiet && command.json != "-";
  if (prints) print_heading("tune", command);
  std::vector<TrialResult> trials;
  Advice advice;
  {
    ProgressLine progress(command.quiet);
    const auto show = [&](const bench::ExperimentProgress& state) { progress.show(state); };
    std::vector<int> backlogs = command.backlogs;
    backlogs.push_back(bench::kUnlimitedBacklog);
    std::uint64_t seed = command.seed;
    for (int round = 0; round <= kConfirmations && !backlogs.empty() && !interrupted.load(); ++round) {
      const bench::ExperimentOptions options{.repeat = command.repeat, .seed = seed};
      std::vector<TrialResult> more =
          bench::run_experiment(scenarios_for(command, backlogs), options, interrupted, show);
      std::ranges::move(more, std::back_inserter(trials));
      advice = bench::advise(trials);
      backlogs.clear();
      if (advice.found() && !advice.confirmed) backlogs.push_back(advice.recommended);
      seed = bench::Random(seed).next();
    }
  }
  const bool is_trusted = advice.found() && advice.confirmed && !interrupted.load();
  const std::string problem = write_json(command, tune_json(command, trials, advice, interrupted.load()));
  if (prints) {
    print_result(command, trials, advice);
    if (interrupted.load())
      fmt::print("interrupted after {}: not to be trusted\n", runs(static_cast<int>(trials.size())));
  } else if (!is_trusted) {
    fmt::print(
        stderr, "anteroom: {}\n",
        advice.found() ? "the answer is not to be trusted: " + reason(advice, {}) : why_none(trials, advice));
  }
  if (command.quiet && command.json != "-" && advice.found() && !interrupted.load())
    fmt::print("{}\n", advice.recommended);
  return exit_status(problem, trials, interrupted.load(), is_trusted);
}

}  // namespace anteroom::tool
