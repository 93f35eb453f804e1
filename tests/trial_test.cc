// Negative controls: trials whose outcome is known beforehand have to come out so.
#include <anteroom/acceptor.h>
#include <anteroom/bench/experiment.h>
#include <anteroom/bench/sandbox.h>
#include <anteroom/bench/trial.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <thread>

namespace anteroom::bench {
namespace {

using namespace std::chrono_literals;

std::atomic<bool> not_interrupted{false};

/// A trial that counts: on a busy machine the generator may be late, and says so; then there is another.
std::optional<TrialResult> run_until_valid(const Scenario& scenario) {
  constexpr int kTries = 8;
  for (int attempt = 0; attempt < kTries; ++attempt) {
    TrialResult result = run_trial(scenario, not_interrupted);
    EXPECT_TRUE(result.complete) << result.problems.front();
    EXPECT_EQ(result.books.fates, result.books.clients);
    if (!result.is_void()) return result;
    std::printf("void: %s\n", result.problems.front().c_str());
    if (!result.complete) break;
  }
  ADD_FAILURE() << "no trial in " << kTries << " was valid";
  return std::nullopt;
}

int count_children() {
  int count = 0;
  while (::waitpid(-1, nullptr, WNOHANG) > 0) ++count;
  return count;
}

std::size_t count_descriptors() {
  const auto entries = std::filesystem::directory_iterator("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(entries), end(entries)));
}

TEST(Trial, ServesEverybodyWhenNothingIsInTheWay) {
  for (const ServerKind server :
       {ServerKind::kReactor, ServerKind::kBlocking, ServerKind::kThreads, ServerKind::kPool}) {
    const auto result = run_until_valid(
        {.server = server, .backlog = 511, .clients = 200, .arrival = Arrival::kSteady, .rate = 2000});
    if (!result) continue;
    EXPECT_TRUE(result->nobody_turned_away()) << name(server);
    EXPECT_EQ(result->fates[Fate::kServedAtOnce], 200U);
    EXPECT_EQ(result->accepted, 200U);
    EXPECT_EQ(result->counters.listen_overflows, 0U);
    EXPECT_EQ(result->first_byte.count(), 200U);
    EXPECT_EQ(result->unserved, 0U);
    EXPECT_GT(result->connections_per_second, 1000);
    EXPECT_GT(result->server_cpu, 0ns);
  }
}

TEST(Trial, FollowsTheLawOfTheStall) {
  const Scenario scenario{.backlog = 128,
                          .clients = 1500,
                          .arrival = Arrival::kSteady,
                          .rate = 5000,
                          .stall = 100ms,
                          .patience = 1300ms};
  const auto result = run_until_valid(scenario);
  if (!result) return;
  const double law = scenario.stall_loss().value();
  EXPECT_DOUBLE_EQ(law, 371);
  EXPECT_EQ(result->deepest_queue, 129U);
  EXPECT_NEAR(static_cast<double>(result->first_stall_drops), law, law * 0.05);
  EXPECT_NEAR(static_cast<double>(result->lost_first_syn), law, law * 0.05);
  EXPECT_GE(result->counters.listen_overflows, result->first_stall_drops);
  EXPECT_GT(result->fates[Fate::kServedAfterRetransmit], 100U);
  EXPECT_GT(result->first_byte.percentile(0.9), 900ms) << "who lost a SYN waits for a second";
}

TEST(Trial, TurnsNobodyAwayWhenTheQueueHoldsRateTimesStall) {
  const auto result = run_until_valid({.backlog = 1024,
                                       .clients = 1500,
                                       .arrival = Arrival::kSteady,
                                       .rate = 5000,
                                       .stall = 100ms,
                                       .patience = 1300ms});
  if (!result) return;
  EXPECT_TRUE(result->nobody_turned_away());
  EXPECT_EQ(result->counters.listen_drops, 0U);
  EXPECT_NEAR(result->deepest_queue, 500, 50);
  EXPECT_NEAR(static_cast<double>(result->longest_wait.count()), 100, 20);
}

TEST(Trial, StallsTheBlockingServersAlike) {
  for (const ServerKind server : {ServerKind::kBlocking, ServerKind::kThreads, ServerKind::kPool}) {
    const auto result = run_until_valid({.server = server,
                                         .backlog = 4096,
                                         .clients = 600,
                                         .arrival = Arrival::kSteady,
                                         .rate = 2000,
                                         .stall = 100ms,
                                         .patience = 1300ms});
    if (!result) continue;
    EXPECT_NEAR(result->deepest_queue, 200, 30) << name(server);
  }
}

TEST(Trial, TellsRetransmitsFromGhostsAndBalancesItsBooks) {
  // Clients that all call at once at a door with room for two, and a server that speaks first. Their SYNs
  // come again in clumps, and a clump that is larger than the SYN queue gets cookies.
  const auto result = run_until_valid({.backlog = 1, .clients = 3000, .stall = 20ms, .patience = 1500ms});
  if (!result) return;
  EXPECT_EQ(result->fates.total(), 3000U);
  EXPECT_TRUE(result->books.balance()) << "residual " << result->books.residual();
  EXPECT_EQ(result->deepest_queue, 2U);
  EXPECT_GT(result->lost_first_syn, 100U);
  EXPECT_GT(result->books.syn_retransmits, 100);
  EXPECT_GT(result->fates[Fate::kGhost], 100U);
  EXPECT_GT(result->counters.syn_cookies_sent, 0U);
  EXPECT_EQ(result->unserved, 3000 - result->fates.served());
}

TEST(Trial, CountsWhoIsStillWaitingInSynSentAsItsDeadline) {
  // The patience ends before the first SYN is sent again.
  const TrialResult result = run_trial({.backlog = 0,
                                        .clients = 100,
                                        .arrival = Arrival::kSteady,
                                        .rate = 1000,
                                        .stall = 90ms,
                                        .patience = 500ms},
                                       not_interrupted);
  ASSERT_TRUE(result.complete);
  EXPECT_TRUE(result.books.balance()) << "residual " << result.books.residual();
  EXPECT_GT(result.fates[Fate::kDeadline], 50U);
  EXPECT_EQ(result.books.in_syn_sent, result.fates[Fate::kDeadline]);
  EXPECT_EQ(result.books.syn_retransmits, 0);
}

TEST(Trial, PlaysMoreClientsThanOneSourceAddressHolds) {
  const TrialResult result = run_trial({.backlog = kUnlimitedBacklog, .clients = 9000}, not_interrupted);
  ASSERT_TRUE(result.complete);
  EXPECT_TRUE(result.books.balance()) << "residual " << result.books.residual();
  EXPECT_EQ(
      result.fates[Fate::kNoLocalPort] + result.fates[Fate::kNoDescriptor] + result.fates[Fate::kNotStarted],
      0U);
}

TEST(Trial, EndsAtOnceWhenInterruptedAndLeavesNothingBehind) {
  const std::size_t descriptors = count_descriptors();
  std::atomic<bool> interrupted{false};
  const auto begin = std::chrono::steady_clock::now();
  const TrialResult result =
      run_trial({.backlog = 5, .clients = 100'000, .arrival = Arrival::kSteady, .rate = 1000}, interrupted,
                [&](std::uint32_t ended, std::uint32_t /*clients*/) { interrupted = ended > 10; });
  EXPECT_FALSE(result.complete);
  EXPECT_TRUE(result.is_void());
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 20s);
  EXPECT_EQ(count_children(), 0);
  EXPECT_EQ(count_descriptors(), descriptors);
}

TEST(Trial, SaysWhatItLacksForTooManyClients) {
  EXPECT_EQ(clients_limit_problem(1000), "");
  EXPECT_NE(clients_limit_problem(1'000'000'000).find("ulimit"), std::string::npos);
}

TEST(Experiment, RunsEachScenarioOftenAndInterleavedWithOneScheduleARound) {
  std::vector<Scenario> scenarios;
  for (const int backlog : {100, 200, 300}) {
    scenarios.push_back(
        {.backlog = backlog, .clients = 5, .arrival = Arrival::kSteady, .rate = 1000, .patience = 100ms});
  }
  const auto run = [&] { return run_experiment(scenarios, {.repeat = 4, .seed = 11}, not_interrupted); };
  const auto results = run();
  std::vector<int> order;
  std::map<int, std::set<std::uint64_t>> seeds;
  for (const TrialResult& result : results) {
    if (seeds[result.scenario.backlog].insert(result.scenario.seed).second)
      order.push_back(result.scenario.backlog);
  }
  ASSERT_EQ(order.size(), 12U);
  EXPECT_FALSE(std::ranges::is_sorted(order));
  EXPECT_EQ(seeds[100].size(), 4U);
  EXPECT_EQ(seeds[100], seeds[200]);
  EXPECT_EQ(seeds[100], seeds[300]);
}

TEST(Sandbox, HasItsOwnCountersAndSysctls) {
  const pid_t child = ::fork();
  if (child == 0) {
    const Sandbox sandbox = enter_sandbox();
    if (!sandbox.is_private) ::_exit(77);
    const bool wrote = write_sysctl("net.core.somaxconn", "123");
    const bool fresh = read_kernel_counters().active_opens == 0;
    const bool refused = !write_sysctl("net.core.no_such_thing", "1");
    ::_exit(wrote && fresh && refused && system_backlog_max() == 123 ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77) GTEST_SKIP() << "no private network is to be had here";
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_NE(system_backlog_max(), 123) << "the machine's own is as it was";
}

}  // namespace
}  // namespace anteroom::bench
