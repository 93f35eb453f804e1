#include <anteroom/admission.h>
#include <anteroom/endpoint.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <limits>
#include <map>
#include <new>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {
long allocations = 0;  // one thread
}

// Not inlined, or g++ 12 takes them for a mismatch of what it sees and what it does not.
[[gnu::noinline]] void* operator new(std::size_t size) {
  ++allocations;
  if (void* const memory = std::malloc(std::max<std::size_t>(size, 1))) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace anteroom {
namespace {

using namespace std::chrono_literals;
using Clock = Admission::Clock;
using Ticket = Admission::Ticket;
using enum AdmissionVerdict;

constexpr Clock::time_point kStart{1h};
constexpr auto kYear = 365 * 24h;

/// An admission with the clock in the test's hand.
class Doorman {
 public:
  explicit Doorman(const AdmissionOptions& options) : admission(options) {}

  AdmissionVerdict arrive(std::string_view ip) { return arrive(Endpoint(ip, 4711)); }
  AdmissionVerdict arrive(const Endpoint& peer) { return admission.arrive(peer.data(), now, ticket); }
  /// An IPv4 address as a number.
  AdmissionVerdict arrive(std::uint32_t ip) {
    sockaddr_in peer{};
    peer.sin_family = AF_INET;
    peer.sin_addr.s_addr = htonl(ip);
    return admission.arrive(reinterpret_cast<const sockaddr*>(&peer), now, ticket);
  }
  /// How many of `tries` of one source are admitted now.
  int admitted_of(int tries, std::string_view ip = "192.0.2.1") {
    int admitted = 0;
    for (int i = 0; i < tries; ++i) admitted += arrive(ip) == kAdmitted ? 1 : 0;
    return admitted;
  }

  Admission admission;
  Clock::time_point now = kStart;
  Ticket ticket = 0;  // of the last who was admitted
};

TEST(Admission, WithoutLimitsAdmitsEverybodyAndCountsThem) {
  Admission admission({});
  Ticket ticket = 7;
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(admission.arrive(nullptr, kStart, ticket), kAdmitted);
  EXPECT_EQ(ticket, 0U);
  EXPECT_EQ(admission.open(), 1000U);
  EXPECT_EQ(admission.sources(), 0U);
  for (int i = 0; i < 1000; ++i) admission.leave(ticket);
  EXPECT_EQ(admission.open(), 0U);
}

TEST(Admission, IsFullAtItsLimitUntilSomebodyLeaves) {
  Doorman door({.connections_max = 2});
  EXPECT_EQ(door.arrive("192.0.2.1"), kAdmitted);
  EXPECT_EQ(door.arrive("192.0.2.2"), kAdmitted);
  EXPECT_EQ(door.arrive("192.0.2.3"), kFull);
  EXPECT_EQ(door.admission.open(), 2U);
  door.admission.leave(door.ticket);
  EXPECT_EQ(door.arrive("192.0.2.3"), kAdmitted);
  EXPECT_EQ(door.arrive("192.0.2.3"), kFull);
}

TEST(Admission, LimitsHowManyOfOneSourceAreOpen) {
  Doorman door({.per_source_max = 2});
  EXPECT_EQ(door.admitted_of(5, "192.0.2.1"), 2);
  EXPECT_EQ(door.arrive("192.0.2.1"), kSourceHasTooMany);
  EXPECT_EQ(door.arrive("192.0.2.2"), kAdmitted) << "another has limits of his own";
  EXPECT_EQ(door.admission.open(), 3U);
  EXPECT_EQ(door.admission.sources(), 2U);
}

TEST(Admission, CountsWhoLeavesForTheSourceOfHisTicket) {
  Doorman door({.per_source_max = 1});
  ASSERT_EQ(door.arrive("192.0.2.1"), kAdmitted);
  const Ticket first = door.ticket;
  ASSERT_EQ(door.arrive("192.0.2.2"), kAdmitted);
  const Ticket second = door.ticket;
  EXPECT_NE(first, second);
  door.admission.leave(first);
  EXPECT_EQ(door.arrive("192.0.2.2"), kSourceHasTooMany);
  EXPECT_EQ(door.arrive("192.0.2.1"), kAdmitted);
  EXPECT_EQ(door.arrive("192.0.2.1"), kSourceHasTooMany);
  door.admission.leave(second);
  EXPECT_EQ(door.arrive("192.0.2.2"), kAdmitted);
}

TEST(Admission, GivesATicketAgainWhenItsSourceHasGone) {
  Doorman door({.per_source_max = 1, .sources_max = 8});
  ASSERT_EQ(door.arrive("192.0.2.1"), kAdmitted);
  const Ticket who_stays = door.ticket;
  std::set<Ticket> tickets;
  for (std::uint32_t ip = 1; ip <= 1000; ++ip) {
    ASSERT_EQ(door.arrive(ip), kAdmitted);
    const Ticket ticket = door.ticket;
    tickets.insert(ticket);
    ASSERT_EQ(door.arrive(ip), kSourceHasTooMany);
    ASSERT_EQ(door.ticket, 0U) << "who is refused has none";
    ASSERT_EQ(door.arrive("192.0.2.1"), kSourceHasTooMany);
    ASSERT_EQ(door.admission.sources(), 2U);
    door.admission.leave(ticket);
    ASSERT_EQ(door.admission.sources(), 1U);
  }
  EXPECT_LE(tickets.size(), 7U);
  EXPECT_EQ(tickets.count(0) + tickets.count(who_stays), 0U);
  EXPECT_EQ(door.admission.open(), 1U);
}

// ---- The rate

TEST(Admission, LimitsTheRateOfOneSourceByATokenBucket) {
  Doorman door({.per_source_rate = 2, .per_source_burst = 3});
  EXPECT_EQ(door.admitted_of(5), 3) << "the bucket is full at first";
  EXPECT_EQ(door.arrive("192.0.2.1"), kSourceIsTooFast);
  EXPECT_EQ(door.arrive("192.0.2.2"), kAdmitted);
  door.now += 499ms;
  EXPECT_EQ(door.admitted_of(5), 0);
  door.now += 1ms;
  EXPECT_EQ(door.admitted_of(5), 1);
  door.now += 1s;
  EXPECT_EQ(door.admitted_of(5), 2);
  door.now += 1h;
  EXPECT_EQ(door.admitted_of(5), 3) << "it holds no more than that";
}

TEST(Admission, HoldsAlsoAPartOfAToken) {
  Doorman door({.per_source_rate = 1, .per_source_burst = 2.5});
  EXPECT_EQ(door.admitted_of(5), 2);
  door.now += 500ms;
  EXPECT_EQ(door.admitted_of(5), 1);
  door.now += 1h;
  EXPECT_EQ(door.admitted_of(5), 2);
}

TEST(Admission, TakesNoTokenFromWhoIsRefused) {
  Doorman door({.connections_max = 3, .per_source_max = 1, .per_source_rate = 1, .per_source_burst = 2});
  ASSERT_EQ(door.arrive("192.0.2.1"), kAdmitted);
  const Ticket first = door.ticket;
  for (int i = 0; i < 10; ++i) ASSERT_EQ(door.arrive("192.0.2.1"), kSourceHasTooMany);
  door.admission.leave(first);
  ASSERT_EQ(door.arrive("192.0.2.1"), kAdmitted);
  door.admission.leave(door.ticket);
  for (int i = 0; i < 10; ++i) ASSERT_EQ(door.arrive("192.0.2.1"), kSourceIsTooFast);
  EXPECT_EQ(door.ticket, 0U);
  EXPECT_EQ(door.admission.open(), 0U);
  door.now += 1s;
  EXPECT_EQ(door.arrive("192.0.2.1"), kAdmitted);
}

TEST(Admission, GoesOnForYears) {
  for (const Clock::time_point start : {Clock::time_point(0s), kStart, Clock::time_point(100 * kYear)}) {
    Doorman door({.per_source_rate = 0.001, .per_source_burst = 2});
    door.now = start;
    for (int i = 0; i < 40; ++i) {
      ASSERT_EQ(door.admitted_of(5), 2);
      door.now += 999s;
      ASSERT_EQ(door.admitted_of(5), 0);
      door.now += 1s;
      ASSERT_EQ(door.admitted_of(5), 1);
      door.now += kYear;
    }
  }
}

TEST(Admission, KeepsTheSlowestAndTheFastestRates) {
  Doorman never({.per_source_rate = 1e-300, .per_source_burst = 2});
  EXPECT_EQ(never.admitted_of(5), 2);
  never.now += 10 * kYear;
  EXPECT_EQ(never.admitted_of(5), 0);

  Doorman billion({.per_source_rate = 1e9, .per_source_burst = 3});
  EXPECT_EQ(billion.admitted_of(5), 3);
  billion.now += 1ns;
  EXPECT_EQ(billion.admitted_of(5), 1);
  billion.now += 1s;
  EXPECT_EQ(billion.admitted_of(5), 3);

  for (const double rate : {1e12, 1e300, std::numeric_limits<double>::infinity()})
    EXPECT_EQ(Doorman({.per_source_rate = rate, .per_source_burst = 1}).admitted_of(100), 100) << rate;
  for (const double burst : {1e12, 1e300, std::numeric_limits<double>::infinity()})
    EXPECT_EQ(Doorman({.per_source_rate = 1, .per_source_burst = burst}).admitted_of(100), 100) << burst;
  for (const double rate : {3.0, 7e-3, 0.7, 333.3, 12345.678, 3e8, 2.7e8, 1.1e-8, 7.7e-9, 6.1e-8,
                            3.3e-7})  // whose tokens are no whole ns
    EXPECT_EQ(Doorman({.per_source_rate = rate, .per_source_burst = 10}).admitted_of(100), 10) << rate;
}

TEST(Admission, GivesTheRateThatItWasAskedFor) {
  for (const double rate : {0.3, 7.0, 333.3, 12345.678}) {
    Doorman door({.per_source_rate = rate, .per_source_burst = 1});
    const auto step = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(0.1 / rate));
    int admitted = 0;
    for (int i = 0; i < 10'000; ++i, door.now += step) admitted += door.admitted_of(1);
    EXPECT_NEAR(admitted, 1000, 100) << rate;  // at most a step later than the token
    EXPECT_LE(admitted, 1001) << rate;
  }
}

// ---- What is one source

TEST(Admission, CountsAMappedAddressAsIPv4) {
  Doorman door({.per_source_max = 1});
  EXPECT_EQ(door.arrive("192.0.2.1"), kAdmitted);
  EXPECT_EQ(door.arrive("::ffff:192.0.2.1"), kSourceHasTooMany);
  EXPECT_EQ(door.arrive("::ffff:192.0.2.2"), kAdmitted) << "IPv4 has its own prefix";
  EXPECT_EQ(door.arrive("192.0.2.2"), kSourceHasTooMany);
  EXPECT_EQ(door.arrive("::192.0.2.1"), kAdmitted) << "this one is not mapped";
  EXPECT_EQ(door.arrive("::1:0:0"), kSourceHasTooMany) << "but of the same /64";
}

TEST(Admission, CountsAPrefixAsOneSource) {
  struct Case {
    int ipv4_bits, ipv6_bits;
    const char* first;
    const char* second;
    bool is_the_same;
  };
  for (const Case& pair : {Case{32, 64, "192.0.2.1", "192.0.2.1", true},
                           Case{32, 64, "192.0.2.0", "192.0.2.1", false},
                           Case{32, 64, "2001:db8::1", "2001:db8::ffff:2", true},
                           Case{32, 64, "2001:db8::1", "2001:db8:0:1::1", false},
                           Case{24, 64, "192.0.2.1", "192.0.2.254", true},
                           Case{24, 64, "192.0.2.1", "192.0.3.1", false},
                           Case{1, 64, "1.2.3.4", "127.255.0.9", true},
                           Case{1, 64, "1.2.3.4", "128.2.3.4", false},
                           Case{0, 64, "1.2.3.4", "200.2.3.4", true},
                           Case{0, 64, "0.0.0.0", "::", false},
                           Case{32, 128, "2001:db8::1", "2001:db8::1", true},
                           Case{32, 128, "2001:db8::1", "2001:db8::2", false},
                           Case{32, 127, "2001:db8::2", "2001:db8::3", true},
                           Case{32, 127, "2001:db8::1", "2001:db8::2", false},
                           Case{32, 65, "2001:db8::1", "2001:db8::8000:0:0:1", false},
                           Case{32, 64, "2001:db8::1", "2001:db8::8000:0:0:1", true},
                           Case{32, 56, "2001:db8:0:11::", "2001:db8:0:ff::", true},
                           Case{32, 56, "2001:db8:0:11::", "2001:db8:0:111::", false},
                           Case{32, 64, "2001:db8::ffff:192.0.2.1", "2001:db8::ffff:192.0.2.2", true},
                           Case{32, 0, "2001:db8::1", "fe80::1", true},
                           Case{32, 0, "::1", "192.0.2.1", false}}) {
    Doorman door(
        {.per_source_max = 1, .ipv4_prefix_bits = pair.ipv4_bits, .ipv6_prefix_bits = pair.ipv6_bits});
    ASSERT_EQ(door.arrive(pair.first), kAdmitted);
    EXPECT_EQ(door.arrive(pair.second), pair.is_the_same ? kSourceHasTooMany : kAdmitted)
        << pair.first << " and " << pair.second << " at " << pair.ipv4_bits << " and " << pair.ipv6_bits;
  }
}

TEST(Admission, DoesNotTellPortsApart) {
  Doorman door({.per_source_max = 1});
  EXPECT_EQ(door.arrive(Endpoint("192.0.2.1", 1)), kAdmitted);
  EXPECT_EQ(door.arrive(Endpoint("192.0.2.1", 2)), kSourceHasTooMany);
  EXPECT_EQ(door.arrive(Endpoint("2001:db8::1", 1)), kAdmitted);
  EXPECT_EQ(door.arrive(Endpoint("2001:db8::1", 2)), kSourceHasTooMany);
}

TEST(Admission, CountsWhoHasNoAddressOnlyInAll) {
  Doorman door({.connections_max = 4, .per_source_max = 1, .per_source_rate = 1, .per_source_burst = 1});
  Ticket ticket = 7;
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(door.arrive(Endpoint::unix_path("@guest")), kAdmitted);
    EXPECT_EQ(door.admission.arrive(nullptr, door.now, ticket), kAdmitted);
  }
  EXPECT_EQ(ticket, 0U);
  EXPECT_EQ(door.admission.sources(), 0U);
  EXPECT_EQ(door.arrive(Endpoint::unix_path("@guest")), kFull);
}

// ---- The table

TEST(Admission, WithAFullTableAdmitsNewSourcesUncounted) {
  Doorman door({.per_source_max = 1, .sources_max = 8});
  std::vector<Ticket> tickets;
  for (std::uint32_t ip = 1; ip <= 8; ++ip) {
    ASSERT_EQ(door.arrive(ip), kAdmitted);
    tickets.push_back(door.ticket);
  }
  EXPECT_EQ(std::set(tickets.begin(), tickets.end()).size(), 8U);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(door.arrive(9), kAdmitted);
    EXPECT_EQ(door.ticket, 0U);
  }
  EXPECT_EQ(door.admission.sources(), 8U);
  EXPECT_EQ(door.admission.open(), 11U);
  for (std::uint32_t ip = 1; ip <= 8; ++ip) EXPECT_EQ(door.arrive(ip), kSourceHasTooMany) << "still known";
  door.admission.leave(0);  // one of those who were not counted
  door.admission.leave(tickets[3]);
  EXPECT_EQ(door.admission.open(), 9U);
  EXPECT_EQ(door.arrive(9), kAdmitted);
  EXPECT_EQ(door.ticket, tickets[3]) << "the place that has become free";
  EXPECT_EQ(door.arrive(9), kSourceHasTooMany);
}

TEST(Admission, ForgetsOnlySourcesWithNothingOpenAndAFullBucket) {
  Doorman door({.per_source_max = 5, .per_source_rate = 1, .per_source_burst = 2, .sources_max = 8});
  std::vector<Ticket> tickets;
  for (std::uint32_t ip = 1; ip <= 8; ++ip) {
    ASSERT_EQ(door.arrive(ip), kAdmitted);
    tickets.push_back(door.ticket);
  }
  for (std::size_t i = 1; i < 8; ++i) door.admission.leave(tickets[i]);
  door.now += 999ms;
  EXPECT_EQ(door.arrive(9), kAdmitted);
  EXPECT_EQ(door.ticket, 0U) << "nobody's bucket is full";
  door.now += 1ms;
  std::set<Ticket> again;
  for (std::uint32_t ip = 11; ip <= 17; ++ip) {
    ASSERT_EQ(door.arrive(ip), kAdmitted);
    again.insert(door.ticket);
  }
  EXPECT_EQ(again, std::set(tickets.begin() + 1, tickets.end()))
      << "all but that of the one who is still there";
  EXPECT_EQ(door.admission.sources(), 8U);
  EXPECT_EQ(door.arrive(18), kAdmitted);
  EXPECT_EQ(door.ticket, 0U);
}

TEST(Admission, WithARateAloneNeedsNoPlaceForWhoStays) {
  Doorman door({.per_source_rate = 1, .per_source_burst = 1, .sources_max = 8});
  for (std::uint32_t ip = 1; ip <= 100; ++ip, door.now += 1s) {
    ASSERT_EQ(door.arrive(ip), kAdmitted);
    ASSERT_EQ(door.ticket, 0U);
    ASSERT_EQ(door.arrive(ip), kSourceIsTooFast) << "counted all the same";
  }
  EXPECT_LE(door.admission.sources(), 8U);
  EXPECT_EQ(door.admission.open(), 100U);
}

TEST(Admission, FindsAPlaceForAllButAFewUntilTheTableIsFull) {
  constexpr std::uint32_t kSources = 16384;
  Doorman door({.per_source_max = 1, .sources_max = kSources});
  std::uint32_t uncounted = 0;
  for (std::uint32_t ip = 0; ip < kSources * 9 / 10; ++ip) {
    ASSERT_EQ(door.arrive(0x0a000000 + ip), kAdmitted);
    uncounted += door.ticket == 0 ? 1 : 0;
  }
  EXPECT_LE(uncounted, kSources / 1000) << "1 in 10,000 is usual";
  EXPECT_EQ(door.admission.sources(), kSources * 9 / 10 - uncounted);
}

TEST(Admission, PutsASourceWhereNobodyCanForesee) {
  std::set<Ticket> tickets;
  for (int i = 0; i < 20; ++i) {
    Doorman door({.per_source_max = 1});
    ASSERT_EQ(door.arrive("192.0.2.1"), kAdmitted);
    tickets.insert(door.ticket);
  }
  EXPECT_GT(tickets.size(), 15U);
}

std::chrono::nanoseconds cpu_time() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

TEST(Admission, IsBoundedWhenAMillionSourcesCome) {
  Doorman door({.per_source_max = 2, .per_source_rate = 10, .per_source_burst = 5, .sources_max = 4096});
  const long before = allocations;
  std::vector<Ticket> tickets(1000);
  for (std::uint32_t ip = 0; ip < 1'000'000; ++ip, door.now += 2us) {
    Ticket& place = tickets[ip % tickets.size()];
    if (ip >= tickets.size()) door.admission.leave(place);
    ASSERT_EQ(door.arrive(ip), kAdmitted);
    place = door.ticket;
  }
  EXPECT_EQ(allocations - before, 1) << "that of our own vector";
  EXPECT_LE(door.admission.sources(), 4096U);
  EXPECT_EQ(door.admission.open(), 1000U);
  door.now += 10s;
  EXPECT_EQ(door.admitted_of(10), 2) << "and works as ever";
}

TEST(Admission, TakesNoLongerWithALargeTable) {
  const auto time_with = [](std::size_t sources_max) {
    auto best = std::chrono::nanoseconds::max();
    for (int attempt = 0; attempt < 3; ++attempt) {
      Doorman door({.per_source_max = 1, .sources_max = sources_max});
      for (std::uint32_t ip = 0; ip < sources_max; ++ip) (void)door.arrive(ip);  // the worst case: it is full
      const auto before = cpu_time();
      for (std::uint32_t ip = 0; ip < 3000; ++ip) (void)door.arrive(0x80000000 + ip);
      best = std::min(best, cpu_time() - before);
    }
    return best;
  };
  EXPECT_LT(time_with(32 * 1024), 20 * time_with(32)) << "a thousand times as large: only the cache may tell";
}

// ---- Against a model that nobody could misunderstand

/// Tokens as nanoseconds that were saved up: exact for rates of which a token takes whole nanoseconds.
class NaiveAdmission {
 public:
  NaiveAdmission(std::size_t connections_max, std::uint32_t per_source_max, Clock::duration token, int burst)
      : connections_max_(connections_max),
        per_source_max_(per_source_max),
        token_(token),
        full_(token * burst) {}

  AdmissionVerdict arrive(std::uint32_t source, Clock::time_point now) {
    if (open_ >= connections_max_) return kFull;
    State& state = sources_.try_emplace(source, State{0, full_, now}).first->second;
    state.saved = std::min(full_, state.saved + (now - state.seen));
    state.seen = now;
    if (state.open >= per_source_max_) return kSourceHasTooMany;
    if (state.saved < token_) return kSourceIsTooFast;
    state.saved -= token_;
    ++state.open;
    ++open_;
    return kAdmitted;
  }
  void leave(std::uint32_t source) { --sources_.at(source).open, --open_; }
  std::size_t open() const { return open_; }

 private:
  struct State {
    std::uint32_t open;
    Clock::duration saved;
    Clock::time_point seen;
  };
  std::size_t connections_max_;
  std::uint32_t per_source_max_;
  Clock::duration token_, full_;
  std::size_t open_ = 0;
  std::map<std::uint32_t, State> sources_;
};

TEST(Admission, AgreesWithANaiveModelWhateverComes) {
  std::map<AdmissionVerdict, int> verdicts;
  for (std::uint32_t seed = 1; seed <= 6; ++seed) {
    std::mt19937 random(seed);
    const auto up_to = [&](std::uint32_t max) {
      return std::uniform_int_distribution<std::uint32_t>(0, max)(random);
    };
    const int burst = 1 + static_cast<int>(up_to(6));
    const std::uint32_t per_source_max = 1 + up_to(4);
    Doorman door({.connections_max = 150,
                  .per_source_max = per_source_max,
                  .per_source_rate = 4,
                  .per_source_burst = static_cast<double>(burst),
                  .sources_max = 2048});
    NaiveAdmission model(150, per_source_max, 250ms, burst);
    struct Guest {
      std::uint32_t source;
      Ticket ticket;
    };
    std::vector<Guest> guests;
    for (int step = 0; step < 20'000; ++step) {
      door.now += std::chrono::microseconds(up_to(step % 1000 == 0 ? 3'000'000 : 3'000));
      const std::uint32_t source = up_to(step % 4000 < 2000 ? 30 : 200);
      const AdmissionVerdict verdict = door.arrive(source);
      ASSERT_EQ(verdict, model.arrive(source, door.now)) << "seed " << seed << ", step " << step;
      ++verdicts[verdict];
      if (verdict == kAdmitted) guests.push_back({source, door.ticket});
      for (std::uint32_t i = up_to(step % 3000 < 1500 ? 1 : 2); i > 0 && !guests.empty(); --i) {
        std::swap(guests[up_to(static_cast<std::uint32_t>(guests.size()) - 1)], guests.back());
        door.admission.leave(guests.back().ticket);
        model.leave(guests.back().source);
        guests.pop_back();
      }
      ASSERT_EQ(door.admission.open(), model.open());
    }
  }
  for (const AdmissionVerdict verdict : {kAdmitted, kFull, kSourceHasTooMany, kSourceIsTooFast})
    EXPECT_GT(verdicts[verdict], 1000) << static_cast<int>(verdict);
}

// ---- Nonsense

std::string what_is_thrown_for(const AdmissionOptions& options) {
  try {
    const Admission admission(options);
    return "(nothing)";
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
}

TEST(Admission, SaysWhichOptionMakesNoSense) {
  constexpr double kNoNumber = std::numeric_limits<double>::quiet_NaN();
  for (const double rate : {-1.0, -1e-300, kNoNumber})
    EXPECT_EQ(what_is_thrown_for({.per_source_rate = rate}),
              "AdmissionOptions::per_source_rate is negative, or no number");
  for (const double burst : {0.0, 0.99, -5.0, kNoNumber})
    EXPECT_EQ(what_is_thrown_for({.per_source_rate = 1, .per_source_burst = burst}),
              "AdmissionOptions::per_source_burst is less than one guest");
  EXPECT_EQ(what_is_thrown_for({.per_source_burst = 0}), "(nothing)") << "without a rate it means nothing";
  for (const int bits : {-1, 33})
    EXPECT_EQ(what_is_thrown_for({.ipv4_prefix_bits = bits}),
              "AdmissionOptions::ipv4_prefix_bits is not in 0 to 32");
  for (const int bits : {-1, 129})
    EXPECT_EQ(what_is_thrown_for({.ipv6_prefix_bits = bits}),
              "AdmissionOptions::ipv6_prefix_bits is not in 0 to 128");
  EXPECT_EQ(what_is_thrown_for({.sources_max = std::numeric_limits<std::size_t>::max()}),
            "AdmissionOptions::sources_max is more than there are tickets");
  EXPECT_EQ(what_is_thrown_for({.per_source_max = 1, .sources_max = 0}), "(nothing)");
  EXPECT_EQ(what_is_thrown_for({.reply = std::string(4097, '.')}),
            "AdmissionOptions::reply is longer than 4,096 bytes");
  EXPECT_EQ(what_is_thrown_for({.refusal = Refusal::kReply, .reply = std::string(4096, '.')}), "(nothing)");
}

TEST(Admission, AdmitsNobodyOnceMovedFrom) {
  Admission first(AdmissionOptions{.connections_max = 5});
  Admission::Ticket ticket = 0;
  ASSERT_EQ(first.arrive(nullptr, {}, ticket), AdmissionVerdict::kAdmitted);
  Admission second(std::move(first));
  EXPECT_EQ(second.open(), 1U);
  // NOLINTBEGIN(bugprone-use-after-move): that it is empty is what we ask
  EXPECT_EQ(first.open(), 0U);
  EXPECT_EQ(first.sources(), 0U);
  EXPECT_EQ(first.arrive(nullptr, {}, ticket), AdmissionVerdict::kFull);
  first.leave(ticket);
  // NOLINTEND(bugprone-use-after-move)
  EXPECT_EQ(second.open(), 1U);
}

}  // namespace
}  // namespace anteroom
