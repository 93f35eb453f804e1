#include "old_runs.h"

#include <fmt/format.h>
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
  const std::string problem = write_output(path, text);
  if (!problem.empty()) {
    fmt::print(stderr, "anteroom: {}\n", problem);
    return kCouldNotRun;
  }
  return kDone;
}

int refuse_document(const RunDocumentError& error) {
  fmt::print(stderr, "anteroom: {}\n", error.what());
  return kUsage;
}

std::string page_of(const OldRun& run) {
  if (!run.page.empty()) return run.page;
  if (run.path == "-") return "-";
  return std::filesystem::path(run.path).replace_extension(".html").string();
}

}  // namespace

int report(const OldRun& run) try {
  const Json document = read_run(run.path);
  if (!run.fail_if.empty()) {
    const std::vector<std::string> broken = broken_rules(document, run.fail_if);
    for (const std::string& sentence : broken) fmt::print(stderr, "anteroom: {}\n", sentence);
    if (run.csv.empty()) return broken.empty() ? kDone : kRuleBroken;
    const int status = write(run.csv, csv(document));
    return status == kDone && !broken.empty() ? kRuleBroken : status;
  }
  if (!run.csv.empty()) return write(run.csv, csv(document));
  const std::string page = page_of(run);
  const int status = write(page, report_html(print(document)));
  if (status == kDone && page != "-") fmt::print("{}\n", page);
  return status;
} catch (const RunDocumentError& error) {
  return refuse_document(error);
}

int diff(const OldRuns& runs) try {
  const Json before = read_run(runs.before);
  const Diff changes = diff(before, read_run(runs.after));
  if (!runs.json.empty()) return write(runs.json, print(diff_json(changes)));
  return write("-", print_diff(changes, Terminal::of(STDOUT_FILENO)));
} catch (const RunDocumentError& error) {
  return refuse_document(error);
}

}  // namespace anteroom::tool
