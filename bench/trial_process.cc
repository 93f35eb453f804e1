#include "trial_process.h"

#include <anteroom/bench/random.h>
#include <anteroom/bench/road.h>
#include <anteroom/bench/socket_diag.h>
#include <anteroom/bench/swarm.h>
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
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "process.h"
#include "server_process.h"
#include "tested_server.h"

namespace anteroom::bench {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

// What decides how a full queue behaves.
constexpr std::array kSysctls{
    "net.core.somaxconn",          "net.core.netdev_max_backlog",      "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_syncookies",     "net.ipv4.tcp_abort_on_overflow",   "net.ipv4.tcp_syn_retries",
    "net.ipv4.tcp_synack_retries", "net.ipv4.tcp_syn_linear_timeouts", "net.ipv4.tcp_tw_reuse",
    "net.ipv4.ip_local_port_range"};
constexpr std::chrono::seconds kReadyLimit{20};
// Beyond the end of everybody's patience, before a swarm counts as hung.
constexpr std::chrono::seconds kGrace{5};

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
  Host(const Scenario& scenario, const Target* target, SharedTrial& shared)
      : scenario_(scenario),
        target_(target),
        board_(shared.board()),
        records_(shared.records()),
        road_({.rtt = scenario.rtt,
               .loss = scenario.loss,
               .seed = scenario.seed,
               .stays = target != nullptr,
               .sysctls = scenario.sysctls}),
        server_(target != nullptr ? foreign_server(*target)
                                  : embedded_server(scenario, road_, shared, processors_, failed_)) {}

  void run() {
    note_road();
    board_.backlog_in_force = server_->queues().limit;
    const Counters before(road_);
    start_processes();
    if (wait_until_ready()) {
      watch(before);
      const Counters after(road_);
      board_.server_counters = after.server.since(before.server);
      board_.client_counters = after.client.since(before.client);
      board_.softnet_drops = after.softnet_drops - before.softnet_drops;
      const Queues queues = server_->queues();
      board_.listener_drops = queues.drops;
      board_.waiting_at_end = queues.waiting;
      board_.server_died = server_->has_ended();
    }
    board_.server_cpu_ns = server_->end().count();
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

  void start_processes() {
    to_be_ready_ = server_->start();
    if (road_.is_delayed())
      delay_line_.pid = fork_process(failed_, std::nullopt, [&] { road_.carry(board_.traffic); });
    std::size_t swarms = swarms_for(records_.size());
    if (scenario_.loop == Loop::kClosed) {
      swarms = swarms_for(static_cast<std::size_t>(scenario_.flows));
    } else if (scenario_.arrival == Arrival::kBurst && processors_.swarm) {
      swarms = std::max<std::size_t>(
          swarms, static_cast<std::size_t>(CPU_COUNT(&*processors_.swarm)));  // as sharp as can be
    }
    for (std::size_t i = 0; i < swarms; ++i) {
      const auto play = [&, i] { play_swarm(i, swarms); };
      swarms_.push_back({.pid = fork_process(failed_, processors_.swarm, play)});
    }
    to_be_ready_ += swarms;
  }

  void play_swarm(std::size_t index, std::size_t swarms) {
    road_.go_to_client_side();
    swarm_clients_max();
    ::prctl(PR_SET_TIMERSLACK, 1);  // ns: clients call on time, not within 50 µs of it
    SwarmPlan plan{.server = server_->address(),
                   .sources = sources(),
                   .records = records_,
                   .first = index,
                   .step = swarms,
                   .is_burst = is_sharp_burst(),
                   .flows = flows_of(index, swarms),
                   .dialogue = target_ != nullptr ? target_->dialogue : Dialogue(),
                   .end = load_end(),
                   .syn_linear_timeouts = board_.syn_linear_timeouts,
                   .stop = &board_.stop,
                   .called = &board_.clients_called,
                   .ended = &board_.clients_ended};
    if (is_server_seen()) plan.server_sockets = [this] { return sockets_of_the_server(); };
    plan.start = wait_for_start(board_);
    run_swarm(plan);
  }

  bool is_server_seen() const noexcept { return target_ == nullptr || !target_->listeners.empty(); }

  std::vector<ConnectedSocket> sockets_of_the_server() const {
    road_.go_to_server_side();
    std::vector<ConnectedSocket> sockets = SocketDiag().connections(server_->local_port());
    road_.go_to_client_side();
    return sockets;
  }

  /// Where the clients call from. Where they close first, as with a server that does not, their ports are not
  /// free again for a minute: so each trial has other addresses.
  std::vector<Endpoint> sources() const {
    std::vector<Endpoint> sources;
    std::size_t first = 0;
    if (target_ != nullptr) {
      if (target_->has_one_source || !target_->address.is_loopback() || target_->address.family() != AF_INET)
        return sources;  // the kernel picks
      first =
          Random(scenario_.seed + static_cast<std::uint64_t>(scenario_.backlog)).next() % Road::kSourcesMax;
    }
    for (std::size_t i = 0; i < sources_for(records_.size()); ++i)
      sources.emplace_back(road_.source_address((first + i) % Road::kSourcesMax), std::uint16_t{0});
    return sources;
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
    while (board_.ready.load() < to_be_ready_) {
      if (board_.failure[0] != '\0') return false;
      if (Clock::now() > limit || server_->has_ended()) {
        board_.fail("the processes of the trial did not get ready");
        return false;
      }
      std::this_thread::sleep_for(200us);
    }
    start_ = Clock::now() + 10ms;
    board_.start_ns.store(start_.time_since_epoch().count());
    return true;
  }

  /// Samples the queues and the clients until the swarms have ended, or the server has.
  void watch(const Counters& before_load) {
    const Clock::time_point limit = start_ + load_end() + kGrace;
    const Clock::time_point stall_seen_until = start_ + first_stall_seen();
    DepthOverTime& over_time = board_.depth_over_time;
    const auto steps = static_cast<std::int64_t>(over_time.depth.size());
    over_time.step_ns = std::max<std::int64_t>((load_end() + 50ms).count() / steps + 1, 1'000'000);
    over_time.depth.fill(DepthOverTime::kNoSample);
    bool stall_was_seen = false;
    double client_ns = 0;
    Clock::time_point before = start_;
    std::this_thread::sleep_until(start_ - 2ms);
    for (;;) {
      const Clock::time_point now = Clock::now();
      const Queues queues = server_->queues();
      board_.queue_peak_sampled = std::max(board_.queue_peak_sampled, queues.deepest);
      if (!stall_was_seen && (now >= stall_seen_until || swarms_have_ended())) {
        stall_was_seen = true;
        board_.first_stall_drops = drops_since(before_load, queues);
      }
      if (now >= start_) {
        const auto step = static_cast<std::uint32_t>(
            std::min<std::int64_t>((now - start_).count() / over_time.step_ns, steps - 1));
        over_time.steps = step + 1;
        std::uint32_t& deepest = over_time.depth[step];
        deepest = deepest == DepthOverTime::kNoSample ? queues.deepest : std::max(deepest, queues.deepest);
        const std::int64_t in_system =
            std::int64_t{board_.clients_called.load()} - board_.clients_ended.load();
        client_ns += static_cast<double>(in_system) * static_cast<double>((now - before).count());
        before = now;
      }
      if ((swarms_have_ended() && stall_was_seen) || board_.failure[0] != '\0' || server_->has_ended()) break;
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

  const Scenario& scenario_;
  const Target* target_;
  TrialBoard& board_;
  const Failed failed_ = [this](std::string_view why) { board_.fail(why); };
  std::span<ClientRecord> records_;
  Road road_;
  const Processors processors_ = divide_processors();
  std::unique_ptr<TestedServer> server_;
  std::size_t to_be_ready_ = 0;
  Clock::time_point start_;
  Child delay_line_;
  std::vector<Child> swarms_;
};

}  // namespace

std::size_t swarms_for(std::size_t clients) noexcept {
  const std::size_t most = std::max<std::size_t>(swarm_clients_max(), 1);
  return (clients + most - 1) / most;
}

void run_trial_process(const Scenario& scenario, const Target* target, SharedTrial& shared) {
  Host(scenario, target, shared).run();
}

}  // namespace anteroom::bench
