#include "output_options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <utility>
#include <variant>

#include "output.h"
#include "verb.h"

namespace anteroom::tool {

void add_output_options(CLI::App& app, TypedOutput& typed) {
  const std::string output = "Output";
  app.add_option("--json", typed.json, "Write all results to this file; - is the standard output")
      ->group(output);
  app.add_option("--csv", typed.csv, "Write the table to this file, comma-separated")->group(output);
  app.add_option("--report", typed.report, "Write a page with plots to this file, for any browser, offline")
      ->group(output);
  app.add_option("--fail-if", typed.fail_if,
                 "Exit with 4 if so: 'lost>0', 'p99>5ms', 'depth@1024>=800'. Of " + rule_names() +
                     ". Without an @BACKLOG it is asked of the recommended backlog, or of all if none is")
      ->take_all()
      ->allow_extra_args(false)
      ->group(output);
  app.add_flag("-q,--quiet", typed.quiet, "Print only the answer")->group(output);
}

void understand_outputs(TypedOutput& typed, std::vector<std::string> inputs) {
  for (std::string* const path : {&typed.json, &typed.csv, &typed.report}) *path = output_name(*path);
  const int to_stdout = (typed.json == "-") + (typed.csv == "-") + (typed.report == "-");
  if (to_stdout > 1)
    throw CLI::ValidationError("--json, --csv, --report", "only one of them can have the standard output");
  std::erase(inputs, "");
  for (const std::string& path : {typed.json, typed.csv, typed.report}) {
    if (path.empty()) continue;
    for (const std::string& other : inputs) {
      if (would_replace(path, other))
        throw UsageError(fmt::format("{} and {} are one file, which only one of them can be", other, path));
    }
    const std::string problem = output_problem(path);
    if (!problem.empty()) throw UsageError(problem);
    inputs.push_back(path);
  }
}

std::vector<Rule> understand_rules(const std::vector<std::string>& texts) {
  std::vector<Rule> rules;
  for (const std::string& text : texts) {
    auto rule = parse_rule(text);
    if (const auto* const problem = std::get_if<std::string>(&rule))
      throw CLI::ValidationError("--fail-if", *problem);
    rules.push_back(std::get<Rule>(std::move(rule)));
  }
  return rules;
}

}  // namespace anteroom::tool
