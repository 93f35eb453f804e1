#pragma once
#include <anteroom/fd.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "sanitized.h"

namespace anteroom::test {

/// The words of a command line. An empty one is written as two quotation marks: tune --rate ''
inline std::vector<std::string> words_of(const std::string& line) {
  std::vector<std::string> words;
  std::istringstream stream(line);
  for (std::string word; stream >> word;) words.push_back(word == "''" ? "" : word);
  return words;
}

/// One of our programs, run as users run it. Ended by the destructor if it has not ended by then.
class Program {
 public:
  using Clock = std::chrono::steady_clock;

  /// `prepare` runs in the child, before the program begins.
  explicit Program(std::vector<std::string> command, const std::function<void()>& prepare = {}) {
    std::array<int, 2> out{};
    std::array<int, 2> err{};
    if (::pipe2(out.data(), O_CLOEXEC) != 0 || ::pipe2(err.data(), O_CLOEXEC) != 0) return;
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(out[1], STDOUT_FILENO);
      ::dup2(err[1], STDERR_FILENO);
      if (prepare) prepare();
      std::vector<char*> arguments;
      for (std::string& word : command) arguments.push_back(word.data());
      arguments.push_back(nullptr);
      ::execv(arguments[0], arguments.data());
      ::_exit(127);
    }
    out_.reset(out[0]);
    err_.reset(err[0]);
    ::close(out[1]);
    ::close(err[1]);
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  ~Program() {
    if (pid_ <= 0 || ended_) return;
    ::kill(pid_, SIGKILL);
    (void)wait(std::chrono::seconds(10));
  }

  pid_t pid() const { return pid_; }
  void signal(int number) {
    signal_ = number;
    signalled_at_ = Clock::now();
    ::kill(pid_, number);
  }

  /// The next line of its standard output, without its end; what there is of it after half a minute.
  std::string read_line() {
    const auto limit = Clock::now() + std::chrono::seconds(30);
    for (;;) {
      if (const std::size_t end = output.find('\n'); end != std::string::npos) {
        std::string line = output.substr(0, end);
        output.erase(0, end + 1);
        return line;
      }
      if (Clock::now() > limit || !out_) return std::exchange(output, {});
      drain(limit);  // also if that is the end of its standard error
    }
  }

  /// The port at the end of the first line of our servers; 0 if there is none.
  std::uint16_t read_port() {
    const std::string line = read_line();
    const std::size_t colon = line.rfind(':');
    return colon == std::string::npos ? std::uint16_t{0}
                                      : static_cast<std::uint16_t>(std::stoi(line.substr(colon + 1)));
  }

  /// Its exit status, 128 + the signal that ended it, or -1 if it has not ended after `patience`. Collects
  /// its output.
  int wait(std::chrono::milliseconds patience) {
    const auto limit = Clock::now() + patience;
    do {
      int status = 0;
      if (!ended_ && ::wait4(pid_, &status, WNOHANG, &usage_) == pid_) {
        ended_ = true;
        status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      }
      if (!ended_) signal_again_if_it_was_lost();
      drain(std::min(limit, Clock::now() + std::chrono::milliseconds(5)));
    } while (!ended_ && Clock::now() < limit);
    while (ended_ && drain(Clock::now())) {
    }
    return ended_ ? status_ : -1;
  }

  std::chrono::microseconds cpu() const {
    const auto of = [](const timeval& t) {
      return std::chrono::seconds(t.tv_sec) + std::chrono::microseconds(t.tv_usec);
    };
    return of(usage_.ru_utime) + of(usage_.ru_stime);
  }

  std::string output;
  std::string errors;

 private:
  /// ThreadSanitizer keeps a signal until it is safe to call the handler, and now and then for ever: the
  /// handler is still in place, nothing is pending, and the next signal gets through (GCC 12).
  void signal_again_if_it_was_lost() {
    constexpr std::chrono::seconds kLost{10};
    if (!test::kIsThreadSanitized || signal_ == 0 || Clock::now() - signalled_at_ < kLost) return;
    ::kill(pid_, std::exchange(signal_, 0));
  }

  /// Reads what comes until `limit`; false if nothing came, or both have ended.
  bool drain(Clock::time_point limit) {
    std::array<pollfd, 2> pipes{{{.fd = out_.get(), .events = POLLIN, .revents = 0},
                                 {.fd = err_.get(), .events = POLLIN, .revents = 0}}};
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(limit - Clock::now()).count();
    if (::poll(pipes.data(), pipes.size(), static_cast<int>(left > 0 ? left : 0)) <= 0) return false;
    bool any = false;
    any = take(out_, pipes[0].revents, output) || any;
    any = take(err_, pipes[1].revents, errors) || any;
    return any;
  }
  static bool take(Fd& pipe, short events, std::string& into) {
    if (events == 0) return false;
    std::array<char, 4096> buffer{};
    const ssize_t count = ::read(pipe.get(), buffer.data(), buffer.size());
    if (count > 0) into.append(buffer.data(), static_cast<std::size_t>(count));
    if (count <= 0) pipe.reset();
    return count > 0;
  }

  pid_t pid_ = -1;
  Fd out_;
  Fd err_;
  bool ended_ = false;
  int status_ = -1;
  int signal_ = 0;  // the last one that we sent
  Clock::time_point signalled_at_;
  rusage usage_{};
};

/// The children of that process' first thread, oldest first.
inline std::vector<pid_t> children_of(pid_t parent) {
  const std::string pid = std::to_string(parent);
  std::ifstream file("/proc/" + pid + "/task/" + pid + "/children");
  return {std::istream_iterator<pid_t>(file), {}};
}

/// Other processes that have that word in their command line: forked ones keep it.
inline int processes_with(const std::string& word) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string pid = entry.path().filename().string();
    if (pid.find_first_not_of("0123456789") != std::string::npos || pid == std::to_string(::getpid()))
      continue;
    std::ifstream file(entry.path() / "cmdline");
    std::stringstream text;
    text << file.rdbuf();
    if (text.str().find(word) != std::string::npos) ++count;
  }
  return count;
}

}  // namespace anteroom::test
