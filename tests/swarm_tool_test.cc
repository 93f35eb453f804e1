// anteroom swarm, run as users run it, on servers of this test's own.
#include <anteroom/acceptor.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "support/own_network.h"
#include "support/peer.h"
#include "support/program.h"

namespace anteroom::tool {
namespace {

using namespace std::chrono_literals;
using test::Program;
using Json = nlohmann::json;

const std::string kAnteroom = PROGRAMS "/anteroom";
constexpr int kNotToBeTrusted = 3;

struct Outcome {
  int status;
  std::string output;
  std::string errors;
};

Outcome run(std::vector<std::string> words) {
  words.insert(words.begin(), kAnteroom);
  Program program(std::move(words));
  const int status = program.wait(60s);
  return {status, program.output, program.errors};
}

/// On a busy machine the generator may be late, and says so; then there is another try.
Outcome run_until_trusted(const std::vector<std::string>& words) {
  constexpr int kTries = 10;
  Outcome outcome{};
  for (int attempt = 0; attempt < kTries; ++attempt) {
    outcome = run(words);
    if (outcome.status != kNotToBeTrusted) break;
  }
  return outcome;
}

/// A reactor with a door, in a thread of its own.
class Server {
 public:
  explicit Server(ConnectionHandlers handlers, const Endpoint& at = test::kLoopback)
      : acceptor_(reactor_, at, std::move(handlers)),
        port_(acceptor_.endpoint().port()),
        thread_([this] { reactor_.run(); }) {}
  ~Server() {
    reactor_.stop();
    thread_.join();
  }
  Server(const Server&) = delete;

  std::uint16_t port() const { return port_; }
  std::string at(const std::string& host) const { return host + ':' + std::to_string(port()); }

 private:
  Reactor reactor_;
  Acceptor acceptor_;
  const std::uint16_t port_;  // the acceptor is the thread's once it runs
  std::thread thread_;
};

/// Says `answer` to whoever says anything, and stays, as redis does.
ConnectionHandlers answering(const std::string& answer) {
  return {.data = [answer](Connection& guest, std::string_view) { guest.send(answer); }};
}
ConnectionHandlers greeting() {
  return {.open = [](Connection& guest) {
    guest.send("Hello World!");
    guest.close();
  }};
}

class SwarmTool : public testing::Test {
 protected:
  SwarmTool()
      : directory_(std::filesystem::temp_directory_path() /
                   ("anteroom-swarm-" + std::to_string(::getpid()))) {
    std::filesystem::create_directory(directory_);
  }
  ~SwarmTool() override { std::filesystem::remove_all(directory_); }
  std::string path(const std::string& name) const { return (directory_ / name).string(); }
  Json read(const std::string& name) const { return Json::parse(std::ifstream(path(name))); }

 private:
  std::filesystem::path directory_;
};

std::vector<std::string> ping(const std::string& server, const std::vector<std::string>& more = {}) {
  std::vector<std::string> words{"swarm", server, "--send", "PING\\r\\n", "--expect", "+PONG"};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

TEST_F(SwarmTool, RefusesBadInputWithOneLineAndStatusTwo) {
  const std::string closed = test::closed_endpoint().to_string();
  const std::string greet = "--greeting";
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"swarm"}, "HOST:PORT"},
      {{"swarm", "127.0.0.1:80"}, "how does one talk to it? --http /"},
      {{"swarm", "localhost", greet}, "a host and a port"},
      {{"swarm", "localhost:0", greet}, "a host and a port"},
      {{"swarm", "localhost:99999", greet}, "a host and a port"},
      {{"swarm", "::1:80", greet}, "brackets"},
      {{"swarm", "http://localhost:80/", greet}, "localhost:8080 --http /path"},
      {{"swarm", "no.such.name.invalid:80", greet}, "cannot find the address of no.such.name.invalid"},
      {{"swarm", "192.0.2.1:80", greet}, "--i-own-this-server 192.0.2.1"},
      {{"swarm", "192.0.2.1:80", greet, "--i-own-this-server", "192.0.2.2"}, "names 192.0.2.2"},
      {{"swarm", closed, greet}, "nobody listens on " + closed},
      {{"swarm", closed, greet, "--send", "x"}, "--greeting is for a server that speaks first"},
      {{"swarm", closed, "--http", "/", "--send", "x"}, "it goes with neither"},
      {{"swarm", closed, "--http", "x"}, "\"x\" is not a path"},
      {{"swarm", closed, "--send", "\\q"}, "behind a backslash"},
      {{"swarm", closed, greet, "--flows", "5", "--rate", "7"}, "a closed loop"},
      {{"swarm", closed, greet, "--for", "1s", "--clients", "7"}, "say one of them"},
      {{"swarm", closed, greet, "--for", "1s", "--burst", "7"}, "of use with one burst"},
      {{"swarm", closed, greet, "--for", "60m", "--rate", "1k"}, "possible"},
      {{"swarm", closed, greet, "--ramp", "--arrival", "steady"}, "say one of them"},
      {{"swarm", closed, greet, "--patience", "2m"}, "at most 60s"},
      {{"swarm", closed, greet, "--fail-if", "lost@512>0"}, "tries no backlogs"},
      {{"swarm", closed, greet, "--stall", "1s"}, "takes no --stall"},
  };
  for (const auto& [words, why] : cases) {
    const Outcome outcome = run(words);
    EXPECT_EQ(outcome.status, 2) << why;
    EXPECT_EQ(outcome.output, "") << why;
    EXPECT_NE(outcome.errors.find(why), std::string::npos) << outcome.errors << why;
    EXPECT_EQ(std::ranges::count(outcome.errors, '\n'), 1) << outcome.errors;
  }
}

/// What a server prints of itself, and how else one writes it down.
TEST_F(SwarmTool, TakesTheAddressesOfServersThatListenEverywhereForThisMachine) {
  for (const Endpoint& listens :
       {Endpoint("0.0.0.0", 0), Endpoint("127.0.0.1", 0), Endpoint("::ffff:127.0.0.1", 0)}) {
    const Server server(greeting(), listens);
    for (const char* host :
         {"0.0.0.0", "", "*", "localhost", "0", "[::ffff:127.0.0.1]", "[::ffff:0.0.0.0]", "[::]"}) {
      const Outcome outcome = run({"swarm", server.at(host), "--greeting", "--clients", "10", "--rate", "500",
                                   "--json", path("run.json")});
      ASSERT_TRUE(outcome.status == 0 || outcome.status == kNotToBeTrusted) << host << outcome.errors;
      const Json target = read("run.json").at("target");
      EXPECT_EQ(target.at("address"), server.at("127.0.0.1")) << host;
      EXPECT_EQ(target.at("listeners"), 1) << host << " on " << listens.to_string();
      EXPECT_EQ(target.at("redirected_to"), nullptr) << host;
    }
  }
}

TEST_F(SwarmTool, TakesTheAddressOfAServerThatListensOnAllOfIPv6) {
  const Server server(greeting(), Endpoint("::", 0));
  for (const char* host : {"[::]", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", ""}) {
    const Outcome outcome = run({"swarm", server.at(host), "--greeting", "--clients", "10", "--rate", "500",
                                 "--json", path("run.json")});
    ASSERT_TRUE(outcome.status == 0 || outcome.status == kNotToBeTrusted) << host << outcome.errors;
    const Json target = read("run.json").at("target");
    EXPECT_EQ(target.at("address"),
              server.at(std::string_view(host).starts_with("[::]") || std::string_view(host) == "[::1]"
                            ? "[::1]"
                            : "127.0.0.1"));
    EXPECT_EQ(target.at("listeners"), 1) << host;
  }
}

TEST_F(SwarmTool, TakesAPortAloneForThisMachineInBothFamilies) {
  const Server server(greeting(), Endpoint("::1", 0));
  for (const char* host : {"", "*", "[::]"}) {
    const Outcome outcome = run({"swarm", server.at(host), "--greeting", "--clients", "10", "--rate", "500",
                                 "--json", path("run.json")});
    ASSERT_TRUE(outcome.status == 0 || outcome.status == kNotToBeTrusted) << host << outcome.errors;
    EXPECT_EQ(read("run.json").at("target").at("address"), server.at("[::1]")) << host;
  }
}

TEST_F(SwarmTool, NamesThisMachineToAServerThatListensEverywhere) {
  std::atomic<int> named{0};
  const Server server({.data =
                           [&](Connection& client, std::string_view bytes) {
                             named += bytes.find("Host: localhost:") != std::string_view::npos ? 1 : 0;
                             client.close("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                           }},
                      Endpoint("0.0.0.0", 0));
  for (const char* host : {"0.0.0.0", "", "*"}) {
    const Outcome outcome =
        run({"swarm", server.at(host), "--http", "/", "--clients", "10", "--rate", "500"});
    EXPECT_TRUE(outcome.status == 0 || outcome.status == kNotToBeTrusted) << host << outcome.errors;
  }
  EXPECT_GE(named.load(), 30);
}

TEST_F(SwarmTool, TellsWhatBecameOfEverybody) {
  const Server server(answering("+PONG\r\n"));
  const Outcome outcome = run_until_trusted(
      ping(server.at("localhost"), {"--rate", "1k", "--for", "300ms", "--json", path("run.json")}));
  ASSERT_EQ(outcome.status, 0) << outcome.output << outcome.errors;
  std::string in_one_line = outcome.output;
  std::ranges::replace(in_one_line, '\n', ' ');
  for (const char* words : {"300 clients call, 1,000 a second", "says PING\\r\\n and expects +PONG"})
    EXPECT_NE(in_one_line.find(words), std::string::npos) << outcome.output;
  EXPECT_NE(outcome.output.find("300  100.0 %  served at once"), std::string::npos) << outcome.output;
  EXPECT_EQ(outcome.output.find('\r'), std::string::npos);
  EXPECT_EQ(outcome.errors, "");

  const Json json = read("run.json");
  EXPECT_EQ(json.at("schema"), "anteroom.swarm/1");
  EXPECT_EQ(json.at("interrupted"), false);
  EXPECT_EQ(json.at("target").at("address"), server.at("127.0.0.1"));
  EXPECT_EQ(json.at("target").at("pid"), ::getpid());
  EXPECT_EQ(json.at("target").at("listeners"), 1);
  const Json& row = json.at("rows").at(0);
  EXPECT_EQ(row.at("server"), "running");
  EXPECT_EQ(row.at("clients"), 300);
  EXPECT_EQ(row.at("fates").at("served_at_once"), 300);
  EXPECT_TRUE(row.at("deepest_queue").is_object());
  EXPECT_TRUE(row.at("queue_wait_s").is_null());
  EXPECT_EQ(json.at("trials").at(0).at("balanced"), true);
}

TEST_F(SwarmTool, WritesWhatTheOtherCommandsRead) {
  const Server server(greeting());
  const Outcome outcome =
      run_until_trusted({"swarm", server.at("127.0.0.1"), "--greeting", "--burst", "50", "--json",
                         path("run.json"), "--csv", path("run.csv"), "--quiet"});
  ASSERT_EQ(outcome.status, 0) << outcome.output << outcome.errors;
  EXPECT_TRUE(outcome.output.starts_with("50 of 50 served, ")) << outcome.output;
  EXPECT_EQ(run({"report", path("run.json"), "--output", path("run.html")}).status, 0);
  EXPECT_EQ(run({"report", path("run.json"), "--fail-if", "unserved>0"}).status, 0);
  EXPECT_EQ(run({"diff", path("run.json"), path("run.json")}).status, 0);
  std::ifstream csv(path("run.csv"));
  std::string heading;
  std::string line;
  std::getline(csv, heading);
  std::getline(csv, line);
  EXPECT_NE(heading.find(",answered_otherwise,"), std::string::npos);
  EXPECT_TRUE(line.starts_with("running,open,")) << line;
}

TEST_F(SwarmTool, ExitsWithFourWhenARuleIsBroken) {
  const Server server(answering("+PONG\r\n"));
  const Outcome outcome =
      run_until_trusted(ping(server.at("127.0.0.1"), {"--clients", "50", "--fail-if", "p50>1ns"}));
  EXPECT_EQ(outcome.status, 4);
  EXPECT_NE(outcome.errors.find("p50 is "), std::string::npos) << outcome.errors;
}

TEST_F(SwarmTool, PlaysAClosedLoop) {
  const Server server(greeting(), {"::1", 0});
  const Outcome outcome = run_until_trusted(
      {"swarm", server.at("[::1]"), "--greeting", "-c", "5", "--for", "300ms", "--json", path("run.json")});
  ASSERT_EQ(outcome.status, 0) << outcome.output << outcome.errors;
  const Json row = read("run.json").at("rows").at(0);
  EXPECT_EQ(row.at("loop"), "closed");
  EXPECT_GT(row.at("fates").at("served_at_once").get<int>(), 5);
  EXPECT_LE(row.at("fates").at("deadline").get<int>(), 5);
}

TEST_F(SwarmTool, GoesOnInAClosedLoopWithAServerThatNeverClosesAndFewDescriptors) {
  const Server server({.open = [](Connection& guest) { guest.send("220 mail.example ESMTP\r\n"); }});
  Program program({kAnteroom, "swarm", server.at("127.0.0.1"), "--greeting", "-c", "5", "--for", "600ms",
                   "--json", path("run.json")},
                  [] {
                    const rlimit few{.rlim_cur = 300, .rlim_max = 300};
                    ::setrlimit(RLIMIT_NOFILE, &few);
                  });
  EXPECT_NE(program.wait(60s), kNotToBeTrusted) << program.output;
  const Json trial = read("run.json").at("trials").at(0);
  EXPECT_EQ(trial.at("fates").at("no_descriptor"), 0);
  EXPECT_GT(trial.at("fates").at("served_at_once").get<int>(), 1000);
}

TEST_F(SwarmTool, SaysFirstThatWhatFollowsIsNotToBeTrusted) {
  constexpr const char* kPorts = "/proc/sys/net/ipv4/ip_local_port_range";
  const Server server({.open = [](Connection& guest) { guest.send("220 mail.example ESMTP\r\n"); }},
                      {"::1", 0});
  if (!test::set_network_sysctl(kPorts, "20000 20010")) GTEST_SKIP() << "no network of our own";
  const Outcome outcome = run({"swarm", server.at("[::1]"), "--greeting", "--burst", "50"});
  // The ports of the first run are not free again yet.
  ASSERT_TRUE(test::set_network_sysctl(kPorts, "21000 21010"));
  const Outcome quiet = run({"swarm", server.at("[::1]"), "--greeting", "--burst", "50", "--quiet"});
  ASSERT_TRUE(test::set_network_sysctl(kPorts, "32768 60999"));
  EXPECT_EQ(outcome.status, kNotToBeTrusted);
  const std::size_t warning = outcome.output.find("not to be trusted: the generator ran out of local ports");
  EXPECT_LT(warning, outcome.output.find("served at once")) << outcome.output;
  EXPECT_NE(outcome.output.find(" served, not to be trusted"), std::string::npos) << outcome.output;
  EXPECT_EQ(quiet.status, kNotToBeTrusted);
  EXPECT_TRUE(quiet.output.starts_with("not to be trusted: ")) << quiet.output;
}

TEST_F(SwarmTool, EndsOnCtrlCWhileItWaitsForTheFirstAnswer) {
  std::atomic<bool> was_asked{false};
  const Server server({.data = [&](Connection&, std::string_view) { was_asked = true; }});
  std::vector<std::string> words = ping(server.at("127.0.0.1"), {"--patience", "50s"});
  words.insert(words.begin(), kAnteroom);
  Program program(std::move(words));
  const auto limit = Program::Clock::now() + test::kPatience;
  while (!was_asked.load() && Program::Clock::now() < limit) std::this_thread::yield();
  program.signal(SIGINT);
  EXPECT_EQ(program.wait(20s), 130);
  EXPECT_EQ(program.output, "");
  EXPECT_EQ(program.errors, "");
}

TEST_F(SwarmTool, RefusesAServerThatAnswersOtherwise) {
  const Server server(answering("-ERR \x1b[2J unknown\r\nmore"));
  const Outcome outcome = run(ping(server.at("127.0.0.1"), {"--patience", "300ms"}));
  EXPECT_EQ(outcome.status, 2);
  EXPECT_EQ(outcome.errors, "anteroom: " + server.at("127.0.0.1") +
                                " answered \"-ERR \\x1b[2J unknown\", and expected was +PONG\n");
  const Outcome http = run({"swarm", server.at("127.0.0.1"), "--http", "/"});
  EXPECT_EQ(http.status, 2);
  EXPECT_NE(http.errors.find("HTTP with a status from 200 to 399"), std::string::npos) << http.errors;
}

TEST_F(SwarmTool, SaysWhatToTryWithAServerThatSaysNothing) {
  const Server server(answering("+PONG\r\n"));
  const Outcome outcome = run({"swarm", server.at("127.0.0.1"), "--greeting", "--patience", "200ms"});
  EXPECT_EQ(outcome.status, 2);
  EXPECT_NE(outcome.errors.find("it may wait for the client to speak: --http / or --send"), std::string::npos)
      << outcome.errors;
}

TEST_F(SwarmTool, KnowsNothingOfTheServersSideBeyondLoopback) {
  const Endpoint beyond("192.0.2.7", 0);  // for documentation only (RFC 5737)
  if (!test::has_own_network || !test::add_address(beyond)) GTEST_SKIP() << "needs a network of its own";
  const Server server(answering("+PONG\r\n"), beyond);
  const Outcome outcome =
      run_until_trusted(ping(server.at("192.0.2.7"), {"--i-own-this-server", "192.0.2.7", "--clients", "50",
                                                      "--json", path("run.json"), "--csv", path("run.csv")}));
  ASSERT_EQ(outcome.status, 0) << outcome.output << outcome.errors;
  EXPECT_NE(outcome.output.find("queue       not seen from here"), std::string::npos) << outcome.output;
  const Json json = read("run.json");
  EXPECT_EQ(json.at("target").at("listeners"), 0);
  EXPECT_TRUE(json.at("target").at("pid").is_null());
  for (const char* field : {"deepest_queue", "listen_drops", "ghosts", "server_cpu_s_per_connection"})
    EXPECT_TRUE(json.at("rows").at(0).at(field).is_null()) << field;
  std::ifstream csv(path("run.csv"));
  std::string line;
  std::getline(csv, line);
  std::getline(csv, line);
  EXPECT_TRUE(line.starts_with("running,open,,")) << line;  // no backlog, and not an unlimited one
  const Outcome broken = run({"report", path("run.json"), "--fail-if", "p50>1ns"});
  EXPECT_EQ(broken.errors.find("backlog"), std::string::npos) << broken.errors;
  // A rule about what is not known was there to make sure.
  EXPECT_EQ(run({"report", path("run.json"), "--fail-if", "depth>5000"}).status, 4);
}

TEST_F(SwarmTool, EndsOnCtrlCWithWhatWasMeasuredSoFar) {
  std::atomic<int> answered{0};
  const Server server({.data = [&](Connection& guest, std::string_view) {
    guest.send("+PONG\r\n");
    ++answered;
  }});
  std::vector<std::string> words = ping(server.at("127.0.0.1"), {"--for", "50s", "--json", path("run.json")});
  words.insert(words.begin(), kAnteroom);
  Program program(std::move(words));
  const auto limit = Program::Clock::now() + test::kPatience;
  while (answered.load() < 100 && Program::Clock::now() < limit) std::this_thread::yield();
  program.signal(SIGINT);
  ASSERT_EQ(program.wait(20s), 130) << program.errors;
  EXPECT_NE(program.output.find("interrupted after"), std::string::npos) << program.output;
  const Json json = read("run.json");
  EXPECT_EQ(json.at("interrupted"), true);
  const Json& trial = json.at("trials").at(0);
  EXPECT_GT(trial.at("fates").at("served_at_once").get<int>(), 0);
  EXPECT_LT(trial.at("clients").get<int>(), 25'000);
  EXPECT_EQ(trial.at("fates").at("not_started"), 0);
}

}  // namespace
}  // namespace anteroom::tool
