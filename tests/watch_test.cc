// `anteroom watch`, run as users run it, on listeners of which the test knows everything.
#include <anteroom/bench/kernel_counters.h>
#include <anteroom/listener.h>
#include <anteroom/metric_catalogue.h>
#include <anteroom/metrics.h>
#include <anteroom/reactor_pool.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <netinet/tcp.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "prometheus.h"
#include "support/exposition.h"
#include "support/forger.h"
#include "support/own_network.h"
#include "support/peer.h"
#include "support/program.h"
#include "support/sanitized.h"
#include "watch_drops.h"
#include "watch_pace.h"
#include "watch_rules.h"
#include "watch_view.h"

namespace anteroom::tool {
namespace {

using namespace std::chrono_literals;
using bench::Counter;
using test::kIsSanitized;
using test::Peer;
using test::Program;
using Document = nlohmann::json;

const std::string kAnteroom = PROGRAMS "/anteroom";
constexpr auto kRunPatience = 60s;

struct Outcome {
  int status;
  std::string output;
  std::string errors;
};

Outcome watch(std::vector<std::string> words) {
  words.insert(words.begin(), {kAnteroom, "watch"});
  Program program(std::move(words));
  const int status = program.wait(kRunPatience);
  return {status, program.output, program.errors};
}

/// What `--json -` says.
Document document_of(const Outcome& outcome) {
  Document document = Document::parse(outcome.output, nullptr, false);
  EXPECT_FALSE(document.is_discarded()) << outcome.output << outcome.errors;
  return document;
}

std::string port_of(const Listener& listener) { return std::to_string(listener.endpoint().port()); }

/// A client that does not wait to be let in.
Fd knock(const Endpoint& at) {
  Fd socket(::socket(at.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  (void)::connect(socket.get(), at.data(), at.size());
  return socket;
}

/// The port in "anteroom: http://127.0.0.1:9399/metrics".
Endpoint scraped_at(Program& program) {
  const auto limit = Program::Clock::now() + kRunPatience;
  while (program.errors.find("/metrics\n") == std::string::npos && Program::Clock::now() < limit)
    (void)program.wait(10ms);
  const std::size_t begin = program.errors.find("http://") + 7;
  return Endpoint::parse(program.errors.substr(begin, program.errors.find("/metrics") - begin))
      .value_or(Endpoint());
}

std::string scrape(const Endpoint& at, const std::string& request) {
  Peer peer(at);
  EXPECT_TRUE(peer.send(request));
  return peer.receive_all();
}

/// Asks until it is so: whether `expected` is in what it says.
bool await_metrics(const Endpoint& at, const std::string& expected, bool is_there = true) {
  const auto limit = Program::Clock::now() + kRunPatience;
  while (Program::Clock::now() < limit) {
    const std::string answer = scrape(at, "GET /metrics HTTP/1.1\r\n\r\n");
    if (answer.starts_with("HTTP/1.1 200") && (answer.find(expected) != std::string::npos) == is_there)
      return true;
  }
  return false;
}

/// One that has begun to watch, since it answers.
struct Watcher {
  explicit Watcher(std::vector<std::string> words)
      : program(with_metrics(std::move(words))), at(scraped_at(program)) {
    EXPECT_TRUE(await_metrics(at, "anteroom_watch_interval_seconds"));
  }
  static std::vector<std::string> with_metrics(std::vector<std::string> words) {
    words.insert(words.begin(), {kAnteroom, "watch", "--prometheus", "0"});
    return words;
  }
  Program program;
  Endpoint at;
};

class Watch : public testing::Test {
 protected:
  void SetUp() override {
    if (!test::has_own_network) GTEST_SKIP() << "needs a network of its own";
  }
  Listener listener_{{"127.0.0.1", 0}, {.backlog = 15}};
};

TEST_F(Watch, CountsEveryDropAsTheKernelDoes) {
  const bench::KernelCounters before = bench::read_kernel_counters();
  Watcher watcher({"--json", "-"});
  Program& program = watcher.program;
  std::vector<Fd> guests;
  for (int i = 0; i < 40; ++i) guests.push_back(knock(listener_.endpoint()));
  // The refused ask again after a second, and after another one: a stall of two seconds, by then.
  const auto limit = Program::Clock::now() + kRunPatience;
  while (bench::read_kernel_counters().since(before)[Counter::kListenDrops] < 72 &&
         Program::Clock::now() < limit)
    (void)program.wait(20ms);
  program.signal(SIGINT);
  ASSERT_EQ(program.wait(kRunPatience), 0) << program.errors;  // without --for that is its normal end
  const bench::KernelCounters after = bench::read_kernel_counters().since(before);
  const Document document = document_of({0, program.output, program.errors});
  ASSERT_EQ(document["listeners"].size(), 1U);
  const Document& room = document["listeners"][0];
  EXPECT_EQ(document["schema"], "anteroom.watch/1");
  EXPECT_EQ(room["depth"], 16);
  EXPECT_EQ(room["peak"], 16);
  EXPECT_EQ(room["limit"], 15);
  EXPECT_EQ(room["bound_by"], "program");
  EXPECT_EQ(room["drops"], document["kernel"]["listen_drops"]);
  EXPECT_EQ(room["drops"], document["kernel"]["listen_overflows"]);
  EXPECT_GE(room["drops"], 24 + 24 + 24);
  EXPECT_EQ(room["sk_drops"], room["drops"]);
  EXPECT_LE(room["drops"], after[Counter::kListenDrops]);
  EXPECT_EQ(room["advice"]["verdict"], "not accepting");
  EXPECT_EQ(room["processes"][0]["pid"], ::getpid());
  EXPECT_FALSE(document["interrupted"]);
}

TEST_F(Watch, DoesNotTakeDeferredAcksForDrops) {
  const int seconds = 5;
  ASSERT_EQ(::setsockopt(listener_.fd(), IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof(seconds)), 0);
  Watcher watcher({"--json", "-", "--fail-if", "drops>0"});
  // Each last ACK without data is in sk_drops.
  const std::vector<Peer> guests = test::connect_peers(listener_.endpoint(), 10);
  const std::string raw = "anteroom_watch_listener_sk_drops_total{address=\"127.0.0.1\",port=\"" +
                          port_of(listener_) + "\"} 10\n";
  ASSERT_TRUE(await_metrics(watcher.at, raw));
  watcher.program.signal(SIGINT);
  ASSERT_EQ(watcher.program.wait(kRunPatience), 0) << watcher.program.errors;
  const Document room = document_of({0, watcher.program.output, watcher.program.errors})["listeners"][0];
  EXPECT_EQ(room["sk_drops"], 10);
  EXPECT_EQ(room["drops"], 0);
  EXPECT_EQ(room["advice"]["verdict"], "never needed");
}

TEST_F(Watch, DoesNotTakeWhatComesToOthersForItsOwn) {
  // Whoever accepts at once is never seen to have guests.
  const Listener busy({"127.0.0.1", 0}, {});
  Watcher watcher({"--port", port_of(listener_), "--interval", "5ms", "--json", "-"});
  const std::vector<Peer> waiting = test::connect_peers(listener_.endpoint(), 3);
  for (int i = 0; i < 20; ++i) {
    const Peer guest(busy.endpoint());
    const Fd taken(::accept(busy.fd(), nullptr, nullptr));
    ASSERT_TRUE(taken);
  }
  ASSERT_TRUE(await_metrics(watcher.at, "anteroom_watch_accept_queue_depth{address=\"127.0.0.1\",port=\"" +
                                            port_of(listener_) + "\"} 3\n"));
  watcher.program.signal(SIGINT);
  ASSERT_EQ(watcher.program.wait(kRunPatience), 0) << watcher.program.errors;
  const Document room = document_of({0, watcher.program.output, watcher.program.errors})["listeners"][0];
  EXPECT_NE(room["rate"]["from"], "namespace");
}

TEST_F(Watch, KeepsTheDropsOfAnAddressWhenItsSocketsChange) {
  auto leaving =
      std::make_unique<Listener>(Endpoint("127.0.0.1", 0), ListenerOptions{.backlog = 3, .reuse_port = true});
  const Endpoint at = leaving->endpoint();
  Watcher watcher({"--interval", "5ms", "--json", "-"});
  const std::string place = "{address=\"127.0.0.1\",port=\"" + port_of(*leaving) + "\"} ";
  {
    std::vector<Fd> guests;
    for (int i = 0; i < 10; ++i) guests.push_back(knock(at));
    ASSERT_TRUE(await_metrics(watcher.at, "anteroom_watch_listener_drops_total" + place + "6\n"));
  }
  const Listener coming(at, {.backlog = 7, .reuse_port = true});
  ASSERT_TRUE(await_metrics(watcher.at, "anteroom_watch_listener_sockets" + place + "2\n"));
  leaving.reset();
  ASSERT_TRUE(await_metrics(watcher.at, "anteroom_watch_listener_sockets" + place + "1\n"));
  ASSERT_TRUE(await_metrics(watcher.at, "anteroom_watch_listener_drops_total" + place + "6\n"));
  watcher.program.signal(SIGINT);
  ASSERT_EQ(watcher.program.wait(kRunPatience), 0) << watcher.program.errors;
  const Document document = document_of({0, watcher.program.output, watcher.program.errors});
  for (const Document& room : document["listeners"]) EXPECT_EQ(room["sockets_at_address"], 1) << room;
}

TEST_F(Watch, AgreesWithTheKernelThoughDropsGoOnWhileItBeginsAndEnds) {
  std::atomic<bool> over{false};
  std::thread crowd([&] {
    std::vector<Fd> guests;
    while (!over.load()) {
      guests.push_back(knock(listener_.endpoint()));
      if (guests.size() > 500) guests.erase(guests.begin() + 20, guests.begin() + 100);
      std::this_thread::sleep_for(4ms);  // a load, not a wait: 250 a second
    }
  });
  const Document document = document_of(watch({"--for", "500ms", "--json", "-"}));
  over.store(true);
  crowd.join();
  EXPECT_GT(document["kernel"]["listen_drops"], 0);
  ASSERT_EQ(document["notes"].size(), 0U) << document["notes"];
  EXPECT_EQ(document["listeners"][0]["drops"], document["kernel"]["listen_drops"]);
}

TEST_F(Watch, EndsAfterItsTimeWithATable) {
  const Outcome outcome = watch({"--for", "300ms"});
  EXPECT_EQ(outcome.status, 0);
  EXPECT_NE(outcome.output.find(listener_.endpoint().to_string()), std::string::npos) << outcome.output;
  EXPECT_NE(outcome.output.find("its backlog of 15 was never needed"), std::string::npos) << outcome.output;
  EXPECT_NE(outcome.output.find("are samples"), std::string::npos) << outcome.output;
  EXPECT_EQ(outcome.output.find('\x1b'), std::string::npos);
  EXPECT_EQ(outcome.errors, "");
}

TEST_F(Watch, ThatIsCutShortSaysSo) {
  Watcher watcher({"--for", "1m", "--json", "-"});
  Program& program = watcher.program;
  program.signal(SIGTERM);
  EXPECT_EQ(program.wait(kRunPatience), 130);
  const Document document = document_of({130, program.output, program.errors});
  EXPECT_EQ(document["interrupted"], true);
  EXPECT_LT(document["took_s"], 30);
}

TEST_F(Watch, EndsAsSoonAsARuleIsBroken) {
  const std::vector<Peer> guests = test::connect_peers(listener_.endpoint(), 13);
  const Outcome outcome = watch({"--fail-if", "full>80%", "--for", "1m"});
  EXPECT_EQ(outcome.status, 4);
  EXPECT_NE(outcome.errors.find(listener_.endpoint().to_string()), std::string::npos) << outcome.errors;
  EXPECT_NE(outcome.errors.find("is 81.2 % full (13 of 16 places)"), std::string::npos) << outcome.errors;
  EXPECT_NE(outcome.errors.find(std::to_string(::getpid())), std::string::npos) << outcome.errors;
  const Outcome kept = watch({"--fail-if", "full>82%", "--fail-if", "drops>0", "--for", "200ms"});
  EXPECT_EQ(kept.status, 0) << kept.errors;
}

TEST_F(Watch, NoticesThatSomaxconnIsAnother) {
  constexpr const char* kSomaxconn = "/proc/sys/net/core/somaxconn";
  Watcher watcher({"--json", "-"});
  ASSERT_TRUE(test::set_network_sysctl(kSomaxconn, "15"));
  watcher.program.signal(SIGINT);
  const int status = watcher.program.wait(kRunPatience);
  ASSERT_TRUE(test::set_network_sysctl(kSomaxconn, "4096"));
  ASSERT_EQ(status, 0) << watcher.program.errors;
  const Document document = document_of({status, watcher.program.output, watcher.program.errors});
  EXPECT_EQ(document["somaxconn"], 15);
  EXPECT_EQ(document["listeners"][0]["bound_by"], "somaxconn");
}

TEST_F(Watch, NoticesWhoComesAndGoes) {
  auto leaving = std::make_unique<Listener>(Endpoint("127.0.0.1", 0), ListenerOptions{.backlog = 3});
  Watcher watcher({"--interval", "5ms", "--json", "-"});
  Program& program = watcher.program;
  const std::string gone = "port=\"" + port_of(*leaving) + "\"";
  ASSERT_TRUE(await_metrics(watcher.at, gone));
  leaving.reset();
  ASSERT_TRUE(await_metrics(watcher.at, gone, false));
  const Listener coming({"127.0.0.1", 0}, {.backlog = 7});
  ASSERT_TRUE(await_metrics(watcher.at, "port=\"" + port_of(coming) + "\""));
  program.signal(SIGINT);
  ASSERT_EQ(program.wait(kRunPatience), 0) << program.errors;
  const Document document = document_of({0, program.output, program.errors});
  ASSERT_EQ(document["listeners"].size(), 3U);
  for (const Document& room : document["listeners"]) EXPECT_EQ(room["gone"], room["limit"] == 3) << room;
}

TEST_F(Watch, ShowsAGroupInOneRowAndEachOfItsSockets) {
  const Listener first({"127.0.0.1", 0}, {.backlog = 3, .reuse_port = true});
  const Listener second(first.endpoint(), {.backlog = 3, .reuse_port = true});
  const Outcome text = watch({"--for", "200ms", "--port", port_of(first)});
  EXPECT_NE(text.output.find(first.endpoint().to_string() + " x2"), std::string::npos) << text.output;
  const Outcome json = watch({"--for", "200ms", "--port", port_of(first), "--json", "-"});
  EXPECT_EQ(document_of(json)["listeners"].size(), 2U);
}

TEST_F(Watch, WritesAProfileThatTuneReads) {
  const std::string path = testing::TempDir() + "anteroom-profile-" + std::to_string(::getpid()) + ".json";
  Watcher watcher({"--for", "1s", "--interval", "2ms", "--port", port_of(listener_), "--profile", path});
  Program& program = watcher.program;
  const std::vector<Peer> guests = test::connect_peers(listener_.endpoint(), 8);
  ASSERT_EQ(program.wait(kRunPatience), 0) << program.errors;
  std::ifstream file(path);
  const Document profile = Document::parse(file, nullptr, false);
  std::filesystem::remove(path);
  EXPECT_EQ(profile["schema"], "anteroom.profile/1");
  // 8 came in a watch of a second or a little more, all in one or two of its half seconds.
  EXPECT_GE(profile["rate"], 4);
  EXPECT_LE(profile["rate"], 20);
  ASSERT_EQ(profile["stalls"].size(), 1U);
  EXPECT_GT(profile["stalls"][0]["length_s"], 0);
  for (const auto& [field, value] : profile.items())
    EXPECT_NE(std::string("schema rate dispersion for_s stalls").find(field), std::string::npos) << field;
}

TEST_F(Watch, RefusesInOneLineWhatIsNotThere) {
  const std::string nobody = std::to_string(test::closed_endpoint().port());
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"--port", nobody}, "nobody listens on port " + nobody},
      {{"--port", "0"}, "--port"},
      {{"--port", "80,x"}, "--port"},
      {{"--pid", "999999999"}, "there is no process 999999999"},
      {{"--pid", "1", "--port", "http"}, "--port"},
      {{"--for", "soon"}, "a time from 10ms to a day"},
      {{"--interval", "1us"}, "a time from 1ms to 10s"},
      {{"--fail-if", "full<5"}, "it has to say > or >="},
      {{"--fail-if", "fuller>5"}, "none of full, depth, drops, overflows"},
      {{"--fail-if", "full>100%"}, "nothing breaks that"},
      {{"--fail-if", "drops>=0"}, "everything breaks that"},
      {{"--json", "/nowhere/at/all.json"}, "cannot write /nowhere/at/all.json"},
      {{"--profile", "x"}, "name it with --port or --pid"},
      {{"--prometheus", port_of(listener_)}, "--prometheus takes another port"},
      {{"--prometheus", "127.0.0.1"}, "--prometheus"},
      {{"--prometheus", "host.example:9399"}, "a port, or an address and a port"},
      {{"--prometheus", "127.0.0.1:65536"}, "a port, or an address and a port"},
      {{"--prometheus", "unix:/tmp/metrics"}, "a port, or an address and a port"},
      {{"--prometheus", "192.0.2.1:9399"}, "--prometheus takes another port"},
  };
  for (const auto& [words, expected] : cases) {
    const Outcome outcome = watch(words);
    EXPECT_EQ(outcome.status, 2) << words[1];
    EXPECT_NE(outcome.errors.find(expected), std::string::npos) << words[1] << ": " << outcome.errors;
    EXPECT_EQ(std::ranges::count(outcome.errors, '\n'), 1) << outcome.errors;
    EXPECT_EQ(outcome.output, "");
  }
}

TEST_F(Watch, ServesPrometheus) {
  const std::vector<Peer> guests = test::connect_peers(listener_.endpoint(), 5);
  Watcher watcher({});
  Program& program = watcher.program;
  const Endpoint at = watcher.at;
  ASSERT_TRUE(at.is_loopback()) << program.errors;
  // Silent ones do not keep the others out.
  const std::vector<Peer> silent = test::connect_peers(at, 4);
  const std::string answer = scrape(at, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 200 OK\r\n")) << answer;
  EXPECT_NE(answer.find("Content-Type: text/plain; version=0.0.4"), std::string::npos) << answer;
  const std::string place = "{address=\"127.0.0.1\",port=\"" + port_of(listener_) + "\"";
  const std::string labels = place + "} ";
  EXPECT_NE(answer.find("\nanteroom_watch_listener_info" + place + ",pid=\"" + std::to_string(::getpid()) +
                        "\",process=\"watch_test\"} 1\n"),
            std::string::npos)
      << answer;
  EXPECT_NE(answer.find("\nanteroom_watch_accept_queue_depth" + labels + "5\n"), std::string::npos) << answer;
  EXPECT_NE(answer.find("\nanteroom_watch_accept_queue_depth_max_since_scrape" + labels + "5\n"),
            std::string::npos)
      << answer;
  EXPECT_NE(answer.find("\nanteroom_watch_listener_backlog" + labels + "15\n"), std::string::npos) << answer;
  EXPECT_NE(answer.find("\nanteroom_watch_listener_drops_total" + labels + "0\n"), std::string::npos)
      << answer;
  EXPECT_NE(answer.find("# TYPE anteroom_netns_listen_overflows_total counter\n"), std::string::npos)
      << answer;
  EXPECT_EQ(answer.find("port=\"" + std::to_string(at.port())), std::string::npos)
      << "our own listener is nobody's business";
  EXPECT_TRUE(scrape(at, "GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
  EXPECT_TRUE(scrape(at, "POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
  EXPECT_TRUE(scrape(at, "hello\r\n\r\n").starts_with("HTTP/1.1 400 "));
  program.signal(SIGINT);
  EXPECT_EQ(program.wait(kRunPatience), 0);
}

/// What follows the head of an HTTP answer.
test::Exposition exposition_of(const std::string& answer) {
  const std::size_t head = answer.find("\r\n\r\n");
  return test::Exposition(head == answer.npos ? answer : answer.substr(head + 4));
}

TEST_F(Watch, ServesTheFamiliesOfTheCatalogue) {
  const std::vector<Peer> waiting = test::connect_peers(listener_.endpoint(), 2);
  const Watcher watcher({});
  const test::Exposition text = exposition_of(scrape(watcher.at, "GET /metrics HTTP/1.1\r\n\r\n"));
  test::expect_as_in_catalogue(text);
  for (const MetricFamily& family : kMetricCatalogue) {
    const bool is_ours =
        family.name.starts_with("anteroom_watch_") || family.name.starts_with("anteroom_netns_");
    EXPECT_EQ(text.families().contains(std::string(family.name)), is_ours) << family.name;
  }
}

TEST_F(Watch, ServesTheNamespacesCountersAsTheLibraryDoes) {
  std::vector<Fd> clients;
  for (int i = 0; i < 20; ++i) clients.push_back(knock(listener_.endpoint()));  // 16 fit
  const Watcher watcher({});
  const auto limit = Program::Clock::now() + kRunPatience;
  bool is_same = false;
  while (!is_same && Program::Clock::now() < limit) {  // SYNs that are sent again may come in between
    const test::Exposition theirs = exposition_of(scrape(watcher.at, "GET /metrics HTTP/1.1\r\n\r\n"));
    const test::Exposition ours(anteroom::prometheus_text(std::vector<ReactorPool::ThreadState>(1)));
    is_same = true;
    for (const char* name : {"anteroom_netns_listen_overflows_total", "anteroom_netns_listen_drops_total"}) {
      EXPECT_GE(theirs.value(name, {}), 4) << name << ": also what was before the watch";
      is_same = is_same && theirs.value(name, {}) == ours.value(name, {});
    }
  }
  EXPECT_TRUE(is_same) << "one name, one meaning";
}

TEST(WatchMetrics, LeaveOutWhatWasNotMeasured) {
  const tool::WatchCommand command;
  tool::WatchState state{.command = command,
                         .started = {},
                         .rooms = tool::WatchedRooms([](const bench::ListeningSocket&) { return true; })};
  const test::Exposition before(tool::prometheus_text(state));
  EXPECT_FALSE(before.has("anteroom_watch_interval_seconds", {}));
  EXPECT_FALSE(before.has("anteroom_watch_cpu_ratio", {}));
  state.took = 2s;
  state.interval_mean_s = 0.25;
  state.cpu_share = 0.5;
  const test::Exposition after(tool::prometheus_text(state));
  EXPECT_EQ(after.value("anteroom_watch_interval_seconds", {}), 0.25);
  EXPECT_EQ(after.value("anteroom_watch_cpu_ratio", {}), 0.5);
  test::expect_as_in_catalogue(after);
}

TEST(WatchMetrics, AreReadBackWhateverTheNameOfTheProcess) {
  char before[16] = {};
  ASSERT_EQ(::prctl(PR_GET_NAME, before), 0);
  ASSERT_EQ(::prctl(PR_SET_NAME, "a\"b\\c{} 1"), 0);
  const tool::WatchCommand command;
  tool::WatchState state{.command = command,
                         .started = {},
                         .rooms = tool::WatchedRooms([](const bench::ListeningSocket&) { return true; })};
  const bench::ListeningSocket socket{
      .address = {"::1", 80}, .depth = 3, .limit = 5, .cookie = 1, .inode = 7};
  state.rooms.take(0s, std::vector{socket}, true, [] { return std::uint64_t{0}; });
  bench::SocketHolders holders;
  holders.by_inode[7] = {{.pid = ::getpid()}};
  state.rooms.take_holders(holders);
  const test::Labels place{{"address", "[::1]"}, {"port", "80"}};
  const test::Exposition text(tool::prometheus_text(state));
  ASSERT_EQ(::prctl(PR_SET_NAME, before), 0);
  test::Labels info = place;
  info["pid"] = std::to_string(::getpid());
  info["process"] = "a\"b\\c{} 1";
  EXPECT_EQ(text.value("anteroom_watch_listener_info", info), 1);
  EXPECT_EQ(text.value("anteroom_watch_accept_queue_depth", place), 3);
  EXPECT_EQ(text.value("anteroom_watch_listener_backlog", place), 5);
  test::expect_as_in_catalogue(text);
}

TEST_F(Watch, HangsUpOnScrapersThatSayNothing) {
  const Watcher watcher({});
  Peer silent(watcher.at);
  silent.receive_all();
  EXPECT_TRUE(silent.is_over());
}

std::string status_of(const std::string& answer) { return answer.substr(0, answer.find("\r\n")); }

TEST(MetricsServer, RefusesANameThatIsNotThisMachines) {
  const auto asked_as = [](const std::string& fields) {
    return status_of(http_answer("GET /metrics HTTP/1.1\r\n" + fields + "\r\n", [] { return "1\n"; }));
  };
  std::array<char, 256> own{};
  ::gethostname(own.data(), own.size() - 1);
  for (const std::string host : {"localhost", "LOCALHOST:9399", "127.0.0.1", "127.0.0.1:9399", "10.1.2.3:80",
                                 "[::1]", "[::1]:9399", "[fe80::1]", static_cast<const char*>(own.data())}) {
    EXPECT_EQ(asked_as("Host: " + host + "\r\n"), "HTTP/1.1 200 OK") << host;
    EXPECT_EQ(asked_as("Accept: */*\r\nhOST:\t" + host + " \r\n"), "HTTP/1.1 200 OK") << host;
  }
  for (const char* const host :
       {"evil.example", "evil.example:9399", "127.0.0.1.evil.example", "localhost.evil.example",
        "localhost:9399x", "127.0.0.1:", "[::1", "unix:/tmp/x", "", "x", "::1"}) {
    EXPECT_EQ(asked_as(std::string("Host: ") + host + "\r\n"), "HTTP/1.1 421 Misdirected Request") << host;
  }
  EXPECT_EQ(asked_as("Host: localhost\r\nHost: evil.example\r\n"), "HTTP/1.1 400 Bad Request");
  EXPECT_EQ(asked_as(""), "HTTP/1.1 200 OK") << "no browser leaves it out";
}

TEST_F(Watch, IsScrapedThoughOneClientHoldsManyConnections) {
  const Watcher watcher({});
  std::vector<Peer> silent;
  for (int i = 0; i < 200; ++i) {
    silent.emplace_back(watcher.at);
    if (i % 20 != 0) continue;
    EXPECT_EQ(status_of(scrape(watcher.at, "GET /metrics HTTP/1.1\r\n\r\n")), "HTTP/1.1 200 OK") << i;
  }
  // Those that have begun to speak, and those that were answered and read nothing, hold no place either.
  std::vector<Peer> slow;
  for (int i = 0; i < 200; ++i) {
    slow.emplace_back(watcher.at);
    (void)slow.back().send(i % 2 == 0 ? "GET /metrics HTTP/1.1\r\nX:" : "GET /metrics HTTP/1.1\r\n\r\n");
    if (i % 20 != 0) continue;
    EXPECT_EQ(status_of(scrape(watcher.at, "GET /metrics HTTP/1.1\r\n\r\n")), "HTTP/1.1 200 OK") << i;
  }
}

TEST_F(Watch, IsScrapedAtAnotherAddressIfToldSo) {
  for (const char* const address : {"127.0.0.2:0", "[::1]:0", "0.0.0.0:0"}) {
    Program program({kAnteroom, "watch", "--for", "1m", "--prometheus", address});
    Endpoint at = scraped_at(program);
    const std::string wanted = std::string(address, std::string_view(address).rfind(':') + 1);
    EXPECT_TRUE(at.to_string().starts_with(wanted)) << at.to_string() << program.errors;
    if (wanted == "0.0.0.0:") at = Endpoint("127.0.0.3", at.port());
    EXPECT_TRUE(await_metrics(at, "anteroom_watch_interval_seconds")) << address;
  }
}

TEST_F(Watch, ShowsWhatTheKernelSaysThoughAnotherProcessAnswers) {
  const Peer client(listener_.endpoint());
  const test::Forger forger(listener_.endpoint());
  const Outcome outcome =
      watch({"--port", port_of(listener_), "--for", "700ms", "--json", "-", "--fail-if", "full>50%"});
  EXPECT_EQ(outcome.status, 0) << outcome.errors;
  EXPECT_EQ(outcome.errors, "");
  const Document document = document_of(outcome);
  ASSERT_EQ(document.at("listeners").size(), 1U);
  const Document& seen = document.at("listeners").at(0);
  EXPECT_EQ(seen.at("depth"), 1);
  EXPECT_EQ(seen.at("peak"), 1);
  EXPECT_EQ(seen.at("limit"), 15);
}

/// From now on that process receives nothing from sock_diag, and waits no longer than 10 ms for it: its own
/// socket, by pidfd_getfd(2). False if it may not be reached.
bool silence_sock_diag_of(pid_t pid) {
  const Fd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  for (int number = 0; number < 64; ++number) {
    const Fd copy(static_cast<int>(::syscall(SYS_pidfd_getfd, process.get(), number, 0)));
    int family = 0;
    int protocol = 0;
    socklen_t size = sizeof(int);
    if (::getsockopt(copy.get(), SOL_SOCKET, SO_DOMAIN, &family, &size) != 0 || family != AF_NETLINK)
      continue;
    if (::getsockopt(copy.get(), SOL_SOCKET, SO_PROTOCOL, &protocol, &size) != 0 ||
        protocol != NETLINK_SOCK_DIAG)
      continue;
    const timeval soon{.tv_sec = 0, .tv_usec = 10'000};
    sock_filter drop{.code = BPF_RET | BPF_K, .jt = 0, .jf = 0, .k = 0};
    const sock_fprog program{.len = 1, .filter = &drop};
    return ::setsockopt(copy.get(), SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof(soon)) == 0 &&
           ::setsockopt(copy.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) == 0;
  }
  return false;
}

TEST_F(Watch, EndsInOrderIfTheKernelAnswersNoMore) {
  const std::string json = testing::TempDir() + "anteroom-watch-" + std::to_string(::getpid()) + ".json";
  Watcher watcher({"--port", port_of(listener_), "--json", json});
  if (!silence_sock_diag_of(watcher.program.pid()))
    GTEST_SKIP() << "no process may take a descriptor from another here (pidfd_getfd(2))";
  EXPECT_EQ(watcher.program.wait(kRunPatience), 1);
  const std::string said = watcher.program.errors.substr(watcher.program.errors.find('\n') + 1);
  EXPECT_EQ(std::ranges::count(said, '\n'), 1) << said;
  EXPECT_NE(said.find("sock_diag"), std::string::npos) << said;
  std::ifstream file(json);
  const Document document = Document::parse(file, nullptr, false);
  std::filesystem::remove(json);
  ASSERT_FALSE(document.is_discarded()) << "what was seen until then is written";
  EXPECT_EQ(document.at("interrupted"), true);
}

/// `watch` on a terminal of its own.
class OnTerminal {
 public:
  explicit OnTerminal(std::vector<std::string> words) {
    winsize size{.ws_row = 12, .ws_col = 60, .ws_xpixel = 0, .ws_ypixel = 0};
    int ours = -1;
    int line = -1;
    if (::openpty(&ours, &line, nullptr, nullptr, &size) != 0) return;
    terminal_.reset(ours);
    line_.reset(line);
    words.insert(words.begin(), {kAnteroom, "watch"});
    program_.emplace(std::move(words), [line] {
      ::setenv("TERM", "xterm", 1);
      // A shell may have us ignore them, and what is ignored stays so.
      for (const int number : {SIGINT, SIGHUP, SIGQUIT, SIGTSTP}) ::signal(number, SIG_DFL);
      ::dup2(line, STDOUT_FILENO);
    });
  }
  Program& program() { return *program_; }
  const std::string& shown() const { return shown_; }

  /// Reads until it has shown this after `from`.
  bool await(const std::string& text, std::size_t from = 0) {
    const auto limit = Program::Clock::now() + kRunPatience;
    while (shown_.find(text, from) == std::string::npos) {
      if (Program::Clock::now() > limit) return false;  // it draws for ever
      if (!test::await_events(terminal_.get(), POLLIN) || !read_some()) return false;
    }
    return true;
  }
  /// Whether it has, as far as there is something to read now.
  bool has_shown(const std::string& text, std::size_t from) {
    pollfd entry{.fd = terminal_.get(), .events = POLLIN, .revents = 0};
    while (::poll(&entry, 1, 0) > 0 && read_some()) {
    }
    return shown_.find(text, from) != std::string::npos;
  }

 private:
  bool read_some() {
    std::array<char, 65536> bytes{};
    const ssize_t count = ::read(terminal_.get(), bytes.data(), bytes.size());
    if (count > 0) shown_.append(bytes.data(), static_cast<std::size_t>(count));
    return count > 0;
  }

  Fd terminal_;
  Fd line_;
  std::optional<Program> program_;
  std::string shown_;
};

constexpr const char* kEntered = "\x1b[?1049h";
constexpr const char* kLeft = "\x1b[?25h\x1b[?1049l";

TEST_F(Watch, DrawsOnATerminalAndLeavesItAsItWas) {
  OnTerminal terminal({"--for", "900ms"});
  ASSERT_TRUE(terminal.await(kLeft));
  const std::size_t left = terminal.shown().find(kLeft);
  ASSERT_TRUE(terminal.await("miss", left));
  EXPECT_EQ(terminal.program().wait(kRunPatience), 0);
  const std::size_t entered = terminal.shown().find(kEntered);
  ASSERT_NE(entered, std::string::npos);
  const std::string address = listener_.endpoint().to_string();
  EXPECT_LT(terminal.shown().find(address, entered), left);
  EXPECT_NE(terminal.shown().find(address, left), std::string::npos) << "the last table stays";
}

TEST_F(Watch, LeavesTheTerminalAsItWasThoughASignalEndsIt) {
  OnTerminal terminal({"--for", "1m"});
  ASSERT_TRUE(terminal.await(kEntered));
  ASSERT_TRUE(terminal.await("how full: the last"));
  terminal.program().signal(SIGQUIT);
  EXPECT_TRUE(terminal.await(kLeft));
  EXPECT_EQ(terminal.program().wait(kRunPatience), 128 + SIGQUIT);
}

TEST_F(Watch, WritesItsDocumentWhenTheTerminalHangsUp) {
  const std::string file =
      std::filesystem::temp_directory_path() / ("anteroom-hangup-" + std::to_string(::getpid()) + ".json");
  for (const int signal : {SIGHUP, SIGINT, SIGTERM}) {
    OnTerminal terminal({"--for", "1h", "--json", file});
    ASSERT_TRUE(terminal.await(kEntered));
    ASSERT_TRUE(terminal.await("how full: the last"));
    terminal.program().signal(signal);
    EXPECT_TRUE(terminal.await(kLeft)) << signal;
    EXPECT_EQ(terminal.program().wait(kRunPatience), 130) << "interrupted";
    EXPECT_EQ(Document::parse(std::ifstream(file)).at("interrupted"), true);
    std::filesystem::remove(file);
  }
}

TEST_F(Watch, LeavesTheTerminalAsItWasThoughItCannotGoOn) {
  OnTerminal terminal({"--for", "1m"});
  ASSERT_TRUE(terminal.await("how full: the last"));
  if (!silence_sock_diag_of(terminal.program().pid()))
    GTEST_SKIP() << "no process may take a descriptor from another here (pidfd_getfd(2))";
  EXPECT_TRUE(terminal.await(kLeft));
  EXPECT_EQ(terminal.program().wait(kRunPatience), 1);
}

TEST_F(Watch, LeavesTheTerminalAsItWasThoughItCrashes) {
  for (const int signal : {SIGABRT, SIGSEGV, SIGBUS}) {
    if (kIsSanitized && signal != SIGABRT) continue;  // the sanitizer has a handler for it, which exits
    OnTerminal terminal({"--for", "1m"});
    ASSERT_TRUE(terminal.await("how full: the last"));
    terminal.program().signal(signal);
    EXPECT_TRUE(terminal.await(kLeft)) << signal;
    EXPECT_EQ(terminal.program().wait(kRunPatience), 128 + signal);
  }
}

/// Waits until SIGTSTP has had its way: whether it did, as seen in proc(5). A process group that is orphaned
/// is not stopped.
bool await_stop(OnTerminal& terminal, std::size_t from) {
  const std::string path = "/proc/" + std::to_string(terminal.program().pid()) + "/stat";
  const auto limit = Program::Clock::now() + kRunPatience;
  while (Program::Clock::now() < limit) {
    std::string stat;
    std::getline(std::ifstream(path), stat);
    if (stat.find(") T ") != std::string::npos) return true;
    if (terminal.has_shown(kEntered, from)) return true;
    std::this_thread::sleep_for(1ms);
  }
  return false;
}

TEST_F(Watch, LeavesTheTerminalWhileItIsStopped) {
  OnTerminal terminal({"--for", "1m"});
  ASSERT_TRUE(terminal.await("how full: the last"));
  terminal.program().signal(SIGTSTP);
  ASSERT_TRUE(terminal.await(kLeft));
  const std::size_t left = terminal.shown().find(kLeft);
  // A SIGCONT that comes before it has stopped would be lost, and it would stop for ever.
  ASSERT_TRUE(await_stop(terminal, left));
  terminal.program().signal(SIGCONT);
  EXPECT_TRUE(terminal.await(kEntered, left));
  terminal.program().signal(SIGINT);
  EXPECT_TRUE(terminal.await(kLeft, left + 1));
  EXPECT_EQ(terminal.program().wait(kRunPatience), 130);
}

TEST_F(Watch, CostsLessThanAHundredthOfAProcessorWithAThousandListeners) {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  std::vector<Listener> listeners;
  for (int i = 0; i < 1000; ++i) listeners.emplace_back(Endpoint("127.0.0.1", 0), ListenerOptions{});
  // Some are busy, which is when it looks more often.
  const std::vector<Peer> guests = test::connect_peers(listeners[500].endpoint(), 3);
  const Document document = document_of(watch({"--for", "8s", "--json", "-"}));
  EXPECT_EQ(document["listeners"].size(), 1001U);
  EXPECT_GT(document["cpu_share"], 0);
  EXPECT_LT(document["cpu_share"], kIsSanitized ? 0.05 : 0.01);
}

TEST(WatchAdvice, RaisesSomaxconnWhereTheListenerIs) {
  WatchCommand command{.pid = 4711, .is_elsewhere = true};
  WatchState state{.command = command, .rooms = WatchedRooms([](const auto&) { return true; })};
  state.backlog_max = 15;
  bench::ListeningSocket socket{.address = {"127.0.0.1", 80}, .limit = 15, .cookie = 1};
  const auto look = [&](std::chrono::nanoseconds at, std::uint32_t depth, std::uint32_t drops) {
    socket.depth = depth;
    socket.drops = drops;
    state.rooms.take(at, std::span(&socket, 1), true, [&] { return drops; });
  };
  look(0ms, 0, 0);
  look(10ms, 16, 100);
  look(20ms, 0, 100);
  const std::vector<RoomGroup> groups = state.rooms.groups(true);
  const auto words = [&] { return advice_in_words(state, groups.at(0), advise(state, groups.at(0))); };
  EXPECT_NE(words().find("Do: nsenter -t 4711 -n sysctl -w net.core.somaxconn="), std::string::npos)
      << words();
  command.is_elsewhere = false;
  EXPECT_NE(words().find("Do: sysctl -w net.core.somaxconn="), std::string::npos) << words();
}

TEST(DropShares, GiveNoMoreThanTheNamespaceHas) {
  DropShares shares;
  std::array<DropClaim, 3> claims{{{.sk_drops = 300}, {.sk_drops = 5, .was_full = true}, {.sk_drops = 100}}};
  shares.share(claims, 7, true);
  EXPECT_EQ(claims[1].drops, 5U) << "who was full first";
  EXPECT_EQ(claims[0].drops + claims[2].drops, 2U);
  EXPECT_GE(claims[0].drops, claims[2].drops);
}

TEST(DropShares, WaitForTheLookThatShowsWhatTheCountersAlreadyHave) {
  DropShares shares;
  std::array<DropClaim, 1> claims{{{.sk_drops = 4}}};
  shares.share(claims, 6, true);  // two came between the look and the reading
  EXPECT_EQ(claims[0].drops, 4U);
  claims[0] = {.sk_drops = 3};
  shares.share(claims, 6, true);
  EXPECT_EQ(claims[0].drops, 2U);
}

TEST(DropShares, ForgetWhatNobodyClaims) {
  DropShares shares;
  shares.read(5);
  shares.nobody_claims();
  std::array<DropClaim, 1> claims{{{.sk_drops = 4}}};
  shares.share(claims, 6, true);
  EXPECT_EQ(claims[0].drops, 1U);
}

TEST(WatchPace, LooksAsOftenAsItsShareAllows) {
  // What it comes to when every look costs 100 us, and as much again for all else.
  WatchPace pace(std::nullopt);
  pace.looked(true, 100us);
  std::chrono::nanoseconds spent = 200us;
  for (int second = 0; second < 100; ++second) {
    const auto looks = 1s / pace.interval({});
    for (auto look = looks; look > 0; --look) pace.looked(true, 100us);
    pace.used(200us * looks, 1s);
    spent += 200us * looks;
  }
  EXPECT_LT(spent, 100s * WatchPace::kCpuShare);
  EXPECT_GT(spent, 100s * WatchPace::kCpuShare / 2);
}

TEST(WatchPace, LooksCloselyWhileSomebodyWaitsAndStaysWithinItsShareAllTheSame) {
  WatchPace pace(std::nullopt);
  std::chrono::nanoseconds spent = 0s;
  std::chrono::nanoseconds closest = 1s;
  for (std::chrono::nanoseconds now = 0s, told = 0s, before = 0s; now < 100s;) {
    pace.looked(true, 100us);
    spent += 100us;
    const auto interval = pace.interval({.is_lively = true});
    closest = std::min(closest, interval);
    now += interval;
    if (now - told < 500ms) continue;
    pace.used(spent - before, now - told);
    told = now;
    before = spent;
  }
  EXPECT_EQ(closest, WatchPace::kIntervalMin);
  EXPECT_LT(spent, 100s * WatchPace::kCpuShare + WatchPace::kSavedFirst * 2);
}

TEST(WatchPace, KeepsToWhatItIsTold) {
  WatchPace pace(5ms);
  pace.looked(true, 100ms);
  EXPECT_EQ(pace.interval({}), 5ms);
  EXPECT_EQ(pace.interval({.is_mixed = true, .is_lively = true}), 5ms);
}

TEST(WatchPace, NeverGoesBeyondItsBounds) {
  WatchPace pace(std::nullopt);
  EXPECT_EQ(pace.interval({}), WatchPace::kIntervalMin);
  pace.looked(true, 1h);
  EXPECT_EQ(pace.interval({.is_lively = true}), WatchPace::kIntervalMax);
}

}  // namespace
}  // namespace anteroom::tool
