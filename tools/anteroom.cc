// The command line: which command is meant, and what is wrong with it if none is.
#include <anteroom/bench/running_server.h>
#include <anteroom/version.h>
#include <fmt/format.h>
#include <signal.h>
#include <standard_streams.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <exception>
#include <memory>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "run_document.h"
#include "tune.h"
#include "verb.h"

namespace {

using namespace anteroom;
using namespace anteroom::tool;

std::atomic<bool> interrupted{false};

/// The first Ctrl-C, SIGTERM or SIGHUP ends the experiment and prints what there is; the second ends the
/// program.
void on_interrupt(int signal) {
  interrupted.store(true);
  ::signal(signal, SIG_DFL);
}

std::string quote(std::string_view word) {
  if (word.find_first_of(" \t\n\"'\\$`*?[]{}()<>|&;!#~") == word.npos && !word.empty())
    return std::string(word);
  std::string quoted = "'";
  for (const char c : word) c == '\'' ? quoted += "'\\''" : quoted += c;
  return quoted + "'";
}

/// "--json" of "--json=file".
std::string_view option_of(std::string_view word) { return word.substr(0, word.find('=')); }

/// What was typed; without the files, or who repeats it would lose the evidence.
std::string command_line_of(int argc, char** argv) {
  std::string line = quote(argv[0]);
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i], option = option_of(word);
    if (option != "--json" && option != "--csv" && option != "--report") {
      line += ' ' + quote(word);
    } else if (option == word) {
      ++i;  // and its value
    }
  }
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

std::string with_colon(std::string text) {
  for (std::size_t at = 0; (at = text.find(kHostAndPort, at)) != std::string::npos;)
    text.replace(at, std::string_view(kHostAndPort).size(), "HOST:PORT");
  return text;
}

class HelpText final : public CLI::Formatter {
 public:
  std::string make_help(const CLI::App* app, std::string name, CLI::AppFormatMode mode) const override {
    return with_colon(CLI::Formatter::make_help(app, std::move(name), mode));
  }
};

void listen_to_signals() {
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  struct sigaction before {};
  ::sigaction(SIGHUP, nullptr, &before);
  if (before.sa_handler != SIG_IGN) ::sigaction(SIGHUP, &action, nullptr);  // else nohup(1) has it ignored
}

int run(int argc, char** argv) {
  CLI::App app("anteroom finds the listen() backlog that a server needs, by experiment.", "anteroom");
  app.set_version_flag("-V,--version", ANTEROOM_VERSION_STRING);
  app.require_subcommand(1);
  app.formatter(std::make_shared<HelpText>());  // before the commands, which take it over
  const std::vector<Verb> verbs = add_commands(app);
  for (const Verb& verb : verbs) refuse_words_that_are_none(*verb.app);
  app.footer(
      "Exit status: 0 done, 1 could not run or write the result, 2 usage, 3 ran but the answer is not to be "
      "trusted, 4 a --fail-if is broken, 130 interrupted (Ctrl-C, SIGTERM, SIGHUP).");

  if (argc == 1) {
    print_error("{}", app.help());
    return kUsage;
  }
  const Verb* chosen = nullptr;
  try {
    refuse_odd_words(argc, argv);
    app.parse(argc, argv);
    chosen = &*std::ranges::find_if(verbs, [](const Verb& verb) { return static_cast<bool>(*verb.app); });
    chosen->understand();
  } catch (const CLI::Success& help) {
    std::ostringstream text;
    const int status = app.exit(help, text, text);
    if (!say(stdout, text.str())) throw std::runtime_error(std::string(kOutputNotWritten));
    return status;
  } catch (const CLI::Error& error) {
    // An option that has no value leaves words behind that are not what is wrong.
    const bool is_about_a_value = dynamic_cast<const CLI::ArgumentMismatch*>(&error) != nullptr;
    const std::string unknown = is_about_a_value ? std::string() : unknown_word(app);
    print_error("anteroom: {} (--help tells more)\n", with_colon(unknown.empty() ? error.what() : unknown));
    return kUsage;
  }
  ::signal(SIGXFSZ, SIG_IGN);  // write(2) fails with EFBIG then, which is said in a line
  if (chosen->heeds_interrupt) listen_to_signals();
  const int status = chosen->run({.command_line = command_line_of(argc, argv), .interrupted = interrupted});
  if (status == kDone && !output_is_written()) throw std::runtime_error(std::string(kOutputNotWritten));
  return status;
}

/// One line on the standard error, and the exit status that goes with it.
int tell(const std::exception& error, int status) {
  print_error("anteroom: {}\n", error.what());
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  prepare_standard_streams();
  try {
    return run(argc, argv);
  } catch (const Interrupted&) {
    return kInterrupted;
  } catch (const bench::ServerGone& error) {
    return tell(error, kCouldNotRun);
  } catch (const bench::TargetError& error) {
    return tell(error, kUsage);
  } catch (const UsageError& error) {
    return tell(error, kUsage);
  } catch (const RunDocumentError& error) {
    return tell(error, kUsage);
  } catch (const std::exception& error) {
    return tell(error, kCouldNotRun);
  }
}
