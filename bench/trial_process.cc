#include "trial_process.h"

#include <anteroom/bench/road.h>
#include <anteroom/bench/swarm.h>
#include <anteroom/listener.h>
#include <fmt/format.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <exception>
#include <functional>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "process.h"
#include "server_process.h"

namespace anteroom::bench {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

// Below the local ports of the sandbox, so that nobody can meet himself.
constexpr std::uint16_t kServerPort = 7777;
// What decides how a full queue behaves.
constexpr std::array kSysctls{
    "net.core.somaxconn",          "net.core.netdev_max_backlog",      "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_syncookies",     "net.ipv4.tcp_abort_on_overflow",   "net.ipv4.tcp_syn_retries",
    "net.ipv4.tcp_synack_retries", "net.ipv4.tcp_syn_linear_timeouts", "net.ipv4.tcp_tw_reuse",
    "net.ipv4.ip_local_port_range"};
constexpr std::chrono::seconds kReadyLimit{20};
// Beyond the end of everybody's patience, before a swarm counts as hung.
constexpr std::chrono::seconds kGrace{5};

std::vector<Listener> open_listeners(const Scenario& scenario, const Road& road) {
  std::vector<Listener> listeners;
  const std::size_t count = listeners_for(scenario);
  const bool is_blocking = scenario.server == ServerKind::kBlocking ||
                           scenario.server == ServerKind::kThreads || scenario.server == ServerKind::kPool;
  std::uint16_t port = road.kind() == RoadKind::kShared ? 0 : kServerPort;
  for (std::size_t i = 0; i < count; ++i) {
    listeners.emplace_back(
        Endpoint(road.server_address(), port),
        ListenerOptions{.backlog = scenario.backlog, .reuse_port = count > 1, .blocking = is_blocking});
    port = listeners.front().endpoint().port();
  }
  return listeners;
}

/// Of all listeners of a server.
struct Queues {
  std::uint32_t deepest = 0;
  std::uint32_t waiting = 0;
  std::uint64_t drops = 0;
};

Queues read_queues(const std::vector<Listener>& listeners) noexcept {
  Queues all;
  for (const Listener& listener : listeners) {
    const auto queue = listener.queue();
    if (!queue) continue;
    all.deepest = std::max(all.deepest, queue->depth);
    all.waiting += queue->depth;
    all.drops += queue->drops;
  }
  return all;
}

/// The kernel's counters on both sides of a road.
struct Counters {
  KernelCounters server;
  KernelCounters client;
  std::uint64_t softnet_drops = 0;

  explicit Counters(const Road& road) : server(read_kernel_counters()), softnet_drops(read_softnet_drops()) {
    if (road.kind() != RoadKind::kPair) return;
    road.go_to_client_side();
    client = read_kernel_counters();
    road.go_to_server_side();
  }
};

class Host {
 public:
  Host(const Scenario& scenario, SharedTrial& shared)
      : scenario_(scenario),
        shared_(shared),
        board_(shared.board()),
        records_(shared.records()),
        road_({.rtt = scenario.rtt,
               .loss = scenario.loss,
               .seed = scenario.seed,
               .sysctls = scenario.sysctls}) {}

  void run() {
    note_road();
    const std::vector<Listener> listeners = open_listeners(scenario_, road_);
    if (const auto queue = listeners.front().queue()) board_.backlog_in_force = queue->limit;
    const Counters before(road_);
    start_processes(listeners);
    if (wait_until_ready()) {
      watch(listeners, before);
      const Counters after(road_);
      board_.server_counters = after.server.since(before.server);
      board_.client_counters = after.client.since(before.client);
      board_.softnet_drops = after.softnet_drops - before.softnet_drops;
      const Queues queues = read_queues(listeners);
      board_.listener_drops = queues.drops;
      board_.waiting_at_end = queues.waiting;
      board_.server_died = server_.has_ended();
    }
    end_server();
    for (Child& swarm : swarms_) {
      swarm.kill_and_wait();
      board_.swarm_cpu_ns += swarm.cpu;
    }
    if (delay_line_.pid > 0) delay_line_.kill_and_wait();
    board_.complete = board_.failure[0] == '\0';
  }

 private:
  void note_road() {
    board_.road = road_.kind();
    TrialBoard::write(board_.why_not_better, road_.why_not());
    std::string sysctls;
    for (const char* name : kSysctls) sysctls += fmt::format("{}={}\n", name, read_sysctl(name));
    TrialBoard::write(board_.sysctls, sysctls);
    board_.syncookies = read_sysctl("net.ipv4.tcp_syncookies") != "0";
    board_.abort_on_overflow = read_sysctl("net.ipv4.tcp_abort_on_overflow") == "1";
    road_.go_to_client_side();
    const std::string linear = read_sysctl("net.ipv4.tcp_syn_linear_timeouts");
    std::from_chars(linear.data(), linear.data() + linear.size(), board_.syn_linear_timeouts);
    road_.go_to_server_side();
  }

  void start_processes(const std::vector<Listener>& listeners) {
    const Processors processors = divide_processors();
    server_.pid = fork_process(failed_, processors.server, [&] {
      swarm_clients_max();  // raises the limit of descriptors: each guest is one
      std::vector<Listener> own;
      for (const Listener& listener : listeners) own.emplace_back(Fd(::dup(listener.fd())));
      run_server_process(scenario_, std::move(own), shared_);
    });
    if (road_.is_delayed())
      delay_line_.pid = fork_process(failed_, std::nullopt, [&] { road_.carry(board_.traffic); });
    std::size_t swarms = swarms_for(records_.size());
    if (scenario_.loop == Loop::kClosed) {
      swarms = swarms_for(static_cast<std::size_t>(scenario_.flows));
    } else if (scenario_.arrival == Arrival::kBurst && processors.swarm) {
      swarms = std::max<std::size_t>(
          swarms, static_cast<std::size_t>(CPU_COUNT(&*processors.swarm)));  // as sharp as can be
    }
    for (std::size_t i = 0; i < swarms; ++i) {
      const auto play = [&, i] { play_swarm(listeners.front().endpoint(), i, swarms); };
      swarms_.push_back({.pid = fork_process(failed_, processors.swarm, play)});
    }
  }

  void play_swarm(const Endpoint& server, std::size_t index, std::size_t swarms) {
    road_.go_to_client_side();
    swarm_clients_max();
    ::prctl(PR_SET_TIMERSLACK, 1);  // ns: clients call on time, not within 50 µs of it
    SwarmPlan plan{.server = server,
                   .records = records_,
                   .first = index,
                   .step = swarms,
                   .is_burst = is_sharp_burst(),
                   .flows = flows_of(index, swarms),
                   .end = load_end(),
                   .syn_linear_timeouts = board_.syn_linear_timeouts,
                   .server_sockets =
                       [this] {
                         road_.go_to_server_side();
                         std::vector<TcpSocket> sockets = read_tcp_sockets();
                         road_.go_to_client_side();
                         return sockets;
                       },
                   .called = &board_.clients_called,
                   .ended = &board_.clients_ended};
    for (std::size_t i = 0; i < sources_for(records_.size()); ++i) {
      const std::size_t most = Road::kSourcesMax;
      plan.sources.emplace_back(road_.source_address(i % most), std::uint16_t{0});
    }
    plan.start = wait_for_start(board_);
    run_swarm(plan);
  }

  bool is_sharp_burst() const noexcept {
    return scenario_.arrival == Arrival::kBurst && scenario_.burst_within == 0ns &&
           scenario_.loop == Loop::kOpen;
  }

  /// A fair share of all; at least one, since none would mean an open loop.
  std::size_t flows_of(std::size_t index, std::size_t swarms) const noexcept {
    if (scenario_.loop == Loop::kOpen) return 0;
    const auto flows = static_cast<std::size_t>(scenario_.flows);
    return std::max<std::size_t>((flows + swarms - 1 - index) / swarms, 1);
  }

  /// When the last client's patience ends, from the start. A closed loop stops at the end of the load, as
  /// those tools do: who still waits gives no sample.
  std::chrono::nanoseconds load_end() const {
    if (scenario_.loop == Loop::kClosed) return scenario_.load_length();
    return std::chrono::nanoseconds(records_.back().intended_ns) + scenario_.patience;
  }

  /// When the first stall's drops are all there, and no others yet, from the start: SYNs come again after a
  /// second.
  std::chrono::nanoseconds first_stall_seen() const {
    const std::vector<Stall> stalls = scenario_.stalls();
    if (stalls.empty()) return 0ns;
    const std::chrono::nanoseconds seen =
        stalls[0].begin + std::min<std::chrono::nanoseconds>(scenario_.stall + 50ms, 1s);
    return stalls.size() > 1 ? std::min(seen, stalls[1].begin) : seen;
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

  /// Samples the queues and the clients until the swarms have ended.
  void watch(const std::vector<Listener>& listeners, const Counters& before_load) {
    const Clock::time_point limit = start_ + load_end() + kGrace;
    const Clock::time_point stall_seen_until = start_ + first_stall_seen();
    DepthOverTime& over_time = board_.depth_over_time;
    const auto steps = static_cast<std::int64_t>(over_time.depth.size());
    over_time.step_ns = std::max<std::int64_t>((load_end() + 50ms).count() / steps + 1, 1'000'000);
    bool stall_was_seen = false;
    double client_ns = 0;
    Clock::time_point before = start_;
    std::this_thread::sleep_until(start_ - 2ms);
    for (;;) {
      const Clock::time_point now = Clock::now();
      const Queues queues = read_queues(listeners);
      board_.queue_peak_sampled = std::max(board_.queue_peak_sampled, queues.deepest);
      if (!stall_was_seen && (now >= stall_seen_until || swarms_have_ended())) {
        stall_was_seen = true;
        board_.first_stall_drops = drops_since(before_load, queues);
      }
      if (now >= start_) {
        const auto step = static_cast<std::uint32_t>(
            std::min<std::int64_t>((now - start_).count() / over_time.step_ns, steps - 1));
        over_time.steps = step + 1;
        over_time.depth[step] = std::max(over_time.depth[step], queues.deepest);
        const std::int64_t in_system =
            std::int64_t{board_.clients_called.load()} - board_.clients_ended.load();
        client_ns += static_cast<double>(in_system) * static_cast<double>((now - before).count());
        before = now;
      }
      if ((swarms_have_ended() && stall_was_seen) || board_.failure[0] != '\0') break;
      if (now > limit) {
        board_.swarm_hung = true;
        break;
      }
      std::this_thread::sleep_for(1ms);
    }
    board_.sampled_ns = (before - start_).count();
    if (board_.sampled_ns > 0) board_.mean_in_system = client_ns / static_cast<double>(board_.sampled_ns);
  }

  bool swarms_have_ended() noexcept {
    bool all_ended = true;
    for (Child& swarm : swarms_) all_ended = swarm.has_ended() && all_ended;
    return all_ended;
  }

  /// ListenDrops; in a network that others share, the listeners' own, which count also what was discarded
  /// otherwise.
  std::uint64_t drops_since(const Counters& before, const Queues& queues) const {
    if (road_.kind() == RoadKind::kShared) return queues.drops;
    return read_kernel_counters().since(before.server)[Counter::kListenDrops];
  }

  void end_server() {
    if (!server_.has_ended()) ::kill(server_.pid, SIGTERM);
    // It finishes its turn, in which it may have as many guests as a reactor accepts at once.
    const Clock::time_point limit = Clock::now() + scenario_.stall + 64 * scenario_.handler.time + kGrace;
    while (!server_.has_ended() && Clock::now() < limit) std::this_thread::sleep_for(500us);
    server_.kill_and_wait();
    board_.server_cpu_ns = server_.cpu;
  }

  const Scenario& scenario_;
  SharedTrial& shared_;
  TrialBoard& board_;
  const Failed failed_ = [this](std::string_view why) { board_.fail(why); };
  std::span<ClientRecord> records_;
  Road road_;
  Clock::time_point start_;
  Child server_;
  Child delay_line_;
  std::vector<Child> swarms_;
};

}  // namespace

std::size_t swarms_for(std::size_t clients) noexcept {
  const std::size_t most = std::max<std::size_t>(swarm_clients_max(), 1);
  return (clients + most - 1) / most;
}

void run_trial_process(const Scenario& scenario, SharedTrial& shared) { Host(scenario, shared).run(); }

}  // namespace anteroom::bench
