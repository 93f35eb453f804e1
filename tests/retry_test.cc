#include <anteroom/acceptor.h>
#include <anteroom/connector.h>
#include <anteroom/reactor.h>
#include <anteroom/retry.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "support/depth.h"
#include "support/descriptors.h"
#include "support/own_network.h"
#include "support/peer.h"
#include "support/thrown.h"
#include "support/turns.h"

namespace anteroom {
namespace {

using namespace std::chrono_literals;
using namespace test;
using std::chrono::nanoseconds;

std::vector<nanoseconds> delays_of(Retry& retry, int count) {
  std::vector<nanoseconds> delays;
  for (int i = 0; i < count; ++i) delays.push_back(retry.next_delay().value());
  return delays;
}

// ---- Retry

TEST(Retry, GrowsByItsFactorUpToItsMaximum) {
  Retry retry({.first_delay = 10ms, .factor = 3, .delay_max = 200ms, .jitter = Jitter::kNone}, 1);
  EXPECT_EQ(delays_of(retry, 6), (std::vector<nanoseconds>{10ms, 30ms, 90ms, 200ms, 200ms, 200ms}));
  EXPECT_EQ(retry.failures(), 6);
  retry.reset();
  EXPECT_EQ(retry.failures(), 0);
  EXPECT_EQ(delays_of(retry, 2), (std::vector<nanoseconds>{10ms, 30ms})) << "a success, and it begins anew";
}

TEST(Retry, GivesUpAfterItsLastAttempt) {
  Retry retry({.attempts_max = 4}, 1);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(retry.next_delay()) << "the first call has no delay";
  EXPECT_FALSE(retry.next_delay());
  EXPECT_FALSE(retry.next_delay());
  retry.reset();
  EXPECT_TRUE(retry.next_delay());
  Retry once({.attempts_max = 1}, 1);
  EXPECT_FALSE(once.next_delay());
}

TEST(Retry, IsTheSameWithTheSameSeedOnly) {
  for (const Jitter jitter : {Jitter::kFull, Jitter::kDecorrelated}) {
    Retry one({.jitter = jitter}, 7);
    Retry same({.jitter = jitter}, 7);
    Retry other({.jitter = jitter}, 8);
    const std::vector<nanoseconds> delays = delays_of(one, 20);
    EXPECT_EQ(delays_of(same, 20), delays);
    EXPECT_NE(delays_of(other, 20), delays);
    same.reset();
    EXPECT_NE(delays_of(same, 20), delays) << "not in step with its own past";
  }
}

/// How far the largest gap between the numbers, as quantiles of [from, to], and a uniform distribution is.
/// Kolmogorov and Smirnov: 99.9 % of all samples of n stay below 1.95 / sqrt(n). The seeds here never change,
/// so neither does the result.
double distance_from_uniform(std::vector<double> numbers, double from, double to) {
  std::sort(numbers.begin(), numbers.end());
  double distance = 0;
  const auto n = static_cast<double>(numbers.size());
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const double quantile = (numbers[i] - from) / (to - from);
    distance = std::max(distance, std::abs(quantile - (static_cast<double>(i) + 0.5) / n));
  }
  return distance;
}

// Brooker 2015, "full jitter": each delay anywhere between nothing and the one without jitter.
TEST(Retry, SpreadsTheWholeDelayWithFullJitter) {
  constexpr int kClients = 4000;
  std::vector<std::vector<double>> delays(5);
  for (int client = 0; client < kClients; ++client) {
    Retry retry({.first_delay = 100ms, .factor = 2, .delay_max = 1s}, static_cast<std::uint64_t>(client));
    for (std::vector<double>& nth : delays) nth.push_back(static_cast<double>(retry.next_delay()->count()));
  }
  const double ceilings_ns[] = {100e6, 200e6, 400e6, 800e6, 1000e6};
  for (std::size_t i = 0; i < delays.size(); ++i) {
    EXPECT_GE(*std::min_element(delays[i].begin(), delays[i].end()), 0);
    EXPECT_LE(*std::max_element(delays[i].begin(), delays[i].end()), ceilings_ns[i]);
    EXPECT_LT(distance_from_uniform(delays[i], 0, ceilings_ns[i]), 1.95 / std::sqrt(kClients));
  }
}

// Brooker 2015, "decorrelated jitter": between the first delay and three times the last one.
TEST(Retry, DependsOnItsLastDelayWhenDecorrelated) {
  constexpr int kClients = 4000;
  const RetryOptions options{
      .first_delay = 100ms, .factor = 3, .delay_max = 2s, .jitter = Jitter::kDecorrelated};
  std::vector<double> first;
  std::vector<double> second;  // as a share of what it may be
  int at_the_maximum = 0;
  for (int client = 0; client < kClients; ++client) {
    Retry retry(options, static_cast<std::uint64_t>(client));
    double last_ns = 100e6;
    for (int i = 0; i < 8; ++i) {
      const auto delay_ns = static_cast<double>(retry.next_delay()->count());
      EXPECT_GE(delay_ns, 100e6);
      EXPECT_LE(delay_ns, std::min(3 * last_ns, 2000e6));
      if (i == 0) first.push_back(delay_ns);
      if (i == 1) second.push_back((delay_ns - 100e6) / (3 * last_ns - 100e6));
      at_the_maximum += delay_ns == 2000e6 ? 1 : 0;
      last_ns = delay_ns;
    }
  }
  EXPECT_LT(distance_from_uniform(first, 100e6, 300e6), 1.95 / std::sqrt(kClients));
  EXPECT_LT(distance_from_uniform(second, 0, 1), 1.95 / std::sqrt(kClients));
  EXPECT_GT(at_the_maximum, 0);
}

TEST(Retry, StaysWithinItsBoundsWhateverItsOptions) {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const Jitter jitter : {Jitter::kNone, Jitter::kFull, Jitter::kDecorrelated}) {
    for (const double factor : {1.0, infinity, 1e300}) {
      Retry retry({.first_delay = 0s, .factor = factor, .delay_max = nanoseconds::max(), .jitter = jitter},
                  3);
      for (int i = 0; i < 2000; ++i) {
        const std::optional<nanoseconds> delay = retry.next_delay();
        ASSERT_TRUE(delay);
        ASSERT_GE(*delay, jitter == Jitter::kFull ? 0ms : 1ms);
        ASSERT_LE(*delay, std::chrono::hours(24 * 365 * 100));
      }
    }
  }
  Retry retry({.first_delay = 1s, .delay_max = 1s, .jitter = Jitter::kNone}, 1);
  EXPECT_EQ(delays_of(retry, 2), (std::vector<nanoseconds>{1s, 1s}));
}

TEST(Retry, RefusesOptionsThatMakeNoSenseByName) {
  const auto expect_refused = [](const RetryOptions& options, const char* name) {
    const Thrown thrown = thrown_by([&] { return Retry(options, 1); });
    EXPECT_EQ(thrown.code, std::errc::invalid_argument) << name;
    EXPECT_NE(thrown.what.find(name), std::string::npos) << thrown.what;
  };
  expect_refused({.first_delay = -1ns}, "first_delay");
  expect_refused({.delay_max = -1ns}, "delay_max");
  expect_refused({.first_delay = 1s, .delay_max = 999ms}, "delay_max");
  expect_refused({.factor = 0.5}, "factor");
  expect_refused({.factor = std::numeric_limits<double>::quiet_NaN()}, "factor");
  expect_refused({.attempts_max = -1}, "attempts_max");
}

TEST(Retry, KnowsWhichErrorsMayPass) {
  const auto may_pass = [](int error) { return is_worth_a_retry({error, std::system_category()}); };
  for (const int error :
       {ECONNREFUSED, ETIMEDOUT, ECONNRESET, EPIPE, EADDRNOTAVAIL, EADDRINUSE, EMFILE, ENFILE, ENOBUFS,
        ENOMEM, ENETUNREACH, EHOSTUNREACH, ENETDOWN, EAGAIN, ENOENT, ECANCELED})
    EXPECT_TRUE(may_pass(error)) << std::generic_category().message(error);
  for (const int error : {EACCES, EPERM, EAFNOSUPPORT, EPROTONOSUPPORT, EPROTOTYPE, EINVAL, ENOTDIR, EBADF})
    EXPECT_FALSE(may_pass(error)) << std::generic_category().message(error);
  EXPECT_TRUE(is_worth_a_retry({})) << "an end in order";
}

// ---- Reconnector

constexpr RetryOptions kQuick{.first_delay = 1ms, .delay_max = 4ms, .jitter = Jitter::kNone};

class ReconnectorTest : public testing::Test {
 protected:
  /// Writes down what is told, and sees to it that no handler runs inside another.
  ConnectionHandlers handlers() {
    return {.open = depth.guard([this](Connection&) { ++open; }),
            .closed = depth.guard([this](Connection&, std::error_code error) { closed.push_back(error); })};
  }
  ReconnectorOptions options(const RetryOptions& retry = kQuick) {
    return {.retry = retry,
            .waiting = depth.guard([this](std::error_code why, nanoseconds delay) {
              reasons.push_back(why);
              delays.push_back(delay);
            }),
            .gave_up = depth.guard([this](std::error_code why) { gave_up.push_back(why); })};
  }
  bool turn_until(const std::function<bool()>& done) { return test::turn_until(reactor, done); }

  Reactor reactor;
  Depth depth;
  int open = 0;
  std::vector<std::error_code> closed;
  std::vector<std::error_code> reasons;
  std::vector<nanoseconds> delays;
  std::vector<std::error_code> gave_up;
};

TEST_F(ReconnectorTest, FindsAServerThatComesUpLater) {
  const Endpoint door = closed_endpoint();
  Reconnector reconnector(reactor, door, handlers(), options());
  EXPECT_TRUE(closed.empty()) << "told by the turn";
  ASSERT_TRUE(turn_until([&] { return closed.size() >= 3; }));
  EXPECT_EQ(closed[0], std::errc::connection_refused);
  EXPECT_EQ(reconnector.connection(), nullptr);
  std::string heard;
  const Acceptor acceptor(reactor, door,
                          {.data = [&](Connection&, std::string_view bytes) { heard += bytes; }});
  ASSERT_TRUE(turn_until([&] { return open == 1; }));
  ASSERT_NE(reconnector.connection(), nullptr);
  EXPECT_TRUE(reconnector.connection()->send("at last"));
  ASSERT_TRUE(turn_until([&] { return heard == "at last"; }));
  EXPECT_EQ(open, 1);
  EXPECT_EQ(reasons.size(), closed.size());
  EXPECT_TRUE(gave_up.empty());
}

TEST_F(ReconnectorTest, CallsAgainWhoHangsUp) {
  int guests = 0;
  const Acceptor acceptor(reactor, kLoopback, {.open = [&](Connection& guest) {
                            if (++guests < 4) guest.close();
                          }});
  ReconnectorOptions severe = options();
  severe.success_after = std::chrono::hours(1);
  Reconnector reconnector(reactor, acceptor.endpoint(), handlers(), std::move(severe));
  ASSERT_TRUE(turn_until([&] { return guests == 4 && reconnector.connection() != nullptr; }));
  EXPECT_EQ(open, 4);
  EXPECT_EQ(closed, std::vector<std::error_code>(3)) << "in order";
  EXPECT_EQ(delays, (std::vector<nanoseconds>{1ms, 2ms, 4ms})) << "who hangs up at once is no success";
}

TEST_F(ReconnectorTest, BeginsAnewAfterASuccess) {
  int guests = 0;
  const Acceptor acceptor(reactor, kLoopback, {.open = [&](Connection& guest) {
                            if (++guests < 4) guest.close();
                          }});
  ReconnectorOptions forgiving = options();
  forgiving.success_after = 0ms;
  const Reconnector reconnector(reactor, acceptor.endpoint(), handlers(), std::move(forgiving));
  ASSERT_TRUE(turn_until([&] { return open == 4; }));
  EXPECT_EQ(delays, (std::vector<nanoseconds>{1ms, 1ms, 1ms}));
}

TEST_F(ReconnectorTest, GivesUpAfterItsLastAttempt) {
  RetryOptions retry = kQuick;
  retry.attempts_max = 3;
  const Reconnector reconnector(reactor, closed_endpoint(), handlers(), options(retry));
  ASSERT_TRUE(turn_until([&] { return gave_up.size() == 1; }));
  EXPECT_EQ(gave_up[0], std::errc::connection_refused);
  EXPECT_EQ(closed.size(), 3U);
  EXPECT_EQ(delays, (std::vector<nanoseconds>{1ms, 2ms}));
  reactor.turn(20ms);
  turn_times(reactor, 3);
  EXPECT_EQ(closed.size(), 3U) << "it calls no more";
  EXPECT_EQ(gave_up.size(), 1U);
}

TEST_F(ReconnectorTest, GivesUpAtOnceWhereARetryIsOfNoUse) {
  const Reconnector reconnector(reactor, Endpoint(), handlers(), options());
  EXPECT_TRUE(gave_up.empty()) << "told by the turn";
  ASSERT_TRUE(turn_until([&] { return gave_up.size() == 1; }));
  EXPECT_EQ(gave_up[0], std::errc::address_family_not_supported);
  EXPECT_TRUE(reasons.empty());
  EXPECT_TRUE(closed.empty()) << "there was no socket";
}

TEST_F(ReconnectorTest, WaitsForADescriptor) {
  const Acceptor acceptor(reactor, kLoopback, {});
  const Reconnector reconnector(reactor, acceptor.endpoint(), handlers(), options());
  {
    DescriptorLimit limit(0);
    ASSERT_TRUE(turn_until([&] { return reasons.size() >= 2; }));
    EXPECT_EQ(reasons[0], std::errc::too_many_files_open);
    EXPECT_TRUE(closed.empty());
  }
  ASSERT_TRUE(turn_until([&] { return open == 1; }));
}

TEST_F(ReconnectorTest, CallsAgainWhoDoesNotAnswerInTime) {
  Listener full(kLoopback, {.backlog = 0});
  const Peer only(full.endpoint());
  ReconnectorOptions impatient = options();
  impatient.connect.deadline = 5ms;
  const Reconnector reconnector(reactor, full.endpoint(), handlers(), std::move(impatient));
  ASSERT_TRUE(turn_until([&] { return closed.size() >= 2; }));
  for (const std::error_code& error : closed) EXPECT_EQ(error, std::errc::timed_out);
}

TEST_F(ReconnectorTest, MayBeDestroyedInItsOwnHandlers) {
  const Acceptor greeter(reactor, kLoopback, {.open = [](Connection& guest) { guest.send("hello"); }});
  const Acceptor rude(reactor, kLoopback, {.open = [](Connection& guest) { guest.close(); }});
  const Endpoint nobody = closed_endpoint();
  std::optional<Reconnector> reconnector;
  int told = 0;
  const auto end = [&] {
    EXPECT_TRUE(reconnector) << "told after its end";
    ++told;
    reconnector.reset();
  };
  RetryOptions once = kQuick;
  once.attempts_max = 1;
  const auto end_by = [&](const Endpoint& to, ConnectionHandlers handlers, ReconnectorOptions options) {
    const int before = told;
    reconnector.emplace(reactor, to, std::move(handlers), std::move(options));
    EXPECT_TRUE(turn_until([&] { return told == before + 1; }));
    reactor.turn(5ms);
    turn_times(reactor, 3);
    EXPECT_EQ(told, before + 1);
  };
  end_by(greeter.endpoint(), {.open = [&](Connection&) { end(); }}, {.retry = kQuick});
  end_by(greeter.endpoint(), {.data = [&](Connection&, std::string_view) { end(); }}, {.retry = kQuick});
  const ConnectionHandlers end_when_closed{.closed = [&](Connection&, std::error_code) { end(); }};
  const auto not_told = [](std::error_code, nanoseconds) { ADD_FAILURE() << "told after its end"; };
  const auto not_told_either = [](std::error_code) { ADD_FAILURE() << "told after its end"; };
  end_by(rude.endpoint(), end_when_closed, {.retry = kQuick, .waiting = not_told});
  end_by(nobody, end_when_closed, {.retry = once, .gave_up = not_told_either});
  end_by(nobody, {}, {.retry = kQuick, .waiting = [&](std::error_code, nanoseconds) { end(); }});
  end_by(nobody, {}, {.retry = once, .gave_up = [&](std::error_code) { end(); }});
  end_by(Endpoint(), {}, {.retry = kQuick, .gave_up = [&](std::error_code) { end(); }});
}

TEST_F(ReconnectorTest, RefusesWhatMakesNoSenseWhenItIsMade) {
  const int before = open_descriptors();
  const auto expect_refused = [&](const ReconnectorOptions& of, const char* name) {
    const Thrown thrown = thrown_by([&] {
      const Reconnector reconnector(reactor, kLoopback, handlers(), of);
      return 0;
    });
    EXPECT_EQ(thrown.code, std::errc::invalid_argument) << name;
    EXPECT_NE(thrown.what.find(name), std::string::npos) << thrown.what;
  };
  expect_refused({.connect = {.deadline = -1ns}}, "connect.deadline");
  expect_refused({.connection = {.idle_deadline = -1ms}}, "idle_deadline");
  expect_refused({.retry = {.first_delay = -1ns}}, "first_delay");
  expect_refused({.success_after = -1ms}, "success_after");
  turn_times(reactor, 3);
  EXPECT_EQ(open_descriptors(), before);
}

TEST_F(ReconnectorTest, LeavesNothingBehind) {
  const Acceptor acceptor(reactor, kLoopback, {});
  const int before = open_descriptors();
  { const Reconnector never_called(reactor, acceptor.endpoint(), handlers(), options()); }
  {
    const Reconnector reconnector(reactor, acceptor.endpoint(), handlers(), options());
    ASSERT_TRUE(turn_until([&] { return open == 1; }));
  }
  ASSERT_TRUE(turn_until([&] { return open_descriptors() == before; }));
  EXPECT_TRUE(closed.empty()) << "told after its end";
}

}  // namespace
}  // namespace anteroom
