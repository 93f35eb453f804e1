#include "rules.h"

#include <anteroom/bench/scenario.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "table.h"

namespace anteroom::tool {
namespace {

enum class Unit { kSeconds, kMicroseconds, kShare, kNumber };

constexpr std::string_view kExample = "such as p99>5ms, lost@512>0.1% or refused>0";
constexpr double kMicro = 1e-6;

/// What a row says under the name of a rule.
struct Value {
  std::optional<double> number;
  bool is_lower_bound = false;  ///< the true one is larger
};

struct Name {
  std::string_view name;
  Unit unit;
  std::string_view of_what;  ///< follows the value: "in the worst run"
  Value (*of_row)(const Row&);
};

Value largest(const std::optional<Estimate>& estimate) {
  return {estimate ? std::optional(estimate->largest()) : std::nullopt};
}
Value median(const std::optional<Estimate>& estimate) {
  return {estimate ? std::optional(estimate->median) : std::nullopt};
}

template <Latencies Measured::*kOf, std::optional<double> Latencies::*kPercentile>
Value latency(const Row& row, std::string_view field) {
  const Latencies& latencies = (*row.measured).*kOf;
  return {latencies.*kPercentile, latencies.is_lower_bound(field)};
}

template <Latencies Measured::*kOf>
constexpr std::array<Value (*)(const Row&), 5> kLatencies{
    [](const Row& row) { return latency<kOf, &Latencies::p50>(row, "p50"); },
    [](const Row& row) { return latency<kOf, &Latencies::p90>(row, "p90"); },
    [](const Row& row) { return latency<kOf, &Latencies::p99>(row, "p99"); },
    [](const Row& row) { return latency<kOf, &Latencies::p99_9>(row, "p99_9"); },
    [](const Row& row) { return latency<kOf, &Latencies::max>(row, "max"); }};
constexpr const auto& kFirstByte = kLatencies<&Measured::first_byte>;
constexpr const auto& kConnect = kLatencies<&Measured::connect>;

constexpr std::string_view kVoid = "void";
constexpr std::string_view kRecommended = "recommended";

const std::array<Name, 21> kNames{{
    {"lost", Unit::kShare, "in the worst run", [](const Row& row) { return largest(row.measured->loss()); }},
    {"ghosts", Unit::kNumber, "in the worst run",
     [](const Row& row) { return largest(row.measured->ghosts); }},
    {"overflows", Unit::kNumber, "in the worst run",
     [](const Row& row) { return largest(row.measured->listen_overflows); }},
    {"unserved", Unit::kNumber, "", [](const Row& row) { return Value{row.measured->first_byte.unserved}; }},
    {"unexpected", Unit::kNumber, "",
     [](const Row& row) { return Value{fate(row.measured->fates, "answered_otherwise")}; }},
    {"refused", Unit::kNumber, "",
     [](const Row& row) { return Value{fate(row.measured->fates, "refused")}; }},
    {"resets", Unit::kNumber, "",
     [](const Row& row) {
       return Value{sum(fate(row.measured->fates, "reset_before_accept"),
                        fate(row.measured->fates, "reset_after_accept"))};
     }},
    {"p50", Unit::kSeconds, "", kFirstByte[0]},
    {"p90", Unit::kSeconds, "", kFirstByte[1]},
    {"p99", Unit::kSeconds, "", kFirstByte[2]},
    {"p99.9", Unit::kSeconds, "", kFirstByte[3]},
    {"max", Unit::kSeconds, "", kFirstByte[4]},
    {"connect_p50", Unit::kSeconds, "", kConnect[0]},
    {"connect_p90", Unit::kSeconds, "", kConnect[1]},
    {"connect_p99", Unit::kSeconds, "", kConnect[2]},
    {"connect_p99.9", Unit::kSeconds, "", kConnect[3]},
    {"connect_max", Unit::kSeconds, "", kConnect[4]},
    {"conn/s", Unit::kNumber, "",
     [](const Row& row) { return median(row.measured->connections_per_second); }},
    {"depth", Unit::kNumber, "", [](const Row& row) { return largest(row.measured->deepest_queue); }},
    {"cpu", Unit::kMicroseconds, "a connection",
     [](const Row& row) { return median(row.measured->server_cpu_s_per_connection); }},
    {kVoid, Unit::kNumber, "", [](const Row& row) { return Value{row.void_runs}; }},
}};

/// Of the run as a whole, so no row has it.
constexpr Name kOfTheRun{kRecommended, Unit::kNumber, "", nullptr};

const Name* find_name(std::string_view name) {
  if (name == kRecommended) return &kOfTheRun;
  if (name == "rate") name = "conn/s";
  const auto* const found = std::ranges::find(kNames, name, &Name::name);
  return found == kNames.end() ? nullptr : found;
}

struct Operator {
  std::string_view text;
  Comparison comparison;
  std::string_view in_words;
};
/// The longer first, as > begins >=.
constexpr std::array<Operator, 6> kOperators{{{">=", Comparison::kAtLeast, "at least"},
                                              {"<=", Comparison::kAtMost, "at most"},
                                              {"==", Comparison::kEqual, "equal to"},
                                              {"!=", Comparison::kNotEqual, "not"},
                                              {">", Comparison::kMore, "more than"},
                                              {"<", Comparison::kLess, "less than"}}};

const Operator& operator_of(Comparison comparison) {
  return *std::ranges::find(kOperators, comparison, &Operator::comparison);
}

bool holds(Comparison comparison, double value, double limit) {
  switch (comparison) {
    case Comparison::kMore:
      return value > limit;
    case Comparison::kAtLeast:
      return value >= limit;
    case Comparison::kLess:
      return value < limit;
    case Comparison::kAtMost:
      return value <= limit;
    case Comparison::kEqual:
      return value == limit;
    case Comparison::kNotEqual:
      return value != limit;
  }
  return true;
}

struct Factor {
  std::string_view unit;
  double factor;
};

std::optional<double> factor_of(Unit unit, std::string_view text) {
  static constexpr std::array<Factor, 8> kTimes{{{"ns", 1e-9},
                                                 {"us", kMicro},
                                                 {"µs", kMicro},
                                                 {"ms", 1e-3},
                                                 {"s", 1},
                                                 {"m", 60},
                                                 {"min", 60},
                                                 {"h", 3600}}};
  static constexpr std::array<Factor, 2> kShares{{{"", 1}, {"%", 0.01}}};
  static constexpr std::array<Factor, 4> kNumbers{{{"", 1}, {"k", 1e3}, {"K", 1e3}, {"M", 1e6}}};
  const auto find = [&](const auto& factors) -> std::optional<double> {
    const auto* const found = std::ranges::find(factors, text, &Factor::unit);
    return found == factors.end() ? std::nullopt : std::optional(found->factor);
  };
  if (unit == Unit::kShare) return find(kShares);
  if (unit == Unit::kNumber) return find(kNumbers);
  if (unit == Unit::kMicroseconds && text.empty()) return kMicro;
  std::string lower(text);  // "5MS" is 5 ms, as for every option that takes a time
  std::ranges::transform(lower, lower.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? char(c + 32) : c; });
  text = lower;
  return find(kTimes);
}

/// A number and what stands after it.
struct Quantity {
  double number = 0;
  std::string_view unit;
};

std::optional<Quantity> parse_quantity(std::string_view text) {
  Quantity quantity;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), quantity.number);
  if (error != std::errc{} || !std::isfinite(quantity.number)) return std::nullopt;
  quantity.unit = text.substr(static_cast<std::size_t>(end - text.data()));
  return quantity;
}

std::optional<int> parse_backlog(std::string_view text) {
  if (text == "unlimited") return bench::kUnlimitedBacklog;
  const auto quantity = parse_quantity(text);
  const auto factor = quantity ? factor_of(Unit::kNumber, quantity->unit) : std::nullopt;
  if (!factor) return std::nullopt;
  const double backlog = quantity->number * *factor;
  if (!(backlog >= 0 && backlog <= std::numeric_limits<int>::max()) || backlog != std::floor(backlog)) {
    return std::nullopt;
  }
  return static_cast<int>(backlog);
}

std::string_view wanted(Unit unit) {
  switch (unit) {
    case Unit::kSeconds:
      return "a time with its unit: 5ms, 200us, 1.5s";
    case Unit::kMicroseconds:
      return "a time: 30us, or 30, which is the same";
    case Unit::kShare:
      return "a share: 0.1%, or 0.001, which is the same";
    case Unit::kNumber:
      return "a number from 0 on: 0, 512, 1.5k";
  }
  return "";
}

/// "5 ms", "1.5k": the limit as a sentence has it.
std::string spaced(std::string_view text, Unit unit) {
  const auto quantity = parse_quantity(text);
  if (!quantity || unit == Unit::kNumber) return std::string(text);
  const std::string_view number = text.substr(0, text.size() - quantity->unit.size());
  if (!quantity->unit.empty()) return fmt::format("{} {}", number, quantity->unit);
  return unit == Unit::kMicroseconds && quantity->number != 0 ? fmt::format("{} us", number)
                                                              : std::string(number);
}

/// The limit as a value of the name's unit, or why it is none.
std::variant<double, std::string> parse_limit(const Name& name, std::string_view text) {
  const auto quantity = parse_quantity(text);
  auto factor = quantity ? factor_of(name.unit, quantity->unit) : std::nullopt;
  if (quantity && quantity->number == 0 && quantity->unit.empty()) factor = 1;
  const double limit = factor ? quantity->number * *factor : -1;
  const double most = name.unit == Unit::kShare ? 1 : std::numeric_limits<double>::max();
  if (limit >= 0 && limit <= most) return limit;
  if (name.unit == Unit::kShare && limit > most)
    return fmt::format("\"{}\" is more than all", printable(text, 40));
  return fmt::format("\"{}\" is not {}", printable(text, 40), wanted(name.unit));
}

/// Why the answer is known before anything is measured. Empty if it is not.
std::string foregone(const Name& name, Comparison comparison, double limit) {
  const bool at_floor = limit == 0;
  const bool at_ceiling = name.unit == Unit::kShare && limit == 1;
  if ((at_floor && comparison == Comparison::kLess) || (at_ceiling && comparison == Comparison::kMore)) {
    return "no run can break that";
  }
  if ((at_floor && comparison == Comparison::kAtLeast) || (at_ceiling && comparison == Comparison::kAtMost)) {
    return "every run breaks that";
  }
  return {};
}

std::string without_spaces(std::string_view text) {
  std::string rest;
  std::ranges::copy_if(text, std::back_inserter(rest), [](char c) { return c != ' ' && c != '\t'; });
  return rest;
}

std::string print_seconds(double seconds) {
  constexpr double kLongest = 1e9;  // seconds, as nanoseconds far within 63 bits
  if (seconds > kLongest) return fmt::format("{:.3g} s", seconds);
  return short_duration(std::chrono::nanoseconds(std::llround(seconds * 1e9)), {});
}

std::string print_value(Unit unit, double value) {
  switch (unit) {
    case Unit::kSeconds:
    case Unit::kMicroseconds:
      return print_seconds(value);
    case Unit::kShare:
      return value == 0 ? "0" : fmt::format("{:.3g} %", value * 100);
    case Unit::kNumber:
      break;
  }
  if (value >= 1e15) return fmt::format("{:.3g}", value);
  if (value != std::floor(value)) return fmt::format("{:.1f}", value);
  return with_commas(static_cast<std::uint64_t>(value));
}

/// Of several rows, which one: " of blocking, closed loop" and " at backlog 512".
struct Place {
  std::string whose;
  std::string where;
};

std::string print_at(int backlog) {
  return backlog == bench::kUnlimitedBacklog ? "an unlimited backlog" : "backlog " + print_backlog(backlog);
}

/// One document, and which rows a rule looks at in it.
class Checker {
 public:
  explicit Checker(const RunDocument& run) : run_(run) {
    for (const Row& row : run.rows) {
      several_servers_ |= row.name.server != run.rows.front().name.server;
      several_loops_ |= row.name.loop != run.rows.front().name.loop;
    }
  }

  std::vector<std::string> broken(const Rule& rule) const {
    const Name* const name = find_name(rule.name);
    if (name == nullptr) return {fmt::format("{}: there is no rule on {}", rule.text, rule.name)};
    if (name == &kOfTheRun) return recommended(rule, *name);
    if (name->name == kVoid && !rule.backlog) return void_trials(rule, *name);
    const std::optional<int> backlog = rule.backlog ? rule.backlog : run_.recommended;
    std::vector<std::string> sentences;
    bool found = false;
    for (const Row& row : run_.rows) {
      if (backlog && row.name.backlog != *backlog) continue;
      found = true;
      const bool is_there = row.measured || name->name == kVoid;
      add(judge(rule, *name, is_there ? name->of_row(row) : Value{}, place(row)), sentences);
    }
    if (!found) sentences.push_back(fmt::format("{}: {}", rule.text, why_no_row(rule, backlog)));
    return sentences;
  }

 private:
  static void add(const std::string& sentence, std::vector<std::string>& sentences) {
    if (!sentence.empty()) sentences.push_back(sentence);
  }

  static std::string why_no_row(const Rule& rule, const std::optional<int>& backlog) {
    if (!backlog) return "nothing was measured";
    if (rule.backlog) return print_at(*backlog) + " was not measured";
    return fmt::format("the recommended backlog {} was not measured", print_backlog(*backlog));
  }

  std::vector<std::string> recommended(const Rule& rule, const Name& name) const {
    if (!run_.is_tune) return {fmt::format("{}: a compare recommends nothing", rule.text)};
    if (!run_.recommended) return {fmt::format("{}: nothing is recommended", rule.text)};
    std::vector<std::string> sentences;
    add(judge(rule, name, {static_cast<double>(*run_.recommended)}, {}), sentences);
    return sentences;
  }

  std::vector<std::string> void_trials(const Rule& rule, const Name& name) const {
    if (run_.rows.empty()) return {fmt::format("{}: nothing was measured", rule.text)};
    double sum = 0;
    for (const Row& row : run_.rows) sum += row.void_runs;
    std::vector<std::string> sentences;
    add(judge(rule, name, {sum}, {.where = " in all"}), sentences);
    return sentences;
  }

  /// A sentence, or nothing if the rule is kept.
  static std::string judge(const Rule& rule, const Name& name, const Value& value, const Place& place) {
    const std::string what = fmt::format("{}{}", name.name, place.whose);
    if (!value.number) return fmt::format("{}: {} is not known{}", rule.text, what, place.where);
    const std::string limit =
        fmt::format("{} {}", operator_of(rule.comparison).in_words, rule.limit_text);  // "more than 5 ms"
    const std::string of_what = name.of_what.empty() ? "" : fmt::format(" {}", name.of_what);
    const std::string shown = print_value(name.unit, *value.number) + of_what + place.where;
    if (!value.is_lower_bound) {
      if (!holds(rule.comparison, *value.number, rule.limit)) return {};
      return fmt::format("{} is {}, {}", what, shown, limit);
    }
    // The true value is larger than the one we have: beyond the limit we know all that the rule asks.
    const bool is_beyond = *value.number >= rule.limit;
    const bool asks_for_more = rule.comparison == Comparison::kMore ||
                               rule.comparison == Comparison::kAtLeast ||
                               rule.comparison == Comparison::kNotEqual;
    if (is_beyond && !asks_for_more) return {};
    if (is_beyond) return fmt::format("{} is more than {}, {}", what, shown, limit);
    return fmt::format("{} is only known to be more than {}, so it may be {}", what, shown, limit);
  }

  Place place(const Row& row) const {
    Place place;
    // A swarm tries no backlogs, and knows none beyond loopback.
    if (!run_.is_swarm || row.name.backlog != bench::kUnlimitedBacklog)
      place.where = fmt::format(" at {}", print_at(row.name.backlog));
    if (several_servers_) place.whose = fmt::format(" of {}", row.name.server);
    if (several_loops_)
      place.whose += fmt::format("{} {} loop", several_servers_ ? "," : " of the", row.name.loop);
    return place;
  }

  const RunDocument& run_;
  bool several_servers_ = false;
  bool several_loops_ = false;
};

}  // namespace

std::string rule_names() {
  std::string names;
  for (const Name& name : kNames) names += fmt::format("{} ", name.name);
  return names + std::string(kRecommended);
}

std::string rule_problem(const Rule& rule, const std::vector<int>& backlogs, bool is_tune) {
  if (!is_tune && rule.name == kRecommended)
    return fmt::format("\"{}\": a compare recommends nothing", rule.text);
  if (!rule.backlog || std::ranges::count(backlogs, *rule.backlog) > 0) return {};
  return fmt::format("\"{}\": {} is none of those that are tried", rule.text, print_at(*rule.backlog));
}

std::variant<Rule, std::string> parse_rule(std::string_view text) {
  Rule rule{.text = without_spaces(text)};
  const auto wrong = [&](const std::string& why) {
    return fmt::format("\"{}\": {}; a rule is {}", printable(text, 60), why, kExample);
  };
  const std::size_t at = rule.text.find_first_of("<>=!");
  if (at == rule.text.npos) return wrong("it compares nothing (> >= < <= == !=)");
  const std::string_view rest = std::string_view(rule.text).substr(at);
  const auto* const op =
      std::ranges::find_if(kOperators, [&](const Operator& o) { return rest.starts_with(o.text); });
  if (op == kOperators.end()) return wrong("it compares with none of > >= < <= == !=");
  rule.comparison = op->comparison;
  const std::string_view right = rest.substr(op->text.size());

  const std::string_view left = std::string_view(rule.text).substr(0, at);
  const std::size_t sign = left.find('@');
  const std::string_view typed = left.substr(0, sign);
  const Name* const name = find_name(typed);
  if (name == nullptr) return wrong(fmt::format("\"{}\" is none of {}", printable(typed, 40), rule_names()));
  rule.name = name->name;
  if (sign != left.npos) {
    rule.backlog = parse_backlog(left.substr(sign + 1));
    if (!rule.backlog) {
      return wrong(
          fmt::format("\"{}\" is no backlog: a number, or unlimited", printable(left.substr(sign + 1), 40)));
    }
    if (name == &kOfTheRun) return wrong("the recommended backlog is of the whole run, not of one backlog");
  }
  const auto limit = parse_limit(*name, right);
  if (const auto* const why = std::get_if<std::string>(&limit)) return wrong(*why);
  rule.limit = std::get<double>(limit);
  rule.limit_text = spaced(right, name->unit);
  const std::string why = foregone(*name, rule.comparison, rule.limit);
  if (!why.empty()) return wrong(why);
  return rule;
}

std::vector<std::string> broken_rules(const Json& run, const std::vector<Rule>& rules) {
  const RunDocument document = understand(run);
  const Checker checker(document);
  std::vector<std::string> sentences;
  for (const Rule& rule : rules) {
    for (std::string& sentence : checker.broken(rule)) sentences.push_back(std::move(sentence));
  }
  return sentences;
}

}  // namespace anteroom::tool
