#pragma once
#include <atomic>
#include <exception>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace anteroom::tool {

/// How the tool was called.
struct Invocation {
  std::string command_line;              ///< which repeats the run
  const std::atomic<bool>& interrupted;  ///< Ctrl-C, SIGTERM or SIGHUP
};

/// What is wrong with what was asked for: one line, and the tool ends with kUsage.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Ctrl-C, before there was anything to tell: the tool ends with kInterrupted.
class Interrupted : public std::exception {};

/// One command of the tool. Its options and what was typed live in it.
struct Verb {
  CLI::App* app = nullptr;
  /// After the words have been parsed. It only reads: no socket is bound, no network namespace entered, no
  /// output written before `run`. Throws CLI::Error, UsageError, bench::TargetError or RunDocumentError,
  /// which all end the tool with kUsage.
  std::function<void()> understand;
  /// Does it, and returns the exit status. Throws all of these but CLI::Error, too, if it could not begin.
  std::function<int(const Invocation&)> run;
  bool heeds_interrupt = true;  ///< looks at Invocation::interrupted; else a signal ends it at once
};

// Each adds a command to the parser.
Verb add_tune(CLI::App& tool);
Verb add_compare(CLI::App& tool);
Verb add_report(CLI::App& tool);
Verb add_diff(CLI::App& tool);
Verb add_watch(CLI::App& tool);
Verb add_retune(CLI::App& tool);
Verb add_swarm(CLI::App& tool);

/// All of them, in the order of the help.
std::vector<Verb> add_commands(CLI::App& tool);

/// How the parser names what `anteroom swarm` calls: CLI11 2.4 takes no colon in a name. Users are shown HOST:PORT.
inline constexpr const char* kHostAndPort = "HOST_PORT";

}  // namespace anteroom::tool
