#include "trial_process.h"

#include <anteroom/bench/sandbox.h>
#include <anteroom/bench/swarm.h>
#include <anteroom/listener.h>
#include <fmt/format.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <exception>
#include <functional>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "server_process.h"

namespace anteroom::bench {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

// Below the local ports of the sandbox, so that nobody can meet himself.
constexpr std::uint16_t kServerPort = 7777;
constexpr std::chrono::seconds kReadyLimit{20};
// Beyond the end of everybody's patience, before a swarm counts as hung.
constexpr std::chrono::seconds kGrace{5};

/// The processors for the server and for the swarm, disjoint where there are two or more.
struct Processors {
  std::optional<cpu_set_t> server;
  std::optional<cpu_set_t> swarm;
};

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

/// A process that does `work` and ends. Its failures go on the board.
pid_t fork_process(TrialBoard& board, const std::optional<cpu_set_t>& processors,
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
    board.fail(error.what());
    status = 1;
  }
  ::_exit(status);
}

std::int64_t cpu_ns(const rusage& usage) noexcept {
  const auto ns = [](const timeval& time) {
    return time.tv_sec * std::int64_t{1'000'000'000} + time.tv_usec * 1'000;
  };
  return ns(usage.ru_utime) + ns(usage.ru_stime);
}

/// A child, until it has been waited for.
struct Child {
  pid_t pid = -1;
  bool ended = false;
  std::int64_t cpu = 0;

  bool has_ended(int options = WNOHANG) noexcept {
    if (ended) return true;
    rusage usage{};
    int status = 0;
    if (::wait4(pid, &status, options, &usage) != pid) return false;
    cpu = cpu_ns(usage);
    return ended = true;
  }
  void kill_and_wait() noexcept {
    if (has_ended()) return;
    ::kill(pid, SIGKILL);
    has_ended(0);
  }
};

Listener open_listener(const Scenario& scenario, bool is_private) {
  const Endpoint endpoint("127.0.0.1", is_private ? kServerPort : 0);
  return Listener(endpoint,
                  {.backlog = scenario.backlog, .blocking = scenario.server != ServerKind::kReactor});
}

void prepare_private_network() {
  write_sysctl("net.core.somaxconn", "1000000");  // so that listen's number alone decides
  write_sysctl("net.ipv4.ip_local_port_range", "10000 65535");
}

class Host {
 public:
  Host(const Scenario& scenario, SharedTrial& shared)
      : scenario_(scenario), board_(shared.board()), records_(shared.records()) {}

  void run() {
    const Sandbox sandbox = enter_sandbox();
    board_.is_private_network = sandbox.is_private;
    sandbox.why_not.copy(board_.why_not_private, sizeof(board_.why_not_private) - 1);
    if (sandbox.is_private) prepare_private_network();
    const Listener listener = open_listener(scenario_, sandbox.is_private);
    if (const auto queue = listener.queue()) board_.backlog_in_force = queue->limit;
    const KernelCounters before = read_kernel_counters();
    start_processes(listener);
    if (wait_until_ready()) {
      watch(listener);
      board_.counters = read_kernel_counters().since(before);
      const auto queue = listener.queue();
      board_.listener_drops = queue ? queue->drops : 0;
      board_.server_died = server_.has_ended();
    }
    end_server();
    for (Child& swarm : swarms_) {
      swarm.kill_and_wait();
      board_.swarm_cpu_ns += swarm.cpu;
    }
    board_.complete = board_.failure[0] == '\0';
  }

 private:
  void start_processes(const Listener& listener) {
    const Processors processors = divide_processors();
    server_.pid = fork_process(board_, processors.server, [&] {
      swarm_clients_max();  // raises the limit of descriptors: each guest is one
      run_server_process(scenario_, Listener(Fd(::dup(listener.fd()))), board_);
    });
    std::size_t swarms = swarms_for(records_.size());
    if (scenario_.arrival == Arrival::kBurst && processors.swarm) {
      swarms = std::max<std::size_t>(
          swarms, static_cast<std::size_t>(CPU_COUNT(&*processors.swarm)));  // as sharp as can be
    }
    for (std::size_t i = 0; i < swarms; ++i) {
      const auto play = [&, i] { play_swarm(listener.endpoint(), i, swarms); };
      swarms_.push_back({.pid = fork_process(board_, processors.swarm, play)});
    }
  }

  void play_swarm(const Endpoint& server, std::size_t index, std::size_t swarms) {
    swarm_clients_max();
    ::prctl(PR_SET_TIMERSLACK, 1);  // ns: clients call on time, not within 50 µs of it
    const Clock::time_point start = wait_for_start(board_);
    run_swarm({.server = server,
               .records = records_,
               .is_burst = scenario_.arrival == Arrival::kBurst,
               .first = index,
               .step = swarms,
               .start = start,
               .end = load_end(),
               .ended = &board_.clients_ended});
  }

  /// When the last client's patience ends, from the start.
  std::chrono::nanoseconds load_end() const {
    return std::chrono::nanoseconds(records_.back().intended_ns) + scenario_.patience;
  }

  /// How long after its beginning the first stall's drops are all there, and no others yet: SYNs come again
  /// after a second.
  std::chrono::nanoseconds first_stall_seen() const {
    const std::chrono::nanoseconds seen = std::min<std::chrono::nanoseconds>(scenario_.stall + 50ms, 1s);
    return scenario_.stall_every > 0ns ? std::min(seen, scenario_.stall_every) : seen;
  }

  bool wait_until_ready() {
    const Clock::time_point limit = Clock::now() + kReadyLimit;
    while (board_.ready.load() < 1 + swarms_.size()) {
      if (board_.failure[0] != '\0') return false;
      if (Clock::now() > limit || server_.has_ended()) {
        board_.fail("the processes of the trial did not get ready");
        return false;
      }
      std::this_thread::sleep_for(200us);
    }
    start_ = Clock::now() + 10ms;
    board_.start_ns.store(start_.time_since_epoch().count());
    return true;
  }

  /// Samples the queue until the swarms have ended.
  void watch(const Listener& listener) {
    const Clock::time_point limit = start_ + load_end() + kGrace;
    const Clock::time_point stall_seen_until = start_ + scenario_.first_stall() + first_stall_seen();
    for (;;) {
      const auto queue = listener.queue();
      if (queue) {
        board_.queue_peak_sampled = std::max(board_.queue_peak_sampled, queue->depth);
        if (Clock::now() < stall_seen_until) board_.first_stall_drops = queue->drops;
      }
      bool all_ended = true;
      for (Child& swarm : swarms_) all_ended = swarm.has_ended() && all_ended;
      if (all_ended) return;
      if (Clock::now() > limit) {
        board_.swarm_hung = true;
        return;
      }
      std::this_thread::sleep_for(1ms);
    }
  }

  void end_server() {
    if (!server_.has_ended()) ::kill(server_.pid, SIGTERM);
    const Clock::time_point limit = Clock::now() + scenario_.stall + kGrace;
    while (!server_.has_ended() && Clock::now() < limit) std::this_thread::sleep_for(500us);
    server_.kill_and_wait();
    board_.server_cpu_ns = server_.cpu;
  }

  const Scenario& scenario_;
  TrialBoard& board_;
  std::span<ClientRecord> records_;
  Clock::time_point start_;
  Child server_;
  std::vector<Child> swarms_;
};

}  // namespace

void tie_to_parent(pid_t parent) noexcept {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(1);  // it died before we asked
  ::signal(SIGINT, SIG_IGN);
  ::signal(SIGTERM, SIG_DFL);
}

std::size_t swarms_for(std::size_t clients) noexcept {
  const std::size_t most = std::max<std::size_t>(swarm_clients_max(), 1);
  return (clients + most - 1) / most;
}

void run_trial_process(const Scenario& scenario, SharedTrial& shared) { Host(scenario, shared).run(); }

}  // namespace anteroom::bench
