#pragma once
#include <anteroom/bench/advice.h>
#include <anteroom/bench/trial.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "run_document.h"
#include "tune.h"

namespace anteroom::tool {

/// One server against another, by one number.
struct ComparisonRow {
  bench::ServerKind server = bench::ServerKind::kReactor;
  bench::ServerKind against = bench::ServerKind::kReactor;
  int backlog = 0;
  bench::Loop loop = bench::Loop::kOpen;
  std::string metric;  ///< as in tools/JSON.md
  std::optional<double> ratio;
  std::optional<double> low;
  std::optional<double> high;
  std::optional<double> p;  ///< nothing for pairs, whose interval decides
  std::optional<double> p_holm;
  std::string verdict;  ///< "more", "less", "no difference seen"
  std::string method;   ///< "runs", "pairs"
  int n = 0;
};

/// What has been done, before it is written down.
struct Run {
  const ExperimentCommand& command;
  std::vector<bench::TrialResult> trials;
  bool interrupted = false;
  std::chrono::system_clock::time_point started;
  std::chrono::nanoseconds took{0};
  std::optional<bool> until_met;
  std::vector<ComparisonRow> comparisons;  ///< of `compare`
  std::vector<std::string> remarks;        ///< more notes
  std::string why_ended;                   ///< why a server that runs could not be tuned to the end
  std::string not_put_back;                ///< of its backlog, what could not
};

/// What is written for `tune`, `compare` and `swarm`, as tools/JSON.md has it.
Json tune_document(const Run& run, const bench::Advice& advice);
Json compare_document(const Run& run);
/// Of one trial on a server that runs (Run::command.running).
Json swarm_document(const Run& run);

/// As a file has it. An argument need not be UTF-8; what is not, is replaced.
std::string print(const Json& json);

}  // namespace anteroom::tool
