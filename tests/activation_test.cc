// What a service manager passes to us, and what we tell it; the test is the manager.
#include <anteroom/activation.h>
#include <anteroom/socket.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "support/descriptors.h"
#include "support/own_network.h"
#include "support/peer.h"

namespace anteroom {
namespace {

using namespace test;

constexpr int kFirst = 3;
constexpr int kOutOfTheWay = 100;

/// Puts sockets where a manager puts them, from 3 on and not closed on exec, as long as it lives. What was
/// there before comes back.
class Passed {
 public:
  explicit Passed(std::vector<Fd> sockets) {
    for (Fd& socket : sockets) socket.reset(::fcntl(socket.get(), F_DUPFD_CLOEXEC, kOutOfTheWay));
    for (std::size_t i = 0; i < sockets.size(); ++i) {
      before_.emplace_back(::fcntl(number(i), F_DUPFD_CLOEXEC, kOutOfTheWay));
      EXPECT_EQ(::dup2(sockets[i].get(), number(i)), number(i));
    }
  }
  Passed(const Passed&) = delete;
  Passed& operator=(const Passed&) = delete;
  ~Passed() {
    for (std::size_t i = 0; i < before_.size(); ++i) {
      if (before_[i]) {
        ::dup3(before_[i].get(), number(i), O_CLOEXEC);
      } else {
        ::close(number(i));
      }
    }
  }

 private:
  static int number(std::size_t i) { return kFirst + static_cast<int>(i); }
  std::vector<Fd> before_;
};

Fd listening() {
  Listener listener(kLoopback);
  return listener.release();
}
Fd datagrams() { return Fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)); }

template <class... Sockets>
std::vector<Fd> several(Sockets... sockets) {
  std::vector<Fd> all;
  (all.push_back(std::move(sockets)), ...);
  return all;
}

class Activation : public testing::Test {
 protected:
  Activation() { forget(); }
  ~Activation() override { forget(); }

  static void say(const std::string& count, const char* names = nullptr) {
    ::setenv("LISTEN_FDS", count.c_str(), 1);
    ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1);
    if (names != nullptr) ::setenv("LISTEN_FDNAMES", names, 1);
  }
  static bool is_forgotten() {
    return ::getenv("LISTEN_FDS") == nullptr && ::getenv("LISTEN_PID") == nullptr &&
           ::getenv("LISTEN_FDNAMES") == nullptr;
  }
  static std::string what_is_thrown() {
    try {
      activated_listeners();
      return "(nothing)";
    } catch (const std::system_error& error) {
      return error.what();
    }
  }

 private:
  static void forget() {
    for (const char* name : {"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"}) ::unsetenv(name);
  }
};

TEST_F(Activation, IsNothingIfNobodyHasPassedAnything) { EXPECT_TRUE(activated_listeners().empty()); }

TEST_F(Activation, IsNothingIfItWasMeantForAnotherProcess) {
  say("1");
  ::setenv("LISTEN_PID", std::to_string(::getppid()).c_str(), 1);
  EXPECT_TRUE(activated_listeners().empty());
  EXPECT_TRUE(is_forgotten()) << "nobody whom we start shall think it was for him";
}

TEST_F(Activation, IsNothingWithoutAProcessId) {
  say("1");
  ::unsetenv("LISTEN_PID");
  EXPECT_TRUE(activated_listeners().empty());
}

TEST_F(Activation, GivesListenersWithTheirNamesInOrder) {
  Fd web = listening();
  Fd admin = listening();
  const Endpoint web_at = local_endpoint(web.get());
  const Endpoint admin_at = local_endpoint(admin.get());
  const Passed passed(several(std::move(web), std::move(admin)));
  say("2", "web:admin");
  const std::vector<NamedListener> listeners = activated_listeners();
  ASSERT_EQ(listeners.size(), 2U);
  EXPECT_EQ(listeners[0].name, "web");
  EXPECT_EQ(listeners[0].listener.fd(), kFirst);
  EXPECT_EQ(listeners[0].listener.endpoint(), web_at);
  EXPECT_EQ(listeners[1].name, "admin");
  EXPECT_EQ(listeners[1].listener.endpoint(), admin_at);
  EXPECT_TRUE(is_forgotten());
  for (const NamedListener& each : listeners) {
    EXPECT_NE(::fcntl(each.listener.fd(), F_GETFD) & FD_CLOEXEC, 0);
    EXPECT_NE(::fcntl(each.listener.fd(), F_GETFL) & O_NONBLOCK, 0);
    const Peer peer(each.listener.endpoint());
    EXPECT_EQ(each.listener.queue()->depth, 1U);
  }
}

TEST_F(Activation, CallsUnknownWhatHasNoName) {
  const Passed passed(several(listening(), listening(), listening()));
  say("3", "web::");
  std::vector<std::string> names;
  const std::vector<NamedListener> listeners = activated_listeners();
  for (const NamedListener& each : listeners) names.push_back(each.name);
  EXPECT_EQ(names, (std::vector<std::string>{"web", "unknown", "unknown"}));
}

TEST_F(Activation, CallsAllUnknownWithoutNames) {
  const Passed passed(several(listening()));
  say("1");
  EXPECT_EQ(activated_listeners().at(0).name, "unknown");
}

TEST_F(Activation, LeavesTheEnvironmentIfItIsToBeKept) {
  const Passed passed(several(listening()));
  say("1", "web");
  EXPECT_EQ(activated_listeners({.keep_environment = true}).size(), 1U);
  EXPECT_FALSE(is_forgotten());
}

TEST_F(Activation, OfWhatDoesNotListenSaysWhichItIsAndKeepsNothing) {
  const int before = open_descriptors();
  {
    Fd bound(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::bind(bound.get(), kLoopback.data(), kLoopback.size()), 0);
    const Passed passed(several(listening(), std::move(bound)));
    say("2", "web:log");
    EXPECT_EQ(what_is_thrown(), "no stream socket that listens: descriptor 4 (\"log\"): Invalid argument");
    EXPECT_TRUE(is_forgotten());
  }
  {
    const Passed passed(several(datagrams()));
    say("1");
    EXPECT_EQ(what_is_thrown(),
              "no stream socket that listens: descriptor 3 (\"unknown\"): Invalid argument");
  }
  EXPECT_EQ(open_descriptors(), before);
}

TEST_F(Activation, OfNoDescriptorThrows) {
  for (const int none : {-1, 100'000}) {
    try {
      (void)adopt_listener(Fd(none), "web");
      ADD_FAILURE();
    } catch (const std::system_error& error) {
      EXPECT_EQ(error.code(), std::errc::invalid_argument);
    }
  }
}

TEST_F(Activation, GivesListenersThatAreShared) {
  const Passed passed(several(listening()));
  say("1", "web");
  EXPECT_TRUE(activated_listeners().at(0).listener.is_shared());
}

TEST_F(Activation, GivesOtherDescriptorsToWhoAsksForThem) {
  const Passed passed(several(datagrams(), listening()));
  say("2", "log:web");
  std::vector<NamedDescriptor> descriptors = activated_descriptors();
  ASSERT_EQ(descriptors.size(), 2U);
  EXPECT_EQ(descriptors[0].name, "log");
  EXPECT_NE(::fcntl(descriptors[0].fd.get(), F_GETFD) & FD_CLOEXEC, 0);
  const Listener web = adopt_listener(std::move(descriptors[1].fd), descriptors[1].name);
  EXPECT_TRUE(web.queue());
}

TEST_F(Activation, OfADescriptorThatIsNotOpenSaysWhichItIs) {
  const Passed passed(several(listening(), Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC))));
  ::close(kFirst + 1);
  say("2");
  EXPECT_EQ(what_is_thrown(), "LISTEN_FDS: descriptor 4: Bad file descriptor");
}

TEST_F(Activation, OfVariablesThatMakeNoSenseSaysWhichItIs) {
  for (const char* count : {"-1", "x", "1x", " 1", "99999999999", "2147483647"}) {
    say(count);
    EXPECT_EQ(what_is_thrown(), "LISTEN_FDS \"" + std::string(count) + "\": Invalid argument");
    EXPECT_TRUE(is_forgotten());
  }
  say("1");
  ::setenv("LISTEN_PID", "me", 1);
  EXPECT_EQ(what_is_thrown(), "LISTEN_PID \"me\": Invalid argument");
}

// ---- To the manager

/// Gets what services notify. On a name that nobody else has.
class Manager : public testing::Test {
 protected:
  Manager() { ::unsetenv("NOTIFY_SOCKET"); }
  ~Manager() override { ::unsetenv("NOTIFY_SOCKET"); }

  void be_at(const std::string& address) {
    const Endpoint endpoint = Endpoint::unix_path(address);
    socket_.reset(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::bind(socket_.get(), endpoint.data(), endpoint.size()), 0) << address;
    ::setenv("NOTIFY_SOCKET", address.c_str(), 1);
  }
  std::string abstract_name() const { return "@anteroom-manager-" + std::to_string(::getpid()); }
  std::string heard() const {
    if (!await_events(socket_.get(), POLLIN)) return "(nothing)";
    char text[256];
    const ssize_t count = ::recv(socket_.get(), text, sizeof(text), MSG_DONTWAIT);
    return {text, count > 0 ? static_cast<std::size_t>(count) : 0};
  }

  Fd socket_;
};

TEST_F(Manager, NeedNotBeThere) {
  EXPECT_FALSE(has_service_manager());
  EXPECT_FALSE(notify_ready());
}

TEST_F(Manager, IsToldAtAnAbstractName) {
  be_at(abstract_name());
  EXPECT_TRUE(has_service_manager());
  EXPECT_FALSE(notify_ready());
  EXPECT_EQ(heard(), "READY=1");
  EXPECT_FALSE(notify_stopping());
  EXPECT_EQ(heard(), "STOPPING=1");
  EXPECT_FALSE(notify_main_process(4711));
  EXPECT_EQ(heard(), "MAINPID=4711");
  EXPECT_FALSE(notify_service_manager("STATUS=12 guests\nEXTEND_TIMEOUT_USEC=5000000"));
  EXPECT_EQ(heard(), "STATUS=12 guests\nEXTEND_TIMEOUT_USEC=5000000");
}

TEST_F(Manager, IsToldAtAPath) {
  std::string directory = testing::TempDir() + "/managerXXXXXX";
  ASSERT_NE(::mkdtemp(directory.data()), nullptr);
  be_at(directory + "/notify");
  EXPECT_FALSE(notify_ready());
  EXPECT_EQ(heard(), "READY=1");
  ::unlink((directory + "/notify").c_str());
  ::rmdir(directory.c_str());
  EXPECT_EQ(notify_ready(), std::errc::no_such_file_or_directory);
}

TEST_F(Manager, IsToldWhenTheReloadingBegan) {
  be_at(abstract_name());
  const auto now = [] {
    const auto time = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::microseconds>(time).count();
  };
  const auto before = now();
  EXPECT_FALSE(notify_reloading());
  const std::string text = heard();
  const std::string beginning = "RELOADING=1\nMONOTONIC_USEC=";
  ASSERT_EQ(text.substr(0, beginning.size()), beginning);
  const auto began = std::stoll(text.substr(beginning.size()));
  EXPECT_GE(began, before);
  EXPECT_LE(began, now());
}

TEST_F(Manager, ThatHasMuchToReadIsWaitedFor) {
  be_at(abstract_name());
  const Endpoint endpoint = Endpoint::unix_path(abstract_name());
  const Fd other(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  int sent = 0;
  while (::sendto(other.get(), "X=1", 3, MSG_DONTWAIT, endpoint.data(), endpoint.size()) == 3) ++sent;
  ASSERT_GT(sent, 0);
  std::error_code error;
  std::thread service([&] { error = notify_ready(); });
  for (; sent > 0; --sent) EXPECT_EQ(heard(), "X=1");
  EXPECT_EQ(heard(), "READY=1");
  service.join();
  EXPECT_FALSE(error);
}

TEST_F(Manager, IsNotToldOfNothing) {
  be_at(abstract_name());
  EXPECT_EQ(notify_service_manager(""), std::errc::invalid_argument);
  EXPECT_EQ(notify_main_process(0), std::errc::invalid_argument);
  EXPECT_EQ(notify_main_process(-1), std::errc::invalid_argument);
  EXPECT_FALSE(notify_ready());
  EXPECT_EQ(heard(), "READY=1") << "and that comes first";
}

TEST_F(Manager, ThatIsGoneIsAnError) {
  be_at(abstract_name());
  socket_.reset();
  EXPECT_EQ(notify_ready(), std::errc::connection_refused);
}

TEST_F(Manager, OutsideOfAVirtualMachineIsAnError) {
  ::setenv("NOTIFY_SOCKET", "vsock:2:1234", 1);
  EXPECT_EQ(notify_ready(), std::errc::address_family_not_supported);
}

TEST_F(Manager, AtAPathThatIsTooLongIsAnError) {
  ::setenv("NOTIFY_SOCKET", ("/" + std::string(200, 'x')).c_str(), 1);
  EXPECT_EQ(notify_ready(), std::errc::filename_too_long);
}

}  // namespace
}  // namespace anteroom
