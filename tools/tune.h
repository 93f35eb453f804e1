#pragma once
#include <anteroom/bench/scenario.h>

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace anteroom::tool {

/// Exit statuses of every command.
enum ExitStatus : int {
  kDone = 0,
  kCouldNotRun = 1,
  kUsage = 2,
  kNotToBeTrusted = 3,
  kInterrupted = 130,
};

/// What `tune` and `compare` have in common.
struct ExperimentCommand {
  bench::Scenario load;  ///< all but the backlog, and in `compare` the server
  std::vector<int> backlogs;
  int repeat = 3;
  std::uint64_t seed = 1;
  std::optional<std::string> json;  ///< a file, or "-" for the standard output
  bool quiet = false;
  std::string command_line;  ///< which repeats the run
};

/// Finds the backlog that a load needs, and prints it. Returns the exit status.
int tune(const ExperimentCommand& command, const std::atomic<bool>& interrupted);

/// The same load on every server, side by side. Returns the exit status.
int compare(const ExperimentCommand& command, const std::atomic<bool>& interrupted);

}  // namespace anteroom::tool
