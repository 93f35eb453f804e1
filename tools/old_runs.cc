#include "old_runs.h"

#include <fmt/format.h>
#include <standard_streams.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "csv.h"
#include "diff.h"
#include "json.h"
#include "output.h"
#include "report.h"
#include "run_document.h"

namespace anteroom::tool {
namespace {

/// Writes, and says so if nobody would know where. Returns the exit status.
int write(const std::string& path, const std::string& text) {
  const std::string problem = write_output(path, text);  // a full disk is found out only now
  if (!problem.empty()) {
    print_error("anteroom: {}\n", problem);
    return kCouldNotRun;
  }
  return kDone;
}

int refuse_document(const RunDocumentError& error) {
  print_error("anteroom: {}\n", error.what());
  return kUsage;
}

/// Says why nothing can be written there, or that this would destroy what is read; empty if it can.
std::string problem_with(const std::string& output, const std::vector<std::string>& inputs) {
  for (const std::string& input : inputs) {
    if (would_replace(output, input))
      return fmt::format("{} would be written over {}, which is read", printable(output),
                         name_of_file(input));
  }
  return output_problem(output);
}

int refuse_output(const std::string& problem) {
  print_error("anteroom: {}\n", problem);
  return kUsage;
}

/// Why rules that are kept prove nothing; empty if they do.
std::string why_not_trusted(const RunDocument& run) {
  if (run.interrupted) return "the run was interrupted: not to be trusted";
  if (run.is_tune && !run.recommended) return "the run recommends nothing: not to be trusted";
  if (run.confirmed == false) return "no trial has confirmed the recommendation: not to be trusted";
  return {};
}

int hold_rules_against(const Json& document, const std::vector<Rule>& rules) {
  const std::vector<std::string> broken = broken_rules(document, rules);
  for (const std::string& sentence : broken) print_error("anteroom: {}\n", sentence);
  if (!broken.empty()) return kRuleBroken;
  const std::string why = why_not_trusted(understand(document));
  if (why.empty()) return kDone;
  print_error("anteroom: {}\n", why);
  return kNotToBeTrusted;
}

std::string page_of(const OldRun& run) {
  if (!run.page.empty()) return run.page;
  if (run.path == "-") return "-";
  return std::filesystem::path(run.path).replace_extension(".html").string();
}

}  // namespace

int report(const OldRun& run) try {
  const Json document = read_run(run.path);
  const bool draws = run.fail_if.empty() && run.csv.empty();
  const std::string page = page_of(run);
  if (const std::string& output = draws ? page : run.csv; !output.empty()) {
    const std::string problem = problem_with(output, {run.path});
    if (!problem.empty()) return refuse_output(problem);
  }
  if (!draws) {
    const int status = run.csv.empty() ? int{kDone} : write(run.csv, csv(document));
    return status != kDone || run.fail_if.empty() ? status : hold_rules_against(document, run.fail_if);
  }
  const int status = write(page, report_html(print(document)));
  if (status == kDone && page != "-") fmt::print("{}\n", page);
  return status;
} catch (const RunDocumentError& error) {
  return refuse_document(error);
}

int diff(const OldRuns& runs) try {
  const Json before = read_run(runs.before);
  const Diff changes = diff(before, read_run(runs.after));
  if (!runs.json.empty()) {
    const std::string problem = problem_with(runs.json, {runs.before, runs.after});
    return problem.empty() ? write(runs.json, print(diff_json(changes))) : refuse_output(problem);
  }
  return write("-", print_diff(changes, Terminal::of(STDOUT_FILENO)));
} catch (const RunDocumentError& error) {
  return refuse_document(error);
}

}  // namespace anteroom::tool
