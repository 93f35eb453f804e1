#include "swarm_run.h"

#include <anteroom/bench/processes.h>
#include <anteroom/bench/socket_diag.h>
#include <anteroom/bench/target.h>
#include <anteroom/bench/trial.h>
#include <fmt/format.h>
#include <standard_streams.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <string_view>
#include <thread>
#include <utility>

#include "curve.h"
#include "json.h"
#include "probe.h"
#include "progress.h"
#include "report_lines.h"
#include "table.h"
#include "verb.h"

namespace anteroom::tool {
namespace {

using bench::Fate;
using bench::ListeningSocket;
using bench::Loop;
using bench::Target;
using bench::TrialResult;
using Clock = std::chrono::steady_clock;

constexpr int kWidestLine = 100;

/// Each fate in the words of who looks for the reason.
constexpr std::array<std::pair<Fate, std::string_view>, 13> kMeanings{{
    {Fate::kServedAtOnce, "served at once"},
    {Fate::kServedAfterRetransmit,
     "served late: a SYN was lost, as a full queue throws it away, and came again"},
    {Fate::kAnsweredOtherwise, "answered otherwise: something else than expected, or not all of it"},
    {Fate::kDeadline, "still waited to be served at the end"},
    {Fate::kGhostHalfOpen, "ghosts: connected as far as they know, but the server threw away their last ACK"},
    {Fate::kGhostUnknown, "ghosts: connected as far as they know, of whom the server knows nothing"},
    {Fate::kRefused, "refused: nobody listened any more"},
    {Fate::kResetBeforeAccept, "reset before they were accepted"},
    {Fate::kResetAfterAccept, "closed or reset by the server without a word"},
    {Fate::kTimedOut, "given up by the kernel"},
    {Fate::kNoLocalPort, "without a free local port: the generator's own limit"},
    {Fate::kNoDescriptor, "without a descriptor or memory: the generator's own limit"},
    {Fate::kNotStarted, "never called: their time had not come"},
}};

// ---- The server's side ----

/// Of those on its port, the ones that take who calls `address`: as the kernel chooses, first those of that
/// very address, then 0.0.0.0 or [::], then for IPv4 [::] that is not for IPv6 alone (compute_score in
/// net/ipv4/inet_hashtables.c).
std::vector<ListeningSocket> listeners_for(const Endpoint& address) {
  std::vector<ListeningSocket> all;
  const std::uint16_t port = address.port();
  bench::SocketDiag().listeners(all, std::span(&port, 1));
  const bool is_v4 = address.family() == AF_INET;
  const auto rank = [&](const ListeningSocket& listener) {
    if (bench::unmapped(listener.address) == address) return 0;
    if (listener.address == Endpoint(is_v4 ? "0.0.0.0" : "::", port)) return 1;
    return is_v4 && !listener.is_v6_only && listener.address == Endpoint("::", port) ? 2 : 3;
  };
  int best = 3;
  for (const ListeningSocket& listener : all) best = std::min(best, rank(listener));
  std::erase_if(all, [&](const ListeningSocket& listener) { return best == 3 || rank(listener) != best; });
  return all;
}

/// Where somebody answers, and what a first connection showed of it.
struct Answered {
  Endpoint address;
  Probe probe;
};

/// What can be seen of the server, if it is on this machine and in this network: of the listener at which a
/// connection arrived, which need not be the one on that address.
Target look_at(const Answered& answered, RunningCommand& running) {
  const Endpoint& address = answered.address;
  Target target{.address = address, .dialogue = running.dialogue};
  running.address = address.to_string();
  running.port = address.port();
  if (!redirection_of(answered.probe, address).empty())
    running.redirected_to = answered.probe.arrival->to_string();
  if (!address.is_loopback() || !answered.probe.arrival || !counters_problem().empty()) return target;
  target.local_port = answered.probe.arrival->port();
  const bench::SocketHolders holders = bench::find_socket_holders();
  std::set<pid_t> pids;
  for (const ListeningSocket& listener : listeners_for(*answered.probe.arrival)) {
    target.listeners.push_back(listener.cookie);
    if (target.listeners.size() == 1) running.backlog = static_cast<int>(listener.limit);
    const auto found = holders.by_inode.find(listener.inode);
    if (found == holders.by_inode.end()) continue;
    for (const bench::SocketHolder& holder : found->second) pids.insert(holder.pid);
  }
  target.processes.assign(pids.begin(), pids.end());
  running.rooms = static_cast<int>(target.listeners.size());
  if (!pids.empty()) {
    running.pid = *pids.begin();
    running.name = bench::process_name(*running.pid);
  }
  return target;
}

/// The first address on which somebody answers; nothing if it was interrupted. Throws UsageError, which is
/// about the last one.
std::optional<Answered> find_address(const SwarmCommand& command, const std::atomic<bool>& interrupted) {
  std::string problem;
  for (const Endpoint& address : command.addresses) {
    const auto patience = command.run.load.patience;
    Probe seen = probe(address, command.dialogue, patience, std::nullopt, &interrupted);
    if (seen.was_interrupted) return std::nullopt;
    problem = problem_of(seen, address, command.dialogue, patience);
    if (problem.empty()) return Answered{.address = address, .probe = std::move(seen)};
    if (seen.was_open) break;  // somebody listens, and it is he who is wrong
  }
  throw UsageError(problem);
}

/// Some servers only take who calls from 127.0.0.1 itself.
bool has_one_source(const Target& target, std::chrono::nanoseconds patience,
                    const std::atomic<bool>& interrupted) {
  if (target.address.family() != AF_INET || !target.address.is_loopback()) return false;
  return !probe(target.address, target.dialogue, patience, Endpoint("127.0.1.1", 0), &interrupted).is_served;
}

// ---- Words ----

std::string load_of(const bench::Scenario& load) {
  if (load.loop == Loop::kOpen)
    return fmt::format("{}; all wait until {} after the last call", load_in_words(load),
                       bench::print_duration(load.patience));
  return fmt::format("{} clients call, each again when it was served, for {}",
                     with_commas(static_cast<std::uint64_t>(load.flows)), bench::print_duration(load.length));
}

std::string server_of(const RunningCommand& running) {
  std::string text = running.address;
  if (!running.redirected_to.empty())
    text += fmt::format(", which a packet filter redirects to {}", running.redirected_to);
  if (running.pid) text += fmt::format(" ({}, pid {})", running.name, *running.pid);
  if (running.rooms == 0) return text;
  text += fmt::format(", backlog {}", with_commas(static_cast<std::uint64_t>(running.backlog)));
  if (running.rooms > 1) text += fmt::format(" at each of {} listeners", running.rooms);
  return text;
}

void print_swarm_heading(const ExperimentCommand& command, std::size_t columns) {
  utsname name{};
  ::uname(&name);
  const RunningCommand& running = *command.running;
  fmt::print("{}", wrapped(fmt::format("anteroom swarm on {}: {}; each {}", server_of(running),
                                       load_of(command.load), dialogue_in_words(running.dialogue)),
                           columns));
  fmt::print("{} {}, {} processors, seed {}\n\n", name.sysname, name.release,
             std::thread::hardware_concurrency(), command.seed);
  refuse_unwritten_output();
}

/// As the document has them: of a closed loop the percentiles of the served alone.
bench::Latencies shown(bench::Latencies latencies, bool is_closed) {
  if (is_closed) latencies.forget_unfinished();
  return latencies;
}

/// "p50 61 us  p90 140 us  ..."; what is only known to be larger has a ">". `nobody` says of whom there is
/// none, if there is none.
std::string percentiles(const bench::Latencies& latencies, std::string_view nobody,
                        const Terminal& terminal) {
  if (latencies.count() == 0) return fmt::format("not known: {}", nobody);
  std::string text;
  const auto add = [&](std::string_view name, bench::Latencies::Duration value, bool is_bound) {
    text += fmt::format("{}{} {}{}", text.empty() ? "" : "   ", name, is_bound ? "> " : "",
                        short_duration(value, terminal));
  };
  for (const auto& [name, share] :
       {std::pair("p50", 0.5), std::pair("p90", 0.9), std::pair("p99", 0.99), std::pair("p99.9", 0.999)})
    add(name, latencies.percentile(share), latencies.is_lower_bound(share));
  add("max", latencies.max(), latencies.is_lower_bound(1));
  return text;
}

void print_fate(const TrialResult& trial, std::uint32_t count, std::string_view meaning) {
  if (count == 0) return;
  fmt::print("  {:>9}  {:>7}  {}\n", with_commas(count),
             share(static_cast<double>(count) / std::max(trial.clients, 1U)), meaning);
}

/// At the end of their patience, which is one fate: but a server may have let them in, or not.
void print_who_still_waited(const TrialResult& trial) {
  const std::uint32_t all = trial.fates[Fate::kDeadline];
  const std::uint32_t outside =
      std::min(all, static_cast<std::uint32_t>(std::max<std::int64_t>(trial.entries.in_syn_sent, 0)));
  print_fate(trial, all - outside, "connected, and not answered by the end of their patience");
  print_fate(trial, outside, "not even connected by the end of their patience: their SYNs found no place");
}

void print_fates(const TrialResult& trial) {
  for (const auto& [fate, meaning] : kMeanings) {
    const std::uint32_t count = trial.fates[fate];
    if (count == 0) continue;
    if (fate == Fate::kDeadline) {
      print_who_still_waited(trial);
      continue;
    }
    print_fate(trial, count, meaning);
    if (fate != Fate::kServedAfterRetransmit) continue;
    for (std::size_t i = 0; i < trial.served_after.size(); ++i) {
      if (trial.served_after[i] > 0)
        fmt::print("  {:>9}           of them after {} that {} sent again\n",
                   with_commas(trial.served_after[i]), i == 0 ? "one SYN" : fmt::format("{} SYNs", i + 1),
                   i == 0 ? "was" : "were");
    }
  }
}

void print_door(const TrialResult& trial, const RunningCommand& running) {
  if (running.rooms == 0) {
    fmt::print("  queue       not seen from here\n");
    return;
  }
  fmt::print("  queue       at most {} deep in samples of 1 ms, where {} fit; {} packets thrown away at it\n",
             with_commas(trial.deepest_queue), with_commas(trial.backlog_in_force + std::uint64_t{1}),
             with_commas(trial.door_drops()));
}

void print_generator(const TrialResult& trial, std::chrono::nanoseconds took, const Terminal& terminal) {
  const double busy = static_cast<double>(trial.swarm_cpu.count()) / static_cast<double>(took.count());
  std::string text = fmt::format("{:.0f} % of one processor", busy * 100);
  if (trial.scenario.loop == Loop::kOpen)
    text += fmt::format(", calls late by p50 {}, p99 {}",
                        short_duration(trial.lateness.percentile(0.5), terminal),
                        short_duration(trial.lateness.percentile(0.99), terminal));
  fmt::print("  generator   {}\n", text);
  if (trial.server_cpu.count() == 0) return;
  const std::optional<double> cpu_s = trial.server_cpu_per_connection_s();
  const std::string each =
      cpu_s ? short_duration(std::chrono::nanoseconds(static_cast<std::int64_t>(*cpu_s * 1e9)), terminal) +
                  " a served connection"
            : "and no connection was served";
  fmt::print("  server      {:.0f} % of one processor, {}\n",
             100.0 * static_cast<double>(trial.server_cpu.count()) / static_cast<double>(took.count()), each);
}

/// Why nobody should build on what follows, before it is read; the notes tell all.
void print_doubts(const TrialResult& trial, std::size_t columns) {
  if (trial.is_void()) fmt::print("{}\n", wrapped("not to be trusted: " + trial.problems.front(), columns));
}

void print_result(const Run& run, const Terminal& terminal, std::size_t columns) {
  const TrialResult& trial = run.trials.front();
  const bool is_closed = trial.scenario.loop == Loop::kClosed;
  print_doubts(trial, columns);
  print_fates(trial);
  const std::string rate = whole(trial.connections_per_second);
  fmt::print("\n  conn/s      {}\n",
             trial.is_void() ? rate + " served, not to be trusted" : terminal.bold(rate) + " served");
  fmt::print("  connect     {}\n",
             percentiles(shown(trial.connect, is_closed), "nobody was connected", terminal));
  const bool is_any = run.command.running->dialogue.takes_any_answer();
  fmt::print("  {:<11} {}\n", is_any ? "first byte" : "answer",
             percentiles(shown(trial.first_byte, is_closed), "nobody was served", terminal));
  print_door(trial, *run.command.running);
  print_generator(trial, run.took, terminal);
  if (is_closed)
    fmt::print(
        "\n  a closed loop hears only of whom the server has served: who waits for a lost SYN gives no "
        "sample\n");
}

/// One line for a script's log.
void print_quietly(const TrialResult& trial) {
  const bench::Latencies latencies = shown(trial.first_byte, trial.scenario.loop == Loop::kClosed);
  const std::string p99 = latencies.count() == 0 ? "not known"
                                                 : (latencies.is_lower_bound(0.99) ? "> " : "") +
                                                       short_duration(latencies.percentile(0.99), {});
  fmt::print("{}{} of {} served, {} a second, p99 {}\n", trial.is_void() ? "not to be trusted: " : "",
             trial.fates.served(), trial.clients, whole(trial.connections_per_second), p99);
}

// ---- The run ----

/// "2.1 s of at most 8 s: 1,050 of 2,500 clients have ended, 498 a second"
class LiveLine {
 public:
  LiveLine(const bench::Scenario& load, bool quiet) : load_(load), line_(quiet) {}
  void show(std::uint32_t ended) {
    const std::chrono::duration<double> since = Clock::now() - start_;
    const bool is_closed = load_.loop == Loop::kClosed;
    const std::chrono::duration<double> most =
        load_.load_length() + (is_closed ? std::chrono::nanoseconds(0) : load_.patience);
    if (since < std::chrono::seconds(1)) rate_ = ended / since.count();
    if (since - looked_ >= std::chrono::seconds(1)) {
      rate_ = (ended - ended_) / (since - looked_).count();
      looked_ = since;
      ended_ = ended;
    }
    const std::string of = is_closed ? "" : " of " + with_commas(static_cast<std::uint64_t>(load_.clients));
    line_.show(fmt::format("{:.1f} s of at most {:.1f} s: {}{} clients have ended, {} a second",
                           since.count(), most.count(), with_commas(ended), of, whole(rate_)));
  }

 private:
  const bench::Scenario& load_;
  ProgressLine line_;
  Clock::time_point start_ = Clock::now();
  std::chrono::duration<double> looked_{0};
  std::uint32_t ended_ = 0;
  double rate_ = 0;
};

/// What a packet filter made of the clients, if it shows. Not each of them need have fared as the first one:
/// if fewer connections came about at all listeners of this machine together than were served, others served
/// them, and what is known of the listener here is not of them.
void note_redirection(const Answered& answered, Run& run, RunningCommand& running) {
  if (!running.redirected_to.empty())
    run.remarks.push_back(
        fmt::format("a packet filter (iptables, nftables) redirects {} to {}: the queue shown is that of the "
                    "listener there",
                    running.address, running.redirected_to));
  if (answered.address.is_loopback() && !answered.probe.arrival)
    run.remarks.push_back(fmt::format(
        "no socket of this network namespace took a connection to {}, so its server is not seen from here: a "
        "packet filter may send it to another namespace, as that of a container",
        running.address));
  if (const std::string problem = counters_problem(); answered.address.is_loopback() && !problem.empty())
    run.remarks.push_back("nothing is known of the server's side: " + problem);
  TrialResult& trial = run.trials.front();
  if (running.rooms == 0 || !trial.complete || trial.entries.passive_opens >= trial.fates.served()) return;
  run.remarks.push_back(fmt::format(
      "{} clients were served, and the listeners of this machine got {} connections: a packet filter "
      "(iptables, nftables) sends the others to a server that is not seen from here",
      with_commas(trial.fates.served()),
      with_commas(static_cast<std::uint64_t>(trial.entries.passive_opens))));
  running.rooms = 0;
  running.backlog = 0;
  trial.backlog_in_force = 0;
  trial.scenario.backlog = bench::kUnlimitedBacklog;  // as long as it is not known
}

/// What was measured until somebody had enough counts, as what it is.
void take_as_it_is(Run& run) {
  std::erase(run.trials.front().problems, "interrupted");
  run.remarks.push_back(fmt::format(
      "interrupted after {}: of those who had called by then, and who still waited counts as unserved",
      short_duration(run.took, {})));
}

}  // namespace

int swarm(const SwarmCommand& typed, const std::atomic<bool>& interrupted) {
  ExperimentCommand command = typed.run;
  command.running.emplace().dialogue = typed.dialogue;
  const Terminal terminal = Terminal::of(STDOUT_FILENO);
  const auto columns = static_cast<std::size_t>(std::min(terminal.columns, kWidestLine));
  const std::optional<Answered> answered = find_address(typed, interrupted);
  if (!answered) return kInterrupted;
  Target target = look_at(*answered, *command.running);
  target.has_one_source = has_one_source(target, command.load.patience, interrupted);
  if (interrupted.load()) return kInterrupted;
  if (!target.listeners.empty()) command.load.backlog = command.running->backlog;

  const bool prints = !command.quiet && !command.writes_to_stdout();
  if (prints) print_swarm_heading(command, columns);
  Run run{.command = command, .started = std::chrono::system_clock::now()};
  const auto began = Clock::now();
  {
    LiveLine live(command.load, command.quiet);
    const auto show = [&](std::uint32_t ended, std::uint32_t) { live.show(ended); };
    run.trials.push_back(bench::run_trial(command.load, interrupted, show, &target));
  }
  run.took = Clock::now() - began;
  TrialResult& trial = run.trials.front();
  note_redirection(*answered, run, *command.running);
  if (trial.complete) {
    if (interrupted.load()) take_as_it_is(run);
    print_output([&] {
      if (prints) print_result(run, terminal, columns);
      if (command.quiet && !command.writes_to_stdout()) print_quietly(trial);
    });
  }
  if (trial.server_died)
    run.why_ended =
        fmt::format("the server on {} ended, or closed its listener, in the middle: its log may say why",
                    answered->address.to_string());
  const std::vector<std::string> told = notes(run);
  Json document = swarm_document(run);
  document["interrupted"] = run.interrupted = interrupted.load();
  if (prints) {
    print_output([&] {
      for (const std::string& note : told) fmt::print("{}", wrapped("note: " + note, columns));
      fmt::print("{}", wrapped("  again: " + command.command_line, columns));
    });
  } else if (trial.complete && trial.is_void()) {
    print_error("anteroom: not to be trusted: {}\n", trial.problems.front());
  }
  return finish(run, document, !trial.is_void());
}

}  // namespace anteroom::tool
