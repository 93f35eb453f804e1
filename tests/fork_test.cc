// What a forked child does to its parent, and how it goes on in the parent's place.
#include <anteroom/acceptor.h>
#include <anteroom/connector.h>
#include <anteroom/datagram_socket.h>
#include <anteroom/reactor_pool.h>
#include <anteroom/signals.h>
#include <anteroom/timer.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "support/descriptors.h"
#include "support/peer.h"
#include "support/turns.h"

namespace anteroom {
namespace {

using namespace std::chrono_literals;
using namespace test;

/// Forks, runs `child` there, and gives its exit status: 0 if it returns true. 128 + n if signal n has ended
/// it.
int status_of_child(const std::function<bool()>& child) {
  const pid_t process = ::fork();
  if (process == 0) {
    ::alarm(20);
    ::_exit(child() ? 0 : 1);
  }
  int status = 0;
  while (::waitpid(process, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

class Fork : public testing::Test {
 protected:
  Fork() : folder_((std::filesystem::temp_directory_path() / "fork_test.XXXXXX").string()) {
    EXPECT_NE(::mkdtemp(folder_.data()), nullptr);
  }
  ~Fork() override { std::filesystem::remove_all(folder_); }

  Endpoint path(const char* name) const { return Endpoint::unix_path(folder_ + "/" + name); }
  bool has_path(const char* name) const { return std::filesystem::exists(folder_ + "/" + name); }

 private:
  std::string folder_;
};

/// All kinds of things on one reactor, one of each.
struct Service {
  explicit Service(const Endpoint& unix_listener, const Endpoint& unix_datagrams) {
    reactor = std::make_unique<Reactor>();
    acceptor = std::make_unique<Acceptor>(
        *reactor, kLoopback,
        ConnectionHandlers{
            .data = [](Connection& connection, std::string_view bytes) { connection.send(bytes); },
            .closed = [this](Connection&, std::error_code) { ++closed; }});
    unix_acceptor = std::make_unique<Acceptor>(*reactor, unix_listener, ConnectionHandlers{});
    datagrams = std::make_unique<DatagramSocket>(*reactor, unix_datagrams, DatagramHandlers{});
    connector = std::make_unique<Connector>(
        *reactor, ConnectionHandlers{.open = [](Connection& connection) { connection.send("1"); },
                                     .data = [this](Connection&, std::string_view) { ++answers; },
                                     .closed = [this](Connection&, std::error_code) { ++closed; }});
    signals = std::make_unique<Signals>(*reactor, std::initializer_list<int>{SIGUSR1}, [](int) {});
    id = connector->connect(acceptor->endpoint()).id;
  }

  bool gets_answer() {
    const int before = answers;
    Connection* const connection = reactor->find<Connection>(id);
    if (connection != nullptr && connection->is_open()) connection->send("2");
    return turn_until(*reactor, [&] { return answers > before || closed > 0; }) && closed == 0;
  }

  int answers = 0;
  int closed = 0;
  ChannelId id{};
  std::unique_ptr<Reactor> reactor;
  std::unique_ptr<Acceptor> acceptor;
  std::unique_ptr<Acceptor> unix_acceptor;
  std::unique_ptr<DatagramSocket> datagrams;
  std::unique_ptr<Connector> connector;
  std::unique_ptr<Signals> signals;
};

TEST_F(Fork, ChildThatDestroysEverythingLeavesTheParentAsItWas) {
  std::optional<Service> service(std::in_place, path("listener"), path("datagrams"));
  ASSERT_TRUE(service->gets_answer());
  const int status = status_of_child([&] {
    const int before = open_descriptors();
    service.reset();
    // Three listening or datagram sockets, two connections, and one for the signals.
    return before - open_descriptors() == 6;
  });
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(has_path("listener"));
  EXPECT_TRUE(has_path("datagrams"));
  EXPECT_TRUE(service->gets_answer());
  const Peer newcomer(service->acceptor->endpoint());
  EXPECT_TRUE(newcomer.send("x"));
  EXPECT_TRUE(turn_until(*service->reactor, [&] { return service->acceptor->open_connections() == 2; }));
}

TEST_F(Fork, ChildThatEndsConnectionsLeavesThemToTheParent) {
  Service service(path("listener"), path("datagrams"));
  ASSERT_TRUE(service.gets_answer());
  const std::function<void(Connection&)> ends[] = {[](Connection& connection) { connection.close(); },
                                                   [](Connection& connection) { connection.abort(); }};
  for (const auto& end : ends) {
    const int status = status_of_child([&] {
      end(*service.reactor->find<Connection>(service.id));
      return service.reactor->find<Connection>(service.id) == nullptr;
    });
    EXPECT_EQ(status, 0);
    EXPECT_TRUE(service.gets_answer());
  }
}

TEST_F(Fork, ChildThatDestroysAConnectionWithOutputSendsNoneOfIt) {
  Reactor reactor;
  Connection* accepted = nullptr;
  std::optional<Acceptor> acceptor(std::in_place, reactor, kLoopback,
                                   ConnectionHandlers{.open = [&](Connection& connection) {
                                     accepted = &connection;
                                     connection.send(pattern(8 << 20));
                                   }});
  Peer peer(acceptor->endpoint());
  ASSERT_TRUE(turn_until(reactor, [&] { return accepted != nullptr; }));
  ASSERT_GT(accepted->unsent_bytes(), 0U);
  EXPECT_EQ(status_of_child([&] { return acceptor.reset(), true; }), 0);
  EXPECT_TRUE(turn_until(reactor, [&] { return peer.drain(), peer.received().size() == 8U << 20; }));
  EXPECT_EQ(peer.received(), pattern(8 << 20));
}

TEST_F(Fork, TurnInAChildSaysWhatToCall) {
  Reactor reactor;
  const int status = status_of_child([&] {
    try {
      reactor.turn(0ms);
    } catch (const std::system_error& error) {
      return error.code() == std::errc::operation_not_permitted &&
             std::string(error.what()).find("continue_after_fork()") != std::string::npos;
    }
    return false;
  });
  EXPECT_EQ(status, 0);
}

/// Exit status of the child that `fork_in_handler` has made, which returns into the turn.
class TurnThatForks {
 public:
  explicit TurnThatForks(Reactor& reactor) : reactor_(reactor) {}

  /// Called in a handler.
  void fork() {
    const pid_t child = ::fork();
    if (child == 0) {
      ::alarm(20);
      return reactor_.stop();
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status)) << status;
    status_ = WEXITSTATUS(status);
  }

  /// Runs until stop(). In the child it ends the process: 0 if nothing was called there.
  void run(const int& calls) {
    try {
      reactor_.run();
    } catch (const std::system_error&) {
      if (is_child()) ::_exit(2);
      throw;
    }
    if (is_child()) ::_exit(calls == 0 ? 0 : 1);
  }

  int status() const { return status_; }

 private:
  bool is_child() const { return ::getpid() != parent_; }

  Reactor& reactor_;
  const pid_t parent_ = ::getpid();
  int status_ = -1;
};

TEST_F(Fork, ChildOfATimerTakesNoPartInTheRestOfTheTurn) {
  Reactor reactor;
  TurnThatForks turn(reactor);
  int calls = 0;
  bool is_open = false;
  const Acceptor acceptor(reactor, kLoopback, {});
  Connector connector(reactor, {.open = [&](Connection&) { is_open = true; },
                                .closed = [&](Connection&, std::error_code) { ++calls; }});
  const ChannelId id = connector.connect(acceptor.endpoint()).id;
  ASSERT_TRUE(turn_until(reactor, [&] { return is_open; }));
  Timer forks(reactor, [&] {
    reactor.find<Connection>(id)->abort();
    turn.fork();
  });
  Timer other(reactor, [&] { ++calls; });
  forks.arm(0ms);
  other.arm(0ms);
  reactor.post([&] {
    ++calls;
    reactor.stop();
  });
  turn.run(calls);
  EXPECT_EQ(turn.status(), 0);
  EXPECT_EQ(calls, 3) << "in the parent: the timer, the task, and `closed`";
}

TEST_F(Fork, ChildOfADataHandlerTakesNoPartInTheRestOfTheTurn) {
  Reactor reactor;
  TurnThatForks turn(reactor);
  int calls = 0;
  bool has_forked = false;
  Acceptor acceptor(reactor, kLoopback, {.data = [&](Connection&, std::string_view) {
                      if (!std::exchange(has_forked, true)) return turn.fork();
                      ++calls;
                      reactor.stop();
                    }});
  const std::vector<Peer> peers = connect_peers(acceptor.endpoint(), 2);
  ASSERT_TRUE(turn_until(reactor, [&] { return acceptor.open_connections() == 2; }));
  for (const Peer& peer : peers) ASSERT_TRUE(peer.send("x"));
  turn.run(calls);
  EXPECT_EQ(turn.status(), 0);
  EXPECT_EQ(calls, 1);
}

TEST_F(Fork, ChildOfATaskTakesNoPartInTheRestOfTheTurn) {
  Reactor reactor;
  TurnThatForks turn(reactor);
  int calls = 0;
  reactor.post([&] { turn.fork(); });
  reactor.post([&] {
    ++calls;
    reactor.stop();
  });
  turn.run(calls);
  EXPECT_EQ(turn.status(), 0);
  EXPECT_EQ(calls, 1);
}

// ---- A child that goes on

TEST_F(Fork, DaemonGoesOnInTheParentsPlace) {
  std::optional<Service> service(std::in_place, path("listener"), path("datagrams"));
  ASSERT_TRUE(service->gets_answer());
  const int status = status_of_child([&] {
    service->reactor->continue_after_fork();
    if (!service->gets_answer()) return false;  // a connection of before
    const Peer newcomer(service->acceptor->endpoint());
    if (!turn_until(*service->reactor, [&] { return service->acceptor->open_connections() == 2; }))
      return false;
    const Peer local(path("listener"));
    if (!turn_until(*service->reactor, [&] { return service->unix_acceptor->open_connections() == 1; }))
      return false;
    service.reset();
    return !has_path("listener") && !has_path("datagrams");
  });
  EXPECT_EQ(status, 0);
}

TEST_F(Fork, DaemonIsEndedBySignals) {
  Reactor reactor;
  const Signals signals(reactor, {SIGTERM}, [&](int) { reactor.stop(); });
  const pid_t parent = ::getpid();
  const int status = status_of_child([&] {
    reactor.continue_after_fork();
    if (::getpid() == parent) return false;
    ::kill(::getpid(), SIGTERM);
    reactor.run();
    return true;
  });
  EXPECT_EQ(status, 0);
}

TEST_F(Fork, DaemonKeepsItsTimers) {
  Reactor reactor;
  Timer timer(reactor, [&] { reactor.stop(); });
  timer.arm(10ms);
  const int status = status_of_child([&] {
    reactor.continue_after_fork();
    reactor.continue_after_fork();  // twice is once
    reactor.run();
    return true;
  });
  EXPECT_EQ(status, 0);
  reactor.run();
}

TEST_F(Fork, DaemonMayForkAgain) {
  Service service(path("listener"), path("datagrams"));
  ASSERT_TRUE(service.gets_answer());
  const int status = status_of_child([&] {
    service.reactor->continue_after_fork();
    const int inner = status_of_child([&] {
      service.reactor->continue_after_fork();
      return service.gets_answer();
    });
    return inner == 0;
  });
  EXPECT_EQ(status, 0);
}

TEST_F(Fork, ContinuingWithoutDescriptorsMayBeTriedAgain) {
  Service service(path("listener"), path("datagrams"));
  const int status = status_of_child([&] {
    {
      // The epoll and its eventfd were closed, so there is capacity for one of two.
      const Fd one(::dup(2));
      const DescriptorLimit limit(0);
      try {
        service.reactor->continue_after_fork();
        return false;
      } catch (const std::system_error& error) {
        if (error.code() != std::errc::too_many_files_open) return false;
      }
      if (service.reactor->is_of_this_process()) return false;
    }
    service.reactor->continue_after_fork();
    return service.gets_answer();
  });
  EXPECT_EQ(status, 0);
}

// ---- What has threads, or no reactor

ReactorPool::MakeHandlers echoes() {
  return [](Reactor&, int) {
    return ConnectionHandlers{
        .data = [](Connection& connection, std::string_view bytes) { connection.send(bytes); }};
  };
}

bool is_served_by(const Endpoint& endpoint) {
  Peer peer(endpoint);
  if (!peer.send("x")) return false;
  peer.finish();
  return peer.receive_all() == "x";
}

/// How many descriptors of this process are sockets that listen: those keep an address in use.
int listening_sockets() {
  int count = 0;
  for (int fd = 0; fd < 1024; ++fd) {
    int listens = 0;
    socklen_t size = sizeof(listens);
    if (::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && listens != 0) ++count;
  }
  return count;
}

class ForkOfAPool : public Fork, public testing::WithParamInterface<Sharing> {};
INSTANTIATE_TEST_SUITE_P(Of, ForkOfAPool,
                         testing::Values(Sharing::kReusePort, Sharing::kExclusive, Sharing::kDealt));

TEST_P(ForkOfAPool, ChildThatDestroysARunningPoolLeavesItToTheParent) {
  std::optional<ReactorPool> pool(std::in_place, kLoopback, echoes(),
                                  ReactorPoolOptions{.threads = 2, .sharing = GetParam()});
  const Endpoint endpoint = pool->endpoint();
  pool->start();
  ASSERT_TRUE(is_served_by(endpoint));
  const int status = status_of_child([&] {
    pool.reset();
    return listening_sockets() == 0 && is_served_by(endpoint);  // by the parent
  });
  EXPECT_EQ(status, 0);
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(is_served_by(endpoint));
  pool.reset();
}

/// Whether it says so at once that this is not for a child.
bool is_refused(const std::function<void()>& call) {
  try {
    call();
  } catch (const std::system_error& error) {
    return error.code() == std::errc::operation_not_permitted;
  }
  return false;
}

TEST_P(ForkOfAPool, ChildOfARunningPoolCannotGoOnWithIt) {
  ReactorPool pool(kLoopback, echoes(), ReactorPoolOptions{.threads = 2, .sharing = GetParam()});
  pool.start();
  const int status = status_of_child([&] {
    return is_refused([&] { pool.continue_after_fork(); }) && is_refused([&] { (void)pool.state(); }) &&
           is_refused([&] { (void)pool.drain(); });
  });
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(is_served_by(pool.endpoint()));
}

TEST_F(Fork, ChildCannotDrainAnAcceptor) {
  Reactor reactor;
  Acceptor acceptor(reactor, kLoopback, {});
  EXPECT_EQ(status_of_child([&] { return is_refused([&] { acceptor.drain({}, nullptr); }); }), 0);
  const Peer newcomer(acceptor.endpoint());  // no filter keeps its SYN from the parent
  EXPECT_TRUE(turn_until(reactor, [&] { return acceptor.open_connections() == 1; }));
}

TEST_P(ForkOfAPool, DaemonStartsThePoolThatItsParentMade) {
  std::optional<ReactorPool> pool(std::in_place, kLoopback, echoes(),
                                  ReactorPoolOptions{.threads = 2, .sharing = GetParam()});
  const int status = status_of_child([&] {
    try {
      pool->start();
      return false;
    } catch (const std::system_error& error) {
      if (error.code() != std::errc::operation_not_permitted) return false;
    }
    pool->continue_after_fork();
    pool->start();
    if (!is_served_by(pool->endpoint())) return false;
    return pool->drain() == 0;
  });
  EXPECT_EQ(status, 0);
}

TEST_F(Fork, ChildThatDestroysAPoolBeforeItsStartLeavesThePath) {
  std::optional<ReactorPool> pool(std::in_place, path("pool"), echoes(), ReactorPoolOptions{.threads = 2});
  EXPECT_EQ(status_of_child([&] { return pool.reset(), true; }), 0);
  EXPECT_TRUE(has_path("pool"));
  pool->start();
  EXPECT_TRUE(is_served_by(path("pool")));
}

TEST_F(Fork, ChildThatDestroysAListenerLeavesItsPath) {
  std::optional<Listener> listener(std::in_place, path("listener"));
  EXPECT_EQ(status_of_child([&] { return listener.reset(), true; }), 0);
  EXPECT_TRUE(has_path("listener"));
  EXPECT_EQ(status_of_child([&] {
              listener->continue_after_fork();
              return listener.reset(), true;
            }),
            0);
  EXPECT_FALSE(has_path("listener"));
}

}  // namespace
}  // namespace anteroom
