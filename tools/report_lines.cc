#include "report_lines.h"

#include <anteroom/bench/summary.h>
#include <anteroom/listen_queue.h>
#include <fmt/format.h>
#include <standard_streams.h>
#include <sys/resource.h>
#include <sys/utsname.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <thread>

#include "csv.h"
#include "output.h"
#include "report.h"
#include "table.h"

namespace anteroom::tool {
namespace {

using bench::Advice;
using bench::Arrival;
using bench::RoadKind;
using bench::Scenario;
using bench::Summary;
using bench::TrialResult;

// net.core.netdev_max_backlog of a fresh kernel, a processor: more SYNs in one tick than that are lost
// unseen.
constexpr std::uint32_t kClumpMax = 1000;
constexpr std::chrono::milliseconds kLateMin{10};  // which changes a burst
constexpr int kSchedulesMin = 3;                   // of which a deviation means something

std::string arrival_in_words(const Scenario& load) {
  switch (load.arrival) {
    case Arrival::kPoisson:
      return load.dispersion > 1 ? fmt::format(" at random in clumps (dispersion {:g})", load.dispersion)
                                 : " at random (Poisson)";
    case Arrival::kOnOff:
      return fmt::format(" on average, at random for {} and then nobody for {}",
                         bench::print_duration(load.on), bench::print_duration(load.off));
    case Arrival::kRamp:
      return " in the end, ever more of them";
    default:
      return " evenly";
  }
}

/// Each thing that was wrong with a trial, and of how many.
void note_void_trials(const std::vector<TrialResult>& trials, std::vector<std::string>& notes) {
  std::map<std::string, std::pair<int, std::string>> problems;
  int count = 0;
  for (const TrialResult& trial : trials) {
    if (!trial.is_void()) continue;
    ++count;
    for (const std::string& problem : trial.problems) {
      // What is in brackets is of this trial alone.
      auto& [times, example] = problems[problem.substr(0, problem.find(" ("))];
      if (++times > 1) continue;
      example = fmt::format("{}, backlog {}: {}", bench::name(trial.scenario.server),
                            print_backlog(trial.scenario.backlog), problem);
    }
  }
  if (count == 0) return;
  notes.push_back(fmt::format("{} of {} trials {} void, and what {} showed does not count", count,
                              trials.size(), count == 1 ? "was" : "were", count == 1 ? "it" : "they"));
  for (const auto& [problem, seen] : problems) {
    const auto& [times, example] = seen;
    notes.push_back(times == 1 ? "void: " + example
                               : fmt::format("void, {} times like this: {}", times, example));
  }
}

void note_network(const std::vector<TrialResult>& trials, std::vector<std::string>& notes) {
  const auto trial = std::ranges::find_if(
      trials, [](const TrialResult& t) { return t.complete && t.road != RoadKind::kPair; });
  if (trial == trials.end()) return;
  if (!trial->entries.has_server) {
    notes.emplace_back(
        "of the server's side nothing was seen: neither how deep its queue was nor what it threw away, and a "
        "ghost looks like any client that waits");
    return;
  }
  if (trial->scenario.server == bench::ServerKind::kRunning) {
    notes.emplace_back(
        "the server was called where it runs, by clients on this machine, which take processor time from it; "
        "the "
        "depth of its queue is that of samples, one a millisecond, but none that is thrown away escapes the "
        "kernel's "
        "count");
    return;
  }
  if (trial->road == RoadKind::kLoopback) {
    notes.push_back(
        fmt::format("client and server shared one private network ({}): their counters are not told apart",
                    trial->why_not_better));
  } else {
    notes.push_back(
        fmt::format("no private network was to be had ({}), so this ran on the machine's own loopback: other "
                    "traffic shares "
                    "its counters and ports, and somaxconn clips the backlog",
                    trial->why_not_better));
  }
}

void note_clumps(const std::vector<TrialResult>& trials, std::vector<std::string>& notes) {
  std::uint32_t largest = 0;
  std::uint64_t softnet = 0;
  for (const TrialResult& trial : trials) {
    if (trial.is_void()) continue;
    largest = std::max(largest, trial.largest_clump);
    softnet = std::max(softnet, trial.softnet_drops);
  }
  if (largest > kClumpMax) {
    notes.push_back(fmt::format(
        "up to {} clients lost a SYN within 32 ms and called again in the same tick: more than {} of them "
        "may "
        "be lost unseen in a processor's input queue ({} packets were), and those rows are worse than the "
        "backlog alone makes them",
        with_commas(largest), with_commas(kClumpMax), with_commas(softnet)));
  }
}

/// Clients beside their server have to share the processors with it.
void note_lateness(const std::vector<TrialResult>& trials, std::vector<std::string>& notes) {
  bench::Histogram lateness;
  for (const TrialResult& trial : trials) {
    if (!trial.is_void() && trial.scenario.server == bench::ServerKind::kRunning)
      lateness.merge(trial.lateness);
  }
  if (lateness.count() == 0 || lateness.percentile(0.99) < kLateMin) return;
  notes.push_back(
      fmt::format("one client in a hundred called {} or more after it was meant to, as its processor was "
                  "busy: a sharper burst needs more room",
                  short_duration(lateness.percentile(0.99), {})));
}

/// A burst is as sharp as this machine can call.
void note_launch(const std::vector<TrialResult>& trials, std::vector<std::string>& notes) {
  std::chrono::nanoseconds longest{0};
  int clients = 0;
  for (const TrialResult& trial : trials) {
    const Scenario& load = trial.scenario;
    if (trial.is_void() || load.arrival != Arrival::kBurst || load.loop != bench::Loop::kOpen) continue;
    longest = std::max(longest, trial.launch_span);
    clients = load.clients;
  }
  if (longest <= longest.zero()) return;
  notes.push_back(
      fmt::format("it took up to {} until the last of the {} had called, and that is in their latency: a "
                  "sharper burst needs "
                  "more room",
                  short_duration(longest, {}), with_commas(static_cast<std::uint64_t>(clients))));
}

void note_little(const std::vector<TrialResult>& trials, std::vector<std::string>& notes) {
  const auto off = std::ranges::count_if(trials, [](const TrialResult& trial) {
    return !trial.is_void() && trial.scenario.loop == bench::Loop::kOpen && !trial.little_holds();
  });
  if (off == 0) return;
  notes.push_back(
      fmt::format("in {} of {} trials the clients counted each millisecond are not their rate x their time "
                  "(Little's law, to "
                  "within a tenth): this machine was too busy to sample well",
                  off, trials.size()));
}

/// Which the server may have; 0 if that is not known.
std::uint64_t descriptors_of(const ExperimentCommand& command) {
  if (command.running) return command.running->descriptors;
  rlimit descriptors{};
  return ::getrlimit(RLIMIT_NOFILE, &descriptors) == 0 ? descriptors.rlim_max : 0;
}

/// " /health" of "GET /health HTTP/1.1".
std::string path_in(const std::string& request) {
  const std::size_t begin = request.find(' ');
  return request.substr(begin, request.find(" HTTP/") - begin);
}

bool write(const std::optional<std::string>& path, const std::string& text) {
  const std::string problem = path ? write_output(*path, text) : std::string();
  if (!problem.empty()) print_error("anteroom: {}\n", problem);
  return problem.empty();
}

}  // namespace

std::string runs(int count) { return fmt::format("{} run{}", count, count == 1 ? "" : "s"); }

std::string load_in_words(const Scenario& load) {
  const std::string clients = with_commas(static_cast<std::uint64_t>(load.clients));
  std::string text;
  if (load.arrival == Arrival::kBurst) {
    text = load.burst_within > load.burst_within.zero()
               ? fmt::format("{} clients call within {}", clients, bench::print_duration(load.burst_within))
               : fmt::format("{} clients call all at once", clients);
  } else {
    text = fmt::format("{} clients call, {} a second{}", clients, whole(load.rate), arrival_in_words(load));
  }
  if (load.burst > 0) {
    text += fmt::format(", and about every {} {} at once", bench::print_duration(load.burst_every),
                        with_commas(static_cast<std::uint64_t>(load.burst)));
    if (load.burst_within > load.burst_within.zero())
      text += fmt::format(" (within {})", bench::print_duration(load.burst_within));
  }
  if (load.stall > load.stall.zero()) {
    text += fmt::format(", while the server accepts nobody for {}", bench::print_duration(load.stall));
    text += load.stall_every > load.stall.zero()
                ? fmt::format(" {}every {}", load.stall_jitter > 0 ? "about " : "",
                              bench::print_duration(load.stall_every))
                : " once";
  }
  if (load.handler.kind != bench::Handling::kNone)
    text += fmt::format("; each guest costs {}", load.handler.to_string());
  if (load.rtt > load.rtt.zero()) text += fmt::format("; round trip {}", bench::print_duration(load.rtt));
  if (load.loss > 0) text += fmt::format("; {} of the packets lost each way", share(load.loss));
  return text;
}

std::string dialogue_in_words(const bench::Dialogue& dialogue) {
  std::string words = dialogue.request.empty() ? "waits to be greeted"
                      : dialogue.is_http       ? "asks for" + path_in(dialogue.request) + " over HTTP"
                                               : "says " + bench::escape(dialogue.request);
  if (!dialogue.expect.empty()) words += " and expects " + bench::escape(dialogue.expect);
  return words;
}

void refuse_unwritten_output() {
  if (!output_is_written()) throw std::runtime_error(std::string(kOutputNotWritten));
}

void print_heading(std::string_view verb, const ExperimentCommand& command) {
  utsname name{};
  ::uname(&name);
  std::string server;
  if (command.running) {
    const RunningCommand& running = *command.running;
    server = fmt::format("{} (pid {}) on {}, which has {}: ", running.name, *running.pid, running.address,
                         running.backlog);
  }
  fmt::print("anteroom {}: {}{}; all wait until {} after the last call\n", verb, server,
             load_in_words(command.load), bench::print_duration(command.load.patience));
  fmt::print("{} {}, {} processors, somaxconn {}, {} of each, interleaved, seed {}\n\n", name.sysname,
             name.release, std::thread::hardware_concurrency(), system_backlog_max(), runs(command.repeat),
             command.seed);
  refuse_unwritten_output();
}

std::vector<std::string> notes(const Run& run) {
  std::vector<std::string> notes;
  if (!run.why_ended.empty())
    notes.push_back(
        fmt::format("ended after {}: {}", runs(static_cast<int>(run.trials.size())), run.why_ended));
  if (run.interrupted)
    notes.push_back(
        fmt::format("interrupted after {}: not to be trusted", runs(static_cast<int>(run.trials.size()))));
  note_void_trials(run.trials, notes);
  note_network(run.trials, notes);
  note_clumps(run.trials, notes);
  note_launch(run.trials, notes);
  note_lateness(run.trials, notes);
  note_little(run.trials, notes);
  notes.insert(notes.end(), run.remarks.begin(), run.remarks.end());
  if (run.until_met && !*run.until_met)
    notes.push_back(fmt::format("the interval did not get as narrow as {}", share(*run.command.until)));
  return notes;
}

std::string why_none(const std::vector<TrialResult>& trials, const Advice& advice) {
  if (trials.empty()) return "no trial has ended";
  if (advice.unlimited_trials > 0 && advice.hopeless_trials == 0)
    return "handshakes were thrown away even with an unlimited backlog, so it is not the accept queue that "
           "is full";
  if (advice.hopeless_trials > 0) {
    return "even with an unlimited backlog some clients were not served in time: the server is too slow for "
           "this load, or its stall too long for the clients' patience (--patience)";
  }
  return "no trial with an unlimited backlog counts";
}

std::string reason(const Advice& advice, const Terminal& terminal) {
  std::string text = fmt::format("where nobody was turned away the queue was at most {} deep, in {}",
                                 whole(advice.deepest_queue.most), runs(advice.lossless_trials));
  if (advice.predicted_depth) {
    text += fmt::format(" (the law says {}: {}/s x {} without an accept)", whole(*advice.predicted_depth),
                        whole(advice.rate), short_duration(advice.longest_wait, terminal));
  }
  const std::string wanted = with_commas(static_cast<std::uint64_t>(advice.recommended));
  text += fmt::format(
      "; {} {} {}more than that", wanted,
      advice.confirmed ? "is the smallest tried that turned away no more than asked for, and holds" : "holds",
      advice.deepest_queue.most > 0 ? fmt::format("{:.0f} % ", advice.headroom() * 100) : "");
  if (!advice.confirmed) {
    text += ", but two trials at it have not confirmed it";
  } else if (advice.schedules < kSchedulesMin) {
    text += fmt::format(", but {} is too little to be sure of: --repeat 3",
                        advice.schedules == 1 ? "one schedule" : "two schedules");
  } else {
    text += fmt::format(
        "; by how the peaks of {} stalls or runs differ, at most {} are turned away (95 % sure, {} asked "
        "for)",
        advice.deepest_queue.n, share(advice.loss_upper), share(advice.target_loss));
  }
  if (advice.model_needs.together > advice.deepest_queue.most) {
    text += fmt::format("; a burst that met a stall would need {} by the model, and finds them",
                        whole(advice.model_needs.together));
  }
  if (advice.is_of_a_running_server) return text;  // whose stalls no model knows
  switch (advice.model_needs.dominant()) {
    case bench::Term::kStall:
      return text + "; it is the stall that needs them";
    case bench::Term::kBurst:
      return text + "; it is the burst that needs them";
    case bench::Term::kService:
      return text + "; it is the service that needs them";
  }
  return text;
}

std::vector<Limit> limits_for(const ExperimentCommand& command, const Advice& advice) {
  std::vector<Limit> limits;
  if (!advice.found()) return limits;
  const auto wanted = static_cast<std::uint64_t>(advice.recommended);
  const auto somaxconn =
      static_cast<std::uint64_t>(command.running ? command.running->backlog_max : system_backlog_max());
  limits.push_back(
      {.name = "net.core.somaxconn",
       .now = somaxconn,
       .needed = wanted,
       .command = somaxconn >= wanted ? "" : fmt::format("sysctl -w net.core.somaxconn={}", wanted)});
  // Who waited is let in all at once when the stall is over; 64 for what a server has open anyway.
  if (const std::uint64_t descriptors = descriptors_of(command)) {
    const auto needed = static_cast<std::uint64_t>(advice.deepest_queue.most) + 64;
    limits.push_back({.name = "the limit of descriptors",
                      .now = descriptors,
                      .needed = needed,
                      .command = descriptors >= needed ? "" : fmt::format("ulimit -n {}", needed)});
  }
  // One machine that calls one address, a proxy for example, has no more ports than this for a minute.
  constexpr std::uint64_t kPorts = 28'232;
  const auto clients = static_cast<std::uint64_t>(command.load.clients);
  if (clients > kPorts) {
    limits.push_back({.name = "ports, if they all come from one address",
                      .now = kPorts,
                      .needed = clients,
                      .command = "sysctl -w net.ipv4.ip_local_port_range='1024 65535'"});
  }
  return limits;
}

ExitStatus finish(const Run& run, const Json& document, bool is_trusted) {
  const ExperimentCommand& command = run.command;
  bool wrote = write(command.json, command.json ? print(document) : std::string());
  wrote &= write(command.csv, command.csv ? csv(document) : std::string());
  wrote &= write(command.report, command.report ? report_html(print(document)) : std::string());
  if (!output_is_written()) {
    print_error("anteroom: {}\n", kOutputNotWritten);
    wrote = false;
  }
  if (!run.not_put_back.empty()) print_error("anteroom: {}\n", run.not_put_back);
  if (!wrote || !run.not_put_back.empty()) return kCouldNotRun;
  if (!run.why_ended.empty()) {
    print_error("anteroom: {}\n", run.why_ended);
    return kCouldNotRun;
  }
  if (run.interrupted) return kInterrupted;
  if (!run.trials.empty() && std::ranges::none_of(run.trials, &TrialResult::complete)) {
    print_error("anteroom: no trial could be run: {}\n", run.trials.front().problems.front());
    return kCouldNotRun;
  }
  if (!is_trusted) return kNotToBeTrusted;
  const std::vector<std::string> broken = broken_rules(document, command.fail_if);
  for (const std::string& sentence : broken) print_error("anteroom: {}\n", sentence);
  return broken.empty() ? kDone : kRuleBroken;
}

}  // namespace anteroom::tool
