#pragma once
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "run_document.h"
#include "terminal.h"

namespace anteroom::tool {

enum class Verdict {
  kBetter,
  kWorse,
  kNoChangeSeen,
  kTooFewRuns,  ///< even runs that do not overlap at all could not have shown a change
  kNotKnown,    ///< it was not measured in one of the two, or in neither
};
std::string_view name(Verdict verdict) noexcept;

/// One metric of one row, in the old run and in the new one.
struct Change {
  std::string metric;  ///< its field in the document, `first_byte_p99_s` for the latency
  std::optional<double> before;
  std::optional<double> after;
  bool before_is_lower_bound = false;  ///< only known to be larger
  bool after_is_lower_bound = false;
  std::size_t runs_before = 0;  ///< trials that count and have the metric
  std::size_t runs_after = 0;
  std::optional<double> p;       ///< Mann-Whitney, two-sided, of the trials' values; nothing without any
  std::optional<double> p_holm;  ///< adjusted for all that are tested between these two runs
  Verdict verdict = Verdict::kTooFewRuns;

  std::optional<double> ratio() const;  ///< after / before; nothing if that is no number
};

struct RowDiff {
  RowName name;
  std::vector<Change> changes;
};

/// Something that was given to the runs, and not the same to both.
struct ConditionDiff {
  std::string field;
  std::string before;  ///< "not there" if only the other has it
  std::string after;
};

/// What changed from one run to another.
struct Diff {
  std::string version_before;
  std::string version_after;
  /// In load, machine, network, sysctls and target. If there are any, a change in a row may come from them.
  std::vector<ConditionDiff> conditions;
  std::vector<RowDiff> rows;  ///< those in both
  std::vector<RowName> only_before;
  std::vector<RowName> only_after;
  bool is_of_swarms = false;    ///< one at least, whose row without a backlog has one that is not known
  bool both_are_tunes = false;  ///< else the rest says nothing
  std::optional<int> recommended_before;
  std::optional<int> recommended_after;
  std::optional<double> target_loss_before;
  std::optional<double> target_loss_after;
  /// So many runs of each row, in both, could have shown every change that is now `too few runs to say`;
  /// 0 if there is none.
  std::size_t runs_needed = 0;

  bool is_comparable() const noexcept { return conditions.empty(); }
};

/// Compares two runs, the old one first. Whether a change is more than noise is asked of the trials that
/// count, with the test of Mann and Whitney for each metric of each row in both runs, and Holm's adjustment
/// over all of these tests at once: if nothing has changed, the chance that anything here is called better
/// or worse is at most 5 %. A metric that has one and the same value in all trials is not tested. A change
/// is `too few runs to say` if even the smallest p that so many runs can have would not pass: two times
/// three runs never do, as their smallest p is 0.1. What one of them has not measured is `not known`.
///
/// Throws RunDocumentError, which says which of the two it is about.
Diff diff(const Json& before, const Json& after);

std::string print_diff(const Diff& diff, const Terminal& terminal);

/// The same as `anteroom.diff/1`: `comparable`, `conditions` (`field`, `before`, `after`), `version` and, of
/// two tunes, `recommended` and `target_loss` (each `before`, `after`), `rows` (`server`, `loop`, `backlog`,
/// `changes`: the fields of Change, and `ratio`), `only_before`, `only_after`, `runs_needed`. What is not
/// known is null, as is an unlimited backlog.
Json diff_json(const Diff& diff);

}  // namespace anteroom::tool
