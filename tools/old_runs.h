#pragma once
#include <string>
#include <vector>

#include "rules.h"
#include "tune.h"

namespace anteroom::tool {

/// `anteroom report`.
struct OldRun {
  std::string path;
  std::string page;  ///< empty: beside it, as .html
  std::string csv;   ///< instead of the page, if not empty
  std::vector<Rule> fail_if;
};

/// `anteroom diff`.
struct OldRuns {
  std::string before;
  std::string after;
  std::string json;  ///< instead of the text, if not empty
};

/// Draws a run as a page, or writes its table, or looks whether it breaks a rule, which a run that is not to
/// be trusted cannot say. Returns the exit status.
int report(const OldRun& run);

/// Tells what changed. Returns the exit status.
int diff(const OldRuns& runs);

}  // namespace anteroom::tool
