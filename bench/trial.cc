#include <anteroom/bench/swarm.h>
#include <anteroom/bench/trial.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <exception>
#include <thread>

#include "trial_board.h"
#include "trial_process.h"

namespace anteroom::bench {
namespace {

using namespace std::chrono_literals;
using std::chrono::nanoseconds;

constexpr std::size_t kSwarmsMax = 64;
// The generator was the limit, and the trial is void, when more than one client in twenty called later than
// this, or than a fiftieth of the stall: a queue that grows by rate x stall is then known to within 2 %. A
// burst has no pace to keep, but must be one: 10,000 calls a second, a third of what one processor makes
// here, plus one hiccup.
constexpr nanoseconds kLatenessMax = 10ms;
constexpr nanoseconds kLatenessMin = 1ms;
constexpr int kLatenessOfStall = 50;
constexpr double kLateShareMax = 0.05;
constexpr nanoseconds kBurstGapMax = 100us;
constexpr nanoseconds kBurstHiccup = 100ms;

/// Runs the host process to its end, or kills it; its children die with it.
bool host_trial(const Scenario& scenario, SharedTrial& shared, const std::atomic<bool>& interrupted,
                const TrialProgress& progress) {
  const pid_t parent = ::getpid();
  const pid_t host = ::fork();
  if (host < 0) throw std::system_error(errno, std::system_category(), "fork for a trial");
  if (host == 0) {
    tie_to_parent(parent);
    try {
      run_trial_process(scenario, shared);
    } catch (const std::exception& error) {
      shared.board().fail(error.what());
    }
    ::_exit(0);
  }
  for (;;) {
    int status = 0;
    const pid_t ended = ::waitpid(host, &status, WNOHANG);
    if (ended == host || (ended < 0 && errno != EINTR)) return true;
    if (interrupted.load()) {
      ::kill(host, SIGKILL);
      while (::waitpid(host, &status, 0) < 0 && errno == EINTR) {
      }
      return false;
    }
    if (progress) progress(shared.board().clients_ended.load(), static_cast<std::uint32_t>(scenario.clients));
    std::this_thread::sleep_for(10ms);
  }
}

void count_clients(std::span<const ClientRecord> records, const Scenario& scenario, TrialResult& result) {
  const std::int64_t end_ns = records.back().intended_ns + scenario.patience.count();
  std::int64_t first_call = end_ns;
  std::int64_t last_call = 0;
  std::int64_t last_byte = 0;
  Histogram lateness;
  for (const ClientRecord& record : records) {
    ++result.fates[record.fate];
    result.books.syn_retransmits += record.retransmits;
    result.books.in_syn_sent += record.in_syn_sent ? 1 : 0;
    if (record.retransmits > 0 || record.in_syn_sent) ++result.lost_first_syn;
    const bool served = record.first_byte_ns >= 0;
    result.first_byte.record(nanoseconds((served ? record.first_byte_ns : end_ns) - record.intended_ns));
    if (!served) {
      const nanoseconds age(end_ns - record.intended_ns);
      result.least_unserved_age = result.unserved == 0 ? age : std::min(result.least_unserved_age, age);
      ++result.unserved;
    }
    last_byte = std::max(last_byte, record.first_byte_ns);
    if (record.called_ns < 0) continue;
    lateness.record(nanoseconds(record.called_ns - record.intended_ns));
    first_call = std::min(first_call, record.called_ns);
    last_call = std::max(last_call, record.called_ns);
  }
  result.lateness_p99 = lateness.percentile(0.99);
  result.launch_span = nanoseconds(std::max<std::int64_t>(last_call - first_call, 0));
  const std::int64_t until = result.unserved == 0 ? last_byte : end_ns;
  const double served_s = static_cast<double>(until - records.front().intended_ns) * 1e-9;
  if (served_s > 0) result.connections_per_second = result.fates.served() / served_s;
}

void count_kernel(const TrialBoard& board, TrialResult& result) {
  result.counters = board.counters;
  result.backlog_in_force = board.backlog_in_force;
  result.listener_drops = board.listener_drops;
  result.first_stall_drops = board.first_stall_drops;
  result.accepted = board.accepted;
  result.deepest_queue = std::max(board.queue_peak_sampled, board.queue_peak_at_accept);
  result.longest_wait = std::chrono::milliseconds(board.longest_wait_ms);
  result.server_cpu = nanoseconds(board.server_cpu_ns);
  result.swarm_cpu = nanoseconds(board.swarm_cpu_ns);
  Books& books = result.books;
  // In a network that others share, only the listener's own count is ours.
  books.listen_drops = static_cast<std::int64_t>(board.is_private_network ? board.counters.listen_drops
                                                                          : board.listener_drops);
  books.softnet_drops = static_cast<std::int64_t>(board.counters.softnet_drops);
  books.ghosts = result.fates[Fate::kGhost];
  books.synack_retransmits =
      static_cast<std::int64_t>(board.counters.syn_retransmits) - books.syn_retransmits;
  books.fates = result.fates.total();
  books.clients = result.scenario.clients;
  // A queue that was full once was one deeper than its limit, whether or not a sample fell into that moment.
  if (board.counters.listen_overflows > 0 && board.listener_drops > 0) {
    result.deepest_queue = std::max(result.deepest_queue, board.backlog_in_force + 1);
  }
}

std::string in_milliseconds(nanoseconds duration) {
  return fmt::format("{:.1f} ms", std::chrono::duration<double, std::milli>(duration).count());
}

/// Whether the clients called when they were meant to; empty if so.
std::string generator_problem(std::span<const ClientRecord> records, const TrialResult& result) {
  if (result.scenario.arrival == Arrival::kBurst) {
    const nanoseconds longest = kBurstGapMax * result.scenario.clients + kBurstHiccup;
    if (result.launch_span <= longest) return {};
    return fmt::format("the generator was the limit: the burst took {} to begin, more than {}",
                       in_milliseconds(result.launch_span), in_milliseconds(longest));
  }
  const nanoseconds stall = result.scenario.stall;
  const nanoseconds allowed =
      stall > stall.zero() ? std::clamp(stall / kLatenessOfStall, kLatenessMin, kLatenessMax) : kLatenessMax;
  const auto late = std::ranges::count_if(records, [allowed](const ClientRecord& record) {
    return record.called_ns < 0 || record.called_ns - record.intended_ns > allowed.count();
  });
  const double share = static_cast<double>(late) / static_cast<double>(records.size());
  if (share <= kLateShareMax) return {};
  return fmt::format("the generator was the limit: {:.0f} % of the clients called more than {} late",
                     share * 100, in_milliseconds(allowed));
}

/// What the kernel made of the backlog; empty if it is what was asked for.
std::string backlog_problem(const TrialResult& result) {
  const auto wanted = static_cast<std::uint32_t>(result.scenario.backlog);
  const bool is_unlimited = result.scenario.backlog == kUnlimitedBacklog;
  if (is_unlimited ? result.listener_drops == 0 : result.backlog_in_force == wanted) return {};
  return fmt::format("net.core.somaxconn clipped the backlog to {}: sysctl -w net.core.somaxconn=65535",
                     result.backlog_in_force);
}

void find_problems(const TrialBoard& board, std::span<const ClientRecord> records, TrialResult& result) {
  const auto problem = [&](std::string text) { result.problems.push_back(std::move(text)); };
  if (board.server_died) problem("the server ended in the middle of the trial");
  if (board.swarm_hung) problem("the swarm did not end in time");
  if (!result.books.balance()) {
    problem(
        fmt::format("the books do not balance: the kernel dropped {} (and {} in a processor's input queue), "
                    "the clients missed {}",
                    result.books.listen_drops, result.books.softnet_drops, result.books.missed()));
  }
  for (const std::string& text : {generator_problem(records, result), backlog_problem(result)}) {
    if (!text.empty()) problem(text);
  }
  if (board.server_rests > 0) problem("the server ran out of descriptors or memory: ulimit -n");
  if (result.accepted < result.fates.served()) {
    problem(fmt::format("{} were served, but the server knows of only {}", result.fates.served(),
                        result.accepted));
  }
  if (const auto count = result.fates[Fate::kNoLocalPort]) {
    problem(
        fmt::format("the generator ran out of local ports for {} clients: sysctl -w "
                    "net.ipv4.ip_local_port_range='1024 65535'",
                    count));
  }
  if (const auto count = result.fates[Fate::kNoDescriptor]) {
    problem(fmt::format("the generator ran out of descriptors or memory for {} clients: ulimit -n", count));
  }
  if (const auto count = result.fates[Fate::kNotStarted])
    problem(fmt::format("{} clients were never started", count));
}

}  // namespace

TrialResult run_trial(const Scenario& scenario, const std::atomic<bool>& interrupted,
                      const TrialProgress& progress) {
  TrialResult result;
  result.scenario = scenario;
  SharedTrial shared(static_cast<std::size_t>(scenario.clients));
  const std::vector<nanoseconds> times =
      schedule(scenario.arrival, scenario.clients, scenario.rate, scenario.seed);
  const std::span<ClientRecord> records = shared.records();
  for (std::size_t i = 0; i < times.size(); ++i) records[i].intended_ns = times[i].count();

  const bool ended = host_trial(scenario, shared, interrupted, progress);
  const TrialBoard& board = shared.board();
  result.is_private_network = board.is_private_network;
  result.why_not_private = board.why_not_private;
  result.complete = ended && board.complete;
  if (!result.complete) {
    const std::string why = board.failure[0] != '\0' ? board.failure : "its process was killed";
    result.problems.push_back(ended ? "it could not be run: " + why : "interrupted");
    return result;
  }
  count_clients(records, scenario, result);
  count_kernel(board, result);
  find_problems(board, records, result);
  return result;
}

std::string clients_limit_problem(int clients) {
  const std::size_t most = swarm_clients_max();
  if (most > 0 && swarms_for(static_cast<std::size_t>(clients)) <= kSwarmsMax) return {};
  return fmt::format(
      "{} clients need more descriptors than {} processes of {} have: raise the hard limit (ulimit -Hn), or "
      "take fewer",
      clients, kSwarmsMax, most);
}

}  // namespace anteroom::bench
