#pragma once
#include <anteroom/bench/trial.h>

#include <string>
#include <string_view>
#include <vector>

#include "tune.h"

namespace anteroom::tool {

/// "3 runs", "1 run".
std::string runs(int count);

/// What is about to be measured, in words, and how to get the very same run again.
void print_heading(std::string_view verb, const ExperimentCommand& command);

/// One line for each trial that does not count, and one if there was no private network.
void print_void_trials(const std::vector<bench::TrialResult>& trials);

/// Writes the results where they were asked for, if they were. Empty, or the reason why that failed.
std::string write_json(const ExperimentCommand& command, const std::string& json);

/// How a command ends: `output_problem` is said on the standard error, as is why no trial could be run.
ExitStatus exit_status(const std::string& output_problem, const std::vector<bench::TrialResult>& trials,
                       bool interrupted, bool is_trusted);

}  // namespace anteroom::tool
