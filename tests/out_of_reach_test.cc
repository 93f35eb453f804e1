// What the tool says of servers that it cannot see or cannot touch: the reason has to be the right one.
#include <anteroom/bench/processes.h>
#include <anteroom/bench/socket_diag.h>
#include <gmock/gmock.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/own_network.h"
#include "support/peer.h"
#include "support/program.h"
#include "support/real_servers.h"
#include "support/sanitized.h"

namespace anteroom::tool {
namespace {

using namespace std::chrono_literals;
using test::Program;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using Json = nlohmann::json;
using Words = std::vector<std::string>;

const std::string kAnteroom = PROGRAMS "/anteroom";
const std::string kHelloServer = PROGRAMS "/hello_server";
constexpr int kNotPossible = 77;  // of what a test prepares: then it is skipped

struct Outcome {
  int status;
  std::string output;
  std::string errors;
};

Outcome run(const std::string& line, const std::function<void()>& prepare = {}) {
  Words words = test::words_of(line);
  words.insert(words.begin(), kAnteroom);
  Program program(std::move(words), prepare);
  const int status = program.wait(60s);
  return {status, program.output, program.errors};
}

/// One line, and no blame for what is all right.
void expect_refused(const Outcome& outcome, const testing::Matcher<const std::string&>& why, int status = 2) {
  EXPECT_EQ(outcome.status, status) << outcome.output << outcome.errors;
  EXPECT_THAT(outcome.errors, why);
  EXPECT_EQ(std::ranges::count(outcome.errors, '\n'), 1) << outcome.errors;
}

std::uint32_t backlog_at(std::uint16_t port) {
  std::vector<bench::ListeningSocket> listeners;
  bench::SocketDiag().listeners(listeners, std::span(&port, 1));
  return listeners.empty() ? 0 : listeners.front().limit;
}

/// A server in a process of its own, which has `work` done first.
class Server {
 public:
  explicit Server(const std::function<void()>& prepare = {}) : program_({kHelloServer, "0"}, prepare) {
    port_ = program_.read_port();
  }
  std::uint16_t port() const { return port_; }
  std::string port_text() const { return std::to_string(port_); }
  std::string pid_text() const { return std::to_string(program_.pid()); }
  std::string at() const { return "127.0.0.1:" + port_text(); }

 private:
  Program program_;
  std::uint16_t port_ = 0;
};

// ---- What is prepared in the child ----

void need(bool is_done) {
  if (!is_done) ::_exit(kNotPossible);
}

/// That system call fails with `error`, whatever it is about.
void forbid(long call, int error) {
  std::array<sock_filter, 4> filter{
      {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
       BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(call), 0, 1),
       BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(error)),
       BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)}};
  const sock_fprog program{.len = filter.size(), .filter = filter.data()};
  need(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  need(::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

/// Root, as in a container: what is not in the bounding set is gone after execve(2) (capabilities(7)).
void drop(int capability) { need(::geteuid() == 0 && ::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0); }

void become_nobody() {
  constexpr unsigned kNobody = 65534;
  need(::setgroups(0, nullptr) == 0 && ::setresgid(kNobody, kNobody, kNobody) == 0 &&
       ::setresuid(kNobody, kNobody, kNobody) == 0 && ::access(kAnteroom.c_str(), X_OK) == 0);
}

void mount_own(const char* what, const char* options) {
  need(::unshare(CLONE_NEWNS) == 0 && ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
       ::mount(what, "/proc", what, 0, options) == 0);
}

/// The program runs in a PID namespace of its own, and sees the /proc of this one.
void enter_own_pids() {
  need(::unshare(CLONE_NEWPID) == 0);
  const pid_t child = ::fork();
  if (child == 0) return;
  int status = 0;
  ::waitpid(child, &status, 0);
  ::_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

#define SKIP_WHERE_NOT_POSSIBLE(outcome) \
  if ((outcome).status == kNotPossible) GTEST_SKIP() << "not possible with the rights of this test"

class OutOfReach : public testing::Test {
 protected:
  void SetUp() override {
    if (!test::has_own_network) GTEST_SKIP() << "needs a network of its own";
    if (!test::may_reach_into_processes())
      GTEST_SKIP() << "no process may take a descriptor from another here (pidfd_getfd(2))";
  }
};

// ---- A process whose first thread has ended ----

/// Listens with a backlog of 5, serves in its second thread, and has no first one any more.
class Headless {
 public:
  explicit Headless(bool is_elsewhere = false) {
    std::array<int, 2> ready{};
    if (::pipe2(ready.data(), O_CLOEXEC) != 0) return;
    pid_ = ::fork();
    if (pid_ == 0) {
      if (is_elsewhere && (::unshare(CLONE_NEWNET) != 0 || !test::bring_loopback_up())) ::_exit(kNotPossible);
      serve(ready[1]);
    }
    ::close(ready[1]);
    std::array<int, 2> told{};
    if (::read(ready[0], told.data(), sizeof(told)) == static_cast<ssize_t>(sizeof(told))) {
      port_ = static_cast<std::uint16_t>(told[0]);
      thread_ = told[1];
    }
    ::close(ready[0]);
  }
  ~Headless() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  Headless(const Headless&) = delete;

  /// Once the kernel shows a zombie.
  bool is_ready() const {
    return port_ != 0 && test::eventually([this] {
             std::ifstream file("/proc/" + std::to_string(pid_) + "/stat");
             const std::string stat{std::istreambuf_iterator<char>(file), {}};
             return stat.find(") Z ") != std::string::npos;
           });
  }
  std::string pid_text() const { return std::to_string(pid_); }
  std::string thread_text() const { return std::to_string(thread_); }
  std::string port_text() const { return std::to_string(port_); }
  std::uint16_t port() const { return port_; }

 private:
  [[noreturn]] static void serve(int ready) {
    const Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const Endpoint any("127.0.0.1", 0);
    if (::bind(socket.get(), any.data(), any.size()) != 0 || ::listen(socket.get(), 5) != 0) ::_exit(1);
    std::thread([&, ready] {
      const std::array<int, 2> told{local_endpoint(socket.get()).port(),
                                    static_cast<int>(::syscall(SYS_gettid))};
      (void)!::write(ready, told.data(), sizeof(told));
      for (;;) {
        const Fd client(::accept4(socket.get(), nullptr, nullptr, SOCK_CLOEXEC));
        if (client) (void)::send(client.get(), "Hello World!", 12, MSG_NOSIGNAL);
      }
    }).detach();
    ::syscall(SYS_exit, 0);  // this thread; exit(3) would end all
    ::abort();
  }

  pid_t pid_ = -1;
  pid_t thread_ = -1;
  std::uint16_t port_ = 0;
};

/// Its sockets are reached through another thread since Linux 6.9.
bool kernel_reaches_threads() {
  const Fd self(static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), O_EXCL)));
  return static_cast<bool>(self);
}

TEST_F(OutOfReach, IsNoServerWhoseMainThreadHasEnded) {
  const Headless server;
  ASSERT_TRUE(server.is_ready());
  int backlog = 20;
  for (const std::string& which :
       {"--pid " + server.pid_text(), "--port " + server.port_text(),
        "--pid " + server.pid_text() + " --port " + server.port_text(), "--pid " + server.thread_text()}) {
    const Outcome outcome = run("retune " + which + " --backlog " + std::to_string(++backlog));
    if (!kernel_reaches_threads()) {
      expect_refused(outcome, AllOf(HasSubstr("the first thread of"), HasSubstr("Linux 6.9")));
      continue;
    }
    EXPECT_EQ(outcome.status, 0) << which << ": " << outcome.errors;
    EXPECT_THAT(outcome.output, HasSubstr("(pid " + server.pid_text() + ")")) << which;
    EXPECT_EQ(backlog_at(server.port()), static_cast<std::uint32_t>(backlog)) << which;
  }
}

TEST_F(OutOfReach, IsNoServerWhoseMainThreadHasEndedForWatch) {
  const Headless server;
  ASSERT_TRUE(server.is_ready());
  for (const std::string& pid : {server.pid_text(), server.thread_text()}) {
    const Outcome outcome = run("watch --for 50ms --json - --pid " + pid);
    ASSERT_EQ(outcome.status, 0) << outcome.errors;
    EXPECT_THAT(outcome.output, HasSubstr("127.0.0.1:" + server.port_text()));
    EXPECT_THAT(outcome.output, HasSubstr(server.pid_text())) << "whose it is";
  }
}

TEST_F(OutOfReach, IsNoServerWhoseMainThreadHasEndedForTune) {
  const Headless server;
  ASSERT_TRUE(server.is_ready());
  const Outcome outcome =
      run("tune --greeting --clients 40 --rate 1k --patience 300ms --backlog 16 --repeat 1 --pid " +
          server.pid_text());
  if (!kernel_reaches_threads()) {
    expect_refused(outcome, HasSubstr("Linux 6.9"));
  } else {
    EXPECT_TRUE(outcome.status == 0 || outcome.status == 3) << outcome.status << outcome.errors;
  }
  EXPECT_EQ(backlog_at(server.port()), 5U) << "put back";
}

TEST_F(OutOfReach, IsNoServerWhoseMainThreadHasEndedInAnotherNetwork) {
  if (test::kIsThreadSanitized) GTEST_SKIP() << "a thread of the sanitizer's stays in the network of before";
  const Headless server(true);
  if (server.port() == 0) GTEST_SKIP() << "no network namespaces here";
  ASSERT_TRUE(server.is_ready());
  const Outcome outcome = run("watch --for 50ms --pid " + server.pid_text());
  EXPECT_EQ(outcome.status, 0) << outcome.errors;
  EXPECT_THAT(outcome.output, HasSubstr("127.0.0.1:" + server.port_text()));
}

TEST_F(OutOfReach, IsAProcessThatHasEndedAndWasNotWaitedFor) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  siginfo_t ended{};
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOWAIT), 0);
  for (const std::string command : {"retune --backlog 5", "watch --for 50ms", "tune --greeting"})
    expect_refused(run(command + " --pid " + std::to_string(child)), HasSubstr("it is a zombie"));
  ::waitpid(child, nullptr, 0);
  expect_refused(run("watch --for 50ms --pid " + std::to_string(child)), HasSubstr("there is no process"));
}

TEST_F(OutOfReach, IsNothingForTheIdOfAThread) {
  const pid_t child = ::fork();  // which has two threads
  if (child == 0) {
    const Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (::listen(socket.get(), 5) != 0) ::_exit(1);
    std::thread([] { ::pause(); }).detach();
    ::pause();
    ::_exit(0);
  }
  pid_t thread = 0;
  EXPECT_TRUE(test::eventually([&] {
    for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(child) + "/task"))
      thread = std::max(thread, std::stoi(entry.path().filename()));
    return thread != child;
  }));
  const Outcome outcome = run("retune --backlog 9 --pid " + std::to_string(thread));
  EXPECT_EQ(outcome.status, 0) << outcome.errors;
  EXPECT_THAT(outcome.output, HasSubstr("(pid " + std::to_string(child) + ")"));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
}

// ---- Rights ----

TEST_F(OutOfReach, IsAServerForRootWithoutTheCapabilityWhoIsNotToldToBecomeRoot) {
  const Server server;
  for (const std::string& command :
       {"retune --backlog 5 --pid " + server.pid_text(), "retune --backlog 5 --port " + server.port_text(),
        "tune --greeting --pid " + server.pid_text(), "watch --for 50ms --pid " + server.pid_text()}) {
    const Outcome outcome = run(command, [] { drop(CAP_SYS_PTRACE); });
    SKIP_WHERE_NOT_POSSIBLE(outcome);
    expect_refused(outcome, AllOf(HasSubstr("--cap-add=SYS_PTRACE"), Not(HasSubstr("run this as root"))));
  }
  EXPECT_EQ(backlog_at(server.port()), 4096U);
}

TEST_F(OutOfReach, IsAServerForRootOfAUserNamespaceWhoIsNotToldToBecomeRoot) {
  const Server server;
  const Outcome outcome = run("retune --backlog 5 --port " + server.port_text(), [] {
    const std::string map = "0 " + std::to_string(::getuid()) + " 1";
    need(::unshare(CLONE_NEWUSER) == 0 && test::write_file("/proc/self/uid_map", map));
  });
  SKIP_WHERE_NOT_POSSIBLE(outcome);
  expect_refused(outcome, AllOf(HasSubstr("user namespace"), Not(HasSubstr("run this as root"))));
}

TEST_F(OutOfReach, IsAServerOfAnotherUserForWhoCanBecomeRoot) {
  const Server server;
  for (const std::string command : {"retune --backlog 5 --pid ", "watch --for 50ms --pid "}) {
    const Outcome outcome = run(command + server.pid_text(), become_nobody);
    SKIP_WHERE_NOT_POSSIBLE(outcome);
    expect_refused(outcome, AllOf(HasSubstr("another user"), HasSubstr("sudo")));
  }
}

TEST_F(OutOfReach, IsAServerOfTheSameUserThatIsNotDumpable) {
  if (const std::string scope = "/proc/sys/kernel/yama/ptrace_scope"; std::filesystem::exists(scope)) {
    char value = '0';
    std::ifstream(scope) >> value;
    if (value != '0') GTEST_SKIP() << "Yama says no first";
  }
  const pid_t child = ::fork();
  if (child == 0) {
    become_nobody();  // whoever changes its user is no longer dumpable (prctl(2))
    const Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (::listen(socket.get(), 5) != 0) ::_exit(1);
    for (;;) ::pause();
  }
  EXPECT_TRUE(test::eventually([&] {
    std::ifstream file("/proc/" + std::to_string(child) + "/status");
    const std::string status{std::istreambuf_iterator<char>(file), {}};
    return status.find("Uid:\t65534") != std::string::npos || ::waitpid(child, nullptr, WNOHANG) == child;
  }));
  const Outcome outcome = run("retune --backlog 5 --pid " + std::to_string(child), become_nobody);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  SKIP_WHERE_NOT_POSSIBLE(outcome);
  expect_refused(outcome, AllOf(HasSubstr("is yours"), HasSubstr("not dumpable")));
}

// ---- /proc ----

TEST_F(OutOfReach, IsEveryProcessWithoutProcAndNoServerIsBlamed) {
  if (test::kIsSanitized) GTEST_SKIP() << "a sanitizer reads /proc/self/maps";
  const Server server;
  for (const std::string& command :
       {"retune --backlog 5 --pid " + server.pid_text(), "retune --backlog 5 --port " + server.port_text(),
        "tune --greeting --port " + server.port_text(), "watch --for 50ms --pid " + server.pid_text()}) {
    const Outcome outcome = run(command, [] { mount_own("tmpfs", nullptr); });
    SKIP_WHERE_NOT_POSSIBLE(outcome);
    expect_refused(outcome, AllOf(HasSubstr("/proc is not mounted"), Not(HasSubstr("there is no process"))));
  }
}

TEST_F(OutOfReach, IsNoReasonToBlameAServerForCountersThatCannotBeRead) {
  if (test::kIsSanitized) GTEST_SKIP() << "a sanitizer reads /proc/self/maps";
  const auto hide_proc = [] { mount_own("tmpfs", nullptr); };
  for (const std::string command :
       {"tune --clients 50 --rate 1k --backlog 16 --repeat 1", "compare --clients 50 --rate 1k --repeat 1"}) {
    const Outcome outcome = run(command, hide_proc);
    SKIP_WHERE_NOT_POSSIBLE(outcome);
    expect_refused(outcome, AllOf(HasSubstr("counters"), HasSubstr("/proc is not mounted")), 1);
  }
  const Server server;
  const Outcome swarm =
      run("swarm " + server.at() + " --greeting --clients 20 --rate 200 --json -", hide_proc);
  ASSERT_TRUE(swarm.status == 0 || swarm.status == 3) << swarm.errors;
  const Json json = Json::parse(swarm.output);
  EXPECT_EQ(json.at("target").at("listeners"), 0);
  EXPECT_EQ(json.at("rows")[0].at("listen_drops"), nullptr) << "nobody has counted";
  EXPECT_THAT(json.at("notes").dump(), HasSubstr("/proc is not mounted"));
}

TEST_F(OutOfReach, IsEveryProcessThroughTheProcOfAnotherPidNamespace) {
  const Server server;
  for (const std::string& command :
       {"retune --backlog 5 --pid " + server.pid_text(), "retune --backlog 5 --port " + server.port_text()}) {
    const Outcome outcome = run(command, enter_own_pids);
    SKIP_WHERE_NOT_POSSIBLE(outcome);
    expect_refused(outcome, HasSubstr("another PID namespace"));
  }
  const Outcome watched = run("watch --for 50ms --pid " + server.pid_text(), enter_own_pids);
  EXPECT_EQ(watched.status, 0) << "to look takes no number of a process: " << watched.errors;
}

TEST_F(OutOfReach, IsAProcessThatProcHides) {
  const Server server;
  for (const std::string& command :
       {"retune --backlog 5 --pid " + server.pid_text(), "watch --for 50ms --pid " + server.pid_text()}) {
    const Outcome outcome = run(command, [] {
      mount_own("proc", "hidepid=2");
      become_nobody();
    });
    SKIP_WHERE_NOT_POSSIBLE(outcome);
    expect_refused(outcome, AllOf(HasSubstr("hidepid"), HasSubstr("sudo"), Not(HasSubstr("no process"))));
  }
}

// ---- Filters of system calls ----

TEST_F(OutOfReach, IsAServerWhereAFilterForbidsTheCallsAndNotTheServer) {
  const Server server;
  for (const auto& [call, name] :
       {std::pair(SYS_pidfd_getfd, "pidfd_getfd(2)"), {SYS_pidfd_open, "pidfd_open(2)"}}) {
    for (const int error : {EPERM, ENOSYS}) {
      for (const std::string command : {"retune --backlog 5 --pid ", "tune --greeting --pid "}) {
        const Outcome outcome = run(command + server.pid_text(), [&, call = call] { forbid(call, error); });
        SKIP_WHERE_NOT_POSSIBLE(outcome);
        expect_refused(outcome, AllOf(HasSubstr("seccomp"), HasSubstr(name), Not(HasSubstr("another user"))));
      }
    }
  }
  EXPECT_EQ(backlog_at(server.port()), 4096U);
}

TEST_F(OutOfReach, IsNoServerThatIsBlamedForAForbiddenGetsockopt) {
  const Server server;
  for (const int error : {EPERM, ENOSYS, EACCES}) {
    for (const std::string& command : {"swarm " + server.at() + " --greeting --clients 10",
                                       std::string("tune --clients 50 --rate 1k --backlog 16 --repeat 1"),
                                       std::string("compare --clients 50 --rate 1k --repeat 1"),
                                       "tune --greeting --pid " + server.pid_text(),
                                       "retune --backlog 9 --pid " + server.pid_text()}) {
      const Outcome outcome = run(command, [&] { forbid(SYS_getsockopt, error); });
      SKIP_WHERE_NOT_POSSIBLE(outcome);
      expect_refused(outcome,
                     AllOf(HasSubstr("getsockopt(2)"), HasSubstr("seccomp"), Not(HasSubstr("firewall"))), 1);
    }
  }
}

// ---- Packet filters ----

/// Has iptables(8) or nft(8) redirect one port of 127.0.0.1 to another, in this test's network.
bool redirect(std::uint16_t from, std::uint16_t to) {
  const std::string from_text = std::to_string(from);
  const std::string to_text = std::to_string(to);
  const auto run_all = [](const std::vector<Words>& commands) {
    return std::ranges::all_of(commands, [](Words words) {
      words.front() = test::installed(words.front());
      if (words.front().empty()) return false;
      Program program(std::move(words));
      return program.wait(10s) == 0;
    });
  };
  return run_all(
             {{"nft", "add", "table", "ip", "anteroom"},
              {"nft", "add", "chain", "ip", "anteroom", "out", "{ type nat hook output priority -100 ; }"},
              {"nft", "add", "rule", "ip", "anteroom", "out", "tcp", "dport", from_text, "redirect", "to",
               ":" + to_text}}) ||
         run_all({{"iptables", "-t", "nat", "-A", "OUTPUT", "-p", "tcp", "-d", "127.0.0.1", "--dport",
                   from_text, "-j", "REDIRECT", "--to-ports", to_text}});
}

TEST_F(OutOfReach, IsTheListenerOfAPortThatAPacketFilterRedirects) {
  const Server shown;   // that nobody reaches
  const Server server;  // that serves them
  if (!redirect(shown.port(), server.port())) GTEST_SKIP() << "needs nft or iptables, with NAT";
  const std::string directory =
      std::filesystem::temp_directory_path() / ("anteroom-reach-" + std::to_string(::getpid()));
  const Outcome swarm =
      run("swarm " + shown.at() + " --greeting --clients 30 --rate 200 --json " + directory + ".json");
  EXPECT_TRUE(swarm.status == 0 || swarm.status == 3) << swarm.errors;
  std::string words = swarm.output;
  std::ranges::replace(words, '\n', ' ');
  EXPECT_THAT(words, HasSubstr("which a packet filter redirects to " + server.at() + " (hello_server, pid " +
                               server.pid_text() + ")"));
  const Json target = Json::parse(std::ifstream(directory + ".json")).at("target");
  std::filesystem::remove(directory + ".json");
  EXPECT_EQ(target.at("redirected_to"), server.at());
  EXPECT_EQ(std::to_string(target.at("pid").get<int>()), server.pid_text());
  expect_refused(run("tune --greeting --port " + shown.port_text()),
                 AllOf(HasSubstr("redirects " + shown.at() + " to " + server.at()),
                       HasSubstr("--port " + server.port_text())));
}

}  // namespace
}  // namespace anteroom::tool
