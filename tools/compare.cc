#include <anteroom/bench/experiment.h>
#include <anteroom/bench/summary.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <string>

#include "json.h"
#include "progress.h"
#include "report_lines.h"
#include "table.h"
#include "tune.h"

namespace anteroom::tool {
namespace {

using bench::ServerKind;
using bench::Summary;

constexpr std::array kServers{ServerKind::kReactor, ServerKind::kBlocking, ServerKind::kThreads,
                              ServerKind::kPool};

void print_result(const ExperimentCommand& command, const std::vector<bench::TrialResult>& trials) {
  const Terminal terminal = Terminal::of(STDOUT_FILENO);
  const std::vector<Summary> all = bench::summarize(trials);
  for (const int backlog : command.backlogs) {
    std::vector<Summary> rows;
    for (const Summary& row : all) {
      if (row.backlog == backlog) rows.push_back(row);
    }
    if (rows.empty()) continue;
    fmt::print("{}\n{}\n", terminal.bold("backlog " + print_backlog(backlog)), compare_table(rows, terminal));
  }
  print_void_trials(trials);
  fmt::print("x is the ratio to the reactor. again: {}\n", command.command_line);
}

}  // namespace

int compare(const ExperimentCommand& command, const std::atomic<bool>& interrupted) {
  const bool prints = !command.quiet && command.json != "-";
  if (prints) print_heading("compare", command);
  std::vector<bench::Scenario> scenarios;
  for (const int backlog : command.backlogs) {
    for (const ServerKind server : kServers) {
      bench::Scenario scenario = command.load;
      scenario.backlog = backlog;
      scenario.server = server;
      scenarios.push_back(scenario);
    }
  }
  std::vector<bench::TrialResult> trials;
  {
    ProgressLine progress(command.quiet);
    trials = bench::run_experiment(scenarios, {.repeat = command.repeat, .seed = command.seed}, interrupted,
                                   [&](const bench::ExperimentProgress& state) { progress.show(state); });
  }
  const std::string problem = write_json(command, compare_json(command, trials, interrupted.load()));
  if (prints) print_result(command, trials);
  const auto rows = bench::summarize(trials);
  const bool is_trusted = std::ranges::all_of(rows, [](const Summary& row) { return row.runs > 0; });
  return exit_status(problem, trials, interrupted.load(), is_trusted);
}

}  // namespace anteroom::tool
