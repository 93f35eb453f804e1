// What may happen in which order: everything may be ended from everywhere, nobody is told anything after its
// end, and no handler runs inside another.
#include <anteroom/acceptor.h>
#include <anteroom/connection.h>
#include <anteroom/connector.h>
#include <anteroom/reactor.h>
#include <anteroom/timer.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "support/depth.h"
#include "support/descriptors.h"
#include "support/own_network.h"
#include "support/peer.h"
#include "support/turns.h"

namespace anteroom {
namespace {

using namespace std::chrono_literals;
using namespace test;

/// What one connection was told, in order: 'o'pen, 'd'ata, d'r'ained, 'c'losed, 'x' for closed with an error.
class Diary {
 public:
  /// `handlers`, each of which writes its line before it runs; also sees to it that they are not nested.
  ConnectionHandlers keep(ConnectionHandlers handlers) {
    return {
        .open = depth_.guard([this, open = handlers.open](Connection& connection) {
          write(connection, 'o');
          if (open) open(connection);
        }),
        .data = depth_.guard([this, data = handlers.data](Connection& connection, std::string_view bytes) {
          write(connection, 'd');
          bytes_[connection.id()] += bytes;
          if (data) data(connection, bytes);
        }),
        .drained = depth_.guard([this, drained = handlers.drained](Connection& connection) {
          write(connection, 'r');
          if (drained) drained(connection);
        }),
        .closed =
            depth_.guard([this, closed = handlers.closed](Connection& connection, std::error_code error) {
              write(connection, error ? 'x' : 'c');
              errors_[connection.id()] = error;
              ++ended_;
              if (closed) closed(connection, error);
            }),
    };
  }

  const std::string& of(ChannelId id) { return lines_[id]; }
  const std::string& bytes_to(ChannelId id) { return bytes_[id]; }
  std::error_code error_of(ChannelId id) { return errors_[id]; }
  const std::map<ChannelId, std::string>& all() const { return lines_; }
  /// Of a test with one connection.
  const std::string& only() {
    EXPECT_EQ(lines_.size(), 1U);
    return lines_.begin()->second;
  }
  int ended() const { return ended_; }
  Depth& depth() { return depth_; }

 private:
  void write(Connection& connection, char what) {
    std::string& line = lines_[connection.id()];
    EXPECT_EQ(line.find_first_of("cx"), std::string::npos) << "told '" << what << "' after its end: " << line;
    line += what;
  }

  Depth depth_;
  std::map<ChannelId, std::string> lines_;
  std::map<ChannelId, std::string> bytes_;
  std::map<ChannelId, std::error_code> errors_;
  int ended_ = 0;
};

std::size_t unread_bytes(int fd) {
  int count = 0;
  EXPECT_EQ(::ioctl(fd, FIONREAD, &count), 0);
  return static_cast<std::size_t>(count);
}

/// Holds no event back: a channel of which the test knows all that it is told.
class Probe final : public Channel {
 public:
  Probe(Reactor& reactor, Fd fd, int& calls) : Channel(reactor, std::move(fd)), calls_(calls) {}

 private:
  void on_ready(std::uint32_t /*events*/) noexcept override { ++calls_; }
  int& calls_;
};

// ---- A connection ends itself

TEST(ConnectionOrder, MayCloseItselfInData) {
  Reactor reactor;
  Diary diary;
  Acceptor acceptor(reactor, kLoopback, diary.keep({.data = [](Connection& guest, std::string_view) {
    guest.close();
    EXPECT_FALSE(guest.send("too late"));
  }}));
  Peer peer(acceptor.endpoint());
  peer.send("one");
  ASSERT_TRUE(turn_until(reactor, [&] { return peer.drain(); }));
  EXPECT_EQ(peer.error(), 0);
  peer.send("two");  // who has spoken is heard out, but nobody is told
  peer.finish();
  ASSERT_TRUE(turn_until(reactor, [&] { return diary.ended() == 1; }));
  turn_times(reactor, 5);
  EXPECT_EQ(diary.only(), "odc");
}

TEST(ConnectionOrder, MayAbortItselfInData) {
  Reactor reactor;
  Diary diary;
  Acceptor acceptor(reactor, kLoopback, diary.keep({.data = [](Connection& guest, std::string_view) {
    guest.abort();
    EXPECT_FALSE(guest.is_open());
    EXPECT_FALSE(guest.send("too late"));
  }}));
  Peer peer(acceptor.endpoint());
  peer.send("one");
  ASSERT_TRUE(turn_until(reactor, [&] { return peer.drain() && diary.ended() == 1; }));
  EXPECT_EQ(peer.error(), ECONNRESET);
  EXPECT_EQ(diary.only(), "odx");
  EXPECT_EQ(diary.error_of(diary.all().begin()->first), std::errc::operation_canceled);
}

TEST(ConnectionOrder, MayAbortItselfInOpenWithInputWaiting) {
  Reactor reactor;
  Diary diary;
  Acceptor acceptor(reactor, kLoopback, diary.keep({.open = [](Connection& guest) { guest.abort(); }}));
  Peer peer(acceptor.endpoint());
  peer.send("I have something to say");
  ASSERT_TRUE(turn_until(reactor, [&] { return peer.drain() && diary.ended() == 1; }));
  EXPECT_EQ(peer.error(), ECONNRESET);
  EXPECT_EQ(diary.only(), "ox");
}

TEST(ConnectionOrder, MayCloseItselfInDrained) {
  Reactor reactor;
  Diary diary;
  const std::string answer = pattern(8 << 20);
  Acceptor acceptor(reactor, kLoopback,
                    diary.keep({.open =
                                    [&](Connection& guest) {
                                      EXPECT_TRUE(guest.send(answer));
                                      EXPECT_GT(guest.unsent_bytes(), 0U) << "the test needs more to send";
                                    },
                                .drained =
                                    [](Connection& guest) {
                                      EXPECT_EQ(guest.unsent_bytes(), 0U);
                                      guest.close();
                                    }}));
  Peer peer(acceptor.endpoint());
  ASSERT_TRUE(turn_until(reactor, [&] { return peer.drain() && diary.ended() == 1; }));
  EXPECT_TRUE(peer.received() == answer);
  EXPECT_EQ(peer.error(), 0);
  EXPECT_EQ(diary.only(), "orc");
}

TEST(ConnectionOrder, MayAbortItselfInDrainedWhileInputWaits) {
  Reactor reactor;
  Diary diary;
  Acceptor acceptor(reactor, kLoopback,
                    diary.keep({.open = [](Connection& guest) { guest.send(pattern(8 << 20)); },
                                .drained = [](Connection& guest) { guest.abort(); }}));
  Peer peer(acceptor.endpoint());
  ASSERT_TRUE(turn_until(reactor, [&] { return acceptor.stats().accepted == 1; }));
  peer.send("read me");  // IN and OUT may come in one event: drained ends it, data must not follow
  ASSERT_TRUE(turn_until(reactor, [&] { return peer.drain() && diary.ended() == 1; }));
  EXPECT_TRUE(diary.only() == "orx" || diary.only() == "odrx") << diary.only();
}

// ---- A connection ends others

TEST(ConnectionOrder, MayCloseFiftyOthersOfItsBatch) {
  constexpr std::size_t kOthers = 50;
  Reactor reactor;
  Diary diary;
  std::vector<ChannelId> ids;
  std::size_t heard = 0;
  Acceptor acceptor(reactor, kLoopback,
                    diary.keep({.open = [&](Connection& guest) { ids.push_back(guest.id()); },
                                .data =
                                    [&](Connection& guest, std::string_view) {
                                      ++heard;
                                      for (const ChannelId id : ids) {
                                        if (id == guest.id()) continue;
                                        if (auto* other = reactor.find<Connection>(id)) other->close();
                                      }
                                    }}));
  std::vector<Peer> peers = connect_peers(acceptor.endpoint(), kOthers + 1);
  ASSERT_TRUE(turn_until(reactor, [&] { return ids.size() == kOthers + 1; }));
  turn_times(reactor, 2);  // their registration's own OUT events are behind us
  for (std::size_t i = 0; i < peers.size(); ++i) peers[i].send("now");
  for (const ChannelId id : ids) ASSERT_TRUE(await_events(reactor.find<Connection>(id)->fd(), POLLIN));

  reactor.turn();
  EXPECT_EQ(heard, 1U) << "a connection that another one has closed was told of its data";
  for (Peer& peer : peers) peer.finish();
  ASSERT_TRUE(turn_until(reactor, [&] { return diary.ended() == kOthers + 1; }));
  turn_times(reactor, 5);
  int with_data = 0;
  for (const auto& [id, line] : diary.all()) {
    EXPECT_TRUE(line == "oc" || line == "odc" || line == "ox") << line;
    with_data += line.find('d') != std::string::npos ? 1 : 0;
  }
  EXPECT_EQ(with_data, 1);
  EXPECT_EQ(diary.ended(), static_cast<int>(kOthers) + 1);
}

TEST(ConnectionOrder, MayAbortFiftyOthersOfItsBatch) {
  constexpr std::size_t kOthers = 50;
  Reactor reactor;
  Diary diary;
  std::vector<ChannelId> ids;
  Acceptor acceptor(reactor, kLoopback,
                    diary.keep({.open = [&](Connection& guest) { ids.push_back(guest.id()); },
                                .data =
                                    [&](Connection& guest, std::string_view) {
                                      for (const ChannelId id : ids) {
                                        auto* const other = reactor.find<Connection>(id);
                                        if (other != nullptr && other != &guest) other->abort();
                                      }
                                    }}));
  std::vector<Peer> peers = connect_peers(acceptor.endpoint(), kOthers + 1);
  ASSERT_TRUE(turn_until(reactor, [&] { return ids.size() == kOthers + 1; }));
  turn_times(reactor, 2);
  for (const Peer& peer : peers) peer.send("now");
  for (const ChannelId id : ids) ASSERT_TRUE(await_events(reactor.find<Connection>(id)->fd(), POLLIN));
  reactor.turn();
  EXPECT_EQ(diary.ended(), static_cast<int>(kOthers)) << "`closed` is told at the end of the same turn";
  int with_data = 0;
  for (const auto& [id, line] : diary.all()) with_data += line.find('d') != std::string::npos ? 1 : 0;
  EXPECT_EQ(with_data, 1);
}

// A stale event: A and B are ready in one batch, B ends A, and A's descriptor number is somebody else's
// before A's event is looked at.
TEST(ChannelOrder, IsNotToldOfEventsOfWhoHadItsDescriptorBefore) {
  Reactor reactor;
  Diary diary;
  std::vector<ChannelId> ids;
  int stale_events = 0;
  int same_numbers = 0;
  Acceptor acceptor(reactor, kLoopback,
                    diary.keep({.open = [&](Connection& guest) { ids.push_back(guest.id()); },
                                .data =
                                    [&](Connection& guest, std::string_view) {
                                      for (const ChannelId id : ids) {
                                        if (id == guest.id() || reactor.find(id) == nullptr) continue;
                                        Connection& other = *reactor.find<Connection>(id);
                                        const int number = other.fd();
                                        other.abort();
                                        Fd fresh(::fcntl(2, F_DUPFD_CLOEXEC, number));
                                        same_numbers += fresh.get() == number ? 1 : 0;
                                        // never watched: any event that it is told of is another's
                                        const Channel& probe = reactor.adopt(
                                            std::make_unique<Probe>(reactor, std::move(fresh), stale_events));
                                        EXPECT_EQ(reactor.find(id), nullptr);
                                        EXPECT_EQ(reactor.find(probe.id()), &probe);
                                      }
                                    }}));
  std::vector<Peer> peers = connect_peers(acceptor.endpoint(), 10);
  ASSERT_TRUE(turn_until(reactor, [&] { return ids.size() == 10; }));
  turn_times(reactor, 2);
  for (const Peer& peer : peers) peer.send("now");
  for (const ChannelId id : ids) ASSERT_TRUE(await_events(reactor.find<Connection>(id)->fd(), POLLIN));
  reactor.turn();
  turn_times(reactor, 3);
  EXPECT_EQ(same_numbers, 9) << "the descriptors were to be reused";
  EXPECT_EQ(stale_events, 0);
}

// The same with a connection that is on its way: a stale OUT would open it, though nobody has let it in.
TEST(ConnectionOrder, DoesNotOpenByAnEventOfWhoHadItsDescriptorBefore) {
  Reactor reactor;
  const Listener full(kLoopback, {.backlog = 0});
  const Peer first_and_only(full.endpoint());
  Diary callers;
  Connector connector(reactor, callers.keep({}));
  Diary guests;
  std::vector<ChannelId> ids;
  std::vector<std::pair<int, ChannelId>> called;
  Acceptor acceptor(reactor, kLoopback,
                    guests.keep({.open = [&](Connection& guest) { ids.push_back(guest.id()); },
                                 .data =
                                     [&](Connection& guest, std::string_view) {
                                       for (const ChannelId id : ids) {
                                         auto* const other = reactor.find<Connection>(id);
                                         if (other == nullptr || other == &guest) continue;
                                         const int number = other->fd();
                                         other->abort();
                                         called.emplace_back(number, connector.connect(full.endpoint()).id);
                                       }
                                     }}));
  std::vector<Peer> peers = connect_peers(acceptor.endpoint(), 5);
  ASSERT_TRUE(turn_until(reactor, [&] { return ids.size() == 5; }));
  turn_times(reactor, 2);
  for (const Peer& peer : peers) peer.send("now");
  for (const ChannelId id : ids) ASSERT_TRUE(await_events(reactor.find<Connection>(id)->fd(), POLLIN));
  reactor.turn();
  ASSERT_EQ(called.size(), 4U);
  for (const auto& [number, id] : called) {
    const auto* const caller = reactor.find<Connection>(id);
    ASSERT_NE(caller, nullptr);
    EXPECT_EQ(caller->fd(), number) << "the descriptor was to be reused";
    EXPECT_FALSE(caller->is_open());
  }
  turn_times(reactor, 3);
  EXPECT_TRUE(callers.all().empty());
}

// ---- The acceptor ends in its own handlers

/// An acceptor with three guests in its queue, that one of its handlers will destroy.
class AcceptorEnds : public testing::Test {
 protected:
  void open(ConnectionHandlers handlers, AcceptorOptions options = {}) {
    acceptor.emplace(reactor, kLoopback, diary.keep(std::move(handlers)), std::move(options));
    peers = connect_peers(acceptor->endpoint(), 3);
  }
  void end() {
    ASSERT_TRUE(acceptor.has_value());
    acceptor.reset();
    calls_at_the_end = diary.depth().calls();
  }
  bool all_peers_are_over() {
    bool over = true;
    for (Peer& peer : peers) over = peer.drain() && over;
    return over;
  }
  void expect_silence() {
    turn_times(reactor, 10);
    EXPECT_FALSE(acceptor.has_value());
    EXPECT_EQ(diary.depth().calls(), calls_at_the_end) << "a handler ran after its acceptor's end";
  }

  Reactor reactor;
  Diary diary;
  std::optional<Acceptor> acceptor;
  std::vector<Peer> peers;
  long calls_at_the_end = -1;
};

TEST_F(AcceptorEnds, InItsOwnOpen) {
  open({.open = [&](Connection& guest) {
    EXPECT_TRUE(guest.send("farewell"));
    end();
    EXPECT_FALSE(guest.send("after the end"));
  }});
  ASSERT_TRUE(turn_until(reactor, [&] { return all_peers_are_over(); }));
  EXPECT_EQ(peers[0].received(), "farewell");
  EXPECT_EQ(peers[0].error(), 0);
  EXPECT_EQ(peers[1].error(), ECONNRESET) << "who still waited in the queue is reset";
  expect_silence();
}

TEST_F(AcceptorEnds, InItsOwnOpenAndWhatAGuestWasSentStillArrives) {
  const std::string answer = pattern(8 << 20);
  open({.open = [&](Connection& guest) {
    EXPECT_TRUE(guest.send(answer));
    EXPECT_GT(guest.unsent_bytes(), 0U);
    end();
  }});
  ASSERT_TRUE(turn_until(reactor, [&] { return all_peers_are_over(); }));
  EXPECT_TRUE(peers[0].received() == answer);
  EXPECT_EQ(peers[0].error(), 0);
  expect_silence();
}

TEST_F(AcceptorEnds, InItsOwnOpenWhileTheGuestHasInputWaiting) {
  open({.open = [&](Connection&) { end(); }});
  for (const Peer& peer : peers) peer.send("question");
  ASSERT_TRUE(turn_until(reactor, [&] { return all_peers_are_over(); }));
  expect_silence();
}

TEST_F(AcceptorEnds, InItsOwnData) {
  open({.data = [&](Connection& guest, std::string_view) {
    guest.send("farewell");
    end();
  }});
  ASSERT_TRUE(turn_until(reactor, [&] { return diary.all().size() == 3; }));
  turn_times(reactor, 2);
  for (const Peer& peer : peers) peer.send("all at once");
  for (const auto& [id, line] : diary.all())
    ASSERT_TRUE(await_events(reactor.find<Connection>(id)->fd(), POLLIN));
  ASSERT_TRUE(turn_until(reactor, [&] { return all_peers_are_over(); }));
  std::string received;
  for (const Peer& peer : peers) {
    received += peer.received();
    EXPECT_TRUE(peer.error() == 0 || peer.received().empty());
  }
  EXPECT_EQ(received, "farewell") << "exactly one was answered";
  expect_silence();
}

TEST_F(AcceptorEnds, InItsOwnDrained) {
  const std::string answer = pattern(6 << 20);
  open({.open = [&](Connection& guest) { guest.send(answer); }, .drained = [&](Connection&) { end(); }});
  ASSERT_TRUE(turn_until(reactor, [&] { return all_peers_are_over(); }));
  for (const Peer& peer : peers) {
    EXPECT_TRUE(peer.received() == answer);
    EXPECT_EQ(peer.error(), 0);
  }
  expect_silence();
}

TEST_F(AcceptorEnds, InItsOwnClosed) {
  open({.closed = [&](Connection&, std::error_code) { end(); }});
  ASSERT_TRUE(turn_until(reactor, [&] { return diary.all().size() == 3; }));
  for (std::size_t i = 0; i < 2; ++i) peers[i].close();  // both end in one turn, one of them is told
  for (const auto& [id, line] : diary.all()) {
    const auto* const guest = reactor.find<Connection>(id);
    if (guest->peer() == peers[2].local()) continue;
    ASSERT_TRUE(await_events(guest->fd(), POLLRDHUP));
  }
  ASSERT_TRUE(turn_until(reactor, [&] { return peers[2].drain(); }));
  EXPECT_EQ(peers[2].error(), 0);
  EXPECT_EQ(diary.ended(), 1);
  expect_silence();
}

TEST_F(AcceptorEnds, InItsOwnRestingHandler) {
  AcceptorOptions options;
  options.resting = diary.depth().guard([&](std::error_code why, std::optional<std::uint32_t> waiting) {
    EXPECT_EQ(why, std::errc::too_many_files_open);
    EXPECT_EQ(waiting, 2U);
    end();
  });
  open({}, options);
  DescriptorLimit limit(1);
  ASSERT_TRUE(turn_until(reactor, [&] { return !acceptor.has_value(); }));
  limit.lift();
  ASSERT_TRUE(turn_until(reactor, [&] { return all_peers_are_over(); }));
  EXPECT_EQ(peers[0].error(), 0);
  EXPECT_EQ(peers[1].error(), ECONNRESET);
  expect_silence();
}

TEST_F(AcceptorEnds, InItsOwnRestingHandlerThatItsAlarmCalled) {
  AcceptorOptions options;
  int tellings = 0;
  options.resting = [&](std::error_code, std::optional<std::uint32_t>) {
    if (++tellings == 2) end();
  };
  open({}, options);
  DescriptorLimit limit(0);
  // Told again after a second at the earliest: then it is the alarm that finds the house still full.
  ASSERT_TRUE(turn_until(reactor, [&] { return !acceptor.has_value(); }));
  limit.lift();
  ASSERT_TRUE(turn_until(reactor, [&] { return all_peers_are_over(); }));
  expect_silence();
}

TEST_F(AcceptorEnds, InATimersHandlerAndInAPostedTask) {
  open({});
  Timer timer(reactor, [&] { reactor.post([&] { end(); }); });
  timer.arm(0ms);
  ASSERT_TRUE(turn_until(reactor, [&] { return !acceptor.has_value() && all_peers_are_over(); }));
  expect_silence();
}

// ---- The connector ends in its own handlers

TEST(ConnectorOrder, MayBeDestroyedInItsOwnClosed) {
  Reactor reactor;
  Diary diary;
  std::optional<Connector> connector;
  connector.emplace(reactor, diary.keep({.closed = [&](Connection& attempt, std::error_code error) {
    EXPECT_EQ(error, std::errc::connection_refused);
    EXPECT_FALSE(attempt.was_open());
    connector.reset();
  }}));
  const Endpoint nobody = closed_endpoint();
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(connector->connect(nobody).error);
  ASSERT_TRUE(turn_until(reactor, [&] { return !connector; }));
  turn_times(reactor, 10);
  EXPECT_EQ(diary.ended(), 1);
  EXPECT_EQ(diary.all().size(), 1U);
}

TEST(ConnectorOrder, MayBeDestroyedInItsOwnOpen) {
  Reactor reactor;
  std::map<ChannelId, std::string> heard;
  int guests_gone = 0;
  Acceptor acceptor(reactor, kLoopback,
                    {.data = [&](Connection& guest, std::string_view bytes) { heard[guest.id()] += bytes; },
                     .closed = [&](Connection&, std::error_code) { ++guests_gone; }});
  Diary diary;
  std::optional<Connector> connector;
  connector.emplace(reactor, diary.keep({.open = [&](Connection& caller) {
    EXPECT_TRUE(caller.send("last words"));
    connector.reset();
    EXPECT_FALSE(caller.send("after the end"));
  }}));
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(connector->connect(acceptor.endpoint()).error);
  ASSERT_TRUE(turn_until(reactor, [&] { return guests_gone == 3; }));
  EXPECT_EQ(heard.size(), 1U);
  EXPECT_EQ(heard.begin()->second, "last words");
  EXPECT_EQ(diary.only(), "o");
}

TEST(ConnectorOrder, MayCallAgainInItsOwnClosedWithoutHoldingTheLoop) {
  Reactor reactor;
  const Endpoint nobody = closed_endpoint();
  int attempts = 1;
  std::optional<Connector> connector;
  connector.emplace(reactor, ConnectionHandlers{.closed = [&](Connection&, std::error_code) {
                      ++attempts;
                      EXPECT_FALSE(connector->connect(nobody).error);
                    }});
  EXPECT_FALSE(connector->connect(nobody).error);
  for (int i = 0; i < 100; ++i) {
    const int before = attempts;
    reactor.turn(1ms);
    EXPECT_LE(attempts, before + 1) << "an attempt that fails at once is told in a turn of its own";
  }
  EXPECT_GT(attempts, 20);
}

// ---- Timers in one batch

TEST(TimerOrder, MayBeDestroyedInItsOwnHandler) {
  Reactor reactor;
  int fired = 0;
  auto captured = std::make_shared<int>(7);
  std::optional<Timer> timer;
  timer.emplace(reactor, [&fired, &timer, captured] {
    timer.reset();
    ++fired;
    EXPECT_EQ(*captured, 7) << "the handler outlives its timer until it returns";
  });
  timer->arm(0ms);
  ASSERT_TRUE(turn_until(reactor, [&] { return fired == 1; }));
  turn_times(reactor, 3);
  EXPECT_EQ(captured.use_count(), 1) << "the handler is freed at the end of the turn";
}

TEST(TimerOrder, MayBeReplacedInItsOwnHandler) {
  Reactor reactor;
  std::string order;
  Timer timer;
  timer = Timer(reactor, [&] {
    timer = Timer(reactor, [&order] { order += 'b'; });
    timer.arm(0ms);
    order += 'a';
  });
  timer.arm(0ms);
  ASSERT_TRUE(turn_until(reactor, [&] { return order.size() == 2; }));
  EXPECT_EQ(order, "ab");
}

TEST(TimerOrder, MayDestroyAnotherOfItsBatch) {
  Reactor reactor;
  int fired = 0;
  std::vector<std::optional<Timer>> timers(20);
  const auto soon = Reactor::Clock::now() + 1ms;
  for (auto& timer : timers) {
    timer.emplace(reactor, [&] {
      ++fired;
      for (auto& other : timers) other.reset();
    });
    timer->arm_at(soon);
  }
  ASSERT_TRUE(turn_until(reactor, [&] { return fired > 0; }));
  turn_times(reactor, 3);
  EXPECT_EQ(fired, 1);
}

TEST(TimerOrder, MayCancelAnotherOfItsBatch) {
  Reactor reactor;
  int fired = 0;
  std::vector<Timer> timers(20);
  const auto soon = Reactor::Clock::now() + 1ms;
  for (std::size_t i = 0; i < timers.size(); ++i) {
    timers[i] = Timer(reactor, [&, i] {
      ++fired;
      EXPECT_FALSE(timers[i].is_armed());
      for (Timer& other : timers) other.cancel();
    });
    timers[i].arm_at(soon);
  }
  ASSERT_TRUE(turn_until(reactor, [&] { return fired > 0; }));
  turn_times(reactor, 3);
  EXPECT_EQ(fired, 1);
}

TEST(TimerOrder, MayReArmAnotherOfItsBatch) {
  Reactor reactor;
  int early = 0;
  Timer second;
  Timer first(reactor, [&] { second.arm(1h); });
  second = Timer(reactor, [&] { ++early; });
  const auto soon = Reactor::Clock::now() + 1ms;
  first.arm_at(soon);
  second.arm_at(soon);
  ASSERT_TRUE(turn_until(reactor, [&] { return !first.is_armed(); }));
  turn_times(reactor, 3);
  EXPECT_EQ(early, 0);
  EXPECT_TRUE(second.is_armed());
}

TEST(TimerOrder, ReArmedWithoutDelayInItsOwnHandlerStarvesNobody) {
  Reactor reactor;
  std::string heard;
  Acceptor acceptor(reactor, kLoopback,
                    {.data = [&](Connection&, std::string_view bytes) { heard += bytes; }});
  int fired = 0;
  int posted = 0;
  Timer timer;
  timer = Timer(reactor, [&] {
    ++fired;
    timer.arm(0ms);
  });
  timer.arm(0ms);
  const Peer peer(acceptor.endpoint());
  peer.send("let me in");
  reactor.post([&] { ++posted; });
  for (int i = 0; i < 500; ++i) {
    const int before = fired;
    reactor.turn();
    ASSERT_LE(fired, before + 1) << "what a handler arms waits for the next turn";
  }
  ASSERT_TRUE(turn_until(reactor, [&] { return heard == "let me in"; }));
  EXPECT_EQ(posted, 1);
  EXPECT_GT(fired, 100);
}

TEST(TimerOrder, ArmedForThePastInItsOwnHandlerStarvesNobody) {
  Reactor reactor;
  int fired = 0;
  Timer timer;
  timer = Timer(reactor, [&] {
    ++fired;
    timer.arm_at(Reactor::Clock::time_point{});
  });
  timer.arm_at(Reactor::Clock::time_point{});
  for (int i = 1; i <= 100; ++i) {
    reactor.turn();
    ASSERT_EQ(fired, i);
  }
}

TEST(ReactorOrder, PostedInAPostedTaskStarvesNobody) {
  Reactor reactor;
  int ran = 0;
  std::function<void()> task = [&] {
    ++ran;
    reactor.post(task);
  };
  reactor.post(task);
  for (int i = 1; i <= 100; ++i) {
    reactor.turn();
    ASSERT_EQ(ran, i);
  }
}

// ---- The last bytes

class LastBytes : public testing::Test {
 protected:
  /// A guest whose registration's events are behind us.
  Connection& only_guest() {
    EXPECT_TRUE(turn_until(reactor, [&] { return diary.all().size() == 1; }));
    turn_times(reactor, 3);
    return *reactor.find<Connection>(diary.all().begin()->first);
  }
  ChannelId only_id() { return diary.all().begin()->first; }

  Reactor reactor;
  Diary diary;
  Acceptor acceptor{reactor, kLoopback, diary.keep({})};
  Peer peer{acceptor.endpoint()};
};

TEST_F(LastBytes, AreToldBeforeTheEndThatCameInTheSameEvent) {
  const Connection& guest = only_guest();
  peer.send("last words");
  peer.close();
  ASSERT_TRUE(await_events(guest.fd(), POLLIN | POLLRDHUP));
  ASSERT_EQ(unread_bytes(guest.fd()), 10U);
  turn_times(reactor, 2);
  EXPECT_EQ(diary.only(), "odc") << "the end lies behind the last bytes and brings no event of its own";
  EXPECT_EQ(diary.bytes_to(only_id()), "last words");
}

TEST_F(LastBytes, AreToldBeforeTheEndThatWasThereBeforeTheGuestWasLetIn) {
  peer.send("last words");
  peer.finish();
  ASSERT_TRUE(turn_until(reactor, [&] { return diary.ended() == 1; }));
  EXPECT_EQ(diary.only(), "odc");
  EXPECT_EQ(diary.bytes_to(only_id()), "last words");
}

TEST_F(LastBytes, AreToldBeforeAReset) {
  const Connection& guest = only_guest();
  peer.send("last words");
  ASSERT_TRUE(await_events(guest.fd(), POLLIN));
  peer.reset();
  ASSERT_TRUE(await_events(guest.fd(), POLLERR | POLLHUP));
  turn_times(reactor, 2);
  EXPECT_EQ(diary.only(), "odx");
  EXPECT_EQ(diary.bytes_to(only_id()), "last words");
  EXPECT_EQ(diary.error_of(only_id()), std::errc::connection_reset);
}

TEST_F(LastBytes, AreToldBeforeAResetThatWasThereBeforeTheGuestWasLetIn) {
  peer.send("last words");
  peer.reset();
  ASSERT_TRUE(turn_until(reactor, [&] { return diary.ended() == 1; }));
  EXPECT_EQ(diary.only(), "odx");
  EXPECT_EQ(diary.bytes_to(only_id()), "last words");
}

TEST_F(LastBytes, OfManyReadsAreAllTold) {
  (void)only_guest();
  const std::string speech = pattern(200'000);  // more than one read takes, and the last one is short
  std::size_t sent = 0;
  while (sent < speech.size()) {
    sent += peer.send_some(std::string_view(speech).substr(sent));
    if (sent < speech.size()) reactor.turn(1ms);
  }
  peer.close();
  ASSERT_TRUE(turn_until(reactor, [&] { return diary.ended() == 1; }));
  EXPECT_TRUE(diary.bytes_to(only_id()) == speech);
  EXPECT_EQ(diary.only().back(), 'c');
}

// The end arrives between the last bytes and the turn's next look, over and over: none may hang.
TEST(ConnectionOrder, AlwaysSeesTheEndWheneverItArrives) {
  Reactor reactor;
  Diary diary;
  Acceptor acceptor(reactor, kLoopback, diary.keep({}));
  for (int i = 0; i < 200; ++i) {
    Peer peer(acceptor.endpoint());
    peer.send("a");
    turn_times(reactor, i % 4);
    peer.send("b");
    turn_times(reactor, i / 4 % 4);
    if (i % 2 == 0) {
      peer.close();
    } else {
      peer.finish();
    }
    ASSERT_TRUE(turn_until(reactor, [&] { return diary.ended() == i + 1; })) << i;
  }
  for (const auto& [id, line] : diary.all()) {
    EXPECT_EQ(diary.bytes_to(id), "ab");
    EXPECT_EQ(line.back(), 'c');
  }
}

// ---- Again: who stopped for a budget

// Found by this test: letting in guests grew the list that the turn was walking through.
TEST(ReactorOrder, MayTakeInChannelsWhileItReturnsToWhoStopped) {
  Reactor reactor;
  AcceptorOptions options;
  options.accepts_per_turn_max = 3;
  options.connection.read_bytes_per_turn_max = 1;
  Diary diary;
  Acceptor acceptor(reactor, kLoopback, diary.keep({}), options);
  Acceptor other(reactor, kLoopback, diary.keep({}), options);
  std::vector<Peer> peers = connect_peers(acceptor.endpoint(), 100);
  std::vector<Peer> others = connect_peers(other.endpoint(), 100);
  for (const Peer& peer : peers) peer.send("one byte at a time");
  for (const Peer& peer : others) peer.send("one byte at a time");
  ASSERT_TRUE(turn_until(reactor, [&] { return diary.all().size() == 200; }));
  for (Peer& peer : peers) peer.close();
  for (Peer& peer : others) peer.close();
  ASSERT_TRUE(turn_until(reactor, [&] { return diary.ended() == 200; }));
  for (const auto& [id, line] : diary.all()) EXPECT_EQ(diary.bytes_to(id), "one byte at a time");
}

TEST(ReactorOrder, MayTakeInChannelsWhileItTellsOfEnds) {
  Reactor reactor;
  Acceptor acceptor(reactor, kLoopback, {});
  std::optional<Connector> connector;
  int calls = 0;
  int ends = 0;
  const auto call = [&] {
    if (++calls > 400) return;
    EXPECT_FALSE(connector->connect(acceptor.endpoint()).error);
  };
  connector.emplace(reactor, ConnectionHandlers{.open = [](Connection& caller) { caller.abort(); },
                                                .closed =
                                                    [&](Connection&, std::error_code) {
                                                      ++ends;
                                                      for (int i = 0; i < 3; ++i) call();
                                                    }});
  for (int i = 0; i < 20; ++i) call();
  ASSERT_TRUE(turn_until(reactor, [&] { return ends == 400; }));
}

// ---- Ends, each told exactly once

TEST(ConnectionOrder, IsToldClosedExactlyOnceHoweverItEnds) {
  Reactor reactor;
  Diary diary;
  std::vector<ChannelId> ids;
  Acceptor acceptor(reactor, kLoopback,
                    diary.keep({.open = [&](Connection& guest) { ids.push_back(guest.id()); }}));
  std::vector<Peer> peers = connect_peers(acceptor.endpoint(), 6);
  ASSERT_TRUE(turn_until(reactor, [&] { return ids.size() == 6; }));
  peers[0].close();
  peers[1].reset();
  reactor.find<Connection>(ids[2])->close();
  Connection& aborted = *reactor.find<Connection>(ids[3]);
  aborted.abort();
  aborted.abort();
  aborted.close();
  EXPECT_EQ(reactor.find(ids[3]), nullptr) << "who has ended is not found any more";
  Connection& closed_and_aborted = *reactor.find<Connection>(ids[4]);
  closed_and_aborted.send(pattern(8 << 20));
  closed_and_aborted.close();
  closed_and_aborted.close();
  EXPECT_EQ(reactor.find(ids[4]), &closed_and_aborted) << "it still has to send";
  closed_and_aborted.abort();
  ASSERT_TRUE(turn_until(reactor, [&] { return diary.ended() == 5; }));
  turn_times(reactor, 10);
  EXPECT_EQ(diary.of(ids[0]), "oc");
  EXPECT_EQ(diary.of(ids[1]), "ox");
  EXPECT_EQ(diary.of(ids[2]), "oc");
  EXPECT_EQ(diary.of(ids[3]), "ox");
  EXPECT_EQ(diary.of(ids[4]), "ox");
  EXPECT_EQ(diary.of(ids[5]), "o") << "it lives on";
}

TEST(ConnectionOrder, ThatNeverOpenedIsToldClosedExactlyOnceToo) {
  Reactor reactor;
  const Listener full(kLoopback, {.backlog = 0});
  const Peer first_and_only(full.endpoint());
  Diary diary;
  Connector connector(reactor, diary.keep({}));
  const ChannelId refused = connector.connect(closed_endpoint()).id;
  const ChannelId late = connector.connect(full.endpoint(), {.deadline = 5ms}).id;
  const ChannelId closed = connector.connect(full.endpoint()).id;
  const ChannelId aborted = connector.connect(full.endpoint()).id;
  reactor.find<Connection>(closed)->close();
  reactor.find<Connection>(aborted)->abort();
  EXPECT_EQ(diary.all().size(), 0U) << "nothing is told from inside connect, close or abort";
  ASSERT_TRUE(turn_until(reactor, [&] { return diary.ended() == 4; }));
  turn_times(reactor, 10);
  EXPECT_EQ(diary.of(refused), "x");
  EXPECT_EQ(diary.error_of(refused), std::errc::connection_refused);
  EXPECT_EQ(diary.of(late), "x");
  EXPECT_EQ(diary.error_of(late), std::errc::timed_out);
  EXPECT_EQ(diary.of(closed), "c");
  EXPECT_EQ(diary.of(aborted), "x");
}

TEST(ConnectionOrder, IsTalkedToInClosedWithoutHarm) {
  Reactor reactor;
  int told = 0;
  ChannelId first = ChannelId::kNone;
  Acceptor acceptor(reactor, kLoopback,
                    {.open = [&](Connection& guest) { guest.set_context(&told), first = guest.id(); },
                     .closed =
                         [&](Connection& guest, std::error_code) {
                           ++told;
                           EXPECT_EQ(guest.context(), &told);
                           EXPECT_EQ(guest.id(), first);
                           EXPECT_TRUE(guest.was_open());
                           EXPECT_FALSE(guest.is_open());
                           EXPECT_EQ(reactor.find(guest.id()), nullptr);
                           EXPECT_FALSE(guest.send("x"));
                           EXPECT_EQ(guest.unsent_bytes(), 0U);
                           EXPECT_EQ(guest.peer(), Endpoint());
                           EXPECT_EQ(guest.tcp_info(), std::nullopt);
                           guest.pause_reading();
                           guest.resume_reading();
                           guest.close();
                           guest.abort();
                         }});
  Peer peer(acceptor.endpoint());
  ASSERT_TRUE(turn_until(reactor, [&] { return first != ChannelId::kNone; }));
  peer.close();
  ASSERT_TRUE(turn_until(reactor, [&] { return told == 1; }));
  turn_times(reactor, 5);
  EXPECT_EQ(told, 1);
}

TEST(ReactorOrder, DestroyedWithLivingConnectionsCallsNobody) {
  const int before = open_descriptors();
  std::vector<Peer> peers;
  long calls = -1;
  Diary diary;
  auto captured = std::make_shared<int>(1);
  {
    std::optional<Reactor> reactor(std::in_place);
    Acceptor* const acceptor =
        new Acceptor(*reactor, kLoopback, diary.keep({.data = [captured](Connection&, std::string_view) {}}));
    peers = connect_peers(acceptor->endpoint(), 10);
    ASSERT_TRUE(turn_until(*reactor, [&] { return diary.all().size() == 10; }));
    for (const auto& [id, line] : diary.all()) reactor->find<Connection>(id)->send(pattern(1 << 20));
    reactor->find<Connection>(diary.all().begin()->first)->abort();  // retired, and not told any more
    reactor->post([captured] { FAIL() << "posted, and never run"; });
    for (const Peer& peer : peers) peer.send("unheard");
    calls = diary.depth().calls();
    delete acceptor;
  }
  EXPECT_EQ(diary.depth().calls(), calls);
  EXPECT_EQ(captured.use_count(), 1) << "handlers and posted tasks are freed with the reactor";
  peers.clear();
  EXPECT_EQ(open_descriptors(), before);
}

TEST(ReactorOrder, DestroyedInTheMiddleOfItsWorkCallsNobody) {
  for (int turns = 0; turns < 6; ++turns) {
    const int before = open_descriptors();
    Diary diary;
    long calls = -1;
    std::vector<Peer> peers;
    {
      Reactor reactor;
      const std::string answer = pattern(1 << 20);
      Acceptor acceptor(reactor, kLoopback,
                        diary.keep({.open = [&](Connection& guest) { guest.send(answer); },
                                    .data = [](Connection& guest, std::string_view) { guest.close(); }}));
      Connector connector(reactor, diary.keep({}));
      for (int i = 0; i < 3; ++i) (void)connector.connect(acceptor.endpoint());
      (void)connector.connect(closed_endpoint());
      peers = connect_peers(acceptor.endpoint(), 3);
      for (const Peer& peer : peers) peer.send("question");
      turn_times(reactor, turns);
      calls = diary.depth().calls();
    }
    EXPECT_EQ(diary.depth().calls(), calls);
    peers.clear();
    EXPECT_EQ(open_descriptors(), before);
  }
}

// ---- No handler inside another

/// Handlers that do whatever comes to their mind, to anybody, all the time.
class Chaos {
 public:
  explicit Chaos(std::uint32_t seed) : random_(seed) {
    acceptor_.emplace(reactor_, kLoopback, handlers(), options());
    connector_.emplace(reactor_, handlers(), options().connection);
    timer_ = Timer(reactor_, diary_.depth().guard([this] {
      act();
      timer_.arm(std::chrono::microseconds(pick(200)));
    }));
    timer_.arm(0ms);
  }

  void run(int turns) {
    for (int i = 0; i < turns; ++i) {
      if (reactor_.find(last_called_) == nullptr) call();
      reactor_.turn(100us);
      EXPECT_EQ(diary_.depth().depth(), 0);
    }
    quiet_ = true;
    timer_.cancel();
    reactor_.for_each_channel([this](Channel& channel) {
      if (auto* const connection = dynamic_cast<Connection*>(&channel)) {
        if (pick(2) == 0) connection->resume_reading(), connection->close();
        if (pick(2) == 0) connection->abort();
      }
    });
    // what is left on either side is ended by the other, or here
    EXPECT_TRUE(turn_until(reactor_, [this] {
      reactor_.for_each_channel([](Channel& channel) {
        if (auto* const connection = dynamic_cast<Connection*>(&channel)) connection->abort();
      });
      return diary_.ended() == static_cast<int>(known_.size()) + opened_by_acceptor_;
    }));
    for (const auto& [id, line] : diary_.all()) {
      EXPECT_EQ(line.find_first_of("cx"), line.size() - 1) << line;
      EXPECT_EQ(std::count(line.begin(), line.end(), 'o'), line.size() == 1 ? 0 : 1) << line;
    }
  }

  Diary& diary() { return diary_; }

 private:
  static AcceptorOptions options() {
    AcceptorOptions options;
    options.accepts_per_turn_max = 2;
    options.connection = {.high_watermark_bytes = 20'000,
                          .low_watermark_bytes = 5'000,
                          .read_bytes_per_turn_max = 3'000,
                          .linger = 5ms};
    return options;
  }

  ConnectionHandlers handlers() {
    return diary_.keep({.open =
                            [this](Connection& connection) {
                              living_.push_back(connection.id());
                              if (known_.count(connection.id()) == 0) ++opened_by_acceptor_;
                              act(&connection);
                            },
                        .data = [this](Connection& connection, std::string_view) { act(&connection); },
                        .drained = [this](Connection& connection) { act(&connection); },
                        .closed =
                            [this](Connection& connection, std::error_code) {
                              std::erase(living_, connection.id());
                              act(&connection);
                            }});
  }

  int pick(int below) { return static_cast<int>(random_() % static_cast<unsigned>(below)); }

  Connection* anybody(Connection* self) {
    if (self != nullptr && pick(3) == 0) return self;
    if (living_.empty()) return self;
    auto* const other =
        reactor_.find<Connection>(living_[static_cast<std::size_t>(pick(static_cast<int>(living_.size())))]);
    return other != nullptr ? other : self;
  }

  void call() {
    if (known_.size() >= 3'000 || living_.size() > 100) return;
    const ConnectResult result = connector_->connect(acceptor_->endpoint());
    EXPECT_FALSE(result.error);
    last_called_ = result.id;
    known_.insert(result.id);
  }

  void act(Connection* self = nullptr) {
    if (quiet_) return;
    for (int deeds = 1 + pick(3); deeds > 0; --deeds) {
      Connection* const who = anybody(self);
      if (who == nullptr) return call();
      switch (pick(16)) {
        case 0:
          who->close();
          break;
        case 1:
          who->abort();
          break;
        case 2:
          who->send(std::string(50'000, 'x'));
          break;
        case 3:
          who->pause_reading();
          break;
        case 4:
        case 5:
          who->resume_reading();
          break;
        case 6:
        case 7:
          call();
          break;
        case 8:
          reactor_.post(diary_.depth().guard([this] { act(); }));
          break;
        case 9:
          timer_.arm(0ms);
          break;
        default:
          who->send("a few bytes");
      }
    }
  }

  std::mt19937 random_;
  Reactor reactor_;
  Diary diary_;
  std::vector<ChannelId> living_;
  std::set<ChannelId> known_;  // the connector's
  ChannelId last_called_ = ChannelId::kNone;
  int opened_by_acceptor_ = 0;
  bool quiet_ = false;
  Timer timer_;
  std::optional<Connector> connector_;
  std::optional<Acceptor> acceptor_;
};

TEST(HandlerOrder, IsNeverNestedWhateverHandlersDo) {
  for (std::uint32_t seed = 1; seed <= 4; ++seed) {
    Chaos chaos(seed);
    chaos.run(250);
    EXPECT_GT(chaos.diary().depth().calls(), 300);
    if (testing::Test::HasFailure()) FAIL() << "seed " << seed;
  }
}

}  // namespace
}  // namespace anteroom
