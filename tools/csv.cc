#include "csv.h"

#include <anteroom/bench/scenario.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

namespace anteroom::tool {
namespace {

std::string quoted(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == text.npos) return text;
  std::string field = "\"";
  for (const char c : text) field += c == '"' ? std::string("\"\"") : std::string(1, c);
  return field + '"';
}

/// What a spreadsheet would run as a formula (https://owasp.org/www-community/attacks/CSV_Injection): an
/// apostrophe before it makes it a text.
std::string as_text(const std::string& text) {
  constexpr std::array<std::string_view, 10> kBegins{"=",  "+",      "-",      "@",      "\t",
                                                     "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20"};
  const bool is_formula =
      std::ranges::any_of(kBegins, [&](std::string_view begin) { return text.starts_with(begin); });
  return is_formula ? "'" + text : text;
}

/// One line as it grows: the header's names and the values are said in one place, so they cannot part.
class Line {
 public:
  void text(std::string name, const std::string& value) {
    names_.push_back(std::move(name));
    values_.push_back(quoted(as_text(value)));
  }
  void number(std::string name, std::optional<double> value) {
    names_.push_back(std::move(name));
    values_.push_back(value ? fmt::format("{}", *value) : "");
  }
  void estimate(const std::string& name, const std::optional<Estimate>& value) {
    const auto part = [&](double Estimate::*of) {
      return value ? std::optional((*value).*of) : std::nullopt;
    };
    number(name, part(&Estimate::median));
    number(name + "_low", part(&Estimate::low));
    number(name + "_high", part(&Estimate::high));
  }
  void latencies(const std::string& name, const Latencies& of) {
    number(name + "_p50_s", of.p50);
    number(name + "_p90_s", of.p90);
    number(name + "_p99_s", of.p99);
    number(name + "_p99_9_s", of.p99_9);
    number(name + "_max_s", of.max);
    number(name + "_unserved", of.unserved);
    text(name + "_lower_bounds", fmt::format("{}", fmt::join(of.lower_bounds, " ")));
  }

  std::string header() const { return fmt::format("{}\n", fmt::join(names_, ",")); }
  std::string values() const { return fmt::format("{}\n", fmt::join(values_, ",")); }

 private:
  std::vector<std::string> names_;
  std::vector<std::string> values_;
};

std::string recommended(const RunDocument& run, const Row& row) {
  if (!run.is_tune) return "";
  return run.recommended == row.name.backlog ? "yes" : "no";
}

/// Nothing if it is not known, as that of a server beyond loopback that only a swarm calls.
std::string backlog(const Row& row, bool may_be_unknown) {
  if (row.name.backlog != bench::kUnlimitedBacklog) return fmt::to_string(row.name.backlog);
  return may_be_unknown ? "" : "unlimited";
}

Line line_of(const RunDocument& run, const Row& row) {
  const Measured* const measured = row.measured ? &*row.measured : nullptr;
  const Measured values = row.measured.value_or(Measured{});
  const auto if_measured = [&](double value) { return measured ? std::optional(value) : std::nullopt; };
  Line line;
  line.text("server", row.name.server);
  line.text("loop", row.name.loop);
  line.text("backlog", backlog(row, run.is_swarm));
  line.text("recommended", recommended(run, row));
  line.number("runs", row.runs);
  line.number("void_runs", row.void_runs);
  line.number("clients", if_measured(values.clients));
  line.estimate("connections_per_second", values.connections_per_second);
  line.estimate("lost_first_syn", values.lost_first_syn);
  line.estimate("turned_away", values.turned_away);
  line.number("turned_away_upper", values.turned_away_upper);
  line.number("model_loss", values.model_loss);
  for (std::size_t i = 0; i < kFateNames.size(); ++i) {
    line.number(std::string(kFateNames[i]), values.fates[i]);
  }
  line.estimate("ghosts", values.ghosts);
  line.estimate("listen_overflows", values.listen_overflows);
  line.estimate("listen_drops", values.listen_drops);
  line.estimate("syn_retransmits", values.syn_retransmits);
  line.estimate("first_stall_drops", values.first_stall_drops);
  line.number("law", values.law);
  line.estimate("deepest_queue", values.deepest_queue);
  line.estimate("server_cpu_s_per_connection", values.server_cpu_s_per_connection);
  line.latencies("first_byte", values.first_byte);
  line.latencies("connect", values.connect);
  line.number("queue_wait_p50_s", values.queue_wait.p50);
  line.number("queue_wait_p99_s", values.queue_wait.p99);
  line.number("queue_wait_max_s", values.queue_wait.max);
  return line;
}

}  // namespace

std::string csv(const Json& run) {
  const RunDocument document = understand(run);
  std::string text = line_of(document, {}).header();
  for (const Row& row : document.rows) text += line_of(document, row).values();
  return text;
}

}  // namespace anteroom::tool
