// anteroom tune and anteroom compare, as they are typed.
#include <anteroom/bench/trial.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "dialogue_options.h"
#include "load_options.h"
#include "output_options.h"
#include "server_options.h"
#include "tune.h"
#include "verb.h"

namespace anteroom::tool {
namespace {

// Log-spaced around what people guess: textbooks, old kernels, nginx and node, new kernels.
constexpr const char* kTuneBacklogs = "5,64,128,511,1024,4096";
constexpr const char* kCompareBacklogs = "128";
constexpr int kFlows = 500;
constexpr const char* kCompareServers = "reactor,accept-one,reactors,blocking,threads,pool";

/// What was typed, before it is understood.
struct Typed {
  TypedLoad load;
  TypedServer running;
  TypedDialogue dialogue;
  TypedOutput output;
  std::string backlog;
  std::string servers = kCompareServers;
  std::string loops = "open";
  std::string flows;
  std::string target_loss = "0.1%";
  std::string until;
  std::string repeat = "3";
  std::string seed;

  ExperimentCommand command;

  bool is_running() const noexcept { return !running.pid_text.empty() || !running.port_text.empty(); }
};

void add_experiment_options(CLI::App& app, Typed& typed, bool is_tune) {
  add_load_options(app, typed.load);
  const std::string experiment = "The experiment";
  app.add_option("--backlog", typed.backlog,
                 std::string("Which to try: a list such as 64,128,1k, or 1..4096, which doubles") +
                     (is_tune ? "; without it, also what lies between those that decide. An unlimited one is "
                                "tried always"
                              : ""))
      ->default_str(is_tune ? kTuneBacklogs : kCompareBacklogs)
      ->group(experiment);
  app.add_option("--repeat", typed.repeat, "Runs of each")
      ->type_name("INT:INT in [1 - 1000]")
      ->capture_default_str()
      ->group(experiment);
  app.add_option("--until", typed.until,
                 std::string("More runs, 5 at least and 30 at most, until the 95 % interval of ") +
                     (is_tune ? "the deepest queue" : "each server's connections/s") + " is so narrow: 5%")
      ->group(experiment);
  app.add_option("--seed", typed.seed,
                 "Of the order and of the schedules (default: a new one, which is printed)")
      ->group(experiment);
  add_output_options(app, typed.output);
}

/// Before hours of measuring: rules that will be broken whatever comes.
void refuse_rules(const ExperimentCommand& command, bool is_tune, bool backlogs_are_fixed) {
  std::vector<int> backlogs = command.backlogs;
  if (is_tune) backlogs.push_back(bench::kUnlimitedBacklog);
  for (const Rule& rule : command.fail_if) {
    if (!backlogs_are_fixed && rule.backlog) continue;  // it may yet be tried
    const std::string problem = rule_problem(rule, backlogs, is_tune);
    if (!problem.empty()) throw CLI::ValidationError("--fail-if", problem);
  }
}

/// Options of what is not in this experiment.
void refuse_idle_options(const Typed& typed, const ExperimentCommand& command, bool is_tune) {
  if (!typed.flows.empty() && std::ranges::count(command.loops, bench::Loop::kClosed) == 0)
    refuse("--flows", typed.flows, "of use without --loop closed");
  const bool has_threads =
      command.load.server == bench::ServerKind::kPool || command.load.server == bench::ServerKind::kReactors;
  if (is_tune && !typed.load.threads.empty() && !has_threads)
    refuse("--threads", typed.load.threads, "of use but with --server pool or reactors");
}

std::vector<bench::ServerKind> understand_servers(const std::string& text) {
  std::vector<bench::ServerKind> servers;
  for (const std::string& item : split(text)) {
    const auto server = bench::parse_server_kind(item);
    if (!server || *server == bench::ServerKind::kRunning)
      refuse("--servers", item, "one of " + std::string(kCompareServers));
    servers.push_back(*server);
  }
  return servers;
}

std::vector<bench::Loop> understand_loops(const std::string& text) {
  std::vector<bench::Loop> loops;
  for (const std::string& item : split(text)) {
    const auto loop = bench::parse_loop(item);
    if (!loop || std::ranges::count(loops, *loop) > 0) refuse("--loop", text, "open, closed, or open,closed");
    loops.push_back(*loop);
  }
  return loops;
}

/// What a server that runs already brings with it.
void refuse_what_is_the_servers(const TypedLoad& load) {
  const auto none_of = [](const char* option, const std::string& text, bool is_given) {
    if (is_given) refuse(option, text, "of use with --pid or --port: a server that runs has its own");
  };
  none_of("--server", load.server, load.server != "reactor");
  none_of("--handler", load.handler, load.handler != "none");
  for (const auto& [option, text] : {std::pair("--stall", &load.stall),
                                     {"--stall-every", &load.stall_every},
                                     {"--stall-jitter", &load.stall_jitter},
                                     {"--rtt", &load.rtt},
                                     {"--loss", &load.loss},
                                     {"--threads", &load.threads}})
    none_of(option, *text, !text->empty());
  if (!load.sysctls.empty()) none_of("--sysctl", load.sysctls.front(), true);
}

/// A load for a server of which nobody has said what comes: a little of everything, in a second.
TypedLoad some_calls(TypedLoad load) {
  const bool is_named = load.is_burst || !load.rate.empty() || !load.arrival.empty() ||
                        !load.dispersion.empty() || !load.profile.empty() || !load.on.empty() ||
                        !load.off.empty();
  if (is_named) return load;
  load.rate = "1000";
  load.arrival = "poisson";
  load.is_burst = true;
  load.burst = "500@250ms";
  load.within = "20ms";
  if (load.clients.empty()) load.clients = "3000";
  return load;
}

bench::Scenario understand_load_of(const Typed& typed) {
  if (!typed.is_running()) return understand_load(typed.load);
  refuse_what_is_the_servers(typed.load);
  bench::Scenario load = understand_load(some_calls(typed.load));
  load.server = bench::ServerKind::kRunning;
  // A profile tells how its server stalled; this one does that by itself.
  load.stall = load.stall_every = std::chrono::nanoseconds(0);
  load.stall_jitter = 0;
  return load;
}

void understand(Typed& typed, bool is_tune) {
  ExperimentCommand& command = typed.command;
  command.load = understand_load_of(typed);
  command.backlogs = parse_backlogs(!typed.backlog.empty() ? typed.backlog
                                    : is_tune              ? kTuneBacklogs
                                                           : kCompareBacklogs);
  command.refine = typed.backlog.empty();
  command.servers = understand_servers(typed.servers);
  command.loops = understand_loops(typed.loops);
  command.load.flows = typed.flows.empty() ? kFlows : parse_whole("--flows", typed.flows, 1, 100'000);
  refuse_idle_options(typed, command, is_tune);
  if (typed.is_running()) {
    understand_server(typed.running);
    command.running = {.pid = typed.running.pid,
                       .port = typed.running.port,
                       .dialogue = understand_dialogue(typed.dialogue, "localhost")};
  } else if (typed.dialogue.is_given()) {
    throw CLI::ArgumentMismatch(
        "--send, --expect, --greeting and --http say how to talk to a server that runs: "
        "--pid or --port says to which");
  }
  command.target_loss = parse_share("--target-loss", typed.target_loss, 0.5);
  command.repeat = parse_whole("--repeat", typed.repeat, 1, 1000);
  if (!typed.until.empty()) {
    command.until = parse_share("--until", typed.until, 1);
    if (*command.until == 0) refuse("--until", typed.until, "more than nothing");
  }
  command.seed = typed.seed.empty() ? std::random_device{}() : parse_seed(typed.seed);
  command.fail_if = understand_rules(typed.output.fail_if);
  refuse_rules(command, is_tune, !is_tune || !typed.backlog.empty());
  command.quiet = typed.output.quiet;
  if (!typed.output.json.empty()) command.json = typed.output.json;
  if (!typed.output.csv.empty()) command.csv = typed.output.csv;
  if (!typed.output.report.empty()) command.report = typed.output.report;
  understand_outputs(typed.output, {typed.load.profile});
  const std::string problem = bench::clients_limit_problem(command.load.clients);
  if (!problem.empty()) throw UsageError(problem);
}

using RunExperiment = int (*)(const ExperimentCommand& command, const std::atomic<bool>& interrupted);

Verb experiment_verb(CLI::App* app, const std::shared_ptr<Typed>& typed, bool is_tune, RunExperiment run) {
  return {.app = app,
          .understand = [typed, is_tune] { understand(*typed, is_tune); },
          .run =
              [typed, run](const Invocation& invocation) {
                ExperimentCommand& command = typed->command;
                command.command_line = invocation.command_line;
                if (typed->seed.empty()) command.command_line += fmt::format(" --seed {}", command.seed);
                return run(command, invocation.interrupted);
              }};
}

}  // namespace

Verb add_tune(CLI::App& tool) {
  const auto typed = std::make_shared<Typed>();
  CLI::App* const app = tool.add_subcommand("tune", "Find the backlog that a load needs");
  add_experiment_options(*app, *typed, true);
  app->add_option("--server", typed->load.server,
                  "Who serves: reactor, accept-one, reactors, blocking, threads, pool")
      ->capture_default_str()
      ->group(kEmbeddedGroup);
  app->add_option("--target-loss", typed->target_loss, "Share of clients that may be turned away")
      ->capture_default_str()
      ->group("The experiment");
  add_server_options(*app, typed->running);
  add_dialogue_options(*app, typed->dialogue);
  app->footer(
      "With --pid or --port the server is one that runs already, such as nginx or redis: its backlog is "
      "changed for "
      "each\ntrial, and put back at the end, whatever happens in between. It takes root, or the server's own "
      "user; "
      "and its real\nguests feel the small ones.\n\n"
      "Examples:\n"
      "  anteroom tune                                  a stream at random, bursts, and a server that looks "
      "away\n"
      "  anteroom tune --burst 10k                      ten thousand reconnect at the same moment\n"
      "  anteroom tune --rate 5000 --stall 50ms --report report.html\n"
      "  anteroom tune --rate 800 --stall 250ms --arrival poisson --server blocking\n"
      "  listen=$(anteroom tune --quiet)                only the number\n"
      "  sudo anteroom tune --pid $(cat /run/nginx.pid) --port 80 --http / --burst 2000\n"
      "  sudo anteroom tune --port 6379 --send 'PING\\r\\n' --expect +PONG");
  return experiment_verb(app, typed, true, tune);
}

Verb add_compare(CLI::App& tool) {
  const auto typed = std::make_shared<Typed>();
  CLI::App* const app =
      tool.add_subcommand("compare", "The same load on the reactor and on the textbook's servers");
  add_experiment_options(*app, *typed, false);
  const std::string experiment = "The experiment";
  app->add_option("--servers", typed->servers, "Which; the first is what the others are compared with")
      ->capture_default_str()
      ->group(experiment);
  app->add_option("--loop", typed->loops, "open, or open,closed to see what closed-loop tools make of it")
      ->capture_default_str()
      ->group(experiment);
  app->add_option("--flows", typed->flows, "Clients at a time in a closed loop")
      ->default_str(fmt::to_string(kFlows))
      ->group(experiment);
  app->footer(
      "Examples:\n"
      "  anteroom compare --burst 2000\n"
      "  anteroom compare --rate 2000 --stall 50ms --backlog 64,1024 --repeat 9 --report servers.html\n"
      "  anteroom compare --loop open,closed --backlog 8,1024 --servers reactor");
  return experiment_verb(app, typed, false, compare);
}

}  // namespace anteroom::tool
