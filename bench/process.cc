#include "process.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <exception>
#include <system_error>

namespace anteroom::bench {
namespace {

std::int64_t cpu_ns(const rusage& usage) noexcept {
  const auto ns = [](const timeval& time) {
    return time.tv_sec * std::int64_t{1'000'000'000} + time.tv_usec * 1'000;
  };
  return ns(usage.ru_utime) + ns(usage.ru_stime);
}

}  // namespace

Processors divide_processors() {
  cpu_set_t all;
  if (::sched_getaffinity(0, sizeof(all), &all) != 0 || CPU_COUNT(&all) < 2) return {};
  cpu_set_t server;
  cpu_set_t swarm;
  CPU_ZERO(&server);
  CPU_ZERO(&swarm);
  for (int cpu = 0, seen = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &all)) CPU_SET(cpu, seen++ < CPU_COUNT(&all) / 2 ? &server : &swarm);
  }
  return {.server = server, .swarm = swarm};
}

cpu_set_t first_of(const cpu_set_t& set) noexcept {
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++cpu) {
    if (CPU_ISSET(cpu, &set)) CPU_SET(cpu, &one);
  }
  return one;
}

pid_t fork_process(const Failed& failed, const std::optional<cpu_set_t>& processors,
                   const std::function<void()>& work) {
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) throw std::system_error(errno, std::system_category(), "fork for a trial");
  if (pid > 0) return pid;
  tie_to_parent(parent);
  if (processors) ::sched_setaffinity(0, sizeof(*processors), &*processors);
  int status = 0;
  try {
    work();
  } catch (const std::exception& error) {
    failed(error.what());
    status = 1;
  }
  ::_exit(status);
}

void tie_to_parent(pid_t parent) noexcept {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(1);  // it died before we asked
  ::signal(SIGINT, SIG_IGN);
  ::signal(SIGHUP, SIG_IGN);  // a terminal that closes sends it to all of them
  ::signal(SIGTERM, SIG_DFL);
}

bool Child::has_ended(int options) noexcept {
  if (ended) return true;
  rusage usage{};
  int status = 0;
  pid_t waited = -1;
  do {
    waited = ::wait4(pid, &status, options, &usage);
  } while (waited < 0 && errno == EINTR);
  if (waited != pid) return false;
  cpu = cpu_ns(usage);
  return ended = true;
}

bool Child::has_ended() noexcept { return has_ended(WNOHANG); }

void Child::kill_and_wait() noexcept {
  if (has_ended()) return;
  ::kill(pid, SIGKILL);
  has_ended(0);
}

}  // namespace anteroom::bench
