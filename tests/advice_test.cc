#include <anteroom/bench/advice.h>
#include <anteroom/bench/summary.h>
#include <gtest/gtest.h>

namespace anteroom::bench {
namespace {

/// `seed` is the schedule: trials that share one are one witness of how deep the queue gets.
TrialResult trial(int backlog, std::uint32_t deepest, std::uint32_t lost, std::uint64_t seed = 1) {
  TrialResult result;
  result.complete = true;
  result.scenario = {.backlog = backlog,
                     .clients = 1000,
                     .arrival = Arrival::kSteady,
                     .rate = 5000,
                     .stall = std::chrono::milliseconds(100)};
  result.scenario.seed = seed;
  result.clients = 1000;
  result.fates[Fate::kServedAtOnce] = 1000 - lost;
  result.fates[Fate::kServedAfterRetransmit] = lost;
  result.lost_first_syn = lost;
  result.turned_away = lost;
  result.listener_drops = lost;
  result.entries.listen_drops = lost;
  result.deepest_queue = deepest;
  result.longest_wait = std::chrono::milliseconds(100);
  result.connections_per_second = 100.0 * backlog;
  result.server_cpu = std::chrono::milliseconds(20);  // 20 us each
  return result;
}

TrialResult with_unserved(TrialResult result, std::uint32_t unserved) {
  result.fates[Fate::kServedAtOnce] -= unserved;
  result.fates[Fate::kDeadline] += unserved;
  return result;
}

/// Three schedules, each at four backlogs and without a limit.
std::vector<TrialResult> measured() {
  std::vector<TrialResult> trials;
  for (const auto& [seed, deepest] : {std::pair<std::uint64_t, std::uint32_t>(1, 505), {2, 501}, {3, 498}}) {
    trials.push_back(trial(128, 129, 371, seed));
    for (const int backlog : {511, 1024, 4096, kUnlimitedBacklog})
      trials.push_back(trial(backlog, deepest, 0, seed));
  }
  return trials;
}

TEST(Advice, IsTheSmallestTriedThatMeetsTheTargetAndHasRoomToSpare) {
  const Advice advice = advise(measured(), {.refine = false});
  EXPECT_EQ(advice.recommended, 1024);  // 511 holds 512, only 1.4 % more than 505: luck
  EXPECT_TRUE(advice.confirmed);
  EXPECT_TRUE(advice.try_next.empty());
  EXPECT_EQ(advice.deepest_queue.most, 505);
  EXPECT_EQ(advice.unlimited_trials, 3);
  EXPECT_EQ(advice.schedules, 3);
  EXPECT_EQ(advice.deepest_queue.n, 3) << "one a schedule, however many trials had it";
  EXPECT_EQ(advice.lossless_trials, 12);
  EXPECT_EQ(advice.largest_lossy, 128);
  EXPECT_DOUBLE_EQ(advice.predicted_depth.value(), 500);
  EXPECT_NEAR(advice.headroom(), 1.03, 0.01);
  EXPECT_LE(advice.loss_upper, 0.001);
  EXPECT_EQ(advice.model_needs.dominant(), Term::kStall);
  EXPECT_NEAR(advice.places_max.value(), 50'000 * 1.4, 1);  // 1.5 s of patience, less the stall
}

TEST(Advice, LooksCloserToTheKnee) {
  std::vector<TrialResult> trials = measured();
  Advice advice = advise(trials);
  EXPECT_EQ(advice.recommended, 1024);
  EXPECT_EQ(advice.try_next, std::vector<int>{768});
  trials.push_back(trial(768, 503, 0, 4));
  advice = advise(trials);
  EXPECT_EQ(advice.recommended, 1024) << "one run proves nothing";
  trials.push_back(trial(768, 503, 0, 5));
  advice = advise(trials);
  EXPECT_EQ(advice.recommended, 768);
  EXPECT_TRUE(advice.confirmed);
  EXPECT_TRUE(advice.try_next.empty());
}

TEST(Advice, ComesBackFromWhatLooksEnoughAndIsNot) {
  std::vector<TrialResult> trials = measured();
  trials.push_back(trial(768, 769, 10, 4));
  trials.push_back(trial(768, 500, 0, 5));
  const Advice advice = advise(trials);
  EXPECT_EQ(advice.recommended, 1024);
  EXPECT_EQ(advice.largest_lossy, 768);
  EXPECT_TRUE(advice.try_next.empty());
}

TEST(Advice, AsksForMoreRoomTheMoreThePeaksDiffer) {
  const auto with_peaks = [](std::uint32_t a, std::uint32_t b, std::uint32_t c) {
    return advise({trial(kUnlimitedBacklog, a, 0, 1), trial(kUnlimitedBacklog, b, 0, 2),
                   trial(kUnlimitedBacklog, c, 0, 3)});
  };
  EXPECT_EQ(with_peaks(300, 300, 300).recommended, 384);
  EXPECT_GT(with_peaks(240, 300, 290).recommended, 384);
  EXPECT_FALSE(with_peaks(300, 300, 300).confirmed);
}

TEST(Advice, TakesOneScheduleForOneWitness) {
  // However often the same schedule is played, it shows one peak; another may have had a burst in its stall.
  const Advice often = advise({trial(kUnlimitedBacklog, 100, 0), trial(kUnlimitedBacklog, 100, 0),
                               trial(1024, 99, 0), trial(4096, 100, 0)});
  EXPECT_EQ(often.deepest_queue.n, 1);
  EXPECT_EQ(often.schedules, 1);
  const Advice others = advise({trial(kUnlimitedBacklog, 100, 0, 1), trial(kUnlimitedBacklog, 200, 0, 2),
                                trial(kUnlimitedBacklog, 103, 0, 3)});
  EXPECT_GT(others.recommended, often.recommended * 2);
}

TEST(Advice, CountsEachStallCycleOfAScheduleAsAPeak) {
  std::vector<TrialResult> trials;
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    TrialResult unlimited = trial(kUnlimitedBacklog, 505, 0, seed);
    unlimited.cycles = {{.clients = 500, .peak = 480}, {.clients = 500, .peak = 505}};
    trials.push_back(unlimited);
  }
  EXPECT_EQ(advise(trials).deepest_queue.n, 6);
}

TEST(Advice, HoldsABurstThatMeetsAStallThoughNoneDidHere) {
  std::vector<TrialResult> trials;
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    for (const int backlog : {128, 1024, kUnlimitedBacklog}) {
      trials.push_back(trial(backlog, 100, 0, seed));
      trials.back().scenario.rate = 1000;  // 100 in a stall
      trials.back().scenario.clients = 3000;
      trials.back().scenario.burst = 500;
      trials.back().scenario.burst_every = std::chrono::seconds(1);
    }
  }
  const Advice advice = advise(trials);
  EXPECT_EQ(advice.recommended, 1024);
  EXPECT_EQ(advice.try_next, std::vector<int>{768});
  EXPECT_NEAR(advice.model_needs.together, 600, 10);
}

TEST(Advice, MeetsTheTargetThatWasAskedFor) {
  std::vector<TrialResult> trials = measured();
  for (std::uint64_t seed = 1; seed <= 5; ++seed) trials.push_back(trial(600, 601, 3, seed));
  EXPECT_EQ(advise(trials, {.target_loss = 0.001, .refine = false}).recommended, 1024);
  EXPECT_EQ(advise(trials, {.target_loss = 0.01, .refine = false}).recommended, 600);
}

TEST(Advice, BelievesNoBacklogThatLostSomebodyInAnyRunNorASmallerOne) {
  std::vector<TrialResult> trials = measured();
  trials.push_back(trial(1024, 1025, 10));
  EXPECT_EQ(advise(trials, {.refine = false}).recommended, 4096);
}

TEST(Advice, CountsHandshakesThatHealedASecondLater) {
  std::vector<TrialResult> trials = measured();
  TrialResult healed = trial(1024, 500, 0, 2);
  healed.entries.listen_drops = 20;  // last ACKs: those guests were let in by a repeated SYN-ACK
  trials.push_back(healed);
  EXPECT_EQ(advise(trials, {.refine = false}).recommended, 4096);
}

TEST(Advice, CountsTheDepthOfEveryTrialOfAScheduleThatTurnedNobodyAway) {
  std::vector<TrialResult> trials = measured();
  trials.push_back(trial(1024, 900, 0, 2));
  const Advice advice = advise(trials, {.refine = false});
  EXPECT_EQ(advice.deepest_queue.most, 900);
  EXPECT_EQ(advice.recommended, 1024) << "there are only 1,000 clients";
}

TEST(Advice, NeverPredictsMoreThanThereAreClientsNorAsksForMoreRoom) {
  std::vector<TrialResult> bursts;
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    bursts.push_back(trial(kUnlimitedBacklog, static_cast<std::uint32_t>(600 + 100 * seed), 0, seed));
    bursts.back().scenario.arrival = Arrival::kBurst;
    bursts.back().launch_span = std::chrono::milliseconds(50);  // 20,000 a second, and a wait of 100 ms
  }
  const Advice advice = advise(bursts);
  EXPECT_DOUBLE_EQ(advice.predicted_depth.value(), 1000);
  EXPECT_LE(advice.recommended, 1024);
  EXPECT_EQ(advice.model_needs.dominant(), Term::kBurst);
}

TEST(Advice, GoesBeyondTheGridUnconfirmedWhenNothingInItIsEnough) {
  const Advice advice = advise({trial(128, 129, 371), trial(kUnlimitedBacklog, 505, 0)}, {.refine = false});
  EXPECT_GE(advice.recommended, 768);
  EXPECT_FALSE(advice.confirmed);
  EXPECT_EQ(advice.try_next, std::vector<int>{advice.recommended});
}

TEST(Advice, SaysNothingWithoutAnUnlimitedTrialThatCounts) {
  EXPECT_FALSE(advise({}).found());
  EXPECT_FALSE(advise({trial(128, 5, 0)}).found());
  TrialResult unlimited = trial(kUnlimitedBacklog, 505, 0);
  unlimited.problems.emplace_back("the generator was the limit");
  const Advice advice = advise({trial(128, 5, 0), unlimited});
  EXPECT_FALSE(advice.found());
  EXPECT_EQ(advice.void_trials, 1);
}

TEST(Advice, SaysNothingWhenEvenAnUnlimitedQueueDoesNotGetEverybodyServed) {
  const Advice advice = advise({trial(1024, 505, 0), with_unserved(trial(kUnlimitedBacklog, 505, 0), 1)});
  EXPECT_FALSE(advice.found());
  EXPECT_EQ(advice.hopeless_trials, 1);
}

TEST(Advice, TakesOneWhoWasServedLateForNobodyTurnedAway) {
  TrialResult late = with_unserved(trial(1024, 505, 0), 3);
  EXPECT_TRUE(late.nobody_turned_away());
  EXPECT_FALSE(late.everybody_served());
  late.entries.listen_drops = 1;  // a last ACK: the guest was let in a second later, by a repeated SYN-ACK
  EXPECT_FALSE(late.nobody_turned_away());
}

TEST(Advice, RoundsUpToNumbersThatPeopleWrite) {
  EXPECT_EQ(round_up_backlog(0), 4);
  EXPECT_EQ(round_up_backlog(5), 6);
  EXPECT_EQ(round_up_backlog(128), 128);
  EXPECT_EQ(round_up_backlog(129), 192);
  EXPECT_EQ(round_up_backlog(193), 256);
  EXPECT_EQ(round_up_backlog(631.25), 768);
}

TEST(Summary, ShowsTheBestAndTheWorstRunAndLeavesVoidOnesOut) {
  TrialResult failed = trial(128, 900, 900);
  failed.problems.emplace_back("the books do not balance");
  const auto rows = summarize({trial(kUnlimitedBacklog, 505, 0), trial(128, 129, 300), trial(128, 128, 100),
                               failed, trial(128, 127, 200), trial(5, 6, 500)});
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_EQ(rows[0].scenario.backlog, 5);
  EXPECT_EQ(rows[1].scenario.backlog, 128);
  EXPECT_EQ(rows[2].scenario.backlog, kUnlimitedBacklog);
  EXPECT_EQ(rows[1].runs, 3);
  EXPECT_EQ(rows[1].void_runs, 1);
  EXPECT_EQ(rows[1].clients, 3000U);
  EXPECT_DOUBLE_EQ(rows[1].lost_first_syn.least, 0.1);
  EXPECT_DOUBLE_EQ(rows[1].lost_first_syn.median, 0.2);
  EXPECT_DOUBLE_EQ(rows[1].lost_first_syn.most, 0.3);
  EXPECT_GT(rows[1].loss_upper.value(), 0.2);
  EXPECT_EQ(rows[1].deepest_queue.most, 129);
  EXPECT_DOUBLE_EQ(rows[1].forecast_loss.value(), 0.371);
}

TEST(Summary, TakesTheBoundOfALossOverStallCyclesNotOverClients) {
  TrialResult cycles = trial(128, 129, 0);
  for (int i = 0; i < 10; ++i) cycles.cycles.push_back({.clients = 100, .lost = i == 0 ? 50U : 0U});
  cycles.lost_first_syn = 50;
  const Summary row = summarize({cycles}).front();
  EXPECT_DOUBLE_EQ(row.lost_first_syn.median, 0.05);
  // By single clients, 50 of 1000 would be 6.3 % at most; one bad stall of ten says much less.
  EXPECT_GT(row.loss_upper.value(), 0.1);
}

TEST(Latencies, KnowWhichPercentilesFallAmongTheUnfinished) {
  Latencies latencies;
  for (int i = 0; i < 980; ++i) latencies.record(std::chrono::milliseconds(1));
  for (int i = 0; i < 20; ++i) latencies.record_unfinished(std::chrono::milliseconds(1500));
  EXPECT_FALSE(latencies.is_lower_bound(0.5));
  EXPECT_FALSE(latencies.is_lower_bound(0.98));
  EXPECT_TRUE(latencies.is_lower_bound(0.99));
  EXPECT_TRUE(latencies.is_lower_bound(1.0));
  EXPECT_EQ(latencies.count(), 1000U);
  EXPECT_EQ(latencies.max(), std::chrono::milliseconds(1500));
  Latencies others;
  others.record_unfinished(std::chrono::microseconds(10));
  latencies.merge(others);
  EXPECT_TRUE(latencies.is_lower_bound(0.5)) << "who was given up after 10 us might have taken any time";
}

}  // namespace
}  // namespace anteroom::bench
