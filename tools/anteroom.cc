// The command line. CLI11 is in here and in load_options.cc.
#include <anteroom/bench/trial.h>
#include <fmt/format.h>
#include <signal.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "load_options.h"
#include "old_runs.h"
#include "output.h"
#include "rules.h"
#include "tune.h"

namespace {

using namespace anteroom;
using namespace anteroom::tool;

// Log-spaced around what people guess: textbooks, old kernels, nginx and node, new kernels.
constexpr const char* kTuneBacklogs = "5,64,128,511,1024,4096";
constexpr const char* kCompareBacklogs = "128";
constexpr int kFlows = 500;
constexpr const char* kCompareServers = "reactor,accept-one,reactors,blocking,threads,pool";

std::atomic<bool> interrupted{false};

/// The first Ctrl-C ends the experiment and prints what there is; the second ends the program.
void on_interrupt(int signal) {
  interrupted.store(true);
  ::signal(signal, SIG_DFL);
}

/// What was typed, before it is understood.
struct Typed {
  TypedLoad load;
  std::string backlog;
  std::string servers = kCompareServers;
  std::string loops = "open";
  std::string flows;
  std::string target_loss = "0.1%";
  std::string until;
  int repeat = 3;
  std::string seed;
  std::string json;
  std::string csv;
  std::string report;
  std::vector<std::string> fail_if;
  bool quiet = false;
};

std::string quote(std::string_view word) {
  if (word.find_first_of(" \t\n\"'\\$`*?[]{}()<>|&;!#~") == word.npos && !word.empty())
    return std::string(word);
  std::string quoted = "'";
  for (const char c : word) c == '\'' ? quoted += "'\\''" : quoted += c;
  return quoted + "'";
}

/// "--json" of "--json=file".
std::string_view option_of(std::string_view word) { return word.substr(0, word.find('=')); }

/// What was typed, and the seed if it was not; without the files, or who repeats it would lose the evidence.
std::string command_line_of(int argc, char** argv, std::uint64_t seed, bool seed_was_typed) {
  std::string line = quote(argv[0]);
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i], option = option_of(word);
    if (option != "--json" && option != "--csv" && option != "--report") {
      line += ' ' + quote(word);
    } else if (option == word) {
      ++i;  // and its value
    }
  }
  if (!seed_was_typed) line += fmt::format(" --seed {}", seed);
  return line;
}

/// How many letters one has to change, add or leave out (Levenshtein, 1966).
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t change = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = std::exchange(row[j], std::min({change, row[j] + 1, row[j - 1] + 1}));
    }
  }
  return row.back();
}

/// " Did you mean --backlog?", or nothing if nothing is near.
std::string suggest(std::string_view typed, const std::vector<std::string>& known) {
  const auto nearest =
      std::ranges::min_element(known, {}, [&](const std::string& name) { return distance(typed, name); });
  if (nearest == known.end() || distance(typed, *nearest) > 3) return {};
  return fmt::format(" Did you mean {}?", *nearest);
}

/// One line about what was typed and is not known.
std::string unknown_word(const CLI::App& app) {
  std::vector<std::string> verbs;
  for (const CLI::App* verb : app.get_subcommands({})) verbs.push_back(verb->get_name());
  const std::vector<CLI::App*> chosen = app.get_subcommands();
  const std::vector<std::string> rest = app.remaining(true);
  if (rest.empty()) return {};
  if (chosen.empty())
    return fmt::format("there is no command {}.{}", rest.front().empty() ? "\"\"" : rest.front(),
                       suggest(rest.front(), verbs));
  std::vector<std::string> options;
  for (const CLI::Option* option : chosen.front()->get_options()) {
    for (const std::string& name : option->get_lnames()) options.push_back("--" + name);
  }
  return fmt::format("{} takes no {}.{}", chosen.front()->get_name(), rest.front(),
                     suggest(rest.front(), options));
}

/// An empty word, as "$RATE" makes where RATE is not set, is none of ours to fill in; and one that begins
/// with two dashes is the next option.
void refuse_words_that_are_none(CLI::App& app) {
  for (CLI::Option* option : app.get_options({})) {
    if (option->get_items_expected_min() == 0) continue;  // a flag, or one that needs no word
    option->check(
        [option](const std::string& word) {
          if (word.starts_with("--") && !option->get_positional())
            throw CLI::ArgumentMismatch(option->get_name() + " needs a value");
          return word.empty() ? std::string("is empty") : std::string();
        },
        "");
  }
}

/// What the parser would not notice, or not say well: an option twice, and "--burst=" without the rest.
void refuse_odd_words(int argc, char** argv) {
  std::set<std::string_view> seen;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i], option = option_of(word);
    if (word == "--") return;
    const bool is_burst = word == "--burst" && i + 1 < argc && std::string_view(argv[i + 1]).empty();
    if (is_burst || (word.starts_with("--") && word.ends_with('=') && option.size() + 1 == word.size()))
      throw CLI::ValidationError(std::string(option), "is empty");
    if (!word.starts_with("--") && word != "-o") continue;
    if (option == "--fail-if" || option == "--sysctl") continue;  // there may be several
    if (!seen.insert(option == "-o" ? "--output" : option).second)
      throw CLI::ArgumentMismatch(std::string(option) + " is given twice");
  }
}

void add_output_options(CLI::App& app, Typed& typed) {
  const std::string output = "Output";
  app.add_option("--json", typed.json, "Write all results to this file; - is the standard output")
      ->group(output);
  app.add_option("--csv", typed.csv, "Write the table to this file, comma-separated")->group(output);
  app.add_option("--report", typed.report, "Write a page with plots to this file, for any browser, offline")
      ->group(output);
  app.add_option("--fail-if", typed.fail_if,
                 "Exit with 4 if so: 'lost>0', 'p99>5ms', 'depth@1024>=800'. Of " + rule_names() +
                     ". Without an @BACKLOG it is asked of the recommended backlog, or of all if none is")
      ->take_all()
      ->allow_extra_args(false)
      ->group(output);
}

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
      ->check(CLI::Range(1, 1000))
      ->capture_default_str()
      ->group(experiment);
  app.add_option("--until", typed.until,
                 std::string("More runs, 5 at least and 30 at most, until the 95 % interval of ") +
                     (is_tune ? "the deepest queue" : "each server's connections/s") + " is so narrow: 5%")
      ->group(experiment);
  app.add_option("--seed", typed.seed,
                 "Of the order and of the schedules (default: a new one, which is printed)")
      ->group(experiment);
  add_output_options(app, typed);
  app.add_flag("-q,--quiet", typed.quiet, "Print only the answer")->group("Output");
}

std::vector<Rule> understand_rules(const std::vector<std::string>& texts) {
  std::vector<Rule> rules;
  for (const std::string& text : texts) {
    auto rule = parse_rule(text);
    if (const auto* const problem = std::get_if<std::string>(&rule))
      throw CLI::ValidationError("--fail-if", *problem);
    rules.push_back(std::get<Rule>(std::move(rule)));
  }
  return rules;
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
    if (!server) refuse("--servers", item, "one of " + std::string(kCompareServers));
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

ExperimentCommand understand(const Typed& typed, bool is_tune) {
  ExperimentCommand command;
  command.load = understand_load(typed.load);
  command.backlogs = parse_backlogs(!typed.backlog.empty() ? typed.backlog
                                    : is_tune              ? kTuneBacklogs
                                                           : kCompareBacklogs);
  command.refine = typed.backlog.empty();
  command.servers = understand_servers(typed.servers);
  command.loops = understand_loops(typed.loops);
  command.load.flows = typed.flows.empty() ? kFlows : parse_whole("--flows", typed.flows, 1, 100'000);
  refuse_idle_options(typed, command, is_tune);
  command.target_loss = parse_share("--target-loss", typed.target_loss, 0.5);
  command.repeat = typed.repeat;
  if (!typed.until.empty()) {
    command.until = parse_share("--until", typed.until, 1);
    if (*command.until == 0) refuse("--until", typed.until, "more than nothing");
  }
  command.seed = typed.seed.empty() ? std::random_device{}() : parse_seed(typed.seed);
  command.fail_if = understand_rules(typed.fail_if);
  refuse_rules(command, is_tune, !is_tune || !typed.backlog.empty());
  command.quiet = typed.quiet;
  if (!typed.json.empty()) command.json = typed.json;
  if (!typed.csv.empty()) command.csv = typed.csv;
  if (!typed.report.empty()) command.report = typed.report;
  const int to_stdout = (typed.json == "-") + (typed.csv == "-") + (typed.report == "-");
  if (to_stdout > 1)
    throw CLI::ValidationError("--json, --csv, --report", "only one of them can have the standard output");
  return command;
}

/// What cannot be had, before hours of measuring; empty if all can.
std::string problem_of(const ExperimentCommand& command, const std::string& profile) {
  std::vector<std::string> others;
  if (!profile.empty()) others.push_back(profile);
  for (const auto& path : {command.json, command.csv, command.report}) {
    if (!path) continue;
    for (const std::string& other : others) {
      if (would_replace(*path, other))
        return fmt::format("{} and {} are one file, which only one of them can be", other, *path);
    }
    const std::string problem = output_problem(*path);
    if (!problem.empty()) return problem;
    others.push_back(*path);
  }
  return bench::clients_limit_problem(command.load.clients);
}

void listen_to_signals() {
  ::signal(SIGPIPE, SIG_IGN);
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

int run(int argc, char** argv) {
  CLI::App app("anteroom finds the listen() backlog that a server needs, by experiment.", "anteroom");
  app.set_version_flag("-V,--version", ANTEROOM_VERSION);
  app.require_subcommand(1);
  Typed typed;
  CLI::App* const tune_command = app.add_subcommand("tune", "Find the backlog that a load needs");
  add_experiment_options(*tune_command, typed, true);
  tune_command
      ->add_option("--server", typed.load.server,
                   "Who serves: reactor, accept-one, reactors, blocking, threads, pool")
      ->capture_default_str()
      ->group("The load");
  tune_command->add_option("--target-loss", typed.target_loss, "Share of clients that may be turned away")
      ->capture_default_str()
      ->group("The experiment");
  tune_command->footer(
      "Examples:\n"
      "  anteroom tune                                  a stream at random, bursts, and a server that looks "
      "away\n"
      "  anteroom tune --burst 10k                      ten thousand reconnect at the same moment\n"
      "  anteroom tune --rate 5000 --stall 50ms --report report.html\n"
      "  anteroom tune --rate 800 --stall 250ms --arrival poisson --server blocking\n"
      "  listen=$(anteroom tune --quiet)                only the number");
  CLI::App* const compare_command =
      app.add_subcommand("compare", "The same load on the reactor and on the textbook's servers");
  add_experiment_options(*compare_command, typed, false);
  compare_command
      ->add_option("--servers", typed.servers, "Which; the first is what the others are compared with")
      ->capture_default_str()
      ->group("The experiment");
  compare_command
      ->add_option("--loop", typed.loops, "open, or open,closed to see what closed-loop tools make of it")
      ->capture_default_str()
      ->group("The experiment");
  compare_command->add_option("--flows", typed.flows, "Clients at a time in a closed loop")
      ->default_str(fmt::to_string(kFlows))
      ->group("The experiment");
  compare_command->footer(
      "Examples:\n"
      "  anteroom compare --burst 2000\n"
      "  anteroom compare --rate 2000 --stall 50ms --backlog 64,1024 --repeat 9 --report servers.html\n"
      "  anteroom compare --loop open,closed --backlog 8,1024 --servers reactor");
  CLI::App* const report_command = app.add_subcommand("report", "Draw an old run");
  OldRun old_run;
  report_command->add_option("FILE", old_run.path, "What --json wrote; - is the standard input")->required();
  CLI::Option* const page = report_command->add_option(
      "-o,--output", old_run.page, "The page (default: FILE with .html; - is the standard output)");
  report_command->add_option("--csv", old_run.csv,
                             "Write the table to this file, comma-separated, instead of the page");
  report_command
      ->add_option(
          "--fail-if", typed.fail_if,
          "As of tune; no page is written then. Exit status 3 if nothing is broken but the run is not "
          "to be trusted")
      ->take_all()
      ->allow_extra_args(false);
  report_command->footer(
      "Examples:\n  anteroom report run.json\n  anteroom report run.json --csv -\n"
      "  anteroom report run.json --fail-if 'p99>5ms'");
  CLI::App* const diff_command = app.add_subcommand("diff", "What changed from one run to another");
  OldRuns old_runs;
  diff_command->add_option("OLD", old_runs.before, "What --json wrote")->required();
  diff_command->add_option("NEW", old_runs.after, "What --json wrote")->required();
  diff_command->add_option("--json", old_runs.json,
                           "Write it to this file instead; - is the standard output");
  diff_command->footer(
      "Examples:\n  anteroom diff before.json after.json\n\n"
      "Exit status is 0 also when something got worse: the verdicts are in what --json writes.");
  for (CLI::App* command : {tune_command, compare_command, report_command, diff_command})
    refuse_words_that_are_none(*command);
  app.footer(
      "Exit status: 0 done, 1 could not run, 2 usage, 3 ran but the answer is not to be trusted, 4 a "
      "--fail-if "
      "is broken, 130 interrupted.");

  if (argc == 1) {
    fmt::print(stderr, "{}", app.help());
    return kUsage;
  }
  ExperimentCommand command;
  try {
    refuse_odd_words(argc, argv);
    app.parse(argc, argv);
    if (page->count() > 0 && !(old_run.csv.empty() && typed.fail_if.empty()))
      throw CLI::ArgumentMismatch("report writes no page with --csv or --fail-if, so --output says nothing");
    old_run.fail_if = understand_rules(typed.fail_if);
    if (*tune_command || *compare_command) {
      command = understand(typed, static_cast<bool>(*tune_command));
      command.command_line = command_line_of(argc, argv, command.seed, !typed.seed.empty());
    }
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::Error& error) {
    // An option that has no value leaves words behind that are not what is wrong.
    const bool is_about_a_value = dynamic_cast<const CLI::ArgumentMismatch*>(&error) != nullptr;
    const std::string unknown = is_about_a_value ? std::string() : unknown_word(app);
    fmt::print(stderr, "anteroom: {} (--help tells more)\n", unknown.empty() ? error.what() : unknown);
    return kUsage;
  } catch (const RunDocumentError& error) {
    fmt::print(stderr, "anteroom: {}\n", error.what());
    return kUsage;
  }
  ::signal(SIGPIPE, SIG_IGN);
  if (*report_command) return report(old_run);
  if (*diff_command) return diff(old_runs);
  if (const std::string problem = problem_of(command, typed.load.profile); !problem.empty()) {
    fmt::print(stderr, "anteroom: {}\n", problem);
    return kUsage;
  }
  listen_to_signals();
  return *tune_command ? tune(command, interrupted) : compare(command, interrupted);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "anteroom: {}\n", error.what());
    return kCouldNotRun;
  }
}
