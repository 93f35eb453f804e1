#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "run_document.h"

namespace anteroom::tool {

enum class Comparison { kMore, kAtLeast, kLess, kAtMost, kEqual, kNotEqual };

/// What a run may not be, as `--fail-if` takes it: "p99 > 5ms", "lost@512>0.1%".
///
/// | name | what is compared |
/// |---|---|
/// | `lost` | share of clients that lost their first SYN, became ghosts or were reset early: worst run |
/// | `ghosts`, `overflows` | clients, listen overflows: worst run |
/// | `unserved`, `refused`, `resets` | clients of all runs |
/// | `unexpected` | clients of all runs that were answered otherwise than expected |
/// | `p50` `p90` `p99` `p99.9` `max` | until the first byte: all clients of all runs |
/// | `connect_p50` … `connect_max` | the same, until the socket was writable |
/// | `conn/s`, `rate` | served connections a second: median run |
/// | `depth` | the deepest queue of all runs |
/// | `cpu` | the server's, a served connection: median run; µs if there is no unit |
/// | `void` | trials that do not count, of the whole run or of one backlog |
/// | `recommended` | the recommended backlog: of the whole run |
///
/// A client is reset early if that is before the server has accepted it.
///
/// The number may have a unit that fits the name: ns, us, ms, s for times (which need one, but for 0), % for
/// a share, k and M for the others.
struct Rule {
  std::string text;  ///< as it was written, without spaces
  std::string name;  ///< from the table above
  Comparison comparison = Comparison::kMore;
  double limit = 0;            ///< seconds, share, or number
  std::string limit_text;      ///< with the digits and the unit that were written: "5 ms"
  std::optional<int> backlog;  ///< after the "@"; bench::kUnlimitedBacklog for "unlimited"
};

/// The rule, or in one line what is wrong with it, and an example. What no run can break, or every run does,
/// is no rule either.
std::variant<Rule, std::string> parse_rule(std::string_view text);

/// The names a rule may begin with, with a space between.
std::string rule_names();

/// Why a run of these backlogs could only break that rule, or nothing: it looks at one that is not tried, or
/// asks a compare what it recommends.
std::string rule_problem(const Rule& rule, const std::vector<int>& backlogs, bool is_tune);

/// A sentence for each rule and row that breaks it; empty if all are kept. A rule with a backlog looks at the
/// rows of that one; without, at those of the recommended backlog; and at every row if nothing is
/// recommended, as in a compare. Broken is also a rule that finds no row, or no number in it, or a latency of
/// which too little is known: it was there to make sure. Throws RunDocumentError.
std::vector<std::string> broken_rules(const Json& run, const std::vector<Rule>& rules);

}  // namespace anteroom::tool
