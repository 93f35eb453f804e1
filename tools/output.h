#pragma once
#include <string>

namespace anteroom::tool {

/// "-" if that is the standard output under any name: /dev/stdout, /dev/fd/1, or the very file to which it is
/// redirected. Any other as it is.
std::string output_name(const std::string& path);

/// Why that file cannot be written, found out before hours of measuring; empty if it can. "-" is the standard
/// output.
std::string output_problem(const std::string& path);

/// Whether writing to `output` would replace `other`, an input or another output. Pipes, devices and the
/// standard output replace nothing.
bool would_replace(const std::string& output, const std::string& other);

/// Writes a file whole or not at all: an old one stays until the new one is complete. The new one has the
/// mode of the old one, and its owner and group if we may give them away. Returns why it could not; empty if
/// it could.
///
/// Root writes into directories of other users. So until it is complete the file has no name, or a random
/// one; a symbolic link is followed if it is root's or our own, and the file that it leads to is replaced,
/// but one of another user is refused; as is a file or pipe of another user in a sticky directory that others
/// may write to, such as /tmp. Pipes and devices are written to as they are, and so is a descriptor of ours
/// by its name
/// (/dev/stdout, /dev/fd/3).
std::string write_output(const std::string& path, const std::string& text);

}  // namespace anteroom::tool
