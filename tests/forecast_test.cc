#include <anteroom/bench/forecast.h>
#include <gtest/gtest.h>

#include <optional>

namespace anteroom::bench {
namespace {

using namespace std::chrono_literals;

constexpr double kAccepts = 40'000;  // a second

Scenario stalls(int backlog) {
  return {.backlog = backlog,
          .clients = 10'000,
          .arrival = Arrival::kPoisson,
          .rate = 2000,
          .stall = 300ms,
          .stall_every = 1s};
}

TEST(Forecast, OfAStallIsWhatWasMeasuredOnLinux) {
  EXPECT_NEAR(forecast(stalls(64), kAccepts)->loss, 0.2675, 0.0005);
  EXPECT_NEAR(forecast(stalls(256), kAccepts)->loss, 0.1715, 0.0005);
  EXPECT_NEAR(forecast(stalls(511), kAccepts)->loss, 0.0440, 0.0005);
  EXPECT_NEAR(forecast(stalls(700), kAccepts)->loss, 0, 0.0005);
  EXPECT_EQ(forecast(stalls(64), kAccepts)->model, "stall");
  EXPECT_DOUBLE_EQ(forecast(stalls(kUnlimitedBacklog), kAccepts)->loss, 0);
}

TEST(Forecast, OfEvenArrivalsIsTheLawToTheUnit) {
  const Scenario scenario{
      .backlog = 128, .clients = 2500, .arrival = Arrival::kSteady, .rate = 5000, .stall = 100ms};
  EXPECT_DOUBLE_EQ(forecast(scenario, kAccepts)->loss * scenario.clients, scenario.stall_loss().value());
}

TEST(Forecast, OfBurstsInStallsLiesBetweenNoneAndAllOfThem) {
  Scenario without = stalls(511);
  Scenario with = without;
  with.burst = 300;
  with.burst_every = 1s;
  Scenario always = without;
  always.rate += 300 / 0.3;  // as if each stall had one
  EXPECT_GT(forecast(with, kAccepts)->loss, forecast(without, kAccepts)->loss);
  EXPECT_LT(forecast(with, kAccepts)->loss, forecast(always, kAccepts)->loss);
  EXPECT_EQ(forecast(with, kAccepts)->model, "stall and bursts");
}

TEST(Forecast, OfABurstCountsWhoFindsNoPlace) {
  Scenario burst{.backlog = 99, .clients = 1000, .stall = 500ms};
  EXPECT_DOUBLE_EQ(forecast(burst, kAccepts)->loss, 0.9);
  burst.stall = 0ms;
  EXPECT_FALSE(forecast(burst, kAccepts)) << "who wins the race is luck";
  burst.burst_within = 100ms;
  EXPECT_DOUBLE_EQ(forecast(burst, 5000)->loss, 0.4);  // 500 are accepted meanwhile, 100 wait
}

TEST(Forecast, OfExponentialServicesIsErlangs) {
  Scenario scenario{.server = ServerKind::kBlocking,
                    .backlog = 9,
                    .clients = 1000,
                    .arrival = Arrival::kPoisson,
                    .rate = 100,
                    .handler = {.kind = Handling::kWait, .time = 10ms, .is_exponential = true}};
  EXPECT_NEAR(forecast(scenario, 0)->loss, 1.0 / 12, 1e-9);  // rho = 1, 11 places
  EXPECT_EQ(forecast(scenario, 0)->model, "M/M/1/K");
  scenario.server = ServerKind::kPool;
  scenario.threads = 8;
  EXPECT_LT(forecast(scenario, 0)->loss, 1e-6);
  EXPECT_EQ(forecast(scenario, 0)->model, "M/M/c/K");
  scenario.server = ServerKind::kReactor;  // waits for all of them at once
  EXPECT_FALSE(forecast(scenario, 0));
  scenario.handler.kind = Handling::kBlock;
  EXPECT_NEAR(forecast(scenario, 0)->loss, 1.0 / 12, 1e-9);
}

TEST(Forecast, SaysNothingOfWhatNoModelKnows) {
  Scenario scenario = stalls(64);
  scenario.loop = Loop::kClosed;
  EXPECT_FALSE(forecast(scenario, kAccepts));
  scenario = stalls(64);
  scenario.arrival = Arrival::kRamp;
  EXPECT_FALSE(forecast(scenario, kAccepts));
  scenario = stalls(64);
  scenario.server = ServerKind::kReactors;
  EXPECT_FALSE(forecast(scenario, kAccepts));
}

TEST(Forecast, OfABurstAtSeveralListenersIsBinomial) {
  Scenario burst{
      .server = ServerKind::kReactors, .backlog = 199, .threads = 2, .clients = 400, .stall = 500ms};
  // Two queues hold all 400 only if 200 fall to each: the mean excess of Binomial(400, 1/2) is 0.399 x 10.
  EXPECT_NEAR(forecast(burst, kAccepts)->loss, 2 * 3.99 / 400, 0.0005);
  EXPECT_EQ(forecast(burst, kAccepts)->model, "binomial");
  burst.server = ServerKind::kReactor;
  burst.backlog = 399;
  EXPECT_DOUBLE_EQ(forecast(burst, kAccepts)->loss, 0) << "one queue of as many places holds them";
}

TEST(Forecast, SaysNothingOutsideTheBoundsOfItsModel) {
  Scenario far = stalls(64);
  far.rtt = 100ms;  // of a stall of 300: many are under way when the queue fills, and become ghosts
  EXPECT_FALSE(forecast(far, kAccepts));
  far.rtt = 10ms;
  EXPECT_TRUE(forecast(far, kAccepts));
  Scenario clumps = stalls(64);
  clumps.dispersion = 1000;  // as many come in one clump as in a whole stall
  EXPECT_FALSE(forecast(clumps, kAccepts));
  Scenario often = stalls(64);
  often.burst = 10;
  often.burst_every = 100ms;  // three of them in each stall
  EXPECT_FALSE(forecast(often, kAccepts));
  Scenario burst{.backlog = 64, .clients = 10'000, .stall = 50ms};
  EXPECT_FALSE(forecast(burst, kAccepts)) << "the stall is over before the last has called";
  Scenario pool{.server = ServerKind::kPool,
                .backlog = 64,
                .arrival = Arrival::kPoisson,
                .rate = 100,
                .handler = {.kind = Handling::kCompute, .time = 1ms, .is_exponential = true}};
  EXPECT_FALSE(forecast(pool, kAccepts)) << "eight threads do not compute at once on one processor";
}

TEST(Forecast, CutsAStallThatOutlastsTheLoad) {
  const Scenario scenario{
      .backlog = 128, .clients = 500, .arrival = Arrival::kSteady, .rate = 1000, .stall = 1s};
  EXPECT_DOUBLE_EQ(forecast(scenario, kAccepts)->loss, (375 - 129) / 500.0);  // from a quarter of it on
}

TEST(Forecast, CountsWhatIsComputedOnce) {
  const Scenario scenario{.server = ServerKind::kBlocking,
                          .backlog = 64,
                          .clients = 1000,
                          .arrival = Arrival::kPoisson,
                          .rate = 3000,
                          .handler = {.kind = Handling::kCompute, .time = 200us, .is_exponential = true}};
  EXPECT_LT(forecast(scenario, 4000)->loss, 1e-6) << "4,000 a second are accepted, computing and all";
}

TEST(Needs, NameTheTermThatDominates) {
  EXPECT_EQ(needs(stalls(64), kAccepts, 0.001).dominant(), Term::kStall);
  EXPECT_NEAR(needs(stalls(64), kAccepts, 0.001).stall, 640, 20);
  Scenario scenario = stalls(64);
  scenario.burst = 5000;
  scenario.burst_every = 1s;
  EXPECT_EQ(needs(scenario, kAccepts, 0.001).dominant(), Term::kBurst);
  scenario = {.clients = 1000, .arrival = Arrival::kPoisson, .rate = 950};
  EXPECT_EQ(needs(scenario, 1000, 0.001).dominant(), Term::kService);
  EXPECT_GT(needs(scenario, 900, 0.001).service, 1e6) << "a server too slow has no queue that is enough";
}

}  // namespace
}  // namespace anteroom::bench
