#include <anteroom/acceptor.h>
#include <anteroom/connector.h>
#include <anteroom/reactor.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <chrono>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <system_error>
#include <vector>

#include "support/descriptors.h"
#include "support/own_network.h"
#include "support/peer.h"
#include "support/thrown.h"
#include "support/turns.h"

namespace anteroom {
namespace {

using namespace std::chrono_literals;
using namespace test;

constexpr const char* kPortRange = "/proc/sys/net/ipv4/ip_local_port_range";

/// As long as it lives, the kernel picks local ports from this range only.
class PortRange {
 public:
  explicit PortRange(const std::string& range) : set_(set_network_sysctl(kPortRange, range)) {}
  ~PortRange() {
    if (set_) (void)set_network_sysctl(kPortRange, "32768 60999");
  }
  PortRange(const PortRange&) = delete;
  PortRange& operator=(const PortRange&) = delete;
  bool is_set() const { return set_; }

 private:
  bool set_;
};

/// What has become of each call.
class ConnectorTest : public testing::Test {
 protected:
  ConnectionHandlers handlers() {
    return {.open = [this](Connection& caller) { open.insert(caller.id()); },
            .closed =
                [this](Connection& caller, std::error_code error) {
                  EXPECT_TRUE(closed.emplace(caller.id(), error).second);
                  EXPECT_EQ(caller.was_open(), open.count(caller.id()) == 1);
                }};
  }
  /// Calls, waits for the outcome, and says it; no error if it came to be open.
  std::error_code call(const Endpoint& to, const ConnectOptions& options = {}) {
    const ConnectResult result = connector.connect(to, options);
    if (result.error) return result.error;
    EXPECT_NE(result.id, ChannelId::kNone);
    EXPECT_TRUE(turn_until(reactor, [&] { return open.count(result.id) + closed.count(result.id) > 0; }));
    last = result.id;
    return closed.count(result.id) == 1 ? closed[result.id] : std::error_code();
  }

  Reactor reactor;
  std::set<ChannelId> open;
  std::map<ChannelId, std::error_code> closed;
  ChannelId last = ChannelId::kNone;
  Connector connector{reactor, handlers()};
};

TEST_F(ConnectorTest, Connects) {
  const Acceptor acceptor(reactor, kLoopback, {});
  int context = 0;
  const ConnectResult result = connector.connect(acceptor.endpoint(), {.context = &context});
  ASSERT_FALSE(result.error);
  EXPECT_TRUE(open.empty()) << "told by the turn, and not from inside";
  EXPECT_FALSE(reactor.find<Connection>(result.id)->is_open());
  ASSERT_TRUE(turn_until(reactor, [&] { return open.count(result.id) == 1; }));
  const auto* const caller = reactor.find<Connection>(result.id);
  EXPECT_TRUE(caller->is_open());
  EXPECT_EQ(caller->peer(), acceptor.endpoint());
  EXPECT_EQ(caller->context(), &context);
}

TEST_F(ConnectorTest, TalksToWhoLetsItIn) {
  Acceptor acceptor(reactor, kLoopback,
                    {.data = [](Connection& guest, std::string_view bytes) { guest.send(bytes); }});
  std::string heard;
  Connector talking(reactor, {.open = [](Connection& caller) { caller.send("ping"); },
                              .data =
                                  [&](Connection& caller, std::string_view bytes) {
                                    heard += bytes;
                                    caller.close();
                                  },
                              .closed =
                                  [&](Connection&, std::error_code error) {
                                    EXPECT_FALSE(error);
                                    heard += '.';
                                  }});
  EXPECT_FALSE(talking.connect(acceptor.endpoint()).error);
  ASSERT_TRUE(turn_until(reactor, [&] { return heard == "ping."; }));
}

TEST_F(ConnectorTest, IsGreetedByWhoSpeaksFirstAndHangsUp) {
  Acceptor acceptor(reactor, kLoopback,
                    {.open = [](Connection& guest) { guest.send("Hello World!"), guest.close(); }});
  std::string heard;
  int ended = 0;
  Connector listening(reactor, {.data = [&](Connection&, std::string_view bytes) { heard += bytes; },
                                .closed =
                                    [&](Connection& caller, std::error_code error) {
                                      EXPECT_TRUE(caller.was_open());
                                      EXPECT_FALSE(error);
                                      ++ended;
                                    }});
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(listening.connect(acceptor.endpoint()).error);
  ASSERT_TRUE(turn_until(reactor, [&] { return ended == 100; }));
  EXPECT_EQ(heard.size(), 1200U);
}

TEST_F(ConnectorTest, ConnectsOverIPv6) {
  std::optional<Acceptor> acceptor;
  try {
    acceptor.emplace(reactor, Endpoint("::1", 0), ConnectionHandlers{});
  } catch (const std::system_error& error) {
    GTEST_SKIP() << "no IPv6 here: " << error.what();
  }
  EXPECT_FALSE(call(acceptor->endpoint()));
  EXPECT_FALSE(call(acceptor->endpoint(), {.source = Endpoint("::1", 0)}));
}

TEST_F(ConnectorTest, SaysThatNobodyListens) {
  EXPECT_EQ(call(closed_endpoint()), std::errc::connection_refused);
  EXPECT_TRUE(open.empty());
}

TEST_F(ConnectorTest, GivesUpAtItsDeadline) {
  const Listener full(kLoopback, {.backlog = 0});
  const Peer only(full.endpoint());
  const auto begin = Reactor::Clock::now();
  EXPECT_EQ(call(full.endpoint(), {.deadline = 25ms}), std::errc::timed_out);
  EXPECT_GE(Reactor::Clock::now() - begin, 25ms);
  EXPECT_TRUE(open.empty());
}

TEST_F(ConnectorTest, ForgetsItsDeadlineOnceItIsIn) {
  const Acceptor acceptor(reactor, kLoopback, {});
  // The deadline has passed before the turn looks, but so has the handshake: whichever is told first, it is
  // one of them.
  EXPECT_FALSE(call(acceptor.endpoint(), {.deadline = 200ms}));
  const auto begin = Reactor::Clock::now();
  ASSERT_TRUE(turn_until(reactor, [&] { return Reactor::Clock::now() > begin + 220ms; }));
  EXPECT_TRUE(closed.empty());
}

TEST_F(ConnectorTest, CallsFromTheSourceItIsTold) {
  std::vector<Endpoint> callers;
  const Acceptor acceptor(reactor, kLoopback,
                          {.open = [&](Connection& guest) { callers.push_back(guest.peer()); }});
  const Endpoint source("127.0.0.2", 0);
  EXPECT_FALSE(call(acceptor.endpoint(), {.source = source}));
  ASSERT_TRUE(turn_until(reactor, [&] { return callers.size() == 1; }));
  EXPECT_EQ(callers[0], Endpoint("127.0.0.2", callers[0].port()));
  EXPECT_NE(callers[0].port(), 0);
}

TEST_F(ConnectorTest, CallsManyTimesFromOneSource) {
  const Acceptor acceptor(reactor, kLoopback, {});
  for (int i = 0; i < 200; ++i) {
    EXPECT_FALSE(connector.connect(acceptor.endpoint(), {.source = Endpoint("127.0.0.2", 0)}).error);
  }
  ASSERT_TRUE(turn_until(reactor, [&] { return open.size() == 200 && acceptor.stats().accepted == 200; }));
  EXPECT_TRUE(closed.empty());
}

// A port that is picked at bind(2) is taken for every destination; one that is picked at connect(2) only for
// that one.
TEST_F(ConnectorTest, ReachesEachDestinationFromAllPortsOfOneSource) {
  const PortRange range("50000 50009");
  if (!range.is_set()) GTEST_SKIP() << "the range of local ports is not ours to change";
  const Listener first(Endpoint("127.0.0.1", 7001));
  const Listener second(Endpoint("127.0.0.1", 7002));
  for (const Listener* listener : {&first, &second}) {
    for (int i = 0; i < 8; ++i)
      EXPECT_FALSE(call(listener->endpoint(), {.source = Endpoint("127.0.0.3", 0)}));
  }
}

TEST_F(ConnectorTest, SaysAtOnceThatASourceIsNotOurs) {
  const Acceptor acceptor(reactor, kLoopback, {});
  const int before = open_descriptors();
  const ConnectResult result = connector.connect(acceptor.endpoint(), {.source = Endpoint("192.0.2.1", 0)});
  EXPECT_EQ(result.error, std::errc::address_not_available);
  EXPECT_EQ(result.id, ChannelId::kNone);
  turn_times(reactor, 3);
  EXPECT_TRUE(closed.empty());
  EXPECT_EQ(open_descriptors(), before);
}

TEST_F(ConnectorTest, SaysAtOnceThatThereIsNoDescriptor) {
  const Acceptor acceptor(reactor, kLoopback, {});
  const DescriptorLimit limit(0);
  const ConnectResult result = connector.connect(acceptor.endpoint());
  EXPECT_EQ(result.error, std::errc::too_many_files_open);
  EXPECT_EQ(result.id, ChannelId::kNone);
}

TEST_F(ConnectorTest, SaysAtOnceThatThereIsNoSuchFamily) {
  EXPECT_EQ(connector.connect(Endpoint()).error, std::errc::address_family_not_supported);
}

TEST_F(ConnectorTest, RefusesANegativeDeadlineAtOnce) {
  const Acceptor acceptor(reactor, kLoopback, {});
  const int before = open_descriptors();
  const ConnectResult result = connector.connect(acceptor.endpoint(), {.deadline = -1ns});
  EXPECT_EQ(result.error, std::errc::invalid_argument);
  EXPECT_EQ(result.id, ChannelId::kNone);
  EXPECT_EQ(open_descriptors(), before);
  EXPECT_FALSE(call(acceptor.endpoint(), {.deadline = 0ns})) << "none: the kernel's own";
}

TEST_F(ConnectorTest, RefusesASourceThatIsNoAddressAtOnce) {
  const Acceptor acceptor(reactor, kLoopback, {});
  EXPECT_EQ(connector.connect(acceptor.endpoint(), {.source = Endpoint()}).error,
            std::errc::invalid_argument);
}

TEST(Connector, RefusesOptionsThatMakeNoSenseWhenItIsMade) {
  Reactor reactor;
  const Thrown thrown = thrown_by([&] {
    const Connector connector(reactor, {}, {.linger = -1ms});
    return 0;
  });
  EXPECT_EQ(thrown.code, std::errc::invalid_argument);
  EXPECT_NE(thrown.what.find("linger"), std::string::npos) << thrown.what;
}

// Words that are given with close() and cannot be sent were lost without an error.
TEST_F(ConnectorTest, ReportsLastWordsOfAConnectionThatIsNotOpenYet) {
  const Acceptor acceptor(reactor, kLoopback, {});
  const ConnectResult words = connector.connect(acceptor.endpoint());
  const ConnectResult none = connector.connect(acceptor.endpoint());
  reactor.find<Connection>(words.id)->close("words");
  reactor.find<Connection>(none.id)->close("");
  ASSERT_TRUE(turn_until(reactor, [&] { return closed.size() == 2; }));
  EXPECT_EQ(closed[words.id], std::errc::not_connected);
  EXPECT_FALSE(closed[none.id]) << "nothing was lost";
  EXPECT_TRUE(open.empty());
}

TEST_F(ConnectorTest, SaysThatNoLocalPortIsFree) {
  const PortRange range("50000 50003");
  if (!range.is_set()) GTEST_SKIP() << "the range of local ports is not ours to change";
  const Listener listener(Endpoint("127.0.0.1", 7000));
  int connected = 0;
  std::error_code error;
  for (int i = 0; i < 6 && !error; ++i) {
    error = call(listener.endpoint());
    if (!error) ++connected;
  }
  EXPECT_EQ(error, std::errc::address_not_available);
  EXPECT_GE(connected, 2);
  EXPECT_LE(connected, 4);
}

// ---- Who meets himself: a connect to a free local port may pick that very port for its own end.

TEST_F(ConnectorTest, NeverMeetsItself) {
  const PortRange range("50000 50009");  // so that it happens every few calls
  Connector fresh(reactor, handlers());  // that knows of the range
  const int attempts = range.is_set() ? 1000 : 3000;
  const Endpoint nobody = range.is_set() ? Endpoint("127.0.0.1", 50004) : closed_endpoint();
  for (int i = 0; i < attempts; ++i) {
    const ConnectResult result = fresh.connect(nobody);
    ASSERT_FALSE(result.error);
    if (i % 8 == 7) reactor.turn(0ms);
  }
  ASSERT_TRUE(turn_until(reactor, [&] { return closed.size() == static_cast<std::size_t>(attempts); }));
  EXPECT_TRUE(open.empty()) << "it has spoken to itself";
  for (const auto& [id, error] : closed) {
    EXPECT_TRUE(error == std::errc::connection_refused || error == std::errc::address_not_available)
        << error.message();
  }
}

// Found by this test: only loopback addresses were thought to be this machine's.
TEST_F(ConnectorTest, NeverMeetsItselfOnAnAddressThatIsNoLoopback) {
  const PortRange range("50000 50009");
  if (!range.is_set()) GTEST_SKIP() << "the range of local ports is not ours to change";
  const Endpoint nobody("198.51.100.7", 50004);
  {
    const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ifreq request{};
    std::strcpy(request.ifr_name, "lo:1");
    std::memcpy(&request.ifr_addr, nobody.data(), nobody.size());
    ASSERT_EQ(::ioctl(socket.get(), SIOCSIFADDR, &request), 0) << "the interface is our own";
  }
  Connector fresh(reactor, handlers());
  for (int i = 0; i < 500; ++i) {
    ASSERT_FALSE(fresh.connect(nobody).error);
    if (i % 8 == 7) reactor.turn(0ms);
  }
  ASSERT_TRUE(turn_until(reactor, [&] { return closed.size() == 500; }));
  EXPECT_TRUE(open.empty()) << "it has spoken to itself";
}

// ---- Unix sockets

TEST_F(ConnectorTest, ConnectsToAUnixSocket) {
  std::string heard;
  const Acceptor acceptor(reactor, Endpoint::unix_path("@anteroom-connector-test"),
                          {.data = [&](Connection&, std::string_view bytes) { heard += bytes; }});
  EXPECT_FALSE(call(acceptor.endpoint()));
  reactor.find<Connection>(last)->send("knock");
  ASSERT_TRUE(turn_until(reactor, [&] { return heard == "knock"; }));
}

TEST_F(ConnectorTest, SaysWhatIsWrongWithAUnixSocket) {
  EXPECT_EQ(call(Endpoint::unix_path("@anteroom-nobody")), std::errc::connection_refused);
  EXPECT_EQ(call(Endpoint::unix_path("/no/such/socket")), std::errc::no_such_file_or_directory);
  const Listener full(Endpoint::unix_path("@anteroom-connector-test"), {.backlog = 0});
  const Peer only(full.endpoint());
  EXPECT_EQ(call(full.endpoint()), std::errc::resource_unavailable_try_again);
  EXPECT_TRUE(open.empty());
}

// ---- Its end

TEST_F(ConnectorTest, EndsItsConnectionsWhichStillSendWhatTheyHold) {
  std::string heard;
  int ended = 0;
  const Acceptor acceptor(reactor, kLoopback,
                          {.data = [&](Connection&, std::string_view bytes) { heard += bytes; },
                           .closed =
                               [&](Connection&, std::error_code error) {
                                 EXPECT_FALSE(error);
                                 ++ended;
                               }});
  const std::string speech = pattern(6 << 20);
  {
    bool is_in = false;
    Connector mortal(reactor, {.open =
                                   [&](Connection& caller) {
                                     caller.send(speech);
                                     is_in = true;
                                   },
                               .closed = [](Connection&, std::error_code) { FAIL(); }});
    EXPECT_FALSE(mortal.connect(acceptor.endpoint()).error);
    ASSERT_TRUE(turn_until(reactor, [&] { return is_in; }));
    EXPECT_FALSE(mortal.connect(acceptor.endpoint()).error) << "one more, of which nothing will be told";
  }
  ASSERT_TRUE(turn_until(reactor, [&] { return heard.size() == speech.size() && ended >= 1; }));
  EXPECT_TRUE(heard == speech);
}

// ---- Words

TEST(DescribeConnectError, SaysWhereAndWhatForEachError) {
  const Endpoint to("127.0.0.1", 7777);
  std::set<std::string> sentences;
  const std::vector<int> errors = {ECONNREFUSED, ETIMEDOUT,   EADDRNOTAVAIL, EADDRINUSE, EMFILE,
                                   ENFILE,       ENETUNREACH, EHOSTUNREACH,  ECONNRESET, EACCES,
                                   EAFNOSUPPORT, ENOENT,      EAGAIN,        ENOMEM};
  for (const int error : errors) {
    const std::string sentence = describe_connect_error({error, std::system_category()}, to);
    EXPECT_EQ(sentence.substr(0, 16), "127.0.0.1:7777: ");
    EXPECT_GT(sentence.size(), 30U);
    EXPECT_TRUE(sentences.insert(sentence).second) << "two errors, one sentence: " << sentence;
  }
  const std::error_code refused(ECONNREFUSED, std::system_category());
  EXPECT_EQ(describe_connect_error(refused, to), "127.0.0.1:7777: nobody listens there (connection refused)");
  EXPECT_EQ(describe_connect_error({EPERM, std::system_category()}, to),
            describe_connect_error({EACCES, std::system_category()}, to));
  EXPECT_EQ(describe_connect_error({ENOBUFS, std::system_category()}, to),
            describe_connect_error({ENOMEM, std::system_category()}, to));
  EXPECT_EQ(describe_connect_error({EPIPE, std::system_category()}, Endpoint::unix_path("/door")),
            "unix:/door: Broken pipe");
  EXPECT_EQ(describe_connect_error({EACCES, std::system_category()}, Endpoint::unix_path("/door")),
            "unix:/door: not permitted (the rights of the socket, or of a folder above it)");
}

}  // namespace
}  // namespace anteroom
