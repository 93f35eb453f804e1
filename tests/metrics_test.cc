#include <anteroom/metrics.h>
#include <anteroom/socket.h>
#include <gtest/gtest.h>

#include <atomic>
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

#include "support/own_network.h"
#include "support/peer.h"
#include "support/turns.h"

namespace anteroom {
namespace {

using namespace std::chrono_literals;
using namespace test;

using Labels = std::map<std::string, std::string>;
using State = ReactorPool::ThreadState;

/// The text format 0.0.4 read back, by its letter and stricter: every line has to be one that the format
/// knows, a family has one HELP, then one TYPE, then its samples and nobody else's, and no sample comes
/// twice.
class Exposition {
 public:
  struct Family {
    std::string type;
    std::map<std::pair<std::string, Labels>, double> samples;  // by name, which may have a suffix
  };

  explicit Exposition(std::string_view text) {
    if (!text.ends_with('\n')) fail("the last line has no end", text);
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t end = text.find('\n', begin);
      read_line(text.substr(begin, end - begin));
      begin = end + 1;
    }
    for (const auto& [name, family] : families_) {
      if (family.type.empty()) fail("no TYPE", name);
      if (family.type == "histogram") check_histograms(name, family);
    }
  }

  const std::map<std::string, Family>& families() const { return families_; }

  double value(const std::string& name, const Labels& labels = {{"thread", "0"}}) const {
    const Family& family = families_.at(family_of(name));
    const auto sample = family.samples.find({name, labels});
    if (sample == family.samples.end()) fail("there is no sample", name);
    return sample->second;
  }

  bool has(const std::string& name, const Labels& labels) const {
    const auto family = families_.find(name);
    return family != families_.end() && family->second.samples.contains({name, labels});
  }

 private:
  [[noreturn]] static void fail(const std::string& what, std::string_view where) {
    throw std::runtime_error(what + ": " + std::string(where));
  }

  static bool is_name(std::string_view name) {
    const auto is_letter = [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
    };
    if (name.empty() || !is_letter(name.front())) return false;
    for (const char c : name) {
      if (!is_letter(c) && !(c >= '0' && c <= '9')) return false;
    }
    return true;
  }

  static std::string take_until(std::string_view& line, char end) {
    const std::size_t at = line.find(end);
    if (at == line.npos) fail(std::string("no '") + end + '\'', line);
    const std::string word(line.substr(0, at));
    line.remove_prefix(at + 1);
    return word;
  }

  void read_line(std::string_view line) {
    if (line.starts_with("# HELP ")) {
      line.remove_prefix(7);
      current_ = take_until(line, ' ');
      if (!is_name(current_) || line.empty()) fail("HELP", line);
      if (!families_.emplace(current_, Family()).second) fail("a family twice", current_);
    } else if (line.starts_with("# TYPE ")) {
      line.remove_prefix(7);
      if (take_until(line, ' ') != current_) fail("TYPE of another", line);
      Family& family = families_.at(current_);
      if (!family.type.empty() || !family.samples.empty()) fail("TYPE late, or twice", current_);
      if (line != "counter" && line != "gauge" && line != "histogram") fail("no type", line);
      if ((line == "counter") != current_.ends_with("_total"))
        fail("a counter's name, or no counter's", current_);
      family.type = line;
    } else {
      read_sample(line);
    }
  }

  void read_sample(std::string_view line) {
    const std::size_t end = line.find_first_of("{ ");
    if (end == line.npos) fail("no sample", line);
    const std::string name(line.substr(0, end));
    if (!is_name(name) || family_of(name) != current_) fail("a sample out of its family", line);
    line.remove_prefix(end);
    const Labels labels = read_labels(line);
    if (!line.starts_with(' ')) fail("no space before the value", line);
    line.remove_prefix(1);
    if (!families_.at(current_).samples.emplace(std::pair(name, labels), read_number(line)).second)
      fail("a sample twice", name);
  }

  static Labels read_labels(std::string_view& line) {
    Labels labels;
    if (!line.starts_with('{')) return labels;
    do {
      line.remove_prefix(1);
      const std::string name = take_until(line, '=');
      if (!is_name(name) || !line.starts_with('"')) fail("a label", line);
      line.remove_prefix(1);
      if (!labels.emplace(name, read_quoted(line)).second) fail("a label twice", name);
    } while (line.starts_with(','));
    if (!line.starts_with('}')) fail("no end of the labels", line);
    line.remove_prefix(1);
    return labels;
  }

  static std::string read_quoted(std::string_view& line) {
    std::string value;
    for (; !line.empty() && line.front() != '"'; line.remove_prefix(1)) {
      char c = line.front();
      if (c == '\\') {
        line.remove_prefix(1);
        c = line.empty() ? '\0' : line.front();
        if (c != '\\' && c != '"' && c != 'n') fail("an escape that there is not", line);
        if (c == 'n') c = '\n';
      }
      value += c;
    }
    if (line.empty()) fail("no closing quote", line);
    line.remove_prefix(1);
    return value;
  }

  static double read_number(std::string_view text) {
    if (text == "+Inf") return HUGE_VAL;
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value))
      fail("no number", text);
    return value;
  }

  /// The family that a sample belongs to: a histogram's have suffixes.
  std::string family_of(const std::string& name) const {
    if (families_.contains(name)) return name;
    for (const std::string_view suffix : {"_bucket", "_sum", "_count"}) {
      if (!name.ends_with(suffix)) continue;
      const std::string stem = name.substr(0, name.size() - suffix.size());
      const auto family = families_.find(stem);
      if (family != families_.end() && family->second.type == "histogram") return stem;
    }
    fail("a sample of no family", name);
  }

  /// Cumulative, in ascending order, up to +Inf, which is the count.
  static void check_histograms(const std::string& name, const Family& family) {
    std::map<Labels, std::map<double, double>> buckets;
    for (const auto& [key, value] : family.samples) {
      if (key.first != name + "_bucket") continue;
      Labels labels = key.second;
      const auto bound = labels.extract("le");
      if (bound.empty()) fail("a bucket without le", name);
      if (!buckets[labels].emplace(read_number(bound.mapped()), value).second) fail("a bucket twice", name);
    }
    for (const auto& [labels, counts] : buckets) {
      double before = 0;
      for (const auto& [bound, count] : counts) {
        if (count < before) fail("buckets are not cumulative", name);
        before = count;
      }
      if (!counts.contains(HUGE_VAL)) fail("no bucket +Inf", name);
      if (family.samples.at({name + "_count", labels}) != counts.at(HUGE_VAL)) fail("count", name);
      if (!family.samples.contains({name + "_sum", labels})) fail("no sum", name);
    }
    if (3 * buckets.size() > family.samples.size()) fail("samples are missing", name);
  }

  std::map<std::string, Family> families_;
  std::string current_;
};

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
      {"anteroom_turns_total", state.loop.turns},
      {"anteroom_events_total", state.loop.events},
      {"anteroom_tasks_total", state.loop.tasks},
      {"anteroom_timers_total", state.loop.timers},
      {"anteroom_connections_opened_total", state.loop.connections_opened},
      {"anteroom_connections_closed_total", state.loop.connections_closed},
      {"anteroom_connections_timed_out_total", state.loop.timed_out},
      {"anteroom_connections", state.loop.connections_open},
      {"anteroom_channels", state.loop.channels},
      {"anteroom_received_bytes_total", state.loop.received_bytes},
      {"anteroom_sent_bytes_total", state.loop.sent_bytes},
      {"anteroom_buffered_bytes", state.loop.buffered_bytes},
      {"anteroom_accepted_total", state.acceptor.accepted},
      {"anteroom_aborted_total", state.acceptor.aborted},
      {"anteroom_refused_total", state.acceptor.refused},
      {"anteroom_shed_total", state.acceptor.shed},
      {"anteroom_rests_total", state.acceptor.rests},
      {"anteroom_looks_total", state.acceptor.looks},
      {"anteroom_carried_over_total", state.acceptor.carried_over},
      {"anteroom_guests", state.open_connections},
      {"anteroom_backlog_tunings_total", state.acceptor.tunings},
      {"anteroom_backlog_wanted", static_cast<std::uint64_t>(state.acceptor.wanted_beyond_somaxconn)},
      {"anteroom_listener_waiting", state.queue->depth},
      {"anteroom_listener_waiting_peak", state.queue->peak},
      {"anteroom_listener_backlog", state.queue->limit},
      {"anteroom_listener_drops_total", state.queue->drops},
  };
  for (const auto& [name, value] : expected)
    EXPECT_EQ(text.value(name, labels), static_cast<double>(value)) << name;
  EXPECT_DOUBLE_EQ(text.value("anteroom_queue_wait_longest_seconds", labels),
                   std::chrono::duration<double>(state.acceptor.longest_wait).count());
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
  for (const auto& [name, family] : text.families()) EXPECT_TRUE(name.starts_with("anteroom_")) << name;
}

TEST(Metrics, GiveHistogramsInSecondsWithTheBoundsAboveWhatABucketHolds) {
  std::vector<State> states(1);
  for (const std::uint64_t us : {0, 1, 2, 3, 4, 1000}) states[0].loop.turn_us.record(us);
  states[0].loop.turn_us.record(std::uint64_t{1} << 30);  // beyond the last bound
  for (const std::uint64_t ms : {4, 4, 8, 100}) states[0].acceptor.wait_ms.record(ms);
  const Exposition text(prometheus_text(states));
  EXPECT_EQ(bucket(text, "anteroom_turn_seconds", 0.000001), 1);
  EXPECT_EQ(bucket(text, "anteroom_turn_seconds", 0.000002), 2);
  EXPECT_EQ(bucket(text, "anteroom_turn_seconds", 0.000004), 4);
  EXPECT_EQ(bucket(text, "anteroom_turn_seconds", 0.000008), 5);
  EXPECT_EQ(bucket(text, "anteroom_turn_seconds", 0.000512), 5);
  EXPECT_EQ(bucket(text, "anteroom_turn_seconds", 0.001024), 6);
  EXPECT_EQ(text.value("anteroom_turn_seconds_bucket", {{"thread", "0"}, {"le", "+Inf"}}), 7);
  EXPECT_EQ(text.value("anteroom_turn_seconds_count"), 7);
  EXPECT_DOUBLE_EQ(text.value("anteroom_turn_seconds_sum"), 0.00101 + 1073.741824);
  EXPECT_EQ(bucket(text, "anteroom_queue_wait_seconds", 0.004), 0);
  EXPECT_EQ(bucket(text, "anteroom_queue_wait_seconds", 0.008), 2);
  EXPECT_EQ(bucket(text, "anteroom_queue_wait_seconds", 0.016), 3);
  EXPECT_EQ(bucket(text, "anteroom_queue_wait_seconds", 0.128), 4);
  EXPECT_DOUBLE_EQ(text.value("anteroom_queue_wait_seconds_sum"), 0.116);
}

TEST(Metrics, SayNothingOfAQueueThatTheKernelDoesNotTellOf) {
  std::vector<State> states = {some_state(1), some_state(2)};
  states[1].queue.reset();
  const Exposition text(prometheus_text(states));
  EXPECT_TRUE(text.has("anteroom_listener_waiting", {{"thread", "0"}}));
  EXPECT_FALSE(text.has("anteroom_listener_waiting", {{"thread", "1"}}));
  EXPECT_TRUE(text.has("anteroom_accepted_total", {{"thread", "1"}}));
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
  for (const char* name : {"anteroom_listen_overflows_total", "anteroom_listen_drops_total"})
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
  EXPECT_EQ(text.value("anteroom_accepted_total"), 5);
  EXPECT_EQ(text.value("anteroom_guests"), 5);
  EXPECT_EQ(text.value("anteroom_received_bytes_total"), 25);
  EXPECT_EQ(text.value("anteroom_listener_waiting_peak"), 5);
  EXPECT_GT(text.value("anteroom_turn_seconds_count"), 0);
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
    const double now = all(text, "anteroom_accepted_total");
    EXPECT_GE(now, accepted) << "a counter has fallen";
    accepted = now;
    ++scrapes;
  }
  guests.join();
  EXPECT_GT(scrapes, 0);
  const Exposition text(prometheus_text(pool.state()));
  EXPECT_EQ(all(text, "anteroom_accepted_total"), 200);
  EXPECT_EQ(all(text, "anteroom_sent_bytes_total"), 200 * 12);
}

// ---- The parser itself: what it lets pass proves nothing

TEST(Exposition, IsRefusedWhenItBreaksTheFormat) {
  const std::string head = "# HELP a_total b\n# TYPE a_total counter\n";
  EXPECT_NO_THROW(Exposition(head + "a_total{x=\"1\"} 1\na_total 2\n"));
  for (const std::string& text :
       {head + "a_total 1", head + "a_total\n", head + "a_total{x=\"1\" 1\n", head + "a_total{x=1} 1\n",
        head + "a_total{x=\"\\t\"} 1\n", head + "a_total{x=\"1\"}1\n", head + "a_total 1\na_total 1\n",
        head + "b_total 1\n", head + head, head + "a_total x\n", head + "a_total{1x=\"1\"} 1\n",
        head + "a_total{x=\"1\",x=\"2\"} 1\n", head + "\n",
        std::string("# HELP a b\n# TYPE a counter\na 1\n"), std::string("# HELP a b\na 1\n# TYPE a gauge\n"),
        std::string("# HELP a b\n"), std::string("a 1\n")})
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
