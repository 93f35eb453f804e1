#pragma once
#include <string>

namespace anteroom::tool {

/// Why that file cannot be written, found out before hours of measuring; empty if it can. "-" is the standard
/// output.
std::string output_problem(const std::string& path);

/// Whether writing to `output` would replace `other`, an input or another output. Pipes, devices and the
/// standard output replace nothing.
bool would_replace(const std::string& output, const std::string& other);

/// Writes a file whole or not at all: an old one stays until the new one is complete. Pipes and devices are
/// written to as they are. Returns why it could not; empty if it could.
std::string write_output(const std::string& path, const std::string& text);

}  // namespace anteroom::tool
