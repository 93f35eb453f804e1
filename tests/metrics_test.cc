#include <anteroom/metric_catalogue.h>
#include <anteroom/metrics.h>
#include <anteroom/socket.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "support/exposition.h"
#include "support/own_network.h"
#include "support/peer.h"
#include "support/turns.h"

namespace {
int dead_connections = 0;  // so many more calls of accept4 fail
}  // namespace

extern "C" {
// NOLINTBEGIN(bugprone-reserved-identifier): the linker's names, see --wrap in ld(1)
int __real_accept4(int socket, sockaddr* address, socklen_t* size, int flags);
int __wrap_accept4(int socket, sockaddr* address, socklen_t* size, int flags);
// NOLINTEND(bugprone-reserved-identifier)

int __wrap_accept4(int socket, sockaddr* address, socklen_t* size, int flags) {
  if (dead_connections == 0) return __real_accept4(socket, address, size, flags);
  --dead_connections;
  errno = ECONNABORTED;
  return -1;
}
}

namespace anteroom {
namespace {

using namespace std::chrono_literals;
using namespace test;

using State = ReactorPool::ThreadState;

/// Each of its numbers is another.
State some_state(std::uint64_t seed) {
  std::uint64_t next = seed;
  State state;
  LoopMetrics& loop = state.loop;
  for (std::uint64_t* count :
       {&loop.turns, &loop.events, &loop.tasks, &loop.timers, &loop.connections_opened,
        &loop.connections_closed, &loop.received_bytes, &loop.sent_bytes, &loop.timed_out})
    *count = ++next;
  for (std::size_t* now : {&loop.connections_open, &loop.channels, &loop.buffered_bytes}) *now = ++next;
  AcceptorStats& door = state.acceptor;
  for (std::uint64_t* count : {&door.accepted, &door.aborted, &door.refused, &door.shed, &door.rests,
                               &door.looks, &door.carried_over})
    *count = ++next;
  door.longest_wait = std::chrono::milliseconds(++next);
  door.tuned_backlog = static_cast<int>(++next);
  door.tunings = static_cast<std::uint32_t>(++next);
  door.wanted_beyond_somaxconn = static_cast<int>(++next);
  state.open_connections = ++next;
  state.queue = ListenQueue{.depth = static_cast<std::uint32_t>(next + 1),
                            .limit = static_cast<std::uint32_t>(next + 2),
                            .drops = next + 3,
                            .peak = static_cast<std::uint32_t>(next + 4)};
  return state;
}

void expect_numbers_of(const State& state, const Exposition& text, const Labels& labels) {
  const std::map<std::string, std::uint64_t> expected = {
      {"anteroom_reactor_turns_total", state.loop.turns},
      {"anteroom_reactor_events_total", state.loop.events},
      {"anteroom_reactor_tasks_total", state.loop.tasks},
      {"anteroom_reactor_timers_fired_total", state.loop.timers},
      {"anteroom_connections_opened_total", state.loop.connections_opened},
      {"anteroom_connections_closed_total", state.loop.connections_closed},
      {"anteroom_connections_timed_out_total", state.loop.timed_out},
      {"anteroom_connections", state.loop.connections_open},
      {"anteroom_reactor_channels", state.loop.channels},
      {"anteroom_received_bytes_total", state.loop.received_bytes},
      {"anteroom_sent_bytes_total", state.loop.sent_bytes},
      {"anteroom_buffered_bytes", state.loop.buffered_bytes},
      {"anteroom_connections_accepted_total", state.acceptor.accepted},
      {"anteroom_accept_aborted_total", state.acceptor.aborted},
      {"anteroom_connections_refused_total", state.acceptor.refused},
      {"anteroom_connections_shed_total", state.acceptor.shed},
      {"anteroom_accept_backoffs_total", state.acceptor.rests},
      {"anteroom_accept_wakeups_total", state.acceptor.looks},
      {"anteroom_accept_budget_exhausted_total", state.acceptor.carried_over},
      {"anteroom_accepted_connections", state.open_connections},
      {"anteroom_backlog_increases_total", state.acceptor.tunings},
      {"anteroom_accept_queue_depth", state.queue->depth},
      {"anteroom_accept_queue_depth_max", state.queue->peak},
      {"anteroom_listener_backlog", state.queue->limit},
      {"anteroom_listener_sk_drops_total", state.queue->drops},
  };
  for (const auto& [name, value] : expected)
    EXPECT_EQ(text.value(name, labels), static_cast<double>(value)) << name;
  EXPECT_EQ(text.has("anteroom_backlog_wanted", labels), state.acceptor.tuned_backlog > 0);
  if (state.acceptor.tuned_backlog > 0) {
    EXPECT_EQ(text.value("anteroom_backlog_wanted", labels), state.acceptor.wanted_beyond_somaxconn);
  }
  const bool is_measured = state.acceptor.longest_wait > 0ms || state.acceptor.wait_ms.count() > 0;
  EXPECT_EQ(text.has("anteroom_accept_queue_wait_max_seconds", labels), is_measured);
  if (is_measured) {
    EXPECT_DOUBLE_EQ(text.value("anteroom_accept_queue_wait_max_seconds", labels),
                     std::chrono::duration<double>(state.acceptor.longest_wait).count());
  }
}

/// The bucket of that bound; read back, for what a number looks like is not ours to know.
double bucket(const Exposition& text, const std::string& family, double le) {
  for (const auto& [key, value] : text.families().at(family).samples) {
    const auto bound = key.second.find("le");
    if (bound != key.second.end() && bound->second != "+Inf" && std::stod(bound->second) == le) return value;
  }
  ADD_FAILURE() << family << " has no bucket " << le;
  return -1;
}

TEST(Metrics, SayOfEachThreadWhatItsStateSays) {
  const std::vector<State> states = {some_state(1000), some_state(2000), some_state(3'000'000'000'000)};
  const Exposition text(prometheus_text(states));
  for (std::size_t thread = 0; thread < states.size(); ++thread)
    expect_numbers_of(states[thread], text, {{"thread", std::to_string(thread)}});
}

TEST(Metrics, AreThoseOfTheCatalogueAndAllOfThem) {
  const std::vector<State> states = {some_state(1000), some_state(2000)};
  const Exposition text(prometheus_text(states));
  expect_as_in_catalogue(text);
  for (const MetricFamily& family : kMetricCatalogue) {
    if (family.name.starts_with("anteroom_netns_") && !listen_counters()) continue;
    EXPECT_EQ(text.families().contains(std::string(family.name)), !family.name.starts_with("anteroom_watch_"))
        << family.name;
  }
}

TEST(Metrics, LeaveOutWhatWasNotMeasured) {
  std::vector<State> states(2);
  states[1] = some_state(1);
  const Exposition text(prometheus_text(states));
  for (const char* name :
       {"anteroom_accept_queue_wait_max_seconds", "anteroom_backlog_wanted", "anteroom_accept_queue_depth",
        "anteroom_accept_queue_depth_max", "anteroom_listener_backlog", "anteroom_listener_sk_drops_total"}) {
    EXPECT_FALSE(text.has(name, {{"thread", "0"}})) << name;
    EXPECT_TRUE(text.has(name, {{"thread", "1"}})) << name;
  }
}

TEST(Metrics, HaveAWantedBacklogOf0WhileSomaxconnIsEnough) {
  std::vector<State> states(1);
  states[0].acceptor.tuned_backlog = 128;
  EXPECT_EQ(Exposition(prometheus_text(states)).value("anteroom_backlog_wanted"), 0);
}

TEST(Metrics, HaveAMeasuredWaitOf0) {
  std::vector<State> states(1);
  states[0].acceptor.wait_ms.record(0);
  EXPECT_EQ(Exposition(prometheus_text(states)).value("anteroom_accept_queue_wait_max_seconds"), 0);
}

TEST(Metrics, CountDeferredAcksInSkDropsAndNotInListenDrops) {
  if (!has_own_network) GTEST_SKIP() << "others may overflow meanwhile";
  Reactor reactor;
  const Acceptor acceptor(reactor, Listener(kLoopback, {.defer_accept = std::chrono::seconds(5)}), {});
  const Exposition before(prometheus_text(reactor, acceptor));
  const std::vector<Peer> silent = connect_peers(acceptor.endpoint(), 3);
  const Exposition after(prometheus_text(reactor, acceptor));
  EXPECT_EQ(after.value("anteroom_listener_sk_drops_total"),
            before.value("anteroom_listener_sk_drops_total") + 3)
      << "each last ACK without data is one";
  for (const char* name : {"anteroom_netns_listen_drops_total", "anteroom_netns_listen_overflows_total"})
    EXPECT_EQ(after.value(name, {}), before.value(name, {})) << name;
}

TEST(Metrics, CountResetsOfHalfOpenConnectionsInSkDropsAndNotInListenDrops) {
  if (!has_own_network) GTEST_SKIP() << "others may overflow meanwhile";
  Reactor reactor;
  const Acceptor acceptor(reactor, Listener(kLoopback, {.defer_accept = std::chrono::seconds(5)}), {});
  std::vector<Peer> silent = connect_peers(acceptor.endpoint(), 3);
  const Exposition before(prometheus_text(reactor, acceptor));
  for (Peer& peer : silent) peer.reset();
  const Exposition after(prometheus_text(reactor, acceptor));
  EXPECT_EQ(after.value("anteroom_listener_sk_drops_total"),
            before.value("anteroom_listener_sk_drops_total") + 3);
  EXPECT_EQ(after.value("anteroom_netns_listen_drops_total", {}),
            before.value("anteroom_netns_listen_drops_total", {}));
}

TEST(Metrics, CountSynsThatADrainDropsInSkDropsAndNotInListenDrops) {
  if (!has_own_network) GTEST_SKIP() << "others may overflow meanwhile";
  Reactor reactor;
  Acceptor acceptor(reactor, kLoopback, {});
  const Endpoint to = acceptor.endpoint();
  acceptor.drain({.deadline = kPatience, .handshakes = kPatience}, [](std::size_t) {});
  turn_times(reactor, 2);
  const Exposition before(prometheus_text(reactor, acceptor));
  std::error_code error;
  const Fd caller = open_stream_socket(AF_INET, error);
  (void)::connect(caller.get(), to.data(), to.size());
  const Exposition after(prometheus_text(reactor, acceptor));
  EXPECT_EQ(after.value("anteroom_listener_sk_drops_total"),
            before.value("anteroom_listener_sk_drops_total") + 1);
  EXPECT_EQ(after.value("anteroom_netns_listen_drops_total", {}),
            before.value("anteroom_netns_listen_drops_total", {}));
}

TEST(Metrics, CountABackoffWhenEveryConnectionOfARunIsDead) {
  Reactor reactor;
  std::error_code reported;
  const Acceptor acceptor(
      reactor, kLoopback, {},
      {.accepts_per_turn_max = 4, .resting = [&](std::error_code why, auto) { reported = why; }});
  const std::vector<Peer> peers = connect_peers(acceptor.endpoint(), 2);
  dead_connections = 4;
  ASSERT_TRUE(turn_until(reactor, [&] { return acceptor.stats().rests > 0; }));
  const Exposition text(prometheus_text(reactor, acceptor));
  EXPECT_EQ(reported, std::errc::connection_aborted);
  EXPECT_EQ(text.value("anteroom_accept_backoffs_total"), 1);
  EXPECT_EQ(text.value("anteroom_accept_aborted_total"), 4);
  EXPECT_EQ(text.value("anteroom_connections_accepted_total"), 0);
  EXPECT_TRUE(turn_until(reactor, [&] { return acceptor.stats().accepted == 2; })) << "it goes on";
}

TEST(Metrics, GiveHistogramsInSecondsWithTheBoundsAboveWhatABucketHolds) {
  std::vector<State> states(1);
  for (const std::uint64_t us : {0, 1, 2, 3, 4, 1000}) states[0].loop.turn_us.record(us);
  states[0].loop.turn_us.record(std::uint64_t{1} << 30);  // beyond the last bound
  for (const std::uint64_t ms : {4, 4, 8, 100}) states[0].acceptor.wait_ms.record(ms);
  const Exposition text(prometheus_text(states));
  EXPECT_EQ(bucket(text, "anteroom_reactor_turn_duration_seconds", 0.000001), 1);
  EXPECT_EQ(bucket(text, "anteroom_reactor_turn_duration_seconds", 0.000002), 2);
  EXPECT_EQ(bucket(text, "anteroom_reactor_turn_duration_seconds", 0.000004), 4);
  EXPECT_EQ(bucket(text, "anteroom_reactor_turn_duration_seconds", 0.000008), 5);
  EXPECT_EQ(bucket(text, "anteroom_reactor_turn_duration_seconds", 0.000512), 5);
  EXPECT_EQ(bucket(text, "anteroom_reactor_turn_duration_seconds", 0.001024), 6);
  EXPECT_EQ(text.value("anteroom_reactor_turn_duration_seconds_bucket", {{"thread", "0"}, {"le", "+Inf"}}),
            7);
  EXPECT_EQ(text.value("anteroom_reactor_turn_duration_seconds_count"), 7);
  EXPECT_DOUBLE_EQ(text.value("anteroom_reactor_turn_duration_seconds_sum"), 0.00101 + 1073.741824);
  EXPECT_EQ(bucket(text, "anteroom_accept_queue_wait_seconds", 0.004), 0);
  EXPECT_EQ(bucket(text, "anteroom_accept_queue_wait_seconds", 0.008), 2);
  EXPECT_EQ(bucket(text, "anteroom_accept_queue_wait_seconds", 0.016), 3);
  EXPECT_EQ(bucket(text, "anteroom_accept_queue_wait_seconds", 0.128), 4);
  EXPECT_DOUBLE_EQ(text.value("anteroom_accept_queue_wait_seconds_sum"), 0.116);
}

TEST(Metrics, SayNothingOfAQueueThatTheKernelDoesNotTellOf) {
  std::vector<State> states = {some_state(1), some_state(2)};
  states[1].queue.reset();
  const Exposition text(prometheus_text(states));
  EXPECT_TRUE(text.has("anteroom_accept_queue_depth", {{"thread", "0"}}));
  EXPECT_FALSE(text.has("anteroom_accept_queue_depth", {{"thread", "1"}}));
  EXPECT_TRUE(text.has("anteroom_connections_accepted_total", {{"thread", "1"}}));
}

TEST(Metrics, PutTheLabelsOfTheUserOnEverySampleWhateverIsInThem) {
  const std::string awkward = "a \"quoted\\path\"\nof two lines, {with} = braces";
  const std::vector<State> states = {some_state(1)};
  const Exposition text(prometheus_text(states, {{"service", awkward}, {"zone", ""}}));
  std::size_t samples = 0;
  for (const auto& [name, family] : text.families()) {
    for (const auto& [key, value] : family.samples) {
      ++samples;
      EXPECT_EQ(key.second.at("service"), awkward) << key.first;
      EXPECT_EQ(key.second.at("zone"), "") << key.first;
    }
  }
  EXPECT_GT(samples, 60U);
  expect_numbers_of(states[0], text, {{"service", awkward}, {"zone", ""}, {"thread", "0"}});
}

TEST(Metrics, TellOfOverflowsOfTheNamespaceOnce) {
  if (!has_own_network) GTEST_SKIP() << "others may overflow meanwhile";
  const Listener listener(kLoopback, {.backlog = 0});
  const Exposition before(prometheus_text(std::vector<State>(2)));
  std::vector<Fd> callers;
  for (int i = 0; i < 4; ++i) {  // one is let in, three are not
    std::error_code error;
    callers.push_back(open_stream_socket(AF_INET, error));
    const Endpoint to = listener.endpoint();
    (void)::connect(callers.back().get(), to.data(), to.size());
  }
  const Exposition after(prometheus_text(std::vector<State>(2)));
  for (const char* name : {"anteroom_netns_listen_overflows_total", "anteroom_netns_listen_drops_total"})
    EXPECT_GE(after.value(name, {}) - before.value(name, {}), 3) << name;
}

TEST(Metrics, OfOneReactorAndItsDoorAreThoseOfThreadZero) {
  Reactor reactor;
  const Acceptor acceptor(reactor, kLoopback,
                          {.data = [](Connection& guest, std::string_view bytes) { guest.send(bytes); }});
  std::vector<Peer> peers = connect_peers(acceptor.endpoint(), 5);
  for (const Peer& peer : peers) ASSERT_TRUE(peer.send("hello"));
  ASSERT_TRUE(turn_until(reactor, [&] { return reactor.metrics().sent_bytes == 25; }));
  const Exposition text(prometheus_text(reactor, acceptor));
  const State state{.loop = reactor.metrics(),
                    .acceptor = acceptor.stats(),
                    .queue = acceptor.queue(),
                    .open_connections = acceptor.open_connections()};
  expect_numbers_of(state, text, {{"thread", "0"}});
  EXPECT_EQ(text.value("anteroom_connections_accepted_total"), 5);
  EXPECT_EQ(text.value("anteroom_accepted_connections"), 5);
  EXPECT_EQ(text.value("anteroom_received_bytes_total"), 25);
  EXPECT_EQ(text.value("anteroom_accept_queue_depth_max"), 5);
  EXPECT_GT(text.value("anteroom_reactor_turn_duration_seconds_count"), 0);
}

TEST(Metrics, MayBeScrapedWhileAPoolServes) {
  ReactorPool pool(kLoopback,
                   [](Reactor&, int) {
                     return ConnectionHandlers{.open = [](Connection& guest) {
                       guest.send("Hello World!");
                       guest.close();
                     }};
                   },
                   {.threads = 2});
  pool.start();
  std::atomic<bool> is_over{false};
  std::thread guests([&] {
    for (int round = 0; round < 10; ++round) {
      for (Peer& peer : connect_peers(pool.endpoint(), 20)) peer.receive_all();
    }
    is_over = true;
  });
  double accepted = 0;
  int scrapes = 0;
  const auto all = [](const Exposition& text, const std::string& name) {
    return text.value(name, {{"thread", "0"}}) + text.value(name, {{"thread", "1"}});
  };
  while (!is_over) {
    const Exposition text(prometheus_text(pool.state()));
    const double now = all(text, "anteroom_connections_accepted_total");
    EXPECT_GE(now, accepted) << "a counter has fallen";
    accepted = now;
    ++scrapes;
  }
  guests.join();
  EXPECT_GT(scrapes, 0);
  const Exposition text(prometheus_text(pool.state()));
  EXPECT_EQ(all(text, "anteroom_connections_accepted_total"), 200);
  EXPECT_EQ(all(text, "anteroom_sent_bytes_total"), 200 * 12);
}

// ---- The parser itself: what it lets pass proves nothing

TEST(Exposition, IsRefusedWhenItBreaksTheFormat) {
  const std::string head = "# HELP a_total b\n# TYPE a_total counter\n";
  EXPECT_NO_THROW(Exposition(head + "a_total{x=\"1\"} 1\na_total 2\n"));
  for (const std::string& text : {head + "a_total 1",
                                  head + "a_total\n",
                                  head + "a_total{x=\"1\" 1\n",
                                  head + "a_total{x=1} 1\n",
                                  head + "a_total{x=\"\\t\"} 1\n",
                                  head + "a_total{x=\"1\"}1\n",
                                  head + "a_total 1\na_total 1\n",
                                  head + "b_total 1\n",
                                  head + head,
                                  head + "a_total x\n",
                                  head + "a_total{1x=\"1\"} 1\n",
                                  head + "a_total{x=\"1\",x=\"2\"} 1\n",
                                  head + "\n",
                                  std::string("# HELP a b\n# TYPE a counter\na 1\n"),
                                  std::string("# HELP a b\na 1\n# TYPE a gauge\n"),
                                  std::string("# HELP a b\n"),
                                  std::string("a 1\n"),
                                  std::string("# HELP a b\na 1\n# TYPE a gauge\na 1\n"),
                                  std::string("# HELP a \\t\n# TYPE a gauge\n"),
                                  head + "a_total -1\n",
                                  head + "a_total{x=\"\xff\"} 1\n",
                                  head + "a_total{x=\"\xed\xa0\x80\"} 1\n",
                                  head + "# HELP b c\n# TYPE b gauge\nb 1\na_total 1\n"})
    EXPECT_THROW(Exposition(text).families(), std::exception) << text;
  const std::string histogram = "# HELP h b\n# TYPE h histogram\n";
  EXPECT_NO_THROW(
      Exposition(histogram + "h_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n"));
  for (const char* samples :
       {"h_bucket{le=\"1\"} 3\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n",
        "h_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 1\n",
        "h_bucket{le=\"1\"} 1\nh_sum 3\nh_count 1\n", "h_bucket{le=\"+Inf\"} 2\nh_count 2\n", "h_bucket 2\n"})
    EXPECT_THROW(Exposition(histogram + samples).families(), std::exception) << samples;
}

}  // namespace
}  // namespace anteroom
