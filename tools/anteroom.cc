// The command line. All of CLI11 is in here.
#include <anteroom/bench/random.h>
#include <anteroom/bench/scenario.h>
#include <anteroom/bench/trial.h>
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <exception>
#include <limits>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "json.h"
#include "tune.h"

namespace {

using namespace anteroom;
using namespace anteroom::tool;
using bench::Arrival;

constexpr int kClientsMax = 1'000'000;
constexpr int kBurstClients = 2000;
constexpr double kDefaultRate = 5000;
constexpr std::chrono::milliseconds kDefaultStall{100};
/// Time for the first SYN to be sent again, after 1.02 s, and for its answer; beyond the stall, or nobody
/// could be served.
constexpr std::chrono::milliseconds kDefaultPatience{1500};
constexpr std::chrono::seconds kPatienceMax{60};  // before the kernel gives up, after 67 s
constexpr const char* kTuneBacklogs = "1,5,15,64,128,511,1024,4096";
constexpr const char* kCompareBacklogs = "128";

std::atomic<bool> interrupted{false};

/// The first Ctrl-C ends the experiment and prints what there is; the second ends the program.
void on_interrupt(int signal) {
  interrupted.store(true);
  ::signal(signal, SIG_DFL);
}

/// What was typed, before it is understood.
struct Typed {
  std::string server = "reactor";
  std::string clients;
  bool burst = false;
  std::string rate;
  std::string arrival = "steady";
  std::string stall;
  std::string stall_every;
  std::string patience;
  std::string backlog;
  int threads = 8;
  int repeat = 3;
  std::string seed;
  std::string json;
  bool quiet = false;
};

CLI::ValidationError bad(const std::string& option, const std::string& text, const std::string& wanted) {
  return CLI::ValidationError(option, fmt::format("\"{}\" is not {}", text, wanted));
}

/// "5000", "5k", "1.5M".
double parse_count(const std::string& option, const std::string& text, double least, double most) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  const double factor = unit.empty() ? 1 : unit == "k" || unit == "K" ? 1e3 : unit == "M" ? 1e6 : 0;
  const double value = number * factor;
  if (error == std::errc{} && std::isfinite(value) && factor > 0 && value >= least && value <= most)
    return value;
  throw bad(option, text, fmt::format("a number from {} to {}", least, most));
}

int parse_whole(const std::string& option, const std::string& text, int least, int most) {
  const double value = parse_count(option, text, least, most);
  if (value != std::floor(value)) throw bad(option, text, "a whole number");
  return static_cast<int>(value);
}

std::uint64_t parse_seed(const std::string& text) {
  std::uint64_t seed = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seed);
  if (error == std::errc{} && end == text.data() + text.size()) return seed;
  throw bad("--seed", text, "a whole number from 0 to 18446744073709551615");
}

std::chrono::nanoseconds parse_time(const std::string& option, const std::string& text) {
  const auto duration = bench::parse_duration(text);
  if (!duration) throw bad(option, text, "a time such as 100ms, 1.5s or 20us");
  return *duration;
}

/// "64,128,1k" and "1..4096", which doubles.
std::vector<int> parse_backlogs(const std::string& text) {
  constexpr int kBacklogMax = 1'000'000;
  std::vector<int> backlogs;
  std::string_view rest = text;
  for (bool more = true; more;) {
    const std::size_t comma = rest.find(',');
    const std::string item(rest.substr(0, comma));
    more = comma != std::string_view::npos;
    if (more) rest.remove_prefix(comma + 1);

    const std::size_t dots = item.find("..");
    if (dots == std::string::npos) {
      backlogs.push_back(parse_whole("--backlog", item, 0, kBacklogMax));
      continue;
    }
    const int first = parse_whole("--backlog", item.substr(0, dots), 1, kBacklogMax);
    const int last = parse_whole("--backlog", item.substr(dots + 2), first, kBacklogMax);
    for (int backlog = first; backlog < last; backlog *= 2) backlogs.push_back(backlog);
    backlogs.push_back(last);
  }
  std::ranges::sort(backlogs);
  backlogs.erase(std::unique(backlogs.begin(), backlogs.end()), backlogs.end());
  return backlogs;
}

/// As many as the load needs to show what the stall does: half a second, or three stalls, or two and a half
/// periods of them.
int default_clients(const bench::Scenario& load) {
  if (load.arrival == Arrival::kBurst) return kBurstClients;
  const double stall_s = std::chrono::duration<double>(load.stall).count();
  const double every_s = std::chrono::duration<double>(load.stall_every).count();
  const double seconds = std::max({0.5, 3 * stall_s, 2.5 * every_s});
  return static_cast<int>(std::clamp(load.rate * seconds, 1.0, static_cast<double>(kClientsMax)));
}

bench::Scenario understand_load(const Typed& typed) {
  bench::Scenario load;
  const auto server = bench::parse_server_kind(typed.server);
  if (!server) throw bad("--server", typed.server, "one of reactor, blocking, threads, pool");
  load.server = *server;
  load.threads = typed.threads;

  if (typed.burst) {
    load.arrival = Arrival::kBurst;
  } else {
    const auto arrival = bench::parse_arrival(typed.arrival);
    if (!arrival || *arrival == Arrival::kBurst)
      throw bad("--arrival", typed.arrival, "one of steady, poisson");
    load.arrival = *arrival;
    load.rate = typed.rate.empty() ? kDefaultRate : parse_count("--rate", typed.rate, 1, 1e6);
  }
  if (!typed.stall.empty()) {
    load.stall = parse_time("--stall", typed.stall);
  } else if (!typed.burst && typed.rate.empty()) {
    load.stall = kDefaultStall;
  }
  if (!typed.stall_every.empty()) {
    load.stall_every = parse_time("--stall-every", typed.stall_every);
    if (load.stall_every <= load.stall || load.stall == load.stall.zero()) {
      throw bad("--stall-every", typed.stall_every, "longer than --stall, which it needs");
    }
  }
  load.patience =
      typed.patience.empty() ? load.stall + kDefaultPatience : parse_time("--patience", typed.patience);
  if (load.patience <= load.stall || load.patience > kPatienceMax) {
    throw bad("--patience", bench::print_duration(load.patience), "longer than the stall and at most 60s");
  }
  load.clients =
      typed.clients.empty() ? default_clients(load) : parse_whole("--clients", typed.clients, 1, kClientsMax);
  return load;
}

std::string quote(std::string_view word) {
  if (word.find_first_of(" \t\n\"'\\$`*?[]{}()<>|&;!#~") == word.npos && !word.empty())
    return std::string(word);
  std::string quoted = "'";
  for (const char c : word) c == '\'' ? quoted += "'\\''" : quoted += c;
  return quoted + "'";
}

/// What was typed, and the seed if it was not.
std::string command_line_of(int argc, char** argv, std::uint64_t seed, bool seed_was_typed) {
  std::string line = quote(argv[0]);
  for (int i = 1; i < argc; ++i) line += ' ' + quote(argv[i]);
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
    return fmt::format("there is no command {}.{}", rest.front(), suggest(rest.front(), verbs));
  std::vector<std::string> options;
  for (const CLI::Option* option : chosen.front()->get_options()) {
    for (const std::string& name : option->get_lnames()) options.push_back("--" + name);
  }
  return fmt::format("{} takes no {}.{}", chosen.front()->get_name(), rest.front(),
                     suggest(rest.front(), options));
}

/// An empty word, as "$RATE" makes where RATE is not set, is none of ours to fill in.
void refuse_empty_words(CLI::App& app) {
  for (CLI::Option* option : app.get_options({})) {
    if (option->get_items_expected_max() == 0) continue;  // a flag
    option->check(
        [](const std::string& word) { return word.empty() ? std::string("is empty") : std::string(); }, "");
  }
}

void add_common_options(CLI::App& app, Typed& typed, const std::string& default_backlogs) {
  const std::string load = "The load";
  app.add_option("--clients", typed.clients,
                 "How many clients call (default: 2000 in a burst, else half a second of --rate or more)")
      ->group(load);
  auto* const burst = app.add_flag("--burst", typed.burst, "All of them call at once")->group(load);
  auto* const rate =
      app.add_option("--rate", typed.rate, "Clients a second (default: 5000, with a stall of 100ms)")
          ->group(load);
  auto* const arrival =
      app.add_option("--arrival", typed.arrival, "How they come: steady, or poisson for at random")
          ->group(load);
  burst->excludes(rate)->excludes(arrival);
  app.add_option("--stall", typed.stall, "How long the server accepts nobody, such as 100ms")->group(load);
  app.add_option("--stall-every", typed.stall_every, "How often that happens (default: once)")->group(load);
  app.add_option("--patience", typed.patience, "How long after the last call the others still wait")
      ->default_str("1500ms and the stall")
      ->group(load);
  app.add_option("--threads", typed.threads, "Threads of the pool server")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str()
      ->group(load);
  const std::string experiment = "The experiment";
  app.add_option("--backlog", typed.backlog,
                 "Which to try: a list such as 64,128,1k, or 1..4096, which doubles")
      ->default_str(default_backlogs)
      ->group(experiment);
  app.add_option("--repeat", typed.repeat, "Runs of each")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str()
      ->group(experiment);
  app.add_option("--seed", typed.seed,
                 "Of the order and of the schedules (default: a new one, which is printed)")
      ->group(experiment);
  const std::string output = "Output";
  app.add_option("--json", typed.json, "Write all results to this file, or to the standard output if it is -")
      ->group(output);
  app.add_flag("-q,--quiet", typed.quiet, "Print only the answer")->group(output);
}

int run(int argc, char** argv) {
  CLI::App app("anteroom finds the listen() backlog that a server needs, by experiment.", "anteroom");
  app.set_version_flag("-V,--version", ANTEROOM_VERSION);
  app.require_subcommand(1);
  Typed typed;
  CLI::App* const tune_command = app.add_subcommand("tune", "Find the backlog that a load needs");
  add_common_options(*tune_command, typed, kTuneBacklogs);
  tune_command->add_option("--server", typed.server, "Who serves: reactor, blocking, threads, pool")
      ->capture_default_str()
      ->group("The load");
  tune_command->footer(
      "Examples:\n"
      "  anteroom tune                                  5000 clients a second, and a server that looks away "
      "for 100 ms\n"
      "  anteroom tune --burst --clients 10k            ten thousand reconnect at the same moment\n"
      "  anteroom tune --rate 800 --stall 250ms --arrival poisson --server blocking\n"
      "  listen=$(anteroom tune --quiet)                only the number");
  CLI::App* const compare_command =
      app.add_subcommand("compare", "The same load on the reactor and on the textbook's servers");
  add_common_options(*compare_command, typed, kCompareBacklogs);
  compare_command->footer(
      "Examples:\n"
      "  anteroom compare --burst --clients 2000\n"
      "  anteroom compare --rate 2000 --stall 50ms --backlog 64,1024 --json servers.json");
  refuse_empty_words(*tune_command);
  refuse_empty_words(*compare_command);
  app.footer(
      "Exit status: 0 done, 1 could not run, 2 usage, 3 ran but the answer is not to be trusted, 130 "
      "interrupted.");

  if (argc == 1) {
    fmt::print(stderr, "{}", app.help());
    return kUsage;
  }
  ExperimentCommand command;
  try {
    app.parse(argc, argv);
    command.load = understand_load(typed);
    const char* const backlogs = *tune_command ? kTuneBacklogs : kCompareBacklogs;
    command.seed = typed.seed.empty() ? std::random_device{}() : parse_seed(typed.seed);
    command.backlogs = parse_backlogs(typed.backlog.empty() ? backlogs : typed.backlog);
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::Error& error) {
    const std::string unknown = unknown_word(app);
    fmt::print(stderr, "anteroom: {} (--help tells more)\n", unknown.empty() ? error.what() : unknown);
    return kUsage;
  }
  command.repeat = typed.repeat;
  command.quiet = typed.quiet;
  if (!typed.json.empty()) command.json = typed.json;
  command.command_line = command_line_of(argc, argv, command.seed, !typed.seed.empty());
  for (const std::string& problem : {command.json ? output_problem(*command.json) : std::string(),
                                     bench::clients_limit_problem(command.load.clients)}) {
    if (problem.empty()) continue;
    fmt::print(stderr, "anteroom: {}\n", problem);
    return kUsage;
  }
  ::signal(SIGPIPE, SIG_IGN);
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
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
