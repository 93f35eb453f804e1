#pragma once
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <exception>
#include <string_view>
#include <system_error>
#include <utility>

/// The standard streams of our programs. Each of them may be closed, full, or a pipe that has no reader. No
/// program ends for that with a signal, and none takes a result that was not written for a success.
namespace anteroom {

/// The first call of every main(). Whichever of the descriptors 0, 1 and 2 is not open becomes /dev/null:
/// else the next socket gets that number, and what is meant for a person is written to a client. The standard
/// input and output are opened in the direction in which they cannot be used, so that reading and writing
/// still fail with EBADF, as on a closed descriptor; messages to a closed standard error are discarded. Also
/// ignores SIGPIPE: a write to a pipe without a reader then fails with EPIPE.
inline void prepare_standard_streams() noexcept {
  ::signal(SIGPIPE, SIG_IGN);
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (::fcntl(fd, F_GETFD) >= 0 || errno != EBADF) continue;
    // open(2) returns the lowest number that is free, which is this one. O_PATH is for a system without /dev:
    // such a descriptor can be neither read nor written.
    if (::open("/dev/null", fd == STDOUT_FILENO ? O_RDONLY : O_WRONLY) < 0) (void)!::open("/", O_PATH);
  }
}

/// Whether all of it was written.
inline bool say(std::FILE* to, std::string_view text) noexcept {
  const bool is_taken = std::fwrite(text.data(), 1, text.size(), to) == text.size();
  return std::fflush(to) == 0 && is_taken;
}

/// As fmt::print(stderr, ...), which throws if the standard error cannot be written: then there is nobody to
/// report it to, and the exit status has to do.
template <class... Arguments>
void print_error(fmt::format_string<Arguments...> format, Arguments&&... arguments) noexcept {
  try {
    (void)say(stderr, fmt::format(format, std::forward<Arguments>(arguments)...));
  } catch (const std::exception&) {  // no memory for the text
  }
}

/// Calls `print`, which writes to the standard output by fmt::print(). That throws if the stream cannot be
/// written; here the stream keeps the error for output_is_written(), and the caller goes on to write its
/// files.
template <class Print>
void print_output(Print&& print) {
  try {
    print();
  } catch (const std::system_error&) {
    if (std::ferror(stdout) == 0) throw;
  }
}

/// Whether the standard output has taken all that was printed so far.
inline bool output_is_written() noexcept { return std::fflush(stdout) == 0 && std::ferror(stdout) == 0; }

constexpr std::string_view kOutputNotWritten = "cannot write to the standard output";

}  // namespace anteroom
