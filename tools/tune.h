#pragma once
#include <anteroom/bench/dialogue.h>
#include <anteroom/bench/scenario.h>
#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "rules.h"

namespace anteroom::tool {

/// Exit statuses of every command.
enum ExitStatus : int {
  kDone = 0,
  kCouldNotRun = 1,
  kUsage = 2,
  kNotToBeTrusted = 3,
  kRuleBroken = 4,
  kInterrupted = 130,
};

/// A server that runs already, and how to talk to it.
struct RunningCommand {
  std::optional<pid_t> pid;  ///< one of pid and port is there
  std::optional<std::uint16_t> port;
  bench::Dialogue dialogue;

  // Filled in when it has been found.
  std::string name;               ///< of the process
  std::string address;            ///< where it is called
  std::string redirected_to;      ///< where a packet filter sends who calls it; empty if it does not
  int backlog = 0;                ///< which it had
  int backlog_max = 0;            ///< its net.core.somaxconn
  int rooms = 0;                  ///< its listening sockets
  std::uint64_t descriptors = 0;  ///< which it may have; 0 if that is not known
};

/// What `tune` and `compare` have in common.
struct ExperimentCommand {
  bench::Scenario load;                   ///< all but the backlog, and in `compare` the server and the loop
  std::optional<RunningCommand> running;  ///< (tune) the server, if it is none of ours
  std::vector<int> backlogs;
  bool refine = true;                      ///< (tune) look between them, too
  std::vector<bench::ServerKind> servers;  ///< (compare) the first is what the others are compared with
  std::vector<bench::Loop> loops;          ///< (compare)
  double target_loss = 0.001;              ///< (tune) share of clients that may lose their first SYN
  int repeat = 3;
  std::optional<double> until;  ///< repeat until the intervals are so narrow, as a share of the median
  std::uint64_t seed = 1;
  std::optional<std::string> json;    ///< a file, or "-" for the standard output
  std::optional<std::string> csv;     ///< the same
  std::optional<std::string> report;  ///< the same
  std::vector<Rule> fail_if;
  bool quiet = false;
  std::string command_line;  ///< which repeats the run

  /// Something else than the table goes to the standard output.
  bool writes_to_stdout() const noexcept { return json == "-" || csv == "-" || report == "-"; }
};

/// Finds the backlog that a load needs, and prints it. Returns the exit status.
int tune(const ExperimentCommand& command, const std::atomic<bool>& interrupted);

/// The same load on every server, side by side. Returns the exit status.
int compare(const ExperimentCommand& command, const std::atomic<bool>& interrupted);

}  // namespace anteroom::tool
