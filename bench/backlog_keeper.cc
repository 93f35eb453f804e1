#include <anteroom/bench/backlog_keeper.h>
#include <anteroom/socket.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <standard_streams.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <new>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace anteroom::bench {
namespace {

/// Closes all but these.
void close_all_but(std::vector<int> kept) noexcept {
  std::ranges::sort(kept);
  unsigned first = 0;
  for (const int fd : kept) {
    const auto number = static_cast<unsigned>(fd);
    if (number > first) ::syscall(SYS_close_range, first, number - 1, 0);
    first = number + 1;
  }
  ::syscall(SYS_close_range, first, ~0U, 0);
}

/// Keeps nothing of ours open but the standard error, the locks and `process`.
void let_go_of_descriptors(const std::vector<Fd>& locks, const Fd& process) {
  const int nothing = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  ::dup2(nothing, STDIN_FILENO);
  ::dup2(nothing, STDOUT_FILENO);
  std::vector<int> kept{STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO, process.get()};
  for (const Fd& lock : locks) kept.push_back(lock.get());
  close_all_but(std::move(kept));
}

/// Another name in ps(1), so that pkill(1) of the tool does not end the one that cleans up after it. What
/// /proc/<pid>/cmdline shows is our memory from arg_start to arg_end (proc(5), fields 48 and 49 of stat).
void rename_process(const char* name) noexcept {
  ::prctl(PR_SET_NAME, name);
  std::ifstream file("/proc/self/stat");
  std::string line;
  std::getline(file, line);
  std::istringstream fields(line.substr(std::min(line.rfind(')') + 1, line.size())));
  std::string field;
  std::array<std::uintptr_t, 2> arguments{};
  for (int number = 3; fields >> field && number <= 49; ++number) {
    if (number >= 48)
      std::from_chars(field.data(), field.data() + field.size(),
                      arguments[static_cast<std::size_t>(number - 48)]);
  }
  if (arguments[0] == 0 || arguments[1] <= arguments[0]) return;
  const std::size_t size = arguments[1] - arguments[0];
  auto* const text = reinterpret_cast<char*>(arguments[0]);
  std::memset(text, 0, size);
  std::memcpy(text, name, std::min(std::strlen(name), size - 1));
}

/// Returns when `parent`, whose pidfd that is, has ended.
void wait_for_the_end_of(pid_t parent, const Fd& process) noexcept {
  pollfd ended{.fd = process.get(), .events = POLLIN, .revents = 0};
  // If it had ended before it was opened, somebody else has become our parent, and its number somebody
  // else's.
  while (::getppid() == parent && ::poll(&ended, 1, 1000) <= 0) {
  }
}

}  // namespace

BacklogKeeper::BacklogKeeper(RunningServer& server) : server_(server), locks_(server.lock()) {
  server.check_rights();
  if (server.backlog() > server.backlog_max())
    throw TargetError(fmt::format(
        "the backlog of {} is {}, and net.core.somaxconn has been lowered to {} since: it could not "
        "be put back. First: {}",
        server.name(), server.backlog(), server.backlog_max(), server.sysctl_command(server.backlog())));
  void* const shared =
      ::mmap(nullptr, sizeof(Ours), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) throw setup_error(last_error(), "mmap", "for a guardian");
  ours_ = new (shared) Ours;
  std::array<int, 2> ready{};
  if (::pipe2(ready.data(), O_CLOEXEC) != 0) throw setup_error(last_error(), "pipe", "to a guardian");
  const Fd hears(ready[0]);
  Fd tells(ready[1]);
  const pid_t parent = ::getpid();
  guardian_ = ::fork();
  if (guardian_ < 0) throw setup_error(last_error(), "fork", "a guardian");
  if (guardian_ == 0) guard(parent, tells);
  tells.reset();
  // Nothing is changed before it is out of reach of what may end us.
  char nothing = 0;
  ssize_t heard = 0;
  while ((heard = ::read(hears.get(), &nothing, 1)) < 0 && errno == EINTR) {
  }
  if (heard != 1)
    throw TargetError("the guardian that was to put back the backlog has ended; nothing was changed");
}

void BacklogKeeper::guard(pid_t parent, const Fd& tells) const noexcept {
  ::setsid();
  rename_process("backlog-guard");
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE}) ::signal(signal, SIG_IGN);
  const Fd process(static_cast<int>(::syscall(SYS_pidfd_open, parent, 0)));
  if (!process) ::_exit(1);  // nothing would tell it of the end: so nothing is to be changed
  (void)!::write(tells.get(), "", 1);
  let_go_of_descriptors(locks_, process);
  wait_for_the_end_of(parent, process);
  const std::string problem = put_back_ours();
  if (!problem.empty()) print_error("anteroom: {}\n", problem);
  ::_exit(0);
}

void BacklogKeeper::set_backlog(int backlog) {
  const int in_force = backlog < 0 ? server_.backlog_max() : std::min(backlog, server_.backlog_max());
  server_.check_untouched(ours());
  ours_->before.store(ours_->now.load());
  ours_->now.store(in_force);
  server_.set_backlog(in_force);  // and no more, though somaxconn may have been raised since
}

std::array<int, 2> BacklogKeeper::ours() const noexcept { return {ours_->before.load(), ours_->now.load()}; }

std::string BacklogKeeper::put_back_ours() const noexcept {
  if (ours_->now.load() < 0) return {};  // it was never changed
  return server_.put_back(ours());
}

BacklogKeeper::~BacklogKeeper() {
  (void)put_back();
  ::munmap(ours_, sizeof(Ours));
}

std::string BacklogKeeper::put_back() noexcept {
  if (guardian_ < 0) return {};
  std::string problem = put_back_ours();
  ::kill(guardian_, SIGKILL);
  int status = 0;
  while (::waitpid(guardian_, &status, 0) < 0 && errno == EINTR) {
  }
  guardian_ = -1;
  locks_.clear();
  return problem;
}

}  // namespace anteroom::bench
