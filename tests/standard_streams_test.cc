// Our programs with a standard stream that cannot be written: each ends with the status it documents.
#include <anteroom/bench/socket_diag.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "report/documents.h"
#include "support/own_network.h"
#include "support/peer.h"
#include "support/program.h"
#include "support/real_servers.h"

namespace anteroom {
namespace {

using namespace std::chrono_literals;
using test::Peer;
using test::Program;
using Words = std::vector<std::string>;

const std::string kPrograms = PROGRAMS "/";
constexpr int kInterrupted = 130;

/// What a stream may be that nothing can be written to. Runs in the child.
struct Broken {
  const char* name;
  void (*apply)(int fd);
};
constexpr std::array<Broken, 3> kBroken{{
    {"closed", [](int fd) { ::close(fd); }},
    {"full", [](int fd) { ::dup2(::open("/dev/full", O_WRONLY | O_CLOEXEC), fd); }},
    {"a pipe without a reader",
     [](int fd) {
       std::array<int, 2> pipe{};
       (void)!::pipe2(pipe.data(), O_CLOEXEC);
       ::dup2(pipe[1], fd);
     }},
}};

/// The statuses one of which is right: a run on a busy machine may be one that is not to be trusted.
struct Stage {
  std::string line;
  std::set<int> statuses;
};

Words command_of(const std::string& line) {
  Words words = test::words_of(line);
  words.front().insert(0, kPrograms);
  return words;
}

/// Runs each with that stream broken in each way.
void expect_statuses(int stream, const std::vector<Stage>& stages) {
  for (const Stage& stage : stages) {
    for (const Broken& broken : kBroken) {
      Program program(command_of(stage.line), [&] { broken.apply(stream); });
      const int status = program.wait(60s);
      EXPECT_TRUE(stage.statuses.contains(status)) << stage.line << " with descriptor " << stream << " "
                                                   << broken.name << ": status " << status << "\n"
                                                   << program.output << program.errors;
    }
  }
}

class StandardStreams : public testing::Test {
 protected:
  StandardStreams()
      : directory_(std::filesystem::temp_directory_path() /
                   ("anteroom-streams-" + std::to_string(::getpid()))) {
    std::filesystem::create_directory(directory_);
  }
  ~StandardStreams() override { std::filesystem::remove_all(directory_); }
  std::string path(const std::string& name) const { return (directory_ / name).string(); }
  /// A run that lost clients, as --json writes it.
  std::string write_run() const {
    std::ofstream(path("run.json")) << test::tune_run();
    return path("run.json");
  }

 private:
  std::filesystem::path directory_;
};

std::uint32_t backlog_at(std::uint16_t port) {
  std::vector<bench::ListeningSocket> listeners;
  bench::SocketDiag().listeners(listeners, std::span(&port, 1));
  return listeners.empty() ? 0 : listeners.front().limit;
}

/// Whether the process has a handler for that signal (proc(5)).
bool catches(pid_t pid, int signal) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  constexpr std::string_view kName = "SigCgt:";
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(kName))
      return (std::stoull(line.substr(kName.size()), nullptr, 16) >> (signal - 1) & 1) != 0;
  }
  return false;
}

TEST_F(StandardStreams, AreNoReasonForTheToolToAbortWhenStderrCannotBeWritten) {
  Program server({kPrograms + "hello_server", "0"});
  const std::string at = "127.0.0.1:" + std::to_string(server.read_port());
  const std::string closed = test::closed_endpoint().to_string();
  const std::string document = write_run();
  expect_statuses(
      STDERR_FILENO,
      {{"anteroom", {2}},
       {"anteroom frobnicate", {2}},
       {"anteroom --help", {0}},
       {"anteroom --version", {0}},
       {"anteroom tune --nosuch", {2}},
       {"anteroom tune --pid 999999999 --greeting", {2}},
       {"anteroom tune --report /nowhere/at/all.html", {2}},
       {"anteroom tune -q --clients 50 --rate 1k --backlog 4 --repeat 1 --patience 300ms", {0, 3}},
       {"anteroom compare --servers apache", {2}},
       {"anteroom swarm nonsense", {2}},
       {"anteroom swarm " + closed + " --greeting", {2}},
       {"anteroom swarm " + at + " --http / --clients 5 --patience 100ms", {2}},
       {"anteroom swarm " + at + " --greeting --clients 20 --rate 200 --fail-if p99>1ns", {3, 4}},
       {"anteroom retune --pid 999999999 --backlog 5", {2}},
       {"anteroom retune --port 1 --backlog 5", {2}},
       {"anteroom watch --port 1", {2}},
       {"anteroom watch --for 30ms --prometheus 0", {0}},
       {"anteroom watch --for 30ms --profile /nowhere/at/all.json --port 1", {2}},
       {"anteroom report /nowhere/at/all.json", {2}},
       {"anteroom report " + document + " --fail-if p99>0", {3, 4}},
       {"anteroom diff /nowhere/at/all.json -", {2}}});
  server.signal(SIGTERM);
  EXPECT_EQ(server.wait(10s), 0);
}

TEST_F(StandardStreams, AreNoReasonForAProgramToAbortWhenStderrCannotBeWritten) {
  Program server({kPrograms + "hello_server", "0"});
  const std::string port = std::to_string(server.read_port());
  const std::string closed = std::to_string(test::closed_endpoint().port());
  expect_statuses(STDERR_FILENO, {{"hello_server", {1}},
                                  {"hello_server " + port, {1}},
                                  {"hello_server --blocking " + port, {1}},
                                  {"echo_server", {1}},
                                  {"echo_server " + port, {1}},
                                  {"pool_server", {2}},
                                  {"pool_server 0 --threads x", {2}},
                                  {"pool_server " + port, {1}},
                                  {"hello_client", {1}},
                                  {"hello_client 127.0.0.1 " + closed, {1}},
                                  {"hello_client 127.0.0.1 " + port, {0}}});
  server.signal(SIGTERM);
  EXPECT_EQ(server.wait(10s), 0);
}

/// A result that was not written is no success.
TEST_F(StandardStreams, EndTheToolWithOneWhenItsResultCannotBeWritten) {
  Program server({kPrograms + "hello_server", "0"});
  const std::uint16_t port = server.read_port();
  const std::string swarm =
      "anteroom swarm 127.0.0.1:" + std::to_string(port) + " --greeting --clients 20 --rate 500";
  const std::string document = write_run();
  expect_statuses(STDOUT_FILENO, {{"anteroom --help", {1}},
                                  {"anteroom tune --help", {1}},
                                  {"anteroom --version", {1}},
                                  {"anteroom frobnicate", {2}},
                                  {"anteroom tune --clients 50 --rate 1k --backlog 4 --repeat 1", {1}},
                                  {"anteroom compare --clients 50 --rate 1k --repeat 1", {1}},
                                  {"anteroom watch --for 30ms", {1}},
                                  {"anteroom report " + document, {1}},
                                  {"anteroom diff " + document + " " + document, {1}},
                                  {swarm, {1}},
                                  {swarm + " -q", {1}}});
  EXPECT_EQ(backlog_at(port), 4096U);
  server.signal(SIGTERM);
  EXPECT_EQ(server.wait(10s), 0);
}

TEST_F(StandardStreams, AreLookedAtBeforeALongRunIsToWriteThere) {
  const std::string document = write_run();
  for (const std::string& line :
       {std::string("anteroom tune --json -"), std::string("anteroom compare --csv /dev/stdout"),
        std::string("anteroom watch --for 1h --json /dev/fd/1"), "anteroom report " + document + " --csv -",
        "anteroom diff " + document + " " + document + " --json /proc/self/fd/1"}) {
    Program program(command_of(line), [] { ::close(STDOUT_FILENO); });
    EXPECT_EQ(program.wait(20s), 2) << line;
    EXPECT_EQ(program.errors, "anteroom: cannot write the standard output: Bad file descriptor\n") << line;
  }
}

TEST_F(StandardStreams, DoNotKeepTheFilesFromBeingWritten) {
  Program server({kPrograms + "hello_server", "0"});
  const std::string at = "127.0.0.1:" + std::to_string(server.read_port());
  for (const Broken& broken : kBroken) {
    Program swarm(command_of("anteroom swarm " + at + " --greeting -q --clients 20 --rate 500 --json " +
                             path("swarm.json")),
                  [&] { broken.apply(STDOUT_FILENO); });
    EXPECT_EQ(swarm.wait(60s), 1) << broken.name;
    EXPECT_TRUE(nlohmann::json::parse(std::ifstream(path("swarm.json"))).contains("schema"));
    std::filesystem::remove(path("swarm.json"));
  }
}

TEST_F(StandardStreams, EndTheClientWithOneWhenTheMessageCannotBeWritten) {
  Program server({kPrograms + "hello_server", "0"});
  const std::string port = std::to_string(server.read_port());
  expect_statuses(STDOUT_FILENO, {{"hello_client 127.0.0.1 " + port, {1}},
                                  {"hello_client", {1}},
                                  {"hello_server", {1}},
                                  {"echo_server", {1}},
                                  {"pool_server", {2}},
                                  {"hello_server " + port, {1}}});
}

/// The first socket of a program gets the lowest number that is free.
TEST_F(StandardStreams, AreNoSocketsOfAServerThatWasStartedWithoutThem) {
  const std::uint16_t port = test::closed_endpoint().port();
  const Endpoint at("127.0.0.1", port);
  const rlimit few{.rlim_cur = 32, .rlim_max = 32};
  for (const std::string program :
       {"hello_server", "hello_server --blocking", "echo_server", "pool_server"}) {
    Program server(command_of(program + " " + std::to_string(port)), [&] {
      for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::close(fd);
      ::setrlimit(RLIMIT_NOFILE, &few);
    });
    ASSERT_TRUE(test::eventually([&] { return backlog_at(port) > 0; }, 20s)) << program;
    const bool echoes = program == "echo_server";
    if (echoes) {  // without a descriptor for the next client it says so
      std::vector<Peer> peers;
      for (int i = 0; i < 40; ++i) peers.emplace_back(at);
      std::vector<std::string> heard;
      ASSERT_TRUE(peers.front().send("hello"));
      EXPECT_TRUE(test::await_events(peers.front().fd(), POLLIN));
      for (Peer& peer : peers) peer.finish();
      for (Peer& peer : peers) heard.push_back(peer.receive_all());
      EXPECT_EQ(heard.front(), "hello");
      EXPECT_EQ(std::ranges::count(heard, ""), 39);
    } else {
      EXPECT_EQ(Peer(at).receive_all(), "Hello World!") << program;
      if (program == "pool_server") server.signal(SIGUSR1);  // it serves, so it takes signals: its metrics
      for (int i = 0; i < 3; ++i) EXPECT_EQ(Peer(at).receive_all(), "Hello World!") << program;
    }
    server.signal(SIGTERM);
    EXPECT_EQ(server.wait(20s), 0) << program;
  }
}

/// With messages that no one can read while it runs.
TEST_F(StandardStreams, DoNotEndAServerThatCannotReport) {
  const rlimit few{.rlim_cur = 32, .rlim_max = 32};
  for (const Broken& broken : kBroken) {
    Program server({kPrograms + "echo_server", "0"}, [&] {
      broken.apply(STDERR_FILENO);
      ::setrlimit(RLIMIT_NOFILE, &few);
    });
    const Endpoint at("127.0.0.1", server.read_port());
    std::vector<Peer> peers;
    for (int i = 0; i < 40; ++i) peers.emplace_back(at);
    for (Peer& peer : peers) {
      ASSERT_TRUE(peer.send("x"));
      peer.finish();
    }
    for (Peer& peer : peers) EXPECT_EQ(peer.receive_all(), "x") << broken.name;
    server.signal(SIGTERM);
    EXPECT_EQ(server.wait(20s), 0) << broken.name;
  }
}

// ---- The standard output by its other names ----

constexpr std::array<const char*, 4> kNamesOfTheOutput{"-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"};

TEST_F(StandardStreams, HaveNothingButTheDocumentUnderEveryNameOfTheOutput) {
  Program server({kPrograms + "hello_server", "0"});
  const std::uint16_t port = server.read_port();
  const std::string document = write_run();
  const std::string swarm =
      "anteroom swarm 127.0.0.1:" + std::to_string(port) + " --greeting --clients 20 --rate 500";
  for (const std::string name : kNamesOfTheOutput) {
    for (const std::string& line :
         {swarm, std::string("anteroom watch --for 30ms"), "anteroom diff " + document + " " + document}) {
      Program program(command_of(line + " --json " + name));
      const int status = program.wait(60s);
      EXPECT_TRUE(status == 0 || status == 3) << line << name << program.errors;
      EXPECT_TRUE(nlohmann::json::accept(program.output)) << line << name << "\n" << program.output;
    }
    Program table(command_of(swarm + " --csv " + name));
    (void)table.wait(60s);
    EXPECT_EQ(std::ranges::count(table.output, '\n'), 2) << name << table.output;
    Program page(command_of(swarm + " --report " + name));
    (void)page.wait(60s);
    EXPECT_TRUE(page.output.starts_with("<!")) << name << page.output.substr(0, 100);
    Program old(command_of("anteroom report " + document + " -o " + name));
    EXPECT_EQ(old.wait(60s), 0) << old.errors;
    EXPECT_TRUE(old.output.starts_with("<!")) << name << old.output.substr(0, 100);
  }
}

/// The shell has opened it already: to replace it would leave the text in a file without a name.
TEST_F(StandardStreams, HaveNothingButTheDocumentInTheFileToWhichTheyGo) {
  const std::string file = path("output");
  for (const std::string& name : {std::string("-"), std::string("/dev/stdout"), file}) {
    const Fd output(::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    Program program(command_of("anteroom watch --for 30ms --json " + name),
                    [&] { ::dup2(output.get(), STDOUT_FILENO); });
    EXPECT_EQ(program.wait(60s), 0) << program.errors;
    std::ifstream stream(file);
    const std::string written{std::istreambuf_iterator<char>(stream), {}};
    EXPECT_TRUE(nlohmann::json::accept(written)) << name << "\n" << written;
  }
}

TEST_F(StandardStreams, AreForOneDocumentUnderWhateverNames) {
  for (const std::string line :
       {"anteroom tune --json - --csv /dev/stdout", "anteroom tune --csv /dev/fd/1 --report -",
        "anteroom watch --port 1 --json /dev/stdout --profile -"}) {
    Program program(command_of(line));
    EXPECT_EQ(program.wait(20s), 2) << line;
    EXPECT_EQ(program.output, "") << line;
    EXPECT_EQ(std::ranges::count(program.errors, '\n'), 1) << program.errors;
  }
}

TEST_F(StandardStreams, AreNotEveryDeviceOfTheirKind) {
  Program server({kPrograms + "hello_server", "0"});
  Program swarm(command_of("anteroom swarm 127.0.0.1:" + std::to_string(server.read_port()) +
                           " --greeting --clients 20 --rate 500 --json /dev/null --csv /dev/null"),
                [] { ::dup2(::open("/dev/null", O_WRONLY | O_CLOEXEC), STDOUT_FILENO); });
  const int status = swarm.wait(60s);
  EXPECT_TRUE(status == 0 || status == 3) << swarm.errors;
}

// ---- A terminal that hangs up ----

TEST_F(StandardStreams, AreNotNeededForTheDocumentWhenTheTerminalHangsUp) {
  Program server({kPrograms + "hello_server", "0"});
  const std::string at = "127.0.0.1:" + std::to_string(server.read_port());
  for (const std::string& line :
       {"anteroom swarm " + at + " --greeting --rate 100 --for 1m", std::string("anteroom watch --for 1h"),
        std::string("anteroom tune --repeat 1000 --rate 1k --clients 100 --backlog 16"),
        std::string("anteroom compare --repeat 1000 --rate 1k --clients 100")}) {
    const std::string file = path("interrupted.json");
    Program program(command_of(line + " --json " + file));
    if (line.find("watch") == std::string::npos) {
      EXPECT_NE(program.read_line(), "") << "its heading";
    } else {  // which prints nothing before its end
      ASSERT_TRUE(test::eventually([&] { return catches(program.pid(), SIGHUP); }, 20s));
    }
    EXPECT_EQ(program.wait(300ms), -1) << line << program.errors;  // so that there is something to be written
    program.signal(SIGHUP);
    EXPECT_EQ(program.wait(60s), kInterrupted) << line << program.errors;
    ASSERT_TRUE(std::filesystem::exists(file)) << line;
    EXPECT_EQ(nlohmann::json::parse(std::ifstream(file)).at("interrupted"), true) << line;
    std::filesystem::remove(file);
  }
}

TEST_F(StandardStreams, MayHangUpOnWhatNohupStarted) {
  Program watch(command_of("anteroom watch --for 500ms"), [] { ::signal(SIGHUP, SIG_IGN); });
  EXPECT_EQ(watch.wait(100ms), -1);
  watch.signal(SIGHUP);
  EXPECT_EQ(watch.wait(20s), 0) << watch.errors;
}

class StandardStreamsAndAServer : public StandardStreams {
 protected:
  void SetUp() override {
    if (!test::may_reach_into_processes())
      GTEST_SKIP() << "no process may take a descriptor from another here (pidfd_getfd(2))";
  }
};

TEST_F(StandardStreamsAndAServer, KeepItsBacklogWhenTheChangeCannotBeReported) {
  Program server({kPrograms + "hello_server", "0"});
  const std::uint16_t port = server.read_port();
  const std::uint32_t before = backlog_at(port);
  const std::string line = "anteroom retune --port " + std::to_string(port) + " --backlog 7";
  expect_statuses(STDOUT_FILENO, {{line, {1}}, {line + " --until-exit", {1}}, {line + " --dry-run", {1}}});
  EXPECT_EQ(backlog_at(port), before);
}

TEST_F(StandardStreamsAndAServer, GiveItsBacklogBackWhenATuneLosesItsOutput) {
  Program server({kPrograms + "hello_server", "0"});
  const std::uint16_t port = server.read_port();
  const std::uint32_t before = backlog_at(port);
  const std::string line = "anteroom tune --port " + std::to_string(port) +
                           " --greeting --rate 1k --clients 100 --patience 300ms --backlog 16 --repeat 1";
  expect_statuses(STDOUT_FILENO, {{line, {1}}, {line + " -q", {1, 3}}});
  EXPECT_EQ(backlog_at(port), before);
  expect_statuses(STDERR_FILENO, {{line, {0, 3}}, {line + " --backlog 9999999", {2}}});
  EXPECT_EQ(backlog_at(port), before);

  // A reader that leaves in the middle, as `| head -1` does.
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe2(pipe.data(), O_CLOEXEC), 0);
  Fd reader(pipe[0]);
  Fd writer(pipe[1]);
  Program tune(command_of(line + " --json " + path("run.json")),
               [&] { ::dup2(writer.get(), STDOUT_FILENO); });
  writer.reset();
  char byte = 0;
  EXPECT_EQ(::read(reader.get(), &byte, 1), 1) << "the heading";
  reader.reset();
  EXPECT_EQ(tune.wait(60s), 1) << tune.errors;
  EXPECT_EQ(tune.errors, "anteroom: cannot write to the standard output\n");
  EXPECT_EQ(backlog_at(port), before);
  EXPECT_TRUE(nlohmann::json::parse(std::ifstream(path("run.json"))).contains("schema"));
}

}  // namespace
}  // namespace anteroom
