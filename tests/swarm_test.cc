// The clients, against little servers that answer, answer otherwise, or never close.
#include <anteroom/acceptor.h>
#include <anteroom/bench/socket_diag.h>
#include <anteroom/bench/swarm.h>
#include <anteroom/timer.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <netinet/tcp.h>
#include <poll.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "support/own_network.h"
#include "support/peer.h"

namespace anteroom::bench {
namespace {

using namespace std::chrono_literals;

/// What nothing that works comes near, and a run that is held up would take.
constexpr auto kLong = 60s;

/// A reactor with a door, in a thread of its own.
class Server {
 public:
  explicit Server(ConnectionHandlers handlers, const Endpoint& at = test::kLoopback)
      : acceptor_(reactor_, at, std::move(handlers)),
        endpoint_(acceptor_.endpoint()),
        thread_([this] { reactor_.run(); }) {}
  ~Server() {
    reactor_.stop();
    thread_.join();
  }
  Server(const Server&) = delete;

  Endpoint endpoint() const { return endpoint_; }

  /// Of its own thread only.
  void send_later(const Connection& guest, std::chrono::nanoseconds delay, std::string_view bytes) {
    timers_.emplace_back(reactor_, [this, id = guest.id(), bytes] {
      if (auto* const again = reactor_.find<Connection>(id)) again->send(bytes);
    });
    timers_.back().arm(delay);
  }

 private:
  Reactor reactor_;
  std::vector<Timer> timers_;
  Acceptor acceptor_;
  const Endpoint endpoint_;  // the acceptor is the thread's once it runs
  std::thread thread_;
};

/// Says `answer` to whoever says anything, and stays.
ConnectionHandlers answering(const std::string& answer) {
  return {.data = [answer](Connection& guest, std::string_view) { guest.send(answer); }};
}

/// So many clients, all at once.
std::vector<ClientRecord> play(SwarmPlan plan, std::size_t clients) {
  std::vector<ClientRecord> records(clients);
  plan.records = records;
  plan.start = std::chrono::steady_clock::now();
  if (plan.end == 0ns) plan.end = kLong;
  run_swarm(plan);
  return records;
}

Fates fates_of(const std::vector<ClientRecord>& records) {
  Fates fates;
  for (const ClientRecord& record : records) ++fates[record.fate];
  return fates;
}

Dialogue ping(bool server_closes) {
  return {.request = "PING\r\n", .expect = "+PONG", .server_closes = server_closes};
}

TEST(Swarm, IsServedByTheExpectedAnswerAndThenCloses) {
  const Server server(answering("+PONG\r\n"));
  const auto records = play({.server = server.endpoint(), .dialogue = ping(false)}, 50);
  EXPECT_EQ(fates_of(records)[Fate::kServedAtOnce], 50U);
  for (const ClientRecord& record : records) EXPECT_GE(record.first_byte_ns, record.writable_ns);
}

TEST(Swarm, IsServedWhenTheAnswerIsWholeNotByItsFirstByte) {
  constexpr auto kBetween = 30ms;
  Server server({.data = [&](Connection& guest, std::string_view) {
    guest.send("+PO");
    server.send_later(guest, kBetween, "NG\r\n");
  }});
  const auto records = play({.server = server.endpoint(), .dialogue = ping(false)}, 5);
  EXPECT_EQ(fates_of(records)[Fate::kServedAtOnce], 5U);
  for (const ClientRecord& record : records)
    EXPECT_GE(record.first_byte_ns - record.writable_ns, std::chrono::nanoseconds(kBetween).count());
}

TEST(Swarm, IsAnsweredOtherwiseByAnHttpServerThatHasNoSuchPage) {
  const Server server({.data = [](Connection& guest, std::string_view) {
    guest.send("HTTP/1.1 404 Not Found\r\n\r\n");
    guest.close();
  }});
  const auto records = play({.server = server.endpoint(), .dialogue = http_dialogue("/", "localhost")}, 3);
  EXPECT_EQ(fates_of(records)[Fate::kAnsweredOtherwise], 3U);
  for (const ClientRecord& record : records) EXPECT_EQ(record.first_byte_ns, -1);
}

TEST(Swarm, IsAnsweredOtherwiseByAnEndBeforeTheAnswerIsWhole) {
  const Server server({.data = [](Connection& guest, std::string_view) {
    guest.send("+PO");
    guest.close();
  }});
  const auto records = play({.server = server.endpoint(), .dialogue = ping(true)}, 3);
  EXPECT_EQ(fates_of(records)[Fate::kAnsweredOtherwise], 3U);
}

TEST(Swarm, IsAnsweredOtherwiseByWhatIsStillNoAnswerAtTheEnd) {
  const Server server(answering("-ERR unknown command\r\n"));
  const auto records = play({.server = server.endpoint(), .dialogue = ping(true), .end = 300ms}, 3);
  EXPECT_EQ(fates_of(records)[Fate::kAnsweredOtherwise], 3U);
}

TEST(Swarm, StopsListeningToWhoTalksForEver) {
  const Server server({.open = [](Connection& guest) { guest.send(std::string(100'000, 'x')); }});
  const auto records = play({.server = server.endpoint(), .dialogue = {.expect = "y"}}, 3);
  EXPECT_EQ(fates_of(records)[Fate::kAnsweredOtherwise], 3U);
}

TEST(Swarm, IsResetAfterTheAcceptByAnOrderlyEndWithoutAByte) {
  const Server server({.open = [](Connection& guest) { guest.close(); }});
  const auto records = play({.server = server.endpoint()}, 3);
  EXPECT_EQ(fates_of(records)[Fate::kResetAfterAccept], 3U);
}

TEST(Swarm, ClosesWhomAGreetingServerKeepsBeforeTheEnd) {
  std::vector<std::string> seen;
  const auto greet = [&](Connection& guest) {
    seen.emplace_back("open");
    guest.send("220 mail.example ESMTP\r\n");
  };
  const auto closed = [&](Connection&, std::error_code error) {
    seen.push_back(error ? error.message() : "closed in order");
  };
  std::vector<ClientRecord> records(2);
  records[1].intended_ns = std::chrono::nanoseconds(800ms).count();
  {
    const Server server({.open = greet, .closed = closed});
    run_swarm({.server = server.endpoint(),
               .records = records,
               .start = std::chrono::steady_clock::now(),
               .end = kLong});
  }
  EXPECT_EQ(fates_of(records)[Fate::kServedAtOnce], 2U);
  ASSERT_GE(seen.size(), 3U);
  EXPECT_EQ(seen[0], "open");
  EXPECT_EQ(seen[1], "closed in order");
  EXPECT_EQ(seen[2], "open");
}

TEST(Swarm, IsNotHeldUpByAServerThatNeverCloses) {
  std::vector<Fd> guests;
  Listener listener(test::kLoopback, {.blocking = true});
  std::thread server([&] {
    for (int i = 0; i < 3; ++i) {
      guests.emplace_back(::accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC));
      (void)::send(guests.back().get(), "hi", 2, MSG_NOSIGNAL);
    }
  });
  const auto begin = std::chrono::steady_clock::now();
  const auto records = play({.server = listener.endpoint()}, 3);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, kLong / 4);
  EXPECT_EQ(fates_of(records)[Fate::kServedAtOnce], 3U);
  server.join();
}

TEST(Swarm, TellsNoGhostsWithoutTheServersSide) {
  const Listener listener(test::kLoopback);
  EXPECT_EQ(fates_of(play({.server = listener.endpoint(), .end = 100ms}, 3))[Fate::kDeadline], 3U);
  const auto knows_nobody = [] { return std::vector<ConnectedSocket>(); };
  const auto records = play({.server = listener.endpoint(), .end = 100ms, .server_sockets = knows_nobody}, 3);
  EXPECT_EQ(fates_of(records)[Fate::kGhostUnknown], 3U);
}

TEST(Swarm, FindsItsClientsOnTheServersSideInIPv4AndIPv6) {
  for (const auto& [listens, calls] : {std::pair("::1", "::1"), std::pair("::", "127.0.0.1"),
                                       std::pair("::", "::1"), std::pair("127.0.0.1", "127.0.0.1")}) {
    const Listener listener(Endpoint(listens, 0));
    const Endpoint server(calls, listener.endpoint().port());
    SocketDiag diag;
    const auto as_it_is = [&] { return diag.connections(server.port()); };
    const auto half_open = [&] {
      std::vector<ConnectedSocket> sockets = diag.connections(server.port());
      for (ConnectedSocket& socket : sockets) socket.state = TCP_SYN_RECV;
      return sockets;
    };
    const auto known = play({.server = server, .end = 100ms, .server_sockets = as_it_is}, 3);
    EXPECT_EQ(fates_of(known)[Fate::kDeadline], 3U) << listens << ' ' << calls;
    const auto ghosts = play({.server = server, .end = 100ms, .server_sockets = half_open}, 3);
    EXPECT_EQ(fates_of(ghosts)[Fate::kGhostHalfOpen], 3U) << listens << ' ' << calls;
  }
}

TEST(Swarm, CallsAgainInAClosedLoopAsSoonAsItIsServed) {
  constexpr std::size_t kFlows = 2;
  const Server server(answering("+PONG\r\n"));
  const auto records = play({.server = server.endpoint(), .flows = kFlows, .dialogue = ping(false)}, 200);
  EXPECT_EQ(fates_of(records)[Fate::kServedAtOnce], 200U);
  std::vector<std::int64_t> served;
  for (const ClientRecord& record : records) served.push_back(record.first_byte_ns);
  std::ranges::sort(served);
  for (std::size_t i = kFlows; i < records.size(); ++i)
    EXPECT_GE(records[i].called_ns, served[i - kFlows]);  // so many had been served before
}

/// Whom `listener` takes in has every segment dropped that has data in it: with a request of kManyBytes, and
/// headers of 60 bytes at most.
constexpr std::size_t kManyBytes = 100;
bool drop_requests(const Listener& listener) {
  constexpr std::uint32_t kHeaderMax = 60;
  sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0),
                        BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, kHeaderMax, 0, 1), BPF_STMT(BPF_RET | BPF_K, 0),
                        BPF_STMT(BPF_RET | BPF_K, 0xffff)};
  const sock_fprog program{.len = 4, .filter = code};
  return ::setsockopt(listener.fd(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) == 0;
}

TEST(Swarm, CountsTheSegmentsOfItsRequestSentAgainServedOrNot) {
  Listener listener(test::kLoopback, {.blocking = true});
  ASSERT_TRUE(drop_requests(listener));
  // One is answered without having been heard, one gets a piece of an answer and its end, and one waits until
  // the end: each after the first 0.2 s, when what nobody acknowledged is sent again.
  std::vector<Fd> guests;
  std::thread server([&] {
    for (int i = 0; i < 3; ++i) guests.emplace_back(::accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC));
    (void)::poll(nullptr, 0, 500);
    (void)::send(guests[0].get(), "hi", 2, MSG_NOSIGNAL);
    (void)::send(guests[1].get(), "h", 1, MSG_NOSIGNAL);
    (void)::shutdown(guests[1].get(), SHUT_WR);
  });
  const Dialogue talk{.request = std::string(kManyBytes, 'x'), .expect = "hi", .server_closes = false};
  const auto records = play({.server = listener.endpoint(), .dialogue = talk, .end = 1500ms}, 3);
  server.join();
  const Fates fates = fates_of(records);
  EXPECT_EQ(fates[Fate::kServedAtOnce], 1U);
  EXPECT_EQ(fates[Fate::kAnsweredOtherwise], 1U);
  EXPECT_EQ(fates[Fate::kDeadline], 1U);
  for (const ClientRecord& record : records) {
    EXPECT_GE(record.request_retransmits, 1U) << name(record.fate);
    EXPECT_EQ(record.retransmits, 0U) << name(record.fate);
  }
}

TEST(Swarm, ResetsTheLongestServedOfAClosedLoopRatherThanHoldThousands) {
  std::atomic<int> guests{0};
  std::atomic<int> most{0};
  const Server server({.open =
                           [&](Connection& guest) {
                             most = std::max(most.load(), ++guests);
                             guest.send("220 mail.example ESMTP\r\n");
                           },
                       .closed = [&](Connection&, std::error_code) { --guests; }});
  const auto records = play({.server = server.endpoint(), .flows = 5}, 5000);
  EXPECT_EQ(fates_of(records)[Fate::kServedAtOnce], 5000U);
  EXPECT_LE(most.load(), 700);  // 505, and whose end it has not heard of yet
}

TEST(Swarm, EndsWhenItIsToldToStop) {
  const Listener listener(test::kLoopback);
  std::vector<ClientRecord> records(3);
  records[2].intended_ns = std::chrono::nanoseconds(kLong).count() / 2;
  std::atomic<std::uint32_t> called{0};
  std::atomic<bool> stop{false};
  std::thread watch([&] {
    while (called.load() < 2) std::this_thread::yield();
    stop.store(true);
  });
  const auto begin = std::chrono::steady_clock::now();
  run_swarm({.server = listener.endpoint(),
             .records = records,
             .start = begin,
             .end = kLong,
             .stop = &stop,
             .called = &called});
  watch.join();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, kLong / 4);
  EXPECT_EQ(fates_of(records)[Fate::kDeadline], 2U);
  EXPECT_EQ(fates_of(records)[Fate::kNotStarted], 1U);
  EXPECT_LT(records[0].ended_ns, std::chrono::nanoseconds(kLong).count() / 4);
}

TEST(PeerKey, IsTheSameForAnIPv4ClientAndItsMappedAddress) {
  EXPECT_EQ(peer_key({"127.0.0.1", 4711}), peer_key({"::ffff:127.0.0.1", 4711}));
  EXPECT_NE(peer_key({"127.0.0.1", 4711}), peer_key({"127.0.0.2", 4711}));
  EXPECT_NE(peer_key({"127.0.0.1", 4711}), peer_key({"127.0.0.1", 4712}));
}

TEST(PeerKey, TellsIPv6ClientsApart) {
  std::vector<std::uint64_t> keys;
  for (int i = 1; i <= 2000; ++i) {
    for (const std::uint16_t port : {1, 65535})
      keys.push_back(peer_key(Endpoint("fd00::" + std::to_string(i), port)));
  }
  std::ranges::sort(keys);
  EXPECT_EQ(std::ranges::adjacent_find(keys), keys.end());
  EXPECT_EQ(peer_key({"::1", 80}), peer_key({"::1", 80}));
  EXPECT_NE(peer_key({"::1", 80}), 0U);
  EXPECT_EQ(peer_key(Endpoint::unix_path("/tmp/door")), 0U);
}

}  // namespace
}  // namespace anteroom::bench
