#include <anteroom/bench/kernel_counters.h>
#include <anteroom/bench/road.h>
#include <anteroom/listener.h>
#include <anteroom/socket.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <exception>
#include <functional>
#include <new>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "support/descriptors.h"
#include "support/peer.h"

namespace anteroom::bench {
namespace {

using namespace std::chrono_literals;
using namespace test;
using Clock = std::chrono::steady_clock;

constexpr std::uint16_t kPort = 7777;
constexpr int kNotToBeHad = 77;

/// What a child says that cannot have what it is to test.
class NotToBeHad : public std::exception {};

/// A road moves the process that makes it, so each test has a child of its own. What fails in there is
/// printed there, and fails here.
void in_child(const std::function<void()>& test) {
  std::fflush(nullptr);
  // Not fork(2), which ThreadSanitizer knows, and then gives the child a thread of its own: who has two may
  // not enter a user namespace.
  const pid_t child = ::_Fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    int status = 0;
    try {
      test();
      status = ::testing::Test::HasFailure() ? 1 : 0;
    } catch (const NotToBeHad&) {
      status = kNotToBeHad;
    } catch (const std::exception& error) {
      std::printf("%s\n", error.what());
      status = 1;
    }
    std::fflush(nullptr);
    ::_exit(status);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  if (WIFEXITED(status) && WEXITSTATUS(status) == kNotToBeHad)
    GTEST_SKIP() << "private networks, or their devices, are not to be had here";
  EXPECT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

/// A pair, or no test: whether this machine has namespaces is not what is tested.
Road pair_or_skip(const RoadPlan& plan = {}) {
  try {
    Road road(plan);
    if (road.kind() == RoadKind::kPair) return road;
    std::printf("%s\n", road.why_not().c_str());
  } catch (const std::runtime_error& error) {
    std::printf("%s\n", error.what());
  }
  throw NotToBeHad();
}

/// Runs the delay line as long as it lives.
class Carrier {
 public:
  explicit Carrier(const Road& road)
      : memory_(
            ::mmap(nullptr, sizeof(RoadTraffic), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)),
        traffic_(new (memory_) RoadTraffic),
        pid_(::fork()) {
    if (pid_ != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    road.carry(*traffic_);
    ::_exit(1);
  }
  Carrier(const Carrier&) = delete;
  Carrier& operator=(const Carrier&) = delete;
  ~Carrier() {
    stop();
    ::munmap(memory_, sizeof(RoadTraffic));
  }

  const RoadTraffic& stop() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
      pid_ = -1;
    }
    return *traffic_;
  }
  /// Another process writes it meanwhile.
  std::uint64_t lost_so_far() const { return const_cast<const volatile RoadTraffic*>(traffic_)->lost; }

 private:
  void* memory_;
  RoadTraffic* traffic_;
  pid_t pid_;
};

/// On the server's side, where the process is left.
Listener listen_on(const Road& road, int backlog = 128) {
  road.go_to_server_side();
  return Listener({road.server_address(), kPort}, {.backlog = backlog});
}

/// On the client's side, where the process is left; non-blocking.
Fd call(const Road& road, std::size_t source = 0, int type = SOCK_STREAM) {
  road.go_to_client_side();
  Fd client(::socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const Endpoint from(road.source_address(source), 0);
  const Endpoint to(road.server_address(), kPort);
  EXPECT_EQ(::bind(client.get(), from.data(), from.size()), 0) << from.to_string();
  const int result = ::connect(client.get(), to.data(), to.size());
  EXPECT_TRUE(result == 0 || errno == EINPROGRESS) << last_error().message();
  return client;
}

bool is_connected(const Fd& client) {
  return await_events(client.get(), POLLOUT) && !take_socket_error(client.get());
}

bool wait_until(const std::function<bool()>& done) {
  for (const auto end = Clock::now() + kPatience; Clock::now() < end;) {
    if (done()) return true;
    std::this_thread::sleep_for(1ms);
  }
  return false;
}

/// On the side where the process is.
std::uint64_t counter(Counter counter) { return read_kernel_counters()[counter]; }

TEST(Road, BringsAClientToTheServer) {
  in_child([] {
    const Road road = pair_or_skip();
    EXPECT_EQ(road.why_not(), "");
    EXPECT_FALSE(road.is_delayed());
    const Listener listener = listen_on(road);
    const Fd client = call(road);
    EXPECT_TRUE(is_connected(client));
    ASSERT_TRUE(await_events(listener.fd(), POLLIN));
    const Fd guest(::accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC));
    EXPECT_EQ(::send(guest.get(), "Hello World!", 12, 0), 12);
    ASSERT_TRUE(await_events(client.get(), POLLIN));
    std::array<char, 20> greeting{};
    EXPECT_EQ(::recv(client.get(), greeting.data(), greeting.size(), 0), 12);
  });
}

TEST(Road, IsOpenFromTheFirstPacketOn) {
  for (int i = 0; i < 10; ++i) {
    in_child([] {
      const Road road = pair_or_skip();
      const Listener listener = listen_on(road);
      const Fd client = call(road);
      EXPECT_TRUE(is_connected(client));
      EXPECT_EQ(counter(Counter::kSynRetrans), 0U);
    });
  }
}

TEST(Road, KeepsBothSidesCountersApart) {
  in_child([] {
    const Road road = pair_or_skip();
    const Listener listener = listen_on(road, 0);
    EXPECT_EQ(counter(Counter::kActiveOpens), 0U) << "nobody was here before";
    std::vector<Fd> clients;
    for (int i = 0; i < 3; ++i) clients.push_back(call(road));
    // There is room for one. The others call again after a second.
    EXPECT_TRUE(wait_until([] { return counter(Counter::kSynRetrans) >= 2; }));
    const KernelCounters client_side = read_kernel_counters();
    road.go_to_server_side();
    const KernelCounters server_side = read_kernel_counters();
    EXPECT_EQ(client_side[Counter::kActiveOpens], 3U);
    EXPECT_EQ(client_side[Counter::kListenDrops], 0U);
    EXPECT_EQ(server_side[Counter::kActiveOpens], 0U);
    EXPECT_EQ(server_side[Counter::kSynRetrans], 0U);
    EXPECT_GE(server_side[Counter::kListenDrops], 4U);
    EXPECT_EQ(server_side[Counter::kListenDrops], listener.queue()->drops);
  });
}

TEST(Road, HasSourceAddressesForAllClients) {
  in_child([] {
    const Road road = pair_or_skip();
    std::set<std::string> addresses;
    for (std::size_t i = 0; i < Road::kSourcesMax; ++i) addresses.insert(road.source_address(i));
    EXPECT_EQ(addresses.size(), Road::kSourcesMax) << "each is another one";
    const Listener listener = listen_on(road);
    for (const std::size_t i : {0UL, 1UL, 255UL, 256UL, 32'767UL, 32'768UL, Road::kSourcesMax - 1}) {
      const Fd client = call(road, i);
      EXPECT_TRUE(is_connected(client)) << road.source_address(i);
      ASSERT_TRUE(await_events(listener.fd(), POLLIN));
      const Fd guest(::accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC));
      EXPECT_EQ(peer_endpoint(guest.get()), local_endpoint(client.get()));
      EXPECT_NE(peer_endpoint(guest.get()).to_string().find(road.source_address(i) + ":"), std::string::npos);
    }
  });
}

TEST(Road, SetsSysctlsOnBothSidesAndNowhereElse) {
  const std::string somaxconn = read_sysctl("net.core.somaxconn");
  const std::string cookies = read_sysctl("net.ipv4.tcp_syncookies");
  const std::string ports = read_sysctl("net.ipv4.ip_local_port_range");
  ASSERT_NE(somaxconn, "");
  ASSERT_NE(somaxconn, "123");
  in_child([] {
    const Road road =
        pair_or_skip({.sysctls = {{"net.core.somaxconn", "123"}, {"net.ipv4.tcp_syncookies", "0"}}});
    const auto look = [](const char* side) {
      EXPECT_EQ(read_sysctl("net.core.somaxconn"), "123") << side << ": the plan's word is the last one";
      EXPECT_EQ(read_sysctl("net.ipv4.tcp_syncookies"), "0") << side;
      EXPECT_EQ(read_sysctl("net.ipv4.ip_local_port_range"), "10000 65535") << side;
    };
    look("server");
    road.go_to_client_side();
    look("client");
  });
  EXPECT_EQ(read_sysctl("net.core.somaxconn"), somaxconn);
  EXPECT_EQ(read_sysctl("net.ipv4.tcp_syncookies"), cookies);
  EXPECT_EQ(read_sysctl("net.ipv4.ip_local_port_range"), ports);
}

TEST(Road, RefusesSysctlsThatAreNotItsOwn) {
  const auto error_of = [](const std::string& name) -> std::string {
    try {
      const Road road({.sysctls = {{name, "1"}}});
    } catch (const std::runtime_error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(error_of("kernel.panic").find("begin with net."), std::string::npos);
  EXPECT_NE(error_of("net.ipv4/../../kernel.panic").find("begin with net."), std::string::npos);
  in_child([&] {
    (void)pair_or_skip();
    EXPECT_NE(error_of("net.core.no_such_thing").find("No such file"), std::string::npos);
  });
  EXPECT_FALSE(write_sysctl("net.core.no_such_thing", "1"));
  EXPECT_EQ(read_sysctl("net.core.no_such_thing"), "");
}

TEST(Road, TakesARoundTripToConnect) {
  in_child([] {
    constexpr auto kRtt = 40ms;
    const Road road = pair_or_skip({.rtt = kRtt});
    EXPECT_TRUE(road.is_delayed());
    const Listener listener = listen_on(road);
    Carrier carrier(road);
    auto quickest = Clock::duration::max();
    for (int i = 0; i < 5; ++i) {
      const auto begin = Clock::now();
      const Fd client = call(road);
      EXPECT_TRUE(is_connected(client));
      quickest = std::min(quickest, Clock::now() - begin);
    }
    EXPECT_GE(quickest, kRtt);
    EXPECT_LT(quickest, kRtt + 10ms);
    ASSERT_TRUE(wait_until([&] { return listener.queue()->depth == 5; }));
    const RoadTraffic& traffic = carrier.stop();
    EXPECT_GE(traffic.carried, 15U) << "each handshake has three packets";
    EXPECT_EQ(traffic.lost, 0U);
    EXPECT_EQ(traffic.lateness.count(), traffic.carried);
    EXPECT_GE(traffic.lateness_max_ns, 0);
    EXPECT_EQ(traffic.lateness_max_ns, traffic.lateness.max().count());
    EXPECT_EQ(counter(Counter::kSynRetrans), 0U);
  });
}

TEST(Road, LosesEveryPacketWhenAskedTo) {
  in_child([] {
    const Road road = pair_or_skip({.loss = 1});
    const Listener listener = listen_on(road);
    Carrier carrier(road);
    const Fd client = call(road);
    EXPECT_TRUE(wait_until([&] { return carrier.lost_so_far() >= 2; })) << "the SYN comes again";
    const RoadTraffic& traffic = carrier.stop();
    EXPECT_EQ(traffic.carried, 0U);
    EXPECT_EQ(traffic.lost_syn, traffic.lost);
    EXPECT_EQ(traffic.overrun, 0U);
    EXPECT_EQ(listener.queue()->depth, 0U);
    EXPECT_EQ(counter(Counter::kSynRetrans), traffic.lost - 1);
  });
}

TEST(Road, TellsWhatIsLostByItsFlags) {
  in_child([] {
    const Road road = pair_or_skip({.loss = 0.5, .seed = 3});
    const Listener listener = listen_on(road, 500);
    Carrier carrier(road);
    std::vector<Fd> clients;
    for (int i = 0; i < 100; ++i) clients.push_back(call(road));
    EXPECT_TRUE(wait_until([&] { return carrier.lost_so_far() >= 70; }));
    const RoadTraffic& traffic = carrier.stop();
    // Of 100 SYNs half are lost, half of the answers of the others, half of the last ACKs of those.
    EXPECT_GE(traffic.lost_syn, 25U);
    EXPECT_GE(traffic.lost_syn_ack, 10U);
    EXPECT_GE(traffic.lost_ack, 3U);
    EXPECT_EQ(traffic.lost_other, 0U) << "nobody has said anything, or left";
    EXPECT_EQ(traffic.lost, traffic.lost_syn + traffic.lost_syn_ack + traffic.lost_ack);
  });
}

/// Which of `count` datagrams, sent one after the other, arrive.
std::vector<int> arrivals(const RoadPlan& plan, int count) {
  const Road road = pair_or_skip(plan);
  const Fd server(::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const Endpoint here(road.server_address(), kPort);
  EXPECT_EQ(::bind(server.get(), here.data(), here.size()), 0);
  Carrier carrier(road);
  const Fd client = call(road, 0, SOCK_DGRAM);
  std::vector<int> arrived;
  for (int i = 0; i < count; ++i) {
    EXPECT_EQ(::send(client.get(), &i, sizeof(i), 0), static_cast<ssize_t>(sizeof(i)));
  }
  const auto receive = [&] {
    for (int i = 0; ::recv(server.get(), &i, sizeof(i), 0) > 0;) arrived.push_back(i);
    return arrived.size() + carrier.lost_so_far() >= static_cast<std::size_t>(count);
  };
  EXPECT_TRUE(wait_until(receive));
  EXPECT_EQ(carrier.stop().lost_other, carrier.stop().lost);
  return arrived;
}

TEST(Road, LosesTheSamePacketsForTheSameSeed) {
  in_child([] {
    constexpr int kCount = 200;  // few enough for the receive buffer of a datagram socket
    const std::vector<int> first = arrivals({.loss = 0.3, .seed = 5}, kCount);
    EXPECT_NEAR(static_cast<double>(first.size()), 140, 40);
    EXPECT_EQ(arrivals({.loss = 0.3, .seed = 5}, kCount), first);
    EXPECT_NE(arrivals({.loss = 0.3, .seed = 6}, kCount), first);
  });
}

TEST(Road, LosesNothingOfABurst) {
  in_child([] {
    constexpr int kClients = 3000;
    DescriptorLimit limit(0);
    limit.lift();
    const Road road = pair_or_skip({.rtt = 2ms});
    const Listener listener = listen_on(road, 2 * kClients);
    Carrier carrier(road);
    std::vector<Fd> clients;
    for (int i = 0; i < kClients; ++i) clients.push_back(call(road));
    EXPECT_TRUE(wait_until([&] { return listener.queue()->depth == kClients; }));
    EXPECT_EQ(counter(Counter::kSynRetrans), 0U);
    EXPECT_EQ(carrier.stop().lost, 0U);
  });
}

void become_an_ordinary_user() {
  if (::getuid() != 0) return;
  constexpr unsigned kNobody = 65'534;
  ASSERT_EQ(::setgroups(0, nullptr), 0);
  ASSERT_EQ(::setgid(kNobody), 0);
  ASSERT_EQ(::setuid(kNobody), 0);
}

TEST(Road, IsAPairForAnOrdinaryUserToo) {
  for (const auto rtt : {0ms, 2ms}) {
    in_child([&] {
      become_an_ordinary_user();
      const Road road = pair_or_skip({.rtt = rtt, .sysctls = {{"net.ipv4.tcp_syncookies", "0"}}});
      const Listener listener = listen_on(road);
      const Carrier carrier(road);
      const Fd client = call(road);
      EXPECT_TRUE(is_connected(client));
      EXPECT_EQ(read_sysctl("net.ipv4.tcp_syncookies"), "0");
    });
  }
}

/// In here nobody may make a network namespace, but `room`.
void allow_namespaces(int room) {
  if (::unshare(CLONE_NEWUSER) != 0 || !write_sysctl("user.max_net_namespaces", std::to_string(room)))
    throw NotToBeHad();
}

TEST(Road, SharesTheMachinesOwnLoopbackWhereThereAreNoNamespaces) {
  in_child([] {
    allow_namespaces(0);
    const Road road({});
    EXPECT_EQ(road.kind(), RoadKind::kShared);
    EXPECT_NE(road.why_not().find("unshare: "), std::string::npos) << road.why_not();
    EXPECT_EQ(road.server_address(), "127.0.0.1");
    EXPECT_EQ(road.source_address(257), "127.1.1.1");
    road.go_to_client_side();
    road.go_to_server_side();
  });
}

TEST(Road, IsALoopbackWhereThereIsOnlyOneNamespace) {
  in_child([] {
    allow_namespaces(1);
    const Road road({.sysctls = {{"net.core.somaxconn", "123"}}});
    EXPECT_EQ(road.kind(), RoadKind::kLoopback);
    EXPECT_NE(road.why_not(), "");
    EXPECT_EQ(read_sysctl("net.core.somaxconn"), "123");
    const Listener listener = listen_on(road);
    const Fd client = call(road, 300);
    EXPECT_TRUE(is_connected(client));
    EXPECT_EQ(counter(Counter::kActiveOpens), 1U);
  });
}

TEST(Road, SaysWhyAndWhatToDoIfItCannotBeAsAskedFor) {
  const auto expect_one_line = [](const RoadPlan& plan) {
    try {
      const Road road(plan);
      ADD_FAILURE() << "a road of kind " << name(road.kind());
    } catch (const std::runtime_error& error) {
      const std::string text = error.what();
      EXPECT_EQ(text.find('\n'), std::string::npos);
      EXPECT_NE(text.find("unshare"), std::string::npos) << text;
      EXPECT_NE(text.find("No space left"), std::string::npos) << text;
    }
  };
  for (const int room : {0, 1}) {
    in_child([&] {
      allow_namespaces(room);
      expect_one_line({.rtt = 1ms});
    });
    in_child([&] {
      allow_namespaces(room);
      expect_one_line({.loss = 0.1});
    });
  }
  in_child([&] {
    allow_namespaces(0);
    expect_one_line({.sysctls = {{"net.ipv4.tcp_syncookies", "0"}}});
  });
}

TEST(Road, LeavesNoDescriptorOpen) {
  in_child([] {
    const int before = open_descriptors();
    for (const auto rtt : {0ms, 1ms}) {
      { const Road road = pair_or_skip({.rtt = rtt}); }
      EXPECT_EQ(open_descriptors(), before);
    }
  });
}

}  // namespace
}  // namespace anteroom::bench
