// Linked with --wrap for send(2) and sendmsg(2), which are counted.
#include <anteroom/acceptor.h>
#include <anteroom/connection.h>
#include <anteroom/connector.h>
#include <anteroom/reactor.h>
#include <anteroom/timer.h>
#include <gtest/gtest.h>
#include <linux/tcp.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "support/descriptors.h"
#include "support/own_network.h"
#include "support/peer.h"
#include "support/sanitized.h"
#include "support/thrown.h"
#include "support/turns.h"

namespace {

int sends = 0;     // calls of send(2)
int sendmsgs = 0;  // calls of sendmsg(2)
int sendmsgs_to_interrupt = 0;

}  // namespace

extern "C" {
// NOLINTBEGIN(bugprone-reserved-identifier): the linker's names, see --wrap in ld(1)
ssize_t __real_send(int socket, const void* bytes, size_t size, int flags);
ssize_t __wrap_send(int socket, const void* bytes, size_t size, int flags);
ssize_t __real_sendmsg(int socket, const msghdr* message, int flags);
ssize_t __wrap_sendmsg(int socket, const msghdr* message, int flags);
// NOLINTEND(bugprone-reserved-identifier)

ssize_t __wrap_send(int socket, const void* bytes, size_t size, int flags) {
  ++sends;
  return __real_send(socket, bytes, size, flags);
}
ssize_t __wrap_sendmsg(int socket, const msghdr* message, int flags) {
  ++sendmsgs;
  if (sendmsgs_to_interrupt > 0) {
    --sendmsgs_to_interrupt;
    errno = EINTR;
    return -1;
  }
  return __real_sendmsg(socket, message, flags);
}
}

namespace anteroom {
namespace {

using namespace std::chrono_literals;
using namespace test;

const std::string& large_answer() {
  static const std::string answer = pattern(8 << 20);  // more than any socket buffer takes
  return answer;
}

/// One guest, and the peer at the other end of its line. The handlers are the test's; it keeps the books.
class ConnectionTest : public testing::Test {
 protected:
  /// Lets one peer in: the guest lives when this returns, unless its handlers have ended it.
  void meet(ConnectionHandlers handlers, ConnectionOptions options = {}, Peer::Options peer_options = {}) {
    AcceptorOptions acceptor_options;
    acceptor_options.connection = options;
    acceptor.emplace(reactor, kLoopback, keep_books(std::move(handlers)), acceptor_options);
    peer.emplace(acceptor->endpoint(), peer_options);
    ASSERT_TRUE(turn_until(reactor, [&] { return id != ChannelId::kNone; }));
    turn_times(reactor, 2);  // what its registration tells is behind us
  }

  ConnectionHandlers keep_books(ConnectionHandlers handlers) {
    return {.open =
                [this, handler = std::move(handlers.open)](Connection& connection) {
                  id = connection.id();
                  if (handler) handler(connection);
                },
            .data =
                [this, handler = std::move(handlers.data)](Connection& connection, std::string_view bytes) {
                  heard += bytes;
                  ++data_calls;
                  if (handler) handler(connection, bytes);
                },
            .drained =
                [this, handler = std::move(handlers.drained)](Connection& connection) {
                  ++drained_calls;
                  EXPECT_EQ(connection.unsent_bytes(), 0U);
                  if (handler) handler(connection);
                },
            .closed =
                [this, handler = std::move(handlers.closed)](Connection& connection, std::error_code why) {
                  ++closed_calls;
                  error = why;
                  if (handler) handler(connection, why);
                }};
  }

  Connection& guest() {
    auto* const connection = reactor.find<Connection>(id);
    EXPECT_NE(connection, nullptr);
    return *connection;
  }
  bool is_over() { return peer->drain() && closed_calls == 1; }
  /// The same, with a peer that ends its side too when it has got all: nobody lingers.
  bool is_over_on_both_sides() {
    if (peer->drain()) peer->finish();
    return is_over();
  }

  Reactor reactor;
  std::optional<Acceptor> acceptor;
  std::optional<Peer> peer;
  ChannelId id = ChannelId::kNone;
  std::string heard;
  int data_calls = 0;
  int drained_calls = 0;
  int closed_calls = 0;
  std::error_code error;
};

void send_back(Connection& guest, std::string_view bytes) { EXPECT_TRUE(guest.send(bytes)); }

// ---- Bytes there and back

TEST_F(ConnectionTest, TellsWhatItIs) {
  meet({});
  EXPECT_TRUE(guest().is_open());
  EXPECT_TRUE(guest().was_open());
  EXPECT_EQ(guest().peer(), peer->local());
  EXPECT_EQ(guest().local(), acceptor->endpoint());
  EXPECT_EQ(guest().unsent_bytes(), 0U);
  ASSERT_TRUE(guest().tcp_info());
  EXPECT_TRUE(guest().tcp_info()->established);
  EXPECT_EQ(guest().context(), nullptr);
  guest().set_context(this);
  EXPECT_EQ(guest().context(), this);
}

TEST_F(ConnectionTest, NeedsNoHandlers) {
  acceptor.emplace(reactor, kLoopback, ConnectionHandlers{});
  peer.emplace(acceptor->endpoint());
  peer->send("nobody listens to me");
  peer->finish();
  ASSERT_TRUE(turn_until(reactor, [&] { return peer->drain(); }));
  EXPECT_EQ(peer->error(), 0);
}

TEST_F(ConnectionTest, EchoesMegabytesThroughShortBuffersByteForByte) {
  const std::string speech = pattern(3 << 20);
  meet({.open =
            [](Connection& guest) {
              (void)set_socket_option(guest.fd(), SOL_SOCKET, SO_SNDBUF, 20'000);
              (void)set_socket_option(guest.fd(), SOL_SOCKET, SO_RCVBUF, 20'000);
            },
        .data = send_back},
       {.high_watermark_bytes = 30'000, .low_watermark_bytes = 10'000, .read_bytes_per_turn_max = 50'000},
       {.receive_buffer_bytes = 100'000, .send_buffer_bytes = 50'000});
  std::size_t sent = 0;
  int without_progress = 0;
  ASSERT_TRUE(turn_until(reactor, [&] {
    // It reads only when it has not been able to send for a while, so that answers have to wait.
    const std::size_t now = peer->send_some(std::string_view(speech).substr(sent));
    sent += now;
    without_progress = now > 0 ? 0 : without_progress + 1;
    if (without_progress > 3) peer->drain();
    return peer->received().size() == speech.size();
  }));
  EXPECT_TRUE(peer->received() == speech);
  EXPECT_GT(drained_calls, 0) << "the buffers were to be too short";
  peer->finish();
  ASSERT_TRUE(turn_until(reactor, [&] { return is_over(); }));
  EXPECT_FALSE(error);
}

TEST_F(ConnectionTest, EchoesMegabytesOverAUnixSocket) {
  const std::string speech = pattern(2 << 20);
  acceptor.emplace(reactor, Endpoint::unix_path("@anteroom-connection-test"),
                   keep_books({.data = send_back}));
  peer.emplace(acceptor->endpoint());
  std::size_t sent = 0;
  ASSERT_TRUE(turn_until(reactor, [&] {
    if (sent < speech.size()) sent += peer->send_some(std::string_view(speech).substr(sent));
    peer->drain();
    return peer->received().size() == speech.size();
  }));
  EXPECT_TRUE(peer->received() == speech);
  peer->close();
  ASSERT_TRUE(turn_until(reactor, [&] { return closed_calls == 1; }));
}

TEST_F(ConnectionTest, KeepsTheOrderOfWhatItIsGiven) {
  std::string all;
  meet({.open = [&](Connection& guest) {
    for (int i = 0; i < 200; ++i) {
      const std::string piece = pattern(static_cast<std::size_t>(i) * 500, static_cast<std::uint32_t>(i));
      EXPECT_TRUE(guest.send(piece));
      all += piece;
    }
    EXPECT_GT(guest.unsent_bytes(), 0U);
    guest.close();
  }});
  ASSERT_TRUE(turn_until(reactor, [&] { return is_over_on_both_sides(); }));
  EXPECT_TRUE(peer->received() == all);
}

TEST_F(ConnectionTest, SendsNothingWithoutHarm) {
  meet({});
  EXPECT_TRUE(guest().send(""));
  EXPECT_TRUE(guest().send(std::span<const std::string_view>()));
  EXPECT_TRUE(guest().send(std::vector<std::string_view>{"", "", ""}));
  EXPECT_EQ(guest().unsent_bytes(), 0U);
  turn_times(reactor, 3);
  EXPECT_EQ(drained_calls, 0);
  EXPECT_FALSE(peer->drain());
}

TEST_F(ConnectionTest, IsDrainedOnlyOfWhatHadToWait) {
  meet({});
  EXPECT_TRUE(guest().send("short enough for the kernel to take at once"));
  turn_times(reactor, 3);
  EXPECT_EQ(drained_calls, 0);
  EXPECT_TRUE(guest().send(large_answer()));
  EXPECT_GT(guest().unsent_bytes(), 0U);
  ASSERT_TRUE(turn_until(reactor, [&] { return peer->drain(), drained_calls == 1; }));
  turn_times(reactor, 3);
  EXPECT_EQ(drained_calls, 1);
}

TEST_F(ConnectionTest, MayBeAnsweredOutsideOfItsHandlers) {
  meet({});
  Timer timer(reactor, [&] { EXPECT_TRUE(guest().send("by a timer ")); });
  timer.arm(0ms);
  ASSERT_TRUE(turn_until(reactor, [&] { return peer->drain(), peer->received() == "by a timer "; }));
  reactor.post([&] {
    guest().send("by a task");
    guest().close();
  });
  ASSERT_TRUE(turn_until(reactor, [&] { return is_over_on_both_sides(); }));
  EXPECT_EQ(peer->received(), "by a timer by a task");
}

// ---- Several pieces at once

/// Pieces of all lengths up to `longest`, empty ones among them, and what they are together.
struct Pieces {
  Pieces(std::size_t count, std::size_t longest) {
    std::vector<std::size_t> sizes;
    for (std::size_t i = 0; i < count; ++i) sizes.push_back(i * 7919 % (longest + 1));
    for (const std::size_t size : sizes) total += size;
    all = pattern(total);
    std::string_view rest = all;
    for (const std::size_t size : sizes) {
      pieces.push_back(rest.substr(0, size));
      rest.remove_prefix(size);
    }
  }
  std::size_t total = 0;
  std::string all;
  std::vector<std::string_view> pieces;
};

TEST_F(ConnectionTest, SendsSeveralPiecesInOneCall) {
  meet({});
  const std::vector<std::string_view> pieces{
      "", "HTTP/1.1 200 OK\r\n", "Content-Length: 5\r\n", "", "\r\n", "hello", ""};
  sends = sendmsgs = 0;
  EXPECT_TRUE(guest().send(pieces));
  EXPECT_EQ(sendmsgs, 1);
  EXPECT_EQ(sends, 0);
  EXPECT_EQ(guest().unsent_bytes(), 0U);
  ASSERT_TRUE(turn_until(reactor, [&] { return peer->drain(), peer->received().ends_with("hello"); }));
  EXPECT_EQ(peer->received(), "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
  turn_times(reactor, 3);
  EXPECT_EQ(drained_calls, 0);
}

TEST_F(ConnectionTest, SendsMorePiecesThanOneCallMayTake) {
  const Pieces many(5'000, 5);  // IOV_MAX is 1024
  meet({});
  sends = sendmsgs = 0;
  EXPECT_TRUE(guest().send(many.pieces));
  EXPECT_LE(sendmsgs + sends, 5'000 / 64 + 1) << "at least 64 of them at a time";
  guest().close();
  ASSERT_TRUE(turn_until(reactor, [&] { return is_over_on_both_sides(); }));
  EXPECT_TRUE(peer->received() == many.all);
}

TEST_F(ConnectionTest, GoesOnInTheMiddleOfAPiece) {
  for (const std::size_t longest : {9U, 1'000U, 77'777U}) {
    const Pieces many(1'200'000 / longest, longest);
    meet({.open =
              [](Connection& guest) { (void)set_socket_option(guest.fd(), SOL_SOCKET, SO_SNDBUF, 20'000); }},
         {}, {.receive_buffer_bytes = 100'000});
    EXPECT_TRUE(guest().send(many.pieces));
    EXPECT_GT(guest().unsent_bytes(), 0U);
    EXPECT_LT(guest().unsent_bytes(), many.total);
    guest().close();
    ASSERT_TRUE(turn_until(reactor, [&] { return is_over_on_both_sides(); }));
    EXPECT_TRUE(peer->received() == many.all) << longest;
    id = ChannelId::kNone;
    closed_calls = 0;
  }
}

TEST_F(ConnectionTest, KeepsTheOrderOfPiecesAndOtherBytes) {
  const Pieces many(40, 50'000);
  std::string all;
  meet({});
  for (int i = 0; i < 10; ++i) {
    const std::string bytes = pattern(30'000, static_cast<std::uint32_t>(i));
    EXPECT_TRUE(guest().send(bytes));
    EXPECT_TRUE(guest().send(many.pieces));
    all += bytes + many.all;
  }
  EXPECT_GT(guest().unsent_bytes(), 0U);
  sends = sendmsgs = 0;
  EXPECT_TRUE(guest().send(many.pieces));
  EXPECT_EQ(sends + sendmsgs, 0) << "others wait before them";
  guest().close();
  ASSERT_TRUE(turn_until(reactor, [&] { return is_over_on_both_sides(); }));
  EXPECT_TRUE(peer->received() == all + many.all);
}

TEST_F(ConnectionTest, SendsPiecesOverAUnixSocket) {
  const Pieces many(2'000, 3'000);
  acceptor.emplace(reactor, Endpoint::unix_path("@anteroom-connection-test"), keep_books({}));
  peer.emplace(acceptor->endpoint());
  ASSERT_TRUE(turn_until(reactor, [&] { return id != ChannelId::kNone; }));
  EXPECT_TRUE(guest().send(many.pieces));
  EXPECT_GT(guest().unsent_bytes(), 0U);
  guest().close();
  ASSERT_TRUE(turn_until(reactor, [&] { return peer->drain(); }));
  EXPECT_TRUE(peer->received() == many.all);
}

TEST_F(ConnectionTest, SendsPiecesThoughSignalsInterrupt) {
  meet({});
  sendmsgs_to_interrupt = 3;
  EXPECT_TRUE(guest().send(std::vector<std::string_view>{"never ", "mind"}));
  EXPECT_EQ(sendmsgs_to_interrupt, 0);
  EXPECT_EQ(guest().unsent_bytes(), 0U);
  ASSERT_TRUE(turn_until(reactor, [&] { return peer->drain(), peer->received() == "never mind"; }));
}

TEST_F(ConnectionTest, RefusesPiecesOnceItIsClosing) {
  meet({});
  Connection& connection = guest();
  connection.close();
  EXPECT_FALSE(connection.send(std::vector<std::string_view>{"too ", "late"}));
  EXPECT_FALSE(connection.send(std::span<const std::string_view>()));
  ASSERT_TRUE(turn_until(reactor, [&] { return is_over_on_both_sides(); }));
  EXPECT_EQ(peer->received(), "");
}

TEST_F(ConnectionTest, SendsPiecesToAPeerThatIsGoneWithoutDyingOfSigpipe) {
  meet({});
  peer->reset();
  ASSERT_TRUE(await_events(guest().fd(), POLLERR));
  Connection& connection = guest();
  for (int i = 0; i < 3; ++i) {
    EXPECT_FALSE(connection.send(std::vector<std::string_view>{"anybody ", "there?"}));
  }
  EXPECT_EQ(connection.unsent_bytes(), 0U);
  ASSERT_TRUE(turn_until(reactor, [&] { return closed_calls == 1; }));
  EXPECT_EQ(error, std::errc::connection_reset);
}

// ---- Watermarks and pauses

TEST_F(ConnectionTest, ReadsNoMoreFromWhoDoesNotTakeItsAnswers) {
  constexpr std::size_t kHigh = 100'000;
  std::size_t most = 0;
  meet({.data =
            [&](Connection& guest, std::string_view bytes) {
              EXPECT_LT(guest.unsent_bytes(), kHigh) << "told of input above the high watermark";
              EXPECT_TRUE(guest.send(bytes));
              most = std::max(most, guest.unsent_bytes());
            }},
       {.high_watermark_bytes = kHigh, .low_watermark_bytes = 20'000});
  const std::string speech = pattern(32 << 20);
  std::size_t sent = 0;
  int without_progress = 0;
  ASSERT_TRUE(turn_until(reactor, [&] {
    const std::size_t now = peer->send_some(std::string_view(speech).substr(sent));
    sent += now;
    without_progress = now > 0 ? 0 : without_progress + 1;
    return without_progress > 20;
  })) << "the peer was never stopped";
  EXPECT_LT(sent, speech.size());
  EXPECT_GE(most, kHigh);
  EXPECT_LT(most, kHigh + 64 * 1024) << "one read more at most";
  const int calls_when_stopped = data_calls;
  turn_times(reactor, 5);
  EXPECT_EQ(data_calls, calls_when_stopped);
  // As soon as the peer takes its answers, it goes on.
  ASSERT_TRUE(turn_until(reactor, [&] { return peer->drain(), peer->received().size() == sent; }));
  EXPECT_GT(data_calls, calls_when_stopped);
  EXPECT_TRUE(std::string_view(speech).substr(0, sent) == peer->received());
}

TEST_F(ConnectionTest, ReadsOnWhenTheLowWatermarkIsReached) {
  meet({.open =
            [](Connection& guest) {
              guest.send(large_answer());
              EXPECT_GT(guest.unsent_bytes(), 1U << 20);
            }},
       {.high_watermark_bytes = 1 << 20, .low_watermark_bytes = 500'000});
  peer->send("let me say something");
  ASSERT_TRUE(await_events(guest().fd(), POLLIN));
  turn_times(reactor, 5);
  EXPECT_EQ(heard, "");
  ASSERT_TRUE(turn_until(reactor, [&] {
    peer->drain();
    if (heard.empty() && closed_calls == 0) return false;
    return true;
  }));
  EXPECT_EQ(heard, "let me say something");
}

TEST_F(ConnectionTest, TellsNoDataWhilePaused) {
  meet({.open = [](Connection& guest) { guest.pause_reading(); }});
  peer->send("one ");
  ASSERT_TRUE(await_events(guest().fd(), POLLIN));
  turn_times(reactor, 3);
  EXPECT_EQ(heard, "");
  guest().resume_reading();
  EXPECT_EQ(heard, "") << "told by the turn, and not from inside";
  reactor.turn();
  EXPECT_EQ(heard, "one ");
  guest().pause_reading();
  peer->send("two ");
  ASSERT_TRUE(await_events(guest().fd(), POLLIN));
  turn_times(reactor, 3);
  guest().resume_reading();
  guest().pause_reading();  // thought better of it
  turn_times(reactor, 3);
  EXPECT_EQ(heard, "one ");
  guest().resume_reading();
  guest().resume_reading();
  turn_times(reactor, 3);
  EXPECT_EQ(heard, "one two ");
  EXPECT_EQ(data_calls, 2);
}

TEST_F(ConnectionTest, PausedInDataIsToldNoMoreInThatTurnAndAllOfItLater) {
  meet({.data = [](Connection& guest, std::string_view) { guest.pause_reading(); }});
  (void)set_socket_option(guest().fd(), SOL_SOCKET, SO_RCVBUF, 1 << 20);
  const std::string speech = pattern(300'000);
  std::size_t sent = 0;
  int calls = 0;
  ASSERT_TRUE(turn_until(reactor, [&] {
    sent += peer->send_some(std::string_view(speech).substr(sent));
    EXPECT_LE(data_calls, calls + 1) << "told again though it was paused";
    calls = data_calls;
    guest().resume_reading();
    return heard.size() == speech.size();
  }));
  EXPECT_TRUE(heard == speech);
  EXPECT_GT(data_calls, 3);
}

TEST_F(ConnectionTest, SeesTheEndOnceItIsNoLongerPaused) {
  meet({.open = [](Connection& guest) { guest.pause_reading(); }});
  peer->send("last words");
  peer->close();
  ASSERT_TRUE(await_events(guest().fd(), POLLIN | POLLRDHUP));
  turn_times(reactor, 3);
  EXPECT_EQ(closed_calls, 0);
  guest().resume_reading();
  ASSERT_TRUE(turn_until(reactor, [&] { return closed_calls == 1; }));
  EXPECT_EQ(heard, "last words");
  EXPECT_FALSE(error);
}

TEST_F(ConnectionTest, ReadsNoMoreThanItsShareInOneTurn) {
  constexpr std::size_t kShare = 10'000;
  std::size_t most = 0;
  meet({}, {.read_bytes_per_turn_max = kShare});
  Peer other(acceptor->endpoint());
  const std::string speech = pattern(1 << 20);
  std::size_t sent = 0;
  ASSERT_TRUE(turn_until(reactor, [&] {
    sent += peer->send_some(std::string_view(speech).substr(sent));
    const std::size_t before = heard.size();
    reactor.turn(0ms);
    most = std::max(most, heard.size() - before);
    return heard.size() == speech.size();
  }));
  // One read takes 64 KiB at most, and a turn may have an event and a call that was asked for.
  EXPECT_LE(most, 2 * (kShare + 64 * 1024));
  EXPECT_TRUE(heard == speech);
}

// ---- Ends

TEST_F(ConnectionTest, SendsAllOfALargeAnswerBeforeItCloses) {
  meet({.data = [](Connection& guest, std::string_view) {
    EXPECT_TRUE(guest.send(large_answer()));
    guest.close();
    EXPECT_FALSE(guest.is_open());
    EXPECT_FALSE(guest.send("too late"));
    EXPECT_GT(guest.unsent_bytes(), 0U);
  }});
  peer->send("question");
  ASSERT_TRUE(turn_until(reactor, [&] {
    if (peer->drain()) peer->close();
    return closed_calls == 1;
  }));
  EXPECT_TRUE(peer->received() == large_answer());
  EXPECT_EQ(peer->error(), 0);
  EXPECT_FALSE(error);
}

// close(2) with input unread would send a reset, which overtakes the answer and throws away what the peer has
// not read.
TEST_F(ConnectionTest, SendsAllOfALargeAnswerWhileInputStillArrives) {
  meet({.data = [](Connection& guest, std::string_view) {
    guest.send(large_answer());
    guest.close();
  }});
  ASSERT_TRUE(turn_until(reactor, [&] {
    peer->send_some("I am not listening, I am talking. ");
    return peer->drain();
  }));
  EXPECT_TRUE(peer->received() == large_answer());
  EXPECT_EQ(peer->error(), 0) << "an orderly end, and no reset";
  for (int i = 0; i < 10; ++i) {
    peer->send_some("still talking");
    reactor.turn(0ms);
  }
  peer->close();
  ASSERT_TRUE(turn_until(reactor, [&] { return closed_calls == 1; }));
}

TEST_F(ConnectionTest, SendsAShortAnswerWholeThoughInputIsLeftUnread) {
  meet({.data = [](Connection& guest, std::string_view) {
    guest.send("enough!");
    guest.close();
  }});
  (void)set_socket_option(guest().fd(), SOL_SOCKET, SO_RCVBUF, 1 << 20);
  const std::string speech(200'000, 'x');  // three reads and more, of which one is read
  const std::size_t sent = peer->send_some(speech);
  ASSERT_TRUE(turn_until(reactor, [&] { return peer->drain(); }));
  EXPECT_GT(sent, 64U * 1024) << "more was to be there than one read takes";
  EXPECT_EQ(peer->received(), "enough!");
  EXPECT_EQ(peer->error(), 0);
}

TEST_F(ConnectionTest, SendsItsLastWordsAndItsEndInOneSegment) {
  const auto segments = [this] {
    struct ::tcp_info info {};
    socklen_t size = sizeof(info);
    EXPECT_EQ(::getsockopt(peer->fd(), IPPROTO_TCP, TCP_INFO, &info, &size), 0);
    return info.tcpi_segs_in;
  };
  meet({.open = [](Connection& guest) { guest.close("Hello World!"); }});
  ASSERT_TRUE(turn_until(reactor, [&] { return is_over(); }));
  EXPECT_EQ(peer->received(), "Hello World!");
  EXPECT_EQ(peer->error(), 0);
  EXPECT_FALSE(error);
  EXPECT_EQ(segments(), 2U) << "one was the SYN-ACK";
}

TEST_F(ConnectionTest, SendsAllOfItsLastWordsHoweverMany) {
  meet({.data = [](Connection& guest, std::string_view) {
    EXPECT_TRUE(guest.send("head "));
    guest.close(large_answer());
    EXPECT_FALSE(guest.is_open());
    EXPECT_FALSE(guest.send("too late"));
    guest.close("too late");
  }});
  peer->send("question");
  ASSERT_TRUE(turn_until(reactor, [&] { return is_over_on_both_sides(); }));
  EXPECT_TRUE(peer->received() == "head " + large_answer());
  EXPECT_EQ(peer->error(), 0);
  EXPECT_FALSE(error);
}

TEST_F(ConnectionTest, IsToldWhatCameBeforeItsLastWordsFailed) {
  meet({});
  peer->send("your last words");
  peer->reset();
  ASSERT_TRUE(await_events(guest().fd(), POLLERR));
  guest().close("mine");
  ASSERT_TRUE(turn_until(reactor, [&] { return closed_calls == 1; }));
  EXPECT_EQ(heard, "your last words");
  EXPECT_EQ(error, std::errc::connection_reset);
}

TEST_F(ConnectionTest, LosesWhatWaitsWhenAborted) {
  meet({.open = [](Connection& guest) { guest.send(large_answer()); }});
  guest().abort();
  EXPECT_EQ(closed_calls, 0) << "told by the turn";
  ASSERT_TRUE(turn_until(reactor, [&] { return is_over(); }));
  EXPECT_EQ(peer->error(), ECONNRESET);
  EXPECT_LT(peer->received().size(), large_answer().size());
  EXPECT_EQ(error, std::errc::operation_canceled);
}

TEST_F(ConnectionTest, AnswersAPeerThatHasClosedItsHalf) {
  // Its end is read while nearly all of the answer still waits.
  meet({.data = [](Connection& guest, std::string_view) { guest.send(large_answer()); }},
       {.high_watermark_bytes = 64 << 20});
  peer->send("question");
  peer->finish();
  ASSERT_TRUE(turn_until(reactor, [&] { return is_over(); }));
  EXPECT_TRUE(peer->received() == large_answer());
  EXPECT_EQ(peer->error(), 0);
  EXPECT_FALSE(error);
}

TEST_F(ConnectionTest, AnswersAPeerThatHadClosedItsHalfBeforeItWasLetIn) {
  acceptor.emplace(
      reactor, kLoopback,
      keep_books({.data = [](Connection& guest, std::string_view) { guest.send(large_answer()); }}));
  peer.emplace(acceptor->endpoint());
  peer->send("question");
  peer->finish();
  ASSERT_TRUE(turn_until(reactor, [&] { return is_over(); }));
  EXPECT_TRUE(peer->received() == large_answer());
  EXPECT_FALSE(error);
}

TEST_F(ConnectionTest, AnswersPieceByPieceAPeerThatHasClosedItsHalf) {
  constexpr std::size_t kPiece = 600'000;  // more than the two buffers on the way take
  const std::string answer = pattern(3'000'000);
  std::size_t given = 0;
  const auto produce = [&](Connection& guest) {
    while (given < answer.size() && guest.unsent_bytes() == 0) {
      const auto piece = std::string_view(answer).substr(given, kPiece);
      EXPECT_TRUE(guest.send(piece));
      given += piece.size();
    }
  };
  meet(
      {.open = [](Connection& guest) { (void)set_socket_option(guest.fd(), SOL_SOCKET, SO_SNDBUF, 100'000); },
       .data = [&](Connection& guest, std::string_view) { produce(guest); },
       .drained = produce},
      {.high_watermark_bytes = 64 << 20}, {.receive_buffer_bytes = 100'000});
  peer->send("question");
  peer->finish();
  ASSERT_TRUE(turn_until(reactor, [&] { return is_over(); }));
  EXPECT_TRUE(peer->received() == answer);
  EXPECT_EQ(drained_calls, 5);
  EXPECT_FALSE(error);
}

TEST_F(ConnectionTest, ReadsWhatLiesBehindUrgentData) {
  meet({});
  turn_times(reactor, 3);
  ASSERT_EQ(::send(peer->fd(), "abc", 3, 0), 3);
  ASSERT_EQ(::send(peer->fd(), "!", 1, MSG_OOB), 1);
  ASSERT_EQ(::send(peer->fd(), "efg", 3, 0), 3);
  EXPECT_TRUE(turn_until(reactor, [&] { return heard == "abcefg"; })) << heard;
}

TEST_F(ConnectionTest, LeavesNoFinBehindATruncatedAnswerWhenItsReactorGoes) {
  std::optional<Reactor> short_lived(std::in_place);
  std::optional<Acceptor> door(
      std::in_place, *short_lived, kLoopback,
      ConnectionHandlers{.open = [](Connection& guest) { guest.send(large_answer()); }});
  Peer client(door->endpoint());
  ASSERT_TRUE(turn_until(*short_lived, [&] { return door->stats().accepted == 1; }));
  door.reset();
  short_lived.reset();
  client.receive_all();
  EXPECT_LT(client.received().size(), large_answer().size());
  EXPECT_EQ(client.error(), ECONNRESET);
}

TEST_F(ConnectionTest, GivesUpAPeerThatNeverReads) {
  meet({.open = [](Connection& guest) { guest.send(large_answer()); }}, {.linger = 40ms});
  turn_times(reactor, 5);
  const auto begin = Reactor::Clock::now();
  guest().close();
  ASSERT_TRUE(turn_until(reactor, [&] { return closed_calls == 1; }));
  EXPECT_EQ(error, std::errc::timed_out);
  EXPECT_GE(Reactor::Clock::now() - begin, 40ms);
  ASSERT_TRUE(turn_until(reactor, [&] { return peer->drain(); }));
  EXPECT_EQ(peer->error(), ECONNRESET) << "a FIN would say that this was all";
}

TEST_F(ConnectionTest, WaitsForAPeerThatReadsSlowly) {
  const std::string answer = pattern(16 << 20, 2);
  meet({.open =
            [&](Connection& guest) {
              guest.send(answer);
              guest.close();
            }},
       {.linger = 200ms});
  std::string received;
  const auto begin = Reactor::Clock::now();
  auto last_waited = begin;
  Timer timer;
  timer = Timer(reactor, [&] {  // takes the answer in sips, for longer than the deadline
    std::string sip(400'000, '\0');
    const ssize_t count = ::recv(peer->fd(), sip.data(), sip.size(), MSG_DONTWAIT);
    if (count > 0) received.append(sip, 0, static_cast<std::size_t>(count));
    if (count == 0) timer.cancel();
    const auto* const guest_now = reactor.find<Connection>(id);
    if (guest_now != nullptr && guest_now->unsent_bytes() > 0) last_waited = Reactor::Clock::now();
  });
  timer.arm_every(20ms);
  ASSERT_TRUE(turn_until(reactor, [&] { return !timer.is_armed() && closed_calls == 1; }));
  EXPECT_GT(last_waited - begin, 200ms) << "the peer was to be slow";
  EXPECT_TRUE(received == answer);
  EXPECT_FALSE(error);
}

TEST_F(ConnectionTest, LeavesAPeerThatNeverClosesAfterAWhile) {
  meet({.data =
            [](Connection& guest, std::string_view) {
              guest.send("served");
              guest.close();
            }},
       {.linger = 30ms});
  const auto begin = Reactor::Clock::now();
  peer->send("question");
  ASSERT_TRUE(turn_until(reactor, [&] { return is_over(); }));
  EXPECT_GE(Reactor::Clock::now() - begin, 30ms);
  EXPECT_EQ(peer->received(), "served");
  EXPECT_FALSE(error) << "it has been served all the same";
}

TEST_F(ConnectionTest, SaysThatItsPeerHasReset) {
  meet({});
  peer->reset();
  ASSERT_TRUE(turn_until(reactor, [&] { return closed_calls == 1; }));
  EXPECT_EQ(error, std::errc::connection_reset);
}

TEST_F(ConnectionTest, SaysThatItsPeerHasResetWhileItsAnswerWaited) {
  meet({.open = [](Connection& guest) { guest.send(large_answer()); }});
  peer->reset();
  ASSERT_TRUE(turn_until(reactor, [&] { return closed_calls == 1; }));
  EXPECT_EQ(error, std::errc::connection_reset);
}

TEST_F(ConnectionTest, SaysThatItsPeerHasResetWhileItWasClosing) {
  meet({.open = [](Connection& guest) {
    guest.send(large_answer());
    guest.close();
  }});
  peer->reset();
  ASSERT_TRUE(turn_until(reactor, [&] { return closed_calls == 1; }));
  EXPECT_TRUE(error == std::errc::connection_reset || error == std::errc::broken_pipe) << error.message();
}

TEST_F(ConnectionTest, SendsToAPeerThatIsGoneWithoutDyingOfSigpipe) {
  struct sigaction before {};
  ::sigaction(SIGPIPE, nullptr, &before);
  ASSERT_EQ(before.sa_handler, SIG_DFL) << "the test would prove nothing";
  meet({});
  peer->reset();
  ASSERT_TRUE(await_events(guest().fd(), POLLERR));
  Connection& connection = guest();
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(connection.send("anybody there?"));
  EXPECT_EQ(connection.unsent_bytes(), 0U);
  EXPECT_EQ(closed_calls, 0) << "told by the turn";
  ASSERT_TRUE(turn_until(reactor, [&] { return closed_calls == 1; }));
  EXPECT_EQ(error, std::errc::connection_reset);
}

TEST_F(ConnectionTest, IsToldWhatCameBeforeASendFailed) {
  meet({});
  peer->send("last words");
  ASSERT_TRUE(await_events(guest().fd(), POLLIN));
  peer->reset();
  ASSERT_TRUE(await_events(guest().fd(), POLLERR));
  EXPECT_FALSE(guest().send("too late"));
  ASSERT_TRUE(turn_until(reactor, [&] { return closed_calls == 1; }));
  EXPECT_EQ(heard, "last words");
  EXPECT_EQ(error, std::errc::connection_reset);
}

TEST_F(ConnectionTest, RefusesToSendOnceItIsClosing) {
  meet({});
  Connection& connection = guest();
  connection.close();
  EXPECT_FALSE(connection.is_open());
  EXPECT_FALSE(connection.send("too late"));
  ASSERT_TRUE(turn_until(reactor, [&] { return is_over(); }));
  EXPECT_EQ(peer->received(), "");
  EXPECT_EQ(peer->error(), 0);
  EXPECT_FALSE(error);
}

TEST_F(ConnectionTest, LeavesNoDescriptorBehind) {
  const int before = open_descriptors();
  {
    Reactor other;
    int ended = 0;
    Acceptor door(
        other, kLoopback,
        {.data = [](Connection& guest, std::string_view bytes) { guest.send(bytes), guest.close(); },
         .closed = [&](Connection&, std::error_code) { ++ended; }});
    Connector connector(other, {.open = [](Connection& caller) { caller.send("hello"); },
                                .closed = [&](Connection&, std::error_code) { ++ended; }});
    for (int i = 0; i < 50; ++i) ASSERT_FALSE(connector.connect(door.endpoint()).error);
    ASSERT_TRUE(turn_until(other, [&] { return ended == 100; }));
  }
  EXPECT_EQ(open_descriptors(), before);
}

// ---- Memory that is used again

// The library keeps the memory of some connections for the next ones, so clang's sanitizers did not find a
// reference that was kept too long.
TEST(ConnectionDeathTest, ThatIsKeptTooLongIsFoundByAddressSanitizer) {
  if (!kIsSanitized || kIsThreadSanitized) GTEST_SKIP() << "without AddressSanitizer it cannot be found";
  const auto use_after_its_end = [](bool there_is_another) {
    Reactor reactor;
    Connection* kept = nullptr;
    int ended = 0;
    const Acceptor acceptor_of_two(reactor, kLoopback,
                                   {.open =
                                        [&](Connection& opened) {
                                          if (kept == nullptr) kept = &opened;
                                          opened.close("x");
                                        },
                                    .closed = [&](Connection&, std::error_code) { ++ended; }});
    const Peer first(acceptor_of_two.endpoint());
    (void)turn_until(reactor, [&] { return ended == 1; });
    std::optional<Peer> second;
    if (there_is_another) second.emplace(acceptor_of_two.endpoint());
    (void)turn_until(reactor, [&] { return !there_is_another || ended == 2; });
    (void)kept->is_open();
  };
  EXPECT_DEATH(use_after_its_end(false), "heap-use-after-free");
  EXPECT_DEATH(use_after_its_end(true), "heap-use-after-free") << "it was not given to the next one";
}

// ---- What makes no sense

TEST_F(ConnectionTest, IsNotMadeWithOptionsThatMakeNoSense) {
  const int before = open_descriptors();
  const auto expect_refused = [&](const ConnectionOptions& options, const char* name) {
    const Thrown thrown = thrown_by([&] {
      const Acceptor made(reactor, kLoopback, {}, {.connection = options});
      return 0;
    });
    EXPECT_EQ(thrown.code, std::errc::invalid_argument) << name;
    EXPECT_NE(thrown.what.find(name), std::string::npos) << thrown.what;
  };
  expect_refused({.high_watermark_bytes = 1000, .low_watermark_bytes = 1001}, "high_watermark_bytes");
  expect_refused({.high_watermark_bytes = 64 * 1024 - 1}, "low_watermark_bytes");
  expect_refused({.linger = -1ms}, "linger");
  expect_refused({.first_byte_deadline = -1ms}, "first_byte_deadline");
  expect_refused({.idle_deadline = -1ms}, "idle_deadline");
  expect_refused({.rate_window = -1ms}, "rate_window");
  turn_times(reactor, 3);
  EXPECT_EQ(open_descriptors(), before);
  const Acceptor equal(reactor, kLoopback, {},
                       {.connection = {.high_watermark_bytes = 1000, .low_watermark_bytes = 1000}});
}

TEST_F(ConnectionTest, ReportsLastWordsBehindItsOwnEnd) {
  meet({});
  guest().end_output();
  guest().close("words behind the end");
  ASSERT_TRUE(turn_until(reactor, [&] { return is_over(); }));
  EXPECT_EQ(error, std::errc::broken_pipe);
  EXPECT_EQ(peer->received(), "");
}

TEST_F(ConnectionTest, ClosesWithNoLastWordsBehindItsOwnEnd) {
  meet({});
  guest().end_output();
  guest().close("");
  ASSERT_TRUE(turn_until(reactor, [&] { return is_over_on_both_sides(); }));
  EXPECT_FALSE(error);
  EXPECT_EQ(peer->error(), 0);
}

TEST(ConnectionDeathTest, CannotEndItsOutputBeforeItIsOpen) {
  if (!kAsserts) GTEST_SKIP() << "a bug in the program, which asserts";
  Reactor reactor;
  const Listener listener(kLoopback);
  Connector connector(reactor, {});
  const ConnectResult result = connector.connect(listener.endpoint());
  EXPECT_DEATH(reactor.find<Connection>(result.id)->end_output(), "before `open`");
}

}  // namespace
}  // namespace anteroom
