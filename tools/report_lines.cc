#include "report_lines.h"

#include <anteroom/listen_queue.h>
#include <fmt/format.h>
#include <sys/utsname.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <thread>

#include "json.h"
#include "table.h"

namespace anteroom::tool {
namespace {

using bench::Arrival;
using bench::Scenario;
using bench::TrialResult;

std::string load_in_words(const Scenario& load) {
  const std::string clients = with_commas(static_cast<std::uint64_t>(load.clients));
  std::string text;
  if (load.arrival == Arrival::kBurst) {
    text = fmt::format("{} clients call all at once", clients);
  } else {
    text = fmt::format("{} clients call, {} a second{}", clients,
                       with_commas(static_cast<std::uint64_t>(load.rate)),
                       load.arrival == Arrival::kPoisson ? " at random (Poisson)" : " evenly");
  }
  if (load.stall > load.stall.zero()) {
    text += fmt::format(", while the server accepts nobody for {}", bench::print_duration(load.stall));
    text += load.stall_every > load.stall.zero()
                ? fmt::format(" every {}", bench::print_duration(load.stall_every))
                : " once";
  }
  return text;
}

}  // namespace

std::string runs(int count) { return fmt::format("{} run{}", count, count == 1 ? "" : "s"); }

void print_heading(std::string_view verb, const ExperimentCommand& command) {
  utsname name{};
  ::uname(&name);
  fmt::print("anteroom {}: {}; all wait until {} after the last call\n", verb, load_in_words(command.load),
             bench::print_duration(command.load.patience));
  fmt::print("{} {}, {} processors, somaxconn {}, {} of each, interleaved, seed {}\n\n", name.sysname,
             name.release, std::thread::hardware_concurrency(), system_backlog_max(), runs(command.repeat),
             command.seed);
  std::fflush(stdout);
}

void print_void_trials(const std::vector<TrialResult>& trials) {
  for (const TrialResult& trial : trials) {
    for (const std::string& problem : trial.problems) {
      fmt::print("void: {}, backlog {}: {}\n", bench::name(trial.scenario.server),
                 print_backlog(trial.scenario.backlog), problem);
    }
  }
  const auto shared =
      std::ranges::find_if(trials, [](const TrialResult& t) { return t.complete && !t.is_private_network; });
  if (shared == trials.end()) return;
  fmt::print(
      "note: no private network was to be had ({}), so this ran on the machine's own loopback: other traffic "
      "shares its counters "
      "and ports, and somaxconn clips the backlog\n",
      shared->why_not_private);
}

std::string write_json(const ExperimentCommand& command, const std::string& json) {
  return command.json ? write_output(*command.json, json) : std::string();
}

ExitStatus exit_status(const std::string& output_problem, const std::vector<TrialResult>& trials,
                       bool interrupted, bool is_trusted) {
  const bool said_all = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  if (!output_problem.empty() || !said_all) {
    fmt::print(stderr, "anteroom: {}\n",
               output_problem.empty() ? "cannot write to the standard output" : output_problem);
    return kCouldNotRun;
  }
  if (interrupted) return kInterrupted;
  if (!trials.empty() && std::ranges::none_of(trials, &TrialResult::complete)) {
    fmt::print(stderr, "anteroom: no trial could be run: {}\n", trials.front().problems.front());
    return kCouldNotRun;
  }
  return is_trusted ? kDone : kNotToBeTrusted;
}

}  // namespace anteroom::tool
