// What a series of samples can know of one listener.
#include <anteroom/bench/models.h>
#include <anteroom/bench/room_log.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace anteroom::bench {
namespace {

using namespace std::chrono_literals;
using Verdict = RoomAdvice::Verdict;

/// A log of samples 10 ms apart: each is a depth, and drops since the first.
class Series {
 public:
  explicit Series(std::uint32_t limit, std::uint32_t depth = 0, std::uint32_t drops = 0)
      : limit_(limit),
        drops_(drops),
        log_({.at = 0s, .depth = depth, .limit = limit, .drops = 0, .sk_drops = drops}) {}

  Series& then(std::uint32_t depth, std::uint32_t drops = 0) {
    at_ += 10ms;
    drops_ += drops;
    all_ += drops;
    log_.take({.at = at_, .depth = depth, .limit = limit_, .drops = all_, .sk_drops = drops_});
    return *this;
  }
  Series& idle(int samples) {
    for (int i = 0; i < samples; ++i) then(0);
    return *this;
  }
  std::chrono::nanoseconds at() const { return at_; }
  RoomLog& log() { return log_; }

 private:
  std::uint32_t limit_;
  std::uint32_t drops_;  // as the kernel has them
  std::uint64_t all_ = 0;
  std::chrono::nanoseconds at_{0};
  RoomLog log_;
};

/// Of others in the namespace nothing is known but that there are some.
RoomAdvice advise_alone(const RoomLog& log) {
  const ArrivalLog nobody;
  return advise(log, {.is_alone = false, .sockets = 1, .arrivals = nobody});
}

TEST(RoomLog, KnowsThePeakAndHowLongItWasFull) {
  Series series(3);
  series.then(2).then(4).then(4).then(4).then(1).then(0);
  EXPECT_EQ(series.log().peak(), 4U);
  EXPECT_EQ(series.log().depth(), 0U);
  EXPECT_EQ(series.log().samples(), 7U);
  // Two gaps between full samples, and half of those before and after.
  EXPECT_NEAR(series.log().full_s(), 0.030, 1e-9);
}

TEST(RoomLog, CountsDropsThatWrap) {
  Series series(3, 0, std::numeric_limits<std::uint32_t>::max() - 1);
  series.then(4, 5);
  EXPECT_EQ(series.log().drops(), 5U);
  EXPECT_EQ(series.log().sk_drops(), 5U);
  EXPECT_EQ(series.log().sk_drops_total(), std::uint64_t{std::numeric_limits<std::uint32_t>::max()} + 4);
}

TEST(RoomLog, CountsAllDropsOfASocketThatWasMadeMeanwhile) {
  const RoomLog log({.at = 1s, .depth = 0, .limit = 3, .drops = 6, .sk_drops = 7}, true);
  EXPECT_EQ(log.drops(), 6U);
  EXPECT_EQ(log.sk_drops_total(), 7U);
}

TEST(RoomLog, SpansAllDropsOfASocketThatWasMadeMeanwhile) {
  RoomLog log({.at = 1s, .depth = 4, .limit = 3, .drops = 6}, true);
  log.take({.at = 2500ms, .depth = 4, .limit = 3, .drops = 12});
  EXPECT_NEAR(log.drops_span_s(), 1.5, 1e-9);
}

TEST(RoomLog, TakesAStallFromTheMiddleOfAGapToTheMiddleOfAGap) {
  Series series(100);
  // Nobody, then 5 to 20 without a fall, then an accept.
  series.idle(1).then(5).then(10).then(10).then(20).then(3).idle(1);
  const std::vector<RoomStall> stalls = series.log().stalls();
  ASSERT_EQ(stalls.size(), 2U);  // the second one is of the 3 that were left
  EXPECT_NEAR(stalls[0].at_s, 0.015, 1e-9);
  EXPECT_NEAR(stalls[0].length_s, 0.040, 1e-9);
  EXPECT_NEAR(stalls[0].error_s, 0.010, 1e-9);
  EXPECT_EQ(stalls[0].came, 20);
  EXPECT_EQ(stalls[0].samples, 4U);
  EXPECT_EQ(stalls[1].came, 0);
  EXPECT_FALSE(series.log().current_stall());
}

TEST(RoomLog, AddsTheDropsToWhatCameInAStall) {
  Series series(9);
  series.idle(1).then(6).then(10, 2).then(10, 7).then(0, 1);
  const std::vector<RoomStall> stalls = series.log().stalls();
  ASSERT_EQ(stalls.size(), 1U);
  EXPECT_EQ(stalls[0].came, 20);
  EXPECT_EQ(stalls[0].drops, 10U);
  EXPECT_EQ(series.log().deepest_wanted(), 20);
}

TEST(RoomLog, KnowsOfARoomThatWasFullBetweenTwoSamples) {
  Series series(9);
  series.idle(1).then(0, 3).idle(1);
  EXPECT_EQ(series.log().peak(), 0U);
  EXPECT_EQ(series.log().deepest_wanted(), 13);
  EXPECT_EQ(advise_alone(series.log()).verdict, Verdict::kTooSmall);
}

TEST(RoomLog, ShowsAStallThatGoesOn) {
  Series series(9);
  series.idle(1).then(1).then(2).then(2);
  const auto stall = series.log().current_stall();
  ASSERT_TRUE(stall);
  EXPECT_TRUE(stall->goes_on);
  EXPECT_NEAR(stall->length_s, 0.025, 1e-9);
  EXPECT_NEAR(stall->error_s, 0.005, 1e-9);
  EXPECT_EQ(series.log().stalls().size(), 1U);
}

TEST(RoomLog, KeepsTheLongestOfManyStalls) {
  Series series(9);
  for (int i = 0; i < 5000; ++i) series.then(1).then(0);
  series.then(1).then(2).then(3).then(0);
  for (int i = 0; i < 5000; ++i) series.then(1).then(0);
  EXPECT_EQ(series.log().stalls_seen(), 10001U);
  const std::vector<RoomStall> stalls = series.log().stalls();
  EXPECT_EQ(stalls.size(), RoomLog::kStallsMax);
  EXPECT_NEAR(stalls[0].length_s, 0.030, 1e-9);
}

TEST(RoomHistory, MakesItsStepsLongerInsteadOfGrowing) {
  RoomHistory history;
  for (int second = 0; second < 3600; ++second)
    history.take(std::chrono::seconds(second), second == 1800 ? 1.0 : 0.25);
  EXPECT_LE(history.slots().size(), RoomHistory::kSlotsMax);
  EXPECT_GE(history.step() * RoomHistory::kSlotsMax, 3600s);
  const auto slot = static_cast<std::size_t>(1800s / history.step());
  for (std::size_t i = 0; i < history.slots().size(); ++i)
    EXPECT_FLOAT_EQ(history.slots()[i], i == slot ? 1.0F : 0.25F) << i;
}

TEST(RoomHistory, TellsWhereNobodyLooked) {
  RoomHistory history;
  history.take(0ms, 0);
  history.take(1s, 0.5);
  ASSERT_EQ(history.slots().size(), 5U);
  EXPECT_EQ(history.slots()[0], 0.0F);
  EXPECT_LT(history.slots()[2], 0.0F);
}

TEST(ArrivalLog, TellsPoissonFromEvenAndFromBursts) {
  ArrivalLog even, bursts;
  std::uint64_t sum = 0;
  for (int i = 1; i <= 100; ++i) {
    even.take(i * 500ms, static_cast<std::uint64_t>(i) * 50);
    sum += i % 2 == 0 ? 90 : 10;
    bursts.take(i * 500ms, sum);
  }
  EXPECT_NEAR(even.per_second(), 100, 1e-6);
  EXPECT_NEAR(even.dispersion(), 0, 1e-9);
  EXPECT_NEAR(bursts.dispersion(), 80.0 * 80 / 2 / 50, 1);
}

TEST(ArrivalLog, TakesTheRateOfThoseTimesInWhichAnybodyCame) {
  ArrivalLog arrivals;
  for (int i = 1; i <= 20; ++i)
    arrivals.take(i * 500ms, i <= 10 ? 0 : static_cast<std::uint64_t>(i - 10) * 500);
  EXPECT_NEAR(arrivals.per_second(), 500, 1e-6);
  EXPECT_NEAR(arrivals.busy_per_second(), 1000, 1e-6);
  EXPECT_NEAR(arrivals.dispersion(), 0, 1e-9);  // that it begins is no burst
}

TEST(RoomAdvice, SaysThatNobodyWaited) {
  Series series(511);
  const RoomAdvice advice = advise_alone(series.idle(100).log());
  EXPECT_EQ(advice.verdict, Verdict::kNeverNeeded);
  EXPECT_FALSE(advice.backlog);
}

/// 2,000 a second come; once it does not accept for 100 ms.
struct Stalled {
  explicit Stalled(std::uint32_t limit) : series(limit) {
    series.idle(100);
    for (std::uint32_t i = 1; i <= 10; ++i) {
      const std::uint32_t came = i * 20;
      const std::uint32_t before = came - 20;
      const std::uint32_t places = limit + 1;
      series.then(std::min(came, places),
                  (came > places ? came - places : 0) - (before > places ? before - places : 0));
    }
    series.idle(100);
    for (int i = 1; i <= 20; ++i) arrivals.take(i * 100ms, static_cast<std::uint64_t>(i) * 200);
  }
  RoomAdvice advice(bool is_alone) {
    return advise(series.log(), {.is_alone = is_alone, .arrivals = arrivals});
  }
  Series series;
  ArrivalLog arrivals;
};

TEST(RoomAdvice, IsTheLawOfRateAndStall) {
  Stalled stalled(128);
  const RoomAdvice advice = stalled.advice(true);
  EXPECT_EQ(advice.verdict, Verdict::kTooSmall);
  EXPECT_EQ(advice.rate_source, RateSource::kNamespace);
  EXPECT_NEAR(advice.rate, 2000, 1e-6);
  EXPECT_NEAR(advice.stall_s, 0.1, 1e-6);
  EXPECT_NEAR(advice.needed, stall_places_quantile({.rate = 2000, .stall_s = 0.1}, 3.09), 1e-6);
  EXPECT_NEAR(advice.error_places, 20, 1e-6);  // rate x 10 ms
  EXPECT_EQ(advice.burst, 0);
  EXPECT_EQ(advice.backlog, 256);  // holds 200 + 3.09 sqrt(200) = 244
  EXPECT_FALSE(advice.is_at_most);
}

TEST(RoomAdvice, LeavesABacklogThatHasRoomToSpare) {
  EXPECT_EQ(Stalled(243).advice(true).verdict, Verdict::kEnough);
  EXPECT_EQ(Stalled(242).advice(true).verdict, Verdict::kTooSmall);
}

TEST(RoomAdvice, TakesTheRateFromTheStallsWhereOthersHaveGuestsToo) {
  Stalled stalled(4096);
  const RoomAdvice advice = stalled.advice(false);
  EXPECT_EQ(advice.rate_source, RateSource::kStalls);
  EXPECT_NEAR(advice.rate, 2000, 1);
  EXPECT_FALSE(advice.rate_is_lower_bound);
}

TEST(RoomAdvice, CallsTheRateALowerBoundWhereStallsAreTooShortToSay) {
  Series series(128);
  series.idle(50).then(4).idle(49);
  const RoomAdvice advice = advise_alone(series.log());
  EXPECT_EQ(advice.rate_source, RateSource::kGrowth);
  EXPECT_TRUE(advice.rate_is_lower_bound);
  EXPECT_NEAR(advice.rate, 4, 1e-6);
}

TEST(RoomAdvice, HasRoomForABurst) {
  Series series(4096);
  series.idle(100).then(500).then(502).idle(100);
  ArrivalLog arrivals;
  for (int i = 1; i <= 20; ++i) arrivals.take(i * 100ms, static_cast<std::uint64_t>(i) * 10);
  const RoomAdvice advice = advise(series.log(), {.is_alone = true, .arrivals = arrivals});
  EXPECT_NEAR(advice.burst, 502 - 100 * 0.03, 1e-6);
  EXPECT_GT(advice.needed, 500);
  EXPECT_GE(*advice.backlog, 512);
}

TEST(RoomAdvice, KnowsThatNoBacklogHelpsWhoDoesNotAccept) {
  Series series(15);
  series.idle(10).then(16, 24);
  for (int i = 0; i < 200; ++i) series.then(16, i % 100 == 0 ? 24 : 0);
  const RoomAdvice advice = advise_alone(series.log());
  EXPECT_EQ(advice.verdict, Verdict::kNotAccepting);
  EXPECT_FALSE(advice.backlog);
  EXPECT_TRUE(advice.is_at_most);
}

TEST(RoomAdvice, GivesNoNumberForARoomThatWasFullAllAlong) {
  Series series(15, 16);
  for (int i = 0; i < 30; ++i) series.then(16);
  const RoomAdvice advice = advise_alone(series.log());
  EXPECT_EQ(advice.verdict, Verdict::kNotAccepting);
  EXPECT_FALSE(advice.backlog);
}

TEST(RoomAdvice, KnowsThatNoBacklogHelpsWhoAcceptsTooSlowly) {
  Series series(15);
  series.idle(10);
  // One is accepted in 20 ms, and others take the place.
  for (int i = 0; i < 200; ++i) series.then(16, 3).then(i % 2 == 0 ? 15 : 16, 3);
  const RoomAdvice advice = advise_alone(series.log());
  EXPECT_EQ(advice.verdict, Verdict::kTooSlow);
  EXPECT_FALSE(advice.backlog);
}

TEST(RoomAdvice, DoesNotTakeASteadyQueueForAStallIfTheCountersKnowBetter) {
  Series series(15);
  series.idle(10);
  ArrivalLog arrivals;
  // Always two wait, in every sample; but a hundred connections came about meanwhile.
  std::uint64_t came = 0;
  for (int second = 0; second < 4; ++second) {
    const auto from = series.at();
    for (int i = 0; i < 100; ++i) series.then(2);
    came += 25;
    arrivals.take(series.at(), came);
    series.log().take_window(from, 25);
  }
  EXPECT_EQ(advise(series.log(), {.is_alone = true, .arrivals = arrivals}).verdict, Verdict::kEnough);
  EXPECT_EQ(advise(series.log(), {.is_alone = false, .arrivals = arrivals}).verdict, Verdict::kNotAccepting);
}

TEST(RoomAdvice, DoesNotRefuteAStallByWhatCameAfterIt) {
  Series series(15);
  series.idle(10).then(2).then(2);
  const auto from = series.at();
  series.then(2);
  series.log().take_window(from, 50);  // read after the last sample, and 50 were accepted meanwhile
  series.then(0);
  ArrivalLog arrivals;
  arrivals.take(1s, 52);
  EXPECT_TRUE(advise(series.log(), {.is_alone = true, .arrivals = arrivals}).longest);
}

TEST(RoomAdvice, CarriesTheErrorOfTheStallThatItTook) {
  RoomLog log({.at = 0s, .depth = 0, .limit = 4096});
  // 95 to 105 ms by few samples, in which 50 came; and 100 ms by many, in which 100 came.
  for (int i = 1; i <= 20; ++i) log.take({.at = i * 10ms, .depth = 0, .limit = 4096});
  log.take({.at = 240ms, .depth = 25, .limit = 4096});
  log.take({.at = 280ms, .depth = 50, .limit = 4096});
  log.take({.at = 380ms, .depth = 0, .limit = 4096});
  for (std::uint32_t i = 1; i <= 100; ++i) log.take({.at = 380ms + i * 1ms, .depth = i, .limit = 4096});
  log.take({.at = 481ms, .depth = 0, .limit = 4096});
  ArrivalLog arrivals;
  arrivals.take(1s, 1000);
  const RoomAdvice advice = advise(log, {.is_alone = true, .arrivals = arrivals});
  EXPECT_GT(advice.longest->error_s, 0.05);
  EXPECT_NEAR(advice.stall_error_s, 0.001, 1e-9);
  EXPECT_NEAR(advice.error_places, 1, 1e-6);
}

TEST(RoomAdvice, CountsWhoTriesAgainEachSecondOnce) {
  Series series(15);
  // 100 at once; the 84 that find no place ask again in each of three seconds.
  series.idle(10).then(16, 84);
  for (int i = 1; i <= 320; ++i) series.then(16, i % 102 == 0 ? 84 : 0);
  series.then(0).idle(10);
  EXPECT_EQ(series.log().drops(), 4U * 84);
  EXPECT_EQ(series.log().deepest_wanted(), 100);
  EXPECT_EQ(series.log().came_at_least(), 100);
  const RoomAdvice advice = advise_alone(series.log());
  EXPECT_EQ(advice.verdict, Verdict::kTooSmall);
  EXPECT_LT(*advice.backlog, 256);
  EXPECT_TRUE(advice.is_at_most);
}

TEST(RoomAdvice, ThinsTheDispersionAmongSocketsOfOneAddress) {
  Stalled stalled(4096);
  ArrivalLog clumps;
  for (int i = 1; i <= 20; ++i)
    clumps.take(i * 100ms, static_cast<std::uint64_t>(i / 2) * 400 + (i % 2 == 0 ? 0 : 1));
  const RoomAdvice advice =
      advise(stalled.series.log(), {.is_alone = true, .sockets = 4, .arrivals = clumps});
  const double thinned = 1 + (clumps.dispersion() - 1) / 4;
  ASSERT_GT(thinned, 2);
  const StallLoad load{.rate = advice.rate, .stall_s = advice.stall_s, .dispersion = thinned};
  EXPECT_NEAR(advice.needed - advice.burst, stall_places_quantile(load, 3.09), 1e-6);
}

TEST(DropsInASecond, TakesAPartOfWhatALongerGapHas) {
  DropsInASecond drops;
  drops.take(0s, 10s, 500);
  EXPECT_EQ(drops.most(), 50);
  drops.take(10s, 10500ms, 100);
  drops.take(10500ms, 11s, 100);
  drops.take(11s, 11500ms, 70);
  EXPECT_EQ(drops.most(), 200);
}

}  // namespace
}  // namespace anteroom::bench
