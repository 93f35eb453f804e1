#include <anteroom/bench/swarm.h>
#include <anteroom/bench/trial.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <exception>
#include <map>
#include <optional>
#include <span>
#include <thread>

#include "process.h"
#include "trial_board.h"
#include "trial_process.h"

namespace anteroom::bench {
namespace {

using namespace std::chrono_literals;
using std::chrono::nanoseconds;

constexpr std::size_t kSwarmsMax = 64;
// The generator was the limit, and the trial is void, when more than one client in twenty called later than
// this, or than a twentieth of the stall: a queue that grows by rate x stall is then known to within 5 %.
constexpr nanoseconds kLatenessMax = 10ms;
constexpr nanoseconds kLatenessMin = 1ms;
constexpr int kLatenessOfStall = 20;
constexpr double kLateShareMax = 0.05;
// Those who are to call within so short a time may be late by what the calls of one another cost, 25 to 40
// us.
constexpr nanoseconds kNear = 10ms;
constexpr nanoseconds kCallCost = 40us;
// Beside a server that takes what processors it likes, it may be later, and that is told.
constexpr nanoseconds kLatenessBesideMax = 50ms;
constexpr nanoseconds kCallCostBeside = 100us;
// A burst has no pace to keep, but must be one: 10,000 calls a second, a third of what one processor makes
// here, plus one hiccup.
constexpr nanoseconds kBurstGapMax = 100us;
constexpr nanoseconds kBurstHiccup = 100ms;

// Until a trial that was asked to end has done so; its swarms look every 50 ms.
constexpr nanoseconds kStopLimit = 3s;

/// Runs the host process to its end, or kills it; its children die with it. One on a server that was there
/// before may be long, and is asked to end before that, so that what it has seen until then is not lost.
bool host_trial(const Scenario& scenario, SharedTrial& shared, const std::atomic<bool>& interrupted,
                const TrialProgress& progress, const Target* target) {
  const pid_t host = fork_process([&shared](std::string_view why) { shared.board().fail(why); }, std::nullopt,
                                  [&] { run_trial_process(scenario, target, shared); });
  std::optional<std::chrono::steady_clock::time_point> asked;
  for (;;) {
    int status = 0;
    const pid_t ended = ::waitpid(host, &status, WNOHANG);
    if (ended == host || (ended < 0 && errno != EINTR)) return true;
    if (interrupted.load() && target != nullptr && !asked) {
      asked = std::chrono::steady_clock::now();
      shared.board().stop.store(true);
    }
    if (interrupted.load() && (!asked || std::chrono::steady_clock::now() - *asked > kStopLimit)) {
      ::kill(host, SIGKILL);
      while (::waitpid(host, &status, 0) < 0 && errno == EINTR) {
      }
      return false;
    }
    if (progress) progress(shared.board().clients_ended.load(), static_cast<std::uint32_t>(scenario.clients));
    std::this_thread::sleep_for(10ms);
  }
}

/// "name=value" in each line.
std::vector<std::pair<std::string, std::string>> read_lines(std::string_view text) {
  std::vector<std::pair<std::string, std::string>> pairs;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    const std::size_t equals = line.find('=');
    if (equals != line.npos) pairs.emplace_back(line.substr(0, equals), line.substr(equals + 1));
  }
  return pairs;
}

/// Whether anything is known of the server's side.
bool is_seen(const Target* target) noexcept { return target == nullptr || !target->listeners.empty(); }

/// Who lost its first SYN.
bool lost_first_syn(const ClientRecord& record) noexcept {
  return record.retransmits > 0 || record.in_syn_sent;
}

/// Whose handshake was thrown away at the door: its SYN, or its last ACK, after which it is a ghost until
/// what it says finds a place.
bool was_turned_away(const ClientRecord& record) noexcept {
  return lost_first_syn(record) || record.fate == Fate::kGhostHalfOpen ||
         record.fate == Fate::kGhostUnknown || record.fate == Fate::kResetBeforeAccept ||
         record.request_retransmits > 0;
}

/// Of a server that was there before nobody says whom it has accepted. But a kernel resets whom it has not
/// accepted only if it is told to (tcp_abort_on_overflow).
void take_resets_for_the_servers(std::span<ClientRecord> records) {
  for (ClientRecord& record : records) {
    if (record.fate == Fate::kResetBeforeAccept) record.fate = Fate::kResetAfterAccept;
  }
}

/// A reset looks the same to a client whether or not the server had accepted it; the server knows.
void tell_resets_apart(std::span<ClientRecord> records, std::span<const std::uint64_t> peers) {
  if (std::ranges::none_of(
          records, [](Fate fate) { return fate == Fate::kResetBeforeAccept; }, &ClientRecord::fate))
    return;
  std::vector<std::uint64_t> accepted(peers.begin(), peers.end());
  std::ranges::sort(accepted);
  for (ClientRecord& record : records) {
    if (record.fate == Fate::kResetBeforeAccept && std::ranges::binary_search(accepted, record.local))
      record.fate = Fate::kResetAfterAccept;
  }
}

/// SYNs that are sent within one slot of the kernel's timer wheel, 32 ms, go out again in the same tick.
std::uint32_t largest_clump(std::span<const ClientRecord> records) {
  constexpr std::int64_t kSlotNs = 32'000'000;
  std::map<std::int64_t, std::uint32_t> slots;
  std::uint32_t largest = 0;
  for (const ClientRecord& record : records) {
    if (lost_first_syn(record)) largest = std::max(largest, ++slots[record.called_ns / kSlotNs]);
  }
  return largest;
}

std::vector<Cycle> count_cycles(std::span<const ClientRecord> records, const Scenario& scenario) {
  if (scenario.stall_every <= 0ns || scenario.loop != Loop::kOpen) return {};
  std::vector<Cycle> cycles(static_cast<std::size_t>(scenario.cycles()));
  for (const ClientRecord& record : records) {
    const auto index = static_cast<std::size_t>(record.intended_ns / scenario.stall_every.count());
    Cycle& cycle = cycles[std::min(index, cycles.size() - 1)];
    ++cycle.clients;
    cycle.lost += was_turned_away(record) ? 1 : 0;
  }
  return cycles;
}

/// The time from a client's start to `until_ns`, or if that never came, its age at the end.
void record_latency(Latencies& latencies, std::int64_t intended_ns, std::int64_t until_ns,
                    std::int64_t end_ns) {
  if (until_ns >= 0) {
    latencies.record(nanoseconds(until_ns - intended_ns));
  } else {
    latencies.record_unfinished(nanoseconds(end_ns - intended_ns));
  }
}

void count_clients(std::span<const ClientRecord> records, bool was_stopped, TrialResult& result) {
  const Scenario& scenario = result.scenario;
  const bool is_closed = scenario.loop == Loop::kClosed;
  std::int64_t end_ns =
      is_closed ? scenario.load_length().count() : records.back().intended_ns + scenario.patience.count();
  if (was_stopped) end_ns = std::ranges::max_element(records, {}, &ClientRecord::ended_ns)->ended_ns;
  std::int64_t first_call = end_ns;
  std::int64_t last_call = 0;
  std::int64_t last_byte = 0;
  double in_system_ns = 0;
  result.clients = static_cast<std::uint32_t>(records.size());
  BookEntries& entries = result.entries;
  const bool any_served =
      std::ranges::any_of(records, [](const ClientRecord& record) { return record.first_byte_ns >= 0; });
  for (const ClientRecord& record : records) {
    ++result.fates[record.fate];
    const bool was_under_way = is_closed && any_served && record.fate == Fate::kDeadline;
    entries.syn_retransmits += record.retransmits;
    entries.in_syn_sent += record.in_syn_sent ? 1 : 0;
    if (lost_first_syn(record)) ++result.lost_first_syn;
    if (was_turned_away(record)) ++result.turned_away;
    if (record.fate == Fate::kServedAfterRetransmit) {
      if (result.served_after.size() < record.retransmits) result.served_after.resize(record.retransmits);
      ++result.served_after[record.retransmits - std::size_t{1}];
    }
    if (!was_under_way) record_latency(result.first_byte, record.intended_ns, record.first_byte_ns, end_ns);
    if (!was_under_way || record.writable_ns >= 0)
      record_latency(result.connect, record.intended_ns, record.writable_ns, end_ns);
    last_byte = std::max(last_byte, record.first_byte_ns);
    if (record.called_ns < 0) continue;
    const bool was_sent = record.fate != Fate::kNoLocalPort && record.fate != Fate::kNoDescriptor;
    entries.called += was_sent ? 1 : 0;
    result.lateness.record(nanoseconds(record.called_ns - record.intended_ns));
    first_call = std::min(first_call, record.called_ns);
    last_call = std::max(last_call, record.called_ns);
    if (!is_closed || record.first_byte_ns >= 0)
      in_system_ns += static_cast<double>(std::max(record.ended_ns, record.called_ns) - record.called_ns);
  }
  result.launch_span = nanoseconds(std::max<std::int64_t>(last_call - first_call, 0));
  const std::int64_t until = std::max(last_byte, is_closed ? last_byte : records.back().intended_ns);
  const double served_s = static_cast<double>(until - records.front().intended_ns) * 1e-9;
  if (served_s > 0) result.connections_per_second = result.fates.served() / served_s;
  result.rate_times_latency = in_system_ns;  // to be divided by the time that was sampled
  result.cycles = count_cycles(records, scenario);
  result.largest_clump = largest_clump(records);
}

/// The deepest that the queue was in each cycle, by the samples; in the deepest of all, as it was at an
/// accept.
void note_peaks(TrialResult& result) {
  if (result.cycles.empty() || result.depth_step <= 0ns) return;
  for (std::size_t step = 0; step < result.depth_over_time.size(); ++step) {
    const auto cycle = static_cast<std::size_t>(static_cast<std::int64_t>(step) * result.depth_step /
                                                result.scenario.stall_every);
    if (cycle >= result.cycles.size()) break;
    result.cycles[cycle].peak = std::max(result.cycles[cycle].peak, result.depth_over_time[step].value_or(0));
  }
  std::ranges::max_element(result.cycles, {}, &Cycle::peak)->peak = result.deepest_queue;
}

void count_kernel(const TrialBoard& board, const Target* target, TrialResult& result) {
  const auto number = [](std::uint64_t count) { return static_cast<std::int64_t>(count); };
  result.server_counters = board.server_counters;
  result.client_counters = board.client_counters;
  result.softnet_drops = board.softnet_drops;
  result.traffic = board.traffic;
  result.backlog_in_force = board.backlog_in_force;
  result.listener_drops = board.listener_drops;
  result.first_stall_drops = board.first_stall_drops;
  // A server that had to be killed has not said it; and of a guest who is gone nobody knows who it was.
  result.accepted = std::max<std::uint64_t>(board.accepted, board.peers.load());
  if (target != nullptr)
    result.accepted = std::uint64_t{result.fates.served()} + result.fates[Fate::kAnsweredOtherwise] +
                      result.fates[Fate::kResetAfterAccept];
  result.deepest_queue = std::max(board.queue_peak_sampled, board.queue_peak_at_accept);
  result.longest_wait = std::chrono::milliseconds(board.longest_wait_ms);
  result.queue_wait = board.queue_wait;
  result.server_cpu = nanoseconds(board.server_cpu_ns);
  result.swarm_cpu = nanoseconds(board.swarm_cpu_ns);
  result.depth_step = nanoseconds(board.depth_over_time.step_ns);
  for (std::uint32_t step = 0; step < board.depth_over_time.steps; ++step) {
    const std::uint32_t depth = board.depth_over_time.depth[step];
    result.depth_over_time.push_back(depth == DepthOverTime::kNoSample ? std::nullopt : std::optional(depth));
  }
  result.mean_in_system = board.mean_in_system;
  result.rate_times_latency =
      board.sampled_ns > 0 ? result.rate_times_latency / static_cast<double>(board.sampled_ns) : 0;
  // A queue that was full once was one deeper than its limit, whether or not a sample fell into that moment.
  if (board.server_counters[Counter::kListenOverflows] > 0 && board.listener_drops > 0) {
    result.deepest_queue = std::max(result.deepest_queue, board.backlog_in_force + 1);
  }

  const bool is_pair = board.road == RoadKind::kPair;
  const KernelCounters& server = board.server_counters;
  const KernelCounters& callers = is_pair ? board.client_counters : board.server_counters;
  BookEntries& entries = result.entries;
  entries.clients = result.clients;
  entries.fates = result.fates.total();
  entries.ghosts = result.fates.ghosts();
  entries.speak_first = target != nullptr && !target->dialogue.request.empty();
  entries.reset_before_accept = result.fates[Fate::kResetBeforeAccept];
  entries.listener_drops = number(board.listener_drops);
  entries.accepted = number(result.accepted);
  entries.waiting_at_end = board.waiting_at_end;
  entries.is_private = board.road != RoadKind::kShared;
  entries.has_server = is_seen(target);
  entries.has_two_sides = is_pair;
  entries.listen_drops = number(server[Counter::kListenDrops]);
  entries.listen_overflows = number(server[Counter::kListenOverflows]);
  entries.syn_queue_drops = number(server[Counter::kReqQFullDrop]);
  entries.server_syn_retransmits = number(server[Counter::kSynRetrans]);
  entries.client_syn_retransmits = number(board.client_counters[Counter::kSynRetrans]);
  entries.active_opens = number(callers[Counter::kActiveOpens]);
  entries.passive_opens = number(server[Counter::kPassiveOpens]);
  entries.softnet_drops = number(board.softnet_drops);
  entries.cookies_sent = number(server[Counter::kSyncookiesSent]);
  entries.cookies_received = number(server[Counter::kSyncookiesRecv]);
  entries.syncookies = board.syncookies;
  entries.abort_on_overflow = board.abort_on_overflow;
  const RoadTraffic& traffic = board.traffic;
  entries.lost_on_the_road = number(traffic.lost_syn + traffic.lost_syn_ack + traffic.lost_ack);
  result.books = keep_books(entries);
  if (result.scenario.loss > 0) {
    // Whose SYN the road lost was not turned away, and nobody can tell them apart.
    result.turned_away =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(result.door_drops(), result.clients));
    result.cycles.clear();
  }
  note_peaks(result);
}

std::string in_milliseconds(nanoseconds duration) {
  return fmt::format("{:.1f} ms", std::chrono::duration<double, std::milli>(duration).count());
}

/// Whether the clients called when they were meant to; empty if so.
std::string generator_problem(std::span<const ClientRecord> records, const TrialResult& result) {
  if (result.scenario.loop == Loop::kClosed) return {};  // it has no pace to keep
  if (result.scenario.arrival == Arrival::kBurst && result.scenario.burst_within == 0ns) {
    const nanoseconds longest = kBurstGapMax * result.scenario.clients + kBurstHiccup;
    if (result.launch_span <= longest) return {};
    return fmt::format("the generator was the limit (the burst took {} to begin, more than {})",
                       in_milliseconds(result.launch_span), in_milliseconds(longest));
  }
  const nanoseconds stall = result.scenario.stall;
  const bool is_beside = result.scenario.server == ServerKind::kRunning;
  const nanoseconds allowed = is_beside ? kLatenessBesideMax
                              : stall > stall.zero()
                                  ? std::clamp(stall / kLatenessOfStall, kLatenessMin, kLatenessMax)
                                  : kLatenessMax;
  // Those who are to call at once, in a burst or a clump, have to wait for one another.
  std::int64_t late = 0;
  std::size_t first_near = 0;
  for (std::size_t i = 0; i < records.size(); ++i) {
    while (records[i].intended_ns - records[first_near].intended_ns > kNear.count()) ++first_near;
    const nanoseconds by_the_others =
        (is_beside ? kCallCostBeside : kCallCost) * static_cast<std::int64_t>(i - first_near);
    const std::int64_t called_ns = records[i].called_ns;
    if (called_ns < 0 || called_ns - records[i].intended_ns > (allowed + by_the_others).count()) ++late;
  }
  const double share = static_cast<double>(late) / static_cast<double>(records.size());
  if (share <= kLateShareMax) return {};
  return fmt::format("the generator was the limit ({:.0f} % of the clients called more than {} late)",
                     share * 100, in_milliseconds(allowed));
}

/// What the kernel made of the backlog; empty if it is what was asked for.
std::string backlog_problem(const TrialResult& result) {
  if (!result.entries.has_server) return {};  // it is not known
  const auto wanted = static_cast<std::uint32_t>(result.scenario.backlog);
  const bool is_unlimited = result.scenario.backlog == kUnlimitedBacklog;
  if (is_unlimited ? result.door_drops() == 0 : result.backlog_in_force == wanted) return {};
  if (!is_unlimited && result.scenario.server == ServerKind::kRunning && wanted < result.backlog_in_force)
    return fmt::format("somebody else set the backlog to {} meanwhile", result.backlog_in_force);
  return fmt::format("net.core.somaxconn clipped the backlog to {}: raise it (sysctl net.core.somaxconn)",
                     result.backlog_in_force);
}

void find_problems(const TrialBoard& board, std::span<const ClientRecord> records, TrialResult& result) {
  const auto problem = [&](std::string text) { result.problems.push_back(std::move(text)); };
  result.server_died = board.server_died;
  if (board.server_died) return problem("the server ended in the middle of the trial");
  if (board.swarm_hung) problem("the swarm did not end in time");
  for (const Account& account : result.books) {
    if (account.balances()) continue;
    problem(fmt::format("the books do not balance: {} ({} against {}, may differ by {} to {}){}",
                        account.meaning, account.left, account.right, account.allowed_from,
                        account.allowed_to,
                        result.scenario.server == ServerKind::kRunning ? "; do others call it, too?" : ""));
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

bool TrialResult::little_holds() const noexcept {
  return std::abs(mean_in_system - rate_times_latency) <=
         2 + 0.1 * std::max(mean_in_system, rate_times_latency);
}

TrialResult run_trial(const Scenario& scenario, const std::atomic<bool>& interrupted,
                      const TrialProgress& progress, const Target* target) {
  TrialResult result;
  result.scenario = scenario;
  SharedTrial shared(static_cast<std::size_t>(scenario.clients));
  std::span<ClientRecord> records = shared.records();
  if (scenario.loop == Loop::kOpen) {
    const std::vector<nanoseconds> times = schedule(scenario);
    for (std::size_t i = 0; i < times.size(); ++i) records[i].intended_ns = times[i].count();
  }
  const bool ended = host_trial(scenario, shared, interrupted, progress, target);
  const TrialBoard& board = shared.board();
  result.road = board.road;
  result.why_not_better = board.why_not_better;
  result.sysctls = read_lines(board.sysctls);
  result.complete = ended && board.complete;
  if (!result.complete) {
    const std::string why = board.failure[0] != '\0' ? board.failure : "its process was killed";
    result.problems.push_back(ended ? "it could not be run: " + why : "interrupted");
    return result;
  }
  const bool was_stopped = board.stop.load();
  if (scenario.loop == Loop::kClosed || was_stopped) {
    // Not std::ranges::remove_if: clang before 16 compiles no subrange of libstdc++ 12.
    const auto played_end =
        std::remove_if(records.begin(), records.end(), [](const ClientRecord& r) { return r.called_ns < 0; });
    records = records.first(static_cast<std::size_t>(played_end - records.begin()));
    if (records.empty()) {
      result.complete = false;
      result.problems.emplace_back(was_stopped ? "interrupted" : "it could not be run: no flow got to call");
      return result;
    }
  }
  if (target == nullptr) {
    tell_resets_apart(records, shared.peers());
  } else if (!board.abort_on_overflow) {
    take_resets_for_the_servers(records);
  }
  count_clients(records, was_stopped, result);
  count_kernel(board, target, result);
  find_problems(board, records, result);
  if (was_stopped) result.problems.insert(result.problems.begin(), "interrupted");
  return result;
}

std::string clients_limit_problem(int clients) {
  const std::size_t most = swarm_clients_max();
  if (most > 0 && swarms_for(static_cast<std::size_t>(clients)) <= kSwarmsMax) return {};
  if (most == 0)
    return "a process may have so few descriptors here that none is left for a client: raise the hard limit "
           "(ulimit -Hn)";
  return fmt::format(
      "{} clients need more descriptors than {} processes of {} have: raise the hard limit (ulimit -Hn), or "
      "take fewer",
      clients, kSwarmsMax, most);
}

}  // namespace anteroom::bench
