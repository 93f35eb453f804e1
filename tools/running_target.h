#pragma once
#include <anteroom/bench/backlog_keeper.h>
#include <anteroom/bench/experiment.h>
#include <anteroom/bench/running_server.h>
#include <anteroom/bench/target.h>

#include <atomic>
#include <string>

#include "tune.h"

namespace anteroom::tool {

/// A server that runs, for as long as it is being tuned: found, spoken to once, changed before each trial,
/// and given back what it had at the end, whatever happens in between. Ctrl-Z is not heeded from then on.
class RunningTarget {
 public:
  /// Finds it, fills in what `command` has to know of it, and takes its own backlog among those to be tried.
  /// Throws bench::TargetError or UsageError, with nothing changed.
  RunningTarget(ExperimentCommand& command, const std::atomic<bool>& interrupted);

  /// Has an experiment call this server, and change its backlog before each trial.
  void attach(bench::ExperimentOptions& options);
  /// What is beyond somaxconn cannot be tried.
  int backlog_max() const noexcept { return server_.backlog_max(); }
  /// Gives back what it had. Returns one line about what could not be put back.
  std::string put_back() noexcept { return keeper_.put_back(); }
  /// Why the experiment had to end; empty if it had not.
  const std::string& why_ended() const noexcept { return why_ended_; }

 private:
  bool prepare(const bench::Scenario& next);

  bench::RunningServer server_;
  bench::Target target_;
  bench::BacklogKeeper keeper_;
  std::string why_ended_;
};

}  // namespace anteroom::tool
