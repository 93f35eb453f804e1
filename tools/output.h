#pragma once
#include <string>

namespace anteroom::tool {

/// Why that file cannot be written, found out before hours of measuring; empty if it can. "-" is the standard
/// output.
std::string output_problem(const std::string& path);

/// Writes a file whole or not at all: an old one stays until the new one is complete. Pipes and devices are
/// written to as they are. Returns why it could not; empty if it could.
std::string write_output(const std::string& path, const std::string& text);

}  // namespace anteroom::tool
