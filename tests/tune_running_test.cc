// anteroom tune on a server that runs, as users run it: nginx and redis as the distribution has them.
#include <anteroom/bench/running_server.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "support/own_network.h"
#include "support/program.h"
#include "support/real_servers.h"

namespace anteroom::tool {
namespace {

using namespace std::chrono_literals;
using test::Nginx;
using test::processes_with;
using test::Program;
using test::RealServer;
using test::Redis;
using testing::AllOf;
using testing::Each;
using testing::HasSubstr;
using Json = nlohmann::json;
using Words = std::vector<std::string>;

const std::string kAnteroom = PROGRAMS "/anteroom";
constexpr std::uint32_t kBefore = 511;  // both servers' own default
constexpr auto kPatience = 60s;

/// A server, and what to say to it.
struct Case {
  std::string name;
  std::function<std::unique_ptr<RealServer>()> start;
  Words dialogue;

  friend void PrintTo(const Case& which, std::ostream* out) { *out << which.name; }
};
const Words kHttp{"--http", "/"};
const Words kPing{"--send", "PING\\r\\n", "--expect", "+PONG"};
const std::vector<Case> kCases{
    {"Nginx", [] { return std::make_unique<Nginx>(); }, kHttp},
    {"NginxWithReuseport", [] { return std::make_unique<Nginx>(test::NginxOptions{.reuseport = true}); },
     kHttp},
    {"Redis", [] { return std::make_unique<Redis>(); }, kPing},
};

/// A run of some seconds; with `repeat` in the thousands, one that has to be ended.
Words tune(const RealServer& server, const Words& dialogue, const Words& more = {}) {
  Words words{kAnteroom, "tune",      "--pid", server.pid_text(), "--port", server.port_text(), "--rate",
              "2000",    "--clients", "200",   "--patience",      "500ms",  "--backlog",        "16,256"};
  words.insert(words.end(), dialogue.begin(), dialogue.end());
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

auto lines(const std::string& text) { return std::count(text.begin(), text.end(), '\n'); }

/// Whether that signal has no effect on the process (proc(5)).
bool ignores(pid_t pid, int signal) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  constexpr std::string_view kName = "SigIgn:";
  for (std::string line; std::getline(status, line);) {
    if (!line.starts_with(kName)) continue;
    return (std::stoull(line.substr(kName.size()), nullptr, 16) >> (signal - 1) & 1) != 0;
  }
  return false;
}

/// The books of every trial that ran balance, and there is a number or a reason why there is none. An
/// unlimited backlog, which is null, is tried beside those that were asked for.
void expect_sound(const Json& json, std::set<int> backlogs) {
  for (const Json& trial : json.at("trials")) {
    if (!trial.contains("balanced")) continue;
    EXPECT_EQ(trial.at("balanced"), true) << trial.at("problems") << trial.at("books");
    const int in_force = trial.at("backlog_in_force");
    EXPECT_TRUE(trial.at("backlog").is_null() || trial.at("backlog") == in_force) << in_force;
    backlogs.erase(in_force);
  }
  EXPECT_THAT(backlogs, testing::IsEmpty()) << "not tried";
  EXPECT_TRUE(json.at("recommended").is_number() || json.at("recommended").is_null());
  EXPECT_NE(json.at("advice").at("reason"), "");
}

class TuneRunning : public testing::Test {
 protected:
  TuneRunning()
      : directory_(std::filesystem::temp_directory_path() /
                   ("anteroom-running-" + std::to_string(::getpid()))) {
    std::filesystem::create_directory(directory_);
  }
  ~TuneRunning() override { std::filesystem::remove_all(directory_); }
  void SetUp() override {
    if (!Nginx::is_installed() || !Redis::is_installed())
      GTEST_SKIP() << "no nginx or no redis: tools/setup --with-peers installs them";
    if (!test::may_reach_into_processes())
      GTEST_SKIP() << "no process may take a descriptor from another here (pidfd_getfd(2))";
  }
  std::string path(const std::string& name) const { return (directory_ / name).string(); }

 private:
  std::filesystem::path directory_;
};

class TuneEachServer : public TuneRunning, public testing::WithParamInterface<Case> {
 protected:
  void SetUp() override {
    TuneRunning::SetUp();
    if (IsSkipped()) return;
    server_ = GetParam().start();
    ASSERT_TRUE(server_->ready()) << server_->errors();
    ASSERT_TRUE(is_as_before());
  }
  const RealServer& server() const { return *server_; }
  bool is_as_before() const {
    const std::vector<std::uint32_t> now = server_->backlogs();
    return !now.empty() && std::ranges::all_of(now, [](std::uint32_t backlog) { return backlog == kBefore; });
  }
  /// A sweep that does not end by itself, and is in the middle: it has changed the backlog twice. Its
  /// processes are known by `file`.
  std::unique_ptr<Program> begin_sweep(const std::string& file) const {
    auto program =
        std::make_unique<Program>(tune(server(), GetParam().dialogue, {"--repeat", "1000", "--json", file}));
    std::set<std::uint32_t> seen{kBefore};
    EXPECT_TRUE(test::eventually(
        [&] {
          for (const std::uint32_t backlog : server_->backlogs()) seen.insert(backlog);
          return program->wait(1ms) >= 0 || seen.size() >= 3;
        },
        kPatience));
    EXPECT_EQ(program->wait(1ms), -1) << program->errors;
    return program;
  }
  void stop_server() { server_->stop(); }

 private:
  std::unique_ptr<RealServer> server_;
};
INSTANTIATE_TEST_SUITE_P(Peers, TuneEachServer, testing::ValuesIn(kCases),
                         [](const auto& each) { return each.param.name; });

TEST_P(TuneEachServer, BalancesItsBooksAndPutsTheBacklogBack) {
  Program program(tune(server(), GetParam().dialogue, {"--repeat", "2", "--json", "-"}));
  const int status = program.wait(kPatience);
  ASSERT_TRUE(status == 0 || status == 3) << status << program.errors;
  EXPECT_TRUE(is_as_before());
  const Json json = Json::parse(program.output);
  EXPECT_EQ(json.at("interrupted"), false);
  expect_sound(json, {16, 256});
}

TEST_P(TuneEachServer, CountsWhoFindsASmallRoomFull) {
  // All at once, while the server is stopped every now and then, so that it cannot accept them as they come.
  Words words = tune(server(), GetParam().dialogue, {"--repeat", "1", "--json", "-"});
  std::ranges::replace(words, "16,256", "1");
  words.erase(std::ranges::find(words, "--rate"), std::ranges::find(words, "--clients"));
  std::ranges::replace(words, "--clients", "--burst");
  Program program(words);
  int status = -1;
  // Almost always, so that no burst falls between two stops.
  for (bool stopped = false; (status = program.wait(stopped ? 80ms : 4ms)) < 0; stopped = !stopped) {
    for (const pid_t pid : server().acceptors()) ::kill(pid, stopped ? SIGCONT : SIGSTOP);
  }
  for (const pid_t pid : server().acceptors()) ::kill(pid, SIGCONT);
  ASSERT_TRUE(status == 0 || status == 3) << status << program.errors;
  EXPECT_TRUE(is_as_before());
  const Json json = Json::parse(program.output);
  expect_sound(json, {1});
  for (const Json& trial : json.at("trials")) {
    if (trial.at("backlog") != 1) continue;
    EXPECT_EQ(trial.at("deepest_queue"), 2);
    EXPECT_GT(trial.at("turned_away"), 0);
    EXPECT_LE(trial.at("turned_away"), trial.at("listener_drops")) << "nobody had the time to try again";
  }
}

TEST_P(TuneEachServer, PutsTheBacklogBackWhenItIsInterrupted) {
  const std::string file = path("interrupted.json");
  const auto program = begin_sweep(file);
  EXPECT_TRUE(ignores(program->pid(), SIGTSTP)) << "a pause would leave it with whatever is being tried";
  program->signal(SIGINT);
  EXPECT_EQ(program->wait(kPatience), 130) << program->errors;
  EXPECT_TRUE(is_as_before());
  EXPECT_THAT(program->output, HasSubstr(" has 511 again\n"));
  EXPECT_EQ(Json::parse(std::ifstream(file)).at("interrupted"), true);
  EXPECT_EQ(processes_with(file), 0);
}

TEST_P(TuneEachServer, PutsTheBacklogBackWhenItIsKilled) {
  const std::string file = path("killed.json");
  const auto program = begin_sweep(file);
  program->signal(SIGKILL);
  EXPECT_EQ(program->wait(kPatience), 128 + SIGKILL);
  EXPECT_TRUE(test::eventually([&] { return is_as_before(); }, kPatience));
  EXPECT_TRUE(test::eventually([&] { return processes_with(file) == 0; }, kPatience));
}

TEST_P(TuneEachServer, EndsWhenSomebodyElseChangesTheBacklog) {
  const auto program = begin_sweep(path("changed.json"));
  const bench::RunningServer somebody_else(server().pid(), server().port());
  // More than once, for the sweep may be about to change it just then.
  EXPECT_TRUE(test::eventually(
      [&] {
        somebody_else.set_backlog(300);
        return program->wait(1ms) >= 0;
      },
      kPatience));
  EXPECT_EQ(program->wait(1ms), 1) << program->errors;
  EXPECT_EQ(lines(program->errors), 1) << program->errors;
  EXPECT_THAT(program->errors, HasSubstr("300 by somebody else"));
  EXPECT_THAT(server().backlogs(), Each(300));
}

TEST_P(TuneEachServer, EndsWithItsServer) {
  const std::string file = path("died.json");
  const auto program = begin_sweep(file);
  stop_server();
  EXPECT_EQ(program->wait(kPatience), 1) << program->errors;
  EXPECT_EQ(lines(program->errors), 1) << program->errors;
  EXPECT_THAT(program->errors, HasSubstr("pid " + server().pid_text()));
  EXPECT_TRUE(test::eventually([&] { return processes_with(file) == 0; }, kPatience));
}

/// Runs it, and expects status 2 and one line that says `what`.
void expect_refused(Words words, const testing::Matcher<std::string>& what) {
  Program program(std::move(words));
  EXPECT_EQ(program.wait(kPatience), 2) << program.output << program.errors;
  EXPECT_THAT(program.errors, what);
  EXPECT_EQ(lines(program.errors), 1) << program.errors;
}

TEST_F(TuneRunning, PrintsATable) {
  const Nginx nginx;
  ASSERT_TRUE(nginx.ready()) << nginx.errors();
  Program program(tune(nginx, kHttp, {"--repeat", "1"}));
  const int status = program.wait(kPatience);
  EXPECT_TRUE(status == 0 || status == 3) << status << program.errors;
  EXPECT_THAT(program.output, AllOf(HasSubstr("nginx"), HasSubstr("backlog"), HasSubstr("deepest queue")));
  EXPECT_THAT(program.output, HasSubstr("recommend"));
}

TEST_F(TuneRunning, ShowsWhatTheServerAnsweredInstead) {
  const Redis redis;
  const Nginx nginx;
  ASSERT_TRUE(redis.ready() && nginx.ready()) << redis.errors() << nginx.errors();
  expect_refused(tune(redis, {"--send", "PING\\r\\n", "--expect", "+HELLO"}),
                 AllOf(HasSubstr("+PONG"), HasSubstr("+HELLO")));
  expect_refused(tune(nginx, kPing), HasSubstr("400 Bad Request"));
  expect_refused(tune(nginx, {"--http", "/", "--expect", "nobody says this"}), HasSubstr("nobody says this"));
  // redis takes "Host:" for an attack by way of a browser, and hangs up.
  expect_refused(tune(redis, kHttp), AllOf(HasSubstr("closed without a word"), HasSubstr("--send")));
  EXPECT_THAT(redis.backlogs(), Each(kBefore));
  EXPECT_THAT(nginx.backlogs(), Each(kBefore));
}

TEST_F(TuneRunning, SaysThatAServerWaitsToBeSpokenTo) {
  const Redis redis;
  ASSERT_TRUE(redis.ready()) << redis.errors();
  expect_refused(tune(redis, {"--greeting"}), AllOf(HasSubstr("did not answer"), HasSubstr("--send")));
  EXPECT_THAT(redis.backlogs(), Each(kBefore));
}

TEST_F(TuneRunning, AsksWhatToSayToTheServer) {
  const Redis redis;
  ASSERT_TRUE(redis.ready()) << redis.errors();
  expect_refused(tune(redis, {}), AllOf(HasSubstr("--http"), HasSubstr("--send"), HasSubstr("--greeting")));
  EXPECT_THAT(redis.backlogs(), Each(kBefore));
}

TEST_F(TuneRunning, RefusesBacklogsThatSomaxconnClips) {
  if (!test::set_network_sysctl("/proc/sys/net/core/somaxconn", "600"))
    GTEST_SKIP() << "no network namespace of our own to set somaxconn in";
  const Nginx nginx;
  ASSERT_TRUE(nginx.ready()) << nginx.errors();
  Words words = tune(nginx, kHttp);
  std::ranges::replace(words, "16,256", "16,601");
  expect_refused(words, AllOf(HasSubstr("net.core.somaxconn"), HasSubstr("601")));
  EXPECT_THAT(nginx.backlogs(), Each(kBefore));
  ASSERT_TRUE(test::set_network_sysctl("/proc/sys/net/core/somaxconn", "4096"));
}

TEST_F(TuneRunning, RefusesAPidThatDoesNotListenThere) {
  const Nginx nginx;
  const Redis redis;
  ASSERT_TRUE(redis.ready() && nginx.ready()) << redis.errors() << nginx.errors();
  Words words = tune(nginx, kHttp);
  std::ranges::replace(words, nginx.port_text(), redis.port_text());
  expect_refused(words, HasSubstr("does not listen on port " + redis.port_text()));
  EXPECT_THAT(redis.backlogs(), Each(kBefore));
}

TEST_F(TuneRunning, GoesToTheNetworkNamespaceOfTheServer) {
  if (!test::has_own_network) GTEST_SKIP() << "no network namespaces here";
  const Nginx nginx({.is_elsewhere = true});
  ASSERT_TRUE(nginx.ready()) << nginx.errors();
  Program program(tune(nginx, kHttp, {"--repeat", "1", "--json", "-"}));
  const int status = program.wait(kPatience);
  ASSERT_TRUE(status == 0 || status == 3) << status << program.errors;
  expect_sound(Json::parse(program.output), {16, 256});
  EXPECT_THAT(nginx.backlogs(), Each(kBefore));
}

}  // namespace
}  // namespace anteroom::tool
