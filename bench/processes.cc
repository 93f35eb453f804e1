#include <anteroom/bench/processes.h>
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string_view>
#include <system_error>

namespace anteroom::bench {
namespace {

namespace fs = std::filesystem;

template <class Number>
std::optional<Number> number_in(std::string_view text) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return number;
}

/// Of "socket:[4711]".
std::optional<std::uint32_t> socket_inode(std::string_view link) {
  constexpr std::string_view kBegin = "socket:[";
  if (!link.starts_with(kBegin) || !link.ends_with(']')) return std::nullopt;
  return number_in<std::uint32_t>(link.substr(kBegin.size(), link.size() - kBegin.size() - 1));
}

/// Of /proc/<pid>/stat (proc(5)).
struct Stat {
  char state = '\0';
  pid_t parent = 0;
};

Stat read_stat(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string line;
  std::getline(file, line);
  // The name, in brackets, may have anything in it: "1 (a) b) S 0 ...".
  const std::size_t name_end = line.rfind(')');
  Stat stat;
  if (name_end == std::string::npos) return stat;
  // NOLINTNEXTLINE(cert-err34-c): the kernel wrote it
  if (std::sscanf(line.c_str() + name_end + 1, " %c %d", &stat.state, &stat.parent) != 2) return {};
  return stat;
}

bool has_ended(pid_t thread) {
  const char state = read_stat(thread).state;
  return state == '\0' || state == 'Z' || state == 'X';
}

/// False if this user may not look into it. The descriptors are those of `thread`.
bool add_holders(pid_t pid, pid_t thread, SocketHolders& holders) {
  std::error_code error;
  fs::directory_iterator files(fmt::format("/proc/{}/fd", thread), error);
  if (error) return error != std::errc::permission_denied;
  if (files == fs::directory_iterator() && thread == pid) {
    // A thread that has ended has no descriptors, and /proc/<pid>/fd shows those of the first one only.
    const pid_t other = has_ended(pid) ? living_thread_of(pid) : 0;
    return other == 0 || add_holders(pid, other, holders);
  }
  // A process may end, and a descriptor close, while it is looked at.
  for (; files != fs::directory_iterator(); files.increment(error)) {
    std::array<char, 64> link{};
    const std::string path = files->path();
    const ssize_t size = ::readlink(path.c_str(), link.data(), link.size());
    if (size < 0 && errno == EACCES) return false;  // its names may be listed, and nothing else
    if (size <= 0) continue;
    const auto inode = socket_inode({link.data(), static_cast<std::size_t>(size)});
    const auto fd = number_in<int>(std::string_view(path).substr(path.rfind('/') + 1));
    if (inode && fd) holders.by_inode[*inode].push_back({.pid = pid, .fd = *fd});
  }
  return true;
}

}  // namespace

std::vector<pid_t> all_processes() {
  std::vector<pid_t> pids;
  std::error_code error;
  for (fs::directory_iterator entries("/proc", error); !error && entries != fs::directory_iterator();
       entries.increment(error)) {
    if (const auto pid = number_in<pid_t>(entries->path().filename().native())) pids.push_back(*pid);
  }
  std::ranges::sort(pids);
  return pids;
}

pid_t parent_of(pid_t pid) { return read_stat(pid).parent; }

pid_t process_of(pid_t thread) {
  std::ifstream file(fmt::format("/proc/{}/status", thread));
  constexpr std::string_view kName = "Tgid:";
  for (std::string line; std::getline(file, line);) {
    pid_t process = 0;
    if (line.starts_with(kName) && std::istringstream(line.substr(kName.size())) >> process) return process;
  }
  return 0;
}

bool is_alive(pid_t pid) { return !has_ended(pid) || living_thread_of(pid) != 0; }

pid_t living_thread_of(pid_t pid) {
  if (!has_ended(pid)) return pid;
  std::error_code error;
  for (fs::directory_iterator tasks(fmt::format("/proc/{}/task", pid), error);
       !error && tasks != fs::directory_iterator(); tasks.increment(error)) {
    const auto thread = number_in<pid_t>(tasks->path().filename().native());
    if (thread && !has_ended(*thread)) return *thread;
  }
  return 0;
}

std::string proc_problem() {
  std::error_code error;
  // It has the number that this process has in the namespace of that /proc, or leads nowhere.
  if (fs::read_symlink("/proc/self", error) == std::to_string(::getpid())) return {};
  if (fs::exists("/proc/uptime", error))
    return "/proc is that of another PID namespace, so no process can be found by it: mount -t proc "
           "proc /proc";
  return "/proc is not mounted here, so no process can be found: mount -t proc proc /proc";
}

std::string why_no_process(pid_t pid) {
  if (std::string problem = proc_problem(); !problem.empty()) return problem;
  if (read_stat(pid).state != '\0')
    return fmt::format("process {} has ended, and its parent has not waited for it (it is a zombie)", pid);
  if (::kill(pid, 0) == 0 || errno == EPERM)
    return fmt::format("/proc hides process {} from you (hidepid, proc(5)): run this as root (sudo)", pid);
  return fmt::format("there is no process {}: anteroom watch shows who listens", pid);
}

std::chrono::nanoseconds processor_time(pid_t pid) {
  std::chrono::nanoseconds sum{0};
  std::error_code error;
  for (fs::directory_iterator tasks(fmt::format("/proc/{}/task", pid), error);
       !error && tasks != fs::directory_iterator(); tasks.increment(error)) {
    std::ifstream file(tasks->path() / "schedstat");
    std::int64_t ns = 0;
    if (file >> ns) sum += std::chrono::nanoseconds(ns);
  }
  return sum;
}

SocketHolders find_socket_holders() {
  SocketHolders holders;
  for (const pid_t pid : all_processes()) holders.hidden += add_holders(pid, pid, holders) ? 0 : 1;
  return holders;
}

SocketHolders find_socket_holders(pid_t pid) {
  SocketHolders holders;
  holders.hidden = add_holders(pid, pid, holders) ? 0 : 1;
  return holders;
}

std::string process_name(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/comm", pid));
  std::string name;
  std::getline(file, name);
  std::ranges::replace_if(
      name, [](char c) { return c < ' ' || c > '~'; }, '?');
  return name;
}

}  // namespace anteroom::bench
