// A service that ends while its clients call: pool_server, as users run it, and a swarm that tells what
// became of each client.
#include <anteroom/bench/swarm.h>
#include <anteroom/listener.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <new>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/own_network.h"
#include "support/peer.h"
#include "support/program.h"

namespace anteroom::bench {
namespace {

using namespace std::chrono_literals;
using test::Peer;
using test::Program;

constexpr std::size_t kClientsPerSecond = 2000;

using Words = std::vector<std::string>;

/// How many clients have called, for all processes that were forked since.
class Calls {
 public:
  Calls()
      : count_(new (::mmap(nullptr, sizeof(*count_), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                           0)) std::atomic<std::uint32_t>(0)) {}
  ~Calls() { ::munmap(count_, sizeof(*count_)); }
  Calls(const Calls&) = delete;
  Calls& operator=(const Calls&) = delete;

  std::atomic<std::uint32_t>* counter() const { return count_; }
  void await(std::size_t calls) const {
    while (count_->load() < calls) std::this_thread::sleep_for(1ms);
  }

 private:
  std::atomic<std::uint32_t>* count_;
};

void end_with_the_test() { ::prctl(PR_SET_PDEATHSIG, SIGKILL); }

/// Clients who call one after the other, all the time, while the service is restarted.
class Service : public testing::Test {
 protected:
  /// Runs pool_server; with `after`, as soon as so many clients have called. To be called before swarm(), for
  /// it forks.
  Program& serve(Words options, std::size_t after = 0, std::function<void()> prepare = {}) {
    Words command{PROGRAMS "/pool_server"};
    command.insert(command.end(), options.begin(), options.end());
    return fork(std::move(command), [this, after, prepare = std::move(prepare)] {
      calls.await(after);
      if (prepare) prepare();
    });
  }
  /// Sends SIGTERM as soon as so many clients have called.
  void end(const Program& server, std::size_t after) {
    fork({"-"}, [this, after, pid = server.pid()] {
      calls.await(after);
      ::kill(pid, SIGTERM);
      ::_exit(0);
    });
  }
  Program& fork(Words command, const std::function<void()>& prepare) {
    programs.push_back(std::make_unique<Program>(std::move(command), [&] {
      end_with_the_test();
      prepare();
    }));
    return *programs.back();
  }

  void swarm(const Endpoint& server, std::size_t clients) {
    records.resize(clients);
    for (std::size_t i = 0; i < clients; ++i)
      records[i].intended_ns = static_cast<std::int64_t>(i * 1'000'000'000 / kClientsPerSecond);
    run_swarm({.server = server,
               .records = records,
               .start = std::chrono::steady_clock::now() + 10ms,
               .end = std::chrono::nanoseconds(records.back().intended_ns) + 10s,
               .called = calls.counter()});
    for (const ClientRecord& record : records) ++fates[record.fate];
  }

  /// All fates that somebody had, but for one.
  std::string others_than(Fate expected) const {
    std::string text;
    for (const auto& [fate, name] : kFates) {
      if (fate != expected && fates[fate] > 0)
        text += std::to_string(fates[fate]) + ' ' + std::string(name) + ' ';
    }
    return text;
  }
  void expect_all_served_at_once() const {
    EXPECT_EQ(fates[Fate::kServedAtOnce], records.size());
    EXPECT_EQ(others_than(Fate::kServedAtOnce), "");
  }
  static void expect_ended_in_order(Program& server) {
    EXPECT_EQ(server.wait(test::kPatience), 0) << server.errors;
    EXPECT_EQ(server.errors, "");
  }
  /// How many it has accepted, of those who were served at all.
  static std::uint64_t accepted(Program& server) {
    server.signal(SIGUSR1);
    std::uint64_t sum = 0;
    for (;;) {
      const std::string line = server.read_line();
      if (line.starts_with("anteroom_connections_accepted_total{"))
        sum += std::stoull(line.substr(line.rfind(' ')));
      if (line.empty() || line.starts_with("anteroom_netns_listen_drops_total")) return sum;
    }
  }

  const Calls calls;
  const std::string path = "@anteroom-leaving-" + std::to_string(::getpid());
  std::vector<std::unique_ptr<Program>> programs;
  std::vector<ClientRecord> records;
  Fates fates;
};

Endpoint loopback(std::uint16_t port) { return {"127.0.0.1", port}; }

/// Two restarts, one after the other.
class ARestart : public Service {
 protected:
  void lose_nobody(const std::string& sharing, std::size_t clients) {
    const Words options{"0", "--threads", "2", "--sharing", sharing, "--handover", path};
    Program& first = serve(options);
    const std::uint16_t port = first.read_port();
    ASSERT_NE(port, 0) << first.errors;
    Program& second = serve(options, clients / 3);
    Program& third = serve(options, clients * 2 / 3);
    swarm(loopback(port), clients);
    expect_all_served_at_once();
    expect_ended_in_order(first);
    expect_ended_in_order(second);
    EXPECT_EQ(second.read_port(), port);
    EXPECT_EQ(third.read_port(), port);
    EXPECT_GT(accepted(third), clients / 10) << "it was restarted while they called";
    third.signal(SIGTERM);
    expect_ended_in_order(third);
  }
};

TEST_F(ARestart, OfListenersOfAGroupLosesNobody) { lose_nobody("reuseport", 3 * kClientsPerSecond); }
TEST_F(ARestart, OfASharedListenerLosesNobody) { lose_nobody("exclusive", kClientsPerSecond); }
TEST_F(ARestart, OfAListenerThatIsDealtOutLosesNobody) { lose_nobody("dealt", kClientsPerSecond); }

using Leaving = Service;

// Everybody is served at once, but for a few microseconds: see close_first_of_group(). Of 150 runs one had a
// client whose SYN was lost in them, and who was served a second later. Not steered at all, 200 are.
TEST_F(Leaving, AGroupThatOthersAreInLosesNobody) {
  const std::size_t clients = 3 * kClientsPerSecond;
  Program& leaves = serve({"0", "--threads", "2"});
  const std::uint16_t port = leaves.read_port();
  ASSERT_NE(port, 0) << leaves.errors;
  Program& stays = serve({std::to_string(port), "--threads", "2"});
  ASSERT_EQ(stays.read_port(), port) << stays.errors;
  end(leaves, clients / 2);
  swarm(loopback(port), clients);
  EXPECT_EQ(fates.served(), clients);
  EXPECT_LE(fates[Fate::kServedAfterRetransmit], clients / 200);
  expect_ended_in_order(leaves);
  EXPECT_GT(accepted(stays), clients / 2);
}

TEST_F(Leaving, AloneServesWhoCameInAndRefusesTheOthers) {
  const std::size_t clients = kClientsPerSecond;
  Program& server = serve({"0", "--threads", "2"});
  const std::uint16_t port = server.read_port();
  ASSERT_NE(port, 0) << server.errors;
  end(server, clients / 4);
  swarm(loopback(port), clients);
  expect_ended_in_order(server);
  EXPECT_GT(fates[Fate::kRefused], 0U);
  fates[Fate::kRefused] = 0;
  EXPECT_EQ(others_than(Fate::kServedAtOnce), "");
  for (std::size_t i = 0; i < clients / 4; ++i) EXPECT_EQ(name(records[i].fate), name(Fate::kServedAtOnce));
}

/// The test is the service manager: it holds the socket, and starts the service again.
TEST_F(Leaving, ASocketThatTheServiceManagerKeepsLosesNobody) {
  const std::size_t clients = kClientsPerSecond;
  const Listener kept(test::kLoopback);
  const auto activate = [&kept] {
    ::dup2(::dup(kept.fd()), 3);  // not itself onto itself, which would leave it closed on exec
    ::setenv("LISTEN_FDS", "1", 1);
    ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1);
  };
  const Words options{"0", "--threads", "2"};
  Program& first = serve(options, 0, activate);
  ASSERT_EQ(first.read_port(), kept.endpoint().port()) << first.errors;
  end(first, clients / 3);
  Program& second = serve(options, clients * 2 / 3, activate);
  swarm(kept.endpoint(), clients);
  expect_all_served_at_once();
  expect_ended_in_order(first);
  EXPECT_EQ(second.read_port(), kept.endpoint().port()) << second.errors;
  EXPECT_GT(accepted(second), clients / 10);
  second.signal(SIGINT);
  expect_ended_in_order(second);
}

// ---- The program

using PoolServer = Service;

TEST_F(PoolServer, TellsTheServiceManagerHowItIs) {
  const std::string name = path + "-notify";
  const Endpoint endpoint = Endpoint::unix_path(name);
  const Fd manager(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::bind(manager.get(), endpoint.data(), endpoint.size()), 0);
  const auto heard = [&]() -> std::string {
    if (!test::await_events(manager.get(), POLLIN)) return "(nothing)";
    char text[64];
    const ssize_t count = ::recv(manager.get(), text, sizeof(text), 0);
    return {text, count > 0 ? static_cast<std::size_t>(count) : 0};
  };
  const auto with_manager = [&] { ::setenv("NOTIFY_SOCKET", name.c_str(), 1); };
  const Words options{"0", "--threads", "1", "--handover", path};
  Program& first = serve(options, 0, with_manager);
  EXPECT_EQ(heard(), "READY=1");
  Program& second = serve(options, 0, with_manager);
  EXPECT_EQ(heard(), "MAINPID=" + std::to_string(second.pid()));
  EXPECT_EQ(heard(), "READY=1");
  expect_ended_in_order(first);
  second.signal(SIGTERM);
  EXPECT_EQ(heard(), "STOPPING=1");
  expect_ended_in_order(second);
}

TEST_F(PoolServer, EndsOpenWorkInOrder) {
  Program& server = serve({"0", "--threads", "2", "--echo", "--sharing", "dealt"});
  Peer guest(loopback(server.read_port()));
  ASSERT_TRUE(guest.send("said before the end"));
  ASSERT_TRUE(test::await_events(guest.fd(), POLLIN));
  server.signal(SIGTERM);
  EXPECT_EQ(guest.receive_all(), "said before the end");
  EXPECT_EQ(guest.error(), 0);
  guest.close();
  expect_ended_in_order(server);
}

TEST_F(PoolServer, SaysWhereItCannotOfferItsListeners) {
  Program& server = serve({"0", "--threads", "1", "--handover", "/no/such/folder/path"});
  EXPECT_EQ(server.wait(test::kPatience), 1);
  EXPECT_EQ(server.errors, "pool_server: bind unix:/no/such/folder/path: No such file or directory\n");
}

// 3,700 lines in half a second, before.
TEST_F(PoolServer, WritesALineASecondOfThoseWhoCallAndAreNoSuccessors) {
  constexpr int kCallers = 500;
  const auto begin = std::chrono::steady_clock::now();
  Program& server = serve({"0", "--threads", "1", "--handover", path});
  ASSERT_NE(server.read_port(), 0) << server.errors;
  const Endpoint endpoint = Endpoint::unix_path(path);
  for (int i = 0; i < kCallers; ++i) {
    const Fd caller(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::connect(caller.get(), endpoint.data(), endpoint.size()), 0);
  }
  std::size_t lines = 0;
  std::uint64_t reported = 0;
  const auto limit = std::chrono::steady_clock::now() + test::kPatience;
  while (reported < kCallers && std::chrono::steady_clock::now() < limit) {
    EXPECT_EQ(server.wait(10ms), -1);
    lines = 0;
    reported = 0;
    std::istringstream text(server.errors);
    for (std::string line; std::getline(text, line); ++lines) {
      EXPECT_TRUE(line.starts_with("pool_server: no successor: ")) << line;
      const std::size_t more = line.find(", and ");
      reported += 1 + (more == std::string::npos ? 0 : std::stoull(line.substr(more + 6)));
    }
  }
  const auto seconds =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - begin).count();
  EXPECT_EQ(reported, static_cast<std::uint64_t>(kCallers)) << "each of them is counted";
  EXPECT_LE(lines, static_cast<std::size_t>(seconds) + 2);
  server.signal(SIGTERM);
  EXPECT_EQ(server.wait(test::kPatience), 0);
}

TEST_F(PoolServer, OfTwoThatStartAtTheSameMomentOneServes) {
  for (int round = 0; round < 5; ++round) {
    const std::string port = std::to_string(test::closed_endpoint().port());
    const Words options{port, "--threads", "1", "--handover", path};
    Program& first = serve(options);
    Program& second = serve(options);
    // The other one has lost, and says so; or it came so late that it succeeds the first.
    const auto limit = std::chrono::steady_clock::now() + test::kPatience;
    int ended = -1;
    Program* serves = nullptr;
    while (serves == nullptr && std::chrono::steady_clock::now() < limit) {
      if ((ended = first.wait(5ms)) >= 0) {
        serves = &second;
      } else if ((ended = second.wait(5ms)) >= 0) {
        serves = &first;
      }
    }
    ASSERT_NE(serves, nullptr);
    EXPECT_TRUE(ended == 0 || ended == 1);
    const std::string& errors = serves == &first ? second.errors : first.errors;
    if (ended == 1) {
      EXPECT_EQ(errors, "pool_server: bind unix:" + path + ": Address already in use\n");
    }
    EXPECT_EQ(serves->read_port(), std::stoi(port)) << serves->errors;
    EXPECT_EQ(Peer(loopback(static_cast<std::uint16_t>(std::stoi(port)))).receive_all(), "Hello World!");
    serves->signal(SIGTERM);
    expect_ended_in_order(*serves);
  }
}

TEST_F(PoolServer, SaysHowItIsUsed) {
  for (const Words& options : std::vector<Words>{{},
                                                 {"x"},
                                                 {"65536"},
                                                 {"80", "--threads"},
                                                 {"80", "--threads", "0"},
                                                 {"80", "--threads", "two"},
                                                 {"80", "--sharing", "fairly"},
                                                 {"80", "--deadline", "-1"},
                                                 {"80", "--handover", ""},
                                                 {"80", "81"}}) {
    Program& server = serve(options);
    EXPECT_EQ(server.wait(test::kPatience), 2);
    EXPECT_EQ(server.errors.substr(0, 20), "Usage : pool_server ");
    EXPECT_EQ(std::ranges::count(server.errors, '\n'), 1);
    EXPECT_EQ(server.output, "");
  }
}

}  // namespace
}  // namespace anteroom::bench
