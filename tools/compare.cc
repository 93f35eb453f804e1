#include <anteroom/bench/experiment.h>
#include <anteroom/bench/paired.h>
#include <anteroom/bench/statistics.h>
#include <anteroom/bench/summary.h>
#include <fmt/format.h>
#include <standard_streams.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <tuple>
#include <utility>

#include "curve.h"
#include "json.h"
#include "probe.h"
#include "progress.h"
#include "report_lines.h"
#include "table.h"
#include "tune.h"

namespace anteroom::tool {
namespace {

using bench::Loop;
using bench::ServerKind;
using bench::Summary;
using bench::TrialResult;

constexpr double kSignificance = 0.05;
constexpr int kPairedBacklog = 4096;  // nobody is to wait for a SYN
// A closed loop makes as many connections as it can: more than this in a second was never seen here.
constexpr double kClosedRateMax = 60'000;
constexpr int kClosedClientsMax = 1'000'000;

struct RunMetric {
  const char* name;
  std::function<std::optional<double>(const TrialResult&)> of;  ///< nothing if it was not measured
};

const std::vector<RunMetric>& metrics() {
  static const std::vector<RunMetric> all{
      {"connections_per_second", [](const TrialResult& t) { return t.connections_per_second; }},
      {"turned_away", [](const TrialResult& t) { return t.turned_away_share(); }},
      {"first_byte_p99_s",
       [](const TrialResult& t) -> std::optional<double> {
         if (t.first_byte.count() == 0) return std::nullopt;
         return std::chrono::duration<double>(t.first_byte.percentile(0.99)).count();
       }},
  };
  return all;
}

std::vector<double> values(const std::vector<TrialResult>& trials, std::size_t place, int backlog, Loop loop,
                           const std::vector<std::size_t>& places, const RunMetric& metric) {
  std::vector<double> all;
  for (std::size_t i = 0; i < trials.size(); ++i) {
    const TrialResult& trial = trials[i];
    if (places[i] == place && trial.scenario.backlog == backlog && trial.scenario.loop == loop &&
        !trial.is_void()) {
      if (const std::optional<double> value = metric.of(trial)) all.push_back(*value);
    }
  }
  return all;
}

/// Of each trial's server among those asked for. One that was asked for twice, to see that nothing is found
/// between a server and itself, has its trials by turns.
std::vector<std::size_t> places_of(const std::vector<ServerKind>& servers,
                                   const std::vector<TrialResult>& trials) {
  std::map<std::tuple<ServerKind, int, Loop>, std::size_t> turns;
  std::vector<std::size_t> places;
  for (const TrialResult& trial : trials) {
    const bench::Scenario& scenario = trial.scenario;
    std::vector<std::size_t> own;
    for (std::size_t i = 0; i < servers.size(); ++i) {
      if (servers[i] == scenario.server) own.push_back(i);
    }
    const std::size_t turn =
        trial.is_void() ? 0 : turns[{scenario.server, scenario.backlog, scenario.loop}]++;
    places.push_back(own[turn % own.size()]);
  }
  return places;
}

/// Whether the values of one are rather above those of the other, by pairs of them: more than 0 if so.
int lean(const std::vector<double>& values, const std::vector<double>& base) {
  int above = 0;
  for (const double value : values) {
    for (const double other : base) above += (value > other) - (value < other);
  }
  return above;
}

/// The smallest number of runs of each with which so many comparisons at once could show a difference: the
/// least p of n against n is 2 / C(2n, n), and Holm multiplies it.
int runs_to_show(std::size_t comparisons) {
  int runs = 1;
  for (double splits = 2; 2 / splits * static_cast<double>(comparisons) > kSignificance; ++runs)
    splits *= 2.0 * (2.0 * runs + 1) / (runs + 1);  // C(2n+2, n+1) from C(2n, n)
  return runs;
}

/// Each server against the first, by runs; p is adjusted for all of them together.
std::vector<ComparisonRow> compare_by_runs(const ExperimentCommand& command,
                                           const std::vector<TrialResult>& trials) {
  const std::vector<std::size_t> places = places_of(command.servers, trials);
  std::vector<ComparisonRow> rows;
  std::vector<double> p;
  std::vector<int> leans;
  for (const int backlog : command.backlogs) {
    for (const Loop loop : command.loops) {
      for (std::size_t server = 1; server < command.servers.size(); ++server) {
        for (const RunMetric& metric : metrics()) {
          if (loop == Loop::kClosed && metric.name != std::string_view("connections_per_second")) continue;
          const auto mine = values(trials, server, backlog, loop, places, metric);
          const auto base = values(trials, 0, backlog, loop, places, metric);
          if (mine.empty() || base.empty()) continue;
          const bench::Comparison compared = bench::compare_runs(mine, base, command.seed);
          rows.push_back({.server = command.servers[server],
                          .against = command.servers[0],
                          .backlog = backlog,
                          .loop = loop,
                          .metric = metric.name,
                          .ratio = compared.ratio,
                          .low = compared.low,
                          .high = compared.high,
                          .p = compared.p,
                          .method = "runs",
                          .n = static_cast<int>(std::min(mine.size(), base.size()))});
          p.push_back(compared.p);
          leans.push_back(lean(mine, base));
        }
      }
    }
  }
  const std::vector<double> adjusted = bench::holm(std::move(p));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    rows[i].p_holm = adjusted[i];
    rows[i].verdict = adjusted[i] > kSignificance ? "no difference seen" : leans[i] > 0 ? "more" : "less";
  }
  return rows;
}

/// What each server costs a connection against the first, side by side on one processor.
std::vector<ComparisonRow> compare_by_pairs(const ExperimentCommand& command,
                                            const std::atomic<bool>& interrupted, ProgressLine& progress,
                                            std::vector<std::string>& remarks) {
  std::vector<ComparisonRow> rows;
  for (std::size_t i = 1; i < command.servers.size() && !interrupted.load(); ++i) {
    bench::Scenario first = command.load;
    first.server = command.servers[0];
    first.backlog = kPairedBacklog;
    bench::Scenario second = first;
    second.server = command.servers[i];
    const bench::PairedOptions options;
    const bench::PairedCpu pairs = bench::compare_cpu(first, second, options, interrupted, [&](int done) {
      progress.show(fmt::format("CPU a connection, {} against {}: pair {} of {}", bench::name(second.server),
                                bench::name(first.server), done, options.pairs));
    });
    if (!pairs.problem.empty() || pairs.ratio.n == 0) {
      remarks.push_back(fmt::format("the CPU a connection of {} could not be compared with {}'s: {}",
                                    bench::name(second.server), bench::name(first.server),
                                    pairs.problem.empty() ? "no pair was measured" : pairs.problem));
      continue;
    }
    const bench::Estimate& ratio = pairs.ratio;
    rows.push_back({.server = second.server,
                    .against = first.server,
                    .backlog = first.backlog,
                    .metric = "server_cpu_s_per_connection",
                    .ratio = ratio.median,
                    .low = ratio.low,
                    .high = ratio.high,
                    .verdict = ratio.low > 1    ? "more"
                               : ratio.high < 1 ? "less"
                                                : "no difference seen",
                    .method = "pairs",
                    .n = ratio.n});
  }
  return rows;
}

std::vector<bench::Scenario> scenarios_for(const ExperimentCommand& command) {
  std::vector<bench::Scenario> scenarios;
  for (const int backlog : command.backlogs) {
    for (const ServerKind server : command.servers) {
      for (const Loop loop : command.loops) {
        bench::Scenario scenario = command.load;
        scenario.backlog = backlog;
        scenario.server = server;
        if (loop == Loop::kClosed) {
          const double length_s = std::chrono::duration<double>(command.load.load_length()).count();
          scenario.length =
              std::max<std::chrono::nanoseconds>(command.load.load_length(), std::chrono::milliseconds(500));
          scenario.clients = static_cast<int>(
              std::clamp(kClosedRateMax * length_s, kClosedRateMax / 2, double{kClosedClientsMax}));
          scenario.loop = loop;
        }
        scenarios.push_back(scenario);
      }
    }
  }
  return scenarios;
}

/// Whether each server's rate is known well enough.
bool rates_are_narrow(const std::vector<TrialResult>& trials, double share) {
  const std::vector<Summary> rows = bench::summarize(trials);
  return std::ranges::all_of(rows, [share](const Summary& row) {
    return row.runs >= 5 && row.connections_per_second.half_width_share() <= share;
  });
}

std::string in_words(const ComparisonRow& row) {
  const auto metric = row.metric == "connections_per_second" ? "connections/s"
                      : row.metric == "turned_away"          ? "clients turned away"
                      : row.metric == "first_byte_p99_s"     ? "p99 until the first byte"
                                                             : "CPU a connection";
  std::string text =
      fmt::format("{} against {}: {}", bench::name(row.server), bench::name(row.against), metric);
  if (row.ratio) text += fmt::format(" x {:.3f}", *row.ratio);
  if (row.low && row.high) text += fmt::format(" ({:.3f} to {:.3f})", *row.low, *row.high);
  text += ": " + row.verdict;
  if (row.method == "pairs") return text + fmt::format(" ({} pairs)", row.n);
  return text + fmt::format(" (p {:.2g} of {} runs each)", row.p_holm.value_or(1), row.n);
}

void print_verdicts(const Run& run, const Terminal& terminal) {
  std::size_t by_runs = 0;
  int runs_each = 0;
  bool any = false;
  for (const ComparisonRow& row : run.comparisons) {
    const bool is_pair = row.method == "pairs";
    if (!is_pair) {
      runs_each = by_runs++ == 0 ? row.n : std::min(runs_each, row.n);
      if (row.verdict == "no difference seen") continue;
    }
    const std::string where = is_pair ? "16 at a time, without this load's stalls"
                                      : fmt::format("backlog {}{}", print_backlog(row.backlog),
                                                    row.loop == Loop::kClosed ? ", closed loop" : "");
    fmt::print("  {}: {}\n", where, in_words(row));
    any = true;
  }
  if (run.comparisons.empty()) {
    fmt::print("  nothing was compared\n");
  } else if (!any) {
    fmt::print("  no difference seen\n");
  }
  const int needed = runs_to_show(by_runs);
  if (by_runs > 0 && runs_each < needed) {
    fmt::print("{}", terminal.dim(fmt::format(
                         "  {} of each cannot show a difference in any of {} comparisons, however "
                         "large: --repeat {} can\n",
                         runs(runs_each), by_runs, needed)));
  }
}

void print_theory(const std::vector<Summary>& rows) {
  for (const Summary& row : rows) {
    if (row.runs == 0 || !row.forecast_loss) continue;
    fmt::print("  {}, backlog {}: {} predicts that {} lose their first SYN, measured {}\n",
               bench::name(row.scenario.server), print_backlog(row.scenario.backlog), row.model,
               share(*row.forecast_loss), share(row.lost_first_syn.median));
  }
}

/// The closed loop's answer beside the right one.
void print_loops(const std::vector<Summary>& rows, const Terminal& terminal) {
  bool any = false;
  for (const Summary& row : rows) {
    if (row.runs == 0 || row.scenario.loop != Loop::kClosed) continue;
    const bench::Histogram& served = row.first_byte.finished();
    const auto print_at = [&](double at) {
      return served.count() > 0 ? short_duration(served.percentile(at), terminal) : "not known";
    };
    const std::string by_little =
        row.rate_times_latency ? fmt::format("{:.0f}", *row.rate_times_latency) : "an unknown number";
    fmt::print(
        "  {}, backlog {}, closed loop: p50 {}, p99 {}, {} connections/s, as a tool says that hears only of "
        "the "
        "served. By Little's law that is {} of the {} flows{}\n",
        bench::name(row.scenario.server), print_backlog(row.scenario.backlog), print_at(0.5), print_at(0.99),
        whole(row.connections_per_second.median), by_little, row.scenario.flows,
        row.lost_first_syn.most > 0 ? "; of those who wait for a lost SYN it has not heard" : "");
    any = true;
  }
  if (any) fmt::print("\n");
}

void print_result(const Run& run, const Json& document) {
  if (std::ranges::none_of(run.trials, &TrialResult::complete) && !run.interrupted)
    return;  // finish() says why
  const Terminal terminal = Terminal::of(STDOUT_FILENO);
  const std::vector<Summary> all = bench::summarize(run.trials);
  for (const int backlog : run.command.backlogs) {
    std::vector<Summary> rows;
    for (const Summary& row : all) {
      if (row.scenario.backlog == backlog && row.scenario.loop == Loop::kOpen) rows.push_back(row);
    }
    if (rows.empty()) continue;
    fmt::print("{}\n{}\n", terminal.bold("backlog " + print_backlog(backlog)), compare_table(rows, terminal));
  }
  print_loops(all, terminal);
  if (run.command.backlogs.size() > 1) {
    Json open = document;  // a closed loop has no schedule, and its losses say nothing
    open["rows"] = Json::array();
    for (const Json& row : document["rows"]) {
      if (row["loop"] == "open") open["rows"].push_back(row);
    }
    if (!open["rows"].empty()) fmt::print("{}\n", curve(open, terminal));
  }
  fmt::print("{}\n", terminal.bold("verdict"));
  print_verdicts(run, terminal);
  print_theory(all);
  for (const std::string& note : notes(run)) fmt::print("note: {}\n", note);
  fmt::print("x is the ratio to {}. again: {}\n", bench::name(run.command.servers.front()),
             run.command.command_line);
}

}  // namespace

int compare(const ExperimentCommand& command, const std::atomic<bool>& interrupted) {
  refuse_unmeasurable();
  const bool prints = !command.quiet && !command.writes_to_stdout();
  if (prints) print_heading("compare", command);
  Run run{.command = command, .started = std::chrono::system_clock::now()};
  const auto began = std::chrono::steady_clock::now();
  {
    ProgressLine progress(command.quiet);
    bench::ExperimentOptions options{.repeat = command.repeat, .seed = command.seed};
    if (command.until)
      options.enough = [&](const std::vector<TrialResult>& trials) {
        return rates_are_narrow(trials, *command.until);
      };
    run.trials = bench::run_experiment(scenarios_for(command), options, interrupted,
                                       [&](const bench::ExperimentProgress& state) { progress.show(state); });
    run.comparisons = compare_by_runs(command, run.trials);
    std::ranges::move(compare_by_pairs(command, interrupted, progress, run.remarks),
                      std::back_inserter(run.comparisons));
  }
  run.took = std::chrono::steady_clock::now() - began;
  run.interrupted = interrupted.load();
  if (command.until) run.until_met = rates_are_narrow(run.trials, *command.until);
  const Json document = compare_document(run);
  if (prints) print_output([&] { print_result(run, document); });
  const auto rows = bench::summarize(run.trials);
  const bool is_trusted = std::ranges::all_of(rows, [](const Summary& row) { return row.runs > 0; });
  return finish(run, document, is_trusted);
}

}  // namespace anteroom::tool
