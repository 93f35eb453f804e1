#pragma once
#include <string>
#include <vector>

#include "rules.h"

namespace CLI {
class App;
}

namespace anteroom::tool {

/// What was typed of where a run is to go, before it is understood.
struct TypedOutput {
  std::string json;
  std::string csv;
  std::string report;
  std::vector<std::string> fail_if;
  bool quiet = false;

  bool writes_to_stdout() const noexcept { return json == "-" || csv == "-" || report == "-"; }
};

/// --json, --csv, --report, --fail-if and --quiet. They write into `typed`, which must live as long as `app`.
void add_output_options(CLI::App& app, TypedOutput& typed);

/// Every name of the standard output becomes "-". Before hours of measuring: throws CLI::ValidationError if
/// two of them want the standard output, and UsageError if a file cannot be written, or would be one of
/// `inputs` or another output.
void understand_outputs(TypedOutput& typed, std::vector<std::string> inputs = {});

/// The rules of --fail-if. Throws CLI::ValidationError.
std::vector<Rule> understand_rules(const std::vector<std::string>& texts);

}  // namespace anteroom::tool
