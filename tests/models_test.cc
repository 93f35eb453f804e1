#include <anteroom/bench/models.h>
#include <anteroom/bench/random.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

namespace anteroom::bench {
namespace {

double exponential(Random& random, double rate) { return -std::log(random.unit()) / rate; }

/// How many come in `length` seconds.
int poisson(Random& random, double rate, double length) {
  int count = 0;
  for (double at = exponential(random, rate); at < length; at += exponential(random, rate)) ++count;
  return count;
}

// The stall.

constexpr StallLoad kMeasured{.rate = 2000, .stall_s = 0.3, .every_s = 1};

TEST(StallModel, GivesTheTableThatTheKernelWasHeldAgainst) {
  struct Row {
    int backlog;
    double percent;
  };
  for (const auto& [backlog, percent] :
       {Row{64, 26.75}, Row{128, 23.55}, Row{256, 17.15}, Row{400, 9.95}, Row{511, 4.40}, Row{560, 1.98},
        Row{600, 0.46}, Row{640, 0.02}, Row{700, 0.0}}) {
    EXPECT_NEAR(100 * stall_loss_share(kMeasured, backlog + 1), percent, 0.05) << backlog;
  }
}

TEST(StallModel, AgreesWithStallsThatWerePlayed) {
  constexpr int kStalls = 4000;
  constexpr std::array kPlaces{300.0, 580.0, 600.0, 620.0};
  std::array<double, kPlaces.size()> lost{};
  Random random(11);
  for (int stall = 0; stall < kStalls; ++stall) {
    const int come = poisson(random, kMeasured.rate, kMeasured.stall_s);
    for (std::size_t i = 0; i < kPlaces.size(); ++i) lost[i] += std::max(0.0, come - kPlaces[i]);
  }
  for (std::size_t i = 0; i < kPlaces.size(); ++i) {
    const double played = lost[i] / (kStalls * kMeasured.rate * kMeasured.every_s);
    EXPECT_NEAR(stall_loss_share(kMeasured, kPlaces[i]), played, 0.05 * played) << kPlaces[i];
  }
}

TEST(StallModel, CountsWhatComesInClumps) {
  // Clumps of 4: the variance of the number that comes is 4 times its mean.
  constexpr StallLoad kLoad{.rate = 2000, .stall_s = 0.2, .every_s = 1, .dispersion = 4};
  constexpr int kStalls = 4000;
  Random random(12);
  double lost = 0;
  for (int stall = 0; stall < kStalls; ++stall) {
    lost += std::max(0.0, 4.0 * poisson(random, kLoad.rate / 4, kLoad.stall_s) - 420);
  }
  const double played = lost / (kStalls * kLoad.rate);
  EXPECT_NEAR(stall_loss_share(kLoad, 420), played, 0.05 * played);
  EXPECT_GT(played, 1.5 * stall_loss_share({.rate = 2000, .stall_s = 0.2, .every_s = 1}, 420));
}

TEST(StallModel, OfEvenlySpacedClientsIsTheExcessItself) {
  constexpr StallLoad kLoad{.rate = 5000, .stall_s = 0.1, .every_s = 1, .dispersion = 0};
  EXPECT_DOUBLE_EQ(stall_loss_share(kLoad, 129), 371.0 / 5000);
  EXPECT_EQ(stall_loss_share(kLoad, 500), 0);
  EXPECT_EQ(stall_places(kLoad, 0), 500);
  EXPECT_EQ(stall_places_quantile(kLoad, 3.09), 500);
}

TEST(StallModel, TurnedRoundGivesTheFirstSizeThatIsEnough) {
  for (const double share : {0.2, 0.05, 0.001, 1e-4, 1e-9}) {
    const double places = stall_places(kMeasured, share);
    EXPECT_EQ(places, std::floor(places));
    EXPECT_LE(stall_loss_share(kMeasured, places), share);
    EXPECT_GT(stall_loss_share(kMeasured, places - 1), share);
  }
  EXPECT_EQ(stall_places(kMeasured, 0.3), 0);  // nobody loses more than those of the stall
}

TEST(StallModel, HasAQuantileThatAsManyStallsOverflow) {
  constexpr StallLoad kLoad{.rate = 500, .stall_s = 0.2, .every_s = 0.5};
  const double places = stall_places_quantile(kLoad, normal_quantile(0.9));
  EXPECT_NEAR(places, 100 + 1.2816 * 10, 0.001);
  Random random(13);
  int overflowed = 0;
  for (int stall = 0; stall < 4000; ++stall) overflowed += poisson(random, 500, 0.2) > places ? 1 : 0;
  EXPECT_NEAR(overflowed / 4000.0, 0.1, 0.02);
}

TEST(StallModel, IsFiniteAtItsEdges) {
  EXPECT_EQ(stall_loss_share({}, 10), 0);
  EXPECT_EQ(stall_loss_share({.rate = 100, .stall_s = 0}, 0), 0);
  EXPECT_EQ(stall_loss_share({.rate = 100, .stall_s = 0.1, .every_s = 0}, 0), 0);
  EXPECT_DOUBLE_EQ(stall_loss_share(kMeasured, 0), 0.3);
  EXPECT_DOUBLE_EQ(stall_loss_share({.rate = 1, .stall_s = 0.3}, 0), 0.3);  // and not the normal's 0.4
  EXPECT_DOUBLE_EQ(stall_loss_share({.rate = 100, .stall_s = 2, .every_s = 1}, 0), 1);
  EXPECT_EQ(stall_loss_share(kMeasured, 1e300), 0);
  EXPECT_EQ(stall_places({}, 0), 0);
  EXPECT_EQ(stall_places({}, 0.1), 0);
  EXPECT_NEAR(stall_places(kMeasured, 0), 600 + 38.5 * std::sqrt(600), 50);
}

// Steady service.

/// Share that a system of `servers` and `places` in all loses, played event by event.
double play_queue(double erlangs, int servers, int places, int arrivals, std::uint64_t seed) {
  Random random(seed);
  int present = 0;
  int came = 0;
  int lost = 0;
  while (came < arrivals) {
    // Without memory, so what happens next is a toss, and when is of no interest.
    const double leaves = std::min(present, servers);
    if (random.unit() * (erlangs + leaves) > erlangs) {
      --present;
      continue;
    }
    ++came;
    if (present < places) {
      ++present;
    } else {
      ++lost;
    }
  }
  return static_cast<double>(lost) / arrivals;
}

TEST(SteadyModel, NeedsTheKnownPlacesForOneInAMillion) {
  EXPECT_EQ(mm1k_places(0.5, 1e-6), 19);
  EXPECT_EQ(mm1k_places(0.8, 1e-6), 55);
  EXPECT_EQ(mm1k_places(0.9, 1e-6), 110);
  EXPECT_EQ(mm1k_places(0.95, 1e-6), 211);
  EXPECT_EQ(mm1k_places(0.99, 1e-6), 917);
}

TEST(SteadyModel, TurnedRoundGivesTheFirstSizeThatIsEnough) {
  for (const double rho : {0.01, 0.5, 0.999, 1 - 1e-12, 1.0, 1 + 1e-12, 1.0001, 1.5}) {
    for (const double loss : {0.9, 0.5, 0.4, 1e-3}) {
      const std::optional<double> places = mm1k_places(rho, loss);
      if (rho > 1 && loss <= 1 - 1 / rho) {
        EXPECT_FALSE(places) << rho << " " << loss;
        continue;
      }
      ASSERT_TRUE(places) << rho << " " << loss;
      EXPECT_EQ(*places, std::floor(*places));
      EXPECT_LE(mm1k_loss(rho, *places), loss * (1 + 1e-9)) << rho;
      EXPECT_GT(mm1k_loss(rho, *places - 1), loss * (1 - 1e-9)) << rho;
    }
  }
  for (const double rho : {0.5, 0.99, 1.0, 1.01}) {
    for (int places = 1; places < 40; ++places) {
      EXPECT_EQ(mm1k_places(rho, mm1k_loss(rho, places)), places) << rho;
    }
  }
  EXPECT_EQ(mm1k_places(1, 0.001), 999);
  EXPECT_EQ(mm1k_places(1, 0.5), 1);
  EXPECT_FALSE(mm1k_places(0.5, 0));
  EXPECT_EQ(mm1k_places(0, 0), 0);
  EXPECT_EQ(mm1k_places(0.5, 1), 0);
}

TEST(SteadyModel, IsSmoothWhereTheLoadIsOne) {
  EXPECT_DOUBLE_EQ(mm1k_loss(1, 128), 1.0 / 129);
  for (const double off : {1e-15, 1e-12, 1e-9}) {
    EXPECT_NEAR(mm1k_loss(1 - off, 128), 1.0 / 129, off) << off;
    EXPECT_NEAR(mm1k_loss(1 + off, 128), 1.0 / 129, off) << off;
  }
  // By its series around 1.
  EXPECT_NEAR(129 * mm1k_loss(1 - 1e-9, 128), 1 - 64e-9, 1e-13);
  EXPECT_NEAR(129 * mm1k_loss(1 + 1e-9, 128), 1 + 64e-9, 1e-13);
  EXPECT_DOUBLE_EQ(mm1k_loss(2, 1), 2.0 / 3);
  EXPECT_DOUBLE_EQ(mm1k_loss(0.5, 2), 1.0 / 7);
}

TEST(SteadyModel, IsFiniteAtItsEdges) {
  EXPECT_EQ(mm1k_loss(0, 10), 0);
  EXPECT_EQ(mm1k_loss(0.5, 0), 1);
  EXPECT_EQ(mm1k_loss(0.5, 1e9), 0);
  EXPECT_NEAR(mm1k_loss(2, 1e9), 0.5, 1e-12);
  EXPECT_NEAR(mm1k_loss(1e300, 1e9), 1, 1e-12);
  EXPECT_NEAR(mm1k_loss(1e300, 0), 1, 1e-12);
  EXPECT_EQ(mmck_loss(0, 4, 10), 0);
  EXPECT_EQ(mmck_loss(4, 4, 0), 1);
  EXPECT_EQ(mmck_loss(4, 0, 10), 1);
  EXPECT_EQ(mmck_loss(999, 1000, 1e300), 0);
  EXPECT_NEAR(mmck_loss(2000, 1000, 1e6), 0.5, 1e-12);
  EXPECT_NEAR(mmck_loss(1000, 1000, 1e6), 1e-6, 1e-8);
  EXPECT_EQ(erlang_b(0, 4), 0);
  EXPECT_EQ(erlang_b(4, 0), 1);
  EXPECT_NEAR(erlang_b(1e9, 1000), 1 - 1e-6, 1e-9);
  EXPECT_EQ(erlang_b(1e-3, 1000), 0);
  EXPECT_EQ(erlang_c(4, 4), 1);
  EXPECT_EQ(erlang_c(8, 4), 1);
  EXPECT_EQ(erlang_c(0, 4), 0);
}

TEST(ErlangsModel, GivesHisTables) {
  EXPECT_NEAR(erlang_b(10, 15), 0.03650, 0.00001);
  EXPECT_NEAR(erlang_b(1, 1), 0.5, 1e-12);
  EXPECT_NEAR(erlang_b(5, 10), 0.01838, 0.00001);
  EXPECT_NEAR(erlang_b(100, 100), 0.07570, 0.00001);
  EXPECT_NEAR(erlang_c(2, 3), 4.0 / 9, 1e-12);
  EXPECT_NEAR(erlang_c(0.7, 1), 0.7, 1e-12);
  EXPECT_NEAR(erlang_c(8, 10), 0.40918, 0.00001);
}

TEST(SeveralServersModel, OfOneServerIsTheModelOfOne) {
  for (const double rho : {0.1, 0.9, 1.0, 1.0 + 1e-10, 3.0}) {
    for (const double places : {1.0, 2.0, 17.0, 129.0, 1e6}) {
      const double one = mm1k_loss(rho, places);
      EXPECT_NEAR(mmck_loss(rho, 1, places), one, 1e-9 * one) << rho << " " << places;
    }
  }
}

TEST(SeveralServersModel, WithoutAQueueIsErlangs) {
  for (const int servers : {1, 8, 1000}) {
    for (const double erlangs : {0.5, 7.9, 1200.0}) {
      EXPECT_EQ(mmck_loss(erlangs, servers, servers), erlang_b(erlangs, servers));
    }
  }
}

TEST(SeveralServersModel, IsTheSumOverItsStates) {
  for (const double erlangs : {0.5, 3.9, 4.0, 6.0}) {
    constexpr int kServers = 4;
    constexpr int kPlaces = 30;
    double weight = 1;
    double sum = 1;
    for (int state = 1; state <= kPlaces; ++state) {
      weight *= erlangs / std::min(state, kServers);
      sum += weight;
    }
    EXPECT_NEAR(mmck_loss(erlangs, kServers, kPlaces), weight / sum, 1e-12) << erlangs;
  }
}

TEST(SeveralServersModel, AgreesWithQueuesThatWerePlayed) {
  struct Queue {
    double erlangs;
    int servers;
    int places;
  };
  for (const auto& [erlangs, servers, places] :
       {Queue{0.8, 1, 4}, Queue{1.2, 1, 10}, Queue{6, 8, 10}, Queue{9, 8, 20}, Queue{0.9, 1, 8}}) {
    const double played = play_queue(erlangs, servers, places, 400'000, 5);
    EXPECT_NEAR(mmck_loss(erlangs, servers, places), played, 0.05 * played) << erlangs << " " << servers;
  }
}

TEST(HeavyTrafficModel, HasTheWaitOfPollaczekAndKhinchine) {
  EXPECT_NEAR(kingman_wait_s(0.9, 1, 1, 0.001).value_or(-1), 0.009, 1e-12);
  EXPECT_NEAR(kingman_wait_s(0.9, 1, 0, 0.001).value_or(-1), 0.0045, 1e-12);
  EXPECT_EQ(kingman_wait_s(0.9, 0, 0, 0.001), 0);
  EXPECT_EQ(kingman_wait_s(0, 1, 1, 0.001), 0);
  EXPECT_FALSE(kingman_wait_s(1, 1, 1, 0.001));
}

TEST(HeavyTrafficModel, AgreesWithConstantServiceThatWasPlayed) {
  // Poisson arrivals, each served for 1: by Lindley's recurrence, waits; and the number there is, as each
  // comes, how many of those before have not left.
  constexpr double kRho = 0.95;
  constexpr int kClients = 2'000'000;
  Random random(21);
  double now = 0;
  std::vector<double> leaves(kClients);
  int first_there = 0;
  double waited = 0;
  int deep = 0;
  int deeper = 0;
  for (int client = 0; client < kClients; ++client) {
    now += exponential(random, kRho);
    while (first_there < client && leaves[static_cast<std::size_t>(first_there)] <= now) ++first_there;
    const double free_at = client == 0 ? 0 : leaves[static_cast<std::size_t>(client) - 1];
    waited += std::max(0.0, free_at - now);
    leaves[static_cast<std::size_t>(client)] = std::max(now, free_at) + 1;
    deep += client - first_there > 10 ? 1 : 0;
    deeper += client - first_there > 30 ? 1 : 0;
  }
  EXPECT_NEAR(kingman_wait_s(kRho, 1, 0, 1).value_or(-1), waited / kClients, 0.1 * waited / kClients);
  const double share_deep = static_cast<double>(deep) / kClients;
  const double share_deeper = static_cast<double>(deeper) / kClients;
  EXPECT_NEAR(queue_tail(kRho, 1, 0, 10), share_deep, 0.15 * share_deep);
  EXPECT_NEAR(queue_tail(kRho, 1, 0, 30), share_deeper, 0.25 * share_deeper);
}

TEST(HeavyTrafficModel, IsFiniteAtItsEdges) {
  EXPECT_EQ(queue_tail(1, 1, 1, 100), 1);
  EXPECT_EQ(queue_tail(0.5, 1, 1, 0), 1);
  EXPECT_EQ(queue_tail(0.5, 1, 1, -1), 1);
  EXPECT_EQ(queue_tail(0.5, 0, 0, 1), 0);
  EXPECT_EQ(queue_tail(0.5, 1, 1, 1e300), 0);
  EXPECT_EQ(queue_tail(0, 1, 0, 1), 0);
}

// The burst.

TEST(BurstModel, KeepsPlacesForThoseWhoAreNotServedMeanwhile) {
  EXPECT_EQ(burst_places(1000, 0, 20'000), 1000);
  EXPECT_EQ(burst_places(1000, 0.01, 20'000), 800);
  EXPECT_EQ(burst_places(1000, 1, 20'000), 0);
  EXPECT_EQ(burst_places(1000, -1, 20'000), 1000);
  EXPECT_EQ(burst_places(0, 0.01, 0), 0);
  EXPECT_DOUBLE_EQ(burst_loss_share(1000, 0.01, 20'000, 300), 0.5);
  EXPECT_EQ(burst_loss_share(1000, 0.01, 20'000, burst_places(1000, 0.01, 20'000)), 0);
  EXPECT_EQ(burst_loss_share(1000, 0, 0, 0), 1);
  EXPECT_EQ(burst_loss_share(0, 1, 1, 0), 0);
  EXPECT_EQ(burst_loss_share(1000, 0, 0, 1e300), 0);
}

TEST(BurstModel, AgreesWithABurstThatWasPlayed) {
  constexpr int kClients = 5000;
  constexpr double kWithin = 0.1;
  constexpr double kServed = 20'000;
  constexpr double kPlaces = 500;
  double waiting = 0;
  int lost = 0;
  for (int client = 0; client < kClients; ++client) {
    waiting = std::max(0.0, waiting - kWithin / kClients * kServed);
    if (waiting + 1 <= kPlaces) {
      waiting += 1;
    } else {
      ++lost;
    }
  }
  EXPECT_NEAR(burst_loss_share(kClients, kWithin, kServed, kPlaces), lost / 5000.0, 0.001);
}

// SO_REUSEPORT.

/// How many of `clients` each of the listeners gets.
template <std::size_t listeners>
std::array<int, listeners> deal(int clients, Random& random) {
  std::array<int, listeners> queues{};
  for (int client = 0; client < clients; ++client) ++queues[random.below(listeners)];
  return queues;
}

TEST(ReuseportModel, AgreesWithClientsThatWereDealt) {
  constexpr int kClients = 1000;
  constexpr std::size_t kListeners = 8;
  constexpr int kDeals = 10'000;
  const double places = reuseport_places(kClients, kListeners, 0.05);
  Random random(31);
  int overflowed = 0;
  double lost_at_mean = 0;
  double lost_below = 0;
  for (int i = 0; i < kDeals; ++i) {
    const auto queues = deal<kListeners>(kClients, random);
    overflowed += std::ranges::max(queues) > places ? 1 : 0;
    for (const int queue : queues) {
      lost_at_mean += std::max(0, queue - 125);
      lost_below += std::max(0, queue - 110);
    }
  }
  // The sum of the chances is a little above the chance of any; a place fewer would be too few.
  EXPECT_LE(overflowed / double{kDeals}, 0.05);
  EXPECT_GE(overflowed / double{kDeals}, 0.03);
  EXPECT_NEAR(reuseport_loss_share(kClients, kListeners, 125), lost_at_mean / kDeals / kClients, 0.0005);
  EXPECT_NEAR(reuseport_loss_share(kClients, kListeners, 110), lost_below / kDeals / kClients, 0.0005);
}

TEST(ReuseportModel, IsExactWhereItCanBeWorkedOutByHand) {
  // Two clients, two listeners: both at one of them every other time.
  EXPECT_EQ(reuseport_places(2, 2, 0.5), 1);
  EXPECT_EQ(reuseport_places(2, 2, 0.49), 2);
  EXPECT_NEAR(reuseport_loss_share(2, 2, 1), 0.25, 1e-12);
  EXPECT_NEAR(reuseport_loss_share(2, 2, 1.9), 0.25, 1e-12);  // a place is whole
  // Ten at one of four: one chance in 4^10 each.
  EXPECT_EQ(reuseport_places(10, 4, 4.0 / (1 << 20) * 1.000001), 9);
  EXPECT_EQ(reuseport_places(10, 4, 4.0 / (1 << 20) * 0.999999), 10);
  EXPECT_NEAR(reuseport_loss_share(10, 4, 9), 4.0 / (1 << 20) / 10, 1e-15);
}

TEST(ReuseportModel, MeetsItsSumFromBothSides) {
  // Below the mean it is summed from below, above from above; next to each other the two have to fit.
  for (const std::int64_t clients : {std::int64_t{1000}, std::int64_t{1'000'000}}) {
    constexpr int kListeners = 4;
    const double mean = static_cast<double>(clients) / kListeners;
    const double before = reuseport_loss_share(clients, kListeners, mean - 1);
    const double at = reuseport_loss_share(clients, kListeners, mean);
    const double after = reuseport_loss_share(clients, kListeners, mean + 1);
    const double deviation = std::sqrt(mean * (1 - 1.0 / kListeners));
    // The second difference is the chance of exactly the mean.
    EXPECT_NEAR((before - 2 * at + after) * mean, normal_density(0) / deviation, 1e-3 / deviation);
    EXPECT_NEAR(at * mean, deviation * normal_density(0), 1e-3 * deviation);
  }
}

TEST(ReuseportModel, IsFiniteAtItsEdges) {
  EXPECT_EQ(reuseport_places(0, 4, 0.01), 0);
  EXPECT_EQ(reuseport_places(100, 0, 0.01), 0);
  EXPECT_EQ(reuseport_places(100, 1, 0.01), 100);
  EXPECT_EQ(reuseport_places(100, 4, 0), 100);
  EXPECT_EQ(reuseport_places(100, 4, 4), 0);
  EXPECT_NEAR(reuseport_places(1'000'000, 4, 0.001), 250'000 + 3.48 * 433, 5);
  EXPECT_EQ(reuseport_loss_share(0, 4, 10), 0);
  EXPECT_EQ(reuseport_loss_share(100, 0, 10), 0);
  EXPECT_DOUBLE_EQ(reuseport_loss_share(100, 1, 40), 0.6);
  EXPECT_NEAR(reuseport_loss_share(100, 4, 0), 1, 1e-12);
  EXPECT_NEAR(reuseport_loss_share(100, 4, -5), 1, 1e-12);
  EXPECT_EQ(reuseport_loss_share(100, 4, 1e300), 0);
}

// What is too much.

TEST(UpperBoundModel, IsWhoeverIsServedInTime) {
  EXPECT_EQ(upper_bound_places(5000, 1, 0.25), 3750);
  EXPECT_EQ(upper_bound_places(5000, 1, 2), 0);
  EXPECT_EQ(upper_bound_places(0, 1, 0), 0);
}

// The normal distribution.

TEST(Normal, HasItsTables) {
  EXPECT_NEAR(normal_density(0), 0.3989422804014327, 1e-15);
  EXPECT_NEAR(normal_density(-2), 0.05399096651318806, 1e-15);
  EXPECT_NEAR(normal_cumulative(1.96), 0.9750021048517795, 1e-14);
  EXPECT_NEAR(normal_cumulative(-6), 9.865876450376946e-10, 1e-22);
  EXPECT_NEAR(normal_quantile(0.975), 1.959963984540054, 1e-12);
  EXPECT_NEAR(normal_quantile(0.001), -3.090232306167813, 1e-12);
  EXPECT_NEAR(normal_quantile(1e-9), -5.997807015007685, 1e-12);
  EXPECT_NEAR(normal_quantile(0.5), 0, 1e-12);
  EXPECT_EQ(normal_quantile(0), -std::numeric_limits<double>::infinity());
  EXPECT_EQ(normal_quantile(1), std::numeric_limits<double>::infinity());
}

TEST(Normal, TurnedRoundIsItself) {
  for (double x = -8; x <= 5; x += 0.37) EXPECT_NEAR(normal_quantile(normal_cumulative(x)), x, 1e-9) << x;
}

TEST(Normal, HasAnExcessThatIsTheIntegralOfItsTail) {
  for (const double limit : {-3.0, 0.0, 0.5, 4.0}) {
    double integral = 0;
    constexpr double kStep = 1e-3;
    for (double x = limit; x < 45; x += kStep) integral += normal_cumulative(-(x + kStep / 2)) * kStep;
    EXPECT_NEAR(normal_excess(0, 1, limit), integral, 1e-6 * integral) << limit;
  }
  EXPECT_DOUBLE_EQ(normal_excess(10, 0, 4), 6);
  EXPECT_EQ(normal_excess(4, 0, 10), 0);
  EXPECT_EQ(normal_excess(0, 1, 1e300), 0);
  EXPECT_EQ(normal_excess(0, 1e-300, 1e10), 0);  // where z is infinite
  EXPECT_EQ(normal_excess(1e300, 1, 0), 1e300);
}

}  // namespace
}  // namespace anteroom::bench
