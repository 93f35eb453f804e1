#include "output.h"

#include <anteroom/fd.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <string_view>
#include <system_error>

namespace anteroom::tool {
namespace {

std::string last_words(const std::string& path) {
  return fmt::format("cannot write {}: {}", path, std::system_category().message(errno));
}

bool write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = ::write(fd, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    text.remove_prefix(static_cast<std::size_t>(count));
  }
  return true;
}

bool is_regular_or_new(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) != 0 || S_ISREG(status.st_mode);
}

/// Where a symbolic link leads.
std::string target_of(const std::string& path) {
  std::error_code error;
  const std::filesystem::path target =
      std::filesystem::weakly_canonical(std::filesystem::absolute(path), error);
  return error ? path : target.string();
}

std::string part_of(const std::string& path) { return target_of(path) + ".part"; }

}  // namespace

std::string output_problem(const std::string& path) {
  if (path == "-") return {};
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) {
    if (S_ISDIR(status.st_mode)) errno = EISDIR;
    // Not opened: a pipe would block, or its reader would take the close for the end.
    return !S_ISDIR(status.st_mode) && ::access(path.c_str(), W_OK) == 0 ? std::string() : last_words(path);
  }
  const std::string asked = part_of(path);
  const bool exists = ::stat(asked.c_str(), &status) == 0;
  const Fd file(::open(asked.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666));
  if (!file) return last_words(path);
  if (!exists) ::unlink(asked.c_str());
  return {};
}

bool would_replace(const std::string& output, const std::string& other) {
  if (output == "-" || !is_regular_or_new(output)) return false;
  std::error_code error;
  if (std::filesystem::equivalent(output, other == "-" ? "/dev/stdin" : other, error)) return true;
  return other != "-" && target_of(output) == target_of(other);
}

std::string write_output(const std::string& path, const std::string& text) {
  if (path == "-") return write_all(STDOUT_FILENO, text) ? "" : last_words("the standard output");
  const bool replace = is_regular_or_new(path);  // else it is a pipe or a device: written to as it is
  const std::string written = replace ? part_of(path) : path;
  Fd file(::open(written.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (!file || !write_all(file.get(), text)) {
    std::string why = last_words(path);
    if (file && replace) ::unlink(written.c_str());
    return why;
  }
  if (!replace || std::rename(written.c_str(), target_of(path).c_str()) == 0) return {};
  return last_words(path) + "; it is in " + written;
}

}  // namespace anteroom::tool
