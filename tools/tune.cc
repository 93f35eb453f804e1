#include "tune.h"

#include <anteroom/bench/advice.h>
#include <anteroom/bench/experiment.h>
#include <anteroom/bench/random.h>
#include <anteroom/bench/summary.h>
#include <fmt/format.h>
#include <standard_streams.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "curve.h"
#include "json.h"
#include "probe.h"
#include "progress.h"
#include "report_lines.h"
#include "running_target.h"
#include "table.h"

namespace anteroom::tool {
namespace {

using bench::Advice;
using bench::Scenario;
using bench::TrialResult;

/// How often a number that was not in the grid is tried and, if it fails, raised.
constexpr int kConfirmations = 2;

constexpr int kLineMax = 110;  // columns of running text
constexpr std::string_view kHint =
    "  The medians (p50) hardly move: who waits for a lost SYN is in the tail, and in \"lost 1st SYN\". "
    "Ranges are "
    "the best and the worst run.";

std::vector<Scenario> scenarios_for(const ExperimentCommand& command, const std::vector<int>& backlogs) {
  std::vector<Scenario> scenarios;
  for (const int backlog : backlogs) {
    Scenario scenario = command.load;
    scenario.backlog = backlog;
    scenarios.push_back(scenario);
  }
  return scenarios;
}

void print_limits(const ExperimentCommand& command, const Advice& advice) {
  for (const Limit& limit : limits_for(command, advice)) {
    if (limit.command.empty()) {
      fmt::print("  {} is {}: enough\n", limit.name, with_commas(limit.now));
    } else {
      fmt::print("  {} is {}, {} are needed: {}\n", limit.name, with_commas(limit.now),
                 with_commas(limit.needed), limit.command);
    }
  }
  const double listen_max = command.running ? command.running->backlog_max : 1e6;
  if (advice.places_max && *advice.places_max < listen_max) {
    fmt::print("  do not set it above {}: who waits deeper than that is served only after a patience of {}\n",
               with_commas(static_cast<std::uint64_t>(*advice.places_max)),
               bench::print_duration(command.load.patience));
  }
}

void print_what_to_do(const RunningCommand& running, const Advice& advice) {
  if (advice.recommended <= running.backlog) {
    fmt::print("  it has {}, which is enough for this load: leave it\n", running.backlog);
    return;
  }
  fmt::print("  it has {}. To give it {} now: anteroom retune --pid {} --port {} --backlog {}\n",
             running.backlog, advice.recommended, *running.pid, *running.port, advice.recommended);
  fmt::print("  and for good, in its configuration: tools/RUNNING-SERVERS.md\n");
}

void print_wrapped(std::string_view text, const Terminal& terminal) {
  fmt::print("{}", wrapped(text, static_cast<std::size_t>(std::min(terminal.columns, kLineMax))));
}

void print_answer(const Run& run, const Advice& advice, const Terminal& terminal) {
  if (!advice.found()) {
    print_wrapped("no recommendation: " + why_none(run.trials, advice), terminal);
    return;
  }
  if (run.interrupted || !run.why_ended.empty()) {
    print_wrapped(
        fmt::format("so far {} looks like enough: {}", advice.recommended, reason(advice, terminal)),
        terminal);
    return;
  }
  fmt::print("{}\n", terminal.bold(fmt::format("recommended backlog: {}", advice.recommended)));
  print_wrapped("  because " + reason(advice, terminal), terminal);
  if (run.command.running) {
    print_what_to_do(*run.command.running, advice);
  } else {
    fmt::print("  in your code: listen(fd, {});\n", advice.recommended);
  }
  print_limits(run.command, advice);
}

/// Who ends it in the middle asks whether the server is as it was.
void print_what_it_has(const Run& run) {
  if (!run.command.running || !run.interrupted || !run.not_put_back.empty()) return;
  fmt::print("  {} has {} again\n", run.command.running->name, run.command.running->backlog);
}

void print_result(const Run& run, const Advice& advice, const Json& document) {
  const bool was_run = std::ranges::any_of(run.trials, &TrialResult::complete);
  if (!was_run && !run.interrupted) return;  // finish() says why
  const Terminal terminal = Terminal::of(STDOUT_FILENO);
  if (was_run) {
    const std::vector<bench::Summary> rows = bench::summarize(run.trials);
    fmt::print("{}", tune_table(rows, advice.recommended, terminal));
    const bool any_lost =
        std::ranges::any_of(rows, [](const bench::Summary& row) { return row.turned_away.most > 0; });
    if (any_lost && terminal.columns >= kLineMax)
      fmt::print("{}", terminal.dim(wrapped(kHint, static_cast<std::size_t>(kLineMax))));
    fmt::print("\n{}\n", curve(document, terminal));
  }
  for (const std::string& note : notes(run)) print_wrapped("note: " + note, terminal);
  print_answer(run, advice, terminal);
  print_what_it_has(run);
  print_wrapped("  again: " + run.command.command_line, terminal);
}

/// Whether the deepest queue, on which the answer rests, is known well enough.
bool depth_is_narrow(const std::vector<TrialResult>& trials, double share) {
  const Advice advice = bench::advise(trials);
  return advice.deepest_queue.n >= 5 && advice.deepest_queue.half_width_share() <= share;
}

}  // namespace

int tune(const ExperimentCommand& wanted, const std::atomic<bool>& interrupted) {
  ExperimentCommand command = wanted;
  std::optional<RunningTarget> target;
  refuse_without_getsockopt(AF_INET);  // or the server would be blamed for it
  if (command.running) target.emplace(command, interrupted);
  refuse_unmeasurable();
  const bool prints = !command.quiet && !command.writes_to_stdout();
  if (prints) print_heading("tune", command);
  Run run{.command = command, .started = std::chrono::system_clock::now()};
  const auto began = std::chrono::steady_clock::now();
  Advice advice;
  {
    ProgressLine progress(command.quiet);
    const auto show = [&](const bench::ExperimentProgress& state) { progress.show(state); };
    std::vector<int> backlogs = command.backlogs;
    backlogs.push_back(bench::kUnlimitedBacklog);
    std::uint64_t seed = command.seed;
    for (int round = 0; round <= kConfirmations && !backlogs.empty() && !interrupted.load(); ++round) {
      bench::ExperimentOptions options{.repeat = command.repeat, .seed = seed};
      if (target) target->attach(options);
      if (command.until && round == 0) {
        options.enough = [&](const std::vector<TrialResult>& trials) {
          return depth_is_narrow(trials, *command.until);
        };
      }
      std::vector<TrialResult> more =
          bench::run_experiment(scenarios_for(command, backlogs), options, interrupted, show);
      std::ranges::move(more, std::back_inserter(run.trials));
      advice = bench::advise(run.trials, {.target_loss = command.target_loss, .refine = command.refine});
      backlogs = advice.try_next;
      if (target) {
        if (!target->why_ended().empty()) break;
        std::erase_if(backlogs, [&](int backlog) { return backlog > target->backlog_max(); });
      }
      if (!backlogs.empty()) backlogs.push_back(bench::kUnlimitedBacklog);  // each schedule is seen whole
      seed = bench::Random(seed).next();
    }
  }
  if (target) {
    run.why_ended = target->why_ended();
    run.not_put_back = target->put_back();
  }
  run.took = std::chrono::steady_clock::now() - began;
  run.interrupted = interrupted.load();
  if (command.until) run.until_met = depth_is_narrow(run.trials, *command.until);
  const bool is_trusted = advice.found() && advice.confirmed && !run.interrupted && run.why_ended.empty();
  const Json document = tune_document(run, advice);
  if (prints) {
    print_output([&] { print_result(run, advice, document); });
  } else if (!is_trusted && std::ranges::any_of(run.trials, &TrialResult::complete)) {
    print_error("anteroom: {}\n", advice.found() ? "the answer is not to be trusted: " + reason(advice, {})
                                                 : why_none(run.trials, advice));
  }
  if (command.quiet && !command.writes_to_stdout() && advice.found() && !run.interrupted)
    print_output([&] { fmt::print("{}\n", advice.recommended); });
  return finish(run, document, is_trusted);
}

}  // namespace anteroom::tool
