#pragma once
#include <anteroom/bench/trial.h>

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

/// Whether there were trials, and none of them could be run. Says why on the standard error.
bool nothing_ran(const std::vector<bench::TrialResult>& trials);

}  // namespace anteroom::tool
