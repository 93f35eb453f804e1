#include "json.h"

#include <anteroom/fd.h>
#include <anteroom/listen_queue.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>
#include <thread>

namespace anteroom::tool {
namespace {

using Json = nlohmann::ordered_json;
using bench::TrialResult;

double seconds(std::chrono::nanoseconds duration) { return static_cast<double>(duration.count()) * 1e-9; }

Json fates_json(const bench::Fates& fates) {
  Json json = Json::object();
  for (const bench::Fate fate : bench::kFates) json[std::string(bench::name(fate))] = fates[fate];
  return json;
}

Json latency_json(const TrialResult& trial) {
  const bench::Histogram& histogram = trial.first_byte;
  return {{"p50", seconds(histogram.percentile(0.5))},
          {"p90", seconds(histogram.percentile(0.9))},
          {"p99", seconds(histogram.percentile(0.99))},
          {"p99_9", seconds(histogram.percentile(0.999))},
          {"max", seconds(histogram.max())},
          {"unserved", trial.unserved}};
}

Json trial_json(const TrialResult& trial) {
  const bench::Scenario& scenario = trial.scenario;
  Json json{
      {"server", bench::name(scenario.server)},
      {"backlog", scenario.backlog == bench::kUnlimitedBacklog ? Json(nullptr) : Json(scenario.backlog)},
      {"backlog_in_force", trial.backlog_in_force},
      {"clients", scenario.clients},
      {"seed", scenario.seed},
      {"void", trial.is_void()},
      {"problems", trial.problems},
      {"private_network", trial.is_private_network}};
  if (!trial.complete) return json;
  json.update(
      Json{{"balanced", trial.books.balance()},
           {"fates", fates_json(trial.fates)},
           {"lost_first_syn", trial.lost_first_syn},
           {"first_byte_s", latency_json(trial)},
           {"connections_per_second", trial.connections_per_second},
           {"deepest_queue", trial.deepest_queue},
           {"longest_queue_wait_s", seconds(trial.longest_wait)},
           {"accepted", trial.accepted},
           {"listen_overflows", trial.counters.listen_overflows},
           {"listen_drops", trial.counters.listen_drops},
           {"listener_drops", trial.listener_drops},
           {"first_stall_drops", trial.first_stall_drops},
           {"softnet_drops", trial.counters.softnet_drops},
           {"syn_cookies_sent", trial.counters.syn_cookies_sent},
           {"syn_retransmits", trial.books.syn_retransmits},
           {"synack_retransmits", trial.books.synack_retransmits},
           {"in_syn_sent", trial.books.in_syn_sent},
           {"residual", trial.books.residual()},
           {"generator",
            {{"lateness_p99_s", seconds(trial.lateness_p99)}, {"launch_span_s", seconds(trial.launch_span)}}},
           {"server_cpu_s", seconds(trial.server_cpu)},
           {"swarm_cpu_s", seconds(trial.swarm_cpu)}});
  return json;
}

Json machine_json() {
  utsname name{};
  ::uname(&name);
  return {{"kernel", fmt::format("{} {}", name.sysname, name.release)},
          {"architecture", name.machine},
          {"processors", std::thread::hardware_concurrency()},
          {"somaxconn", system_backlog_max()}};
}

Json run_json(const char* schema, const ExperimentCommand& command, const std::vector<TrialResult>& trials,
              bool interrupted) {
  const bench::Scenario& load = command.load;
  Json json{{"schema", schema},
            {"command", command.command_line},
            {"seed", command.seed},
            {"interrupted", interrupted}};
  json["machine"] = machine_json();
  json["load"] = {{"clients", load.clients},
                  {"arrival", bench::name(load.arrival)},
                  {"rate", load.arrival == bench::Arrival::kBurst ? Json(nullptr) : Json(load.rate)},
                  {"threads", load.threads},
                  {"stall_s", seconds(load.stall)},
                  {"stall_every_s", seconds(load.stall_every)},
                  {"patience_s", seconds(load.patience)}};
  json["repeat"] = command.repeat;
  json["trials"] = Json::array();
  for (const TrialResult& trial : trials) json["trials"].push_back(trial_json(trial));
  return json;
}

/// An argument need not be UTF-8; what is not, is replaced.
std::string print(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + '\n';
}

std::string last_words(const std::string& path) {
  return fmt::format("cannot write {}: {}", path, std::system_category().message(errno));
}

bool write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = ::write(fd, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    text.remove_prefix(static_cast<std::size_t>(count));
  }
  return true;
}

bool is_regular_or_new(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) != 0 || S_ISREG(status.st_mode);
}

/// Where a symbolic link leads.
std::string target_of(const std::string& path) {
  std::error_code error;
  const std::filesystem::path target = std::filesystem::weakly_canonical(path, error);
  return error ? path : target.string();
}

std::string part_of(const std::string& path) { return target_of(path) + ".part"; }

}  // namespace

std::string tune_json(const ExperimentCommand& command, const std::vector<TrialResult>& trials,
                      const bench::Advice& advice, bool interrupted) {
  Json json = run_json("anteroom.tune/1", command, trials, interrupted);
  json["recommended"] = advice.found() ? Json(advice.recommended) : Json(nullptr);
  json["advice"] = {
      {"confirmed", advice.confirmed},
      {"deepest_queue", advice.deepest_queue},
      {"lossless_trials", advice.lossless_trials},
      {"headroom", advice.found() ? Json(advice.headroom()) : Json(nullptr)},
      {"predicted_depth", advice.predicted_depth ? Json(*advice.predicted_depth) : Json(nullptr)},
      {"rate", advice.rate},
      {"longest_queue_wait_s", seconds(advice.longest_wait)},
      {"valid_trials", advice.valid_trials},
      {"void_trials", advice.void_trials}};
  return print(json);
}

std::string compare_json(const ExperimentCommand& command, const std::vector<TrialResult>& trials,
                         bool interrupted) {
  return print(run_json("anteroom.compare/1", command, trials, interrupted));
}

std::string output_problem(const std::string& path) {
  if (path == "-") return {};
  struct stat status {};
  const std::string asked = is_regular_or_new(path) ? part_of(path) : path;
  const bool exists = ::stat(asked.c_str(), &status) == 0;
  const Fd file(::open(asked.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666));
  if (!file) return last_words(path);
  if (!exists) ::unlink(asked.c_str());
  return {};
}

std::string write_output(const std::string& path, const std::string& text) {
  if (path == "-") return write_all(STDOUT_FILENO, text) ? "" : last_words("the standard output");
  const bool replace = is_regular_or_new(path);  // else it is a pipe or a device: written to as it is
  const std::string written = replace ? part_of(path) : path;
  Fd file(::open(written.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (!file || !write_all(file.get(), text)) {
    std::string why = last_words(path);
    if (file && replace) ::unlink(written.c_str());
    return why;
  }
  if (!replace || std::rename(written.c_str(), target_of(path).c_str()) == 0) return {};
  return last_words(path) + "; it is in " + written;
}

}  // namespace anteroom::tool
