#pragma once
#include <anteroom/bench/advice.h>
#include <anteroom/bench/summary.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "terminal.h"

namespace anteroom::tool {

/// "unlimited", or the number.
std::string print_backlog(int backlog);
/// 12,345
std::string with_commas(std::uint64_t number);
/// The nearest whole number, with commas; 0 for what is negative.
std::string whole(double value);
/// "1.02 s", "87 us" (µ where the terminal can): three digits.
std::string short_duration(std::chrono::nanoseconds duration, const Terminal& terminal);
/// "19.9 %", "0", "< 0.1 %".
std::string share(double value);

/// The table of `tune`: a row a backlog, the recommended one marked.
std::string tune_table(const std::vector<bench::Summary>& rows, int recommended, const Terminal& terminal);

/// The table of `compare`: a row a server, each with its ratio to the first one's.
std::string compare_table(const std::vector<bench::Summary>& rows, const Terminal& terminal);

}  // namespace anteroom::tool
