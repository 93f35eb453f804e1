// anteroom retune, run as users run it, on nginx and redis as the distribution has them.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support/own_network.h"
#include "support/program.h"
#include "support/real_servers.h"

namespace anteroom::tool {
namespace {

using namespace std::chrono_literals;
using test::Nginx;
using test::Program;
using test::RealServer;
using test::Redis;
using testing::AllOf;
using testing::HasSubstr;
using Json = nlohmann::json;
using Backlogs = std::vector<std::uint32_t>;

const std::string kAnteroom = PROGRAMS "/anteroom";
constexpr auto kPatience = 60s;

struct Outcome {
  int status;
  std::string output;
  std::string errors;
};

std::vector<std::string> retune(std::vector<std::string> words) {
  words.insert(words.begin(), {kAnteroom, "retune"});
  return words;
}

Outcome run(std::vector<std::string> words, const std::function<void()>& prepare = {}) {
  Program program(retune(std::move(words)), prepare);
  const int status = program.wait(kPatience);
  return {status, program.output, program.errors};
}

auto lines(const std::string& text) { return std::count(text.begin(), text.end(), '\n'); }

/// Status 2, one line that says `what`, and nothing else.
void expect_refused(const Outcome& outcome, const testing::Matcher<std::string>& what) {
  EXPECT_EQ(outcome.status, 2) << outcome.output << outcome.errors;
  EXPECT_THAT(outcome.errors, what);
  EXPECT_EQ(lines(outcome.errors), 1) << outcome.errors;
  EXPECT_EQ(outcome.output, "");
}

class Retune : public testing::Test {
 protected:
  void SetUp() override {
    if (!Nginx::is_installed() || !Redis::is_installed())
      GTEST_SKIP() << "no nginx or no redis: tools/setup --with-peers installs them";
    if (!test::may_reach_into_processes())
      GTEST_SKIP() << "no process may take a descriptor from another here (pidfd_getfd(2))";
  }
};

#define ASSERT_READY(server) ASSERT_TRUE((server).ready()) << (server).errors()

TEST_F(Retune, ChangesNginxAndSaysWhatItWas) {
  const Nginx nginx;
  ASSERT_READY(nginx);
  ASSERT_EQ(nginx.backlogs(), Backlogs{511}) << "one socket, which the workers share";
  const Outcome outcome = run({"--pid", nginx.pid_text(), "--port", nginx.port_text(), "--backlog", "1024"});
  EXPECT_EQ(outcome.status, 0) << outcome.errors;
  EXPECT_THAT(outcome.output, AllOf(HasSubstr("127.0.0.1:" + nginx.port_text()), HasSubstr("nginx"),
                                    HasSubstr("pid " + nginx.pid_text()), HasSubstr("511 -> 1024")));
  EXPECT_EQ(lines(outcome.output), 1) << outcome.output;
  EXPECT_EQ(outcome.errors, "");
  EXPECT_EQ(nginx.backlogs(), Backlogs{1024});
}

TEST_F(Retune, ChangesEverySocketOfAReuseportGroup) {
  const Nginx nginx({.workers = 2, .reuseport = true, .backlog = 300, .on_ipv6 = true});
  ASSERT_READY(nginx);
  ASSERT_EQ(nginx.backlogs(), (Backlogs{300, 300, 300, 300})) << "a socket a worker and address";
  const Outcome outcome = run({"--pid", nginx.pid_text(), "--backlog", "77"});
  EXPECT_EQ(outcome.status, 0) << outcome.errors;
  EXPECT_EQ(lines(outcome.output), 4) << outcome.output;
  EXPECT_THAT(outcome.output, HasSubstr("[::1]:" + nginx.port_text()));
  EXPECT_EQ(nginx.backlogs(), (Backlogs{77, 77, 77, 77}));
}

TEST_F(Retune, ChangesRedisOnIPv4AndIPv6FoundByItsPort) {
  const Redis redis;
  ASSERT_READY(redis);
  const Outcome outcome = run({"--port", redis.port_text(), "--backlog", "64"});
  EXPECT_EQ(outcome.status, 0) << outcome.errors;
  EXPECT_THAT(outcome.output, AllOf(HasSubstr("127.0.0.1:"), HasSubstr("[::1]:"), HasSubstr("redis-server")));
  EXPECT_EQ(redis.backlogs(), (Backlogs{64, 64}));
}

TEST_F(Retune, FindsTheSocketsThroughAWorkersPidToo) {
  const Nginx nginx({.reuseport = true});
  ASSERT_READY(nginx);
  const Outcome by_master = run({"--port", nginx.port_text(), "--backlog", "200", "--json", "-"});
  ASSERT_EQ(by_master.status, 0) << by_master.errors;
  EXPECT_EQ(Json::parse(by_master.output).at("pid"), nginx.pid()) << "who has workers speaks for them";
  const Outcome by_worker = run({"--pid", std::to_string(nginx.workers().at(0)), "--backlog", "201"});
  EXPECT_EQ(by_worker.status, 0) << by_worker.errors;
  EXPECT_EQ(nginx.backlogs(), (Backlogs{201, 201})) << "all of the group, though it was one worker's pid";
}

TEST_F(Retune, ChangesNothingInADryRun) {
  const Redis redis;
  ASSERT_READY(redis);
  const Outcome outcome = run({"--pid", redis.pid_text(), "--backlog", "64", "--dry-run"});
  EXPECT_EQ(outcome.status, 0) << outcome.errors;
  EXPECT_THAT(outcome.output, AllOf(HasSubstr("511 -> 64"), HasSubstr("dry run")));
  EXPECT_EQ(redis.backlogs(), (Backlogs{511, 511}));

  const Json json =
      Json::parse(run({"--pid", redis.pid_text(), "--backlog", "64", "--dry-run", "--json", "-"}).output);
  EXPECT_EQ(json.at("dry_run"), true);
  for (const Json& room : json.at("rooms")) EXPECT_EQ(room.at("now"), 511);
}

TEST_F(Retune, WritesJson) {
  const Redis redis;
  ASSERT_READY(redis);
  const Outcome outcome = run({"--pid", redis.pid_text(), "--backlog", "99", "--json", "-"});
  ASSERT_EQ(outcome.status, 0) << outcome.errors;
  const Json json = Json::parse(outcome.output);
  EXPECT_EQ(json.at("schema"), "anteroom.retune/1");
  EXPECT_EQ(json.at("pid"), redis.pid());
  EXPECT_EQ(json.at("port"), redis.port());
  EXPECT_EQ(json.at("name"), "redis-server");
  EXPECT_EQ(json.at("dry_run"), false);
  EXPECT_GT(json.at("somaxconn"), 0);
  ASSERT_EQ(json.at("rooms").size(), 2U);
  for (const Json& room : json.at("rooms")) {
    EXPECT_EQ(room.at("was"), 511);
    EXPECT_EQ(room.at("now"), 99);
    EXPECT_EQ(room.at("pid"), redis.pid());
    EXPECT_THAT(room.at("address").get<std::string>(), HasSubstr(":" + redis.port_text()));
  }
}

TEST_F(Retune, KeepsWhoWaits) {
  // The worker is stopped, so that who has come waits, and goes on as if nothing had been.
  const Nginx nginx({.workers = 1});
  ASSERT_READY(nginx);
  ASSERT_EQ(nginx.workers().size(), 1U);
  const pid_t worker = nginx.workers().front();
  ::kill(worker, SIGSTOP);
  std::string heard;
  std::thread guest([&] { heard = test::answer({"127.0.0.1", nginx.port()}, "GET / HTTP/1.0\r\n\r\n"); });
  const auto depth = [&] {
    std::vector<bench::ListeningSocket> found;
    const std::uint16_t port = nginx.port();
    bench::SocketDiag().listeners(found, std::span(&port, 1));
    return found.empty() ? 0U : found.front().depth;
  };
  EXPECT_TRUE(test::eventually([&] { return depth() == 1; }));
  const Outcome outcome = run({"--pid", nginx.pid_text(), "--backlog", "5"});
  EXPECT_EQ(outcome.status, 0) << outcome.errors;
  EXPECT_EQ(depth(), 1U);
  ::kill(worker, SIGCONT);
  guest.join();
  EXPECT_THAT(heard, HasSubstr("hello"));
}

TEST_F(Retune, SurvivesAReloadOfNginxUnlessItsConfigurationSaysAnotherNumber) {
  // As tools/RUNNING-SERVERS.md says: nginx listens again only on sockets whose line has changed.
  const Nginx nginx({.reuseport = true});
  ASSERT_READY(nginx);
  ASSERT_EQ(run({"--pid", nginx.pid_text(), "--backlog", "1024"}).status, 0);
  nginx.reload({.reuseport = true});
  EXPECT_EQ(nginx.backlogs(), (Backlogs{1024, 1024}));
  nginx.reload({.reuseport = true, .backlog = 2048});
  EXPECT_EQ(nginx.backlogs(), (Backlogs{2048, 2048}));
}

TEST_F(Retune, SaysThatSomaxconnClips) {
  if (!test::set_network_sysctl("/proc/sys/net/core/somaxconn", "600"))
    GTEST_SKIP() << "no network namespace of our own to set somaxconn in";
  const Redis redis;
  ASSERT_READY(redis);
  expect_refused(
      run({"--pid", redis.pid_text(), "--backlog", "601"}),
      AllOf(HasSubstr("net.core.somaxconn is 600"), HasSubstr("sysctl -w net.core.somaxconn=601")));
  EXPECT_EQ(redis.backlogs(), (Backlogs{511, 511}));

  const Outcome clamped = run({"--pid", redis.pid_text(), "--backlog", "601", "--allow-clamp"});
  EXPECT_EQ(clamped.status, 0);
  EXPECT_THAT(clamped.output, HasSubstr("511 -> 600"));
  EXPECT_THAT(clamped.errors, AllOf(HasSubstr("somaxconn"), HasSubstr("sysctl -w net.core.somaxconn=601")));
  EXPECT_EQ(redis.backlogs(), (Backlogs{600, 600}));
  EXPECT_EQ(run({"--pid", redis.pid_text(), "--backlog", "600"}).errors, "") << "that much it allows";
  ASSERT_TRUE(test::set_network_sysctl("/proc/sys/net/core/somaxconn", "4096"));
}

TEST_F(Retune, RefusesWhatItCannotDoWithOneLine) {
  const Nginx nginx;
  const Redis redis;
  ASSERT_READY(nginx);
  ASSERT_READY(redis);
  const std::string nobodys_port = std::to_string(test::free_port());
  pid_t ended = 0;
  {
    Program program({"/bin/true"});
    program.wait(kPatience);
    ended = program.pid();
  }
  const std::string me = std::to_string(::getpid());
  const std::vector<std::pair<std::vector<std::string>, testing::Matcher<std::string>>> cases = {
      {{"--pid", std::to_string(ended), "--backlog", "64"}, HasSubstr("no process " + std::to_string(ended))},
      {{"--pid", nginx.pid_text(), "--port", redis.port_text(), "--backlog", "64"},
       AllOf(HasSubstr("nginx"), HasSubstr("does not listen on port " + redis.port_text()),
             HasSubstr(nginx.port_text()))},
      {{"--pid", redis.pid_text(), "--port", nobodys_port, "--backlog", "64"}, HasSubstr(redis.port_text())},
      {{"--port", nobodys_port, "--backlog", "64"}, HasSubstr("nobody listens on port " + nobodys_port)},
      {{"--backlog", "64"}, AllOf(HasSubstr("--pid"), HasSubstr("--port"))},
      {{"--pid", nginx.pid_text()}, HasSubstr("--backlog")},
      {{"--pid", "x", "--backlog", "64"}, HasSubstr("--pid")},
      {{"--pid", "0", "--backlog", "64"}, HasSubstr("--pid")},
      {{"--pid", nginx.pid_text(), "--backlog", "-1"}, HasSubstr("--backlog")},
      {{"--pid", nginx.pid_text(), "--backlog", "many"}, HasSubstr("--backlog")},
      {{"--port", "65536", "--backlog", "64"}, HasSubstr("--port")},
      {{"--pid", nginx.pid_text(), "--backlog", "64", "--json", "/nowhere/at/all"},
       HasSubstr("/nowhere/at/all")},
      {{"--pid", nginx.pid_text(), "--backlog", "64", "--dry-run", "--until-exit"}, HasSubstr("--dry-run")},
  };
  for (const auto& [words, what] : cases) {
    SCOPED_TRACE(words.at(1));
    expect_refused(run(words), what);
  }
  EXPECT_EQ(nginx.backlogs(), Backlogs{511});
  EXPECT_EQ(redis.backlogs(), (Backlogs{511, 511}));
}

TEST_F(Retune, NamesTheFamilyOfAPidThatListensNowhere) {
  Program sleeper({"/bin/sleep", "60"});
  expect_refused(run({"--pid", std::to_string(sleeper.pid()), "--backlog", "64"}),
                 AllOf(HasSubstr("sleep"), HasSubstr("listens on no TCP port")));
}

TEST_F(Retune, AsksForARightThatItHasNot) {
  const Redis redis;
  ASSERT_READY(redis);
  const auto become_nobody = [] {
    constexpr unsigned kNobody = 65534;
    if (::setgroups(0, nullptr) != 0 || ::setresgid(kNobody, kNobody, kNobody) != 0 ||
        ::setresuid(kNobody, kNobody, kNobody) != 0 || ::access(kAnteroom.c_str(), X_OK) != 0)
      ::_exit(77);
  };
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"--pid", redis.pid_text(), "--backlog", "64"},
        std::vector<std::string>{"--port", redis.port_text(), "--backlog", "64"}}) {
    const Outcome outcome = run(words, become_nobody);
    if (outcome.status == 77) GTEST_SKIP() << "cannot become another user, or he may not run the tool";
    expect_refused(outcome, HasSubstr("sudo"));
  }
  EXPECT_EQ(redis.backlogs(), (Backlogs{511, 511}));
}

TEST_F(Retune, GoesToTheNetworkNamespaceOfTheServer) {
  if (!test::has_own_network) GTEST_SKIP() << "no network namespaces here";
  const Nginx nginx({.is_elsewhere = true});
  ASSERT_READY(nginx);
  expect_refused(run({"--port", nginx.port_text(), "--backlog", "64"}), HasSubstr("nobody listens"));
  const Outcome outcome = run({"--pid", nginx.pid_text(), "--backlog", "64"});
  EXPECT_EQ(outcome.status, 0) << outcome.errors;
  EXPECT_EQ(nginx.backlogs(), Backlogs{64});
}

/// One that has changed it to 64, and waits.
std::vector<std::string> until_exit(const RealServer& server) {
  return retune({"--pid", server.pid_text(), "--backlog", "64", "--until-exit"});
}

TEST_F(Retune, PutsItBackWhenItIsEnded) {
  const Nginx nginx({.reuseport = true});
  ASSERT_READY(nginx);
  for (const int signal : {SIGINT, SIGTERM}) {
    Program program(until_exit(nginx));
    ASSERT_THAT(program.read_line(), HasSubstr("511 -> 64")) << program.errors;
    EXPECT_EQ(nginx.backlogs(), (Backlogs{64, 64}));
    program.signal(signal);
    EXPECT_EQ(program.wait(kPatience), 0) << program.errors;
    EXPECT_EQ(nginx.backlogs(), (Backlogs{511, 511})) << "after signal " << signal;
  }
}

TEST_F(Retune, PutsItBackWhenItIsKilled) {
  const Redis redis;
  ASSERT_READY(redis);
  Program program(until_exit(redis));
  ASSERT_THAT(program.read_line(), HasSubstr("511 -> 64")) << program.errors;
  ASSERT_EQ(redis.backlogs(), (Backlogs{64, 64}));
  program.signal(SIGKILL);
  EXPECT_EQ(program.wait(kPatience), 128 + SIGKILL);
  EXPECT_TRUE(test::eventually([&] { return redis.backlogs() == Backlogs{511, 511}; }, kPatience));
}

TEST_F(Retune, PutsItBackWhenItsWholeSessionIsKilled) {
  // A terminal that is closed, or a job that is killed, takes the process group along.
  const Redis redis;
  ASSERT_READY(redis);
  Program program(until_exit(redis), [] { ::setpgid(0, 0); });
  ASSERT_THAT(program.read_line(), HasSubstr("511 -> 64")) << program.errors;
  ASSERT_EQ(::kill(-program.pid(), SIGKILL), 0);
  EXPECT_EQ(program.wait(kPatience), 128 + SIGKILL);
  EXPECT_TRUE(test::eventually([&] { return redis.backlogs() == Backlogs{511, 511}; }, kPatience));
}

TEST_F(Retune, IsRefusedWhileAnotherOneHasYetToPutBack) {
  const Redis redis;
  ASSERT_READY(redis);
  Program program(until_exit(redis));
  ASSERT_THAT(program.read_line(), HasSubstr("511 -> 64")) << program.errors;
  expect_refused(run({"--pid", redis.pid_text(), "--backlog", "1024"}), HasSubstr("another anteroom"));
  expect_refused(run({"--pid", redis.pid_text(), "--backlog", "1024", "--until-exit"}),
                 HasSubstr("another anteroom"));
  EXPECT_EQ(redis.backlogs(), (Backlogs{64, 64}));
  program.signal(SIGTERM);
  EXPECT_EQ(program.wait(kPatience), 0) << program.errors;
  EXPECT_EQ(redis.backlogs(), (Backlogs{511, 511}));
}

TEST_F(Retune, SaysWhatItCouldNotPutBack) {
  const Redis redis;
  ASSERT_READY(redis);
  Program program(until_exit(redis));
  ASSERT_THAT(program.read_line(), HasSubstr("511 -> 64")) << program.errors;
  if (!test::set_network_sysctl("/proc/sys/net/core/somaxconn", "128"))
    GTEST_SKIP() << "needs a network of its own";
  program.signal(SIGTERM);
  EXPECT_EQ(program.wait(kPatience), 1);
  ASSERT_TRUE(test::set_network_sysctl("/proc/sys/net/core/somaxconn", "4096"));
  EXPECT_THAT(program.errors, AllOf(HasSubstr("is 128 and was 511"), HasSubstr("somaxconn=511")));
  EXPECT_THAT(program.output, testing::Not(HasSubstr("put back")));
}

TEST_F(Retune, LeavesWhatAReloadHasSetMeanwhile) {
  const Nginx nginx;
  ASSERT_READY(nginx);
  Program program(until_exit(nginx));
  ASSERT_THAT(program.read_line(), HasSubstr("511 -> 64")) << program.errors;
  nginx.reload({.backlog = 2048});
  EXPECT_EQ(nginx.backlogs(), Backlogs{2048});
  program.signal(SIGTERM);
  EXPECT_EQ(program.wait(kPatience), 1);
  EXPECT_THAT(program.errors, HasSubstr("2048 by somebody else"));
  EXPECT_EQ(nginx.backlogs(), Backlogs{2048});
}

TEST_F(Retune, ChangesNothingThatItCannotTell) {
  const Redis redis;
  ASSERT_READY(redis);
  const Outcome outcome = run({"--pid", redis.pid_text(), "--backlog", "64"},
                              [] { ::dup2(::open("/dev/full", O_WRONLY), STDOUT_FILENO); });
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.errors, HasSubstr("nothing was changed"));
  EXPECT_EQ(redis.backlogs(), (Backlogs{511, 511}));
}

TEST_F(Retune, HasAGuardianThatGoesByAnotherName) {
  const Redis redis;
  ASSERT_READY(redis);
  Program program(until_exit(redis));
  ASSERT_THAT(program.read_line(), HasSubstr("511 -> 64")) << program.errors;
  std::ifstream children("/proc/" + std::to_string(program.pid()) + "/task/" + std::to_string(program.pid()) +
                         "/children");
  pid_t guardian = 0;
  ASSERT_TRUE(children >> guardian);
  for (const char* const file : {"/comm", "/cmdline"}) {
    const auto named = [&] {
      std::ifstream text("/proc/" + std::to_string(guardian) + file);
      const std::string name{std::istreambuf_iterator<char>(text), {}};
      return name.starts_with("backlog-guard") && name.find("anteroom") == std::string::npos;
    };
    EXPECT_TRUE(test::eventually(named)) << file;
  }
}

TEST_F(Retune, EndsWithItsServerAndLeavesThePortFree) {
  Nginx nginx({.reuseport = true});
  ASSERT_READY(nginx);
  Program program(until_exit(nginx));
  ASSERT_THAT(program.read_line(), HasSubstr("511 -> 64")) << program.errors;
  ASSERT_THAT(program.read_line(), HasSubstr("511 -> 64")) << program.errors;
  nginx.stop();
  const Nginx again({.port = nginx.port()});
  EXPECT_TRUE(again.ready()) << "the port is free at once: " << again.errors();
  EXPECT_EQ(program.wait(kPatience), 1);
  EXPECT_EQ(lines(program.errors), 1) << program.errors;
  EXPECT_THAT(program.errors, HasSubstr("nginx"));
  EXPECT_EQ(again.backlogs(), Backlogs{511}) << "who came after is none of ours";
}

}  // namespace
}  // namespace anteroom::tool
