#include <anteroom/bench/backlog_keeper.h>
#include <anteroom/socket.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace anteroom::bench {
namespace {

/// Keeps nothing of ours open but the standard error.
void let_go_of_descriptors() noexcept {
  const int nothing = ::open("/dev/null", O_RDWR);
  ::dup2(nothing, STDIN_FILENO);
  ::dup2(nothing, STDOUT_FILENO);
  ::syscall(SYS_close_range, STDERR_FILENO + 1, ~0U, 0);
}

/// Returns when `parent` has ended.
void wait_for_the_end_of(pid_t parent) noexcept {
  const Fd process(static_cast<int>(::syscall(SYS_pidfd_open, parent, 0)));
  pollfd ended{.fd = process.get(), .events = POLLIN, .revents = 0};
  // If it had ended before it was opened, somebody else has become our parent, and its number somebody
  // else's.
  while (::getppid() == parent && ::poll(&ended, 1, 1000) <= 0) {
  }
}

[[noreturn]] void guard(const RunningServer& server, pid_t parent) noexcept {
  ::setsid();
  ::prctl(PR_SET_NAME, "anteroom-guard");
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE}) ::signal(signal, SIG_IGN);
  let_go_of_descriptors();
  wait_for_the_end_of(parent);
  const std::string problem = server.put_back();
  if (!problem.empty()) fmt::print(stderr, "anteroom: {}\n", problem);
  ::_exit(0);
}

}  // namespace

BacklogKeeper::BacklogKeeper(const RunningServer& server) : server_(server) {
  server.check_rights();
  if (server.backlog() > server.backlog_max())
    throw TargetError(fmt::format(
        "the backlog of {} is {}, and net.core.somaxconn has been lowered to {} since: it could not "
        "be put back. First: sysctl -w net.core.somaxconn={}",
        server.name(), server.backlog(), server.backlog_max(), server.backlog()));
  const pid_t parent = ::getpid();
  guardian_ = ::fork();
  if (guardian_ < 0) throw setup_error(last_error(), "fork", "a guardian");
  if (guardian_ == 0) guard(server, parent);
}

BacklogKeeper::~BacklogKeeper() { (void)put_back(); }

std::string BacklogKeeper::put_back() noexcept {
  if (guardian_ < 0) return {};
  std::string problem = server_.put_back();
  ::kill(guardian_, SIGKILL);
  int status = 0;
  while (::waitpid(guardian_, &status, 0) < 0 && errno == EINTR) {
  }
  guardian_ = -1;
  return problem;
}

}  // namespace anteroom::bench
