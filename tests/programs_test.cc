// The little programs, run as users run them.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "support/peer.h"
#include "support/program.h"
#include "support/sanitized.h"

namespace anteroom {
namespace {

using namespace std::chrono_literals;
using test::kIsSanitized;
using test::Peer;
using test::Program;

const std::string kHelloServer = PROGRAMS "/hello_server";
const std::string kHelloClient = PROGRAMS "/hello_client";
const std::string kEchoServer = PROGRAMS "/echo_server";
const std::string kPoolServer = PROGRAMS "/pool_server";

Endpoint loopback(std::uint16_t port) { return {"127.0.0.1", port}; }

std::size_t descriptors_of(pid_t pid) {
  const std::filesystem::directory_iterator entries("/proc/" + std::to_string(pid) + "/fd");
  return static_cast<std::size_t>(std::distance(begin(entries), end(entries)));
}

/// User and system time of a running process.
std::chrono::milliseconds cpu_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string word;
  long user = 0;
  long system = 0;
  for (int field = 1; field <= 13; ++field) file >> word;
  file >> user >> system;
  return std::chrono::milliseconds((user + system) * 1000 / ::sysconf(_SC_CLK_TCK));
}

long resident_kib(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("VmRSS:")) return std::stol(line.substr(6));
  }
  return 0;
}

bool eventually(const std::function<bool()>& holds, std::chrono::milliseconds patience = 5s) {
  const auto limit = Program::Clock::now() + patience;
  while (!holds()) {
    if (Program::Clock::now() > limit) return false;
    std::this_thread::sleep_for(1ms);
  }
  return true;
}

void expect_ends_cleanly(Program& server, int signal) {
  server.signal(signal);
  EXPECT_EQ(server.wait(5s), 0) << server.errors;
}

TEST(HelloServer, GreetsTheTextbooksClient) {
  for (const auto& command :
       {std::vector{kHelloServer, std::string("0")}, {kHelloServer, "--blocking", "0"}}) {
    Program server(command);
    const std::uint16_t port = server.read_port();
    ASSERT_NE(port, 0);
    for (int i = 0; i < 3; ++i) {
      Program client({kHelloClient, "127.0.0.1", std::to_string(port)});
      EXPECT_EQ(client.wait(5s), 0) << client.errors;
      EXPECT_EQ(client.output, "Message from server: Hello World!\n");
    }
    expect_ends_cleanly(server, command.size() == 2 ? SIGINT : SIGTERM);
  }
}

TEST(HelloServer, SaysHowItIsUsed) {
  const std::string usage = "Usage : hello_server <port>\n";
  for (const auto& command : std::vector<std::vector<std::string>>{{kHelloServer},
                                                                   {kHelloServer, "x"},
                                                                   {kHelloServer, "65536"},
                                                                   {kHelloServer, "-1"},
                                                                   {kHelloServer, ""},
                                                                   {kHelloServer, "80", "81"},
                                                                   {kHelloServer, "--blocking"},
                                                                   {kHelloServer, "--blocking", "x"}}) {
    Program server(command);
    EXPECT_EQ(server.wait(5s), 1);
    EXPECT_EQ(server.output, usage);
  }
}

TEST(HelloServer, SaysWhenItsPortIsTaken) {
  Program first({kHelloServer, "0"});
  const std::string port = std::to_string(first.read_port());
  for (const auto& command :
       std::vector<std::vector<std::string>>{{kHelloServer, port}, {kHelloServer, "--blocking", port}}) {
    Program second(command);
    EXPECT_EQ(second.wait(5s), 1);
    EXPECT_NE(second.errors.find("hello_server: bind 0.0.0.0:" + port + ": Address already in use"),
              std::string::npos)
        << second.errors;
  }
}

TEST(PoolServer, ServesAtNoOtherPortThanItWasAskedFor) {
  const std::string path = "@anteroom-programs-" + std::to_string(::getpid());
  Program first({kPoolServer, "0", "--threads", "1", "--handover", path});
  const std::string port = std::to_string(first.read_port());
  const std::string other = port == "1024" ? "1025" : "1024";
  Program lost({kPoolServer, other, "--handover", path});
  EXPECT_EQ(lost.wait(10s), 1);
  EXPECT_EQ(lost.errors, "pool_server: port " + other +
                             " was asked for, and what is taken over listens on 0.0.0.0:" + port +
                             "; 0 takes whatever it is\n");
  Program second({kPoolServer, port, "--handover", path});
  EXPECT_EQ(std::to_string(second.read_port()), port);
  EXPECT_EQ(first.wait(10s), 0) << "it went on until its successor came: " << first.errors;
  expect_ends_cleanly(second, SIGTERM);
}

/// Where nobody reads any more.
TEST(PoolServer, OutlivesTheReaderOfItsOutput) {
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe2(pipe.data(), O_CLOEXEC), 0);
  Fd reader(pipe[0]);
  Fd writer(pipe[1]);
  const std::string path = "@anteroom-programs-" + std::to_string(::getpid());
  Program server({kPoolServer, "0", "--threads", "1", "--handover", path}, [&] {
    ::dup2(writer.get(), STDOUT_FILENO);
    ::dup2(writer.get(), STDERR_FILENO);
  });
  writer.reset();
  std::string line;
  for (char c = 0; ::read(reader.get(), &c, 1) == 1 && c != '\n';) line += c;
  const auto port = static_cast<std::uint16_t>(std::stoi(line.substr(line.rfind(':') + 1)));
  reader.reset();
  server.signal(SIGUSR1);
  const Endpoint offer = Endpoint::unix_path(path);
  const Peer caller(Fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)));
  ASSERT_EQ(::connect(caller.fd(), offer.data(), offer.size()), 0);
  ASSERT_TRUE(caller.send("nonsense"));  // which the server says on its standard error
  for (char byte = 0; ::recv(caller.fd(), &byte, 1, 0) > 0;) {
  }
  EXPECT_TRUE(eventually([&] { return Peer(loopback(port)).receive_all() == "Hello World!"; }));
  expect_ends_cleanly(server, SIGTERM);
}

TEST(HelloClient, SaysHowItIsUsed) {
  for (const auto& command : std::vector<std::vector<std::string>>{{kHelloClient},
                                                                   {kHelloClient, "127.0.0.1"},
                                                                   {kHelloClient, "localhost", "80"},
                                                                   {kHelloClient, "127.0.0.1", "0"},
                                                                   {kHelloClient, "127.0.0.1", "80x"},
                                                                   {kHelloClient, "127.0.0.1", "80", "1"}}) {
    Program client(command);
    EXPECT_EQ(client.wait(5s), 1);
    EXPECT_EQ(client.output, "Usage : hello_client <IP> <port>\n");
  }
}

TEST(HelloClient, SaysThatNobodyListens) {
  const Peer taken(Fd(::socket(AF_INET, SOCK_STREAM, 0)));
  ASSERT_EQ(::bind(taken.fd(), loopback(0).data(), loopback(0).size()), 0);
  Program client({kHelloClient, "127.0.0.1", std::to_string(taken.local().port())});
  EXPECT_EQ(client.wait(5s), 1);
  EXPECT_NE(client.errors.find("nobody listens there"), std::string::npos) << client.errors;
}

TEST(HelloClient, SaysThatItWasNotGreetedWhenItWaitsLikeAGhost) {
  const Peer listener(Fd(::socket(AF_INET, SOCK_STREAM, 0)));  // listens and never accepts
  ASSERT_EQ(::bind(listener.fd(), loopback(0).data(), loopback(0).size()), 0);
  ASSERT_EQ(::listen(listener.fd(), 5), 0);
  const auto begin = Program::Clock::now();
  Program client({kHelloClient, "127.0.0.1", std::to_string(listener.local().port())});
  EXPECT_EQ(client.wait(8s), 1);
  EXPECT_NE(client.errors.find("connected to 127.0.0.1"), std::string::npos) << client.errors;
  EXPECT_NE(client.errors.find("not greeted within 5 s"), std::string::npos) << client.errors;
  EXPECT_GE(Program::Clock::now() - begin, 5s);
}

TEST(EchoServer, SendsTheWholeAnswerAfterTheRequestsFin) {
  Program server({kEchoServer, "0"});
  Peer peer(loopback(server.read_port()));
  const std::string request(300'000, 'x');
  std::thread sender([&] {
    EXPECT_TRUE(peer.send(request));
    peer.finish();
  });
  std::string answer;
  char bytes[65536];
  for (ssize_t count = 0; (count = ::recv(peer.fd(), bytes, sizeof(bytes), 0)) > 0;)
    answer.append(bytes, static_cast<std::size_t>(count));
  sender.join();
  EXPECT_EQ(answer.size(), request.size());
  expect_ends_cleanly(server, SIGTERM);
}

TEST(EchoServer, DoesNotGrowForAClientThatDoesNotRead) {
  if (kIsSanitized) GTEST_SKIP() << "a sanitizer keeps what is freed";
  Program server({kEchoServer, "0"});
  const std::uint16_t port = server.read_port();
  { Peer(loopback(port)).send("x"); }
  const long before = resident_kib(server.pid());
  const Peer peer(loopback(port));
  const std::string chunk(256 * 1024, 'x');
  std::size_t sent = 0;
  constexpr std::size_t kWanted = 64 * 1024 * 1024;
  int full = 0;
  while (sent < kWanted && full < 20) {
    const std::size_t count = peer.send_some(chunk);
    sent += count;
    full = count == 0 ? full + 1 : 0;
    if (count == 0) std::this_thread::sleep_for(10ms);
  }
  EXPECT_LT(sent, kWanted) << "it has to push back";
  EXPECT_LT(resident_kib(server.pid()) - before, 2048);
  expect_ends_cleanly(server, SIGTERM);
}

/// With 64 descriptors and 120 guests that stay, the doorman rests; as they leave, everybody is served.
TEST(EchoServer, RestsWithoutDescriptorsAndForgetsNobody) {
  Program server({kEchoServer, "0"}, [] {
    const rlimit few{.rlim_cur = 64, .rlim_max = 64};
    ::setrlimit(RLIMIT_NOFILE, &few);
  });
  const Endpoint door = loopback(server.read_port());
  std::vector<Peer> served;
  std::vector<Peer> waiting;
  for (int i = 0; i < 120; ++i) {
    Peer peer(door);
    ASSERT_TRUE(peer.send("hello"));
    waiting.push_back(std::move(peer));
  }
  const auto count_served = [&] {
    for (auto it = waiting.begin(); it != waiting.end();) {
      char bytes[8];
      if (::recv(it->fd(), bytes, sizeof(bytes), MSG_DONTWAIT) == 5) {
        served.push_back(std::move(*it));
        it = waiting.erase(it);
      } else {
        ++it;
      }
    }
    return served.size();
  };
  ASSERT_TRUE(eventually([&] { return count_served() >= 50; }));
  const auto cpu_before = cpu_of(server.pid());
  std::this_thread::sleep_for(2s);  // the time is what is measured here: 2 % of it is 40 ms
  const auto cpu_spent = cpu_of(server.pid()) - cpu_before;
  EXPECT_LE(cpu_spent, kIsSanitized ? 200ms : 40ms);
  const std::size_t places = count_served();
  EXPECT_LT(places, 64U);
  EXPECT_EQ(places + waiting.size(), 120U);
  served.clear();
  const std::size_t next_lot = std::min(places, waiting.size());
  const auto left = Program::Clock::now();
  EXPECT_TRUE(eventually([&] { return count_served() >= next_lot; }));
  EXPECT_LT(Program::Clock::now() - left, 1s);
  served.clear();
  EXPECT_TRUE(eventually([&] {
    count_served();
    return waiting.empty();
  }));
  served.clear();
  expect_ends_cleanly(server, SIGTERM);
  const auto lines = std::ranges::count(server.errors, '\n');
  EXPECT_GE(lines, 1) << "it says that it rests";
  EXPECT_LE(lines, 5) << server.errors;
  EXPECT_NE(server.errors.find("Too many open files"), std::string::npos) << server.errors;
}

/// Random connects, writes, half-closes and resets.
TEST(EchoServer, SurvivesChaosAndIsIdleAfterwards) {
  Program server({kEchoServer, "0"});
  const Endpoint door = loopback(server.read_port());
  const std::size_t descriptors = descriptors_of(server.pid());
  std::mt19937 random(4711);
  const auto below = [&](unsigned bound) { return random() % bound; };
  std::vector<Peer> peers;
  const auto end = Program::Clock::now() + 2s;
  while (Program::Clock::now() < end) {
    const unsigned step = below(10);
    if (peers.size() < 50 && step < 3) {
      peers.emplace_back(door);
      continue;
    }
    if (peers.empty()) continue;
    const std::size_t which = below(static_cast<unsigned>(peers.size()));
    Peer& peer = peers[which];
    if (step < 7) {
      (void)peer.send_some(std::string(1 + below(70'000), 'c'));
    } else if (step == 7) {
      peer.finish();
    } else {
      step == 8 ? peer.reset() : peer.close();
      peers.erase(peers.begin() + static_cast<std::ptrdiff_t>(which));
    }
  }
  peers.clear();
  EXPECT_TRUE(eventually([&] { return descriptors_of(server.pid()) == descriptors; }, 10s));
  const auto cpu_before = cpu_of(server.pid());
  std::this_thread::sleep_for(500ms);  // the time is what is measured
  EXPECT_LE(cpu_of(server.pid()) - cpu_before, 20ms);
  Peer fresh(door);
  ASSERT_TRUE(fresh.send("alive?"));
  fresh.finish();
  EXPECT_EQ(fresh.receive_all(), "alive?");
  expect_ends_cleanly(server, SIGINT);
}

}  // namespace
}  // namespace anteroom
