#pragma once
#include <anteroom/bench/scenario.h>

#include <string>

namespace anteroom::tool {

/// What was seen of a real server, as a load: `anteroom.profile/1`, see tools/JSON.md. Its stalls become one
/// as long as the longest, as often as they were, and shifted at random. "-" is the standard input. Throws
/// RunDocumentError, in one line that names the file and the field.
bench::Scenario read_profile(const std::string& path);

}  // namespace anteroom::tool
