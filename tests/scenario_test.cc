#include <anteroom/bench/scenario.h>
#include <gtest/gtest.h>

namespace anteroom::bench {
namespace {

using namespace std::chrono_literals;

TEST(Scenario, ReadsWhatItPrints) {
  const Scenario scenario{
      .server = ServerKind::kPool,
      .backlog = kUnlimitedBacklog,
      .threads = 3,
      .loop = Loop::kClosed,
      .flows = 77,
      .length = 3s,
      .clients = 12345,
      .arrival = Arrival::kPoisson,
      .rate = 2500.25,
      .dispersion = 2.5,
      .on = 1ms,
      .off = 2ms,
      .burst = 9,
      .burst_every = 3ms,
      .burst_within = 4us,
      .stall = 1500us,
      .stall_every = 2s,
      .stall_jitter = 0.25,
      .handler = {.kind = Handling::kBlock, .time = 5ms, .is_exponential = true},
      .rtt = 20ms,
      .loss = 0.125,
      .sysctls = {{"net.ipv4.tcp_syncookies", "0"}, {"net.ipv4.ip_local_port_range", "1024 65535"}},
      .patience = 7ns,
      .seed = 18446744073709551615U};
  EXPECT_EQ(Scenario::parse(scenario.to_string()), scenario) << scenario.to_string();
  EXPECT_EQ(Scenario::parse(Scenario().to_string()), Scenario());
  EXPECT_EQ(Scenario::parse(""), Scenario());
}

TEST(Scenario, RefusesWhatItDoesNotKnow) {
  for (const char* text : {"server=apache",
                           "backlog=",
                           "backlog=12x",
                           "clients",
                           "=",
                           "rate=fast",
                           "stall=5",
                           "stall=-5ms",
                           "what=1",
                           "arrival=never",
                           "stall=1e99s",
                           "stall=nans",
                           "loop=round",
                           "handler=sleep:5ms",
                           "handler=wait",
                           "handler=none:5ms",
                           "handler=wait:5ms:often",
                           "sysctl=net.core.somaxconn",
                           "sysctl=kernel.panic=1",
                           "sysctl=net.ipv4/../../kernel=1"}) {
    EXPECT_EQ(Scenario::parse(text), std::nullopt) << text;
  }
}

TEST(Scenario, TakesNoSysctlThatIsNotOnePrintableLine) {
  EXPECT_TRUE(parse_sysctl("net.ipv4.ip_local_port_range=1024 65535"));
  EXPECT_TRUE(parse_sysctl("net.ipv4.conf.all.rp_filter=0"));
  for (const std::string text :
       {"net.ipv4.tcp_syncookies=0\n", "net.ipv4.tcp_syncookies=0\nrate=5", "net.ipv4.tcp_syncookies=0\r",
        "net.ipv4.tcp_syncookies=\x1b[31m", "net.ipv4.tcp_syncookies=0\x7f",
        "net.ipv4.tcp_syncookies=\xc2\x9b", "net.ipv4.x\ny=1", "net.ipv4.x y=1", "net.=1", "net.ipv4.=1",
        "net..ipv4=1", "net.ipv4.../kernel=1", "net.ipv4/../../kernel/panic=1", "net.\xff=1"})
    EXPECT_EQ(parse_sysctl(text), std::nullopt) << text;
  EXPECT_EQ(parse_sysctl(std::string_view("net.ipv4.x=1\0", 13)), std::nullopt);
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

TEST(Scenario, ReadsHoursAndSumsOfUnitsInLettersOfAnyCase) {
  EXPECT_EQ(parse_duration("1h"), 1h);
  EXPECT_EQ(parse_duration("90m"), 90min);
  EXPECT_EQ(parse_duration("90min"), 90min);
  EXPECT_EQ(parse_duration("1h30m"), 90min);
  EXPECT_EQ(parse_duration("1h30m15s"), 90min + 15s);
  EXPECT_EQ(parse_duration("2m1.5s"), 121500ms);
  EXPECT_EQ(parse_duration("1s500ms"), 1500ms);
  EXPECT_EQ(parse_duration("24h"), 24h);
  EXPECT_EQ(parse_duration("1H"), 1h);
  EXPECT_EQ(parse_duration("100MS"), 100ms);
  EXPECT_EQ(parse_duration("5Min"), 5min);
  for (const char* text :
       {"h", "25h", "1h30", "30m1h", "1h1h", "1m1min", "1h-30m", "1h 30m", "1d", "23h60m1s"}) {
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

TEST(Scenario, FixesItsStallsBeforehand) {
  Scenario scenario{.clients = 5000, .arrival = Arrival::kSteady, .rate = 5000, .stall = 100ms};
  ASSERT_EQ(scenario.stalls().size(), 1U);
  EXPECT_EQ(scenario.stalls()[0].begin, 250ms);
  EXPECT_EQ(scenario.cycles(), 1);

  scenario.stall_every = 500ms;
  EXPECT_EQ(scenario.cycles(), 2);
  auto stalls = scenario.stalls();
  ASSERT_EQ(stalls.size(), 5U);  // also while the others still wait
  for (std::size_t i = 0; i < stalls.size(); ++i) EXPECT_EQ(stalls[i].begin, i * 500ms + 200ms);

  scenario.stall_jitter = 1;
  stalls = scenario.stalls();
  EXPECT_NE(stalls[0].begin, 200ms);
  for (std::size_t i = 0; i < stalls.size(); ++i) {
    EXPECT_GE(stalls[i].begin, i * 500ms);
    EXPECT_LE(stalls[i].begin + stalls[i].length, (i + 1) * 500ms);
  }
  Scenario other = scenario;
  EXPECT_EQ(scenario.stalls()[1].begin, other.stalls()[1].begin);
  ++other.seed;
  EXPECT_NE(scenario.stalls()[1].begin, other.stalls()[1].begin);
  scenario.stall = 0ms;
  EXPECT_TRUE(scenario.stalls().empty());
}

}  // namespace
}  // namespace anteroom::bench
