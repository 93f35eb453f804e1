#include "json.h"

#include <anteroom/bench/summary.h>
#include <anteroom/listen_queue.h>
#include <anteroom/version.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "report_lines.h"

namespace anteroom::tool {
namespace {

using bench::Counter;
using bench::Estimate;
using bench::Histogram;
using bench::Latencies;
using bench::Scenario;
using bench::Summary;
using bench::TrialResult;

// Of the histograms: twelve bins a decade from 10 µs to 100 s, so that a bin is a fifth wide, and the
// kernel's 1.024 s has one of its own.
constexpr int kBinsPerDecade = 12;
constexpr int kDecades = 7;
constexpr double kFirstEdge = 1e-5;

double seconds(std::chrono::nanoseconds duration) { return static_cast<double>(duration.count()) * 1e-9; }

Json backlog_json(int backlog) { return backlog == bench::kUnlimitedBacklog ? Json(nullptr) : Json(backlog); }

template <class T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

/// Where 0 is what stands for "could not be read".
template <class T>
Json unless_zero(T value) {
  return value > 0 ? Json(value) : Json(nullptr);
}

Json edges_json() {
  Json edges = Json::array();
  for (int i = 0; i <= kBinsPerDecade * kDecades; ++i)
    edges.push_back(kFirstEdge * std::pow(10.0, static_cast<double>(i) / kBinsPerDecade));
  return edges;
}

Json bins_json(const Histogram& histogram) {
  std::vector<std::uint64_t> bins(std::size_t{kBinsPerDecade} * kDecades);
  histogram.for_each([&](Histogram::Duration value, std::uint32_t count) {
    const double place = std::log10(std::max(seconds(value), kFirstEdge) / kFirstEdge) * kBinsPerDecade;
    bins[std::min(static_cast<std::size_t>(place), bins.size() - 1)] += count;
  });
  return bins;
}

Json fates_json(const bench::Fates& fates) {
  Json json = Json::object();
  for (const auto& [fate, fate_name] : bench::kFates) json[std::string(fate_name)] = fates[fate];
  return json;
}

/// Of a closed loop the percentiles of the served alone, as the tools have it. Of nobody there are none.
Json latencies_json(const Latencies& all, bool only_finished) {
  Latencies latencies = all;
  if (only_finished) latencies.forget_unfinished();
  const bool is_known = latencies.count() > 0;
  const auto at = [&](double share) {
    return is_known ? Json(seconds(latencies.percentile(share))) : Json(nullptr);
  };
  Json json{{"p50", at(0.5)},
            {"p90", at(0.9)},
            {"p99", at(0.99)},
            {"p99_9", at(0.999)},
            {"max", is_known ? Json(seconds(latencies.max())) : Json(nullptr)},
            {"unserved", all.unfinished().count()}};
  Json bounds = Json::array();
  for (const auto& [share, percentile] :
       {std::pair(0.5, "p50"), {0.9, "p90"}, {0.99, "p99"}, {0.999, "p99_9"}, {1.0, "max"}}) {
    if (latencies.is_lower_bound(share)) bounds.push_back(percentile);
  }
  json["lower_bounds"] = std::move(bounds);
  return json;
}

/// Some servers, and all that are none of ours, do not tell it of anybody.
Json wait_json(const Histogram& wait) {
  const auto if_any = [&](Histogram::Duration value) {
    return wait.count() > 0 ? Json(seconds(value)) : Json(nullptr);
  };
  return {{"p50", if_any(wait.percentile(0.5))},
          {"p99", if_any(wait.percentile(0.99))},
          {"max", if_any(wait.max())}};
}

/// `least_is_best`: of a loss or a cost. null if no run has measured it.
Json estimate_json(const Estimate& estimate, bool least_is_best = true) {
  if (estimate.n == 0) return nullptr;
  return {{"median", estimate.median},
          {"low", estimate.low},
          {"high", estimate.high},
          {"best", least_is_best ? estimate.least : estimate.most},
          {"worst", least_is_best ? estimate.most : estimate.least}};
}

Json little_json(const std::optional<double>& in_system, const std::optional<double>& rate_times_latency) {
  return {{"in_system", or_null(in_system)}, {"rate_times_latency", or_null(rate_times_latency)}};
}

Json queue_over_time_json(const Summary& row) {
  if (row.depth_over_time.empty()) return nullptr;
  Json depth = Json::array();
  for (const std::optional<std::uint32_t>& deepest : row.depth_over_time) depth.push_back(or_null(deepest));
  return {{"step_s", seconds(row.depth_step)}, {"depth", std::move(depth)}};
}

Json row_json(const Summary& row) {
  Json json{{"server", bench::name(row.scenario.server)},
            {"loop", bench::name(row.scenario.loop)},
            {"backlog", backlog_json(row.scenario.backlog)},
            {"runs", row.runs},
            {"void_runs", row.void_runs}};
  if (row.runs == 0) return json;
  Json turned_away = estimate_json(row.turned_away);
  turned_away["upper"] = or_null(row.loss_upper);
  const bool is_closed = row.scenario.loop == bench::Loop::kClosed;
  json.update(
      Json{{"clients", row.clients},
           {"connections_per_second", estimate_json(row.connections_per_second, false)},
           {"lost_first_syn", estimate_json(row.lost_first_syn)},
           {"turned_away", std::move(turned_away)},
           {"model_loss", or_null(row.forecast_loss)},
           {"model", row.forecast_loss ? Json(row.model) : Json(nullptr)},
           {"fates", fates_json(row.fates)},
           {"ghosts", estimate_json(row.ghosts)},
           {"listen_overflows", estimate_json(row.overflows)},
           {"listen_drops", estimate_json(row.drops)},
           {"syn_retransmits", estimate_json(row.syn_retransmits)},
           {"first_stall_drops", row.stall_loss ? estimate_json(row.first_stall_drops) : Json(nullptr)},
           {"law", or_null(row.stall_loss)},
           {"deepest_queue", estimate_json(row.deepest_queue)},
           {"server_cpu_s_per_connection", estimate_json(row.server_cpu_s)},
           {"first_byte_s", latencies_json(row.first_byte, is_closed)},
           {"connect_s", latencies_json(row.connect, is_closed)},
           {"queue_wait_s", wait_json(row.queue_wait)},
           {"little", little_json(row.mean_in_system, row.rate_times_latency)},
           {"histograms",
            {{"first_byte", bins_json(row.first_byte.finished())},
             {"connect", bins_json(row.connect.finished())},
             {"unfinished", bins_json(is_closed ? Histogram() : row.first_byte.unfinished())}}},
           {"queue_over_time", queue_over_time_json(row)}});
  return json;
}

Json counters_json(const TrialResult& trial) {
  Json json = Json::object();
  const auto add = [&json](std::string_view side, const bench::KernelCounters& counters) {
    for (const auto& [counter, counter_name] : bench::kCounters) {
      const std::string_view plain = counter_name.substr(counter_name.find('.') + 1);
      if (counters[counter] > 0) json[fmt::format("{}.{}", side, plain)] = counters[counter];
    }
  };
  add("server", trial.server_counters);
  add("client", trial.client_counters);
  json["softnet_drops"] = trial.softnet_drops;
  return json;
}

Json books_json(const std::vector<bench::Account>& books) {
  Json json = Json::array();
  for (const bench::Account& account : books) {
    json.push_back({{"name", account.name},
                    {"left", account.left},
                    {"right", account.right},
                    {"residual", account.residual()},
                    {"allowed", {account.allowed_from, account.allowed_to}},
                    {"balanced", account.balances()},
                    {"meaning", account.meaning}});
  }
  return json;
}

Json cycles_json(const std::vector<bench::Cycle>& cycles) {
  Json json = Json::array();
  for (const bench::Cycle& cycle : cycles)
    json.push_back({{"clients", cycle.clients}, {"turned_away", cycle.lost}, {"deepest_queue", cycle.peak}});
  return json;
}

Json generator_json(const TrialResult& trial) {
  const Histogram& lateness = trial.lateness;
  // In a closed loop the server sets the pace, so that nobody can be late.
  const bool is_known = trial.scenario.loop == bench::Loop::kOpen && lateness.count() > 0;
  const auto if_known = [&](Histogram::Duration value) {
    return is_known ? Json(seconds(value)) : Json(nullptr);
  };
  return {{"lateness_p50_s", if_known(lateness.percentile(0.5))},
          {"lateness_p99_s", if_known(lateness.percentile(0.99))},
          {"lateness_max_s", if_known(lateness.max())},
          {"launch_span_s", seconds(trial.launch_span)},
          {"largest_clump", trial.largest_clump}};
}

Json trial_json(const TrialResult& trial) {
  const Scenario& scenario = trial.scenario;
  Json json{{"server", bench::name(scenario.server)},
            {"loop", bench::name(scenario.loop)},
            {"backlog", backlog_json(scenario.backlog)},
            {"backlog_in_force", trial.complete ? Json(trial.backlog_in_force) : Json(nullptr)},
            {"clients", trial.complete ? trial.clients : static_cast<std::uint32_t>(scenario.clients)},
            {"seed", scenario.seed},
            {"void", trial.is_void()},
            {"problems", trial.problems},
            {"network", bench::name(trial.road)}};
  if (!trial.complete) return json;
  json.update(
      Json{{"fates", fates_json(trial.fates)},
           {"served_after", trial.served_after},
           {"lost_first_syn", trial.lost_first_syn},
           {"turned_away", trial.turned_away},
           {"cycles", cycles_json(trial.cycles)},
           {"first_byte_s", latencies_json(trial.first_byte, scenario.loop == bench::Loop::kClosed)},
           {"connect_s", latencies_json(trial.connect, scenario.loop == bench::Loop::kClosed)},
           {"queue_wait_s", wait_json(trial.queue_wait)},
           {"connections_per_second", trial.connections_per_second},
           {"deepest_queue", trial.deepest_queue},
           {"first_stall_drops", scenario.stalls().empty() ? Json(nullptr) : Json(trial.first_stall_drops)},
           {"accepted", trial.accepted},
           {"listener_drops", trial.listener_drops},
           {"balanced", bench::balance(trial.books)},
           {"books", books_json(trial.books)},
           {"little", little_json(trial.known_in_system(), trial.known_rate_times_latency())},
           {"counters", counters_json(trial)},
           {"generator", generator_json(trial)},
           {"server_cpu_s", unless_zero(seconds(trial.server_cpu))},
           {"swarm_cpu_s", unless_zero(seconds(trial.swarm_cpu))}});
  if (scenario.rtt.count() > 0 || scenario.loss > 0) {
    const bench::RoadTraffic& traffic = trial.traffic;
    json["road"] = {{"carried", traffic.carried},
                    {"lost", traffic.lost},
                    {"syn", traffic.lost_syn},
                    {"syn_ack", traffic.lost_syn_ack},
                    {"ack", traffic.lost_ack}};
  }
  return json;
}

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != line.npos) return line.substr(colon + 2);
  }
  return {};
}

Json machine_json() {
  utsname name{};
  ::uname(&name);
  struct sysinfo memory {};
  ::sysinfo(&memory);
  rlimit descriptors{};
  ::getrlimit(RLIMIT_NOFILE, &descriptors);
  return {{"kernel", fmt::format("{} {}", name.sysname, name.release)},
          {"architecture", name.machine},
          {"processor", processor_name()},
          {"processors", unless_zero(std::thread::hardware_concurrency())},
          {"memory_bytes", unless_zero(std::uint64_t{memory.totalram} * memory.mem_unit)},
          {"somaxconn", system_backlog_max()},
          {"descriptors", unless_zero(descriptors.rlim_max)}};
}

/// Of the trials as they ran; `sysctls` are those that decide what a full queue does.
Json network_json(const Run& run) {
  const auto trial = std::ranges::find_if(run.trials, &TrialResult::complete);
  const Scenario& load = run.command.load;
  Json json{{"kind", trial == run.trials.end() ? "none" : std::string(bench::name(trial->road))},
            {"why", trial == run.trials.end() ? "no trial has ended" : trial->why_not_better},
            {"rtt_s", seconds(load.rtt)},
            {"loss", load.loss}};
  Json sysctls = Json::object();
  if (trial != run.trials.end()) {
    for (const auto& [key, value] : trial->sysctls) sysctls[key] = value;
  }
  json["sysctls"] = std::move(sysctls);
  return json;
}

Json load_json(const ExperimentCommand& command) {
  const Scenario& load = command.load;
  const bool has_closed = std::ranges::count(command.loops, bench::Loop::kClosed) > 0;
  return {{"in_words", load_in_words(load)},
          {"clients", load.clients},
          {"loop", bench::name(load.loop)},
          {"flows", has_closed ? Json(load.flows) : Json(nullptr)},
          {"arrival", bench::name(load.arrival)},
          {"rate", load.arrival == bench::Arrival::kBurst ? Json(nullptr) : Json(load.rate)},
          {"dispersion", load.dispersion},
          {"on_s", seconds(load.on)},
          {"off_s", seconds(load.off)},
          {"burst", load.arrival == bench::Arrival::kBurst ? load.clients : load.burst},
          {"burst_every_s", seconds(load.burst_every)},
          {"burst_within_s", seconds(load.burst_within)},
          {"stall_s", seconds(load.stall)},
          {"stall_every_s", seconds(load.stall_every)},
          {"stall_jitter", load.stall_jitter},
          {"handler", load.handler.to_string()},
          {"threads", load.threads},
          {"patience_s", seconds(load.patience)}};
}

Json run_json(const char* schema, const Run& run, const std::vector<Summary>& rows) {
  const ExperimentCommand& command = run.command;
  const std::time_t started = std::chrono::system_clock::to_time_t(run.started);
  Json json{{"schema", schema},
            {"version", ANTEROOM_VERSION_STRING},
            {"started", fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(started))},
            {"took_s", seconds(run.took)},
            {"command", command.command_line},
            {"seed", command.seed},
            {"interrupted", run.interrupted},
            {"notes", notes(run)}};
  json["machine"] = machine_json();
  json["network"] = network_json(run);
  json["load"] = load_json(command);
  json["repeat"] = command.repeat;
  json["until"] = or_null(command.until);
  json["until_met"] = or_null(run.until_met);
  json["rows"] = Json::array();
  for (const Summary& row : rows) json["rows"].push_back(row_json(row));
  json["edges_s"] = edges_json();
  json["trials"] = Json::array();
  for (const TrialResult& trial : run.trials) json["trials"].push_back(trial_json(trial));
  return json;
}

Json theory_json(const std::vector<Summary>& rows) {
  Json json = Json::array();
  for (const Summary& row : rows) {
    if (row.runs == 0 || !row.forecast_loss) continue;
    json.push_back({{"server", bench::name(row.scenario.server)},
                    {"backlog", backlog_json(row.scenario.backlog)},
                    {"model", row.model},
                    {"predicted_loss", *row.forecast_loss},
                    {"measured_loss", row.turned_away.median}});
  }
  return json;
}

Json comparisons_json(const std::vector<ComparisonRow>& comparisons) {
  Json json = Json::array();
  for (const ComparisonRow& row : comparisons) {
    json.push_back({{"server", bench::name(row.server)},
                    {"against", bench::name(row.against)},
                    {"backlog", backlog_json(row.backlog)},
                    {"loop", bench::name(row.loop)},
                    {"metric", row.metric},
                    {"ratio", or_null(row.ratio)},
                    {"low", or_null(row.low)},
                    {"high", or_null(row.high)},
                    {"p", or_null(row.p)},
                    {"p_holm", or_null(row.p_holm)},
                    {"verdict", row.verdict},
                    {"method", row.method},
                    {"n", row.n}});
  }
  return json;
}

Json target_json(const Run& run) {
  const RunningCommand& running = *run.command.running;
  return {{"name", running.name},
          {"pid", or_null(running.pid)},
          {"port", or_null(running.port)},
          {"address", running.address},
          {"redirected_to", running.redirected_to.empty() ? Json(nullptr) : Json(running.redirected_to)},
          {"listeners", running.rooms},
          {"backlog", running.rooms > 0 ? Json(running.backlog) : Json(nullptr)},
          {"somaxconn", unless_zero(running.backlog_max)},
          {"request", running.dialogue.request},
          {"expect", running.dialogue.is_http ? "HTTP/1.x 200 to 399" : running.dialogue.expect},
          {"ended", run.why_ended.empty() ? Json(nullptr) : Json(run.why_ended)},
          {"put_back", run.not_put_back.empty()}};
}

}  // namespace

Json tune_document(const Run& run, const bench::Advice& advice) {
  Json json = run_json("anteroom.tune/2", run, bench::summarize(run.trials));
  json["target_loss"] = run.command.target_loss;
  json["recommended"] = advice.found() ? Json(advice.recommended) : Json(nullptr);
  Json limits = Json::array();
  for (const Limit& limit : limits_for(run.command, advice)) {
    limits.push_back(
        {{"name", limit.name}, {"now", limit.now}, {"needed", limit.needed}, {"command", limit.command}});
  }
  if (run.command.running) json["target"] = target_json(run);
  const auto of_queue = [&](double value) {
    return advice.deepest_queue.n > 0 ? Json(value) : Json(nullptr);
  };
  const bool has_headroom = advice.found() && advice.deepest_queue.most > 0;
  const bool has_model = advice.lossless_trials > 0 && !advice.is_of_a_running_server;
  json["advice"] = {
      {"reason", advice.found() ? reason(advice, {}) : why_none(run.trials, advice)},
      {"confirmed", advice.confirmed},
      {"dominant", has_model ? Json(bench::name(advice.model_needs.dominant())) : Json(nullptr)},
      {"loss_upper", advice.found() ? Json(advice.loss_upper) : Json(nullptr)},
      {"deepest_queue", of_queue(advice.deepest_queue.most)},
      {"deepest_queue_low", of_queue(advice.deepest_queue.low)},
      {"deepest_queue_high", of_queue(advice.deepest_queue.high)},
      {"lossless_trials", advice.lossless_trials},
      {"schedules", advice.schedules},
      {"headroom", has_headroom ? Json(advice.headroom()) : Json(nullptr)},
      {"predicted_depth", or_null(advice.predicted_depth)},
      {"upper_bound", or_null(advice.places_max)},
      {"limits", std::move(limits)},
      {"valid_trials", advice.valid_trials},
      {"void_trials", advice.void_trials}};
  return json;
}

Json compare_document(const Run& run) {
  const std::vector<Summary> rows = bench::summarize(run.trials);
  Json json = run_json("anteroom.compare/2", run, rows);
  json["comparisons"] = comparisons_json(run.comparisons);
  json["theory"] = theory_json(rows);
  return json;
}

Json swarm_document(const Run& run) {
  Json json = run_json("anteroom.swarm/1", run, bench::summarize(run.trials));
  json["target"] = target_json(run);
  json["load"]["for_s"] = seconds(run.command.load.load_length());
  // Of a server that is none of ours nobody says how long each has waited, nor what a model would make of it.
  std::vector<std::string> unknown{"model_loss", "model", "first_stall_drops", "law", "queue_wait_s"};
  const bool is_unseen = run.command.running->rooms == 0;
  if (is_unseen) {
    for (const char* field : {"ghosts", "listen_overflows", "listen_drops", "deepest_queue",
                              "queue_over_time", "backlog_in_force", "listener_drops"})
      unknown.emplace_back(field);
  }
  for (const char* part : {"rows", "trials"}) {
    for (Json& row : json[part]) {
      for (const std::string& field : unknown) {
        if (row.contains(field)) row[field] = nullptr;
      }
      if (!is_unseen || !row.contains("fates")) continue;
      for (const char* ghost : {"ghost_half_open", "ghost_unknown"}) row["fates"][ghost] = nullptr;
    }
  }
  return json;
}

std::string print(const Json& json) {
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + '\n';
}

}  // namespace anteroom::tool
