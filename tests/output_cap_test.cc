// What waits to be sent has two hard caps, of a connection and of its reactor; and every byte of it is
// counted.
#include <anteroom/acceptor.h>
#include <anteroom/connection.h>
#include <anteroom/reactor.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "support/own_network.h"
#include "support/peer.h"
#include "support/turns.h"

namespace anteroom {
namespace {

using namespace test;

constexpr std::size_t kCap = 100'000;

/// Guests whose peers take nothing until they are told to.
class OutputCap : public testing::Test {
 protected:
  /// Lets `count` peers in, with send buffers so short that nearly everything has to wait.
  void meet(std::size_t count, ConnectionOptions options = {}) {
    options.high_watermark_bytes = 1 << 30;
    AcceptorOptions acceptor_options;
    acceptor_options.connection = options;
    acceptor.emplace(
        reactor, kLoopback,
        ConnectionHandlers{
            .open =
                [this](Connection& guest) {
                  ids.push_back(guest.id());
                  (void)set_socket_option(guest.fd(), SOL_SOCKET, SO_SNDBUF, 5'000);
                },
            .closed = [this](Connection& guest, std::error_code why) { ended[guest.id()] = why; }},
        acceptor_options);
    while (peers.size() < count) {
      peers.emplace_back(acceptor->endpoint(), Peer::Options{.receive_buffer_bytes = 5'000});
    }
    ASSERT_TRUE(turn_until(reactor, [&] { return ids.size() == count; }));
    turn_times(reactor, 2);
  }

  Connection& guest(std::size_t i = 0) {
    auto* const connection = reactor.find<Connection>(ids[i]);
    EXPECT_NE(connection, nullptr);
    return *connection;
  }
  bool is_open(std::size_t i) { return reactor.find<Connection>(ids[i]) != nullptr && guest(i).is_open(); }

  /// Fills what the kernel takes, so that from now on every byte waits: how many do.
  std::size_t fill_the_kernel(std::size_t i = 0) {
    while (guest(i).unsent_bytes() == 0) {
      EXPECT_TRUE(guest(i).send(std::string(500, 'k')));
      turn_times(reactor, 3);
    }
    return guest(i).unsent_bytes();
  }
  bool turn_until_all_is_taken() {
    return turn_until(reactor, [&] {
      for (Peer& peer : peers) peer.drain();
      return reactor.metrics().buffered_bytes == 0;
    });
  }
  std::size_t buffered() const { return reactor.metrics().buffered_bytes; }

  Reactor reactor;
  std::optional<Acceptor> acceptor;
  std::vector<Peer> peers;
  std::vector<ChannelId> ids;
  std::map<ChannelId, std::error_code> ended;
};

// ---- Of a connection

TEST_F(OutputCap, LetsAsMuchWaitAsItSays) {
  meet(1, {.output_bytes_max = kCap});
  const std::size_t waiting = fill_the_kernel();
  ASSERT_LT(waiting, kCap);
  EXPECT_TRUE(guest().send(std::string(kCap - waiting, 'x')));
  EXPECT_EQ(guest().unsent_bytes(), kCap);
  EXPECT_TRUE(guest().send("")) << "nothing is not too much";
  turn_times(reactor, 3);
  EXPECT_TRUE(is_open(0));
  ASSERT_TRUE(turn_until_all_is_taken());
  EXPECT_TRUE(guest().send("and on"));
}

TEST_F(OutputCap, EndsAConnectionThatIsGivenAByteMore) {
  meet(1, {.output_bytes_max = kCap});
  const std::size_t waiting = fill_the_kernel();
  ASSERT_TRUE(guest().send(std::string(kCap - waiting, 'x')));
  EXPECT_FALSE(guest().send("y"));
  EXPECT_FALSE(guest().is_open());
  EXPECT_FALSE(guest().send("z"));
  EXPECT_TRUE(ended.empty()) << "told by the turn";
  ASSERT_TRUE(turn_until(reactor, [&] { return peers[0].drain() && ended.size() == 1; }));
  EXPECT_EQ(ended[ids[0]], std::errc::no_buffer_space) << ended[ids[0]].message();
  EXPECT_EQ(peers[0].error(), ECONNRESET) << "a FIN would say that this was all";
  EXPECT_EQ(buffered(), 0U);
}

TEST_F(OutputCap, CountsWhatHasToWaitAndNotWhatTheKernelTakes) {
  constexpr std::size_t kSmallCap = 1000;
  meet(1, {.output_bytes_max = kSmallCap});
  (void)set_socket_option(guest().fd(), SOL_SOCKET, SO_SNDBUF, 200'000);
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(guest().send(std::string(500, 'x'))) << "the peer takes it all";
    ASSERT_TRUE(turn_until(reactor, [&] { return peers[0].drain(), guest().unsent_bytes() == 0; }));
  }
  EXPECT_FALSE(guest().send(std::string(2 << 20, 'x')));
  ASSERT_TRUE(turn_until(reactor, [&] { return ended.size() == 1; }));
  EXPECT_EQ(ended[ids[0]], std::errc::no_buffer_space);
}

TEST_F(OutputCap, CountsSeveralPiecesAsOne) {
  meet(2, {.output_bytes_max = kCap});
  const std::string piece(10'000, 'p');
  for (std::size_t i = 0; i < 2; ++i) {
    const std::size_t rest = kCap - fill_the_kernel(i);
    const std::string last(rest % piece.size() + i, 'q');  // the second is given a byte more
    std::vector<std::string_view> pieces(rest / piece.size(), piece);
    pieces.emplace_back(last);
    EXPECT_EQ(guest(i).send(pieces), i == 0);
  }
  EXPECT_EQ(guest(0).unsent_bytes(), kCap);
  ASSERT_TRUE(turn_until(reactor, [&] { return ended.size() == 1; }));
  EXPECT_EQ(ended[ids[1]], std::errc::no_buffer_space);
  EXPECT_TRUE(is_open(0));
}

TEST_F(OutputCap, IsNotOverflownByASizeNearTheLargestNumber) {
  meet(1, {.output_bytes_max = ~std::size_t{0}});
  const std::size_t waiting = fill_the_kernel();
  EXPECT_TRUE(guest().send(std::string(kCap, 'x')));
  EXPECT_EQ(guest().unsent_bytes(), waiting + kCap);
  EXPECT_TRUE(is_open(0));
}

TEST_F(OutputCap, DoesNotCountFiles) {
  constexpr std::size_t kFileBytes = 1 << 20;
  meet(1, {.output_bytes_max = kCap});
  (void)fill_the_kernel();
  Fd file(::memfd_create("file", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(file.get(), kFileBytes), 0);
  const std::size_t before = guest().unsent_bytes();
  EXPECT_TRUE(guest().send_file(std::move(file), 0, kFileBytes));
  EXPECT_EQ(guest().unsent_bytes(), before);
  EXPECT_TRUE(guest().send(std::string(kCap - before, 'x')));
  EXPECT_FALSE(guest().send("y")) << "what waits on both sides of a file counts together";
  ASSERT_TRUE(turn_until(reactor, [&] { return ended.size() == 1; }));
  EXPECT_EQ(ended[ids[0]], std::errc::no_buffer_space);
  EXPECT_EQ(buffered(), 0U);
}

TEST_F(OutputCap, IsNoneUnlessAskedFor) {
  meet(1);
  EXPECT_TRUE(guest().send(std::string(2 << 20, 'x')));
  EXPECT_GT(guest().unsent_bytes(), 1U << 20);
  turn_times(reactor, 3);
  EXPECT_TRUE(is_open(0));
}

TEST_F(OutputCap, LetsThePeersLastWordsBeHeard) {
  std::string heard;
  AcceptorOptions options;
  options.connection.output_bytes_max = 1;
  ChannelId id = ChannelId::kNone;
  std::optional<std::error_code> why;
  acceptor.emplace(reactor, kLoopback,
                   ConnectionHandlers{.open =
                                          [&](Connection& guest) {
                                            id = guest.id();
                                            (void)set_socket_option(guest.fd(), SOL_SOCKET, SO_SNDBUF, 5'000);
                                          },
                                      .data = [&](Connection&, std::string_view bytes) { heard += bytes; },
                                      .closed = [&](Connection&, std::error_code error) { why = error; }},
                   options);
  Peer peer(acceptor->endpoint(), {.receive_buffer_bytes = 5'000});
  ASSERT_TRUE(turn_until(reactor, [&] { return id != ChannelId::kNone; }));
  turn_times(reactor, 2);
  ASSERT_TRUE(peer.send("last words"));
  ASSERT_TRUE(await_events(reactor.find(id)->fd(), POLLIN));
  EXPECT_FALSE(reactor.find<Connection>(id)->send(std::string(2 << 20, 'x')));
  ASSERT_TRUE(turn_until(reactor, [&] { return why.has_value(); }));
  EXPECT_EQ(*why, std::errc::no_buffer_space);
  EXPECT_EQ(heard, "last words");
}

// ---- Of a reactor

TEST_F(OutputCap, OfAReactorIsNeverExceeded) {
  constexpr std::size_t kMax = 1 << 20;
  constexpr std::size_t kGuests = 20;
  meet(kGuests);
  reactor.set_buffered_bytes_max(kMax);
  const std::string piece(30'000, 'x');
  std::size_t refused = 0;
  for (int round = 0; round < 10; ++round) {
    for (std::size_t i = 0; i < kGuests; ++i) {
      if (!is_open(i)) continue;
      if (!guest(i).send(piece)) ++refused;
      ASSERT_LE(buffered(), kMax);
    }
  }
  EXPECT_GT(refused, 0U);
  EXPECT_LT(refused, kGuests) << "who is refused gives back what it had, and there is room for others";
  ASSERT_TRUE(turn_until(reactor, [&] { return ended.size() == refused; }));
  for (const auto& [id, why] : ended) EXPECT_EQ(why, std::errc::no_buffer_space) << why.message();
  for (std::size_t i = 0; i < kGuests; ++i) EXPECT_EQ(is_open(i), ended.count(ids[i]) == 0);
  ASSERT_TRUE(turn_until_all_is_taken());
  for (std::size_t i = 0; i < kGuests; ++i) {
    EXPECT_TRUE(!is_open(i) || guest(i).send("and on"));
  }
  EXPECT_EQ(ended.size(), refused) << "only those who asked for too much";
}

TEST_F(OutputCap, OfAReactorEndsOnlyWhoAsksForMore) {
  meet(3);
  (void)fill_the_kernel(0);
  (void)fill_the_kernel(1);
  EXPECT_TRUE(guest(0).send(std::string(100'000, 'x')));
  reactor.set_buffered_bytes_max(buffered() + 10'000);
  EXPECT_FALSE(guest(1).send(std::string(200'000, 'y')));
  EXPECT_TRUE(guest(2).send("the kernel takes it")) << "which needs no memory of ours";
  ASSERT_TRUE(turn_until(reactor, [&] { return ended.size() == 1; }));
  EXPECT_EQ(ended[ids[1]], std::errc::no_buffer_space);
  EXPECT_TRUE(is_open(0));
  EXPECT_TRUE(is_open(2));
}

TEST_F(OutputCap, OfAReactorMayBeLiftedAgain) {
  meet(2);
  (void)fill_the_kernel(0);
  (void)fill_the_kernel(1);
  reactor.set_buffered_bytes_max(buffered());
  EXPECT_FALSE(guest(0).send(std::string(100'000, 'x')));
  reactor.set_buffered_bytes_max(0);
  EXPECT_TRUE(guest(1).send(std::string(1'000'000, 'x')));
  ASSERT_TRUE(turn_until(reactor, [&] { return ended.size() == 1; }));
  EXPECT_TRUE(is_open(1));
}

// ---- The account

TEST_F(OutputCap, CountsTheMemoryThatHoldsWhatWaits) {
  meet(3);
  EXPECT_EQ(buffered(), 0U);
  std::size_t waiting = 0;
  for (std::size_t i = 0; i < 3; ++i) {
    (void)fill_the_kernel(i);
    EXPECT_TRUE(guest(i).send(std::string(50'000 * (i + 1), 'x')));
    waiting += guest(i).unsent_bytes();
    EXPECT_GE(buffered(), waiting);
    EXPECT_LE(buffered(), 4 * waiting) << "twice the memory, of which half may be free";
  }
  ASSERT_TRUE(turn_until_all_is_taken());
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(guest(i).unsent_bytes(), 0U);
}

TEST_F(OutputCap, ReturnsToZeroHoweverTheyEnd) {
  meet(6, {.output_bytes_max = 1 << 20});
  for (std::size_t i = 0; i < 6; ++i) {
    EXPECT_TRUE(guest(i).send(std::string(200'000, 'x')));
    Fd file(::memfd_create("file", MFD_CLOEXEC));
    ASSERT_EQ(::ftruncate(file.get(), 100'000), 0);
    EXPECT_TRUE(guest(i).send_file(std::move(file), 0, 100'000));
    EXPECT_TRUE(guest(i).send(std::string(200'000, 'x')));
  }
  std::size_t before = buffered();
  const auto expect_less = [&] {
    turn_times(reactor, 3);
    EXPECT_LE(buffered() + 400'000, before);
    before = buffered();
  };
  guest(0).abort();
  expect_less();
  peers[1].reset();
  expect_less();
  EXPECT_FALSE(guest(2).send(std::string(2 << 20, 'x')));
  expect_less();
  guest(3).close();
  ASSERT_TRUE(turn_until(reactor, [&] { return peers[3].drain(); }));
  peers[3].close();
  expect_less();
  acceptor.reset();
  ASSERT_TRUE(turn_until(reactor, [&] { return peers[4].drain(); }));
  peers[4].close();
  expect_less();
  peers[5].reset();
  ASSERT_TRUE(turn_until(reactor, [&] { return reactor.metrics().channels == 0; }));
  EXPECT_EQ(buffered(), 0U);
}

// A byte at a time, in and out: whatever is moved or allocated anew, the account follows.
TEST_F(OutputCap, StaysExactOverManySendsAndSips) {
  meet(1);
  std::size_t given = 0;
  for (int round = 0; round < 30; ++round) {
    for (int i = 0; i < 50; ++i) {
      const auto size = static_cast<std::size_t>(1 + (round * 50 + i) * 7 % 3'000);
      ASSERT_TRUE(guest().send(std::string(size, 'x')));
      given += size;
      ASSERT_GE(buffered(), guest().unsent_bytes());
      ASSERT_TRUE(guest().unsent_bytes() > 0 || buffered() == 0);
    }
    std::array<char, 20'000> sip;
    given -= static_cast<std::size_t>(
        std::max<ssize_t>(::recv(peers[0].fd(), sip.data(), sip.size(), MSG_DONTWAIT), 0));
    turn_times(reactor, 1);
  }
  ASSERT_TRUE(turn_until(reactor, [&] { return peers[0].drain(), peers[0].received().size() == given; }));
  turn_times(reactor, 3);
  EXPECT_EQ(buffered(), 0U);
}

}  // namespace
}  // namespace anteroom
