// One side has ended and the other has not: a connection as two streams, each with an end of its own.
#include <anteroom/acceptor.h>
#include <anteroom/connection.h>
#include <anteroom/connector.h>
#include <anteroom/reactor.h>
#include <anteroom/timer.h>
#include <gtest/gtest.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "support/depth.h"
#include "support/own_network.h"
#include "support/peer.h"
#include "support/turns.h"

namespace anteroom {
namespace {

using namespace std::chrono_literals;
using namespace test;

const std::string& large_answer() {
  static const std::string answer = pattern(2 << 20);  // more than the buffers on the way take
  return answer;
}

/// One guest, over TCP and over a Unix socket, and a diary of what it was told: 'o'pen, 'd'ata, d'r'ained,
/// 'p'eer_ended, 'c'losed, 'x' for closed with an error. Data in several reads is one 'd'.
class HalfClose : public testing::TestWithParam<int> {
 protected:
  Endpoint address() const {
    return is_tcp() ? kLoopback : Endpoint::unix_path("@anteroom-half-close-" + std::to_string(::getpid()));
  }
  bool is_tcp() const { return GetParam() == AF_INET; }

  void open_door(ConnectionHandlers handlers, ConnectionOptions options = {}) {
    AcceptorOptions acceptor_options;
    acceptor_options.connection = options;
    acceptor.emplace(reactor, address(), keep_diary(std::move(handlers)), acceptor_options);
  }

  /// Lets one peer in: the guest lives when this returns, unless its handlers have ended it.
  void meet(ConnectionHandlers handlers, ConnectionOptions options = {}) {
    open_door(std::move(handlers), options);
    peer.emplace(acceptor->endpoint(), Peer::Options{.receive_buffer_bytes = 100'000});
    ASSERT_TRUE(turn_until(reactor, [&] { return id != ChannelId::kNone; }));
    turn_times(reactor, 2);  // what its registration tells is behind us
  }

  ConnectionHandlers keep_diary(ConnectionHandlers handlers) {
    ConnectionHandlers kept;
    kept.open = depth.guard([this, open = std::move(handlers.open)](Connection& connection) {
      id = connection.id();
      diary += 'o';
      (void)set_socket_option(connection.fd(), SOL_SOCKET, SO_SNDBUF, 100'000);
      if (open) open(connection);
    });
    kept.data =
        depth.guard([this, data = std::move(handlers.data)](Connection& connection, std::string_view bytes) {
          if (diary.back() != 'd') diary += 'd';
          heard += bytes;
          if (data) data(connection, bytes);
        });
    kept.drained = depth.guard([this, drained = std::move(handlers.drained)](Connection& connection) {
      diary += 'r';
      if (drained) drained(connection);
    });
    if (hears_of_the_end) {
      kept.peer_ended = depth.guard([this, ended = std::move(handlers.peer_ended)](Connection& connection) {
        diary += 'p';
        if (ended) ended(connection);
      });
    }
    kept.closed =
        depth.guard([this, closed = std::move(handlers.closed)](Connection& connection, std::error_code why) {
          diary += why ? 'x' : 'c';
          error = why;
          if (closed) closed(connection, why);
        });
    return kept;
  }

  Connection& guest() {
    auto* const connection = reactor.find<Connection>(id);
    EXPECT_NE(connection, nullptr) << diary;
    return *connection;
  }

  bool turn_until_diary_is(std::string_view wanted) {
    return turn_until(reactor,
                      [&] {
                        if (peer) peer->drain();
                        return diary == wanted || diary.find_first_of("cx") != std::string::npos;
                      }) &&
           diary == wanted;
  }
  /// Nothing more is told, whatever the turn finds.
  void expect_that_this_is_all() {
    const std::string all = diary;
    turn_times(reactor, 10);
    EXPECT_EQ(diary, all);
  }

  /// On TCP the end comes in the segment of the last bytes, which waits for it.
  void say_last(std::string_view bytes) const {
    if (is_tcp()) (void)set_socket_option(peer->fd(), IPPROTO_TCP, TCP_CORK, 1);
    ASSERT_TRUE(peer->send(bytes));
    peer->finish();
  }
  /// A Unix socket that closes with something unread is one that resets.
  void reset_by_peer() {
    if (is_tcp()) return peer->reset();
    ASSERT_TRUE(guest().send("never read"));
    peer->close();
  }

  /// What the peer has sent and we have not: with a reset it is lost, and that is the kernel's right.
  std::size_t unacknowledged() const {
    int bytes = 0;
    if (is_tcp()) {
      EXPECT_EQ(::ioctl(peer->fd(), SIOCOUTQ, &bytes), 0);
    }
    return static_cast<std::size_t>(bytes);
  }

  bool hears_of_the_end = true;
  Depth depth;
  Reactor reactor;
  std::optional<Acceptor> acceptor;
  std::optional<Peer> peer;
  ChannelId id = ChannelId::kNone;
  std::string diary;
  std::string heard;
  std::error_code error;
};

INSTANTIATE_TEST_SUITE_P(Over, HalfClose, testing::Values(AF_INET, AF_UNIX),
                         [](const auto& each) { return each.param == AF_INET ? "Tcp" : "Unix"; });

// ---- The peer has ended

TEST_P(HalfClose, IsToldOnce) {
  meet({});
  EXPECT_FALSE(guest().is_half_closed());
  peer->finish();
  ASSERT_TRUE(turn_until_diary_is("op")) << diary;
  EXPECT_TRUE(guest().is_half_closed());
  EXPECT_TRUE(guest().is_open());
  guest().pause_reading();
  guest().resume_reading();
  expect_that_this_is_all();
  EXPECT_TRUE(guest().send("still here"));
  expect_that_this_is_all();
  guest().close();
  ASSERT_TRUE(turn_until_diary_is("opc")) << diary;
  EXPECT_FALSE(error);
  ASSERT_TRUE(turn_until(reactor, [&] { return peer->drain(); }));
  EXPECT_EQ(peer->received(), "still here");
  EXPECT_EQ(peer->error(), 0);
}

TEST_P(HalfClose, IsToldAfterAllThatThePeerSaid) {
  const std::string speech = pattern(700'000);
  meet({.peer_ended = [&](Connection&) { EXPECT_TRUE(heard == speech) << heard.size(); }},
       {.read_bytes_per_turn_max = 100'000});
  std::size_t sent = 0;
  ASSERT_TRUE(turn_until(reactor, [&] {
    sent += peer->send_some(std::string_view(speech).substr(sent));
    return sent == speech.size();
  }));
  peer->finish();
  ASSERT_TRUE(turn_until_diary_is("odp")) << diary;
  EXPECT_TRUE(heard == speech);
}

TEST_P(HalfClose, IsToldAfterWhatCameInTheSameSegment) {
  meet({.peer_ended = [&](Connection&) { EXPECT_EQ(heard, "last words"); }});
  say_last("last words");
  ASSERT_TRUE(turn_until_diary_is("odp")) << diary;
  EXPECT_TRUE(guest().is_half_closed());
}

TEST_P(HalfClose, IsToldOfWhoHadSaidAllBeforeItWasLetIn) {
  open_door({});
  peer.emplace(acceptor->endpoint());
  say_last("last words");
  ASSERT_TRUE(turn_until_diary_is("odp")) << diary;
  EXPECT_EQ(heard, "last words");
  expect_that_this_is_all();
}

TEST_P(HalfClose, IsToldOfWhoHadEndedWithoutAWordBeforeItWasLetIn) {
  open_door({});
  peer.emplace(acceptor->endpoint());
  peer->finish();
  ASSERT_TRUE(turn_until_diary_is("op")) << diary;
  EXPECT_TRUE(guest().send("and yet I answer"));
  guest().close();
  ASSERT_TRUE(turn_until(reactor, [&] { return peer->drain(); }));
  EXPECT_EQ(peer->received(), "and yet I answer");
}

// The last read fills the whole buffer, and uses up the budget: the end lies behind both.
TEST_P(HalfClose, IsToldThoughTheEndLiesBehindTheBudget) {
  meet({.open =
            [](Connection& guest) { (void)set_socket_option(guest.fd(), SOL_SOCKET, SO_RCVBUF, 1 << 20); }},
       {.read_bytes_per_turn_max = 64 * 1024});
  const std::string speech = pattern(2 * 64 * 1024);
  std::size_t sent = 0;
  ASSERT_TRUE(turn_until(reactor, [&] {
    sent += peer->send_some(std::string_view(speech).substr(sent));
    return sent == speech.size();
  }));
  peer->finish();
  ASSERT_TRUE(turn_until_diary_is("odp")) << diary;
  EXPECT_TRUE(heard == speech);
}

TEST_P(HalfClose, SendsUntilItIsClosed) {
  constexpr int kPieces = 5;
  int given = 0;
  meet({});
  Timer timer(reactor, [&] {
    EXPECT_TRUE(guest().is_half_closed());
    EXPECT_TRUE(guest().send("piece "));
    if (++given == kPieces) guest().close();
  });
  peer->finish();
  ASSERT_TRUE(turn_until_diary_is("op")) << diary;
  timer.arm_every(1ms);
  ASSERT_TRUE(turn_until(reactor, [&] {
    if (given == kPieces) timer.cancel();
    return peer->drain() && diary == "opc";
  })) << diary;
  EXPECT_EQ(peer->received(), "piece piece piece piece piece ");
  EXPECT_EQ(peer->error(), 0);
  EXPECT_FALSE(error);
}

TEST_P(HalfClose, SendsAllOfALargeAnswer) {
  meet({.peer_ended = [](Connection& guest) {
    EXPECT_TRUE(guest.send(large_answer()));
    EXPECT_GT(guest.unsent_bytes(), 0U);
  }});
  say_last("question");
  ASSERT_TRUE(turn_until_diary_is("odpr")) << diary;
  EXPECT_TRUE(guest().is_half_closed()) << "it stays until close()";
  expect_that_this_is_all();
  guest().close();
  ASSERT_TRUE(turn_until(reactor, [&] { return peer->drain() && diary == "odprc"; })) << diary;
  EXPECT_TRUE(peer->received() == large_answer());
  EXPECT_EQ(peer->error(), 0);
  EXPECT_FALSE(error);
}

TEST_P(HalfClose, MayBeClosedWhenThePeerHasEnded) {
  meet({.peer_ended = [](Connection& guest) {
    guest.close();
    EXPECT_FALSE(guest.is_half_closed());
    EXPECT_FALSE(guest.send("too late"));
  }});
  say_last("question");
  ASSERT_TRUE(turn_until_diary_is("odpc")) << diary;
  EXPECT_FALSE(error);
  ASSERT_TRUE(turn_until(reactor, [&] { return peer->drain(); }));
  EXPECT_EQ(peer->error(), 0);
}

TEST_P(HalfClose, MayBeClosedWithALargeAnswerWhenThePeerHasEnded) {
  meet({.peer_ended = [](Connection& guest) {
    EXPECT_TRUE(guest.send(large_answer()));
    guest.close();
  }});
  peer->finish();
  ASSERT_TRUE(turn_until(reactor, [&] { return peer->drain() && diary == "opc"; })) << diary;
  EXPECT_TRUE(peer->received() == large_answer());
  EXPECT_EQ(peer->error(), 0);
  EXPECT_FALSE(error);
}

TEST_P(HalfClose, MayBeAbortedWhenThePeerHasEnded) {
  meet({.peer_ended = [](Connection& guest) { guest.abort(); }});
  say_last("question");
  ASSERT_TRUE(turn_until_diary_is("odpx")) << diary;
  EXPECT_EQ(error, std::errc::operation_canceled);
  ASSERT_TRUE(turn_until(reactor, [&] { return peer->drain(); }));
  EXPECT_EQ(peer->error(), is_tcp() ? ECONNRESET : 0);
}

TEST_P(HalfClose, MayDestroyItsAcceptorWhenThePeerHasEnded) {
  meet({.peer_ended = [&](Connection& guest) {
    EXPECT_TRUE(guest.send(large_answer()));
    acceptor.reset();
    EXPECT_FALSE(guest.send("too late"));
  }});
  peer->finish();
  ASSERT_TRUE(turn_until(reactor, [&] { return peer->drain() && reactor.metrics().channels == 0; }));
  EXPECT_TRUE(peer->received() == large_answer()) << "what it held is sent";
  EXPECT_EQ(peer->error(), 0);
  EXPECT_EQ(diary, "op") << "none of its handlers is called any more";
}

TEST_P(HalfClose, NoticesAReset) {
  meet({});
  say_last("question");
  ASSERT_TRUE(turn_until_diary_is("odp")) << diary;
  reset_by_peer();
  peer.reset();
  // A reset that follows a FIN is EPIPE to us, see tcp_reset() in the kernel.
  ASSERT_TRUE(turn_until_diary_is("odpx")) << diary;
  EXPECT_TRUE(error == std::errc::connection_reset || error == std::errc::broken_pipe) << error.message();
}

TEST_P(HalfClose, NoticesAResetOfWhoHadEndedBeforeItWasLetIn) {
  open_door({.peer_ended = [](Connection& guest) { EXPECT_TRUE(guest.send("never read")); }});
  peer.emplace(acceptor->endpoint());
  peer->finish();
  ASSERT_TRUE(turn_until(reactor, [&] { return diary == "op"; })) << diary;
  peer->reset();
  peer.reset();
  ASSERT_TRUE(turn_until_diary_is("opx")) << diary;
  EXPECT_TRUE(error == std::errc::connection_reset || error == std::errc::broken_pipe) << error.message();
}

// The bytes, the end and the reset are one event, and no other will come.
TEST_P(HalfClose, NoticesAResetThatComesWithTheEnd) {
  meet({});
  if (!is_tcp()) {
    EXPECT_TRUE(guest().send("never read"));
  }
  say_last("last words");
  peer->reset();
  peer.reset();
  ASSERT_TRUE(await_events(guest().fd(), POLLIN | POLLHUP | POLLRDHUP));
  ASSERT_TRUE(turn_until(reactor, [&] { return diary.back() == 'x' || diary.back() == 'c'; })) << diary;
  EXPECT_TRUE(diary == "odx" || diary == "odpx") << diary;
  EXPECT_EQ(heard, "last words");
  EXPECT_TRUE(error == std::errc::connection_reset || error == std::errc::broken_pipe) << error.message();
}

TEST_P(HalfClose, NoticesAResetWhileItsAnswerWaits) {
  meet({.peer_ended = [](Connection& guest) { EXPECT_TRUE(guest.send(large_answer())); }});
  peer->finish();
  ASSERT_TRUE(turn_until(reactor, [&] { return diary == "op"; })) << diary;
  peer->reset();  // a Unix socket has our answer unread
  peer.reset();
  ASSERT_TRUE(turn_until_diary_is("opx")) << diary;
  EXPECT_TRUE(error == std::errc::connection_reset || error == std::errc::broken_pipe) << error.message();
}

TEST_P(HalfClose, NoticesThatNobodyIsLeftToSendTo) {
  meet({});
  peer->finish();
  ASSERT_TRUE(turn_until_diary_is("op")) << diary;
  peer->close();
  peer.reset();
  if (!is_tcp()) {  // a Unix socket is told when the other half goes too
    ASSERT_TRUE(turn_until_diary_is("opc")) << diary;
    EXPECT_FALSE(error);
    return;
  }
  expect_that_this_is_all();  // on TCP it looks as it did: as if the peer had only ended its side
  EXPECT_TRUE(guest().send("anybody there?"));
  ASSERT_TRUE(turn_until_diary_is("opx")) << diary;
  EXPECT_TRUE(error == std::errc::connection_reset || error == std::errc::broken_pipe) << error.message();
}

TEST_P(HalfClose, IsNotToldWhilePaused) {
  meet({.open = [](Connection& guest) { guest.pause_reading(); }});
  say_last("last words");
  ASSERT_TRUE(await_events(guest().fd(), POLLIN | POLLRDHUP));
  turn_times(reactor, 5);
  EXPECT_EQ(diary, "o");
  guest().resume_reading();
  EXPECT_EQ(diary, "o") << "told by the turn, and not from inside";
  ASSERT_TRUE(turn_until_diary_is("odp")) << diary;
  EXPECT_EQ(heard, "last words");
}

TEST_P(HalfClose, IsToldLaterToWhoPausesAtTheLastWords) {
  meet({.data = [](Connection& guest, std::string_view) { guest.pause_reading(); }});
  say_last("last words");
  ASSERT_TRUE(turn_until_diary_is("od")) << diary;
  expect_that_this_is_all();
  guest().resume_reading();
  ASSERT_TRUE(turn_until_diary_is("odp")) << diary;
}

TEST_P(HalfClose, IsToldOnceTheAnswersAreTakenThatKeptUsFromReading) {
  meet({.open = [](Connection& guest) { EXPECT_TRUE(guest.send(large_answer())); }},
       {.high_watermark_bytes = 100'000, .low_watermark_bytes = 0});
  say_last("last words");
  ASSERT_TRUE(await_events(guest().fd(), POLLIN | POLLRDHUP));
  turn_times(reactor, 5);
  EXPECT_EQ(diary, "o");
  ASSERT_TRUE(turn_until_diary_is("ordp")) << diary;
  EXPECT_TRUE(guest().is_half_closed());
}

TEST_P(HalfClose, IsNotToldToWhoHasClosed) {
  meet({.data = [](Connection& guest, std::string_view) { guest.close(); }});
  say_last("question");
  ASSERT_TRUE(turn_until_diary_is("odc")) << diary;
  EXPECT_FALSE(error);
  expect_that_this_is_all();
}

TEST_P(HalfClose, WaitsWithoutSpinning) {
  meet({});
  peer->finish();
  ASSERT_TRUE(turn_until_diary_is("op")) << diary;
  turn_times(reactor, 3);
  const auto begin = Reactor::Clock::now();
  for (int i = 0; i < 3; ++i) reactor.turn(10ms);
  EXPECT_GE(Reactor::Clock::now() - begin, 30ms) << "a turn had something to do";
}

// ---- Nobody wants to hear of it

TEST_P(HalfClose, IsAnOrderlyEndForWhoHasNoHandler) {
  hears_of_the_end = false;
  meet({});
  say_last("last words");
  ASSERT_TRUE(turn_until_diary_is("odc")) << diary;
  EXPECT_FALSE(error);
  EXPECT_EQ(heard, "last words");
  ASSERT_TRUE(turn_until(reactor, [&] { return peer->drain(); }));
  EXPECT_EQ(peer->error(), 0);
}

TEST_P(HalfClose, IsNoEndForWhoHasNoHandlerAsLongAsSomethingWaits) {
  hears_of_the_end = false;
  meet({.data = [](Connection& guest, std::string_view) { EXPECT_TRUE(guest.send(large_answer())); }},
       {.high_watermark_bytes = 64 << 20});
  say_last("question");
  ASSERT_TRUE(await_events(guest().fd(), POLLIN | POLLRDHUP));
  turn_times(reactor, 5);
  EXPECT_EQ(diary, "od");
  ASSERT_TRUE(turn_until(reactor, [&] { return peer->drain() && diary == "odrc"; })) << diary;
  EXPECT_TRUE(peer->received() == large_answer());
  EXPECT_EQ(peer->error(), 0);
  EXPECT_FALSE(error);
}

// ---- We end our output

TEST_P(HalfClose, EndsTheOutputAndGoesOnReading) {
  meet({});
  EXPECT_TRUE(guest().send("all that I have to say"));
  guest().end_output();
  ASSERT_TRUE(turn_until(reactor, [&] { return peer->drain(); }));
  EXPECT_EQ(peer->received(), "all that I have to say");
  EXPECT_EQ(peer->error(), 0);
  EXPECT_TRUE(guest().is_open());
  EXPECT_FALSE(guest().is_half_closed()) << "it is we who have ended";
  EXPECT_TRUE(peer->send("and I "));
  ASSERT_TRUE(turn_until_diary_is("od")) << diary;
  EXPECT_TRUE(peer->send("go on"));
  ASSERT_TRUE(turn_until(reactor, [&] { return heard == "and I go on"; }));
  expect_that_this_is_all();
  peer->finish();
  ASSERT_TRUE(turn_until(reactor, [&] { return diary.back() == 'c' || diary.back() == 'x'; }));
  EXPECT_EQ(diary, "odpc") << "both have ended: it is over";
  EXPECT_FALSE(error);
}

TEST_P(HalfClose, EndsTheOutputAfterAllThatWaits) {
  meet({.open = [](Connection& guest) {
    EXPECT_TRUE(guest.send(large_answer()));
    EXPECT_GT(guest.unsent_bytes(), 0U);
    guest.end_output();
    EXPECT_GT(guest.unsent_bytes(), 0U);
  }});
  ASSERT_TRUE(turn_until(reactor, [&] { return peer->drain(); }));
  EXPECT_TRUE(peer->received() == large_answer());
  EXPECT_EQ(peer->error(), 0);
  turn_times(reactor, 3);
  EXPECT_EQ(diary, "or");
  EXPECT_TRUE(guest().is_open());
  EXPECT_TRUE(peer->send("thanks"));
  peer->close();
  ASSERT_TRUE(turn_until(reactor, [&] { return diary == "ordpc"; })) << diary;
  EXPECT_EQ(heard, "thanks");
  EXPECT_FALSE(error);
}

TEST_P(HalfClose, RefusesToSendOnceTheOutputIsEnded) {
  meet({.open = [](Connection& guest) {
    EXPECT_TRUE(guest.send(large_answer()));
    guest.end_output();
    EXPECT_FALSE(guest.send("too late"));
    EXPECT_TRUE(guest.is_open()) << "refused, and nothing else";
  }});
  ASSERT_TRUE(turn_until(reactor, [&] { return peer->drain(); }));
  EXPECT_TRUE(peer->received() == large_answer());
  EXPECT_FALSE(guest().send("far too late"));
  guest().end_output();  // twice is once
  EXPECT_TRUE(guest().is_open());
  expect_that_this_is_all();
  EXPECT_TRUE(peer->send("I am still here"));
  ASSERT_TRUE(turn_until(reactor, [&] { return heard == "I am still here"; }));
}

TEST_P(HalfClose, EndsInOrderOnceBothHaveEnded) {
  meet({.peer_ended = [](Connection& guest) {
    EXPECT_TRUE(guest.send("my last word"));
    guest.end_output();
    EXPECT_FALSE(guest.is_half_closed());
  }});
  say_last("your last word");
  ASSERT_TRUE(turn_until_diary_is("odpc")) << diary;
  EXPECT_FALSE(error);
  ASSERT_TRUE(turn_until(reactor, [&] { return peer->drain(); }));
  EXPECT_EQ(peer->received(), "my last word");
  EXPECT_EQ(peer->error(), 0);
}

TEST_P(HalfClose, EndsInOrderOnceBothHaveEndedAndALargeAnswerIsTaken) {
  meet({.peer_ended = [](Connection& guest) {
    EXPECT_TRUE(guest.send(large_answer()));
    guest.end_output();
  }});
  peer->finish();
  ASSERT_TRUE(turn_until(reactor, [&] { return diary == "op"; }));
  expect_that_this_is_all();
  ASSERT_TRUE(turn_until(reactor, [&] { return peer->drain() && diary == "opc"; })) << diary;
  EXPECT_TRUE(peer->received() == large_answer());
  EXPECT_EQ(peer->error(), 0);
  EXPECT_FALSE(error);
}

TEST_P(HalfClose, EndsInOrderForWhoHasNoHandlerOnceBothHaveEnded) {
  hears_of_the_end = false;
  meet({.open = [](Connection& guest) { guest.end_output(); }});
  ASSERT_TRUE(turn_until(reactor, [&] { return peer->drain(); }));
  EXPECT_EQ(diary, "o");
  say_last("last words");
  ASSERT_TRUE(turn_until_diary_is("odc")) << diary;
  EXPECT_EQ(heard, "last words");
  EXPECT_FALSE(error);
}

TEST_P(HalfClose, MayBeClosedAfterItsOutputHasEnded) {
  meet({.data = [](Connection& guest, std::string_view) { guest.close(); }});
  EXPECT_TRUE(guest().send("bye"));
  guest().end_output();
  ASSERT_TRUE(turn_until(reactor, [&] { return peer->drain(); }));
  EXPECT_TRUE(peer->send("heard"));
  ASSERT_TRUE(turn_until_diary_is("od")) << diary;
  EXPECT_FALSE(guest().is_open());
  (void)peer->send("not heard any more");
  peer->finish();
  ASSERT_TRUE(turn_until(reactor, [&] { return diary == "odc"; })) << diary;
  EXPECT_EQ(heard, "heard");
  EXPECT_FALSE(error);
}

TEST_P(HalfClose, MayBeClosedWhileTheEndOfItsOutputStillWaits) {
  meet({.open = [](Connection& guest) {
    EXPECT_TRUE(guest.send(large_answer()));
    guest.end_output();
    guest.close();
  }});
  ASSERT_TRUE(turn_until(reactor, [&] {
    if (peer->drain()) peer->finish();
    return diary.back() == 'c' || diary.back() == 'x';
  }));
  EXPECT_TRUE(peer->received() == large_answer());
  EXPECT_EQ(peer->error(), 0);
  EXPECT_FALSE(error);
}

TEST_P(HalfClose, MayBeAbortedWhileTheEndOfItsOutputStillWaits) {
  meet({.open = [](Connection& guest) {
    EXPECT_TRUE(guest.send(large_answer()));
    guest.end_output();
  }});
  guest().abort();
  ASSERT_TRUE(turn_until(reactor, [&] { return peer->drain() && diary == "ox"; })) << diary;
  EXPECT_EQ(error, std::errc::operation_canceled);
  EXPECT_LT(peer->received().size(), large_answer().size());
  EXPECT_EQ(peer->error(), is_tcp() ? ECONNRESET : 0) << "a FIN would say that this was all";
}

TEST_P(HalfClose, NoticesAResetAfterItsOutputHasEnded) {
  meet({});
  EXPECT_TRUE(guest().send("never read"));  // which makes a reset of a Unix socket's close, too
  guest().end_output();
  turn_times(reactor, 3);
  EXPECT_EQ(diary, "o");
  peer->reset();
  peer.reset();
  ASSERT_TRUE(turn_until_diary_is("ox")) << diary;
  EXPECT_EQ(error, std::errc::connection_reset);
}

TEST_P(HalfClose, MayDestroyItsAcceptorWithItsOutputEnded) {
  meet({.data = [&](Connection&, std::string_view) { acceptor.reset(); }});
  EXPECT_TRUE(guest().send("bye"));
  guest().end_output();
  say_last("heard");
  ASSERT_TRUE(turn_until(reactor, [&] { return peer->drain() && reactor.metrics().channels == 0; }));
  EXPECT_EQ(peer->received(), "bye");
  EXPECT_EQ(peer->error(), 0);
  EXPECT_EQ(diary, "od");
}

// Each speaks at length without waiting for the other, and ends: the pattern of a proxy's two halves.
TEST_P(HalfClose, CarriesTwoStreamsThatEndEachOnItsOwn) {
  hears_of_the_end = false;
  const std::string to_the_left = pattern(3 << 20, 7);
  const std::string to_the_right = pattern(2 << 20, 8);
  open_door({.open =
                 [&](Connection& guest) {
                   EXPECT_TRUE(guest.send(to_the_left));
                   guest.end_output();
                 }},
            {.high_watermark_bytes = 64 << 20});
  std::string heard_left;
  std::optional<std::error_code> left_error;
  Connector connector(reactor,
                      {.open =
                           [&](Connection& caller) {
                             EXPECT_TRUE(caller.send(to_the_right));
                             caller.end_output();
                           },
                       .data = [&](Connection&, std::string_view bytes) { heard_left += bytes; },
                       .closed = [&](Connection&, std::error_code why) { left_error = why; }},
                      {.high_watermark_bytes = 64 << 20});
  ASSERT_FALSE(connector.connect(acceptor->endpoint()).error);
  ASSERT_TRUE(turn_until(reactor, [&] {
    return left_error && diary.find_first_of("cx") != std::string::npos;
  })) << diary;
  EXPECT_TRUE(heard_left == to_the_left);
  EXPECT_TRUE(heard == to_the_right);
  EXPECT_FALSE(*left_error) << left_error->message();
  EXPECT_FALSE(error) << error.message();
}

// ---- Bytes before a reset

TEST_P(HalfClose, IsToldWhatCameBeforeAReset) {
  const std::string speech = pattern(50'000);
  meet({.open = [](Connection& guest) {
    (void)set_socket_option(guest.fd(), SOL_SOCKET, SO_RCVBUF, 1 << 20);
  }});
  if (!is_tcp()) {
    EXPECT_TRUE(guest().send("never read"));
  }
  ASSERT_TRUE(peer->send(speech));
  peer->reset();
  peer.reset();
  ASSERT_TRUE(await_events(guest().fd(), POLLERR | POLLHUP));
  ASSERT_TRUE(turn_until_diary_is("odx")) << diary;
  EXPECT_TRUE(heard == speech) << heard.size();
  EXPECT_EQ(error, std::errc::connection_reset);
}

TEST_P(HalfClose, IsToldWhatCameBeforeAResetThoughItIsMoreThanItsBudget) {
  const std::string speech = pattern(300'000);
  meet({.open =
            [](Connection& guest) {
              (void)set_socket_option(guest.fd(), SOL_SOCKET, SO_RCVBUF, 1 << 20);
              guest.pause_reading();
            }},
       {.read_bytes_per_turn_max = 1000});
  if (!is_tcp()) {
    EXPECT_TRUE(guest().send("never read"));
  }
  const std::size_t sent = peer->send_some(speech);
  const std::size_t arrived = sent - unacknowledged();
  ASSERT_GT(arrived, 64U * 1024) << "more was to be there than one read takes";
  peer->reset();
  peer.reset();
  ASSERT_TRUE(await_events(guest().fd(), POLLERR | POLLHUP));
  guest().resume_reading();
  ASSERT_TRUE(turn_until_diary_is("odx")) << diary;
  EXPECT_GE(heard.size(), arrived);
  EXPECT_TRUE(heard == std::string_view(speech).substr(0, heard.size()));
  EXPECT_EQ(error, std::errc::connection_reset);
}

// Found by this test: shutdown(2) of a connection that has been reset is ENOTCONN, which was told instead of
// the reset, and instead of what had come before it.
TEST_P(HalfClose, IsToldWhatCameBeforeAResetThoughItEndsItsOutput) {
  meet({});
  if (!is_tcp()) {
    EXPECT_TRUE(guest().send("never read"));
  }
  ASSERT_TRUE(peer->send("last words"));
  peer->reset();
  peer.reset();
  ASSERT_TRUE(await_events(guest().fd(), POLLERR | POLLHUP));
  guest().end_output();
  ASSERT_TRUE(turn_until_diary_is("odx")) << diary;
  EXPECT_EQ(heard, "last words");
  EXPECT_EQ(error, std::errc::connection_reset) << error.message();
}

}  // namespace
}  // namespace anteroom
