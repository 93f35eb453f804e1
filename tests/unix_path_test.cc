// Many that start at the same moment at one path: one of them gets it, and keeps it.
#include <anteroom/datagram_socket.h>
#include <anteroom/handover.h>
#include <anteroom/listener.h>
#include <anteroom/reactor.h>
#include <anteroom/socket.h>
#include <anteroom/unix_path.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <barrier>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <ostream>
#include <set>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "support/descriptors.h"
#include "support/own_network.h"
#include "support/peer.h"
#include "support/turns.h"

namespace anteroom {
namespace {

using namespace std::chrono_literals;
using namespace test;

class UnixPath : public testing::Test {
 protected:
  UnixPath() : folder_(testing::TempDir() + "unixpathXXXXXX") {
    if (::mkdtemp(folder_.data()) == nullptr) throw setup_error(last_error(), "mkdtemp", folder_);
  }
  ~UnixPath() override { std::filesystem::remove_all(folder_); }

  std::string folder() const { return folder_; }
  std::string path() const { return folder_ + "/path"; }
  std::string lock_path() const { return path() + ".anteroom-lock"; }
  Endpoint at() const { return Endpoint::unix_path(path()); }
  std::set<std::string> files() const {
    std::set<std::string> names;
    for (const auto& file : std::filesystem::directory_iterator(folder_))
      names.insert(file.path().filename().string());
    return names;
  }
  void leave_a_dead_socket(int type) const {
    const Fd dead(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
    const Endpoint endpoint = at();
    ASSERT_EQ(::bind(dead.get(), endpoint.data(), endpoint.size()), 0);
  }

 private:
  std::string folder_;
};

/// A server of one kind, in a thread of its own.
struct Starter {
  virtual ~Starter() = default;
  virtual void start(const Endpoint& at) = 0;
  /// Whether it gets what is sent to the path.
  virtual bool is_reached() = 0;
};

struct ListenerStarter final : Starter {
  void start(const Endpoint& at) override { listener.emplace(at); }
  bool is_reached() override {
    return Fd(::accept4(listener->fd(), nullptr, nullptr, SOCK_CLOEXEC)).get() >= 0;
  }
  std::optional<Listener> listener;
};

struct OfferStarter final : Starter {
  void start(const Endpoint& at) override {
    offer.emplace(
        reactor, at.path(),
        HandoverHandlers{.listeners = [] { return std::vector<OfferedListener>(); }, .handed_over = [] {}});
  }
  bool is_reached() override {
    turn_times(reactor, 3);
    return offer->is_taken();
  }
  Reactor reactor;
  std::optional<HandoverOffer> offer;
};

struct DatagramStarter final : Starter {
  void start(const Endpoint& at) override {
    socket.emplace(reactor, at, DatagramHandlers{.data = [this](const Datagram&) { is_told = true; }});
  }
  bool is_reached() override {
    turn_times(reactor, 3);
    return is_told;
  }
  bool is_told = false;
  Reactor reactor;
  std::optional<DatagramSocket> socket;
};

struct Kind {
  const char* name;
  int type;
  std::unique_ptr<Starter> (*make)();
};

template <class Of>
std::unique_ptr<Starter> make() {
  return std::make_unique<Of>();
}

void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.name; }

class StartersAtOnePath : public UnixPath, public testing::WithParamInterface<Kind> {};
INSTANTIATE_TEST_SUITE_P(Of, StartersAtOnePath,
                         testing::Values(Kind{"Listeners", SOCK_STREAM, make<ListenerStarter>},
                                         Kind{"Offers", SOCK_SEQPACKET, make<OfferStarter>},
                                         Kind{"Datagrams", SOCK_DGRAM, make<DatagramStarter>}),
                         [](const auto& kind) { return std::string(kind.param.name); });

TEST_P(StartersAtOnePath, AreOneThatHasItAndOthersThatSaySo) {
  constexpr int kStarters = 8;
  constexpr int kRounds = 60;
  for (int round = 0; round < kRounds; ++round) {
    if (round % 2 == 0) leave_a_dead_socket(GetParam().type);
    std::vector<std::unique_ptr<Starter>> starters;
    for (int i = 0; i < kStarters; ++i) starters.push_back(GetParam().make());
    std::array<std::error_code, kStarters> errors;
    {
      std::barrier together(kStarters);
      std::vector<std::jthread> threads;
      for (std::size_t i = 0; i < kStarters; ++i) {
        threads.emplace_back([&, i] {
          const Endpoint endpoint = at();
          together.arrive_and_wait();
          try {
            starters[i]->start(endpoint);
          } catch (const std::system_error& error) {
            errors[i] = error.code();
          }
        });
      }
    }
    Starter* winner = nullptr;
    int winners = 0;
    for (std::size_t i = 0; i < kStarters; ++i) {
      if (errors[i]) {
        EXPECT_EQ(errors[i], std::errc::address_in_use);
      } else {
        winner = starters[i].get();
        ++winners;
      }
    }
    ASSERT_EQ(winners, 1) << "in round " << round;
    const Fd client(::socket(AF_UNIX, GetParam().type | SOCK_CLOEXEC, 0));
    const Endpoint endpoint = at();
    ASSERT_EQ(::connect(client.get(), endpoint.data(), endpoint.size()), 0) << "in round " << round;
    if (GetParam().type == SOCK_DGRAM) {
      ASSERT_EQ(::send(client.get(), "x", 1, MSG_NOSIGNAL), 1);
    }
    EXPECT_TRUE(winner->is_reached()) << "in round " << round;
    EXPECT_EQ(files(), std::set<std::string>{"path"}) << "no lock stays";
    starters.clear();
    ::unlink(path().c_str());
  }
}

/// Processes, as they are started in earnest. No thread may be there: it forks.
TEST_F(UnixPath, IsOneProcesssOfManyThatStartAtTheSameMoment) {
  constexpr int kProcesses = 6;
  constexpr int kWon = 10;
  constexpr int kLost = 11;
  for (int round = 0; round < 10; ++round) {
    if (round % 2 == 0) leave_a_dead_socket(SOCK_STREAM);
    std::array<int, 2> begin{};
    std::array<int, 2> end{};
    ASSERT_EQ(::pipe2(begin.data(), O_CLOEXEC), 0);
    ASSERT_EQ(::pipe2(end.data(), O_CLOEXEC), 0);
    std::vector<pid_t> processes;
    for (int i = 0; i < kProcesses; ++i) {
      processes.push_back(::fork());
      if (processes.back() != 0) continue;
      ::close(begin[1]);
      ::close(end[1]);
      char byte = 0;
      (void)!::read(begin[0], &byte, 1);  // until the parent closes it
      try {
        const Listener listener(at());
        (void)!::read(end[0], &byte, 1);
        ::_exit(kWon);
      } catch (const std::system_error& error) {
        ::_exit(error.code() == std::errc::address_in_use ? kLost : 1);
      }
    }
    ::close(begin[0]);
    ::close(end[0]);
    ::close(begin[1]);
    int lost = 0;
    for (int status = 0; lost < kProcesses - 1; ++lost) {  // all but the one that listens end by themselves
      const pid_t process = ::waitpid(-1, &status, 0);
      ASSERT_GT(process, 0);
      EXPECT_EQ(WEXITSTATUS(status), kLost);
      std::erase(processes, process);
    }
    ASSERT_EQ(processes.size(), 1U);
    EXPECT_NO_THROW(Peer{at()}) << "the path is the winner's";
    EXPECT_EQ(files(), std::set<std::string>{"path"});
    ::close(end[1]);
    int status = 0;
    ASSERT_EQ(::waitpid(processes.front(), &status, 0), processes.front());
    EXPECT_EQ(WEXITSTATUS(status), kWon);
    ::unlink(path().c_str());
  }
}

TEST_F(UnixPath, IsWaitedForAsLongAsAnotherHasTheLock) {
  std::optional<UnixPathLock> other(std::in_place, at());
  auto listener = std::async(std::launch::async, [this] { return Listener(at()).endpoint(); });
  EXPECT_EQ(listener.wait_for(20ms), std::future_status::timeout);
  EXPECT_EQ(files(), std::set<std::string>{"path.anteroom-lock"});
  other.reset();
  EXPECT_EQ(listener.get(), at());
}

TEST_F(UnixPath, MayBeTakenThoughACrashHasLeftTheLock) {
  std::ofstream(lock_path()) << "";
  const Listener listener(at());
  const Peer peer(at());
  EXPECT_EQ(files(), std::set<std::string>{"path"});
}

TEST_F(UnixPath, HasALockThatOnlyItsOwnerMayOpen) {
  const mode_t before = ::umask(0);
  const UnixPathLock lock(at());
  ::umask(before);
  struct stat file {};
  ASSERT_EQ(::lstat(lock_path().c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 07777, 0600U);
}

TEST_F(UnixPath, FollowsNoLinkThatLiesWhereTheLockShallBe) {
  std::ofstream(folder() + "/letter") << "do not touch";
  ASSERT_EQ(::symlink((folder() + "/letter").c_str(), lock_path().c_str()), 0);
  EXPECT_THROW(Listener{at()}, std::system_error);
  EXPECT_EQ(std::filesystem::file_size(folder() + "/letter"), 12U);
  EXPECT_TRUE(std::filesystem::is_symlink(lock_path()));
}

TEST_F(UnixPath, IsRefusedWhereTheLockIsNoFile) {
  ASSERT_EQ(::mkfifo(lock_path().c_str(), 0600), 0);
  EXPECT_THROW(Listener{at()}, std::system_error) << "and it does not wait for a reader";
  EXPECT_TRUE(std::filesystem::is_fifo(lock_path()));
}

TEST_F(UnixPath, IsRefusedWhereAnotherUserHasTheLock) {
  if (::geteuid() != 0) GTEST_SKIP() << "nobody here may give a file away";
  std::ofstream(lock_path()) << "";
  if (::chown(lock_path().c_str(), 65534, 65534) != 0) GTEST_SKIP() << "nobody here may give a file away";
  try {
    const Listener listener(at());
    ADD_FAILURE() << "they could hold it for ever";
  } catch (const std::system_error& error) {
    EXPECT_EQ(error.code(), std::errc::permission_denied);
  }
}

TEST_F(UnixPath, WhereNoFileCanBeMadeIsAnErrorOfBind) {
  const std::string nowhere = folder() + "/none/path";
  try {
    const Listener listener(Endpoint::unix_path(nowhere));
    ADD_FAILURE();
  } catch (const std::system_error& error) {
    EXPECT_EQ(error.what(), "bind unix:" + nowhere + ": No such file or directory");
  }
}

TEST_F(UnixPath, ThatCannotBeTakenLeavesNoLockAndNoDescriptor) {
  const Listener first(at());
  const int before = open_descriptors();
  for (int i = 0; i < 3; ++i) EXPECT_THROW(Listener{at()}, std::system_error);
  EXPECT_EQ(files(), std::set<std::string>{"path"});
  EXPECT_EQ(open_descriptors(), before);
  const Peer peer(at());
}

TEST_F(UnixPath, OfADatagramSocketStaysIfItHasBecomeAnothers) {
  Reactor reactor;
  std::optional<DatagramSocket> first(std::in_place, reactor, at(), DatagramHandlers{});
  ::unlink(path().c_str());
  const DatagramSocket second(reactor, at(), DatagramHandlers{});
  first.reset();
  EXPECT_EQ(files(), std::set<std::string>{"path"});
}

TEST_F(UnixPath, StaysIfItIsAFileOfAnotherKind) {
  std::ofstream(path()) << "a letter";
  const UnixPathLock lock(at());
  lock.remove_dead(SOCK_STREAM);
  EXPECT_TRUE(std::filesystem::is_regular_file(path()));
}

}  // namespace
}  // namespace anteroom
