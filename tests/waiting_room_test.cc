#include <anteroom/acceptor.h>
#include <anteroom/connection.h>
#include <anteroom/listen_queue.h>
#include <anteroom/reactor.h>
#include <anteroom/reactor_pool.h>
#include <anteroom/reuseport_group.h>
#include <anteroom/tcp_info.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "support/descriptors.h"
#include "support/own_network.h"
#include "support/peer.h"
#include "support/turns.h"

/// The acceptor as the keeper of a waiting room: who waits, how many may, who is admitted, who is turned
/// away, and how it leaves.
namespace anteroom {
namespace {

using namespace std::chrono_literals;
using namespace test;

ConnectionHandlers greeting() {
  return {.open = [](Connection& guest) {
    guest.send("Hello World!");
    guest.close();
  }};
}

/// Answers with what it is told, and closes.
ConnectionHandlers echo_once() {
  return {.data = [](Connection& guest, std::string_view bytes) {
    guest.send(bytes);
    guest.close();
  }};
}

bool all_are_over(std::vector<Peer>& peers) {
  bool over = true;
  for (Peer& peer : peers) over = peer.drain() && over;
  return over;
}

/// Calls that do not wait for their answer.
std::vector<Fd> call(const Endpoint& to, int times) {
  std::vector<Fd> sockets;
  for (int i = 0; i < times; ++i) {
    std::error_code error;
    sockets.push_back(open_stream_socket(to.family(), error));
    (void)::connect(sockets.back().get(), to.data(), to.size());
  }
  return sockets;
}

/// A guest with the address `ip`, of 127.0.0.0/8.
Peer peer_from(std::string_view ip, const Endpoint& to) {
  const Endpoint from(ip, 0);
  Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (::bind(socket.get(), from.data(), from.size()) != 0) throw setup_error(last_error(), "bind", ip);
  if (::connect(socket.get(), to.data(), to.size()) != 0)
    throw setup_error(last_error(), "connect", to.to_string());
  return Peer(std::move(socket));
}

/// Time that passes while the server does nothing: it is what is measured here.
void stall(std::chrono::milliseconds length) { std::this_thread::sleep_for(length); }

class WaitingRoom : public testing::Test {
 protected:
  void open(ConnectionHandlers handlers, AcceptorOptions options = {}) {
    acceptor.emplace(reactor, kLoopback, std::move(handlers), std::move(options));
  }
  template <class Predicate>
  bool turn_until(Predicate predicate) {
    return test::turn_until(reactor, predicate);
  }
  const AcceptorStats& stats() const { return acceptor->stats(); }

  Reactor reactor;
  std::optional<Acceptor> acceptor;
};

// ---- What is seen of it

TEST_F(WaitingRoom, TellsItsDepthItsLimitItsPeakAndItsDrops) {
  open(greeting(), {.backlog = Backlog::fixed(4)});
  std::vector<Peer> peers = connect_peers(acceptor->endpoint(), 5);
  const std::vector<Fd> turned_away = call(acceptor->endpoint(), 3);
  ASSERT_TRUE(turn_until([&] { return acceptor->queue()->drops >= 3 || all_are_over(peers); }));
  ASSERT_TRUE(turn_until([&] { return all_are_over(peers); }));
  const std::optional<ListenQueue> queue = acceptor->queue();
  ASSERT_TRUE(queue);
  EXPECT_EQ(queue->depth, 0U);
  EXPECT_EQ(queue->limit, 4U);
  EXPECT_EQ(queue->peak, 5U);
  EXPECT_GE(queue->drops, 3U);
}

TEST_F(WaitingRoom, KnowsAsPeakAlsoThoseWhomNobodyHasLookedAtYet) {
  open(greeting());
  const std::vector<Peer> peers = connect_peers(acceptor->endpoint(), 7);
  EXPECT_EQ(acceptor->queue()->depth, 7U);
  EXPECT_EQ(acceptor->queue()->peak, 7U);
}

TEST_F(WaitingRoom, IsAsLargeAsItsPolicySays) {
  const auto limit_of = [this](Backlog policy) {
    acceptor.reset();
    open(greeting(), {.backlog = policy});
    return acceptor->queue()->limit;
  };
  const auto system_max = static_cast<std::uint32_t>(system_backlog_max());
  EXPECT_EQ(limit_of(Backlog::fixed(7)), 7U);
  EXPECT_EQ(limit_of(Backlog::system_maximum()), system_max);
  EXPECT_EQ(stats().tuned_backlog, 0);
  EXPECT_EQ(limit_of(Backlog::self_tuning()), std::min(system_max, 128U));
  EXPECT_EQ(stats().tuned_backlog, std::min(system_backlog_max(), 128));
  EXPECT_EQ(limit_of(Backlog::self_tuning({.initial = 9})), 9U);
  acceptor.reset();
  open(greeting());
  EXPECT_EQ(acceptor->queue()->limit, system_max) << "which is what nobody has to ask for";
}

TEST_F(WaitingRoom, AsksOneGuestInSoManyHowLongHeWaited) {
  struct Case {
    std::uint32_t sample_every;
    std::uint64_t asked;
  };
  for (const Case sampling : {Case{1, 20}, Case{4, 5}, Case{0, 0}}) {
    acceptor.reset();
    open(greeting(), {.sample_wait_every = sampling.sample_every});
    std::vector<Peer> peers = connect_peers(acceptor->endpoint(), 20);
    stall(30ms);
    ASSERT_TRUE(turn_until([&] { return all_are_over(peers); }));
    EXPECT_EQ(stats().wait_ms.count(), sampling.asked);
    EXPECT_GE(stats().longest_wait, 20ms) << "the first of several is always asked";
    if (sampling.asked == 0) continue;
    EXPECT_GE(stats().wait_ms.quantile(0), 20U) << "in ms, and ticks of the kernel are 10 ms at worst";
    EXPECT_LE(stats().wait_ms.max(), static_cast<std::uint64_t>(stats().longest_wait.count()));
  }
}

TEST_F(WaitingRoom, CountsHowOftenTheDoormanLookedAndHadToStop) {
  open(greeting(), {.accepts_per_turn_max = 10});
  std::vector<Peer> peers = connect_peers(acceptor->endpoint(), 35);
  ASSERT_TRUE(turn_until([&] { return all_are_over(peers); }));
  EXPECT_EQ(stats().accepted, 35U);
  EXPECT_EQ(stats().looks, 4U);
  EXPECT_EQ(stats().carried_over, 3U);
}

// ---- Its size, when it tunes itself

/// How many of 600 who call at once, while the server stalls, are turned away.
std::uint64_t turned_away_of_600(const Acceptor& acceptor, std::vector<Fd>& calls) {
  const std::uint64_t before = listen_counters()->overflows;
  calls = call(acceptor.endpoint(), 600);
  return listen_counters()->overflows - before;
}

TEST_F(WaitingRoom, OfAFixedSizeLosesGuestsOfEachBurst) {
  open(greeting(), {.backlog = Backlog::fixed(128)});
  for (int burst = 0; burst < 2; ++burst) {
    std::vector<Fd> calls;
    EXPECT_GE(turned_away_of_600(*acceptor, calls), 471U);
    EXPECT_EQ(acceptor->queue()->depth, 129U);
    calls.clear();
    ASSERT_TRUE(turn_until([&] { return acceptor->queue()->depth == 0; }));
  }
  EXPECT_EQ(acceptor->queue()->limit, 128U);
}

TEST_F(WaitingRoom, ThatTunesItselfLosesNobodyOfABurstThatItHasSeenOnce) {
  if (system_backlog_max() < 4096) GTEST_SKIP() << "this system's somaxconn does not allow it";
  std::vector<std::vector<int>> told;
  open(greeting(), {.backlog = Backlog::self_tuning(), .tuned = [&](int was, int now, int wanted) {
                      told.push_back({was, now, wanted});
                    }});
  std::vector<Fd> calls;
  ASSERT_GE(turned_away_of_600(*acceptor, calls), 471U);
  reactor.turn();  // he comes to the door
  EXPECT_EQ(acceptor->queue()->limit, 4096U);
  EXPECT_EQ(stats().tuned_backlog, 4096);
  EXPECT_EQ(stats().tunings, 1U);
  EXPECT_EQ(stats().wanted_beyond_somaxconn, 0);
  EXPECT_EQ(told, (std::vector<std::vector<int>>{{128, 4096, 4096}}));
  calls.clear();  // lest they call again
  ASSERT_TRUE(turn_until([&] { return acceptor->queue()->depth == 0; }));

  EXPECT_EQ(turned_away_of_600(*acceptor, calls), 0U);
  EXPECT_EQ(acceptor->queue()->depth, 600U);
  const std::uint64_t drops = acceptor->queue()->drops;
  std::vector<Peer> peers;
  for (Fd& socket : calls) peers.emplace_back(std::move(socket));
  ASSERT_TRUE(turn_until([&] { return all_are_over(peers); }));
  for (const Peer& peer : peers) EXPECT_EQ(peer.received(), "Hello World!");
  EXPECT_EQ(acceptor->queue()->drops, drops);
  EXPECT_EQ(stats().tunings, 1U) << "there is nothing to be changed any more";
  EXPECT_EQ(told.size(), 1U);
}

TEST_F(WaitingRoom, ThatTunesItselfGrowsBeforeAnybodyIsTurnedAway) {
  if (system_backlog_max() < 4096) GTEST_SKIP() << "this system's somaxconn does not allow it";
  open(greeting(), {.backlog = Backlog::self_tuning()});
  std::vector<std::uint32_t> limits;
  for (const int guests : {63, 70, 400, 1000}) {
    std::vector<Peer> peers = connect_peers(acceptor->endpoint(), guests);
    ASSERT_TRUE(turn_until([&] { return all_are_over(peers); }));
    limits.push_back(acceptor->queue()->limit);
  }
  EXPECT_EQ(limits, (std::vector<std::uint32_t>{128, 512, 2048, 2048}));
  EXPECT_EQ(acceptor->queue()->drops, 0U);
}

TEST_F(WaitingRoom, GivenAsAListenerTunesItselfFromWhatIsInForce) {
  acceptor.emplace(reactor, Listener(kLoopback, {.backlog = 20}), greeting(),
                   AcceptorOptions{.backlog = Backlog::self_tuning()});
  EXPECT_EQ(stats().tuned_backlog, 20);
  std::vector<Peer> peers = connect_peers(acceptor->endpoint(), 10);
  ASSERT_TRUE(turn_until([&] { return all_are_over(peers); }));
  EXPECT_EQ(acceptor->queue()->limit, 64U);
  acceptor.emplace(reactor, Listener(kLoopback, {.backlog = 20}), greeting(),
                   AcceptorOptions{.backlog = Backlog::fixed(99)});
  EXPECT_EQ(acceptor->queue()->limit, 20U) << "a listener that is given has a backlog already";
}

TEST_F(WaitingRoom, SaysThatTheSystemDoesNotLetItGrow) {
  constexpr const char* kSomaxconn = "/proc/sys/net/core/somaxconn";
  const int before = system_backlog_max();
  if (!set_network_sysctl(kSomaxconn, "64")) GTEST_SKIP() << "somaxconn is not ours to change";
  std::vector<std::vector<int>> told;
  open(greeting(),
       {.backlog = Backlog::self_tuning({.initial = 16}), .tuned = [&](int was, int now, int wanted) {
          told.push_back({was, now, wanted});
        }});
  std::vector<Fd> calls = call(acceptor->endpoint(), 100);
  reactor.turn();
  calls.clear();
  ASSERT_TRUE(turn_until([&] { return acceptor->queue()->depth == 0; }));
  EXPECT_EQ(acceptor->queue()->limit, 64U);
  EXPECT_EQ(stats().wanted_beyond_somaxconn, 512);
  EXPECT_EQ(told, (std::vector<std::vector<int>>{{16, 64, 512}})) << "told once";

  ASSERT_TRUE(set_network_sysctl(kSomaxconn, std::to_string(before)));
  std::vector<Peer> peers = connect_peers(acceptor->endpoint(), 40);
  ASSERT_TRUE(turn_until([&] { return all_are_over(peers); }));
  EXPECT_EQ(acceptor->queue()->limit, 512U) << "as soon as it may";
  EXPECT_EQ(stats().wanted_beyond_somaxconn, 0);
  ASSERT_EQ(told.size(), 2U);
  EXPECT_EQ(told.back(), (std::vector<int>{64, 512, 512}));
}

// ---- Who is admitted

class Admitting : public WaitingRoom {
 protected:
  void open(AdmissionOptions admission) {
    ConnectionHandlers handlers{
        .open = [](Connection& guest) { guest.send("come in"); },
        .data = [](Connection& guest, std::string_view bytes) { guest.send(bytes); },
    };
    WaitingRoom::open(std::move(handlers), {.admission = std::move(admission)});
  }
  /// Whether he is let in, or else turned away.
  bool is_let_in(Peer& peer) {
    EXPECT_TRUE(turn_until([&] { return peer.drain() || peer.received() == "come in"; }));
    return !peer.is_over();
  }
  Peer from(std::string_view ip) { return peer_from(ip, acceptor->endpoint()); }
  /// How many of `count` of that address are let in; they stay.
  int let_in_of(int count, std::string_view ip) {
    int let_in = 0;
    for (int i = 0; i < count; ++i) {
      guests.push_back(from(ip));
      let_in += is_let_in(guests.back()) ? 1 : 0;
    }
    return let_in;
  }
  std::vector<Peer> guests;
};

TEST_F(Admitting, EndsWhenAllPlacesAreTakenUntilSomebodyLeaves) {
  open({.connections_max = 2});
  Peer first(acceptor->endpoint());
  Peer second(acceptor->endpoint());
  Peer third(acceptor->endpoint());
  EXPECT_TRUE(is_let_in(first));
  EXPECT_TRUE(is_let_in(second));
  EXPECT_FALSE(is_let_in(third));
  EXPECT_EQ(third.error(), 0) << "an orderly end";
  EXPECT_EQ(third.received(), "");
  EXPECT_EQ(stats().accepted, 3U);
  EXPECT_EQ(stats().refused, 1U);
  EXPECT_EQ(acceptor->open_connections(), 2U);
  first.close();
  ASSERT_TRUE(turn_until([&] { return acceptor->open_connections() == 1; }));
  Peer fourth(acceptor->endpoint());
  EXPECT_TRUE(is_let_in(fourth));
  second.reset();
  ASSERT_TRUE(turn_until([&] { return acceptor->open_connections() == 1; }));
  Peer fifth(acceptor->endpoint());
  EXPECT_TRUE(is_let_in(fifth));
}

TEST_F(Admitting, EndsInOrderForThoseWhoHaveSpokenAlready) {
  for (const Refusal refusal : {Refusal::kClose, Refusal::kReply}) {
    acceptor.reset();
    open({.connections_max = 1, .refusal = refusal, .reply = "too many\n"});
    Peer guest(acceptor->endpoint());
    ASSERT_TRUE(is_let_in(guest));
    Peer refused(acceptor->endpoint());
    ASSERT_TRUE(refused.send("may I come in?"));
    EXPECT_FALSE(is_let_in(refused));
    EXPECT_EQ(refused.error(), 0);
    EXPECT_EQ(refused.received(), refusal == Refusal::kReply ? "too many\n" : "");
  }
}

TEST_F(Admitting, EndsWithAResetIfThatIsAskedFor) {
  open({.connections_max = 1, .refusal = Refusal::kReset});
  Peer guest(acceptor->endpoint());
  ASSERT_TRUE(is_let_in(guest));
  Peer refused(acceptor->endpoint());
  EXPECT_FALSE(is_let_in(refused));
  EXPECT_EQ(refused.error(), ECONNRESET);
}

TEST_F(Admitting, CountsTheOpenOnesOfEachSource) {
  open({.per_source_max = 2});
  EXPECT_EQ(let_in_of(5, "127.0.0.2"), 2);
  EXPECT_EQ(let_in_of(1, "127.0.0.3"), 1) << "another has places of his own";
  EXPECT_EQ(stats().refused, 3U);
  EXPECT_EQ(acceptor->open_connections(), 3U);
  guests.front().close();
  ASSERT_TRUE(turn_until([&] { return acceptor->open_connections() == 2; }));
  EXPECT_EQ(let_in_of(3, "127.0.0.2"), 1);
}

TEST_F(Admitting, CountsThoseWhoComeAsMappedIPv4EachForHisOwn) {
  open({.per_source_max = 1});
  try {
    acceptor.emplace(reactor, Endpoint("::", 0),
                     ConnectionHandlers{.open = [](Connection& guest) { guest.send("come in"); }},
                     AcceptorOptions{.admission = {.per_source_max = 1}});
  } catch (const std::system_error& error) {
    GTEST_SKIP() << "no IPv6 here: " << error.what();
  }
  const Endpoint door("127.0.0.1", acceptor->endpoint().port());
  Peer first = peer_from("127.0.0.2", door);
  Peer other = peer_from("127.0.0.3", door);
  Peer again = peer_from("127.0.0.2", door);
  EXPECT_TRUE(is_let_in(first));
  EXPECT_TRUE(is_let_in(other));
  EXPECT_FALSE(is_let_in(again));
}

TEST_F(Admitting, LimitsTheRateOfEachSource) {
  open({.per_source_rate = 0.001, .per_source_burst = 3});
  EXPECT_EQ(let_in_of(5, "127.0.0.2"), 3);
  guests.clear();
  ASSERT_TRUE(turn_until([&] { return acceptor->open_connections() == 0; }));
  EXPECT_EQ(let_in_of(1, "127.0.0.2"), 0) << "a rate is not of those who are open";
  EXPECT_EQ(let_in_of(1, "127.0.0.3"), 1);
}

TEST_F(Admitting, LimitsTheRateNoMoreThanItSays) {
  open({.per_source_rate = 50, .per_source_burst = 1});
  int let_in = 0;
  ASSERT_TRUE(turn_until([&] { return (let_in += let_in_of(1, "127.0.0.2")) == 5; }));
}

TEST_F(Admitting, DoesNotCostTheDoormanHisTurn) {
  open({.connections_max = 1});
  Peer guest(acceptor->endpoint());
  ASSERT_TRUE(is_let_in(guest));
  std::vector<Peer> refused = connect_peers(acceptor->endpoint(), 200);
  ASSERT_TRUE(guest.send("hello"));
  guest.drain();
  ASSERT_TRUE(turn_until([&] { return all_are_over(refused); }));
  EXPECT_EQ(stats().refused, 200U);
  EXPECT_EQ(stats().carried_over, 3U) << "64 in a turn: refused or not, others of the reactor wait";
  ASSERT_TRUE(turn_until([&] { return (guest.drain(), guest.received() == "come inhello"); }));
}

// ---- Who has waited too long

TEST_F(WaitingRoom, ThatIsOverloadedTurnsAwayThoseWhoHaveWaitedTooLong) {
  // The fresh ones must not have waited for 200 ms themselves: a busy machine may need another attempt.
  for (int attempt = 0; attempt < 5; ++attempt) {
    acceptor.reset();
    open(greeting(), {.admission = {.refusal = Refusal::kReply, .reply = "sorry"},
                      .queue_delay = {.target = 100ms, .interval = 0ms}});
    std::vector<Peer> late = connect_peers(acceptor->endpoint(), 10);
    stall(230ms);
    const auto begin = Reactor::Clock::now();
    std::vector<Peer> fresh = connect_peers(acceptor->endpoint(), 10);
    ASSERT_TRUE(turn_until([&] { return stats().accepted == 20; }));
    const bool was_quick = Reactor::Clock::now() - begin < 150ms;
    ASSERT_TRUE(turn_until([&] { return all_are_over(late) && all_are_over(fresh); }));
    if (!was_quick) continue;
    for (const Peer& peer : late) EXPECT_EQ(peer.received(), "sorry");
    for (const Peer& peer : fresh) EXPECT_EQ(peer.received(), "Hello World!");
    EXPECT_EQ(stats().shed, 10U);
    EXPECT_EQ(stats().refused, 0U) << "which is another matter";
    return;
  }
  GTEST_SKIP() << "this machine is too busy";
}

TEST_F(WaitingRoom, TakesABurstForNoOverload) {
  open(greeting(), {.queue_delay = {.target = 10ms, .interval = 10s}});
  std::vector<Peer> late = connect_peers(acceptor->endpoint(), 10);
  stall(50ms);
  ASSERT_TRUE(turn_until([&] { return all_are_over(late); }));
  for (const Peer& peer : late) EXPECT_EQ(peer.received(), "Hello World!");
  EXPECT_EQ(stats().shed, 0U);
}

TEST_F(WaitingRoom, TakesTwoStallsThatLieApartForNoOverload) {
  open(greeting(), {.queue_delay = {.target = 10ms, .interval = 60ms}});
  for (int burst = 0; burst < 2; ++burst) {
    std::vector<Peer> late = connect_peers(acceptor->endpoint(), 3);
    stall(40ms);
    ASSERT_TRUE(turn_until([&] { return all_are_over(late); }));
    for (const Peer& peer : late) EXPECT_EQ(peer.received(), "Hello World!") << "burst " << burst;
    const auto end = Reactor::Clock::now() + 60ms;
    ASSERT_TRUE(
        turn_until([&] { return Reactor::Clock::now() > end; }));  // and the room is empty all the time
  }
  EXPECT_EQ(stats().shed, 0U);
}

TEST_F(WaitingRoom, ThatAnotherHasEmptiedIsNoOverload) {
  Fd taken;
  open({.open =
            [&](Connection& guest) {
              guest.send("Hello World!");
              guest.close();
              // As another process may that has the same listener.
              taken.reset(::accept4(acceptor->fd(), nullptr, nullptr, SOCK_CLOEXEC));
            }},
       {.queue_delay = {.target = 10ms, .interval = 60ms}});
  for (int burst = 0; burst < 2; ++burst) {
    std::vector<Peer> late = connect_peers(acceptor->endpoint(), 2);
    stall(60ms);
    ASSERT_TRUE(turn_until([&] { return late[0].drain(); }));
    EXPECT_EQ(late[0].received(), "Hello World!") << "burst " << burst;
    EXPECT_TRUE(taken);
  }
  EXPECT_EQ(stats().shed, 0U);
}

// ---- A pause

TEST_F(WaitingRoom, KeepsEverybodyWhileTheDoormanPauses) {
  open(greeting());
  acceptor->pause();
  std::vector<Peer> peers = connect_peers(acceptor->endpoint(), 10);
  turn_times(reactor, 20);
  acceptor->pause();
  EXPECT_EQ(stats().accepted, 0U);
  EXPECT_EQ(acceptor->queue()->depth, 10U);
  acceptor->resume();
  acceptor->resume();
  EXPECT_EQ(stats().accepted, 0U) << "nobody is told anything from here";
  ASSERT_TRUE(turn_until([&] { return all_are_over(peers); }));
  for (const Peer& peer : peers) EXPECT_EQ(peer.received(), "Hello World!");
}

TEST_F(WaitingRoom, LetsInNobodyMoreAfterAGuestHasMadeTheDoormanPause) {
  open({.open = [this](Connection& guest) {
    guest.close();
    acceptor->pause();
  }});
  std::vector<Peer> peers = connect_peers(acceptor->endpoint(), 5);
  for (std::uint64_t guest = 1; guest <= 5; ++guest) {
    ASSERT_TRUE(turn_until([&] { return stats().accepted == guest; }));
    turn_times(reactor, 5);
    EXPECT_EQ(stats().accepted, guest);
    acceptor->resume();
  }
  ASSERT_TRUE(turn_until([&] { return all_are_over(peers); }));
}

TEST_F(WaitingRoom, PausesAndGoesOnInOneHandler) {
  open({.open = [this](Connection& guest) {
    guest.close();
    acceptor->pause();
    acceptor->resume();
  }});
  std::vector<Peer> peers = connect_peers(acceptor->endpoint(), 200);
  ASSERT_TRUE(turn_until([&] { return all_are_over(peers); }));
}

TEST_F(WaitingRoom, LetsInThoseWhoCameBeforeAndAfterThePauseBegan) {
  open(greeting(), {.accepts_per_turn_max = 2});
  std::vector<Peer> peers = connect_peers(acceptor->endpoint(), 10);
  ASSERT_TRUE(turn_until([&] { return stats().accepted >= 2; }));
  acceptor->pause();  // with an edge that has been told, and a place on the again list
  for (Peer& peer : connect_peers(acceptor->endpoint(), 10)) peers.push_back(std::move(peer));
  turn_times(reactor, 10);
  EXPECT_EQ(acceptor->queue()->depth, 20 - stats().accepted);
  acceptor->resume();
  ASSERT_TRUE(turn_until([&] { return all_are_over(peers); }));
}

// ---- Whom somebody else serves

TEST_F(WaitingRoom, CountsThoseWhoWereDealtUntilTheyAreSaidToHaveLeft) {
  struct Dealt {
    Fd guest;
    int family;
    Admission::Ticket ticket;
  };
  std::vector<Dealt> dealt;
  open({.open = [](Connection&) { FAIL() << "nobody is served here"; }},
       {.admission = {.per_source_max = 2}, .deal = [&](Fd guest, int family, Admission::Ticket ticket) {
          dealt.push_back({std::move(guest), family, ticket});
        }});
  std::vector<Peer> peers = connect_peers(acceptor->endpoint(), 3);
  ASSERT_TRUE(turn_until([&] { return stats().accepted == 3; }));
  ASSERT_EQ(dealt.size(), 2U);
  EXPECT_EQ(stats().refused, 1U);
  EXPECT_EQ(dealt[0].family, AF_INET);
  EXPECT_EQ(acceptor->open_connections(), 2U);
  acceptor->left(dealt[0].ticket);
  EXPECT_EQ(acceptor->open_connections(), 1U);
  peers.emplace_back(acceptor->endpoint());
  ASSERT_TRUE(turn_until([&] { return dealt.size() == 3; }));

  std::optional<std::size_t> cut;
  acceptor->drain({.handshakes = 0ms}, [&](std::size_t how_many) { cut = how_many; });
  ASSERT_TRUE(turn_until([&] { return acceptor->fd() == -1; }));
  acceptor->left(dealt[1].ticket);
  turn_times(reactor, 10);
  EXPECT_EQ(cut, std::nullopt) << "one is still there";
  acceptor->left(dealt[2].ticket);
  ASSERT_TRUE(turn_until([&] { return cut.has_value(); }));
  EXPECT_EQ(*cut, 0U);
}

using WaitingRoomDeathTest = WaitingRoom;

TEST_F(WaitingRoomDeathTest, EndsTheProgramWhenTheDealerThrows) {
  open({}, {.deal = [](Fd, int, Admission::Ticket) { throw std::bad_alloc(); }});
  const Peer peer(acceptor->endpoint());
  EXPECT_DEATH(
      {
        reactor.continue_after_fork();  // the test is in a child
        turn_until([&] { return stats().accepted == 1; });
      },
      "")
      << "as any handler that throws";
}

// The kernel wakes the first of the idle for each guest. Of a Unix socket nobody knows how many wait, so each
// visit ends at EAGAIN: there the others never got their turn.
TEST(WaitingRoomOfThreads, AtAUnixSocketTheIdleTakeTurns) {
  constexpr std::uint64_t kGuests = 320;
  ReactorPool pool(Endpoint::unix_path("@anteroom-waiting-room-test-turns"),
                   [](Reactor&, int) { return greeting(); }, {.threads = 2});
  pool.start();
  std::uint64_t fewest = 0;
  // A thread that gets no processor is not idle: a busy machine may need another attempt.
  for (int attempt = 0; attempt < 20 && fewest < kGuests / 5; ++attempt) {
    const std::uint64_t before = pool.state()[0].acceptor.accepted;  // by now both have begun
    for (std::uint64_t i = 0; i < kGuests; ++i)
      ASSERT_EQ(Peer(pool.endpoint()).receive_all(), "Hello World!");
    const std::uint64_t firsts = pool.state()[0].acceptor.accepted - before;
    fewest = std::min(firsts, kGuests - firsts);
  }
  EXPECT_GE(fewest, kGuests / 5);
}

// ---- Leaving

/// A drain, and what was told of it.
class Draining : public WaitingRoom {
 protected:
  void drain(DrainOptions options = {.handshakes = 10ms}) {
    acceptor->drain(options, [this](std::size_t cut) { told.push_back(cut); });
  }
  bool drained() {
    return turn_until([this] { return !told.empty(); });
  }
  using Told = std::vector<std::size_t>;
  Told told;
};

TEST_F(WaitingRoom, ClosedWithoutADrainLosesThoseWhoWait) {
  open(greeting());
  std::vector<Peer> peers = connect_peers(acceptor->endpoint(), 20);
  acceptor.reset();
  ASSERT_TRUE(turn_until([&] { return all_are_over(peers); }));
  for (const Peer& peer : peers)
    EXPECT_EQ(peer.error(), ECONNRESET) << "or the tests of the drain see nothing";
}

TEST_F(Draining, ServesThoseWhoWaitAndClosesTheDoor) {
  open(greeting(), {.accepts_per_turn_max = 7});
  const Endpoint door = acceptor->endpoint();
  std::vector<Peer> peers = connect_peers(door, 100);
  drain();
  EXPECT_EQ(stats().accepted, 0U) << "nothing happens in here";
  EXPECT_EQ(told, Told{});
  ASSERT_TRUE(drained());
  turn_times(reactor, 10);
  EXPECT_EQ(told, Told{0}) << "once";
  EXPECT_EQ(acceptor->fd(), -1);
  EXPECT_EQ(acceptor->queue(), std::nullopt);
  ASSERT_TRUE(turn_until([&] { return all_are_over(peers); }));
  for (const Peer& peer : peers) EXPECT_EQ(peer.received(), "Hello World!");
  EXPECT_THROW(Peer{door}, std::system_error);
}

TEST_F(Draining, OfAnEmptyRoomIsSoonOver) {
  open(greeting());
  drain({.deadline = 10s, .handshakes = 0ms});
  const auto begin = Reactor::Clock::now();
  ASSERT_TRUE(drained());
  EXPECT_LT(Reactor::Clock::now() - begin, 5s) << "nobody waits for the deadline";
  EXPECT_EQ(told, Told{0});
}

TEST_F(Draining, LetsHandshakesComeToTheirEnd) {
  // They stay half open until the guest speaks.
  acceptor.emplace(reactor, Listener(kLoopback, {.defer_accept = 30s}), echo_once());
  std::vector<Peer> peers = connect_peers(acceptor->endpoint(), 5);
  EXPECT_EQ(acceptor->queue()->depth, 0U);
  drain({.handshakes = 500ms});
  reactor.turn(0ms);
  for (const Peer& peer : peers) ASSERT_TRUE(peer.send("late"));
  ASSERT_TRUE(turn_until([&] { return all_are_over(peers); }));
  for (Peer& peer : peers) {
    EXPECT_EQ(peer.received(), "late");
    peer.close();
  }
  ASSERT_TRUE(drained());
}

TEST_F(Draining, TellsEachConnectionAndWaitsForThem) {
  int told_guests = 0;
  bool is_door_closed = false;
  open({.draining = [&](Connection& guest) {
    EXPECT_TRUE(is_door_closed);
    ++told_guests;
    guest.send("good bye");
    guest.close();
  }});
  std::vector<Peer> peers = connect_peers(acceptor->endpoint(), 5);
  ASSERT_TRUE(turn_until([&] { return acceptor->open_connections() == 5; }));
  for (Peer& peer : connect_peers(acceptor->endpoint(), 5)) peers.push_back(std::move(peer));
  drain({.handshakes = 10ms, .door_closed = [&] { is_door_closed = true; }});
  ASSERT_TRUE(turn_until([&] { return all_are_over(peers); }));
  ASSERT_TRUE(drained());
  EXPECT_EQ(told_guests, 10) << "those who still waited, too";
  EXPECT_EQ(told, Told{0});
  for (const Peer& peer : peers) {
    EXPECT_EQ(peer.received(), "good bye");
    EXPECT_EQ(peer.error(), 0);
  }
}

TEST_F(Draining, WaitsForThoseWhoDoNotListenUntilTheyLeave) {
  open({.data = [](Connection& guest, std::string_view bytes) { guest.send(bytes); }});
  std::vector<Peer> peers = connect_peers(acceptor->endpoint(), 3);
  bool is_door_closed = false;
  drain({.handshakes = 0ms, .door_closed = [&] { is_door_closed = true; }});
  ASSERT_TRUE(turn_until([&] { return is_door_closed; }));
  ASSERT_TRUE(peers[0].send("still here"));
  ASSERT_TRUE(turn_until([&] { return (peers[0].drain(), peers[0].received() == "still here"); }));
  EXPECT_EQ(acceptor->open_connections(), 3U);
  for (Peer& peer : peers) {
    EXPECT_EQ(told, Told{});
    peer.close();
  }
  ASSERT_TRUE(drained());
  EXPECT_EQ(told, Told{0});
}

TEST_F(Draining, CutsThoseWhoAreLeftAtTheDeadline) {
  open({.open = [](Connection& guest) { guest.send("welcome"); }});
  std::vector<Peer> peers = connect_peers(acceptor->endpoint(), 4);
  ASSERT_TRUE(turn_until([&] { return acceptor->open_connections() == 4; }));
  const auto begin = Reactor::Clock::now();
  drain({.deadline = 300ms, .handshakes = 5ms});
  peers[2].close();
  ASSERT_TRUE(turn_until([&] { return all_are_over(peers) || !told.empty(); }));
  EXPECT_GE(Reactor::Clock::now() - begin, 300ms);
  for (const std::size_t i : {0U, 1U, 3U}) {
    ASSERT_TRUE(turn_until([&] { return peers[i].drain(); }));
    EXPECT_EQ(peers[i].received(), "welcome");
    EXPECT_EQ(peers[i].error(), 0) << "an orderly end";
    peers[i].close();
  }
  ASSERT_TRUE(drained());
  EXPECT_EQ(told, Told{3});
}

TEST_F(Draining, IsOverAtTheDeadlineHoweverLongHandshakesMayTake) {
  open(greeting());
  drain({.deadline = 20ms, .handshakes = 60s});
  ASSERT_TRUE(drained());
  EXPECT_EQ(told, Told{0});
  EXPECT_EQ(acceptor->fd(), -1);
}

TEST_F(Draining, WaitsForEverIfItMay) {
  open({});
  std::vector<Peer> peers = connect_peers(acceptor->endpoint(), 1);
  drain({.deadline = std::chrono::milliseconds::max(), .handshakes = 0ms});
  ASSERT_TRUE(turn_until([&] { return acceptor->fd() == -1; }));
  turn_times(reactor, 20);
  EXPECT_EQ(told, Told{}) << "a deadline that nanoseconds cannot count is not one that is over";
  peers[0].close();
  ASSERT_TRUE(drained());
  EXPECT_EQ(told, Told{0});
}

TEST_F(Draining, ForLessThanNothingIsRefusedAndHasNotBegun) {
  open(greeting());
  const auto error_of = [this](const DrainOptions& options) -> std::error_code {
    try {
      acceptor->drain(options, [](std::size_t) { FAIL() << "it has not begun"; });
      return {};
    } catch (const std::system_error& error) {
      return error.code();
    }
  };
  EXPECT_EQ(error_of({.deadline = -1ms}), std::errc::invalid_argument);
  EXPECT_EQ(error_of({.handshakes = std::chrono::milliseconds::min()}), std::errc::invalid_argument);
  EXPECT_EQ(error_of({.leaving = 0}), std::errc::invalid_argument);
  Peer peer(acceptor->endpoint());
  ASSERT_TRUE(turn_until([&] { return peer.drain(); }));
  EXPECT_EQ(peer.received(), "Hello World!");
}

TEST(Acceptor, FromAListenerWithoutASocketOrWithANegativeDelayIsRefused) {
  Reactor reactor;
  Listener empty(kLoopback);
  (void)empty.release();
  EXPECT_THROW(Acceptor(reactor, std::move(empty), {}), std::system_error);
  EXPECT_THROW(Acceptor(reactor, kLoopback, {}, {.queue_delay = {.target = -1ms}}), std::system_error);
  reactor.turn(0ms);
}

TEST_F(Draining, IsBegunOnlyOnce) {
  open(greeting());
  std::vector<Peer> peers = connect_peers(acceptor->endpoint(), 3);
  drain();
  acceptor->drain({.handshakes = 0ms}, [](std::size_t) { FAIL() << "that is the second one"; });
  ASSERT_TRUE(drained());
  acceptor->drain({.handshakes = 0ms}, [](std::size_t) { FAIL() << "that is the third one"; });
  turn_times(reactor, 20);
  EXPECT_EQ(told, Told{0});
}

TEST_F(Draining, EndsAPause) {
  open(greeting());
  acceptor->pause();
  std::vector<Peer> peers = connect_peers(acceptor->endpoint(), 3);
  turn_times(reactor, 5);
  drain();
  ASSERT_TRUE(drained());
  ASSERT_TRUE(turn_until([&] { return all_are_over(peers); }));
  for (const Peer& peer : peers) EXPECT_EQ(peer.received(), "Hello World!");
}

TEST_F(Draining, WaitsForDescriptors) {
  open(greeting());
  std::vector<Peer> peers = connect_peers(acceptor->endpoint(), 10);
  {
    const DescriptorLimit limit(0);
    drain();
    ASSERT_TRUE(turn_until([&] { return stats().rests >= 2; }));
    EXPECT_EQ(told, Told{});
  }
  ASSERT_TRUE(drained());
  ASSERT_TRUE(turn_until([&] { return all_are_over(peers); }));
  for (const Peer& peer : peers) EXPECT_EQ(peer.received(), "Hello World!");
}

TEST_F(Draining, HasTheIdleMakeRoomForThoseWhoWait) {
  ConnectionHandlers handlers = echo_once();
  handlers.draining = [](Connection& guest) { guest.close(); };
  open(std::move(handlers));
  std::vector<Peer> idle = connect_peers(acceptor->endpoint(), 3);
  ASSERT_TRUE(turn_until([&] { return acceptor->open_connections() == 3; }));
  std::vector<Peer> peers = connect_peers(acceptor->endpoint(), 20);
  for (const Peer& peer : peers) ASSERT_TRUE(peer.send("early"));
  const DescriptorLimit limit(0);
  drain();
  ASSERT_TRUE(turn_until([&] {
    for (std::vector<Peer>* all : {&idle, &peers}) {
      for (Peer& peer : *all) {
        if (peer.drain()) peer.close();
      }
    }
    return !told.empty();
  }));
  EXPECT_EQ(told, Told{0});
  for (const Peer& peer : peers) EXPECT_EQ(peer.received(), "early");
}

TEST_F(Draining, OfAUnixSocketServesThoseWhoWait) {
  acceptor.emplace(reactor, Endpoint::unix_path("@anteroom-waiting-room-test"), greeting(),
                   AcceptorOptions{.accepts_per_turn_max = 7});
  std::vector<Peer> peers = connect_peers(acceptor->endpoint(), 50);
  drain({.handshakes = 10s});
  const auto begin = Reactor::Clock::now();
  ASSERT_TRUE(drained());
  EXPECT_LT(Reactor::Clock::now() - begin, 5s) << "there are no handshakes to wait for";
  ASSERT_TRUE(turn_until([&] { return all_are_over(peers); }));
  for (const Peer& peer : peers) EXPECT_EQ(peer.received(), "Hello World!");
}

TEST_F(Draining, OfAUnixPathShowsNobodyElseTheWay) {
  const Endpoint door = Endpoint::unix_path("waiting-room-test-" + std::to_string(::getpid()));
  acceptor.emplace(reactor, door, greeting(), AcceptorOptions{.accepts_per_turn_max = 1});
  std::vector<Peer> peers = connect_peers(door, 10);
  drain({.deadline = 60s});
  // Else the queue would never be empty, and whoever is in it at the deadline would be lost.
  ASSERT_TRUE(turn_until([&] {
    try {
      peers.emplace_back(door);
    } catch (const std::system_error&) {
    }
    return !told.empty();
  }));
  ASSERT_TRUE(turn_until([&] { return all_are_over(peers); }));
  for (const Peer& peer : peers) EXPECT_EQ(peer.received(), "Hello World!");
}

TEST_F(Draining, LeavesThoseWhoWaitToASuccessor) {
  acceptor.emplace(reactor, kLoopback, ConnectionHandlers{.open = [](Connection&) { FAIL(); }});
  const Endpoint door = acceptor->endpoint();
  Listener copy(Fd(::fcntl(acceptor->fd(), F_DUPFD_CLOEXEC, 0)));
  acceptor->pause();
  std::vector<Peer> peers = connect_peers(door, 10);
  drain({.handed_over = true});
  ASSERT_TRUE(drained());
  EXPECT_EQ(acceptor->fd(), -1);
  EXPECT_EQ(copy.queue()->depth, 10U);
  const Acceptor successor(reactor, std::move(copy), greeting());
  ASSERT_TRUE(turn_until([&] { return all_are_over(peers); }));
  for (const Peer& peer : peers) EXPECT_EQ(peer.received(), "Hello World!");
}

// Of a guest at a shared listener the kernel tells one of those who watch it; who carries some over is the
// only one who knows of them.
TEST_F(Draining, TakesInThoseOfASharedListenerWhomNobodyElseWasToldOf) {
  open(greeting(), {.accepts_per_turn_max = 2, .exclusive = true});
  const Fd successors(::fcntl(acceptor->fd(), F_DUPFD_CLOEXEC, 0));
  std::vector<Peer> peers = connect_peers(acceptor->endpoint(), 10);
  ASSERT_TRUE(turn_until([&] { return stats().accepted == 2; }));
  drain({.handed_over = true});
  ASSERT_TRUE(drained());
  EXPECT_EQ(stats().accepted, 10U);
  EXPECT_EQ(listen_queue(successors.get())->depth, 0U);
  ASSERT_TRUE(turn_until([&] { return all_are_over(peers); }));
  for (const Peer& peer : peers) EXPECT_EQ(peer.received(), "Hello World!");
}

TEST_F(Draining, ForASuccessorWaitsForNoDescriptors) {
  open({}, {.exclusive = true});
  Listener successors(Fd(::fcntl(acceptor->fd(), F_DUPFD_CLOEXEC, 0)));
  std::vector<Peer> peers = connect_peers(acceptor->endpoint(), 5);
  {
    const DescriptorLimit limit(0);
    drain({.deadline = 60s, .handed_over = true});
    ASSERT_TRUE(drained());
  }
  EXPECT_EQ(successors.queue()->depth, 5U);
  const Acceptor successor(reactor, std::move(successors), greeting());
  ASSERT_TRUE(turn_until([&] { return all_are_over(peers); }));
  for (const Peer& peer : peers) EXPECT_EQ(peer.received(), "Hello World!");
}

// ---- Leaving from within

TEST_F(Draining, MayEndInTheDestructionOfTheAcceptor) {
  open(greeting());
  std::vector<Peer> peers = connect_peers(acceptor->endpoint(), 3);
  acceptor->drain({.handshakes = 0ms}, [this](std::size_t cut) {
    acceptor.reset();
    told.push_back(cut);
  });
  ASSERT_TRUE(drained());
  turn_times(reactor, 5);
  EXPECT_FALSE(acceptor);
  EXPECT_EQ(told, Told{0});
  ASSERT_TRUE(turn_until([&] { return all_are_over(peers); }));
}

TEST_F(Draining, IsForgottenWhenTheAcceptorIsDestroyedMeanwhile) {
  const auto fails = [](std::size_t) { FAIL() << "told of an acceptor that is gone"; };
  for (const bool has_guests : {false, true}) {
    std::vector<Peer> peers;
    open({});
    if (has_guests) peers = connect_peers(acceptor->endpoint(), 3);
    acceptor->drain({.handshakes = 0ms, .door_closed = [this] { acceptor.reset(); }}, fails);
    ASSERT_TRUE(turn_until([&] { return !acceptor; }));
    turn_times(reactor, 10);

    int draining = 0;
    open({.draining = [&](Connection&) { acceptor.reset(), ++draining; }});
    peers = connect_peers(acceptor->endpoint(), 3);
    acceptor->drain({.handshakes = 0ms}, fails);
    ASSERT_TRUE(turn_until([&] { return !acceptor; }));
    turn_times(reactor, 10);
    EXPECT_EQ(draining, 1);
    ASSERT_TRUE(turn_until([&] { return all_are_over(peers); }));

    open({});
    acceptor->drain({.handshakes = 5ms}, fails);
    acceptor.reset();
    turn_times(reactor, 10);
  }
}

TEST_F(Draining, MayBeginInAHandler) {
  open({.open =
            [this](Connection& guest) {
              if (stats().accepted == 2) drain();
              guest.send("Hello World!");
            },
        .draining = [](Connection& guest) { guest.close(); }});
  std::vector<Peer> peers = connect_peers(acceptor->endpoint(), 5);
  ASSERT_TRUE(drained());
  ASSERT_TRUE(turn_until([&] { return all_are_over(peers); }));
  for (const Peer& peer : peers) EXPECT_EQ(peer.received(), "Hello World!");
}

TEST_F(WaitingRoom, MayBeDestroyedWhenItIsTold) {
  open(greeting(), {.backlog = Backlog::self_tuning({.initial = 4}),
                    .tuned = [this](int, int, int) { acceptor.reset(); }});
  std::vector<Peer> peers = connect_peers(acceptor->endpoint(), 4);
  ASSERT_TRUE(turn_until([&] { return !acceptor; }));
  ASSERT_TRUE(turn_until([&] { return all_are_over(peers); }));

  open(greeting(), {.deal = [this](Fd, int, Admission::Ticket) { acceptor.reset(); }});
  peers = connect_peers(acceptor->endpoint(), 4);
  ASSERT_TRUE(turn_until([&] { return !acceptor; }));
  ASSERT_TRUE(turn_until([&] { return all_are_over(peers); }));

  open(greeting(), {.resting = [this](std::error_code, std::optional<std::uint32_t>) { acceptor.reset(); }});
  peers = connect_peers(acceptor->endpoint(), 4);
  const DescriptorLimit limit(0);
  ASSERT_TRUE(turn_until([&] { return !acceptor; }));
  ASSERT_TRUE(turn_until([&] { return all_are_over(peers); }));
}

// ---- One of two leaves

/// Asks once and waits for the answer, never blocking.
class Call {
 public:
  explicit Call(Fd socket) : socket_(std::move(socket)) {}

  /// True once it is over.
  bool step() {
    if (!has_asked_) has_asked_ = ::send(socket_.get(), "x", 1, MSG_NOSIGNAL) == 1;
    char byte = 0;
    const ssize_t count = ::recv(socket_.get(), &byte, 1, 0);
    if (count > 0) is_answered_ = true;
    return count == 0 || (count < 0 && errno != EAGAIN);
  }
  bool is_answered() const { return is_answered_; }
  bool has_called_twice() const {
    const std::optional<TcpInfo> info = tcp_info(socket_.get());
    return info && info->total_retransmits > 0;
  }

 private:
  Fd socket_;
  bool has_asked_ = false;
  bool is_answered_ = false;
};

/// A stream of callers, forty of whom are under way at any time.
class Callers {
 public:
  explicit Callers(const Endpoint& to) : to_(to) {}

  void step(bool shall_call = true) {
    while (shall_call && calls_.size() < 40) {
      calls_.emplace_back(std::move(call(to_, 1).front()));
      ++called;
    }
    std::erase_if(calls_, [this](Call& one) {
      if (!one.step()) return false;
      ++(one.is_answered() ? answered : lost);
      return true;
    });
    for (const Call& one : calls_) late += one.has_called_twice() ? 1 : 0;
  }
  bool are_all_over() const { return calls_.empty(); }

  int called = 0;
  int answered = 0;
  int lost = 0;
  int late = 0;

 private:
  Endpoint to_;
  std::vector<Call> calls_;
};

TEST_F(Draining, BesideAnotherOfItsGroupLosesNobody) {
  constexpr ListenerOptions kShared{.reuse_port = true};
  const AcceptorOptions one_a_turn{.accepts_per_turn_max =
                                       1};  // so that there is always somebody in the queue
  acceptor.emplace(reactor, Listener(kLoopback, kShared), echo_once(), one_a_turn);
  const Acceptor sibling(reactor, Listener(acceptor->endpoint(), kShared), echo_once(), one_a_turn);
  Callers callers(sibling.endpoint());
  ASSERT_TRUE(turn_until([&] { return callers.step(), callers.answered > 200; }));
  callers.step();
  EXPECT_GT(acceptor->queue()->depth, 0U) << "or nobody could be lost";
  EXPECT_GT(stats().accepted, 0U);
  EXPECT_GT(sibling.stats().accepted, 0U);
  drain({.handshakes = 20ms});
  ASSERT_TRUE(turn_until([&] { return callers.step(), !told.empty(); }));
  const int answered = callers.answered;
  ASSERT_TRUE(turn_until([&] { return callers.step(), callers.answered > answered + 200; }));
  ASSERT_TRUE(turn_until([&] { return callers.step(false), callers.are_all_over(); }));
  EXPECT_EQ(callers.lost, 0);
  EXPECT_EQ(callers.late, 0) << "they were sent to the other before anybody was refused";
  EXPECT_EQ(callers.answered, callers.called);
  EXPECT_EQ(stats().accepted + sibling.stats().accepted, static_cast<std::uint64_t>(callers.called));
  EXPECT_EQ(told, Told{0});
}

TEST_F(Draining, LeavesItsGroupAsItWasWhenTheAcceptorIsDestroyedMeanwhile) {
  constexpr ListenerOptions kShared{.reuse_port = true};
  acceptor.emplace(reactor, Listener(kLoopback, kShared), greeting());
  const Listener second(acceptor->endpoint(), kShared);
  const Listener third(acceptor->endpoint(), kShared);
  drain({.handshakes = 60s});
  acceptor.reset();
  const std::vector<Peer> peers = connect_peers(second.endpoint(), 100);
  EXPECT_GT(second.queue()->depth, 0U) << "they share as ever";
  EXPECT_GT(third.queue()->depth, 0U);
  EXPECT_EQ(second.queue()->depth + third.queue()->depth, 100U);
}

TEST_F(Draining, ForASuccessorLeavesTheGroupToWhomItSteers) {
  constexpr ListenerOptions kShared{.reuse_port = true};
  acceptor.emplace(reactor, Listener(kLoopback, kShared), greeting());
  const Listener sibling(acceptor->endpoint(), kShared);
  const Fd successors(::fcntl(acceptor->fd(), F_DUPFD_CLOEXEC, 0));
  ASSERT_TRUE(steer_group(sibling.fd(), 1, 1));  // as a user may, by a program of his own
  drain({.handed_over = true});
  ASSERT_TRUE(drained());
  const std::vector<Peer> peers = connect_peers(sibling.endpoint(), 50);
  EXPECT_EQ(sibling.queue()->depth, 50U);
}

}  // namespace
}  // namespace anteroom
