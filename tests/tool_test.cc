// The command line, run as users run it.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "output.h"
#include "report/documents.h"
#include "support/own_network.h"
#include "support/program.h"
#include "table.h"

namespace anteroom::tool {
namespace {

using namespace std::chrono_literals;
using test::processes_with;
using test::Program;
using Json = nlohmann::json;

const std::string kAnteroom = PROGRAMS "/anteroom";

struct Outcome {
  int status;
  std::string output;
  std::string errors;
};

Outcome run(std::vector<std::string> words, std::chrono::milliseconds patience = 60s) {
  words.insert(words.begin(), kAnteroom);
  Program program(std::move(words));
  const int status = program.wait(patience);
  return {status, program.output, program.errors};
}
Outcome run(const std::string& line) { return run(test::words_of(line)); }

/// A measurement on a machine that was too busy to be sure of it ends well, too.
bool is_measured(const Outcome& outcome) { return outcome.status == 0 || outcome.status == 3; }

/// A directory of the test's own.
class Tool : public testing::Test {
 protected:
  Tool() : directory_(std::filesystem::temp_directory_path() / ("anteroom-" + std::to_string(::getpid()))) {
    std::filesystem::create_directory(directory_);
  }
  ~Tool() override { std::filesystem::remove_all(directory_); }
  std::string path(const std::string& name) const { return (directory_ / name).string(); }

 private:
  std::filesystem::path directory_;
};

/// In one line, and before anything is done.
void expect_refused(const std::string& line, const std::string& said) {
  const Outcome outcome = run(test::words_of(line), 10s);
  EXPECT_EQ(outcome.status, 2) << line;
  EXPECT_EQ(outcome.output, "");
  EXPECT_NE(outcome.errors.find(said), std::string::npos) << outcome.errors;
  EXPECT_EQ(std::count(outcome.errors.begin(), outcome.errors.end(), '\n'), 1) << outcome.errors;
}

TEST_F(Tool, RefusesBadInputWithOneLineAndStatusTwo) {
  constexpr std::pair<const char*, const char*> kCases[] = {
      {"frobnicate", "no command frobnicate"},
      {"tunee", "Did you mean tune?"},
      {"tune --bakclog 5", "Did you mean --backlog?"},
      {"tune --clients 0", "--clients"},
      {"tune --clients 1.5", "a whole number"},
      {"tune --clients -5", "--clients"},
      {"tune --clients 1e99", "--clients"},
      {"tune --clients", "--clients"},
      {"tune --backlog abc", "--backlog"},
      {"tune --backlog 1,,2", "--backlog"},
      {"tune --backlog 5..1", "--backlog"},
      {"tune --rate nan", "--rate"},
      {"tune --rate 0", "--rate"},
      {"tune --burst --rate 5", "needs a number of clients with --rate"},
      {"tune --burst 5@1s", "--burst"},
      {"tune --burst 5 --clients 7", "say one of them"},
      {"tune --arrival burst", "steady, poisson, on-off, ramp"},
      {"tune --handler sleep:5ms", "--handler"},
      {"tune --sysctl kernel.panic=1", "--sysctl"},
      {"tune --target-loss 150%", "--target-loss"},
      {"tune --until 0", "--until"},
      {"tune --fail-if lost~3", "--fail-if"},
      {"tune --profile /nowhere/at/all.json", "cannot read /nowhere/at/all.json"},
      {"tune --json - --csv -", "only one of them"},
      {"tune --report /nowhere/at/all.html", "cannot write /nowhere/at/all.html"},
      {"compare --loop round", "--loop"},
      {"compare --servers reactor,apache", "--servers"},
      {"report /nowhere/at/all.json", "cannot read /nowhere/at/all.json"},
      {"diff /nowhere/at/all.json -", "cannot read /nowhere/at/all.json"},
      {"tune --stall 5", "such as 100ms"},
      {"tune --stall-every 10ms --rate 100", "--stall-every"},
      {"tune --server apache", "reactor, accept-one, reactors, blocking, threads, pool"},
      {"tune --seed -1", "--seed"},
      {"tune --rate ''", "--rate: is empty"},
      {"tune --backlog 64,", "--backlog"},
      {"tune --stall 2s --patience 1s", "longer than the stall"},
      {"tune --repeat 0", "--repeat"},
      {"tune --json /nowhere/at/all.json", "cannot write /nowhere/at/all.json: No such file or directory"},
      {"compare --server reactor", "compare takes no --server"},
      {"''", "there is no command \"\""},
      {"tune --json --csv x", "--json needs a value"},
      {"tune --json=--csv", "--json needs a value"},
      {"tune --json a --json b", "--json is given twice"},
      {"report -o a --output=b c", "--output is given twice"},
      {"tune --burst=", "--burst: is empty"},
      {"tune --burst ''", "--burst: is empty"},
      {"tune --rate 5 --burst 5@", "\"5@\" is not a number of clients"},
      {"tune --burst x --clients 7", "\"x\" is not a number"},
      {"tune --rate 5 --burst 5 --arrival ramp", "\"ramp\" is not of use with --burst"},
      {"tune --on 5ms", "\"5ms\" is not of use but with --arrival on-off"},
      {"tune --off 5ms", "--off: \"5ms\" is not of use but with --arrival on-off"},
      {"tune --within 200ms", "at most half of the 250ms"},
      {"tune --rate 5 --burst 5 --within 251ms", "at most half of the 500ms"},
      {"tune --stall 59s", "--stall: \"59s\" is not short enough"},
      {"tune --stall 1us --stall-every 999us", "a millisecond or more"},
      {"tune --rtt 900ms", "below 900ms"},
      {"tune --loss 51%", "from 0 to 0.5"},
      {"tune --threads 5", "but with --server pool or reactors"},
      {"compare --flows 5", "of use without --loop closed"},
      {"compare --fail-if recommended>5", "a compare recommends nothing"},
      {"compare --backlog 5 --fail-if lost@6>0", "backlog 6 is none of those that are tried"},
      {"tune --backlog 5 --fail-if lost@6>0", "backlog 6 is none of those that are tried"},
      {"report a.json --csv x -o y", "--output says nothing"},
      {"report a.json --fail-if lost>0 -o y", "--output says nothing"},
      {"tune --profile /", "cannot read /: Is a directory"},
      {"tune --profile -", "the standard input"},
  };
  for (const auto& [line, said] : kCases) expect_refused(line, said);
  const Outcome two_lines = run({"tune", "--sysctl", "net.ipv4.tcp_syncookies=0\nrate=5"});
  EXPECT_EQ(two_lines.status, 2);
  EXPECT_NE(two_lines.errors.find("--sysctl"), std::string::npos) << two_lines.errors;
  expect_refused("tune --json " + path("one") + " --csv " + path("./one"), "are one file");
  expect_refused("compare --csv " + path("one") + " --report " + path("one"), "are one file");
}

TEST_F(Tool, DoesNotWriteOverWhatItReads) {
  const std::string text = test::tune_run().dump();
  const std::string file = path("run.html"), link = path("link");
  std::ofstream(file) << text;
  std::filesystem::create_symlink(file, link);
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"report", file},
                                             {"report", file, "-o", file},
                                             {"report", file, "--csv", link},
                                             {"report", link, "-o", file},
                                             {"diff", file, file, "--json", link},
                                             {"tune", "--profile", file, "--json", link}}) {
    const Outcome outcome = run(words, 10s);
    EXPECT_EQ(outcome.status, 2) << words.back();
    EXPECT_EQ(std::count(outcome.errors.begin(), outcome.errors.end(), '\n'), 1) << outcome.errors;
    std::stringstream now;
    now << std::ifstream(file).rdbuf();
    EXPECT_EQ(now.str(), text) << outcome.errors;
  }
  EXPECT_EQ(run({"report", file, "-o", "/nowhere/at/all.html"}).status, 2);
  EXPECT_EQ(run({"diff", file, file, "--json", "/nowhere/at/all.json"}).status, 2);
}

TEST_F(Tool, AsksAboutAPipeWithoutOpeningIt) {
  const std::string pipe = path("pipe");
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_EQ(output_problem(pipe), "");  // to open it for writing would wait for a reader
  EXPECT_EQ(output_problem(path("")), "cannot write " + path("") + ": Is a directory");
}

TEST_F(Tool, HoldsNoRuleAgainstARunThatIsNotToBeTrusted) {
  const std::string file = path("run.json");
  const auto judged = [&](const Json& run_as_changed, const std::string& rule) {
    std::ofstream(file) << run_as_changed;
    return run({"report", file, "--fail-if", rule});
  };
  const Json good = Json::parse(test::tune_run().dump());
  EXPECT_EQ(judged(good, "lost@768>50%").status, 0) << judged(good, "lost@768>50%").errors;
  Json interrupted = good, unknown = good, unconfirmed = good;
  interrupted["interrupted"] = true;
  unknown["recommended"] = nullptr;
  unconfirmed["advice"]["confirmed"] = false;
  for (const Json& bad : {interrupted, unknown, unconfirmed}) {
    const Outcome outcome = judged(bad, "lost@768>50%");
    EXPECT_EQ(outcome.status, 3);
    EXPECT_EQ(std::count(outcome.errors.begin(), outcome.errors.end(), '\n'), 1) << outcome.errors;
    EXPECT_EQ(judged(bad, "lost@128>0").status, 4);
  }
}

TEST_F(Tool, PrintsItsHelpAndItsVersion) {
  const Outcome nothing = run("");
  EXPECT_EQ(nothing.status, 2);
  EXPECT_NE(nothing.errors.find("tune"), std::string::npos);
  const Outcome help = run("tune --help");
  EXPECT_EQ(help.status, 0);
  EXPECT_NE(help.output.find("Examples:"), std::string::npos);
  EXPECT_NE(run("compare --help").output.find("reactor,accept-one,reactors,blocking,threads,pool"),
            std::string::npos)
      << "all of them, unless some are named";
  EXPECT_NE(run("--version").output.find('.'), std::string::npos);
}

TEST_F(Tool, TunesAndWritesWhatItFoundAsJson) {
  const std::string file = path("out.json");
  const Outcome outcome =
      run("tune --rate 2000 --clients 400 --stall 100ms --patience 200ms --backlog 16,1k --repeat 3 --seed 7 "
          "--json " +
          file);
  ASSERT_TRUE(is_measured(outcome)) << outcome.errors;
  EXPECT_EQ(outcome.errors, "") << "no progress where there is no terminal";
  EXPECT_NE(outcome.output.find(outcome.status == 0 ? "recommended backlog: " : "recommend"),
            std::string::npos)
      << outcome.output;
  EXPECT_EQ(outcome.output.find('\x1b'), std::string::npos);

  const Json json = Json::parse(std::ifstream(file));
  EXPECT_EQ(json.at("schema"), "anteroom.tune/2");
  EXPECT_EQ(json.at("seed"), 7);
  EXPECT_EQ(json.at("command").get<std::string>().find("json"), std::string::npos)
      << "or who repeats it would write over this";
  EXPECT_EQ(json.at("interrupted"), false);
  // The stall needs 200. On a busy machine, where runs differ more, numbers between those of the grid are
  // tried.
  const Json& recommended = json.at("recommended");
  EXPECT_TRUE(outcome.status == 3 || (recommended >= 200 && recommended <= 1000)) << recommended;
  std::set<std::string> backlogs;
  for (const Json& trial : json.at("trials")) {
    const Json& backlog = trial.at("backlog");
    backlogs.insert(backlog.dump());
    EXPECT_TRUE(backlog.is_null() || (backlog >= 16 && backlog <= 1000)) << backlog;
    EXPECT_EQ(trial.at("clients"), 400);
    std::uint64_t fates = 0;
    for (const Json& count : trial.at("fates")) fates += count.get<std::uint64_t>();
    EXPECT_EQ(fates, 400U);
    EXPECT_TRUE(trial.at("balanced").get<bool>()) << trial.at("problems");
    EXPECT_TRUE(trial.at("void").is_boolean());
    EXPECT_GT(trial.at("connections_per_second").get<double>(), 0);
    for (const char* field : {"lost_first_syn", "listener_drops", "deepest_queue"}) {
      EXPECT_TRUE(trial.at(field).is_number_unsigned() || trial.at(field).is_number_integer()) << field;
    }
    EXPECT_TRUE(trial.at("backlog") != 16 || trial.at("deepest_queue") == 17) << trial.at("deepest_queue");
  }
  for (const char* backlog : {"16", "1000", "null"}) EXPECT_TRUE(backlogs.contains(backlog)) << backlog;
  EXPECT_TRUE(outcome.status == 3 || backlogs.contains(recommended.dump())) << recommended;
}

TEST_F(Tool, PrintsOnlyTheNumberWhenQuiet) {
  const Outcome outcome = run("tune --rate 1000 --clients 100 --stall 20ms --backlog 512 --repeat 3 --quiet");
  ASSERT_TRUE(is_measured(outcome)) << outcome.errors;
  const bool has_number = outcome.output.find_first_of("0123456789") == 0;
  EXPECT_TRUE(has_number || outcome.status == 3) << outcome.output;
  EXPECT_EQ(outcome.output.find_first_not_of("0123456789"),
            has_number ? outcome.output.size() - 1 : std::string::npos)
      << outcome.output;
  EXPECT_EQ(outcome.errors, "");
}

TEST_F(Tool, WritesNothingButJsonToTheStandardOutputWhenAskedTo) {
  const Outcome outcome =
      run("compare --rate 1000 --clients 100 --stall 0s --backlog 512 --repeat 1 --servers reactor,pool "
          "--json -");
  const Json json = Json::parse(outcome.output);
  EXPECT_EQ(json.at("schema"), "anteroom.compare/2");
  std::set<std::string> servers;
  for (const Json& trial : json.at("trials")) servers.insert(trial.at("server").get<std::string>());
  EXPECT_EQ(servers, (std::set<std::string>{"reactor", "pool"}));
  EXPECT_GE(json.at("comparisons").size(), 1U);
}

TEST_F(Tool, EndsWithWhatItHasWhenInterrupted) {
  const std::string file = path("partial.json");
  Program program({kAnteroom, "tune", "--rate", "1000", "--clients", "100", "--stall", "0s", "--patience",
                   "200ms", "--repeat", "1000", "--json", file});
  EXPECT_NE(program.read_line().find("anteroom tune"), std::string::npos);
  // Each trial has a host of its own: with the third of them two are over.
  std::set<pid_t> hosts;
  const auto give_up = std::chrono::steady_clock::now() + 20s;
  while (hosts.size() < 3 && std::chrono::steady_clock::now() < give_up) {
    for (const pid_t host : test::children_of(program.pid())) hosts.insert(host);
    std::this_thread::sleep_for(1ms);
  }
  program.signal(SIGINT);
  EXPECT_EQ(program.wait(10s), 130) << program.errors;
  const Json json = Json::parse(std::ifstream(file));
  EXPECT_EQ(json.at("interrupted"), true);
  EXPECT_GE(json.at("trials").size(), 2U);
  EXPECT_LT(json.at("trials").size(), 1000U);
}

TEST_F(Tool, LeavesNoProcessBehindHoweverItEnds) {
  for (const int signal : {SIGINT, SIGTERM, SIGKILL}) {
    const std::string file = path("ended-by-" + std::to_string(signal));
    Program program(
        {kAnteroom, "tune", "--rate", "1000", "--stall", "0s", "--repeat", "1000", "--csv", file});
    program.read_line();
    const auto give_up = std::chrono::steady_clock::now() + 20s;
    while (processes_with(file) < 4 && std::chrono::steady_clock::now() < give_up)
      std::this_thread::sleep_for(1ms);  // until a trial is under way: host, server and swarm
    EXPECT_GE(processes_with(file), 4);
    program.signal(signal);
    program.wait(10s);
    while (processes_with(file) > 0 && std::chrono::steady_clock::now() < give_up)
      std::this_thread::sleep_for(1ms);
    EXPECT_EQ(processes_with(file), 0) << "after signal " << signal;
  }
}

/// A run that is over soon, in which backlog 16 turns most away and 512 nobody.
std::vector<std::string> short_run(const std::vector<std::string>& more) {
  std::vector<std::string> words = test::words_of(
      "tune --rate 2000 --clients 200 --stall 50ms --patience 100ms --backlog 16,512 --repeat 2 -q");
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

TEST_F(Tool, WritesATableAndAPageAndReadsItsOwnRunsAgain) {
  const std::string json = path("run.json");
  const std::string csv = path("run.csv");
  const std::string page = path("run.html");
  const Outcome outcome = run(short_run({"--json", json, "--csv", csv, "--report", page, "--seed", "5"}));
  ASSERT_TRUE(is_measured(outcome)) << outcome.errors;
  std::string heading;
  std::getline(std::ifstream(csv), heading);
  EXPECT_NE(heading.find("lost_first_syn"), std::string::npos);
  EXPECT_GT(std::filesystem::file_size(page), 100'000U);

  const Outcome again = run({"report", json, "-o", path("again.html")});
  EXPECT_EQ(again.status, 0) << again.errors;
  EXPECT_EQ(again.output, path("again.html") + "\n");
  const auto text = [](const std::string& file) {
    std::stringstream all;
    all << std::ifstream(file).rdbuf();
    return all.str();
  };
  EXPECT_EQ(text(path("again.html")), text(page)) << "the same run is the same page";
  EXPECT_EQ(run({"report", json, "--csv", "-"}).output, text(csv));

  EXPECT_EQ(run({"report", json, "--fail-if", "lost@16>0"}).status, 4);
  EXPECT_NE(run({"report", json, "--fail-if", "p99@16>1us"}).errors.find("p99"), std::string::npos);
  // No load can break this one; but on a busy machine there may be no recommendation that one could trust.
  const int kept = run({"report", json, "--fail-if", "void>1000"}).status;
  EXPECT_TRUE(kept == 0 || (kept == 3 && outcome.status == 3)) << kept;

  const Outcome same = run({"diff", json, json});
  EXPECT_EQ(same.status, 0);
  EXPECT_EQ(same.output.find("worse"), std::string::npos) << same.output;
  EXPECT_EQ(Json::parse(run({"diff", json, json, "--json", "-"}).output).at("schema"), "anteroom.diff/1");

  const Json twice = Json::parse(run(short_run({"--json", "-", "--seed", "5"})).output);
  const Json once = Json::parse(std::ifstream(json));
  std::set<std::uint64_t> seeds_once;
  std::set<std::uint64_t> seeds_twice;
  for (const Json& trial : once.at("trials")) seeds_once.insert(trial.at("seed").get<std::uint64_t>());
  for (const Json& trial : twice.at("trials")) seeds_twice.insert(trial.at("seed").get<std::uint64_t>());
  // A slow machine makes trials void, which are tried again with further seeds of the same row.
  if (seeds_once.size() < seeds_twice.size()) seeds_once.swap(seeds_twice);
  EXPECT_TRUE(std::ranges::includes(seeds_once, seeds_twice)) << "one seed, one schedule";
  EXPECT_GE(seeds_twice.size(), 2U);
}

TEST_F(Tool, EndsWithFourIfTheRunBreaksARule) {
  const Outcome broken = run(short_run({"--fail-if", "lost@16>0"}));
  ASSERT_TRUE(broken.status == 4 || broken.status == 3) << broken.errors;
  if (broken.status == 4) {
    EXPECT_NE(broken.errors.find("at backlog 16"), std::string::npos) << broken.errors;
  }
  const Outcome kept = run(short_run({"--fail-if", "lost@512>0"}));
  EXPECT_TRUE(is_measured(kept)) << kept.errors;
}

TEST_F(Tool, TakesItsLoadFromAProfile) {
  const std::string file = path("profile.json");
  std::ofstream(file) << R"({"schema": "anteroom.profile/1", "for_s": 10, "rate": 1500, "dispersion": 2,
    "stalls": [{"at_s": 1, "length_s": 0.02}, {"at_s": 5, "length_s": 0.05}]})";
  const Outcome outcome = run("tune --backlog 1024 --repeat 1 --clients 300 --json - --profile " + file);
  const Json load = Json::parse(outcome.output).at("load");
  EXPECT_EQ(load.at("arrival"), "poisson");
  EXPECT_EQ(load.at("rate"), 1500);
  EXPECT_EQ(load.at("dispersion"), 2);
  EXPECT_DOUBLE_EQ(load.at("stall_s").get<double>(), 0.05);
  EXPECT_DOUBLE_EQ(load.at("stall_every_s").get<double>(), 1) << "an hour need not be waited out";
  const Outcome steady = run({"tune", "--profile", file, "--arrival", "steady"});
  EXPECT_NE(steady.errors.find("--arrival: \"steady\" is not poisson"), std::string::npos) << steady.errors;
  const Outcome burst = run({"tune", "--profile", file, "--burst"});
  EXPECT_NE(burst.errors.find("needs a number of clients with --profile"), std::string::npos) << burst.errors;
  for (const char* text :
       {"[]", "{", R"({"schema": "anteroom.tune/2"})", R"({"schema": "anteroom.profile/1"})",
        R"({"schema": "anteroom.profile/1", "rate": "fast"})",
        R"({"schema": "anteroom.profile/1", "rate": 5, "stalls": 7})",
        R"({"schema": "anteroom.profile/1", "rate": 5, "stalls": [{"length_s": -1}]})",
        R"({"schema": "anteroom.profile/1", "rate": 5, "stalls": [{"at_s": 1}]})",
        R"({"schema": "anteroom.profile/1", "rate": 5, "disperson": 2})",
        R"({"schema": "anteroom.profile/1", "rate": 5, "stalls": [{"length_s": 59}]})"}) {
    std::ofstream(file) << text;
    const Outcome refused = run({"tune", "--profile", file});
    EXPECT_EQ(refused.status, 2) << text;
    EXPECT_TRUE(refused.errors.find(file) != std::string::npos ||
                refused.errors.find("--profile") != std::string::npos)
        << refused.errors;
    EXPECT_EQ(std::count(refused.errors.begin(), refused.errors.end(), '\n'), 1) << refused.errors;
  }
}

/// Moves this process, a child that is about to become one of our programs, into a user namespace that may
/// have no network namespace of its own, as in many containers. False if that cannot be had.
bool enter_container(int flags) {
  const std::string map = "0 " + std::to_string(::getuid()) + " 1";
  return ::unshare(CLONE_NEWUSER | flags) == 0 && test::write_file("/proc/self/uid_map", map) &&
         test::write_file("/proc/sys/user/max_net_namespaces", "0");
}

Outcome run_in_a_container(std::vector<std::string> words) {
  words.insert(words.begin(), kAnteroom);
  Program program(std::move(words), [] {
    if (!enter_container(0)) ::_exit(77);
  });
  const int status = program.wait(60s);
  return {status, program.output, program.errors};
}

TEST_F(Tool, RunsWithoutNamespacesAndSaysWhatThatCosts) {
  const std::string file = path("shared.json");
  const Outcome outcome = run_in_a_container(short_run({"--json", file}));
  if (outcome.status == 77) GTEST_SKIP() << "no user namespace to do without others in";
  EXPECT_TRUE(is_measured(outcome)) << outcome.errors;
  const Json json = Json::parse(std::ifstream(file));
  EXPECT_EQ(json.at("network").at("kind"), "shared");
  EXPECT_NE(json.at("notes").dump().find("machine's own loopback"), std::string::npos) << json.at("notes");

  const Outcome refused = run_in_a_container(short_run({"--rtt", "10ms"}));
  EXPECT_EQ(refused.status, 1);
  EXPECT_NE(refused.errors.find("needs a private network"), std::string::npos) << refused.errors;
  EXPECT_EQ(refused.output, "");
}

TEST_F(Tool, SaysThatNoPortIsFree) {
  // A network with one local port, which the listener takes.
  Program program({kAnteroom, "tune", "--rate", "1000", "--clients", "50", "--stall", "20ms", "--backlog",
                   "64", "--repeat", "1"},
                  [] {
                    if (!enter_container(CLONE_NEWNET) || !test::bring_loopback_up() ||
                        !test::write_file("/proc/sys/net/ipv4/ip_local_port_range", "40000 40000"))
                      ::_exit(77);
                  });
  const int status = program.wait(60s);
  if (status == 77) GTEST_SKIP() << "no user namespace to take the ports of";
  EXPECT_EQ(status, 3) << program.output << program.errors;
  EXPECT_NE(program.output.find("ran out of local ports"), std::string::npos) << program.output;
  EXPECT_NE(program.output.find("ip_local_port_range"), std::string::npos) << "and what helps";
}

TEST_F(Tool, PlaysMoreClientsThanAProcessHasDescriptors) {
  Program program({"/usr/bin/prlimit", "--nofile=256:256", kAnteroom, "tune", "--burst", "1000", "--stall",
                   "50ms", "--backlog", "2048", "--repeat", "1", "--json", "-"});
  const int status = program.wait(60s);
  EXPECT_TRUE(status == 0 || status == 3) << program.errors;
  const Json json = Json::parse(program.output);
  for (const Json& trial : json.at("trials")) {
    EXPECT_EQ(trial.at("fates").at("no_descriptor"), 0);
    EXPECT_TRUE(trial.at("balanced").get<bool>()) << trial.at("problems");
  }
}

TEST_F(Tool, SaysThatTheDiskIsFullAndKeepsTheOldFile) {
  EXPECT_EQ(write_output("/dev/full", "text"), "cannot write /dev/full: No space left on device");
  const std::string file = path("old");
  EXPECT_EQ(write_output(file, "old"), "");
  EXPECT_EQ(write_output(file, "new"), "");
  std::string text;
  std::getline(std::ifstream(file), text);
  EXPECT_EQ(text, "new");
  EXPECT_EQ(output_problem(path("fresh")), "");
  EXPECT_FALSE(std::filesystem::exists(path("fresh"))) << "asking makes no file";
}

TEST(Table, DropsColumnsOnANarrowTerminalAndKeepsTheRowsInLine) {
  bench::Summary row{.scenario = {.backlog = 128}, .runs = 3};
  row.lost_first_syn = {.median = 0.148, .low = 0.148, .high = 0.148, .least = 0.148, .most = 0.148, .n = 3};
  row.ghosts = {.median = 3, .low = 0, .high = 11, .least = 0, .most = 11, .n = 3};
  row.first_byte.record(1500us);
  for (const int columns : {40, 60, 80, 100, 1000}) {
    Terminal terminal;
    terminal.columns = columns;
    const std::string table = tune_table({row, row}, 128, terminal);
    std::istringstream lines(table);
    std::size_t width = 0;
    for (std::string line; std::getline(lines, line);) {
      if (width == 0) width = line.size();
      EXPECT_EQ(line.size(), width);
      EXPECT_LE(line.size(), static_cast<std::size_t>(columns));
    }
    EXPECT_NE(table.find("14.8 %"), std::string::npos) << "the loss is the last to go";
    row.void_runs = 1;
    std::istringstream with_notes(tune_table({row, row}, 128, terminal));
    row.void_runs = 0;
    for (std::string line; std::getline(with_notes, line);)
      EXPECT_LE(line.size(), static_cast<std::size_t>(columns)) << line;
  }
}

TEST(Progress, HasNoEscapesOnADumbTerminal) {
  const int terminal = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  ASSERT_GE(terminal, 0);
  ASSERT_TRUE(::grantpt(terminal) == 0 && ::unlockpt(terminal) == 0);
  const std::string name = ::ptsname(terminal);
  for (const char* term : {"dumb", "xterm"}) {
    const int line = ::open(name.c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC);
    ASSERT_GE(line, 0);
    Program program({kAnteroom, "tune", "--rate", "500", "--clients", "50", "--stall", "0s", "--backlog",
                     "64", "--repeat", "1", "--csv", "-"},
                    [&] {
                      ::setenv("TERM", term, 1);
                      ::dup2(line, STDERR_FILENO);
                    });
    (void)program.wait(60s);
    ::ioctl(terminal, FIONBIO, std::array<int, 1>{1}.data());
    std::array<char, 65536> shown{};
    const ssize_t count = ::read(terminal, shown.data(), shown.size());
    const std::string text(shown.data(), static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
    EXPECT_EQ(text.find('\x1b') == text.npos, std::string(term) == "dumb") << text;
    ::close(line);
  }
  ::close(terminal);
}

TEST(Table, PrintsNumbersForPeople) {
  EXPECT_EQ(with_commas(0), "0");
  EXPECT_EQ(with_commas(999), "999");
  EXPECT_EQ(with_commas(1000), "1,000");
  EXPECT_EQ(with_commas(1234567), "1,234,567");
  EXPECT_EQ(share(0), "0");
  EXPECT_EQ(share(0.0001), "<0.1 %");
  EXPECT_EQ(share(0.148), "14.8 %");
  EXPECT_EQ(short_duration(1500us, {}), "1.50 ms");
  EXPECT_EQ(short_duration(87us, {}), "87.0 us");
  EXPECT_EQ(short_duration(7ns, {}), "7 ns");
  EXPECT_EQ(short_duration(1020ms, {}), "1.02 s");
}

}  // namespace
}  // namespace anteroom::tool
