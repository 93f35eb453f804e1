#include <anteroom/bench/scenario.h>
#include <gtest/gtest.h>

namespace anteroom::bench {
namespace {

using namespace std::chrono_literals;

TEST(Scenario, ReadsWhatItPrints) {
  const Scenario scenario{.server = ServerKind::kPool,
                          .backlog = kUnlimitedBacklog,
                          .threads = 3,
                          .clients = 12345,
                          .arrival = Arrival::kPoisson,
                          .rate = 2500.25,
                          .stall = 1500us,
                          .stall_every = 2s,
                          .patience = 7ns,
                          .seed = 18446744073709551615U};
  EXPECT_EQ(Scenario::parse(scenario.to_string()), scenario) << scenario.to_string();
  EXPECT_EQ(Scenario::parse(Scenario().to_string()), Scenario());
  EXPECT_EQ(Scenario::parse(""), Scenario());
}

TEST(Scenario, RefusesWhatItDoesNotKnow) {
  for (const char* text : {"server=apache", "backlog=", "backlog=12x", "clients", "=", "rate=fast", "stall=5",
                           "stall=-5ms", "what=1", "arrival=never", "stall=1e99s", "stall=nans"}) {
    EXPECT_EQ(Scenario::parse(text), std::nullopt) << text;
  }
}

TEST(Scenario, ReadsDurations) {
  EXPECT_EQ(parse_duration("100ms"), 100ms);
  EXPECT_EQ(parse_duration("1.5s"), 1500ms);
  EXPECT_EQ(parse_duration("20us"), 20us);
  EXPECT_EQ(parse_duration("7ns"), 7ns);
  EXPECT_EQ(parse_duration("2m"), 2min);
  EXPECT_EQ(parse_duration("0s"), 0ns);
  for (const char* text : {"", "ms", "5", "5 ms", "5msx", "-1s", "2000h", "90000s"}) {
    EXPECT_EQ(parse_duration(text), std::nullopt) << text;
  }
}

TEST(Scenario, KnowsTheLawOfTheStall) {
  Scenario scenario{
      .backlog = 128, .clients = 2500, .arrival = Arrival::kSteady, .rate = 5000, .stall = 100ms};
  EXPECT_DOUBLE_EQ(scenario.stall_loss().value(), 371);  // 500 come, 129 find a place
  scenario.backlog = 1024;
  EXPECT_DOUBLE_EQ(scenario.stall_loss().value(), 0);
  scenario.backlog = 4096;
  scenario.clients = 20'000;
  scenario.rate = 20'000;
  scenario.stall = 250ms;
  EXPECT_DOUBLE_EQ(scenario.stall_loss().value(), 903);
  scenario.stall = 0ms;
  EXPECT_EQ(scenario.stall_loss(), std::nullopt);
  EXPECT_EQ(Scenario{}.stall_loss(), std::nullopt);
}

}  // namespace
}  // namespace anteroom::bench
