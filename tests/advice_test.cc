#include <anteroom/bench/advice.h>
#include <anteroom/bench/summary.h>
#include <gtest/gtest.h>

namespace anteroom::bench {
namespace {

TrialResult trial(int backlog, std::uint32_t deepest, std::uint32_t lost) {
  TrialResult result;
  result.complete = true;
  result.scenario = {.backlog = backlog, .clients = 1000, .arrival = Arrival::kSteady, .rate = 5000};
  result.fates[Fate::kServedAtOnce] = 1000 - lost;
  result.fates[Fate::kServedAfterRetransmit] = lost;
  result.lost_first_syn = lost;
  result.listener_drops = lost;
  result.deepest_queue = deepest;
  result.scenario.stall = std::chrono::milliseconds(100);
  result.longest_wait = std::chrono::milliseconds(100);
  result.connections_per_second = 100.0 * backlog;
  return result;
}

TEST(Advice, IsTheSmallestThatTurnedNobodyAwayAndHasRoomToSpare) {
  const Advice advice =
      advise({trial(128, 129, 371), trial(511, 505, 0), trial(1024, 498, 0), trial(4096, 500, 0),
              trial(kUnlimitedBacklog, 505, 0), trial(kUnlimitedBacklog, 501, 0)});
  EXPECT_EQ(advice.recommended, 1024);  // 511 holds 512, only 1.4 % more than 505: luck
  EXPECT_TRUE(advice.confirmed);
  EXPECT_EQ(advice.deepest_queue, 505U);
  EXPECT_EQ(advice.unlimited_trials, 2);
  EXPECT_EQ(advice.lossless_trials, 5);
  EXPECT_EQ(advice.largest_lossy, 128);
  EXPECT_DOUBLE_EQ(advice.predicted_depth.value(), 500);
  EXPECT_NEAR(advice.headroom(), 1.03, 0.01);
}

TEST(Advice, BelievesNoBacklogThatLostSomebodyInAnyRunNorASmallerOne) {
  const Advice advice = advise({trial(511, 400, 0), trial(1024, 1025, 1), trial(1024, 400, 0),
                                trial(4096, 400, 0), trial(kUnlimitedBacklog, 400, 0)});
  EXPECT_EQ(advice.recommended, 4096);
}

TEST(Advice, CountsTheDepthOfEveryTrialThatTurnedNobodyAway) {
  const Advice advice = advise({trial(511, 500, 0), trial(1024, 900, 0), trial(4096, 400, 0),
                                trial(128, 129, 300), trial(kUnlimitedBacklog, 450, 0)});
  EXPECT_EQ(advice.deepest_queue, 900U);
  EXPECT_EQ(advice.recommended, 1024);
}

TEST(Advice, NeverPredictsMoreThanThereAreClients) {
  TrialResult burst = trial(kUnlimitedBacklog, 800, 0);
  burst.scenario.arrival = Arrival::kBurst;
  burst.launch_span = std::chrono::milliseconds(50);  // 20,000 a second, and a wait of 100 ms
  EXPECT_DOUBLE_EQ(advise({burst}).predicted_depth.value(), 1000);
}

TEST(Advice, GoesBeyondTheGridUnconfirmedWhenNothingInItIsEnough) {
  const Advice advice = advise({trial(128, 129, 371), trial(kUnlimitedBacklog, 505, 0)});
  EXPECT_EQ(advice.recommended, 768);
  EXPECT_FALSE(advice.confirmed);
  EXPECT_EQ(advise({trial(2048, 2049, 5), trial(kUnlimitedBacklog, 500, 0)}).recommended, 3072);
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
  TrialResult too_slow = trial(kUnlimitedBacklog, 505, 0);
  too_slow.unserved = 1;
  const Advice advice = advise({trial(1024, 505, 0), too_slow});
  EXPECT_FALSE(advice.found());
  EXPECT_EQ(advice.hopeless_trials, 1);
}

TEST(Advice, TakesOneWhoWasServedLateForNobodyTurnedAway) {
  TrialResult late = trial(1024, 505, 0);
  late.unserved = 3;
  EXPECT_TRUE(late.nobody_turned_away());
  EXPECT_FALSE(late.everybody_served());
  late.listener_drops = 1;  // a last ACK: the guest was let in a second later, by a repeated SYN-ACK
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
  EXPECT_EQ(rows[0].backlog, 5);
  EXPECT_EQ(rows[1].backlog, 128);
  EXPECT_EQ(rows[2].backlog, kUnlimitedBacklog);
  EXPECT_EQ(rows[1].runs, 3);
  EXPECT_EQ(rows[1].void_runs, 1);
  EXPECT_DOUBLE_EQ(rows[1].lost_first_syn_best, 0.1);
  EXPECT_DOUBLE_EQ(rows[1].lost_first_syn_worst, 0.3);
  EXPECT_EQ(rows[1].deepest_queue, 129U);
}

TEST(Summary, KnowsWhichPercentilesFallAmongTheUnserved) {
  TrialResult some_unserved = trial(5, 6, 0);
  for (int i = 0; i < 980; ++i) some_unserved.first_byte.record(std::chrono::milliseconds(1));
  for (int i = 0; i < 20; ++i) some_unserved.first_byte.record(std::chrono::milliseconds(1500));
  some_unserved.unserved = 20;
  some_unserved.least_unserved_age = std::chrono::milliseconds(1500);
  const Summary row = summarize({some_unserved}).front();
  EXPECT_FALSE(row.is_lower_bound(0.5));
  EXPECT_FALSE(row.is_lower_bound(0.98));
  EXPECT_TRUE(row.is_lower_bound(0.99));
  EXPECT_TRUE(row.is_lower_bound(1.0));
}

TEST(Summary, MedianOfAnEvenNumberIsTheMeanOfTheMiddle) {
  EXPECT_DOUBLE_EQ(median({}), 0);
  EXPECT_DOUBLE_EQ(median({4, 1}), 2.5);
  EXPECT_DOUBLE_EQ(median({9, 1, 5}), 5);
}

}  // namespace
}  // namespace anteroom::bench
