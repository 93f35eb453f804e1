// What was not measured: null in every document, "not known" in words, and no rule that asks for it is kept.
#include <anteroom/bench/advice.h>
#include <anteroom/bench/summary.h>
#include <anteroom/bench/trial.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "csv.h"
#include "diff.h"
#include "json.h"
#include "report.h"
#include "rules.h"
#include "support/program.h"
#include "table.h"
#include "watch.h"
#include "watch_document.h"

namespace anteroom::tool {
namespace {

using namespace std::chrono_literals;
using bench::Fate;
using bench::Loop;
using bench::ServerKind;
using bench::TrialResult;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

// ---- Runs in which nothing was measured ----

constexpr std::uint32_t kClients = 10;

/// Ten clients of a closed loop, of whom none was served.
TrialResult trial_of_nobody(ServerKind server) {
  TrialResult trial;
  trial.complete = true;
  trial.scenario.server = server;
  trial.scenario.backlog = 64;
  trial.scenario.loop = Loop::kClosed;
  trial.scenario.clients = kClients;
  trial.clients = kClients;
  trial.fates[Fate::kAnsweredOtherwise] = kClients;
  trial.backlog_in_force = 64;
  for (std::uint32_t i = 0; i < kClients; ++i) trial.first_byte.record_unfinished(1s);
  return trial;
}

TrialResult trial_that_is_void(ServerKind server) {
  TrialResult trial = trial_of_nobody(server);
  trial.problems.emplace_back("the generator was the limit");
  return trial;
}

TrialResult trial_that_could_not_be_run(ServerKind server) {
  TrialResult trial;
  trial.scenario.server = server;
  trial.problems.emplace_back("it could not be run: no memory");
  return trial;
}

/// Everybody was served.
TrialResult trial_of_all(ServerKind server) {
  TrialResult trial = trial_of_nobody(server);
  trial.fates[Fate::kAnsweredOtherwise] = 0;
  trial.fates[Fate::kServedAtOnce] = kClients;
  trial.first_byte = trial.connect = {};
  for (std::uint32_t i = 0; i < kClients; ++i) {
    trial.first_byte.record(2ms);
    trial.connect.record(1ms);
    trial.queue_wait.record(1ms);
  }
  trial.connections_per_second = 100;
  trial.server_cpu = trial.swarm_cpu = 1ms;
  trial.depth_step = 1ms;
  trial.depth_over_time = {0, std::nullopt, 3};
  trial.deepest_queue = 3;
  return trial;
}

using MakeTrial = TrialResult (*)(ServerKind server);

/// `listeners` is of the server that a swarm calls; none is one beyond this machine.
ExperimentCommand command_of(ServerKind server, int listeners = 1) {
  ExperimentCommand command;
  command.load = trial_of_nobody(server).scenario;
  command.loops = {Loop::kClosed};
  command.command_line = "anteroom";
  if (server == ServerKind::kRunning) {
    command.running.emplace().address = "127.0.0.1:80";
    command.running->rooms = listeners;
    command.running->backlog = listeners > 0 ? 64 : 0;
  }
  return command;
}

Json tune_of(const std::vector<TrialResult>& trials) {
  const ExperimentCommand command = command_of(ServerKind::kReactor);
  return tune_document({.command = command, .trials = trials, .started = {}}, bench::advise(trials));
}
Json compare_of(const std::vector<TrialResult>& trials) {
  const ExperimentCommand command = command_of(ServerKind::kReactor);
  return compare_document({.command = command, .trials = trials, .started = {}});
}
Json swarm_of(TrialResult trial, int listeners = 1) {
  if (listeners == 0) trial.scenario.backlog = bench::kUnlimitedBacklog;  // which stands for one not known
  const ExperimentCommand command = command_of(ServerKind::kRunning, listeners);
  return swarm_document({.command = command, .trials = {trial}, .started = {}});
}

/// Of an open loop on a server beyond this machine, in which all waited to the end: ages are lower bounds.
TrialResult open_trial_of_nobody() {
  TrialResult trial = trial_of_nobody(ServerKind::kRunning);
  trial.scenario.loop = Loop::kOpen;
  trial.entries.has_server = false;
  for (std::uint32_t i = 0; i < kClients; ++i) trial.lateness.record(1us);
  return trial;
}

/// One look at one listener, and none at the kernel's counters.
Json watch_of_one_look() {
  static const WatchCommand command;
  WatchState state{.command = command,
                   .started = {},
                   .took = 1ms,
                   .rooms = WatchedRooms([](const bench::ListeningSocket&) { return true; })};
  const bench::ListeningSocket socket{.address = {"127.0.0.1", 80}, .limit = 64, .cookie = 1};
  state.rooms.take(1ms, std::span(&socket, 1), true, [] { return std::uint64_t{0}; });
  return watch_document(state);
}

std::vector<std::pair<std::string, Json>> documents_of_nothing() {
  const auto of = [](MakeTrial make) {
    return std::vector<TrialResult>{make(ServerKind::kReactor), make(ServerKind::kReactor)};
  };
  std::vector<std::pair<std::string, Json>> documents;
  documents.emplace_back("a tune without a trial", tune_of({}));
  documents.emplace_back("a compare without a trial", compare_of({}));
  for (const auto& [name, make] : {std::pair<std::string, MakeTrial>{"nobody served", trial_of_nobody},
                                   {"all void", trial_that_is_void},
                                   {"none could be run", trial_that_could_not_be_run}}) {
    documents.emplace_back("a tune, " + name, tune_of(of(make)));
    documents.emplace_back("a compare, " + name, compare_of(of(make)));
    documents.emplace_back("a swarm, " + name, swarm_of(make(ServerKind::kRunning)));
    documents.emplace_back("a swarm on a server that is not seen, " + name,
                           swarm_of(make(ServerKind::kRunning), 0));
  }
  documents.emplace_back("an open loop on a server that is not seen", swarm_of(open_trial_of_nobody(), 0));
  documents.emplace_back("a watch of one look", watch_of_one_look());
  const Json swarm = swarm_of(trial_of_nobody(ServerKind::kRunning), 0);
  documents.emplace_back("a diff", diff_json(diff(swarm, swarm)));
  return documents;
}

// ---- Every number of a document ----

/// visit("rows[].fates.refused", value) for each that is no object and no array. Fields without a fixed name
/// (the kernel's counters and sysctls) are "*".
void for_each_value(const Json& json, const std::string& path,
                    const std::function<void(const std::string&, const Json&)>& visit) {
  if (json.is_object()) {
    const bool has_free_names = path.ends_with("counters") || path.ends_with("sysctls");
    for (const auto& [key, value] : json.items())
      for_each_value(value, (path.empty() ? "" : path + '.') + (has_free_names ? "*" : key), visit);
  } else if (json.is_array()) {
    for (const Json& element : json) for_each_value(element, path + "[]", visit);
  } else {
    visit(path, json);
  }
}

// clang-format off
/// Numbers that are known of a run in which nothing was measured. A new number of a document is either null
/// there, or gets a line here with the reason.
const std::set<std::string, std::less<>> kKnown{
    // what was given to the run
    "seed", "repeat", "target_loss", "load.clients", "load.flows", "load.dispersion", "load.on_s", "load.off_s",
    "load.burst", "load.burst_every_s", "load.burst_within_s", "load.stall_s", "load.stall_every_s",
    "load.stall_jitter", "load.threads", "load.patience_s", "load.for_s", "network.rtt_s", "network.loss",
    "edges_s[]", "rows[].backlog", "trials[].backlog", "trials[].seed",
    // of this machine, now
    "took_s", "machine.processors", "machine.memory_bytes", "machine.somaxconn", "machine.descriptors",
    "somaxconn",
    // of the server that was called
    "target.listeners", "target.backlog", "trials[].backlog_in_force",
    // trials, counted
    "rows[].runs", "rows[].void_runs", "advice.valid_trials", "advice.void_trials", "advice.lossless_trials",
    "advice.schedules", "theory[].backlog",
    // clients, each of whom was called by us
    "rows[].clients", "trials[].clients",
    "rows[].fates.served_at_once", "rows[].fates.served_after_retransmit", "rows[].fates.ghost_half_open",
    "rows[].fates.ghost_unknown", "rows[].fates.refused", "rows[].fates.reset_before_accept",
    "rows[].fates.reset_after_accept", "rows[].fates.deadline", "rows[].fates.timed_out",
    "rows[].fates.no_local_port", "rows[].fates.no_descriptor", "rows[].fates.not_started",
    "rows[].fates.answered_otherwise",
    "trials[].fates.served_at_once", "trials[].fates.served_after_retransmit",
    "trials[].fates.ghost_half_open", "trials[].fates.ghost_unknown", "trials[].fates.refused",
    "trials[].fates.reset_before_accept", "trials[].fates.reset_after_accept", "trials[].fates.deadline",
    "trials[].fates.timed_out", "trials[].fates.no_local_port", "trials[].fates.no_descriptor",
    "trials[].fates.not_started", "trials[].fates.answered_otherwise",
    "rows[].first_byte_s.unserved", "rows[].connect_s.unserved", "trials[].first_byte_s.unserved",
    "trials[].connect_s.unserved", "trials[].lost_first_syn", "trials[].turned_away", "trials[].accepted",
    "trials[].generator.launch_span_s", "trials[].generator.largest_clump",
    "rows[].histograms.first_byte[]", "rows[].histograms.connect[]", "rows[].histograms.unfinished[]",
    // shares of those clients, and how many of them a second
    "rows[].lost_first_syn.median", "rows[].lost_first_syn.low", "rows[].lost_first_syn.high",
    "rows[].lost_first_syn.best", "rows[].lost_first_syn.worst", "rows[].turned_away.median",
    "rows[].turned_away.low", "rows[].turned_away.high", "rows[].turned_away.best", "rows[].turned_away.worst",
    "rows[].ghosts.median", "rows[].ghosts.low", "rows[].ghosts.high", "rows[].ghosts.best",
    "rows[].ghosts.worst", "rows[].connections_per_second.median", "rows[].connections_per_second.low",
    "rows[].connections_per_second.high", "rows[].connections_per_second.best",
    "rows[].connections_per_second.worst", "trials[].connections_per_second",
    "rows[].syn_retransmits.median", "rows[].syn_retransmits.low", "rows[].syn_retransmits.high",
    "rows[].syn_retransmits.best", "rows[].syn_retransmits.worst",
    // the kernel's counts of a server that is seen
    "rows[].listen_overflows.median", "rows[].listen_overflows.low", "rows[].listen_overflows.high",
    "rows[].listen_overflows.best", "rows[].listen_overflows.worst", "rows[].listen_drops.median",
    "rows[].listen_drops.low", "rows[].listen_drops.high", "rows[].listen_drops.best",
    "rows[].listen_drops.worst", "rows[].deepest_queue.median", "rows[].deepest_queue.low",
    "rows[].deepest_queue.high", "rows[].deepest_queue.best", "rows[].deepest_queue.worst",
    "trials[].deepest_queue", "trials[].listener_drops", "trials[].counters.*",
    // watch: one sample of a listener, and what it counts from there on
    "cpu_share", "samples", "hidden_processes", "kernel.listen_overflows", "kernel.listen_drops",
    "kernel.passive_opens", "kernel.syncookies_sent", "kernel.syncookies_failed",
    "kernel.syn_queue_full_drops", "kernel.embryonic_resets", "listeners[].port", "listeners[].uid",
    "listeners[].sockets_at_address", "listeners[].samples", "listeners[].watched_s", "listeners[].depth",
    "listeners[].limit", "listeners[].peak", "listeners[].drops", "listeners[].sk_drops",
    "listeners[].sk_drops_total", "listeners[].stalls", "listeners[].history.step_s",
    "listeners[].history.full[]", "listeners[].advice.law.burst",
    // diff: runs, counted; and what both have measured
    "rows[].changes[].runs_before", "rows[].changes[].runs_after", "runs_needed",
};
// clang-format on

TEST(Unmeasured, IsNullInEveryDocument) {
  for (const auto& [name, document] : documents_of_nothing()) {
    for_each_value(document, "", [&, &name = name](const std::string& path, const Json& value) {
      if (!value.is_number() || kKnown.contains(path)) return;
      // Of what is compared it depends on the metric: see IsNotKnownInADiff.
      if (path.starts_with("rows[].changes[].")) return;
      // In an open loop the ages of those who waited bound it from below, and the document says so.
      if (name == "an open loop on a server that is not seen" && path.find("first_byte_s") != path.npos)
        return;
      if (name == "an open loop on a server that is not seen" && path.find("lateness") != path.npos) return;
      if (name == "an open loop on a server that is not seen" && path.find("unfinished") != path.npos) return;
      ADD_FAILURE() << name << ": " << path << " is " << value << ", and was not measured";
    });
  }
}

TEST(Unmeasured, IsANumberWhereItWasMeasured) {
  const TrialResult trial = trial_of_all(ServerKind::kReactor);
  const Json document = compare_of({trial, trial});
  const Json& row = document["rows"][0];
  for (const char* field : {"first_byte_s", "connect_s"}) {
    for (const char* percentile : {"p50", "p90", "p99", "p99_9", "max"})
      EXPECT_TRUE(row[field][percentile].is_number()) << field << percentile;
  }
  EXPECT_TRUE(row["queue_wait_s"]["p99"].is_number());
  EXPECT_TRUE(row["server_cpu_s_per_connection"]["median"].is_number());
  EXPECT_TRUE(row["little"]["in_system"].is_number());
  EXPECT_EQ(row["queue_over_time"]["depth"], Json({0, nullptr, 3})) << "a step without a sample";
  EXPECT_EQ(row["deepest_queue"]["median"], 3);
  EXPECT_TRUE(document["trials"][0]["server_cpu_s"].is_number());
}

TEST(Unmeasured, IsNullIfOnlyAKernelWithoutTheCounterKnows) {
  TrialResult trial = trial_of_all(ServerKind::kReactor);
  trial.server_counters.note_missing(bench::Counter::kListenOverflows);
  const Json document = compare_of({trial});
  EXPECT_TRUE(document["rows"][0]["listen_overflows"].is_null());
  EXPECT_TRUE(document["rows"][0]["listen_drops"].is_object());
  const auto rule = std::get<Rule>(parse_rule("overflows>5"));
  EXPECT_THAT(broken_rules(document, {rule}),
              testing::ElementsAre("overflows>5: overflows is not known at backlog 64"));
}

TEST(Unmeasured, OnlyLowerBoundsAreKnownOfAnOpenLoopInWhichAllWaited) {
  const Json row = swarm_of(open_trial_of_nobody(), 0)["rows"][0];
  EXPECT_EQ(row["first_byte_s"]["lower_bounds"], Json({"p50", "p90", "p99", "p99_9", "max"}));
  EXPECT_TRUE(row["fates"]["ghost_unknown"].is_null()) << "they look like those who wait";
  EXPECT_TRUE(row["connect_s"]["p99"].is_null());
}

// ---- Every rule ----

/// A rule on `name` that a 0 in the place of what is not known would keep.
Rule lenient_rule(const std::string& name) {
  for (const char* limit : {">1000k", ">100s", ">90%"}) {
    const auto rule = parse_rule(name + limit);
    if (std::holds_alternative<Rule>(rule)) return std::get<Rule>(rule);
  }
  ADD_FAILURE() << "no limit fits " << name;
  return {};
}

std::vector<std::string> all_rule_names() {
  std::istringstream stream(rule_names());
  std::vector<std::string> names;
  for (std::string name; stream >> name;) names.push_back(name);
  return names;
}

Json older(Json document, const std::function<void(Json& row)>& change) {
  change(document["rows"][0]);
  return document;
}

/// A document, and the rules that it can answer; all others it breaks.
struct RuleCase {
  std::string name;
  Json document;
  std::set<std::string> answered;
};

std::vector<RuleCase> rule_cases() {
  const std::set<std::string> of_clients{"lost",   "unserved", "unexpected", "refused",
                                         "resets", "conn/s",   "void"};
  std::set<std::string> of_seen = of_clients;
  of_seen.insert({"ghosts", "overflows", "depth"});
  const Json nobody = swarm_of(trial_of_nobody(ServerKind::kRunning));
  const Json all = swarm_of(trial_of_all(ServerKind::kRunning));
  std::set<std::string> everything;
  for (const std::string& name : all_rule_names()) everything.insert(name);
  everything.erase("recommended");
  std::set<std::string> but_unexpected = everything;
  but_unexpected.erase("unexpected");
  std::set<std::string> but_unserved = everything;
  for (const char* name : {"unserved", "p50", "p90", "p99", "p99.9", "max"}) but_unserved.erase(name);
  return {
      {"everybody was served", all, everything},
      {"nobody was served", nobody, of_seen},
      {"nobody was served, by a server that is not seen", swarm_of(trial_of_nobody(ServerKind::kRunning), 0),
       of_clients},
      {"no trial", compare_of({}), {}},
      {"no trial counts", swarm_of(trial_that_is_void(ServerKind::kRunning)), {"void"}},
      {"no trial could be run", swarm_of(trial_that_could_not_be_run(ServerKind::kRunning)), {"void"}},
      {"an older document without that fate",
       older(all, [](Json& row) { row["fates"].erase("answered_otherwise"); }), but_unexpected},
      {"an older document, with 0 for nobody's",
       older(nobody,
             [](Json& row) {
               for (const char* percentile : {"p50", "p90", "p99", "p99_9", "max"})
                 row["first_byte_s"][percentile] = row["connect_s"][percentile] = 0.0;
               row["server_cpu_s_per_connection"] =
                   Json{{"median", 0}, {"low", 0}, {"high", 0}, {"best", 0}, {"worst", 0}};
             }),
       of_seen},
      {"a document without latencies", older(all, [](Json& row) { row["first_byte_s"] = nullptr; }),
       but_unserved},
  };
}

TEST(Unmeasured, BreaksEveryRuleThatAsksForIt) {
  for (const RuleCase& one : rule_cases()) {
    for (const std::string& name : all_rule_names()) {
      const std::vector<std::string> sentences = broken_rules(one.document, {lenient_rule(name)});
      if (one.answered.contains(name)) {
        EXPECT_THAT(sentences, IsEmpty()) << one.name << ": " << name;
        continue;
      }
      ASSERT_EQ(sentences.size(), 1U) << one.name << ": " << name;
      EXPECT_THAT(sentences.front(),
                  testing::AnyOf(HasSubstr(name + " is not known"), HasSubstr("nothing was measured"),
                                 HasSubstr("recommends nothing")))
          << one.name;
    }
  }
}

TEST(Unmeasured, MakesTheCommandExitWithFour) {
  const std::string path = testing::TempDir() + "anteroom-unmeasured-" + std::to_string(::getpid()) + ".json";
  std::ofstream(path) << print(swarm_of(trial_of_nobody(ServerKind::kRunning)));
  const auto status_of = [&](const std::string& rule) {
    test::Program program({PROGRAMS "/anteroom", "report", path, "--fail-if", rule});
    return program.wait(60s);
  };
  constexpr int kBroken = 4;
  const RuleCase one = rule_cases()[1];
  for (const std::string& name : all_rule_names()) {
    if (name == "recommended") continue;
    EXPECT_EQ(status_of(lenient_rule(name).text), one.answered.contains(name) ? 0 : kBroken) << name;
  }
  EXPECT_EQ(status_of("unexpected>0"), kBroken);
  EXPECT_EQ(status_of("unserved>0"), kBroken);
  std::filesystem::remove(path);
}

TEST(Unmeasured, BreaksARuleOfWatch) {
  const WatchRule rule = std::get<WatchRule>(parse_watch_rule("overflows>5"));
  EXPECT_THAT(broken(rule, std::nullopt), HasSubstr("overflows>5: overflows is not known"));
  EXPECT_EQ(broken(rule, 5), "");
  EXPECT_THAT(broken(rule, 6), HasSubstr("has 6 listen overflows"));
  const WatchRule other = std::get<WatchRule>(parse_watch_rule("drops>5"));
  EXPECT_EQ(broken(other, std::nullopt), "") << "it does not ask for it";
}

// ---- In words, tables and pictures ----

TEST(Unmeasured, IsNotKnownInADiff) {
  const Json nobody = swarm_of(trial_of_nobody(ServerKind::kRunning), 0);
  const Json all = swarm_of(trial_of_all(ServerKind::kRunning));
  const Diff changes = diff(nobody, nobody);
  for (const Change& change : changes.rows.front().changes) {
    const bool is_known = change.before && change.after;
    EXPECT_EQ(change.verdict == Verdict::kNotKnown, !is_known) << change.metric;
    EXPECT_EQ(is_known, change.metric == "turned_away" || change.metric == "connections_per_second")
        << change.metric;
  }
  Terminal terminal;
  terminal.columns = 120;
  terminal.utf8 = false;
  const std::string text = print_diff(changes, terminal);
  EXPECT_THAT(text, HasSubstr("first byte p99  not known -> not known"));
  EXPECT_THAT(text, HasSubstr("a backlog that is not known"));
  const Json json = diff_json(diff(nobody, all));
  EXPECT_EQ(json["rows"].size() + json["only_before"].size(), 1U);
}

TEST(Unmeasured, IsAnEmptyCellOfTheCsv) {
  std::istringstream lines(csv(swarm_of(trial_of_nobody(ServerKind::kRunning), 0)));
  std::string names;
  std::string values;
  std::getline(lines, names);
  std::getline(lines, values);
  const auto split = [](const std::string& line) {
    std::vector<std::string> cells(1);
    for (const char c : line) {
      if (c == ',') {
        cells.emplace_back();
      } else {
        cells.back() += c;
      }
    }
    return cells;
  };
  const std::vector<std::string> columns = split(names);
  const std::vector<std::string> cells = split(values);
  ASSERT_EQ(columns.size(), cells.size());
  const std::set<std::string, std::less<>> empty{
      "backlog",       "recommended", "turned_away_upper",       "model_loss",          "ghost_half_open",
      "ghost_unknown", "law",         "first_byte_lower_bounds", "connect_lower_bounds"};
  for (std::size_t i = 0; i < columns.size(); ++i) {
    const std::string& name = columns[i];
    const bool is_unknown = empty.contains(name) || name.starts_with("ghosts") ||
                            name.starts_with("listen_") || name.starts_with("first_stall") ||
                            name.starts_with("deepest_queue") || name.starts_with("server_cpu") ||
                            ((name.starts_with("first_byte_") || name.starts_with("connect_") ||
                              name.starts_with("queue_wait_")) &&
                             name.ends_with("_s"));
    EXPECT_EQ(cells[i].empty(), is_unknown) << name << " is \"" << cells[i] << '"';
  }
}

TEST(Unmeasured, IsADashInATableAndInThePage) {
  const TrialResult trial = trial_of_nobody(ServerKind::kReactor);
  const std::vector<bench::Summary> rows = bench::summarize({trial, trial});
  Terminal terminal;
  terminal.columns = 400;
  const std::string table = compare_table(rows, terminal);
  const std::string cells = table.substr(table.find('\n'));
  EXPECT_THAT(cells, HasSubstr(" - "));
  EXPECT_THAT(cells, Not(HasSubstr("0.0\n"))) << table;
  const std::string page = report_html(print(compare_of({trial, trial})));
  EXPECT_THAT(page, HasSubstr("<td>64</td><td>0.00 %</td><td>–</td>"));
}

TEST(Unmeasured, IsNoReasonForARecommendation) {
  const Json document = tune_of({});
  EXPECT_EQ(document["advice"]["reason"], "no trial has ended");
  EXPECT_TRUE(document["advice"]["deepest_queue"].is_null());
  EXPECT_TRUE(document["advice"]["dominant"].is_null());
  EXPECT_TRUE(document["recommended"].is_null());
}

}  // namespace
}  // namespace anteroom::tool
