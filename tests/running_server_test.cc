// Somebody else's listening sockets: found, changed, and put back. The other here is a child of the test.
#include <anteroom/bench/backlog_keeper.h>
#include <anteroom/bench/running_server.h>
#include <anteroom/listener.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/own_network.h"
#include "support/peer.h"

namespace anteroom::bench {
namespace {

using std::chrono::seconds;
using test::Peer;
using testing::AllOf;
using testing::HasSubstr;

/// A process that does something, says so, and waits to be ended.
class Other {
 public:
  enum Wait : bool { kNoWait, kWait };
  explicit Other(const std::function<void()>& work, Wait wait = kWait) {
    std::array<int, 2> ready{};
    if (::pipe(ready.data()) != 0) return;
    pid_ = ::fork();
    if (pid_ == 0) {
      work();
      (void)!::write(ready[1], "", 1);
      for (;;) ::pause();
    }
    ::close(ready[1]);
    char nothing = 0;
    if (wait == kWait) (void)!::read(ready[0], &nothing, 1);
    ::close(ready[0]);
  }
  Other(const Other&) = delete;
  Other& operator=(const Other&) = delete;
  ~Other() { end(); }

  void end() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(std::exchange(pid_, -1), nullptr, 0);
  }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
};

/// One that listens like this until it ends.
std::vector<Listener>& kept() {
  static std::vector<Listener> listeners;
  return listeners;
}
void listen_for_ever(const char* ip, std::uint16_t port, int backlog, bool reuse_port = false) {
  kept().emplace_back(Endpoint(ip, port), ListenerOptions{.backlog = backlog, .reuse_port = reuse_port});
}

std::vector<std::uint32_t> limits_of(std::uint16_t port) {
  std::vector<ListeningSocket> sockets;
  SocketDiag().listeners(sockets, std::span(&port, 1));
  std::vector<std::uint32_t> limits;
  for (const ListeningSocket& socket : sockets) limits.push_back(socket.limit);
  return limits;
}

/// Until `is_so`, which has to come.
bool await(const std::function<bool()>& is_so, seconds patience = seconds(10)) {
  const auto limit = std::chrono::steady_clock::now() + patience;
  while (!is_so()) {
    if (std::chrono::steady_clock::now() > limit) return false;
    std::this_thread::yield();
  }
  return true;
}

std::string why_not(std::optional<pid_t> pid, std::optional<std::uint16_t> port) {
  try {
    RunningServer server(pid, port);
    return "it was found";
  } catch (const TargetError& error) {
    return error.what();
  }
}

constexpr std::uint16_t kPort = 7001;

class RunningServerTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!test::has_own_network) GTEST_SKIP() << "needs a network of its own";
  }
};

TEST_F(RunningServerTest, IsFoundByItsPidOrByItsPort) {
  const Other other([] { listen_for_ever("127.0.0.1", kPort, 5); });
  const RunningServer by_pid(other.pid(), std::nullopt);
  const RunningServer by_port(std::nullopt, kPort);
  EXPECT_EQ(by_pid.port(), kPort);
  EXPECT_EQ(by_port.pid(), other.pid());
  EXPECT_EQ(by_pid.backlog(), 5);
  EXPECT_EQ(by_pid.address(), Endpoint("127.0.0.1", kPort));
}

TEST_F(RunningServerTest, GetsAnotherBacklogAndKeepsWhoWaits) {
  const Other other([] { listen_for_ever("127.0.0.1", kPort, 5); });
  const Peer guest({"127.0.0.1", kPort});
  RunningServer server(other.pid(), kPort);
  server.set_backlog(77);
  EXPECT_THAT(limits_of(kPort), testing::ElementsAre(77));
  std::vector<ListeningSocket> sockets;
  SocketDiag().listeners(sockets);
  EXPECT_EQ(sockets.at(0).depth, 1U);
  EXPECT_EQ(server.put_back(), "");
  EXPECT_THAT(limits_of(kPort), testing::ElementsAre(5));
}

TEST_F(RunningServerTest, HasAllSocketsOfAGroupOfItsChildrenAndOfBothFamilies) {
  const Other other([] {
    listen_for_ever("127.0.0.1", kPort, 5, true);
    listen_for_ever("127.0.0.1", kPort, 6, true);
    listen_for_ever("::1", kPort, 7);
    if (::fork() == 0) {
      kept().clear();
      listen_for_ever("127.0.0.1", kPort, 8, true);
      for (;;) ::pause();
    }
    await([] { return limits_of(kPort).size() == 4; });
  });
  // The child ends with its parent's group.
  RunningServer server(other.pid(), kPort);
  EXPECT_EQ(server.rooms().size(), 4U);
  server.set_backlog(20);
  EXPECT_THAT(limits_of(kPort), testing::Each(20));
  EXPECT_EQ(server.put_back(), "");
  EXPECT_THAT(limits_of(kPort), testing::UnorderedElementsAre(5, 6, 7, 8));
  for (const pid_t pid : server.processes()) {
    if (pid != other.pid()) ::kill(pid, SIGKILL);
  }
}

TEST_F(RunningServerTest, IsNotTheOneBesideItOnTheSamePort) {
  const Other one([] { listen_for_ever("127.0.0.1", kPort, 5); });
  const Other two([] { listen_for_ever("127.0.0.2", kPort, 6); });
  RunningServer server(one.pid(), kPort);
  server.set_backlog(20);
  EXPECT_THAT(limits_of(kPort), testing::UnorderedElementsAre(20, 6));
  EXPECT_THAT(why_not(std::nullopt, kPort), HasSubstr("--pid"));
}

TEST_F(RunningServerTest, IsCalledWhereOneCanReachIt) {
  const Other everywhere([] { listen_for_ever("0.0.0.0", kPort, 5); });
  EXPECT_EQ(RunningServer(everywhere.pid(), kPort).address(), Endpoint("127.0.0.1", kPort));
  const Other both([] { listen_for_ever("::", kPort + 1, 5); });
  EXPECT_EQ(RunningServer(both.pid(), kPort + 1).address(), Endpoint("127.0.0.1", kPort + 1));
  const Other six([] { listen_for_ever("::1", kPort + 2, 5); });
  EXPECT_EQ(RunningServer(six.pid(), kPort + 2).address(), Endpoint("::1", kPort + 2));
}

TEST_F(RunningServerTest, MayCallItselfAnything) {
  const Other other([] {
    ::prctl(PR_SET_NAME, "a\x1b[2J\xff");
    listen_for_ever("127.0.0.1", kPort, 5);
  });
  EXPECT_EQ(RunningServer(other.pid(), kPort).name(), "a?[2J?") << "what is shown on a terminal, and in JSON";
}

TEST_F(RunningServerTest, SaysWhyItIsNotFound) {
  Other ended([] {});
  const pid_t nobody = ended.pid();
  ended.end();
  EXPECT_THAT(why_not(nobody, kPort),
              AllOf(HasSubstr("there is no process"), HasSubstr("anteroom watch shows")));
  EXPECT_THAT(why_not(std::nullopt, kPort),
              AllOf(HasSubstr("nobody listens on port 7001"), HasSubstr("anteroom watch shows")));
  const Other deaf([] {});
  EXPECT_THAT(why_not(deaf.pid(), kPort),
              AllOf(HasSubstr("listens on no TCP port"), HasSubstr("anteroom watch shows")));
  const Other two([] {
    listen_for_ever("127.0.0.1", kPort, 5);
    listen_for_ever("127.0.0.1", kPort + 1, 5);
  });
  EXPECT_THAT(why_not(two.pid(), kPort + 2), HasSubstr("but on 7001, 7002"));
  EXPECT_THAT(why_not(two.pid(), std::nullopt), HasSubstr("say which with --port"));
}

TEST_F(RunningServerTest, IsGoneWhenItHasEnded) {
  Other other([] { listen_for_ever("127.0.0.1", kPort, 5); });
  RunningServer server(other.pid(), kPort);
  EXPECT_TRUE(server.is_there());
  other.end();
  EXPECT_FALSE(server.is_there());
  EXPECT_THROW(server.set_backlog(20), ServerGone);
  EXPECT_EQ(server.put_back(), "");  // nothing is left that could be
}

TEST_F(RunningServerTest, IsAnotherOneWhenItListensAnew) {
  const Other other([] {
    listen_for_ever("127.0.0.1", kPort, 5);
    ::signal(SIGUSR1, [](int) {
      kept().clear();
      listen_for_ever("127.0.0.1", kPort, 9);
    });
  });
  RunningServer server(other.pid(), kPort);
  ::kill(other.pid(), SIGUSR1);
  ASSERT_TRUE(await([] { return limits_of(kPort) == std::vector<std::uint32_t>{9}; }));
  EXPECT_THROW(server.set_backlog(20), ServerGone);
  EXPECT_THAT(limits_of(kPort), testing::ElementsAre(9));
}

TEST_F(RunningServerTest, LetsGoOfThePortWhenTheServerDoes) {
  Other other([] { listen_for_ever("127.0.0.1", kPort, 5); });
  RunningServer server(other.pid(), kPort);
  server.set_backlog(20);
  const BacklogKeeper keeper(server);
  other.end();
  EXPECT_NO_THROW(Listener(Endpoint("127.0.0.1", kPort), {}));
}

TEST_F(RunningServerTest, IsReachedInANetworkOfItsOwn) {
  const Other other([] {
    if (::unshare(CLONE_NEWNET) != 0 || !test::bring_loopback_up()) return;
    listen_for_ever("127.0.0.1", kPort, 5);
  });
  // The search moves there, and the rest of this test with it: so it does it in a child.
  const pid_t child = ::fork();
  if (child == 0) {
    int status = 1;
    try {
      RunningServer server(other.pid(), kPort);
      server.set_backlog(20);
      status = limits_of(kPort) == std::vector<std::uint32_t>{20} ? 0 : 2;
    } catch (const std::exception& error) {
      (void)!::write(STDERR_FILENO, error.what(), std::string_view(error.what()).size());
    }
    ::_exit(status);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST_F(RunningServerTest, IsNotForWhoMayNotTraceIt) {
  const Other other([] { listen_for_ever("127.0.0.1", kPort, 5); });
  const pid_t child = ::fork();
  if (child == 0) {
    // Without its capabilities root in a namespace of its own is nobody.
    if (::unshare(CLONE_NEWUSER) != 0) ::_exit(3);
    int status = 1;
    try {
      RunningServer server(other.pid(), kPort);
      server.check_rights();
    } catch (const TargetError& error) {
      const std::string_view why = error.what();
      status = why.find("root (sudo)") != std::string_view::npos ? 0 : 2;
      if (status != 0) (void)!::write(STDERR_FILENO, why.data(), why.size());
    }
    ::_exit(status);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  if (WEXITSTATUS(status) == 3) GTEST_SKIP() << "needs a user namespace to be nobody in";
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_THAT(limits_of(kPort), testing::ElementsAre(5));
}

TEST_F(RunningServerTest, MayListenByMultipathTcp) {
  const Other other(
      [] {
        const Fd socket(::socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP));
        const Endpoint door("127.0.0.1", kPort);
        if (!socket || ::bind(socket.get(), door.data(), door.size()) != 0 || ::listen(socket.get(), 5) != 0)
          return;
        for (;;) ::pause();
      },
      Other::kNoWait);
  if (!await([] { return limits_of(kPort).size() == 1; }, std::chrono::seconds(1)))
    GTEST_SKIP() << "this kernel has no MPTCP";
  RunningServer server(other.pid(), kPort);
  server.set_backlog(77);
  EXPECT_THAT(limits_of(kPort), testing::ElementsAre(77));
  EXPECT_EQ(server.put_back(), "");
  EXPECT_THAT(limits_of(kPort), testing::ElementsAre(5));
}

/// What the other does when it gets SIGUSR1.
void on_user_signal(void (*handler)(int)) { ::signal(SIGUSR1, handler); }

TEST_F(RunningServerTest, IsNotTakenForWhatHasItsDescriptorSince) {
  const Other other([] {
    listen_for_ever("127.0.0.1", kPort, 5);
    listen_for_ever("127.0.0.1", kPort + 1, 6);
    on_user_signal([](int) { ::dup2(kept()[1].fd(), kept()[0].fd()); });
  });
  const RunningServer server(other.pid(), kPort);
  ::kill(other.pid(), SIGUSR1);
  ASSERT_TRUE(await([] { return limits_of(kPort).empty(); }));
  EXPECT_THROW(server.set_backlog(20), ServerGone);
  EXPECT_THAT(limits_of(kPort + 1), testing::ElementsAre(6));
}

TEST_F(RunningServerTest, ThatListensNoMoreIsNotMadeToListenAgain) {
  const Other other([] {
    listen_for_ever("127.0.0.1", kPort, 5);
    on_user_signal([](int) { ::shutdown(kept()[0].fd(), SHUT_RDWR); });
  });
  const RunningServer server(other.pid(), kPort);
  ::kill(other.pid(), SIGUSR1);
  ASSERT_TRUE(await([] { return limits_of(kPort).empty(); }));
  EXPECT_THROW(server.set_backlog(20), ServerGone);
  EXPECT_THROW(server.check_rights(), ServerGone);
  EXPECT_THAT(limits_of(kPort), testing::IsEmpty());
}

class BacklogKeeperTest : public RunningServerTest {};

TEST_F(BacklogKeeperTest, IsNotKeptOutByAnAbstractNameThatAnybodyMayTake) {
  const Other other([] { listen_for_ever("127.0.0.1", kPort, 5); });
  RunningServer server(other.pid(), kPort);
  const Listener taken(Endpoint::unix_path("@anteroom-" + std::to_string(server.rooms().front().inode)));
  BacklogKeeper keeper(server);
  keeper.set_backlog(20);
  EXPECT_THAT(limits_of(kPort), testing::ElementsAre(20));
  EXPECT_EQ(keeper.put_back(), "");
}

TEST_F(BacklogKeeperTest, IsNotKeptOutByOneWhoMayNotTraceTheServer) {
  constexpr uid_t kNobody = 65534;
  const Other other([] { listen_for_ever("127.0.0.1", kPort, 5); });
  RunningServer server(other.pid(), kPort);
  const ServerRoom& room = server.rooms().front();
  const std::string info = "/proc/" + std::to_string(room.pid) + "/fdinfo/" + std::to_string(room.fd);
  const Other stranger([&info] {
    if (::setresuid(kNobody, kNobody, kNobody) != 0) ::_exit(1);
    const int file = ::open(info.c_str(), O_RDONLY);
    if (file >= 0) (void)::flock(file, LOCK_EX);
  });
  if (!is_alive(stranger.pid())) GTEST_SKIP() << "cannot become another user";
  EXPECT_NO_THROW(BacklogKeeper{server}.set_backlog(20));
}

TEST_F(BacklogKeeperTest, LetsAnotherPortOfTheSameProcessBeTuned) {
  const Other other([] {
    listen_for_ever("127.0.0.1", kPort, 5);
    listen_for_ever("127.0.0.1", kPort + 1, 6);
  });
  RunningServer one(other.pid(), kPort);
  RunningServer two(other.pid(), kPort + 1);
  BacklogKeeper first(one);
  BacklogKeeper second(two);
  first.set_backlog(20);
  second.set_backlog(21);
  EXPECT_THAT(limits_of(kPort), testing::ElementsAre(20));
  EXPECT_THAT(limits_of(kPort + 1), testing::ElementsAre(21));
}

TEST_F(BacklogKeeperTest, IsTheOnlyOneThoughTheServerIsFoundByAChild) {
  Other other([] {
    listen_for_ever("127.0.0.1", kPort, 5);
    if (::fork() == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      for (;;) ::pause();
    }
  });
  RunningServer by_parent(other.pid(), kPort);
  pid_t child = 0;
  ASSERT_TRUE(await([&] {
    for (const pid_t pid : all_processes()) child = parent_of(pid) == other.pid() ? pid : child;
    return child != 0;
  }));
  RunningServer by_child(child, kPort);
  {
    const BacklogKeeper first(by_parent);
    EXPECT_THROW((void)by_child.lock(), TargetError);
  }
  other.end();
  EXPECT_TRUE(await([] { return limits_of(kPort).empty(); })) << "the child has the port until it has ended";
}

TEST_F(BacklogKeeperTest, LeavesNoLockWhenItAndItsGuardianAreKilled) {
  const Other other([] { listen_for_ever("127.0.0.1", kPort, 5); });
  Other tuner([&other] {
    static RunningServer server(other.pid(), kPort);
    static const std::vector<Fd> locks = server.lock();
  });
  RunningServer server(other.pid(), kPort);
  EXPECT_THROW((void)server.lock(), TargetError);
  tuner.end();
  EXPECT_NO_THROW((void)server.lock());
}

TEST_F(BacklogKeeperTest, PutsBackAtItsEnd) {
  const Other other([] { listen_for_ever("127.0.0.1", kPort, 5); });
  RunningServer server(other.pid(), kPort);
  {
    BacklogKeeper keeper(server);
    keeper.set_backlog(20);
    EXPECT_THAT(limits_of(kPort), testing::ElementsAre(20));
  }
  EXPECT_THAT(limits_of(kPort), testing::ElementsAre(5));
}

TEST_F(BacklogKeeperTest, PutsBackWhenItsProcessIsKilled) {
  const Other other([] { listen_for_ever("127.0.0.1", kPort, 5); });
  Other tuner([&other] {
    static RunningServer server(other.pid(), kPort);
    static BacklogKeeper keeper(server);
    keeper.set_backlog(20);
  });
  EXPECT_THAT(limits_of(kPort), testing::ElementsAre(20));
  tuner.end();
  EXPECT_TRUE(await([] { return limits_of(kPort) == std::vector<std::uint32_t>{5}; }));
}

TEST_F(BacklogKeeperTest, IsTheOnlyOneOfItsServer) {
  const Other other([] { listen_for_ever("127.0.0.1", kPort, 5); });
  RunningServer server(other.pid(), kPort);
  {
    BacklogKeeper first(server);
    first.set_backlog(20);
    RunningServer again(other.pid(), kPort);
    EXPECT_THROW(BacklogKeeper{again}, TargetError);
    EXPECT_THROW((void)again.lock(), TargetError);
    EXPECT_THAT(limits_of(kPort), testing::ElementsAre(20));
  }
  EXPECT_THAT(limits_of(kPort), testing::ElementsAre(5));
  EXPECT_NO_THROW((void)server.lock());
}

TEST_F(BacklogKeeperTest, LeavesWhatSomebodyElseHasSetMeanwhile) {
  const Other other([] { listen_for_ever("127.0.0.1", kPort, 5); });
  RunningServer server(other.pid(), kPort);
  BacklogKeeper keeper(server);
  keeper.set_backlog(20);
  server.set_backlog(300);  // as a reload would
  EXPECT_THAT(keeper.put_back(), HasSubstr("300 by somebody else"));
  EXPECT_THAT(limits_of(kPort), testing::ElementsAre(300));
}

TEST_F(BacklogKeeperTest, ChangesNoMoreWhatSomebodyElseHasSetMeanwhile) {
  const Other other([] { listen_for_ever("127.0.0.1", kPort, 5); });
  RunningServer server(other.pid(), kPort);
  BacklogKeeper keeper(server);
  keeper.set_backlog(20);
  server.set_backlog(300);  // as a reload would
  EXPECT_THROW(keeper.set_backlog(64), TargetError);
  EXPECT_THAT(limits_of(kPort), testing::ElementsAre(300));
  EXPECT_THAT(keeper.put_back(), HasSubstr("300 by somebody else"));
  EXPECT_THAT(limits_of(kPort), testing::ElementsAre(300));
}

TEST_F(BacklogKeeperTest, PutsBackThoughSomaxconnHasChangedMeanwhile) {
  constexpr const char* kSomaxconn = "/proc/sys/net/core/somaxconn";
  const Other other([] { listen_for_ever("127.0.0.1", kPort, 5); });
  for (const auto& [before, meanwhile] : {std::pair("100", "4096"), {"4096", "100"}}) {
    ASSERT_TRUE(test::set_network_sysctl(kSomaxconn, before));
    RunningServer server(other.pid(), kPort);
    BacklogKeeper keeper(server);
    ASSERT_TRUE(test::set_network_sysctl(kSomaxconn, meanwhile));
    keeper.set_backlog(-1);
    EXPECT_THAT(limits_of(kPort), testing::ElementsAre(100));
    keeper.set_backlog(-1);
    EXPECT_EQ(keeper.put_back(), "");
    EXPECT_THAT(limits_of(kPort), testing::ElementsAre(5));
  }
  ASSERT_TRUE(test::set_network_sysctl(kSomaxconn, "4096"));
}

TEST_F(BacklogKeeperTest, ChangesNothingIfItsGuardianCouldNotKnowWhenToPutBack) {
  const Other other([] { listen_for_ever("127.0.0.1", kPort, 5); });
  RunningServer server(other.pid(), kPort);
  rlimit before{};
  ::getrlimit(RLIMIT_NOFILE, &before);
  // For the lock and a pipe, and none for the guardian.
  std::array<int, 3> free{};
  for (int& each : free) each = ::dup(STDERR_FILENO);
  for (const int each : free) ::close(each);
  const rlimit few{.rlim_cur = static_cast<rlim_t>(free.back()) + 1, .rlim_max = before.rlim_max};
  ::setrlimit(RLIMIT_NOFILE, &few);
  EXPECT_THROW(BacklogKeeper{server}, TargetError);
  ::setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_NO_THROW(BacklogKeeper{server});
}

TEST_F(BacklogKeeperTest, RefusesWhatItCouldNotPutBack) {
  const Other other([] { listen_for_ever("127.0.0.1", kPort, 500); });
  ASSERT_TRUE(test::set_network_sysctl("/proc/sys/net/core/somaxconn", "100"));
  RunningServer server(other.pid(), kPort);
  EXPECT_THROW(BacklogKeeper{server}, TargetError);
  ASSERT_TRUE(test::set_network_sysctl("/proc/sys/net/core/somaxconn", "4096"));
}

}  // namespace
}  // namespace anteroom::bench
