#pragma once
#include <string>

#include "terminal.h"
#include "watch.h"

namespace anteroom::tool {

/// What is shown while we watch: at most `lines` lines, each no wider than the terminal.
std::string live_view(const WatchState& state, const Terminal& terminal, int lines);

/// What is left when it is over: the table, what its figures are, and the advice.
std::string final_view(const WatchState& state, const Terminal& terminal);

/// The advice for one group in words; one line.
std::string advice_in_words(const WatchState& state, const RoomGroup& group, const GroupAdvice& given);

/// What made the limit what it is: "program", "somaxconn", "somaxconn was higher".
std::string bound_by(std::uint32_t limit, int backlog_max);

}  // namespace anteroom::tool
