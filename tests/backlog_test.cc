#include <anteroom/backlog.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <climits>
#include <cstdint>
#include <optional>
#include <system_error>

namespace anteroom {
namespace {

constexpr std::uint32_t kMany = UINT32_MAX;
constexpr int kLargest = 1 << 30;  // the largest power of two that an int holds

TEST(Backlog, IsAFixedNumberOrTheSystemsMaximum) {
  EXPECT_EQ(Backlog::fixed(0).initial(), 0);
  EXPECT_EQ(Backlog::fixed(511).initial(), 511);
  for (const int negative : {-1, -77, INT_MIN}) EXPECT_EQ(Backlog::fixed(negative).initial(), -1);
  EXPECT_EQ(Backlog::system_maximum().initial(), -1);
  EXPECT_FALSE(Backlog::fixed(511).is_self_tuning());
  EXPECT_FALSE(Backlog::system_maximum().is_self_tuning());
}

TEST(Backlog, ThatTunesItselfBeginsWithinItsBounds) {
  const auto initial_of = [](int initial, int max) {
    return Backlog::self_tuning({.initial = initial, .max = max}).initial();
  };
  EXPECT_TRUE(Backlog::self_tuning().is_self_tuning());
  EXPECT_EQ(Backlog::self_tuning().initial(), 128);
  EXPECT_EQ(initial_of(16, 0), 16);
  EXPECT_EQ(initial_of(16, 10), 10);
  EXPECT_EQ(initial_of(1, 0), 1);
}

TEST(Backlog, ThatCannotBeIsRefused) {
  const auto refused = [](int initial, int max) {
    try {
      (void)Backlog::self_tuning({.initial = initial, .max = max});
      return false;
    } catch (const std::system_error& error) {
      EXPECT_EQ(error.code(), std::errc::invalid_argument);
      return true;
    }
  };
  EXPECT_TRUE(refused(0, 0));
  EXPECT_TRUE(refused(-5, 0));
  EXPECT_TRUE(refused(16, -5));
  EXPECT_TRUE(refused(INT_MIN, INT_MIN));
  EXPECT_FALSE(refused(1, 1));
}

TEST(BacklogTuner, OfAFixedBacklogNeverLooks) {
  for (const Backlog& policy : {Backlog::fixed(128), Backlog::system_maximum()}) {
    BacklogTuner tuner(policy);
    EXPECT_FALSE(tuner.is_crowded(129, 128));
    EXPECT_EQ(tuner.grow(129, 128, 1000, 4096), std::nullopt);
    EXPECT_EQ(tuner.wanted_beyond_somaxconn(), 0);
  }
}

TEST(BacklogTuner, FindsARoomCrowdedFromHalfFullOn) {
  const BacklogTuner tuner(Backlog::self_tuning());
  struct Case {
    std::uint32_t depth, limit;
    bool is_crowded;
  };
  for (const Case& room : {Case{0, 0, false}, Case{1, 0, true}, Case{0, 1, false}, Case{1, 1, true},
                           Case{1, 3, false}, Case{2, 3, true}, Case{63, 128, false}, Case{64, 128, true},
                           Case{129, 128, true}, Case{kMany / 2, kMany, false}, Case{kMany, kMany, true}})
    EXPECT_EQ(tuner.is_crowded(room.depth, room.limit), room.is_crowded)
        << room.depth << " of " << room.limit;
}

TEST(BacklogTuner, MakesRoomForFourTimesTheCrowd) {
  struct Case {
    std::uint32_t depth, limit;
    std::uint64_t turned_away;
    int somaxconn;
    std::optional<int> backlog;
    int wanted_beyond;
  };
  const std::optional<int> none;
  for (const Case& room : {
           Case{63, 128, 0, 4096, none, 0},               // there is room enough
           Case{64, 128, 0, 4096, 256, 0},                // before it overflows
           Case{65, 128, 0, 4096, 512, 0},                // a power of two
           Case{129, 128, 471, 4096, 4096, 0},            // those who were turned away count
           Case{129, 128, 471, 1 << 20, 4096, 0},         //
           Case{3, 128, 47, 4096, 256, 0},                // even if by now nobody waits any more
           Case{0, 4096, 100, 128, none, 0},              // for as many it is large enough
           Case{0, 128, 32, 4096, none, 0},               // a few drops: there was room for them
           Case{129, 128, 471, 600, 600, 4096},           // somaxconn binds
           Case{64, 128, 0, 128, none, 256},              // entirely
           Case{129, 128, 471, 100, none, 4096},          // and has been lowered since
           Case{129, 128, 471, 0, none, 4096},            //
           Case{129, 128, 471, -1, none, 4096},           // what was read there makes no sense
           Case{1, 0, 0, 4096, 4, 0},                     //
           Case{1, 0, UINT64_MAX, INT_MAX, kLargest, 0},  // nothing overflows an int
           Case{1, 0, UINT64_MAX, 4096, 4096, kLargest},
           Case{kMany, 128, UINT64_MAX, INT_MAX, kLargest, 0},
           Case{kMany, kMany, UINT64_MAX, INT_MAX, none, 0},
           Case{1 << 28, 1 << 28, 0, INT_MAX, kLargest, 0},
           Case{(1 << 28) + 1, 1 << 28, 0, INT_MAX, kLargest, 0},
           Case{kLargest, kLargest, 0, INT_MAX, none, 0},
       }) {
    BacklogTuner tuner(Backlog::self_tuning());
    EXPECT_EQ(tuner.grow(room.depth, room.limit, room.turned_away, room.somaxconn), room.backlog)
        << room.depth << " of " << room.limit << ", " << room.turned_away << " turned away";
    EXPECT_EQ(tuner.wanted_beyond_somaxconn(), room.wanted_beyond)
        << room.depth << " of " << room.limit << ", " << room.turned_away << " turned away";
  }
}

TEST(BacklogTuner, StaysWithinItsOwnBoundAndWantsNothingBeyond) {
  BacklogTuner tuner(Backlog::self_tuning({.initial = 16, .max = 100}));
  ASSERT_TRUE(tuner.is_crowded(10, 16));
  EXPECT_EQ(tuner.grow(10, 16, 0, 4096), 64);
  ASSERT_TRUE(tuner.is_crowded(65, 64));
  EXPECT_EQ(tuner.grow(65, 64, 500, 4096), 100);
  EXPECT_FALSE(tuner.is_crowded(101, 100))
      << "it is as large as it may become, so there is nothing to look at";
  EXPECT_EQ(tuner.grow(101, 100, 500, 4096), std::nullopt);
  EXPECT_EQ(tuner.wanted_beyond_somaxconn(), 0);
}

TEST(BacklogTuner, TakesWhatItWantedAsSoonAsSomaxconnAllowsIt) {
  BacklogTuner tuner(Backlog::self_tuning());
  EXPECT_EQ(tuner.grow(129, 128, 471, 256), 256);
  EXPECT_EQ(tuner.wanted_beyond_somaxconn(), 4096);
  EXPECT_EQ(tuner.grow(150, 256, 0, 256), std::nullopt);
  EXPECT_EQ(tuner.wanted_beyond_somaxconn(), 4096) << "the largest that was ever wanted";
  EXPECT_EQ(tuner.grow(150, 256, 0, 1000), 1000);
  EXPECT_EQ(tuner.wanted_beyond_somaxconn(), 4096);
  EXPECT_EQ(tuner.grow(600, 1000, 0, 65535), 4096);
  EXPECT_EQ(tuner.wanted_beyond_somaxconn(), 0);
}

TEST(BacklogTuner, WantsNothingMoreOnceSomebodyElseHasGivenIt) {
  BacklogTuner tuner(Backlog::self_tuning());
  EXPECT_EQ(tuner.grow(129, 128, 471, 256), 256);
  ASSERT_EQ(tuner.wanted_beyond_somaxconn(), 4096);
  EXPECT_EQ(tuner.grow(10, 8192, 1, 65535), std::nullopt) << "as `anteroom retune` may do";
  EXPECT_EQ(tuner.wanted_beyond_somaxconn(), 0);
}

/// What a stalled server finds after a burst: the kernel lets in one more than the limit.
struct Burst {
  std::uint32_t depth;
  std::uint64_t turned_away;
  Burst(std::uint32_t guests, int limit)
      : depth(std::min(guests, static_cast<std::uint32_t>(limit) + 1)), turned_away(guests - depth) {}
};

TEST(BacklogTuner, LosesNobodyOfABurstThatItHasSeenBefore) {
  constexpr int kSomaxconn = 4096;
  for (std::uint32_t guests = 1; guests <= kSomaxconn + 1; ++guests) {
    BacklogTuner tuner(Backlog::self_tuning());
    int backlog = 128;
    const Burst first(guests, backlog);
    if (const auto grown = tuner.grow(first.depth, 128, first.turned_away, kSomaxconn)) backlog = *grown;
    ASSERT_EQ(Burst(guests, backlog).turned_away, 0U) << guests;
  }
}

TEST(BacklogTuner, LosesNobodyOfBurstsThatBecomeTwiceAsLargeEachTime) {
  BacklogTuner tuner(Backlog::self_tuning());
  int backlog = 128;
  for (std::uint32_t guests = 100; guests < 100'000; guests *= 2) {
    const Burst burst(guests, backlog);
    ASSERT_EQ(burst.turned_away, 0U) << guests << " at " << backlog;
    const auto limit = static_cast<std::uint32_t>(backlog);
    if (const auto grown = tuner.grow(burst.depth, limit, 0, INT_MAX)) backlog = *grown;
  }
}

}  // namespace
}  // namespace anteroom
