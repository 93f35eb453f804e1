#include "watch_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <iterator>
#include <utility>

#include "run_document.h"
#include "table.h"

namespace anteroom::tool {
namespace {

using RuleName = WatchRule::Name;

constexpr std::array<std::pair<RuleName, std::string_view>, 4> kWatchNames{
    {{RuleName::kFull, "full"},
     {RuleName::kDepth, "depth"},
     {RuleName::kDrops, "drops"},
     {RuleName::kOverflows, "overflows"}}};

std::string limit_in_words(const WatchRule& rule) {
  const std::size_t number = rule.text.find_first_of("0123456789.");
  return fmt::format("{} {}", rule.at_least ? "not less than" : "more than", rule.text.substr(number));
}

bool is_beyond(const WatchRule& rule, double value) {
  return rule.at_least ? value >= rule.limit : value > rule.limit;
}

/// "80%", "0.8", "1k"; negative if it is none.
double watch_limit(RuleName name, std::string_view text) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || !std::isfinite(number)) return -1;
  const std::string_view unit = text.substr(static_cast<std::size_t>(end - text.data()));
  if (unit.empty()) return number;
  if (name == RuleName::kFull) return unit == "%" ? number / 100 : -1;
  return unit == "k" || unit == "K" ? number * 1e3 : unit == "M" ? number * 1e6 : -1;
}

std::string name_of(const WatchedRoom& room) {
  const std::string address = room.socket.address.to_string();
  if (room.processes.empty()) return address;
  return fmt::format("{} ({} {})", address, printable(room.processes.front().name, 40),
                     room.processes.front().pid);
}

}  // namespace

std::variant<WatchRule, std::string> parse_watch_rule(std::string_view text) {
  WatchRule rule;
  std::ranges::copy_if(text, std::back_inserter(rule.text), [](char c) { return c != ' ' && c != '\t'; });
  const auto wrong = [&](const std::string& why) {
    return fmt::format("\"{}\": {}; a rule of watch is such as full>80%, depth>=100, drops>0, overflows>0",
                       printable(text, 60), why);
  };
  const std::string_view all = rule.text;
  const std::size_t at = all.find('>');
  if (at == all.npos) return wrong("it is asked at every look, so it has to say > or >=");
  const auto* const found =
      std::ranges::find(kWatchNames, all.substr(0, at), &decltype(kWatchNames)::value_type::second);
  if (found == kWatchNames.end())
    return wrong(
        fmt::format("\"{}\" is none of full, depth, drops, overflows", printable(all.substr(0, at), 40)));
  rule.name = found->first;
  std::string_view number = all.substr(at + 1);
  rule.at_least = number.starts_with('=');
  if (rule.at_least) number.remove_prefix(1);
  rule.limit = watch_limit(rule.name, number);
  if (!(rule.limit >= 0))
    return wrong(fmt::format("\"{}\" is no {}", printable(number, 40),
                             rule.name == RuleName::kFull ? "share, such as 80% or 0.8" : "number"));
  if (rule.at_least && rule.limit == 0) return wrong("everything breaks that");
  if (rule.name == RuleName::kFull && (rule.limit > 1 || (rule.limit == 1 && !rule.at_least)))
    return wrong("a room is never more than full, so nothing breaks that");
  return rule;
}

std::string broken(const WatchRule& rule, const WatchedRoom& room) {
  const bench::RoomLog& log = room.log;
  switch (rule.name) {
    case RuleName::kFull:
      if (!is_beyond(rule, log.depth() / log.places())) return {};
      return fmt::format("{} is {:.1f} % full ({} of {} places), {}", name_of(room),
                         100 * log.depth() / log.places(), log.depth(), log.limit() + 1.0,
                         limit_in_words(rule));
    case RuleName::kDepth:
      if (!is_beyond(rule, log.depth())) return {};
      return fmt::format("{} has {} waiting, {}", name_of(room), with_commas(log.depth()),
                         limit_in_words(rule));
    case RuleName::kDrops:
      if (!is_beyond(rule, static_cast<double>(log.drops()))) return {};
      return fmt::format("{} has dropped {}, {}", name_of(room), with_commas(log.drops()),
                         limit_in_words(rule));
    case RuleName::kOverflows:
      break;
  }
  return {};
}

std::string broken(const WatchRule& rule, std::optional<std::uint64_t> overflows) {
  if (rule.name != RuleName::kOverflows) return {};
  if (!overflows)
    return fmt::format("{}: overflows is not known, as /proc/net/netstat does not show ListenOverflows",
                       rule.text);
  if (!is_beyond(rule, static_cast<double>(*overflows))) return {};
  return fmt::format("this network namespace has {} listen overflows since the watch began, {}",
                     with_commas(*overflows), limit_in_words(rule));
}

}  // namespace anteroom::tool
