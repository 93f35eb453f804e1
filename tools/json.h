#pragma once
#include <anteroom/bench/advice.h>
#include <anteroom/bench/trial.h>

#include <optional>
#include <string>
#include <vector>

#include "tune.h"

namespace anteroom::tool {

/// A run as `anteroom.tune/1` or `anteroom.compare/1`; tools/JSON.md tells what each field means.
std::string tune_json(const ExperimentCommand& command, const std::vector<bench::TrialResult>& trials,
                      const bench::Advice& advice, bool interrupted);
std::string compare_json(const ExperimentCommand& command, const std::vector<bench::TrialResult>& trials,
                         bool interrupted);

/// Whether `path` can be written, asked before hours of work, without touching what is there. Empty, or the
/// reason.
std::string output_problem(const std::string& path);

/// Writes `text` to the file, or to the standard output if it is "-": either all of it, or the old file
/// stays. Empty, or the reason.
std::string write_output(const std::string& path, const std::string& text);

}  // namespace anteroom::tool
