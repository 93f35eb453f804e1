// anteroom report and anteroom diff, as they are typed.
#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "old_runs.h"
#include "output.h"
#include "output_options.h"
#include "verb.h"

namespace anteroom::tool {
namespace {

struct TypedReport {
  OldRun run;
  std::vector<std::string> fail_if;
};

}  // namespace

Verb add_report(CLI::App& tool) {
  const auto typed = std::make_shared<TypedReport>();
  CLI::App* const app = tool.add_subcommand("report", "Draw an old run");
  app->add_option("FILE", typed->run.path, "What --json wrote; - is the standard input")->required();
  CLI::Option* const page = app->add_option("-o,--output", typed->run.page,
                                            "The page (default: FILE with .html; - is the standard output)");
  app->add_option("--csv", typed->run.csv,
                  "Write the table to this file, comma-separated, instead of the page");
  app->add_option(
         "--fail-if", typed->fail_if,
         "As of tune; no page is written then. Exit status 3 if nothing is broken but the run is not "
         "to be trusted")
      ->take_all()
      ->allow_extra_args(false);
  app->footer(
      "Examples:\n  anteroom report run.json\n  anteroom report run.json --csv -\n"
      "  anteroom report run.json --fail-if 'p99>5ms'");
  return {.app = app,
          .understand =
              [typed, page] {
                if (page->count() > 0 && !(typed->run.csv.empty() && typed->fail_if.empty()))
                  throw CLI::ArgumentMismatch(
                      "report writes no page with --csv or --fail-if, so --output says nothing");
                typed->run.fail_if = understand_rules(typed->fail_if);
                typed->run.page = output_name(typed->run.page);
                typed->run.csv = output_name(typed->run.csv);
              },
          .run = [typed](const Invocation&) { return report(typed->run); },
          .heeds_interrupt = false};
}

Verb add_diff(CLI::App& tool) {
  const auto runs = std::make_shared<OldRuns>();
  CLI::App* const app = tool.add_subcommand("diff", "What changed from one run to another");
  app->add_option("OLD", runs->before, "What --json wrote")->required();
  app->add_option("NEW", runs->after, "What --json wrote")->required();
  app->add_option("--json", runs->json, "Write it to this file instead; - is the standard output");
  app->footer(
      "Examples:\n  anteroom diff before.json after.json\n\n"
      "Exit status is 0 also when something got worse: the verdicts are in what --json writes.");
  return {.app = app,
          .understand = [runs] { runs->json = output_name(runs->json); },
          .run = [runs](const Invocation&) { return diff(*runs); },
          .heeds_interrupt = false};
}

}  // namespace anteroom::tool
