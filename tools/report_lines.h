#pragma once
#include <anteroom/bench/advice.h>
#include <anteroom/bench/dialogue.h>
#include <anteroom/bench/trial.h>

#include <string>
#include <string_view>
#include <vector>

#include "json.h"
#include "terminal.h"
#include "tune.h"

namespace anteroom::tool {

/// "3 runs".
std::string runs(int count);

/// What is called how, in a sentence's middle.
std::string load_in_words(const bench::Scenario& load);

/// "says PING\r\n and expects +PONG", in a sentence's middle.
std::string dialogue_in_words(const bench::Dialogue& dialogue);

/// Before anything is measured: throws if what was printed so far could not be written.
void refuse_unwritten_output();

/// What the experiment is, what machine it runs on, and what repeats it.
void print_heading(std::string_view verb, const ExperimentCommand& command);

/// Sentences about what limits the answer; none if nothing does.
std::vector<std::string> notes(const Run& run);

/// Why no number is recommended, in a sentence's middle.
std::string why_none(const std::vector<bench::TrialResult>& trials, const bench::Advice& advice);

/// What the recommended number rests on, in a sentence.
std::string reason(const bench::Advice& advice, const Terminal& terminal);

/// Something of the system that would not let the recommended number be.
struct Limit {
  std::string name;
  std::uint64_t now = 0;
  std::uint64_t needed = 0;
  std::string command;  ///< to paste; empty if it is enough as it is
};
std::vector<Limit> limits_for(const ExperimentCommand& command, const bench::Advice& advice);

/// Writes --json, --csv and --report, and tells of each rule of --fail-if that is broken. Returns the exit
/// status of the command.
ExitStatus finish(const Run& run, const Json& document, bool is_trusted);

}  // namespace anteroom::tool
