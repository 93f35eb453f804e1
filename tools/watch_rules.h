#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "watch_rooms.h"

namespace anteroom::tool {

/// What a listener may not be while it is watched, as `watch --fail-if` takes it: "full>80%", "drops>0". It
/// is asked at every look, so it can only say "more than" or "at least".
///
/// | name | what is looked at |
/// |---|---|
/// | `full` | who waits, as a share of the places, which are backlog + 1; in samples |
/// | `depth` | who waits, in samples |
/// | `drops` | handshakes thrown away by one listener since the watch began; see DropShares |
/// | `overflows` | ListenOverflows of the namespace since the watch began; exact |
struct WatchRule {
  enum class Name : std::uint8_t { kFull, kDepth, kDrops, kOverflows };
  std::string text;  ///< as it was written, without spaces
  Name name = Name::kFull;
  bool at_least = false;
  double limit = 0;  ///< share, or number
};

/// The rule, or in one line what is wrong with it.
std::variant<WatchRule, std::string> parse_watch_rule(std::string_view text);

/// A sentence if this listener breaks it; else nothing.
std::string broken(const WatchRule& rule, const WatchedRoom& room);
/// The same of the whole namespace. A count that is not known breaks the rule that asks for it.
std::string broken(const WatchRule& rule, std::optional<std::uint64_t> overflows);

}  // namespace anteroom::tool
