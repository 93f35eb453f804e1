#include "diff.h"

#include <anteroom/bench/scenario.h>
#include <anteroom/bench/statistics.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>
#include <vector>

#include "curve.h"
#include "table.h"

namespace anteroom::tool {
namespace {

constexpr double kAlpha = 0.05;
/// Beyond this, more runs are no advice.
constexpr std::size_t kRunsNeededMax = 100;
/// What a kernel keeps for itself differs from boot to boot.
constexpr double kSameMemory = 0.01;
constexpr std::size_t kWidthOfOneLine = 68;
constexpr std::size_t kWidthWithP = 92;

/// A number that is compared: where a row has it, and where a trial has.
struct Metric {
  const char* field;
  const char* heading;
  bool more_is_better;
  std::optional<double> (*of_row)(const Measured&);
  std::optional<double> Trial::*of_trial;
  std::string (*print)(double, const Terminal&);
};

std::optional<double> median_of(const std::optional<Estimate>& estimate) {
  return estimate ? std::optional(estimate->median) : std::nullopt;
}

/// 12,345, and the tenths of what is small.
std::string print_number(double value) {
  if (value >= 1e15) return fmt::format("{:.3g}", value);
  if (value != std::floor(value) && value < 100) return fmt::format("{:.1f}", value);
  return with_commas(static_cast<std::uint64_t>(std::llround(value)));
}

std::string print_seconds(double seconds, const Terminal& terminal) {
  constexpr double kLongest = 1e9;  // seconds, as nanoseconds far within 63 bits
  if (seconds > kLongest) return fmt::format("{:.3g} s", seconds);
  return short_duration(std::chrono::nanoseconds(std::llround(seconds * 1e9)), terminal);
}

constexpr std::string_view kTurnedAway = "turned_away";
constexpr std::string_view kLostFirstSyn = "lost_first_syn";

const std::array<Metric, 7> kMetrics{{
    {kTurnedAway.data(), "turned away", false, [](const Measured& row) { return median_of(row.turned_away); },
     &Trial::turned_away, [](double value, const Terminal&) { return share(value); }},
    {kLostFirstSyn.data(), "lost 1st SYN", false,
     [](const Measured& row) { return median_of(row.lost_first_syn); }, &Trial::lost_first_syn,
     [](double value, const Terminal&) { return share(value); }},
    {"first_byte_p99_s", "first byte p99", false, [](const Measured& row) { return row.first_byte.p99; },
     &Trial::first_byte_p99_s, print_seconds},
    {"connections_per_second", "conn/s", true,
     [](const Measured& row) { return median_of(row.connections_per_second); },
     &Trial::connections_per_second, [](double value, const Terminal&) { return print_number(value); }},
    {"deepest_queue", "deepest queue", false,
     [](const Measured& row) { return median_of(row.deepest_queue); }, &Trial::deepest_queue,
     [](double value, const Terminal&) { return print_number(value); }},
    {"server_cpu_s_per_connection", "CPU/conn", false,
     [](const Measured& row) { return median_of(row.server_cpu_s_per_connection); },
     &Trial::server_cpu_s_per_connection, print_seconds},
    {"ghosts", "ghosts", false, [](const Measured& row) { return median_of(row.ghosts); }, &Trial::ghosts,
     [](double value, const Terminal&) { return print_number(value); }},
}};

const Metric& metric_of(const Change& change) {
  return *std::ranges::find_if(kMetrics, [&](const Metric& metric) { return metric.field == change.metric; });
}

struct ByName {
  bool operator()(const RowName& a, const RowName& b) const {
    return std::tie(a.server, a.loop, a.backlog) < std::tie(b.server, b.loop, b.backlog);
  }
};

/// The trials of a run that count, found by their names: a document may have thousands of rows and trials.
class Trials {
 public:
  explicit Trials(const RunDocument& run) {
    for (const Trial& trial : run.trials) {
      if (!trial.is_void) by_name_[trial.name].push_back(&trial);
    }
  }

  std::vector<double> values_of(const RowName& name, const Metric& metric) const {
    std::vector<double> values;
    const auto found = by_name_.find(name);
    if (found == by_name_.end()) return values;
    for (const Trial* trial : found->second) {
      if (trial->*metric.of_trial) values.push_back(*(trial->*metric.of_trial));
    }
    return values;
  }

 private:
  std::map<RowName, std::vector<const Trial*>, ByName> by_name_;
};

/// Of runs that do not overlap: no other order has a smaller p.
double smallest_p(std::size_t runs_before, std::size_t runs_after) {
  std::vector<double> low;
  std::vector<double> high;
  for (std::size_t i = 0; i < runs_before; ++i) low.push_back(static_cast<double>(i));
  for (std::size_t i = 0; i < runs_after; ++i) high.push_back(static_cast<double>(runs_before + i));
  return low.empty() || high.empty() ? 1 : bench::mann_whitney_p(low, high);
}

/// Above 0 if the values went up: of all pairs of an old and a new one, those that went up less those that
/// went down.
int direction(const std::vector<double>& before, std::vector<double> after) {
  std::ranges::sort(after);
  std::ptrdiff_t ups = 0;
  for (const double old : before) {
    const auto [same, above] = std::equal_range(after.begin(), after.end(), old);
    ups += (after.end() - above) - (same - after.begin());
  }
  return ups > 0 ? 1 : ups < 0 ? -1 : 0;
}

/// A change that is tested, and what it needs to become one that is told.
struct Test {
  Change* change;
  int direction;
  double smallest_p;
};

Verdict verdict_of(const Test& test, std::size_t tests_left) {
  const Change& change = *test.change;
  if (!(*change.p_holm < kAlpha)) {
    const bool could_have = test.smallest_p * static_cast<double>(tests_left) < kAlpha;
    return could_have ? Verdict::kNoChangeSeen : Verdict::kTooFewRuns;
  }
  // The row has the latency of all clients, the test that of each run: where they disagree nothing is seen.
  const bool contradicts = change.before && change.after &&
                           (*change.after - *change.before) * static_cast<double>(test.direction) < 0;
  if (contradicts || test.direction == 0) return Verdict::kNoChangeSeen;
  return (test.direction > 0) == metric_of(change).more_is_better ? Verdict::kBetter : Verdict::kWorse;
}

/// With so many runs of each, runs that do not overlap pass as one of so many tests.
std::size_t runs_needed_for(std::size_t tests) {
  for (std::size_t runs = 1; runs < kRunsNeededMax; ++runs) {
    if (smallest_p(runs, runs) * static_cast<double>(tests) < kAlpha) return runs;
  }
  return kRunsNeededMax;
}

bool all_equal(const std::vector<double>& a, const std::vector<double>& b) {
  const auto is_first = [&](double value) { return value == a.front(); };
  return std::ranges::all_of(a, is_first) && std::ranges::all_of(b, is_first);
}

/// Gives each change its p and its verdict. Those whose values are all the same are in no test, and so make
/// the others no weaker.
void judge(Diff& diff, const RunDocument& before, const RunDocument& after) {
  std::vector<Test> tests;
  const Trials trials_before(before);
  const Trials trials_after(after);
  std::size_t untested = 0;  // for too few runs, that could be tested with more
  for (RowDiff& row : diff.rows) {
    for (Change& change : row.changes) {
      const Metric& metric = metric_of(change);
      const std::vector<double> old = trials_before.values_of(row.name, metric);
      const std::vector<double> now = trials_after.values_of(row.name, metric);
      change.runs_before = old.size();
      change.runs_after = now.size();
      if (!change.before || !change.after) {
        change.verdict = Verdict::kNotKnown;
        continue;
      }
      const bool is_known = !old.empty() && !now.empty();
      const bool varies = !is_known || !all_equal(old, now);
      if (is_known) change.p = bench::mann_whitney_p(old, now);
      const double least = smallest_p(old.size(), now.size());
      if (least < kAlpha && varies) {
        tests.push_back({&change, direction(old, now), least});
      } else if (least < kAlpha) {
        change.verdict = Verdict::kNoChangeSeen;
      } else if (varies) {
        ++untested;
      }
    }
  }
  std::vector<double> p;
  p.reserve(tests.size());
  for (const Test& test : tests) p.push_back(*test.change->p);
  const std::vector<double> adjusted = bench::holm(p);
  for (std::size_t i = 0; i < tests.size(); ++i) tests[i].change->p_holm = adjusted[i];
  // Holm steps down: who has not passed was held against as many tests as had not passed.
  const auto passed = std::ranges::count_if(adjusted, [](double value) { return value < kAlpha; });
  const std::size_t tests_left = tests.size() - static_cast<std::size_t>(passed);
  for (const Test& test : tests) test.change->verdict = verdict_of(test, tests_left);

  const auto too_few = static_cast<std::size_t>(
      std::ranges::count(tests, Verdict::kTooFewRuns, [](const Test& test) { return test.change->verdict; }));
  if (too_few + untested > 0) diff.runs_needed = runs_needed_for(tests.size() + untested);
}

bool is_same(const Condition& before, const Condition& after) {
  if (before.value == after.value) return true;
  if (!before.number || !after.number) return false;
  const double tolerance =
      before.field == "machine.memory_bytes" ? kSameMemory * std::abs(*before.number) : 0;
  return std::abs(*before.number - *after.number) <= tolerance;  // 5000 and 5000.0 are one
}

std::vector<ConditionDiff> differing(const std::vector<Condition>& before,
                                     const std::vector<Condition>& after) {
  const std::string none = "not there";
  std::vector<ConditionDiff> conditions;
  for (const Condition& old : before) {
    const auto now = std::ranges::find(after, old.field, &Condition::field);
    if (now == after.end()) {
      conditions.push_back({old.field, old.value, none});
    } else if (!is_same(old, *now)) {
      conditions.push_back({old.field, old.value, now->value});
    }
  }
  for (const Condition& now : after) {
    if (std::ranges::find(before, now.field, &Condition::field) == before.end()) {
      conditions.push_back({now.field, none, now.value});
    }
  }
  return conditions;
}

Change change_of(const Metric& metric, const Row& before, const Row& after) {
  Change change{.metric = metric.field};
  const auto is_bound = [&](const Row& row) {
    return metric.of_trial == &Trial::first_byte_p99_s && row.measured &&
           row.measured->first_byte.is_lower_bound("p99");
  };
  if (before.measured) change.before = metric.of_row(*before.measured);
  if (after.measured) change.after = metric.of_row(*after.measured);
  change.before_is_lower_bound = is_bound(before);
  change.after_is_lower_bound = is_bound(after);
  return change;
}

bool tells_who_was_turned_away(const RunDocument& run) {
  return std::ranges::any_of(run.rows,
                             [](const Row& row) { return row.measured && row.measured->turned_away; });
}

/// The rows by their names; of several that have one name the first.
std::map<RowName, const Row*, ByName> named_rows(const RunDocument& run) {
  std::map<RowName, const Row*, ByName> rows;
  for (const Row& row : run.rows) rows.emplace(row.name, &row);
  return rows;
}

/// The loss is one metric, not two: who was turned away, but for older runs, which know only of lost SYNs.
void match_rows(Diff& diff, const RunDocument& before, const RunDocument& after) {
  const std::string_view other_loss =
      tells_who_was_turned_away(before) && tells_who_was_turned_away(after) ? kLostFirstSyn : kTurnedAway;
  const auto rows_before = named_rows(before);
  const auto rows_after = named_rows(after);
  for (const Row& old : before.rows) {
    if (rows_before.at(old.name) != &old) continue;
    const auto now = rows_after.find(old.name);
    if (now == rows_after.end()) {
      diff.only_before.push_back(old.name);
      continue;
    }
    RowDiff& row = diff.rows.emplace_back();
    row.name = old.name;
    for (const Metric& metric : kMetrics) {
      if (metric.field != other_loss) row.changes.push_back(change_of(metric, old, *now->second));
    }
  }
  for (const Row& now : after.rows) {
    if (rows_after.at(now.name) == &now && !rows_before.contains(now.name))
      diff.only_after.push_back(now.name);
  }
}

RunDocument understand_one(const Json& run, const char* which) {
  try {
    return understand(run);
  } catch (const RunDocumentError& error) {
    throw RunDocumentError(fmt::format("the {} run: {}", which, error.what()));
  }
}

/// What is written where, and how: a line that is never wider than the terminal.
class Page {
 public:
  explicit Page(const Terminal& terminal) : terminal_(terminal), arrow_(terminal.utf8 ? "→" : "->") {}

  std::string arrow(const std::string& before, const std::string& after) const {
    return fmt::format("{} {} {}", before, arrow_, after);
  }
  void line(const std::string& text) { text_ += clip(text) + '\n'; }
  void bold(const std::string& text) { text_ += terminal_.bold(clip(text)) + '\n'; }
  void verdict(const std::string& text, Verdict verdict) {
    const std::string clipped = clip(text);
    text_ += verdict == Verdict::kWorse    ? terminal_.red(clipped)
             : verdict == Verdict::kBetter ? terminal_.bold(clipped)
                                           : clipped;
    text_ += '\n';
  }
  void paragraph(const std::string& text) { text_ += wrapped(text, columns()); }
  void blank() { text_ += '\n'; }
  std::string text() && { return std::move(text_); }
  std::size_t columns() const { return static_cast<std::size_t>(std::max(terminal_.columns, 1)); }
  const Terminal& terminal() const { return terminal_; }

 private:
  std::string clip(const std::string& text) const { return clipped(text, columns()); }

  const Terminal& terminal_;
  std::string arrow_;
  std::string text_;
};

std::string pad(std::string_view text, std::size_t width) {
  const std::size_t has = display_width(text);
  return std::string(text) + std::string(width > has ? width - has : 0, ' ');
}

std::string in_words(const RowName& row, bool is_of_swarms) {
  const bool has_none = row.backlog == bench::kUnlimitedBacklog;
  const std::string backlog = !has_none      ? "backlog " + print_backlog(row.backlog)
                              : is_of_swarms ? "a backlog that is not known"
                                             : "unlimited backlog";
  return fmt::format("{}, {} loop, {}", row.server, row.loop, backlog);
}

std::string print_value(const std::optional<double>& value, bool is_lower_bound, const Metric& metric,
                        const Terminal& terminal) {
  if (!value) return "not known";
  return (is_lower_bound ? ">" : "") + metric.print(*value, terminal);
}

std::string print_p(const Change& change) {
  const double p = change.p_holm.value_or(*change.p);
  return p < 0.001 ? "p <0.001" : fmt::format("p {:.3f}", p);
}

bool is_the_same(const Change& change) {
  return change.before && change.before == change.after && !change.before_is_lower_bound &&
         !change.after_is_lower_bound && change.verdict != Verdict::kBetter &&
         change.verdict != Verdict::kWorse;
}

void print_row(const RowDiff& row, bool is_of_swarms, Page& page) {
  page.blank();
  page.line(in_words(row.name, is_of_swarms));
  std::vector<std::string> same;
  for (const Change& change : row.changes) {
    const Metric& metric = metric_of(change);
    const auto print = [&](const std::optional<double>& value, bool is_lower_bound) {
      return print_value(value, is_lower_bound, metric, page.terminal());
    };
    const std::string before = print(change.before, change.before_is_lower_bound);
    if (is_the_same(change)) {
      same.push_back(fmt::format("{} {}", metric.heading, before));
      continue;
    }
    const auto ratio = change.ratio();
    const std::string ratio_text = ratio ? fmt::format("x{:.3g}", *ratio) : "";
    const std::string values = page.arrow(before, print(change.after, change.after_is_lower_bound));
    if (page.columns() < kWidthOfOneLine) {
      page.verdict(fmt::format("  {}: {}", metric.heading, name(change.verdict)), change.verdict);
      page.line(fmt::format("    {}  {}", values, ratio_text));
      continue;
    }
    std::string line = fmt::format("  {}  {}  {}  {}", pad(metric.heading, 14), pad(values, 18),
                                   pad(ratio_text, 6), pad(name(change.verdict), 19));
    if (change.p && page.columns() >= kWidthWithP) {
      line += fmt::format("  {}, {} and {} runs", print_p(change), change.runs_before, change.runs_after);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    page.verdict(line, change.verdict);
  }
  if (!same.empty()) page.paragraph(fmt::format("  the same: {}", fmt::join(same, ", ")));
}

void print_conditions(const Diff& diff, Page& page) {
  if (diff.version_before != diff.version_after) {
    page.line("anteroom " + page.arrow(diff.version_before, diff.version_after));
  }
  if (diff.is_comparable()) {
    page.paragraph("Load, machine and network are the same.");
    return;
  }
  page.paragraph("These runs may not be compared: what differs below may come from what was different here.");
  std::size_t longest = 0;
  for (const ConditionDiff& condition : diff.conditions) longest = std::max(longest, condition.field.size());
  for (const ConditionDiff& condition : diff.conditions) {
    page.line(fmt::format("  {}  {}", pad(condition.field, std::min(longest, page.columns() / 2)),
                          page.arrow(condition.before, condition.after)));
  }
}

std::string recommended_in_words(const std::optional<int>& backlog) {
  return backlog ? print_backlog(*backlog) : "none";
}

void print_recommended(const Diff& diff, Page& page) {
  if (!diff.both_are_tunes) return;
  page.blank();
  const std::string before = recommended_in_words(diff.recommended_before);
  const std::string after = recommended_in_words(diff.recommended_after);
  page.bold("recommended backlog: " + (before == after ? before + ", as before" : page.arrow(before, after)));
  if (diff.target_loss_before != diff.target_loss_after) {
    const auto print = [](const std::optional<double>& loss) {
      return loss ? fmt::format("{:.3g} %", *loss * 100) : std::string("none");
    };
    page.paragraph(fmt::format("  for another target: {} may lose their first SYN",
                               page.arrow(print(diff.target_loss_before), print(diff.target_loss_after))));
  }
}

void print_only(const std::vector<RowName>& rows, const char* which, bool is_of_swarms, Page& page) {
  if (rows.empty()) return;
  page.blank();
  std::string names;
  const RowName* last = nullptr;
  for (const RowName& row : rows) {
    const bool is_like_last = last != nullptr && row.server == last->server && row.loop == last->loop;
    names += last == nullptr ? "" : is_like_last ? ", " : "; ";
    names += is_like_last ? print_backlog(row.backlog) : in_words(row, is_of_swarms);
    last = &row;
  }
  page.paragraph(fmt::format("only in the {} run: {}", which, names));
}

Json row_name_json(const RowName& row) {
  return {{"server", row.server},
          {"loop", row.loop},
          {"backlog", row.backlog == bench::kUnlimitedBacklog ? Json(nullptr) : Json(row.backlog)}};
}

Json or_null(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

Json recommended_json(const std::optional<int>& backlog) { return backlog ? Json(*backlog) : Json(nullptr); }

Json change_json(const Change& change) {
  return {{"metric", change.metric},
          {"before", or_null(change.before)},
          {"after", or_null(change.after)},
          {"ratio", or_null(change.ratio())},
          {"before_is_lower_bound", change.before_is_lower_bound},
          {"after_is_lower_bound", change.after_is_lower_bound},
          {"runs_before", change.runs_before},
          {"runs_after", change.runs_after},
          {"p", or_null(change.p)},
          {"p_holm", or_null(change.p_holm)},
          {"verdict", name(change.verdict)}};
}

Json names_json(const std::vector<RowName>& rows) {
  Json names = Json::array();
  for (const RowName& row : rows) names.push_back(row_name_json(row));
  return names;
}

}  // namespace

std::string_view name(Verdict verdict) noexcept {
  switch (verdict) {
    case Verdict::kBetter:
      return "better";
    case Verdict::kWorse:
      return "worse";
    case Verdict::kNoChangeSeen:
      return "no change seen";
    case Verdict::kTooFewRuns:
      return "too few runs to say";
    case Verdict::kNotKnown:
      return "not known";
  }
  return "?";
}

std::optional<double> Change::ratio() const {
  if (!before || !after || *before == 0 || before_is_lower_bound || after_is_lower_bound) return std::nullopt;
  const double ratio = *after / *before;
  return std::isfinite(ratio) ? std::optional(ratio) : std::nullopt;
}

Diff diff(const Json& before, const Json& after) {
  const RunDocument old = understand_one(before, "old");
  const RunDocument now = understand_one(after, "new");
  Diff diff{.version_before = old.version, .version_after = now.version};
  diff.conditions = differing(old.conditions, now.conditions);
  match_rows(diff, old, now);
  judge(diff, old, now);
  diff.is_of_swarms = old.is_swarm || now.is_swarm;
  diff.both_are_tunes = old.is_tune && now.is_tune;
  diff.recommended_before = old.recommended;
  diff.recommended_after = now.recommended;
  diff.target_loss_before = old.target_loss;
  diff.target_loss_after = now.target_loss;
  return diff;
}

std::string print_diff(const Diff& diff, const Terminal& terminal) {
  Page page(terminal);
  print_conditions(diff, page);
  print_recommended(diff, page);
  for (const RowDiff& row : diff.rows) print_row(row, diff.is_of_swarms, page);
  if (diff.rows.empty()) page.paragraph("No server at no backlog is in both runs.");
  print_only(diff.only_before, "old", diff.is_of_swarms, page);
  print_only(diff.only_after, "new", diff.is_of_swarms, page);
  if (diff.runs_needed > 0) {
    page.blank();
    page.paragraph(
        fmt::format("Too few runs to say: so many comparisons at once need {} or more runs of each (--repeat "
                    "{}) in both.",
                    diff.runs_needed, diff.runs_needed));
  }
  return std::move(page).text();
}

Json diff_json(const Diff& diff) {
  Json json{{"schema", "anteroom.diff/1"}, {"comparable", diff.is_comparable()}};
  json["conditions"] = Json::array();
  for (const ConditionDiff& condition : diff.conditions) {
    json["conditions"].push_back(
        {{"field", condition.field}, {"before", condition.before}, {"after", condition.after}});
  }
  json["version"] = {{"before", diff.version_before}, {"after", diff.version_after}};
  if (diff.both_are_tunes) {
    json["recommended"] = {{"before", recommended_json(diff.recommended_before)},
                           {"after", recommended_json(diff.recommended_after)}};
    json["target_loss"] = {{"before", or_null(diff.target_loss_before)},
                           {"after", or_null(diff.target_loss_after)}};
  }
  json["rows"] = Json::array();
  for (const RowDiff& row : diff.rows) {
    Json changes = Json::array();
    for (const Change& change : row.changes) changes.push_back(change_json(change));
    Json in_row = row_name_json(row.name);
    in_row["changes"] = std::move(changes);
    json["rows"].push_back(std::move(in_row));
  }
  json["only_before"] = names_json(diff.only_before);
  json["only_after"] = names_json(diff.only_after);
  json["runs_needed"] = diff.runs_needed;
  return json;
}

}  // namespace anteroom::tool
